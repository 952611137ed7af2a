//! Other hypervisors that Debian ships, with the tools of their versions. They are booted with the kernel that
//! [`super::fetch_boot`] gets.

use std::path::{Path, PathBuf};

use fs_err as fs;
use tempfile::TempDir;
use xsplice_report::Problems;

use super::apt::Apt;
use super::sources::Wanted;
use super::{Fetch, debs_of, found, kernel, pins, unpack_deb};
use crate::cache::publish_dir;
use crate::codes;

/// A release of Debian with the Xen that it ships.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// Such as `trixie`.
    suite: &'static str,
    /// Such as `4.20`.
    series: &'static str,
    /// Of the packages.
    version: &'static str,
    /// Whether there is a package of debug symbols.
    symbols: bool,
    /// File names of the Xen packages and their SHA-256, in order of name.
    pins: &'static [(&'static str, &'static str)],
}

/// What is there of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shipped {
    /// The version of the packages.
    pub version: &'static str,
    /// The hypervisor, unpacked: the ELF32 file that a multiboot loader takes.
    pub hypervisor: PathBuf,
    /// The hypervisor with its symbol table, where Debian has it.
    pub xen_syms: Option<PathBuf>,
    /// A root file system with Xen's tools and their libraries, the C library among them.
    pub tools_dir: PathBuf,
}

/// Debian 11's. No package has its symbols.
pub const BULLSEYE: Release = Release {
    suite: "bullseye",
    series: "4.14",
    version: "4.14.6-1",
    symbols: false,
    pins: &[
        (
            "libxencall1_4.14.6-1_amd64.deb",
            "a7db4543f0ed58ece0f4521011e4ce275faf51858ad7429a6f20452ddcb961fb",
        ),
        (
            "libxendevicemodel1_4.14.6-1_amd64.deb",
            "f28ab86ba2e14ea879ae28cf81a98d0d8d5755d1c36bb963ec2c632fb7bdb4e7",
        ),
        (
            "libxenevtchn1_4.14.6-1_amd64.deb",
            "bb35e686794321e7db1d8fe26a7cde946ec916959e49efcc30f2f58ac218dc33",
        ),
        (
            "libxenforeignmemory1_4.14.6-1_amd64.deb",
            "e2b830bf85d029d8f4a991dd5d0157628b679d22ba4d8369f6a8ba8f40370a99",
        ),
        (
            "libxengnttab1_4.14.6-1_amd64.deb",
            "e429d8c36d80e988aaf98b2fd500696ed0ce8c8e2969ece8715533b80474cc85",
        ),
        (
            "libxenmisc4.14_4.14.6-1_amd64.deb",
            "211416f54654b5b7787bdd65b5cbf973d1846819c916a3d381a0d98675aeabd3",
        ),
        (
            "libxentoolcore1_4.14.6-1_amd64.deb",
            "e139cf4886a9ab9cf7b57c0290407b74f62d915ffe3110c825c150a11a67286b",
        ),
        (
            "libxentoollog1_4.14.6-1_amd64.deb",
            "c62ba6cf7b1271845d9cf6a565c08d3a1caa2e9890373b1b9757d6ee03d6853b",
        ),
        (
            "xen-hypervisor-4.14-amd64_4.14.6-1_amd64.deb",
            "848f46e49fe5946cdfdb8df22b8e541148bc96ef7f6419b0d2b5010e1bb8e06a",
        ),
        (
            "xen-utils-4.14_4.14.6-1_amd64.deb",
            "2e25fe65beacde41ef290c38be30f7d7e4455feafc765c57f65f8a28f5e97a81",
        ),
    ],
};

