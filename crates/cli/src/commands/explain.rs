//! `xsplice explain`.

use serde::Serialize;
use xsplice_report::{Code, Diagnostic, Outcome, Problems};

use crate::args::Explain;
use crate::explanations::{self, Explanation};
use crate::{codes, render};

/// One line of the list.
#[derive(Debug, Serialize)]
struct Listed {
    code: &'static str,
    kind: xsplice_report::Kind,
    summary: &'static str,
}

pub(crate) fn run(args: &Explain, json: bool) -> Outcome {
    if args.list {
        list(json);
        return Outcome::Done;
    }
    let mut found: Vec<Explanation> = Vec::new();
    let mut problems = Problems::new();
    for name in &args.codes {
        // As messages have them, brackets and all.
        let name = name.trim_start_matches('[').trim_end_matches(']');
        match explanations::explain(name) {
            Some(explanation) => found.push(explanation),
            None => problems.push(unknown(name)),
        }
    }
    if problems.0.is_empty() || !json {
        show(&found, json);
    }
    render::problems(&problems);
    problems.outcome()
}

fn list(json: bool) {
    let all = explanations::all().map(|&Code { name, kind, summary }| Listed { code: name, kind, summary });
    if json {
        render::json(&all.collect::<Vec<_>>());
        return;
    }
    let width = explanations::all().map(|code| code.name.len()).max().unwrap_or_default();
    for one in all {
        render::data(&format!("{:width$}  {:8} {}", one.code, render::kind(one.kind), one.summary));
    }
}

fn show(found: &[Explanation], json: bool) {
    if json {
        render::json(&found);
        return;
    }
    for (number, one) in found.iter().enumerate() {
        if number > 0 {
            render::data("");
        }
        render::data(&format!("{} ({}): {}", one.code, render::kind(one.kind), one.summary));
        for (label, body) in [("cause", &one.cause), ("example", &one.example), ("way out", &one.way_out)] {
            for line in wrapped(&format!("{label}: {body}")) {
                render::data(&line);
            }
        }
    }
}

/// Columns of the terminal that a text uses.
const WIDTH: usize = 100;

/// A text in lines of a terminal, all but the first indented; code stays as it is.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for paragraph in text.lines() {
        if paragraph.starts_with(' ') || paragraph.is_empty() {
            lines.push(if paragraph.is_empty() { String::new() } else { format!("  {paragraph}") });
            continue;
        }
        let mut line = String::new();
        for word in paragraph.split(' ') {
            let indent = if lines.is_empty() { 0 } else { 2 };
            if !line.is_empty() && indent + line.chars().count() + 1 + word.chars().count() > WIDTH {
                lines.push(format!("{:indent$}{line}", ""));
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        let indent = if lines.is_empty() { 0 } else { 2 };
        lines.push(format!("{:indent$}{line}", ""));
    }
    lines
}

fn unknown(name: &str) -> Diagnostic {
    let nearest = explanations::nearest(name);
    let advice = if nearest.is_empty() {
        "`xsplice explain --list` lists all codes.".to_owned()
    } else {
        format!("Near are {}; `xsplice explain --list` lists all.", nearest.join(", "))
    };
    Diagnostic::new(codes::USAGE, format!("no code is called {name:?}")).advice(advice)
}
