//! Work must grow with the number of symbols, not with its square (kpatch #1320: hours in symbol look-ups).
//!
//! Each stage runs on two objects of one shape, the second with four times the symbols of the first. What counts is
//! the processor time of the thread, so that a busy machine does not matter.
#![allow(clippy::allow_attributes, dead_code, reason = "the toolchain is shared with the fixtures' tests")]

#[path = "support/toolchain.rs"]
mod toolchain;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use toolchain::Toolchain;
use xsplice_diff::{
    Changes, Compared, Correlated, Input, Loader, ObjectPair, Parts, Patchable, Selection, World,
};
use xsplice_link::{FuncsLayout, Ids, PayloadImage};
use xsplice_objects::{HookKind, Hypervisor};
use xsplice_verify::{VerifyInput, verify};

/// Symbols of each unit of [`text`]: a function that changes, one that goes, one that comes, two variables, and what
/// the first calls in another object.
const SYMBOLS: usize = 6;
/// Units of the small object; the large one has [`TIMES`] as many, and 40000 symbols in all.
const UNITS: usize = 40_000 / SYMBOLS / TIMES;
const TIMES: usize = 4;
/// Twice what linear work takes, and far less than the 16 times of quadratic work.
const MOST: f64 = 8.0;
/// Stages that take less are not looked at: there is nothing to wait for.
const LEAST: Duration = Duration::from_millis(40);
/// Each is done that often, and the quickest counts.
const RUNS: usize = 2;

/// How the units are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// As gcc does with -ffunction-sections.
    Sections,
    /// All code in one section.
    OneSection,
    /// An assembler source, in sections of their own; nothing comes or goes.
    Assembler,
}

/// A source of many functions, before or after.
fn text(shape: Shape, units: usize, patched: bool) -> String {
    let mut text = String::from(
        ".file \"many.c\"\n.section .rodata.str1.1,\"aMS\",@progbits,1\nfile: .string \"many.c\"\n",
    );
    let mut function = |name: String, global: bool, body: &str| {
        let section = if shape == Shape::OneSection { String::new() } else { format!(".{name}") };
        let _ = writeln!(text, ".section .text{section},\"ax\",@progbits");
        if global {
            let _ = writeln!(text, ".globl {name}\n.hidden {name}");
        }
        let _ = writeln!(text, ".type {name}, @function\n{name}: {body}\nret\n.size {name}, . - {name}");
    };
    for n in 0..units {
        let mut body = format!(
            "lea {}(%rdi), %rax\ncall elsewhere{n}\nincl count.{n}(%rip)\nincl total{n}(%rip)\n",
            n + usize::from(patched)
        );
        if n > 0 {
            let _ = writeln!(body, "call changed{}", n - 1);
        }
        if shape != Shape::Assembler {
            let _ = writeln!(
                body,
                "1: ud2\n.pushsection .bug_frames.1,\"a\",@progbits\n2: .long 1b - 2b\n.long file - 2b\n.popsection"
            );
            if patched {
                let _ = writeln!(body, "call added{n}");
                function(format!("added{n}"), n % 2 == 0, "lea 7(%rdi), %rax");
            } else {
                function(format!("removed{n}"), n % 2 == 0, "lea 8(%rdi), %rax");
            }
        }
        function(format!("changed{n}"), n % 2 == 0, &body);
    }
    for n in 0..units {
        for (name, section) in [
            (format!("count.{n}"), format!(".bss.count.{n}")),
            (format!("total{n}"), format!(".bss.total{n}")),
        ] {
            let _ = writeln!(
                text,
                ".section {section},\"aw\",@nobits\n.type {name}, @object\n.size {name}, 4\n.balign 4\n{name}: .zero 4"
            );
        }
    }
    text
}

/// What the others call.
fn elsewhere(units: usize) -> String {
    let mut text = String::from(".text\n");
    for n in 0..units {
        let _ = writeln!(
            text,
            ".globl elsewhere{n}\n.hidden elsewhere{n}\n.type elsewhere{n}, @function\nelsewhere{n}: ret\n\
             .size elsewhere{n}, . - elsewhere{n}"
        );
    }
    text
}

struct Case {
    shape: Shape,
    units: usize,
    base: Vec<u8>,
    patched: Vec<u8>,
    shipped: Vec<u8>,
}

