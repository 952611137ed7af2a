//! Writes ELF64 files for x86-64: payloads made by hand, and symbol files of hypervisors that come without one.

/// SHT_PROGBITS.
pub const PROGBITS: u32 = 1;
/// SHT_NOTE.
pub const NOTE: u32 = 7;
/// SHT_NOBITS.
pub const NOBITS: u32 = 8;
/// SHF_WRITE.
pub const W: u64 = 1;
/// SHF_ALLOC.
pub const A: u64 = 2;
/// SHF_EXECINSTR.
pub const X: u64 = 4;
/// R_X86_64_NONE.
pub const RNONE: u32 = 0;
/// R_X86_64_64.
pub const R64: u32 = 1;
/// R_X86_64_PC32.
pub const PC32: u32 = 2;
/// R_X86_64_PLT32.
pub const PLT32: u32 = 4;

/// A relocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rel {
    /// In bytes, in the section.
    pub offset: u64,
    /// Its type, such as [`PC32`].
    pub kind: u32,
    /// The symbol's name.
    pub symbol: String,
    /// Its addend.
    pub addend: i64,
}

struct Section {
    name: String,
    kind: u32,
    flags: u64,
    align: u64,
    address: u64,
    data: Vec<u8>,
    /// Another section, by number, whose contents are these too.
    same: Option<usize>,
    link: u32,
    info: u32,
    entry: u64,
}

struct Symbol {
    name: String,
    section: u16,
    value: u64,
    size: u64,
    kind: u8,
}

/// A file to be.
pub struct Elf {
    kind: u16,
    base: u64,
    sections: Vec<Section>,
    symbols: Vec<Symbol>,
    /// Sections by name, with the relocations of each.
    pub relocations: Vec<(String, Vec<Rel>)>,
    /// More names among those of sections.
    pub section_names: Vec<String>,
    /// More names among those of symbols, behind theirs.
    pub symbol_names: Vec<String>,
}

impl Elf {
    /// `kind` is e_type: 1 for relocatable files, 2 for executables; `base` the address of all sections.
    pub fn new(kind: u16, base: u64) -> Elf {
        Elf {
            kind,
            base,
            sections: Vec::new(),
            symbols: Vec::new(),
            relocations: Vec::new(),
            section_names: Vec::new(),
            symbol_names: Vec::new(),
        }
    }

    /// Adds a section.
    pub fn section(&mut self, name: &str, kind: u32, flags: u64, align: u64, data: &[u8]) {
        self.sections.push(Section {
            name: name.to_owned(),
            kind,
            flags,
            align,
            address: if flags & A == 0 { 0 } else { self.base },
            data: data.to_vec(),
            same: None,
            link: 0,
            info: 0,
            entry: 0,
        });
    }

    /// Adds another section for the contents of the first.
    pub fn section_again(&mut self, name: &str, flags: u64) {
        self.section(name, PROGBITS, flags, 1, &[]);
        if let Some(section) = self.sections.last_mut() {
            section.same = Some(0);
        }
    }

    /// The number of a section.
    fn number(&self, name: &str) -> usize {
        self.sections.iter().position(|section| section.name == name).map_or(0, |at| at + 1)
    }

    /// Adds a global symbol of a section.
    pub fn symbol(&mut self, name: &str, section: &str, value: u64, size: u64, kind: u8) {
        let section = self.number(section) as u16;
        self.symbols.push(Symbol { name: name.to_owned(), section, value, size, kind });
    }

    /// Adds an undefined symbol.
    pub fn undefined(&mut self, name: &str) {
        self.symbols.push(Symbol { name: name.to_owned(), section: 0, value: 0, size: 0, kind: 0 });
    }

