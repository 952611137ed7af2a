//! References to memory that is gone after boot: refused, but where the shipped function has them too.

mod common;

use common::elf::*;
use common::{names, sample};
use xsplice_report::Code;
use xsplice_verify::{VerifyInput, codes, verify};

/// Where init_fn is linked.
const INIT_FN: u64 = sample::TEXT + 0x20_0010;
/// Offsets in the hypervisor's text: of a call in target_fn, and of free room.
const SHIPPED: u64 = 0x208;
const ROOM: u64 = 0x3a0;
/// Offsets in `.text.new_fn` of fields that a relocation writes.
const FIRST: u64 = sample::CALL + 1;
const SECOND: u64 = sample::FAULT + 2;
const ALTCALL: u64 = sample::ALTCALL + 2;

/// Puts a call of init_fn into the hypervisor's text.
fn call_init(xen: &mut Elf, at: u64) {
    let distance = INIT_FN.wrapping_sub(sample::TEXT + at + 5) as u32;
    let at = at as usize;
    let text = &mut xen.sec(".text").data;
    text[at] = 0xe8;
    text[at + 1..at + 5].copy_from_slice(&distance.to_le_bytes());
}

/// A hypervisor whose target_fn calls init_fn once.
fn calls() -> Elf {
    let mut xen = sample::xen();
    call_init(&mut xen, SHIPPED);
    xen
}

/// Lets a field of the replacement refer to something else.
fn lead(payload: &mut Elf, field: u64, symbol: &str) {
    let code = payload.sec(".text.new_fn");
    let relocation = code.relocations.iter_mut().find(|r| r.offset == field).expect("a relocation");
    relocation.symbol = symbol.into();
}

/// Adds code or data with one reference to init_fn.
fn add(payload: &mut Elf, name: &str, flags: u64, kind: u32) {
    payload.add(name, PROGBITS, flags, 16, &[0xe9, 0, 0, 0, 0, 0x90, 0x90, 0x90]);
    let offset = u64::from(kind != R_64);
    payload.relocate(name, offset, kind, "init_fn", if kind == R_64 { 0 } else { -4 });
}

#[track_caller]
fn gives(wanted: &[Code], xen: &Elf, change: impl FnOnce(&mut Elf)) {
    let mut payload = sample::payload();
    payload.symbol("init_fn", 0, 0, 0, 0, GLOBAL);
    change(&mut payload);
    let (payload, xen) = (payload.write(), xen.write());
    let verdict = verify(&VerifyInput {
        payload: &payload,
        name: "sample",
        xen_syms: Some(&xen),
        ..Default::default()
    });
    let wanted: Vec<_> = wanted.iter().map(|code| code.name).collect();
    assert_eq!(names(&verdict), wanted, "{:#?}", verdict.problems);
}

const REFUSED: &[Code] = &[codes::SYMBOL_IN_INIT];

#[test]
fn a_reference_that_the_shipped_function_has_is_kept() {
    gives(&[], &calls(), |e| lead(e, FIRST, "init_fn"));
    gives(REFUSED, &sample::xen(), |e| lead(e, FIRST, "init_fn"));
}

#[test]
fn a_name_that_nothing_uses_is_not_kept() {
    gives(REFUSED, &calls(), |_| {});
}

#[test]
fn a_reference_in_another_function_of_the_hypervisor_does_not_count() {
    let mut xen = sample::xen();
    call_init(&mut xen, 0x248);
    gives(REFUSED, &xen, |e| lead(e, FIRST, "init_fn"));
    gives(&[], &xen, |e| {
        lead(e, FIRST, "init_fn");
        sample::retarget(e, "plain_fn", 48);
    });
}

#[test]
fn there_are_no_more_places_than_before() {
    let both = |e: &mut Elf| {
        lead(e, FIRST, "init_fn");
        lead(e, SECOND, "init_fn");
    };
    let mut xen = calls();
    gives(REFUSED, &xen, both);
    call_init(&mut xen, SHIPPED + 8);
    gives(&[], &xen, both);
}

