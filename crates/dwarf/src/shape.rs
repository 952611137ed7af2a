//! What makes two types the same: fingerprints and sizes of all types.
//!
//! The *layout* of a type is what somebody who holds it by value depends on. Its *reference* is what
//! somebody who points to it depends on: its name, or its structure where it has none. Typedefs and
//! qualifiers are looked through in both, and the name of a basic type does not count, only its size and
//! encoding.

use crate::Error;
use crate::hash::{Mixer, Print};
use crate::info::{Names, Object};
use crate::model::{Kind, MemberKind, Type, VOID};

/// Deeper than any real source, shallow enough for every stack.
const MAX_DEPTH: u32 = 200;
/// Larger than any address space; sizes saturate here.
const MAX_SIZE: u64 = 1 << 52;

/// Fingerprints by type.
#[derive(Debug, Default)]
pub(crate) struct Shapes {
    pub layout: Vec<Print>,
    pub reference: Vec<Print>,
    /// In bytes.
    pub size: Vec<Option<u64>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Open,
    Done,
}

struct Maker<'a> {
    object: Object<'a>,
    shapes: Shapes,
    layout_state: Vec<State>,
    reference_state: Vec<State>,
}

/// Fingerprints everything.
pub(crate) fn shapes(object: Object<'_>) -> Result<Shapes, Error> {
    let count = object.model.types.len();
    let mut maker = Maker {
        object,
        shapes: Shapes {
            layout: vec![Print::default(); count],
            reference: vec![Print::default(); count],
            size: vec![None; count],
        },
        layout_state: vec![State::New; count],
        reference_state: vec![State::New; count],
    };
    for ty in 0..count as u32 {
        maker.layout(ty, 0)?;
        maker.reference(ty, 0)?;
    }
    Ok(maker.shapes)
}

/// Fingerprint of a name with its kind.
pub(crate) fn key(kind: Kind, name: &[u8]) -> Print {
    let mut mixer = Mixer::new(100 + kind as u8);
    mixer.bytes(name);
    mixer.finish()
}

/// Fingerprint of an enumeration with all that is in it.
pub(crate) fn enumerators(object: Object<'_>, ty: u32) -> Print {
    let mut sum = Print::default();
    for member in object.model.members_of(ty) {
        if member.kind == MemberKind::Enumerator {
            let mut mixer = Mixer::new(31);
            mixer.bytes(object.bytes(member.name));
            let value = member.value();
            mixer.word(value as u64);
            mixer.word((value >> 64) as u64);
            sum = sum.add(mixer.finish());
        }
    }
    let mut mixer = Mixer::new(32);
    mixer.word(object.model.types[ty as usize].size.unwrap_or(u64::MAX));
    mixer.print(sum);
    mixer.finish()
}

