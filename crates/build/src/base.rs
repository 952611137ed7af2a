//! The original build: made once for a tree and configuration, kept, and brought back before each use.
//!
//! Below `CACHE/bases/`, KEY being a hash of everything that decides about the result:
//!
//! - `KEY-needed` and so on, in the place of `KEY`: where only what patches needed so far is compiled;
//! - `KEY.lock`: held by the run that works in `KEY/tree`;
//! - `KEY.use`: held, shared, by every run that reads `KEY/pristine`;
//! - `KEY/pristine`: the tree right after the original build, never written to afterwards;
//! - `KEY/tree`: the path where make runs, for both builds;
//! - `KEY/state.json`, written last: without it the rest is worth nothing.
//!
//! A run that dies leaves `tree` in whatever state, and the next run makes it equal to `pristine` first.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fs_err as fs;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use xsplice_report::{Diagnostic, Place, Problems};

use crate::classify::FileClass;
use crate::codes;
use crate::config::{self, ConfigChange};
use crate::direct;
use crate::funcs_layout::{self, FuncsLayout, LoaderTraits};
use crate::graph::{BaseObject, Graph};
use crate::kbuild::{Call, Kbuild, interrupted, process_error};
use crate::metadata;
use crate::plan::{BuildPlan, tree_changed};
use crate::request::{Progress, Request};
use crate::tools::Tools;
use crate::tree::{self, Snapshot};
use crate::wrapper::{Record, Tool};

/// To be raised whenever a kept build of an earlier version would differ from a new one: another way to call
/// make or the tools, other added flags, another form of records or state, another choice of copied files.
const CACHE_VERSION: u32 = 5;

/// What is known about a kept build.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    version: u32,
    /// The folder that it was made in: records, objects and make's own files hold paths.
    folder: PathBuf,
    /// Whether the hypervisor was linked.
    symbols: bool,
    /// Whether every object was compiled; else those are missing whose records say that something stood in.
    whole: bool,
    layout: FuncsLayout,
    loader: LoaderTraits,
    config_changes: Vec<ConfigChange>,
    /// BLAKE3 of each object, by path.
    objects: BTreeMap<String, String>,
    /// BLAKE3 of all files of the pristine copy that are no objects.
    sources: String,
    /// BLAKE3 of the records: what they say was made is what `objects` has.
    records: String,
}

/// How much of the original is compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All of it.
    Whole {
        /// Why.
        because: String,
    },
    /// What the patch needs; the rest is only asked for its commands.
    Needed,
}

impl Scope {
    /// What a plan needs at first.
    pub(crate) fn of(plan: &BuildPlan) -> Scope {
        let because = if plan.request.whole {
            Some("every object of the original is wanted".to_owned())
        } else if plan.request.want_symbols {
            Some("the hypervisor is to be linked, for its symbol file".to_owned())
        } else {
            direct::for_make(&plan.touched)
        };
        because.map_or(Scope::Needed, |because| Scope::Whole { because })
    }
}

/// How the original was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Original {
    /// Whether an earlier run had left it.
    pub kept: bool,
    /// Whether all of it was compiled, not only what the patches needed so far.
    pub whole: bool,
    /// Why all of it had to be compiled, where this run did.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub because: String,
}

/// Why a path cannot hold a build: xen/Makefile and the shells that it starts read some characters specially.
fn unusable_character(path: &Path) -> Option<char> {
    let text = path.to_string_lossy();
    text.chars()
        .find(|c| c.is_whitespace() || c.is_control() || ":$#'\"\\`&;()*?[]{}|<>%=~!,\u{fffd}".contains(*c))
}

