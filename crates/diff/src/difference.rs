//! The first difference between two versions of code or data, in words and by source line.

use std::collections::BTreeMap;

use xsplice_dwarf::DebugInfo;
use xsplice_report::{Difference, DifferenceKind, Site};

use crate::items::{ItemId, Items};
use crate::listing::{self, Line};
use crate::meaning::{Content, EntryMeaning, Fingerprint, Meaning, fragment_name};
use crate::words;

/// One version of a function.
pub(crate) struct Version<'v> {
    /// The object's items.
    pub(crate) items: &'v Items<'v>,
    /// The object's debug information.
    pub(crate) debug: Option<&'v DebugInfo>,
    /// The function.
    pub(crate) head: ItemId,
    /// What it means.
    pub(crate) print: &'v Fingerprint,
}

impl Version<'_> {
    fn name(&self) -> &str {
        &self.items.get(self.head).name
    }

    /// A place in a fragment, with its source line.
    fn site(&self, fragment: &str, offset: u64, instruction: String) -> Site {
        let mut candidates =
            self.items.fragments(self.head).into_iter().filter(|&id| {
                fragment_name(self.items, id) == fragment && offset <= self.items.get(id).size()
            });
        let found = candidates.next().filter(|_| candidates.next().is_none());
        let line = found.and_then(|id| {
            let item = self.items.get(id);
            self.debug?.line_in_section(item.section.0, item.start + offset)
        });
        let (file, line) = line.map_or((None, None), |(file, line)| (Some(file), Some(line)));
        Site { fragment: fragment.to_owned(), offset, instruction, file, line }
    }

    /// The place that a special-section entry points at.
    fn entry_site(&self, entry: &EntryMeaning) -> Option<Site> {
        let (_, _, Meaning::Inside(fragment, offset)) = entry.fields.first()? else { return None };
        let offset = u64::try_from(*offset).ok()?;
        let (_, content) = self.print.fragments.iter().find(|(name, _)| name == fragment)?;
        let lines = listing::lines(content);
        let instruction = lines.iter().find(|line| line.offset == offset).map(|line| line.text(self.name()));
        Some(self.site(fragment, offset, instruction.unwrap_or_default()))
    }
}

/// The first difference of two functions that are known to differ.
pub(crate) fn of_functions(before: &Version<'_>, after: &Version<'_>) -> Difference {
    let fragments = before.print.fragments.iter().zip(&after.print.fragments);
    for ((b_name, b), (a_name, a)) in fragments {
        if b_name == a_name && b == a {
            continue;
        }
        if b_name != a_name {
            break;
        }
        return of_fragment(before, after, b_name, b, a);
    }
    let names = |version: &Version<'_>| -> Vec<String> {
        version.print.fragments[1..].iter().map(|(name, _)| format!(".{name}")).collect()
    };
    let (b, a) = (names(before), names(after));
    if b != a {
        let list = |names: &[String]| if names.is_empty() { "none".into() } else { names.join(", ") };
        let what = format!("its fragments were {} and are {}", list(&b), list(&a));
        return Difference::new(DifferenceKind::Fragments, what);
    }
    of_entries(before, after)
}

fn of_fragment(
    before: &Version<'_>,
    after: &Version<'_>,
    fragment: &str,
    b: &Content,
    a: &Content,
) -> Difference {
    let (b_lines, a_lines) = (listing::lines(b), listing::lines(a));
    let (b, a) = first_lines(&b_lines, &a_lines);
    let prefix = if fragment.is_empty() { String::new() } else { format!("in .{fragment} ") };
    let site = |version: &Version<'_>, line: Option<&Line<'_>>| {
        line.map(|line| version.site(fragment, line.offset, line.text(version.name())))
    };
    Difference {
        kind: DifferenceKind::Code,
        what: prefix + &sentence(b, a, before.name(), after.name()),
        before: site(before, b),
        after: site(after, a),
    }
}

/// The first difference of two pieces of code of a function, in words.
pub(crate) fn in_code(before: &Content, after: &Content, function: &str) -> String {
    let (b_lines, a_lines) = (listing::lines(before), listing::lines(after));
    let (b, a) = first_lines(&b_lines, &a_lines);
    sentence(b, a, function, function)
}

fn sentence(before: Option<&Line<'_>>, after: Option<&Line<'_>>, b_name: &str, a_name: &str) -> String {
    match (before, after) {
        (Some(b), Some(a)) => {
            let (b_text, a_text) = (b.text(b_name), a.text(a_name));
            let inner = b.references.iter().zip(a.references).find(|(b, a)| b.2 != a.2);
            // Of code without a name the size alone would say nothing.
            let aside = b.bytes == a.bytes
                && b.transfers_control()
                && matches!(inner, Some(((_, _, Meaning::Bytes(..)), (_, _, Meaning::Bytes(..)))));
            if b_text != a_text && !aside {
                return format!("at +{:#x} `{b_text}` became `{a_text}`", b.offset);
            }
            let inner =
                inner.map(|(b_ref, a_ref)| in_meaning(&b_ref.2, &a_ref.2, b.transfers_control(), a_name));
            format!(
                "at +{:#x} `{b_text}`: {}",
                b.offset,
                inner.unwrap_or_else(|| "its encoding differs".into())
            )
        }
        (Some(b), None) => format!("at +{:#x} `{}` is gone", b.offset, b.text(b_name)),
        (None, Some(a)) => format!("at +{:#x} `{}` is new", a.offset, a.text(a_name)),
        (None, None) => "the bytes differ".into(),
    }
}

