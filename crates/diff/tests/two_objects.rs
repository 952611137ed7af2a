//! Changes that only two pairs of objects together show.
#![allow(clippy::allow_attributes, dead_code, reason = "the toolchain is shared with the fixtures' tests")]

#[path = "support/toolchain.rs"]
mod toolchain;

use toolchain::Toolchain;
use xsplice_diff::{Compared, Correlated, Input, ObjectPair, Parts, Selection, World, codes};
use xsplice_objects::Hypervisor;

/// With `-DFIRST` one source, else the other; `moved` goes from the first to the second.
const TEXT: &str = r#"
#pragma GCC visibility push(hidden)
int kept = 3;
#if defined(FIRST) != defined(PATCHED)
int moved(int a) { return a * kept; }
#else
int moved(int a);
#endif
#ifdef FIRST
int first(int a) { return moved(a) + 1; }
#else
int second(int a) { return moved(a) + 2; }
#endif
"#;

#[test]
fn a_function_that_moves_to_another_source_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let common = folder.path().join("common");
    std::fs::create_dir(&common).expect("a folder");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/common/hypervisor.ld");
    std::fs::copy(script, common.join("hypervisor.ld")).expect("a copy");
    let source = folder.path().join("own.c");
    std::fs::write(&source, TEXT).expect("a source");
    let tools = Toolchain::new(&source, &[]);
    let compile =
        |flags: &[&str]| tools.compile(&[flags, &["-frandom-seed=1"]].concat()).expect("it compiles");
    let own = ["-Dkept=kept_first"];
    let pairs: Vec<ObjectPair> = [("first", &["-DFIRST", own[0]][..]), ("second", &[][..])]
        .into_iter()
        .map(|(name, flags)| {
            let (base, patched) = (compile(flags), compile(&[flags, &["-DPATCHED"]].concat()));
            let path = format!("xen/common/{name}.o");
            let source = format!("xen/common/{name}.c");
            ObjectPair::parse(Input {
                path: &path,
                source: &source,
                assembler: false,
                base: Some(&base),
                patched: Some(&patched),
            })
            .expect("objects")
        })
        .collect();
    let parts: Vec<Parts<'_>> = pairs.iter().map(|pair| Parts::of(pair).expect("parts")).collect();
    let compared: Vec<Compared<'_>> = parts.iter().map(|parts| Compared::of(Correlated::of(parts))).collect();
    let image = tools.link(&[&compile(&["-DFIRST", own[0]]), &compile(&[])]).expect("it links");
    let hypervisor = Hypervisor::parse("xen-syms", &image).expect("a hypervisor");
    let loader = xsplice_diff::Loader::default();
    let world = World::bare(&hypervisor, &loader);
    let problems = Selection::of(&compared, &world).problems;
    let moved: Vec<_> = problems.0.iter().filter(|problem| problem.code == codes::MOVED).collect();
    assert_eq!(moved.len(), 1, "{problems:?}");
    assert_eq!(moved[0].what, "moved moved from xen/common/first.o to xen/common/second.o");
}
