//! What must hold before a payload is written.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Serialize, Serializer};
use xsplice_objects::{Hypervisor, Shipped};
use xsplice_report::{Allowance, Diagnostic, Difference, Place, Problems};

use crate::base::{self, Base, Differing, How};
use crate::codes;
use crate::expect::{self, Boot, Expectation};
use crate::hooks;
use crate::host;
use crate::layouts;
use crate::pair::Parts;
use crate::pieces::{self, PieceId, World};
use crate::proof::Prover;
use crate::prototypes;
use crate::select::Selection;

/// Bytes that the jump to the new code takes (xen/arch/x86/livepatch.c, `ARCH_PATCH_INSN_SIZE`).
const JUMP: u64 = 5;
/// Bytes of ENDBR64, behind which the jump goes.
const ENDBR: u64 = 4;

/// A selection that may become a payload. Made here only.
#[derive(Debug)]
pub struct Patchable {
    selection: Selection,
    functions: Vec<Replacement>,
    base: Base,
    warnings: Problems,
    allowed: BTreeSet<String>,
}

/// A function to be replaced, with what the shipped hypervisor says of it.
#[derive(Debug, Clone, Serialize)]
pub struct Replacement {
    /// Its name in the hypervisor's own table.
    pub name: String,
    /// Where it is, if the table has that name more than once: then the loader is not to look it up.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "optional_hex")]
    pub address: Option<u64>,
    /// The new code.
    #[serde(skip)]
    pub piece: PieceId,
    /// Size of the shipped code in bytes.
    pub old_size: u64,
    /// Size of the new code in bytes.
    pub new_size: u64,
    /// The object, relative to the tree.
    pub object: String,
    /// Where it stands in the source.
    #[serde(rename = "where")]
    pub place: Place,
    /// What differs first.
    pub first_difference: Difference,
    /// What the hypervisor is to find before it lets the function be replaced.
    pub expectation: Expectation,
}

fn optional_hex<S: Serializer>(address: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    match address {
        Some(address) => pieces::hex(address, serializer),
        None => serializer.serialize_none(),
    }
}

