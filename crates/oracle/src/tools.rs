//! Runs readelf and objdump. What they print is all the oracle ever sees of an object.

use std::path::{Path, PathBuf};

use xsplice_process::{Error, Job};

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum OracleError {
    /// A tool could not be run.
    #[error("{}: {source}", path.display())]
    Tool {
        /// The object it should have read.
        path: PathBuf,
        /// What happened.
        source: Error,
    },
    /// A tool ended with an exit code other than 0.
    #[error("{tool} failed on {}: {message}", path.display())]
    Failed {
        /// `objdump` or `readelf`.
        tool: String,
        /// The object it should have read.
        path: PathBuf,
        /// The first line it wrote to standard error.
        message: String,
    },
    /// A tool printed something this crate cannot read.
    #[error("{}: cannot read {what}: `{line}`", path.display())]
    Text {
        /// The object.
        path: PathBuf,
        /// What was expected.
        what: &'static str,
        /// The line in question.
        line: String,
    },
    /// It is not a relocatable object for x86-64.
    #[error("{}: not a relocatable x86-64 object ({what})", path.display())]
    Foreign {
        /// The object.
        path: PathBuf,
        /// What it says of itself.
        what: String,
    },
}

/// The two programs of binutils.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    pub objdump: PathBuf,
    pub readelf: PathBuf,
}

impl Tools {
    /// Header, sections, symbols and relocations, in readelf's wide format.
    pub fn headers(&self, object: &Path) -> Result<String, OracleError> {
        run(Job::new(&self.readelf).arg("-hSsrW").arg(object), "readelf", object)
    }

    /// The bytes of the sections with these numbers, as readelf's hex dumps, in the order of their numbers.
    pub fn bytes(&self, object: &Path, sections: &[usize]) -> Result<String, OracleError> {
        let dumps = sections.iter().map(|number| format!("--hex-dump={number}"));
        run(Job::new(&self.readelf).arg("-W").args(dumps).arg(object), "readelf", object)
    }

    /// The disassembly of every section with code; zeroes are not skipped.
    pub fn code(&self, object: &Path) -> Result<String, OracleError> {
        let job = Job::new(&self.objdump).args(["-d", "-z", "-w", "--no-show-raw-insn"]);
        run(job.arg(object), "objdump", object)
    }
}

fn run(job: Job, tool: &str, object: &Path) -> Result<String, OracleError> {
    let path = object.to_owned();
    // Translations would change the headings that are looked for.
    let ended = match job.env("LC_ALL", "C").run() {
        Ok(ended) => ended,
        Err(source) => return Err(OracleError::Tool { path, source }),
    };
    if !ended.success() {
        let said = String::from_utf8_lossy(&ended.stderr);
        let message = said.lines().next().unwrap_or("it said nothing").to_owned();
        return Err(OracleError::Failed { tool: tool.to_owned(), path, message });
    }
    Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
}
