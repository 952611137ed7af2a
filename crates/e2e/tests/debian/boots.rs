//! Payloads in the hypervisor that Debian ships: each runs its new code, before, with and after.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use fs_err as fs;
use libtest_mimic::{Completion, Failed};
use xsplice_boot::{BootReport, Ended, Expect, Lab, Plan, PlanFile, State, Step, StepResult, render_text};
use xsplice_e2e::{Recipe, elf, hooks, kinds, recipes};

use crate::setup::{self, Setup};

type Outcome = Result<Completion, Failed>;

/// What a case's probe gave before, with and after the payload, and what loading and reverting it gave.
struct Probes<'a> {
    before: &'a StepResult,
    load: &'a StepResult,
    with: &'a StepResult,
    revert: &'a StepResult,
    after: &'a StepResult,
}

/// A payload, a command that runs its code, and what must come of it.
pub struct Case {
    pub name: &'static str,
    recipe: &'static Recipe,
    /// The functions that the payload replaces, and no others.
    functions: &'static [&'static str],
    probe: &'static str,
    check: fn(&Setup, &Probes<'_>) -> Result<(), String>,
    /// The section of the entry that the case is about.
    entry: Option<&'static str>,
}

impl Case {
    /// Whether the case is about an entry of a special section.
    pub fn has_entry(&self) -> bool {
        self.entry.is_some()
    }
}

/// Presses keys of the hypervisor's console: XEN_SYSCTL_debug_keys of sysctl, with the number of keys and their ASCII
/// codes, the first one lowest. Numbers of the command and of the interface: xen/include/public/sysctl.h of 4.17.
macro_rules! keys {
    ($count:literal, $codes:literal) => {
        concat!("hypercall 35 7,0x15,@2,", $count, " ", $codes, ",0")
    };
}

/// The function behind SCHEDOP_watchdog.
const WATCHDOG: &[&str] = &["common/sched/core.c#domain_watchdog"];
/// xen/common/kernel.c is compiled in two forms.
const VERSION: &[&str] = &["compat_xen_version", "do_xen_version"];
/// So is xen/arch/x86/physdev.c.
const PHYSDEV: &[&str] = &["compat_physdev_op", "do_physdev_op"];

