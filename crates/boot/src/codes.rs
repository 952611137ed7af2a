//! The problems that fetching Debian's Xen and booting it can raise.

use xsplice_process as process;
use xsplice_report::{Code, Diagnostic, Place, Problems};

/// Reading or writing failed.
pub const IO: Code = Code::failure("boot-io", "Reading or writing a file failed.");
/// The cache folder cannot be used.
pub const CACHE_UNUSABLE: Code =
    Code::failure("boot-cache-unusable", "The cache folder for Debian's packages cannot be used.");
/// A program that fetching or booting needs is not installed.
pub const TOOL_MISSING: Code =
    Code::failure("boot-tool-missing", "A program that fetching or booting needs is not installed.");
/// A program ended with an error.
pub const TOOL_FAILED: Code =
    Code::failure("boot-tool-failed", "A program that fetching or booting needs has failed.");
/// The user stopped it.
pub const INTERRUPTED: Code = Code::failure("boot-interrupted", "Fetching or booting was interrupted.");
/// No package source offers what is needed.
pub const PACKAGE_MISSING: Code =
    Code::failure("package-missing", "The package sources do not offer a package that is needed.");
/// A package could not be downloaded.
pub const DOWNLOAD_FAILED: Code = Code::failure("download-failed", "A package could not be downloaded.");
/// A package is not the one whose hash is pinned.
pub const HASH_MISMATCH: Code =
    Code::failure("hash-mismatch", "A downloaded file is not the one whose SHA-256 is pinned.");
/// A package does not contain what it should.
pub const PACKAGE_CONTENTS: Code =
    Code::failure("package-contents", "A package does not contain a file that is needed.");
/// A kernel image is in no format that is understood.
pub const IMAGE_UNREADABLE: Code = Code::failure(
    "boot-image-unreadable",
    "A kernel, module or hypervisor image is in no format that the lab unpacks.",
);
/// The hypervisor image is in no format that QEMU boots.
pub const XEN_UNREADABLE: Code =
    Code::failure("xen-image-unreadable", "The hypervisor image is in no format that the lab boots.");
/// xen-livepatch, one of its libraries, or a module is not there.
pub const TOOLS_INCOMPLETE: Code =
    Code::failure("tools-incomplete", "The folder of Xen's tools lacks a file that the lab needs.");
/// The plan for a boot cannot be carried out as written.
pub const PLAN_UNUSABLE: Code =
    Code::failure("plan-unusable", "The steps to run in the lab cannot be carried out as written.");
/// The lab ended before its control domain was ready.
pub const LAB_NOT_READY: Code =
    Code::failure("lab-not-ready", "The lab ended before its control domain could run a step.");
/// The hypervisor or the control domain's kernel panicked.
pub const HOST_PANICKED: Code =
    Code::refusal("host-panicked", "The hypervisor or its control domain panicked in the lab.");
/// The lab did not end in time.
pub const BOOT_TIMED_OUT: Code = Code::failure("boot-timed-out", "The lab did not end within its time.");
/// The console wrote more than the lab keeps.
pub const LOG_OVERFLOW: Code =
    Code::refusal("log-overflow", "The hypervisor flooded its console in the lab.");
/// The machine went away before all steps had run.
pub const BOOT_ENDED_EARLY: Code =
    Code::failure("boot-ended-early", "The machine went off before all steps had run.");
/// Xen's loader, or a later action on a payload, said no.
pub const PAYLOAD_NOT_ACCEPTED: Code =
    Code::refusal("payload-not-accepted", "The booted hypervisor did not accept an action on a payload.");
/// A step ended otherwise than expected.
pub const STEP_UNEXPECTED: Code =
    Code::failure("step-unexpected", "A step in the lab did not end as expected.");

/// All of them.
pub const ALL: &[Code] = &[
    IO,
    CACHE_UNUSABLE,
    TOOL_MISSING,
    TOOL_FAILED,
    INTERRUPTED,
    PACKAGE_MISSING,
    DOWNLOAD_FAILED,
    HASH_MISMATCH,
    PACKAGE_CONTENTS,
    IMAGE_UNREADABLE,
    XEN_UNREADABLE,
    TOOLS_INCOMPLETE,
    PLAN_UNUSABLE,
    LAB_NOT_READY,
    HOST_PANICKED,
    BOOT_TIMED_OUT,
    LOG_OVERFLOW,
    BOOT_ENDED_EARLY,
    PAYLOAD_NOT_ACCEPTED,
    STEP_UNEXPECTED,
];

/// Which Debian package has a program that this crate starts.
fn package_of(program: &str) -> &str {
    match program {
        "apt-get" | "apt-cache" | "apt-config" => "apt",
        "dpkg-source" => "dpkg-dev",
        "dpkg-deb" => "dpkg",
        "qemu-system-x86_64" => "qemu-system-x86",
        "xz" | "lzma" => "xz-utils",
        other => other,
    }
}

/// An I/O problem; fs-err's messages name the path.
pub(crate) fn io(error: std::io::Error) -> Problems {
    Diagnostic::new(IO, error.to_string()).into()
}

/// A program that could not be run to its end.
pub(crate) fn job(error: process::Error) -> Problems {
    let diagnostic = match error {
        process::Error::Interrupted => Diagnostic::new(INTERRUPTED, "interrupted"),
        process::Error::Start { program, source } if source.kind() == std::io::ErrorKind::NotFound => {
            let package = package_of(&program);
            Diagnostic::new(TOOL_MISSING, format!("{program} is not installed"))
                .at(Place::file(&program))
                .advice(format!("On Debian, `apt-get install {package}` provides it."))
        }
        other => Diagnostic::new(TOOL_FAILED, other.to_string()),
    };
    diagnostic.into()
}

/// A program that ended with an exit code other than 0.
pub(crate) fn ended_badly(what: &str, finished: &process::Finished) -> Problems {
    let tail = tail_of(&finished.stderr, 12);
    Diagnostic::new(TOOL_FAILED, format!("{what} ended with exit code {}", finished.code)).why(tail).into()
}

/// Whether one of the problems is of that kind.
pub(crate) fn any(problems: &Problems, code: Code) -> bool {
    problems.0.iter().any(|problem| problem.code == code)
}

/// The last lines of a program's output.
pub(crate) fn tail_of(bytes: &[u8], lines: usize) -> String {
    let text = String::from_utf8_lossy(bytes);
    let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
