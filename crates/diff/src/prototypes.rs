//! Replaced functions with another prototype, and variables of another type.
//!
//! Calls of a replaced function go to the original, which jumps to the new code: from the payload with the new
//! arguments, from code that is not replaced with whatever that passes. A caller that was compiled anew with the patch
//! and came out the same passes what the new prototype asks for, or the compiler would have made other code of it. So
//! what counts is whether all callers in the shipped code were compiled anew, and with the new prototype; not whether
//! they are replaced. Callers through pointers are not known. Of them it is enough that there may be some: what they
//! pass is in the host's data, such as the argument of a callback, and stays as the original left it.

use std::collections::BTreeSet;

use xsplice_dwarf::TypeChange;
use xsplice_objects::{Class, Home};
use xsplice_report::{Diagnostic, Problems};

use crate::callgraph::{CallGraph, Node};
use crate::codes;
use crate::host::plain;
use crate::items::{ItemId, ItemKind};
use crate::listing::{self, Use};
use crate::pair::Parts;
use crate::pieces::{Replaced, World};
use crate::select::Selection;

/// How many callers a reason names.
const NAMED: usize = 3;
/// What to do instead.
const ADVICE: &str = "Keep the prototype and add a new function beside it, or let the patch also change all of these callers; --allow where those that are left pass what the new code takes.";

/// All checks of replaced functions' prototypes.
pub(crate) fn check(selection: &Selection, parts: &[Parts<'_>], world: &World<'_>, problems: &mut Problems) {
    let changed: Vec<(&Replaced, &Parts<'_>, TypeChange)> =
        selection.replaced.iter().filter_map(|replaced| change_of(replaced, parts)).collect();
    if changed.is_empty() {
        return;
    }
    let shipped = Shipped::of(selection, parts, world);
    for (replaced, part, change) in changed {
        let left = match shipped.graph.named(&replaced.name) {
            Some(node) if world.hypervisor.bytes(shipped.graph.address(node), 1).is_some() => {
                shipped.left(node, replaced, part, &change)
            }
            _ => left_by_objects(replaced, part, parts, &shipped, world),
        };
        if left.is_empty() {
            continue;
        }
        problems.push(
            Diagnostic::new(
                codes::PROTOTYPE_CHANGED,
                format!("{} is to be replaced by {}", change.from, change.to),
            )
            .at(replaced.place.clone())
            .why(format!("{} Old arguments would reach the new code.", left.join(" ")))
            .advice(ADVICE),
        );
    }
}

/// By the prototype in the source, also for clones with other arguments (`.isra`, `.constprop`): those are called by
/// their own object alone, which was compiled anew as a whole.
fn change_of<'r, 'p>(
    replaced: &'r Replaced,
    parts: &'p [Parts<'p>],
) -> Option<(&'r Replaced, &'p Parts<'p>, TypeChange)> {
    let part = parts.iter().find(|part| part.pair.path == replaced.object)?;
    let (before, after) = (part.pair.base_debug.as_ref()?, part.pair.patched_debug.as_ref()?);
    let name = plain(&replaced.name);
    let new = replaced.place.symbol.as_deref().map_or(name, plain);
    Some((replaced, part, before.prototype_change(name, after, new)?))
}

/// The shipped code, and what of it was compiled anew.
struct Shipped<'w, 'p> {
    world: &'w World<'w>,
    graph: CallGraph<'w>,
    parts: &'p [Parts<'p>],
    /// Functions of objects that were compiled anew, each with the position of its object.
    anew: Vec<(Node, usize)>,
    /// Replaced functions and their fragments.
    replaced: BTreeSet<Node>,
    /// The same by object and name in the source.
    replaced_names: BTreeSet<(&'p str, String)>,
}

impl<'w, 'p> Shipped<'w, 'p> {
    fn of(selection: &Selection, parts: &'p [Parts<'p>], world: &'w World<'w>) -> Shipped<'w, 'p> {
        let graph = CallGraph::of(world.hypervisor);
        let mut shipped = Shipped {
            world,
            graph,
            parts,
            anew: Vec::new(),
            replaced: BTreeSet::new(),
            replaced_names: BTreeSet::new(),
        };
        let replaced: BTreeSet<&str> = selection.replaced.iter().map(|r| r.name.as_str()).collect();
        for (index, part) in parts.iter().enumerate().filter(|(_, part)| !part.pair.untouched) {
            for (id, _) in part.base.iter().filter(|(_, item)| item.kind == ItemKind::Function) {
                let table_name = |id: ItemId| {
                    let item = part.base.get(id);
                    part.base.object.table_name(&item.name, item.local)
                };
                let head = part.base.head(id);
                if replaced.contains(table_name(head).as_str()) {
                    shipped.replaced_names.insert((&part.pair.path, part.base.get(head).name.clone()));
                }
                // Of several functions of one name nobody knows which one this is.
                let Some(node) = shipped.graph.named(&table_name(id)) else { continue };
                if world.hypervisor.unique(&table_name(id)).is_none() {
                    continue;
                }
                shipped.anew.push((node, index));
                if replaced.contains(table_name(head).as_str()) {
                    shipped.replaced.insert(node);
                }
            }
        }
        shipped.replaced.extend(replaced.iter().filter_map(|name| shipped.graph.named(name)));
        shipped
    }

    /// Who can still call a function with the old prototype, in sentences.
    fn left(&self, node: Node, replaced: &Replaced, part: &Parts<'_>, change: &TypeChange) -> Vec<String> {
        let mut left = Vec::new();
        let graph = &self.graph;
        let runs = |node: &&Node| !self.world.hypervisor.is_init(graph.address(**node));
        let callers = graph.callers(node).iter().filter(runs);
        let old: Vec<&str> =
            callers.filter(|caller| !self.knows(**caller, replaced, part)).map(|c| graph.name(*c)).collect();
        // Who passes too much does no harm, and C that does so does not compile with the new prototype any more.
        let harmless = change.only_fewer && self.world.whole;
        if !old.is_empty() && !harmless {
            left.push(format!(
                "{} {} it with the old arguments: {} not compiled anew with the new prototype.",
                list(&old),
                if old.len() == 1 { "calls" } else { "call" },
                if old.len() == 1 { "it was" } else { "they were" }
            ));
        }
        let takers = graph.takers(node).iter().filter(runs).filter(|taker| !self.replaced.contains(taker));
        let takers: Vec<&str> = takers.map(|taker| graph.name(*taker)).collect();
        if !takers.is_empty() {
            let verb = if takers.len() == 1 { "takes" } else { "take" };
            left.push(format!("{} {verb} its address, for whoever then calls it by that.", list(&takers)));
        }
        if let Some(place) = graph.held_at(node) {
            let covers = |symbol: &&xsplice_objects::Shipped| {
                (symbol.address..symbol.address.saturating_add(symbol.size)).contains(&place)
            };
            let holder = self.world.hypervisor.symbols().iter().find(covers);
            let name = holder.map_or_else(|| format!("at {place:#x}"), |symbol| symbol.name.clone());
            left.push(format!("The data {} holds its address, for whoever calls it by that.", plain(&name)));
        }
        left
    }

    /// Whether a caller was compiled anew, and with the new prototype.
    fn knows(&self, caller: Node, replaced: &Replaced, part: &Parts<'_>) -> bool {
        if self.replaced.contains(&caller) {
            return true;
        }
        let Some((_, index)) = self.anew.iter().find(|(node, _)| *node == caller) else { return false };
        let other = &self.parts[*index];
        if other.pair.path == part.pair.path {
            return true;
        }
        let name = replaced.place.symbol.as_deref().map_or(plain(&replaced.name), plain);
        match (&part.pair.patched_debug, &other.pair.patched_debug) {
            (Some(own), Some(theirs)) => own.prototype_change(name, theirs, name).is_none(),
            _ => false,
        }
    }
}

