use xsplice_diff::{Piece, PieceKind, Selection};
use xsplice_report::{Because, Place};

use super::super::judge::{Functions, Held, Named};
use super::*;

fn entry(number: usize) -> Entry {
    Entry { number, commit: format!("c0ffee{number:04}56789"), reverse: false }
}

fn candidate(number: usize, kinds: &[Kind]) -> Candidate {
    Candidate {
        entry: entry(number),
        file: PathBuf::new(),
        kinds: kinds.iter().copied().collect(),
        bytes: 1000,
        functions: 1,
    }
}

fn numbers(candidates: &[Candidate], choice: &Choice) -> Vec<usize> {
    choice.places.iter().map(|place| candidates[*place].entry.number).collect()
}

#[test]
fn every_kind_is_named_once() {
    let names: BTreeSet<&str> = Kind::ALL.iter().map(|kind| kind.text()).collect();
    let kinds: BTreeSet<Kind> = Kind::ALL.into_iter().collect();
    assert_eq!((names.len(), kinds.len()), (Kind::ALL.len(), Kind::ALL.len()));
}

#[test]
fn who_has_most_of_what_is_missing_comes_first() {
    let all = [
        candidate(1, &[Kind::Altcalls]),
        candidate(2, &[Kind::Altcalls, Kind::Strings]),
        candidate(3, &[Kind::Altcalls, Kind::Strings, Kind::Alternatives]),
        candidate(4, &[Kind::BugFrames]),
    ];
    let choice = choose(&all, 2);
    assert_eq!((numbers(&all, &choice), choice.left_out), (vec![3, 4], BTreeSet::new()));
}

#[test]
fn the_first_of_equal_ones_is_taken() {
    let all = [
        candidate(1, &[]),
        candidate(2, &[Kind::Strings, Kind::Altcalls]),
        candidate(3, &[Kind::Strings, Kind::NewData]),
        candidate(4, &[Kind::NewData]),
    ];
    assert_eq!(numbers(&all, &choose(&all, 2)), [2, 3]);
}

#[test]
fn kinds_for_which_there_is_no_place_are_named() {
    let all = [candidate(1, &[Kind::Strings]), candidate(2, &[Kind::Altcalls, Kind::NewData])];
    let choice = choose(&all, 1);
    assert_eq!((numbers(&all, &choice), choice.left_out), (vec![2], BTreeSet::from([Kind::Strings])));
}

#[test]
fn what_is_left_is_spread_over_the_list() {
    let mut all: Vec<Candidate> = (1..=9).map(|number| candidate(number, &[])).collect();
    all[0].kinds.insert(Kind::Strings);
    // Of 2 to 9, the middle of each quarter.
    assert_eq!(numbers(&all, &choose(&all, 5)), [1, 3, 5, 7, 9]);
    assert_eq!(numbers(&all, &choose(&all, 9)), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(numbers(&all, &choose(&all, 20)).len(), 9);
    assert_eq!(choose(&[], 3), Choice { places: vec![], left_out: BTreeSet::new() });
}

#[test]
fn the_largest_and_the_smallest_are_the_first_of_their_size() {
    let mut all: Vec<Candidate> = (1..=4).map(|number| candidate(number, &[])).collect();
    all[1].bytes = 2000;
    all[2].bytes = 2000;
    mark_extremes(&mut all);
    let kinds: Vec<Vec<Kind>> = all.iter().map(|c| c.kinds.iter().copied().collect()).collect();
    assert_eq!(kinds, [vec![Kind::Smallest], vec![Kind::Largest], vec![], vec![]]);
}

#[test]
fn variables_of_functions_have_a_number_only() {
    assert!(is_static_local("common/keyhandler.c#count.12"));
    for other in [
        "common/keyhandler.c#count",
        "arch/x86/mm.c#f.isra.0",
        "arch/x86/mm.c#f.part.0.cold",
        "arch/x86/mm.c#f.",
        "plain.12",
    ] {
        assert!(!is_static_local(other), "{other}");
    }
}

#[test]
fn a_header_is_told_from_the_names_of_the_files() {
    assert!(touches_header("--- a/xen/include/xen/event.h\n+++ b/xen/include/xen/event.h\n@@ -1 +1 @@\n"));
    assert!(touches_header("--- a/xen/include/xen/event.h\n+++ /dev/null\n"));
    assert!(!touches_header("--- a/xen/a.c\n+++ b/xen/a.c\n+#include <xen/event.h>\n"));
}

#[test]
fn three_objects_are_many_whatever_the_number_of_functions() {
    let mut judged = Judged {
        entry: entry(1),
        ending: Ending::Payload,
        problems: Vec::new(),
        ours: None,
        whole: BTreeSet::new(),
        data: BTreeSet::new(),
        held: Held { fragments: 1, ..Held::default() },
        oracle: None,
        build_seconds: 0.0,
        seconds: 0.0,
    };
    let functions = |names: &[(&str, &str)]| {
        let named = names.iter().map(|(o, n)| Named { object: (*o).to_owned(), name: (*n).to_owned() });
        Some(Functions { changed: named.collect(), ..Functions::default() })
    };
    judged.ours = functions(&[("a.o", "f"), ("b.o", "f"), ("a.o", "g")]);
    assert_eq!(of_judged(&judged), BTreeSet::from([Kind::Fragments, Kind::Later]));
    judged.ours = functions(&[("a.o", "f"), ("b.o", "f"), ("c.o", "f")]);
    judged.entry.reverse = true;
    assert_eq!(of_judged(&judged), BTreeSet::from([Kind::Fragments, Kind::ManyObjects, Kind::Earlier]));
}

#[test]
fn what_a_selection_holds_is_told_by_the_kinds_and_names_of_its_pieces() {
    let piece = |kind, label: &str, symbol: Option<&str>| Piece {
        kind,
        object: "a.o".to_owned(),
        label: label.to_owned(),
        symbol: symbol.map(str::to_owned),
        global: false,
        bytes: Vec::new(),
        declared: 0,
        align: 1,
        references: Vec::new(),
        because: Because::needed_by("f"),
    };
    let selection = Selection {
        pieces: vec![
            piece(PieceKind::Text, "f", Some("a.c#f")),
            piece(PieceKind::Text, "f.cold", None),
            piece(PieceKind::Text, "code put aside at .text+0x10", None),
            piece(PieceKind::Text, "g", None),
            piece(PieceKind::Fixup, "fixup code at .fixup+0x0", None),
            piece(PieceKind::ReadOnly, "string \"x.cold\"", None),
            piece(PieceKind::ReadOnly, "constant 0x1", None),
            piece(PieceKind::ReadOnly, "table", Some("a.c#table")),
            piece(PieceKind::Data, "string ", Some("a.c#variable")),
        ],
        new_functions: vec![("g".to_owned(), Place::none())],
        ..Selection::default()
    };
    assert_eq!(Held::of(&selection), Held { new_functions: 1, fragments: 2, strings: 1, read_only: 2 });
}

#[test]
fn kinds_are_counted_the_missing_ones_too() {
    let all = [candidate(1, &[Kind::Strings]), candidate(2, &[Kind::Strings, Kind::NewData])];
    let counts = count(&all);
    assert_eq!(counts.len(), Kind::ALL.len());
    assert_eq!((counts[&Kind::Strings], counts[&Kind::NewData], counts[&Kind::Largest]), (2, 1, 0));
}
