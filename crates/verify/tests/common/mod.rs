//! A small ELF64 writer, a payload that is sound, and a hypervisor that it is for.

#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses a part of it")]

pub mod elf;
pub mod sample;
pub mod twins;

use xsplice_report::Code;
use xsplice_verify::{Verdict, VerifyInput, verify};

/// Verifies a payload for the sample hypervisor.
pub fn judge(payload: &[u8]) -> Verdict {
    let xen = sample::xen().write();
    verify(&VerifyInput { payload, name: "sample", xen_syms: Some(&xen), ..VerifyInput::default() })
}

/// The codes of a verdict, each once, in order of name.
pub fn names(verdict: &Verdict) -> Vec<&'static str> {
    let mut names: Vec<_> = verdict.problems.0.iter().map(|d| d.code.name).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The sample payload with a change must give just these codes.
#[track_caller]
pub fn gives(codes: &[Code], change: impl FnOnce(&mut elf::Elf)) {
    let mut payload = sample::payload();
    change(&mut payload);
    says(codes, &judge(&payload.write()));
}

/// A verdict must give just these codes, and say where fitting what to do.
#[track_caller]
pub fn says(codes: &[Code], verdict: &Verdict) {
    let mut wanted: Vec<_> = codes.iter().map(|c| c.name).collect();
    wanted.sort_unstable();
    assert_eq!(names(verdict), wanted, "{:#?}", verdict.problems);
    for problem in &verdict.problems.0 {
        assert!(!problem.why.is_empty() && !problem.advice.is_empty(), "{problem:?}");
        assert!(!problem.what.ends_with('.'), "{problem:?}");
        let first = problem.what.chars().next().unwrap();
        assert!(!first.is_uppercase() || problem.what.starts_with("Xen") || problem.what.starts_with("NOP"));
    }
    let harmless = codes.iter().all(|c| c.kind == xsplice_report::Kind::Warning);
    assert_eq!(verdict.is_accepted(), harmless);
}
