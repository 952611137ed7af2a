//! `cargo xtask bench`: how long a payload takes, beside what make takes on the same tree, all in one run.
//!
//! What counts are the ratios: seconds differ between machines. "The flow of LBT" is one clean make and two
//! incremental ones, which is what livepatch-build-tools asks of make at its best; its wrapper and its differ are not
//! counted.

use std::cell::{Cell, RefCell};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use fs_err as fs;
use xsplice_boot::DebianXen;
use xsplice_e2e::{Recipe, kinds, recipes};
use xsplice_process::{Job, Sink};

use crate::{done, fetched};

#[derive(Debug, clap::Args)]
pub(crate) struct Bench {
    /// The xsplice program; by default the one beside this one
    #[arg(long)]
    xsplice: Option<PathBuf>,
    /// A folder for what is built, which is made anew
    #[arg(long, default_value = "target/bench")]
    work: PathBuf,
    /// A clone of Xen's repository, for XSA-488: a header that nearly everything reads, for one reader's sake
    #[arg(long)]
    xen_git: Option<PathBuf>,
    /// How often what takes seconds is repeated
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// The document to write
    #[arg(long, default_value = "docs/bench.md")]
    output: PathBuf,
}

/// One thing that was timed: its words, and the median of its seconds.
struct Row {
    what: &'static str,
    seconds: f64,
    runs: usize,
}

/// A ratio that issue texts ask for: its words, what it is, and the most that it is to be.
struct Ratio {
    what: &'static str,
    is: f64,
    most: f64,
}

