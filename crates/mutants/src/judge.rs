//! Whether the differ agrees with what really changed.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::differ::{Finding, Problem};
use crate::text::plain;
use crate::truth::Truth;

/// The outcome of one object of a mutant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// Functions that changed and that the differ found.
    pub found: BTreeSet<String>,
    /// Boot code and boot data that changed, and that the differ found.
    pub init: BTreeSet<String>,
    /// What changed and the differ refuses, with the codes.
    pub refused: BTreeSet<(String, String)>,
    /// What changed, and the differ says nothing of.
    pub missed: BTreeSet<String>,
    /// What the differ says without ground.
    pub extra: BTreeSet<String>,
}

impl Judgement {
    /// Puts the outcomes of several objects together.
    pub fn merge(&mut self, other: Judgement) {
        self.found.extend(other.found);
        self.init.extend(other.init);
        self.refused.extend(other.refused);
        self.missed.extend(other.missed);
        self.extra.extend(other.extra);
    }
}

/// Judges what the differ says of one object.
pub fn judge(truth: &Truth, finding: &Finding) -> Judgement {
    let mut judgement = Judgement::default();
    misses(truth, finding, &mut judgement);
    extras(truth, finding, &mut judgement);
    judgement
}

/// Codes of the problems that name something.
fn naming<'f>(finding: &'f Finding, name: &str) -> Vec<&'f Problem> {
    let name = plain(name);
    finding.problems.iter().filter(|problem| words(&problem.text).any(|word| plain(word) == name)).collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'))
        .map(|word| word.trim_end_matches('.'))
}

fn init_has(finding: &Finding, name: &str) -> bool {
    finding.init.iter().any(|other| plain(other) == plain(name))
}

fn misses(truth: &Truth, finding: &Finding, judgement: &mut Judgement) {
    for function in &truth.functions {
        let name = &function.name;
        if finding.functions.iter().flatten().any(|other| other == name) {
            judgement.found.insert(name.clone());
        } else if function.init && init_has(finding, name) {
            judgement.init.insert(name.clone());
        } else {
            let names = std::iter::once(name).chain(&function.through);
            let refusals: Vec<&Problem> = names.flat_map(|name| naming(finding, name)).collect();
            let waits =
                !function.through.is_empty() && function.through.iter().all(|name| init_has(finding, name));
            if waits {
                judgement.init.insert(name.clone());
            } else if refusals.is_empty() {
                judgement.missed.insert(match function.through.iter().next() {
                    Some(data) => format!("{name}, which reads {data}"),
                    None => name.clone(),
                });
            }
            for problem in refusals {
                judgement.refused.insert((name.clone(), problem.code.clone()));
            }
        }
    }
    for datum in &truth.data {
        let name = &datum.name;
        let refusals = naming(finding, name);
        if init_has(finding, name) {
            judgement.init.insert(name.clone());
        } else if finding.copies.iter().any(|other| plain(other) == *name) {
            judgement.found.insert(name.clone());
        } else if refusals.is_empty() && !datum.by_users {
            judgement.missed.insert(format!("data {name}"));
        }
        for problem in refusals {
            judgement.refused.insert((name.clone(), problem.code.clone()));
        }
    }
    if truth.rest && finding.is_empty() {
        judgement.missed.insert("assembler outside of functions".to_owned());
    }
}

fn extras(truth: &Truth, finding: &Finding, judgement: &mut Judgement) {
    let functions: BTreeSet<&str> = truth.functions.iter().map(|function| function.name.as_str()).collect();
    for names in &finding.functions {
        if !names.iter().any(|name| functions.contains(name.as_str())) {
            judgement.extra.insert(names.join(" = "));
        }
    }
    let known: BTreeSet<String> = functions
        .iter()
        .map(|name| plain(name))
        .chain(truth.data.iter().map(|datum| datum.name.clone()))
        .chain(truth.leading.iter().cloned())
        .collect();
    for name in &finding.init {
        if !known.contains(&plain(name)) {
            judgement.extra.insert(format!("boot: {name}"));
        }
    }
    for problem in &finding.problems {
        let grounded = words(&problem.text).any(|word| known.contains(&plain(word)));
        if !grounded && !truth.rest {
            judgement.extra.insert(format!("{}: {}", problem.code, problem.text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::truth::{Datum, Function};

    fn truth() -> Truth {
        Truth {
            functions: [
                Function { name: "f".into(), init: false, through: BTreeSet::new() },
                Function { name: "start".into(), init: true, through: BTreeSet::new() },
            ]
            .into(),
            data: [Datum { name: "count".into(), init: false, constant: false, by_users: false }].into(),
            ..Truth::default()
        }
    }

    fn finding() -> Finding {
        Finding {
            functions: vec![vec!["f".into()]],
            init: ["start".to_owned()].into(),
            problems: [Problem {
                code: "data-changed".into(),
                text: "initialised data count.3 changed [a.c:1, count.3]".into(),
            }]
            .into(),
            ..Finding::default()
        }
    }

    #[test]
    fn agreement_is_neither_a_miss_nor_an_extra() {
        let judgement = judge(&truth(), &finding());
        assert!(judgement.missed.is_empty() && judgement.extra.is_empty(), "{judgement:?}");
        assert_eq!(judgement.refused.len(), 1);
    }

    #[test]
    fn each_thing_that_the_differ_leaves_out_is_missed() {
        let judgement = judge(&truth(), &Finding::default());
        assert_eq!(judgement.missed.len(), 3);
    }

    #[test]
    fn each_thing_that_did_not_change_is_extra() {
        let mut finding = finding();
        finding.functions.push(vec!["g".into()]);
        finding.init.insert("stop".into());
        finding.problems.insert(Problem { code: "x".into(), text: "data other changed".into() });
        assert_eq!(judge(&truth(), &finding).extra.len(), 3);
    }
}
