//! What must hold of hooks before a payload is written: the loader checks none of it, and calls.

use std::collections::{BTreeMap, BTreeSet};

use xsplice_objects::{HookKind, Hypervisor};
use xsplice_report::{Diagnostic, Place, Problems};

use crate::codes;
use crate::pieces::{Hook, PieceId, PieceKind, Target, World};
use crate::select::Selection;

/// ENDBR64: where an indirect call may land with CET-IBT on.
const ENDBR: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

/// Functions of the hypervisor that wait for other CPUs, or free address space, which does (xen/common/smp.c,
/// stop_machine.c, vmap.c, domain_page.c, wait.c and rcupdate.c; xen/arch/x86/smp.c; 4.13 to 4.22).
const WAITS: &[&str] = &[
    "flush_area_mask",
    "on_selected_cpus",
    "rcu_barrier",
    "smp_call_function",
    "stop_machine_run",
    "unmap_domain_page_global",
    "vfree",
    "vunmap",
    "wait_on_selected_cpus",
];

/// All checks of hooks.
pub(crate) fn check(selection: &Selection, world: &World<'_>, problems: &mut Problems) {
    if selection.hooks.is_empty() {
        return;
    }
    if selection.replaced.is_empty() && world.loader.needs_functions {
        problems.push(
            Diagnostic::new(
                codes::HOOKS_ALONE,
                "the patch brings hooks, but nothing that it changes is replaced",
            )
            .at(selection.hooks[0].place.clone())
            .why("Xen up to 4.13 refuses a payload without a list of functions.")
            .advice("Let the patch also change a function that runs after boot."),
        );
    }
    let landing_pads = uses_endbr(world.hypervisor);
    let described = described(selection);
    for hook in &selection.hooks {
        if landing_pads && !selection.pieces[hook.piece.0].bytes.starts_with(&ENDBR) {
            problems.push(
                Diagnostic::new(
                    codes::HOOK_ENDBR,
                    format!("the {} hook {} does not start with ENDBR64", hook.kind.name(), hook.function),
                )
                .at(hook.place.clone())
                .why("Xen calls hooks by pointer, and where the CPU checks that (CET-IBT), the host crashes.")
                .advice("Declare the function cf_check."),
            );
        }
        let reached = reached(selection, hook.piece);
        check_tables(hook, &reached, &described, world, problems);
        warn_of_waiting(hook, selection, &reached, problems);
        warn_of_replaced_action(hook, problems);
    }
}

/// Whether the hypervisor was built for CET-IBT: only then any of its functions starts with ENDBR64. Where the symbol
/// file holds no code it may have been.
fn uses_endbr(hypervisor: &Hypervisor) -> bool {
    let functions = hypervisor.symbols().iter().filter(|symbol| symbol.function);
    let mut starts = functions.filter_map(|symbol| hypervisor.bytes(symbol.address, ENDBR.len())).peekable();
    starts.peek().is_none() || starts.any(|start| start == ENDBR)
}

/// All pieces that a function leads to, itself included. Code that an alternative puts in place belongs to it too.
pub(crate) fn reached(selection: &Selection, from: PieceId) -> BTreeSet<PieceId> {
    let mut replacements: BTreeMap<PieceId, Vec<PieceId>> = BTreeMap::new();
    for (id, piece) in pieces(selection).filter(|(_, piece)| piece.kind == PieceKind::Alternative) {
        if let Some(code) = first_target(selection, id) {
            let others = piece.references.iter().filter_map(|reference| piece_of(&reference.target));
            replacements.entry(code).or_default().extend(others);
        }
    }
    let mut seen = BTreeSet::from([from]);
    let mut next = vec![from];
    while let Some(id) = next.pop() {
        let references = selection.pieces[id.0].references.iter();
        let targets = references.filter_map(|reference| piece_of(&reference.target));
        for target in targets.chain(replacements.get(&id).into_iter().flatten().copied()) {
            if seen.insert(target) {
                next.push(target);
            }
        }
    }
    seen
}

