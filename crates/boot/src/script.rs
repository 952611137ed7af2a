//! The steps of a boot, and the plain text form that `--script` takes.
//!
//! A script has one shell command per line, run by busybox's sh in the control domain. Empty lines and
//! lines that start with `#` do nothing. `!` before a command says that it has to fail, `?` that it may
//! end as it likes; all others have to end with exit code 0.

use serde::Serialize;
use xsplice_report::{Diagnostic, Place, Problems};

use crate::codes;

/// How a step has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "expect", content = "code", rename_all = "kebab-case")]
pub enum Expect {
    /// With exit code 0.
    Success,
    /// With any other.
    Failure,
    /// With exactly this one.
    Code(i32),
    /// Either way.
    Anything,
}

impl Expect {
    /// Whether an exit code is what was expected.
    pub fn allows(self, code: i32) -> bool {
        match self {
            Expect::Success => code == 0,
            Expect::Failure => code != 0,
            Expect::Code(wanted) => code == wanted,
            Expect::Anything => true,
        }
    }
}

/// What a step is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The control domain's own preparation.
    SetUp,
    /// Gives a payload to the hypervisor, or applies it.
    Load,
    /// Takes a payload's effect away, or the payload itself.
    Unload,
    /// Lists the payloads.
    List,
    /// Prints a value of interest.
    Probe,
    /// Anything else.
    Run,
}

/// One step: a shell command in the control domain, and how it has to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What it is called in reports.
    pub name: String,
    /// What it is about.
    pub role: Role,
    /// The command, for busybox's sh. `xen-livepatch` and all of busybox are in PATH, payloads below
    /// `/payloads` under their file names.
    pub command: String,
    /// How it has to end.
    pub expect: Expect,
}

impl Step {
    fn new(role: Role, name: String, command: String) -> Step {
        Step { name, role, command, expect: Expect::Success }
    }

    /// Uploads and applies a payload; `file` is its file name below `/payloads`.
    pub fn load(file: &str) -> Step {
        let command = format!("xen-livepatch load {}", quote(&format!("/payloads/{file}")));
        Step::new(Role::Load, format!("load {}", payload_name(file)), command)
    }

    /// Uploads a payload without applying it; `file` is its file name below `/payloads`.
    pub fn upload(file: &str) -> Step {
        let name = payload_name(file);
        let path = quote(&format!("/payloads/{file}"));
        let command = format!("xen-livepatch upload {} {path}", quote(name));
        Step::new(Role::Load, format!("upload {name}"), command)
    }

    /// Applies an uploaded payload, by its name in the hypervisor.
    pub fn apply(name: &str) -> Step {
        Step::new(Role::Load, format!("apply {name}"), format!("xen-livepatch apply {}", quote(name)))
    }

    /// Reverts an applied payload, by its name in the hypervisor.
    pub fn revert(name: &str) -> Step {
        Step::new(Role::Unload, format!("revert {name}"), format!("xen-livepatch revert {}", quote(name)))
    }

    /// Unloads a payload that is not applied, by its name in the hypervisor.
    pub fn unload(name: &str) -> Step {
        Step::new(Role::Unload, format!("unload {name}"), format!("xen-livepatch unload {}", quote(name)))
    }

    /// Lists the payloads.
    pub fn list() -> Step {
        Step::new(Role::List, "list".to_owned(), "xen-livepatch list".to_owned())
    }

    /// Prints a value; `when` says before what, with what, or after what.
    pub fn probe(command: &str, when: &str) -> Step {
        Step::new(Role::Probe, format!("probe {when}: {command}"), command.to_owned())
    }

    /// Any command.
    pub fn run(command: &str) -> Step {
        Step::new(Role::Run, command.to_owned(), command.to_owned())
    }

    /// Under another name in reports.
    pub fn named(mut self, name: impl Into<String>) -> Step {
        self.name = name.into();
        self
    }

    /// With another expectation.
    pub fn expecting(mut self, expect: Expect) -> Step {
        self.expect = expect;
        self
    }
}

