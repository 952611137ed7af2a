//! Hooks: pointers in `.livepatch.hooks.*` sections of patched objects, which make the functions that they point to
//! part of the payload.
//!
//! xen/include/xen/livepatch_payload.h has a macro for each kind; all that counts of what a macro makes is a pointer
//! in a section of its kind's name. Where the loader looks: xen/common/livepatch.c, `prepare_payload`.

use std::collections::BTreeMap;

use xsplice_objects::{Class, HookKind, RelocKind, Relocation, Section, SectionId, Special};
use xsplice_report::{Because, Diagnostic, Place};

use super::Selector;
use super::shipped::init_reference;
use crate::codes;
use crate::entries::Spot;
use crate::items::{ItemId, ItemKind};
use crate::meaning::Meaning;
use crate::pieces::{Hook, Piece, PieceKind, Reference, Target};

/// Bytes of a pointer to a hook.
const POINTER: u64 = 8;

/// A hook that the patch asks for, before its function is included.
struct Asked {
    kind: HookKind,
    /// The object that asks.
    index: usize,
    section: SectionId,
    /// Bytes from the start of the section.
    offset: u64,
    /// The object and item of the function.
    function: (usize, ItemId),
}

impl Selector<'_, '_> {
    /// Makes roots of all hooks that the patch brings, in the order of their kinds, their objects' paths and their
    /// positions there.
    pub(super) fn select_hooks(&mut self) {
        let mut asked = Vec::new();
        for index in 0..self.pairs.len() {
            let parts = self.pair(index).correlated.parts;
            // Any change of assembler code is refused as such.
            if parts.pair.assembler {
                continue;
            }
            for (id, section) in parts.patched.object.sections().filter(|(_, section)| section.size > 0) {
                if let Class::Special(Special::Hook(kind)) = section.class {
                    self.read_hooks(index, kind, id, &mut asked);
                } else if let Some(name) = section.name.strip_prefix(".livepatch.hooks.")
                    && section.class == Class::Unknown
                {
                    let place = self.in_section(index, section);
                    self.unknown_kind(name, place);
                }
            }
        }
        let pairs = self.pairs;
        asked.sort_by_key(|asked| {
            let path = pairs[asked.index].correlated.parts.pair.path.as_str();
            (asked.kind, path, asked.section, asked.offset)
        });
        self.refuse_several(&asked);
        self.warn_of_repetition(&asked);
        for asked in asked {
            self.include_hook(&asked);
        }
    }

    /// The hooks of a section that the original does not have.
    fn read_hooks(&mut self, index: usize, kind: HookKind, id: SectionId, asked: &mut Vec<Asked>) {
        let section = self.pair(index).correlated.parts.patched.object.section(id);
        let place = self.in_section(index, section);
        if !self.world.loader.hooks.contains(&kind) {
            self.unknown_kind(kind.name(), place);
            return;
        }
        let mut old = self.old_hooks(index, kind);
        let loose = section.relocations.iter().any(|r| !r.offset.is_multiple_of(POINTER));
        if !section.size.is_multiple_of(POINTER) || loose {
            self.odd_hook(kind, place, "the section does not hold whole pointers");
            return;
        }
        for offset in (0..section.size).step_by(POINTER as usize) {
            let place = place.clone().offset(offset);
            let relocations = section.relocations_in(offset, offset + POINTER);
            let literal = section.bytes(offset, offset + POINTER).iter().any(|&byte| byte != 0);
            let relocation = match relocations {
                [only] if only.kind == RelocKind::Abs64 && !literal => only,
                [] if !literal => {
                    self.odd_hook(kind, place, "a pointer is NULL");
                    continue;
                }
                _ => {
                    self.odd_hook(kind, place, "a pointer is not a plain 64-bit address");
                    continue;
                }
            };
            let view = &self.pair(index).correlated.patched;
            let spot = view.spot(relocation, 0);
            let meaning = view.meaning(spot, None);
            if let Some(at) = old.iter().position(|other| *other == meaning) {
                old.remove(at);
                self.not_new(kind, &meaning, place);
            } else if let Some(function) = self.hook_function(index, kind, spot, relocation, place) {
                asked.push(Asked { kind, index, section: id, offset, function });
            }
        }
    }

