//! Documents and edits are made block by block, so that what a directive may stand before is known without
//! reading C. Numbers come from a model that knows `#line`, `#if`, `#else` and `#endif` at the start of a line
//! and nothing else, or from the compiler's own preprocessor.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use object::{Object, ObjectSection};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

use super::*;

fn neutral(before: &str, after: &str) -> Option<String> {
    neutralise(before.as_bytes(), after.as_bytes()).unwrap().map(|text| String::from_utf8(text).unwrap())
}

#[test]
fn what_moves_no_line_needs_nothing() {
    for (before, after) in [
        ("a;\nb;\nc;\n", "a;\nB;\nc;\n"),
        ("a;\nb;\n", "a;\nb;\nc;\n"),
        ("a;\n\n\nb;\n", "a;\n\nx;\nb;\n"),
        ("a;\nb;\n", "a;\n"),
        ("a;\n/* b */\n", "a;\n\n/* b */\n\n"),
        ("", "a;\n"),
        ("a;\n", ""),
    ] {
        assert_eq!(neutral(before, after), None, "{after}");
    }
}

#[test]
fn a_directive_stands_behind_each_run_that_moves_lines() {
    assert_eq!(
        neutral("a;\nb;\nc;\nd;\ne;\n", "x;\na;\nb;\nd;\ny;\ny;\n\n/* */\ne;").as_deref(),
        Some("x;\n#line 1\na;\nb;\n#line 4\nd;\ny;\ny;\n\n/* */\ne;")
    );
    assert_eq!(neutral("a;\nb;", "a;\nx;\nb;").as_deref(), Some("a;\nx;\n#line 2\nb;"));
}

#[test]
fn it_waits_for_the_end_of_what_it_must_not_divide() {
    assert_eq!(
        neutral("f(a,\n  b);\ng;\n", "f(a,\n  x,\n  b);\ng;\n").as_deref(),
        Some("f(a,\n  x,\n  b);\n#line 3\ng;\n")
    );
    assert_eq!(
        neutral("#define A \\\n  b\n/* c */\ng;\n", "#define A \\\n  x \\\n  b\n/* c */\ng;\n").as_deref(),
        Some("#define A \\\n  x \\\n  b\n/* c */\n#line 4\ng;\n")
    );
}

#[test]
fn a_group_that_may_be_skipped_is_no_place_to_rely_on() {
    assert_eq!(
        neutral("#if A\na;\nb;\n#endif\nc;\n", "#if A\na;\nx;\nb;\n#endif\nc;\n").as_deref(),
        Some("#if A\na;\nx;\n#line 3\nb;\n#endif\n#line 5\nc;\n")
    );
    // Whether A or not, two lines came and none is left to say so.
    assert_eq!(
        neutral("#if A\na;\n#else\nb;\n#endif\nc;\n", "#if A\nx;\na;\n#else\nb;\ny;\n#endif\nc;\n")
            .as_deref(),
        Some("#if A\nx;\n#line 2\na;\n#else\n#line 4\nb;\ny;\n#endif\n#line 6\nc;\n")
    );
}

#[test]
fn a_file_with_directives_of_its_own_is_left_alone() {
    let result = neutralise(b"a;\n#line 7\nb;\n", b"a;\nx;\n# line 7\nb;\n");
    assert_eq!(result, Err(OwnDirective { line: 3 }));
    assert_eq!(neutralise(b"a;\n", b"# 7 \"x\"\na;\n"), Err(OwnDirective { line: 1 }));
}

#[test]
fn only_c_files_that_stay_are_made_neutral() {
    let change = |path: &str, before: Option<&str>, after: Option<&str>| {
        let bytes = |text: &str| text.as_bytes().to_vec();
        let change = crate::patchset::FileChange {
            before: before.map(bytes),
            after: after.map(bytes),
            executable: false,
            was_executable: false,
        };
        (path.to_owned(), change)
    };
    let (before, after) = (Some("a;\nb;\n"), Some("x;\na;\nb;\n"));
    let changes: Changes = [
        change("xen/common/a.c", before, after),
        change("xen/include/xen/a.h", before, after),
        change("xen/include/public/a.h", before, after),
        change("xen/include/xen/a.lds.h", before, after),
        change("xen/arch/x86/a.S", before, after),
        change("xen/common/Makefile", before, after),
        change("xen/tools/symbols.c", before, after),
        change("xen/arch/arm/a.c", before, after),
        change("xen/common/new.c", None, after),
        change("xen/common/gone.c", before, None),
        change("xen/common/own.c", before, Some("x;\n#line 1\na;\nb;\n")),
    ]
    .into();
    let (neutral, warnings) = files(&changes);
    assert_eq!(neutral.keys().collect::<Vec<_>>(), ["xen/common/a.c", "xen/include/xen/a.h"]);
    assert_eq!(neutral["xen/common/a.c"], b"x;\n#line 1\na;\nb;\n");
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].code, codes::LINES_MOVED);
    assert_eq!(warnings[0].place, Place::file("xen/common/own.c").line(2));
}

