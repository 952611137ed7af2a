//! References of replaced functions to what boot frees, where the original refers to it in the same way.
//!
//! Code that also runs during boot may use boot's code and data under a condition that no longer holds later, or only
//! compute with an address. The original does so and runs; whether the patch keeps the condition cannot be seen here,
//! so that a warning names each. Only the function's own instructions count. What the loader reads when the payload
//! is uploaded, such as the pointer of an altcall, is refused whatever the original does.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use iced_x86::{Decoder, DecoderOptions, Instruction, InstructionInfoFactory, OpAccess, OpKind};
use xsplice_objects::{RelocKind, Relocation, SectionId, Special};
use xsplice_report::{Diagnostic, Place};

use super::shipped::init_reference;
use super::{Key, Selector};
use crate::codes;
use crate::entries::{Entries, Spot};
use crate::guards::{self, Guard};
use crate::items::{ItemId, ItemKind};
use crate::meaning::{Meaning, View};
use crate::pieces::{PieceId, Target};

/// Bytes of a call site that the loader rewrites (`.alt_call_sites`, Xen 4.21 and later).
const CALL_SITE: i64 = 6;

/// What an instruction does with what it refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum How {
    /// It goes there, or calls it.
    Goes,
    /// It reads there.
    Reads,
    /// It writes there.
    Writes,
    /// It takes the address.
    Takes,
}

/// A way to refer to something. Two references of one way are the same to whoever loads the code.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    meaning: Meaning,
    kind: RelocKind,
    how: How,
    /// Bytes from the field to the end of its instruction.
    behind: u64,
}

/// A reference of an instruction.
struct Use {
    /// The section that holds the instruction.
    section: SectionId,
    /// Where the instruction starts, in bytes from the section's start.
    at: u64,
    /// Where its field starts, in bytes from the section's start.
    field: u64,
    spot: Spot,
    kind: RelocKind,
    how: How,
    behind: u64,
}

/// What is known of a reference to what boot frees that the original has too.
#[derive(Debug, Clone)]
pub(super) enum Kept {
    /// It may stay. Where its instruction starts, in bytes from the section's start.
    Stays(u64),
    /// A condition in front of it is gone. The same, and the name that the condition was about.
    Unguarded(u64, String),
}

/// Such references of one function, by the field's section and offset.
pub(super) type KeptFields = BTreeMap<(SectionId, u64), Kept>;

impl Selector<'_, '_> {
    /// Finds the references of a replaced function to what boot frees that its original has as well: the same thing
    /// in the same way, no more often, and on no fewer conditions.
    pub(super) fn kept_fields(&self, index: usize, head: ItemId) -> KeptFields {
        let correlated = &self.pair(index).correlated;
        let parts = correlated.parts;
        let Some(base) = correlated.counterpart[head.0] else { return KeptFields::new() };
        let rewritten = rewritten(&correlated.patched, &parts.patched_entries, head);
        let mut after: BTreeMap<Way, Vec<Use>> = BTreeMap::new();
        for one in uses(&correlated.patched, head) {
            let by_loader = rewritten
                .iter()
                .any(|(section, range)| *section == one.section && range.contains(&one.field.cast_signed()));
            if self.is_boots(index, one.spot) && !by_loader {
                after.entry(way(&correlated.patched, &one, head)).or_default().push(one);
            }
        }
        after.retain(|way, _| matches!(way.meaning, Meaning::Global(..) | Meaning::Local(..)));
        let mut before: BTreeMap<Way, Vec<Use>> = BTreeMap::new();
        if !after.is_empty() {
            for one in uses(&correlated.base, base) {
                before.entry(way(&correlated.base, &one, base)).or_default().push(one);
            }
        }
        before.retain(|way, uses| after.get(way).is_some_and(|after| after.len() <= uses.len()));
        after.retain(|way, _| before.contains_key(way));
        if after.is_empty() {
            return KeptFields::new();
        }
        // Both maps have the same ways now.
        let guards = |view, entries, head, uses: &BTreeMap<Way, Vec<Use>>| {
            let places: Vec<_> = uses.values().flatten().map(|one| (one.section, one.at)).collect();
            guards::of_places(view, entries, head, &places).into_iter()
        };
        let mut old = guards(&correlated.base, &parts.base_entries, base, &before);
        let mut new = guards(&correlated.patched, &parts.patched_entries, head, &after);
        let mut kept = KeptFields::new();
        for (way, uses) in after {
            let old: Vec<_> = old.by_ref().take(before[&way].len()).collect();
            let new: Vec<_> = new.by_ref().take(uses.len()).collect();
            let unguarded = unguarded(&old, &new);
            kept.extend(uses.into_iter().map(|one| {
                let stays = || Kept::Stays(one.at);
                let kept = unguarded.clone().map_or_else(stays, |about| Kept::Unguarded(one.at, about));
                ((one.section, one.field), kept)
            }));
        }
        kept
    }

