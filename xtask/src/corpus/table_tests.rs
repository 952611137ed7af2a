use super::super::capture::Told;
use super::super::judge::{Held, Opinion};
use super::super::list::{Entry, Range};
use super::*;

fn named(names: &[(&str, &str)]) -> BTreeSet<Named> {
    names.iter().map(|(o, n)| Named { object: (*o).to_owned(), name: (*n).to_owned() }).collect()
}

fn data(what: What, plain: bool, users: &[&str]) -> Vec<(String, DataChange)> {
    let users = users.iter().map(|user| (*user).to_owned()).collect();
    vec![("a.o".to_owned(), DataChange { name: "table".to_owned(), what, plain, users })]
}

fn functions(changed: &[(&str, &str)]) -> Functions {
    Functions { changed: named(changed), ..Functions::default() }
}

fn judged(ending: Ending, ours: &[(&str, &str)], oracle: &[(&str, &str)]) -> Judged {
    Judged {
        entry: Entry { number: 3, commit: "c0ffee0123456789".to_owned(), reverse: true },
        ending,
        problems: Vec::new(),
        ours: Some(functions(ours)),
        whole: BTreeSet::new(),
        data: BTreeSet::new(),
        held: Held::default(),
        oracle: Some(Opinion { functions: functions(oracle), ..Opinion::default() }),
        build_seconds: 0.0,
        seconds: 0.0,
    }
}

fn refused(codes: &[&str]) -> Judged {
    let mut judged = judged(Ending::Refused, &[("a.o", "f")], &[("a.o", "f")]);
    let told = |code: &&str| Told {
        code: (*code).to_owned(),
        warning: false,
        what: String::new(),
        place: String::new(),
    };
    judged.problems = codes.iter().map(told).collect();
    judged
}

#[test]
fn the_same_sets_are_no_finding() {
    let judged = judged(Ending::Payload, &[("a.o", "f")], &[("a.o", "f")]);
    assert_eq!(findings(&[judged], &Causes::default()), []);
}

#[test]
fn the_same_name_in_another_object_is_another_function() {
    let judged = judged(Ending::Payload, &[("a.o", "f"), ("a.o", "g")], &[("b.o", "f"), ("c.o", "f")]);
    assert_eq!(disagreement(&judged).as_deref(), Some("ours only: `f`, `g`; oracle only: `f` (2 objects)"));
    assert_eq!(misses(&judged).as_deref(), Some("missed: `f` (2 objects)"));
}

#[test]
fn new_and_removed_functions_are_not_changed_ones() {
    let mut judged = judged(Ending::Payload, &[], &[]);
    judged.ours = Some(Functions { new: named(&[("a.o", "f")]), ..Functions::default() });
    judged.oracle = Some(Opinion {
        functions: Functions { removed: named(&[("a.o", "f")]), ..Functions::default() },
        ..Opinion::default()
    });
    assert_eq!(disagreement(&judged).as_deref(), Some("ours only: new `f`; oracle only: removed `f`"));
}

#[test]
fn assembler_that_is_refused_as_a_whole_has_no_functions_to_compare() {
    let mut judged = judged(Ending::Refused, &[("a.o", "f")], &[("a.o", "f"), ("entry.o", "g")]);
    assert_eq!(disagreement(&judged).as_deref(), Some("oracle only: `g`"));
    judged.whole.insert("entry.o".to_owned());
    assert_eq!(disagreement(&judged), None);
}

#[test]
fn data_outside_the_payload_is_missed_and_in_a_refusal_is_not() {
    let mut judged = judged(Ending::Nothing, &[], &[]);
    judged.oracle.as_mut().expect("an opinion").data = data(What::Changed, true, &[]);
    assert_eq!(misses(&judged).as_deref(), Some("missed: data `table`"));
    judged.ending = Ending::Refused;
    assert_eq!(misses(&judged), None);
    judged.ending = Ending::Payload;
    judged.data = named(&[("a.o", "table")]);
    assert_eq!(misses(&judged), None);
}

#[test]
fn new_data_has_to_come_along_where_changed_code_uses_it() {
    let mut judged = judged(Ending::Payload, &[("a.o", "f")], &[("a.o", "f")]);
    for (what, user, missed) in [
        (What::New, "f", true),
        (What::New, "boots", false),
        (What::Removed, "f", false),
        (What::Changed, "boots", true),
    ] {
        judged.oracle.as_mut().expect("an opinion").data = data(what, true, &[user]);
        assert_eq!(misses(&judged).is_some(), missed, "{what:?} used by {user}");
    }
}

#[test]
fn a_refusal_of_code_alone_falls_short_unless_a_layout_changed() {
    assert_eq!(
        shortfall(&refused(&["orphan-entry", "no-room", "no-room"])).as_deref(),
        Some("no payload: no-room, orphan-entry")
    );
    assert_eq!(shortfall(&refused(&["layout-changed", "no-room"])), None);
    let mut refused = refused(&["data-changed"]);
    for (what, plain, short) in [
        (What::Changed, true, false),
        (What::New, false, false),
        (What::New, true, true),
        (What::Removed, false, true),
    ] {
        refused.oracle.as_mut().expect("an opinion").data = data(what, plain, &["f"]);
        assert_eq!(shortfall(&refused).is_some(), short, "{what:?} {plain}");
    }
}

#[test]
fn a_cause_covers_exactly_what_it_names() {
    let text =
        "[[cause]]\ncommit = \"c0ffee0123\"\nwhat = \"ours only: `f`\"\nwhy = \"\"\"because\nof that\"\"\"\n";
    let causes: Causes = toml::from_str(text).expect("causes");
    let explained = findings(&[judged(Ending::Payload, &[("a.o", "f")], &[])], &causes);
    assert_eq!(explained[0].why.as_deref(), Some("because\nof that"));
    let other = [judged(Ending::Payload, &[("a.o", "f"), ("a.o", "g")], &[])];
    let unexplained = findings(&other, &causes);
    assert_eq!(unexplained[0].why, None);
    assert_eq!(causes.stale(&other, &unexplained), ["c0ffee0123: ours only: `f`"]);
}

#[test]
fn the_document_counts_and_lists_everything() {
    let all = [
        judged(Ending::Payload, &[("a.o", "f")], &[("a.o", "f")]),
        refused(&["no-room"]),
        refused(&["no-room", "layout-changed"]),
    ];
    let causes = Causes::default();
    let text = document(&all, &findings(&all, &causes), &Range::stable_4_17());
    for line in [
        "# 3 real patches",
        "| payload | 1 |",
        "| refused | 2 |",
        "| no-room | 2 | 1 |",
        "| layout-changed | 1 | 0 |",
        "| c0ffee0123 | refused | no payload: no-room | unexplained |",
        "| 3 | c0ffee0123 reversed | refused: layout-changed, no-room | 1 | 1 |",
        "Of 3 patches with objects to compare, 3 have the oracle's set of functions exactly",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
}
