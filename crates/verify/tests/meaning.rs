//! One damaged payload for each rule about notes, functions, hooks and special sections.

mod common;

use common::elf::*;
use common::sample::{self, expect, nops, retarget};
use common::{gives, judge, says};
use xsplice_verify::{Verdict, VerifyInput, codes, verify};

/// Verifies [`sample::upper`] with a change on top of the sample payload.
fn stacked(change: impl FnOnce(&mut Elf)) -> Verdict {
    let mut upper = sample::upper();
    change(&mut upper);
    let (lower, upper, xen) = (sample::payload().write(), upper.write(), sample::xen().write());
    let below: &[&[u8]] = &[&lower];
    verify(&VerifyInput { payload: &upper, name: "upper", xen_syms: Some(&xen), below, ..Default::default() })
}

#[test]
fn required_sections_are_there_and_not_empty() {
    for name in [".note.gnu.build-id", ".livepatch.depends", ".livepatch.xen_depends"] {
        gives(&[codes::MISSING_SECTION], |e| e.remove(name));
        gives(&[codes::MISSING_SECTION], |e| e.sec(name).data.clear());
    }
}

#[test]
fn notes_are_build_ids() {
    let change = |change: fn(&mut Vec<u8>)| move |e: &mut Elf| change(&mut e.sec(".note.gnu.build-id").data);
    gives(&[codes::NOTE], change(|d| d.truncate(12)));
    gives(&[codes::NOTE], change(|d| d[8] = 1));
    gives(&[codes::NOTE], change(|d| d[12] = b'X'));
    gives(&[codes::NOTE], change(|d| d[0] = 3));
    gives(&[codes::NOTE], change(|d| d[4] = 21));
    gives(&[codes::NOTE], change(|d| d[4] = 0));
    gives(&[codes::NOTE], change(|d| d[0..4].copy_from_slice(&[0xff; 4])));
    // An id may be of any length.
    gives(&[], change(|d| *d = note(&[7])));
    gives(&[], change(|d| *d = note(&[7; 64])));
}

#[test]
fn ids_are_those_of_the_hypervisor() {
    gives(&[codes::WRONG_XEN], |e| e.sec(".livepatch.xen_depends").data = note(&[9; 20]));
    gives(&[codes::WRONG_DEPENDS], |e| e.sec(".livepatch.depends").data = note(&[9; 20]));
    // A prefix is not the same.
    gives(&[codes::WRONG_XEN], |e| e.sec(".livepatch.xen_depends").data = note(&[0x11; 19]));
    gives(&[codes::SAME_BUILD_ID], |e| e.sec(".note.gnu.build-id").data = note(&sample::XEN_ID));
}

#[test]
fn ids_can_be_given() {
    let mut payload = sample::payload();
    payload.sec(".livepatch.xen_depends").data = note(&[8; 16]);
    payload.sec(".livepatch.depends").data = note(&[7; 16]);
    let (payload, xen) = (payload.write(), sample::xen().write());
    let input = VerifyInput { payload: &payload, name: "n", xen_syms: Some(&xen), ..Default::default() };
    says(&[codes::WRONG_XEN, codes::WRONG_DEPENDS], &verify(&input));
    let given = VerifyInput { xen_build_id: Some(vec![8; 16]), depends: Some(vec![7; 16]), ..input };
    says(&[], &verify(&given));
}

