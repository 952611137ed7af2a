//! What changed: every function and every piece of data of a pair, and every section that holds neither.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;
use serde::Serialize;
use xsplice_objects::{Class, Home, Object, SectionId, Symbol, SymbolKind};
use xsplice_report::{Diagnostic, Difference, Place, Problems};

use crate::codes;
use crate::difference;
use crate::items::{ItemId, ItemKind, Items};
use crate::meaning::{EntryMeaning, Fingerprint, Known, Meaning, View};
use crate::pair::Correlated;
use crate::rodata::Changes;

/// What became of a function that runs after boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Its meaning is the same.
    Same,
    /// Its meaning differs: the first difference.
    Changed(Box<Difference>),
    /// The original has none that corresponds.
    New,
}

/// A change that has no effect on a running host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct InitChange {
    /// The object, relative to the tree.
    pub object: String,
    /// The function or data.
    pub name: String,
    /// What changed.
    pub what: String,
}

/// A pair whose changes are known.
pub struct Compared<'p> {
    /// How the items correspond.
    pub correlated: Correlated<'p>,
    /// By head of function in the patched object.
    pub functions: BTreeMap<ItemId, Verdict>,
    /// Functions of the original that the patched object does not have.
    pub removed: Vec<String>,
    /// Changes that wait for the next boot.
    pub init: Vec<InitChange>,
    /// What changed and cannot be patched.
    pub problems: Problems,
}

