//! Applying the hunks of one file: exactly, or not at all.

/// One hunk: where it says it belongs, and its lines, each with its line end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hunk {
    /// First line of the old file that it covers, counted from 1; 0 where it covers none.
    pub(crate) old_start: usize,
    /// First line of the new file that it covers, as `old_start`.
    pub(crate) new_start: usize,
    pub(crate) lines: Vec<HunkLine>,
    /// The line of the patch file where it starts, counted from 1.
    pub(crate) patch_line: u32,
}

/// One line of a hunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HunkLine {
    Context(Vec<u8>),
    Delete(Vec<u8>),
    Insert(Vec<u8>),
}

impl Hunk {
    /// The lines that it expects.
    fn expects(&self) -> Vec<&[u8]> {
        self.lines
            .iter()
            .filter_map(|line| match line {
                HunkLine::Context(text) | HunkLine::Delete(text) => Some(text.as_slice()),
                HunkLine::Insert(_) => None,
            })
            .collect()
    }

    /// The lines that it leaves.
    fn leaves(&self) -> Vec<&[u8]> {
        self.lines
            .iter()
            .filter_map(|line| match line {
                HunkLine::Context(text) | HunkLine::Insert(text) => Some(text.as_slice()),
                HunkLine::Delete(_) => None,
            })
            .collect()
    }

    /// Lines of context at its start and at its end.
    fn context(&self) -> (usize, usize) {
        let is_context = |line: &&HunkLine| matches!(line, HunkLine::Context(_));
        (
            self.lines.iter().take_while(is_context).count(),
            self.lines.iter().rev().take_while(is_context).count(),
        )
    }
}

/// A hunk that matched exactly, but elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offset {
    /// Its number in the file's part of the patch, counted from 1.
    pub(crate) hunk: usize,
    /// How many lines further down it matched; negative: further up.
    pub(crate) lines: i64,
}

/// Why a file's hunks do not apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// The hunk, counted from 1.
    pub(crate) hunk: usize,
    /// The line of the patch file where it starts.
    pub(crate) patch_line: u32,
    /// The first line of the tree's file that differs from what the hunk expects, counted from 1.
    pub(crate) file_line: usize,
    pub(crate) kind: MismatchKind,
    /// Whether the file looks as if it had all hunks already.
    pub(crate) already_applied: bool,
}

/// In what way a hunk does not apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MismatchKind {
    /// A line differs; `found` is none at the end of the file.
    Line { expected: String, found: Option<String> },
    /// It matches nowhere at its place, and equally well at several others.
    Ambiguous { places: usize },
    /// It only adds lines and shows no line around them, so that nothing says where it belongs.
    NoContext,
}

/// Splits into lines, each with its line end.
pub(crate) fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split_inclusive(|&byte| byte == b'\n').collect()
}

/// Applies all hunks to `old`.
pub(crate) fn apply(old: &[u8], hunks: &[Hunk]) -> Result<(Vec<u8>, Vec<Offset>), Mismatch> {
    let file = lines(old);
    let mut result: Vec<&[u8]> = Vec::new();
    let mut offsets = Vec::new();
    let mut used = 0; // lines of the file that are dealt with
    let mut drift = 0_i64; // how far the hunk before was from where it should be
    for (index, hunk) in hunks.iter().enumerate() {
        let place = find(&file, hunk, used, drift).map_err(|kind| Mismatch {
            hunk: index + 1,
            patch_line: hunk.patch_line,
            file_line: first_difference(&file, hunk, drift).0 + 1,
            kind,
            already_applied: has_all(&file, hunks),
        })?;
        drift = place as i64 - expected_start(hunk);
        if drift != 0 {
            offsets.push(Offset { hunk: index + 1, lines: drift });
        }
        result.extend(&file[used..place]);
        result.extend(hunk.leaves());
        used = place + hunk.expects().len();
    }
    result.extend(&file[used..]);
    Ok((result.concat(), offsets))
}

/// The index of the first line that a hunk covers, by its own word. An empty range names the line before.
fn expected_start(hunk: &Hunk) -> i64 {
    start(hunk.old_start, hunk.expects().len())
}

