//! Constants of the public headers: what guests, the toolstack and loaders were compiled with.
//!
//! Macros leave nothing in objects, so that another value looks like any other changed number of the code. They are
//! read off the patched headers' text: `#define NAME value`, enumerations, and lists of the form `XEN_ERRNO(NAME,
//! value)` (xen/include/public/errno.h, arch-x86/cpufeatureset.h). New names do no harm, since nobody uses them yet,
//! and names that are gone are taken away from nobody who runs.

use std::collections::BTreeMap;

use xsplice_report::{Diagnostic, Place, Problems};

use crate::classify::{FileClass, classify};
use crate::codes;
use crate::patchset::Changes;

mod text;

use text::{Token, logical_lines, tokens};

/// Where they lie.
const FOLDER: &str = "xen/include/public/";

/// A constant of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Constant {
    /// Parameters and all definitions of that name, in the order of the text: groups of `#if` may hold several.
    bodies: Vec<Body>,
    /// The line of the first.
    line: u32,
}

/// A value: as tokens, and `after` more where enumerators before it count up.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Body {
    tokens: Vec<Token>,
    after: i128,
}

impl Body {
    /// The number, where it is a plain sum of numbers.
    fn number(&self) -> Option<i128> {
        text::number(&self.tokens)?.checked_add(self.after)
    }

    /// Whether both are the same value, written in the same way or not.
    fn equals(&self, other: &Body) -> bool {
        self == other || self.number().is_some_and(|number| other.number() == Some(number))
    }

    fn words(&self) -> String {
        let words: Vec<&str> = self.tokens.iter().map(|token| token.text.as_str()).collect();
        match (self.number(), self.after) {
            (Some(number), after) if after > 0 => number.to_string(),
            (_, 0) => words.join(" "),
            (_, after) => format!("{} + {after}", words.join(" ")),
        }
    }
}

/// A refusal for each constant that a patch gives another value.
pub(crate) fn changed(changes: &Changes) -> Problems {
    let mut problems = Problems::new();
    for (path, change) in changes {
        let (Some(before), Some(after)) = (&change.before, &change.after) else { continue };
        if !path.starts_with(FOLDER) || classify(path) != FileClass::Header {
            continue;
        }
        let before = constants(&String::from_utf8_lossy(before));
        let after = constants(&String::from_utf8_lossy(after));
        for (name, new) in &after {
            let Some(old) = before.get(name) else { continue };
            let same = old.bodies.len() == new.bodies.len()
                && old.bodies.iter().zip(&new.bodies).all(|(old, new)| old.equals(new));
            if !same {
                problems.push(refusal(path, name, old, new));
            }
        }
    }
    problems
}

fn refusal(path: &str, name: &str, old: &Constant, new: &Constant) -> Diagnostic {
    let words = |constant: &Constant| {
        let all: Vec<String> = constant.bodies.iter().map(Body::words).collect();
        let all = all.join(" or ");
        if all.is_empty() { "empty".to_owned() } else { all }
    };
    let mut place = Place::file(path).symbol(name);
    place.line = Some(new.line);
    Diagnostic::new(
        codes::PUBLIC_CONSTANT,
        format!("{name} of the public headers is {} instead of {}", words(new), words(old)),
    )
    .at(place)
    .why("Guests and the toolstack that run were compiled with the old value, and go on to use it.")
    .advice("Leave the value, and bring the new one under a new name; or install what is compiled with it together with the payload, and let it through with --allow.")
}

/// All constants of a header by name.
fn constants(text: &str) -> BTreeMap<String, Constant> {
    let mut found = BTreeMap::new();
    let mut code = Vec::new();
    for (line, text) in logical_lines(text) {
        let tokens = tokens(&text, line);
        match tokens.first() {
            Some(first) if first.text == "#" => define(&tokens[1..], &text, &mut found),
            Some(first) if first.text.starts_with("XEN_") => listed(&tokens, &mut found),
            _ => code.extend(tokens),
        }
    }
    enumerations(&code, &mut found);
    found
}

fn add(found: &mut BTreeMap<String, Constant>, name: &Token, body: Body) {
    let constant = found.entry(name.text.clone()).or_insert(Constant { bodies: Vec::new(), line: name.line });
    constant.bodies.push(body);
}

/// `define NAME value`, `define NAME(a) value`.
fn define(tokens: &[Token], text: &str, found: &mut BTreeMap<String, Constant>) {
    let [keyword, name, rest @ ..] = tokens else { return };
    if keyword.text != "define" || !name.is_name() {
        return;
    }
    // A function-like macro has its parenthesis right behind the name.
    let function = text.contains(&format!("{}(", name.text)) && rest.first().is_some_and(|t| t.text == "(");
    let mut rest = rest.to_vec();
    if function {
        rename_parameters(&mut rest);
    }
    add(found, name, Body { tokens: rest, after: 0 });
}

/// Parameters by their positions, since their names say nothing.
fn rename_parameters(tokens: &mut [Token]) {
    let end = tokens.iter().position(|token| token.text == ")").unwrap_or(0);
    let names: Vec<String> =
        tokens[..end].iter().filter(|token| token.is_name()).map(|token| token.text.clone()).collect();
    for token in tokens {
        if let Some(position) = names.iter().position(|name| *name == token.text) {
            token.text = format!("parameter {}", position + 1);
        }
    }
}

