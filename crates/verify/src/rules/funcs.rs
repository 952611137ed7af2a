//! Rules about `.livepatch.funcs`: what is replaced, by what, and whether that can be done.

use std::collections::BTreeMap;

use iced_x86::{Decoder, DecoderOptions};
use xsplice_report::{Code, Diagnostic, Kind, Place};

use super::special::stray;
use crate::findings::{Errno, Findings, Side, Step};
use crate::payload::{FUNC_CHECKED_SIZES, Func, Target};
use crate::traits::EndbrRoom;
use crate::verify::{Context, Found, in_section, problem};
use crate::xen::ENDBR as ENDBR64;
use crate::{codes, elf};

const SECTION: &str = ".livepatch.funcs";
/// Bytes of the jump that Xen writes (ARCH_PATCH_INSN_SIZE, xen/arch/x86/include/asm/livepatch.h).
const JUMP: u64 = 5;
/// Bytes of ENDBR64, behind which the jump goes.
const ENDBR: u64 = 4;
/// Most bytes of NOPs, and of an expectation: LIVEPATCH_OPAQUE_SIZE (xen/include/public/sysctl.h).
const MOST_BYTES: u64 = 31;
/// How far a jump reaches: ARCH_LIVEPATCH_RANGE.
const RANGE: i64 = 1 << 31;

/// What is to be replaced.
#[derive(Clone)]
struct Old<'a> {
    address: u64,
    /// The shipped size in bytes; 0 if the assembler was not told.
    size: u64,
    /// Code from `address` on, as it is in the file.
    code: &'a [u8],
    /// How many bytes of it are the same in memory.
    stable: u64,
    in_init: bool,
    is_code: bool,
    /// All names of that place.
    names: Vec<String>,
}

/// All rules about functions.
pub(crate) fn check(context: &Context<'_>, findings: &mut Findings) {
    let Some(section) = context.payload.section(SECTION).filter(|s| s.size > 0) else { return };
    layout(context, section, findings);
    if !section.is_writable() && context.traits.writes_funcs {
        findings.host(problem(
            codes::FUNCS_READ_ONLY,
            "the list of functions is read-only",
            in_section(section),
            "Several releases (4.16.4 to 4.16.7, 4.17.1, 4.17.2, 4.18.0) write to it while applying, and fault.",
            "Make the section writable, which every Xen takes.",
        ));
    }
    // The name, the new and the old address; everything else is literal.
    stray(context, SECTION, context.content.funcs_size.unwrap_or(0), &[0, 8, 16], findings);
    let mut seen: BTreeMap<(Option<u64>, String), u64> = BTreeMap::new();
    for func in &context.content.funcs {
        let found = old_of(context, func);
        let old = found.as_ref().ok().cloned().flatten();
        version(context, func, findings);
        // Up to 4.13 the loader looks at sizes before it looks the function up.
        if context.traits.resolves_first && func.old_size > 0 {
            unknown(context, func, found.is_err(), findings);
            sizes(context, func, old.as_ref(), findings);
        } else {
            sizes(context, func, old.as_ref(), findings);
            unknown(context, func, found.is_err(), findings);
        }
        entry(func, findings);
        new(context, func, findings);
        if let Some(old) = &old {
            distance(context, func, old, findings);
            old_function(func, old, findings);
        }
        // In the loader's own order: the form first, then the bytes.
        expectation_form(func, findings);
        if let Some(old) = &old {
            expectation_bytes(context, func, old, findings);
        }
        let key = match &old {
            Some(old) => (Some(old.address), String::new()),
            None => (None, func.name.clone()),
        };
        if let Some(first) = seen.insert(key, func.offset) {
            say(
                findings,
                Side::Host,
                func,
                codes::FUNC_TWICE,
                format!("the entries at {first:#x} and {:#x} replace the same function", func.offset),
                "A revert goes through the entries in ascending order and would leave a jump into freed memory.",
                "Keep one of them.",
            );
        }
    }
}

