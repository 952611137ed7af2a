//! The problems that planning and building can raise.

use xsplice_report::Code;

/// A patch is in no format that is understood, or is damaged.
pub const PATCH_UNREADABLE: Code =
    Code::failure("patch-unreadable", "The patch is damaged or in no format that is understood.");
/// A patch carries binary changes.
pub const PATCH_BINARY: Code = Code::failure("patch-binary", "The patch changes a binary file.");
/// A patch names a file that cannot be patched: outside the tree, or behind a symbolic link.
pub const PATCH_PATH: Code =
    Code::failure("patch-path", "The patch names a file that cannot belong to the tree.");
/// A hunk does not match the tree.
pub const PATCH_DOES_NOT_APPLY: Code =
    Code::failure("patch-does-not-apply", "The patch does not apply to the tree.");
/// A hunk matched at another line.
pub const PATCH_OFFSET: Code =
    Code::warning("patch-offset", "A hunk matched exactly, but at another line than the patch says.");
/// The tree is no Xen source tree.
pub const TREE_UNUSABLE: Code = Code::failure("tree-unusable", "The tree is not a Xen source tree.");
/// The tree has no packaging of the kind that was asked for.
pub const PRESET_UNUSABLE: Code =
    Code::failure("preset-unusable", "The tree does not have the packaging that the preset reads.");
/// The tree changed while it was read.
pub const TREE_CHANGED: Code = Code::failure("tree-changed", "The tree changed while it was being copied.");
/// The cache folder cannot be used.
pub const CACHE_UNUSABLE: Code = Code::failure("cache-unusable", "The cache folder cannot be used.");
/// Kept builds could not be removed.
pub const CACHE_OVER_LIMIT: Code =
    Code::warning("cache-over-limit", "Kept builds over the cache's limit could not be removed.");
/// Reading or writing failed.
pub const IO: Code = Code::failure("build-io", "Reading or writing a file failed.");
/// A program that a build needs is not installed.
pub const TOOL_MISSING: Code =
    Code::failure("tool-missing", "A program that a hypervisor build needs is not installed.");
/// A launcher cannot be put in front of the compiler.
pub const LAUNCHER_UNUSABLE: Code =
    Code::failure("launcher-unusable", "The launcher cannot be used with this compiler.");
/// A launcher sends source to other machines.
pub const SOURCE_LEAVES: Code =
    Code::warning("source-leaves", "The launcher sends source to other machines.");
/// The configuration cannot be read.
pub const CONFIG_UNREADABLE: Code =
    Code::failure("config-unreadable", "The configuration is not a Kconfig file.");
/// The configuration has live patching off.
pub const LIVEPATCH_OFF: Code =
    Code::failure("livepatch-off", "The configuration builds a hypervisor without live patching.");
/// Kconfig changed an option that decides about code everywhere.
pub const CONFIG_DRIFT: Code = Code::refusal(
    "config-drift",
    "Kconfig changed an option of the configuration that decides about code everywhere.",
);
/// A compiler call failed.
pub const COMPILE_FAILED: Code = Code::failure("compile-failed", "A file does not compile.");
/// The patch brings a global name that the hypervisor has already.
pub const DEFINED_TWICE: Code =
    Code::failure("defined-twice", "A new global function or variable has the name of an existing one.");
/// The lines of a patched file could not keep their numbers.
pub const LINES_MOVED: Code =
    Code::warning("lines-moved", "The line numbers of a patched file could not be kept.");
/// The user's preparation of the private copy failed.
pub const PREPARE_FAILED: Code =
    Code::failure("prepare-failed", "The command that prepares the private copy failed.");
/// The user's preparation changes a file that the patch touches.
pub const PREPARED_FILE: Code = Code::failure(
    "prepared-file",
    "The command that prepares the private copy changes a file that the patch touches.",
);
/// make failed elsewhere than at a compiler call.
pub const MAKE_FAILED: Code = Code::failure("make-failed", "make failed.");
/// The user stopped the build.
pub const INTERRUPTED: Code = Code::failure("interrupted", "The build was interrupted.");
/// A build file changes objects that the patch's sources do not reach.
pub const BUILD_FILE_CHANGES_OTHER_OBJECTS: Code = Code::refusal(
    "build-file-changes-other-objects",
    "A changed build file alters objects that the patch does not otherwise touch.",
);
/// A linker script is touched.
pub const LINKER_SCRIPT_CHANGED: Code =
    Code::refusal("linker-script-changed", "The patch changes how the hypervisor is laid out in memory.");
/// A constant that guests and the toolstack were compiled with has another value.
pub const PUBLIC_CONSTANT: Code = Code::refusal(
    "public-constant",
    "A constant of the public headers, which guests and the toolstack were compiled with, has another value.",
);
/// Functions share a section.
pub const FUNCTIONS_TOGETHER: Code =
    Code::failure("functions-together", "The compiler did not put each function into a section of its own.");
/// The layout of `struct livepatch_func` could not be learned.
pub const FUNCS_LAYOUT_UNKNOWN: Code = Code::failure(
    "funcs-layout-unknown",
    "The layout of the tree's struct livepatch_func could not be determined.",
);

/// Refusals that an expert may let through.
pub const ALLOWABLE: &[Code] = &[PUBLIC_CONSTANT];

/// All of them.
pub const ALL: &[Code] = &[
    PATCH_UNREADABLE,
    PATCH_BINARY,
    PATCH_PATH,
    PATCH_DOES_NOT_APPLY,
    PATCH_OFFSET,
    TREE_UNUSABLE,
    PRESET_UNUSABLE,
    TREE_CHANGED,
    CACHE_UNUSABLE,
    CACHE_OVER_LIMIT,
    IO,
    TOOL_MISSING,
    LAUNCHER_UNUSABLE,
    SOURCE_LEAVES,
    CONFIG_UNREADABLE,
    LIVEPATCH_OFF,
    CONFIG_DRIFT,
    COMPILE_FAILED,
    DEFINED_TWICE,
    LINES_MOVED,
    PREPARE_FAILED,
    PREPARED_FILE,
    MAKE_FAILED,
    INTERRUPTED,
    BUILD_FILE_CHANGES_OTHER_OBJECTS,
    LINKER_SCRIPT_CHANGED,
    PUBLIC_CONSTANT,
    FUNCTIONS_TOGETHER,
    FUNCS_LAYOUT_UNKNOWN,
];

/// An I/O problem as a diagnostic. fs-err's messages carry the path.
pub(crate) fn io(error: &std::io::Error) -> xsplice_report::Diagnostic {
    xsplice_report::Diagnostic::new(IO, error.to_string())
}
