//! The shipped hypervisor, read from its symbol file (xen-syms, an ELF64 executable).
//!
//! Xen answers names from a table of its own, which xen/tools/symbols.c makes from the output of
//! `nm -pa` (4.13 to 4.22, with --all-symbols under LIVEPATCH): in the order of the ELF symbol table,
//! each FILE symbol names the file of the locals that follow it, and a local stands in the table as
//! `file#name`. Where the build enforces unique symbols that file is a path (`common/domain.c`),
//! otherwise a bare name. This module rebuilds those names, and nothing else of Xen's table.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use goblin::elf::header::{self, header64::Header};
use goblin::elf::section_header::{self as sh, SectionHeader};
use goblin::elf::sym;

use xsplice_report::{Diagnostic, Problems};

use crate::traits::{XenVersion, leading_number};
use crate::{codes, elf};

/// Bytes of the area that holds the image and all payloads: XEN_VIRT_START to XEN_VIRT_END
/// (xen/arch/x86/include/asm/config.h, 4.13 to 4.22).
const AREA: u64 = 1 << 30;

/// More symbols than any hypervisor has, by a factor of a hundred.
const MOST_SYMBOLS: u64 = 1 << 20;

/// Bytes of a `struct alt_instr` (xen/arch/x86/include/asm/alternative.h, 4.13 to 4.22).
const ALTERNATIVE: usize = 14;

/// Bytes of a direct or indirect call site that Xen rewrites at boot.
const CALL_SITE: u64 = 6;

/// ENDBR64, where an indirect call may land.
pub(crate) const ENDBR: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

/// Absolute symbols that the table keeps (xen/tools/symbols.c).
const KEPT_ABSOLUTE: [&str; 6] =
    ["_stext", "_etext", "_sinittext", "_einittext", "_sextratext", "_eextratext"];

/// What names and addresses of a hypervisor a payload can rely on.
#[derive(Debug, Clone)]
pub struct XenSymbols<'a> {
    bytes: &'a [u8],
    sections: Vec<SectionHeader>,
    symbols: Vec<XenSymbol<'a>>,
    by_name: BTreeMap<String, Vec<usize>>,
    by_address: BTreeMap<u64, Vec<usize>>,
    by_plain_name: BTreeMap<&'a str, Vec<usize>>,
    build_id: Option<Vec<u8>>,
    init: Option<Range<u64>>,
    image: Range<u64>,
    /// In ascending order of their starts.
    rewritten: Vec<Range<u64>>,
    /// Bytes of the longest of these.
    longest_rewritten: u64,
    sealable: Vec<u64>,
    altcall_feature: Option<u16>,
    /// Features of its own alternatives are below this.
    features: u16,
    /// Whether the file holds the list of alternatives: else what boot rewrites is not known.
    knows_boot: bool,
}

/// One symbol that Xen's own table holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XenSymbol<'a> {
    /// The name under which Xen finds it.
    pub table_name: String,
    /// The name in the source.
    pub name: &'a str,
    /// Virtual address.
    pub address: u64,
    /// Size in bytes; 0 where the assembler was not told.
    pub size: u64,
    /// Whether it is in executable memory after boot or during it, by its section's flags.
    pub is_code: bool,
    /// Whether the ELF symbol says that it is a function.
    pub is_function: bool,
}