#[test]
fn the_place_and_the_form_are_the_same() {
    let mut xen = calls();
    let other = |e: &mut Elf| {
        lead(e, FIRST, "init_fn");
        e.sec(".text.new_fn").relocations[0].addend = -3;
    };
    gives(REFUSED, &xen, other);
    let address = |e: &mut Elf| {
        lead(e, FIRST, "init_fn");
        let relocation = &mut e.sec(".text.new_fn").relocations[0];
        (relocation.kind, relocation.addend) = (R_64, 0);
    };
    gives(REFUSED, &xen, address);
    let at = SHIPPED as usize + 8;
    xen.sec(".text").data[at..at + 8].copy_from_slice(&INIT_FN.to_le_bytes());
    gives(&[], &xen, address);
}

#[test]
fn a_new_function_has_nothing_to_keep() {
    gives(REFUSED, &calls(), |e| {
        let code = e.sec(".text.fresh_fn");
        code.data = vec![0xe9, 0, 0, 0, 0];
        e.sym("fresh_fn").size = 5;
        e.relocate(".text.fresh_fn", 1, R_PC32, "init_fn", -4);
    });
}

#[test]
fn code_without_a_name_keeps_what_replacements_leave() {
    let cold = |e: &mut Elf| add(e, ".text.unlikely", A | X, R_PC32);
    let both = |e: &mut Elf| {
        cold(e);
        lead(e, FIRST, "init_fn");
    };
    let mut xen = calls();
    gives(&[], &xen, cold);
    gives(REFUSED, &xen, both);
    // The shipped function's own unlikely part.
    call_init(&mut xen, ROOM);
    gives(REFUSED, &xen, both);
    let mut named = xen.clone();
    named.symbol("target_fn.cold", 1, sample::TEXT + ROOM, 16, FUNC, LOCAL);
    gives(&[], &named, both);
    // Which of two is its own cannot be told.
    named.symbol("target_fn.cold.3", 1, sample::TEXT + ROOM + 16, 16, FUNC, LOCAL);
    gives(REFUSED, &named, both);
    xen.symbol("target_fn.colder", 1, sample::TEXT + ROOM, 16, FUNC, LOCAL);
    gives(REFUSED, &xen, both);
}

#[test]
fn data_and_shared_code_keep_nothing() {
    let mut xen = calls();
    let at = SHIPPED as usize + 8;
    xen.sec(".text").data[at..at + 8].copy_from_slice(&INIT_FN.to_le_bytes());
    gives(REFUSED, &xen, |e| add(e, ".rodata.table", A, R_64));
    gives(REFUSED, &xen, |e| {
        e.sec(".fixup").data = vec![0xe9, 0, 0, 0, 0];
        e.relocate(".fixup", 1, R_PC32, "init_fn", -4);
    });
}

#[test]
fn what_xen_reads_at_upload_is_not_kept() {
    gives(REFUSED, &calls(), |e| lead(e, ALTCALL, "init_fn"));
    gives(REFUSED, &calls(), |e| {
        let alternatives = e.sec(".altinstructions");
        alternatives.data.truncate(14);
        alternatives.relocations.retain(|r| r.offset < 14);
        e.sec(".altinstr_replacement").data.truncate(3);
        e.add(".alt_call_sites", PROGBITS, A, 4, &[0; 4]);
        e.relocate(".alt_call_sites", 0, R_PC32, ".text.new_fn", sample::ALTCALL as i64);
        lead(e, ALTCALL, "init_fn");
    });
}

#[test]
fn absolute_symbols_keep_nothing() {
    gives(&[codes::SYMBOL_IN_INIT], &calls(), |e| {
        let symbol = e.sym("init_fn");
        (symbol.section, symbol.value) = (ABS, INIT_FN);
        lead(e, FIRST, "init_fn");
    });
}

#[test]
fn a_symbol_file_without_code_shows_nothing_to_keep() {
    let mut xen = calls();
    xen.sec(".text").kind = NOBITS;
    gives(REFUSED, &xen, |e| lead(e, FIRST, "init_fn"));
}
