//! Rules about special sections: bug frames, alternatives, altcalls and the exception table.

use xsplice_report::{Code, Place};

use crate::findings::{Errno, Findings, Side, Step};
use crate::payload::{Alternative, BugFrame, R_X86_64_PC32, R_X86_64_PLT32, Target, bug_frame_kind};
use crate::traits::AlternativeChecks;
use crate::verify::{Context, in_section, problem};
use crate::xen::XenSymbols;
use crate::{codes, elf};

/// Most bytes of an original with padding: MAX_PATCH_LEN (xen/arch/x86/alternative.c).
const LONGEST_PATCH: u16 = 254;
/// Bit 15 of a feature negates it (ALT_FLAG_NOT, 4.17.6, 4.18.5, 4.19.3, 4.20.1 and later).
const NEGATED: u16 = 1 << 15;

/// All rules about special sections.
pub(crate) fn check(context: &Context<'_>, findings: &mut Findings) {
    sizes(context, findings);
    for (name, size, places) in [
        (".bug_frames.0", 8, &[0u64, 4] as &[u64]),
        (".bug_frames.1", 8, &[0, 4]),
        (".bug_frames.2", 8, &[0, 4]),
        (".bug_frames.3", 16, &[0, 4, 12]),
        (".altinstructions", 14, &[0, 4]),
        (".alt_call_sites", 4, &[0]),
        (".ex_table", 8, &[0, 4]),
        (".note.gnu.build-id", 1, &[]),
        (".livepatch.depends", 1, &[]),
        (".livepatch.xen_depends", 1, &[]),
        (".modinfo", 1, &[]),
    ] {
        stray(context, name, size, places, findings);
    }
    for frame in &context.content.bug_frames {
        bug_frame(context, frame, findings);
    }
    replacement_section(context, findings);
    for alternative in &context.content.alternatives {
        alternative_ranges(context, alternative, findings);
        replacement_code(context, alternative, findings);
    }
    call_sites(context, findings);
    exception_table(context, findings);
}

/// Relocations of a table write fields that are addresses, and nothing else. The host's side.
pub(crate) fn stray(context: &Context<'_>, name: &str, entry: u64, places: &[u64], findings: &mut Findings) {
    let Some(section) = context.payload.section(name).filter(|_| entry > 0) else { return };
    for relocation in context.payload.relocations_in(section.index, 0..u64::MAX) {
        if !places.contains(&(relocation.offset % entry)) {
            findings.host(problem(
                codes::STRAY_RELOCATION,
                "a relocation writes into a field that is not an address",
                in_section(section)
                    .offset(relocation.offset)
                    .symbol(context.payload.symbol_name(relocation.symbol)),
                "The field would hold something else than what the file shows.",
                "Build the payload again; a tool has damaged this one.",
            ));
        }
    }
}

/// Tables hold whole entries (`prepare_payload`, xen/common/livepatch.c; for assertion frames the
/// second half that `bug_msg` of xen/arch/x86/include/asm/bug.h reads).
fn sizes(context: &Context<'_>, findings: &mut Findings) {
    for (name, size, code, step) in [
        (".bug_frames.0", 8, codes::BUG_FRAMES, Step::BugFrames),
        (".bug_frames.1", 8, codes::BUG_FRAMES, Step::BugFrames),
        (".bug_frames.2", 8, codes::BUG_FRAMES, Step::BugFrames),
        (".bug_frames.3", 16, codes::BUG_FRAMES, Step::BugFrames),
        (".altinstructions", 14, codes::ALTERNATIVES, Step::Alternatives),
        (".alt_call_sites", 4, codes::ALTCALL, Step::CallSites),
        (".ex_table", 8, codes::EXCEPTION_TABLE, Step::ExceptionTable),
    ] {
        if let Some(section) = context.payload.section(name).filter(|s| !s.size.is_multiple_of(size)) {
            // To the loader a frame has 8 bytes, whatever its kind.
            let half = step == Step::BugFrames && section.size.is_multiple_of(8);
            let unknown = step == Step::CallSites && !context.traits.call_sites;
            let side = if half || unknown { Side::Host } else { Side::Loader(step, Errno::Einval) };
            findings.push(
                side,
                problem(
                    code,
                    format!("the section {name} has {} bytes", section.size),
                    in_section(section),
                    format!("Entries have {size} bytes each."),
                    "Build the payload again; a tool has damaged this one.",
                ),
            );
        }
    }
}