fn pieces(selection: &Selection) -> impl Iterator<Item = (PieceId, &crate::pieces::Piece)> {
    selection.pieces.iter().enumerate().map(|(index, piece)| (PieceId(index), piece))
}

fn piece_of(target: &Target) -> Option<PieceId> {
    match target {
        Target::Piece(id) => Some(*id),
        Target::Hypervisor(_) | Target::Address { .. } => None,
    }
}

/// The code that an entry of a special section describes.
fn first_target(selection: &Selection, entry: PieceId) -> Option<PieceId> {
    selection.pieces[entry.0].references.first().and_then(|reference| piece_of(&reference.target))
}

/// Code with traps that must be known to be survived. A BUG or a failed assertion stops the host either way.
fn described(selection: &Selection) -> BTreeMap<PieceId, &'static str> {
    let mut described = BTreeMap::new();
    for (id, piece) in pieces(selection) {
        let what = match piece.kind {
            PieceKind::BugFrame(0) => "a call of a function by a trap (run_in_exception_handler)",
            PieceKind::BugFrame(1) => "a WARN",
            PieceKind::ExceptionEntry => "an access that may fault",
            _ => continue,
        };
        if let Some(code) = first_target(selection, id) {
            described.entry(code).or_insert(what);
        }
    }
    described
}

fn check_tables(
    hook: &Hook,
    reached: &BTreeSet<PieceId>,
    described: &BTreeMap<PieceId, &'static str>,
    world: &World<'_>,
    problems: &mut Problems,
) {
    if world.loader.tables_from_upload || !hook.kind.runs_unapplied() {
        return;
    }
    if let Some(what) = reached.iter().find_map(|id| described.get(id)) {
        problems.push(
            Diagnostic::new(
                codes::HOOK_TABLES,
                format!("the {} hook {} leads to {what}", hook.kind.name(), hook.function),
            )
            .at(hook.place.clone())
            .why("This Xen knows a payload's bug frames and exception table only while it is applied, and would crash.")
            .advice("Do without it in that hook and in the new functions that it calls."),
        );
    }
}

/// Whether a hook waits cannot be told in full: what it calls in the hypervisor is not looked into.
fn warn_of_waiting(hook: &Hook, selection: &Selection, reached: &BTreeSet<PieceId>, problems: &mut Problems) {
    if !hook.kind.is_alone() {
        return;
    }
    let references = reached.iter().flat_map(|id| &selection.pieces[id.0].references);
    let names: BTreeSet<&str> = references
        .filter_map(|reference| reference.target.name().filter(|name| WAITS.contains(name)))
        .collect();
    if !names.is_empty() {
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        problems.push(
            Diagnostic::new(
                codes::HOOK_MAY_HANG,
                format!("the {} hook {} leads to {names}", hook.kind.name(), hook.function),
            )
            .at(hook.place.clone())
            .why("It runs with interrupts off while all other CPUs spin: what waits for them waits for ever.")
            .advice("Make sure that it is not called there; pre and post hooks may wait."),
        );
    }
}

fn warn_of_replaced_action(hook: &Hook, problems: &mut Problems) {
    let (action, left_out) = match hook.kind {
        HookKind::Apply => ("apply", "replaces no function and calls no load hook"),
        HookKind::Revert => ("revert", "puts no function back and calls no unload hook"),
        _ => return,
    };
    let place = Place { section: Some(hook.kind.section().to_owned()), ..hook.place.clone() };
    problems.push(
        Diagnostic::new(
            codes::HOOK_INSTEAD,
            format!("the {action} hook {} does what Xen does otherwise", hook.function),
        )
        .at(place)
        .why(format!(
            "With it Xen {left_out} by itself, and panics if the hook leaves some functions done and others not."
        ))
        .advice("See to it that the hook does both, or use a pre or post hook."),
    );
}
