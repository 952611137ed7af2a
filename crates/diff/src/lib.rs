//! What a patch changes: correlate, compare, select and check.
