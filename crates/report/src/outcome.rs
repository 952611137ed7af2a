//! How a command ends.

use serde::Serialize;

/// The end of a command; its number is the exit code of the process, for every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// What was asked for is there.
    Done,
    /// Usage, input, build or I/O: something other than the change itself stood in the way.
    Failed,
    /// The change cannot be live patched, the base is not the shipped one, or a payload is not acceptable.
    Refused,
    /// There is nothing to patch, or no difference.
    NothingToPatch,
}

impl Outcome {
    /// The exit code of the process: 0, 1, 2 or 3.
    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::Done => 0,
            Outcome::Failed => 1,
            Outcome::Refused => 2,
            Outcome::NothingToPatch => 3,
        }
    }
}
