//! Enumerators of two enumerations.

use std::collections::HashSet;

use super::{Pair, by_name, pair_renamed};
use crate::change::{Harmless, What};
use crate::info::DebugInfo;
use crate::model::{Decl, MemberKind};

struct Enumerator {
    name: String,
    value: i128,
    decl: Decl,
}

fn list(info: &DebugInfo, ty: u32) -> Vec<Enumerator> {
    let members = info.model.members_of(ty).iter().filter(|m| m.kind == MemberKind::Enumerator);
    // gcc gives enumerators no line of their own.
    let whole = info.model.types[ty as usize].decl;
    members
        .map(|m| Enumerator {
            name: info.text(m.name).into_owned(),
            value: m.value(),
            decl: if m.decl.line == 0 { whole } else { m.decl },
        })
        .collect()
}

/// Words that mark an enumerator as the bound of the others.
const BOUNDS: [&str; 10] = ["nr", "num", "max", "count", "last", "end", "cnt", "total", "nb", "number"];

fn is_bound(name: &str) -> bool {
    let mut words = name.split('_').filter(|w| !w.is_empty()).map(str::to_ascii_lowercase);
    let first = words.next().unwrap_or_default();
    let last = words.next_back().unwrap_or_default();
    BOUNDS.contains(&&*first) || BOUNDS.contains(&&*last)
}

impl Pair<'_> {
    /// Compares two enumerations.
    pub(super) fn enumeration(&mut self, old_type: u32, new_type: u32) {
        self.size(old_type, new_type);
        let same_size =
            self.base.model.types[old_type as usize].size == self.patched.model.types[new_type as usize].size;
        let (old, new) = (list(self.base, old_type), list(self.patched, new_type));
        let old_names = by_name(&old, |e| &*e.name);
        let new_names = by_name(&new, |e| &*e.name);
        let highest = |list: &[Enumerator]| list.iter().map(|e| e.value).max().unwrap_or(0);
        let tops = (highest(&old), highest(&new));

        // Values that meant something else before.
        let mut taken = HashSet::new();
        for from in &old {
            let Some(to) = new_names.get(&*from.name).map(|i| &new[*i]) else { continue };
            if from.value == to.value {
                continue;
            }
            let moved_end = same_size
                && is_bound(&from.name)
                && from.value == tops.0
                && to.value == tops.1
                && tops.1 > tops.0;
            if !moved_end {
                taken.insert(from.value);
            }
            let harmless = moved_end.then_some(Harmless::EndMarkerMoved);
            let enumerator = from.name.clone();
            let what = What::EnumeratorChanged { enumerator, from: from.value, to: to.value };
            self.add(what, Some(from.decl), Some(to.decl), harmless, None);
        }

        let removed: Vec<usize> =
            (0..old.len()).filter(|i| !new_names.contains_key(&*old[*i].name)).collect();
        let added: Vec<usize> = (0..new.len()).filter(|i| !old_names.contains_key(&*new[*i].name)).collect();
        let renamed = pair_renamed(&removed, &added, |i| old[i].value, |i| new[i].value);
        for (from, to) in &renamed {
            let (from, to) = (&old[*from], &new[*to]);
            let what =
                What::EnumeratorRenamed { from: from.name.clone(), to: to.name.clone(), value: from.value };
            self.add(what, Some(from.decl), Some(to.decl), Some(Harmless::Renamed), None);
        }
        let (gone, come): (HashSet<usize>, HashSet<usize>) = renamed.into_iter().unzip();
        let new_decl = self.patched.model.types[new_type as usize].decl;
        for index in removed.into_iter().filter(|i| !gone.contains(i)) {
            taken.insert(old[index].value);
            let what =
                What::EnumeratorRemoved { enumerator: old[index].name.clone(), value: old[index].value };
            self.add(what, Some(old[index].decl), Some(new_decl), None, None);
        }
        let old_decl = self.base.model.types[old_type as usize].decl;
        for index in added.into_iter().filter(|i| !come.contains(i)) {
            let fresh = same_size && !taken.contains(&new[index].value);
            let what = What::EnumeratorAdded { enumerator: new[index].name.clone(), value: new[index].value };
            let harmless = fresh.then_some(Harmless::EnumeratorAppended);
            self.add(what, Some(old_decl), Some(new[index].decl), harmless, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_bound;

    #[test]
    fn bounds_are_known_by_their_first_or_last_word() {
        for name in ["NR_FOO", "FOO_MAX", "foo_count", "XEN_last", "__foo_end"] {
            assert!(is_bound(name), "{name}");
        }
        for name in ["FOO_INVALID", "maxim", "FOO_MAX_SEEN", "x"] {
            assert!(!is_bound(name), "{name}");
        }
    }
}
