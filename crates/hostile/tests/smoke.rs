//! Every reader gets its seeds, and many damaged ones of each: it returns, soon, and in bounded memory.

use std::time::{Duration, Instant};

use xsplice_hostile::{TARGETS, Target, mutate};

/// Damaged files of each seed.
const EACH: usize = 400;
/// What one file may take; most take less than a millisecond.
const LONGEST: Duration = Duration::from_secs(10);
/// Bytes of addresses that the test may have: far more than it needs, and less than a count from a damaged file asks for.
const MEMORY: u64 = 3 << 30;

fn smoke(target: &Target) {
    let limit = rustix::process::Rlimit { current: Some(MEMORY), maximum: Some(MEMORY) };
    rustix::process::setrlimit(rustix::process::Resource::As, limit).expect("a limit");
    let mut longest = Duration::ZERO;
    for (number, seed) in (target.seeds)().iter().enumerate() {
        let mut row = mutate::Row::new(number as u64);
        let damaged = std::iter::repeat_with(|| mutate::damaged(seed, &mut row)).take(EACH);
        for bytes in std::iter::once(seed.clone()).chain(damaged) {
            let start = Instant::now();
            (target.run)(&bytes);
            longest = longest.max(start.elapsed());
        }
    }
    assert!(longest < LONGEST, "{}: {longest:?}", target.name);
}

#[test]
fn object() {
    smoke(&TARGETS[0]);
}

#[test]
fn payload() {
    smoke(&TARGETS[1]);
}

#[test]
fn patch() {
    smoke(&TARGETS[2]);
}

#[test]
fn dwarf() {
    smoke(&TARGETS[3]);
}

#[test]
fn each_target_is_fuzzed_and_run_here() {
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names, ["object", "payload", "patch", "dwarf"]);
    for name in names {
        let file = format!("{}/../../fuzz/fuzz_targets/{name}.rs", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&file).expect("a fuzz target");
        assert!(text.contains(&format!("xsplice_hostile::{name}(")), "{file}");
    }
}
