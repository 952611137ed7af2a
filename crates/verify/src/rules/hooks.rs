//! Rules about hooks, and about there being something to do at all.

use xsplice_report::Place;

use super::special::stray;
use crate::codes;
use crate::findings::{Errno, Findings, Side, Step};
use crate::payload::{Target, hook_kinds};
use crate::verify::{Context, in_section, problem};
use crate::xen::{ENDBR, XenSymbols};

/// All rules about hooks.
pub(crate) fn check(context: &Context<'_>, findings: &mut Findings) {
    something_to_do(context, findings);
    for (name, _, is_array) in hook_kinds() {
        size(context, name, is_array, findings);
        stray(context, name, 8, &[0], findings);
    }
    targets(context, findings);
    landing_pads(context, findings);
}

/// Functions or hooks are there, and no such section is empty (`check_patching_sections`,
/// xen/common/livepatch.c, 4.14 to 4.22).
fn something_to_do(context: &Context<'_>, findings: &mut Findings) {
    let names = hook_kinds().map(|(name, _, _)| name).into_iter().chain([".livepatch.funcs"]);
    let present: Vec<_> = names.filter_map(|name| context.payload.section(name)).collect();
    let needs_functions = context.traits.needs_functions;
    let step = if needs_functions { Step::Required } else { Step::Patching };
    if present.is_empty() {
        findings.loader(
            step,
            Errno::Einval,
            problem(
                codes::NOTHING_TO_DO,
                "the payload has neither functions nor hooks",
                Place::none(),
                "Xen refuses payloads without .livepatch.funcs and without hooks.",
                "Give it something to replace.",
            ),
        );
    }
    if !present.is_empty() && needs_functions && context.payload.section(".livepatch.funcs").is_none() {
        findings.loader(
            step,
            Errno::Einval,
            problem(
                codes::NOTHING_TO_DO,
                "the payload has hooks, but no functions",
                Place::none(),
                "Xen up to 4.13 refuses payloads without .livepatch.funcs.",
                "Give it something to replace.",
            ),
        );
    }
    for section in present.into_iter().filter(|s| s.size == 0) {
        // Up to 4.13 an empty list of hooks is none.
        let refused = !needs_functions || section.name == ".livepatch.funcs";
        findings.push(
            if refused { Side::Loader(step, Errno::Einval) } else { Side::Host },
            problem(
                codes::MISSING_SECTION,
                format!("the section {} is empty", section.name),
                in_section(section),
                "Xen refuses empty lists of functions and hooks.",
                "Leave the section out.",
            ),
        );
    }
}

/// Arrays hold whole pointers, single hooks exactly one (LIVEPATCH_ASSIGN_MULTI_HOOK and
/// LIVEPATCH_ASSIGN_SINGLE_HOOK, xen/common/livepatch.c, 4.14 to 4.22). 4.13 knows load and unload only.
fn size(context: &Context<'_>, name: &str, is_array: bool, findings: &mut Findings) {
    let Some(section) = context.payload.section(name).filter(|s| s.size > 0) else { return };
    let fits = if is_array { section.size.is_multiple_of(8) } else { section.size == 8 };
    if !fits {
        let known = is_array || context.traits.all_hooks;
        let refused = Side::Loader(Step::Hooks, Errno::Einval);
        findings.push(
            if known { refused } else { Side::Host },
            problem(
                codes::HOOK_SIZE,
                format!("the section {name} has {} bytes", section.size),
                in_section(section),
                if is_array {
                    "It is an array of pointers of 8 bytes."
                } else {
                    "There can be one such hook only, a pointer of 8 bytes."
                },
                "Correct the number of hooks.",
            ),
        );
    }
    if !is_array && !context.traits.all_hooks {
        findings.host(problem(
            codes::SPECIAL_UNKNOWN,
            format!("this Xen does not know the section {name}"),
            in_section(section),
            "Xen 4.13 has load and unload hooks only, and passes over others in silence.",
            "Use a load hook.",
        ));
    }
}

/// The host's side: hooks are called without another look; no NULL, and nothing but code of the payload.
fn targets(context: &Context<'_>, findings: &mut Findings) {
    for hook in &context.content.hooks {
        let payload = context.payload;
        let is_code = match hook.target {
            Target::Section { section, offset } => {
                let section = &payload.sections[section];
                section.is_code() && u64::try_from(offset).is_ok_and(|offset| offset < section.size)
            }
            _ => false,
        };
        if !is_code {
            let what = match hook.target {
                Target::Literal(0) => format!("a {} hook is NULL", hook.kind),
                _ => format!("a {} hook is not code of the payload", hook.kind),
            };
            findings.host(problem(
                codes::HOOK_TARGET,
                what,
                Place::none().section(payload.section_name(hook.section)).offset(hook.offset),
                "Xen calls it without another look, with interrupts off for some kinds.",
                "Let the hook be a function of the payload, by a 64-bit relocation.",
            ));
        }
    }
}

/// The host's side: Xen calls hooks by pointer, so with CET-IBT on they must start with ENDBR64. A hypervisor that
/// has it itself was built for that (XEN_IBT).
fn landing_pads(context: &Context<'_>, findings: &mut Findings) {
    if !context.xen.as_ref().is_some_and(XenSymbols::has_landing_pads) {
        return;
    }
    let payload = context.payload;
    for hook in &context.content.hooks {
        let Target::Section { section, offset } = hook.target else { continue };
        let section = &payload.sections[section];
        let code = section.data.and_then(|data| data.get(usize::try_from(offset).ok()?..));
        // What is not code at all is said above.
        if section.is_code() && code.is_some_and(|code| !code.starts_with(&ENDBR)) {
            findings.host(problem(
                codes::HOOK_ENDBR,
                format!("a {} hook does not start with ENDBR64", hook.kind),
                Place::none().section(payload.section_name(hook.section)).offset(hook.offset),
                "Where the CPU checks indirect calls, the host crashes when Xen calls it.",
                "Declare the hook's function cf_check.",
            ));
        }
    }
}
