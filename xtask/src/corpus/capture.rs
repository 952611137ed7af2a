//! The first half: each patch is built once, and the objects that differ are kept.
//!
//! `pairs/NAME/` holds `capture.json`, and the objects below `base/` and `patched/`. A folder is made under another
//! name and renamed when it is whole, so an interrupted run leaves nothing that looks finished. Objects of the
//! original build are the same for many patches: they are kept once, in `base-objects/`, and linked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use fs_err as fs;
use serde::{Deserialize, Serialize};
use xsplice_build::{
    CapturedBuild, CapturedObject, FuncsLayout, PatchInput, Planned, Request, Silent, codes,
};
use xsplice_objects::Object;
use xsplice_report::{Diagnostic, Outcome, Problems};

use super::Inputs;
use super::list::Entry;

/// Rises when what is kept changes, so that everything is captured anew.
const FORMAT: u32 = 1;

/// How the build stage ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum End {
    /// Both builds were made.
    Built,
    /// Nothing that the patch touches can reach the hypervisor.
    Nothing,
    /// The patch does not fit the tree; Debian's source has some changes of its own.
    DoesNotApply,
    /// The compiler or make stopped.
    DoesNotCompile,
    /// The change cannot be live patched, by the build stage's own judgement.
    Refused,
}

/// A problem of the build stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    /// The name of its code.
    pub(crate) code: String,
    /// Whether it only warns.
    pub(crate) warning: bool,
    /// Its first line.
    pub(crate) what: String,
    /// Where it stands, for people.
    pub(crate) place: String,
}

impl Told {
    /// What is kept of a diagnostic.
    pub(crate) fn of(problem: &Diagnostic) -> Told {
        Told {
            code: problem.code.name.to_owned(),
            warning: problem.kind == xsplice_report::Kind::Warning,
            what: problem.what.clone(),
            place: problem.place.to_string(),
        }
    }
}

/// An object that differs, as [`CapturedObject`] but for its bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ObjectFacts {
    pub(crate) path: String,
    pub(crate) source: String,
    pub(crate) assembler: bool,
    /// Whether it is part of the hypervisor after boot; others are not kept.
    pub(crate) compared: bool,
    pub(crate) has_base: bool,
    pub(crate) has_patched: bool,
    pub(crate) same_command: bool,
    pub(crate) renamed_later: BTreeMap<String, String>,
}

/// What is known of a patch after the build stage.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capture {
    /// Of everything that decides about the build.
    key: String,
    pub(crate) end: End,
    pub(crate) problems: Vec<Told>,
    pub(crate) objects: Vec<ObjectFacts>,
    pub(crate) funcs_layout: Option<FuncsLayout>,
    /// How long it took.
    pub(crate) seconds: f64,
}

/// The folders of a run.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    pub(crate) out: PathBuf,
}

impl Store {
    /// The folder of a patch.
    pub(crate) fn folder(&self, entry: &Entry) -> PathBuf {
        self.out.join("pairs").join(entry.name())
    }

    /// Where the payload of a patch goes.
    pub(crate) fn payload(&self, entry: &Entry) -> PathBuf {
        self.out.join("payloads").join(format!("{}.livepatch", entry.name()))
    }

    /// What an earlier run captured, if that is still what this one would.
    pub(crate) fn find(&self, entry: &Entry, key: &str) -> Option<Capture> {
        let bytes = fs::read(self.folder(entry).join("capture.json")).ok()?;
        serde_json::from_slice::<Capture>(&bytes).ok().filter(|capture| capture.key == key)
    }
}

