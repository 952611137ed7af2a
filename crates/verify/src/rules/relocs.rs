//! Rules about relocations of loaded sections; Xen skips all others.

use xsplice_report::{Code, Place};

use crate::codes;
use crate::findings::{Errno, Findings, Side, Step};
use crate::payload::{
    Payload, R_X86_64_PC32, R_X86_64_PLT32, Relocation, RelocationSection, SHN_ABS, Section,
};
use crate::verify::{Context, in_section, problem};

/// Bytes of one ELF64 relocation without an addend.
const REL_SIZE: u64 = 16;

const REBUILD: &str = "Build the payload again; a tool has damaged this one.";

/// All rules about relocations.
pub(crate) fn check(context: &Context<'_>, findings: &mut Findings) {
    let payload = context.payload;
    let mut written: Vec<(usize, u64, u64)> = Vec::new();
    for group in &payload.relocations {
        if group.target == 0 {
            findings.host(of_no_section(&payload.sections[group.section]));
        }
        let Some(target) = payload.sections.get(group.target).filter(|s| s.is_loaded()) else { continue };
        if !sound(payload, group, target, findings) {
            continue;
        }
        for relocation in &group.entries {
            one(context, target, relocation, findings);
            if let Some(width @ 1..) = relocation.width() {
                written.push((group.target, relocation.offset, width));
            }
        }
    }
    overlaps(payload, written, findings);
}

/// The host's side: the loader looks at the section that relocations are for, and of number 0 it has none
/// (`livepatch_elf_perform_relocs`).
fn of_no_section(section: &Section<'_>) -> xsplice_report::Diagnostic {
    problem(
        codes::RELOCATION_SECTION,
        "relocations are said to be for section 0",
        in_section(section),
        "Xen follows a pointer that it has not set, and stops the host while it uploads the payload.",
        REBUILD,
    )
}

/// Relocation sections refer to the symbol table and hold whole entries with addends
/// (`livepatch_elf_perform_relocs`, xen/common/livepatch_elf.c; `arch_livepatch_perform_rel`,
/// xen/arch/x86/livepatch.c, 4.13 to 4.22). Whether one can be read.
fn sound(
    payload: &Payload<'_>,
    group: &RelocationSection,
    target: &Section<'_>,
    findings: &mut Findings,
) -> bool {
    let section = &payload.sections[group.section];
    let mut say = |side: Side, what: String, why: &str| {
        findings.push(side, problem(codes::RELOCATION_SECTION, what, in_section(section), why, REBUILD));
    };
    if Some(group.link) != payload.symtab {
        say(
            refused(Errno::Einval),
            format!("relocations of {} refer to section {} as symbol table", target.name, group.link),
            "That is not the symbol table.",
        );
    }
    if !group.with_addends {
        // One that is empty is passed over.
        let whole = section.entsize >= REL_SIZE && section.size.is_multiple_of(section.entsize);
        let side = match (section.size, whole) {
            (0, _) => Side::Host,
            (_, true) => refused(Errno::Eopnotsupp),
            (_, false) => refused(Errno::Einval),
        };
        let what = format!("relocations of {} have no addends", target.name);
        say(side, what, "Xen takes type RELA only.");
    } else if !group.readable {
        say(
            refused(Errno::Einval),
            format!(
                "relocations of {} have {} bytes in entries of {}",
                target.name, section.size, section.entsize
            ),
            "Xen takes entries of at least 24 bytes that fill the section.",
        );
    }
    if target.is_nobits() && !group.entries.is_empty() {
        say(
            Side::Host,
            format!("{} has relocations, but no contents", target.name),
            "What is zero-initialised has nothing to relocate.",
        );
    }
    group.readable
}

/// The loader says no to it.
fn refused(errno: Errno) -> Side {
    Side::Loader(Step::Relocations, errno)
}

/// Says what is wrong with a relocation.
type Say<'s> = dyn FnMut(Side, Code, String, &str, &str) + 's;