/// The loader says no to an entry.
fn refused(errno: Errno) -> Side {
    Side::Loader(Step::Functions, errno)
}

fn say(
    findings: &mut Findings,
    side: Side,
    func: &Func,
    code: Code,
    what: impl Into<String>,
    why: impl Into<String>,
    advice: impl Into<String>,
) {
    let mut place = Place::none().section(SECTION).offset(func.offset);
    if !func.name.is_empty() {
        place = place.symbol(func.name.clone());
    }
    findings.push(side, problem(code, what, place, why, advice));
}

/// The section holds whole entries of the hypervisor's layout (`prepare_payload`,
/// xen/common/livepatch.c; the layouts are those of xen/include/public/sysctl.h, 4.13 to 4.22).
fn layout(context: &Context<'_>, section: &crate::payload::Section<'_>, findings: &mut Findings) {
    let size = context.content.funcs_size;
    let fits = size.is_some_and(|size| size > 32 && section.size.is_multiple_of(size));
    if !fits {
        let wanted = size.map_or("64 or 104".to_string(), |size| size.to_string());
        let diagnostic = problem(
            codes::FUNCS_LAYOUT,
            format!("the list of functions has {} bytes, and entries have {wanted}", section.size),
            in_section(section),
            "Xen takes whole entries of its own struct livepatch_func, each with the version that goes with it.",
            "Build the payload from the tree of the running hypervisor.",
        );
        findings.loader(Step::Functions, Errno::Einval, diagnostic);
    }
}

/// The version is the hypervisor's (`prepare_payload`).
fn version(context: &Context<'_>, func: &Func, findings: &mut Findings) {
    let given = context.input.funcs_version.or(context.input.traits.map(|traits| traits.funcs_version));
    let by_size = FUNC_CHECKED_SIZES.iter().find(|(size, _)| Some(*size) == context.content.funcs_size);
    let version = given.or(by_size.map(|(_, version)| *version));
    if version.is_some_and(|version| version != func.version) {
        say(
            findings,
            refused(Errno::Eopnotsupp),
            func,
            codes::FUNC_VERSION,
            format!("an entry has version {}, not {}", func.version, version.unwrap_or(0)),
            "Xen refuses every version but its own.",
            "Build the payload from the tree of the running hypervisor.",
        );
    }
}

/// The function has a size, and there is room for what is written to it (`prepare_payload`;
/// `arch_livepatch_verify_func`, xen/arch/x86/livepatch.c).
fn sizes(context: &Context<'_>, func: &Func, old: Option<&Old<'_>>, findings: &mut Findings) {
    if func.is_nop() {
        nops(func, old, findings);
    } else if u64::from(func.old_size) < JUMP {
        say(
            findings,
            refused(Errno::Einval),
            func,
            codes::FUNC_TOO_SMALL,
            format!("the function to replace has {} bytes", func.old_size),
            "The jump to the replacement takes 5 bytes.",
            "Change its callers instead, by building with the function inlined into them.",
        );
    }
    if let Some(old) = old {
        old_space(context, func, old, findings);
    }
}

/// What to replace is found: by its address, else by its name (`resolve_old_address`).
fn unknown(context: &Context<'_>, func: &Func, is_unknown: bool, findings: &mut Findings) {
    if !is_unknown {
        return;
    }
    // The loader takes one of several, and any address that is given.
    let missing = func.old == Target::Literal(0)
        && (func.name.is_empty() || context.find(&func.name) == Found::Missing);
    say(
        findings,
        if missing { refused(Errno::Enoent) } else { Side::Host },
        func,
        codes::FUNC_OLD_UNKNOWN,
        format!("nothing to replace is found for {:?}", func.name),
        "Xen looks the name up in its own table and in loaded payloads; a name that several symbols share, or \
         an address in the payload itself, is no answer.",
        unknown_advice(context, &func.name),
    );
}

