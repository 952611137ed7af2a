//! The compiler's assembler text, taken apart into functions and data that can be compared as text.
//!
//! The form is gcc's (`gcc -S`, x86-64, ELF): a function reaches from its label to its `.size`, with everything that
//! stands in between, whatever section it goes to: its cold part, bug frames, alternatives, exception table entries,
//! fixup code. Labels are numbered anew in the order in which a function names them, strings and constants stand in
//! the place of their labels, and compilers' counters are cut off.

use std::collections::{BTreeMap, BTreeSet};

use crate::bytes;

/// A function or variable.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unit {
    /// Its name as the compiler gave it.
    pub name: String,
    /// The section that it starts in.
    pub section: String,
    /// Its text, normalised.
    pub lines: Vec<String>,
    /// Variables of this object that it refers to, without counters.
    pub refers: BTreeSet<String>,
    /// Whether other objects see it.
    pub global: bool,
}

impl Unit {
    /// Gone after boot, or never linked (xen/arch/x86/xen.lds.S).
    pub fn is_init(&self) -> bool {
        let name = &self.section;
        name.starts_with(".init") || name.starts_with(".exit")
    }

    /// Read-only data. `.data.rel.ro` holds constants with addresses; `.data.ro_after_init` is written at boot.
    pub fn is_read_only(&self) -> bool {
        let name = &self.section;
        name.starts_with(".rodata") || name.starts_with(".data.rel.ro")
    }
}

/// An object's text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text {
    /// Functions by name without counters.
    pub functions: BTreeMap<String, Vec<Unit>>,
    /// Variables by name without counters.
    pub data: BTreeMap<String, Vec<Unit>>,
    /// Inline assembler outside of functions, and what is said of names.
    pub rest: Vec<String>,
}

/// The name without the numbers that compilers put behind dots: `last.3` is `last`, `f.part.0` is `f.part`.
pub fn plain(name: &str) -> String {
    let numbered = |part: &&str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit());
    let mut parts = name.split('.');
    let first = parts.next().unwrap_or("").to_owned();
    parts.filter(|part| !numbered(part)).fold(first, |name, part| format!("{name}.{part}"))
}

/// Whether only a string's or table's content matters, not which copy of it is meant.
fn is_numbered(name: &str) -> bool {
    !name.starts_with('.') && plain(name) != name
}

/// As it stands in the file, before anything is normalised.
#[derive(Debug, Clone, Default)]
struct Raw {
    section: String,
    lines: Vec<String>,
}

#[derive(Default)]
struct Reader {
    functions: BTreeMap<String, Raw>,
    data: BTreeMap<String, Raw>,
    /// Content of `.LC` labels.
    constants: BTreeMap<String, Vec<String>>,
    aliases: BTreeMap<String, String>,
    globals: BTreeSet<String>,
    rest: Vec<String>,
    types: BTreeMap<String, bool>,
    section: String,
    stack: Vec<String>,
    at: At,
    in_assembler: bool,
}

#[derive(Default, Clone, PartialEq)]
enum At {
    #[default]
    Nowhere,
    Function(String),
    Data(String),
    Constant(String),
    Debug,
}

const DATA: &[&str] = &[
    ".byte",
    ".value",
    ".short",
    ".word",
    ".hword",
    ".2byte",
    ".long",
    ".int",
    ".4byte",
    ".quad",
    ".8byte",
    ".octa",
    ".string",
    ".string16",
    ".string32",
    ".ascii",
    ".asciz",
    ".zero",
    ".skip",
    ".fill",
    ".float",
    ".double",
    ".base64",
];

impl Reader {
    fn line(&mut self, whole: &str) {
        let line = whole.trim();
        match line {
            "#APP" => self.in_assembler = true,
            "#NO_APP" => self.in_assembler = false,
            _ => {}
        }
        if line.is_empty() || line.starts_with('#') {
            return;
        }
        let word = line.split_whitespace().next().unwrap_or("");
        if let At::Function(name) = self.at.clone() {
            if word == ".size" && size_of(line) == Some(&name) {
                self.at = At::Nowhere;
            } else if !matches!(word, ".loc" | ".size" | ".type" | ".file")
                && !word.starts_with(".cfi_")
                && let Some(raw) = self.functions.get_mut(&name)
            {
                raw.lines.push(squeeze(line));
            }
            if !self.in_assembler {
                self.follow_section(word, line);
            }
            return;
        }
        if self.follow_section(word, line) {
            if self.in_assembler {
                self.rest.push(squeeze(line));
            }
            return;
        }
        if self.at == At::Debug {
            return;
        }
        if let Some(label) = label_of(line) {
            self.label(label);
            return;
        }
        if DATA.contains(&word) && !self.in_assembler {
            let lines = match &self.at {
                At::Data(name) => self.data.get_mut(name).map(|raw| &mut raw.lines),
                At::Constant(label) => self.constants.get_mut(label),
                _ => None,
            };
            if let Some(lines) = lines {
                lines.push(squeeze(line));
                return;
            }
        }
        self.directive(word, line);
    }

