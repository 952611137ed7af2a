//! Runs that are killed at a point in each stage: no payload, no stray process, the next run right.

use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use fs_err as fs;
use libtest_mimic::{Completion, Failed};
use rustix::process::{Pid, Signal, kill_process_group};
use xsplice_e2e::recipes;

use crate::setup::{self, BUILDS, Built, Setup};

/// The stages at which the program can be told to pause.
pub const STAGES: &[&str] =
    &["plan", "build", "parse", "correlate", "compare", "select", "check", "link", "verify", "write"];

/// How long processes may take to go away.
const PATIENCE: Duration = Duration::from_secs(5);

/// Fails if a process works in or on a folder after a moment's patience.
pub fn no_stray_process(folder: &Path) -> Result<(), String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let strays = strays(folder);
        if strays.is_empty() {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(format!("processes are left: {}", strays.join(", ")));
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Processes whose working folder or command line is below a folder.
fn strays(folder: &Path) -> Vec<String> {
    let folder = folder.to_string_lossy();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let id = entry.file_name().to_string_lossy().into_owned();
        if !id.bytes().all(|byte| byte.is_ascii_digit()) || id == std::process::id().to_string() {
            continue;
        }
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        let place = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        if words.contains(&*folder) || place.to_string_lossy().starts_with(&*folder) {
            found.push(format!("{id} {words}"));
        }
    }
    found
}

/// Pauses a run at a stage, sends a signal to its group as a terminal does, and looks at what is left.
fn killed_at(setup: &Setup, stage: &str, signal: Signal) -> Result<(), String> {
    let made = setup.made(&recipes::STATIC)?;
    let mut build = setup.build(recipes::STATIC.name, &made.diff)?;
    build.envs.push(("XSPLICE_TEST_PAUSE", stage.to_owned()));
    let mut command = build.command();
    command.process_group(0).stdout(Stdio::null()).stderr(Stdio::piped());
    // Alone with the kept builds, so that whatever works in them was started by this run.
    let _alone = BUILDS.write().map_err(|error| error.to_string())?;
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let mut stderr = child.stderr.take().ok_or("no stream")?;
    let (mut seen, mut byte) = (Vec::new(), [0]);
    let wanted = format!("paused at {stage}\n");
    while !seen.ends_with(wanted.as_bytes()) && stderr.read(&mut byte).is_ok_and(|count| count == 1) {
        seen.push(byte[0]);
    }
    let paused = seen.ends_with(wanted.as_bytes());
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or("no process id")?;
    kill_process_group(group, signal).map_err(|error| error.to_string())?;
    let _ = stderr.read_to_end(&mut seen);
    let status = child.wait().map_err(|error| error.to_string())?;
    let seen = String::from_utf8_lossy(&seen).into_owned();
    if !paused {
        return Err(format!("it did not pause at {stage}:\n{seen}"));
    }
    // Ctrl-C is caught and ends as a failure does; SIGKILL cannot be.
    let as_wanted = if signal == Signal::INT { status.code() == Some(1) } else { status.signal() == Some(9) };
    if !as_wanted {
        return Err(format!("it ended with {status} at {stage}:\n{seen}"));
    }
    no_stray_process(&build.out)?;
    no_stray_process(&build.cache.join("bases"))?;
    if build.out.exists() {
        for entry in fs::read_dir(&build.out).map_err(|error| error.to_string())? {
            let name = entry.map_err(|error| error.to_string())?.file_name();
            let name = name.to_string_lossy();
            if name.contains("livepatch") {
                return Err(format!("killed at {stage}, it left {name}"));
            }
        }
    }
    Ok(())
}

/// One stage: killed, interrupted, and then the next run gives the same bytes as an undisturbed one.
pub fn at(stage: &str) -> Result<Completion, Failed> {
    setup::with(|setup| {
        let usual = undisturbed(setup)?;
        killed_at(setup, stage, Signal::KILL)?;
        killed_at(setup, stage, Signal::INT)?;
        if setup.payload(&recipes::STATIC)?.bytes()? == usual.bytes()? {
            Ok(())
        } else {
            Err("the next run gives other bytes".to_owned())
        }
    })
}

fn undisturbed(setup: &Setup) -> Result<Built, String> {
    static USUAL: std::sync::OnceLock<Result<Built, String>> = std::sync::OnceLock::new();
    USUAL.get_or_init(|| setup.payload(&recipes::STATIC)).clone()
}
