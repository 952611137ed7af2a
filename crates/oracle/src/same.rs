//! Whether two things mean the same.

use std::{cell::RefCell, collections::BTreeSet};

use crate::{
    canon::{self, Line, field, masked},
    listing::{Home, Reloc},
    model::{Model, Place, Target, plain},
    object::Object,
};

/// Which item of the patched object stands for which of the base.
#[derive(Debug, Default)]
pub(crate) struct Pairs {
    pub to_patched: Vec<Option<usize>>,
    pub to_base: Vec<Option<usize>>,
}

impl Pairs {
    pub fn none(base: &Model, patched: &Model) -> Pairs {
        Pairs { to_patched: vec![None; base.items.len()], to_base: vec![None; patched.items.len()] }
    }

    /// Pairs two items that have no partner yet.
    pub fn join(&mut self, base: usize, patched: usize) {
        if self.are_free(base, patched) {
            self.to_patched[base] = Some(patched);
            self.to_base[patched] = Some(base);
        }
    }

    pub fn are_free(&self, base: usize, patched: usize) -> bool {
        self.to_patched[base].is_none() && self.to_base[patched].is_none()
    }
}

/// Compares what is in two objects.
pub(crate) struct Same<'a> {
    pub base: &'a Object,
    pub patched: &'a Object,
    pub pairs: &'a Pairs,
    /// Where pairs are still sought: those that would have to stand for each other.
    wishes: Option<RefCell<BTreeSet<(usize, usize)>>>,
    /// Stretches under comparison, which may refer to each other in a circle.
    open: RefCell<BTreeSet<(usize, u64, usize, u64)>>,
}

