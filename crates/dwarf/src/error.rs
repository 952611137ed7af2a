//! Why debug information could not be read.

use xsplice_report::{Diagnostic, Place};

use crate::codes;

/// Why debug information could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not an ELF file that can be read at all.
    #[error("not a readable ELF64 object: {0}")]
    Elf(String),
    /// Not a relocatable object of a supported machine.
    #[error("not a relocatable 64-bit object for x86-64 or arm64")]
    NotRelocatable,
    /// A debug section is compressed (`SHF_COMPRESSED` or `.zdebug_*`).
    #[error("debug section {0} is compressed")]
    Compressed(String),
    /// Type units, split units or several sections of one name.
    #[error("debug information in a form that is not supported: {0}")]
    Unsupported(&'static str),
    /// A relocation of a debug section that no compiler is known to write.
    #[error("relocation of type {kind} at {offset:#x} of {section} is not supported")]
    Relocation {
        /// The debug section that is relocated.
        section: String,
        /// Bytes from the start of that section.
        offset: u64,
        /// The ELF relocation type of the machine.
        kind: u32,
    },
    /// Not DWARF as its standard describes it.
    #[error("malformed DWARF: {0}")]
    Malformed(String),
    /// An entry that refers to a type which is not there.
    #[error("malformed DWARF: an entry refers to a type at {0:#x} of .debug_info, where none is")]
    NoType(u64),
    /// Types that hold themselves by value, or are nested deeper than any real source.
    #[error("malformed DWARF: the type at {0:#x} of .debug_info holds itself or is nested too deeply")]
    Nesting(u64),
}

impl Error {
    /// The diagnostic for an object, named relative to the tree.
    pub fn diagnostic(&self, object: &str) -> Diagnostic {
        let advice = match self {
            Error::Compressed(_) => "Build without compressed debug sections: -gz=none.",
            Error::Unsupported(_) => "Build with plain -g: no -gsplit-dwarf and no -fdebug-types-section.",
            _ => "Build the object again; if it stays like this, its compiler is not supported.",
        };
        Diagnostic::new(codes::DEBUG_INFO_UNREADABLE, self.to_string())
            .at(Place::object(object))
            .why("Layouts of types are compared by their debug information.")
            .advice(advice)
    }
}

impl From<gimli::Error> for Error {
    fn from(error: gimli::Error) -> Error {
        Error::Malformed(error.to_string())
    }
}

impl From<object::Error> for Error {
    fn from(error: object::Error) -> Error {
        Error::Elf(error.to_string())
    }
}
