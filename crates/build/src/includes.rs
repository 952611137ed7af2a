//! Which files of a tree may read which, told from their text: more than a preprocessor would find, never less.
//!
//! It saves asking the preprocessor of every source. A file is taken to read another if it names that one, whatever
//! the folder: in a directive that includes or defines, or in a line with the assembler's `.include` or `.incbin`.
//! Conditions are not looked at. What includes a name that a macro puts together is taken to read everything.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;

/// The files that may read any of a given set, with that set itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Relative to the tree.
    files: BTreeSet<String>,
    /// Their names without folders.
    names: BTreeSet<String>,
}

/// What a file names.
#[derive(Default)]
struct Named {
    /// Names of files, without folders.
    words: HashSet<String>,
    /// Macros whose value is the name of an included file; empty for what is no plain name.
    computed: Vec<String>,
    /// Macros that are defined, and whether their value is a quoted name.
    defined: Vec<(String, bool)>,
}

impl Reach {
    /// Reads all files below `xen/` of a tree. `touched` are relative to the tree.
    pub(crate) fn of(tree: &Path, touched: &BTreeSet<String>) -> io::Result<Reach> {
        let paths = files(tree)?;
        let known: HashSet<&str> = paths.iter().map(|path| base_name(path)).collect();
        let mut files: BTreeMap<&str, Named> = BTreeMap::new();
        let mut any: BTreeMap<String, bool> = BTreeMap::new();
        for path in &paths {
            let full = tree.join(path);
            let named = if fs::symlink_metadata(&full)?.is_symlink() {
                let target = fs::read_link(&full)?;
                let word = target.file_name().map(|name| name.to_string_lossy().into_owned());
                Named { words: word.into_iter().collect(), ..Named::default() }
            } else {
                read(&fs::read(&full)?, &known)
            };
            for (name, plain) in &named.defined {
                any.entry(name.clone()).and_modify(|all| *all &= plain).or_insert(*plain);
            }
            files.insert(path, named);
        }
        let puts_together = |named: &Named| {
            named.computed.iter().any(|name| name.is_empty() || any.get(name) == Some(&false))
        };
        let mut reach = Reach::default();
        for path in touched {
            reach.add(path);
        }
        for (path, _) in files.iter().filter(|(_, named)| puts_together(named)) {
            reach.add(path);
        }
        loop {
            let reaches = |named: &Named| named.words.iter().any(|word| reach.names.contains(word));
            let more: Vec<&str> = files
                .iter()
                .filter(|(path, named)| !reach.files.contains(**path) && reaches(named))
                .map(|(path, _)| *path)
                .collect();
            if more.is_empty() {
                return Ok(reach);
            }
            more.into_iter().for_each(|path| reach.add(path));
        }
    }

    fn add(&mut self, path: &str) {
        self.files.insert(path.to_owned());
        self.names.insert(base_name(path).to_owned());
    }

    /// Whether a file, relative to the tree, may read one of them.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.files.contains(path)
    }

    /// Whether a text, such as the arguments of a compiler, names one of them.
    pub(crate) fn is_named_in(&self, text: &str) -> bool {
        words(text).any(|word| self.names.contains(word))
    }
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// All files below `xen/` that may be text, by path relative to the tree.
pub(crate) fn files(tree: &Path) -> io::Result<Vec<String>> {
    let mut paths = Vec::new();
    list(tree, "xen", &mut paths)?;
    Ok(paths)
}

fn list(tree: &Path, folder: &str, paths: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(tree.join(folder))? {
        let entry = entry?;
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            list(tree, &path, paths)?;
        } else if ![".o", ".a", ".cmd", ".d", ".gz"].iter().any(|end| path.ends_with(end)) {
            paths.push(path);
        }
    }
    Ok(())
}

/// The parts of a text that could be names of files.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '+')))
        .filter(|w| !w.is_empty())
}

/// What a file names; of words only those that are names in the tree.
fn read(bytes: &[u8], known: &HashSet<&str>) -> Named {
    let mut named = Named::default();
    // No text, or one that a compiler reads otherwise than this does.
    if bytes.contains(&0) {
        named.computed.push(String::new());
    }
    let text = String::from_utf8_lossy(bytes);
    let joined;
    let text = if text.contains("\\\n") {
        joined = text.replace("\\\n", " ");
        joined.as_str()
    } else {
        &text
    };
    for line in text.lines() {
        let directive = directive(line);
        let mut counts = directive.is_some_and(|rest| rest.starts_with("define"));
        if let Some(rest) = directive.and_then(|rest| rest.strip_prefix("define")) {
            let mut parts = rest.trim_start().splitn(2, char::is_whitespace);
            let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let plain = value.trim_start().starts_with(['"', '<']);
            named.defined.push((name.to_owned(), plain));
        } else if let Some(rest) =
            directive.and_then(|rest| rest.strip_prefix("include").or(rest.strip_prefix("import")))
        {
            let rest = without_comments(rest.strip_prefix("_next").unwrap_or(rest));
            if !rest.starts_with(['"', '<']) && rest != "__FILE__" {
                let plain = rest.chars().all(|c| c.is_alphanumeric() || c == '_');
                named.computed.push(if plain { rest.to_owned() } else { String::new() });
            }
        }
        // More than directives: behind a comment, in a pragma, in text for the assembler.
        counts |= (line.contains("include") || line.contains("import")) && line.contains(['#', '%']);
        let assembler = [".include", ".incbin"].iter().any(|word| line.contains(word));
        if !counts && !assembler {
            continue;
        }
        let found: Vec<&str> = words(line).filter(|word| known.contains(word)).collect();
        named.words.extend(found.iter().map(|word| (*word).to_owned()));
        // The name is elsewhere, or put together.
        if assembler && found.is_empty() {
            named.computed.push(String::new());
        }
    }
    named
}

