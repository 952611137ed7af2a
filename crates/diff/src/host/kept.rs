//! Addresses of new functions that outlive the payload.
//!
//! A stored address of a replaced function is that of the original, and stays right. A new function has none: its
//! memory is freed when the payload is unloaded, and a timer, a tasklet or a list that still has its address leads
//! there.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, OpKind};
use xsplice_objects::{HookKind, RelocKind};
use xsplice_report::{Diagnostic, Place, Problems};

use super::{plain, table};
use crate::codes;
use crate::names;
use crate::pieces::{Piece, PieceId, PieceKind, Reference, Target};
use crate::select::Selection;

/// Hooks that run before the payload's memory is freed, and may take addresses back.
const UNDOING: &[HookKind] = &[HookKind::Unload, HookKind::PreRevert, HookKind::Revert, HookKind::PostRevert];

/// Where an address goes.
enum Fate<'s> {
    /// To a function that is known to keep it.
    Kept(&'s str),
    /// To one that is known not to.
    Used,
    Unknown,
}

/// Warns of, or refuses, each address of a new function that the payload's code hands out.
pub(super) fn check(selection: &Selection, problems: &mut Problems) {
    let carriers = carriers(selection);
    if carriers.is_empty() {
        return;
    }
    let undone = selection.hooks.iter().any(|hook| UNDOING.contains(&hook.kind));
    for piece in selection.pieces.iter().filter(|piece| is_code(piece)) {
        // The worst fate of each function counts.
        let mut handed: BTreeMap<&str, Option<&str>> = BTreeMap::new();
        for (function, fate) in hand_outs(piece, selection, &carriers) {
            match fate {
                Fate::Used => {}
                Fate::Unknown => {
                    handed.entry(function).or_insert(None);
                }
                Fate::Kept(by) => {
                    handed.insert(function, Some(by));
                }
            }
        }
        for (function, keeper) in handed {
            problems.push(told(piece, function, keeper, undone));
        }
    }
}

fn told(piece: &Piece, function: &str, keeper: Option<&str>, undone: bool) -> Diagnostic {
    let place = Place::object(&piece.object).symbol(&piece.label);
    match keeper.filter(|_| !undone) {
        Some(keeper) => Diagnostic::new(
            codes::ADDRESS_KEPT,
            format!("{} has {keeper} keep the address of the new function {function}", piece.label),
        )
        .at(place)
        .why("It is called after the payload was reverted and unloaded, when its memory is somebody else's.")
        .advice("Take it back in an unload hook, or let a function that is there already be called, and change that."),
        None => Diagnostic::new(
            codes::ADDRESS_MAY_BE_KEPT,
            format!("{} takes the address of the new function {function}", piece.label),
        )
        .at(place)
        .why("If it is stored anywhere, it leads to freed memory once the payload is unloaded.")
        .advice("See to it that nothing holds it then, for example by an unload hook, or do not unload the payload."),
    }
}

fn is_code(piece: &Piece) -> bool {
    piece.kind == PieceKind::Text
}

fn is_fragment(piece: &Piece) -> bool {
    piece.symbol.is_none()
        && (names::cold_of(&piece.label).is_some() || piece.label.starts_with("code put aside"))
}

/// New functions, and data that holds the address of one: each with the function's name.
fn carriers(selection: &Selection) -> BTreeMap<PieceId, &str> {
    let replaced: BTreeSet<PieceId> = selection.replaced.iter().map(|replaced| replaced.piece).collect();
    let mut carriers: BTreeMap<PieceId, &str> = BTreeMap::new();
    let all = || selection.pieces.iter().enumerate().map(|(index, piece)| (PieceId(index), piece));
    for (id, piece) in all() {
        if is_code(piece) && !replaced.contains(&id) && !is_fragment(piece) {
            carriers.insert(id, &piece.label);
        }
    }
    if carriers.is_empty() {
        return carriers;
    }
    loop {
        let mut found = Vec::new();
        for (id, piece) in all().filter(|(id, _)| !carriers.contains_key(id)) {
            if !matches!(piece.kind, PieceKind::Data | PieceKind::ReadOnly) {
                continue;
            }
            let held = piece.references.iter().find_map(|reference| {
                let Target::Piece(target) = reference.target else { return None };
                // Tables of jumps hold places inside of functions.
                let whole = reference.kind == RelocKind::Abs64
                    && (reference.addend == 0 || !is_code(&selection.pieces[target.0]));
                carriers.get(&target).copied().filter(|_| whole)
            });
            found.extend(held.map(|function| (id, function)));
        }
        if found.is_empty() {
            return carriers;
        }
        carriers.extend(found);
    }
}

/// The addresses that a piece of code takes: the function that each leads to, and where it goes.
fn hand_outs<'s>(
    piece: &'s Piece,
    selection: &'s Selection,
    carriers: &BTreeMap<PieceId, &'s str>,
) -> Vec<(&'s str, Fate<'s>)> {
    let code: Vec<Instruction> = Decoder::new(64, &piece.bytes, DecoderOptions::NONE).into_iter().collect();
    let keeper = code.iter().find_map(|instruction| {
        callee(piece, instruction).filter(|name| table::KEEPERS.contains(&plain(name)))
    });
    let mut found = Vec::new();
    for (at, instruction) in code.iter().enumerate() {
        let Some(reference) = reference_in(piece, instruction) else { continue };
        let Target::Piece(target) = reference.target else { continue };
        let Some(&function) = carriers.get(&target) else { continue };
        let to_code = is_code(&selection.pieces[target.0]);
        // Called or jumped to, also by a pointer in a table.
        if instruction.flow_control() != FlowControl::Next || to_code && !is_start(reference, instruction) {
            continue;
        }
        let next = code[at..].iter().find_map(|instruction| callee(piece, instruction));
        let fate = match (keeper, next) {
            (Some(keeper), _) => Fate::Kept(plain(keeper)),
            (None, Some(next)) if table::CALLERS.contains(&plain(next)) => Fate::Used,
            _ => Fate::Unknown,
        };
        found.push((function, fate));
    }
    found
}

/// Whether a reference is to the first byte of its target.
fn is_start(reference: &Reference, instruction: &Instruction) -> bool {
    let behind = (instruction.next_ip() - reference.offset).cast_signed();
    reference.addend + if reference.kind.is_relative() { behind } else { 0 } == 0
}

fn reference_in<'s>(piece: &'s Piece, instruction: &Instruction) -> Option<&'s Reference> {
    let inside = instruction.ip()..instruction.next_ip();
    piece.references.iter().find(|reference| inside.contains(&reference.offset))
}

/// The hypervisor's function that an instruction calls or jumps to.
fn callee<'s>(piece: &'s Piece, instruction: &Instruction) -> Option<&'s str> {
    let near = matches!(instruction.op0_kind(), OpKind::NearBranch32 | OpKind::NearBranch64);
    reference_in(piece, instruction).filter(|_| near)?.target.name()
}
