//! Changed read-only data: what else changes by it, and whether every user of the old copy can be replaced.
//!
//! The hypervisor's copy stays as it is; the payload brings a new one, and every function that refers to the old
//! one is replaced, in whatever object it is. That is right only if nobody else has the old one's address: not a
//! variable, not boot's arrays, not code that was handed it. [`crate::flow`] follows the address through the
//! functions; where it gets out, the change is refused with the list of places.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rayon::prelude::*;
use xsplice_objects::{Class, SectionId, Special};
use xsplice_report::{Diagnostic, Difference, DifferenceKind, Problems};

use crate::codes;
use crate::difference;
use crate::entries::{Entries, Spot};
use crate::flow::{Address, Flow, Wanted};
use crate::items::{Item, ItemId, ItemKind, Items};
use crate::meaning::{Content, Fingerprint, Known, Meaning, View};
use crate::names;
use crate::pair::Correlated;

/// More functions than this are not replaced for one constant. Each costs a jump, and has to be outside of every
/// code path that must not be patched; nobody reviews a payload of hundreds for a changed number.
const MAX_USERS: usize = 64;

/// Read-only data of all objects that changed.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// By each of its global names: the name that it goes by, and the first difference.
    globals: BTreeMap<String, (String, String)>,
}

/// Which data is meant: the number of its pair, none for a global; and its name.
type Key = (Option<usize>, String);

/// A piece of changed data.
struct Datum {
    pair: usize,
    name: String,
    difference: String,
}

/// What was found about a piece of changed data.
#[derive(Default)]
struct Finding {
    /// Where its address is kept or let out.
    escapes: BTreeSet<String>,
    /// Functions that run after boot and refer to it.
    users: BTreeSet<String>,
    /// Whether anything refers to it.
    is_used: bool,
}

impl Changes {
    /// Finds changed read-only data, and marks it in the views of all objects: its users differ then, and they
    /// may be read-only data themselves. To a fixpoint.
    pub(crate) fn spread(all: &mut [Correlated<'_>]) -> Changes {
        let mut changes = Changes::default();
        loop {
            let found: Vec<Vec<(ItemId, String)>> = all.par_iter().map(changed).collect();
            if found.iter().all(Vec::is_empty) {
                return changes;
            }
            for (correlated, found) in all.iter_mut().zip(found) {
                for (id, difference) in found {
                    let item = correlated.parts.patched.get(id);
                    if !item.local {
                        for name in std::iter::once(&item.name).chain(&item.aliases) {
                            changes.globals.insert(name.clone(), (item.name.clone(), difference.clone()));
                        }
                    }
                    correlated.patched.mark_changed(id);
                    correlated.copies.insert(id, difference);
                }
            }
            let names: Arc<BTreeSet<String>> = Arc::new(changes.names());
            for correlated in all.iter_mut() {
                correlated.patched.mark_names_changed(Arc::clone(&names));
            }
        }
    }

    /// Names that other objects know changed data by.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.globals.keys().cloned().collect()
    }

