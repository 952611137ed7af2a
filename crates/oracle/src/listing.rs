//! Reads what readelf and objdump print into lists of sections, symbols, relocations and instructions.
//!
//! The columns are those of binutils 2.30 and later. A line that does not fit is an error, never skipped.

use std::path::Path;

use crate::tools::{OracleError, Tools};

/// A relocation: the place is an offset in the section that holds it.
#[derive(Debug, Clone)]
pub(crate) struct Reloc {
    pub at: u64,
    /// The type without `R_X86_64_`; PLT32 counts as PC32, they mean the same in a static link.
    pub kind: String,
    pub symbol: usize,
    pub addend: i64,
}

impl Reloc {
    /// How many bytes it fills in.
    pub fn width(&self) -> u64 {
        match self.kind.as_str() {
            "64" | "PC64" => 8,
            "16" | "PC16" => 2,
            "8" | "PC8" => 1,
            "NONE" => 0,
            _ => 4,
        }
    }

    /// Whether the value is relative to the place.
    pub fn relative(&self) -> bool {
        self.kind.starts_with("PC")
    }

    /// Whether this crate knows what it means.
    pub fn known(&self) -> bool {
        matches!(
            self.kind.as_str(),
            "64" | "32" | "32S" | "16" | "8" | "NONE" | "PC64" | "PC32" | "PC16" | "PC8"
        )
    }
}

/// One instruction.
#[derive(Debug, Clone)]
pub(crate) struct Insn {
    pub at: u64,
    pub end: u64,
    pub text: String,
}

impl Insn {
    /// Whether it does nothing: padding, or room for an alternative.
    pub fn is_nop(&self) -> bool {
        let mut words = self.text.split_whitespace();
        let word = words.find(|word| !matches!(*word, "data16" | "cs" | "rex.W"));
        match word {
            Some("nop" | "nopw" | "nopl" | "nopq") => true,
            Some("xchg") => words.next() == Some("%ax,%ax"),
            _ => false,
        }
    }
}

/// A section. Relocations are sorted by place; instructions are there for sections with code.
#[derive(Debug, Clone, Default)]
pub(crate) struct Section {
    pub name: String,
    pub kind: String,
    pub flags: String,
    pub size: u64,
    pub entsize: u64,
    pub bytes: Vec<u8>,
    pub relocs: Vec<Reloc>,
    pub insns: Vec<Insn>,
}

impl Section {
    pub fn has(&self, flag: char) -> bool {
        self.flags.contains(flag)
    }

    /// The bytes from `start` up to `end`, zero where the file has none.
    pub fn slice(&self, start: u64, end: u64) -> Vec<u8> {
        (start..end).map(|at| self.byte(at)).collect()
    }

    pub fn byte(&self, at: u64) -> u8 {
        usize::try_from(at).ok().and_then(|at| self.bytes.get(at)).copied().unwrap_or(0)
    }

    /// The relocations with a place from `start` up to `end`.
    pub fn relocs_in(&self, start: u64, end: u64) -> &[Reloc] {
        let from = self.relocs.partition_point(|reloc| reloc.at < start);
        let to = self.relocs.partition_point(|reloc| reloc.at < end);
        &self.relocs[from..to.max(from)]
    }
}

/// Where a symbol is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    Undefined,
    Absolute,
    Common,
    Section(usize),
}

/// A symbol, with readelf's words for type and binding.
#[derive(Debug, Clone)]
pub(crate) struct Symbol {
    pub name: String,
    pub value: u64,
    pub size: u64,
    pub kind: String,
    pub local: bool,
    pub home: Home,
}

/// All of an object.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub sections: Vec<Section>,
    pub symbols: Vec<Symbol>,
}

impl Listing {
    /// Runs the tools and reads what they print.
    pub fn read(tools: &Tools, path: &Path) -> Result<Listing, OracleError> {
        let mut reader = Reader { path, listing: Listing::default() };
        reader.headers(&tools.headers(path)?)?;
        let sections = &reader.listing.sections;
        let numbers: Vec<usize> = (0..sections.len()).filter(|&n| is_wanted(&sections[n])).collect();
        if !numbers.is_empty() {
            reader.bytes(&tools.bytes(path, &numbers)?, &numbers)?;
        }
        reader.code(&tools.code(path)?)?;
        Ok(reader.listing)
    }
}

/// Sections whose bytes are needed: those that end up in memory.
fn is_wanted(section: &Section) -> bool {
    section.has('A') && section.size > 0 && section.kind != "NOBITS"
}

struct Reader<'a> {
    path: &'a Path,
    listing: Listing,
}

