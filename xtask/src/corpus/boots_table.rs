//! The table of the booted payloads. It has nothing that another machine would have otherwise: no times, no paths.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::boots::{Booted, Course};
use super::kinds::{self, Candidate, Kind};

/// The whole document. `all` are the payloads that could have been booted, `wanted` is how many were to be.
pub(crate) fn document(
    all: &[Candidate],
    booted: &[Booted],
    wanted: usize,
    left_out: &BTreeSet<Kind>,
) -> String {
    let mut text = String::new();
    let good = booted.iter().filter(|booted| booted.course.complaint.is_none()).count();
    let _ = writeln!(
        text,
        "# {} payloads of real patches in Debian's hypervisor\n\n\
         Made by `cargo xtask corpus --xen-git DIR --boot {wanted}`.\n\n\
         Of the {} payloads that the corpus gives (corpus.md), these are chosen so that each kind of code and data\n\
         is there, with as few as possible, and then spread over the list. Each was uploaded, applied, reverted and\n\
         unloaded in Xen 4.17.5+72 as Debian ships it, in QEMU, up to five one after the other in a boot. After each of\n\
         these steps the hypervisor must list the payload in the state that belongs to it; while it is applied, the\n\
         control domain goes on working; and the console must have no other line than those that the loader writes when\n\
         all is well.\n",
        booted.len(),
        all.len(),
    );
    let _ = writeln!(text, "{good} of {} went that way, {} did not.\n", booted.len(), booted.len() - good);
    text.push_str("| | commit | bytes | functions | course | kinds |\n|---|---|---|---|---|---|\n");
    for booted in booted {
        let _ = writeln!(text, "{}", row(booted));
    }
    text.push_str("\n## Kinds\n\n| kind | payloads | booted |\n|---|---|---|\n");
    let (there, shown) = (kinds::count(all), kinds::count(booted.iter().map(|booted| &booted.candidate)));
    let none: Vec<&str> =
        there.iter().filter(|(_, count)| **count == 0).map(|(kind, _)| kind.text()).collect();
    for (kind, count) in there.iter().filter(|(_, count)| **count > 0) {
        let _ = writeln!(text, "| {} | {count} | {} |", kind.text(), shown.get(kind).unwrap_or(&0));
    }
    if !none.is_empty() {
        let _ = writeln!(text, "\nNo payload of the corpus has: {}.", none.join(", "));
    }
    if !left_out.is_empty() {
        let names: Vec<&str> = left_out.iter().map(|kind| kind.text()).collect();
        let _ = writeln!(text, "\nNot booted, for lack of places: {}.", names.join(", "));
    }
    text.push_str(&failures(booted));
    text
}

fn row(booted: &Booted) -> String {
    let Booted { candidate, course } = booted;
    let kinds: Vec<&str> = candidate.kinds.iter().map(|kind| kind.text()).collect();
    let (number, commit) = (candidate.entry.number, candidate.entry.short());
    let (bytes, functions) = (candidate.bytes, candidate.functions);
    format!("| {number} | {commit} | {bytes} | {functions} | {} | {} |", steps(course), kinds.join(", "))
}

/// How far it came, in words.
fn steps(course: &Course) -> String {
    let steps = [(course.applied, "applied"), (course.reverted, "reverted"), (course.unloaded, "unloaded")];
    let mut words: Vec<&str> = steps.into_iter().filter_map(|(there, word)| there.then_some(word)).collect();
    words.extend(course.complaint.is_some().then_some("**failed**"));
    words.join(", ")
}

fn failures(booted: &[Booted]) -> String {
    let mut text = String::new();
    for booted in booted {
        let Some(complaint) = &booted.course.complaint else { continue };
        if text.is_empty() {
            text.push_str("\n## What failed\n");
        }
        let _ = writeln!(text, "\n### {}\n\n{complaint}\n", booted.candidate.entry.name());
        for line in &booted.course.console {
            let _ = writeln!(text, "    {line}");
        }
    }
    text
}

/// One line for people who wait; none for a payload whose turn did not come.
pub(crate) fn line(course: Option<&Course>) -> String {
    match course {
        None => "did not have its turn".to_owned(),
        Some(course) => match &course.complaint {
            None => steps(course),
            Some(complaint) => format!("{}: {complaint}", steps(course).replace('*', "")),
        },
    }
}
