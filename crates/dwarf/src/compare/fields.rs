//! Members of two structures.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::{Pair, by_name, pair_renamed, reserved, root, type_name};
use crate::change::{Harmless, Room, What};
use crate::describe::{describe, resolved};
use crate::flatten::Leaf;

/// Compares the pieces of two structures; `ends` are their sizes in bits.
pub(super) fn compare(pair: &mut Pair<'_>, old: &[Leaf], new: &[Leaf], ends: (i64, i64), types: (u32, u32)) {
    let old_names = by_name(old, |l| &*l.path);
    let new_names = by_name(new, |l| &*l.path);
    let removed: Vec<usize> = (0..old.len()).filter(|i| !new_names.contains_key(&*old[*i].path)).collect();
    let added: Vec<usize> = (0..new.len()).filter(|i| !old_names.contains_key(&*new[*i].path)).collect();
    // What was padding is no member under another name: live objects hold anything there.
    let key = |leaf: &Leaf| {
        (leaf.at, leaf.size, leaf.bit_field, leaf.container, leaf.print, reserved::is_padding(leaf))
    };
    let renamed = pair_renamed(&removed, &added, |i| key(&old[i]), |i| key(&new[i]));

    let mut matched: Vec<(usize, usize)> = Vec::with_capacity(old.len());
    for (index, leaf) in old.iter().enumerate() {
        if let Some(other) = new_names.get(&*leaf.path) {
            matched.push((index, *other));
        }
    }
    let view = View::new(old, new, &matched, &renamed, ends);
    report_matched(pair, &view, &matched);
    for (from, to) in &renamed {
        report_renamed(pair, &old[*from], &new[*to]);
    }
    let (gone, come): (HashSet<usize>, HashSet<usize>) = renamed.into_iter().unzip();
    for index in removed.into_iter().filter(|i| !gone.contains(i)) {
        let leaf = &old[index];
        if is_told_by_container(leaf, &old_names, &new_names) {
            continue;
        }
        let set_aside = reserved::is_reserved(leaf) || reserved::is_padding(leaf);
        let harmless = if ends.0 == ends.1 && set_aside {
            Some(Harmless::ReservedShrank)
        } else {
            view.names_stay(leaf).then_some(Harmless::OneOfSeveralNames)
        };
        let what = What::MemberRemoved { member: leaf.path.clone(), at_bit: leaf.at, bits: leaf.size };
        let new_type = pair.patched.model.types.get(types.1 as usize).map(|t| t.decl);
        pair.add(what, Some(leaf.decl), new_type, harmless, None);
    }
    for index in added.into_iter().filter(|i| !come.contains(i)) {
        let leaf = &new[index];
        if is_told_by_container(leaf, &new_names, &old_names) {
            continue;
        }
        let room = view.room(leaf);
        let harmless = if room == Room::Reserved {
            Some(Harmless::ReservedBitsNamed)
        } else {
            view.names_stay(leaf).then_some(Harmless::OneOfSeveralNames)
        };
        let what = What::MemberAdded { member: leaf.path.clone(), at_bit: leaf.at, bits: leaf.size, room };
        let old_type = pair.base.model.types.get(types.0 as usize).map(|t| t.decl);
        pair.add(what, old_type, Some(leaf.decl), harmless, None);
    }
}

/// Whether the member around this one is missing on the other side too, which says it all.
fn is_told_by_container(leaf: &Leaf, here: &HashMap<&str, usize>, there: &HashMap<&str, usize>) -> bool {
    leaf.path.match_indices('.').any(|(dot, _)| {
        let around = leaf.path[..dot].trim_end_matches("[]");
        here.contains_key(around) && !there.contains_key(around)
    })
}

fn report_renamed(pair: &mut Pair<'_>, from: &Leaf, to: &Leaf) {
    // The names inside of a renamed container differ in nothing else.
    if !from.is_outermost() && from.path.rsplit('.').next() == to.path.rsplit('.').next() {
        return;
    }
    let what = What::MemberRenamed { from: from.path.clone(), to: to.path.clone(), at_bit: from.at };
    pair.add(what, Some(from.decl), Some(to.decl), Some(Harmless::Renamed), None);
}

