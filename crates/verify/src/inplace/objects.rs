//! The objects of the patched build, by this crate's own reading, and the search for each function of the payload in
//! them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use xsplice_report::{Diagnostic, Place};

use super::AgainstObjects;
use super::code::{Comparison, Mismatch, Way};
use super::hooks;
use super::image::Applied;
use super::names::{Names, Wanted, plain_stem};
use super::special::{self, Twin};
use crate::codes;
use crate::findings::Findings;
use crate::payload::{Content, Payload, R_X86_64_NONE, Relocation, Symbol};
use crate::verify::{Context, problem};

/// ELF's types of symbols.
const FUNC: u8 = 2;
const SECTION: u8 = 3;
const FILE: u8 = 4;
/// Bytes that the linker puts between functions: they trap, or do nothing.
const BETWEEN: [u8; 2] = [0xcc, 0x90];

/// An object of the patched build.
#[derive(Debug, Clone, Copy)]
pub struct PatchedObject<'a> {
    /// Its path, for messages.
    pub path: &'a str,
    /// The file.
    pub bytes: &'a [u8],
}

/// An object, read.
pub(super) struct Object<'a> {
    pub(super) path: &'a str,
    pub(super) elf: Payload<'a>,
    /// Entries of its special sections.
    pub(super) content: Content,
    /// The name of its source.
    pub(super) file: Option<&'a str>,
    /// Relocations of loaded sections by section and offset.
    relocations: BTreeMap<(usize, u64), Relocation>,
    /// Named symbols by section and value.
    named: BTreeMap<(usize, u64), Vec<usize>>,
    /// Where functions start: section and value.
    starts: BTreeSet<(usize, u64)>,
}

