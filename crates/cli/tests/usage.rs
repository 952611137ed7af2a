//! What the command says when it is not given what it needs: text and exit code. No Xen tree is needed.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

fn xsplice(dir: &Path, args: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_xsplice"))
        .args(args)
        .current_dir(dir)
        .env("XSPLICE_CACHE", dir.join("cache"))
        .stdin(Stdio::null())
        .output()
        .expect("the program starts");
    Ran {
        code: output.status.code().expect("it ends by itself"),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A folder with a patch, a configuration, a tree that is none, and files that are not what they should be.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("a file");
    write("fix.patch", "--- a/xen/common/a.c\n+++ b/xen/common/a.c\n@@ -1 +1 @@\n-int a;\n+int b;\n");
    write("config", "CONFIG_LIVEPATCH=y\n");
    write("words", "not an ELF file\n");
    fs::create_dir(dir.path().join("tree")).expect("a folder");
    dir
}

const ID: &str = "39a640e6f1412319235087391df9f1c5e13ae920";

#[test]
fn each_mistake_has_its_message_and_code() {
    let dir = folder();
    let build = ["build", "-s", "tree", "-c", "config", "-o", "out"];
    let ids = ["--depends", ID, "--xen-depends", ID];
    let with = |more: &[&'static str]| [&build[..], more].concat();
    let cases: Vec<(Vec<&str>, i32, &str)> = vec![
        (vec![], 1, "Usage: xsplice"),
        (vec!["frobnicate"], 1, "unrecognized subcommand 'frobnicate'"),
        (build.to_vec(), 1, "--patch <PATCH>"),
        (with(&["-p", "-"]), 1, "error: a patch from standard input has no name [usage]"),
        (with(&["-p", "-", "-p", "-"]), 1, "error: standard input can be read once only [usage]"),
        (with(&["-p", "none.patch"]), 1, "error: cannot read the patch: "),
        (
            with(&["-p", "fix.patch", "--name", "a b"]),
            1,
            "error: \"a b\" cannot be the name of a payload [usage]",
        ),
        (
            with(&["-p", "fix.patch"]),
            1,
            "error: the build-id of the running hypervisor is not known [id-needed]",
        ),
        (with(&["-p", "fix.patch", "--xen-depends", ID]), 1, "--depends is needed"),
        (
            with(&["-p", "fix.patch", "--depends", "xyz"]),
            1,
            "error: --depends: \"xyz\" is no build-id [bad-id]",
        ),
        (with(&["-p", "fix.patch", "--depends", "abc"]), 1, "[bad-id]"),
        (with(&["-p", "fix.patch", "--depends", ""]), 1, "[bad-id]"),
        (with(&["-p", "fix.patch", "--xen-depends", "+1"]), 1, "[bad-id]"),
        (with(&["-p", "fix.patch", "--xen-syms", "none"]), 1, "error: cannot read the symbol file: "),
        (with(&["-p", "fix.patch", "--xen-syms", "words"]), 1, "[xen-syms-unreadable]"),
        ([&build[..], &["-p", "fix.patch", "-j", "0"]].concat(), 1, "invalid value '0'"),
        ([&with(&["-p", "fix.patch"])[..], &ids].concat(), 1, "error: "),
        (vec!["inspect", "none"], 1, "error: cannot read the payload: "),
        (vec!["inspect", "words"], 1, "error: "),
    ];
    for (args, code, text) in cases {
        let ran = xsplice(dir.path(), &args);
        assert_eq!(ran.code, code, "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(text), "{args:?} says: {}", ran.stderr);
        assert_eq!(ran.stdout, "", "{args:?}: standard output is for data");
    }
}

#[test]
fn a_compiler_that_is_not_there_is_named() {
    let dir = folder();
    let file = |path: &str, text: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    };
    file("tree/Config.mk", "");
    file("tree/xen/Makefile", "");
    file("tree/xen/common/a.c", "int a;\n");
    let ids = ["--depends", ID, "--xen-depends", ID];
    let usual = ["build", "-s", "tree", "-c", "config", "-o", "out", "-p", "fix.patch", "--cc", "gcc-3"];
    let ran = xsplice(dir.path(), &[&usual[..], &ids].concat());
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("error: gcc-3 is not there [tool-missing]"), "{}", ran.stderr);
    assert!(ran.stderr.contains("apt install gcc-3"), "{}", ran.stderr);
}

#[test]
fn a_build_id_of_65_bytes_is_too_long_and_64_are_not() {
    let dir = folder();
    let id = |bytes: usize| "ab".repeat(bytes);
    for (bytes, wrong) in [(64, false), (65, true)] {
        let id = id(bytes);
        let args = ["build", "-s", "tree", "-c", "config", "-o", "out", "-p", "fix.patch", "--depends", &id];
        assert_eq!(xsplice(dir.path(), &args).stderr.contains("[bad-id]"), wrong, "{bytes}");
    }
}

#[test]
fn an_earlier_payload_of_the_name_is_gone_after_a_failure() {
    let dir = folder();
    let out = dir.path().join("out");
    fs::create_dir(&out).expect("a folder");
    let usual = ["build", "-s", "tree", "-c", "config", "-o", "out", "-p", "fix.patch"];
    // Without ids the command line itself cannot be followed; with them the tree is no tree.
    for (more, problem) in [(&[][..], Some("id-needed")), (&["--depends", ID, "--xen-depends", ID], None)] {
        fs::write(out.join("fix.livepatch"), "old").expect("a file");
        assert_eq!(xsplice(dir.path(), &[&usual[..], more].concat()).code, 1);
        assert!(!out.join("fix.livepatch").exists());
        let report = fs::read_to_string(out.join("report.json")).expect("a report for every outcome");
        let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
        assert_eq!(report["outcome"], "failed");
        assert_eq!(report["exit_code"], 1);
        let problems = report["problems"].as_array().expect("a list");
        assert!(problems.iter().any(|one| problem.is_none_or(|code| one["code"] == code)), "{problems:?}");
    }
}

#[test]
fn version_and_help_are_no_failures() {
    let dir = folder();
    for args in [["--version"], ["--help"]] {
        let ran = xsplice(dir.path(), &args);
        assert_eq!(ran.code, 0);
        assert!(ran.stdout.contains("xsplice") || ran.stdout.contains("live patch"), "{}", ran.stdout);
    }
}