/// What follows the sign of a directive, if a line is one.
fn directive(line: &str) -> Option<&str> {
    let line = without_comments(line);
    let rest = ["#", "%:", "??="].iter().find_map(|sign| line.strip_prefix(sign))?;
    Some(without_comments(rest))
}

/// A text without white space and comments at its start.
fn without_comments(text: &str) -> &str {
    let text = text.trim();
    match text.strip_prefix("/*").and_then(|comment| comment.split_once("*/")) {
        Some((_, rest)) => without_comments(rest),
        None => text,
    }
}

/// All files below `xen/` that hold a text, by absolute path.
pub(crate) fn holding(tree: &Path, text: &str) -> io::Result<BTreeSet<PathBuf>> {
    let tree = fs::canonicalize(tree)?;
    let mut found = BTreeSet::new();
    for path in files(&tree)? {
        let path = tree.join(path);
        if !fs::symlink_metadata(&path)?.is_symlink()
            && memchr::memmem::find(&fs::read(&path)?, text.as_bytes()).is_some()
        {
            found.insert(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(files: &[(&str, &str)], touched: &str) -> Vec<String> {
        let tree = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let reach = Reach::of(tree.path(), &BTreeSet::from([touched.to_owned()])).unwrap();
        reach.files.into_iter().collect()
    }

    #[test]
    fn readers_of_readers_count_by_name_alone() {
        let files = [
            ("xen/include/xen/s.h", ""),
            ("xen/include/xen/t.h", "#  include <xen/s.h>\n"),
            ("xen/common/a.c", "#include \"../x/t.h\"\n"),
            ("xen/common/b.c", "/* see a.c and s.h */\n"),
            ("xen/common/compat/c.c", "#if 0\n#include \"../a.c\"\n#endif\n"),
        ];
        let all = ["xen/common/a.c", "xen/common/compat/c.c", "xen/include/xen/s.h", "xen/include/xen/t.h"];
        assert_eq!(reach(&files, "xen/include/xen/s.h"), all);
        assert_eq!(reach(&files, "xen/common/b.c"), ["xen/common/b.c"]);
    }

    #[test]
    fn the_assembler_and_macros_read_files_too() {
        let files = [
            ("xen/include/m.h", ""),
            ("xen/a.c", "asm ( \".include \\\"m.h\\\"\" );\n"),
            ("xen/b.S", "\t.incbin \"m.h\"\n"),
            ("xen/c.h", "#define FILE \\\n    <m.h>\n"),
            ("xen/c.c", "#include \"c.h\"\n#include FILE\n"),
            ("xen/d.c", "#include UNKNOWN\n#include __FILE__\n"),
        ];
        let named = ["xen/a.c", "xen/b.S", "xen/c.c", "xen/c.h", "xen/include/m.h"];
        assert_eq!(reach(&files, "xen/include/m.h"), named);
    }

    #[test]
    fn a_name_that_a_macro_puts_together_may_be_any() {
        let files = [
            ("xen/m.h", ""),
            ("xen/a.c", "#include GLUE(m)\n"),
            ("xen/b.c", "#define NAME GLUE(m)\n#include NAME\n"),
            ("xen/c.c", "#include \"a.h\"\n"),
        ];
        assert_eq!(reach(&files, "xen/m.h"), ["xen/a.c", "xen/b.c", "xen/m.h"]);
    }

    #[test]
    fn directives_and_assembler_text_in_unusual_forms_count() {
        let files = [
            ("xen/m.h", ""),
            ("xen/a.c", "/* first */ # /* then */ include <m.h>\n"),
            ("xen/b.c", "%:include \"m.h\"\n"),
            ("xen/c.c", "#include /* which */ \"m.h\"\n"),
            ("xen/d.c", "asm ( \".include \"\n      \"\\\"m.h\\\"\" );\n"),
            ("xen/e.c", "\0#include \"other.h\"\n"),
            ("xen/f.c", "/* nothing\n*/ #include \"m.h\"\n"),
            ("xen/g.c", "int include;\n"),
        ];
        let all = ["xen/a.c", "xen/b.c", "xen/c.c", "xen/d.c", "xen/e.c", "xen/f.c", "xen/m.h"];
        assert_eq!(reach(&files, "xen/m.h"), all);
    }

    #[test]
    fn links_have_two_names() {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir_all(tree.path().join("xen")).unwrap();
        fs::write(tree.path().join("xen/real.h"), "").unwrap();
        std::os::unix::fs::symlink("real.h", tree.path().join("xen/link.h")).unwrap();
        fs::write(tree.path().join("xen/a.c"), "#include <link.h>\n").unwrap();
        let reach = Reach::of(tree.path(), &BTreeSet::from(["xen/real.h".to_owned()])).unwrap();
        assert!(reach.has("xen/a.c") && reach.has("xen/link.h"));
        assert!(reach.is_named_in("-include ./include/link.h") && !reach.is_named_in("-include alink.h"));
    }
}
