//! What `xsplice verify` says the loader answers is what the booted hypervisor answers, for a payload damaged in one
//! way each.

use std::path::PathBuf;
use std::process::Command;

use fs_err as fs;
use libtest_mimic::{Completion, Failed};
use serde_json::Value;
use xsplice_boot::{BootReport, Expect, Lab, Plan, State, Step};
use xsplice_e2e::{damage, recipes};

use crate::setup::{self, Setup};

/// Xen's error numbers (xen/include/public/errno.h), as xen-livepatch prints them.
const ERRNOS: &[(&str, &str)] = &[
    ("2", "ENOENT"),
    ("12", "ENOMEM"),
    ("17", "EEXIST"),
    ("22", "EINVAL"),
    ("28", "ENOSPC"),
    ("34", "ERANGE"),
    ("75", "EOVERFLOW"),
    ("95", "EOPNOTSUPP"),
];

/// A damaged payload, and what the verifier says of it.
struct Case {
    name: &'static str,
    file: PathBuf,
    /// `accept`, or `ACTION ERRNO`.
    said: String,
    safe: bool,
}

impl Case {
    /// Uploads it, and applies it unless that may kill the host; then takes it away.
    fn command(&self) -> String {
        let name = self.name;
        let apply =
            if self.applies() { format!("&& xen-livepatch apply {name} 2>&1") } else { String::new() };
        format!(
            "xen-livepatch upload {name} /payloads/{name}.livepatch 2>&1 {apply}; \
             xen-livepatch revert {name} >/dev/null 2>&1; xen-livepatch unload {name} >/dev/null 2>&1; true"
        )
    }

    fn applies(&self) -> bool {
        self.said.starts_with("apply ") || self.said == "accept" && self.safe
    }

    /// What Xen answered.
    fn answered(&self, report: &BootReport) -> Result<String, String> {
        let step = report.step(self.name).filter(|step| step.state == State::Ended);
        let text = &step.ok_or_else(|| format!("the step \"{}\" did not end", self.name))?.stdout.text;
        let Some((_, error)) = text.split_once("Error ") else { return Ok("accept".to_owned()) };
        let number = error.split(':').next().unwrap_or_default();
        let errno = ERRNOS.iter().find(|(known, _)| *known == number).map(|(_, name)| *name);
        let errno = errno.ok_or_else(|| format!("{}: an error that is not known: {text}", self.name))?;
        let uploaded =
            text.lines().any(|line| line.starts_with("Uploading ") && line.ends_with(" completed"));
        Ok(format!("{} {errno}", if uploaded { "apply" } else { "upload" }))
    }
}

fn case(setup: &Setup, sound: &[u8], damage: &damage::Damage) -> Result<Case, String> {
    let told = |error: std::io::Error| error.to_string();
    let bytes = damage.of(sound).ok_or_else(|| format!("nothing to damage for {}", damage.name))?;
    let folder = setup.work.join("answers");
    fs::create_dir_all(&folder).map_err(told)?;
    let file = folder.join(format!("{}.livepatch", damage.name));
    fs::write(&file, bytes).map_err(told)?;
    let mut verify = Command::new(&setup.xsplice);
    verify.arg("verify").arg(&file).arg("--xen-syms").arg(&setup.debian.xen_syms).arg("--json");
    let output = verify.output().map_err(told)?;
    let report: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{}: {error}: {}", damage.name, String::from_utf8_lossy(&output.stderr)))?;
    if report["xen_version"]["source"] != "symbol-file" {
        return Err(format!("the version was not read: {}", report["xen_version"]));
    }
    let loader = &report["loader"];
    let part = |key: &str| loader[key].as_str().unwrap_or_default().to_owned();
    let said = match part("answer").as_str() {
        "reject" => format!("{} {}", part("at"), part("errno")),
        other => other.to_owned(),
    };
    Ok(Case { name: damage.name, file, said, safe: report["safe"]["answer"] == "yes" })
}

fn all(setup: &Setup) -> Result<(), String> {
    let sound = setup.payload(&recipes::STATIC)?.bytes()?;
    let cases: Vec<Case> =
        damage::ALL.iter().map(|damage| case(setup, &sound, damage)).collect::<Result<_, _>>()?;
    let files: Vec<PathBuf> = cases.iter().map(|case| case.file.clone()).collect();
    let steps = cases
        .iter()
        .map(|case| Step::run(&case.command()).named(case.name).expecting(Expect::Anything))
        .collect();
    let lab = Lab::new(&setup.debian.boot(), &setup.cache);
    let report =
        lab.boot(&Plan::script(&files, steps), &|_| {}).map_err(|problems| format!("{problems:?}"))?;
    let mut wrong = Vec::new();
    for case in &cases {
        let answered = case.answered(&report)?;
        // Nothing is asked of a host that an apply may kill.
        if answered != case.said {
            wrong.push(format!("{}: Xen says {answered}, and xsplice says {}", case.name, case.said));
        }
    }
    if !cases.iter().any(|case| case.name == "sound" && case.said == "accept" && case.safe) {
        wrong.push("the sound payload is not accepted and safe".to_owned());
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

pub fn loader() -> Result<Completion, Failed> {
    setup::with(all)
}
