//! What went wrong, where, why, and what to do about it.

use std::fmt;

use serde::Serialize;

use crate::Outcome;

/// What a diagnostic means for the outcome of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Usage, input, build or I/O: ends as [`Outcome::Failed`].
    Failure,
    /// The change must not become a payload: ends as [`Outcome::Refused`].
    Refusal,
    /// The payload is good, but somebody should know this.
    Warning,
}

/// The stable name of one kind of problem, such as `layout-changed`.
///
/// Codes are constants of the crate that raises them, each with the sentence that lists show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code {
    /// Lower case words joined by `-`; never changes once released.
    pub name: &'static str,
    /// What it means for the outcome.
    pub kind: Kind,
    /// One sentence without the particulars of a case.
    pub summary: &'static str,
}

impl Code {
    /// A code for usage, input, build and I/O problems.
    pub const fn failure(name: &'static str, summary: &'static str) -> Code {
        Code { name, kind: Kind::Failure, summary }
    }

    /// A code for a change, base or payload that is refused.
    pub const fn refusal(name: &'static str, summary: &'static str) -> Code {
        Code { name, kind: Kind::Refusal, summary }
    }

    /// A code for something that does not stop the payload.
    pub const fn warning(name: &'static str, summary: &'static str) -> Code {
        Code { name, kind: Kind::Warning, summary }
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}

/// Where a problem stands. Every part that is known is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// An input file as the user named it, or a file of the tree relative to the tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line in `file`, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// An object of the build, relative to the tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// A section of that object or of a payload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section: Option<String>,
    /// Bytes from the start of the section, or of the function where one is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// A function or data symbol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symbol: Option<String>,
}

impl Place {
    /// Nowhere in particular.
    pub fn none() -> Place {
        Place::default()
    }

    /// A file as the user named it.
    pub fn file(file: impl Into<String>) -> Place {
        Place { file: Some(file.into()), ..Place::default() }
    }

    /// An object of the build, relative to the tree.
    pub fn object(object: impl Into<String>) -> Place {
        Place { object: Some(object.into()), ..Place::default() }
    }

    /// Adds a line, counted from 1.
    pub fn line(mut self, line: u32) -> Place {
        self.line = Some(line);
        self
    }

    /// Adds a source file (and keeps the rest).
    pub fn source(mut self, file: impl Into<String>, line: Option<u32>) -> Place {
        self.file = Some(file.into());
        self.line = line;
        self
    }

    /// Adds a section.
    pub fn section(mut self, section: impl Into<String>) -> Place {
        self.section = Some(section.into());
        self
    }

    /// Adds an offset in bytes.
    pub fn offset(mut self, offset: u64) -> Place {
        self.offset = Some(offset);
        self
    }

    /// Adds a function or data symbol.
    pub fn symbol(mut self, symbol: impl Into<String>) -> Place {
        self.symbol = Some(symbol.into());
        self
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(file) = &self.file {
            parts.push(match self.line {
                Some(line) => format!("{file}:{line}"),
                None => file.clone(),
            });
        }
        if let Some(symbol) = &self.symbol {
            parts.push(symbol.clone());
        }
        if let Some(object) = &self.object {
            parts.push(object.clone());
        }
        if let Some(section) = &self.section {
            parts.push(format!("section {section}"));
        }
        if let Some(offset) = self.offset {
            parts.push(format!("offset {offset:#x}"));
        }
        f.write_str(&parts.join(", "))
    }
}

/// One problem: one line of what, then where, why and what to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Diagnostic {
    /// Its stable name.
    pub code: Code,
    /// What it means for the outcome; the code's own unless a caller softened it.
    pub kind: Kind,
    /// One line, no full stop.
    pub what: String,
    /// Where it stands.
    #[serde(rename = "where")]
    pub place: Place,
    /// Why that is a problem: what would happen, in a sentence or two. May be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// What the reader can do. Never empty for a refusal.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub advice: String,
}

impl Diagnostic {
    /// A diagnostic with nothing but its first line.
    pub fn new(code: Code, what: impl Into<String>) -> Diagnostic {
        Diagnostic {
            code,
            kind: code.kind,
            what: what.into(),
            place: Place::none(),
            why: String::new(),
            advice: String::new(),
        }
    }

    /// Says where.
    pub fn at(mut self, place: Place) -> Diagnostic {
        self.place = place;
        self
    }

    /// Says why it is a problem.
    pub fn why(mut self, why: impl Into<String>) -> Diagnostic {
        self.why = why.into();
        self
    }

    /// Says what to do.
    pub fn advice(mut self, advice: impl Into<String>) -> Diagnostic {
        self.advice = advice.into();
        self
    }
}

/// All problems of a stage: collected before failing, in a fixed order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Problems(pub Vec<Diagnostic>);

impl Problems {
    /// None yet.
    pub fn new() -> Problems {
        Problems::default()
    }

    /// All values, or all problems.
    ///
    /// # Errors
    /// The problems of every result that has some.
    pub fn collect<T>(results: impl IntoIterator<Item = Result<T, Problems>>) -> Result<Vec<T>, Problems> {
        let mut problems = Problems::new();
        let mut values = Vec::new();
        for result in results {
            match result {
                Ok(value) => values.push(value),
                Err(more) => problems.extend(more),
            }
        }
        if problems.0.is_empty() { Ok(values) } else { Err(problems) }
    }

    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    /// Whether nothing stops the payload: empty, or warnings only.
    pub fn is_harmless(&self) -> bool {
        self.0.iter().all(|d| d.kind == Kind::Warning)
    }

    /// The outcome that these problems ask for: failures weigh more than refusals, since they may hide them.
    pub fn outcome(&self) -> Outcome {
        let has = |kind| self.0.iter().any(|d| d.kind == kind);
        if has(Kind::Failure) {
            Outcome::Failed
        } else if has(Kind::Refusal) {
            Outcome::Refused
        } else {
            Outcome::Done
        }
    }

    /// Sorts and removes repetitions, so that the order never depends on threads.
    pub fn normalise(&mut self) {
        self.0.sort();
        self.0.dedup();
    }
}

impl From<Diagnostic> for Problems {
    fn from(diagnostic: Diagnostic) -> Problems {
        Problems(vec![diagnostic])
    }
}

impl Extend<Diagnostic> for Problems {
    fn extend<I: IntoIterator<Item = Diagnostic>>(&mut self, iter: I) {
        self.0.extend(iter);
    }
}

impl IntoIterator for Problems {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
