//! `xsplice verify` on payloads that `xsplice diff` makes of small objects: both answers, and every exit code.

mod desk;

use std::fs;

use desk::{Desk, Ran};

/// A hypervisor that says which version it is, and a change of it.
fn source(version: &str) -> String {
    format!(
        r#"
#include "hv.h"
{version}
int changed(int a)
{{
#ifdef PATCHED
    printk("now with %d\n", a);
    a = handle(a) * 5;
#endif
    return handle(a) + 1;
}}
int other(int a)
{{
    return handle(a) - handle(a + 1);
}}
"#
    )
}

const VERSION: &str = r#"
unsigned int xen_major_version(void) { return 4; }
unsigned int xen_minor_version(void) { return 17; }
const char *xen_extra_version(void) { return ".5+72"; }
"#;

/// A desk with the payload `fix.livepatch` for `xen-syms`.
fn with_payload(version: &str) -> Desk {
    let desk = Desk::pair(&source(version));
    let ran = desk.both(&["--xen-syms", "xen-syms", "-o", "fix.livepatch", "--funcs-version", "2"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    desk
}

fn verify(desk: &Desk, more: &[&str]) -> Ran {
    desk.run(&[&["verify", "fix.livepatch", "--xen-syms", "xen-syms"], more].concat())
}

fn json(ran: &Ran) -> serde_json::Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", ran.stdout))
}

const NOT_DONE: &str = "\
not done: no function was decoded in place: whether each calls and reads what the patched source says takes the objects it was made of (--objects)
not done: whether hooks, or what they call, wait for other CPUs or fault was not looked at
not done: what only the host knows at apply: waiting vCPUs, other actions, a timeout, a hook's veto
";

#[test]
fn a_payload_of_our_own_is_accepted_and_safe() {
    let desk = with_payload(VERSION);
    let ran = verify(&desk, &[]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines[..3], ["loader: accept", "safe: yes", "rules: Xen 4.17.5, read from the symbol file"]);
    // One function, printk and handle.
    assert!(
        lines[3].starts_with("checked: 1 functions, 2 symbols of Xen and 0 of payloads below, "),
        "{lines:?}"
    );
    assert!(ran.stdout.ends_with(NOT_DONE), "{}", ran.stdout);
    assert_eq!(verify(&desk, &["--quiet"]).stdout, "");
    let report = json(&verify(&desk, &["--json"]));
    assert_eq!(report["outcome"], "done");
    assert_eq!(report["loader"]["answer"], "accept");
    assert_eq!(report["safe"]["answer"], "yes");
    assert_eq!(report["name"], "fix");
    assert_eq!(report["xen_version"], serde_json::json!({ "version": "4.17.5", "source": "symbol-file" }));
    assert_eq!(report["loader_traits"]["funcs_size"], 104);
    assert_eq!(report["loader_traits"]["alternatives"], "places");
    assert_eq!(report["not_done"].as_array().expect("a list").len(), 3);
}

#[test]
fn a_payload_for_another_hypervisor_is_rejected_with_its_error() {
    let desk = with_payload(VERSION);
    let ran = desk.run(&["verify", "fix.livepatch", "--xen-syms", "xen-syms", "--on", "fix.livepatch"]);
    assert_eq!(ran.code, 2);
    let answer = "loader: reject at upload with EEXIST: payload 1 of those to stack on has the name \"fix\" too [payload-name]\n";
    assert!(ran.stdout.starts_with(answer), "{}", ran.stdout);
    // Another name, and it is the build-id that is in use; above it would depend on something else.
    fs::copy(desk.path().join("fix.livepatch"), desk.path().join("copy.livepatch")).expect("a copy");
    let report = json(&verify(&desk, &["--on", "copy.livepatch", "--json"]));
    let loader = &report["loader"];
    assert_eq!(loader["answer"], "reject");
    assert_eq!(
        (&loader["at"], &loader["errno"], &loader["code"]),
        (&"upload".into(), &"EEXIST".into(), &"same-build-id".into())
    );
    assert_eq!(report["safe"]["answer"], "yes");
    let rules = report["rules"].as_array().expect("a list");
    let steps: Vec<_> =
        rules.iter().map(|rule| (&rule["side"], &rule["step"], &rule["errno"], &rule["code"])).collect();
    let rule = |step, errno, code| (step, errno, code);
    for (step, errno, code) in
        [rule("own-id", "EEXIST", "same-build-id"), rule("depends", "EINVAL", "wrong-depends")]
    {
        let wanted =
            [&"loader".into(), &step.into(), &errno.into(), &code.into()].map(serde_json::Value::clone);
        assert!(
            steps.iter().any(|rule| [rule.0, rule.1, rule.2, rule.3].map(Clone::clone) == wanted),
            "{steps:?}"
        );
    }
}

/// Where the list of functions is in a payload: the only writable section of 104 bytes.
fn functions_at(payload: &[u8]) -> usize {
    let word = |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().expect("8 bytes"));
    let table = word(40) as usize;
    let mut headers = (table..payload.len()).step_by(64);
    let at = headers.find(|at| word(at + 8) == 3 && word(at + 32) == 104).expect("a list of functions");
    word(at + 24) as usize
}

