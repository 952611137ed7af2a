//! Objects that the patch leaves alone, and that take part because read-only data which they use changed.

use std::collections::{BTreeMap, BTreeSet};

use xsplice_objects::{Class, Home, Object, RelocKind, SymbolKind};
use xsplice_report::Problems;

use crate::pair::{Correlated, ObjectPair, Parts};
use crate::rodata::Changes;

/// Adds the objects that use global read-only data which changed, to a fixpoint: a table in one of them that holds
/// the address of changed data is changed itself.
///
/// `find` gives all other objects of the hypervisor that may refer to any of the names; too many do no harm. Where
/// no such data changed it is not called.
///
/// # Errors
/// Those of `find`.
pub fn add_users(
    pairs: &mut Vec<ObjectPair>,
    mut find: impl FnMut(&BTreeSet<String>) -> Result<Vec<ObjectPair>, Problems>,
) -> Result<(), Problems> {
    if !pairs.iter().any(may_change) {
        return Ok(());
    }
    let mut asked = BTreeSet::new();
    loop {
        let fresh: BTreeSet<String> = changed_names(pairs).difference(&asked).cloned().collect();
        if fresh.is_empty() {
            return Ok(());
        }
        let known: BTreeSet<String> = pairs.iter().map(|pair| pair.path.clone()).collect();
        let refers = |pair: &ObjectPair| {
            let undefined = pair.base.symbols.iter().filter(|symbol| symbol.home == Home::Undefined);
            undefined.into_iter().any(|symbol| fresh.contains(&symbol.name))
        };
        let found = find(&fresh)?.into_iter();
        pairs.extend(found.filter(|pair| !known.contains(&pair.path) && refers(pair)));
        asked.extend(fresh);
    }
}

fn changed_names(pairs: &[ObjectPair]) -> BTreeSet<String> {
    // What cannot be taken apart is reported where it is done for good.
    let parts: Vec<Parts<'_>> = pairs.iter().filter_map(|pair| Parts::of(pair).ok()).collect();
    let mut correlated: Vec<Correlated<'_>> = parts.iter().map(Correlated::of).collect();
    Changes::spread(&mut correlated).names()
}

/// Whether global read-only data may have changed: quick, and true rather too often.
fn may_change(pair: &ObjectPair) -> bool {
    let has_globals = |object: &Object| {
        object.symbols.iter().any(|symbol| match symbol.home {
            Home::Section(id) => !symbol.local && object.section(id).class == Class::ReadOnly,
            _ => false,
        })
    };
    !pair.assembler
        && has_globals(&pair.base)
        && has_globals(&pair.patched)
        && read_only(&pair.base) != read_only(&pair.patched)
}

type Raw<'o> = (&'o [u8], Vec<(u64, RelocKind, &'o str, i64)>);

/// Read-only sections by their names, with what their relocations say.
fn read_only(object: &Object) -> BTreeMap<&str, Vec<Raw<'_>>> {
    let mut all: BTreeMap<&str, Vec<Raw<'_>>> = BTreeMap::new();
    for section in object.sections.iter().filter(|section| section.class == Class::ReadOnly) {
        let references = section
            .relocations
            .iter()
            .map(|relocation| {
                let symbol = object.symbol(relocation.symbol);
                let name = match (symbol.kind, symbol.home) {
                    (SymbolKind::Section, Home::Section(id)) => &object.section(id).name,
                    _ => &symbol.name,
                };
                (relocation.offset, relocation.kind, name.as_str(), relocation.addend)
            })
            .collect();
        all.entry(&section.name).or_default().push((&section.data, references));
    }
    all
}
