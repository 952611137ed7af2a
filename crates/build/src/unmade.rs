//! Originals that the first build left out: which of them a patch may reach, what they read, and making them.
//!
//! An empty object stood in for them (see [`crate::stand_in`]), so nobody knows yet what they read. Those whose text
//! cannot lead to a touched file ([`crate::includes`]) are none of the patch's business. The others go through the
//! preprocessor once; what it reads is remembered beside the text.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fs_err as fs;
use xsplice_process::Sink;
use xsplice_report::{Diagnostic, Problems};

use crate::base::{self, Base};
use crate::codes;
use crate::commands::{self, Run};
use crate::direct::Known;
use crate::graph::Graph;
use crate::includes::{self, Reach};
use crate::kbuild::{MakeEnd, process_error};
use crate::parallel::in_parallel;
use crate::plan::BuildPlan;
use crate::replay::without_outputs;
use crate::request::Progress;
use crate::same_text::{Tokens, tokens};
use crate::tree;
use crate::units::{Unit, units};
use crate::wrapper::{self, Tool, added_flags, parse_depfile};

/// Compilations that were left out and not made since: indexes of their records.
fn unmade(graph: &Graph) -> Vec<usize> {
    let left_out = |&index: &usize| graph.records[index].stood_in && graph.output_of(index).is_some();
    (0..graph.records.len()).filter(left_out).collect()
}

/// Finds out what those read that may read a touched file, and writes it into the graph's records. The tree is the
/// original. Gives the files that may lead to a touched one, if anything was left out at all.
pub(crate) fn learn(
    graph: &mut Graph,
    run: &Run<'_>,
    known: &mut Known,
    touched: &BTreeSet<String>,
) -> Result<Option<Reach>, Problems> {
    let open = unmade(graph);
    if open.is_empty() {
        return Ok(None);
    }
    let reach = Reach::of(&run.kbuild.tree, touched).map_err(|error| codes::io(&error))?;
    let mut candidates = Vec::new();
    for index in open {
        let source = graph.source_of(index);
        if reach.has(&source) || reach.is_named_in(&graph.records[index].args.join(" ")) {
            candidates.push((index, graph.output_of(index).unwrap_or_default()));
        }
    }
    let new: Vec<(usize, String)> =
        candidates.iter().filter(|(_, output)| !known.reads.contains_key(output)).cloned().collect();
    let found = in_parallel(run.kbuild.request.jobs, &new, |(index, _)| preprocessed(graph, run, *index))?;
    for ((_, output), found) in new.into_iter().zip(found) {
        if let Some((text, reads)) = found {
            known.texts.insert(output.clone(), text);
            known.reads.insert(output, reads);
        }
    }
    for (index, output) in candidates {
        let mut reads = known.reads.get(&output).cloned().unwrap_or_default();
        // What cannot be preprocessed here, or has its assembler read something, counts as a reader of everything.
        let open_ended = known.texts.get(&output).is_none_or(|text| !closed(text, &reach));
        if open_ended || !known.reads.contains_key(&output) {
            let tree = run.kbuild.tree.clone();
            reads.extend(touched.iter().map(|path| tree.join(path).display().to_string()));
        }
        graph.records[index].dependencies = reads;
    }
    Ok(Some(reach))
}

/// Whether what the assembler reads for a text leads to no touched file.
pub(crate) fn closed(text: &Tokens, reach: &Reach) -> bool {
    text.reads.iter().all(|name| !name.is_empty() && !reach.is_named_in(name))
}

