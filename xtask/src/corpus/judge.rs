//! The second half: what the stages after the build make of a captured patch, and what the oracle says of it.
//!
//! The stages are those of the command line's pipeline, from parse to verify, on the objects that were kept.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Instant;

use fs_err as fs;
use xsplice_diff::{
    Compared, Correlated, Input, ItemId, Loader, ObjectPair, Parts, Patchable, Piece, PieceKind, Selection,
    Verdict, World,
};
use xsplice_link::{Ids, PayloadImage};
use xsplice_objects::Hypervisor;
use xsplice_report::{Outcome, Problems};
use xsplice_verify::VerifyInput;

use super::Inputs;
use super::capture::{self, Capture, End, Store, Told};
use super::list::Entry;
use super::oracle::{DataChange, Kept, write_whole};

/// How a patch of the corpus ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ending {
    /// A payload that the verifier accepts.
    Payload,
    /// Refused, by any stage.
    Refused,
    /// Nothing of the running hypervisor changes.
    Nothing,
    /// The compiler's message is the answer.
    DoesNotCompile,
    /// It does not fit Debian's source, which has changes of its own.
    DoesNotApply,
    /// Neither the patch nor a refusal: a failure of ours.
    Failed,
}

impl Ending {
    /// All, in the order in which they are counted.
    pub(crate) const ALL: [Ending; 6] = [
        Ending::Payload,
        Ending::Refused,
        Ending::Nothing,
        Ending::DoesNotCompile,
        Ending::DoesNotApply,
        Ending::Failed,
    ];

    /// In words.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Ending::Payload => "payload",
            Ending::Refused => "refused",
            Ending::Nothing => "nothing to patch",
            Ending::DoesNotCompile => "does not compile",
            Ending::DoesNotApply => "does not apply",
            Ending::Failed => "failed",
        }
    }
}

/// A name in an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Named {
    /// The object, relative to the tree.
    pub(crate) object: String,
    /// The function or variable.
    pub(crate) name: String,
}

/// Functions, by what became of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Functions {
    pub(crate) changed: BTreeSet<Named>,
    pub(crate) new: BTreeSet<Named>,
    pub(crate) removed: BTreeSet<Named>,
}

impl Functions {
    /// How many are changed or new.
    pub(crate) fn count(&self) -> usize {
        self.changed.len() + self.new.len()
    }
}

/// What the oracle says of all pairs of a patch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Opinion {
    pub(crate) functions: Functions,
    /// With the object of each.
    pub(crate) data: Vec<(String, DataChange)>,
    /// With the object of each.
    pub(crate) unknown: Vec<(String, String)>,
    /// How many functions and variables of boot differ.
    pub(crate) init: usize,
    /// The first difference of each function and variable.
    pub(crate) why: Vec<(Named, String)>,
}

/// How much a payload has of what its file has no names for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Functions that the hypervisor does not have.
    pub(crate) new_functions: usize,
    /// Pieces of code that the compiler put apart from their function, or assembler aside.
    pub(crate) fragments: usize,
    pub(crate) strings: usize,
    /// Read-only data that is no string.
    pub(crate) read_only: usize,
}

impl Held {
    pub(crate) fn of(selection: &Selection) -> Held {
        let count = |is: fn(&Piece) -> bool| selection.pieces.iter().filter(|piece| is(piece)).count();
        let is_string =
            |piece: &Piece| piece.kind == PieceKind::ReadOnly && piece.label.starts_with("string ");
        Held {
            new_functions: selection.new_functions.len(),
            fragments: count(is_fragment),
            strings: count(is_string),
            read_only: count(|piece| piece.kind == PieceKind::ReadOnly) - count(is_string),
        }
    }
}

/// As the compiler and the selection name it.
fn is_fragment(piece: &Piece) -> bool {
    let nameless = piece.kind == PieceKind::Text && piece.symbol.is_none();
    nameless && (piece.label.contains(".cold") || piece.label.starts_with("code put aside"))
}