/// Numbers of hypercalls: xen/include/public/xen.h.
pub const CASES: &[Case] = &[
    Case {
        name: "a_changed_global_function_runs",
        recipe: &recipes::GLOBAL,
        functions: VERSION,
        probe: "cat /sys/hypervisor/properties/features",
        check: |_, probes| {
            let bits = |step: &StepResult| {
                let text = step.stdout.text.trim().to_owned();
                let low = text.get(text.len().saturating_sub(8)..).unwrap_or_default().to_owned();
                u32::from_str_radix(&low, 16).map_err(|error| format!("{text}: {error}"))
            };
            let (before, with, after) = (bits(probes.before)?, bits(probes.with)?, bits(probes.after)?);
            equal("the features with the payload", &with, &(before | 1 << 30))?;
            equal("the features without it", &(before & (1 << 30)), &0)?;
            equal("the features after it", &after, &before)
        },
        entry: None,
    },
    Case {
        name: "a_changed_static_function_runs",
        recipe: &recipes::STATIC,
        functions: &["common/sched/core.c#domain_watchdog"],
        // SCHEDOP_watchdog of sched_op, with an id that there is not: EINVAL.
        probe: "hypercall 29 6 0x5801,400",
        check: |_, probes| answers(probes, -22, 458),
        entry: None,
    },
    Case {
        name: "a_new_string_is_printed",
        recipe: &recipes::STRING,
        functions: VERSION,
        probe: "hypercall 17 0x5802; hypercall 17 0x5803",
        check: |_, probes| {
            let says = |step: &StepResult, what: &str| step.console.iter().any(|line| line.ends_with(what));
            let new =
                ["xsplice-e2e says a string that is new", "xsplice-e2e says another string that is new"];
            for what in new {
                if !says(probes.with, what) {
                    return Err(format!("the console does not have \"{what}\": {:?}", probes.with.console));
                }
                if says(probes.before, what) || says(probes.after, what) {
                    return Err("the console has the string without the payload".to_owned());
                }
            }
            Ok(())
        },
        entry: None,
    },
    Case {
        name: "a_new_static_function_runs",
        recipe: &recipes::NEW_STATIC,
        functions: VERSION,
        probe: "hypercall 17 0x5804",
        check: |_, probes| answers(probes, -38, 0x5804 * 3 + 1),
        entry: None,
    },
    Case {
        name: "a_warning_names_its_file_and_line",
        recipe: &recipes::WARN,
        functions: VERSION,
        probe: "hypercall 17 0x5805",
        check: |setup, probes| {
            let made = setup.made(&recipes::WARN)?;
            let line = made.line_of("xen/common/kernel.c", recipes::WARN_ANCHOR).ok_or("no line")?;
            let wanted = format!("Xen WARN at common/kernel.c:{line}");
            let warns = |step: &StepResult, what: &str| step.console.iter().any(|text| text.ends_with(what));
            if !warns(probes.with, &wanted) {
                return Err(format!("the console does not say \"{wanted}\": {:?}", probes.with.console));
            }
            answers(probes, -38, 0x5e)
        },
        entry: Some(".bug_frames.1"),
    },
    Case {
        name: "an_alternative_is_in_place",
        recipe: &recipes::ALTERNATIVE,
        functions: PHYSDEV,
        probe: "hypercall 33 0x5806",
        check: |_, probes| answers(probes, -38, 102),
        entry: Some(".altinstructions"),
    },
    Case {
        name: "an_altcall_is_a_direct_call",
        recipe: &recipes::ALTCALL,
        functions: PHYSDEV,
        probe: "hypercall 33 0x5807",
        check: |_, probes| answers(probes, -38, 201),
        entry: Some(".altinstructions"),
    },
    Case {
        name: "the_demos_payload_shows_in_the_capabilities",
        recipe: &recipes::DEMO,
        functions: &["arch_get_xen_caps"],
        probe: "cat /sys/hypervisor/properties/capabilities",
        check: |_, probes| {
            let text = |step: &StepResult| step.stdout.text.trim().to_owned();
            let wanted = format!("live-patched-by-xsplice {}", text(probes.before));
            equal("the capabilities with the payload", &text(probes.with), &wanted)?;
            equal("the capabilities after it", &text(probes.after), &text(probes.before))
        },
        entry: None,
    },
    Case {
        name: "load_and_unload_hooks_run",
        recipe: &hooks::LOAD_AND_UNLOAD,
        functions: &["common/sched/core.c#domain_watchdog"],
        probe: "hypercall 29 6 0x5813,400",
        check: |_, probes| {
            answers(probes, -22, 4711)?;
            says(probes.load, &["load hook"])?;
            says(probes.revert, &["unload hook after 4711"])?;
            [probes.before, probes.with, probes.after].into_iter().try_for_each(|step| says(step, &[]))
        },
        entry: Some(".livepatch.hooks.load"),
    },
    Case {
        name: "hooks_alone_are_a_payload",
        recipe: &hooks::ALONE,
        functions: &[],
        probe: "hypercall 29 6 0x5813,400",
        check: |_, probes| {
            answers(probes, -22, -22)?;
            says(probes.load, &["alone in"])?;
            says(probes.revert, &["alone out"])
        },
        entry: None,
    },
    Case {
        name: "hooks_of_every_kind_run_in_order",
        recipe: &hooks::EVERY_KIND,
        functions: &["common/sched/core.c#domain_watchdog"],
        probe: "hypercall 29 6 0x5814,400",
        check: |_, probes| {
            answers(probes, -22, 5814)?;
            says(probes.load, &["hook preapply", "hook apply", "hook load", "hook postapply"])?;
            says(probes.revert, &["hook prerevert", "hook revert", "hook unload", "hook postrevert"])
        },
        entry: None,
    },
    Case {
        name: "a_guarded_read_that_faults_recovers",
        recipe: &kinds::FIXUP,
        functions: WATCHDOG,
        probe: "hypercall 29 6 0x5820,58; hypercall 29 6 0x5821,58",
        check: |_, probes| {
            // EINVAL; then EFAULT, 14, for the one address and what is there for the other.
            texts(probes, "-22\n-22\n", "5834\n58\n")
        },
        entry: Some(".ex_table"),
    },
    Case {
        name: "a_cold_path_runs",
        recipe: &kinds::COLD,
        functions: WATCHDOG,
        probe: "hypercall 29 6 0x5822,400",
        check: |_, probes| {
            answers(probes, -22, 6222)?;
            // "NAME+OFFSET/SIZE". A fragment has no name of its own in a payload, so that none of the hypervisor's
            // names is there twice: it is beyond the end of its function, in front of the next one.
            let from = |line: &String| {
                let place = line.split_once("called from common/sched/core.c#domain_watchdog+0x")?.1;
                let (offset, size) = place.split_once(' ')?.0.split_once("/0x")?;
                Some(u64::from_str_radix(offset, 16).ok()? >= u64::from_str_radix(size, 16).ok()?)
            };
            if probes.with.console.iter().find_map(from) != Some(true) {
                return Err(format!("it was not called from a fragment: {:?}", probes.with.console));
            }
            [probes.before, probes.after].into_iter().try_for_each(|step| says(step, &[]))
        },
        entry: None,
    },
    Case {
        name: "a_static_local_goes_on_counting",
        recipe: &kinds::STATIC_LOCAL,
        functions: &["common/keyhandler.c#read_clocks"],
        probe: keys!(1, "0x74"),
        check: |_, probes| {
            let samples = |step: &StepResult| {
                let counts = step.console.iter().filter_map(|line| {
                    let after = line.split_once("Synced ")?.1.split_once(" samples=")?.1;
                    after.split(' ').next()?.parse().ok()
                });
                match *counts.collect::<Vec<u32>>() {
                    [one, two] if one == two => Ok(one),
                    _ => Err(format!("the samples at \"{}\": {:?}", step.name, step.console)),
                }
            };
            let before = samples(probes.before)?;
            equal("the samples with the payload", &samples(probes.with)?, &(before + 1))?;
            equal("the samples after it", &samples(probes.after)?, &(before + 2))?;
            // The payload's own starts with the patch's value.
            says(probes.with, &[&format!("samples={} marks=41", before + 1)])?;
            [probes.before, probes.after].into_iter().try_for_each(|step| says(step, &[]))
        },
        entry: None,
    },
    Case {
        name: "a_headers_inline_function_is_replaced_in_three_objects",
        recipe: &kinds::HEADER_INLINE,
        functions: &[
            "arch/x86/irq.c#dump_irqs",
            "common/event_channel.c#dump_evtchn_info",
            "common/sched/core.c#do_poll",
        ],
        // The keys i and e; then SCHEDOP_poll of sched_op, for each of some ports with one behind it that there is
        // not. The answer is 0 for a port that is pending, at once, and otherwise EINVAL, for the second port.
        probe: concat!(
            keys!(2, "0x6965"),
            "; for port in 1 2 3 4 5 6 7 8; do hypercall 29 3 @3,2,0,0,0 $port,0x7fffffff; done"
        ),
        check: |_, probes| {
            for (step, wanted) in [(probes.before, false), (probes.with, true), (probes.after, false)] {
                // "PORT [PENDING/MASKED/STATE]", with numbers, for the key e.
                let ports = all(step, |line| line.split_once(" [")?.1.split_once('/')?.0.parse().ok())?;
                equal(&format!("whether all ports are pending at \"{}\"", step.name), &ports, &wanted)?;
                // "d0: PIRQ(PENDING", with P or -, for the key i.
                let irqs =
                    all(step, |line| match line.split_once("d0:")?.1.split_once('(')?.1.chars().next() {
                        Some('P') => Some(1),
                        Some('-') => Some(0),
                        _ => None,
                    })?;
                equal(&format!("whether all interrupts are pending at \"{}\"", step.name), &irqs, &wanted)?;
                polls(step, wanted)?;
            }
            Ok(())
        },
        entry: None,
    },
    Case {
        name: "a_function_of_a_new_source_file_runs",
        recipe: &kinds::NEW_SOURCE,
        functions: WATCHDOG,
        probe: "hypercall 29 6 0x5823,400",
        check: |_, probes| {
            answers(probes, -22, 400 * 3 + 1)?;
            says(probes.with, &["new source, call 1"])
        },
        entry: None,
    },
    Case {
        name: "a_changed_constant_table_is_used",
        recipe: &kinds::TABLE,
        functions: &["arch/x86/x86_64/traps.c#_show_registers"],
        // The key 0: the control domain's registers.
        probe: keys!(1, "0x30"),
        check: |_, probes| {
            let context = |step: &StepResult| {
                let of_line =
                    |line: &String| Some(line.split_once("CONTEXT: ")?.1.split_once(" (d0v0)")?.0.to_owned());
                step.console.iter().find_map(of_line).ok_or(format!("no registers: {:?}", step.console))
            };
            equal("the context before", &context(probes.before)?.as_str(), &"pv guest")?;
            equal("the context with the payload", &context(probes.with)?.as_str(), &"xsplice-e2e guest")?;
            equal("the context after", &context(probes.after)?.as_str(), &"pv guest")
        },
        entry: None,
    },
    Case {
        name: "a_stored_address_of_a_replaced_function_outlives_the_payload",
        recipe: &kinds::ADDRESS,
        functions: &["common/keyhandler.c#read_clocks", "handle_keypress"],
        probe: keys!(1, "0x59"),
        check: |_, probes| {
            let shown =
                |step: &StepResult| step.console.iter().filter(|line| line.contains("Synced ")).count();
            // Nobody has the key before. Afterwards the address is still there, and leads to the old code.
            equal("the clocks before", &shown(probes.before), &0)?;
            equal("the clocks with the payload", &shown(probes.with), &2)?;
            equal("the clocks after it", &shown(probes.after), &2)?;
            says(probes.with, &["key Y"])?;
            [probes.before, probes.after].into_iter().try_for_each(|step| says(step, &[]))
        },
        entry: None,
    },
];

