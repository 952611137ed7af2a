//! A folder with the objects of a patched build: `build --keep-objects` writes it, `verify --objects` reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use xsplice_build::CapturedBuild;
use xsplice_report::{Diagnostic, Place};

use crate::codes::{INPUT_UNREADABLE, OUTPUT_UNWRITABLE};
use crate::{inputs, pipeline};

/// More files than a folder of objects has, by a factor of ten.
const MOST_FILES: usize = 10_000;

/// Objects that the change leaves alone and that a payload may take something from, by path.
#[derive(Default)]
pub(crate) struct Untouched(Mutex<BTreeMap<String, Vec<u8>>>);

impl Untouched {
    /// Keeps one.
    pub(crate) fn keep(&self, path: &str, bytes: &[u8]) {
        let mut all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        all.insert(path.to_owned(), bytes.to_vec());
    }
}

/// All objects below a folder, in order of their paths: each path as it is there, with the bytes.
///
/// # Errors
/// When something cannot be read, or no object is there.
pub(crate) fn read(folder: &Path) -> Result<Vec<(String, Vec<u8>)>, Diagnostic> {
    let mut objects = Vec::new();
    let mut folders = vec![folder.to_owned()];
    let mut seen = 0;
    while let Some(next) = folders.pop() {
        for entry in entries(&next)? {
            seen += 1;
            if seen > MOST_FILES {
                return Err(unusable(folder, format!("more than {MOST_FILES} files are in it")));
            }
            // Links could lead in circles.
            if entry.is_symlink() {
                continue;
            }
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|end| end == "o") {
                let name = entry.strip_prefix(folder).unwrap_or(&entry).to_string_lossy().into_owned();
                objects.push((name, inputs::read(&entry, "object")?));
            }
        }
    }
    if objects.is_empty() {
        return Err(unusable(folder, "no object (*.o) is in it".to_owned()));
    }
    objects.sort();
    Ok(objects)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, Diagnostic> {
    let failed = |error: std::io::Error| unusable(folder, error.to_string());
    fs_err::read_dir(folder).map_err(failed)?.map(|entry| Ok(entry.map_err(failed)?.path())).collect()
}

fn unusable(folder: &Path, why: String) -> Diagnostic {
    Diagnostic::new(INPUT_UNREADABLE, format!("cannot use the folder of objects: {why}"))
        .at(Place::file(folder.to_string_lossy()))
        .advice("Give the folder that build --keep-objects wrote, or the one of a patched build.")
}

/// Writes all objects that the payload was made of: those that the patch changes, and of the others those named.
///
/// # Errors
/// When one cannot be written.
pub(crate) fn write(
    folder: &Path,
    captured: &CapturedBuild,
    untouched: &Untouched,
    named: &BTreeSet<&str>,
) -> Result<(), Diagnostic> {
    let changed = captured.objects.iter().filter(|object| pipeline::is_compared(object));
    for (path, bytes) in changed.filter_map(|object| Some((&object.path, object.patched.as_deref()?))) {
        write_one(folder, path, bytes)?;
    }
    let others = untouched.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for (path, bytes) in others.iter().filter(|(path, _)| named.contains(path.as_str())) {
        write_one(folder, path, bytes)?;
    }
    Ok(())
}

fn write_one(folder: &Path, path: &str, bytes: &[u8]) -> Result<(), Diagnostic> {
    let file = folder.join(path);
    let parent = file.parent().unwrap_or(folder);
    let written = fs_err::create_dir_all(parent).and_then(|()| fs_err::write(&file, bytes));
    written.map_err(|error| {
        Diagnostic::new(OUTPUT_UNWRITABLE, format!("cannot keep an object: {error}"))
            .at(Place::file(file.to_string_lossy()))
            .advice("Check the folder's permissions and the room that is left.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_read_with_the_folders_that_they_are_in() {
        let dir = tempfile::tempdir().expect("a folder");
        let problem = read(dir.path()).expect_err("nothing there");
        assert_eq!(problem.code, INPUT_UNREADABLE);
        assert_eq!(read(&dir.path().join("none")).expect_err("no folder").code, INPUT_UNREADABLE);
        write_one(dir.path(), "xen/common/b.o", b"two").expect("written");
        write_one(dir.path(), "a.o", b"one").expect("written");
        write_one(dir.path(), "a.c", b"no object").expect("written");
        let objects = read(dir.path()).expect("objects");
        let wanted = [("a.o".to_owned(), b"one".to_vec()), ("xen/common/b.o".to_owned(), b"two".to_vec())];
        assert_eq!(objects, wanted);
    }
}