/// The same where the symbol file holds no code: by what the objects refer to.
fn left_by_objects(
    replaced: &Replaced,
    part: &Parts<'_>,
    parts: &[Parts<'_>],
    shipped: &Shipped<'_, '_>,
    world: &World<'_>,
) -> Vec<String> {
    let mut left = Vec::new();
    let name = plain(&replaced.name);
    let global =
        part.base.iter().any(|(_, item)| item.kind == ItemKind::Function && !item.local && item.name == name);
    if global && !world.whole {
        left.push(format!("Other objects may call {name}, and the symbol file does not hold their code."));
    }
    for other in parts {
        let own = other.pair.path == part.pair.path;
        let takers = takers_in(other, &|target, global| target == name && (own || global));
        let old = takers.into_iter().filter(|taker| {
            !shipped.replaced_names.contains(&(other.pair.path.as_str(), (*taker).to_owned()))
        });
        let old: Vec<&str> = old.collect();
        if !old.is_empty() {
            let verb = if old.len() == 1 { "holds or takes" } else { "hold or take" };
            left.push(format!("{} {verb} its address, for whoever then calls it by that.", list(&old)));
        }
    }
    left
}

/// Functions that take the address of one that is looked for, and data that holds it, in the original object.
fn takers_in<'p>(part: &'p Parts<'_>, wanted: &dyn Fn(&str, bool) -> bool) -> BTreeSet<&'p str> {
    let items = &part.base;
    let mut found = BTreeSet::new();
    for (id, section) in items.object.sections() {
        let code = section.class == Class::Text;
        if !code && !section.class.is_data() {
            continue;
        }
        for relocation in &section.relocations {
            let symbol = items.object.symbol(relocation.symbol);
            let is_it = match symbol.home {
                Home::Undefined => wanted(&symbol.name, true),
                Home::Section(home) => {
                    let target = items.at(home, symbol.value.cast_signed() + relocation.addend.max(0));
                    target.is_some_and(|(id, _)| {
                        let item = items.get(id);
                        item.kind == ItemKind::Function && wanted(plain(&item.name), !item.local)
                    })
                }
                _ => false,
            };
            let Some((owner, _)) = items.at(id, relocation.offset.cast_signed()) else { continue };
            let owner = items.get(items.head(owner));
            let item = items.at(id, relocation.offset.cast_signed()).map(|(id, _)| items.get(id));
            let called = code
                && item.is_some_and(|item| {
                    let bytes = section.bytes(item.start, item.end);
                    listing::use_of(&bytes, relocation.offset - item.start) != Use::Address
                });
            if is_it && !called {
                found.insert(owner.name.as_str());
            }
        }
    }
    found
}

fn list(names: &[&str]) -> String {
    let few: Vec<&str> = names.iter().take(NAMED).map(|name| plain(name)).collect();
    let more = names.len().saturating_sub(NAMED);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", few.join(", "))
}
