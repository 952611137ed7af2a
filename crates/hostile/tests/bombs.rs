//! Small files that ask for much: counts and sizes near the end of numbers, bytes that many share, entries that lead
//! back to themselves. Each ends in an error or a bounded answer.

use std::time::Duration;

use made::elf::{A, ABS, Elf, FUNC, GLOBAL, LOCAL, NOBITS, PROGBITS, W, X};
use made::{sample, twins};
use xsplice_dwarf::{DebugInfo, Error, layout_changes};
use xsplice_hostile::{TARGETS, seeds};
use xsplice_objects::{Hypervisor, Object};
use xsplice_verify::{PatchedObject, Verdict, VerifyInput, XenSymbols, verify};

mod bounds;
#[path = "../../verify/tests/common/mod.rs"]
mod made;

/// What one file may take of a processor.
const LONGEST: Duration = Duration::from_secs(5);

#[track_caller]
fn soon<T>(work: impl FnOnce() -> T) -> T {
    bounds::limit_memory();
    let start = bounds::cpu_time();
    let result = work();
    let took = bounds::cpu_time() - start;
    assert!(took < LONGEST, "{took:?}");
    result
}

fn object_code(bytes: &[u8]) -> Option<&'static str> {
    soon(|| Object::parse("a.o", bytes).err().map(|problems| problems.0[0].code.name))
}

