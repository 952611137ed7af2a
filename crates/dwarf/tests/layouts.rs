//! Layout changes in compiled sources: what is expected stands in the sources, in lines of `//#`.

mod common;

use common::{compile, compilers, sources};
use xsplice_dwarf::{DebugInfo, layout_changes, render};

fn read(compiler: &str, file: &str, options: &[&str]) -> DebugInfo {
    let object = compile(compiler, file, options);
    DebugInfo::read(&object).expect("readable").expect("debug information")
}

fn changes(base: &DebugInfo, patched: &DebugInfo) -> Vec<String> {
    let mut lines: Vec<String> = layout_changes(base, patched)
        .iter()
        .map(|c| if c.harmless.is_some() { format!("harmless {}", render(c)) } else { render(c) })
        .collect();
    lines.sort();
    lines
}

fn check(file: &str) {
    let text = std::fs::read_to_string(sources().join(file)).expect("the source");
    let mut expected: Vec<String> =
        text.lines().filter_map(|l| l.trim().strip_prefix("//# ")).map(str::to_owned).collect();
    expected.sort();
    assert!(expected.len() > 5, "{file} expects next to nothing");
    for compiler in compilers() {
        for dwarf in ["-gdwarf-4", "-gdwarf-5"] {
            for level in ["-O0", "-O2"] {
                let base = read(compiler, file, &[dwarf, level]);
                let patched = read(compiler, file, &[dwarf, level, "-DPATCHED"]);
                let with = format!("{compiler} {dwarf} {level} {file}");
                assert_eq!(changes(&base, &patched), expected, "{with}");
                assert!(changes(&base, &base).is_empty() && changes(&patched, &patched).is_empty(), "{with}");
            }
        }
    }
}

#[test]
fn members() {
    check("layouts/members.c");
}

#[test]
fn nested_types() {
    check("layouts/nested.c");
}

#[test]
fn bit_fields() {
    check("layouts/bits.c");
}

#[test]
fn enumerations() {
    check("layouts/enums.c");
}

#[test]
fn the_form_of_the_debug_information_is_no_change() {
    for file in ["layouts/members.c", "layouts/nested.c", "layouts/bits.c", "layouts/enums.c"] {
        let first = read("gcc", file, &["-gdwarf-4", "-O0"]);
        for compiler in compilers() {
            for options in [&["-gdwarf-5", "-O2"], &["-gdwarf-4", "-O2"]] {
                let other = read(compiler, file, options);
                assert_eq!(changes(&first, &other), Vec::<String>::new(), "{compiler} {options:?} {file}");
            }
        }
    }
}

#[test]
fn layouts_are_those_of_the_compiler() {
    for compiler in compilers() {
        let info = read(compiler, "layouts/nested.c", &["-g"]);
        let layout = info.struct_layout("holder").expect("a layout");
        assert_eq!(layout.size, 12);
        let fields: Vec<(&str, u64, u64, &str)> =
            layout.fields.iter().map(|f| (&*f.name, f.at_bit, f.bits, &*f.type_name)).collect();
        let expected = [("before", 0, 32, "u32"), ("in", 32, 32, "struct grows"), ("after", 64, 32, "u32")];
        assert_eq!(fields, expected);
        let slots = info.struct_layout("slots").expect("a layout");
        assert_eq!(slots.field("slots").map(|f| f.bits), Some(256));
        assert_eq!(slots.field("slots[].x").map(|f| (f.at_bit, f.bits)), Some((0, 64)));
        // A typedef for what has no tag, a name that is only declared, and one with several meanings.
        assert_eq!(info.struct_layout("untagged_t").map(|l| l.size), Some(8));
        assert_eq!(info.struct_layout("later"), None);
        assert_eq!(info.struct_layout("local"), None);
        assert!(info.struct_names().contains(&"calmest".to_owned()));
    }
}

#[test]
fn several_units_in_one_object() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mut objects = Vec::new();
    for define in [&[][..], &["-DPATCHED"]] {
        let mut parts = Vec::new();
        for file in ["layouts/members.c", "layouts/nested.c"] {
            let mut options = vec!["-gdwarf-5"];
            options.extend(define);
            let path = folder.path().join(format!("{}.o", parts.len()));
            std::fs::write(&path, compile("gcc", file, &options)).expect("written");
            parts.push(path);
        }
        let whole = folder.path().join("whole.o");
        let linked = std::process::Command::new("ld")
            .args(["-r", "-o"])
            .arg(&whole)
            .args(&parts)
            .status()
            .expect("ld");
        assert!(linked.success());
        let bytes = std::fs::read(&whole).expect("linked");
        objects.push(DebugInfo::read(&bytes).expect("readable").expect("debug information"));
    }
    let found = changes(&objects[0], &objects[1]);
    let has = |line: &str| found.iter().any(|f| f == line);
    assert!(has("struct hole: member flag (1 byte) added at offset 1 in a hole"), "{found:#?}");
    assert!(has("struct outer: member in holds struct inner, whose layout changed"), "{found:#?}");
    assert!(changes(&objects[0], &objects[0]).is_empty());
}
