//! The rule about memory that is given back after boot (`__init_begin` to `__init_end` of xen/arch/x86/xen.lds.S); the
//! loader does not look.
//!
//! Nothing refers there, by name or by address, but code of replacements where the shipped function does so too. That
//! is read off the shipped bytes, without decoding them: a field in them holds the very distance, or the very address,
//! that the payload's field will hold, and as many fields do. Distances are compared as they count from the end of the
//! field, so that the instructions must have as many bytes behind it. That other four bytes hold the distance by
//! chance is as likely as one in 2^32 for each byte of the function.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use xsplice_report::Place;

use super::funcs::found_old;
use crate::codes;
use crate::findings::Findings;
use crate::payload::{
    R_X86_64_64, R_X86_64_NONE, R_X86_64_PC32, R_X86_64_PLT32, Relocation, SHN_ABS, Target,
};
use crate::ranges::{contains, merged};
use crate::verify::{Context, Found, problem};
use crate::xen::{XenSymbol, XenSymbols};

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
    let mut lost: BTreeMap<usize, Option<&Reference>> = BTreeMap::new();
    for (one, kept) in references.iter().zip(&kept) {
        let first = lost.entry(one.symbol).or_default();
        *first = first.or((!kept).then_some(one));
    }
    for (&index, &address) in &symbols {
        let place = Place::none().symbol(context.payload.symbol_name(index));
        let place = match lost.get(&index) {
            Some(None) => continue,
            Some(Some(one)) => place.section(context.payload.section_name(one.section)).offset(one.offset),
            // A name that nothing uses.
            None => place,
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
            let by_loader =
                rewritten.get(&section.index).is_some_and(|ranges| contains(ranges, relocation.offset));
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
fn rewritten(context: &Context<'_>) -> BTreeMap<usize, Vec<Range<u64>>> {
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
    by_section(alternatives.chain(sites).filter_map(range))
}

/// For each reference, whether the shipped functions have it too.
///
/// Those in a replacement's own range are held against the function that it replaces. What is left of its fields there
/// covers nameless code, such as the unlikely part of a replacement; code with a name of its own is new.
fn kept(context: &Context<'_>, xen: &XenSymbols<'_>, references: &[Reference]) -> Vec<bool> {
    let wanted: BTreeSet<Field> = references.iter().filter_map(|one| one.field).collect();
    let mut by_place: BTreeMap<(usize, u64), Vec<usize>> = BTreeMap::new();
    for (index, one) in references.iter().enumerate() {
        by_place.entry((one.section, one.offset)).or_default().push(index);
    }
    let mut kept = vec![false; references.len()];
    let mut left: BTreeMap<Field, usize> = BTreeMap::new();
    let mut own = vec![false; references.len()];
    for replacement in replacements(context, xen) {
        let mut inside: BTreeMap<Field, Vec<usize>> = BTreeMap::new();
        let (section, Range { start, end }) = (replacement.section, replacement.range);
        for &index in by_place.range((section, start)..(section, end)).flat_map(|(_, indexes)| indexes) {
            own[index] = true;
            if let Some(field) = references[index].field {
                inside.entry(field).or_default().push(index);
            }
        }
        let shipped = fields(&replacement.shipped, &wanted);
        for (field, indexes) in &inside {
            if indexes.len() <= shipped.get(field).copied().unwrap_or(0) {
                indexes.iter().for_each(|&index| kept[index] = true);
            }
        }
        for (field, shipped) in shipped {
            let inside = inside.get(&field).map_or(0, Vec::len);
            *left.entry(field).or_default() += shipped.saturating_sub(inside);
        }
    }
    let named = named_code(context);
    let mut outside: BTreeMap<Field, Vec<usize>> = BTreeMap::new();
    for (index, one) in references.iter().enumerate() {
        let has_name = named.get(&one.section).is_some_and(|ranges| contains(ranges, one.offset));
        if let Some(field) = one.field.filter(|_| !own[index] && !has_name) {
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

/// What of each section has a name: a symbol of size 0 stands for all behind it.
fn named_code(context: &Context<'_>) -> BTreeMap<usize, Vec<Range<u64>>> {
    let named = context.payload.symbols.iter().filter(|symbol| !symbol.name.is_empty());
    let end = |value: u64, size: u64| if size == 0 { u64::MAX } else { value.saturating_add(size) };
    by_section(named.map(|symbol| (symbol.section, symbol.value..end(symbol.value, symbol.size))))
}

/// Ranges of each section, in order and apart.
fn by_section(ranges: impl Iterator<Item = (usize, Range<u64>)>) -> BTreeMap<usize, Vec<Range<u64>>> {
    let mut all: BTreeMap<usize, Vec<Range<u64>>> = BTreeMap::new();
    for (section, range) in ranges {
        all.entry(section).or_default().push(range);
    }
    all.into_iter().map(|(section, ranges)| (section, merged(ranges))).collect()
}

/// The replacements of functions of the hypervisor.
fn replacements<'a>(context: &'a Context<'_>, xen: &'a XenSymbols<'_>) -> Vec<Replacement<'a>> {
    let parts = unlikely_parts(xen);
    let mut seen = BTreeSet::new();
    let one = |func: &crate::payload::Func| {
        let Target::Section { section, offset } = func.new else { return None };
        let Ok(Found::Xen(address)) = found_old(context, func) else { return None };
        let start = u64::try_from(offset).ok()?;
        let mut shipped: Vec<(u64, &[u8])> = Vec::new();
        // What the payload says of its size may be wrong, and an entry may be there twice: both are said elsewhere.
        let size = xen.at(address).map(|symbol| symbol.size).max().unwrap_or(0).min(func.old_size.into());
        let first = seen.insert(address).then_some((address, size));
        for (address, size) in
            first.into_iter().chain(unlikely_part(xen, &parts, address).filter(|_| first.is_some()))
        {
            shipped.extend(xen.bytes_at(address, size).map(|bytes| (address, bytes)));
        }
        Some(Replacement { section, range: start..start + u64::from(func.new_size), shipped })
    };
    context.content.funcs.iter().filter_map(one).collect()
}

/// Parts of shipped functions, by the name of the function.
type Parts<'x> = BTreeMap<&'x str, Vec<&'x XenSymbol<'x>>>;

/// All code that gcc moved away from its function: `NAME.cold`, or `NAME.cold.N`.
fn unlikely_parts<'x>(xen: &'x XenSymbols<'_>) -> Parts<'x> {
    let mut parts = Parts::new();
    for symbol in xen.symbols().iter().filter(|symbol| symbol.size > 0) {
        if let Some((function, rest)) = symbol.name.rsplit_once(".cold") {
            let is_number = |rest: &str| {
                rest.strip_prefix('.').is_some_and(|number| number.bytes().all(|b| b.is_ascii_digit()))
            };
            if rest.is_empty() || is_number(rest) {
                parts.entry(function).or_default().push(symbol);
            }
        }
    }
    parts
}

/// The part of a shipped function that gcc moved away, of the same file. A global's file is not known; then there may be
/// one such part only.
fn unlikely_part(xen: &XenSymbols<'_>, parts: &Parts<'_>, address: u64) -> Option<(u64, u64)> {
    xen.at(address).filter(|symbol| symbol.is_function).find_map(|symbol| {
        let file = symbol.table_name.strip_suffix(symbol.name).unwrap_or_default();
        let all = parts.get(symbol.name)?;
        let mut parts = all.iter().filter(|part| part.table_name.starts_with(file));
        let only = parts.next()?;
        parts.next().is_none().then_some((only.address, only.size))
    })
}

/// How many fields of shipped code hold each of those wanted.
fn fields(shipped: &[(u64, &[u8])], wanted: &BTreeSet<Field>) -> BTreeMap<Field, usize> {
    let mut found = BTreeMap::new();
    for &(address, bytes) in shipped {
        let distances = bytes.windows(4).zip(1u64..).filter_map(|(raw, at)| {
            let distance = i32::from_le_bytes(raw.try_into().ok()?);
            let end = address.wrapping_add(at + 3);
            Some(Field::Distance(end.wrapping_add_signed(i64::from(distance))))
        });
        let addresses =
            bytes.windows(8).filter_map(|raw| Some(Field::Address(u64::from_le_bytes(raw.try_into().ok()?))));
        for field in distances.chain(addresses).filter(|field| wanted.contains(field)) {
            *found.entry(field).or_default() += 1;
        }
    }
    found
}