/// What an entry says by itself: its name and reserved bytes. The host's side.
fn entry(func: &Func, findings: &mut Findings) {
    if !func.rest_is_zero {
        say(
            findings,
            Side::Host,
            func,
            codes::FUNC_PADDING,
            "reserved bytes of an entry are not zero",
            "Some releases keep state there, such as whether the function is applied.",
            "Leave everything zero that has no meaning in a file.",
        );
    }
    let named = match func.name_target {
        Target::Section { .. } => !func.name.is_empty(),
        // Xen looks at the name only where there is no address.
        Target::Literal(0) => func.old != Target::Literal(0),
        _ => false,
    };
    if !named {
        say(
            findings,
            Side::Host,
            func,
            codes::FUNC_NAME,
            "an entry's name cannot be read",
            "Xen looks the function up by its name, or prints it.",
            "Let the name be a pointer to a string of the payload, by a 64-bit relocation.",
        );
    }
}

/// Whether an instruction of code ends there.
fn ends_at(code: &[u8], address: u64, end: u64) -> bool {
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    while decoder.can_decode() && (decoder.position() as u64) < end {
        let _ = decoder.decode();
    }
    decoder.position() as u64 == end
}

/// NOPs fit into what Xen keeps for a revert (`arch_livepatch_verify_func`). The host's side: there is at
/// least one, they replace whole instructions, and the function still returns.
fn nops(func: &Func, shipped: Option<&Old<'_>>, findings: &mut Findings) {
    let (new, old) = (u64::from(func.new_size), u64::from(func.old_size));
    if new == 0 || new > MOST_BYTES || new >= old {
        let side = if old > 0 && new > MOST_BYTES {
            refused(Errno::Eopnotsupp)
        } else if old == 0 || new > old {
            refused(Errno::Einval)
        } else {
            Side::Host
        };
        say(
            findings,
            side,
            func,
            codes::FUNC_NOP,
            format!("an entry asks for {new} bytes of NOPs in a function of {old}"),
            "Xen keeps at most 31 bytes to restore, and a function that is all NOPs falls into the next one.",
            "Replace the function by one that returns.",
        );
    }
    let code = shipped.filter(|shipped| !shipped.code.is_empty());
    let fits = (1..=MOST_BYTES.min(old)).contains(&new);
    if fits && code.is_some_and(|shipped| !ends_at(shipped.code, shipped.address, new)) {
        say(
            findings,
            Side::Host,
            func,
            codes::FUNC_NOP,
            format!("{new} bytes of NOPs end inside an instruction of the function"),
            "What is left of the instruction would be run as another one.",
            "Let the NOPs end where an instruction does.",
        );
    }
}

/// Where what an entry replaces is found; an error where it is not.
pub(crate) fn found_old(context: &Context<'_>, func: &Func) -> Result<Found, ()> {
    match func.old {
        Target::Literal(0) if func.name.is_empty() => Err(()),
        Target::Literal(0) => Ok(context.find(&func.name)),
        Target::Section { .. } | Target::Broken => Err(()),
        Target::Undefined { symbol, addend: 0 } => context.found.get(symbol).copied().flatten().ok_or(()),
        Target::Undefined { .. } => Err(()),
        Target::Literal(address) | Target::Absolute(address) => Ok(by_address(context, address)),
    }
}

/// What an entry replaces; `None` if nobody can say, an error if it has been told.
fn old_of<'a>(context: &'a Context<'_>, func: &Func) -> Result<Option<Old<'a>>, ()> {
    match found_old(context, func)? {
        Found::Unchecked => Ok(None),
        Found::Missing | Found::Ambiguous => Err(()),
        Found::Xen(address) => Ok(Some(old_in_xen(context, func, address))),
        Found::Below { payload, symbol, address } => Ok(old_below(context, payload, symbol, address)),
    }
}

fn by_address(context: &Context<'_>, address: u64) -> Found {
    match &context.xen {
        Some(_) => Found::Xen(address),
        None => Found::Unchecked,
    }
}

