//! The same code with jumps of other lengths.
//!
//! A hypervisor before Xen 4.17 is shipped without sections of their own for functions: the assembler knows how far it
//! is from one function to the next of a source, and takes the short form of a jump where that reaches. Code that a
//! source puts aside (`.subsection`) stands behind all its functions there, and not behind the one that it is part of.
//! So the instructions are compared in step, wherever they stand: near jumps and calls by what they do and where they
//! lead, all others byte by byte with relocated fields apart. Padding counts for nothing; what boot writes code over is no
//! padding, though it may hold NOPs until then.

use std::collections::BTreeMap;

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind};
use xsplice_objects::{Class, Home, Hypervisor, Object, RelocKind, Relocation, SectionId, Shipped, Special};

use super::{Against, Anchor, Content, ObjectProver, Pinned, Pins, Proof, value};
use crate::expect;
use crate::items::ItemId;
use crate::meaning;

/// How long a program may be: far more than any function has instructions.
const MOST: usize = 1 << 16;

/// A walk through both codes.
struct Walk<'w> {
    /// The original's code from the start of its section on up to the function's end, and the relocations in it.
    ours: &'w [u8],
    relocations: &'w [Relocation],
    /// Where an original instruction stands in the shipped image, by its offset in the section.
    places: BTreeMap<u64, u64>,
    /// Where jumps inside the function lead: offset in the section, shipped address.
    jumps: Vec<(u64, u64)>,
    content: Option<(Content, String)>,
    pins: Pins,
    /// What alternatives are about: in the original, offsets in the section; in the shipped image, addresses.
    sites: (Sites, &'w Sites),
}

/// Places that boot writes over: where each ends, by where it starts.
pub(super) type Sites = BTreeMap<u64, u64>;

/// Whether an instruction counts for nothing.
fn is_padding(instruction: &Instruction, sites: &Sites) -> bool {
    let written_over = |at: u64| sites.range(..=at).next_back().is_some_and(|(_, &end)| at < end);
    instruction.mnemonic() == Mnemonic::Nop && !written_over(instruction.ip())
}

/// The places that boot writes over in a hypervisor. `None` where the file does not tell.
pub(super) fn shipped_sites(hypervisor: &Hypervisor) -> Option<Sites> {
    let all = expect::rewritten(hypervisor)?;
    Some(sites(all.into_iter().map(|range| (range.start, range.end))))
}

/// Several alternatives may be about places that overlap.
fn sites(all: impl Iterator<Item = (u64, u64)>) -> Sites {
    let mut sites = Sites::new();
    let mut all: Vec<(u64, u64)> = all.collect();
    all.sort_unstable();
    for (start, end) in all {
        match sites.last_entry() {
            Some(mut last) if start <= *last.get() => *last.get_mut() = end.max(*last.get()),
            _ => {
                sites.insert(start, end);
            }
        }
    }
    sites
}

/// Those of a section of an object.
fn own_sites(object: &Object, id: SectionId) -> Sites {
    let mut found = Vec::new();
    for (_, table) in object.sections().filter(|(_, s)| s.class == Class::Special(Special::Alternatives)) {
        for (number, entry) in table.data.chunks(expect::ALTERNATIVE).enumerate() {
            let at = (number * expect::ALTERNATIVE) as u64;
            let Some(about) = table.relocations_in(at, at + 1).first() else { continue };
            let symbol = object.symbol(about.symbol);
            if symbol.home == Home::Section(id) {
                let start = symbol.value.wrapping_add_signed(about.addend);
                let len = expect::rewritten_len(entry).unwrap_or(0);
                found.push((start, start.saturating_add(len)));
            }
        }
    }
    sites(found.into_iter())
}

