//! The second stage: both builds, and the objects that differ.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use fs_err as fs;
use object::{Object, ObjectSection};
use xsplice_report::{Diagnostic, Place, Problems};

use crate::apart::{self, BuildSystem};
use crate::base::{self, Base, BaseObjects, Original, Scope};
use crate::classify::{FileClass, Touch, TouchedFile};
use crate::codes;
use crate::config::{self, ConfigChange};
use crate::direct::Way;
use crate::funcs_layout::{FuncsLayout, LoaderTraits};
use crate::graph::{BaseObject, Graph, Made, untemporary};
use crate::includes;
use crate::kbuild::{Call, Kbuild};
use crate::line_neutral::{LineNumbers, Neutral};
use crate::patched::{self, Stop};
use crate::plan::BuildPlan;
use crate::request::Progress;
use crate::tree;
use crate::unmade;
use crate::wrapper::Record;

/// One object that the patched build made anew, removed or added.
#[derive(Debug, Clone)]
pub struct CapturedObject {
    /// Relative to the tree, such as `xen/arch/x86/traps.o`.
    pub path: String,
    /// Its source, relative to the tree, such as `xen/arch/x86/traps.c`.
    pub source: String,
    /// Whether the source is assembler.
    pub assembler: bool,
    /// Whether it is part of the hypervisor, in either build.
    pub linked: bool,
    /// Sections that the build renames afterwards, as in [`BaseObject::renamed_later`].
    pub renamed_later: BTreeMap<String, String>,
    /// The object of the original build; none where the patch adds it.
    pub base: Option<Vec<u8>>,
    /// The object of the patched build; none where the patch removes it.
    pub patched: Option<Vec<u8>>,
    /// Whether both were compiled by the same command.
    pub same_command: bool,
    /// Files that it read and that differ between the builds: touched ones, and generated ones.
    pub reached_by: Vec<String>,
}

/// What the two builds gave.
#[derive(Debug)]
pub struct CapturedBuild {
    /// Objects that the patched build made anew and that came out different in any byte, sorted by path.
    pub objects: Vec<CapturedObject>,
    /// Objects that were made anew and came out the same, or need not be made since their source is the same
    /// program; sorted.
    pub identical: Vec<String>,
    /// How the patched objects were made.
    pub way: Way,
    /// What the patches touch, with the objects that read each file.
    pub touched: Vec<TouchedFile>,
    /// What Kconfig made of the configuration as given.
    pub config_changes: Vec<ConfigChange>,
    /// What the patch changes in the configuration, where it touches Kconfig.
    pub patched_config_changes: Vec<ConfigChange>,
    /// Which files were compiled with their original line numbers.
    pub line_numbers: LineNumbers,
    /// The layout of the tree's own `struct livepatch_func`.
    pub funcs_layout: FuncsLayout,
    /// What the tree's loader does that not every loader does.
    pub loader: LoaderTraits,
    /// The private build's own symbol file, where it was asked for.
    pub built_xen_syms: Option<PathBuf>,
    /// Objects of the original build: every one, or those that were needed so far.
    pub base_objects: BaseObjects,
    /// How the original was built.
    pub original: Original,
    /// How the tree sees to sections; for people.
    pub build_system: BuildSystem,
    /// What the build says about itself as the shipped hypervisor does, by macro of xen/compile.h.
    pub metadata: BTreeMap<String, String>,
    /// The first line of the compiler's own description.
    pub compiler: String,
    /// What was found on the way.
    pub warnings: Vec<Diagnostic>,
    /// The original build, to compile more of it.
    kept: Mutex<Kept>,
}

/// What compiling more of the original needs.
#[derive(Debug)]
struct Kept {
    plan: BuildPlan,
    base: Base,
}

impl CapturedBuild {
    /// Objects of the original build, with all those among them whose source holds any of the names: where only what
    /// the patch needs was compiled, they are compiled now.
    ///
    /// # Errors
    /// When one does not compile, or of I/O.
    pub fn users_of(
        &self,
        names: &BTreeSet<String>,
        progress: &dyn Progress,
    ) -> Result<BaseObjects, Problems> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Kept { plan, base } = &mut *kept;
        if !base.is_whole() {
            base.resume(progress)?;
            unmade::make_users(plan, base, names, progress)?;
            base.rest();
        }
        let made = Graph::new(&base.tree(), base.records.clone()).objects();
        Ok(base.objects(made.into_values().map(|made| made.object)))
    }
}

