//! The table of what became of all mutants.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::desk::{Outcome, Record};
use crate::mutate::Kind;
use crate::text::plain;

/// Numbers of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Compiled, and part of the configuration.
    pub compiled: usize,
    /// Changed code found, and nothing refused.
    pub found: usize,
    /// Only boot code or boot data.
    pub init: usize,
    /// With a refusal that names what changed.
    pub refused: usize,
    /// The compiler makes the same of both.
    pub equal: usize,
    /// Something that the differ does not say.
    pub missed: usize,
    /// Something that the differ says without ground.
    pub extra: usize,
    /// Not counted above: does not compile.
    pub not_compiled: usize,
    /// Not counted above: left out by the configuration, or not used.
    pub not_built: usize,
}

impl Counts {
    fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::NotCompiled(_) => self.not_compiled += 1,
            Outcome::NotBuilt => self.not_built += 1,
            Outcome::Equal { extra, .. } => {
                self.compiled += 1;
                self.equal += 1;
                self.extra += usize::from(!extra.is_empty());
            }
            Outcome::Judged(judgement) => {
                self.compiled += 1;
                let bad = !judgement.missed.is_empty() || !judgement.extra.is_empty();
                self.missed += usize::from(!judgement.missed.is_empty());
                self.extra += usize::from(!judgement.extra.is_empty());
                if bad {
                    // Counted where it went wrong.
                } else if !judgement.refused.is_empty() {
                    self.refused += 1;
                } else if !judgement.found.is_empty() {
                    self.found += 1;
                } else {
                    self.init += 1;
                }
            }
        }
    }
}

/// The totals of all records.
pub fn totals(records: &[Record]) -> Counts {
    let mut counts = Counts::default();
    for record in records {
        counts.add(&record.outcome);
    }
    counts
}

/// A mutant in one line.
pub fn line(record: &Record) -> String {
    let mutant = &record.mutant;
    let token = |text: &str| {
        let words: Vec<&str> = text.split_whitespace().collect();
        let words = words.join(" ");
        let cut: String = words.chars().take(60).collect();
        format!("`{cut}{}`", if cut == words { "" } else { "…" })
    };
    format!(
        "{}:{} {}: {} → {}",
        mutant.file,
        mutant.line,
        mutant.holder.name(),
        token(&mutant.before),
        token(&mutant.after)
    )
}

/// What went wrong with a mutant, in one line; none where nothing did.
pub fn trouble(record: &Record) -> Option<String> {
    let list = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(", ");
    match &record.outcome {
        Outcome::Judged(judgement) if !judgement.missed.is_empty() || !judgement.extra.is_empty() => {
            Some(format!(
                "missed: {}; extra: {}; found: {}",
                list(&judgement.missed),
                list(&judgement.extra),
                list(&judgement.found)
            ))
        }
        Outcome::Equal { extra, .. } if !extra.is_empty() => Some(format!("extra: {}", extra.join(", "))),
        _ => None,
    }
}

/// The functions that were found, where the one that holds the token is not among them.
fn found_elsewhere(record: &Record) -> Option<String> {
    let Outcome::Judged(judgement) = &record.outcome else { return None };
    let name = record.mutant.holder.name();
    let named: Vec<&String> = judgement.found.iter().chain(&judgement.init).collect();
    let itself = named.iter().any(|other| plain(other).split('.').next() == Some(name))
        || judgement.refused.iter().any(|(other, _)| other == name);
    if itself || named.is_empty() {
        return None;
    }
    let shown: Vec<&str> = named.iter().take(6).map(|name| name.as_str()).collect();
    let more = if named.len() > 6 { format!(" and {} more", named.len() - 6) } else { String::new() };
    Some(format!("{}{more}", shown.join(", ")))
}

/// The document.
pub fn document(records: &[Record], tree: &str, seed: u64) -> String {
    let mut by_kind: BTreeMap<Kind, Counts> = BTreeMap::new();
    for record in records {
        by_kind.entry(record.mutant.kind).or_default().add(&record.outcome);
    }
    let total = totals(records);
    let files: BTreeSet<&str> = records.iter().map(|record| record.mutant.file.as_str()).collect();
    let mut out = String::new();
    let _ = writeln!(out, "# Mutants\n");
    let _ = writeln!(
        out,
        "One-token changes of {tree}, made by `cargo xtask mutants --seed {seed}` over {} files. What a change means \
         is told from the compiler's assembler text of both sides, of which both objects are assembled.\n",
        files.len()
    );
    let _ = writeln!(
        out,
        "**{} compiled: {} missed, {} with functions too many.**\n",
        total.compiled, total.missed, total.extra
    );
    let _ = writeln!(
        out,
        "| kind | compiled | found | boot only | refused | proved equal | missed | too many | (not compiled) | (not built) |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    );
    let mut row = |name: &str, c: &Counts| {
        let _ = writeln!(
            out,
            "| {name} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            c.compiled, c.found, c.init, c.refused, c.equal, c.missed, c.extra, c.not_compiled, c.not_built
        );
    };
    for kind in Kind::ALL {
        row(kind.name(), by_kind.get(&kind).unwrap_or(&Counts::default()));
    }
    row("**all**", &total);
    lists(&mut out, records);
    out
}

fn lists(out: &mut String, records: &[Record]) {
    let mut codes: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut equal, mut refused, mut bad, mut elsewhere) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for record in records {
        if let Some(trouble) = trouble(record) {
            bad.push(format!("- {}: {trouble}", line(record)));
        }
        elsewhere.extend(found_elsewhere(record).map(|names| format!("- {}: {names}", line(record))));
        match &record.outcome {
            Outcome::Equal { to_the_letter, .. } => {
                let how = if *to_the_letter { "" } else { " (up to the numbers of labels and copies)" };
                equal.push(format!("- {}{how}", line(record)));
            }
            Outcome::Judged(judgement) if !judgement.refused.is_empty() => {
                let named: Vec<String> =
                    judgement.refused.iter().map(|(name, code)| format!("{code} {name}")).collect();
                refused.push(format!("- {}: {}", line(record), named.join(", ")));
                let of_this: BTreeSet<&str> =
                    judgement.refused.iter().map(|(_, code)| code.as_str()).collect();
                for code in of_this {
                    *codes.entry(code).or_default() += 1;
                }
            }
            _ => {}
        }
    }
    if !bad.is_empty() {
        let _ = writeln!(out, "\n## Missed, or too many\n\n{}", bad.join("\n"));
    }
    if !elsewhere.is_empty() {
        let _ = writeln!(
            out,
            "\n## Found in other functions than the one that holds the token\n\nIt is inlined there, or its data is \
             used there.\n\n{}",
            elsewhere.join("\n")
        );
    }
    let _ = writeln!(out, "\n## Refused, naming what changed\n");
    for (code, count) in codes {
        let _ = writeln!(out, "- {code}: {count}");
    }
    let _ = writeln!(out, "\n{}", refused.join("\n"));
    let _ = writeln!(out, "\n## Proved equal by the compiler\n\n{}", equal.join("\n"));
}
