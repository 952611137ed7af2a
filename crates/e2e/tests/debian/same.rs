//! The same bytes whatever the circumstances, and trees that cannot be written to.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fs_err as fs;
use libtest_mimic::{Completion, Failed};
use xsplice_e2e::recipes;

use crate::killed;
use crate::setup::{self, Build, Setup};

type Outcome = Result<Completion, Failed>;

/// A user and group that own nothing.
const NOBODY: u32 = 65534;

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr)))
}

pub fn copy_tree(setup: &Setup, to: &Path) -> Result<(), String> {
    let from = format!("{}/.", setup.debian.source_tree.display());
    fs::create_dir_all(to).map_err(|error| error.to_string())?;
    run("cp", &["-a", &from, &to.to_string_lossy()])
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn string(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A copy of the tree that only its owner, who is somebody else, could write to.
fn foreign_tree(setup: &Setup, name: &str) -> Result<PathBuf, String> {
    let tree = setup.work.join(name);
    copy_tree(setup, &tree)?;
    if is_root() {
        run("chown", &["-R", "12345:12345", &string(&tree)])?;
    }
    run("chmod", &["-R", "a+rX,a-w", &string(&tree)])?;
    Ok(tree)
}

fn the_usual_payload(setup: &Setup) -> Result<Vec<u8>, String> {
    setup.payload(&recipes::NEW_STATIC)?.bytes_and_note()
}

fn build<'a>(setup: &'a Setup, tree: &Path) -> Result<Build<'a>, String> {
    let recipe = &recipes::NEW_STATIC;
    let mut build = setup.build(recipe.name, &setup.made(recipe)?.diff)?;
    build.tree = tree.to_owned();
    Ok(build)
}

/// A locale of its own kind: i is not the small I there, decimals have a comma, and tools speak Turkish.
fn turkish(setup: &Setup) -> Result<PathBuf, String> {
    let folder = setup.work.join("locales");
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let locale = folder.join("tr_TR.UTF-8");
    run("localedef", &["-i", "tr_TR", "-f", "UTF-8", &string(&locale)])?;
    let output = Command::new("locale")
        .arg("decimal_point")
        .envs([("LC_ALL", "tr_TR.UTF-8"), ("LOCPATH", &string(&folder))])
        .output()
        .map_err(|error| error.to_string())?;
    if output.stdout != b",\n" {
        return Err("the locale that was made is not used".to_owned());
    }
    Ok(folder)
}

/// Empty caches (elsewhere), another place of the tree, one job, another locale, time zone, umask, and
/// user where this runs as root. The first run into those caches is killed in the middle of its build.
pub fn same_bytes() -> Outcome {
    setup::with(|setup| {
        let wanted = the_usual_payload(setup)?;
        let home = setup.work.join("elsewhere/with-a-longer-path");
        fs::create_dir_all(&home).map_err(|error| error.to_string())?;
        let tree = setup.work.join("another place/tree");
        copy_tree(setup, &tree)?;
        let mut build = build(setup, &tree)?;
        build.cache = home.join("cache");
        build.out = home.join("out");
        build.args = vec!["-j".to_owned(), "1".to_owned()];
        build.envs = vec![
            ("TZ", "Asia/Kathmandu".to_owned()),
            ("LC_ALL", "tr_TR.UTF-8".to_owned()),
            ("LOCPATH", string(&turkish(setup)?)),
            ("HOME", string(&home)),
            ("SOURCE_DATE_EPOCH", "1".to_owned()),
            ("MAKEFLAGS", "--no-print-directory".to_owned()),
        ];
        let shell = "umask 077; exec \"$@\"";
        build.through = ["sh", "-c", shell, "sh"].map(str::to_owned).to_vec();
        if is_root() {
            run("chown", &["-R", &NOBODY.to_string(), &string(&setup.work.join("elsewhere"))])?;
            // The program may lie where others cannot reach it.
            let program = setup.work.join("xsplice");
            fs::copy(&setup.xsplice, &program).map_err(|error| error.to_string())?;
            let id = format!("--reuid={NOBODY}");
            let words = ["setpriv", &id, "--regid=65534", "--clear-groups"].map(str::to_owned);
            build.through.splice(0..0, words);
            for file in [&mut build.patch, &mut build.config].into_iter().chain(&mut build.xen_syms) {
                let reachable = setup.work.join(file.file_name().unwrap_or_default());
                fs::copy(&*file, &reachable).map_err(|error| error.to_string())?;
                *file = reachable;
            }
            run("chmod", &["-R", "a+rX", &string(&setup.work.join("another place"))])?;
            return killed_then_same(setup, &build, &program, &wanted);
        }
        killed_then_same(setup, &build, &setup.xsplice, &wanted)
    })
}

