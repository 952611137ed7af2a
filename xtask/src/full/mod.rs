//! `cargo xtask full`: what needs trees that are not Debian's. The patches are Xen's own text: they are taken
//! from its repository when this runs, as a user would get them by mail, and stay out of this one.

mod bases;
mod trees;

use std::path::{Path, PathBuf};

use fs_err as fs;
use xsplice_boot::{DebianXen, Lab, Plan, render_text};
use xsplice_process::{Job, Sink};

use crate::{done, fetched, told};

/// XSA-475 on the stable-4.17 branch.
const XSA_475: &str = "17bfa36a41";
/// In the place of a commit: the source of Debian's hypervisor.
const DEBIAN: &str = "debian";
/// XSA-504 on the stable-4.17 branch.
const XSA_504: &str = "3fcf9565ae";

#[derive(Debug, clap::Args)]
pub(crate) struct Full {
    /// A clone of Xen's repository, with its stable branches
    #[arg(long)]
    xen_git: PathBuf,
    /// The xsplice program; by default the one beside this one
    #[arg(long)]
    xsplice: Option<PathBuf>,
    /// A folder for what is built, which is kept
    #[arg(long, default_value = "target/full")]
    work: PathBuf,
    /// Only checks whose name holds this
    #[arg(long)]
    only: Option<String>,
}

type Check = Box<dyn Fn(&Desk) -> Result<(), String>>;

/// What every check needs.
struct Desk {
    git: PathBuf,
    xsplice: PathBuf,
    work: PathBuf,
    cache: PathBuf,
    debian: DebianXen,
}

impl Full {
    pub(crate) fn run(&self) -> Result<(), String> {
        let desk = self.desk()?;
        let mut checks: Vec<(String, Check)> = vec![
            ("XSA-504 on the shipped hypervisor: built, loaded, reverted".to_owned(), Box::new(xsa_504)),
            ("XSA-475 on its parent: one function, loaded in that hypervisor".to_owned(), Box::new(xsa_475)),
            ("Xen's own 14 payloads: the loader answers as it is said to".to_owned(), Box::new(own_payloads)),
        ];
        checks.extend(bases::all().map(|(name, check)| (name, Box::new(check) as Check)));
        checks.extend(trees::all().map(|(name, check)| (name, Box::new(check) as Check)));
        checks.retain(|(name, _)| self.only.as_ref().is_none_or(|only| name.contains(only)));
        let mut failed = 0;
        for (name, check) in &checks {
            println!("== {name}");
            match check(&desk) {
                Ok(()) => println!("-- ok: {name}"),
                Err(why) => {
                    failed += 1;
                    println!("-- FAILED: {name}\n{why}");
                }
            }
        }
        println!("full: {} passed, {failed} failed", checks.len() - failed);
        if failed == 0 { Ok(()) } else { Err(format!("{failed} checks failed")) }
    }

    fn desk(&self) -> Result<Desk, String> {
        let (cache, debian) = fetched()?;
        let xsplice = crate::xsplice(self.xsplice.as_ref())?;
        fs::create_dir_all(&self.work).map_err(|error| error.to_string())?;
        let work = fs::canonicalize(&self.work).map_err(|error| error.to_string())?;
        Ok(Desk { git: self.xen_git.clone(), xsplice, work, cache, debian })
    }
}

impl Desk {
    /// A commit as a mail.
    fn mail(&self, commit: &str, name: &str) -> Result<PathBuf, String> {
        let job = Job::new("git").arg("-C").arg(&self.git).args(["format-patch", "-1", "--stdout", commit]);
        let file = self.work.join(name);
        fs::write(&file, done(job)?.stdout).map_err(|error| error.to_string())?;
        Ok(file)
    }