impl<'a> XenSymbols<'a> {
    /// Reads a xen-syms.
    ///
    /// # Errors
    /// A failure [`codes::NOT_XEN_SYMS`] if the file is no ELF64 x86-64 executable, has no symbol table,
    /// or lacks the symbols that bound the image.
    pub fn parse(bytes: &'a [u8]) -> Result<XenSymbols<'a>, Problems> {
        let header =
            executable_header(bytes).ok_or_else(|| not_xen("it is not an ELF64 executable for x86-64"))?;
        let sections = sections(bytes, &header).ok_or_else(|| not_xen("its section table cannot be read"))?;
        let symbols = symbols(bytes, &sections)?;
        let mut by_name: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let mut by_address: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        let mut by_plain_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, symbol) in symbols.iter().enumerate() {
            by_name.entry(symbol.table_name.clone()).or_default().push(index);
            by_address.entry(symbol.address).or_default().push(index);
            by_plain_name.entry(symbol.name).or_default().push(index);
        }
        let build_id = build_id(bytes, &header, &sections);
        let mut xen = XenSymbols {
            bytes,
            sections,
            symbols,
            by_name,
            by_address,
            by_plain_name,
            build_id,
            init: None,
            image: 0..0,
            rewritten: Vec::new(),
            longest_rewritten: 0,
            sealable: Vec::new(),
            altcall_feature: None,
            features: 0,
            knows_boot: false,
        };
        let start = xen.bound("_start").or_else(|| xen.bound("_stext"));
        // The area for payloads begins where the last 2 MiB page of the image ends.
        let end = xen.bound("__2M_rwdata_end").or_else(|| xen.bound("_end"));
        match (start, end) {
            (Some(start), Some(end)) if start < end => xen.image = start..end,
            _ => return Err(not_xen("it has no symbols _start and _end that bound an image")),
        }
        xen.init = match (xen.bound("__init_begin"), xen.bound("__init_end")) {
            (Some(begin), Some(end)) if begin < end => Some(begin..end),
            _ => None,
        };
        xen.rewritten = xen.rewritten_at_boot();
        xen.longest_rewritten = xen.rewritten.iter().map(|range| range.end - range.start).max().unwrap_or(0);
        let sealable = xen.sealed_at_boot();
        xen.altcall_feature = xen.feature_of_altcalls();
        xen.features = xen.features_of_alternatives();
        xen.knows_boot =
            sealable.is_some() && xen.table("__alt_instructions", "__alt_instructions_end").is_some();
        xen.sealable = sealable.unwrap_or_default();
        Ok(xen)
    }

    /// Everything in the table, in the order of the ELF symbol table.
    pub fn symbols(&self) -> &[XenSymbol<'a>] {
        &self.symbols
    }