/// A part of the hypervisor that the patched build made anew, added or removed.
struct Remade {
    path: String,
    source: String,
    reached: BTreeSet<String>,
    /// Whether it differs in its command, or in what is loaded of it.
    altered: bool,
}

/// Builds the original (or takes the kept one) and the patched tree, and captures what differs.
///
/// # Errors
/// A compiler error, an unusable configuration, a build file that alters other objects, I/O.
pub fn build(plan: BuildPlan, progress: &dyn Progress) -> Result<CapturedBuild, Problems> {
    let mut base = Base::open(&plan, &Scope::of(&plan), progress)?;
    let patched = match patched::build(&plan, &base, progress) {
        Err(Stop::NeedsWhole(because)) => {
            // The locks go first.
            drop(base);
            base = Base::open(&plan, &Scope::Whole { because }, progress)?;
            patched::build(&plan, &base, progress)
        }
        built => built,
    }
    .map_err(Stop::into_problems)?;
    base.add(patched.originals)?;
    let mut capture = Capture::new(&plan, &base, patched.records);
    let (objects, mut identical) = capture.objects()?;
    apart::check(&objects, |path| capture.made.get(path).map(|made| &capture.graph.records[made.record]))?;
    if let Way::Commands { same_text, .. } = &patched.way {
        capture.not_remade(same_text)?;
        identical.extend(same_text.iter().cloned());
        identical.sort();
    }
    let problems = capture.other_objects(&patched.config_changes);
    if !problems.is_harmless() {
        return Err(problems);
    }
    let touched = capture.touched();
    let mut warnings = plan.warnings.0.clone();
    warnings.extend(patched.warnings);
    warnings.extend(problems);
    let base_objects = capture.base_objects;
    base.rest();
    Ok(CapturedBuild {
        objects,
        identical,
        way: patched.way,
        touched,
        config_changes: base.config_changes(),
        patched_config_changes: patched.config_changes,
        line_numbers: patched.line_numbers,
        funcs_layout: base.layout(),
        loader: base.loader(),
        built_xen_syms: base.symbols(),
        base_objects,
        original: base.original(),
        build_system: BuildSystem::of(&plan.request.tree),
        metadata: plan.metadata.clone(),
        compiler: plan.tools.compiler.clone(),
        warnings,
        kept: Mutex::new(Kept { plan, base }),
    })
}

/// Writes the patched files into the private copy, those of `neutral` in that form. Those that are not part of
/// it stay away.
pub(crate) fn apply(plan: &BuildPlan, neutral: &Neutral, tree: &Path) -> std::io::Result<()> {
    for (path, change) in &plan.changes {
        let file = tree.join(path);
        let class = crate::classify::classify(path);
        if change.before.is_none() && !class.can_reach_hypervisor() {
            continue;
        }
        if change.before.is_some() && !file.exists() {
            continue;
        }
        match change.after.as_ref().map(|after| neutral.get(path).unwrap_or(after)) {
            Some(bytes) => {
                if let Some(folder) = file.parent() {
                    tree::create_private_dir(folder)?;
                }
                tree::remove(&file)?;
                tree::write_mode(&file, bytes, change.executable)?;
            }
            None => tree::remove(&file)?,
        }
    }
    Ok(())
}

/// Lets make rebuild what it cannot know of: what reads a file of the same name as one that the patch adds, since a new
/// header may be found before the one that was read so far; and what the assembler reads by itself.
pub(crate) fn wake_readers(plan: &BuildPlan, base: &Base) -> std::io::Result<()> {
    let reaching = || plan.touched.iter().filter(|file| file.class.can_reach_hypervisor());
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let new: BTreeSet<String> =
        reaching().filter(|file| file.touch == Touch::Added).map(|file| name(&file.path)).collect();
    let touched: BTreeSet<String> = reaching().map(|file| name(&file.path)).collect();
    let mut readers = BTreeSet::new();
    // What asks whether a file is there has read no file of that name so far.
    let asking =
        if new.is_empty() { BTreeSet::new() } else { includes::holding(&base.tree(), "__has_include")? };
    for record in &base.records {
        // Hardly any tree asks: then no path is looked up.
        let asks = !asking.is_empty()
            && record
                .dependencies
                .iter()
                .any(|file| fs::canonicalize(record.dir.join(file)).is_ok_and(|path| asking.contains(&path)));
        if asks {
            readers.extend(record.inputs.iter().map(|file| record.dir.join(file)));
        }
        let namesakes = record.dependencies.iter().filter(|file| new.contains(&name(file)));
        readers.extend(namesakes.map(|file| record.dir.join(file)));
        // By name alone: to compile something once too often does no harm.
        if record.assembled.iter().flatten().any(|file| touched.contains(&name(file))) {
            readers.extend(record.inputs.iter().map(|file| record.dir.join(file)));
        }
    }
    touch(base, readers)
}

