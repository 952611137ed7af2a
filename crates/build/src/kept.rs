//! The builds that are kept for the next patch: listing and removing them.

use std::path::Path;
use std::time::SystemTime;

use fs_err as fs;
use serde::Serialize;
use xsplice_report::{Diagnostic, Place};

use crate::base::{self, Lock};
use crate::codes;
use crate::tree;

/// A kept build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeptBuild {
    /// Its name: a hash of tree, configuration, tools and format.
    pub key: String,
    /// Size of its files in bytes.
    pub bytes: u64,
    /// Whether it is whole and this version of xsplice can use it.
    pub usable: bool,
    /// Whether a run is using it.
    pub in_use: bool,
    /// Seconds since 1970 at which a run last began with it.
    pub used: Option<u64>,
}

/// What was removed, and what a run was using.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Cleared {
    /// Builds that are gone.
    pub removed: Vec<KeptBuild>,
    /// Builds that were left alone.
    pub in_use: Vec<KeptBuild>,
}

/// All kept builds below the cache folder, by name.
///
/// # Errors
/// When the folder cannot be read. One that is not there holds none.
pub fn kept(cache: &Path) -> Result<Vec<KeptBuild>, Diagnostic> {
    measured(cache, size)
}

fn measured(cache: &Path, measure: fn(&Path) -> u64) -> Result<Vec<KeptBuild>, Diagnostic> {
    let io = |error: std::io::Error| codes::io(&error);
    let bases = cache.join("bases");
    let mut found = Vec::new();
    if !bases.is_dir() {
        return Ok(found);
    }
    for entry in fs::read_dir(&bases).map_err(io)? {
        let entry = entry.map_err(io)?;
        if !entry.file_type().map_err(io)?.is_dir() {
            continue;
        }
        let (folder, key) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let in_use = alone(&bases, &key).map_err(io)?.is_none();
        // A run makes its folder for temporary files anew.
        let used = ["tmp", "state.json"].iter().find_map(|name| {
            let time = std::fs::metadata(folder.join(name)).and_then(|meta| meta.modified()).ok()?;
            Some(time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs())
        });
        let (bytes, usable) = (measure(&folder), base::is_complete(cache, &key));
        found.push(KeptBuild { key, bytes, usable, in_use, used });
    }
    found.sort_by(|one, other| one.key.cmp(&other.key));
    Ok(found)
}

/// Removes all kept builds that no run is using.
///
/// # Errors
/// When one cannot be removed.
pub fn clear(cache: &Path) -> Result<Cleared, Diagnostic> {
    let bases = cache.join("bases");
    let mut cleared = Cleared::default();
    for build in kept(cache)? {
        let locks = alone(&bases, &build.key).map_err(|error| codes::io(&error))?;
        if locks.is_some() {
            tree::remove(&bases.join(&build.key)).map_err(|error| codes::io(&error))?;
            cleared.removed.push(build);
        } else {
            cleared.in_use.push(build);
        }
    }
    Ok(cleared)
}

/// Removes kept builds that no run is using, those first that were used longest ago, until what is left takes at most
/// `limit` bytes. Gives what was removed.
///
/// # Errors
/// A warning when the folder cannot be read, or one cannot be removed.
pub fn bound(cache: &Path, limit: u64) -> Result<Vec<KeptBuild>, Diagnostic> {
    remove_over(cache, limit).map_err(|problem| {
        Diagnostic::new(codes::CACHE_OVER_LIMIT, "kept builds over the limit could not be removed")
            .at(Place::file(cache.display().to_string()))
            .why(problem.what)
            .advice("See `xsplice cache list`, and remove what is in the way.")
    })
}

fn remove_over(cache: &Path, limit: u64) -> Result<Vec<KeptBuild>, Diagnostic> {
    let bases = cache.join("bases");
    let mut builds = measured(cache, known_size)?;
    builds.sort_by(|one, other| (one.used, &one.key).cmp(&(other.used, &other.key)));
    let mut total: u64 = builds.iter().map(|build| build.bytes).sum();
    let mut removed = Vec::new();
    for build in builds {
        if total <= limit {
            break;
        }
        let locks = alone(&bases, &build.key).map_err(|error| codes::io(&error))?;
        if locks.is_some() {
            tree::remove(&bases.join(&build.key)).map_err(|error| codes::io(&error))?;
            total = total.saturating_sub(build.bytes);
            removed.push(build);
        }
    }
    Ok(removed)
}

/// Both locks of a kept build, if no run holds one. The files of the locks stay: another run may be waiting there.
fn alone(bases: &Path, key: &str) -> std::io::Result<Option<Vec<Lock>>> {
    let mut locks = Vec::new();
    for end in ["lock", "use"] {
        let path = bases.join(format!("{key}.{end}"));
        if path.exists() {
            let Some(lock) = Lock::try_alone(&path)? else { return Ok(None) };
            locks.push(lock);
        }
    }
    Ok(Some(locks))
}

/// The size of all files below a folder; what vanishes meanwhile does not count.
fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => size(&entry.path()),
            Ok(meta) if meta.is_file() => meta.len(),
            _ => 0,
        })
        .sum()
}

