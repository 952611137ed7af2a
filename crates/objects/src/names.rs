//! What names of a file may take: many symbols can share the bytes of one long name, and each gets a copy.

/// The longest name that is taken, in bytes.
const LONGEST: usize = 4096;
/// Bytes of names per byte of the file: those of symbols, of 24 bytes each, are seldom longer than 100.
const SHARE: usize = 16;

/// Counts the names of one file.
pub(crate) struct Names {
    left: usize,
}

impl Names {
    /// For a file of this size in bytes.
    pub(crate) fn of(file: usize) -> Names {
        Names { left: file.saturating_mul(SHARE) }
    }

    /// Whether a name of this length in bytes can be taken beside those before.
    pub(crate) fn take(&mut self, length: usize) -> bool {
        let left = self.left.checked_sub(length).filter(|_| length <= LONGEST);
        self.left = left.unwrap_or(0);
        left.is_some()
    }
}
