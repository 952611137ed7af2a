//! What changes meaning without changing code, where it takes more than a fixture says: symbol files without code,
//! pairs of objects alone, and refusals that are let through.
#![allow(clippy::allow_attributes, dead_code, reason = "the toolchain is shared with the fixtures' tests")]

#[path = "support/desk.rs"]
mod desk;
#[path = "support/toolchain.rs"]
mod toolchain;

use std::process::Command;

use desk::Desk;
use xsplice_diff::{
    Compared, Correlated, Input, Loader, ObjectPair, Parts, Patchable, Selection, World, codes,
};
use xsplice_objects::{HookKind, Hypervisor};
use xsplice_report::{Allowance, Code, Problems};

/// A source before and after, and the hypervisor that is linked from it.
struct Case {
    desk: Desk,
    before: Vec<u8>,
    after: Vec<u8>,
    image: Vec<u8>,
}

impl Case {
    /// `others` is another object of the hypervisor, which the patch leaves alone.
    fn new(text: &str, others: &str) -> Case {
        let desk = Desk::new();
        let (before, after) = (desk.compile("own.c", text, &[]), desk.compile("own.c", text, &["-DPATCHED"]));
        let image = desk.image(&[&before, &desk.compile("far.c", others, &[])]);
        Case { desk, before, after, image }
    }

    /// Takes the code out of the symbol file.
    fn without_code(mut self) -> Case {
        let file = self.desk.0.path().join("image");
        std::fs::write(&file, &self.image).expect("a file");
        let status = Command::new("objcopy").arg("--only-keep-debug").arg(&file).status();
        assert!(status.is_ok_and(|status| status.success()), "objcopy");
        self.image = std::fs::read(&file).expect("a file");
        self
    }

    /// What stands in the way or is warned of, each as code and text with its reason.
    fn problems(&self, whole: bool, allowed: &[Allowance]) -> Vec<(&'static str, String)> {
        let input = Input {
            path: "xen/common/own.o",
            source: "xen/common/own.c",
            assembler: false,
            base: Some(&self.before),
            patched: Some(&self.after),
        };
        let pair = ObjectPair::parse(input).expect("objects");
        let parts = [Parts::of(&pair).expect("parts")];
        let compared = Compared::all(parts.iter().map(Correlated::of).collect());
        let hypervisor = Hypervisor::parse("xen-syms", &self.image).expect("a hypervisor");
        let loader = Loader {
            hooks: HookKind::ALL.into_iter().collect(),
            needs_functions: false,
            tables_from_upload: true,
        };
        let world = World { allowed, whole, ..World::bare(&hypervisor, &loader) };
        let told = |problems: &Problems| {
            problems.0.iter().map(|d| (d.code.name, format!("{} {}", d.what, d.why))).collect()
        };
        match Patchable::check(Selection::of(&compared, &world), &parts, &world) {
            Ok(patchable) => told(patchable.warnings()),
            Err(problems) => told(&problems),
        }
    }

    /// The texts of one code.
    fn of(&self, code: Code, whole: bool) -> Vec<String> {
        let all = self.problems(whole, &[]).into_iter();
        all.filter(|(name, _)| *name == code.name).map(|(_, text)| text).collect()
    }
}

const FEWER: &str = r#"
#include "hv.h"
#ifdef PATCHED
int get(int a) { return handle(a) + 1; }
#else
int get(int a, int b) { return handle(a) + b; }
#endif
"#;

#[test]
fn a_parameter_less_matters_only_where_callers_are_not_seen() {
    let far = "int get(int a, int b);\nint far(int a) { return get(a, 3); }\n";
    let case = Case::new(FEWER, far);
    assert!(case.of(codes::PROTOTYPE_CHANGED, true).is_empty(), "{:?}", case.problems(true, &[]));
    let [told] = &case.of(codes::PROTOTYPE_CHANGED, false)[..] else { panic!("one refusal") };
    assert!(told.starts_with("int get(int, int) is to be replaced by int get(int) far calls it"), "{told}");
}

const WIDER: &str = r#"
#include "hv.h"
#ifdef PATCHED
# define TYPE long
#else
# define TYPE int
#endif
int get(TYPE a) { return handle(a >> 2); }
static int noinline local(TYPE a) { return handle(a >> 3); }
int (*held)(int) = (int (*)(int))local;
int near(TYPE a) { return local(a) + handle(a >> 4); }
"#;

#[test]
fn without_code_the_objects_tell_who_holds_an_address() {
    let case = Case::new(WIDER, "int nothing;\n").without_code();
    let told = case.of(codes::PROTOTYPE_CHANGED, true);
    let [told] = &told[..] else { panic!("one refusal: {told:?}") };
    assert!(told.starts_with("int local(int) is to be replaced by int local(long) held holds"), "{told}");
    let told = case.of(codes::PROTOTYPE_CHANGED, false);
    assert!(told.iter().any(|told| told.contains("Other objects may call get")), "{told:?}");
    assert_eq!(told.len(), 3, "get, local and near: {told:?}");
}

#[test]
fn an_expert_lets_a_prototype_through() {
    let far = "int get(int a);\nint far(int a) { return get(a); }\n";
    let case = Case::new(WIDER, far);
    assert_eq!(case.of(codes::PROTOTYPE_CHANGED, true).len(), 2);
    let allow = [Allowance { code: codes::PROTOTYPE_CHANGED, name: None }];
    let told = case.problems(true, &allow);
    let let_through = |text: &str| text.contains("(let through by --allow prototype-changed)");
    assert!(told.iter().all(|(name, text)| *name != "prototype-changed" || let_through(text)), "{told:?}");
    assert_eq!(told.iter().filter(|(_, text)| let_through(text)).count(), 2, "{told:?}");
}
