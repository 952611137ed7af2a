//! Reads patches and applies them, in memory, to the files of a tree.
//!
//! git's own formats (`git diff`, `git format-patch`, also as a mail), quilt's and plain `diff -u` are
//! understood. Several patches apply in order as one change. Context must match exactly; only the line
//! number may differ, and then only where one place matches.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use diffy::patch_set::{FileMode, FileOperation, FilePatch, ParseOptions, PatchKind, PatchSet};
use fs_err as fs;
use xsplice_report::{Diagnostic, Place, Problems};

use crate::PatchInput;
use crate::apply::{self, Hunk, HunkLine, Mismatch, MismatchKind};
use crate::codes;

/// What patches make of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileChange {
    /// Content before; none where the file is new.
    pub(crate) before: Option<Vec<u8>>,
    /// Content after; none where the file is removed.
    pub(crate) after: Option<Vec<u8>>,
    /// Whether the file is to be executable afterwards.
    pub(crate) executable: bool,
    /// Whether it was before.
    pub(crate) was_executable: bool,
}

/// What all patches together change, by path relative to the tree.
pub(crate) type Changes = BTreeMap<String, FileChange>;

/// A file's part of a patch.
#[derive(Debug)]
struct Part {
    /// Paths as the patch has them, without quoting.
    old: Option<String>,
    new: Option<String>,
    kind: PartKind,
    executable: Option<bool>,
    hunks: Vec<Hunk>,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum PartKind {
    Create,
    Delete,
    Modify,
    Rename,
    Copy,
}

fn unreadable(patch: &PatchInput, line: Option<u32>, what: impl Into<String>) -> Diagnostic {
    let mut place = Place::file(&patch.name);
    place.line = line;
    Diagnostic::new(codes::PATCH_UNREADABLE, what).at(place).advice(
        "Give the patch as `git diff`, `git format-patch`, quilt or `diff -u` wrote it; mail programs and \
         copying from a screen damage patches.",
    )
}

/// Brings a patch to plain text with `\n` line ends.
fn plain_text(patch: &PatchInput) -> Result<Vec<u8>, Diagnostic> {
    let bytes = &patch.bytes;
    let lines = apply::lines(bytes);
    let crlf =
        !lines.is_empty() && lines.iter().all(|line| line.ends_with(b"\r\n") || !line.ends_with(b"\n"));
    let text = if crlf && bytes.contains(&b'\n') {
        lines
            .iter()
            .flat_map(|line| match line.strip_suffix(b"\r\n") {
                Some(rest) => [rest, b"\n".as_slice()].concat(),
                None => line.to_vec(),
            })
            .collect()
    } else {
        bytes.clone()
    };
    let head = apply::lines(&text).into_iter().take_while(|line| line.len() > 1);
    for (index, line) in head.enumerate() {
        let lower = String::from_utf8_lossy(line).to_ascii_lowercase();
        let encoded = ["quoted-printable", "base64"].into_iter().find(|name| lower.contains(name));
        if let Some(name) = encoded.filter(|_| lower.starts_with("content-transfer-encoding:")) {
            return Err(unreadable(
                patch,
                u32::try_from(index + 1).ok(),
                format!("the mail is encoded as {name}"),
            )
            .advice("Save the mail's text decoded, or run it through `git mailinfo` first."));
        }
    }
    Ok(text)
}

/// A hunk as the text has it: which lines it takes, counted from 1.
struct Span {
    first: u32,
}

/// Finds all hunks by their headers, and checks that the lines after each are what its header says.
///
/// A hunk whose header counts too few lines would otherwise lose the rest, and one that a damaged line
/// separates from its file would be lost as a whole.
fn hunk_spans(patch: &PatchInput, text: &[u8]) -> Result<Vec<Span>, Diagnostic> {
    let lines = apply::lines(text);
    let mut spans = Vec::new();
    let mut index = 0;
    while index < lines.len() {
        let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
        let Some((mut old, mut new)) = hunk_counts(lines[index]) else {
            index += 1;
            continue;
        };
        spans.push(Span { first: number });
        index += 1;
        while (old > 0 || new > 0) && index < lines.len() {
            match lines[index].first() {
                Some(b' ' | b'\n') => {
                    old = old.saturating_sub(1);
                    new = new.saturating_sub(1);
                }
                Some(b'-') => old = old.saturating_sub(1),
                Some(b'+') => new = new.saturating_sub(1),
                Some(b'\\') => {}
                _ => return Err(unreadable(patch, Some(number), "a hunk is cut short or damaged")),
            }
            index += 1;
        }
        if old > 0 || new > 0 {
            return Err(unreadable(patch, Some(number), "the last hunk is cut short"));
        }
        let Some(after) = lines.get(index) else { break };
        let ends_here = [b"--- ".as_slice(), b"+++ ", b"-- \n", b"--\n", b"---\n"];
        if matches!(after.first(), Some(b' ' | b'+' | b'-'))
            && !ends_here.iter().any(|end| after.starts_with(end))
        {
            return Err(unreadable(patch, Some(number), "a hunk has more lines than its header says"));
        }
    }
    Ok(spans)
}

/// Old and new line counts of a hunk header `@@ -A,B +C,D @@`.
fn hunk_counts(line: &[u8]) -> Option<(usize, usize)> {
    let line = std::str::from_utf8(line)
        .map_or_else(|error| std::str::from_utf8(&line[..error.valid_up_to()]), Ok)
        .ok()?;
    let ranges = line.strip_prefix("@@ -")?.split_once(" @@")?.0;
    let (old, new) = ranges.split_once(" +")?;
    let count = |range: &str| match range.split_once(',') {
        Some((_, count)) => count.parse().ok(),
        None => Some(1),
    };
    Some((count(old)?, count(new)?))
}

/// Reads one patch.
fn parse(patch: &PatchInput) -> Result<Vec<Part>, Diagnostic> {
    let text = plain_text(patch)?;
    let spans = hunk_spans(patch, &text)?;
    let is_git = apply::lines(&text).iter().any(|line| line.starts_with(b"diff --git "));
    let options = if is_git { ParseOptions::gitdiff() } else { ParseOptions::unidiff() };
    let mut starts = spans.iter().map(|span| span.first);
    let mut parts = Vec::new();
    for file in PatchSet::parse_bytes(&text, options) {
        let file = file.map_err(|error| unreadable(patch, None, error.to_string()))?;
        parts.push(part(patch, &file, &mut starts)?);
    }
    if let Some(line) = starts.next() {
        return Err(unreadable(patch, Some(line), "a hunk belongs to no file"));
    }
    Ok(parts)
}

/// The hunks of a patch, by file, as [`apply_all`] reads them.
pub(crate) fn hunks(patch: &PatchInput) -> Result<Vec<Vec<Hunk>>, Diagnostic> {
    Ok(parse(patch)?.into_iter().map(|part| part.hunks).collect())
}

fn path_text(patch: &PatchInput, path: &[u8]) -> Result<String, Diagnostic> {
    String::from_utf8(path.to_vec()).map_err(|_| {
        Diagnostic::new(codes::PATCH_PATH, "a file name is not UTF-8").at(Place::file(&patch.name))
    })
}

fn part(
    patch: &PatchInput,
    file: &FilePatch<'_, [u8]>,
    starts: &mut impl Iterator<Item = u32>,
) -> Result<Part, Diagnostic> {
    let name = |path: &[u8]| path_text(patch, path);
    let (kind, old, new) = match file.operation() {
        FileOperation::Create(path) => (PartKind::Create, None, Some(name(path)?)),
        FileOperation::Delete(path) => (PartKind::Delete, Some(name(path)?), None),
        FileOperation::Modify { original, modified } => {
            (PartKind::Modify, Some(name(original)?), Some(name(modified)?))
        }
        FileOperation::Rename { from, to } => (PartKind::Rename, Some(name(from)?), Some(name(to)?)),
        FileOperation::Copy { from, to } => (PartKind::Copy, Some(name(from)?), Some(name(to)?)),
    };
    let shown = new.as_deref().or(old.as_deref()).unwrap_or_default();
    let PatchKind::Text(text) = file.patch() else {
        return Err(Diagnostic::new(codes::PATCH_BINARY, format!("{shown} is changed as a binary file"))
            .at(Place::file(&patch.name))
            .advice("Leave binary files out of the patch: none of them is part of the hypervisor."));
    };
    let executable = match file.new_mode() {
        None => None,
        Some(FileMode::Regular) => Some(false),
        Some(FileMode::Executable) => Some(true),
        Some(FileMode::Symlink | FileMode::Gitlink) => {
            return Err(Diagnostic::new(
                codes::PATCH_PATH,
                format!("{shown} is a symbolic link or a submodule"),
            )
            .at(Place::file(&patch.name))
            .advice("Leave that file out of the patch."));
        }
    };
    let hunks = text.hunks().iter().map(|hunk| Hunk {
        old_start: hunk.old_range().start(),
        new_start: hunk.new_range().start(),
        lines: hunk
            .lines()
            .iter()
            .map(|line| match line {
                diffy::Line::Context(text) => HunkLine::Context(text.to_vec()),
                diffy::Line::Delete(text) => HunkLine::Delete(text.to_vec()),
                diffy::Line::Insert(text) => HunkLine::Insert(text.to_vec()),
            })
            .collect(),
        patch_line: starts.next().unwrap_or(0),
    });
    let hunks: Vec<Hunk> = hunks.collect();
    if hunks.is_empty() && kind == PartKind::Modify && file.new_mode().is_none() {
        return Err(unreadable(patch, None, format!("{shown} is named, but nothing in it is changed")));
    }
    Ok(Part { old, new, kind, executable, hunks })
}

/// The path of a patch without its first `strip` components; none where that leaves nothing.
fn strip(path: &str, strip: usize) -> Option<&str> {
    let mut rest = path;
    for _ in 0..strip {
        rest = rest.split_once('/')?.1.trim_start_matches('/');
    }
    Some(rest.trim_start_matches("./")).filter(|rest| !rest.is_empty())
}

/// The files of a tree as the patches so far have left them.
struct Overlay<'a> {
    tree: &'a Path,
    changes: Changes,
    problems: Problems,
}

