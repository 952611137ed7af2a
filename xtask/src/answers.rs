//! `cargo xtask answers`: docs/loader-answers.md, from what booted hypervisors answer.

use std::path::{Path, PathBuf};

use fs_err as fs;
use xsplice_boot::{BULLSEYE, DebianXen, Expect, Lab, Plan, Step, TRIXIE};
use xsplice_e2e::answers::{self, Answer, Said, Xen};
use xsplice_e2e::recipes;
use xsplice_process::Job;

use crate::{done, fetched, told};

/// Xen's own payloads (xen/test/livepatch), in the order in which they are asked about, each with the one that it is
/// to stack on, and whether its hook says no at apply, which no verifier can know.
const OWN: [(&str, Option<&str>, bool); 14] = [
    ("xen_hello_world", None, false),
    ("xen_bye_world", Some("xen_hello_world"), false),
    ("xen_replace_world", None, false),
    ("xen_nop", None, false),
    ("xen_no_xen_buildid", None, false),
    ("xen_prepost_hooks", None, false),
    ("xen_prepost_hooks_fail", None, true),
    ("xen_action_hooks", None, false),
    ("xen_action_hooks_nofunc", None, false),
    ("xen_action_hooks_marker", None, false),
    ("xen_action_hooks_noapply", None, true),
    ("xen_expectations", None, false),
    ("xen_expectations_fail", None, false),
    ("xen_action_hooks_norevert", None, false),
];
/// What stands against most of them, and does no harm in a machine without CET, nor to who only reads a text: their
/// hooks are no targets of indirect calls, and one says that a function has 8 bytes that has 12.
const HARMLESS: [&str; 2] = ["hook-not-callable", "func-old-size"];
/// Where their table begins on the page.
const HEADING: &str = "## Xen's own payloads\n";

#[derive(Debug, clap::Args)]
pub(crate) struct Answers {
    /// The xsplice program; by default the one beside this one
    #[arg(long)]
    xsplice: Option<PathBuf>,
    /// A folder for what is built, which is kept
    #[arg(long, default_value = "target/answers")]
    work: PathBuf,
    /// The page to write
    #[arg(long, default_value = "docs/loader-answers.md")]
    page: PathBuf,
    /// Only this table; the other stays as it is on the page
    #[arg(long)]
    only: Option<Part>,
}

/// A table of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Damaged payloads.
    Damaged,
    /// Xen's own payloads.
    Own,
}

impl Answers {
    pub(crate) fn run(&self) -> Result<(), String> {
        let (cache, debian) = fetched()?;
        let xsplice = crate::xsplice(self.xsplice.as_ref())?;
        fs::create_dir_all(&self.work).map_err(|error| error.to_string())?;
        let work = fs::canonicalize(&self.work).map_err(|error| error.to_string())?;
        let page = fs::read_to_string(&self.page).unwrap_or_default();
        let (damaged, own) = page.split_once(HEADING).unwrap_or_default();
        let (mut damaged, mut own) = (damaged.to_owned(), own.to_owned());
        if self.only != Some(Part::Damaged) {
            own = format!("\n{OWN_INTRODUCTION}{}", all_own(&cache, &debian, &xsplice, &work)?);
        }
        if self.only != Some(Part::Own) {
            damaged = format!("{INTRODUCTION}{}\n", all_damaged(&cache, &debian, &xsplice, &work)?);
        }
        fs::write(&self.page, format!("{damaged}{HEADING}{own}")).map_err(|error| error.to_string())
    }
}

/// The table of damaged payloads.
fn all_damaged(cache: &Path, debian: &DebianXen, xsplice: &Path, work: &Path) -> Result<String, String> {
    let mut columns: Vec<(&str, Vec<Answer>)> = Vec::new();
    let mut wrong = Vec::new();
    for xen in xens(cache, debian, xsplice, work)? {
        eprintln!("asking Xen {}", xen.label);
        match answers::ask(&xen, answers::About::All, xsplice, &work.join(format!("answers-{}", xen.label))) {
            Ok(all) => columns.push((xen.label, all)),
            Err(why) => wrong.push(format!("{}: {why}", xen.label)),
        }
    }
    let columns: Vec<(&str, &[Answer])> =
        columns.iter().map(|(label, answers)| (*label, answers.as_slice())).collect();
    if wrong.is_empty() { Ok(answers::table(&columns)) } else { Err(wrong.join("\n")) }
}

