//! The verdict on a payload: every rule of Xen's loader, and those that keep a running host alive.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Serialize;
use xsplice_report::{Code, Diagnostic, Outcome, Place, Problems};

use crate::findings::{Action, Errno, Findings};
use crate::inplace::{self, InPlace, PatchedObject};
use crate::layout::{Placed, page_align};
use crate::payload::{Content, Payload, SHN_ABS, Section};
use crate::traits::LoaderTraits;
use crate::xen::XenSymbols;
use crate::{codes, rules};

/// What to verify, and against what.
#[derive(Debug, Clone, Default)]
pub struct VerifyInput<'a> {
    /// The finished payload.
    pub payload: &'a [u8],
    /// The name under which it will be loaded: its file's base name up to the last dot.
    pub name: &'a str,
    /// The shipped hypervisor's symbol file. Without it nothing can be said about names, addresses and
    /// sizes in Xen, which the verdict then warns of.
    pub xen_syms: Option<&'a [u8]>,
    /// The payloads that are applied already, lowest first.
    pub below: &'a [&'a [u8]],
    /// Their names, as far as they are known.
    pub below_names: &'a [&'a str],
    /// What the hypervisor's loader does. Without it, whatever any loader of the payload's version refuses or faults on
    /// counts.
    pub traits: Option<LoaderTraits>,
    /// The running hypervisor's build-id, if not that of `xen_syms`; xen.efi has one of its own.
    pub xen_build_id: Option<Vec<u8>>,
    /// The id that the payload must depend on, if not that of the last payload below, else Xen's.
    pub depends: Option<Vec<u8>>,
    /// Payload version of the hypervisor: 1 up to Xen 4.13, 2 from 4.14 on.
    pub funcs_version: Option<u8>,
    /// Bytes of the hypervisor's `struct livepatch_func`.
    pub funcs_size: Option<u64>,
    /// Whether to put the payload into an image of the hypervisor, if nothing stands against it.
    pub in_place: bool,
    /// The objects of the patched build, to compare the payload with in place.
    pub objects: Option<&'a [PatchedObject<'a>]>,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Everything that was found, in a fixed order.
    pub problems: Problems,
    /// The same, each with whose rule it is, in the order in which it was found.
    pub findings: Findings,
    /// Whether the payload could be taken apart: else only its file header was looked at.
    pub read: bool,
    /// What was looked at.
    pub facts: Facts,
    /// What was done in an image of the hypervisor, where that was asked for and the payload breaks no rule.
    pub in_place: Option<InPlace>,
}

/// What Xen's loader says to a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loader<'v> {
    /// It uploads and applies it.
    Accept,
    /// It says no.
    Reject {
        /// To what.
        action: Action,
        /// With which error.
        errno: Errno,
        /// Why.
        because: &'v Diagnostic,
    },
    /// Nobody can say: something that was to be read could not be.
    Unknown,
}

/// Whether a host survives a payload once its loader has taken it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Safe {
    /// Nothing was found that speaks against it.
    Yes,
    /// These codes do.
    No(Vec<Code>),
    /// The payload was not read that far.
    Unknown,
}

impl Verdict {
    fn of(findings: Findings, read: bool, facts: Facts) -> Verdict {
        Verdict { problems: findings.problems(), findings, read, facts, in_place: None }
    }

    /// Whether nothing stands against loading the payload.
    pub fn is_accepted(&self) -> bool {
        self.problems.is_harmless()
    }

    /// What the loader says.
    pub fn loader(&self) -> Loader<'_> {
        match self.findings.first_of_loader() {
            Some((step, errno, because)) => Loader::Reject { action: step.action(), errno, because },
            None if self.read && self.problems.outcome() != Outcome::Failed => Loader::Accept,
            None => Loader::Unknown,
        }
    }

    /// Whether the host survives it, as far as rules go.
    pub fn safe(&self) -> Safe {
        let codes = self.findings.of_host();
        if !codes.is_empty() {
            Safe::No(codes)
        } else if self.read && self.problems.outcome() != Outcome::Failed {
            Safe::Yes
        } else {
            Safe::Unknown
        }
    }
}

