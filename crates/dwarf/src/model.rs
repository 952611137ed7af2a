//! What is kept of the DWARF entries: types with their members, functions and variables.

use std::ops::Range;

/// No type, which is C's `void`.
pub(crate) const VOID: u32 = u32::MAX;

/// A piece of the relocated sections: a name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Text {
    pub start: u32,
    pub len: u32,
}

impl Text {
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// The source line that declares something.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Decl {
    /// Position in the units of the object.
    pub unit: u32,
    /// Number in the unit's line program header.
    pub file: u32,
    /// Counted from 1; 0 is none.
    pub line: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Base,
    Struct,
    Union,
    Enum,
    Typedef,
    Pointer,
    /// `const`, `volatile`, `restrict` and `_Atomic`.
    Qualifier,
    Array,
    Function,
    /// A type without structure, such as that of `nullptr`.
    Opaque,
}

/// A type. Types refer to each other by position.
#[derive(Debug)]
pub(crate) struct Type {
    pub kind: Kind,
    /// Where it stands in `.debug_info`.
    pub offset: u32,
    pub name: Text,
    /// Target, element, result or underlying type.
    pub target: u32,
    /// In bytes, as the entry says it.
    pub size: Option<u64>,
    /// Set by an attribute in the source; otherwise 0.
    pub align: u32,
    /// `DW_ATE_*` of a base type; 1 for a vector instead of an array.
    pub encoding: u8,
    /// Only declared.
    pub declaration: bool,
    pub decl: Decl,
    /// Positions in the list of members.
    pub members: Range<u32>,
}

impl Type {
    pub fn is_aggregate(&self) -> bool {
        matches!(self.kind, Kind::Struct | Kind::Union)
    }

    /// A structure, union or enumeration without a tag.
    pub fn is_anonymous(&self) -> bool {
        self.name.is_empty() && matches!(self.kind, Kind::Struct | Kind::Union | Kind::Enum)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemberKind {
    /// Of a structure or union.
    Field,
    Enumerator,
    /// One dimension of an array.
    Dimension,
    Parameter,
    /// `...`
    Variadic,
}

/// What stands inside of a type.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    pub kind: MemberKind,
    /// `at` of an enumerator is to be read as unsigned; while reading, `at` of a bit-field lacks the size of its
    /// type.
    pub unsigned: bool,
    pub name: Text,
    pub target: u32,
    /// Bits from the start of a structure; value of an enumerator; elements of a dimension, -1 if unknown.
    pub at: i64,
    /// Width of a bit-field.
    pub bits: Option<u32>,
    pub decl: Decl,
}

impl Member {
    /// Value of an enumerator.
    pub fn value(&self) -> i128 {
        if self.unsigned { i128::from(self.at as u64) } else { i128::from(self.at) }
    }
}

/// A function or variable.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entity {
    /// Where it stands in `.debug_info`.
    pub offset: u32,
    /// The entry that has the name, if this one has none.
    pub origin: u32,
    pub name: Text,
    /// In the address space of [`crate::elf::Sections`].
    pub address: Option<u64>,
    /// Position of the type that a function gives, or that a variable has.
    pub result: u32,
    /// Of a function: its parameters in the list of members, the first and one behind the last.
    pub parameters: (u32, u32),
    pub declaration: bool,
    pub decl: Decl,
}

/// A variable of a function without a place of its own: automatic, or inlined with its function.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Local {
    /// Where it stands in `.debug_info`.
    pub offset: u32,
    /// Position of its type.
    pub target: u32,
    /// Only declared: what it names is elsewhere.
    pub declaration: bool,
}

/// A compilation unit.
#[derive(Debug)]
pub(crate) struct Unit {
    pub name: Text,
    pub comp_dir: Text,
    /// Offset in `.debug_line`.
    pub lines: Option<u32>,
}

/// Everything that was read.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub units: Vec<Unit>,
    /// By offset.
    pub types: Vec<Type>,
    pub members: Vec<Member>,
    /// By offset.
    pub functions: Vec<Entity>,
    /// By offset.
    pub variables: Vec<Entity>,
    /// By offset; those with a type.
    pub locals: Vec<Local>,
}

impl Model {
    /// An empty one with room for what a `.debug_info` of so many bytes usually holds.
    pub fn for_size(size: usize) -> Model {
        Model {
            types: Vec::with_capacity(size / 64),
            members: Vec::with_capacity(size / 32),
            ..Model::default()
        }
    }

    pub fn members_of(&self, ty: u32) -> &[Member] {
        let range = &self.types[ty as usize].members;
        &self.members[range.start as usize..range.end as usize]
    }

    /// The type behind qualifiers.
    pub fn unqualified(&self, mut ty: u32) -> u32 {
        // Cycles were refused when fingerprints were made; the limit is for the time before that.
        for _ in 0..64 {
            if ty == VOID || self.types[ty as usize].kind != Kind::Qualifier {
                break;
            }
            ty = self.types[ty as usize].target;
        }
        ty
    }
}
