//! The names by which the shipped hypervisor, or a payload below, knows what the payload refers to.

use std::collections::{BTreeMap, BTreeSet};

use xsplice_objects::{Class, Shipped};
use xsplice_report::{Diagnostic, Place};

use super::Selector;
use crate::codes;
use crate::items::{ItemId, ItemKind};
use crate::pieces::{ByAddress, Target};
use crate::proof::{Addresses, Found};
use crate::{meaning, names};

/// What to do about a name that is there twice.
const UNIQUE: &str =
    "Build hypervisors with ENFORCE_UNIQUE_SYMBOLS; for this one the change cannot use that name.";

impl<'s> Selector<'s, '_> {
    /// The name of an item in the form of the hypervisor's own table.
    pub(super) fn table_name(&self, index: usize, id: ItemId, base: bool) -> String {
        let parts = self.pair(index).correlated.parts;
        let items = if base { &parts.base } else { &parts.patched };
        let item = items.get(id);
        items.object.table_name(&item.name, item.local)
    }

    /// Names of the hypervisor that differ from `stem` only by compilers' counters, of that size in bytes.
    fn numbered(&self, stem: &str, size: u64) -> Vec<&'s str> {
        let hypervisor = self.world.hypervisor;
        let index = self.numbered.get_or_init(|| {
            let mut index: BTreeMap<(&str, u64), Vec<&str>> = BTreeMap::new();
            for symbol in hypervisor.symbols().iter().filter(|symbol| names::is_numbered(&symbol.name)) {
                index.entry((names::unnumbered(&symbol.name), symbol.size)).or_default().push(&symbol.name);
            }
            index
        });
        index.get(&(stem, size)).cloned().unwrap_or_default()
    }

    /// The name by which the shipped hypervisor (or a payload below) knows an item of the original. Numbers that
    /// compilers count may differ from build to build: where shipped code says by a field what is meant, that counts.
    pub(super) fn shipped_name(&mut self, index: usize, base: ItemId) -> Option<String> {
        let name = self.table_name(index, base, true);
        let numbered = names::is_numbered(&name) && !self.world.exported.contains(&name);
        if let Some(known) = numbered.then(|| self.numbered_there(index, base, &name)).flatten() {
            return Some(known);
        }
        if self.world.has(&name) {
            return Some(name);
        }
        let item = self.pair(index).correlated.parts.base.get(base);
        let stem = names::unnumbered(&name);
        let candidates: Vec<&str> =
            if names::is_numbered(&name) { self.numbered(stem, item.declared) } else { Vec::new() };
        if let [only] = candidates[..] {
            return Some(only.to_owned());
        }
        let place = self.place(index, &item.name);
        let diagnostic = if candidates.is_empty() {
            Diagnostic::new(codes::NOT_IN_HYPERVISOR, format!("the shipped hypervisor has no {name}"))
                .at(place)
                .why("The rebuilt original has it, so the shipped one was built from other code, flags or compiler.")
                .advice("Give the tree, configuration and symbol file of one and the same build.")
        } else {
            Diagnostic::new(
                codes::AMBIGUOUS_NAME,
                format!("which of the hypervisor's variables {name} is cannot be told"),
            )
            .at(place)
            .why(format!("Candidates are {}.", candidates.join(", ")))
            .advice("Build with the very compiler of the shipped hypervisor, so that its counters agree.")
        };
        self.refuse(diagnostic);
        None
    }

    /// A name of the hypervisor or of a payload below, if a payload may refer to it.
    /// `item` is what the original has of that name, with its object, where that is known.
    pub(super) fn hypervisor(
        &mut self,
        index: usize,
        name: String,
        item: Option<(usize, ItemId)>,
        by: &str,
    ) -> Option<Target> {
        self.in_hypervisor(index, name, item, by, false)
    }

    /// The same, with or without what boot frees.
    pub(super) fn in_hypervisor(
        &mut self,
        index: usize,
        name: String,
        item: Option<(usize, ItemId)>,
        by: &str,
        boots: bool,
    ) -> Option<Target> {
        if self.world.exported.contains(&name) {
            self.selection.needs.insert(name.clone());
            return Some(Target::Hypervisor(name));
        }
        let place = self.place(index, by);
        let addresses: BTreeSet<u64> = self.world.hypervisor.named(&name).map(|s| s.address).collect();
        match addresses.first() {
            None => {
                self.refuse(
                    Diagnostic::new(codes::NOT_IN_HYPERVISOR, format!("{by} refers to {name}, which the shipped hypervisor does not have"))
                        .at(place)
                        .why("The host would refuse the payload: unknown symbol.")
                        .advice("Give the symbol file of the hypervisor that the tree was built to, or the payload that brings the name (--depends)."),
                );
                None
            }
            Some(_) if addresses.len() > 1 => self.by_address(index, name, item, by, addresses.len()),
            Some(&address) if !boots && self.world.hypervisor.is_init(address) => {
                self.refuse(init_reference(by, &name, place));
                None
            }
            Some(_) => {
                self.selection.needs.insert(name.clone());
                Some(Target::Hypervisor(name))
            }
        }
    }

    /// Where something is whose name the hypervisor has more than once.
    fn pinned(&self, item: Option<(usize, ItemId)>, name: &str) -> Result<Found, String> {
        let originals = || self.pairs.iter().map(|pair| &pair.correlated.parts.base);
        let addresses = self.addresses.get_or_init(|| Addresses::of(originals(), self.world));
        match item {
            Some((home, id)) => addresses.of_item(home, id, name),
            None => addresses.of_name(name),
        }
    }

    /// The name that the hypervisor has where shipped code refers to an item with a compiler's counter, if that differs
    /// by the counter at most.
    fn numbered_there(&self, index: usize, base: ItemId, name: &str) -> Option<String> {
        let items = &self.pair(index).correlated.parts.base;
        let address = {
            let mut known = self.own_addresses.borrow_mut();
            let own = known.entry(index).or_insert_with(|| Addresses::of(std::iter::once(items), self.world));
            own.inferred(0, base)?
        };
        let stem = names::unnumbered(name);
        let fits =
            |shipped: &&Shipped| shipped.address == address && names::unnumbered(&shipped.name) == stem;
        let there: Vec<&Shipped> = self.world.hypervisor.symbols().iter().filter(fits).collect();
        let same = there.iter().find(|shipped| shipped.name == name);
        same.or(there.first()).map(|shipped| shipped.name.clone())
    }

    /// A reference to something whose name the hypervisor has so many times.
    fn by_address(
        &mut self,
        index: usize,
        name: String,
        item: Option<(usize, ItemId)>,
        by: &str,
        times: usize,
    ) -> Option<Target> {
        let place = self.place(index, by);
        let object = self.pair(index).correlated.parts.pair.path.clone();
        match self.pinned(item, &name) {
            // As by name, what boot frees is refused; that the original refers to it can be followed by name only.
            Ok(found) if self.world.hypervisor.is_init(found.address) => {
                self.refuse(init_reference(by, &name, place));
                None
            }
            Ok(Found { address, because }) => {
                let by = Some(by.to_owned());
                self.selection.by_address.insert(ByAddress {
                    name: name.clone(),
                    address,
                    by,
                    object,
                    because,
                });
                Some(Target::Address { name, address })
            }
            Err(why) => {
                self.refuse(
                    Diagnostic::new(
                        codes::AMBIGUOUS_NAME,
                        format!("{by} refers to {name}, which the hypervisor has {times} times"),
                    )
                    .at(place)
                    .why(format!("The host would take one of them, and not necessarily the right one. {why}"))
                    .advice(UNIQUE),
                );
                None
            }
        }
    }

    /// Where a function is that is to be replaced, if the hypervisor has its name more than once.
    pub(super) fn address_to_replace(&mut self, index: usize, base: ItemId, name: &str) -> Option<u64> {
        let times = self.world.hypervisor.named(name).map(|s| s.address).collect::<BTreeSet<_>>().len();
        if times < 2 {
            return None;
        }
        match self.pinned(Some((index, base)), name) {
            Ok(Found { address, because }) => {
                let (name, object) = (name.to_owned(), self.pair(index).correlated.parts.pair.path.clone());
                self.selection.by_address.insert(ByAddress { name, address, by: None, object, because });
                Some(address)
            }
            Err(why) => {
                let place = self.place(index, &self.pair(index).correlated.parts.base.get(base).name);
                self.refuse(
                    Diagnostic::new(
                        codes::AMBIGUOUS_NAME,
                        format!("{name} is to be replaced, but the hypervisor has it {times} times"),
                    )
                    .at(place)
                    .why(format!("The host could replace the wrong function. {why}"))
                    .advice(UNIQUE),
                );
                None
            }
        }
    }

    /// Read-only data of the original that code goes on to use must be what the hypervisor has: a payload below may
    /// have brought a copy of its own, which has no name, and left the hypervisor's as it was.
    pub(super) fn check_constant(&mut self, index: usize, base: ItemId, target: &Target, by: &str) {
        let items = &self.pair(index).correlated.parts.base;
        let item = items.get(base);
        if item.kind != ItemKind::Data || item.class != Class::ReadOnly {
            return;
        }
        let section = items.object.section(item.section);
        let mut expected = section.bytes(item.start, item.end).into_owned();
        let Some(name) = target.name() else { return };
        let address = match target {
            Target::Address { address, .. } => Some(*address),
            _ => self.world.hypervisor.unique(name).map(|shipped| shipped.address),
        };
        let bytes = |address| self.world.hypervisor.bytes(address, expected.len());
        let Some(found) = address.and_then(bytes) else { return };
        let mut found = found.to_vec();
        for relocation in section.relocations_in(item.start, item.end) {
            for bytes in [&mut expected, &mut found] {
                meaning::blank(bytes, relocation.offset - item.start, relocation.kind);
            }
        }
        if expected == found {
            return;
        }
        let place = self.place(index, by);
        self.refuse(
            Diagnostic::new(codes::BASE_MISMATCH, format!("{by} uses {name}, which holds something else in the shipped hypervisor"))
                .at(place)
                .why("The tree has another version of that constant; a payload below may have brought it as a copy that has no name.")
                .advice("Put both patches into one payload, or give the tree and configuration of the shipped build."),
        );
    }

    pub(super) fn strange(&mut self, index: usize, by: &str, section: &str, what: &str) {
        let place = self.place(index, by).section(section);
        self.refuse(
            Diagnostic::new(codes::UNKNOWN_REFERENCE, format!("{by}: {what}"))
                .at(place)
                .why("A payload cannot express that reference.")
                .advice("Please report the function; rewriting the expression in the patch may avoid it."),
        );
    }
}

/// The refusal of a reference from code that runs after boot to what is freed then.
pub(super) fn init_reference(by: &str, name: &str, place: Place) -> Diagnostic {
    Diagnostic::new(
        codes::INIT_REFERENCE,
        format!("{by} refers to {name}, which is freed once the hypervisor has booted"),
    )
    .at(place)
    .why("The host would accept the payload and fault when the code runs.")
    .advice("Do not use init code or data from code that runs later; copy what is needed.")
}
