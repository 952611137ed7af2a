//! C sources made fit for a grammar that does not know Xen's macros.
//!
//! Words that stand for attributes, and inline assembler, become blanks; every other byte stays where it is, so
//! that places in the cleaned text are places in the source.

/// Words that expand to attributes or to nothing (xen/include/xen/{compiler,init,cache,lib}.h and
/// asm/{cache,config}.h, 4.13 to 4.22).
const ATTRIBUTES: &[&str] = &[
    "__init",
    "__exit",
    "__initdata",
    "__initconst",
    "__initconstrel",
    "__initdata_cf_clobber",
    "__initconst_cf_clobber",
    "__hwdom_init",
    "__hwdom_initdata",
    "cf_check",
    "always_inline",
    "noinline",
    "__inline__",
    "__read_mostly",
    "__ro_after_init",
    "__must_check",
    "__maybe_unused",
    "__used",
    "__cold",
    "__packed",
    "__cacheline_aligned",
    "__cacheline_aligned_in_smp",
    "noreturn",
    "__pure",
    "__const",
    "__attribute_pure__",
    "__aligned",
    "__section",
    "__attribute__",
    "__stringify_1",
];

/// What is found while cleaning.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Clean {
    /// The cleaned text, as long as the source.
    pub text: Vec<u8>,
    /// Where inline assembler and uses of alternatives stand: from the word to the closing parenthesis.
    pub assembler: Vec<std::ops::Range<usize>>,
}

/// Cleans a source.
pub fn clean(source: &[u8]) -> Clean {
    let mut text = source.to_vec();
    blank_comments(&mut text);
    let mut assembler = Vec::new();
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'"' | b'\'' => at = quoted_end(&text, at),
            b'#' if at_line_start(&text, at) => at = directive_end(&text, at),
            c if is_word(c) => {
                let end = word_end(&text, at);
                let word = String::from_utf8_lossy(&text[at..end]).into_owned();
                let whole = call_end(&text, end);
                if ATTRIBUTES.contains(&word.as_str()) {
                    let end = match word.as_str() {
                        "__attribute__" | "__section" | "__aligned" => whole.unwrap_or(end),
                        _ => end,
                    };
                    blank(&mut text, at, end);
                    at = end;
                } else if matches!(word.as_str(), "asm" | "__asm__" | "asm_inline")
                    && let Some(whole) = asm_end(&text, end)
                {
                    assembler.push(at..whole);
                    blank(&mut text, at, whole);
                    at = whole;
                } else if is_alternative(&word)
                    && let Some(whole) = whole
                {
                    assembler.push(at..whole);
                    at = end;
                } else {
                    at = end;
                }
            }
            _ => at += 1,
        }
    }
    Clean { text, assembler }
}

/// Xen's macros that patch code at boot (xen/arch/x86/include/asm/alternative.h).
fn is_alternative(word: &str) -> bool {
    word.starts_with("alternative")
        && !word.starts_with("alternative_v")
        && !word.starts_with("alternative_call")
        || word.starts_with("ALTERNATIVE")
}

fn is_word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || c == b'_'
}

fn word_end(text: &[u8], from: usize) -> usize {
    text[from..].iter().position(|&c| !is_word(c)).map_or(text.len(), |length| from + length)
}

fn blank(text: &mut [u8], from: usize, end: usize) {
    for c in &mut text[from..end] {
        if *c != b'\n' {
            *c = b' ';
        }
    }
}

fn blank_comments(text: &mut [u8]) {
    let mut at = 0;
    while at < text.len() {
        if matches!(text[at], b'"' | b'\'') {
            at = quoted_end(text, at);
        } else if text[at..].starts_with(b"/*") {
            let rest = &text[at + 2..];
            let length = rest.windows(2).position(|pair| pair == b"*/").map_or(rest.len(), |n| n + 2);
            blank(text, at, at + 2 + length);
            at += 2 + length;
        } else if text[at..].starts_with(b"//") {
            let end = text[at..].iter().position(|&c| c == b'\n').map_or(text.len(), |n| at + n);
            blank(text, at, end);
            at = end;
        } else {
            at += 1;
        }
    }
}

/// The end of a string or character constant that starts at `from`; the end of the line where it is not closed.
pub(crate) fn quoted_end(text: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while at < text.len() {
        match text[at] {
            b'\\' => at += 2,
            b'\n' => return at,
            c if c == text[from] => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

fn at_line_start(text: &[u8], at: usize) -> bool {
    text[..at].iter().rev().take_while(|&&c| c != b'\n').all(|c| c.is_ascii_whitespace())
}

fn directive_end(text: &[u8], from: usize) -> usize {
    let mut at = from;
    while at < text.len() {
        match text[at] {
            b'\\' if text.get(at + 1) == Some(&b'\n') => at += 2,
            b'\n' => return at,
            _ => at += 1,
        }
    }
    at
}

/// The end of the parentheses that follow a word, if any do.
fn call_end(text: &[u8], from: usize) -> Option<usize> {
    let open = text[from..].iter().position(|c| !c.is_ascii_whitespace()).map(|n| from + n)?;
    if text[open] != b'(' {
        return None;
    }
    let (mut at, mut depth) = (open, 0usize);
    while at < text.len() {
        match text[at] {
            b'"' | b'\'' => {
                at = quoted_end(text, at);
                continue;
            }
            b'(' => depth += 1,
            b')' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// As [`call_end`], with `volatile` and `goto` in between.
fn asm_end(text: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        if let Some(end) = call_end(text, at) {
            return Some(end);
        }
        let start = text[at..].iter().position(|c| !c.is_ascii_whitespace()).map(|n| at + n)?;
        let end = word_end(text, start);
        match &text[start..end] {
            b"volatile" | b"__volatile__" | b"goto" | b"inline" => at = end,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_comments_and_assembler_become_blanks_in_place() {
        let source =
            b"static int __init f(void) /* c */\n{ asm volatile ( \"a)\" : : \"r\" (x) ); g(\"__init\"); }";
        let clean = clean(source);
        assert_eq!(clean.text.len(), source.len());
        let text = String::from_utf8(clean.text).unwrap();
        assert_eq!(
            text.split_whitespace().collect::<Vec<_>>().join(" "),
            "static int f(void) { ; g(\"__init\"); }"
        );
        assert_eq!(clean.assembler.len(), 1);
        assert!(source[clean.assembler[0].clone()].ends_with(b"(x) )"));
    }

    #[test]
    fn alternatives_stay_and_directives_are_passed_over() {
        let source = b"#define A asm(\"x\") \\\n  asm(\"y\")\nvoid f(void) { alternative(\"\", \"lfence\", X86_FEATURE_A); }";
        let clean = clean(source);
        assert_eq!(clean.text, source);
        assert_eq!(clean.assembler.len(), 1);
    }
}
