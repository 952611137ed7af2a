//! What code refers to, and what special-section entries say, in words.

use xsplice_objects::Special;
use xsplice_report::DifferenceKind;

use crate::difference;
use crate::meaning::{Content, EntryMeaning, Meaning};
use crate::pieces::PieceKind;

/// How many characters of a string are shown.
const SHOWN: usize = 60;

/// What code of `function` refers to, in a few words.
pub(crate) fn name(meaning: &Meaning, function: &str) -> String {
    match meaning {
        Meaning::Global(name, offset) | Meaning::Local(name, offset) => at(name, *offset),
        Meaning::New(name, offset) => format!("new {}", at(name, *offset)),
        Meaning::Inside(fragment, offset) if fragment.is_empty() => at(function, *offset),
        Meaning::Inside(fragment, offset) => at(&format!("{function}.{fragment}"), *offset),
        Meaning::Text(bytes) => quoted(bytes),
        // A place beside a string is held as one.
        Meaning::Constant(bytes, offset) if reads_as_text(bytes) => at(&quoted(bytes), *offset),
        Meaning::Constant(bytes, offset) => at(&format!("constant {}", hex(bytes)), *offset),
        Meaning::Bytes(content, offset) => at(&format!("{} unnamed bytes", content.bytes.len()), *offset),
        Meaning::Loop(..) => "itself".into(),
        Meaning::Discarded(section, offset) => at(section, *offset),
    }
}

