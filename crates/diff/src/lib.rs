//! What a patch changes: correlate, compare, select and check.
//!
//! Bytes of objects in, a [`Patchable`] selection out. Each stage takes the value of the one before it:
//! [`ObjectPair::parse`], [`Parts::of`], [`Correlated::of`], [`Compared::of`], [`Selection::of`],
//! [`Patchable::check`]. Objects that the patch leaves alone join by [`add_users`]. Nothing here runs a program or reads a file.

mod assembler;
mod base;
mod callgraph;
mod changes;
mod check;
pub mod codes;
mod compare;
mod configuration;
mod difference;
mod entries;
mod expect;
mod flow;
mod flow_graph;
mod guards;
mod hooks;
mod host;
mod items;
mod layouts;
mod listing;
mod meaning;
mod names;
mod pair;
mod pieces;
mod proof;
mod prototypes;
mod reasons;
mod rodata;
mod select;
mod users;
mod words;

pub use base::{Base, Differing, How as BaseHow, prove};
pub use changes::{ChangedData, ChangedFunction, Changes, NamedFunction};
pub use check::{Patchable, Replacement, allow, base_of};
pub use compare::{Compared, InitChange, Verdict};
pub use configuration::{Configuration, OtherOption, configuration};
pub use entries::{Entries, Entry, Field, Spot};
pub use expect::{Expectation, LeftOut};
pub use items::{Item, ItemId, ItemKind, Items};
pub use layouts::layout_problems;
pub use meaning::{Content, EntryMeaning, Fingerprint, Known, Meaning, View};
pub use pair::{Correlated, Input, ObjectPair, Parts};
pub use pieces::{ByAddress, Hook, Loader, Piece, PieceId, PieceKind, Reference, Replaced, Target, World};
pub use reasons::{How, ThroughOriginal};
pub use select::Selection;
pub use users::add_users;
