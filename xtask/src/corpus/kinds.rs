//! What kinds of code and data the corpus's payloads have, and which of them cover all kinds.
//!
//! Most kinds are told from the payload's file, with the verifier's reader, which shares nothing with what wrote it.
//! What has no name there is told from what was selected.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use fs_err as fs;
use xsplice_verify::Inspection;

use super::judge::{Ending, Judged};
use super::list::Entry;

/// What a payload has, or is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    OneFunction,
    SeveralFunctions,
    Fragments,
    NewFunctions,
    Alternatives,
    Altcalls,
    RunFrames,
    WarnFrames,
    BugFrames,
    AssertFrames,
    ExceptionTable,
    Strings,
    ReadOnlyData,
    NewData,
    ZeroedData,
    FileStatics,
    StaticLocals,
    Header,
    ManyObjects,
    Later,
    Earlier,
    Largest,
    Smallest,
}

impl Kind {
    /// All, in the order of tables.
    pub(crate) const ALL: [Kind; 23] = [
        Kind::OneFunction,
        Kind::SeveralFunctions,
        Kind::Fragments,
        Kind::NewFunctions,
        Kind::Alternatives,
        Kind::Altcalls,
        Kind::RunFrames,
        Kind::WarnFrames,
        Kind::BugFrames,
        Kind::AssertFrames,
        Kind::ExceptionTable,
        Kind::Strings,
        Kind::ReadOnlyData,
        Kind::NewData,
        Kind::ZeroedData,
        Kind::FileStatics,
        Kind::StaticLocals,
        Kind::Header,
        Kind::ManyObjects,
        Kind::Later,
        Kind::Earlier,
        Kind::Largest,
        Kind::Smallest,
    ];

    /// In words.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Kind::OneFunction => "one function",
            Kind::SeveralFunctions => "several functions",
            Kind::Fragments => "code apart from its function",
            Kind::NewFunctions => "new functions",
            Kind::Alternatives => "alternatives",
            Kind::Altcalls => "altcalls",
            Kind::RunFrames => "run-function frames",
            Kind::WarnFrames => "WARN frames",
            Kind::BugFrames => "BUG frames",
            Kind::AssertFrames => "assertion frames",
            Kind::ExceptionTable => "exception table",
            Kind::Strings => "strings",
            Kind::ReadOnlyData => "read-only data",
            Kind::NewData => "data with a value",
            Kind::ZeroedData => "zeroed data",
            Kind::FileStatics => "a file's own names",
            Kind::StaticLocals => "a function's own variables",
            Kind::Header => "header",
            Kind::ManyObjects => "three objects or more",
            Kind::Later => "later commit",
            Kind::Earlier => "reversed commit",
            Kind::Largest => "the largest",
            Kind::Smallest => "the smallest",
        }
    }
}

/// A payload that could be booted.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) entry: Entry,
    pub(crate) file: PathBuf,
    pub(crate) kinds: BTreeSet<Kind>,
    /// Size of the file.
    pub(crate) bytes: u64,
    /// How many functions it replaces.
    pub(crate) functions: usize,
}

/// All payloads of a run, in the order of the list. `payload` and `patch` say where the files of an entry are.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn candidates(
    judged: &[Judged],
    payload: impl Fn(&Entry) -> PathBuf,
    patch: impl Fn(&Entry) -> PathBuf,
) -> Result<Vec<Candidate>, String> {
    let mut all = Vec::new();
    for judged in judged.iter().filter(|judged| judged.ending == Ending::Payload) {
        let file = payload(&judged.entry);
        let bytes = fs::read(&file).map_err(|error| error.to_string())?;
        let inspection = xsplice_verify::inspect(&bytes).map_err(|problems| crate::told(&problems))?;
        let patch = fs::read(patch(&judged.entry)).map_err(|error| error.to_string())?;
        let mut kinds = of_file(&inspection);
        kinds.extend(of_judged(judged));
        kinds.extend(touches_header(&String::from_utf8_lossy(&patch)).then_some(Kind::Header));
        all.push(Candidate {
            entry: judged.entry.clone(),
            file,
            kinds,
            bytes: inspection.size,
            functions: inspection.functions.len(),
        });
    }
    all.sort_by_key(|candidate| candidate.entry.number);
    mark_extremes(&mut all);
    Ok(all)
}

