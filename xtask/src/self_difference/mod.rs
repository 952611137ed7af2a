//! `cargo xtask self`: nothing may come out of comparing an object with itself, nor with the same object of a second
//! build at the same path. Whole builds of Debian's Xen and of an older one, or of trees that are named. And how long
//! that takes: [`table`] writes it down.

mod table;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fs_err as fs;
use xsplice_build::{BaseObject, Request};
use xsplice_e2e::unchanged::{self, Bytes, Clock, Cost, Found};

use crate::{Steps, fetched, told};
use table::Row;

/// What LBT's differ takes for an object, in milliseconds: measured once, elsewhere, over 415 objects with one process
/// for each. Its program is not at hand here, so this is told beside the table and not compared with.
const LBT_MS: f64 = 6.5;

/// The object that holds the configuration, compressed: older Xens let gzip note when it was written.
const CONFIGURATION: &str = "xen/common/config_data.o: ";

#[derive(Debug, clap::Args)]
pub(crate) struct SelfDifference {
    /// A folder for builds and their objects, which are kept
    #[arg(long)]
    out: PathBuf,
    /// A tree, instead of Debian's and the older one: the folder that holds xen/
    #[arg(long, requires = "config")]
    tree: Vec<PathBuf>,
    /// Its configuration: as many as trees
    #[arg(long, requires = "tree")]
    config: Vec<PathBuf>,
    /// Its compiler: none, or as many as trees
    #[arg(long, requires = "tree")]
    cc: Vec<String>,
    /// Compare what an earlier run has built in the folder
    #[arg(long)]
    compare_only: bool,
    /// How often objects are compared with themselves; the run in the middle counts
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// The document to write
    #[arg(long, default_value = "docs/self-difference.md")]
    output: PathBuf,
}