    /// All symbols of one table name: more than one where names are not unique.
    pub fn named(&self, table_name: &str) -> impl Iterator<Item = &XenSymbol<'a>> {
        self.by_name.get(table_name).into_iter().flatten().map(|&i| &self.symbols[i])
    }

    /// All symbols at an address.
    pub fn at(&self, address: u64) -> impl Iterator<Item = &XenSymbol<'a>> {
        self.by_address.get(&address).into_iter().flatten().map(|&i| &self.symbols[i])
    }

    /// Table names that several symbols share, in order.
    pub fn duplicates(&self) -> impl Iterator<Item = &str> {
        self.by_name.iter().filter(|(_, all)| all.len() > 1).map(|(name, _)| name.as_str())
    }

    /// The table names of all symbols with that name in the source: what a user may have meant.
    pub fn table_names_of(&self, name: &str) -> Vec<&str> {
        let all = self.by_plain_name.get(name).into_iter().flatten();
        let mut names: Vec<&str> = all.map(|&i| self.symbols[i].table_name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The hypervisor's build-id, from its note.
    pub fn build_id(&self) -> Option<&[u8]> {
        self.build_id.as_deref()
    }

    /// The memory that is given back after boot: `__init_begin` to `__init_end`.
    pub fn init(&self) -> Option<Range<u64>> {
        self.init.clone()
    }

    /// The image in memory: `_start` to the end of its last 2 MiB page.
    pub fn image(&self) -> Range<u64> {
        self.image.clone()
    }

    /// Where payloads are placed: from the end of the image to XEN_VIRT_END, which is 1 GiB above the
    /// multiple of 1 GiB that the image is built for (`arch_livepatch_init`, xen/arch/x86/livepatch.c).
    pub fn payload_area(&self) -> Range<u64> {
        let start = self.image.start & !(AREA - 1);
        self.image.end..start.saturating_add(AREA)
    }

    /// Whether an address is in memory that is gone after boot.
    pub fn in_init(&self, address: u64) -> bool {
        self.init.as_ref().is_some_and(|init| init.contains(&address))
    }

    /// The shipped bytes at an address; `None` where the file does not hold all of them.
    pub fn bytes_at(&self, address: u64, size: u64) -> Option<&'a [u8]> {
        let end = address.checked_add(size)?;
        let holds = |s: &&SectionHeader| {
            s.sh_flags & u64::from(sh::SHF_ALLOC) != 0
                && s.sh_type != sh::SHT_NOBITS
                && s.sh_addr <= address
                && s.sh_addr.checked_add(s.sh_size).is_some_and(|section_end| end <= section_end)
        };
        let section = self.sections.iter().find(holds)?;
        elf::slice(self.bytes, section.sh_offset.checked_add(address - section.sh_addr)?, size)
    }

    /// Bytes of the file.
    pub(crate) fn file_size(&self) -> usize {
        self.bytes.len()
    }

    /// What the file holds of memory: each address with the bytes there.
    pub(crate) fn contents(&self) -> impl Iterator<Item = (u64, &'a [u8])> {
        let loaded = |s: &&SectionHeader| {
            s.sh_flags & u64::from(sh::SHF_ALLOC) != 0 && s.sh_type != sh::SHT_NOBITS && s.sh_size > 0
        };
        let bytes = |s: &SectionHeader| Some((s.sh_addr, elf::slice(self.bytes, s.sh_offset, s.sh_size)?));
        self.sections.iter().filter(loaded).filter_map(bytes)
    }

    /// Its version, as far as the code of `xen_major_version` and its kin (xen/common/version.c) shows it: functions
    /// that return a number, and one that returns the text behind both, such as `.5`.
    pub fn version(&self) -> Option<XenVersion> {
        let major = self.returned_number("xen_major_version")?;
        let minor = self.returned_number("xen_minor_version")?;
        let extra = self.returned_text("xen_extra_version");
        let patch = extra.and_then(|text| leading_number(text.strip_prefix('.')?));
        Some(XenVersion { major, minor, patch })
    }

    /// The first bytes of a function, without ENDBR64 and without a frame pointer being set up.
    fn start_of(&self, name: &str) -> Option<(u64, &'a [u8])> {
        const FRAME: [u8; 4] = [0x55, 0x48, 0x89, 0xe5];
        let mut at = self.bound(name)?;
        for prologue in [ENDBR, FRAME] {
            if self.bytes_at(at, prologue.len() as u64) == Some(&prologue) {
                at = at.checked_add(prologue.len() as u64)?;
            }
        }
        Some((at, self.bytes_at(at, 8)?))
    }

    /// What a function returns that begins with `mov $NUMBER,%eax`.
    fn returned_number(&self, name: &str) -> Option<u32> {
        let (_, code) = self.start_of(name)?;
        (code[0] == 0xb8).then(|| elf::u32_at(code, 1)).flatten()
    }

    /// What a function returns that begins with `lea TEXT(%rip),%rax`.
    fn returned_text(&self, name: &str) -> Option<&'a str> {
        const LONGEST: u64 = 64;
        let (at, code) = self.start_of(name)?;
        if code[..3] != [0x48, 0x8d, 0x05] {
            return None;
        }
        let address = at.wrapping_add(7).wrapping_add_signed(i64::from(elf::u32_at(code, 3)? as i32));
        // Near the end of a section less than that is there.
        let bytes = (1..=LONGEST).rev().find_map(|size| self.bytes_at(address, size))?;
        elf::string(bytes, 0)
    }

    /// Whether it was built for CET-IBT: only then any of its functions starts with ENDBR64.
    pub fn has_landing_pads(&self) -> bool {
        let mut functions = self.symbols.iter().filter(|symbol| symbol.is_function);
        functions.any(|symbol| self.bytes_at(symbol.address, ENDBR.len() as u64) == Some(&ENDBR))
    }

    /// The number of the CPU feature of its own altcalls (X86_FEATURE_ALWAYS), which differs between versions; none
    /// where it has no altcalls among its alternatives (4.21 and later, or no such code), or several numbers.
    pub fn altcall_feature(&self) -> Option<u16> {
        self.altcall_feature
    }

    /// How many bytes from `address` on are the same in memory as in the file, at most `size`: up to the
    /// first that boot rewrites as an alternative or an altcall; none where Xen may seal an ENDBR64, or where the file
    /// does not say what boot rewrites.
    pub fn stable_bytes(&self, address: u64, size: u64) -> u64 {
        if !self.knows_boot || self.sealable.binary_search(&address).is_ok() {
            return 0;
        }
        let end = address.saturating_add(size);
        let longest = self.longest_rewritten;
        let first = self.rewritten.partition_point(|range| range.start.saturating_add(longest) <= address);
        let mut near = self.rewritten[first..].iter().take_while(|range| range.start < end);
        near.find(|range| address < range.end).map_or(end, |range| range.start.max(address)) - address
    }

    /// The address of a symbol that bounds something.
    fn bound(&self, name: &str) -> Option<u64> {
        self.named(name).next().map(|s| s.address)
    }

    /// The bytes between two bounding symbols.
    fn table(&self, start: &str, end: &str) -> Option<(u64, &'a [u8])> {
        let (start, end) = (self.bound(start)?, self.bound(end)?);
        // An empty one may be in no section.
        let bytes = if start == end { Some(&[][..]) } else { self.bytes_at(start, end.checked_sub(start)?) };
        Some((start, bytes?))
    }

    /// Its list of alternatives: address and bytes of each.
    fn alternatives(&self) -> impl Iterator<Item = (u64, &'a [u8])> {
        let (start, data) = self.table("__alt_instructions", "__alt_instructions_end").unwrap_or_default();
        // The bytes first: there may be no address behind the last.
        let entries = data.chunks_exact(ALTERNATIVE).zip((start..).step_by(ALTERNATIVE));
        entries.map(|(entry, at)| (at, entry))
    }

    /// The ranges that boot rewrites: originals of alternatives with their padding, and call sites.
    fn rewritten_at_boot(&self) -> Vec<Range<u64>> {
        let mut ranges = Vec::new();
        let relative = |address: u64, raw: &[u8]| {
            elf::u32_at(raw, 0).map(|d| address.wrapping_add_signed(i64::from(d as i32)))
        };
        for (at, entry) in self.alternatives() {
            if let Some(original) = relative(at, entry) {
                let len = u64::from(entry[10]) + u64::from(entry[12]);
                ranges.push(original..original.saturating_add(len));
            }
        }
        if let Some((start, data)) = self.table("__alt_call_sites_start", "__alt_call_sites_end") {
            for (i, entry) in data.chunks_exact(4).enumerate() {
                if let Some(site) = relative(start + i as u64 * 4, entry) {
                    ranges.push(site..site.saturating_add(CALL_SITE));
                }
            }
        }
        ranges.sort_unstable_by_key(|range| (range.start, range.end));
        ranges
    }

    /// The feature of those alternatives whose replacement is a call or jump to itself.
    fn feature_of_altcalls(&self) -> Option<u16> {
        let mut features = self.alternatives().filter_map(|(at, entry)| {
            let distance = elf::u32_at(entry, 4)? as i32;
            let replacement = at.wrapping_add(4).wrapping_add_signed(i64::from(distance));
            let code = self.bytes_at(replacement, 5).filter(|_| entry[11] == 5)?;
            let itself = matches!(code, [0xe8 | 0xe9, 0xfb, 0xff, 0xff, 0xff]);
            elf::u16_at(entry, 8).filter(|_| itself)
        });
        let first = features.next()?;
        features.all(|feature| feature == first).then_some(first)
    }

    /// Numbers of CPU features that are below this are known to it, as whole words; bit 15 may negate one.
    pub(crate) fn features(&self) -> u16 {
        self.features
    }

    fn features_of_alternatives(&self) -> u16 {
        let features = self.alternatives().filter_map(|(_, entry)| elf::u16_at(entry, 8));
        let highest = features.map(|feature| feature & 0x7fff).max();
        highest.map_or(0, |highest| (highest / 32 + 1) * 32)
    }

    /// The functions whose ENDBR64 may be poisoned at boot, sorted; `None` if finding them takes too long.
    fn sealed_at_boot(&self) -> Option<Vec<u64>> {
        let table = self.table("__initdata_cf_clobber_start", "__initdata_cf_clobber_end");
        let data = table.map(|(_, data)| data).unwrap_or_default();
        let mut all: Vec<u64> = data.chunks_exact(8).filter_map(|raw| elf::u64_at(raw, 0)).collect();
        all.retain(|&address| address != 0);
        if let Some((start, data)) = table {
            all.extend(self.sealed_later(start, data.len() as u64)?);
        }
        all.sort_unstable();
        all.dedup();
        Some(all)
    }

    /// The functions that code of init puts into a table of `size` bytes at `start` while it runs, as `start_vmx` does
    /// with what depends on the processor: both stand there as the end of an instruction's displacement, or whole.
    /// More than these may be found, since instructions are not told apart. `None` if functions lie over one another, so
    /// that together they are longer than the file.
    fn sealed_later(&self, start: u64, size: u64) -> Option<Vec<u64>> {
        let pads = |address: &u64| self.bytes_at(*address, ENDBR.len() as u64) == Some(&ENDBR);
        let is_function = |address: &u64| self.at(*address).any(|symbol| symbol.is_function);
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        let mut left = self.bytes.len();
        for symbol in self.symbols.iter().filter(|s| s.is_function && self.in_init(s.address)) {
            let Some(code) = self.bytes_at(symbol.address, symbol.size) else { continue };
            if !seen.insert((symbol.address, symbol.size)) {
                continue;
            }
            left = left.checked_sub(code.len())?;
            let ends = code.windows(4).enumerate().filter_map(|(at, raw)| {
                let end = symbol.address.wrapping_add(at as u64 + 4);
                Some(end.wrapping_add_signed(i64::from(elf::u32_at(raw, 0)? as i32)))
            });
            let wholes = code.windows(8).filter_map(|raw| elf::u64_at(raw, 0));
            let named: Vec<u64> = ends.chain(wholes).collect();
            if named.iter().any(|address| address.wrapping_sub(start) < size) {
                found.extend(named.into_iter().filter(|address| is_function(address) && pads(address)));
            }
        }
        Some(found)
    }
}

