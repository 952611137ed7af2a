//! What happened in the lab, as data and as text.

use std::path::Path;

use fs_err as fs;
use serde::Serialize;
use xsplice_report::{Diagnostic, Place, Problems};

use crate::codes;
use crate::protocol::Stream;
use crate::script::{Expect, Role, Step};

/// How far a step came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It ended, with the exit code given.
    Ended,
    /// It had begun when the machine stopped.
    Cut,
    /// The machine stopped before it.
    NotRun,
}

/// One step and its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepResult {
    /// What it is called.
    pub name: String,
    /// What it is about.
    pub role: Role,
    /// The command.
    pub command: String,
    /// How it had to end.
    #[serde(flatten)]
    pub expect: Expect,
    /// How far it came.
    pub state: State,
    /// Its exit code, if it ended.
    pub exit_code: Option<i32>,
    /// Whether it ended as expected.
    pub as_expected: bool,
    /// What it wrote to standard output.
    pub stdout: Stream,
    /// What it wrote to standard error.
    pub stderr: Stream,
    /// Xen's console lines that appeared while it ran, each with its `(XEN)` prefix.
    pub console: Vec<String>,
}

impl StepResult {
    pub(crate) fn not_run(step: &Step) -> StepResult {
        StepResult {
            name: step.name.clone(),
            role: step.role,
            command: step.command.clone(),
            expect: step.expect,
            state: State::NotRun,
            exit_code: None,
            as_expected: false,
            stdout: Stream::default(),
            stderr: Stream::default(),
            console: Vec::new(),
        }
    }
}

/// How the machine ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "how", rename_all = "kebab-case")]
pub enum Ended {
    /// All steps ran, and the control domain switched the machine off.
    PowerOff,
    /// The hypervisor or the control domain's kernel panicked.
    Panic {
        /// The line that says so.
        line: String,
    },
    /// It took too long and was stopped.
    TimedOut {
        /// The limit in seconds.
        limit: u64,
    },
    /// The console wrote too much and the machine was stopped.
    LogOverflow {
        /// The limit in bytes.
        limit: u64,
    },
    /// The emulator ended before all steps had run.
    Exited {
        /// Its exit code; 0 also when the machine reset itself.
        code: i32,
        /// The last lines that it wrote itself.
        message: String,
    },
}

/// One boot: every step, and how it ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BootReport {
    /// What the control domain did to get ready; not one of the plan's steps.
    pub set_up: StepResult,
    /// The plan's steps, in order, those that did not run too.
    pub steps: Vec<StepResult>,
    /// How the machine ended.
    pub ended: Ended,
    /// Wall-clock time in seconds, from the emulator's start to its end.
    pub seconds: f64,
    /// Everything on Xen's console (first serial port), the marks of the steps among it.
    #[serde(skip)]
    pub xen_log: String,
    /// Everything on the control domain's serial port.
    #[serde(skip)]
    pub dom0_log: String,
}

impl BootReport {
    /// Whether every step ended as expected and the machine went off in an orderly way.
    pub fn succeeded(&self) -> bool {
        self.ended == Ended::PowerOff
            && self.set_up.as_expected
            && self.steps.iter().all(|step| step.as_expected)
    }

    /// The first step of that name.
    pub fn step(&self, name: &str) -> Option<&StepResult> {
        self.steps.iter().find(|step| step.name == name)
    }

    /// What did not go as expected; empty if and only if [`BootReport::succeeded`].
    pub fn problems(&self) -> Problems {
        let mut problems = Problems::new();
        // A step that was cut off is in the description of the end.
        let ended = |step: &&StepResult| step.state == State::Ended;
        if let Some(problem) = self.end_problem() {
            problems.push(problem);
        }
        if self.set_up.state == State::Ended && !self.set_up.as_expected {
            let what = "the control domain cannot reach the hypervisor";
            problems.push(
                Diagnostic::new(codes::LAB_NOT_READY, what)
                    .why(self.set_up.stderr.text.trim())
                    .advice("Check that the kernel and its modules belong together."),
            );
        }
        let mut not_loaded = false;
        for step in self.steps.iter().filter(ended).filter(|step| !step.as_expected) {
            // What was not loaded cannot be unloaded: that would only repeat the first problem.
            if !(not_loaded && step.role == Role::Unload) {
                problems.push(step_problem(step));
            }
            not_loaded |= step.role == Role::Load;
        }
        problems
    }

    fn end_problem(&self) -> Option<Diagnostic> {
        let during = match self.steps.iter().rev().find(|step| step.state != State::NotRun) {
            Some(step) if step.state == State::Cut => format!("during the step \"{}\"", step.name),
            Some(step) => format!("after the step \"{}\"", step.name),
            None => "before the first step".to_owned(),
        };
        let ready = self.set_up.state == State::Ended;
        let tail = || codes::tail_of(self.xen_log.as_bytes(), 12);
        let diagnostic = match &self.ended {
            Ended::PowerOff => return None,
            Ended::Panic { line } if ready => {
                Diagnostic::new(codes::HOST_PANICKED, format!("the host panicked {during}: {line}"))
                    .why("A host that this is done to goes down with all its guests.")
                    .advice("Do not use the payload; Xen's console has the trace.")
            }
            Ended::Panic { line } => {
                Diagnostic::new(codes::LAB_NOT_READY, format!("the host panicked as it booted: {line}"))
                    .why(tail())
                    .advice("Check that hypervisor and kernel boot at all.")
            }
            Ended::TimedOut { limit } => Diagnostic::new(
                codes::BOOT_TIMED_OUT,
                format!("the machine was stopped after {limit} s, {during}"),
            )
            .why(tail())
            .advice("Give it more time if the machine is slow; else a step hangs."),
            Ended::LogOverflow { limit } => Diagnostic::new(
                codes::LOG_OVERFLOW,
                format!("the console wrote more than {limit} bytes {during}"),
            )
            .why(tail())
            .advice("Do not use the payload; the console's lines say what it keeps complaining about."),
            Ended::Exited { code, message } => {
                let code_for = if ready { codes::BOOT_ENDED_EARLY } else { codes::LAB_NOT_READY };
                let what = format!("the emulator ended with exit code {code} {during}");
                let why = if message.is_empty() { tail() } else { message.clone() };
                Diagnostic::new(code_for, what)
                    .why(why)
                    .advice("If it had no error of its own, the machine reset itself.")
            }
        };
        Some(diagnostic)
    }

