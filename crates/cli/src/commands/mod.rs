//! One module for each command.

pub(crate) mod boot;
pub(crate) mod build;
pub(crate) mod cache;
pub(crate) mod diff;
pub(crate) mod explain;
pub(crate) mod inspect;
pub(crate) mod verify;