fn not_xen(why: &str) -> Problems {
    Diagnostic::new(codes::NOT_XEN_SYMS, "the hypervisor's symbol file cannot be used")
        .why(format!("Names and addresses cannot be checked against it: {why}."))
        .advice("Give the xen-syms of the running hypervisor; distributions ship it in a debug package.")
        .into()
}

fn executable_header(bytes: &[u8]) -> Option<Header> {
    let ident = bytes.get(..elf::HEADER_SIZE as usize)?;
    let ok = ident.starts_with(b"\x7fELF")
        && ident[header::EI_CLASS] == header::ELFCLASS64
        && ident[header::EI_DATA] == header::ELFDATA2LSB;
    let header = Header::parse(bytes).ok().filter(|_| ok)?;
    let kind_ok = matches!(header.e_type, header::ET_EXEC | header::ET_DYN);
    (kind_ok && header.e_machine == header::EM_X86_64).then_some(header)
}

fn sections(bytes: &[u8], header: &Header) -> Option<Vec<SectionHeader>> {
    let stride = u64::from(header.e_shentsize);
    if stride < elf::SECTION_HEADER_SIZE || header.e_shnum == 0 {
        return None;
    }
    (0..u64::from(header.e_shnum))
        .map(|i| elf::section_header(bytes, header.e_shoff.checked_add(i * stride)?))
        .collect()
}

