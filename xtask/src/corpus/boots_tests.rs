use std::collections::BTreeSet;

use xsplice_boot::{Expect, Role, Stream};

use super::super::kinds::Kind;
use super::super::list::Entry;
use super::*;

const NAMES: [&str; 2] = ["001-c0ffee0000", "002-c0ffee0001-rev"];

/// A boot in which all went well, of the payloads with these names.
fn report(names: &[&str]) -> BootReport {
    let mut xen_log = "(XEN) WARNING: of the boot\n@0a1b2c:0b@\n@0a1b2c:0e@\n".to_owned();
    let mut results = Vec::new();
    for name in names {
        for step in steps(name) {
            let number = results.len() + 1;
            let said = match step.name.split(' ').nth(2) {
                Some("upload" | "revert") if step.role == Role::List => format!(" {name} | CHECKED | \n"),
                Some("apply") if step.role == Role::List => {
                    format!(" other | CHECKED\n {name} | APPLIED |\n")
                }
                _ => String::new(),
            };
            let line = format!("(XEN) livepatch: {name}: Reverting");
            xen_log.push_str(&format!("@0a1b2c:{number}b@\n{line}\n\n@0a1b2c:{number}e@\n"));
            results.push(result(&step, &said));
        }
    }
    let set_up = result(&Step::run("true"), "");
    BootReport {
        set_up,
        steps: results,
        ended: Ended::PowerOff,
        seconds: 1.0,
        xen_log,
        dom0_log: String::new(),
    }
}

fn result(step: &Step, stdout: &str) -> StepResult {
    let stream = |text: &str| Stream { text: text.to_owned(), size: text.len() as u64, cut: false };
    StepResult {
        name: step.name.clone(),
        role: step.role,
        command: step.command.clone(),
        expect: Expect::Success,
        state: State::Ended,
        exit_code: Some(0),
        as_expected: true,
        stdout: stream(stdout),
        stderr: stream(""),
        console: Vec::new(),
    }
}

fn fail(report: &mut BootReport, name: &str, said: &str) {
    let step = report.steps.iter_mut().find(|step| step.name == name).expect("a step");
    step.as_expected = false;
    step.exit_code = Some(1);
    step.stderr.text = said.to_owned();
}

