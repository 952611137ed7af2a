//! Small C sources, compiled with and without `-DPATCHED`, and the differences each says it has.
//!
//! Comments of a source: `// changed:`, `// new:`, `// removed:`, `// init:` list names; `// data:` lists
//! changes of variables, with N for a compiler's number; `// unknown:` lists sections; `// users VARIABLE:`
//! lists functions; `// flags:` adds flags of gcc. What is not listed must not differ.

use std::{
    collections::BTreeSet,
    io::Write as _,
    path::{Path, PathBuf},
};

use fs_err as fs;
use xsplice_oracle::{Oracle, Verdict};
use xsplice_process::Job;

const FLAGS: &[&str] = &[
    "-c",
    "-g",
    "-O2",
    "-fno-pie",
    "-fno-strict-aliasing",
    "-ffunction-sections",
    "-fdata-sections",
    "-fcf-protection=none",
    "-fno-asynchronous-unwind-tables",
    "-ftoplevel-reorder",
];

/// Whether gcc and binutils are there; says so where they are not.
fn has_tools(test: &str) -> bool {
    let missing = ["gcc", "objdump", "readelf", "objcopy"]
        .into_iter()
        .find(|tool| !Job::new(tool).arg("--version").run().is_ok_and(|ended| ended.success()));
    if let Some(tool) = missing {
        let _ = writeln!(std::io::stderr(), "skipped: {test}: there is no {tool}");
    }
    missing.is_none()
}

fn compile(source: &Path, object: &Path, flags: &[&str]) {
    let job = Job::new("gcc").args(FLAGS).args(flags).arg("-o").arg(object).arg(source);
    let ended = job.run().expect("gcc starts");
    assert!(ended.success(), "{}: {}", source.display(), String::from_utf8_lossy(&ended.stderr));
}

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

/// The words behind `// KEY:` in all lines of a source.
fn expected(source: &str, key: &str) -> BTreeSet<String> {
    let separator = if key == "data" { ',' } else { ' ' };
    let lines =
        source.lines().filter_map(|line| line.strip_prefix("// ")?.strip_prefix(key)?.strip_prefix(':'));
    let words = lines.flat_map(|line| line.split(separator)).map(|word| word.trim().to_owned());
    words.filter(|word| !word.is_empty()).collect()
}

/// A name with N for numbers between dots.
fn unnumbered(name: &str) -> String {
    let words = name.split('.').map(|word| if word.parse::<u32>().is_ok() { "N" } else { word });
    words.collect::<Vec<_>>().join(".")
}

fn differences(source: &str, verdict: &Verdict) -> Vec<String> {
    let mut found = Vec::new();
    let mut check = |what: &str, expected: BTreeSet<String>, got: BTreeSet<String>| {
        if expected != got {
            found.push(format!("{what}: expected {expected:?}, got {got:?}"));
        }
    };
    let names = |names: &BTreeSet<String>| names.iter().map(|name| unnumbered(name)).collect();
    check("changed", expected(source, "changed"), names(&verdict.changed));
    check("new", expected(source, "new"), names(&verdict.new));
    check("removed", expected(source, "removed"), names(&verdict.removed));
    check("init", expected(source, "init"), names(&verdict.init_changed));
    let data = verdict.data.iter().map(|it| format!("{:?} {}", it.what, unnumbered(&it.name)));
    check("data", expected(source, "data"), data.collect());
    let sections = expected(source, "unknown");
    let unknown = verdict.unknown.iter().map(|text| {
        let known = sections.iter().find(|section| text.contains(section.as_str()));
        known.cloned().unwrap_or_else(|| text.clone())
    });
    check("unknown", sections.clone(), unknown.collect());
    for change in &verdict.data {
        let key = format!("users {}", change.name);
        let users = expected(source, &key);
        if !users.is_empty() {
            check(&key, users, change.users.clone());
        }
    }
    found
}