impl Overlay<'_> {
    fn exists(&self, path: &str) -> bool {
        match self.changes.get(path) {
            Some(change) => change.after.is_some(),
            None => is_plain(path) && std::fs::symlink_metadata(self.tree.join(path)).is_ok(),
        }
    }

    /// The file's entry, read from the tree when it is first named.
    fn entry(&mut self, patch: &PatchInput, path: &str) -> Result<&mut FileChange, Diagnostic> {
        use std::os::unix::fs::PermissionsExt;
        if !self.changes.contains_key(path) {
            check_path(patch, self.tree, path)?;
            let file = self.tree.join(path);
            let change = match fs::read(&file) {
                Ok(bytes) => {
                    let mode = fs::metadata(&file).map_err(|error| codes::io(&error))?.permissions().mode();
                    let executable = mode & 0o100 != 0;
                    FileChange {
                        before: Some(bytes.clone()),
                        after: Some(bytes),
                        executable,
                        was_executable: executable,
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    FileChange { before: None, after: None, executable: false, was_executable: false }
                }
                Err(error) => return Err(codes::io(&error)),
            };
            self.changes.insert(path.to_owned(), change);
        }
        self.changes.get_mut(path).ok_or_else(|| Diagnostic::new(codes::IO, format!("lost {path}")))
    }
}

