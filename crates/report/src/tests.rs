use super::*;

const FAIL: Code = Code::failure("some-failure", "A failure.");
const REFUSE: Code = Code::refusal("some-refusal", "A refusal.");
const WARN: Code = Code::warning("some-warning", "A warning.");

#[test]
fn failures_outrank_refusals_and_warnings_stop_nothing() {
    let mut problems = Problems::new();
    problems.push(Diagnostic::new(WARN, "w"));
    assert!(problems.is_harmless());
    assert_eq!(problems.outcome(), Outcome::Done);
    problems.push(Diagnostic::new(REFUSE, "r"));
    assert!(!problems.is_harmless());
    assert_eq!(problems.outcome(), Outcome::Refused);
    problems.push(Diagnostic::new(FAIL, "f"));
    assert_eq!(problems.outcome(), Outcome::Failed);
}

#[test]
fn exit_codes_are_the_documented_ones() {
    let all = [Outcome::Done, Outcome::Failed, Outcome::Refused, Outcome::NothingToPatch];
    assert_eq!(all.map(Outcome::exit_code), [0, 1, 2, 3]);
}

#[test]
fn a_place_reads_from_the_source_line_inwards() {
    let place =
        Place::object("xen/arch/x86/traps.o").source("xen/arch/x86/traps.c", Some(7)).symbol("f").offset(16);
    assert_eq!(place.to_string(), "xen/arch/x86/traps.c:7, f, xen/arch/x86/traps.o, offset 0x10");
}