    fn directive(&mut self, word: &str, line: &str) {
        self.at = At::Nowhere;
        let argument = line[word.len()..].trim();
        match word {
            ".type" => {
                if let Some((name, kind)) = argument.split_once(',') {
                    self.types.insert(name.trim().to_owned(), kind.trim().ends_with("function"));
                }
            }
            ".globl" | ".weak" => {
                self.globals.insert(argument.to_owned());
                self.rest.push(format!("{word} {}", plain(argument)));
            }
            ".set" => {
                if let Some((name, target)) = argument.split_once(',') {
                    self.aliases.insert(name.trim().to_owned(), target.trim().to_owned());
                }
            }
            // Local variables of files that are compiled without -fdata-sections.
            ".comm" => {
                let mut words = argument.split(',');
                let name = words.next().unwrap_or("").to_owned();
                let lines = vec![format!(".zero {}", words.next().unwrap_or(""))];
                self.data.insert(name, Raw { section: ".bss".into(), lines });
            }
            _ if self.in_assembler => self.rest.push(squeeze(line)),
            // Order of names, alignment, what the compiler says of itself.
            _ => {}
        }
    }

    fn label(&mut self, label: &str) {
        let section = self.section.clone();
        match self.types.get(label) {
            Some(true) => {
                self.functions.insert(label.to_owned(), Raw { section, lines: Vec::new() });
                self.at = At::Function(label.to_owned());
            }
            Some(false) => {
                self.data.insert(label.to_owned(), Raw { section, lines: Vec::new() });
                self.at = At::Data(label.to_owned());
            }
            None if label.starts_with(".LC") && !label.starts_with(".LCOLD") => {
                self.constants.insert(label.to_owned(), Vec::new());
                self.at = At::Constant(label.to_owned());
            }
            None => {
                if self.in_assembler {
                    self.rest.push(format!("{label}:"));
                }
                // Labels for debug information stand anywhere.
                if !label.starts_with(".L") {
                    self.at = At::Nowhere;
                }
            }
        }
    }

    /// Goes to another section, where the line says so.
    fn follow_section(&mut self, word: &str, line: &str) -> bool {
        let name = || {
            let rest = line[word.len()..].trim();
            rest.split(',').next().unwrap_or("").trim().trim_matches('"').to_owned()
        };
        match word {
            ".section" => self.section = name(),
            ".pushsection" => {
                self.stack.push(self.section.clone());
                self.section = name();
            }
            ".popsection" => self.section = self.stack.pop().unwrap_or_default(),
            ".text" | ".data" | ".bss" => word.clone_into(&mut self.section),
            ".previous" | ".subsection" => {}
            _ => return false,
        }
        if !matches!(self.at, At::Function(_)) {
            self.at = if self.section.starts_with(".debug") { At::Debug } else { At::Nowhere };
        }
        true
    }
}

/// The lines of a compiler's text that say something to the assembler, apart from debug information.
pub fn code_lines(text: &str) -> Vec<String> {
    let mut debug = false;
    let mut lines = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix(".section") {
            debug = name.trim_start().starts_with(".debug");
        } else if line == ".text" {
            debug = false;
        }
        let of_debug = [
            "LVL", "LBB", "LBE", "LBI", "LFB", "LFE", "LVU", "Ltext", "Letext", "LM", "LFS", "LCOLD", "LHOT",
        ];
        let label = label_of(line).and_then(|label| label.strip_prefix('.'));
        let for_debug = label.is_some_and(|label| of_debug.iter().any(|start| label.starts_with(start)));
        if !debug && !for_debug && ![".loc", ".file", ".cfi_"].iter().any(|word| line.starts_with(word)) {
            lines.push(line.to_owned());
        }
    }
    lines
}

fn size_of(line: &str) -> Option<&str> {
    line.strip_prefix(".size")?.trim().split(',').next()
}

