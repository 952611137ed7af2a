//! Relocatable objects and the shipped hypervisor's symbols as typed models.
//!
//! Bytes in, values out: nothing here reads a file. Everything is checked once, at the door, so that later
//! stages can rely on indexes, bounds and names.

mod class;
pub mod codes;
mod hook;
mod hypervisor;
mod model;
mod names;
mod parse;

pub use class::{Class, Special};
pub use hook::HookKind;
pub use hypervisor::{Hypervisor, Shipped};
pub use model::{Home, Object, RelocKind, Relocation, Section, SectionId, Symbol, SymbolId, SymbolKind};