    /// The first difference of each piece of data of which the payload brings a new copy, by name.
    pub(crate) fn copies_of<'p>(correlated: &Correlated<'p>) -> BTreeMap<&'p str, String> {
        let items = &correlated.parts.patched;
        let named =
            correlated.copies.iter().map(|(&id, difference)| (&*items.get(id).name, difference.clone()));
        named.collect()
    }

    /// The changed data that a function refers to, in words; none where there is none. `copies` are those of its
    /// object.
    pub(crate) fn used_by(
        &self,
        function: &Fingerprint,
        copies: &BTreeMap<&str, String>,
    ) -> Option<Difference> {
        if copies.is_empty() && self.globals.is_empty() {
            return None;
        }
        let mut names = BTreeSet::new();
        for (_, content) in &function.fragments {
            new_names(content, &mut names);
        }
        for (_, _, meaning) in function.entries.iter().flat_map(|entry| &entry.fields) {
            new_name(meaning, &mut names);
        }
        let words: Vec<String> = names
            .into_iter()
            .filter_map(|name| {
                let global = || self.globals.get(name).map(|(_, difference)| difference.as_str());
                let difference = copies.get(name).map(String::as_str).or_else(global)?;
                Some(format!("uses {name}, which changed: {difference}"))
            })
            .collect();
        (!words.is_empty()).then(|| Difference::new(DifferenceKind::Data, words.join("; ")))
    }

    /// What stands in the way of new copies, for each pair.
    pub(crate) fn judge(&self, all: &[Correlated<'_>]) -> Vec<Problems> {
        let data = self.data(all);
        let mut problems = vec![Problems::new(); all.len()];
        if data.is_empty() {
            return problems;
        }
        let sides: Vec<Side<'_>> = all
            .par_iter()
            .enumerate()
            .flat_map_iter(|(index, correlated)| self.sides(index, correlated, &data))
            .collect();
        let holders: Arc<BTreeSet<Key>> =
            Arc::new(sides.iter().flat_map(|side| side.holder_keys.iter().cloned()).collect());
        let nested = sides.iter().any(|side| side.holds_holder(&holders));
        let held = if nested { Address::Holder } else { Address::Data };
        let found: Vec<BTreeMap<Key, Finding>> = sides
            .into_par_iter()
            .map(|side| Side { held, holder_keys: (*holders).clone(), ..side }.findings())
            .collect();
        let mut merged: BTreeMap<Key, Finding> = BTreeMap::new();
        for (key, finding) in found.into_iter().flatten() {
            let known = merged.entry(key).or_default();
            known.escapes.extend(finding.escapes);
            known.users.extend(finding.users);
            known.is_used |= finding.is_used;
        }
        for (key, datum) in &data {
            let finding = merged.remove(key).unwrap_or_default();
            let is_copy = key.0.is_none()
                || all[datum.pair].copies.keys().any(|id| {
                    let item = all[datum.pair].parts.patched.get(*id);
                    item.local && item.name == datum.name
                });
            problems[datum.pair].extend(refusal(&all[datum.pair], datum, &finding, is_copy));
        }
        problems
    }

    /// All changed data: what comes along as a new copy, and static variables of functions, which are part of
    /// their functions' meaning.
    fn data(&self, all: &[Correlated<'_>]) -> BTreeMap<Key, Datum> {
        let mut data = BTreeMap::new();
        for (pair, correlated) in all.iter().enumerate() {
            let items = &correlated.parts.patched;
            for (id, difference) in &correlated.copies {
                let name = items.get(*id).name.clone();
                let key = key_of(pair, items.get(*id));
                data.insert(key, Datum { pair, name, difference: difference.clone() });
            }
            for (id, difference) in changed_numbered(correlated) {
                let name = items.get(id).name.clone();
                data.insert((Some(pair), name.clone()), Datum { pair, name, difference });
            }
        }
        data
    }

    fn sides<'a>(
        &self,
        index: usize,
        correlated: &'a Correlated<'_>,
        data: &BTreeMap<Key, Datum>,
    ) -> Vec<Side<'a>> {
        let parts = correlated.parts;
        let wanted = |id: ItemId, item: &Item| {
            let known = data.get_key_value(&key_of(index, item));
            let copied = correlated.copies.contains_key(&id);
            let by_content = *correlated.patched.known(id) == Known::Content;
            known
                .filter(|_| item.kind == ItemKind::Data && (copied || by_content))
                .map(|(key, _)| key.clone())
        };
        let (mut base, mut patched) = (BTreeMap::new(), BTreeMap::new());
        for (id, item) in parts.patched.iter() {
            let Some(key) = wanted(id, item) else { continue };
            if let Some(counterpart) = correlated.counterpart[id.0] {
                base.insert(counterpart, BTreeSet::from([key.clone()]));
            }
            patched.insert(id, BTreeSet::from([key]));
        }
        let pair = parts.pair;
        let mut sides = vec![Side::of(
            correlated,
            (&correlated.patched, &parts.patched_entries),
            pair.patched_debug.as_ref(),
            patched,
            self,
        )];
        if !pair.untouched {
            sides.push(Side::of(
                correlated,
                (&correlated.base, &parts.base_entries),
                pair.base_debug.as_ref(),
                base,
                self,
            ));
        }
        sides.retain(|side| !side.items.is_empty() || !side.names.is_empty());
        sides
    }
}

fn key_of(pair: usize, item: &Item) -> Key {
    (item.local.then_some(pair), item.name.clone())
}