/// Whether a path is relative and has only ordinary components.
fn is_plain(path: &str) -> bool {
    !path.is_empty()
        && Path::new(path).components().all(|part| matches!(part, Component::Normal(name) if name != ".git"))
}

fn check_path(patch: &PatchInput, tree: &Path, path: &str) -> Result<(), Diagnostic> {
    let refuse = |what: String| {
        Diagnostic::new(codes::PATCH_PATH, what)
            .at(Place::file(&patch.name))
            .advice("Name files relative to the folder that holds xen/, as `patch -p1` expects them.")
    };
    if !is_plain(path) {
        return Err(refuse(format!("{path} is not a path inside the tree")));
    }
    let mut so_far = tree.to_owned();
    for part in Path::new(path).components() {
        so_far.push(part);
        if std::fs::symlink_metadata(&so_far).is_ok_and(|meta| meta.file_type().is_symlink()) {
            return Err(refuse(format!("{path} is reached through a symbolic link of the tree")));
        }
    }
    Ok(())
}

/// How many leading components of its paths a patch has too many: 1 as `patch -p1`, or 0 where no path fits
/// with 1 and all fit with 0.
fn strip_level(overlay: &Overlay<'_>, parts: &[Part]) -> usize {
    let fits = |part: &Part, level: usize| {
        let has = |path: &Option<String>| {
            path.as_deref().and_then(|path| strip(path, level)).is_some_and(|path| overlay.exists(path))
        };
        let folder = |path: &Option<String>| {
            let folder =
                path.as_deref().and_then(|path| strip(path, level)).and_then(|path| Path::new(path).parent());
            folder.is_some_and(|folder| {
                folder.as_os_str().is_empty()
                    || folder.to_str().is_some_and(is_plain) && overlay.tree.join(folder).is_dir()
            })
        };
        match part.kind {
            PartKind::Create => folder(&part.new),
            PartKind::Delete | PartKind::Rename | PartKind::Copy => has(&part.old),
            PartKind::Modify => has(&part.old) || has(&part.new),
        }
    };
    let none_with_one = !parts.iter().any(|part| fits(part, 1));
    let all_with_none = parts.iter().all(|part| fits(part, 0));
    if none_with_one && all_with_none { 0 } else { 1 }
}

