//! What kind of file a patch touches, and whether that can reach the hypervisor.

use serde::Serialize;

use crate::patchset::{Changes, FileChange};

/// What a touched file is to a build of the hypervisor for x86.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileClass {
    /// C that may be compiled into the hypervisor.
    Source,
    /// A header.
    Header,
    /// Assembler.
    Assembler,
    /// A linker script.
    LinkerScript,
    /// A makefile, Kconfig, or a program or list from which the build generates files.
    BuildFile,
    /// Something else that the hypervisor's build might read.
    Other,
    /// Programs outside the hypervisor.
    Tools,
    /// Words.
    Docs,
    /// Code of another architecture.
    OtherArchitecture,
    /// Tests.
    Test,
}

impl FileClass {
    /// Whether a change of it can change the hypervisor.
    pub fn can_reach_hypervisor(self) -> bool {
        !matches!(self, FileClass::Tools | FileClass::Docs | FileClass::OtherArchitecture | FileClass::Test)
    }

    /// Why it cannot, for people; empty where it can.
    pub fn reason(self) -> &'static str {
        match self {
            FileClass::Tools => "it belongs to programs outside the hypervisor",
            FileClass::Docs => "it is documentation, or tells only people and version control something",
            FileClass::OtherArchitecture => "it is code of another architecture than x86",
            FileClass::Test => "it belongs to tests, which are not part of the hypervisor",
            _ => "",
        }
    }
}

/// What a patch does to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Touch {
    /// Its content changes.
    Modified,
    /// It is new.
    Added,
    /// It is removed.
    Removed,
    /// Only whether it is executable changes.
    ModeOnly,
}

/// One file that the patches touch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TouchedFile {
    /// Relative to the tree.
    pub path: String,
    /// What it is to the build.
    pub class: FileClass,
    /// What happens to it.
    pub touch: Touch,
    /// Why it cannot reach the hypervisor; empty where it can.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub reason: &'static str,
    /// Objects that read it and were made anew; known after the build. A source or header without any is
    /// not compiled in this configuration.
    pub objects: Vec<String>,
}

/// Folders of xen/ that hold other architectures' code, as they are named in versions 4.13 to 4.22.
const OTHER_ARCHITECTURES: &[&str] =
    &["arm", "arm32", "arm64", "riscv", "riscv32", "riscv64", "ppc", "ppc64"];

/// Says what a path is.
pub(crate) fn classify(path: &str) -> FileClass {
    let name = path.rsplit('/').next().unwrap_or(path);
    let Some(inside) = path.strip_prefix("xen/") else { return classify_outside(path, name) };
    let mut parts = inside.split('/');
    let (first, second) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let other_architecture = match (first, second) {
        ("arch", folder) => OTHER_ARCHITECTURES.contains(&folder),
        ("include", folder) => {
            folder.strip_prefix("asm-").is_some_and(|arch| OTHER_ARCHITECTURES.contains(&arch))
                || inside.starts_with("include/public/arch-arm")
                || inside.starts_with("include/public/arch-riscv")
                || inside.starts_with("include/public/arch-ppc")
        }
        _ => false,
    };
    if other_architecture {
        FileClass::OtherArchitecture
    } else if first == "test" {
        FileClass::Test
    } else if is_words(name) {
        FileClass::Docs
    } else if first == "tools" || first == "scripts" || is_build_file(inside, name) {
        FileClass::BuildFile
    } else if name.ends_with(".lds.S") || name.ends_with(".lds") || name.ends_with(".lds.h") {
        FileClass::LinkerScript
    } else if name.ends_with(".c") {
        FileClass::Source
    } else if name.ends_with(".h") {
        FileClass::Header
    } else if name.ends_with(".S") || name.ends_with(".s") {
        FileClass::Assembler
    } else {
        FileClass::Other
    }
}

fn classify_outside(path: &str, name: &str) -> FileClass {
    match path.split('/').next().unwrap_or_default() {
        // Built into the hypervisor where XSM is configured so.
        "tools" if path.starts_with("tools/flask/policy/") => FileClass::Other,
        "tools" if path.starts_with("tools/tests/") => FileClass::Test,
        "tools" | "stubdom" | "unmodified_drivers" | "extras" | "misc" | "m4" => FileClass::Tools,
        "docs" => FileClass::Docs,
        "automation" | "scripts" | ".github" => FileClass::Test,
        "debian" => FileClass::Docs,
        "config" => FileClass::BuildFile,
        _ if path == "Config.mk" => FileClass::BuildFile,
        _ if !path.contains('/') && is_words(name) => FileClass::Docs,
        // The rest of the top folder builds the tools and the documentation.
        _ => FileClass::Tools,
    }
}

