//! The hypervisor and the payload that tests start from.

use super::elf::*;

pub const XEN_ID: [u8; 20] = [0x11; 20];
pub const PAYLOAD_ID: [u8; 20] = [0x22; 20];

/// Where the image is linked.
pub const TEXT: u64 = 0xffff_82d0_4020_0000;
pub const INIT: u64 = TEXT + 0x20_0000;
const DATA: u64 = TEXT + 0x40_0000;
/// End of the last 2 MiB page of the image.
pub const IMAGE_END: u64 = TEXT + 0x60_0000;

const ENDBR: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
const POISON: [u8; 4] = [0x66, 0x0f, 0x1f, 0x01];

/// Functions of the hypervisor: file, name, offset in text, size, first bytes.
const FUNCTIONS: [(&str, &str, u64, u64, &[u8]); 13] = [
    ("common/a.c", "helper", 0x100, 32, &[0x31, 0xc0]),
    ("common/b.c", "helper", 0x140, 32, &[0x31, 0xc0]),
    ("common/c.c", "twin", 0x180, 16, &[0x90]),
    ("common/c.c", "twin", 0x1a0, 16, &[0x90]),
    ("", "target_fn", 0x200, 32, &ENDBR),
    ("", "plain_fn", 0x240, 48, &[0x48, 0x89, 0xf8, 0x48, 0x01, 0xf0, 0xc3]),
    ("", "tiny_fn", 0x280, 4, &[0x31, 0xc0, 0xc3, 0x90]),
    ("", "small_endbr_fn", 0x290, 8, &ENDBR),
    ("", "small_poison_fn", 0x2a0, 8, &POISON),
    ("", "altered_fn", 0x2c0, 32, &[0x55, 0x48, 0x89, 0xe5]),
    ("", "sealable_fn", 0x300, 32, &ENDBR),
    ("", "thunked_fn", 0x340, 16, &[0x31, 0xc0, 0xe9]),
    ("", "__x86_return_thunk", 0x380, 1, &[0xc3]),
];

/// A hypervisor's symbol file.
pub fn xen() -> Elf {
    let mut elf = Elf::new(2);
    let mut text = vec![0xccu8; 0x1000];
    for (_, _, at, _, code) in FUNCTIONS {
        text[at as usize..at as usize + code.len()].copy_from_slice(code);
    }
    // thunked_fn: xor %eax,%eax; jmp __x86_return_thunk.
    text[0x343..0x347].copy_from_slice(&(0x380i32 - 0x347).to_le_bytes());
    // One alternative in altered_fn: 3 bytes with 2 of padding at +16.
    let table = 0x100u64;
    let mut init_data = vec![0u8; 0x200];
    let original = (TEXT + 0x2d0).wrapping_sub(INIT + 0x1000 + table) as u32;
    init_data[0x100..0x104].copy_from_slice(&original.to_le_bytes());
    init_data[0x10a] = 3;
    init_data[0x10c] = 2;
    // An altcall, whose feature is that of the payload's.
    let site = (TEXT + 0x900).wrapping_sub(INIT + 0x1000 + table + 14) as u32;
    init_data[0x10e..0x112].copy_from_slice(&site.to_le_bytes());
    init_data[0x112..0x116].copy_from_slice(&(0x140u32 - 0x112).to_le_bytes());
    init_data[0x116..0x11c].copy_from_slice(&[0x80, 0, 6, 5, 0, 0]);
    init_data[0x140..0x145].copy_from_slice(&[0xe8, 0xfb, 0xff, 0xff, 0xff]);
    // One function whose ENDBR64 may be sealed.
    init_data[0x80..0x88].copy_from_slice(&(TEXT + 0x300).to_le_bytes());
    for (name, kind, flags, addr, data) in [
        (".text", PROGBITS, A | X, TEXT, text.as_slice()),
        (".note.gnu.build-id", NOTE, A, TEXT + 0x10_0000, &note(&XEN_ID)),
        (".init.text", PROGBITS, A | X, INIT, &[0xc3; 0x100]),
        (".init.data", PROGBITS, A | W, INIT + 0x1000, &init_data),
        (".data", PROGBITS, A | W, DATA, &[0; 0x100]),
        (".comment", PROGBITS, 0, 0, b"compiler\0"),
    ] {
        elf.add(name, kind, flags, 16, data);
        elf.sec(name).addr = addr;
    }
    for (file, name, at, size, _) in FUNCTIONS.iter().filter(|f| !f.0.is_empty()) {
        if elf.symbols.last().is_none_or(|s| s.kind == FUNC) {
            elf.symbol(file, ABS, 0, 0, FILE, LOCAL);
        }
        elf.symbol(name, 1, TEXT + at, *size, FUNC, LOCAL);
    }
    elf.symbol("start_pa", ABS, 0x20_0000, 0, 0, GLOBAL);
    elf.symbol("_compiled.1", 5, DATA, 4, OBJECT, GLOBAL);
    for (_, name, at, size, _) in FUNCTIONS.iter().filter(|f| f.0.is_empty()) {
        elf.symbol(name, 1, TEXT + at, *size, FUNC, GLOBAL);
    }
    for (name, section, at) in [
        ("_start", 1, TEXT),
        ("printk", 1, TEXT + 0x800),
        ("__init_begin", 3, INIT),
        ("init_fn", 3, INIT + 0x10),
        ("__initdata_cf_clobber_start", 4, INIT + 0x1080),
        ("__initdata_cf_clobber_end", 4, INIT + 0x1088),
        ("__alt_instructions", 4, INIT + 0x1100),
        ("__alt_instructions_end", 4, INIT + 0x111c),
        ("__init_end", 5, DATA),
        ("some_data", 5, DATA + 0x10),
        ("some_pointer", 5, DATA + 0x20),
        ("_end", 5, IMAGE_END - 0x1000),
        ("__2M_rwdata_end", 5, IMAGE_END),
    ] {
        elf.symbol(name, section, at, if name == "init_fn" { 16 } else { 0 }, 0, GLOBAL);
    }
    elf
}

