//! Failures of the field that take more than one source before and after: files that come and go, symbols that
//! assemblers leave out, and code in another order. docs/failures.md lists them.
#![allow(clippy::allow_attributes, dead_code, reason = "the toolchain is shared with the fixtures' tests")]

#[path = "support/desk.rs"]
mod desk;
#[path = "support/toolchain.rs"]
mod toolchain;

use std::collections::BTreeSet;

use desk::Desk;
use goblin::elf::Elf;
use goblin::elf::sym::{STT_FILE, STT_SECTION};
use proptest::prelude::*;
use xsplice_diff::{
    Compared, Correlated, Input, Loader, ObjectPair, Parts, Patchable, Selection, Verdict, World, codes,
};
use xsplice_objects::{HookKind, Hypervisor};
use xsplice_report::{Kind, Problems};

impl Desk {
    /// Links a hypervisor with the others.
    fn link(&self, objects: &[&[u8]]) -> Hypervisor {
        Hypervisor::parse("xen-syms", &self.image(objects)).expect("a hypervisor")
    }
}

fn pair(source: &str, base: Option<&[u8]>, patched: Option<&[u8]>) -> ObjectPair {
    let stem = source.split('.').next().expect("a stem");
    ObjectPair::parse(Input {
        path: &format!("xen/common/{stem}.o"),
        source: &format!("xen/common/{source}"),
        assembler: source.ends_with(".S"),
        base,
        patched,
    })
    .expect("objects")
}

/// What is selected, or what stands in the way.
fn select(pairs: &[ObjectPair], hypervisor: &Hypervisor) -> Result<Patchable, Problems> {
    with_selection(pairs, hypervisor, |_| {})
}

/// As [`select`], with a look at the selection before it is checked.
fn with_selection(
    pairs: &[ObjectPair],
    hypervisor: &Hypervisor,
    look: impl Fn(&Selection),
) -> Result<Patchable, Problems> {
    let parts: Vec<Parts<'_>> = pairs.iter().map(|pair| Parts::of(pair).expect("parts")).collect();
    let compared = Compared::all(parts.iter().map(Correlated::of).collect());
    let loader = Loader {
        hooks: HookKind::ALL.into_iter().collect(),
        needs_functions: false,
        tables_from_upload: true,
    };
    let world = World::bare(hypervisor, &loader);
    let selection = Selection::of(&compared, &world);
    look(&selection);
    Patchable::check(selection, &parts, &world)
}

fn replaced(selection: &Selection) -> Vec<&str> {
    selection.replaced.iter().map(|replaced| replaced.name.as_str()).collect()
}

fn labels(selection: &Selection) -> BTreeSet<&str> {
    selection.pieces.iter().map(|piece| piece.label.as_str()).collect()
}

const CALLER: &str = r#"
#include "hv.h"
int fresh(int a);
int caller(int a)
{
#ifdef PATCHED
    a = fresh(a);
#endif
    return handle(a);
}
"#;
const FRESH: &str = "#include \"hv.h\"\nint fresh(int a) { return handle(a) ^ 21; }\n";

#[test]
fn a_new_object_file_comes_along() {
    let desk = Desk::new();
    let (before, after) = (desk.compile("own.c", CALLER, &[]), desk.compile("own.c", CALLER, &["-DPATCHED"]));
    let fresh = desk.compile("fresh.c", FRESH, &[]);
    let pairs = [pair("fresh.c", None, Some(&fresh)), pair("own.c", Some(&before), Some(&after))];
    let patchable = select(&pairs, &desk.link(&[&before])).expect("a payload");
    assert_eq!(replaced(patchable.selection()), ["caller"]);
    assert_eq!(labels(patchable.selection()), BTreeSet::from(["caller", "fresh"]));
}

#[test]
fn a_removed_source_file_is_fine() {
    let desk = Desk::new();
    let (before, after) = (desk.compile("own.c", CALLER, &["-DPATCHED"]), desk.compile("own.c", CALLER, &[]));
    let fresh = desk.compile("fresh.c", FRESH, &[]);
    let pairs = [pair("fresh.c", Some(&fresh), None), pair("own.c", Some(&before), Some(&after))];
    let patchable = select(&pairs, &desk.link(&[&before, &fresh])).expect("a payload");
    let selection = patchable.selection();
    assert_eq!(replaced(selection), ["caller"]);
    assert_eq!(labels(selection), BTreeSet::from(["caller"]));
    assert_eq!(selection.removed, [("xen/common/fresh.o".to_owned(), "fresh".to_owned())]);
}

