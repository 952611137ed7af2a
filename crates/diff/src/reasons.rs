//! Why each piece is in the payload, and which references go through the original of a replaced function.
//!
//! Both are read off the finished pieces: what refers to what decides, not the order in which things were found.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Serialize;
use xsplice_report::{Because, Link};

use crate::listing::{self, Use};
use crate::pieces::{Piece, PieceId, PieceKind, Target, World};
use crate::select::Selection;

/// How a replaced function is referred to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// It is called.
    Call,
    /// It is jumped to.
    Jump,
    /// Its address is taken or stored.
    Address,
}

/// A reference of the payload to a function that is replaced, by it or by a payload below. It goes to the original
/// function, whose jump leads to whatever is applied last; after a revert it still leads to code.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ThroughOriginal {
    /// The replaced function, as the hypervisor's own table has it.
    pub function: String,
    /// Who refers to it.
    pub by: String,
    /// In which way.
    pub how: How,
    /// The object of who refers to it, relative to the tree.
    pub object: String,
}

/// Gives each piece its whole chain, the shortest one, and lists what goes through originals.
pub(crate) fn complete(selection: &mut Selection, world: &World<'_>) {
    let chains = chains(&selection.pieces);
    for (piece, chain) in selection.pieces.iter_mut().zip(chains) {
        // What nothing that changed leads to keeps what is known of it.
        if let Some(chain) = chain {
            piece.because = chain;
        }
    }
    selection.through_original = through_original(selection, world);
}

/// For each piece the chain that ends at something changed, by the fewest links.
fn chains(pieces: &[Piece]) -> Vec<Option<Because>> {
    let mut entries: BTreeMap<PieceId, Vec<PieceId>> = BTreeMap::new();
    for (index, piece) in pieces.iter().enumerate().filter(|(_, piece)| is_entry(piece.kind)) {
        if let Some(Target::Piece(code)) = piece.references.first().map(|reference| &reference.target) {
            entries.entry(*code).or_default().push(PieceId(index));
        }
    }
    let mut chains: Vec<Option<Because>> =
        pieces.iter().map(|piece| piece.because.is_complete().then(|| piece.because.clone())).collect();
    let mut queue: VecDeque<PieceId> =
        (0..pieces.len()).filter(|&index| chains[index].is_some()).map(PieceId).collect();
    while let Some(id) = queue.pop_front() {
        let (piece, Some(chain)) = (&pieces[id.0], chains[id.0].clone()) else { continue };
        let described = entries
            .get(&id)
            .into_iter()
            .flatten()
            .map(|&entry| (entry, Because::describes(piece.label.as_str())));
        let needed = piece.references.iter().filter_map(|reference| match reference.target {
            Target::Piece(other) => Some((other, Because::needed_by(piece.label.as_str()))),
            Target::Hypervisor(_) | Target::Address { .. } => None,
        });
        for (other, because) in described.chain(needed) {
            if chains[other.0].is_none() {
                chains[other.0] = Some(because.behind(&chain));
                queue.push_back(other);
            }
        }
    }
    by_name(pieces, &mut chains);
    chains
}

/// A reference that is refused is not in its piece; who made it is known by name. Gives each piece without a chain
/// the one behind the piece that its own reason names, and so on to those that name it.
fn by_name(pieces: &[Piece], chains: &mut [Option<Because>]) {
    let mut named: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (index, piece) in pieces.iter().enumerate() {
        named.entry((&piece.object, &piece.label)).or_insert(index);
    }
    let mut waiting: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, piece) in pieces.iter().enumerate().filter(|&(index, _)| chains[index].is_none()) {
        if let Some(Link::NeededBy { by: name } | Link::Describes { function: name }) =
            piece.because.links().first()
            && let Some(&behind) = named.get(&(piece.object.as_str(), name.as_str()))
        {
            waiting.entry(behind).or_default().push(index);
        }
    }
    let mut ready: Vec<usize> = waiting.keys().copied().filter(|&index| chains[index].is_some()).collect();
    while let Some(index) = ready.pop() {
        let Some(chain) = chains[index].clone() else { continue };
        for next in waiting.remove(&index).into_iter().flatten() {
            chains[next] = Some(pieces[next].because.clone().behind(&chain));
            ready.push(next);
        }
    }
}

fn is_entry(kind: PieceKind) -> bool {
    matches!(
        kind,
        PieceKind::BugFrame(_) | PieceKind::Alternative | PieceKind::AltCallSite | PieceKind::ExceptionEntry
    )
}

fn through_original(selection: &Selection, world: &World<'_>) -> Vec<ThroughOriginal> {
    // By name; of several of a name, by address too.
    let own: BTreeSet<(&str, Option<u64>)> =
        selection.replaced.iter().map(|replaced| (replaced.name.as_str(), replaced.address)).collect();
    let mut found = BTreeSet::new();
    for piece in &selection.pieces {
        for reference in &piece.references {
            let address = match reference.target {
                Target::Address { address, .. } => Some(address),
                _ => None,
            };
            let Some(function) = reference.target.name() else { continue };
            if !own.contains(&(function, address)) && !world.replaced.contains(function) {
                continue;
            }
            let code = matches!(piece.kind, PieceKind::Text | PieceKind::Fixup | PieceKind::Replacement);
            let how = match code.then(|| listing::use_of(&piece.bytes, reference.offset)) {
                Some(Use::Call) => How::Call,
                Some(Use::Jump) => How::Jump,
                Some(Use::Address) | None => How::Address,
            };
            let (by, object) = (piece.label.clone(), piece.object.clone());
            found.insert(ThroughOriginal { function: function.to_owned(), by, how, object });
        }
    }
    found.into_iter().collect()
}
