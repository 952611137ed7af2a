//! One source's objects before and after the patch, and how their items correspond.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use xsplice_dwarf::DebugInfo;
use xsplice_objects::{Class, Home, Object, Relocation, SectionId};
use xsplice_report::{Diagnostic, Place, Problems};

use crate::codes::{AMBIGUOUS_DATA, NO_DEBUG_INFO};
use crate::entries::{Entries, other_sizes};
use crate::items::{Item, ItemId, ItemKind, Items};
use crate::meaning::{Known, View};
use crate::names;

/// The bytes of an object before and after the patch.
#[derive(Debug, Clone, Copy)]
pub struct Input<'b> {
    /// Path of the object relative to the tree.
    pub path: &'b str,
    /// Path of its source relative to the tree.
    pub source: &'b str,
    /// Whether the source is assembler.
    pub assembler: bool,
    /// `None` where the patch brings the source.
    pub base: Option<&'b [u8]>,
    /// `None` where the patch removes the source.
    pub patched: Option<&'b [u8]>,
}

/// A pair of parsed objects.
#[derive(Debug)]
pub struct ObjectPair {
    /// Path of the object relative to the tree.
    pub path: String,
    /// Path of its source relative to the tree.
    pub source: String,
    /// Whether the source is assembler.
    pub assembler: bool,
    /// Whether the patch leaves the object alone: both sides are the same.
    pub untouched: bool,
    /// Before the patch; empty where the patch brings the source.
    pub base: Object,
    /// After the patch; empty where the patch removes the source.
    pub patched: Object,
    /// Debug information before the patch.
    pub base_debug: Option<DebugInfo>,
    /// Debug information after the patch.
    pub patched_debug: Option<DebugInfo>,
}

impl ObjectPair {
    /// Parses both sides.
    ///
    /// # Errors
    /// When one of them cannot be read or uses what is not understood; everything found is reported.
    pub fn parse(input: Input<'_>) -> Result<ObjectPair, Problems> {
        let empty =
            || Object { path: input.path.into(), sections: Vec::new(), symbols: Vec::new(), file: None };
        let object =
            |bytes: Option<&[u8]>| bytes.map_or_else(|| Ok(empty()), |b| Object::parse(input.path, b));
        let debug = |bytes: Option<&[u8]>| match bytes {
            Some(bytes) => DebugInfo::read(bytes).map_err(|error| {
                Problems::from(
                    Diagnostic::new(NO_DEBUG_INFO, format!("the debug information cannot be read: {error}"))
                        .at(Place::object(input.path))
                        .why("Without it a changed structure layout would go unnoticed.")
                        .advice("Check the build's log; xsplice adds -g to every compile by itself."),
                )
            }),
            None => Ok(None),
        };
        let mut problems = Problems::new();
        let mut keep = |problem: Problems| problems.extend(problem);
        let base = object(input.base).map_err(&mut keep).ok();
        let patched = object(input.patched).map_err(&mut keep).ok();
        let base_debug = debug(input.base).map_err(&mut keep).ok();
        let patched_debug = debug(input.patched).map_err(&mut keep).ok();
        match (base, patched, base_debug, patched_debug) {
            (Some(base), Some(patched), Some(base_debug), Some(patched_debug)) => Ok(ObjectPair {
                path: input.path.into(),
                source: input.source.into(),
                assembler: input.assembler,
                untouched: input.base == input.patched,
                base,
                patched,
                base_debug,
                patched_debug,
            }),
            _ => Err(problems),
        }
    }

    /// The line where a function or variable stands in the patched source, else in the original.
    pub fn line_of(&self, name: &str) -> Option<(String, u32)> {
        let name = names::cold_of(name).unwrap_or(name);
        let name = name.split('.').next().unwrap_or(name);
        [&self.patched_debug, &self.base_debug]
            .into_iter()
            .flatten()
            .find_map(|debug| debug.function_line(name).or_else(|| debug.variable_line(name)))
    }

    /// A place that names a symbol of this pair with its source line.
    pub fn place(&self, name: &str) -> Place {
        let place = Place::object(&self.path).symbol(name);
        match self.line_of(name) {
            Some((file, line)) => place.source(file, Some(line)),
            None => place.source(&self.source, None),
        }
    }
}