    /// Whether a place of the patched object is something with a name that boot frees.
    fn is_boots(&self, index: usize, spot: Spot) -> bool {
        let items = &self.pair(index).correlated.parts.patched;
        match spot.section {
            None => {
                let name = &items.object.symbols[spot.symbol].name;
                let hypervisor = self.world.hypervisor;
                !self.globals.contains_key(name)
                    && !self.world.exported.contains(name)
                    && hypervisor.named(name).any(|shipped| hypervisor.is_init(shipped.address))
            }
            Some(section) => items.at(section, spot.offset).is_some_and(|(id, _)| {
                let item = items.get(id);
                item.class.is_init() && matches!(item.kind, ItemKind::Function | ItemKind::Data)
            }),
        }
    }

    /// What a field of a replaced function's own code becomes that refers to what boot frees, if it may stay; and the
    /// spot's own offset at which that starts. The outer `None` is for any other field.
    pub(super) fn kept_target(
        &mut self,
        index: usize,
        piece: PieceId,
        offset: u64,
        spot: Spot,
        unit: Option<ItemId>,
        by: &str,
    ) -> Option<Option<(Target, i64)>> {
        let items = &self.pair(index).correlated.parts.patched;
        let head = unit?;
        let kept = self.kept.get(&(index, head)).filter(|kept| !kept.is_empty())?;
        let own = |id: &ItemId| self.pieces.get(&Key::Item(index, *id)) == Some(&piece);
        let item = items.get(items.fragments(head).into_iter().find(own)?);
        let section = item.section;
        match kept.get(&(section, item.start + offset))?.clone() {
            Kept::Stays(at) => Some(self.refer_to_boot(index, spot, by, (section, at))),
            Kept::Unguarded(at, about) => {
                let place = self.place_of_code(index, by, section, at);
                let what = init_reference(by, &self.name_of(index, spot), place);
                let why = format!(
                    "The original has a condition on {about} in front of it, which the patch takes away or changes: the \
                     host would accept the payload and fault when the code runs."
                );
                self.refuse(what.why(why).advice("Keep that condition, or copy what is needed."));
                Some(None)
            }
        }
    }

    /// The name of a thing that a place belongs to.
    fn name_of(&self, index: usize, spot: Spot) -> String {
        let items = &self.pair(index).correlated.parts.patched;
        match spot.section {
            None => items.object.symbols[spot.symbol].name.clone(),
            Some(home) => {
                items.at(home, spot.offset).map_or_else(String::new, |(id, _)| items.get(id).name.clone())
            }
        }
    }

    fn refer_to_boot(
        &mut self,
        index: usize,
        spot: Spot,
        by: &str,
        (section, at): (SectionId, u64),
    ) -> Option<(Target, i64)> {
        let correlated = &self.pair(index).correlated;
        let items = &correlated.parts.patched;
        let name = self.name_of(index, spot);
        let (shipped, item, start) = match spot.section {
            None => (name.clone(), None, 0),
            Some(home) => {
                let (id, _) = items.at(home, spot.offset)?;
                let start = items.get(id).start.cast_signed();
                let base = correlated.counterpart[id.0]?;
                (self.shipped_name(index, base)?, Some((index, base)), start)
            }
        };
        let target = self.in_hypervisor(index, shipped, item, by, true)?;
        let place = self.place_of_code(index, by, section, at);
        self.warn_kept(by, &name, place);
        Some((target, start))
    }

    /// A place that names a function, with the source line of one of its instructions where that is known.
    fn place_of_code(&self, index: usize, by: &str, section: SectionId, at: u64) -> Place {
        let place = self.place(index, by);
        let debug = self.pair(index).correlated.parts.pair.patched_debug.as_ref();
        match debug.and_then(|debug| debug.line_in_section(section.0, at)) {
            Some((file, line)) => place.source(file, Some(line)),
            None => place,
        }
    }

    /// One warning for each function and each thing that it refers to.
    fn warn_kept(&mut self, by: &str, name: &str, place: Place) {
        let what = format!(
            "{by} refers to {name}, which is freed once the hypervisor has booted, as the original does"
        );
        let told = |d: &Diagnostic| {
            d.code == codes::INIT_REFERENCE_KEPT && d.what == what && d.place.object == place.object
        };
        if self.selection.problems.0.iter().any(told) {
            return;
        }
        self.selection.problems.push(
            Diagnostic::new(codes::INIT_REFERENCE_KEPT, what)
                .at(place)
                .why("The original never gets there after boot, or only computes with the address; the patch is trusted to keep it so.")
                .advice("See that the patch does not lead there after boot: the condition in front of that line must be as strict as before."),
        );
    }
}