/// A judged patch.
#[derive(Debug, Clone)]
pub(crate) struct Judged {
    pub(crate) entry: Entry,
    pub(crate) ending: Ending,
    /// What stands in the way.
    pub(crate) problems: Vec<Told>,
    /// What differs by our comparison; where there is a payload, what it replaces and what is new. `None` where
    /// nothing could be compared.
    pub(crate) ours: Option<Functions>,
    /// Assembler objects that are refused as a whole, without saying which functions differ.
    pub(crate) whole: BTreeSet<String>,
    /// Data that is in the payload.
    pub(crate) data: BTreeSet<Named>,
    /// What else is in the payload.
    pub(crate) held: Held,
    /// `None` where there are no objects, or nobody was asked.
    pub(crate) oracle: Option<Opinion>,
    /// How long the build stage took.
    pub(crate) build_seconds: f64,
    /// How long the stages after it took.
    pub(crate) seconds: f64,
}

impl Judged {
    fn new(entry: &Entry, ending: Ending, capture: &Capture) -> Judged {
        Judged {
            entry: entry.clone(),
            ending,
            problems: Vec::new(),
            ours: None,
            whole: BTreeSet::new(),
            data: BTreeSet::new(),
            held: Held::default(),
            oracle: None,
            build_seconds: capture.seconds,
            seconds: 0.0,
        }
    }

    /// The codes of what stands in the way, each once.
    pub(crate) fn codes(&self) -> BTreeSet<&str> {
        self.problems.iter().filter(|told| !told.warning).map(|told| told.code.as_str()).collect()
    }
}

/// The hypervisor that the payloads are for.
pub(crate) struct Shipped {
    bytes: Vec<u8>,
    hypervisor: Hypervisor,
}

impl Shipped {
    /// Reads its symbol file.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn read(path: &std::path::Path) -> Result<Shipped, String> {
        let bytes = fs::read(path).map_err(|error| error.to_string())?;
        let hypervisor =
            Hypervisor::parse(&path.to_string_lossy(), &bytes).map_err(|problems| crate::told(&problems))?;
        Ok(Shipped { bytes, hypervisor })
    }
}

/// The objects of a pair, and where they are kept.
struct Pair<'c> {
    path: &'c str,
    source: &'c str,
    assembler: bool,
    base: Option<(PathBuf, Vec<u8>)>,
    patched: Option<(PathBuf, Vec<u8>)>,
}

/// Judges a captured patch.
///
/// # Errors
/// When the kept objects cannot be read, or the oracle fails.
pub(crate) fn judge(
    inputs: &Inputs,
    shipped: &Shipped,
    oracle: Option<&Kept<'_>>,
    entry: &Entry,
    capture: &Capture,
) -> Result<Judged, String> {
    let ending = match capture.end {
        End::Built => Ending::Failed,
        End::Nothing => Ending::Nothing,
        End::DoesNotApply => Ending::DoesNotApply,
        End::DoesNotCompile => Ending::DoesNotCompile,
        End::Refused => Ending::Refused,
    };
    let mut judged = Judged::new(entry, ending, capture);
    if capture.end != End::Built {
        judged.problems.clone_from(&capture.problems);
        return Ok(judged);
    }
    let payload = inputs.store.payload(entry);
    if payload.exists() {
        fs::remove_file(&payload).map_err(|error| error.to_string())?;
    }
    let pairs = read(inputs, entry, capture)?;
    let start = Instant::now();
    let stages = Stages { store: &inputs.store, payload, shipped, capture };
    let ended = catch_unwind(AssertUnwindSafe(|| stages.run(&pairs, &mut judged)))
        .unwrap_or_else(|_| Err(failure("a stage panicked")));
    judged.seconds = start.elapsed().as_secs_f64();
    judged.ending = match ended {
        Ok(ending) => ending,
        Err(problems) => {
            judged.problems.extend(problems.0.iter().map(Told::of));
            let assembler =
                problems.0.iter().filter(|problem| problem.code == xsplice_diff::codes::ASSEMBLER_CHANGED);
            judged.whole = assembler.filter_map(|problem| problem.place.object.clone()).collect();
            if problems.outcome() == Outcome::Refused { Ending::Refused } else { Ending::Failed }
        }
    };
    if let Some(oracle) = oracle {
        judged.oracle = Some(ask(oracle, &pairs)?);
    }
    Ok(judged)
}