    /// The file.
    pub fn to_bytes(mut self) -> Vec<u8> {
        let table = self.sections.len() as u32 + self.relocations.len() as u32 + 1;
        for (target, relocations) in std::mem::take(&mut self.relocations) {
            let info = self.number(&target) as u32;
            let mut data = Vec::new();
            for rel in relocations {
                // A name that is nobody's gives symbol 0, which every loader refuses.
                let symbol = self.symbols.iter().position(|s| s.name == rel.symbol).map_or(0, |at| at + 1);
                data.extend(rel.offset.to_le_bytes());
                data.extend(((symbol as u64) << 32 | u64::from(rel.kind)).to_le_bytes());
                data.extend(rel.addend.to_le_bytes());
            }
            self.section(&format!(".rela{target}"), 4, 0, 8, &data);
            self.link_last(table, info, 24);
        }
        let mut names = Strings::default();
        let mut data = vec![0; 24];
        for symbol in &self.symbols {
            data.extend(names.add(&symbol.name).to_le_bytes());
            data.extend([1 << 4 | symbol.kind, 0]);
            data.extend(symbol.section.to_le_bytes());
            data.extend(symbol.value.to_le_bytes());
            data.extend(symbol.size.to_le_bytes());
        }
        for name in std::mem::take(&mut self.symbol_names) {
            names.add(&name);
        }
        self.section(".symtab", 2, 0, 8, &data);
        self.link_last(table + 1, 1, 24);
        self.section(".strtab", 3, 0, 1, &names.0);
        let mut names = Strings::default();
        let mut offsets: Vec<u32> = self.sections.iter().map(|section| names.add(&section.name)).collect();
        offsets.push(names.add(".shstrtab"));
        for name in std::mem::take(&mut self.section_names) {
            names.add(&name);
        }
        self.section(".shstrtab", 3, 0, 1, &names.0);
        self.lay_out(&offsets)
    }

    fn link_last(&mut self, link: u32, info: u32, entry: u64) {
        if let Some(section) = self.sections.last_mut() {
            (section.link, section.info, section.entry) = (link, info, entry);
        }
    }

    fn lay_out(&self, names: &[u32]) -> Vec<u8> {
        let mut out = vec![0; 64];
        let mut places = Vec::new();
        for section in &self.sections {
            if let Some(same) = section.same {
                places.push(places.get(same).copied().unwrap_or((0, 0)));
                continue;
            }
            out.resize(out.len().next_multiple_of(section.align.max(1) as usize), 0);
            places.push((out.len() as u64, section.data.len() as u64));
            if section.kind != NOBITS {
                out.extend(&section.data);
            }
        }
        out.resize(out.len().next_multiple_of(8), 0);
        let table = out.len() as u64;
        out.resize(out.len() + 64, 0);
        for ((section, name), (offset, size)) in self.sections.iter().zip(names).zip(&places) {
            out.extend(name.to_le_bytes());
            out.extend(section.kind.to_le_bytes());
            for number in [section.flags, section.address, *offset, *size] {
                out.extend(number.to_le_bytes());
            }
            out.extend(section.link.to_le_bytes());
            out.extend(section.info.to_le_bytes());
            out.extend(section.align.to_le_bytes());
            out.extend(section.entry.to_le_bytes());
        }
        out[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        let count = self.sections.len() as u16 + 1;
        for (at, number) in [
            (16, self.kind),
            (18, 62),
            (20, 1),
            (52, 64),
            // Executables say how large a program header would be.
            (54, if self.kind == 1 { 0 } else { 56 }),
            (58, 64),
            (60, count),
            (62, count - 1),
        ] {
            out[at..at + 2].copy_from_slice(&number.to_le_bytes());
        }
        out[40..48].copy_from_slice(&table.to_le_bytes());
        out
    }
}

/// A string table; it starts with an empty one.
struct Strings(Vec<u8>);

impl Default for Strings {
    fn default() -> Strings {
        Strings(vec![0])
    }
}

impl Strings {
    fn add(&mut self, text: &str) -> u32 {
        let at = self.0.len() as u32;
        self.0.extend(text.as_bytes());
        self.0.push(0);
        at
    }
}