const MACHINE_CHECK: &str = r#"
#include "hv.h"
int noinline log_out(int a)
{
#ifdef PATCHED
    a += 3;
#endif
    return handle(a);
}
int mcheck_cmn_handler(int a) { return log_out(a) + 1; }
"#;

/// What machine checks are about is refused; what they only use is warned of (`host_machine_check.c`).
#[test]
fn what_a_machine_check_calls_is_not_replaced() {
    let desk = Desk::new();
    let (before, after) =
        (desk.compile("mce.c", MACHINE_CHECK, &[]), desk.compile("mce.c", MACHINE_CHECK, &["-DPATCHED"]));
    let input = Input {
        path: "xen/arch/x86/cpu/mcheck/mce.o",
        source: "xen/arch/x86/cpu/mcheck/mce.c",
        assembler: false,
        base: Some(&before),
        patched: Some(&after),
    };
    let pairs = [ObjectPair::parse(input).expect("objects")];
    let problems = select(&pairs, &desk.link(&[&before])).expect_err("a refusal");
    let told: Vec<(&str, &str)> = problems.0.iter().map(|d| (d.code.name, d.what.as_str())).collect();
    assert_eq!(told, [("crash-at-apply", "log_out is to be replaced, and is called by mcheck_cmn_handler")]);
}

/// Names of all sections.
fn sections(object: &[u8]) -> BTreeSet<String> {
    let elf = Elf::parse(object).expect("an object");
    let name = |index: usize| elf.shdr_strtab.get_at(index).unwrap_or("").to_owned();
    elf.section_headers.iter().map(|section| name(section.sh_name)).collect()
}

/// Names of sections that have a section symbol.
fn with_section_symbols(object: &[u8]) -> BTreeSet<String> {
    let elf = Elf::parse(object).expect("an object");
    let sections = elf.syms.iter().filter(|symbol| symbol.st_type() == STT_SECTION);
    let name =
        |index: usize| elf.shdr_strtab.get_at(elf.section_headers[index].sh_name).unwrap_or("").to_owned();
    sections.map(|symbol| name(symbol.st_shndx)).collect()
}

/// A pair of objects with hooks and entries of special sections, for which assemblers make no section symbols:
/// binutils from 2.36 on leave out those that no relocation uses.
const WITHOUT_SECTION_SYMBOLS: &str = r#"
#include "hv.h"
#ifdef PATCHED
void loaded(void) { ticks = 5; }
void unloaded(void) { ticks = 6; }
asm (".pushsection .livepatch.hooks.load, \"aw\", @progbits\n.quad loaded\n.popsection\n"
     ".pushsection .livepatch.hooks.unload, \"aw\", @progbits\n.quad unloaded\n.popsection");
#endif
int get(int a)
{
#ifdef PATCHED
    a ^= 12;
#endif
    return handle(a);
}
"#;

fn hooks(selection: &Selection) -> Vec<&str> {
    selection.hooks.iter().map(|hook| hook.function.as_str()).collect()
}

#[test]
fn kpatch_1193_section_symbols_left_out() {
    let desk = Desk::new();
    let before = desk.compile("own.c", WITHOUT_SECTION_SYMBOLS, &[]);
    let after = desk.compile("own.c", WITHOUT_SECTION_SYMBOLS, &["-DPATCHED"]);
    // Debug information refers to sections of code by their symbols; nothing refers to the hooks' ones.
    let symbols = with_section_symbols(&after);
    for section in [".livepatch.hooks.load", ".livepatch.hooks.unload"] {
        assert!(sections(&after).contains(section), "the test's premise: there is {section}");
        assert!(!symbols.contains(section), "the test's premise: {symbols:?}");
    }
    let pairs = [pair("own.c", Some(&before), Some(&after))];
    let patchable = select(&pairs, &desk.link(&[&before])).expect("a payload");
    let selection = patchable.selection();
    assert_eq!((replaced(selection), hooks(selection)), (vec!["get"], vec!["loaded", "unloaded"]));
}

