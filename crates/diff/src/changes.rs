//! What a pair differs in, as a list: before anything is selected, and whether or not it can be patched.

use rayon::prelude::*;
use serde::Serialize;
use xsplice_objects::Class;
use xsplice_report::{Difference, Place};

use crate::compare::{Compared, Verdict};
use crate::difference;
use crate::items::ItemKind;
use crate::meaning::Known;

/// A function that both versions have and that means something else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ChangedFunction {
    /// Its name in the patched object.
    pub name: String,
    /// The object, relative to the tree.
    pub object: String,
    /// Where it stands in the source.
    #[serde(rename = "where")]
    pub place: Place,
    /// What differs first.
    pub first_difference: Difference,
}

/// A function that one version has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct NamedFunction {
    /// Its name in its object.
    pub name: String,
    /// The object, relative to the tree.
    pub object: String,
    /// Where it stands in the source.
    #[serde(rename = "where")]
    pub place: Place,
}

/// Data with a name that is new or holds something else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ChangedData {
    /// Its name in the patched object.
    pub name: String,
    /// The object, relative to the tree.
    pub object: String,
    /// Where it stands in the source.
    #[serde(rename = "where")]
    pub place: Place,
    /// What changed, in words; `new` where the original does not have it.
    pub what: String,
}

/// Everything that pairs differ in and that matters after boot. In order of objects and names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Functions that mean something else.
    pub changed: Vec<ChangedFunction>,
    /// Functions that only the patched version has, needed or not.
    pub new: Vec<NamedFunction>,
    /// Functions that only the original has.
    pub removed: Vec<NamedFunction>,
    /// Data that is new or holds something else. What is known by its content only, such as a string, is part of
    /// the functions that use it.
    pub data: Vec<ChangedData>,
}

impl Changes {
    /// Of all pairs.
    pub fn of(pairs: &[Compared<'_>]) -> Changes {
        let of_one = |pair: &Compared<'_>| {
            let mut changes = Changes::default();
            changes.add_functions(pair);
            changes.add_data(pair);
            changes
        };
        let mut changes = Changes::default();
        for one in pairs.par_iter().map(of_one).collect::<Vec<_>>() {
            changes.changed.extend(one.changed);
            changes.new.extend(one.new);
            changes.removed.extend(one.removed);
            changes.data.extend(one.data);
        }
        changes.changed.sort();
        changes.new.sort();
        changes.removed.sort();
        changes.data.sort();
        changes
    }

    /// Whether there is nothing that a payload could bring.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.new.is_empty() && self.data.is_empty()
    }

    fn add_functions(&mut self, compared: &Compared<'_>) {
        let parts = compared.correlated.parts;
        let object = &parts.pair.path;
        let named = |name: &str| NamedFunction {
            name: name.to_owned(),
            object: object.clone(),
            place: parts.pair.place(name),
        };
        for (&id, verdict) in &compared.functions {
            let NamedFunction { name, object, place } = named(&parts.patched.get(id).name);
            match verdict {
                Verdict::Same => {}
                Verdict::Changed(first_difference) => {
                    let first_difference = Difference::clone(first_difference);
                    self.changed.push(ChangedFunction { name, object, place, first_difference });
                }
                Verdict::New => self.new.push(NamedFunction { name, object, place }),
            }
        }
        self.removed.extend(compared.removed.iter().map(|name| named(name)));
    }

    fn add_data(&mut self, compared: &Compared<'_>) {
        let correlated = &compared.correlated;
        let parts = correlated.parts;
        if parts.pair.assembler {
            return;
        }
        for (id, item) in parts.patched.iter() {
            let live = item.class.is_data() || item.class == Class::BootArray;
            if item.kind != ItemKind::Data || !live || *correlated.patched.known(id) == Known::Content {
                continue;
            }
            let what = match correlated.counterpart[id.0] {
                None => "new".to_owned(),
                Some(base) => {
                    let before = correlated.base.data(base, None);
                    let after = correlated.patched.data(id, None);
                    if before == after {
                        continue;
                    }
                    difference::of_data(&before, &after)
                }
            };
            let place = parts.pair.place(&item.name);
            self.data.push(ChangedData {
                name: item.name.clone(),
                object: parts.pair.path.clone(),
                place,
                what,
            });
        }
    }
}