/// Read-only data with a name that differs from the original's and is not marked yet.
fn changed(correlated: &Correlated<'_>) -> Vec<(ItemId, String)> {
    let parts = correlated.parts;
    if parts.pair.assembler {
        // Compared by section.
        return Vec::new();
    }
    let mut found = Vec::new();
    for (id, item) in parts.patched.iter() {
        let movable = item.kind == ItemKind::Data
            && item.class == Class::ReadOnly
            && !item.weak
            && !correlated.copies.contains_key(&id)
            && *correlated.patched.known(id) != Known::Content;
        let Some(base) = correlated.counterpart[id.0].filter(|_| movable) else { continue };
        let original = parts.base.get(base);
        if original.class != Class::ReadOnly || original.weak {
            continue;
        }
        let (before, after) = (correlated.base.data(base, None), correlated.patched.data(id, None));
        if before != after {
            found.push((id, difference::of_data(&before, &after)));
        }
    }
    found
}

/// Constant static variables of functions that differ from the original's. Those that the compiler makes for
/// itself nobody can have kept.
fn changed_numbered(correlated: &Correlated<'_>) -> Vec<(ItemId, String)> {
    let parts = correlated.parts;
    let numbered = |item: &Item| {
        item.kind == ItemKind::Data
            && item.class == Class::ReadOnly
            && item.local
            && names::is_numbered(&item.name)
            && !names::is_by_content(&item.name)
    };
    let kept: BTreeSet<ItemId> = correlated.counterpart.iter().flatten().copied().collect();
    let left: BTreeSet<&str> = parts
        .base
        .iter()
        .filter(|(id, item)| numbered(item) && !kept.contains(id))
        .map(|(_, item)| names::unnumbered(&item.name))
        .collect();
    let mut found = Vec::new();
    for (id, item) in parts.patched.iter().filter(|(_, item)| numbered(item)) {
        let after = correlated.patched.data(id, None);
        match correlated.counterpart[id.0] {
            Some(base) => {
                let before = correlated.base.data(base, None);
                if before != after {
                    found.push((id, difference::of_data(&before, &after)));
                }
            }
            None if left.contains(names::unnumbered(&item.name)) => {
                found.push((id, "which one of the original it was cannot be told".into()));
            }
            None => {}
        }
    }
    found
}

fn new_names<'c>(content: &'c Content, names: &mut BTreeSet<&'c str>) {
    for (_, _, meaning) in &content.references {
        new_name(meaning, names);
    }
}

fn new_name<'c>(meaning: &'c Meaning, names: &mut BTreeSet<&'c str>) {
    match meaning {
        Meaning::New(name, _) => {
            names.insert(name);
        }
        Meaning::Bytes(content, _) => new_names(content, names),
        _ => {}
    }
}

/// One side of a pair, and what in it is or leads to changed data.
struct Side<'a> {
    correlated: &'a Correlated<'a>,
    view: &'a View<'a>,
    entries: &'a Entries,
    debug: Option<&'a xsplice_dwarf::DebugInfo>,
    /// Changed data, and data without a name that holds its address.
    items: BTreeMap<ItemId, BTreeSet<Key>>,
    /// Changed data of other objects.
    names: BTreeMap<String, BTreeSet<Key>>,
    /// Those of `items` that hold the address of any.
    holders: BTreeMap<ItemId, BTreeSet<Key>>,
    /// What of all changed data holds the address of any.
    holder_keys: BTreeSet<Key>,
    /// What may be read from a holder.
    held: Address,
}

impl Wanted for Side<'_> {
    fn address(&self, spot: Spot) -> Address {
        let Some(keys) = self.keys(spot) else { return Address::Other };
        let item = spot.section.and_then(|section| self.view.items.at(section, spot.offset));
        let holder = match item {
            Some((id, _)) => self.holders.contains_key(&id),
            None => keys.iter().any(|key| self.holder_keys.contains(key)),
        };
        if holder { Address::Holder } else { Address::Data }
    }

    fn held(&self) -> Address {
        self.held
    }
}

impl<'a> Side<'a> {
    fn of(
        correlated: &'a Correlated<'_>,
        (view, entries): (&'a View<'a>, &'a Entries),
        debug: Option<&'a xsplice_dwarf::DebugInfo>,
        items: BTreeMap<ItemId, BTreeSet<Key>>,
        changes: &Changes,
    ) -> Side<'a> {
        let undefined =
            view.items.object.symbols.iter().filter(|s| s.home == xsplice_objects::Home::Undefined);
        let names = undefined
            .filter_map(|symbol| {
                let (name, _) = changes.globals.get(&symbol.name)?;
                Some((symbol.name.clone(), BTreeSet::from([(None, name.clone())])))
            })
            .collect();
        let mut side = Side {
            correlated,
            view,
            entries,
            debug,
            items,
            names,
            holders: BTreeMap::new(),
            holder_keys: BTreeSet::new(),
            held: Address::Data,
        };
        if side.items.is_empty() && side.names.is_empty() {
            return side;
        }
        side.find_nameless();
        side
    }

