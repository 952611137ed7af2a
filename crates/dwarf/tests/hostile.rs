//! Damaged and unsupported input ends in an error, never in a panic, and soon.

mod common;

use std::time::{Duration, Instant};

use common::{compile, compilers};
use object::{Object, ObjectSection};
use xsplice_dwarf::{DebugInfo, Error, TypeKind, layout_changes, life, render};

fn exercise(bytes: &[u8], other: &DebugInfo) {
    if let Ok(Some(info)) = DebugInfo::read(bytes) {
        let changes = layout_changes(other, &info).len() + layout_changes(&info, other).len();
        let lines = (0..64).filter_map(|i| info.line_at(".text.traps", i)).count();
        let lives = ["holder", "inner"].map(|name| life(&[other, &info], TypeKind::Struct, name));
        std::hint::black_box((
            lives,
            changes,
            lines,
            info.function_line("traps"),
            info.struct_layout("holder"),
        ));
    }
}

#[test]
fn damaged_objects() {
    let start = Instant::now();
    for dwarf in ["-gdwarf-4", "-gdwarf-5"] {
        for file in ["lines/main.c", "layouts/nested.c", "layouts/bits.c"] {
            let object = compile("gcc", file, &[dwarf, "-O2", "-Ilines/include"]);
            let intact = DebugInfo::read(&object).expect("readable").expect("debug information");
            for length in (0..object.len()).step_by(37) {
                exercise(&object[..length], &intact);
            }
            let ranges: Vec<std::ops::Range<usize>> = object::File::parse(&*object)
                .expect("an object")
                .sections()
                .filter(|s| s.name().is_ok_and(|n| n.starts_with(".debug") || n.starts_with(".rela.debug")))
                .filter_map(|s| s.file_range())
                .map(|(at, size)| at as usize..(at + size) as usize)
                .collect();
            assert!(ranges.len() > 4);
            // A fixed sequence: the same bytes on every run.
            let mut state = 0x9e37_79b9_7f4a_7c15_u64;
            let mut next = |below: usize| {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                (state >> 33) as usize % below
            };
            for _ in 0..1500 {
                let mut damaged = object.clone();
                for _ in 0..1 + next(3) {
                    let range = &ranges[next(ranges.len())];
                    let at = range.start + next(range.len());
                    damaged[at] = if next(2) == 0 { next(256) as u8 } else { damaged[at] ^ (1 << next(8)) };
                }
                exercise(&damaged, &intact);
            }
            for _ in 0..300 {
                let mut damaged = object.clone();
                let at = next(damaged.len());
                damaged[at] ^= 1 << next(8);
                exercise(&damaged, &intact);
            }
        }
    }
    assert!(start.elapsed() < Duration::from_secs(120), "{:?}", start.elapsed());
}

#[test]
fn no_debug_information() {
    for compiler in compilers() {
        let object = compile(compiler, "lines/main.c", &["-g0", "-Ilines/include"]);
        assert!(DebugInfo::read(&object).expect("readable").is_none());
    }
}

#[test]
fn unsupported_forms_are_named() {
    let read = |options: &[&str]| {
        let mut all = vec!["-Ilines/include"];
        all.extend(options);
        DebugInfo::read(&compile("gcc", "lines/main.c", &all)).err()
    };
    assert!(matches!(read(&["-g", "-gz=zlib"]), Some(Error::Compressed(s)) if s.starts_with(".debug_")));
    for options in [
        &["-gdwarf-5", "-fdebug-types-section"][..],
        &["-gdwarf-4", "-fdebug-types-section"],
        &["-gdwarf-5", "-gsplit-dwarf"],
        &["-gdwarf-4", "-gsplit-dwarf"],
    ] {
        assert!(matches!(read(options), Some(Error::Unsupported(_))), "{options:?}: {:?}", read(options));
    }
    assert!(matches!(DebugInfo::read(b"no object at all"), Err(Error::Elf(_))));
    let program = std::fs::read(std::env::current_exe().expect("this test")).expect("its bytes");
    assert_eq!(DebugInfo::read(&program).err(), Some(Error::NotRelocatable));
    let diagnostic = Error::NotRelocatable.diagnostic("xen/common/a.o");
    assert_eq!(diagnostic.code, xsplice_dwarf::codes::DEBUG_INFO_UNREADABLE);
    assert_eq!(diagnostic.place.object.as_deref(), Some("xen/common/a.o"));
}

/// Debug information of one unit: abbreviations 1 a unit, 2 `struct s`, 3 its member `m`, 4 a typedef `s`.
fn assembled(entries: &str) -> Result<Option<DebugInfo>, Error> {
    let text = format!(
        r#"
        .section .debug_abbrev,"",@progbits
        .byte 1,0x11,1,0,0
        .byte 2,0x13,1,3,8,0xb,0xb,0,0
        .byte 3,0xd,0,3,8,0x49,0x13,0x38,0xb,0,0
        .byte 4,0x16,0,3,8,0x49,0x13,0,0
        .byte 0
        .section .debug_info,"",@progbits
    unit:
        .long 2f-1f
    1:  .value 4
        .long 0
        .byte 8
        .byte 1
        {entries}
        .byte 0
    2:
        "#
    );
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("entries.s");
    std::fs::write(&file, text).expect("written");
    DebugInfo::read(&compile("gcc", file.to_str().expect("a path"), &[]))
}

#[test]
fn types_that_hold_themselves() {
    let held = r#"s: .byte 2; .asciz "s"; .byte 8; .byte 3; .asciz "m"; .long s-unit; .byte 0; .byte 0"#;
    assert!(matches!(assembled(held), Err(Error::Nesting(_))), "{:?}", assembled(held));
    let named = r#"s: .byte 4; .asciz "s"; .long s-unit"#;
    assert!(matches!(assembled(named), Err(Error::Nesting(_))), "{:?}", assembled(named));
    let nowhere = r#"s: .byte 4; .asciz "s"; .long 3"#;
    assert!(matches!(assembled(nowhere), Err(Error::NoType(3))), "{:?}", assembled(nowhere));
    let mut chain: String =
        (0..100_000).map(|i| format!(".byte 4; .asciz \"s\"; .long s{}-unit\ns{i}:", i + 1)).collect();
    chain
        .push_str(r#".byte 2; .asciz "s"; .byte 8; .byte 0; s100000: .byte 2; .asciz "s"; .byte 8; .byte 0"#);
    assert!(matches!(assembled(&chain), Err(Error::Nesting(_))), "{:?}", assembled(&chain).err());
}

#[test]
fn structures_of_more_members_than_can_be_told() {
    let mut source =
        String::from("#ifdef PATCHED\nstruct { long v; } v0;\n#else\nstruct { int v; } v0;\n#endif\n");
    for level in 1..=24 {
        source += &format!("struct {{ typeof(v{}) a, b; }} v{level};\n", level - 1);
    }
    source += "struct top { typeof(v24) held; } top;\n";
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("deep.c");
    std::fs::write(&file, source).expect("written");
    let read = |options: &[&str]| {
        let object = compile("gcc", file.to_str().expect("a path"), options);
        DebugInfo::read(&object).expect("readable").expect("debug information")
    };
    let (base, patched) = (read(&["-g"]), read(&["-g", "-DPATCHED"]));
    let start = Instant::now();
    let changes = layout_changes(&base, &patched);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    let what: Vec<String> = changes.iter().map(render).collect();
    let expected = [
        "struct top: size changed from 67108864 to 134217728 bytes",
        "struct top: differs, and is too large to say how",
    ];
    assert_eq!(what, expected);
}