fn read<'c>(inputs: &Inputs, entry: &Entry, capture: &'c Capture) -> Result<Vec<Pair<'c>>, String> {
    let folder = inputs.store.folder(entry);
    let side = |there: bool, side: &str, path: &str| {
        if !there {
            return Ok(None);
        }
        let file = folder.join(side).join(path);
        fs::read(&file).map(|bytes| Some((file, bytes))).map_err(|error| error.to_string())
    };
    let objects = capture.objects.iter().filter(|object| object.compared);
    objects
        .map(|object| {
            Ok(Pair {
                path: &object.path,
                source: &object.source,
                assembler: object.assembler,
                base: side(object.has_base, "base", &object.path)?,
                patched: side(object.has_patched, "patched", &object.path)?,
            })
        })
        .collect()
}

struct Stages<'i> {
    store: &'i Store,
    /// Where the payload goes.
    payload: PathBuf,
    shipped: &'i Shipped,
    capture: &'i Capture,
}

impl Stages<'_> {
    fn run(&self, kept: &[Pair<'_>], judged: &mut Judged) -> Result<Ending, Problems> {
        let mut pairs = Problems::collect(kept.iter().map(|pair| {
            ObjectPair::parse(Input {
                path: pair.path,
                source: pair.source,
                assembler: pair.assembler,
                base: pair.base.as_ref().map(|(_, bytes)| bytes.as_slice()),
                patched: pair.patched.as_ref().map(|(_, bytes)| bytes.as_slice()),
            })
        }))?;
        xsplice_diff::add_users(&mut pairs, |names| self.users(names))?;
        let parts = Problems::collect(pairs.iter().map(Parts::of))?;
        let compared = Compared::all(parts.iter().map(Correlated::of).collect());
        judged.ours = Some(functions(&compared));
        let empty = BTreeSet::new();
        // None of the patches has hooks, which is all that a loader is asked about.
        let loader = Loader::default();
        let world = World {
            hypervisor: &self.shipped.hypervisor,
            exported: &empty,
            replaced: &empty,
            loader: &loader,
            allowed: &[],
            whole: true,
            no_expectations: None,
        };
        let selection = Selection::of(&compared, &world);
        let nothing = selection.replaced.is_empty();
        let patchable = Patchable::check(selection, &parts, &world)?;
        if nothing {
            return Ok(Ending::Nothing);
        }
        note_payload(patchable.selection(), &compared, judged);
        let image = self.link(&patchable, &judged.entry)?;
        self.verify(&image, &judged.entry)?;
        self.keep(&image)?;
        Ok(Ending::Payload)
    }

    /// Objects that the patch leaves alone and that hold any of the names.
    fn users(&self, names: &BTreeSet<String>) -> Result<Vec<ObjectPair>, Problems> {
        let objects = capture::original(self.store).map_err(failure)?;
        let holds = |bytes: &[u8]| {
            names.iter().any(|name| bytes.windows(name.len()).any(|window| window == name.as_bytes()))
        };
        Problems::collect(objects.iter().filter(|(_, bytes)| holds(bytes)).map(|(object, bytes)| {
            ObjectPair::parse(Input {
                path: &object.path,
                source: &object.source,
                assembler: object.assembler,
                base: Some(bytes),
                patched: Some(bytes),
            })
        }))
    }

    fn link(&self, patchable: &Patchable, entry: &Entry) -> Result<PayloadImage, Problems> {
        let Some(funcs) = &self.capture.funcs_layout else {
            return Err(failure("the capture has no layout of struct livepatch_func"));
        };
        let funcs = xsplice_link::FuncsLayout {
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
        let id = self.shipped.hypervisor.build_id().to_vec();
        let ids = Ids { depends: id.clone(), xen_depends: id };
        let metadata = vec![("patch".to_owned(), format!("{}.patch", entry.name()))];
        Ok(PayloadImage::link(patchable, &funcs, &ids, &metadata))
    }

    fn verify(&self, image: &PayloadImage, entry: &Entry) -> Result<(), Problems> {
        let id = Some(self.shipped.hypervisor.build_id().to_vec());
        let verdict = xsplice_verify::verify(&VerifyInput {
            payload: image.bytes(),
            name: &entry.name(),
            xen_syms: Some(&self.shipped.bytes),
            xen_build_id: id.clone(),
            depends: id,
            funcs_version: self.capture.funcs_layout.as_ref().map(|funcs| funcs.version),
            funcs_size: self.capture.funcs_layout.as_ref().map(|funcs| funcs.size),
            ..VerifyInput::default()
        });
        if verdict.is_accepted() { Ok(()) } else { Err(verdict.problems) }
    }

    /// Payloads are kept, so that some of them can be booted.
    fn keep(&self, image: &PayloadImage) -> Result<(), Problems> {
        if let Some(folder) = self.payload.parent() {
            fs::create_dir_all(folder).map_err(|error| failure(error.to_string()))?;
        }
        write_whole(&self.payload, image.bytes()).map_err(failure)
    }
}

fn failure(what: impl Into<String>) -> Problems {
    const CODE: xsplice_report::Code =
        xsplice_report::Code::failure("corpus-io", "The corpus's files cannot be used.");
    xsplice_report::Diagnostic::new(CODE, what).into()
}

/// The name in the original of a function or variable of the patched object: clones may have other numbers there.
fn base_name<'p>(pair: &'p Compared<'_>, id: ItemId) -> &'p str {
    let parts = pair.correlated.parts;
    let base = pair.correlated.counterpart[id.0].map(|base| &parts.base.get(base).name);
    base.unwrap_or_else(|| &parts.patched.get(id).name)
}

/// What differs, by our own comparison, with the names of the original.
fn functions(compared: &[Compared<'_>]) -> Functions {
    let mut functions = Functions::default();
    for pair in compared {
        let object = &pair.correlated.parts.pair.path;
        let named = |name: &str| Named { object: object.clone(), name: name.to_owned() };
        for (id, verdict) in &pair.functions {
            let name = named(base_name(pair, *id));
            match verdict {
                Verdict::Same => {}
                Verdict::Changed(_) => {
                    functions.changed.insert(name);
                }
                Verdict::New => {
                    functions.new.insert(name);
                }
            }
        }
        functions.removed.extend(pair.removed.iter().map(|name| named(name)));
    }
    functions
}

/// What the payload holds takes the place of what differs.
fn note_payload(selection: &Selection, compared: &[Compared<'_>], judged: &mut Judged) {
    let mut names: BTreeMap<Named, String> = BTreeMap::new();
    for pair in compared {
        let parts = pair.correlated.parts;
        for (id, item) in parts.patched.iter() {
            let patched = Named { object: parts.pair.path.clone(), name: item.name.clone() };
            names.insert(patched, base_name(pair, id).to_owned());
        }
    }
    let named = |piece: &Piece| {
        let patched = Named { object: piece.object.clone(), name: piece.label.clone() };
        let name = names.get(&patched).cloned().unwrap_or_else(|| patched.name.clone());
        Named { name, ..patched }
    };
    if let Some(ours) = &mut judged.ours {
        ours.changed =
            selection.replaced.iter().map(|replaced| named(&selection.pieces[replaced.piece.0])).collect();
    }
    judged.held = Held::of(selection);
    let is_data = |kind| matches!(kind, PieceKind::ReadOnly | PieceKind::Data | PieceKind::Bss);
    judged.data = selection.pieces.iter().filter(|piece| is_data(piece.kind)).map(named).collect();
}

/// The oracle's verdicts on all pairs.
fn ask(oracle: &Kept<'_>, pairs: &[Pair<'_>]) -> Result<Opinion, String> {
    let mut opinion = Opinion::default();
    for pair in pairs {
        let path = |side: &Option<(PathBuf, Vec<u8>)>| side.as_ref().map(|(path, _)| path.clone());
        let (base, patched) = (path(&pair.base), path(&pair.patched));
        let verdict = oracle.judge(base.as_deref(), patched.as_deref())?;
        let named = |name: String| Named { object: pair.path.to_owned(), name };
        opinion.functions.changed.extend(verdict.changed.into_iter().map(named));
        opinion.functions.new.extend(verdict.new.into_iter().map(named));
        opinion.functions.removed.extend(verdict.removed.into_iter().map(named));
        opinion.data.extend(verdict.data.into_iter().map(|data| (pair.path.to_owned(), data)));
        opinion.unknown.extend(verdict.unknown.into_iter().map(|what| (pair.path.to_owned(), what)));
        opinion.why.extend(verdict.why.into_iter().map(|(name, why)| (named(name), why)));
        opinion.init += verdict.init_changed.len();
    }
    Ok(opinion)
}
