//! A payload in an image of Debian's hypervisor, held against the objects that its build left.

use std::path::Path;
use std::process::Command;

use fs_err as fs;
use libtest_mimic::{Completion, Failed};
use serde_json::Value;
use xsplice_e2e::{elf, recipes};

use crate::setup::{self, Setup};

/// What verify says of a payload, with the objects or without.
fn verified(setup: &Setup, payload: &Path, objects: Option<&Path>) -> Result<Value, String> {
    let mut verify = Command::new(&setup.xsplice);
    verify.arg("verify").arg(payload).arg("--xen-syms").arg(&setup.debian.xen_syms).arg("--json");
    if let Some(objects) = objects {
        verify.arg("--objects").arg(objects);
    }
    let output = verify.output().map_err(|error| error.to_string())?;
    serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// The payload with two of its calls exchanged.
fn exchanged(bytes: &[u8]) -> Option<Vec<u8>> {
    const ENTRY: usize = 24;
    const PC32: [u8; 4] = [2, 0, 0, 0];
    let start = elf::section_offset(bytes, ".rela.text")?;
    // Symbols of what is referred to at the end of an instruction; code comes first among the relocations.
    let symbols: Vec<(usize, [u8; 4])> = bytes[start..]
        .chunks_exact(ENTRY)
        .enumerate()
        .take_while(|(_, entry)| entry[8..12] == PC32 && entry[16..24] == (-4i64).to_le_bytes())
        .filter_map(|(i, entry)| Some((start + i * ENTRY + 12, entry[12..16].try_into().ok()?)))
        .collect();
    let (first, symbol) = symbols.first()?;
    let (second, other) = symbols.iter().find(|(_, other)| other != symbol)?;
    let mut bytes = bytes.to_vec();
    bytes[*first..first + 4].copy_from_slice(other);
    bytes[*second..second + 4].copy_from_slice(symbol);
    Some(bytes)
}

fn held_against_its_objects(setup: &Setup) -> Result<(), String> {
    let mut build = setup.build("in-place", &setup.made(&recipes::STRING)?.diff)?;
    let objects = build.out.with_file_name("objects");
    build.args = vec!["--keep-objects".to_owned(), objects.to_string_lossy().into_owned()];
    let built = build.run()?;
    let bytes = built.bytes()?;
    let count = built.functions().len();
    let alone = verified(setup, &built.payload, None)?;
    let with = verified(setup, &built.payload, Some(&objects))?;
    for (report, compared) in [(&alone, false), (&with, true)] {
        let in_place = &report["in_place"];
        let functions = in_place["objects"]["functions"].as_u64();
        let fine = report["safe"]["answer"] == "yes"
            && in_place["reverted"] == true
            && in_place["trampolines"] == count
            && functions == compared.then_some(count as u64);
        if !fine {
            return Err(format!("with objects, {compared}: {report}"));
        }
    }
    let wrong = built.payload.with_file_name("exchanged.livepatch");
    fs::write(&wrong, exchanged(&bytes).ok_or("no two calls")?).map_err(|error| error.to_string())?;
    let alone = verified(setup, &wrong, None)?;
    let with = verified(setup, &wrong, Some(&objects))?;
    if alone["safe"]["answer"] != "yes" || with["safe"]["codes"] != serde_json::json!(["in-place-reference"])
    {
        return Err(format!("with two calls exchanged: {} and {}", alone["safe"], with["safe"]));
    }
    Ok(())
}

pub fn objects() -> Result<Completion, Failed> {
    setup::with(held_against_its_objects)
}