    /// What the original's hooks of that kind point to: they belong to another payload, or to nobody.
    fn old_hooks(&self, index: usize, kind: HookKind) -> Vec<Meaning> {
        let correlated = &self.pair(index).correlated;
        let of_kind = |section: &&Section| section.class == Class::Special(Special::Hook(kind));
        let sections = correlated.parts.base.object.sections.iter().filter(of_kind);
        let view = &correlated.base;
        sections
            .flat_map(|section| &section.relocations)
            .map(|relocation| view.meaning(view.spot(relocation, 0), None))
            .collect()
    }

    /// The function that a hook points to, if it is one that the patch brings.
    fn hook_function(
        &mut self,
        index: usize,
        kind: HookKind,
        spot: Spot,
        relocation: &Relocation,
        place: Place,
    ) -> Option<(usize, ItemId)> {
        let parts = self.pair(index).correlated.parts;
        let found = match spot.section {
            None => {
                let name = &parts.patched.object.symbol(relocation.symbol).name;
                let found = self.globals.get(name).copied().filter(|_| spot.offset == 0);
                if found.is_none() {
                    let name = name.clone();
                    self.foreign_hook(kind, &name, "the patch does not bring it", place);
                    return None;
                }
                found
            }
            Some(section) => parts.patched.at(section, spot.offset).and_then(|(id, distance)| {
                let item = parts.patched.get(id);
                (distance == 0 && item.unit.is_none()).then_some((index, id))
            }),
        };
        let Some((home, id)) = found else {
            self.odd_hook(kind, place, "a pointer does not lead to the start of a function");
            return None;
        };
        let correlated = &self.pair(home).correlated;
        let item = correlated.parts.patched.get(id);
        let name = item.name.clone();
        if item.kind != ItemKind::Function {
            self.odd_hook(kind, place, &format!("a pointer leads to {name}, which is no function"));
            None
        } else if item.class.is_init() {
            let place = self.place(home, &name).section(place.section.unwrap_or_default());
            self.refuse(init_reference(&format!("the {} hook", kind.name()), &name, place));
            None
        } else if item.class != Class::Text || correlated.counterpart[id.0].is_some() {
            let place = self.place(home, &name).section(place.section.unwrap_or_default());
            self.foreign_hook(kind, &name, "the hypervisor has it already", place);
            None
        } else {
            Some((home, id))
        }
    }

    fn include_hook(&mut self, asked: &Asked) {
        let (home, id) = asked.function;
        let because = || Because::hook(asked.kind.name());
        let head = self.pair(home).correlated.parts.patched.head(id);
        let piece = self.unit(home, head, because());
        let function = self.hook_name(asked);
        let object = self.pair(asked.index).correlated.parts.pair.path.clone();
        self.selection.pieces.push(Piece {
            kind: PieceKind::Hook(asked.kind),
            object: object.clone(),
            label: function.clone(),
            symbol: None,
            global: false,
            bytes: vec![0; POINTER as usize],
            declared: POINTER,
            align: POINTER,
            references: vec![Reference {
                offset: 0,
                kind: RelocKind::Abs64,
                target: Target::Piece(piece),
                addend: 0,
            }],
            because: because(),
        });
        let place = self.place(home, &function);
        self.selection.hooks.push(Hook { kind: asked.kind, function, piece, object, place });
    }

    fn hook_name(&self, asked: &Asked) -> String {
        let (home, id) = asked.function;
        self.pair(home).correlated.parts.patched.get(id).name.clone()
    }

    fn in_section(&self, index: usize, section: &Section) -> Place {
        let pair = self.pair(index).correlated.parts.pair;
        Place::object(&pair.path).source(&pair.source, None).section(&section.name)
    }