impl Walk<'_> {
    /// Whether every instruction from an offset on was compared.
    fn has_all(&self, from: u64) -> bool {
        let mut rest = Decoder::with_ip(64, self.ours, 0, DecoderOptions::NONE);
        let Some(()) = usize::try_from(from).ok().and_then(|at| rest.set_position(at).ok()) else {
            return false;
        };
        rest.set_ip(from);
        std::iter::from_fn(|| next(&mut rest, &self.sites.0))
            .all(|instruction| self.places.contains_key(&instruction.ip()))
    }
}

impl ObjectProver<'_, '_> {
    /// Compares a function with a shipped one of its name, whatever the length of jumps. `None` where they differ.
    pub(super) fn relaxed(&self, id: ItemId, shipped: &Shipped) -> Option<(Proof, Pins)> {
        let item = self.items.get(id);
        let section = self.items.object.section(item.section);
        let bytes = section.bytes(0, item.end);
        let mut walk = Walk {
            ours: &bytes,
            relocations: section.relocations_in(item.start, item.end),
            places: BTreeMap::new(),
            jumps: Vec::new(),
            content: None,
            pins: Pins::new(),
            sites: (own_sites(self.items.object, item.section), self.prover.sites()?),
        };
        let own = Anchor::Section(item.section);
        let address = shipped.address.wrapping_sub(item.start);
        walk.pins.insert(own, Pinned { address, by: item.name.clone() });
        let body = item.start + item.declared;
        let end = shipped.address.checked_add(shipped.size)?;
        self.in_step(&mut walk, (item.start, body), (shipped.address, end), &item.name)?;
        // What is put aside is found by the jumps that lead there.
        while let Some(&(to, address)) =
            walk.jumps.iter().find(|(to, _)| (body..item.end).contains(to) && !walk.places.contains_key(to))
        {
            self.in_step(&mut walk, (to, item.end), (address, u64::MAX), &item.name)?;
        }
        let told = |(to, address): &(u64, u64)| walk.places.get(to) == Some(address);
        if !walk.jumps.iter().all(told) || !walk.has_all(body) {
            return None;
        }
        let proof = walk.content.map_or(Proof::Same, |(kind, what)| Proof::OtherContent(kind, what));
        Some((proof, walk.pins))
    }

    /// Goes through both in step, from where they start to where the original's part ends; where the shipped part has no
    /// known end, up to where the code does not go on.
    fn in_step(
        &self,
        walk: &mut Walk<'_>,
        (from, to): (u64, u64),
        (address, end): (u64, u64),
        by: &str,
    ) -> Option<()> {
        let code = walk.ours.get(..usize::try_from(to).ok()?)?;
        let mut ours = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
        ours.set_position(usize::try_from(from).ok()?).ok()?;
        ours.set_ip(from);
        let open = end == u64::MAX;
        let mut at = address;
        for _ in 0..MOST {
            let one = next(&mut ours, &walk.sites.0);
            let (mut other, mut bytes) = self.shipped(at)?;
            while is_padding(&other, walk.sites.1) && at < end {
                at = other.next_ip();
                if at >= end {
                    break;
                }
                (other, bytes) = self.shipped(at)?;
            }
            let Some(one) = one else {
                // Padding at the end of the original was skipped, and none may be missing in the shipped one.
                return (open || at >= end).then_some(());
            };
            if at >= end {
                return None;
            }
            walk.places.insert(one.ip(), at);
            self.same_instruction(walk, &one, (&other, bytes), by)?;
            at = other.next_ip();
            if open && !goes_on(&one) {
                return Some(());
            }
        }
        None
    }

