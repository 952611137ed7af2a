//! Why something is in a payload.

use std::fmt;

use serde::Serialize;

use crate::Difference;

/// Why something is in a payload: a chain of links, from the thing itself to something that the patch changed.
///
/// Each link is about what the link before it names; the first one is about the thing itself. What makes a chain
/// knows all of it: only [`Link::Changed`], [`Link::New`] and [`Link::Hook`] need no link behind them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Because {
    links: Vec<Link>,
}

/// One link of a chain of reasons.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(tag = "because", rename_all = "kebab-case")]
pub enum Link {
    /// Its meaning differs between the original and the patched object.
    Changed {
        /// What differs first.
        first_difference: Difference,
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
        /// The function, or other code, that the entry points into.
        function: String,
    },
}

impl Because {
    /// It changed.
    pub fn changed(first_difference: Difference) -> Because {
        Link::Changed { first_difference }.into()
    }

    /// The patch asks for it as a hook of that kind.
    pub fn hook(hook: impl Into<String>) -> Because {
        Link::Hook { hook: hook.into() }.into()
    }

    /// Something refers to it; the chain from there on is [`Because::behind`].
    pub fn needed_by(by: impl Into<String>) -> Because {
        Link::NeededBy { by: by.into() }.into()
    }

    /// It describes code; the chain from there on is [`Because::behind`].
    pub fn describes(function: impl Into<String>) -> Because {
        Link::Describes { function: function.into() }.into()
    }

    /// These links, and behind them those of what the last of them names.
    pub fn behind(mut self, next: &Because) -> Because {
        self.links.extend(next.links.iter().cloned());
        self
    }

    /// The links; never empty.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// Whether it is included for its own change.
    pub fn is_changed(&self) -> bool {
        matches!(self.links.first(), Some(Link::Changed { .. }))
    }

    /// Whether the chain ends at something that the patch changed or brought, as every finished one does.
    pub fn is_complete(&self) -> bool {
        matches!(self.links.last(), Some(Link::Changed { .. } | Link::New | Link::Hook { .. }))
    }
}

impl From<Link> for Because {
    fn from(link: Link) -> Because {
        Because { links: vec![link] }
    }
}

/// The whole chain in one line, without source lines: `needed by a, which is needed by b, which changed: ...`.
impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, link) in self.links.iter().enumerate() {
            let first = index == 0;
            if !first {
                f.write_str(", which ")?;
            }
            let is = if first { "" } else { "is " };
            match link {
                Link::Changed { first_difference } => write!(f, "changed: {}", first_difference.what)?,
                Link::New => write!(f, "{is}new: the original has nothing that corresponds to it")?,
                Link::Hook { hook } => {
                    let asks = if first { "the patch asks for it" } else { "the patch asks for" };
                    write!(f, "{asks} as {hook} hook")?;
                }
                Link::NeededBy { by } => write!(f, "{is}needed by {by}")?,
                Link::Describes { function } => write!(f, "describes code of {function}")?,
            }
        }
        Ok(())
    }
}
