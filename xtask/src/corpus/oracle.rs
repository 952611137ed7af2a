//! A second opinion on every pair of objects, and what is kept of it.
//!
//! It comes from the text of other programs and is slow, so its verdict on a pair is kept under a hash of what is
//! loaded of both objects. Objects that differ in debug information only have the same hash, and need no verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use fs_err as fs;
use object::{Object, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget, SectionFlags};
use serde::{Deserialize, Serialize};

/// How data differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum What {
    /// In both, with other content or another size.
    Changed,
    /// Only in the patched object.
    New,
    /// Only in the original.
    Removed,
}

/// Data that exists at run time and differs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct DataChange {
    /// Its symbol.
    pub(crate) name: String,
    /// How it differs.
    pub(crate) what: What,
    /// Whether a payload could hold it: plain constants and variables, not those of each CPU or of arrays that
    /// the linker collects.
    pub(crate) plain: bool,
    /// Functions that refer to it.
    pub(crate) users: BTreeSet<String>,
}

/// What the oracle says of one pair.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// Functions that run after boot and whose meaning differs.
    pub(crate) changed: BTreeSet<String>,
    /// Functions that only the patched object has.
    pub(crate) new: BTreeSet<String>,
    /// Functions that only the original has.
    pub(crate) removed: BTreeSet<String>,
    /// Functions and data of boot that differ.
    pub(crate) init_changed: BTreeSet<String>,
    /// Data that differs.
    pub(crate) data: Vec<DataChange>,
    /// Differences that it has no rule for.
    pub(crate) unknown: Vec<String>,
    /// The first difference of each name.
    pub(crate) why: BTreeMap<String, String>,
}

/// Who judges a pair of object files.
pub(crate) trait Oracle: Sync {
    /// What differs between two objects; one of them may be missing.
    ///
    /// # Errors
    /// When a program is missing, or its output is not understood.
    fn judge(&self, base: Option<&Path>, patched: Option<&Path>) -> Result<Verdict, String>;

    /// Differs from that of any oracle that might judge otherwise.
    fn version(&self) -> String;
}

/// The oracle of this project, which reads the text of objdump and readelf.
pub(crate) struct Binutils {
    oracle: xsplice_oracle::Oracle,
    version: String,
}

impl Binutils {
    /// With the programs in PATH. Verdicts of another state of its source do not count.
    ///
    /// # Errors
    /// When its source is not where it was compiled.
    pub(crate) fn new() -> Result<Binutils, String> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/oracle/src");
        Ok(Binutils { oracle: xsplice_oracle::Oracle::default(), version: hash_of_sources(&source)? })
    }
}

impl Oracle for Binutils {
    fn judge(&self, base: Option<&Path>, patched: Option<&Path>) -> Result<Verdict, String> {
        let verdict = match (base, patched) {
            (Some(base), Some(patched)) => self.oracle.judge(base, patched),
            (None, Some(patched)) => self.oracle.judge_new(patched),
            (Some(base), None) => self.oracle.judge_removed(base),
            (None, None) => return Ok(Verdict::default()),
        };
        verdict.map(Verdict::from).map_err(|error| error.to_string())
    }

    fn version(&self) -> String {
        self.version.clone()
    }
}

impl From<xsplice_oracle::Verdict> for Verdict {
    fn from(verdict: xsplice_oracle::Verdict) -> Verdict {
        use xsplice_oracle::{DataClass, What as Theirs};
        let data = verdict.data.into_iter().map(|change| DataChange {
            name: change.name,
            what: match change.what {
                Theirs::Changed => What::Changed,
                Theirs::New => What::New,
                Theirs::Removed => What::Removed,
            },
            plain: matches!(change.class, DataClass::Writable | DataClass::Constant),
            users: change.users,
        });
        Verdict {
            data: data.collect(),
            changed: verdict.changed,
            new: verdict.new,
            removed: verdict.removed,
            init_changed: verdict.init_changed,
            unknown: verdict.unknown,
            why: verdict.why,
        }
    }
}

/// An oracle's verdicts, kept in a folder.
pub(crate) struct Kept<'o> {
    oracle: &'o dyn Oracle,
    version: String,
    folder: PathBuf,
}

impl<'o> Kept<'o> {
    /// Keeps in a folder, which is made.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn new(oracle: &'o dyn Oracle, folder: PathBuf) -> Result<Kept<'o>, String> {
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        Ok(Kept { oracle, version: oracle.version(), folder })
    }

    /// The verdict on a pair.
    ///
    /// # Errors
    /// The oracle's, and those of reading and writing.
    pub(crate) fn judge(&self, base: Option<&Path>, patched: Option<&Path>) -> Result<Verdict, String> {
        let (before, after) = (loaded(base)?, loaded(patched)?);
        if before == after {
            return Ok(Verdict::default());
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.version.as_bytes());
        hasher.update(before.as_bytes());
        hasher.update(after.as_bytes());
        let file = self.folder.join(format!("{}.json", hasher.finalize().to_hex()));
        if let Some(verdict) = fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
            return Ok(verdict);
        }
        let verdict =
            self.oracle.judge(base, patched).map_err(|error| format!("{base:?} and {patched:?}: {error}"))?;
        write_whole(&file, &serde_json::to_vec_pretty(&verdict).map_err(|error| error.to_string())?)?;
        Ok(verdict)
    }
}

