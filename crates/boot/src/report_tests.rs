use super::*;
use xsplice_report::Outcome;

fn ended(step: Step, code: i32, stdout: &str, console: &[&str]) -> StepResult {
    let mut result = StepResult::not_run(&step);
    result.state = State::Ended;
    result.exit_code = Some(code);
    result.as_expected = step.expect.allows(code);
    result.stdout = Stream { text: stdout.to_owned(), size: stdout.len() as u64, cut: false };
    result.console = console.iter().map(|line| (*line).to_owned()).collect();
    result
}

fn report(steps: Vec<StepResult>, end: Ended) -> BootReport {
    let set_up = ended(Step::run("set up"), 0, "", &[]);
    BootReport { set_up, steps, ended: end, seconds: 1.0, xen_log: String::new(), dom0_log: String::new() }
}

#[test]
fn a_refused_payload_is_a_refusal_with_xens_reason() {
    let step = ended(Step::load("a.livepatch"), 1, "Error 22\n", &["(XEN) livepatch: a: no"]);
    let report = report(vec![step], Ended::PowerOff);
    assert!(!report.succeeded());
    let problems = report.problems();
    assert_eq!(problems.outcome(), Outcome::Refused);
    assert!(problems.0[0].why.contains("(XEN) livepatch: a: no"));
}

#[test]
fn an_expected_failure_is_a_success() {
    let step = ended(Step::load("a.livepatch").expecting(Expect::Failure), 1, "", &[]);
    let report = report(vec![step], Ended::PowerOff);
    assert!(report.succeeded() && report.problems().0.is_empty());
    assert!(render_text(&report).contains("ok load a: exit code 1 (as expected)\n"));
}

#[test]
fn a_panic_names_the_step_that_was_running() {
    let first = ended(Step::run("true"), 0, "", &[]);
    let mut cut = StepResult::not_run(&Step::load("a.livepatch"));
    cut.state = State::Cut;
    let never = StepResult::not_run(&Step::list());
    let report = report(vec![first, cut, never], Ended::Panic { line: "(XEN) Panic on CPU 0:".into() });
    let problems = report.problems();
    assert_eq!(problems.0[0].code, codes::HOST_PANICKED);
    assert!(problems.0[0].what.contains("during the step \"load a\""));
    assert_eq!(problems.0.len(), 1, "one cause, one problem");
    assert_eq!(problems.outcome(), Outcome::Refused);
    let text = render_text(&report);
    assert!(text.contains("!! load a: did not end"));
    assert!(text.contains("-- list: did not run"));
    assert!(text.contains("1 of 3 steps as expected; PANIC: (XEN) Panic on CPU 0:"));
}

#[test]
fn what_follows_from_a_refused_load_is_not_repeated() {
    let load = ended(Step::load("a.livepatch"), 1, "", &[]);
    let revert = ended(Step::revert("a"), 1, "", &[]);
    assert_eq!(report(vec![load, revert.clone()], Ended::PowerOff).problems().0.len(), 1);
    let alone = report(vec![revert], Ended::PowerOff).problems();
    assert_eq!(alone.0[0].code, codes::PAYLOAD_NOT_ACCEPTED);
}

#[test]
fn output_and_console_lines_follow_their_step() {
    let step = ended(Step::list(), 0, "one\ntwo\n", &["(XEN) seen", "(XEN) twice", "(XEN) twice"]);
    let text = render_text(&report(vec![step], Ended::PowerOff));
    assert_eq!(
        text,
        "ok list\n     one\n     two\n     (XEN) seen\n     (XEN) twice [2 times]\n1 of 1 steps as expected; powered off after 1.0 s\n"
    );
}

#[test]
fn a_boot_that_never_gets_ready_fails() {
    let mut report = report(vec![StepResult::not_run(&Step::list())], Ended::PowerOff);
    report.set_up.state = State::NotRun;
    report.set_up.as_expected = false;
    report.ended = Ended::Exited { code: 1, message: "no such file".into() };
    assert_eq!(report.problems().outcome(), Outcome::Failed);
    assert_eq!(report.problems().0[0].code, codes::LAB_NOT_READY);
}

#[test]
fn every_bad_end_has_its_code() {
    let step = || ended(Step::run("true"), 0, "", &[]);
    let cases = [
        (
            Ended::TimedOut { limit: 7 },
            codes::BOOT_TIMED_OUT,
            "the machine was stopped after 7 s, after the step",
        ),
        (
            Ended::LogOverflow { limit: 9 },
            codes::LOG_OVERFLOW,
            "the console wrote more than 9 bytes after the step",
        ),
        (
            Ended::Exited { code: 3, message: String::new() },
            codes::BOOT_ENDED_EARLY,
            "the emulator ended with exit code 3 after the step",
        ),
    ];
    for (end, code, words) in cases {
        let problem = report(vec![step()], end).problems().0.remove(0);
        assert_eq!(problem.code, code);
        assert!(problem.what.starts_with(words), "{}", problem.what);
    }
    let failed = report(vec![ended(Step::run("false"), 1, "out\n", &[])], Ended::PowerOff).problems();
    assert_eq!(failed.0[0].code, codes::STEP_UNEXPECTED);
    assert_eq!(failed.outcome(), Outcome::Failed);
    assert!(failed.0[0].why.contains("out"));
}
