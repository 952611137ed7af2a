//! Where the shipped hypervisor has what its own table names more than once.
//!
//! What fields of identical functions refer to has one address; where the table has that name there, it is the one that
//! is meant. Functions whose names are unique say first what they refer to, then those that only one of several can be.
//! Another file's function of the same name and code must not pass for one that was changed: a local function counts
//! only among the local symbols of an input of the linker that has all local functions of its object, and has them where
//! fields say.

use std::collections::{BTreeMap, BTreeSet};

use xsplice_objects::{Hypervisor, Shipped};

use super::{Anchor, Pinned, Pins, Prover};
use crate::items::{Item, ItemId, ItemKind, Items};
use crate::pieces::World;
use crate::{base, names};

/// An address, and what says so in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) address: u64,
    pub(crate) because: String,
}

/// What is known of one object of the original.
struct OfObject<'s> {
    items: &'s Items<'s>,
    pins: Pins,
    contradicted: BTreeSet<Anchor>,
    /// Where each function's own code was found.
    code: BTreeMap<ItemId, u64>,
    /// For each input of the linker that it can be: its local symbols.
    units: Vec<Unit<'s>>,
}

/// Names in the table with addresses.
type Unit<'s> = BTreeSet<(&'s str, u64)>;

/// A function to be compared.
struct Function<'s> {
    object: usize,
    id: ItemId,
    /// The shipped ones that it can be.
    shipped: Vec<&'s Shipped>,
}

/// The addresses that the objects of a change imply.
pub(crate) struct Addresses<'s> {
    prover: Prover<'s>,
    objects: Vec<OfObject<'s>>,
}