/// Offsets in `.text.new_fn`.
pub const CALL: u64 = 4;
pub const TRAP: u64 = 9;
pub const SITE: u64 = 11;
pub const ALTCALL: u64 = 16;
pub const FAULT: u64 = 22;
pub const NEW_SIZE: u64 = 32;

/// A payload that replaces target_fn, and has one of everything.
pub fn payload() -> Elf {
    let mut elf = Elf::new(1);
    let mut code = vec![0x90u8; NEW_SIZE as usize];
    code[..4].copy_from_slice(&ENDBR);
    code[CALL as usize] = 0xe8;
    code[TRAP as usize..TRAP as usize + 2].copy_from_slice(&[0x0f, 0x0b]);
    code[ALTCALL as usize..ALTCALL as usize + 2].copy_from_slice(&[0xff, 0x15]);
    code[31] = 0xc3;
    elf.add(".text.new_fn", PROGBITS, A | X, 16, &code);
    elf.add(".text.fresh_fn", PROGBITS, A | X, 16, &[0x31, 0xc0, 0xc3]);
    elf.add(".text.on_load", PROGBITS, A | X, 16, &[0xf3, 0x0f, 0x1e, 0xfa, 0xc3]);
    elf.add(".fixup", PROGBITS, A | X, 1, &[0xeb, 0xfe]);
    // Three bytes for the alternative, five for the altcall.
    let replacements = [0x0f, 0x01, 0xcb, 0xe8, 0xfb, 0xff, 0xff, 0xff];
    elf.add(".altinstr_replacement", PROGBITS, A | X, 1, &replacements);
    elf.add(".rodata.str", PROGBITS, A, 1, b"common/a.c\0");
    elf.add(".bug_frames.1", PROGBITS, A, 4, &[0; 8]);
    let mut alternatives = vec![0u8; 28];
    alternatives[8..14].copy_from_slice(&[0x34, 0, 0, 3, 3, 0]);
    alternatives[22..28].copy_from_slice(&[0x80, 0, 6, 5, 0, 0]);
    elf.add(".altinstructions", PROGBITS, A, 1, &alternatives);
    elf.add(".ex_table", PROGBITS, A, 4, &[0; 8]);
    elf.add(".livepatch.strings", PROGBITS, A, 1, b"target_fn\0");
    elf.add(".livepatch.funcs", PROGBITS, A | W, 8, &func(NEW_SIZE as u32, 32));
    elf.add(".note.gnu.build-id", NOTE, A, 4, &note(&PAYLOAD_ID));
    elf.add(".livepatch.depends", PROGBITS, A, 4, &note(&XEN_ID));
    elf.add(".livepatch.xen_depends", PROGBITS, A, 4, &note(&XEN_ID));
    elf.add(".modinfo", PROGBITS, A, 1, b"tool=xsplice\0patch=a=b.patch\0");
    elf.add(".livepatch.hooks.load", PROGBITS, A, 8, &[0; 8]);
    for index in 1..=elf.sections.len() as u16 {
        elf.symbol("", index, 0, 0, SECTION, LOCAL);
    }
    elf.symbol("fresh_fn", 2, 0, 3, FUNC, LOCAL);
    elf.symbol("on_load", 3, 0, 5, FUNC, LOCAL);
    elf.symbol("new_fn", 1, 0, NEW_SIZE, FUNC, GLOBAL);
    for name in ["printk", "common/a.c#helper", "some_pointer"] {
        elf.symbol(name, 0, 0, 0, 0, GLOBAL);
    }
    elf.relocate(".text.new_fn", CALL + 1, R_PLT32, "printk", -4);
    elf.relocate(".text.new_fn", ALTCALL + 2, R_PC32, "some_pointer", -4);
    elf.relocate(".text.new_fn", FAULT + 2, R_PC32, "common/a.c#helper", -4);
    // Line 300 is 2 * 128 + 44.
    elf.relocate(".bug_frames.1", 0, R_PC32, ".text.new_fn", TRAP as i64 + (2 << 24));
    elf.relocate(".bug_frames.1", 4, R_PC32, ".rodata.str", 4 + (44 << 24));
    elf.relocate(".altinstructions", 0, R_PC32, ".text.new_fn", SITE as i64 + 2);
    elf.relocate(".altinstructions", 4, R_PC32, ".altinstr_replacement", 0);
    elf.relocate(".altinstructions", 14, R_PC32, ".text.new_fn", ALTCALL as i64);
    elf.relocate(".altinstructions", 18, R_PC32, ".altinstr_replacement", 3);
    // The first alternative has no bytes of its own but padding: see the lengths above.
    elf.sec(".altinstructions").data[10..13].copy_from_slice(&[0, 3, 3]);
    elf.relocate(".ex_table", 0, R_PC32, ".text.new_fn", FAULT as i64);
    elf.relocate(".ex_table", 4, R_PC32, ".fixup", 0);
    elf.relocate(".livepatch.funcs", 0, R_64, ".livepatch.strings", 0);
    elf.relocate(".livepatch.funcs", 8, R_64, "new_fn", 0);
    elf.relocate(".livepatch.hooks.load", 0, R_64, "on_load", 0);
    elf
}

