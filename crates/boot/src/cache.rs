//! The cache folder: private, locked, and changed only by renaming finished things into place.

use std::ffi::OsString;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use fs_err as fs;
use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;
use xsplice_report::{Diagnostic, Place, Problems};

use crate::codes;

/// How long to sleep between two attempts to get the lock.
const PAUSE: Duration = Duration::from_millis(100);

/// The cache folder that is used where the user names none: `$XSPLICE_CACHE`, else
/// `$XDG_CACHE_HOME/xsplice`, else `~/.cache/xsplice`.
///
/// # Errors
/// When none of these variables is set.
pub fn default_cache() -> Result<PathBuf, Problems> {
    choose_cache(|name| std::env::var_os(name).filter(|value| !value.is_empty()))
}

fn choose_cache(var: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, Problems> {
    if let Some(dir) = var("XSPLICE_CACHE") {
        return Ok(PathBuf::from(dir));
    }
    if let Some(dir) = var("XDG_CACHE_HOME") {
        return Ok(PathBuf::from(dir).join("xsplice"));
    }
    match var("HOME") {
        Some(home) => Ok(PathBuf::from(home).join(".cache/xsplice")),
        None => Err(Diagnostic::new(codes::CACHE_UNUSABLE, "there is no place for a cache folder")
            .why("None of XSPLICE_CACHE, XDG_CACHE_HOME and HOME is set.")
            .advice("Set XSPLICE_CACHE to a folder that you own.")
            .into()),
    }
}

/// Makes `dir` and whatever it lies in, new folders with mode 0700.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn private_dir(dir: &Path) -> Result<(), Problems> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| {
        Diagnostic::new(codes::CACHE_UNUSABLE, format!("cannot make the folder: {error}"))
            .at(Place::file(dir.display().to_string()))
            .advice("Choose another place with XSPLICE_CACHE.")
            .into()
    })
}

/// An exclusive lock on a file, held for as long as this value lives. The file stays.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "closing the file gives the lock back")] fs::File);

impl Lock {
    /// Takes the lock at `path`, and calls `waiting` once where somebody else has it.
    pub(crate) fn take(path: &Path, waiting: impl Fn()) -> Result<Lock, Problems> {
        let mut said = false;
        loop {
            if let Some(lock) = Lock::try_take(path)? {
                return Ok(lock);
            }
            if !said {
                waiting();
                said = true;
            }
            if xsplice_process::interrupted() {
                return Err(codes::job(xsplice_process::Error::Interrupted));
            }
            thread::sleep(PAUSE);
        }
    }

    /// Takes the lock at `path` unless somebody else has it.
    pub(crate) fn try_take(path: &Path) -> Result<Option<Lock>, Problems> {
        let mut options = fs::OpenOptions::new();
        options.create(true).truncate(false).write(true);
        let file = options.open(path).map_err(codes::io)?;
        match flock(file.file(), FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(Diagnostic::new(codes::CACHE_UNUSABLE, format!("cannot lock: {error}"))
                .at(Place::file(path.display().to_string()))
                .into()),
        }
    }
}

/// Makes `target` by letting `fill` write into a folder beside it, which is then renamed. Nothing is done
/// where `target` exists. The caller holds the cache's lock.
pub(crate) fn publish_dir(
    target: &Path,
    fill: impl FnOnce(&Path) -> Result<(), Problems>,
) -> Result<(), Problems> {
    if target.exists() {
        return Ok(());
    }
    let parent = target.parent().unwrap_or(Path::new("."));
    private_dir(parent)?;
    let temporary = TempDir::with_prefix_in(".new-", parent).map_err(codes::io)?;
    let inner = temporary.path().join("it");
    private_dir(&inner)?;
    fill(&inner)?;
    fs::rename(&inner, target).map_err(codes::io)
}

