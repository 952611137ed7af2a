//! Folders that do not outlive this process.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

/// Waits for the end of its input, which comes with the end of the process that holds the other end, whatever ended
/// it; then removes. Programs that are just being killed may still add files.
const SWEEP: &str =
    "cat >/dev/null; for i in 1 2 3 4 5 6 7 8 9; do rm -rf -- \"$1\" && exit; sleep 0.2; done";

/// A folder that is removed with all that is in it when this value is dropped, or this process ends: not even SIGKILL
/// leaves it behind.
#[derive(Debug)]
pub struct Swept {
    path: PathBuf,
    sweeper: Child,
    /// Held open for as long as the folder is wanted.
    input: Option<ChildStdin>,
}

impl Swept {
    /// Takes charge of a folder.
    ///
    /// # Errors
    /// When the shell that removes it cannot be started. The folder is left alone then.
    pub fn new(path: impl Into<PathBuf>) -> io::Result<Swept> {
        let path = path.into();
        let mut sweeper = Command::new("sh")
            .args(["-c", SWEEP, "sh"])
            .arg(&path)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C goes to the group that has the terminal.
            .process_group(0)
            .spawn()?;
        let input = sweeper.stdin.take();
        Ok(Swept { path, sweeper, input })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Swept {
    fn drop(&mut self) {
        self.input = None;
        // Only a broken wait could fail here, and then there is nothing left to wait for.
        let _ = self.sweeper.wait();
    }
}
