//! `xsplice diff` on small objects that gcc makes here: what it prints, and every exit code and error.

mod desk;

use std::fs;
use std::path::Path;
use std::process::Command;

use desk::{Desk, must};

const CODE: &str = r#"
#include "hv.h"
#ifdef PATCHED
static noinline int added(int a)
{
    WARN();
    return handle(a) + 2;
}
#endif
int changed(int a)
{
#ifdef PATCHED
    printk("now with %d\n", a);
    a = added(a);
#endif
    return handle(a) + 1;
}
int caller(int a)
{
#ifdef PATCHED
    a++;
#endif
    return changed(a) * 3;
}
int same(int a) { return handle(a) - 1; }
"#;

const INLINE_NOTHING: &[&str] = &["-fno-inline"];

fn line_of(text: &str, part: &str) -> usize {
    text.lines().position(|line| line.contains(part)).expect("a line") + 1
}

#[test]
fn changed_code_is_listed_with_its_first_difference_and_ends_with_0() {
    let desk = Desk::with_flags(CODE, "pair.c", INLINE_NOTHING);
    let ran = desk.both(&[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{}", ran.stdout);
    assert!(lines[0].starts_with("changed: caller: at +0x"), "{}", lines[0]);
    assert!(lines[1].starts_with("changed: changed: at +0x"), "{}", lines[1]);
    assert_eq!(lines[2], format!("new: added (pair.c:{})", line_of(CODE, "int added(")));
    assert!(ran.stderr.contains("not checked against a hypervisor"), "{}", ran.stderr);

    let ran = desk.both(&["--xen-syms", "xen-syms"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert!(ran.stdout.contains("replaced: changed ("), "{}", ran.stdout);
    assert_eq!(desk.both(&["--quiet"]).stdout, "");
}

#[test]
fn explain_gives_both_versions_the_reasons_and_what_goes_through_originals() {
    let desk = Desk::with_flags(CODE, "pair.c", INLINE_NOTHING);
    let ran = desk.both(&["--xen-syms", "xen-syms", "--explain"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    let head = format!("changed (pair.c:{}): changed: ", line_of(CODE, "int changed("));
    let at =
        lines.iter().position(|line| line.starts_with(&head)).unwrap_or_else(|| panic!("{}", ran.stdout));
    let first = lines[at].strip_prefix(&head).expect("a head");
    assert!(lines[at + 1].starts_with("  before: pair.c:"), "{}", ran.stdout);
    assert!(lines[at + 2].starts_with("  after: pair.c:"), "{}", ran.stdout);
    let warn = line_of(CODE, "WARN();");
    for wanted in [
        format!("string \"now with %d\\n\": needed by changed, which changed: {first}"),
        format!("added: needed by changed, which changed: {first}"),
        format!(
            "the WARN at pair.c:{warn}: describes code of added, which is needed by changed, which changed: {first}"
        ),
        "goes through the original: changed, called by caller in patched.o".to_owned(),
    ] {
        assert!(lines.contains(&wanted.as_str()), "{wanted}\nis not among\n{}", ran.stdout);
    }
    // Without the hypervisor nothing is selected, and only the changes can be explained.
    let ran = desk.both(&["--explain"]);
    assert!(ran.stdout.contains("  before: pair.c:") && !ran.stdout.contains("needed by"), "{}", ran.stdout);
}

#[test]
fn the_json_report_has_the_chains_as_data() {
    let desk = Desk::with_flags(CODE, "pair.c", INLINE_NOTHING);
    let ran = desk.both(&["--xen-syms", "xen-syms", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON and nothing else");
    assert_eq!((report["outcome"].as_str(), report["exit_code"].as_u64()), (Some("done"), Some(0)));
    let pieces = report["pieces"].as_array().expect("pieces");
    let warn = pieces.iter().find(|piece| piece["kind"]["bug-frame"] == 1).expect("a bug frame");
    let chain: Vec<&str> =
        warn["because"].as_array().expect("a chain").iter().filter_map(|l| l["because"].as_str()).collect();
    assert_eq!(chain, ["describes", "needed-by", "changed"]);
    assert_eq!(warn["because"][0]["function"], "added");
    assert_eq!(warn["because"][1]["by"], "changed");
    assert!(warn["because"][2]["first_difference"]["before"]["instruction"].is_string());
    let through = serde_json::json!([
        { "function": "changed", "by": "caller", "how": "call", "object": "patched.o" }
    ]);
    assert_eq!(report["through_original"], through);
    assert_eq!(report["changes"]["new"][0]["name"], "added");
}

#[test]
fn equal_objects_end_with_3() {
    let desk = Desk::pair(CODE);
    let ran = desk.diff(&["orig.o", "orig.o"]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (3, "no difference\n", ""));
    let ran = desk.diff(&["orig.o", "orig.o", "--xen-syms", "xen-syms"]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (3, "no difference\n", ""));
}

#[test]
fn what_waits_for_the_next_boot_ends_with_3() {
    let desk = Desk::pair(
        r#"
#include "hv.h"
int __init setup(int a)
{
#ifdef PATCHED
    a += 2;
#endif
    return handle(a) + 1;
}
"#,
    );
    let ran = desk.both(&["--xen-syms", "xen-syms"]);
    assert_eq!(ran.code, 3, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.starts_with("at next boot: setup in patched.o: at +0x"), "{}", ran.stdout);
    assert!(ran.stdout.ends_with("nothing to patch: what differs takes effect at the next boot\n"));
}

#[test]
fn a_removed_function_alone_ends_with_3() {
    let desk = Desk::pair(
        r#"
#include "hv.h"
int stays(int a) { return handle(a); }
#ifndef PATCHED
int goes(int a) { return handle(a) + 1; }
#endif
"#,
    );
    let ran = desk.both(&["--xen-syms", "xen-syms"]);
    assert_eq!(ran.code, 3, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.starts_with("removed: goes (pair.c:5): the host keeps it\n"), "{}", ran.stdout);
    assert!(ran.stdout.contains("nothing to patch: what is removed stays in the host"), "{}", ran.stdout);
}

#[test]
fn a_new_function_that_nothing_here_uses_is_a_difference_but_no_payload() {
    let desk = Desk::pair(
        r#"
#include "hv.h"
int stays(int a) { return handle(a); }
#ifdef PATCHED
int comes(int a) { return handle(a) + 1; }
#endif
"#,
    );
    let ran = desk.both(&["--xen-syms", "xen-syms"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "new: comes (pair.c:5)\n"), "{}", ran.stderr);
    let ran = desk.both(&["--xen-syms", "xen-syms", "-o", "out.o", "--funcs-version", "2"]);
    assert_eq!(ran.code, 3, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("no payload: nothing here is replaced"), "{}", ran.stdout);
    assert!(!desk.path().join("out.o").exists());
}

#[test]
fn changed_data_is_refused_with_and_without_a_hypervisor() {
    let desk = Desk::pair(
        r#"
#include "hv.h"
#ifdef PATCHED
int limit = 8;
#else
int limit = 7;
#endif
int get(int a) { return handle(a) + limit; }
"#,
    );
    for more in [&[][..], &["--xen-syms", "xen-syms"]] {
        let ran = desk.both(more);
        assert_eq!(ran.code, 2, "{}{}", ran.stdout, ran.stderr);
        assert!(ran.stdout.contains("data: limit (pair.c:4): byte 0 was 0x07 and is 0x08"), "{}", ran.stdout);
        assert!(ran.stderr.contains("[data-changed]") && ran.stderr.contains("   do: "), "{}", ran.stderr);
    }
}

#[test]
fn a_changed_layout_is_refused_without_a_hypervisor() {
    let desk = Desk::pair(
        r#"
#include "hv.h"
struct thing { int a;
#ifdef PATCHED
    int more;
#endif
    int b; };
int get(struct thing *t) { return handle(t->b); }
"#,
    );
    let ran = desk.both(&[]);
    assert_eq!(ran.code, 2, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stderr.ends_with("\nmore on that: xsplice explain layout-changed\n"), "{}", ran.stderr);
    assert!(!desk.both(&["--quiet"]).stderr.contains("more on that"));
    assert!(
        ran.stderr.contains("struct thing: ") && ran.stderr.contains("[layout-changed]"),
        "{}",
        ran.stderr
    );
    assert!(ran.stdout.starts_with("changed: get: "), "{}", ran.stdout);
}

/// A type of which there are only automatic variables, declared in a header or in the source.
fn on_the_stack(file: &str) -> Desk {
    Desk::pair(&format!(
        r#"
#include "hv.h"
# 1 "{file}"
struct context {{ int a;
#ifdef PATCHED
    int more;
#endif
    int b; }};
# 10 "pair.c"
static noinline int use(struct context *c) {{ return handle(c->b); }}
int get(int a) {{ struct context c = {{ a, 2 }}; return use(&c); }}
"#
    ))
}

#[test]
fn one_pair_does_not_show_who_else_has_a_type_of_a_header() {
    for more in [&[][..], &["--xen-syms", "xen-syms"]] {
        let ran = on_the_stack("include/xen/context.h").both(more);
        assert_eq!(ran.code, 2, "{}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains("a pair of objects does not show those of others"), "{}", ran.stderr);
        let ran = on_the_stack("pair.c").both(more);
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        assert!(!ran.stderr.contains("layout"), "{}", ran.stderr);
    }
}

#[test]
fn the_hypervisor_of_another_source_is_refused() {
    let desk = Desk::pair(CODE);
    desk.link("other-syms", &["others.o"], "--build-id=sha1");
    let ran = desk.both(&["--xen-syms", "other-syms"]);
    assert_eq!(ran.code, 2, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stderr.contains("[base-mismatch]"), "{}", ran.stderr);
    assert!(ran.stdout.contains("changed: changed: at +0x"), "{}", ran.stdout);
}

#[test]
fn assembler_is_known_with_and_without_debug_information() {
    let text = ".globl start\nstart:\n#ifdef PATCHED\n nop\n#endif\n ret\n";
    for flags in [&[][..], &["-g0"]] {
        let desk = Desk::with_flags(text, "start.S", flags);
        let ran = desk.both(&[]);
        assert_eq!(ran.code, 2, "{}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains("[assembler-changed]"), "{}", ran.stderr);
        assert_eq!(desk.diff(&["orig.o", "orig.o"]).code, 3);
    }
}

#[test]
fn objects_that_are_not_understood_are_refused() {
    let cases = [
        ("__thread int own;\nint get(void) { return own; }", "[unknown-relocation]"),
        (
            "asm (\".section .text.one,\\\"axG\\\",@progbits,one,comdat\\n nop\\n .previous\");\nint a;",
            "[section-group]",
        ),
    ];
    for (text, code) in cases {
        let desk = Desk::new();
        fs::write(desk.path().join("odd.c"), text).expect("a source");
        desk.compile(Path::new("odd.c"), "orig.o", &[]);
        let ran = desk.diff(&["orig.o", "orig.o"]);
        assert_eq!(ran.code, 2, "{}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains(code) && ran.stderr.contains("   do: "), "{}", ran.stderr);
    }
}

#[test]
fn c_without_debug_information_fails() {
    let desk = Desk::with_flags(CODE, "pair.c", &["-g0"]);
    let ran = desk.both(&[]);
    assert_eq!(ran.code, 1, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stderr.contains("[no-debug-info]"), "{}", ran.stderr);
}

#[test]
fn each_mistake_has_its_message_and_code() {
    let desk = Desk::pair(CODE);
    fs::write(desk.path().join("words"), "not an ELF file\n").expect("a file");
    desk.link("no-id", &["orig.o", "others.o"], "--build-id=none");
    let syms = ["orig.o", "patched.o", "--xen-syms", "xen-syms"];
    let with = |more: &[&'static str]| [&syms[..], more].concat();
    let cases: Vec<(Vec<&str>, &str)> = vec![
        (vec![], "<ORIG.o> <PATCHED.o>"),
        (vec!["orig.o"], "<PATCHED.o>"),
        (vec!["none.o", "patched.o"], "error: cannot read the original object: "),
        (vec!["orig.o", "none.o"], "error: cannot read the patched object: "),
        (vec!["words", "patched.o"], "[object-unreadable]"),
        (vec!["orig.o", "xen-syms"], "[object-unreadable]"),
        (vec!["orig.o", "patched.o", "--xen-syms", "none"], "error: cannot read the symbol file: "),
        (vec!["orig.o", "patched.o", "--xen-syms", "words"], "[xen-syms-unreadable]"),
        (vec!["orig.o", "patched.o", "-o", "out.o"], "--xen-syms <FILE>"),
        (vec!["orig.o", "patched.o", "--funcs-version", "2"], "--output <OUT.o>"),
        (with(&["-o", "out.o", "--funcs-version", "3"]), "invalid value '3'"),
        (
            with(&["-o", "out.o"]),
            "error: the layout of struct livepatch_func is not known [funcs-layout-unknown]",
        ),
        (
            with(&["-o", "a b.o", "--funcs-version", "2"]),
            "error: \"a b\" cannot be the name of a payload [usage]",
        ),
        (with(&["-o", "orig.o", "--funcs-version", "2"]), "error: the output is one of the inputs [usage]"),
        (
            with(&["-o", "./xen-syms", "--funcs-version", "2"]),
            "error: the output is one of the inputs [usage]",
        ),
        (with(&["-o", "none/out.o", "--funcs-version", "2"]), "[output-unwritable]"),
        (
            vec!["orig.o", "patched.o", "--xen-syms", "no-id", "-o", "out.o", "--funcs-version", "2"],
            "error: the symbol file has no build-id [id-needed]",
        ),
    ];
    for (args, text) in cases {
        let ran = desk.diff(&args);
        assert_eq!(ran.code, 1, "{args:?}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains(text), "{args:?} says: {}", ran.stderr);
    }
    assert!(desk.diff(&["none.o", "patched.o"]).stderr.contains("[input-unreadable]"));
    // Everything that cannot be read is named at once.
    let ran = desk.diff(&["none.o", "gone.o", "--xen-syms", "words"]);
    for text in ["the original object", "the patched object", "[xen-syms-unreadable]"] {
        assert!(ran.stderr.contains(text), "{text}: {}", ran.stderr);
    }
}

const OUT: &[&str] = &["--xen-syms", "xen-syms", "-o", "fix.o", "--funcs-version", "2"];

#[test]
fn the_payload_of_a_pair_is_written_verified_and_has_the_same_bytes_again() {
    let desk = Desk::with_flags(CODE, "pair.c", INLINE_NOTHING);
    let ran = desk.both(OUT);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    assert!(ran.stdout.ends_with("fix.o\n") && ran.stdout.contains("payload: "), "{}", ran.stdout);
    let expects = "expected at apply: the shipped first bytes of 2 of 2 functions; if a REPLACE finds others";
    assert!(ran.stdout.contains(expects), "{}", ran.stdout);
    let first = fs::read(desk.path().join("fix.o")).expect("a payload");

    let inspected = Command::new(env!("CARGO_BIN_EXE_xsplice"))
        .args(["inspect", "fix.o"])
        .current_dir(desk.path())
        .output()
        .expect("the program starts");
    let text = String::from_utf8_lossy(&inspected.stdout).into_owned();
    for part in ["changed", "caller", ".livepatch.funcs", "object = patched.o", "expects "] {
        assert!(text.contains(part), "{part}: {text}");
    }

    assert_eq!(desk.both(OUT).code, 0);
    assert_eq!(fs::read(desk.path().join("fix.o")).expect("a payload"), first);
    // From another folder, under other paths.
    let away = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| desk.path().join(name).to_string_lossy().into_owned();
    let out = away.path().join("fix.o").to_string_lossy().into_owned();
    let (orig, patched, syms) = (path("orig.o"), path("patched.o"), path("xen-syms"));
    let ran = desk.diff(&[&orig, &patched, "--xen-syms", &syms, "-o", &out, "--funcs-version", "2"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(fs::read(&out).expect("a payload"), first);
}

const ALLOWABLE: &str = r#"
#include "hv.h"
struct thing { int a;
#ifdef PATCHED
    int more;
#endif
    int b; };
struct other { int a;
#ifdef PATCHED
    int more;
#endif
    int b; };
struct thing *first;
struct other *second;
int get(void) { return handle(first->b); }
int idle_loop(void) { return handle(second->b); }
"#;

#[test]
fn a_refusal_is_let_through_by_name_and_the_payload_says_so() {
    let desk = Desk::pair(ALLOWABLE);
    let with = |allowed: &[&str]| {
        let options = allowed.iter().flat_map(|allowed| ["--allow", allowed]);
        desk.both(&OUT.iter().copied().chain(options).collect::<Vec<_>>())
    };
    // Each of the three that is missing is still refused.
    let all = ["layout-changed:thing", "layout-changed:struct other", "crash-at-revert:idle_loop"];
    for missing in 0..3 {
        let rest: Vec<&str> = (0..3).filter(|&index| index != missing).map(|index| all[index]).collect();
        let ran = with(&rest);
        let name = all[missing].rsplit([':', ' ']).next().expect("a name");
        assert_eq!(ran.code, 2, "{}", ran.stderr);
        let refused: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("refused: ")).collect();
        assert!(!refused.is_empty() && refused.iter().all(|line| line.contains(name)), "{refused:?}");
        assert!(!desk.path().join("fix.o").exists());
    }
    let ran = with(&all);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("warning: idle_loop is to be replaced"), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("(let through by --allow layout-changed:thing) [layout-changed]"),
        "{}",
        ran.stderr
    );
    let inspected = desk.run(&["inspect", "fix.o"]);
    let told = "allowed = crash-at-revert:idle_loop layout-changed:other layout-changed:thing";
    assert!(inspected.stdout.contains(told), "{}", inspected.stdout);

    // Without a name all of the code are, and the report has them.
    let json = desk.both(&["--json", "--allow", "layout-changed", "--allow", "crash-at-apply:memcpy"]);
    let report: serde_json::Value = serde_json::from_str(&json.stdout).expect("a report");
    assert_eq!(json.code, 0, "{}", json.stderr);
    assert_eq!(report["allowed"], serde_json::json!(["layout-changed:other", "layout-changed:thing"]));
    assert!(
        json.stderr.contains("--allow crash-at-apply:memcpy let nothing through [allow-unused]"),
        "{}",
        json.stderr
    );
}

/// Names of an ELF file's sections, as readelf lists them; `NOBITS` behind those that take no room in it.
fn sections(file: &Path) -> String {
    let output = Command::new("readelf").args(["-SW"]).arg(file).output().expect("readelf");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_symbol_file_without_debug_information_is_enough() {
    let desk = Desk::with_flags(CODE, "pair.c", INLINE_NOTHING);
    assert_eq!(desk.both(OUT).code, 0);
    let first = fs::read(desk.path().join("fix.o")).expect("a payload");
    let syms = desk.path().join("xen-syms");
    assert!(sections(&syms).contains(".debug_info"), "the test's premise");
    must(Command::new("strip").arg("--strip-debug").arg(&syms));
    assert!(!sections(&syms).contains(".debug"), "the test's premise");
    let ran = desk.both(OUT);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    assert_eq!(fs::read(desk.path().join("fix.o")).expect("a payload"), first);
}

#[test]
fn a_symbol_file_without_code_is_warned_of() {
    let desk = Desk::with_flags(CODE, "pair.c", INLINE_NOTHING);
    // As Xen is linked: everything in one segment, whose size in the file objcopy keeps for the note's sake.
    let one_segment = "PHDRS { text PT_LOAD; note PT_NOTE; } \
        SECTIONS { . = 0xffff82d040200000; _start = .; .text : { *(.text .text.*) } :text \
        .rodata : { *(.rodata .rodata.* .bug_frames.*) } \
        .note.gnu.build-id : { *(.note.gnu.build-id) } :text :note \
        .data : { *(.data .data.*) } :text .bss : { *(.bss .bss.*) } . = ALIGN(0x200000); _end = .; \
        /DISCARD/ : { *(.note.gnu.property) *(.eh_frame) } }";
    fs::write(desk.path().join("one.ld"), one_segment).expect("a script");
    let mut ld = Command::new("ld");
    ld.current_dir(desk.path()).args([
        "-nostdlib",
        "--build-id=sha1",
        "--no-warn-rwx-segments",
        "-T",
        "one.ld",
    ]);
    must(ld.args(["-o", "xen-syms", "orig.o", "others.o"]));
    assert_eq!(desk.both(OUT).stderr, "", "with its code nothing is to be warned of");
    let syms = desk.path().join("xen-syms");
    must(Command::new("objcopy").arg("--only-keep-debug").arg(&syms));
    let text = sections(&syms);
    let code = text.lines().find(|line| line.contains(" .text ")).expect("the section of code");
    assert!(code.contains("NOBITS"), "the test's premise: {code}");
    let output = Command::new("readelf").arg("-lW").arg(&syms).output().expect("readelf");
    let segments = String::from_utf8_lossy(&output.stdout).into_owned();
    let load = segments.lines().find(|line| line.contains("LOAD")).expect("a segment");
    let size = load.split_whitespace().nth(4).and_then(|word| u64::from_str_radix(&word[2..], 16).ok());
    assert!(size > Some(0x40), "the test's premise: {load}");
    let ran = desk.both(OUT);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    let what = "warning: the symbol file holds no code for 3 of 3 functions of the rebuilt original [code-not-compared]";
    assert!(ran.stderr.starts_with(what) && ran.stderr.contains("changed, caller, same"), "{}", ran.stderr);
    let ran = desk.both(&[OUT, &["--json"]].concat());
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(report["problems"][0]["code"], "code-not-compared", "{}", report["problems"]);
}

/// A function of one jump has room for another, but not behind an ENDBR64 that nobody could see.
#[test]
fn room_is_not_guessed_where_the_symbol_file_holds_no_code() {
    let text = r#"
#include "hv.h"
#ifdef PATCHED
int small(int a) { return handle(a + 2); }
#else
int small(int a) { return handle(a); }
#endif
"#;
    let desk = Desk::pair(text);
    let with_code = desk.both(OUT);
    assert_eq!((with_code.code, with_code.stderr.as_str()), (0, ""));
    must(Command::new("objcopy").arg("--only-keep-debug").arg(desk.path().join("xen-syms")));
    let ran = desk.both(OUT);
    assert_eq!(ran.code, 2, "{}{}", ran.stdout, ran.stderr);
    let what = "refused: small has 5 bytes, and the jump needs 9 [no-room]";
    assert!(ran.stderr.contains(what) && ran.stderr.contains("does not hold its code"), "{}", ran.stderr);
}

#[test]
fn an_earlier_payload_is_gone_after_a_refusal() {
    let desk = Desk::pair(CODE);
    fs::write(desk.path().join("fix.o"), "old").expect("a file");
    desk.link("xen-syms", &["others.o"], "--build-id=sha1");
    let ran = desk.both(OUT);
    assert_eq!(ran.code, 2, "{}{}", ran.stdout, ran.stderr);
    assert!(!desk.path().join("fix.o").exists());
}

#[test]
fn struct_livepatch_func_is_taken_from_the_objects_where_they_have_it() {
    let expectation = "struct { u8 enabled : 1; u8 len : 5; u8 rsv : 2; u8 data[31]; } expect;";
    for (version, more, size) in [(1, "u8 opaque[31];", 64), (2, "u8 applied; u8 pad[38];", 104)] {
        let expect = if version == 2 { expectation } else { "" };
        let text = format!(
            r#"
#include "hv.h"
struct livepatch_func {{
    const char *name; void *new_addr; void *old_addr; u32 new_size; u32 old_size; u8 version; {more} {expect}
}};
int count(struct livepatch_func *func)
{{
#ifdef PATCHED
    handle(1);
#endif
    return handle(func->version) + 1;
}}
"#
        );
        let desk = Desk::pair(&text);
        let ran = desk.both(&["--xen-syms", "xen-syms", "-o", "fix.o"]);
        assert_eq!(ran.code, 0, "version {version}: {}", ran.stderr);
        let left_out = "expectations left out: this hypervisor knows none (Xen up to 4.13)\n";
        assert_eq!(ran.stdout.contains(left_out), version == 1, "{}", ran.stdout);
        assert_eq!(ran.stdout.contains("expected at apply: "), version == 2, "{}", ran.stdout);
        let wrong = if version == 1 { "2" } else { "1" };
        let ran = desk.both(&["--xen-syms", "xen-syms", "-o", "fix.o", "--funcs-version", wrong]);
        let text = format!(
            "error: --funcs-version disagrees with the objects, which have version {version} [usage]"
        );
        assert!(ran.code == 1 && ran.stderr.contains(&text), "{}", ran.stderr);
        let ran = desk.both(&["--xen-syms", "xen-syms", "-o", "fix.o", "--json"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let inspected = Command::new(env!("CARGO_BIN_EXE_xsplice"))
            .args(["--json", "inspect", "fix.o"])
            .current_dir(desk.path())
            .output()
            .expect("the program starts");
        let payload: serde_json::Value = serde_json::from_slice(&inspected.stdout).expect("JSON");
        let report: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
        let reported = &report["functions"][0]["expectation"];
        if version == 1 {
            assert_eq!(reported["left_out"], "no-room");
        } else {
            assert!(reported["bytes"].is_string(), "{reported}");
            assert_eq!(payload["functions"][0]["expectation"], reported["bytes"]);
        }
        let sections = payload["sections"].as_array().expect("sections");
        let funcs = sections.iter().find(|s| s["name"] == ".livepatch.funcs").expect("the functions");
        assert_eq!(funcs["size"], size);
    }
}

/// Two objects of sources called pair.c: both have `helper`, and the patch is about the first.
#[test]
fn names_that_are_there_twice_are_listed_by_address() {
    const TWICE: &str = r#"
#include "hv.h"
static int noinline helper(int a)
{
#ifdef PATCHED
    a ^= 5;
#endif
    return handle(a) * 3;
}
int FIRST(int a) { return helper(a) + 1; }
int SECOND(int a)
{
#ifdef PATCHED
    a++;
#endif
    return helper(a) - 1;
}
"#;
    let desk = Desk::with_flags(TWICE, "pair.c", &["-DFIRST=first", "-DSECOND=second"]);
    fs::create_dir(desk.path().join("other")).expect("a folder");
    fs::write(desk.path().join("other/pair.c"), TWICE).expect("a source");
    desk.compile(Path::new("other/pair.c"), "twin.o", &["-DFIRST=third", "-DSECOND=fourth"]);
    desk.link("xen-syms", &["twin.o", "orig.o", "others.o"], "--build-id=sha1");
    let listed = Command::new("nm").arg(desk.path().join("xen-syms")).output().expect("nm");
    let listed = String::from_utf8(listed.stdout).expect("text");
    let mut helpers: Vec<u64> = listed
        .lines()
        .filter_map(|line| line.strip_suffix(" t helper"))
        .map(|address| u64::from_str_radix(address, 16).expect("an address"))
        .collect();
    // Code stands in the order of the objects.
    helpers.sort_unstable();
    let [_, own] = helpers[..] else { panic!("the test's premise: {listed}") };

    let ran = desk.both(&["--xen-syms", "xen-syms"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    for line in [
        format!(
            "by address: pair.c#helper at {own:#x}, to be replaced: the shipped first refers to it there"
        ),
        format!(
            "by address: pair.c#helper at {own:#x}, referred to by second: the shipped first refers to it there"
        ),
    ] {
        assert!(ran.stdout.lines().any(|one| one == line), "{line}\nis not among\n{}", ran.stdout);
    }
    let ran = desk.both(&["--xen-syms", "xen-syms", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON and nothing else");
    let because = "the shipped first refers to it there";
    let at = format!("{own:#x}");
    let of = |by: Option<&str>| {
        let mut one = serde_json::json!(
            { "name": "pair.c#helper", "address": at, "object": "patched.o", "because": because }
        );
        if let Some(by) = by {
            one["by"] = by.into();
        }
        one
    };
    assert_eq!(report["by_address"], serde_json::json!([of(None), of(Some("second"))]));
    let helper =
        report["functions"].as_array().expect("functions").iter().find(|f| f["name"] == "pair.c#helper");
    assert_eq!(helper.expect("a function")["address"], at.as_str());
    let through = &report["through_original"][0];
    assert_eq!(
        (through["function"].as_str(), through["by"].as_str()),
        (Some("pair.c#helper"), Some("second"))
    );
}
