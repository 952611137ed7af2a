//! Trees in the style of each build system, with each value of `--build-adjust`.

use xsplice_build::{Adjust, BuildSystem};

use super::*;

/// The miniature tree in a style.
fn lab(style: BuildSystem) -> Lab {
    let lab = Lab::new();
    let xen = lab.root.join("tree/xen");
    let makefile = fs::read_to_string(xen.join("Makefile")).unwrap();
    let flags = "FLAGS := -D__XEN__ -O2 -nostdinc ";
    assert!(makefile.contains(flags));
    let edited = match style {
        BuildSystem::Old => {
            put(&xen.join("Rules.mk"), "CFLAGS += -nostdinc\n");
            makefile.replace(flags, "include Rules.mk\nFLAGS := -D__XEN__ -O2 $(CFLAGS) ")
        }
        BuildSystem::Middle => {
            makefile.replace(flags, "CFLAGS += -nostdinc\nFLAGS := -D__XEN__ -O2 $(CFLAGS) ")
        }
        BuildSystem::SplitSections => {
            let kconfig = fs::read_to_string(xen.join("Kconfig")).unwrap();
            put(&xen.join("Kconfig"), &format!("{kconfig}# config CC_SPLIT_SECTIONS\n"));
            makefile.replace(flags, &format!("{flags}-ffunction-sections -fdata-sections "))
        }
        // Nothing says that this is code of the hypervisor.
        BuildSystem::Unknown => makefile.replace(flags, "FLAGS := -O2 -nostdinc "),
    };
    assert_ne!(edited, makefile);
    put(&xen.join("Makefile"), &edited);
    lab
}

fn run_with(lab: &Lab, adjust: Adjust) -> Result<CapturedBuild, Problems> {
    let mut request = lab.request(&[one_line()]);
    request.want_symbols = false;
    request.adjust = adjust;
    run(request, &Silent)
}

/// Builds, and says what the tree is taken for.
fn works(style: BuildSystem, adjust: Adjust) {
    let built = run_with(&lab(style), adjust).unwrap();
    assert_eq!(paths(&built), ["xen/common/a.o"], "{style:?} {adjust:?}");
    assert_eq!(built.build_system, style);
}

fn is_told(style: BuildSystem, adjust: Adjust) {
    let problem = only(run_with(&lab(style), adjust));
    assert_eq!(problem.code.name, "functions-together", "{style:?} {adjust:?}");
    assert_eq!(problem.what, "the functions of xen/common/a.o are not in sections of their own");
    assert!(
        problem.why.contains("-c common/a.c") && problem.advice.contains("--build-adjust"),
        "{problem:?}"
    );
}

pub(crate) fn the_old_style_needs_flags() {
    works(BuildSystem::Old, Adjust::Auto);
    works(BuildSystem::Old, Adjust::Always);
    is_told(BuildSystem::Old, Adjust::Never);
}

pub(crate) fn the_middle_style_needs_flags() {
    works(BuildSystem::Middle, Adjust::Auto);
    works(BuildSystem::Middle, Adjust::Always);
    is_told(BuildSystem::Middle, Adjust::Never);
}

pub(crate) fn the_new_style_has_them() {
    works(BuildSystem::SplitSections, Adjust::Auto);
    works(BuildSystem::SplitSections, Adjust::Always);
    works(BuildSystem::SplitSections, Adjust::Never);
}

pub(crate) fn an_unknown_style_ends_in_the_clear_error() {
    is_told(BuildSystem::Unknown, Adjust::Auto);
    is_told(BuildSystem::Unknown, Adjust::Never);
    works(BuildSystem::Unknown, Adjust::Always);
}
