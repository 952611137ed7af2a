//! One-token changes of a C source.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tree_sitter::{Node, Parser};

use crate::assembler;
use crate::clean::{Clean, clean};
use crate::random::Random;

/// What is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `<` becomes `<=`, `==` becomes `!=`, and the like.
    Comparison,
    /// `&&` becomes `||` and the reverse.
    Logic,
    /// An arithmetic or assignment operator.
    Operator,
    /// A condition is negated.
    Condition,
    /// An integer constant in an expression.
    Constant,
    /// An integer constant or truth value that is an argument of a call.
    Argument,
    /// One letter of a string in a function.
    String,
    /// An entry of a constant table.
    Table,
    /// A field of a constant structure.
    Field,
    /// The initial value of writable data.
    Data,
    /// The feature or an instruction of an alternative.
    Alternative,
    /// An instruction of other inline assembler.
    Assembler,
}

impl Kind {
    /// All kinds, in the order in which mutants of them are drawn.
    pub const ALL: [Kind; 12] = [
        Kind::Comparison,
        Kind::Logic,
        Kind::Operator,
        Kind::Condition,
        Kind::Constant,
        Kind::Argument,
        Kind::String,
        Kind::Table,
        Kind::Field,
        Kind::Data,
        Kind::Alternative,
        Kind::Assembler,
    ];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Comparison => "comparison",
            Kind::Logic => "logic",
            Kind::Operator => "operator",
            Kind::Condition => "condition",
            Kind::Constant => "constant",
            Kind::Argument => "call argument",
            Kind::String => "string",
            Kind::Table => "const table",
            Kind::Field => "const structure",
            Kind::Data => "writable data",
            Kind::Alternative => "alternative",
            Kind::Assembler => "inline assembler",
        }
    }
}

/// What holds the changed token.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holder {
    /// A function, by name.
    Function(String),
    /// A variable of the file, by name.
    Data(String),
}

