//! One damaged payload for each rule about the file, its sections, symbols and relocations.

mod common;

use common::elf::*;
use common::{gives, judge, sample, says};
use xsplice_verify::{VerifyInput, codes, verify};

#[test]
fn the_sample_payload_is_accepted_without_a_word() {
    let verdict = judge(&sample::payload().write());
    says(&[], &verdict);
    assert_eq!(verdict.facts.symbols_from_xen, 3);
    assert_eq!(verdict.facts.symbols_from_payloads, 0);
    assert_eq!(verdict.facts.functions, 1);
    // Three in the code, two of the frame, four of alternatives, two of the table, two of the function, one hook.
    assert_eq!(verdict.facts.relocations, 14);
    // Code, writable and read-only data on a page each.
    assert_eq!(verdict.facts.memory, 3 * 4096);
}

#[test]
fn names_have_1_to_127_bytes() {
    let payload = sample::payload().write();
    let xen = sample::xen().write();
    let long = "n".repeat(128);
    for (name, fits) in [("n", true), (&long[..127], true), (&long[..], false), ("", false), ("a/b", false)] {
        let input = VerifyInput { payload: &payload, name, xen_syms: Some(&xen), ..VerifyInput::default() };
        let wanted: &[_] = if fits { &[] } else { &[codes::NAME_LENGTH] };
        says(wanted, &verify(&input));
    }
}

#[test]
fn files_have_1_byte_to_2_mib() {
    let pad = |size: usize| {
        let mut payload = sample::payload();
        payload.add(".debug_info", PROGBITS, 0, 1, b"");
        let without = payload.write().len();
        payload.sec(".debug_info").data = vec![0; size - without];
        payload.write()
    };
    let largest = pad(2 << 20);
    assert_eq!(largest.len(), 2 << 20);
    says(&[], &judge(&largest));
    says(&[codes::FILE_SIZE], &judge(&pad((2 << 20) + 8)));
    let empty = judge(b"");
    assert_eq!(common::names(&empty), ["payload-size"]);
}

#[test]
fn what_is_no_elf_file_is_refused() {
    says(&[codes::ELF_IDENT], &judge(b"hello, this is a text file and no payload"));
    says(&[codes::ELF_IDENT], &judge(&sample::payload().write()[..63]));
    gives(&[codes::ELF_IDENT], |e| e.ident[4] = 1);
    gives(&[codes::ELF_IDENT], |e| e.ident[5] = 2);
}

#[test]
fn versions_and_abi() {
    gives(&[codes::ELF_IDENT], |e| e.ident[6] = 2);
    gives(&[codes::ELF_IDENT], |e| e.version = 2);
    gives(&[codes::ELF_IDENT], |e| e.ident[8] = 1);
    gives(&[codes::ELF_IDENT], |e| e.ident[7] = 3);
    gives(&[], |e| e.ident[7] = 9);
}

#[test]
fn relocatable_files_for_x86_64_without_program_headers() {
    gives(&[codes::ELF_KIND], |e| e.kind = 2);
    gives(&[codes::ELF_KIND], |e| e.machine = 183);
    gives(&[codes::ELF_KIND], |e| e.phnum = 1);
}

#[test]
fn the_section_table_is_sound() {
    gives(&[codes::ELF_SECTION_TABLE], |e| e.shnum = Some(1024));
    gives(&[codes::ELF_SECTION_TABLE], |e| e.shoff = Some(1 << 40));
    gives(&[codes::ELF_SECTION_TABLE], |e| e.shoff = Some(u64::MAX - 8));
    gives(&[codes::ELF_SECTION_TABLE], |e| e.shentsize = 56);
    // Without names nothing else can be said about sections, but that they have none.
    let mut nameless = sample::payload();
    nameless.shstrndx = Some(0);
    assert!(common::names(&judge(&nameless.write())).contains(&"elf-section-table"));
}