/// How much was checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// Undefined symbols found in Xen's table.
    pub symbols_from_xen: usize,
    /// Undefined symbols found in payloads below.
    pub symbols_from_payloads: usize,
    /// Undefined symbols that could not be looked up, for want of a symbol file.
    pub symbols_unchecked: usize,
    /// Relocations of loaded sections.
    pub relocations: usize,
    /// Entries of `.livepatch.funcs`.
    pub functions: usize,
    /// Bytes that the payload takes in memory.
    pub memory: u64,
}

/// Verifies a payload. Collects every problem; a file that cannot be taken apart ends it early.
pub fn verify(input: &VerifyInput<'_>) -> Verdict {
    let mut findings = Findings::default();
    rules::header::check_upload(input, &mut findings);
    rules::header::check(input.payload, &mut findings);
    // The loader says no already; of what is a little too large, the rest is worth knowing.
    if input.payload.len() as u64 > 16 * rules::header::LARGEST {
        return Verdict::of(findings, false, Facts::default());
    }
    let payload = match Payload::parse(input.payload) {
        Ok(payload) => payload,
        Err(unreadable) => {
            // The header's rules have said it better, where they have said anything.
            if findings.is_harmless() {
                findings.notes(unreadable);
            }
            return Verdict::of(findings, false, Facts::default());
        }
    };
    let context = Context::new(input, &payload, &mut findings);
    rules::check(&context, &mut findings);
    let in_place =
        (input.in_place && findings.is_harmless()).then(|| inplace::check(&context, &mut findings));
    Verdict { in_place, ..Verdict::of(findings, true, context.facts()) }
}

/// Where an undefined symbol, or a function's name, is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Once in Xen's table, at this address.
    Xen(u64),
    /// Once in the payloads below: which one, which symbol, and where if all are placed in order.
    Below { payload: usize, symbol: usize, address: u64 },
    /// Several times.
    Ambiguous,
    /// Nowhere.
    Missing,
    /// Nobody can say: there is no symbol file.
    Unchecked,
}

impl Found {
    /// The address, where there is one.
    pub(crate) fn address(self) -> Option<u64> {
        match self {
            Found::Xen(address) | Found::Below { address, .. } => Some(address),
            Found::Ambiguous | Found::Missing | Found::Unchecked => None,
        }
    }
}

/// A payload below.
pub(crate) struct Below<'a> {
    pub(crate) payload: Payload<'a>,
    pub(crate) content: Content,
    pub(crate) placed: Placed,
    /// Symbols that later payloads find, by name.
    pub(crate) exports: BTreeMap<&'a str, Vec<usize>>,
    /// Addresses of the functions that it replaces.
    pub(crate) replaces: Vec<u64>,
}

/// Everything that rules look at.
pub(crate) struct Context<'a> {
    pub(crate) input: &'a VerifyInput<'a>,
    pub(crate) payload: &'a Payload<'a>,
    pub(crate) content: Content,
    pub(crate) xen: Option<XenSymbols<'a>>,
    pub(crate) below: Vec<Below<'a>>,
    /// For each symbol: where it is found, if it is undefined.
    pub(crate) found: Vec<Option<Found>>,
    /// The payload as near to the image as it can be.
    pub(crate) low: Placed,
    /// The payload as far from the image as it can be.
    pub(crate) high: Placed,
    /// The part of the area for payloads that is left for this one.
    pub(crate) area: Range<u64>,
    /// What the loader does.
    pub(crate) traits: LoaderTraits,
}

/// The area for payloads of an image of 8 MiB, where no symbol file gives the true one.
const USUAL_AREA: Range<u64> = 0xffff_82d0_4080_0000..0xffff_82d0_8000_0000;

