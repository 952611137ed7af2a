//! What differs between the original and the patched version of something.

use std::fmt;

use serde::Serialize;

/// What sort of thing differs first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DifferenceKind {
    /// An instruction, or what it refers to.
    Code,
    /// The parts that the compiler split a function into.
    Fragments,
    /// A bug frame: WARN, BUG, an assertion, or a function that runs in an exception handler.
    BugFrame,
    /// An alternative: its place, the feature that selects it, or its replacement code.
    Alternative,
    /// A call that boot makes direct.
    AltCall,
    /// An exception table entry: its place, or where it goes on.
    ExceptionEntry,
    /// Bytes or references of data.
    Data,
}

/// Where one version of a function differs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Site {
    /// The fragment of the function, such as `cold`; empty for its main part.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fragment: String,
    /// Bytes from the start of that fragment.
    pub offset: u64,
    /// The instruction there in AT&T syntax, with what it refers to by name.
    pub instruction: String,
    /// Its source file, relative to the tree where the build says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Its line in `file`, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
}

impl Site {
    /// `FILE:LINE`, where it is known.
    pub fn source(&self) -> Option<String> {
        Some(match (self.file.as_deref()?, self.line) {
            (file, Some(line)) => format!("{file}:{line}"),
            (file, None) => file.to_owned(),
        })
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(source) = self.source() {
            write!(f, "{source}: ")?;
        }
        if !self.fragment.is_empty() {
            write!(f, ".{}", self.fragment)?;
        }
        write!(f, "+{:#x}: {}", self.offset, self.instruction)
    }
}

/// The first difference of something, before and after.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Difference {
    /// What sort of thing it is.
    pub kind: DifferenceKind,
    /// One line of words, no full stop, no source lines.
    pub what: String,
    /// Where it is in the original, if it is there at all and is a place in code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Site>,
    /// Where it is in the patched version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Site>,
}

impl Difference {
    /// A difference without places in code.
    pub fn new(kind: DifferenceKind, what: impl Into<String>) -> Difference {
        Difference { kind, what: what.into(), before: None, after: None }
    }
}

/// The words, and the source lines of both versions.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        let source = |site: &Option<Site>| site.as_ref().and_then(Site::source);
        match (source(&self.before), source(&self.after)) {
            (Some(before), Some(after)) if before != after => write!(f, " ({before} before, {after} after)"),
            (_, Some(after)) => write!(f, " ({after})"),
            (Some(before), None) => write!(f, " ({before} before)"),
            (None, None) => Ok(()),
        }
    }
}
