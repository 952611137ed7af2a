//! Plans a build, and captures original and patched objects from a private copy of a Xen tree.
//!
//! Two stages, each with its type:
//!
//! 1. [`plan()`] reads the patches, applies them in memory to the files of the tree, says what kind of file
//!    each touched one is, and whether there is anything to build at all.
//! 2. [`build()`] makes the original build in a private folder (or finds the one that an earlier run kept),
//!    applies the patch there (with line numbers kept, see [`LineNumbers`]), lets make rebuild what it wants to, and gives the objects that were made
//!    anew, before and after.
//!
//! The tree itself is only read. Everything derived from it or from a patch stays below the cache folder,
//! in folders that only their owner can enter.
//!
//! Both builds run at one path, with one set of commands. The tools are called through links to the xsplice
//! program, which records each call; see [`wrapper_main`].

mod apart;
mod apply;
mod base;
mod capture;
mod classify;
pub mod codes;
mod commands;
mod config;
mod direct;
mod funcs_layout;
mod globals;
mod graph;
mod includes;
mod kbuild;
mod kept;
mod launcher;
mod line_neutral;
mod metadata;
mod parallel;
mod patched;
mod patchset;
mod plan;
mod preset;
mod public;
mod replay;
mod request;
mod same_text;
mod scanner;
mod stand_in;
mod tools;
mod tree;
mod units;
mod unmade;
mod wrapper;

pub use apart::BuildSystem;
pub use base::{BaseObjects, Original};
pub use capture::{CapturedBuild, CapturedObject, build};
pub use classify::{FileClass, Touch, TouchedFile};
pub use config::ConfigChange;
pub use direct::Way;
pub use funcs_layout::{FuncsLayout, LoaderTraits};
pub use graph::BaseObject;
pub use kept::{Cleared, KeptBuild, bound, clear, kept};
pub use launcher::{Launch, Launcher};
pub use line_neutral::LineNumbers;
pub use plan::{BuildPlan, NothingToBuild, Planned, plan};
pub use preset::{DEBIAN_CONFIG, Preset, PresetFacts};
pub use replay::{Compilation, Copy, Replay, replay};
pub use request::{Metadata, PatchInput, Progress, Request, Silent, Toolchain, payload_name};
pub use wrapper::{Adjust, is_wrapper, wrapper_main};

/// For tests that give damaged patches: reads one, applies each of its parts to a text, and the whole in memory to the
/// files of a tree; what comes of either keeps its line numbers.
#[doc(hidden)]
pub fn hostile_patch(tree: &std::path::Path, bytes: &[u8], text: &[u8]) {
    let patch = PatchInput { name: "hostile.patch".to_owned(), bytes: bytes.to_vec() };
    for hunks in patchset::hunks(&patch).unwrap_or_default() {
        if let Ok((after, _)) = apply::apply(text, &hunks) {
            let _ = line_neutral::neutralise(text, &after);
        }
    }
    if let Ok((changes, _)) = patchset::apply_all(tree, &[patch]) {
        let _ = line_neutral::files(&changes);
    }
}