/// The request of a patch, and the key of what comes out of it.
pub(crate) fn request(inputs: &Inputs, entry: &Entry, patch: Vec<u8>) -> Result<(Request, String), String> {
    let wrapper = std::env::current_exe().map_err(|error| error.to_string())?;
    let patches = vec![PatchInput { name: format!("{}.patch", entry.name()), bytes: patch }];
    let logs = inputs.store.out.join("logs").join(entry.name());
    let mut request = Request::new(&inputs.tree, patches, &inputs.config, &inputs.cache, wrapper, logs);
    request.want_symbols = false;
    request.whole = true;
    request.jobs = inputs.jobs;
    // Every option takes part, later ones too; paths and the number of jobs do not.
    let mut options = request.clone();
    let nowhere = PathBuf::new();
    options.jobs = 1;
    options.patches.clear();
    for path in [
        &mut options.tree,
        &mut options.config,
        &mut options.cache,
        &mut options.wrapper,
        &mut options.log_dir,
    ] {
        path.clone_from(&nowhere);
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{FORMAT}\n{options:?}\n").as_bytes());
    hasher.update(&fs::read(&inputs.config).map_err(|error| error.to_string())?);
    hasher.update(&request.patches[0].bytes);
    Ok((request, hasher.finalize().to_hex().to_string()))
}

/// Captures a patch.
///
/// # Errors
/// When something other than the patch is in the way: the tree, the tools, the disk, an interruption.
pub(crate) fn capture(
    inputs: &Inputs,
    entry: &Entry,
    request: Request,
    key: String,
) -> Result<Capture, String> {
    let start = Instant::now();
    fs::create_dir_all(&request.log_dir).map_err(|error| error.to_string())?;
    let built = xsplice_build::plan(request).and_then(|planned| match planned {
        Planned::Build(plan) => xsplice_build::build(*plan, &Silent).map(Some),
        Planned::Nothing(_) => Ok(None),
    });
    let mut capture = Capture {
        key,
        end: End::Nothing,
        problems: Vec::new(),
        objects: Vec::new(),
        funcs_layout: None,
        seconds: 0.0,
    };
    let objects = match built {
        Ok(Some(built)) => {
            keep_original(&inputs.store, &built)?;
            capture.end = End::Built;
            capture.funcs_layout = Some(built.funcs_layout);
            capture.problems = built.warnings.iter().map(Told::of).collect();
            capture.objects = built.objects.iter().map(facts).collect();
            Some(built)
        }
        Ok(None) => None,
        Err(problems) => {
            capture.end = end_of(&problems).ok_or_else(|| crate::told(&problems))?;
            capture.problems = problems.0.iter().map(Told::of).collect();
            None
        }
    };
    capture.seconds = start.elapsed().as_secs_f64();
    keep(&inputs.store, entry, &capture, objects.as_ref()).map_err(|error| error.to_string())?;
    Ok(capture)
}

/// What a problem of the build stage says about the patch; `None` where it says nothing about it.
fn end_of(problems: &Problems) -> Option<End> {
    let has = |wanted: &[&xsplice_report::Code]| {
        problems.0.iter().any(|problem| wanted.iter().any(|code| code.name == problem.code.name))
    };
    if problems.outcome() == Outcome::Refused {
        Some(End::Refused)
    } else if has(&[&codes::INTERRUPTED]) {
        None
    } else if has(&[&codes::PATCH_DOES_NOT_APPLY, &codes::PATCH_UNREADABLE, &codes::PATCH_BINARY]) {
        Some(End::DoesNotApply)
    } else if has(&[&codes::COMPILE_FAILED, &codes::MAKE_FAILED, &codes::DEFINED_TWICE]) {
        Some(End::DoesNotCompile)
    } else {
        None
    }
}

/// As the command line does: 32-bit code runs before the hypervisor does.
fn is_compared(object: &CapturedObject) -> bool {
    let bit_32 = |bytes: &Option<Vec<u8>>| bytes.as_deref().is_some_and(Object::is_32_bit);
    object.linked && !bit_32(&object.base) && !bit_32(&object.patched)
}

fn facts(object: &CapturedObject) -> ObjectFacts {
    ObjectFacts {
        path: object.path.clone(),
        source: object.source.clone(),
        assembler: object.assembler,
        compared: is_compared(object),
        has_base: object.base.is_some(),
        has_patched: object.patched.is_some(),
        same_command: object.same_command,
        renamed_later: object.renamed_later.clone(),
    }
}

fn keep(
    store: &Store,
    entry: &Entry,
    capture: &Capture,
    built: Option<&CapturedBuild>,
) -> std::io::Result<()> {
    let folder = store.folder(entry);
    let part = store.out.join("pairs").join(format!(".{}.part", entry.name()));
    for old in [&folder, &part] {
        if old.exists() {
            fs::remove_dir_all(old)?;
        }
    }
    fs::create_dir_all(&part)?;
    for object in built.iter().flat_map(|built| &built.objects).filter(|object| is_compared(object)) {
        if let Some(bytes) = &object.base {
            let shared = shared(&store.out.join("base-objects"), bytes)?;
            let file = below(&part.join("base"), &object.path)?;
            fs::hard_link(shared, file)?;
        }
        if let Some(bytes) = &object.patched {
            fs::write(below(&part.join("patched"), &object.path)?, bytes)?;
        }
    }
    fs::write(part.join("capture.json"), serde_json::to_vec_pretty(capture)?)?;
    fs::rename(part, folder)
}

/// An object of the original build, and where its bytes are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OriginalObject {
    pub(crate) path: String,
    pub(crate) source: String,
    pub(crate) assembler: bool,
    /// In `base-objects/`.
    pub(crate) file: String,
}

