//! Every reader gets its seeds, and many damaged ones of each: it returns, soon, and in bounded memory.

use std::time::Duration;

use xsplice_hostile::{TARGETS, Target, mutate};

mod bounds;

/// Damaged files of each seed.
const EACH: usize = 400;
/// What one file may take of a processor; most take less than a millisecond.
const LONGEST: Duration = Duration::from_secs(5);

fn smoke(target: &Target) {
    bounds::limit_memory();
    let mut longest = Duration::ZERO;
    for (number, seed) in (target.seeds)().iter().enumerate() {
        let mut row = mutate::Row::new(number as u64);
        let damaged = std::iter::repeat_with(|| mutate::damaged(seed, &mut row)).take(EACH);
        for bytes in std::iter::once(seed.clone()).chain(damaged) {
            let start = bounds::cpu_time();
            (target.run)(&bytes);
            longest = longest.max(bounds::cpu_time() - start);
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
fn difference() {
    smoke(&TARGETS[4]);
}

#[test]
fn each_target_is_fuzzed_and_run_here() {
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names, ["object", "payload", "patch", "dwarf", "difference"]);
    for name in names {
        let file = format!("{}/../../fuzz/fuzz_targets/{name}.rs", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&file).expect("a fuzz target");
        assert!(text.contains(&format!("xsplice_hostile::{name}(")), "{file}");
    }
}