#[test]
fn payloads_stack() {
    let verdict = stacked(|_| {});
    says(&[], &verdict);
    assert_eq!(verdict.facts.symbols_from_payloads, 1);
    assert_eq!(verdict.facts.symbols_from_xen, 0);
    says(&[codes::WRONG_DEPENDS], &stacked(|e| e.sec(".livepatch.depends").data = note(&sample::XEN_ID)));
    says(&[codes::SAME_BUILD_ID], &stacked(|e| e.sec(".note.gnu.build-id").data = note(&sample::PAYLOAD_ID)));
    // A replacement's name is not there for others, a new function's is, and must not come again.
    says(&[codes::SYMBOL_UNKNOWN], &stacked(|e| e.symbol("new_fn", 0, 0, 0, 0, GLOBAL)));
    says(&[codes::SYMBOL_COLLIDES], &stacked(|e| e.symbol("on_load", 1, 5, 1, FUNC, LOCAL)));
    // Without the lower payload there is no fresh_fn.
    says(&[codes::SYMBOL_UNKNOWN, codes::WRONG_DEPENDS], &judge(&sample::upper().write()));
}

#[test]
fn functions_of_payloads_below_can_be_replaced() {
    let replace = |size: u32| move |e: &mut Elf| retarget(e, "fresh_fn", size);
    // It has 3 bytes, too few for a jump.
    says(&[codes::FUNC_TOO_SMALL], &stacked(replace(3)));
    says(&[codes::FUNC_OLD_SIZE], &stacked(replace(6)));
}

#[test]
fn the_order_of_payloads_below_is_checked() {
    let (lower, upper, xen) = (sample::payload().write(), sample::upper().write(), sample::xen().write());
    let mut top = sample::payload();
    retarget(&mut top, "plain_fn", 48);
    top.sec(".note.gnu.build-id").data = note(&[0x44; 20]);
    top.sec(".livepatch.depends").data = note(&sample::PAYLOAD_ID);
    top.rename("fresh_fn", "third_fn");
    top.rename("on_load", "on_third_load");
    let top = top.write();
    let below: &[&[u8]] = &[&upper, &lower];
    let verdict =
        verify(&VerifyInput { payload: &top, name: "n", xen_syms: Some(&xen), below, ..Default::default() });
    says(&[codes::WRONG_DEPENDS], &verdict);
    assert!(verdict.problems.0.iter().all(|d| d.what.starts_with("payload ")), "{verdict:?}");
    let below: &[&[u8]] = &[b"rubbish"];
    let verdict =
        verify(&VerifyInput { payload: &top, name: "n", xen_syms: Some(&xen), below, ..Default::default() });
    assert!(common::names(&verdict).contains(&"below-unreadable"));
}

#[test]
fn metadata_ends_with_nul() {
    gives(&[codes::METADATA], |e| e.sec(".modinfo").data = b"key=value".to_vec());
    gives(&[codes::METADATA], |e| e.sec(".modinfo").data.clear());
    gives(&[], |e| e.remove(".modinfo"));
}

#[test]
fn there_is_something_to_do() {
    gives(&[codes::NOTHING_TO_DO], |e| {
        e.remove(".livepatch.funcs");
        e.remove(".livepatch.hooks.load");
    });
    gives(&[], |e| e.remove(".livepatch.funcs"));
    gives(&[], |e| e.remove(".livepatch.hooks.load"));
    gives(&[codes::MISSING_SECTION], |e| {
        e.add(".livepatch.hooks.revert", PROGBITS, A, 8, &[]);
    });
}

#[test]
fn the_layout_of_functions() {
    gives(&[codes::FUNCS_LAYOUT], |e| e.sec(".livepatch.funcs").data.push(0));
    let mut old = sample::payload();
    let funcs = old.sec(".livepatch.funcs");
    funcs.data.truncate(64);
    funcs.data[32] = 1;
    let (old, new, xen) = (old.write(), sample::payload().write(), sample::xen().write());
    let with = |payload: &[u8], version, size| {
        verify(&VerifyInput {
            payload,
            name: "n",
            xen_syms: Some(&xen),
            funcs_version: version,
            funcs_size: size,
            ..Default::default()
        })
    };
    says(&[], &with(&old, None, None));
    says(&[], &with(&old, Some(1), Some(64)));
    says(&[codes::FUNC_VERSION], &with(&old, Some(2), None));
    says(&[codes::FUNCS_LAYOUT], &with(&old, None, Some(104)));
    says(&[], &with(&new, Some(2), Some(104)));
    says(&[codes::FUNC_VERSION], &with(&new, Some(1), None));
    // An entry of 64 bytes and another 40, and a version that does not go with 64 bytes.
    says(&[codes::FUNCS_LAYOUT, codes::FUNC_VERSION], &with(&new, None, Some(64)));
}

