//! As much of C's first translation phases as it takes to know what stands between two lines.
//!
//! Follows C99 5.1.1.2 (continued lines, then comments and tokens, then directives), with what GCC does
//! besides: white space between a backslash and the end of its line is overlooked, and a string or character
//! constant that is not closed ends with its line. Trigraphs are not known, as in GCC's own dialects.

/// What a directive does to the lines behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keyword {
    /// Opens a group: `#if`, `#ifdef`, `#ifndef`.
    If,
    /// Begins another branch with a condition: `#elif` and its newer relatives.
    Elif,
    /// Begins the last branch.
    Else,
    /// Closes a group.
    Endif,
    /// Sets a line number: `#line 1`, `# 1 "f.c"`.
    Line,
    /// Nothing to groups or numbers.
    Other,
}

/// What a line holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Whether it has code: neither part of a directive nor white space and comments alone.
    pub(crate) has_code: bool,
    /// The directive that ends with this line.
    pub(crate) keyword: Option<Keyword>,
}

/// Where in the text a character stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Outside of what follows; `slash`: the last character is a slash that may begin a comment.
    Code { slash: bool },
    /// In a comment between `/*` and `*/`; `star`: the last character is a star that may end it.
    Block { star: bool },
    /// In a comment that ends with its line.
    LineComment,
    /// In a string or character constant; `escape`: the last character is a backslash.
    Quoted { quote: u8, escape: bool },
}

/// A group of `#if` that is open.
#[derive(Debug, Clone)]
struct Group {
    /// Open parentheses at its start.
    entry: usize,
    /// The most that one of its branches left open so far.
    most: usize,
    has_else: bool,
    /// Whether the branch is for assembler only.
    assembler: bool,
    /// Whether an `#else` is.
    assembler_else: bool,
}

/// Reads a C file line by line.
#[derive(Debug, Clone)]
pub(crate) struct Scanner {
    state: State,
    /// Whether the line before ended in a backslash.
    continued: bool,
    /// Whether nothing but white space and comments was met since the last line that was not continued.
    fresh: bool,
    /// The directive that is being read, without comments.
    directive: Option<String>,
    /// Parentheses that are open, outside of directives.
    open: usize,
    groups: Vec<Group>,
}

impl Scanner {
    /// At the start of a file.
    pub(crate) fn new() -> Scanner {
        Scanner {
            state: State::Code { slash: false },
            continued: false,
            fresh: true,
            directive: None,
            open: 0,
            groups: Vec::new(),
        }
    }

    /// Whether a directive may stand before the next line, and cannot end up among the arguments of a macro
    /// or in assembler code.
    pub(crate) fn is_between_tokens(&self) -> bool {
        matches!(self.state, State::Code { .. })
            && !self.continued
            && self.open == 0
            && !self.groups.iter().any(|group| group.assembler)
    }

    /// Reads the next line.
    pub(crate) fn take(&mut self, line: &[u8]) -> Seen {
        let mut seen = Seen::default();
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let trimmed = text.trim_ascii_end();
        self.continued = trimmed.ends_with(b"\\");
        let text = if self.continued { &trimmed[..trimmed.len() - 1] } else { text };
        for &byte in text {
            self.byte(byte, &mut seen);
        }
        if !self.continued {
            self.end_of_line(&mut seen);
        }
        seen
    }

    fn byte(&mut self, byte: u8, seen: &mut Seen) {
        match self.state {
            State::Block { star } => {
                self.state = if star && byte == b'/' {
                    State::Code { slash: false }
                } else {
                    State::Block { star: byte == b'*' }
                };
            }
            State::LineComment => {}
            State::Quoted { quote, escape } => {
                self.state = if byte == quote && !escape {
                    State::Code { slash: false }
                } else {
                    State::Quoted { quote, escape: byte == b'\\' && !escape }
                };
                self.token(byte, seen);
            }
            State::Code { slash: true } if byte == b'*' || byte == b'/' => {
                self.state = if byte == b'*' { State::Block { star: false } } else { State::LineComment };
                self.space();
            }
            State::Code { slash } => {
                if slash {
                    self.token(b'/', seen);
                }
                self.code(byte, seen);
            }
        }
    }

