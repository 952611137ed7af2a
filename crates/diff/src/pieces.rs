//! What a payload is made of, and what it stands on.

use std::collections::BTreeSet;

use serde::{Serialize, Serializer};
use xsplice_objects::{HookKind, Hypervisor, RelocKind};
use xsplice_report::{Allowance, Because, Difference, Place};

use crate::expect::LeftOut;

/// Index of a piece in a selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct PieceId(pub usize);

/// What a piece is, and so which section of the payload it goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PieceKind {
    /// Code.
    Text,
    /// Read-only data, strings and constants among them.
    ReadOnly,
    /// Writable data with a value.
    Data,
    /// Zeroed writable data.
    Bss,
    /// Code that exception table entries go to.
    Fixup,
    /// Code that alternatives put in place.
    Replacement,
    /// An entry of `.bug_frames.N`.
    BugFrame(u8),
    /// An entry of `.altinstructions`.
    Alternative,
    /// An entry of `.alt_call_sites`.
    AltCallSite,
    /// An entry of `.ex_table`.
    ExceptionEntry,
    /// A pointer to a hook function.
    Hook(HookKind),
}

/// What a reference of a piece refers to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// Another piece of the payload.
    Piece(PieceId),
    /// A name in the hypervisor's own table, or of a payload below.
    Hypervisor(String),
    /// Something of the hypervisor whose name its own table has more than once.
    Address {
        /// That name.
        name: String,
        /// Where the one that is meant is.
        address: u64,
    },
}

impl Target {
    /// The name of what the hypervisor or a payload below has.
    pub fn name(&self) -> Option<&str> {
        match self {
            Target::Hypervisor(name) | Target::Address { name, .. } => Some(name),
            Target::Piece(_) => None,
        }
    }
}

/// Something that the payload refers to, or replaces, by its address: the hypervisor's own table has its name more than
/// once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ByAddress {
    /// That name.
    pub name: String,
    /// Where it is.
    #[serde(serialize_with = "hex")]
    pub address: u64,
    /// What refers to it; none where it is the function to be replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The object, relative to the tree.
    pub object: String,
    /// What says that it is there, in words.
    pub because: String,
}

pub(crate) fn hex<S: Serializer>(address: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("{address:#x}"))
}

/// A relocated field of a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Bytes from the start of the piece.
    pub offset: u64,
    /// What is computed.
    pub kind: RelocKind,
    /// What it refers to.
    pub target: Target,
    /// Added to the target's address.
    pub addend: i64,
}

/// Something that goes into the payload.
#[derive(Debug, Clone)]
pub struct Piece {
    /// What it is.
    pub kind: PieceKind,
    /// The object that it comes from, relative to the tree.
    pub object: String,
    /// For people: a function, a variable, a string, a special-section entry in words, a section.
    pub label: String,
    /// Its symbol in the payload, in the form of the hypervisor's own table; `None` for what has no name.
    pub symbol: Option<String>,
    /// Whether that symbol is visible to other objects.
    pub global: bool,
    /// Its bytes; relocated fields are zero. For [`PieceKind::Bss`] all zero.
    pub bytes: Vec<u8>,
    /// Size in bytes that its symbol is to say; code that assembler put behind a function does not count.
    pub declared: u64,
    /// Alignment in bytes.
    pub align: u64,
    /// Relocated fields in ascending order.
    pub references: Vec<Reference>,
    /// Why it is included.
    pub because: Because,
}

/// A function of the hypervisor that the payload replaces.
#[derive(Debug, Clone)]
pub struct Replaced {
    /// Its name in the hypervisor's own table.
    pub name: String,
    /// Where it is, if the table has that name more than once.
    pub address: Option<u64>,
    /// The new code.
    pub piece: PieceId,
    /// Where it stands.
    pub place: Place,
    /// The object, relative to the tree.
    pub object: String,
    /// What differs first.
    pub first_difference: Difference,
}

/// A function that the loader is to call.
#[derive(Debug, Clone, Serialize)]
pub struct Hook {
    /// When it is called.
    pub kind: HookKind,
    /// Its name in the source.
    pub function: String,
    /// Its code.
    #[serde(skip)]
    pub piece: PieceId,
    /// The object that asks for it, relative to the tree.
    pub object: String,
    /// Where the function stands.
    #[serde(rename = "where")]
    pub place: Place,
}

/// What the loader of the running hypervisor does, as far as that differs from Xen to Xen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loader {
    /// The kinds of hooks that it knows.
    pub hooks: BTreeSet<HookKind>,
    /// Whether it refuses a payload that replaces no function (Xen up to 4.13).
    pub needs_functions: bool,
    /// Whether a payload's bug frames and exception table count from its upload on (Xen 4.17.4, 4.18.1 and later),
    /// not only while it is applied.
    pub tables_from_upload: bool,
}

/// What the running host will have: the hypervisor and the payloads below.
pub struct World<'w> {
    /// The shipped hypervisor.
    pub hypervisor: &'w Hypervisor,
    /// Names that payloads below export.
    pub exported: &'w BTreeSet<String>,
    /// Functions that payloads below replace.
    pub replaced: &'w BTreeSet<String>,
    /// The hypervisor's loader.
    pub loader: &'w Loader,
    /// Refusals that are to be warnings.
    pub allowed: &'w [Allowance],
    /// Whether all objects that the change reaches are compared: those that read a changed header among them.
    pub whole: bool,
    /// Why nothing is expected of any function, where that is so.
    pub no_expectations: Option<LeftOut>,
}

impl<'w> World<'w> {
    /// A hypervisor without payloads, for a change that is seen as a whole and allowed nothing.
    pub fn bare(hypervisor: &'w Hypervisor, loader: &'w Loader) -> World<'w> {
        static NONE: BTreeSet<String> = BTreeSet::new();
        World {
            hypervisor,
            exported: &NONE,
            replaced: &NONE,
            loader,
            allowed: &[],
            whole: true,
            no_expectations: None,
        }
    }

    /// Whether the hypervisor or a payload below knows the name.
    pub fn has(&self, name: &str) -> bool {
        self.exported.contains(name) || self.hypervisor.named(name).next().is_some()
    }
}
