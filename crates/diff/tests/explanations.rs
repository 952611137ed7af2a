//! What is said about the first difference of a function, and why each piece is in a payload.
//!
//! Each case is a fixture of `fixtures/`, or a source of its own here. Lines are looked up in the sources.
#![allow(clippy::allow_attributes, dead_code, reason = "the toolchain is shared with the fixtures' tests")]

#[path = "support/toolchain.rs"]
mod toolchain;

use std::path::{Path, PathBuf};

use toolchain::Toolchain;
use xsplice_diff::{
    Changes, Compared, Correlated, How, Input, ObjectPair, Parts, Selection, ThroughOriginal, World,
};
use xsplice_objects::Hypervisor;
use xsplice_report::{Difference, DifferenceKind, Link};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// A fixture, or a source written next to the fixtures' headers.
enum Source {
    Fixture(&'static str),
    Text(&'static str),
}

/// What came of a source: its text, what differs, and what is selected for the hypervisor made from it.
struct Found {
    text: String,
    changes: Changes,
    selection: Selection,
}

fn explain(source: &Source, flags: &[&str]) -> Found {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = match source {
        Source::Fixture(name) => fixtures().join(name),
        Source::Text(text) => {
            let path = folder.path().join("own.c");
            std::fs::create_dir(folder.path().join("common")).expect("a folder");
            for name in ["hv.h", "hypervisor.ld", "others.c"] {
                let from = fixtures().join("common").join(name);
                std::fs::copy(from, folder.path().join("common").join(name)).expect("a copy");
            }
            std::fs::write(&path, text).expect("a file");
            path
        }
    };
    let flags: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
    let tools = Toolchain::new(&path, &flags);
    let base = tools.compile(&["-frandom-seed=1"]).expect("the original compiles");
    let patched = tools.compile(&["-frandom-seed=1", "-DPATCHED"]).expect("the patched source compiles");
    let others = path.parent().expect("a folder").join("common/others.c");
    let others = tools.compile_as(&others, Path::new("others.c"), &[]).expect("others.c compiles");
    let image = tools.link(&[&base, &others]).expect("it links");
    let pair = ObjectPair::parse(Input {
        path: "xen/common/own.o",
        source: "xen/common/own.c",
        assembler: false,
        base: Some(&base),
        patched: Some(&patched),
    })
    .expect("objects");
    let parts = Parts::of(&pair).expect("parts");
    let compared = vec![Compared::of(Correlated::of(&parts))];
    let hypervisor = Hypervisor::parse("xen-syms", &image).expect("a hypervisor");
    let loader = xsplice_diff::Loader::default();
    let world = World::bare(&hypervisor, &loader);
    Found {
        text: std::fs::read_to_string(&path).expect("a source"),
        changes: Changes::of(&compared),
        selection: Selection::of(&compared, &world),
    }
}

impl Found {
    fn difference(&self, function: &str) -> &Difference {
        let found = self.changes.changed.iter().find(|changed| changed.name == function);
        &found.unwrap_or_else(|| panic!("{function} is not changed: {:?}", self.changes)).first_difference
    }

    /// The number of the line that holds a text, from 1; the `nth` of them, from 0.
    fn line(&self, text: &str, nth: usize) -> u32 {
        let lines = self.text.lines().enumerate().filter(|(_, line)| line.contains(text));
        let index = lines.map(|(index, _)| index).nth(nth).unwrap_or_else(|| panic!("no line with {text}"));
        u32::try_from(index).expect("a line number") + 1
    }

    /// `LABEL: REASONS` of every piece.
    fn reasons(&self) -> Vec<String> {
        self.selection.pieces.iter().map(|piece| format!("{}: {}", piece.label, piece.because)).collect()
    }
}

fn fixture(name: &'static str) -> Found {
    explain(&Source::Fixture(name), &[])
}

const LINES: &str = r#"
#include "hv.h"
int counts(void)
{
#ifdef PATCHED
    ticks += 1;
#endif
    return handle(3);
}
"#;

#[test]
fn the_first_differing_instruction_has_its_source_line_in_both_versions() {
    let found = explain(&Source::Text(LINES), &[]);
    let difference = found.difference("counts");
    assert_eq!(difference.kind, DifferenceKind::Code);
    let (before, after) = (difference.before.as_ref().unwrap(), difference.after.as_ref().unwrap());
    assert_eq!(before.to_string(), format!("own.c:{}: +0x0: mov $3,%edi", found.line("return handle(3)", 0)));
    assert_eq!(
        after.to_string(),
        format!("own.c:{}: +0x0: addq $1,ticks(%rip)", found.line("ticks += 1", 0))
    );
    assert_eq!(
        difference.what,
        format!("at +{:#x} `{}` became `{}`", before.offset, before.instruction, after.instruction)
    );
}

#[test]
fn references_are_rendered_by_name() {
    let first = |name, function| fixture(name).difference(function).what.clone();
    assert_eq!(
        first("string_prefix_changed.c", "user"),
        r#"at +0x2 `lea "<0>value %d\n"(%rip),%rdi` became `lea "<1>value %d\n"(%rip),%rdi`"#
    );
    assert_eq!(first("renamed_function.c", "caller"), "at +0x0 `call old_name` became `call new new_name`");
    assert_eq!(
        first("lbt_rodata_only.c", "lookup"),
        "uses table, which changed: byte 12 was 0x15 and is 0x16"
    );
    assert_eq!(
        first("wide_string.c", "show"),
        r#"at +0x0 `lea L"wide text"(%rip),%rdi` became `lea L"wide texu"(%rip),%rdi`"#
    );
}

const JUMP: &str = r#"
#include "hv.h"
int skips(int a, int b)
{
    if (a == 7) {
        a = handle(a);
        a = handle(a + b);
#ifdef PATCHED
        ticks += 11;
#endif
        a = handle(a ^ b);
    }
    return a;
}
"#;

#[test]
fn a_jump_over_the_change_is_not_the_first_difference() {
    let found = explain(&Source::Text(JUMP), &[]);
    let difference = found.difference("skips");
    let after = difference.after.as_ref().unwrap();
    assert!(after.instruction.contains("ticks") || after.instruction.contains("11"), "{difference}");
    assert!(!after.instruction.starts_with('j'), "{difference}");
}

const GOTO: &str = r#"
#include "hv.h"
#ifdef PATCHED
#define LABELS "mov $1, %%eax\n1: mov $2, %%eax"
#else
#define LABELS "1: mov $1, %%eax\nmov $2, %%eax"
#endif
void leads(int a)
{
    asm volatile ("cmp $3, %0\n\tje 1f\n\tnop\n" LABELS ::"r" (a) : "eax");
}
"#;

#[test]
fn a_jump_that_leads_elsewhere_is_the_difference() {
    // The same code, but for the label that the jump goes to.
    let found = explain(&Source::Text(GOTO), &[]);
    let difference = found.difference("leads");
    let sites =
        [&difference.before, &difference.after].map(|site| site.as_ref().unwrap().instruction.clone());
    assert!(sites.iter().all(|instruction| instruction.starts_with("je +0x")), "{difference}");
    assert_ne!(sites[0], sites[1]);
}

#[test]
fn special_section_entries_are_described_in_words() {
    let what = |name, function: &str| {
        let found = fixture(name);
        let difference = found.difference(function).clone();
        (found, difference)
    };
    let (found, line) = what("bug_frame_line_changed.c", "checked");
    let bug = found.line("BUG();", 0);
    assert_eq!(line.kind, DifferenceKind::BugFrame);
    // `#line 300` names the line behind it.
    let moved = 300 + bug - found.line("#line 300", 0) - 1;
    let moved =
        if found.text.contains("#endif\nint checked") { moved } else { panic!("the fixture changed") };
    assert_eq!(line.what, format!("the BUG at bug_frame_line_changed.c:{bug} is at line {moved} now"));

    let (_, feature) = what("lbt_alternative_feature_only.c", "fence");
    assert_eq!(feature.kind, DifferenceKind::Alternative);
    assert!(feature.what.starts_with("the alternative at +0x0 is selected by feature "), "{feature}");

    let (_, replacement) = what("alternatives_only.c", "fence");
    assert_eq!(
        replacement.what,
        "the alternative at +0x0: its replacement code differs: at +0x0 `mfence` became `lfence`"
    );

    let (_, fixup) = what("fixup_changed_only.c", "peek");
    assert_eq!(fixup.kind, DifferenceKind::ExceptionEntry);
    assert!(
        fixup.what.starts_with("the exception table entry for +0x2: its fixup code differs: at +0x0 `mov $")
    );

    let (_, gone) = what("exception_entry_gone.c", "peek");
    assert_eq!(gone.what, "the exception table entry for +0x2 is gone");
    assert!(gone.before.is_some() && gone.after.is_none());

    let (_, says) = what("lbt_bug_frame_second_half.c", "check");
    assert!(says.what.starts_with("the assertion \"a < 64\" at lbt_bug_frame_second_half.c:"), "{says}");
    assert!(says.what.ends_with(" says \"a < 0100\" now"), "{says}");
}

const FRAMES: &str = r#"
#include "hv.h"
/* The assembler must see the numbers behind these names. */
#define FRAME_OF(...) FRAME(__VA_ARGS__)
#define ALTERNATIVE_OF(...) ALTERNATIVE(__VA_ARGS__)
#ifdef PATCHED
#define KIND 2
#define CALLED handle
#define FEATURE 32773
#else
#define KIND 1
#define CALLED release
#define FEATURE 5
#endif
void kind(int a) { FRAME_OF(KIND, 77, "file.c", ""); }
void run(int a) { RUN(CALLED); }
void alt(int a) { asm volatile (ALTERNATIVE_OF("nop", "lfence", FEATURE)); }
#ifdef PATCHED
void none(int a) { asm volatile ("661: nop"); }
void more(int a) { asm volatile (ALTERNATIVE("nop", "lfence", 37)); }
void calls(void) { asm volatile ("call *hook(%%rip)" ::: "memory"); }
#else
void none(int a) { asm volatile (ALTERNATIVE("nop", "lfence", 37)); }
void more(int a) { asm volatile ("661: nop"); }
void calls(void) { ALTCALL(hook); }
#endif
"#;

#[test]
fn every_kind_of_entry_has_its_words() {
    let found = explain(&Source::Text(FRAMES), &[]);
    let cases = [
        ("kind", "the WARN at file.c:77 is a BUG now"),
        ("run", "the call of release in an exception handler at +0x0 calls handle now"),
        (
            "alt",
            "the alternative at +0x0 is selected by the absence of feature 0*32+5 instead of feature 0*32+5",
        ),
        ("none", "the alternative at +0x0, selected by feature 1*32+5, is gone"),
        ("more", "the alternative at +0x0, selected by feature 1*32+5, is new"),
        ("calls", "the altcall at +0x0 is gone"),
    ];
    for (function, words) in cases {
        assert_eq!(found.difference(function).what, words, "{function}");
    }
}

#[test]
fn code_put_aside_is_described_by_what_differs_in_it() {
    let found = fixture("aside_code_changed.c");
    let difference = found.difference("first");
    assert!(difference.what.contains("bytes of code`: in the code there, at +0x"), "{difference}");
}

const LONG: &str = r#"
#include "hv.h"
#define SAME "a message that is far longer than what is shown of one, since it goes on and on and on, "
void tells(void)
{
#ifdef PATCHED
    printk(SAME "and ends in b");
#else
    printk(SAME "and ends in a");
#endif
}
"#;

#[test]
fn long_strings_are_shown_where_they_differ() {
    let found = explain(&Source::Text(LONG), &[]);
    let what = &found.difference("tells").what;
    assert!(what.contains("its string was ...\"") && what.contains("and ends in a\" and is ...\""), "{what}");
    assert!(what.ends_with("and ends in b\""), "{what}");
}

const CHAIN: &str = r#"
#include "hv.h"
#ifdef PATCHED
static noinline int inner(int a)
{
    printk("inner %d\n", a);
    return handle(a);
}
static noinline int outer(int a)
{
    WARN();
    return inner(a) + inner(a + 1);
}
#endif
int changed(int a)
{
#ifdef PATCHED
    a = outer(a);
#endif
    return handle(a) + 1;
}
int again(int a)
{
#ifdef PATCHED
    hook = changed;
#endif
    return changed(a) * 3;
}
int other(int a) { return changed(a); }
"#;

#[test]
fn every_piece_has_a_chain_that_ends_at_a_changed_function() {
    let found = explain(&Source::Text(CHAIN), &["-fno-inline", "-fno-ipa-sra", "-fno-ipa-cp"]);
    for piece in &found.selection.pieces {
        assert!(piece.because.is_complete(), "{}: {}", piece.label, piece.because);
        let ends = matches!(piece.because.links().last(), Some(Link::Changed { .. }));
        assert!(ends, "{}: {}", piece.label, piece.because);
    }
    let change = &found.difference("changed").what;
    let warn = found.line("WARN();", 0);
    let wanted = [
        format!("changed: changed: {change}"),
        format!("outer: needed by changed, which changed: {change}"),
        format!("inner: needed by outer, which is needed by changed, which changed: {change}"),
        format!(
            "string \"inner %d\\n\": needed by inner, which is needed by outer, which is needed by changed, which changed: {change}"
        ),
        format!(
            "the WARN at own.c:{warn}: describes code of outer, which is needed by changed, which changed: {change}"
        ),
        format!(
            "string \"own.c\": needed by the WARN at own.c:{warn}, which describes code of outer, which is needed by changed, which changed: {change}"
        ),
    ];
    let reasons = found.reasons();
    for line in &wanted {
        assert!(reasons.contains(line), "{line}\nis not among\n{}", reasons.join("\n"));
    }
}

#[test]
fn references_to_replaced_functions_are_listed() {
    let found = explain(&Source::Text(CHAIN), &["-fno-inline", "-fno-ipa-sra", "-fno-ipa-cp"]);
    let through = |how| ThroughOriginal {
        function: "changed".into(),
        by: "again".into(),
        how,
        object: "xen/common/own.o".into(),
    };
    assert_eq!(found.selection.through_original, [through(How::Call), through(How::Address)]);
    let found = fixture("revert_leaves_no_pointer.c");
    assert!(found.selection.through_original.iter().any(|through| through.how == How::Address));
    // Nothing of the kind in a change of one function that nobody else included uses.
    assert_eq!(fixture("changed_static.c").selection.through_original, []);
}

#[test]
fn fixup_and_replacement_code_name_the_entry_that_needs_them() {
    let reasons = fixture("exception_fixup.c").reasons();
    let fixup = reasons.iter().find(|line| line.starts_with("fixup code at .fixup+")).expect("fixup code");
    assert!(fixup.contains(": needed by the exception table entry for +0x"), "{fixup}");
    assert!(fixup.contains(", which describes code of peek, which changed: "), "{fixup}");
    let reasons = fixture("alternatives_only.c").reasons();
    let code =
        reasons.iter().find(|line| line.starts_with("replacement code at ")).expect("replacement code");
    assert!(
        code.contains(": needed by the alternative at +0x0, which describes code of fence, which changed: ")
    );
}

/// A 32-bit absolute reference is refused, so that the string's piece is referred to by nothing.
const REFUSED: &str = r#"
#include "hv.h"
#ifdef PATCHED
static const char *const names[] = { "one", "two" };
#endif
int changed(int a)
{
#ifdef PATCHED
    asm volatile ("movq $%c0, %%rax" :: "i" (names) : "rax");
#endif
    return handle(a) + 1;
}
"#;

#[test]
fn chains_are_whole_even_where_a_reference_is_refused() {
    let found = explain(&Source::Text(REFUSED), &["-fno-pic"]);
    assert!(!found.selection.problems.is_harmless(), "the reference is refused");
    let names = found.selection.pieces.iter().find(|piece| piece.label == "names").expect("the table");
    assert!(names.because.is_complete(), "{}", names.because);
    for piece in &found.selection.pieces {
        assert!(piece.because.is_complete(), "{}: {}", piece.label, piece.because);
    }
}
