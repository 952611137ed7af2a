//! A payload as data: an ELF64 relocatable file that Xen's loader would take apart.
//!
//! Everything here may come from a hostile file. Reading it never panics, and takes time and memory
//! proportional to the file's size. What is merely wrong (a name outside its table, contents outside
//! the file) is kept as such, so that the rules can say it; only a file whose section table cannot be
//! read at all is no [`Payload`].

mod content;
mod parse;

use std::collections::BTreeMap;

use goblin::elf::header::header64::Header;
use goblin::elf::section_header as sh;

use crate::elf;

pub(crate) use content::FUNC_CHECKED_SIZES;
pub use content::{
    Alternative, BugFrame, CallSite, Content, Expectation, Func, Hook, TableEntry, bug_frame_kind, hook_kinds,
};

/// The type of a symbol that names a source file (ELF's STT_FILE).
pub const STT_FILE: u8 = 4;

/// A section index that is an absolute value (ELF's SHN_ABS).
pub const SHN_ABS: usize = 0xfff1;
/// A section index that asks for common storage (ELF's SHN_COMMON).
pub const SHN_COMMON: usize = 0xfff2;

/// A payload's ELF structures.
#[derive(Debug, Clone)]
pub struct Payload<'a> {
    /// The whole file.
    pub bytes: &'a [u8],
    /// The file header.
    pub header: Header,
    /// All sections; the index is ELF's, so the first is the null section.
    pub sections: Vec<Section<'a>>,
    /// Index of the symbol table: the last one, should there be several.
    pub symtab: Option<usize>,
    /// All symbols; the index is ELF's, so the first is the null symbol.
    pub symbols: Vec<Symbol<'a>>,
    /// Relocation sections in file order.
    pub relocations: Vec<RelocationSection>,
    /// The first section of each name.
    by_name: BTreeMap<&'a str, usize>,
    /// Relocations of loaded sections that write something, by section index and offset. Of two at
    /// one place the later is kept, as it is the one that the loader would leave behind.
    by_place: BTreeMap<(usize, u64), Relocation>,
    /// The best name for each named place: section index and offset.
    by_value: BTreeMap<(usize, u64), &'a str>,
}

/// One section of a payload.
#[derive(Debug, Clone)]
pub struct Section<'a> {
    /// Index in the section table.
    pub index: usize,
    /// Name; empty if it cannot be read.
    pub name: &'a str,
    /// Whether the name is inside the string table, terminated, of a sane length and UTF-8.
    pub name_ok: bool,
    /// Whether it begins inside the string table, which is all that Xen looks at.
    pub name_inside: bool,
    /// ELF's sh_type.
    pub kind: u32,
    /// ELF's sh_flags.
    pub flags: u64,
    /// ELF's sh_addr; of no use in a relocatable file, but the loader looks at it.
    pub addr: u64,
    /// Offset of the contents in the file, in bytes.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
    /// Alignment in bytes.
    pub align: u64,
    /// Bytes of one entry, where the section is a table.
    pub entsize: u64,
    /// ELF's sh_link.
    pub link: u32,
    /// ELF's sh_info.
    pub info: u32,
    /// Contents; `None` if the section takes no room in the file or lies outside it.
    pub data: Option<&'a [u8]>,
}

