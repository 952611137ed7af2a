//! From bytes to a [`Payload`], or to what the bytes are instead.

use std::collections::BTreeMap;

use goblin::elf::header::{self, header64::Header};
use goblin::elf::section_header as sh;

use xsplice_report::{Diagnostic, Problems};

use super::{Payload, Relocation, RelocationSection, Section, Symbol};
use crate::{codes, elf};

impl<'a> Payload<'a> {
    /// Takes a file apart.
    ///
    /// # Errors
    /// A failure [`codes::NOT_A_PAYLOAD`] that names what the file is instead, if it is no ELF64 little
    /// endian x86-64 relocatable file with a readable section table.
    pub fn parse(bytes: &'a [u8]) -> Result<Payload<'a>, Problems> {
        if let Some(what) = something_else(bytes) {
            return Err(not_a_payload(&what));
        }
        let header = Header::parse(bytes)
            .map_err(|_| not_a_payload("an ELF file that ends inside its file header of 64 bytes"))?;
        let sections = read_sections(bytes, &header)?;
        let symtab = sections.iter().rposition(|s| s.kind == sh::SHT_SYMTAB);
        let symbols = symtab.map(|index| read_symbols(&sections, index)).unwrap_or_default();
        let relocations = read_relocations(&sections, bytes.len() as u64)?;
        let by_place = places(&sections, &relocations);
        let by_value = names(&symbols);
        let mut by_name = BTreeMap::new();
        for section in sections.iter().skip(1).filter(|section| section.name_ok) {
            by_name.entry(section.name).or_insert(section.index);
        }
        Ok(Payload { bytes, header, sections, symtab, symbols, relocations, by_name, by_place, by_value })
    }
}

fn not_a_payload(what: &str) -> Problems {
    Diagnostic::new(codes::NOT_A_PAYLOAD, format!("not a payload, but {what}"))
        .why("A payload is an ELF64 relocatable file for x86-64 with .livepatch sections.")
        .advice("Give a .livepatch file, as `xsplice build` writes it.")
        .into()
}

/// What a file is, if it is not an ELF64 little endian x86-64 relocatable file.
fn something_else(bytes: &[u8]) -> Option<String> {
    const MAGICS: [(&[u8], &str); 9] = [
        (b"\x1f\x8b", "a gzip file"),
        (b"\xfd7zXZ\0", "an xz file"),
        (b"\x28\xb5\x2f\xfd", "a zstd file"),
        (b"BZh", "a bzip2 file"),
        (b"PK\x03\x04", "a zip file"),
        (b"!<arch>\n", "an ar archive (a static library or a Debian package)"),
        (b"\xed\xab\xee\xdb", "an RPM package"),
        (b"MZ", "a PE image, such as xen.efi"),
        (b"#!", "a script"),
    ];
    if bytes.is_empty() {
        return Some("an empty file".into());
    }
    if !bytes.starts_with(b"\x7fELF") {
        if let Some((_, what)) = MAGICS.iter().find(|(magic, _)| bytes.starts_with(magic)) {
            return Some((*what).into());
        }
        let start = &bytes[..bytes.len().min(4096)];
        let text = start.iter().all(|&b| b >= 0x20 || matches!(b, b'\n' | b'\r' | b'\t'));
        return Some(if text { "a text file" } else { "a file of an unknown kind" }.into());
    }
    if bytes.len() < elf::HEADER_SIZE as usize {
        return Some("an ELF file that ends inside its file header of 64 bytes".into());
    }
    match (bytes[header::EI_CLASS], bytes[header::EI_DATA]) {
        (header::ELFCLASS64, header::ELFDATA2LSB) => {}
        (header::ELFCLASS32, _) => return Some("a 32-bit ELF file".into()),
        (_, header::ELFDATA2MSB) => return Some("a big endian ELF file".into()),
        (class, data) => return Some(format!("an ELF file of class {class} and byte order {data}")),
    }
    let kind = u16::from_le_bytes([bytes[16], bytes[17]]);
    let machine = u16::from_le_bytes([bytes[18], bytes[19]]);
    match kind {
        header::ET_REL => {}
        header::ET_EXEC => return Some("a linked ELF executable, such as xen-syms".into()),
        header::ET_DYN => return Some("an ELF shared object or position independent executable".into()),
        header::ET_CORE => return Some("an ELF core dump".into()),
        other => return Some(format!("an ELF file of type {other}")),
    }
    match machine {
        header::EM_X86_64 => None,
        header::EM_AARCH64 => Some("a relocatable file for arm64".into()),
        other => Some(format!("a relocatable file for ELF machine {other}")),
    }
}

fn read_sections<'a>(bytes: &'a [u8], header: &Header) -> Result<Vec<Section<'a>>, Problems> {
    let stride = u64::from(header.e_shentsize);
    if stride < elf::SECTION_HEADER_SIZE {
        return Err(not_a_payload("an ELF file without a section table that can be read"));
    }
    let raw_at = |index: u64| {
        let offset = header.e_shoff.checked_add(index * stride)?;
        elf::section_header(bytes, offset)
    };
    let names = raw_at(u64::from(header.e_shstrndx))
        .filter(|_| header.e_shstrndx < header.e_shnum)
        .and_then(|raw| elf::slice(bytes, raw.sh_offset, raw.sh_size))
        .unwrap_or_default();
    let mut sections = Vec::with_capacity(usize::from(header.e_shnum));
    for index in 0..u64::from(header.e_shnum) {
        let raw = raw_at(index)
            .ok_or_else(|| not_a_payload("an ELF file whose section table goes past its end"))?;
        let name = elf::string(names, raw.sh_name as u64);
        let data = (index != 0 && raw.sh_type != sh::SHT_NOBITS)
            .then(|| elf::slice(bytes, raw.sh_offset, raw.sh_size))
            .flatten();
        sections.push(Section {
            index: index as usize,
            name: name.unwrap_or_default(),
            name_ok: name.is_some(),
            name_inside: raw.sh_name < names.len(),
            kind: raw.sh_type,
            flags: raw.sh_flags,
            addr: raw.sh_addr,
            offset: raw.sh_offset,
            size: raw.sh_size,
            align: raw.sh_addralign,
            entsize: raw.sh_entsize,
            link: raw.sh_link,
            info: raw.sh_info,
            data,
        });
    }
    Ok(sections)
}

