//! A payload in an image of the hypervisor: what is done there, and what comparing it with the object that it was made
//! of finds where no rule does.

mod common;

use common::elf::*;
use common::sample::{self, PAYLOAD_ID, XEN_ID};
use xsplice_report::Code;
use xsplice_verify::{Loader, LoaderTraits, PatchedObject, Safe, Verdict, VerifyInput, codes, verify};

/// The function: calls of helper and printk, a text, a comparison, a variable, a constant, itself, the end.
const CODE: [u8; 39] = [
    0xe8, 0, 0, 0, 0, // call helper
    0xe8, 0, 0, 0, 0, // call printk
    0x48, 0x8d, 0x3d, 0, 0, 0, 0, // lea text(%rip), %rdi
    0x83, 0xf8, 5, // cmp $5, %eax
    0x8b, 0x05, 0, 0, 0, 0, // mov some_data+4(%rip), %eax
    0x48, 0x8b, 0x05, 0, 0, 0, 0, // mov table(%rip), %rax
    0xe8, 0, 0, 0, 0,    // call target_fn
    0xc3, // ret
];
const HELPER: u64 = 1;
const PRINTK: u64 = 6;
const TEXT: u64 = 13;
const TRAP: usize = 17;
const IMMEDIATE: usize = 19;
const VARIABLE: u64 = 22;
const TABLE: u64 = 29;
const ITSELF: u64 = 34;