/// An entry of 104 bytes without its pointers.
pub fn func(new_size: u32, old_size: u32) -> Vec<u8> {
    let mut raw = vec![0u8; 104];
    raw[24..28].copy_from_slice(&new_size.to_le_bytes());
    raw[28..32].copy_from_slice(&old_size.to_le_bytes());
    raw[32] = 2;
    raw
}

/// Lets the payload replace another function.
pub fn retarget(elf: &mut Elf, name: &str, old_size: u32) {
    let mut string = name.as_bytes().to_vec();
    string.push(0);
    elf.sec(".livepatch.strings").data = string;
    elf.sec(".livepatch.funcs").data[28..32].copy_from_slice(&old_size.to_le_bytes());
}

/// Lets the entry ask for NOPs.
pub fn nops(elf: &mut Elf, name: &str, new_size: u32, old_size: u32) {
    retarget(elf, name, old_size);
    let funcs = elf.sec(".livepatch.funcs");
    funcs.data[24..28].copy_from_slice(&new_size.to_le_bytes());
    funcs.relocations.retain(|r| r.offset != 8);
}

/// Adds an enabled expectation.
pub fn expect(elf: &mut Elf, bytes: &[u8], reserved: u8) {
    let data = &mut elf.sec(".livepatch.funcs").data;
    data[72] = 1 | (bytes.len() as u8) << 1 | reserved << 6;
    data[73..73 + bytes.len()].copy_from_slice(bytes);
}

/// A second payload, to stack on [`payload`]: replaces fresh_fn of it and calls it.
pub fn upper() -> Elf {
    let mut elf = Elf::new(1);
    elf.add(".text.second_fn", PROGBITS, A | X, 16, &[0xe8, 0, 0, 0, 0, 0xc3]);
    elf.add(".livepatch.strings", PROGBITS, A, 1, b"plain_fn\0");
    elf.add(".livepatch.funcs", PROGBITS, A | W, 8, &func(6, 48));
    elf.add(".note.gnu.build-id", NOTE, A, 4, &note(&[0x33; 20]));
    elf.add(".livepatch.depends", PROGBITS, A, 4, &note(&PAYLOAD_ID));
    elf.add(".livepatch.xen_depends", PROGBITS, A, 4, &note(&XEN_ID));
    for index in 1..=elf.sections.len() as u16 {
        elf.symbol("", index, 0, 0, SECTION, LOCAL);
    }
    elf.symbol("second_fn", 1, 0, 6, FUNC, GLOBAL);
    elf.symbol("fresh_fn", 0, 0, 0, 0, GLOBAL);
    elf.relocate(".text.second_fn", 1, R_PLT32, "fresh_fn", -4);
    elf.relocate(".livepatch.funcs", 0, R_64, ".livepatch.strings", 0);
    elf.relocate(".livepatch.funcs", 8, R_64, "second_fn", 0);
    elf
}
