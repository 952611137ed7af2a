//! What code and data mean, apart from where things happen to stand.
//!
//! Two pieces of code mean the same when their instructions are equal with all relocated fields taken out, and
//! when every such field refers to the same thing: a name, a string or constant by its content, a place in the
//! same function, or bytes without a name by their content.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use iced_x86::{Decoder, DecoderOptions, Instruction, OpKind};
use xsplice_objects::{Class, Home, Object, RelocKind, Relocation, Section, SectionId, Special, SymbolKind};

use crate::entries::{Entry, Spot};
use crate::items::{ItemId, ItemKind, Items};
use crate::names;

/// What a reference refers to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Meaning {
    /// A name that all objects share, and the distance from it in bytes.
    Global(String, i64),
    /// A name of this object, and the distance from it in bytes.
    Local(String, i64),
    /// Something that only the patched object has, and the distance from it in bytes.
    New(String, i64),
    /// A place in a fragment of the function that refers to it.
    Inside(String, i64),
    /// A string, from the place referred to up to its NUL.
    Text(Vec<u8>),
    /// A merged constant, and the distance from its start in bytes; or a string, and the distance of a place that
    /// lies outside.
    Constant(Vec<u8>, i64),
    /// Bytes without a name, and the distance from their start in bytes.
    Bytes(Box<Content>, i64),
    /// Bytes that are already being described, so many levels up.
    Loop(usize, i64),
    /// Something that the linker throws away.
    Discarded(String, i64),
}

/// Bytes with their references.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Content {
    /// The bytes; relocated fields are zero.
    pub bytes: Vec<u8>,
    /// Relocated fields in ascending order of their offset in `bytes`.
    pub references: Vec<(u64, RelocKind, Meaning)>,
    /// Where the first undecodable instruction starts.
    pub undecodable: Option<u64>,
}

/// The meaning of a special-section entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryMeaning {
    /// Which table.
    pub table: Special,
    /// Its bytes; relocated fields are zero.
    pub bytes: Vec<u8>,
    /// Offset in the entry, what is added for the line number, and where it points.
    pub fields: Vec<(u64, i64, Meaning)>,
}

/// The meaning of a function: its fragments and what describes them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint {
    /// Fragment names without counters, the function's own code first.
    pub fragments: Vec<(String, Content)>,
    /// What describes them, in order of the tables and of the code.
    pub entries: Vec<EntryMeaning>,
}

/// How an item is spoken of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Known {
    /// By a name that all objects share.
    Global(String),
    /// By a name of this object, as the original has it.
    Local(String),
    /// By its name in the patched object, since the original has nothing that corresponds.
    New(String),
    /// By what it holds.
    Content,
}

/// An object's items, and how they are spoken of.
#[derive(Clone)]
pub struct View<'o> {
    /// The items.
    pub items: &'o Items<'o>,
    known: Vec<Known>,
    /// Read-only data that changed: code that refers to it is to be told from code that refers to the original's.
    changed: BTreeSet<ItemId>,
    /// The same in other objects.
    changed_names: Arc<BTreeSet<String>>,
}

/// How deep content may lie in content before it is taken for a loop; Xen's tables need two levels.
const MAX_DEPTH: usize = 16;

