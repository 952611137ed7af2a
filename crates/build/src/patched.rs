//! The patched build: with line numbers kept where that compiles, and without where it does not.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use xsplice_report::{Diagnostic, Place, Problems};

use crate::base::{self, Base};
use crate::capture;
use crate::codes;
use crate::config::ConfigChange;
use crate::direct::{Attempted, Direct, Way};
use crate::graph::Graph;
use crate::kbuild::{Call, Kbuild, MakeEnd};
use crate::line_neutral::{self, LineNumbers, Neutral};
use crate::plan::BuildPlan;
use crate::request::Progress;
use crate::tree;
use crate::wrapper::{Record, Tool};

/// What the patched build gave.
pub(crate) struct Patched {
    pub(crate) records: Vec<Record>,
    pub(crate) config_changes: Vec<ConfigChange>,
    pub(crate) line_numbers: LineNumbers,
    pub(crate) way: Way,
    pub(crate) warnings: Vec<Diagnostic>,
    /// Calls that compiled originals which the original build had left out.
    pub(crate) originals: Vec<Record>,
}

/// Why there is no patched build.
#[derive(Debug)]
pub(crate) enum Stop {
    /// What is wrong.
    Problems(Problems),
    /// make has to build, for that reason, and the original is not there as a whole.
    NeedsWhole(String),
}

impl Stop {
    pub(crate) fn into_problems(self) -> Problems {
        match self {
            Stop::Problems(problems) => problems,
            Stop::NeedsWhole(because) => Diagnostic::new(codes::IO, because).into(),
        }
    }
}

impl From<Problems> for Stop {
    fn from(problems: Problems) -> Stop {
        Stop::Problems(problems)
    }
}

impl From<Diagnostic> for Stop {
    fn from(problem: Diagnostic) -> Stop {
        Stop::Problems(problem.into())
    }
}

/// A build from the original one on, to its end, good or bad.
struct Attempt {
    end: MakeEnd,
    config_changes: Vec<ConfigChange>,
    way: Way,
}

/// Builds the patched tree.
pub(crate) fn build(plan: &BuildPlan, base: &Base, progress: &dyn Progress) -> Result<Patched, Stop> {
    let kbuild = base::kbuild(plan, &base.folder, "patched-build.log");
    let job = Job { plan, base, kbuild, direct: RefCell::new(None), progress };
    let (neutral, warnings) = if plan.request.keep_lines {
        (Neutral::new(), Vec::new())
    } else {
        line_neutral::files(&plan.changes)
    };
    let first = job.attempt(&neutral)?;
    let mut built = if first.end.success {
        patched(first, &neutral, Vec::new(), warnings)
    } else if neutral.is_empty() {
        return Err(job.failure(&first).into());
    } else {
        job.fall_back(neutral, warnings)?
    };
    if let Some(Ok(direct)) = job.direct.into_inner() {
        built.originals = direct.into_originals();
    }
    Ok(built)
}

fn patched(
    attempt: Attempt,
    neutral: &Neutral,
    fell_back: Vec<String>,
    mut warnings: Vec<Diagnostic>,
) -> Patched {
    warnings.extend(fell_back.iter().map(|path| {
        Diagnostic::new(codes::LINES_MOVED, format!("{path} does not compile with its original line numbers"))
            .at(Place::file(path))
            .why(
                "It was built as the patch has it, so functions that hold a line number are patched where the \
                  patch moves them.",
            )
    }));
    let line_numbers = LineNumbers { neutral: neutral.keys().cloned().collect(), fell_back };
    Patched {
        records: attempt.end.records,
        config_changes: attempt.config_changes,
        line_numbers,
        way: attempt.way,
        warnings,
        originals: Vec::new(),
    }
}

/// What every attempt needs.
struct Job<'a> {
    plan: &'a BuildPlan,
    base: &'a Base,
    kbuild: Kbuild<'a>,
    /// The build by commands, or why make has to do it; none before the first attempt.
    direct: RefCell<Option<Result<Direct<'a>, String>>>,
    progress: &'a dyn Progress,
}