/// Whether all lines of a step's console that have a flag have it set; some line must have one.
fn all(step: &StepResult, flag: impl Fn(&str) -> Option<u32>) -> Result<bool, String> {
    let flags: Vec<u32> = step.console.iter().filter_map(|line| flag(line)).collect();
    match flags.as_slice() {
        [] => Err(format!("nothing to be seen at \"{}\": {:?}", step.name, step.console)),
        some => Ok(some.iter().all(|flag| *flag == 1)),
    }
}

/// Whether polls find all ports pending that the key `e` lists. Others, which are not in use, never are.
fn polls(step: &StepResult, wanted: bool) -> Result<(), String> {
    let port = |line: &String| line.split_once(" [")?.0.split(' ').next_back()?.parse::<usize>().ok();
    let used: Vec<usize> = step.console.iter().filter_map(port).collect();
    // The first answer is that to the keys.
    let answers: Vec<&str> = step.stdout.text.lines().skip(1).collect();
    let (used, free): (Vec<_>, Vec<_>) = (1..).zip(&answers).partition(|(port, _)| used.contains(port));
    let found = |ports: &[(usize, &&str)], answer: &str| ports.iter().all(|(_, is)| **is == answer);
    let known = answers.len() == 8 && answers.iter().all(|answer| matches!(*answer, "0" | "-22"));
    if !known || used.is_empty() || !found(&free, "-22") || found(&used, "0") != wanted {
        return Err(format!("polls at \"{}\": in use {used:?}, free {free:?}", step.name));
    }
    Ok(())
}

