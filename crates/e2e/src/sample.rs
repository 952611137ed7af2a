//! A payload made by hand for any Xen of 4.14 to 4.20, with something of every kind that a loader looks at.
//!
//! Two small functions are replaced; code that nobody runs has what bug frames, alternatives, an altcall and an
//! exception table entry refer to. Hooks do nothing. What stands unused is there for [`crate::damage`] to use. The
//! formats are those of xen/include/public/sysctl.h (`struct livepatch_func`, 104 bytes) and of xen/arch/x86/include/asm
//! (bug.h, alternative.h, uaccess.h), 4.14 to 4.20.

use xsplice_verify::XenSymbols;

use crate::write::{A, Elf, NOBITS, NOTE, PC32, PLT32, PROGBITS, R64, RNONE, Rel, W, X};

/// What must be known of the hypervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its build-id.
    pub build_id: Vec<u8>,
    /// The bytes of [`REPLACED`]'s functions.
    pub sizes: [u32; 2],
    /// The function with the lowest address, by its name in Xen's table.
    pub lowest: String,
    /// A variable.
    pub variable: String,
    /// A name that the table has more than once, if any; else empty.
    pub ambiguous: String,
    /// The number of the CPU feature that is always there (X86_FEATURE_ALWAYS).
    pub always: u16,
}

impl Host {
    /// Reads it off a symbol file.
    ///
    /// # Errors
    /// Something that is not there.
    pub fn of(symbols: &[u8]) -> Result<Host, String> {
        let xen = XenSymbols::parse(symbols).map_err(|problems| format!("{problems:?}"))?;
        let lacks = |what: &str| format!("the symbol file has no {what}");
        let size = |name: &str| xen.named(name).next().and_then(|symbol| u32::try_from(symbol.size).ok());
        let [first, second] = REPLACED.map(|name| size(name).ok_or_else(|| lacks(name)));
        let once = |name: &str| xen.named(name).count() == 1;
        let kept = |address: u64| xen.image().contains(&address) && !xen.in_init(address);
        let known = || xen.symbols().iter().filter(|s| kept(s.address) && once(&s.table_name));
        let lowest = known().filter(|symbol| symbol.is_code).min_by_key(|symbol| symbol.address);
        // One that is large enough to be one.
        let variable = known().find(|symbol| !symbol.is_code && symbol.size >= 64);
        let ambiguous = xen.duplicates().next().unwrap_or_default().to_owned();
        Ok(Host {
            build_id: xen.build_id().filter(|id| id.len() == 20).ok_or_else(|| lacks("build-id"))?.to_vec(),
            sizes: [first?, second?],
            lowest: lowest.ok_or_else(|| lacks("function"))?.table_name.clone(),
            variable: variable.ok_or_else(|| lacks("variable"))?.table_name.clone(),
            ambiguous,
            always: always(&xen).ok_or_else(|| lacks("altcall"))?,
        })
    }
}

/// The feature of the hypervisor's own altcalls: those alternatives whose replacement is a call to itself.
fn always(xen: &XenSymbols<'_>) -> Option<u16> {
    let bound = |name: &str| xen.named(name).next().map(|symbol| symbol.address);
    let (start, end) = (bound("__alt_instructions")?, bound("__alt_instructions_end")?);
    let table = xen.bytes_at(start, end.checked_sub(start)?)?;
    table.chunks_exact(14).zip(0u64..).find_map(|(entry, number)| {
        let distance = i32::from_le_bytes(entry[4..8].try_into().ok()?);
        let replacement = (start + number * 14 + 4).wrapping_add_signed(i64::from(distance));
        // A replacement of no bytes stands in front of any other.
        let is_altcall =
            entry[11] == 5 && xen.bytes_at(replacement, 5) == Some(&[0xe8, 0xfb, 0xff, 0xff, 0xff]);
        is_altcall.then(|| u16::from_le_bytes([entry[8], entry[9]]))
    })
}

/// The functions that are replaced: each returns a text, the first that of /sys/hypervisor/version/extra.
pub const REPLACED: [&str; 2] = ["xen_extra_version", "xen_deny"];
/// What the replacement of the first returns.
pub const TEXT: &str = "-xsplice-e2e";
/// Stands in front of [`Host::ambiguous`] among the names of symbols.
pub const AMBIGUOUS: &str = "xsplice-e2e-ambiguous";
/// A name that stands among those of symbols: code that is gone after boot.
pub const BOOT: &str = "__start_xen";
/// Names that stand among those of sections, for who wants to rename one.
pub const SECTION_NAMES: [&str; 7] = [
    ".data.percpu",
    ".init.setup",
    ".ex_table.pre",
    ".alt_call_sites",
    ".bug_frames.3",
    ".livepatch.hooks.fini",
    ".bug_frames.9",
];
/// A section of 8 bytes that nothing depends on.
pub const SPARE: &str = ".data.xsplice_e2e";

