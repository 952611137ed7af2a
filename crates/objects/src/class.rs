//! What a section is for, told from its flags and its name.
//!
//! Sources of the names: xen/arch/x86/xen.lds.S and xen/include/xen/{init,cache,percpu,bug}.h of Xen 4.13
//! to 4.22, and gcc's `-ffunction-sections` and `-fdata-sections`.

use object::elf;

use crate::HookKind;

/// A section whose entries describe code elsewhere, or which only the loader reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Special {
    /// `.bug_frames.N`: WARN, BUG, run-function and assertion frames.
    BugFrames(u8),
    /// `.altinstructions`: alternatives, and up to Xen 4.20 altcalls.
    Alternatives,
    /// `.altinstr_replacement`: replacement code of alternatives.
    Replacements,
    /// `.alt_call_sites`: altcalls of Xen 4.21 and later.
    AltCallSites,
    /// `.ex_table`: faulting instruction and where to go on.
    ExceptionTable,
    /// `.fixup`: code that exception table entries point at.
    Fixup,
    /// `.livepatch.hooks.*`: pointers to functions that the loader calls.
    Hook(HookKind),
}

/// What a section is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Code that runs at any time.
    Text,
    /// Code that is gone once the hypervisor has booted (`.init.text`), or never linked (`.exit.text`).
    InitText,
    /// Data that is gone once the hypervisor has booted, arrays that boot walks included.
    InitData,
    /// NUL-terminated strings that the linker merges; the entry size in bytes is the section's.
    Strings,
    /// Constants that the linker merges.
    Constants,
    /// Read-only data.
    ReadOnly,
    /// Initialised writable data.
    Data,
    /// Zeroed writable data.
    Bss,
    /// One copy per CPU, zeroed.
    PerCpu,
    /// Describes code elsewhere.
    Special(Special),
    /// Collected by the linker script into an array that boot or set-up code walks.
    BootArray,
    /// Not loaded, or discarded by the linker: no meaning at run time.
    Ignored,
    /// ELF's own: symbol table, string tables, relocations.
    Tables,
    /// In memory at run time, and not understood.
    Unknown,
}

impl Class {
    /// Code or data that an object may refer to after boot.
    pub fn is_data(self) -> bool {
        matches!(self, Class::ReadOnly | Class::Data | Class::Bss | Class::PerCpu)
    }

    /// Gone after boot.
    pub fn is_init(self) -> bool {
        matches!(self, Class::InitText | Class::InitData)
    }

    pub(crate) fn of(name: &str, kind: elf::SectionType, flags: u64) -> Class {
        match kind {
            elf::SHT_NULL | elf::SHT_SYMTAB | elf::SHT_STRTAB | elf::SHT_RELA | elf::SHT_REL => {
                return Class::Tables;
            }
            elf::SHT_SYMTAB_SHNDX => return Class::Tables,
            elf::SHT_NOTE => return Class::Ignored,
            _ => {}
        }
        let alloc = flags & elf::SHF_ALLOC.0 != 0;
        if !alloc || in_family(name, ".discard") || in_family(name, ".note") || name == ".eh_frame" {
            return Class::Ignored;
        }
        if let Some(special) = special(name) {
            return Class::Special(special);
        }
        let executable = flags & elf::SHF_EXECINSTR.0 != 0;
        if in_family(name, ".exit") {
            // The linker script discards both; what they hold can never run.
            return if executable { Class::InitText } else { Class::InitData };
        }
        let init = in_family(name, ".init") || name.starts_with(".initcall");
        if executable {
            return match (init, in_family(name, ".text")) {
                (true, _) => Class::InitText,
                (false, true) => Class::Text,
                (false, false) => Class::Unknown,
            };
        }
        // Strings and constants of boot code as well: their content counts, for whoever names them.
        let merge = flags & elf::SHF_MERGE.0 != 0;
        let strings = flags & elf::SHF_STRINGS.0 != 0;
        match (merge, strings) {
            (true, true) => return Class::Strings,
            (true, false) => return Class::Constants,
            _ if init => return Class::InitData,
            _ => {}
        }
        by_family(name, kind)
    }
}

