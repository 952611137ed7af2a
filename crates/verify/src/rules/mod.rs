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

use crate::findings::Findings;
use crate::verify::Context;

/// All rules but the header's.
pub(crate) fn check(context: &Context<'_>, findings: &mut Findings) {
    sections::check(context, findings);
    // Without symbols nothing else means anything, and everything that follows would be noise.
    if findings.0.iter().any(|f| f.diagnostic.code == crate::codes::SYMBOL_TABLE) {
        return;
    }
    sections::symbol_table_alone(context, findings);
    symbols::check(context, findings);
    init::check(context, findings);
    relocs::check(context, findings);
    notes::check(context, findings);
    funcs::check(context, findings);
    hooks::check(context, findings);
    special::check(context, findings);
}
