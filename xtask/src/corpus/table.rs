//! What the corpus shows: disagreements, shortfalls and misses, each with its cause, and the table under docs/.
//!
//! Causes are written by hand, in a file of their own: a table that is made anew keeps them. A cause belongs to a
//! commit and to the exact words that the table has for the finding, so it never covers another finding.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use fs_err as fs;
use serde::Deserialize;

use super::judge::{Ending, Functions, Judged, Named, Opinion};
use super::oracle::{DataChange, What};

/// Codes that say that more than code changes, which the oracle cannot know: it does not look at types.
const MORE_THAN_CODE: &[&str] = &["layout-changed"];

/// What kind of finding it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A change by the oracle's judgement that is neither in the payload nor refused.
    Miss,
    /// The function sets differ.
    Disagreement,
    /// Code and plain new data only by the oracle's judgement, and yet no payload.
    Shortfall,
}

/// Something that wants a cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) kind: Kind,
    pub(crate) commit: String,
    pub(crate) ending: Ending,
    pub(crate) what: String,
    pub(crate) why: Option<String>,
}

/// The causes that are known.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Causes {
    #[serde(default)]
    cause: Vec<Cause>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cause {
    commit: String,
    what: String,
    why: String,
}

impl Causes {
    /// Reads the file; none is the same as an empty one.
    ///
    /// # Errors
    /// When it is not what it should be.
    pub(crate) fn read(path: &Path) -> Result<Causes, String> {
        if !path.exists() {
            return Ok(Causes::default());
        }
        let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
        toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn of(&self, commit: &str, what: &str) -> Option<String> {
        let found = self.cause.iter().find(|cause| cause.commit == commit && cause.what == what);
        found.map(|cause| cause.why.trim().to_owned()).filter(|why| !why.is_empty())
    }

    /// Causes of findings that are no more, among the patches that were judged.
    pub(crate) fn stale(&self, judged: &[Judged], findings: &[Finding]) -> Vec<String> {
        let commits: BTreeSet<&str> = judged.iter().map(|j| j.entry.short()).collect();
        let known: BTreeSet<(&str, &str)> =
            findings.iter().map(|f| (f.commit.as_str(), f.what.as_str())).collect();
        self.cause
            .iter()
            .filter(|c| commits.contains(c.commit.as_str()) && !known.contains(&(&c.commit, &c.what)))
            .map(|c| format!("{}: {}", c.commit, c.what))
            .collect()
    }
}

/// What wants a cause, in the order of the list.
pub(crate) fn findings(judged: &[Judged], causes: &Causes) -> Vec<Finding> {
    let mut findings = Vec::new();
    for judged in judged {
        let texts = [
            (Kind::Miss, misses(judged)),
            (Kind::Disagreement, disagreement(judged)),
            (Kind::Shortfall, shortfall(judged)),
        ];
        for (kind, what) in texts {
            let Some(what) = what else { continue };
            let commit = judged.entry.short().to_owned();
            let why = causes.of(&commit, &what);
            findings.push(Finding { kind, commit, ending: judged.ending, what, why });
        }
    }
    findings.sort_by_key(|finding| finding.kind);
    findings
}

/// The oracle's functions without those of assembler objects that are refused as a whole: our side names labels
/// there, not functions.
fn to_compare(judged: &Judged, oracle: &Functions) -> Functions {
    let keep = |names: &BTreeSet<Named>| {
        names.iter().filter(|named| !judged.whole.contains(&named.object)).cloned().collect()
    };
    Functions { changed: keep(&oracle.changed), new: keep(&oracle.new), removed: keep(&oracle.removed) }
}

/// How the function sets differ; `None` where they do not, or where there is nothing to compare.
pub(crate) fn disagreement(judged: &Judged) -> Option<String> {
    let (ours, oracle) = (judged.ours.as_ref()?, &judged.oracle.as_ref()?.functions);
    let oracle = to_compare(judged, oracle);
    let sides = [("ours only", ours, &oracle), ("oracle only", &oracle, ours)];
    let texts: Vec<String> = sides
        .into_iter()
        .filter_map(|(side, one, other)| {
            let names = only(one, other);
            (!names.is_empty()).then(|| format!("{side}: {}", names.join(", ")))
        })
        .collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

/// What one has and the other has not, in words.
fn only(one: &Functions, other: &Functions) -> Vec<String> {
    let kinds = [
        ("", &one.changed, &other.changed),
        ("new ", &one.new, &other.new),
        ("removed ", &one.removed, &other.removed),
    ];
    let mut names = Vec::new();
    for (kind, one, other) in kinds {
        names.extend(in_words(one.difference(other)).into_iter().map(|name| format!("{kind}{name}")));
    }
    names
}

/// Names, each once, with the number of its objects where there are several.
fn in_words<'n>(names: impl Iterator<Item = &'n Named>) -> Vec<String> {
    let mut objects: BTreeMap<&str, usize> = BTreeMap::new();
    for named in names {
        *objects.entry(&named.name).or_default() += 1;
    }
    let words = objects.into_iter().map(|(name, count)| match count {
        1 => format!("`{name}`"),
        _ => format!("`{name}` ({count} objects)"),
    });
    words.collect()
}

/// What the oracle finds changed and the payload, or the lack of one, leaves out.
pub(crate) fn misses(judged: &Judged) -> Option<String> {
    if !matches!(judged.ending, Ending::Payload | Ending::Nothing) {
        return None;
    }
    let oracle = judged.oracle.as_ref()?;
    let empty = Functions::default();
    let ours = judged.ours.as_ref().unwrap_or(&empty);
    let mut missed = in_words(oracle.functions.changed.difference(&ours.changed));
    let data = oracle.data.iter().filter(|(object, change)| is_missed(object, change, oracle, judged));
    missed.extend(data.map(|(_, change)| format!("data `{}`", change.name)));
    missed.extend(oracle.unknown.iter().map(|(_, what)| format!("unknown: {what}")));
    missed.dedup();
    (!missed.is_empty()).then(|| format!("missed: {}", missed.join(", ")))
}

/// Whether data ought to be in the payload and is not: changed data, and new data that run-time code uses.
fn is_missed(object: &str, change: &DataChange, oracle: &Opinion, judged: &Judged) -> bool {
    let named = |name: &str| Named { object: object.to_owned(), name: name.to_owned() };
    let is_affected = match change.what {
        What::Changed => true,
        What::Removed => false,
        What::New => change
            .users
            .iter()
            .map(|user| named(user))
            .any(|user| oracle.functions.changed.contains(&user) || oracle.functions.new.contains(&user)),
    };
    is_affected && !judged.data.contains(&named(&change.name))
}

/// The codes of a refusal where the oracle sees no reason for one.
pub(crate) fn shortfall(judged: &Judged) -> Option<String> {
    if !matches!(judged.ending, Ending::Refused | Ending::Failed) {
        return None;
    }
    let oracle = judged.oracle.as_ref()?;
    let codes = judged.codes();
    let is_more = |change: &DataChange| match change.what {
        What::Changed => true,
        What::New => !change.plain,
        What::Removed => false,
    };
    let more = oracle.data.iter().any(|(_, change)| is_more(change)) || !oracle.unknown.is_empty();
    if more || codes.iter().any(|code| MORE_THAN_CODE.contains(code)) {
        return None;
    }
    let codes: Vec<&str> = codes.into_iter().collect();
    Some(format!("no payload: {}", codes.join(", ")))
}

/// One line for people who wait.
pub(crate) fn line(judged: &Judged) -> String {
    let mut line = format!("{:19} {}", judged.entry.name(), judged.ending.text());
    let codes: Vec<&str> = judged.codes().into_iter().collect();
    if !codes.is_empty() {
        let _ = write!(line, " ({})", codes.join(", "));
    }
    if let Some(ours) = &judged.ours {
        let _ = write!(line, "; ours {}", in_short(ours));
    }
    match (&judged.ours, &judged.oracle) {
        (Some(_), Some(_)) if disagreement(judged).is_none() => line.push_str("; oracle the same"),
        (_, Some(oracle)) => {
            let _ = write!(line, "; oracle {}", in_short(&oracle.functions));
        }
        (_, None) => {}
    }
    let _ = write!(line, "; built {:.1} s, judged {:.2} s", judged.build_seconds, judged.seconds);
    line
}

/// A number, and the names where they are few.
fn in_short(functions: &Functions) -> String {
    let names = in_words(functions.changed.iter().chain(&functions.new));
    match names.len() {
        0 => "0".to_owned(),
        1..=6 => format!("{}: {}", functions.count(), names.join(" ").replace('`', "")),
        _ => format!("{}: {} ...", functions.count(), names[..5].join(" ").replace('`', "")),
    }
}

/// How many patches end in which way.
pub(crate) fn totals(judged: &[Judged]) -> Vec<(Ending, usize)> {
    let count = |ending| judged.iter().filter(|judged| judged.ending == ending).count();
    Ending::ALL.into_iter().map(|ending| (ending, count(ending))).collect()
}

/// For each code the number of patches that have it, and of those that have no other.
pub(crate) fn codes(judged: &[Judged]) -> BTreeMap<String, (usize, usize)> {
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for judged in judged {
        let codes = judged.codes();
        for code in &codes {
            let count = counts.entry((*code).to_owned()).or_default();
            count.0 += 1;
            count.1 += usize::from(codes.len() == 1);
        }
    }
    counts
}

/// The whole document.
pub(crate) fn document(judged: &[Judged], findings: &[Finding], range: &super::list::Range) -> String {
    let mut text = String::new();
    let later = judged.iter().filter(|judged| !judged.entry.reverse).count();
    let base = range.base.get(..10).unwrap_or(&range.base);
    let _ = writeln!(
        text,
        "# {} real patches\n\n\
         Made by `cargo xtask corpus --xen-git DIR`; only the causes are written by hand, in corpus-causes.toml.\n\n\
         The patches are commits of Xen's stable-4.17 that touch xen/: {later} later than {} that apply to it, each\n\
         alone, and {} earlier ones (from the branch point on) whose reverse does. Tree, configuration and symbols\n\
         are those of Debian's 4.17.5+72, which is {} with Debian's own patches. The oracle takes the\n\
         text of objdump and readelf, and shares no code with what it judges.\n",
        judged.len(),
        base,
        judged.len() - later,
        base
    );
    text.push_str("## How they end\n\n| outcome | patches |\n|---|---|\n");
    for (ending, count) in totals(judged) {
        let _ = writeln!(text, "| {} | {count} |", ending.text());
    }
    text.push_str("\n| code | patches | with no other code |\n|---|---|---|\n");
    for (code, (all, alone)) in codes(judged) {
        let _ = writeln!(text, "| {code} | {all} | {alone} |");
    }
    let _ = writeln!(text, "\n## Against the oracle\n\n{}\n", agreement(judged, findings));
    let sections = [
        (Kind::Miss, "Changes that are neither in the payload nor refused"),
        (Kind::Disagreement, "Other functions than the oracle's"),
        (Kind::Shortfall, "Code and new data only by the oracle's judgement, and no payload"),
    ];
    for (kind, title) in sections {
        let rows: Vec<&Finding> = findings.iter().filter(|finding| finding.kind == kind).collect();
        let _ = writeln!(text, "### {title}\n");
        if rows.is_empty() {
            text.push_str("None.\n\n");
            continue;
        }
        text.push_str("| commit | outcome | what | cause |\n|---|---|---|---|\n");
        for row in rows {
            let cause = cell(row.why.as_deref().unwrap_or("unexplained"));
            let _ =
                writeln!(text, "| {} | {} | {} | {cause} |", row.commit, row.ending.text(), cell(&row.what));
        }
        text.push('\n');
    }
    text.push_str(
        "## All\n\nFunctions: changed and new ones; in a payload, those that it replaces and new ones.\n\n\
         | | commit | outcome | functions | oracle's |\n|---|---|---|---|---|\n",
    );
    for judged in judged {
        let _ = writeln!(text, "{}", row(judged));
    }
    text
}

fn agreement(judged: &[Judged], findings: &[Finding]) -> String {
    let both = judged.iter().filter(|judged| judged.ours.is_some() && judged.oracle.is_some()).count();
    let differ = findings.iter().filter(|finding| finding.kind == Kind::Disagreement).count();
    let functions: usize = judged
        .iter()
        .filter_map(|judged| judged.oracle.as_ref())
        .map(|oracle| oracle.functions.count())
        .sum();
    format!(
        "Of {both} patches with objects to compare, {} have the oracle's set of functions exactly\n\
         (it finds {functions} changed or new functions in all).",
        both - differ
    )
}

fn row(judged: &Judged) -> String {
    let codes: Vec<&str> = judged.codes().into_iter().collect();
    let outcome = match (judged.ending, codes.is_empty()) {
        (Ending::Refused | Ending::Failed, false) => {
            format!("{}: {}", judged.ending.text(), codes.join(", "))
        }
        (ending, _) => ending.text().to_owned(),
    };
    let count = |functions: Option<&Functions>| {
        functions.map_or_else(|| "-".to_owned(), |functions| functions.count().to_string())
    };
    format!(
        "| {} | {}{} | {outcome} | {} | {} |",
        judged.entry.number,
        judged.entry.short(),
        if judged.entry.reverse { " reversed" } else { "" },
        count(judged.ours.as_ref()),
        count(judged.oracle.as_ref().map(|oracle| &oracle.functions))
    )
}

/// Text in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
