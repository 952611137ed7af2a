//! The rules, by what they look at. Each function states one rule of the loader, or of the host, and
//! where it comes from.

pub(crate) mod funcs;
pub(crate) mod header;
pub(crate) mod hooks;
pub(crate) mod init;
pub(crate) mod notes;
pub(crate) mod relocs;
pub(crate) mod sections;
pub(crate) mod special;
pub(crate) mod symbols;

use xsplice_report::Problems;

use crate::verify::Context;

/// All rules but the header's.
pub(crate) fn check(context: &Context<'_>, problems: &mut Problems) {
    sections::check(context, problems);
    // Without symbols nothing else means anything, and everything that follows would be noise.
    if problems.0.iter().any(|d| d.code == crate::codes::SYMBOL_TABLE) {
        return;
    }
    symbols::check(context, problems);
    init::check(context, problems);
    relocs::check(context, problems);
    notes::check(context, problems);
    funcs::check(context, problems);
    hooks::check(context, problems);
    special::check(context, problems);
}