impl<'s> Addresses<'s> {
    /// Infers them from the originals of all objects of a change.
    pub(crate) fn of(objects: impl Iterator<Item = &'s Items<'s>>, world: &World<'s>) -> Addresses<'s> {
        let of_object = |items| OfObject {
            items,
            pins: Pins::new(),
            contradicted: BTreeSet::new(),
            code: BTreeMap::new(),
            units: Vec::new(),
        };
        let mut found =
            Addresses { prover: Prover::new(world.hypervisor), objects: objects.map(of_object).collect() };
        let (mut several, single): (Vec<_>, Vec<_>) =
            found.functions(world).into_iter().partition(|function| function.shipped.len() > 1);
        for function in &single {
            found.compare(function);
        }
        loop {
            let before = several.len();
            several.retain(|function| !found.compare(function));
            if several.len() == before {
                return found;
            }
        }
    }

    /// All functions that can be compared.
    fn functions(&mut self, world: &World<'s>) -> Vec<Function<'s>> {
        let mut all = Vec::new();
        for (object, known) in self.objects.iter_mut().enumerate() {
            let functions = base::comparable(known.items, world);
            let locals: BTreeSet<&str> = functions
                .iter()
                .filter(|(id, name)| known.items.get(*id).local && !names::is_numbered(name))
                .map(|(_, name)| name.as_str())
                .collect();
            let first = all.len();
            for (id, name) in &functions {
                let mut shipped: Vec<&Shipped> = world.hypervisor.named(name).collect();
                shipped.dedup_by_key(|one| one.address);
                all.push(Function { object, id: *id, shipped });
            }
            if all[first..].iter().any(|function| function.shipped.len() > 1) {
                known.units = units(world.hypervisor, &locals);
            }
        }
        all
    }

    /// Compares a function, and keeps what it says if it is the same as exactly one. Whether it is.
    fn compare(&mut self, function: &Function<'s>) -> bool {
        let known = &mut self.objects[function.object];
        let item = known.items.get(function.id);
        let units = (function.shipped.len() > 1 && item.local).then(|| known.own_units());
        let in_unit = |one: &Shipped| {
            let here = (one.name.as_str(), one.address);
            units.as_ref().is_none_or(|units| units.iter().any(|unit| unit.contains(&here)))
        };
        let shipped: Vec<&Shipped> = function.shipped.iter().filter(|one| in_unit(one)).copied().collect();
        let mut prover = self.prover.resume(known.items, std::mem::take(&mut known.pins));
        let (_, only) = prover.matching(function.id, &shipped);
        let contradicted = std::mem::take(&mut prover.contradicted);
        known.pins = std::mem::take(&mut prover.pins);
        known.contradicted.extend(contradicted);
        if let Some(only) = only {
            known.code.insert(function.id, only.address);
        }
        only.is_some()
    }

    /// Where fields lead for something of an object, without contradiction.
    pub(crate) fn inferred(&self, object: usize, id: ItemId) -> Option<u64> {
        let known = &self.objects[object];
        let item = known.items.get(id);
        let anchor = Anchor::Section(item.section);
        let pinned = known.pins.get(&anchor).filter(|_| !known.contradicted.contains(&anchor))?;
        Some(pinned.address.wrapping_add(item.start))
    }

    /// Where something of an object is that the table has under that name.
    ///
    /// # Errors
    /// Why that cannot be told, as a sentence.
    pub(crate) fn of_item(&self, object: usize, id: ItemId, name: &str) -> Result<Found, String> {
        let known = &self.objects[object];
        let item = known.items.get(id);
        let anchor = Anchor::Section(item.section);
        let pinned = known.pins.get(&anchor);
        if known.contradicted.contains(&anchor) {
            return Err(contradicted(name));
        }
        let Some(Pinned { address, by }) = pinned else {
            return Err(format!("No shipped code that could be compared says by a field where {name} is."));
        };
        let address = address.wrapping_add(item.start);
        self.is_named(name, address, by)?;
        if item.kind == ItemKind::Function && known.code.get(&id) != Some(&address) {
            return Err(format!(
                "{by} leads to {address:#x}, and the code there is not that of the original."
            ));
        }
        let because = if *by == item.name && item.kind == ItemKind::Function {
            "its own code is there".to_owned()
        } else {
            format!("the shipped {by} refers to it there")
        };
        Ok(Found { address, because })
    }

    /// Where something is that objects have in common and the table has under that name.
    ///
    /// # Errors
    /// Why that cannot be told, as a sentence.
    pub(crate) fn of_name(&self, name: &str) -> Result<Found, String> {
        let anchor = Anchor::Name(name.to_owned());
        if self.objects.iter().any(|known| known.contradicted.contains(&anchor)) {
            return Err(contradicted(name));
        }
        let Some(Pinned { address, by }) = self.prover.names.get(&anchor) else {
            return Err(format!("No shipped code that could be compared says by a field where {name} is."));
        };
        self.is_named(name, *address, by)?;
        Ok(Found { address: *address, because: format!("the shipped {by} refers to it there") })
    }

    fn is_named(&self, name: &str, address: u64, by: &str) -> Result<(), String> {
        match self.prover.hypervisor.named(name).any(|one| one.address == address) {
            true => Ok(()),
            false => Err(format!("{by} leads to {address:#x}, where the hypervisor has no {name}.")),
        }
    }
}

fn contradicted(name: &str) -> String {
    format!("Shipped code leads to more than one address for {name}, or to none that has the name.")
}

impl<'s> OfObject<'s> {
    /// The units that have everything local where it is known to be.
    fn own_units(&self) -> Vec<&Unit<'s>> {
        let object = self.items.object;
        let named = |item: &Item| {
            let kind = matches!(item.kind, ItemKind::Function | ItemKind::Data);
            item.local && kind && !names::is_numbered(&item.name)
        };
        let known: Vec<(String, u64)> = self
            .items
            .iter()
            .filter(|(_, item)| named(item))
            .filter_map(|(_, item)| {
                let pinned = self.pins.get(&Anchor::Section(item.section))?;
                Some((object.table_name(&item.name, true), pinned.address.wrapping_add(item.start)))
            })
            .collect();
        // Linkers may leave out what is only data.
        let has = |unit: &Unit<'_>, (name, address): &(String, u64)| {
            unit.contains(&(name.as_str(), *address)) || unit.iter().all(|(other, _)| other != name)
        };
        self.units.iter().filter(|unit| known.iter().all(|one| has(unit, one))).collect()
    }
}

/// The local symbols of each input of the hypervisor's linker that has all these names.
fn units<'h>(hypervisor: &'h Hypervisor, locals: &BTreeSet<&str>) -> Vec<Unit<'h>> {
    let all = hypervisor.units().map(|unit| unit.map(|one| (one.name.as_str(), one.address)).collect());
    let has_all = |unit: &Unit<'_>| {
        let names: BTreeSet<&str> = unit.iter().map(|(name, _)| *name).collect();
        locals.is_subset(&names)
    };
    all.filter(has_all).collect()
}
