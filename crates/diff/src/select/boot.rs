//! Boot code that changed: it has run, and does not run again. What a payload needs of it never happens.

use std::collections::BTreeSet;

use xsplice_dwarf::SetUp;
use xsplice_objects::{Class, HookKind};
use xsplice_report::{Diagnostic, Place};

use super::{Key, Selector};
use crate::codes;
use crate::entries::Spot;
use crate::hooks;
use crate::items::{ItemId, ItemKind};
use crate::meaning;
use crate::names;
use crate::pieces::PieceId;

/// Hooks that run before, or while, the new code comes into use.
const BEFORE_USE: &[HookKind] = &[HookKind::Load, HookKind::PreApply, HookKind::Apply, HookKind::PostApply];

/// How many changed functions a warning names.
const NAMED: usize = 8;

/// An item of the patched object of a pair.
type At = (usize, ItemId);

/// A variable that the payload brings, and who of those that never run refers to it.
struct NewVariable {
    at: At,
    piece: PieceId,
    never: BTreeSet<At>,
}

impl Selector<'_, '_> {
    /// Warns of boot code that changed beside what is patched, and refuses new variables that only such code sets up.
    pub(super) fn judge_boot_code(&mut self) {
        if self.selection.replaced.is_empty() && self.selection.hooks.is_empty() {
            return;
        }
        let variables = self.new_variables();
        for index in 0..self.pairs.len() {
            self.warn_of_boot_code(index, &variables);
        }
        for variable in &variables {
            self.refuse_not_set_up(variable);
        }
    }

    fn new_variables(&self) -> Vec<NewVariable> {
        let mut found = Vec::new();
        for (index, pair) in self.pairs.iter().enumerate() {
            for (id, item) in pair.correlated.parts.patched.iter() {
                let new = item.kind == ItemKind::Data
                    && matches!(item.class, Class::Data | Class::Bss)
                    && pair.correlated.counterpart[id.0].is_none();
                if let Some(&piece) = self.pieces.get(&Key::Item(index, id)).filter(|_| new) {
                    found.push(NewVariable { at: (index, id), piece, never: BTreeSet::new() });
                }
            }
        }
        if found.is_empty() {
            return found;
        }
        for (index, pair) in self.pairs.iter().enumerate().filter(|(_, p)| !p.correlated.parts.pair.untouched)
        {
            for (id, item) in pair.correlated.parts.patched.iter() {
                let code = item.kind == ItemKind::Function
                    && matches!(item.class, Class::Text | Class::InitText)
                    && item.unit.is_none();
                if !code || self.pieces.contains_key(&Key::Item(index, id)) {
                    continue;
                }
                for at in self.referred_to(index, id) {
                    for variable in found.iter_mut().filter(|variable| variable.at == at) {
                        variable.never.insert((index, id));
                    }
                }
            }
        }
        found
    }

    /// The items that a function refers to, where the patched objects have them.
    fn referred_to(&self, index: usize, head: ItemId) -> BTreeSet<At> {
        let correlated = &self.pair(index).correlated;
        let items = &correlated.parts.patched;
        let mut found = BTreeSet::new();
        for id in items.fragments(head) {
            let item = items.get(id);
            let section = items.object.section(item.section);
            let relocations = section.relocations_in(item.start, item.end);
            if relocations.is_empty() {
                continue;
            }
            let code = section.bytes(item.start, item.end);
            let ends = meaning::decode(&code, relocations, item.start).ends;
            for relocation in relocations {
                let adjust = match ends.get(&relocation.offset) {
                    Some(end) if relocation.kind.is_relative() => (end - relocation.offset).cast_signed(),
                    _ => 0,
                };
                found.extend(self.item_at(index, correlated.patched.spot(relocation, adjust)));
            }
        }
        found
    }

    fn item_at(&self, index: usize, spot: Spot) -> Option<At> {
        let items = &self.pair(index).correlated.parts.patched;
        match spot.section {
            None => self.globals.get(&items.object.symbols[spot.symbol].name).copied(),
            Some(section) => items.at(section, spot.offset).map(|(id, _)| (index, id)),
        }
    }

