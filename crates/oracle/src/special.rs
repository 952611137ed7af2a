//! Sections whose entries describe code: alternatives, altcalls, bug frames, exception table entries.
//!
//! Formats: Xen 4.13 to 4.22, xen/include/asm-x86 (later arch/x86/include/asm): alternative.h, bug.h,
//! uaccess.h. Displacements in them are relative to their own place, in bug frames to the frame's start.

use std::collections::BTreeMap;

use crate::{
    canon::{self, Line},
    class::Class,
    listing::{Home, Reloc},
    model::{Model, Place, Target},
};

/// The lines that entries of special sections add to items, and what belongs to none.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    pub of_item: BTreeMap<usize, Vec<Line>>,
    /// By section: entries that describe no known code.
    pub stray: BTreeMap<String, Vec<Line>>,
    /// Sections whose size or relocations are not those of the format.
    pub odd: Vec<String>,
}

/// Code without a name that belongs to an item.
struct Owned {
    section: usize,
    start: u64,
    end: u64,
    item: usize,
    /// What it is to the item.
    what: String,
}

struct Reader<'a> {
    model: &'a Model,
    found: BTreeMap<usize, Vec<(usize, usize, Vec<Line>)>>,
    owned: Vec<Owned>,
    entries: Entries,
}

/// Reads all of them.
pub(crate) fn read(model: &Model) -> Entries {
    let mut reader = Reader { model, found: BTreeMap::new(), owned: Vec::new(), entries: Entries::default() };
    let special: Vec<usize> =
        (0..model.listing.sections.len()).filter(|&n| model.class(n) == Class::Special).collect();
    let name = |n: usize| model.section(n).name.as_str();
    for &number in special.iter().filter(|&&n| name(n) == ".altinstructions") {
        reader.each(number, 14, Reader::alternative);
    }
    for &number in special.iter().filter(|&&n| name(n).starts_with(".ex_table")) {
        reader.each(number, 8, Reader::exception);
    }
    for &number in &special {
        match name(number) {
            ".alt_call_sites" => reader.each(number, 4, Reader::altcall),
            ".bug_frames.3" => reader.each(number, 16, Reader::bug_frame),
            frames if frames.starts_with(".bug_frames.") => reader.each(number, 8, Reader::bug_frame),
            _ => {}
        }
    }
    for (item, mut found) in reader.found {
        // By the place they describe; in order where it is the same.
        found.sort_by_key(|(count, order, _)| (*count, *order));
        reader.entries.of_item.insert(item, found.into_iter().flat_map(|(_, _, lines)| lines).collect());
    }
    reader.entries
}

/// What an entry describes.
enum Described {
    Item(usize, Place, String),
    Nothing,
    Discarded,
}

impl<'a> Reader<'a> {
    fn each(&mut self, section: usize, stride: u64, read: fn(&mut Reader<'a>, usize, u64)) {
        let it = self.model.section(section);
        if it.size % stride != 0 {
            self.entries.odd.push(format!("{} has {} bytes, not a multiple of {stride}", it.name, it.size));
        }
        let mut at = 0;
        while at + stride <= it.size {
            read(self, section, at);
            at += stride;
        }
    }

    fn reloc(&self, section: usize, at: u64) -> Option<&'a Reloc> {
        self.model.section(section).relocs_in(at, at + 1).first()
    }

    /// Section and offset that a word relative to itself refers to.
    fn spot(&self, section: usize, at: u64) -> Option<(usize, u64)> {
        let reloc = self.reloc(section, at)?;
        let symbol = &self.model.listing.symbols[reloc.symbol];
        match symbol.home {
            Home::Section(target) => Some((target, symbol.value.wrapping_add_signed(reloc.addend))),
            _ => None,
        }
    }

    /// The code at a spot, and how to name the place in it.
    fn described(&self, spot: Option<(usize, u64)>) -> Described {
        let Some((section, at)) = spot else { return Described::Nothing };
        if self.model.class(section) == Class::Ignored {
            return Described::Discarded;
        }
        if let Target::Item(item, place, _) = self.model.at(section, at)
            && self.model.items[item].code
        {
            let label = match place {
                Place::Label(count, 0) => format!("@{count}"),
                Place::Label(count, rest) => format!("@{count}+{rest}"),
                Place::Byte(distance) => format!("{distance:+#x}"),
            };
            return Described::Item(item, place, label);
        }
        let inside = |owned: &&Owned| owned.section == section && owned.start <= at && at < owned.end;
        match self.owned.iter().find(inside) {
            Some(owned) => {
                let label = format!("{} + {:#x}", owned.what, at - owned.start);
                Described::Item(owned.item, Place::Label(usize::MAX, 0), label)
            }
            None => Described::Nothing,
        }
    }

