//! Finds which item of the patched object stands for which of the base.
//!
//! A name that a compiler did not number decides. Numbered ones (`warned.2`, `f.part.0`) are partners where
//! only one of the name without numbers is left on both sides; else their users decide: functions that are
//! the same but for such names tell which stand for each other.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    model::{Model, plain},
    object::Object,
    same::{Pairs, Same, could_pair},
};

/// How many rounds of asking users there are at most; each may settle names that the next one builds on.
const ROUNDS: usize = 8;

pub(crate) fn pair(base: &Object, patched: &Object) -> Pairs {
    let mut pairs = Pairs::none(&base.model, &patched.model);
    by_name(&base.model, &patched.model, &mut pairs, |name| name);
    by_name(&base.model, &patched.model, &mut pairs, plain);
    cold_parts(base, patched, &mut pairs);
    singles(base, patched, &mut pairs);
    cold_parts(base, patched, &mut pairs);
    for _ in 0..ROUNDS {
        if !by_users(base, patched, &mut pairs) {
            break;
        }
        cold_parts(base, patched, &mut pairs);
        singles(base, patched, &mut pairs);
    }
    leftovers(base, patched, &mut pairs);
    cold_parts(base, patched, &mut pairs);
    pairs
}

fn by_name(base: &Model, patched: &Model, pairs: &mut Pairs, form: fn(&str) -> &str) {
    let names = |model: &Model| {
        let mut found: BTreeMap<(bool, String), usize> = BTreeMap::new();
        for (number, item) in model.items.iter().enumerate().filter(|(_, item)| !item.numbered) {
            for name in &item.names {
                found.entry((item.code, form(name).to_owned())).or_insert(number);
            }
        }
        found
    };
    let theirs = names(patched);
    for (key, item) in names(base) {
        if let Some(&other) = theirs.get(&key) {
            pairs.join(item, other);
        }
    }
}

/// The cold parts of partners are partners, in order.
fn cold_parts(base: &Object, patched: &Object, pairs: &mut Pairs) {
    for (&parent, parts) in &base.cold {
        let Some(other) = pairs.to_patched[parent] else { continue };
        let others = patched.cold.get(&other).map_or(&[][..], Vec::as_slice);
        for (&part, &other) in parts.iter().zip(others) {
            pairs.join(part, other);
        }
    }
}

/// Items without partners, by what they have in common.
fn free(object: &Object, partners: &[Option<usize>]) -> BTreeMap<(bool, String), Vec<usize>> {
    let mut found: BTreeMap<(bool, String), Vec<usize>> = BTreeMap::new();
    for (number, item) in object.model.items.iter().enumerate() {
        if item.numbered
            && partners[number].is_none()
            && item.parent.is_none()
            && !object.model.is_by_content(number)
        {
            found.entry((item.code, plain(&item.stem).to_owned())).or_default().push(number);
        }
    }
    found
}

fn singles(base: &Object, patched: &Object, pairs: &mut Pairs) {
    let theirs = free(patched, &pairs.to_base);
    for (key, ours) in free(base, &pairs.to_patched) {
        if let ([one], Some([other])) = (ours.as_slice(), theirs.get(&key).map(Vec::as_slice))
            && could_pair(base, *one, patched, *other)
        {
            pairs.join(*one, *other);
        }
    }
}

/// Lets users vote. Gives whether a pair was found.
fn by_users(base: &Object, patched: &Object, pairs: &mut Pairs) -> bool {
    let mut votes: BTreeMap<(usize, usize), (usize, usize)> = BTreeMap::new();
    let mut vote = |wishes: BTreeSet<(usize, usize)>, whole: bool| {
        for wish in wishes {
            let count = votes.entry(wish).or_default();
            *if whole { &mut count.0 } else { &mut count.1 } += 1;
        }
    };
    let same = Same::wishing(base, patched, pairs);
    for function in base.functions() {
        let Some(other) = pairs.to_patched[function] else { continue };
        if same.function(function, other) {
            vote(same.take_wishes(), true);
            continue;
        }
        same.take_wishes();
        // A function that changed still speaks for the lines around the change.
        let (ours, theirs) = (&base.lines[&function], &patched.lines[&other]);
        let mut wishes = BTreeSet::new();
        let mut agrees = |(ours, theirs)| {
            let same_line = same.line(ours, theirs);
            let wished = same.take_wishes();
            if same_line {
                wishes.extend(wished);
            }
            same_line
        };
        let equal = ours.iter().zip(theirs).take_while(|pair| agrees(*pair)).count();
        if equal < ours.len().min(theirs.len()) {
            let _ = ours.iter().rev().zip(theirs.iter().rev()).take_while(|pair| agrees(*pair)).count();
        }
        vote(wishes, false);
    }
    for variable in base.variables() {
        let Some(other) = pairs.to_patched[variable] else { continue };
        let equal = same.variable(variable, other);
        let wishes = same.take_wishes();
        if equal {
            vote(wishes, true);
        }
    }
    let mut order: Vec<_> = votes.into_iter().collect();
    order.sort_by_key(|&((one, other), (whole, part))| {
        let same_name = base.model.items[one].name() == patched.model.items[other].name();
        (std::cmp::Reverse((whole, part, same_name)), one, other)
    });
    let mut found = false;
    for ((one, other), _) in order {
        found |= pairs.are_free(one, other);
        pairs.join(one, other);
    }
    found
}

/// What no user could tell apart: by equal content, then by the same name, then in order.
fn leftovers(base: &Object, patched: &Object, pairs: &mut Pairs) {
    for pass in 0..3 {
        let theirs = free(patched, &pairs.to_base);
        for (key, ours) in free(base, &pairs.to_patched) {
            for &one in &ours {
                for &other in theirs.get(&key).map_or(&[][..], Vec::as_slice) {
                    let fits = {
                        let same = Same::wishing(base, patched, pairs);
                        let same_name = base.model.items[one].name() == patched.model.items[other].name();
                        let equal =
                            || if key.0 { same.function(one, other) } else { same.variable(one, other) };
                        could_pair(base, one, patched, other)
                            && match pass {
                                0 => same_name && equal(),
                                1 => equal(),
                                _ => true,
                            }
                    };
                    if fits {
                        pairs.join(one, other);
                    }
                }
            }
        }
    }
}
