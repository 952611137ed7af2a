//! The canonical text of code: instructions without positions, and what they refer to.

use crate::{
    listing::{Insn, Reloc},
    model::{Model, Place, Target},
};

/// One line of a function's canonical text: an instruction, or an entry of a special section.
#[derive(Debug, Clone, Default)]
pub(crate) struct Line {
    pub text: String,
    /// What is referred to, with the place and type of the field that does it.
    pub refs: Vec<(String, Target)>,
}

impl Line {
    pub fn new(text: impl Into<String>) -> Line {
        Line { text: text.into(), refs: Vec::new() }
    }
}

/// The text of code from `start` up to `end`. `home` is its item, if it has one; without, jumps inside the
/// range are written as distances. `padding` says whether instructions that do nothing are left out.
pub(crate) fn code(model: &Model, section: usize, start: u64, end: u64, padding: bool) -> Vec<Line> {
    let insns = model.insns(section, start, end);
    let whole = insns.first().is_some_and(|insn| insn.at == start)
        && insns.last().is_some_and(|insn| insn.end == end);
    if !whole {
        return raw(model, section, start, end);
    }
    (insns.iter().filter(|insn| !(padding && insn.is_nop())))
        .map(|insn| instruction(model, section, insn, (start, end)))
        .collect()
}

/// The text of an item's code, without the padding behind it.
pub(crate) fn function(model: &Model, item: usize) -> Vec<Line> {
    let it = &model.items[item];
    let mut end = it.end;
    let own = it.start + it.size;
    for insn in model.insns(it.section, it.start, it.end).iter().rev() {
        if insn.at < own || !insn.is_nop() {
            break;
        }
        end = insn.at;
    }
    // Where functions share a section, padding depends on the neighbours.
    let shared = model.items_of(it.section).len() > 1 || it.size == 0;
    code(model, it.section, it.start, end, shared)
}

fn raw(model: &Model, section: usize, start: u64, end: u64) -> Vec<Line> {
    if start >= end {
        return Vec::new();
    }
    let it = model.section(section);
    let relocs = it.relocs_in(start, end);
    let bytes = masked(model, section, start, end);
    let mut line = Line::new(format!("bytes {}", hex(&bytes)));
    line.refs = (relocs.iter())
        .map(|reloc| {
            // A relative field of code that is cut off counts from its own end, as in all x86 branches.
            let behind = reloc.relative().then_some(reloc.at + reloc.width());
            (field(reloc, start), model.target(reloc, behind))
        })
        .collect();
    vec![line]
}

