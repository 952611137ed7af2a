//! What goes into the payload: the closure of what changed.
//!
//! A piece is included because it changed, or because something included needs it and the hypervisor does not
//! have it. Whatever the hypervisor has is referred to by the name in its own table: calls to a replaced
//! function, and stored addresses of one, go to the original, so that later payloads and reverts work.

mod boot;
mod code;
mod hooks;
mod kept;
mod shipped;

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use xsplice_objects::{Class, Relocation, SectionId, Special};
use xsplice_report::{Because, Diagnostic, Difference, DifferenceKind, Place, Problems};

use self::kept::KeptFields;
use self::shipped::init_reference;
use crate::codes;
use crate::compare::{Compared, Verdict};
use crate::entries::Spot;
use crate::items::{ItemId, ItemKind};
use crate::meaning::{self, Known};
use crate::pieces::{ByAddress, Hook, Piece, PieceId, PieceKind, Reference, Replaced, Target, World};
use crate::proof::Addresses;
use crate::reasons::{self, ThroughOriginal};
use crate::words;

/// What goes into the payload, before it is checked.
#[derive(Debug, Default)]
pub struct Selection {
    /// Everything that is included, in a fixed order.
    pub pieces: Vec<Piece>,
    /// What it replaces, by name.
    pub replaced: Vec<Replaced>,
    /// What the loader is to call, by kind and in the order in which it calls those of one kind.
    pub hooks: Vec<Hook>,
    /// New functions, as symbols of the payload.
    pub new_functions: Vec<(String, Place)>,
    /// Functions that are gone from their object.
    pub removed: Vec<(String, String)>,
    /// Names of the hypervisor or of payloads below that are referred to.
    pub needs: BTreeSet<String>,
    /// What is referred to or replaced by its address.
    pub by_address: BTreeSet<ByAddress>,
    /// References to replaced functions: they go to the original, which jumps to the new code.
    pub through_original: Vec<ThroughOriginal>,
    /// What stands in the way so far.
    pub problems: Problems,
}

/// Names from 127 characters on are cut by the loader (xen/common/livepatch_elf.c, KSYM_NAME_LEN).
const LONGEST_SYMBOL: usize = 127;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Key {
    Item(usize, ItemId),
    Text(u64, Vec<u8>),
    Constant(u64, Vec<u8>),
    Code(usize, SectionId, u64, u64),
}

struct Selector<'s, 'p> {
    pairs: &'s [Compared<'p>],
    world: &'s World<'s>,
    globals: BTreeMap<String, (usize, ItemId)>,
    pieces: BTreeMap<Key, PieceId>,
    symbols: BTreeSet<String>,
    /// Globals that were local before the patch, with their object and original item.
    made_global: BTreeMap<&'s str, (usize, ItemId)>,
    /// Names of the hypervisor that end in compilers' counters: by what is in front of these and by size in bytes.
    numbered: OnceCell<BTreeMap<(&'s str, u64), Vec<&'s str>>>,
    /// Addresses of what the hypervisor's own table names more than once.
    addresses: OnceCell<Addresses<'s>>,
    /// What each object's own code says of addresses.
    own_addresses: RefCell<BTreeMap<usize, Addresses<'s>>>,
    queue: VecDeque<(usize, ItemId)>,
    /// For each replaced function the references to what boot frees that may stay.
    kept: BTreeMap<(usize, ItemId), KeptFields>,
    selection: Selection,
}

