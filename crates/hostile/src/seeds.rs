//! Files that are in order, made when they are needed: objects by the compiler, payloads by the writer that the verifier's
//! tests use, patches as text.

use std::path::PathBuf;
use std::process::Command;

use fs_err as fs;

#[path = "../../verify/tests/common/mod.rs"]
mod made;

/// The source of all objects, and what patches are for.
pub const SOURCE: &str = include_str!("../seeds/kinds.c");

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

/// A payload with its circumstances. `kind` in its lowest two bits: 0 without a symbol file, 1 with the sound one and with
/// `other` as the object that it was made of, else with `other` as symbol file; 4 for the loader of the version that the
/// upper four bits choose; 8 also with a sound payload on it.
pub fn payload_input(kind: u8, payload: &[u8], other: &[u8]) -> Vec<u8> {
    [&[kind], pair(payload, other).as_slice()].concat()
}

/// Two files as one input: the length of the first in four bytes, least first, then both.
pub fn pair(first: &[u8], second: &[u8]) -> Vec<u8> {
    let length = u32::try_from(first.len()).unwrap_or(u32::MAX);
    [&length.to_le_bytes(), first, second].concat()
}

/// The two files of [`pair`]; a length that is too large leaves nothing for the second.
pub fn split(input: &[u8]) -> (&[u8], &[u8]) {
    let Some((length, rest)) = input.split_first_chunk::<4>() else { return (input, &[]) };
    let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    rest.split_at(length.min(rest.len()))
}

/// A payload without and with symbol files and for several loaders, and one on top of it.
pub fn payloads() -> Vec<Vec<u8>> {
    let (xen, payload) = hypervisor_and_payload();
    let mut expecting = made::sample::payload();
    made::sample::expect(&mut expecting, &[0xf3, 0x0f, 0x1e, 0xfa, 0x90], 0);
    let mut nops = made::sample::payload();
    made::sample::nops(&mut nops, "plain_fn", 5, 48);
    let hooks: [(&str, &[&str]); 2] = [("load", &["first", "second"]), ("apply", &["third"])];
    let made_of = [made::twins::special(), made::twins::with_hooks(&hooks, &hooks)];
    let made_of =
        made_of.map(|(payload, object)| payload_input(1 | 4 | 4 << 4, &payload.write(), &object.write()));
    let mut all = vec![
        payload_input(0, &payload, &[]),
        payload_input(1 | 8, &payload, &[]),
        payload_input(2, &payload, &xen),
        payload_input(1 | 4 | 4 << 4, &expecting.write(), &[]),
        payload_input(1 | 4 | 9 << 4, &nops.write(), &[]),
        payload_input(1, &made::sample::upper().write(), &[]),
    ];
    all.extend(made_of);
    all
}

/// Two objects each, with debug information of several versions.
///
/// # Panics
/// If there is no gcc.
pub fn pairs() -> Vec<Vec<u8>> {
    let five = compile(&["-O2", "-gdwarf-5"]);
    let four = compile(&["-O1", "-gdwarf-4", "-DPATCHED"]);
    let three = compile(&["-O0", "-gdwarf-3", "-gstrict-dwarf"]);
    vec![pair(&five, &four), pair(&three, &five), pair(&four, &[])]
}

/// An object before and after a change: one of structures and code, and one of how everything is compiled.
///
/// # Panics
/// If there is no gcc.
pub fn changes() -> Vec<Vec<u8>> {
    let base = compile(&["-O2", "-gdwarf-5"]);
    let patched = compile(&["-O2", "-gdwarf-5", "-DPATCHED"]);
    let (optimised, plain) = (compile(&["-O2", "-g0"]), compile(&["-O1", "-g0", "-DPATCHED"]));
    vec![pair(&base, &patched), pair(&patched, &base), pair(&optimised, &plain), pair(&[], &base)]
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
    let lines = "--- a/x\n+++ b/x\n@@ -1,4 +1,6 @@\n f(a,\n   /* x\n-y */ b);\n+y */\n+b \"\\\n+c\");\n #if 1\n\0f(a,\n   /* x\ny */ b);\n#if 1\n#else\n'\"'\n#endif\n\\\n// e\\\n";
    let with_text = format!("{}\0{SOURCE}", texts[1]);
    let all = texts.iter().copied().chain([lines, with_text.as_str()]);
    all.map(|text| text.as_bytes().to_vec()).collect()
}