fn mismatch(patch: &PatchInput, path: &str, error: &Mismatch) -> Diagnostic {
    let place = Place::file(&patch.name).line(error.patch_line);
    let Mismatch { hunk, file_line, .. } = error;
    let why = match &error.kind {
        MismatchKind::Line { expected, found: Some(found) } => format!(
            "Line {file_line} of {path} should read `{}`, but it is `{}`.",
            expected.trim(),
            found.trim()
        ),
        MismatchKind::Line { expected, found: None } => {
            format!("{path} ends before line {file_line}, which should read `{}`.", expected.trim())
        }
        MismatchKind::Ambiguous { places } => {
            format!("It does not match at its line, and equally well at {places} others.")
        }
        MismatchKind::NoContext => {
            "It only adds lines and shows none around them, so nothing says where they belong.".to_owned()
        }
    };
    let diagnostic =
        Diagnostic::new(codes::PATCH_DOES_NOT_APPLY, format!("hunk {hunk} of {path} does not apply"))
            .at(place)
            .why(why);
    if error.already_applied {
        return already_applied(diagnostic);
    }
    diagnostic.advice("Make the patch against exactly this tree; context has to match without any fuzz.")
}

fn already_applied(diagnostic: Diagnostic) -> Diagnostic {
    diagnostic.advice("The tree looks as if it had this patch already: give the tree without it.")
}

