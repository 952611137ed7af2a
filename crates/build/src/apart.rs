//! Whether functions can be told apart: each in a section of its own. The objects are asked, not the makefiles.

use std::path::Path;

use fs_err as fs;
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};
use serde::Serialize;
use xsplice_report::{Diagnostic, Place};

use crate::capture::CapturedObject;
use crate::codes;
use crate::wrapper::Record;

/// How a tree sees to it that functions are compiled into sections of their own. For people: nothing depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BuildSystem {
    /// Not at all, and xen/Rules.mk holds all flags: up to Xen 4.13.
    Old,
    /// Not at all, and xen/Makefile holds the flags: 4.14 to 4.16.
    Middle,
    /// By CC_SPLIT_SECTIONS in xen/Kconfig, which LIVEPATCH selects: from 4.17 on.
    SplitSections,
    /// None of these.
    Unknown,
}

impl BuildSystem {
    /// That of a tree: the folder that holds xen/.
    pub(crate) fn of(tree: &Path) -> BuildSystem {
        let has = |file: &str, word: &str| {
            fs::read_to_string(tree.join(file)).is_ok_and(|text| text.contains(word))
        };
        if has("xen/Kconfig", "CC_SPLIT_SECTIONS") || has("xen/common/Kconfig", "CC_SPLIT_SECTIONS") {
            BuildSystem::SplitSections
        } else if has("xen/Rules.mk", "CFLAGS += -nostdinc") {
            BuildSystem::Old
        } else if has("xen/Makefile", "CFLAGS += -nostdinc") {
            BuildSystem::Middle
        } else {
            BuildSystem::Unknown
        }
    }
}

/// The name of a function that a compiler put into the section that all share. None where it put any into a section of
/// its own: what stands in the shared one then was written in assembler.
fn together(bytes: &[u8]) -> Option<String> {
    let file = object::File::parse(bytes).ok().filter(object::File::is_64)?;
    let mut shared = None;
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0) {
        let section = file.section_by_index(symbol.section_index()?).ok()?;
        let (name, section) = (symbol.name().ok()?, section.name().ok()?);
        if section.strip_prefix(".text.") == Some(name) {
            return None;
        }
        if section == ".text" && shared.is_none() {
            shared = Some(name.to_owned());
        }
    }
    shared
}

/// The error for the first object whose functions are together. `command` gives the call that compiled an object.
pub(crate) fn check<'r>(
    objects: &[CapturedObject],
    command: impl Fn(&str) -> Option<&'r Record>,
) -> Result<(), Diagnostic> {
    for object in objects.iter().filter(|object| object.linked && !object.assembler) {
        let Some(function) = [&object.base, &object.patched].into_iter().flatten().find_map(|b| together(b))
        else {
            continue;
        };
        let call = command(&object.path).map(|record| record.args.join(" ")).unwrap_or_default();
        return Err(Diagnostic::new(
            codes::FUNCTIONS_TOGETHER,
            format!("the functions of {} are not in sections of their own", object.path),
        )
        .at(Place::object(&object.path).section(".text").symbol(function))
        .why(format!("So it cannot be told which of them changed. It was compiled by: cc {call}"))
        .advice(
            "Let the flags be added (--build-adjust auto or always); if they were, have the tree's makefiles not take \
             them away, or give -ffunction-sections -fdata-sections with --make-var EXTRA_CFLAGS_XEN_CORE=....",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signs_of_each_build_system_are_known() {
        let of = |files: &[(&str, &str)]| {
            let tree = tempfile::tempdir().unwrap();
            for (path, text) in files {
                let path = tree.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            BuildSystem::of(tree.path())
        };
        let flags = "CFLAGS += -nostdinc -fno-builtin\n";
        assert_eq!(of(&[("xen/Rules.mk", flags)]), BuildSystem::Old);
        assert_eq!(of(&[("xen/Makefile", flags)]), BuildSystem::Middle);
        let split = ("xen/Kconfig", "config CC_SPLIT_SECTIONS\n\tbool\n");
        assert_eq!(of(&[("xen/Makefile", flags), split]), BuildSystem::SplitSections);
        assert_eq!(of(&[("xen/Makefile", "all:\n")]), BuildSystem::Unknown);
    }
}
