//! Refusals that an expert lets through.

use std::collections::BTreeSet;
use std::fmt;

use crate::{Code, Diagnostic, Kind, Problems};

/// A refusal that is to be a warning: all of a code, or those about one function or structure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance {
    /// The refusal's code.
    pub code: Code,
    /// The symbol that its place names; any where there is none.
    pub name: Option<String>,
}

impl Allowance {
    /// Whether it is about this problem.
    fn fits(&self, problem: &Diagnostic) -> bool {
        // Places name a structure with or without its kind, a function with or without its file.
        let plain = |name: &str| name.rsplit([' ', '#']).next().unwrap_or_default().to_owned();
        let named = |name: &String| problem.place.symbol.as_deref().is_some_and(|s| plain(s) == plain(name));
        problem.code == self.code && problem.kind == Kind::Refusal && self.name.as_ref().is_none_or(named)
    }
}

impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{}:{name}", self.code.name),
            None => f.write_str(self.code.name),
        }
    }
}

/// What allowances did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    /// What was let through, each as `CODE` or `CODE:SYMBOL`.
    pub refusals: BTreeSet<String>,
    /// Allowances that no problem fits.
    pub unused: Vec<Allowance>,
}

impl Problems {
    /// Makes warnings of the refusals that somebody allows; their text says so.
    pub fn allow(&mut self, allowances: &[Allowance]) -> Allowed {
        let mut used = vec![false; allowances.len()];
        let mut refusals = BTreeSet::new();
        for problem in &mut self.0 {
            let fitting: Vec<usize> =
                (0..allowances.len()).filter(|&i| allowances[i].fits(problem)).collect();
            let Some(&first) = fitting.first() else { continue };
            fitting.iter().for_each(|&index| used[index] = true);
            problem.kind = Kind::Warning;
            problem.what.push_str(&format!(" (let through by --allow {})", allowances[first]));
            // Without a kind in front: words are told apart by spaces where several stand in one line.
            let name =
                problem.place.symbol.as_ref().map(|name| name.rsplit(' ').next().unwrap_or(name).to_owned());
            refusals.insert(Allowance { code: problem.code, name }.to_string());
        }
        let unused = allowances.iter().zip(used).filter(|(_, used)| !used).map(|(one, _)| one.clone());
        Allowed { refusals, unused: unused.collect() }
    }
}