/// The code section and the offset that a target is in, if `len` bytes from there are inside as well.
fn in_code(context: &Context<'_>, target: Target, len: u64) -> Option<(usize, u64)> {
    let Target::Section { section, offset } = target else { return None };
    let found = context.payload.sections.get(section)?;
    let offset = u64::try_from(offset).ok()?;
    let inside = offset < found.size && offset.checked_add(len)? <= found.size;
    (found.is_code() && inside).then_some((section, offset))
}

/// The contents of a section from an offset on.
fn code_at<'a>(context: &Context<'a>, (section, offset): (usize, u64), len: u64) -> Option<&'a [u8]> {
    elf::slice(context.payload.sections.get(section)?.data?, offset, len)
}

/// Splits what a bug frame's word refers to into the true target and 7 bits of line number.
fn split_line(target: Target) -> Option<(Target, i64)> {
    let split = |total: i64| {
        let low = (total << 40) >> 40;
        (low, total.wrapping_sub(low) >> 24)
    };
    match target {
        Target::Section { section, offset } => {
            let (offset, line) = split(offset);
            Some((Target::Section { section, offset }, line))
        }
        Target::Undefined { symbol, addend } => {
            let (addend, line) = split(addend);
            Some((Target::Undefined { symbol, addend }, line))
        }
        // An address of the hypervisor; how much of it is a line number cannot be told.
        Target::Absolute(_) => Some((target, 0)),
        Target::Literal(_) | Target::Broken => None,
    }
}

/// Bug frames point at trapping instructions of the payload and at a file name, within the 24 bits that
/// the line number leaves to displacements (BUG_DISP_WIDTH, xen/arch/x86/include/asm/bug.h; the loader
/// checks 32 bits). The host's side.
fn bug_frame(context: &Context<'_>, frame: &BugFrame, findings: &mut Findings) {
    let payload = context.payload;
    let place = Place::none().section(payload.section_name(frame.section)).offset(frame.offset);
    let kind = bug_frame_kind(frame.kind);
    let mut say = |code: Code, what: String, why: &str| {
        let advice =
            "Keep each frame with the code that it describes, in the form that the compiler gave it.";
        findings.host(problem(code, what, place.clone(), why, advice));
    };
    let location = split_line(frame.location).filter(|(_, line)| (0..128).contains(line));
    let trap = location.and_then(|(target, _)| in_code(context, target, 1));
    // UD2, or from 4.22 on the single byte of UDB.
    let traps = trap.and_then(|at| elf::slice(payload.sections[at.0].data?, at.1, 1)).is_some_and(|b| {
        let two = trap.and_then(|at| code_at(context, at, 2));
        b == [0xd6] || two == Some(&[0x0f, 0x0b])
    });
    if !traps {
        say(
            codes::BUG_FRAMES,
            format!("a {kind} frame does not point at a trapping instruction of the payload"),
            "When the trap comes, Xen would find no frame and stop the host.",
        );
    }
    let pointer = split_line(frame.pointer).filter(|(_, line)| (0..128).contains(line));
    let sound = pointer.is_some_and(|(target, _)| match (target, frame.kind) {
        (Target::Undefined { .. } | Target::Absolute(_), _) => true,
        (target, 0) => in_code(context, target, 1).is_some(),
        (target, _) => is_string(context, target),
    });
    let message = frame.message.is_none_or(|target| is_string(context, target));
    if !sound || !message {
        say(
            codes::BUG_FRAMES,
            format!("a {kind} frame does not point at what it should show or call"),
            "Run-function frames call a function; others print the name of a source file, assertions a text.",
        );
    }
    let from = context.low.section(frame.section).map(|at| at.wrapping_add(frame.offset));
    for (target, _) in location.into_iter().chain(pointer) {
        let (Some(to), Some(from)) = (context.low.address(target), from) else { continue };
        let distance = to.wrapping_sub(from) as i64;
        if !(-(1 << 23)..1 << 23).contains(&distance) {
            say(
                codes::BUG_FRAME_DISTANCE,
                format!("the target of a {kind} frame is {:#x} bytes away", distance.unsigned_abs()),
                "A displacement has 24 bits, so it reaches 8 MiB; Xen would not notice.",
            );
        }
    }
}