fn label_of(line: &str) -> Option<&str> {
    let label = line.strip_suffix(':')?;
    label.bytes().all(is_name_byte).then_some(label)
}

fn is_name_byte(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'$')
}

/// Blanks outside of quotes are one space each.
fn squeeze(line: &str) -> String {
    let mut out = String::new();
    let mut quoted = false;
    let mut escaped = false;
    for c in line.chars() {
        if !quoted && c.is_whitespace() {
            if !out.ends_with(' ') {
                out.push(' ');
            }
        } else {
            quoted ^= c == '"' && !escaped;
            out.push(c);
        }
        escaped = c == '\\' && !escaped;
    }
    out
}

/// What one unit's text says, piece by piece.
enum Token<'t> {
    Name(&'t str),
    Other(&'t str),
}

fn tokens(line: &str) -> Vec<Token<'_>> {
    let bytes = line.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let c = bytes[at];
        if c == b'"' {
            at = crate::clean::quoted_end(bytes, at);
            tokens.push(Token::Other(&line[start..at]));
        } else if c == b'%' || c.is_ascii_digit() {
            at += 1;
            while at < bytes.len() && (bytes[at].is_ascii_alphanumeric() || bytes[at] == b'_') {
                at += 1;
            }
            tokens.push(Token::Other(&line[start..at]));
        } else if is_name_byte(c) && c != b'$' {
            while at < bytes.len() && is_name_byte(bytes[at]) {
                at += 1;
            }
            tokens.push(Token::Name(&line[start..at]));
        } else {
            at += line[start..].chars().next().map_or(1, char::len_utf8);
            tokens.push(Token::Other(&line[start..at]));
        }
    }
    tokens
}

/// How deep constants are looked into; gcc's own go one level.
const MAX_DEPTH: usize = 4;

struct Writer<'r> {
    reader: &'r Reader,
    labels: BTreeMap<String, usize>,
    refers: BTreeSet<String>,
}

impl Writer<'_> {
    fn unit(reader: &Reader, raw: &Raw) -> (Vec<String>, BTreeSet<String>) {
        let mut named = BTreeSet::new();
        for line in raw.lines.iter().filter(|line| label_of(line).is_none()) {
            named.extend(tokens(line).into_iter().filter_map(|token| match token {
                Token::Name(name) => Some(name.to_owned()),
                Token::Other(_) => None,
            }));
        }
        let mut writer = Writer { reader, labels: BTreeMap::new(), refers: BTreeSet::new() };
        let lines = raw
            .lines
            .iter()
            // Labels that nothing but debug information names.
            .filter(|line| {
                label_of(line).is_none_or(|label| !label.starts_with(".L") || named.contains(label))
            })
            .map(|line| writer.line(line, 0))
            .collect();
        (lines, writer.refers)
    }

    fn line(&mut self, line: &str, depth: usize) -> String {
        let mut out = String::new();
        for (index, token) in tokens(line).into_iter().enumerate() {
            match token {
                Token::Other(text) => out.push_str(text),
                Token::Name(name) if index == 0 && name.starts_with('.') && !name.starts_with(".L") => {
                    out.push_str(name);
                }
                Token::Name(name) => out.push_str(&self.name(name, depth)),
            }
        }
        out
    }

    fn name(&mut self, name: &str, depth: usize) -> String {
        if name.starts_with(".L") {
            if let Some(lines) = self.reader.constants.get(name)
                && depth < MAX_DEPTH
            {
                return self.content(lines, depth);
            }
            let next = self.labels.len();
            let number = *self.labels.entry(name.to_owned()).or_insert(next);
            return format!(".L#{number}");
        }
        let plain = plain(name);
        if is_numbered(name)
            && depth < MAX_DEPTH
            && let Some(raw) = self.reader.data.get(name).filter(|raw| is_constant(&raw.section))
        {
            return format!("{plain}{}", self.content(&raw.lines.clone(), depth));
        }
        self.refers.insert(plain.clone());
        plain
    }

    fn content(&mut self, lines: &[String], depth: usize) -> String {
        let lines: Vec<String> = bytes::fold(lines).iter().map(|line| self.line(line, depth + 1)).collect();
        format!("{{{}}}", lines.join("; "))
    }
}

fn is_constant(section: &str) -> bool {
    section.starts_with(".rodata") || section.starts_with(".data.rel.ro")
}