/// Writes a file that is whole when it is there.
pub(crate) fn write_whole(file: &Path, bytes: &[u8]) -> Result<(), String> {
    let thread = rayon::current_thread_index().unwrap_or(usize::MAX);
    let part = file.with_extension(format!("part-{}-{thread}", std::process::id()));
    fs::write(&part, bytes).and_then(|()| fs::rename(&part, file)).map_err(|error| error.to_string())
}

/// A hash of what is loaded of an object: sections with SHF_ALLOC and their relocations, and the symbols in them.
fn loaded(path: Option<&Path>) -> Result<blake3::Hash, String> {
    let Some(path) = path else { return Ok(blake3::hash(b"no object")) };
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    hash_loaded(&bytes).map_err(|error| format!("{}: {error}", path.display()))
}

fn hash_loaded(bytes: &[u8]) -> Result<blake3::Hash, object::Error> {
    let file = object::File::parse(bytes)?;
    let mut hasher = blake3::Hasher::new();
    let mut put = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    let is_loaded = |flags: SectionFlags| match flags {
        SectionFlags::Elf { sh_flags, .. } => sh_flags.contains(object::elf::SHF_ALLOC),
        _ => true,
    };
    let section_of = |symbol: &object::Symbol<'_, '_>| {
        let section = symbol.section_index().map(|index| file.section_by_index(index)).transpose()?;
        let name = section.as_ref().map(|section| section.name()).transpose()?;
        let loaded = section.as_ref().is_none_or(|section| is_loaded(section.flags()));
        Ok::<_, object::Error>((name.unwrap_or_default().to_owned(), loaded))
    };
    for section in file.sections().filter(|section| is_loaded(section.flags())) {
        put(section.name()?.as_bytes());
        put(format!("{:?} {:?} {}", section.kind(), section.flags(), section.align()).as_bytes());
        put(&section.size().to_le_bytes());
        put(&section.uncompressed_data()?);
        for (offset, relocation) in section.relocations() {
            let target = match relocation.target() {
                RelocationTarget::Symbol(index) => {
                    let symbol = file.symbol_by_index(index)?;
                    format!("{} {} {:#x}", symbol.name()?, section_of(&symbol)?.0, symbol.address())
                }
                other => format!("{other:?}"),
            };
            let kind = match relocation.flags() {
                RelocationFlags::Elf { r_type } => format!("{r_type:?}"),
                other => format!("{other:?}"),
            };
            put(format!("{offset:#x} {kind} {:#x} {target}", relocation.addend()).as_bytes());
        }
    }
    for symbol in file.symbols() {
        let (section, loaded) = section_of(&symbol)?;
        if loaded {
            put(symbol.name()?.as_bytes());
            put(format!("{section} {:#x} {:#x} {:?}", symbol.address(), symbol.size(), symbol.flags())
                .as_bytes());
        }
    }
    Ok(hasher.finalize())
}

/// A hash of the files of a folder, by name.
///
/// # Errors
/// When one cannot be read.
pub(crate) fn hash_of_sources(folder: &Path) -> Result<String, String> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).map_err(|error| error.to_string())? {
            let path = entry.map_err(|error| error.to_string())?.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    let mut hasher = blake3::Hasher::new();
    for file in files {
        hasher.update(&fs::read(file).map_err(|error| error.to_string())?);
    }
    Ok(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use object::write;
    use object::{Architecture, BinaryFormat, Endianness, SectionKind};

    use super::*;

    fn object(code: &[u8], debug: &[u8]) -> Vec<u8> {
        let mut object = write::Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        for (name, kind, bytes) in
            [(".text", SectionKind::Text, code), (".debug_info", SectionKind::Debug, debug)]
        {
            let section = object.add_section(Vec::new(), name.as_bytes().to_vec(), kind);
            object.append_section_data(section, bytes, 1);
        }
        object.write().expect("an object")
    }

    #[test]
    fn debug_information_is_not_loaded_and_code_is() {
        let hash = |code, debug| hash_loaded(&object(code, debug)).expect("a hash");
        assert_eq!(hash(b"\xc3", b"one"), hash(b"\xc3", b"another"));
        assert_ne!(hash(b"\xc3", b"one"), hash(b"\x90\xc3", b"one"));
    }

    struct Counting(AtomicUsize);

    impl Oracle for Counting {
        fn judge(&self, _base: Option<&Path>, _patched: Option<&Path>) -> Result<Verdict, String> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Ok(Verdict { changed: BTreeSet::from(["f".to_owned()]), ..Verdict::default() })
        }

        fn version(&self) -> String {
            "1".to_owned()
        }
    }

    #[test]
    fn a_pair_is_judged_once_and_one_that_loads_the_same_never() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, bytes: Vec<u8>| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).expect("written");
            path
        };
        let base = file("a.o", object(b"\xc3", b"x"));
        let same = file("b.o", object(b"\xc3", b"y"));
        let other = file("c.o", object(b"\xcc", b"x"));
        let oracle = Counting(AtomicUsize::new(0));
        let kept = Kept::new(&oracle, folder.path().join("verdicts")).expect("a folder");
        assert_eq!(kept.judge(Some(&base), Some(&same)), Ok(Verdict::default()));
        assert_eq!(oracle.0.load(Ordering::SeqCst), 0);
        for _ in 0..2 {
            let verdict = kept.judge(Some(&base), Some(&other)).expect("a verdict");
            assert!(verdict.changed.contains("f"));
        }
        assert_eq!(oracle.0.load(Ordering::SeqCst), 1);
        kept.judge(None, Some(&other)).expect("a verdict on an added object");
        assert_eq!(oracle.0.load(Ordering::SeqCst), 2);
    }
}