/// What everything needs.
struct Desk {
    xsplice: PathBuf,
    work: PathBuf,
    debian: DebianXen,
    jobs: usize,
    /// The most memory that a run of xsplice itself had at any time, in KiB.
    memory: Cell<u64>,
    /// When the first of the runs that had nothing kept came to each of [`MARKS`], in seconds from its start.
    marks: RefCell<Vec<(&'static str, f64)>>,
}

/// What there is in the private copy when a step of a run with nothing kept has ended: its path there, and the step.
const MARKS: [(&str, &str); 4] = [
    ("xen/include/generated/autoconf.h", "sources copied and configured"),
    ("xen/include/compat/xen.h", "headers for 32-bit guests made, without their checks"),
    ("xen/include/compat/xlat.h", "those checks made, by shell scripts of the tree"),
    ("xen/prelink.o", "every command asked for"),
];

/// XSA-488 on the stable-4.17 branch: 342 objects read its header, and one of them changes.
const XSA_488: &str = "57d0c0cdde";

impl Bench {
    pub(crate) fn run(&self) -> Result<(), String> {
        let text = |error: std::io::Error| error.to_string();
        let (_, debian) = fetched()?;
        let xsplice = crate::xsplice(self.xsplice.as_ref())?;
        if self.work.exists() {
            fs::remove_dir_all(&self.work).map_err(text)?;
        }
        fs::create_dir_all(&self.work).map_err(text)?;
        let work = fs::canonicalize(&self.work).map_err(text)?;
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        let desk = Desk { xsplice, work, debian, jobs, memory: Cell::new(0), marks: RefCell::default() };
        let one_reader = self.xen_git.as_ref().map(|git| desk.mail(git, XSA_488)).transpose()?;
        let (rows, ratios) = desk.measure(self.runs.max(1), one_reader.as_deref())?;
        let document = document(&rows, &ratios, jobs, desk.memory.get()) + &profile(&desk.marks.borrow());
        print!("{document}");
        fs::write(&self.output, document).map_err(text)
    }
}

impl Desk {
    fn measure(&self, runs: usize, one_reader: Option<&Path>) -> Result<(Vec<Row>, Vec<Ratio>), String> {
        let one_file = recipes::STATIC;
        let source = one_file.edits[0].file;
        let plain = self.plain_tree()?;
        let full = self.make(&plain, &[])?;
        // An incremental make with the patch, and one more without it, as LBT asks for.
        let original = fs::read(plain.join(source)).map_err(|error| error.to_string())?;
        let made = one_file.make(&self.debian.source_tree).map_err(|error| error.to_string())?;
        fs::write(plain.join(source), &made.files[source]).map_err(|error| error.to_string())?;
        let patched = self.make(&plain, &[])?;
        fs::write(plain.join(source), original).map_err(|error| error.to_string())?;
        let unpatched = self.make(&plain, &[])?;
        let object = source.trim_start_matches("xen/").replace(".c", ".o");
        let single = median(runs, |_| {
            let file = fs::OpenOptions::new().append(true).open(plain.join(source));
            let now = std::fs::FileTimes::new().set_modified(std::time::SystemTime::now());
            file.and_then(|file| file.into_parts().0.set_times(now)).map_err(|error| error.to_string())?;
            self.make(&plain, &[&object])
        })?;
        let patch = self.patch(&one_file)?;
        let cold = median(runs.min(3), |_| {
            self.forget()?;
            self.payload(&patch)
        })?;
        let warm = median(runs, |_| self.payload(&patch))?;
        let header = self.patch(&kinds::HEADER_INLINE)?;
        let first_header = self.payload(&header)?;
        let header = median(runs, |_| self.payload(&header))?;
        let one_reader = one_reader
            .map(|patch| {
                Ok::<_, String>((self.payload(patch)?, median(runs.min(3), |_| self.payload(patch))?))
            })
            .transpose()?;
        self.forget()?;
        let without_symbols = self.linked(&patch)?;
        let lbt = full + patched + unpatched;
        let mut rows = vec![
            Row { what: "make, everything", seconds: full, runs: 1 },
            Row { what: "the flow of LBT: that, and two incremental ones", seconds: lbt, runs: 1 },
            Row { what: "make of the one object", seconds: single, runs },
            Row {
                what: "xsplice, one C file, nothing kept, without the shipped symbols",
                seconds: without_symbols,
                runs: 1,
            },
            Row { what: "xsplice, one C file, nothing kept", seconds: cold, runs: runs.min(3) },
            Row { what: "xsplice, one C file, original kept", seconds: warm, runs },
            Row {
                what: "xsplice, an inline function of a header that 71 objects read, first time",
                seconds: first_header,
                runs: 1,
            },
            Row { what: "xsplice, that header again", seconds: header, runs },
        ];
        let mut ratios = vec![
            Ratio { what: "nothing kept / the flow of LBT", is: cold / lbt, most: 1.0 / 8.0 },
            Ratio {
                what: "nothing kept, without the shipped symbols / make, everything",
                is: without_symbols / full,
                most: 1.15,
            },
            Ratio { what: "original kept / make of the one object", is: warm / single, most: 1.5 },
            Ratio { what: "original kept / the flow of LBT", is: warm / lbt, most: 1.0 / 8.0 },
        ];
        if let Some((first, again)) = one_reader {
            rows.push(Row {
                what: "xsplice, XSA-488 (a header that 342 objects read, one changes), first time",
                seconds: first,
                runs: 1,
            });
            rows.push(Row { what: "xsplice, XSA-488 again", seconds: again, runs: runs.min(3) });
            let is = again / full;
            ratios.push(Ratio { what: "XSA-488, original kept / make, everything", is, most: 0.4 });
        }
        Ok((rows, ratios))
    }

    /// A copy of Debian's tree with its configuration, for make alone.
    fn plain_tree(&self) -> Result<PathBuf, String> {
        let tree = self.work.join("plain");
        timed(Job::new("cp").arg("-a").arg(&self.debian.source_tree).arg(&tree))?;
        fs::copy(&self.debian.config, tree.join("xen/.config")).map_err(|error| error.to_string())?;
        self.make(&tree, &["olddefconfig"])?;
        Ok(tree)
    }

