//! What the hypervisor is to find at a replaced function's start: the shipped bytes, up to the first that boot
//! rewrites.
#![allow(clippy::allow_attributes, dead_code, reason = "the toolchain is shared with the fixtures' tests")]

#[path = "support/desk.rs"]
mod desk;
#[path = "support/toolchain.rs"]
mod toolchain;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use desk::Desk;
use toolchain::Toolchain;
use xsplice_diff::{
    Compared, Correlated, Expectation, Input, LeftOut, Loader, ObjectPair, Parts, Patchable, Selection, World,
};
use xsplice_objects::Hypervisor;

/// Functions of known bytes; the patch changes the last instruction but one of each.
const SOURCE: &str = r#"
#ifdef PATCHED
#define LAST 0x22
#else
#define LAST 0x11
#endif
    .macro function name
    .section .text.\name, "ax", @progbits
    .globl \name
    .type \name, @function
\name:
    .endm
    .macro done name
    mov $LAST, %eax
    ret
    .size \name, . - \name
    .endm
    /* What boot may rewrite: so many bytes, and so many behind them to make room. */
    .macro alternative len, pad
661:
    .fill \len + \pad, 1, 0x90
    .pushsection .altinstructions, "a", @progbits
    .long 661b - ., 663f - .
    .word 12
    .byte \len, 1, \pad, 0
    .popsection
    .pushsection .altinstr_replacement, "ax", @progbits
663: nop
    .popsection
    .endm

    function plain
    .fill 40, 1, 0x90
    done plain
    .globl plain_too
    .type plain_too, @function
    .set plain_too, plain
    .size plain_too, . - plain

    function short
    .fill 4, 1, 0x90
    done short

    function landing
    endbr64
    .fill 40, 1, 0x90
    done landing

    function late
    .fill 10, 1, 0x90
    alternative 3, 2
    .fill 30, 1, 0x90
    done late

    function padding_only
    .fill 12, 1, 0x90
    alternative 0, 4
    .fill 30, 1, 0x90
    done padding_only

    function two
    .fill 20, 1, 0x90
    alternative 3, 0
    .fill 2, 1, 0x90
    alternative 3, 0
    done two

    function beyond
    .fill 31, 1, 0x90
    alternative 3, 0
    done beyond

    function early
    alternative 3, 0
    .fill 30, 1, 0x90
    done early

    function landing_early
    endbr64
    alternative 3, 0
    .fill 30, 1, 0x90
    done landing_early

    function landing_and_one
    endbr64
    nop
    alternative 3, 0
    .fill 30, 1, 0x90
    done landing_and_one

    function site
    .fill 2, 1, 0x90
661: call *hook(%rip)
    .pushsection .alt_call_sites, "a", @progbits
    .long 661b - .
    .popsection
    .fill 30, 1, 0x90
    done site

    function sealed
    endbr64
    .fill 30, 1, 0x90
    done sealed

    function put_by_boot
    endbr64
    .fill 30, 1, 0x90
    done put_by_boot

    function named_by_boot
    endbr64
    .fill 30, 1, 0x90
    done named_by_boot

    .section .init.rodata.cf_clobber, "a", @progbits
    .balign 8
table:
    .quad 7, sealed, 0

    .section .init.text, "ax", @progbits
    .type fills, @function
fills:
    lea put_by_boot(%rip), %rax
    mov %rax, table + 16(%rip)
    ret
    .size fills, . - fills
    .type registers, @function
registers:
    lea named_by_boot(%rip), %rax
    mov %rax, ticks(%rip)
    ret
    .size registers, . - registers
"#;

struct Made {
    before: Vec<u8>,
    after: Vec<u8>,
    image: Vec<u8>,
}

fn made() -> Made {
    let desk = Desk::new();
    let source = desk.source("own.S", SOURCE);
    let tools = Toolchain::new(&source, &[]);
    let (before, after) = (tools.compile(&[]), tools.compile(&["-DPATCHED"]));
    let others = tools
        .compile_as(&desk.0.path().join("common/others.c"), Path::new("others.c"), &[])
        .expect("it compiles");
    let (before, after) = (before.expect("it compiles"), after.expect("it compiles"));
    let image = tools.link(&[&before, &others]).expect("it links");
    Made { before, after, image }
}

