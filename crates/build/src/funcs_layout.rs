//! The layout of the tree's own `struct livepatch_func`, and what else its loader does in its own way.
//!
//! The layout differs between versions (xen/include/public/sysctl.h; loader versions 1 and 2), and within stable
//! branches, so it is asked of the tree: a table of sizes and offsets is compiled with exactly the command
//! that compiled xen/common/livepatch.c, and read from the object.

use std::collections::BTreeSet;
use std::path::Path;

use fs_err as fs;
use object::{Object, ObjectSection, ObjectSymbol};
use serde::{Deserialize, Serialize};
use xsplice_process::Job;
use xsplice_report::{Diagnostic, Place};

use crate::codes;
use crate::kbuild;
use crate::tree;
use crate::wrapper::{Record, Tool};

/// Size and offsets in bytes of `struct livepatch_func`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FuncsLayout {
    /// What the hypervisor expects in the field `version`: LIVEPATCH_PAYLOAD_VERSION.
    pub version: u8,
    /// Of the whole structure.
    pub size: u64,
    /// Of the pointer to the function's name.
    pub name: u64,
    /// Of the address of the new code.
    pub new_addr: u64,
    /// Of the address of the old code.
    pub old_addr: u64,
    /// Of the 32-bit size of the new code.
    pub new_size: u64,
    /// Of the 32-bit size of the old code.
    pub old_size: u64,
    /// Of the byte `version`.
    pub version_offset: u64,
    /// Of `struct livepatch_expectation`, from version 2 on.
    pub expect: Option<u64>,
}

/// What the tree's loader does that not every loader does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoaderTraits {
    /// The kinds of hooks that xen/include/xen/livepatch_payload.h has a macro for: load, preapply and so on.
    pub hooks: BTreeSet<String>,
    /// Whether a payload's bug frames and exception table count from its upload on (xen/common/livepatch.c,
    /// `livepatch_upload` calls `register_virtual_region`: 4.17.4, 4.18.1 and later).
    pub tables_from_upload: bool,
}

/// The kinds of hooks, in the order of the table `xsplice_hooks`.
const HOOKS: [&str; 8] =
    ["load", "unload", "preapply", "apply", "postapply", "prerevert", "revert", "postrevert"];

/// Bytes of `struct livepatch_expectation`.
const EXPECTATION: u64 = 32;

/// The source that carries the table of the layout, before that of the hooks.
const PROBE: &str = r"#include <xen/lib.h>
#include <xen/types.h>
#include <xen/livepatch.h>
#if __has_include(<xen/livepatch_payload.h>)
#include <xen/livepatch_payload.h>
#endif
#define AT(field) __builtin_offsetof(struct livepatch_func, field)
extern const unsigned long xsplice_probe[];
const unsigned long xsplice_probe[] = {
    LIVEPATCH_PAYLOAD_VERSION, sizeof(struct livepatch_func),
    AT(name), AT(new_addr), AT(old_addr), AT(new_size), AT(old_size), AT(version),
#if LIVEPATCH_PAYLOAD_VERSION >= 2
    AT(expect),
#endif
};
";

fn unknown(what: impl Into<String>) -> Diagnostic {
    Diagnostic::new(codes::FUNCS_LAYOUT_UNKNOWN, what)
        .at(Place::file("xen/include/public/sysctl.h"))
        .why("The payload tells the hypervisor by this structure which functions to replace.")
        .advice("Check that the tree is a complete Xen source tree of version 4.11 or later.")
}

/// The whole source of the tables. That of the hooks says for each kind whether there is a macro for it.
fn probe_source() -> String {
    let mut source = format!("{PROBE}extern const unsigned long xsplice_hooks[];\n");
    source.push_str("const unsigned long xsplice_hooks[] = {\n");
    for kind in HOOKS {
        let name = kind.to_ascii_uppercase();
        source.push_str(&format!("#ifdef LIVEPATCH_{name}_HOOK\n    1,\n#else\n    0,\n#endif\n"));
    }
    source + "};\n"
}

/// Whether the loader registers a payload's tables when it is uploaded. In C as Xen writes it, a function starts
/// with a line that is not indented.
fn tables_from_upload(source: &str) -> bool {
    let mut function = "";
    source.lines().any(|line| {
        if line.starts_with(|c: char| c.is_ascii_alphabetic()) && line.contains('(') {
            function = line;
        }
        let call = line.trim_start().starts_with("register_virtual_region(");
        call && function.contains("livepatch_upload(")
    })
}

