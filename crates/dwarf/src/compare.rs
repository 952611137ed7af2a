//! Which types differ, and how.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::change::{Harmless, LayoutChange, TypeKind, What};
use crate::describe::{describe, tagged};
use crate::flatten::{Leaf, flatten};
use crate::info::{DebugInfo, Named};
use crate::model::{Decl, Kind, VOID};

mod enums;
mod fields;
mod reserved;

/// Pieces of structures that one comparison looks at; real changes need some thousands.
const BUDGET: usize = 1_000_000;

/// A change with what it follows from.
pub(crate) struct Found {
    change: LayoutChange,
}

/// The types by which a comparison knows them, on both sides.
pub(crate) struct Pair<'a> {
    base: &'a DebugInfo,
    patched: &'a DebugInfo,
    kind: TypeKind,
    name: String,
    found: Vec<Found>,
}

/// Every named structure, union, enumeration and typedef that both objects define, and define differently.
///
/// A name may be defined in several ways in one object, since C has scopes: then the sets of definitions
/// are compared. A structure without a tag is compared as part of what holds it, or under its typedef.
/// Types that only one side has are no change; what uses them is. The result is sorted by kind and name,
/// then in the order of the source.
pub fn layout_changes(base: &DebugInfo, patched: &DebugInfo) -> Vec<LayoutChange> {
    let mut found = Vec::new();
    let mut budget = BUDGET;
    for (old, new) in differing(base, patched) {
        let Some(kind) = type_kind(base.model.types[old as usize].kind) else { continue };
        let name = base.text(base.model.types[old as usize].name).into_owned();
        let mut pair = Pair { base, patched, kind, name, found: Vec::new() };
        pair.compare(old, new, &mut budget);
        found.append(&mut pair.found);
    }
    judge_consequences(&mut found);
    let mut changes: Vec<LayoutChange> = found.into_iter().map(|f| f.change).collect();
    // Stable: within a type the order of the source stays.
    changes.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
    let mut seen = HashSet::new();
    changes.retain(|change| seen.insert(format!("{change:?}")));
    changes
}

pub(crate) fn type_kind(kind: Kind) -> Option<TypeKind> {
    Some(match kind {
        Kind::Struct => TypeKind::Struct,
        Kind::Union => TypeKind::Union,
        Kind::Enum => TypeKind::Enum,
        Kind::Typedef => TypeKind::Typedef,
        _ => return None,
    })
}

/// Pairs of definitions of one name that have no equal on the other side.
fn differing(base: &DebugInfo, patched: &DebugInfo) -> Vec<(u32, u32)> {
    let (mut old, mut new) = (&base.named[..], &patched.named[..]);
    let mut pairs = Vec::new();
    while let (Some(first), Some(other)) = (old.first(), new.first()) {
        if first.key != other.key {
            let behind = if first.key < other.key { &mut old } else { &mut new };
            *behind = &behind[1..];
            continue;
        }
        let key = first.key;
        let (olds, rest) = old.split_at(old.partition_point(|n| n.key <= key));
        old = rest;
        let (news, rest) = new.split_at(new.partition_point(|n| n.key <= key));
        new = rest;
        // The usual case, without allocation.
        if olds.len() == news.len() && olds.iter().zip(news).all(|(a, b)| a.print == b.print) {
            continue;
        }
        let only_old = without(olds, news);
        let only_new = without(news, olds);
        pairs.extend(only_old.into_iter().zip(only_new));
    }
    pairs
}

/// Definitions in `these` that are not among `those` (both sorted), in the order of the source.
fn without(these: &[Named], those: &[Named]) -> Vec<u32> {
    let mut left: Vec<u32> = these
        .iter()
        .filter(|n| those.binary_search_by_key(&n.print, |o| o.print).is_err())
        .map(|n| n.ty)
        .collect();
    left.sort_unstable();
    left
}