impl<'a> Same<'a> {
    pub fn new(base: &'a Object, patched: &'a Object, pairs: &'a Pairs) -> Same<'a> {
        Same { base, patched, pairs, wishes: None, open: RefCell::default() }
    }

    /// The same, but items without partners count as equal where they could be partners.
    pub fn wishing(base: &'a Object, patched: &'a Object, pairs: &'a Pairs) -> Same<'a> {
        Same { wishes: Some(RefCell::default()), ..Same::new(base, patched, pairs) }
    }

    /// The pairs that were taken for equal since the last call.
    pub fn take_wishes(&self) -> BTreeSet<(usize, usize)> {
        self.wishes.as_ref().map(RefCell::take).unwrap_or_default()
    }

    /// Whether two items stand for each other.
    pub fn item(&self, base: usize, patched: usize) -> bool {
        if self.pairs.to_patched[base] == Some(patched) {
            return true;
        }
        let Some(wishes) = &self.wishes else { return false };
        let possible =
            self.pairs.are_free(base, patched) && could_pair(self.base, base, self.patched, patched);
        if possible {
            wishes.borrow_mut().insert((base, patched));
        }
        possible
    }

    pub fn lines(&self, base: &[Line], patched: &[Line]) -> bool {
        base.len() == patched.len()
            && base.iter().zip(patched).all(|(base, patched)| self.line(base, patched))
    }

    pub fn line(&self, base: &Line, patched: &Line) -> bool {
        base.text == patched.text
            && base.refs.len() == patched.refs.len()
            && (base.refs.iter().zip(&patched.refs))
                .all(|((one, base), (other, patched))| one == other && self.target(base, patched))
    }

    /// Whether two functions are the same in all their fragments.
    pub fn function(&self, base: usize, patched: usize) -> bool {
        let (ours, theirs) = (self.base.fragments(base), self.patched.fragments(patched));
        ours.len() == theirs.len()
            && ours
                .iter()
                .zip(&theirs)
                .all(|(base, patched)| self.lines(&self.base.lines[base], &self.patched.lines[patched]))
    }

    /// Whether two variables have the same size and content.
    pub fn variable(&self, base: usize, patched: usize) -> bool {
        let (ours, theirs) = (&self.base.model.items[base], &self.patched.model.items[patched]);
        let base = (ours.section, ours.start, ours.end);
        self.content(base, (theirs.section, theirs.start, theirs.end), false)
    }

    pub fn target(&self, base: &Target, patched: &Target) -> bool {
        match (base, patched) {
            (Target::Name(one, a), Target::Name(other, b)) => one == other && a == b,
            (Target::Name(name, distance), Target::Item(item, place, _)) => {
                names(&self.patched.model, *item, *place, name, *distance)
            }
            (Target::Item(item, place, _), Target::Name(name, distance)) => {
                names(&self.base.model, *item, *place, name, *distance)
            }
            (Target::Item(one, a, end), Target::Item(other, b, other_end)) => {
                if a == b && self.known_item(*one, *other) {
                    return true;
                }
                // A place between two variables may mean the end of the first.
                self.between((*one, *a, *end), (*other, *b, *other_end))
            }
            (Target::Bytes(section, start, end), Target::Bytes(other, first, last)) => {
                self.content((*section, *start, *end), (*other, *first, *last), true)
            }
            (Target::Code(section, start, end), Target::Code(other, first, last)) => {
                let key = (*section, *start, *other, *first);
                if !self.open.borrow_mut().insert(key) {
                    return true;
                }
                let ours = canon::code(&self.base.model, *section, *start, *end, false);
                let theirs = canon::code(&self.patched.model, *other, *first, *last, false);
                let same = self.lines(&ours, &theirs);
                self.open.borrow_mut().remove(&key);
                same
            }
            (Target::Fixed(one), Target::Fixed(other)) | (Target::Loose(one), Target::Loose(other)) => {
                one == other
            }
            (Target::String(one), Target::String(other)) => one == other,
            (Target::Constant(one, a), Target::Constant(other, b)) => one == other && a == b,
            _ => false,
        }
    }

    fn known_item(&self, base: usize, patched: usize) -> bool {
        match (self.base.model.is_by_content(base), self.patched.model.is_by_content(patched)) {
            (true, true) => self.variable(base, patched),
            (false, false) => self.item(base, patched),
            _ => false,
        }
    }

    fn between(&self, base: (usize, Place, Option<usize>), patched: (usize, Place, Option<usize>)) -> bool {
        let readings = |(item, place, end): (usize, Place, Option<usize>), model: &Model| {
            let end = end.map(|item| {
                let size = model.items[item].end - model.items[item].start;
                (item, Place::Byte(size.cast_signed()))
            });
            std::iter::once((item, place)).chain(end).collect::<Vec<_>>()
        };
        if base.2.is_none() && patched.2.is_none() {
            return false;
        }
        let ours = readings(base, &self.base.model);
        let theirs = readings(patched, &self.patched.model);
        (ours.iter()).any(|(one, a)| theirs.iter().any(|(other, b)| a == b && self.known_item(*one, *other)))
    }

    /// Whether two stretches hold the same. `open_ended` ones have no size of their own: zeroes at their end
    /// may be padding.
    pub fn content(&self, base: (usize, u64, u64), patched: (usize, u64, u64), open_ended: bool) -> bool {
        let key = (base.0, base.1, patched.0, patched.1);
        if !self.open.borrow_mut().insert(key) {
            return true;
        }
        let same = self.content_once(base, patched, open_ended);
        self.open.borrow_mut().remove(&key);
        same
    }

    fn content_once(&self, base: (usize, u64, u64), patched: (usize, u64, u64), open_ended: bool) -> bool {
        let (ours, theirs) = (&self.base.model, &self.patched.model);
        let mut one = masked(ours, base.0, base.1, base.2);
        let mut other = masked(theirs, patched.0, patched.1, patched.2);
        let relocs = ours.section(base.0).relocs_in(base.1, base.2);
        let others = theirs.section(patched.0).relocs_in(patched.1, patched.2);
        if open_ended {
            trim(&mut one, relocs, base.1);
            trim(&mut other, others, patched.1);
        }
        if one != other || relocs.len() != others.len() {
            return false;
        }
        relocs.iter().zip(others).all(|(reloc, other)| {
            field(reloc, base.1) == field(other, patched.1)
                && self.target(
                    &entry(ours, reloc, open_ended.then_some(base.1)),
                    &entry(theirs, other, open_ended.then_some(patched.1)),
                )
        })
    }
}

/// What a word of data refers to. In a table of jumps a relative word counts from the table's start.
fn entry(model: &Model, reloc: &Reloc, table: Option<u64>) -> Target {
    let code = match model.listing.symbols[reloc.symbol].home {
        Home::Section(section) => model.section(section).has('X'),
        Home::Undefined | Home::Absolute | Home::Common => false,
    };
    match table {
        Some(table) if code && reloc.relative() => {
            model.resolve(reloc.symbol, reloc.addend - (reloc.at - table).cast_signed())
        }
        _ => model.target(reloc, None),
    }
}

fn trim(bytes: &mut Vec<u8>, relocs: &[Reloc], start: u64) {
    let needed = relocs.last().map_or(0, |reloc| reloc.at + reloc.width() - start);
    while bytes.len() as u64 > needed && bytes.last() == Some(&0) {
        bytes.pop();
    }
}

fn names(model: &Model, item: usize, place: Place, name: &str, distance: i64) -> bool {
    let same_place = match place {
        Place::Byte(bytes) => bytes == distance,
        Place::Label(..) => place.is_start() && distance == 0,
    };
    same_place && model.items[item].names.iter().any(|own| own == name)
}

/// Whether a compiler might have given both items their numbers for the same thing of the source.
pub(crate) fn could_pair(base: &Object, one: usize, patched: &Object, other: usize) -> bool {
    let (ours, theirs) = (&base.model.items[one], &patched.model.items[other]);
    ours.code == theirs.code
        && ours.numbered
        && theirs.numbered
        && plain(&ours.stem) == plain(&theirs.stem)
        && base.model.class(ours.section) == patched.model.class(theirs.section)
}
