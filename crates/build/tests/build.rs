//! Whole builds of a miniature hypervisor.
//!
//! This program is also the wrapper that those builds call, which is why it has a main of its own.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;

#[path = "build/commands.rs"]
mod commands;
#[path = "build/launchers.rs"]
mod launchers;
#[path = "build/needed.rs"]
mod needed;
#[path = "build/styles.rs"]
mod styles;

use libtest_mimic::{Arguments, Trial};
use xsplice_build::{
    CapturedBuild, FileClass, PatchInput, Planned, Progress, Request, Silent, Toolchain, build, plan,
};
use xsplice_report::{Diagnostic, Problems};

const CONFIG: &str = "CONFIG_LIVEPATCH=y\nCONFIG_SPARE=y\n";

/// Files of the miniature tree, below xen/.
const FILES: &[(&str, &str)] = &[
    ("Makefile", include_str!("mini.mk")),
    ("Kconfig", "# options\ndefault CONFIG_FROM_KCONFIG=y\n"),
    ("COPYING", "words\n"),
    ("arch/arm/x.c", "int arm;\n"),
    ("arch/x86/entry.S", "#include <generated/offsets.h>\n.text\n.globl entry\nentry: ret\n.long S_B\n"),
    (
        "common/offsets.c",
        "#include <xen/s.h>\nvoid o(void) { asm volatile (\"->S_B %c0\" : : \"i\" (__builtin_offsetof(struct s, b))); }\n",
    ),
    (
        "common/t.c",
        "asm (\".include \\\"xen/thunk.h\\\"\");\nint t(void) { asm volatile (\"THUNK\"); return 1; }\n",
    ),
    ("common/macros.c", ".macro WAIT\n#include <xen/wait.h>\n.endm\n"),
    (
        "common/u.c",
        "asm (\".include \\\"generated/macros.h\\\"\");\nint u(void) { asm volatile (\"WAIT\"); return 1; }\n",
    ),
    ("include/xen/wait.h", "pause\n"),
    ("include/xen/thunk.h", ".macro THUNK\nnop\n.endm\n"),
    (
        "common/a.c",
        "#include <xen/s.h>\nint f(struct s *s) { return s->a + 1; }\nint g(void) { return 2; }\n",
    ),
    (
        "common/b.c",
        "#include <generated/xlat.h>\nint b(void) { return XLAT; }\nint h(void) { return __LINE__; }\n",
    ),
    (
        "common/multi.c",
        "#include <xen/s.h>\n#define CAT2(a, b) a##b\n#define CAT(a, b) CAT2(a, b)\nint CAT(m, LEVEL)(struct s *s) { return s->b; }\n",
    ),
    ("common/version.c", "#include <xen/compile.h>\nconst char *version(void) { return BUILT __FILE__; }\n"),
    ("common/i.c", "static const int t[] = { 1, 2 };\nint i(int n) { return t[n]; }\n"),
    ("common/check.c", "int check(void) { return 0; }\n"),
    (
        "common/livepatch.c",
        "#include <xen/livepatch.h>\nint lp(struct livepatch_func *f) { return f->version; }\nvoid register_virtual_region(void) {}\nvoid livepatch_upload(void)\n{\n    register_virtual_region();\n}\n",
    ),
    ("lib/l.c", "int l(void) { return 7; }\n"),
    ("include/xen/s.h", "struct s { int a; int b; };\n"),
    ("include/xen/lib.h", ""),
    ("include/xen/types.h", ""),
    (
        "include/xen/livepatch.h",
        "#define LIVEPATCH_PAYLOAD_VERSION 2\nstruct livepatch_func { const char *name; void *new_addr; void *old_addr; unsigned int new_size; unsigned int old_size; unsigned char version; unsigned char pad[39]; unsigned char expect[32]; };\n",
    ),
    (
        "include/xen/livepatch_payload.h",
        "#define LIVEPATCH_LOAD_HOOK(f)\n#define LIVEPATCH_POSTREVERT_HOOK(f)\n",
    ),
    ("include/xlat.lst", "XLAT 5\n"),
];

/// A tree, a configuration and a cache, all temporary.
struct Lab {
    root: PathBuf,
    _folder: tempfile::TempDir,
}

impl Lab {
    fn new() -> Lab {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        for (path, text) in FILES {
            put(&root.join("tree/xen").join(path), text);
        }
        put(&root.join("tree/Config.mk"), "CC ?= cc\n");
        put(&root.join("tree/docs/d.txt"), "words\n");
        put(&root.join("config"), CONFIG);
        Lab { root, _folder: folder }
    }

    fn request(&self, patches: &[String]) -> Request {
        let patches = patches.iter().enumerate().map(|(index, text)| PatchInput {
            name: format!("{index}.patch"),
            bytes: text.clone().into_bytes(),
        });
        let mut request = Request::new(
            self.root.join("tree"),
            patches.collect(),
            self.root.join("config"),
            self.root.join("cache"),
            std::env::current_exe().unwrap(),
            self.root.join("logs"),
        );
        request.jobs = 2;
        request
    }

    fn run(&self, patches: &[String]) -> Result<CapturedBuild, Problems> {
        run(self.request(patches), &Silent)
    }

    fn base(&self) -> PathBuf {
        let bases = fs::read_dir(self.root.join("cache/bases")).unwrap();
        bases.map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap()
    }
}

fn run(request: Request, progress: &dyn Progress) -> Result<CapturedBuild, Problems> {
    match plan(request)? {
        Planned::Build(plan) => build(*plan, progress),
        Planned::Nothing(nothing) => panic!("nothing to build: {nothing:?}"),
    }
}

