//! What a comparison may cost. Files that ask for much, with names and data that lie over one another, could make it as
//! long as the product of their sizes.

use std::cell::Cell;

/// The most steps. A step is about a byte that is compared; a payload has at most 2 MiB, with few references to a text.
const MOST: u64 = 1 << 26;

/// Steps that are left.
pub(super) struct Effort(Cell<u64>);

impl Effort {
    pub(super) fn full() -> Effort {
        Effort(Cell::new(MOST))
    }

    /// Takes steps, and says whether there were as many.
    pub(super) fn spend(&self, steps: usize) -> bool {
        let left = self.0.get().checked_sub(steps as u64);
        self.0.set(left.unwrap_or_default());
        left.is_some_and(|left| left > 0)
    }

    /// Whether none are left, so that something was not compared.
    pub(super) fn is_spent(&self) -> bool {
        self.0.get() == 0
    }
}
