//! As much of C's text as constants take: lines, tokens and sums of numbers.

/// A token with its line, counted from 1.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) line: u32,
}

/// Where it stands is no part of what it says.
impl PartialEq for Token {
    fn eq(&self, other: &Token) -> bool {
        self.text == other.text
    }
}

impl Eq for Token {}

impl Token {
    pub(super) fn is_name(&self) -> bool {
        self.text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
    }
}

/// Lines without comments, continued ones joined, each with the number of its first.
pub(super) fn logical_lines(text: &str) -> Vec<(u32, String)> {
    let mut lines = Vec::new();
    let (mut line, mut first) = (1, 1);
    let mut current = String::new();
    let mut rest = text;
    let mut quote = None;
    while let Some(next) = rest.chars().next() {
        let mut taken = next.len_utf8();
        if quote.is_none() && rest.starts_with("/*") {
            taken = rest[2..].find("*/").map_or(rest.len(), |end| end + 4);
            line += lines_in(&rest[..taken]);
            current.push(' ');
        } else if quote.is_none() && rest.starts_with("//") {
            taken = rest.find('\n').unwrap_or(rest.len());
        } else if rest.starts_with("\\\n") {
            taken = 2;
            line += 1;
        } else if next == '\n' {
            lines.push((first, std::mem::take(&mut current)));
            line += 1;
            first = line;
            quote = None;
        } else {
            if next == '\\' && quote.is_some() {
                taken += rest[taken..].chars().next().map_or(0, char::len_utf8);
            } else if quote == Some(next) {
                quote = None;
            } else if quote.is_none() && matches!(next, '"' | '\'') {
                quote = Some(next);
            }
            current.push_str(&rest[..taken]);
        }
        rest = &rest[taken..];
    }
    lines.push((first, current));
    lines
}

fn lines_in(text: &str) -> u32 {
    u32::try_from(text.matches('\n').count()).unwrap_or(u32::MAX)
}

/// Names, numbers, strings, shifts and single characters.
pub(super) fn tokens(text: &str, line: u32) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let length = if word(first) {
            rest.find(|c| !word(c)).unwrap_or(rest.len())
        } else if matches!(first, '"' | '\'') {
            string_length(rest, first)
        } else if rest.starts_with("<<") || rest.starts_with(">>") {
            2
        } else {
            first.len_utf8()
        };
        tokens.push(Token { text: rest[..length].to_owned(), line });
        rest = rest[length..].trim_start();
    }
    tokens
}

fn string_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match (escaped, c) {
            (true, _) => escaped = false,
            (false, '\\') => escaped = true,
            (false, c) if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Operators by how they bind, the loosest first. None that depends on the width of a type is among them.
const OPERATORS: &[&[&str]] = &[&["|"], &["&"], &["<<", ">>"], &["+", "-"], &["*", "/"]];
/// Parentheses inside of each other.
const MAX_DEPTH: u32 = 50;

/// The value of an expression of numbers; of none it is 0, which enumerations start with.
pub(super) fn number(tokens: &[Token]) -> Option<i128> {
    if tokens.is_empty() {
        return Some(0);
    }
    let mut rest = tokens;
    let value = expression(&mut rest, 0, MAX_DEPTH)?;
    rest.is_empty().then_some(value)
}

fn expression(rest: &mut &[Token], level: usize, depth: u32) -> Option<i128> {
    let Some(operators) = OPERATORS.get(level) else { return primary(rest, depth) };
    let mut value = expression(rest, level + 1, depth)?;
    while let [operator, more @ ..] = *rest
        && operators.contains(&operator.text.as_str())
    {
        *rest = more;
        let other = expression(rest, level + 1, depth)?;
        let shift = u32::try_from(other).ok().filter(|shift| *shift < 64);
        value = match operator.text.as_str() {
            "|" => value | other,
            "&" => value & other,
            "<<" => value.checked_shl(shift?)?,
            ">>" => value.checked_shr(shift?)?,
            "+" => value.checked_add(other)?,
            "-" => value.checked_sub(other)?,
            "*" => value.checked_mul(other)?,
            _ => value.checked_div(other)?,
        };
    }
    Some(value)
}

fn primary(rest: &mut &[Token], depth: u32) -> Option<i128> {
    let [first, more @ ..] = *rest else { return None };
    *rest = more;
    if first.text == "(" {
        let value = expression(rest, 0, depth.checked_sub(1)?)?;
        let [close, more @ ..] = *rest else { return None };
        *rest = more;
        return (close.text == ")").then_some(value);
    }
    let digits = first.text.trim_end_matches(['u', 'U', 'l', 'L']);
    match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => i128::from_str_radix(hex, 16).ok(),
        None if digits.len() > 1 && digits.starts_with('0') => i128::from_str_radix(digits, 8).ok(),
        None => digits.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Option<i128> {
        number(&tokens(text, 1))
    }

    #[test]
    fn sums_of_numbers_have_a_value() {
        assert_eq!(value("(1U << 3) | 0x4"), Some(12));
        assert_eq!(value("2 + 3 * 4 - 010"), Some(6));
        assert_eq!(value(""), Some(0));
        // What depends on names, or on the width of a type, has none.
        for text in ["A + 1", "~0U", "(1", "1 << 200", "-1", "1 2"] {
            assert_eq!(value(text), None, "{text}");
        }
    }

    #[test]
    fn lines_keep_their_numbers_over_comments_and_continuations() {
        let lines = logical_lines("a /* x\n y */ b \\\n c\n\"/*\" d // e\nf");
        let words = |text: &String| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        let lines: Vec<(u32, String)> = lines.iter().map(|(line, text)| (*line, words(text))).collect();
        let expected = [(1, "a b c"), (4, "\"/*\" d"), (5, "f")];
        assert_eq!(lines, expected.map(|(line, text)| (line, text.to_owned())));
    }
}
