//! The stages from parse to verify, which `build` and `diff` share.
//!
//! Each takes the value of the one before it. A stage cannot be left out, since its type has no other constructor:
//! only a [`Patchable`] can be linked, and only a [`Verified`] payload can be written.

use std::collections::BTreeSet;

use rayon::prelude::*;
use xsplice_diff::{
    Changes, Compared, Correlated, Input, LeftOut, Loader, ObjectPair, Parts, Patchable, Selection, World,
    layout_problems,
};
use xsplice_link::{FuncsLayout, Ids, Metadata, PayloadImage};
use xsplice_report::{Allowance, Problems};
use xsplice_verify::{Facts, PatchedObject, VerifyInput};

use crate::inputs::{Below, Symbols};
use crate::pause;
use crate::report::{Findings, NewFunction, PieceFacts, RemovedFunction};

/// A payload that the verifier accepts. Made by [`run`] only.
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

/// Gives the objects that the change leaves alone and that may refer to any of the names, each beside itself.
pub(crate) type Rest<'r> = dyn Fn(&BTreeSet<String>) -> Result<Vec<ObjectPair>, Problems> + 'r;

/// The host that a change is for.
pub(crate) struct Host<'h> {
    /// The shipped hypervisor.
    pub(crate) symbols: &'h Symbols,
    /// The payloads below.
    pub(crate) below: &'h Below,
    /// What its loader does.
    pub(crate) loader: Loader,
    /// Whether all objects that the change reaches are compared.
    pub(crate) whole: bool,
    /// Why nothing is expected of any replaced function, where that is so.
    pub(crate) no_expectations: Option<LeftOut>,
    /// What is known to stand in the way of a payload, whatever the objects hold.
    pub(crate) refusals: Problems,
    /// The payload to write; without it the stages end with check.
    pub(crate) payload: Option<Wanted>,
}

impl Host<'_> {
    /// What it will have.
    pub(crate) fn world<'w>(&'w self, allowed: &'w [Allowance]) -> World<'w> {
        World {
            hypervisor: &self.symbols.hypervisor,
            exported: &self.below.exported,
            replaced: &self.below.replaced,
            loader: &self.loader,
            allowed,
            whole: self.whole,
            no_expectations: self.no_expectations.or_else(|| no_room_for_expectations(self.payload.as_ref())),
        }
    }
}

/// What the payload is to be, apart from its content.
pub(crate) struct Wanted {
    /// The name that the host knows it by.
    pub(crate) name: String,
    /// The build-ids that it depends on.
    pub(crate) ids: Ids,
    /// The hypervisor's `struct livepatch_func`.
    pub(crate) funcs: FuncsLayout,
    /// What it says of itself.
    pub(crate) metadata: Metadata,
}

