//! What all tests share: Debian's packages, the program, folders; and running the program.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{OnceLock, RwLock};

use fs_err as fs;
use libtest_mimic::{Completion, Failed};
use serde_json::Value;
use tempfile::TempDir;
use xsplice_boot::DebianXen;
use xsplice_e2e::{Made, Recipe};

/// Everything that tests need.
pub struct Setup {
    pub debian: DebianXen,
    /// The cache with the packages and the kept base build.
    pub cache: PathBuf,
    /// The program under test.
    pub xsplice: PathBuf,
    /// Patches, payloads and whatever tests leave; removed at the end.
    pub work: PathBuf,
}

/// Why there is no set-up.
pub enum NoSetup {
    /// Something is missing that a machine may lack.
    Missing(String),
    /// Something is wrong.
    Wrong(String),
}

/// The codes of problems that mean that something is missing here, not that something is wrong.
const MISSING: &[&str] = &["boot-tool-missing", "package-missing", "download-failed", "tool-missing"];

/// Held for reading by each build, and for writing by who needs to be alone with the kept builds.
pub static BUILDS: RwLock<()> = RwLock::new(());

static SETUP: OnceLock<Result<Setup, NoSetup>> = OnceLock::new();
static WORK: OnceLock<TempDir> = OnceLock::new();

/// Runs a test with the set-up; where something is missing, the test is ignored, or failed on a machine
/// that claims to be complete (`CI=true`).
pub fn with(test: impl FnOnce(&Setup) -> Result<(), String>) -> Result<Completion, Failed> {
    match SETUP.get_or_init(set_up) {
        Ok(setup) => test(setup).map(|()| Completion::Completed).map_err(Failed::from),
        Err(NoSetup::Missing(why)) if std::env::var_os("CI").is_none_or(|ci| ci != "true") => {
            Ok(Completion::ignored_with(why))
        }
        Err(NoSetup::Missing(why) | NoSetup::Wrong(why)) => Err(why.into()),
    }
}

/// Removes what tests have left.
pub fn tear_down() {
    if let Some(work) = WORK.get() {
        // What cannot be removed is only untidy.
        let _ = fs::remove_dir_all(work.path());
    }
}

fn set_up() -> Result<Setup, NoSetup> {
    let wrong = |error: &dyn std::fmt::Display| NoSetup::Wrong(error.to_string());
    let told = |problems: xsplice_report::Problems| {
        let missing = problems.0.iter().any(|problem| MISSING.contains(&problem.code.name));
        let lines: Vec<String> =
            problems.0.iter().map(|problem| format!("{} {}", problem.what, problem.why)).collect();
        let why = lines.join("; ").replace('\n', " ");
        if missing { NoSetup::Missing(why) } else { NoSetup::Wrong(why) }
    };
    if !Command::new("qemu-system-x86_64")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
    {
        return Err(NoSetup::Missing("qemu-system-x86_64 is not there (qemu-system-x86)".to_owned()));
    }
    let cache = xsplice_boot::default_cache().map_err(told)?;
    fs::create_dir_all(&cache).map_err(|error| wrong(&error))?;
    let cache = fs::canonicalize(cache).map_err(|error| wrong(&error))?;
    let debian = xsplice_boot::fetch(&cache, &|_| {}).map_err(told)?;
    let xsplice = program().map_err(NoSetup::Wrong)?;
    let work = TempDir::with_prefix("xsplice-e2e-").map_err(|error| wrong(&error))?;
    let path = work.path().to_owned();
    // Others have to reach the program and the trees in it.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&path, mode).map_err(|error| wrong(&error))?;
    if WORK.set(work).is_err() {
        return Err(NoSetup::Wrong("set up twice".to_owned()));
    }
    Ok(Setup { debian, cache, xsplice, work: path })
}

/// The program lies beside the folder of this test's program, unless `XSPLICE_BIN` names it.
fn program() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("XSPLICE_BIN") {
        return Ok(PathBuf::from(path));
    }
    let test = std::env::current_exe().map_err(|error| error.to_string())?;
    let program = test.ancestors().nth(2).unwrap_or(Path::new(".")).join("xsplice");
    if program.is_file() {
        return Ok(program);
    }
    Err(format!("{} is not there: run cargo build -p xsplice, or ./test", program.display()))
}

