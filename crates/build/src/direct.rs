//! The patched build without make: the compilations that read what the patch touches, and no others.
//!
//! make's own way through the tree costs several compilations, and a header that hundreds of sources read makes it
//! compile them all. Here the recorded commands run again, and only where the preprocessed text differs. That is
//! taken only where it can be shown to give what make would give:
//!
//! - the patch changes C, headers and assembler alone, no file from which a build makes others, and adds or removes
//!   none;
//! - every text that the build makes with the compiler (asm-offsets, the linker script) comes out the same;
//! - every object that is not part of the hypervisor itself, and so may go into something else, does too;
//! - each command, run on the original source, gives the object that make gave, byte for byte. That is tried the
//!   first time and remembered.
//!
//! Otherwise make builds, and the report says why.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::{Deserialize, Serialize};
use xsplice_process::Sink;
use xsplice_report::Problems;

use crate::base::Base;
use crate::capture;
use crate::classify::{FileClass, Touch, TouchedFile};
use crate::codes;
use crate::commands::{self, Run};
use crate::globals;
use crate::graph::Graph;
use crate::includes::Reach;
use crate::kbuild::{Kbuild, MakeEnd, process_error};
use crate::line_neutral::Neutral;
use crate::parallel::in_parallel;
use crate::plan::BuildPlan;
use crate::replay::without_outputs;
use crate::request::Progress;
use crate::same_text::{Tokens, lines, tokens};
use crate::tree;
use crate::units::{Unit, units};
use crate::unmade;
use crate::wrapper::{self, Record, Tool, added_flags};

/// How the patched objects were made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "by", rename_all = "kebab-case")]
pub enum Way {
    /// By the recorded commands of what reads the touched files.
    Commands {
        /// How many objects were compiled, each once with the patch.
        compiled: usize,
        /// Objects whose source reads a touched file and is the same program after preprocessing, sorted.
        same_text: Vec<String>,
    },
    /// By make.
    Make {
        /// Why it had to be.
        because: String,
    },
}

/// Below which a build makes other files from what looks like any header or source: the compatibility headers,
/// and the 32-bit code that becomes data.
const GENERATORS: &[&str] = &["xen/include/public/", "xen/arch/x86/boot/"];

/// Why the touched files are for make, if they are.
pub(crate) fn for_make(touched: &[TouchedFile]) -> Option<String> {
    touched.iter().filter(|file| file.class.can_reach_hypervisor()).find_map(|file| {
        let path = &file.path;
        let plain = matches!(file.class, FileClass::Source | FileClass::Header | FileClass::Assembler);
        if !plain {
            Some(format!("{path} may decide about other files of the build"))
        } else if file.touch != Touch::Modified {
            let what = match file.touch {
                Touch::Added => "is new",
                Touch::Removed => "is removed",
                _ => "changes its mode",
            };
            Some(format!("{path} {what}"))
        } else if GENERATORS.iter().any(|folder| path.starts_with(folder)) {
            Some(format!("the build makes other files from those where {path} is"))
        } else {
            None
        }
    })
}

/// What was found out about a kept build's commands; kept with it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Known {
    /// [`KNOWN_VERSION`] of the program that wrote it.
    version: u32,
    /// Objects (as the compiler names them) whose command gave what make gave, or which it made in the first place.
    shown: BTreeSet<String>,
    /// The original texts, by the same names.
    pub(crate) texts: BTreeMap<String, Tokens>,
    /// What originals read that make had no need of, by the same names; paths as in [`Record::dependencies`].
    pub(crate) reads: BTreeMap<String, Vec<String>>,
}

/// To be raised whenever texts are read in another way, or commands called in another.
const KNOWN_VERSION: u32 = 2;

/// Options under which the compiler puts lines and columns into objects: equal tokens are no equal objects then.
const PLACES_IN_OBJECTS: &[&str] = &["UBSAN", "COVERAGE"];

/// Where they are kept, in the folder of the kept build.
const KNOWN: &str = "commands.json";

/// How an attempt ended.
pub(crate) enum Attempted {
    /// Everything ran, well or not.
    Ran { end: MakeEnd, way: Way },
    /// make has to do it.
    ForMake(String),
}

/// All for builds by commands.
pub(crate) struct Direct<'a> {
    plan: &'a BuildPlan,
    base: &'a Base,
    graph: Graph,
    units: Vec<Unit>,
    /// Records of calls that make text from touched files.
    texts: Vec<usize>,
    /// Paths that the patch changes.
    touched: BTreeSet<String>,
    /// The files that may lead to those, where the original build left objects out.
    reach: Option<Reach>,
    /// Calls that compiled originals which it left out.
    originals: Vec<Record>,
    /// What they made, as the compiler names it.
    taken: BTreeSet<String>,
    known: Known,
}

