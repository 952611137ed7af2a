//! Everything that the payload brings, in place, held against the objects of the patched build: each function with the
//! entries about it, the entries of `.livepatch.funcs`, the hooks; and nothing beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use xsplice_report::{Diagnostic, Place};

use super::AgainstObjects;
use super::code::{Comparison, Mismatch, Way, root};
use super::hooks;
use super::image::Applied;
use super::names::{Names, plain_stem};
use super::objects::{FUNC, Object, PatchedObject, is_name};
use super::special::{self, FRAME, Twin};
use crate::codes;
use crate::findings::Findings;
use crate::payload::{Payload, Symbol, Target};
use crate::ranges::{contains, merged};
use crate::verify::{Context, problem};

/// Bytes that the linker puts between functions: they trap, or do nothing.
const BETWEEN: [u8; 2] = [0xcc, 0x90];
/// More is not said of one payload.
const MOST_SAID: usize = 256;

/// A function of the objects.
type Home<'o, 'a> = (&'o Object<'a>, &'o Symbol<'a>);

/// What of a payload was compared with the objects.
#[derive(Default)]
struct Compared<'o, 'a> {
    /// Which function of the objects is at an address; `None` if the payload's is none of them, which is said.
    functions: BTreeMap<u64, Option<Home<'o, 'a>>>,
    /// Addresses of code that was compared, or is known to be like nothing in the objects.
    ranges: Vec<Range<u64>>,
    counts: AgainstObjects,
    said: Vec<Diagnostic>,
}

/// Compares everything.
pub(super) fn check(
    context: &Context<'_>,
    files: &[PatchedObject<'_>],
    applied: &Applied,
    findings: &mut Findings,
) -> AgainstObjects {
    let objects = read(files, findings);
    let mut names = Names::of(context);
    names.shared = shared(&objects);
    names.definitions = definitions(&objects);
    let mut compared = Compared::default();
    let finished = compared.functions(context, &objects, &names, applied);
    if finished {
        let ranges = merged(std::mem::take(&mut compared.ranges));
        entries_of_functions(applied, &names, &compared.functions, &mut compared.said);
        entries_of_nothing(context, &ranges, &mut compared.said);
        lost_code(context, &ranges, &mut compared.said);
        compared.counts.hooks = hooks::check(context, &objects, &names, &mut compared.said);
    }
    if names.effort.is_spent() {
        // What was said last may be so only for want of effort.
        compared.said.clear();
        let given_up = unknown_code("a part of it", "payload and objects ask for too much work");
        compared
            .said
            .push(given_up.advice("Build both again: what a compiler makes takes a small part of that."));
    }
    let Compared { counts, said, .. } = compared;
    said.into_iter().for_each(|diagnostic| findings.host(diagnostic));
    counts
}

fn read<'a>(files: &[PatchedObject<'a>], findings: &mut Findings) -> Vec<Object<'a>> {
    let mut objects = Vec::new();
    for (number, file) in files.iter().enumerate() {
        match Object::read(number, file) {
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
    objects
}

/// Names that several objects have, each for something that only it knows: without a file they mean nothing.
fn shared<'o>(objects: &'o [Object<'_>]) -> BTreeSet<&'o str> {
    let mut first: BTreeMap<&str, usize> = BTreeMap::new();
    let mut shared = BTreeSet::new();
    for (number, object) in objects.iter().enumerate() {
        let locals = object.elf.symbols.iter().filter(|s| s.binding == 0 && is_name(s) && !s.is_undefined());
        for name in locals.map(|symbol| plain_stem(symbol.name)) {
            if *first.entry(name).or_insert(number) != number {
                shared.insert(name);
            }
        }
    }
    shared
}

/// What objects define for others, by name.
fn definitions<'o>(objects: &'o [Object<'_>]) -> BTreeMap<&'o str, (&'o Object<'o>, &'o Symbol<'o>)> {
    let mut all = BTreeMap::new();
    for object in objects {
        for symbol in object.elf.symbols.iter().filter(|s| s.binding != 0 && is_name(s) && !s.is_undefined())
        {
            all.entry(symbol.name).or_insert((object, symbol));
        }
    }
    all
}

impl<'o, 'a> Compared<'o, 'a> {
    /// Compares each function with that of the objects; false if it was given up.
    fn functions(
        &mut self,
        context: &Context<'_>,
        objects: &'o [Object<'a>],
        names: &Names<'_>,
        applied: &Applied,
    ) -> bool {
        let twins = twins(objects);
        for (index, symbol) in functions(context.payload) {
            let Some(address) = context.low.symbol(index) else { continue };
            let found = find(&twins, names, symbol, |home| compare(context, names, applied, home, address));
            if names.effort.is_spent() {
                return false;
            }
            if self.said.len() >= MOST_SAID {
                self.said.push(unknown_code(symbol.name, "so much differs that the rest was not looked at"));
                return false;
            }
            let Some((home, comparison)) = found else {
                self.ranges.push(address..address.saturating_add(symbol.size));
                self.functions.entry(address).or_default();
                self.said.push(unknown_code(symbol.name, "no object has a function of that name and size"));
                continue;
            };
            self.said
                .extend(comparison.mismatches.iter().map(|mismatch| differs(symbol.name, home.0, mismatch)));
            self.counts.functions += 1;
            self.counts.references += comparison.references;
            self.counts.constants += comparison.constants;
            self.ranges.extend(comparison.covered);
            self.functions.insert(address, Some(home));
        }
        true
    }
}

/// Compares a function of the objects, and all code and data that it leads to and that the payload brings for it, with
/// what is at an address.
fn compare<'c>(
    context: &Context<'_>,
    names: &'c Names<'c>,
    applied: &'c Applied,
    (object, function): Home<'c, 'c>,
    address: u64,
) -> Comparison<'c> {
    let mut comparison = Comparison::new(object, names, applied);
    comparison.reach(object, Twin::of(object, function, address), root(function.name));
    loop {
        while let Some(part) = comparison.next_part() {
            let mut piece = Some(part.twin);
            while let Some(twin) = piece {
                comparison.covered.push(twin.range_in_place());
                special::compare(&mut comparison, context, part.object, twin);
                piece = comparison.next_piece();
            }
        }
        // Data may lead to further code.
        if !comparison.constants() {
            return comparison;
        }
    }
}

