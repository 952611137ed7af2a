//! Where objects of types live, in a compiled source.

mod common;

use common::{compile, compilers};
use xsplice_dwarf::{DebugInfo, TypeKind, life};

/// Names of structures, and what is said of each; none for those of which there are only automatic variables.
const EXPECTED: &[(&str, Option<&str>)] = &[
    ("variable", Some("the variable one_variable is one")),
    ("declared", Some("the variable elsewhere is one")),
    ("pointed", Some("the variable pointer points to one")),
    ("member", Some("member points of struct holder points to one")),
    ("inner", Some("it is part of struct middle, in struct outer; the variable deep is one")),
    (
        "parameter",
        Some("with_parameter has a pointer to one, and no automatic variable shows that it is to such"),
    ),
    ("given", Some("gives has a pointer to one, and no automatic variable shows that it is to such")),
    ("inlined", Some("the variable state is one")),
    ("automatic", None),
    ("part", None),
    ("whole", None),
    ("linked", Some("by its struct list_head a list or tree can hold one")),
    ("nowhere", Some("no automatic variable of it shows that there are none")),
];

#[test]
fn objects_are_found_where_they_live() {
    for compiler in compilers() {
        for options in
            [["-gdwarf-4", "-O0"], ["-gdwarf-4", "-O2"], ["-gdwarf-5", "-O0"], ["-gdwarf-5", "-O2"]]
        {
            let object = compile(compiler, "life/main.c", &options);
            let info = DebugInfo::read(&object).expect("readable").expect("debug information");
            for (name, expected) in EXPECTED {
                let found = life(&[&info], TypeKind::Struct, name).map(|life| life.to_string());
                assert_eq!(found.as_deref(), *expected, "struct {name} with {compiler} {options:?}");
            }
            let found = life(&[&info], TypeKind::Typedef, "untagged_t").map(|life| life.to_string());
            assert_eq!(
                found.as_deref(),
                Some("the variable untagged points to one"),
                "{compiler} {options:?}"
            );
        }
    }
}