fn old_in_xen<'a>(context: &'a Context<'_>, func: &Func, address: u64) -> Old<'a> {
    let mut old =
        Old { address, size: 0, code: &[], stable: 0, in_init: false, is_code: false, names: Vec::new() };
    let Some(xen) = &context.xen else { return old };
    let all: Vec<_> = xen.at(address).collect();
    // Of several symbols at one place, that of the name; else the largest.
    let named = all.iter().find(|s| s.table_name == func.name).copied();
    let chosen = named.or_else(|| all.iter().copied().max_by_key(|s| s.size));
    old.names = all.iter().flat_map(|s| [s.table_name.clone(), s.name.to_string()]).collect();
    if let Some(symbol) = chosen {
        old.size = symbol.size;
        old.is_code = symbol.is_code;
        old.code = xen.bytes_at(address, symbol.size.max(ENDBR)).unwrap_or_default();
        old.stable = xen.stable_bytes(address, symbol.size);
    }
    old.in_init = xen.in_init(address);
    old
}

fn old_below<'a>(context: &'a Context<'_>, payload: usize, symbol: usize, address: u64) -> Option<Old<'a>> {
    let below = &context.below[payload].payload;
    let symbol = below.symbols.get(symbol)?;
    let section = below.sections.get(symbol.section)?;
    let code = section.data.and_then(|data| elf::slice(data, symbol.value, symbol.size.max(ENDBR)));
    let relocated =
        below.relocations_in(section.index, symbol.value..symbol.value.saturating_add(symbol.size));
    let first = relocated.map(|r| r.offset - symbol.value).next().unwrap_or(symbol.size);
    Some(Old {
        address,
        size: symbol.size,
        code: code.unwrap_or_default(),
        stable: first,
        in_init: false,
        is_code: section.is_code(),
        names: vec![symbol.name.to_string()],
    })
}

fn unknown_advice(context: &Context<'_>, name: &str) -> String {
    let names = context.xen.as_ref().map(|xen| xen.table_names_of(name)).unwrap_or_default();
    match names.as_slice() {
        [] => "Check that the symbol file is that of the running Xen.".into(),
        names => format!("Xen knows functions of that name as {}.", names[..names.len().min(4)].join(", ")),
    }
}

/// The replacement is code of the payload, all of it (the loader would jump anywhere).
fn new(context: &Context<'_>, func: &Func, findings: &mut Findings) {
    if func.is_nop() {
        return;
    }
    let payload = context.payload;
    let inside = |size: u32| match func.new {
        Target::Section { section, offset } => {
            let section = &payload.sections[section];
            let end = u64::try_from(offset).ok().and_then(|o| o.checked_add(u64::from(size)));
            section.is_code()
                && section.name != ".altinstr_replacement"
                && size > 0
                && end.is_some_and(|end| end <= section.size)
        }
        _ => false,
    };
    if inside(func.new_size) {
        return;
    }
    // No loader looks at the size of a replacement: a wrong one is odd, and where somebody else's payload is judged no
    // more than that.
    if inside(1) && context.input.traits.is_some() {
        let place = Place::none().section(SECTION).offset(func.offset).symbol(func.name.clone());
        let diagnostic = problem(
            codes::FUNC_NEW,
            format!("the replacement has not the {} bytes that its entry says", func.new_size),
            place,
            "Xen takes the size for nothing, but whoever made the payload was mistaken about it.",
            "Give the entry the true size.",
        );
        findings.note(Diagnostic { kind: Kind::Warning, ..diagnostic });
    } else {
        say(
            findings,
            Side::Host,
            func,
            codes::FUNC_NEW,
            format!("the replacement of {} bytes is not inside code of the payload", func.new_size),
            "Xen writes a jump to that address without another look.",
            "Let the new address be a function of the payload, by a 64-bit relocation, with its true size.",
        );
    }
}

