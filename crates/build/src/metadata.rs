//! What the shipped hypervisor says about its own build, for the private copy to say the same.
//!
//! xen/include/xen/compile.h is made from compile.h.in, a template whose lines `#define MACRO "@@word@@"` are filled in
//! by xen/Makefile or xen/build.mk, and each function of xen/common/version.c returns one of these macros. Which macros
//! there are is up to the tree (Debian's has others), so this reads both files: macro and function come from the tree,
//! the text from the function in the shipped hypervisor. The text is then written into the template.

use std::collections::BTreeMap;
use std::path::Path;

use fs_err as fs;

/// The template, relative to the tree.
pub(crate) const TEMPLATE: &str = "xen/include/xen/compile.h.in";
/// The source whose functions return its texts.
const FUNCTIONS: &str = "xen/common/version.c";
/// The longest text that is taken over, in bytes; longer ones are no answers of version.c.
const LONGEST: usize = 256;

/// Texts of a build, by the macro that stands for each in compile.h.
pub(crate) type Texts = BTreeMap<String, String>;

/// What functions of the shipped hypervisor return (by their names) of what the tree writes into compile.h.
///
/// # Errors
/// When a file cannot be read. A tree without them, or with other ones, has nothing to take over.
pub(crate) fn find(tree: &Path, shipped: &BTreeMap<String, String>) -> std::io::Result<Texts> {
    let (template, functions) = (tree.join(TEMPLATE), tree.join(FUNCTIONS));
    if shipped.is_empty() || !template.is_file() || !functions.is_file() {
        return Ok(Texts::new());
    }
    let (template, functions) = (fs::read(template)?, fs::read(functions)?);
    let (template, functions) = (String::from_utf8_lossy(&template), String::from_utf8_lossy(&functions));
    let returned = returned_macros(&functions);
    let texts = template.lines().filter_map(placeholder).filter_map(|(name, _)| {
        let text = shipped.get(*returned.get(name)?).filter(|text| is_usable(text))?;
        Some((name.to_owned(), text.clone()))
    });
    Ok(texts.collect())
}

/// Writes texts into the template of a private copy.
///
/// # Errors
/// When it cannot be read or written.
pub(crate) fn take_over(tree: &Path, texts: &Texts) -> std::io::Result<()> {
    if texts.is_empty() {
        return Ok(());
    }
    let template = tree.join(TEMPLATE);
    let filled = fill(&String::from_utf8_lossy(&fs::read(&template)?), texts);
    fs::write(template, filled)
}

/// The template with texts in it.
fn fill(template: &str, texts: &Texts) -> String {
    let mut filled = String::with_capacity(template.len());
    for line in template.split_inclusive('\n') {
        let text = placeholder(line).and_then(|(name, quoted)| Some((quoted, texts.get(name)?)));
        let Some((quoted, text)) = text else {
            filled.push_str(line);
            continue;
        };
        let literal = text.replace('\\', "\\\\").replace('"', "\\\"");
        filled.push_str(&line.replacen(quoted, &format!("\"{literal}\""), 1));
    }
    filled
}

/// Whether a text can stand in the template: nothing that C or the template reads in its own way.
fn is_usable(text: &str) -> bool {
    let plain = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    plain && text.len() <= LONGEST && !text.contains("@@") && !text.contains("??")
}

/// Macro and quoted placeholder of a line `#define MACRO "@@word@@"`.
fn placeholder(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.strip_prefix("#define ")?.trim_start().split_once(char::is_whitespace)?;
    let quoted = rest.trim();
    let word = quoted.strip_prefix("\"@@")?.strip_suffix("@@\"")?;
    word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_').then_some((name, quoted))
}

/// Functions that consist of `return MACRO;`, by macro.
fn returned_macros(source: &str) -> BTreeMap<&str, &str> {
    let mut found = BTreeMap::new();
    let lines: Vec<&str> = source.lines().map(str::trim_end).collect();
    for window in lines.windows(4) {
        let [head, "{", body, "}"] = *window else { continue };
        let name = head.strip_prefix("const char *").and_then(|rest| rest.strip_suffix("(void)"));
        let body = body.trim_start().strip_prefix("return ").and_then(|rest| rest.strip_suffix(';'));
        if let (Some(name), Some(body)) = (name, body) {
            found.entry(body).or_insert(name);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "#include <xen/compile.h>\n\nconst char *when(void)\n{\n    return COMPILE_DATE;\n}\n\n\
                          const char *odd(void)\n{\n    int x;\n    return COMPILE_BY;\n}\n\n\
                          const char *vendor(void)\n{\n    return VENDOR;\n}\n";

    const TREE: &str = "#define COMPILE_DATE\t\"@@date@@\"\n#define COMPILE_BY \"@@whoami@@\"\n\
                        #define VENDOR\t\t\"@@vendor@@\"\n#define VERSION @@version@@\n";

    fn texts(texts: &[(&str, &str)]) -> BTreeMap<String, String> {
        texts.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    fn tree() -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        for (path, text) in [(TEMPLATE, TREE), (FUNCTIONS, SOURCE)] {
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        tree
    }

    #[test]
    fn the_trees_own_macros_get_the_shipped_texts() {
        let tree = tree();
        let found = |shipped: &[(&str, &str)]| find(tree.path(), &texts(shipped)).unwrap();
        assert!(found(&[]).is_empty());
        // One function does more than return its macro, one is not of this source.
        let date = found(&[("when", "Mon \"1\" \\ 2"), ("odd", "x"), ("other", "y")]);
        assert_eq!(date, texts(&[("COMPILE_DATE", "Mon \"1\" \\ 2")]));
        assert_eq!(found(&[("vendor", "")]), texts(&[("VENDOR", "")]), "an empty text is a text");
        take_over(tree.path(), &date).unwrap();
        assert_eq!(
            fs::read_to_string(tree.path().join(TEMPLATE)).unwrap(),
            "#define COMPILE_DATE\t\"Mon \\\"1\\\" \\\\ 2\"\n#define COMPILE_BY \"@@whoami@@\"\n\
             #define VENDOR\t\t\"@@vendor@@\"\n#define VERSION @@version@@\n"
        );
    }

    #[test]
    fn what_c_or_the_template_would_read_otherwise_is_left_out() {
        let tree = tree();
        for text in ["a\nb", "@@date@@", "??/", "größe", &"x".repeat(LONGEST + 1)] {
            assert!(find(tree.path(), &texts(&[("when", text)])).unwrap().is_empty(), "{text}");
        }
    }

    #[test]
    fn a_tree_without_these_files_is_left_alone() {
        let tree = tempfile::tempdir().unwrap();
        assert!(find(tree.path(), &texts(&[("when", "x")])).unwrap().is_empty());
        take_over(tree.path(), &Texts::new()).unwrap();
        assert!(!tree.path().join("xen").exists());
    }
}
