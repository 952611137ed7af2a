//! Which names are at which address, and whether one of them is the one that an object means.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::effort::Effort;
use super::objects::{FUNC, Object};
use crate::layout::Placed;
use crate::payload::{Payload, Symbol};
use crate::verify::Context;

/// What an object calls something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted<'o> {
    /// Its name there.
    pub(super) name: &'o str,
    /// Whether only that object knows it.
    pub(super) local: bool,
    /// The object's source as its symbols have it: a name, or the end of a path.
    pub(super) file: Option<&'o str>,
}

impl Wanted<'_> {
    /// As messages show it.
    pub(super) fn shown(&self) -> String {
        match self.file.filter(|_| self.local) {
            Some(file) => format!("{file}#{}", self.name),
            None => self.name.to_owned(),
        }
    }

    /// Whether a name of Xen's form, `file#name` for locals, means it. In a payload, locals may stand without a file.
    pub(super) fn is(&self, name: &str, in_payload: bool) -> bool {
        let Some((file, plain)) = name.rsplit_once('#') else {
            let same = name == self.name || (self.local && stem(name) == stem(self.name));
            return same && (!self.local || in_payload || self.file.is_none());
        };
        let one = |own: &str| own == file || ends_path(file, own) || ends_path(own, file);
        self.local && stem(plain) == stem(self.name) && self.file.is_none_or(one)
    }
}

/// Whether a path ends with these parts.
fn ends_path(path: &str, end: &str) -> bool {
    path.strip_suffix(end).is_some_and(|front| front.ends_with('/'))
}

/// What names of one thing have in common: without the file, and without the number.
pub(super) fn plain_stem(name: &str) -> &str {
    stem(name.rsplit_once('#').map_or(name, |(_, plain)| plain))
}

/// A name without the number that the compiler gives to one of several of that name: it counts anew in each build.
fn stem(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((front, number)) if !front.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => front,
        _ => name,
    }
}

/// Whose memory an address is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// The hypervisor's.
    Xen,
    /// That of a payload below.
    Below,
    /// The payload's own.
    Payload,
}

struct Entry<'a> {
    address: u64,
    name: &'a str,
    owner: Owner,
}

/// All names of the hypervisor, of the payloads below, and of the payload, by address.
pub(super) struct Names<'a> {
    entries: Vec<Entry<'a>>,
    payload: Range<u64>,
    below: Vec<Range<u64>>,
    /// Names that several of the objects have, each for something that only it knows.
    pub(super) shared: BTreeSet<&'a str>,
    /// What the objects define for others.
    pub(super) definitions: BTreeMap<&'a str, (&'a Object<'a>, &'a Symbol<'a>)>,
    /// What looking for them, and all that is compared by them, may still cost.
    pub(super) effort: Effort,
}