fn start(first: usize, len: usize) -> i64 {
    // A damaged number is beyond every file.
    let first = i64::try_from(first).unwrap_or(i64::MAX);
    if len == 0 { first } else { first - 1 }
}

fn matches_at(file: &[&[u8]], wanted: &[&[u8]], place: usize) -> bool {
    file.get(place..place + wanted.len()) == Some(wanted)
}

fn find(file: &[&[u8]], hunk: &Hunk, used: usize, drift: i64) -> Result<usize, MismatchKind> {
    let wanted = hunk.expects();
    if wanted.is_empty() && !file.is_empty() {
        return Err(MismatchKind::NoContext);
    }
    let expected = usize::try_from(expected_start(hunk).saturating_add(drift)).unwrap_or(usize::MAX);
    if expected >= used && expected <= file.len() && matches_at(file, &wanted, expected) {
        return Ok(expected);
    }
    let (leading, trailing) = hunk.context();
    // Less context on one side says that the file begins or ends there.
    let anchored = |place: usize| {
        (leading >= trailing || place == 0) && (trailing >= leading || place + wanted.len() == file.len())
    };
    let places: Vec<usize> = match file.len().checked_sub(wanted.len()) {
        Some(last) if leading + trailing > 0 => {
            (used..=last).filter(|&place| matches_at(file, &wanted, place) && anchored(place)).collect()
        }
        _ => Vec::new(),
    };
    match places.as_slice() {
        [one] => Ok(*one),
        [] => {
            let (line, expected) = first_difference(file, hunk, drift);
            Err(MismatchKind::Line {
                expected: text(expected),
                found: file.get(line).map(|found| text(found)),
            })
        }
        several => Err(MismatchKind::Ambiguous { places: several.len() }),
    }
}

/// Where the file first differs from what the hunk expects at its place: the line's index, and what was
/// expected there.
fn first_difference<'a>(file: &[&[u8]], hunk: &'a Hunk, drift: i64) -> (usize, &'a [u8]) {
    let expected = usize::try_from(expected_start(hunk).saturating_add(drift)).unwrap_or(0);
    let wanted = hunk.expects();
    let index = wanted
        .iter()
        .enumerate()
        .position(|(index, line)| file.get(expected + index) != Some(line))
        .unwrap_or(0);
    (expected + index, wanted.get(index).copied().unwrap_or_default())
}

