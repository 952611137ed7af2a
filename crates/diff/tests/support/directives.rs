//! What a fixture says must come of it.
//!
//! Lines that start with `//#`, each `KEYWORD: WORDS`; a keyword may come again and adds to its list:
//!
//! - `flags`: added to the compiler's flags. `also`: the same fixture once more with these flags.
//! - `shipped`: flags for the original that the shipped hypervisor holds, where it is another than the rebuilt.
//! - `changed`, `new`, `removed`: functions. All others must be the same.
//! - `same`: functions that must be there and the same.
//! - `init`: what changed but waits for the next boot.
//! - `replaced`: functions of the hypervisor that the payload replaces; `#foo` is `foo`, local to the file.
//! - `needs`: names of the hypervisor that the payload refers to.
//! - `pieces`: what the payload holds, by kind: `Text=1 BugFrame(2)=1`.
//! - `refused`: the code of a refusal, then words that its text, place or reason must hold. One line for each.
//!   The word `@here` is the number of the line with the comment `/* @here */`.
//! - `warned`: the same for a warning.
//! - `hooks`: the payload's hooks in its order, each `KIND:FUNCTION`.
//! - `loader`: what the hypervisor's loader cannot do: `no-KIND` of hook, `needs-functions`, `late-tables`.
//! - `anchors`: code refers to places in front of strings or behind them.
//! - `damaged`: the payload is also damaged byte by byte, to see that the checks notice.
//! - `known-failure`: why this fixture cannot pass yet. It is shown as ignored.
//!
//! Nothing is left open: what is not listed must not be found. `needs` and `pieces` are those of a payload,
//! and count where nothing is refused.

use std::collections::{BTreeMap, BTreeSet};

use xsplice_diff::Loader;
use xsplice_objects::HookKind;

/// A refusal that must come.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The diagnostic's code.
    pub code: String,
    /// Words of its text or place.
    pub words: Vec<String>,
}

/// All that a fixture says.
#[derive(Debug, Clone, Default)]
pub struct Expectations {
    /// Lists of words by keyword.
    lists: BTreeMap<String, BTreeSet<String>>,
    flags: Vec<String>,
    /// Flags of the shipped original.
    pub shipped: Vec<String>,
    also: Vec<Vec<String>>,
    /// Pieces by kind.
    pub pieces: BTreeMap<String, usize>,
    /// Refusals.
    pub refused: Vec<Refused>,
    /// Warnings.
    pub warned: Vec<Refused>,
    /// Hooks.
    pub hooks: Vec<String>,
    lacking: BTreeSet<String>,
    /// Whether code refers to places near strings.
    pub anchors: bool,
    /// Whether the payload is also damaged.
    pub damaged: bool,
    /// Why it cannot pass yet.
    pub known_failure: Option<String>,
}

const LISTS: &[&str] = &["changed", "new", "removed", "same", "init", "replaced", "needs"];

impl Expectations {
    /// Reads the directives of a source.
    pub fn parse(text: &str) -> Result<Expectations, String> {
        let mut expected = Expectations::default();
        let mut any = false;
        for line in text.lines().filter_map(|line| line.strip_prefix("//#")) {
            let (keyword, rest) = line.split_once(':').ok_or(format!("no keyword in `//#{line}`"))?;
            let words: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
            any = true;
            match keyword.trim() {
                "flags" => expected.flags.extend(words),
                "shipped" => expected.shipped.extend(words),
                "also" => expected.also.push(words),
                "anchors" => expected.anchors = true,
                "damaged" => expected.damaged = true,
                "known-failure" => expected.known_failure = Some(rest.trim().to_owned()),
                "pieces" => {
                    for word in words {
                        let (kind, count) = word.split_once('=').ok_or(format!("no count in `{word}`"))?;
                        let count = count.parse().map_err(|_| format!("no count in `{word}`"))?;
                        if expected.pieces.insert(kind.to_owned(), count).is_some() {
                            return Err(format!("`{kind}` is listed twice"));
                        }
                    }
                }
                "refused" | "warned" => {
                    let mut words = words.into_iter().map(|word| line_of(text, word));
                    let code = words.next().ok_or("a refusal without a code")??;
                    let refused = Refused { code, words: words.collect::<Result<_, _>>()? };
                    if keyword.trim() == "refused" {
                        expected.refused.push(refused);
                    } else {
                        expected.warned.push(refused);
                    }
                }
                "hooks" => expected.hooks.extend(words),
                "loader" => expected.lacking.extend(words),
                keyword if LISTS.contains(&keyword) => {
                    let list = expected.lists.entry(keyword.to_owned()).or_default();
                    for word in words {
                        if !list.insert(word.clone()) {
                            return Err(format!("`{word}` is listed twice"));
                        }
                    }
                }
                other => return Err(format!("unknown directive `{other}`")),
            }
        }
        if any { Ok(expected) } else { Err("the fixture expects nothing".into()) }
    }

    /// A list of words; empty where the fixture has none.
    pub fn list(&self, keyword: &str) -> BTreeSet<String> {
        assert!(LISTS.contains(&keyword), "{keyword}");
        self.lists.get(keyword).cloned().unwrap_or_default()
    }

    /// What the hypervisor's loader does.
    pub fn loader(&self) -> Loader {
        let lacks = |what: &str| self.lacking.contains(what);
        let knows = |kind: &HookKind| !lacks(&format!("no-{}", kind.name()));
        Loader {
            hooks: HookKind::ALL.into_iter().filter(knows).collect(),
            needs_functions: lacks("needs-functions"),
            tables_from_upload: !lacks("late-tables"),
        }
    }

    /// The flags of each run that the fixture asks for, beyond those common to all.
    pub fn variants(&self) -> Vec<Vec<String>> {
        let more = self.also.iter().map(|also| self.flags.iter().chain(also).cloned().collect());
        std::iter::once(self.flags.clone()).chain(more).collect()
    }
}

/// A word of a refusal, with a mark made the number of its line.
fn line_of(text: &str, word: String) -> Result<String, String> {
    if !word.starts_with('@') {
        return Ok(word);
    }
    let mark = format!("/* {word} */");
    let line = text.lines().position(|line| line.contains(&mark)).ok_or(format!("no line has {mark}"))?;
    Ok(format!(":{}", line + 1))
}
