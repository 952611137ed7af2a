//! The terminal's renderer: people read standard error, programs standard output.
#![expect(clippy::print_stdout, reason = "the one place where this program writes to its streams")]

use std::collections::BTreeMap;

use serde::Serialize;
use xsplice_report::{Diagnostic, Kind, Problems};

/// A line for people.
pub(crate) fn line(text: &str) {
    eprintln!("{text}");
}

/// Data.
pub(crate) fn data(text: &str) {
    print!("{text}");
    if !text.ends_with('\n') {
        println!();
    }
}

/// Data as JSON.
pub(crate) fn json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => println!("{text}"),
        Err(error) => line(&format!("error: the report cannot be written as JSON: {error}")),
    }
}

/// How many problems of one code a terminal shows; the report has all.
const SHOWN_OF_A_CODE: usize = 6;

/// All problems: what, then where, why, and what to do. A changed layout comes first, since most others of the
/// same run are its consequences.
pub(crate) fn problems(problems: &Problems) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut sorted: Vec<&Diagnostic> = problems.0.iter().collect();
    sorted.sort_by_key(|problem| problem.code.name != "layout-changed");
    for problem in sorted {
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
    for function in &report.functions {
        lines.push(format!(
            "replaced: {} ({} -> {} bytes): {}",
            function.name, function.old_size, function.new_size, function.first_difference
        ));
    }
    for hook in &report.hooks {
        lines.push(format!("{} hook: {} in {}", hook.kind.name(), hook.function, hook.object));
    }
    for function in &report.new_functions {
        lines.push(format!("new: {}", function.name));
    }
    for change in &report.init_changes {
        lines.push(format!("at next boot: {} in {}: {}", change.name, change.object, change.what));
    }
    for reason in &report.nothing {
        lines.push(format!("nothing to patch in {reason}"));
    }
    if let Some(payload) = &report.payload {
        lines.push(format!(
            "payload: {} bytes, build-id {}, depends on {}",
            payload.size, payload.build_id, payload.depends
        ));
    }
    lines
}
