//! An object with the canonical text of all its functions.

use std::{collections::BTreeMap, path::Path};

use crate::{
    canon::{self, Line},
    class::Class,
    listing::Listing,
    model::Model,
    special::{self, Entries},
    tools::{OracleError, Tools},
};

/// A model and its text.
#[derive(Debug)]
pub(crate) struct Object {
    pub model: Model,
    /// The text of each item with code, without its cold parts.
    pub lines: BTreeMap<usize, Vec<Line>>,
    /// Cold parts by the item they belong to.
    pub cold: BTreeMap<usize, Vec<usize>>,
    /// Entries that describe no known code, and remarks.
    pub entries: Entries,
}

impl Object {
    pub fn read(tools: &Tools, path: &Path) -> Result<Object, OracleError> {
        Ok(Object::new(Model::new(Listing::read(tools, path)?)))
    }

    /// An object that has nothing, for the side that does not exist.
    pub fn empty() -> Object {
        Object::new(Model::new(Listing::default()))
    }

    fn new(model: Model) -> Object {
        let mut entries = special::read(&model);
        let mut lines = BTreeMap::new();
        let mut cold: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (number, item) in model.items.iter().enumerate().filter(|(_, item)| item.code) {
            let mut text = canon::function(&model, number);
            text.extend(entries.of_item.remove(&number).unwrap_or_default());
            lines.insert(number, text);
            if let Some(parent) = item.parent {
                cold.entry(parent).or_default().push(number);
            }
        }
        Object { model, lines, cold, entries }
    }

    /// Functions and what stands for one: items with code that are not the cold part of another.
    pub fn functions(&self) -> impl Iterator<Item = usize> + '_ {
        self.lines.keys().copied().filter(|&item| self.model.items[item].parent.is_none())
    }

    /// A function and its cold parts.
    pub fn fragments(&self, function: usize) -> Vec<usize> {
        let cold = self.cold.get(&function).map_or(&[][..], Vec::as_slice);
        std::iter::once(function).chain(cold.iter().copied()).collect()
    }

    /// Variables that go by their name.
    pub fn variables(&self) -> impl Iterator<Item = usize> + '_ {
        let items = self.model.items.iter().enumerate();
        items
            .filter(|(number, item)| !item.code && !self.model.is_by_content(*number))
            .map(|(number, _)| number)
    }

    /// Stretches of sections that nothing else accounts for: section, from, up to. Padding is left out.
    pub fn leftovers(&self) -> Vec<(usize, u64, u64)> {
        let mut found = Vec::new();
        for (number, section) in self.model.listing.sections.iter().enumerate() {
            let class = self.model.class(number);
            let looked_at = match class {
                Class::Writable | Class::PerCpu | Class::Init(false) | Class::Code => true,
                Class::Unknown(_) => !section.has('X') || self.model.items_of(number).is_empty(),
                Class::Init(true) | Class::Constant | Class::Ignored | Class::Special | Class::Aside => false,
            };
            if !looked_at || section.size == 0 {
                continue;
            }
            let mut at = 0;
            let items = self.model.items_of(number).iter().map(|&item| &self.model.items[item]);
            let unknown = matches!(class, Class::Unknown(_));
            let taken: Vec<(u64, u64)> =
                items.filter(|_| !unknown).map(|item| (item.start, item.end)).collect();
            for (start, end) in taken.into_iter().chain([(section.size, section.size)]) {
                if start > at && !self.is_padding(number, at, start) {
                    found.push((number, at, start));
                }
                at = at.max(end);
            }
        }
        found
    }

    fn is_padding(&self, section: usize, start: u64, end: u64) -> bool {
        let it = self.model.section(section);
        if it.has('X') {
            return self.model.insns(section, start, end).iter().all(crate::listing::Insn::is_nop);
        }
        it.relocs_in(start, end).is_empty() && it.slice(start, end).iter().all(|byte| *byte == 0)
    }
}