/// The console has just these lines of hooks, in that order.
fn says(step: &StepResult, wanted: &[&str]) -> Result<(), String> {
    let lines = step.console.iter().filter_map(|line| Some(line.split_once("xsplice-e2e ")?.1.trim_end()));
    equal(&format!("what hooks say at \"{}\"", step.name), &lines.collect::<Vec<_>>(), &wanted.to_vec())
}

pub fn equal<T: PartialEq + std::fmt::Debug + ?Sized>(what: &str, is: &T, wanted: &T) -> Result<(), String> {
    if is == wanted { Ok(()) } else { Err(format!("{what}: {is:?} where {wanted:?} was expected")) }
}

pub fn answer(step: &StepResult) -> Result<i64, String> {
    let text = step.stdout.text.trim();
    text.parse().map_err(|error| format!("{}: \"{text}\": {error}; {}", step.name, step.stderr.text))
}

/// A hypercall answers `without` before and after, and `with` with the payload.
fn answers(probes: &Probes<'_>, without: i64, with: i64) -> Result<(), String> {
    equal("the answer before", &answer(probes.before)?, &without)?;
    equal("the answer with the payload", &answer(probes.with)?, &with)?;
    equal("the answer after", &answer(probes.after)?, &without)
}

/// A probe prints `without` before and after, and `with` with the payload.
fn texts(probes: &Probes<'_>, without: &str, with: &str) -> Result<(), String> {
    equal("what is printed before", &probes.before.stdout.text.as_str(), &without)?;
    equal("what is printed with the payload", &probes.with.stdout.text.as_str(), &with)?;
    equal("what is printed after", &probes.after.stdout.text.as_str(), &without)
}

