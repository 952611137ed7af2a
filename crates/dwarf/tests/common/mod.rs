//! Compiles the sources beside the tests.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The compilers that are there, once named on the terminal if one is not.
pub fn compilers() -> Vec<&'static str> {
    let is_there = |name: &&str| {
        let found = Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success());
        if !found {
            eprintln!("skipped with {name}: it is not installed");
        }
        found
    };
    let found: Vec<&str> =
        ["gcc", "gcc-10", "gcc-11", "gcc-13", "gcc-14", "clang"].into_iter().filter(is_there).collect();
    assert!(!found.is_empty(), "no C compiler");
    found
}

/// The directory of the sources.
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// Compiles a file of `tests/` and gives the object.
pub fn compile(compiler: &str, file: &str, options: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let object = folder.path().join("out.o");
    let output = Command::new(compiler)
        .current_dir(sources())
        .args(["-c", "-w", "-std=gnu11", "-ffunction-sections", "-o"])
        .arg(&object)
        .args(options)
        .arg(file)
        .output()
        .expect("the compiler starts");
    assert!(output.status.success(), "{compiler} {file}: {}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(object).expect("the object is there")
}