impl Section<'_> {
    /// Whether the loader places it in memory.
    pub fn is_loaded(&self) -> bool {
        self.flags & u64::from(sh::SHF_ALLOC) != 0
    }

    /// Whether it would be writable.
    pub fn is_writable(&self) -> bool {
        self.flags & u64::from(sh::SHF_WRITE) != 0
    }

    /// Whether it is loaded code.
    pub fn is_code(&self) -> bool {
        self.is_loaded() && self.flags & u64::from(sh::SHF_EXECINSTR) != 0
    }

    /// Whether it takes no room in the file.
    pub fn is_nobits(&self) -> bool {
        self.kind == sh::SHT_NOBITS
    }

    /// Flags as `readelf` abbreviates them: W, A, X, M, S, G, T and so on; `?` for any other.
    pub fn flag_letters(&self) -> String {
        const LETTERS: [(u32, char); 11] = [
            (sh::SHF_WRITE, 'W'),
            (sh::SHF_ALLOC, 'A'),
            (sh::SHF_EXECINSTR, 'X'),
            (sh::SHF_MERGE, 'M'),
            (sh::SHF_STRINGS, 'S'),
            (sh::SHF_INFO_LINK, 'I'),
            (sh::SHF_LINK_ORDER, 'L'),
            (sh::SHF_OS_NONCONFORMING, 'O'),
            (sh::SHF_GROUP, 'G'),
            (sh::SHF_TLS, 'T'),
            (sh::SHF_COMPRESSED, 'C'),
        ];
        let known = LETTERS.iter().fold(0, |all, (bit, _)| all | u64::from(*bit));
        let mut text: String = LETTERS
            .iter()
            .filter(|(bit, _)| self.flags & u64::from(*bit) != 0)
            .map(|(_, letter)| *letter)
            .collect();
        if self.flags & !known != 0 {
            text.push('?');
        }
        text
    }
}

/// One symbol of a payload.
#[derive(Debug, Clone)]
pub struct Symbol<'a> {
    /// Name; empty for section symbols, or if it cannot be read.
    pub name: &'a str,
    /// Whether the name is inside the string table, terminated, of a sane length and UTF-8.
    pub name_ok: bool,
    /// Whether it begins inside the string table, which is all that Xen looks at.
    pub name_inside: bool,
    /// ELF's st_value: an offset in its section, in bytes.
    pub value: u64,
    /// Size in bytes.
    pub size: u64,
    /// ELF's type: 2 is a function.
    pub kind: u8,
    /// ELF's binding: 0 is local.
    pub binding: u8,
    /// Section index, or one of ELF's reserved ones.
    pub section: usize,
}

impl Symbol<'_> {
    /// Whether it has to be found elsewhere.
    pub fn is_undefined(&self) -> bool {
        self.section == 0
    }
}

/// One relocation section.
#[derive(Debug, Clone)]
pub struct RelocationSection {
    /// Its own index.
    pub section: usize,
    /// Index of the section that it changes; may be out of range.
    pub target: usize,
    /// Index of the symbol table that it refers to; may be out of range.
    pub link: usize,
    /// Whether entries carry an addend (SHT_RELA).
    pub with_addends: bool,
    /// Whether entry size, section size and contents allowed reading the entries.
    pub readable: bool,
    /// The entries in file order; none without addends, since the loader takes none of those.
    pub entries: Vec<Relocation>,
}

/// One relocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relocation {
    /// Where it writes, in bytes from the start of the section.
    pub offset: u64,
    /// ELF's x86-64 relocation type.
    pub kind: u32,
    /// Symbol index; may be out of range.
    pub symbol: usize,
    /// Addend.
    pub addend: i64,
}

impl Relocation {
    /// How many bytes it writes; `None` for types that Xen's loader does not know.
    pub fn width(&self) -> Option<u64> {
        match self.kind {
            R_X86_64_NONE => Some(0),
            R_X86_64_64 => Some(8),
            R_X86_64_PC32 | R_X86_64_PLT32 => Some(4),
            _ => None,
        }
    }
}

/// Writes nothing.
pub const R_X86_64_NONE: u32 = 0;
/// Writes a 64-bit address.
pub const R_X86_64_64: u32 = 1;
/// Writes a 32-bit displacement.
pub const R_X86_64_PC32: u32 = 2;
/// The same as [`R_X86_64_PC32`] to Xen.
pub const R_X86_64_PLT32: u32 = 4;

/// What a pointer or a displacement in a payload refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// No relocation: the plain number. A displacement without one is rather a place in its own section.
    Literal(u64),
    /// A place in the payload; the offset may be outside the section.
    Section {
        /// Section index; always that of a section that exists.
        section: usize,
        /// Bytes from its start.
        offset: i64,
    },
    /// Something that the loader has to find.
    Undefined {
        /// Symbol index.
        symbol: usize,
        /// Bytes to add to its address.
        addend: i64,
    },
    /// An absolute address.
    Absolute(u64),
    /// A relocation of the wrong type, against a symbol that does not exist, or bytes that are not there.
    Broken,
}

