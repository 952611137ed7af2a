//! Global names that are defined twice: what the links of a whole build would find.

use std::collections::{BTreeMap, BTreeSet};

use fs_err as fs;
use object::{Object, ObjectSymbol};
use xsplice_report::{Diagnostic, Place};

use crate::base::Base;
use crate::codes;
use crate::graph::Graph;

/// The global names that an object defines for good, weak ones apart. None for code of 16 and 32 bits, which is not
/// linked with the rest, and for what cannot be read: the differ says so in its own words.
fn defined(bytes: &[u8]) -> BTreeSet<String> {
    let Ok(file) = object::File::parse(bytes) else { return BTreeSet::new() };
    if !file.is_64() {
        return BTreeSet::new();
    }
    file.symbols()
        .filter(|symbol| symbol.is_global() && !symbol.is_undefined() && !symbol.is_weak())
        .filter_map(|symbol| symbol.name().ok().map(str::to_owned))
        .collect()
}

/// Refuses a global name that one of the `remade` objects defines anew and another object of the hypervisor has.
pub(crate) fn check<'a>(base: &Base, remade: impl Iterator<Item = &'a str>) -> Result<(), Diagnostic> {
    let io = |error: std::io::Error| codes::io(&error);
    let mut now: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut new: Vec<(String, &str)> = Vec::new();
    for path in remade {
        let after = defined(&fs::read(base.tree().join(path)).map_err(io)?);
        let before = defined(&fs::read(base.pristine().join(path)).map_err(io)?);
        new.extend(after.difference(&before).map(|name| (name.clone(), path)));
        now.insert(path, after);
    }
    if new.is_empty() {
        return Ok(());
    }
    let objects = Graph::new(&base.tree(), base.records.clone()).objects();
    let mut others: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for made in objects.values().filter(|made| made.object.linked) {
        let path = &made.object.path;
        let names = match now.get(path.as_str()) {
            Some(names) => names.clone(),
            None => defined(&fs::read(base.pristine().join(path)).map_err(io)?),
        };
        for name in names {
            others.entry(name).or_default().push(path.clone());
        }
    }
    new.sort();
    for (name, path) in new {
        let definers = others.get(&name).map_or(&[][..], Vec::as_slice);
        if let Some(other) = definers.iter().find(|other| *other != path) {
            return Err(Diagnostic::new(
                codes::DEFINED_TWICE,
                format!("{name} is defined twice in the patched tree"),
            )
            .at(Place::object(path).symbol(&name))
            .why(format!("{other} defines it, too, and the linker takes only one."))
            .advice("Choose another name in the patch, or make it static."));
        }
    }
    Ok(())
}
