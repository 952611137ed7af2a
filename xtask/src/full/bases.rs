//! Originals that are not what Debian ships: each is refused, with what it is that differs. The right one is taken.

use std::path::{Path, PathBuf};

use fs_err as fs;
use xsplice_e2e::{At, Edit, Recipe, recipes};
use xsplice_process::{Job, Sink};

use super::{DEBIAN, Desk};

/// An original, made by the patch's object and those beside it.
struct Original {
    what: &'static str,
    /// Options of `xsplice build`.
    options: &'static [&'static str],
    /// A line of Debian's configuration, and what stands in its place.
    config: Option<(&'static str, &'static str)>,
    /// What the tree has more than Debian's.
    source: Option<&'static Recipe>,
    /// What the refusal says; none where there is a payload.
    said: Option<&'static str>,
}

const SHIPPED: Original =
    Original { what: "as it was shipped", options: &[], config: None, source: None, said: None };

const ORIGINALS: &[Original] = &[
    SHIPPED,
    Original {
        what: "by another compiler",
        options: &["--cc", "gcc-11"],
        said: Some("[other-compiler]"),
        ..SHIPPED
    },
    Original {
        what: "at another level of optimisation",
        options: &["--make-var", "EXTRA_CFLAGS_XEN_CORE=-O1"],
        said: Some("most functions that were compared differ"),
        ..SHIPPED
    },
    Original {
        what: "of another configuration",
        config: Some((
            "CONFIG_SPECULATIVE_HARDEN_BRANCH=y\n",
            "# CONFIG_SPECULATIVE_HARDEN_BRANCH is not set\n",
        )),
        said: Some("CONFIG_SPECULATIVE_HARDEN_BRANCH is n here, y was shipped"),
        ..SHIPPED
    },
    Original {
        what: "with another source of one function",
        source: Some(&AFFINITY),
        said: Some("common/sched/core.c#vcpu_set_affinity has"),
        ..SHIPPED
    },
];

/// A function of the patched file that the patch leaves alone.
const AFFINITY: Recipe = Recipe {
    name: "affinity",
    what: "Refuse one more thing",
    edits: &[Edit {
        file: "xen/common/sched/core.c",
        at: At::Behind("vcpu_set_affinity", "int ret = 0;"),
        text: "\n    if ( !affinity )\n        return -EINVAL;\n",
    }],
};

/// The names of the checks, with what does them.
pub(super) fn all() -> impl Iterator<Item = (String, impl Fn(&Desk) -> Result<(), String>)> {
    ORIGINALS.iter().map(|original| {
        let name = format!("Debian's hypervisor and an original {}", original.what);
        (name, move |desk: &Desk| check(original, desk))
    })
}

fn check(original: &Original, desk: &Desk) -> Result<(), String> {
    let io = |error: std::io::Error| error.to_string();
    let work = desk.work.join("bases");
    if work.exists() {
        fs::remove_dir_all(&work).map_err(io)?;
    }
    fs::create_dir_all(&work).map_err(io)?;
    let tree = desk.tree(DEBIAN, "bases/tree")?;
    if let Some(recipe) = original.source {
        apply(&tree, recipe, &work)?;
    }
    let patch = work.join("watchdog.patch");
    let made = recipes::STATIC.make(&tree).map_err(|error| error.to_string())?;
    fs::write(&patch, made.diff).map_err(io)?;
    let mut config = fs::read_to_string(&desk.debian.config).map_err(io)?;
    if let Some((line, other)) = original.config {
        if !config.contains(line) {
            return Err(format!("the configuration does not say {line}"));
        }
        config = config.replace(line, other);
    }
    let file = work.join("config");
    fs::write(&file, config).map_err(io)?;
    let result = run(original, desk, [&tree, &patch, &file], &work);
    fs::remove_dir_all(&work).map_err(io)?;
    result
}

/// Changes a tree.
fn apply(tree: &Path, recipe: &Recipe, work: &Path) -> Result<(), String> {
    let diff = work.join("difference.patch");
    fs::write(&diff, recipe.make(tree).map_err(|error| error.to_string())?.diff)
        .map_err(|error| error.to_string())?;
    crate::done(Job::new("patch").args(["-p1", "-i"]).arg(&diff).arg("-d").arg(tree)).map(drop)
}

fn run(
    original: &Original,
    desk: &Desk,
    [tree, patch, config]: [&PathBuf; 3],
    work: &Path,
) -> Result<(), String> {
    let job = Job::new(&desk.xsplice)
        .args(["--quiet", "build", "-s"])
        .arg(tree)
        .arg("-p")
        .arg(patch)
        .arg("-c")
        .arg(config)
        .arg("--xen-syms")
        .arg(&desk.debian.xen_syms)
        .arg("-o")
        .arg(work.join("out"))
        .args(original.options)
        .env("XSPLICE_CACHE", work.join("cache"));
    let finished = job.stderr(Sink::Collect).run().map_err(|error| error.to_string())?;
    let stderr = String::from_utf8_lossy(&finished.stderr).into_owned();
    let payload = work.join("out/watchdog.livepatch").exists();
    println!("exit code {}\n{stderr}", finished.code);
    match original.said {
        None if finished.code == 0 && payload => Ok(()),
        Some(said) if finished.code == 2 && !payload => {
            let told = stderr.contains("[base-mismatch]") && stderr.contains(said);
            if told { Ok(()) } else { Err(format!("it does not say \"{said}\"")) }
        }
        _ => Err("another outcome was expected".to_owned()),
    }
}
