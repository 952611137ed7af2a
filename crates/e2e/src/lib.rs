//! What the end-to-end tests, the demo and the project's tasks share: patches as edit recipes, a tool that takes a
//! section out of a payload, and the comparison of objects that should be equal.
//!
//! A recipe says where to edit by names of functions and short anchors, and carries our own lines only. It
//! becomes a unified diff against the tree at hand when it is used, so that no line of Xen's has to be kept.

pub mod answers;
pub mod damage;
pub mod elf;
pub mod hooks;
pub mod image;
pub mod kinds;
mod recipe;
pub mod recipes;
pub mod sample;
pub mod unchanged;
pub mod write;

pub use recipe::{At, Edit, Made, Recipe, RecipeError};