impl<'a> Context<'a> {
    fn new(input: &'a VerifyInput<'a>, payload: &'a Payload<'a>, findings: &mut Findings) -> Context<'a> {
        let xen = match input.xen_syms.map(XenSymbols::parse) {
            Some(Ok(xen)) => Some(xen),
            Some(Err(unusable)) => {
                findings.notes(unusable);
                None
            }
            None => {
                findings.note(
                    Diagnostic::new(codes::NOT_CHECKED_AGAINST_XEN, "no symbol file to check against")
                        .why("Whether Xen has the names that the payload looks up, and functions of the sizes that it replaces, is not known.")
                        .advice("Give the xen-syms of the running hypervisor."),
                );
                None
            }
        };
        let mut area = xen.as_ref().map_or(USUAL_AREA, XenSymbols::payload_area);
        let mut below: Vec<Below<'a>> = Vec::new();
        for (number, bytes) in input.below.iter().enumerate() {
            match read_below(bytes, xen.as_ref(), &below, area.start) {
                Ok(one) => {
                    // One page stays free behind each: the allocator of xen/common/vmap.c guards them.
                    area.start = page_align(area.start.saturating_add(one.placed.size).saturating_add(1));
                    below.push(one);
                }
                Err(unreadable) => unreadable.into_iter().for_each(|diagnostic| {
                    findings.note(Diagnostic {
                        what: format!("payload {} of those to stack on: {}", number + 1, diagnostic.what),
                        code: codes::BELOW_UNREADABLE,
                        kind: codes::BELOW_UNREADABLE.kind,
                        ..diagnostic
                    });
                }),
            }
        }
        let found: Vec<Option<Found>> = payload
            .symbols
            .iter()
            .enumerate()
            .map(|(i, s)| (i != 0 && s.is_undefined()).then(|| find(xen.as_ref(), &below, s.name)))
            .collect();
        let address = |i: usize| found.get(i).copied().flatten().and_then(Found::address);
        let low = Placed::new(payload, area.start, address);
        let high = Placed::new(payload, area.end.saturating_sub(low.size), address);
        let funcs_size = input.funcs_size.or(input.traits.map(|traits| traits.funcs_size));
        let content = Content::read(payload, funcs_size);
        let traits = input.traits.unwrap_or_else(|| LoaderTraits::strictest(is_modern(input, &content)));
        Context { input, payload, content, xen, below, found, low, high, area, traits }
    }

    /// The running hypervisor's build-id.
    pub(crate) fn xen_id(&self) -> Option<&[u8]> {
        self.input.xen_build_id.as_deref().or_else(|| self.xen.as_ref()?.build_id())
    }

    /// Where a name is found, as the loader would look it up.
    pub(crate) fn find(&self, name: &str) -> Found {
        find(self.xen.as_ref(), &self.below, name)
    }

    fn facts(&self) -> Facts {
        let count = |test: fn(&Found) -> bool| self.found.iter().flatten().filter(|f| test(f)).count();
        let loaded =
            |index: usize| self.payload.sections.get(index).is_some_and(crate::payload::Section::is_loaded);
        Facts {
            symbols_from_xen: count(|f| matches!(f, Found::Xen(_))),
            symbols_from_payloads: count(|f| matches!(f, Found::Below { .. })),
            symbols_unchecked: count(|f| matches!(f, Found::Unchecked)),
            relocations: self
                .payload
                .relocations
                .iter()
                .filter(|group| loaded(group.target))
                .map(|group| group.entries.len())
                .sum(),
            functions: self.content.funcs.len(),
            memory: self.low.size,
        }
    }
}

/// Whether the hypervisor is one of 4.14 or later, as far as is known: given, or by the entries.
fn is_modern(input: &VerifyInput<'_>, content: &Content) -> bool {
    match (input.funcs_version, content.funcs_size) {
        (Some(version), _) => version >= 2,
        (None, Some(size)) => size >= 104,
        (None, None) => true,
    }
}