/// Whether the file holds what every hunk leaves, in order, each in one place.
fn has_all(file: &[&[u8]], hunks: &[Hunk]) -> bool {
    let mut used = 0;
    hunks.iter().all(|hunk| {
        let left = hunk.leaves();
        if left.is_empty() {
            return false;
        }
        let expected = usize::try_from(start(hunk.new_start, left.len())).unwrap_or(0);
        let place = if matches_at(file, &left, expected) {
            Some(expected)
        } else {
            (used..file.len()).find(|&place| matches_at(file, &left, place))
        };
        place.is_some_and(|place| {
            used = place + left.len();
            true
        })
    })
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end_matches(['\n', '\r']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hunk(old_start: usize, new_start: usize, text: &str) -> Hunk {
        let lines = text
            .split_inclusive('\n')
            .map(|line| {
                let rest = line.as_bytes()[1..].to_vec();
                match &line[..1] {
                    " " => HunkLine::Context(rest),
                    "-" => HunkLine::Delete(rest),
                    _ => HunkLine::Insert(rest),
                }
            })
            .collect();
        Hunk { old_start, new_start, lines, patch_line: 9 }
    }

    #[test]
    fn a_hunk_applies_at_its_place_even_if_it_would_match_elsewhere() {
        let (new, offsets) = apply(b"x\nx\nx\n", &[hunk(2, 2, "-x\n+y\n")]).unwrap();
        assert_eq!((new.as_slice(), offsets.len()), (b"x\ny\nx\n".as_slice(), 0));
    }

    #[test]
    fn an_offset_is_taken_only_where_the_match_is_the_only_one() {
        let change = hunk(2, 2, " a\n-b\n+B\n c\n");
        let (new, offsets) = apply(b"1\n2\n3\na\nb\nc\n", std::slice::from_ref(&change)).unwrap();
        assert_eq!(new, b"1\n2\n3\na\nB\nc\n");
        assert_eq!(offsets, [Offset { hunk: 1, lines: 2 }]);
        let twice = apply(b"1\n2\n3\na\nb\nc\na\nb\nc\n", &[change]).unwrap_err();
        assert_eq!(twice.kind, MismatchKind::Ambiguous { places: 2 });
    }

    #[test]
    fn later_hunks_follow_the_drift_of_earlier_ones() {
        let hunks = [hunk(1, 1, " a\n-b\n+B\n c\n"), hunk(5, 5, " x\n-y\n+Y\n z\n")];
        let (new, offsets) = apply(b"0\na\nb\nc\nd\nx\ny\nz\nx\ny\nz\n", &hunks).unwrap();
        assert_eq!(new, b"0\na\nB\nc\nd\nx\nY\nz\nx\ny\nz\n");
        assert_eq!(offsets.iter().map(|o| o.lines).collect::<Vec<_>>(), [1, 1]);
    }

    #[test]
    fn the_first_line_that_differs_is_named() {
        let error = apply(b"a\nb\nX\n", &[hunk(1, 1, " a\n-b\n+B\n c\n")]).unwrap_err();
        assert_eq!((error.hunk, error.file_line, error.patch_line), (1, 3, 9));
        assert_eq!(error.kind, MismatchKind::Line { expected: "c".to_owned(), found: Some("X".to_owned()) });
        assert!(!error.already_applied);
    }

    #[test]
    fn line_numbers_beyond_any_file_apply_nowhere_or_where_the_text_is() {
        for number in [i64::MAX as usize, 1 << 63, usize::MAX] {
            let (new, _) = apply(b"a\nb\nc\n", &[hunk(number, number, " a\n-b\n+B\n c\n")]).unwrap();
            assert_eq!(new, b"a\nB\nc\n");
            let hunks = [hunk(number, number, " a\n-b\n+B\n c\n"), hunk(number, number, " x\n-y\n z\n")];
            assert_eq!(apply(b"a\nb\nc\n", &hunks).unwrap_err().hunk, 2);
        }
    }

    #[test]
    fn white_space_is_no_detail() {
        assert!(apply(b"a\nb \nc\n", &[hunk(1, 1, " a\n-b\n+B\n c\n")]).is_err());
        assert!(apply(b"a\r\nb\r\nc\r\n", &[hunk(1, 1, " a\n-b\n+B\n c\n")]).is_err());
        assert!(apply(b"a\nb\nc", &[hunk(1, 1, " a\n-b\n+B\n c\n")]).is_err());
    }

    #[test]
    fn a_patch_that_is_in_already_is_recognised() {
        let hunks = [hunk(1, 1, " a\n-b\n+B\n c\n"), hunk(4, 4, " d\n+D\n e\n")];
        let error = apply(b"a\nB\nc\nd\nD\ne\n", &hunks).unwrap_err();
        assert!(error.already_applied);
        let half = apply(b"a\nB\nc\nd\ne\n", &hunks).unwrap_err();
        assert!(!half.already_applied);
    }

    #[test]
    fn an_addition_without_context_is_only_for_an_empty_file() {
        assert_eq!(apply(b"", &[hunk(0, 1, "+a\n")]).unwrap().0, b"a\n");
        assert_eq!(apply(b"x\n", &[hunk(1, 2, "+a\n")]).unwrap_err().kind, MismatchKind::NoContext);
    }

    #[test]
    fn a_hunk_of_the_end_of_a_file_stays_there() {
        // Three lines before and none after: the file ended here.
        let change = hunk(2, 2, " a\n b\n c\n+d\n");
        assert_eq!(
            apply(b"0\n1\na\nb\nc\n", std::slice::from_ref(&change)).unwrap().0,
            b"0\n1\na\nb\nc\nd\n"
        );
        assert!(apply(b"0\n1\na\nb\nc\nmore\n", &[change]).is_err());
    }
}
