//! One-token changes of C sources, and whether the differ finds what they change.
//!
//! Test-only. What a change means is told from the compiler's own assembler text of both sides ([`truth`]),
//! which neither the differ nor anything under it reads.

pub mod assembler;
pub mod bytes;
pub mod clean;
pub mod compile;
pub mod desk;
pub mod differ;
pub mod judge;
pub mod mutate;
pub mod queue;
pub mod random;
pub mod report;
pub mod text;
pub mod truth;
