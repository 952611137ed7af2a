//! What an object is made of: functions and variables with their extents, and what an address means.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    class::{self, Class},
    listing::{Home, Insn, Listing, Reloc, Section},
};

/// A function or variable, or an assembler label that stands where one would.
#[derive(Debug)]
pub(crate) struct Item {
    /// All symbols at its start: the one it goes by first.
    pub names: Vec<String>,
    /// Its name without compilers' numbers: `last` for `last.12`, `f.part` for `f.part.0`.
    pub stem: String,
    /// Whether its name alone does not say which one it is: a compiler's number, or a name used twice.
    pub numbered: bool,
    pub code: bool,
    pub section: usize,
    pub start: u64,
    /// Behind its last byte. For code, everything up to the next function, with what assembler put there.
    pub end: u64,
    /// As the symbol says; 0 where it does not.
    pub size: u64,
    /// For `f.cold`: `f`.
    pub parent: Option<usize>,
    /// Whether the symbol is a section's own label for its content in assembler, without type or size.
    pub bare: bool,
}

impl Item {
    /// The symbol it goes by.
    pub fn name(&self) -> &str {
        &self.names[0]
    }
}

/// Where inside an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Bytes from its start.
    Byte(i64),
    /// Instructions from its start, not counting such that do nothing, and bytes into that instruction.
    Label(usize, u64),
}

impl Place {
    /// Whether it is the item's first byte.
    pub fn is_start(self) -> bool {
        matches!(self, Place::Byte(0) | Place::Label(0, 0))
    }
}

/// What a reference means.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// A symbol of another object, and the distance from it.
    Name(String, i64),
    /// A fixed value.
    Fixed(String),
    /// A function or variable of this object. Where another one ends exactly there, that one too.
    Item(usize, Place, Option<usize>),
    /// A string, from the place that is referred to up to its NUL.
    String(Vec<u8>),
    /// A constant of a merged section, and the distance from its start.
    Constant(Vec<u8>, u64),
    /// Read-only bytes without a name: section, from, up to.
    Bytes(usize, u64, u64),
    /// Code without a name: section, from, up to.
    Code(usize, u64, u64),
    /// Nothing is known about the place.
    Loose(String),
}

/// An object, taken apart.
#[derive(Debug)]
pub(crate) struct Model {
    pub listing: Listing,
    pub items: Vec<Item>,
    /// The item of each symbol.
    of_symbol: Vec<Option<usize>>,
    /// The items of each section, by start.
    by_section: BTreeMap<usize, Vec<usize>>,
    /// Places in each section that something refers to, or where a symbol stands.
    marks: BTreeMap<usize, BTreeSet<u64>>,
    /// For each section with code: how many instructions that do something precede each instruction.
    counts: BTreeMap<usize, Vec<usize>>,
}

impl Model {
    pub fn new(listing: Listing) -> Model {
        let mut model = Model {
            of_symbol: vec![None; listing.symbols.len()],
            listing,
            items: Vec::new(),
            by_section: BTreeMap::new(),
            marks: BTreeMap::new(),
            counts: BTreeMap::new(),
        };
        model.count_instructions();
        model.find_items();
        model.set_extents();
        model.name_items();
        model.find_marks();
        model
    }

    pub fn section(&self, number: usize) -> &Section {
        &self.listing.sections[number]
    }

    pub fn class(&self, section: usize) -> Class {
        class::of(self.section(section))
    }

    /// The items of a section, by start.
    pub fn items_of(&self, section: usize) -> &[usize] {
        self.by_section.get(&section).map_or(&[], Vec::as_slice)
    }

    fn count_instructions(&mut self) {
        for (number, section) in self.listing.sections.iter().enumerate() {
            let mut count = 0;
            let counts = section.insns.iter().map(|insn| {
                let before = count;
                count += usize::from(!insn.is_nop());
                before
            });
            let counts: Vec<usize> = counts.collect();
            if !counts.is_empty() {
                self.counts.insert(number, counts);
            }
        }
    }

