//! One function patched in a tree of every version, for a hypervisor that plain make built of it.

use std::path::{Path, PathBuf};

use fs_err as fs;
use serde_json::Value;
use xsplice_e2e::{At, Edit, Recipe};
use xsplice_process::{Job, Sink};

use super::Desk;
use crate::done;

/// A version that is built: its name, what it is in Xen's repository (or Debian's source), the compiler that builds it, and the version and
/// size in bytes of its `struct livepatch_func` (xen/include/public/sysctl.h).
struct Tree {
    version: &'static str,
    revision: &'static str,
    cc: &'static str,
    funcs: (u64, u64),
}

const fn tree(version: &'static str, revision: &'static str, cc: &'static str, funcs: (u64, u64)) -> Tree {
    Tree { version, revision, cc, funcs }
}

/// What gcc 12 stops at in the older ones, gcc 11 does not.
const TREES: &[Tree] = &[
    tree("4.13", "stable-4.13", "gcc-11", (1, 64)),
    tree("4.14", "stable-4.14", "gcc-11", (2, 104)),
    tree("4.15", "stable-4.15", "gcc-11", (2, 104)),
    tree("4.16", "stable-4.16", "gcc", (2, 104)),
    tree("4.17.2", "RELEASE-4.17.2", "gcc", (2, 104)),
    tree("4.17.3", "RELEASE-4.17.3", "gcc", (2, 104)),
    tree("4.17.5+72 with clang", super::DEBIAN, "clang-14", (2, 104)),
    tree("4.18", "stable-4.18", "gcc", (2, 104)),
    tree("4.19", "stable-4.19", "gcc", (2, 104)),
    tree("4.20", "stable-4.20", "gcc", (2, 104)),
    tree("4.21", "stable-4.21", "gcc", (2, 104)),
    tree("4.22", "stable-4.22", "gcc", (2, 104)),
    tree("master", "master", "gcc", (2, 104)),
];

/// A function of one file, under the two names that the file has had.
const PATCHES: [Recipe; 2] =
    [watchdog(&[edit("xen/common/sched/core.c")]), watchdog(&[edit("xen/common/schedule.c")])];

const fn watchdog(edits: &'static [Edit]) -> Recipe {
    Recipe { name: "watchdog", what: "Answer a watchdog with an impossible number", edits }
}

const fn edit(file: &'static str) -> Edit {
    let text = "    if ( id == 0x5801 )\n        return timeout + 58;\n\n";
    Edit { file, at: At::Body("domain_watchdog"), text }
}

/// The names of the checks, with what does them.
pub(super) fn all() -> impl Iterator<Item = (String, impl Fn(&Desk) -> Result<(), String>)> {
    TREES.iter().map(|tree| {
        let name = format!("Xen {}: one function, for what plain make built", tree.version);
        (name, move |desk: &Desk| check(tree, desk))
    })
}

fn check(tree: &Tree, desk: &Desk) -> Result<(), String> {
    let io = |error: std::io::Error| error.to_string();
    let name = format!("tree-{}", tree.version.replace(' ', "-"));
    let work = desk.work.join(&name);
    if work.exists() {
        fs::remove_dir_all(&work).map_err(io)?;
    }
    fs::create_dir_all(&work).map_err(io)?;
    let source = desk.tree(tree.revision, &format!("{name}/source"))?;
    let recipe = PATCHES
        .iter()
        .find(|recipe| source.join(recipe.edits[0].file).is_file())
        .ok_or("the file to patch is not there")?;
    let patch = work.join("watchdog.patch");
    fs::write(&patch, recipe.make(&source).map_err(|error| error.to_string())?.diff).map_err(io)?;
    let config = work.join("config");
    fs::write(&config, "CONFIG_LIVEPATCH=y\n").map_err(io)?;
    let run = Runs { tree, desk, work: &work, source: &source, patch: &patch, config: &config };
    let host = desk.tree(tree.revision, &format!("{name}/host"))?;
    let syms = desk.host(&host, &config, tree.cc)?.join("xen-syms").display().to_string();
    let cold = run.payload("cold", &["--xen-syms", &syms])?;
    let bytes = fs::read(&cold).map_err(io)?;
    run.payload("cold", &["--xen-syms", &syms])?;
    let always = run.payload("always", &["--xen-syms", &syms, "--build-adjust", "always"])?;
    for (how, other) in [("a kept original", &cold), ("flags always added", &always)] {
        if bytes != fs::read(other).map_err(io)? {
            return Err(format!("with {how} the payload has other bytes"));
        }
    }
    run.never(&syms)?;
    // Whole trees and builds are large, and there are many.
    for folder in ["source", "host", "cache-cold", "cache-always", "cache-never"] {
        fs::remove_dir_all(work.join(folder)).map_err(io)?;
    }
    Ok(())
}