/// A payload that was built.
#[derive(Clone)]
pub struct Payload {
    pub path: PathBuf,
    functions: Vec<String>,
}

/// The payload of a recipe, built once.
pub fn payload(setup: &Setup, recipe: &Recipe) -> Result<Payload, String> {
    static BUILT: Mutex<BTreeMap<String, Result<Payload, String>>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().map_err(|error| error.to_string())?;
    if let Some(known) = built.get(recipe.name) {
        return known.clone();
    }
    let result = setup.payload(recipe).and_then(|run| {
        run.bytes()?;
        Ok(Payload { functions: run.functions(), path: run.payload })
    });
    built.insert(recipe.name.to_owned(), result.clone());
    result
}

pub fn boot(setup: &Setup, payloads: &[PathBuf], steps: Vec<Step>) -> Result<BootReport, String> {
    static PROGRAM: OnceLock<Result<Vec<u8>, String>> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| hypercall_program(setup)).clone()?;
    let mut plan = Plan::script(payloads, steps);
    plan.files.push(PlanFile { path: "/sbin/hypercall".to_owned(), data: program, mode: 0o755 });
    let lab = Lab::new(&setup.debian.boot(), &setup.cache);
    lab.boot(&plan, &|_| {}).map_err(|problems| format!("{problems:?}"))
}

fn hypercall_program(setup: &Setup) -> Result<Vec<u8>, String> {
    let (source, program) = (setup.work.join("hypercall.c"), setup.work.join("hypercall"));
    fs::write(&source, include_str!("hypercall.c")).map_err(|error| error.to_string())?;
    let output = Command::new("gcc")
        .args([
            "-O1",
            "-static",
            "-nostdlib",
            "-ffreestanding",
            "-fno-stack-protector",
            "-fcf-protection=none",
        ])
        .arg("-o")
        .arg(&program)
        .arg(&source)
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    fs::read(program).map_err(|error| error.to_string())
}

