//! The verdict on two objects.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::{
    canon::{self, Line},
    class::Class,
    listing::Reloc,
    model::Target,
    object::Object,
    pair,
    same::{Pairs, Same},
};

/// What differs. Names are symbols as they stand in the object: in the base for what is there, else in the
/// patched one. All but `init_changed` is about what exists at run time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Functions in both that differ in meaning.
    pub changed: BTreeSet<String>,
    /// Functions only in the patched object.
    pub new: BTreeSet<String>,
    /// Functions only in the base.
    pub removed: BTreeSet<String>,
    /// Functions and variables that exist only at boot: changed, new or removed.
    pub init_changed: BTreeSet<String>,
    /// Variables that differ, by name. Numbered read-only ones (`CSWTCH.7`, a `static const` in a function)
    /// are not listed: a change of them is a change of the functions that use them.
    pub data: Vec<DataChange>,
    /// Differences there is no rule for, in sentences.
    pub unknown: Vec<String>,
    /// For each name in `changed` and changed one in `init_changed`: the first difference.
    pub why: BTreeMap<String, String>,
}

/// A variable that differs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DataChange {
    /// Its symbol.
    pub name: String,
    /// How it differs.
    pub what: What,
    /// What it is.
    pub class: DataClass,
    /// The section it is in, or was in where it is removed.
    pub section: String,
    /// Functions that refer to it by name: in the patched object, or in the base where it is removed.
    pub users: BTreeSet<String>,
}

/// How a variable differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// In both, with other content or another size.
    Changed,
    /// Only in the patched object.
    New,
    /// Only in the base.
    Removed,
}

/// What a variable is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DataClass {
    /// Written to at run time.
    Writable,
    /// One copy for each CPU.
    PerCpu,
    /// Read-only.
    Constant,
    /// In a section of a name that is not known.
    Other,
}

impl Verdict {
    /// Whether nothing differs, not even in what is not understood.
    pub fn is_same(&self) -> bool {
        *self == Verdict::default()
    }

    /// The same, but for what exists only at boot.
    pub fn is_same_at_run_time(&self) -> bool {
        let Verdict { changed, new, removed, init_changed: _, data, unknown, why: _ } = self;
        changed.is_empty() && new.is_empty() && removed.is_empty() && data.is_empty() && unknown.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sets = [
            ("changed", &self.changed),
            ("new", &self.new),
            ("removed", &self.removed),
            ("init", &self.init_changed),
        ];
        for (word, names) in sets {
            for name in names {
                match self.why.get(name) {
                    Some(why) => writeln!(out, "{word} {name}: {why}")?,
                    None => writeln!(out, "{word} {name}")?,
                }
            }
        }
        for change in &self.data {
            let DataChange { name, what, class, section, users } = change;
            let users = users.iter().cloned().collect::<Vec<_>>().join(" ");
            writeln!(out, "data {name}: {what:?} {class:?} {section} used by [{users}]")?;
        }
        self.unknown.iter().try_for_each(|unknown| writeln!(out, "unknown {unknown}"))
    }
}

pub(crate) fn judge(base: &Object, patched: &Object) -> Verdict {
    let pairs = pair::pair(base, patched);
    let mut judge = Judge { same: Same::new(base, patched, &pairs), verdict: Verdict::default() };
    judge.functions();
    judge.variables();
    judge.unknown();
    judge.verdict.data.sort();
    judge.verdict.unknown.sort();
    judge.verdict.unknown.dedup();
    judge.verdict
}

struct Judge<'a> {
    same: Same<'a>,
    verdict: Verdict,
}

