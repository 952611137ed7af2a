//! The codes that this crate raises.

use xsplice_report::Code;

/// The debug information of an object cannot be read; see [`crate::Error`].
pub const DEBUG_INFO_UNREADABLE: Code = Code::failure(
    "debug-info-unreadable",
    "The debug information of an object of the build cannot be read, so layouts cannot be compared.",
);

/// A type that both builds use has another layout in the patched one.
pub const LAYOUT_CHANGED: Code = Code::refusal(
    "layout-changed",
    "A structure, union, enumeration or typedef has another layout in the patched source.",
);

/// All codes of this crate.
pub const ALL: &[Code] = &[DEBUG_INFO_UNREADABLE, LAYOUT_CHANGED];
