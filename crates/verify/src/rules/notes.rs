//! Rules about identities: the payload's own, and those of what it needs.

use xsplice_report::{Diagnostic, Place, Problems};

use crate::verify::{Context, in_section, problem};
use crate::{codes, elf};

const OWN: &str = ".note.gnu.build-id";
const DEPENDS: &str = ".livepatch.depends";
const XEN_DEPENDS: &str = ".livepatch.xen_depends";

/// All rules about notes and metadata.
pub(crate) fn check(context: &Context<'_>, problems: &mut Problems) {
    for name in [OWN, DEPENDS, XEN_DEPENDS] {
        // Xen 4.13 knows no xen_depends.
        required(context, name, name != XEN_DEPENDS || context.is_modern(), problems);
    }
    for name in [OWN, DEPENDS, XEN_DEPENDS] {
        note(context, name, problems);
    }
    if context.xen_id().is_none() {
        problems.push(
            Diagnostic::new(codes::XEN_ID_UNKNOWN, "the hypervisor's build-id is not known")
                .why("Whether the payload is for that hypervisor was not checked.")
                .advice("Give a symbol file with a build-id note, or the id itself."),
        );
    }
    xen_depends(context, problems);
    depends(context, problems);
    chain(context, problems);
    own(context, problems);
    metadata(context, problems);
}

/// Required sections are there and not empty (`check_special_sections`, xen/common/livepatch.c).
fn required(context: &Context<'_>, name: &str, needed: bool, problems: &mut Problems) {
    let section = context.payload.section(name);
    if needed && section.is_none_or(|s| s.size == 0) {
        let state = if section.is_none() { "missing" } else { "empty" };
        problems.push(problem(
            codes::MISSING_SECTION,
            format!("the section {name} is {state}"),
            Place::none().section(name),
            "Every payload has an id, says what it stacks on, and (from Xen 4.14 on) for which hypervisor it is.",
            "Build the payload again.",
        ));
    }
}

/// Notes are sound (`prepare_payload`, xen/common/livepatch.c, with `xen_build_id_check`,
/// xen/common/version.c, 4.13 to 4.22).
fn note(context: &Context<'_>, name: &str, problems: &mut Problems) {
    let Some(section) = context.payload.section(name).filter(|s| s.size > 0) else { return };
    let Some(data) = section.data else { return };
    if let Err(fault) = elf::build_id_note(data) {
        problems.push(problem(
            codes::NOTE,
            format!("the note in {name} is not a build-id: {fault}"),
            in_section(section),
            "Xen takes a note of type 3 by \"GNU\" whose description is the id.",
            "Build the payload again.",
        ));
    }
}

/// `.livepatch.xen_depends` is the running hypervisor's id (`xen_build_id_dep`, xen/common/livepatch.c,
/// 4.14 to 4.22).
fn xen_depends(context: &Context<'_>, problems: &mut Problems) {
    if let (Some(id), Some(xen)) = (&context.content.xen_depends, context.xen_id())
        && id != xen
    {
        problems.push(problem(
            codes::WRONG_XEN,
            format!("the payload is for the hypervisor {}, and this one is {}", elf::hex(id), elf::hex(xen)),
            Place::none().section(XEN_DEPENDS),
            "Xen compares its own build-id at upload.",
            "Build the payload against the symbol file of the running hypervisor.",
        ));
    }
}

/// `.livepatch.depends` is the id of the last payload below, else Xen's (`build_id_dep`,
/// xen/common/livepatch.c, 4.13 to 4.22; at apply).
fn depends(context: &Context<'_>, problems: &mut Problems) {
    let last = context.below.last();
    let expected = match (&context.input.depends, last) {
        (Some(id), _) => Some(id.as_slice()),
        (None, Some(below)) => below.content.build_id.as_deref(),
        (None, None) => context.xen_id(),
    };
    if let (Some(id), Some(expected)) = (&context.content.depends, expected)
        && id != expected
    {
        problems.push(problem(
            codes::WRONG_DEPENDS,
            format!(
                "the payload depends on {}, and what it is to stack on is {}",
                elf::hex(id),
                elf::hex(expected)
            ),
            Place::none().section(DEPENDS),
            "Xen applies a payload only on top of the payload, or the hypervisor, with that id.",
            "Give the payloads that it stacks on in their order, or build it with another --depends.",
        ));
    }
}

/// The payloads below stack on each other, the lowest on Xen.
fn chain(context: &Context<'_>, problems: &mut Problems) {
    let mut under = context.xen_id();
    for (i, below) in context.below.iter().enumerate() {
        if let (Some(id), Some(under)) = (below.content.depends.as_deref(), under)
            && id != under
        {
            problems.push(problem(
                codes::WRONG_DEPENDS,
                format!(
                    "payload {} of those to stack on depends on {}, and below it is {}",
                    i + 1,
                    elf::hex(id),
                    elf::hex(under)
                ),
                Place::none().section(DEPENDS),
                "These payloads cannot be applied in this order.",
                "Give the payloads that are applied, lowest first, and all of them.",
            ));
        }
        under = below.content.build_id.as_deref();
    }
}

/// The payload's id is its own (`prepare_payload`: of loaded payloads; of Xen since depends would be
/// ambiguous).
fn own(context: &Context<'_>, problems: &mut Problems) {
    let Some(id) = context.content.build_id.as_deref() else { return };
    let mut others = context
        .below
        .iter()
        .enumerate()
        .map(|(i, b)| (format!("payload {} of those to stack on", i + 1), b.content.build_id.as_deref()))
        .chain([("the hypervisor".to_string(), context.xen_id())]);
    if let Some((who, _)) = others.find(|(_, other)| *other == Some(id)) {
        problems.push(problem(
            codes::SAME_BUILD_ID,
            format!("the payload has the build-id of {who}"),
            Place::none().section(OWN),
            "Xen refuses a payload whose id is in use.",
            "Build the payload with an id that is derived from its content.",
        ));
    }
}

/// `.modinfo` is NUL-terminated (`prepare_payload`, 4.14 to 4.22). The host's side: Xen reads in front of an
/// empty one.
fn metadata(context: &Context<'_>, problems: &mut Problems) {
    let Some(section) = context.payload.section(".modinfo") else { return };
    let terminated = section.data.is_some_and(|data| data.last() == Some(&0));
    if !terminated {
        problems.push(problem(
            codes::METADATA,
            "the metadata is empty or does not end with a NUL",
            in_section(section),
            "Xen looks at the last byte, which an empty section does not have.",
            "End it with a NUL, or leave the section out.",
        ));
    }
}
