//! The note that goes with a payload to the host: what it is, how it is loaded and taken away, and what Xen's answers
//! mean there.
//!
//! Plain text from the report's data alone, so that the same report gives the same bytes. What it says of Xen is in
//! xen/common/livepatch.c (`livepatch_action`, `schedule_work`, `livepatch_spin`) and tools/misc/xen-livepatch.c, the
//! same from 4.14 to 4.22 and but for expectations and most hooks in 4.13.

use std::fmt::Write as _;

use xsplice_diff::{Expectation, Replacement};
use xsplice_objects::HookKind;

use crate::report::{Findings, PayloadFacts, Report};

/// The note; `None` where there is no payload.
pub(crate) fn render(report: &Report) -> Option<String> {
    let payload = report.payload.as_ref()?;
    let note = Note { name: &report.name, payload, findings: &report.findings };
    let patches: Vec<&str> = report.patches.iter().map(|patch| base_name(patch)).collect();
    let mut text = format!("{}: live patch for the Xen hypervisor\n", payload.file);
    let _ = writeln!(text, "Made by {} from {}.", report.tool, patches.join(", "));
    let sections = [
        ("What it changes", note.changes()),
        ("What it is for", note.ids()),
        ("Loading", note.loading()),
        ("If Xen says no", note.answers()),
        ("Taking it away", note.reverting()),
        ("What waits for the next boot", note.next_boot()),
    ];
    for (title, lines) in sections {
        let _ = write!(text, "\n{title}\n{}\n", "-".repeat(title.len()));
        for line in lines {
            text.push_str(&line);
            text.push('\n');
        }
    }
    Some(text)
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

struct Note<'r> {
    name: &'r str,
    payload: &'r PayloadFacts,
    findings: &'r Findings,
}

