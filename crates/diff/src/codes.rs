//! The problems that a change can have.

use xsplice_report::Code;

/// A type that live objects may have changed its layout; the code belongs to the crate that finds it.
pub use xsplice_dwarf::codes::LAYOUT_CHANGED;

/// A function that old code calls takes other arguments, or gives something else.
pub const PROTOTYPE_CHANGED: Code = Code::refusal(
    "prototype-changed",
    "A replaced function has another prototype, and code that knows the old one can still call it.",
);
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
/// Read-only data changed whose address is in the hands of somebody unknown.
pub const RODATA_ESCAPES: Code = Code::refusal(
    "rodata-escapes",
    "Read-only data changed whose address is kept or passed on, so that old pointers lead to the old copy.",
);
/// Read-only data changed that too many functions use.
pub const RODATA_USERS: Code =
    Code::refusal("rodata-users", "Read-only data changed that too many functions use to replace them all.");
/// A per-CPU variable that the hypervisor does not have.
pub const NEW_PERCPU: Code = Code::refusal("new-percpu", "A payload cannot bring per-CPU variables.");
/// Something that boot collects into an array.
pub const BOOT_COLLECTED: Code =
    Code::refusal("boot-collected", "An entry of an array that is only read at boot would never be seen.");
/// Boot code that changes beside what is patched.
pub const INIT_NOT_RERUN: Code = Code::warning(
    "init-not-rerun",
    "The patch also changes code that runs at boot only, and that does not run again.",
);
/// A new variable that only boot code would set up.
pub const DATA_NOT_SET_UP: Code = Code::refusal(
    "data-not-set-up",
    "A new variable has to be set up before it is used, and only code that never runs does that.",
);
/// Included code refers to what is gone after boot.
pub const INIT_REFERENCE: Code =
    Code::refusal("init-reference", "Code that runs after boot refers to code or data that boot has freed.");
/// Included code refers to what is gone after boot, and its original does so too.
pub const INIT_REFERENCE_KEPT: Code = Code::warning(
    "init-reference-kept",
    "A replaced function refers to code or data that boot has freed, as its original does.",
);
/// A section that is in memory at run time and not understood.
pub const UNKNOWN_SECTION: Code =
    Code::refusal("unknown-section", "A section changed that is not understood.");
/// Special-section entries that belong to no function.
pub const ORPHAN_ENTRY: Code =
    Code::refusal("orphan-entry", "A special-section entry changed that belongs to no function.");
/// Assembler code.
pub const ASSEMBLER_CHANGED: Code = Code::refusal("assembler-changed", "Assembler code changed.");
/// A hook of a kind that the loader does not know.
pub const HOOK_KIND: Code =
    Code::refusal("hook-kind", "The hypervisor's loader does not know hooks of that kind.");
/// Something in a hook section that is no pointer to a function.
pub const HOOK_FORM: Code = Code::refusal("hook-form", "A hook section holds something other than pointers.");
/// A hook that is not code of the payload.
pub const HOOK_FUNCTION: Code =
    Code::refusal("hook-function", "A hook is not a function that the patch brings.");
/// Several hooks of a kind of which there can be one.
pub const HOOK_TWICE: Code =
    Code::refusal("hook-twice", "There are several hooks of a kind of which a payload can have one.");
/// A hook function without ENDBR64.
pub const HOOK_ENDBR: Code =
    Code::refusal("hook-endbr", "A hook does not start with ENDBR64, and the hypervisor calls by pointer.");
/// Hooks and nothing to replace, where the loader wants functions.
pub const HOOKS_ALONE: Code =
    Code::refusal("hooks-alone", "This Xen loads no payload that has hooks but replaces no function.");
/// A hook that can fault or warn while nobody knows the payload's tables.
pub const HOOK_TABLES: Code = Code::refusal(
    "hook-tables",
    "A hook runs code that can warn or fault before this Xen knows the payload's tables.",
);
/// A hook that the original has too.
pub const HOOK_NOT_NEW: Code =
    Code::warning("hook-not-new", "The original has the hook too, so it is not put into the payload.");
/// A hook function that would run several times.
pub const HOOK_REPEATED: Code =
    Code::warning("hook-repeated", "A hook's source is in several objects, so it runs several times.");
/// An apply or revert hook.
pub const HOOK_INSTEAD: Code =
    Code::warning("hook-instead", "A hook takes the place of the loader's own way of applying or reverting.");
/// A hook that may wait for CPUs which wait for it.
pub const HOOK_MAY_HANG: Code = Code::warning(
    "hook-may-hang",
    "A hook refers to something that waits for other CPUs, which wait for it.",
);
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
/// Functions that no payload is about are not what was shipped.
pub const BASE_DIFFERS: Code = Code::warning(
    "base-differs",
    "Functions of the rebuilt original that the payload does not replace are not what was shipped.",
);
/// The symbol file was stripped of code.
pub const CODE_NOT_COMPARED: Code = Code::warning(
    "code-not-compared",
    "The symbol file does not hold the code of functions, so only their names and sizes were compared.",
);
/// The shipped hypervisor names another compiler.
pub const OTHER_COMPILER: Code =
    Code::warning("other-compiler", "The shipped hypervisor was made by another compiler than the objects.");