fn is_words(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "COPYING",
        "CREDITS",
        "INSTALL",
        "LICENSE",
        "MAINTAINERS",
        "README",
        "CODING_STYLE",
        "CONTRIBUTING",
        ".gitignore",
        ".hgignore",
        ".gitattributes",
        ".hgtags",
        ".hgsigs",
        ".gitarchive-info",
        ".gitlab-ci.yml",
        ".cirrus.yml",
        ".travis.yml",
    ];
    NAMES.contains(&name)
        || [".md", ".rst", ".txt", ".pandoc", ".html"].iter().any(|end| name.ends_with(end))
        || name.starts_with("README.")
}

fn is_build_file(inside: &str, name: &str) -> bool {
    const GENERATORS: &[&str] = &[
        "include/xlat.lst",
        "include/hypercall-defs.c",
        "include/xen/compile.h.in",
        "arch/x86/boot/mkelf32.c",
        "arch/x86/efi/mkreloc.c",
    ];
    name == "Makefile"
        || name.starts_with("Makefile.")
        || name.starts_with("Kconfig")
        || name.ends_with("config") && inside.contains("/configs/")
        || [".mk", ".sh", ".py", ".awk", ".sed", ".pl"].iter().any(|end| name.ends_with(end))
        || GENERATORS.contains(&inside)
}

/// All files of a change, sorted by path.
pub(crate) fn touched(changes: &Changes) -> Vec<TouchedFile> {
    changes
        .iter()
        .map(|(path, change)| {
            let class = classify(path);
            TouchedFile {
                path: path.clone(),
                class,
                touch: touch(change),
                reason: class.reason(),
                objects: Vec::new(),
            }
        })
        .collect()
}

fn touch(change: &FileChange) -> Touch {
    match (&change.before, &change.after) {
        (None, _) => Touch::Added,
        (_, None) => Touch::Removed,
        (before, after) if before == after => Touch::ModeOnly,
        _ => Touch::Modified,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_apart() {
        for (path, class) in [
            ("xen/arch/x86/traps.c", FileClass::Source),
            ("xen/common/sched/core.c", FileClass::Source),
            ("xen/include/xen/sched.h", FileClass::Header),
            ("xen/include/asm-x86/msr.h", FileClass::Header),
            ("xen/arch/x86/x86_64/entry.S", FileClass::Assembler),
            ("xen/arch/x86/xen.lds.S", FileClass::LinkerScript),
            ("xen/include/xen/xen.lds.h", FileClass::LinkerScript),
            ("xen/common/Makefile", FileClass::BuildFile),
            ("xen/common/Kconfig", FileClass::BuildFile),
            ("xen/Kconfig.debug", FileClass::BuildFile),
            ("xen/tools/symbols.c", FileClass::BuildFile),
            ("xen/include/xlat.lst", FileClass::BuildFile),
            ("xen/arch/x86/arch.mk", FileClass::BuildFile),
            ("Config.mk", FileClass::BuildFile),
            ("xen/arch/arm/traps.c", FileClass::OtherArchitecture),
            ("xen/include/asm-arm/p2m.h", FileClass::OtherArchitecture),
            ("xen/include/public/arch-arm.h", FileClass::OtherArchitecture),
            ("xen/arch/riscv/Makefile", FileClass::OtherArchitecture),
            ("xen/test/livepatch/xen_hello_world.c", FileClass::Test),
            ("tools/tests/x86_emulator/test.c", FileClass::Test),
            ("tools/libs/light/libxl.c", FileClass::Tools),
            ("tools/flask/policy/modules/xen.te", FileClass::Other),
            ("docs/misc/livepatch.pandoc", FileClass::Docs),
            ("xen/COPYING", FileClass::Docs),
            ("CHANGELOG.md", FileClass::Docs),
            ("MAINTAINERS", FileClass::Docs),
            ("xen/crypto/weird.dat", FileClass::Other),
        ] {
            assert_eq!(classify(path), class, "{path}");
            assert_eq!(class.reason().is_empty(), class.can_reach_hypervisor());
        }
    }
}