/// Gives files of the private copy a new time; others are left alone.
fn touch(base: &Base, files: impl IntoIterator<Item = PathBuf>) -> std::io::Result<()> {
    let now = std::fs::FileTimes::new().set_modified(std::time::SystemTime::now());
    for file in files {
        if file.is_file() && fs::canonicalize(&file)?.starts_with(base.tree()) {
            std::fs::OpenOptions::new().append(true).open(file)?.set_times(now)?;
        }
    }
    Ok(())
}

/// Lets make rebuild what is older than a file that its assembler reads by itself, and that the build made anew and
/// differently: make does not know of that. Says whether there is anything.
pub(crate) fn wake_stale(base: &Base) -> std::io::Result<bool> {
    let written = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    // When each file was made anew; none where it is as it was.
    let mut remade: BTreeMap<PathBuf, Option<std::time::SystemTime>> = BTreeMap::new();
    let mut stale = BTreeSet::new();
    for record in base.records.iter().filter(|record| record.compiles()) {
        let output = record.dir.join(&record.output);
        let object = untemporary(&output.to_string_lossy()).map(PathBuf::from);
        let made = written(&output).max(object.as_deref().and_then(written));
        for file in record.assembled.iter().flatten() {
            let now = record.dir.join(file);
            let Ok(inside) = now.strip_prefix(base.tree()) else { continue };
            let before = base.pristine().join(inside);
            let at = remade.entry(now.clone()).or_insert_with(|| {
                let differs = std::fs::read(&now).ok() != std::fs::read(before).ok();
                written(&now).filter(|_| differs)
            });
            if at.is_some_and(|at| made.is_none_or(|made| made < at)) {
                stale.extend(record.inputs.iter().map(|file| record.dir.join(file)));
            }
        }
    }
    let any = !stale.is_empty();
    touch(base, stale)?;
    Ok(any)
}

/// Runs olddefconfig again where the patch touches Kconfig: new options get their defaults.
pub(crate) fn reconfigure(
    plan: &BuildPlan,
    base: &Base,
    kbuild: &Kbuild<'_>,
    progress: &dyn Progress,
) -> Result<Vec<ConfigChange>, Problems> {
    let is_kconfig = |path: &String| path.rsplit('/').next().is_some_and(|name| name.starts_with("Kconfig"));
    if !plan.changes.keys().any(is_kconfig) {
        return Ok(Vec::new());
    }
    let end = kbuild.run(&Call::plain(&["olddefconfig"]), progress)?;
    if !end.success {
        return Err(kbuild.failure(&end, "the patched tree").into());
    }
    let (before, after) = (base::read_config(&base.pristine())?, base::read_config(&base.tree())?);
    Ok(config::compare(&before, &after))
}

/// Both builds' records, and what follows from them.
struct Capture<'a> {
    plan: &'a BuildPlan,
    base: &'a Base,
    base_graph: Graph,
    base_made: BTreeMap<String, Made>,
    /// Records of both builds; the first `patched_from` are the original's.
    graph: Graph,
    made: BTreeMap<String, Made>,
    patched_from: usize,
    base_objects: BaseObjects,
    /// Whether a file of the tree differs between the builds, as far as it was asked.
    differs: BTreeMap<String, bool>,
    remade: Vec<Remade>,
}