/// The table of Xen's own payloads, which are made once: the folder is kept.
fn all_own(cache: &Path, debian: &DebianXen, xsplice: &Path, work: &Path) -> Result<String, String> {
    eprintln!("asking about Xen's own payloads");
    let mut folder = work.join("own-payloads/xen/test/livepatch");
    if !OWN.iter().all(|(name, ..)| folder.join(format!("{name}.livepatch")).is_file()) {
        folder = own_payloads(debian, &private_copy(debian, work)?)?;
    }
    own(debian, cache, xsplice, &folder)
}

const INTRODUCTION: &str = "# What loaders answer

Written by `cargo xtask answers`; the end-to-end tests compare it with what they see. Each payload is a sound one with
one thing wrong. `xsplice verify` has to give the answer of the booted hypervisor, by the rule that the payload stands
for, whose code is in the third column; `xsplice explain CODE` tells more. An answer is what was refused, upload or apply,
with the error; or `accept`. What is accepted and unsafe is uploaded and never applied. What would kill the host is given
to the verifier only. The sound payloads are one that xsplice built (4.17.5) and one made by hand (crates/e2e/src/sample.rs).

";

const OWN_INTRODUCTION: &str = "The 14 of xen/test/livepatch, built by Xen's own makefile in the tree of Debian's 4.17.5+72 for the shipped
hypervisor. `cargo xtask full` compares. Those whose only fault is one that does no harm in the lab are applied:
a hook without ENDBR64 where processors check nothing, an old size that is not the shipped one. `xen_nop` and its like
put NOPs over the way out of a function, and are not applied. A hook's own no at apply is nobody's to foresee.

";

/// Debian's hypervisors, in the order of the columns.
fn xens(cache: &Path, debian: &DebianXen, xsplice: &Path, work: &Path) -> Result<Vec<Xen>, String> {
    let recipe = recipes::STATIC;
    let patch = work.join(format!("{}.patch", recipe.name));
    let made = recipe.make(&debian.source_tree).map_err(|error| error.to_string())?;
    fs::write(&patch, made.diff).map_err(|error| error.to_string())?;
    let build = Job::new(xsplice).args(["--quiet", "build", "-s"]).arg(&debian.source_tree);
    let build = build.arg("-p").arg(&patch).arg("-c").arg(&debian.config).arg("-o").arg(work.join("out"));
    done(build.arg("--xen-syms").arg(&debian.xen_syms))?;
    let built = fs::read(work.join("out").join(format!("{}.livepatch", recipe.name)));
    let bookworm = Xen {
        label: "4.17.5",
        minor: 17,
        lab: Lab::new(&debian.boot(), cache),
        symbols: debian.xen_syms.clone(),
        built: Some(built.map_err(|error| error.to_string())?),
    };
    let other = |release| answers::shipped(&debian.boot(), cache, release)?;
    Ok(vec![other(&BULLSEYE)?, bookworm, other(&TRIXIE)?])
}

fn private_copy(debian: &DebianXen, work: &Path) -> Result<PathBuf, String> {
    let tree = work.join("own-payloads");
    if tree.exists() {
        fs::remove_dir_all(&tree).map_err(|error| error.to_string())?;
    }
    fs::create_dir_all(&tree).map_err(|error| error.to_string())?;
    done(Job::new("cp").arg("-a").arg(debian.source_tree.join(".")).arg(&tree))?;
    Ok(tree)
}