/// Makes those of the originals that are still left out and whose text holds any of the names; too many do no harm.
///
/// # Errors
/// When one does not compile, or of I/O.
pub(crate) fn make_users(
    plan: &BuildPlan,
    base: &mut Base,
    names: &BTreeSet<String>,
    progress: &dyn Progress,
) -> Result<(), Problems> {
    let io = |error: std::io::Error| Problems::from(codes::io(&error));
    let mut graph = Graph::new(&base.tree(), base.records.clone());
    let open = unmade(&graph);
    if open.is_empty() {
        return Ok(());
    }
    progress.step("looking for other users of what changed");
    tree::mirror(&base.pristine(), &base.tree()).map_err(io)?;
    let kbuild = base::kbuild(plan, &base.folder, "users-build.log");
    kbuild.prepare()?;
    let run = Run { kbuild: &kbuild };
    let texts = in_parallel(plan.request.jobs, &open, |&index| text(&graph, &run, index, None))?;
    let mut included: BTreeMap<String, bool> = BTreeMap::new();
    let mut users: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    for (index, text) in open.into_iter().zip(texts) {
        let mut uses = text.as_deref().is_none_or(|text| holds(text, names));
        for name in text.iter().flat_map(|text| tokens(text).reads) {
            let found = match included.get(&name) {
                Some(&found) => found,
                None => *included
                    .entry(name.clone())
                    .or_insert(named_like_holds(&base.tree(), &name, names).map_err(io)?),
            };
            uses |= found;
        }
        if uses {
            users.insert(index, BTreeSet::new());
        }
    }
    let failed = |what: String| Problems::from(Diagnostic::new(codes::MAKE_FAILED, what));
    let units = units(&mut graph, &users, &base.pristine()).map_err(failed)?;
    progress.step("compiling other users of what changed");
    let records = kbuild.temporary.join("records");
    tree::create_private_dir(&records).map_err(io)?;
    let all: Vec<&Unit> = units.iter().collect();
    let well = run.compile(&graph, &all, &records, Some(progress))?;
    let made = wrapper::read_new_records(&records, &mut BTreeSet::new()).map_err(io)?;
    if !well {
        let end = MakeEnd { success: false, records: made };
        return Err(kbuild.failure(&end, "the original tree").into());
    }
    let mut originals = Vec::new();
    for unit in &units {
        let (pristine, tree) = (base.pristine(), base.tree());
        originals.extend(commands::take_original(&graph, unit, &pristine, &tree, &made).map_err(io)?);
    }
    base.add(originals)
}

fn holds(text: &[u8], names: &BTreeSet<String>) -> bool {
    let text = String::from_utf8_lossy(text);
    names.iter().any(|name| text.contains(name.as_str()))
}

/// Whether any file of that name below xen/ holds one of the names; so it is taken for a file that nobody knows.
fn named_like_holds(tree: &Path, file: &str, names: &BTreeSet<String>) -> std::io::Result<bool> {
    if file.is_empty() {
        return Ok(true);
    }
    for path in includes::files(tree)? {
        if path.rsplit('/').next() == Some(file) && holds(&fs::read(tree.join(path))?, names) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The original's text, and the files that make it up; none where the preprocessor fails.
fn preprocessed(
    graph: &Graph,
    run: &Run<'_>,
    index: usize,
) -> Result<Option<(Tokens, Vec<String>)>, Diagnostic> {
    let file = run.kbuild.temporary.join(format!("reads-{index}"));
    let Some(text) = text(graph, run, index, Some(&file))? else { return Ok(None) };
    let reads = fs::read_to_string(&file).map_err(|error| codes::io(&error))?;
    tree::remove(&file).map_err(|error| codes::io(&error))?;
    Ok(Some((tokens(&text), parse_depfile(&reads))))
}

/// What the preprocessor makes of a source; what it reads is written to a file. None where it fails.
fn text(
    graph: &Graph,
    run: &Run<'_>,
    index: usize,
    reads: Option<&Path>,
) -> Result<Option<Vec<u8>>, Diagnostic> {
    let record = &graph.records[index];
    let mut args = without_outputs(&record.args);
    let source = record.inputs.first().map_or("", String::as_str);
    args.extend(added_flags(&run.kbuild.settings(), &record.args, source));
    let mut job = run.job(Tool::Cc, &record.dir).args(args).arg("-E");
    if let Some(file) = reads {
        job = job.args(["-MMD", "-MF"]).arg(file);
    }
    let finished = job.stderr(Sink::Discard).run().map_err(|error| process_error(&error))?;
    Ok(finished.success().then_some(finished.stdout))
}