/// What a leaf of a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Statement,
    Blank,
    Comment,
    LineComment,
    Macro,
    Pragma,
    Call,
    /// A call with a group of `#if` among its arguments.
    DividedCall,
    /// A string over two lines.
    LongString,
}

#[derive(Debug, Clone)]
enum Node {
    Leaf { kind: Kind, id: usize, grown: usize },
    Group { id: usize, then: Vec<Node>, otherwise: Option<Vec<Node>> },
}

/// A line of a document.
struct Row {
    text: String,
    /// Whether a directive may stand before it.
    legal: bool,
}

/// The rows of a document, and the numbers `N` of the code `tN` in it, whose line has to stay: all of a block
/// that has not grown, and the first line of one that has.
#[derive(Default)]
struct Document {
    rows: Vec<Row>,
    exact: BTreeSet<usize>,
}

impl Document {
    fn of(nodes: &[Node]) -> Document {
        let mut document = Document::default();
        document.add(nodes);
        document
    }

    fn text(&self) -> String {
        self.rows.iter().fold(String::new(), |text, row| text + &row.text + "\n")
    }

    fn row(&mut self, legal: bool, text: String) {
        self.rows.push(Row { text, legal });
    }

    fn add(&mut self, nodes: &[Node]) {
        for node in nodes {
            match node {
                Node::Leaf { kind, id, grown } => self.leaf(*kind, *id * 10, *grown),
                Node::Group { id, then, otherwise } => {
                    self.row(true, format!("#if X{id}"));
                    self.add(then);
                    if let Some(otherwise) = otherwise {
                        self.row(true, format!("#else /* {id} */"));
                        self.add(otherwise);
                    }
                    self.row(true, format!("#endif /* {id} */"));
                }
            }
        }
    }

    fn leaf(&mut self, kind: Kind, n: usize, grown: usize) {
        // All lines differ, white space at their ends included: else whether a block stayed or its neighbours
        // did would be a matter of taste.
        let more = |line: &str| -> Vec<String> {
            (1..=grown).map(|more| line.replace('~', &" ".repeat(n * 10 + more))).collect()
        };
        let lines = match kind {
            Kind::Statement => vec![format!("t{n} __LINE__ ;")],
            Kind::Blank => vec![" ".repeat(n)],
            Kind::LineComment => vec![format!("// c{n} ((")],
            Kind::Pragma => vec![format!("#pragma p{n}")],
            Kind::Comment => {
                [vec![format!("/* c{n} ( \"")], more("#if 0~"), vec![format!(" * don't {n} */")]].concat()
            }
            Kind::Macro => [
                vec![format!("#define M{n}(x) do {{ \\")],
                more("  __LINE__ (~ \\"),
                vec![format!("  \"\\\"(\" '(' /* ( */ m{n} }} while ( 0 )")],
            ]
            .concat(),
            Kind::Call => {
                self.exact.extend([n, n + 1].iter().filter(|_| grown == 0));
                [
                    vec![format!("f(t{n} __LINE__ ,")],
                    more("x, /* ) */~"),
                    vec![format!("\")\", ')', g(t{} __LINE__ ));", n + 1)],
                ]
                .concat()
            }
            Kind::DividedCall => {
                self.exact.extend([n, n + 1, n + 2, n + 3].iter().filter(|_| grown == 0));
                [
                    vec![
                        format!("f(t{n} __LINE__ ,"),
                        format!("#if X{n}"),
                        format!("g(t{} __LINE__ ,", n + 1),
                    ],
                    more("x,~"),
                    vec![
                        format!("#else /* {n} */"),
                        format!("g(t{} __LINE__ ,", n + 2),
                        format!("#endif /* {n} */"),
                    ],
                    vec![format!("t{} __LINE__ ));", n + 3)],
                ]
                .concat()
            }
            Kind::LongString => {
                [vec![format!("t{n} __LINE__ = \"a\\")], more("(b~\\"), vec![format!("c{n}\\\"(\" ;")]]
                    .concat()
            }
        };
        // Where a statement or a call has grown, its first line still begins where a directive may stand, but
        // the argument of a macro may get the number of the last line.
        if matches!(kind, Kind::Statement | Kind::LongString) && grown == 0 {
            self.exact.insert(n);
        }
        for (index, text) in lines.into_iter().enumerate() {
            self.row(index == 0, text);
        }
    }
}