impl Reader<'_> {
    fn bad(&self, what: &'static str, line: &str) -> OracleError {
        OracleError::Text { path: self.path.to_owned(), what, line: line.to_owned() }
    }

    fn headers(&mut self, text: &str) -> Result<(), OracleError> {
        // The section a relocation table applies to, by the order of the tables.
        let mut tables: std::collections::VecDeque<(String, usize)> = std::collections::VecDeque::new();
        let mut place = Place::Header;
        let mut header = [String::new(), String::new(), String::new()];
        for line in text.lines() {
            let trimmed = line.trim();
            if trimmed == "Section Headers:" {
                self.check_header(&header)?;
                place = Place::Sections;
            } else if trimmed.starts_with("Key to Flags") {
                place = Place::Nothing;
            } else if let Some(rest) = trimmed.strip_prefix("Relocation section '") {
                let name = rest.split('\'').next().unwrap_or_default();
                let found = tables.iter().position(|(table, _)| table == name);
                let Some(found) = found else { return Err(self.bad("a relocation table", line)) };
                let target = tables.drain(..=found).next_back().map(|(_, target)| target);
                place = target.map_or(Place::Nothing, Place::Relocs);
            } else if trimmed.starts_with("Symbol table '") {
                place = Place::Symbols;
            } else {
                match place {
                    Place::Header => {
                        for (slot, key) in header.iter_mut().zip(["Class:", "Type:", "Machine:"]) {
                            if let Some(value) = trimmed.strip_prefix(key) {
                                *slot = value.trim().to_owned();
                            }
                        }
                    }
                    Place::Sections => tables.extend(self.section(line)?),
                    Place::Relocs(target) => self.reloc(target, trimmed)?,
                    Place::Symbols => self.symbol(trimmed)?,
                    Place::Nothing => {}
                }
            }
        }
        for section in &mut self.listing.sections {
            section.relocs.sort_by_key(|reloc| reloc.at);
        }
        Ok(())
    }

    fn check_header(&self, header: &[String; 3]) -> Result<(), OracleError> {
        let right = header[0] == "ELF64" && header[1].starts_with("REL ") && header[2].contains("X86-64");
        if right {
            return Ok(());
        }
        Err(OracleError::Foreign { path: self.path.to_owned(), what: header.join(", ") })
    }

    /// `[ 1] .text PROGBITS 0000000000000000 000040 000012 00 AX 0 0 16`; the flags may be missing, and
    /// section 0 has no name. Gives the name and target of a relocation table.
    fn section(&mut self, line: &str) -> Result<Option<(String, usize)>, OracleError> {
        let Some((number, rest)) = line.trim().strip_prefix('[').and_then(|rest| rest.split_once(']')) else {
            return Ok(None);
        };
        let Ok(number) = number.trim().parse::<usize>() else { return Ok(None) };
        let bad = || self.bad("a section", line);
        if number != self.listing.sections.len() {
            return Err(bad());
        }
        let words: Vec<&str> = rest.split_whitespace().collect();
        if number == 0 {
            self.listing.sections.push(Section { kind: "NULL".to_owned(), ..Section::default() });
            return Ok(None);
        }
        let flags = match words.len() {
            10 => words[6],
            9 => "",
            _ => return Err(bad()),
        };
        let hex = |word: &str| u64::from_str_radix(word, 16).map_err(|_| bad());
        let section = Section {
            name: words[0].to_owned(),
            kind: words[1].to_owned(),
            flags: flags.to_owned(),
            size: hex(words[4])?,
            entsize: hex(words[5])?,
            ..Section::default()
        };
        let table = section.kind == "RELA" && section.size > 0;
        if section.kind == "REL" && section.size > 0 {
            return Err(self.bad("relocations without addends", line));
        }
        let target = if table {
            let info = words[words.len() - 2].parse().map_err(|_| bad())?;
            Some((section.name.clone(), info))
        } else {
            None
        };
        self.listing.sections.push(section);
        Ok(target)
    }

    /// `000000000020  007a00000002 R_X86_64_PC32  0000000000000000 levelling_caps - 4`.
    fn reloc(&mut self, target: usize, line: &str) -> Result<(), OracleError> {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.is_empty() || words[0] == "Offset" {
            return Ok(());
        }
        let bad = || self.bad("a relocation", line);
        let Some(section) = self.listing.sections.get(target) else { return Err(bad()) };
        if !section.has('A') {
            return Ok(());
        }
        let hex =
            |word: Option<&&str>| word.and_then(|word| u64::from_str_radix(word, 16).ok()).ok_or_else(bad);
        let at = hex(words.first())?;
        let info = hex(words.get(1))?;
        let kind = words.get(2).and_then(|kind| kind.strip_prefix("R_X86_64_")).ok_or_else(bad)?;
        let kind = if kind == "PLT32" { "PC32" } else { kind };
        let symbol = usize::try_from(info >> 32).map_err(|_| bad())?;
        let addend = if words.len() < 4 {
            0
        } else {
            let minus = words[words.len() - 2] == "-";
            let digits = words[words.len() - 1];
            let (minus, digits) = digits.strip_prefix('-').map_or((minus, digits), |digits| (true, digits));
            let value = hex(Some(&digits))?.cast_signed();
            if minus { value.wrapping_neg() } else { value }
        };
        let reloc = Reloc { at, kind: kind.to_owned(), symbol, addend };
        self.listing.sections[target].relocs.push(reloc);
        Ok(())
    }

    /// `3: 0000000000000000 50 FUNC LOCAL DEFAULT 4 _probe_mask_msr`.
    fn symbol(&mut self, line: &str) -> Result<(), OracleError> {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.is_empty() || words[0] == "Num:" {
            return Ok(());
        }
        let bad = || self.bad("a symbol", line);
        if words.len() < 7 || words[0].trim_end_matches(':').parse() != Ok(self.listing.symbols.len()) {
            return Err(bad());
        }
        let size = match words[2].strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).map_err(|_| bad())?,
            None => words[2].parse().map_err(|_| bad())?,
        };
        // Further words stand between visibility and section where st_other has more bits.
        let home = match words[6] {
            "UND" => Home::Undefined,
            "ABS" => Home::Absolute,
            "COM" => Home::Common,
            number => Home::Section(number.parse().map_err(|_| bad())?),
        };
        self.listing.symbols.push(Symbol {
            name: words.get(7).copied().unwrap_or_default().to_owned(),
            value: u64::from_str_radix(words[1], 16).map_err(|_| bad())?,
            size,
            kind: words[3].to_owned(),
            local: words[4] == "LOCAL",
            home,
        });
        Ok(())
    }

    /// Dumps of the sections `numbers`, in this order. Each line holds an offset, and up to 16 bytes in
    /// columns 13 to 48; what follows is the same as text.
    fn bytes(&mut self, text: &str, numbers: &[usize]) -> Result<(), OracleError> {
        let mut rest = numbers.iter();
        let mut current = None;
        for line in text.lines() {
            if let Some(name) = line.trim().strip_prefix("Hex dump of section '") {
                current = rest.next().copied();
                let same = current.is_some_and(|n| name.starts_with(self.listing.sections[n].name.as_str()));
                if !same {
                    return Err(self.bad("the heading of a hex dump", line));
                }
                continue;
            }
            let Some(fields) = line.strip_prefix("  0x") else { continue };
            let Some(columns) = fields.get(9..45) else { return Err(self.bad("a hex dump", line)) };
            let digits: Vec<u8> = columns.bytes().filter(|byte| *byte != b' ').collect();
            let Some(current) = current else { return Err(self.bad("a hex dump", line)) };
            for pair in digits.chunks(2) {
                let byte = std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
                let Some(byte) = byte else { return Err(self.bad("a hex dump", line)) };
                self.listing.sections[current].bytes.push(byte);
            }
        }
        for &number in numbers {
            let section = &self.listing.sections[number];
            if section.bytes.len() as u64 != section.size {
                return Err(self.bad("all bytes of a section", &section.name));
            }
        }
        Ok(())
    }

    /// `   4:` TAB `call   9 <foo+0x9>`, below a heading for each section with code.
    fn code(&mut self, text: &str) -> Result<(), OracleError> {
        let mut current = None;
        let mut next = 0;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("Disassembly of section ") {
                let name = name.trim_end_matches(':');
                let sections = &self.listing.sections;
                current = (next..sections.len())
                    .find(|&n| sections[n].name == name && sections[n].has('X') && is_wanted(&sections[n]));
                let Some(found) = current else { return Err(self.bad("the heading of a disassembly", line)) };
                next = found + 1;
                continue;
            }
            let Some((address, text)) = line.split_once(":\t") else { continue };
            let Ok(at) = u64::from_str_radix(address.trim(), 16) else { continue };
            let Some(current) = current else { return Err(self.bad("an instruction", line)) };
            let section = &mut self.listing.sections[current];
            if let Some(last) = section.insns.last_mut() {
                last.end = at;
            }
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            section.insns.push(Insn { at, end: section.size, text });
        }
        for section in &self.listing.sections {
            if section.has('X') && is_wanted(section) && section.insns.first().is_none_or(|insn| insn.at != 0)
            {
                return Err(self.bad("the disassembly of a section", &section.name));
            }
        }
        Ok(())
    }
}

/// The part of readelf's output that is being read.
#[derive(Clone, Copy)]
enum Place {
    Header,
    Sections,
    Relocs(usize),
    Symbols,
    Nothing,
}