    fn make(&self, tree: &Path, targets: &[&str]) -> Result<f64, String> {
        let job = Job::new("make").dir(tree.join("xen")).arg(format!("-j{}", self.jobs)).args(targets);
        timed(job.env("XEN_TARGET_ARCH", "x86_64"))
    }

    fn patch(&self, recipe: &Recipe) -> Result<PathBuf, String> {
        let made = recipe.make(&self.debian.source_tree).map_err(|error| error.to_string())?;
        let file = self.work.join(format!("{}.patch", recipe.name));
        fs::write(&file, made.diff).map_err(|error| error.to_string())?;
        Ok(file)
    }

    /// A commit as a mail.
    fn mail(&self, git: &Path, commit: &str) -> Result<PathBuf, String> {
        let job = Job::new("git").arg("-C").arg(git).args(["format-patch", "-1", "--stdout", commit]);
        let file = self.work.join(format!("{commit}.patch"));
        fs::write(&file, done(job)?.stdout).map_err(|error| error.to_string())?;
        Ok(file)
    }

    /// Removes all kept builds.
    fn forget(&self) -> Result<(), String> {
        let cache = self.work.join("cache");
        if cache.exists() { fs::remove_dir_all(cache).map_err(|error| error.to_string()) } else { Ok(()) }
    }

    fn payload(&self, patch: &Path) -> Result<f64, String> {
        let job = self.xsplice(patch).arg("--xen-syms").arg(&self.debian.xen_syms);
        self.watched(job)
    }

    /// A payload whose names come from a private build; what it depends on is nobody's build-id.
    fn linked(&self, patch: &Path) -> Result<f64, String> {
        let id = "0123456789abcdef0123456789abcdef01234567";
        self.watched(self.xsplice(patch).args(["--depends", id, "--xen-depends", id]))
    }

    fn xsplice(&self, patch: &Path) -> Job {
        let job = Job::new(&self.xsplice).args(["--quiet", "build", "-s"]).arg(&self.debian.source_tree);
        let job = job.arg("-p").arg(patch).arg("-c").arg(&self.debian.config);
        job.arg("-o").arg(self.work.join("out")).env("XSPLICE_CACHE", self.work.join("cache"))
    }