/// The name of the kept build for all that decides about it.
pub(crate) fn key(
    request: &Request,
    snapshot: &Snapshot,
    config: &[u8],
    tools: &Tools,
    metadata: &metadata::Texts,
) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut add = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    };
    add(&CACHE_VERSION.to_le_bytes());
    add(env!("CARGO_PKG_VERSION").as_bytes());
    add(snapshot.hash().as_bytes());
    add(config);
    add(tools.identity.as_bytes());
    add(format!("{:?} {:?} {:?}", request.metadata, request.make_vars, request.adjust).as_bytes());
    for (name, value) in &request.environment {
        add(b"environment");
        add(name.as_bytes());
        add(value.as_bytes());
    }
    for (name, text) in metadata {
        add(name.as_bytes());
        add(text.as_bytes());
    }
    if let Some(command) = &request.prepare {
        add(b"prepare");
        add(command.as_bytes());
    }
    // Programs of the build itself (flex, python, sed) are found there.
    add(std::env::var_os("PATH").unwrap_or_default().as_encoded_bytes());
    hasher.finalize().to_hex()[..32].to_owned()
}

fn state(folder: &Path) -> Option<State> {
    let state: State = serde_json::from_slice(&std::fs::read(folder.join("state.json")).ok()?).ok()?;
    let here = fs::canonicalize(folder).is_ok_and(|folder| folder == state.folder);
    (state.version == CACHE_VERSION && here && folder.join("pristine/xen").is_dir()).then_some(state)
}

/// The name of the kept build that belongs to a key and holds only what patches needed so far.
pub(crate) fn part_of(key: &str) -> String {
    format!("{key}-needed")
}

/// Whether there is a kept build of that name.
pub(crate) fn is_complete(cache: &Path, key: &str) -> bool {
    state(&cache.join("bases").join(key)).is_some()
}

/// A lock on a file; ends with the value.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: fs::File,
}

impl Lock {
    /// Takes a lock of its own at once, if nobody else has one. Makes no file.
    pub(crate) fn try_alone(path: &Path) -> std::io::Result<Option<Lock>> {
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for the lock; a signal ends the wait.
    fn take(path: &Path, exclusive: bool, progress: &dyn Progress) -> Result<Lock, Diagnostic> {
        let mut options = fs::OpenOptions::new();
        options.create(true).truncate(false).write(true);
        fs_err::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path).map_err(|error| codes::io(&error))?;
        let operation = if exclusive {
            FlockOperation::NonBlockingLockExclusive
        } else {
            FlockOperation::NonBlockingLockShared
        };
        let mut told = false;
        loop {
            match flock(&file, operation) {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    if !told {
                        progress.step("waiting for another run on the same tree");
                        told = true;
                    }
                    if xsplice_process::interrupted() {
                        return Err(interrupted());
                    }
                    thread::sleep(Duration::from_millis(50));
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    return Err(Diagnostic::new(
                        codes::IO,
                        format!("cannot lock {}: {error}", path.display()),
                    ));
                }
            }
        }
    }
}

/// The objects of the original build, read when asked for.
///
/// Holds the kept build: it is not removed while this value lives.
#[derive(Debug, Clone)]
pub struct BaseObjects {
    pristine: PathBuf,
    state_file: PathBuf,
    objects: Vec<BaseObject>,
    hashes: BTreeMap<String, String>,
    _held: Arc<Lock>,
}

impl BaseObjects {
    /// All objects that come from one source each, sorted by path.
    pub fn list(&self) -> &[BaseObject] {
        &self.objects
    }

