//! One compilation: the compiler's text, and the object that the assembler makes of that very text.

use std::path::{Path, PathBuf};

use fs_err as fs;
use xsplice_build::Compilation;
use xsplice_process::Job;

/// Why there is no object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The compiler or assembler refuses the source; its first error.
    Refused(String),
    /// Something is wrong with this machine or this program.
    Broken(String),
}

/// What a compilation gives.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The compiler's assembler text.
    pub text: String,
    /// The object, copies made of it included.
    pub object: Vec<u8>,
}

fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::Broken(error.to_string())
}

fn run(job: Job) -> Result<Vec<u8>, Failure> {
    let finished = job.run().map_err(broken)?;
    if finished.success() {
        return Ok(finished.stdout);
    }
    let said = String::from_utf8_lossy(&finished.stderr).into_owned();
    let line = said.lines().find(|line| line.contains("rror:")).or(said.lines().next()).unwrap_or("");
    Err(Failure::Refused(line.to_owned()))
}

/// Runs a compilation, with the source as it stands now. `work` is a folder for what it makes.
///
/// The compiler writes text, and the text is assembled by a second call: what is compared as text and what is
/// compared as an object are the same code.
///
/// # Errors
/// When the source does not compile, or a program cannot be run.
pub fn compile(compilation: &Compilation, work: &Path) -> Result<Compiled, Failure> {
    let (listing, object) = (work.join("listing.s"), work.join("object.o"));
    let job = compilation.job(&compilation.program).args(&compilation.arguments);
    run(job.arg("-S").arg("-o").arg(&listing))?;
    let job = compilation.job(&compilation.program).args(assembler_arguments(compilation));
    run(job.arg("-c").arg(&listing).arg("-o").arg(&object))?;
    let mut last = object;
    for (index, copy) in compilation.copies.iter().enumerate() {
        let next = work.join(format!("copy{index}.o"));
        run(compilation.job(&copy.program).args(&copy.options).arg(&last).arg(&next))?;
        last = next;
    }
    let text = fs::read(&listing).map_err(broken)?;
    Ok(Compiled {
        text: String::from_utf8_lossy(&text).into_owned(),
        object: fs::read(last).map_err(broken)?,
    })
}

/// What the compiler sees of the source once macros and conditions are gone.
///
/// # Errors
/// As [`compile`].
pub fn preprocess(compilation: &Compilation) -> Result<Vec<u8>, Failure> {
    run(compilation.job(&compilation.program).args(&compilation.arguments).args(["-E", "-P", "-o", "-"]))
}

/// A compilation's arguments without what belongs to C: debug information comes from the text.
fn assembler_arguments(compilation: &Compilation) -> Vec<String> {
    let mut kept = Vec::new();
    let mut words = compilation.arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-include" | "-imacros" => {
                words.next();
            }
            word if word.starts_with("-g") || word == compilation.input => {}
            word => kept.push(word.to_owned()),
        }
    }
    kept
}

/// A folder that is there.
///
/// # Errors
/// When it cannot be made.
pub fn folder(path: &Path) -> Result<PathBuf, Failure> {
    fs::create_dir_all(path).map_err(broken)?;
    fs::canonicalize(path).map_err(broken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};
    use xsplice_build::BaseObject;

    #[test]
    fn the_assembler_gets_no_source_and_no_debug_option() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let compilation = Compilation {
            object: BaseObject {
                path: "d/a.o".to_owned(),
                source: "d/a.c".to_owned(),
                assembler: false,
                linked: true,
                renamed_later: BTreeMap::new(),
            },
            program: "gcc".into(),
            dir: "/".into(),
            arguments: words("-m64 -include c.h -Wa,-I. d/a.c -g"),
            input: "d/a.c".to_owned(),
            copies: Vec::new(),
            reads: BTreeSet::new(),
        };
        assert_eq!(assembler_arguments(&compilation), words("-m64 -Wa,-I."));
    }
}
