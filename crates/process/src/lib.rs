//! The one place where xsplice starts other programs.
//!
//! Used by build, boot and signing only. Every program runs in a process group of its own, below a small
//! guard process that was forked for it: the guard holds the reading end of a pipe whose writing end lives
//! in this process. When this process dies, whatever killed it, the pipe breaks and the guard kills the
//! whole group, so that not even SIGKILL leaves a compiler or an emulator behind.
//!
//! SIGINT, SIGTERM and SIGHUP set a flag (see [`interrupted`]) and end all running groups; the call that
//! waits for them returns [`Error::Interrupted`], and ordinary unwinding of results cleans up.

mod group;
mod job;
mod passthrough;
mod signals;
mod sweep;

pub use job::{Error, Finished, Job, Running, Sink};
pub use passthrough::{Passed, exec, pass_through};
pub use signals::{catch_signals, interrupted};
pub use sweep::Swept;
