//! One function in place, beside the object that it comes from: same instructions, and every reference leads to what
//! the object names.

use std::collections::BTreeSet;

use iced_x86::{Decoder, DecoderOptions, Instruction};

use super::follow;
use super::image::{Applied, Image};
use super::names::{Names, Owner, Wanted, plain_stem};
use super::objects::{FUNC, Object, SECTION, is_name};
use super::special::{self, Twin};
use crate::payload::{
    R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32, Relocation, SHN_ABS, Section, Symbol, Target,
};

const SHF_MERGE: u64 = 0x10;
const SHF_STRINGS: u64 = 0x20;

/// What the compiler calls the part of a function that is seldom run.
const COLD: &str = ".cold";
/// Sections with what is only relocated: the hypervisor's linker puts them among its constants.
const RELOCATED_CONSTANTS: &str = ".data.rel.ro";

/// The longest text that is shown, in characters.
const LONGEST_SHOWN: usize = 60;
/// What an instruction costs of [`super::effort`].
pub(super) const INSTRUCTION: usize = 16;
/// More is not said of one function.
const MOST_MISMATCHES: usize = 8;

/// What is not the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Instructions.
    Code,
    /// Which entries of special sections are about it.
    Entries,
    /// What is referred to.
    Reference,
}

/// One place where payload and object differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mismatch {
    pub(super) way: Way,
    /// What of the function it is about, to be put in front of its name; empty for its own code.
    pub(super) part: &'static str,
    /// Bytes from the start of the function.
    pub(super) offset: u64,
    /// In words, by the object.
    pub(super) expected: String,
    /// In words, in place.
    pub(super) found: String,
}

/// Where an instruction is in an object, and the code that is compared with it.
struct Place {
    section: usize,
    range: std::ops::Range<u64>,
    at: u64,
}

/// Data of the object that has to be found at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Constant {
    object: usize,
    section: usize,
    offset: u64,
    size: u64,
    address: u64,
}

/// Code of an object, and where it is.
#[derive(Clone, Copy)]
pub(super) struct Part<'c> {
    pub(super) object: &'c Object<'c>,
    pub(super) twin: Twin,
    /// The name of the function that it belongs to, without what marks a part of it.
    root: &'c str,
}

/// Data that was reached, and from where.
struct Reached<'c> {
    constant: Constant,
    object: &'c Object<'c>,
    root: &'c str,
    place: u64,
    part: &'static str,
}

/// The comparison of one function.
pub(super) struct Comparison<'c> {
    object: &'c Object<'c>,
    names: &'c Names<'c>,
    applied: &'c Applied,
    /// The function's name without what marks a part of it.
    root: &'c str,
    part: &'static str,
    /// Where in the function the reference is through which something is reached.
    place: u64,
    /// Whether the reference is a direct call or jump.
    branches: bool,
    pending: Vec<Reached<'c>>,
    seen: BTreeSet<Constant>,
    parts: Vec<Part<'c>>,
    parts_seen: BTreeSet<(usize, Twin)>,
    /// Code that entries lead to, which may have entries of its own.
    pieces: Vec<Twin>,
    pieces_seen: BTreeSet<Twin>,
    /// Addresses of all code of the function.
    pub(super) covered: Vec<std::ops::Range<u64>>,
    /// References that lead where they have to.
    pub(super) references: usize,
    /// Constants and texts that are the same.
    pub(super) constants: usize,
    pub(super) mismatches: Vec<Mismatch>,
}

/// A function's name without `.cold` and the like.
pub(super) fn root(name: &str) -> &str {
    name.find(COLD).map_or(name, |end| &name[..end])
}

/// Whether a section holds what never changes.
fn is_constant(section: &Section<'_>) -> bool {
    !section.is_code() && (!section.is_writable() || section.name.starts_with(RELOCATED_CONSTANTS))
}

impl<'c> Comparison<'c> {
    pub(super) fn new(object: &'c Object<'c>, names: &'c Names<'c>, applied: &'c Applied) -> Comparison<'c> {
        Comparison {
            object,
            names,
            applied,
            root: "",
            part: "",
            place: 0,
            branches: false,
            pending: Vec::new(),
            seen: BTreeSet::new(),
            parts: Vec::new(),
            parts_seen: BTreeSet::new(),
            pieces: Vec::new(),
            pieces_seen: BTreeSet::new(),
            covered: Vec::new(),
            references: 0,
            constants: 0,
            mismatches: Vec::new(),
        }
    }

    fn image(&self) -> &'c Image {
        self.applied.image()
    }

