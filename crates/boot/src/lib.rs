//! Boots a Xen in QEMU and applies payloads to it.