/// The functions of a payload.
fn functions<'p, 'a>(payload: &'p Payload<'a>) -> impl Iterator<Item = (usize, &'p Symbol<'a>)> {
    let is_function = |symbol: &Symbol<'_>| {
        let code = payload.sections.get(symbol.section).is_some_and(|section| section.is_code());
        symbol.kind == FUNC && code && symbol.section != 0
    };
    payload.symbols.iter().enumerate().filter(move |(_, symbol)| is_function(symbol))
}

/// All functions of the objects, by what is left of their names, and by size.
type Twins<'o, 'a> = BTreeMap<(&'o str, u64), Vec<Home<'o, 'a>>>;

fn twins<'o, 'a>(objects: &'o [Object<'a>]) -> Twins<'o, 'a> {
    let mut twins = Twins::new();
    for object in objects {
        let functions = object.elf.symbols.iter().filter(|s| s.kind == FUNC && !s.is_undefined());
        for function in functions {
            let key = (plain_stem(function.name), function.size);
            twins.entry(key).or_default().push((object, function));
        }
    }
    twins
}

/// The function of the objects that a payload's is: of that name and size, and where there are several the first that
/// compares best.
fn find<'o, 'a, 'c>(
    twins: &Twins<'o, 'a>,
    names: &Names<'_>,
    symbol: &Symbol<'_>,
    compare: impl Fn(Home<'o, 'a>) -> Comparison<'c>,
) -> Option<(Home<'o, 'a>, Comparison<'c>)> {
    let mut best: Option<(Home<'o, 'a>, Comparison<'c>)> = None;
    for &home in twins.get(&(plain_stem(symbol.name), symbol.size)).into_iter().flatten() {
        let (object, twin) = home;
        let wanted = object.wanted(twin);
        let fits = || wanted.is(symbol.name, true) || names.means_by(symbol.name, true, &wanted);
        if !names.effort.spend(1) || !fits() {
            continue;
        }
        let comparison = compare(home);
        let is_same = comparison.mismatches.is_empty();
        if best.as_ref().is_none_or(|(_, best)| comparison.mismatches.len() < best.mismatches.len()) {
            best = Some((home, comparison));
        }
        if is_same {
            break;
        }
    }
    best
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

/// What one difference is called.
fn differs(function: &str, object: &Object<'_>, mismatch: &Mismatch) -> Diagnostic {
    let Mismatch { way, part, offset, expected, found } = mismatch;
    let (code, what) = match way {
        Way::Code => (
            codes::IN_PLACE_CODE,
            format!("{function} has {found} at {offset:#x}, and its object {expected}"),
        ),
        Way::Entries => (codes::IN_PLACE_CODE, format!("{function} has {found}, and its object {expected}")),
        Way::Reference => (
            codes::IN_PLACE_REFERENCE,
            format!("{part}{function} refers to {found} at {offset:#x}, and its object to {expected}"),
        ),
    };
    problem(
        code,
        what,
        Place::object(object.path).symbol(function).offset(*offset),
        "The payload does something else than the patched source says.",
        "Do not load it. If the objects are those it was made of, report this.",
    )
}

/// Each entry of `.livepatch.funcs` replaces a function by its own patched form, as a whole.
fn entries_of_functions(
    applied: &Applied,
    names: &Names<'_>,
    functions: &BTreeMap<u64, Option<Home<'_, '_>>>,
    said: &mut Vec<Diagnostic>,
) {
    for patch in applied.patches() {
        let what = match functions.get(&patch.new) {
            None if patch.new == 0 => "NOPs, which no object asks for".to_owned(),
            None => format!("code at {:#x}, where no function of the objects starts", patch.new),
            Some(None) => continue,
            Some(Some((object, twin))) => match object.wanted(twin) {
                wanted if names.is(patch.old, &wanted) => continue,
                wanted => format!("{}, another function", wanted.shown()),
            },
        };
        if said.len() >= 2 * MOST_SAID {
            return;
        }
        said.push(problem(
            codes::TRAMPOLINE,
            format!("{} is replaced by {what}", patch.name),
            Place::none().section(".livepatch.funcs").symbol(patch.name.clone()),
            "Each function is to be replaced by its own patched form.",
            "Do not load it. If the objects are those it was made of, report this.",
        ));
    }
}

/// Entries of special sections are about code that was compared: each function was compared with all that are about it.
fn entries_of_nothing(context: &Context<'_>, compared: &[Range<u64>], said: &mut Vec<Diagnostic>) {
    let content = &context.content;
    let base = context.low.text.start;
    // The line number stands in the upper bits of a bug frame's displacement.
    let without_line = |address: u64| base.wrapping_add(address.wrapping_sub(base) & FRAME.cast_unsigned());
    let place = |target: Target| context.low.address(target);
    let frames =
        content.bug_frames.iter().map(|f| (f.section, f.offset, place(f.location).map(without_line)));
    let index = |name: &str| context.payload.section(name).map_or(0, |section| section.index);
    let (instructions, table, sites) =
        (index(".altinstructions"), index(".ex_table"), index(".alt_call_sites"));
    let alternatives = content.alternatives.iter().map(|a| (instructions, a.offset, place(a.original)));
    let faults = content.table_entries.iter().map(|e| (table, e.offset, place(e.fault)));
    let calls = content.call_sites.iter().map(|s| (sites, s.offset, place(s.site)));
    let all = frames.chain(alternatives).chain(faults).chain(calls);
    let strays = all.filter(|(_, _, address)| !address.is_some_and(|address| contains(compared, address)));
    said.extend(strays.take(8).map(|(section, offset, _)| {
        let name = format!("what the entry {}+{offset:#x} is about", context.payload.section_name(section));
        unknown_code(&name, "it belongs to no function")
    }));
}

/// Code that belongs to no function was compared with nothing.
fn lost_code(context: &Context<'_>, compared: &[Range<u64>], said: &mut Vec<Diagnostic>) {
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
        let lost = ranges.chain(std::iter::once(data.len()..data.len())).find_map(|range| {
            let gap = end..range.start;
            end = range.end;
            gap.into_iter().find(|&at| !BETWEEN.contains(&data[at]))
        });
        if let Some(at) = lost {
            let name = format!("{}+{at:#x}", section.name);
            said.push(unknown_code(&name, "it belongs to no function"));
        }
    }
}