fn is_string(context: &Context<'_>, target: Target) -> bool {
    match target {
        Target::Section { section, offset } => {
            let found = &context.payload.sections[section];
            found.is_loaded()
                && context.payload.string_at(section, offset).is_some_and(|text| !text.is_empty())
        }
        Target::Undefined { .. } => true,
        _ => false,
    }
}

/// Replacements have a section, even if all are empty (`prepare_payload`, 4.17.4, 4.18 and later).
fn replacement_section(context: &Context<'_>, findings: &mut Findings) {
    if !context.content.alternatives.is_empty() && context.payload.section(".altinstr_replacement").is_none()
    {
        findings.push(
            places_side(context),
            problem(
                codes::ALTERNATIVES,
                "there are alternatives, but no section of replacements",
                Place::none().section(".altinstructions"),
                "Xen looks for .altinstr_replacement, even if all replacements are empty.",
                "Keep the section.",
            ),
        );
    }
}

/// Whose rule it is that alternatives point to the right places.
fn places_side(context: &Context<'_>) -> Side {
    match context.traits.alternatives {
        AlternativeChecks::None => Side::Host,
        AlternativeChecks::Places | AlternativeChecks::All => Side::Loader(Step::Alternatives, Errno::Einval),
    }
}

/// Whose rule it is that their lengths and features are sound: where the loader has no error for it, it stops the host.
fn lengths_side(context: &Context<'_>, errno: Errno) -> Side {
    match context.traits.alternatives {
        AlternativeChecks::None | AlternativeChecks::Places => Side::Host,
        AlternativeChecks::All => Side::Loader(Step::ApplyAlternatives, errno),
    }
}

fn alternative_problem(
    context: &Context<'_>,
    side: Side,
    alternative: &Alternative,
    findings: &mut Findings,
    code: Code,
    what: String,
    why: &str,
) {
    let mut place = Place::none().section(".altinstructions").offset(alternative.offset);
    if let Target::Section { section, offset } = alternative.original
        && let Some(name) = context.payload.name_at(section, offset)
    {
        place = place.symbol(name);
    }
    let advice = "Keep alternatives in the form that the compiler gave them.";
    findings.push(side, problem(code, what, place, why, advice));
}