impl<'a> Payload<'a> {
    /// The section of that name; the first, as in Xen's `livepatch_elf_sec_by_name`.
    pub fn section(&self, name: &str) -> Option<&Section<'a>> {
        self.sections.get(*self.by_name.get(name)?)
    }

    /// The name of a section, for messages.
    pub fn section_name(&self, index: usize) -> String {
        match self.sections.get(index) {
            Some(section) if !section.name.is_empty() => section.name.to_string(),
            _ => format!("#{index}"),
        }
    }

    /// The name of a symbol, for messages: that of its section where it has none.
    pub fn symbol_name(&self, index: usize) -> String {
        match self.symbols.get(index) {
            Some(symbol) if !symbol.name.is_empty() => symbol.name.to_string(),
            Some(symbol) if symbol.kind == goblin::elf::sym::STT_SECTION => self.section_name(symbol.section),
            _ => format!("symbol #{index}"),
        }
    }

    /// The relocation that writes at a place, if there is one that begins just there.
    pub fn relocation_at(&self, section: usize, offset: u64) -> Option<&Relocation> {
        self.by_place.get(&(section, offset))
    }

    /// The relocations that begin in a range of a section, with their offsets.
    pub fn relocations_in(
        &self,
        section: usize,
        range: std::ops::Range<u64>,
    ) -> impl Iterator<Item = &Relocation> {
        let end = range.end.max(range.start);
        self.by_place.range((section, range.start)..(section, end)).map(|(_, relocation)| relocation)
    }

    /// What the 64-bit pointer at a place of a section refers to.
    pub fn pointer(&self, section: usize, offset: u64) -> Target {
        match self.relocation_at(section, offset) {
            Some(relocation) if relocation.kind == R_X86_64_64 => self.target(relocation, 0),
            Some(_) => Target::Broken,
            None => self
                .sections
                .get(section)
                .and_then(|s| s.data)
                .and_then(|data| elf::u64_at(data, offset))
                .map_or(Target::Broken, Target::Literal),
        }
    }

    /// What the 32-bit displacement at a place of a section refers to, if it counts from `from` (an
    /// offset of the same section).
    pub fn displacement(&self, section: usize, offset: u64, from: u64) -> Target {
        match self.relocation_at(section, offset) {
            Some(relocation) if matches!(relocation.kind, R_X86_64_PC32 | R_X86_64_PLT32) => {
                self.target(relocation, (from as i64).wrapping_sub(offset as i64))
            }
            Some(_) => Target::Broken,
            None => {
                let data = self.sections.get(section).and_then(|s| s.data);
                match data.and_then(|data| elf::u32_at(data, offset)) {
                    Some(raw) => {
                        let offset = (from as i64).wrapping_add(i64::from(raw as i32));
                        Target::Section { section, offset }
                    }
                    None => Target::Broken,
                }
            }
        }
    }

    fn target(&self, relocation: &Relocation, adjust: i64) -> Target {
        let addend = relocation.addend.wrapping_add(adjust);
        let Some(symbol) = self.symbols.get(relocation.symbol).filter(|_| relocation.symbol != 0) else {
            return Target::Broken;
        };
        match symbol.section {
            0 => Target::Undefined { symbol: relocation.symbol, addend },
            SHN_ABS => Target::Absolute(symbol.value.wrapping_add_signed(addend)),
            section if section < self.sections.len() => {
                Target::Section { section, offset: (symbol.value as i64).wrapping_add(addend) }
            }
            _ => Target::Broken,
        }
    }

    /// The name of the function at a place of the payload, or of whatever else is named there: functions
    /// before others, then globals before locals, then by name.
    pub fn name_at(&self, section: usize, offset: i64) -> Option<&'a str> {
        self.by_value.get(&(section, u64::try_from(offset).ok()?)).copied()
    }

    /// The C string at a place of the payload.
    pub fn string_at(&self, section: usize, offset: i64) -> Option<&'a str> {
        let data = self.sections.get(section)?.data?;
        elf::string(data, u64::try_from(offset).ok()?)
    }
}