#[test]
fn contents_are_inside_the_file() {
    gives(&[codes::SECTION_OUTSIDE_FILE], |e| {
        e.add(".far", PROGBITS, A, 1, b"");
        e.sec(".far").size = Some(1 << 20);
    });
    gives(&[codes::SECTION_OUTSIDE_FILE], |e| {
        e.add(".head", PROGBITS, A, 1, b"");
        e.sec(".head").offset = Some(0);
    });
    gives(&[codes::SECTION_OUTSIDE_FILE], |e| {
        e.add(".wraps", PROGBITS, A, 1, b"");
        e.sec(".wraps").offset = Some(u64::MAX);
        e.sec(".wraps").size = Some(2);
    });
}

#[test]
fn zero_initialised_sections_have_at_most_2_mib() {
    let bss = |size: u64| {
        move |e: &mut Elf| {
            e.add(".bss", NOBITS, A | W, 16, b"");
            e.sec(".bss").size = Some(size);
        }
    };
    gives(&[codes::NOT_REAPPLICABLE], bss(2 << 20));
    gives(&[codes::NOT_REAPPLICABLE, codes::SECTION_TOO_LARGE], bss((2 << 20) + 1));
}

#[test]
fn alignments() {
    gives(&[codes::SECTION_ALIGNMENT], |e| e.sec(".rodata.str").align = 3);
    gives(&[codes::SECTION_ALIGNMENT], |e| e.sec(".rodata.str").align = 0);
    gives(&[codes::SECTION_ALIGNMENT], |e| e.sec(".rodata.str").align = 8192);
    gives(&[], |e| e.sec(".rodata.str").align = 4096);
    gives(&[codes::SECTION_ALIGNMENT], |e| {
        e.sec(".text.fresh_fn").addr = 8;
    });
    gives(&[], |e| {
        e.add(".comment", PROGBITS, 0, 0, b"x");
    });
}

#[test]
fn nothing_is_writable_and_executable() {
    gives(&[codes::SECTION_WRITABLE_CODE], |e| e.sec(".text.fresh_fn").flags |= W);
}