/// Originals are inside the payload's text, replacements inside theirs, and lengths agree
/// (`prepare_payload`, xen/common/livepatch.c, 4.17.4, 4.18 and later; the host's side before, where
/// `_apply_alternatives` of xen/arch/x86/alternative.c stops the host instead).
fn alternative_ranges(context: &Context<'_>, alternative: &Alternative, findings: &mut Findings) {
    let a = alternative;
    let mut say = |side: Side, what: String, why: &str| {
        alternative_problem(context, side, a, findings, codes::ALTERNATIVES, what, why);
    };
    let total = u16::from(a.original_len) + u16::from(a.pad_len);
    let original = in_code(context, a.original, u64::from(total));
    let is_text =
        |(section, _): (usize, u64)| context.payload.sections[section].name != ".altinstr_replacement";
    if !original.is_some_and(is_text) {
        // The loader counts no padding, and takes replacements for text.
        let start = context.low.address(a.original);
        let inside = start.is_some_and(|start| {
            let end = start.saturating_add(u64::from(a.original_len));
            context.low.text.start <= start && end <= context.low.text.end
        });
        say(
            if inside { Side::Host } else { places_side(context) },
            format!("the original of {total} bytes is not inside the payload's text"),
            "Xen would rewrite something else.",
        );
    }
    let replaced = match (a.replacement, context.payload.section(".altinstr_replacement")) {
        (Target::Section { section, offset }, Some(found)) => {
            let end = offset.checked_add(i64::from(a.replacement_len));
            section == found.index
                && offset >= 0
                && end.is_some_and(|end| u64::try_from(end).is_ok_and(|end| end <= found.size))
        }
        // That there is no such section has been said.
        (_, None) => true,
        _ => false,
    };
    if !replaced {
        say(
            places_side(context),
            format!("the replacement of {} bytes is not inside .altinstr_replacement", a.replacement_len),
            "Xen would copy something else.",
        );
    }
    // An original may well be empty, and all of it padding.
    if u16::from(a.replacement_len) > total || total > LONGEST_PATCH {
        say(
            lengths_side(context, Errno::Enospc),
            format!("{} bytes replace {} and {} of padding", a.replacement_len, a.original_len, a.pad_len),
            "A replacement has at most the length of the original with its padding, which is at most 254: \
             Xen up to 4.18.3 and 4.19.0 stops the host otherwise.",
        );
    }
    let negated = if context.traits.negated_features { NEGATED } else { 0 };
    let known = context.xen.as_ref().map_or(0, XenSymbols::features).max(context.traits.features);
    if a.feature & !negated >= known {
        say(
            lengths_side(context, Errno::Erange),
            format!("there is no CPU feature {:#x}: this Xen knows those below {known:#x}", a.feature),
            "Xen up to 4.18.3 and 4.19.0 stops the host for one; bit 15 negates from 4.17.6, 4.18.5, 4.19.3 and 4.20.1 on.",
        );
    }
    if a.private != 0 {
        say(
            Side::Host,
            "Xen's own byte of an alternative is not zero".into(),
            "Xen would take it for one that is done already.",
        );
    }
}

/// The host's side: a replacement is copied over its original, so displacements in it would count from the
/// wrong place. Xen corrects one: that of a leading CALL or JMP; and takes `call` or `jmp` to itself in
/// place of an indirect one for an altcall, up to 4.20 (`_apply_alternatives`).
fn replacement_code(context: &Context<'_>, alternative: &Alternative, findings: &mut Findings) {
    let a = alternative;
    let Target::Section { section, offset } = a.replacement else { return };
    let Ok(offset) = u64::try_from(offset) else { return };
    let len = u64::from(a.replacement_len);
    let Some(code) = code_at(context, (section, offset), len) else { return };
    let branches = len >= 5 && matches!(code.first(), Some(0xe8 | 0xe9));
    let corrected = context.payload.relocation_at(section, offset + 1).is_some();
    let range = offset..offset.saturating_add(len);
    let moved = context
        .payload
        .relocations_in(section, range)
        .filter(|r| matches!(r.kind, R_X86_64_PC32 | R_X86_64_PLT32))
        .any(|r| !(branches && r.offset == offset + 1));
    if moved {
        alternative_problem(
            context,
            Side::Host,
            a,
            findings,
            codes::ALTERNATIVE_MOVED,
            "a replacement has a displacement that Xen does not correct".into(),
            "It is copied elsewhere; only the target of a CALL or JMP at its start is adjusted.",
        );
    }
    let original = in_code(context, a.original, 6);
    let original_code = original.and_then(|at| code_at(context, at, 2));
    let indirect = matches!(original_code, Some([0xff, 0x15 | 0x25]));
    if branches && (indirect || !corrected) {
        altcall(context, a, code, original.filter(|_| indirect), findings);
    }
}

