use xsplice_diff::{Hook, InitChange, LeftOut, PieceId};
use xsplice_report::{Diagnostic, Difference, DifferenceKind, Place};
use xsplice_verify::Facts;

use super::*;

const XEN: &str = "1111111111111111111111111111111111111111";
const LOWER: &str = "2222222222222222222222222222222222222222";
const OWN: &str = "3333333333333333333333333333333333333333";

fn replaced(name: &str, expectation: Expectation) -> Replacement {
    Replacement {
        name: name.to_owned(),
        address: None,
        piece: PieceId(0),
        old_size: 40,
        new_size: 52,
        object: "xen/common/fix.o".to_owned(),
        place: Place::file("xen/common/fix.c"),
        first_difference: Difference::new(DifferenceKind::Code, "other code"),
        expectation,
    }
}

fn hook(kind: HookKind, function: &str) -> Hook {
    Hook {
        kind,
        function: function.to_owned(),
        piece: PieceId(1),
        object: "xen/common/fix.o".to_owned(),
        place: Place::none(),
    }
}

/// A report of a payload that stands on the hypervisor and replaces one function.
fn report() -> Report {
    let mut report = Report::new("fix", vec!["/somewhere/fix.patch".to_owned()]);
    report.tool = "xsplice 9".to_owned();
    report.payload = Some(PayloadFacts {
        file: "fix.livepatch".to_owned(),
        size: 1000,
        build_id: OWN.to_owned(),
        depends: XEN.to_owned(),
        xen_depends: XEN.to_owned(),
        verified: Facts::default(),
    });
    report.findings.functions = vec![replaced("do_fix", Expectation::Bytes(vec![0x90]))];
    report
}

fn note(report: &Report) -> String {
    let text = render(report).expect("there is a payload");
    assert_eq!(render(report).as_ref(), Some(&text), "the same report gives the same bytes");
    assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{text}");
    for line in text.lines() {
        assert!(line.chars().count() <= 120 && line == line.trim_end(), "{line:?}");
    }
    text
}

/// The text has all of `parts` in this order.
fn has(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let Some((_, behind)) = rest.split_once(part) else {
            panic!("{part:?} is not there, in order:\n{text}")
        };
        rest = behind;
    }
}

fn has_not(text: &str, part: &str) {
    assert!(!text.contains(part), "{part:?} is there:\n{text}");
}

#[test]
fn a_payload_on_the_hypervisor() {
    let text = note(&report());
    has(
        &text,
        &[
            "fix.livepatch: live patch for the Xen hypervisor\n",
            "Made by xsplice 9 from fix.patch.\n",
            "What it changes\n---------------\n",
            "    do_fix (xen/common/fix.c): 40, 52\n",
            &format!("Hypervisor:    {XEN}\n"),
            &format!("Stands on:     {XEN}\n"),
            &format!("Its own id:    {OWN}\n"),
            "the first to be applied",
            "Loading\n-------\n",
            "    xen-livepatch load fix.livepatch\n",
            "    xen-livepatch upload fix fix.livepatch\n",
            "    xen-livepatch apply fix\n",
            "    xen-livepatch replace fix\n",
            "the host is left without any of them",
            "If Xen says no\n",
            "Error 16 (EBUSY",
            "Timed out on semaphore",
            "active waitqueue",
            "`xen-livepatch apply fix`",
            "Error 22 (EINVAL",
            "\"expectation failed\"",
            "Taking it away\n",
            "    xen-livepatch revert fix\n    xen-livepatch unload fix\n",
            "it can be applied again",
            "    xen-livepatch apply fix\n",
            "What waits for the next boot\n",
            "Nothing of the change",
            "A boot ends every live patch",
        ],
    );
    has_not(&text, "/somewhere");
    has_not(&text, "preapply");
    has_not(&text, "Functions that Xen calls");
    has_not(&text, "cannot be applied again");
}

#[test]
fn a_payload_on_another_one() {
    let mut report = report();
    if let Some(payload) = &mut report.payload {
        payload.depends = LOWER.to_owned();
    }
    let text = note(&report);
    has(
        &text,
        &[
            &format!("Stands on:     {LOWER}\n"),
            "which must be the last one that was applied",
            &format!(
                "    (load the payload with the id {LOWER} first)\n    xen-livepatch load fix.livepatch\n"
            ),
            "cannot take the place of others",
        ],
    );
    has_not(&text, "    xen-livepatch replace");
    has_not(&text, "the first to be applied");
}

#[test]
fn what_xen_says_to_expectations_only_where_there_are_any() {
    let mut report = report();
    report.findings.functions = vec![replaced("do_fix", Expectation::LeftOut(LeftOut::Asked))];
    let text = note(&report);
    has_not(&text, "expectation failed");
    has_not(&text, "the host is left without");
    has(&text, &["    xen-livepatch replace fix\n"]);
}

#[test]
fn hooks_that_may_say_no_forbid_replace() {
    let mut report = report();
    report.findings.hooks = vec![hook(HookKind::Load, "loaded"), hook(HookKind::PreApply, "may")];
    let text = note(&report);
    has(
        &text,
        &["    load: loaded (xen/common/fix.o)\n    preapply: may (xen/common/fix.o)\n", "preapply hook"],
    );
    has_not(&text, "    xen-livepatch replace");
    // Those in place of the loader's own way do not.
    report.findings.hooks = vec![hook(HookKind::Apply, "apply")];
    report.findings.functions.clear();
    let text = note(&report);
    has(&text, &["    apply: apply (xen/common/fix.o)\n", "    xen-livepatch replace fix\n"]);
    has_not(&text, "Functions that it replaces");
}

#[test]
fn writable_data_is_not_applied_twice() {
    let mut report = report();
    let code = xsplice_verify::codes::NOT_REAPPLICABLE;
    report
        .findings
        .problems
        .push(Diagnostic::new(code, "once reverted, the payload cannot be applied again"));
    let text = note(&report);
    has(
        &text,
        &["cannot be applied again", "    xen-livepatch unload fix\n    xen-livepatch load fix.livepatch\n"],
    );
    has_not(&text, "it can be applied again");
}

#[test]
fn what_waits_for_the_next_boot() {
    let mut report = report();
    report.findings.init_changes = vec![InitChange {
        object: "xen/common/fix.o".to_owned(),
        name: "start".to_owned(),
        what: "boot code changed".to_owned(),
    }];
    let text = note(&report);
    has(
        &text,
        &["at boot only, and are not in the payload:\n    start (xen/common/fix.o): boot code changed\n"],
    );
    has_not(&text, "Nothing of the change");
}

#[test]
fn no_note_without_a_payload() {
    let mut report = report();
    report.payload = None;
    assert_eq!(render(&report), None);
}