#[test]
fn names_of_sections_can_be_read() {
    let mut bytes = sample::payload().write();
    let table = u64::from_le_bytes(bytes[40..48].try_into().unwrap()) as usize;
    // The name of section 4, .fixup, which nothing looks up.
    bytes[table + 4 * 64..table + 4 * 64 + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    says(&[codes::SECTION_NAME], &judge(&bytes));
}

#[test]
fn loaded_sections_are_plain() {
    gives(&[codes::SECTION_KIND, codes::NOT_REAPPLICABLE], |e| {
        e.add(".tdata", PROGBITS, A | W | 0x400, 8, b"12345678");
    });
    gives(&[codes::SECTION_KIND], |e| {
        e.add(".zipped", PROGBITS, A | 0x800, 8, b"12345678");
    });
}

#[test]
fn there_is_one_symbol_table() {
    gives(&[codes::SYMBOL_TABLE], |e| e.symtab_entsize = 25);
    gives(&[codes::SYMBOL_TABLE], |e| e.symtab_entsize = 16);
    gives(&[codes::SYMBOL_TABLE], |e| e.symtab_link = Some(999));
    gives(&[codes::SYMBOL_TABLE], |e| e.symtab_kind = PROGBITS);
    gives(&[codes::SYMBOL_TABLE], |e| {
        e.add(".symtab2", SYMTAB, 0, 8, &[0; 24]);
        e.sec(".symtab2").entsize = 24;
    });
}

#[test]
fn string_tables_start_and_end_with_nul() {
    gives(&[codes::STRING_TABLE], |e| e.strtab_kind = PROGBITS);
    gives(&[codes::STRING_TABLE], |e| e.strtab_tail = vec![b'x']);
}

#[test]
fn special_sections_are_there_once() {
    gives(&[codes::SPECIAL_TWICE], |e| {
        e.add(".ex_table", PROGBITS, A, 4, &[]);
    });
    gives(&[], |e| {
        e.add(".rodata.str", PROGBITS, A, 4, b"twice\0");
    });
}

#[test]
fn special_sections_are_in_memory() {
    gives(&[codes::SPECIAL_NOT_LOADED], |e| e.sec(".modinfo").flags = 0);
    gives(&[codes::SPECIAL_NOT_LOADED], |e| e.sec(".livepatch.depends").flags = 0);
}

#[test]
fn special_sections_are_known() {
    gives(&[codes::SPECIAL_UNKNOWN], |e| {
        e.add(".livepatch.hooks.aply", PROGBITS, A, 8, &[0; 8]);
    });
    gives(&[codes::SPECIAL_UNKNOWN], |e| {
        e.add(".bug_frames.4", PROGBITS, A, 8, &[]);
    });
    gives(&[codes::EXCEPTION_TABLE_PRE], |e| {
        e.add(".ex_table.pre", PROGBITS, A, 4, &[0; 8]);
    });
}

#[test]
fn nothing_is_collected_at_boot() {
    for name in [
        ".init.text",
        ".init.setup",
        ".init.data.cf_clobber",
        ".initcall1.init",
        ".initcallpresmp.init",
        ".ctors",
        ".init_array.00100",
        ".data.schedulers",
        ".data.vpci.9",
        ".data.acpi_init",
        ".text.startup",
        ".lockprofile.data",
    ] {
        gives(&[codes::COLLECTED_AT_BOOT], |e| {
            e.add(name, PROGBITS, A, 8, &[0; 8]);
        });
    }
    for name in [".initial", ".data.ro_after_init", ".ctorsmith", ".text.init_thing"] {
        gives(&[], |e| {
            e.add(name, PROGBITS, A, 8, &[0; 8]);
        });
    }
}

#[test]
fn nothing_is_per_cpu() {
    for name in [".bss.percpu", ".bss.percpu.read_mostly", ".data.percpu"] {
        gives(&[codes::PER_CPU], |e| {
            e.add(name, NOBITS, A, 8, &[]);
        });
    }
}

#[test]
fn writable_data_keeps_a_payload_from_being_applied_again() {
    gives(&[codes::NOT_REAPPLICABLE], |e| {
        e.add(".data", PROGBITS, A | W, 8, &[1; 8]);
    });
    gives(&[], |e| {
        e.add(".data", PROGBITS, A | W, 8, &[]);
    });
}

#[test]
fn a_payload_fits_into_the_area() {
    // Frames and their code end up at either end of it.
    gives(&[codes::NO_ROOM, codes::NOT_REAPPLICABLE, codes::BUG_FRAME_DISTANCE], |e| {
        for i in 0..512 {
            e.add(&format!(".bss.{i}"), NOBITS, A | W, 8, &[]);
            e.sec(&format!(".bss.{i}")).size = Some(2 << 20);
        }
    });
}

#[test]
fn symbols_are_where_symbols_can_be() {
    gives(&[codes::SYMBOL_COMMON], |e| e.symbol("shared", COMMON, 8, 8, OBJECT, GLOBAL));
    gives(&[codes::SYMBOL_SECTION], |e| e.symbol("lost", 0x300, 0, 0, 0, LOCAL));
    gives(&[codes::SYMBOL_SECTION], |e| e.symbol("lost", 0xff20, 0, 0, 0, LOCAL));
    gives(&[codes::SYMBOL_SECTION], |e| e.symbol("beyond", 1, sample::NEW_SIZE + 1, 0, 0, LOCAL));
    gives(&[], |e| e.symbol("end", 1, sample::NEW_SIZE, 0, 0, LOCAL));
}

#[test]
fn names_of_symbols_have_at_most_126_characters() {
    gives(&[codes::SYMBOL_NAME], |e| e.sym("fresh_fn").name = "n".repeat(127));
    gives(&[], |e| e.sym("fresh_fn").name = "n".repeat(126));
    gives(&[codes::SYMBOL_NAME], |e| e.sym("fresh_fn").name = "n".repeat(5000));
    // A name that Xen does not keep may be as long as it likes.
    gives(&[], |e| e.symbol(&"n".repeat(200), ABS, 0, 0, FILE, LOCAL));
}

#[test]
fn undefined_symbols_are_found() {
    gives(&[codes::SYMBOL_UNKNOWN], |e| e.rename("printk", "printkk"));
    gives(&[codes::SYMBOL_UNKNOWN], |e| e.symbol("", 0, 0, 0, 0, GLOBAL));
    // A weak one, that nothing refers to.
    gives(&[codes::SYMBOL_UNKNOWN], |e| e.symbol("perhaps", 0, 0, 0, 0, 2));
    // The ABS symbols and those that vary between links are not in Xen's table.
    gives(&[codes::SYMBOL_UNKNOWN], |e| e.rename("printk", "start_pa"));
    gives(&[codes::SYMBOL_UNKNOWN], |e| e.rename("printk", "_compiled.1"));
    gives(&[codes::SYMBOL_AMBIGUOUS], |e| e.rename("printk", "common/c.c#twin"));
}

#[test]
fn a_plain_local_name_is_not_found_and_the_advice_has_the_right_ones() {
    let mut payload = sample::payload();
    payload.rename("common/a.c#helper", "helper");
    let verdict = judge(&payload.write());
    says(&[codes::SYMBOL_UNKNOWN], &verdict);
    let advice = &verdict.problems.0[0].advice;
    assert!(advice.contains("common/a.c#helper, common/b.c#helper"), "{advice}");
}

#[test]
fn absolute_symbols_need_no_look_up() {
    let absolute = |name: &'static str, value: u64| {
        move |e: &mut Elf| {
            e.rename("printk", name);
            let symbol = e.sym(name);
            (symbol.section, symbol.value) = (ABS, value);
        }
    };
    gives(&[], absolute("printk", sample::TEXT + 0x800));
    // Each of two of one name, and nothing else of the hypervisor.
    gives(&[], absolute("common/c.c#twin", sample::TEXT + 0x180));
    gives(&[], absolute("common/c.c#twin", sample::TEXT + 0x1a0));
    for (name, value) in [
        // Another symbol's start, the inside of this one and of another, a hole, the end of the image.
        ("common/c.c#twin", sample::TEXT + 0x140),
        ("common/c.c#twin", sample::TEXT + 0x181),
        ("common/c.c#twin", sample::TEXT + 0x104),
        ("common/c.c#twin", sample::TEXT + 0x700),
        ("common/c.c#twin", sample::IMAGE_END - 1),
        // A name that is elsewhere, none that the hypervisor has, the name in the source alone.
        ("printk", sample::TEXT + 0x180),
        ("nothing", sample::TEXT + 0x180),
        ("twin", sample::TEXT + 0x180),
        // Where payloads are, and nowhere.
        ("nothing", sample::IMAGE_END + 0x1000),
        ("printk", 0x1000),
    ] {
        let mut payload = sample::payload();
        absolute(name, value)(&mut payload);
        let found = common::names(&judge(&payload.write()));
        assert!(found.contains(&codes::SYMBOL_ABSOLUTE.name), "{name} {value:#x}: {found:?}");
    }
    gives(&[codes::SYMBOL_IN_INIT], absolute("init_fn", sample::TEXT + 0x20_0010));
    // A number that is no address of the hypervisor.
    gives(&[], |e| e.symbol("size_of_it", ABS, 64, 0, 0, LOCAL));
    gives(&[], |e| e.symbol("printk.c", ABS, 0, 0, FILE, LOCAL));
}