    /// The tree of a commit, or [`DEBIAN`], in a new folder.
    fn tree(&self, commit: &str, name: &str) -> Result<PathBuf, String> {
        let (tree, archive) = (self.work.join(name), self.work.join("tree.tar"));
        if tree.exists() {
            fs::remove_dir_all(&tree).map_err(|error| error.to_string())?;
        }
        fs::create_dir_all(&tree).map_err(|error| error.to_string())?;
        if commit == DEBIAN {
            let from = self.debian.source_tree.join(".");
            done(Job::new("cp").arg("-a").arg(from).arg(&tree))?;
            return Ok(tree);
        }
        let job = Job::new("git").arg("-C").arg(&self.git).args(["archive", "-o"]).arg(&archive).arg(commit);
        done(job)?;
        done(Job::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&tree))?;
        fs::remove_file(archive).map_err(|error| error.to_string())?;
        Ok(tree)
    }

    /// Builds a hypervisor by plain make, as who ships one does. Gives the folder that holds it.
    fn host(&self, tree: &Path, config: &Path, cc: &str) -> Result<PathBuf, String> {
        let xen = tree.join("xen");
        fs::copy(config, xen.join(".config")).map_err(|error| error.to_string())?;
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        let make = || {
            let make = Job::new("make").arg("-C").arg(&xen).arg(format!("-j{jobs}"));
            make.arg("XEN_TARGET_ARCH=x86_64").arg(format!("CC={cc}"))
        };
        done(make().arg("olddefconfig"))?;
        done(make())?;
        Ok(xen)
    }

    /// Builds a payload that must replace these functions and no others.
    fn payload(&self, tree: &Path, patch: &Path, syms: &Path, functions: &[&str]) -> Result<PathBuf, String> {
        let out = self.work.join("out");
        let job = Job::new(&self.xsplice)
            .args(["build", "-s"])
            .arg(tree)
            .arg("-p")
            .arg(patch)
            .arg("-c")
            .arg(&self.debian.config)
            .arg("--xen-syms")
            .arg(syms)
            .arg("-o")
            .arg(&out)
            .stderr(Sink::Inherit);
        done(job)?;
        let stem = patch.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let payload = out.join(format!("{stem}.livepatch"));
        let shown = done(Job::new(&self.xsplice).arg("inspect").arg(&payload))?;
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        println!("{shown}");
        let count = format!("functions ({})", functions.len());
        let all = functions.iter().all(|name| shown.contains(&format!("{name}: ")));
        if shown.contains(&count) && all {
            return Ok(payload);
        }
        Err(format!("other functions than {} are replaced", functions.join(", ")))
    }

    /// Loads, reverts and unloads a payload; `xen` is the hypervisor, or the shipped one.
    fn boot(&self, payload: &Path, xen: Option<&Path>) -> Result<(), String> {
        let mut lab = Lab::new(&self.debian.boot(), &self.cache);
        if let Some(xen) = xen {
            lab = lab.with_xen(xen);
        }
        let plan = Plan::exercise(&[payload.to_owned()], &[]);
        let report = lab.boot(&plan, &|_| {}).map_err(|problems| told(&problems))?;
        println!("{}", render_text(&report));
        if report.succeeded() { Ok(()) } else { Err(told(&report.problems())) }
    }
}

fn xsa_504(desk: &Desk) -> Result<(), String> {
    let patch = desk.mail(XSA_504, "xsa504.patch")?;
    let functions = ["start_stimer", "viridian_time_wrmsr", "viridian_time_load_vcpu_ctxt"];
    let payload = desk.payload(&desk.debian.source_tree, &patch, &desk.debian.xen_syms, &functions)?;
    desk.boot(&payload, None)
}

fn xsa_475(desk: &Desk) -> Result<(), String> {
    let patch = desk.mail(XSA_475, "xsa475.patch")?;
    let parent = format!("{XSA_475}^");
    // One tree is built in the usual way and stands for the host; the other is only read.
    let (host, tree) = (desk.tree(&parent, "xsa475-host")?, desk.tree(&parent, "xsa475-tree")?);
    let xen = desk.host(&host, &desk.debian.config, "gcc")?;
    let payload =
        desk.payload(&tree, &patch, &xen.join("xen-syms"), &["arch/x86/hvm/viridian/viridian.c#vpmask_set"])?;
    desk.boot(&payload, Some(&xen.join("xen.gz")))
}

fn own_payloads(desk: &Desk) -> Result<(), String> {
    let tree = desk.tree(DEBIAN, "own-payloads")?;
    crate::answers::check_own(&desk.debian, &desk.cache, &desk.xsplice, &tree)
}
