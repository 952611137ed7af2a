//! For each rule whose it is: what the loader answers, at which step and with which error, and what only the host pays
//! for. The answers are those of the sources: livepatch.c and livepatch_elf.c of the releases named.

mod common;

use common::elf::*;
use common::sample::{self, expect, nops, retarget};
use xsplice_report::Code;
use xsplice_verify::{Errno, Loader, LoaderTraits, Safe, Verdict, VerifyInput, codes, verify};

/// Verifies bytes for the sample hypervisor, as the loader of a version would.
fn judged(version: &str, payload: &[u8], input: VerifyInput<'_>) -> Verdict {
    let xen = sample::xen().write();
    let traits = LoaderTraits::of(version.parse().expect("a version"));
    let name = if input.name.is_empty() { "sample" } else { input.name };
    verify(&VerifyInput { payload, name, xen_syms: Some(&xen), traits: Some(traits), ..input })
}

/// `accept`, or `ACTION ERRNO code`.
fn loader(verdict: &Verdict) -> String {
    match verdict.loader() {
        Loader::Accept => "accept".into(),
        Loader::Reject { action, errno, because } => {
            format!("{} {} {}", action.name(), errno.name(), because.code.name)
        }
        Loader::Unknown => "unknown".into(),
    }
}

/// The codes that make it unsafe.
fn unsafe_for(verdict: &Verdict) -> Vec<&'static str> {
    match verdict.safe() {
        Safe::Yes => Vec::new(),
        Safe::No(codes) => codes.iter().map(|code| code.name).collect(),
        Safe::Unknown => vec!["unknown"],
    }
}

fn damaged(version: &str, change: impl FnOnce(&mut Elf)) -> Verdict {
    let mut payload = sample::payload();
    if version.starts_with("4.13") {
        for_4_13(&mut payload);
    }
    change(&mut payload);
    judged(version, &payload.write(), VerifyInput::default())
}

/// The sample payload as one for 4.13: entries of 64 bytes and of version 1, and no negated features.
fn for_4_13(e: &mut Elf) {
    let funcs = e.sec(".livepatch.funcs");
    funcs.data.truncate(64);
    funcs.data[32] = 1;
}

/// The loader says no with that error, and nothing else is wrong.
#[track_caller]
fn refuses(version: &str, action: &str, errno: Errno, code: Code, change: impl FnOnce(&mut Elf)) {
    let verdict = damaged(version, change);
    let wanted = format!("{action} {} {}", errno.name(), code.name);
    assert_eq!(loader(&verdict), wanted, "{version}: {:#?}", verdict.findings);
    assert_eq!(unsafe_for(&verdict), Vec::<&str>::new(), "{version}: {:#?}", verdict.findings);
    assert!(!verdict.is_accepted());
}

#[track_caller]
fn refuses_at_upload(errno: Errno, code: Code, change: impl Fn(&mut Elf)) {
    refuses("4.17.5", "upload", errno, code, change);
}

/// The loader takes it, and the host pays.
#[track_caller]
fn kills(version: &str, code: Code, change: impl FnOnce(&mut Elf)) {
    let verdict = damaged(version, change);
    assert_eq!(loader(&verdict), "accept", "{version}: {:#?}", verdict.findings);
    assert_eq!(unsafe_for(&verdict), [code.name], "{version}: {:#?}", verdict.findings);
    assert!(!verdict.is_accepted());
}

#[track_caller]
fn is_fine(version: &str, change: impl FnOnce(&mut Elf)) {
    let verdict = damaged(version, change);
    assert_eq!(
        (loader(&verdict).as_str(), unsafe_for(&verdict)),
        ("accept", vec![]),
        "{version}: {verdict:#?}"
    );
}

#[test]
fn a_sound_payload_is_accepted_and_safe_everywhere() {
    for version in
        ["4.13.5", "4.14.6", "4.15.7", "4.16.7", "4.17.5", "4.18.6", "4.19.6", "4.20.4", "4.21.2", "4.22.0"]
    {
        is_fine(version, |_| {});
    }
}

