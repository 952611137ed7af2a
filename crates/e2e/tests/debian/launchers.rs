//! Real programs in front of the compiler: the same payload, and they were used.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fs_err as fs;
use libtest_mimic::{Completion, Failed};
use tempfile::TempDir;
use xsplice_e2e::recipes;

use crate::setup::{self, Built, Setup};

type Outcome = Result<Completion, Failed>;

/// Whether a program is there; where not, the test is ignored, or failed on a machine that claims to be complete.
fn with(program: &str, test: impl FnOnce(&Setup) -> Result<(), String>) -> Outcome {
    let there = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if there.is_ok_and(|status| status.success()) {
        return setup::with(test);
    }
    let why = format!("{program} is not installed");
    if std::env::var_os("CI").is_some_and(|ci| ci == "true") {
        return Err(why.into());
    }
    Ok(Completion::ignored_with(why))
}

/// A build of the usual patch through a launcher, on the usual kept original; the payload must be the usual one.
fn through(setup: &Setup, launcher: &str, envs: &[(&'static str, String)]) -> Result<Built, String> {
    let recipe = &recipes::NEW_STATIC;
    let wanted = setup.payload(recipe)?.bytes()?;
    let mut build = setup.build(recipe.name, &setup.made(recipe)?.diff)?;
    build.args = vec!["--launcher".to_owned(), launcher.to_owned()];
    build.envs = envs.to_vec();
    let built = build.run()?;
    if built.bytes()? != wanted {
        return Err("the bytes differ".to_owned());
    }
    Ok(built)
}

fn warned(built: &Built) -> bool {
    built.stderr.contains("[source-leaves]")
}

/// ccache has nothing in the first run, and everything in the second.
pub fn ccache() -> Outcome {
    with("ccache", |setup| {
        let home = TempDir::new_in(&setup.work).map_err(|error| error.to_string())?;
        // By the user's home alone: the build itself has another one.
        let envs = [
            ("HOME", home.path().display().to_string()),
            ("CCACHE_STATSLOG", home.path().join("log").display().to_string()),
        ];
        let stats = || fs::read_to_string(home.path().join("log")).map_err(|error| error.to_string());
        if warned(&through(setup, "ccache", &envs)?) {
            return Err("ccache is said to send source away".to_owned());
        }
        let first = stats()?;
        through(setup, "ccache", &envs)?;
        let second = stats()?.replacen(&first, "", 1);
        if !home.path().join(".cache/ccache").is_dir() {
            return Err("the user's cache is not used".to_owned());
        }
        if first.contains("cache_miss") && second.contains("cache_hit") && !second.contains("cache_miss") {
            return Ok(());
        }
        Err(format!("first: {first}\nsecond: {second}"))
    })
}

/// A distcc server that ends with the value.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // Asked to end, it ends its children too. A server that is gone already is no problem.
        let id = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw);
        let _ = id.map(|id| rustix::process::kill_process(id, rustix::process::Signal::TERM));
        let _ = self.0.wait();
    }
}

fn serve(folder: &Path) -> Result<(Server, u16), String> {
    let io = |error: std::io::Error| error.to_string();
    let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|free| free.local_addr()).map_err(io)?.port();
    let log = folder.join("log");
    fs::write(&log, "").map_err(io)?;
    // A server that is started by root works as somebody else.
    fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).map_err(io)?;
    fs::set_permissions(&log, PermissionsExt::from_mode(0o666)).map_err(io)?;
    let child = Command::new("distccd")
        .args(["--daemon", "--no-detach", "--allow", "127.0.0.1", "--listen", "127.0.0.1", "--jobs", "2"])
        .args(["--user", "nobody", "--enable-tcp-insecure", "--log-level", "info", "--port"])
        .arg(port.to_string())
        .arg("--log-file")
        .arg(&log)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("distccd: {error}"))?;
    let server = Server(child);
    let began = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        if began.elapsed() > Duration::from_secs(10) {
            return Err("distccd does not listen".to_owned());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok((server, port))
}

/// A server on this machine gets the compilation; without one, the compiler does it here.
pub fn distcc() -> Outcome {
    with("distcc", |setup| {
        let home = TempDir::new_in(&setup.work).map_err(|error| error.to_string())?;
        let (server, port) = serve(home.path())?;
        let envs = [
            ("HOME", home.path().display().to_string()),
            ("DISTCC_HOSTS", format!("127.0.0.1:{port}")),
            ("DISTCC_FALLBACK", "0".to_owned()),
        ];
        if !warned(&through(setup, "distcc", &envs)?) {
            return Err("nobody is warned that source leaves the machine".to_owned());
        }
        let log = fs::read_to_string(home.path().join("log")).map_err(|error| error.to_string())?;
        if !log.contains("COMPILE_OK") || !log.contains("exit:0") {
            return Err(format!("the server did nothing:\n{log}"));
        }
        drop(server);
        through(setup, "distcc", &envs).map(|_| ())
    })
}