/// One relocation (`arch_livepatch_perform_rela`, xen/arch/x86/livepatch.c, 4.13 to 4.22).
fn one(context: &Context<'_>, target: &Section<'_>, relocation: &Relocation, findings: &mut Findings) {
    let payload = context.payload;
    let place = in_section(target).offset(relocation.offset).symbol(payload.symbol_name(relocation.symbol));
    let mut say = |side: Side, code: Code, what: String, why: &str, advice: &str| {
        findings.push(side, problem(code, what, place.clone(), why, advice));
    };
    symbol(context, relocation, &mut say);
    let Some(width) = relocation.width() else {
        say(
            refused(Errno::Eopnotsupp),
            codes::RELOCATION_TYPE,
            format!("a relocation has type {}", relocation.kind),
            "Xen knows R_X86_64_NONE, _64, _PC32 and _PLT32.",
            "Compile as Xen does: position independent, hidden visibility, no PLT, no thread-local storage.",
        );
        return;
    };
    let end = relocation.offset.checked_add(width);
    if width > 0 && end.is_none_or(|end| end > target.size) {
        say(
            refused(Errno::Einval),
            codes::RELOCATION_OFFSET,
            format!("a relocation writes {width} bytes, and the section has {:#x}", target.size),
            "Xen refuses relocations that write outside.",
            REBUILD,
        );
        return;
    }
    if matches!(relocation.kind, R_X86_64_PC32 | R_X86_64_PLT32) {
        distance(context, target, relocation, &mut say);
    }
}

/// Symbols exist and are in memory; that they are is the host's side before 4.14.
fn symbol(context: &Context<'_>, relocation: &Relocation, say: &mut Say<'_>) {
    let payload = context.payload;
    let Some(symbol) = payload.symbols.get(relocation.symbol).filter(|_| relocation.symbol != 0) else {
        let errno = if relocation.symbol == 0 { Errno::Eopnotsupp } else { Errno::Einval };
        say(
            refused(errno),
            codes::RELOCATION_SYMBOL,
            format!("a relocation refers to symbol {} of {}", relocation.symbol, payload.symbols.len()),
            "Xen refuses symbol 0 and those past the end of the symbol table.",
            REBUILD,
        );
        return;
    };
    let section = payload.sections.get(symbol.section).filter(|_| !symbol.is_undefined());
    let unloaded = section.is_some_and(|section| !section.is_loaded());
    let empty = context.traits.skips_empty && section.is_some_and(|section| section.size == 0);
    if symbol.section != SHN_ABS && (unloaded || empty) {
        // Before 4.14 the value in the file is taken for an address, which no displacement reaches.
        let side = if context.traits.refuses_unloaded {
            refused(Errno::Einval)
        } else if matches!(relocation.kind, R_X86_64_PC32 | R_X86_64_PLT32) {
            refused(Errno::Eoverflow)
        } else {
            Side::Host
        };
        say(
            side,
            codes::RELOCATION_SYMBOL,
            format!(
                "a relocation refers to section {}, which is {}",
                payload.section_name(symbol.section),
                if unloaded { "not loaded" } else { "empty" }
            ),
            "Only sections with the flag A (allocate) are in memory, up to Xen 4.13 only those that are not empty.",
            "Keep what loaded code refers to in a loaded section.",
        );
    }
}

/// Displacements fit into 32 bits with the payload at either end of the area for payloads.
fn distance(context: &Context<'_>, target: &Section<'_>, relocation: &Relocation, say: &mut Say<'_>) {
    // Xen takes the lowest place that is free.
    for (placed, side) in [(&context.low, refused(Errno::Eoverflow)), (&context.high, Side::Host)] {
        let (Some(to), Some(from)) = (placed.symbol(relocation.symbol), placed.section(target.index)) else {
            return;
        };
        let value = to
            .wrapping_add_signed(relocation.addend)
            .wrapping_sub(from.wrapping_add(relocation.offset)) as i64;
        if i32::try_from(value).is_err() {
            say(
                side,
                codes::RELOCATION_OVERFLOW,
                format!("a displacement of {value:#x} does not fit into 32 bits"),
                "Code reaches 2 GiB in either direction.",
                "Refer to it through a 64-bit address.",
            );
            return;
        }
    }
}

/// The host's side: of two relocations that write the same bytes, the order decides.
fn overlaps(payload: &Payload<'_>, mut written: Vec<(usize, u64, u64)>, findings: &mut Findings) {
    written.sort_unstable();
    for pair in written.windows(2) {
        let ((section, first, width), (other, second, _)) = (pair[0], pair[1]);
        if section == other && second < first.saturating_add(width) {
            findings.host(problem(
                codes::RELOCATION_OVERLAP,
                "two relocations write the same bytes",
                Place::none().section(payload.section_name(section)).offset(second),
                "The last one wins, and what the bytes then mean is nobody's intention.",
                REBUILD,
            ));
        }
    }
}