    fn differ(&mut self, way: Way, expected: String, found: String) {
        if self.mismatches.len() < MOST_MISMATCHES {
            self.mismatches.push(Mismatch { way, part: self.part, offset: self.place, expected, found });
        }
    }

    /// Code that is to be compared: each once.
    pub(super) fn reach(&mut self, object: &'c Object<'c>, twin: Twin, root: &'c str) {
        if self.parts_seen.insert((object.number, twin)) {
            self.parts.push(Part { object, twin, root });
        }
    }

    /// Compares the next code that was reached.
    pub(super) fn next_part(&mut self) -> Option<Part<'c>> {
        let part = self.parts.pop()?;
        (self.object, self.root, self.part) = (part.object, part.root, "");
        let Twin { section, start, size, address } = part.twin;
        self.code(section, start, size, address);
        Some(part)
    }

    /// Entries may be about this code, too.
    pub(super) fn also(&mut self, code: Option<Twin>) {
        let code = code.filter(|code| self.pieces_seen.insert(*code));
        self.pieces.extend(code);
    }

    /// Code that entries of the last function or piece lead to: each once.
    pub(super) fn next_piece(&mut self) -> Option<Twin> {
        self.pieces.pop()
    }

    /// Compares all data that was reached. Whether further code was.
    pub(super) fn constants(&mut self) -> bool {
        while let Some(reached) = self.pending.pop()
            && self.names.effort.spend(1)
        {
            (self.object, self.root, self.branches) = (reached.object, reached.root, false);
            (self.place, self.part) = (reached.place, reached.part);
            self.constant(reached.constant);
        }
        !self.parts.is_empty()
    }

    /// What follows is about an entry of a special section for a place of the function.
    pub(super) fn entry(&mut self, part: &'static str, offset: u64) {
        (self.part, self.place) = (part, offset);
    }

    /// Whether so many entries may still be looked at.
    pub(super) fn may_look_at(&self, entries: usize) -> bool {
        self.names.effort.spend(entries)
    }

    /// Whether both have the same entries of a kind for this function.
    pub(super) fn same_entries<K: PartialEq>(&mut self, what: &str, own: &[K], here: &[K]) -> bool {
        let same = own == here;
        if !same {
            (self.part, self.place) = ("", 0);
            let expected = if own.len() == here.len() { "others".into() } else { own.len().to_string() };
            self.differ(Way::Entries, expected, format!("{} {what}", here.len()));
        }
        same
    }

    /// Compares code that an entry leads to: that of the object at a place of it with what is at an address.
    pub(super) fn code_at(&mut self, own: Target, size: u64, address: Option<u64>) {
        let place = self.place;
        match (own, address) {
            (Target::Section { section, offset: start @ 0.. }, Some(address)) => {
                self.code(section, start.cast_unsigned(), size, address);
            }
            _ => self.differ(Way::Reference, "some code".into(), "none".into()),
        }
        self.place = place;
    }

    /// Whether an entry leads where the object's does.
    pub(super) fn leads(&mut self, own: Target, address: Option<u64>) {
        let object = self.object;
        match (own, address) {
            (Target::Section { section, offset }, Some(address)) => {
                let named = self.around(section, offset);
                self.within(&named, section, offset, address);
            }
            (Target::Undefined { symbol, addend }, Some(address)) => {
                if let Some(symbol) = object.elf.symbols.get(symbol) {
                    self.outside(symbol, addend, address);
                }
            }
            _ => self.differ(Way::Reference, "something".into(), "nothing".into()),
        }
    }

    fn code(&mut self, section: usize, start: u64, size: u64, address: u64) {
        let object = self.object;
        let bytes = object.elf.sections.get(section).and_then(|s| s.data);
        // All arithmetic below stays in the section.
        let Some(bytes) = bytes.and_then(|data| crate::elf::slice(data, start, size)) else {
            return self.differ(Way::Code, "code that is not in its file".into(), "some".into());
        };
        let mut at = 0;
        while at < size && self.names.effort.spend(INSTRUCTION) {
            self.place = at;
            let Some(found) = follow::instruction(self.image(), address.wrapping_add(at)) else {
                return self.differ(Way::Code, "an instruction".into(), "none".into());
            };
            let end = (at + found.len() as u64).min(size);
            let fields: Vec<&Relocation> = object.relocations(section, start + at..start + end).collect();
            let own = &bytes[at as usize..end as usize];
            let here = self.image().at(address.wrapping_add(at), own.len());
            let in_field = |i: usize| {
                let place = start + at + i as u64;
                fields.iter().any(|field| (field.offset..field.offset + width(field)).contains(&place))
            };
            let same = |i: usize| in_field(i) || here.get(i) == own.get(i);
            let own_place = Place { section, range: start..start + size, at: start + at };
            self.branches = found.near_branch_target() != 0;
            if fields.is_empty()
                && self.literal(&found, own, here, &own_place, address..address.wrapping_add(size))
            {
                at = end;
                continue;
            }
            if !(0..own.len()).all(same) {
                let (own, here) = (crate::elf::hex(own), crate::elf::hex(here));
                // What follows is out of step.
                return self.differ(Way::Code, own, format!("{here} ({found})"));
            }
            for field in &fields {
                let behind = start + end - field.offset;
                let target = lands(&found, field)
                    .or_else(|| self.value(field, address.wrapping_add(field.offset - start), behind));
                self.reference(field, behind, target);
            }
            at = end;
        }
    }

    /// Something that is not relocated and leaves the function, here or in the object, leads to the same. Whether it is
    /// such.
    /// What stays in the function, or leads to just behind a replacement, which is where it goes on, has the same bytes.
    fn literal(
        &mut self,
        found: &Instruction,
        own: &[u8],
        here: &[u8],
        place: &Place,
        function: std::ops::Range<u64>,
    ) -> bool {
        // Far enough from 0, which means no target.
        const BIAS: u64 = 1 << 40;
        let mut decoder = Decoder::with_ip(64, own, place.at.wrapping_add(BIAS), DecoderOptions::NONE);
        let instruction = decoder.decode();
        let (Some(own_target), Some(target)) = (branch_of(&instruction), branch_of(found)) else {
            return false;
        };
        let own_target = own_target.wrapping_sub(BIAS);
        let stays =
            |target: u64, range: &std::ops::Range<u64>| range.contains(&target) || target == range.end;
        if stays(own_target, &place.range) && stays(target, &function) {
            return false;
        }
        let fields = decoder.get_constant_offsets(&instruction);
        let (at, size) = match instruction.near_branch_target() {
            0 => (fields.displacement_offset(), fields.displacement_size()),
            _ => (fields.immediate_offset(), fields.immediate_size()),
        };
        let same = |i: usize| (at..at + size).contains(&i) || own.get(i) == here.get(i);
        if found.code() != instruction.code() || !(0..own.len()).all(same) {
            let found = format!("{} by a literal displacement", self.names.shown(target));
            self.differ(Way::Reference, "a place inside".into(), found);
            return true;
        }
        let offset = own_target.cast_signed();
        let named = self.around(place.section, offset);
        self.within(&named, place.section, offset, target);
        true
    }

    /// What a relocated field in place refers to, if `behind` bytes from its start the displacement counts.
    fn value(&self, field: &Relocation, address: u64, behind: u64) -> Option<u64> {
        match field.kind {
            R_X86_64_64 => crate::elf::u64_at(self.image().at(address, 8), 0),
            R_X86_64_PC32 | R_X86_64_PLT32 => {
                let raw = crate::elf::u32_at(self.image().at(address, 4), 0)? as i32;
                Some(address.wrapping_add(behind).wrapping_add_signed(i64::from(raw)))
            }
            _ => None,
        }
    }

    fn reference(&mut self, field: &Relocation, behind: u64, target: Option<u64>) {
        if !self.names.effort.spend(1) {
            return;
        }
        let Some(symbol) = self.object.elf.symbols.get(field.symbol).filter(|_| field.symbol != 0) else {
            return self.differ(Way::Reference, "no symbol".into(), "something".into());
        };
        let Some(target) = target else {
            let found = format!("a field of relocation type {}", field.kind);
            return self.differ(
                Way::Reference,
                format!("{} in a form that no payload has", symbol.name),
                found,
            );
        };
        let counts = if field.kind == R_X86_64_64 { 0 } else { behind };
        let delta = field.addend.wrapping_add_unsigned(counts);
        match symbol.section {
            0 => self.outside(symbol, delta, target),
            SHN_ABS => {
                let expected = symbol.value.wrapping_add_signed(delta);
                self.judge(expected == target, format!("{expected:#x}"), target);
            }
            section => self.inside(symbol, section, symbol.value.cast_signed().wrapping_add(delta), target),
        }
    }

    fn judge(&mut self, fine: bool, expected: String, target: u64) {
        if fine {
            self.references += 1;
        } else {
            let found = self.names.shown(target);
            self.differ(Way::Reference, expected, found);
        }
    }

    /// Something of another object.
    fn outside(&mut self, symbol: &Symbol<'c>, delta: i64, target: u64) {
        let wanted = Wanted { name: symbol.name, local: false, file: None };
        let address = target.wrapping_add_signed(delta.wrapping_neg());
        // Others come to a replacement through the original.
        let fine = self.names.is(address, &wanted) && !self.applied.is_replacement(address);
        if !fine && self.is_nameless(address) && self.changed_constant(&wanted, address) {
            return;
        }
        self.judge(fine, shown_at(&wanted, delta), target);
    }

    /// Memory of the payload that has no name.
    fn is_nameless(&self, address: u64) -> bool {
        self.names.owner(address) == Owner::Payload && !self.names.is_named(address)
    }

    /// Constants of other objects that were changed have no name in a payload: their content tells.
    fn changed_constant(&mut self, wanted: &Wanted<'_>, address: u64) -> bool {
        let Some(&(object, symbol)) = self.names.definitions.get(wanted.name) else { return false };
        let home = object.elf.sections.get(symbol.section).filter(|home| is_constant(home));
        if let Some(home) = home {
            self.references += 1;
            self.push(object, whole(symbol, home), address);
        }
        home.is_some()
    }

    fn around(&self, section: usize, offset: i64) -> Vec<&'c Symbol<'c>> {
        if self.names.effort.is_spent() {
            return Vec::new();
        }
        let found = self.object.around(section, offset);
        // Those of one place may be many.
        self.names.effort.spend(found.len());
        found
    }

    /// Something of the object itself.
    fn inside(&mut self, symbol: &'c Symbol<'c>, section: usize, offset: i64, target: u64) {
        if let Some((start, delta)) = self.anchor(symbol, section, offset)
            && let Some(home) = self.object.elf.sections.get(section)
        {
            return self.nameless(home, start, target.wrapping_add_signed(delta.wrapping_neg()));
        }
        let mut named = if is_name(symbol) { vec![symbol] } else { self.around(section, offset) };
        // Something else without a name may lie behind a constant.
        let is_behind = |s: &&Symbol<'c>| s.size > 0 && offset > s.value.saturating_add(s.size).cast_signed();
        if !is_name(symbol) && self.object.elf.sections.get(section).is_some_and(is_constant) {
            named.retain(|symbol| !is_behind(symbol));
        }
        self.within(&named, section, offset, target);
    }

    /// The text that a label stands for, and how far from its start a place is that is outside of it.
    fn anchor(&self, symbol: &Symbol<'c>, section: usize, offset: i64) -> Option<(i64, i64)> {
        let home = self.object.elf.sections.get(section)?;
        if home.flags & SHF_STRINGS == 0 || symbol.kind == SECTION {
            return None;
        }
        let text = home.data?.get(usize::try_from(symbol.value).ok()?..)?;
        let unit = unit_of(home);
        let end = end_of(text, unit)? + unit;
        let start = symbol.value.cast_signed();
        let delta = offset.wrapping_sub(start);
        let is_inside = (0..end as i64).contains(&delta);
        (!is_inside && self.names.effort.spend(end)).then_some((start, delta))
    }

    /// Something of the object itself: by its name where it has one, else by its content.
    fn within(&mut self, named: &[&'c Symbol<'c>], section: usize, offset: i64, target: u64) {
        let object = self.object;
        let Some(home) = object.elf.sections.get(section) else {
            return self.differ(Way::Reference, "no section".into(), self.names.shown(target));
        };
        let is_function = named.iter().any(|symbol| symbol.kind == FUNC);
        if home.is_code() && !is_function && self.is_nameless(target) {
            return self.aside(section, offset, target);
        }
        if named.is_empty() || home.flags & SHF_STRINGS != 0 {
            return self.nameless(home, offset, target);
        }
        let expected = {
            let first = named[0];
            shown_at(&object.wanted(first), offset.wrapping_sub(first.value.cast_signed()))
        };
        let fine = named.iter().find(|symbol| self.is_it(symbol, home, offset, target)).copied();
        self.judge(fine.is_some(), expected, target);
        let Some(symbol) = fine else { return };
        let delta = offset.wrapping_sub(symbol.value.cast_signed());
        let address = target.wrapping_add_signed(delta.wrapping_neg());
        if home.is_code() {
            if self.is_nameless(address) || symbol.name.contains(COLD) {
                self.reach(object, Twin::of(object, symbol, address), root(symbol.name));
            }
        } else if is_constant(home) || self.names.owner(address) == Owner::Payload {
            // What may be written is only in a payload as it is in the file.
            self.push(object, whole(symbol, home), address);
        }
    }

    /// Code that inline assembler puts aside, up to where it leaves: it belongs to the function that leads there.
    fn aside(&mut self, section: usize, offset: i64, target: u64) {
        let object = self.object;
        let size = special::straight_line(self, object, Target::Section { section, offset });
        let start = u64::try_from(offset).ok();
        self.judge(size.is_some() && start.is_some(), "code aside".into(), target);
        if let (Some(start), Some(size)) = (start, size) {
            self.reach(object, Twin { section, start, size, address: target }, self.root);
        }
    }

    /// Whether a place is where an object's symbol leads.
    fn is_it(&self, symbol: &Symbol<'c>, home: &Section<'_>, offset: i64, target: u64) -> bool {
        let delta = offset.wrapping_sub(symbol.value.cast_signed());
        let address = target.wrapping_add_signed(delta.wrapping_neg());
        let owner = self.names.owner(address);
        let wanted = self.object.wanted(symbol);
        // Variables that the hypervisor has are the hypervisor's.
        let writable = !home.is_code() && !is_constant(home);
        if writable && owner == Owner::Payload && !self.is_new(symbol, &wanted) {
            return false;
        }
        // What data holds, or code takes the address of, is the original, which is there after a revert.
        let survives = self.branches || !self.applied.is_replacement(address);
        if !self.names.is(address, &wanted) {
            // Nor have changed constants and new variables a name in a payload, if the hypervisor or another object has
            // that name; nor new functions, and parts of functions. Their content tells.
            let own_part = symbol.name.contains(COLD) && root(symbol.name) == self.root;
            let own_code = own_part || (symbol.kind == FUNC && symbol.binding == 0);
            let nameless = owner == Owner::Payload && !self.names.is_named(address);
            return nameless && survives && (!home.is_code() || own_code);
        }
        if !home.is_code() {
            return true;
        }
        let own = root(symbol.name) == self.root;
        if own && (delta != 0 || symbol.name.contains(COLD)) {
            // Parts of a function belong to the new one.
            return owner == Owner::Payload;
        }
        if own { survives } else { !self.applied.is_replacement(address) }
    }

    /// Whether the payload may bring a variable: the object has more of that name than there are, numbers aside.
    fn is_new(&self, symbol: &Symbol<'c>, wanted: &Wanted<'c>) -> bool {
        let all = &self.object.elf.symbols;
        let same = |other: &&Symbol<'_>| {
            let defined = is_name(other) && !other.is_undefined() && other.binding == symbol.binding;
            defined && plain_stem(other.name) == plain_stem(symbol.name)
        };
        self.names.effort.spend(all.len());
        let own = if wanted.local { all.iter().filter(same).count() } else { 1 };
        own > self.names.count_elsewhere(wanted)
    }

    /// Something without a name: a text, or a constant.
    fn nameless(&mut self, home: &Section<'_>, offset: i64, target: u64) {
        let Ok(offset) = u64::try_from(offset) else {
            let found = self.names.shown(target);
            return self.differ(Way::Reference, format!("a place in front of {}", home.name), found);
        };
        if home.flags & SHF_STRINGS != 0 {
            return self.text(home, offset, target);
        }
        let rest = self.object.next_named(home.index, offset).saturating_sub(offset);
        let size = match home.entsize {
            entry @ 1.. if home.flags & SHF_MERGE != 0 => (entry - offset % entry).min(rest),
            _ => rest,
        };
        let fine = size > 0 && is_constant(home);
        self.judge(fine, format!("{}+{offset:#x}", home.name), target);
        if fine {
            self.push(self.object, (home.index, offset, size), target);
        }
    }

    fn text(&mut self, home: &Section<'_>, offset: u64, target: u64) {
        let unit = unit_of(home);
        let until_nul = |bytes: &[u8]| end_of(bytes, unit);
        let rest = home.data.and_then(|data| data.get(usize::try_from(offset).ok()?..));
        let Some(own) = rest.and_then(|rest| rest.get(..until_nul(rest)?)) else {
            return self.differ(Way::Reference, "no text".into(), self.names.shown(target));
        };
        if !self.names.effort.spend(own.len()) {
            return;
        }
        let image = self.image();
        let here = image.at(target, own.len() + unit);
        if here.len() == own.len() + unit
            && here.starts_with(own)
            && here[own.len()..].iter().all(|&b| b == 0)
        {
            self.references += 1;
            self.constants += 1;
        } else {
            let here = image.at(target, unit * (1 + 4 * LONGEST_SHOWN));
            let found = match until_nul(here) {
                Some(end) => format!("the text {}", quoted(&here[..end])),
                None => self.names.shown(target),
            };
            self.differ(Way::Reference, format!("the text {}", quoted(own)), found);
        }
    }

    fn other_data(&mut self, home: &Section<'_>, constant: Constant) {
        let expected = format!("what {}+{:#x} holds", home.name, constant.offset);
        let found = format!("other data, {}", self.names.shown(constant.address));
        self.differ(Way::Reference, expected, found);
    }

    fn push(&mut self, object: &'c Object<'c>, (section, offset, size): (usize, u64, u64), address: u64) {
        let constant = Constant { object: object.number, section, offset, size, address };
        if self.seen.insert(constant) {
            let Comparison { root, place, part, .. } = *self;
            self.pending.push(Reached { constant, object, root, place, part });
        }
    }

    /// Data: the same bytes, and the same references.
    fn constant(&mut self, constant: Constant) {
        let Constant { section, offset, size, address, .. } = constant;
        let object = self.object;
        let Some(home) = object.elf.sections.get(section) else { return };
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        let here = self.image().at(address, length);
        // What is not there costs nothing, whatever size it should have.
        if here.len() != length {
            return self.other_data(home, constant);
        }
        if !self.names.effort.spend(length) {
            return;
        }
        let fields: Vec<&Relocation> =
            object.relocations(section, offset..offset.saturating_add(size)).collect();
        // Without contents it begins as zeroes; in the hypervisor, those are not in the file either.
        let own = home.data.map(|data| crate::elf::slice(data, offset, size).unwrap_or_default());
        let mut in_field = vec![false; length];
        for field in &fields {
            let start = (field.offset - offset) as usize;
            let end = (start + width(field) as usize).min(length);
            in_field[start..end].fill(true);
        }
        let byte = |i: usize| own.map_or(Some(0), |own| own.get(i).copied());
        if !(0..length).all(|i| in_field[i] || Some(here[i]) == byte(i)) {
            return self.other_data(home, constant);
        }
        self.constants += 1;
        for field in fields {
            let target = self.value(field, address.wrapping_add(field.offset - offset), 0);
            self.reference(field, 0, target);
        }
    }
}

