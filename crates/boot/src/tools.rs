//! Finds programs and the libraries they need in unpacked root file systems.
//!
//! Nothing of the machine's own is taken: the control domain runs what the folders hold. Symbolic links
//! are followed as if the folder were the root. Format: ELF's dynamic section, DT_NEEDED and PT_INTERP
//! (System V ABI, chapter 5).

use std::collections::{BTreeMap, VecDeque};
use std::path::{Component, Path, PathBuf};

use fs_err as fs;
use goblin::elf::Elf;
use xsplice_report::{Diagnostic, Place, Problems};

use crate::codes;

/// How deep below a root a file may lie, and how many links may follow one another.
const DEPTH: usize = 16;
/// Folders that are searched first, so that one of several files of a name is always the same.
const PREFERRED: &[&str] = &["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "lib64", "usr/lib64"];

/// The files of some root file systems by their last name.
#[derive(Debug)]
pub(crate) struct Roots {
    roots: Vec<PathBuf>,
    /// For each name the paths that have it, in the order of the roots, preferred folders first.
    names: BTreeMap<String, Vec<PathBuf>>,
}

/// A file to put into the initial file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Picked {
    /// Its name there.
    pub(crate) name: String,
    /// Its contents.
    pub(crate) data: Vec<u8>,
}

/// Programs with everything they need to start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Programs {
    /// The programs, in the order they were asked for.
    pub(crate) programs: Vec<Picked>,
    /// Shared libraries by their DT_NEEDED name, sorted.
    pub(crate) libraries: Vec<Picked>,
    /// The program interpreters, by the absolute path that the programs name.
    pub(crate) interpreters: Vec<Picked>,
}

impl Roots {
    /// Looks through the folders, of which an earlier one wins.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub(crate) fn open(roots: &[PathBuf]) -> Result<Roots, Problems> {
        let mut names: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        let mut canonical = Vec::new();
        for root in roots {
            let root = fs::canonicalize(root).map_err(codes::io)?;
            let mut files = Vec::new();
            walk(&root, DEPTH, &mut files)?;
            let rank = |path: &PathBuf| {
                let folder = path.parent().and_then(|parent| parent.strip_prefix(&root).ok());
                let preferred = PREFERRED.iter().position(|dir| folder == Some(Path::new(dir)));
                preferred.unwrap_or(PREFERRED.len())
            };
            files.sort_by(|one, other| rank(one).cmp(&rank(other)).then_with(|| one.cmp(other)));
            for file in files {
                let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                names.entry(name).or_default().push(file);
            }
            canonical.push(root);
        }
        Ok(Roots { roots: canonical, names })
    }

    /// The contents of the first file of that name, links followed inside of the root.
    pub(crate) fn read(&self, name: &str) -> Option<Vec<u8>> {
        let paths = self.names.get(name)?;
        paths.iter().find_map(|path| {
            let root = self.roots.iter().find(|root| path.starts_with(root))?;
            let real = resolve(root, path.strip_prefix(root).ok()?)?;
            std::fs::read(real).ok()
        })
    }

    /// The first ELF program of that name (scripts do not count).
    fn program(&self, name: &str) -> Result<Vec<u8>, Problems> {
        match self.read(name).filter(|data| data.starts_with(b"\x7fELF")) {
            Some(data) => Ok(data),
            None => Err(self.lacks(&format!("the program {name}")).into()),
        }
    }

    fn lacks(&self, what: &str) -> Diagnostic {
        let roots: Vec<String> = self.roots.iter().map(|root| root.display().to_string()).collect();
        Diagnostic::new(codes::TOOLS_INCOMPLETE, format!("there is no file for {what}"))
            .at(Place::file(roots.join(", ")))
            .advice(
                "Unpack the package that has it into that folder (`dpkg -x`): Xen's tools are in \
                 xen-utils-VERSION, their libraries in libxenmiscVERSION and libxen*.",
            )
    }

    /// Programs, and all libraries that they need directly or through others.
    ///
    /// # Errors
    /// A program or library that is in none of the folders, or is no ELF file.
    pub(crate) fn programs(&self, names: &[String]) -> Result<Programs, Problems> {
        let mut out = Programs::default();
        let mut libraries: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut interpreters: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut queue: VecDeque<(String, Vec<u8>)> = VecDeque::new();
        for name in names {
            let data = self.program(name)?;
            queue.push_back((name.clone(), data.clone()));
            out.programs.push(Picked { name: name.clone(), data });
        }
        while let Some((name, data)) = queue.pop_front() {
            let elf = Elf::parse(&data).map_err(|error| {
                Diagnostic::new(codes::TOOLS_INCOMPLETE, format!("{name} is no ELF file: {error}"))
            })?;
            for needed in &elf.libraries {
                if !libraries.contains_key(*needed) {
                    let lacks = || self.lacks(&format!("the library {needed}, which {name} needs"));
                    let library = self.read(needed).ok_or_else(lacks)?;
                    libraries.insert((*needed).to_owned(), library.clone());
                    queue.push_back(((*needed).to_owned(), library));
                }
            }
            if let Some(interpreter) = elf.interpreter {
                let file = interpreter.rsplit('/').next().unwrap_or(interpreter);
                let lacks = || self.lacks(&format!("{interpreter}, which starts {name}"));
                interpreters.insert(interpreter.to_owned(), self.read(file).ok_or_else(lacks)?);
            }
        }
        let picked = |(name, data)| Picked { name, data };
        out.libraries = libraries.into_iter().map(picked).collect();
        out.interpreters = interpreters.into_iter().map(picked).collect();
        Ok(out)
    }
}

