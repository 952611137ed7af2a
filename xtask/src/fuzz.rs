//! `cargo xtask fuzz`: gives every reader what its writer never wrote, for as long as asked.

use std::path::{Path, PathBuf};

use fs_err as fs;
use xsplice_hostile::{TARGETS, Target};
use xsplice_process::{Job, Sink};

use crate::done;

/// What one input may take in seconds, all of them in MiB, and the longest that is tried, in bytes. The seconds are
/// the clock's: what takes milliseconds may take ten of them on a busy machine.
const LIMITS: [&str; 3] = ["-timeout=120", "-rss_limit_mb=2048", "-max_len=65536"];

/// Runs the targets of `fuzz/` one behind the other, each with debug assertions and checks of overflow.
#[derive(Debug, clap::Args)]
pub(crate) struct Fuzz {
    /// How long each target runs, in minutes
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// The toolchain to build with; the default one does, unless cargo-fuzz wants a newer
    #[arg(long)]
    toolchain: Option<String>,
    /// Targets: object, payload, patch, dwarf; all by default
    #[arg(value_parser = TARGETS.iter().map(|target| target.name).collect::<Vec<_>>())]
    targets: Vec<String>,
}

impl Fuzz {
    pub(crate) fn run(self) -> Result<(), String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("fuzz");
        let asked =
            |target: &&Target| self.targets.is_empty() || self.targets.iter().any(|name| name == target.name);
        for target in TARGETS.iter().filter(asked) {
            seed(&folder, target).map_err(|error| error.to_string())?;
            println!("{}: {} minutes", target.name, self.minutes);
            done(self.job(&folder, target))?;
        }
        Ok(())
    }

    fn job(&self, folder: &Path, target: &Target) -> Job {
        let mut job = Job::new("cargo");
        if let Some(toolchain) = &self.toolchain {
            job = job.arg(format!("+{toolchain}"));
        }
        // No unsafe code is ours, so a sanitizer would find nothing and cost half the inputs.
        let job = job.args(["fuzz", "run", "--sanitizer", "none", target.name, "--"]).args(LIMITS);
        let job = job.args([format!("-max_total_time={}", self.minutes.saturating_mul(60))]);
        job.dir(folder).stdout(Sink::Inherit).stderr(Sink::Inherit)
    }
}

/// Writes what a target starts from beside what earlier runs found.
fn seed(folder: &Path, target: &Target) -> std::io::Result<()> {
    let corpus: PathBuf = folder.join("corpus").join(target.name);
    fs::create_dir_all(&corpus)?;
    for (number, seed) in (target.seeds)().iter().enumerate() {
        fs::write(corpus.join(format!("seed-{number}")), seed)?;
    }
    Ok(())
}