/// Builds Xen's own payloads in a copy of its tree: for the shipped hypervisor, whose symbol file stands in for the
/// one that make has built. Gives their folder.
fn own_payloads(debian: &DebianXen, tree: &Path) -> Result<PathBuf, String> {
    let xen = tree.join("xen");
    fs::copy(&debian.config, xen.join(".config")).map_err(|error| error.to_string())?;
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let make = || Job::new("make").arg("-C").arg(&xen).arg(format!("-j{jobs}")).arg("XEN_TARGET_ARCH=x86_64");
    done(make())?;
    fs::copy(&debian.xen_syms, xen.join("xen-syms")).map_err(|error| error.to_string())?;
    done(make().arg("tests"))?;
    Ok(xen.join("test/livepatch"))
}

/// What the verifier and the shipped hypervisor say of them, as a table.
fn own(debian: &DebianXen, cache: &Path, xsplice: &Path, folder: &Path) -> Result<String, String> {
    let file = |name: &str| folder.join(format!("{name}.livepatch"));
    let (mut steps, mut said) = (Vec::new(), Vec::new());
    for (name, on, _) in OWN {
        let below: Vec<PathBuf> = on.map(file).into_iter().collect();
        let one = Said::of(xsplice, &file(name), &debian.xen_syms, &below)?;
        let harmless = one.codes.iter().all(|code| HARMLESS.contains(&code.as_str()));
        let apply = harmless && !one.loader.starts_with("upload ");
        steps.push(Step::run(&command(name, on, apply)).named(name).expecting(Expect::Anything));
        said.push(one);
    }
    let files: Vec<PathBuf> = OWN.iter().map(|(name, ..)| file(name)).collect();
    let lab = Lab::new(&debian.boot(), cache);
    let report = lab.boot(&Plan::script(&files, steps), &|_| {}).map_err(|problems| told(&problems))?;
    let mut table = String::from("| payload | verify says | Xen 4.17.5 |\n|---|---|---|\n");
    let mut wrong = Vec::new();
    for ((name, _, vetoes), said) in OWN.iter().zip(&said) {
        let xen = answers::answered(&report, name)?;
        let equal =
            if *vetoes { said.loader == "accept" && xen.starts_with("apply ") } else { xen == said.loader };
        if !equal {
            wrong.push(format!("{name}: Xen says {xen}, and xsplice says {}", said.words()));
        }
        let why = if *vetoes { ", by its hook" } else { "" };
        table.push_str(&format!("| {name} | {} | {xen}{why} |\n", said.words()));
    }
    if wrong.is_empty() { Ok(table) } else { Err(wrong.join("\n")) }
}

fn command(name: &str, on: Option<&str>, apply: bool) -> String {
    let quiet = ">/dev/null 2>&1";
    let (mut first, mut last) = (String::new(), String::new());
    if let Some(on) = on {
        first = format!("xen-livepatch load /payloads/{on}.livepatch {quiet}; ");
        last = format!("xen-livepatch revert {on} {quiet}; xen-livepatch unload {on} {quiet}; ");
    }
    let apply = if apply { format!("xen-livepatch apply {name} 2>&1; ") } else { String::new() };
    // A hook of one of them refuses the first revert.
    let revert = format!("xen-livepatch revert {name} {quiet}");
    format!(
        "{first}xen-livepatch upload {name} /payloads/{name}.livepatch 2>&1 && \
         {{ {apply}{revert} || {revert}; xen-livepatch unload {name} {quiet}; }}; {last}true"
    )
}

/// Whether the page has what is said of Xen's own payloads, which are built in this copy of Debian's tree.
pub(crate) fn check_own(debian: &DebianXen, cache: &Path, xsplice: &Path, tree: &Path) -> Result<(), String> {
    let page = fs::read_to_string("docs/loader-answers.md").map_err(|error| error.to_string())?;
    let table = own(debian, cache, xsplice, &own_payloads(debian, tree)?)?;
    println!("{table}");
    let (_, part) = page.split_once(HEADING).ok_or("the page has no table of Xen's own payloads")?;
    if part.ends_with(&table) { Ok(()) } else { Err("docs/loader-answers.md has another table".to_owned()) }
}
