//! Says which functions and variables of two objects differ in meaning, from the text of binutils' `objdump`
//! and `readelf` alone.
//!
//! For tests. It shares no code with the parts of xsplice that build payloads, not even a library that reads
//! ELF or decodes instructions, so that it does not share their errors either. Where they are fast, it is
//! simple: every function becomes lines of text, and lines are compared.
//!
//! What counts as meaning:
//! - instructions without addresses: a jump goes to the n-th instruction of its function, a reference to a
//!   name, a string or constant by content, or to bytes without a name by content, and so on through tables;
//! - entries of special sections that describe a function, with alternative and fixup code ([`special`]);
//! - compilers' numbers (`warned.2`, `CSWTCH.177`, `f.part.0`) do not count. A numbered read-only variable is
//!   what it contains. Other numbered items are matched by name and users ([`pair`]);
//! - a function and its `.cold` part are one; clones (`.part`, `.isra`, `.constprop`) are functions;
//! - where something stands, how it is aligned, in which section of the same kind, and whether its symbol is
//!   local or global does not count.

mod canon;
mod class;
mod listing;
mod model;
mod object;
mod pair;
mod same;
mod special;
mod tools;
mod verdict;

use std::path::{Path, PathBuf};

pub use tools::OracleError;
pub use verdict::{DataChange, DataClass, Verdict, What};

use crate::{object::Object, tools::Tools};

/// The judge. It keeps nothing between calls.
#[derive(Debug, Clone)]
pub struct Oracle {
    tools: Tools,
}

impl Default for Oracle {
    fn default() -> Oracle {
        Oracle::with_tools("objdump", "readelf")
    }
}

impl Oracle {
    /// A judge that uses these programs; names without a slash are looked up in PATH.
    pub fn with_tools(objdump: impl Into<PathBuf>, readelf: impl Into<PathBuf>) -> Oracle {
        Oracle { tools: Tools { objdump: objdump.into(), readelf: readelf.into() } }
    }

    /// Compares two relocatable x86-64 objects.
    ///
    /// # Errors
    /// When a tool is missing or fails, prints what cannot be read, or a file is no such object.
    pub fn judge(&self, base: &Path, patched: &Path) -> Result<Verdict, OracleError> {
        let base = Object::read(&self.tools, base)?;
        Ok(verdict::judge(&base, &Object::read(&self.tools, patched)?))
    }

    /// The verdict on an object that the base does not have: everything in it is new.
    ///
    /// # Errors
    /// As for [`Oracle::judge`].
    pub fn judge_new(&self, patched: &Path) -> Result<Verdict, OracleError> {
        Ok(verdict::judge(&Object::empty(), &Object::read(&self.tools, patched)?))
    }

    /// The verdict on an object that the patched side does not have any more.
    ///
    /// # Errors
    /// As for [`Oracle::judge`].
    pub fn judge_removed(&self, base: &Path) -> Result<Verdict, OracleError> {
        Ok(verdict::judge(&Object::read(&self.tools, base)?, &Object::empty()))
    }
}
