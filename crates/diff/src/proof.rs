//! Whether the shipped hypervisor's code is the rebuilt original's.
//!
//! Names and sizes can agree by chance. The shipped file holds the code too, so the bytes are compared, relocated
//! fields apart; of these, where they lead to is compared as far as a name or a string tells.

use std::collections::BTreeSet;

use iced_x86::{Decoder, DecoderOptions, Formatter, GasFormatter};
use xsplice_objects::{Class, Home, Hypervisor, RelocKind, Relocation, Shipped, SymbolKind};

use crate::entries::Spot;
use crate::items::{ItemId, Items};
use crate::meaning;

/// How a function of the original compares with the shipped one of the same size.
pub(crate) enum Proof {
    /// Its code is the same.
    Same,
    /// The first difference, in words.
    Differs(String),
    /// The symbol file does not hold the code.
    NoCode,
}

/// Compares a function of the original with the shipped one of the same size.
pub(crate) fn compare(items: &Items<'_>, id: ItemId, shipped: &Shipped, hypervisor: &Hypervisor) -> Proof {
    let size = items.get(id).declared;
    match usize::try_from(size).ok().and_then(|size| hypervisor.bytes(shipped.address, size)) {
        Some(theirs) => {
            first_difference(items, id, (shipped, theirs), hypervisor).map_or(Proof::Same, Proof::Differs)
        }
        None => Proof::NoCode,
    }
}

fn first_difference(
    items: &Items<'_>,
    id: ItemId,
    (shipped, theirs): (&Shipped, &[u8]),
    hypervisor: &Hypervisor,
) -> Option<String> {
    let item = items.get(id);
    let section = items.object.section(item.section);
    let end = item.start + item.declared;
    let ours = section.bytes(item.start, end);
    let relocations = section.relocations_in(item.start, end);
    let (mut ours_blank, mut theirs_blank) = (ours.to_vec(), theirs.to_vec());
    for relocation in relocations {
        meaning::blank(&mut ours_blank, relocation.offset - item.start, relocation.kind);
        meaning::blank(&mut theirs_blank, relocation.offset - item.start, relocation.kind);
    }
    if let Some(at) = ours_blank.iter().zip(&theirs_blank).position(|(ours, theirs)| ours != theirs) {
        let (offset, text) = instruction_at(&ours_blank, at);
        let (_, other) = instruction_at(&theirs_blank, at);
        return Some(format!("at +{offset:#x} `{text}`, shipped is `{other}`"));
    }
    let ends = meaning::decode(&ours, relocations, item.start).ends;
    relocations.iter().find_map(|relocation| {
        let adjust = match ends.get(&relocation.offset) {
            Some(end) if relocation.kind.is_relative() => (end - relocation.offset).cast_signed(),
            _ => 0,
        };
        let field = relocation.offset - item.start;
        let leads_to = leads_to(theirs, shipped.address, field, relocation.kind, adjust)?;
        let what = other_target(items, relocation, adjust, leads_to, hypervisor)?;
        Some(format!("at +{field:#x} {what}"))
    })
}

/// The address that a field of the shipped code leads to; `adjust` is how far behind the field distances count from.
fn leads_to(code: &[u8], start: u64, field: u64, kind: RelocKind, adjust: i64) -> Option<u64> {
    let from = usize::try_from(field).ok()?;
    let bytes = code.get(from..from + kind.width() as usize)?;
    match kind {
        RelocKind::Abs64 => Some(u64::from_le_bytes(bytes.try_into().ok()?)),
        RelocKind::Pc32 => {
            let distance = i64::from(i32::from_le_bytes(bytes.try_into().ok()?));
            Some((start + field).wrapping_add_signed(distance + adjust))
        }
        _ => None,
    }
}

/// How a place in the shipped image differs from what a relocation of the original names.
fn other_target(
    items: &Items<'_>,
    relocation: &Relocation,
    adjust: i64,
    leads_to: u64,
    hypervisor: &Hypervisor,
) -> Option<String> {
    let object = items.object;
    let symbol = object.symbol(relocation.symbol);
    let distance = relocation.addend + adjust;
    if let Home::Section(id) = symbol.home
        && object.section(id).class == Class::Strings
    {
        let offset = symbol.value.cast_signed() + distance;
        let spot = Spot { section: Some(id), symbol: relocation.symbol.0, offset };
        let (start, text) = meaning::string_at(object, id, spot);
        let there = leads_to.wrapping_add_signed(start.cast_signed() - offset);
        let same = hypervisor.bytes(there, text.len()).is_none_or(|bytes| bytes == text);
        let text = String::from_utf8_lossy(&text);
        return (!same).then(|| format!("{:?}, shipped is another string", text.trim_end_matches('\0')));
    }
    let named = !matches!(symbol.kind, SymbolKind::Section) && !symbol.name.is_empty();
    if !named || symbol.home == Home::Absolute {
        return None;
    }
    let name = object.table_name(&symbol.name, symbol.local);
    let known: BTreeSet<u64> = hypervisor.named(&name).map(|shipped| shipped.address).collect();
    let wanted = leads_to.wrapping_add_signed(-distance);
    let other = !known.is_empty() && !known.contains(&wanted);
    other.then(|| format!("{}, shipped leads elsewhere", symbol.name))
}

/// The instruction that holds a byte: where it starts, and its text.
fn instruction_at(code: &[u8], at: usize) -> (u64, String) {
    let mut text = String::new();
    let instruction =
        Decoder::new(64, code, DecoderOptions::NONE).into_iter().find(|i| i.next_ip() > at as u64);
    let Some(instruction) = instruction else { return (at as u64, text) };
    GasFormatter::new().format(&instruction, &mut text);
    (instruction.ip(), text)
}
