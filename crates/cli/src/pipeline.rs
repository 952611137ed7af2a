//! The pipeline: plan, build, parse, correlate, compare, select, check, link, verify.
//!
//! Each stage takes the value of the one before it. A stage cannot be left out, since its type has no other
//! constructor: only a [`Patchable`] can be linked, and only a [`Verified`] payload can be written.

use std::collections::BTreeSet;

use memchr::memmem::Finder;
use rayon::prelude::*;
use xsplice_build::{BaseObject, CapturedBuild, CapturedObject, Planned, Request};
use xsplice_diff::{Compared, Correlated, InitChange, Input, ObjectPair, Parts, Patchable, Selection, World};
use xsplice_link::{FuncsLayout, Ids, PayloadImage};
use xsplice_objects::Object;
use xsplice_report::{Outcome, Problems};
use xsplice_verify::{Facts, VerifyInput};

use crate::inputs::{self, Inputs, Symbols};
use crate::pause;
use crate::progress::Progress;
use crate::report::{NewFunction, PieceFacts, RemovedFunction, Report};

/// A payload that the verifier accepts. Made by [`verify`] only.
pub(crate) struct Verified {
    image: PayloadImage,
    facts: Facts,
}

impl Verified {
    /// The bytes of the file.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.image.bytes()
    }

    /// Its own build-id.
    pub(crate) fn build_id(&self) -> &[u8] {
        self.image.build_id()
    }

    /// What was verified.
    pub(crate) fn facts(&self) -> Facts {
        self.facts
    }
}

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
            return Ok(None);
        }
    };
    report.touched = plan.touched().to_vec();
    report.compiler = plan.compiler().to_owned();
    pause::at("build");
    let captured = xsplice_build::build(plan, progress)?;
    note_build(&captured, report);
    let symbols = symbols(inputs, &captured)?;
    let symbols = symbols.as_ref().or(inputs.symbols.as_ref());
    progress.say("comparing objects");
    pause::at("parse");
    let mut pairs = parse(&captured)?;
    xsplice_diff::add_users(&mut pairs, |names| untouched(&captured, names))?;
    pause::at("correlate");
    let parts: Vec<Parts<'_>> = collect(pairs.par_iter().map(Parts::of).collect())?;
    let correlated: Vec<Correlated<'_>> = parts.par_iter().map(Correlated::of).collect();
    pause::at("compare");
    let compared: Vec<Compared<'_>> = Compared::all(correlated);
    report.compared = pairs.iter().map(|pair| pair.path.clone()).collect();
    note_changes(&captured, &compared, report);
    pause::at("select");
    let Some(symbols) = symbols else { return Err(no_symbols()) };
    let world = World {
        hypervisor: &symbols.hypervisor,
        exported: &inputs.below.exported,
        replaced: &inputs.below.replaced,
    };
    let selection = Selection::of(&compared, &world);
    note_selection(&selection, report);
    pause::at("check");
    let nothing = selection.replaced.is_empty();
    let patchable = Patchable::check(selection, &parts, &world)?;
    report.problems.extend(patchable.warnings().clone());
    if nothing {
        report.nothing = nothing_because(report, &compared);
        return Ok(None);
    }
    report.functions = patchable.functions().to_vec();
    pause::at("link");
    let image = link(inputs, &captured, &patchable, report);
    pause::at("verify");
    verify(inputs, symbols, &captured, image, report).map(Some)
}

fn collect<T>(results: Vec<Result<T, Problems>>) -> Result<Vec<T>, Problems> {
    let mut problems = Problems::new();
    let mut values = Vec::new();
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err(more) => problems.extend(more),
        }
    }
    if problems.0.is_empty() { Ok(values) } else { Err(problems) }
}

/// The private build's own symbols, where the user has none of the shipped hypervisor.
fn symbols(inputs: &Inputs, captured: &CapturedBuild) -> Result<Option<Symbols>, Problems> {
    match (&inputs.symbols, &captured.built_xen_syms) {
        (None, Some(path)) => inputs::built_symbols(path).map(Some),
        _ => Ok(None),
    }
}

fn no_symbols() -> Problems {
    xsplice_report::Diagnostic::new(
        inputs::ID_NEEDED,
        "there is no symbol file, and the private build made none",
    )
    .advice("Give the shipped hypervisor's symbol file with --xen-syms.")
    .into()
}

/// Whether an object is part of the hypervisor after boot: 32-bit code runs before it.
fn is_compared(object: &CapturedObject) -> bool {
    let bit_32 = |bytes: &Option<Vec<u8>>| bytes.as_deref().is_some_and(Object::is_32_bit);
    object.linked && !bit_32(&object.base) && !bit_32(&object.patched)
}

