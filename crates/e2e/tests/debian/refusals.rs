//! Each kind of change that is refused or fails, with its message and its exit code.

use std::path::PathBuf;

use fs_err as fs;
use libtest_mimic::{Completion, Failed};
use xsplice_e2e::{Recipe, hooks, recipes};

use crate::same;
use crate::setup::{self, Build, Setup};

type Outcome = Result<Completion, Failed>;

/// What a run must say.
struct Wanted {
    exit: i32,
    /// The code of one of its problems.
    code: &'static str,
    /// What that problem's text must have, place included.
    says: &'static [&'static str],
}

fn expect(build: &Build<'_>, wanted: &Wanted) -> Result<(), String> {
    let built = build.run()?;
    let told =
        |what: &str| Err(format!("{what}; exit code {:?}\n{}\n{}", built.code, built.stderr, built.report));
    if built.code != Some(wanted.exit) {
        return told(&format!("exit code {} was expected", wanted.exit));
    }
    if built.payload.exists() {
        return told("there is a payload");
    }
    if built.report["exit_code"] != wanted.exit {
        return told("the report has another exit code");
    }
    let problems = built.report["problems"].as_array().cloned().unwrap_or_default();
    let problem = problems.iter().find(|problem| problem["code"] == wanted.code);
    let Some(problem) = problem else {
        return told(&format!("there is no problem {}", wanted.code));
    };
    if !built.stderr.contains(&format!("[{}]", wanted.code)) {
        return told("the terminal does not show the problem");
    }
    let text = problem.to_string();
    for part in wanted.says {
        if !text.contains(part) {
            return told(&format!("{} does not mention {part}", wanted.code));
        }
    }
    // A refusal tells what to do instead.
    if wanted.exit == 2 && problem["advice"].as_str().is_none_or(str::is_empty) {
        return told(&format!("{} has no advice", wanted.code));
    }
    Ok(())
}

