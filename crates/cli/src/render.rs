//! The terminal's renderer: people read standard error, programs standard output.

use std::collections::BTreeMap;
use std::io::Write;

use serde::Serialize;
use xsplice_diff::{Base, ByAddress, Expectation, How, Replacement};
use xsplice_report::{Because, Diagnostic, Kind, Outcome, Place, Problems};

use crate::report::{Findings, PayloadFacts};

/// A line for people.
pub(crate) fn line(text: &str) {
    eprintln!("{text}");
}

/// Data.
pub(crate) fn data(text: &str) {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    // Nobody is told where nobody listens: `| head` closes the stream.
    let _ = write!(std::io::stdout().lock(), "{text}{end}");
}

/// Data as JSON.
pub(crate) fn json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => data(&text),
        Err(error) => line(&format!("error: the report cannot be written as JSON: {error}")),
    }
}

/// How many problems of one code a terminal shows; the report has all.
const SHOWN_OF_A_CODE: usize = 6;

/// All problems: what, then where, why, and what to do. A changed layout comes first, since most others of the
/// same run are its consequences.
pub(crate) fn problems(problems: &Problems) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for problem in causes_first(problems) {
        let count = counts.entry(problem.code.name).or_default();
        *count += 1;
        if *count <= SHOWN_OF_A_CODE {
            line(&text(problem));
        }
    }
    for (code, count) in counts.into_iter().filter(|(_, count)| *count > SHOWN_OF_A_CODE) {
        line(&format!("and {} more of [{code}]: see report.json", count - SHOWN_OF_A_CODE));
    }
}

/// A changed layout comes first.
fn causes_first(problems: &Problems) -> Vec<&Diagnostic> {
    let mut sorted: Vec<&Diagnostic> = problems.0.iter().collect();
    sorted.sort_by_key(|problem| problem.code.name != "layout-changed");
    sorted
}

/// A kind of code in a word.
pub(crate) fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Failure => "failure",
        Kind::Refusal => "refusal",
        Kind::Warning => "warning",
    }
}

/// How many codes the hint names.
const HINTED: usize = 3;

/// Where a refusal is explained, once for all of a run.
pub(crate) fn hint(problems: &Problems) {
    let mut codes: Vec<&str> = Vec::new();
    for problem in causes_first(problems).into_iter().filter(|problem| problem.kind == Kind::Refusal) {
        if !codes.contains(&problem.code.name) {
            codes.push(problem.code.name);
        }
    }
    if !codes.is_empty() {
        codes.truncate(HINTED);
        line(&format!("more on that: xsplice explain {}", codes.join(" ")));
    }
}

/// One problem as a terminal shows it.
pub(crate) fn text(problem: &Diagnostic) -> String {
    let kind = match problem.kind {
        Kind::Failure => "error",
        Kind::Refusal => "refused",
        Kind::Warning => "warning",
    };
    let mut text = format!("{kind}: {} [{}]", problem.what, problem.code.name);
    let place = problem.place.to_string();
    for (label, part) in [("at", &place), ("why", &problem.why), ("do", &problem.advice)] {
        if !part.is_empty() {
            text.push_str(&format!("\n  {label:>3}: {}", part.replace('\n', "\n       ")));
        }
    }
    text
}

/// What people want to see of a finished run.
pub(crate) fn summary(report: &crate::report::Report) -> Vec<String> {
    let mut lines = Vec::new();
    for change in &report.config_changes {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".into());
        if change.asked.is_some() {
            lines.push(format!(
                "config: {} was {}, is {}",
                change.name,
                value(&change.asked),
                value(&change.got)
            ));
        }
    }
    let defaults = report.config_changes.iter().filter(|change| change.asked.is_none()).count();
    if defaults > 0 {
        lines.push(format!(
            "config: {defaults} options that were not mentioned took their defaults (see report.json)"
        ));
    }
    lines.extend(line_numbers(&report.line_numbers.neutral));
    lines.extend(report.built.as_ref().and_then(built));
    let bases =
        [(&report.findings.whole_base, "all objects"), (&report.findings.base, "the objects involved")];
    lines.extend(bases.iter().filter_map(|(base, of)| {
        let base = base.as_ref().filter(|base| base.functions > 0)?;
        Some(share(base, of))
    }));
    let found = findings(&report.findings);
    lines.extend(if report.outcome == Outcome::Refused { shortened(found) } else { found });
    for reason in &report.nothing {
        lines.push(format!("nothing to patch in {reason}"));
    }
    lines.extend(report.payload.as_ref().map(payload));
    lines
}

