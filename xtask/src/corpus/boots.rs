//! Some of the corpus's payloads in the hypervisor that they are for: uploaded, applied, reverted and unloaded again.
//!
//! Several share a boot, one after the other: each is gone before the next one comes. What does not go as it should
//! there is booted once more on its own, so that no payload has to answer for the one before it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use fs_err as fs;
use xsplice_boot::{BootReport, DEFAULT_TIMEOUT, Ended, Lab, Plan, State, Step, StepResult};

use super::boots_table;
use super::judge::Judged;
use super::kinds::{self, Candidate};
use super::{Inputs, list};

/// How many payloads share a boot.
const TOGETHER: usize = 5;
/// What a boot may take for each of its payloads, besides the time to come up.
const EACH: Duration = Duration::from_secs(60);
/// What the control domain does with the payload in place: memory is mapped and unmapped, processes start and end,
/// the hypervisor is asked for what it says of itself, time passes.
const WORK: &str = "for i in 1 2 3 4; do ls -lR /sys/hypervisor /proc/self; cat /proc/interrupts \
                    /sys/hypervisor/properties/* /sys/hypervisor/version/*; done >/tmp/work 2>&1; \
                    sleep 1; cat /sys/hypervisor/version/extra";

/// How far a payload came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Course {
    pub(crate) applied: bool,
    pub(crate) reverted: bool,
    pub(crate) unloaded: bool,
    /// The first thing that was not as it should be.
    pub(crate) complaint: Option<String>,
    /// What Xen and the control domain's kernel wrote to the console meanwhile.
    pub(crate) console: Vec<String>,
}

/// A payload that was booted.
#[derive(Debug, Clone)]
pub(crate) struct Booted {
    pub(crate) candidate: Candidate,
    pub(crate) course: Course,
}

/// Where a run boots, and what it writes.
pub(crate) struct Boots<'r> {
    pub(crate) inputs: &'r Inputs,
    /// How many payloads are wanted.
    pub(crate) count: usize,
    /// The table, if all of the corpus was judged; otherwise it is printed.
    pub(crate) table: Option<PathBuf>,
}

impl Boots<'_> {
    /// Chooses payloads, boots them, and writes down what came out.
    ///
    /// # Errors
    /// When one of them failed, kinds were left out, or there are fewer than wanted.
    pub(crate) fn run(&self, judged: &[Judged], git: &list::Git) -> Result<(), String> {
        let all = kinds::candidates(
            judged,
            |entry| self.inputs.store.payload(entry),
            |entry| git.patch_file(entry),
        )?;
        let choice = kinds::choose(&all, self.count);
        let chosen: Vec<&Candidate> = choice.places.iter().map(|place| &all[*place]).collect();
        let booted = self.boot_all(&chosen)?;
        let document = boots_table::document(&all, &booted, self.count, &choice.left_out);
        match &self.table {
            None => print!("{document}"),
            Some(table) => {
                if let Some(folder) = table.parent() {
                    fs::create_dir_all(folder).map_err(|error| error.to_string())?;
                }
                fs::write(table, document).map_err(|error| error.to_string())?;
            }
        }
        let failed = booted.iter().filter(|booted| booted.course.complaint.is_some()).count();
        println!(
            "boots: {} payloads, {} as they should, {failed} failed",
            booted.len(),
            booted.len() - failed
        );
        let left_out: Vec<&str> = choice.left_out.iter().map(|kind| kind.text()).collect();
        let mut wrong = Vec::new();
        wrong.extend((failed > 0).then(|| format!("{failed} payloads failed in the hypervisor")));
        let too_few = booted.len() < self.count;
        wrong.extend(too_few.then(|| format!("{} payloads booted, not {}", booted.len(), self.count)));
        wrong.extend((!left_out.is_empty()).then(|| format!("not booted: {}", left_out.join(", "))));
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }

    fn boot_all(&self, chosen: &[&Candidate]) -> Result<Vec<Booted>, String> {
        let debian = xsplice_boot::fetch_boot(&self.inputs.cache, &|line| eprintln!("{line}"))
            .map_err(|problems| crate::told(&problems))?;
        let lab = Lab::new(&debian, &self.inputs.cache);
        let mut booted = Vec::new();
        for together in chosen.chunks(TOGETHER) {
            let mut courses = self.boot(&lab, together)?;
            if together.len() > 1 {
                for again in to_repeat(&courses) {
                    let alone = self.boot(&lab, &together[again..=again])?;
                    let behind = again.checked_sub(1).map(|before| together[before].entry.name());
                    let alone = alone.into_iter().flatten().next();
                    courses[again] = Some(merged(courses[again].take(), alone, behind));
                }
            }
            for (candidate, course) in together.iter().zip(courses) {
                let course = course.unwrap_or_else(|| not_run("the machine ended before it"));
                booted.push(Booted { candidate: (*candidate).clone(), course });
            }
        }
        Ok(booted)
    }

    /// One boot. A payload whose turn did not come, or was cut off by the clock, has no course.
    fn boot(&self, lab: &Lab, together: &[&Candidate]) -> Result<Vec<Option<Course>>, String> {
        if xsplice_process::interrupted() {
            return Err("interrupted".to_owned());
        }
        let names: Vec<String> = together.iter().map(|candidate| candidate.entry.name()).collect();
        let files: Vec<PathBuf> = together.iter().map(|candidate| candidate.file.clone()).collect();
        let mut plan = Plan::script(&files, names.iter().flat_map(|name| steps(name)).collect());
        plan.timeout = DEFAULT_TIMEOUT + EACH * u32::try_from(files.len()).unwrap_or(u32::MAX);
        let report = lab.boot(&plan, &|_| {}).map_err(|problems| crate::told(&problems))?;
        let logs = self.inputs.store.out.join("boots").join(names.join("+"));
        fs::create_dir_all(&logs).map_err(|error| error.to_string())?;
        report.save_logs(&logs).map_err(|problems| crate::told(&problems))?;
        if names.len() == 1 || report.set_up.as_expected {
            let courses = courses(&report, &names);
            for (name, course) in names.iter().zip(&courses) {
                println!("{name:19} {}", boots_table::line(course.as_ref()));
            }
            println!("{:19} {:.1} s for {} payloads", "", report.seconds, names.len());
            return Ok(courses);
        }
        Ok(vec![None; names.len()])
    }
}