/// What the compiler made of common/a.c.
fn object() -> Elf {
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
const NEW: &str = "#7";
const ORIGINAL: &str = "#8";

/// The payload made of it: its constants are in one section, without names.
fn payload() -> Elf {
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

fn judged(payload: &[u8], objects: Option<&[PatchedObject<'_>]>) -> Verdict {
    let xen = sample::xen().write();
    let traits = Some(LoaderTraits::of("4.17.5".parse().expect("a version")));
    let input =
        VerifyInput { payload, name: "sample", xen_syms: Some(&xen), traits, ..VerifyInput::default() };
    verify(&VerifyInput { in_place: true, objects, ..input })
}

/// The codes that speak against it.
fn against(verdict: &Verdict) -> Vec<&'static str> {
    verdict.problems.0.iter().map(|problem| problem.code.name).collect()
}

fn with_object(payload: &Elf, object: &Elf) -> Verdict {
    let bytes = object.write();
    judged(&payload.write(), Some(&[PatchedObject { path: "xen/common/a.o", bytes: &bytes }]))
}

/// Changes the payload's relocation at a place of its code.
fn redirect(place: u64, symbol: &str, addend: i64) -> Elf {
    let mut elf = payload();
    let found = elf.sec(".text").relocations.iter_mut().find(|r| r.offset == place).expect("a relocation");
    (found.symbol, found.addend) = (symbol.to_owned(), addend);
    elf
}

/// No rule sees it, and the object does: with this message.
#[track_caller]
fn only_the_object_tells(payload: &Elf, code: Code, said: &str) {
    let alone = judged(&payload.write(), None);
    assert_eq!(against(&alone), Vec::<&str>::new(), "{:#?}", alone.findings);
    assert_eq!(alone.in_place.expect("done").objects, None);
    let verdict = with_object(payload, &object());
    assert_eq!(verdict.loader(), Loader::Accept);
    assert_eq!(verdict.safe(), Safe::No(vec![code]), "{:#?}", verdict.findings);
    let messages: Vec<&str> = verdict.problems.0.iter().map(|problem| problem.what.as_str()).collect();
    assert!(messages.iter().any(|message| message.contains(said)), "{messages:?}");
}

#[test]
fn a_payload_is_what_its_object_says() {
    let verdict = with_object(&payload(), &object());
    assert_eq!(against(&verdict), Vec::<&str>::new(), "{:#?}", verdict.findings);
    let done = verdict.in_place.expect("done");
    assert_eq!((done.obstacle, done.reverted, done.trampolines), (None, true, 1));
    // Nine relocations; six references of the code and one of the constant; the constant and the text.
    assert_eq!(done.relocations, 9);
    let objects = done.objects.expect("compared");
    assert_eq!((objects.functions, objects.references, objects.constants), (1, 7, 2));
}

#[test]
fn a_call_of_another_function_of_that_kind() {
    let said =
        "target_fn refers to common/b.c#helper at 0xffff82d040200140 at 0x0, and its object to a.c#helper";
    only_the_object_tells(&redirect(HELPER, "common/b.c#helper", -4), codes::IN_PLACE_REFERENCE, said);
}

#[test]
fn another_offset_in_a_variable() {
    let said =
        "target_fn refers to some_data+0x8 at 0xffff82d040600018 at 0x14, and its object to some_data+0x4";
    only_the_object_tells(&redirect(VARIABLE, "some_data", 4), codes::IN_PLACE_REFERENCE, said);
}

#[test]
fn another_text() {
    let said = "refers to the text \"es %d\" at 0xa, and its object to the text \"yes %d\"";
    only_the_object_tells(&redirect(TEXT, ".rodata", 1 - 4), codes::IN_PLACE_REFERENCE, said);
}

#[test]
fn another_constant_or_another_pointer_in_it() {
    let mut elf = payload();
    elf.sec(".rodata").data[16] = 8;
    only_the_object_tells(&elf, codes::IN_PLACE_REFERENCE, "its object to what .rodata.table+0x0 holds");
    let mut elf = payload();
    elf.sec(".rodata").relocations[0].symbol = "common/a.c#helper".into();
    only_the_object_tells(&elf, codes::IN_PLACE_REFERENCE, "common/a.c#helper at 0xffff82d040200100 at 0x1a");
}

#[test]
fn a_call_that_does_not_go_through_the_original() {
    let mut elf = payload();
    let calling = elf.add(".text.calling", PROGBITS, A | X, 16, &[0xe9, 0, 0, 0, 0]);
    elf.symbol("calling", calling, 0, 5, FUNC, LOCAL);
    elf.relocate(".text.calling", 1, R_PLT32, NEW, -4);
    let mut twin = object();
    let calling = twin.add(".text.calling", PROGBITS, A | X, 16, &[0xe9, 0, 0, 0, 0]);
    twin.symbol("calling", calling, 0, 5, FUNC, LOCAL);
    twin.relocate(".text.calling", 1, R_PLT32, "target_fn", -4);
    let verdict = with_object(&elf, &twin);
    assert_eq!(against(&verdict), [codes::IN_PLACE_REFERENCE.name]);
    elf.sec(".text.calling").relocations[0].symbol = ORIGINAL.into();
    assert_eq!(against(&with_object(&elf, &twin)), Vec::<&str>::new());
}

#[test]
fn another_instruction() {
    let mut elf = payload();
    elf.sec(".text").data[IMMEDIATE] = 6;
    let said = "target_fn has 83f806 (cmp $6,%eax) at 0x11, and its object 83f805";
    only_the_object_tells(&elf, codes::IN_PLACE_CODE, said);
}

#[test]
fn a_function_that_no_object_has() {
    let mut elf = payload();
    let stray = elf.add(".text.stray", PROGBITS, A | X, 16, &[0xc3]);
    elf.symbol("stray", stray, 0, 1, FUNC, LOCAL);
    only_the_object_tells(&elf, codes::IN_PLACE_UNKNOWN, "code of the payload, stray, is not compared");
    // And one that is no function by its symbols.
    elf.sym("stray").kind = OBJECT;
    only_the_object_tells(
        &elf,
        codes::IN_PLACE_UNKNOWN,
        "code of the payload, .text.stray+0x0, is not compared",
    );
}

#[test]
fn an_entry_that_leads_to_the_replacement_of_another_function() {
    let mut elf = payload();
    sample::retarget(&mut elf, "plain_fn", 48);
    only_the_object_tells(&elf, codes::TRAMPOLINE, "plain_fn is replaced by target_fn, another function");
}

#[test]
fn an_object_that_is_none() {
    let verdict = judged(&payload().write(), Some(&[PatchedObject { path: "a.o", bytes: b"text" }]));
    assert_eq!(against(&verdict), [codes::IN_PLACE_UNKNOWN.name, codes::PATCHED_OBJECT_UNREADABLE.name]);
    assert_eq!(verdict.loader(), Loader::Unknown);
}

#[test]
fn alternatives_and_altcalls_are_decoded_in_place() {
    let verdict = judged(&sample::payload().write(), None);
    assert_eq!(against(&verdict), Vec::<&str>::new(), "{:#?}", verdict.findings);
    let done = verdict.in_place.expect("done");
    // The pointer of the altcall is set at boot.
    assert_eq!((done.alternatives, done.altcalls, done.altcalls_set_at_boot), (1, 0, 1));
    assert!(done.reverted && done.obstacle.is_none());
    let mut elf = sample::payload();
    elf.sec(".altinstr_replacement").data[..3].copy_from_slice(&[0x90, 0x90, 0xe8]);
    let verdict = judged(&elf.write(), None);
    assert_eq!(against(&verdict), [codes::ALTERNATIVE_IN_PLACE.name]);
}

#[test]
fn a_payload_is_put_upon_the_one_below() {
    let xen = sample::xen().write();
    let lower = sample::payload().write();
    let upper = sample::upper().write();
    let traits = Some(LoaderTraits::of("4.17.5".parse().expect("a version")));
    let verdict = verify(&VerifyInput {
        payload: &upper,
        name: "upper",
        xen_syms: Some(&xen),
        below: &[&lower],
        below_names: &["lower"],
        traits,
        in_place: true,
        ..VerifyInput::default()
    });
    let done = verdict.in_place.expect("done");
    assert_eq!((done.obstacle, done.trampolines, done.reverted), (None, 1, true));
}

#[test]
fn what_breaks_a_rule_is_not_applied_and_a_file_of_symbols_alone_is_an_obstacle() {
    let mut elf = payload();
    sample::retarget(&mut elf, "tiny_fn", 4);
    assert_eq!(judged(&elf.write(), None).in_place, None);
    let mut xen = sample::xen();
    xen.sec(".text").kind = NOBITS;
    let xen = xen.write();
    let payload = payload().write();
    let verdict = verify(&VerifyInput {
        payload: &payload,
        name: "sample",
        xen_syms: Some(&xen),
        in_place: true,
        ..VerifyInput::default()
    });
    if let Some(done) = verdict.in_place {
        assert!(done.obstacle.is_some_and(|why| why.contains("does not hold the code of target_fn")));
        assert!(!done.reverted);
    } else {
        panic!("{:#?}", verdict.findings);
    }
}

/// Both with a bug frame, an alternative that calls, and an exception: in the payload, their code has no names.
fn special() -> (Elf, Elf) {
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

/// What speaks against a payload with special sections after a change.
fn special_with(change: impl FnOnce(&mut Elf)) -> (Vec<&'static str>, String) {
    let (mut elf, twin) = special();
    change(&mut elf);
    let alone = judged(&elf.write(), None);
    assert_eq!(against(&alone), Vec::<&str>::new(), "{:#?}", alone.findings);
    let verdict = with_object(&elf, &twin);
    let messages: Vec<&str> = verdict.problems.0.iter().map(|problem| problem.what.as_str()).collect();
    (against(&verdict), messages.join("; "))
}

#[test]
fn entries_of_special_sections_and_their_code_are_those_of_the_object() {
    assert_eq!(special_with(|_| ()), (vec![], String::new()));
    let reference = codes::IN_PLACE_REFERENCE.name;
    let changed = |section: &'static str, number: usize, symbol: &'static str, addend: i64| {
        special_with(move |elf| {
            let relocation = &mut elf.sec(section).relocations[number];
            (relocation.symbol, relocation.addend) = (symbol.to_owned(), addend);
        })
    };
    let (codes, said) = changed(".altinstr_replacement", 0, "common/a.c#helper", -4);
    assert_eq!(codes, [reference]);
    assert!(
        said.starts_with("a replacement of an alternative of target_fn refers to common/a.c#helper"),
        "{said}"
    );
    let (codes, said) = changed(".fixup", 0, ".text", VARIABLE as i64 - 2 - 4);
    assert_eq!(codes, [reference]);
    assert!(said.starts_with("where an exception leads from target_fn refers to target_fn+0x14"), "{said}");
    let (codes, said) = changed(".bug_frames.1", 1, ".rodata", 1 + 4 + (44 << 24));
    assert_eq!(codes, [reference]);
    assert!(said.starts_with("a bug frame of target_fn refers to the text \"es %d\""), "{said}");
    // Another line number, and another place.
    let (codes, said) = changed(".bug_frames.1", 0, ".text", TRAP as i64 + (3 << 24));
    assert_eq!(codes, [codes::IN_PLACE_CODE.name]);
    assert!(said.contains("1 bug frames, not all the same"), "{said}");
    let (codes, said) = changed(".ex_table", 0, ".text", TABLE as i64 - 3);
    assert_eq!(codes, [codes::IN_PLACE_CODE.name]);
    assert!(said.contains("1 exception table entries, not all the same"), "{said}");
    let (codes, _) = special_with(|elf| elf.sec(".altinstructions").data[8] = 0x35);
    assert_eq!(codes, [codes::IN_PLACE_CODE.name]);
}

#[test]
fn the_cold_part_of_a_function_is_the_payloads_own() {
    let with = |code: &[u8], named: bool, from: &str| {
        let (mut elf, mut twin) = (payload(), object());
        for (file, section) in [(&mut elf, ".text"), (&mut twin, ".text.target_fn")] {
            let cold = file.add(".text.unlikely.target_fn", PROGBITS, A | X, 1, &[0x90, 0xe9, 0, 0, 0, 0]);
            file.symbol("", cold, 0, 0, SECTION, LOCAL);
            let index = file.index(section);
            if !file.symbols.iter().any(|s| s.kind == SECTION && s.section == index) {
                file.symbol("", index, 0, 0, SECTION, LOCAL);
            }
            file.relocate(".text.unlikely.target_fn", 2, R_PLT32, section, 10 - 4);
            let calls = file.sec(section).relocations.iter_mut().find(|r| r.offset == PRINTK);
            calls.expect("a call").symbol = ".text.unlikely.target_fn".into();
        }
        elf.sec(".text.unlikely.target_fn").data[..code.len()].copy_from_slice(code);
        elf.sec(".text.unlikely.target_fn").relocations[0].symbol = from.into();
        let cold = twin.index(".text.unlikely.target_fn");
        twin.symbol("target_fn.cold", cold, 0, 6, FUNC, LOCAL);
        if named {
            let cold = elf.index(".text.unlikely.target_fn");
            elf.symbol("target_fn.cold", cold, 0, 6, FUNC, LOCAL);
        }
        with_object(&elf, &twin)
    };
    for named in [false, true] {
        let verdict = with(&[0x90], named, ".text");
        assert_eq!(against(&verdict), Vec::<&str>::new(), "{:#?}", verdict.findings);
    }
    assert_eq!(against(&with(&[0xf4], false, ".text")), [codes::IN_PLACE_CODE.name]);
    // Back into the original instead of the replacement.
    assert_eq!(against(&with(&[0x90], false, ORIGINAL)), [codes::IN_PLACE_REFERENCE.name]);
}
