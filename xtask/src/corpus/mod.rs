//! `cargo xtask corpus`: real patches, each built, judged, and compared with an oracle.
//!
//! The patches are commits of Xen's stable-4.17 (see [`list`]). They are taken from a clone when this runs, and
//! nothing of their text stays in this project. [`capture`] builds each once and keeps the objects, [`judge`] runs
//! the later stages on them as often as the comparison changes, and [`table`] writes down what came out.

mod boots;
mod boots_table;
mod capture;
mod judge;
mod kinds;
mod list;
mod oracle;
mod table;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use fs_err as fs;
use rayon::prelude::*;

use crate::told;
use boots::Boots;
use capture::{Capture, Store};
use judge::{Ending, Judged, Shipped};
use list::{Entry, Git, Range};
use oracle::{Binutils, Kept};
use table::{Causes, Kind};

/// How many patches the list has: later ones, and earlier ones.
const EXPECTED: (usize, usize) = (27, 203);

#[derive(Debug, clap::Args)]
pub(crate) struct Corpus {
    /// A clone of Xen's repository, with stable-4.17
    #[arg(long)]
    xen_git: PathBuf,
    /// A folder for what is built, which is kept
    #[arg(long, default_value = "target/corpus")]
    out: PathBuf,
    /// Some of the patches: numbers, starts of commit ids, `later`, `earlier`, divided by commas
    #[arg(long, default_value = "")]
    only: String,
    /// How many compilers run at once
    #[arg(long, short)]
    jobs: Option<usize>,
    /// The tree, instead of Debian's
    #[arg(long, requires_all = ["config", "xen_syms"])]
    tree: Option<PathBuf>,
    /// Its configuration
    #[arg(long)]
    config: Option<PathBuf>,
    /// Its hypervisor's symbol file
    #[arg(long)]
    xen_syms: Option<PathBuf>,
    /// Only build: nothing is judged
    #[arg(long, conflicts_with = "judge_only")]
    capture_only: bool,
    /// Only judge what was built before
    #[arg(long)]
    judge_only: bool,
    /// Ask no oracle
    #[arg(long)]
    no_oracle: bool,
    /// Only list the patches
    #[arg(long)]
    list: bool,
    /// The table, which is written when all patches were judged
    #[arg(long, default_value = "docs/corpus.md")]
    table: PathBuf,
    /// The causes of disagreements
    #[arg(long, default_value = "docs/corpus-causes.toml")]
    causes: PathBuf,
    /// Boot as many of the payloads, chosen so that each kind of code and data is among them
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["capture_only", "tree"])]
    boot: Option<usize>,
    /// The table of the booted payloads, which is written when all patches were judged
    #[arg(long, default_value = "docs/corpus-boots.md")]
    boot_table: PathBuf,
}

/// What every patch needs.
pub(crate) struct Inputs {
    tree: PathBuf,
    config: PathBuf,
    cache: PathBuf,
    store: Store,
    jobs: usize,
}

impl Corpus {
    pub(crate) fn run(&self) -> Result<(), String> {
        fs::create_dir_all(self.out.join("pairs")).map_err(|error| error.to_string())?;
        let out = fs::canonicalize(&self.out).map_err(|error| error.to_string())?;
        let git = Git::new(&self.xen_git, &out)?;
        let range = Range::stable_4_17();
        let all = git.kept_list(&range)?;
        let reversed = all.iter().filter(|entry| entry.reverse).count();
        if (all.len() - reversed, reversed) != EXPECTED {
            let later = all.len() - reversed;
            return Err(format!("the list has {later} + {reversed} patches, not {EXPECTED:?}"));
        }
        let wanted: Vec<Entry> = all.iter().filter(|entry| entry.is_wanted(&self.only)).cloned().collect();
        if self.list {
            wanted.iter().for_each(|entry| println!("{}", entry.name()));
            return Ok(());
        }
        let (inputs, xen_syms) = self.inputs(out)?;
        let captures = self.captures(&inputs, &git, &wanted)?;
        if self.capture_only {
            return Ok(());
        }
        let judged = self.judge(&inputs, &Shipped::read(&xen_syms)?, &wanted, &captures)?;
        let whole = judged.len() == all.len();
        let concluded = self.conclude(&judged, whole, &range);
        let Some(count) = self.boot else { return concluded };
        let table = Some(self.boot_table.clone()).filter(|_| whole);
        let booted = Boots { inputs: &inputs, count, table }.run(&judged, &git);
        match (concluded, booted) {
            (Err(one), Err(other)) => Err(format!("{one}; {other}")),
            (one, other) => one.and(other),
        }
    }

