//! Whether code that was compiled for one type goes on to work with values of another.
//!
//! Values are passed by size and class (System V ABI for x86-64, 3.2.3), and mean what their type says: names of
//! numbers, their sign and qualifiers count for nothing, a pointer to another structure does. How a structure of one
//! name is laid out in the two builds is no question here: see [`crate::layout_changes`].

use crate::info::{DebugInfo, Names};
use crate::model::{Kind, MemberKind, VOID};

/// Deeper than any real declaration.
const MAX_DEPTH: u32 = 24;
/// `DW_ATE_boolean` and `DW_ATE_float` (DWARF 5, 7.8), and what stands for all integers here.
const BOOLEAN: u8 = 0x02;
const FLOAT: u8 = 0x04;
const INTEGER: u8 = 0x05;

/// A type of an object.
#[derive(Clone, Copy)]
pub(crate) struct Of<'a> {
    pub info: &'a DebugInfo,
    pub ty: u32,
}

/// A type behind typedefs and qualifiers, with the name by which it is known.
struct Bare<'a> {
    of: Of<'a>,
    kind: Kind,
    /// Its tag, or the typedef of a structure without one; empty where there is neither.
    name: &'a [u8],
}

impl<'a> Of<'a> {
    fn with(self, ty: u32) -> Of<'a> {
        Of { ty, ..self }
    }

    /// `None` for `void`.
    fn bare(self) -> Option<Bare<'a>> {
        let model = &self.info.model;
        let mut ty = self.ty;
        let mut typedef = Default::default();
        for _ in 0..64 {
            let this = model.types.get(ty as usize)?;
            match this.kind {
                Kind::Typedef => typedef = this.name,
                Kind::Qualifier => {}
                kind => {
                    let name = if this.is_anonymous() { typedef } else { this.name };
                    let name = self.info.object().bytes(name);
                    return Some(Bare { of: self.with(ty), kind, name });
                }
            }
            ty = this.target;
        }
        None
    }
}

impl Bare<'_> {
    fn target(&self) -> u32 {
        self.of.info.model.types[self.of.ty as usize].target
    }

    fn size(&self) -> Option<u64> {
        self.of.info.shapes.size[self.of.ty as usize]
    }

    /// Size in bytes and class of a number.
    fn number(&self) -> Option<(u64, u8)> {
        let this = &self.of.info.model.types[self.of.ty as usize];
        match (self.kind, this.encoding) {
            (Kind::Enum, _) => Some((this.size.unwrap_or(4), INTEGER)),
            (Kind::Base, BOOLEAN | FLOAT) => Some((this.size?, this.encoding)),
            (Kind::Base, _) => Some((this.size?, INTEGER)),
            _ => None,
        }
    }

    fn is_declared_only(&self) -> bool {
        self.of.info.model.types[self.of.ty as usize].declaration
    }

    fn print(&self) -> crate::hash::Print {
        self.of.info.shapes.layout[self.of.ty as usize]
    }
}

/// Whether two types are passed and held in the same way, and mean the same.
pub(crate) fn agree(a: Of<'_>, b: Of<'_>) -> bool {
    by_value(a, b, MAX_DEPTH)
}

fn by_value(a: Of<'_>, b: Of<'_>, depth: u32) -> bool {
    if depth == 0 {
        return false;
    }
    let (a, b) = match (a.bare(), b.bare()) {
        (None, None) => return true,
        (Some(a), Some(b)) => (a, b),
        _ => return false,
    };
    if let (Some(a), Some(b)) = (a.number(), b.number()) {
        return a == b;
    }
    match (a.kind, b.kind) {
        (Kind::Pointer, Kind::Pointer) => {
            behind_pointer(a.of.with(a.target()), b.of.with(b.target()), depth - 1)
        }
        (Kind::Struct, Kind::Struct) | (Kind::Union, Kind::Union) => {
            a.size() == b.size() && is_same_structure(&a, &b)
        }
        (Kind::Array, Kind::Array) => {
            a.size() == b.size() && by_value(a.of.with(a.target()), b.of.with(b.target()), depth - 1)
        }
        (Kind::Function, Kind::Function) => is_same_function(&a, &b, depth - 1),
        (Kind::Opaque, Kind::Opaque) => true,
        _ => false,
    }
}

/// `void` stands for anything, and an array for its elements.
fn behind_pointer(a: Of<'_>, b: Of<'_>, depth: u32) -> bool {
    let (Some(a), Some(b)) = (a.bare(), b.bare()) else { return true };
    if depth == 0 {
        return false;
    }
    match (a.kind, b.kind) {
        (Kind::Struct, Kind::Struct) | (Kind::Union, Kind::Union) => is_same_structure(&a, &b),
        (Kind::Array, _) => behind_pointer(a.of.with(a.target()), b.of, depth - 1),
        (_, Kind::Array) => behind_pointer(a.of, b.of.with(b.target()), depth - 1),
        _ => by_value(a.of, b.of, depth),
    }
}

/// Of one name, or renamed with all its members as they were.
fn is_same_structure(a: &Bare<'_>, b: &Bare<'_>) -> bool {
    let same_name = a.name == b.name && !a.name.is_empty();
    same_name || (a.print() == b.print() && !a.is_declared_only() && !b.is_declared_only())
}

fn is_same_function(a: &Bare<'_>, b: &Bare<'_>, depth: u32) -> bool {
    let parameters = |of: &Bare<'_>| -> Vec<(MemberKind, u32)> {
        of.of.info.model.members_of(of.of.ty).iter().map(|member| (member.kind, member.target)).collect()
    };
    let (old, new) = (parameters(a), parameters(b));
    by_value(a.of.with(a.target()), b.of.with(b.target()), depth)
        && old.len() == new.len()
        && old.iter().zip(&new).all(|(old, new)| {
            old.0 == new.0
                && (old.0 != MemberKind::Parameter || by_value(a.of.with(old.1), b.of.with(new.1), depth))
        })
}

/// Whether there is no value at all.
pub(crate) fn is_void(of: Of<'_>) -> bool {
    of.info.model.unqualified(of.ty) == VOID
}
