//! Whether the shipped hypervisor's code is the rebuilt original's.
//!
//! Names and sizes can agree by chance. The shipped file holds the code too, so the bytes are compared, relocated
//! fields apart. What these refer to is solved by inference: the value that the linker left in a field says where its
//! target would have to be. All fields of all functions that refer to one thing have to agree on one address: a symbol of
//! another object, an input section (which linkers keep in one piece), a merged string or constant. Where Xen's own table
//! has the name, it has to be one of its addresses; strings, constants and read-only data have to hold the same.

mod pinned;
mod relaxed;

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{Decoder, DecoderOptions, Formatter, GasFormatter};
use xsplice_objects::{Class, Home, Hypervisor, RelocKind, Relocation, SectionId, Shipped};

use crate::entries::Spot;
use crate::items::{ItemId, ItemKind, Items};
use crate::{meaning, names};

pub(crate) use pinned::{Addresses, Found};

/// How a function of the original compares with the shipped one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Its code is the same, jumps of other lengths apart.
    Same,
    /// The first difference in code, or in what it refers to, in words.
    Differs(String),
    /// The code is the same, and something that it uses holds something else; what, and in words.
    OtherContent(Content, String),
    /// The symbol file does not hold the code.
    NoCode,
}

/// What holds something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// A string or a constant that has no name.
    Merged,
    /// Read-only data.
    Data,
}

/// What has one address, whoever refers to it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Anchor {
    /// A symbol of another object.
    Name(String),
    /// A section of this object.
    Section(SectionId),
    /// A string or constant that linkers merge, by its start in bytes from that of its section.
    Merged(SectionId, u64),
}

/// An address with the function that was the first to say it.
#[derive(Debug, Clone)]
struct Pinned {
    address: u64,
    by: String,
}

type Pins = BTreeMap<Anchor, Pinned>;

/// Compares functions of all objects of an original with a hypervisor.
pub(crate) struct Prover<'h> {
    hypervisor: &'h Hypervisor,
    /// Symbols that objects have in common.
    names: Pins,
    /// What boot writes over, where the file tells; read when it is first asked for.
    sites: OnceCell<Option<relaxed::Sites>>,
}

impl<'h> Prover<'h> {
    /// Nothing is known yet.
    pub(crate) fn new(hypervisor: &'h Hypervisor) -> Prover<'h> {
        Prover { hypervisor, names: Pins::new(), sites: OnceCell::new() }
    }

    fn sites(&self) -> Option<&relaxed::Sites> {
        self.sites.get_or_init(|| relaxed::shipped_sites(self.hypervisor)).as_ref()
    }

    /// For functions of one object.
    pub(crate) fn object<'p>(&'p mut self, items: &'p Items<'p>) -> ObjectProver<'p, 'h> {
        self.resume(items, Pins::new())
    }

    /// The same, with what is known of that object.
    fn resume<'p>(&'p mut self, items: &'p Items<'p>, pins: Pins) -> ObjectProver<'p, 'h> {
        ObjectProver { prover: self, items, pins, against: RefCell::default(), contradicted: BTreeSet::new() }
    }
}

/// Compares functions of one object.
pub(crate) struct ObjectProver<'p, 'h> {
    prover: &'p mut Prover<'h>,
    items: &'p Items<'p>,
    /// Sections, strings and constants of this object.
    pins: Pins,
    /// What fields of the function at hand lead elsewhere for, though its bytes are the same.
    against: RefCell<BTreeSet<Anchor>>,
    /// The same of all functions that differ by nothing else.
    contradicted: BTreeSet<Anchor>,
}

/// What stands against a field: other code, or other content.
enum Against {
    Code(String),
    /// It leads elsewhere than what is known of that.
    Elsewhere(Anchor, String),
    Content(Content, String),
}