/// A pair taken apart.
pub struct Parts<'p> {
    /// The pair.
    pub pair: &'p ObjectPair,
    /// Items before the patch.
    pub base: Items<'p>,
    /// Items after the patch.
    pub patched: Items<'p>,
    /// Special-section entries before the patch.
    pub base_entries: Entries,
    /// Special-section entries after the patch.
    pub patched_entries: Entries,
}

impl<'p> Parts<'p> {
    /// Takes both sides apart.
    ///
    /// # Errors
    /// When a special section has an unknown form.
    pub fn of(pair: &'p ObjectPair) -> Result<Parts<'p>, Problems> {
        let problems = other_sizes(pair);
        if !problems.0.is_empty() {
            return Err(problems);
        }
        let base = Items::of(&pair.base);
        let patched = Items::of(&pair.patched);
        let base_entries = Entries::of(&base)?;
        let patched_entries = Entries::of(&patched)?;
        Ok(Parts { pair, base, patched, base_entries, patched_entries })
    }
}

/// How the items of a pair correspond: total, since what has no counterpart is named as such.
pub struct Correlated<'p> {
    /// The parts.
    pub parts: &'p Parts<'p>,
    /// The original object's view.
    pub base: View<'p>,
    /// The patched object's view, which speaks of corresponding items as the original does.
    pub patched: View<'p>,
    /// For each patched item its counterpart in the original.
    pub counterpart: Vec<Option<ItemId>>,
    /// Changed read-only data of the patched object that comes along as a new copy, with the first difference.
    pub(crate) copies: BTreeMap<ItemId, String>,
    /// Variables for which several counterparts are possible.
    pub problems: Problems,
}

impl<'p> Correlated<'p> {
    /// Read-only data that changed, and so gets a new copy in the payload: items of the patched object.
    pub fn new_copies(&self) -> impl Iterator<Item = ItemId> {
        self.copies.keys().copied()
    }