fn parse(captured: &CapturedBuild) -> Result<Vec<ObjectPair>, Problems> {
    let objects: Vec<&CapturedObject> =
        captured.objects.iter().filter(|object| is_compared(object)).collect();
    let parsed = objects
        .par_iter()
        .map(|object| {
            ObjectPair::parse(Input {
                path: &object.path,
                source: &object.source,
                assembler: object.assembler,
                base: object.base.as_deref(),
                patched: object.patched.as_deref(),
            })
        })
        .collect();
    collect(parsed)
}

/// The objects of the hypervisor that hold any of the names, as the original build made them.
fn untouched(captured: &CapturedBuild, names: &BTreeSet<String>) -> Result<Vec<ObjectPair>, Problems> {
    let finders: Vec<Finder<'_>> = names.iter().map(Finder::new).collect();
    let changed: BTreeSet<&str> = captured.objects.iter().map(|object| object.path.as_str()).collect();
    let objects: Vec<&BaseObject> = captured
        .base_objects
        .list()
        .iter()
        .filter(|object| object.linked && !changed.contains(object.path.as_str()))
        .collect();
    let parsed = objects
        .par_iter()
        .filter_map(|object| {
            let bytes = match captured.base_objects.read(&object.path) {
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
            (holds && !Object::is_32_bit(&bytes)).then(|| ObjectPair::parse(input))
        })
        .collect();
    collect(parsed)
}

fn link(inputs: &Inputs, captured: &CapturedBuild, patchable: &Patchable, report: &Report) -> PayloadImage {
    let funcs = &captured.funcs_layout;
    let funcs = FuncsLayout {
        version: funcs.version,
        size: funcs.size,
        name: funcs.name,
        new_addr: funcs.new_addr,
        new_size: funcs.new_size,
        old_size: funcs.old_size,
        version_at: funcs.version_offset,
    };
    let ids = Ids {
        depends: inputs.depends.clone().unwrap_or_default(),
        xen_depends: inputs.xen_depends.clone().unwrap_or_default(),
    };
    // Only base names: where the files lay must not reach the payload.
    let base = |patch: &String| patch.rsplit('/').next().unwrap_or(patch).to_owned();
    let patches: Vec<String> = report.patches.iter().map(base).collect();
    let metadata = vec![("tool".to_owned(), report.tool.clone()), ("patch".to_owned(), patches.join(" "))];
    PayloadImage::link(patchable, &funcs, &ids, &metadata)
}

fn verify(
    inputs: &Inputs,
    symbols: &Symbols,
    captured: &CapturedBuild,
    image: PayloadImage,
    report: &mut Report,
) -> Result<Verified, Problems> {
    let below: Vec<&[u8]> = inputs.below.bytes.iter().map(Vec::as_slice).collect();
    let verdict = xsplice_verify::verify(&VerifyInput {
        payload: image.bytes(),
        name: &inputs.name,
        xen_syms: Some(&symbols.bytes),
        below: &below,
        xen_build_id: inputs.xen_depends.clone(),
        depends: inputs.depends.clone(),
        funcs_version: Some(captured.funcs_layout.version),
        funcs_size: Some(captured.funcs_layout.size),
    });
    if !verdict.is_accepted() {
        return Err(verdict.problems);
    }
    report.problems.extend(verdict.problems);
    Ok(Verified { image, facts: verdict.facts })
}

fn note_build(captured: &CapturedBuild, report: &mut Report) {
    report.touched.clone_from(&captured.touched);
    report.config_changes.clone_from(&captured.config_changes);
    report.compiler.clone_from(&captured.compiler);
    report.problems.extend(captured.warnings.clone());
}

fn note_changes(captured: &CapturedBuild, compared: &[Compared<'_>], report: &mut Report) {
    for object in captured.objects.iter().filter(|object| !is_compared(object)) {
        report.init_changes.push(InitChange {
            object: object.path.clone(),
            name: object.source.clone(),
            what: "not part of the hypervisor that runs after boot".into(),
        });
    }
    for pair in compared {
        report.init_changes.extend(pair.init.clone());
    }
    report.init_changes.sort();
}

fn note_selection(selection: &Selection, report: &mut Report) {
    report.needs = selection.needs.iter().cloned().collect();
    report.new_functions = selection
        .new_functions
        .iter()
        .map(|(name, place)| NewFunction { name: name.clone(), place: place.clone() })
        .collect();
    report.removed_functions = selection
        .removed
        .iter()
        .map(|(object, name)| RemovedFunction { name: name.clone(), object: object.clone() })
        .collect();
    report.pieces = selection
        .pieces
        .iter()
        .map(|piece| PieceFacts {
            kind: piece.kind,
            label: piece.label.clone(),
            object: piece.object.clone(),
            size: piece.bytes.len() as u64,
            because: piece.because.clone(),
        })
        .collect();
}

/// For each touched file why it leaves nothing to patch.
fn nothing_because(report: &Report, compared: &[Compared<'_>]) -> Vec<String> {
    let init = |object: &str| report.init_changes.iter().any(|change| change.object == object);
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
            } else if compared.iter().any(|pair| file.objects.contains(&pair.correlated.parts.pair.path)) {
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