/// Reports moves and changes of type of members that kept their names.
fn report_matched(pair: &mut Pair<'_>, view: &View<'_>, matched: &[(usize, usize)]) {
    // The move that is being counted: position in `pair.found`, distance.
    let mut run: Option<(usize, i64)> = None;
    for (from, to) in matched {
        let (from, to) = (&view.old[*from], &view.new[*to]);
        let distance = to.at - from.at;
        let shrinks = view.ends.0 == view.ends.1 && reserved::shrinks(from, to);
        let harmless = shrinks.then_some(Harmless::ReservedShrank);
        if distance == 0 {
            run = None;
        } else if let Some((index, _)) = run.filter(|(_, d)| *d == distance && !shrinks) {
            if let What::MemberMoved { following, .. } = &mut pair.found[index].change.change
                && from.is_outermost()
            {
                *following += 1;
            }
        } else {
            let member = from.path.clone();
            let what = What::MemberMoved { member, from_bit: from.at, to_bit: to.at, following: 0 };
            pair.add(what, Some(from.decl), Some(to.decl), harmless, None);
            run = (!shrinks).then_some((pair.found.len() - 1, distance));
        }
        report_type(pair, from, to, harmless);
    }
}

fn report_type(pair: &mut Pair<'_>, from: &Leaf, to: &Leaf, harmless: Option<Harmless>) {
    let widths = |leaf: &Leaf| (leaf.bit_field.then_some(leaf.size), leaf.container);
    if from.print == to.print && widths(from) == widths(to) {
        return;
    }
    let member = from.path.clone();
    let names = (type_name(pair.base, from), type_name(pair.patched, to));
    if names.0 != names.1 {
        let what = What::MemberTypeChanged { member, from: names.0, to: names.1 };
        return pair.add(what, Some(from.decl), Some(to.decl), harmless, None);
    }
    // The same words, so look behind them.
    let (behind, ahead) = (
        describe(pair.base, resolved(pair.base, from.ty)),
        describe(pair.patched, resolved(pair.patched, to.ty)),
    );
    if behind != ahead {
        let what = What::MemberTypeChanged { member, from: behind, to: ahead };
        return pair.add(what, Some(from.decl), Some(to.decl), harmless, None);
    }
    let inner = root(pair.base, from.ty).filter(|r| root(pair.patched, to.ty).as_ref() == Some(r));
    let what = What::MemberTypeLayout { member, type_name: names.0 };
    pair.add(what, Some(from.decl), Some(to.decl), harmless, inner);
}

/// Both structures, to find out what was at the place of a new member.
struct View<'a> {
    old: &'a [Leaf],
    new: &'a [Leaf],
    ends: (i64, i64),
    /// Positions in `old` of what covers its bits itself, by first bit.
    by_place: Vec<usize>,
    /// Largest last bit of `by_place[..=i]`, to end searches.
    reach: Vec<i64>,
    /// Whether the member of `old` is in `new` at the same place.
    stays: Vec<bool>,
    /// What may still be looked at.
    steps: Cell<usize>,
}