/// How many lines of a kind a terminal shows of what a refused patch would change; the report has all.
const SHOWN_OF_A_REFUSAL: usize = 10;

/// The first lines of each kind: why a patch is refused must not scroll away behind hundreds of functions.
fn shortened(lines: Vec<String>) -> Vec<String> {
    let label = |line: &str| line.split(':').next().unwrap_or_default().to_owned();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for line in &lines {
        *counts.entry(label(line)).or_default() += 1;
    }
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut shown = Vec::new();
    for line in lines {
        let label = label(&line);
        let number = seen.entry(label.clone()).or_default();
        *number += 1;
        let more = counts[&label].saturating_sub(SHOWN_OF_A_REFUSAL);
        match *number {
            // A line that says "1 more" is as long as the one that it stands for.
            _ if more <= 1 || *number < SHOWN_OF_A_REFUSAL => shown.push(line),
            SHOWN_OF_A_REFUSAL => {
                shown.push(line);
                shown.push(format!("{label}: {more} more, see report.json"));
            }
            _ => {}
        }
    }
    shown
}

/// A payload in a line.
pub(crate) fn payload(payload: &PayloadFacts) -> String {
    format!("payload: {} bytes, build-id {}, depends on {}", payload.size, payload.build_id, payload.depends)
}

/// What the shared stages found, a line each.
pub(crate) fn findings(findings: &Findings) -> Vec<String> {
    let mut lines = Vec::new();
    for function in &findings.functions {
        lines.push(format!(
            "replaced: {} ({} -> {} bytes): {}",
            function.name, function.old_size, function.new_size, function.first_difference
        ));
    }
    lines.extend(findings.by_address.iter().map(by_address));
    lines.extend(expectations(&findings.functions));
    for hook in &findings.hooks {
        lines.push(format!("{} hook: {} in {}", hook.kind.name(), hook.function, hook.object));
    }
    let changes = &findings.changes;
    if findings.functions.is_empty() {
        lines.extend(changes.changed.iter().map(|f| format!("changed: {}: {}", f.name, f.first_difference)));
    }
    if findings.pieces.is_empty() {
        lines.extend(
            changes.new.iter().map(|function| format!("new: {}{}", function.name, at(&function.place))),
        );
    } else {
        lines.extend(findings.new_functions.iter().map(|function| format!("new: {}", function.name)));
    }
    for function in &changes.removed {
        lines.push(format!("removed: {}{}: the host keeps it", function.name, at(&function.place)));
    }
    for data in &changes.data {
        lines.push(format!("data: {}{}: {}", data.name, at(&data.place), data.what));
    }
    for change in &findings.init_changes {
        lines.push(format!("at next boot: {} in {}: {}", change.name, change.object, change.what));
    }
    lines
}

/// What is not looked up by its name.
fn by_address(one: &ByAddress) -> String {
    let what = match &one.by {
        Some(by) => format!("referred to by {by}"),
        None => "to be replaced".to_owned(),
    };
    format!("by address: {} at {:#x}, {what}: {}", one.name, one.address, one.because)
}

/// How much of the original is what was shipped.
fn share(base: &Base, of: &str) -> String {
    let mut text = format!("base: {} of {} functions of {of} are as shipped", base.identical, base.functions);
    let rest = [
        (base.other_content(), "differ in a text or constant only"),
        (base.not_compared, "were not compared"),
        (base.not_rebuilt.as_ref().map_or(0, Vec::len), "of the hypervisor were not rebuilt"),
    ];
    for (count, what) in rest.into_iter().filter(|(count, _)| *count > 0) {
        text.push_str(&format!("; {count} {what}"));
    }
    text
}