#[test]
fn the_list_of_functions_is_writable() {
    gives(&[codes::FUNCS_READ_ONLY], |e| e.sec(".livepatch.funcs").flags = A);
}

#[test]
fn reserved_bytes_are_zero() {
    for at in [33, 40, 71] {
        gives(&[codes::FUNC_PADDING], |e| e.sec(".livepatch.funcs").data[at] = 1);
    }
}

#[test]
fn names_of_functions() {
    gives(&[codes::FUNC_NAME, codes::FUNC_OLD_UNKNOWN], |e| {
        e.sec(".livepatch.funcs").relocations.retain(|r| r.offset != 0);
    });
    gives(&[codes::FUNC_NAME, codes::FUNC_OLD_UNKNOWN], |e| {
        e.sec(".livepatch.strings").data = b"target_fn".to_vec();
    });
    gives(&[codes::FUNC_OLD_UNKNOWN], |e| retarget(e, "no_such_fn", 32));
    gives(&[codes::FUNC_OLD_UNKNOWN], |e| retarget(e, "helper", 32));
    gives(&[codes::FUNC_OLD_UNKNOWN], |e| retarget(e, "common/c.c#twin", 16));
    gives(&[], |e| retarget(e, "common/b.c#helper", 32));
}

/// Fixes the old address.
fn old_address(e: &mut Elf, address: u64) {
    e.sec(".livepatch.funcs").data[16..24].copy_from_slice(&address.to_le_bytes());
}

#[test]
fn old_addresses() {
    gives(&[], |e| old_address(e, sample::TEXT + 0x200));
    // One of several of that name, told by its address.
    gives(&[], |e| {
        retarget(e, "common/c.c#twin", 16);
        old_address(e, sample::TEXT + 0x1a0);
    });
    gives(&[codes::FUNC_NAME, codes::FUNC_OLD_SIZE], |e| old_address(e, sample::TEXT + 0x240));
    gives(&[codes::FUNC_OLD_NOT_CODE], |e| old_address(e, sample::TEXT + 0x201));
    gives(&[codes::FUNC_OLD_NOT_CODE], |e| {
        retarget(e, "some_data", 32);
    });
    gives(&[codes::FUNC_OLD_UNKNOWN], |e| e.relocate(".livepatch.funcs", 16, R_64, "fresh_fn", 0));
    gives(&[], |e| {
        e.symbol("target_fn", 0, 0, 0, 0, GLOBAL);
        e.relocate(".livepatch.funcs", 16, R_64, "target_fn", 0);
    });
    gives(&[codes::FUNC_OLD_UNKNOWN], |e| {
        e.symbol("target_fn", 0, 0, 0, 0, GLOBAL);
        e.relocate(".livepatch.funcs", 16, R_64, "target_fn", 4);
    });
}

#[test]
fn functions_of_init_are_not_replaced() {
    gives(&[codes::FUNC_OLD_IN_INIT], |e| retarget(e, "init_fn", 16));
}

#[test]
fn old_sizes_are_those_that_were_shipped() {
    gives(&[codes::FUNC_OLD_SIZE], |e| retarget(e, "target_fn", 31));
    gives(&[codes::FUNC_OLD_SIZE], |e| retarget(e, "target_fn", 33));
    // The assembler was not told the size of printk.
    gives(&[codes::FUNC_OLD_SIZE], |e| retarget(e, "printk", 16));
}