    fn inputs(&self, out: PathBuf) -> Result<(Inputs, PathBuf), String> {
        let cache = xsplice_boot::default_cache().map_err(|problems| told(&problems))?;
        let (tree, config, xen_syms) = match (&self.tree, &self.config, &self.xen_syms) {
            (Some(tree), Some(config), Some(xen_syms)) => (tree.clone(), config.clone(), xen_syms.clone()),
            _ => {
                let debian = xsplice_boot::fetch(&cache, &|line| eprintln!("{line}"))
                    .map_err(|problems| told(&problems))?;
                (debian.source_tree, debian.config, debian.xen_syms)
            }
        };
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        let jobs = self.jobs.unwrap_or_else(processors).max(1);
        Ok((Inputs { tree, config, cache, store: Store { out }, jobs }, xen_syms))
    }

    /// Builds what was not built before; one after the other, since they share the kept build.
    fn captures(
        &self,
        inputs: &Inputs,
        git: &Git,
        wanted: &[Entry],
    ) -> Result<BTreeMap<usize, Capture>, String> {
        let mut captures = BTreeMap::new();
        for (done, entry) in wanted.iter().enumerate() {
            let patch = fs::read(git.patch_file(entry)).map_err(|error| error.to_string())?;
            let (request, key) = capture::request(inputs, entry, patch)?;
            let capture = match inputs.store.find(entry, &key) {
                Some(capture) => capture,
                None if self.judge_only => continue,
                None => {
                    let capture = capture::capture(inputs, entry, request, key)?;
                    let (end, objects) = (capture.end, capture.objects.len());
                    let seconds = capture.seconds;
                    eprintln!(
                        "{}/{} {}: {end:?}, {objects} objects, {seconds:.1} s",
                        done + 1,
                        wanted.len(),
                        entry.name()
                    );
                    capture
                }
            };
            captures.insert(entry.number, capture);
        }
        Ok(captures)
    }

    fn judge(
        &self,
        inputs: &Inputs,
        shipped: &Shipped,
        wanted: &[Entry],
        captures: &BTreeMap<usize, Capture>,
    ) -> Result<Vec<Judged>, String> {
        let oracle = Binutils::new()?;
        let kept = Kept::new(&oracle, inputs.store.out.join("verdicts"))?;
        let kept = Some(&kept).filter(|_| !self.no_oracle);
        let captured: Vec<(&Entry, &Capture)> = wanted
            .iter()
            .filter_map(|entry| captures.get(&entry.number).map(|capture| (entry, capture)))
            .collect();
        for entry in wanted.iter().filter(|entry| !captures.contains_key(&entry.number)) {
            println!("{:19} not built", entry.name());
        }
        let ordered = Ordered::default();
        captured
            .par_iter()
            .with_max_len(1)
            .enumerate()
            .map(|(place, (entry, capture))| {
                if xsplice_process::interrupted() {
                    return Err("interrupted".to_owned());
                }
                let judged = judge::judge(inputs, shipped, kept, entry, capture);
                ordered.print(place, judged.as_ref().map_or_else(Clone::clone, table::line));
                judged
            })
            .collect()
    }

    fn conclude(&self, judged: &[Judged], whole: bool, range: &Range) -> Result<(), String> {
        let causes = Causes::read(&self.causes)?;
        let findings = table::findings(judged, &causes);
        for finding in &findings {
            let kind = match finding.kind {
                Kind::Miss => "MISSED",
                Kind::Disagreement => "other functions",
                Kind::Shortfall => "falls short",
            };
            let why = finding.why.as_deref().unwrap_or("unexplained");
            println!("{kind}: {} {}: {}: {why}", finding.commit, finding.ending.text(), finding.what);
        }
        for stale in causes.stale(judged, &findings) {
            println!("a cause without its finding: {stale}");
        }
        let totals: Vec<String> = table::totals(judged)
            .into_iter()
            .map(|(ending, count)| format!("{count} {}", ending.text()))
            .collect();
        println!("corpus: {} patches: {}", judged.len(), totals.join(", "));
        for (code, (all, alone)) in table::codes(judged) {
            println!("  {all:4} {code} ({alone} with no other code)");
        }
        let asked = !self.no_oracle;
        if whole && asked {
            if let Some(folder) = self.table.parent() {
                fs::create_dir_all(folder).map_err(|error| error.to_string())?;
            }
            fs::write(&self.table, table::document(judged, &findings, range))
                .map_err(|error| error.to_string())?;
        }
        let unexplained = findings.iter().filter(|finding| finding.why.is_none()).count();
        let failed = judged.iter().filter(|judged| judged.ending == Ending::Failed).count();
        match (unexplained, failed) {
            (0, 0) => Ok(()),
            _ => Err(format!("{unexplained} findings without a cause, {failed} patches failed")),
        }
    }
}

/// Prints lines in order, whoever is ready first.
#[derive(Default)]
struct Ordered(Mutex<(usize, BTreeMap<usize, String>)>);

impl Ordered {
    fn print(&self, place: usize, line: String) {
        let Ok(mut state) = self.0.lock() else { return };
        state.1.insert(place, line);
        loop {
            let next = state.0;
            let Some(line) = state.1.remove(&next) else { break };
            println!("{line}");
            state.0 += 1;
        }
    }
}