    /// Makes an item of every symbol that names a function or variable; symbols at one place share it.
    fn find_items(&mut self) {
        let sized_code: BTreeSet<usize> = (self.listing.symbols.iter())
            .filter(|symbol| symbol.kind.ends_with("FUNC") && symbol.size > 0)
            .filter_map(|symbol| if let Home::Section(section) = symbol.home { Some(section) } else { None })
            .collect();
        let mut at: BTreeMap<(usize, u64), usize> = BTreeMap::new();
        let mut order: Vec<usize> = (0..self.listing.symbols.len()).collect();
        // A global name is the better one; then the one that is first in the table.
        order.sort_by_key(|&number| {
            let symbol = &self.listing.symbols[number];
            (symbol.local, symbol.kind == "NOTYPE", number)
        });
        for number in order {
            let symbol = &self.listing.symbols[number];
            let Home::Section(section) = symbol.home else { continue };
            if matches!(symbol.kind.as_str(), "SECTION" | "FILE")
                || symbol.name.is_empty()
                || symbol.name.starts_with(".L")
                || !self.class(section).has_items()
            {
                continue;
            }
            let code = self.section(section).has('X');
            let bare = symbol.kind == "NOTYPE";
            // Between functions a local label is part of the code in front of it.
            if code && bare && symbol.local && sized_code.contains(&section) {
                continue;
            }
            let item = *at.entry((section, symbol.value)).or_insert_with(|| {
                self.items.push(Item {
                    names: Vec::new(),
                    stem: String::new(),
                    numbered: false,
                    code,
                    section,
                    start: symbol.value,
                    end: symbol.value,
                    size: 0,
                    parent: None,
                    bare: true,
                });
                self.items.len() - 1
            });
            self.of_symbol[number] = Some(item);
            let item = &mut self.items[item];
            item.names.push(symbol.name.clone());
            item.size = item.size.max(symbol.size);
            item.bare &= bare;
            item.numbered |= item.names.len() == 1 && symbol.local && stem(&symbol.name) != symbol.name;
        }
        for (number, item) in self.items.iter().enumerate() {
            self.by_section.entry(item.section).or_default().push(number);
        }
        for items in self.by_section.values_mut() {
            items.sort_by_key(|&number| self.items[number].start);
        }
    }

    fn set_extents(&mut self) {
        for (&section, items) in &self.by_section {
            let end = self.listing.sections[section].size;
            for &number in items {
                let item = &self.items[number];
                let own = item.start + item.size;
                let next = (items.iter().map(|&other| self.items[other].start))
                    .find(|&start| start > item.start && start >= own)
                    .unwrap_or(end);
                let item = &mut self.items[number];
                let open = item.code || (item.size == 0 && item.bare);
                item.end = if open { next.max(own).min(end.max(own)) } else { own };
            }
        }
    }

    /// Sets stems, and finds names that occur twice and the parents of cold parts.
    fn name_items(&mut self) {
        let mut times: BTreeMap<(bool, String), usize> = BTreeMap::new();
        for item in &self.items {
            *times.entry((item.code, plain(item.name()).to_owned())).or_default() += 1;
        }
        for item in &mut self.items {
            item.stem = stem(plain(item.name()));
            item.numbered |= times[&(item.code, plain(item.name()).to_owned())] > 1;
        }
        let mut parents: BTreeMap<String, usize> = BTreeMap::new();
        for (number, item) in self.items.iter().enumerate().filter(|(_, item)| item.code) {
            for name in &item.names {
                parents.entry(plain(name).to_owned()).or_insert(number);
            }
        }
        for item in self.items.iter_mut().filter(|item| item.code) {
            let Some((parent, rest)) = plain(item.name()).split_once(".cold") else { continue };
            if rest.trim_start_matches('.').bytes().all(|byte| byte.is_ascii_digit()) {
                item.parent = parents.get(parent).copied();
            }
        }
    }

    fn find_marks(&mut self) {
        let mut marks: BTreeMap<usize, BTreeSet<u64>> = BTreeMap::new();
        for item in &self.items {
            marks.entry(item.section).or_default().insert(item.start);
        }
        for number in 0..self.listing.sections.len() {
            let section = self.section(number);
            let mut insns = section.insns.iter().peekable();
            for reloc in &section.relocs {
                while insns.next_if(|insn| insn.end <= reloc.at).is_some() {}
                let end = if section.has('X') { insns.peek().map(|insn| insn.end) } else { None };
                let symbol = &self.listing.symbols[reloc.symbol];
                if let Home::Section(target) = symbol.home {
                    let place = symbol.value.wrapping_add_signed(distance(reloc, end));
                    marks.entry(target).or_default().insert(place);
                }
            }
        }
        self.marks = marks;
    }

    /// The next place behind `at` that something refers to, or the section's end.
    pub fn next_mark(&self, section: usize, at: u64) -> u64 {
        let end = self.section(section).size;
        let marks = self.marks.get(&section);
        marks.and_then(|marks| marks.range(at + 1..).next()).copied().unwrap_or(end).min(end)
    }

    /// The number of the instruction at `at`, counted over the section, and the bytes into it.
    fn count_at(&self, section: usize, at: u64) -> (usize, u64) {
        let insns = &self.section(section).insns;
        let Some(counts) = self.counts.get(&section) else { return (0, at) };
        let behind = insns.partition_point(|insn| insn.at <= at);
        if behind == 0 {
            return (0, 0);
        }
        let insn = &insns[behind - 1];
        if at >= insn.end {
            return (counts[behind - 1] + usize::from(!insn.is_nop()), at - insn.end);
        }
        (counts[behind - 1], at - insn.at)
    }