fn read_symbols<'a>(sections: &[Section<'a>], index: usize) -> Vec<Symbol<'a>> {
    let table = &sections[index];
    let strings = sections.get(table.link as usize).and_then(|s| s.data).unwrap_or_default();
    let (Some(data), Ok(stride)) = (table.data, usize::try_from(table.entsize)) else {
        return Vec::new();
    };
    if table.entsize < elf::SYMBOL_SIZE {
        return Vec::new();
    }
    data.chunks_exact(stride)
        .filter_map(elf::symbol)
        .map(|raw| {
            let name = elf::string(strings, raw.st_name as u64);
            Symbol {
                name: name.unwrap_or_default(),
                name_ok: name.is_some(),
                name_inside: raw.st_name < strings.len(),
                value: raw.st_value,
                size: raw.st_size,
                kind: raw.st_type(),
                binding: raw.st_bind(),
                section: raw.st_shndx,
            }
        })
        .collect()
}

fn read_relocations(sections: &[Section<'_>], size: u64) -> Result<Vec<RelocationSection>, Problems> {
    // Sections of a hostile file may all share the same bytes; those of an honest one do not.
    let mut left = size / elf::RELA_SIZE;
    let mut all = Vec::new();
    for section in sections.iter().filter(|s| matches!(s.kind, sh::SHT_RELA | sh::SHT_REL)) {
        let with_addends = section.kind == sh::SHT_RELA;
        let sound = section.entsize >= elf::RELA_SIZE && section.size % section.entsize == 0;
        let data = section.data.filter(|_| with_addends && (sound || section.size == 0));
        let mut entries = Vec::new();
        if let (Some(data), true) = (data, section.size > 0) {
            left = left
                .checked_sub(section.size / section.entsize)
                .ok_or_else(|| not_a_payload("an ELF file whose relocation sections overlap each other"))?;
            let read = |raw: &[u8]| {
                elf::rela(raw).map(|r| Relocation {
                    offset: r.r_offset,
                    kind: r.r_type,
                    symbol: r.r_sym,
                    addend: r.r_addend.unwrap_or(0),
                })
            };
            entries = data.chunks_exact(section.entsize as usize).filter_map(read).collect();
        }
        all.push(RelocationSection {
            section: section.index,
            target: section.info as usize,
            link: section.link as usize,
            with_addends,
            readable: data.is_some(),
            entries,
        });
    }
    Ok(all)
}

fn places(sections: &[Section<'_>], relocations: &[RelocationSection]) -> BTreeMap<(usize, u64), Relocation> {
    let mut places = BTreeMap::new();
    for group in relocations.iter().filter(|g| sections.get(g.target).is_some_and(Section::is_loaded)) {
        for relocation in group.entries.iter().filter(|r| r.kind != super::R_X86_64_NONE) {
            places.insert((group.target, relocation.offset), *relocation);
        }
    }
    places
}

/// The name of each place: functions before others, then globals before locals, then by name.
fn names<'a>(symbols: &[Symbol<'a>]) -> BTreeMap<(usize, u64), &'a str> {
    let rank = |s: &Symbol<'a>| (s.kind != goblin::elf::sym::STT_FUNC, s.binding == 0, s.name);
    let mut best: BTreeMap<(usize, u64), &Symbol<'a>> = BTreeMap::new();
    for symbol in symbols.iter().filter(|s| !s.name.is_empty() && !s.is_undefined()) {
        let held = best.entry((symbol.section, symbol.value)).or_insert(symbol);
        if rank(symbol) < rank(held) {
            *held = symbol;
        }
    }
    best.into_iter().map(|(place, symbol)| (place, symbol.name)).collect()
}