fn steps(case: &Case) -> Vec<Step> {
    let name = case.recipe.name;
    let probe = |when: &str| Step::run(case.probe).named(format!("{name} {when}"));
    vec![
        probe("before"),
        Step::load(&format!("{name}.livepatch")),
        probe("with"),
        Step::revert(name),
        Step::unload(name),
        probe("after"),
    ]
}

fn verdict(setup: &Setup, case: &Case, report: &BootReport) -> Result<(), String> {
    let step = |when: &str| {
        let name = format!("{} {when}", case.recipe.name);
        let step = report.step(&name).filter(|step| step.state == State::Ended);
        step.ok_or_else(|| format!("the step \"{name}\" did not end"))
    };
    let (before, with, after) = (step("before")?, step("with")?, step("after")?);
    let action = |action: &str| {
        let name = format!("{action} {}", case.recipe.name);
        let done = report.step(&name).filter(|step| step.as_expected);
        done.ok_or_else(|| format!("the step \"{name}\" failed"))
    };
    let (load, revert) = (action("load")?, action("revert")?);
    action("unload")?;
    (case.check)(setup, &Probes { before, load, with, revert, after })
}

/// One case, in the boot that all cases share.
pub fn case(case: &'static Case) -> Outcome {
    static ALL: OnceLock<Result<BootReport, String>> = OnceLock::new();
    setup::with(|setup| {
        let own = payload(setup, case.recipe)?;
        equal(
            "the functions",
            &own.functions.iter().map(String::as_str).collect::<Vec<_>>().as_slice(),
            &case.functions,
        )?;
        let report = ALL.get_or_init(|| {
            // A payload that cannot be built fails its own test only.
            let built: Vec<(&Case, PathBuf)> = CASES
                .iter()
                .filter_map(|case| Some((case, payload(setup, case.recipe).ok()?.path)))
                .collect();
            let payloads: Vec<PathBuf> = built.iter().map(|(_, path)| path.clone()).collect();
            boot(setup, &payloads, built.iter().flat_map(|(case, _)| steps(case)).collect())
        });
        let report = report.as_ref().map_err(Clone::clone)?;
        verdict(setup, case, report).map_err(|why| format!("{why}\n{}", render_text(report)))
    })
}

/// A payload without the entry that a case is about must fail that case.
pub fn without_entry(case: &'static Case) -> Outcome {
    setup::with(|setup| {
        let section = case.entry.ok_or("the case has no entry")?;
        let whole = fs::read(payload(setup, case.recipe)?.path).map_err(|error| error.to_string())?;
        let without = elf::hide_section(&whole, section).ok_or(format!("the payload has no {section}"))?;
        let dir = setup.work.join(format!("without-{}", case.recipe.name));
        fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        let file = dir.join(format!("{}.livepatch", case.recipe.name));
        fs::write(&file, without).map_err(|error| error.to_string())?;
        let report = boot(setup, &[file], steps(case))?;
        let loaded = report.step(&format!("load {}", case.recipe.name));
        let told = |what: &str| Err(format!("{what}\n{}", render_text(&report)));
        // It has to fail for the lack of the entry, not because it was not loaded.
        if !loaded.is_some_and(|step| step.as_expected) {
            return told("the payload without the entry was not loaded");
        }
        match verdict(setup, case, &report) {
            Ok(()) => told("the case does not notice that the entry is not there"),
            // Without its frame, the trap of a warning is one that nobody expects.
            // So is a fault without its entry of the exception table.
            Err(_) if section.starts_with(".bug_frames") || section == ".ex_table" => match report.ended {
                Ended::Panic { .. } => Ok(()),
                _ => told("a panic was expected"),
            },
            Err(_) if report.succeeded() => Ok(()),
            Err(_) => told("something else went wrong"),
        }
    })
}