#[test]
fn the_request() {
    let payload = sample::payload().write();
    let long = "n".repeat(128);
    let verdict = judged("4.17.5", &payload, VerifyInput { name: &long, ..Default::default() });
    assert_eq!(loader(&verdict), "upload EINVAL payload-name");
    let lower = sample::payload().write();
    let upper = sample::upper().write();
    let below: &[&[u8]] = &[&lower];
    let named = |names| {
        let input = VerifyInput { below, below_names: names, ..Default::default() };
        loader(&judged("4.17.5", &upper, input))
    };
    assert_eq!(named(&["other"]), "accept");
    assert_eq!(named(&["sample"]), "upload EEXIST payload-name");
    let empty = judged("4.17.5", b"", VerifyInput::default());
    assert_eq!(loader(&empty), "upload EINVAL payload-size");
    assert_eq!(unsafe_for(&empty), ["unknown"]);
}

#[test]
fn the_file_header() {
    use Errno::{Einval, Eopnotsupp};
    let text = judged(
        "4.17.5",
        b"a text that is longer than the header of an ELF file, which has 64 bytes",
        VerifyInput::default(),
    );
    assert_eq!(loader(&text), "upload EINVAL elf-ident");
    for change in [
        |e: &mut Elf| e.ident[4] = 1,
        |e: &mut Elf| e.ident[5] = 2,
        |e: &mut Elf| e.ident[6] = 2,
        |e: &mut Elf| e.version = 2,
        |e: &mut Elf| e.ident[8] = 1,
        |e: &mut Elf| e.ident[7] = 3,
        |e: &mut Elf| e.kind = 2,
        |e: &mut Elf| e.machine = 183,
        |e: &mut Elf| e.phnum = 1,
    ] {
        let verdict = damaged("4.17.5", change);
        assert!(loader(&verdict).starts_with("upload EOPNOTSUPP elf-"), "{verdict:#?}");
    }
    let header = |errno: Errno, change: fn(&mut Elf)| {
        let wanted = format!("upload {} elf-section-table", errno.name());
        assert_eq!(loader(&damaged("4.17.5", change)), wanted);
    };
    header(Einval, |e| e.shstrndx = Some(0));
    header(Eopnotsupp, |e| e.shnum = Some(1024));
    header(Einval, |e| e.shstrndx = Some(999));
    header(Einval, |e| e.shoff = Some(1 << 40));
    header(Einval, |e| e.shentsize = 56);
    // The first of two that fail decides: names before the number of sections.
    header(Einval, |e| (e.shstrndx, e.shnum) = (Some(0), Some(1024)));
    header(Eopnotsupp, |e| (e.shstrndx, e.shnum) = (Some(1100), Some(1024)));
}

#[test]
fn sections() {
    use Errno::{Einval, Eopnotsupp};
    refuses_at_upload(Einval, codes::SECTION_OUTSIDE_FILE, |e| {
        e.add(".head", PROGBITS, A, 1, b"");
        e.sec(".head").offset = Some(0);
    });
    // Xen adds both up without a look at whether the sum fits.
    kills("4.17.5", codes::SECTION_OUTSIDE_FILE, |e| {
        e.add(".wraps", PROGBITS, 0, 1, b"");
        (e.sec(".wraps").offset, e.sec(".wraps").size) = (Some(64), Some(u64::MAX - 63));
    });
    refuses_at_upload(Einval, codes::SECTION_OUTSIDE_FILE, |e| {
        e.add(".far", PROGBITS, 0, 1, b"");
        (e.sec(".far").offset, e.sec(".far").size) = (Some(1 << 40), Some(u64::MAX - (1 << 40) + 65));
    });
    refuses_at_upload(Einval, codes::SECTION_TOO_LARGE, |e| {
        e.add(".bss", NOBITS, A | W, 16, b"");
        e.sec(".bss").size = Some((2 << 20) + 1);
    });
    refuses_at_upload(Eopnotsupp, codes::SECTION_ALIGNMENT, |e| e.sec(".rodata.str").align = 3);
    refuses_at_upload(Einval, codes::SECTION_ALIGNMENT, |e| e.sec(".text.fresh_fn").addr = 8);
    kills("4.17.5", codes::SECTION_ALIGNMENT, |e| e.sec(".rodata.str").align = 0);
    kills("4.17.5", codes::SECTION_ALIGNMENT, |e| e.sec(".rodata.str").align = 8192);
    refuses_at_upload(Eopnotsupp, codes::SECTION_WRITABLE_CODE, |e| e.sec(".text.fresh_fn").flags |= W);
    kills("4.17.5", codes::SECTION_KIND, |e| {
        e.add(".zipped", PROGBITS, A | 0x800, 8, b"12345678");
    });
    kills("4.17.5", codes::SPECIAL_TWICE, |e| {
        e.add(".ex_table", PROGBITS, A, 4, &[]);
    });
    kills("4.17.5", codes::SPECIAL_UNKNOWN, |e| {
        e.add(".livepatch.hooks.aply", PROGBITS, A, 8, &[0; 8]);
    });
    kills("4.17.5", codes::EXCEPTION_TABLE_PRE, |e| {
        e.add(".ex_table.pre", PROGBITS, A, 4, &[0; 8]);
    });
    kills("4.17.5", codes::COLLECTED_AT_BOOT, |e| {
        e.add(".initcall1.init", PROGBITS, A, 8, &[0; 8]);
    });
    kills("4.17.5", codes::PER_CPU, |e| {
        e.add(".bss.percpu", NOBITS, A, 8, &[]);
    });
    kills("4.17.5", codes::SPECIAL_NOT_LOADED, |e| e.sec(".modinfo").flags = 0);
    let huge = damaged("4.17.5", |e| {
        for i in 0..512 {
            e.add(&format!(".bss.{i}"), NOBITS, A | W, 8, &[]);
            e.sec(&format!(".bss.{i}")).size = Some(2 << 20);
        }
    });
    assert_eq!(loader(&huge), "upload ENOMEM no-room-for-payload");
}