    /// The content of one of them; `path` as in [`BaseObject::path`].
    ///
    /// # Errors
    /// When it cannot be read, or is not what the build made: the kept build is then not used again.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, Diagnostic> {
        let bytes = fs::read(self.pristine.join(path)).map_err(|error| codes::io(&error))?;
        let intact = self.hashes.get(path).is_some_and(|hash| blake3::hash(&bytes).to_hex().as_str() == hash);
        if intact {
            return Ok(bytes);
        }
        Err(self.unusable(format!("the kept {path} is damaged"), "It is not what the compiler wrote there.")?)
    }

    /// What to say of an object that the original has and that is not there: without it, all of it would seem new.
    pub(crate) fn lacks(&self, path: &str) -> Result<Diagnostic, Diagnostic> {
        let why =
            "By its records the original build has made that object, and nothing is known of its content.";
        self.unusable(format!("the kept original lacks {path}"), why)
    }

    /// The kept build is not used again.
    fn unusable(&self, what: String, why: &str) -> Result<Diagnostic, Diagnostic> {
        tree::remove(&self.state_file).map_err(|error| codes::io(&error))?;
        Ok(Diagnostic::new(codes::CACHE_UNUSABLE, what)
            .at(Place::file(self.pristine.display().to_string()))
            .why(why)
            .advice("Run again: the original is then built anew."))
    }
}

/// The original build, ready for a patched one: nobody else works in its tree.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) folder: PathBuf,
    state: State,
    original: Original,
    pub(crate) records: Vec<Record>,
    held: Arc<Lock>,
    work: Option<Lock>,
}

impl Base {
    /// The path where make runs.
    pub(crate) fn tree(&self) -> PathBuf {
        self.folder.join("tree")
    }

    /// The tree right after the original build.
    pub(crate) fn pristine(&self) -> PathBuf {
        self.folder.join("pristine")
    }

    pub(crate) fn layout(&self) -> FuncsLayout {
        self.state.layout
    }

    pub(crate) fn loader(&self) -> LoaderTraits {
        self.state.loader.clone()
    }

    pub(crate) fn config_changes(&self) -> Vec<ConfigChange> {
        self.state.config_changes.clone()
    }

    /// The hypervisor's symbol file, where it was linked.
    pub(crate) fn symbols(&self) -> Option<PathBuf> {
        self.state.symbols.then(|| self.pristine().join("xen/xen-syms"))
    }

    /// Its objects; `list` comes from its records.
    pub(crate) fn objects(&self, list: impl Iterator<Item = BaseObject>) -> BaseObjects {
        BaseObjects {
            pristine: self.pristine(),
            state_file: self.folder.join("state.json"),
            objects: list.filter(|object| self.state.objects.contains_key(&object.path)).collect(),
            hashes: self.state.objects.clone(),
            _held: Arc::clone(&self.held),
        }
    }

    /// Whether every object was compiled.
    pub(crate) fn is_whole(&self) -> bool {
        self.state.whole
    }

    pub(crate) fn original(&self) -> Original {
        self.original.clone()
    }

    /// Takes note of calls that compiled originals which were left out before; what they made is in its place.
    pub(crate) fn add(&mut self, originals: Vec<Record>) -> Result<(), Problems> {
        let io = |error: std::io::Error| Problems::from(codes::io(&error));
        if originals.is_empty() {
            return Ok(());
        }
        self.records.extend(originals);
        self.state.objects = hash_objects(&self.pristine(), &self.tree(), &self.records).map_err(io)?;
        // Records that tell of objects whose hashes nobody has would be taken for a build without those objects. So
        // there is no state while the two differ: a run that ends in between leaves a build that is made anew.
        tree::remove(&self.folder.join("state.json")).map_err(io)?;
        self.state.records = write_records(&self.folder, &self.records).map_err(io)?;
        write_state(&self.folder, &self.state).map_err(io)
    }

