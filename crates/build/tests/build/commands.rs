//! Patched builds without make.

use xsplice_build::Way;

use super::*;

fn by_commands(compiled: usize, same_text: &[&str]) -> Way {
    Way::Commands { compiled, same_text: same_text.iter().map(|path| (*path).to_owned()).collect() }
}

fn by_make(built: &CapturedBuild) -> &str {
    match &built.way {
        Way::Make { because } => because,
        way => panic!("{way:?}"),
    }
}

/// How often the compiler was called for an object, as the log tells.
fn all_lines(lab: &Lab) -> String {
    fs::read_to_string(lab.root.join("logs/patched-build.log")).unwrap()
}

pub(crate) fn a_source_is_compiled_once_and_by_its_command() {
    struct Steps(Mutex<Vec<String>>);
    impl Progress for Steps {
        fn step(&self, name: &str) {
            self.0.lock().unwrap().push(name.to_owned());
        }
        fn compiled(&self, object: &str, count: usize) {
            self.0.lock().unwrap().push(format!("{object} {count}"));
        }
    }
    let lab = Lab::new();
    lab.run(&[one_line()]).unwrap();
    let steps = Steps(Mutex::new(Vec::new()));
    let built = run(lab.request(&[one_line()]), &steps).unwrap();
    assert_eq!(built.way, by_commands(1, &[]));
    let steps = steps.0.into_inner().unwrap();
    assert!(!steps.iter().any(|step| step == "building the patched tree"), "{steps:?}");
    assert_eq!(steps.last().unwrap(), "xen/common/a.o 1");
    // That its command gives what make gave was tried in the first run, and is not tried again.
    assert!(!steps.iter().any(|step| step.contains("checking")), "{steps:?}");
    assert_eq!(all_lines(&lab), "", "neither make nor the compiler had to say anything");
}

pub(crate) fn a_header_that_changes_no_program_compiles_nothing() {
    let lab = Lab::new();
    let readers = ["xen/common/a.o", "xen/common/multi_2.o", "xen/common/multi_3.o"];
    let unused = edit("xen/include/xen/s.h", "struct s", "#define UNUSED 1\n/* words */ struct  s");
    for _ in 0..2 {
        let built = lab.run(std::slice::from_ref(&unused)).unwrap();
        assert_eq!(built.way, by_commands(0, &readers));
        assert_eq!(paths(&built), Vec::<&str>::new());
        assert_eq!(built.identical, readers);
        assert_eq!(built.touched[0].objects, readers, "they read it all the same");
    }
}

pub(crate) fn only_readers_whose_text_differs_are_compiled() {
    let lab = Lab::new();
    let one_reader =
        edit("xen/include/xen/s.h", "int b; };", "int b; };\n#if LEVEL == 2\nextern int two;\n#endif");
    let built = lab.run(&[one_reader]).unwrap();
    assert_eq!(built.way, by_commands(1, &["xen/common/a.o", "xen/common/multi_3.o"]));
    assert!(
        built.identical.contains(&"xen/common/multi_2.o".to_owned())
            || paths(&built) == ["xen/common/multi_2.o"]
    );
    // The source of a touched reader is compiled whatever its text.
    let both = [
        edit("xen/include/xen/s.h", "struct s", "/* */ struct s"),
        edit("xen/common/a.c", "return 2", "return 2 + 0"),
    ];
    let built = lab.run(&both).unwrap();
    assert_eq!(built.way, by_commands(1, &["xen/common/multi_2.o", "xen/common/multi_3.o"]));
}

pub(crate) fn what_the_build_makes_from_a_header_is_for_make() {
    let lab = Lab::new();
    let built = lab.run(&[edit("xen/include/xen/s.h", "int a;", "long a;")]).unwrap();
    assert_eq!(by_make(&built), "xen/common/offsets.s is made anew and comes out different");
    let expected = ["xen/arch/x86/entry.o", "xen/common/a.o", "xen/common/multi_2.o", "xen/common/multi_3.o"];
    assert_eq!(paths(&built), expected);
    assert_eq!(built.objects[0].reached_by, ["xen/include/generated/offsets.h"]);
}

pub(crate) fn a_text_that_cannot_be_made_any_more_is_no_success() {
    let lab = Lab::new();
    let broken = edit("xen/common/offsets.c", "b))", "gone))");
    assert_eq!(only(lab.run(&[broken])).code.name, "compile-failed");
    // All that is compiled does well without the member.
    let header = lab.root.join("tree/xen/include/xen/s.h");
    put(&header, "struct s { int a; int b; int c; };\n");
    let offsets = lab.root.join("tree/xen/common/offsets.c");
    let text = fs::read_to_string(&offsets).unwrap();
    put(&offsets, &text.replace("b))", "c))"));
    let patch = "--- a/xen/include/xen/s.h\n+++ b/xen/include/xen/s.h\n@@ -1 +1 @@\n-struct s { int a; int b; int c; };\n+struct s { int a; int b; };\n";
    let problem = only(lab.run(&[patch.to_owned()]));
    assert_eq!(
        (problem.code.name, problem.place.object.as_deref()),
        ("compile-failed", Some("xen/common/offsets.s"))
    );
}