impl Note<'_> {
    /// Whether it stands on the hypervisor itself.
    fn is_first(&self) -> bool {
        self.payload.depends == self.payload.xen_depends
    }

    /// Whether it has a hook that may say no, or one that belongs to such a hook: Xen then does no REPLACE.
    fn has_vetoing_hooks(&self) -> bool {
        let vetoing = [HookKind::PreApply, HookKind::PostApply, HookKind::PreRevert, HookKind::PostRevert];
        self.findings.hooks.iter().any(|hook| vetoing.contains(&hook.kind))
    }

    fn expects(&self) -> bool {
        self.findings.functions.iter().any(expects)
    }

    fn changes(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.findings.functions.is_empty() {
            lines.push("Functions that it replaces, with their size in bytes before and after:".to_owned());
        }
        for function in &self.findings.functions {
            let (name, old, new) = (&function.name, function.old_size, function.new_size);
            let place = function.place.file.as_deref().unwrap_or(&function.object);
            lines.push(format!("    {name} ({place}): {old}, {new}"));
        }
        if !self.findings.new_functions.is_empty() {
            lines.push("Functions that it brings:".to_owned());
            lines.extend(self.findings.new_functions.iter().map(|function| format!("    {}", function.name)));
        }
        if !self.findings.hooks.is_empty() {
            lines.push("Functions that Xen calls when it loads, applies, reverts or unloads it:".to_owned());
        }
        lines.extend(self.findings.hooks.iter().map(|hook| {
            let (kind, function, object) = (hook.kind.name(), &hook.function, &hook.object);
            format!("    {kind}: {function} ({object})")
        }));
        lines
    }

    fn ids(&self) -> Vec<String> {
        let payload = self.payload;
        let mut lines = vec![
            format!("Hypervisor:    {}", payload.xen_depends),
            format!("Stands on:     {}", payload.depends),
            format!("Its own id:    {}", payload.build_id),
            "`xl info` shows the id of the hypervisor that runs as build_id. On any other one Xen refuses the".to_owned(),
            "payload.".to_owned(),
        ];
        if self.is_first() {
            lines.extend(texts(&[
                "It stands on the hypervisor itself, so it is the first to be applied. Others can be built to stand",
                "on it, by its own id.",
            ]));
        } else {
            lines.extend(texts(&[
                "It stands on another payload, which must be the last one that was applied. `xsplice inspect` shows",
                "the id of a payload's file.",
            ]));
        }
        lines
    }

    fn loading(&self) -> Vec<String> {
        let (name, file) = (self.name, &self.payload.file);
        let mut lines = vec!["As root in the control domain:".to_owned()];
        if !self.is_first() {
            lines.push(format!("    (load the payload with the id {} first)", self.payload.depends));
        }
        lines.push(format!("    xen-livepatch load {file}"));
        lines.push("or in two steps, of which only the second one changes what runs:".to_owned());
        lines.push(format!("    xen-livepatch upload {name} {file}"));
        lines.push(format!("    xen-livepatch apply {name}"));
        lines.push("`xen-livepatch list` then shows it as APPLIED.".to_owned());
        if self.is_first() && !self.has_vetoing_hooks() {
            lines.push(
                "Where other payloads are applied, this puts it in the place of all of them:".to_owned(),
            );
            lines.push(format!("    xen-livepatch upload {name} {file}"));
            lines.push(format!("    xen-livepatch replace {name}"));
            if self.expects() {
                lines.extend(texts(&[
                    "Xen looks at the code that it replaces only when the others are reverted. If that is not what was",
                    "shipped, the host is left without any of them: apply them again, in their order.",
                ]));
            }
        } else if !self.is_first() {
            lines.push("It cannot take the place of others by `xen-livepatch replace`.".to_owned());
        }
        lines.push("Do not use --nodeps: it applies a payload to what it was not built for.".to_owned());
        lines
    }

    fn answers(&self) -> Vec<String> {
        let name = self.name;
        let mut lines = texts(&[
            "After an error of load, apply or revert, what ran before goes on. `xl dmesg` shows Xen's reason.",
            "Error 16 (EBUSY, Device or resource busy): not now. One of",
            "  - \"Timed out on semaphore\": the processors did not all stop within 30 ms. Try again, best while the",
            "    host has less to do.",
            "  - \"found with active waitqueue\": a virtual processor waits for a monitor, paging or sharing program.",
            "    End that program or let it catch up, then try again.",
            "  - \"unable to get cpu_maps lock\", or nothing: processors come or go, or another action is under way.",
            "    Try again.",
        ]);
        lines.push(format!(
            "  After `load`, try `load` again; after `upload`, only `apply`: `xen-livepatch apply {name}`."
        ));
        lines.extend(texts(&[
            "\"Operation didn't complete.\": the tool waits 60 ms. `xen-livepatch list` shows whether it was applied after",
            "  all; if not, try again.",
            "Error 22 (EINVAL, Invalid argument): it is not for what runs. One of",
            "  - \"check against ... build-id failed\": another hypervisor, or not the payload that it stands on was",
            "    applied last.",
        ]));
        if self.expects() {
            lines.extend(texts(&[
                "  - \"expectation failed\": the code of a function is not what was shipped. Another live patch changed it, or",
                "    a fault did; find out before anything is tried again.",
            ]));
        }
        if self.findings.hooks.iter().any(|hook| hook.kind == HookKind::PreApply) {
            lines.push(
                "Any other number at apply may come from the payload's preapply hook, which may say no."
                    .to_owned(),
            );
        }
        lines.extend(texts(&[
            "Error 17 (EEXIST, File exists): it is uploaded already, or a payload of that name or with the same new names",
            "  is: `xen-livepatch list`.",
            "Error 2 (ENOENT): the host has no payload of that name, or at upload lacks a symbol that the payload needs.",
        ]));
        lines
    }

    fn reverting(&self) -> Vec<String> {
        let (name, file) = (self.name, &self.payload.file);
        let mut lines = vec![
            "Payloads that were applied after it have to go first, the last one first. Then:".to_owned(),
            format!("    xen-livepatch revert {name}"),
            format!("    xen-livepatch unload {name}"),
            "Error 16 (EBUSY) means what it means above, or that another payload was applied after it."
                .to_owned(),
        ];
        if self.is_reapplicable() {
            lines.push("Once reverted it can be applied again, as long as it is not unloaded:".to_owned());
            lines.push(format!("    xen-livepatch apply {name}"));
        } else {
            lines.extend(texts(&[
                "Once reverted it cannot be applied again: it has variables, which keep what they hold. Unload it, and load",
                "it again:",
            ]));
            lines.push(format!("    xen-livepatch unload {name}"));
            lines.push(format!("    xen-livepatch load {file}"));
        }
        lines
    }

    /// Whether the list of functions is all that is writable in it (`move_payload`), as the verifier saw it.
    fn is_reapplicable(&self) -> bool {
        let code = xsplice_verify::codes::NOT_REAPPLICABLE;
        !self.findings.problems.0.iter().any(|problem| problem.code == code)
    }

    fn next_boot(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.findings.init_changes.is_empty() {
            lines.push("Nothing of the change is code or data that only boot uses.".to_owned());
        } else {
            lines.push(
                "These parts of the change are used at boot only, and are not in the payload:".to_owned(),
            );
        }
        lines.extend(self.findings.init_changes.iter().map(|change| {
            let (name, object, what) = (&change.name, &change.object, &change.what);
            format!("    {name} ({object}): {what}")
        }));
        lines.extend(texts(&[
            "A boot ends every live patch: boot a hypervisor that has the change, or load the payload again if it is",
            "the same hypervisor.",
        ]));
        lines
    }
}

fn expects(function: &Replacement) -> bool {
    matches!(function.expectation, Expectation::Bytes(_))
}

fn texts(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|&line| line.to_owned()).collect()
}

#[cfg(test)]
#[path = "host_note_tests.rs"]
mod tests;