#[test]
fn nothing_refers_to_init() {
    gives(&[codes::SYMBOL_IN_INIT], |e| {
        e.symbol("init_fn", 0, 0, 0, 0, GLOBAL);
    });
    gives(&[codes::SYMBOL_IN_INIT], |e| e.symbol("__init_begin", 0, 0, 0, 0, GLOBAL));
    gives(&[], |e| e.symbol("__init_end", 0, 0, 0, 0, GLOBAL));
}

#[test]
fn new_symbols_are_new() {
    gives(&[codes::SYMBOL_COLLIDES], |e| e.sym("fresh_fn").name = "plain_fn".into());
    // Locals too, and data.
    gives(&[codes::SYMBOL_COLLIDES], |e| e.symbol("some_data", 6, 0, 4, OBJECT, LOCAL));
    // A replacement may have the old name; so may whatever is not in memory.
    gives(&[], |e| e.symbol("target_fn", 1, 0, sample::NEW_SIZE, FUNC, GLOBAL));
    gives(&[], |e| {
        let index = e.add(".debug", PROGBITS, 0, 1, b"x");
        e.symbol("plain_fn", index, 0, 0, 0, LOCAL);
    });
    // Labels of merged sections are dropped, elsewhere they are names like others.
    gives(&[], |e| e.symbol(".LC0", 6, 0, 0, 0, LOCAL));
}

