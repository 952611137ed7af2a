//! Whether two preprocessed texts are the same program: token by token, whatever line they stand on.
//!
//! A compiler makes the same code of the same tokens. Two things that it makes of more than tokens are looked for:
//! built-in functions that stand for a place (`__builtin_LINE`, `__builtin_FILE`; `__LINE__` is a number by now), and
//! files that the assembler reads by itself.

/// Words of a text that bring in something which is not in the text.
const PLACES: &[&[u8]] = &[b"__builtin_LINE", b"__builtin_FILE", b"__builtin_source_location"];
/// Directives of the assembler that read files.
const READS: &[&[u8]] = &[b".include", b".incbin"];

/// What is compared of a text.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Tokens {
    /// BLAKE3 of the tokens.
    pub(crate) hash: String,
    /// Whether it names the place where it stands.
    pub(crate) names_places: bool,
    /// The files that the assembler reads besides, without folders, sorted; an empty name for one that is not clear.
    pub(crate) reads: Vec<String>,
}

/// Reads a C text as the preprocessor wrote it (`-E`; GCC's documentation, "Preprocessor Output").
///
/// Lines of the form `# NUMBER "FILE" FLAGS` say where the next one came from, and are left out; other lines that
/// begin with `#` are directives, and end with their line. Elsewhere any space between tokens is one space.
pub(crate) fn tokens(text: &[u8]) -> Tokens {
    let mut kept = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let words = line.trim_ascii();
        if let Some(rest) = words.strip_prefix(b"#") {
            if !rest.trim_ascii_start().first().is_some_and(u8::is_ascii_digit) {
                kept.push(b'\n');
                kept.extend_from_slice(words);
                kept.push(b'\n');
            }
        } else if !words.is_empty() {
            squeeze(words, &mut kept);
            kept.push(b' ');
        }
    }
    let holds = |words: &[&[u8]]| words.iter().any(|word| find(&kept, word).is_some());
    Tokens {
        hash: blake3::hash(&kept).to_hex().to_string(),
        names_places: holds(PLACES),
        reads: read_by_assembler(&kept),
    }
}

/// The names behind the assembler's directives that read files, in C (`".include \"x.h\""`) or assembler.
fn read_by_assembler(text: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    for word in READS {
        let mut rest = text;
        while let Some(at) = find(rest, word) {
            rest = &rest[at + word.len()..];
            let words = rest.trim_ascii_start();
            let quoted = words.strip_prefix(b"\\\"").or_else(|| words.strip_prefix(b"\""));
            let name = quoted.and_then(|name| {
                let end = name.iter().position(|byte| matches!(byte, b'"' | b'\\' | b'\n'))?;
                std::str::from_utf8(&name[..end]).ok()
            });
            let name = name.unwrap_or_default();
            names.push(name.rsplit('/').next().unwrap_or_default().to_owned());
        }
    }
    names.sort();
    names.dedup();
    names
}

/// Reads a text of whatever kind: BLAKE3 of its lines, those left out that are empty or say where the next one came
/// from. Unlike C, assembler and lists know where a line ends.
pub(crate) fn lines(text: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    for line in text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii) {
        let marker = line.strip_prefix(b"#").map(<[u8]>::trim_ascii_start);
        if !line.is_empty() && !marker.is_some_and(|rest| rest.first().is_some_and(u8::is_ascii_digit)) {
            hasher.update(line).update(b"\n");
        }
    }
    hasher.finalize().to_hex().to_string()
}

/// Appends a line with each run of spaces outside quotes as one space.
fn squeeze(line: &[u8], kept: &mut Vec<u8>) {
    let mut quote = None;
    let mut escaped = false;
    for &byte in line {
        if let Some(end) = quote {
            kept.push(byte);
            if escaped {
                escaped = false;
            } else if byte == b'\\' {
                escaped = true;
            } else if byte == end {
                quote = None;
            }
        } else if byte.is_ascii_whitespace() {
            if kept.last() != Some(&b' ') {
                kept.push(b' ');
            }
        } else {
            if byte == b'"' || byte == b'\'' {
                quote = Some(byte);
            }
            kept.push(byte);
        }
    }
}