#[test]
fn what_the_loader_takes_and_the_host_pays_for_is_unsafe() {
    let desk = with_payload(VERSION);
    let file = desk.path().join("fix.livepatch");
    let bytes = fs::read(&file).expect("a payload");
    // The old size is at 28 of the only entry.
    let mut damaged = bytes.clone();
    damaged[functions_at(&bytes) + 28] += 1;
    fs::write(&file, &damaged).expect("a payload");
    let ran = verify(&desk, &[]);
    assert_eq!(ran.code, 2);
    assert!(ran.stdout.starts_with("loader: accept\nsafe: no [func-old-size]\n"), "{}", ran.stdout);
    assert!(ran.stderr.contains("refused: the shipped function has "), "{}", ran.stderr);
    assert!(ran.stderr.ends_with("more on that: xsplice explain func-old-size\n"), "{}", ran.stderr);
    let report = json(&verify(&desk, &["--json"]));
    assert_eq!(report["safe"], serde_json::json!({ "answer": "no", "codes": ["func-old-size"] }));
    assert_eq!(report["rules"][0]["side"], "host");
    assert!(report["rules"][0].get("errno").is_none());
}

#[test]
fn objects_of_the_patched_build_are_held_against_the_payload_in_place() {
    let desk = with_payload(VERSION);
    let alone = verify(&desk, &[]);
    let said = "in place: applied with ";
    let line = alone.stdout.lines().find(|line| line.starts_with(said)).unwrap_or_default();
    assert!(line.contains(" relocations, 1 trampolines followed, "), "{}", alone.stdout);
    assert!(line.ends_with("; reverted to the identical image"), "{}", alone.stdout);
    let objects = desk.path().join("objects");
    fs::create_dir_all(objects.join("common")).expect("a folder");
    fs::copy(desk.path().join("patched.o"), objects.join("common/pair.o")).expect("a copy");
    let ran = verify(&desk, &["--objects", "objects"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    // printk is called, handle is called before and after the multiplication, and the text is printk's.
    let said = "against the objects: 1 functions, 4 references, 1 constants and texts, 0 hooks\n";
    assert!(ran.stdout.contains(said), "{}", ran.stdout);
    assert!(!ran.stdout.contains("--objects"), "{}", ran.stdout);
    let report = json(&verify(&desk, &["--objects", "objects", "--json"]));
    let in_place = &report["in_place"];
    assert_eq!((&in_place["reverted"], &in_place["trampolines"]), (&true.into(), &1.into()));
    assert_eq!(in_place["objects"]["functions"], 1);
    assert_eq!(report["not_done"].as_array().expect("a list").len(), 2);
    // The object of another patch: here of none.
    fs::copy(desk.path().join("orig.o"), objects.join("common/pair.o")).expect("a copy");
    let ran = verify(&desk, &["--objects", "objects"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stdout.starts_with("loader: accept\nsafe: no [in-place-unknown]\n"), "{}", ran.stdout);
    fs::remove_file(objects.join("common/pair.o")).expect("removed");
    let ran = verify(&desk, &["--objects", "objects"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("cannot use the folder of objects: no object (*.o) is in it"),
        "{}",
        ran.stderr
    );
}

#[test]
fn the_version_is_read_given_or_a_fallback_that_is_said() {
    let desk = with_payload(VERSION);
    let first = |ran: &Ran| ran.stdout.lines().next().unwrap_or_default().to_owned();
    let old = verify(&desk, &["--xen-version", "4.13.5"]);
    assert_eq!(old.code, 2);
    assert!(first(&old).starts_with("loader: reject at upload with EINVAL: "), "{}", old.stdout);
    assert!(first(&old).ends_with("[funcs-layout]"), "{}", old.stdout);
    assert!(old.stdout.contains("\nrules: Xen 4.13.5, as given\n"), "{}", old.stdout);
    let said =
        "warning: rules of Xen 4.13.5 are used, and the symbol file is that of 4.17.5 [xen-version-assumed]";
    assert!(old.stderr.starts_with(said), "{}", old.stderr);
    let same = verify(&desk, &["--xen-version", "4.17"]);
    assert_eq!((same.code, same.stderr.as_str()), (0, ""));
    let unknown = with_payload("");
    let ran = verify(&unknown, &[]);
    assert_eq!(ran.code, 0);
    let said =
        "warning: the hypervisor's version is not known: rules of Xen 4.17 are used [xen-version-assumed]";
    assert!(ran.stderr.starts_with(said), "{}", ran.stderr);
    assert!(ran.stdout.contains("\nrules: Xen 4.17, a fallback\n"), "{}", ran.stdout);
    let newer = with_payload(&VERSION.replace("17", "40"));
    let ran = verify(&newer, &[]);
    assert!(
        ran.stderr.starts_with("warning: rules of Xen 4.22 are used, and the hypervisor is 4.40.5 "),
        "{}",
        ran.stderr
    );
    assert_eq!(ran.code, 0);
    for wrong in ["4.12", "4.23", "seventeen"] {
        let ran = verify(&unknown, &["--xen-version", wrong]);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{wrong}");
        assert!(ran.stderr.contains("invalid value"), "{}", ran.stderr);
    }
}

#[test]
fn a_symbol_file_without_an_id_leaves_something_undone() {
    let desk = with_payload(VERSION);
    desk.link("nameless", &["orig.o", "others.o"], "--build-id=none");
    let ran = desk.run(&["verify", "fix.livepatch", "--xen-syms", "nameless"]);
    assert!(ran.stderr.contains("[xen-id-unknown]"), "{}", ran.stderr);
    let said = "not done: no build-id was compared with the hypervisor's: the symbol file has none\n";
    assert!(ran.stdout.contains(said), "{}", ran.stdout);
}

#[test]
fn what_cannot_be_read_is_a_failure() {
    let desk = with_payload(VERSION);
    for (args, said) in [
        (vec!["none", "--xen-syms", "xen-syms"], "error: cannot read the payload: "),
        (vec!["fix.livepatch", "--xen-syms", "none"], "error: cannot read the symbol file: "),
        (
            vec!["fix.livepatch", "--xen-syms", "orig.o"],
            "error: the hypervisor's symbol file cannot be used [not-xen-syms]",
        ),
        (
            vec!["fix.livepatch", "--xen-syms", "xen-syms", "--on", "none"],
            "error: cannot read the payload to stack on: ",
        ),
        (
            vec!["fix.livepatch", "--xen-syms", "xen-syms", "--on", "pair.c"],
            "error: payload 1 of those to stack on: not a payload, but a text file [below-unreadable]",
        ),
        (vec!["fix.livepatch"], "--xen-syms <FILE>"),
    ] {
        let ran = desk.run(&[&["verify"], &args[..]].concat());
        assert_eq!(ran.code, 1, "{args:?}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains(said), "{args:?}: {}", ran.stderr);
    }
    // Xen has an answer to any file.
    let ran = desk.run(&["verify", "pair.c", "--xen-syms", "xen-syms"]);
    assert_eq!(ran.code, 2);
    let text = "\
loader: reject at upload with EINVAL: the file is not an ELF file [elf-ident]
safe: unknown, since it was not read that far
rules: Xen 4.17.5, read from the symbol file
not done: nothing but the file header was looked at
";
    assert_eq!(ran.stdout, text);
}
