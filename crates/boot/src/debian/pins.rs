//! The files that are pinned by SHA-256, and the check.

use std::path::Path;

use fs_err as fs;
use sha2::{Digest, Sha256};
use xsplice_report::{Diagnostic, Place, Problems};

use crate::codes;

/// The version of Debian's Xen packages that everything here was tried with.
pub const PINNED_VERSION: &str = "4.17.5+72-g01140da4e8-1";

/// File names without folder, and their SHA-256 in lower case hexadecimal digits. All of [`PINNED_VERSION`], but
/// for the tarball of an older Xen.
const PINS: &[(&str, &str)] = &[
    (
        "libxencall1_4.17.5+72-g01140da4e8-1_amd64.deb",
        "ebc1eee0055e48f3087010d146ced41a86d541964f9cfd307602c9636468b223",
    ),
    (
        "libxendevicemodel1_4.17.5+72-g01140da4e8-1_amd64.deb",
        "f16055e3a12c38abd5a10530a0895d274e69d26fb73aa373efd5f5477785712b",
    ),
    (
        "libxenevtchn1_4.17.5+72-g01140da4e8-1_amd64.deb",
        "8a72c80afd46771baa611e1a31de8c5becb06779dead336ad345e625ebb80859",
    ),
    (
        "libxenforeignmemory1_4.17.5+72-g01140da4e8-1_amd64.deb",
        "403cdb05a64851e4eea4c87b1ab50845a8371ac5fc361bcf2daacbe63b79a6ae",
    ),
    (
        "libxengnttab1_4.17.5+72-g01140da4e8-1_amd64.deb",
        "31180a1f5076fc1c59f5035d9326d4c7cfc0ae1c5978485153b161d3b6a253bb",
    ),
    (
        "libxenhypfs1_4.17.5+72-g01140da4e8-1_amd64.deb",
        "60f0b99631a3b312b8c206f2caee5c59a0bfab738b90a88db4c322e7613e635f",
    ),
    (
        "libxenmisc4.17_4.17.5+72-g01140da4e8-1_amd64.deb",
        "a4fa17c1b2ebcba786fb836668544adb3f3fb3fe364855d2185d8ffa62c53f9a",
    ),
    (
        "libxenstore4_4.17.5+72-g01140da4e8-1_amd64.deb",
        "56d2c3577047398810ce6e318ecbcb88944f3cacdadcbf5a5ed1f1b74784111f",
    ),
    (
        "libxentoolcore1_4.17.5+72-g01140da4e8-1_amd64.deb",
        "18326e8ce11a42c7e2646a6954cfd22b1ac1cc889c4508d4ed94c913e2658541",
    ),
    (
        "libxentoollog1_4.17.5+72-g01140da4e8-1_amd64.deb",
        "063973644ce91c34dea31acc1d806c6cd26e7f7d6d152d06dd70fc817ad0a3e9",
    ),
    (
        "xen-hypervisor-4.17-amd64-dbg_4.17.5+72-g01140da4e8-1_amd64.deb",
        "237556dac8419388e90807c6489ef500a11b32d8cdd9f1b926558846e787db68",
    ),
    (
        "xen-hypervisor-4.17-amd64_4.17.5+72-g01140da4e8-1_amd64.deb",
        "b602bb2aa83042bd1e3390ff66201b62da806d2ff6f2c86a2759997aa968222b",
    ),
    (
        "xen-utils-4.17_4.17.5+72-g01140da4e8-1_amd64.deb",
        "2e0dc8bf6f08bd655b58ed1150ff97790637b641c79f9c8331ee242d651ae935",
    ),
    (super::tarball::FILE, "6365e5435b9a18dbce3433ec27e5409d2b1a421d5f6aacfb06833f15d3d9aedd"),
    (
        "xen_4.17.5+72-g01140da4e8-1.debian.tar.xz",
        "5bcf3812c64585e270e0b3fa6ee8fd16dff7b9bc0f61375d648c64672484c4d9",
    ),
    ("xen_4.17.5+72-g01140da4e8-1.dsc", "f13956b67fb7a65707c2b0620d89b41ee5d203434dd7bb913017356791ee66c1"),
    (
        "xen_4.17.5+72-g01140da4e8.orig.tar.xz",
        "53922f4d0a02c577f2ea9d63f65989cd88715779eebeed879ca1d314103ee06e",
    ),
];

/// Checks every file of `dir` that is pinned. Files that are not pinned are left to apt's own check.
///
/// # Errors
/// `hash-mismatch`, naming the file and both hashes.
pub(crate) fn check_dir(dir: &Path) -> Result<(), Problems> {
    check_against(dir, PINS)
}

/// Checks every file of `dir` that is among `pins`.
pub(crate) fn check_against(dir: &Path, pins: &[(&str, &str)]) -> Result<(), Problems> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(codes::io)? {
        names.push(entry.map_err(codes::io)?.file_name());
    }
    names.sort();
    for name in names {
        let Some((_, wanted)) = pins.iter().find(|(pinned, _)| name == *pinned) else { continue };
        let path = dir.join(&name);
        let found = sha256(&path)?;
        if found != *wanted {
            return Err(Diagnostic::new(
                codes::HASH_MISMATCH,
                format!("{} has another SHA-256 than the pinned one", name.to_string_lossy()),
            )
            .at(Place::file(path.display().to_string()))
            .why(format!("Pinned is {wanted}, found was {found}. The file is not used."))
            .advice("Run it again; if it stays, the mirror serves a damaged or another file.")
            .into());
        }
    }
    Ok(())
}

/// The SHA-256 of a file, in lower case hexadecimal digits.
pub(crate) fn sha256(path: &Path) -> Result<String, Problems> {
    let bytes = fs::read(path).map_err(codes::io)?;
    Ok(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From FIPS 180-2, appendix B.1: the hash of "abc".
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_mismatch_names_the_file_and_both_hashes() {
        let dir = tempfile::TempDir::new().expect("temporary folder");
        fs::write(dir.path().join("a.deb"), "abc").expect("write");
        fs::write(dir.path().join("free.deb"), "anything").expect("write");
        check_against(dir.path(), &[("a.deb", ABC)]).expect("the right hash");
        let zeroes = "0".repeat(64);
        let error = check_against(dir.path(), &[("a.deb", &zeroes)]).expect_err("the wrong hash").0.remove(0);
        assert_eq!(error.code, codes::HASH_MISMATCH);
        assert!(error.what.contains("a.deb"));
        assert!(error.why.contains(ABC) && error.why.contains(&zeroes));
    }

    #[test]
    fn pins_are_hashes_of_the_pinned_version() {
        for (name, hash) in PINS {
            assert!(name.contains("4.17.5+72-g01140da4e8") || *name == super::super::tarball::FILE, "{name}");
            assert!(hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()), "{name}");
        }
        assert!(PINS.is_sorted());
    }
}
