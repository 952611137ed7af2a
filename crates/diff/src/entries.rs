//! Special-section entries, each as part of the function that it points into.
//!
//! Sources of the formats: xen/include/xen/bug.h and xen/arch/x86/include/asm/{bug,alternative,asm_defns}.h of
//! Xen 4.13 to 4.22. Entry sizes are cross-checked with the section's size and with what the source declares; what
//! does not fit is refused.

use std::collections::{BTreeMap, BTreeSet};

use xsplice_objects::{Class, Home, RelocKind, Relocation, SectionId, Special};
use xsplice_report::{Diagnostic, Place, Problems};

use crate::codes::{ENTRY_SIZE, ORPHAN_ENTRY, UNKNOWN_SECTION};
use crate::items::{ItemId, ItemKind, Items};
use crate::pair::ObjectPair;

/// Where a field of an entry points: bytes from the start of a section, the line bits of bug frames taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spot {
    /// The section; `None` for a symbol of another object.
    pub section: Option<SectionId>,
    /// The index of the symbol that the relocation names; 0 where there is no relocation.
    pub symbol: usize,
    /// Bytes from the start of the section, or from the symbol.
    pub offset: i64,
}

/// One entry of a special section.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Which table.
    pub table: Special,
    /// The section that holds it.
    pub section: SectionId,
    /// Bytes from the start of that section.
    pub start: u64,
    /// Size in bytes.
    pub size: u64,
    /// Its relocated fields in ascending order: offset in the entry, kind, where it points, and what must be
    /// added to the target's address to give the field's addend (line bits and the field's place included).
    pub fields: Vec<Field>,
}

/// A relocated field of an entry.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Bytes from the start of the entry.
    pub offset: u64,
    /// What is computed.
    pub kind: RelocKind,
    /// Where it points.
    pub spot: Spot,
    /// The relocation's addend minus `spot.offset`, in a field that belongs to a section of this object.
    pub bias: i64,
}

/// The entries of an object by the function they describe.
#[derive(Debug, Default)]
pub struct Entries {
    /// By item, in the order of the tables and of the entries.
    pub by_item: BTreeMap<ItemId, Vec<Entry>>,
    /// Entries that describe no item: their meaning is compared as a whole.
    pub orphans: Vec<Entry>,
    /// What these point at: section, and bytes from its start.
    orphan_spots: BTreeSet<(SectionId, i64)>,
}

/// Width of the displacement in a bug frame's word; the bits above are part of the line number.
const BUG_DISPLACEMENT_BITS: u32 = 24;

impl Entries {
    /// Reads all special sections of an object.
    ///
    /// # Errors
    /// When a table's size or relocations do not fit its entries.
    pub fn of(items: &Items<'_>) -> Result<Entries, Problems> {
        let mut entries = Entries::default();
        let mut problems = Problems::new();
        for (id, section) in items.object.sections() {
            let Class::Special(table) = section.class else { continue };
            let Some(entry_size) = entry_size(table) else { continue };
            if section.size % entry_size != 0 {
                problems.push(
                    Diagnostic::new(UNKNOWN_SECTION, format!("{} does not hold whole entries", section.name))
                        .at(Place::object(&items.object.path).section(&section.name))
                        .why(format!("Its {} bytes are no multiple of {entry_size}.", section.size))
                        .advice("This Xen uses a format that is not known yet; please report its version."),
                );
                continue;
            }
            for start in (0..section.size).step_by(entry_size as usize) {
                let entry = read(items, table, id, start, entry_size);
                match entry.fields.first() {
                    Some(first) if first.offset == 0 => match owner(items, &entry, first.spot) {
                        Some(item) => entries.by_item.entry(item).or_default().push(entry),
                        None => {
                            entries.orphan_spots.extend(first.spot.section.map(|id| (id, first.spot.offset)));
                            entries.orphans.push(entry);
                        }
                    },
                    _ => problems.push(
                        Diagnostic::new(
                            ORPHAN_ENTRY,
                            format!("an entry of {} points at nothing", section.name),
                        )
                        .at(Place::object(&items.object.path).section(&section.name).offset(start))
                        .why("Which function it describes cannot be told.")
                        .advice("This Xen uses a format that is not known yet; please report its version."),
                    ),
                }
            }
        }
        if problems.0.is_empty() { Ok(entries) } else { Err(problems) }
    }