impl<'p> Compared<'p> {
    /// Compares both sides of a pair that is all there is.
    pub fn of(correlated: Correlated<'p>) -> Compared<'p> {
        let mut all = Compared::all(vec![correlated]);
        // As many as were given.
        all.remove(0)
    }

    /// Compares both sides of all pairs. Read-only data that changed changes code that refers to it, wherever it
    /// is: see [`crate::add_users`].
    pub fn all(mut correlated: Vec<Correlated<'p>>) -> Vec<Compared<'p>> {
        let changes = Changes::spread(&mut correlated);
        let found = changes.judge(&correlated);
        correlated
            .into_par_iter()
            .zip(found)
            .map(|(correlated, found)| Compared::one(correlated, &changes, found))
            .collect()
    }

    fn one(mut correlated: Correlated<'p>, changes: &Changes, found: Problems) -> Compared<'p> {
        let mut problems = std::mem::take(&mut correlated.problems);
        problems.extend(found);
        let mut compared = Compared {
            correlated,
            functions: BTreeMap::new(),
            removed: Vec::new(),
            init: Vec::new(),
            problems,
        };
        let unmarked = compared.correlated.patched.without_marks();
        if compared.correlated.parts.pair.assembler {
            compared.compare_assembler(&unmarked);
        } else {
            compared.compare_data(&unmarked);
            compared.compare_functions(changes, &unmarked);
            compared.compare_orphans();
        }
        compared.compare_unknown(&unmarked);
        compared.init.sort();
        compared.problems.normalise();
        compared
    }

    /// Whether any function is changed or new.
    pub fn has_changed_code(&self) -> bool {
        self.functions.values().any(|verdict| *verdict != Verdict::Same)
    }

    fn compare_data(&mut self, unmarked: &View<'_>) {
        let parts = self.correlated.parts;
        // Live data that leads to changed data is no change of its own: it is why that cannot be replaced.
        for (id, item) in parts.patched.iter() {
            // What is known by its content only is part of its users' meaning, and so is a new copy.
            let by_content =
                item.kind == ItemKind::Data && *self.correlated.patched.known(id) == Known::Content;
            if item.kind == ItemKind::Function || by_content || self.correlated.copies.contains_key(&id) {
                continue;
            }
            match self.correlated.counterpart[id.0] {
                Some(base) => self.compare_datum(unmarked, base, id),
                None => self.new_datum(id),
            }
        }
        let kept: BTreeSet<ItemId> = self.correlated.counterpart.iter().flatten().copied().collect();
        for (id, item) in parts.base.iter() {
            if item.class != Class::BootArray || item.kind != ItemKind::Data || kept.contains(&id) {
                continue;
            }
            let place = parts.pair.place(&item.name).section(&parts.base.object.section(item.section).name);
            self.problems.push(
                Diagnostic::new(
                    codes::BOOT_COLLECTED,
                    format!("{} is gone from an array that boot collects", item.name),
                )
                .at(place)
                .why("The array was walked when the host booted, and what the entry led to stays in use.")
                .advice("Change what the entry leads to instead, or leave this part for the next boot."),
            );
        }
    }

    fn compare_datum(&mut self, unmarked: &View<'_>, base_id: ItemId, id: ItemId) {
        let parts = self.correlated.parts;
        let (base, item) = (parts.base.get(base_id), parts.patched.get(id));
        if item.class == Class::Unknown {
            // Compared with the rest of its section.
            return;
        }
        let before = self.correlated.base.data(base_id, None);
        let after = unmarked.data(id, None);
        if before == after && base.class == item.class {
            return;
        }
        let what = difference::of_data(&before, &after);
        if item.class.is_init() {
            if before != after {
                self.note_init(&item.name, &what);
            }
            return;
        }
        if before == after && !matches!((base.class, item.class), (Class::ReadOnly, _) | (_, Class::ReadOnly))
        {
            return;
        }
        let place = parts.pair.place(&item.name).section(&parts.patched.object.section(item.section).name);
        self.problems.push(match item.class {
            Class::PerCpu => Diagnostic::new(
                codes::DATA_CHANGED,
                format!("per-CPU variable {} changed: {what}", item.name),
            )
            .at(place)
            .why("Every CPU's copy was laid out at boot; new code would reach past it.")
            .advice("Keep the variable as it is, and hold what is new elsewhere."),
            Class::ReadOnly => Diagnostic::new(
                codes::RODATA_CHANGED,
                format!("read-only data {} changed: {what}", item.name),
            )
            .at(place)
            .why("The hypervisor's copy was not constant, or another object's may stand for it: who uses which cannot be told.")
            .advice("Change the code that reads it instead."),
            Class::BootArray => Diagnostic::new(
                codes::BOOT_COLLECTED,
                format!("entry {} of a boot-time array changed: {what}", item.name),
            )
            .at(place)
            .why("The array was walked when the host booted, and is not walked again.")
            .advice("Reach the same end in code that runs later."),
            _ => Diagnostic::new(
                codes::DATA_CHANGED,
                format!("initialised data {} changed: {what}", item.name),
            )
            .at(place)
            .why("The host's copy holds live values since boot; a payload does not set it anew.")
            .advice("Set the new value from a load hook, or make the code use a new variable."),
        });
    }

    fn new_datum(&mut self, id: ItemId) {
        let parts = self.correlated.parts;
        let item = parts.patched.get(id);
        let section = &parts.patched.object.section(item.section).name;
        let boot_array = item.class == Class::BootArray
            || section == ".init.setup"
            || section.starts_with(".initcall") && item.kind == ItemKind::Data;
        let place = parts.pair.place(&item.name).section(section);
        if boot_array && item.kind == ItemKind::Data {
            self.problems.push(
                Diagnostic::new(
                    codes::BOOT_COLLECTED,
                    format!("{} is new in an array that boot collects", item.name),
                )
                .at(place)
                .why("The array was walked when the host booted: the new entry would never be seen.")
                .advice("Reach the same end in code that runs later, or leave this part for the next boot."),
            );
        } else if item.class == Class::PerCpu && item.kind == ItemKind::Data {
            self.problems.push(
                Diagnostic::new(codes::NEW_PERCPU, format!("{} is a new per-CPU variable", item.name))
                    .at(place)
                    .why("A payload's data has no copy for each CPU: every access would hit foreign memory.")
                    .advice("Use an array indexed by CPU number, or shadow data."),
            );
        } else if item.class.is_init() && item.kind == ItemKind::Data {
            self.note_init(&item.name, "new");
        }
    }

    pub(crate) fn note_init(&mut self, name: &str, what: &str) {
        let object = self.correlated.parts.pair.path.clone();
        self.init.push(InitChange { object, name: name.to_owned(), what: what.to_owned() });
    }

    fn compare_functions(&mut self, changes: &Changes, unmarked: &View<'_>) {
        let parts = self.correlated.parts;
        let copies = Changes::copies_of(&self.correlated);
        for (id, item) in parts.patched.iter() {
            if item.kind != ItemKind::Function || item.unit.is_some() {
                continue;
            }
            let verdict = match self.correlated.counterpart[id.0] {
                Some(base) => {
                    let before = self.base_fingerprint(base);
                    let after = self.patched_fingerprint(id);
                    if before == after {
                        Verdict::Same
                    } else {
                        let entries = &parts.patched_entries.by_item;
                        let only_data = changes
                            .used_by(&after, &copies)
                            .filter(|_| before == unmarked.fingerprint(id, entries));
                        let difference =
                            only_data.unwrap_or_else(|| self.first_difference(base, &before, id, &after));
                        Verdict::Changed(Box::new(difference))
                    }
                }
                None => Verdict::New,
            };
            if item.class == Class::Text {
                if verdict != Verdict::Same && !item.sized {
                    self.refuse_label(id);
                    continue;
                }
                self.functions.insert(id, verdict);
                continue;
            }
            if item.class == Class::Unknown {
                // Compared with the rest of its section.
                continue;
            }
            match verdict {
                Verdict::Same => {}
                Verdict::Changed(what) => self.note_init(&item.name, &what.to_string()),
                Verdict::New => self.note_init(&item.name, "new"),
            }
        }
        let kept: BTreeSet<ItemId> = self.correlated.counterpart.iter().flatten().copied().collect();
        let named = defined_functions(&parts.pair.patched);
        for (id, item) in parts.base.iter() {
            if item.kind == ItemKind::Function && item.unit.is_none() && !kept.contains(&id) {
                if item.class == Class::Text && named.contains(item.name.as_str()) {
                    self.problems.push(no_code(parts.pair.place(&item.name), &item.name));
                } else if item.class == Class::Text {
                    self.removed.push(item.name.clone());
                } else if item.class != Class::Unknown {
                    self.note_init(&item.name, "removed");
                }
            }
        }
    }

    pub(crate) fn first_difference(
        &self,
        base: ItemId,
        before: &Fingerprint,
        id: ItemId,
        after: &Fingerprint,
    ) -> Difference {
        let parts = self.correlated.parts;
        let before = difference::Version {
            items: &parts.base,
            debug: parts.pair.base_debug.as_ref(),
            head: base,
            print: before,
        };
        let after = difference::Version {
            items: &parts.patched,
            debug: parts.pair.patched_debug.as_ref(),
            head: id,
            print: after,
        };
        difference::of_functions(&before, &after)
    }

    pub(crate) fn base_fingerprint(&self, head: ItemId) -> Fingerprint {
        self.correlated.base.fingerprint(head, &self.correlated.parts.base_entries.by_item)
    }

    pub(crate) fn patched_fingerprint(&self, head: ItemId) -> Fingerprint {
        self.correlated.patched.fingerprint(head, &self.correlated.parts.patched_entries.by_item)
    }

    fn compare_orphans(&mut self) {
        let parts = self.correlated.parts;
        let meanings = |view: &View<'_>, entries: &[crate::entries::Entry]| {
            let mut all: Vec<EntryMeaning> = entries.iter().map(|entry| view.entry(entry, None)).collect();
            all.sort();
            all
        };
        let before = meanings(&self.correlated.base, &parts.base_entries.orphans);
        let after = meanings(&self.correlated.patched, &parts.patched_entries.orphans);
        if before != after {
            let table = parts.patched_entries.orphans.first().or(parts.base_entries.orphans.first());
            let section = table.map_or(String::new(), |entry| format!("{:?}", entry.table));
            self.problems.push(
                Diagnostic::new(
                    codes::ORPHAN_ENTRY,
                    "special-section entries that belong to no function changed",
                )
                .at(Place::object(&parts.pair.path).section(section))
                .why("They describe replacement or fixup code, and which function needs them cannot be told.")
                .advice("Please report the patch; leave out the change of that inline assembler for now."),
            );
        }
    }

    /// Sections that are in memory but neither code nor data that is understood: none may change, and none may
    /// describe code that the payload brings, whose entries there would be lost. Hooks are selected, not compared.
    fn compare_unknown(&mut self, unmarked: &View<'_>) {
        let parts = self.correlated.parts;
        let mut found = Problems::new();
        let (base, patched) = (sections_by_name(parts.base.object), sections_by_name(parts.patched.object));
        let sides =
            [(&parts.patched, &parts.base, &base, true), (&parts.base, &parts.patched, &patched, false)];
        for (side, other, others, new) in sides {
            for (id, section) in side.object.sections() {
                if section.class != Class::Unknown
                    || section.size == 0
                    || section.name.starts_with(".livepatch.hooks.")
                {
                    continue;
                }
                let named = others.get(section.name.as_str()).map_or(&[][..], Vec::as_slice);
                let raw = self.raw(unmarked, side, id);
                let same = named.iter().any(|&other_id| self.raw(unmarked, other, other_id) == raw);
                let there = patched.contains_key(section.name.as_str());
                let named = functions_of(side, id);
                if !same && (new || !there) {
                    found.push(self.unknown_section(&section.name, "changed", side, &named));
                } else if new {
                    let changed =
                        |head: &ItemId| self.functions.get(head).is_some_and(|v| *v != Verdict::Same);
                    let changed: BTreeSet<ItemId> = named.into_iter().filter(changed).collect();
                    if !changed.is_empty() {
                        let what = "refers to code that changed";
                        found.push(self.unknown_section(&section.name, what, side, &changed));
                    }
                }
            }
        }
        self.problems.extend(found);
    }

    fn unknown_section(
        &self,
        section: &str,
        what: &str,
        side: &Items<'_>,
        functions: &BTreeSet<ItemId>,
    ) -> Diagnostic {
        let pair = self.correlated.parts.pair;
        let mut names: Vec<&str> = functions.iter().map(|&id| side.get(id).name.as_str()).collect();
        names.sort_unstable();
        let mut place = Place::object(&pair.path).source(&pair.source, None).section(section);
        if let Some(&first) = names.first() {
            place = place.symbol(first);
        }
        let list = if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) };
        Diagnostic::new(
            codes::UNKNOWN_SECTION,
            format!("section {section} {what} and is not understood{list}"),
        )
        .at(place)
        .why("It is in memory at run time, and what it does to the host is not known here.")
        .advice("Leave that part of the patch out, or report the section so that it can be supported.")
    }