/// Only header fields are damaged here, each with each value: what the smoke run does at random.
#[test]
fn every_header_field_at_the_end_of_numbers() {
    let payload = sample::payload().write();
    let table = u64::from_le_bytes(payload[40..48].try_into().expect("eight bytes")) as usize;
    let fields = (40..64).step_by(2).chain((table..payload.len()).step_by(8));
    for at in fields {
        for value in [1, u64::from(u32::MAX), 1 << 63, u64::MAX - 7, u64::MAX] {
            let mut damaged = payload.clone();
            let end = (at + 8).min(damaged.len());
            damaged[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
            let inputs = [
                damaged.clone(),
                seeds::payload_input(9, &damaged, &[]),
                Vec::new(),
                seeds::pair(&damaged, &damaged),
            ];
            for (target, input) in TARGETS.iter().zip(&inputs) {
                soon(|| (target.run)(input));
            }
        }
    }
}

#[test]
fn sections_that_end_beyond_two_to_the_64() {
    for (size, offset) in [(u64::MAX, 64), (u64::MAX - 63, 64), (64, u64::MAX - 7), (1 << 63, 1 << 63)] {
        let mut object = Elf::new(1);
        object.add(".text", PROGBITS, A | X, 16, &[0xc3; 64]);
        object.add(".debug_info", PROGBITS, 0, 1, &[0; 64]);
        for name in [".text", ".debug_info"] {
            (object.sec(name).size, object.sec(name).offset) = (Some(size), Some(offset));
        }
        let bytes = object.write();
        assert_eq!(object_code(&bytes), Some("object-unreadable"));
        assert!(matches!(soon(|| DebugInfo::read(&bytes)), Err(Error::Elf(_))));
        let mut payload = sample::payload();
        (payload.sec(".text.new_fn").size, payload.sec(".text.new_fn").offset) = (Some(size), Some(offset));
        assert!(!soon(|| made::judge(&payload.write())).is_accepted());
    }
}

#[test]
fn symbols_and_addends_beyond_any_section() {
    let judged = |value: u64, size: u64, addend: i64| {
        let mut object = Elf::new(1);
        object.add(".text.f", PROGBITS, A | X, 16, &[0xc3; 64]);
        object.symbol("f", 1, value, size, FUNC, GLOBAL);
        object.relocate(".text.f", 8, made::elf::R_PC32, "f", addend);
        let bytes = object.write();
        soon(|| (TARGETS[0].run)(&bytes));
        object_code(&bytes)
    };
    assert_eq!(judged(0, 64, -4), None);
    assert_eq!(judged(0, 64, -0x7d2f_c000_0000), None);
    // An end that is no number was added up once.
    assert_eq!(judged(16, u64::MAX - 8, -4), Some("object-unreadable"));
    assert_eq!(judged(u64::MAX, 64, -4), Some("object-unreadable"));
    assert_eq!(judged(0, 64, i64::MIN), Some("object-unreadable"));
    assert_eq!(judged(16, 48, i64::MAX), Some("object-unreadable"));
}

#[test]
fn many_sections_over_the_same_bytes() {
    for mut file in [Elf::new(1), sample::xen()] {
        let first = file.sections.len();
        let shared = file.add(".shared", PROGBITS, A, 8, &[0x55; 1 << 20]);
        let offset =
            file.write().windows(64).position(|window| window == [0x55; 64]).expect("its bytes") as u64;
        for _ in 0..20_000 {
            let mut copy = file.sections[first].clone();
            (copy.data, copy.size, copy.offset) = (Vec::new(), Some(1 << 20), Some(offset));
            file.sections.push(copy);
        }
        assert_eq!(usize::from(shared), first + 1);
        let bytes = file.write();
        let refused =
            soon(|| (Object::parse("a.o", &bytes).is_err(), Hypervisor::parse("xen-syms", &bytes).is_err()));
        assert_eq!(refused, (true, true));
        let _ = soon(|| DebugInfo::read(&bytes));
        let _ = soon(|| XenSymbols::parse(&bytes).map(|xen| xen.symbols().len()));
    }
}

/// A file of this kind with symbols that all have one name of half a megabyte, or ends of it.
fn one_name(kind: u16) -> Vec<u8> {
    let mut file = Elf::new(kind);
    file.add(".text", PROGBITS, A | X, 16, &[0xc3; 64]);
    file.add(".debug_info", PROGBITS, 0, 1, &[]);
    file.symbol("", 1, 0, 0, FUNC, LOCAL);
    let long = "n".repeat(1 << 19);
    file.symbol(&long, 1, 0, 16, FUNC, GLOBAL);
    let mut bytes = file.write();
    let long_symbol: Vec<u8> = {
        let at =
            bytes.windows(24).position(|raw| raw[4] == GLOBAL << 4 | FUNC && raw[16] == 16 && raw[6] == 1);
        bytes[at.expect("the symbol")..][..24].to_vec()
    };
    // A longer table at the end of the file.
    let table = u64::from_le_bytes(bytes[40..48].try_into().expect("eight bytes")) as usize;
    let symtab = (table..bytes.len())
        .step_by(64)
        .find(|&at| bytes[at + 4..at + 8] == 2u32.to_le_bytes())
        .expect("a symbol table");
    let (offset, size) = (bytes.len().next_multiple_of(8), 24 * 20_000);
    bytes[symtab + 24..symtab + 32].copy_from_slice(&(offset as u64).to_le_bytes());
    bytes[symtab + 32..symtab + 40].copy_from_slice(&(size as u64).to_le_bytes());
    bytes.resize(offset + 24, 0);
    while bytes.len() < offset + size {
        bytes.extend(&long_symbol);
    }
    bytes
}

#[test]
fn many_symbols_of_one_long_name() {
    let object = one_name(1);
    assert_eq!(object_code(&object), Some("object-unreadable"));
    assert!(matches!(soon(|| DebugInfo::read(&object)), Err(Error::Elf(_))));
    soon(|| (TARGETS[1].run)(&seeds::payload_input(9, &object, &[])));
    let hypervisor = one_name(2);
    assert!(soon(|| Hypervisor::parse("xen-syms", &hypervisor)).is_err());
    let _ = soon(|| XenSymbols::parse(&hypervisor).map(|xen| xen.symbols().len()));
}

#[test]
fn zeroed_data_beyond_any_hypervisor() {
    for size in [65 << 20, 1 << 40, u64::MAX] {
        let mut object = Elf::new(1);
        object.add(".bss.a", NOBITS, A | W, 16, &[]);
        object.sec(".bss.a").size = Some(size);
        object.symbol("a", 1, 0, size, made::elf::OBJECT, GLOBAL);
        object.symbol("b", ABS, u64::MAX, u64::MAX, made::elf::OBJECT, GLOBAL);
        assert_eq!(object_code(&object.write()), Some("object-unreadable"));
        soon(|| (TARGETS[0].run)(&object.write()));
    }
}

/// Sixteen MiB of zeroes decoded as instructions took ten seconds and 1.8 GB; as bug frames, 1.1 GB.
#[test]
fn functions_and_tables_of_zeroes() {
    let code = |name: &str, flags: u64, kind: u8| {
        let mut object = Elf::new(1);
        object.add(name, NOBITS, flags, 16, &[]);
        object.sec(name).size = Some(16 << 20);
        object.symbol("f", 1, 0, 168, kind, GLOBAL);
        let bytes = object.write();
        soon(|| (TARGETS[0].run)(&bytes));
        object_code(&bytes)
    };
    assert_eq!(code(".bss.calls", A | W, FUNC), Some("object-unreadable"));
    assert_eq!(code(".text.f", A | X, made::elf::OBJECT), Some("object-unreadable"));
    assert_eq!(code(".other", A | X, made::elf::OBJECT), Some("object-unreadable"));
    for table in [".bug_frames.1", ".altinstructions", ".ex_table", ".data.schedulers"] {
        assert_eq!(code(table, A, made::elf::OBJECT), Some("object-unreadable"), "{table}");
    }
    assert_eq!(code(".bss.calls", A | W, made::elf::OBJECT), None);
}

/// Abbreviations: 1 a unit with children, 2 a named structure of size 8 with children, 3 its member with a name by
/// offset, 4 a typedef, 5 const, 6 a block with children, 7 a unit with a line program, 8 a function with a place,
/// 9 a pointer. Forms: DWARF 5, 7.5.6.
const ABBREVIATIONS: &[u8] = &[
    1, 0x11, 1, 0, 0, //
    2, 0x13, 1, 3, 8, 0xb, 0xb, 0, 0, //
    3, 0x0d, 0, 3, 0xe, 0x49, 0x13, 0x38, 0xb, 0, 0, //
    4, 0x16, 0, 3, 8, 0x49, 0x13, 0, 0, //
    5, 0x26, 0, 0x49, 0x13, 0, 0, //
    6, 0x0b, 1, 0, 0, //
    7, 0x11, 1, 0x10, 0x17, 0, 0, //
    8, 0x2e, 0, 3, 8, 0x3a, 0xb, 0x3b, 0xb, 0, 0, //
    9, 0x0f, 0, 0x49, 0x13, 0, 0, //
    0,
];

/// Bytes of a unit's header: entries start behind it.
const HEADER: u32 = 11;

/// A unit of DWARF 4.
fn unit(abbreviations: u32, entries: &[u8]) -> Vec<u8> {
    let length = entries.len() as u32 + HEADER - 4;
    [&length.to_le_bytes(), &4u16.to_le_bytes()[..], &abbreviations.to_le_bytes(), &[8], entries].concat()
}

fn debug(sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut object = Elf::new(1);
    object.add(".text", PROGBITS, A | X, 16, &[0xc3; 64]);
    for (name, data) in sections {
        object.add(name, PROGBITS, 0, 1, data);
    }
    object.write()
}

fn read(entries: &[u8]) -> Result<Option<DebugInfo>, Error> {
    let bytes = debug(&[(".debug_info", &unit(0, entries)), (".debug_abbrev", ABBREVIATIONS)]);
    soon(|| DebugInfo::read(&bytes))
}

#[test]
fn types_that_lead_back_to_themselves() {
    // A typedef at 12, a const at 19 that leads back, or a pointer there.
    for back in [5, 9] {
        let typedef = [&[4, b'a', 0], &19u32.to_le_bytes()[..]].concat();
        let circle = [&[1][..], &typedef, &[back], &12u32.to_le_bytes(), &[0]].concat();
        assert!(matches!(read(&circle), Err(Error::Nesting(_))), "{back}: {:?}", read(&circle).err());
    }
    let itself = [&[1, 5][..], &12u32.to_le_bytes(), &[0]].concat();
    assert!(matches!(read(&itself), Err(Error::Nesting(12))), "{:?}", read(&itself).err());
}

#[test]
fn qualifiers_as_long_as_the_file() {
    let count = 200_000u32;
    let mut chain = vec![1];
    for index in 1..=count {
        chain.push(5);
        // The last leads to a structure.
        chain.extend((HEADER + 1 + index * 5).to_le_bytes());
    }
    chain.extend([2, b's', 0, 8, 0, 0]);
    assert!(matches!(read(&chain), Err(Error::Nesting(_))), "{:?}", read(&chain).err());
}

#[test]
fn entries_nested_as_deep_as_the_file_is_long() {
    let count = 1_000_000;
    let blocks = [vec![1], vec![6; count], vec![0; count + 1]].concat();
    let info = read(&blocks).expect("no types in it").expect("debug information");
    assert_eq!(info.struct_names(), Vec::<String>::new());
    let unclosed = [vec![1], [2, b's', 0, 8].repeat(count / 4)].concat();
    let info = read(&unclosed).expect("structures without members").expect("debug information");
    assert_eq!(soon(|| info.struct_names()), ["s"]);
}

#[test]
fn tables_of_abbreviations_that_units_share_in_part() {
    // One table of 2 MB; each unit starts two bytes later in it.
    let entry = [1u8, 0x11, 1, 0, 0];
    let mut table = Vec::new();
    for _ in 0..400_000 {
        table.extend(entry);
    }
    table.push(0);
    let units: Vec<u8> = (0..20_000).flat_map(|index| unit(index * 5, &[1, 0])).collect();
    let bytes = debug(&[(".debug_info", &units), (".debug_abbrev", &table)]);
    assert!(matches!(soon(|| DebugInfo::read(&bytes)), Err(Error::Malformed(_))));
}

/// A line program of DWARF 5 whose files all have the name at the start of `.debug_line_str`.
fn lines(files: u32, program: &[u8]) -> Vec<u8> {
    // Path as DW_FORM_line_strp for directories and files; one directory (DWARF 5, 6.2.4).
    let mut rest = vec![1, 1, 1, 0xfb, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1];
    rest.extend([1, 1, 0x1f, 1, 0, 0, 0, 0, 1, 1, 0x1f]);
    let mut count = files;
    while count >= 0x80 {
        rest.push(count as u8 | 0x80);
        count >>= 7;
    }
    rest.push(count as u8);
    rest.extend(std::iter::repeat_n(0u32.to_le_bytes(), files as usize).flatten());
    let body =
        [&5u16.to_le_bytes()[..], &[8, 0], &(rest.len() as u32).to_le_bytes(), &rest, program].concat();
    [&(body.len() as u32).to_le_bytes()[..], &body].concat()
}

#[test]
fn files_that_share_one_long_name() {
    let line = lines(100_000, &[]);
    let names = [vec![b'n'; 1 << 20], vec![0]].concat();
    let entries = [&[7][..], &0u32.to_le_bytes(), &[8, b'f', 0, 99, 3, 0]].concat();
    let bytes = debug(&[
        (".debug_info", &unit(0, &entries)),
        (".debug_abbrev", ABBREVIATIONS),
        (".debug_line", &line),
        (".debug_line_str", &names),
    ]);
    let info = soon(|| DebugInfo::read(&bytes)).expect("readable").expect("debug information");
    // 23 of the files fit into what is taken for names; this is behind them.
    assert_eq!(soon(|| info.function_line("f")), None);
}

#[test]
fn a_line_program_that_many_units_run() {
    // Set the address to that of section 1; then rows, all of the same place.
    let mut program = vec![0, 9, 2];
    program.extend((1u64 << 32).to_le_bytes());
    program.extend(std::iter::repeat_n(20, 500_000));
    program.extend([2, 1, 0, 1, 1]);
    let line = lines(2, &program);
    let entries = [&[7][..], &0u32.to_le_bytes(), &[0]].concat();
    let units: Vec<u8> = std::iter::repeat_n(unit(0, &entries), 10_000).flatten().collect();
    let bytes = debug(&[
        (".debug_info", &units),
        (".debug_abbrev", ABBREVIATIONS),
        (".debug_line", &line),
        (".debug_line_str", b"a.c\0"),
    ]);
    let info = soon(|| DebugInfo::read(&bytes)).expect("readable").expect("debug information");
    assert_eq!(soon(|| info.line_in_section(1, 0)).map(|(file, _)| file), Some("a.c/a.c".to_owned()));
}

#[test]
fn members_that_share_one_long_name() {
    let with = |count: u32, length: usize, first: u8| {
        let mut entries = [&[1, 2][..], &vec![b's'; length], &[0, 8]].concat();
        let inner = HEADER + 1 + 1 + length as u32 + 2 + count * 10 + 1;
        for index in 0..count {
            // Each at a place of its own, as far as one byte tells.
            entries.push(3);
            entries.extend(0u32.to_le_bytes());
            entries.extend(inner.to_le_bytes());
            entries.push(first.wrapping_add(index as u8));
        }
        entries.extend([0, 2, b'i', 0, 8, 0, 0]);
        let names = [vec![b'm'; length], vec![0]].concat();
        let sections: [(&str, &[u8]); 3] =
            [(".debug_info", &unit(0, &entries)), (".debug_abbrev", ABBREVIATIONS), (".debug_str", &names)];
        let bytes = debug(&sections);
        soon(|| DebugInfo::read(&bytes))
    };
    assert!(matches!(with(1, 5000, 0), Err(Error::Malformed(_))));
    let base = with(50_000, 4000, 0).expect("readable").expect("debug information");
    let patched = with(50_000, 4000, 1).expect("readable").expect("debug information");
    assert!(!soon(|| layout_changes(&base, &patched)).is_empty());
}

#[test]
fn patches_with_numbers_beyond_any_file() {
    let head = "--- a/xen/common/kinds.c\n+++ b/xen/common/kinds.c\n";
    for range in ["18446744073709551615", "9223372036854775808,2", "1,18446744073709551615", "0,0", "-1"] {
        for other in ["1", "18446744073709551615,2", "9223372036854775807"] {
            let patch =
                format!("{head}@@ -{range} +{other} @@\n x\n-y\n+z\n@@ -{other} +{range} @@\n x\n-y\n");
            soon(|| (TARGETS[2].run)(format!("{patch}\0x\ny\n").as_bytes()));
        }
    }
    let hunks = "@@ -1 +1 @@\n-x\n+x\n".repeat(20_000);
    let text = "x\n".repeat(40_000);
    soon(|| (TARGETS[2].run)(format!("{head}{hunks}\0{text}").as_bytes()));
    let deep = "d/".repeat(100_000);
    soon(|| (TARGETS[2].run)(format!("--- a/{deep}x\n+++ b/{deep}x\n@@ -1 +1 @@\n-x\n+y\n").as_bytes()));
}

/// A payload in an image of the hypervisor, held against the object that it was made of.
fn in_place(payload: &Elf, object: &Elf, xen: &Elf) -> Verdict {
    let (payload, object, xen) = (payload.write(), object.write(), xen.write());
    soon(|| {
        verify(&VerifyInput {
            payload: &payload,
            name: "sample",
            xen_syms: Some(&xen),
            in_place: true,
            objects: Some(&[PatchedObject { path: "a.o", bytes: &object }]),
            ..VerifyInput::default()
        })
    })
}

fn codes_of(verdict: &Verdict) -> Vec<&'static str> {
    verdict.problems.0.iter().map(|problem| problem.code.name).collect()
}