impl<'a> Capture<'a> {
    fn new(plan: &'a BuildPlan, base: &'a Base, patched: Vec<Record>) -> Capture<'a> {
        let tree = base.tree();
        let mut base_graph = Graph::new(&tree, base.records.clone());
        let patched_from = base.records.len();
        let mut all = base.records.clone();
        all.extend(patched);
        let mut graph = Graph::new(&tree, all);
        let base_made = base_graph.objects();
        let made = graph.objects();
        let base_objects = base.objects(base_made.values().map(|made| made.object.clone()));
        Capture {
            plan,
            base,
            base_graph,
            base_made,
            graph,
            made,
            patched_from,
            base_objects,
            differs: BTreeMap::new(),
            remade: Vec::new(),
        }
    }

    /// Whether a file's content differs between the builds.
    fn differs(&mut self, path: &str) -> Result<bool, Problems> {
        if let Some(known) = self.differs.get(path) {
            return Ok(*known);
        }
        let read = |tree: PathBuf| match fs::read(tree.join(path)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Problems::from(codes::io(&error))),
        };
        let differs = read(self.base.pristine())? != read(self.base.tree())?;
        self.differs.insert(path.to_owned(), differs);
        Ok(differs)
    }

    /// The files that an object read, in either build, and that differ between them.
    fn reached_by(&mut self, path: &str) -> Result<BTreeSet<String>, Problems> {
        let mut read = BTreeSet::new();
        if let Some(record) = self.made.get(path).map(|made| made.record) {
            read.extend(self.graph.dependencies(record));
        }
        if let Some(record) = self.base_made.get(path).map(|made| made.record) {
            read.extend(self.base_graph.dependencies(record));
        }
        let mut reached = BTreeSet::new();
        for file in read {
            if self.differs(&file)? {
                reached.insert(file);
            }
        }
        Ok(reached)
    }

    fn same_command(&self, path: &str) -> bool {
        let (Some(base), Some(patched)) = (self.base_made.get(path), self.made.get(path)) else {
            return false;
        };
        let (base, patched) = (&self.base_graph.records[base.record], &self.graph.records[patched.record]);
        base.args == patched.args && base.dir == patched.dir
    }

    /// The objects that differ, and the paths of those made anew that do not.
    fn objects(&mut self) -> Result<(Vec<CapturedObject>, Vec<String>), Problems> {
        let is_linked = |made: Option<&Made>| made.is_some_and(|made| made.object.linked);
        let mut candidates: BTreeSet<String> = BTreeSet::new();
        for (path, made) in &self.made {
            let appears = is_linked(Some(made)) && !is_linked(self.base_made.get(path));
            if made.record >= self.patched_from || appears {
                candidates.insert(path.clone());
            }
        }
        for (path, made) in &self.base_made {
            if made.object.linked && !is_linked(self.made.get(path)) {
                candidates.insert(path.clone());
            }
        }
        let (mut objects, mut identical) = (Vec::new(), Vec::new());
        for path in candidates {
            let (old, new) = (self.base_made.get(&path), self.made.get(&path));
            let Some(object) = new.or(old).map(|made| made.object.clone()) else { continue };
            let leaves = is_linked(old) && !is_linked(new);
            let arrives = is_linked(new) && !is_linked(old);
            let in_base = old.is_some() && !arrives && self.base_objects_has(&path);
            let patched_file = self.base.tree().join(&path);
            let base = if in_base { Some(self.base_objects.read(&path)?) } else { None };
            if is_linked(old) && !arrives && !in_base {
                return Err(self.base_objects.lacks(&path)?.into());
            }
            let patched = if !leaves && patched_file.is_file() {
                Some(fs::read(&patched_file).map_err(|error| codes::io(&error))?)
            } else {
                None
            };
            if base.is_none() && patched.is_none() {
                continue;
            }
            let linked = object.linked || is_linked(old);
            let same_command = self.same_command(&path);
            let reached = self.reached_by(&path)?;
            let BaseObject { source, assembler, renamed_later, .. } = object;
            let equal = base == patched;
            let reached_by = reached.iter().cloned().collect();
            let captured = CapturedObject {
                path: path.clone(),
                source,
                assembler,
                linked,
                renamed_later,
                base,
                patched,
                same_command,
                reached_by,
            };
            if linked {
                let altered = !same_command || !(equal || same_code(&captured));
                self.remade.push(Remade {
                    path: path.clone(),
                    source: captured.source.clone(),
                    reached,
                    altered,
                });
            }
            if equal {
                identical.push(path);
            } else {
                objects.push(captured);
            }
        }
        Ok((objects, identical))
    }

    /// Takes note of objects whose source reads what the patch touches and is the same program.
    fn not_remade(&mut self, paths: &[String]) -> Result<(), Problems> {
        for path in paths {
            let reached = self.reached_by(path)?;
            let source = self.base_made.get(path).map(|made| made.object.source.clone()).unwrap_or_default();
            self.remade.push(Remade { path: path.clone(), source, reached, altered: false });
        }
        self.remade.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(())
    }

    fn base_objects_has(&self, path: &str) -> bool {
        self.base_objects.list().binary_search_by(|object| object.path.as_str().cmp(path)).is_ok()
    }

    /// Refuses a build file's change that alters objects which no changed source leads to.
    ///
    /// A new or removed object counts as reached where the patch adds or removes its source.
    fn other_objects(&self, config: &[ConfigChange]) -> Problems {
        let build_files: Vec<&TouchedFile> =
            self.plan.touched.iter().filter(|file| file.class == FileClass::BuildFile).collect();
        let mut problems = Problems::new();
        if build_files.is_empty() {
            return problems;
        }
        let sources: BTreeSet<&str> = self
            .plan
            .touched
            .iter()
            .filter(|file| file.class != FileClass::BuildFile)
            .map(|file| file.path.as_str())
            .collect();
        let altered: Vec<&str> = self
            .remade
            .iter()
            .filter(|remade| {
                let reached = sources.contains(remade.source.as_str())
                    || remade.reached.iter().any(|file| sources.contains(file.as_str()));
                remade.altered && !reached
            })
            .map(|remade| remade.path.as_str())
            .collect();
        let Some(first) = altered.first() else { return problems };
        let shown = altered.iter().take(10).copied().collect::<Vec<_>>().join(", ");
        let more =
            if altered.len() > 10 { format!(" and {} more", altered.len() - 10) } else { String::new() };
        let files = build_files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>().join(", ");
        problems.push(
            Diagnostic::new(
                codes::BUILD_FILE_CHANGES_OTHER_OBJECTS,
                format!("{files} alters {} objects that the patch does not otherwise touch", altered.len()),
            )
            .at(Place::object(*first).source(build_files[0].path.clone(), None))
            .why(format!("{}Altered: {shown}{more}.", in_words(config)))
            .advice("Leave the build file's change out, or make the fix in the sources alone."),
        );
        problems
    }

    /// The touched files, each with the linked objects that read it.
    fn touched(&self) -> Vec<TouchedFile> {
        let mut touched = self.plan.touched.clone();
        for file in &mut touched {
            file.objects = self
                .remade
                .iter()
                .filter(|remade| remade.reached.contains(&file.path))
                .map(|remade| remade.path.clone())
                .collect();
        }
        touched
    }
}

