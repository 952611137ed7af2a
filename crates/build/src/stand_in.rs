//! Empty objects in the place of those that a patch does not need.
//!
//! make walks the tree as ever, and each compilation of hypervisor code is asked for. Where the patch does not touch its
//! source, the wrapper writes down the call and answers with an object that has nothing in it. What else the build
//! compiles is made: texts, tools, 32-bit code that becomes data, and tests of what compiler and linker can do.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fs_err as fs;
use object::write::{Object, StandardSection};
use object::{Architecture, BinaryFormat, Endianness};

use crate::wrapper::{Parsed, compiled_source};

/// The variable that names the file that says which sources are needed: their absolute paths, as JSON. Without it,
/// all are.
pub(crate) const NEEDED: &str = "XSPLICE_NEEDED";

/// Sources that are compiled to find out what the tools can do (xen/arch/x86/efi/check.c, from Xen 4.3 on).
const QUESTIONS: &[&str] = &["check.c"];

/// An object for x86-64 with the three sections that an assembler makes of nothing: objcopy takes no file without any.
fn empty() -> std::io::Result<Vec<u8>> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    for section in [StandardSection::Text, StandardSection::Data, StandardSection::UninitializedData] {
        object.section_id(section);
    }
    object.write().map_err(std::io::Error::other)
}

/// The source of a compilation that an empty object can stand for: 64-bit code of the hypervisor that a rule of the
/// build makes. Such a rule asks for dependencies; a question to the compiler does not.
fn replaceable<'p>(parsed: &'p Parsed, args: &[String]) -> Option<&'p str> {
    let source = compiled_source(parsed)?;
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let ours = has("-D__XEN__") && !has("-m32") && !has("-m16");
    let name = source.rsplit('/').next().unwrap_or(source);
    (ours && parsed.depfile.is_some() && !QUESTIONS.contains(&name)).then_some(source)
}

/// Whether a call only checks that a public header compiles, and leaves nothing behind.
pub(crate) fn checks_header(parsed: &Parsed) -> bool {
    parsed.text
        && parsed.output.as_deref() == Some("/dev/null")
        && matches!(parsed.inputs.as_slice(), [one] if one.ends_with(".h"))
}

/// Answers a compilation, if it need not be made.
///
/// # Errors
/// When the list of what is needed cannot be read, or the object not be written.
pub(crate) fn compiles(parsed: &Parsed, args: &[String], dir: &Path, needed: &Path) -> std::io::Result<bool> {
    let (Some(source), Some(output)) = (replaceable(parsed, args), &parsed.output) else { return Ok(false) };
    let needed: BTreeSet<PathBuf> = serde_json::from_slice(&fs::read(needed)?)?;
    if needed.contains(&fs::canonicalize(dir.join(source))?) {
        return Ok(false);
    }
    crate::tree::write_private(&dir.join(output), &empty()?)?;
    if let Some(depfile) = &parsed.depfile {
        crate::tree::write_private(&dir.join(depfile), format!("{output}: {source}\n").as_bytes())?;
    }
    Ok(true)
}

/// Answers a call of objcopy for an empty object: its copy is one, too.
///
/// # Errors
/// When the copy cannot be written.
pub(crate) fn copies(parsed: &Parsed, dir: &Path) -> std::io::Result<bool> {
    let (Some(from), Some(to)) = (parsed.inputs.first(), &parsed.output) else { return Ok(false) };
    let bytes = empty()?;
    let stands_in = std::fs::read(dir.join(from)).is_ok_and(|file| file == bytes);
    if stands_in && from != to {
        crate::tree::write_private(&dir.join(to), &bytes)?;
    }
    Ok(stands_in)
}