impl<'a> Object<'a> {
    fn read(object: &PatchedObject<'a>) -> Result<Object<'a>, xsplice_report::Problems> {
        let elf = Payload::parse(object.bytes)?;
        let file = elf.symbols.iter().find(|s| s.kind == FILE && !s.name.is_empty()).map(|s| s.name);
        let mut relocations = BTreeMap::new();
        for group in &elf.relocations {
            if elf.sections.get(group.target).is_some_and(|section| section.is_loaded()) {
                let kept = group.entries.iter().filter(|entry| entry.kind != R_X86_64_NONE);
                relocations.extend(kept.map(|entry| ((group.target, entry.offset), *entry)));
            }
        }
        let mut named: BTreeMap<(usize, u64), Vec<usize>> = BTreeMap::new();
        let mut starts = BTreeSet::new();
        for (index, symbol) in elf.symbols.iter().enumerate() {
            if is_name(symbol) && !symbol.is_undefined() {
                named.entry((symbol.section, symbol.value)).or_default().push(index);
                starts.extend((symbol.kind == FUNC).then_some((symbol.section, symbol.value)));
            }
        }
        let content = Content::read(&elf, None);
        Ok(Object { path: object.path, elf, content, file, relocations, named, starts })
    }

    /// The relocations in a range of a section, in order.
    pub(super) fn relocations(&self, section: usize, range: Range<u64>) -> impl Iterator<Item = &Relocation> {
        self.relocations.range((section, range.start)..(section, range.end)).map(|(_, relocation)| relocation)
    }

    /// What the object calls a symbol.
    pub(super) fn wanted(&self, symbol: &Symbol<'a>) -> Wanted<'a> {
        Wanted { name: symbol.name, local: symbol.binding == 0, file: self.file }
    }

    /// Bytes of a function with what its section holds behind it: unlikely code of inline assembler.
    pub(super) fn extent(&self, function: &Symbol<'_>) -> u64 {
        let section = function.section;
        let mut behind = self.starts.range((section, function.value.saturating_add(1))..(section + 1, 0));
        let next = behind.next().map(|(_, at)| *at);
        let end = next.or_else(|| Some(self.elf.sections.get(section)?.size));
        end.unwrap_or_default().saturating_sub(function.value)
    }

    /// The symbols that a place of a section belongs to: those nearest in front of it, else the first behind it.
    pub(super) fn around(&self, section: usize, offset: i64) -> Vec<&Symbol<'a>> {
        let at = u64::try_from(offset).unwrap_or_default();
        let before = self.named.range((section, 0)..=(section, at)).next_back();
        let found = before.or_else(|| self.named.range((section, at)..(section + 1, 0)).next());
        found.into_iter().flat_map(|(_, all)| all).filter_map(|&index| self.elf.symbols.get(index)).collect()
    }
}

/// Whether a symbol is a name that others could know.
pub(super) fn is_name(symbol: &Symbol<'_>) -> bool {
    !symbol.name.is_empty() && !matches!(symbol.kind, SECTION | FILE) && !symbol.name.starts_with(".L")
}

/// Compares every function of the payload, in place, with the objects.
pub(super) fn check(
    context: &Context<'_>,
    files: &[PatchedObject<'_>],
    applied: &Applied,
    findings: &mut Findings,
) -> AgainstObjects {
    let mut objects = Vec::new();
    for file in files {
        match Object::read(file) {
            Ok(object) => objects.push(object),
            Err(unreadable) => unreadable.into_iter().for_each(|diagnostic| {
                findings.note(Diagnostic {
                    code: codes::PATCHED_OBJECT_UNREADABLE,
                    kind: codes::PATCHED_OBJECT_UNREADABLE.kind,
                    what: format!("an object of the patched build cannot be read: {}", diagnostic.what),
                    place: Place::object(file.path),
                    ..diagnostic
                });
            }),
        }
    }
    let names = Names::of(context);
    let hooks = hooks::check(context, &objects, &names, findings);
    let mut all = AgainstObjects { hooks, ..AgainstObjects::default() };
    let mut compared = Vec::new();
    let twins = twins(&objects);
    for (index, symbol) in functions(context.payload) {
        let Some(address) = context.low.symbol(index) else { continue };
        let found = find(&twins, symbol, |object, twin| {
            let mut comparison = Comparison::new(object, &names, applied);
            let mut next = Some((twin, address));
            while let Some((part, address)) = next {
                let twin = Twin::of(object, part, address);
                comparison.covered.push(address..address.saturating_add(object.extent(part)));
                comparison.function(part, address);
                special::compare(&mut comparison, context, object, twin);
                next = comparison.next_part();
            }
            comparison.constants();
            comparison
        });
        if names.effort.is_spent() {
            let given_up = unknown_code(symbol.name, "payload and objects ask for too much work");
            let advice = "Build both again: what a compiler makes takes a small part of that.";
            findings.host(given_up.advice(advice));
            return all;
        }
        let Some((object, twin, comparison)) = found else {
            compared.push(address..address.saturating_add(symbol.size));
            findings.host(unknown_code(symbol.name, "no object has a function of that name and size"));
            continue;
        };
        compared.extend(comparison.covered.iter().cloned());
        all.functions += 1;
        all.references += comparison.references;
        all.constants += comparison.constants;
        let wanted = object.wanted(twin);
        comparison.mismatches.iter().for_each(|mismatch| say(symbol.name, object, mismatch, findings));
        entry_leads_to_it(applied, address, &wanted, findings);
    }
    lost_code(context, compared, findings);
    all
}

/// The functions of a payload.
fn functions<'p, 'a>(payload: &'p Payload<'a>) -> impl Iterator<Item = (usize, &'p Symbol<'a>)> {
    let is_function = |symbol: &Symbol<'_>| {
        let code = payload.sections.get(symbol.section).is_some_and(|section| section.is_code());
        symbol.kind == FUNC && code && symbol.section != 0
    };
    payload.symbols.iter().enumerate().filter(move |(_, symbol)| is_function(symbol))
}

/// A function of the objects.
type Twins<'o, 'a> = BTreeMap<&'o str, Vec<(&'o Object<'a>, &'o Symbol<'a>)>>;

/// All functions of the objects, by what is left of their names.
fn twins<'o, 'a>(objects: &'o [Object<'a>]) -> Twins<'o, 'a> {
    let mut twins = Twins::new();
    for object in objects {
        let functions = object.elf.symbols.iter().filter(|s| s.kind == FUNC && !s.is_undefined());
        for function in functions {
            twins.entry(plain_stem(function.name)).or_default().push((object, function));
        }
    }
    twins
}

