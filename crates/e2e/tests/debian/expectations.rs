//! Expectations: the hypervisor compares the first bytes of what is to be replaced with those that were shipped.

use std::path::{Path, PathBuf};

use fs_err as fs;
use libtest_mimic::{Completion, Failed};
use serde_json::{Value, json};
use xsplice_boot::{Expect, Step, render_text};
use xsplice_e2e::{elf, recipes};

use crate::boots::{answer, boot, equal, payload};
use crate::setup::{self, Built, Setup};

type Outcome = Result<Completion, Failed>;

/// What the recipe of a static function changes.
const WATCHDOG: &str = "common/sched/core.c#domain_watchdog";
/// Where `expect` is in the first entry of `.livepatch.funcs`: bits, then bytes.
const EXPECT: usize = 72;

/// What the report says of a function's expectation.
fn reported(built: &Built, function: &str) -> Result<Value, String> {
    let functions = built.report["functions"].as_array().cloned().unwrap_or_default();
    let found = functions.iter().find(|f| f["name"] == function);
    found.map(|f| f["expectation"].clone()).ok_or_else(|| format!("{function} is not reported"))
}

/// Where the first entry of `.livepatch.funcs` is in a payload.
fn entry(bytes: &[u8]) -> Result<usize, String> {
    elf::section_offset(bytes, ".livepatch.funcs").ok_or_else(|| "no functions".to_owned())
}

/// One byte differs: it is uploaded, and says at apply what was expected; nothing is replaced. The sound one applies.
pub fn wrong() -> Outcome {
    setup::with(|setup| {
        let sound = payload(setup, &recipes::STATIC)?.path;
        let mut bytes = fs::read(&sound).map_err(|error| error.to_string())?;
        let at = entry(&bytes)? + EXPECT;
        let (enabled, len) = (bytes[at] & 1, usize::from(bytes[at] >> 1 & 31));
        if enabled == 0 || len == 0 || bytes[at] >> 6 != 0 {
            return Err(format!("nothing is expected: {:#x}", bytes[at]));
        }
        // The last one that counts.
        bytes[at + len] ^= 1;
        let dir = setup.work.join("expectation");
        fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        let wrong = dir.join("wrong.livepatch");
        fs::write(&wrong, bytes).map_err(|error| error.to_string())?;
        let name = recipes::STATIC.name;
        let probe = |name: &str| Step::run("hypercall 29 6 0x5801,400").named(name.to_owned());
        let steps = vec![
            probe("before"),
            Step::upload("wrong.livepatch"),
            Step::apply("wrong").expecting(Expect::Code(1)),
            probe("with the wrong one"),
            Step::unload("wrong"),
            Step::load(&format!("{name}.livepatch")),
            probe("with the sound one"),
            Step::revert(name),
            // Nothing else is writable in it.
            Step::apply(name),
            probe("applied again"),
            Step::revert(name),
            Step::unload(name),
            probe("after"),
        ];
        let report = boot(setup, &[wrong, sound], steps)?;
        let step = |name: &str| report.step(name).ok_or_else(|| format!("no step {name}"));
        let check = || {
            let answers = [
                ("before", -22),
                ("with the wrong one", -22),
                ("with the sound one", 458),
                ("applied again", 458),
                ("after", -22),
            ];
            for (name, wanted) in answers {
                equal(name, &answer(step(name)?)?, &wanted)?;
            }
            let apply = step("apply wrong")?;
            // EINVAL.
            if !apply.stderr.text.contains("Error 22:") {
                return Err(format!("apply said {:?}", apply.stderr.text));
            }
            let told = "common/sched/core.c#domain_watchdog: expectation failed: expected:";
            if !apply.console.iter().any(|line| line.contains(told)) {
                return Err(format!("Xen said {:?}", apply.console));
            }
            if report.succeeded() { Ok(()) } else { Err("a step failed".to_owned()) }
        };
        check().map_err(|why| format!("{why}\n{}", render_text(&report)))
    })
}

