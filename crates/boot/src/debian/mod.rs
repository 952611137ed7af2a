//! Debian's packages of Xen, unpacked into a cache folder.
//!
//! Nothing is installed into the system, and no step needs to be root. The Xen packages are pinned by
//! version and SHA-256; the kernel, the C library and busybox move with Debian's security updates and
//! are taken at the version that apt offers, which apt authenticates. What is in the cache is used
//! without a network. Several processes may ask at the same time: one fetches, the others wait.
//!
//! Should Debian stop serving the pinned version, the newest other 4.17 that is served with source,
//! hypervisor and symbols is taken instead, and [`DebianXen::pinned`] says so.

mod apt;
pub(crate) mod kernel;
pub(crate) mod pins;
mod shipped;
pub(crate) mod sources;
mod tarball;

use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::Serialize;
use tempfile::TempDir;
use xsplice_process::Job;
use xsplice_report::{Diagnostic, Place, Problems};

use crate::cache::{Lock, private_dir, publish_dir, sweep};
use crate::codes;
use apt::Apt;
pub use pins::PINNED_VERSION;
pub use shipped::{BULLSEYE, Release, Shipped, TRIXIE, fetch_shipped};
pub use tarball::{OLD_XEN_CC, OLD_XEN_VERSION, OldXen, fetch_old};

/// Binary packages that come from Xen's source package, all in one version.
const XEN_PACKAGES: &[&str] = &[
    "xen-hypervisor-4.17-amd64",
    "xen-hypervisor-4.17-amd64-dbg",
    "xen-utils-4.17",
    "libxenmisc4.17",
    "libxencall1",
    "libxendevicemodel1",
    "libxenevtchn1",
    "libxenforeignmemory1",
    "libxengnttab1",
    "libxenhypfs1",
    "libxenstore4",
    "libxentoolcore1",
    "libxentoollog1",
];
/// The first of [`XEN_PACKAGES`] that hold the hypervisor; the rest are tools and libraries.
const HYPERVISOR_PACKAGES: usize = 2;
/// What else the control domain's programs need, at the version that apt offers.
const USERLAND_PACKAGES: &[&str] = &["libc6", "zlib1g", "busybox-static"];
/// How many kernels to try, newest first, where a download fails.
const KERNELS_TO_TRY: usize = 3;

/// What `xsplice boot` needs of Debian's packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DebianBoot {
    /// The version of the Xen packages.
    pub version: String,
    /// Whether that is [`PINNED_VERSION`], and its hashes were the pinned ones.
    pub pinned: bool,
    /// The hypervisor, unpacked: the ELF32 file that a multiboot loader takes.
    pub hypervisor: PathBuf,
    /// The hypervisor with its symbol table (no DWARF), from the -dbg package.
    pub xen_syms: PathBuf,
    /// The configuration that the hypervisor was built with (Kconfig's `.config`).
    pub config: PathBuf,
    /// A root file system with Xen's tools, their libraries and a static busybox.
    pub tools_dir: PathBuf,
    /// Debian's kernel, unpacked to its ELF64 vmlinux.
    pub kernel: PathBuf,
    /// The folder of that kernel's modules for Xen, at any depth.
    pub modules: PathBuf,
}

/// Everything: what [`DebianBoot`] has, and the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DebianXen {
    /// The version of the Xen packages.
    pub version: String,
    /// Whether that is [`PINNED_VERSION`], and its hashes were the pinned ones.
    pub pinned: bool,
    /// The hypervisor, unpacked: the ELF32 file that a multiboot loader takes.
    pub hypervisor: PathBuf,
    /// The hypervisor with its symbol table (no DWARF), from the -dbg package.
    pub xen_syms: PathBuf,
    /// The configuration that the hypervisor was built with (Kconfig's `.config`).
    pub config: PathBuf,
    /// The source package, unpacked, Debian's patches applied: the folder that holds `xen/`.
    pub source_tree: PathBuf,
    /// A root file system with Xen's tools, their libraries and a static busybox.
    pub tools_dir: PathBuf,
    /// Debian's kernel, unpacked to its ELF64 vmlinux.
    pub kernel: PathBuf,
    /// The folder of that kernel's modules for Xen, at any depth.
    pub modules: PathBuf,
}

