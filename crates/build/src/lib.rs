//! Plans a build, and captures original and patched objects from a private copy of a Xen tree.
