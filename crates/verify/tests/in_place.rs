//! A payload in an image of the hypervisor: what is done there, and what comparing it with the object that it was made
//! of finds where no rule does.

mod common;

use common::elf::*;
use common::sample;
use common::twins::*;
use xsplice_report::Code;
use xsplice_verify::{Loader, LoaderTraits, PatchedObject, Safe, Verdict, VerifyInput, codes, verify};

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
    assert!(said.contains("target_fn has 1 bug frames, and its object others"), "{said}");
    let (codes, said) = changed(".ex_table", 0, ".text", TABLE as i64 - 3);
    assert_eq!(codes, [codes::IN_PLACE_CODE.name]);
    assert!(said.contains("target_fn has 1 exception table entries, and its object others"), "{said}");
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

#[test]
fn hooks_are_those_of_the_object() {
    let source: [(&str, &[&str]); 2] = [("load", &["first", "second"]), ("apply", &["third"])];
    let (elf, twin) = with_hooks(&source, &source);
    let verdict = with_object(&elf, &twin);
    assert_eq!(against(&verdict), Vec::<&str>::new(), "{:#?}", verdict.findings);
    let objects = verdict.in_place.and_then(|done| done.objects).expect("compared");
    assert_eq!((objects.functions, objects.hooks), (4, 3));

    let wrong: [(Hooks<'_>, &[&str]); 5] = [
        // Another function of the same form.
        (
            &[("load", &["first", "second"]), ("apply", &["second"])],
            &[
                "a.c#third is an object\'s apply hook, and the payload has no such hook",
                "second at 0xffff82d0",
            ],
        ),
        // At another time.
        (
            &[("load", &["first", "second"]), ("revert", &["third"])],
            &[
                "a.c#third is an object\'s apply hook, and the payload has no such hook",
                "third at 0xffff82d0",
            ],
        ),
        (
            &[("load", &["second", "first"]), ("apply", &["third"])],
            &["a.c#second is an object\'s load hook, and the payload calls it too early"],
        ),
        (
            &[("load", &["first"]), ("apply", &["third"])],
            &["a.c#second is an object\'s load hook, and the payload has no such hook"],
        ),
        (&[("load", &["first", "second", "second"]), ("apply", &["third"])], &["second at 0xffff82d0"]),
    ];
    for (says, said) in wrong {
        let (elf, twin) = with_hooks(says, &source);
        assert_eq!(against(&judged(&elf.write(), None)), Vec::<&str>::new(), "{says:?}");
        let verdict = with_object(&elf, &twin);
        assert_eq!(against(&verdict), vec![codes::IN_PLACE_REFERENCE.name; said.len()], "{says:?}");
        for (problem, said) in verdict.problems.0.iter().zip(said) {
            assert!(problem.what.starts_with(said), "{}", problem.what);
        }
    }
}

/// What speaks against a payload that no rule is broken by.
#[track_caller]
fn objects_say(payload: &Elf, object: &Elf) -> Vec<(&'static str, String)> {
    assert_eq!(against(&judged(&payload.write(), None)), Vec::<&str>::new());
    let verdict = with_object(payload, object);
    verdict.problems.0.iter().map(|problem| (problem.code.name, problem.what.clone())).collect()
}

#[track_caller]
fn one_says(said: &[(&'static str, String)], code: Code, what: &str) {
    assert!(said.len() == 1 && said[0].0 == code.name && said[0].1.contains(what), "{said:?}");
}

#[test]
fn an_entry_leads_to_the_start_of_a_function_of_the_objects() {
    let mut elf = payload();
    elf.sec(".livepatch.strings").data.extend(b"plain_fn\0");
    elf.sec(".livepatch.funcs").data.extend(sample::func(34, 48));
    elf.relocate(".livepatch.funcs", 104, R_64, ".livepatch.strings", 10);
    elf.relocate(".livepatch.funcs", 112, R_64, NEW, 5);
    let said = objects_say(&elf, &object());
    one_says(&said, codes::TRAMPOLINE, "where no function of the objects starts");
}

#[test]
fn an_entry_is_about_what_is_there_and_not_about_its_name() {
    // Both are called helper.
    for (symbol, fine) in [("common/a.c#helper", true), ("common/b.c#helper", false)] {
        let (mut elf, twin) = (payload(), object());
        let code = elf.add(".text.helper", PROGBITS, A | X, 16, &[0x31, 0xc0, 0xc3]);
        elf.symbol("helper", code, 0, 3, FUNC, LOCAL);
        elf.sec(".livepatch.strings").data.extend(b"helper\0");
        elf.sec(".livepatch.funcs").data.extend(sample::func(3, 32));
        elf.relocate(".livepatch.funcs", 104, R_64, ".livepatch.strings", 10);
        elf.relocate(".livepatch.funcs", 112, R_64, "helper", 0);
        elf.relocate(".livepatch.funcs", 120, R_64, symbol, 0);
        let said = objects_say(&elf, &twin);
        match fine {
            true => assert_eq!(said, []),
            false => one_says(&said, codes::TRAMPOLINE, "helper is replaced by a.c#helper, another function"),
        }
    }
}

#[test]
fn a_name_that_is_no_functions_vouches_for_nothing() {
    let source: [(&str, &[&str]); 2] = [("load", &["first", "second"]), ("apply", &["third"])];
    let (mut elf, twin) = with_hooks(&source, &source);
    let second = elf.index(".text.second");
    elf.symbol("third", second, 0, 0, 0, LOCAL);
    elf.sec(".livepatch.hooks.apply").relocations[0].symbol = "second".into();
    let verdict = with_object(&elf, &twin);
    assert_eq!(against(&verdict), [codes::IN_PLACE_REFERENCE.name; 2], "{:#?}", verdict.problems);
}

#[test]
fn a_name_that_two_objects_have_is_known_with_its_file_only() {
    let other = |name: &str| {
        let mut other = Elf::new(1);
        let code = other.add(".text.helper", PROGBITS, A | X, 16, &[0x31, 0xc0, 0xc3]);
        other.symbol("b.c", ABS, 0, 0, FILE, LOCAL);
        other.symbol(name, code, 0, 3, FUNC, LOCAL);
        other.write()
    };
    // Called by its name alone, as another maker of payloads could have it.
    let mut elf = payload();
    let code = elf.add(".text.helper", PROGBITS, A | X, 16, &[0x31, 0xc0, 0xc3]);
    elf.symbol("helper", code, 0, 3, FUNC, LOCAL);
    elf.sec(".text")
        .relocations
        .iter_mut()
        .filter(|r| r.offset == HELPER)
        .for_each(|r| r.symbol = "helper".into());
    let (payload, object) = (elf.write(), object().write());
    for (name, codes) in [("other", vec![]), ("helper", vec![codes::IN_PLACE_REFERENCE.name])] {
        let other = other(name);
        let objects = [("xen/common/a.o", &object), ("xen/common/b.o", &other)];
        let objects = objects.map(|(path, bytes)| PatchedObject { path, bytes });
        assert_eq!(against(&judged(&payload, Some(&objects))), codes);
    }
}

#[test]
fn entries_of_special_sections_are_about_code_of_the_objects() {
    // One more alternative, in what is done after a fault.
    let with = |file: &mut Elf| {
        file.sec(".altinstr_replacement").data.extend([0xb0, 1]);
        let mut alternative = [0; 14];
        alternative[8..14].copy_from_slice(&[0x34, 0, 2, 2, 0, 0]);
        file.sec(".altinstructions").data.extend(alternative);
        file.relocate(".altinstructions", 14, R_PC32, ".fixup", 0);
        file.relocate(".altinstructions", 18, R_PC32, ".altinstr_replacement", 5);
    };
    let (mut elf, mut twin) = special();
    with(&mut elf);
    one_says(
        &objects_say(&elf, &twin),
        codes::IN_PLACE_CODE,
        "target_fn has 1 alternatives, and its object 0",
    );
    with(&mut twin);
    assert_eq!(objects_say(&elf, &twin), []);
    // Where nothing leads to it.
    let (mut elf, twin) = special();
    elf.sec(".fixup").data.extend([0x31, 0xc0, 0xc3]);
    with(&mut elf);
    elf.sec(".altinstructions").relocations[2].addend = 7;
    one_says(&objects_say(&elf, &twin), codes::IN_PLACE_UNKNOWN, ".altinstructions+0xe is about");
}

#[test]
fn a_hook_that_the_hypervisor_has_is_none_of_the_payloads() {
    let (mut elf, mut twin) = with_hooks(&[], &[("load", &["helper"])]);
    for file in [&mut elf, &mut twin] {
        for name in ["first", "second", "third"] {
            let symbol = file.sym(name);
            (symbol.name, symbol.kind) = (format!("{name}_fn"), FUNC);
        }
    }
    assert_eq!(objects_say(&elf, &twin), []);
}

#[test]
fn what_lies_behind_a_named_constant_is_compared() {
    let with = |own: [u8; 8], here: [u8; 8]| {
        let (mut elf, mut twin) = (payload(), object());
        twin.sec(".rodata.table").data.extend(own);
        elf.sec(".rodata").data.extend(here);
        let relocation = |file: &mut Elf, section: &str| {
            let found = file.sec(section).relocations.iter_mut().find(|r| r.offset == TABLE);
            found.expect("a relocation").addend += 20;
        };
        relocation(&mut elf, ".text");
        relocation(&mut twin, ".text.target_fn");
        objects_say(&elf, &twin)
    };
    assert_eq!(with([1; 8], [1; 8]), []);
    one_says(&with([1; 8], [2; 8]), codes::IN_PLACE_REFERENCE, "other data");
}

#[test]
fn data_holds_the_address_of_the_original() {
    for (to, fine) in [(ORIGINAL, true), (NEW, false)] {
        let (mut elf, mut twin) = (payload(), object());
        twin.sec(".rodata.table").relocations[0].symbol = "target_fn".into();
        elf.sec(".rodata").relocations[0].symbol = to.into();
        let verdict = with_object(&elf, &twin);
        let codes = if fine { vec![] } else { vec![codes::IN_PLACE_REFERENCE.name] };
        assert_eq!(against(&verdict), codes, "{to}");
    }
}

#[test]
fn a_wide_text_does_not_end_at_a_zero_byte() {
    let with = |here: &[u8]| {
        let (mut elf, mut twin) = (payload(), object());
        twin.sec(".rodata.str1.1").entsize = 2;
        twin.sec(".rodata.str1.1").data = b"n\0\0\0y\0e\0\0\0".to_vec();
        let text = twin.sec(".text.target_fn").relocations.iter_mut().find(|r| r.offset == TEXT);
        text.expect("a relocation").addend = 4 - 4;
        elf.sec(".rodata").data[..here.len()].copy_from_slice(here);
        objects_say(&elf, &twin)
    };
    assert_eq!(with(b"y\0e\0\0\0"), []);
    one_says(&with(b"y\0a\0\0\0"), codes::IN_PLACE_REFERENCE, "the text");
    one_says(&with(b"y\0e\0a\0"), codes::IN_PLACE_REFERENCE, "the text");
}

#[test]
fn many_wrong_hooks_are_said_a_few_times() {
    let many = ["first"; 4000];
    let other = ["second"; 4000];
    let (elf, twin) = with_hooks(&[("load", &other)], &[("load", &many)]);
    assert_eq!(against(&with_object(&elf, &twin)).len(), 8);
}
