//! The private copy of a tree: what is copied, its content hash, and bringing a copy back to a known state.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use fs_err as fs;

/// Makes a folder, and those above it, that only its owner can enter. One that is there is made so.
pub(crate) fn create_private_dir(path: &Path) -> io::Result<()> {
    if !path.is_dir() {
        if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty() && !above.is_dir()) {
            create_private_dir(above)?;
        }
        match std::fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(io::Error::new(
                    error.kind(),
                    format!("cannot create {}: {error}", path.display()),
                ));
            }
            _ => {}
        }
    }
    let mode = fs::metadata(path)?.permissions().mode() & 0o777;
    if mode != 0o700 {
        fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Writes a file that only its owner can read.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    fs_err::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(bytes)
}

/// Writes a file that only its owner can read, so that a reader sees all of it or nothing.
pub(crate) fn write_private_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut hidden = path.as_os_str().to_owned();
    hidden.push(".new");
    let hidden = PathBuf::from(hidden);
    write_private(&hidden, bytes)?;
    fs::rename(hidden, path)
}

/// One file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    File { hash: [u8; 32], executable: bool },
    Link { target: PathBuf },
}

/// The sources of a tree that a hypervisor build reads, by path relative to the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) entries: BTreeMap<PathBuf, Entry>,
    /// Whether files were left out that an earlier build in the tree had made.
    pub(crate) built_in_place: bool,
}

impl Snapshot {
    /// One hash of all names, modes and contents.
    pub(crate) fn hash(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for (path, entry) in &self.entries {
            let path = path.as_os_str().as_encoded_bytes();
            hasher.update(&(path.len() as u64).to_le_bytes()).update(path);
            match entry {
                Entry::File { hash, executable } => {
                    hasher.update(&[0, u8::from(*executable)]).update(hash);
                }
                Entry::Link { target } => {
                    let target = target.as_os_str().as_encoded_bytes();
                    hasher.update(&[1]).update(&(target.len() as u64).to_le_bytes()).update(target);
                }
            }
        }
        hasher.finalize()
    }
}

/// Folders at the top of a Xen tree that a hypervisor build reads. `tools/flask` has the XSM policy, which
/// xen/xsm/flask/Makefile builds in when it is configured.
const FOLDERS: &[&str] = &["xen", "config", "tools/flask/policy"];

/// Whether a build makes a file of this name, so that a copy of the sources leaves it out.
///
/// `path` is relative to the tree. The names are those that xen/Makefile's clean and distclean rules remove
/// in the versions from 4.13 to 4.22; what slips through is removed by running distclean in the copy.
fn is_build_product(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
    let text = path.to_string_lossy();
    const FOLDERS: &[&str] = &[
        "xen/include/config",
        "xen/include/generated",
        "xen/include/compat",
        "xen/arch/x86/include/generated",
    ];
    const FILES: &[&str] = &[
        "xen/.config",
        "xen/.config.old",
        "xen/.banner",
        "xen/.allconfig.tmp",
        "xen/xen",
        "xen/xen-syms",
        "xen/xen-syms.map",
        "xen/xen.gz",
        "xen/xen.efi",
        "xen/xen.efi.map",
        "xen/xen.lds",
        "xen/source",
        "xen/asm-offsets.s",
        "xen/include/asm",
        "xen/include/xen/compile.h",
        "xen/include/xen/hypercall-defs.h",
        "xen/include/xen/lib/x86/cpuid-autogen.h",
        "xen/arch/x86/asm-macros.i",
        "xen/arch/x86/xen.lds",
        "xen/arch/x86/efi.lds",
        "xen/arch/x86/boot/mkelf32",
        "xen/arch/x86/efi/mkreloc",
        "xen/tools/fixdep",
        "xen/tools/symbols",
        "xen/tools/kconfig/conf",
        "xen/common/config_data.S",
        "xen/common/config.gz",
        "xen/System.map",
        "xen/xsm/flask/flask-policy.S",
        "xen/xsm/flask/policy.bin",
        "xen/arch/x86/include/asm/asm-macros.h",
        "xen/arch/x86/include/asm/asm-offsets.h",
        "xen/include/asm-x86/asm-macros.h",
        "xen/include/asm-x86/asm-offsets.h",
        "xen/include/headers.chk",
        "xen/include/headers99.chk",
        "xen/include/headers++.chk",
    ];
    let hidden = name.starts_with('.');
    FOLDERS.contains(&text.as_ref())
        || FILES.contains(&text.as_ref())
        || [".o", ".a", ".gcno", ".o.tmp", ".pyc"].iter().any(|end| name.ends_with(end))
        || (hidden && [".cmd", ".d", ".d2", ".tmp"].iter().any(|end| name.ends_with(end)))
        || name == "__pycache__"
        || name == ".git"
}