/// An altcall: the replacement is literally `e8` or `e9` and -5, the original the call or jump through a
/// pointer that it stands for.
fn altcall(
    context: &Context<'_>,
    alternative: &Alternative,
    code: &[u8],
    original: Option<(usize, u64)>,
    findings: &mut Findings,
) {
    let Target::Section { section, offset } = alternative.replacement else { return };
    let literal = code.get(1..5) == Some(&[0xfb, 0xff, 0xff, 0xff])
        && offset >= 0
        && context.payload.relocations_in(section, offset as u64..offset as u64 + 5).next().is_none();
    let pairs = original.and_then(|at| code_at(context, at, 2)).is_some_and(|raw| {
        let wanted = if code[0] == 0xe8 { 0x15 } else { 0x25 };
        raw == [0xff, wanted]
    });
    let through =
        original.is_some_and(|(section, at)| context.payload.relocation_at(section, at + 2).is_some());
    let mut say = |what: String, why: &str| {
        alternative_problem(context, Side::Host, alternative, findings, codes::ALTCALL, what, why);
    };
    if !literal || !pairs || !through || alternative.original_len < 6 || alternative.replacement_len != 5 {
        say(
            "an altcall is not in the form that Xen resolves".into(),
            "The replacement must be literally e8 or e9 fb ff ff ff, without a relocation, and the original ff 15 \
             or ff 25 with the displacement of a pointer; otherwise the call would lead to itself or elsewhere.",
        );
    }
    let (found, always) = (alternative.feature, context.xen.as_ref().and_then(XenSymbols::altcall_feature));
    if let Some(always) = always.filter(|&always| always != found) {
        say(
            format!("an altcall has the feature {found:#x}, and the hypervisor's own have {always:#x}"),
            "Xen resolves altcalls by the number of X86_FEATURE_ALWAYS, which differs between versions; with another \
             the call would lead to its replacement, which calls itself.",
        );
    }
}

/// Call sites are indirect calls of the payload (`prepare_payload` and `apply_alt_calls`, 4.21 and later).
fn call_sites(context: &Context<'_>, findings: &mut Findings) {
    // Where only the payload's version is known, nobody can say.
    let known = context.traits.call_sites || context.input.traits.is_none();
    let section = context.payload.section(".alt_call_sites").filter(|section| !known && section.size > 0);
    if let Some(section) = section {
        findings.host(problem(
            codes::SPECIAL_UNKNOWN,
            "this Xen does not know the section .alt_call_sites",
            in_section(section),
            "Xen up to 4.20 passes over it in silence, and the calls stay indirect: to functions whose ENDBR64 may be sealed.",
            "Build the payload from the tree of the running hypervisor.",
        ));
        return;
    }
    for entry in &context.content.call_sites {
        let site = in_code(context, entry.site, 6);
        let call = site.and_then(|at| code_at(context, at, 2)) == Some(&[0xff, 0x15]);
        let through = site.is_some_and(|(s, at)| context.payload.relocation_at(s, at + 2).is_some());
        if !call || !through {
            // The loader looks at place and bytes.
            let refused = !call && context.traits.call_sites;
            let side = if refused { Side::Loader(Step::CallSites, Errno::Einval) } else { Side::Host };
            findings.push(side, problem(
                codes::ALTCALL,
                "a call site is not an indirect call of the payload",
                Place::none().section(".alt_call_sites").offset(entry.offset),
                "Xen takes 6 bytes of the payload's text that read ff 15 and the displacement of a pointer.",
                "Keep call sites in the form that the compiler gave them.",
            ));
        }
    }
}

/// The host's side: entries of the exception table lead from code of the payload to code of the payload.
fn exception_table(context: &Context<'_>, findings: &mut Findings) {
    for entry in &context.content.table_entries {
        if in_code(context, entry.fault, 1).is_none() || in_code(context, entry.fixup, 1).is_none() {
            findings.host(problem(
                codes::EXCEPTION_TABLE,
                "an entry of the exception table does not lead from code to code of the payload",
                Place::none().section(".ex_table").offset(entry.offset),
                "A fault that it should handle would stop the host.",
                "Keep entries, and the .fixup code that they lead to, with their function.",
            ));
        }
    }
}