/// Gets everything into `cache`: about 90 MB to download and 250 MB to keep.
///
/// `progress` is called with one line of text before each longer step.
///
/// # Errors
/// Missing programs (what to install is said), download errors, a file that is not the pinned one.
pub fn fetch(cache: &Path, progress: &dyn Fn(&str)) -> Result<DebianXen, Problems> {
    let (boot, source) = Fetch::new(cache, progress).and_then(|mut fetch| fetch.all(true))?;
    Ok(DebianXen {
        version: boot.version,
        pinned: boot.pinned,
        hypervisor: boot.hypervisor,
        xen_syms: boot.xen_syms,
        config: boot.config,
        source_tree: source,
        tools_dir: boot.tools_dir,
        kernel: boot.kernel,
        modules: boot.modules,
    })
}

/// As [`fetch`], without the source.
///
/// # Errors
/// As [`fetch`].
pub fn fetch_boot(cache: &Path, progress: &dyn Fn(&str)) -> Result<DebianBoot, Problems> {
    let (boot, _) = Fetch::new(cache, progress).and_then(|mut fetch| fetch.all(false))?;
    Ok(boot)
}

/// One call of [`fetch`], with the lock held.
struct Fetch<'a> {
    /// `CACHE/debian`.
    dir: PathBuf,
    progress: &'a dyn Fn(&str),
    apt: Option<Apt>,
    _lock: Lock,
}