    /// Finds the counterpart of every patched item.
    pub fn of(parts: &'p Parts<'p>) -> Correlated<'p> {
        let mut correlated = Correlated {
            parts,
            base: View::plain(&parts.base),
            patched: View::plain(&parts.patched),
            counterpart: vec![None; parts.patched.iter().count()],
            copies: BTreeMap::new(),
            problems: Problems::new(),
        };
        correlated.match_clones();
        correlated.match_by_name();
        correlated.match_numbered();
        correlated.rename();
        correlated
    }

    /// Clones of one function (`foo.constprop.0` and `.1`) whose numbers may have shifted: equal code comes first,
    /// whatever its number. It decides only what counts as changed; see [`Self::match_numbered`].
    fn match_clones(&mut self) {
        let (before, after) = (clones(&self.parts.base), clones(&self.parts.patched));
        for (name, mut patched) in after {
            let Some(mut base) = before.get(name).cloned() else { continue };
            if let ([_], [_]) = (&base[..], &patched[..]) {
                continue;
            }
            let name_of = |items: &Items<'_>, id: ItemId| items.get(id).name.clone();
            let plain = |items: &Items<'_>, view: &View<'_>, id: ItemId| {
                let item = items.get(id);
                view.code(item.section, item.start, item.end, Some(id)).bytes
            };
            let [old, new] =
                [(&self.parts.base, &self.base, &base), (&self.parts.patched, &self.patched, &patched)].map(
                    |(items, view, ids)| -> BTreeMap<ItemId, (String, Vec<u8>)> {
                        ids.iter().map(|&id| (id, (name_of(items, id), plain(items, view, id)))).collect()
                    },
                );
            for keep_number in [true, false] {
                let shared =
                    |(name, code): &'_ (String, Vec<u8>)| (keep_number.then(|| name.clone()), code.clone());
                let of_base = |b: ItemId| vec![shared(&old[&b])];
                let of_patched = |p: ItemId| vec![shared(&new[&p])];
                for (b, p) in only_fits(&mut base, &mut patched, of_base, of_patched, |_, _| true) {
                    let (from, to) = (self.parts.base.fragments(b), self.parts.patched.fragments(p));
                    if from.len() == to.len() {
                        for (b, p) in from.into_iter().zip(to) {
                            self.counterpart[p.0] = Some(b);
                        }
                    }
                }
            }
        }
    }

    fn match_by_name(&mut self) {
        let by_name = index(&self.parts.base);
        let taken: BTreeSet<ItemId> = self.counterpart.iter().flatten().copied().collect();
        for (id, item) in self.parts.patched.iter() {
            let counted = matches!(item.kind, ItemKind::Blob | ItemKind::Aside) || is_counted_data(item);
            if counted || self.counterpart[id.0].is_some() {
                continue;
            }
            let names = std::iter::once(&item.name).chain(&item.aliases);
            self.counterpart[id.0] = names
                .filter_map(|name| by_name.get(name.as_str()))
                .find_map(|ids| {
                    let free = |base: &&ItemId| !taken.contains(base);
                    ids.iter().filter(free).find(|&&base| same_sort(self.parts.base.get(base), item))
                })
                .copied();
        }
    }

    /// Items whose names the compiler counts. For functions any choice is sound, since callers that use another
    /// one count as changed; for variables a wrong choice would give code another variable.
    fn match_numbered(&mut self) {
        let taken: BTreeSet<ItemId> = self.counterpart.iter().flatten().copied().collect();
        let mut groups: BTreeMap<(String, ItemKind), (Vec<ItemId>, Vec<ItemId>)> = BTreeMap::new();
        let key = |item: &Item| (names::unnumbered(&item.name).to_owned(), item.kind);
        for (id, item) in self.parts.base.iter() {
            if names::is_numbered(&item.name) && item.local && !taken.contains(&id) {
                groups.entry(key(item)).or_default().0.push(id);
            }
        }
        for (id, item) in self.parts.patched.iter() {
            if names::is_numbered(&item.name) && item.local && self.counterpart[id.0].is_none() {
                groups.entry(key(item)).or_default().1.push(id);
            }
        }
        // Without a choice nobody asks who uses what.
        groups.retain(|_, (base, patched)| !base.is_empty() && !patched.is_empty());
        let data = || groups.iter().filter(|((_, kind), _)| *kind != ItemKind::Function).map(|(_, ids)| ids);
        let base_users = users(&self.parts.base, data().flat_map(|(base, _)| base));
        let patched_users = users(&self.parts.patched, data().flat_map(|(_, patched)| patched));
        for ((name, kind), (base, patched)) in groups {
            if kind == ItemKind::Function {
                if let ([b], [p]) = (&base[..], &patched[..]) {
                    self.counterpart[p.0] = Some(*b);
                }
                continue;
            }
            self.match_group(&name, base, patched, &base_users, &patched_users);
        }
    }

    fn match_group(
        &mut self,
        name: &str,
        mut base: Vec<ItemId>,
        mut patched: Vec<ItemId>,
        bu: &Users,
        pu: &Users,
    ) {
        if let ([b], [p]) = (&base[..], &patched[..])
            && same_sort(self.parts.base.get(*b), self.parts.patched.get(*p))
            && (shares_user(bu.get(b), pu.get(p)) || bu.get(b).is_none())
        {
            self.counterpart[p.0] = Some(*b);
            return;
        }
        type Test = (for<'u> fn(&Item, Option<&'u Use>) -> Vec<Shared<'u>>, fn(&Item, &Item) -> bool);
        let tests: [Test; 4] = [
            // The same place of equal code is sure.
            (|_, used| places(used), same_sort),
            (
                |item, used| vec![Shared::Contexts(item.size(), item.class, used.map(Use::contexts))],
                |_, _| true,
            ),
            (|_, used| functions(used), |b, p| b.size() == p.size() && b.class == p.class),
            (|_, used| functions(used), same_sort),
        ];
        let parts = self.parts;
        for (shared, fits) in tests {
            let of_base = |b: ItemId| shared(parts.base.get(b), bu.get(&b));
            let of_patched = |p: ItemId| shared(parts.patched.get(p), pu.get(&p));
            let fits = |b: ItemId, p: ItemId| fits(parts.base.get(b), parts.patched.get(p));
            for (b, p) in only_fits(&mut base, &mut patched, of_base, of_patched, fits) {
                self.counterpart[p.0] = Some(b);
            }
        }
        // Left over on both sides, and some function uses both: which is which cannot be told.
        let left = by_shared(&base, |b| functions(bu.get(&b)));
        for p in patched {
            let rivals: BTreeSet<ItemId> =
                functions(pu.get(&p)).iter().filter_map(|user| left.get(user)).flatten().copied().collect();
            let rivals: Vec<&str> =
                rivals.into_iter().map(|b| self.parts.base.get(b).name.as_str()).collect();
            if !rivals.is_empty() && self.parts.patched.get(p).class != Class::ReadOnly {
                let what = format!("{name}: which variable of the original this is cannot be told");
                self.problems.push(
                    Diagnostic::new(AMBIGUOUS_DATA, what)
                        .at(self.parts.pair.place(&self.parts.patched.get(p).name))
                        .why(format!("Candidates are {}.", rivals.join(", ")))
                        .advice("Give the static variables of that function different names in the patch."),
                );
            }
        }
    }

    fn rename(&mut self) {
        for (id, item) in self.parts.patched.iter() {
            if *self.patched.known(id) == Known::Content {
                continue;
            }
            let known = match self.counterpart[id.0] {
                Some(base) => self.base.known(base).clone(),
                // A new global keeps its name: other objects refer to it by that.
                None if !item.local => continue,
                None => Known::New(item.name.clone()),
            };
            self.patched.rename(id, known);
        }
    }
}