/// An edit of the block that an index chooses.
#[derive(Debug, Clone)]
enum Edit {
    Insert(Vec<Node>),
    Delete,
    Grow(usize),
}

fn leaf() -> impl Strategy<Value = Node> {
    let kinds = prop_oneof![
        4 => Just(Kind::Statement),
        1 => Just(Kind::Blank),
        1 => Just(Kind::Comment),
        1 => Just(Kind::LineComment),
        1 => Just(Kind::Macro),
        1 => Just(Kind::Pragma),
        2 => Just(Kind::Call),
        1 => Just(Kind::DividedCall),
        1 => Just(Kind::LongString),
    ];
    kinds.prop_map(|kind| Node::Leaf { kind, id: 0, grown: 0 })
}

fn nodes() -> impl Strategy<Value = Vec<Node>> {
    let node = leaf().prop_recursive(3, 24, 6, |inner| {
        (vec(inner.clone(), 0..6), proptest::option::of(vec(inner, 0..6)))
            .prop_map(|(then, otherwise)| Node::Group { id: 0, then, otherwise })
    });
    vec(node, 1..14)
}

/// A document and edits of it.
fn cases() -> impl Strategy<Value = (Vec<Node>, Vec<(Index, Edit)>)> {
    let edit = prop_oneof![
        2 => nodes().prop_map(Edit::Insert),
        2 => Just(Edit::Delete),
        2 => (1..4_usize).prop_map(Edit::Grow),
    ];
    (nodes(), vec((any::<Index>(), edit), 0..5))
}

/// Gives every block a number of its own.
fn number(nodes: &mut [Node], next: &mut usize) {
    for node in nodes {
        match node {
            Node::Leaf { id, .. } => *id = *next,
            Node::Group { id, then, otherwise } => {
                *id = *next * 10 + 9;
                *next += 1;
                number(then, next);
                number(otherwise.as_deref_mut().unwrap_or_default(), next);
            }
        }
        *next += 1;
    }
}

fn count(nodes: &[Node]) -> usize {
    nodes
        .iter()
        .map(|node| match node {
            Node::Leaf { .. } => 1,
            Node::Group { then, otherwise, .. } => 1 + count(then) + otherwise.as_deref().map_or(0, count),
        })
        .sum()
}

/// Edits the `at`th block, counted in the order of the text.
fn edit(nodes: &mut Vec<Node>, at: &mut usize, change: &Edit) -> bool {
    for index in 0..nodes.len() {
        if *at == 0 {
            match (change, &mut nodes[index]) {
                (Edit::Insert(new), _) => {
                    nodes.splice(index..index, new.iter().cloned());
                }
                (Edit::Grow(more), Node::Leaf { grown, .. }) => *grown += more,
                (Edit::Delete | Edit::Grow(_), _) => {
                    nodes.remove(index);
                }
            }
            return true;
        }
        *at -= 1;
        if let Node::Group { then, otherwise, .. } = &mut nodes[index]
            && (edit(then, at, change)
                || otherwise.as_mut().is_some_and(|otherwise| edit(otherwise, at, change)))
        {
            return true;
        }
    }
    false
}

/// The document before and after.
fn both(mut before: Vec<Node>, edits: Vec<(Index, Edit)>, next: &mut usize) -> (Document, Document) {
    number(&mut before, next);
    let mut after = before.clone();
    for (index, mut change) in edits {
        if let Edit::Insert(new) = &mut change {
            number(new, next);
        }
        let mut at = index.index(count(&after).max(1));
        edit(&mut after, &mut at, &change);
    }
    (Document::of(&before), Document::of(&after))
}

/// The number of each piece of code that is not skipped, by the model.
fn numbers(text: &str, truth: impl Fn(usize) -> bool) -> BTreeMap<usize, usize> {
    let mut numbers = BTreeMap::new();
    let mut active = vec![true];
    let mut number = 1;
    for line in text.lines() {
        let all = active.iter().all(|active| *active);
        let digits = |rest: &str| -> usize {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            rest[..end].parse().unwrap()
        };
        if let Some(rest) = line.strip_prefix("#line ") {
            if all {
                number = rest.parse::<usize>().unwrap();
                continue;
            }
        } else if let Some(rest) = line.strip_prefix("#if X") {
            active.push(truth(digits(rest)));
        } else if line.starts_with("#else") {
            *active.last_mut().unwrap() ^= true;
        } else if line.starts_with("#endif") {
            active.pop();
        } else if all {
            for (at, _) in line.match_indices('t') {
                if line[at + 1..].starts_with(|c: char| c.is_ascii_digit()) {
                    numbers.insert(digits(&line[at + 1..]), number);
                }
            }
        }
        number += 1;
    }
    numbers
}