/// Where a word begins.
fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = text[from..].iter().position(|&byte| byte == word[0]) {
        from += at;
        if text[from..].starts_with(word) {
            return Some(from);
        }
        from += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn same(one: &str, other: &str) -> bool {
        tokens(one.as_bytes()) == tokens(other.as_bytes())
    }

    #[test]
    fn places_and_spaces_do_not_count() {
        assert!(same(
            "# 1 \"a.c\"\nint  f(void)\n{ return 1; }\n",
            "# 7 \"a.c\" 2 3\n\n\nint f(void) {\n    return\t1; }"
        ));
        assert!(same("a b\n", "a\nb"));
    }

    #[test]
    fn tokens_count_and_so_does_what_stands_in_quotes() {
        assert!(!same("int a;", "int b;"));
        assert!(!same("a b", "ab"));
        assert!(!same("f(\"a  b\")", "f(\"a b\")"));
        assert!(!same("'  '", "' '"));
        assert!(!same("\"\\\"  \"", "\"\\\" \""));
        // A quote that an escape keeps from ending does not end: what follows is still inside.
        assert!(same("\"\\\\\"  x", "\"\\\\\" x"));
    }

    #[test]
    fn directives_count_with_their_line() {
        assert!(!same("#pragma pack(1)\nint a;", "int a;"));
        assert!(!same("#pragma pack(1)\nint a;", "#pragma pack(2)\nint a;"));
        assert!(!same("#pragma a\nb", "#pragma a b"));
        assert!(same(
            "x\n#pragma GCC visibility push(hidden)\ny",
            "x\n\n  #pragma GCC visibility push(hidden)\n# 3 \"f\"\ny"
        ));
    }

    #[test]
    fn other_texts_know_where_a_line_ends() {
        assert_eq!(lines(b"# 1 \"a.S\"\n\tnop\n\nret\n"), lines(b"nop\n# 3 \"a.S\" 2\n\n\nret"));
        assert_ne!(lines(b"nop # x\nlfence"), lines(b"nop # x lfence"));
        assert_ne!(lines(b"a b"), lines(b"a\nb"));
        assert_ne!(lines(b"#APP\nret"), lines(b"ret"));
    }

    #[test]
    fn what_is_more_than_tokens_is_seen() {
        assert!(tokens(b"int l = __builtin_LINE();").names_places);
        assert_eq!(tokens(b"asm(\".include \\\"d/x.h\\\"\");").reads, ["x.h"]);
        assert_eq!(tokens(b".incbin \"x\"\n.include \"a/b.h\"\n").reads, ["b.h", "x"]);
        assert_eq!(tokens(b"asm(\".include \" NAME);").reads, [""]);
        let plain = tokens(b"int l = __builtin_expect(1, 1);");
        assert!(!plain.names_places && plain.reads.is_empty());
    }

    proptest! {
        /// Lines may be broken and joined, and markers put between, at any space outside quotes; any token that
        /// changes is seen.
        #[test]
        fn only_tokens_count(words in prop::collection::vec("[a-z0-9(){};+*]{1,6}|\"[ a-z]{0,4}\"", 1..40), gaps in prop::collection::vec(0..4usize, 40), changed in any::<prop::sample::Index>()) {
            let gap = |kind: usize| [" ", "\n", " \t ", "\n# 12 \"x.c\" 2\n"][kind];
            let plain = words.join(" ");
            let mut spread = String::new();
            for (word, kind) in words.iter().zip(&gaps) {
                spread.push_str(word);
                spread.push_str(gap(*kind));
            }
            prop_assert!(same(&plain, &spread));
            let mut other = words.clone();
            let index = changed.index(other.len());
            other[index].insert(0, 'Q');
            prop_assert!(!same(&plain, &other.join(" ")));
        }
    }
}