fn at(name: &str, offset: i64) -> String {
    match offset {
        0 => name.to_owned(),
        1.. => format!("{name}+{offset:#x}"),
        _ => format!("{name}-{:#x}", offset.unsigned_abs()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn reads_as_text(bytes: &[u8]) -> bool {
    let Some((0, text)) = bytes.split_last() else { return false };
    !text.is_empty() && text.iter().all(|&byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace())
}

/// A string in quotes, without its NUL, and cut where it is long.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    excerpt(bytes, 0)
}

/// What is shown of a string that differs from another one at byte `differs`.
pub(crate) fn excerpt(bytes: &[u8], differs: usize) -> String {
    // Characters of two or four bytes, where they are Latin ones.
    let plain = |width: &usize| bytes.iter().enumerate().all(|(at, &byte)| at % width == 0 || byte == 0);
    let width = [4, 2].into_iter().find(|width| bytes.len() > *width && plain(width)).unwrap_or(1);
    let narrow: Vec<u8> = bytes.iter().step_by(width).copied().collect();
    let text = String::from_utf8_lossy(&narrow);
    let text = text.trim_end_matches('\0');
    let before = String::from_utf8_lossy(&narrow[..(differs / width).min(narrow.len())]).chars().count();
    let skipped = if before < SHOWN { 0 } else { before - SHOWN / 3 };
    let shown: String = text.chars().skip(skipped).take(SHOWN).collect();
    let more = text.chars().count() > skipped + SHOWN;
    let front = if skipped > 0 { "..." } else { "" };
    let wide = if width > 1 { "L" } else { "" };
    format!("{front}{wide}{shown:?}{}", if more { "..." } else { "" })
}

/// A string or constant that the linker merges.
pub(crate) fn merged(is_text: bool, bytes: &[u8]) -> String {
    if is_text { format!("string {}", quoted(bytes)) } else { format!("constant {}", hex(bytes)) }
}

/// Code that belongs to a function and stands elsewhere: `start` is in bytes from the start of its section.
pub(crate) fn extra_code(kind: PieceKind, section: &str, start: u64) -> String {
    let what = match kind {
        PieceKind::Fixup => "fixup code",
        PieceKind::Replacement => "replacement code",
        _ => "code put aside",
    };
    format!("{what} at {section}+{start:#x}")
}

/// A special-section entry of a function by what it is and where it stands.
pub(crate) fn entry(entry: &EntryMeaning, function: &str) -> String {
    let place = place_of(entry);
    match entry.table {
        Special::BugFrames(number) => frame(number, entry, function),
        Special::Alternatives if is_altcall(entry) => format!("the altcall at {place}"),
        Special::Alternatives => format!("the alternative at {place}"),
        Special::AltCallSites => format!("the altcall at {place}"),
        _ => format!("the exception table entry for {place}"),
    }
}

/// The sort of difference that an entry makes.
pub(crate) fn kind_of(entry: &EntryMeaning) -> DifferenceKind {
    match entry.table {
        Special::BugFrames(_) => DifferenceKind::BugFrame,
        Special::Alternatives if is_altcall(entry) => DifferenceKind::AltCall,
        Special::Alternatives => DifferenceKind::Alternative,
        Special::AltCallSites => DifferenceKind::AltCall,
        _ => DifferenceKind::ExceptionEntry,
    }
}

/// An entry that only one version has.
pub(crate) fn alone(one: &EntryMeaning, function: &str, new: bool) -> String {
    let selected = match one.table {
        Special::Alternatives if !is_altcall(one) => format!(", selected by {},", feature(one)),
        _ => String::new(),
    };
    format!("{}{selected} is {}", entry(one, function), if new { "new" } else { "gone" })
}

/// Two entries for one place.
pub(crate) fn both(before: &EntryMeaning, after: &EntryMeaning, function: &str) -> String {
    let what = entry(before, function);
    let said = match (before.table, after.table) {
        (Special::BugFrames(_), Special::BugFrames(_)) => frames(before, after, function),
        (Special::Alternatives, Special::Alternatives) => alternatives(before, after, function),
        _ => target(before, after, function),
    };
    format!("{what}{}", said.unwrap_or_else(|| " has other bytes".into()))
}

/// Where an entry points into the function.
fn place_of(entry: &EntryMeaning) -> String {
    match entry.fields.first().map(|(_, _, meaning)| meaning) {
        Some(Meaning::Inside(fragment, offset)) if fragment.is_empty() => format!("+{offset:#x}"),
        Some(Meaning::Inside(fragment, offset)) => format!(".{fragment}+{offset:#x}"),
        Some(Meaning::Bytes(_, offset)) => format!("+{offset:#x} of code put aside"),
        Some(other) => name(other, ""),
        None => "nowhere".into(),
    }
}

/// The meaning of the field at an offset of an entry.
fn field(entry: &EntryMeaning, offset: u64) -> Option<&Meaning> {
    entry.fields.iter().find(|field| field.0 == offset).map(|(_, _, meaning)| meaning)
}

// Bug frames.

/// Bits of a bug frame's words above its two displacements: each 7 bits of the line, the upper half of it in the
/// first word (BUG_DISP_WIDTH, BUG_LINE_LO_WIDTH and BUG_LINE_HI_WIDTH in xen/arch/x86/include/asm/bug.h of Xen
/// 4.17, xen/include/xen/bug.h later).
const DISPLACEMENT_BITS: u32 = 24;
const LINE_BITS: u32 = 7;

/// The line that a bug frame holds; 0 where it has none.
fn line_of(entry: &EntryMeaning) -> u32 {
    let half = |at: u64| {
        // What is added to the pointer's distance: the line's bits, and the place of the field in the frame.
        let bias = entry.fields.iter().find(|field| field.0 == at).map_or(0, |field| field.1);
        let bits = (bias - at.cast_signed()) >> DISPLACEMENT_BITS;
        u32::try_from(bits & ((1 << LINE_BITS) - 1)).unwrap_or(0)
    };
    half(0) << LINE_BITS | half(4)
}

/// Where a bug frame says that it stands.
fn frame_place(entry: &EntryMeaning) -> String {
    match (field(entry, 4), line_of(entry)) {
        (Some(Meaning::Text(file)), 0) => String::from_utf8_lossy(file).trim_end_matches('\0').to_owned(),
        (Some(Meaning::Text(file)), line) => {
            format!("{}:{line}", String::from_utf8_lossy(file).trim_end_matches('\0'))
        }
        _ => place_of(entry),
    }
}

fn frame_sort(number: u8) -> String {
    match number {
        0 => "call in an exception handler".into(),
        1 => "WARN".into(),
        2 => "BUG".into(),
        3 => "assertion".into(),
        other => format!("bug frame of type {other}"),
    }
}

fn frame(number: u8, entry: &EntryMeaning, function: &str) -> String {
    let sort = frame_sort(number);
    match (number, field(entry, 4), field(entry, 12)) {
        (0, Some(handler), _) => {
            format!("the call of {} in an exception handler at {}", name(handler, function), place_of(entry))
        }
        (3, _, Some(Meaning::Text(message))) => {
            format!("the {sort} {} at {}", quoted(message), frame_place(entry))
        }
        _ => format!("the {sort} at {}", frame_place(entry)),
    }
}

fn frames(before: &EntryMeaning, after: &EntryMeaning, function: &str) -> Option<String> {
    if let (Special::BugFrames(b), Special::BugFrames(a)) = (before.table, after.table)
        && b != a
    {
        return Some(format!(" is {} {} now", if a == 3 { "an" } else { "a" }, frame_sort(a)));
    }
    let (b, a) = (field(before, 4), field(after, 4));
    if b != a && !matches!(a, Some(Meaning::Text(_))) {
        return Some(format!(" calls {} now", name(a?, function)));
    }
    if b != a {
        return Some(format!(" is at {} now", frame_place(after)));
    }
    if line_of(before) != line_of(after) {
        return Some(format!(" is at line {} now", line_of(after)));
    }
    match (field(before, 12), field(after, 12)) {
        (Some(b), Some(a)) if b != a => Some(format!(" says {} now", name(a, function))),
        _ => None,
    }
}

// Alternatives: struct alt_instr (xen/arch/x86/include/asm/alternative.h, 4.13 to 4.22) has the feature in bytes 8
// and 9, then the lengths of the original, of the replacement and of the padding in a byte each.

/// The bit that turns a feature round (ALT_FLAG_NOT, from 4.16 on; features stay far below it).
const NOT: u16 = 1 << 15;

fn byte(entry: &EntryMeaning, at: usize) -> u8 {
    entry.bytes.get(at).copied().unwrap_or(0)
}

fn feature(entry: &EntryMeaning) -> String {
    let number = u16::from_le_bytes([byte(entry, 8), byte(entry, 9)]);
    let (not, number) = (number & NOT != 0, number & !NOT);
    format!("{}feature {}*32+{}", if not { "the absence of " } else { "" }, number / 32, number % 32)
}

/// A call through a pointer that boot makes direct: its replacement is five bytes, a call of itself.
fn is_altcall(entry: &EntryMeaning) -> bool {
    matches!(replacement(entry), Some(code) if code.bytes == [0xe8, 0xfb, 0xff, 0xff, 0xff])
}

fn replacement(entry: &EntryMeaning) -> Option<&Content> {
    match field(entry, 4) {
        Some(Meaning::Bytes(content, _)) if entry.table == Special::Alternatives => Some(content),
        _ => None,
    }
}

fn alternatives(before: &EntryMeaning, after: &EntryMeaning, function: &str) -> Option<String> {
    if feature(before) != feature(after) {
        return Some(format!(" is selected by {} instead of {}", feature(after), feature(before)));
    }
    if let (Some(b), Some(a)) = (replacement(before), replacement(after))
        && b != a
    {
        return Some(format!(": its replacement code differs: {}", difference::in_code(b, a, function)));
    }
    let lengths = [(10, "covers", "bytes"), (12, "has", "bytes of padding")];
    lengths
        .into_iter()
        .find(|&(at, _, _)| byte(before, at) != byte(after, at))
        .map(|(at, verb, unit)| format!(" {verb} {} {unit} instead of {}", byte(after, at), byte(before, at)))
}

/// Where an exception table entry goes on.
fn target(before: &EntryMeaning, after: &EntryMeaning, function: &str) -> Option<String> {
    match (field(before, 4)?, field(after, 4)?) {
        (b, a) if b == a => None,
        (Meaning::Bytes(b, _), Meaning::Bytes(a, _)) if b != a => {
            Some(format!(": its fixup code differs: {}", difference::in_code(b, a, function)))
        }
        (b, a) => Some(format!(" goes on at {} instead of {}", name(a, function), name(b, function))),
    }
}