impl Made {
    /// What is expected of each function, in a hypervisor from that symbol file.
    fn expectations(
        &self,
        image: &[u8],
        below: &[&str],
        no_expectations: Option<LeftOut>,
    ) -> BTreeMap<String, Expectation> {
        let pair = ObjectPair::parse(Input {
            path: "xen/common/own.o",
            source: "xen/common/own.S",
            assembler: true,
            base: Some(&self.before),
            patched: Some(&self.after),
        })
        .expect("objects");
        let parts = [Parts::of(&pair).expect("parts")];
        let compared = Compared::all(parts.iter().map(Correlated::of).collect());
        let hypervisor = Hypervisor::parse("xen-syms", image).expect("a hypervisor");
        let loader = Loader::default();
        let replaced = below.iter().map(|&name| name.to_owned()).collect();
        let world = World { replaced: &replaced, no_expectations, ..World::bare(&hypervisor, &loader) };
        let patchable =
            Patchable::check(Selection::of(&compared, &world), &parts, &world).expect("a payload");
        patchable.functions().iter().map(|f| (f.name.clone(), f.expectation.clone())).collect()
    }

    /// The image after objcopy.
    fn changed(&self, args: &[&str]) -> Vec<u8> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("image");
        std::fs::write(&file, &self.image).expect("an image");
        let done = Command::new("objcopy").args(args).arg(&file).status().expect("objcopy");
        assert!(done.success());
        std::fs::read(&file).expect("an image")
    }
}

const NOP: u8 = 0x90;
const LANDING: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

fn nops(count: usize) -> Expectation {
    Expectation::Bytes(vec![NOP; count])
}

fn landing_and(count: usize) -> Expectation {
    Expectation::Bytes([&LANDING[..], &vec![NOP; count]].concat())
}

#[test]
fn the_shipped_bytes_up_to_the_first_that_boot_rewrites() {
    let made = made();
    let wanted = BTreeMap::from(
        [
            ("plain", nops(31)),
            // mov $0x11,%eax; ret.
            ("short", Expectation::Bytes(vec![NOP, NOP, NOP, NOP, 0xb8, 0x11, 0, 0, 0, 0xc3])),
            ("landing", landing_and(27)),
            ("late", nops(10)),
            ("padding_only", nops(12)),
            ("two", nops(20)),
            ("beyond", nops(31)),
            ("early", Expectation::LeftOut(LeftOut::Rewritten)),
            ("landing_early", Expectation::LeftOut(LeftOut::Rewritten)),
            ("landing_and_one", landing_and(1)),
            ("site", nops(2)),
            ("sealed", Expectation::LeftOut(LeftOut::Sealable)),
            ("put_by_boot", Expectation::LeftOut(LeftOut::Sealable)),
            ("named_by_boot", landing_and(27)),
        ]
        .map(|(name, expectation)| (name.to_owned(), expectation)),
    );
    assert_eq!(made.expectations(&made.image, &[], None), wanted);
}

#[test]
fn nothing_where_a_payload_below_has_its_jump_or_nobody_wants_it() {
    let made = made();
    for name in ["plain", "plain_too"] {
        let stacked = made.expectations(&made.image, &[name], None);
        assert_eq!(stacked["plain"], Expectation::LeftOut(LeftOut::ReplacedBelow), "{name}");
        assert_eq!(stacked["late"], nops(10));
    }
    for why in [LeftOut::Asked, LeftOut::NoRoom, LeftOut::BelowUnknown] {
        let all = made.expectations(&made.image, &["plain"], Some(why));
        assert!(all.values().all(|expectation| *expectation == Expectation::LeftOut(why)), "{all:?}");
    }
}

#[test]
fn nothing_where_the_symbol_file_does_not_say_what_boot_rewrites() {
    let made = made();
    for args in [&["--strip-symbol", "__alt_instructions_end"][..], &["--only-keep-debug"]] {
        let all = made.expectations(&made.changed(args), &[], None);
        let unknown = Expectation::LeftOut(LeftOut::BootUnknown);
        assert!(
            !all.is_empty() && all.values().all(|expectation| *expectation == unknown),
            "{args:?}: {all:?}"
        );
    }
}
