//! What a caller asks for.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::launcher::Launch;
use crate::wrapper::Adjust;

/// One patch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatchInput {
    /// As the user named it; for messages.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// The programs that compile and link, each a name to find in PATH or a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toolchain {
    /// The compiler of the hypervisor (make's `CC`).
    pub cc: String,
    /// The compiler of programs that the build runs (`HOSTCC`).
    pub host_cc: String,
    /// The linker (`LD`).
    pub ld: String,
    /// The object copier (`OBJCOPY`).
    pub objcopy: String,
    /// The archiver (`AR`).
    pub ar: String,
    /// What the names of all other tools for the hypervisor begin with (`CROSS_COMPILE`); empty for none.
    pub prefix: String,
}

impl Toolchain {
    /// The tools whose names begin with `prefix`, such as `x86_64-linux-gnu-`.
    pub fn prefixed(prefix: &str) -> Toolchain {
        let name = |tool: &str| format!("{prefix}{tool}");
        Toolchain {
            cc: name("gcc"),
            ld: name("ld"),
            objcopy: name("objcopy"),
            ar: name("ar"),
            prefix: prefix.to_owned(),
            ..Toolchain::default()
        }
    }
}

impl Default for Toolchain {
    fn default() -> Toolchain {
        Toolchain {
            cc: "gcc".to_owned(),
            host_cc: "gcc".to_owned(),
            ld: "ld".to_owned(),
            objcopy: "objcopy".to_owned(),
            ar: "ar".to_owned(),
            prefix: String::new(),
        }
    }
}

/// What the build writes into xen/include/xen/compile.h about itself, held equal in both builds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// `XEN_BUILD_DATE`
    pub date: String,
    /// `XEN_BUILD_TIME`
    pub time: String,
    /// `XEN_WHOAMI`
    pub whoami: String,
    /// `XEN_DOMAIN`
    pub domain: String,
    /// `XEN_BUILD_HOST`
    pub host: String,
    /// What xen/tools/scmversion is to say; none for what it says of a tree without version control.
    pub changeset: Option<String>,
}

impl Default for Metadata {
    fn default() -> Metadata {
        Metadata {
            date: "Thu Jan  1 00:00:00 UTC 1970".to_owned(),
            time: "00:00:00".to_owned(),
            whoami: "xsplice".to_owned(),
            domain: "[unknown]".to_owned(),
            host: "xsplice".to_owned(),
            changeset: None,
        }
    }
}

/// All that planning and building need to know.
#[derive(Debug, Clone)]
pub struct Request {
    /// The folder that holds xen/. Only read.
    pub tree: PathBuf,
    /// Applied in order, as one change.
    pub patches: Vec<PatchInput>,
    /// A `.config` file.
    pub config: PathBuf,
    /// Where builds are kept.
    pub cache: PathBuf,
    /// How many jobs make may run at once; at least 1.
    pub jobs: usize,
    /// The xsplice program, which answers to [`crate::is_wrapper`].
    pub wrapper: PathBuf,
    /// Where make's output goes: `base-build.log` and `patched-build.log`.
    pub log_dir: PathBuf,
    /// Whether the hypervisor is to be linked, for its symbol file.
    pub want_symbols: bool,
    /// Whether every object of the original is to be compiled, whatever the patch needs.
    pub whole: bool,
    /// The programs that compile and link.
    pub toolchain: Toolchain,
    /// What the build says about itself.
    pub metadata: Metadata,
    /// What functions of the shipped hypervisor return, by their names: those of xen/common/version.c go before
    /// `metadata`.
    pub shipped_texts: BTreeMap<String, String>,
    /// More variables for the environment of the build; they go before the usual ones.
    pub environment: Vec<(String, String)>,
    /// More variables for make's command line.
    pub make_vars: Vec<(String, String)>,
    /// A shell command that is run once in the private copy, before it is configured.
    pub prepare: Option<String>,
    /// Whether lines get the numbers that the patch gives them, instead of keeping those of the original.
    pub keep_lines: bool,
    /// Whether flags may be added to compiler calls.
    pub adjust: Adjust,
    /// What is put in front of the hypervisor's compiler; no part of what identifies a build.
    pub launcher: Option<Launch>,
}

impl Request {
    /// A request with the defaults: this machine's gcc, one job per processor, a linked hypervisor.
    pub fn new(
        tree: impl Into<PathBuf>,
        patches: Vec<PatchInput>,
        config: impl Into<PathBuf>,
        cache: impl Into<PathBuf>,
        wrapper: impl Into<PathBuf>,
        log_dir: impl Into<PathBuf>,
    ) -> Request {
        Request {
            tree: tree.into(),
            patches,
            config: config.into(),
            cache: cache.into(),
            jobs: std::thread::available_parallelism().map_or(1, usize::from),
            wrapper: wrapper.into(),
            log_dir: log_dir.into(),
            want_symbols: true,
            whole: false,
            toolchain: Toolchain::default(),
            metadata: Metadata::default(),
            shipped_texts: BTreeMap::new(),
            environment: Vec::new(),
            make_vars: Vec::new(),
            prepare: None,
            keep_lines: false,
            adjust: Adjust::Auto,
            launcher: None,
        }
    }
}

/// Who hears how far a build is.
pub trait Progress: Sync {
    /// A step begins; a short phrase such as "building the original".
    fn step(&self, name: &str);
    /// `object` (relative to the tree) was compiled, the `count`th of this step.
    fn compiled(&self, object: &str, count: usize);
}

/// Nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _name: &str) {}
    fn compiled(&self, _object: &str, _count: usize) {}
}

/// The longest name of a payload, in bytes: the hypervisor's XEN_LIVEPATCH_NAME_SIZE (xen/include/public/
/// sysctl.h) is 128 with the terminating NUL.
const LONGEST_NAME: usize = 127;

/// The name that a payload gets from a patch's file name, by the rule of livepatch-build.
///
/// The basename without `.patch` or `.diff`; every character outside `[A-Za-z0-9_-]` replaced by `-`; cut to
/// 127 characters.
pub fn payload_name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    let name = name.strip_suffix(".patch").or_else(|| name.strip_suffix(".diff")).unwrap_or(name);
    let keep = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '-' };
    name.chars().map(keep).take(LONGEST_NAME).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule() {
        for (file, name) in [
            ("xsa475.patch", "xsa475"),
            ("/a/b c/xsa 4.17-475.diff", "xsa-4-17-475"),
            ("0001-x86_fix.patch.txt", "0001-x86_fix-patch-txt"),
            ("a.patch.diff", "a-patch"),
            ("größe", "gr--e"),
        ] {
            assert_eq!(payload_name(file), name);
        }
        assert_eq!(payload_name(&"x".repeat(300)).len(), 127);
    }
}
