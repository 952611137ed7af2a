//! docs/failures.md lists every known failure once, and each test that it names exists.

use std::fs;
use std::path::{Path, PathBuf};

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

#[test]
fn every_failure_has_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut all = Vec::new();
    files(&root.join("crates"), &mut all);
    let rust = |path: &&PathBuf| path.extension().is_some_and(|e| e == "rs");
    let sources: String = all.iter().filter(rust).filter_map(|path| fs::read_to_string(path).ok()).collect();
    let fixtures = root.join("crates/diff/tests/fixtures");
    let text = fs::read_to_string(root.join("docs/failures.md")).expect("the table");
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| L") || line.starts_with("| F"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let numbers: Vec<String> =
        (1..=16).map(|n| format!("L{n}")).chain((1..=25).map(|n| format!("F{n}"))).collect();
    assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), numbers);
    let excused = rows.iter().filter(|row| row[3].starts_with("cannot occur: ")).count();
    assert!(excused <= 5, "{excused}");
    for row in rows.iter().filter(|row| !row[3].starts_with("cannot occur: ")) {
        for test in row[3].split(", ").map(|name| name.trim_matches('`')) {
            let fixture = ["c", "S"].iter().any(|e| fixtures.join(format!("{test}.{e}")).is_file());
            assert!(fixture || sources.contains(&format!("fn {test}(")), "{}: there is no {test}", row[0]);
        }
    }
}
