//! The first difference between two pieces of code or data, in words.

use iced_x86::{Decoder, DecoderOptions, Formatter, GasFormatter};

use crate::meaning::{Content, Fingerprint, Meaning};

/// The first difference of two functions that are known to differ.
pub(crate) fn of_functions(before: &Fingerprint, after: &Fingerprint) -> String {
    for ((name, b), (_, a)) in before.fragments.iter().zip(&after.fragments) {
        if b != a {
            let fragment = if name.is_empty() { String::new() } else { format!("in .{name} ") };
            return format!("{fragment}{}", of_code(b, a));
        }
    }
    if before.fragments.len() != after.fragments.len() {
        return format!("it has {} fragments instead of {}", after.fragments.len(), before.fragments.len());
    }
    let b = before.entries.iter().find(|entry| !after.entries.contains(entry));
    let a = after.entries.iter().find(|entry| !before.entries.contains(entry));
    match (b, a) {
        (Some(b), Some(a)) => {
            format!("an entry of {:?} differs: {:02x?} became {:02x?}", a.table, b.bytes, a.bytes)
        }
        (None, Some(a)) => format!("an entry of {:?} is new", a.table),
        (Some(b), None) => format!("an entry of {:?} is gone", b.table),
        (None, None) => "the number of equal special-section entries differs".into(),
    }
}

fn of_code(before: &Content, after: &Content) -> String {
    let (mut b, mut a) = (Lines::of(before), Lines::of(after));
    loop {
        match (b.next(), a.next()) {
            (Some(b), Some(a)) if b.key == a.key => {}
            (Some(b), Some(a)) => return format!("at +{:#x} `{}` became `{}`", b.offset, b.text, a.text),
            (Some(b), None) => return format!("at +{:#x} `{}` is gone", b.offset, b.text),
            (None, Some(a)) => return format!("at +{:#x} `{}` is new", a.offset, a.text),
            (None, None) => return "the bytes differ".into(),
        }
    }
}

/// The first difference of two pieces of data.
pub(crate) fn of_data(before: &Content, after: &Content) -> String {
    if before.bytes.len() != after.bytes.len() {
        return format!("{} bytes became {}", before.bytes.len(), after.bytes.len());
    }
    if let Some(at) = before.bytes.iter().zip(&after.bytes).position(|(b, a)| b != a) {
        return format!("byte {at} was {:#04x} and is {:#04x}", before.bytes[at], after.bytes[at]);
    }
    let pairs = before.references.iter().zip(&after.references);
    match pairs.into_iter().find(|(b, a)| b != a) {
        Some((b, a)) => format!("at byte {} it pointed to {} and points to {}", a.0, name(&b.2), name(&a.2)),
        None => "it holds other references, or stands in another kind of section".into(),
    }
}

struct Line<'c> {
    offset: u64,
    key: (&'c [u8], Vec<&'c Meaning>),
    text: String,
}

struct Lines<'c> {
    content: &'c Content,
    decoder: Decoder<'c>,
    formatter: GasFormatter,
    next: usize,
}

impl<'c> Lines<'c> {
    fn of(content: &'c Content) -> Lines<'c> {
        let decoder = Decoder::new(64, &content.bytes, DecoderOptions::NONE);
        Lines { content, decoder, formatter: GasFormatter::new(), next: 0 }
    }
}

impl<'c> Iterator for Lines<'c> {
    type Item = Line<'c>;

    fn next(&mut self) -> Option<Line<'c>> {
        if !self.decoder.can_decode() {
            return None;
        }
        let instruction = self.decoder.decode();
        let mut text = String::new();
        self.formatter.format(&instruction, &mut text);
        let mut meanings = Vec::new();
        while let Some((offset, _, meaning)) = self.content.references.get(self.next) {
            if *offset >= instruction.next_ip() {
                break;
            }
            meanings.push(meaning);
            self.next += 1;
        }
        for meaning in &meanings {
            text.push_str(&format!(" <{}>", name(meaning)));
        }
        let bytes = &self.content.bytes[instruction.ip() as usize..instruction.next_ip() as usize];
        Some(Line { offset: instruction.ip(), key: (bytes, meanings), text })
    }
}

/// A meaning in a few words.
pub(crate) fn name(meaning: &Meaning) -> String {
    let at = |name: &str, offset: i64| match offset {
        0 => name.to_owned(),
        1.. => format!("{name}+{offset:#x}"),
        _ => format!("{name}-{:#x}", offset.unsigned_abs()),
    };
    match meaning {
        Meaning::Global(name, offset) | Meaning::Local(name, offset) => at(name, *offset),
        Meaning::New(name, offset) => format!("new {}", at(name, *offset)),
        Meaning::Inside(fragment, offset) => at(if fragment.is_empty() { "." } else { fragment }, *offset),
        Meaning::Text(bytes) => {
            let text = String::from_utf8_lossy(bytes);
            format!("{:?}", text.trim_end_matches('\0').chars().take(60).collect::<String>())
        }
        Meaning::Constant(bytes, _) => format!("constant {bytes:02x?}"),
        Meaning::Bytes(content, _) => format!("{} unnamed bytes", content.bytes.len()),
        Meaning::Loop(..) => "itself".into(),
        Meaning::Discarded(section, offset) => at(section, *offset),
    }
}