    /// A byte that is no part of a comment or constant, or begins one.
    fn code(&mut self, byte: u8, seen: &mut Seen) {
        self.state = State::Code { slash: byte == b'/' };
        if byte == b'/' {
            return;
        }
        if byte.is_ascii_whitespace() {
            self.space();
        } else if byte == b'#' && self.fresh {
            self.fresh = false;
            self.directive = Some(String::new());
        } else {
            if matches!(byte, b'"' | b'\'') {
                self.state = State::Quoted { quote: byte, escape: false };
            }
            if self.directive.is_none() {
                match byte {
                    b'(' => self.open += 1,
                    b')' => self.open = self.open.saturating_sub(1),
                    _ => {}
                }
            }
            self.token(byte, seen);
        }
    }

    fn space(&mut self) {
        if let Some(text) = &mut self.directive {
            text.push(' ');
        }
    }

    fn token(&mut self, byte: u8, seen: &mut Seen) {
        self.fresh = false;
        match &mut self.directive {
            Some(text) => text.push(char::from(byte)),
            None => seen.has_code = true,
        }
    }

    fn end_of_line(&mut self, seen: &mut Seen) {
        match self.state {
            // The line ends, and the comment goes on; so does a directive around it.
            State::Block { .. } => {
                self.state = State::Block { star: false };
                self.space();
                return;
            }
            State::Code { slash: true } => self.token(b'/', seen),
            _ => {}
        }
        self.state = State::Code { slash: false };
        self.fresh = true;
        if let Some(text) = self.directive.take() {
            let keyword = keyword(&text);
            self.group(keyword, &text);
            seen.keyword = Some(keyword);
        }
    }

    /// Keeps track of groups: each branch begins as the group did, and behind it the branch counts that
    /// leaves most open.
    fn group(&mut self, keyword: Keyword, text: &str) {
        let (mentions, negated) = assembler(text);
        match keyword {
            Keyword::If => self.groups.push(Group {
                entry: self.open,
                most: 0,
                has_else: false,
                assembler: mentions && !negated,
                assembler_else: mentions && negated,
            }),
            Keyword::Elif | Keyword::Else => {
                if let Some(group) = self.groups.last_mut() {
                    group.most = group.most.max(self.open);
                    self.open = group.entry;
                    group.has_else |= keyword == Keyword::Else;
                    group.assembler = group.assembler_else || mentions && !negated;
                }
            }
            Keyword::Endif => {
                if let Some(group) = self.groups.pop() {
                    let without = if group.has_else { 0 } else { group.entry };
                    self.open = self.open.max(group.most).max(without);
                }
            }
            Keyword::Line | Keyword::Other => {}
        }
    }
}

fn keyword(text: &str) -> Keyword {
    let text = text.trim_start();
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    match &text[..end] {
        "if" | "ifdef" | "ifndef" => Keyword::If,
        "elif" | "elifdef" | "elifndef" => Keyword::Elif,
        "else" => Keyword::Else,
        "endif" => Keyword::Endif,
        "line" => Keyword::Line,
        word if word.starts_with(|c: char| c.is_ascii_digit()) => Keyword::Line,
        _ => Keyword::Other,
    }
}