impl<'a> Fetch<'a> {
    fn new(cache: &Path, progress: &'a dyn Fn(&str)) -> Result<Fetch<'a>, Problems> {
        let dir = cache.join("debian");
        private_dir(&dir)?;
        let dir = fs::canonicalize(&dir).map_err(codes::io)?;
        let lock = Lock::take(&dir.join("lock"), || {
            progress("waiting for another process that fetches Debian's packages");
        })?;
        sweep(&dir);
        Ok(Fetch { dir, progress, apt: None, _lock: lock })
    }

    /// Updates the package lists at the first call.
    fn apt(&mut self) -> Result<&Apt, Problems> {
        if self.apt.is_none() {
            (self.progress)("updating private copies of Debian's package lists");
            self.apt = Some(Apt::set_up(&self.dir.join("apt"), sources::RELEASE, sources::Wanted::All)?);
        }
        self.apt.as_ref().ok_or_else(|| Diagnostic::new(codes::DOWNLOAD_FAILED, "apt was not set up").into())
    }

    fn all(&mut self, with_source: bool) -> Result<(DebianBoot, PathBuf), Problems> {
        if with_source {
            require("dpkg-source")?;
        }
        let version = self.xen(with_source)?;
        let kernel = self.dir.join("kernel");
        self.kernel(&kernel)?;
        let (home, source) = (self.home(&version), self.source(&version));
        let boot = DebianBoot {
            pinned: version == PINNED_VERSION,
            version,
            hypervisor: home.join("xen"),
            xen_syms: home.join("xen-syms"),
            config: home.join("config"),
            tools_dir: home.join("tools"),
            kernel: kernel.join("vmlinux"),
            modules: kernel.join("modules"),
        };
        let mut needed = vec![
            &boot.hypervisor,
            &boot.xen_syms,
            &boot.config,
            &boot.tools_dir,
            &boot.kernel,
            &boot.modules,
        ];
        needed.extend(with_source.then_some(&source));
        for path in needed {
            if !path.exists() {
                return Err(Diagnostic::new(codes::CACHE_UNUSABLE, "a file of the cache is gone")
                    .at(Place::file(path.display().to_string()))
                    .advice(format!("Remove {} and run it again.", self.dir.display()))
                    .into());
            }
        }
        if self.apt.take().is_some() {
            // Lists of today are of no use when something is asked for another day.
            let _ = std::fs::remove_dir_all(self.dir.join("apt"));
        }
        Ok((boot, source))
    }

    fn home(&self, version: &str) -> PathBuf {
        self.dir.join(version).join("lab")
    }

    fn source(&self, version: &str) -> PathBuf {
        self.dir.join(version).join("source").join("tree")
    }

    /// Where the version is noted that took the place of the pinned one.
    fn fallback_note(&self) -> PathBuf {
        self.dir.join("version")
    }

    /// Makes sure that one version of the Xen packages is in the cache, and says which.
    fn xen(&mut self, with_source: bool) -> Result<String, Problems> {
        let noted = std::fs::read_to_string(self.fallback_note()).unwrap_or_default();
        for version in [PINNED_VERSION, noted.trim()] {
            let complete = !version.is_empty() && self.home(version).exists();
            if complete && (!with_source || self.source(version).exists()) {
                return Ok(version.to_owned());
            }
        }
        let candidates = self.candidates()?;
        let mut last = None;
        for version in &candidates {
            if version != PINNED_VERSION {
                (self.progress)(&format!("version {PINNED_VERSION} is not served: trying {version}"));
            }
            match self.xen_version(version, with_source || version != PINNED_VERSION) {
                Ok(()) if version == PINNED_VERSION => return Ok(version.clone()),
                Ok(()) => {
                    fs::write(self.fallback_note(), version).map_err(codes::io)?;
                    return Ok(version.clone());
                }
                // Listed and not served: the next one may be. A wrong hash is no reason to look elsewhere.
                Err(problem) if codes::any(&problem, codes::DOWNLOAD_FAILED) => last = last.or(Some(problem)),
                Err(problem) => return Err(problem),
            }
        }
        Err(last.unwrap_or_else(|| self.nothing_offered()))
    }

    /// The versions that could be used: the pinned one first, then the others from the newest.
    fn candidates(&mut self) -> Result<Vec<String>, Problems> {
        let apt = self.apt()?;
        let sources = apt.source_versions("xen")?;
        let mut all = apt.versions(XEN_PACKAGES[0])?;
        for package in &XEN_PACKAGES[1..] {
            let offered = apt.versions(package)?;
            all.retain(|version| offered.contains(version));
        }
        Ok(order_candidates(&all, &sources))
    }

    fn nothing_offered(&self) -> Problems {
        let complaint = self.apt.as_ref().map_or("", Apt::complaint);
        let said = if complaint.is_empty() {
            String::new()
        } else {
            format!("\nThe update of the package lists said:\n{complaint}")
        };
        Diagnostic::new(codes::PACKAGE_MISSING, "no Xen 4.17 is offered with source, hypervisor and symbols")
            .at(Place::file(self.dir.join("apt/xsplice.sources").display().to_string()))
            .why(format!("Wanted is version {PINNED_VERSION} of xen and {}.{said}", XEN_PACKAGES.join(", ")))
            .advice("Check the network, and that the machine's package sources have a Debian mirror.")
            .into()
    }

    /// Gets one version into the cache.
    fn xen_version(&mut self, version: &str, with_source: bool) -> Result<(), Problems> {
        let (home, source) = (self.home(version), self.source(version));
        let (dir, progress) = (self.dir.clone(), self.progress);
        let apt = self.apt()?;
        let said = |what: &str| progress(&format!("downloading {what} of Debian's Xen {version}"));
        if with_source {
            require("dpkg-source")?;
            let parent = source.parent().unwrap_or(&source);
            publish_dir(parent, |inner| {
                said("the source");
                let down = TempDir::with_prefix_in(".new-", &dir).map_err(codes::io)?;
                apt.source("xen", version, down.path())?;
                pins::check_dir(down.path())?;
                progress("unpacking the source");
                unpack_source(down.path(), &inner.join("tree"))
            })?;
        }
        publish_dir(&home, |inner| {
            said("the packages");
            let down = TempDir::with_prefix_in(".new-", &dir).map_err(codes::io)?;
            let mut packages: Vec<String> =
                XEN_PACKAGES.iter().map(|package| format!("{package}={version}")).collect();
            packages.extend(USERLAND_PACKAGES.iter().map(|package| (*package).to_owned()));
            apt.download(&packages, down.path())?;
            pins::check_dir(down.path())?;
            progress("unpacking the packages");
            unpack_packages(down.path(), inner)
        })
    }

    /// Makes sure that a kernel is in the cache.
    fn kernel(&mut self, target: &Path) -> Result<(), Problems> {
        if target.exists() {
            return Ok(());
        }
        let (dir, progress) = (self.dir.clone(), self.progress);
        let apt = self.apt()?;
        let names = newest_kernels(&apt.names("linux-image-6.1.0-")?);
        let mut last: Problems =
            Diagnostic::new(codes::PACKAGE_MISSING, "no linux-image-6.1.0-N-amd64 is offered")
                .at(Place::file(dir.join("apt/xsplice.sources").display().to_string()))
                .why(apt.complaint())
                .advice("Check the network, and that the machine's package sources have a Debian mirror.")
                .into();
        for name in names.iter().take(KERNELS_TO_TRY) {
            progress(&format!("downloading {name} (70 MB)"));
            let down = TempDir::with_prefix_in(".new-", &dir).map_err(codes::io)?;
            match apt.download(std::slice::from_ref(name), down.path()) {
                Ok(()) => {
                    progress("unpacking the kernel");
                    let deb = only_deb(down.path(), name)?;
                    return publish_dir(target, |inner| kernel::unpack_deb(&deb, down.path(), inner));
                }
                Err(problem) if codes::any(&problem, codes::DOWNLOAD_FAILED) => last = problem,
                Err(problem) => return Err(problem),
            }
        }
        Err(last)
    }
}

/// Of the versions with all binary packages, those with source: the pinned one first, else as given.
fn order_candidates(binaries: &[String], sources: &[String]) -> Vec<String> {
    let usable = |version: &&String| version.starts_with("4.17.") && sources.contains(version);
    let mut usable: Vec<String> = binaries.iter().filter(usable).cloned().collect();
    // Stable: the rest keeps its order, which is from the newest on.
    usable.sort_by_key(|version| version != PINNED_VERSION);
    usable
}

/// The plain kernels among package names, highest ABI number first.
fn newest_kernels(names: &[String]) -> Vec<String> {
    let number = |name: &String| -> Option<u32> {
        name.strip_prefix("linux-image-6.1.0-")?.strip_suffix("-amd64")?.parse().ok()
    };
    let mut kernels: Vec<(u32, &String)> =
        names.iter().filter_map(|name| Some((number(name)?, name))).collect();
    kernels.sort_by(|one, other| other.cmp(one));
    kernels.into_iter().map(|(_, name)| name.clone()).collect()
}

/// Fails early, and with the name of the package, where a program is not installed.
fn require(program: &str) -> Result<(), Problems> {
    Job::new(program).arg("--version").run().map(|_| ()).map_err(codes::job)
}

fn debs_of(dir: &Path) -> Result<Vec<PathBuf>, Problems> {
    let mut debs = Vec::new();
    for entry in fs::read_dir(dir).map_err(codes::io)? {
        let path = entry.map_err(codes::io)?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            debs.push(path);
        }
    }
    debs.sort();
    Ok(debs)
}