impl Pair<'_> {
    fn compare(&mut self, old: u32, new: u32, budget: &mut usize) {
        let before = self.found.len();
        match self.kind {
            TypeKind::Struct | TypeKind::Union => self.aggregate(old, new, budget),
            TypeKind::Enum => self.enumeration(old, new),
            TypeKind::Typedef => self.typedef(old, new, budget),
        }
        if self.found.len() == before && *budget == 0 {
            self.report(What::NotComparable, Some((old, new)));
        }
    }

    fn typedef(&mut self, old: u32, new: u32, budget: &mut usize) {
        let target = |info: &DebugInfo, ty: u32| info.model.unqualified(info.model.types[ty as usize].target);
        let (old_target, new_target) = (target(self.base, old), target(self.patched, new));
        let untagged = |info: &DebugInfo, ty: u32| {
            info.model.types.get(ty as usize).filter(|t| t.is_anonymous()).map(|t| t.kind)
        };
        match (untagged(self.base, old_target), untagged(self.patched, new_target)) {
            (Some(Kind::Enum), Some(Kind::Enum)) => self.enumeration(old_target, new_target),
            (Some(a), Some(b)) if a == b => self.aggregate(old_target, new_target, budget),
            _ => {
                let from = describe(self.base, old_target);
                let to = describe(self.patched, new_target);
                self.report(What::TypedefTarget { from, to }, Some((old, new)));
            }
        }
    }

    /// Size and alignment, which structures, unions and enumerations have.
    fn size(&mut self, old: u32, new: u32) {
        let (a, b) = (&self.base.model.types[old as usize], &self.patched.model.types[new as usize]);
        let (size, align) = ((a.size, b.size), (a.align, b.align));
        if size.0 != size.1 {
            let (from, to) = (size.0.unwrap_or(0), size.1.unwrap_or(0));
            self.report(What::SizeChanged { from, to }, Some((old, new)));
        }
        if align.0 != align.1 {
            self.report(What::AlignmentChanged { from: align.0, to: align.1 }, Some((old, new)));
        }
    }

    fn aggregate(&mut self, old: u32, new: u32, budget: &mut usize) {
        self.size(old, new);
        let Some(from) = flatten(self.base, old, budget) else {
            return self.report(What::NotComparable, Some((old, new)));
        };
        let Some(to) = flatten(self.patched, new, budget) else {
            return self.report(What::NotComparable, Some((old, new)));
        };
        let end = |info: &DebugInfo, ty: u32| {
            info.model.types[ty as usize].size.map_or(0, |s| i64::try_from(s).unwrap_or(0).saturating_mul(8))
        };
        let ends = (end(self.base, old), end(self.patched, new));
        fields::compare(self, &from, &to, ends, (old, new));
    }

    /// Adds a change at the place of two types.
    fn report(&mut self, change: What, types: Option<(u32, u32)>) {
        let decl = |info: &DebugInfo, ty: u32| info.model.types.get(ty as usize).map(|t| t.decl);
        let old = types.and_then(|(old, _)| decl(self.base, old));
        let new = types.and_then(|(_, new)| decl(self.patched, new));
        self.add(change, old, new, None, None);
    }

    /// Adds a change at the place of two declarations.
    fn add(
        &mut self,
        change: What,
        old: Option<Decl>,
        new: Option<Decl>,
        harmless: Option<Harmless>,
        inner: Option<(TypeKind, String)>,
    ) {
        let change = LayoutChange {
            kind: self.kind,
            name: self.name.clone(),
            change,
            base_line: old.and_then(|d| self.base.decl_line(d)),
            patched_line: new.and_then(|d| self.patched.decl_line(d)),
            harmless,
            inner,
        };
        self.found.push(Found { change });
    }
}

/// The name under which a type that is held by value reports its own changes.
fn root(info: &DebugInfo, ty: u32) -> Option<(TypeKind, String)> {
    let mut ty = ty;
    for _ in 0..64 {
        let this = info.model.types.get(ty as usize)?;
        match this.kind {
            Kind::Qualifier | Kind::Array => ty = this.target,
            Kind::Typedef => {
                let target = info.model.unqualified(this.target);
                if target != VOID && info.model.types[target as usize].is_anonymous() {
                    return Some((TypeKind::Typedef, info.text(this.name).into_owned()));
                }
                ty = this.target;
            }
            kind => {
                let name = info.text(this.name).into_owned();
                return type_kind(kind).filter(|_| !name.is_empty()).map(|kind| (kind, name));
            }
        }
    }
    None
}

/// Marks changes that only follow from harmless ones.
fn judge_consequences(found: &mut [Found]) {
    let names: HashSet<(TypeKind, String)> =
        found.iter().map(|f| (f.change.kind, f.change.name.clone())).collect();
    // As deep as structures are nested in one another; what is deeper stays unjudged, which is safe.
    for _ in 0..32 {
        let harmful: HashSet<(TypeKind, String)> = found
            .iter()
            .filter(|f| f.change.harmless.is_none())
            .map(|f| (f.change.kind, f.change.name.clone()))
            .collect();
        let mut changed = false;
        for one in found.iter_mut().filter(|f| f.change.harmless.is_none()) {
            if one.change.inner.as_ref().is_some_and(|i| names.contains(i) && !harmful.contains(i)) {
                one.change.harmless = Some(Harmless::InnerIsHarmless);
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
}

/// Positions of names; the first of several, which C does not have.
fn by_name<'a, T>(list: &'a [T], name: impl Fn(&'a T) -> &'a str) -> HashMap<&'a str, usize> {
    let mut map = HashMap::with_capacity(list.len());
    for (index, item) in list.iter().enumerate() {
        map.entry(name(item)).or_insert(index);
    }
    map
}

/// Pairs the unmatched items of two lists that are equal in all but name.
fn pair_renamed<K: Ord>(
    removed: &[usize],
    added: &[usize],
    old_key: impl Fn(usize) -> K,
    new_key: impl Fn(usize) -> K,
) -> Vec<(usize, usize)> {
    let mut waiting: BTreeMap<K, Vec<usize>> = BTreeMap::new();
    for index in added.iter().rev() {
        waiting.entry(new_key(*index)).or_default().push(*index);
    }
    let take = |index: &usize| Some((*index, waiting.get_mut(&old_key(*index))?.pop()?));
    removed.iter().filter_map(take).collect()
}

/// The type of a member in words, for messages.
fn type_name(info: &DebugInfo, leaf: &Leaf) -> String {
    let name = typedef_name(info, leaf.ty).unwrap_or_else(|| describe(info, leaf.ty));
    if leaf.bit_field { format!("{name}:{}", leaf.size) } else { name }
}

/// The typedef by which the source calls a type.
fn typedef_name(info: &DebugInfo, ty: u32) -> Option<String> {
    let ty = info.model.unqualified(ty);
    let this = info.model.types.get(ty as usize)?;
    (this.kind == Kind::Typedef).then(|| tagged(info, ty))
}