/// Whether each new reference stands for an old one of its own whose conditions are all kept; if not, the name that a
/// missing condition is about.
fn unguarded(old: &[BTreeSet<Guard>], new: &[BTreeSet<Guard>]) -> Option<String> {
    let mut taken: Vec<Option<usize>> = vec![None; old.len()];
    for (index, guards) in new.iter().enumerate() {
        if !stands_for(old, new, index, &mut taken, &mut vec![false; old.len()]) {
            let missing = old.iter().flat_map(|old| old.difference(guards)).map(Guard::about).next();
            return Some(missing.unwrap_or_default());
        }
    }
    None
}

/// Finds an old reference for a new one, moving others to another old one of theirs where that helps.
fn stands_for(
    old: &[BTreeSet<Guard>],
    new: &[BTreeSet<Guard>],
    index: usize,
    taken: &mut [Option<usize>],
    tried: &mut [bool],
) -> bool {
    for candidate in 0..old.len() {
        if tried[candidate] || !old[candidate].is_subset(&new[index]) {
            continue;
        }
        tried[candidate] = true;
        if taken[candidate].is_none_or(|other| stands_for(old, new, other, taken, tried)) {
            taken[candidate] = Some(index);
            return true;
        }
    }
    false
}

/// The references of a function's own instructions, in all its fragments.
fn uses(view: &View<'_>, head: ItemId) -> Vec<Use> {
    let mut found = Vec::new();
    let mut factory = InstructionInfoFactory::new();
    for id in view.items.fragments(head) {
        let item = view.items.get(id);
        let section = view.items.object.section(item.section);
        let code = section.bytes(item.start, item.end);
        let mut decoder = Decoder::with_ip(64, &code, item.start, DecoderOptions::NONE);
        while decoder.can_decode() {
            let instruction = decoder.decode();
            if instruction.is_invalid() {
                // As in `meaning::decode`: one byte on.
                let at = (instruction.ip() - item.start) as usize + 1;
                if decoder.set_position(at).is_err() {
                    break;
                }
                decoder.set_ip(item.start + at as u64);
                continue;
            }
            for relocation in section.relocations_in(instruction.ip(), instruction.next_ip()) {
                let behind = instruction.next_ip() - relocation.offset;
                let adjust = if relocation.kind.is_relative() { behind.cast_signed() } else { 0 };
                found.push(Use {
                    section: item.section,
                    at: instruction.ip(),
                    field: relocation.offset,
                    spot: view.spot(relocation, adjust),
                    kind: relocation.kind,
                    how: how(&decoder, &instruction, relocation, &mut factory),
                    behind,
                });
            }
        }
    }
    found
}

fn how(
    decoder: &Decoder<'_>,
    instruction: &Instruction,
    relocation: &Relocation,
    factory: &mut InstructionInfoFactory,
) -> How {
    let offsets = decoder.get_constant_offsets(instruction);
    let field = (relocation.offset - instruction.ip()) as usize;
    if offsets.has_displacement() && offsets.displacement_offset() == field {
        let info = factory.info(instruction);
        let accesses = || info.used_memory().iter().map(|memory| memory.access());
        if accesses().all(|access| access == OpAccess::NoMemAccess) {
            return How::Takes;
        }
        let reads = accesses()
            .all(|access| matches!(access, OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess));
        return if reads { How::Reads } else { How::Writes };
    }
    let branch = matches!(instruction.op0_kind(), OpKind::NearBranch64);
    if branch { How::Goes } else { How::Takes }
}

fn way(view: &View<'_>, one: &Use, head: ItemId) -> Way {
    Way { meaning: view.meaning(one.spot, Some(head)), kind: one.kind, how: one.how, behind: one.behind }
}

/// The ranges of a function's code that the loader reads and rewrites, in bytes from the start of their sections:
/// the originals of alternatives, altcalls among them, and call sites.
fn rewritten(view: &View<'_>, entries: &Entries, head: ItemId) -> Vec<(SectionId, Range<i64>)> {
    let object = view.items.object;
    let described = view.items.fragments(head);
    let described = described.iter().filter_map(|id| entries.by_item.get(id)).flatten();
    described
        .filter_map(|entry| {
            let spot = entry.fields.first()?.spot;
            let length = match entry.table {
                Special::Alternatives => {
                    let bytes = object.section(entry.section).bytes(entry.start, entry.start + entry.size);
                    // struct alt_instr: lengths of the original and of its padding around that of the replacement.
                    i64::from(*bytes.get(10)?) + i64::from(*bytes.get(12)?)
                }
                Special::AltCallSites => CALL_SITE,
                _ => return None,
            };
            Some((spot.section?, spot.offset..spot.offset + length))
        })
        .collect()
}
