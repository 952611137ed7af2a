//! The first stage: what the patches touch, and what a build would need.

use std::path::PathBuf;

use fs_err as fs;
use xsplice_report::{Diagnostic, Place, Problems};

use crate::classify::{self, FileClass, TouchedFile};
use crate::config::{self, Options};
use crate::launcher::Launch;
use crate::patchset::{self, Changes};
use crate::request::Request;
use crate::tools::Tools;
use crate::tree::{self, Entry, Snapshot};
use crate::{base, codes, metadata, public};

/// What planning found.
#[derive(Debug)]
pub enum Planned {
    /// There is something to build.
    Build(Box<BuildPlan>),
    /// Nothing that the patches touch can reach the hypervisor.
    Nothing(NothingToBuild),
}

/// A change that cannot reach the hypervisor; each file's `reason` says why.
#[derive(Debug, Clone)]
pub struct NothingToBuild {
    /// What the patches touch. Empty where they cancel out.
    pub touched: Vec<TouchedFile>,
    /// Warnings.
    pub warnings: Problems,
}

/// All that [`crate::build()`] needs.
#[derive(Debug)]
pub struct BuildPlan {
    pub(crate) request: Request,
    pub(crate) changes: Changes,
    pub(crate) touched: Vec<TouchedFile>,
    pub(crate) snapshot: Snapshot,
    pub(crate) config: Vec<u8>,
    pub(crate) asked: Options,
    pub(crate) tools: Tools,
    /// What the build is to say about itself as the shipped hypervisor does.
    pub(crate) metadata: metadata::Texts,
    /// The name of the kept build that belongs to all this.
    pub(crate) key: String,
    pub(crate) warnings: Problems,
}

impl BuildPlan {
    /// What the patches touch, sorted by path.
    pub fn touched(&self) -> &[TouchedFile] {
        &self.touched
    }

    /// What of the interface to guests and the toolstack changes, and stands in the way of a payload.
    pub fn public_constants(&self) -> Problems {
        public::changed(&self.changes)
    }

    /// The first line of the compiler's own description.
    pub fn compiler(&self) -> &str {
        &self.tools.compiler
    }

    /// Whether an earlier run has left the original build.
    pub fn base_is_kept(&self) -> bool {
        let kept = |name: &str| base::is_complete(&self.request.cache, name);
        let whole = matches!(base::Scope::of(self), base::Scope::Whole { .. });
        kept(&self.key) || (!whole && kept(&base::part_of(&self.key)))
    }
}

/// Reads patches, tree and configuration.
///
/// # Errors
/// Patches that do not apply, a tree or configuration that is none, missing programs: all that is found.
pub fn plan(request: Request) -> Result<Planned, Problems> {
    check_tree(&request)?;
    let (changes, warnings) = patchset::apply_all(&request.tree, &request.patches)?;
    let touched = classify::touched(&changes);
    if !touched.iter().any(|file| file.class.can_reach_hypervisor()) {
        return Ok(Planned::Nothing(NothingToBuild { touched, warnings }));
    }
    prepare(request, changes, touched, warnings).map(|plan| Planned::Build(Box::new(plan)))
}

/// A plan for the tree as it is, without any patch: for what only wants the original build.
pub(crate) fn plan_original(request: Request) -> Result<BuildPlan, Problems> {
    check_tree(&request)?;
    prepare(request, Changes::default(), Vec::new(), Problems::new())
}

/// Reads the rest: configuration, tools, tree.
fn prepare(
    request: Request,
    changes: Changes,
    touched: Vec<TouchedFile>,
    mut warnings: Problems,
) -> Result<BuildPlan, Problems> {
    let mut problems = Problems::new();
    problems.extend(linker_scripts(&touched));
    let config = read_config(&request);
    let mut tools = Tools::find(&request.toolchain, &request.make_vars);
    if let (Ok(tools), Some(launch)) = (&mut tools, &request.launcher) {
        problems.extend(tools.launch_with(launch).err());
        warnings.extend(source_leaves(launch));
    }
    if let Err(more) = &config {
        problems.push(more.clone());
    }
    if let Err(more) = &tools {
        problems.extend(more.clone());
    }
    let ((config, asked), tools) = match (config, tools) {
        (Ok(config), Ok(tools)) if problems.is_harmless() => (config, tools),
        _ => return Err(problems),
    };
    let snapshot = tree::snapshot(&request.tree, None).map_err(|error| codes::io(&error))?;
    check_same(&snapshot, &changes)?;
    let metadata = match changes.contains_key(metadata::TEMPLATE) {
        true => metadata::Texts::new(),
        false => metadata::find(&request.tree, &request.shipped_texts).map_err(|error| codes::io(&error))?,
    };
    let key = base::key(&request, &snapshot, &config, &tools, &metadata);
    Ok(BuildPlan { request, changes, touched, snapshot, config, asked, tools, metadata, key, warnings })
}