    /// A place in an item, as code counts it or in bytes.
    pub fn place(&self, item: usize, at: u64) -> Place {
        let it = &self.items[item];
        if it.code && at >= it.start && at <= it.end {
            let (count, rest) = self.count_at(it.section, at);
            let (first, _) = self.count_at(it.section, it.start);
            return Place::Label(count.saturating_sub(first), rest);
        }
        Place::Byte(at.wrapping_sub(it.start).cast_signed())
    }

    /// What a relocation refers to. `end` is the end of the instruction around it, if it is in one.
    pub fn target(&self, reloc: &Reloc, end: Option<u64>) -> Target {
        self.resolve(reloc.symbol, distance(reloc, end))
    }

    /// What a symbol and a distance from it mean.
    pub fn resolve(&self, symbol: usize, distance: i64) -> Target {
        let it = &self.listing.symbols[symbol];
        match it.home {
            Home::Absolute => Target::Fixed(format!("{:#x}", it.value.wrapping_add_signed(distance))),
            Home::Undefined if symbol == 0 => Target::Fixed(format!("{distance:#x}")),
            Home::Undefined | Home::Common => Target::Name(it.name.clone(), distance),
            Home::Section(section) => {
                let at = it.value.wrapping_add_signed(distance);
                if let Some(item) = self.of_symbol[symbol] {
                    return Target::Item(item, self.place(item, at), None);
                }
                if it.name.starts_with(".L") && self.section(section).has('S') {
                    // A named string: the distance counts from its start, even beyond its end.
                    return self.string(section, at);
                }
                self.at(section, at)
            }
        }
    }

    fn string(&self, section: usize, at: u64) -> Target {
        let it = self.section(section);
        let unit = it.entsize.max(1);
        let mut end = at;
        while end < it.size && !(end..end + unit).all(|byte| it.byte(byte) == 0) {
            end += unit;
        }
        Target::String(it.slice(at.min(end), end))
    }

    /// What is at a place.
    pub fn at(&self, section: usize, at: u64) -> Target {
        let it = self.section(section);
        if it.has('M') && it.has('S') {
            return self.string(section, at);
        }
        if it.has('M') && it.entsize > 0 {
            let start = at - at % it.entsize;
            return Target::Constant(it.slice(start, start + it.entsize), at - start);
        }
        let items = self.items_of(section);
        let covers = |&&number: &&usize| {
            let item = &self.items[number];
            item.start <= at && (at < item.end || (item.start == at && item.start == item.end))
        };
        if let Some(&item) = items.iter().rev().find(covers) {
            let ends = |&&other: &&usize| {
                let other = &self.items[other];
                !other.code && other.end == at && other.start < at && self.items[item].start == at
            };
            return Target::Item(item, self.place(item, at), items.iter().find(ends).copied());
        }
        let place = |item: usize| Target::Item(item, self.place(item, at), None);
        if let [only] = items {
            let only_item = &self.items[*only];
            if only_item.start == 0 && (only_item.code || only_item.end == it.size) {
                return place(*only);
            }
        }
        if it.has('X') {
            return Target::Code(section, at, self.next_mark(section, at).max(at));
        }
        if self.class(section).is_constant() {
            return Target::Bytes(section, at, self.next_mark(section, at).max(at));
        }
        let before = items.iter().rev().find(|&&item| self.items[item].start <= at).or(items.first());
        match before {
            Some(&item) => place(item),
            None => Target::Loose(format!("{}+{at:#x}", it.name)),
        }
    }

    /// The instructions that start from `start` up to `end`.
    pub fn insns(&self, section: usize, start: u64, end: u64) -> &[Insn] {
        let insns = &self.section(section).insns;
        let from = insns.partition_point(|insn| insn.at < start);
        let to = insns.partition_point(|insn| insn.at < end);
        &insns[from..to.max(from)]
    }

    /// Whether content stands for the item, not its name: numbered, and read-only.
    pub fn is_by_content(&self, item: usize) -> bool {
        let it = &self.items[item];
        it.numbered && !it.code && self.class(it.section).is_constant()
    }
}

/// How far from its symbol a relocation refers to. A relative field counts from itself, and the processor
/// from the end of the instruction.
fn distance(reloc: &Reloc, end: Option<u64>) -> i64 {
    match end {
        Some(end) if reloc.relative() => reloc.addend + end.wrapping_sub(reloc.at).cast_signed(),
        _ => reloc.addend,
    }
}

/// A name without the file in front of it that some builds of Xen give local symbols (`hvm/vpt.c#pt_irq`).
pub(crate) fn plain(name: &str) -> &str {
    name.rsplit_once('#').map_or(name, |(_, name)| name)
}

/// A name without numbers between dots.
pub(crate) fn stem(name: &str) -> String {
    let (file, name) = name.rsplit_once('#').map_or(("", name), |(file, name)| (file, name));
    let mut words = name.split('.');
    let first = words.next().unwrap_or_default().to_owned();
    let kept = words.filter(|word| word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_digit()));
    let name = kept.fold(first, |name, word| format!("{name}.{word}"));
    if file.is_empty() { name } else { format!("{file}#{name}") }
}