#[test]
fn names_of_sections_and_symbols() {
    let mut bytes = sample::payload().write();
    let table = u64::from_le_bytes(bytes[40..48].try_into().unwrap()) as usize;
    bytes[table + 4 * 64..table + 4 * 64 + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    let verdict = judged("4.17.5", &bytes, VerifyInput::default());
    assert_eq!(loader(&verdict), "upload EINVAL section-name");
    // Xen keeps 126 characters, and reads any number of them.
    kills("4.17.5", codes::SYMBOL_NAME, |e| e.sym("fresh_fn").name = "n".repeat(127));
    kills("4.17.5", codes::SYMBOL_NAME, |e| e.sym("fresh_fn").name = "n".repeat(5000));
}

#[test]
fn the_symbol_table() {
    use Errno::{Einval, Eopnotsupp};
    refuses_at_upload(Einval, codes::SYMBOL_TABLE, |e| e.symtab_entsize = 25);
    refuses_at_upload(Einval, codes::SYMBOL_TABLE, |e| e.symtab_entsize = 16);
    refuses_at_upload(Einval, codes::SYMBOL_TABLE, |e| e.symtab_link = Some(999));
    refuses_at_upload(Einval, codes::SYMBOL_TABLE, |e| e.symtab_kind = PROGBITS);
    refuses_at_upload(Eopnotsupp, codes::SYMBOL_TABLE, |e| {
        e.add(".symtab2", SYMTAB, 0, 8, &[0; 24]);
        e.sec(".symtab2").entsize = 24;
    });
    refuses_at_upload(Einval, codes::STRING_TABLE, |e| e.strtab_kind = PROGBITS);
    // It looks at no section there, by a pointer that it has not set.
    kills("4.17.5", codes::SYMBOL_TABLE, |e| e.symtab_link = Some(0));
    // It writes into the table before it reads what is there, too.
    let symbols = sample::payload().write();
    let table = u64::from_le_bytes(symbols[40..48].try_into().expect("eight bytes")) as usize;
    let number = |at: usize| u64::from_le_bytes(symbols[at..at + 8].try_into().expect("eight bytes"));
    let symtab = (table..).step_by(64).find(|at| symbols[at + 4..at + 8] == 2u32.to_le_bytes());
    let start = number(symtab.expect("a symbol table") + 24);
    let mut over = symbols.clone();
    let text = (table..).step_by(64).find(|at| number(at + 8) == A | W).expect("writable data");
    over[text + 24..text + 32].copy_from_slice(&start.to_le_bytes());
    let verdict = judged("4.17.5", &over, VerifyInput::default());
    assert!(unsafe_for(&verdict).contains(&codes::SYMBOL_TABLE.name), "{:#?}", verdict.findings);
    refuses_at_upload(Einval, codes::STRING_TABLE, |e| e.strtab_tail = vec![b'x']);
}

#[test]
fn symbols() {
    use Errno::{Eexist, Einval, Enoent, Eopnotsupp};
    refuses_at_upload(Einval, codes::SYMBOL_COMMON, |e| e.symbol("shared", COMMON, 8, 8, OBJECT, GLOBAL));
    refuses_at_upload(Einval, codes::SYMBOL_SECTION, |e| e.symbol("lost", 0x300, 0, 0, 0, LOCAL));
    refuses_at_upload(Eopnotsupp, codes::SYMBOL_SECTION, |e| e.symbol("lost", 0xff20, 0, 0, 0, LOCAL));
    kills("4.17.5", codes::SYMBOL_SECTION, |e| {
        e.symbol("beyond", 1, sample::NEW_SIZE + 1, 0, 0, LOCAL);
    });
    refuses_at_upload(Enoent, codes::SYMBOL_UNKNOWN, |e| e.rename("printk", "printkk"));
    refuses_at_upload(Enoent, codes::SYMBOL_UNKNOWN, |e| e.symbol("perhaps", 0, 0, 0, 0, 2));
    kills("4.17.5", codes::SYMBOL_AMBIGUOUS, |e| e.rename("printk", "common/c.c#twin"));
    kills("4.17.5", codes::SYMBOL_IN_INIT, |e| e.symbol("init_fn", 0, 0, 0, 0, GLOBAL));
    refuses_at_upload(Eexist, codes::SYMBOL_COLLIDES, |e| e.sym("fresh_fn").name = "plain_fn".into());
}

#[test]
fn relocations() {
    use Errno::{Einval, Eopnotsupp, Eoverflow};
    refuses_at_upload(Einval, codes::RELOCATION_SECTION, |e| {
        e.sec(".livepatch.hooks.load").rela_link = Some(2);
    });
    // Xen follows the pointer to a section that it has not.
    kills("4.17.5", codes::RELOCATION_SECTION, |e| {
        e.add(".of_nothing", RELA, 0, 8, &[]);
        e.sec(".of_nothing").entsize = 24;
    });
    let broken = |change: fn(&mut Sec)| loader(&damaged("4.17.5", |e| change(e.sec(".text.new_fn"))));
    assert_eq!(broken(|s| s.rela_kind = 9), "upload EOPNOTSUPP relocation-section");
    assert_eq!(broken(|s| s.rela_entsize = 16), "upload EINVAL relocation-section");
    refuses_at_upload(Eopnotsupp, codes::RELOCATION_TYPE, |e| {
        e.relocate(".text.fresh_fn", 0, 11, "printk", 0);
    });
    refuses_at_upload(Eopnotsupp, codes::RELOCATION_SYMBOL, |e| {
        e.relocate(".text.new_fn", 12, R_PC32, "#0", 0);
    });
    refuses_at_upload(Einval, codes::RELOCATION_SYMBOL, |e| {
        e.relocate(".text.new_fn", 12, R_PC32, "#999", 0);
    });
    let unloaded = |e: &mut Elf| {
        let index = e.add(".debug_str", PROGBITS, 0, 1, b"x\0");
        e.symbol("", index, 0, 0, SECTION, LOCAL);
        e.relocate(".text.new_fn", 12, R_PC32, ".debug_str", 0);
    };
    refuses_at_upload(Einval, codes::RELOCATION_SYMBOL, unloaded);
    // There the symbol's value is taken as it stands in the file: no displacement reaches it, an address is wrong.
    refuses("4.13.5", "upload", Eoverflow, codes::RELOCATION_SYMBOL, unloaded);
    let empty = |kind: u32| {
        move |e: &mut Elf| {
            let index = e.add(".rodata.none", PROGBITS, A, 1, b"");
            e.symbol("", index, 0, 0, SECTION, LOCAL);
            let (section, offset) = if kind == R_64 { (".rodata.str", 0) } else { (".text.new_fn", 12) };
            e.relocate(section, offset, kind, ".rodata.none", 0);
        }
    };
    refuses("4.13.5", "upload", Eoverflow, codes::RELOCATION_SYMBOL, empty(R_PC32));
    is_fine("4.14.0", empty(R_PC32));
    let address = damaged("4.13.5", empty(R_64));
    assert_eq!(loader(&address), "accept");
    assert!(unsafe_for(&address).contains(&"relocation-symbol"), "{address:#?}");
    refuses_at_upload(Einval, codes::RELOCATION_OFFSET, |e| e.relocate(".fixup", 0, R_64, "new_fn", 0));
    kills("4.17.5", codes::RELOCATION_OVERLAP, |e| e.relocate(".text.new_fn", 6, R_PC32, "printk", 0));
    refuses_at_upload(Eoverflow, codes::RELOCATION_OVERFLOW, |e| {
        e.symbol("far", ABS, 0, 0, 0, LOCAL);
        e.relocate(".text.new_fn", 28, R_PC32, "far", 0);
    });
    // The first relocation that fails decides.
    let both = damaged("4.17.5", |e| {
        e.relocate(".text.new_fn", 12, R_PC32, "#999", 0);
        e.relocate(".text.fresh_fn", 0, 11, "printk", 0);
    });
    assert_eq!(loader(&both), "upload EINVAL relocation-symbol");
}

#[test]
fn required_sections_and_notes() {
    use Errno::{Eexist, Einval, Enodata};
    for name in [".note.gnu.build-id", ".livepatch.depends", ".livepatch.xen_depends"] {
        refuses_at_upload(Einval, codes::MISSING_SECTION, |e| e.remove(name));
        refuses_at_upload(Einval, codes::MISSING_SECTION, |e| e.sec(name).data.clear());
        refuses_at_upload(Einval, codes::NOTE, |e| e.sec(name).data[4] = 64);
        refuses_at_upload(Einval, codes::NOTE, |e| e.sec(name).data.truncate(12));
        // Another type, and another owner: no id, as newer loaders say of two of the three.
        for at in [8, 12] {
            for (version, errno) in [
                ("4.14.6", Einval),
                ("4.17.5", Einval),
                ("4.18.3", Einval),
                ("4.18.4", Enodata),
                ("4.22.0", Enodata),
            ] {
                let errno = if name == ".livepatch.xen_depends" { Einval } else { errno };
                refuses(version, "upload", errno, codes::NOTE, |e| e.sec(name).data[at] = 1);
            }
        }
    }
    is_fine("4.13.5", |e| e.remove(".livepatch.xen_depends"));
    // A name with more behind its NUL is one to Xen.
    kills("4.17.5", codes::NOTE, |e| {
        let note = e.sec(".note.gnu.build-id");
        (note.data[0], note.data[4]) = (8, 16);
    });
    refuses_at_upload(Einval, codes::WRONG_XEN, |e| e.sec(".livepatch.xen_depends").data = note(&[9; 20]));
    refuses("4.17.5", "apply", Einval, codes::WRONG_DEPENDS, |e| {
        e.sec(".livepatch.depends").data = note(&[9; 20]);
    });
    kills("4.17.5", codes::SAME_BUILD_ID, |e| {
        e.sec(".note.gnu.build-id").data = note(&sample::XEN_ID);
    });
    let (lower, mut upper) = (sample::payload().write(), sample::upper());
    upper.sec(".note.gnu.build-id").data = note(&sample::PAYLOAD_ID);
    let below: &[&[u8]] = &[&lower];
    let verdict = judged("4.17.5", &upper.write(), VerifyInput { below, ..Default::default() });
    assert_eq!(loader(&verdict), format!("upload {} same-build-id", Eexist.name()));
}

#[test]
fn the_hypervisors_id_is_compared_early_or_late() {
    let both = |e: &mut Elf| {
        e.sec(".livepatch.xen_depends").data = note(&[9; 20]);
        e.rename("printk", "printkk");
    };
    for (version, wanted) in [
        ("4.17.5", "upload ENOENT symbol-unknown"),
        ("4.18.3", "upload ENOENT symbol-unknown"),
        ("4.18.4", "upload EINVAL wrong-xen"),
        ("4.19.0", "upload ENOENT symbol-unknown"),
        ("4.20.4", "upload EINVAL wrong-xen"),
    ] {
        assert_eq!(loader(&damaged(version, both)), wanted, "{version}");
    }
}

#[test]
fn something_to_do() {
    use Errno::Einval;
    let nothing = |e: &mut Elf| {
        e.remove(".livepatch.funcs");
        e.remove(".livepatch.hooks.load");
    };
    refuses_at_upload(Einval, codes::NOTHING_TO_DO, nothing);
    is_fine("4.17.5", |e| e.remove(".livepatch.funcs"));
    refuses("4.13.5", "upload", Einval, codes::NOTHING_TO_DO, |e| e.remove(".livepatch.funcs"));
    let empty = |e: &mut Elf| {
        e.add(".livepatch.hooks.unload", PROGBITS, A, 8, &[]);
    };
    refuses_at_upload(Einval, codes::MISSING_SECTION, empty);
    kills("4.13.5", codes::MISSING_SECTION, empty);
}

#[test]
fn functions() {
    use Errno::{Einval, Enoent, Eopnotsupp, Eoverflow};
    refuses_at_upload(Einval, codes::FUNCS_LAYOUT, |e| e.sec(".livepatch.funcs").data.push(0));
    refuses_at_upload(Eopnotsupp, codes::FUNC_VERSION, |e| e.sec(".livepatch.funcs").data[32] = 1);
    refuses_at_upload(Enoent, codes::FUNC_OLD_UNKNOWN, |e| retarget(e, "no_such_fn", 32));
    kills("4.17.5", codes::FUNC_OLD_UNKNOWN, |e| retarget(e, "common/c.c#twin", 16));
    refuses_at_upload(Einval, codes::FUNC_TOO_SMALL, |e| retarget(e, "tiny_fn", 4));
    for at in [33, 40, 71] {
        kills("4.17.5", codes::FUNC_PADDING, |e| e.sec(".livepatch.funcs").data[at] = 1);
    }
    kills("4.17.5", codes::FUNC_OLD_IN_INIT, |e| retarget(e, "init_fn", 16));
    kills("4.17.5", codes::FUNC_OLD_SIZE, |e| retarget(e, "target_fn", 31));
    kills("4.17.5", codes::FUNC_OLD_NOT_CODE, |e| retarget(e, "some_data", 32));
    kills("4.17.5", codes::FUNC_NEW, |e| {
        e.sec(".livepatch.funcs").relocations.iter_mut().filter(|r| r.offset == 8).for_each(|r| {
            r.symbol = ".rodata.str".into();
        });
    });
    // Nobody looks at the size of a replacement.
    let too_long = damaged("4.17.5", |e| e.sec(".livepatch.funcs").data[24] += 1);
    assert_eq!((loader(&too_long).as_str(), unsafe_for(&too_long)), ("accept", vec![]));
    assert_eq!(common::names(&too_long), ["func-new"]);
    assert!(too_long.is_accepted());
    kills("4.17.5", codes::FUNC_TWICE, |e| {
        e.sec(".livepatch.funcs").data.extend(sample::func(3, 32));
        e.relocate(".livepatch.funcs", 104, R_64, ".livepatch.strings", 0);
        e.relocate(".livepatch.funcs", 112, R_64, "fresh_fn", 0);
    });
    // An address that no jump reaches, given as a number.
    let far = damaged("4.17.5", |e| {
        let funcs = e.sec(".livepatch.funcs");
        funcs.relocations.retain(|r| r.offset != 8);
        funcs.data[8] = 1;
    });
    assert_eq!(loader(&far), format!("upload {} func-distance", Eoverflow.name()));
}

#[test]
fn room_for_the_jump_is_asked_for_by_some_releases() {
    use Errno::Einval;
    for version in ["4.14.5", "4.15.3", "4.16.1", "4.17.5", "4.22.0"] {
        refuses(version, "upload", Einval, codes::FUNC_TOO_SMALL, |e| retarget(e, "small_endbr_fn", 8));
    }
    for version in ["4.14.4", "4.15.2", "4.16.0"] {
        is_fine(version, |e| retarget(e, "small_endbr_fn", 8));
    }
    refuses("4.17.0", "upload", Einval, codes::FUNC_TOO_SMALL, |e| retarget(e, "small_poison_fn", 8));
    is_fine("4.16.7", |e| {
        e.sec(".livepatch.funcs").flags = A | W;
        retarget(e, "small_poison_fn", 8);
    });
}

#[test]
fn what_is_looked_at_first_differs() {
    let both = |e: &mut Elf| retarget(e, "no_such_fn", 4);
    assert_eq!(loader(&damaged("4.17.5", both)), "upload ENOENT func-old-unknown");
    assert_eq!(loader(&damaged("4.13.5", both)), "upload EINVAL func-too-small");
    let none = |e: &mut Elf| retarget(e, "no_such_fn", 0);
    assert_eq!(loader(&damaged("4.17.5", none)), "upload EINVAL func-too-small");
}

#[test]
fn entries_of_nops() {
    use Errno::{Einval, Eopnotsupp};
    is_fine("4.17.5", |e| nops(e, "plain_fn", 31, 48));
    refuses_at_upload(Eopnotsupp, codes::FUNC_NOP, |e| nops(e, "plain_fn", 32, 48));
    refuses_at_upload(Einval, codes::FUNC_NOP, |e| nops(e, "tiny_fn", 5, 4));
    kills("4.17.5", codes::FUNC_NOP, |e| nops(e, "tiny_fn", 4, 4));
    kills("4.17.5", codes::FUNC_NOP, |e| nops(e, "target_fn", 4, 32));
    kills("4.17.5", codes::FUNC_NOP, |e| nops(e, "thunked_fn", 7, 16));
    // Three bytes each.
    is_fine("4.17.5", |e| nops(e, "plain_fn", 6, 48));
    kills("4.17.5", codes::FUNC_NOP, |e| nops(e, "plain_fn", 5, 48));
}

#[test]
fn a_read_only_list_of_functions_faults_where_it_is_written_to() {
    let read_only = |e: &mut Elf| e.sec(".livepatch.funcs").flags = A;
    for version in ["4.16.4", "4.16", "4.17.1", "4.17.2", "4.17", "4.18.0"] {
        kills(version, codes::FUNCS_READ_ONLY, read_only);
    }
    for version in ["4.16.3", "4.17.0", "4.17.5", "4.18.1", "4.22.0"] {
        is_fine(version, read_only);
    }
}

#[test]
fn expectations_are_compared_at_apply() {
    use Errno::{Einval, Erange};
    let endbr = [0xf3, 0x0f, 0x1e, 0xfa];
    refuses("4.17.5", "apply", Einval, codes::EXPECTATION, |e| expect(e, &[0xde, 0xad], 0));
    refuses("4.17.5", "apply", Einval, codes::EXPECTATION, |e| expect(e, &endbr, 1));
    let longer = damaged("4.17.5", |e| {
        retarget(e, "plain_fn", 6);
        expect(e, &[0x48, 0x89, 0xf8, 0x48, 0x01, 0xf0, 0xc3], 0);
    });
    assert_eq!(loader(&longer), format!("apply {} expectation", Erange.name()));
    // It counts before it compares.
    let both = damaged("4.17.5", |e| {
        retarget(e, "plain_fn", 6);
        expect(e, &[0xde; 7], 0);
    });
    assert_eq!(loader(&both), format!("apply {} expectation", Erange.name()));
    // Boot may seal it, or leave it: nobody knows.
    kills("4.17.5", codes::EXPECTATION, |e| {
        retarget(e, "sealable_fn", 32);
        expect(e, &endbr, 0);
    });
}

#[test]
fn hooks() {
    let load = |change: fn(&mut Sec)| move |e: &mut Elf| change(e.sec(".livepatch.hooks.load"));
    let half = damaged("4.17.5", load(|s| s.data.extend([0; 4])));
    assert_eq!(loader(&half), "upload EINVAL hook-size");
    kills("4.17.5", codes::HOOK_TARGET, load(|s| s.relocations.clear()));
    kills("4.17.5", codes::HOOK_ENDBR, load(|s| s.relocations[0].symbol = "fresh_fn".into()));
    let two = |e: &mut Elf| {
        e.add(".livepatch.hooks.apply", PROGBITS, A, 8, &[0; 16]);
        e.relocate(".livepatch.hooks.apply", 0, R_64, "on_load", 0);
        e.relocate(".livepatch.hooks.apply", 8, R_64, "on_load", 0);
    };
    refuses_at_upload(Errno::Einval, codes::HOOK_SIZE, two);
    // 4.13 passes over them.
    kills("4.13.5", codes::SPECIAL_UNKNOWN, |e| {
        e.add(".livepatch.hooks.apply", PROGBITS, A, 8, &[0; 8]);
        e.relocate(".livepatch.hooks.apply", 0, R_64, "on_load", 0);
    });
}

#[test]
fn tables() {
    use Errno::Einval;
    let grow = |name: &'static str, by: usize| {
        move |e: &mut Elf| e.sec(name).data.extend(std::iter::repeat_n(0, by))
    };
    refuses_at_upload(Einval, codes::BUG_FRAMES, grow(".bug_frames.1", 1));
    refuses_at_upload(Einval, codes::ALTERNATIVES, grow(".altinstructions", 1));
    refuses_at_upload(Einval, codes::EXCEPTION_TABLE, grow(".ex_table", 4));
    // Half an assertion is a whole frame to the loader.
    kills("4.17.5", codes::BUG_FRAMES, |e| {
        e.add(".bug_frames.3", PROGBITS, A, 4, &[0; 8]);
    });
    kills("4.17.5", codes::BUG_FRAMES, |e| e.sec(".bug_frames.1").relocations[0].addend += 1);
    kills("4.17.5", codes::EXCEPTION_TABLE, |e| e.sec(".ex_table").relocations[1].addend = 2);
    refuses_at_upload(Einval, codes::METADATA, |e| e.sec(".modinfo").data = b"key=value".to_vec());
    kills("4.17.5", codes::METADATA, |e| e.sec(".modinfo").data.clear());
    is_fine("4.13.5", |e| e.sec(".modinfo").data = b"key=value".to_vec());
    kills("4.17.5", codes::STRAY_RELOCATION, |e| e.relocate(".modinfo", 0, R_PC32, "printk", 0));
}