/// Takes out all pairs of which neither side fits any other. What fits has something in common: with thousands of
/// candidates, each is looked at beside those few only.
fn only_fits<S: Ord>(
    base: &mut Vec<ItemId>,
    patched: &mut Vec<ItemId>,
    of_base: impl Fn(ItemId) -> Vec<S>,
    of_patched: impl Fn(ItemId) -> Vec<S>,
    fits: impl Fn(ItemId, ItemId) -> bool,
) -> Vec<(ItemId, ItemId)> {
    let (in_base, in_patched) = (by_shared(base, &of_base), by_shared(patched, &of_patched));
    let sure: Vec<(ItemId, ItemId)> = patched
        .iter()
        .filter_map(|&p| {
            let shared = of_patched(p);
            let mut found =
                shared.iter().filter_map(|s| in_base.get(s)).flatten().copied().filter(|&b| fits(b, p));
            let b = found.next()?;
            let back = of_base(b);
            let mut others = back.iter().filter_map(|s| in_patched.get(s)).flatten().copied();
            // What has several things in common comes up as often.
            let only = found.all(|other| other == b) && !others.any(|other| other != p && fits(b, other));
            only.then_some((b, p))
        })
        .collect();
    let (taken_base, taken_patched): (BTreeSet<ItemId>, BTreeSet<ItemId>) = sure.iter().copied().unzip();
    base.retain(|id| !taken_base.contains(id));
    patched.retain(|id| !taken_patched.contains(id));
    sure
}

/// Items by what they have in common with others.
fn by_shared<S: Ord>(items: &[ItemId], shared: impl Fn(ItemId) -> Vec<S>) -> BTreeMap<S, Vec<ItemId>> {
    let mut index: BTreeMap<S, Vec<ItemId>> = BTreeMap::new();
    for &id in items {
        for one in shared(id) {
            index.entry(one).or_default().push(id);
        }
    }
    index
}

/// What the uses of two variables that correspond have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Shared<'u> {
    /// A place that refers to it.
    Place(&'u UsePlace),
    /// A function that refers to it.
    Function(&'u str),
    /// Size, kind of section, and all that refers to it.
    Contexts(u64, Class, Option<UseContexts<'u>>),
}

fn places(used: Option<&Use>) -> Vec<Shared<'_>> {
    used.into_iter().flat_map(|used| &used.places).map(Shared::Place).collect()
}

fn functions(used: Option<&Use>) -> Vec<Shared<'_>> {
    used.into_iter().flat_map(|used| &used.functions).map(|name| Shared::Function(name)).collect()
}

/// Local functions whose names end in a number, by the name in front of it.
fn clones<'i>(items: &'i Items<'_>) -> BTreeMap<&'i str, Vec<ItemId>> {
    let mut clones: BTreeMap<&str, Vec<ItemId>> = BTreeMap::new();
    let head = |item: &Item| item.kind == ItemKind::Function && item.local && item.unit.is_none();
    for (id, item) in items.iter().filter(|(_, item)| head(item) && names::is_numbered(&item.name)) {
        clones.entry(names::unnumbered(&item.name)).or_default().push(id);
    }
    clones
}

