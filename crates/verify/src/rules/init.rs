//! The rule about memory that is given back after boot (`__init_begin` to `__init_end` of xen/arch/x86/xen.lds.S); the
//! loader does not look.
//!
//! Nothing refers there, by name or by address, but code of replacements where the shipped function does so too. That
//! is read off the shipped bytes, without decoding them: a field in them holds the very distance, or the very address,
//! that the payload's field will hold, and as many fields do. Distances are compared as they count from the end of the
//! field, so that the instructions must have as many bytes behind it. That other four bytes hold the distance by
//! chance is as likely as one in 2^32 for each byte of the function.

use std::collections::BTreeMap;
use std::ops::Range;

use xsplice_report::Place;

use super::funcs::found_old;
use crate::codes;
use crate::findings::Findings;
use crate::payload::{
    R_X86_64_64, R_X86_64_NONE, R_X86_64_PC32, R_X86_64_PLT32, Relocation, SHN_ABS, Target,
};
use crate::verify::{Context, Found, problem};
use crate::xen::XenSymbols;

/// Bytes of a call site that Xen rewrites.
const CALL_SITE: u64 = 6;
/// Sections of code that belongs to no replacement alone.
const NOT_OF_A_FUNCTION: [&str; 2] = [".altinstr_replacement", ".fixup"];

/// What a field of code holds once it is relocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Field {
    /// A distance of 32 bits from the field's end to this address.
    Distance(u64),
    /// This address.
    Address(u64),
}

/// A place in the payload that refers there.
struct Reference {
    symbol: usize,
    section: usize,
    offset: u64,
    /// `None` for one that is in no function's code.
    field: Option<Field>,
}

/// A replacement, and the shipped code that it stands for: address and bytes of each part.
struct Replacement<'a> {
    section: usize,
    range: Range<u64>,
    shipped: Vec<(u64, &'a [u8])>,
}

/// No reference leads to memory that is gone, but those that the shipped functions have too.
pub(crate) fn check(context: &Context<'_>, findings: &mut Findings) {
    let Some(xen) = &context.xen else { return };
    let gone = |index: usize| address(context, index).filter(|&address| xen.in_init(address));
    let symbols: BTreeMap<usize, u64> =
        (1..context.payload.symbols.len()).filter_map(|index| Some((index, gone(index)?))).collect();
    if symbols.is_empty() {
        return;
    }
    let references = references(context, &symbols);
    let kept = kept(context, xen, &references);
    for (&index, &address) in &symbols {
        let place = Place::none().symbol(context.payload.symbol_name(index));
        let mut own = references.iter().zip(&kept).filter(|(one, _)| one.symbol == index).peekable();
        let place = match (own.peek().is_some(), own.find(|(_, kept)| !**kept)) {
            (true, None) => continue,
            (true, Some((one, _))) => {
                place.section(context.payload.section_name(one.section)).offset(one.offset)
            }
            // A name that nothing uses.
            (false, _) => place,
        };
        findings.host(problem(
            codes::SYMBOL_IN_INIT,
            format!("a reference leads to {address:#x}, which is gone after boot"),
            place,
            "The loader takes it, and the first use faults. The shipped function does not refer to it so often, or not in this way.",
            "Leave functions of init code out of the change.",
        ));
    }
}

/// Where a symbol is that the payload brings no content for.
fn address(context: &Context<'_>, index: usize) -> Option<u64> {
    let symbol = context.payload.symbols.get(index)?;
    match context.found.get(index).copied().flatten() {
        Some(Found::Xen(address)) => Some(address),
        None if symbol.section == SHN_ABS => Some(symbol.value),
        _ => None,
    }
}

/// Everything in memory that refers to the symbols.
fn references(context: &Context<'_>, symbols: &BTreeMap<usize, u64>) -> Vec<Reference> {
    let payload = context.payload;
    let rewritten = rewritten(context);
    let mut found = Vec::new();
    for group in &payload.relocations {
        let Some(section) = payload.sections.get(group.target).filter(|s| s.is_loaded()) else { continue };
        let is_code = section.is_code() && !NOT_OF_A_FUNCTION.contains(&section.name);
        for relocation in group.entries.iter().filter(|one| one.kind != R_X86_64_NONE) {
            let Some(&address) = symbols.get(&relocation.symbol) else { continue };
            let by_loader = rewritten
                .iter()
                .any(|(index, range)| *index == section.index && range.contains(&relocation.offset));
            // By name only: an address in the file says nothing about which symbol is meant.
            let named = payload.symbols.get(relocation.symbol).is_some_and(|symbol| symbol.is_undefined());
            let field = field(relocation, address).filter(|_| is_code && !by_loader && named);
            let (symbol, offset) = (relocation.symbol, relocation.offset);
            found.push(Reference { symbol, section: section.index, offset, field });
        }
    }
    found
}

fn field(relocation: &Relocation, address: u64) -> Option<Field> {
    let value = address.wrapping_add_signed(relocation.addend);
    match relocation.kind {
        R_X86_64_PC32 | R_X86_64_PLT32 => Some(Field::Distance(value.wrapping_add(4))),
        R_X86_64_64 => Some(Field::Address(value)),
        _ => None,
    }
}