impl Job<'_> {
    fn failure(&self, attempt: &Attempt) -> Diagnostic {
        self.kbuild.failure(&attempt.end, "the patched tree")
    }

    /// Restores the original build and builds the patched tree, with the files of `neutral` in place of what
    /// the patch makes of them. Nothing of an attempt before is left: what make takes to be up to date would
    /// depend on how far several compilers had come.
    fn attempt(&self, neutral: &Neutral) -> Result<Attempt, Stop> {
        let Job { plan, base, kbuild, progress, .. } = self;
        let io = |error: std::io::Error| codes::io(&error);
        progress.step("restoring the original build");
        tree::mirror(&base.pristine(), &base.tree()).map_err(io)?;
        kbuild.prepare()?;
        let because = match self.by_commands(neutral)? {
            Ok(attempt) => return Ok(attempt),
            Err(because) if base.is_whole() => because,
            Err(because) => return Err(Stop::NeedsWhole(because)),
        };
        capture::apply(plan, neutral, &base.tree()).map_err(io)?;
        capture::wake_readers(plan, base).map_err(io)?;
        let config_changes = capture::reconfigure(plan, base, kbuild, *progress)?;
        progress.step("building the patched tree");
        let records = base.folder.join("patched-records");
        let call = Call::up_to_link(&records);
        let mut end = kbuild.run(&call, *progress)?;
        if end.success && capture::wake_stale(base).map_err(io)? {
            progress.step("compiling what reads files that were made anew");
            let more = kbuild.run(&call, *progress)?;
            end.success = more.success;
            end.records.extend(more.records);
        }
        Ok(Attempt { end, config_changes, way: Way::Make { because } })
    }

    /// Builds without make; or says why make has to do it, this time and from then on. The tree is the original:
    /// what reads a file is told by paths as the tree's links resolve them.
    fn by_commands(&self, neutral: &Neutral) -> Result<Result<Attempt, String>, Problems> {
        let mut direct = self.direct.borrow_mut();
        let direct = match &mut *direct {
            Some(direct) => direct,
            none => none.insert(Direct::new(self.plan, self.base, &self.kbuild, self.progress)?),
        };
        let because = match direct {
            Err(because) => return Ok(Err(because.clone())),
            Ok(direct) => match direct.attempt(&self.kbuild, neutral, self.progress)? {
                Attempted::Ran { end, way } => {
                    return Ok(Ok(Attempt { end, config_changes: Vec::new(), way }));
                }
                Attempted::ForMake(because) => because,
            },
        };
        *direct = Err(because.clone());
        tree::mirror(&self.base.pristine(), &self.base.tree()).map_err(|error| codes::io(&error))?;
        Ok(Err(because))
    }

    /// Goes on after a build that failed with line numbers kept.
    ///
    /// If the patch itself does not compile, that is the answer, in the compiler's words about the patch as it
    /// is. Otherwise the files are left plain that were read where a compiler failed; all, if that is not
    /// enough. The set does not depend on which of several compilers fails first, since all failures count.
    fn fall_back(&self, neutral: Neutral, warnings: Vec<Diagnostic>) -> Result<Patched, Stop> {
        let plain = self.attempt(&Neutral::new())?;
        if !plain.end.success {
            return Err(self.failure(&plain).into());
        }
        let all = self.attempt(&neutral)?;
        let blamed = self.read_by_failures(&all.end.records, plain.end.records, &neutral);
        let rest: Neutral = neutral
            .iter()
            .filter(|(path, _)| !blamed.contains(*path))
            .map(|(path, text)| (path.clone(), text.clone()))
            .collect();
        if !blamed.is_empty() && !rest.is_empty() {
            let partly = self.attempt(&rest)?;
            if partly.end.success {
                return Ok(patched(partly, &rest, blamed.into_iter().collect(), warnings));
            }
        }
        let plain = self.attempt(&Neutral::new())?;
        if !plain.end.success {
            return Err(self.failure(&plain).into());
        }
        Ok(patched(plain, &Neutral::new(), neutral.into_keys().collect(), warnings))
    }

    /// Those of the files that a failing compilation read. A compiler that fails does not tell what it read:
    /// that is known from the same compilation in the original build and in the one without directives.
    fn read_by_failures(
        &self,
        failing: &[Record],
        plain: Vec<Record>,
        neutral: &Neutral,
    ) -> BTreeSet<String> {
        let outputs: BTreeSet<(&Path, &str)> = failing
            .iter()
            .filter(|record| record.tool == Tool::Cc && record.code != 0)
            .map(|record| (record.dir.as_path(), record.output.as_str()))
            .collect();
        let mut records = self.base.records.clone();
        records.extend(plain);
        let mut graph = Graph::new(&self.base.tree(), records);
        let compilations: Vec<usize> = (0..graph.records.len())
            .filter(|&index| {
                let record = &graph.records[index];
                record.tool == Tool::Cc && outputs.contains(&(record.dir.as_path(), record.output.as_str()))
            })
            .collect();
        let read: BTreeSet<String> =
            compilations.into_iter().flat_map(|index| graph.dependencies(index)).collect();
        neutral.keys().filter(|path| read.contains(*path)).cloned().collect()
    }
}