fn index<'i>(items: &'i Items<'_>) -> BTreeMap<&'i str, Vec<ItemId>> {
    let mut index: BTreeMap<&str, Vec<ItemId>> = BTreeMap::new();
    for (id, item) in items
        .iter()
        .filter(|(_, item)| !matches!(item.kind, ItemKind::Blob | ItemKind::Aside) && !is_counted_data(item))
    {
        for name in std::iter::once(&item.name).chain(&item.aliases) {
            index.entry(name).or_default().push(id);
        }
    }
    index
}

fn is_counted_data(item: &Item) -> bool {
    item.kind == ItemKind::Data && item.local && names::is_numbered(&item.name)
}

/// Whether two items of one name can be the same thing before and after. Data that moved between plain data
/// and zeroed data, or became constant, is still the same variable: its content is compared later.
fn same_sort(base: &Item, patched: &Item) -> bool {
    base.kind == patched.kind
        && base.class.is_init() == patched.class.is_init()
        && (base.class == Class::PerCpu) == (patched.class == Class::PerCpu)
}

/// Who refers to a data item, by name.
#[derive(Debug, Default, PartialEq, Eq)]
struct Use {
    /// The functions that refer to it.
    functions: BTreeSet<String>,
    /// For each reference, in order, the function and the string or name that the code refers to next: tells
    /// two equal variables of one function apart, such as the flags of two warn-once messages.
    contexts: Vec<(String, String)>,
    /// The places that refer to it.
    places: BTreeSet<UsePlace>,
}

/// A function, its code without what is relocated, and bytes from its start.
type UsePlace = (String, Rc<[u8]>, u64);

/// [`Use::functions`] and [`Use::contexts`].
type UseContexts<'u> = (&'u BTreeSet<String>, &'u [(String, String)]);

impl Use {
    fn contexts(&self) -> UseContexts<'_> {
        (&self.functions, &self.contexts)
    }
}

type Users = BTreeMap<ItemId, Use>;

/// For each of some data items the functions that refer to it, by name; others that lie in the same sections are
/// in it, too.
fn users<'i>(items: &Items<'_>, data: impl Iterator<Item = &'i ItemId>) -> Users {
    let mut users = Users::new();
    let wanted: BTreeSet<SectionId> = data.map(|id| items.get(*id).section).collect();
    if wanted.is_empty() {
        return users;
    }
    let view = View::plain(items);
    for (id, item) in items.iter().filter(|(_, item)| item.kind == ItemKind::Function) {
        let section = items.object.section(item.section);
        let relocations = section.relocations_in(item.start, item.end);
        let refers = |relocation: &Relocation| match items.object.symbol(relocation.symbol).home {
            Home::Section(section) => wanted.contains(&section),
            _ => false,
        };
        if !relocations.iter().any(refers) {
            continue;
        }
        let code = section.bytes(item.start, item.end);
        let ends = crate::meaning::decode(&code, relocations, item.start).ends;
        let name = plain_function(&items.get(items.head(id)).name).to_owned();
        let plain: Rc<[u8]> =
            view.code(item.section, item.start, item.end, Some(items.head(id))).bytes.into();
        let spots: Vec<_> = relocations
            .iter()
            .map(|relocation| match ends.get(&relocation.offset) {
                Some(end) if relocation.kind.is_relative() => {
                    view.spot(relocation, (end - relocation.offset).cast_signed())
                }
                _ => view.spot(relocation, 0),
            })
            .collect();
        for (index, spot) in spots.iter().enumerate() {
            let target = spot.section.and_then(|section| items.at(section, spot.offset));
            let Some((target, _)) = target.filter(|(target, _)| items.get(*target).kind == ItemKind::Data)
            else {
                continue;
            };
            let known = users.entry(target).or_default();
            known.functions.insert(name.clone());
            let place = relocations[index].offset - item.start;
            known.places.insert((items.get(id).name.clone(), Rc::clone(&plain), place));
            let next = spots[index + 1..].iter().find_map(|spot| match view.meaning(*spot, None) {
                crate::meaning::Meaning::Text(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
                _ => None,
            });
            known.contexts.push((name.clone(), next.unwrap_or_default()));
        }
    }
    users
}

/// The source's name of a clone: `foo.constprop.0` is `foo`.
fn plain_function(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

fn shares_user(base: Option<&Use>, patched: Option<&Use>) -> bool {
    match (base, patched) {
        (Some(base), Some(patched)) => base.functions.intersection(&patched.functions).next().is_some(),
        _ => false,
    }
}
