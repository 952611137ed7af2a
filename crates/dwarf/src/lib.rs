//! Type layouts and source lines from DWARF.