    fn add(&mut self, section: usize, described: Described, lines: Vec<Line>) {
        match described {
            Described::Item(item, place, _) => {
                let count = if let Place::Label(count, _) = place { count } else { 0 };
                let found = self.found.entry(item).or_default();
                found.push((count, found.len(), lines));
            }
            Described::Nothing => {
                let name = self.model.section(section).name.clone();
                self.entries.stray.entry(name).or_default().extend(lines);
            }
            Described::Discarded => {}
        }
    }

    /// s32 original, s32 replacement, u16 feature, u8 length, u8 replacement's length, u8 padding, u8 private.
    fn alternative(&mut self, section: usize, at: u64) {
        let it = self.model.section(section);
        let rest = it.slice(at + 8, at + 14);
        let described = self.described(self.spot(section, at));
        let label = label(&described);
        let feature = u16::from_le_bytes([rest[0], rest[1]]);
        let head = format!(
            "alternative {label} feature {:#06x} length {} by {} padding {} {:02x}",
            feature, rest[2], rest[3], rest[4], rest[5]
        );
        let mut lines = vec![Line::new(head)];
        match self.spot(section, at + 4) {
            Some((code, start)) => {
                let end = start + u64::from(rest[3]);
                for line in canon::code(self.model, code, start, end, false) {
                    lines.push(Line { text: format!("alternative {label}: {}", line.text), ..line });
                }
                if let Described::Item(item, ..) = described {
                    let what = format!("alternative {label}");
                    self.owned.push(Owned { section: code, start, end, item, what });
                }
            }
            None => lines.push(Line::new(format!("alternative {label}: replacement not known"))),
        }
        self.add(section, described, lines);
    }

    /// s32 instruction that may fault, s32 where to go on.
    fn exception(&mut self, section: usize, at: u64) {
        let described = self.described(self.spot(section, at));
        let label = label(&described);
        let kind = &self.model.section(section).name;
        let mut head = Line::new(format!("{kind} {label}"));
        let mut lines = Vec::new();
        match self.spot(section, at + 4) {
            Some((code, to)) => match self.model.at(code, to) {
                Target::Code(_, start, end) => {
                    for line in canon::code(self.model, code, start, end, false) {
                        lines.push(Line { text: format!("fixup {label}: {}", line.text), ..line });
                    }
                    if let Described::Item(item, ..) = described {
                        let what = format!("fixup {label}");
                        self.owned.push(Owned { section: code, start, end, item, what });
                    }
                }
                target => head.refs.push(("to".to_owned(), target)),
            },
            None => head.text.push_str(" to a place not known"),
        }
        lines.insert(0, head);
        self.add(section, described, lines);
    }

    /// s32 site.
    fn altcall(&mut self, section: usize, at: u64) {
        let described = self.described(self.spot(section, at));
        let line = Line::new(format!("altcall {}", label(&described)));
        self.add(section, described, vec![line]);
    }

    /// s32 site, s32 file name or function; in assertions u32 0, s32 message. All are relative to the frame.
    /// The top bytes of the first two are the halves of the line number.
    fn bug_frame(&mut self, section: usize, at: u64) {
        let it = self.model.section(section);
        let stride = if it.name == ".bug_frames.3" { 16 } else { 8 };
        let mut spot = None;
        let mut line = Line::new("");
        let mut numbers = Vec::new();
        for word in (at..at + stride).step_by(4) {
            let Some(reloc) = self.reloc(section, word) else {
                let bytes = it.slice(word, word + 4);
                numbers.push(canon::hex(&bytes));
                continue;
            };
            let value = self.model.listing.symbols[reloc.symbol].value.cast_signed();
            let sum = value + reloc.addend - (word - at).cast_signed();
            let low = (sum << 40) >> 40;
            numbers.push(format!("{:#x}", (sum - low) >> 24));
            let distance = low - value;
            if word == at {
                if let Home::Section(code) = self.model.listing.symbols[reloc.symbol].home {
                    spot = Some((code, low.cast_unsigned()));
                }
            } else {
                let target = self.model.resolve(reloc.symbol, distance);
                line.refs.push((format!("+{}", word - at), target));
            }
        }
        let described = self.described(spot);
        line.text = format!("{} {} line {}", it.name, label(&described), numbers.join(" "));
        self.add(section, described, vec![line]);
    }
}

fn label(described: &Described) -> String {
    match described {
        Described::Item(_, _, label) => label.clone(),
        Described::Nothing | Described::Discarded => "somewhere".to_owned(),
    }
}
