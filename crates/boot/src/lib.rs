//! Boots a Xen in QEMU and applies payloads to it.
//!
//! Two parts. [`fetch`] and [`fetch_boot`] get Debian's packages of Xen 4.17 into a cache folder, without
//! installing anything. [`Lab`] boots a hypervisor with a minimal control domain, runs the steps of a
//! [`Plan`] in it with the real `xen-livepatch`, and returns each step's exit code, output and the lines
//! that Xen wrote to its console meanwhile.
//!
//! Not covered by this lab: CET, most speculation controls and many processors, since the machine is
//! emulated in software.

mod cache;
pub mod codes;
mod cpio;
mod debian;
mod lab;
mod protocol;
mod report;
mod script;
mod tools;

pub use cache::default_cache;
pub use cpio::Archive;
pub use debian::{
    BULLSEYE, DebianBoot, DebianXen, OLD_XEN_CC, OLD_XEN_VERSION, OldXen, PINNED_VERSION, Release, Shipped,
    TRIXIE, fetch, fetch_boot, fetch_old, fetch_shipped,
};
pub use lab::{DEFAULT_TIMEOUT, Lab, Plan, PlanFile};
pub use protocol::Stream;
pub use report::{BootReport, Ended, State, StepResult, render_text};
pub use script::{Expect, Role, Step, parse_script, payload_name};
