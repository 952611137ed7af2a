//! The output folder: an earlier payload goes first, the new one comes last.

use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use xsplice_report::{Diagnostic, Place};

use crate::codes::{OUTPUT_UNWRITABLE, USAGE};
use crate::report::Report;

const REPORT: &str = "report.json";

/// The folder that a run writes to.
pub(crate) struct Output {
    dir: PathBuf,
    payload: PathBuf,
    note: PathBuf,
}

impl Output {
    /// Makes the folder (mode 0700 where it is new) and removes what an earlier run left under these names.
    pub(crate) fn prepare(dir: &Path, name: &str) -> Result<Output, Diagnostic> {
        let failed = |error: std::io::Error| unwritable(dir, &error);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        let [payload, note, report] = files(dir, name);
        for file in [&payload, &note, &report] {
            remove(file)?;
        }
        Ok(Output { dir: dir.to_owned(), payload, note })
    }

    /// The payload's path.
    pub(crate) fn payload(&self) -> &Path {
        &self.payload
    }

    /// Writes the report.
    pub(crate) fn write_report(&self, report: &Report) -> Result<(), Diagnostic> {
        let mut text = serde_json::to_string_pretty(report)
            .map_err(|error| unwritable(&self.dir, &std::io::Error::other(error)))?;
        text.push('\n');
        write(&self.dir.join(REPORT), text.as_bytes())
    }

    /// Writes the note for the host.
    pub(crate) fn write_note(&self, text: &str) -> Result<(), Diagnostic> {
        write(&self.note, text.as_bytes())
    }

    /// The note's path.
    pub(crate) fn note(&self) -> &Path {
        &self.note
    }

    /// Removes the note, as far as that can be done.
    pub(crate) fn remove_note(&self) {
        let _ = fs_err::remove_file(&self.note);
    }

    /// Writes the payload: complete under its name, or not at all.
    pub(crate) fn write_payload(&self, bytes: &[u8]) -> Result<(), Diagnostic> {
        write(&self.payload, bytes)
    }
}

/// What a run writes to its folder, and removes there at first: the payload, the note for the host, the report.
fn files(dir: &Path, name: &str) -> [PathBuf; 3] {
    [dir.join(format!("{name}.livepatch")), dir.join(format!("{name}.txt")), dir.join(REPORT)]
}

/// The first of the inputs that a run with this folder and name would overwrite.
pub(crate) fn overwritten<'i>(
    dir: &Path,
    name: &str,
    inputs: impl IntoIterator<Item = &'i Path>,
) -> Option<Diagnostic> {
    let real = |file: &Path| fs_err::canonicalize(file).ok();
    let written: Vec<PathBuf> = files(dir, name).iter().filter_map(|file| real(file)).collect();
    let clash = inputs.into_iter().find(|input| real(input).is_some_and(|input| written.contains(&input)))?;
    Some(
        Diagnostic::new(USAGE, "one of the inputs has the name of an output")
            .at(Place::file(clash.to_string_lossy()))
            .advice("Give another folder with --output, or another name with --name."),
    )
}

/// Removes what an earlier run left under this name.
pub(crate) fn remove(file: &Path) -> Result<(), Diagnostic> {
    match fs_err::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(unwritable(file, &error)),
        _ => Ok(()),
    }
}

/// Writes a file: complete under its name, or not at all.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Diagnostic> {
    let failed = |error: std::io::Error| unwritable(path, &error);
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".xsplice-").tempfile_in(dir).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

fn unwritable(path: &Path, error: &std::io::Error) -> Diagnostic {
    Diagnostic::new(OUTPUT_UNWRITABLE, format!("cannot write the output: {error}"))
        .at(Place::file(path.to_string_lossy()))
        .advice("Check the folder's permissions and the free space, or give another one with --output.")
}
