//! Line-neutral patching: unchanged lines keep the numbers that they had before the patch.
//!
//! The hypervisor holds line numbers: in the bug frames of WARN and BUG, in what `domain_crash` and the
//! instruction emulator report. A patch that adds a line would change every such function below it. So the
//! patched source gets, in the private copy alone, a `#line` directive behind each run of changed lines that
//! changes how many there are. It names no file, so `__FILE__` stays.
//!
//! A directive has to stand between two lines where the language allows one and where it has its effect:
//! outside comments, continued lines and parentheses (the arguments of a macro are not known from those of a
//! function, so it waits for the end of either). Lines in between are off by the shift. Where groups of `#if`
//! follow one another, what was set in a group that may be skipped counts only as possible behind it, and the
//! next line of code sets it again.
//!
//! Lines that a patch adds count on from the line above, so numbers can occur twice. Whoever makes names of
//! `__LINE__` may then not compile; the caller builds such a file as the patch has it.

use std::collections::{BTreeMap, BTreeSet};

use diffy::{DiffOptions, Line};
use serde::Serialize;
use xsplice_report::{Diagnostic, Place};

use crate::apply;
use crate::classify::{FileClass, classify};
use crate::codes;
use crate::patchset::Changes;
use crate::scanner::{Keyword, Scanner};

/// Which files were compiled with their original line numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LineNumbers {
    /// Files, relative to the tree, whose unchanged lines kept their numbers though the patch moves them.
    pub neutral: Vec<String>,
    /// Files that did not compile that way, and so have the numbers that the patch gives them.
    pub fell_back: Vec<String>,
}

/// The text of files with directives, by path relative to the tree.
pub(crate) type Neutral = BTreeMap<String, Vec<u8>>;

/// Headers that the build does not only compile: tools/compat-build-source.py and tools/gen-cpuid.py read
/// some as text. None of them holds code.
const READ_AS_TEXT: &str = "xen/include/public/";

/// Makes the C files of a change line-neutral. Those that need nothing are left out.
///
/// Gives also a warning for each file that has directives of its own already.
pub(crate) fn files(changes: &Changes) -> (Neutral, Vec<Diagnostic>) {
    let (mut neutral, mut warnings) = (Neutral::new(), Vec::new());
    for (path, change) in changes {
        let is_c = matches!(classify(path), FileClass::Source | FileClass::Header);
        let (Some(before), Some(after)) = (&change.before, &change.after) else { continue };
        if !is_c || path.starts_with(READ_AS_TEXT) {
            continue;
        }
        match neutralise(before, after) {
            Ok(Some(text)) => {
                neutral.insert(path.clone(), text);
            }
            Ok(None) => {}
            Err(OwnDirective { line }) => warnings.push(
                Diagnostic::new(codes::LINES_MOVED, format!("{path} sets line numbers by itself"))
                    .at(Place::file(path).line(line))
                    .why(
                        "Its lines keep the numbers that the patch gives them, and functions that hold one \
                          are patched where it changed.",
                    ),
            ),
        }
    }
    (neutral, warnings)
}

/// A file has a `#line` directive of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OwnDirective {
    /// Where, in the patched file, counted from 1.
    pub(crate) line: u32,
}

/// What a line's number exceeds its place by, as far as it is known: one value for each way through the
/// groups of `#if` above. Places are counted in the text that is written, directives included.
type Shifts = BTreeSet<i64>;

/// A group of `#if` that is open.
struct Group {
    /// At its start, and so at the start of each branch.
    entry: Shifts,
    /// At the ends of the branches so far.
    exits: Shifts,
    /// Whether one of the branches is always taken.
    has_else: bool,
}

/// Adds directives to `after` so that lines of code that it shares with `before` have the numbers that they
/// have there. None where it needs none.
pub(crate) fn neutralise(before: &[u8], after: &[u8]) -> Result<Option<Vec<u8>>, OwnDirective> {
    let origins = origins(before, after);
    let mut scanner = Scanner::new();
    let mut written = Vec::with_capacity(after.len() + 256);
    let mut place = 1_i64; // of the next line that is written
    let mut shifts = Shifts::from([0]);
    let mut groups = Vec::new();
    let mut directives = 0_usize;
    for (index, line) in apply::lines(after).into_iter().enumerate() {
        let legal = scanner.is_between_tokens();
        let seen = scanner.take(line);
        if seen.keyword == Some(Keyword::Line) {
            return Err(OwnDirective { line: u32::try_from(index + 1).unwrap_or(u32::MAX) });
        }
        if let Some(number) = origins[index].filter(|_| legal && seen.has_code)
            && shifts != Shifts::from([number - place])
        {
            written.extend_from_slice(format!("#line {number}\n").as_bytes());
            place += 1;
            shifts = Shifts::from([number - place]);
            directives += 1;
        }
        written.extend_from_slice(line);
        place += 1;
        if let Some(keyword) = seen.keyword {
            follow(keyword, &mut groups, &mut shifts);
        }
    }
    Ok((directives > 0).then_some(written))
}

/// Follows a directive that opens, divides or closes a group.
fn follow(keyword: Keyword, groups: &mut Vec<Group>, shifts: &mut Shifts) {
    match keyword {
        Keyword::If => {
            groups.push(Group { entry: shifts.clone(), exits: Shifts::new(), has_else: false });
        }
        Keyword::Elif | Keyword::Else => {
            if let Some(group) = groups.last_mut() {
                group.exits.append(shifts);
                shifts.clone_from(&group.entry);
                group.has_else |= keyword == Keyword::Else;
            }
        }
        Keyword::Endif => {
            if let Some(mut group) = groups.pop() {
                shifts.append(&mut group.exits);
                if !group.has_else {
                    shifts.append(&mut group.entry);
                }
            }
        }
        Keyword::Line | Keyword::Other => {}
    }
}

/// For each line of `after` its number in `before`, counted from 1; none where it is not one of its lines.
fn origins(before: &[u8], after: &[u8]) -> Vec<Option<i64>> {
    let mut options = DiffOptions::new();
    options.set_context_len(0);
    let difference = options.create_patch_bytes(before, after);
    let mut origins = Vec::new();
    let mut old = 1_i64;
    let keep = |until: usize, origins: &mut Vec<Option<i64>>, old: &mut i64| {
        while origins.len() < until {
            origins.push(Some(*old));
            *old += 1;
        }
    };
    for hunk in difference.hunks() {
        // An empty range names the line before it.
        let range = hunk.new_range();
        let start = if range.is_empty() { range.start() } else { range.start().saturating_sub(1) };
        keep(start, &mut origins, &mut old);
        for line in hunk.lines() {
            match line {
                Line::Context(_) => {
                    origins.push(Some(old));
                    old += 1;
                }
                Line::Delete(_) => old += 1,
                Line::Insert(_) => origins.push(None),
            }
        }
    }
    keep(apply::lines(after).len(), &mut origins, &mut old);
    origins
}

#[cfg(test)]
#[path = "line_neutral_tests.rs"]
mod tests;
