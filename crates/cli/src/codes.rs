//! The problems that the command line itself can have.

use xsplice_report::Code;

/// Something on the command line does not fit.
pub(crate) const USAGE: Code = Code::failure("usage", "The command line does not say what is needed.");
/// An input file cannot be read.
pub(crate) const INPUT_UNREADABLE: Code = Code::failure("input-unreadable", "An input file cannot be read.");
/// A build-id that is none.
pub(crate) const BAD_ID: Code =
    Code::failure("bad-id", "A build-id is not 1 to 64 bytes of hexadecimal digits.");
/// Nothing says which build-ids the payload is for.
pub(crate) const ID_NEEDED: Code =
    Code::failure("id-needed", "The build-ids of the running hypervisor are not known.");
/// The output folder cannot be written.
pub(crate) const OUTPUT_UNWRITABLE: Code =
    Code::failure("output-unwritable", "The output folder cannot be written to.");

/// All of them.
pub(crate) const ALL: &[Code] = &[USAGE, INPUT_UNREADABLE, BAD_ID, ID_NEEDED, OUTPUT_UNWRITABLE];