/// Whether a path from a tree, a patch or a link stays inside the folder it starts from.
fn stays_inside(base_depth: usize, target: &Path) -> bool {
    let mut depth = base_depth;
    for part in target.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return false,
            },
            Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}

/// Reads what a build needs of `tree`, and copies it to `copy` where that is given.
///
/// Files that a build made are left out, as are links that lead out of the tree.
pub(crate) fn snapshot(tree: &Path, copy: Option<&Path>) -> io::Result<Snapshot> {
    let mut reader = Reader {
        tree,
        copy,
        snapshot: Snapshot { entries: BTreeMap::new(), built_in_place: false },
        buffer: Vec::new(),
    };
    if let Some(copy) = copy {
        create_private_dir(copy)?;
    }
    for entry in sorted(tree)? {
        if entry.file_type()?.is_file() {
            reader.take(PathBuf::from(entry.file_name()))?;
        }
    }
    for folder in FOLDERS {
        let path = Path::new(folder);
        if tree.join(path).is_dir() {
            reader.take_folder(path)?;
        }
    }
    Ok(reader.snapshot)
}

fn sorted(folder: &Path) -> io::Result<Vec<fs::DirEntry>> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    Ok(entries)
}

struct Reader<'a> {
    tree: &'a Path,
    copy: Option<&'a Path>,
    snapshot: Snapshot,
    buffer: Vec<u8>,
}