    /// One warning for each object.
    fn warn_of_boot_code(&mut self, index: usize, variables: &[NewVariable]) {
        let pair = self.pair(index);
        let items = &pair.correlated.parts.patched;
        let noted = |name: &str| pair.init.iter().any(|change| change.name == name);
        let mut changed: Vec<ItemId> = Vec::new();
        for (id, item) in items.iter().filter(|(_, item)| noted(&item.name) && item.unit.is_none()) {
            let function = item.kind == ItemKind::Function && item.class == Class::InitText;
            // An entry of the boot parameters: name, handler, variable.
            let parameter = items.object.section(item.section).name == ".init.setup";
            if function || parameter {
                changed.push(id);
            }
        }
        let Some(&first) = changed.first() else { return };
        let name = |id: &ItemId| items.get(*id).name.clone();
        let all: Vec<String> = changed.iter().map(name).collect();
        let lines: Vec<String> = all.iter().map(|name| with_line(name, &self.place(index, name))).collect();
        let mut why = format!(
            "The host has booted: what changed in {} does not happen before the next boot.",
            few(&lines)
        );
        for variable in variables {
            let by = changed.iter().find(|id| variable.never.contains(&(index, **id)));
            if let Some(by) = by {
                let variable = self.item_name(variable.at);
                why.push_str(&format!(
                    " {} refers to {variable}, which the payload brings as the source says.",
                    name(by)
                ));
            }
        }
        let (what, verb) = if all.len() == 1 {
            (all[0].clone(), "changes, and runs")
        } else {
            (few(&all), "change, and run")
        };
        let place = self.place(index, &name(&first));
        self.refuse(
            Diagnostic::new(codes::INIT_NOT_RERUN, format!("{what} {verb} at boot only"))
                .at(place)
                .why(why)
                .advice("See whether the fix works without it; if not, do the same in a load hook, or boot a fixed hypervisor."),
        );
    }

    fn refuse_not_set_up(&mut self, variable: &NewVariable) {
        if variable.never.is_empty() || self.is_set_by_hook(variable.piece) {
            return;
        }
        let Some(part) = self.unset_part(variable.at) else { return };
        let name = self.item_name(variable.at);
        let never: Vec<String> = variable.never.iter().map(|at| self.never_run(*at)).collect();
        let place = self.place(variable.at.0, &name);
        let SetUp { what, at, .. } = part;
        self.refuse(
            Diagnostic::new(
                codes::DATA_NOT_SET_UP,
                format!("{name} is new, and {what} at its offset {at} is zero until it is set up"),
            )
            .at(place)
            .why(format!(
                "That is done by {}, and not by a hook: the payload's code would use it as it is.",
                never.join(", ")
            ))
            .advice("Give it its value in the source (LIST_HEAD, DEFINE_SPINLOCK and the like), or set it up from a load hook."),
        );
    }

    fn is_set_by_hook(&self, piece: PieceId) -> bool {
        let hooks = self.selection.hooks.iter().filter(|hook| BEFORE_USE.contains(&hook.kind));
        hooks.into_iter().any(|hook| hooks::reached(&self.selection, hook.piece).contains(&piece))
    }

    /// The first part of a variable that has to be set up, and that its own source leaves zero.
    fn unset_part(&self, (index, id): At) -> Option<SetUp> {
        let parts = self.pair(index).correlated.parts;
        let item = parts.patched.get(id);
        let section = parts.patched.object.section(item.section);
        let all = parts.pair.patched_debug.as_ref()?.to_set_up(names::unnumbered(&item.name));
        all.into_iter().find(|part| {
            let start = item.start + part.at;
            let end = (start + part.size).min(item.end);
            section.relocations_in(start, end).is_empty()
                && section.bytes(start, end).iter().all(|&byte| byte == 0)
        })
    }

    fn item_name(&self, (index, id): At) -> String {
        self.pair(index).correlated.parts.patched.get(id).name.clone()
    }

    fn never_run(&self, at: At) -> String {
        let item = self.pair(at.0).correlated.parts.patched.get(at.1);
        let named = with_line(&item.name, &self.place(at.0, &item.name));
        if item.class == Class::InitText {
            format!("{named}, which runs at boot")
        } else {
            format!("{named}, which nothing in the payload calls")
        }
    }
}

/// A list that stays readable; the report's init changes are complete.
fn few(all: &[String]) -> String {
    let more = all.len().saturating_sub(NAMED);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", all[..all.len().min(NAMED)].join(", "))
}

fn with_line(name: &str, place: &Place) -> String {
    match (&place.file, place.line) {
        (Some(file), Some(line)) => format!("{name} ({file}:{line})"),
        _ => name.to_owned(),
    }
}