fn apply_part(
    overlay: &mut Overlay<'_>,
    patch: &PatchInput,
    part: &Part,
    level: usize,
) -> Result<(), Diagnostic> {
    let path_of = |path: &Option<String>| -> Result<Option<String>, Diagnostic> {
        let Some(path) = path else { return Ok(None) };
        // rename and copy lines have no a/ and b/ in front.
        let level = if matches!(part.kind, PartKind::Rename | PartKind::Copy) { 0 } else { level };
        strip(path, level).map(|path| Some(path.to_owned())).ok_or_else(|| {
            Diagnostic::new(
                codes::PATCH_PATH,
                format!("{path} has no folder in front that could be left out"),
            )
            .at(Place::file(&patch.name))
            .advice("Name files as `patch -p1` expects them.")
        })
    };
    let (old, new) = (path_of(&part.old)?, path_of(&part.new)?);
    let fails =
        |what: String| Diagnostic::new(codes::PATCH_DOES_NOT_APPLY, what).at(Place::file(&patch.name));
    // What `diff -N` writes for new files: both names, and a hunk for an empty file.
    let adds_all = part.hunks.len() == 1 && part.hunks[0].old_start == 0;
    let removes_all = part.hunks.len() == 1 && part.hunks[0].new_start == 0;
    let source = match (&old, &new) {
        (Some(old), Some(new)) if part.kind == PartKind::Modify && old != new => {
            match (overlay.exists(old), overlay.exists(new)) {
                (true, true) => {
                    return Err(fails(format!("{old} and {new} both exist, so the patch is ambiguous"))
                        .advice("Give both lines of the file's header the same path."));
                }
                (true, false) if !adds_all => old.clone(),
                _ => new.clone(),
            }
        }
        (Some(old), _) => old.clone(),
        (None, Some(new)) => new.clone(),
        (None, None) => return Err(unreadable(patch, None, "a file has no name")),
    };
    let target =
        if part.kind == PartKind::Modify { source.clone() } else { new.unwrap_or_else(|| source.clone()) };
    let entry = overlay.entry(patch, &source)?.clone();
    let creates =
        part.kind == PartKind::Create || (part.kind == PartKind::Modify && adds_all && entry.after.is_none());
    if creates && entry.after.is_some() {
        let same = apply::apply(b"", &part.hunks).is_ok_and(|(bytes, _)| Some(bytes) == entry.after);
        let diagnostic = fails(format!("{source} is new in the patch, but the tree has it"));
        return Err(if same {
            already_applied(diagnostic)
        } else {
            diagnostic.advice("Give the tree that the patch was made for.")
        });
    }
    let Some(before) = entry.after.clone().or_else(|| creates.then(Vec::new)) else {
        return Err(fails(format!("{source} is not in the tree")).advice(
            "Give the tree that the patch was made for, and a patch that applies with `patch -p1`.",
        ));
    };
    if part.kind != PartKind::Modify && source != target && overlay.exists(&target) {
        return Err(fails(format!("{target} is new in the patch, but the tree has it"))
            .advice("Give the tree that the patch was made for."));
    }
    let (after, offsets) =
        apply::apply(&before, &part.hunks).map_err(|error| mismatch(patch, &source, &error))?;
    for offset in offsets {
        let line = part.hunks.get(offset.hunk - 1).map_or(0, |hunk| hunk.patch_line);
        overlay.problems.push(
            Diagnostic::new(
                codes::PATCH_OFFSET,
                format!(
                    "hunk {} of {source} matched {} lines away from its place",
                    offset.hunk, offset.lines
                ),
            )
            .at(Place::file(&patch.name).line(line))
            .why("All its lines match, and no other place does."),
        );
    }
    let deletes = part.kind == PartKind::Delete || (part.kind == PartKind::Modify && removes_all);
    if deletes && !after.is_empty() {
        return Err(fails(format!("{source} is removed by the patch, but lines of it remain"))
            .advice("Give the tree that the patch was made for."));
    }
    let executable = part.executable.unwrap_or(entry.executable);
    if part.kind == PartKind::Rename {
        overlay.entry(patch, &source)?.after = None;
    }
    let entry = overlay.entry(patch, &target)?;
    entry.after = (!deletes).then_some(after);
    entry.executable = executable;
    Ok(())
}

/// Applies `patches` in order to the files of `tree`, which is only read.
///
/// Gives what changed, and warnings.
pub(crate) fn apply_all(tree: &Path, patches: &[PatchInput]) -> Result<(Changes, Problems), Problems> {
    let mut overlay = Overlay { tree, changes: Changes::new(), problems: Problems::new() };
    for patch in patches {
        let parts = match parse(patch) {
            Ok(parts) => parts,
            Err(error) => {
                overlay.problems.push(error);
                continue;
            }
        };
        let level = strip_level(&overlay, &parts);
        for part in &parts {
            if let Err(error) = apply_part(&mut overlay, patch, part, level) {
                overlay.problems.push(error);
            }
        }
    }
    if !overlay.problems.is_harmless() {
        return Err(overlay.problems);
    }
    let mut changes = overlay.changes;
    changes.retain(|_, change| {
        change.before != change.after
            || (change.after.is_some() && change.executable != change.was_executable)
    });
    Ok((changes, overlay.problems))
}

#[cfg(test)]
#[path = "patchset_tests.rs"]
mod tests;