/// Whether `name` is `family` itself or one of its members (`.text` has `.text.foo`, not `.textual`).
fn in_family(name: &str, family: &str) -> bool {
    name.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn special(name: &str) -> Option<Special> {
    Some(match name {
        ".bug_frames.0" => Special::BugFrames(0),
        ".bug_frames.1" => Special::BugFrames(1),
        ".bug_frames.2" => Special::BugFrames(2),
        ".bug_frames.3" => Special::BugFrames(3),
        ".altinstructions" => Special::Alternatives,
        ".altinstr_replacement" => Special::Replacements,
        ".alt_call_sites" => Special::AltCallSites,
        ".ex_table" => Special::ExceptionTable,
        ".fixup" => Special::Fixup,
        _ => return HookKind::of_section(name).map(Special::Hook),
    })
}

/// Arrays that the linker script gathers from all objects: a new member in a payload is never seen.
const BOOT_ARRAYS: &[&str] = &[
    ".data.schedulers",
    ".data.param",
    ".data.rel.ro.vpci",
    ".data.vpci",
    ".rodata.vpci",
    ".rodata.cf_clobber",
    ".ctors",
    ".init_array",
    ".arch.info",
    ".dev.info",
];

fn by_family(name: &str, kind: elf::SectionType) -> Class {
    if BOOT_ARRAYS.iter().any(|array| in_family(name, array)) {
        return Class::BootArray;
    }
    if in_family(name, ".bss.percpu") || in_family(name, ".data.percpu") {
        return Class::PerCpu;
    }
    if in_family(name, ".bss") {
        return Class::Bss;
    }
    // gcc's name for constant data that needs relocations; Xen links it into .rodata.
    if in_family(name, ".rodata") || in_family(name, ".data.rel.ro") {
        return Class::ReadOnly;
    }
    if in_family(name, ".data") {
        return if kind == elf::SHT_NOBITS { Class::Bss } else { Class::Data };
    }
    Class::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: u64 = elf::SHF_ALLOC.0;
    const AX: u64 = A | elf::SHF_EXECINSTR.0;
    const AW: u64 = A | elf::SHF_WRITE.0;
    const AMS: u64 = A | (elf::SHF_MERGE.0 | elf::SHF_STRINGS.0);

    #[test]
    fn families_of_xen_have_their_class() {
        let cases = [
            (".text.foo", elf::SHT_PROGBITS, AX, Class::Text),
            (".text.unlikely.foo", elf::SHT_PROGBITS, AX, Class::Text),
            (".textual", elf::SHT_PROGBITS, AX, Class::Unknown),
            (".init.text", elf::SHT_PROGBITS, AX, Class::InitText),
            (".initcall1.init", elf::SHT_PROGBITS, AW, Class::InitData),
            (".init.rodata.str", elf::SHT_PROGBITS, AMS, Class::Strings),
            (".rodata.str1.1", elf::SHT_PROGBITS, AMS, Class::Strings),
            (".rodata.cst16", elf::SHT_PROGBITS, A | elf::SHF_MERGE.0, Class::Constants),
            (".data.rel.ro.local.ops", elf::SHT_PROGBITS, AW, Class::ReadOnly),
            (".data.read_mostly", elf::SHT_PROGBITS, AW, Class::Data),
            (".bss.percpu.read_mostly", elf::SHT_NOBITS, AW, Class::PerCpu),
            (".bug_frames.3", elf::SHT_PROGBITS, A, Class::Special(Special::BugFrames(3))),
            (".bug_frames.4", elf::SHT_PROGBITS, A, Class::Unknown),
            (".livepatch.hooks.load", elf::SHT_PROGBITS, AW, Class::Special(Special::Hook(HookKind::Load))),
            (".livepatch.hooks.lood", elf::SHT_PROGBITS, AW, Class::Unknown),
            (".livepatch.funcs", elf::SHT_PROGBITS, AW, Class::Unknown),
            (".discard.retpoline", elf::SHT_PROGBITS, A, Class::Ignored),
            (".note.gnu.property", elf::SHT_NOTE, A, Class::Ignored),
            (".debug_info", elf::SHT_PROGBITS, 0, Class::Ignored),
            (".strange", elf::SHT_PROGBITS, A, Class::Unknown),
        ];
        for (name, kind, flags, class) in cases {
            assert_eq!(Class::of(name, kind, flags), class, "{name}");
        }
    }
}
