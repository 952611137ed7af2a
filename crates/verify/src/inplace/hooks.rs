//! The payload's hooks beside those of the objects: none lost, none added, each the function that the source names, and
//! those of one object in its order.

use xsplice_report::{Diagnostic, Place};

use super::names::{Names, Wanted};
use super::objects::{Object, is_name};
use crate::codes;
use crate::payload::{Hook, Target};
use crate::verify::{Context, problem};

/// More is not said: what follows from a hostile payload is bounded by it, too.
const MOST_SAID: usize = 8;

/// Compares them all, and counts those that are the same.
pub(super) fn check(
    context: &Context<'_>,
    objects: &[Object<'_>],
    names: &Names<'_>,
    said: &mut Vec<Diagnostic>,
) -> usize {
    let mut search =
        Search { context, names, taken: vec![false; context.content.hooks.len()], said: Vec::new() };
    let finished = objects.iter().all(|object| search.object(object));
    if finished {
        search.added();
    }
    let Search { taken, said: found, .. } = search;
    said.extend(found);
    taken.iter().filter(|taken| **taken).count()
}

struct Search<'c> {
    context: &'c Context<'c>,
    names: &'c Names<'c>,
    /// Which of the payload's hooks some object has, by their number.
    taken: Vec<bool>,
    said: Vec<Diagnostic>,
}

impl Search<'_> {
    /// Finds the hooks of an object. Both lists are by kind, in one order, and Xen calls those of a kind in that of
    /// their array; so each is to be found behind the one before.
    /// False if it was given up.
    fn object(&mut self, object: &Object<'_>) -> bool {
        let mut next = 0;
        for own in &object.content.hooks {
            let all = self.taken.len();
            let wanted = wanted(object, own);
            if self.said.len() >= MOST_SAID || !self.names.effort.spend(1 + wanted.len()) {
                return false;
            }
            let found = (next..all).chain(0..next).find(|&index| self.is_it(own, &wanted, index));
            let Some(index) = found else {
                // A hook that the source had before is no hook of the payload's.
                if wanted.iter().any(|wanted| self.names.is_elsewhere(wanted)) {
                    continue;
                }
                self.say(object, own, &wanted, "has no such hook");
                continue;
            };
            self.taken[index] = true;
            if index < next {
                self.say(object, own, &wanted, "calls it too early");
            }
            next = index + 1;
        }
        true
    }

    fn is_it(&self, own: &Hook, wanted: &[Wanted<'_>], index: usize) -> bool {
        let here = &self.context.content.hooks[index];
        let is_wanted = |at| wanted.iter().any(|wanted| self.names.is(at, wanted));
        self.names.effort.spend(1)
            && !self.taken[index]
            && here.kind == own.kind
            && self.context.low.address(here.target).is_some_and(is_wanted)
    }

    fn say(&mut self, object: &Object<'_>, own: &Hook, wanted: &[Wanted<'_>], what: &str) {
        let name = wanted.first().map_or_else(|| "no function".to_owned(), Wanted::shown);
        let place =
            Place::object(object.path).section(object.elf.section_name(own.section)).offset(own.offset);
        self.said.push(problem(
            codes::IN_PLACE_REFERENCE,
            format!("{name} is an object's {} hook, and the payload {what}", own.kind),
            place,
            "The payload would be loaded, and what the patched source asks for would not be done as it says.",
            "Do not load it. If the objects are those it was made of, report this.",
        ));
    }

    /// Hooks of the payload that no object has.
    fn added(&mut self) {
        let hooks = self.context.content.hooks.iter().zip(&self.taken);
        let added = hooks.filter(|(_, taken)| !**taken).map(|(hook, _)| {
            let address = self.context.low.address(hook.target);
            let name = address.map_or_else(|| "nothing".to_owned(), |at| self.names.shown(at));
            problem(
                codes::IN_PLACE_REFERENCE,
                format!("{name} is the payload's {} hook, and no object has it", hook.kind),
                Place::none().section(self.context.payload.section_name(hook.section)).offset(hook.offset),
                "Xen would call what the patched source does not ask it to.",
                "Give the folder with all objects of the patched build: xsplice build --keep-objects.",
            )
        });
        self.said.extend(added.take(MOST_SAID));
    }
}

/// What an object calls the function of a hook: all names of that place.
fn wanted<'o>(object: &'o Object<'_>, hook: &Hook) -> Vec<Wanted<'o>> {
    match hook.target {
        Target::Section { section, offset } => {
            let starts =
                object.around(section, offset).into_iter().filter(|s| s.value.cast_signed() == offset);
            starts.map(|symbol| object.wanted(symbol)).collect()
        }
        Target::Undefined { symbol, addend: 0 } => {
            let symbol = object.elf.symbols.get(symbol).filter(|symbol| is_name(symbol));
            symbol.map(|symbol| Wanted { name: symbol.name, local: false, file: None }).into_iter().collect()
        }
        _ => Vec::new(),
    }
}
