//! How much of a rebuilt original is what was shipped.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;
use xsplice_objects::{Class, Object, SectionId};
use xsplice_report::{Diagnostic, Place, Problems};

use crate::codes;
use crate::items::{ItemId, ItemKind, Items};
use crate::names;
use crate::pieces::World;
use crate::proof::{Content, Proof, Prover};

/// How much of the original's code the shipped hypervisor has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Base {
    /// Functions of the rebuilt original that were compared, those of boot included.
    pub functions: usize,
    /// Those that are the same, with everything that they refer to.
    pub identical: usize,
    /// Those whose code the symbol file does not hold.
    pub not_compared: usize,
    /// All others.
    pub differing: Vec<Differing>,
    /// Objects of an archive that the linker did not take: the hypervisor has nothing of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_linked: Vec<String>,
    /// Functions of the hypervisor that no object has. Known only where all objects were compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_rebuilt: Option<Vec<String>>,
}

/// A function that is not what was shipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Differing {
    /// The object, relative to the tree.
    pub object: String,
    /// Its name in the hypervisor's own table.
    pub name: String,
    /// How it differs.
    pub how: How,
    /// The difference in words.
    pub what: String,
    /// Whether boot alone runs it.
    pub boot: bool,
}

/// How a function is not what was shipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// The hypervisor has none of that name.
    Missing,
    /// It has another size.
    Size,
    /// It has other code, or refers to something else.
    Code,
    /// Its code is the same, and a string or a constant that it uses is not.
    Text,
    /// Its code is the same, and read-only data that it uses is not.
    Data,
}

/// How many functions a reason names.
const NAMED: usize = 3;

impl fmt::Display for Differing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.how {
            How::Missing => f.write_str(&self.name),
            _ => write!(f, "{} {}", self.name, self.what),
        }
    }
}

impl Differing {
    /// Whether it stands in the way of a payload that replaces these functions: code that runs after boot is another one,
    /// or a replaced function uses another string or constant. Read-only data of a replaced function is looked at where
    /// that is selected.
    pub(crate) fn is_against(&self, replaced: &BTreeSet<&str>) -> bool {
        match self.how {
            _ if self.boot => false,
            How::Missing | How::Size | How::Code => true,
            How::Text => replaced.contains(self.name.as_str()),
            How::Data => false,
        }
    }
}

impl Base {
    /// Functions that have the name and the size of a shipped one.
    pub(crate) fn sized(&self) -> usize {
        let other = |one: &&Differing| matches!(one.how, How::Missing | How::Size);
        self.functions - self.differing.iter().filter(other).count()
    }

    /// What somebody should know of functions that differ and do not stand in the way of a payload. `of` says which
    /// functions these are, for people.
    pub(crate) fn told(&self, of: &str, replaced: &BTreeSet<&str>) -> Problems {
        // What a replaced function's data holds is said where that is selected.
        let harmless = |one: &&Differing| !one.is_against(replaced) && !replaced.contains(one.name.as_str());
        let harmless: Vec<&Differing> = self.differing.iter().filter(harmless).collect();
        Base::differs(&harmless, self.functions, of)
    }

    /// The same of all that differ in other objects than `involved`.
    pub fn told_of_rest(&self, involved: &BTreeSet<&str>) -> Problems {
        let others = self.differing.iter().filter(|one| !involved.contains(one.object.as_str()));
        Base::differs(&others.collect::<Vec<_>>(), self.functions, "the whole original")
    }

    fn differs(differing: &[&Differing], functions: usize, of: &str) -> Problems {
        let Some(first) = differing.first() else { return Problems::new() };
        let few = differing.iter().take(NAMED).map(|one| one.to_string()).collect::<Vec<_>>().join("; ");
        let rest = match differing.iter().all(|one| one.how == How::Text) {
            true => "they use other texts or constants, such as the date of the build",
            false => "the tree, the configuration or the compiler is another one there",
        };
        Diagnostic::new(
            codes::BASE_DIFFERS,
            format!("{} of {functions} functions of {of} are not what was shipped", differing.len()),
        )
        .at(Place::object(&first.object))
        .why(format!("{few}. None of them is replaced, but {rest}."))
        .advice("Look at the list under base in report.json; give the tree and the configuration of the shipped build.")
        .into()
    }

    /// How many have the shipped code, and use a string, a constant or read-only data that is another one.
    pub fn other_content(&self) -> usize {
        self.differing.iter().filter(|one| matches!(one.how, How::Text | How::Data)).count()
    }