impl<'o> View<'o> {
    /// A view in which every item has the name that it has in its own object.
    pub fn plain(items: &'o Items<'o>) -> View<'o> {
        let known = items
            .iter()
            .map(|(_, item)| {
                if matches!(item.kind, ItemKind::Blob | ItemKind::Aside) || item.local && is_by_content(item)
                {
                    Known::Content
                } else if item.local {
                    Known::Local(item.name.clone())
                } else {
                    Known::Global(item.name.clone())
                }
            })
            .collect();
        View { items, known, changed: BTreeSet::new(), changed_names: Arc::default() }
    }

    /// How an item is spoken of.
    pub fn known(&self, id: ItemId) -> &Known {
        &self.known[id.0]
    }

    /// Changes how an item is spoken of.
    pub fn rename(&mut self, id: ItemId, known: Known) {
        self.known[id.0] = known;
    }

    /// Takes an item for another one than the original's.
    pub(crate) fn mark_changed(&mut self, id: ItemId) {
        self.changed.insert(id);
    }

    /// Takes what other objects have under these names for something else than the original has.
    pub(crate) fn mark_names_changed(&mut self, names: Arc<BTreeSet<String>>) {
        self.changed_names = names;
    }

    /// The same view as if no data had changed.
    pub(crate) fn without_marks(&self) -> View<'o> {
        View { changed: BTreeSet::new(), changed_names: Arc::default(), ..self.clone() }
    }

    fn object(&self) -> &'o Object {
        self.items.object
    }

    /// Where a relocation points; `adjust` turns a field's value into the address that the instruction uses.
    pub fn spot(&self, relocation: &Relocation, adjust: i64) -> Spot {
        let symbol = self.object().symbol(relocation.symbol);
        let offset = relocation.addend + adjust;
        match symbol.home {
            Home::Section(id) => {
                let offset = offset + symbol.value.cast_signed();
                Spot { section: Some(id), symbol: relocation.symbol.0, offset }
            }
            _ => Spot { section: None, symbol: relocation.symbol.0, offset },
        }
    }

    /// What a place means to code of `unit`.
    pub fn meaning(&self, spot: Spot, unit: Option<ItemId>) -> Meaning {
        self.meaning_in(spot, unit, &mut Vec::new())
    }

    fn meaning_in(&self, spot: Spot, unit: Option<ItemId>, path: &mut Vec<ItemId>) -> Meaning {
        let Some(section) = spot.section else {
            let name = self.object().symbols[spot.symbol].name.clone();
            if self.changed_names.contains(&name) {
                return Meaning::New(name, spot.offset);
            }
            return Meaning::Global(name, spot.offset);
        };
        match self.object().section(section).class {
            Class::Strings => {
                let (start, bytes) = string_at(self.object(), section, spot);
                let distance = spot.offset - start.cast_signed();
                if distance == 0 { Meaning::Text(bytes) } else { Meaning::Constant(bytes, distance) }
            }
            Class::Constants => {
                let (start, bytes) = constant_at(self.object(), section, spot);
                Meaning::Constant(bytes, spot.offset - start.cast_signed())
            }
            Class::Special(Special::Fixup) => {
                let (start, end) = fixup_range(self.object(), section, spot.offset);
                Meaning::Bytes(Box::new(self.code_in(section, start, end, unit, path)), 0)
            }
            Class::Special(_) | Class::Ignored | Class::Tables => {
                Meaning::Discarded(self.object().section(section).name.clone(), spot.offset)
            }
            _ => self.item_meaning(section, spot.offset, unit, path),
        }
    }

    fn item_meaning(
        &self,
        section: SectionId,
        offset: i64,
        unit: Option<ItemId>,
        path: &mut Vec<ItemId>,
    ) -> Meaning {
        let Some((id, distance)) = self.items.at(section, offset) else {
            return Meaning::Discarded(self.object().section(section).name.clone(), offset);
        };
        let item = self.items.get(id);
        if unit.is_some_and(|unit| self.items.head(id) == unit) {
            return Meaning::Inside(fragment_name(self.items, id), distance);
        }
        if item.kind == ItemKind::Aside {
            let (start, end) = self.items.aside_range(section, offset);
            if path.contains(&id) {
                return Meaning::Loop(0, offset - start.cast_signed());
            }
            path.push(id);
            let content = self.code_in(section, start, end, unit, path);
            path.pop();
            return Meaning::Bytes(Box::new(content), offset - start.cast_signed());
        }
        if self.changed.contains(&id) {
            return Meaning::New(item.name.clone(), distance);
        }
        match self.known(id) {
            Known::Global(name) => Meaning::Global(name.clone(), distance),
            Known::Local(name) => Meaning::Local(name.clone(), distance),
            Known::New(name) => Meaning::New(name.clone(), distance),
            Known::Content => {
                if let Some(level) = path.iter().rev().position(|&other| other == id) {
                    return Meaning::Loop(level, distance);
                }
                if path.len() >= MAX_DEPTH {
                    return Meaning::Loop(path.len(), distance);
                }
                path.push(id);
                let content = match item.class {
                    Class::Text | Class::InitText => {
                        self.code_in(item.section, item.start, item.end, unit, path)
                    }
                    _ => self.data_in(id, unit, path),
                };
                path.pop();
                Meaning::Bytes(Box::new(content), distance)
            }
        }
    }

    /// The content of a data item or blob.
    pub fn data(&self, id: ItemId, unit: Option<ItemId>) -> Content {
        self.data_in(id, unit, &mut vec![id])
    }

    fn data_in(&self, id: ItemId, unit: Option<ItemId>, path: &mut Vec<ItemId>) -> Content {
        let item = self.items.get(id);
        let section = self.object().section(item.section);
        let mut bytes = section.bytes(item.start, item.end).into_owned();
        let mut references = Vec::new();
        for relocation in section.relocations_in(item.start, item.end) {
            // A distance is measured from the field: tables of distances count from the table's start.
            let adjust = if relocation.kind.is_relative() {
                -(relocation.offset - item.start).cast_signed()
            } else {
                0
            };
            let field = relocation.offset - item.start;
            blank(&mut bytes, field, relocation.kind);
            let meaning = self.meaning_in(self.spot(relocation, adjust), unit, path);
            references.push((field, relocation.kind, meaning));
        }
        Content { bytes, references, undecodable: None }
    }

    /// The content of code in a section.
    pub fn code(&self, section: SectionId, start: u64, end: u64, unit: Option<ItemId>) -> Content {
        self.code_in(section, start, end, unit, &mut Vec::new())
    }

    fn code_in(
        &self,
        id: SectionId,
        start: u64,
        end: u64,
        unit: Option<ItemId>,
        path: &mut Vec<ItemId>,
    ) -> Content {
        let section = self.object().section(id);
        let mut bytes = section.bytes(start, end).into_owned();
        let relocations = section.relocations_in(start, end);
        let Decoded { ends, undecodable, loose } = decode(&bytes, relocations, start);
        let mut references = Vec::new();
        for relocation in relocations {
            let field = relocation.offset - start;
            blank(&mut bytes, field, relocation.kind);
            let adjust = match ends.get(&relocation.offset) {
                Some(end) if relocation.kind.is_relative() => (end - relocation.offset).cast_signed(),
                _ => 0,
            };
            let meaning = self.meaning_in(self.spot(relocation, adjust), unit, path);
            references.push((field, relocation.kind, meaning));
        }
        for loose in loose.iter().filter(|loose| loose.leaves(section, end)) {
            let field = loose.field - start;
            blank(&mut bytes, field, loose.kind);
            references.push((field, loose.kind, self.meaning_in(loose.spot(id), unit, path)));
        }
        references.sort_by_key(|(field, _, _)| *field);
        Content { bytes, references, undecodable }
    }

    /// The meaning of a function and of what describes it.
    pub fn fingerprint(&self, head: ItemId, entries: &BTreeMap<ItemId, Vec<Entry>>) -> Fingerprint {
        let mut fragments = Vec::new();
        let mut described = Vec::new();
        for id in self.items.fragments(head) {
            let item = self.items.get(id);
            let content = self.code(item.section, item.start, item.end, Some(head));
            fragments.push((fragment_name(self.items, id), content));
            for entry in entries.get(&id).into_iter().flatten() {
                described.push(self.entry(entry, Some(head)));
            }
            for (aside, start, end) in self.asides_of(id) {
                let inside =
                    |entry: &&Entry| (start..end).contains(&entry.fields[0].spot.offset.cast_unsigned());
                for entry in entries.get(&aside).into_iter().flatten().filter(inside) {
                    described.push(self.entry(entry, Some(head)));
                }
            }
        }
        fragments[1..].sort();
        described.sort();
        Fingerprint { fragments, entries: described }
    }

    /// The pieces of code put aside that a function's fragment jumps to: item, start and end in the section.
    pub fn asides_of(&self, id: ItemId) -> BTreeSet<(ItemId, u64, u64)> {
        if !self.items.has_asides() {
            return BTreeSet::new();
        }
        let item = self.items.get(id);
        let section = self.object().section(item.section);
        let relocations = section.relocations_in(item.start, item.end);
        let ends = decode(&section.bytes(item.start, item.end), relocations, item.start).ends;
        let mut found = BTreeSet::new();
        for relocation in relocations {
            let Some(end) = ends.get(&relocation.offset) else { continue };
            let spot = self.spot(relocation, (end - relocation.offset).cast_signed());
            let Some(section) = spot.section else { continue };
            if let Some((id, _)) = self.items.at(section, spot.offset)
                && self.items.get(id).kind == ItemKind::Aside
            {
                let (start, end) = self.items.aside_range(section, spot.offset);
                found.insert((id, start, end));
            }
        }
        found
    }

    /// The meaning of an entry to code of `unit`.
    pub fn entry(&self, entry: &Entry, unit: Option<ItemId>) -> EntryMeaning {
        let section = self.object().section(entry.section);
        let mut bytes = section.bytes(entry.start, entry.start + entry.size).into_owned();
        let mut fields = Vec::new();
        for field in &entry.fields {
            blank(&mut bytes, field.offset, field.kind);
        }
        for (index, field) in entry.fields.iter().enumerate() {
            let meaning = match (entry.table, index, field.spot.section) {
                (Special::Alternatives, 1, Some(section)) => {
                    let start = field.spot.offset.max(0).cast_unsigned();
                    let content = self.code(section, start, start + replacement_len(&bytes), unit);
                    Meaning::Bytes(Box::new(content), 0)
                }
                _ => self.meaning(field.spot, unit),
            };
            fields.push((field.offset, field.bias, meaning));
        }
        EntryMeaning { table: entry.table, bytes, fields }
    }
}

