//! What `xsplice build` does: plan, build, then the stages that it shares with `xsplice diff`.

use std::collections::BTreeSet;

use memchr::memmem::Finder;
use rayon::prelude::*;
use xsplice_build::{BaseObject, CapturedBuild, CapturedObject, Planned, Request};
use xsplice_diff::{InitChange, Input, Loader, ObjectPair};
use xsplice_link::{FuncsLayout, Ids, Metadata};
use xsplice_objects::{HookKind, Hypervisor, Object};
use xsplice_report::{Diagnostic, Outcome, Problems};

use crate::args::ProveBase;
use crate::codes;
use crate::inputs::{self, Inputs, Symbols};
use crate::object_folder::{self, Untouched};
use crate::pause;
use crate::progress::Progress;
use crate::prove;
use crate::report::Report;
use crate::stages::{self, Host, Verified, Wanted};

/// From a resolved command line to a verified payload; `None` where there is nothing to patch. What is found on
/// the way goes into the report, whatever the outcome.
pub(crate) fn run(
    inputs: &Inputs,
    request: Request,
    progress: &Progress,
    report: &mut Report,
) -> Result<Option<Verified>, Problems> {
    pause::at("plan");
    let plan = match xsplice_build::plan(request)? {
        Planned::Build(plan) => *plan,
        Planned::Nothing(nothing) => {
            report.nothing = nothing.touched.iter().map(|f| format!("{}: {}", f.path, f.reason)).collect();
            report.touched = nothing.touched;
            report.findings.problems.extend(nothing.warnings);
            xsplice_diff::allow(&mut report.findings.problems, &inputs.allowed);
            return Ok(None);
        }
    };
    report.touched = plan.touched().to_vec();
    report.compiler = plan.compiler().to_owned();
    let refusals = plan.public_constants();
    pause::at("build");
    let captured = xsplice_build::build(plan, progress)?;
    note_build(&captured, report);
    if let Some(named) = inputs.symbols.as_ref().and_then(|shipped| compiler_in_code(&shipped.hypervisor)) {
        report.findings.problems.extend(other_compiler(&named, &captured.compiler));
    }
    let symbols = symbols(inputs, &captured)?;
    let symbols = symbols.as_ref().or(inputs.symbols.as_ref());
    progress.say("comparing objects");
    let objects: Vec<Input<'_>> = captured.objects.iter().filter(|o| is_compared(o)).map(input).collect();
    let host = symbols.map(|symbols| Host {
        symbols,
        below: &inputs.below,
        loader: loader(&captured),
        whole: true,
        no_expectations: inputs.no_expectations,
        refusals,
        payload: Some(wanted(inputs, &captured, report)),
    });
    let others = inputs.keep_objects.is_some().then(Untouched::default);
    let rest = |names: &BTreeSet<String>| untouched(&captured, names, others.as_ref(), progress);
    if let (Some(host), ProveBase::All) = (&host, inputs.prove_base) {
        progress.say("comparing the original with the shipped hypervisor");
        prove::all(&captured, host, &mut report.findings)?;
    }
    let verified = stages::run(&objects, &rest, host.as_ref(), &inputs.allowed, &mut report.findings)
        .map_err(|problems| prove::blame_configuration(problems, &captured, host.as_ref()))?;
    if host.is_none() {
        return Err(no_symbols());
    }
    if let (Some(folder), Some(others)) = (&inputs.keep_objects, &others) {
        let named = report.findings.pieces.iter().map(|piece| piece.object.as_str()).collect();
        object_folder::write(folder, &captured, others, &named)?;
    }
    if verified.is_none() {
        report.nothing = nothing_because(report);
    }
    Ok(verified)
}

/// The private build's own symbols, where the user has none of the shipped hypervisor.
fn symbols(inputs: &Inputs, captured: &CapturedBuild) -> Result<Option<Symbols>, Problems> {
    match (&inputs.symbols, &captured.built_xen_syms) {
        (None, Some(path)) => inputs::read_symbols(path.clone()).map(Some),
        _ => Ok(None),
    }
}

fn no_symbols() -> Problems {
    xsplice_report::Diagnostic::new(
        codes::ID_NEEDED,
        "there is no symbol file, and the private build made none",
    )
    .advice("Give the shipped hypervisor's symbol file with --xen-syms.")
    .into()
}

/// What the tree's own loader does.
fn loader(captured: &CapturedBuild) -> Loader {
    Loader {
        hooks: captured.loader.hooks.iter().filter_map(|name| HookKind::named(name)).collect(),
        needs_functions: captured.funcs_layout.version < 2,
        tables_from_upload: captured.loader.tables_from_upload,
    }
}

/// Whether an object is part of the hypervisor after boot: 32-bit code runs before it.
pub(crate) fn is_compared(object: &CapturedObject) -> bool {
    let bit_32 = |bytes: &Option<Vec<u8>>| bytes.as_deref().is_some_and(Object::is_32_bit);
    object.linked && !bit_32(&object.base) && !bit_32(&object.patched)
}

fn input(object: &CapturedObject) -> Input<'_> {
    Input {
        path: &object.path,
        source: &object.source,
        assembler: object.assembler,
        base: object.base.as_deref(),
        patched: object.patched.as_deref(),
    }
}

