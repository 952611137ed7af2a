//! Unpacks Linux: the package, and vmlinux from the bzImage in it.
//!
//! Format: Documentation/arch/x86/boot.rst of Linux. `HdrS` stands at 0x202; 0x1f1 has the number of
//! 512-byte sectors of the real-mode part less one (0 means 4); from protocol 2.08 on, 0x248 has the
//! compressed payload's offset from the start of the protected-mode part, and 0x24c its length. The
//! kernel's build appends the unpacked size, four bytes, to what the compressor wrote.

use std::path::Path;

use fs_err as fs;
use xsplice_process::{Job, Sink};
use xsplice_report::{Diagnostic, Place, Problems};

use crate::codes;

/// The lowest boot protocol that says where the payload is.
const PROTOCOL_WITH_PAYLOAD: u16 = 0x0208;

/// Compression formats: first bytes, and the program that unpacks standard input to standard output.
const FORMATS: &[(&[u8], &str, &[&str])] = &[
    (b"\x1f\x8b", "gzip", &["-dcq"]),
    (b"\xfd7zXZ\x00", "xz", &["-dcq", "--single-stream"]),
    (b"\x28\xb5\x2f\xfd", "zstd", &["-dcq"]),
    (b"\x02\x21\x4c\x18", "lz4", &["-dcq"]),
    (b"BZh", "bzip2", &["-dcq"]),
    (b"\x5d\x00\x00", "lzma", &["-dcq"]),
];

/// Unpacks `bytes` by their first bytes; an ELF file is returned as it is.
///
/// # Errors
/// An unknown format, or a missing program.
pub(crate) fn decompress(bytes: &[u8], what: &str) -> Result<Vec<u8>, Problems> {
    if bytes.starts_with(b"\x7fELF") {
        return Ok(bytes.to_vec());
    }
    let Some((_, program, args)) = FORMATS.iter().find(|(magic, ..)| bytes.starts_with(magic)) else {
        return Err(Diagnostic::new(
            codes::IMAGE_UNREADABLE,
            format!("{what} is compressed in an unknown format"),
        )
        .into());
    };
    let job = Job::new(program).args(*args).stdin(bytes);
    let finished = job.run().map_err(codes::job)?;
    // gzip and others complain with 2 about what follows the compressed data.
    if !finished.stdout.starts_with(b"\x7fELF") || ![0, 2].contains(&finished.code) {
        return Err(codes::ended_badly(&format!("{program}, which unpacks {what},"), &finished));
    }
    Ok(finished.stdout)
}

/// The unpacked kernel of a bzImage; a vmlinux is returned as it is.
///
/// # Errors
/// Neither of the two, or one that is damaged.
pub(crate) fn vmlinux(image: &[u8], path: &Path) -> Result<Vec<u8>, Problems> {
    if image.starts_with(b"\x7fELF") {
        return Ok(image.to_vec());
    }
    match payload(image) {
        Some(payload) => decompress(payload, "the kernel"),
        None => Err(Diagnostic::new(
            codes::IMAGE_UNREADABLE,
            "the kernel is neither an ELF file nor a bzImage of boot protocol 2.08 or later",
        )
        .at(Place::file(path.display().to_string()))
        .into()),
    }
}

fn payload(image: &[u8]) -> Option<&[u8]> {
    let bytes = |at: usize, length: usize| image.get(at..at + length);
    let word = |at| bytes(at, 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
    if bytes(0x202, 4)? != b"HdrS" {
        return None;
    }
    let protocol = u16::from_le_bytes(bytes(0x206, 2)?.try_into().ok()?);
    if protocol < PROTOCOL_WITH_PAYLOAD {
        return None;
    }
    let sectors = match *image.get(0x1f1)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (sectors + 1) * 512 + usize::try_from(word(0x248)?).ok()?;
    let length = usize::try_from(word(0x24c)?).ok()?;
    image.get(start..start.checked_add(length)?)
}

/// From a package linux-image-*: `to/vmlinux` and `to/modules`. `scratch` is a folder for large
/// temporary files, which the caller removes.
pub(crate) fn unpack_deb(deb: &Path, scratch: &Path, to: &Path) -> Result<(), Problems> {
    let tar = scratch.join("kernel.tar");
    let sink = Sink::File(fs::File::create(&tar).map_err(codes::io)?.into_parts().0);
    let job = Job::new("dpkg-deb").arg("--fsys-tarfile").arg(deb).stdout(sink);
    let finished = job.run().map_err(codes::job)?;
    if !finished.success() {
        return Err(codes::ended_badly("dpkg-deb --fsys-tarfile", &finished));
    }
    let root = scratch.join("kernel");
    fs::create_dir(&root).map_err(codes::io)?;
    // tar complains about a pattern that matches nothing, and one of the last two always does; what
    // counts is what is there afterwards.
    let job = Job::new("tar").arg("-xf").arg(&tar).arg("-C").arg(&root).arg("--wildcards").args([
        "./boot/vmlinuz-*",
        "./lib/modules/*/kernel/drivers/xen/*",
        "./usr/lib/modules/*/kernel/drivers/xen/*",
    ]);
    let finished = job.run().map_err(codes::job)?;
    let missing = |what: &str| {
        Diagnostic::new(codes::PACKAGE_CONTENTS, format!("the kernel's package has no {what}"))
            .at(Place::file(deb.file_name().unwrap_or_default().to_string_lossy()))
            .why(codes::tail_of(&finished.stderr, 4))
    };
    let image = first_in(&root.join("boot")).ok_or_else(|| missing("boot/vmlinuz"))?;
    let image = fs::read(image).map_err(codes::io)?;
    fs::write(to.join("vmlinux"), vmlinux(&image, deb)?).map_err(codes::io)?;
    let modules = ["lib/modules", "usr/lib/modules"].map(|dir| root.join(dir));
    let modules = modules.iter().find(|dir| dir.exists()).ok_or_else(|| missing("modules for Xen"))?;
    fs::rename(modules, to.join("modules")).map_err(codes::io)
}

fn first_in(dir: &Path) -> Option<std::path::PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bz_image(protocol: u16, payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&protocol.to_le_bytes());
        image[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).expect("small").to_le_bytes());
        image.extend_from_slice(&[0xcc; 16]);
        image.extend_from_slice(payload);
        image
    }

    #[test]
    fn the_payload_is_found_by_the_header() {
        let here = Path::new("here");
        assert_eq!(payload(&bz_image(0x020f, b"\x7fELFx")), Some(&b"\x7fELFx"[..]));
        assert_eq!(vmlinux(&bz_image(0x020f, b"\x7fELFx"), here).expect("stored"), b"\x7fELFx");
        assert_eq!(payload(&bz_image(0x0207, b"\x7fELFx")), None);
        let mut cut = bz_image(0x020f, b"\x7fELFx");
        cut.pop();
        assert_eq!(payload(&cut), None);
        assert_eq!(payload(b"short"), None);
    }

    #[test]
    fn unknown_formats_are_named() {
        let here = Path::new("here");
        let error = vmlinux(&bz_image(0x020f, b"garbage"), here).expect_err("no known format");
        assert!(codes::any(&error, codes::IMAGE_UNREADABLE));
        assert!(vmlinux(b"neither", here).is_err());
    }
}
