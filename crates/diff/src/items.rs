//! An object taken apart into what has a meaning of its own: functions, data, and the rest in between.

use std::collections::{BTreeMap, BTreeSet};

use xsplice_objects::{Class, Home, Object, SectionId, SymbolKind};

use crate::names;

/// Index of an item in its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId(pub usize);

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ItemKind {
    /// Code with a name.
    Function,
    /// Data with a name.
    Data,
    /// Bytes without a name: jump tables, constants, padding.
    Blob,
    /// Code that inline assembler put aside (Xen's UNLIKELY_START): pieces of several functions in one section,
    /// each entered by a jump. A label there names the section, not a function.
    Aside,
}

/// A function, a data object, or bytes without a name.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its first symbol's name; for a blob the section's.
    pub name: String,
    /// Other names at the same place.
    pub aliases: Vec<String>,
    /// What it is.
    pub kind: ItemKind,
    /// Whether its name is local to the object.
    pub local: bool,
    /// Whether all its names are weak.
    pub weak: bool,
    /// The section that holds it.
    pub section: SectionId,
    /// What that section is for.
    pub class: Class,
    /// Bytes from the start of the section.
    pub start: u64,
    /// Bytes from the start of the section, one past the last.
    pub end: u64,
    /// Size in bytes that its symbol says; less than the item where assembler put code of the function behind it.
    pub declared: u64,
    /// Whether a symbol says that size; otherwise it is the way to the next name.
    pub sized: bool,
    /// For a fragment that only its function jumps to: that function.
    pub unit: Option<ItemId>,
}

impl Item {
    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.end - self.start
    }
}

/// The items of an object.
#[derive(Debug)]
pub struct Items<'o> {
    /// The object.
    pub object: &'o Object,
    items: Vec<Item>,
    by_section: BTreeMap<SectionId, Vec<ItemId>>,
    /// Indexes of the symbols of each section, in ascending order of their values.
    symbols: BTreeMap<SectionId, Vec<usize>>,
    /// The fragments of each head, without the head.
    rest: BTreeMap<ItemId, Vec<ItemId>>,
    has_asides: bool,
    aside_starts: BTreeSet<(SectionId, u64)>,
}

impl<'o> Items<'o> {
    /// Takes an object apart.
    pub fn of(object: &'o Object) -> Items<'o> {
        let mut items = Items {
            object,
            items: Vec::new(),
            by_section: BTreeMap::new(),
            symbols: BTreeMap::new(),
            rest: BTreeMap::new(),
            has_asides: false,
            aside_starts: BTreeSet::new(),
        };
        for (index, symbol) in object.symbols.iter().enumerate() {
            if let Home::Section(id) = symbol.home {
                items.symbols.entry(id).or_default().push(index);
            }
        }
        for symbols in items.symbols.values_mut() {
            // Stable: those at one place stay in the order of the object.
            symbols.sort_by_key(|&index| object.symbols[index].value);
        }
        for (id, section) in object.sections() {
            let divided = matches!(
                section.class,
                Class::Text
                    | Class::InitText
                    | Class::InitData
                    | Class::ReadOnly
                    | Class::Data
                    | Class::Bss
                    | Class::PerCpu
                    | Class::BootArray
                    | Class::Unknown
            );
            if divided && section.size > 0 {
                items.divide(id);
            }
        }
        items.join_fragments();
        items.find_asides();
        items
    }

    /// An item by its index.
    pub fn get(&self, id: ItemId) -> &Item {
        &self.items[id.0]
    }

    /// All items with their indexes.
    pub fn iter(&self) -> impl Iterator<Item = (ItemId, &Item)> {
        self.items.iter().enumerate().map(|(index, item)| (ItemId(index), item))
    }

    /// The item at an offset of a section, and the distance in bytes from its start. An offset right at the end
    /// of the section's last item is that item's end; one in front of the section is before its first item.
    pub fn at(&self, section: SectionId, offset: i64) -> Option<(ItemId, i64)> {
        let ids = self.by_section.get(&section)?;
        let start = |id: &ItemId| self.get(*id).start.cast_signed();
        let after = ids.partition_point(|id| start(id) <= offset);
        let id = *ids.get(after.saturating_sub(1))?;
        Some((id, offset - start(&id)))
    }

    /// A name inside a function, not at its start, that other objects can refer to.
    pub fn entry_point_in(&self, id: ItemId) -> Option<&str> {
        let item = self.get(id);
        let mut inside = self.symbols_in(item.section, item.start + 1, item.end);
        inside.find(|symbol| !symbol.local).map(|symbol| symbol.name.as_str())
    }

    /// The symbols in `from..to` of a section.
    pub(crate) fn symbols_in(
        &self,
        section: SectionId,
        from: u64,
        to: u64,
    ) -> impl Iterator<Item = &'o xsplice_objects::Symbol> {
        let object = self.object;
        let all = self.symbols.get(&section).map_or(&[][..], Vec::as_slice);
        let first = all.partition_point(|&index| object.symbols[index].value < from);
        let symbols = all[first..].iter().map(move |&index| &object.symbols[index]);
        symbols.take_while(move |symbol| symbol.value < to)
    }

