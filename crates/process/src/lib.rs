//! The one place where xsplice starts other programs.
