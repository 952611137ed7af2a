//! What special sections say about a function: the payload's entries beside those of the object that it comes from, and
//! the code that they lead to.

use std::ops::Range;

use iced_x86::{Decoder, DecoderOptions, FlowControl};

use super::code::{Comparison, INSTRUCTION};
use super::objects::Object;
use crate::payload::{Content, Symbol, Target};
use crate::verify::Context;

/// The bits of a bug frame's displacements that are an address; those above belong to the line number.
pub(super) const FRAME: i64 = 0xff_ffff;

/// A function of the object, or other code of it, and where it is in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Twin {
    pub(super) section: usize,
    pub(super) start: u64,
    pub(super) size: u64,
    pub(super) address: u64,
}

impl Twin {
    pub(super) fn of(object: &Object<'_>, function: &Symbol<'_>, address: u64) -> Twin {
        Twin { section: function.section, start: function.value, size: object.extent(function), address }
    }

    /// Bytes from the start of the function to a place of the object, if it is in the function.
    fn offset(&self, target: Target) -> Option<i64> {
        let Target::Section { section, offset } = target else { return None };
        let offset = offset.checked_sub(self.start.cast_signed())?;
        (section == self.section && (0..self.size.cast_signed()).contains(&(offset & FRAME)) && offset >= 0)
            .then_some(offset)
    }

    /// The same for a place in memory.
    fn offset_in_place(&self, address: Option<u64>) -> Option<i64> {
        let offset = address?.wrapping_sub(self.address).cast_signed();
        (offset >= 0 && (offset & FRAME) < self.size.cast_signed()).then_some(offset)
    }

    fn range(&self) -> Range<i64> {
        0..self.size.cast_signed()
    }

    /// Addresses of it.
    pub(super) fn range_in_place(&self) -> Range<u64> {
        self.address..self.address.saturating_add(self.size)
    }

    /// Code that an entry leads to.
    fn of_code(own: Target, size: u64, address: Option<u64>) -> Option<Twin> {
        let Target::Section { section, offset } = own else { return None };
        Some(Twin { section, start: u64::try_from(offset).ok()?, size, address: address? })
    }
}

/// Compares all entries about a function.
pub(super) fn compare<'c>(
    comparison: &mut Comparison<'c>,
    context: &Context<'_>,
    object: &'c Object<'c>,
    twin: Twin,
) {
    // Each function looks at all entries of both, at some of them closely.
    let entries =
        |c: &Content| c.bug_frames.len() + c.alternatives.len() + c.table_entries.len() + c.call_sites.len();
    if !comparison.may_look_at((entries(&context.content) + entries(&object.content)) / 4) {
        return;
    }
    bug_frames(comparison, context, object, twin);
    alternatives(comparison, context, object, twin);
    exceptions(comparison, context, object, twin);
    let own = |content: &Content| -> Vec<i64> {
        content.call_sites.iter().filter_map(|site| twin.offset(site.site)).collect()
    };
    let place = |target| twin.offset_in_place(context.low.address(target));
    let mut here: Vec<i64> = context.content.call_sites.iter().filter_map(|s| place(s.site)).collect();
    let mut own = own(&object.content);
    own.sort_unstable();
    here.sort_unstable();
    comparison.same_entries("altcalls", &own, &here);
}

fn bug_frames<'c>(
    comparison: &mut Comparison<'c>,
    context: &Context<'_>,
    object: &'c Object<'c>,
    twin: Twin,
) {
    let place = |target| twin.offset_in_place(context.low.address(target));
    let mut own: Vec<_> = object
        .content
        .bug_frames
        .iter()
        .filter_map(|f| Some((f.kind, twin.offset(f.location)?, f)))
        .collect();
    let mut here: Vec<_> =
        context.content.bug_frames.iter().filter_map(|f| Some((f.kind, place(f.location)?, f))).collect();
    own.sort_by_key(|(kind, offset, _)| (*kind, *offset));
    here.sort_by_key(|(kind, offset, _)| (*kind, *offset));
    let keys = |all: &[(u8, i64, _)]| all.iter().map(|(kind, at, _)| (*kind, *at)).collect::<Vec<_>>();
    if !comparison.same_entries("bug frames", &keys(&own), &keys(&here)) {
        return;
    }
    for ((_, offset, own), (_, _, here)) in own.iter().zip(&here) {
        comparison.entry("a bug frame of ", (offset & FRAME).cast_unsigned());
        let pointers = [Some((own.pointer, here.pointer)), own.message.zip(here.message)];
        for (own, here) in pointers.into_iter().flatten() {
            let (own, line) = without_line(own);
            let target = context.low.address(here).map(|here| here.wrapping_add_signed(line.wrapping_neg()));
            comparison.leads(own, target);
        }
    }
}

