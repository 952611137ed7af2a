//! A relocatable object as later stages see it.

use std::collections::BTreeSet;

use crate::Class;

/// The section in which compilers and linkers leave a string of their own.
pub(crate) const COMMENT: &str = ".comment";

/// The strings of a section of strings.
pub(crate) fn strings(data: &[u8]) -> impl Iterator<Item = String> {
    let all = data.split(|&byte| byte == 0).filter(|text| !text.is_empty());
    all.map(|text| String::from_utf8_lossy(text).into_owned())
}

/// Index of a section in its object, as ELF counts: 0 is no section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SectionId(pub usize);

/// Index of a symbol in its object, as ELF counts: 0 is no symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SymbolId(pub usize);

/// A relocatable object of a hypervisor build.
#[derive(Debug, Clone)]
pub struct Object {
    /// Path relative to the tree, for people: `xen/arch/x86/traps.o`.
    pub path: String,
    /// Sections by index.
    pub sections: Vec<Section>,
    /// Symbols by index.
    pub symbols: Vec<Symbol>,
    /// Name of the FILE symbol in front of the local symbols: the prefix that Xen's own table gives them.
    pub file: Option<String>,
}

/// A section with its contents and relocations.
#[derive(Debug, Clone)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub class: Class,
    /// `sh_flags`.
    pub flags: u64,
    /// `sh_addralign` in bytes, at least 1.
    pub align: u64,
    /// `sh_entsize` in bytes, 0 where entries have no fixed size.
    pub entry_size: u64,
    /// `sh_size` in bytes.
    pub size: u64,
    /// Contents; empty where the section takes no space in the file.
    pub data: Vec<u8>,
    /// Relocations in ascending order of offset.
    pub relocations: Vec<Relocation>,
}

/// One relocation (ELF64 RELA).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relocation {
    /// Bytes from the start of the section; the field lies inside the section.
    pub offset: u64,
    /// What is computed.
    pub kind: RelocKind,
    /// What it refers to.
    pub symbol: SymbolId,
    /// Added to the symbol's value.
    pub addend: i64,
}

/// The relocation types that matter in a hypervisor for x86-64 (psABI, table "Relocation Types").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RelocKind {
    /// R_X86_64_64: eight bytes, the address.
    Abs64,
    /// R_X86_64_PC32 and R_X86_64_PLT32: four bytes, the distance from the field.
    Pc32,
    /// R_X86_64_32 and R_X86_64_32S: four bytes, the address; the loader does not take them.
    Abs32,
    /// R_X86_64_PC64: eight bytes, the distance; the loader does not take it.
    Pc64,
    /// R_X86_64_16 and R_X86_64_8 and their relatives in 16-bit boot code; the loader does not take them.
    Small,
}

impl RelocKind {
    /// Size of the field in bytes.
    pub fn width(self) -> u64 {
        match self {
            RelocKind::Abs64 | RelocKind::Pc64 => 8,
            RelocKind::Pc32 | RelocKind::Abs32 => 4,
            RelocKind::Small => 1,
        }
    }

    /// Whether the value is a distance from the field.
    pub fn is_relative(self) -> bool {
        matches!(self, RelocKind::Pc32 | RelocKind::Pc64)
    }
}

/// Where a symbol lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Home {
    /// In another object.
    Undefined,
    /// Its value is a number.
    Absolute,
    /// Allocated by the linker; the loader does not take it.
    Common,
    /// In a section of this object.
    Section(SectionId),
}

/// What a symbol says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SymbolKind {
    /// STT_NOTYPE.
    None,
    /// STT_OBJECT.
    Data,
    /// STT_FUNC.
    Function,
    /// STT_SECTION.
    Section,
    /// STT_FILE.
    File,
    /// Any other type.
    Other(u8),
}

/// A symbol.
#[derive(Debug, Clone)]
pub struct Symbol {
    /// Its name; empty for section symbols.
    pub name: String,
    /// Not visible to other objects.
    pub local: bool,
    /// Another object's definition goes first.
    pub weak: bool,
    /// What it says of itself.
    pub kind: SymbolKind,
    /// Where it lives.
    pub home: Home,
    /// Bytes from the start of its section.
    pub value: u64,
    /// Size in bytes, 0 where unknown.
    pub size: u64,
}

impl Object {
    /// A section by its index.
    pub fn section(&self, id: SectionId) -> &Section {
        &self.sections[id.0]
    }

    /// A name in the form of the hypervisor's own table: `FILE#name` for what is local to this object.
    pub fn table_name(&self, name: &str, local: bool) -> String {
        match &self.file {
            Some(file) if local => format!("{file}#{name}"),
            _ => name.to_owned(),
        }
    }

    /// What the compilers and linkers that made the object say of themselves, as [`crate::Hypervisor::compilers`].
    pub fn compilers(&self) -> BTreeSet<String> {
        let comments = self.sections.iter().filter(|section| section.name == COMMENT);
        comments.flat_map(|section| strings(&section.data)).collect()
    }

    /// A symbol by its index.
    pub fn symbol(&self, id: SymbolId) -> &Symbol {
        &self.symbols[id.0]
    }

    /// All sections with their indexes.
    pub fn sections(&self) -> impl Iterator<Item = (SectionId, &Section)> {
        self.sections.iter().enumerate().map(|(index, section)| (SectionId(index), section))
    }

    /// All symbols with their indexes.
    pub fn symbols(&self) -> impl Iterator<Item = (SymbolId, &Symbol)> {
        self.symbols.iter().enumerate().map(|(index, symbol)| (SymbolId(index), symbol))
    }
}

impl Section {
    /// Relocations whose field starts in `from..to` (bytes from the start of the section).
    pub fn relocations_in(&self, from: u64, to: u64) -> &[Relocation] {
        let first = self.relocations.partition_point(|r| r.offset < from);
        let end = self.relocations.partition_point(|r| r.offset < to);
        &self.relocations[first..end.max(first)]
    }

    /// The contents of `from..to`; zeroes where the section takes no space in the file.
    pub fn bytes(&self, from: u64, to: u64) -> std::borrow::Cow<'_, [u8]> {
        let len = usize::try_from(to.saturating_sub(from)).unwrap_or(0);
        match usize::try_from(from).ok().and_then(|from| self.data.get(from..from + len)) {
            Some(bytes) => std::borrow::Cow::Borrowed(bytes),
            None => std::borrow::Cow::Owned(vec![0; len]),
        }
    }
}
