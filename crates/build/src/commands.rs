//! Running recorded commands again.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use fs_err as fs;
use xsplice_process::{Job, Sink};
use xsplice_report::{Diagnostic, Problems};

use crate::codes;
use crate::graph::Graph;
use crate::kbuild::{Kbuild, process_error};
use crate::parallel::in_parallel;
use crate::request::Progress;
use crate::tree;
use crate::units::{Step, Unit};
use crate::wrapper::{self, Record, Tool};

/// How commands run.
pub(crate) struct Run<'a> {
    pub(crate) kbuild: &'a Kbuild<'a>,
}

impl Run<'_> {
    /// A call of a tool, in the environment of the build.
    pub(crate) fn job(&self, tool: Tool, dir: &Path) -> Job {
        let program = self.kbuild.bin.join(tool.link_name());
        self.kbuild.environment(Job::new(program).dir(dir))
    }

    /// Runs a recorded command again, its words going to the log. Whether it went well.
    fn again(&self, record: &Record, records: &Path) -> Result<bool, Diagnostic> {
        let log = || self.kbuild.log_file().map(Sink::File);
        let job = self.job(record.tool, &record.dir).args(&record.args).env(wrapper::RECORDS, records);
        let finished = job.stdout(log()?).stderr(log()?).run().map_err(|error| process_error(&error))?;
        Ok(finished.success())
    }

    /// Compiles units, each with the steps that follow; the wrapper leaves its records in a folder. Whether all went
    /// well.
    pub(crate) fn compile(
        &self,
        graph: &Graph,
        units: &[&Unit],
        records: &Path,
        progress: Option<&dyn Progress>,
    ) -> Result<bool, Problems> {
        let done = AtomicUsize::new(0);
        let results = in_parallel(self.kbuild.request.jobs, units, |unit| {
            let mut well = self.again(&graph.records[unit.record], records)?;
            for step in &unit.steps {
                if !well {
                    break;
                }
                well = match step {
                    Step::Copy(copy) => self.again(&graph.records[*copy], records)?,
                    Step::Rename { from, to } => {
                        let tree = &self.kbuild.tree;
                        fs::rename(tree.join(from), tree.join(to)).map_err(|error| codes::io(&error))?;
                        true
                    }
                };
            }
            if let Some(progress) = progress.filter(|_| well) {
                let count = done.fetch_add(1, Ordering::Relaxed) + 1;
                progress.compiled(unit.object.as_ref().unwrap_or(&unit.output), count);
            }
            Ok(well)
        })?;
        Ok(results.into_iter().all(|well| well))
    }
}

/// Puts what a unit's commands made of the original source in its place in `pristine`, where an empty object was so
/// far. Gives those of the calls that `made` tells of. There is nothing of make's to compare it with; the shipped
/// hypervisor is what later stages hold it against.
pub(crate) fn take_original(
    graph: &Graph,
    unit: &Unit,
    pristine: &Path,
    tree: &Path,
    made: &[Record],
) -> std::io::Result<Vec<Record>> {
    for result in &unit.results {
        tree::mirror_file(&tree.join(result), &pristine.join(result))?;
    }
    let mut calls = vec![unit.record];
    calls.extend(unit.steps.iter().filter_map(|step| match step {
        Step::Copy(record) => Some(*record),
        Step::Rename { .. } => None,
    }));
    let call = |index: usize| {
        let asked = &graph.records[index];
        let same = |record: &&Record| (&record.dir, &record.output) == (&asked.dir, &asked.output);
        made.iter().find(same).cloned()
    };
    Ok(calls.into_iter().filter_map(call).collect())
}
