//! Where objects of a type live.
//!
//! A type is taken to have objects on the host unless it is seen that only automatic variables have it: those are gone
//! when a payload is applied, since no function has a frame then. What is looked at are the objects that a change
//! reaches; who sees members of the type has its definition, and so is among them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::change::TypeKind;
use crate::compare::type_kind;
use crate::info::{DebugInfo, Names};
use crate::model::{Kind, MemberKind, VOID};

/// Structures by which objects of any type are linked or found later (xen/include/xen/list.h, rbtree.h, rcupdate.h,
/// timer.h, tasklet.h, radix-tree.h).
const LINKS: &[&str] = &[
    "hlist_node",
    "list_head",
    "radix_tree_root",
    "rb_node",
    "rcu_head",
    "tasklet",
    "timer",
    "waitqueue_head",
];

/// A type by its name.
type Known = (TypeKind, String);

/// What shows, or lets suspect, that objects of a type are live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Live {
    /// A static or per-CPU variable is one.
    Variable(String),
    /// A static or per-CPU variable points to them.
    PointedByVariable(String),
    /// A member of a structure points to them: the structure and the member.
    PointedByMember(String, String),
    /// They can be linked to lists and trees, whose pointers do not name their type: what they hold for that.
    Linked(String),
    /// A function has a pointer to them, and no automatic variable of the type is seen.
    Pointer(String),
    /// Nothing is seen of them.
    Unseen,
}

/// Where objects of a type live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// The types that hold it by value, each inside of the next; the last one is what `live` is about.
    pub within: Vec<String>,
    /// What shows it.
    pub live: Live,
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.within.is_empty() {
            write!(f, "it is part of {}; ", self.within.join(", in "))?;
        }
        match &self.live {
            Live::Variable(name) => write!(f, "the variable {name} is one"),
            Live::PointedByVariable(name) => write!(f, "the variable {name} points to one"),
            Live::PointedByMember(holder, member) => write!(f, "member {member} of {holder} points to one"),
            Live::Linked(link) => write!(f, "by its {link} a list or tree can hold one"),
            Live::Pointer(function) => {
                write!(
                    f,
                    "{function} has a pointer to one, and no automatic variable shows that it is to such"
                )
            }
            Live::Unseen => f.write_str("no automatic variable of it shows that there are none"),
        }
    }
}

/// Where objects of a structure or union live, by all objects that a change reaches, before the change; `None` if only
/// automatic variables have it. `name` is without `struct` and the like.
pub fn life(infos: &[&DebugInfo], kind: TypeKind, name: &str) -> Option<Life> {
    let search = Search::of(infos, (kind, name.to_owned()));
    let told = |known: Option<Known>, live| Some(Life { within: search.way(known), live });
    for view in &search.views {
        if let Some((known, variable)) = view.variable(Access::Value) {
            return told(known, Live::Variable(variable));
        }
    }
    for view in &search.views {
        if let Some((known, variable)) = view.variable(Access::Pointer) {
            return told(known, Live::PointedByVariable(variable));
        }
        if let Some((known, holder, member)) = view.pointing_member() {
            return told(known, Live::PointedByMember(holder, member));
        }
    }
    for view in &search.views {
        if let Some((known, link)) = view.link() {
            return told(known, Live::Linked(link));
        }
    }
    let automatic: BTreeSet<Known> = search.views.iter().flat_map(View::automatic).collect();
    for view in &search.views {
        for (known, function) in view.pointers() {
            // Part of an automatic variable is one too.
            let own = known.as_ref().is_some_and(|known| {
                automatic.contains(known) || *known == search.wanted && !automatic.is_empty()
            });
            if !own {
                return told(known, Live::Pointer(function));
            }
        }
    }
    automatic.is_empty().then_some(Life { within: Vec::new(), live: Live::Unseen })
}

/// The type and all that hold it by value.
struct Search<'a> {
    wanted: Known,
    /// Each with what it holds; none for the type itself.
    names: BTreeMap<Known, Option<Known>>,
    views: Vec<View<'a>>,
}

