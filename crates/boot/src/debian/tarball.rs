//! The source of an older Xen, 4.14.6, from Debian 11's main archive. Of that source package only the original
//! tarball is served: what Xen's developers released, without Debian's patches and configuration.

use std::path::{Path, PathBuf};

use fs_err as fs;
use tempfile::TempDir;
use xsplice_process::Job;
use xsplice_report::{Diagnostic, Problems};

use super::apt::Apt;
use super::sources::Wanted;
use super::{Fetch, pins, require};
use crate::cache::publish_dir;
use crate::codes;

/// The version of Xen that [`fetch_old`] gets.
pub const OLD_XEN_VERSION: &str = "4.14.6";
/// The compiler that builds it on Debian 12: gcc 12 has warnings that this Xen takes for errors.
pub const OLD_XEN_CC: &str = "gcc-11";
/// The version of the source package.
const PACKAGE_VERSION: &str = "4.14.6-1";
/// Its release of Debian.
const RELEASE: &str = "bullseye";
/// The tarball, which is pinned.
pub(crate) const FILE: &str = "xen_4.14.6.orig.tar.xz";
/// What is asked of Kconfig; the rest are its defaults.
const CONFIG: &str = "CONFIG_LIVEPATCH=y\n";

/// An older Xen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldXen {
    /// The source: the folder that holds `xen/`.
    pub source_tree: PathBuf,
    /// A configuration with live patching on, to be completed by Kconfig's defaults.
    pub config: PathBuf,
}

/// Gets Xen 4.14.6 into `cache`: 5 MB to download and 50 MB to keep.
///
/// `progress` is called with one line of text before each longer step.
///
/// # Errors
/// Missing programs (what to install is said), download errors, a file that is not the pinned one.
pub fn fetch_old(cache: &Path, progress: &dyn Fn(&str)) -> Result<OldXen, Problems> {
    let fetch = Fetch::new(cache, progress)?;
    let home = fetch.dir.join(OLD_XEN_VERSION).join("source");
    publish_dir(&home, |inner| {
        require("tar")?;
        require("xz")?;
        progress("updating private copies of Debian's package lists");
        let lists = fetch.dir.join("apt-old");
        let apt = Apt::set_up(&lists, RELEASE, Wanted::Sources)?;
        progress(&format!("downloading the source of Xen {OLD_XEN_VERSION}"));
        let down = TempDir::with_prefix_in(".new-", &fetch.dir).map_err(codes::io)?;
        apt.tarball("xen", PACKAGE_VERSION, down.path())?;
        pins::check_dir(down.path())?;
        progress("unpacking the source");
        unpack(&down.path().join(FILE), &inner.join("tree"))?;
        fs::write(inner.join("config"), CONFIG).map_err(codes::io)?;
        // Lists of today are of no use another day.
        let _ = std::fs::remove_dir_all(lists);
        Ok(())
    })?;
    Ok(OldXen { source_tree: home.join("tree"), config: home.join("config") })
}

/// Unpacks the one folder of a tarball as `tree`.
fn unpack(tarball: &Path, tree: &Path) -> Result<(), Problems> {
    if !tarball.is_file() {
        return Err(Diagnostic::new(codes::DOWNLOAD_FAILED, format!("apt downloaded no {FILE}")).into());
    }
    fs::create_dir(tree).map_err(codes::io)?;
    let job = Job::new("tar")
        .args(["--extract", "--xz", "--strip-components=1", "--no-same-owner", "--file"])
        .arg(tarball)
        .arg("--directory")
        .arg(tree)
        .env("LC_ALL", "C");
    let finished = job.run().map_err(codes::job)?;
    if !finished.success() {
        return Err(codes::ended_badly("tar", &finished));
    }
    if tree.join("xen/Makefile").is_file() {
        return Ok(());
    }
    Err(Diagnostic::new(codes::PACKAGE_CONTENTS, format!("{FILE} holds no Xen")).into())
}