impl Reader<'_> {
    fn take_folder(&mut self, folder: &Path) -> io::Result<()> {
        if let Some(copy) = self.copy {
            create_private_dir(&copy.join(folder))?;
        }
        for entry in sorted(&self.tree.join(folder))? {
            let path = folder.join(entry.file_name());
            if is_build_product(&path) {
                self.snapshot.built_in_place = true;
            } else if entry.file_type()?.is_dir() {
                self.take_folder(&path)?;
            } else {
                self.take(path)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, path: PathBuf) -> io::Result<()> {
        let from = self.tree.join(&path);
        let meta = fs::symlink_metadata(&from)?;
        if meta.file_type().is_symlink() {
            let target = fs::read_link(&from)?;
            let depth = path.components().count() - 1;
            if stays_inside(depth, &target) {
                if let Some(copy) = self.copy {
                    fs_err::os::unix::fs::symlink(&target, copy.join(&path))?;
                }
                self.snapshot.entries.insert(path, Entry::Link { target });
            }
        } else if meta.is_file() {
            self.buffer.clear();
            fs::File::open(&from)?.read_to_end(&mut self.buffer)?;
            let executable = meta.mode() & 0o100 != 0;
            if let Some(copy) = self.copy {
                write_mode(&copy.join(&path), &self.buffer, executable)?;
            }
            let hash = blake3::hash(&self.buffer).into();
            self.snapshot.entries.insert(path, Entry::File { hash, executable });
        }
        Ok(())
    }
}

/// Writes a source file of a private copy.
pub(crate) fn write_mode(path: &Path, bytes: &[u8], executable: bool) -> io::Result<()> {
    write_private(path, bytes)?;
    if executable {
        fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Makes `to` equal to `from`: names, contents, modes and times of files. Files whose size, mode and time
/// agree are taken to be equal: whatever writes into `to` gives what it writes a later time.
pub(crate) fn mirror(from: &Path, to: &Path) -> io::Result<()> {
    create_private_dir(to)?;
    let wanted = sorted(from)?;
    let names: std::collections::BTreeSet<_> = wanted.iter().map(fs::DirEntry::file_name).collect();
    for entry in sorted(to)? {
        if !names.contains(&entry.file_name()) {
            remove(&entry.path())?;
        }
    }
    for entry in wanted {
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        let present = std::fs::symlink_metadata(&target).ok();
        if present.as_ref().is_some_and(|there| there.file_type() != kind) {
            remove(&target)?;
        }
        if kind.is_dir() {
            mirror(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            let wanted = fs::read_link(entry.path())?;
            if std::fs::read_link(&target).ok().as_deref() != Some(wanted.as_path()) {
                if present.is_some() {
                    remove(&target)?;
                }
                fs_err::os::unix::fs::symlink(wanted, &target)?;
            }
        } else {
            mirror_file(&entry.path(), &target)?;
        }
    }
    Ok(())
}

/// One hash of all files below a folder, links and folders by their names, but for objects and archives.
pub(crate) fn hash_sources(folder: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    add_sources(folder, &mut hasher)?;
    Ok(hasher.finalize().to_hex().to_string())
}

fn add_sources(folder: &Path, hasher: &mut blake3::Hasher) -> io::Result<()> {
    for entry in sorted(folder)? {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        let kind = entry.file_type()?;
        if kind.is_file() && [".o", ".a", ".o.tmp"].iter().any(|end| name.ends_with(end.as_bytes())) {
            continue;
        }
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name);
        if kind.is_dir() {
            hasher.update(b"d");
            add_sources(&entry.path(), hasher)?;
            hasher.update(b"/");
        } else if kind.is_symlink() {
            hasher.update(fs::read_link(entry.path())?.as_os_str().as_encoded_bytes());
        } else {
            let bytes = fs::read(entry.path())?;
            hasher.update(&(bytes.len() as u64).to_le_bytes()).update(&bytes);
        }
    }
    Ok(())
}

/// Makes one file equal to another, its mode and time, too.
pub(crate) fn mirror_file(from: &Path, to: &Path) -> io::Result<()> {
    let source = fs::metadata(from)?;
    let same = std::fs::symlink_metadata(to).is_ok_and(|there| {
        there.len() == source.len()
            && there.mode() == source.mode()
            && (there.mtime(), there.mtime_nsec()) == (source.mtime(), source.mtime_nsec())
    });
    if same {
        return Ok(());
    }
    // The time comes last: a copy that was cut short does not look finished.
    fs::copy(from, to)?;
    let times = std::fs::FileTimes::new().set_modified(source.modified()?);
    std::fs::OpenOptions::new().write(true).mode(0o600).open(to)?.set_times(times)
}

/// Removes a file, link or folder.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_dirty_tree_and_a_clean_one_are_the_same_sources() {
        let clean = tempfile::tempdir().unwrap();
        let dirty = tempfile::tempdir().unwrap();
        for root in [clean.path(), dirty.path()] {
            put(root, "xen/common/a.c", "int a;");
            put(root, "xen/include/xen/compile.h.in", "x");
            put(root, "Config.mk", "m");
        }
        for product in [
            "xen/common/a.o",
            "xen/common/.a.o.cmd",
            "xen/.config",
            "xen/include/config/auto.conf",
            "xen/xen-syms",
            "docs/a.txt",
            ".git/HEAD",
            "tools/x/a.c",
            "xen/include/xen/compile.h",
        ] {
            put(dirty.path(), product, "made");
        }
        let of_clean = snapshot(clean.path(), None).unwrap();
        let copy = tempfile::tempdir().unwrap();
        let of_dirty = snapshot(dirty.path(), Some(&copy.path().join("t"))).unwrap();
        assert_eq!(of_clean.hash(), of_dirty.hash());
        assert!(of_dirty.built_in_place && !of_clean.built_in_place);
        assert_eq!(of_clean.entries.len(), 3);
        assert_eq!(snapshot(&copy.path().join("t"), None).unwrap().hash(), of_clean.hash());
    }

    #[test]
    fn names_modes_and_contents_all_count() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "xen/a.sh", "1");
        let hash = || snapshot(root.path(), None).unwrap().hash();
        let first = hash();
        put(root.path(), "xen/a.sh", "2");
        let second = hash();
        assert_ne!(first, second);
        fs::set_permissions(root.path().join("xen/a.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_ne!(hash(), second);
    }

    #[test]
    fn links_that_leave_the_tree_are_left_out() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "xen/a.c", "1");
        for (target, name) in
            [("a.c", "in"), ("../xen/a.c", "up"), ("../../etc/passwd", "out"), ("/etc", "abs")]
        {
            std::os::unix::fs::symlink(target, root.path().join("xen").join(name)).unwrap();
        }
        let names: Vec<_> = snapshot(root.path(), None).unwrap().entries.into_keys().collect();
        assert_eq!(names, ["xen/a.c", "xen/in", "xen/up"].map(PathBuf::from));
    }

    #[test]
    fn a_mirror_undoes_every_change_and_keeps_times() {
        let from = tempfile::tempdir().unwrap();
        let to = tempfile::tempdir().unwrap();
        let to = to.path().join("copy");
        put(from.path(), "d/a", "one");
        put(from.path(), "d/b", "two");
        std::os::unix::fs::symlink("a", from.path().join("d/l")).unwrap();
        mirror(from.path(), &to).unwrap();
        put(&to, "d/a", "ONE");
        put(&to, "d/new/x", "x");
        fs::remove_file(to.join("d/b")).unwrap();
        fs::remove_file(to.join("d/l")).unwrap();
        put(&to, "d/l", "a file now");
        mirror(from.path(), &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("d/a")).unwrap(), "one");
        assert_eq!(fs::read_to_string(to.join("d/b")).unwrap(), "two");
        assert_eq!(fs::read_link(to.join("d/l")).unwrap(), Path::new("a"));
        assert!(!to.join("d/new").exists());
        let time = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
        assert_eq!(time(&to.join("d/a")), time(&from.path().join("d/a")));
    }
}