/// `repl_len` of struct alt_instr (xen/arch/x86/include/asm/alternative.h, 4.13 to 4.22), in bytes.
pub(crate) fn replacement_len(entry: &[u8]) -> u64 {
    entry.get(11).copied().unwrap_or(0).into()
}

fn is_by_content(item: &crate::items::Item) -> bool {
    item.class == Class::ReadOnly && (names::is_by_content(&item.name) || names::is_numbered(&item.name))
}

/// The name of a fragment in its function; empty for the function's own part.
pub(crate) fn fragment_name(items: &Items<'_>, id: ItemId) -> String {
    // The head's own counter must not matter, or a clone that is renumbered would differ from itself.
    match items.get(id).unit {
        None => String::new(),
        Some(_) => names::unnumbered(&items.get(id).name).rsplit('.').next().unwrap_or("").to_owned(),
    }
}

/// Zeroes a relocated field.
pub(crate) fn blank(bytes: &mut [u8], field: u64, kind: RelocKind) {
    let from = usize::try_from(field).unwrap_or(usize::MAX);
    let end = bytes.len().min(from.saturating_add(kind.width() as usize));
    if let Some(field) = bytes.get_mut(from..end) {
        field.fill(0);
    }
}

/// What the instructions of a range of code say.
#[derive(Default)]
pub(crate) struct Decoded {
    /// For each relocated field the end of its instruction, both in bytes from the start of the section.
    pub(crate) ends: BTreeMap<u64, u64>,
    /// The first undecodable place in bytes from the start of the code.
    pub(crate) undecodable: Option<u64>,
    /// References that the assembler has resolved, since they stay in the section, and that are more than a jump
    /// inside the code.
    pub(crate) loose: Vec<Loose>,
}