    /// Finds the kept build for `plan`, or makes it.
    pub(crate) fn open(plan: &BuildPlan, scope: &Scope, progress: &dyn Progress) -> Result<Base, Problems> {
        let request = &plan.request;
        let io = |error: std::io::Error| Problems::from(codes::io(&error));
        let bases = request.cache.join("bases");
        // A folder that the user has already keeps its mode; what is in ours stays private all the same.
        tree::create_private_dir(&bases).map_err(io)?;
        // make resolves links itself, and the paths in its commands must be the ones that we expect.
        let bases = fs::canonicalize(bases).map_err(io)?;
        if let Some(c) = unusable_character(&bases) {
            return Err(Diagnostic::new(
                codes::CACHE_UNUSABLE,
                format!("the cache's path has the character {c:?}"),
            )
            .at(Place::file(bases.display().to_string()))
            .why("Xen's makefiles cannot work below such a path.")
            .advice("Name another folder for the cache.")
            .into());
        }
        // What is whole is made beside what is not: that one may be in use.
        let partly = *scope == Scope::Needed && state(&bases.join(&plan.key)).is_none();
        let name = if partly { part_of(&plan.key) } else { plan.key.clone() };
        let lock = |end: &str| bases.join(format!("{name}.{end}"));
        let work = Lock::take(&lock("lock"), true, progress)?;
        let held = Arc::new(Lock::take(&lock("use"), false, progress)?);
        let folder = bases.join(&name);
        let enough = |state: &State| {
            (state.symbols || !request.want_symbols) && (state.whole || *scope == Scope::Needed)
        };
        // What is damaged is built anew. Objects are checked when they are read.
        let intact = |state: &State| {
            tree::hash_sources(&folder.join("pristine")).is_ok_and(|hash| hash == state.sources)
        };
        let kept = state(&folder).filter(enough).filter(intact);
        let (state, records, original) =
            match kept.and_then(|state| Some((read_records(&folder, &state)?, state))) {
                Some((records, state)) => {
                    let original = Original { kept: true, whole: state.whole, because: String::new() };
                    (state, records, original)
                }
                None => make(plan, &folder, scope, progress)?,
            };
        // What an earlier run's configuration met is met again.
        let got = read_config(&folder.join("pristine")).map_err(Problems::from)?;
        let problems = config::check(&request.config.display().to_string(), &got, &state.config_changes);
        if !problems.is_harmless() {
            return Err(problems);
        }
        check_prepared(plan, &folder.join("pristine"))?;
        Ok(Base { folder, state, original, records, held, work: Some(work) })
    }

    /// Lets other runs work in its tree. What it holds stays.
    pub(crate) fn rest(&mut self) {
        self.work = None;
    }

    /// Comes back after [`Base::rest`]: another run may have added objects meanwhile.
    pub(crate) fn resume(&mut self, progress: &dyn Progress) -> Result<(), Problems> {
        let lock = self.folder.with_extension("lock");
        self.work = Some(Lock::take(&lock, true, progress)?);
        let state = state(&self.folder);
        let records = state.as_ref().and_then(|state| read_records(&self.folder, state));
        let (Some(state), Some(records)) = (state, records) else {
            return Err(Diagnostic::new(codes::CACHE_UNUSABLE, "the kept build went away during the run")
                .at(Place::file(self.folder.display().to_string()))
                .advice("Run again: the original is then built anew.")
                .into());
        };
        (self.state, self.records) = (state, records);
        Ok(())
    }
}

/// Whether preparing the private copy has left alone what the patch touches: it was applied to the tree as it is.
fn check_prepared(plan: &BuildPlan, pristine: &Path) -> Result<(), Diagnostic> {
    if plan.request.prepare.is_none() {
        return Ok(());
    }
    for (path, change) in &plan.changes {
        let now = match fs::read(pristine.join(path)) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(codes::io(&error)),
        };
        // What no build reads was not copied.
        if now.is_some() && now != change.before {
            return Err(Diagnostic::new(
                codes::PREPARED_FILE,
                format!("--prepare makes or changes {path}, which the patch touches"),
            )
            .at(Place::file(path))
            .why("The patch was applied to the file as it is in the tree; the one would undo the other.")
            .advice("Do what the command does in a copy of the tree, and give that with --tree."));
        }
    }
    Ok(())
}

