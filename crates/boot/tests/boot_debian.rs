//! Boots Debian's Xen for real: fetches its packages into the cache, then runs steps in QEMU.
//!
//! Needs a network (or a filled cache), QEMU and half a minute, so it runs only with `XSPLICE_E2E=1`.
//! Without it every test is reported as ignored, and a line says why.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use xsplice_boot::{
    BootReport, DebianBoot, Ended, Expect, Lab, Plan, PlanFile, Role, State, Step, default_cache, fetch_boot,
    render_text,
};
use xsplice_report::Problems;

/// The build-id of the hypervisor that Debian ships in the pinned version.
const SHIPPED_BUILD_ID: &str = "39a640e6f1412319235087391df9f1c5e13ae920";

/// A test's name and what it does.
type Test = (&'static str, fn() -> Result<(), Failed>);

#[expect(clippy::print_stderr, reason = "a test that does not run says so")]
fn main() {
    let args = Arguments::from_args();
    let skip = std::env::var_os("XSPLICE_E2E").is_none_or(|value| value != "1");
    let tests: [Test; 5] = [
        ("the_pinned_hypervisor_is_fetched_once", fetched_once),
        ("shipped_xen_boots_and_runs_steps", steps_run),
        ("a_bad_payload_is_refused_with_xens_reason", bad_payload),
        ("a_panic_ends_the_boot_at_once", panics),
        ("a_boot_that_takes_too_long_is_stopped", times_out),
    ];
    if skip {
        for (name, _) in tests {
            eprintln!("skipped: {name} because XSPLICE_E2E=1 is not set");
        }
    }
    let trial = |(name, run)| Trial::test(name, run).with_ignored_flag(skip);
    libtest_mimic::run(&args, tests.map(trial).into()).exit();
}

fn told(problems: Problems) -> Failed {
    let lines: Vec<String> = problems
        .0
        .iter()
        .map(|problem| format!("{}: {} ({}) {}", problem.code.name, problem.what, problem.place, problem.why))
        .collect();
    lines.join("\n").into()
}

fn cache() -> Result<PathBuf, Failed> {
    default_cache().map_err(told)
}

fn debian() -> Result<DebianBoot, Failed> {
    fetch_boot(&cache()?, &|_| {}).map_err(told)
}

fn boot(plan: &Plan) -> Result<BootReport, Failed> {
    Lab::new(&debian()?, &cache()?).boot(plan, &|_| {}).map_err(told)
}

/// Fails with the whole report unless `holds`.
fn check(report: &BootReport, holds: bool, what: &str) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(format!("{what}\n{}\n{}", render_text(report), report.xen_log).into()) }
}

fn fetched_once() -> Result<(), Failed> {
    let first = debian()?;
    let again = fetch_boot(&cache()?, &|line| panic!("nothing is left to do, but: {line}")).map_err(told)?;
    if first != again {
        return Err("the second call gives other files".into());
    }
    if first.pinned {
        let image = std::fs::read(&first.hypervisor)?;
        let id = unhex(SHIPPED_BUILD_ID)?;
        if !image.windows(id.len()).any(|bytes| bytes == id) {
            return Err("the hypervisor has another build-id".into());
        }
    }
    Ok(())
}

fn unhex(digits: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let pairs: Vec<&str> = (0..digits.len() / 2).map(|n| &digits[2 * n..2 * n + 2]).collect();
    Ok(pairs.iter().map(|pair| u8::from_str_radix(pair, 16)).collect::<Result<_, _>>()?)
}

fn steps_run() -> Result<(), Failed> {
    let long = "head -c 100000 /dev/zero | tr '\\0' x";
    let plan = Plan {
        steps: vec![
            Step::list(),
            Step::probe("cat /sys/hypervisor/version/extra", "before"),
            Step::run("printf 'a\\nb'; echo e >&2; exit 3").expecting(Expect::Code(3)).named("streams"),
            Step::run("false").named("unexpected"),
            Step::run("cat /data/file; ls -l /data/file").named("file"),
            Step::run(long).named("long"),
            // It reaches the console, but from the kernel.
            Step::run("echo '<2>not xen' > /dev/kmsg").named("kernel line"),
        ],
        files: vec![PlanFile { path: "/data/file".into(), data: b"\x00\x01@x".to_vec(), mode: 0o400 }],
        ..Plan::default()
    };
    let report = boot(&plan)?;
    let step = |name: &str| report.step(name).ok_or_else(|| Failed::from(format!("no step {name}")));
    check(&report, report.ended == Ended::PowerOff, "powers off")?;
    check(&report, report.set_up.as_expected && report.set_up.role == Role::SetUp, "gets ready")?;
    check(&report, step("list")?.exit_code == Some(0), "xen-livepatch reaches the hypervisor")?;
    let extra = &report.steps[1].stdout.text;
    check(&report, extra.starts_with('.') && extra.ends_with('\n'), "an extra version such as .5")?;
    let streams = step("streams")?;
    let texts = (streams.stdout.text.as_str(), streams.stderr.text.as_str());
    check(&report, texts == ("a\nb", "e\n") && streams.as_expected, "both streams, byte for byte")?;
    check(&report, !step("unexpected")?.as_expected, "an unexpected end is told")?;
    check(&report, step("file")?.stdout.text.starts_with("\0\u{1}@x"), "files arrive unchanged")?;
    check(&report, step("file")?.stdout.text.contains("-r--------"), "files have their mode")?;
    let long = step("long")?;
    check(&report, long.stdout.size == 100_000 && long.stdout.cut, "long output is cut and counted")?;
    check(&report, step("kernel line")?.console.is_empty(), "only Xen's lines are Xen's")?;
    check(&report, report.problems().0.len() == 1, "one problem for the one unexpected end")
}

fn bad_payload() -> Result<(), Failed> {
    let dir = tempfile::TempDir::new()?;
    let payload = dir.path().join("bad.livepatch");
    std::fs::write(&payload, vec![0x5a; 4096])?;
    let steps = vec![Step::load("bad.livepatch"), Step::run("true"), Step::list()];
    let report = boot(&Plan::script(&[payload], steps))?;
    let load = &report.steps[0];
    check(&report, load.exit_code == Some(1), "refused")?;
    check(&report, load.console.iter().any(|line| line.contains("livepatch")), "Xen says why")?;
    check(&report, report.steps[1].console.is_empty(), "the reason belongs to the step")?;
    check(&report, report.problems().outcome() == xsplice_report::Outcome::Refused, "a refusal")
}

fn panics() -> Result<(), Failed> {
    let steps = vec![
        Step::run("true"),
        Step::run("echo c > /proc/sysrq-trigger; sleep 60").named("crash"),
        Step::run("true").named("never"),
    ];
    let report = boot(&Plan { steps, ..Plan::default() })?;
    check(&report, matches!(&report.ended, Ended::Panic { line } if line.contains("panic")), "a panic")?;
    let state = |name: &str| report.step(name).map(|step| step.state);
    check(&report, state("crash") == Some(State::Cut), "during the step")?;
    check(&report, state("never") == Some(State::NotRun), "the rest does not run")?;
    check(&report, report.seconds < 50.0, "long before the step would have ended")
}

fn times_out() -> Result<(), Failed> {
    let steps = vec![Step::run("sleep 1000").named("sleeper")];
    let timeout = Duration::from_secs(40);
    let report = boot(&Plan { steps, timeout, ..Plan::default() })?;
    check(&report, report.ended == Ended::TimedOut { limit: 40 }, "stopped")?;
    check(&report, report.steps[0].state == State::Cut, "while it slept")
}