impl Selection {
    /// Selects what the payload needs.
    pub fn of(pairs: &[Compared<'_>], world: &World<'_>) -> Selection {
        let mut selector = Selector {
            pairs,
            world,
            globals: new_globals(pairs),
            pieces: BTreeMap::new(),
            symbols: BTreeSet::new(),
            made_global: made_global(pairs),
            numbered: OnceCell::new(),
            addresses: OnceCell::new(),
            own_addresses: RefCell::default(),
            queue: VecDeque::new(),
            kept: BTreeMap::new(),
            selection: Selection::default(),
        };
        for (index, pair) in pairs.iter().enumerate() {
            selector.selection.problems.extend(pair.problems.clone());
            let path = &pair.correlated.parts.pair.path;
            selector.selection.removed.extend(pair.removed.iter().map(|name| (path.clone(), name.clone())));
            for (&id, verdict) in &pair.functions {
                if let Verdict::Changed(first_difference) = verdict {
                    selector.replace(index, id, first_difference);
                }
            }
        }
        selector.select_hooks();
        selector.refuse_moved();
        while let Some((index, head)) = selector.queue.pop_front() {
            selector.fill_unit(index, head);
        }
        selector.judge_boot_code();
        selector.selection.replaced.sort_by(|a, b| (&a.name, a.piece).cmp(&(&b.name, b.piece)));
        selector.selection.problems.normalise();
        reasons::complete(&mut selector.selection, world);
        selector.selection
    }
}

/// Globals that only patched objects have, and those of which the payload brings a new copy.
fn new_globals(pairs: &[Compared<'_>]) -> BTreeMap<String, (usize, ItemId)> {
    let mut globals = BTreeMap::new();
    let mut old: BTreeSet<&str> = BTreeSet::new();
    for pair in pairs {
        old.extend(pair.correlated.parts.base.iter().filter(|(_, i)| !i.local).map(|(_, i)| i.name.as_str()));
    }
    for (index, pair) in pairs.iter().enumerate() {
        for (id, item) in pair.correlated.parts.patched.iter() {
            if item.local || item.kind == ItemKind::Blob {
                continue;
            }
            let names = std::iter::once(&item.name).chain(&item.aliases);
            if pair.correlated.copies.contains_key(&id) {
                globals.extend(names.map(|name| (name.clone(), (index, id))));
            } else if pair.correlated.counterpart[id.0].is_none() && !old.contains(item.name.as_str()) {
                globals.entry(item.name.clone()).or_insert((index, id));
            }
        }
    }
    globals
}

/// Globals that were local before the patch: the first object that has each, and the original item there.
fn made_global<'s>(pairs: &'s [Compared<'_>]) -> BTreeMap<&'s str, (usize, ItemId)> {
    let mut found: BTreeMap<&str, Option<(usize, ItemId)>> = BTreeMap::new();
    for (index, pair) in pairs.iter().enumerate() {
        let (base, patched) = (&pair.correlated.parts.base, &pair.correlated.parts.patched);
        let mut seen = BTreeSet::new();
        for (id, item) in patched.iter().filter(|(_, item)| !item.local) {
            // Of several items of one name in an object, the first counts.
            if seen.insert(item.name.as_str()) {
                let counterpart =
                    pair.correlated.counterpart[id.0].filter(|&base_id| base.get(base_id).local);
                let known = found.entry(&item.name).or_default();
                *known = known.or(counterpart.map(|base_id| (index, base_id)));
            }
        }
    }
    found.into_iter().filter_map(|(name, found)| Some((name, found?))).collect()
}

impl<'s, 'p> Selector<'s, 'p> {
    fn pair(&self, index: usize) -> &'s Compared<'p> {
        &self.pairs[index]
    }

    fn refuse(&mut self, diagnostic: Diagnostic) {
        self.selection.problems.push(diagnostic);
    }

    fn place(&self, index: usize, name: &str) -> Place {
        self.pair(index).correlated.parts.pair.place(name)
    }

    /// What went from one object to another has no counterpart in its new one: a changed function would be missed,
    /// and a variable would start anew beside the one that holds the host's state.
    fn refuse_moved(&mut self) {
        let mut gone: BTreeMap<(&str, ItemKind), &str> = BTreeMap::new();
        for pair in self.pairs {
            let correlated = &pair.correlated;
            let kept: BTreeSet<ItemId> = correlated.counterpart.iter().flatten().copied().collect();
            for (id, item) in correlated.parts.base.iter().filter(|(id, _)| !kept.contains(id)) {
                let data = item.kind == ItemKind::Data && *correlated.base.known(id) != Known::Content;
                if data || item.kind == ItemKind::Function && !item.local {
                    gone.insert((&item.name, item.kind), &correlated.parts.pair.path);
                }
            }
        }
        for (index, pair) in self.pairs.iter().enumerate() {
            let correlated = &pair.correlated;
            for (id, item) in correlated.parts.patched.iter() {
                let Some(from) = gone.get(&(item.name.as_str(), item.kind)) else { continue };
                let path = &correlated.parts.pair.path;
                if correlated.counterpart[id.0].is_some() || *from == path || item.class.is_init() {
                    continue;
                }
                let place = self.place(index, &item.name);
                self.refuse(
                    Diagnostic::new(codes::MOVED, format!("{} moved from {from} to {path}", item.name))
                        .at(place)
                        .why("The host keeps the old one, and what it holds or who calls it cannot be followed.")
                        .advice("Leave it in its source file in the patch for live patching."),
                );
            }
        }
    }

    /// A changed function: its new code, and the entry that makes the hypervisor jump there.
    fn replace(&mut self, index: usize, head: ItemId, first_difference: &Difference) {
        let correlated = &self.pair(index).correlated;
        let Some(base) = correlated.counterpart[head.0] else { return };
        let because = Because::changed(first_difference.clone());
        let Some(name) = self.shipped_name(index, base) else { return };
        let object = correlated.parts.pair.path.clone();
        let place = self.place(index, &correlated.parts.patched.get(head).name);
        if let Some(label) = correlated.parts.base.entry_point_in(base) {
            let what = format!("it has an entry point {label} inside, which other code may go on to use");
            self.strange(index, &name, &correlated.parts.pair.path, &what);
        }
        let kept = self.kept_fields(index, head);
        self.kept.insert((index, head), kept);
        let piece = self.unit(index, head, because);
        let address = self.address_to_replace(index, base, &name);
        let first_difference = first_difference.clone();
        self.selection.replaced.push(Replaced { name, address, piece, place, object, first_difference });
    }

    /// Reserves the pieces of a function's fragments; their contents follow from the queue.
    fn unit(&mut self, index: usize, head: ItemId, because: Because) -> PieceId {
        if let Some(&piece) = self.pieces.get(&Key::Item(index, head)) {
            return piece;
        }
        let items = self.pair(index).correlated.parts.patched.fragments(head);
        let mut first = None;
        for id in items {
            let piece = self.reserve_item(index, id, because.clone());
            first.get_or_insert(piece);
        }
        self.queue.push_back((index, head));
        // A unit has at least its head.
        first.unwrap_or(PieceId(0))
    }

    fn reserve_item(&mut self, index: usize, id: ItemId, because: Because) -> PieceId {
        let correlated = &self.pair(index).correlated;
        let parts = correlated.parts;
        let item = parts.patched.get(id);
        let section = parts.patched.object.section(item.section);
        let kind = match item.class {
            Class::Text | Class::InitText => PieceKind::Text,
            Class::ReadOnly => PieceKind::ReadOnly,
            Class::Bss => PieceKind::Bss,
            _ => PieceKind::Data,
        };
        // One source can give several objects, and then several functions of one name: the loader would not notice.
        let symbol = self.symbol(index, id).filter(|symbol| self.symbols.insert(symbol.clone()));
        let piece = Piece {
            kind,
            object: parts.pair.path.clone(),
            label: item.name.clone(),
            symbol,
            global: !item.local,
            bytes: section.bytes(item.start, item.end).into_owned(),
            declared: item.declared,
            align: alignment(section.align, item.start),
            references: Vec::new(),
            because,
        };
        self.keep(Key::Item(index, id), piece)
    }

    /// The payload's own name for an item. The loader refuses a name that is there already unless it is that of a
    /// replaced function, so fragments and new copies of existing data stay without one.
    fn symbol(&self, index: usize, id: ItemId) -> Option<String> {
        let correlated = &self.pair(index).correlated;
        let item = correlated.parts.patched.get(id);
        if item.kind == ItemKind::Blob
            || *correlated.patched.known(id) == Known::Content
            || item.unit.is_some()
        {
            return None;
        }
        if let Some(base) = correlated.counterpart[id.0] {
            let function = item.kind == ItemKind::Function;
            return function.then(|| self.table_name(index, base, true));
        }
        let name = self.table_name(index, id, false);
        (!item.local || !self.world.has(&name) && name.len() < LONGEST_SYMBOL).then_some(name)
    }

    fn keep(&mut self, key: Key, piece: Piece) -> PieceId {
        let id = PieceId(self.selection.pieces.len());
        self.selection.pieces.push(piece);
        self.pieces.insert(key, id);
        id
    }

    fn fill_unit(&mut self, index: usize, head: ItemId) {
        let parts = self.pair(index).correlated.parts;
        let name = parts.patched.get(head).name.clone();
        if !matches!(self.pair(index).functions.get(&head), Some(Verdict::Changed(_)) | None) {
            let symbol =
                self.pieces.get(&Key::Item(index, head)).map(|id| self.selection.pieces[id.0].symbol.clone());
            let place = self.place(index, &name);
            self.selection.new_functions.push((symbol.flatten().unwrap_or(name.clone()), place));
        }
        for id in parts.patched.fragments(head) {
            let item = parts.patched.get(id);
            let piece = self.pieces[&Key::Item(index, id)];
            self.fill_code(index, piece, item.section, item.start, item.end, Some(head), &name);
            for entry in parts.patched_entries.by_item.get(&id).into_iter().flatten() {
                self.entry(index, entry, head, &name);
            }
        }
    }

    /// What a spot becomes in the payload, and the spot's own offset at which that target starts.
    fn target(&mut self, index: usize, spot: Spot, unit: Option<ItemId>, by: &str) -> Option<(Target, i64)> {
        let parts = self.pair(index).correlated.parts;
        let object = parts.patched.object;
        let because = || Because::needed_by(by);
        let Some(section_id) = spot.section else {
            let name = object.symbols[spot.symbol].name.clone();
            if let Some(&(home, id)) = self.globals.get(&name) {
                return Some((Target::Piece(self.include(home, id, because())?), 0));
            }
            // It may have been local in the original: then the hypervisor has it under its file's name.
            let item = self.made_global.get(name.as_str()).copied();
            let name = match item {
                Some((home, base)) => self.shipped_name(home, base)?,
                None => name,
            };
            return Some((self.hypervisor(index, name, item, by)?, 0));
        };
        let section = object.section(section_id);
        match section.class {
            Class::Strings => {
                let (start, bytes) = meaning::string_at(object, section_id, spot);
                let align = section.entry_size.clamp(1, 8);
                let key = Key::Text(align, bytes.clone());
                let piece = self.read_only(key, index, bytes, align, because());
                Some((Target::Piece(piece), start.cast_signed()))
            }
            Class::Constants => {
                let (start, bytes) = meaning::constant_at(object, section_id, spot);
                let key = Key::Constant(section.align, bytes.clone());
                let piece = self.read_only(key, index, bytes, section.align, because());
                Some((Target::Piece(piece), start.cast_signed()))
            }
            Class::Special(Special::Fixup) => {
                let (start, end) = meaning::fixup_range(object, section_id, spot.offset);
                let piece = self.extra_code(index, PieceKind::Fixup, section_id, start, end, unit, by);
                Some((Target::Piece(piece), start.cast_signed()))
            }
            Class::Special(_) | Class::Ignored | Class::Tables => {
                self.strange(index, by, &section.name, "it refers to a section that the linker throws away");
                None
            }
            _ => self.item_target(index, section_id, spot.offset, unit, by),
        }
    }

    fn item_target(
        &mut self,
        index: usize,
        section: SectionId,
        offset: i64,
        unit: Option<ItemId>,
        by: &str,
    ) -> Option<(Target, i64)> {
        let compared = self.pair(index);
        let correlated = &compared.correlated;
        let items = &correlated.parts.patched;
        let section_name = &items.object.section(section).name;
        let Some((id, distance)) = items.at(section, offset) else {
            self.strange(index, by, section_name, "it refers to a place that belongs to nothing");
            return None;
        };
        let item = items.get(id);
        let start = item.start.cast_signed();
        if unit.is_some_and(|unit| items.head(id) == unit)
            && let Some(&piece) = self.pieces.get(&Key::Item(index, id))
        {
            return Some((Target::Piece(piece), start));
        }
        if item.kind == ItemKind::Aside {
            let (start, end) = items.aside_range(section, offset);
            let piece = self.aside(index, id, section, (start, end), unit, by);
            return Some((Target::Piece(piece), start.cast_signed()));
        }
        if item.class.is_init() {
            let place = self.place(index, by).section(section_name);
            let name = item.name.clone();
            self.refuse(init_reference(by, &name, place));
            return None;
        }
        let inside = item.kind == ItemKind::Function && distance != 0;
        if item.unit.is_some() || inside && correlated.counterpart[id.0].is_some() {
            self.strange(index, by, section_name, &format!("it refers to the inside of {}", item.name));
            return None;
        }
        let because = Because::needed_by(by);
        match correlated.counterpart[id.0] {
            Some(base)
                if *correlated.patched.known(id) != Known::Content
                    && !correlated.copies.contains_key(&id) =>
            {
                let name = self.shipped_name(index, base)?;
                let target = self.hypervisor(index, name, Some((index, base)), by)?;
                self.check_constant(index, base, &target, by);
                Some((target, start))
            }
            _ => Some((Target::Piece(self.include(index, id, because)?), start)),
        }
    }

    /// Something that the hypervisor does not have.
    fn include(&mut self, index: usize, id: ItemId, because: Because) -> Option<PieceId> {
        let items = &self.pair(index).correlated.parts.patched;
        let item = items.get(id);
        if let Some(&piece) = self.pieces.get(&Key::Item(index, id)) {
            return Some(piece);
        }
        match (item.kind, item.class) {
            (ItemKind::Function, Class::Text) => Some(self.unit(index, items.head(id), because)),
            (ItemKind::Blob, Class::Text | Class::Data | Class::Bss | Class::PerCpu | Class::BootArray) => {
                let (name, by) = (item.name.clone(), because.to_string());
                self.strange(index, &name, &name, &format!("code or live data without a name is {by}"));
                None
            }
            // Refused where it was compared, with its own code.
            (_, Class::PerCpu | Class::BootArray) => None,
            (_, Class::ReadOnly | Class::Data | Class::Bss) => {
                let change = self.pair(index).correlated.copies.get(&id).cloned();
                let because = change
                    .map_or(because, |what| Because::changed(Difference::new(DifferenceKind::Data, what)));
                let piece = self.reserve_item(index, id, because);
                self.fill_data(index, piece, id);
                Some(piece)
            }
            _ => {
                let (name, section) = (item.name.clone(), items.object.section(item.section).name.clone());
                self.strange(index, &name, &section, "it stands in a section that a payload cannot have");
                None
            }
        }
    }

    fn fill_data(&mut self, index: usize, piece: PieceId, id: ItemId) {
        let items = &self.pair(index).correlated.parts.patched;
        let item = items.get(id);
        let name = item.name.clone();
        let section = items.object.section(item.section);
        for relocation in section.relocations_in(item.start, item.end) {
            if relocation.kind.is_relative() {
                self.relative_in_data(index, piece, id, relocation);
            } else {
                self.refer(index, piece, item.start, relocation, 0, None, &name);
            }
        }
    }

    /// A jump table entry: the distance from the table to a place in a function that is included.
    fn relative_in_data(&mut self, index: usize, piece: PieceId, id: ItemId, relocation: &Relocation) {
        let correlated = &self.pair(index).correlated;
        let items = &correlated.parts.patched;
        let item = items.get(id);
        let spot = correlated.patched.spot(relocation, 0);
        let target = spot
            .section
            .filter(|&section| items.object.section(section).class == Class::Text)
            .and_then(|section| items.at(section, spot.offset))
            .and_then(|(id, _)| Some((id, *self.pieces.get(&Key::Item(index, id))?)));
        // One function to a section: no other item could be meant by an offset that is a distance off.
        let alone = target.is_some_and(|(id, _)| items.in_section(items.get(id).section).len() == 1);
        match target {
            Some((id, target)) if alone => {
                let offset = relocation.offset - item.start;
                let addend = spot.offset - items.get(id).start.cast_signed();
                let piece = &mut self.selection.pieces[piece.0];
                meaning::blank(&mut piece.bytes, offset, relocation.kind);
                piece.references.push(Reference {
                    offset,
                    kind: relocation.kind,
                    target: Target::Piece(target),
                    addend,
                });
            }
            _ => {
                let (name, section) = (item.name.clone(), items.object.section(item.section).name.clone());
                self.strange(
                    index,
                    &name,
                    &section,
                    "data holds a distance to something that is not included",
                );
            }
        }
    }

    fn read_only(&mut self, key: Key, index: usize, bytes: Vec<u8>, align: u64, because: Because) -> PieceId {
        if let Some(&piece) = self.pieces.get(&key) {
            return piece;
        }
        let piece = Piece {
            kind: PieceKind::ReadOnly,
            object: self.pair(index).correlated.parts.pair.path.clone(),
            label: words::merged(matches!(key, Key::Text(..)), &bytes),
            symbol: None,
            global: false,
            declared: bytes.len() as u64,
            bytes,
            align,
            references: Vec::new(),
            because,
        };
        self.keep(key, piece)
    }
}

fn alignment(section: u64, start: u64) -> u64 {
    if start == 0 { section } else { section.min(1 << start.trailing_zeros()) }
}