#[test]
fn every_case_differs_in_what_it_says() {
    if !has_tools("every_case_differs_in_what_it_says") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut failures = Vec::new();
    let mut count = 0;
    let mut sources: Vec<PathBuf> =
        fs::read_dir(cases()).expect("cases").map(|entry| entry.expect("an entry").path()).collect();
    sources.sort();
    for path in sources {
        let source = fs::read_to_string(&path).expect("a source");
        let flags = expected(&source, "flags");
        let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let (base, patched) = (folder.path().join("base.o"), folder.path().join("patched.o"));
        compile(&path, &base, &flags);
        flags.push("-DPATCHED");
        compile(&path, &patched, &flags);
        let oracle = Oracle::default();
        let verdict = oracle.judge(&base, &patched).expect("a verdict");
        let mut wrong = differences(&source, &verdict);
        for object in [&base, &patched] {
            let same = oracle.judge(object, object).expect("a verdict");
            if !same.is_same() {
                wrong.push(format!("differs from itself: {same}"));
            }
        }
        let back = oracle.judge(&patched, &base).expect("a verdict");
        if back.new != verdict.removed || back.removed != verdict.new {
            wrong.push(format!("the other way round: {back}"));
        }
        if back.changed.len() != verdict.changed.len() {
            wrong.push(format!("the other way round: {back}"));
        }
        if !wrong.is_empty() {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            failures.push(format!("{name}:\n{}\n{verdict}", wrong.join("\n")));
        }
        count += 1;
    }
    assert!(count >= 30, "only {count} cases were found");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn file_names_in_front_of_symbols_do_not_count() {
    if !has_tools("file_names_in_front_of_symbols_do_not_count") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("unit.c");
    let text = "static int __attribute__((noinline)) local(int x) { static int kept; return kept += x * FACTOR; }\n\
                int user(int x) { return local(x) + 1; }\n";
    fs::write(&source, text).expect("a source");
    let at = |name: &str| folder.path().join(name);
    compile(&source, &at("plain.o"), &["-DFACTOR=3"]);
    compile(&source, &at("other.o"), &["-DFACTOR=5"]);
    for name in ["plain", "other"] {
        let job = Job::new("objcopy").arg("--redefine-sym=local=dir/unit.c#local");
        let job = job.arg("--redefine-sym=kept.0=dir/unit.c#kept.0");
        let ended = job.arg(at(&format!("{name}.o"))).arg(at(&format!("{name}-unique.o"))).run();
        assert!(ended.expect("objcopy starts").success());
    }
    let oracle = Oracle::default();
    let same = oracle.judge(&at("plain.o"), &at("plain-unique.o")).expect("a verdict");
    assert!(same.is_same(), "{same}");
    let differs = oracle.judge(&at("plain-unique.o"), &at("other-unique.o")).expect("a verdict");
    assert_eq!(differs.changed, BTreeSet::from(["dir/unit.c#local".to_owned()]), "{differs}");
    assert!(differs.data.is_empty(), "{differs}");
}

#[test]
fn an_object_without_a_counterpart_is_new_or_removed() {
    if !has_tools("an_object_without_a_counterpart_is_new_or_removed") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (source, object) = (folder.path().join("unit.c"), folder.path().join("unit.o"));
    fs::write(&source, "int variable = 4;\nint function(int x) { return x + variable; }\n")
        .expect("a source");
    compile(&source, &object, &[]);
    let names = BTreeSet::from(["function".to_owned()]);
    let new = Oracle::default().judge_new(&object).expect("a verdict");
    assert_eq!((&new.new, new.data.len(), new.changed.len()), (&names, 1, 0), "{new}");
    let removed = Oracle::default().judge_removed(&object).expect("a verdict");
    assert_eq!((&removed.removed, removed.data.len(), removed.new.len()), (&names, 1, 0), "{removed}");
}

#[test]
fn what_is_no_object_is_an_error() {
    if !has_tools("what_is_no_object_is_an_error") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("text.o");
    fs::write(&path, "not an object").expect("a file");
    assert!(Oracle::default().judge(&path, &path).is_err());
    assert!(Oracle::default().judge(&folder.path().join("missing.o"), &path).is_err());
    assert!(Oracle::with_tools("no-such-objdump", "no-such-readelf").judge(&path, &path).is_err());
}
