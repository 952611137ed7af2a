//! Originals of which only what a patch needs is compiled.

use std::collections::BTreeSet;

use xsplice_build::Way;

use super::*;

impl Lab {
    /// A run for a hypervisor whose symbols are known.
    fn run_needed(&self, patches: &[String]) -> Result<CapturedBuild, Problems> {
        let mut request = self.request(patches);
        request.want_symbols = false;
        run(request, &Silent)
    }
}

fn known(built: &CapturedBuild) -> Vec<&str> {
    built.base_objects.list().iter().map(|object| object.path.as_str()).collect()
}

fn bytes(built: &CapturedBuild) -> Vec<super::launchers::Pair> {
    let of = |object: &xsplice_build::CapturedObject| {
        (object.path.clone(), object.base.clone(), object.patched.clone())
    };
    built.objects.iter().map(of).collect()
}

pub(crate) fn only_the_touched_source_is_compiled() {
    let (needed, whole) = (Lab::new(), Lab::new());
    let built = needed.run_needed(&[one_line()]).unwrap();
    assert!(!built.original.whole && !built.original.kept);
    assert_eq!(known(&built), ["xen/common/a.o", "xen/common/check.o"]);
    assert_eq!(built.way, Way::Commands { compiled: 1, same_text: Vec::new() });
    assert!(built.objects[0].linked, "what is linked is known without linking");
    let other = whole.run(&[one_line()]).unwrap();
    assert!(other.original.whole);
    assert_eq!(other.original.because, "the hypervisor is to be linked, for its symbol file");
    assert_eq!(bytes(&built), bytes(&other));
    assert_eq!(built.funcs_layout, other.funcs_layout);
}

pub(crate) fn the_next_patch_adds_what_it_needs() {
    let (needed, whole) = (Lab::new(), Lab::new());
    needed.run_needed(&[one_line()]).unwrap();
    let patches = [
        edit("xen/common/i.c", "1, 2", "1, 3"),
        edit("xen/lib/l.c", "7", "8"),
        edit("xen/arch/x86/entry.S", "ret", "nop; ret"),
        edit("xen/common/multi.c", "s->b", "s->a"),
    ];
    for _ in 0..2 {
        let built = needed.run_needed(&patches).unwrap();
        assert!(built.original.kept && !built.original.whole);
        assert_eq!(bytes(&built), bytes(&whole.run(&patches).unwrap()));
        assert_eq!(built.objects.len(), 5);
        assert!(!known(&built).contains(&"xen/common/b.o"));
    }
    // Once made, an original is there for whoever comes next.
    let built = needed.run_needed(&[one_line()]).unwrap();
    assert!(known(&built).contains(&"xen/lib/l.o"));
}

pub(crate) fn a_header_compiles_readers_whose_text_differs() {
    let (needed, whole) = (Lab::new(), Lab::new());
    let one =
        [edit("xen/include/xen/s.h", "int b; };", "int b; };\n#if LEVEL == 2\nextern int two;\n#endif")];
    let built = needed.run_needed(&one).unwrap();
    let same_text = ["xen/common/a.o", "xen/common/multi_3.o"].map(str::to_owned).to_vec();
    assert_eq!(built.way, Way::Commands { compiled: 1, same_text });
    assert_eq!(known(&built), ["xen/common/check.o", "xen/common/multi_2.o"]);
    let all = [edit("xen/include/xen/s.h", "int a;", "unsigned a;")];
    let built = needed.run_needed(&all).unwrap();
    assert!(!built.original.whole);
    assert_eq!(bytes(&built), bytes(&whole.run(&all).unwrap()));
    assert_eq!(built.objects.len(), 3);
}

pub(crate) fn what_the_assembler_reads_is_compiled_too() {
    let (needed, whole) = (Lab::new(), Lab::new());
    let patch = [edit("xen/include/xen/thunk.h", "nop", "pause")];
    let built = needed.run_needed(&patch).unwrap();
    assert!(!built.original.whole);
    assert_eq!(paths(&built), ["xen/common/t.o"]);
    assert_eq!(bytes(&built), bytes(&whole.run(&patch).unwrap()));
}