/// A bug frame's pointer, and the part of the line number that stands in it.
fn without_line(target: Target) -> (Target, i64) {
    match target {
        Target::Section { section, offset } => {
            (Target::Section { section, offset: offset & FRAME }, offset & !FRAME)
        }
        Target::Undefined { symbol, addend } => {
            (Target::Undefined { symbol, addend: addend & FRAME }, addend & !FRAME)
        }
        other => (other, 0),
    }
}

fn alternatives<'c>(
    comparison: &mut Comparison<'c>,
    context: &Context<'_>,
    object: &'c Object<'c>,
    twin: Twin,
) {
    // Of several at one place the order counts, which sorting leaves.
    let place = |target| twin.offset_in_place(context.low.address(target));
    let in_function = |offset: &i64| twin.range().contains(offset);
    let mut own: Vec<_> = object
        .content
        .alternatives
        .iter()
        .filter_map(|a| Some((twin.offset(a.original).filter(in_function)?, a)))
        .collect();
    let mut here: Vec<_> = context
        .content
        .alternatives
        .iter()
        .filter_map(|a| Some((place(a.original).filter(in_function)?, a)))
        .collect();
    own.sort_by_key(|(offset, _)| *offset);
    here.sort_by_key(|(offset, _)| *offset);
    let keys = |all: &[(i64, &crate::payload::Alternative)]| {
        let key = |(at, a): &(i64, &crate::payload::Alternative)| {
            (*at, a.feature, a.original_len, a.replacement_len, a.pad_len)
        };
        all.iter().map(key).collect::<Vec<_>>()
    };
    if !comparison.same_entries("alternatives", &keys(&own), &keys(&here)) {
        return;
    }
    for ((offset, own), (_, here)) in own.iter().zip(&here) {
        comparison.entry("a replacement of an alternative of ", offset.cast_unsigned());
        let size = u64::from(own.replacement_len);
        if size > 0 {
            let address = context.low.address(here.replacement);
            comparison.code_at(own.replacement, size, address);
            comparison.also(Twin::of_code(own.replacement, size, address));
        }
    }
}

fn exceptions<'c>(
    comparison: &mut Comparison<'c>,
    context: &Context<'_>,
    object: &'c Object<'c>,
    twin: Twin,
) {
    let place = |target| twin.offset_in_place(context.low.address(target));
    let mut own: Vec<_> =
        object.content.table_entries.iter().filter_map(|e| Some((twin.offset(e.fault)?, e))).collect();
    let mut here: Vec<_> =
        context.content.table_entries.iter().filter_map(|e| Some((place(e.fault)?, e))).collect();
    own.sort_by_key(|(offset, _)| *offset);
    here.sort_by_key(|(offset, _)| *offset);
    let keys = |all: &[(i64, _)]| all.iter().map(|(at, _)| *at).collect::<Vec<_>>();
    if !comparison.same_entries("exception table entries", &keys(&own), &keys(&here)) {
        return;
    }
    for ((offset, own), (_, here)) in own.iter().zip(&here) {
        comparison.entry("where an exception leads from ", offset.cast_unsigned());
        let target = context.low.address(here.fixup);
        match straight_line(comparison, object, own.fixup) {
            Some(size) if twin.offset(own.fixup).is_none() => {
                comparison.code_at(own.fixup, size, target);
                comparison.also(Twin::of_code(own.fixup, size, target));
            }
            _ => comparison.leads(own.fixup, target),
        }
    }
}

/// Bytes of the object's code from a place to where it cannot run on.
pub(super) fn straight_line(comparison: &Comparison<'_>, object: &Object<'_>, from: Target) -> Option<u64> {
    let Target::Section { section, offset } = from else { return None };
    let section = object.elf.sections.get(section).filter(|section| section.is_code())?;
    let code = section.data?.get(usize::try_from(offset).ok()?..)?;
    let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
    while decoder.can_decode() && comparison.may_look_at(INSTRUCTION) {
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            return None;
        }
        let ends = [FlowControl::UnconditionalBranch, FlowControl::IndirectBranch, FlowControl::Return];
        if ends.contains(&instruction.flow_control()) || instruction.mnemonic() == iced_x86::Mnemonic::Ud2 {
            return Some(decoder.position() as u64);
        }
    }
    None
}