    /// The shipped instruction at an address, and its bytes.
    fn shipped(&self, address: u64) -> Option<(Instruction, &[u8])> {
        /// The longest instruction.
        const LONGEST: usize = 15;
        let hypervisor = self.prover.hypervisor;
        let bytes = (1..=LONGEST).rev().find_map(|length| hypervisor.bytes(address, length))?;
        let instruction = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE).decode();
        (!instruction.is_invalid()).then(|| (instruction, &bytes[..instruction.len()]))
    }

    fn same_instruction(
        &self,
        walk: &mut Walk<'_>,
        one: &Instruction,
        (other, theirs): (&Instruction, &[u8]),
        by: &str,
    ) -> Option<()> {
        let range = one.ip()..one.next_ip();
        let relocations: Vec<&Relocation> =
            walk.relocations.iter().filter(|relocation| range.contains(&relocation.offset)).collect();
        if is_near(one) {
            if !is_near(other) || one.mnemonic() != other.mnemonic() {
                return None;
            }
            let target = other.near_branch_target();
            return match relocations[..] {
                [] => {
                    walk.jumps.push((one.near_branch_target(), target));
                    Some(())
                }
                [relocation] if relocation.kind.is_relative() => {
                    let adjust = (one.next_ip() - relocation.offset).cast_signed();
                    self.same_field(walk, relocation, adjust, target.wrapping_add_signed(-adjust), by)
                }
                _ => None,
            };
        }
        let from = usize::try_from(one.ip()).ok()?;
        let (mut ours, mut blank) = (walk.ours.get(from..from + one.len())?.to_vec(), theirs.to_vec());
        if ours.len() != blank.len() {
            return None;
        }
        for relocation in &relocations {
            for bytes in [&mut ours, &mut blank] {
                meaning::blank(bytes, relocation.offset - one.ip(), relocation.kind);
            }
        }
        if one.is_ip_rel_memory_operand() && relocations.is_empty() {
            // A place in the function itself.
            walk.jumps.push((one.ip_rel_memory_address(), other.ip_rel_memory_address()));
            let field = displacement(&ours, one)?;
            for bytes in [&mut ours, &mut blank] {
                meaning::blank(bytes, field, RelocKind::Pc32);
            }
        }
        if ours != blank {
            return None;
        }
        for relocation in relocations {
            let adjust = match relocation.kind.is_relative() {
                true => (one.next_ip() - relocation.offset).cast_signed(),
                false => 0,
            };
            let field = relocation.offset - one.ip();
            if let Some(value) = value(theirs, other.ip(), field, relocation.kind) {
                self.same_field(walk, relocation, adjust, value, by)?;
            }
        }
        Some(())
    }

    fn same_field(
        &self,
        walk: &mut Walk<'_>,
        relocation: &Relocation,
        adjust: i64,
        value: u64,
        by: &str,
    ) -> Option<()> {
        match self.field(relocation, adjust, value, by, &mut walk.pins) {
            Ok(()) => {}
            Err(Against::Code(_) | Against::Elsewhere(..)) => return None,
            Err(Against::Content(kind, what)) => {
                walk.content.get_or_insert((kind, what));
            }
        }
        Some(())
    }
}

/// The next instruction that is no padding.
fn next(decoder: &mut Decoder<'_>, sites: &Sites) -> Option<Instruction> {
    while decoder.can_decode() {
        let instruction = decoder.decode();
        if !is_padding(&instruction, sites) {
            return Some(instruction);
        }
    }
    None
}

/// Whether it is a jump or call whose target stands in it.
fn is_near(instruction: &Instruction) -> bool {
    instruction.op_count() == 1 && instruction.op0_kind() == OpKind::NearBranch64
}

/// Whether the instruction behind may run next.
fn goes_on(instruction: &Instruction) -> bool {
    use iced_x86::FlowControl::{Exception, IndirectBranch, Return, UnconditionalBranch};
    let ends = [Exception, IndirectBranch, Return, UnconditionalBranch].contains(&instruction.flow_control());
    !ends
}

/// Where the displacement of an instruction's memory operand stands in it.
fn displacement(bytes: &[u8], instruction: &Instruction) -> Option<u64> {
    let mut decoder = Decoder::with_ip(64, bytes, instruction.ip(), DecoderOptions::NONE);
    let again = decoder.decode();
    let offsets = decoder.get_constant_offsets(&again);
    (offsets.has_displacement() && offsets.displacement_size() == 4)
        .then(|| offsets.displacement_offset() as u64)
}
