//! Type layouts and source lines from the DWARF of relocatable objects.
//!
//! What is read: ELF64 little-endian `ET_REL` objects of gcc and clang with DWARF 2 to 5 (4 and 5 are what
//! compilers write for C, the older ones come from assemblers), uncompressed, not split and without type
//! units. Anything else is an [`Error`], never a guess.
//!
//! [`layout_changes`] compares what two builds of one source say about types, by meaning: the order of
//! entries, their numbering, qualifiers and the compilation unit do not count. A type that is held by
//! value is compared down to its members, one behind a pointer by its name only, since it is then
//! reported under that name itself.
//!
//! Work is linear in the size of the input apart from sorting, recursion is limited, and hostile input
//! ends in an [`Error`].

mod agree;
mod change;
pub mod codes;
mod compare;
mod describe;
mod elf;
mod error;
mod flatten;
mod hash;
mod info;
mod layout;
mod life;
mod lines;
mod lookup;
mod model;
mod parse;
mod prototype;
mod set_up;
mod shape;
mod signature;

pub use change::{Harmless, LayoutChange, Room, TypeKind, What, render};
pub use compare::layout_changes;
pub use error::Error;
pub use info::DebugInfo;
pub use layout::{Field, Layout};
pub use life::{Life, Live, life};
pub use prototype::TypeChange;
pub use set_up::SetUp;
pub use signature::Signature;