pub(crate) fn what_the_assembler_reads_by_itself_counts() {
    let lab = Lab::new();
    let patch = edit("xen/include/xen/thunk.h", "nop", "pause");
    let built = lab.run(std::slice::from_ref(&patch)).unwrap();
    assert_eq!(built.way, by_commands(1, &[]));
    assert_eq!(paths(&built), ["xen/common/t.o"]);
    assert_eq!(built.objects[0].reached_by, ["xen/include/xen/thunk.h"]);
    // make does not know of it: it has to be told.
    let built = lab.run(&[patch, added("xen/include/xen/new.h", "#define NEW 1")]).unwrap();
    assert_eq!(by_make(&built), "xen/include/xen/new.h is new");
    assert_eq!(paths(&built), ["xen/common/t.o"]);
}

pub(crate) fn what_the_assembler_reads_of_what_the_build_makes_counts() {
    // The object's own makefile rule names neither the header nor the file made of it.
    let lab = Lab::new();
    let built = lab.run(&[edit("xen/include/xen/wait.h", "pause", "nop")]).unwrap();
    assert_eq!(by_make(&built), "xen/include/generated/macros.h is made anew and comes out different");
    assert_eq!(paths(&built), ["xen/common/u.o"]);
    assert_eq!(built.objects[0].reached_by, ["xen/include/generated/macros.h"]);
    let built = lab.run(&[edit("xen/include/xen/wait.h", "pause", "pause /* words */")]).unwrap();
    assert_eq!(built.way, by_commands(0, &[]));
}

pub(crate) fn added_files_and_generators_are_for_make() {
    let lab = Lab::new();
    for (patch, because) in [
        (
            edit("xen/include/xlat.lst", "5", "5 "),
            "xen/include/xlat.lst may decide about other files of the build",
        ),
        (added("xen/common/new.c", "int n;"), "xen/common/new.c is new"),
        (
            edit("xen/include/xen/lib.h", "", "#define X 1\n"),
            "no recorded command reads xen/include/xen/lib.h",
        ),
    ] {
        let patch = if patch.contains("lib.h") {
            "--- a/xen/include/xen/lib.h\n+++ b/xen/include/xen/lib.h\n@@ -0,0 +1 @@\n+#define X 1\n"
                .to_owned()
        } else {
            patch
        };
        assert_eq!(by_make(&lab.run(&[patch]).unwrap()), because);
    }
}

pub(crate) fn a_global_name_that_is_there_already_is_named() {
    let lab = Lab::new();
    let problem =
        only(lab.run(&[edit("xen/common/a.c", "return 2; }", "return 2; }\nint b(void) { return 1; }")]));
    assert_eq!(problem.code.name, "defined-twice");
    assert_eq!(problem.what, "b is defined twice in the patched tree");
    assert_eq!(problem.why, "xen/common/b.o defines it, too, and the linker takes only one.");
    let twice = [
        edit("xen/common/a.c", "return 2; }", "return 2; }\nint n(void) { return 1; }"),
        edit("xen/lib/l.c", "7; }", "7; }\nint n(void) { return 2; }"),
    ];
    assert_eq!(only(lab.run(&twice)).code.name, "defined-twice");
    // From one source to another it is defined once.
    let moved = [
        edit("xen/common/a.c", "int g(void) { return 2; }", ""),
        edit("xen/lib/l.c", "7; }", "7; }\nint g(void) { return 2; }"),
    ];
    assert_eq!(paths(&lab.run(&moved).unwrap()), ["xen/common/a.o", "xen/lib/l.o"]);
}

pub(crate) fn a_command_that_gives_something_else_outside_make_is_not_used() {
    let lab = Lab::new();
    let makefile = lab.root.join("tree/xen/Makefile");
    // Something that is not recorded has a hand in the object.
    let text = fs::read_to_string(&makefile).unwrap();
    let edited = text.replace("$@ && rm -f", "$@ && printf x >>$@ && rm -f");
    assert_ne!(text, edited);
    put(&makefile, &edited);
    let built = lab.run(&[one_line()]).unwrap();
    assert_eq!(by_make(&built), "the recorded command for xen/common/a.o gives something else outside make");
    assert_eq!(paths(&built), ["xen/common/a.o"]);
    assert!(built.objects[0].patched.as_ref().unwrap().ends_with(b"x"));
}

pub(crate) fn a_kept_build_that_was_moved_is_made_anew() {
    let lab = Lab::new();
    lab.run(&[one_line()]).unwrap();
    fs::rename(lab.root.join("cache"), lab.root.join("elsewhere")).unwrap();
    let mut request = lab.request(&[edit("xen/lib/l.c", "7", "8")]);
    request.cache = lab.root.join("elsewhere");
    let built = run(request, &Silent).unwrap();
    assert_eq!(paths(&built), ["xen/lib/l.o"]);
    assert_eq!(built.way, by_commands(1, &[]));
}

pub(crate) fn both_ways_give_the_same_objects() {
    let lab = Lab::new();
    let patch = [edit("xen/include/xen/s.h", "int a;", "unsigned a;"), edit("xen/lib/l.c", "7", "8")];
    let with_make = [patch[0].clone(), patch[1].clone(), added("xen/include/xen/new.h", "#define NEW 1")];
    let (commands, make) = (lab.run(&patch).unwrap(), lab.run(&with_make).unwrap());
    assert_eq!(commands.way, by_commands(4, &[]));
    by_make(&make);
    let bytes = |built: &CapturedBuild| -> Vec<_> {
        built
            .objects
            .iter()
            .map(|object| (object.path.clone(), object.base.clone(), object.patched.clone()))
            .collect()
    };
    assert_eq!(bytes(&commands), bytes(&make));
}