/// Looks a name up as Xen does: `symbols_lookup_by_name`, then `livepatch_symbols_lookup_by_name`
/// (`livepatch_elf_resolve_symbols`, xen/common/livepatch_elf.c). Which of several it takes is not
/// the same everywhere, so several are none.
fn find(xen: Option<&XenSymbols<'_>>, below: &[Below<'_>], name: &str) -> Found {
    if name.is_empty() {
        return Found::Missing;
    }
    let mut hits = xen.into_iter().flat_map(|xen| xen.named(name)).map(|s| s.address);
    match (hits.next(), hits.next()) {
        (Some(address), None) => return Found::Xen(address),
        (Some(_), Some(_)) => return Found::Ambiguous,
        (None, _) => {}
    }
    let all: Vec<(usize, usize)> = below
        .iter()
        .enumerate()
        .flat_map(|(i, one)| one.exports.get(name).into_iter().flatten().map(move |&symbol| (i, symbol)))
        .take(2)
        .collect();
    match all.as_slice() {
        [] if xen.is_none() => Found::Unchecked,
        [] => Found::Missing,
        [(payload, symbol)] => match below[*payload].placed.symbol(*symbol) {
            Some(address) => Found::Below { payload: *payload, symbol: *symbol, address },
            None => Found::Missing,
        },
        _ => Found::Ambiguous,
    }
}

/// The names that later payloads may refer to once this one is applied.
///
/// # Errors
/// When the file cannot be taken apart.
pub fn exported_names(payload: &[u8]) -> Result<std::collections::BTreeSet<String>, Problems> {
    // Where it would be placed does not matter: only whether two places in it are one.
    const ANYWHERE: u64 = 0xffff_82d0_4080_0000;
    let below = read_below(payload, None, &[], ANYWHERE)?;
    Ok(below.exports.keys().map(|&name| name.to_owned()).collect())
}

fn read_below<'a>(
    bytes: &'a [u8],
    xen: Option<&XenSymbols<'a>>,
    lower: &[Below<'a>],
    base: u64,
) -> Result<Below<'a>, Problems> {
    let payload = Payload::parse(bytes)?;
    let content = Content::read(&payload, None);
    let placed = Placed::new(&payload, base, |i| {
        payload.symbols.get(i).and_then(|s| find(xen, lower, s.name).address())
    });
    let new: Vec<u64> = content.funcs.iter().filter_map(|f| placed.address(f.new)).collect();
    let mut exports: BTreeMap<&'a str, Vec<usize>> = BTreeMap::new();
    for (index, name) in new_symbols(&payload, &placed, &new) {
        exports.entry(name).or_default().push(index);
    }
    let old = |f: &crate::payload::Func| match placed.address(f.old) {
        Some(0) => find(xen, lower, &f.name).address(),
        other => other,
    };
    let mut replaces: Vec<u64> = content.funcs.iter().filter_map(old).collect();
    replaces.sort_unstable();
    Ok(Below { payload, content, placed, exports, replaces })
}

/// The symbols that a payload adds: named ones of loaded sections, but assembler labels of merged
/// ones, and those at the address of some replacement (`is_payload_symbol` and `build_symbol_table`,
/// xen/common/livepatch.c, 4.13 to 4.22).
pub(crate) fn new_symbols<'p, 'a>(
    payload: &'p Payload<'a>,
    placed: &Placed,
    replacements: &[u64],
) -> Vec<(usize, &'a str)> {
    const SHF_MERGE: u64 = 0x10;
    let mut sorted = replacements.to_vec();
    sorted.sort_unstable();
    let is_new = |(index, symbol): &(usize, &'p crate::payload::Symbol<'a>)| {
        if *index == 0 || symbol.name.is_empty() || symbol.is_undefined() || symbol.section == SHN_ABS {
            return false;
        }
        let Some(section) = payload.sections.get(symbol.section).filter(|s| Section::is_loaded(s)) else {
            return false;
        };
        if section.flags & SHF_MERGE != 0 && symbol.name.starts_with(".L") {
            return false;
        }
        placed.symbol(*index).is_some_and(|address| sorted.binary_search(&address).is_err())
    };
    payload.symbols.iter().enumerate().filter(is_new).map(|(i, s)| (i, s.name)).collect()
}

/// A diagnostic with all its parts.
pub(crate) fn problem(
    code: Code,
    what: impl Into<String>,
    place: Place,
    why: impl Into<String>,
    advice: impl Into<String>,
) -> Diagnostic {
    Diagnostic::new(code, what).at(place).why(why).advice(advice)
}

/// A section of the payload, as a place.
pub(crate) fn in_section(section: &Section<'_>) -> Place {
    if section.name.is_empty() {
        Place::none().section(format!("#{}", section.index))
    } else {
        Place::none().section(section.name)
    }
}