impl<'a> Names<'a> {
    pub(super) fn of(context: &'a Context<'a>) -> Names<'a> {
        let mut entries: Vec<Entry<'a>> = Vec::new();
        for symbol in context.xen.iter().flat_map(|xen| xen.symbols()) {
            entries.push(Entry { address: symbol.address, name: &symbol.table_name, owner: Owner::Xen });
        }
        let mut add = |payload: &'a Payload<'a>, placed: &Placed, owner: Owner| {
            for (index, symbol) in payload.symbols.iter().enumerate().skip(1) {
                // Of names in code, those of functions: what they stand for is compared.
                let home = payload.sections.get(symbol.section).filter(|section| section.is_loaded());
                let counts = home.is_some_and(|home| !home.is_code() || symbol.kind == FUNC);
                if let Some(address) = placed.symbol(index).filter(|_| counts && !symbol.name.is_empty()) {
                    entries.push(Entry { address, name: symbol.name, owner });
                }
            }
        };
        for below in &context.below {
            add(&below.payload, &below.placed, Owner::Below);
        }
        add(context.payload, &context.low, Owner::Payload);
        entries.sort_by_key(|entry| entry.address);
        let range = |placed: &Placed| placed.text.start..placed.text.start.saturating_add(placed.size);
        Names {
            entries,
            payload: range(&context.low),
            below: context.below.iter().map(|below| range(&below.placed)).collect(),
            shared: BTreeSet::new(),
            definitions: BTreeMap::new(),
            effort: Effort::full(),
        }
    }

    /// Whose memory it is.
    pub(super) fn owner(&self, address: u64) -> Owner {
        if self.payload.contains(&address) {
            Owner::Payload
        } else if self.below.iter().any(|range| range.contains(&address)) {
            Owner::Below
        } else {
            Owner::Xen
        }
    }

    fn at(&self, address: u64) -> impl Iterator<Item = &Entry<'a>> {
        let first = self.entries.partition_point(|entry| entry.address < address);
        self.entries[first..].iter().take_while(move |entry| entry.address == address)
    }

    /// Whether anything is named just there.
    pub(super) fn is_named(&self, address: u64) -> bool {
        self.at(address).next().is_some()
    }

    /// Whether it is what an object means.
    pub(super) fn is(&self, address: u64, wanted: &Wanted<'_>) -> bool {
        let affordable = |entry: &&Entry<'_>| self.effort.spend(1 + entry.name.len());
        self.effort.spend(1) && self.at(address).take_while(affordable).any(|entry| self.means(entry, wanted))
    }

    /// Whether the hypervisor or a payload below has what an object means.
    pub(super) fn is_elsewhere(&self, wanted: &Wanted<'_>) -> bool {
        let mut others = self.entries.iter().filter(|entry| entry.owner != Owner::Payload);
        self.effort.spend(self.entries.len()) && others.any(|entry| self.means(entry, wanted))
    }

    /// How many things of the hypervisor and of payloads below are what an object means, numbers aside.
    pub(super) fn count_elsewhere(&self, wanted: &Wanted<'_>) -> usize {
        let others = self.entries.iter().filter(|entry| entry.owner != Owner::Payload);
        self.effort.spend(self.entries.len());
        others.filter(|entry| wanted.is(entry.name, entry.owner != Owner::Xen)).count()
    }

    fn means(&self, entry: &Entry<'_>, wanted: &Wanted<'_>) -> bool {
        self.means_by(entry.name, entry.owner != Owner::Xen, wanted)
    }

    /// Whether a name of the hypervisor, or of a payload, is what an object means. A patch may make a global of what was
    /// local, and the reverse; what is replaced keeps the name that it had.
    pub(super) fn means_by(&self, name: &str, in_payload: bool, wanted: &Wanted<'_>) -> bool {
        let has_file = name.contains('#');
        if wanted.is(name, in_payload) {
            let of_any = in_payload && wanted.local && !has_file;
            return !(of_any && self.shared.contains(plain_stem(wanted.name)));
        }
        if !wanted.local && has_file {
            let definition = self.definitions.get(wanted.name);
            return definition.is_some_and(|(object, _)| {
                Wanted { local: true, file: object.file, ..*wanted }.is(name, in_payload)
            });
        }
        let was_global = wanted.local && !in_payload && !has_file && name == wanted.name;
        was_global
            && !self.definitions.contains_key(wanted.name)
            && self.effort.spend(self.entries.len())
            && !self.entries.iter().any(|other| other.owner == Owner::Xen && wanted.is(other.name, false))
    }

    /// An address in words: by the last name in front of it.
    pub(super) fn shown(&self, address: u64) -> String {
        let behind = self.entries.partition_point(|entry| entry.address <= address);
        let nearest = self.entries[..behind].last().filter(|entry| entry.owner == self.owner(address));
        match nearest {
            Some(entry) if entry.address == address => format!("{} at {address:#x}", entry.name),
            Some(entry) => format!("{}+{:#x} at {address:#x}", entry.name, address - entry.address),
            None => format!("{address:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_objects_are_those_of_the_table() {
        let global = Wanted { name: "f", local: false, file: Some("domain.c") };
        assert!(global.is("f", false));
        assert!(!global.is("common/domain.c#f", false) && !global.is("g", false) && !global.is("f.1", false));
        let local = Wanted { name: "f", local: true, ..global };
        assert!(local.is("common/domain.c#f", false) && local.is("domain.c#f", false));
        assert!(!local.is("common/xdomain.c#f", false) && !local.is("f", false));
        assert!(local.is("f", true));
        // An object that was given its path.
        let path = Wanted { file: Some("common/domain.c"), ..local };
        assert!(path.is("common/domain.c#f", false) && path.is("domain.c#f", false));
        assert!(!path.is("arch/x86/domain.c#f", false));
    }

    #[test]
    fn numbers_that_the_compiler_gives_do_not_count_for_locals() {
        let local = Wanted { name: "seen.12", local: true, file: Some("a.c") };
        assert!(local.is("common/a.c#seen.3", false));
        assert!(!local.is("common/a.c#seen.x", false) && !local.is("common/a.c#see.3", false));
        assert_eq!(local.shown(), "a.c#seen.12");
    }
}