impl<'a> Search<'a> {
    fn of(infos: &[&'a DebugInfo], wanted: Known) -> Search<'a> {
        let mut names: BTreeMap<Known, Option<Known>> = BTreeMap::from([(wanted.clone(), None)]);
        loop {
            let before = names.len();
            let mut views = Vec::new();
            for info in infos {
                let view = View::of(info, &names);
                for (holder, held) in &view.holders {
                    names.entry(holder.clone()).or_insert_with(|| Some(held.clone()));
                }
                views.push(view);
            }
            if names.len() == before {
                return Search { wanted, names, views };
            }
        }
    }

    /// From the type outwards to one that holds it, that one included and the type not.
    fn way(&self, known: Option<Known>) -> Vec<String> {
        let mut way = Vec::new();
        let mut next = known;
        while let Some(known) = next {
            if known == self.wanted || way.len() > self.names.len() {
                break;
            }
            way.push(format!("{} {}", known.0, known.1));
            next = self.names.get(&known).cloned().flatten();
        }
        way.reverse();
        way
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Value,
    Pointer,
}

/// One object's types.
struct View<'a> {
    info: &'a DebugInfo,
    /// For each type whether an object of it holds one that is looked for.
    holds: Vec<bool>,
    /// Named types that hold one, with what they hold.
    holders: Vec<(Known, Known)>,
}

impl<'a> View<'a> {
    fn of(info: &'a DebugInfo, names: &BTreeMap<Known, Option<Known>>) -> View<'a> {
        let count = info.model.types.len();
        let mut view = View { info, holds: vec![false; count], holders: Vec::new() };
        let mut done = vec![false; count];
        for ty in 0..count as u32 {
            view.fill(ty, names, &mut done);
        }
        view
    }

    /// Types that hold each other by value without end were refused when they were read, and so was deep nesting.
    fn fill(&mut self, ty: u32, names: &BTreeMap<Known, Option<Known>>, done: &mut [bool]) -> bool {
        if ty == VOID || done[ty as usize] {
            return ty != VOID && self.holds[ty as usize];
        }
        done[ty as usize] = true;
        let this = &self.info.model.types[ty as usize];
        let named = type_kind(this.kind)
            .filter(|_| !this.name.is_empty())
            .map(|kind| (kind, self.info.object().text(this.name).into_owned()));
        let mut holds = named.as_ref().is_some_and(|named| names.contains_key(named));
        match this.kind {
            Kind::Typedef | Kind::Qualifier | Kind::Array => {
                let inner = self.fill(this.target, names, done);
                holds |= inner;
            }
            Kind::Struct | Kind::Union => {
                for member in self.info.model.members_of(ty) {
                    if member.kind != MemberKind::Field || !self.fill(member.target, names, done) {
                        continue;
                    }
                    if let (Some(named), Some(held), false) = (&named, self.root(member.target), holds) {
                        self.holders.push((named.clone(), held));
                    }
                    holds = true;
                }
            }
            _ => {}
        }
        self.holds[ty as usize] = holds;
        holds
    }

    /// The name of a type behind arrays and the like; of one without a name, that of the first in it that holds.
    fn root(&self, ty: u32) -> Option<Known> {
        let mut ty = ty;
        for _ in 0..64 {
            let this = self.info.model.types.get(ty as usize)?;
            let name = || self.info.object().text(this.name).into_owned();
            let target = self.info.model.types.get(this.target as usize);
            match this.kind {
                Kind::Typedef if target.is_some_and(|target| target.is_anonymous()) => {
                    return Some((TypeKind::Typedef, name()));
                }
                Kind::Qualifier | Kind::Array | Kind::Typedef => ty = this.target,
                kind if !this.name.is_empty() => return type_kind(kind).map(|kind| (kind, name())),
                _ => {
                    let fields =
                        self.info.model.members_of(ty).iter().filter(|m| m.kind == MemberKind::Field);
                    ty = fields.map(|member| member.target).find(|&target| self.is_held(target))?;
                }
            }
        }
        None
    }

    fn is_held(&self, ty: u32) -> bool {
        self.holds.get(ty as usize).copied().unwrap_or_default()
    }

    /// The type behind a pointer, or pointers to it, that holds what is looked for.
    fn pointee(&self, ty: u32) -> Option<u32> {
        let mut ty = ty;
        let mut behind = false;
        for _ in 0..64 {
            if behind && self.is_held(ty) {
                return Some(ty);
            }
            let this = self.info.model.types.get(ty as usize)?;
            match this.kind {
                Kind::Pointer => behind = true,
                Kind::Typedef | Kind::Qualifier | Kind::Array => {}
                _ => return None,
            }
            ty = this.target;
        }
        None
    }

    fn accessed(&self, ty: u32, access: Access) -> Option<u32> {
        match access {
            Access::Value => Some(ty).filter(|&ty| self.is_held(ty)),
            Access::Pointer => self.pointee(ty),
        }
    }

    /// Variables of functions that are static all the same: their place is told apart from their type.
    fn placed(&self) -> BTreeSet<u32> {
        let variables = self.info.model.variables.iter().filter(|variable| variable.address.is_some());
        variables.map(|variable| variable.origin).filter(|origin| *origin != VOID).collect()
    }

    /// A static variable that is one or points to one.
    fn variable(&self, access: Access) -> Option<(Option<Known>, String)> {
        let model = &self.info.model;
        for variable in &model.variables {
            if let Some(ty) = self.accessed(variable.result, access) {
                return Some((self.root(ty), self.info.text(variable.name).into_owned()));
            }
        }
        let placed = self.placed();
        let locals = model.locals.iter().filter(|local| local.declaration || placed.contains(&local.offset));
        locals
            .filter_map(|local| self.accessed(local.target, access))
            .map(|ty| (self.root(ty), "of a function".to_owned()))
            .next()
    }

    /// A member of any structure that points to one.
    fn pointing_member(&self) -> Option<(Option<Known>, String, String)> {
        let model = &self.info.model;
        for (index, holder) in model.types.iter().enumerate().filter(|(_, ty)| ty.is_aggregate()) {
            for member in model.members_of(index as u32).iter().filter(|m| m.kind == MemberKind::Field) {
                let Some(ty) = self.pointee(member.target) else { continue };
                let holder = match (type_kind(holder.kind), holder.name.is_empty()) {
                    (Some(kind), false) => format!("{kind} {}", self.info.text(holder.name)),
                    _ => "a structure without a name".to_owned(),
                };
                return Some((self.root(ty), holder, self.info.text(member.name).into_owned()));
            }
        }
        None
    }

    /// What links objects of a type that holds one.
    fn link(&self) -> Option<(Option<Known>, String)> {
        let types = self.info.model.types.iter().enumerate();
        let mut held = types.filter(|(index, ty)| ty.is_aggregate() && self.is_held(*index as u32));
        let mut seen = BTreeSet::new();
        held.find_map(|(index, _)| Some((self.root(index as u32), self.link_in(index as u32, &mut seen)?)))
    }

    /// What links objects of that type, looked for in all that it holds and that was not looked into yet.
    fn link_in(&self, ty: u32, seen: &mut BTreeSet<u32>) -> Option<String> {
        let mut next = vec![ty];
        while let Some(ty) = next.pop() {
            let Some(this) = self.info.model.types.get(ty as usize).filter(|_| seen.insert(ty)) else {
                continue;
            };
            match this.kind {
                Kind::Typedef | Kind::Qualifier | Kind::Array => next.push(this.target),
                Kind::Struct | Kind::Union => {
                    let name = self.info.text(this.name);
                    if LINKS.contains(&&*name) {
                        return Some(format!("struct {name}"));
                    }
                    let fields =
                        self.info.model.members_of(ty).iter().filter(|m| m.kind == MemberKind::Field);
                    next.extend(fields.map(|member| member.target));
                }
                _ => {}
            }
        }
        None
    }

    /// The types of automatic variables and parameters that hold one.
    fn automatic(&self) -> BTreeSet<Known> {
        let placed = self.placed();
        let locals = self.info.model.locals.iter();
        let locals = locals.filter(|local| !local.declaration && !placed.contains(&local.offset));
        let targets = locals.map(|local| local.target).chain(self.parameters().map(|(ty, _)| ty));
        targets.filter(|&ty| self.is_held(ty)).filter_map(|ty| self.root(ty)).collect()
    }

    /// Types of parameters with their functions' names.
    fn parameters(&self) -> impl Iterator<Item = (u32, crate::model::Text)> + '_ {
        let model = &self.info.model;
        model.functions.iter().flat_map(move |function| {
            let (first, end) = function.parameters;
            let all = model.members.get(first as usize..end as usize).unwrap_or_default();
            all.iter().filter(|m| m.kind == MemberKind::Parameter).map(move |m| (m.target, function.name))
        })
    }

    /// What pointers of functions lead to, and of which function.
    fn pointers(&self) -> Vec<(Option<Known>, String)> {
        let model = &self.info.model;
        let name = |text| {
            let name = self.info.text(text).into_owned();
            if name.is_empty() { "a function".to_owned() } else { name }
        };
        let results = model.functions.iter().map(|function| (function.result, function.name));
        let named = self.parameters().chain(results).map(|(ty, text)| (ty, name(text)));
        let locals = model.locals.iter().map(|local| (local.target, "a function".to_owned()));
        named
            .chain(locals)
            .filter_map(|(ty, function)| Some((self.root(self.pointee(ty)?), function)))
            .collect()
    }
}