impl<'a> Direct<'a> {
    /// Finds what reads the touched files; or says why that is not enough. The tree is the original.
    pub(crate) fn new(
        plan: &'a BuildPlan,
        base: &'a Base,
        kbuild: &Kbuild<'_>,
        progress: &dyn Progress,
    ) -> Result<Result<Direct<'a>, String>, Problems> {
        if let Some(because) = for_make(&plan.touched) {
            return Ok(Err(because));
        }
        let mut known = Known::of(base);
        let reaches = |file: &&TouchedFile| file.class.can_reach_hypervisor();
        let touched: BTreeSet<String> =
            plan.touched.iter().filter(reaches).map(|file| file.path.clone()).collect();
        let unreaching: BTreeSet<String> =
            plan.touched.iter().filter(|file| !reaches(file)).map(|file| file.path.clone()).collect();
        let mut graph = Graph::new(&base.tree(), base.records.clone());
        if !base.is_whole() {
            progress.step("asking what reads the touched files");
        }
        // Those that should not reach the hypervisor too: below, whoever reads one all the same has to be known.
        let all = touched.union(&unreaching).cloned().collect();
        let reach = unmade::learn(&mut graph, &Run { kbuild }, &mut known, &all)?;
        let mut readers: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
        for index in 0..graph.records.len() {
            if graph.records[index].tool == Tool::Cc && graph.records[index].code == 0 {
                let all = graph.dependencies(index);
                if let Some(read) = all.intersection(&unreaching).next() {
                    let because =
                        format!("{} reads {read} all the same", graph.records[index].inputs.join(" "));
                    return Ok(Err(because));
                }
                let read: BTreeSet<String> = all.intersection(&touched).cloned().collect();
                if !read.is_empty() {
                    readers.insert(index, read);
                }
            }
        }
        if let Some(unread) = touched.iter().find(|file| !readers.values().any(|read| read.contains(*file))) {
            return Ok(Err(format!("no recorded command reads {unread}")));
        }
        let texts = readers.keys().copied().filter(|&index| graph.records[index].text).collect();
        let mut units = match units(&mut graph, &readers, &base.pristine()) {
            Ok(units) => units,
            Err(because) => return Ok(Err(because)),
        };
        let config = crate::base::read_config(&base.pristine())?;
        if PLACES_IN_OBJECTS.iter().any(|option| config.get(*option).is_some_and(|value| value == "y")) {
            units.iter_mut().for_each(|unit| unit.by_text = false);
        }
        let (originals, taken) = (Vec::new(), BTreeSet::new());
        Ok(Ok(Direct { plan, base, graph, units, texts, touched, reach, originals, taken, known }))
    }

    /// Calls that compiled originals which the first build left out.
    pub(crate) fn into_originals(self) -> Vec<Record> {
        self.originals
    }

    /// Builds the tree, which is the original, with `neutral` in place of what the patch makes of those files.
    pub(crate) fn attempt(
        &mut self,
        kbuild: &Kbuild<'_>,
        neutral: &Neutral,
        progress: &dyn Progress,
    ) -> Result<Attempted, Problems> {
        let run = Run { kbuild };
        let io = |error: std::io::Error| Problems::from(codes::io(&error));
        progress.step("comparing preprocessed sources");
        let many = self.units.len() > 1;
        let compared: Vec<usize> =
            (0..self.units.len()).filter(|&at| many && self.units[at].by_text).collect();
        self.learn_texts(&run, &compared)?;
        let made_before = self.made_texts(&run)?;
        capture::apply(self.plan, neutral, &self.base.tree()).map_err(io)?;
        let made_after = self.made_texts(&run)?;
        // Where one fails, the compilations are likely to fail, too, and all failures are wanted.
        let fails = made_after.iter().any(|(_, text)| text.is_none());
        let changed = differing(&made_before, &made_after);
        if let Some(changed) = changed.filter(|_| !fails) {
            let record = &self.graph.records[changed];
            let output = match record.output.as_str() {
                "" => format!("a text made of {}", record.inputs.join(" ")),
                output => self.graph.relative(&record.dir, output),
            };
            return Ok(Attempted::ForMake(format!("{output} is made anew and comes out different")));
        }
        let same = self.same_texts(&run, &compared)?;
        let (same, open): (Vec<usize>, Vec<usize>) = (0..self.units.len()).partition(|at| same.contains(at));
        if let Some(because) = self.show(&run, &open, neutral, progress)? {
            return Ok(Attempted::ForMake(because));
        }
        progress.step("compiling what the patch changes");
        let records = self.base.folder.join("patched-records");
        tree::remove(&records).and_then(|()| tree::create_private_dir(&records)).map_err(io)?;
        let success = self.compile(&run, &open, &records, Some(progress))?;
        let records = wrapper::read_new_records(&records, &mut BTreeSet::new()).map_err(io)?;
        if success && changed.is_some() {
            return Ok(Attempted::ForMake(
                "a text that the build makes cannot be made by its command".to_owned(),
            ));
        }
        if success && let Some(because) = self.changed_outside(&open)? {
            return Ok(Attempted::ForMake(because));
        }
        self.keep().map_err(io)?;
        if success {
            self.defined_twice(&open)?;
        }
        let objects = |units: &[usize]| -> Vec<String> {
            let mut objects: Vec<String> =
                units.iter().filter_map(|&at| self.units[at].object.clone()).collect();
            objects.sort();
            objects
        };
        let way = Way::Commands { compiled: objects(&open).len(), same_text: objects(&same) };
        Ok(Attempted::Ran { end: MakeEnd { success, records }, way })
    }

    /// Preprocesses the original of each unit that was not preprocessed before.
    fn learn_texts(&mut self, run: &Run<'_>, units: &[usize]) -> Result<(), Problems> {
        let missing: Vec<usize> = units
            .iter()
            .copied()
            .filter(|&at| !self.known.texts.contains_key(&self.units[at].output))
            .collect();
        let found = self.preprocess(run, &missing)?;
        for (at, text) in missing.into_iter().zip(found) {
            if let Some(text) = text {
                self.known.texts.insert(self.units[at].output.clone(), text);
            }
        }
        Ok(())
    }

    /// The texts of units as the tree is now; none where the preprocessor fails.
    fn preprocess(&self, run: &Run<'_>, units: &[usize]) -> Result<Vec<Option<Tokens>>, Problems> {
        let settings = run.kbuild.settings();
        in_parallel(run.kbuild.request.jobs, units, |&at| {
            let record = &self.graph.records[self.units[at].record];
            let source = record.inputs.first().map_or("", String::as_str);
            let mut args = without_outputs(&record.args);
            args.extend(added_flags(&settings, &record.args, source));
            args.push("-E".to_owned());
            let job = run.job(Tool::Cc, &record.dir).args(args).stderr(Sink::Discard);
            let finished = job.run().map_err(|error| process_error(&error))?;
            Ok(finished.success().then(|| tokens(&finished.stdout)))
        })
        .map_err(Problems::from)
    }

    /// Those of the units whose text with the patch is that of the original, and that read nothing else that changes.
    fn same_texts(&self, run: &Run<'_>, units: &[usize]) -> Result<BTreeSet<usize>, Problems> {
        let found = self.preprocess(run, units)?;
        let mut same = BTreeSet::new();
        for (&at, text) in units.iter().zip(found) {
            let unit = &self.units[at];
            let (Some(text), Some(original)) = (text, self.known.texts.get(&unit.output)) else { continue };
            let known_reads = self.graph.records[unit.record].assembled.is_some() || text.reads.is_empty();
            let closed = self.reach.as_ref().is_some_and(|reach| unmade::closed(&text, reach));
            if text == *original && !text.names_places && (known_reads || closed) {
                same.insert(at);
            }
        }
        Ok(same)
    }

    /// What the build's calls for text give in the tree as it is.
    fn made_texts(&self, run: &Run<'_>) -> Result<Vec<(usize, Option<String>)>, Problems> {
        in_parallel(run.kbuild.request.jobs, &self.texts, |&index| {
            let record = &self.graph.records[index];
            let file = run.kbuild.temporary.join(format!("text-{index}"));
            let job = run.job(Tool::Cc, &record.dir).args(without_outputs(&record.args));
            let job = job.arg("-o").arg(&file).stderr(Sink::Discard);
            let finished = job.run().map_err(|error| process_error(&error))?;
            if !finished.success() {
                return Ok((index, None));
            }
            let text = fs::read(&file).map_err(|error| codes::io(&error))?;
            fs::remove_file(&file).map_err(|error| codes::io(&error))?;
            Ok((index, Some(lines(&text))))
        })
        .map_err(Problems::from)
    }

    /// Runs the commands of units on the original sources, where that was never done, and compares the results with
    /// what make made. Leaves the patched sources in the tree. Says which one differs, if any does.
    fn show(
        &mut self,
        run: &Run<'_>,
        units: &[usize],
        neutral: &Neutral,
        progress: &dyn Progress,
    ) -> Result<Option<String>, Problems> {
        let io = |error: std::io::Error| Problems::from(codes::io(&error));
        let open: Vec<usize> = units.iter().copied().filter(|&at| !self.is_shown(at)).collect();
        if open.is_empty() {
            return Ok(None);
        }
        progress.step("checking that the recorded commands give what make gave");
        for path in &self.touched {
            tree::mirror_file(&self.base.pristine().join(path), &self.base.tree().join(path)).map_err(io)?;
        }
        // Flags are added only where calls are recorded; these records are nobody's.
        let records = run.kbuild.temporary.join("records");
        tree::remove(&records).and_then(|()| tree::create_private_dir(&records)).map_err(io)?;
        if !self.compile(run, &open, &records, None)? {
            return Ok(Some("a recorded command fails outside make".to_owned()));
        }
        let made = wrapper::read_new_records(&records, &mut BTreeSet::new()).map_err(io)?;
        let (unmade, open): (Vec<usize>, Vec<usize>) =
            open.into_iter().partition(|&at| self.graph.records[self.units[at].record].stood_in);
        for at in unmade {
            self.take_original(at, &made).map_err(io)?;
        }
        for at in open {
            if let Some(other) = self.differing_result(at)? {
                return Ok(Some(format!(
                    "the recorded command for {other} gives something else outside make"
                )));
            }
            self.known.shown.insert(self.units[at].output.clone());
        }
        capture::apply(self.plan, neutral, &self.base.tree()).map_err(io)?;
        Ok(None)
    }

    /// Whether a unit's command is known to give what the original build has, now that it has it.
    fn is_shown(&self, at: usize) -> bool {
        let unit = &self.units[at];
        if self.graph.records[unit.record].stood_in {
            self.taken.contains(&unit.output)
        } else {
            self.known.shown.contains(&unit.output)
        }
    }

    /// Keeps the original that a unit's commands made, where there was none so far.
    fn take_original(&mut self, at: usize, made: &[Record]) -> std::io::Result<()> {
        let unit = &self.units[at];
        let (pristine, tree) = (self.base.pristine(), self.base.tree());
        self.originals.extend(commands::take_original(&self.graph, unit, &pristine, &tree, made)?);
        self.taken.insert(unit.output.clone());
        self.known.shown.insert(unit.output.clone());
        Ok(())
    }

    /// Compiles units in the tree as it is.
    fn compile(
        &self,
        run: &Run<'_>,
        units: &[usize],
        records: &Path,
        progress: Option<&dyn Progress>,
    ) -> Result<bool, Problems> {
        let units: Vec<&Unit> = units.iter().map(|&at| &self.units[at]).collect();
        run.compile(&self.graph, &units, records, progress)
    }

    /// A result of a unit that is not what make made of the original, if there is one.
    fn differing_result(&self, at: usize) -> Result<Option<String>, Problems> {
        for result in &self.units[at].results {
            let read = |tree: PathBuf| {
                fs::read(tree.join(result)).map_err(|error| Problems::from(codes::io(&error)))
            };
            if read(self.base.tree())? != read(self.base.pristine())? {
                return Ok(Some(result.clone()));
            }
        }
        Ok(None)
    }

    /// An object beside the hypervisor proper that the patch changes: it may go into something that make builds.
    fn changed_outside(&self, units: &[usize]) -> Result<Option<String>, Problems> {
        for &at in units.iter().filter(|&&at| self.units[at].object.is_none()) {
            if let Some(other) = self.differing_result(at)? {
                return Ok(Some(format!(
                    "{other}, from which something else may be made, comes out different"
                )));
            }
        }
        Ok(None)
    }

    /// What make's links would say: a global name that the patch defines and something else has.
    fn defined_twice(&self, units: &[usize]) -> Result<(), Problems> {
        let objects = units.iter().filter_map(|&at| self.units[at].object.as_deref());
        globals::check(self.base, objects).map_err(Problems::from)
    }

    fn keep(&self) -> std::io::Result<()> {
        let text = serde_json::to_vec(&self.known)?;
        tree::write_private_whole(&self.base.folder.join(KNOWN), &text)
    }
}

/// The first call for text whose results differ.
fn differing(before: &[(usize, Option<String>)], after: &[(usize, Option<String>)]) -> Option<usize> {
    let pair = before.iter().zip(after).find(|(before, after)| before.1.is_none() || before != after)?;
    Some(pair.0.0)
}

impl Known {
    /// What is known about a kept build.
    fn of(base: &Base) -> Known {
        let known = std::fs::read(base.folder.join(KNOWN)).ok();
        let known: Option<Known> = known.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        known
            .filter(|known| known.version == KNOWN_VERSION)
            .unwrap_or_else(|| Known { version: KNOWN_VERSION, ..Known::default() })
    }
}