/// Without debug information no section at all has a symbol. The pair cannot become a payload, but everything else
/// is found.
#[test]
fn no_section_symbol_at_all() {
    let desk = Desk::new();
    let before = desk.compile("own.c", WITHOUT_SECTION_SYMBOLS, &["-g0"]);
    let after = desk.compile("own.c", WITHOUT_SECTION_SYMBOLS, &["-DPATCHED", "-g0"]);
    for object in [&before, &after] {
        assert_eq!(with_section_symbols(object), BTreeSet::new(), "the test's premise");
    }
    let pairs = [pair("own.c", Some(&before), Some(&after))];
    let hypervisor = desk.link(&[&before]);
    let found = with_selection(&pairs, &hypervisor, |selection| {
        assert_eq!((replaced(selection), hooks(selection)), (vec!["get"], vec!["loaded", "unloaded"]));
    });
    let problems = found.expect_err("no debug information");
    assert_eq!(problems.0.iter().map(|problem| problem.code).collect::<Vec<_>>(), [codes::NO_DEBUG_INFO]);
}

/// The compilers' strings of a hypervisor decide nothing, but the reader is told where they differ.
#[test]
fn another_compiler_is_warned_of() {
    const TEXT: &str = r#"
#include "hv.h"
int get(int a)
{
#ifdef PATCHED
    a ^= 12;
#endif
    return handle(a);
}
"#;
    let desk = Desk::new();
    let (before, after) = (desk.compile("own.c", TEXT, &[]), desk.compile("own.c", TEXT, &["-DPATCHED"]));
    let silent = (
        desk.compile("own.c", TEXT, &["-fno-ident"]),
        desk.compile("own.c", TEXT, &["-DPATCHED", "-fno-ident"]),
    );
    let image = desk.image(&[&before]);
    let ours = Hypervisor::parse("xen-syms", &image).expect("a hypervisor").compilers().clone();
    assert!(
        ours.len() == 1 && ours.iter().all(|one| one.starts_with("GCC: ")),
        "the test's premise: {ours:?}"
    );
    let found = |image: &[u8], before: &[u8], after: &[u8]| {
        let pairs = [pair("own.c", Some(before), Some(after))];
        let hypervisor = Hypervisor::parse("xen-syms", image).expect("a hypervisor");
        select(&pairs, &hypervisor).expect("a payload").warnings().0.clone()
    };
    assert_eq!(found(&image, &before, &after), []);
    let other = replace(&image, b"GCC: ", b"XCC: ");
    let [warning] = &found(&other, &before, &after)[..] else { panic!("one warning") };
    assert_eq!((warning.code, warning.kind), (codes::OTHER_COMPILER, Kind::Warning));
    let shipped = ours.iter().map(|one| one.replace("GCC: ", "XCC: ")).collect::<String>();
    for named in ours.iter().chain([&shipped]) {
        assert!(warning.what.contains(named.as_str()), "{}", warning.what);
    }
    assert!(warning.advice.contains("--cc"), "{}", warning.advice);
    // One that says nothing cannot differ.
    assert_eq!(found(&other, &silent.0, &silent.1), []);
    let none = replace(&image, b".comment", b".cOmment");
    assert_eq!(found(&none, &before, &after), []);
}

/// Puts bytes in the place of others wherever these are.
fn replace(image: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut image = image.to_vec();
    let places: Vec<usize> =
        (0..image.len() - from.len()).filter(|&at| image[at..].starts_with(from)).collect();
    assert!(!places.is_empty(), "nothing to replace");
    for at in places {
        image[at..at + to.len()].copy_from_slice(to);
    }
    image
}

#[test]
fn lbt_assembler_without_file_symbol() {
    const TEXT: &str = r#"
        .section .text.first, "ax", @progbits
        .globl first
        .type first, @function
first:
#ifdef PATCHED
        inc %rdi
#endif
        lea 3(%rdi), %rax
        ret
        .size first, . - first
"#;
    let desk = Desk::new();
    let compile = |flags: &[&str]| desk.compile("entry.S", TEXT, &[flags, &["-g0"]].concat());
    let (before, after) = (compile(&[]), compile(&["-DPATCHED"]));
    let files =
        Elf::parse(&before).expect("an object").syms.iter().filter(|s| s.st_type() == STT_FILE).count();
    assert_eq!(files, 0, "the test's premise: the assembler adds no FILE symbol");
    let patchable =
        select(&[pair("entry.S", Some(&before), Some(&after))], &desk.link(&[&before])).expect("a payload");
    assert_eq!(replaced(patchable.selection()), ["first"]);
}

