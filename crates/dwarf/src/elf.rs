//! The debug sections of a relocatable object, with their relocations applied.
//!
//! Sources: System V ABI (ELF-64), its x86-64 supplement (relocation types 0, 1, 10, 11, 17, 21) and the
//! arm64 one (0, 257, 258).
//!
//! In an object of separate sections every section starts at address 0. To tell them apart, an address in
//! an allocated section is given as `(section index << 32) + offset`; offsets into debug sections stay
//! plain.

use std::ops::Range;

use object::elf;
use object::read::elf::{FileHeader, Rela, SectionHeader, SectionTable, Sym, SymbolTable};
use object::{LittleEndian, SymbolIndex};

use crate::Error;

type Header = elf::FileHeader64<LittleEndian>;
const ENDIAN: LittleEndian = LittleEndian;

/// The sections that are read, in the order of [`Sections::ranges`].
const NAMES: [&[u8]; 7] = [
    b".debug_info",
    b".debug_abbrev",
    b".debug_str",
    b".debug_line_str",
    b".debug_str_offsets",
    b".debug_addr",
    b".debug_line",
];

/// The longest name that is taken, in bytes.
pub(crate) const LONGEST_NAME: usize = 4096;
/// Bytes of names of symbols and sections per byte of the file.
const NAMES_SHARE: usize = 16;

/// Takes a name of this length from what is left for all.
fn take(left: &mut usize, length: usize) -> Result<(), Error> {
    *left = left
        .checked_sub(length)
        .filter(|_| length <= LONGEST_NAME)
        .ok_or_else(|| Error::Elf("names of symbols are longer than any real ones".into()))?;
    Ok(())
}

/// Positions in [`Sections::ranges`].
pub(crate) const INFO: usize = 0;
pub(crate) const ABBREV: usize = 1;
pub(crate) const STR: usize = 2;
pub(crate) const LINE_STR: usize = 3;
pub(crate) const STR_OFFSETS: usize = 4;
pub(crate) const ADDR: usize = 5;
pub(crate) const LINE: usize = 6;

/// A symbol with a place in an allocated section.
#[derive(Debug, Clone)]
pub(crate) struct Symbol {
    pub name: Box<str>,
    pub address: u64,
}

/// The debug sections, relocated, one behind the other.
#[derive(Debug)]
pub(crate) struct Sections {
    pub data: Vec<u8>,
    pub ranges: [Range<usize>; 7],
    /// Names of all sections by index; empty for those that are not allocated.
    pub names: Vec<Box<str>>,
    /// Functions and data, sorted by name.
    pub symbols: Vec<Symbol>,
}

impl Sections {
    /// The bytes of one of the sections.
    pub fn bytes(&self, section: usize) -> &[u8] {
        &self.data[self.ranges[section].clone()]
    }

    /// `None` if there is no `.debug_info`.
    pub fn read(bytes: &[u8]) -> Result<Option<Sections>, Error> {
        // Code of the boot loader stage is ELF32.
        if bytes.starts_with(&elf::ELFMAG) && bytes.get(4) != Some(&elf::ELFCLASS64.0) {
            return Err(Error::NotRelocatable);
        }
        let header = Header::parse(bytes)?;
        if header.endian().is_err() || !header.is_little_endian() {
            return Err(Error::NotRelocatable);
        }
        let machine = header.e_machine(ENDIAN);
        let known = machine == elf::EM_X86_64 || machine == elf::EM_AARCH64;
        if header.e_type(ENDIAN) != elf::ET_REL || !known {
            return Err(Error::NotRelocatable);
        }
        let table = header.sections(ENDIAN, bytes)?;
        let Some(found) = find_sections(&table)? else { return Ok(None) };
        let mut sections =
            Sections { data: Vec::new(), ranges: Default::default(), names: Vec::new(), symbols: Vec::new() };
        let mut size = 0u64;
        for index in found.iter().flatten() {
            size = size.saturating_add(table.section((*index).into_index())?.sh_size(ENDIAN));
        }
        if size > bytes.len() as u64 || size >= u64::from(u32::MAX) {
            return Err(Error::Elf("debug sections are larger than the file, or than 4 GiB".into()));
        }
        sections.data.reserve_exact(size as usize);
        for (range, index) in sections.ranges.iter_mut().zip(found) {
            let start = sections.data.len();
            if let Some(index) = index {
                sections.data.extend_from_slice(table.section(index.into_index())?.data(ENDIAN, bytes)?);
            }
            *range = start..sections.data.len();
        }
        let symbols = table.symbols(ENDIAN, bytes, elf::SHT_SYMTAB)?;
        let allocated: Vec<bool> =
            table.iter().map(|s| s.sh_flags(ENDIAN).contains(elf::SHF_ALLOC)).collect();
        sections.relocate(bytes, &table, &symbols, &allocated, &found, machine == elf::EM_X86_64)?;
        // Names can share their bytes, and each is copied.
        let mut left = bytes.len().saturating_mul(NAMES_SHARE);
        for (section, allocated) in table.iter().zip(&allocated) {
            let name = if *allocated { table.section_name(ENDIAN, section)? } else { b"" };
            take(&mut left, name.len())?;
            sections.names.push(String::from_utf8_lossy(name).into());
        }
        sections.read_symbols(&symbols, &allocated, &mut left)?;
        Ok(Some(sections))
    }