fn walk(dir: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), Problems> {
    for entry in fs::read_dir(dir).map_err(codes::io)? {
        let entry = entry.map_err(codes::io)?;
        let kind = entry.file_type().map_err(codes::io)?;
        if !kind.is_dir() {
            files.push(entry.path());
        } else if depth > 0 {
            walk(&entry.path(), depth - 1, files)?;
        }
    }
    Ok(())
}

/// Follows symbolic links as if `root` were the root. `path` is relative to it.
fn resolve(root: &Path, path: &Path) -> Option<PathBuf> {
    let mut todo: VecDeque<PathBuf> = parts(path);
    let mut at = PathBuf::new();
    let mut links = 0;
    while let Some(part) = todo.pop_front() {
        if part == Path::new("..") {
            at.pop();
            continue;
        }
        let next = at.join(&part);
        match std::fs::read_link(root.join(&next)) {
            Ok(target) => {
                links += 1;
                if links > DEPTH {
                    return None;
                }
                if target.is_absolute() {
                    at = PathBuf::new();
                }
                for part in parts(&target).into_iter().rev() {
                    todo.push_front(part);
                }
            }
            Err(_) => at = next,
        }
    }
    let real = root.join(at);
    real.is_file().then_some(real)
}

fn parts(path: &Path) -> VecDeque<PathBuf> {
    let part = |component: Component| match component {
        Component::Normal(name) => Some(PathBuf::from(name)),
        Component::ParentDir => Some(PathBuf::from("..")),
        _ => None,
    };
    path.components().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root() -> tempfile::TempDir {
        let dir = tempfile::TempDir::new().expect("temporary folder");
        for sub in ["usr/lib/x86_64-linux-gnu", "other", "lib64"] {
            fs::create_dir_all(dir.path().join(sub)).expect("folder");
        }
        dir
    }

    #[test]
    fn links_stay_inside_the_root() {
        let dir = root();
        fs::write(dir.path().join("usr/lib/x86_64-linux-gnu/libx.so.1.2"), "x").expect("write");
        symlink("libx.so.1.2", dir.path().join("usr/lib/x86_64-linux-gnu/libx.so.1")).expect("link");
        symlink("/usr/lib/x86_64-linux-gnu/libx.so.1", dir.path().join("lib64/abs.so")).expect("link");
        symlink("/etc/hostname", dir.path().join("lib64/outside")).expect("link");
        symlink("loop", dir.path().join("lib64/loop")).expect("link");
        let roots = Roots::open(&[dir.path().to_owned()]).expect("readable");
        assert_eq!(roots.read("libx.so.1").as_deref(), Some(&b"x"[..]));
        assert_eq!(roots.read("abs.so").as_deref(), Some(&b"x"[..]));
        assert_eq!(roots.read("outside"), None);
        assert_eq!(roots.read("loop"), None);
    }

    #[test]
    fn the_first_root_and_the_usual_folder_win() {
        let (one, two) = (root(), root());
        fs::write(one.path().join("other/libx.so.1"), "odd").expect("write");
        fs::write(one.path().join("usr/lib/x86_64-linux-gnu/libx.so.1"), "usual").expect("write");
        fs::write(two.path().join("lib64/libx.so.1"), "two").expect("write");
        fs::write(two.path().join("lib64/liby.so.1"), "y").expect("write");
        let paths = [one.path().to_owned(), two.path().to_owned()];
        let roots = Roots::open(&paths).expect("readable");
        assert_eq!(roots.read("libx.so.1").as_deref(), Some(&b"usual"[..]));
        assert_eq!(roots.read("liby.so.1").as_deref(), Some(&b"y"[..]));
    }

    #[test]
    fn what_is_missing_is_named() {
        let dir = root();
        fs::write(dir.path().join("other/xen-livepatch"), "#!/bin/sh").expect("write");
        let roots = Roots::open(&[dir.path().to_owned()]).expect("readable");
        let error =
            roots.programs(&["xen-livepatch".to_owned()]).expect_err("a script is no program").0.remove(0);
        assert_eq!(error.code, codes::TOOLS_INCOMPLETE);
        assert!(error.what.contains("xen-livepatch"));
    }
}