    /// Bytes and references of a section; `unmarked` is the patched object's view as if no data had changed.
    pub(crate) fn raw(
        &self,
        unmarked: &View<'_>,
        items: &Items<'_>,
        id: SectionId,
    ) -> (Vec<u8>, Vec<(u64, xsplice_objects::RelocKind, Meaning)>) {
        let base = std::ptr::eq(items.object, self.correlated.parts.base.object);
        let view = if base { &self.correlated.base } else { unmarked };
        let section = items.object.section(id);
        let references = section
            .relocations
            .iter()
            .map(|r| (r.offset, r.kind, view.meaning(view.spot(r, 0), None)))
            .collect();
        (section.data.clone(), references)
    }
}

/// Names of all functions that an object defines, those among them that no item starts with: with no code at all, or
/// inside another function.
fn defined_functions(object: &Object) -> BTreeSet<&str> {
    let defined =
        |symbol: &&Symbol| symbol.kind == SymbolKind::Function && matches!(symbol.home, Home::Section(_));
    object.symbols.iter().filter(defined).map(|symbol| symbol.name.as_str()).collect()
}

/// The sections of an object by their names.
fn sections_by_name(object: &Object) -> BTreeMap<&str, Vec<SectionId>> {
    let mut sections: BTreeMap<&str, Vec<SectionId>> = BTreeMap::new();
    for (id, section) in object.sections() {
        sections.entry(&section.name).or_default().push(id);
    }
    sections
}

fn no_code(place: Place, name: &str) -> Diagnostic {
    Diagnostic::new(codes::NO_CODE, format!("{name} has no code of its own any more"))
        .at(place)
        .why("The compiler takes it for code that never ends or never runs, or for the same as another function; callers in other objects would still run the old code.")
        .advice("Check the function for undefined behaviour, such as a loop that reads outside of an array.")
}

/// The functions that a section of data holds or refers to, each by its head.
fn functions_of(items: &Items<'_>, id: SectionId) -> BTreeSet<ItemId> {
    let section = items.object.section(id);
    let referred = section.relocations.iter().filter_map(|relocation| {
        let symbol = items.object.symbol(relocation.symbol);
        let Home::Section(home) = symbol.home else { return None };
        items.at(home, symbol.value.cast_signed() + relocation.addend).map(|(id, _)| id)
    });
    let held = items.in_section(id).iter().copied();
    referred
        .chain(held)
        .filter(|&id| items.get(id).kind == ItemKind::Function)
        .map(|id| items.head(id))
        .collect()
}
