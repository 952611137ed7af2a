//! What really changed, told from the compiler's text of both sides.

use std::collections::{BTreeMap, BTreeSet};

use crate::text::{Text, Unit, plain};

/// A function that changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Function {
    /// As the compiler named it on the changed side.
    pub name: String,
    /// Gone after boot.
    pub init: bool,
    /// Names without counters of the constant data through which it changed; empty where its own text did.
    pub through: BTreeSet<String>,
}

/// A variable that changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Datum {
    /// Without counters.
    pub name: String,
    /// Gone after boot.
    pub init: bool,
    /// Constant: who reads it has changed.
    pub constant: bool,
    /// Constant, and of this object alone: all that counts is who reads it.
    pub by_users: bool,
}

/// All that changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Truth {
    /// Functions.
    pub functions: BTreeSet<Function>,
    /// Variables.
    pub data: BTreeSet<Datum>,
    /// Names without counters of variables that lead to a changed one.
    pub leading: BTreeSet<String>,
    /// Assembler outside of functions.
    pub rest: bool,
}

impl Truth {
    /// Whether the compiler's text says that nothing changed.
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty() && self.data.is_empty() && !self.rest
    }

    /// Compares both sides. `init` says that the build turns all data of the object into boot data.
    pub fn of(base: &Text, changed: &Text, init: bool) -> Truth {
        let mut truth = Truth { rest: base.rest != changed.rest, ..Truth::default() };
        for unit in differing(&base.functions, &changed.functions) {
            truth.functions.insert(Function {
                name: unit.name.clone(),
                init: unit.is_init(),
                through: BTreeSet::new(),
            });
        }
        for unit in differing(&base.data, &changed.data) {
            truth.data.insert(Datum {
                name: plain(&unit.name),
                init: init || unit.is_init(),
                constant: unit.is_read_only(),
                by_users: unit.is_read_only() && !unit.global,
            });
        }
        truth.spread(changed);
        truth
    }

    /// Who reads changed constant data has changed, in several steps where tables hold tables' addresses. Of the
    /// readers of a global those in this object count: there are no others to see here.
    fn spread(&mut self, changed: &Text) {
        let mut reached: BTreeSet<String> =
            self.data.iter().filter(|datum| datum.constant).map(|datum| datum.name.clone()).collect();
        loop {
            let more: BTreeSet<String> = changed
                .data
                .iter()
                .filter(|(name, _)| !reached.contains(*name))
                .filter(|(_, units)| units.iter().any(|unit| !unit.refers.is_disjoint(&reached)))
                .map(|(name, _)| name.clone())
                .collect();
            if more.is_empty() {
                break;
            }
            for name in &more {
                self.leading.insert(name.clone());
                if changed.data[name].iter().all(Unit::is_read_only) {
                    reached.insert(name.clone());
                }
            }
            if more.iter().all(|name| !reached.contains(name)) {
                break;
            }
        }
        for unit in changed.functions.values().flatten() {
            let through: BTreeSet<String> = unit.refers.intersection(&reached).cloned().collect();
            let own = self.functions.iter().any(|function| function.name == unit.name);
            if !through.is_empty() && !own {
                self.functions.insert(Function { name: unit.name.clone(), init: unit.is_init(), through });
            }
        }
    }
}

/// Units of the changed side that have no equal among those of the same name.
fn differing<'t>(
    base: &'t BTreeMap<String, Vec<Unit>>,
    changed: &'t BTreeMap<String, Vec<Unit>>,
) -> Vec<&'t Unit> {
    let mut differing = Vec::new();
    for (name, units) in changed {
        let mut candidates: Vec<&Unit> = base.get(name).into_iter().flatten().collect();
        for unit in units {
            let same =
                |other: &&Unit| other.lines == unit.lines && other.section_kind() == unit.section_kind();
            match candidates.iter().position(same) {
                Some(index) => {
                    candidates.remove(index);
                }
                None => differing.push(unit),
            }
        }
    }
    differing
}

impl Unit {
    /// The section without names and counters.
    fn section_kind(&self) -> String {
        let name = plain(&self.section);
        let own = format!(".{}", plain(&self.name));
        name.strip_suffix(&own).unwrap_or(&name).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
	.section	.text.f
	.type	f, @function
f:
	leaq	outer(%rip), %rax
	.size	f, .-f
	.section	.text.g
	.type	g, @function
g:
	ret
	.size	g, .-g
	.section	.data.rel.ro.local.outer
	.type	outer, @object
outer:
	.quad	inner
	.section	.rodata.inner
	.type	inner, @object
inner:
	.long	1
	.section	.data.w
	.type	w, @object
w:
	.long	7
";

    fn truth(before: &str, after: &str) -> Truth {
        Truth::of(&Text::parse(TEXT), &Text::parse(&TEXT.replace(before, after)), false)
    }

    #[test]
    fn nothing_changed_is_nothing() {
        assert!(truth("", "").is_empty());
    }

    #[test]
    fn readers_of_constant_data_change_with_it_through_other_tables() {
        let truth = truth(".long\t1", ".long\t2");
        let names: Vec<&str> = truth.functions.iter().map(|f| f.name.as_str()).collect();
        assert_eq!(names, ["f"]);
        assert!(truth.data.iter().all(|datum| datum.by_users && datum.name == "inner"));
        assert!(truth.leading.contains("outer"));
    }

    /// A global constant counts itself, too: other objects may read it.
    #[test]
    fn readers_of_a_global_constant_change_with_it() {
        let global = |text: &str| text.replace("\t.type\tinner", "\t.globl\tinner\n\t.type\tinner");
        let (before, after) = (global(TEXT), global(TEXT).replace(".long\t1", ".long\t2"));
        let truth = Truth::of(&Text::parse(&before), &Text::parse(&after), false);
        assert_eq!(truth.functions.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["f"]);
        assert!(truth.data.iter().all(|datum| datum.constant && !datum.by_users && datum.name == "inner"));
        assert_eq!(truth.data.len(), 1);
    }

    #[test]
    fn readers_of_writable_data_do_not() {
        let truth = truth(".long\t7", ".long\t8");
        assert!(truth.functions.is_empty());
        assert_eq!(truth.data.len(), 1);
        assert!(truth.data.iter().all(|datum| !datum.by_users && !datum.init));
    }
}
