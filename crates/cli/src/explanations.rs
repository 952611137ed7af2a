//! What each diagnostic code means: its cause, an example and the way out.
//!
//! The texts are data, one file for each crate that has codes, in its order. A text is a heading with the code and
//! paragraphs: the cause, then one that begins with `Example:`, then one with `Way out:`. Lines of four spaces and more
//! are code and stay as they are.

use serde::Serialize;
use xsplice_report::{Code, Kind};

/// Each crate's folder under `crates`, its codes, and what is said of them.
pub(crate) const CRATES: &[(&str, &[Code], &str)] = &[
    ("boot", xsplice_boot::codes::ALL, include_str!("explanations/boot.md")),
    ("build", xsplice_build::codes::ALL, include_str!("explanations/build.md")),
    ("cli", crate::codes::ALL, include_str!("explanations/cli.md")),
    ("diff", xsplice_diff::codes::ALL, include_str!("explanations/diff.md")),
    ("dwarf", xsplice_dwarf::codes::ALL, include_str!("explanations/dwarf.md")),
    ("objects", xsplice_objects::codes::ALL, include_str!("explanations/objects.md")),
    ("verify", xsplice_verify::codes::ALL, include_str!("explanations/verify.md")),
];

/// What is said of one code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Explanation {
    /// The code's name.
    pub(crate) code: &'static str,
    pub(crate) kind: Kind,
    /// One sentence.
    pub(crate) summary: &'static str,
    /// Why it is raised.
    pub(crate) cause: String,
    pub(crate) example: String,
    /// What the reader can do.
    pub(crate) way_out: String,
}

/// A text as the files have it.
#[derive(Debug, Default)]
pub(crate) struct Text {
    pub(crate) code: &'static str,
    pub(crate) cause: String,
    pub(crate) example: String,
    pub(crate) way_out: String,
}

/// All codes, by crate.
pub(crate) fn all() -> impl Iterator<Item = &'static Code> {
    CRATES.iter().flat_map(|(_, codes, _)| codes.iter())
}

/// What is said of the code of that name, if there is one.
pub(crate) fn explain(name: &str) -> Option<Explanation> {
    let (code, file) = CRATES
        .iter()
        .find_map(|(_, codes, file)| Some((codes.iter().find(|code| code.name == name)?, file)))?;
    let text = texts(file).into_iter().find(|text| text.code == code.name).unwrap_or_default();
    Some(Explanation {
        code: code.name,
        kind: code.kind,
        summary: code.summary,
        cause: text.cause,
        example: text.example,
        way_out: text.way_out,
    })
}

/// The texts of one file.
pub(crate) fn texts(file: &'static str) -> Vec<Text> {
    let mut texts: Vec<Text> = Vec::new();
    // Which part the next line belongs to: a part ends where the next one begins.
    let mut part = 0;
    for line in file.lines() {
        if let Some(code) = line.strip_prefix("# ") {
            texts.push(Text { code: code.trim(), ..Text::default() });
            part = 0;
            continue;
        }
        let Some(text) = texts.last_mut() else { continue };
        let mut rest = line;
        for (number, label) in [(1, "Example:"), (2, "Way out:")] {
            if let Some(after) = line.strip_prefix(label) {
                part = number;
                rest = after.trim_start();
            }
        }
        let body = match part {
            0 => &mut text.cause,
            1 => &mut text.example,
            _ => &mut text.way_out,
        };
        // A paragraph is one line, whatever its width in the file; code keeps its lines.
        let code = |line: &str| line.starts_with("    ");
        let last = body.lines().last().unwrap_or_default();
        let goes_on = !rest.is_empty() && !code(rest) && !body.ends_with('\n') && !code(last);
        if goes_on && !body.is_empty() {
            body.push(' ');
        } else if code(rest) && code(last) {
            body.push('\n');
        } else if rest.is_empty() && !body.is_empty() {
            body.push_str("\n\n");
        }
        body.push_str(rest);
    }
    for text in &mut texts {
        for body in [&mut text.cause, &mut text.example, &mut text.way_out] {
            *body = body.trim_matches('\n').to_owned();
        }
    }
    texts
}

/// How many codes are proposed for one that does not exist.
const PROPOSED: usize = 3;
/// How alike two names are at least, from 0 to 1, for one to be proposed.
const ALIKE: f64 = 0.5;

/// The codes that somebody may have meant, the nearest first.
pub(crate) fn nearest(name: &str) -> Vec<&'static str> {
    let asked = name.to_lowercase().replace(['_', ' '], "-");
    let likeness = |code: &str| {
        let whole = strsim::normalized_damerau_levenshtein(&asked, code);
        // Half of a name is meant as often as one with a slip.
        if asked.len() >= 4 && code.contains(&asked) { whole.max(0.9) } else { whole }
    };
    let mut found: Vec<(f64, &str)> = all()
        .map(|code| (likeness(code.name), code.name))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .collect();
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    found.into_iter().take(PROPOSED).map(|(_, code)| code).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_cause_example_and_way_out_and_no_text_is_left_over() {
        for (krate, codes, file) in CRATES {
            let texts = texts(file);
            let told: Vec<&str> = texts.iter().map(|text| text.code).collect();
            let made: Vec<&str> = codes.iter().map(|code| code.name).collect();
            assert_eq!(told, made, "explanations/{krate}.md has the codes of {krate} in their order");
            for text in &texts {
                for (part, body) in
                    [("cause", &text.cause), ("example", &text.example), ("way out", &text.way_out)]
                {
                    let last = body.lines().last().unwrap_or_default();
                    let ends = last.ends_with(['.', ':']) || last.starts_with("    ");
                    assert!(body.len() >= 8 && ends, "{}: its {part} is {body:?}", text.code);
                }
                let size = text.cause.len() + text.example.len() + text.way_out.len();
                assert!((100..=1100).contains(&size), "{} has {size} characters", text.code);
            }
            let long = file.lines().find(|line| line.chars().count() > 120);
            assert_eq!(long, None, "explanations/{krate}.md");
        }
    }

    #[test]
    fn parts_are_told_apart_and_code_stays_as_it_is() {
        let file = "# one\n\nWhy it\nis so.\n\nExample: this\n\n    int a;\n    int b;\n\nWay out: go.\n\n# two\n\nNo parts.\n";
        let [one, two] = &texts(file)[..] else { panic!("two texts") };
        assert_eq!((one.code, one.cause.as_str()), ("one", "Why it is so."));
        assert_eq!((one.example.as_str(), one.way_out.as_str()), ("this\n\n    int a;\n    int b;", "go."));
        assert_eq!((two.code, two.cause.as_str(), two.example.as_str()), ("two", "No parts.", ""));
    }

    #[test]
    fn slips_and_halves_lead_to_the_code() {
        assert_eq!(nearest("layout-chnaged")[0], "layout-changed");
        assert_eq!(nearest("LAYOUT_CHANGED")[0], "layout-changed");
        assert_eq!(nearest("percpu")[0], "new-percpu");
        assert!(nearest("qqqqqqqq").is_empty());
        assert!(nearest("func").len() <= PROPOSED);
    }
}
