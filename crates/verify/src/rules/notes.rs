//! Rules about identities: the payload's own, and those of what it needs.

use xsplice_report::{Diagnostic, Place};

use crate::findings::{Errno, Findings, Side, Step};
use crate::verify::{Context, in_section, problem};
use crate::{codes, elf};

const OWN: &str = ".note.gnu.build-id";
const DEPENDS: &str = ".livepatch.depends";
const XEN_DEPENDS: &str = ".livepatch.xen_depends";

/// All rules about notes and metadata.
pub(crate) fn check(context: &Context<'_>, findings: &mut Findings) {
    for name in [OWN, DEPENDS, XEN_DEPENDS] {
        // Xen 4.13 knows no xen_depends.
        required(context, name, name != XEN_DEPENDS || context.traits.xen_depends, findings);
    }
    let traits = &context.traits;
    let xen_note = if traits.xen_id_first { Step::XenIdFirst } else { Step::XenNote };
    let xen_side = if traits.xen_depends { Side::Loader(xen_note, Errno::Einval) } else { Side::Host };
    for (name, step) in [(OWN, Step::OwnId), (DEPENDS, Step::DependsNote)] {
        // Where `parse_buildid` does it (4.18.4, 4.19.1, 4.20 and later), its error is passed on.
        let data = context.payload.section(name).and_then(|section| section.data);
        let passed_on = traits.xen_id_first && data.is_some_and(elf::loader_finds_no_id);
        let errno = if passed_on { Errno::Enodata } else { Errno::Einval };
        note(context, name, Side::Loader(step, errno), findings);
    }
    note(context, XEN_DEPENDS, xen_side, findings);
    if context.xen_id().is_none() {
        findings.note(
            Diagnostic::new(codes::XEN_ID_UNKNOWN, "the hypervisor's build-id is not known")
                .why("Whether the payload is for that hypervisor was not checked.")
                .advice("Give a symbol file with a build-id note, or the id itself."),
        );
    }
    xen_depends(context, findings);
    depends(context, findings);
    chain(context, findings);
    own(context, findings);
    metadata(context, findings);
}

/// Required sections are there and not empty (`check_special_sections`, xen/common/livepatch.c).
fn required(context: &Context<'_>, name: &str, needed: bool, findings: &mut Findings) {
    let section = context.payload.section(name);
    if needed && section.is_none_or(|s| s.size == 0) {
        let state = if section.is_none() { "missing" } else { "empty" };
        let first = name == XEN_DEPENDS && context.traits.xen_id_first;
        let diagnostic = problem(
            codes::MISSING_SECTION,
            format!("the section {name} is {state}"),
            Place::none().section(name),
            "Every payload has an id, says what it stacks on, and (from Xen 4.14 on) for which hypervisor it is.",
            "Build the payload again.",
        );
        findings.loader(if first { Step::XenIdFirst } else { Step::Required }, Errno::Einval, diagnostic);
    }
}

/// Notes are sound (`prepare_payload`, xen/common/livepatch.c, with `xen_build_id_check`,
/// xen/common/version.c, 4.13 to 4.22).
fn note(context: &Context<'_>, name: &str, side: Side, findings: &mut Findings) {
    let Some(section) = context.payload.section(name).filter(|s| s.size > 0) else { return };
    let Some(data) = section.data else { return };
    if let Err(fault) = elf::build_id_note(data) {
        let diagnostic = problem(
            codes::NOTE,
            format!("the note in {name} is not a build-id: {fault}"),
            in_section(section),
            "Xen takes a note of type 3 by \"GNU\" whose description is the id.",
            "Build the payload again.",
        );
        findings.push(if elf::loader_takes_note(data) { Side::Host } else { side }, diagnostic);
    }
}