impl<'a> View<'a> {
    fn new(
        old: &'a [Leaf],
        new: &'a [Leaf],
        matched: &[(usize, usize)],
        renamed: &[(usize, usize)],
        ends: (i64, i64),
    ) -> View<'a> {
        let mut by_place: Vec<usize> = (0..old.len()).filter(|i| old[*i].solid).collect();
        by_place.sort_by_key(|i| (old[*i].at, *i));
        let mut reach = Vec::with_capacity(by_place.len());
        for index in &by_place {
            let end = old[*index].range().end;
            reach.push(reach.last().map_or(end, |before: &i64| end.max(*before)));
        }
        let mut stays = vec![false; old.len()];
        for (from, to) in matched.iter().chain(renamed) {
            stays[*from] = old[*from].range() == new[*to].range();
        }
        let steps = Cell::new(64 * (old.len() + new.len()) + 4096);
        View { old, new, ends, by_place, reach, stays, steps }
    }

    /// Members of the original that overlap this range; `None` if there is too much to look at.
    fn overlapping(&self, range: &Range<i64>) -> Option<Vec<usize>> {
        let after = self.by_place.partition_point(|i| self.old[*i].at < range.end);
        let mut found = Vec::new();
        for position in (0..after).rev() {
            if self.reach[position] <= range.start {
                break;
            }
            self.step()?;
            let index = self.by_place[position];
            if self.old[index].overlaps(range) {
                found.push(index);
            }
        }
        Some(found)
    }

    /// Counts work, so that hostile structures do not take for ever.
    fn step(&self) -> Option<()> {
        self.steps.set(self.steps.get().checked_sub(1)?);
        Some(())
    }

    /// Whether another member of the original has the same type at the same place and stays, in an object of the same
    /// size: only a name comes or goes. Of padding nobody knows what it holds.
    fn names_stay(&self, leaf: &Leaf) -> bool {
        let place = |leaf: &Leaf| (leaf.at, leaf.size, leaf.bit_field, leaf.container, leaf.print);
        let same = |index: usize| {
            let other = &self.old[index];
            self.stays[index]
                && place(other) == place(leaf)
                && other.path != leaf.path
                && !reserved::is_padding(other)
                && !reserved::is_reserved(other)
        };
        let possible = self.ends.0 == self.ends.1 && !leaf.container && leaf.size > 0;
        possible && self.overlapping(&leaf.range()).is_some_and(|under| under.into_iter().any(same))
    }

    fn room(&self, leaf: &Leaf) -> Room {
        let range = leaf.range();
        if range.end > self.ends.0 || (leaf.size == 0 && range.start >= self.ends.0) {
            return Room::Beyond;
        }
        let Some(under) = self.overlapping(&range) else { return Room::Displaced };
        let same_size = self.ends.0 == self.ends.1;
        let set_aside =
            |leaf: &Leaf| same_size && (reserved::is_reserved(leaf) || reserved::is_padding(leaf));
        let (named, others): (Vec<usize>, Vec<usize>) =
            under.into_iter().partition(|i| set_aside(&self.old[*i]));
        let others_stay = others.iter().all(|i| self.stays[*i]);
        if leaf.bit_field && same_size && others_stay {
            // Another view of the whole, such as a plain integer, does not make the bits used.
            let whole = others.iter().all(|i| !self.old[*i].bit_field && self.old[*i].size > leaf.size);
            let reserved = !named.is_empty() && named.iter().all(|i| self.old[*i].bit_field);
            if whole && (reserved || (named.is_empty() && self.is_unnamed_field(&range))) {
                return Room::Reserved;
            }
        }
        if others.is_empty() {
            return Room::Hole;
        }
        if others_stay { Room::Shared } else { Room::Displaced }
    }

    /// Whether these bits must have been an unnamed bit-field: the one behind them does not start where
    /// its type alone would put it.
    fn is_unnamed_field(&self, range: &Range<i64>) -> bool {
        let after = self.by_place.partition_point(|i| self.old[*i].at < range.end);
        let is_field = |i: &&usize| self.old[**i].bit_field && self.step().is_some();
        let Some(next) = self.by_place[after..].iter().find(is_field).map(|i| &self.old[*i]) else {
            return false;
        };
        // Nothing overlaps the range, so what starts before it ends before it.
        let before =
            self.by_place[..after].iter().rev().find(is_field).map_or(0, |i| self.old[*i].range().end);
        let unit = next.unit;
        if unit <= 0 || next.at.rem_euclid(unit) == 0 {
            return false;
        }
        before.max(next.at - next.at.rem_euclid(unit)) <= range.start
    }
}