#[test]
fn alternatives_are_checked_more_by_newer_loaders() {
    use Errno::{Einval, Enospc, Erange};
    let table = |change: fn(&mut Sec)| move |e: &mut Elf| change(e.sec(".altinstructions"));
    let outside = || table(|s| s.relocations[0].symbol = ".rodata.str".into());
    let elsewhere = || table(|s| s.relocations[1].addend = 6);
    let too_long = || table(|s| s.data[12] = 2);
    let no_feature = || table(|s| s.data[9] = 0x40);
    for change in [outside(), elsewhere()] {
        refuses("4.17.4", "upload", Einval, codes::ALTERNATIVES, change);
        refuses("4.20.4", "upload", Einval, codes::ALTERNATIVES, change);
        kills("4.17.3", codes::ALTERNATIVES, change);
        kills("4.14.6", codes::ALTERNATIVES, change);
    }
    for (change, errno) in [(too_long(), Enospc), (no_feature(), Erange)] {
        for version in ["4.18.4", "4.19.1", "4.20.0", "4.22.0"] {
            refuses(version, "upload", errno, codes::ALTERNATIVES, change);
        }
        // A BUG there.
        for version in ["4.14.6", "4.17.5", "4.18.3", "4.19.0"] {
            kills(version, codes::ALTERNATIVES, change);
        }
    }
    // The first number that a release does not know, and the last that it does.
    for (version, first) in
        [("4.14.4", 416u16), ("4.16.4", 576), ("4.17.1", 576), ("4.17.5", 640), ("4.17.7", 672)]
    {
        let feature = |number: u16| {
            move |e: &mut Elf| e.sec(".altinstructions").data[8..10].copy_from_slice(&number.to_le_bytes())
        };
        is_fine(version, feature(first - 1));
        kills(version, codes::ALTERNATIVES, feature(first));
    }
    let negated = || table(|s| s.data[9] = 0x80);
    is_fine("4.17.6", negated());
    kills("4.17.5", codes::ALTERNATIVES, negated());
    refuses("4.20.0", "upload", Erange, codes::ALTERNATIVES, negated());
    is_fine("4.20.1", negated());
    // The loader counts no padding, and takes replacements for text.
    let for_text = |s: &mut Sec| {
        s.relocations[0].symbol = ".altinstr_replacement".into();
        s.relocations[0].addend = 0;
    };
    kills("4.20.4", codes::ALTERNATIVES, table(for_text));
    kills("4.20.4", codes::ALTERNATIVES, table(|s| s.data[13] = 1));
    kills("4.20.4", codes::ALTCALL, |e| e.sec(".altinstr_replacement").data[4] = 0xfa);
}