/// Directives stand where they may, and nothing else differs.
fn check_text(after: &Document, text: &str) {
    let mut rows = after.rows.iter();
    let mut row = rows.next();
    for line in text.lines() {
        if line.starts_with("#line ") {
            assert!(row.unwrap().legal, "before {:?} in\n{text}", row.unwrap().text);
        } else {
            assert_eq!(line, row.unwrap().text);
            row = rows.next();
        }
    }
    assert!(row.is_none());
}

/// Whatever is in both and has to stay has the same number in both.
fn check_numbers(
    before: &Document,
    after: &Document,
    old: &BTreeMap<usize, usize>,
    new: &BTreeMap<usize, usize>,
    text: &str,
) -> usize {
    let mut checked = 0;
    for id in before.exact.intersection(&after.exact) {
        if let Some(number) = old.get(id) {
            // An edit may take a block out of one branch only, never put it elsewhere.
            assert_eq!(new.get(id), Some(number), "t{id} of\n{}in\n{text}", before.text());
            checked += 1;
        }
    }
    checked
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::with_cases(400) })]

    #[test]
    fn unchanged_code_keeps_its_numbers_whatever_is_skipped((nodes, edits) in cases(), mask in any::<u64>()) {
        let (before, after) = both(nodes, edits, &mut 1);
        let text = neutral(&before.text(), &after.text()).unwrap_or_else(|| after.text());
        check_text(&after, &text);
        for truth in [0, mask, u64::MAX] {
            let truth = |id: usize| truth >> (id / 7 % 64) & 1 == 1;
            let (old, new) = (numbers(&before.text(), truth), numbers(&text, truth));
            check_numbers(&before, &after, &old, &new, &text);
        }
    }

    #[test]
    fn whatever_the_text_only_directives_are_added(
        before in "([a(/*\"'\\\\#]|#if|#else|#endif|\n){0,60}",
        after in "([a(/*\"'\\\\#]|#if|#else|#endif|\n){0,60}",
    ) {
        if let Ok(Some(text)) = neutralise(before.as_bytes(), after.as_bytes()) {
            let left: String = String::from_utf8(text).unwrap()
                .split_inclusive('\n').filter(|line| !line.starts_with("#line ")).collect();
            prop_assert_eq!(left, after);
        }
    }

    #[test]
    fn lines_are_paired_with_equal_ones_in_order(
        before in vec(0..6_u8, 0..40), after in vec(0..6_u8, 0..40),
    ) {
        let text = |lines: &[u8]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        let pairs = origins(text(&before).as_bytes(), text(&after).as_bytes());
        prop_assert_eq!(pairs.len(), after.len());
        let mut last = 0;
        for (line, origin) in after.iter().zip(pairs) {
            if let Some(origin) = origin {
                prop_assert!(origin > last);
                prop_assert_eq!(before[usize::try_from(origin).unwrap() - 1], *line);
                last = origin;
            }
        }
    }
}

fn has_gcc() -> bool {
    let found = Command::new("gcc").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("skipped: gcc is not there");
    }
    found
}

/// The number of each piece of code, by the compiler's preprocessor; one map for each file.
fn gcc_numbers(folder: &Path, texts: &[String], truth: &str) -> Vec<BTreeMap<usize, usize>> {
    std::fs::write(folder.join("truth.h"), truth).unwrap();
    let mut command = Command::new("gcc");
    command.current_dir(folder).args(["-E", "-P", "-x", "c", "-include", "truth.h"]);
    for (index, text) in texts.iter().enumerate() {
        let name = format!("{index}.c");
        std::fs::write(folder.join(&name), format!("{text}#define END file{index}\nEND\n")).unwrap();
        command.arg(name);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let words = String::from_utf8(output.stdout).unwrap();
    let mut files = Vec::new();
    let mut numbers = BTreeMap::new();
    let mut last = None;
    for word in words.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        if let (Some(id), Ok(number)) = (last.take(), word.parse()) {
            numbers.insert(id, number);
        }
        if word.starts_with("file") {
            files.push(std::mem::take(&mut numbers));
        }
        last = word.strip_prefix('t').and_then(|digits| digits.parse().ok());
    }
    files
}