/// A tree to build.
struct Subject {
    /// How it is called in the document.
    name: String,
    /// The folder of its builds.
    folder: PathBuf,
    tree: PathBuf,
    config: PathBuf,
    cc: String,
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl SelfDifference {
    pub(crate) fn run(&self) -> Result<(), String> {
        fs::create_dir_all(&self.out).map_err(text)?;
        let out = fs::canonicalize(&self.out).map_err(text)?;
        let subjects = self.subjects(&out)?;
        if !self.compare_only {
            for subject in &subjects {
                subject.build()?;
            }
        }
        let mut rows = Vec::new();
        let mut wrong = 0;
        for subject in &subjects {
            let row = self.compare(subject)?;
            wrong += row.differences();
            rows.push(row);
        }
        let document = table::document(&rows, LBT_MS);
        if let Some(folder) = self.output.parent() {
            fs::create_dir_all(folder).map_err(text)?;
        }
        fs::write(&self.output, &document).map_err(text)?;
        println!("{document}");
        if wrong == 0 { Ok(()) } else { Err(format!("{wrong} differences where there are none")) }
    }

    fn subjects(&self, out: &Path) -> Result<Vec<Subject>, String> {
        let subject = |name: String, number: usize, tree, config, cc| Subject {
            name,
            folder: out.join(number.to_string()),
            tree,
            config,
            cc,
        };
        if self.tree.is_empty() {
            let (cache, debian) = fetched()?;
            let old = xsplice_boot::fetch_old(&cache, &|line| eprintln!("{line}"))
                .map_err(|problems| told(&problems))?;
            let debians = format!("{} (Debian's)", debian.version);
            let olds = format!("{} (its tarball)", xsplice_boot::OLD_XEN_VERSION);
            let cc = xsplice_boot::OLD_XEN_CC.to_owned();
            return Ok(vec![
                subject(debians, 0, debian.source_tree, debian.config, "gcc".to_owned()),
                subject(olds, 1, old.source_tree, old.config, cc),
            ]);
        }
        let count = self.tree.len();
        if self.config.len() != count || !(self.cc.is_empty() || self.cc.len() == count) {
            return Err("give as many --config, and as many --cc or none, as --tree".to_owned());
        }
        let each = self.tree.iter().zip(&self.config).enumerate();
        Ok(each
            .map(|(index, (tree, config))| {
                let cc = self.cc.get(index).cloned().unwrap_or_else(|| "gcc".to_owned());
                subject(tree.display().to_string(), index, tree.clone(), config.clone(), cc)
            })
            .collect())
    }

    fn compare(&self, subject: &Subject) -> Result<Row, String> {
        let first = subject.read("first")?;
        let second = subject.read("second")?;
        let paths = |objects: &[Bytes]| -> Vec<String> {
            objects.iter().map(|(object, _)| object.path.clone()).collect()
        };
        if paths(&first) != paths(&second) {
            return Err(format!("{}: the second build has other objects than the first", subject.name));
        }
        let own: Vec<&[u8]> = first.iter().map(|(_, bytes)| bytes.as_slice()).collect();
        let mut runs = Vec::new();
        for _ in 0..self.runs.max(1) {
            runs.push(unchanged::compare(&first, &own));
        }
        runs.sort_by_key(|found| found.parse.wall + found.compare.wall);
        let itself: Found = runs.swap_remove(runs.len() / 2);
        let others: Vec<&[u8]> = second.iter().map(|(_, bytes)| bytes.as_slice()).collect();
        let mut second = unchanged::compare(&first, &others);
        let all = second.differences.len();
        second.differences.retain(|line| !line.starts_with(CONFIGURATION));
        for (what, found) in [("itself", &itself), ("the second build", &second)] {
            for line in &found.differences {
                println!("{}, against {what}: {line}", subject.name);
            }
        }
        Ok(Row {
            tree: subject.name.clone(),
            compiler: compiler(&subject.cc)?,
            objects: first.len(),
            bytes: own.iter().map(|bytes| bytes.len()).sum(),
            equal: own.iter().zip(&others).filter(|(one, other)| one == other).count(),
            processes: subject.processes(&first)?,
            itself,
            excused: all - second.differences.len(),
            second,
        })
    }
}

/// The first line of what a compiler says of itself.
fn compiler(cc: &str) -> Result<String, String> {
    let output = Command::new(cc).arg("--version").output().map_err(|error| format!("{cc}: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or(cc).to_owned())
}

impl Subject {
    /// Builds twice at one path, each time from nothing, and keeps the objects.
    fn build(&self) -> Result<(), String> {
        let cache = self.folder.join("cache");
        for side in ["first", "second"] {
            eprintln!("{}: the {side} build", self.name);
            for old in [&cache, &self.folder.join(side)] {
                if old.exists() {
                    fs::remove_dir_all(old).map_err(text)?;
                }
            }
            fs::create_dir_all(&cache).map_err(text)?;
            let program = std::env::current_exe().map_err(text)?;
            let logs = self.folder.join(format!("{side}-logs"));
            let mut request = Request::new(&self.tree, Vec::new(), &self.config, &cache, program, logs);
            request.toolchain.cc.clone_from(&self.cc);
            let replay = xsplice_build::replay(request, &Steps).map_err(|problems| told(&problems))?;
            let objects = unchanged::running(replay.objects()).map_err(|problems| told(&problems))?;
            self.keep(side, &objects)?;
        }
        fs::remove_dir_all(cache).map_err(text)
    }

    fn keep(&self, side: &str, objects: &[Bytes]) -> Result<(), String> {
        for (object, bytes) in objects {
            let file = self.file(side, object);
            if let Some(folder) = file.parent() {
                fs::create_dir_all(folder).map_err(text)?;
            }
            fs::write(file, bytes).map_err(text)?;
        }
        let list: Vec<&BaseObject> = objects.iter().map(|(object, _)| object).collect();
        let list = serde_json::to_vec_pretty(&list).map_err(text)?;
        fs::write(self.folder.join(side).join("objects.json"), list).map_err(text)
    }

    fn file(&self, side: &str, object: &BaseObject) -> PathBuf {
        self.folder.join(side).join(&object.path)
    }

    fn read(&self, side: &str) -> Result<Vec<Bytes>, String> {
        let list = fs::read(self.folder.join(side).join("objects.json")).map_err(text)?;
        let list: Vec<BaseObject> = serde_json::from_slice(&list).map_err(text)?;
        let read = list.into_iter().map(|object| {
            let bytes = fs::read(self.file(side, &object)).map_err(text)?;
            Ok((object, bytes))
        });
        read.collect()
    }

    /// What it takes to start one small program for each object, one after the other: it only lists the sections.
    fn processes(&self, objects: &[Bytes]) -> Result<Cost, String> {
        let clock = Clock::start();
        for (object, _) in objects {
            // Started plainly: the guard that other programs get is a process of its own.
            let status = Command::new("readelf")
                .args(["--wide", "--section-headers"])
                .arg(self.file("first", object))
                .stdout(Stdio::null())
                .status()
                .map_err(|error| format!("readelf: {error}"))?;
            if !status.success() {
                return Err(format!("readelf cannot read {}", object.path));
            }
        }
        Ok(clock.stop())
    }
}