impl Holder {
    /// The name.
    pub fn name(&self) -> &str {
        match self {
            Holder::Function(name) | Holder::Data(name) => name,
        }
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mutant {
    /// The source, relative to the tree.
    pub file: String,
    /// Bytes from the start of the file.
    pub start: usize,
    /// Bytes from the start of the file, one past the last.
    pub end: usize,
    /// What is changed.
    pub kind: Kind,
    /// Counted from 1.
    pub line: usize,
    /// What holds the token.
    pub holder: Holder,
    /// The token.
    pub before: String,
    /// What stands there afterwards.
    pub after: String,
}

impl Mutant {
    /// The source with the change.
    pub fn apply(&self, source: &[u8]) -> Vec<u8> {
        let mut changed = source[..self.start].to_vec();
        changed.extend_from_slice(self.after.as_bytes());
        changed.extend_from_slice(&source[self.end..]);
        changed
    }
}

/// All changes that can be made to a source, in order of place. `random` chooses among the letters of a string.
pub fn mutants(file: &str, source: &[u8], random: &mut Random) -> Vec<Mutant> {
    let cleaned = clean(source);
    let mut parser = Parser::new();
    let language = tree_sitter_c::LANGUAGE.into();
    if parser.set_language(&language).is_err() {
        return Vec::new();
    }
    let Some(tree) = parser.parse(&cleaned.text, None) else { return Vec::new() };
    let mut finder = Finder { file, source, cleaned: &cleaned, random, found: BTreeSet::new() };
    finder.top_level(tree.root_node());
    finder.found.into_iter().collect()
}

/// Where a walk is.
#[derive(Clone)]
struct Within {
    holder: Holder,
    /// Set in initialisers: the kind that a constant there has.
    initialiser: Option<Kind>,
}

struct Finder<'a> {
    file: &'a str,
    source: &'a [u8],
    cleaned: &'a Clean,
    random: &'a mut Random,
    found: BTreeSet<Mutant>,
}

impl<'a> Finder<'a> {
    fn text(&self, node: Node<'_>) -> &'a str {
        std::str::from_utf8(&self.source[node.byte_range()]).unwrap_or("")
    }

    fn add(&mut self, kind: Kind, range: std::ops::Range<usize>, after: impl Into<String>, within: &Within) {
        let Ok(before) = std::str::from_utf8(&self.source[range.clone()]) else { return };
        let after = after.into();
        if before == after {
            return;
        }
        let line = 1 + self.source[..range.start].iter().filter(|&&c| c == b'\n').count();
        self.found.insert(Mutant {
            file: self.file.to_owned(),
            start: range.start,
            end: range.end,
            kind,
            line,
            holder: within.holder.clone(),
            before: before.to_owned(),
            after,
        });
    }

    /// Functions and variables of a file, inside `#if` as well.
    fn top_level(&mut self, node: Node<'_>) {
        let mut cursor = node.walk();
        for child in node.named_children(&mut cursor) {
            match child.kind() {
                "function_definition" => self.function(child),
                "declaration" => self.declaration(child, None),
                kind if kind.starts_with("preproc_if")
                    || kind.starts_with("preproc_el")
                    || kind == "linkage_specification" =>
                {
                    self.top_level(child);
                }
                _ => {}
            }
        }
    }

    fn function(&mut self, node: Node<'_>) {
        let (Some(declarator), Some(body)) =
            (node.child_by_field_name("declarator"), node.child_by_field_name("body"))
        else {
            return;
        };
        let Some(name) = declared_name(declarator) else { return };
        let within = Within { holder: Holder::Function(self.text(name).to_owned()), initialiser: None };
        self.walk(body, &within);
        let pieces: Vec<_> = self
            .cleaned
            .assembler
            .iter()
            .filter(|range| body.start_byte() <= range.start && range.end <= body.end_byte())
            .cloned()
            .collect();
        for range in pieces {
            self.assembler(range, &within);
        }
    }

    fn assembler(&mut self, range: std::ops::Range<usize>, within: &Within) {
        for change in assembler::changes(&self.source[range.clone()]) {
            let kind = if change.alternative { Kind::Alternative } else { Kind::Assembler };
            let place = range.start + change.range.start..range.start + change.range.end;
            self.add(kind, place, change.after, within);
        }
    }

    /// A declaration with initialisers: of the file, or a static one of a function.
    fn declaration(&mut self, node: Node<'_>, function: Option<&Within>) {
        let head = match node.child_by_field_name("declarator") {
            Some(first) => &self.source[node.start_byte()..first.start_byte()],
            None => return,
        };
        let head = String::from_utf8_lossy(head).into_owned();
        let is = |word: &str| head.split_whitespace().any(|other| other == word);
        let mut cursor = node.walk();
        for child in node.children_by_field_name("declarator", &mut cursor) {
            if child.kind() != "init_declarator" {
                continue;
            }
            let (Some(declarator), Some(value)) =
                (child.child_by_field_name("declarator"), child.child_by_field_name("value"))
            else {
                continue;
            };
            let Some(name) = declared_name(declarator) else { continue };
            let constant = is("const") || self.text(declarator).contains("const");
            let array = self.text(declarator).contains('[');
            let kind = match (constant, array) {
                (true, true) => Kind::Table,
                (true, false) => Kind::Field,
                (false, _) => Kind::Data,
            };
            let within = match function {
                Some(within) if is("static") => Within { initialiser: Some(kind), ..within.clone() },
                Some(within) => within.clone(),
                None => Within { holder: Holder::Data(self.text(name).to_owned()), initialiser: Some(kind) },
            };
            self.walk(value, &within);
        }
    }

    fn walk(&mut self, node: Node<'_>, within: &Within) {
        match node.kind() {
            "ERROR" => return,
            "declaration" => {
                self.declaration(node, Some(within));
                return;
            }
            "binary_expression" => self.binary(node, within),
            "assignment_expression" | "update_expression" => self.assignment(node, within),
            "if_statement" | "while_statement" | "do_statement" => self.condition(node, within),
            "number_literal" => self.number(node, within),
            "true" | "false" => self.truth(node, within),
            "string_literal" => self.string(node, within),
            // Labels of a switch, sizes and offsets are types' business or do not compile.
            "sizeof_expression" | "offsetof_expression" | "type_descriptor" | "array_declarator" => return,
            kind if kind.starts_with("preproc_def")
                || kind == "preproc_include"
                || kind == "preproc_call" =>
            {
                return;
            }
            _ => {}
        }
        let mut cursor = node.walk();
        for child in node.named_children(&mut cursor) {
            self.walk(child, within);
        }
    }

    fn binary(&mut self, node: Node<'_>, within: &Within) {
        let Some(operator) = node.child_by_field_name("operator") else { return };
        let (kind, after) = match self.text(operator) {
            "<" => (Kind::Comparison, "<="),
            "<=" => (Kind::Comparison, "<"),
            ">" => (Kind::Comparison, ">="),
            ">=" => (Kind::Comparison, ">"),
            "==" => (Kind::Comparison, "!="),
            "!=" => (Kind::Comparison, "=="),
            "&&" => (Kind::Logic, "||"),
            "||" => (Kind::Logic, "&&"),
            "+" => (Kind::Operator, "-"),
            "-" => (Kind::Operator, "+"),
            "*" => (Kind::Operator, "+"),
            "/" => (Kind::Operator, "*"),
            "%" => (Kind::Operator, "/"),
            "&" => (Kind::Operator, "|"),
            "|" => (Kind::Operator, "&"),
            "^" => (Kind::Operator, "|"),
            "<<" => (Kind::Operator, ">>"),
            ">>" => (Kind::Operator, "<<"),
            _ => return,
        };
        self.add(within.initialiser.unwrap_or(kind), operator.byte_range(), after, within);
    }

    fn assignment(&mut self, node: Node<'_>, within: &Within) {
        let Some(operator) = node.child_by_field_name("operator") else { return };
        let after = match self.text(operator) {
            "+=" => "-=",
            "-=" => "+=",
            "|=" => "&=",
            "&=" => "|=",
            "<<=" => ">>=",
            ">>=" => "<<=",
            "++" => "--",
            "--" => "++",
            _ => return,
        };
        self.add(Kind::Operator, operator.byte_range(), after, within);
    }

    fn condition(&mut self, node: Node<'_>, within: &Within) {
        let Some(condition) = node.child_by_field_name("condition") else { return };
        let text = self.text(condition);
        // `do ... while ( 0 )` is no condition; one that assigns would need more parentheses.
        if condition.has_error() || text.contains(" = ") || !text.contains(|c: char| c.is_ascii_alphabetic())
        {
            return;
        }
        self.add(Kind::Condition, condition.byte_range(), format!("(!{text})"), within);
    }

    fn number(&mut self, node: Node<'_>, within: &Within) {
        let Some(after) = next_number(self.text(node)) else { return };
        let parent = node.parent().map_or("", |parent| parent.kind());
        let kind = match (within.initialiser, parent) {
            (Some(kind), _) => kind,
            (None, "argument_list") => Kind::Argument,
            (None, _) => Kind::Constant,
        };
        self.add(kind, node.byte_range(), after, within);
    }

    fn truth(&mut self, node: Node<'_>, within: &Within) {
        let after = if self.text(node) == "true" { "false" } else { "true" };
        let argument = node.parent().is_some_and(|parent| parent.kind() == "argument_list");
        let kind = if argument { Kind::Argument } else { Kind::Constant };
        self.add(within.initialiser.unwrap_or(kind), node.byte_range(), after, within);
    }

    fn string(&mut self, node: Node<'_>, within: &Within) {
        if self.cleaned.assembler.iter().any(|range| range.contains(&node.start_byte())) {
            return;
        }
        let text = self.text(node).as_bytes();
        let places: Vec<usize> = (0..text.len()).filter(|&at| is_plain_letter(text, at)).collect();
        if places.is_empty() {
            return;
        }
        let at = places[self.random.below(places.len())];
        let after = match text[at] {
            b'z' => 'y',
            b'Z' => 'Y',
            c => char::from(c + 1),
        };
        let place = node.start_byte() + at;
        self.add(within.initialiser.unwrap_or(Kind::String), place..place + 1, after, within);
    }
}

/// A letter that is no part of an escape, a conversion (`%lx`) or a message's level (`<G>` is a string of its own).
fn is_plain_letter(text: &[u8], at: usize) -> bool {
    let opening = text.iter().position(|&c| c == b'"').unwrap_or(0);
    if at <= opening || !text[at].is_ascii_alphabetic() {
        return false;
    }
    let before = text[..at]
        .iter()
        .rev()
        .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, b'.' | b'*' | b'#' | b'-' | b'+')));
    !matches!(before, Some(b'%' | b'\\'))
}