/// The machine stops in a step.
fn stop(report: &mut BootReport, name: &str, ended: Ended) {
    report.ended = ended;
    let place = report.steps.iter().position(|step| step.name == name).expect("a step");
    for (number, step) in report.steps.iter_mut().enumerate().skip(place) {
        step.state = if number == place { State::Cut } else { State::NotRun };
        step.as_expected = false;
        step.exit_code = None;
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn complaints(report: &BootReport) -> Vec<Option<String>> {
    let courses = courses(report, &owned(&NAMES));
    courses.into_iter().map(|course| course.map(|c| c.complaint.unwrap_or_default())).collect()
}

#[test]
fn the_number_of_steps_is_right() {
    assert_eq!(steps("a").len(), STEPS);
}

#[test]
fn all_went_well() {
    let courses = courses(&report(&NAMES), &owned(&NAMES));
    for (name, course) in NAMES.iter().zip(courses) {
        let console = vec![format!("(XEN) livepatch: {name}: Reverting"); STEPS];
        let good = Course { applied: true, reverted: true, unloaded: true, complaint: None, console };
        assert_eq!(course, Some(good));
    }
}

#[test]
fn behind_one_that_failed_nothing_is_said_of_others() {
    let mut report = report(&NAMES);
    let name = format!("apply {}", NAMES[0]);
    fail(&mut report, &name, "Applying failed:\n Error 22: Invalid argument\n");
    assert_eq!(
        complaints(&report),
        [Some(format!("{name} ended with exit code 1: Applying failed: Error 22: Invalid argument")), None]
    );
}

#[test]
fn the_state_in_the_list_counts_not_only_the_exit_code() {
    let mut report = report(&NAMES);
    let list = report.steps.iter_mut().find(|step| step.name == format!("list after apply {}", NAMES[1]));
    list.expect("a step").stdout.text = format!(" {} | CHECKED |", NAMES[1]);
    let wanted = "the hypervisor does not list APPLIED after apply".to_owned();
    assert_eq!(complaints(&report), [Some(String::new()), Some(wanted)]);
    let course = courses(&report, &owned(&NAMES)).pop().flatten().expect("a course");
    assert_eq!((course.applied, course.reverted, course.unloaded), (false, true, true));
}

#[test]
fn a_payload_that_is_still_listed_was_not_unloaded() {
    let mut report = report(&NAMES[..1]);
    let last = report.steps.last_mut().expect("a step");
    last.stdout.text = format!(" {} | CHECKED |", NAMES[0]);
    let course = courses(&report, &owned(&NAMES[..1])).pop().flatten().expect("a course");
    assert!(!course.unloaded && course.complaint.is_some());
}

#[test]
fn any_line_that_is_not_the_loaders_is_a_complaint_of_the_payload_before_it() {
    for line in ["(XEN) Xen WARN at common/kernel.c:1", "[ 1.0] BUG: unable to handle", "(XEN) d0v0 x"] {
        let mut report = report(&NAMES);
        // Between the first payload's last step and the second one's first.
        let (place, mark) = (STEPS, format!("@0a1b2c:{STEPS}e@\n"));
        report.xen_log = report.xen_log.replace(&mark, &format!("{mark}{line}\n"));
        assert_eq!(complaints(&report), [Some(format!("console: {line}")), None], "at {place}");
    }
}

#[test]
fn a_panic_is_a_complaint_and_running_out_of_time_among_others_is_not() {
    let step = format!("work with {}", NAMES[1]);
    let mut panicked = report(&NAMES);
    stop(&mut panicked, &step, Ended::Panic { line: "(XEN) Panic on CPU 0:".to_owned() });
    let wanted = format!("{step} did not end: (XEN) Panic on CPU 0:");
    assert_eq!(complaints(&panicked), [Some(String::new()), Some(wanted)]);
    let mut slow = report(&NAMES);
    stop(&mut slow, &step, Ended::TimedOut { limit: 9 });
    assert_eq!(complaints(&slow), [Some(String::new()), None]);
    let mut alone = report(&NAMES[1..]);
    stop(&mut alone, &step, Ended::TimedOut { limit: 9 });
    let course = courses(&alone, &owned(&NAMES[1..])).pop().flatten().expect("a course");
    assert_eq!(course.complaint, Some(format!("{step} did not end: stopped after 9 s")));
}

#[test]
fn from_the_first_failure_on_each_is_booted_alone() {
    let (good, bad) = (Some(Course::default()), Some(not_run("it failed")));
    assert_eq!(to_repeat(&[good.clone(), bad, None]), 1..3);
    assert_eq!(to_repeat(&[good.clone(), good]), 2..2);
    assert_eq!(to_repeat(&[None]), 0..1);
}

#[test]
fn a_failure_that_does_not_come_again_is_not_forgotten() {
    let good = || Some(Course { applied: true, ..Course::default() });
    let bad = Course { console: vec!["(XEN) x".to_owned()], ..not_run("it failed") };
    let course = merged(Some(bad.clone()), good(), Some("001-a".to_owned()));
    assert_eq!(course.complaint.as_deref(), Some("behind 001-a: it failed; alone all went well"));
    assert_eq!((course.applied, course.console), (true, bad.console.clone()));
    assert_eq!(merged(None, good(), None), good().expect("good"));
    assert_eq!(merged(good(), Some(bad.clone()), None), bad);
    assert!(merged(None, None, None).complaint.is_some());
}

#[test]
fn lines_of_a_payload_that_is_well() {
    for line in [
        "(XEN) alt table ffff82d0405d3074 -> ffff82d0405d31ee",
        "(XEN) livepatch: a: Verifying enabled expectations for all functions",
        "(XEN) livepatch: a: Applying 12 functions",
        "(XEN) livepatch: module metadata:",
        "(XEN) livepatch:   patch=a.patch",
        "(XEN) livepatch: a finished APPLY with rc=0",
        "(XEN) livepatch: a finished REVERT with rc=0",
        "(XEN) Entering ACPI S5 state.",
        "[    8.478835] reboot: Power down",
    ] {
        assert!(is_expected(line, "a"), "{line}");
    }
    for line in [
        "(XEN) livepatch: b: Reverting",
        "(XEN) livepatch: a finished APPLY with rc=-22",
        "(XEN) livepatch: a: Unknown symbol",
        "(XEN) livepatch: a: Applying nothing",
        "(XEN) Xen WARN at common/kernel.c:1",
        "[    8.478835] BUG: unable to handle page fault",
    ] {
        assert!(!is_expected(line, "a"), "{line}");
    }
}

fn booted(number: usize, course: Course) -> Booted {
    let kinds = BTreeSet::from([Kind::Altcalls, Kind::Later]);
    let entry = Entry { number, commit: format!("c0ffee{number:04}5678"), reverse: false };
    let candidate = Candidate { entry, file: PathBuf::from("/tmp/x"), kinds, bytes: 1234, functions: 2 };
    Booted { candidate, course }
}

#[test]
fn the_table_has_a_row_for_each_and_says_what_failed() {
    let good = Course { applied: true, reverted: true, unloaded: true, ..Course::default() };
    let bad = Course {
        applied: true,
        complaint: Some("revert 007 failed".to_owned()),
        console: vec!["(XEN) one".to_owned(), "(XEN) two".to_owned()],
        ..Course::default()
    };
    let booted = [booted(3, good.clone()), booted(7, bad)];
    let mut all: Vec<Candidate> = booted.iter().map(|booted| booted.candidate.clone()).collect();
    all.push(Candidate { kinds: BTreeSet::from([Kind::NewData]), ..all[0].clone() });
    let text = boots_table::document(&all, &booted, 3, &BTreeSet::from([Kind::NewData]));
    for line in [
        "# 2 payloads of real patches in Debian's hypervisor",
        "Made by `cargo xtask corpus --xen-git DIR --boot 3`.",
        "1 of 2 went that way, 1 did not.",
        "| 3 | c0ffee0003 | 1234 | 2 | applied, reverted, unloaded | altcalls, later commit |",
        "| 7 | c0ffee0007 | 1234 | 2 | applied, **failed** | altcalls, later commit |",
        "| altcalls | 2 | 2 |",
        "| data with a value | 1 | 0 |",
        "Not booted, for lack of places: data with a value.",
        "### 007-c0ffee0007",
        "revert 007 failed",
        "    (XEN) two",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    let missing = text.lines().find(|line| line.starts_with("No payload of the corpus has: "));
    let missing = missing.expect("a line of kinds");
    assert!(missing.contains("assertion frames") && !missing.contains("altcalls"), "{missing}");
    assert!(!text.contains("/tmp"), "{text}");
    let text = boots_table::document(&all, &booted[..1], 1, &BTreeSet::new());
    assert!(!text.contains("failed"), "{text}");
}
