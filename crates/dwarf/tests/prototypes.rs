//! Which changes of a function's or a variable's type are one, counted by hand from the ABI.

mod common;

use common::{compile, compilers};
use xsplice_dwarf::{DebugInfo, SetUp};

fn read(compiler: &str, file: &str, flags: &[&str]) -> DebugInfo {
    DebugInfo::read(&compile(compiler, file, flags)).expect("readable").expect("debug information")
}

#[test]
fn prototypes_differ_where_old_callers_pass_something_else() {
    let harmless = [
        "renamed_parameter",
        "qualified",
        "by_typedef",
        "signedness",
        "any",
        "tag",
        "array",
        "result_added",
        "use",
        "absent",
    ];
    let harmful = [
        ("added", "int added(int)", "int added(int, int)"),
        ("removed", "int removed(int, int)", "int removed(int)"),
        ("removed_first", "int removed_first(int, long)", "int removed_first(long)"),
        ("wider", "int wider(int)", "int wider(long)"),
        ("truth", "int truth(unsigned char)", "int truth(_Bool)"),
        ("pointer", "int pointer(unsigned long)", "int pointer(char *)"),
        ("pointee", "int pointee(struct one *)", "int pointee(struct other *)"),
        ("narrower_pointee", "int narrower_pointee(long *)", "int narrower_pointee(int *)"),
        ("value", "int value(struct one)", "int value(struct two)"),
        ("result_gone", "int result_gone(int)", "void result_gone(int)"),
        ("result_wider", "int result_wider(int)", "long result_wider(int)"),
        ("callback", "int callback(int (*)(int))", "int callback(int (*)(int, long))"),
        ("variadic", "int variadic(int)", "int variadic(int, ...)"),
    ];
    for compiler in compilers() {
        for level in ["-O0", "-O2"] {
            let base = read(compiler, "prototypes/main.c", &["-g", level]);
            let patched = read(compiler, "prototypes/main.c", &["-g", level, "-DPATCHED"]);
            for name in harmless {
                assert_eq!(base.prototype_change(name, &patched, name), None, "{compiler} {level} {name}");
            }
            for (name, from, to) in harmful {
                let found = base.prototype_change(name, &patched, name);
                let found = found.unwrap_or_else(|| panic!("{compiler} {level} {name}: no change"));
                assert_eq!((&*found.from, &*found.to), (from, to), "{compiler} {level}");
                assert_eq!(found.only_fewer, name == "removed", "{compiler} {level} {name}");
                assert_eq!(base.prototype_change(name, &base, name), None, "{compiler} {level} {name}");
            }
        }
    }
}

#[test]
fn variables_differ_where_they_hold_something_else() {
    let harmless = ["plain_kept", "sign", "wrapped", "absent"];
    let harmful = [
        ("function", "int (*)(int)", "int (*)(int, int)"),
        ("structure", "struct two", "struct other"),
        ("to_structure", "struct one *", "struct two *"),
        ("table", "int (*[2])(int)", "int (*[2])(long)"),
        ("truth_value", "unsigned char", "_Bool"),
    ];
    for compiler in compilers() {
        let base = read(compiler, "prototypes/main.c", &["-g"]);
        let patched = read(compiler, "prototypes/main.c", &["-g", "-DPATCHED"]);
        for name in harmless {
            assert_eq!(base.variable_change(name, &patched, name), None, "{compiler} {name}");
        }
        for (name, from, to) in harmful {
            let found = base.variable_change(name, &patched, name).expect(name);
            assert_eq!((&*found.from, &*found.to), (from, to), "{compiler}");
        }
    }
}

#[test]
fn parts_that_must_not_be_zero_are_found() {
    let part = |what: &str, at, size| SetUp { what: what.to_owned(), at, size };
    for compiler in compilers() {
        let info = read(compiler, "set_up/main.c", &["-g"]);
        assert_eq!(info.to_set_up("list"), [part("struct list_head", 0, 16)], "{compiler}");
        let both = [part("struct list_head", 8, 16), part("spinlock_t", 24, 8), part("spinlock_t", 32, 8)];
        assert_eq!(info.to_set_up("both"), both, "{compiler}");
        assert_eq!(info.to_set_up("lock"), [part("rwlock_t", 0, 12)], "{compiler}");
        assert_eq!(info.to_set_up("pointer"), [part("a pointer", 0, 8)], "{compiler}");
        assert_eq!(info.to_set_up("pointers"), [part("a pointer", 0, 8), part("a pointer", 8, 8)]);
        assert!(info.to_set_up("numbers").is_empty() && info.to_set_up("absent").is_empty());
    }
}