impl Maker<'_> {
    fn ty(&self, ty: u32) -> &Type {
        &self.object.model.types[ty as usize]
    }

    fn deep(&self, ty: u32) -> Error {
        Error::Nesting(u64::from(self.ty(ty).offset))
    }

    fn layout(&mut self, ty: u32, depth: u32) -> Result<Print, Error> {
        if ty == VOID {
            return Ok(Mixer::new(1).finish());
        }
        match self.layout_state[ty as usize] {
            State::Done => return Ok(self.shapes.layout[ty as usize]),
            State::Open => return Err(self.deep(ty)),
            State::New if depth > MAX_DEPTH => return Err(self.deep(ty)),
            State::New => self.layout_state[ty as usize] = State::Open,
        }
        let (print, size) = self.layout_of(ty, depth + 1)?;
        self.shapes.layout[ty as usize] = print;
        self.shapes.size[ty as usize] = size;
        self.layout_state[ty as usize] = State::Done;
        Ok(print)
    }

    fn size(&self, ty: u32) -> Option<u64> {
        self.shapes.size.get(ty as usize).copied().flatten()
    }

    fn layout_of(&mut self, ty: u32, depth: u32) -> Result<(Print, Option<u64>), Error> {
        let model = self.object.model;
        let this = &model.types[ty as usize];
        let target = this.target;
        Ok(match this.kind {
            Kind::Typedef | Kind::Qualifier => (self.layout(target, depth)?, self.size(target)),
            Kind::Struct | Kind::Union => (self.aggregate(ty, depth)?, this.size),
            Kind::Array => {
                let mut mixer = Mixer::new(2 + this.encoding);
                mixer.print(self.layout(target, depth)?);
                let count = self.dimensions(ty, &mut mixer);
                let size = self.size(target).and_then(|s| s.checked_mul(count?));
                (mixer.finish(), size.filter(|s| *s <= MAX_SIZE))
            }
            Kind::Pointer => (self.pointer(ty, depth)?, Some(this.size.unwrap_or(8))),
            Kind::Function => (self.signature(ty, depth)?, None),
            Kind::Base => {
                let mut mixer = Mixer::new(4);
                mixer.word(this.size.unwrap_or(u64::MAX));
                mixer.word(u64::from(this.encoding));
                (mixer.finish(), this.size)
            }
            Kind::Enum if this.name.is_empty() => (enumerators(self.object, ty), this.size),
            Kind::Enum => {
                // Its enumerators are compared under its own name.
                let mut mixer = Mixer::new(5);
                mixer.word(this.size.unwrap_or(u64::MAX));
                mixer.bytes(self.object.bytes(this.name));
                (mixer.finish(), this.size)
            }
            Kind::Opaque => {
                let mut mixer = Mixer::new(6);
                mixer.bytes(self.object.bytes(this.name));
                (mixer.finish(), this.size)
            }
        })
    }

    fn aggregate(&mut self, ty: u32, depth: u32) -> Result<Print, Error> {
        let object = self.object;
        let this = &object.model.types[ty as usize];
        let mut sum = Print::default();
        for member in object.model.members_of(ty) {
            let mut mixer = Mixer::new(7);
            mixer.bytes(object.bytes(member.name));
            mixer.word(member.at as u64);
            mixer.word(member.bits.map_or(u64::MAX, u64::from));
            mixer.print(self.layout(member.target, depth)?);
            sum = sum.add(mixer.finish());
        }
        let mut mixer = Mixer::new(8 + u8::from(this.kind == Kind::Union));
        mixer.word(this.size.unwrap_or(u64::MAX));
        mixer.word(u64::from(this.align));
        if this.declaration {
            mixer.bytes(object.bytes(this.name));
        }
        mixer.print(sum);
        Ok(mixer.finish())
    }

    /// Takes the dimensions in; gives the number of elements.
    fn dimensions(&self, ty: u32, mixer: &mut Mixer) -> Option<u64> {
        let mut count = Some(1u64);
        for member in self.object.model.members_of(ty) {
            if member.kind == MemberKind::Dimension {
                mixer.word(member.at as u64);
                count = count.and_then(|c| c.checked_mul(u64::try_from(member.at).ok()?));
            }
        }
        count
    }

    fn pointer(&mut self, ty: u32, depth: u32) -> Result<Print, Error> {
        let this = self.ty(ty);
        let (target, size) = (this.target, this.size.unwrap_or(8));
        let mut mixer = Mixer::new(10);
        mixer.word(size);
        mixer.print(self.reference(target, depth)?);
        Ok(mixer.finish())
    }

    fn signature(&mut self, ty: u32, depth: u32) -> Result<Print, Error> {
        let model = self.object.model;
        let mut mixer = Mixer::new(11);
        mixer.print(self.reference(model.types[ty as usize].target, depth)?);
        for member in model.members_of(ty) {
            match member.kind {
                MemberKind::Parameter => mixer.print(self.reference(member.target, depth)?),
                MemberKind::Variadic => mixer.word(1),
                _ => {}
            }
        }
        Ok(mixer.finish())
    }

    fn reference(&mut self, ty: u32, depth: u32) -> Result<Print, Error> {
        if ty == VOID {
            return Ok(Mixer::new(1).finish());
        }
        match self.reference_state[ty as usize] {
            State::Done => return Ok(self.shapes.reference[ty as usize]),
            State::Open => return Err(self.deep(ty)),
            State::New if depth > MAX_DEPTH => return Err(self.deep(ty)),
            State::New => self.reference_state[ty as usize] = State::Open,
        }
        let print = self.reference_of(ty, depth + 1)?;
        self.shapes.reference[ty as usize] = print;
        self.reference_state[ty as usize] = State::Done;
        Ok(print)
    }

    fn reference_of(&mut self, ty: u32, depth: u32) -> Result<Print, Error> {
        let model = self.object.model;
        let this = &model.types[ty as usize];
        match this.kind {
            Kind::Qualifier => self.reference(this.target, depth),
            Kind::Typedef => {
                let target = model.unqualified(this.target);
                if target != VOID && model.types[target as usize].is_anonymous() {
                    // The typedef is all the name that it has.
                    return Ok(key(Kind::Typedef, self.object.bytes(this.name)));
                }
                self.reference(this.target, depth)
            }
            Kind::Struct | Kind::Union | Kind::Enum if !this.name.is_empty() => {
                Ok(key(this.kind, self.object.bytes(this.name)))
            }
            Kind::Array => {
                let mut mixer = Mixer::new(12 + this.encoding);
                mixer.print(self.reference(this.target, depth)?);
                self.dimensions(ty, &mut mixer);
                Ok(mixer.finish())
            }
            _ => self.layout(ty, depth),
        }
    }
}