// Offsets in the section of code.
const OTHER: u64 = 16;
const HOOK: u64 = 32;
const PARTS: u64 = 48;
const ALTERNATIVE: u64 = 50;
const ALTCALL: u64 = 55;
const GUARDED: u64 = 66;
const TRAP: u64 = 80;

const CODE: &str = ".text.xsplice_e2e";
const TEXTS: &str = ".rodata.xsplice_e2e";

/// `endbr64; lea TEXT(%rip),%rax; ret`
const RETURNS: [u8; 12] = [0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x8d, 0x05, 0, 0, 0, 0, 0xc3];

fn code() -> Vec<u8> {
    let mut code = vec![0xcc; 96];
    let mut put = |at: u64, bytes: &[u8]| code[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    put(0, &RETURNS);
    put(OTHER, &RETURNS);
    // endbr64; xor %eax,%eax; ret
    put(HOOK, &[0xf3, 0x0f, 0x1e, 0xfa, 0x31, 0xc0, 0xc3]);
    // ud2
    put(PARTS, &[0x0f, 0x0b]);
    // A no-operation of 5 bytes.
    put(ALTERNATIVE, &[0x0f, 0x1f, 0x44, 0, 0]);
    // call *POINTER(%rip); call NAME; mov SPARE(%rip),%eax; ret
    put(ALTCALL, &[0xff, 0x15, 0, 0, 0, 0, 0xe8, 0, 0, 0, 0, 0x8b, 0x05, 0, 0, 0, 0, 0xc3]);
    put(TRAP, &[0x0f, 0x0b, 0xc3]);
    code
}

fn rel(offset: u64, kind: u32, symbol: &str, addend: i64) -> Rel {
    Rel { offset, kind, symbol: symbol.to_owned(), addend }
}

fn note(id: &[u8]) -> Vec<u8> {
    let mut note: Vec<u8> = [4u32, id.len() as u32, 3].iter().flat_map(|word| word.to_le_bytes()).collect();
    note.extend(b"GNU\0");
    note.extend(id);
    note
}

fn alternative(feature: u16, original: u8, replacement: u8) -> Vec<u8> {
    let mut entry = vec![0; 8];
    entry.extend(feature.to_le_bytes());
    entry.extend([original, replacement, 0, 0]);
    entry
}

/// The payload with this build-id of its own.
pub fn payload(host: &Host, own: [u8; 20]) -> Vec<u8> {
    let mut elf = Elf::new(1, 0);
    elf.section_names = SECTION_NAMES.map(str::to_owned).to_vec();
    let long = "x".repeat(140);
    elf.symbol_names = vec![BOOT.to_owned(), AMBIGUOUS.to_owned(), host.ambiguous.clone(), long];
    parts(&mut elf, host);
    functions(&mut elf, host);
    let hooks = ["load", "unload", "preapply"];
    for hook in hooks {
        elf.section(&format!(".livepatch.hooks.{hook}"), PROGBITS, A, 8, &[0; 8]);
        elf.relocations.push((format!(".livepatch.hooks.{hook}"), vec![rel(0, R64, "xsplice_e2e_hook", 0)]));
    }
    elf.section(".note.gnu.build-id", NOTE, A, 4, &note(&own));
    elf.section(".livepatch.depends", PROGBITS, A, 4, &note(&host.build_id));
    elf.section(".livepatch.xen_depends", PROGBITS, A, 4, &note(&host.build_id));
    elf.section(".modinfo", PROGBITS, A, 1, b"made=by hand\0");
    for name in [".bss", ".bss.xsplice_e2e_two", ".bss.xsplice_e2e_three"] {
        elf.section(name, NOBITS, A | W, 8, &[0; 8]);
    }
    // The first undefined one is what damages change: called by code that nobody runs.
    for name in ["printk", host.lowest.as_str(), host.variable.as_str()] {
        elf.undefined(name);
    }
    elf.to_bytes()
}

/// Code, and the tables about it.
fn parts(elf: &mut Elf, host: &Host) {
    elf.section(CODE, PROGBITS, A | X, 16, &code());
    elf.section(".fixup", PROGBITS, A | X, 1, &[0xc3]);
    elf.section(
        ".altinstr_replacement",
        PROGBITS,
        A | X,
        1,
        &[0x0f, 0x1f, 0x44, 0, 0, 0xe8, 0xfb, 0xff, 0xff, 0xff],
    );
    // Every processor has feature 0, a floating point unit.
    let alternatives = [alternative(0, 5, 5), alternative(host.always, 6, 5)].concat();
    elf.section(".altinstructions", PROGBITS, A, 1, &alternatives);
    elf.section(".bug_frames.0", PROGBITS, A, 4, &[0; 8]);
    elf.section(".bug_frames.1", PROGBITS, A, 4, &[0; 8]);
    elf.section(".ex_table", PROGBITS, A, 4, &[0; 8]);
    elf.section(TEXTS, PROGBITS, A, 1, format!("{TEXT}\0<no>\0sample.c\0").as_bytes());
    elf.section(SPARE, PROGBITS, A | W, 8, &[0; 8]);
    for (name, section, at, size, kind) in [
        ("xsplice_e2e_extra", CODE, 0, RETURNS.len() as u64, 2),
        ("xsplice_e2e_deny", CODE, OTHER, RETURNS.len() as u64, 2),
        ("xsplice_e2e_hook", CODE, HOOK, 7, 2),
        ("xsplice_e2e_parts", CODE, PARTS, 35, 2),
        ("xsplice_e2e_texts", TEXTS, 0, 0, 1),
        ("xsplice_e2e_fixup", ".fixup", 0, 1, 2),
        ("xsplice_e2e_replacement", ".altinstr_replacement", 0, 0, 0),
        ("xsplice_e2e_spare", SPARE, 0, 8, 1),
        ("xsplice_e2e_unused", SPARE, 0, 8, 1),
    ] {
        elf.symbol(name, section, at, size, kind);
    }
    let (parts, texts) = ("xsplice_e2e_parts", "xsplice_e2e_texts");
    let place = |at: u64| (at - PARTS) as i64;
    let second = TEXT.len() as i64 + 1;
    elf.relocations.push((
        CODE.to_owned(),
        vec![
            rel(7, PC32, texts, -4),
            rel(OTHER + 7, PC32, texts, second - 4),
            rel(ALTCALL + 2, PC32, "xsplice_e2e_spare", -4),
            rel(ALTCALL + 7, PLT32, "printk", -4),
            rel(GUARDED + 2, PC32, "xsplice_e2e_spare", -4),
        ],
    ));
    // One that does nothing, until it is told to.
    elf.relocations.push((".altinstr_replacement".to_owned(), vec![rel(1, RNONE, "xsplice_e2e_spare", 0)]));
    // The pointer of the altcall.
    elf.relocations.push((SPARE.to_owned(), vec![rel(0, R64, &host.lowest, 0)]));
    elf.relocations.push((
        ".altinstructions".to_owned(),
        vec![
            rel(0, PC32, parts, place(ALTERNATIVE)),
            rel(4, PC32, "xsplice_e2e_replacement", 0),
            rel(14, PC32, parts, place(ALTCALL)),
            rel(18, PC32, "xsplice_e2e_replacement", 5),
        ],
    ));
    // Both words count from the start of the frame.
    elf.relocations.push((
        ".bug_frames.0".to_owned(),
        vec![rel(0, PC32, parts, place(TRAP)), rel(4, PC32, &host.lowest, 4)],
    ));
    let file = TEXT.len() as i64 + 1 + "<no>".len() as i64 + 1;
    elf.relocations
        .push((".bug_frames.1".to_owned(), vec![rel(0, PC32, parts, 0), rel(4, PC32, texts, file + 4)]));
    elf.relocations.push((
        ".ex_table".to_owned(),
        vec![rel(0, PC32, parts, place(GUARDED)), rel(4, PC32, "xsplice_e2e_fixup", 0)],
    ));
}

/// The list of functions, with their names.
fn functions(elf: &mut Elf, host: &Host) {
    let names = REPLACED.map(|name| format!("{name}\0")).concat();
    let mut table = Vec::new();
    for size in host.sizes {
        let mut entry = [0; 104];
        entry[24..28].copy_from_slice(&(RETURNS.len() as u32).to_le_bytes());
        entry[28..32].copy_from_slice(&size.to_le_bytes());
        entry[32] = 2;
        table.extend(entry);
    }
    elf.section(".livepatch.funcs", PROGBITS, A | W, 8, &table);
    elf.section(".livepatch.strings", PROGBITS, A, 1, names.as_bytes());
    elf.symbol("xsplice_e2e_names", ".livepatch.strings", 0, 0, 1);
    let second = REPLACED[0].len() as i64 + 1;
    elf.relocations.push((
        ".livepatch.funcs".to_owned(),
        vec![
            rel(0, R64, "xsplice_e2e_names", 0),
            rel(8, R64, "xsplice_e2e_extra", 0),
            rel(104, R64, "xsplice_e2e_names", second),
            rel(112, R64, "xsplice_e2e_deny", 0),
            // One that does nothing, until it is told to give an old address.
            rel(16, RNONE, &host.variable, 0),
        ],
    ));
}