impl ObjectProver<'_, '_> {
    /// Compares a function with the shipped ones that have its name. There may be several of that name: one that
    /// agrees is enough, and only if it is the only one, what it refers to counts for other functions.
    pub(crate) fn function(&mut self, id: ItemId, shipped: &[&Shipped]) -> Proof {
        self.matching(id, shipped).0
    }

    /// The same, with the only one that agrees.
    fn matching<'s>(&mut self, id: ItemId, shipped: &[&'s Shipped]) -> (Proof, Option<&'s Shipped>) {
        self.against.take();
        let shipped = &self.told_by_fields(id, shipped)[..];
        let compared: Vec<(Proof, Pins)> = shipped.iter().map(|one| self.compare(id, one)).collect();
        let agree = |(proof, _): &(Proof, Pins)| *proof == Proof::Same;
        let same = compared.iter().filter(|one| agree(one)).count();
        if same == 1 {
            let only = compared.iter().position(agree).and_then(|index| shipped.get(index).copied());
            let agreeing = compared.into_iter().find(agree);
            for (anchor, pinned) in agreeing.into_iter().flat_map(|(_, pins)| pins) {
                let pins = match anchor {
                    Anchor::Name(_) => &mut self.prover.names,
                    _ => &mut self.pins,
                };
                pins.entry(anchor).or_insert(pinned);
            }
            return (Proof::Same, only);
        }
        if same > 1 {
            return (Proof::Same, None);
        }
        let against = self.against.take();
        self.contradicted.extend(against);
        let unread = compared.iter().any(|(proof, _)| *proof == Proof::NoCode);
        let first = compared.into_iter().map(|(proof, _)| proof).find(|proof| *proof != Proof::NoCode);
        match first {
            Some(proof) if !unread => (proof, None),
            _ => (Proof::NoCode, None),
        }
    }

    /// Of several shipped functions, the one that fields of others lead to, if there is one.
    fn told_by_fields<'s>(&self, id: ItemId, shipped: &[&'s Shipped]) -> Vec<&'s Shipped> {
        let item = self.items.get(id);
        let pinned = self.pins.get(&Anchor::Section(item.section));
        let address = pinned.map(|pinned| pinned.address.wrapping_add(item.start));
        match shipped.iter().find(|one| Some(one.address) == address) {
            Some(one) => vec![one],
            None => shipped.to_vec(),
        }
    }

    fn compare(&self, id: ItemId, shipped: &Shipped) -> (Proof, Pins) {
        let exact = self.compare_exactly(id, shipped);
        match exact.0 {
            Proof::Differs(_) => self.relaxed(id, shipped).unwrap_or(exact),
            _ => exact,
        }
    }

    fn compare_exactly(&self, id: ItemId, shipped: &Shipped) -> (Proof, Pins) {
        let item = self.items.get(id);
        let mut pins = Pins::new();
        let size = usize::try_from(item.size()).unwrap_or(usize::MAX);
        let Some(theirs) = self.prover.hypervisor.bytes(shipped.address, size) else {
            return (Proof::NoCode, pins);
        };
        if shipped.size != item.declared {
            let what = format!("has {} bytes, shipped are {}", item.declared, shipped.size);
            return (Proof::Differs(what), pins);
        }
        if let Some(what) = self.other_bytes(id, theirs) {
            return (Proof::Differs(what), pins);
        }
        let section = self.items.object.section(item.section);
        let own = Anchor::Section(item.section);
        pins.insert(own, Pinned { address: shipped.address.wrapping_sub(item.start), by: item.name.clone() });
        let relocations = section.relocations_in(item.start, item.end);
        let ends = meaning::decode(&section.bytes(item.start, item.end), relocations, item.start).ends;
        let mut content = None;
        for relocation in relocations {
            let adjust = match ends.get(&relocation.offset) {
                Some(end) if relocation.kind.is_relative() => (end - relocation.offset).cast_signed(),
                _ => 0,
            };
            let field = relocation.offset - item.start;
            let Some(value) = value(theirs, shipped.address, field, relocation.kind) else { continue };
            match self.field(relocation, adjust, value, &item.name, &mut pins) {
                Ok(()) => {}
                Err(Against::Code(what)) => return (Proof::Differs(format!("at +{field:#x} {what}")), pins),
                Err(Against::Elsewhere(anchor, what)) => {
                    self.against.borrow_mut().insert(anchor);
                    return (Proof::Differs(format!("at +{field:#x} {what}")), pins);
                }
                Err(Against::Content(kind, what)) => {
                    content.get_or_insert((kind, format!("at +{field:#x} {what}")));
                }
            }
        }
        let proof = content.map_or(Proof::Same, |(kind, what)| Proof::OtherContent(kind, what));
        (proof, pins)
    }

    /// The first instruction that differs in more than relocated fields.
    fn other_bytes(&self, id: ItemId, theirs: &[u8]) -> Option<String> {
        let item = self.items.get(id);
        let section = self.items.object.section(item.section);
        let (mut ours, mut theirs) = (section.bytes(item.start, item.end).into_owned(), theirs.to_vec());
        for relocation in section.relocations_in(item.start, item.end) {
            for bytes in [&mut ours, &mut theirs] {
                meaning::blank(bytes, relocation.offset - item.start, relocation.kind);
            }
        }
        let at = ours.iter().zip(&theirs).position(|(ours, theirs)| ours != theirs)?;
        let (offset, text) = instruction_at(&ours, at);
        let (_, other) = instruction_at(&theirs, at);
        Some(format!("at +{offset:#x} `{text}`, shipped is `{other}`"))
    }

    /// What a field of the shipped code says about the thing that the original's names there. `value` is what the
    /// linker computed: the address of that thing plus the addend.
    fn field(
        &self,
        relocation: &Relocation,
        adjust: i64,
        value: u64,
        by: &str,
        pins: &mut Pins,
    ) -> Result<(), Against> {
        let object = self.items.object;
        let symbol = object.symbol(relocation.symbol);
        let address = value.wrapping_sub(relocation.addend.cast_unsigned());
        let id = match symbol.home {
            Home::Absolute | Home::Common => return Ok(()),
            Home::Undefined => {
                let known = self.addresses(&symbol.name);
                if !known.is_empty() && !known.contains(&address) {
                    let what = format!("{}, shipped leads elsewhere", symbol.name);
                    return Err(Against::Elsewhere(Anchor::Name(symbol.name.clone()), what));
                }
                return self.pin(Anchor::Name(symbol.name.clone()), address, &symbol.name, by, pins);
            }
            Home::Section(id) => id,
        };
        let offset = symbol.value.cast_signed() + relocation.addend + adjust;
        let spot = Spot { section: Some(id), symbol: relocation.symbol.0, offset };
        let section = object.section(id);
        let (start, bytes) = match section.class {
            Class::Strings => meaning::string_at(object, id, spot),
            Class::Constants => meaning::constant_at(object, id, spot),
            _ => return self.in_section(id, address.wrapping_sub(symbol.value), spot, by, pins),
        };
        let there = value.wrapping_add_signed(adjust).wrapping_add_signed(start.cast_signed() - offset);
        // What a relocated constant holds is for the linker to say.
        let relocated = !section.relocations_in(start, start + bytes.len() as u64).is_empty();
        let shipped = self.prover.hypervisor.bytes(there, bytes.len());
        if !relocated && shipped.is_some_and(|shipped| shipped != bytes) {
            let what = match section.class {
                Class::Strings => {
                    let text = String::from_utf8_lossy(&bytes);
                    format!("{:?}, shipped is another string", text.trim_end_matches('\0'))
                }
                _ => "a constant, shipped is another one".to_owned(),
            };
            return Err(Against::Content(Content::Merged, what));
        }
        self.pin(Anchor::Merged(id, start), there, "a string or constant", by, pins)
    }

    /// A reference into a section of the object, which starts at `base` if the shipped one is the same.
    fn in_section(
        &self,
        id: SectionId,
        base: u64,
        spot: Spot,
        by: &str,
        pins: &mut Pins,
    ) -> Result<(), Against> {
        let found = self.items.at(id, spot.offset);
        let name = found.map_or(self.items.object.section(id).name.as_str(), |(item, _)| {
            self.items.get(item).name.as_str()
        });
        self.pin(Anchor::Section(id), base, name, by, pins)?;
        let Some((item_id, _)) = found else { return Ok(()) };
        let item = self.items.get(item_id);
        let address = base.wrapping_add(item.start);
        let named = matches!(item.kind, ItemKind::Function | ItemKind::Data);
        // The numbers that compilers count may be others, and then belong to other things.
        if named && !names::is_numbered(&item.name) {
            let known = self.addresses(&self.items.object.table_name(&item.name, item.local));
            if !known.is_empty() && !known.contains(&address) {
                let what = format!("{name}, shipped leads elsewhere");
                return Err(Against::Elsewhere(Anchor::Section(id), what));
            }
        }
        let by_content = match item.class {
            Class::ReadOnly => true,
            Class::Text | Class::InitText => item.kind != ItemKind::Function,
            _ => false,
        };
        if by_content && let Some(theirs) = self.prover.hypervisor.bytes(address, item.size() as usize) {
            if item.class == Class::ReadOnly {
                if self.other_bytes(item_id, theirs).is_some() {
                    let what = format!("{name}, which holds something else in the shipped one");
                    return Err(Against::Content(Content::Data, what));
                }
            } else if let Some(what) = self.other_bytes(item_id, theirs) {
                return Err(Against::Code(format!("what it puts aside differs: {what}")));
            }
        }
        Ok(())
    }

    fn addresses(&self, name: &str) -> Vec<u64> {
        self.prover.hypervisor.named(name).map(|shipped| shipped.address).collect()
    }

    /// All have to agree on one address.
    fn pin(
        &self,
        anchor: Anchor,
        address: u64,
        name: &str,
        by: &str,
        pins: &mut Pins,
    ) -> Result<(), Against> {
        let known = match anchor {
            Anchor::Name(_) => &self.prover.names,
            _ => &self.pins,
        };
        match known.get(&anchor).or_else(|| pins.get(&anchor)) {
            Some(pinned) if pinned.address != address => {
                let other = if pinned.by == by { "the function before" } else { &pinned.by };
                let what = format!("{name}, shipped leads elsewhere than {other} does");
                Err(Against::Elsewhere(anchor, what))
            }
            Some(_) => Ok(()),
            None => {
                pins.insert(anchor, Pinned { address, by: by.to_owned() });
                Ok(())
            }
        }
    }
}

/// The address that the linker computed for a field of the shipped code: that of the symbol, plus the addend. `None` for
/// kinds that hold a part of it.
fn value(code: &[u8], start: u64, field: u64, kind: RelocKind) -> Option<u64> {
    let from = usize::try_from(field).ok()?;
    let bytes = code.get(from..from.checked_add(kind.width() as usize)?)?;
    match kind {
        RelocKind::Abs64 => Some(u64::from_le_bytes(bytes.try_into().ok()?)),
        RelocKind::Pc32 => {
            let distance = i64::from(i32::from_le_bytes(bytes.try_into().ok()?));
            Some(start.wrapping_add(field).wrapping_add_signed(distance))
        }
        _ => None,
    }
}

/// The instruction that holds a byte: where it starts, and its text.
fn instruction_at(code: &[u8], at: usize) -> (u64, String) {
    let mut text = String::new();
    let instruction =
        Decoder::new(64, code, DecoderOptions::NONE).into_iter().find(|i| i.next_ip() > at as u64);
    let Some(instruction) = instruction else { return (at as u64, text) };
    GasFormatter::new().format(&instruction, &mut text);
    (instruction.ip(), text)
}