/// A payload on top of two others: with both files it is known what they replace, and the hypervisor agrees.
fn third(setup: &Setup, lower: &Path, upper: &Path) -> Result<PathBuf, String> {
    let mut build = setup.build(recipes::STATIC.name, &setup.made(&recipes::STATIC)?.diff)?;
    let file = |path: &Path| path.to_string_lossy().into_owned();
    build.args = vec!["--on".to_owned(), file(lower), "--on".to_owned(), file(upper)];
    let built = build.run()?;
    let bytes = built.bytes()?;
    // Bit 0, and five bits of length.
    if bytes[entry(&bytes)? + EXPECT] < 0b11 {
        return Err(format!("nothing is expected:\n{}", built.stderr));
    }
    if !built.stderr.contains("the shipped first bytes of 1 of 1 functions") {
        return Err(format!("not told:\n{}", built.stderr));
    }
    // Of one alone it is not known what is below.
    build.args.drain(..2);
    let one = build.run()?;
    let told = "expectations left out: what the payloads below replace is not known\n";
    equal("the expectation", &reported(&one, WATCHDOG)?, &json!({"left_out": "below-unknown"}))?;
    if !one.stderr.contains(told) {
        return Err(format!("not told:\n{}", one.stderr));
    }
    // Upside down they are no stack.
    build.args = vec!["--on".to_owned(), file(upper), "--on".to_owned(), file(lower)];
    let swapped = build.run()?;
    equal("the exit code", &swapped.code, &Some(1))?;
    if !swapped.stderr.contains("the payloads to stack on do not stand on each other [usage]") {
        return Err(format!("not told:\n{}", swapped.stderr));
    }
    // What failed took the payload with it.
    build.args = vec!["--on".to_owned(), file(lower), "--on".to_owned(), file(upper)];
    let again = build.run()?;
    equal("the bytes", &again.bytes()?, &bytes)?;
    Ok(again.payload)
}

/// A payload on top of another one that replaces the same function: what is there is the lower one's jump. And one on
/// top of both that replaces another one.
pub fn below() -> Outcome {
    setup::with(|setup| {
        let lower = payload(setup, &recipes::STRING)?.path;
        let mut upper = setup.build(recipes::NEW_STATIC.name, &setup.made(&recipes::NEW_STATIC)?.diff)?;
        upper.args = vec!["--depends".to_owned(), lower.to_string_lossy().into_owned()];
        let built = upper.run()?;
        built.bytes()?;
        equal(
            "the expectation",
            &reported(&built, "do_xen_version")?,
            &json!({"left_out": "replaced-below"}),
        )?;
        let told = "expectation left out: do_xen_version: a payload below replaces it";
        if !built.stderr.contains(told) {
            return Err(format!("not told:\n{}", built.stderr));
        }
        let third = third(setup, &lower, &built.payload)?;
        let (low, up, top) = (recipes::STRING.name, recipes::NEW_STATIC.name, recipes::STATIC.name);
        let watchdog = |name: &str| Step::run("hypercall 29 6 0x5801,400").named(name.to_owned());
        let probe = |name: &str| Step::run("hypercall 17 0x5804").named(name.to_owned());
        let steps = vec![
            Step::load(&format!("{low}.livepatch")),
            probe("with lower"),
            Step::load(&format!("{up}.livepatch")),
            probe("with both"),
            watchdog("without the third"),
            Step::load(&format!("{top}.livepatch")),
            watchdog("with all three"),
            Step::revert(top),
            Step::unload(top),
            Step::revert(up),
            Step::unload(up),
            Step::revert(low),
            Step::unload(low),
        ];
        let report = boot(setup, &[lower, built.payload, third], steps)?;
        let check = || {
            for (name, wanted) in [
                ("with lower", -38),
                ("with both", 0x5804 * 3 + 1),
                ("without the third", -22),
                ("with all three", 458),
            ] {
                let step = report.step(name).ok_or_else(|| format!("no step {name}"))?;
                equal(name, &answer(step)?, &wanted)?;
            }
            if report.succeeded() { Ok(()) } else { Err("a step failed".to_owned()) }
        };
        check().map_err(|why| format!("{why}\n{}", render_text(&report)))
    })
}

/// Builds without expectations.
fn without(setup: &Setup, args: &[&str], reason: &str, told: &str) -> Result<(), String> {
    let mut build = setup.build(recipes::STATIC.name, &setup.made(&recipes::STATIC)?.diff)?;
    build.args = args.iter().map(|&arg| arg.to_owned()).collect();
    let built = build.run()?;
    let bytes = built.bytes()?;
    let at = entry(&bytes)? + EXPECT;
    equal("the expectation", &bytes[at..at + 32], &[0; 32][..])?;
    equal("the reason", &reported(&built, WATCHDOG)?, &json!({"left_out": reason}))?;
    let told = format!("expectations left out: {told}\n");
    if built.stderr.contains(&told) { Ok(()) } else { Err(format!("not told:\n{}", built.stderr)) }
}

pub fn left_out() -> Outcome {
    setup::with(|setup| {
        without(setup, &["--no-expect"], "asked", "they were not wanted")?;
        // Of a payload below nothing but its id is known.
        let id = "0123456789abcdef0123456789abcdef01234567";
        let told = "what the payloads below replace is not known";
        without(setup, &["--depends", id], "below-unknown", told)
    })
}