/// The bytes of a section that has none were taken as no bytes, and then looked at.
#[test]
fn in_place_function_that_is_not_in_its_file() {
    let mut object = twins::object();
    let section = object.sec(".text.target_fn");
    (section.kind, section.size) = (NOBITS, Some(39));
    let verdict = in_place(&twins::payload(), &object, &sample::xen());
    assert_eq!(codes_of(&verdict), ["in-place-code"]);
    for value in [1, 38, 39, u64::MAX - 8, u64::MAX] {
        let mut object = twins::object();
        object.sym("target_fn").value = value;
        let verdict = in_place(&twins::payload(), &object, &sample::xen());
        assert!(!verdict.is_accepted(), "{value:#x}: {:?}", codes_of(&verdict));
    }
}

/// Each was copied into the image.
#[test]
fn in_place_symbol_file_over_itself() {
    let mut xen = sample::xen();
    xen.add(".shared", PROGBITS, A, 8, &[0x55; 1 << 16]);
    let bytes = xen.write();
    let offset = bytes.windows(64).position(|window| window == [0x55; 64]).expect("its bytes") as u64;
    let mut copy = xen.sec(".shared").clone();
    (copy.data, copy.size, copy.offset) = (Vec::new(), Some(1 << 16), Some(offset));
    for (more, why) in [(2, "lie over one another"), (20_000, "lie over one another")] {
        let mut xen = xen.clone();
        xen.sections.extend(std::iter::repeat_n(copy.clone(), more));
        let obstacle =
            in_place(&twins::payload(), &twins::object(), &xen).in_place.and_then(|it| it.obstacle);
        assert!(obstacle.as_ref().is_some_and(|said| said.contains(why)), "{obstacle:?}");
    }
    let small = Elf::clone(&xen).sections.remove(0);
    xen.sections.extend((0..200).map(|_| {
        let mut one = small.clone();
        (one.name, one.data) = (".small".into(), vec![1; 8]);
        one
    }));
    let obstacle = in_place(&twins::payload(), &twins::object(), &xen).in_place.and_then(|it| it.obstacle);
    assert!(obstacle.as_ref().is_some_and(|said| said.contains("more than 128")), "{obstacle:?}");
}

/// Functions and objects with one name for many places, and data that begins anew at each byte.
#[test]
fn in_place_everything_with_everything() {
    const SIZE: usize = 1 << 16;
    let (mut payload, mut object) = (twins::payload(), twins::object());
    // Only the last byte differs, so each comparison goes on to it.
    for (file, many, last) in [(&mut payload, 40, 0xc3), (&mut object, 4000, 0x90)] {
        let mut bytes = [0xc3; SIZE];
        bytes[SIZE - 1] = last;
        let code = file.add(".text.same", PROGBITS, A | X, 16, &bytes);
        for _ in 0..many {
            file.symbol("same", code, 0, SIZE as u64, FUNC, LOCAL);
        }
    }
    let verdict = in_place(&payload, &object, &sample::xen());
    assert_eq!(codes_of(&verdict), ["in-place-unknown"]);
    assert!(verdict.problems.0[0].what.contains("too much work"), "{:?}", verdict.problems.0);
}