/// Debian 13's.
pub const TRIXIE: Release = Release {
    suite: "trixie",
    series: "4.20",
    version: "4.20.4+63-g7abfd2bce2-0+deb13u1",
    symbols: true,
    pins: &[
        (
            "libxencall1_4.20.4+63-g7abfd2bce2-0+deb13u1_amd64.deb",
            "53c00b9ff1bddb35b5eb36907ad34fd539b72fe9c9de780cc44fa707d5fed663",
        ),
        (
            "libxendevicemodel1_4.20.4+63-g7abfd2bce2-0+deb13u1_amd64.deb",
            "8a2c721fd23953f69f10dfdb73f308b816322c1870dfa6ee98b19a4b40714e09",
        ),
        (
            "libxenevtchn1_4.20.4+63-g7abfd2bce2-0+deb13u1_amd64.deb",
            "6f22bdd3b6e1821222e6dc0b5b16af26b71daca9745f3c2bc8e967c8879594a4",
        ),
        (
            "libxenforeignmemory1_4.20.4+63-g7abfd2bce2-0+deb13u1_amd64.deb",
            "37f606e238f5c89c5fdb78852c7584e9c2a979e2583570c7d007e4ce946a9b18",
        ),
        (
            "libxengnttab1_4.20.4+63-g7abfd2bce2-0+deb13u1_amd64.deb",
            "aa9b6b1d0c873ed9486f44ba97145c8d0450f49a5c75811f38bfdb840a25c758",
        ),
        (
            "libxenmisc4.20_4.20.4+63-g7abfd2bce2-0+deb13u1_amd64.deb",
            "89be18662c2b192e7c6568002674df88e28393eaf791d113c36d4656a45dd69e",
        ),
        (
            "libxentoolcore1_4.20.4+63-g7abfd2bce2-0+deb13u1_amd64.deb",
            "f31b678e0fbc1d0146f48a6ac36c4b79f9a55cfbdfd8a1644ee2ab9b86a0756b",
        ),
        (
            "libxentoollog1_4.20.4+63-g7abfd2bce2-0+deb13u1_amd64.deb",
            "7dba3d1db47a55e582cad79caf09765bc194924fb442a8f825f0057e56b8f3be",
        ),
        (
            "xen-hypervisor-4.20-amd64-dbg_4.20.4+63-g7abfd2bce2-0+deb13u1_amd64.deb",
            "a84d27bc42b50a12a36f825273d0035981872b8f1f312edf9bd131f850ccd4d3",
        ),
        (
            "xen-hypervisor-4.20-amd64_4.20.4+63-g7abfd2bce2-0+deb13u1_amd64.deb",
            "c38498c5696b29a854d67955a5ad18ef02daf856ddc718322ce61388afeeffd8",
        ),
        (
            "xen-utils-4.20_4.20.4+63-g7abfd2bce2-0+deb13u1_amd64.deb",
            "8eb355e9c0bc57e3e323f2e7d1a97a002855ed3b365072b0049bd777b2947987",
        ),
    ],
};

impl Release {
    /// The version of its packages.
    pub fn version(&self) -> &'static str {
        self.version
    }

    /// The packages to ask apt for: those pinned, in their version, and the C library.
    fn packages(&self) -> Vec<String> {
        let names = self.pins.iter().filter_map(|(file, _)| file.split('_').next());
        names.map(|name| format!("{name}={}", self.version)).chain(["libc6".to_owned()]).collect()
    }
}

/// Gets a shipped Xen into `cache`: 10 to 25 MB to download and 60 to 110 MB to keep.
///
/// `progress` is called with one line of text before each longer step.
///
/// # Errors
/// Missing programs (what to install is said), download errors, a file that is not the pinned one.
pub fn fetch_shipped(cache: &Path, release: &Release, progress: &dyn Fn(&str)) -> Result<Shipped, Problems> {
    let fetch = Fetch::new(cache, progress)?;
    let home = fetch.dir.join(release.version).join("lab");
    publish_dir(&home, |inner| {
        progress("updating private copies of Debian's package lists");
        let lists = fetch.dir.join(format!("apt-{}", release.suite));
        let apt = Apt::set_up(&lists, release.suite, Wanted::All)?;
        progress(&format!("downloading the packages of Debian's Xen {}", release.version));
        let down = TempDir::with_prefix_in(".new-", &fetch.dir).map_err(codes::io)?;
        apt.download(&release.packages(), down.path())?;
        pins::check_against(down.path(), release.pins)?;
        progress("unpacking the packages");
        unpack(release, down.path(), inner)?;
        // Lists of today are of no use another day.
        let _ = std::fs::remove_dir_all(lists);
        Ok(())
    })?;
    Ok(Shipped {
        version: release.version,
        hypervisor: home.join("xen"),
        xen_syms: release.symbols.then(|| home.join("xen-syms")),
        tools_dir: home.join("tools"),
    })
}

fn unpack(release: &Release, from: &Path, to: &Path) -> Result<(), Problems> {
    let (scratch, tools) = (from.join("hypervisor"), to.join("tools"));
    for deb in debs_of(from)? {
        let name = deb.file_name().unwrap_or_default().to_string_lossy().into_owned();
        unpack_deb(&deb, if name.starts_with("xen-hypervisor-") { &scratch } else { &tools })?;
    }
    let image = fs::read(found(scratch.join(format!("boot/xen-{}-amd64.gz", release.series)))?);
    let image = kernel::decompress(&image.map_err(codes::io)?, "the hypervisor")?;
    fs::write(to.join("xen"), image).map_err(codes::io)?;
    if release.symbols {
        let syms = scratch.join(format!("usr/lib/debug/boot/xen-syms-{}-amd64", release.series));
        fs::copy(found(syms)?, to.join("xen-syms")).map_err(codes::io)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_hashes_of_the_releases_version() {
        for release in [BULLSEYE, TRIXIE] {
            for (name, hash) in release.pins {
                assert!(name.ends_with(&format!("_{}_amd64.deb", release.version)), "{name}");
                assert!(hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()), "{name}");
            }
            assert!(release.pins.is_sorted());
            let wanted = format!("xen-utils-{}={}", release.series, release.version);
            assert!(release.packages().contains(&wanted));
        }
    }
}
