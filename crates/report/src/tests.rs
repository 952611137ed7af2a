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

fn site(line: u32, offset: u64, instruction: &str) -> Option<Site> {
    Some(Site {
        fragment: String::new(),
        offset,
        instruction: instruction.into(),
        file: Some("xen/common/foo.c".into()),
        line: Some(line),
    })
}

#[test]
fn a_difference_names_the_source_lines_of_both_versions() {
    let difference =
        |before, after| Difference { kind: DifferenceKind::Code, what: "x".into(), before, after };
    let text = |before, after| difference(before, after).to_string();
    assert_eq!(text(None, None), "x");
    assert_eq!(text(site(7, 1, "nop"), site(7, 1, "ret")), "x (xen/common/foo.c:7)");
    assert_eq!(
        text(site(7, 1, "nop"), site(9, 1, "ret")),
        "x (xen/common/foo.c:7 before, xen/common/foo.c:9 after)"
    );
    assert_eq!(text(site(7, 1, "nop"), None), "x (xen/common/foo.c:7 before)");
    assert_eq!(text(None, site(9, 1, "nop")), "x (xen/common/foo.c:9)");
    let mut fragment = site(9, 18, "ret").unwrap();
    assert_eq!(fragment.to_string(), "xen/common/foo.c:9: +0x12: ret");
    fragment.fragment = "cold".into();
    fragment.file = None;
    assert_eq!(fragment.to_string(), ".cold+0x12: ret");
}

#[test]
fn a_chain_of_reasons_reads_from_the_thing_to_the_change() {
    let changed = Because::changed(Difference::new(DifferenceKind::Code, "a became b"));
    assert_eq!(changed.to_string(), "changed: a became b");
    let needed = Because::needed_by("helper").behind(&Because::needed_by("f").behind(&changed));
    assert_eq!(needed.to_string(), "needed by helper, which is needed by f, which changed: a became b");
    let entry = Because::describes("f").behind(&changed);
    assert_eq!(entry.to_string(), "describes code of f, which changed: a became b");
    let code = Because::needed_by("the entry").behind(&entry);
    assert_eq!(code.to_string(), "needed by the entry, which describes code of f, which changed: a became b");
    assert!(needed.is_complete() && !Because::needed_by("f").is_complete());
    assert!(changed.is_changed() && !needed.is_changed());
    let new = Because::needed_by("f").behind(&Link::New.into());
    assert_eq!(new.to_string(), "needed by f, which is new: the original has nothing that corresponds to it");
    assert_eq!(
        serde_json::to_value(&entry).unwrap(),
        serde_json::json!([
            { "because": "describes", "function": "f" },
            { "because": "changed", "first_difference": { "kind": "code", "what": "a became b" } },
        ])
    );
}

#[test]
fn refusals_are_let_through_by_code_and_name_and_nothing_else_is() {
    let refusal = |code, symbol: &str| Diagnostic::new(code, "it is so").at(Place::none().symbol(symbol));
    let mut problems = Problems(vec![
        refusal(REFUSE, "struct one"),
        refusal(REFUSE, "two"),
        refusal(FAIL, "one"),
        refusal(REFUSE, "file.c#three"),
    ]);
    let allow = |code, name: Option<&str>| Allowance { code, name: name.map(str::to_owned) };
    let allowances = [
        allow(REFUSE, Some("one")),
        allow(REFUSE, Some("three")),
        allow(REFUSE, Some("four")),
        allow(FAIL, None),
    ];
    let allowed = problems.allow(&allowances);
    let kinds: Vec<Kind> = problems.0.iter().map(|problem| problem.kind).collect();
    assert_eq!(kinds, [Kind::Warning, Kind::Refusal, Kind::Failure, Kind::Warning]);
    assert!(
        problems.0[0].what.ends_with("(let through by --allow some-refusal:one)"),
        "{}",
        problems.0[0].what
    );
    assert_eq!(
        allowed.refusals.into_iter().collect::<Vec<_>>(),
        ["some-refusal:file.c#three", "some-refusal:one"]
    );
    assert_eq!(allowed.unused, allowances[2..]);
}