/// What is replaced is a function of that name, with its shipped size, and still there. The host's side:
/// the loader believes whatever the payload says.
fn old_function(func: &Func, old: &Old<'_>, findings: &mut Findings) {
    if old.in_init {
        say(
            findings,
            Side::Host,
            func,
            codes::FUNC_OLD_IN_INIT,
            "the function to replace is gone after boot",
            "Xen writes the jump into memory that has been given back.",
            "Leave functions of init code out of the change.",
        );
    }
    if old.names.is_empty() || !old.is_code {
        say(
            findings,
            Side::Host,
            func,
            codes::FUNC_OLD_NOT_CODE,
            format!("{:#x} is not the start of a function", old.address),
            "Xen writes a jump there without another look.",
            "Take names and addresses from the symbol file of the running hypervisor.",
        );
        return;
    }
    if !func.name.is_empty() && !old.names.contains(&func.name) {
        say(
            findings,
            Side::Host,
            func,
            codes::FUNC_NAME,
            format!("{:#x} is {}, not {:?}", old.address, old.names[0], func.name),
            "Xen replaces what is at the address, and prints the name.",
            "Take names and addresses from the symbol file of the running hypervisor.",
        );
    }
    if old.size != u64::from(func.old_size) {
        say(
            findings,
            Side::Host,
            func,
            codes::FUNC_OLD_SIZE,
            format!("the shipped function has {} bytes, and the payload says {}", old.size, func.old_size),
            "The payload was not built from what was shipped, or for another Xen.",
            "Build it from the source and with the compiler of the shipped hypervisor.",
        );
    }
}

/// There is room for a jump behind ENDBR64, and NOPs leave the way out alone
/// (`arch_livepatch_verify_func` and `livepatch_insn_len`, 4.14.5, 4.15.3, 4.16.1, 4.17 and later).
fn old_space(context: &Context<'_>, func: &Func, old: &Old<'_>, findings: &mut Findings) {
    let endbr = elf::starts_with_endbr(old.code);
    if func.is_nop() {
        if endbr && u64::from(func.new_size) <= ENDBR {
            say(
                findings,
                Side::Host,
                func,
                codes::FUNC_NOP,
                format!("an entry asks for {} bytes of NOPs behind an ENDBR64", func.new_size),
                "The NOPs begin behind it, but are counted from in front of it: their number would be negative.",
                "Count the 4 bytes of ENDBR64 in.",
            );
        }
        nops_keep_return(context, func, old, findings);
        return;
    }
    let kept = match context.traits.endbr {
        EndbrRoom::None => false,
        EndbrRoom::Endbr => old.code.starts_with(&ENDBR64),
        EndbrRoom::EndbrOrPoison => endbr,
    };
    // Under 5 bytes it has been said.
    if kept && (JUMP..JUMP + ENDBR).contains(&u64::from(func.old_size)) {
        say(
            findings,
            refused(Errno::Einval),
            func,
            codes::FUNC_TOO_SMALL,
            format!("the function to replace has {} bytes and starts with ENDBR64", func.old_size),
            "The jump takes 5 bytes and goes behind the ENDBR64, which takes 4.",
            "Change its callers instead, by building with the function inlined into them.",
        );
    }
}

/// The host's side: under return thunks a function ends in a jump, and NOPs over it run on into whatever
/// follows.
fn nops_keep_return(context: &Context<'_>, func: &Func, old: &Old<'_>, findings: &mut Findings) {
    let thunk =
        context.xen.as_ref().and_then(|xen| xen.named("__x86_return_thunk").next()).map(|s| s.address);
    let Some(thunk) = thunk else { return };
    let covered = (func.new_size as usize).min(old.code.len());
    let jumps_to_thunk = |at: usize| {
        let target = old.code.get(at + 1..at + 5).and_then(|raw| elf::u32_at(raw, 0));
        let next = old.address.wrapping_add(at as u64 + JUMP);
        old.code[at] == 0xe9 && target.is_some_and(|d| next.wrapping_add_signed(i64::from(d as i32)) == thunk)
    };
    if (0..covered).any(jumps_to_thunk) {
        say(
            findings,
            Side::Host,
            func,
            codes::FUNC_NOP,
            "NOPs cover a jump to the return thunk",
            "The function would not return but run on into what follows it.",
            "Replace the function by one that returns.",
        );
    }
}