    /// Data without a name is part of who refers to it: where it holds the address of changed data, it leads there.
    fn find_nameless(&mut self) {
        loop {
            let mut more: BTreeMap<ItemId, BTreeSet<Key>> = BTreeMap::new();
            for (id, item) in self.view.items.iter() {
                let nameless = matches!(item.kind, ItemKind::Data | ItemKind::Blob)
                    && item.class == Class::ReadOnly
                    && *self.view.known(id) == Known::Content;
                let known = self.items.get(&id);
                if !nameless && known.is_none() {
                    continue;
                }
                let held = self.held_by(item);
                if !held.is_empty() {
                    if let Some(known) = known.filter(|_| !nameless) {
                        self.holder_keys.extend(known.iter().cloned());
                    }
                    self.holders.insert(id, held.clone());
                }
                if nameless && known.is_none_or(|known| !held.is_subset(known)) && !held.is_empty() {
                    more.entry(id).or_default().extend(held);
                }
            }
            if more.is_empty() {
                return;
            }
            for (id, keys) in more {
                self.items.entry(id).or_default().extend(keys);
            }
        }
    }

    /// Whether a holder holds the address of a holder: then what is read from one may be one again.
    fn holds_holder(&self, holder_keys: &BTreeSet<Key>) -> bool {
        self.holders.iter().any(|(id, held)| {
            let item = self.view.items.get(*id);
            let section = self.view.items.object.section(item.section);
            let nameless = |spot: Spot| {
                let target = spot.section.and_then(|home| self.view.items.at(home, spot.offset));
                target.is_some_and(|(target, _)| self.holders.contains_key(&target))
            };
            held.iter().any(|key| holder_keys.contains(key))
                || section
                    .relocations_in(item.start, item.end)
                    .iter()
                    .any(|relocation| nameless(self.view.spot(relocation, 0)))
        })
    }

    fn held_by(&self, item: &Item) -> BTreeSet<Key> {
        let section = self.view.items.object.section(item.section);
        let mut held = BTreeSet::new();
        for relocation in section.relocations_in(item.start, item.end) {
            let adjust = if relocation.kind.is_relative() {
                -(relocation.offset - item.start).cast_signed()
            } else {
                0
            };
            held.extend(self.keys(self.view.spot(relocation, adjust)).into_iter().flatten().cloned());
        }
        held
    }

    /// The changed data that a place belongs to or leads to.
    fn keys(&self, spot: Spot) -> Option<&BTreeSet<Key>> {
        match spot.section {
            Some(section) => self.items.get(&self.view.items.at(section, spot.offset)?.0),
            None => self.names.get(&self.view.items.object.symbols[spot.symbol].name),
        }
    }

    fn findings(&self) -> BTreeMap<Key, Finding> {
        let mut findings: BTreeMap<Key, Finding> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        if !self.correlated.parts.pair.assembler {
            self.follow(&mut findings, &mut seen);
        }
        self.holders(&mut findings, &seen);
        findings
    }

    /// Functions.
    fn follow(&self, findings: &mut BTreeMap<Key, Finding>, seen: &mut BTreeSet<(SectionId, u64)>) {
        let items = self.view.items;
        let flow = Flow::of(self.view, self.entries, self.debug, self);
        let mut used: BTreeMap<ItemId, BTreeSet<Key>> = BTreeMap::new();
        for (head, references) in flow.users() {
            let keys: BTreeSet<Key> =
                references.values().filter_map(|&spot| self.keys(spot)).flatten().cloned().collect();
            seen.extend(references.keys().copied());
            for key in &keys {
                let finding = findings.entry(key.clone()).or_default();
                finding.is_used = true;
                if items.get(head).class == Class::Text {
                    finding.users.insert(self.name(head));
                }
            }
            used.insert(head, keys);
        }
        let all: BTreeSet<Key> = used.values().flatten().cloned().collect();
        for head in flow.reaching() {
            for (function, how) in flow.escapes(head) {
                let keys: BTreeSet<&Key> =
                    [head, function].iter().filter_map(|id| used.get(id)).flatten().collect();
                let keys = if keys.is_empty() { all.iter().collect() } else { keys };
                for key in keys {
                    let finding = findings.entry(key.clone()).or_default();
                    finding.escapes.insert(format!("{} {how}", self.name(function)));
                }
            }
        }
    }