#[test]
fn the_compiler_agrees() {
    if !has_gcc() {
        return;
    }
    const CASES: usize = 120;
    let mut runner = TestRunner::deterministic();
    let strategy = cases();
    let mut most = 0;
    let documents: Vec<(Document, Document)> = (0..CASES)
        .map(|_| {
            let (nodes, edits) = strategy.new_tree(&mut runner).unwrap().current();
            let mut next = 1;
            let documents = both(nodes, edits, &mut next);
            most = most.max(next);
            documents
        })
        .collect();
    let old: Vec<String> = documents.iter().map(|(before, _)| before.text()).collect();
    let new: Vec<String> = documents
        .iter()
        .map(|(before, after)| neutral(&before.text(), &after.text()).unwrap_or_else(|| after.text()))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let mut checked = 0;
    for (f, truth) in [("f", 0), ("g", 1), ("h", 2)] {
        // One of the functions is a macro.
        let mut defined = format!("#define {f}(...) {{ __VA_ARGS__ }}\n");
        for id in 0..most * 10 + 10 {
            writeln!(defined, "#define X{id} {}", u8::from(truth == 2 || id / 3 % 2 == truth)).unwrap();
        }
        let (old, all) =
            (gcc_numbers(folder.path(), &old, &defined), gcc_numbers(folder.path(), &new, &defined));
        assert_eq!((old.len(), all.len()), (CASES, CASES));
        for (index, (before, after)) in documents.iter().enumerate() {
            checked += check_numbers(before, after, &old[index], &all[index], &new[index]);
        }
    }
    assert!(checked > CASES * 5, "{checked}");
}

const SOURCE: &str = "#define WARN() record(__LINE__, __FILE__)
void record(int line, const char *file);
#define TWICE(x) do { \\
        WARN(); \\
        record(__LINE__, x); \\
    } while ( 0 )

void first(int a)
{
    if ( a )
        WARN();
}

#ifdef NEVER
void never(void) { WARN(); }
#endif

void second(void)
{
    TWICE(
        \"text\");
    WARN();
}

void third(void)
{
    WARN(); /* a comment
             * of two lines */
    WARN();
}
";

/// The code and relocations of a function.
fn section(object: &[u8], name: &str) -> (Vec<u8>, Vec<(u64, i64)>) {
    let file = object::File::parse(object).unwrap();
    let section = file.section_by_name(&format!(".text.{name}")).unwrap();
    let relocations = section.relocations().map(|(offset, relocation)| (offset, relocation.addend()));
    (section.data().unwrap().to_vec(), relocations.collect())
}

#[test]
fn code_below_a_change_stays_as_it_is() {
    if !has_gcc() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let compile = |text: &str| {
        let file = folder.path().join("source.c");
        std::fs::write(&file, text).unwrap();
        let output = Command::new("gcc")
            .current_dir(folder.path())
            .args(["-O2", "-Wall", "-Wextra", "-Werror", "-g0", "-ffunction-sections", "-c", "source.c"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
        std::fs::read(folder.path().join("source.o")).unwrap()
    };
    let base = compile(SOURCE);
    for (old, new) in [
        ("    if ( a )\n", "    if ( a > 1 )\n        WARN();\n\n    if ( a )\n"),
        ("        WARN(); \\\n", "        WARN(); \\\n        (void)(x); \\\n"),
        (
            "#define TWICE",
            "static int unused(void);\n\nstatic inline int unused(void)\n{\n    return 1;\n}\n#define TWICE",
        ),
        ("void never(void) { WARN(); }\n", "void never(void)\n{\n    WARN();\n}\n"),
        ("#ifdef NEVER\nvoid never(void) { WARN(); }\n#endif\n\n", ""),
        ("\nvoid first", "/*\n * More.\n */\nvoid first"),
    ] {
        assert!(SOURCE.contains(old), "{old}");
        let patched = SOURCE.replacen(old, new, 1);
        let text = neutral(SOURCE, &patched).unwrap();
        let (plain, neutral) = (compile(&patched), compile(&text));
        for name in ["second", "third"] {
            assert_eq!(section(&neutral, name), section(&base, name), "{name} in\n{text}");
            assert_ne!(section(&plain, name), section(&base, name), "{name} in\n{patched}");
        }
    }
    // Within the call that the change divides, the number is the compiler's choice; behind it all is as it was.
    let patched = SOURCE.replacen("        \"text\");\n", "        /* more */\n        \"text\");\n", 1);
    let neutral = compile(&neutral(SOURCE, &patched).unwrap());
    assert_eq!(section(&neutral, "third"), section(&base, "third"));
}