/// The objects of the hypervisor that hold any of the names, as the original build made them.
fn untouched(
    captured: &CapturedBuild,
    names: &BTreeSet<String>,
    keep: Option<&Untouched>,
    progress: &Progress,
) -> Result<Vec<ObjectPair>, Problems> {
    let kept = captured.users_of(names, progress)?;
    let finders: Vec<Finder<'_>> = names.iter().map(Finder::new).collect();
    let changed: BTreeSet<&str> = captured.objects.iter().map(|object| object.path.as_str()).collect();
    let objects: Vec<&BaseObject> = kept
        .list()
        .iter()
        .filter(|object| object.linked && !changed.contains(object.path.as_str()))
        .collect();
    let parsed: Vec<_> = objects
        .par_iter()
        .filter_map(|object| {
            let bytes = match kept.read(&object.path) {
                Ok(bytes) => bytes,
                Err(problem) => return Some(Err(problem.into())),
            };
            let holds = finders.iter().any(|finder| finder.find(&bytes).is_some());
            let input = Input {
                path: &object.path,
                source: &object.source,
                assembler: object.assembler,
                base: Some(&bytes),
                patched: Some(&bytes),
            };
            let wanted = holds && !Object::is_32_bit(&bytes);
            if let Some(kept) = keep.filter(|_| wanted) {
                kept.keep(&object.path, &bytes);
            }
            wanted.then(|| ObjectPair::parse(input))
        })
        .collect();
    Problems::collect(parsed)
}

fn wanted(inputs: &Inputs, captured: &CapturedBuild, report: &Report) -> Wanted {
    let funcs = &captured.funcs_layout;
    let funcs = FuncsLayout {
        version: funcs.version,
        size: funcs.size,
        name: funcs.name,
        new_addr: funcs.new_addr,
        old_addr: funcs.old_addr,
        new_size: funcs.new_size,
        old_size: funcs.old_size,
        version_at: funcs.version_offset,
        expect: funcs.expect,
    };
    let ids = Ids {
        depends: inputs.depends.clone().unwrap_or_default(),
        xen_depends: inputs.xen_depends.clone().unwrap_or_default(),
    };
    // Only base names: where the files lay must not reach the payload.
    let base = |patch: &String| patch.rsplit('/').next().unwrap_or(patch).to_owned();
    let patches: Vec<String> = report.patches.iter().map(base).collect();
    let metadata: Metadata =
        vec![("tool".to_owned(), report.tool.clone()), ("patch".to_owned(), patches.join(" "))];
    Wanted { name: inputs.name.clone(), ids, funcs, metadata }
}

fn note_build(captured: &CapturedBuild, report: &mut Report) {
    report.touched.clone_from(&captured.touched);
    report.config_changes.clone_from(&captured.config_changes);
    report.line_numbers.clone_from(&captured.line_numbers);
    report.built = Some(captured.way.clone());
    report.original = Some(captured.original.clone());
    report.build_system = Some(captured.build_system);
    report.compiler.clone_from(&captured.compiler);
    report.metadata.clone_from(&captured.metadata);
    report.findings.problems.extend(captured.warnings.clone());
    for object in captured.objects.iter().filter(|object| !is_compared(object)) {
        report.findings.init_changes.push(InitChange {
            object: object.path.clone(),
            name: object.source.clone(),
            what: "not part of the hypervisor that runs after boot".into(),
        });
    }
}

/// The compiler that a hypervisor names in its code, where it has no `.comment` to compare objects with.
fn compiler_in_code(shipped: &Hypervisor) -> Option<String> {
    shipped.returned_texts().remove("xen_compiler").filter(|_| shipped.compilers().is_empty())
}

/// Whether two compilers say of themselves (`--version`) that they are different ones.
fn other_compiler(shipped: &str, used: &str) -> Option<Diagnostic> {
    // The first word is the name by which it was called.
    let version = |text: &str| text.split_once(' ').map_or(text, |(_, rest)| rest).trim().to_owned();
    (version(shipped) != version(used)).then(|| {
        Diagnostic::new(
            xsplice_diff::codes::OTHER_COMPILER,
            format!("the objects were made by {used}, and the shipped hypervisor by {shipped}"),
        )
        .why("Functions of the touched objects are compared with the shipped ones; what another compiler made of the rest is not known.")
        .advice("Install the compiler of the shipped build, and choose it with --cc.")
    })
}

/// For each touched file why it leaves nothing to patch.
fn nothing_because(report: &Report) -> Vec<String> {
    let findings = &report.findings;
    let init = |object: &str| findings.init_changes.iter().any(|change| change.object == object);
    report
        .touched
        .iter()
        .map(|file| {
            let reason = if !file.reason.is_empty() {
                file.reason.to_owned()
            } else if file.objects.is_empty() {
                "no object of this configuration reads it, or only comments changed".to_owned()
            } else if file.objects.iter().any(|object| init(object)) {
                "only boot code or boot data changed: takes effect at the next boot".to_owned()
            } else if findings.compared.iter().any(|path| file.objects.contains(path)) {
                "its objects mean the same before and after".to_owned()
            } else {
                "comments only: its objects are the same before and after".to_owned()
            };
            format!("{}: {reason}", file.path)
        })
        .collect()
}

/// How a run without a payload ends.
pub(crate) fn end_of(problems: &Problems) -> Outcome {
    match problems.outcome() {
        Outcome::Done => Outcome::Failed,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compilers_are_told_apart_by_more_than_their_names() {
        let debian = "x86_64-linux-gnu-gcc (Debian 12.2.0-14+deb12u1) 12.2.0";
        assert_eq!(other_compiler(debian, "gcc (Debian 12.2.0-14+deb12u1) 12.2.0"), None);
        let problem = other_compiler(debian, "gcc (Debian 12.2.0-14) 12.2.0").unwrap();
        assert_eq!(problem.code, xsplice_diff::codes::OTHER_COMPILER);
        assert!(problem.what.contains(debian) && problem.advice.contains("--cc"), "{problem:?}");
    }
}