    fn read_symbols(
        &mut self,
        symbols: &SymbolTable<'_, Header>,
        allocated: &[bool],
        left: &mut usize,
    ) -> Result<(), Error> {
        for (index, symbol) in symbols.enumerate() {
            let kind = symbol.st_type();
            if kind != elf::STT_FUNC && kind != elf::STT_OBJECT {
                continue;
            }
            let Some(section) = symbols.symbol_section(ENDIAN, symbol, index)? else { continue };
            if !allocated.get(section.0).copied().unwrap_or(false) {
                continue;
            }
            let name = symbols.symbol_name(ENDIAN, symbol)?;
            take(left, name.len())?;
            let name = String::from_utf8_lossy(name).into();
            self.symbols.push(Symbol { name, address: address(section.0, symbol.st_value(ENDIAN)) });
        }
        self.symbols.sort_by(|a, b| (&a.name, a.address).cmp(&(&b.name, b.address)));
        Ok(())
    }

    fn relocate(
        &mut self,
        bytes: &[u8],
        table: &SectionTable<'_, Header>,
        symbols: &SymbolTable<'_, Header>,
        allocated: &[bool],
        found: &[Option<usize>; 7],
        x86: bool,
    ) -> Result<(), Error> {
        for section in table.iter() {
            let kind = section.sh_type(ENDIAN);
            if kind != elf::SHT_RELA && kind != elf::SHT_REL {
                continue;
            }
            let target = section.sh_info(ENDIAN) as usize;
            let Some(which) = found.iter().position(|f| *f == Some(target)) else { continue };
            let Some((entries, _)) = section.rela(ENDIAN, bytes)? else {
                return Err(Error::Unsupported("relocations without addends in a debug section"));
            };
            if table.section(section.link(ENDIAN))?.sh_type(ENDIAN) != elf::SHT_SYMTAB {
                return Err(Error::Elf("relocations without a symbol table".into()));
            }
            let range = self.ranges[which].clone();
            let data = &mut self.data[range];
            for entry in entries {
                let offset = entry.r_offset(ENDIAN);
                let kind = entry.r_type(ENDIAN, false).0;
                let size = match (x86, kind) {
                    (_, 0) => continue,
                    (true, 1 | 17) | (false, 257) => 8,
                    (true, 10 | 11 | 21) | (false, 258) => 4,
                    _ => {
                        let section = String::from_utf8_lossy(NAMES[which]).into_owned();
                        return Err(Error::Relocation { section, offset, kind });
                    }
                };
                let index = SymbolIndex(entry.r_sym(ENDIAN, false) as usize);
                let mut value = entry.r_addend(ENDIAN) as u64;
                if index.0 != 0 {
                    let symbol = symbols.symbol(index)?;
                    value = value.wrapping_add(symbol.st_value(ENDIAN));
                    if size == 8
                        && let Some(section) = symbols.symbol_section(ENDIAN, symbol, index)?
                        && allocated.get(section.0).copied().unwrap_or(false)
                    {
                        value = address(section.0, value);
                    }
                }
                let place = usize::try_from(offset)
                    .ok()
                    .and_then(|start| data.get_mut(start..)?.get_mut(..size))
                    .ok_or_else(|| {
                        Error::Elf(format!("a relocation points outside of its section: {offset:#x}"))
                    })?;
                place.copy_from_slice(&value.to_le_bytes()[..size]);
            }
        }
        Ok(())
    }
}

/// Where an offset of an allocated section stands in the address space of [`Sections`].
pub(crate) fn address(section: usize, offset: u64) -> u64 {
    ((section as u64) << 32).wrapping_add(offset)
}

/// The indexes of [`NAMES`], `None` if there is no debug information.
fn find_sections(table: &SectionTable<'_, Header>) -> Result<Option<[Option<usize>; 7]>, Error> {
    let mut found = [None; 7];
    for (index, section) in table.enumerate() {
        let name = table.section_name(ENDIAN, section)?;
        if name.starts_with(b".zdebug_") {
            return Err(Error::Compressed(String::from_utf8_lossy(name).into_owned()));
        }
        if name == b".debug_types" || name == b".debug_info.dwo" {
            return Err(Error::Unsupported("type units or split units"));
        }
        let Some(which) = NAMES.iter().position(|n| *n == name) else { continue };
        if section.sh_flags(ENDIAN).contains(elf::SHF_COMPRESSED) {
            return Err(Error::Compressed(String::from_utf8_lossy(name).into_owned()));
        }
        if found[which].replace(index.0).is_some() {
            return Err(Error::Unsupported("several debug sections of one name"));
        }
    }
    Ok(found[INFO].is_some().then_some(found))
}

/// A section number as the crate `object` wants it.
trait IntoIndex {
    fn into_index(self) -> object::SectionIndex;
}

impl IntoIndex for usize {
    fn into_index(self) -> object::SectionIndex {
        object::SectionIndex(self)
    }
}
