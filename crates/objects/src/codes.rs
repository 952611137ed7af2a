//! The problems that reading objects and symbol files can raise.

use xsplice_report::Code;

/// An object file that is not what a hypervisor build for x86-64 makes.
pub const OBJECT_UNREADABLE: Code =
    Code::failure("object-unreadable", "An object of the build cannot be read as a relocatable ELF file.");
/// A relocation type that nothing here understands.
pub const UNKNOWN_RELOCATION: Code =
    Code::refusal("unknown-relocation", "An object uses a relocation type that is not understood.");
/// A section group, which Xen's build does not make.
pub const SECTION_GROUP: Code = Code::refusal("section-group", "An object uses section groups.");
/// A symbol type that nothing here understands.
pub const UNKNOWN_SYMBOL: Code =
    Code::refusal("unknown-symbol", "An object has a symbol of a type that is not understood.");
/// The symbol file cannot be used.
pub const XEN_SYMS_UNREADABLE: Code =
    Code::failure("xen-syms-unreadable", "The hypervisor's symbol file cannot be read.");

/// All of them.
pub const ALL: &[Code] =
    &[OBJECT_UNREADABLE, UNKNOWN_RELOCATION, SECTION_GROUP, UNKNOWN_SYMBOL, XEN_SYMS_UNREADABLE];
