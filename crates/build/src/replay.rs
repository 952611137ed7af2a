//! The original build's compilations, to be run again one at a time.
//!
//! For checks that compile many slightly different sources: one compilation takes a second, where make takes
//! that and six more. A compilation that is run again from here gives the same bytes as the build did.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use xsplice_process::Job;
use xsplice_report::Problems;

use crate::base::{self, Base, BaseObjects, Scope};
use crate::codes;
use crate::graph::{BaseObject, Graph};
use crate::plan::plan_original;
use crate::request::{Progress, Request};
use crate::tree;
use crate::wrapper::{Tool, added_flags};

/// A copy that the build makes of an object with `objcopy`, on the way to the one that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// The real objcopy.
    pub program: PathBuf,
    /// Its options, without input and output.
    pub options: Vec<String>,
}

/// One compilation of a C source of the hypervisor.
#[derive(Debug, Clone)]
pub struct Compilation {
    /// What comes out of it.
    pub object: BaseObject,
    /// The real compiler.
    pub program: PathBuf,
    /// The folder it runs in.
    pub dir: PathBuf,
    /// All its arguments but the output, `-c`, and those that write dependencies; the source is among them.
    pub arguments: Vec<String>,
    /// The source as named in the arguments.
    pub input: String,
    /// What follows the compilation, in order.
    pub copies: Vec<Copy>,
    /// Every file of the tree that it reads, relative to the tree, the source among them.
    pub reads: BTreeSet<String>,
}

impl Compilation {
    /// A call of `program` in the environment of the build.
    pub fn job(&self, program: &Path) -> Job {
        Job::new(program)
            .dir(&self.dir)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .env("SOURCE_DATE_EPOCH", "0")
    }
}

/// The original build in its private tree, which nobody else uses while this value lives.
///
/// Whoever uses the tree next makes it equal to the original first: it may be left changed.
pub struct Replay {
    base: Base,
    objects: BaseObjects,
    compilations: Vec<Compilation>,
}

impl Replay {
    /// The private copy of the tree, in which the compilations run.
    pub fn tree(&self) -> PathBuf {
        self.base.tree()
    }

    /// The compilations of C sources whose objects are in the hypervisor, sorted by object.
    pub fn compilations(&self) -> &[Compilation] {
        &self.compilations
    }

    /// The hypervisor's symbol file, where it was linked.
    pub fn built_xen_syms(&self) -> Option<PathBuf> {
        self.base.symbols()
    }

    /// The objects that the build made.
    pub fn objects(&self) -> &BaseObjects {
        &self.objects
    }
}

/// The original build of a request's tree, kept or made now. Its patches are not looked at.
///
/// # Errors
/// As [`crate::plan()`] and [`crate::build()`] without a patch.
pub fn replay(request: Request, progress: &dyn Progress) -> Result<Replay, Problems> {
    let plan = plan_original(request)?;
    let because = "every object of the original is wanted".to_owned();
    let base = Base::open(&plan, &Scope::Whole { because }, progress)?;
    let kbuild = base::kbuild(&plan, &base.folder, "replay.log");
    tree::mirror(&base.pristine(), &base.tree()).map_err(|error| codes::io(&error))?;
    let settings = kbuild.settings();
    let tool = |tool: Tool| settings.tools.get(&tool).cloned().unwrap_or_default();
    let mut graph = Graph::new(&base.tree(), base.records.clone());
    let made = graph.objects();
    let objects = base.objects(made.values().map(|made| made.object.clone()));
    let mut compilations = Vec::new();
    for made in made.into_values().filter(|made| made.object.linked && !made.object.assembler) {
        let reads = graph.dependencies(made.record);
        let copies = graph
            .copies(&made.object.path)
            .into_iter()
            .map(|record| {
                let record = &graph.records[record];
                let named = |arg: &&String| **arg != record.output && !record.inputs.contains(arg);
                Copy {
                    program: tool(Tool::Objcopy),
                    options: record.args.iter().filter(named).cloned().collect(),
                }
            })
            .collect();
        let record = &graph.records[made.record];
        let input = record.inputs.first().cloned().unwrap_or_default();
        let mut arguments = without_outputs(&record.args);
        arguments.extend(added_flags(&settings, &record.args, &input));
        compilations.push(Compilation {
            object: made.object,
            program: tool(Tool::Cc),
            dir: record.dir.clone(),
            arguments,
            input,
            copies,
            reads,
        });
    }
    Ok(Replay { base, objects, compilations })
}

/// Arguments without what says where results go.
pub(crate) fn without_outputs(args: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut words = args.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-MF" | "-MQ" | "-MT" | "-o" => {
                words.next();
            }
            "-c" | "-MMD" | "-MD" | "-MP" => {}
            word if word.starts_with("-Wp,-M") => {}
            word => kept.push(word.to_owned()),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_names_results_is_taken_away() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let args =
            words("-MMD -MP -MF d/.a.o.d -O2 -Wp,-MD,x -include c.h -c d/a.c -o d/.a.o.tmp -MQ d/a.o -g");
        assert_eq!(without_outputs(&args), words("-O2 -include c.h d/a.c -g"));
    }
}
