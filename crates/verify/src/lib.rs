//! Verifies and inspects a payload with a parser of its own.
//!
//! A payload is checked twice before it leaves: by the code that writes it, and here, by code that
//! shares nothing with the former. [`verify()`] replays what Xen's loader does with a payload (upload,
//! symbol resolution, relocation, the checks of its special sections), adds the rules that the loader
//! does not know but a running host depends on, and collects everything that is wrong. [`inspect()`]
//! shows what a payload holds. [`XenSymbols`] is the shipped hypervisor as the loader sees it.

pub mod codes;
mod elf;
mod findings;
mod inplace;
mod inspect;
mod layout;
pub mod payload;
mod ranges;
mod rules;
mod text;
mod traits;
mod verify;
mod xen;

pub use findings::{Action, Errno, Finding, Findings, Side, Step};
pub use inplace::{AgainstObjects, InPlace, PatchedObject};
pub use inspect::{
    AbsoluteSymbol, BugFrameCounts, FunctionInfo, HookInfo, Inspection, MetadataInfo, SCHEMA, SectionInfo,
    SpecialCounts, inspect,
};
pub use payload::Payload;
pub use text::render_text;
pub use traits::{AlternativeChecks, EndbrRoom, KNOWN_MINORS, LoaderTraits, XenVersion};
pub use verify::{Facts, Loader, Safe, Verdict, VerifyInput, exported_names, verify};
pub use xen::{XenSymbol, XenSymbols};
