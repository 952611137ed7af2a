//! The objects of the patched build, by this crate's own reading.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use iced_x86::{Decoder, DecoderOptions, Mnemonic};

use super::names::Wanted;
use crate::payload::{Content, Payload, R_X86_64_NONE, Relocation, Symbol};

/// ELF's types of symbols.
pub(super) const FUNC: u8 = 2;
pub(super) const SECTION: u8 = 3;
const FILE: u8 = 4;

/// An object of the patched build.
#[derive(Debug, Clone, Copy)]
pub struct PatchedObject<'a> {
    /// Its path, for messages.
    pub path: &'a str,
    /// The file.
    pub bytes: &'a [u8],
}

/// An object, read.
pub(super) struct Object<'a> {
    /// Which of the objects.
    pub(super) number: usize,
    pub(super) path: &'a str,
    pub(super) elf: Payload<'a>,
    /// Entries of its special sections.
    pub(super) content: Content,
    /// The name of its source.
    pub(super) file: Option<&'a str>,
    /// Relocations of loaded sections by section and offset.
    relocations: BTreeMap<(usize, u64), Relocation>,
    /// Named symbols by section and value.
    named: BTreeMap<(usize, u64), Vec<usize>>,
    /// Where functions start: section and value.
    starts: BTreeSet<(usize, u64)>,
}

impl<'a> Object<'a> {
    pub(super) fn read(
        number: usize,
        object: &PatchedObject<'a>,
    ) -> Result<Object<'a>, xsplice_report::Problems> {
        let elf = Payload::parse(object.bytes)?;
        let file = file_of(&elf.symbols);
        let mut relocations = BTreeMap::new();
        for group in &elf.relocations {
            if elf.sections.get(group.target).is_some_and(|section| section.is_loaded()) {
                let kept = group.entries.iter().filter(|entry| entry.kind != R_X86_64_NONE);
                relocations.extend(kept.map(|entry| ((group.target, entry.offset), *entry)));
            }
        }
        let mut named: BTreeMap<(usize, u64), Vec<usize>> = BTreeMap::new();
        let mut starts = BTreeSet::new();
        for (index, symbol) in elf.symbols.iter().enumerate() {
            if is_name(symbol) && !symbol.is_undefined() {
                named.entry((symbol.section, symbol.value)).or_default().push(index);
                starts.extend((symbol.kind == FUNC).then_some((symbol.section, symbol.value)));
            }
        }
        let content = Content::read(&elf, None);
        Ok(Object { number, path: object.path, elf, content, file, relocations, named, starts })
    }

    /// The relocations in a range of a section, in order.
    pub(super) fn relocations(&self, section: usize, range: Range<u64>) -> impl Iterator<Item = &Relocation> {
        self.relocations.range((section, range.start)..(section, range.end)).map(|(_, relocation)| relocation)
    }

    /// What the object calls a symbol.
    pub(super) fn wanted(&self, symbol: &Symbol<'a>) -> Wanted<'a> {
        Wanted { name: symbol.name, local: symbol.binding == 0, file: self.file }
    }

    /// Bytes of a function with what its section holds behind it: unlikely code of inline assembler.
    pub(super) fn extent(&self, function: &Symbol<'_>) -> u64 {
        let section = function.section;
        let mut behind = self.starts.range((section, function.value.saturating_add(1))..(section + 1, 0));
        let next = behind.next().map(|(_, at)| *at);
        let end = next.or_else(|| Some(self.elf.sections.get(section)?.size));
        let extent = end.unwrap_or_default().saturating_sub(function.value);
        let data = self.elf.sections.get(section).and_then(|section| section.data);
        let behind = data.zip(extent.checked_sub(function.size)).and_then(|(data, size)| {
            crate::elf::slice(data, function.value.checked_add(function.size)?, size)
        });
        if behind.is_some_and(is_padding) { function.size } else { extent }
    }

    /// Where the next named thing of a section starts, behind a place; else the section's end.
    pub(super) fn next_named(&self, section: usize, offset: u64) -> u64 {
        let mut behind = self.named.range((section, offset.saturating_add(1))..(section + 1, 0));
        let next = behind.next().map(|((_, at), _)| *at);
        next.or_else(|| Some(self.elf.sections.get(section)?.size)).unwrap_or_default()
    }

    /// The symbols that a place of a section belongs to: those nearest in front of it, else the first behind it.
    pub(super) fn around(&self, section: usize, offset: i64) -> Vec<&Symbol<'a>> {
        let at = u64::try_from(offset).unwrap_or_default();
        let before = self.named.range((section, 0)..=(section, at)).next_back();
        let found = before.or_else(|| self.named.range((section, at)..(section + 1, 0)).next());
        found.into_iter().flat_map(|(_, all)| all).filter_map(|&index| self.elf.symbols.get(index)).collect()
    }
}

/// The name of an object's source: the last in front of what is named and local, since sources that are compiled several
/// times name their objects by a name of their own, in front of which the compiler's stands.
fn file_of<'a>(symbols: &[Symbol<'a>]) -> Option<&'a str> {
    let is_file = |symbol: &&Symbol<'a>| symbol.kind == FILE && !symbol.name.is_empty();
    let is_local = |s: &Symbol<'_>| s.binding == 0 && !s.name.is_empty() && !matches!(s.kind, SECTION | FILE);
    let first = symbols.iter().position(is_local).unwrap_or(symbols.len());
    let file = symbols[..first].iter().rfind(is_file).or_else(|| symbols.iter().find(is_file));
    file.map(|symbol| symbol.name)
}

/// Whether code does nothing or traps: what the assembler puts between functions.
fn is_padding(code: &[u8]) -> bool {
    let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
    let mut all = true;
    while all && decoder.can_decode() {
        all = matches!(decoder.decode().mnemonic(), Mnemonic::Nop | Mnemonic::Int3);
    }
    all
}

/// Whether a symbol is a name that others could know.
pub(super) fn is_name(symbol: &Symbol<'_>) -> bool {
    !symbol.name.is_empty() && !matches!(symbol.kind, SECTION | FILE) && !symbol.name.starts_with(".L")
}