    /// Whether an entry that describes no item points into `from..to` of a section.
    pub(crate) fn orphan_in(&self, section: SectionId, from: u64, to: u64) -> bool {
        let (from, to) = ((section, from.cast_signed()), (section, to.cast_signed()));
        from < to && self.orphan_spots.range(from..to).next().is_some()
    }
}

/// The tree's own names for entries, each with a table that has them.
const DECLARED: [(&str, Special); 4] = [
    ("bug_frame", Special::BugFrames(0)),
    ("alt_instr", Special::Alternatives),
    ("alt_call", Special::AltCallSites),
    ("exception_table_entry", Special::ExceptionTable),
];

/// Entries that an object declares with another size than is understood. Where it says nothing there is none.
pub(crate) fn other_sizes(pair: &ObjectPair) -> Problems {
    let mut problems = Problems::new();
    let debug = || [&pair.base_debug, &pair.patched_debug].into_iter().flatten();
    for (name, table) in DECLARED {
        let Some(size) = entry_size(table) else { continue };
        let declared = debug().filter_map(|debug| debug.struct_layout(name)).map(|layout| layout.size);
        if let Some(other) = declared.into_iter().find(|&declared| declared != size) {
            problems.push(
                Diagnostic::new(
                    ENTRY_SIZE,
                    format!("struct {name} has {other} bytes, and its entries are read as {size}"),
                )
                .at(Place::object(&pair.path)
                    .source(&pair.source, None)
                    .symbol(name)
                    .section(section_of(table)))
                .why("Entries would be cut in the wrong places, and describe code that is not theirs.")
                .advice("This Xen uses a format that is not known yet; please report its version."),
            );
        }
    }
    problems
}

fn section_of(table: Special) -> &'static str {
    match table {
        Special::BugFrames(_) => ".bug_frames",
        Special::Alternatives => ".altinstructions",
        Special::AltCallSites => ".alt_call_sites",
        _ => ".ex_table",
    }
}

/// Size of a table's entry in bytes; `None` where the section holds code or is no table.
fn entry_size(table: Special) -> Option<u64> {
    match table {
        Special::BugFrames(3) => Some(16),
        Special::BugFrames(_) | Special::ExceptionTable => Some(8),
        Special::Alternatives => Some(14),
        Special::AltCallSites => Some(4),
        Special::Replacements | Special::Fixup | Special::Hook(_) => None,
    }
}

fn read(items: &Items<'_>, table: Special, id: SectionId, start: u64, size: u64) -> Entry {
    let section = items.object.section(id);
    let fields =
        section.relocations_in(start, start + size).iter().map(|r| field(items, table, start, r)).collect();
    Entry { table, section: id, start, size, fields }
}

fn field(items: &Items<'_>, table: Special, start: u64, relocation: &Relocation) -> Field {
    let symbol = items.object.symbol(relocation.symbol);
    let offset = relocation.offset - start;
    // Bug frames measure from the start of the frame, the other tables from the field.
    let (mut distance, line) = match table {
        Special::BugFrames(_) if relocation.kind == RelocKind::Pc32 => {
            let distance = relocation.addend - offset.cast_signed();
            let shift = 64 - BUG_DISPLACEMENT_BITS;
            let low = (distance << shift) >> shift;
            (low, distance - low)
        }
        _ => (relocation.addend, 0),
    };
    let section = match symbol.home {
        Home::Section(id) => {
            distance += symbol.value.cast_signed();
            Some(id)
        }
        _ => None,
    };
    let bias = match table {
        Special::BugFrames(_) if relocation.kind == RelocKind::Pc32 => line + offset.cast_signed(),
        _ => 0,
    };
    Field {
        offset,
        kind: relocation.kind,
        spot: Spot { section, symbol: relocation.symbol.0, offset: distance },
        bias,
    }
}

fn owner(items: &Items<'_>, _entry: &Entry, spot: Spot) -> Option<ItemId> {
    let section = spot.section?;
    let class = items.object.section(section).class;
    if !matches!(class, Class::Text | Class::InitText) {
        return None;
    }
    let (id, offset) = items.at(section, spot.offset)?;
    let known = items.get(id).kind != ItemKind::Blob;
    (known && offset >= 0 && offset.cast_unsigned() <= items.get(id).size()).then_some(id)
}