fn killed_then_same(setup: &Setup, build: &Build<'_>, program: &Path, wanted: &[u8]) -> Result<(), String> {
    let with_program = |command: &mut Command| {
        // The program is the first of the arguments behind the words that it is run through.
        let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let mut again = Command::new(command.get_program());
        let own = setup.xsplice.as_os_str();
        again.args(args.into_iter().map(|arg| if arg == own { program.as_os_str().to_owned() } else { arg }));
        again.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        again.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        again
    };
    let mut first = with_program(&mut build.command()).spawn().map_err(|error| error.to_string())?;
    let mut seen = String::new();
    let mut stderr = first.stderr.take().ok_or("no stream")?;
    let mut byte = [0];
    const STEP: &str = "asking for its commands";
    while !seen.contains(STEP) && stderr.read(&mut byte).is_ok_and(|count| count == 1) {
        seen.push(char::from(byte[0]));
    }
    // In the middle of that step, which takes several seconds.
    std::thread::sleep(std::time::Duration::from_secs(3));
    first.kill().map_err(|error| error.to_string())?;
    first.wait().map_err(|error| error.to_string())?;
    if !seen.contains(STEP) {
        return Err(format!("the first run did not come to its build:\n{seen}"));
    }
    killed::no_stray_process(&build.cache)?;
    if build.out.join(format!("{}.livepatch", build.name)).exists() {
        return Err("the killed run left a payload".to_owned());
    }
    let output = with_program(&mut build.command()).output().map_err(|error| error.to_string())?;
    let built = build.ended(output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned());
    if built.bytes_and_note()? == wanted { Ok(()) } else { Err("the bytes differ".to_owned()) }
}

/// One job instead of several, with the kept original build.
pub fn same_bytes_with_one_job() -> Outcome {
    setup::with(|setup| {
        let wanted = the_usual_payload(setup)?;
        let mut build = build(setup, &setup.debian.source_tree)?;
        build.args = vec!["-j1".to_owned()];
        if build.run()?.bytes_and_note()? == wanted { Ok(()) } else { Err("the bytes differ".to_owned()) }
    })
}

/// Without the shipped symbols all of the original is built and linked. What a private build begins its functions with is
/// not what was shipped, so nothing is expected in either payload.
pub fn same_bytes_of_a_whole_original() -> Outcome {
    setup::with(|setup| {
        let mut build = build(setup, &setup.debian.source_tree)?;
        build.args = vec!["--no-expect".to_owned()];
        let shipped = build.run()?;
        let wanted = shipped.bytes()?;
        let id = shipped.report["payload"]["xen_depends"].as_str().ok_or("no id")?.to_owned();
        build.cache = setup.work.join("whole-cache");
        build.xen_syms = None;
        build.args.extend(["--depends", &id, "--xen-depends", &id].map(str::to_owned));
        let built = build.run()?;
        if built.report["original"]["whole"] != true {
            return Err(built.report["original"].to_string());
        }
        if built.bytes()? == wanted { Ok(()) } else { Err("the bytes differ".to_owned()) }
    })
}

/// A program's folder without git.
pub fn no_git() -> Outcome {
    setup::with(|setup| {
        let programs = setup.work.join("programs");
        fs::create_dir_all(&programs).map_err(|error| error.to_string())?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        for folder in std::env::split_paths(&path) {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let name = entry.file_name();
                if name != "git" && !programs.join(&name).exists() {
                    std::os::unix::fs::symlink(entry.path(), programs.join(&name))
                        .map_err(|e| e.to_string())?;
                }
            }
        }
        let mut build = build(setup, &setup.debian.source_tree)?;
        build.cache = setup.work.join("gitless-cache");
        build.envs = vec![("PATH", string(&programs))];
        if build.run()?.bytes_and_note()? == the_usual_payload(setup)? {
            Ok(())
        } else {
            Err("the bytes differ".to_owned())
        }
    })
}