/// All of what a symbol stands for: section, start and size.
fn whole(symbol: &Symbol<'_>, home: &Section<'_>) -> (usize, u64, u64) {
    let rest = home.size.saturating_sub(symbol.value);
    let size = if symbol.size == 0 { rest } else { symbol.size.min(rest) };
    (home.index, symbol.value, size)
}

/// Bytes of each character of a section's texts.
fn unit_of(home: &Section<'_>) -> usize {
    usize::try_from(home.entsize).unwrap_or(1).clamp(1, 8)
}

/// Bytes of a text up to the character that ends it.
fn end_of(text: &[u8], unit: usize) -> Option<usize> {
    let characters = text.chunks_exact(unit).position(|character| character.iter().all(|&byte| byte == 0));
    characters.map(|characters| characters * unit)
}

/// Bytes of a relocated field.
fn width(field: &Relocation) -> u64 {
    match field.kind {
        R_X86_64_64 => 8,
        _ => 4,
    }
}

/// Where a direct call or jump goes, or what is read relative to the instruction.
fn branch_of(found: &Instruction) -> Option<u64> {
    match found.near_branch_target() {
        0 => found.is_ip_rel_memory_operand().then(|| found.ip_rel_memory_address()),
        target => Some(target),
    }
}

/// Where an instruction's relative field leads, as it is decoded.
fn lands(found: &Instruction, field: &Relocation) -> Option<u64> {
    matches!(field.kind, R_X86_64_PC32 | R_X86_64_PLT32).then(|| branch_of(found)).flatten()
}

fn shown_at(wanted: &Wanted<'_>, delta: i64) -> String {
    match delta {
        0 => wanted.shown(),
        1.. => format!("{}+{delta:#x}", wanted.shown()),
        _ => format!("{}-{:#x}", wanted.shown(), delta.unsigned_abs()),
    }
}

fn quoted(text: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(text).chars().take(LONGEST_SHOWN).collect();
    format!("{text:?}")
}