/// The first lines that differ. Code that grows or shrinks moves what is behind it, and with that the targets of
/// jumps in front of it: those are passed over as long as they may still lead to the same place.
fn first_lines<'l, 'c>(
    before: &'l [Line<'c>],
    after: &'l [Line<'c>],
) -> (Option<&'l Line<'c>>, Option<&'l Line<'c>>) {
    let equal = before.iter().zip(after).take_while(|(b, a)| b.jumps_like(a) || b.equals(a)).count();
    let by_offset = |lines: &[Line<'_>]| -> BTreeMap<u64, usize> {
        lines.iter().enumerate().map(|(index, line)| (line.offset, index)).collect()
    };
    let (b_index, a_index) = (by_offset(before), by_offset(after));
    let leads_elsewhere = |index: &usize| {
        let (Some(b), Some(a)) = (before[*index].jump, after[*index].jump) else { return false };
        match (b_index.get(&b), a_index.get(&a)) {
            // Behind the first other difference nothing can be said.
            (Some(b), Some(a)) => b != a && (*b <= equal || *a <= equal),
            (b, a) => b.is_some() != a.is_some() || before[*index].bytes != after[*index].bytes,
        }
    };
    let at = (0..equal).find(leads_elsewhere).unwrap_or(equal);
    let differing = (before.get(at), after.get(at));
    if differing.0.is_some() || differing.1.is_some() {
        return differing;
    }
    // Nothing but the form of jumps differs.
    let found = before.iter().zip(after).find(|(b, a)| !b.equals(a));
    (found.map(|(b, _)| b), found.map(|(_, a)| a))
}

/// The difference of two things that read the same.
fn in_meaning(before: &Meaning, after: &Meaning, code: bool, function: &str) -> String {
    match (before, after) {
        (Meaning::Text(b), Meaning::Text(a)) => {
            let differs = b.iter().zip(a).take_while(|(b, a)| b == a).count();
            format!("its string was {} and is {}", words::excerpt(b, differs), words::excerpt(a, differs))
        }
        (Meaning::Bytes(b, _), Meaning::Bytes(a, _)) if b != a && code => {
            format!("in the code there, {}", in_code(b, a, function))
        }
        (Meaning::Bytes(b, _), Meaning::Bytes(a, _)) if b != a => {
            format!("in what it refers to, {}", in_data(b, a, function))
        }
        _ => format!(
            "it refers to {} instead of {}",
            words::name(after, function),
            words::name(before, function)
        ),
    }
}

fn of_entries(before: &Version<'_>, after: &Version<'_>) -> Difference {
    let (only_b, only_a) = only(&before.print.entries, &after.print.entries);
    let place = |entry: &EntryMeaning| entry.fields.first().map(|field| field.2.clone());
    let same_place = |same_table: bool| {
        only_b.iter().find_map(|b| {
            let pair = only_a.iter().find(|a| {
                place(a) == place(b)
                    && (a.table == b.table || !same_table && words::kind_of(a) == words::kind_of(b))
            });
            pair.map(|a| (*b, *a))
        })
    };
    let name = after.name();
    if let Some((b, a)) = same_place(true).or_else(|| same_place(false)) {
        return Difference {
            kind: words::kind_of(b),
            what: words::both(b, a, name),
            before: before.entry_site(b),
            after: after.entry_site(a),
        };
    }
    if let Some(b) = only_b.first() {
        let what = words::alone(b, name, false);
        return Difference { kind: words::kind_of(b), what, before: before.entry_site(b), after: None };
    }
    if let Some(a) = only_a.first() {
        let what = words::alone(a, name, true);
        return Difference { kind: words::kind_of(a), what, before: None, after: after.entry_site(a) };
    }
    Difference::new(DifferenceKind::Code, "the order of what it consists of differs")
}

/// What only the one list has, and what only the other has, each as often as it is there once too many.
fn only<'e>(
    before: &'e [EntryMeaning],
    after: &'e [EntryMeaning],
) -> (Vec<&'e EntryMeaning>, Vec<&'e EntryMeaning>) {
    let mut counts: BTreeMap<&EntryMeaning, i64> = BTreeMap::new();
    for entry in before {
        *counts.entry(entry).or_default() += 1;
    }
    for entry in after {
        *counts.entry(entry).or_default() -= 1;
    }
    let mut only = (Vec::new(), Vec::new());
    for (entry, count) in counts {
        let list = if count > 0 { &mut only.0 } else { &mut only.1 };
        list.extend(std::iter::repeat_n(entry, usize::try_from(count.abs()).unwrap_or(0)));
    }
    only
}

/// The first difference of two pieces of data.
pub(crate) fn of_data(before: &Content, after: &Content) -> String {
    in_data(before, after, "the function")
}

fn in_data(before: &Content, after: &Content, function: &str) -> String {
    if before.bytes.len() != after.bytes.len() {
        return format!("{} bytes became {}", before.bytes.len(), after.bytes.len());
    }
    if let Some(at) = before.bytes.iter().zip(&after.bytes).position(|(b, a)| b != a) {
        return format!("byte {at} was {:#04x} and is {:#04x}", before.bytes[at], after.bytes[at]);
    }
    let pairs = before.references.iter().zip(&after.references);
    match pairs.into_iter().find(|(b, a)| b != a) {
        Some((b, a)) => {
            let (was, is) = (words::name(&b.2, function), words::name(&a.2, function));
            if was == is {
                let inner = in_meaning(&b.2, &a.2, false, function);
                return format!("at byte {} it points to {is}: {inner}", a.0);
            }
            format!("at byte {} it pointed to {was} and points to {is}", a.0)
        }
        None => "it holds other references, or stands in another kind of section".into(),
    }
}