/// A cache on a disk that is full: a clear error, no payload, and the next run is right.
pub fn full_disk() -> Outcome {
    if !is_root() {
        return Ok(Completion::ignored_with("only root can mount"));
    }
    if let Err(why) = run("unshare", &["--mount", "mount", "--bind", "/etc", "/etc"]) {
        return Ok(Completion::ignored_with(format!("mounting is not possible here ({})", why.trim())));
    }
    setup::with(|setup| {
        let mut build = build(setup, &setup.debian.source_tree)?;
        build.cache = setup.work.join("small-disk");
        fs::create_dir_all(&build.cache).map_err(|error| error.to_string())?;
        // The same disk grows between the runs; in megabytes, full while sources are copied and while make runs.
        let shell = "disk=$1; shift; mount -t tmpfs -o size=10m none \"$disk\" || exit 99; \
                     for size in 10 40; do mount -o remount,size=${size}m \"$disk\" || exit 98; \
                     \"$@\"; test $? = 1 || exit 97; done; \
                     mount -o remount,size=2000m \"$disk\" || exit 96; exec \"$@\"";
        build.through = ["unshare", "--mount", "sh", "-c", shell, "sh"].map(str::to_owned).to_vec();
        build.through.push(string(&build.cache));
        let built = build.run()?;
        let bytes = built.bytes_and_note()?;
        let told = built.stderr.matches("error: ").count();
        if !built.stderr.contains("No space left on device") || told < 2 {
            return Err(format!("the error was:\n{}", built.stderr));
        }
        if bytes == the_usual_payload(setup)? { Ok(()) } else { Err("the bytes differ".to_owned()) }
    })
}

/// The base is the shipped one in what it says about its own build, too: its source can be patched.
pub fn version_c() -> Outcome {
    setup::with(|setup| {
        let built = setup.payload(&recipes::VERSION_C)?;
        built.bytes()?;
        if built.functions() != ["xen_deny"] {
            return Err(format!("{:?} are replaced", built.functions()));
        }
        // 14:52:25 +0100 in Debian's changelog.
        for (name, text) in [
            ("XEN_COMPILE_DATE", "Sat Nov 29 13:52:25 UTC 2025"),
            ("XEN_COMPILE_TIME", "13:52:25"),
            ("XEN_COMPILE_SYSTEM_VERSION", "4.17.5+72-g01140da4e8-1"),
            ("XEN_CHANGESET", ""),
        ] {
            if built.report["metadata"][name] != text {
                return Err(format!("{name} is not {text}: {}", built.report["metadata"]));
            }
        }
        Ok(())
    })
}

/// Everything of a tree that could change: names, times, modes, sizes.
fn state(tree: &Path) -> Result<Vec<u8>, String> {
    let output = Command::new("find")
        .arg(tree)
        .args(["-printf", "%p %m %U %s %T@ %C@\n"])
        .output()
        .map_err(|error| error.to_string())?;
    Ok(output.stdout)
}

/// A tree whose owner is somebody else, and which nobody may write to.
pub fn foreign_owner() -> Outcome {
    setup::with(|setup| {
        let tree = foreign_tree(setup, "foreign tree")?;
        let before = state(&tree)?;
        let same = build(setup, &tree)?.run()?.bytes_and_note()? == the_usual_payload(setup)?;
        if state(&tree)? != before {
            return Err("the tree was changed".to_owned());
        }
        if same { Ok(()) } else { Err("the bytes differ".to_owned()) }
    })
}

/// The same on a mount that is read-only.
pub fn read_only_mount() -> Outcome {
    if !is_root() {
        return Ok(Completion::ignored_with("only root can mount"));
    }
    let possible = run("unshare", &["--mount", "mount", "--bind", "/etc", "/etc"]);
    if let Err(why) = possible {
        return Ok(Completion::ignored_with(format!("mounting is not possible here ({})", why.trim())));
    }
    setup::with(|setup| {
        let tree = foreign_tree(setup, "tree to mount")?;
        let mut build = build(setup, &tree)?;
        // In a mount namespace of its own, so that nothing stays mounted.
        let shell = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" || exit 99; \
                     touch \"$1/new\" 2>/dev/null && exit 98; shift; exec \"$@\"";
        build.through = ["unshare", "--mount", "sh", "-c", shell, "sh"].map(str::to_owned).to_vec();
        build.through.push(string(&tree));
        if build.run()?.bytes_and_note()? == the_usual_payload(setup)? {
            Ok(())
        } else {
            Err("the bytes differ".to_owned())
        }
    })
}