/// How a run of `xsplice build` ended.
#[derive(Debug, Clone)]
pub struct Built {
    pub code: Option<i32>,
    pub stderr: String,
    /// `report.json`, or null.
    pub report: Value,
    pub payload: PathBuf,
}

impl Built {
    /// The payload's bytes, if the run was a success.
    pub fn bytes(&self) -> Result<Vec<u8>, String> {
        if self.code != Some(0) {
            return Err(format!("exit code {:?}:\n{}", self.code, self.stderr));
        }
        fs::read(&self.payload).map_err(|error| error.to_string())
    }

    /// The payload's bytes, and behind them those of the note for the host.
    pub fn bytes_and_note(&self) -> Result<Vec<u8>, String> {
        let mut bytes = self.bytes()?;
        bytes.extend(fs::read(self.payload.with_extension("txt")).map_err(|error| error.to_string())?);
        Ok(bytes)
    }

    /// The names of the functions that it replaces, sorted. None of them is there only because it moved:
    /// lines keep their numbers.
    pub fn functions(&self) -> Vec<String> {
        let functions = self.report["functions"].as_array().cloned().unwrap_or_default();
        let mut names: Vec<String> =
            functions.iter().filter_map(|f| f["name"].as_str().map(str::to_owned)).collect();
        names.sort();
        names
    }
}

/// A build to run.
pub struct Build<'a> {
    pub setup: &'a Setup,
    pub patch: PathBuf,
    pub name: String,
    pub tree: PathBuf,
    pub config: PathBuf,
    /// The private build's own where there is none.
    pub xen_syms: Option<PathBuf>,
    pub cache: PathBuf,
    pub out: PathBuf,
    /// More arguments.
    pub args: Vec<String>,
    /// More variables.
    pub envs: Vec<(&'static str, String)>,
    /// A command that runs the program, such as `setpriv` with its arguments.
    pub through: Vec<String>,
}

impl Setup {
    /// The patch of a recipe for Debian's tree.
    pub fn made(&self, recipe: &Recipe) -> Result<Made, String> {
        recipe.make(&self.debian.source_tree).map_err(|error| error.to_string())
    }

    /// A build of a patch in a folder of its own.
    pub fn build(&self, name: &str, diff: &str) -> Result<Build<'_>, String> {
        let dir = tempfile::Builder::new().prefix(name).tempdir_in(&self.work).map_err(|e| e.to_string())?;
        let dir = dir.keep();
        let patch = dir.join(format!("{name}.patch"));
        fs::write(&patch, diff).map_err(|error| error.to_string())?;
        Ok(Build {
            setup: self,
            patch,
            name: name.to_owned(),
            tree: self.debian.source_tree.clone(),
            config: self.debian.config.clone(),
            xen_syms: Some(self.debian.xen_syms.clone()),
            cache: self.cache.clone(),
            out: dir.join("out"),
            args: Vec::new(),
            envs: Vec::new(),
            through: Vec::new(),
        })
    }

    /// Builds a recipe in the usual way.
    pub fn payload(&self, recipe: &Recipe) -> Result<Built, String> {
        self.build(recipe.name, &self.made(recipe)?.diff)?.run()
    }
}

impl Build<'_> {
    /// The command, with its streams still to be set.
    pub fn command(&self) -> Command {
        let mut words: Vec<std::ffi::OsString> = self.through.iter().map(Into::into).collect();
        words.push(self.setup.xsplice.clone().into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("build").arg("-s").arg(&self.tree);
        command.arg("-p").arg(&self.patch).arg("-c").arg(&self.config);
        if let Some(xen_syms) = &self.xen_syms {
            command.arg("--xen-syms").arg(xen_syms);
        }
        command.arg("-o").arg(&self.out).args(&self.args);
        command.env("XSPLICE_CACHE", &self.cache).stdin(Stdio::null());
        command.envs(self.envs.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs it to its end.
    pub fn run(&self) -> Result<Built, String> {
        let _shared = BUILDS.read().map_err(|error| error.to_string())?;
        let output = self.command().output().map_err(|error| error.to_string())?;
        Ok(self.ended(output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    /// What a run left.
    pub fn ended(&self, code: Option<i32>, stderr: String) -> Built {
        let report = fs::read(self.out.join("report.json")).unwrap_or_default();
        let report = serde_json::from_slice(&report).unwrap_or(Value::Null);
        Built { code, stderr, report, payload: self.out.join(format!("{}.livepatch", self.name)) }
    }
}
