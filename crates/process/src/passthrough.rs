//! Running a program in this process's own place: for the compiler wrapper.
//!
//! A wrapper lives inside a group that [`Job`](crate::Job) started, and ends with it; it must hand on its
//! standard input and output untouched, and cost next to nothing. So these calls make no group of their own.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};

/// Replaces this process by `program`. Returns only when that fails, with the reason.
pub fn exec(program: impl AsRef<OsStr>, args: &[OsString]) -> io::Error {
    Command::new(program).args(args).exec()
}

/// How a program ended that ran with this process's own standard input and output.
#[derive(Debug)]
pub struct Passed {
    /// Its exit code; 128 + N where signal N ended it.
    pub code: i32,
    /// All that it wrote to standard error; nothing of it has been shown.
    pub stderr: Vec<u8>,
}

/// Runs `program` in this process's group, with its standard input and output, and collects standard error. It has
/// this process's environment with `changes`: a variable without a value is taken away.
///
/// # Errors
/// When it cannot be started, or waiting fails.
pub fn pass_through(
    program: impl AsRef<OsStr>,
    args: &[OsString],
    changes: &[(OsString, Option<OsString>)],
) -> io::Result<Passed> {
    let mut command = Command::new(program);
    for (name, value) in changes {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let child =
        command.args(args).stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(Stdio::piped()).spawn()?;
    let output = child.wait_with_output()?;
    let code = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0));
    Ok(Passed { code, stderr: output.stderr })
}
