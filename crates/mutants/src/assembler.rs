//! Changes of inline assembler and of alternatives.

use crate::clean::quoted_end;

/// One change in a piece of inline assembler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Bytes from the start of the piece.
    pub range: std::ops::Range<usize>,
    /// What is to stand there.
    pub after: &'static str,
    /// Whether the piece is or holds an alternative.
    pub alternative: bool,
}

/// Instructions, each with one that takes the same operands.
const PAIRS: &[(&str, &str)] = &[
    ("lfence", "mfence"),
    ("mfence", "lfence"),
    ("stac", "clac"),
    ("clac", "stac"),
    ("add", "sub"),
    ("sub", "add"),
    ("addl", "subl"),
    ("addq", "subq"),
    ("adc", "sbb"),
    ("inc", "dec"),
    ("incl", "decl"),
    ("decl", "incl"),
    ("incq", "decq"),
    ("and", "or"),
    ("or", "and"),
    ("xor", "or"),
    ("xorl", "orl"),
    ("andl", "orl"),
    ("orl", "andl"),
    ("shl", "shr"),
    ("shr", "shl"),
    ("bts", "btr"),
    ("btr", "bts"),
    ("btsl", "btrl"),
    ("btrl", "btsl"),
    ("btcl", "btsl"),
    ("bsf", "bsr"),
    ("bsr", "bsf"),
    ("jz", "jnz"),
    ("jnz", "jz"),
    ("jc", "jnc"),
    ("cmove", "cmovne"),
    ("cmovz", "cmovnz"),
    ("setc", "setnc"),
    ("sti", "cli"),
    ("cli", "sti"),
    ("pushfq", "pushq $0"),
    ("movl", "addl"),
    ("movq", "addq"),
    ("mov", "add"),
    ("clflush", "prefetchnta"),
    ("pause", "nop"),
    ("rdtsc", "rdpmc"),
    ("wbinvd", "invd"),
    ("cld", "std"),
    ("hlt", "nop"),
    ("nop", "pause"),
    ("movsb", "stosb"),
    ("movsq", "stosq"),
    ("stosb", "movsb"),
    ("stosq", "movsq"),
];

/// All changes in the text of one `asm ( ... )` or `alternative(...)`.
pub fn changes(text: &[u8]) -> Vec<Change> {
    let shown = String::from_utf8_lossy(text);
    let alternative = shown.starts_with("alternative") || shown.contains("ALTERNATIVE");
    let mut found = Vec::new();
    let mut at = 0;
    // Constraints stand behind the first colon outside of strings and parentheses: no instructions there.
    let mut depth = 0usize;
    let mut in_template = true;
    while at < text.len() {
        match text[at] {
            b'"' => {
                let end = quoted_end(text, at);
                if in_template {
                    instructions(text, at + 1, end.saturating_sub(1), alternative, &mut found);
                }
                at = end;
                continue;
            }
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b':' if depth <= 1 => in_template = false,
            c if c.is_ascii_alphabetic() || c == b'_' => {
                let end = word_end(text, at);
                if let Ok(word) = std::str::from_utf8(&text[at..end])
                    && (word.starts_with("X86_FEATURE_") || word.starts_with("X86_BUG_"))
                    && in_template
                {
                    let after =
                        if word == "X86_FEATURE_SMEP" { "X86_FEATURE_XSAVE" } else { "X86_FEATURE_SMEP" };
                    found.push(Change { range: at..end, after, alternative });
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

fn word_end(text: &[u8], from: usize) -> usize {
    let is_word = |c: &u8| c.is_ascii_alphanumeric() || *c == b'_';
    text[from..].iter().position(|c| !is_word(c)).map_or(text.len(), |n| from + n)
}

/// Words of a string that start an instruction.
fn instructions(text: &[u8], from: usize, end: usize, alternative: bool, found: &mut Vec<Change>) {
    let mut at = from;
    while at < end {
        if text[at] == b'\\' {
            at += 2;
            continue;
        }
        if !text[at].is_ascii_alphabetic() {
            at += 1;
            continue;
        }
        let stop = word_end(text, at).min(end);
        let word = std::str::from_utf8(&text[at..stop]).unwrap_or("");
        let preceded = at > from && matches!(text[at - 1], b'%' | b'.' | b'$' | b'_' | b'[' | b'(');
        let followed = text.get(stop).is_some_and(|c| matches!(c, b'.' | b']' | b':'));
        if !preceded
            && !followed
            && let Some((_, after)) = PAIRS.iter().find(|(before, _)| *before == word)
        {
            found.push(Change { range: at..stop, after, alternative });
        }
        at = stop;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<(&str, &str)> {
        changes(text.as_bytes()).into_iter().map(|change| (&text[change.range], change.after)).collect()
    }

    #[test]
    fn instructions_and_features_are_found_and_operands_are_not() {
        assert_eq!(
            words(
                r#"asm volatile ( "1: mov %%add, %[sub]\n\tadd $1, %0" : "=r" (or) : "0" (X86_FEATURE_A) )"#
            ),
            [("mov", "add"), ("add", "sub")]
        );
        assert_eq!(
            words(r#"alternative("", "lfence", X86_FEATURE_SC)"#),
            [("lfence", "mfence"), ("X86_FEATURE_SC", "X86_FEATURE_SMEP")]
        );
        assert!(changes(br#"asm ( ALTERNATIVE("", "clac", X86_FEATURE_A) )"#)[0].alternative);
    }
}