/// A payload that vetoes its own application: nothing changes, the error is the hook's, and the host lives on.
pub fn veto() -> Outcome {
    setup::with(|setup| {
        let built = payload(setup, &hooks::VETO)?;
        let name = hooks::VETO.name;
        let probe = |name: &str| Step::run("hypercall 29 6 0x5815,400").named(name.to_owned());
        let steps = vec![
            probe("before"),
            Step::upload(&format!("{name}.livepatch")),
            Step::apply(name).expecting(Expect::Code(1)),
            probe("with"),
            // Only what is not applied can be unloaded.
            Step::list(),
            Step::unload(name),
            probe("after"),
        ];
        let report = boot(setup, &[built.path], steps)?;
        let step = |name: &str| report.step(name).ok_or_else(|| format!("no step {name}"));
        let check = || {
            for name in ["before", "with", "after"] {
                equal(name, &answer(step(name)?)?, &-22)?;
            }
            let apply = step(&format!("apply {name}"))?;
            // EXDEV.
            if !apply.stderr.text.contains("Error 18:") {
                return Err(format!("apply said {:?}", apply.stderr.text));
            }
            equal(
                "the functions",
                &built.functions,
                &vec!["common/sched/core.c#domain_watchdog".to_owned()],
            )?;
            if report.succeeded() { Ok(()) } else { Err("a step failed".to_owned()) }
        };
        check().map_err(|why| format!("{why}\n{}", render_text(&report)))
    })
}

/// Two payloads, the upper of which needs a function of the lower one.
pub fn stack() -> Outcome {
    setup::with(|setup| {
        let lower = payload(setup, &recipes::LOWER)?.path;
        let mut upper = setup.build(recipes::UPPER.name, &setup.made(&recipes::UPPER)?.diff)?;
        upper.args = vec!["--depends".to_owned(), lower.to_string_lossy().into_owned()];
        let built = upper.run()?;
        built.bytes()?;
        let (low, up) = (recipes::LOWER.name, recipes::UPPER.name);
        let (low_file, up_file) = (format!("{low}.livepatch"), format!("{up}.livepatch"));
        let probe = |name: &str| Step::run("hypercall 29 6 0x5809,58").named(name.to_owned());
        let steps = vec![
            // It cannot come first.
            Step::load(&up_file).named("upper alone").expecting(Expect::Failure),
            Step::run(&format!("xen-livepatch unload {up}")).expecting(Expect::Anything),
            probe("before"),
            Step::load(&low_file),
            Step::run("hypercall 17 0x5808").named("lower"),
            probe("with lower"),
            Step::load(&up_file),
            probe("with both"),
            Step::list(),
            Step::revert(low).named("lower first").expecting(Expect::Failure),
            Step::revert(up),
            Step::unload(up),
            probe("without upper"),
            Step::revert(low),
            Step::unload(low),
            Step::run("hypercall 17 0x5808").named("after"),
        ];
        let report = boot(setup, &[lower, built.payload], steps)?;
        let checks = [
            ("before", -22),
            ("lower", 7001),
            ("with lower", -22),
            ("with both", 7058),
            ("without upper", -22),
            ("after", -38),
        ];
        let all = checks.iter().try_for_each(|(name, wanted)| {
            let step = report.step(name).ok_or_else(|| format!("no step {name}"))?;
            equal(name, &answer(step)?, wanted)
        });
        let all =
            all.and_then(|()| if report.succeeded() { Ok(()) } else { Err("a step failed".to_owned()) });
        all.map_err(|why| format!("{why}\n{}", render_text(&report)))
    })
}

/// Without the lower payload, the upper one's reference cannot be resolved: refused, not written.
pub fn stack_without_lower() -> Outcome {
    setup::with(|setup| {
        let built = setup.payload(&recipes::UPPER)?;
        let named = built.report["problems"].to_string().contains("xsplice_e2e_lower");
        match built.code {
            Some(2) if named && !built.payload.exists() => Ok(()),
            code => Err(format!("exit code {code:?}\n{}", built.stderr)),
        }
    })
}
