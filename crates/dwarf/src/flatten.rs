//! A structure as a list of named pieces with their places.
//!
//! What has no tag is dissolved into what holds it: members of an anonymous union appear as members of
//! the structure, those of `struct { int x; } pos` as `pos.x`, those of `struct { int x; } slots[4]` as
//! `slots[].x`, beside the entry for `pos` or `slots` itself.

use std::ops::Range;

use crate::hash::{Mixer, Print};
use crate::info::{DebugInfo, Names};
use crate::model::{Decl, Kind, Member, MemberKind, VOID};

/// Anonymous structures inside of each other.
const MAX_DEPTH: u32 = 32;

/// A named piece of a structure.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    /// Unique within the structure as far as C is concerned.
    pub path: String,
    /// Bits from the start of the structure.
    pub at: i64,
    /// Bits that it covers; 0 for a flexible array.
    pub size: i64,
    pub bit_field: bool,
    /// Bits of its type, which a bit-field is placed by.
    pub unit: i64,
    /// It is named, but what is in it has its own entries.
    pub container: bool,
    /// It covers more than the entries of what is in it: an array.
    pub solid: bool,
    /// A number or an array of numbers.
    pub plain: bool,
    /// Of its type.
    pub print: Print,
    pub ty: u32,
    pub decl: Decl,
}

impl Leaf {
    pub fn range(&self) -> Range<i64> {
        self.at..self.at + self.size
    }

    pub fn overlaps(&self, range: &Range<i64>) -> bool {
        self.at < range.end && range.start < self.at + self.size
    }

    /// Not inside of another member.
    pub fn is_outermost(&self) -> bool {
        !self.path.contains('.')
    }
}

/// Lists the pieces of a structure or union; `None` if `budget` (entries) does not suffice.
pub(crate) fn flatten(info: &DebugInfo, ty: u32, budget: &mut usize) -> Option<Vec<Leaf>> {
    let mut leaves = Vec::new();
    let complete = into(info, ty, 0, "", &mut leaves, budget, MAX_DEPTH);
    complete.then_some(leaves)
}

fn into(
    info: &DebugInfo,
    ty: u32,
    base: i64,
    prefix: &str,
    leaves: &mut Vec<Leaf>,
    budget: &mut usize,
    depth: u32,
) -> bool {
    for member in info.model.members_of(ty) {
        if member.kind != MemberKind::Field {
            continue;
        }
        if depth == 0 || *budget == 0 {
            return false;
        }
        let at = base.saturating_add(member.at);
        let name = info.object().text(member.name);
        let path = format!("{prefix}{name}");
        // A long path counts as many pieces.
        *budget = budget.saturating_sub(1 + path.len() / 256);
        let (inner, dimensions) = element(info, member.target);
        let dissolves = inner != VOID
            && info.model.types[inner as usize].is_aggregate()
            && (info.model.types[inner as usize].is_anonymous() || name.is_empty());
        if !dissolves {
            // Some compilers list unnamed bit-fields; they hold nothing.
            if !name.is_empty() {
                let plain = is_number(info, inner);
                leaves.push(Leaf { plain, ..leaf(info, member, path, at, None) });
            }
            continue;
        }
        let next = if name.is_empty() {
            prefix.to_owned()
        } else {
            let print = container_print(info, inner, &dimensions);
            let solid = !dimensions.is_empty();
            leaves.push(Leaf { solid, ..leaf(info, member, path.clone(), at, Some(print)) });
            let brackets = if dimensions.is_empty() { "" } else { "[]" };
            format!("{path}{brackets}.")
        };
        if !into(info, inner, at, &next, leaves, budget, depth - 1) {
            return false;
        }
    }
    true
}

fn leaf(info: &DebugInfo, member: &Member, path: String, at: i64, container: Option<Print>) -> Leaf {
    let unit = size_of(info, member.target).and_then(|s| i64::try_from(s).ok()?.checked_mul(8)).unwrap_or(0);
    let size = member.bits.map_or(unit, i64::from);
    let print = match container {
        Some(print) => print,
        None if member.target == VOID => Print::default(),
        None => info.shapes.layout[member.target as usize],
    };
    Leaf {
        path,
        at,
        size: size.min(1 << 56),
        unit,
        bit_field: member.bits.is_some(),
        container: container.is_some(),
        solid: container.is_none(),
        plain: false,
        print,
        ty: member.target,
        decl: member.decl,
    }
}

/// Size of a type in bytes.
pub(crate) fn size_of(info: &DebugInfo, ty: u32) -> Option<u64> {
    info.shapes.size.get(ty as usize).copied().flatten()
}

/// What an array consists of (or the type itself), without qualifiers, and all dimensions.
fn element(info: &DebugInfo, ty: u32) -> (u32, Vec<i64>) {
    let mut dimensions = Vec::new();
    let mut ty = info.model.unqualified(ty);
    for _ in 0..MAX_DEPTH {
        if ty == VOID || info.model.types[ty as usize].kind != Kind::Array {
            break;
        }
        dimensions.extend(info.model.members_of(ty).iter().map(|m| m.at));
        ty = info.model.unqualified(info.model.types[ty as usize].target);
    }
    (ty, dimensions)
}

/// Whether typedefs end at a basic type.
fn is_number(info: &DebugInfo, mut ty: u32) -> bool {
    for _ in 0..MAX_DEPTH {
        ty = info.model.unqualified(ty);
        match info.model.types.get(ty as usize) {
            Some(this) if this.kind == Kind::Typedef => ty = this.target,
            this => return this.is_some_and(|t| t.kind == Kind::Base),
        }
    }
    false
}

/// What a container is apart from its contents. Its size is left out: it follows from them, and the size
/// of an array's element is their stride, which counts.
fn container_print(info: &DebugInfo, inner: u32, dimensions: &[i64]) -> Print {
    let mut mixer = Mixer::new(40);
    mixer.word(info.model.types[inner as usize].kind as u64);
    for dimension in dimensions {
        mixer.word(*dimension as u64);
    }
    if !dimensions.is_empty() {
        mixer.word(size_of(info, inner).unwrap_or(u64::MAX));
    }
    mixer.finish()
}