/// Removes what a killed run left in `dir`. The caller holds the cache's lock.
pub(crate) fn sweep(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(".new-") {
            // What cannot be removed is only untidy, and shows up again next time.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// A folder for one boot, mode 0700, removed at the end. What a killed run left is removed by the next.
#[derive(Debug)]
pub(crate) struct WorkDir {
    dir: TempDir,
    _lock: Lock,
}

impl WorkDir {
    /// Makes one inside of `parent`.
    pub(crate) fn new(parent: &Path) -> Result<WorkDir, Problems> {
        private_dir(parent)?;
        let _all = Lock::take(&parent.join("lock"), || {})?;
        for entry in std::fs::read_dir(parent).map_err(codes::io)?.flatten() {
            let alive = entry.path().join("alive");
            if entry.file_name().to_string_lossy().starts_with("boot-")
                && matches!(Lock::try_take(&alive), Ok(Some(_)) | Err(_))
            {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        let dir = TempDir::with_prefix_in("boot-", parent).map_err(codes::io)?;
        fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).map_err(codes::io)?;
        let lock = Lock::take(&dir.path().join("alive"), || {})?;
        Ok(WorkDir { dir, _lock: lock })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(vars: &[(&str, &str)]) -> Option<PathBuf> {
        choose_cache(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into())).ok()
    }

    #[test]
    fn the_most_specific_variable_decides() {
        let all = [("XSPLICE_CACHE", "/a"), ("XDG_CACHE_HOME", "/b"), ("HOME", "/c")];
        assert_eq!(with(&all), Some("/a".into()));
        assert_eq!(with(&all[1..]), Some("/b/xsplice".into()));
        assert_eq!(with(&all[2..]), Some("/c/.cache/xsplice".into()));
        assert_eq!(with(&[]), None);
    }

    #[test]
    fn a_place_that_cannot_hold_the_cache_is_named() {
        let dir = TempDir::new().expect("temporary folder");
        let file = dir.path().join("file");
        fs::write(&file, "").expect("file");
        let error = private_dir(&file.join("cache")).expect_err("a file is no folder");
        assert!(codes::any(&error, codes::CACHE_UNUSABLE));
        assert!(error.0[0].place.to_string().ends_with("file/cache"));
        let nowhere = choose_cache(|_| None).expect_err("no variable says where");
        assert!(codes::any(&nowhere, codes::CACHE_UNUSABLE));
    }

    #[test]
    fn a_failed_fill_leaves_nothing() {
        let dir = TempDir::new().expect("temporary folder");
        let target = dir.path().join("x/target");
        let result = publish_dir(&target, |inner| {
            fs::write(inner.join("half"), "half").map_err(codes::io)?;
            Err(Diagnostic::new(codes::IO, "stopped").into())
        });
        assert!(result.is_err());
        assert_eq!(std::fs::read_dir(dir.path().join("x")).expect("folder").count(), 0);
        publish_dir(&target, |inner| fs::write(inner.join("all"), "all").map_err(codes::io))
            .expect("publish");
        assert!(target.join("all").exists());
        publish_dir(&target, |_| panic!("what is there is not made again")).expect("already there");
    }

    #[test]
    fn a_lock_excludes_and_is_given_back() {
        let dir = TempDir::new().expect("temporary folder");
        let path = dir.path().join("lock");
        let held = Lock::take(&path, || {}).expect("free");
        assert!(Lock::try_take(&path).expect("usable").is_none());
        drop(held);
        assert!(Lock::try_take(&path).expect("usable").is_some());
    }

    #[test]
    fn what_a_killed_run_left_is_removed_and_what_runs_is_not() {
        let parent = TempDir::new().expect("temporary folder");
        let left = parent.path().join("boot-left");
        fs::create_dir(&left).expect("folder");
        fs::write(left.join("alive"), "").expect("file");
        let first = WorkDir::new(parent.path()).expect("first");
        assert!(!left.exists());
        let second = WorkDir::new(parent.path()).expect("second");
        assert!(first.path().exists() && second.path().exists());
        let mode = std::fs::metadata(first.path()).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
