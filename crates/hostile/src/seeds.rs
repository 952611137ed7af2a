//! Files that are in order, made when they are needed: objects by the compiler, payloads by the writer that the verifier's
//! tests use, patches as text.

use std::path::PathBuf;
use std::process::Command;

use fs_err as fs;

#[path = "../../verify/tests/common/mod.rs"]
mod made;

const SOURCE: &str = include_str!("../seeds/kinds.c");

/// Objects of one source, by several options of the compiler; the hypervisor's symbol file; no object at all.
///
/// # Panics
/// If there is no gcc.
pub fn objects() -> Vec<Vec<u8>> {
    let ways: [&[&str]; 3] = [
        &["-O2", "-gdwarf-5"],
        &["-O1", "-gdwarf-4", "-DPATCHED"],
        &["-O2", "-g0", "-fno-function-sections"],
    ];
    let mut all: Vec<Vec<u8>> = ways.iter().map(|way| compile(way)).collect();
    all.push(made::sample::xen().write());
    all
}

fn compile(options: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (source, object) = (folder.path().join("kinds.c"), folder.path().join("kinds.o"));
    fs::write(&source, SOURCE).expect("a source");
    let output = Command::new("gcc")
        .args(["-c", "-w", "-std=gnu11", "-ffreestanding", "-fno-pic", "-mcmodel=kernel", "-mno-red-zone"])
        .args(["-ffunction-sections", "-fdata-sections", "-fcf-protection=branch", "-fno-stack-protector"])
        .args(options)
        .arg("-o")
        .arg(&object)
        .arg(&source)
        .output()
        .expect("gcc is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::read(object).expect("an object")
}

/// A hypervisor's symbol file, and a payload for it.
pub(crate) fn hypervisor_and_payload() -> (Vec<u8>, Vec<u8>) {
    (made::sample::xen().write(), made::sample::payload().write())
}

/// A payload, one on top of it, and the symbol file of their hypervisor.
pub fn payloads() -> Vec<Vec<u8>> {
    let (xen, payload) = hypervisor_and_payload();
    vec![payload, made::sample::upper().write(), xen]
}

/// What patches apply to: path and text.
const FILES: &[(&str, &str)] =
    &[("xen/common/kinds.c", SOURCE), ("xen/common/Makefile", "obj-y += kinds.o\n")];

/// A folder with what patches apply to, which stays until the machine tidies its temporary files.
pub(crate) fn tree() -> PathBuf {
    let tree = tempfile::tempdir().expect("a temporary folder").keep();
    for (path, text) in FILES {
        let file = tree.join(path);
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        fs::write(file, text).expect("a file");
    }
    tree
}

/// Patches in the formats that are read.
pub fn patches() -> Vec<Vec<u8>> {
    let texts = [
        include_str!("../seeds/mail.patch"),
        include_str!("../seeds/quilt.patch"),
        include_str!("../seeds/new-file.patch"),
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
