//! The code that goes into the payload: its references, the code that it jumps to, and the special-section entries
//! that describe it.

use xsplice_objects::{RelocKind, Relocation, SectionId, Special};
use xsplice_report::{Because, Diagnostic};

use super::{Key, Selector};
use crate::codes;
use crate::entries::{Entry, Spot};
use crate::items::ItemId;
use crate::meaning;
use crate::pieces::{Piece, PieceId, PieceKind, Reference, Target};
use crate::words;

impl Selector<'_, '_> {
    #[expect(
        clippy::too_many_arguments,
        reason = "one range of code and who wants it; a struct would only rename them"
    )]
    pub(super) fn fill_code(
        &mut self,
        index: usize,
        piece: PieceId,
        section: SectionId,
        start: u64,
        end: u64,
        unit: Option<ItemId>,
        by: &str,
    ) {
        let parts = self.pair(index).correlated.parts;
        let content = parts.patched.object.section(section);
        let relocations = content.relocations_in(start, end);
        let code = content.bytes(start, end);
        let meaning::Decoded { ends, undecodable, loose } = meaning::decode(&code, relocations, start);
        if let Some(at) = undecodable {
            let place = self.place(index, by).section(&content.name).offset(start + at);
            self.refuse(
                Diagnostic::new(
                    codes::UNDECODABLE,
                    format!("{by} holds bytes that are no known instruction"),
                )
                .at(place)
                .why("What they refer to cannot be told.")
                .advice("Please report the function, so that its instructions can be supported."),
            );
        }
        for relocation in relocations {
            let adjust = match ends.get(&relocation.offset) {
                Some(end) if relocation.kind.is_relative() => (end - relocation.offset).cast_signed(),
                _ => 0,
            };
            self.refer(index, piece, start, relocation, adjust, unit, by);
        }
        for loose in loose.iter().filter(|loose| loose.leaves(content, end)) {
            let adjust = (loose.end - loose.field).cast_signed();
            let field = (loose.field - start, loose.kind);
            self.refer_to(index, piece, field, loose.spot(section), adjust, unit, by);
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one relocation and who wants it; a struct would only rename them"
    )]
    pub(super) fn refer(
        &mut self,
        index: usize,
        piece: PieceId,
        start: u64,
        relocation: &Relocation,
        adjust: i64,
        unit: Option<ItemId>,
        by: &str,
    ) {
        let spot = self.pair(index).correlated.patched.spot(relocation, adjust);
        let field = (relocation.offset - start, relocation.kind);
        self.refer_to(index, piece, field, spot, adjust, unit, by);
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one field and who wants it; a struct would only rename them"
    )]
    pub(super) fn refer_to(
        &mut self,
        index: usize,
        piece: PieceId,
        (offset, kind): (u64, RelocKind),
        spot: Spot,
        adjust: i64,
        unit: Option<ItemId>,
        by: &str,
    ) {
        let target = match self.own_entry(index, spot, unit) {
            Some((base, start)) => self
                .shipped_name(index, base)
                .and_then(|name| self.hypervisor(index, name, Some((index, base)), by))
                .map(|target| (target, start)),
            None => self
                .kept_target(index, piece, offset, spot, unit, by)
                .unwrap_or_else(|| self.target(index, spot, unit, by)),
        };
        let Some((target, base)) = target else { return };
        let addend = spot.offset - base - adjust;
        if matches!(kind, RelocKind::Pc64 | RelocKind::Small | RelocKind::Abs32) {
            let place = self.place(index, by).offset(offset);
            self.refuse(
                Diagnostic::new(
                    codes::UNKNOWN_REFERENCE,
                    format!("{by} uses a relocation that the loader does not take"),
                )
                .at(place)
                .why("The loader applies 64-bit absolute and 32-bit relative relocations only.")
                .advice("Change the code that needs it, or leave this part for the next boot."),
            );
            return;
        }
        let piece = &mut self.selection.pieces[piece.0];
        meaning::blank(&mut piece.bytes, offset, kind);
        piece.references.push(Reference { offset, kind, target, addend });
    }

    /// A replaced function that refers to its own start: that address may end up in live data, and must then still
    /// be good when the payload is reverted. Gives the original function, and where the start stands.
    pub(super) fn own_entry(&self, index: usize, spot: Spot, unit: Option<ItemId>) -> Option<(ItemId, i64)> {
        let correlated = &self.pair(index).correlated;
        let item = correlated.parts.patched.get(unit?);
        let start = item.start.cast_signed();
        let own = spot.section == Some(item.section) && spot.offset == start;
        Some((correlated.counterpart[unit?.0].filter(|_| own)?, start))
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one range of code and who wants it; a struct would only rename them"
    )]
    pub(super) fn extra_code(
        &mut self,
        index: usize,
        kind: PieceKind,
        section_id: SectionId,
        start: u64,
        end: u64,
        unit: Option<ItemId>,
        by: &str,
    ) -> PieceId {
        let key = Key::Code(index, section_id, start, end);
        if let Some(&piece) = self.pieces.get(&key) {
            return piece;
        }
        let parts = self.pair(index).correlated.parts;
        let section = parts.patched.object.section(section_id);
        let piece = Piece {
            kind,
            object: parts.pair.path.clone(),
            label: words::extra_code(kind, &section.name, start),
            symbol: None,
            global: false,
            bytes: section.bytes(start, end).into_owned(),
            declared: end - start,
            align: 1,
            references: Vec::new(),
            because: Because::describes(by),
        };
        let piece = self.keep(key, piece);
        self.fill_code(index, piece, section_id, start, end, unit, by);
        if parts.patched_entries.orphan_in(section_id, start, end) {
            self.strange(
                index,
                by,
                &section.name,
                "code that it jumps to is described by a special section itself",
            );
        }
        piece
    }

    /// Code put aside, with the entries that describe it.
    pub(super) fn aside(
        &mut self,
        index: usize,
        id: ItemId,
        section: SectionId,
        (start, end): (u64, u64),
        unit: Option<ItemId>,
        by: &str,
    ) -> PieceId {
        if let Some(&piece) = self.pieces.get(&Key::Code(index, section, start, end)) {
            return piece;
        }
        let piece = self.extra_code(index, PieceKind::Text, section, start, end, unit, by);
        let parts = self.pair(index).correlated.parts;
        for entry in parts.patched_entries.by_item.get(&id).into_iter().flatten() {
            if (start..end).contains(&entry.fields[0].spot.offset.cast_unsigned()) {
                self.entry(index, entry, unit.unwrap_or(id), by);
            }
        }
        piece
    }

    pub(super) fn entry(&mut self, index: usize, entry: &Entry, head: ItemId, by: &str) {
        let correlated = &self.pair(index).correlated;
        let parts = correlated.parts;
        let section = parts.patched.object.section(entry.section);
        let kind = match entry.table {
            Special::BugFrames(number) => PieceKind::BugFrame(number),
            Special::Alternatives => PieceKind::Alternative,
            Special::AltCallSites => PieceKind::AltCallSite,
            _ => PieceKind::ExceptionEntry,
        };
        let piece = PieceId(self.selection.pieces.len());
        self.selection.pieces.push(Piece {
            kind,
            object: parts.pair.path.clone(),
            label: words::entry(&correlated.patched.entry(entry, Some(head)), by),
            symbol: None,
            global: false,
            bytes: section.bytes(entry.start, entry.start + entry.size).into_owned(),
            declared: entry.size,
            align: if matches!(kind, PieceKind::Alternative) { 1 } else { 4 },
            references: Vec::new(),
            because: Because::describes(by),
        });
        for (number, field) in entry.fields.iter().enumerate() {
            meaning::blank(&mut self.selection.pieces[piece.0].bytes, field.offset, field.kind);
            let target = match (entry.table, number, field.spot.section) {
                (Special::Alternatives, 1, Some(section)) => {
                    let start = field.spot.offset.max(0).cast_unsigned();
                    let end = start + meaning::replacement_len(&self.selection.pieces[piece.0].bytes);
                    let replacement =
                        self.extra_code(index, PieceKind::Replacement, section, start, end, Some(head), by);
                    Some((Target::Piece(replacement), start.cast_signed()))
                }
                _ => self.target(index, field.spot, Some(head), by),
            };
            let Some((target, base)) = target else { continue };
            let addend = field.spot.offset - base + field.bias;
            let reference = Reference { offset: field.offset, kind: field.kind, target, addend };
            self.selection.pieces[piece.0].references.push(reference);
        }
    }
}
