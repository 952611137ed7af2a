//! A payload beside the object that it was made of: plain, with special sections, and with hooks.

use super::elf::*;
use super::sample::{self, PAYLOAD_ID, XEN_ID};

/// The function: calls of helper and printk, a text, a comparison, a variable, a constant, itself, the end.
pub const CODE: [u8; 39] = [
    0xe8, 0, 0, 0, 0, // call helper
    0xe8, 0, 0, 0, 0, // call printk
    0x48, 0x8d, 0x3d, 0, 0, 0, 0, // lea text(%rip), %rdi
    0x83, 0xf8, 5, // cmp $5, %eax
    0x8b, 0x05, 0, 0, 0, 0, // mov some_data+4(%rip), %eax
    0x48, 0x8b, 0x05, 0, 0, 0, 0, // mov table(%rip), %rax
    0xe8, 0, 0, 0, 0,    // call target_fn
    0xc3, // ret
];
pub const HELPER: u64 = 1;
pub const PRINTK: u64 = 6;
pub const TEXT: u64 = 13;
pub const TRAP: usize = 17;
pub const IMMEDIATE: usize = 19;
pub const VARIABLE: u64 = 22;
pub const TABLE: u64 = 29;
pub const ITSELF: u64 = 34;

/// What the compiler made of common/a.c.
pub fn object() -> Elf {
    let mut elf = Elf::new(1);
    let code = elf.add(".text.target_fn", PROGBITS, A | X, 16, &CODE);
    let helper = elf.add(".text.helper", PROGBITS, A | X, 16, &[0x31, 0xc0, 0xc3]);
    elf.add(".rodata.str1.1", PROGBITS, A | 0x30, 1, b"no\0yes %d\0");
    elf.sec(".rodata.str1.1").entsize = 1;
    let table = elf.add(".rodata.table", PROGBITS, A, 8, &[7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    elf.symbol("a.c", ABS, 0, 0, FILE, LOCAL);
    for index in 1..=elf.sections.len() as u16 {
        elf.symbol("", index, 0, 0, SECTION, LOCAL);
    }
    elf.symbol("helper", helper, 0, 3, FUNC, LOCAL);
    elf.symbol("table", table, 0, 16, OBJECT, LOCAL);
    elf.symbol("target_fn", code, 0, CODE.len() as u64, FUNC, GLOBAL);
    elf.symbol("printk", 0, 0, 0, 0, GLOBAL);
    elf.symbol("some_data", 0, 0, 0, 0, GLOBAL);
    let from = ".text.target_fn";
    elf.relocate(from, HELPER, R_PLT32, ".text.helper", -4);
    elf.relocate(from, PRINTK, R_PLT32, "printk", -4);
    elf.relocate(from, TEXT, R_PC32, ".rodata.str1.1", 3 - 4);
    // Four bytes into it.
    elf.relocate(from, VARIABLE, R_PC32, "some_data", 0);
    elf.relocate(from, TABLE, R_PC32, ".rodata.table", -4);
    elf.relocate(from, ITSELF, R_PLT32, "target_fn", -4);
    elf.relocate(".rodata.table", 8, R_64, "printk", 0);
    elf
}

/// Symbols of the payload that share a name with others.
pub const NEW: &str = "#7";
pub const ORIGINAL: &str = "#8";

/// The payload made of it: its constants are in one section, without names.
pub fn payload() -> Elf {
    let mut elf = Elf::new(1);
    let code = elf.add(".text", PROGBITS, A | X, 16, &CODE);
    let mut constants = b"yes %d\0".to_vec();
    constants.resize(16, 0);
    constants.extend([7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    elf.add(".rodata", PROGBITS, A, 16, &constants);
    elf.add(".livepatch.strings", PROGBITS, A, 1, b"target_fn\0");
    elf.add(".livepatch.funcs", PROGBITS, A | W, 8, &sample::func(CODE.len() as u32, 32));
    elf.add(".note.gnu.build-id", NOTE, A, 4, &note(&PAYLOAD_ID));
    elf.add(".livepatch.depends", PROGBITS, A, 4, &note(&XEN_ID));
    elf.add(".livepatch.xen_depends", PROGBITS, A, 4, &note(&XEN_ID));
    for index in [2, 3] {
        elf.symbol("", index, 0, 0, SECTION, LOCAL);
    }
    for name in ["common/a.c#helper", "printk", "some_data", "common/b.c#helper"] {
        elf.symbol(name, 0, 0, 0, 0, GLOBAL);
    }
    elf.symbol("target_fn", code, 0, CODE.len() as u64, FUNC, LOCAL);
    elf.symbol("target_fn", 0, 0, 0, 0, GLOBAL);
    elf.relocate(".text", HELPER, R_PLT32, "common/a.c#helper", -4);
    elf.relocate(".text", PRINTK, R_PLT32, "printk", -4);
    elf.relocate(".text", TEXT, R_PC32, ".rodata", -4);
    elf.relocate(".text", VARIABLE, R_PC32, "some_data", 0);
    elf.relocate(".text", TABLE, R_PC32, ".rodata", 16 - 4);
    elf.relocate(".text", ITSELF, R_PLT32, ORIGINAL, -4);
    elf.relocate(".rodata", 24, R_64, "printk", 0);
    elf.relocate(".livepatch.funcs", 0, R_64, ".livepatch.strings", 0);
    elf.relocate(".livepatch.funcs", 8, R_64, NEW, 0);
    elf
}

/// Both with a bug frame, an alternative that calls, and an exception: in the payload, their code has no names.
pub fn special() -> (Elf, Elf) {
    let (mut elf, mut twin) = (payload(), object());
    for (file, code, text, text_at, ordinary) in [
        (&mut elf, ".text", ".rodata", 0, "printk"),
        (&mut twin, ".text.target_fn", ".rodata.str1.1", 3, "printk"),
    ] {
        // Instead of the comparison: UD2.
        file.sec(code).data[TRAP..TRAP + 2].copy_from_slice(&[0x0f, 0x0b]);
        file.sec(code).data[TRAP + 2] = 0x90;
        file.add(".altinstr_replacement", PROGBITS, A | X, 1, &[0xe8, 0, 0, 0, 0]);
        file.add(".fixup", PROGBITS, A | X, 1, &[0x31, 0xc0, 0xe9, 0, 0, 0, 0]);
        file.add(".bug_frames.1", PROGBITS, A, 4, &[0; 8]);
        let mut alternative = [0; 14];
        alternative[8..14].copy_from_slice(&[0x34, 0, 5, 5, 0, 0]);
        file.add(".altinstructions", PROGBITS, A, 1, &alternative);
        file.add(".ex_table", PROGBITS, A, 4, &[0; 8]);
        for name in [code, ".altinstr_replacement", ".fixup"] {
            let index = file.index(name);
            if !file.symbols.iter().any(|s| s.kind == SECTION && s.section == index) {
                file.symbol("", index, 0, 0, SECTION, LOCAL);
            }
        }
        file.relocate(".altinstr_replacement", 1, R_PLT32, ordinary, -4);
        file.relocate(".fixup", 3, R_PLT32, code, VARIABLE as i64);
        file.relocate(".bug_frames.1", 0, R_PC32, code, TRAP as i64 + (2 << 24));
        file.relocate(".bug_frames.1", 4, R_PC32, text, text_at + 4 + (44 << 24));
        file.relocate(".altinstructions", 0, R_PC32, code, PRINTK as i64 - 1);
        file.relocate(".altinstructions", 4, R_PC32, ".altinstr_replacement", 0);
        file.relocate(".ex_table", 0, R_PC32, code, VARIABLE as i64 - 2);
        file.relocate(".ex_table", 4, R_PC32, ".fixup", 0);
    }
    (elf, twin)
}

/// Kinds of hooks with the functions of each.
pub type Hooks<'h> = &'h [(&'h str, &'h [&'h str])];

/// Payload and object with functions that are hooks of these kinds: `first` and `second` when loading, `third` when applied.
pub fn with_hooks(payload_says: Hooks<'_>, object_says: Hooks<'_>) -> (Elf, Elf) {
    let hooked = |mut elf: Elf, says: Hooks<'_>| {
        for name in ["first", "second", "third"] {
            let section = format!(".text.{name}");
            let index = elf.add(&section, PROGBITS, A | X, 16, &[0xf3, 0x0f, 0x1e, 0xfa, 0xc3]);
            elf.symbol(name, index, 0, 5, FUNC, LOCAL);
        }
        for (kind, functions) in says {
            let section = format!(".livepatch.hooks.{kind}");
            elf.add(&section, PROGBITS, A, 8, &vec![0; functions.len() * 8]);
            for (at, name) in (0..).step_by(8).zip(*functions) {
                elf.relocate(&section, at, R_64, name, 0);
            }
        }
        elf
    };
    (hooked(payload(), payload_says), hooked(object(), object_says))
}
