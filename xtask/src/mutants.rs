//! `cargo xtask mutants`: one-token changes all over Xen's source, each compiled alone, and what the differ says of
//! them against the compiler's own text.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use fs_err as fs;
use xsplice_build::{Compilation, Replay, Request};
use xsplice_mutants::compile::Failure;
use xsplice_mutants::desk::{Desk, Outcome, Record};
use xsplice_mutants::mutate::{Kind, Mutant, mutants};
use xsplice_mutants::queue::Queue;
use xsplice_mutants::random::Random;
use xsplice_mutants::report;

use crate::{Steps, told};

#[derive(Debug, clap::Args)]
pub(crate) struct Mutants {
    /// The tree: the folder that holds xen/. It is only read
    #[arg(long)]
    tree: PathBuf,
    /// Its configuration
    #[arg(long)]
    config: PathBuf,
    /// How many mutants are to compile
    #[arg(long, default_value_t = 240)]
    count: usize,
    /// What decides by chance which
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How the tree is called in the document
    #[arg(long, default_value = "Xen's source")]
    name: String,
    /// A folder for what is compiled, and for the results so far: a run that was ended goes on there
    #[arg(long, default_value = "target/mutants")]
    work: PathBuf,
    /// The document to write
    #[arg(long, default_value = "docs/mutants.md")]
    output: PathBuf,
    /// Only mutants of files whose path holds this
    #[arg(long)]
    only: Option<String>,
    /// Only the mutants that went wrong in this file of an earlier run's results
    #[arg(long)]
    again: Option<PathBuf>,
}

/// The mutants of a file of results that went wrong there.
fn troubled(path: &Path) -> Result<Vec<Mutant>, String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let records = text.lines().filter_map(|line| serde_json::from_str::<Record>(line).ok());
    Ok(records.filter(|record| report::trouble(record).is_some()).map(|record| record.mutant).collect())
}

impl Mutants {
    pub(crate) fn run(&self) -> Result<(), String> {
        let text = |error: std::io::Error| error.to_string();
        xsplice_process::catch_signals().map_err(text)?;
        fs::create_dir_all(&self.work).map_err(text)?;
        let work = fs::canonicalize(&self.work).map_err(text)?;
        let cache = xsplice_boot::default_cache().map_err(|problems| told(&problems))?;
        let program = std::env::current_exe().map_err(text)?;
        let request = Request::new(&self.tree, Vec::new(), &self.config, cache, program, work.join("logs"));
        let replay = xsplice_build::replay(request, &Steps).map_err(|problems| told(&problems))?;
        let queue = match &self.again {
            Some(path) => Queue::new(troubled(path)?, self.seed),
            None => self.queue(&replay)?,
        };
        for kind in Kind::ALL {
            eprintln!("{}: {} possible", kind.name(), queue.left(kind));
        }
        let records = self.try_all(&replay, queue, &work)?;
        if let Some(folder) = self.output.parent() {
            fs::create_dir_all(folder).map_err(text)?;
        }
        let document = report::document(&records, &self.name, self.seed);
        fs::write(&self.output, &document).map_err(text)?;
        println!("{document}");
        let totals = report::totals(&records);
        if totals.missed + totals.extra > 0 {
            return Err(format!(
                "{} mutants missed, {} with functions too many",
                totals.missed, totals.extra
            ));
        }
        if totals.compiled < self.count && self.again.is_none() {
            return Err(format!("only {} mutants compile", totals.compiled));
        }
        Ok(())
    }

    /// All mutants of the sources that are in the hypervisor, and of headers that hold alternatives.
    fn queue(&self, replay: &Replay) -> Result<Queue, String> {
        let files: BTreeSet<&String> = replay
            .compilations()
            .iter()
            .flat_map(|compilation| &compilation.reads)
            .filter(|file| wanted(file))
            .filter(|file| self.only.as_ref().is_none_or(|only| file.contains(only)))
            .collect();
        let mut all: Vec<Mutant> = Vec::new();
        for (index, file) in files.into_iter().enumerate() {
            let source = fs::read(replay.tree().join(file)).map_err(|error| error.to_string())?;
            let mut random = Random::new(self.seed.wrapping_mul(1_000_003).wrapping_add(index as u64));
            let found = mutants(file, &source, &mut random);
            let header = file.ends_with(".h");
            all.extend(
                found
                    .into_iter()
                    .filter(|mutant| !header || matches!(mutant.kind, Kind::Alternative | Kind::Assembler)),
            );
        }
        Ok(Queue::new(all, self.seed))
    }

    fn try_all(&self, replay: &Replay, queue: Queue, work: &Path) -> Result<Vec<Record>, String> {
        let compilations: &[Compilation] = replay.compilations();
        let mut results = Results::open(&work.join(format!(
            "{}-{}.jsonl",
            if self.again.is_some() { "again" } else { "results" },
            self.seed
        )))?;
        let pristine = |path: &str| replay.objects().read(path).ok();
        let mut desk = Desk::new(&replay.tree(), compilations, work, pristine);
        let mut records = Vec::new();
        let mut compiled = 0;
        for mutant in queue {
            if compiled >= self.count {
                break;
            }
            let record = match results.known(&mutant) {
                Some(record) => record,
                None => {
                    let record = desk.try_mutant(&mutant).map_err(|failure| match failure {
                        Failure::Refused(why) | Failure::Broken(why) => why,
                    })?;
                    results.keep(&record)?;
                    record
                }
            };
            if !matches!(record.outcome, Outcome::NotCompiled(_) | Outcome::NotBuilt) {
                compiled += 1;
            }
            if let Some(trouble) = report::trouble(&record) {
                eprintln!(
                    "{compiled}: {} {}\n    {trouble}",
                    record.mutant.kind.name(),
                    report::line(&record)
                );
            } else if compiled % 20 == 0 {
                eprintln!("{compiled}");
            }
            records.push(record);
        }
        Ok(records)
    }
}

/// Sources of common and x86 code, and the headers that they read; boot code for 32 bits is not in the list of
/// compilations' reads at all.
fn wanted(file: &str) -> bool {
    let source =
        file.ends_with(".c") && (file.starts_with("xen/common/") || file.starts_with("xen/arch/x86/"));
    let header = file.ends_with(".h")
        && (file.starts_with("xen/arch/x86/include/asm/") || file.starts_with("xen/include/"));
    source || header
}

/// What is known from an earlier run of the same program.
struct Results {
    known: Vec<Record>,
    file: fs::File,
}

impl Results {
    fn open(path: &Path) -> Result<Results, String> {
        let text = |error: std::io::Error| error.to_string();
        // Another differ may say something else.
        let program =
            std::env::current_exe().and_then(fs::metadata).and_then(|meta| meta.modified()).map_err(text)?;
        let made = fs::metadata(path).and_then(|meta| meta.modified());
        if made.is_ok_and(|made| made < program) {
            fs::remove_file(path).map_err(text)?;
        }
        let old = fs::read_to_string(path).unwrap_or_default();
        let known = old.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let file = fs::OpenOptions::new().create(true).append(true).open(path).map_err(text)?;
        Ok(Results { known, file })
    }

    fn known(&self, mutant: &Mutant) -> Option<Record> {
        self.known.iter().find(|record| record.mutant == *mutant).cloned()
    }

    fn keep(&mut self, record: &Record) -> Result<(), String> {
        let line = serde_json::to_string(record).map_err(|error| error.to_string())?;
        writeln!(self.file, "{line}").map_err(|error| error.to_string())
    }
}