fn only_deb(dir: &Path, name: &str) -> Result<PathBuf, Problems> {
    debs_of(dir)?.pop().ok_or_else(|| {
        Diagnostic::new(codes::DOWNLOAD_FAILED, format!("apt downloaded no file for {name}"))
            .at(Place::file(dir.display().to_string()))
            .into()
    })
}

/// Unpacks the source package in `from` into `tree`, which must not exist.
fn unpack_source(from: &Path, tree: &Path) -> Result<(), Problems> {
    let mut dsc = None;
    for entry in fs::read_dir(from).map_err(codes::io)? {
        let path = entry.map_err(codes::io)?.path();
        if path.extension().is_some_and(|extension| extension == "dsc") {
            dsc = Some(path);
        }
    }
    let Some(dsc) = dsc else {
        return Err(Diagnostic::new(codes::DOWNLOAD_FAILED, "apt downloaded no .dsc file").into());
    };
    let job = Job::new("dpkg-source").args(["--no-copy", "-x"]).arg(dsc).arg(tree).env("LC_ALL", "C");
    let finished = job.run().map_err(codes::job)?;
    if finished.success() { Ok(()) } else { Err(codes::ended_badly("dpkg-source", &finished)) }
}

/// Unpacks binary packages: the hypervisor's files to fixed names in `to`, the others to `to/tools`.
fn unpack_packages(from: &Path, to: &Path) -> Result<(), Problems> {
    let scratch = from.join("hypervisor");
    let tools = to.join("tools");
    let hypervisors = &XEN_PACKAGES[..HYPERVISOR_PACKAGES];
    for deb in debs_of(from)? {
        let name = deb.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let package = name.split('_').next().unwrap_or_default();
        let target = if hypervisors.contains(&package) { &scratch } else { &tools };
        unpack_deb(&deb, target)?;
    }
    let image = fs::read(found(scratch.join("boot/xen-4.17-amd64.gz"))?).map_err(codes::io)?;
    fs::write(to.join("xen"), kernel::decompress(&image, "the hypervisor")?).map_err(codes::io)?;
    let syms = found(scratch.join("usr/lib/debug/boot/xen-syms-4.17-amd64"))?;
    fs::copy(syms, to.join("xen-syms")).map_err(codes::io)?;
    fs::copy(found(scratch.join("boot/xen-4.17-amd64.config"))?, to.join("config")).map_err(codes::io)?;
    Ok(())
}

