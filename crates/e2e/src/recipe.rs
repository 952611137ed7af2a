//! Edit recipes, and how they become unified diffs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use fs_err as fs;

/// A place in a C file, named without quoting more than identifiers of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Behind the line with the brace that opens the body of this function.
    Body(&'static str),
    /// Behind the first line with this text at or after the definition of this function.
    Behind(&'static str, &'static str),
    /// Before the definition of this function, its return type included.
    Before(&'static str),
    /// Behind the last `#include` of the file's head.
    Includes,
    /// Behind the first line with this text.
    Line(&'static str),
    /// In place of the first occurrence of a text at or after the first line with another text.
    Word(&'static str, &'static str),
    /// At the end of the file.
    End,
    /// All of a file that is not there yet.
    NewFile,
}

/// One edit of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edit {
    /// Relative to the tree.
    pub file: &'static str,
    /// Where.
    pub at: At,
    /// Lines to insert, each with its newline; for [`At::Word`] the new text.
    pub text: &'static str,
}

/// A patch that is made when it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipe {
    /// The patch's name, and the payload's.
    pub name: &'static str,
    /// What it does, in a sentence; becomes the text before the diff.
    pub what: &'static str,
    /// The edits, in order.
    pub edits: &'static [Edit],
}

/// A recipe applied to a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The patch.
    pub diff: String,
    /// The edited files, by path relative to the tree.
    pub files: BTreeMap<String, String>,
}

impl Made {
    /// The number, from 1, of the first line of an edited file that has this text.
    pub fn line_of(&self, file: &str, text: &str) -> Option<usize> {
        Some(self.files.get(file)?.lines().position(|line| line.contains(text))? + 1)
    }
}

/// Why a recipe does not fit a tree.
#[derive(Debug)]
pub enum RecipeError {
    /// A file cannot be read.
    Io(std::io::Error),
    /// A place is not there.
    NoPlace {
        /// The file.
        file: String,
        /// The place.
        at: At,
    },
}

impl fmt::Display for RecipeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecipeError::Io(error) => error.fmt(f),
            RecipeError::NoPlace { file, at } => write!(f, "{file} has no place {at:?}"),
        }
    }
}

impl std::error::Error for RecipeError {}

impl From<std::io::Error> for RecipeError {
    fn from(error: std::io::Error) -> RecipeError {
        RecipeError::Io(error)
    }
}

impl Recipe {
    /// Makes the patch for a tree, which is only read.
    ///
    /// # Errors
    /// A file that cannot be read, or a place that is not there.
    pub fn make(&self, tree: &Path) -> Result<Made, RecipeError> {
        let mut files: BTreeMap<String, (String, String)> = BTreeMap::new();
        for edit in self.edits {
            if !files.contains_key(edit.file) {
                let text = match edit.at {
                    At::NewFile => String::new(),
                    _ => fs::read_to_string(tree.join(edit.file))?,
                };
                files.insert(edit.file.to_owned(), (text.clone(), text));
            }
            if let Some((_, text)) = files.get_mut(edit.file) {
                let no_place = || RecipeError::NoPlace { file: edit.file.to_owned(), at: edit.at };
                *text = apply(text, edit).ok_or_else(no_place)?;
            }
        }
        let mut diff = format!("{}\n\n", self.what);
        for (file, (old, new)) in &files {
            let new_file = self.edits.iter().any(|edit| edit.file == file && edit.at == At::NewFile);
            let original = if new_file { "/dev/null".to_owned() } else { format!("a/{file}") };
            let patch = diffy::DiffOptions::new()
                .set_original_filename(original)
                .set_modified_filename(format!("b/{file}"))
                .create_patch(old, new)
                .to_string();
            diff.push_str(&patch);
        }
        Ok(Made { diff, files: files.into_iter().map(|(file, (_, new))| (file, new)).collect() })
    }
}