/// The size of a kept build, measured once after it was made: runs change it little, and each asks for it.
fn known_size(folder: &Path) -> u64 {
    let written = |name: &str| std::fs::metadata(folder.join(name)).and_then(|meta| meta.modified()).ok();
    let Some(made) = written("state.json") else { return size(folder) };
    let note = folder.join(SIZE);
    let known = std::fs::read_to_string(&note).ok().and_then(|text| text.parse().ok());
    if let Some(known) = known.filter(|_| written(SIZE).is_some_and(|noted| noted >= made)) {
        return known;
    }
    let bytes = size(folder);
    // Without the note it is measured again.
    let _ = tree::write_private_whole(&note, bytes.to_string().as_bytes());
    bytes
}

/// The file in a kept build's folder that has its size in bytes.
const SIZE: &str = "bytes";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_go_first_and_those_in_use_stay() {
        let cache = tempfile::tempdir().unwrap();
        assert_eq!(bound(cache.path(), 0).unwrap(), []);
        let bases = cache.path().join("bases");
        for (key, age) in [("new", 10), ("old", 500), ("older", 1000), ("oldest-used", 2000), ("middle", 100)]
        {
            fs::create_dir_all(bases.join(key).join("tmp")).unwrap();
            fs::write(bases.join(key).join("a.o"), [0; 100]).unwrap();
            fs::write(bases.join(format!("{key}.lock")), "").unwrap();
            let time = SystemTime::now() - std::time::Duration::from_secs(age);
            let folder = std::fs::File::open(bases.join(key).join("tmp")).unwrap();
            folder.set_times(std::fs::FileTimes::new().set_modified(time)).unwrap();
        }
        let _used = Lock::try_alone(&bases.join("oldest-used.lock")).unwrap().unwrap();
        let removed = |limit| -> Vec<String> {
            bound(cache.path(), limit).unwrap().into_iter().map(|build| build.key).collect()
        };
        assert_eq!(removed(500), [""; 0]);
        assert_eq!(removed(499), ["older"]);
        assert_eq!(removed(200), ["old", "middle"]);
        assert_eq!(removed(0), ["new"]);
        assert!(bases.join("oldest-used/a.o").exists() && !bases.join("new").exists());
    }

    #[test]
    fn what_cannot_be_removed_is_a_warning() {
        let cache = tempfile::tempdir().unwrap();
        let bases = cache.path().join("bases");
        fs::create_dir_all(bases.join("0123/tree")).unwrap();
        fs::write(bases.join("0123/tree/a.o"), "x").unwrap();
        // No file that could be locked.
        fs::create_dir(bases.join("0123.lock")).unwrap();
        let problem = bound(cache.path(), 0).unwrap_err();
        assert_eq!(problem.code, codes::CACHE_OVER_LIMIT);
        assert!(problem.why.contains("0123.lock"), "{problem:?}");
        assert!(bases.join("0123/tree/a.o").is_file());
    }

    #[test]
    fn a_finished_build_is_measured_once() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, bytes: usize| fs::write(folder.path().join(name), vec![b'0'; bytes]).unwrap();
        write("a.o", 100);
        assert_eq!(known_size(folder.path()), 100);
        assert!(!folder.path().join(SIZE).exists(), "it is not finished");
        write("state.json", 10);
        assert_eq!(known_size(folder.path()), 110);
        write("b.o", 5);
        assert_eq!(known_size(folder.path()), 110);
        // Made anew.
        let later = SystemTime::now() + std::time::Duration::from_secs(5);
        let state = std::fs::File::options().append(true).open(folder.path().join("state.json")).unwrap();
        state.set_times(std::fs::FileTimes::new().set_modified(later)).unwrap();
        assert_eq!(known_size(folder.path()), 115 + "110".len() as u64);
    }

    #[test]
    fn builds_in_use_stay_and_others_go() {
        let cache = tempfile::tempdir().unwrap();
        assert_eq!(kept(cache.path()).unwrap(), []);
        let bases = cache.path().join("bases");
        for key in ["used", "read", "free"] {
            fs::create_dir_all(bases.join(key).join("tree")).unwrap();
            fs::write(bases.join(key).join("tree/a.o"), [0; 100]).unwrap();
            fs::write(bases.join(format!("{key}.lock")), "").unwrap();
            fs::write(bases.join(format!("{key}.use")), "").unwrap();
        }
        let _used = Lock::try_alone(&bases.join("used.lock")).unwrap().unwrap();
        let _read = Lock::try_alone(&bases.join("read.use")).unwrap().unwrap();
        let facts: Vec<_> = kept(cache.path())
            .unwrap()
            .into_iter()
            .map(|build| (build.key, build.bytes, build.usable, build.in_use))
            .collect();
        let build = |key: &str, in_use| (key.to_owned(), 100, false, in_use);
        assert_eq!(facts, [build("free", false), build("read", true), build("used", true)]);
        let cleared = clear(cache.path()).unwrap();
        let names = |builds: &[KeptBuild]| builds.iter().map(|build| build.key.clone()).collect::<Vec<_>>();
        assert_eq!(
            (names(&cleared.removed), names(&cleared.in_use)),
            (vec!["free".to_owned()], vec!["read".to_owned(), "used".to_owned()])
        );
        assert!(!bases.join("free").exists() && bases.join("used/tree/a.o").exists());
    }
}