/// The name that `xen-livepatch load` gives to a payload: the file's name up to its last dot.
pub fn payload_name(file: &str) -> &str {
    let base = file.rsplit('/').next().unwrap_or(file);
    match base.rfind('.') {
        Some(at) => &base[..at],
        None => base,
    }
}

/// A word for the shell that stands for itself.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./+:@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Reads a script; `file` is what the user called it.
///
/// # Errors
/// `plan-unusable`: a mark without a command, a NUL byte, or no step at all.
pub fn parse_script(file: &str, text: &str) -> Result<Vec<Step>, Problems> {
    let mut steps = Vec::new();
    let mut problems = Problems::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (expect, command) = match (line.strip_prefix('!'), line.strip_prefix('?')) {
            (Some(command), _) => (Expect::Failure, command.trim_start()),
            (_, Some(command)) => (Expect::Anything, command.trim_start()),
            _ => (Expect::Success, line),
        };
        if command.is_empty() || command.contains('\0') {
            let what = "a line of the script has no command that a shell could run";
            problems.push(
                Diagnostic::new(codes::PLAN_UNUSABLE, what)
                    .at(Place::file(file).line(number))
                    .advice("Write one shell command per line; `!` before it expects it to fail."),
            );
            continue;
        }
        steps.push(Step { role: role_of(command), ..Step::run(command).expecting(expect) });
    }
    if steps.is_empty() && problems.0.is_empty() {
        let diagnostic = Diagnostic::new(codes::PLAN_UNUSABLE, "the script has no step")
            .at(Place::file(file))
            .advice("Write one shell command per line.");
        problems.push(diagnostic);
    }
    if problems.0.is_empty() { Ok(steps) } else { Err(problems) }
}

/// What a command of a script is about, as far as its first words tell.
fn role_of(command: &str) -> Role {
    let mut words = command.split_whitespace();
    if words.next() != Some("xen-livepatch") {
        return Role::Run;
    }
    match words.next() {
        Some("load" | "upload" | "apply" | "replace") => Role::Load,
        Some("revert" | "unload") => Role::Unload,
        Some("list") => Role::List,
        _ => Role::Run,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_and_comments() {
        let text =
            "# first\n\n  xen-livepatch load /payloads/a.livepatch  \n!xen-livepatch apply b\n? false\n";
        let steps = parse_script("s", text).expect("a good script");
        let read: Vec<_> = steps.iter().map(|s| (s.command.as_str(), s.expect, s.role)).collect();
        let expected = [
            ("xen-livepatch load /payloads/a.livepatch", Expect::Success, Role::Load),
            ("xen-livepatch apply b", Expect::Failure, Role::Load),
            ("false", Expect::Anything, Role::Run),
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn every_bad_line_is_reported() {
        let problems = parse_script("s", "true\n!\n? \n").expect_err("two bad lines");
        let lines: Vec<_> = problems.0.iter().map(|d| d.place.line).collect();
        assert_eq!(lines, [Some(2), Some(3)]);
        assert!(parse_script("s", "# nothing\n").is_err());
    }

    #[test]
    fn expectations() {
        assert!(Expect::Success.allows(0) && !Expect::Success.allows(1));
        assert!(Expect::Failure.allows(2) && !Expect::Failure.allows(0));
        assert!(Expect::Code(2).allows(2) && !Expect::Code(2).allows(1));
        assert!(Expect::Anything.allows(0) && Expect::Anything.allows(255));
    }

    #[test]
    fn names_as_xen_livepatch_derives_them() {
        assert_eq!(payload_name("xsa1.livepatch"), "xsa1");
        assert_eq!(payload_name("a.b.livepatch"), "a.b");
        assert_eq!(payload_name("plain"), "plain");
        assert_eq!(payload_name("/x.y/z"), "z");
        assert_eq!(
            Step::upload("it's.livepatch").command,
            r"xen-livepatch upload 'it'\''s' '/payloads/it'\''s.livepatch'"
        );
    }
}