/// Runs the stages on pairs of objects, as far as is known what they are for: without a host they end with compare.
/// `None` where no payload is wanted, or where nothing is replaced and no hook is new. What is found on the way goes
/// into the findings, whatever the outcome.
///
/// # Errors
/// Everything that stands in the way of a payload, as far as the stages came.
pub(crate) fn run(
    inputs: &[Input<'_>],
    rest: &Rest<'_>,
    host: Option<&Host<'_>>,
    allowed: &[Allowance],
    findings: &mut Findings,
) -> Result<Option<Verified>, Problems> {
    pause::at("parse");
    let mut pairs: Vec<ObjectPair> =
        Problems::collect(inputs.par_iter().map(|input| ObjectPair::parse(*input)).collect::<Vec<_>>())?;
    xsplice_diff::add_users(&mut pairs, rest)?;
    pause::at("correlate");
    let parts: Vec<Parts<'_>> = Problems::collect(pairs.par_iter().map(Parts::of).collect::<Vec<_>>())?;
    let correlated: Vec<Correlated<'_>> = parts.par_iter().map(Correlated::of).collect();
    pause::at("compare");
    let compared: Vec<Compared<'_>> = Compared::all(correlated);
    note_changes(&compared, findings);
    pause::at("select");
    let Some(host) = host else {
        return end_with_compare(&parts, &compared, allowed, findings).map(|()| None);
    };
    let world = host.world(allowed);
    let mut selection = Selection::of(&compared, &world);
    note_selection(&selection, findings);
    pause::at("check");
    let nothing = selection.replaced.is_empty() && selection.hooks.is_empty();
    if !nothing {
        selection.problems.extend(host.refusals.clone());
    }
    let patchable = Patchable::check(selection, &parts, &world)
        .inspect_err(|_| findings.base = Some(xsplice_diff::base_of(&parts, &world)))?;
    findings.base = Some(patchable.base().clone());
    findings.problems.extend(patchable.warnings().clone());
    findings.allowed.clone_from(patchable.allowed());
    if nothing {
        return Ok(None);
    }
    findings.functions = patchable.functions().to_vec();
    let Some(wanted) = &host.payload else { return Ok(None) };
    pause::at("link");
    let mut metadata = wanted.metadata.clone();
    if !findings.allowed.is_empty() {
        let allowed: Vec<&str> = findings.allowed.iter().map(String::as_str).collect();
        metadata.push(("allowed".to_owned(), allowed.join(" ")));
    }
    let image = PayloadImage::link(&patchable, &wanted.funcs, &wanted.ids, &metadata);
    pause::at("verify");
    verify(host, wanted, inputs, image, findings).map(Some)
}

/// Up to Xen 4.13 a function's entry ends in front of them.
fn no_room_for_expectations(payload: Option<&Wanted>) -> Option<LeftOut> {
    payload.is_some_and(|wanted| wanted.funcs.expect.is_none()).then_some(LeftOut::NoRoom)
}

/// What stands in the way whatever the hypervisor.
fn end_with_compare(
    parts: &[Parts<'_>],
    compared: &[Compared<'_>],
    allowed: &[Allowance],
    findings: &mut Findings,
) -> Result<(), Problems> {
    let mut problems = layout_problems(parts, false);
    for pair in compared {
        problems.extend(pair.problems.clone());
    }
    findings.allowed = xsplice_diff::allow(&mut problems, allowed);
    problems.normalise();
    if !problems.is_harmless() {
        return Err(problems);
    }
    findings.problems.extend(problems);
    Ok(())
}

fn verify(
    host: &Host<'_>,
    wanted: &Wanted,
    inputs: &[Input<'_>],
    image: PayloadImage,
    findings: &mut Findings,
) -> Result<Verified, Problems> {
    let objects = patched_objects(inputs, findings);
    let below: Vec<&[u8]> = host.below.bytes.iter().map(Vec::as_slice).collect();
    let verdict = xsplice_verify::verify(&VerifyInput {
        payload: image.bytes(),
        name: &wanted.name,
        xen_syms: Some(&host.symbols.bytes),
        below: &below,
        xen_build_id: Some(wanted.ids.xen_depends.clone()),
        depends: Some(wanted.ids.depends.clone()),
        funcs_version: Some(wanted.funcs.version),
        funcs_size: Some(wanted.funcs.size),
        in_place: true,
        objects: objects.as_deref(),
        ..VerifyInput::default()
    });
    if !verdict.is_accepted() {
        return Err(verdict.problems);
    }
    findings.problems.extend(verdict.problems);
    Ok(Verified { image, facts: verdict.facts })
}

/// The objects that the payload was made of; `None` where it takes something from objects that the change leaves alone.
fn patched_objects<'i>(inputs: &[Input<'i>], findings: &Findings) -> Option<Vec<PatchedObject<'i>>> {
    let given = |object: &str| inputs.iter().any(|input| input.path == object);
    findings.pieces.iter().all(|piece| given(&piece.object)).then(|| {
        let object = |input: &Input<'i>| Some(PatchedObject { path: input.path, bytes: input.patched? });
        inputs.iter().filter_map(object).collect()
    })
}

fn note_changes(compared: &[Compared<'_>], findings: &mut Findings) {
    findings.compared = compared.iter().map(|compared| compared.correlated.parts.pair.path.clone()).collect();
    findings.changes = Changes::of(compared);
    for compared in compared {
        findings.init_changes.extend(compared.init.clone());
    }
    findings.init_changes.sort();
}

fn note_selection(selection: &Selection, findings: &mut Findings) {
    findings.needs = selection.needs.iter().cloned().collect();
    findings.by_address = selection.by_address.iter().cloned().collect();
    findings.hooks.clone_from(&selection.hooks);
    findings.through_original.clone_from(&selection.through_original);
    findings.new_functions = selection
        .new_functions
        .iter()
        .map(|(name, place)| NewFunction { name: name.clone(), place: place.clone() })
        .collect();
    findings.removed_functions = selection
        .removed
        .iter()
        .map(|(object, name)| RemovedFunction { name: name.clone(), object: object.clone() })
        .collect();
    findings.pieces = selection
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