/// What a patch changes in the configuration.
fn in_words(config: &[ConfigChange]) -> String {
    let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".to_owned());
    config.iter().fold(String::new(), |words, change| {
        let (before, after) = (value(&change.asked), value(&change.got));
        format!("{words}CONFIG_{} was {before} and is {after}. ", change.name)
    })
}

/// Whether what is loaded at run time is the same in both: sections with SHF_ALLOC, and their relocations.
fn same_code(object: &CapturedObject) -> bool {
    let (Some(base), Some(patched)) = (&object.base, &object.patched) else { return false };
    match (loaded_sections(base), loaded_sections(patched)) {
        (Some(base), Some(patched)) => base == patched,
        _ => base == patched,
    }
}

/// Name, flags, content and relocations (offset, kind, addend, target's name or section) of loaded sections.
type Loaded = Vec<(String, u64, Vec<u8>, Vec<(u64, u32, i64, String)>)>;

fn loaded_sections(bytes: &[u8]) -> Option<Loaded> {
    use object::{ObjectSymbol, RelocationFlags, RelocationTarget, SectionFlags};
    let file = object::File::parse(bytes).ok()?;
    let mut loaded = Vec::new();
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags, .. } = section.flags() else { return None };
        if !sh_flags.contains(object::elf::SHF_ALLOC) {
            continue;
        }
        let mut relocations = Vec::new();
        for (offset, relocation) in section.relocations() {
            let RelocationFlags::Elf { r_type } = relocation.flags() else { return None };
            let target = match relocation.target() {
                RelocationTarget::Symbol(index) => {
                    let symbol = file.symbol_by_index(index).ok()?;
                    let name = symbol.name().ok()?;
                    let section = symbol.section_index().and_then(|index| file.section_by_index(index).ok());
                    let section = section.and_then(|section| section.name().ok().map(str::to_owned));
                    format!("{name} {} {}", section.unwrap_or_default(), symbol.address())
                }
                other => format!("{other:?}"),
            };
            relocations.push((offset, r_type.0, relocation.addend(), target));
        }
        let name = section.name().ok()?.to_owned();
        loaded.push((name, sh_flags.0, section.uncompressed_data().ok()?.into_owned(), relocations));
    }
    Some(loaded)
}
