//! Everything that can be wrong with a payload, by its stable name.

use xsplice_report::Code;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $kind:ident($text:literal, $summary:literal);)*) => {
        $($(#[$doc])* #[doc = $summary] pub const $name: Code = Code::$kind($text, $summary);)*
        /// All codes of this crate, in the order of the loader's own steps.
        pub const ALL: &[Code] = &[$($name),*];
    };
}

codes! {
    NOT_A_PAYLOAD = failure("not-a-payload", "The file is not a payload.");
    NOT_XEN_SYMS = failure("not-xen-syms", "The file is not the symbol file of a hypervisor.");
    BELOW_UNREADABLE = failure("below-unreadable", "A payload to stack on cannot be read.");

    XEN_VERSION_ASSUMED = warning("xen-version-assumed", "Whether the rules are those of the hypervisor's own loader is not certain.");

    NAME_LENGTH = refusal("payload-name", "Xen takes no payload of that name.");
    FILE_SIZE = refusal("payload-size", "Xen takes payloads of 1 byte to 2 MiB.");

    ELF_IDENT = refusal("elf-ident", "The ELF identification is not one that Xen takes.");
    ELF_KIND = refusal("elf-kind", "The ELF file is not an x86-64 relocatable file without program headers.");
    ELF_SECTION_TABLE = refusal("elf-section-table", "The section table is not one that Xen takes.");

    SECTION_OUTSIDE_FILE = refusal("section-outside-file", "A section's contents are not inside the file.");
    SECTION_ALIGNMENT = refusal("section-alignment", "A section's alignment is refused or not honoured.");
    SECTION_WRITABLE_CODE = refusal("section-writable-code", "A section is both writable and executable.");
    SECTION_TOO_LARGE = refusal("section-too-large", "A section is larger than Xen takes.");
    SECTION_NAME = refusal("section-name", "A section's name cannot be read.");
    SECTION_KIND = refusal("section-kind", "A loaded section is of a kind that the loader does not handle.");
    SYMBOL_TABLE = refusal("symbol-table", "The symbol table is missing, doubled or damaged.");
    STRING_TABLE = refusal("string-table", "A string table is missing or damaged.");
    SPECIAL_TWICE = refusal("special-section-twice", "A section that Xen looks up by name is there twice.");
    SPECIAL_NOT_LOADED = refusal("special-section-not-loaded", "A section that Xen reads would not be in memory.");
    SPECIAL_UNKNOWN = refusal("special-section-unknown", "No Xen knows a special section of that name.");
    COLLECTED_AT_BOOT = refusal("section-collected-at-boot", "A section holds what is collected at boot only.");
    PER_CPU = refusal("section-per-cpu", "A section holds per-CPU data.");
    NOT_REAPPLICABLE = warning("not-reapplicable", "Xen will not apply the payload again after a revert.");
    NO_ROOM = refusal("no-room-for-payload", "The payload does not fit into the area for payloads.");

    SYMBOL_NAME = refusal("symbol-name", "A symbol's name cannot be read or is too long.");
    SYMBOL_SECTION = refusal("symbol-section", "A symbol is in a section that does not exist, or outside of its section.");
    SYMBOL_COMMON = refusal("symbol-common", "A symbol asks for common storage.");
    SYMBOL_UNKNOWN = refusal("symbol-unknown", "Neither Xen nor a payload below has a symbol of that name.");
    SYMBOL_AMBIGUOUS = refusal("symbol-ambiguous", "Several symbols share the name that the payload looks up.");
    SYMBOL_ABSOLUTE = refusal("symbol-absolute", "An absolute symbol is not what the hypervisor has at its address.");
    SYMBOL_IN_INIT = refusal("symbol-in-init", "The payload refers to memory that is gone after boot.");
    SYMBOL_COLLIDES = refusal("symbol-collides", "A new symbol has the name of one that exists.");
    NOT_CHECKED_AGAINST_XEN = warning("not-checked-against-xen", "No symbol file was given: names, addresses and sizes were not checked.");

    RELOCATION_SECTION = refusal("relocation-section", "A relocation section is not one that Xen takes.");
    RELOCATION_TYPE = refusal("relocation-type", "Xen does not know a relocation's type.");
    RELOCATION_SYMBOL = refusal("relocation-symbol", "A relocation's symbol does not exist or is not in memory.");
    RELOCATION_OFFSET = refusal("relocation-offset", "A relocation writes outside its section.");
    RELOCATION_OVERLAP = refusal("relocation-overlap", "Two relocations write the same bytes.");
    RELOCATION_OVERFLOW = refusal("relocation-overflow", "A displacement does not fit into 32 bits.");

    MISSING_SECTION = refusal("missing-section", "A section that every payload needs is missing or empty.");
    NOTHING_TO_DO = refusal("nothing-to-do", "The payload has neither functions nor hooks.");
    NOTE = refusal("note", "A build-id note is damaged.");
    WRONG_XEN = refusal("wrong-xen", "The payload is for another hypervisor.");
    WRONG_DEPENDS = refusal("wrong-depends", "The payload depends on something other than what it is to stack on.");
    SAME_BUILD_ID = refusal("same-build-id", "The payload's build-id is already in use.");
    XEN_ID_UNKNOWN = warning("xen-id-unknown", "The hypervisor's build-id is not known: what the payload depends on was not checked.");
    METADATA = refusal("metadata", "The payload's metadata is not a list of NUL-terminated strings.");

    FUNCS_LAYOUT = refusal("funcs-layout", "The functions are not in the layout of the hypervisor's struct livepatch_func.");
    FUNCS_READ_ONLY = refusal("funcs-read-only", "The list of functions is read-only.");
    FUNC_VERSION = refusal("func-version", "A function's version is not the hypervisor's.");
    FUNC_PADDING = refusal("func-padding", "Reserved bytes of a function's entry are not zero.");
    FUNC_NAME = refusal("func-name", "A function's name cannot be read.");
    FUNC_OLD_UNKNOWN = refusal("func-old-unknown", "The function to replace is not found.");
    FUNC_OLD_NOT_CODE = refusal("func-old-not-code", "What is to be replaced is not the start of a function.");
    FUNC_OLD_IN_INIT = refusal("func-old-in-init", "The function to replace is gone after boot.");
    FUNC_OLD_SIZE = refusal("func-old-size", "The size of the function to replace is not that of the shipped one.");
    FUNC_TOO_SMALL = refusal("func-too-small", "The function to replace has no room for a jump.");
    FUNC_NOP = refusal("func-nop", "An entry asks for NOPs that cannot be written.");
    FUNC_NEW = refusal("func-new", "The replacement is not a function of the payload.");
    FUNC_TWICE = refusal("func-twice", "Two entries replace the same function.");
    FUNC_DISTANCE = refusal("func-distance", "The replacement is too far away for a jump.");
    EXPECTATION = refusal("expectation", "An expectation cannot be met.");

    BUG_FRAMES = refusal("bug-frames", "A bug frame is damaged or points outside.");
    BUG_FRAME_DISTANCE = refusal("bug-frame-distance", "A bug frame's target is out of its reach.");
    ALTERNATIVES = refusal("alternatives", "An alternative is damaged or points outside.");
    ALTERNATIVE_MOVED = refusal("alternative-moved", "A replacement would be wrong where it is copied to.");
    ALTCALL = refusal("altcall", "An altcall is not in the form that Xen resolves.");
    EXCEPTION_TABLE = refusal("exception-table", "An exception table entry is damaged or points outside.");
    EXCEPTION_TABLE_PRE = refusal("exception-table-pre", "Xen ignores .ex_table.pre of a payload.");
    STRAY_RELOCATION = refusal("stray-relocation", "A relocation writes into a place that must be literal.");

    HOOK_SIZE = refusal("hook-size", "A hook section has a size that Xen does not take.");
    HOOK_TARGET = refusal("hook-target", "A hook is not a function of the payload.");
    HOOK_ENDBR = refusal("hook-not-callable", "A hook does not start with ENDBR64, and the hypervisor calls by pointer.");

    TRAMPOLINE = refusal("trampoline", "A replaced function does not lead to its own replacement.");
    REVERT_DIFFERS = refusal("revert-differs", "After a revert the hypervisor is not what it was.");
    ALTERNATIVE_IN_PLACE = refusal("alternative-in-place", "An alternative cannot be decoded where it is copied to.");
    PATCHED_OBJECT_UNREADABLE = failure("patched-object-unreadable", "An object to compare the payload with cannot be read.");
    IN_PLACE_UNKNOWN = refusal("in-place-unknown", "Code of the payload is in none of the patched objects.");
    IN_PLACE_CODE = refusal("in-place-code", "Code of the payload is not that of its patched object.");
    IN_PLACE_REFERENCE = refusal("in-place-reference", "Code in place refers to something else than its patched object says.");
}