fn put(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A patch that replaces `old` in a file of the tree by `new`, which may have more or fewer lines.
fn edit(path: &str, old: &str, new: &str) -> String {
    let name = path.strip_prefix("xen/").unwrap();
    let before = FILES.iter().find(|(path, _)| *path == name).unwrap().1;
    assert!(before.contains(old), "{old}");
    let after = before.replacen(old, new, 1);
    let mut text = format!(
        "--- a/{path}\n+++ b/{path}\n@@ -1,{} +1,{} @@\n",
        before.lines().count(),
        after.lines().count()
    );
    text.extend(before.lines().map(|line| format!("-{line}\n")));
    text.extend(after.lines().map(|line| format!("+{line}\n")));
    text
}

fn added(path: &str, line: &str) -> String {
    format!(
        "diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+{line}\n"
    )
}

fn paths(built: &CapturedBuild) -> Vec<&str> {
    built.objects.iter().map(|object| object.path.as_str()).collect()
}

fn only(result: Result<CapturedBuild, Problems>) -> Diagnostic {
    let mut problems = result.map(|built| format!("{built:?}")).unwrap_err();
    assert_eq!(problems.0.len(), 1, "{problems:?}");
    problems.0.remove(0)
}

/// Every file below a folder with its content.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

fn one_line() -> String {
    edit("xen/common/a.c", "return 2", "return 3")
}

fn a_changed_line_gives_its_object_before_and_after() {
    let lab = Lab::new();
    let before = contents(&lab.root.join("tree"));
    let built = lab.run(&[one_line()]).unwrap();
    assert_eq!(paths(&built), ["xen/common/a.o"]);
    let object = &built.objects[0];
    assert_eq!(object.source, "xen/common/a.c");
    assert_eq!(object.reached_by, ["xen/common/a.c"]);
    assert!(object.linked && object.same_command && !object.assembler);
    let (base, patched) = (object.base.as_ref().unwrap(), object.patched.as_ref().unwrap());
    let has = |bytes: &[u8], text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    for bytes in [base, patched] {
        assert!(has(bytes, b".text.g\0") && has(bytes, b".debug_info"), "sections and -g");
        assert!(has(bytes, b"common/a.c\0"), "objcopy's step counts");
        assert!(!has(bytes, lab.root.to_str().unwrap().as_bytes()), "no place of the private copy");
    }
    assert!(has(patched, b"\xb8\x03\0\0\0") && has(base, b"\xb8\x02\0\0\0"), "mov $N, %eax");
    assert_eq!(built.touched.len(), 1);
    assert_eq!(built.touched[0].objects, ["xen/common/a.o"]);
    assert_eq!(contents(&lab.root.join("tree")), before, "the tree is only read");
    let layout = built.funcs_layout;
    assert_eq!((layout.version, layout.size, layout.old_addr, layout.version_offset), (2, 104, 16, 32));
    assert_eq!(layout.expect, Some(72));
    let kinds: Vec<&str> = built.loader.hooks.iter().map(String::as_str).collect();
    assert_eq!(kinds, ["load", "postrevert"]);
    assert!(built.loader.tables_from_upload);
    assert!(built.built_xen_syms.unwrap().is_file());
    let changes: Vec<&str> = built.config_changes.iter().map(|change| change.name.as_str()).collect();
    assert_eq!(changes, ["FROM_KCONFIG", "X86"]);
}

fn all_objects_of_the_original_are_known() {
    let lab = Lab::new();
    let built = lab.run(&[one_line()]).unwrap();
    let list: Vec<String> = built
        .base_objects
        .list()
        .iter()
        .map(|object| {
            format!("{} {}{}", object.path, object.source, if object.linked { "" } else { " unlinked" })
        })
        .collect();
    assert_eq!(
        list,
        [
            "xen/arch/x86/entry.o xen/arch/x86/entry.S",
            "xen/common/a.o xen/common/a.c",
            "xen/common/b.o xen/common/b.c",
            "xen/common/check.o xen/common/check.c unlinked",
            "xen/common/i.init.o xen/common/i.c",
            "xen/common/livepatch.o xen/common/livepatch.c",
            "xen/common/multi_2.o xen/common/multi.c",
            "xen/common/multi_3.o xen/common/multi.c",
            "xen/common/t.o xen/common/t.c",
            "xen/common/u.o xen/common/u.c",
            "xen/common/version.o xen/common/version.c",
            "xen/lib/l.o xen/lib/l.c",
        ]
    );
    assert!(built.base_objects.read("xen/lib/l.o").unwrap().starts_with(b"\x7fELF"));
}

fn a_header_reaches_all_that_read_it_and_one_source_may_give_several_objects() {
    let lab = Lab::new();
    let built = lab.run(&[edit("xen/include/xen/s.h", "int a;", "unsigned a;")]).unwrap();
    assert_eq!(paths(&built), ["xen/common/a.o", "xen/common/multi_2.o", "xen/common/multi_3.o"]);
    assert!(built.objects.iter().all(|object| object.reached_by == ["xen/include/xen/s.h"]));
    assert_eq!(built.touched[0].objects, paths(&built));
}

fn copies_archives_and_assembler_are_followed() {
    let lab = Lab::new();
    let patches = [
        edit("xen/common/i.c", "1, 2", "1, 3"),
        edit("xen/lib/l.c", "7", "8"),
        edit("xen/arch/x86/entry.S", "ret", "nop; ret"),
        edit("xen/common/check.c", "0", "1"),
    ];
    let built = lab.run(&patches).unwrap();
    let found: Vec<(&str, bool, bool)> =
        built.objects.iter().map(|object| (object.path.as_str(), object.linked, object.assembler)).collect();
    assert_eq!(
        found,
        [
            ("xen/arch/x86/entry.o", true, true),
            ("xen/common/check.o", false, false),
            ("xen/common/i.init.o", true, false),
            ("xen/lib/l.o", true, false),
        ]
    );
}

fn a_second_patch_uses_the_kept_build_and_sees_nothing_of_the_first() {
    struct Steps(Mutex<Vec<String>>);
    impl Progress for Steps {
        fn step(&self, name: &str) {
            self.0.lock().unwrap().push(name.to_owned());
        }
        fn compiled(&self, object: &str, _count: usize) {
            self.0.lock().unwrap().push(object.to_owned());
        }
    }
    let lab = Lab::new();
    lab.run(&[edit("xen/lib/l.c", "7", "8"), added("xen/common/stray.h", "x")]).unwrap();
    let steps = Steps(Mutex::new(Vec::new()));
    let built = run(lab.request(&[one_line()]), &steps).unwrap();
    assert_eq!(paths(&built), ["xen/common/a.o"]);
    let steps = steps.0.into_inner().unwrap();
    assert!(!steps.iter().any(|step| step == "building the original"), "{steps:?}");
    assert!(steps.contains(&"xen/common/a.o".to_owned()), "{steps:?}");
    assert!(!lab.base().join("tree/xen/common/stray.h").exists());
}

fn a_cache_that_was_moved_is_built_anew() {
    let lab = Lab::new();
    let first = lab.run(&[one_line()]).unwrap();
    fs::rename(lab.root.join("cache"), lab.root.join("elsewhere")).unwrap();
    let mut request = lab.request(&[one_line()]);
    request.cache = lab.root.join("elsewhere");
    let second = run(request, &Silent).unwrap();
    assert_eq!(paths(&second), ["xen/common/a.o"]);
    assert_eq!(second.base_objects.list(), first.base_objects.list());
}

fn an_edit_of_the_tree_between_two_runs_is_noticed() {
    let lab = Lab::new();
    let first = lab.run(&[one_line()]).unwrap();
    put(&lab.root.join("tree/xen/include/xen/s.h"), "struct s { char x; int a; int b; };\n");
    let second = lab.run(&[one_line()]).unwrap();
    assert_ne!(first.objects[0].base, second.objects[0].base);
}

fn whatever_a_killed_run_left_the_next_one_is_right() {
    let lab = Lab::new();
    let first = lab.run(&[one_line()]).unwrap();
    // Killed in the patched build: files half written, others gone.
    let base = lab.base();
    put(&base.join("tree/xen/common/b.c"), "half a fi");
    put(&base.join("tree/xen/common/b.o"), "");
    fs::remove_file(base.join("tree/xen/common/multi_2.o")).unwrap();
    let second = lab.run(&[one_line()]).unwrap();
    assert_eq!(paths(&second), ["xen/common/a.o"]);
    assert_eq!(first.objects[0].patched, second.objects[0].patched);
    // Killed in the original build: no state.
    fs::remove_file(base.join("state.json")).unwrap();
    put(&base.join("pristine/xen/common/a.c"), "half a fi");
    let third = lab.run(&[one_line()]).unwrap();
    assert_eq!(first.objects[0].base, third.objects[0].base);
    // A damaged object is noticed, and then made anew.
    put(&base.join("pristine/xen/common/a.o"), "damaged");
    assert_eq!(only(lab.run(&[one_line()])).code.name, "cache-unusable");
    assert_eq!(lab.run(&[one_line()]).unwrap().objects[0].base, first.objects[0].base);
}

/// Files of a kept build that something else wrote to.
fn a_damaged_cache_is_noticed_and_made_anew() {
    let lab = Lab::new();
    let patch = [edit("xen/include/xen/s.h", "int b;", "int b; int c;")];
    for needed in [false, true] {
        let run = || {
            let mut request = lab.request(&patch);
            request.want_symbols = !needed;
            request.cache = lab.root.join(if needed { "needed" } else { "whole" });
            run(request, &Silent)
        };
        let wanted = run().unwrap();
        let bases = fs::read_dir(lab.root.join(if needed { "needed/bases" } else { "whole/bases" })).unwrap();
        let base = bases.map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
        for file in [
            "state.json",
            "records.json",
            "commands.json",
            "pristine/xen/include/xen/s.h",
            "pristine/xen/.config",
        ] {
            put(&base.join(file), "struct s { int a; int b; int damaged; };\n");
            let built = run().unwrap_or_else(|problems| panic!("{file}: {problems:?}"));
            let bytes = |built: &CapturedBuild| -> Vec<_> {
                built.objects.iter().map(|object| (object.base.clone(), object.patched.clone())).collect()
            };
            assert_eq!(bytes(&built), bytes(&wanted), "{file}");
        }
        fs::remove_dir_all(base.join("pristine/xen/include")).unwrap();
        run().unwrap();
    }
}

fn places_may_have_spaces_and_letters_of_any_kind() {
    let lab = Lab::new();
    let tree = lab.root.join("ein Baum/größe 木");
    fs::create_dir_all(tree.parent().unwrap()).unwrap();
    let wanted = lab.run(&[one_line()]).unwrap();
    fs::rename(lab.root.join("tree"), &tree).unwrap();
    for symbols in [true, false] {
        let mut request = lab.request(&[one_line()]);
        request.tree = tree.clone();
        request.want_symbols = symbols;
        request.log_dir = lab.root.join("lógs & more");
        request.cache = lab.root.join(format!("größe-木-{symbols}"));
        let built = run(request, &Silent).unwrap();
        assert_eq!(built.objects[0].patched, wanted.objects[0].patched);
    }
}

fn the_same_input_gives_the_same_bytes_wherever_it_is_built() {
    let (one, two) = (Lab::new(), Lab::new());
    put(&two.root.join("tree/xen/old.o"), "left by a build in the tree");
    let mut request = two.request(&[edit("xen/common/version.c", "BUILT", "\"x\" BUILT")]);
    request.jobs = 1;
    request.cache = two.root.join("another/and-longer/place/for/the/cache");
    let second = run(request, &Silent).unwrap();
    let first = one.run(&[edit("xen/common/version.c", "BUILT", "\"x\" BUILT")]).unwrap();
    assert_eq!(paths(&first), ["xen/common/version.o"]);
    assert_eq!(first.objects[0].base, second.objects[0].base);
    assert_eq!(first.objects[0].patched, second.objects[0].patched);
}

fn only_the_owner_can_enter_and_a_read_only_tree_works() {
    let lab = Lab::new();
    for entry in ["tree/xen/common", "tree/xen", "tree"] {
        fs::set_permissions(lab.root.join(entry), fs::Permissions::from_mode(0o555)).unwrap();
    }
    let built = lab.run(&[one_line(), added("xen/common/unused.h", "x")]).unwrap();
    assert_eq!(paths(&built), ["xen/common/a.o"]);
    for folder in ["cache", "cache/bases"] {
        let mode = fs::metadata(lab.root.join(folder)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{folder}");
    }
    for folder in ["", "tree", "pristine", "tree/xen/common", "tmp", "bin"] {
        let mode = fs::metadata(lab.base().join(folder)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{folder}");
    }
    fs::set_permissions(lab.root.join("tree"), fs::Permissions::from_mode(0o755)).unwrap();
}

fn a_new_file_with_its_line_in_the_makefile_works() {
    let lab = Lab::new();
    let makefile =
        edit("xen/Makefile", "common/b.o common/multi_2.o", "common/b.o common/new.o common/multi_2.o");
    let built = lab.run(&[makefile, added("xen/common/new.c", "int fresh(void) { return 1; }")]).unwrap();
    assert_eq!(paths(&built), ["xen/common/new.o"]);
    assert!(built.objects[0].base.is_none() && built.objects[0].patched.is_some() && built.objects[0].linked);
    assert!(built.identical.contains(&"xen/common/a.o".to_owned()));
    let gone = edit("xen/Makefile", "common/b.o common/multi_2.o", "common/multi_2.o");
    let removed = "diff --git a/xen/common/b.c b/xen/common/b.c\ndeleted file mode 100644\n--- a/xen/common/b.c\n+++ /dev/null\n@@ -1,3 +0,0 @@\n-#include <generated/xlat.h>\n-int b(void) { return XLAT; }\n-int h(void) { return __LINE__; }\n";
    let built = lab.run(&[gone, removed.to_owned()]).unwrap();
    assert_eq!(paths(&built), ["xen/common/b.o"]);
    assert!(built.objects[0].base.is_some() && built.objects[0].patched.is_none());
}

fn a_new_header_that_is_found_before_another_is_noticed() {
    let lab = Lab::new();
    let makefile = "-Iinclude -include";
    let mut request = lab.request(&[added("xen/first/xen/s.h", "struct s { int a; int b; long x; };")]);
    let text = fs::read_to_string(lab.root.join("tree/xen/Makefile")).unwrap();
    put(&lab.root.join("tree/xen/Makefile"), &text.replace(makefile, "-Ifirst -Iinclude -include"));
    request.jobs = 1;
    let built = run(request, &Silent).unwrap();
    assert_eq!(paths(&built), ["xen/common/a.o", "xen/common/multi_2.o", "xen/common/multi_3.o"]);
    assert_eq!(built.objects[0].reached_by, ["xen/first/xen/s.h"]);
}

fn folders_that_the_user_has_keep_their_modes() {
    let lab = Lab::new();
    for folder in ["cache", "logs"] {
        fs::create_dir(lab.root.join(folder)).unwrap();
        fs::set_permissions(lab.root.join(folder), fs::Permissions::from_mode(0o755)).unwrap();
    }
    lab.run(&[one_line()]).unwrap();
    let mode = |path: &str| fs::metadata(lab.root.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(["cache", "logs", "cache/bases"].map(mode), [0o755, 0o755, 0o700]);
    assert_eq!(mode("logs/base-build.log"), 0o600);
}

fn a_build_file_that_alters_other_objects_is_refused() {
    let lab = Lab::new();
    let cases = [
        (edit("xen/Makefile", "-O2", "-O2 -DMORE"), "xen/common/a.o"),
        (edit("xen/include/xlat.lst", "5", "6"), "xen/common/b.o"),
        (edit("xen/Makefile", "common/a.o common/b.o", "common/a.o"), "xen/common/b.o"),
        (edit("xen/Kconfig", "=y", "=y\ndefault CONFIG_MORE=y"), "-"),
    ];
    for (patch, object) in cases {
        let result = lab.run(std::slice::from_ref(&patch));
        if object == "-" {
            // Nothing reads the new option.
            let built = result.unwrap();
            assert_eq!(paths(&built), Vec::<&str>::new());
            assert_eq!(built.patched_config_changes[0].name, "MORE");
            continue;
        }
        let problem = only(result);
        assert_eq!(problem.code.name, "build-file-changes-other-objects", "{patch}");
        assert!(problem.why.contains(object), "{problem:?}");
    }
}

fn a_linker_script_is_refused() {
    let lab = Lab::new();
    let problem = only(lab.run(&[added("xen/arch/x86/xen.lds.S", "SECTIONS {}")]));
    assert_eq!(problem.code.name, "linker-script-changed");
    assert_eq!(problem.place.file.as_deref(), Some("xen/arch/x86/xen.lds.S"));
}

fn a_failing_compile_shows_the_compilers_words() {
    let lab = Lab::new();
    let problem = only(lab.run(&[edit("xen/common/a.c", "return 2", "return undeclared")]));
    assert_eq!(problem.code.name, "compile-failed");
    assert_eq!(problem.place.object.as_deref(), Some("xen/common/a.o"));
    assert_eq!((problem.place.file.as_deref(), problem.place.line), (Some("xen/common/a.c"), Some(3)));
    assert!(problem.what.contains("undeclared") && problem.what.contains("patched tree"), "{problem:?}");
    let log = lab.root.join("logs/patched-build.log");
    assert!(problem.advice.contains(log.to_str().unwrap()), "{problem:?}");
    assert!(fs::read_to_string(log).unwrap().contains("undeclared"));
    assert_eq!(paths(&lab.run(&[one_line()]).unwrap()), ["xen/common/a.o"]);
}

/// Each of these lines makes a name of its number; two with the same number do not compile.
const UNIQUE: &str = "#define CAT2(a, b) a##b\n#define CAT(a, b) CAT2(a, b)\n#define UNIQUE struct CAT(unique_, __LINE__) { int x; };\n";

/// A patch that adds lines behind the first line of a file with `after` in it.
fn insert(lab: &Lab, path: &str, after: &str, new: &str) -> String {
    let before = fs::read_to_string(lab.root.join("tree").join(path)).unwrap();
    let at = before.lines().position(|line| line.contains(after)).unwrap() + 1;
    let context = before.lines().nth(at - 1).unwrap();
    let count = new.lines().count();
    let mut text = format!("--- a/{path}\n+++ b/{path}\n@@ -{at} +{at},{} @@\n {context}\n", count + 1);
    text.extend(new.lines().map(|line| format!("+{line}\n")));
    text
}

fn code_that_only_moves_is_the_same() {
    let lab = Lab::new();
    let patches = [
        insert(&lab, "xen/common/b.c", "XLAT;", "/* more */\nint more(void) { return 1; }"),
        insert(&lab, "xen/include/xen/s.h", "struct s", "/* more */"),
        insert(&lab, "xen/arch/x86/entry.S", ".globl", "# more"),
    ];
    let built = lab.run(&patches).unwrap();
    let expected = ["xen/common/b.c".to_owned()];
    assert_eq!(built.line_numbers.neutral, expected);
    assert!(built.line_numbers.fell_back.is_empty() && built.warnings.is_empty());
    let kept = fs::read_to_string(lab.base().join("tree/xen/common/b.c")).unwrap();
    assert!(kept.ends_with("return 1; }\n#line 3\nint h(void) { return __LINE__; }\n"), "{kept}");

    let comment = [insert(&lab, "xen/common/b.c", "XLAT;", "/* more */")];
    let built = lab.run(&comment).unwrap();
    assert_eq!(paths(&built), [""; 0]);
    assert!(built.identical.contains(&"xen/common/b.o".to_owned()));
    let mut request = lab.request(&comment);
    request.keep_lines = true;
    let built = run(request, &Silent).unwrap();
    assert_eq!(paths(&built), ["xen/common/b.o"]);
    assert!(built.line_numbers.neutral.is_empty());
}

fn what_does_not_compile_with_its_old_numbers_falls_back() {
    let lab = Lab::new();
    let header = lab.root.join("tree/xen/include/xen/s.h");
    put(&header, &format!("{UNIQUE}struct s {{ int a; int b; }};\nUNIQUE\n"));
    let patches = [
        insert(&lab, "xen/include/xen/s.h", "struct s", "/* more */\nUNIQUE\n/* and */\n/* more */"),
        insert(&lab, "xen/common/b.c", "XLAT;", "int more(void) { return 1; }"),
    ];
    // The line added has the number of the one below it.
    let patches_that_clash = [
        insert(&lab, "xen/include/xen/s.h", "struct s", "UNIQUE // more"),
        insert(&lab, "xen/common/a.c", "f(struct", "int other(void) { return 1; }"),
        patches[1].clone(),
    ];
    let fine = lab.run(&patches).unwrap();
    assert_eq!(fine.line_numbers.neutral, ["xen/common/b.c", "xen/include/xen/s.h"]);
    let mut results = Vec::new();
    for jobs in [1, 4] {
        let mut request = lab.request(&patches_that_clash);
        request.jobs = jobs;
        let built = run(request, &Silent).unwrap();
        // a.c reads the header and fails too, so it is left plain with it.
        assert_eq!(built.line_numbers.neutral, ["xen/common/b.c"], "{jobs}");
        assert_eq!(built.line_numbers.fell_back, ["xen/common/a.c", "xen/include/xen/s.h"]);
        let warned: Vec<_> =
            built.warnings.iter().map(|warning| (warning.code.name, &warning.place)).collect();
        assert_eq!(warned.len(), 2);
        assert!(warned.iter().all(|(code, place)| *code == "lines-moved" && place.file.is_some()));
        let text = fs::read_to_string(lab.base().join("tree/xen/include/xen/s.h")).unwrap();
        assert!(text.ends_with("};\nUNIQUE // more\nUNIQUE\n"), "{text}");
        results.push(built.objects.iter().map(|object| object.patched.clone()).collect::<Vec<_>>());
    }
    assert_eq!(results[0], results[1]);
}

fn the_compilers_words_are_about_the_patch_as_it_is() {
    let lab = Lab::new();
    let patches = [
        insert(&lab, "xen/common/b.c", "XLAT;", "int more(void) { return 1; }\n\n"),
        insert(&lab, "xen/common/b.c", "return __LINE__", "int bad(void) { return undeclared; }"),
    ];
    for jobs in [1, 4] {
        let mut request = lab.request(&patches);
        request.jobs = jobs;
        let problem = only(run(request, &Silent));
        assert_eq!(problem.code.name, "compile-failed");
        let place = (problem.place.file.as_deref(), problem.place.line);
        assert_eq!(place, (Some("xen/common/b.c"), Some(6)), "{problem:?}");
    }
}

fn an_unfit_configuration_is_named_before_anything_is_built() {
    let lab = Lab::new();
    put(&lab.root.join("config"), "CONFIG_SPARE=y\n");
    assert_eq!(only(lab.run(&[one_line()])).code.name, "livepatch-off");
    put(&lab.root.join("config"), "CONFIG_LIVEPATCH=y\nCONFIG_HARDEN_VANISH=y\n");
    let problem = only(lab.run(&[one_line()]));
    assert_eq!(
        (problem.code.name, problem.place.symbol.as_deref()),
        ("config-drift", Some("CONFIG_HARDEN_VANISH"))
    );
    put(&lab.root.join("config"), "CONFIG_LIVEPATCH=y\nCONFIG_VANISH=y\n");
    let built = lab.run(&[one_line()]).unwrap();
    assert!(built.config_changes.iter().any(|change| change.name == "VANISH" && change.got.is_none()));
    put(&lab.root.join("config"), "hello\n");
    assert_eq!(only(lab.run(&[one_line()])).code.name, "config-unreadable");
}

fn what_cannot_reach_the_hypervisor_is_not_built() {
    let lab = Lab::new();
    let patches =
        [added("docs/new.md", "x"), edit("xen/arch/arm/x.c", "arm", "arm2"), edit("xen/COPYING", "w", "W")];
    let Planned::Nothing(nothing) = plan(lab.request(&patches)).unwrap() else { panic!("a build") };
    let classes: Vec<FileClass> = nothing.touched.iter().map(|file| file.class).collect();
    assert_eq!(classes, [FileClass::Docs, FileClass::Docs, FileClass::OtherArchitecture]);
    assert!(nothing.touched.iter().all(|file| !file.reason.is_empty()));
    assert!(!lab.root.join("cache").exists());
}

fn a_missing_program_and_a_wrong_tree_say_what_to_do() {
    let lab = Lab::new();
    let mut request = lab.request(&[one_line()]);
    request.toolchain = Toolchain { cc: "no-such-gcc".to_owned(), ..Toolchain::default() };
    let problem = only(run(request, &Silent));
    assert_eq!(problem.code.name, "tool-missing");
    assert!(problem.what.contains("no-such-gcc") && problem.advice.contains("apt install gcc."));
    let mut request = lab.request(&[one_line()]);
    request.toolchain = Toolchain { cc: "gcc-3".to_owned(), ..Toolchain::default() };
    assert!(only(run(request, &Silent)).advice.contains("apt install gcc-3."));
    let mut request = lab.request(&[one_line()]);
    request.tree = lab.root.join("tree/xen");
    assert_eq!(only(run(request, &Silent)).code.name, "tree-unusable");
    let mut request = lab.request(&[one_line()]);
    request.cache = lab.root.join("with space");
    assert_eq!(only(run(request, &Silent)).code.name, "cache-unusable");
}

fn a_build_without_symbols_stops_at_the_link() {
    let lab = Lab::new();
    let mut request = lab.request(&[one_line()]);
    request.want_symbols = false;
    let built = run(request, &Silent).unwrap();
    assert_eq!(paths(&built), ["xen/common/a.o"]);
    assert!(built.objects[0].linked && built.built_xen_syms.is_none());
    assert!(lab.run(&[one_line()]).unwrap().built_xen_syms.unwrap().is_file());
}

fn what_fails_after_the_symbol_file_is_nobodys_business() {
    let lab = Lab::new();
    let makefile = lab.root.join("tree/xen/Makefile");
    let text = fs::read_to_string(&makefile).unwrap();
    put(
        &makefile,
        &format!("{}\nxen.efi: xen-syms\n\tfalse\n", text.replace("all: xen-syms", "all: xen-syms xen.efi")),
    );
    let built = lab.run(&[one_line()]).unwrap();
    assert_eq!(paths(&built), ["xen/common/a.o"]);
    assert!(built.built_xen_syms.unwrap().is_file());
    // Xen 4.14's order, with several jobs, is anybody's guess.
    put(
        &makefile,
        &format!(
            "{}\nxen.efi:\n\t$(LD) -o .xen.efi none.o\n",
            text.replace("all: xen-syms", "all: xen.efi xen-syms")
        ),
    );
    let built = lab.run(&[one_line()]).unwrap();
    assert_eq!(paths(&built), ["xen/common/a.o"]);
    assert!(built.built_xen_syms.unwrap().is_file());
    put(&makefile, &text.replace("$(LD) -e 0 -N prelink.o -o $@", "$(LD) -e 0 -N none.o -o $@"));
    let problem = only(lab.run(&[one_line()]));
    assert_eq!(problem.code.name, "make-failed");
    assert!(problem.what.contains("none.o"), "{problem:?}");
}

fn a_variable_for_make_reaches_the_compiler_and_has_its_own_base() {
    let lab = Lab::new();
    let mut request = lab.request(&[one_line()]);
    request.make_vars = vec![("EXTRA".to_owned(), "-DLEVEL=9".to_owned())];
    let patch = edit("xen/common/b.c", "return __LINE__", "return LEVEL");
    request.patches[0].bytes = patch.clone().into_bytes();
    assert_eq!(paths(&run(request, &Silent).unwrap()), ["xen/common/b.o"]);
    assert_eq!(only(lab.run(&[patch])).code.name, "compile-failed");
}

fn what_the_shipped_hypervisor_says_about_itself_is_taken_over() {
    let lab = Lab::new();
    put(&lab.root.join("tree/xen/include/xen/compile.h.in"), "#define BUILT \"@@date@@\"\n");
    let version = "#include <xen/compile.h>\nconst char *version(void)\n{\n    return BUILT;\n}\n";
    put(&lab.root.join("tree/xen/common/version.c"), version);
    let makefile = lab.root.join("tree/xen/Makefile");
    let text = fs::read_to_string(&makefile).unwrap();
    let own = text.lines().find(|line| line.contains("#define BUILT")).unwrap().to_owned();
    put(&makefile, &text.replace(&own, "\tsed 's/@@date@@/$(XEN_BUILD_DATE)/' $@.in > $@"));
    let mut request = lab.request(&[one_line()]);
    request.shipped_texts =
        [("version", "A \"day\""), ("f", "x")].map(|(name, text)| (name.into(), text.into())).into();
    let built = run(request.clone(), &Silent).unwrap();
    let taken: Vec<_> = built.metadata.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    assert_eq!(taken, [("BUILT", "A \"day\"")]);
    let has = |built: &CapturedBuild, text: &str| {
        let object = built.base_objects.read("xen/common/version.o").unwrap();
        object.windows(text.len()).any(|window| window == text.as_bytes())
    };
    assert!(has(&built, "A \"day\"\0"));
    // Another text, or none, is another original.
    request.shipped_texts.insert("version".to_owned(), "A night".to_owned());
    assert!(has(&run(request, &Silent).unwrap(), "A night\0"));
    let plain = lab.run(&[one_line()]).unwrap();
    assert!(plain.metadata.is_empty() && has(&plain, "1970\0"));
}

/// A program in PATH under another name, through a script that notes each call.
fn noting(lab: &Lab, name: &str, program: &str) -> String {
    let script = lab.root.join("tools").join(name);
    let log = lab.root.join("noted");
    put(&script, &format!("#!/bin/sh\necho {name} >> {}\nexec {program} \"$@\"\n", log.display()));
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script.display().to_string()
}

fn tools_by_other_names_are_used_and_told_apart() {
    let lab = Lab::new();
    for tool in ["gcc", "ld", "objcopy", "ar", "nm", "objdump", "strip"] {
        noting(&lab, &format!("cross-{tool}"), tool);
    }
    let mut request = lab.request(&[one_line()]);
    request.toolchain = Toolchain::prefixed(&lab.root.join("tools/cross-").display().to_string());
    request.toolchain.ld = noting(&lab, "my-ld", "ld");
    request.toolchain.host_cc = noting(&lab, "my-host-cc", "gcc");
    let makefile = fs::read_to_string(lab.root.join("tree/xen/Makefile")).unwrap();
    let all = "all: xen-syms\n\t$(CROSS_COMPILE)nm xen-syms\n\t$(HOSTCC) --version\n\t$(CC) --version";
    put(&lab.root.join("tree/xen/Makefile"), &makefile.replace("all: xen-syms", all));
    assert_eq!(paths(&run(request.clone(), &Silent).unwrap()), ["xen/common/a.o"]);
    let noted = fs::read_to_string(lab.root.join("noted")).unwrap();
    for tool in ["cross-gcc", "my-ld", "cross-objcopy", "cross-ar", "cross-nm", "my-host-cc"] {
        assert!(noted.lines().any(|line| line == tool), "{tool}");
    }
    assert!(!noted.contains("cross-ld"));
    // Other tools make another original.
    request.toolchain = Toolchain::default();
    run(request.clone(), &Silent).unwrap();
    let bases = fs::read_dir(lab.root.join("cache/bases")).unwrap();
    assert_eq!(bases.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count(), 2);
    request.toolchain = Toolchain::prefixed("no_such-machine-");
    let problems = run(request, &Silent).unwrap_err();
    let said = |name: &str, package: &str| {
        problems.0.iter().any(|problem| {
            problem.what.starts_with(name) && problem.advice.contains(&format!("apt install {package}."))
        })
    };
    assert!(said("no_such-machine-gcc ", "gcc-no-such-machine"), "{problems:?}");
    assert!(said("no_such-machine-nm ", "binutils-no-such-machine"), "{problems:?}");
}

fn a_private_copy_is_prepared_once_and_before_it_is_configured() {
    let lab = Lab::new();
    let prepared = |command: &str, patch: String| {
        let mut request = lab.request(&[patch]);
        request.prepare = Some(command.to_owned());
        run(request, &Silent)
    };
    let command = format!(
        "set -e; echo x >> {}; pwd; echo 'default CONFIG_PREPARED=y' >> xen/Kconfig; \
         echo '#define PREPARED 7' > xen/include/xen/types.h",
        lab.root.join("runs").display()
    );
    let types = edit("xen/common/b.c", "return XLAT", "\n#include <xen/types.h>\nreturn PREPARED");
    for _ in 0..2 {
        let built = prepared(&command, types.clone()).unwrap();
        assert_eq!(paths(&built), ["xen/common/b.o"]);
        assert!(built.config_changes.iter().any(|change| change.name == "PREPARED"));
    }
    assert_eq!(fs::read_to_string(lab.root.join("runs")).unwrap(), "x\n");
    assert_eq!(fs::read_to_string(lab.root.join("tree/xen/include/xen/types.h")).unwrap(), "");
    // It is part of what identifies the original.
    assert_eq!(only(lab.run(&[types])).code.name, "compile-failed");
    let problem = only(prepared("echo one; echo two >&2; exit 7", one_line()));
    assert_eq!(problem.code.name, "prepare-failed");
    assert!(problem.what.contains("exit code 7: echo one"), "{problem:?}");
    assert_eq!(problem.why, "one\ntwo");
    // Both would change the file, and one would undo the other.
    for path in ["xen/common/a.c", "xen/common/new.c"] {
        let patch = if path.ends_with("a.c") { one_line() } else { added(path, "int fresh;") };
        let problem = only(prepared(&format!("echo >> {path}"), patch));
        assert_eq!((problem.code.name, problem.place.file.as_deref()), ("prepared-file", Some(path)));
    }
}

fn two_runs_at_once_wait_for_each_other() {
    let lab = Lab::new();
    let patches = [one_line(), edit("xen/lib/l.c", "7", "8")];
    let results: Vec<_> = std::thread::scope(|scope| {
        let runs: Vec<_> = patches
            .iter()
            .map(|patch| {
                scope.spawn(|| lab.run(std::slice::from_ref(patch)).map(|built| paths(&built).join(" ")))
            })
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert_eq!(results, [Ok("xen/common/a.o".to_owned()), Ok("xen/lib/l.o".to_owned())]);
}

macro_rules! trials {
    ($($name:path),* $(,)?) => { vec![$(Trial::test(stringify!($name), || { $name(); Ok(()) })),*] };
}

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    if args.first().is_some_and(|name| xsplice_build::is_wrapper(name)) {
        return xsplice_build::wrapper_main(args);
    }
    let mut trials = trials![
        a_changed_line_gives_its_object_before_and_after,
        all_objects_of_the_original_are_known,
        a_header_reaches_all_that_read_it_and_one_source_may_give_several_objects,
        copies_archives_and_assembler_are_followed,
        a_second_patch_uses_the_kept_build_and_sees_nothing_of_the_first,
        a_cache_that_was_moved_is_built_anew,
        an_edit_of_the_tree_between_two_runs_is_noticed,
        whatever_a_killed_run_left_the_next_one_is_right,
        a_damaged_cache_is_noticed_and_made_anew,
        places_may_have_spaces_and_letters_of_any_kind,
        the_same_input_gives_the_same_bytes_wherever_it_is_built,
        only_the_owner_can_enter_and_a_read_only_tree_works,
        a_new_file_with_its_line_in_the_makefile_works,
        a_new_header_that_is_found_before_another_is_noticed,
        folders_that_the_user_has_keep_their_modes,
        a_build_file_that_alters_other_objects_is_refused,
        a_linker_script_is_refused,
        a_failing_compile_shows_the_compilers_words,
        code_that_only_moves_is_the_same,
        what_does_not_compile_with_its_old_numbers_falls_back,
        the_compilers_words_are_about_the_patch_as_it_is,
        an_unfit_configuration_is_named_before_anything_is_built,
        what_cannot_reach_the_hypervisor_is_not_built,
        a_missing_program_and_a_wrong_tree_say_what_to_do,
        a_build_without_symbols_stops_at_the_link,
        what_fails_after_the_symbol_file_is_nobodys_business,
        a_variable_for_make_reaches_the_compiler_and_has_its_own_base,
        what_the_shipped_hypervisor_says_about_itself_is_taken_over,
        tools_by_other_names_are_used_and_told_apart,
        a_private_copy_is_prepared_once_and_before_it_is_configured,
        two_runs_at_once_wait_for_each_other,
        commands::a_source_is_compiled_once_and_by_its_command,
        commands::a_header_that_changes_no_program_compiles_nothing,
        commands::only_readers_whose_text_differs_are_compiled,
        commands::what_the_build_makes_from_a_header_is_for_make,
        commands::a_text_that_cannot_be_made_any_more_is_no_success,
        commands::what_the_assembler_reads_by_itself_counts,
        commands::what_the_assembler_reads_of_what_the_build_makes_counts,
        commands::added_files_and_generators_are_for_make,
        commands::a_global_name_that_is_there_already_is_named,
        commands::a_command_that_gives_something_else_outside_make_is_not_used,
        commands::a_kept_build_that_was_moved_is_made_anew,
        commands::both_ways_give_the_same_objects,
        needed::only_the_touched_source_is_compiled,
        needed::the_next_patch_adds_what_it_needs,
        needed::a_header_compiles_readers_whose_text_differs,
        needed::what_the_assembler_reads_is_compiled_too,
        needed::what_is_for_make_has_the_whole_original,
        needed::a_tree_that_does_not_link_empty_objects_is_built_as_a_whole,
        needed::other_users_of_a_name_are_compiled_when_asked_for,
        needed::what_fails_for_the_originals_own_sake_says_so,
        needed::records_and_objects_of_different_runs_are_not_used,
        needed::who_reads_what_should_reach_nobody_is_found,
        styles::the_old_style_needs_flags,
        styles::the_middle_style_needs_flags,
        styles::the_new_style_has_them,
        styles::an_unknown_style_ends_in_the_clear_error,
        launchers::a_launcher_gets_the_compiler_and_changes_nothing,
        launchers::what_a_launcher_cannot_do_the_compiler_does,
        launchers::warnings_of_preprocessed_text_are_checked_here,
        launchers::another_compilers_work_is_not_taken,
        launchers::what_the_assembler_reads_is_never_stale,
        launchers::a_launcher_that_is_not_there_says_what_to_do,
    ];
    let ccache = "launchers::ccache_is_used_and_gives_the_same";
    trials.push(Trial::ignorable_test(ccache, launchers::ccache_is_used_and_gives_the_same));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