    /// Adds what was found in other objects.
    pub(crate) fn extend(&mut self, other: Base) {
        self.not_linked.extend(other.not_linked);
        self.functions += other.functions;
        self.identical += other.identical;
        self.not_compared += other.not_compared;
        self.differing.extend(other.differing);
    }
}

/// Compares all functions of the objects that the original build made with the hypervisor, in their order. With each goes
/// whether it is in an archive, of which linkers take what is needed: where the hypervisor has nothing of it, it counts as
/// not taken. Functions that payloads below replace or bring are left out: the tree may have them in either form.
pub fn prove<'o>(objects: impl IntoIterator<Item = (&'o Object, bool)>, world: &World<'_>) -> Base {
    let mut prover = Prover::new(world.hypervisor);
    let mut base = Base::default();
    let mut names = BTreeSet::new();
    for (object, archived) in objects {
        let items = Items::of(object);
        let found = of_object(&items, &mut prover, world, &mut |_, _| {});
        if archived
            && found.functions > 0
            && found.identical + found.not_compared + found.other_content() == 0
        {
            base.not_linked.push(object.path.clone());
            continue;
        }
        base.extend(found);
        for (_, item) in items.iter().filter(|(_, item)| item.kind == ItemKind::Function) {
            let all = std::iter::once(&item.name).chain(&item.aliases);
            names.extend(all.map(|name| names::unnumbered(name).to_owned()));
        }
    }
    let plain = |name: &str| names::unnumbered(name.rsplit('#').next().unwrap_or(name)).to_owned();
    let missing = world
        .hypervisor
        .symbols()
        .iter()
        .filter(|shipped| shipped.function && shipped.size > 0 && !names.contains(&plain(&shipped.name)));
    base.not_rebuilt = Some(missing.map(|shipped| shipped.name.clone()).collect());
    base
}

/// The functions of one object. `unread` gets the name of each that could not be compared.
pub(crate) fn of_object(
    items: &Items<'_>,
    prover: &mut Prover<'_>,
    world: &World<'_>,
    unread: &mut dyn FnMut(String, &str),
) -> Base {
    let object = items.object;
    let mut base = Base::default();
    let mut functions = prover.object(items);
    for (id, name) in comparable(items, world) {
        let item = items.get(id);
        let all: Vec<_> = world.hypervisor.named(&name).collect();
        let sized: Vec<_> = all.iter().copied().filter(|shipped| shipped.size == item.declared).collect();
        // Assemblers add no FILE symbol: what file's name its locals get is the linker's choice.
        if all.is_empty() && item.local && object.file.is_none() {
            continue;
        }
        base.functions += 1;
        let (how, what) = match (all.first(), sized.is_empty()) {
            (None, _) => (How::Missing, "is not there".to_owned()),
            (Some(_), other_size) => match functions.function(id, if other_size { &all } else { &sized }) {
                Proof::Differs(what) if other_size => (How::Size, what),
                Proof::Same => {
                    base.identical += 1;
                    continue;
                }
                Proof::NoCode => {
                    base.not_compared += 1;
                    unread(name, &item.name);
                    continue;
                }
                Proof::Differs(what) => (How::Code, what),
                Proof::OtherContent(Content::Merged, what) => (How::Text, what),
                Proof::OtherContent(Content::Data, what) => (How::Data, what),
            },
        };
        let boot = item.class == Class::InitText;
        base.differing.push(Differing { object: object.path.clone(), name, how, what, boot });
    }
    base
}

/// The functions of an object that can be compared, each with its name in the hypervisor's own table.
pub(crate) fn comparable(items: &Items<'_>, world: &World<'_>) -> Vec<(ItemId, String)> {
    let object = items.object;
    let functions = items.iter().filter(|(_, item)| {
        let code = matches!(item.class, Class::Text | Class::InitText) && !is_discarded(object, item.section);
        // Labels of assembler code have no size that could be compared; of weak functions the linker takes one.
        item.kind == ItemKind::Function && code && !item.weak && item.sized
    });
    let named = functions.map(|(id, item)| (id, object.table_name(&item.name, item.local)));
    named.filter(|(_, name)| !world.replaced.contains(name) && !world.exported.contains(name)).collect()
}

/// What the linker script throws away.
fn is_discarded(object: &Object, section: SectionId) -> bool {
    let name = &object.section(section).name;
    name == ".exit.text" || name.starts_with(".exit.text.")
}