#[test]
fn call_sites_are_known_from_4_21_on() {
    let site = |addend: i64| {
        move |e: &mut Elf| {
            e.add(".alt_call_sites", PROGBITS, A, 4, &[0; 4]);
            e.relocate(".alt_call_sites", 0, R_PC32, ".text.new_fn", addend);
        }
    };
    is_fine("4.21.0", site(sample::ALTCALL as i64));
    refuses("4.21.0", "upload", Errno::Einval, codes::ALTCALL, site(sample::CALL as i64));
    kills("4.20.4", codes::SPECIAL_UNKNOWN, site(sample::ALTCALL as i64));
    kills("4.21.0", codes::ALTCALL, |e| {
        site(sample::ALTCALL as i64)(e);
        e.sec(".text.new_fn").relocations.retain(|r| r.offset != sample::ALTCALL + 2);
        e.sec(".altinstructions").data.truncate(14);
        e.sec(".altinstructions").relocations.truncate(2);
    });
}

#[test]
fn without_a_hypervisor_nothing_is_said_of_the_loader_alone() {
    let payload = sample::payload().write();
    let unusable = verify(&VerifyInput {
        payload: &payload,
        name: "n",
        xen_syms: Some(b"not a hypervisor"),
        ..Default::default()
    });
    assert_eq!(loader(&unusable), "unknown");
    assert_eq!(unsafe_for(&unusable), ["unknown"]);
}