/// How make is called for a plan, in its kept build's folder.
pub(crate) fn kbuild<'a>(plan: &'a BuildPlan, folder: &Path, log: &str) -> Kbuild<'a> {
    Kbuild {
        request: &plan.request,
        tools: &plan.tools,
        tree: folder.join("tree"),
        bin: folder.join("bin"),
        temporary: folder.join("tmp"),
        log: std::path::absolute(&plan.request.log_dir)
            .unwrap_or_else(|_| plan.request.log_dir.clone())
            .join(log),
    }
}

/// Gives the hash that goes into the state.
fn write_records(folder: &Path, records: &[Record]) -> std::io::Result<String> {
    let bytes = serde_json::to_vec(records)?;
    tree::write_private_whole(&folder.join("records.json"), &bytes)?;
    Ok(blake3::hash(&bytes).to_hex().to_string())
}

fn write_state(folder: &Path, state: &State) -> std::io::Result<()> {
    tree::write_private_whole(&folder.join("state.json"), &serde_json::to_vec(state)?)
}

/// The records that a state is about; none where they are others.
fn read_records(folder: &Path, state: &State) -> Option<Vec<Record>> {
    let bytes = std::fs::read(folder.join("records.json")).ok()?;
    let intact = blake3::hash(&bytes).to_hex().as_str() == state.records;
    if intact { serde_json::from_slice(&bytes).ok() } else { None }
}

pub(crate) fn read_config(tree: &Path) -> Result<config::Options, Diagnostic> {
    let text = fs::read_to_string(tree.join("xen/.config")).map_err(|error| codes::io(&error))?;
    config::parse(&text)
        .map_err(|what| Diagnostic::new(codes::CONFIG_UNREADABLE, what).at(Place::file("xen/.config")))
}

/// Copies the sources.
fn copy(plan: &BuildPlan, kbuild: &Kbuild<'_>) -> Result<(), Problems> {
    let io = |error: std::io::Error| codes::io(&error);
    let snapshot = tree::snapshot(&plan.request.tree, Some(&kbuild.tree)).map_err(io)?;
    if snapshot != plan.snapshot {
        return Err(tree_changed(&plan.request.tree.display().to_string()).into());
    }
    if let Some(changeset) = &plan.request.metadata.changeset {
        tree::write_private(&kbuild.tree.join(".scmversion"), changeset.as_bytes()).map_err(io)?;
    }
    Ok(())
}