/// The identifier that a declarator declares.
fn declared_name(declarator: Node<'_>) -> Option<Node<'_>> {
    let mut node = declarator;
    for _ in 0..16 {
        if node.kind() == "identifier" {
            return Some(node);
        }
        node = match node.child_by_field_name("declarator") {
            Some(inner) => inner,
            None => {
                let mut cursor = node.walk();
                node.named_children(&mut cursor)
                    .find(|child| child.kind().ends_with("declarator") || child.kind() == "identifier")?
            }
        };
    }
    None
}

/// The next integer after a literal, in its base and with its suffix.
fn next_number(text: &str) -> Option<String> {
    let digits_end = |hex: bool, from: usize| {
        let is_digit = |c: char| if hex { c.is_ascii_hexdigit() } else { c.is_ascii_digit() };
        text[from..].find(|c| !is_digit(c)).map_or(text.len(), |n| from + n)
    };
    let hex = text.starts_with("0x") || text.starts_with("0X");
    let from = if hex { 2 } else { 0 };
    let end = digits_end(hex, from);
    let (digits, suffix) = (&text[from..end], &text[end..]);
    if digits.is_empty() || !suffix.chars().all(|c| "uUlL".contains(c)) {
        return None;
    }
    if hex {
        let value = u64::from_str_radix(digits, 16).ok()?.checked_add(1)?;
        let width = digits.len();
        return Some(format!("{}{value:0width$x}{suffix}", &text[..2]));
    }
    if digits.len() > 1 && digits.starts_with('0') {
        // Octal.
        let value = u64::from_str_radix(digits, 8).ok()?.checked_add(1)?;
        return Some(format!("0{value:o}{suffix}"));
    }
    Some(format!("{}{suffix}", digits.parse::<u64>().ok()?.checked_add(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(source: &str) -> Vec<(Kind, String, String, String)> {
        mutants("a.c", source.as_bytes(), &mut Random::new(1))
            .into_iter()
            .map(|m| (m.kind, m.holder.name().to_owned(), m.before, m.after))
            .collect()
    }

    fn has(list: &[(Kind, String, String, String)], kind: Kind, holder: &str, before: &str, after: &str) {
        let wanted = (kind, holder.to_owned(), before.to_owned(), after.to_owned());
        assert!(list.contains(&wanted), "{wanted:?} is not in {list:#?}");
    }

    #[test]
    fn every_kind_is_found_with_its_holder() {
        let list = all(r#"
static const unsigned int table[] = { 1, 0x0f, [7] = 3 };
static const struct ops ops = { .size = 8, .name = "mn" };
static int counter = 5;
static int __init f(struct s *s, int a)
{
    static const int local[] = { 9 };
    if ( a < 3 && s->b == 4 )
        g(s, 7, true);
    while ( unlikely(!a) )
        a += 2;
    printk("%lu words\n", a);
    alternative("", "lfence", X86_FEATURE_SC_RSB_PV);
    asm volatile ( "incl %0" : "+m" (a) );
    return a << 1;
}
"#);
        has(&list, Kind::Table, "table", "0x0f", "0x10");
        has(&list, Kind::Table, "table", "3", "4");
        has(&list, Kind::Field, "ops", "8", "9");
        has(&list, Kind::Data, "counter", "5", "6");
        has(&list, Kind::Table, "f", "9", "10");
        has(&list, Kind::Comparison, "f", "<", "<=");
        has(&list, Kind::Comparison, "f", "==", "!=");
        has(&list, Kind::Logic, "f", "&&", "||");
        has(&list, Kind::Argument, "f", "7", "8");
        has(&list, Kind::Argument, "f", "true", "false");
        has(&list, Kind::Condition, "f", "( unlikely(!a) )", "(!( unlikely(!a) ))");
        has(&list, Kind::Operator, "f", "+=", "-=");
        has(&list, Kind::Operator, "f", "<<", ">>");
        has(&list, Kind::Constant, "f", "1", "2");
        has(&list, Kind::Alternative, "f", "lfence", "mfence");
        has(&list, Kind::Assembler, "f", "incl", "decl");
        assert!(list.iter().any(|(kind, ..)| *kind == Kind::String));
        assert!(
            list.iter().all(|(_, holder, ..)| ["table", "ops", "counter", "f"].contains(&holder.as_str()))
        );
    }

    #[test]
    fn conversions_and_escapes_stay() {
        let text = br#""a%08lx\nb %s""#;
        let plain: Vec<char> =
            (0..text.len()).filter(|&at| is_plain_letter(text, at)).map(|at| char::from(text[at])).collect();
        assert_eq!(plain, ['a']);
    }

    #[test]
    fn numbers_keep_base_width_and_suffix() {
        for (before, after) in
            [("9", "10"), ("0x00ffUL", "0x0100UL"), ("017", "020"), ("1u", "2u"), ("0", "1")]
        {
            assert_eq!(next_number(before).as_deref(), Some(after));
        }
        assert_eq!(next_number("1.5"), None);
        assert_eq!(next_number("0xffffffffffffffff"), None);
    }

    #[test]
    fn a_mutant_changes_its_token_only() {
        let source = b"int f(int a) { return a + 1; }";
        let mutant = mutants("a.c", source, &mut Random::new(1))
            .into_iter()
            .find(|mutant| mutant.kind == Kind::Operator)
            .unwrap();
        assert_eq!(mutant.apply(source), b"int f(int a) { return a - 1; }");
        assert_eq!(mutant.line, 1);
    }
}