impl<'a> Judge<'a> {
    fn pairs(&self) -> &'a Pairs {
        self.same.pairs
    }

    fn functions(&mut self) {
        let (base, patched) = (self.same.base, self.same.patched);
        for function in base.functions() {
            let name = base.model.items[function].name().to_owned();
            let init = is_init(base, function);
            let Some(other) = self.pairs().to_patched[function] else {
                self.removed(name, init);
                continue;
            };
            match (init, is_init(patched, other)) {
                (false, true) => self.removed(name, false),
                (true, false) => {
                    self.verdict.new.insert(patched.model.items[other].name().to_owned());
                    self.verdict.init_changed.insert(name);
                }
                _ if self.same.function(function, other) => {}
                _ => {
                    self.verdict.why.insert(name.clone(), self.difference(function, other));
                    let set = if init { &mut self.verdict.init_changed } else { &mut self.verdict.changed };
                    set.insert(name);
                }
            }
        }
        for function in patched.functions().filter(|&function| self.same.pairs.to_base[function].is_none()) {
            let name = patched.model.items[function].name().to_owned();
            let init = is_init(patched, function);
            if init {
                self.verdict.init_changed.insert(name)
            } else {
                self.verdict.new.insert(name)
            };
        }
    }

    fn removed(&mut self, name: String, init: bool) {
        let set = if init { &mut self.verdict.init_changed } else { &mut self.verdict.removed };
        set.insert(name);
    }

    /// The first line in which two functions differ.
    fn difference(&self, function: usize, other: usize) -> String {
        let (base, patched) = (self.same.base, self.same.patched);
        let (ours, theirs) = (base.fragments(function), patched.fragments(other));
        for (one, other) in ours.iter().zip(&theirs) {
            let (one, other) = (&base.lines[one], &patched.lines[other]);
            let at = one.iter().zip(other).take_while(|(one, other)| self.same.line(one, other)).count();
            let show = |line: Option<&Line>, object: &Object| {
                line.map_or("nothing".to_owned(), |line| canon::render_line(&object.model, line))
            };
            if at < one.len().max(other.len()) {
                let (one, other) = (show(one.get(at), base), show(other.get(at), patched));
                return format!("line {at}: `{one}` became `{other}`");
            }
        }
        format!("{} fragments became {}", ours.len(), theirs.len())
    }

    fn variables(&mut self) {
        let (base, patched) = (self.same.base, self.same.patched);
        for variable in base.variables() {
            match self.pairs().to_patched[variable] {
                None => self.variable(base, variable, What::Removed),
                Some(other) => {
                    let classes = (class_of(base, variable), class_of(patched, other));
                    if classes.0 != classes.1 || !self.same.variable(variable, other) {
                        self.variable(patched, other, What::Changed);
                        if classes.0.is_none() != classes.1.is_none() {
                            let name = base.model.items[variable].name();
                            let left = format!("{name} moved between boot and run time");
                            self.verdict.unknown.push(left);
                        }
                    }
                }
            }
        }
        for variable in patched.variables().filter(|&variable| self.same.pairs.to_base[variable].is_none()) {
            self.variable(patched, variable, What::New);
        }
    }

    fn variable(&mut self, object: &Object, item: usize, what: What) {
        let it = &object.model.items[item];
        let partner = self.pairs().to_base.get(item).copied().flatten();
        let name = match partner.filter(|_| what == What::Changed) {
            Some(partner) => self.same.base.model.items[partner].name().to_owned(),
            None => it.name().to_owned(),
        };
        let Some(class) = class_of(object, item) else {
            self.verdict.init_changed.insert(name);
            return;
        };
        let section = object.model.section(it.section).name.clone();
        let users = users(object, item);
        self.verdict.data.push(DataChange { name, what, class, section, users });
    }

    fn unknown(&mut self) {
        let (base, patched) = (self.same.base, self.same.patched);
        let mut remarks = Vec::new();
        for object in [base, patched] {
            remarks.extend(object.entries.odd.iter().cloned());
            for (number, section) in object.model.listing.sections.iter().enumerate() {
                if object.model.class(number) == Class::Ignored {
                    continue;
                }
                let unknown = section.relocs.iter().filter(|reloc| !Reloc::known(reloc));
                remarks
                    .extend(unknown.map(|it| format!("relocation of type {} in {}", it.kind, section.name)));
            }
        }
        let names = base.entries.stray.keys().chain(patched.entries.stray.keys());
        for name in names {
            let none = Vec::new();
            let ours = base.entries.stray.get(name).unwrap_or(&none);
            let theirs = patched.entries.stray.get(name).unwrap_or(&none);
            if !self.same.lines(ours, theirs) {
                remarks.push(format!("entries of {name} that describe no known code differ"));
            }
        }
        remarks.extend(self.leftovers());
        self.verdict.unknown.extend(remarks);
    }

    /// Stretches without names, by the names of their sections, in order.
    fn leftovers(&self) -> Vec<String> {
        let (base, patched) = (self.same.base, self.same.patched);
        let group = |object: &Object| {
            let mut found: BTreeMap<String, Vec<(usize, u64, u64)>> = BTreeMap::new();
            for (section, start, end) in object.leftovers() {
                let name = object.model.section(section).name.clone();
                found.entry(name).or_default().push((section, start, end));
            }
            found
        };
        let (ours, mut theirs) = (group(base), group(patched));
        let mut remarks = Vec::new();
        for (name, stretches) in ours {
            let others = theirs.remove(&name).unwrap_or_default();
            let equal = stretches.len() == others.len()
                && stretches.iter().zip(&others).all(|(one, other)| {
                    if base.model.section(one.0).has('X') {
                        let ours = canon::code(&base.model, one.0, one.1, one.2, true);
                        return self
                            .same
                            .lines(&ours, &canon::code(&patched.model, other.0, other.1, other.2, true));
                    }
                    self.same.content(*one, *other, true)
                });
            if !equal {
                remarks.push(format!("bytes of {name} that belong to no symbol differ"));
            }
        }
        remarks.extend(theirs.keys().map(|name| format!("bytes of {name} that belong to no symbol are new")));
        remarks
    }
}

fn is_init(object: &Object, item: usize) -> bool {
    object.model.class(object.model.items[item].section).is_init()
}

/// The class of a variable; none for what exists only at boot.
fn class_of(object: &Object, item: usize) -> Option<DataClass> {
    match object.model.class(object.model.items[item].section) {
        Class::Init(_) => None,
        Class::PerCpu => Some(DataClass::PerCpu),
        Class::Constant => Some(DataClass::Constant),
        Class::Writable => Some(DataClass::Writable),
        Class::Unknown(_) | Class::Code | Class::Aside | Class::Special | Class::Ignored => {
            Some(DataClass::Other)
        }
    }
}

fn users(object: &Object, variable: usize) -> BTreeSet<String> {
    let uses = |lines: &[Line]| {
        let mut targets = lines.iter().flat_map(|line| &line.refs);
        targets.any(|(_, target)| matches!(target, Target::Item(item, ..) if *item == variable))
    };
    let functions = object
        .functions()
        .filter(|&function| object.fragments(function).iter().any(|fragment| uses(&object.lines[fragment])));
    functions.map(|function| object.model.items[function].name().to_owned()).collect()
}
