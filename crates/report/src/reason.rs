//! Why something is in a payload.

use std::fmt;

use serde::Serialize;

/// One link of a chain of reasons; the chain ends at something that the patch changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(tag = "because", rename_all = "kebab-case")]
pub enum Because {
    /// The function's meaning differs between the original and the patched object.
    Changed {
        /// The first difference, for people.
        first_difference: String,
    },
    /// The original object has nothing that corresponds to it.
    New,
    /// The patch asks for it to be called by the loader.
    Hook {
        /// The kind of hook: load, unload, preapply and so on.
        hook: String,
    },
    /// Something included refers to it, and the hypervisor does not have it.
    NeededBy {
        /// Who refers to it.
        by: String,
    },
    /// A special-section entry that describes included code.
    Describes {
        /// The function that the entry points into.
        function: String,
    },
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Because::Changed { first_difference } => write!(f, "changed: {first_difference}"),
            Because::New => write!(f, "new: the original has nothing that corresponds to it"),
            Because::Hook { hook } => write!(f, "the patch asks for it as {hook} hook"),
            Because::NeededBy { by } => write!(f, "needed by {by}"),
            Because::Describes { function } => write!(f, "describes code of {function}"),
        }
    }
}