/// The function of the objects that a payload's is: of that name and size, and where there are several the one that
/// compares best.
fn find<'o, 'a, 'c>(
    twins: &Twins<'o, 'a>,
    symbol: &Symbol<'_>,
    compare: impl Fn(&'o Object<'a>, &'o Symbol<'a>) -> Comparison<'c>,
) -> Option<(&'o Object<'a>, &'o Symbol<'a>, Comparison<'c>)> {
    let same = |(object, twin): &&(&'o Object<'a>, &'o Symbol<'a>)| {
        twin.size == symbol.size && object.wanted(twin).is(symbol.name, true)
    };
    let candidates = twins.get(plain_stem(symbol.name)).into_iter().flatten().filter(same);
    let compared = candidates.map(|&(object, twin)| (object, twin, compare(object, twin)));
    compared.min_by_key(|(_, _, comparison)| comparison.mismatches.len())
}

fn unknown_code(name: &str, why: &str) -> Diagnostic {
    problem(
        codes::IN_PLACE_UNKNOWN,
        format!("code of the payload, {name}, is not compared: {why}"),
        Place::none().symbol(name),
        "What it does cannot be held against what the patched source says.",
        "Give the folder with all objects of the patched build: xsplice build --keep-objects.",
    )
}

fn say(function: &str, object: &Object<'_>, mismatch: &Mismatch, findings: &mut Findings) {
    let Mismatch { way, part, offset, expected, found } = mismatch;
    let (code, what) = match way {
        Way::Code => (
            codes::IN_PLACE_CODE,
            format!("{function} has {found} at {offset:#x}, and its object {expected}"),
        ),
        Way::Reference => (
            codes::IN_PLACE_REFERENCE,
            format!("{part}{function} refers to {found} at {offset:#x}, and its object to {expected}"),
        ),
    };
    findings.host(problem(
        code,
        what,
        Place::object(object.path).symbol(function).offset(*offset),
        "The payload does something else than the patched source says.",
        "Do not load it. If the objects are those it was made of, report this.",
    ));
}

/// An entry that leads to a function is about that function.
fn entry_leads_to_it(applied: &Applied, address: u64, wanted: &Wanted<'_>, findings: &mut Findings) {
    for patch in applied.patches().iter().filter(|patch| patch.new == address) {
        if !wanted.is(&patch.name, true) {
            findings.host(problem(
                codes::TRAMPOLINE,
                format!("{} is replaced by {}, another function", patch.name, wanted.shown()),
                Place::none().section(".livepatch.funcs").symbol(patch.name.clone()),
                "Each function is to be replaced by its own patched form.",
                "Do not load it. If the objects are those it was made of, report this.",
            ));
        }
    }
}

/// Code that belongs to no function was compared with nothing.
fn lost_code(context: &Context<'_>, compared: Vec<Range<u64>>, findings: &mut Findings) {
    let compared = merged(compared);
    for section in context.payload.sections.iter().filter(|section| section.is_code()) {
        // What other tables of the payload lead to.
        let by_table = matches!(section.name, ".fixup" | ".altinstr_replacement");
        let Some(base) = context.low.section(section.index).filter(|_| !by_table) else { continue };
        let data = section.data.unwrap_or_default();
        let offset = |address: u64| address.saturating_sub(base).min(data.len() as u64) as usize;
        let mut end = 0;
        let first = compared.partition_point(|range| range.end <= base);
        let ranges = compared[first..].iter().map(|range| offset(range.start)..offset(range.end));
        let ranges = ranges.take_while(|range| range.start < data.len());
        let lost = ranges.chain([data.len()..data.len()]).find_map(|range| {
            let gap = end..range.start;
            end = range.end;
            gap.into_iter().find(|&at| !BETWEEN.contains(&data[at]))
        });
        if let Some(at) = lost {
            let name = format!("{}+{at:#x}", section.name);
            findings.host(unknown_code(&name, "it belongs to no function"));
        }
    }
}

/// Ranges in order, those that touch as one.
fn merged(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match merged.last_mut().filter(|last| range.start <= last.end) {
            Some(last) => last.end = last.end.max(range.end),
            None => merged.push(range),
        }
    }
    merged
}
