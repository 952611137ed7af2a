//! Expectations: the hypervisor compares the first bytes of what is to be replaced with those that were shipped.

use fs_err as fs;
use libtest_mimic::{Completion, Failed};
use serde_json::{Value, json};
use xsplice_boot::{Expect, Step, render_text};
use xsplice_e2e::{elf, recipes};

use crate::boots::{answer, boot, equal, payload};
use crate::setup::{self, Built, Setup};

type Outcome = Result<Completion, Failed>;

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

/// A payload on top of another one that replaces the same function: what is there is the lower one's jump.
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
        let (low, up) = (recipes::STRING.name, recipes::NEW_STATIC.name);
        let probe = |name: &str| Step::run("hypercall 17 0x5804").named(name.to_owned());
        let steps = vec![
            Step::load(&format!("{low}.livepatch")),
            probe("with lower"),
            Step::load(&format!("{up}.livepatch")),
            probe("with both"),
            Step::revert(up),
            Step::unload(up),
            Step::revert(low),
            Step::unload(low),
        ];
        let report = boot(setup, &[lower, built.payload], steps)?;
        let check = || {
            for (name, wanted) in [("with lower", -38), ("with both", 0x5804 * 3 + 1)] {
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
    let function = "common/sched/core.c#domain_watchdog";
    equal("the reason", &reported(&built, function)?, &json!({"left_out": reason}))?;
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