/// Asks the tree. `records` are those of the original build, `folder` is a private one for the attempt.
pub(crate) fn probe(
    records: &[Record],
    cc: &Path,
    folder: &Path,
) -> Result<(FuncsLayout, LoaderTraits), Diagnostic> {
    let is_livepatch = |record: &&Record| {
        record.tool == Tool::Cc
            && record.code == 0
            && record.inputs.first().is_some_and(|input| Path::new(input).ends_with("livepatch.c"))
            && record.dir.join(&record.inputs[0]).ends_with("xen/common/livepatch.c")
    };
    let record = records
        .iter()
        .rfind(is_livepatch)
        .ok_or_else(|| unknown("the build did not compile xen/common/livepatch.c"))?;
    let (source, object) = (folder.join("probe.c"), folder.join("probe.o"));
    tree::write_private(&source, probe_source().as_bytes()).map_err(|error| codes::io(&error))?;
    let mut args = Vec::new();
    let mut words = record.args.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-o" | "-MF" | "-MQ" | "-MT" => {
                words.next();
            }
            "-MMD" | "-MD" | "-MP" => {}
            word if word == record.inputs[0] => args.push(source.display().to_string()),
            word if word.starts_with("-Wp,-M") => {}
            word => args.push(word.to_owned()),
        }
    }
    args.extend(["-o".to_owned(), object.display().to_string()]);
    let finished = Job::new(cc)
        .args(&args)
        .dir(&record.dir)
        .env("LC_ALL", "C")
        .env("TMPDIR", folder)
        .run()
        .map_err(|error| kbuild::process_error(&error))?;
    if !finished.success() {
        let message = String::from_utf8_lossy(&finished.stderr).into_owned();
        let line = message.lines().find(|line| line.contains("error:")).unwrap_or_default();
        return Err(unknown(format!("struct livepatch_func cannot be measured: {line}")));
    }
    let bytes = fs::read(&object).map_err(|error| codes::io(&error))?;
    let table = |name| read_table(&bytes, name).ok_or_else(|| unknown("the measured table cannot be read"));
    let layout = layout(&table("xsplice_probe")?)
        .ok_or_else(|| unknown("struct livepatch_func has an unexpected shape"))?;
    let known = HOOKS.iter().zip(table("xsplice_hooks")?).filter(|(_, known)| *known != 0);
    let loader = fs::read(record.dir.join(&record.inputs[0])).map_err(|error| codes::io(&error))?;
    let traits = LoaderTraits {
        hooks: known.map(|(kind, _)| (*kind).to_owned()).collect(),
        tables_from_upload: tables_from_upload(&String::from_utf8_lossy(&loader)),
    };
    Ok((layout, traits))
}

fn read_table(object: &[u8], name: &str) -> Option<Vec<u64>> {
    let file = object::File::parse(object).ok()?;
    let symbol = file.symbols().find(|symbol| symbol.name() == Ok(name))?;
    let section = file.section_by_index(symbol.section_index()?).ok()?;
    let data = section.data().ok()?;
    let start = usize::try_from(symbol.address()).ok()?;
    let end = start.checked_add(usize::try_from(symbol.size()).ok()?)?;
    Some(
        data.get(start..end)?
            .chunks_exact(8)
            .map(|word| {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(word);
                u64::from_le_bytes(bytes)
            })
            .collect(),
    )
}

fn layout(words: &[u64]) -> Option<FuncsLayout> {
    let [version, size, name, new_addr, old_addr, new_size, old_size, version_offset, rest @ ..] = words
    else {
        return None;
    };
    let room = |at: &u64| at.checked_add(EXPECTATION).is_some_and(|end| end <= *size);
    let inside = words[2..].iter().all(|offset| offset < size) && rest.first().is_none_or(room);
    inside.then_some(FuncsLayout {
        version: u8::try_from(*version).ok()?,
        size: *size,
        name: *name,
        new_addr: *new_addr,
        old_addr: *old_addr,
        new_size: *new_size,
        old_size: *old_size,
        version_offset: *version_offset,
        expect: rest.first().copied(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_table_that_makes_sense_is_taken() {
        let words = [2, 104, 0, 8, 16, 24, 28, 32, 72];
        let found = layout(&words).unwrap();
        assert_eq!((found.version, found.size, found.version_offset, found.expect), (2, 104, 32, Some(72)));
        assert_eq!(layout(&words[..8]).unwrap().expect, None);
        assert_eq!(layout(&words[..7]), None);
        assert_eq!(layout(&[2, 64, 0, 8, 16, 24, 28, 64]), None);
        assert_eq!(layout(&[2, 104, 0, 8, 16, 24, 28, 32, 73]), None);
    }

    #[test]
    fn where_tables_are_registered_is_told_by_the_function() {
        let file = |function: &str| {
            format!(
                "int livepatch_upload(int a);\n\nstatic int {function}(struct x *y)\n{{\n    register_virtual_region(y);\n}}\nvoid f(void)\n{{\n    unregister_virtual_region(y);\n}}\n"
            )
        };
        assert!(tables_from_upload(&file("livepatch_upload")));
        assert!(!tables_from_upload(&file("apply_payload_tail")));
        assert!(!tables_from_upload(""));
    }
}
