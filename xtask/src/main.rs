//! Tasks of the project itself.
#![expect(clippy::print_stdout, reason = "tasks talk to people and to scripts")]

mod answers;
mod bench;
mod corpus;
mod full;
mod fuzz;
mod mutants;
mod self_difference;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use fs_err as fs;
use xsplice_boot::DebianXen;
use xsplice_build::Progress;
use xsplice_e2e::{hooks, kinds, recipes};
use xsplice_process::{Finished, Job};
use xsplice_report::Problems;

/// Tasks of the project itself.
#[derive(Debug, Parser)]
enum Task {
    /// Get Debian's packages of Xen into the cache and print where their parts are, as shell variables
    Debian,
    /// Make the patch of an edit recipe for a tree
    Patch {
        /// The recipe's name
        name: String,
        /// The tree: the folder that holds xen/
        #[arg(long)]
        tree: PathBuf,
        /// The patch to write; by default standard output
        #[arg(long, short)]
        output: Option<PathBuf>,
    },
    /// Check what is too long or too special for ./test
    Full(full::Full),
    /// Write the page of what loaders answer, from booted hypervisors
    Answers(answers::Answers),
    /// Time payloads beside make
    Bench(bench::Bench),
    /// Build and judge real patches, and compare with an oracle
    Corpus(corpus::Corpus),
    /// Give every reader what its writer never wrote, by cargo-fuzz
    Fuzz(fuzz::Fuzz),
    /// Change one token of Xen's source at a time, and check that the differ finds what changed
    Mutants(mutants::Mutants),
    /// Compare every object of whole builds with itself, and with that of a second build
    #[command(name = "self")]
    SelfDifference(self_difference::SelfDifference),
}

fn main() -> ExitCode {
    // Builds call this program in place of the compiler.
    if std::env::args_os().next().is_some_and(|name| xsplice_build::is_wrapper(&name)) {
        return xsplice_build::wrapper_main(std::env::args_os());
    }
    if let Err(error) = xsplice_process::catch_signals() {
        eprintln!("xtask: warning: signals are not caught: {error}");
    }
    let done = match Task::parse() {
        Task::Debian => debian(),
        Task::Patch { name, tree, output } => patch(&name, &tree, output),
        Task::Full(full) => full.run(),
        Task::Answers(answers) => answers.run(),
        Task::Bench(bench) => bench.run(),
        Task::Corpus(corpus) => corpus.run(),
        Task::Fuzz(fuzz) => fuzz.run(),
        Task::Mutants(mutants) => mutants.run(),
        Task::SelfDifference(task) => task.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Problems as lines.
pub(crate) fn told(problems: &Problems) -> String {
    let lines: Vec<String> = problems
        .0
        .iter()
        .map(|problem| {
            let parts = [&problem.what, &problem.place.to_string(), &problem.why, &problem.advice];
            parts
                .iter()
                .filter(|part| !part.is_empty())
                .map(|part| part.trim())
                .collect::<Vec<_>>()
                .join("\n  ")
        })
        .collect();
    lines.join("\n")
}

/// The cache, and Debian's packages of Xen in it.
pub(crate) fn fetched() -> Result<(PathBuf, DebianXen), String> {
    let cache = xsplice_boot::default_cache().map_err(|problems| told(&problems))?;
    let debian =
        xsplice_boot::fetch(&cache, &|line| eprintln!("{line}")).map_err(|problems| told(&problems))?;
    Ok((cache, debian))
}

/// The xsplice program: the one that was asked for, else the one beside this one.
pub(crate) fn xsplice(asked: Option<&PathBuf>) -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let xsplice = asked.cloned().unwrap_or_else(|| own.with_file_name("xsplice"));
    if xsplice.is_file() {
        Ok(xsplice)
    } else {
        Err(format!("{} is not there: run cargo build -p xsplice", xsplice.display()))
    }
}

/// Runs a program, which must end well.
pub(crate) fn done(job: Job) -> Result<Finished, String> {
    let line = job.display();
    let finished = job.run().map_err(|error| error.to_string())?;
    if finished.success() {
        return Ok(finished);
    }
    let said = String::from_utf8_lossy(&finished.stderr).into_owned();
    Err(format!("{line}: exit code {}\n{said}", finished.code))
}

/// How far a build is, in lines.
pub(crate) struct Steps;

impl Progress for Steps {
    fn step(&self, name: &str) {
        eprintln!("{name}");
    }
    fn compiled(&self, object: &str, count: usize) {
        if count.is_multiple_of(50) {
            eprintln!("{count} objects, {object}");
        }
    }
}

fn debian() -> Result<(), String> {
    let (_, debian) = fetched()?;
    println!("version={}", quote(&debian.version));
    println!("pinned={}", debian.pinned);
    for (name, path) in [
        ("tree", &debian.source_tree),
        ("config", &debian.config),
        ("xen_syms", &debian.xen_syms),
        ("hypervisor", &debian.hypervisor),
        ("tools", &debian.tools_dir),
        ("kernel", &debian.kernel),
    ] {
        println!("{name}={}", quote(&path.to_string_lossy()));
    }
    Ok(())
}

/// A word for the shell that stands for itself.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn patch(name: &str, tree: &std::path::Path, output: Option<PathBuf>) -> Result<(), String> {
    let all = || recipes::ALL.iter().chain(hooks::ALL).chain(kinds::ALL);
    let Some(recipe) = all().find(|recipe| recipe.name == name) else {
        let names: Vec<&str> = all().map(|recipe| recipe.name).collect();
        return Err(format!("there is no recipe {name}; there are: {}", names.join(", ")));
    };
    let made = recipe.make(tree).map_err(|error| error.to_string())?;
    match output {
        Some(file) => fs::write(file, made.diff).map_err(|error| error.to_string()),
        None => {
            print!("{}", made.diff);
            Ok(())
        }
    }
}