/// Special-section entries of an unknown size.
pub const ENTRY_SIZE: Code = Code::refusal(
    "entry-size",
    "The source declares entries of a special section with another size than is understood.",
);
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
/// A function that runs while functions are overwritten.
pub const CRASH_AT_APPLY: Code = Code::refusal(
    "crash-at-apply",
    "A function is to be replaced that can be running while the payload is applied.",
);
/// A function that runs on, or is on a stack, when the payload is gone.
pub const CRASH_AT_REVERT: Code = Code::refusal(
    "crash-at-revert",
    "The new code of a function can be running, or be on a stack, when the payload is reverted and unloaded.",
);
/// One half of how virtual CPUs wait.
pub const WAIT_PAIR: Code = Code::refusal(
    "wait-pair",
    "Of the two functions that put a stack away and take it back, only one is to be replaced.",
);
/// A new function's address that a timer and the like keeps.
pub const ADDRESS_KEPT: Code = Code::refusal(
    "address-kept",
    "The address of a new function is kept by the hypervisor, and would outlive the payload.",
);
/// A new function's address that somebody may keep.
pub const ADDRESS_MAY_BE_KEPT: Code = Code::warning(
    "address-may-be-kept",
    "The address of a new function is taken, and must not be stored anywhere when the payload is unloaded.",
);
/// Functions that lead to one which puts the stack away.
pub const STACK_PUT_AWAY: Code = Code::warning(
    "stack-put-away",
    "A replaced function can be on the stack of a virtual CPU that waits, which a revert does not look at.",
);
/// Functions that machine checks use too.
pub const MACHINE_CHECK_PATH: Code = Code::warning(
    "machine-check-path",
    "A replaced function is one that the handler of machine checks uses too, at any time.",
);
/// A function that runs late or never.
pub const TAKES_EFFECT_LATE: Code = Code::warning(
    "takes-effect-late",
    "A replaced function runs only when a CPU comes online, when a domain is made, or at boot.",
);
/// The debug information cannot be read.
pub const NO_DEBUG_INFO: Code = Code::failure(
    "no-debug-info",
    "An object has no readable debug information, so layouts cannot be compared.",
);

/// A member in a hole of a structure that may be live.
pub const LAYOUT_HOLE: Code = Code::warning(
    "layout-hole",
    "A structure has a new member where it had padding, which objects that are there hold anything in.",
);
/// Something that the command line lets through, and that did not come up.
pub const ALLOW_UNUSED: Code =
    Code::warning("allow-unused", "A refusal that --allow is to let through did not come up.");

/// Refusals that an expert may let through: a payload can be built, and the loader takes it. Whether the host
/// survives it, or the fix works, is for somebody to judge who knows more than the objects tell.
pub const ALLOWABLE: &[Code] = &[
    LAYOUT_CHANGED,
    PROTOTYPE_CHANGED,
    DATA_CHANGED,
    RODATA_ESCAPES,
    RODATA_USERS,
    BOOT_COLLECTED,
    DATA_NOT_SET_UP,
    CRASH_AT_APPLY,
    CRASH_AT_REVERT,
    WAIT_PAIR,
    ADDRESS_KEPT,
];

/// All of this crate's own.
pub const ALL: &[Code] = &[
    PROTOTYPE_CHANGED,
    DATA_CHANGED,
    RODATA_CHANGED,
    RODATA_ESCAPES,
    RODATA_USERS,
    NEW_PERCPU,
    BOOT_COLLECTED,
    INIT_NOT_RERUN,
    DATA_NOT_SET_UP,
    INIT_REFERENCE,
    INIT_REFERENCE_KEPT,
    UNKNOWN_SECTION,
    ORPHAN_ENTRY,
    ASSEMBLER_CHANGED,
    HOOK_KIND,
    HOOK_FORM,
    HOOK_FUNCTION,
    HOOK_TWICE,
    HOOK_ENDBR,
    HOOKS_ALONE,
    HOOK_TABLES,
    HOOK_NOT_NEW,
    HOOK_REPEATED,
    HOOK_INSTEAD,
    HOOK_MAY_HANG,
    UNKNOWN_REFERENCE,
    UNDECODABLE,
    AMBIGUOUS_DATA,
    AMBIGUOUS_NAME,
    NOT_IN_HYPERVISOR,
    BASE_MISMATCH,
    BASE_DIFFERS,
    CODE_NOT_COMPARED,
    OTHER_COMPILER,
    ENTRY_SIZE,
    NO_ROOM,
    NAME_TAKEN,
    MOVED,
    NO_CODE,
    CRASH_AT_APPLY,
    CRASH_AT_REVERT,
    WAIT_PAIR,
    ADDRESS_KEPT,
    ADDRESS_MAY_BE_KEPT,
    STACK_PUT_AWAY,
    MACHINE_CHECK_PATH,
    TAKES_EFFECT_LATE,
    LAYOUT_HOLE,
    ALLOW_UNUSED,
    NO_DEBUG_INFO,
];