#[test]
fn there_is_room_for_a_jump() {
    gives(&[codes::FUNC_TOO_SMALL], |e| retarget(e, "tiny_fn", 4));
    gives(&[codes::FUNC_TOO_SMALL], |e| retarget(e, "small_endbr_fn", 8));
    gives(&[codes::FUNC_TOO_SMALL], |e| retarget(e, "small_poison_fn", 8));
    gives(&[], |e| retarget(e, "plain_fn", 48));
}

#[test]
fn nops_are_at_most_31_bytes_and_leave_the_return() {
    gives(&[], |e| nops(e, "plain_fn", 6, 48));
    gives(&[], |e| nops(e, "plain_fn", 31, 48));
    gives(&[codes::FUNC_NOP], |e| nops(e, "plain_fn", 32, 48));
    gives(&[codes::FUNC_NOP], |e| nops(e, "plain_fn", 0, 48));
    gives(&[codes::FUNC_NOP], |e| nops(e, "tiny_fn", 4, 4));
    gives(&[], |e| nops(e, "tiny_fn", 2, 4));
    // Behind ENDBR64 the count is too low by 4.
    gives(&[codes::FUNC_NOP], |e| nops(e, "target_fn", 4, 32));
    gives(&[], |e| nops(e, "target_fn", 5, 32));
    gives(&[codes::FUNC_NOP], |e| nops(e, "thunked_fn", 7, 16));
    gives(&[], |e| nops(e, "thunked_fn", 2, 16));
}

#[test]
fn replacements_are_code_of_the_payload() {
    let new_size = |size: u32| {
        move |e: &mut Elf| {
            e.sec(".livepatch.funcs").data[24..28].copy_from_slice(&size.to_le_bytes());
        }
    };
    gives(&[codes::FUNC_NEW], new_size(sample::NEW_SIZE as u32 + 1));
    gives(&[codes::FUNC_NEW], new_size(0));
    let target = |symbol: &'static str| {
        move |e: &mut Elf| {
            let funcs = e.sec(".livepatch.funcs");
            let new = funcs.relocations.iter_mut().find(|r| r.offset == 8).unwrap();
            new.symbol = symbol.into();
            funcs.data[24] = 1;
        }
    };
    gives(&[codes::FUNC_NEW], target(".rodata.str"));
    gives(&[codes::FUNC_NEW], target("printk"));
    gives(&[codes::FUNC_NEW], target(".altinstr_replacement"));
}

#[test]
fn a_jump_reaches_the_replacement() {
    // Both are within 2 GiB of the near end of the area for payloads, the second of the far end too.
    for (below, fits) in [(0x7f00_0000, false), (0x3f00_0000, true)] {
        let mut xen = sample::xen();
        let address = sample::IMAGE_END - below;
        let index = xen.add(".text.far", PROGBITS, A | X, 16, &[0xcc; 32]);
        xen.sec(".text.far").addr = address;
        xen.symbol("far_fn", index, address, 32, FUNC, GLOBAL);
        let mut payload = sample::payload();
        retarget(&mut payload, "far_fn", 32);
        let (payload, xen) = (payload.write(), xen.write());
        let input = VerifyInput { payload: &payload, name: "n", xen_syms: Some(&xen), ..Default::default() };
        let wanted: &[_] = if fits { &[] } else { &[codes::FUNC_DISTANCE] };
        says(wanted, &verify(&input));
    }
}

#[test]
fn one_entry_for_each_function() {
    gives(&[codes::FUNC_TWICE], |e| {
        let again = sample::func(3, 32);
        e.sec(".livepatch.funcs").data.extend(again);
        e.relocate(".livepatch.funcs", 104, R_64, ".livepatch.strings", 0);
        e.relocate(".livepatch.funcs", 112, R_64, "fresh_fn", 0);
    });
}

