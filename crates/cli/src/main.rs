//! The `xsplice` command.
fn main() {}