/// What Xen itself reads and rewrites of the payload's code, some of it before the code runs: originals of
/// alternatives, altcalls among them, and call sites.
fn rewritten(context: &Context<'_>) -> Vec<(usize, Range<u64>)> {
    let content = &context.content;
    let alternatives = content
        .alternatives
        .iter()
        .map(|one| (one.original, u64::from(one.original_len) + u64::from(one.pad_len)));
    let sites = content.call_sites.iter().map(|one| (one.site, CALL_SITE));
    let range = |(target, len): (Target, u64)| {
        let Target::Section { section, offset } = target else { return None };
        let start = u64::try_from(offset).ok()?;
        Some((section, start..start.saturating_add(len)))
    };
    alternatives.chain(sites).filter_map(range).collect()
}

/// For each reference, whether the shipped functions have it too.
///
/// Those in a replacement's own range are held against the function that it replaces. What is left of its fields there
/// covers nameless code, such as the unlikely part of a replacement; code with a name of its own is new.
fn kept(context: &Context<'_>, xen: &XenSymbols<'_>, references: &[Reference]) -> Vec<bool> {
    let replacements = replacements(context, xen);
    let mut kept = vec![false; references.len()];
    let mut left: BTreeMap<Field, usize> = BTreeMap::new();
    let mut own = vec![false; references.len()];
    for replacement in &replacements {
        let mut inside: BTreeMap<Field, Vec<usize>> = BTreeMap::new();
        for (index, one) in references.iter().enumerate() {
            let here = one.section == replacement.section && replacement.range.contains(&one.offset);
            own[index] |= here;
            if let Some(field) = one.field {
                let list = inside.entry(field).or_default();
                list.extend(here.then_some(index));
            }
        }
        for (field, indexes) in inside {
            let shipped = count(&replacement.shipped, field);
            if indexes.len() <= shipped {
                indexes.iter().for_each(|&index| kept[index] = true);
                *left.entry(field).or_default() += shipped - indexes.len();
            }
        }
    }
    let mut outside: BTreeMap<Field, Vec<usize>> = BTreeMap::new();
    for (index, one) in references.iter().enumerate() {
        if let Some(field) = one.field.filter(|_| !own[index] && !has_name(context, one)) {
            outside.entry(field).or_default().push(index);
        }
    }
    for (field, indexes) in outside {
        if indexes.len() <= left.get(&field).copied().unwrap_or(0) {
            indexes.into_iter().for_each(|index| kept[index] = true);
        }
    }
    kept
}

/// Whether a reference is in code that has a name.
fn has_name(context: &Context<'_>, one: &Reference) -> bool {
    context.payload.symbols.iter().any(|symbol| {
        let covers = symbol.value <= one.offset
            && (symbol.size == 0 || one.offset < symbol.value.saturating_add(symbol.size));
        symbol.section == one.section && !symbol.name.is_empty() && covers
    })
}

/// The replacements of functions of the hypervisor.
fn replacements<'a>(context: &'a Context<'_>, xen: &'a XenSymbols<'_>) -> Vec<Replacement<'a>> {
    let one = |func: &crate::payload::Func| {
        let Target::Section { section, offset } = func.new else { return None };
        let Ok(Found::Xen(address)) = found_old(context, func) else { return None };
        let start = u64::try_from(offset).ok()?;
        let mut shipped: Vec<(u64, &[u8])> = Vec::new();
        for (address, size) in
            std::iter::once((address, u64::from(func.old_size))).chain(unlikely_part(xen, address))
        {
            shipped.extend(xen.bytes_at(address, size).map(|bytes| (address, bytes)));
        }
        Some(Replacement { section, range: start..start + u64::from(func.new_size), shipped })
    };
    context.content.funcs.iter().filter_map(one).collect()
}

/// The part of a shipped function that gcc moved away: `NAME.cold`, or `NAME.cold.N`, of the same file. A global's
/// file is not known; then there may be one such part only.
fn unlikely_part(xen: &XenSymbols<'_>, address: u64) -> Option<(u64, u64)> {
    let is_part = |name: &str, of: &str| {
        let rest = name.strip_prefix(of).and_then(|rest| rest.strip_prefix(".cold"));
        rest.is_some_and(|rest| {
            rest.is_empty() || rest.strip_prefix('.').is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
        })
    };
    xen.at(address).filter(|symbol| symbol.is_function).find_map(|symbol| {
        let file = symbol.table_name.strip_suffix(symbol.name).unwrap_or_default();
        let mut parts = xen.symbols().iter().filter(|part| {
            is_part(part.name, symbol.name) && part.size > 0 && part.table_name.starts_with(file)
        });
        let only = parts.next()?;
        parts.next().is_none().then_some((only.address, only.size))
    })
}

/// How many fields of shipped code hold the same.
fn count(shipped: &[(u64, &[u8])], field: Field) -> usize {
    let in_part = |&(address, bytes): &(u64, &[u8])| match field {
        Field::Distance(to) => bytes
            .windows(4)
            .enumerate()
            .filter(|(at, raw)| {
                let end = address.wrapping_add(*at as u64 + 4);
                <[u8; 4]>::try_from(*raw)
                    .is_ok_and(|raw| end.wrapping_add_signed(i64::from(i32::from_le_bytes(raw))) == to)
            })
            .count(),
        Field::Address(to) => bytes.windows(8).filter(|raw| **raw == to.to_le_bytes()).count(),
    };
    shipped.iter().map(in_part).sum()
}