    /// Whatever else refers to changed data.
    fn holders(&self, findings: &mut BTreeMap<Key, Finding>, seen: &BTreeSet<(SectionId, u64)>) {
        let items = self.view.items;
        for (id, section) in items.object.sections() {
            if matches!(section.class, Class::Ignored | Class::Tables) {
                continue;
            }
            for relocation in section.relocations.iter().filter(|r| !seen.contains(&(id, r.offset))) {
                let holder = items.at(id, relocation.offset.cast_signed()).map(|(holder, _)| holder);
                if let Some(held) = holder.and_then(|holder| self.holders.get(&holder)) {
                    for key in held {
                        findings.entry(key.clone()).or_default().is_used = true;
                    }
                    continue;
                }
                // Where an instruction ends is not known here; any place that may be meant counts.
                let code = matches!(
                    section.class,
                    Class::Text | Class::InitText | Class::Special(Special::Fixup | Special::Replacements)
                );
                let adjusts: &[i64] = if code { &[4, 5, 8, 0] } else { &[0] };
                let keys = adjusts.iter().find_map(|&adjust| self.keys(self.view.spot(relocation, adjust)));
                for key in keys.into_iter().flatten() {
                    let finding = findings.entry(key.clone()).or_default();
                    finding.is_used = true;
                    finding.escapes.insert(self.holding(section, holder));
                }
            }
        }
    }

    fn holding(&self, section: &xsplice_objects::Section, holder: Option<ItemId>) -> String {
        let path = &self.correlated.parts.pair.path;
        if self.correlated.parts.pair.assembler {
            return format!("assembler code or data in {} of {path} refers to it", section.name);
        }
        match (section.class, holder) {
            (Class::InitData | Class::BootArray, Some(holder)) => {
                format!("{}, which boot reads, holds its address", self.name(holder))
            }
            (class, Some(holder)) if class.is_data() => format!("{} holds its address", self.name(holder)),
            _ => format!("section {} of {path} refers to it", section.name),
        }
    }

    /// A function or variable with its object.
    fn name(&self, id: ItemId) -> String {
        format!("{} ({})", self.view.items.get(id).name, self.correlated.parts.pair.path)
    }
}

fn refusal(
    correlated: &Correlated<'_>,
    datum: &Datum,
    finding: &Finding,
    is_copy: bool,
) -> Option<Diagnostic> {
    let parts = correlated.parts;
    let section = section_of(&parts.patched, &datum.name);
    let place = parts.pair.place(&datum.name).section(section.as_str());
    let (name, difference) = (&datum.name, &datum.difference);
    let list = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join("; ");
    if !finding.escapes.is_empty() {
        let what =
            format!("read-only data {name} changed ({difference}), and its address is kept or passed on");
        return Some(
            Diagnostic::new(codes::RODATA_ESCAPES, what)
                .at(place)
                .why(format!(
                    "Pointers that the host has made already go on leading to the old copy: {}.",
                    list(&finding.escapes)
                ))
                .advice(
                    "Leave the data as it is and change the code that it leads to, or the code that reads it.",
                ),
        );
    }
    if is_copy && finding.users.len() > MAX_USERS {
        let what = format!(
            "read-only data {name} changed ({difference}), which {} functions use; {MAX_USERS} are the most",
            finding.users.len()
        );
        return Some(
            Diagnostic::new(codes::RODATA_USERS, what)
                .at(place)
                .why(format!("Each of them would have to be replaced: {}.", list(&finding.users)))
                .advice("Add new data beside it, and let the code that matters use that."),
        );
    }
    // With -fdata-sections each has a section of its own name, which nothing else can be found by.
    let plain = [".rodata", ".data.rel.ro", ".data.rel.ro.local"].iter().any(|family| {
        section.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest[1..] == **name)
    });
    if is_copy && !finding.is_used && !plain {
        let what = format!("read-only data {name} changed ({difference}), and nothing seems to use it");
        return Some(
            Diagnostic::new(codes::RODATA_CHANGED, what)
                .at(place)
                .why("The linker script or assembler code may find it in ways that cannot be seen here.")
                .advice("Leave this part of the patch out."),
        );
    }
    None
}

fn section_of(items: &Items<'_>, name: &str) -> String {
    let item = items.iter().find(|(_, item)| item.kind == ItemKind::Data && item.name == name);
    item.map_or(String::new(), |(_, item)| items.object.section(item.section).name.clone())
}
