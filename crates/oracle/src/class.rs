//! What kinds of sections there are, by name and flags.
//!
//! From Xen's linker script (xen/arch/x86/xen.lds.S, 4.13 to 4.22) and gcc's section names.

use crate::listing::Section;

/// What a section is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Not in memory, or thrown away by the linker.
    Ignored,
    /// Entries that describe code: see [`crate::special`].
    Special,
    /// Code that alternatives and exception table entries bring in.
    Aside,
    Code,
    /// Code and data that exist only at boot; whether it is constant.
    Init(bool),
    Writable,
    PerCpu,
    Constant,
    /// In memory, and not known; whether it is constant.
    Unknown(bool),
}

impl Class {
    /// Whether symbols in it name functions or variables.
    pub fn has_items(self) -> bool {
        !matches!(self, Class::Ignored | Class::Special)
    }

    /// Whether nothing writes to it at run time.
    pub fn is_constant(self) -> bool {
        matches!(self, Class::Constant | Class::Init(true) | Class::Unknown(true))
    }

    /// Whether it is gone once Xen runs.
    pub fn is_init(self) -> bool {
        matches!(self, Class::Init(_))
    }
}

const SPECIAL: &[&str] = &[
    ".altinstructions",
    ".alt_call_sites",
    ".bug_frames.0",
    ".bug_frames.1",
    ".bug_frames.2",
    ".bug_frames.3",
    ".ex_table",
    ".ex_table.pre",
];

/// The class of a section.
pub(crate) fn of(section: &Section) -> Class {
    let name = section.name.as_str();
    let starts =
        |prefix: &str| name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let known_type = matches!(section.kind.as_str(), "PROGBITS" | "NOBITS");
    if !section.has('A')
        || section.kind == "NOTE"
        || [".discard", ".note", ".comment", ".eh_frame", ".exit", ".exitcall"].into_iter().any(starts)
        || name.starts_with(".note")
        || name.starts_with(".debug")
    {
        return Class::Ignored;
    }
    if !known_type {
        return Class::Unknown(!section.has('W'));
    }
    if SPECIAL.contains(&name) {
        return Class::Special;
    }
    if matches!(name, ".altinstr_replacement" | ".fixup") {
        return Class::Aside;
    }
    if starts(".init")
        || (name.starts_with(".initcall") || name.starts_with(".init")) && name.ends_with(".init")
    {
        let constant = starts(".init.rodata") || !section.has('W');
        return Class::Init(constant);
    }
    if section.has('X') {
        return if starts(".text") { Class::Code } else { Class::Unknown(false) };
    }
    if starts(".rodata") || starts(".data.rel.ro") {
        return Class::Constant;
    }
    if starts(".bss.percpu") || starts(".data.percpu") {
        return Class::PerCpu;
    }
    if (starts(".data") || starts(".bss")) && section.has('W') {
        return Class::Writable;
    }
    Class::Unknown(!section.has('W'))
}
