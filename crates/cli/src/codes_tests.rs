//! All diagnostic codes of all crates: the list is what is released, each name is unique, and each is provoked by a
//! test.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::explanations::CRATES;

/// Codes that no test provokes, each with the reason.
const UNTESTED: &[(&str, &str)] = &[];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All files below a folder, in a fixed order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// What a source file says outside and inside of tests.
fn split(path: &Path) -> (String, String) {
    let known = path.extension().is_some_and(|e| ["rs", "c", "S"].iter().any(|known| e == *known));
    let Some(text) = std::fs::read_to_string(path).ok().filter(|_| known) else { return Default::default() };
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let is_test = name == "tests.rs"
        || name.ends_with("_tests.rs")
        || path.components().any(|part| part.as_os_str() == "tests");
    if is_test {
        return (String::new(), text);
    }
    match text.split_once("#[cfg(test)]\nmod tests {") {
        Some((product, tests)) => (product.to_owned(), tests.to_owned()),
        None => (text, String::new()),
    }
}

/// The sources of a crate outside and inside of tests.
fn sources(krate: &str) -> (String, String) {
    let mut all = (String::new(), String::new());
    for path in files(&workspace().join("crates").join(krate)) {
        // This file names every code.
        if path.ends_with("cli/src/codes_tests.rs") {
            continue;
        }
        let (product, tests) = split(&path);
        all.0.push_str(&product);
        all.1.push_str(&tests);
    }
    all
}

/// The constants that a crate's sources make codes with, by the codes' names.
fn constants(product: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for kind in ["refusal", "failure", "warning"] {
        let call = format!("{kind}(");
        for (at, _) in product.match_indices(&call) {
            let Some(rest) = product[at + call.len()..].trim_start().strip_prefix('"') else { continue };
            let Some((name, _)) = rest.split_once('"') else { continue };
            // `pub const NAME: Code = Code::refusal(`, or `NAME = refusal(` in a list.
            let before = product[..at].trim_end_matches("Code::").trim_end();
            let before = before.trim_end_matches('=').trim_end().trim_end_matches(": Code");
            let constant = before.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next();
            found.insert(name.to_owned(), constant.unwrap_or_default().to_owned());
        }
    }
    found
}

fn holds_word(text: &str, word: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(inside) && !text[at + word.len()..].starts_with(inside))
}

#[test]
fn the_codes_are_the_released_ones() {
    let mut list = String::new();
    for (krate, codes, _) in CRATES {
        let _ = writeln!(list, "# {krate}");
        for code in *codes {
            let kind = crate::render::kind(code.kind);
            let _ = writeln!(list, "{} ({kind}): {}", code.name, code.summary);
        }
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/codes.txt");
    let released = std::fs::read_to_string(&file).unwrap_or_default();
    let gone: Vec<&str> = released.lines().filter(|line| !list.lines().any(|l| l == *line)).collect();
    let new: Vec<&str> = list.lines().filter(|line| !released.lines().any(|l| l == *line)).collect();
    assert!(
        list == released,
        "{} does not list the codes any more.\nOnly there:\n{}\nOnly in the program:\n{}\nAll of it:\n{list}",
        file.display(),
        gone.join("\n"),
        new.join("\n")
    );
}

#[test]
fn the_names_of_codes_are_unique_and_well_formed() {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for (krate, codes, _) in CRATES {
        for code in *codes {
            let name = code.name;
            if let Some(other) = seen.insert(name, krate) {
                panic!("{krate} and {other} both have {name}");
            }
            let words = name.split('-').all(|word| {
                !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            });
            assert!(words, "{name} is not made of lower case words joined by -");
            assert!(code.summary.ends_with('.') && !code.summary.contains('\n'), "{name}: {}", code.summary);
        }
    }
}

#[test]
fn no_code_is_missing_in_the_list_of_its_crate() {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(workspace().join("crates"))
        .expect("the crates")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    folders.sort();
    for folder in folders {
        let krate = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let listed: BTreeSet<&str> = CRATES
            .iter()
            .filter(|(name, ..)| *name == krate)
            .flat_map(|(_, codes, _)| codes.iter().map(|code| code.name))
            .collect();
        let made = constants(&sources(&krate).0);
        let made: BTreeSet<&str> = made.keys().map(String::as_str).collect();
        assert_eq!(made, listed, "{krate}: made in its sources, and listed in ALL");
    }
}

#[test]
fn every_code_is_provoked_by_a_test() {
    let mut everywhere = String::new();
    for path in files(&workspace().join("crates")) {
        if !path.ends_with("cli/src/codes_tests.rs") {
            everywhere.push_str(&split(&path).1);
        }
    }
    let mut untested = Vec::new();
    for (krate, codes, _) in CRATES {
        let (product, tests) = sources(krate);
        let constants = constants(&product);
        for code in *codes {
            let name = code.name;
            let named = [
                format!("\"{name}\""),
                format!("[{name}]"),
                format!("refused: {name}"),
                format!("warned: {name}"),
            ];
            let constant = constants.get(name).is_some_and(|constant| holds_word(&tests, constant));
            let tested = constant || named.iter().any(|named| everywhere.contains(named));
            let excused = UNTESTED.iter().any(|(excused, _)| *excused == name);
            if tested == excused {
                untested
                    .push(format!("{name} ({krate}){}", if tested { ": is tested, and listed" } else { "" }));
            }
        }
    }
    assert!(untested.is_empty(), "codes without a test that names them:\n{}", untested.join("\n"));
}