/// Bytes with all relocated fields zero.
pub(crate) fn masked(model: &Model, section: usize, start: u64, end: u64) -> Vec<u8> {
    let it = model.section(section);
    let mut bytes = it.slice(start, end);
    for reloc in it.relocs_in(start, end) {
        for at in reloc.at..(reloc.at + reloc.width()).min(end) {
            if let Some(byte) = usize::try_from(at - start).ok().and_then(|at| bytes.get_mut(at)) {
                *byte = 0;
            }
        }
    }
    bytes
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

/// Where a field is, and how it is relocated.
pub(crate) fn field(reloc: &Reloc, start: u64) -> String {
    format!("+{}:{}", reloc.at - start, reloc.kind)
}

fn instruction(model: &Model, section: usize, insn: &Insn, range: (u64, u64)) -> Line {
    let relocs = model.section(section).relocs_in(insn.at, insn.end);
    let parts = Parts::of(&insn.text);
    let mut line = Line::new(parts.text);
    if insn.text.contains("(bad)") || insn.text.contains(".byte") {
        let bytes = masked(model, section, insn.at, insn.end);
        line.text = format!("{} [{}]", line.text, hex(&bytes));
    }
    for reloc in relocs {
        line.refs.push((field(reloc, insn.at), model.target(reloc, Some(insn.end))));
    }
    // The assembler itself has filled in what is in the same section.
    if let Some(at) = parts.branch.or(parts.relative)
        && !relocs.iter().any(Reloc::relative)
    {
        let how = if parts.branch.is_some() { "to" } else { "at" };
        let target = model.at(section, at);
        if matches!(target, Target::Code(..)) && at >= range.0 && at <= range.1 {
            line.text = format!("{} {how} . + {:#x}", line.text, at.wrapping_sub(range.0));
        } else {
            line.refs.push((how.to_owned(), target));
        }
    }
    line
}

/// An instruction's text, taken apart.
struct Parts {
    /// Without addresses.
    text: String,
    /// Where a branch goes.
    branch: Option<u64>,
    /// What an operand relative to the instruction pointer is.
    relative: Option<u64>,
}

impl Parts {
    fn of(text: &str) -> Parts {
        let (body, comment) = match text.split_once(" # ") {
            Some((body, comment)) => (body.trim_end(), Some(comment)),
            None => (text, None),
        };
        // The comment is the address that an operand amounts to.
        let relative =
            comment.filter(|_| body.contains("(%rip)") || body.contains("(%eip)")).and_then(first_number);
        if let Some(at) = relative
            && let Some(before) = body.find("(%rip)").or_else(|| body.find("(%eip)"))
        {
            let from = body[..before].rfind([' ', ',', '*', ':']).map_or(0, |at| at + 1);
            let text = format!("{}REF{}", &body[..from], &body[before..]);
            return Parts { text, branch: None, relative: Some(at) };
        }
        let (words, operand) = match body.split_once(" <") {
            Some((words, _)) => words.rsplit_once(' ').unwrap_or((words, "")),
            None => match body.rsplit_once(' ') {
                Some((words, operand)) if is_branch(words) && operand.starts_with("0x") => (words, operand),
                _ => return Parts { text: body.to_owned(), branch: None, relative: None },
            },
        };
        match first_number(operand) {
            Some(at) if is_branch(words) => {
                Parts { text: words.to_owned(), branch: Some(at), relative: None }
            }
            _ => Parts { text: body.to_owned(), branch: None, relative: None },
        }
    }
}

/// Whether the last word of a mnemonic branches to an address that is part of the instruction.
fn is_branch(words: &str) -> bool {
    let word = words.rsplit(' ').next().unwrap_or_default();
    let word = word.split(',').next().unwrap_or_default();
    word.starts_with('j') || word.starts_with("call") || word.starts_with("loop") || word == "xbegin"
}

fn first_number(text: &str) -> Option<u64> {
    let word = text.split_whitespace().next()?;
    u64::from_str_radix(word.trim_start_matches("0x"), 16).ok()
}

/// A target for people.
pub(crate) fn render(model: &Model, target: &Target) -> String {
    match target {
        Target::Name(name, 0) => name.clone(),
        Target::Name(name, distance) => format!("{name}{}", signed(*distance)),
        Target::Fixed(value) | Target::Loose(value) => value.clone(),
        Target::Item(item, place, _) => {
            let name = model.items[*item].name();
            let name =
                if model.is_by_content(*item) { format!("{name} (by content)") } else { name.to_owned() };
            match place {
                _ if place.is_start() => name,
                Place::Byte(distance) => format!("{name}{}", signed(*distance)),
                Place::Label(count, 0) => format!("{name}@{count}"),
                Place::Label(count, rest) => format!("{name}@{count}+{rest}"),
            }
        }
        Target::String(bytes) => format!("\"{}\"", bytes.escape_ascii()),
        Target::Constant(bytes, 0) => format!("constant [{}]", hex(bytes)),
        Target::Constant(bytes, distance) => format!("constant [{}]+{distance}", hex(bytes)),
        Target::Bytes(section, start, end) => {
            format!(
                "bytes [{}] of {}",
                hex(&masked(model, *section, *start, *end)),
                model.section(*section).name
            )
        }
        Target::Code(section, start, end) => {
            let lines = code(model, *section, *start, *end, false);
            let lines: Vec<String> = lines.into_iter().map(|line| line.text).collect();
            format!("code [{}] of {}", lines.join("; "), model.section(*section).name)
        }
    }
}

/// A line for people.
pub(crate) fn render_line(model: &Model, line: &Line) -> String {
    let refs = line.refs.iter().map(|(field, target)| format!("{field} {}", render(model, target)));
    std::iter::once(line.text.clone()).chain(refs).collect::<Vec<_>>().join(" | ")
}

fn signed(distance: i64) -> String {
    if distance < 0 { format!("-{:#x}", distance.unsigned_abs()) } else { format!("+{distance:#x}") }
}
