//! Where the sections and symbols of a payload end up, by the loader's own arithmetic.

use std::ops::Range;

use crate::payload::{Payload, SHN_ABS, Target};

/// Bytes of a page.
pub(crate) const PAGE: u64 = 4096;

/// Rounds up to a page; saturates.
pub(crate) fn page_align(value: u64) -> u64 {
    value.checked_next_multiple_of(PAGE).unwrap_or(!(PAGE - 1))
}

/// A payload at one address, as `move_payload` of xen/common/livepatch.c (4.13 to 4.22) places it:
/// code, then writable data, then the rest, each from a page of its own and in section order.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    /// Address of each section; `None` for those that are not loaded.
    sections: Vec<Option<u64>>,
    /// Address of each symbol; `None` where it has none, or none is known.
    symbols: Vec<Option<u64>>,
    /// Bytes from the base to the end.
    pub(crate) size: u64,
    /// Where its code is.
    pub(crate) text: Range<u64>,
}

impl Placed {
    /// Places a payload at `base`. `found` gives the address of an undefined symbol, by its index.
    pub(crate) fn new(payload: &Payload<'_>, base: u64, found: impl Fn(usize) -> Option<u64>) -> Placed {
        let mut offsets = vec![None; payload.sections.len()];
        // Code, writable, other.
        let mut regions = [0u64; 3];
        let region_of = |s: &crate::payload::Section<'_>| {
            if s.is_code() {
                0
            } else if s.is_writable() {
                1
            } else {
                2
            }
        };
        for section in payload.sections.iter().skip(1).filter(|s| s.is_loaded()) {
            let end = &mut regions[region_of(section)];
            let at = end.checked_next_multiple_of(section.align.max(1)).unwrap_or(*end);
            offsets[section.index] = Some(at);
            *end = at.saturating_add(section.size);
        }
        let rw = page_align(regions[0]);
        let ro = rw.saturating_add(page_align(regions[1]));
        let starts = [0, rw, ro];
        let sections: Vec<Option<u64>> = payload
            .sections
            .iter()
            .map(|s| offsets[s.index].map(|at| base.wrapping_add(starts[region_of(s)]).wrapping_add(at)))
            .collect();
        let address = |(index, symbol): (usize, &crate::payload::Symbol<'_>)| match symbol.section {
            0 => found(index),
            SHN_ABS => Some(symbol.value),
            section => sections.get(section).copied().flatten().map(|at| at.wrapping_add(symbol.value)),
        };
        let symbols = payload.symbols.iter().enumerate().map(address).collect();
        let text = base..base.saturating_add(regions[0]);
        Placed { sections, symbols, size: page_align(ro.saturating_add(regions[2])), text }
    }

    /// The address of a section.
    pub(crate) fn section(&self, index: usize) -> Option<u64> {
        self.sections.get(index).copied().flatten()
    }

    /// The address of a symbol.
    pub(crate) fn symbol(&self, index: usize) -> Option<u64> {
        self.symbols.get(index).copied().flatten()
    }

    /// The address that a pointer holds.
    pub(crate) fn address(&self, target: Target) -> Option<u64> {
        match target {
            Target::Literal(value) | Target::Absolute(value) => Some(value),
            Target::Section { section, offset } => Some(self.section(section)?.wrapping_add_signed(offset)),
            Target::Undefined { symbol, addend } => Some(self.symbol(symbol)?.wrapping_add_signed(addend)),
            Target::Broken => None,
        }
    }
}