/// A distance in an instruction that has no relocation. All in bytes from the start of the section.
pub(crate) struct Loose {
    /// The field that holds the distance.
    pub(crate) field: u64,
    /// What a relocation of that field would be: [`RelocKind::Pc32`], or [`RelocKind::Small`] for a short jump.
    pub(crate) kind: RelocKind,
    /// The end of the instruction, from which the distance counts.
    pub(crate) end: u64,
    /// Where it leads.
    pub(crate) target: i64,
}

impl Loose {
    /// Whether it refers to anything but the end of replacement or fixup code, which ends where it is left.
    pub(crate) fn leaves(&self, section: &Section, end: u64) -> bool {
        self.target != end.cast_signed() || matches!(section.class, Class::Text | Class::InitText)
    }

    /// Where it leads.
    pub(crate) fn spot(&self, section: SectionId) -> Spot {
        Spot { section: Some(section), symbol: 0, offset: self.target }
    }
}

fn loose(
    decoder: &Decoder<'_>,
    instruction: &Instruction,
    code: std::ops::Range<u64>,
    relocations: &[Relocation],
) -> Option<Loose> {
    let branch =
        matches!(instruction.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64);
    let target = if branch {
        instruction.near_branch_target()
    } else if instruction.is_ip_rel_memory_operand() {
        instruction.ip_rel_memory_address()
    } else {
        return None;
    };
    // The address of the code itself may be stored; a jump there is as good as any other inside.
    if code.contains(&target) && (branch || target != code.start) {
        return None;
    }
    let offsets = decoder.get_constant_offsets(instruction);
    let (at, width) = if branch {
        (offsets.immediate_offset(), offsets.immediate_size())
    } else {
        (offsets.displacement_offset(), offsets.displacement_size())
    };
    let field = instruction.ip() + at as u64;
    if relocations.iter().any(|relocation| relocation.offset == field) {
        return None;
    }
    let kind = if width == 4 { RelocKind::Pc32 } else { RelocKind::Small };
    Some(Loose { field, kind, end: instruction.next_ip(), target: target.cast_signed() })
}