fn symbols<'a>(bytes: &'a [u8], sections: &[SectionHeader]) -> Result<Vec<XenSymbol<'a>>, Problems> {
    let table = sections
        .iter()
        .find(|s| s.sh_type == sh::SHT_SYMTAB)
        .ok_or_else(|| not_xen("it has no symbol table; it may be stripped"))?;
    let data = elf::slice(bytes, table.sh_offset, table.sh_size);
    let strings = sections
        .get(table.sh_link as usize)
        .and_then(|s| elf::slice(bytes, s.sh_offset, s.sh_size))
        .unwrap_or_default();
    let data = data
        .filter(|_| table.sh_entsize == elf::SYMBOL_SIZE && table.sh_size / elf::SYMBOL_SIZE <= MOST_SYMBOLS)
        .ok_or_else(|| not_xen("its symbol table is damaged"))?;
    let mut file: Option<&str> = None;
    let mut all = Vec::new();
    for raw in data.chunks_exact(elf::SYMBOL_SIZE as usize).skip(1).filter_map(elf::symbol) {
        let Some(name) = elf::string(strings, raw.st_name as u64) else { continue };
        if raw.st_type() == sym::STT_FILE {
            // nm prints nothing that the generator could read for a nameless one.
            if !name.is_empty() {
                file = Some(name);
            }
            continue;
        }
        if let Some(symbol) = table_symbol(raw, name, file, sections) {
            all.push(symbol);
        }
    }
    Ok(all)
}