/// `XEN_LIST(NAME, value)`.
fn listed(tokens: &[Token], found: &mut BTreeMap<String, Constant>) {
    let [_, open, name, comma, rest @ ..] = tokens else { return };
    if open.text != "(" || comma.text != "," || !name.is_name() {
        return;
    }
    let Some(end) = rest.iter().rposition(|token| token.text == ")") else { return };
    add(found, name, Body { tokens: rest[..end].to_vec(), after: 0 });
}

/// `enum tag { A, B = 3, C }`.
fn enumerations(code: &[Token], found: &mut BTreeMap<String, Constant>) {
    for start in code.iter().enumerate().filter(|(_, token)| token.text == "enum").map(|(at, _)| at) {
        let open = [start + 1, start + 2].into_iter().find(|&at| code.get(at).is_some_and(|t| t.text == "{"));
        let Some(open) = open else { continue };
        let Some(end) = code[open..].iter().position(|token| token.text == "}") else { continue };
        let mut next = Body { tokens: Vec::new(), after: 0 };
        for one in code[open + 1..open + end].split(|token| token.text == ",") {
            let [name, rest @ ..] = one else { continue };
            if let [equals, value @ ..] = rest
                && equals.text == "="
            {
                next = Body { tokens: value.to_vec(), after: 0 };
            }
            add(found, name, next.clone());
            next.after += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patchset::FileChange;

    fn told(path: &str, before: &str, after: &str) -> Vec<String> {
        let bytes = |text: &str| Some(text.as_bytes().to_vec());
        let change = FileChange {
            before: bytes(before),
            after: bytes(after),
            executable: false,
            was_executable: false,
        };
        let changes = Changes::from([(path.to_owned(), change)]);
        let problems = changed(&changes);
        problems.0.iter().for_each(|problem| assert_eq!(problem.code, codes::PUBLIC_CONSTANT));
        problems
            .0
            .iter()
            .map(|problem| {
                format!(
                    "{}: {}",
                    problem.place.line.unwrap_or_default(),
                    problem.what.replace(" of the public headers", "")
                )
            })
            .collect()
    }

    const HEADER: &str = "xen/include/public/domctl.h";

    #[test]
    fn other_values_are_refused_with_their_lines() {
        let before = "/* 1 */\n#ifndef H\n#define H\n#define VERSION 0x14 /* why */\n# define MASK \\\n  (1U << 3)\n\
                      #define ARGS(a) ((a) + 1)\n#define TEXT \"a\"\nXEN_ERRNO(EPERM, 1)\n#endif\n";
        let after = "#ifndef H\n#define H\n#define VERSION 0x15\n# define MASK (1U << 4)\n\
                     #define ARGS(a) ((a) + 2)\n#define TEXT \"b\"\nXEN_ERRNO(EPERM, 2)\n#endif\n";
        assert_eq!(
            told(HEADER, before, after),
            [
                "5: ARGS is ( parameter 1 ) ( ( parameter 1 ) + 2 ) instead of ( parameter 1 ) ( ( parameter 1 ) + 1 )",
                "7: EPERM is 2 instead of 1",
                "4: MASK is ( 1U << 4 ) instead of ( 1U << 3 )",
                "6: TEXT is \"b\" instead of \"a\"",
                "3: VERSION is 0x15 instead of 0x14",
            ]
        );
    }

    #[test]
    fn new_names_and_other_spellings_are_none_of_it() {
        let before = "#define A 8\n#define B(x) (x)\n#define GONE 3\n#define C (A|1)\nenum e { one, two };\n";
        let after = "/* #define A 9 */\n#define A  (1u << 3)\n#define B(y) ( y ) // same\n#define NEW 4\n\
                     #define C (A |\\\n 1)\nenum e { one, two = 1, three };\n";
        assert!(told(HEADER, before, after).is_empty(), "{:?}", told(HEADER, before, after));
    }

    #[test]
    fn enumerators_that_shift_are_refused() {
        let before = "typedef enum { first, second, third = 8, fourth } t;\n";
        let after = "typedef enum { first,\n fresh, second, third = 9, fourth } t;\n";
        assert_eq!(
            told(HEADER, before, after),
            ["2: fourth is 10 instead of 9", "2: second is 2 instead of 1", "2: third is 9 instead of 8"]
        );
    }

    #[test]
    fn only_public_headers_of_this_architecture_count() {
        let (before, after) = ("#define A 1\n", "#define A 2\n");
        assert_eq!(told(HEADER, before, after), ["1: A is 2 instead of 1"]);
        assert!(told("xen/include/xen/sched.h", before, after).is_empty());
        assert!(told("xen/include/public/arch-arm.h", before, after).is_empty());
    }

    #[test]
    fn definitions_in_groups_are_compared_in_their_order() {
        let before = "#ifdef X\n#define A 1\n#else\n#define A 2\n#endif\n";
        assert_eq!(told(HEADER, before, &before.replace('2', "3")), ["2: A is 1 or 3 instead of 1 or 2"]);
        let plain = "#define A 1\n";
        assert_eq!(told(HEADER, plain, before), ["2: A is 1 or 2 instead of 1"]);
    }
}
