//! Writes the payload.
//!
//! A checked selection in, the bytes of a `.livepatch` file out, with nothing in it that Xen's loader does not
//! know (xen/common/livepatch_elf.c and xen/arch/x86/livepatch.c, 4.13 to 4.22). No linker, objcopy or strip is
//! involved, and the same input gives the same bytes.

mod emit;
mod layout;
mod note;

pub use layout::{FuncsLayout, Ids, Metadata, PayloadImage};
