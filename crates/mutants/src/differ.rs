//! What the differ says of a pair.

use std::collections::BTreeSet;

use xsplice_diff::{Compared, Correlated, Input, ObjectPair, Parts, Verdict};
use xsplice_report::{Diagnostic, Problems};

/// A problem that the differ found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Its code.
    pub code: String,
    /// What it says is wrong, with its place; why it matters is for people.
    pub text: String,
}

/// What the differ says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finding {
    /// Changed and new functions; with all names of each.
    pub functions: Vec<Vec<String>>,
    /// Functions that are gone.
    pub removed: BTreeSet<String>,
    /// Changes of boot code and boot data.
    pub init: BTreeSet<String>,
    /// Constant data that comes along as a new copy.
    pub copies: BTreeSet<String>,
    /// What it refuses.
    pub problems: BTreeSet<Problem>,
}

impl Finding {
    /// Compares two objects.
    pub fn of(path: &str, source: &str, base: &[u8], changed: &[u8]) -> Finding {
        let input = Input { path, source, assembler: false, base: Some(base), patched: Some(changed) };
        let mut finding = Finding::default();
        let pair = match ObjectPair::parse(input) {
            Ok(pair) => pair,
            Err(problems) => {
                finding.keep(&problems);
                return finding;
            }
        };
        let parts = match Parts::of(&pair) {
            Ok(parts) => parts,
            Err(problems) => {
                finding.keep(&problems);
                return finding;
            }
        };
        let compared = Compared::of(Correlated::of(&parts));
        for (id, verdict) in &compared.functions {
            if *verdict != Verdict::Same {
                let item = parts.patched.get(*id);
                finding.functions.push(std::iter::once(&item.name).chain(&item.aliases).cloned().collect());
            }
        }
        finding.removed.extend(compared.removed.iter().cloned());
        finding.init.extend(compared.init.iter().map(|change| change.name.clone()));
        finding.copies.extend(compared.correlated.new_copies().map(|id| parts.patched.get(id).name.clone()));
        finding.keep(&compared.problems);
        finding
    }

    fn keep(&mut self, problems: &Problems) {
        self.problems.extend(
            problems
                .0
                .iter()
                .map(|problem| Problem { code: problem.code.name.to_owned(), text: told(problem) }),
        );
    }

    /// Whether it says nothing at all.
    pub fn is_empty(&self) -> bool {
        self == &Finding::default()
    }
}

fn told(problem: &Diagnostic) -> String {
    format!("{} [{}]", problem.what, problem.place)
}