#[test]
fn expectations_are_what_was_shipped() {
    let endbr = [0xf3, 0x0f, 0x1e, 0xfa];
    gives(&[], |e| expect(e, &endbr, 0));
    gives(&[codes::EXPECTATION], |e| expect(e, &[0xde, 0xad], 0));
    gives(&[codes::EXPECTATION], |e| expect(e, &endbr, 1));
    // A disabled one does not matter.
    gives(&[], |e| {
        expect(e, &[0xde, 0xad], 3);
        e.sec(".livepatch.funcs").data[72] &= !1;
    });
    // An alternative begins at 16.
    let mut shipped = [0xcc; 17];
    shipped[..4].copy_from_slice(&[0x55, 0x48, 0x89, 0xe5]);
    for (len, wanted) in [(16, &[][..]), (17, &[codes::EXPECTATION])] {
        gives(wanted, |e| {
            retarget(e, "altered_fn", 32);
            expect(e, &shipped[..len], 0);
        });
    }
    gives(&[codes::EXPECTATION], |e| {
        retarget(e, "sealable_fn", 32);
        expect(e, &endbr, 0);
    });
}

/// An expectation of a function's ENDBR64, judged against a changed hypervisor.
fn expects_a_landing_pad(change: impl FnOnce(&mut Elf)) -> Verdict {
    let (mut xen, mut payload) = (sample::xen(), sample::payload());
    change(&mut xen);
    retarget(&mut payload, "target_fn", 32);
    expect(&mut payload, &[0xf3, 0x0f, 0x1e, 0xfa], 0);
    let (xen, payload) = (xen.write(), payload.write());
    verify(&VerifyInput { payload: &payload, name: "n", xen_syms: Some(&xen), ..Default::default() })
}

/// Boot code that takes the address of target_fn and refers to the place so far behind the start of the table of
/// functions to be sealed, which has 8 bytes.
fn boot_code(xen: &mut Elf, behind: u32) {
    const CODE: u64 = sample::INIT + 0x20;
    // lea target_fn(%rip),%rax; mov %rax,TABLE(%rip).
    let mut code = vec![0x48, 0x8d, 0x05];
    code.extend((sample::TEXT + 0x200).wrapping_sub(CODE + 7).to_le_bytes()[..4].iter());
    code.extend([0x48, 0x89, 0x05]);
    code.extend((sample::INIT + 0x1080 - (CODE + 14)).wrapping_add(behind.into()).to_le_bytes()[..4].iter());
    xen.sec(".init.text").data[0x20..0x2e].copy_from_slice(&code);
    xen.symbol("fills_fn", 3, CODE, 14, FUNC, GLOBAL);
}

#[test]
fn an_expectation_needs_what_boot_leaves_alone() {
    says(&[], &expects_a_landing_pad(|_| {}));
    says(&[codes::EXPECTATION], &expects_a_landing_pad(|xen| boot_code(xen, 0)));
    says(&[codes::EXPECTATION], &expects_a_landing_pad(|xen| boot_code(xen, 7)));
    says(&[], &expects_a_landing_pad(|xen| boot_code(xen, 8)));
    // Without the list of alternatives nobody knows.
    says(&[codes::EXPECTATION], &expects_a_landing_pad(|xen| xen.rename("__alt_instructions", "elsewhere")));
}

#[test]
fn no_expectation_where_a_payload_below_has_its_jump() {
    let replaced = |bytes: &'static [u8]| {
        move |e: &mut Elf| {
            retarget(e, "target_fn", 32);
            expect(e, bytes, 0);
        }
    };
    says(&[], &stacked(replaced(&[0xf3, 0x0f, 0x1e, 0xfa])));
    says(&[codes::EXPECTATION], &stacked(replaced(&[0xf3, 0x0f, 0x1e, 0xfa, 0xcc])));
}