    /// The items of a section, in ascending order.
    pub(crate) fn in_section(&self, section: SectionId) -> &[ItemId] {
        self.by_section.get(&section).map_or(&[], Vec::as_slice)
    }

    fn symbols_of(&self, section: SectionId) -> impl Iterator<Item = &'o xsplice_objects::Symbol> {
        let object = self.object;
        self.symbols.get(&section).into_iter().flatten().map(move |&index| &object.symbols[index])
    }

    /// The head of the unit that an item belongs to: a `.cold` fragment's function, or the item itself.
    pub fn head(&self, id: ItemId) -> ItemId {
        self.get(id).unit.unwrap_or(id)
    }

    /// All fragments of a unit, the head first.
    pub fn fragments(&self, head: ItemId) -> Vec<ItemId> {
        std::iter::once(head).chain(self.rest.get(&head).into_iter().flatten().copied()).collect()
    }

    fn divide(&mut self, id: SectionId) {
        let section = self.object.section(id);
        let named = |symbol: &&xsplice_objects::Symbol| {
            !matches!(symbol.kind, SymbolKind::Section | SymbolKind::File)
                && !symbol.name.is_empty()
                && symbol.value < section.size
        };
        let symbols = || self.symbols_of(id).filter(named);
        // Code that is put aside within a section of one function (`.subsection`) is that function's.
        let sized: BTreeSet<u64> = symbols().filter(|s| s.size > 0).map(|s| s.value).collect();
        let mut marks: BTreeMap<u64, Vec<&xsplice_objects::Symbol>> = BTreeMap::new();
        for symbol in symbols().filter(|symbol| sized.len() != 1 || !names_aside(symbol)) {
            marks.entry(symbol.value).or_default().push(symbol);
        }
        let starts: Vec<u64> = marks.keys().copied().collect();
        let mut ids = Vec::new();
        let mut covered = 0;
        for (index, (&start, symbols)) in marks.iter().enumerate() {
            if start < covered {
                // A name inside something that is already covered, such as an entry point: an alias of nothing.
                continue;
            }
            let next = starts.get(index + 1).copied().unwrap_or(section.size);
            let size = symbols.iter().map(|s| s.size).max().unwrap_or(0);
            let end = if size == 0 { next } else { (start + size).min(section.size) };
            self.gap(&mut ids, id, covered, start);
            ids.push(self.named(id, start, end, symbols));
            covered = end;
        }
        self.gap(&mut ids, id, covered, section.size);
        self.by_section.insert(id, ids);
    }

    fn named(&mut self, id: SectionId, start: u64, end: u64, symbols: &[&xsplice_objects::Symbol]) -> ItemId {
        let section = self.object.section(id);
        // A global name identifies best; among equals the first in the alphabet, so that order never matters.
        let mut symbols = symbols.to_vec();
        symbols.sort_by_key(|s| (s.local, s.weak, s.size == 0, s.name.as_str()));
        let executable = matches!(section.class, Class::Text | Class::InitText)
            || symbols.iter().any(|s| s.kind == SymbolKind::Function);
        self.items.push(Item {
            name: symbols[0].name.clone(),
            aliases: symbols[1..].iter().map(|s| s.name.clone()).collect(),
            kind: match executable {
                true if symbols.iter().all(|symbol| names_aside(symbol)) => ItemKind::Aside,
                true => ItemKind::Function,
                false => ItemKind::Data,
            },
            local: symbols[0].local,
            weak: symbols.iter().all(|s| s.weak),
            section: id,
            class: section.class,
            start,
            end,
            declared: end - start,
            sized: symbols.iter().any(|s| s.size > 0),
            unit: None,
        });
        ItemId(self.items.len() - 1)
    }

    fn gap(&mut self, ids: &mut Vec<ItemId>, id: SectionId, start: u64, end: u64) {
        let section = self.object.section(id);
        if start >= end {
            return;
        }
        let bytes = section.bytes(start, end);
        let padding = section.relocations_in(start, end).is_empty()
            && end - start < section.align.max(64)
            && (bytes.iter().all(|&b| b == 0) || section.class == Class::Text && is_code_padding(&bytes));
        if padding && !ids.is_empty() {
            return;
        }
        // Inline assembler's `.subsection` puts code behind its function, and the symbol's size does not count it.
        if let &mut [only] = &mut ids[..]
            && end == section.size
            && self.items[only.0].kind == ItemKind::Function
        {
            self.items[only.0].end = end;
            return;
        }
        self.items.push(Item {
            name: section.name.clone(),
            aliases: Vec::new(),
            kind: ItemKind::Blob,
            local: true,
            weak: false,
            section: id,
            class: section.class,
            start,
            end,
            declared: end - start,
            sized: false,
            unit: None,
        });
        ids.push(ItemId(self.items.len() - 1));
    }

    /// Every piece of code put aside is entered by a jump from elsewhere: the targets divide it.
    fn find_asides(&mut self) {
        self.has_asides = self.items.iter().any(|item| item.kind == ItemKind::Aside);
        if !self.has_asides {
            return;
        }
        let mut starts = BTreeSet::new();
        for (_, section) in
            self.object.sections().filter(|(_, s)| matches!(s.class, Class::Text | Class::InitText))
        {
            let ends = crate::meaning::decode(&section.data, &section.relocations, 0).ends;
            for relocation in &section.relocations {
                let symbol = self.object.symbol(relocation.symbol);
                let (Home::Section(home), Some(end)) = (symbol.home, ends.get(&relocation.offset)) else {
                    continue;
                };
                let distance = (end - relocation.offset).cast_signed();
                let offset = symbol.value.cast_signed() + relocation.addend + distance;
                if let Some((id, _)) = self.at(home, offset)
                    && self.get(id).kind == ItemKind::Aside
                {
                    starts.insert((home, offset.max(0).cast_unsigned()));
                }
            }
        }
        self.aside_starts = starts;
    }

    /// Whether any code of the object is put aside.
    pub(crate) fn has_asides(&self) -> bool {
        self.has_asides
    }

    /// The piece of code put aside that holds an offset: its start and end in bytes from the section's start.
    pub fn aside_range(&self, section: SectionId, offset: i64) -> (u64, u64) {
        let offset = offset.max(0).cast_unsigned();
        let size = self.object.section(section).size;
        let start =
            self.aside_starts.range((section, 0)..=(section, offset)).next_back().map_or(0, |&(_, at)| at);
        let end =
            self.aside_starts.range((section, start + 1)..(section, size)).next().map_or(size, |&(_, at)| at);
        (start, end)
    }

    fn join_fragments(&mut self) {
        let functions: BTreeMap<String, ItemId> = self
            .iter()
            .filter(|(_, item)| item.kind == ItemKind::Function)
            .map(|(id, item)| (item.name.clone(), id))
            .collect();
        for (index, item) in self.items.iter_mut().enumerate() {
            if item.kind == ItemKind::Function && item.local {
                item.unit = names::cold_of(&item.name).and_then(|root| functions.get(root).copied());
                if let Some(head) = item.unit {
                    self.rest.entry(head).or_default().push(ItemId(index));
                }
            }
        }
    }
}

/// Whether it is the label that Xen's UNLIKELY_START gives to the first piece of code that a file puts aside.
fn names_aside(symbol: &xsplice_objects::Symbol) -> bool {
    symbol.size == 0 && symbol.local && symbol.name.ends_with(".unlikely")
}

/// What assemblers put between functions: NOPs of every length, INT3, and zeroes.
fn is_code_padding(bytes: &[u8]) -> bool {
    use iced_x86::{Code, Decoder, DecoderOptions, Mnemonic};
    let decoder = Decoder::new(64, bytes, DecoderOptions::NONE);
    decoder.into_iter().all(|i| i.code() == Code::Int3 || matches!(i.mnemonic(), Mnemonic::Nop))
}