/// Without a FILE symbol, the linker chooses what file's name an assembler object's local names get: that they are not
/// found proves nothing about which hypervisor it is. A global's name does.
#[test]
fn local_names_of_assembler_prove_nothing() {
    const TEXT: &str = r#"
        .section .text.header, "ax", @progbits
        .type header, @object
header: .long 0x1badb002, 3
#ifdef PATCHED
        .long 7
#endif
        .size header, . - header
        .type inside, @function
inside: ret
        .size inside, . - inside
        .globl entry
        .type entry, @function
entry:  ret
        .size entry, . - entry
"#;
    let desk = Desk::new();
    let compile = |flags: &[&str]| desk.compile("head.S", TEXT, &[flags, &["-g0"]].concat());
    let (before, after) = (compile(&[]), compile(&["-DPATCHED"]));
    let in_front = desk.compile("own.c", CALLER, &["-DPATCHED"]);
    let fresh = desk.compile("fresh.c", FRESH, &[]);
    let found = |hypervisor: &Hypervisor| -> Vec<&str> {
        let problems =
            select(&[pair("head.S", Some(&before), Some(&after))], hypervisor).expect_err("a refusal");
        problems.0.iter().map(|problem| problem.code.name).collect()
    };
    let hypervisor = desk.link(&[&in_front, &fresh, &before]);
    let named = |end: &str| hypervisor.symbols().iter().filter(|symbol| symbol.name.ends_with(end)).count();
    assert_eq!((named("#header"), hypervisor.named("header").count()), (1, 0), "the test's premise");
    assert_eq!(found(&hypervisor), ["assembler-changed"]);
    assert_eq!(found(&desk.link(&[&in_front, &fresh])), ["assembler-changed", "base-mismatch"]);
}

/// Functions of every sort that leaves something outside of its section.
const PARTS: &[&str] = &[
    "int first(int a) { static int count = 1; return count += handle(a); }",
    "int second(int a) { static int count = 2; return printk(\"%s\\n\", __func__) + ++count; }",
    "int third(int n) { switch (n) { case 0: return 7; case 1: return 4; case 2: return 9; case 3: return 2; \
     case 4: return 8; } return 0; }",
    "int fourth(int a) { if (unlikely(a > 9)) WARN(); return a; }",
    "u64 fifth(u64 *p) { asm volatile (ALTERNATIVE(\".byte 0x0f, 0x1f, 0x00\", \"lfence\", 12)); return *p; }",
    "int sixth(u64 *v, u64 *f) { return probe_read(v, f); }",
    "int seventh(int a) { if (a < 0) complain(\"unlikely %d\\n\", a); return a * 5; }",
    "int eighth(int a) { ASSERT(a < 64); return handle(a) + table[a & 1]; }",
];

fn in_order(order: &[usize]) -> String {
    // Lines are part of what bug frames mean: each part keeps its own.
    let parts = order.iter().map(|&part| format!("#line {} \"own.c\"\n{}\n", 100 + part, PARTS[part]));
    format!("#include \"hv.h\"\nstatic const int table[] = {{ 3, 5 }};\n{}", parts.collect::<String>())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_functions_is_no_difference(order in Just((0..PARTS.len()).collect::<Vec<_>>()).prop_shuffle()) {
        let desk = Desk::new();
        let flags = ["-fno-toplevel-reorder"];
        let usual: Vec<usize> = (0..PARTS.len()).collect();
        let before = desk.compile("own.c", &in_order(&usual), &flags);
        let after = desk.compile("own.c", &in_order(&order), &flags);
        let pair = pair("own.c", Some(&before), Some(&after));
        let parts = Parts::of(&pair).expect("parts");
        let compared = Compared::of(Correlated::of(&parts));
        prop_assert!(compared.problems.0.is_empty(), "{:?}", compared.problems);
        prop_assert_eq!(compared.functions.len(), PARTS.len());
        for (&id, verdict) in &compared.functions {
            prop_assert!(*verdict == Verdict::Same, "{}: {:?}", parts.patched.get(id).name, verdict);
        }
    }
}