#[test]
fn hooks_are_code_of_the_payload() {
    let load = |change: fn(&mut Sec)| move |e: &mut Elf| change(e.sec(".livepatch.hooks.load"));
    gives(&[codes::HOOK_TARGET], load(|s| s.relocations.clear()));
    gives(&[codes::HOOK_TARGET], load(|s| s.data.extend([0; 8])));
    gives(&[codes::HOOK_TARGET], load(|s| s.relocations[0].symbol = "printk".into()));
    gives(&[codes::HOOK_TARGET], load(|s| s.relocations[0].symbol = ".rodata.str".into()));
    gives(&[codes::HOOK_SIZE], load(|s| s.data.extend([0; 4])));
    // Calls do not need it, pointers do.
    gives(&[codes::HOOK_ENDBR], load(|s| s.relocations[0].symbol = "fresh_fn".into()));
    gives(&[codes::HOOK_ENDBR], |e| e.sec(".text.on_load").data[0] = 0x90);
}

#[test]
fn xen_up_to_4_13_wants_functions() {
    let mut payload = sample::payload();
    payload.remove(".livepatch.funcs");
    let (payload, xen) = (payload.write(), sample::xen().write());
    let with = |version| {
        let input = VerifyInput { payload: &payload, name: "n", xen_syms: Some(&xen), ..Default::default() };
        verify(&VerifyInput { funcs_version: Some(version), ..input })
    };
    says(&[codes::NOTHING_TO_DO], &with(1));
    says(&[], &with(2));
}

#[test]
fn single_hooks_are_single() {
    gives(&[], |e| {
        e.add(".livepatch.hooks.apply", PROGBITS, A, 8, &[0; 8]);
        e.relocate(".livepatch.hooks.apply", 0, R_64, "on_load", 0);
    });
    gives(&[codes::HOOK_SIZE], |e| {
        e.add(".livepatch.hooks.apply", PROGBITS, A, 8, &[0; 16]);
        e.relocate(".livepatch.hooks.apply", 0, R_64, "on_load", 0);
        e.relocate(".livepatch.hooks.apply", 8, R_64, "on_load", 0);
    });
}

#[test]
fn bug_frames_lead_from_a_trap_to_a_name() {
    let frame = |change: fn(&mut Sec)| move |e: &mut Elf| change(e.sec(".bug_frames.1"));
    gives(&[codes::BUG_FRAMES], frame(|s| s.data.push(0)));
    gives(&[codes::BUG_FRAMES], frame(|s| s.relocations[0].addend += 1));
    gives(&[codes::BUG_FRAMES], frame(|s| s.relocations[0].symbol = ".rodata.str".into()));
    gives(&[codes::BUG_FRAMES], frame(|s| s.relocations[1].addend += 11));
    gives(&[codes::BUG_FRAMES], |e| {
        e.sec(".bug_frames.1").relocations.remove(1);
    });
    // 128 does not fit into 7 bits.
    gives(&[codes::BUG_FRAMES], frame(|s| s.relocations[1].addend = 4 + (128 << 24)));
    gives(&[], frame(|s| s.relocations[1].addend = 4 + (127 << 24)));
    // The byte of UDB, which Xen 4.22 traps with.
    gives(&[], |e| e.sec(".text.new_fn").data[sample::TRAP as usize] = 0xd6);
}

#[test]
fn bug_frames_reach_8_mib() {
    let run = |symbol: &'static str, big: bool| {
        move |e: &mut Elf| {
            e.add(".bug_frames.0", PROGBITS, A, 4, &[0; 8]);
            e.relocate(".bug_frames.0", 0, R_PC32, ".text.new_fn", sample::TRAP as i64);
            e.relocate(".bug_frames.0", 4, R_PC32, symbol, 4);
            if big {
                // Three of them put read-only data 6 MiB further up.
                for name in [".bss.a", ".bss.b", ".bss.c"] {
                    e.add(name, NOBITS, A | W, 8, &[]);
                    e.sec(name).size = Some(2 << 20);
                }
            }
        }
    };
    gives(&[], run("printk", false));
    gives(&[], run("fresh_fn", false));
    // From printk to the end of the image are 6 MiB, so frames behind 6 MiB of data do not reach it.
    gives(&[codes::BUG_FRAME_DISTANCE, codes::NOT_REAPPLICABLE], run("printk", true));
}