/// Whether a condition asks for assembler, and whether it asks for anything else. Xen's headers mark it by
/// `__ASSEMBLY__`, from 4.21 on by `__ASSEMBLER__`.
fn assembler(condition: &str) -> (bool, bool) {
    let mentions = ["__ASSEMBLY__", "__ASSEMBLER__"].iter().any(|name| condition.contains(name));
    (mentions, condition.trim_start().starts_with("ifndef") || condition.contains('!'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Before which lines, counted from 1, a directive may stand; and which have code.
    fn places(text: &str) -> (Vec<usize>, Vec<usize>) {
        let mut scanner = Scanner::new();
        let (mut legal, mut code) = (Vec::new(), Vec::new());
        for (index, line) in text.split_inclusive('\n').enumerate() {
            if scanner.is_between_tokens() {
                legal.push(index + 1);
            }
            if scanner.take(line.as_bytes()).has_code {
                code.push(index + 1);
            }
        }
        (legal, code)
    }

    #[test]
    fn comments_continued_lines_and_parentheses_are_closed_to_directives() {
        for (text, legal, code) in [
            ("a;\n/* b\n c */ d;\ne;\n", &[1, 2, 4][..], &[1, 3, 4][..]),
            ("#define A(x) \\\n  f(x, \\\n  1)\nb;\n", &[1, 4], &[4]),
            ("#define A \\   \n  1\nb;\n", &[1, 3], &[3]),
            ("f(a,\n  b,\n  ({ c; }));\nd;\n", &[1, 4], &[1, 2, 3, 4]),
            ("f(\"(\\\"\", '(', '\\'');\nd;\n", &[1, 2], &[1, 2]),
            ("s = \"x\\\n(\";\nd;\n", &[1, 3], &[1, 2, 3]),
            ("// (\\\n (\nb;\n", &[1, 3], &[3]),
            ("/\\\n* (\n*\\\n/ a;\nb;\n", &[1, 5], &[4, 5]),
            ("#if X // (\n#else /*\n*/\n#endif\na / b;\n", &[1, 2, 4, 5], &[5]),
            ("a /* \n */ # b\nc;\n", &[1, 3], &[1, 2, 3]),
            ("/* \n */ # define b (\nc;\n", &[1, 3], &[3]),
            ("#error don't (\n'x\nc;\n", &[1, 2, 3], &[2, 3]),
        ] {
            assert_eq!(places(text), (legal.to_vec(), code.to_vec()), "{text}");
        }
    }

    #[test]
    fn branches_begin_alike_and_the_most_open_one_counts() {
        let text = "#ifdef A\nif ( a(b,\n#else\nif ( b(\n#endif\n c) )\n#if B\n f(\n#endif\n d)\n;\n";
        assert_eq!(places(text).0, [1, 2, 4, 7, 8, 11]);
        let text = "#ifndef X\nf(\n#else\nf(x\n#endif\n)\ng;\n";
        assert_eq!(places(text).0, [1, 2, 4, 7]);
    }

    #[test]
    fn code_for_assembler_only_is_closed_to_directives() {
        let text = "#ifndef __ASSEMBLY__\na;\n#else\n.macro b\n#endif\nc;\n";
        assert_eq!(places(text).0, [1, 2, 3, 6]);
        let text = "#ifdef __ASSEMBLER__\n.macro a\n#if X\n b\n#endif\n#else\nc;\n#endif\nd;\n";
        assert_eq!(places(text).0, [1, 7, 8, 9]);
        let text = "#if !defined(__ASSEMBLY__) && X\na;\n#endif\nb;\n";
        assert_eq!(places(text).0, [1, 2, 3, 4]);
    }

    #[test]
    fn directives_are_known_by_their_first_word() {
        for (text, keyword) in [
            ("#if(X)\n", Keyword::If),
            (" # /* x */ ifdef X\n", Keyword::If),
            ("#elif X\n", Keyword::Elif),
            ("#else\n", Keyword::Else),
            ("#endif//x\n", Keyword::Endif),
            ("#line 5\n", Keyword::Line),
            ("# 5 \"f\"\n", Keyword::Line),
            ("#include \"if\"\n", Keyword::Other),
            ("#\n", Keyword::Other),
            ("#define if\n", Keyword::Other),
        ] {
            assert_eq!(Scanner::new().take(text.as_bytes()).keyword, Some(keyword), "{text}");
        }
        assert_eq!(Scanner::new().take(b"a #if\n").keyword, None);
    }
}