fn refused(recipe: &Recipe, code: &'static str, says: &'static [&'static str]) -> Outcome {
    setup::with(|setup| {
        let build = setup.build(recipe.name, &setup.made(recipe)?.diff)?;
        expect(&build, &Wanted { exit: 2, code, says })
    })
}

pub fn does_not_apply() -> Outcome {
    setup::with(|setup| {
        // A hunk whose context the tree does not have.
        let diff = setup.made(&recipes::STATIC)?.diff.replace("NR_DOMAIN_WATCHDOG", "NO_DOMAIN_WATCHDOG");
        let build = setup.build("does-not-apply", &diff)?;
        let says = &["xen/common/sched/core.c", "hunk"];
        expect(&build, &Wanted { exit: 1, code: "patch-does-not-apply", says })
    })
}

pub fn livepatch_off() -> Outcome {
    setup::with(|setup| {
        let config = fs::read_to_string(&setup.debian.config).map_err(|error| error.to_string())?;
        let off = config.replace("CONFIG_LIVEPATCH=y", "# CONFIG_LIVEPATCH is not set");
        if off == config {
            return Err("Debian's configuration has live patching off already".to_owned());
        }
        let mut build = setup.build("livepatch-off", &setup.made(&recipes::STATIC)?.diff)?;
        build.config = setup.work.join("livepatch-off.config");
        fs::write(&build.config, off).map_err(|error| error.to_string())?;
        expect(&build, &Wanted { exit: 1, code: "livepatch-off", says: &["CONFIG_LIVEPATCH"] })
    })
}

/// A hypervisor that was built from a tree with a change: private names and sizes, all of them real.
pub fn another_xens_symbols() -> Outcome {
    setup::with(|setup| {
        let xen_syms = built_elsewhere(setup)?;
        let mut build = setup.build("other-xen", &setup.made(&recipes::STRING)?.diff)?;
        build.xen_syms = Some(xen_syms);
        let says = &[
            "kernel.o",
            "Other sizes",
            "xen_version has",
            "built from other code, flags or compiler: most functions that were compared agree",
            "Its configuration is the same.",
        ];
        expect(&build, &Wanted { exit: 2, code: "base-mismatch", says })
    })
}

/// Builds another Xen without any symbol file: the build's own gives the names, and both ids have to be told.
fn built_elsewhere(setup: &Setup) -> Result<PathBuf, String> {
    let tree = setup.work.join("another xen");
    same::copy_tree(setup, &tree)?;
    for (file, text) in setup.made(&recipes::NEW_STATIC)?.files {
        fs::write(tree.join(file), text).map_err(|error| error.to_string())?;
    }
    let diff = recipes::STATIC.make(&tree).map_err(|error| error.to_string())?.diff;
    let mut build = setup.build("on-another-xen", &diff)?;
    (build.tree, build.xen_syms, build.cache) = (tree, None, setup.work.join("another-cache"));
    expect(&build, &Wanted { exit: 1, code: "id-needed", says: &["--depends", "--xen-depends"] })?;
    let id = "00112233445566778899aabbccddeeff00112233";
    // With the preset it says about itself what Debian's says, and so belongs to the usual base.
    let args = ["--depends", id, "--xen-depends", id, "--preset", "debian"];
    build.args = args.map(str::to_owned).to_vec();
    build.run()?.bytes()?;
    let bases = fs::read_dir(build.cache.join("bases")).map_err(|error| error.to_string())?;
    let symbols = bases.filter_map(|base| Some(base.ok()?.path().join("pristine/xen/xen-syms")));
    symbols.into_iter().find(|file| file.is_file()).ok_or_else(|| "the build made no xen-syms".to_owned())
}

pub fn changed_struct() -> Outcome {
    refused(&recipes::STRUCT, "layout-changed", &["kexec_image"])
}

pub fn new_percpu() -> Outcome {
    refused(&recipes::PERCPU, "new-percpu", &["xsplice_e2e_calls"])
}

pub fn changed_data() -> Outcome {
    refused(&recipes::DATA, "data-changed", &["xenlog_upper_thresh"])
}

/// By their names and by what the shipped code calls; and nothing is said of the switch of contexts.
pub fn runs_meanwhile() -> Outcome {
    setup::with(|setup| {
        let build = setup.build("runs-meanwhile", &setup.made(&recipes::MEANWHILE)?.diff)?;
        expect(&build, &Wanted { exit: 2, code: "crash-at-apply", says: &["do_nmi", "NMIs"] })?;
        let report = build.run()?.report;
        let problems = report["problems"].as_array().cloned().unwrap_or_default();
        let whats: Vec<&str> = problems.iter().filter_map(|problem| problem["what"].as_str()).collect();
        let wanted = [
            "do_nmi is to be replaced, and can be running meanwhile",
            "mcheck_mca_logout is to be replaced, and is called by mcheck_cmn_handler",
        ];
        if whats != wanted { Err(format!("the problems are {whats:?}")) } else { Ok(()) }
    })
}

/// Taken in the hypervisor: its own link fails.
pub fn name_taken() -> Outcome {
    setup::with(|setup| {
        let build = setup.build("name-taken", &setup.made(&recipes::NAME_TAKEN)?.diff)?;
        let says = &["pmstat_reset_cx_stat is defined twice", "xen/arch/x86/acpi/cpu_idle.o defines it, too"];
        expect(&build, &Wanted { exit: 1, code: "defined-twice", says })
    })
}

/// Taken in the payload below: only the host would notice.
pub fn name_taken_below() -> Outcome {
    setup::with(|setup| {
        let lower = setup.payload(&recipes::LOWER)?;
        lower.bytes()?;
        let mut build = setup.build("lower-again", &setup.made(&recipes::LOWER)?.diff)?;
        build.args = vec!["--depends".to_owned(), lower.payload.to_string_lossy().into_owned()];
        expect(&build, &Wanted { exit: 2, code: "name-taken", says: &["xsplice_e2e_lower"] })
    })
}

pub fn no_room() -> Outcome {
    refused(&recipes::NO_ROOM, "no-room", &["__set_fixmap_x"])
}

pub fn assembler_only() -> Outcome {
    refused(&recipes::ASSEMBLER, "assembler-changed", &["entry"])
}

pub fn makefile() -> Outcome {
    refused(&recipes::MAKEFILE, "build-file-changes-other-objects", &["xen/common/sched/"])
}

/// The objects of another folder are compiled anew, and two of them are others.
pub fn kconfig() -> Outcome {
    let says = &["xen/arch/x86/Kconfig", "CONFIG_PV_LINEAR_PT was y and is not set", "xen/arch/x86/mm.o"];
    refused(&recipes::KCONFIG, "build-file-changes-other-objects", says)
}

pub fn hook_without_landing() -> Outcome {
    refused(&hooks::NO_LANDING, "hook-endbr", &["xsplice_e2e_plain", "xen/common/sched/core.c", "cf_check"])
}

pub fn hook_twice() -> Outcome {
    refused(&hooks::TWICE, "hook-twice", &["xen/arch/x86/physdev.o", "xen/arch/x86/x86_64/physdev.o"])
}

/// A change of which nothing reaches the running hypervisor: exit code 3, and a reason for each file.
pub fn nothing(recipe: &Recipe, reason: &str) -> Outcome {
    setup::with(|setup| {
        let built = setup.payload(recipe)?;
        let told = |what: &str| Err(format!("{what}; {:?}\n{}\n{}", built.code, built.stderr, built.report));
        if built.code != Some(3) {
            return told("exit code 3 was expected");
        }
        if built.payload.exists() {
            return told("there is a payload");
        }
        let file = recipe.edits.first().map(|edit| edit.file).unwrap_or_default();
        let lines = built.report["nothing"].as_array().cloned().unwrap_or_default();
        let why = lines.iter().filter_map(|line| line.as_str()).find(|line| line.contains(file));
        match why {
            Some(why) if why.contains(reason) => Ok(()),
            _ => told(&format!("no line says {reason} of {file}")),
        }
    })
}