/// What of the replaced functions Xen is to find at apply, and of which it looks at nothing.
fn expectations(functions: &[Replacement]) -> Vec<String> {
    let mut lines = Vec::new();
    let left_out = |function: &Replacement| match function.expectation {
        Expectation::LeftOut(why) => Some(why),
        Expectation::Bytes(_) => None,
    };
    if let Some(why) = functions.first().and_then(left_out).filter(|why| why.is_general()) {
        return vec![format!("expectations left out: {why}")];
    }
    let filled = functions.iter().filter(|function| left_out(function).is_none()).count();
    if filled > 0 {
        lines.push(format!(
            "expected at apply: the shipped first bytes of {filled} of {} functions; if a REPLACE finds others, the host \
             is left unpatched",
            functions.len()
        ));
    }
    lines.extend(functions.iter().filter_map(|function| {
        left_out(function).map(|why| format!("expectation left out: {}: {why}", function.name))
    }));
    lines
}

/// Why: each changed function with its first difference in both versions, then everything else that the payload
/// holds with its reasons, then what goes through originals.
pub(crate) fn explanation(findings: &Findings) -> Vec<String> {
    let mut lines = Vec::new();
    for function in &findings.changes.changed {
        let difference = &function.first_difference;
        lines.push(format!(
            "{}{}: {}",
            function.name,
            at(&function.place),
            Because::changed(difference.clone())
        ));
        let sites = [("before", &difference.before), ("after", &difference.after)];
        lines.extend(sites.iter().filter_map(|(when, site)| Some(format!("  {when}: {}", site.as_ref()?))));
    }
    for piece in findings.pieces.iter().filter(|piece| !piece.because.is_changed()) {
        lines.push(format!("{}: {}", piece.label, piece.because));
    }
    for through in &findings.through_original {
        let how = match through.how {
            How::Call => "called",
            How::Jump => "jumped to",
            How::Address => "its address used",
        };
        let (function, by) = (&through.function, &through.by);
        lines.push(format!("goes through the original: {function}, {how} by {by} in {}", through.object));
    }
    lines
}

/// ` (FILE:LINE)`, where it is known.
fn at(place: &Place) -> String {
    match (&place.file, place.line) {
        (Some(file), Some(line)) => format!(" ({file}:{line})"),
        _ => String::new(),
    }
}

/// How the objects were made, where that is not the common way: one command for each.
fn built(way: &xsplice_build::Way) -> Option<String> {
    use xsplice_build::Way;
    match way {
        Way::Commands { same_text, .. } if same_text.is_empty() => None,
        Way::Commands { compiled, same_text } => Some(format!(
            "compiled: {compiled} of the {} objects that read the touched files; the others are the same program",
            compiled + same_text.len()
        )),
        Way::Make { because } => Some(format!("built by make: {because}")),
    }
}

/// How many files a line names.
const NAMED_FILES: usize = 3;

fn line_numbers(neutral: &[String]) -> Option<String> {
    let more = match neutral.len() {
        0 => return None,
        count if count > NAMED_FILES => format!(" and {} more", count - NAMED_FILES),
        _ => String::new(),
    };
    let named = neutral.iter().take(NAMED_FILES).map(String::as_str).collect::<Vec<_>>().join(", ");
    Some(format!("line numbers kept: {named}{more}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_does_not_scroll_away() {
        let lines = |count: usize| -> Vec<String> {
            let changed = (0..count).map(|n| format!("changed: f{n}: a: b"));
            changed.chain(["removed: g".into(), "at next boot: h in i".into()]).collect()
        };
        assert_eq!(shortened(lines(11)), lines(11));
        let short = shortened(lines(632));
        assert_eq!(short.len(), SHOWN_OF_A_REFUSAL + 3);
        assert_eq!(short[..SHOWN_OF_A_REFUSAL], lines(SHOWN_OF_A_REFUSAL)[..SHOWN_OF_A_REFUSAL]);
        assert_eq!(
            short[SHOWN_OF_A_REFUSAL..],
            ["changed: 622 more, see report.json", "removed: g", "at next boot: h in i"]
        );
    }
}