fn apply(text: &str, edit: &Edit) -> Option<String> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let behind = |from: usize, wanted: &str| {
        let found = lines.iter().skip(from).position(|line| line.contains(wanted))?;
        Some(from + found + 1)
    };
    let at = match edit.at {
        At::Body(function) => {
            let start = definition(&lines, function)?;
            start + lines.iter().skip(start).position(|line| line.trim_end() == "{")? + 1
        }
        At::Behind(function, wanted) => behind(definition(&lines, function)?, wanted)?,
        At::Before(function) => first_line(&lines, definition(&lines, function)?),
        At::Includes => {
            let head = lines.iter().position(|line| line.trim_end() == "{").unwrap_or(lines.len());
            let last = lines.iter().take(head).rposition(|line| line.starts_with("#include <"))?;
            last + 1
        }
        At::Line(wanted) => behind(0, wanted)?,
        At::Word(near, old) => {
            let start: usize = lines.iter().take(behind(0, near)? - 1).map(|line| line.len()).sum();
            let found = start + text.get(start..)?.find(old)?;
            return Some(format!("{}{}{}", &text[..found], edit.text, &text[found + old.len()..]));
        }
        At::End | At::NewFile => lines.len(),
    };
    let mut new = lines.get(..at)?.concat();
    new.push_str(edit.text);
    new.push_str(&lines.get(at..)?.concat());
    Some(new)
}

/// The line that has a function's name, of its definition: one that begins in the first column and whose
/// next line in the first column opens a body.
fn definition(lines: &[&str], function: &str) -> Option<usize> {
    let is_word = |line: &str, at: usize| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    lines.iter().enumerate().position(|(number, line)| {
        let call = format!("{function}(");
        let wanted = if function.contains('(') { function } else { call.as_str() };
        let named = line.find(wanted).is_some_and(|at| is_word(line, at));
        let flush = line.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        // Parameters may go on for some lines before the body begins.
        let opens = || {
            let next = lines.iter().skip(number).take(8).find(|l| l.contains(';') || l.starts_with('{'));
            next.is_some_and(|line| line.starts_with('{'))
        };
        named && flush && opens()
    })
}

/// The first line of a definition: return type and attributes may stand on lines before the name.
fn first_line(lines: &[&str], name: usize) -> usize {
    let mut first = name;
    while let Some(before) = first.checked_sub(1).and_then(|at| lines.get(at)) {
        let text = before.trim_end();
        if !text.starts_with(|c: char| c.is_ascii_alphabetic()) || text.ends_with([';', '}', '/', ')']) {
            break;
        }
        first -= 1;
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "#include <one.h>\n#include <two.h>\n\nint f(int x);\n\nstatic\nint f(int x,\n      int y)\n{\n    int z = g(x);\n    return z;\n}\n\nDO(version)(int c)\n{\n    if ( f(c) )\n        return 1;\n}\n#include <late.h>\n";

    fn edited(at: At, text: &'static str) -> String {
        apply(FILE, &Edit { file: "f.c", at, text }).expect("place")
    }

    fn line_before(at: At) -> String {
        let text = edited(at, "NEW\n");
        let lines: Vec<&str> = text.lines().collect();
        let new = lines.iter().position(|line| *line == "NEW").expect("inserted");
        lines[new - 1].to_owned()
    }

    #[test]
    fn places_are_found_by_name() {
        assert_eq!(line_before(At::Includes), "#include <two.h>");
        assert_eq!(line_before(At::Body("f")), "{");
        assert!(edited(At::Body("f"), "NEW\n").contains("int y)\n{\nNEW\n"));
        assert!(edited(At::Before("f"), "NEW\n").contains("NEW\nstatic\nint f(int x,\n"));
        assert_eq!(line_before(At::Behind("f", "g(x)")), "    int z = g(x);");
        assert_eq!(line_before(At::Behind("DO(version)", "return")), "        return 1;");
        assert!(edited(At::Word("DO(version)", "return 1"), "return 2").contains("        return 2;\n}\n"));
        assert!(edited(At::End, "NEW\n").ends_with(">\nNEW\n"));
    }

    #[test]
    fn a_new_file_has_no_original() {
        let edits = &[Edit { file: "dir/new.c", at: At::NewFile, text: "int x;\n" }];
        let recipe = Recipe { name: "new", what: "Add a file", edits };
        let made = recipe.make(Path::new("/nonexistent")).expect("nothing is read");
        assert_eq!(made.diff, "Add a file\n\n--- /dev/null\n+++ b/dir/new.c\n@@ -0,0 +1 @@\n+int x;\n");
    }

    #[test]
    fn what_is_not_there_is_no_place() {
        for at in [At::Body("g"), At::Behind("f", "nothing"), At::Line("nothing"), At::Word("f", "nothing")] {
            assert_eq!(apply(FILE, &Edit { file: "f.c", at, text: "" }), None);
        }
    }
}
