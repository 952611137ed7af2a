//! The problems that a change can have.

use xsplice_report::Code;

/// A type that live objects may have changed its layout.
pub const LAYOUT_CHANGED: Code =
    Code::refusal("layout-changed", "The layout of a type in use changed; live objects keep the old one.");
/// The initial value of data that exists on the host changed.
pub const DATA_CHANGED: Code = Code::refusal(
    "data-changed",
    "The initial value or size of existing data changed; the host's data stays as it is.",
);
/// Read-only data that other code uses changed.
pub const RODATA_CHANGED: Code = Code::refusal(
    "rodata-changed",
    "Read-only data changed that is used from places which a payload cannot reach.",
);
/// A per-CPU variable that the hypervisor does not have.
pub const NEW_PERCPU: Code = Code::refusal("new-percpu", "A payload cannot bring per-CPU variables.");
/// Something that boot collects into an array.
pub const BOOT_COLLECTED: Code =
    Code::refusal("boot-collected", "An entry of an array that is only read at boot would never be seen.");
/// Included code refers to what is gone after boot.
pub const INIT_REFERENCE: Code =
    Code::refusal("init-reference", "Code that runs after boot refers to code or data that boot has freed.");
/// A section that is in memory at run time and not understood.
pub const UNKNOWN_SECTION: Code =
    Code::refusal("unknown-section", "A section changed that is not understood.");
/// Special-section entries that belong to no function.
pub const ORPHAN_ENTRY: Code =
    Code::refusal("orphan-entry", "A special-section entry changed that belongs to no function.");
/// Assembler code.
pub const ASSEMBLER_CHANGED: Code = Code::refusal("assembler-changed", "Assembler code changed.");
/// Hooks in the source.
pub const HOOKS_UNSUPPORTED: Code = Code::refusal("hooks-unsupported", "The patch adds livepatch hooks.");
/// A reference that cannot be expressed in a payload.
pub const UNKNOWN_REFERENCE: Code =
    Code::refusal("unknown-reference", "Code refers to something in a way that a payload cannot express.");
/// Instructions that cannot be decoded.
pub const UNDECODABLE: Code =
    Code::refusal("undecodable", "A function holds bytes that are no known instruction.");
/// Several candidates for one variable of the original.
pub const AMBIGUOUS_DATA: Code =
    Code::refusal("ambiguous-data", "Which existing variable a name stands for cannot be told.");
/// The hypervisor has the name twice.
pub const AMBIGUOUS_NAME: Code =
    Code::refusal("ambiguous-name", "The hypervisor's own table has a name more than once.");
/// The hypervisor does not have the name.
pub const NOT_IN_HYPERVISOR: Code =
    Code::refusal("not-in-hypervisor", "Something that the original has is not in the shipped hypervisor.");
/// The shipped hypervisor was built from something else.
pub const BASE_MISMATCH: Code =
    Code::refusal("base-mismatch", "The rebuilt original disagrees with the shipped hypervisor's symbols.");
/// The function is too short for the jump.
pub const NO_ROOM: Code = Code::refusal("no-room", "The shipped function is too short to hold the jump.");
/// A new global symbol whose name is taken.
pub const NAME_TAKEN: Code =
    Code::refusal("name-taken", "A new symbol has the name of one that the hypervisor already has.");
/// A function or variable that went from one object to another.
pub const MOVED: Code =
    Code::refusal("moved", "A function or variable moved from one source file to another.");
/// The compiler found that a function's end is never reached, or made one function of two.
pub const NO_CODE: Code =
    Code::refusal("no-code", "A function still has its name, but the compiler left it no code of its own.");
/// The debug information cannot be read.
pub const NO_DEBUG_INFO: Code = Code::failure(
    "no-debug-info",
    "An object has no readable debug information, so layouts cannot be compared.",
);

/// All of them.
pub const ALL: &[Code] = &[
    LAYOUT_CHANGED,
    DATA_CHANGED,
    RODATA_CHANGED,
    NEW_PERCPU,
    BOOT_COLLECTED,
    INIT_REFERENCE,
    UNKNOWN_SECTION,
    ORPHAN_ENTRY,
    ASSEMBLER_CHANGED,
    HOOKS_UNSUPPORTED,
    UNKNOWN_REFERENCE,
    UNDECODABLE,
    AMBIGUOUS_DATA,
    AMBIGUOUS_NAME,
    NOT_IN_HYPERVISOR,
    BASE_MISMATCH,
    NO_ROOM,
    NAME_TAKEN,
    MOVED,
    NO_CODE,
    NO_DEBUG_INFO,
];