    /// Seconds that a run takes, with an eye on its memory.
    fn watched(&self, job: Job) -> Result<f64, String> {
        let start = Instant::now();
        let mut running = job.stdout(Sink::Discard).spawn().map_err(|error| error.to_string())?;
        let guard = running.id();
        loop {
            let ended = running.poll().map_err(|error| error.to_string())?;
            if ended.is_some() {
                break;
            }
            self.memory.set(self.memory.get().max(peak_of_child(guard)));
            self.look(start);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let seconds = start.elapsed().as_secs_f64();
        if self.marks.borrow().len() == MARKS.len() {
            self.marks.borrow_mut().push(("compiled, compared, linked and verified", seconds));
        }
        let finished = running.wait().map_err(|error| error.to_string())?;
        if finished.success() {
            return Ok(seconds);
        }
        Err(String::from_utf8_lossy(&finished.stderr).into_owned())
    }
}

/// Seconds that a program takes; it must end well.
fn timed(job: Job) -> Result<f64, String> {
    let start = Instant::now();
    done(job.stdout(Sink::Discard))?;
    Ok(start.elapsed().as_secs_f64())
}

/// The middle of several runs.
fn median(runs: usize, mut run: impl FnMut(usize) -> Result<f64, String>) -> Result<f64, String> {
    let mut seconds = (0..runs).map(&mut run).collect::<Result<Vec<f64>, String>>()?;
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[seconds.len() / 2])
}

impl Desk {
    /// Takes note of the next mark that a run with nothing kept has come to.
    fn look(&self, start: Instant) {
        let mut marks = self.marks.borrow_mut();
        let Some((path, step)) = MARKS.get(marks.len()) else { return };
        let bases = std::fs::read_dir(self.work.join("cache/bases")).into_iter().flatten().flatten();
        if bases.map(|entry| entry.path().join("tree").join(path)).any(|path| path.exists()) {
            marks.push((step, start.elapsed().as_secs_f64()));
        }
    }
}

/// Where the time of a run with nothing kept goes.
fn profile(marks: &[(&str, f64)]) -> String {
    let mut text = "\nOf the first run with nothing kept:\n\n| step | seconds |\n|---|--:|\n".to_owned();
    let mut before = 0.0;
    for (step, at) in marks {
        let _ = writeln!(text, "| {step} | {:.2} |", at - before);
        before = *at;
    }
    text
}

/// The most memory that the children of a process ever had, in KiB: what runs under xsplice-process's guard.
fn peak_of_child(guard: u32) -> u64 {
    let children = format!("/proc/{guard}/task/{guard}/children");
    let children = std::fs::read_to_string(children).unwrap_or_default();
    let status = |child: &str| std::fs::read_to_string(format!("/proc/{child}/status")).ok();
    children.split_whitespace().filter_map(|child| high_water(&status(child)?)).max().unwrap_or(0)
}

/// The most memory that a process ever had, in KiB, by its status in /proc (proc(5), `VmHWM`).
fn high_water(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn document(rows: &[Row], ratios: &[Ratio], jobs: usize, memory: u64) -> String {
    let memory = memory >> 10;
    let mut text = format!(
        "# How long a payload takes\n\nMade by `cargo run --release -p xtask -- bench` on Debian's Xen 4.17.5+72 with its configuration and its `xen-syms`,\nwith {jobs} jobs at once, all in one run. Seconds depend on the machine; ratios are what counts. All checks are on, and\nobjects have debug information. The most memory that xsplice itself had in any of its runs, compilers apart:\n{memory} MiB. \"Nothing kept\" is with the shipped symbols where nothing else is said.\n\n| what | seconds | runs |\n|---|--:|--:|\n"
    );
    for row in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {} | {:.2} | {} |", row.what, row.seconds, row.runs);
    }
    text.push_str("\n| ratio | is | at most | |\n|---|--:|--:|---|\n");
    for ratio in ratios {
        let kept = if ratio.is <= ratio.most { "kept" } else { "missed" };
        let _ = writeln!(text, "| {} | {:.3} | {:.3} | {kept} |", ratio.what, ratio.is, ratio.most);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_that_is_missed_says_so() {
        let rows = [Row { what: "a", seconds: 1.234, runs: 3 }];
        let ratios = [Ratio { what: "x", is: 1.5, most: 1.5 }, Ratio { what: "y", is: 1.6, most: 1.5 }];
        let text = document(&rows, &ratios, 2, 3 << 10);
        assert!(text.contains("\n3 MiB."), "{text}");
        assert!(text.contains("| a | 1.23 | 3 |\n"), "{text}");
        assert!(text.contains("| x | 1.500 | 1.500 | kept |\n| y | 1.600 | 1.500 | missed |\n"), "{text}");
    }

    #[test]
    fn a_profile_tells_differences() {
        let text = profile(&[("a", 1.5), ("b", 1.75)]);
        assert!(text.ends_with("| a | 1.50 |\n| b | 0.25 |\n"), "{text}");
    }

    #[test]
    fn the_peak_of_a_process_is_read() {
        assert_eq!(high_water("Name:\tx\nVmPeak:\t 9 kB\nVmHWM:\t  1234 kB\n"), Some(1234));
        assert_eq!(high_water("Name:\tx\n"), None);
    }

    #[test]
    fn the_median_is_the_middle_one() {
        let times = [3.0, 1.0, 2.0];
        assert_eq!(median(3, |run| Ok(times[run])), Ok(2.0));
        assert_eq!(median(2, |_| Err("why".to_owned())), Err("why".to_owned()));
    }
}