impl Case {
    fn new(shape: Shape, units: usize) -> Case {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("common")).expect("a folder");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/common/hypervisor.ld");
        std::fs::copy(script, folder.path().join("common/hypervisor.ld")).expect("a copy");
        let source = |name: &str, text: &str| -> PathBuf {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("a source");
            path
        };
        let compile =
            |text: &str| Toolchain::new(&source("many.S", text), &[]).compile(&["-g"]).expect("it assembles");
        let base = compile(&text(shape, units, false));
        let patched = compile(&text(shape, units, true));
        let others = compile(&elsewhere(units));
        let shipped = Toolchain::new(&source("link.S", ""), &[]).link(&[&base, &others]).expect("it links");
        Case { shape, units, base, patched, shipped }
    }

    /// Runs all stages; gives the processor time of each.
    fn run(&self) -> BTreeMap<&'static str, Duration> {
        let mut clock = Clock::start();
        let path = if self.shape == Shape::Assembler { "many.S" } else { "many.c" };
        let pair = ObjectPair::parse(Input {
            path: "xen/common/many.o",
            source: &format!("xen/common/{path}"),
            assembler: self.shape == Shape::Assembler,
            base: Some(&self.base),
            patched: Some(&self.patched),
        })
        .expect("objects");
        clock.done("parse");
        let hypervisor = Hypervisor::parse("xen-syms", &self.shipped).expect("a hypervisor");
        clock.done("parse the hypervisor");
        let parts = [Parts::of(&pair).expect("parts")];
        clock.done("take apart");
        let correlated = parts.iter().map(Correlated::of).collect();
        clock.done("correlate");
        let compared = Compared::all(correlated);
        clock.done("compare");
        let changes = Changes::of(&compared);
        clock.done("list changes");
        let loader = Loader {
            hooks: HookKind::ALL.into_iter().collect(),
            needs_functions: false,
            tables_from_upload: true,
        };
        let world = World::bare(&hypervisor, &loader);
        let selection = Selection::of(&compared, &world);
        clock.done("select");
        let patchable = Patchable::check(selection, &parts, &world)
            .unwrap_or_else(|problems| panic!("{} in the way: {:?}", problems.0.len(), problems.0[0]));
        clock.done("check");
        let id = hypervisor.build_id().to_vec();
        let ids = Ids { depends: id.clone(), xen_depends: id };
        let funcs = FuncsLayout {
            version: 2,
            size: 104,
            name: 0,
            new_addr: 8,
            old_addr: 16,
            new_size: 24,
            old_size: 28,
            version_at: 32,
            expect: Some(72),
        };
        let payload = PayloadImage::link(&patchable, &funcs, &ids, &Vec::new());
        clock.done("link");
        let verdict = verify(&VerifyInput {
            payload: payload.bytes(),
            name: "many",
            xen_syms: Some(&self.shipped),
            funcs_version: Some(2),
            funcs_size: Some(104),
            ..VerifyInput::default()
        });
        clock.done("verify");
        // All of it was done: nothing here is quick because it gave up.
        let count = self.units;
        assert_eq!(changes.changed.len(), count);
        assert_eq!(patchable.functions().len(), count);
        let come_and_go = if self.shape == Shape::Assembler { 0 } else { count };
        assert_eq!((changes.new.len(), changes.removed.len()), (come_and_go, come_and_go));
        assert_eq!(verdict.facts.functions, count);
        let found: BTreeSet<&str> = verdict.problems.0.iter().map(|problem| problem.code.name).collect();
        assert!(found.is_subset(&BTreeSet::from(["payload-size"])), "{:?}", verdict.problems.0.first());
        clock.times
    }
}

/// Measures the thread that asks.
struct Clock {
    last: Duration,
    times: BTreeMap<&'static str, Duration>,
}

impl Clock {
    fn start() -> Clock {
        Clock { last: Clock::now(), times: BTreeMap::new() }
    }

    fn now() -> Duration {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).expect("nanoseconds"))
    }

    fn done(&mut self, stage: &'static str) {
        let now = Clock::now();
        self.times.insert(stage, now - self.last);
        self.last = now;
    }
}

/// The quickest of several runs of each stage, all in this thread.
fn times(case: &Case) -> BTreeMap<&'static str, Duration> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    let mut best: BTreeMap<&'static str, Duration> = BTreeMap::new();
    for _ in 0..RUNS {
        for (stage, time) in pool.install(|| case.run()) {
            let known = best.entry(stage).or_insert(time);
            *known = time.min(*known);
        }
    }
    best
}

fn grows_with_symbols(shape: Shape) {
    let small = times(&Case::new(shape, UNITS));
    let large = times(&Case::new(shape, UNITS * TIMES));
    let mut wrong = Vec::new();
    for (stage, large) in large {
        let ratio = large.as_secs_f64() / small[stage].as_secs_f64();
        if large > LEAST && ratio > MOST {
            wrong.push(format!(
                "{stage} takes {ratio:.1} times as long for {TIMES} times as many symbols: {:?}, then {large:?}",
                small[stage]
            ));
        }
    }
    assert!(wrong.is_empty(), "{shape:?}: {wrong:#?}");
}

#[test]
fn kpatch_1320_very_many_symbols() {
    grows_with_symbols(Shape::Sections);
}

#[test]
fn very_many_symbols_in_one_section() {
    grows_with_symbols(Shape::OneSection);
}

#[test]
fn very_many_symbols_of_assembler() {
    grows_with_symbols(Shape::Assembler);
}