/// What the file says.
fn of_file(payload: &Inspection) -> BTreeSet<Kind> {
    let (special, frames) = (&payload.special, &payload.special.bug_frames);
    let has = |name: &str| payload.sections.iter().any(|section| section.name == name && section.size > 0);
    let refers = |what: fn(&str) -> bool| payload.symbols_to_resolve.iter().any(|name| what(name));
    let kinds = [
        (Kind::OneFunction, payload.functions.len() == 1),
        (Kind::SeveralFunctions, payload.functions.len() > 1),
        (Kind::Alternatives, special.alternatives > 0),
        (Kind::Altcalls, special.altcalls > 0),
        (Kind::RunFrames, frames.run_function > 0),
        (Kind::WarnFrames, frames.warn > 0),
        (Kind::BugFrames, frames.bug > 0),
        (Kind::AssertFrames, frames.assert > 0),
        (Kind::ExceptionTable, special.exception_table > 0),
        (Kind::NewData, has(".data")),
        (Kind::ZeroedData, has(".bss")),
        (Kind::FileStatics, refers(|name| name.contains('#'))),
        (Kind::StaticLocals, refers(is_static_local)),
    ];
    kinds.into_iter().filter_map(|(kind, there)| there.then_some(kind)).collect()
}

/// Whether a name of Xen's table is that of a variable of a function: `FILE#NAME.NUMBER`. Compilers give such a
/// number to clones of functions too, but behind a word (`NAME.isra.NUMBER`).
fn is_static_local(name: &str) -> bool {
    let Some((_, name)) = name.rsplit_once('#') else { return false };
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    name.split_once('.').is_some_and(|(_, rest)| number(rest))
}

fn of_judged(judged: &Judged) -> BTreeSet<Kind> {
    let changed = judged.ours.iter().flat_map(|ours| &ours.changed);
    let objects: BTreeSet<&str> = changed.map(|named| named.object.as_str()).collect();
    let kinds = [
        (Kind::Fragments, judged.held.fragments > 0),
        (Kind::NewFunctions, judged.held.new_functions > 0),
        (Kind::Strings, judged.held.strings > 0),
        (Kind::ReadOnlyData, judged.held.read_only > 0),
        (Kind::ManyObjects, objects.len() >= 3),
        (Kind::Later, !judged.entry.reverse),
        (Kind::Earlier, judged.entry.reverse),
    ];
    kinds.into_iter().filter_map(|(kind, there)| there.then_some(kind)).collect()
}

fn touches_header(patch: &str) -> bool {
    let mut files = patch.lines().filter(|line| line.starts_with("+++ ") || line.starts_with("--- "));
    files.any(|line| line.trim_end().ends_with(".h"))
}

/// The largest and the smallest; of equal ones the first.
fn mark_extremes(all: &mut [Candidate]) {
    let largest = all.iter().map(|candidate| candidate.bytes).max();
    let smallest = all.iter().map(|candidate| candidate.bytes).min();
    for (kind, bytes) in [(Kind::Largest, largest), (Kind::Smallest, smallest)] {
        if let Some(first) = all.iter_mut().find(|candidate| Some(candidate.bytes) == bytes) {
            first.kinds.insert(kind);
        }
    }
}

/// Which of the candidates are booted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Their places among the candidates, in ascending order.
    pub(crate) places: Vec<usize>,
    /// Kinds that some candidate has and none of the chosen ones.
    pub(crate) left_out: BTreeSet<Kind>,
}

/// Chooses as many as asked for, or all where there are fewer. Kinds come first: each time the one that has most of
/// those that are still missing, of equals the first. What is left is spread over the list.
pub(crate) fn choose(candidates: &[Candidate], count: usize) -> Choice {
    let mut left_out: BTreeSet<Kind> = candidates.iter().flat_map(|c| &c.kinds).copied().collect();
    let mut places = BTreeSet::new();
    while places.len() < count && !left_out.is_empty() {
        let gain = |place: &usize| candidates[*place].kinds.intersection(&left_out).count();
        // The last of equal ones is taken, hence from behind.
        let Some(best) = (0..candidates.len()).rev().max_by_key(gain) else { break };
        left_out.retain(|kind| !candidates[best].kinds.contains(kind));
        places.insert(best);
    }
    let rest: Vec<usize> = (0..candidates.len()).filter(|place| !places.contains(place)).collect();
    let more = count.saturating_sub(places.len()).min(rest.len());
    // The middle of each of as many equal parts.
    places.extend((0..more).map(|part| rest[(2 * part + 1) * rest.len() / (2 * more)]));
    Choice { places: places.into_iter().collect(), left_out }
}

/// How many candidates have each kind.
pub(crate) fn count<'c>(candidates: impl IntoIterator<Item = &'c Candidate>) -> BTreeMap<Kind, usize> {
    let mut counts: BTreeMap<Kind, usize> = Kind::ALL.into_iter().map(|kind| (kind, 0)).collect();
    for kind in candidates.into_iter().flat_map(|candidate| &candidate.kinds) {
        *counts.entry(*kind).or_default() += 1;
    }
    counts
}

#[cfg(test)]
#[path = "kinds_tests.rs"]
mod tests;
