//! End-to-end tests on the Xen that Debian 12 ships.
fn main() {}
