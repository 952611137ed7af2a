//! Source lines, compared with the marks in the sources.

mod common;

use common::{compile, compilers, sources};
use object::{Object, ObjectSection};
use xsplice_dwarf::{DebugInfo, layout_changes};

/// The line that ends in `/* LINE name */`.
fn marked(file: &str, name: &str) -> u32 {
    let text = std::fs::read_to_string(sources().join(file)).expect("the source");
    let mark = format!("/* LINE {name} */");
    let position = text.lines().position(|l| l.contains(&mark)).expect("the mark");
    position as u32 + 1
}

/// Where the trap of this function stands: in its section, or in that of its cold part.
fn trap(object: &[u8], function: &str) -> (String, u64) {
    let file = object::File::parse(object).expect("an object");
    let names = [format!(".text.{function}"), format!(".text.unlikely.{function}")];
    let sections = names.iter().filter_map(|n| file.section_by_name(n));
    let mut found = sections.filter_map(|section| {
        let code = section.data().expect("its bytes");
        let offset = code.windows(2).position(|w| w == [0x0f, 0x0b])?;
        Some((section.name().expect("its name").to_owned(), offset as u64))
    });
    found.next_back().expect("a trap")
}

fn each(check: impl Fn(&[u8], DebugInfo, &str)) {
    for compiler in compilers() {
        for dwarf in ["-gdwarf-4", "-gdwarf-5"] {
            let object = compile(compiler, "lines/main.c", &[dwarf, "-O2", "-Ilines/include"]);
            let info = DebugInfo::read(&object).expect("readable").expect("debug information");
            check(&object, info, &format!("{compiler} {dwarf}"));
        }
    }
}

#[test]
fn declarations() {
    each(|_, info, with| {
        for name in ["next", "traps", "inlines"] {
            let expected = Some(("lines/main.c".to_owned(), marked("lines/main.c", name)));
            assert_eq!(info.function_line(name), expected, "{with} {name}");
            assert_eq!(info.function_line(&format!("main.c#{name}")), expected, "{with} {name}");
        }
        let expected = Some(("lines/main.c".to_owned(), marked("lines/main.c", "value")));
        assert_eq!(info.variable_line("value"), expected, "{with}");
        assert_eq!(info.variable_line("nothing"), None);
        assert_eq!(info.function_line("value"), None);
    });
}

#[test]
fn static_variables_of_one_name_are_told_apart_by_their_symbols() {
    each(|object, info, with| {
        let file = object::File::parse(object).expect("an object");
        use object::ObjectSymbol;
        let names: Vec<&str> = file.symbols().filter_map(|s| s.name().ok()).collect();
        let outer = Some(("lines/main.c".to_owned(), marked("lines/main.c", "counter")));
        let inner = Some(("lines/main.c".to_owned(), marked("lines/main.c", "next.counter")));
        assert_eq!(info.variable_line("counter"), outer, "{with}");
        let local = names.iter().find(|n| n.starts_with("counter.") || **n == "next.counter");
        let local = local.expect("the static variable's symbol");
        assert_eq!(info.variable_line(local), inner, "{with} {local}");
    });
}

#[test]
fn instructions() {
    each(|object, info, with| {
        let (section, offset) = trap(object, "traps");
        let expected = Some(("lines/main.c".to_owned(), marked("lines/main.c", "traps trap")));
        assert_eq!(info.line_at(&section, offset), expected, "{with}");
        let (section, offset) = trap(object, "inlines");
        let header = "lines/include/inline.h";
        let expected = Some((header.to_owned(), marked(header, "from_header trap")));
        assert_eq!(info.line_at(&section, offset), expected, "{with}");
        assert_eq!(info.line_at(".text.traps", 1 << 20), None);
        assert_eq!(info.line_at(".text.traps", 1 << 40), None);
        assert_eq!(info.line_at(".text.nothing", 0), None);
        // Without a frame to set up, the first instruction may belong to the first statement.
        let (file, line) = info.line_at(".text.traps", 0).expect("a line");
        assert_eq!(file, "lines/main.c");
        assert!((marked(&file, "traps")..marked(&file, "traps trap")).contains(&line), "{with}: {line}");
    });
}

/// As the build gives it to compilers: the tree's path replaced by a dot, and headers found by absolute paths.
#[test]
fn paths_below_a_tree_that_is_replaced_by_a_dot() {
    let above = sources().canonicalize().expect("the sources").parent().expect("a parent").to_owned();
    let map = format!("-ffile-prefix-map={}=.", above.display());
    let include = format!("-I{}/tests/lines/include", above.display());
    for compiler in compilers() {
        for dwarf in ["-gdwarf-4", "-gdwarf-5"] {
            let object = compile(compiler, "lines/main.c", &[dwarf, "-O2", &map, &include]);
            let info = DebugInfo::read(&object).expect("readable").expect("debug information");
            let (section, offset) = trap(&object, "inlines");
            let header = "lines/include/inline.h";
            let expected = Some((format!("tests/{header}"), marked(header, "from_header trap")));
            assert_eq!(info.line_at(&section, offset), expected, "{compiler} {dwarf}");
            let (section, offset) = trap(&object, "traps");
            let expected = Some(("tests/lines/main.c".to_owned(), marked("lines/main.c", "traps trap")));
            assert_eq!(info.line_at(&section, offset), expected, "{compiler} {dwarf}");
        }
    }
}

#[test]
fn changes_say_where_they_stand() {
    for dwarf in ["-gdwarf-4", "-gdwarf-5"] {
        let read = |options: &[&str]| {
            let object = compile("gcc", "lines/main.c", options);
            DebugInfo::read(&object).expect("readable").expect("debug information")
        };
        let base = read(&[dwarf, "-Ilines/include"]);
        let patched = read(&[dwarf, "-Ilines/include", "-DPATCHED"]);
        let changes = layout_changes(&base, &patched);
        let header = "lines/include/inline.h";
        let added = changes.iter().find(|c| c.change.to_string().contains("member b")).expect("the member");
        assert_eq!(added.patched_line, Some((header.to_owned(), marked(header, "in_header.b"))));
        assert_eq!(added.base_line, Some((header.to_owned(), 1)));
        // The same, relative to a directory above that of the compilation.
        let above = sources().canonicalize().expect("the sources").parent().expect("a parent").to_owned();
        let patched = patched.with_tree(above.to_str().expect("a path"));
        let added = layout_changes(&base, &patched);
        let line = added.iter().find_map(|c| c.patched_line.clone()).expect("a line");
        assert_eq!(line.0, format!("tests/{header}"));
    }
}