/// Runs of xsplice on one tree.
struct Runs<'a> {
    tree: &'a Tree,
    desk: &'a Desk,
    work: &'a Path,
    source: &'a Path,
    patch: &'a Path,
    config: &'a Path,
}

impl Runs<'_> {
    fn job(&self, name: &str, more: &[&str]) -> Job {
        Job::new(&self.desk.xsplice)
            .args(["--quiet", "build", "--cc", self.tree.cc, "-s"])
            .arg(self.source)
            .arg("-p")
            .arg(self.patch)
            .arg("-c")
            .arg(self.config)
            .arg("-o")
            .arg(self.work.join(format!("out-{name}")))
            .args(more)
            .env("XSPLICE_CACHE", self.work.join(format!("cache-{name}")))
    }

    /// A payload of one function with the tree's structure, which the verifier accepts for that version.
    fn payload(&self, name: &str, more: &[&str]) -> Result<PathBuf, String> {
        done(self.job(name, more))?;
        let out = self.work.join(format!("out-{name}"));
        let payload = out.join("watchdog.livepatch");
        let text = fs::read_to_string(out.join("report.json")).map_err(|error| error.to_string())?;
        let report: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let functions: Vec<&str> = report["functions"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|function| function["name"].as_str())
            .collect();
        println!("{name}: {functions:?}, {}, original {}", report["build_system"], report["original"]);
        if functions.len() != 1 || !functions[0].ends_with("domain_watchdog") {
            return Err(format!("replaced are {functions:?}"));
        }
        let shown = done(Job::new(&self.desk.xsplice).args(["--json", "inspect"]).arg(&payload))?;
        let shown: Value = serde_json::from_slice(&shown.stdout).map_err(|error| error.to_string())?;
        let size = section_size(&shown, ".livepatch.funcs");
        let version = shown["functions"][0]["version"].as_u64();
        if (version, size) != (Some(self.tree.funcs.0), Some(self.tree.funcs.1)) {
            return Err(format!("the structure has version {version:?} and {size:?} bytes"));
        }
        Ok(payload)
    }

    /// Without any added flag: right where the tree has them itself, else the clear error.
    fn never(&self, syms: &str) -> Result<(), String> {
        let job = self.job("never", &["--xen-syms", syms, "--build-adjust", "never"]);
        let finished = job.stderr(Sink::Collect).run().map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&finished.stderr).into_owned();
        println!("never: exit code {}, {}", finished.code, said.lines().next().unwrap_or_default());
        let old = ["4.13", "4.14", "4.15", "4.16"].contains(&self.tree.version);
        let told = said.contains("[functions-together]");
        match (old, finished.code) {
            (true, 1) if told => Ok(()),
            (false, 0) => Ok(()),
            // Where the configuration asks for no debug information, layouts cannot be compared.
            (false, 1) if said.contains("[no-debug-info]") => Ok(()),
            (_, code) => Err(format!("--build-adjust never ends with {code}: {said}")),
        }
    }
}

fn section_size(shown: &Value, name: &str) -> Option<u64> {
    let sections = shown["sections"].as_array()?;
    sections.iter().find(|section| section["name"] == name)?["size"].as_u64()
}