pub(crate) fn what_is_for_make_has_the_whole_original() {
    let lab = Lab::new();
    // Known before anything is built.
    let built = lab.run_needed(&[added("xen/common/new.c", "int n;")]).unwrap();
    assert_eq!(built.original.because, "xen/common/new.c is new");
    assert!(built.original.whole && matches!(built.way, Way::Make { .. }));
    // Known when texts that the build makes come out different.
    let lab = Lab::new();
    let built = lab.run_needed(&[edit("xen/include/xen/s.h", "int a;", "long a;")]).unwrap();
    assert_eq!(built.original.because, "xen/common/offsets.s is made anew and comes out different");
    assert_eq!(
        paths(&built),
        ["xen/arch/x86/entry.o", "xen/common/a.o", "xen/common/multi_2.o", "xen/common/multi_3.o"]
    );
    // What is whole is used as it is.
    let built = lab.run_needed(&[one_line()]).unwrap();
    assert!(built.original.kept && built.original.whole);
}

pub(crate) fn a_tree_that_does_not_link_empty_objects_is_built_as_a_whole() {
    let lab = Lab::new();
    let makefile = lab.root.join("tree/xen/Makefile");
    let text = fs::read_to_string(&makefile).unwrap();
    let edited = text.replace(
        "\t$(LD) -e 0 -N prelink.o -o .xen",
        "\tnm prelink.o | grep -w entry\n\t$(LD) -e 0 -N prelink.o -o .xen",
    );
    assert_ne!(text, edited);
    put(&makefile, &edited);
    let built = lab.run_needed(&[one_line()]).unwrap();
    assert_eq!(built.original.because, "make does not come to its end where empty objects stand in");
    assert_eq!(paths(&built), ["xen/common/a.o"]);
}

pub(crate) fn other_users_of_a_name_are_compiled_when_asked_for() {
    let lab = Lab::new();
    let built = lab.run_needed(&[one_line()]).unwrap();
    let names = BTreeSet::from(["register_virtual_region".to_owned()]);
    let users = built.users_of(&names, &Silent).unwrap();
    let paths: Vec<&str> = users.list().iter().map(|object| object.path.as_str()).collect();
    assert_eq!(paths, ["xen/common/a.o", "xen/common/check.o", "xen/common/livepatch.o"]);
    assert!(users.read("xen/common/livepatch.o").unwrap().windows(4).any(|four| four == b"\x7fELF"));
    // In a file that only the assembler reads.
    let users = built.users_of(&BTreeSet::from(["THUNK".to_owned()]), &Silent).unwrap();
    assert!(users.list().iter().any(|object| object.path == "xen/common/t.o"));
}

pub(crate) fn what_fails_for_the_originals_own_sake_says_so() {
    let lab = Lab::new();
    put(&lab.root.join("tree/xen/common/b.c"), "#error broken\n");
    // Nobody needs it here.
    assert_eq!(paths(&lab.run_needed(&[one_line()]).unwrap()), ["xen/common/a.o"]);
    put(
        &lab.root.join("tree/xen/common/a.c"),
        &FILES.iter().find(|file| file.0 == "common/a.c").unwrap().1.replace("s->a", "s->gone"),
    );
    let patch = one_line().replace("s->a", "s->gone");
    let problem = only(lab.run_needed(&[patch]));
    assert_eq!(problem.code.name, "compile-failed");
}

pub(crate) fn records_and_objects_of_different_runs_are_not_used() {
    let lab = Lab::new();
    lab.run_needed(&[one_line()]).unwrap();
    let folder = lab.base();
    let state = fs::read(folder.join("state.json")).unwrap();
    let patch = [edit("xen/lib/l.c", "7", "8")];
    let wanted = bytes(&lab.run_needed(&patch).unwrap());
    assert!(wanted[0].1.is_some());
    // As if the second run had been killed, or the disk been full, before it could tell of the objects that it made.
    fs::write(folder.join("state.json"), &state).unwrap();
    let built = lab.run_needed(&patch).unwrap();
    assert!(!built.original.kept);
    assert_eq!(bytes(&built), wanted);
}

pub(crate) fn who_reads_what_should_reach_nobody_is_found() {
    let lab = Lab::new();
    let test = "xen/arch/arm/t.h";
    fs::create_dir_all(lab.root.join("tree/xen/arch/arm")).unwrap();
    put(&lab.root.join("tree").join(test), "#define SEVEN 7\n");
    put(&lab.root.join("tree/xen/lib/l.c"), "#include \"../arch/arm/t.h\"\nint l(void) { return SEVEN; }\n");
    let change = format!("--- a/{test}\n+++ b/{test}\n@@ -1 +1 @@\n-#define SEVEN 7\n+#define SEVEN 8\n");
    let built = lab.run_needed(&[one_line(), change]).unwrap();
    assert_eq!(paths(&built), ["xen/common/a.o", "xen/lib/l.o"]);
}