/// Makes the original build in `folder`.
fn make(
    plan: &BuildPlan,
    folder: &Path,
    scope: &Scope,
    progress: &dyn Progress,
) -> Result<(State, Vec<Record>, Original), Problems> {
    let io = |error: std::io::Error| Problems::from(codes::io(&error));
    progress.step("copying the sources");
    tree::remove(folder).and_then(|()| tree::create_private_dir(folder)).map_err(io)?;
    let log = if *scope == Scope::Needed { "needed-build.log" } else { "base-build.log" };
    let kbuild = kbuild(plan, folder, log);
    copy(plan, &kbuild)?;
    kbuild.prepare()?;
    let which = "the original tree";
    let plain = |targets: &[&str]| -> Result<(), Problems> {
        let end = kbuild.run(&Call::plain(targets), progress)?;
        if end.success { Ok(()) } else { Err(kbuild.failure(&end, which).into()) }
    };
    if plan.snapshot.built_in_place {
        plain(&["distclean"])?;
    }
    if let Some(command) = &plan.request.prepare {
        progress.step("preparing the private copy");
        kbuild.run_prepare(command)?;
    }
    progress.step("configuring");
    tree::write_private(&kbuild.tree.join("xen/.config"), &plan.config).map_err(io)?;
    plain(&["olddefconfig"])?;
    let got = read_config(&kbuild.tree)?;
    let config_changes = config::compare(&plan.asked, &got);
    let problems = config::check(&plan.request.config.display().to_string(), &got, &config_changes);
    if !problems.is_harmless() {
        return Err(problems);
    }
    metadata::take_over(&kbuild.tree, &plan.metadata).map_err(io)?;
    let needed = match scope {
        Scope::Whole { .. } => None,
        Scope::Needed => Some(touched_sources(plan, &kbuild.tree).map_err(io)?),
    };
    progress.step(match &needed {
        None => "building the original",
        Some(_) => "preparing the original and asking for its commands",
    });
    let records_folder = folder.join("records");
    let mut call = Call::up_to_link(&records_folder);
    call.stop_at_link = !plan.request.want_symbols;
    call.needed = needed.as_ref();
    let end = kbuild.run(&call, progress)?;
    if !end.success && needed.is_some() {
        // If that fails for the tree's own sake, it does again, and says why.
        let because = "make does not come to its end where empty objects stand in".to_owned();
        return make(plan, folder, &Scope::Whole { because }, progress);
    }
    if !end.success {
        return Err(kbuild.failure(&end, which).into());
    }
    let cc = plan.tools.real.get(&Tool::Cc).cloned().unwrap_or_default();
    let (layout, loader) = funcs_layout::probe(&end.records, &cc, &kbuild.temporary)?;
    progress.step("keeping the original build");
    tree::mirror(&kbuild.tree, &folder.join("pristine")).map_err(io)?;
    let objects = hash_objects(&folder.join("pristine"), &kbuild.tree, &end.records).map_err(io)?;
    let records = write_records(folder, &end.records).map_err(io)?;
    tree::remove(&records_folder).map_err(io)?;
    if xsplice_process::interrupted() {
        return Err(process_error(&xsplice_process::Error::Interrupted).into());
    }
    let state = State {
        version: CACHE_VERSION,
        folder: folder.to_owned(),
        symbols: plan.request.want_symbols,
        whole: needed.is_none(),
        layout,
        loader,
        config_changes,
        objects,
        sources: tree::hash_sources(&folder.join("pristine")).map_err(io)?,
        records,
    };
    write_state(folder, &state).map_err(io)?;
    let because = match scope {
        Scope::Whole { because } => because.clone(),
        Scope::Needed => String::new(),
    };
    let original = Original { kept: false, whole: state.whole, because };
    Ok((state, end.records, original))
}

/// What holds the configuration (from Xen 4.13 on), which says whether the base is the shipped one; made by the build.
const CONFIGURATION: &str = "xen/common/config_data.S";

/// The sources that the patch touches, as files of the private copy: known to be needed before anything is built.
fn touched_sources(plan: &BuildPlan, tree: &Path) -> std::io::Result<BTreeSet<PathBuf>> {
    let is_source = |class: FileClass| matches!(class, FileClass::Source | FileClass::Assembler);
    let touched = plan.touched.iter().filter(|file| is_source(file.class));
    touched
        .map(|file| tree.join(&file.path))
        .filter(|path| path.exists())
        .map(fs::canonicalize)
        .chain([Ok(tree.join(CONFIGURATION))])
        .collect()
}

fn hash_objects(
    pristine: &Path,
    tree: &Path,
    records: &[Record],
) -> std::io::Result<BTreeMap<String, String>> {
    let mut hashes = BTreeMap::new();
    let mut graph = Graph::new(tree, records.to_vec());
    for (path, made) in graph.objects() {
        if graph.records[made.record].stood_in {
            continue;
        }
        let file = pristine.join(&path);
        // Helpers of the link are made and removed again.
        if file.is_file() {
            hashes.insert(path, blake3::hash(&fs::read(file)?).to_hex().to_string());
        }
    }
    Ok(hashes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_make_misreads_are_refused() {
        assert_eq!(unusable_character(Path::new("/root/.cache/xsplice-1+x_y@z/größe")), None);
        for (path, c) in [("/a b", ' '), ("/a:b", ':'), ("/a$b", '$'), ("/a#b", '#')] {
            assert_eq!(unusable_character(Path::new(path)), Some(c));
        }
    }
}