fn check_tree(request: &Request) -> Result<(), Diagnostic> {
    let makefile = request.tree.join("xen/Makefile");
    if makefile.is_file() && request.tree.join("Config.mk").is_file() {
        return Ok(());
    }
    let place = Place::file(request.tree.display().to_string());
    let inside = request.tree.join("Rules.mk").is_file() && request.tree.join("Kconfig").is_file();
    let advice = if inside {
        "Give the folder above this one: the one that holds xen/ and Config.mk."
    } else {
        "Give the folder that holds xen/ and Config.mk."
    };
    Err(Diagnostic::new(codes::TREE_UNUSABLE, "there is no Xen source tree here").at(place).advice(advice))
}

fn source_leaves(launch: &Launch) -> Option<Diagnostic> {
    let name = launch.launcher.name();
    launch.launcher.sends_source().then(|| {
        Diagnostic::new(codes::SOURCE_LEAVES, format!("{name} sends source to other machines"))
            .why("What is compiled there includes the patch, which may be under embargo.")
            .advice("Use it only with machines and a network that may know the patch.")
    })
}

fn linker_scripts(touched: &[TouchedFile]) -> Option<Diagnostic> {
    let file = touched.iter().find(|file| file.class == FileClass::LinkerScript)?;
    Some(
        Diagnostic::new(codes::LINKER_SCRIPT_CHANGED, format!("{} is changed", file.path))
            .at(Place::file(&file.path))
            .why("It decides where things lie in memory, and the running hypervisor lies there already.")
            .advice("Leave this part out if the fix works without it; otherwise the host needs a reboot."),
    )
}

fn read_config(request: &Request) -> Result<(Vec<u8>, Options), Diagnostic> {
    let place = Place::file(request.config.display().to_string());
    let bytes = fs::read(&request.config)
        .map_err(|error| Diagnostic::new(codes::CONFIG_UNREADABLE, error.to_string()).at(place.clone()))?;
    let options = std::str::from_utf8(&bytes)
        .map_err(|_| "it is not text".to_owned())
        .and_then(config::parse)
        .map_err(|what| {
            Diagnostic::new(codes::CONFIG_UNREADABLE, what)
                .at(place)
                .advice("Give the hypervisor's configuration, such as /boot/xen-VERSION.config.")
        })?;
    Ok((bytes, options))
}

/// Whether the files that the patches were applied to are the ones that will be copied.
fn check_same(snapshot: &Snapshot, changes: &Changes) -> Result<(), Diagnostic> {
    for (path, change) in changes {
        if let (Some(Entry::File { hash, .. }), Some(before)) =
            (snapshot.entries.get(&PathBuf::from(path)), &change.before)
            && *hash != *blake3::hash(before).as_bytes()
        {
            return Err(tree_changed(path));
        }
    }
    Ok(())
}

pub(crate) fn tree_changed(path: &str) -> Diagnostic {
    Diagnostic::new(codes::TREE_CHANGED, "the tree changed while it was being read")
        .at(Place::file(path))
        .advice("Run again while nothing else writes there.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::PatchInput;

    #[test]
    fn a_tree_that_changes_between_patching_and_copying_is_noticed() {
        let tree = tempfile::tempdir().unwrap();
        let file = tree.path().join("xen/common/a.c");
        fs::create_dir_all(tree.path().join("xen/common")).unwrap();
        fs::write(&file, "int a;\n").unwrap();
        let patch = "--- a/xen/common/a.c\n+++ b/xen/common/a.c\n@@ -1 +1 @@\n-int a;\n+int b;\n";
        let patch = PatchInput { name: "p.patch".to_owned(), bytes: patch.into() };
        let (changes, _) = patchset::apply_all(tree.path(), &[patch]).unwrap();
        let same = tree::snapshot(tree.path(), None).unwrap();
        assert_eq!(check_same(&same, &changes), Ok(()));
        fs::write(&file, "int a; /* edited */\n").unwrap();
        let other = tree::snapshot(tree.path(), None).unwrap();
        let problem = check_same(&other, &changes).unwrap_err();
        assert_eq!(problem.code, codes::TREE_CHANGED);
        assert_eq!(problem.place.file.as_deref(), Some("xen/common/a.c"));
    }
}
