//! Writes the payload.