    /// Writes `xen.log` and `dom0.log` into a folder.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn save_logs(&self, dir: &Path) -> Result<(), Problems> {
        for (name, text) in [("xen.log", &self.xen_log), ("dom0.log", &self.dom0_log)] {
            fs::write(dir.join(name), text).map_err(codes::io)?;
        }
        Ok(())
    }
}

/// The most lines of a step's output and console that a diagnostic repeats.
const WHY_LINES: usize = 20;

fn step_problem(step: &StepResult) -> Diagnostic {
    let end = match step.exit_code {
        Some(code) => format!("ended with exit code {code}"),
        None => "did not end".to_owned(),
    };
    let wanted = match step.expect {
        Expect::Success => "success".to_owned(),
        Expect::Failure => "a failure".to_owned(),
        Expect::Code(code) => format!("exit code {code}"),
        Expect::Anything => "an end".to_owned(),
    };
    let what = format!("the step \"{}\" {end} where {wanted} was expected", step.name);
    let mut said = vec![step.stdout.text.trim(), step.stderr.text.trim()];
    said.extend(step.console.iter().map(String::as_str));
    let said: Vec<&str> = said.iter().flat_map(|text| text.lines()).take(WHY_LINES).collect();
    let action = matches!(step.role, Role::Load | Role::Unload) && step.expect == Expect::Success;
    let (code, advice) = if action && step.exit_code.is_some() {
        (codes::PAYLOAD_NOT_ACCEPTED, "The lines of Xen's console name the rule that was broken.")
    } else {
        (codes::STEP_UNEXPECTED, "Compare the step's output with what was expected of it.")
    };
    Diagnostic::new(code, what)
        .at(Place::none().symbol(step.command.clone()))
        .why(said.join("\n"))
        .advice(advice)
}

/// The report as text: each step with its exit code, output and console lines, then the end.
pub fn render_text(report: &BootReport) -> String {
    let mut out = String::new();
    if !report.set_up.as_expected {
        render_step(&mut out, &report.set_up);
    }
    for step in &report.steps {
        render_step(&mut out, step);
    }
    let end = match &report.ended {
        Ended::PowerOff => "powered off".to_owned(),
        Ended::Panic { line } => format!("PANIC: {line}"),
        Ended::TimedOut { limit } => format!("stopped: no end within {limit} s"),
        Ended::LogOverflow { limit } => format!("stopped: more than {limit} bytes on the console"),
        Ended::Exited { code, message } if message.is_empty() => format!("emulator ended with {code}"),
        Ended::Exited { code, message } => format!("emulator ended with {code}: {message}"),
    };
    let good = report.steps.iter().filter(|step| step.as_expected).count();
    out.push_str(&format!(
        "{good} of {} steps as expected; {end} after {:.1} s\n",
        report.steps.len(),
        report.seconds
    ));
    out
}

fn render_step(out: &mut String, step: &StepResult) {
    let sign = match (step.state, step.as_expected) {
        (State::NotRun, _) => "--",
        (_, true) => "ok",
        (_, false) => "!!",
    };
    let end = match (step.state, step.exit_code) {
        (State::NotRun, _) => "did not run".to_owned(),
        (_, Some(0)) => String::new(),
        (_, Some(code)) => format!("exit code {code}"),
        (_, None) => "did not end".to_owned(),
    };
    let expected = match step.expect {
        Expect::Success if !step.as_expected && step.state != State::NotRun => " (expected success)",
        Expect::Failure if step.as_expected => " (as expected)",
        Expect::Failure => " (expected a failure)",
        Expect::Code(_) if step.as_expected => " (as expected)",
        Expect::Code(_) => " (expected another)",
        _ => "",
    };
    let tail =
        if end.is_empty() && expected.is_empty() { String::new() } else { format!(": {end}{expected}") };
    out.push_str(&format!("{sign} {}{tail}\n", step.name));
    for (label, stream) in [("", &step.stdout), ("", &step.stderr)] {
        for line in stream.text.lines() {
            out.push_str(&format!("     {label}{line}\n"));
        }
        if stream.cut {
            out.push_str(&format!("     ... cut; it wrote {} bytes\n", stream.size));
        }
    }
    for same in step.console.chunk_by(|one, other| one == other) {
        let times = if same.len() > 1 { format!(" [{} times]", same.len()) } else { String::new() };
        out.push_str(&format!("     {}{times}\n", same[0]));
    }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