impl Patchable {
    /// Checks a selection. `parts` are all touched objects that are linked into the hypervisor.
    ///
    /// # Errors
    /// Everything that was found on the way and here, when any of it stops the payload.
    pub fn check(
        selection: Selection,
        parts: &[Parts<'_>],
        world: &World<'_>,
    ) -> Result<Patchable, Problems> {
        let mut problems = selection.problems.clone();
        let mut unread = Unread::default();
        layouts::check(parts, world.whole, &mut problems);
        let (mut prover, mut base) = (Prover::new(world.hypervisor), Base::default());
        let replaced = selection.replaced.iter().map(|replaced| replaced.name.as_str()).collect();
        let found: Vec<Base> =
            parts.iter().map(|part| prove(part, &mut prover, world, &mut unread)).collect();
        found.iter().cloned().for_each(|one| base.extend(one));
        for (part, found) in parts.iter().zip(&found) {
            check_base(part, found, &base, &replaced, world, &mut problems);
        }
        unread.warn(&mut problems);
        problems.extend(base.told("the touched objects", &replaced));
        check_compiler(parts, world, &mut problems);
        let functions = check_room(&selection, world, &mut problems);
        check_new_names(&selection, world, &mut problems);
        hooks::check(&selection, world, &mut problems);
        host::check(&selection, world, &mut problems);
        prototypes::check(&selection, parts, world, &mut problems);
        let allowed = allow(&mut problems, world.allowed);
        problems.normalise();
        if problems.is_harmless() {
            Ok(Patchable { selection, functions, base, warnings: problems, allowed })
        } else {
            Err(problems)
        }
    }

    /// What goes into the payload.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// What it replaces, in order of names.
    pub fn functions(&self) -> &[Replacement] {
        &self.functions
    }

    /// How the touched objects of the original compare with the hypervisor.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// What somebody should know.
    pub fn warnings(&self) -> &Problems {
        &self.warnings
    }

    /// The refusals that were let through, each as `CODE` or `CODE:SYMBOL`.
    pub fn allowed(&self) -> &BTreeSet<String> {
        &self.allowed
    }
}

/// Makes warnings of the refusals that are allowed, and warns of allowances that fit none; gives what was let through,
/// each as `CODE` or `CODE:SYMBOL`.
pub fn allow(problems: &mut Problems, allowances: &[Allowance]) -> BTreeSet<String> {
    let allowed = problems.allow(allowances);
    for unused in allowed.unused {
        problems.push(
            Diagnostic::new(codes::ALLOW_UNUSED, format!("--allow {unused} let nothing through"))
                .at(unused.name.map_or_else(Place::none, |name| Place::none().symbol(name)))
                .why("No refusal of that code came up, or none about that name.")
                .advice("Leave it out, or correct the name."),
        );
    }
    allowed.refusals
}

/// Functions whose code the symbol file does not hold.
#[derive(Default)]
struct Unread {
    names: Vec<String>,
    /// Of how many whose names and sizes agree.
    of: usize,
    /// The first object that has one.
    place: Option<Place>,
}

impl Unread {
    fn warn(self, problems: &mut Problems) {
        let (count, of) = (self.names.len(), self.of);
        let Some(place) = self.place else { return };
        let few = self.names.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
        let more = if count > 3 { " and others" } else { "" };
        problems.push(
            Diagnostic::new(
                codes::CODE_NOT_COMPARED,
                format!("the symbol file holds no code for {count} of {of} functions of the rebuilt original"),
            )
            .at(place)
            .why(format!(
                "Only names and sizes of {few}{more} were compared; a base of other code or constants would go unnoticed."
            ))
            .advice("Give the xen-syms that the linker wrote: strip --strip-debug keeps what is needed, objcopy --only-keep-debug does not."),
        );
    }
}

/// Whether the shipped hypervisor names the compilers that made the objects. What they did decides, and this may
/// explain it.
fn check_compiler(parts: &[Parts<'_>], world: &World<'_>, problems: &mut Problems) {
    let shipped = world.hypervisor.compilers();
    if shipped.is_empty() {
        return;
    }
    let mut others: BTreeMap<String, Place> = BTreeMap::new();
    for pair in parts.iter().map(|part| part.pair) {
        let named = [&pair.base, &pair.patched].into_iter().flat_map(|object| object.compilers());
        for compiler in named.filter(|compiler| !shipped.contains(compiler)) {
            others.entry(compiler).or_insert_with(|| Place::object(&pair.path).source(&pair.source, None));
        }
    }
    let Some(place) = others.values().next().cloned() else { return };
    let ours = others.into_keys().collect::<Vec<_>>().join(", ");
    let theirs = shipped.iter().cloned().collect::<Vec<_>>().join(", ");
    problems.push(
        Diagnostic::new(
            codes::OTHER_COMPILER,
            format!("the objects were made by {ours}, and the shipped hypervisor by {theirs}"),
        )
        .at(place)
        .why("Functions of the touched objects were compared with the shipped ones; what another compiler made of the rest is not known.")
        .advice("Install the compiler of the shipped build, and choose it with --cc."),
    );
}

/// Compares the functions of an object with the shipped ones.
fn prove(parts: &Parts<'_>, prover: &mut Prover<'_>, world: &World<'_>, unread: &mut Unread) -> Base {
    let base = base::of_object(&parts.base, prover, world, &mut |name, plain| {
        unread.place.get_or_insert_with(|| parts.pair.place(plain));
        unread.names.push(name);
    });
    unread.of += base.sized();
    base
}

/// Every function of the touched objects that runs after boot must be in the shipped hypervisor with the same size and
/// code.
fn check_base(
    parts: &Parts<'_>,
    base: &Base,
    whole: &Base,
    replaced: &BTreeSet<&str>,
    world: &World<'_>,
    problems: &mut Problems,
) {
    let differing: Vec<&Differing> = base.differing.iter().filter(|one| one.is_against(replaced)).collect();
    if differing.is_empty() {
        return;
    }
    let list = |title: &str, how: &[How]| {
        let all = differing.iter().filter(|one| how.contains(&one.how));
        let words: Vec<String> = all.take(NAMED).map(|one| one.to_string()).collect();
        if words.is_empty() { String::new() } else { format!("{title}: {}. ", words.join("; ")) }
    };
    let why = [
        list("Other sizes", &[How::Size]),
        list("Other code", &[How::Code, How::Text]),
        list("Not there", &[How::Missing]),
        format!(
            "The shipped hypervisor was built from other code, flags or compiler: {}",
            cause(parts, whole, world)
        ),
    ]
    .concat();
    let what = format!(
        "{} of {} functions of the rebuilt original disagree with the shipped hypervisor",
        differing.len(),
        base.functions
    );
    problems.push(
        Diagnostic::new(codes::BASE_MISMATCH, what)
            .at(Place::object(&parts.pair.path).source(&parts.pair.source, None))
            .why(why)
            .advice("Give the xen-syms, the tree and the configuration of one and the same build, and its compiler."),
    );
}

/// How many functions a reason names.
const NAMED: usize = 3;

/// What is most likely of what may be wrong with a base. `whole` is what was found in all objects involved.
fn cause(parts: &Parts<'_>, whole: &Base, world: &World<'_>) -> String {
    let shipped = world.hypervisor.compilers();
    let other = parts.pair.base.compilers().into_iter().find(|compiler| !shipped.contains(compiler));
    match (other, shipped.first()) {
        (Some(ours), Some(theirs)) => format!("it was made by {theirs}, and this object by {ours}."),
        _ if whole.functions < FEW => "too few functions were compared to tell which of these.".into(),
        _ if whole.identical * 2 < whole.functions => {
            "most functions that were compared differ, as they do under another optimisation level or other options of \
             the compiler, or in another configuration."
                .into()
        }
        _ => "most functions that were compared agree, so that the source of these is another one, or something in the \
              configuration that they depend on."
            .into(),
    }
}

/// Fewer functions than these say nothing about the others.
const FEW: usize = 4;

/// How the objects of a change compare with the hypervisor.
pub fn base_of(parts: &[Parts<'_>], world: &World<'_>) -> Base {
    let mut prover = Prover::new(world.hypervisor);
    let mut base = Base::default();
    for part in parts {
        base.extend(base::of_object(&part.base, &mut prover, world, &mut |_, _| {}));
    }
    base
}

fn check_room(selection: &Selection, world: &World<'_>, problems: &mut Problems) -> Vec<Replacement> {
    let mut functions = Vec::new();
    let mut by_address: BTreeMap<u64, String> = BTreeMap::new();
    // Worth its time only where somebody asks.
    let wanted = world.no_expectations.is_none() && !selection.replaced.is_empty();
    let boot = wanted.then(|| Boot::of(world.hypervisor)).flatten();
    for replaced in &selection.replaced {
        let place = replaced.place.clone();
        let meant = |one: &&Shipped| replaced.address.is_none_or(|address| one.address == address);
        let mut named: Vec<_> = world.hypervisor.named(&replaced.name).filter(meant).collect();
        named.dedup_by_key(|s| s.address);
        let [shipped] = named[..] else {
            // Of several that cannot be told apart it has been said why.
            if named.is_empty() {
                let what = format!(
                    "{} is to be replaced, but the shipped hypervisor does not have it",
                    replaced.name
                );
                problems.push(
                    Diagnostic::new(codes::NOT_IN_HYPERVISOR, what)
                        .at(place)
                        .why("The host could replace the wrong function, or none.")
                        .advice("Give the symbol file of the running hypervisor."),
                );
            }
            continue;
        };
        if world.hypervisor.is_init(shipped.address) {
            problems.push(
                Diagnostic::new(
                    codes::INIT_REFERENCE,
                    format!("{} is in the part that is freed after boot", replaced.name),
                )
                .at(place)
                .why("Patching it would overwrite memory that now belongs to somebody else.")
                .advice("Leave this part for the next boot."),
            );
            continue;
        }
        if let Some(other) = by_address.insert(shipped.address, replaced.name.clone()) {
            problems.push(
                Diagnostic::new(
                    codes::AMBIGUOUS_NAME,
                    format!("{} and {other} are one function in the hypervisor", replaced.name),
                )
                .at(place.clone())
                .why("Two entries for one address leave a jump behind when the payload is reverted.")
                .advice("Please report the two functions."),
            );
        }
        let endbr = starts_with_endbr(world.hypervisor, shipped.address);
        let need = JUMP + if endbr.unwrap_or(true) { ENDBR } else { 0 };
        if shipped.size < need {
            problems.push(
                Diagnostic::new(
                    codes::NO_ROOM,
                    format!("{} has {} bytes, and the jump needs {need}", replaced.name, shipped.size),
                )
                .at(place)
                .why(match endbr {
                    Some(_) => "The jump would overwrite what follows the function.",
                    None => "The symbol file does not hold its code: if it starts with ENDBR64, the jump would overwrite what follows.",
                })
                .advice("Change its callers instead, so that they do not call it any more."),
            );
            continue;
        }
        functions.push(Replacement {
            name: replaced.name.clone(),
            address: replaced.address,
            piece: replaced.piece,
            old_size: shipped.size,
            new_size: selection.pieces[replaced.piece.0].declared,
            object: replaced.object.clone(),
            place: replaced.place.clone(),
            first_difference: replaced.first_difference.clone(),
            expectation: expect::of(world, boot.as_ref(), shipped),
        });
    }
    functions
}

/// Whether ENDBR64 stands there, or the form that Xen puts in its place where an indirect call must not land; `None`
/// where the symbol file does not hold the code.
fn starts_with_endbr(hypervisor: &Hypervisor, address: u64) -> Option<bool> {
    let code = hypervisor.bytes(address, 4)?;
    Some(matches!(code, [0xf3, 0x0f, 0x1e, 0xfa] | [0x66, 0x0f, 0x1f, 0x01]))
}

/// The loader refuses a payload that brings a name which is there already.
fn check_new_names(selection: &Selection, world: &World<'_>, problems: &mut Problems) {
    let replaced: BTreeSet<PieceId> = selection.replaced.iter().map(|r| r.piece).collect();
    for (index, piece) in selection.pieces.iter().enumerate() {
        let Some(symbol) = &piece.symbol else { continue };
        if replaced.contains(&PieceId(index)) || !piece.global || !world.has(symbol) {
            continue;
        }
        problems.push(
            Diagnostic::new(
                codes::NAME_TAKEN,
                format!("{symbol} is new here, but the hypervisor has that name already"),
            )
            .at(Place::object(&piece.object).symbol(&piece.label))
            .why("The host would refuse the payload: duplicate new symbol.")
            .advice("Choose another name in the patch."),
        );
    }
}