    /// For each kind of which there can be one hook: that there is.
    fn refuse_several(&mut self, all: &[Asked]) {
        for kind in HookKind::ALL.into_iter().filter(|kind| !kind.is_array()) {
            let asked: Vec<&Asked> = all.iter().filter(|asked| asked.kind == kind).collect();
            let [first, _, ..] = asked[..] else { continue };
            let named = |asked: &&Asked| {
                let path = &self.pair(asked.index).correlated.parts.pair.path;
                format!("{} in {path}", self.hook_name(asked))
            };
            let list = asked.iter().map(named).collect::<Vec<_>>().join(", ");
            let place = self.place(first.function.0, &self.hook_name(first));
            self.refuse(
                Diagnostic::new(
                    codes::HOOK_TWICE,
                    format!("the patch brings {} {} hooks: {list}", asked.len(), kind.name()),
                )
                .at(place.section(kind.section()))
                .why("A payload can have one of that kind; the host refuses several.")
                .advice(
                    "Join them into one function. Code that several objects are made of (as common/kernel.c is) \
                     brings its hook once for each: put the hook into a file of its own.",
                ),
            );
        }
    }

    /// One source can give several objects, and then its hook runs once for each.
    fn warn_of_repetition(&mut self, all: &[Asked]) {
        let mut by_source: BTreeMap<(HookKind, String, Place), Vec<String>> = BTreeMap::new();
        for asked in all.iter().filter(|asked| asked.kind.is_array()) {
            let name = self.hook_name(asked);
            let mut place = self.place(asked.function.0, &name);
            let object = place.object.take().unwrap_or_default();
            by_source.entry((asked.kind, name, place)).or_default().push(object);
        }
        for ((kind, name, place), mut objects) in by_source.into_iter().filter(|(_, all)| all.len() > 1) {
            let times = objects.len();
            objects.dedup();
            let why = match &objects[..] {
                [only] => format!("{only} asks for it that often."),
                _ => format!("Each of {} has a copy of it.", objects.join(", ")),
            };
            self.refuse(
                Diagnostic::new(
                    codes::HOOK_REPEATED,
                    format!("the {} hook {name} will run {times} times", kind.name()),
                )
                .at(place)
                .why(why)
                .advice("If it must run once, put it into a source file of its own."),
            );
        }
    }

    fn unknown_kind(&mut self, name: &str, place: Place) {
        let known: Vec<&str> = self.world.loader.hooks.iter().map(|kind| kind.name()).collect();
        self.refuse(
            Diagnostic::new(codes::HOOK_KIND, format!("this Xen knows no {name} hooks"))
                .at(place)
                .why("The loader would pass over it in silence, and the function would never run.")
                .advice(format!(
                    "Use a kind that livepatch_payload.h of this tree has: {}.",
                    known.join(", ")
                )),
        );
    }

    fn odd_hook(&mut self, kind: HookKind, place: Place, what: &str) {
        self.refuse(
            Diagnostic::new(codes::HOOK_FORM, format!("hooks of the kind {}: {what}", kind.name()))
                .at(place)
                .why("Xen calls what the section holds without another look.")
                .advice("Use the macros of livepatch_payload.h, each with the name of a function."),
        );
    }

    fn foreign_hook(&mut self, kind: HookKind, name: &str, why: &str, place: Place) {
        self.refuse(
            Diagnostic::new(codes::HOOK_FUNCTION, format!("the {} hook {name} is not new: {why}", kind.name()))
                .at(place)
                .why("A hook's function has to come with the payload: what the hypervisor has may not be made to be called by pointer.")
                .advice("Write a new function that calls it, and make that the hook."),
        );
    }

    fn not_new(&mut self, kind: HookKind, meaning: &Meaning, place: Place) {
        let name = crate::words::name(meaning, "");
        self.refuse(
            Diagnostic::new(
                codes::HOOK_NOT_NEW,
                format!("the original has the {} hook {name} too: it is left out", kind.name()),
            )
            .at(place)
            .why("Only what the patch brings goes into the payload; a payload below may have run that hook already.")
            .advice("To have it in this payload, leave it out of the original and put it into the patch."),
        );
    }
}