#[test]
fn assertions_have_a_text() {
    let assertion = |with_text: bool| {
        move |e: &mut Elf| {
            e.add(".bug_frames.3", PROGBITS, A, 4, &[0; 16]);
            e.relocate(".bug_frames.3", 0, R_PC32, ".text.new_fn", sample::TRAP as i64);
            e.relocate(".bug_frames.3", 4, R_PC32, ".rodata.str", 4);
            let target = if with_text { ".rodata.str" } else { ".livepatch.funcs" };
            let addend = if with_text { 12 } else { 12 + 4096 };
            e.relocate(".bug_frames.3", 12, R_PC32, target, addend);
        }
    };
    gives(&[], assertion(true));
    gives(&[codes::BUG_FRAMES], assertion(false));
}

#[test]
fn alternatives_stay_inside() {
    let table = |change: fn(&mut Sec)| move |e: &mut Elf| change(e.sec(".altinstructions"));
    gives(&[codes::ALTERNATIVES], table(|s| s.data.push(0)));
    gives(&[codes::ALTERNATIVES], table(|s| s.relocations[0].addend = 30));
    gives(&[codes::ALTERNATIVES], table(|s| s.relocations[0].symbol = ".rodata.str".into()));
    gives(&[codes::ALTERNATIVES], table(|s| s.relocations[0].symbol = ".altinstr_replacement".into()));
    gives(&[codes::ALTERNATIVES], table(|s| s.relocations[1].addend = 6));
    gives(&[codes::ALTERNATIVES], table(|s| s.relocations[1].symbol = ".text.new_fn".into()));
    gives(&[codes::ALTERNATIVES], table(|s| s.data[12] = 2));
    gives(&[codes::ALTERNATIVES], table(|s| s.data[9] = 0x40));
    gives(&[], table(|s| s.data[9] = 0x80));
    gives(&[codes::ALTERNATIVES], table(|s| s.data[13] = 1));
    gives(&[codes::ALTERNATIVES], |e| {
        e.sec(".altinstr_replacement").name = ".altinstr_replaced".into();
        e.sections.iter_mut().flat_map(|s| &mut s.relocations).for_each(|r| {
            if r.symbol == ".altinstr_replacement" {
                r.symbol = ".altinstr_replaced".into();
            }
        });
    });
}

#[test]
fn replacements_are_right_where_they_are_copied_to() {
    let displaced = |e: &mut Elf| {
        // An instruction of 6 bytes with a displacement in place of the first replacement.
        e.sec(".altinstr_replacement").data =
            [&[0x8b, 0x05, 0, 0, 0, 0], &[0xe8, 0xfb, 0xff, 0xff, 0xff][..]].concat();
        e.sec(".altinstructions").data[11..13].copy_from_slice(&[6, 7]);
        let table = e.sec(".altinstructions");
        table.relocations[0].addend = 24;
        table.relocations[3].addend = 6;
        e.relocate(".altinstr_replacement", 2, R_PC32, "some_pointer", -4);
    };
    gives(&[codes::ALTERNATIVE_MOVED], displaced);
    // A leading call is corrected by Xen.
    gives(&[], |e| {
        displaced(e);
        let replacement = e.sec(".altinstr_replacement");
        replacement.data[..6].copy_from_slice(&[0xe8, 0, 0, 0, 0, 0x90]);
        replacement.relocations[0].offset = 1;
        replacement.relocations[0].symbol = "printk".into();
    });
}