/// A jump reaches the replacement from either end of the area for payloads
/// (`livepatch_verify_distance`, xen/include/xen/livepatch.h).
fn distance(context: &Context<'_>, func: &Func, old: &Old<'_>, findings: &mut Findings) {
    if func.is_nop() {
        return;
    }
    // Xen takes the lowest place that is free.
    for (placed, side) in [(&context.low, refused(Errno::Eoverflow)), (&context.high, Side::Host)] {
        let Some(new) = placed.address(func.new) else { return };
        let distance = old.address.wrapping_sub(new) as i64;
        if !(-RANGE..RANGE).contains(&distance) {
            say(
                findings,
                side,
                func,
                codes::FUNC_DISTANCE,
                format!("the replacement would be {:#x} bytes away", distance.unsigned_abs()),
                "A jump reaches 2 GiB in either direction.",
                "Check that the symbol file is that of the running Xen.",
            );
            return;
        }
    }
}

/// What an expectation may ask for (`livepatch_verify_expectation_fn`, xen/common/livepatch.c, 4.14 to 4.22).
fn expectation_form(func: &Func, findings: &mut Findings) {
    let Some(expect) = func.expectation.as_ref().filter(|e| e.enabled) else { return };
    if expect.reserved != 0 || u32::from(expect.len) > func.old_size {
        let errno = if expect.reserved != 0 { Errno::Einval } else { Errno::Erange };
        say(
            findings,
            Side::Loader(Step::Expectations, errno),
            func,
            codes::EXPECTATION,
            format!(
                "an expectation of {} bytes, reserved bits {}, for a function of {}",
                expect.len, expect.reserved, func.old_size
            ),
            "Xen refuses to apply the payload when reserved bits are set or more is expected than there is.",
            "Leave reserved bits zero and expect at most the old size.",
        );
    }
}

/// The bytes are those that will be found: as shipped, up to the first that boot rewrites, and none where
/// a payload below has put its jump. The host's side: they are compared at apply, under REPLACE after
/// everything else was reverted.
fn expectation_bytes(context: &Context<'_>, func: &Func, old: &Old<'_>, findings: &mut Findings) {
    let Some(expect) = func.expectation.as_ref().filter(|e| e.enabled) else { return };
    let len = u64::from(expect.len);
    let below = context.below.iter().any(|b| b.replaces.binary_search(&old.address).is_ok());
    let endbr = elf::starts_with_endbr(old.code);
    let stable = match (below, endbr) {
        (true, true) => old.stable.min(ENDBR),
        (true, false) => 0,
        (false, _) => old.stable,
    };
    if len > stable {
        // The jump of a payload below is there for sure; what boot rewrites may have stayed as it was.
        const JMP: u8 = 0xe9;
        let is_jump = usize::try_from(stable).is_ok_and(|at| expect.bytes().get(at) == Some(&JMP));
        let side =
            if below && !is_jump { Side::Loader(Step::Expectations, Errno::Einval) } else { Side::Host };
        say(
            findings,
            side,
            func,
            codes::EXPECTATION,
            format!("an expectation of {len} bytes where {stable} are known to be in memory"),
            "What follows is rewritten at boot or by a payload below, or the symbol file does not say what boot \
             rewrites, so the payload may not apply.",
            format!("Expect at most {stable} bytes."),
        );
    }
    // What is behind may be anything by then.
    let shipped = &old.code[..old.code.len().min(len.min(stable) as usize)];
    if shipped != &expect.bytes()[..shipped.len()] {
        say(
            findings,
            Side::Loader(Step::Expectations, Errno::Einval),
            func,
            codes::EXPECTATION,
            format!("{} is expected, and {} was shipped", elf::hex(expect.bytes()), elf::hex(shipped)),
            "Xen refuses to apply the payload when the bytes differ.",
            "Take the expectation from the shipped hypervisor.",
        );
    }
}