/// The list of all objects of the original build that are part of the hypervisor after boot.
const ORIGINAL: &str = "original.json";

/// Keeps the whole original build: changed read-only data has users that a patch does not touch.
fn keep_original(store: &Store, built: &CapturedBuild) -> Result<(), String> {
    let list = store.out.join(ORIGINAL);
    if list.exists() {
        return Ok(());
    }
    let mut objects = Vec::new();
    for object in built.base_objects.list().iter().filter(|object| object.linked) {
        let bytes = built.base_objects.read(&object.path).map_err(|problem| crate::told(&problem.into()))?;
        if Object::is_32_bit(&bytes) {
            continue;
        }
        let file = shared(&store.out.join("base-objects"), &bytes).map_err(|error| error.to_string())?;
        objects.push(OriginalObject {
            path: object.path.clone(),
            source: object.source.clone(),
            assembler: object.assembler,
            file: file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        });
    }
    let text = serde_json::to_vec_pretty(&objects).map_err(|error| error.to_string())?;
    let part = store.out.join(".original.part");
    fs::write(&part, text).and_then(|()| fs::rename(&part, &list)).map_err(|error| error.to_string())
}

/// All objects of the original build, with their bytes.
pub(crate) fn original(store: &Store) -> Result<Vec<(OriginalObject, Vec<u8>)>, String> {
    let text = fs::read(store.out.join(ORIGINAL)).map_err(|error| error.to_string())?;
    let objects: Vec<OriginalObject> = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    let read = |object: OriginalObject| {
        let bytes = fs::read(store.out.join("base-objects").join(&object.file));
        bytes.map(|bytes| (object, bytes)).map_err(|error| error.to_string())
    };
    objects.into_iter().map(read).collect()
}

/// A path below a folder, and the folders in between.
fn below(folder: &Path, path: &str) -> std::io::Result<PathBuf> {
    let file = folder.join(path);
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent)?;
    }
    Ok(file)
}

/// The one file that has this content.
fn shared(folder: &Path, bytes: &[u8]) -> std::io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let hash = blake3::hash(bytes).to_hex();
    let file = folder.join(hash.as_str());
    if !file.exists() {
        let part = folder.join(format!(".{hash}.part"));
        fs::write(&part, bytes)?;
        fs::rename(part, &file)?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_patch_did_is_an_end() {
        let problems = |code| Problems::from(Diagnostic::new(code, "x"));
        for (code, end) in [
            (codes::LINKER_SCRIPT_CHANGED, Some(End::Refused)),
            (codes::PATCH_DOES_NOT_APPLY, Some(End::DoesNotApply)),
            (codes::COMPILE_FAILED, Some(End::DoesNotCompile)),
            (codes::INTERRUPTED, None),
            (codes::IO, None),
            (codes::TOOL_MISSING, None),
        ] {
            assert_eq!(end_of(&problems(code)), end, "{}", code.name);
        }
    }

    #[test]
    fn a_capture_of_other_options_or_half_a_capture_does_not_count() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store { out: folder.path().to_owned() };
        let entry = Entry { number: 1, commit: "c0ffee0123456789".to_owned(), reverse: false };
        let capture = Capture {
            key: "one".to_owned(),
            end: End::Nothing,
            problems: Vec::new(),
            objects: Vec::new(),
            funcs_layout: None,
            seconds: 1.0,
        };
        keep(&store, &entry, &capture, None).expect("kept");
        assert!(store.find(&entry, "one").is_some());
        assert!(store.find(&entry, "two").is_none());
        fs::write(store.folder(&entry).join("capture.json"), "{").expect("written");
        assert!(store.find(&entry, "one").is_none());
    }

    #[test]
    fn what_has_one_content_is_kept_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let (a, b) = (shared(folder.path(), b"same"), shared(folder.path(), b"same"));
        assert_eq!(a.expect("kept"), b.expect("kept"));
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }
}