fn found(path: PathBuf) -> Result<PathBuf, Problems> {
    if path.exists() {
        return Ok(path);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Err(Diagnostic::new(codes::PACKAGE_CONTENTS, format!("the hypervisor's packages have no {name}")).into())
}

fn unpack_deb(deb: &Path, to: &Path) -> Result<(), Problems> {
    let finished = Job::new("dpkg-deb").arg("-x").arg(deb).arg(to).run().map_err(codes::job)?;
    if finished.success() { Ok(()) } else { Err(codes::ended_badly("dpkg-deb -x", &finished)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn the_pinned_version_wins_and_others_need_a_source() {
        let binaries = strings(&["4.20.1-1", "4.17.9-2", "4.17.7-1", PINNED_VERSION, "4.17.1-1"]);
        let sources = strings(&["4.20.1-1", "4.17.9-2", "4.17.1-1", PINNED_VERSION]);
        assert_eq!(order_candidates(&binaries, &sources), [PINNED_VERSION, "4.17.9-2", "4.17.1-1"]);
        let without = strings(&["4.17.1-1", "4.17.9-2"]);
        assert_eq!(order_candidates(&binaries, &without), ["4.17.9-2", "4.17.1-1"]);
    }

    #[test]
    fn a_package_without_what_is_needed_is_named() {
        let error = found("/no/such/folder/xen.gz".into()).expect_err("nothing there");
        assert!(codes::any(&error, codes::PACKAGE_CONTENTS));
        assert!(error.0[0].what.ends_with("have no xen.gz"));
        let error =
            unpack_deb(Path::new("/no/such/package.deb"), Path::new("/nowhere")).expect_err("no package");
        // Without dpkg-deb that is what is said.
        assert!(codes::any(&error, codes::TOOL_FAILED) || codes::any(&error, codes::TOOL_MISSING));
        let stopped = codes::job(xsplice_process::Error::Interrupted);
        assert!(codes::any(&stopped, codes::INTERRUPTED));
    }

    #[test]
    fn kernels_by_number_without_the_special_ones() {
        let names = strings(&[
            "linux-image-6.1.0-9-amd64",
            "linux-image-6.1.0-56-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-56-amd64-dbg",
            "linux-image-6.1.0-57-amd64-unsigned",
            "linux-image-6.1.0-57-rt-amd64",
        ]);
        assert_eq!(newest_kernels(&names), ["linux-image-6.1.0-56-amd64", "linux-image-6.1.0-9-amd64"]);
    }
}