fn not_run(why: &str) -> Course {
    Course { complaint: Some(why.to_owned()), ..Course::default() }
}

/// Which payloads of a boot get one of their own: from the first that did not go well, all.
fn to_repeat(courses: &[Option<Course>]) -> std::ops::Range<usize> {
    let good = |course: &Option<Course>| course.as_ref().is_some_and(|course| course.complaint.is_none());
    let first = courses.iter().position(|course| !good(course)).unwrap_or(courses.len());
    first..courses.len()
}

/// The course that counts is the one alone. That it failed before, behind a payload that went well, is not forgotten.
fn merged(first: Option<Course>, alone: Option<Course>, behind: Option<String>) -> Course {
    let mut course = alone.unwrap_or_else(|| not_run("the machine did not get to it in time"));
    let earlier = first.and_then(|first| Some((first.complaint?, first.console)));
    if let (None, Some((complaint, console))) = (&course.complaint, earlier) {
        let place = behind.map_or("first of several".to_owned(), |name| format!("behind {name}"));
        course.complaint = Some(format!("{place}: {complaint}; alone all went well"));
        course.console = console;
    }
    course
}

/// The states in which the hypervisor lists a payload, behind each of the steps that change it.
const STATES: [(&str, Option<&str>); 4] =
    [("upload", Some("CHECKED")), ("apply", Some("APPLIED")), ("revert", Some("CHECKED")), ("unload", None)];
/// How many steps a payload has: two for each state, and the work.
const STEPS: usize = 2 * STATES.len() + 1;

fn steps(name: &str) -> Vec<Step> {
    let list = |after: &str| Step::list().named(format!("list after {after} {name}"));
    vec![
        Step::upload(&format!("{name}.livepatch")),
        list("upload"),
        Step::apply(name),
        list("apply"),
        Step::run(WORK).named(format!("work with {name}")),
        Step::revert(name),
        list("revert"),
        Step::unload(name),
        list("unload"),
    ]
}

/// What became of each payload. None for those behind the first that failed, and where time was up: they say nothing.
fn courses(report: &BootReport, names: &[String]) -> Vec<Option<Course>> {
    let mut console = console_of(&report.xen_log);
    let mut courses = Vec::new();
    let mut failed = false;
    for (name, (number, steps)) in names.iter().zip((0..).zip(report.steps.chunks(STEPS))) {
        let lines: Vec<String> = (1..=STEPS)
            .flat_map(|step| console.remove(&(number * STEPS + step)).unwrap_or_default())
            .collect();
        let slow = matches!(report.ended, Ended::TimedOut { .. })
            && steps.iter().any(|step| step.state != State::Ended);
        if failed || slow && names.len() > 1 {
            failed = true;
            courses.push(None);
            continue;
        }
        let course = course(report, name, steps, lines);
        failed = course.complaint.is_some();
        courses.push(Some(course));
    }
    courses
}