/// One ELF symbol as an entry of Xen's table; `None` for those that the generator leaves out:
/// undefined ones, those of sections that are not loaded, absolute ones but for six, and names that
/// start with `$` or vary between link passes.
fn table_symbol<'a>(
    raw: sym::Sym,
    name: &'a str,
    file: Option<&str>,
    sections: &[SectionHeader],
) -> Option<XenSymbol<'a>> {
    let absolute = raw.st_shndx == crate::payload::SHN_ABS;
    if absolute && !KEPT_ABSOLUTE.contains(&name) {
        return None;
    }
    let section = sections.get(raw.st_shndx).filter(|_| raw.st_shndx != 0);
    let loaded = section.is_some_and(|s| s.sh_flags & u64::from(sh::SHF_ALLOC) != 0);
    if name.is_empty() || name.starts_with('$') || name.contains("_compiled.") || !(absolute || loaded) {
        return None;
    }
    let is_local = raw.st_bind() == sym::STB_LOCAL;
    let table_name = match file.filter(|_| is_local) {
        Some(file) => format!("{file}#{name}"),
        None => name.to_string(),
    };
    Some(XenSymbol {
        table_name,
        name,
        address: raw.st_value,
        size: raw.st_size,
        is_code: section.is_some_and(|s| s.sh_flags & u64::from(sh::SHF_EXECINSTR) != 0),
        is_function: raw.st_type() == sym::STT_FUNC,
    })
}

/// The id from the first sound build-id note: of a note segment, else of a note section. No more is read than twice the
/// file: each note once as part of a segment, and once of a section.
fn build_id(bytes: &[u8], header: &Header, sections: &[SectionHeader]) -> Option<Vec<u8>> {
    const PT_NOTE: u32 = 4;
    let segment = |i: u64| {
        let at = header.e_phoff.checked_add(i * u64::from(header.e_phentsize))?;
        let raw = elf::slice(bytes, at, 56)?;
        if elf::u32_at(raw, 0)? != PT_NOTE {
            return None;
        }
        elf::slice(bytes, elf::u64_at(raw, 8)?, elf::u64_at(raw, 32)?)
    };
    let entries = if header.e_phentsize < 56 { 0 } else { u64::from(header.e_phnum) };
    let segments = (0..entries).filter_map(segment);
    let notes = sections
        .iter()
        .filter(|s| s.sh_type == sh::SHT_NOTE)
        .filter_map(|s| elf::slice(bytes, s.sh_offset, s.sh_size));
    let mut left = bytes.len().saturating_mul(2);
    let all = segments.chain(notes).map_while(|data| {
        left = left.checked_sub(data.len())?;
        Some(data)
    });
    all.filter_map(id_among_notes).next()
}

/// The build-id in a run of notes, each padded to 4 bytes.
fn id_among_notes(mut data: &[u8]) -> Option<Vec<u8>> {
    loop {
        if let Ok(id) = elf::build_id_note(data) {
            return Some(id.to_vec());
        }
        let name = u64::from(elf::u32_at(data, 0)?).next_multiple_of(4);
        let description = u64::from(elf::u32_at(data, 4)?).next_multiple_of(4);
        data = data.get(usize::try_from(12 + name + description).ok()?..)?;
    }
}
