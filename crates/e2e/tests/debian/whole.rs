//! Whole builds: every object against itself, of Debian's Xen and of an older one, which also gets a payload.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::{Completion, Failed};
use serde_json::Value;
use xsplice_boot::{OLD_XEN_CC, OldXen};
use xsplice_build::{Adjust, Preset, Request, Silent};
use xsplice_e2e::{recipes, unchanged};
use xsplice_report::Problems;

use crate::setup::{self, BUILDS, Setup};

type Outcome = Result<Completion, Failed>;

/// Ids that no hypervisor has: the private build's names are used, and it is not booted.
const ID: &str = "0123456789abcdef0123456789abcdef01234567";

fn told(problems: Problems) -> String {
    problems.0.iter().map(|problem| format!("{} ({})\n", problem.what, problem.place)).collect()
}

/// Every object of the original build against itself: nothing may differ, and nothing be refused.
fn nothing_differs(request: Request, at_least: usize) -> Result<(), String> {
    let _shared = BUILDS.read().map_err(|error| error.to_string())?;
    let replay = xsplice_build::replay(request, &Silent).map_err(told)?;
    let objects = unchanged::running(replay.objects()).map_err(told)?;
    if objects.len() < at_least {
        return Err(format!("only {} objects, not {at_least}", objects.len()));
    }
    let own: Vec<&[u8]> = objects.iter().map(|(_, bytes)| bytes.as_slice()).collect();
    let found = unchanged::compare(&objects, &own);
    if found.differences.is_empty() { Ok(()) } else { Err(found.differences.join("\n")) }
}

fn request(setup: &Setup, tree: PathBuf, config: PathBuf) -> Request {
    let logs = setup.work.join("whole-logs");
    Request::new(tree, Vec::new(), config, &setup.cache, &setup.xsplice, logs)
}

/// The build that the other tests have kept.
pub fn debian() -> Outcome {
    setup::with(|setup| {
        let debian = &setup.debian;
        let mut request = request(setup, debian.source_tree.clone(), debian.config.clone());
        request.want_symbols = false;
        let shipped = fs_err::read(&debian.xen_syms).map_err(|error| error.to_string())?;
        let shipped = xsplice_objects::Hypervisor::parse("xen-syms", &shipped).map_err(told)?;
        request.shipped_texts = shipped.returned_texts();
        nothing_differs(request, 370)
    })
}

/// Debian's hypervisor from its source package by its preset: without any added flag the symbol file is the shipped
/// one, byte for byte; with those that xsplice adds, what is loaded of it is, but for the build-id.
pub fn preset() -> Outcome {
    if std::env::var_os("XSPLICE_FULL").is_none_or(|value| value != "1") {
        return Ok(Completion::ignored_with("it takes two whole builds; XSPLICE_FULL=1 runs it"));
    }
    setup::with(|setup| {
        let debian = &setup.debian;
        let read = |path: &Path| fs_err::read(path).map_err(|error| error.to_string());
        let shipped = read(&debian.xen_syms)?;
        let tree = &debian.source_tree;
        let _shared = BUILDS.read().map_err(|error| error.to_string())?;
        for adjust in [Adjust::Never, Adjust::Auto] {
            let mut request = request(setup, tree.clone(), tree.join(xsplice_build::DEBIAN_CONFIG));
            Preset::Debian.apply(&mut request).map_err(|problem| problem.what)?;
            request.adjust = adjust;
            let replay = xsplice_build::replay(request, &Silent).map_err(told)?;
            if read(&replay.tree().join("xen/.config"))? != read(&debian.config)? {
                return Err("the configuration is not the shipped one".to_owned());
            }
            let built = read(&replay.built_xen_syms().ok_or("there is no symbol file")?)?;
            let same = match adjust {
                Adjust::Never => built == shipped,
                _ => loaded(&built, setup)? == loaded(&shipped, setup)?,
            };
            if !same {
                return Err(format!("with flags added {adjust:?}, it is not the shipped one"));
            }
        }
        Ok(())
    })
}

/// The loaded sections of a symbol file, and the addresses and names of its symbols, as binutils tell.
fn loaded(bytes: &[u8], setup: &Setup) -> Result<(String, Vec<u8>), String> {
    let folder = tempfile::TempDir::new_in(&setup.work).map_err(|error| error.to_string())?;
    let (file, flat) = (folder.path().join("xen-syms"), folder.path().join("flat"));
    fs_err::write(&file, bytes).map_err(|error| error.to_string())?;
    let run = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).arg(&file).output();
        let output = output.map_err(|error| format!("{program}: {error}"))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() { Ok(said) } else { Err(format!("{program} failed")) }
    };
    run("objcopy", &["--remove-section=.note.gnu.build-id", "--strip-debug"])?;
    let symbols = run("nm", &["-n"])?;
    let flat_path = flat.to_string_lossy().into_owned();
    let copied = Command::new("objcopy").args(["-O", "binary"]).arg(&file).arg(&flat_path).status();
    if !copied.is_ok_and(|status| status.success()) {
        return Err("objcopy failed".to_owned());
    }
    fs_err::read(flat).map(|flat| (symbols, flat)).map_err(|error| error.to_string())
}

/// One changed function of Xen 4.14.6, with the compiler of its time; then its objects against themselves.
pub fn old() -> Outcome {
    if !Command::new(OLD_XEN_CC)
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
    {
        let why = format!("{OLD_XEN_CC} is not there");
        // As everywhere: a machine that claims to be complete lacks nothing.
        let complete = std::env::var_os("CI").is_some_and(|ci| ci == "true");
        return if complete { Err(why.into()) } else { Ok(Completion::ignored_with(why)) };
    }
    setup::with(|setup| {
        let OldXen { source_tree, config } = xsplice_boot::fetch_old(&setup.cache, &|_| {}).map_err(told)?;
        let recipe = &recipes::DEMO;
        let made = recipe.make(&source_tree).map_err(|error| error.to_string())?;
        let mut build = setup.build("old-xen", &made.diff)?;
        build.tree.clone_from(&source_tree);
        build.config.clone_from(&config);
        build.xen_syms = None;
        build.args = ["--cc", OLD_XEN_CC, "--depends", ID, "--xen-depends", ID].map(str::to_owned).to_vec();
        let built = build.run()?;
        built.bytes()?;
        if built.functions() != ["arch_get_xen_caps"] {
            return Err(format!("{:?} are replaced", built.functions()));
        }
        let output = Command::new(&setup.xsplice)
            .args(["--json", "inspect"])
            .arg(&built.payload)
            .output()
            .map_err(|error| error.to_string())?;
        let shown: Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
        layout_of_4_14(&shown)?;
        let mut request = request(setup, source_tree, config);
        request.toolchain.cc = OLD_XEN_CC.to_owned();
        nothing_differs(request, 300)
    })
}

/// Xen 4.14's struct livepatch_func has 104 bytes (three pointers, two 32-bit sizes, a version, 31 opaque bytes,
/// two flags, 6 bytes of padding, and an expectation of 32) and version 2.
fn layout_of_4_14(shown: &Value) -> Result<(), String> {
    let sections = shown["sections"].as_array().cloned().unwrap_or_default();
    let funcs = sections.iter().find(|section| section["name"] == ".livepatch.funcs");
    let size = funcs.map(|section| section["size"].clone());
    let version = &shown["functions"][0]["version"];
    if size == Some(104.into()) && *version == 2 {
        return Ok(());
    }
    Err(format!("one entry of version {version} has {size:?} bytes"))
}