#[test]
fn relocation_sections_are_sound() {
    gives(&[codes::RELOCATION_SECTION], |e| e.sec(".livepatch.hooks.load").rela_link = Some(2));
    let broken = |change: fn(&mut Sec)| {
        let mut payload = sample::payload();
        change(payload.sec(".text.new_fn"));
        common::names(&judge(&payload.write()))
    };
    assert!(broken(|s| s.rela_kind = 9).contains(&"relocation-section"));
    assert!(broken(|s| s.rela_entsize = 16).contains(&"relocation-section"));
    assert!(broken(|s| s.rela_entsize = 48).contains(&"relocation-section"));
    gives(&[codes::RELOCATION_SECTION, codes::NOT_REAPPLICABLE], |e| {
        e.add(".bss", NOBITS, A | W, 8, &[]);
        e.sec(".bss").size = Some(64);
        e.relocate(".bss", 0, R_64, "printk", 0);
    });
}

#[test]
fn relocations_of_what_is_not_loaded_do_not_matter() {
    gives(&[], |e| {
        e.add(".debug_info", PROGBITS, 0, 1, &[0; 8]);
        e.relocate(".debug_info", 100, 10, "#999", 0);
    });
}

#[test]
fn relocation_types() {
    // R_X86_64_32S, GOTPCREL and REX_GOTPCRELX.
    for kind in [11, 9, 42] {
        gives(&[codes::RELOCATION_TYPE], |e| e.relocate(".text.fresh_fn", 0, kind, "printk", 0));
    }
    gives(&[], |e| e.relocate(".text.fresh_fn", 0, 0, "printk", 0));
}

#[test]
fn relocation_symbols() {
    gives(&[codes::RELOCATION_SYMBOL], |e| e.relocate(".text.new_fn", 12, R_PC32, "#0", 0));
    gives(&[codes::RELOCATION_SYMBOL], |e| e.relocate(".text.new_fn", 12, R_PC32, "#999", 0));
    gives(&[codes::RELOCATION_SYMBOL], |e| {
        let index = e.add(".debug_str", PROGBITS, 0, 1, b"x\0");
        e.symbol("", index, 0, 0, SECTION, LOCAL);
        e.relocate(".text.new_fn", 12, R_PC32, ".debug_str", 0);
    });
}

#[test]
fn relocations_stay_inside() {
    gives(&[], |e| e.relocate(".text.new_fn", 28, R_PC32, "new_fn", 0));
    gives(&[codes::RELOCATION_OFFSET, codes::RELOCATION_OVERLAP], |e| {
        e.relocate(".text.new_fn", 29, R_PC32, "new_fn", 0);
        e.relocate(".text.new_fn", 31, R_PC32, "new_fn", 0);
    });
    gives(&[codes::RELOCATION_OFFSET], |e| e.relocate(".fixup", 0, R_64, "new_fn", 0));
    gives(&[codes::RELOCATION_OFFSET], |e| e.relocate(".text.new_fn", u64::MAX - 1, R_64, "new_fn", 0));
}

#[test]
fn relocations_do_not_overlap() {
    gives(&[codes::RELOCATION_OVERLAP], |e| e.relocate(".text.new_fn", 6, R_PC32, "printk", 0));
}

#[test]
fn displacements_fit_into_32_bits() {
    let at = |address: u64| {
        move |e: &mut Elf| {
            e.symbol("far", ABS, address, 0, 0, LOCAL);
            e.relocate(".text.new_fn", 28, R_PC32, "far", 0);
        }
    };
    // The area ends at ffff82d080000000; 2 GiB below the end of the image is ffff82cfc0800000.
    gives(&[codes::RELOCATION_OVERFLOW], at(0));
    gives(&[codes::RELOCATION_OVERFLOW], at(0xffff_82cf_c080_0000));
    gives(&[codes::RELOCATION_OVERFLOW], at(0xffff_82d0_c080_2000));
    gives(&[], at(0xffff_82d0_0000_0000 + 0x10_0000));
    gives(&[], at(0xffff_82d0_c080_0000 - 0x10_0000));
}