/// Goes through the instructions of a range of code that starts at `start` of its section.
pub(crate) fn decode(code: &[u8], relocations: &[Relocation], start: u64) -> Decoded {
    let mut decoded = Decoded::default();
    let mut decoder = Decoder::with_ip(64, code, start, DecoderOptions::NONE);
    let mut next = 0;
    while decoder.can_decode() {
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            let at = instruction.ip() - start;
            // The trap byte of Xen 4.22's bug frames (UDB) is newer than the decoder.
            if code.get(at as usize) != Some(&0xd6) && decoded.undecodable.is_none() {
                decoded.undecodable = Some(at);
            }
            // The decoder's own idea of an invalid instruction's length would skip good ones.
            let step = (at + 1) as usize;
            if decoder.set_position(step).is_err() {
                break;
            }
            decoder.set_ip(start + step as u64);
            continue;
        }
        let first = next;
        while next < relocations.len() && relocations[next].offset < instruction.next_ip() {
            decoded.ends.insert(relocations[next].offset, instruction.next_ip());
            next += 1;
        }
        let range = start..start + code.len() as u64;
        decoded.loose.extend(loose(&decoder, &instruction, range, &relocations[first..next]));
    }
    decoded
}

/// The string at a place of a section of merged strings, up to its NUL: where it starts, and its bytes. A place
/// in front of the named string or behind it (compilers make those of `"..."[i - 1]`) belongs to that string.
pub(crate) fn string_at(object: &Object, id: SectionId, spot: Spot) -> (u64, Vec<u8>) {
    if let Some(start) = named_start(object, id, spot) {
        let (start, bytes) = string_from(object.section(id), start.cast_signed());
        let inside = start..start + bytes.len() as u64;
        if !inside.contains(&spot.offset.cast_unsigned()) {
            return (start, bytes);
        }
    }
    string_from(object.section(id), spot.offset)
}

/// Where the symbol stands that a relocation names, if it is one of that section and not the section's own.
fn named_start(object: &Object, id: SectionId, spot: Spot) -> Option<u64> {
    let symbol = object.symbols.get(spot.symbol)?;
    (symbol.home == Home::Section(id) && symbol.kind != SymbolKind::Section).then_some(symbol.value)
}

fn string_from(section: &Section, offset: i64) -> (u64, Vec<u8>) {
    let width = section.entry_size.clamp(1, 8) as usize;
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(section.data.len());
    let mut bytes = Vec::new();
    for unit in section.data[start..].chunks(width) {
        bytes.extend_from_slice(unit);
        if unit.iter().all(|&b| b == 0) {
            break;
        }
    }
    (start as u64, bytes)
}

/// The merged constant that a place belongs to: where it starts, and its bytes.
pub(crate) fn constant_at(object: &Object, id: SectionId, spot: Spot) -> (u64, Vec<u8>) {
    let section = object.section(id);
    let width = section.entry_size.max(1);
    let offset = match named_start(object, id, spot) {
        Some(start) => start,
        None => u64::try_from(spot.offset).unwrap_or(u64::MAX),
    };
    let start = offset.min(section.size) / width * width;
    (start, section.bytes(start, (start + width).min(section.size)).into_owned())
}

/// The fixup code at an offset of `.fixup`: up to the jump that leaves it. Both from the section's start.
pub(crate) fn fixup_range(object: &Object, id: SectionId, offset: i64) -> (u64, u64) {
    use iced_x86::FlowControl;
    let section = object.section(id);
    let start = u64::try_from(offset).unwrap_or(u64::MAX).min(section.size);
    let bytes = section.bytes(start, section.size);
    let mut end = section.size;
    for instruction in &mut Decoder::with_ip(64, &bytes, start, DecoderOptions::NONE) {
        let flow = instruction.flow_control();
        if matches!(
            flow,
            FlowControl::UnconditionalBranch | FlowControl::Return | FlowControl::IndirectBranch
        ) {
            end = instruction.next_ip();
            break;
        }
    }
    (start, end)
}