fn course(report: &BootReport, name: &str, steps: &[StepResult], console: Vec<String>) -> Course {
    let listed = |step: &StepResult| state_in(&step.stdout.text, name);
    let step = |name: String| steps.iter().find(|step| step.name == name && step.as_expected);
    let reached = |(action, state): (&str, Option<&str>)| {
        let list = step(format!("list after {action} {name}"));
        step(format!("{action} {name}")).is_some()
            && list.is_some_and(|list| listed(list).as_deref() == state)
    };
    let mut complaints: Vec<String> = Vec::new();
    if !report.set_up.as_expected {
        complaints.push("the control domain did not come up".to_owned());
    }
    complaints.extend(steps.iter().filter_map(|step| complaint_of(step, &report.ended)));
    for (action, state) in STATES {
        if !reached((action, state)) {
            let state = state.unwrap_or("nothing");
            complaints.push(format!("the hypervisor does not list {state} after {action}"));
        }
    }
    complaints
        .extend(console.iter().find(|line| !is_expected(line, name)).map(|line| format!("console: {line}")));
    Course {
        applied: reached(STATES[1]),
        reverted: reached(STATES[2]),
        unloaded: reached(STATES[3]),
        complaint: complaints.into_iter().next(),
        console,
    }
}

fn complaint_of(step: &StepResult, ended: &Ended) -> Option<String> {
    let end = match ended {
        Ended::Panic { line } => line.clone(),
        Ended::TimedOut { limit } => format!("stopped after {limit} s"),
        other => format!("{other:?}"),
    };
    match step.exit_code {
        _ if step.as_expected => None,
        Some(code) => {
            let said: Vec<&str> = step.stderr.text.split_whitespace().collect();
            Some(format!("{} ended with exit code {code}: {}", step.name, said.join(" ")))
        }
        None if step.state == State::Cut => Some(format!("{} did not end: {end}", step.name)),
        None => Some(format!("{} did not run: {end}", step.name)),
    }
}

/// The state of a payload in what `xen-livepatch list` prints.
fn state_in(list: &str, name: &str) -> Option<String> {
    list.lines().find_map(|line| {
        let mut cells = line.split('|').map(str::trim);
        (cells.next() == Some(name)).then(|| cells.next().unwrap_or_default().to_owned())
    })
}

/// The console's lines by the number of the step that had begun last: what comes between two steps is the first
/// one's. The lab marks the beginning of step N with `@WORD:Nb@` and its end with `@WORD:Ne@`.
fn console_of(log: &str) -> BTreeMap<usize, Vec<String>> {
    let mut lines: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    let mut number = 0;
    for line in log.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match mark(line) {
            Some((step, 'b')) => number = step,
            Some(_) => {}
            None => lines.entry(number).or_default().push(line.to_owned()),
        }
    }
    lines
}

fn mark(line: &str) -> Option<(usize, char)> {
    let (_, rest) = line.strip_prefix('@')?.strip_suffix('@')?.split_once(':')?;
    let side = rest.chars().last().filter(|side| matches!(side, 'b' | 'e'))?;
    Some((rest.strip_suffix(side)?.parse().ok()?, side))
}

/// What the loader says of a payload by its name when all is well (xen/common/livepatch.c).
const LOADER: [&str; 5] = [
    ": Verifying enabled expectations for all functions",
    ": Applying ",
    " finished APPLY with rc=0",
    ": Reverting",
    " finished REVERT with rc=0",
];
/// What Xen says when the control domain switches the machine off, behind the last payload.
const GOING_OFF: [&str; 3] =
    ["Preparing system for ACPI S5 state.", "Disabling non-boot CPUs ...", "Entering ACPI S5 state."];

/// Whether a line is one that is written when all is well with a payload of that name. Of an alternative that it does
/// not understand, and of a function that is applied twice, the hypervisor says so and goes on.
fn is_expected(line: &str, name: &str) -> bool {
    let Some(said) = line.strip_prefix("(XEN) ") else { return line.ends_with("] reboot: Power down") };
    if GOING_OFF.contains(&said) || said.starts_with("alt table ") {
        return true;
    }
    let Some(said) = said.strip_prefix("livepatch: ") else { return false };
    let of_payload = |rest: &str| match rest.strip_prefix(LOADER[1]) {
        Some(count) => count.ends_with(" functions"),
        None => LOADER.contains(&rest),
    };
    said == "module metadata:"
        || said.starts_with("  patch=")
        || said.strip_prefix(name).is_some_and(of_payload)
}

#[cfg(test)]
#[path = "boots_tests.rs"]
mod tests;