/// `.livepatch.xen_depends` is the running hypervisor's id (`xen_build_id_dep`, xen/common/livepatch.c,
/// 4.14 to 4.22).
fn xen_depends(context: &Context<'_>, findings: &mut Findings) {
    let step = if context.traits.xen_id_first { Step::XenIdFirst } else { Step::XenId };
    // Xen 4.13 does not know the section; that the payload is for another hypervisor is as wrong there.
    let side = if context.traits.xen_depends { Side::Loader(step, Errno::Einval) } else { Side::Host };
    if let (Some(id), Some(xen)) = (&context.content.xen_depends, context.xen_id())
        && id != xen
    {
        findings.push(
            side,
            problem(
                codes::WRONG_XEN,
                format!(
                    "the payload is for the hypervisor {}, and this one is {}",
                    elf::hex(id),
                    elf::hex(xen)
                ),
                Place::none().section(XEN_DEPENDS),
                "Xen compares its own build-id at upload.",
                "Build the payload against the symbol file of the running hypervisor.",
            ),
        );
    }
}

/// `.livepatch.depends` is the id of the last payload below, else Xen's (`build_id_dep`,
/// xen/common/livepatch.c, 4.13 to 4.22; at apply).
fn depends(context: &Context<'_>, findings: &mut Findings) {
    let last = context.below.last();
    let expected = match (&context.input.depends, last) {
        (Some(id), _) => Some(id.as_slice()),
        (None, Some(below)) => below.content.build_id.as_deref(),
        (None, None) => context.xen_id(),
    };
    if let (Some(id), Some(expected)) = (&context.content.depends, expected)
        && id != expected
    {
        findings.loader(
            Step::Depends,
            Errno::Einval,
            problem(
                codes::WRONG_DEPENDS,
                format!(
                    "the payload depends on {}, and what it is to stack on is {}",
                    elf::hex(id),
                    elf::hex(expected)
                ),
                Place::none().section(DEPENDS),
                "Xen applies a payload only on top of the payload, or the hypervisor, with that id.",
                "Give the payloads that it stacks on in their order, or build it with another --depends.",
            ),
        );
    }
}

/// The payloads below stack on each other, the lowest on Xen.
fn chain(context: &Context<'_>, findings: &mut Findings) {
    let mut under = context.xen_id();
    for (i, below) in context.below.iter().enumerate() {
        if let (Some(id), Some(under)) = (below.content.depends.as_deref(), under)
            && id != under
        {
            findings.loader(
                Step::Below,
                Errno::Einval,
                problem(
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
                ),
            );
        }
        under = below.content.build_id.as_deref();
    }
}

/// The payload's id is its own (`prepare_payload`: of loaded payloads; of Xen since depends would be
/// ambiguous).
fn own(context: &Context<'_>, findings: &mut Findings) {
    let Some(id) = context.content.build_id.as_deref() else { return };
    let mut others = context
        .below
        .iter()
        .enumerate()
        .map(|(i, b)| (format!("payload {} of those to stack on", i + 1), b.content.build_id.as_deref()))
        .chain([("the hypervisor".to_string(), context.xen_id())]);
    if let Some((who, _)) = others.find(|(_, other)| *other == Some(id)) {
        // The hypervisor's own is no payload's.
        let loaded = context.below.iter().any(|below| below.content.build_id.as_deref() == Some(id));
        let side = if loaded { Side::Loader(Step::OwnId, Errno::Eexist) } else { Side::Host };
        findings.push(
            side,
            problem(
                codes::SAME_BUILD_ID,
                format!("the payload has the build-id of {who}"),
                Place::none().section(OWN),
                "Xen refuses a payload whose id is in use.",
                "Build the payload with an id that is derived from its content.",
            ),
        );
    }
}

/// `.modinfo` is NUL-terminated (`prepare_payload`, 4.14 to 4.22). The host's side: Xen reads in front of an
/// empty one.
fn metadata(context: &Context<'_>, findings: &mut Findings) {
    let Some(section) = context.payload.section(".modinfo").filter(|_| context.traits.metadata) else {
        return;
    };
    let terminated = section.data.is_some_and(|data| data.last() == Some(&0));
    if !terminated {
        let refused = Side::Loader(Step::Metadata, Errno::Einval);
        findings.push(
            if section.size == 0 { Side::Host } else { refused },
            problem(
                codes::METADATA,
                "the metadata is empty or does not end with a NUL",
                in_section(section),
                "Xen looks at the last byte, which an empty section does not have.",
                "End it with a NUL, or leave the section out.",
            ),
        );
    }
}