impl Text {
    /// Reads what `gcc -S` wrote, with or without `-g`.
    pub fn parse(text: &str) -> Text {
        let mut reader = Reader { section: ".text".into(), ..Reader::default() };
        for line in text.lines() {
            reader.line(line);
        }
        for (name, target) in &reader.aliases {
            // An alias is a second name of the same thing.
            if let Some(raw) = reader.functions.get(target).cloned() {
                reader.functions.insert(name.clone(), raw);
            } else if let Some(raw) = reader.data.get(target).cloned() {
                reader.data.insert(name.clone(), raw);
            }
        }
        let variables: BTreeSet<String> = reader.data.keys().map(|name| plain(name)).collect();
        let gather = |raws: &BTreeMap<String, Raw>, is_function: bool| {
            let mut units: BTreeMap<String, Vec<Unit>> = BTreeMap::new();
            for (name, raw) in raws {
                let (lines, mut refers) = Writer::unit(&reader, raw);
                let lines = if is_function { lines } else { bytes::fold(&lines) };
                refers.retain(|other| variables.contains(other));
                let unit = Unit {
                    name: name.clone(),
                    section: raw.section.clone(),
                    lines,
                    refers,
                    global: reader.globals.contains(name),
                };
                units.entry(plain(name)).or_default().push(unit);
            }
            units
        };
        let mut rest = reader.rest.clone();
        rest.sort();
        Text { functions: gather(&reader.functions, true), data: gather(&reader.data, false), rest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = r#"
	.file	"a.c"
	.text
.Ltext0:
	.section	.rodata.f.str1.1,"aMS",@progbits,1
.LC3:
	.string	"hello # %s"
	.section	.text.f,"ax",@progbits
	.p2align 4
	.globl	f
	.type	f, @function
f:
.LFB12:
	.loc 1 7 3
	leaq	.LC3(%rip), %rdi
.LVL4:
	testl	%eax, %eax
	je	.L7
#APP
# 12 "a.c" 1
	.pushsection .altinstructions, "a", @progbits
 .long .LXEN20_orig - .
	.popsection
# 0 "" 2
#NO_APP
	call	g.part.0
	movl	last.5(%rip), %eax
.L7:
	movl	table+4(%rip), %eax
	ret
	.section	.text.unlikely.f
	.type	f.cold, @function
f.cold:
	ud2
	.section	.text.f
	.size	f, .-f
	.section	.text.unlikely.f
	.size	f.cold, .-f.cold
	.section	.rodata.table,"a"
	.align 8
	.type	table, @object
	.size	table, 8
table:
	.long	1
	.long	2
	.section	.debug_info,"",@progbits
	.long	.LFB12
"#;

    #[test]
    fn positions_counters_and_debug_information_do_not_count() {
        let base = Text::parse(BASE);
        let other = BASE
            .replace(".LC3", ".LC88")
            .replace(".L7", ".L9")
            .replace("LXEN20", "LXEN21")
            .replace("g.part.0", "g.part.4")
            .replace("last.5", "last.6")
            .replace(".loc 1 7 3", ".loc 1 8 1")
            .replace(".LVL4:\n", "");
        let other = Text::parse(&other);
        let lines = |text: &Text| (text.functions["f"][0].lines.clone(), text.data["table"][0].lines.clone());
        assert_eq!(lines(&base), lines(&other));
        assert_eq!(base.functions["f"][0].refers, ["table"].map(String::from).into());
        assert!(base.functions["f"][0].global);
        assert_eq!(base.functions.len(), 1);
    }

    #[test]
    fn every_kind_of_content_counts() {
        let base = Text::parse(BASE);
        for (before, after) in [
            ("hello # %s", "hello # %d"),
            ("ud2", "nop"),
            ("LXEN20_orig - .", "LXEN20_orig + 1 - ."),
            ("je\t", "jne\t"),
        ] {
            let other = Text::parse(&BASE.replace(before, after));
            assert_ne!(base.functions["f"][0].lines, other.functions["f"][0].lines, "{before}");
            assert_eq!(base.data, other.data, "{before}");
        }
        let other = Text::parse(&BASE.replace(".long\t2", ".long\t3"));
        assert_eq!(base.functions, other.functions);
        assert_ne!(base.data, other.data);
    }

    #[test]
    fn numbers_behind_dots_are_counters() {
        for (name, wanted) in [
            ("last.3", "last"),
            ("f.constprop.0.isra.1", "f.constprop.isra"),
            ("f", "f"),
            (".rodata.str1.8", ".rodata.str1"),
        ] {
            assert_eq!(plain(name), wanted);
        }
    }
}
