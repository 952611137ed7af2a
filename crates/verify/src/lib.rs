//! Verifies and inspects a payload with a parser of its own.