#[test]
fn altcalls_are_literal() {
    gives(&[codes::ALTCALL], |e| e.sec(".altinstr_replacement").data[4] = 0xfa);
    // A jump for a call.
    gives(&[codes::ALTCALL], |e| e.sec(".altinstr_replacement").data[3] = 0xe9);
    gives(&[codes::ALTCALL], |e| e.relocate(".altinstr_replacement", 4, R_PLT32, "printk", -4));
    gives(&[codes::ALTCALL], |e| e.sec(".text.new_fn").data[sample::ALTCALL as usize] = 0x90);
    gives(&[codes::ALTCALL], |e| {
        e.sec(".text.new_fn").relocations.retain(|r| r.offset != sample::ALTCALL + 2);
    });
    gives(&[], |e| {
        e.sec(".altinstr_replacement").data[3] = 0xe9;
        e.sec(".text.new_fn").data[sample::ALTCALL as usize + 1] = 0x25;
    });
}

#[test]
fn altcalls_have_the_feature_of_the_hypervisors_own() {
    gives(&[codes::ALTCALL], |e| e.sec(".altinstructions").data[22] = 0x81);
    // Nobody knows the number where the hypervisor has none.
    let mut payload = sample::payload();
    payload.sec(".altinstructions").data[22] = 0x81;
    let mut xen = sample::xen();
    xen.sec(".init.data").data[0x140] = 0x90;
    let (payload, xen) = (payload.write(), xen.write());
    let input = VerifyInput { payload: &payload, name: "n", xen_syms: Some(&xen), ..Default::default() };
    says(&[], &verify(&input));
}

#[test]
fn call_sites_are_indirect_calls() {
    let site = |addend: i64| {
        move |e: &mut Elf| {
            e.add(".alt_call_sites", PROGBITS, A, 4, &[0; 4]);
            e.relocate(".alt_call_sites", 0, R_PC32, ".text.new_fn", addend);
        }
    };
    gives(&[], site(sample::ALTCALL as i64));
    gives(&[codes::ALTCALL], site(sample::CALL as i64));
    gives(&[codes::ALTCALL], site(28));
    gives(&[codes::ALTCALL], |e| {
        e.add(".alt_call_sites", PROGBITS, A, 4, &[0; 3]);
    });
    gives(&[], |e| {
        e.add(".alt_call_sites", PROGBITS, A, 4, &[]);
    });
}

#[test]
fn the_exception_table_leads_from_code_to_code() {
    let table = |change: fn(&mut Sec)| move |e: &mut Elf| change(e.sec(".ex_table"));
    gives(&[codes::EXCEPTION_TABLE], table(|s| s.data.extend([0; 4])));
    gives(&[codes::EXCEPTION_TABLE], table(|s| s.relocations[0].symbol = "printk".into()));
    gives(&[codes::EXCEPTION_TABLE], table(|s| s.relocations[1].addend = 2));
    gives(&[codes::EXCEPTION_TABLE], table(|s| s.relocations.clear()));
}

#[test]
fn relocations_write_addresses_only() {
    for (section, offset, kind) in [
        (".bug_frames.1", 2, R_PC32),
        (".altinstructions", 8, R_PC32),
        (".note.gnu.build-id", 16, R_64),
        (".modinfo", 0, R_PC32),
        (".livepatch.funcs", 24, R_64),
        (".livepatch.hooks.load", 4, R_PC32),
    ] {
        let mut payload = sample::payload();
        payload.relocate(section, offset, kind, "printk", 0);
        let names = common::names(&judge(&payload.write()));
        assert!(names.contains(&"stray-relocation"), "{section}: {names:?}");
    }
}

#[test]
fn without_a_symbol_file_that_is_said() {
    let payload = sample::payload().write();
    let verdict = verify(&VerifyInput { payload: &payload, name: "n", ..Default::default() });
    says(&[codes::NOT_CHECKED_AGAINST_XEN, codes::XEN_ID_UNKNOWN], &verdict);
    assert_eq!(verdict.facts.symbols_unchecked, 3);
    let bad = verify(&VerifyInput {
        payload: &payload,
        name: "n",
        xen_syms: Some(b"not a hypervisor"),
        ..Default::default()
    });
    says(&[codes::NOT_XEN_SYMS, codes::XEN_ID_UNKNOWN], &bad);
}
