//! Source lines of declarations and instructions (DWARF 5, section 6.2).

use crate::DebugInfo;
use crate::elf;
use crate::lookup::Lookup;
use crate::model::{Decl, Entity, Unit};
use crate::parse::{Slice, dwarf};

/// Rows of all line programs.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// Sorted by first address, each with its rows in the order of their addresses.
    sequences: Vec<Sequence>,
}

#[derive(Debug)]
struct Sequence {
    start: u64,
    end: u64,
    rows: Vec<Row>,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    address: u64,
    unit: u32,
    file: u32,
    line: u32,
}

impl DebugInfo {
    /// File and line that declare the function of this symbol.
    ///
    /// Takes the symbol's name (`file.c#name`, `name.constprop.0` and `name.cold` too) or the function's.
    /// Files are relative to the tree; see [`DebugInfo::with_tree`].
    pub fn function_line(&self, name: &str) -> Option<(String, u32)> {
        self.entity_line(&self.model.functions, self.functions(), name)
    }

    /// File and line that declare the variable of this symbol; names as for [`DebugInfo::function_line`].
    pub fn variable_line(&self, name: &str) -> Option<(String, u32)> {
        self.entity_line(&self.model.variables, self.variables(), name)
    }

    /// Source line of an instruction: `section` by name, `offset` in bytes from its start.
    ///
    /// For inlined code that is the line of the inlined function. Sections of one name are told apart by
    /// [`DebugInfo::line_in_section`]; here the first one that has a line answers.
    pub fn line_at(&self, section: &str, offset: u64) -> Option<(String, u32)> {
        let named = self.sections.names.iter().enumerate().filter(|(_, name)| ***name == *section);
        named.map(|(index, _)| index).find_map(|index| self.line_in_section(index, offset))
    }

    /// Source line of an instruction: `section` by its number in the object (from 1), `offset` in bytes.
    pub fn line_in_section(&self, section: usize, offset: u64) -> Option<(String, u32)> {
        if offset > u64::from(u32::MAX) {
            return None;
        }
        let address = elf::address(section, offset);
        let rows = self.rows.get_or_init(|| self.read_rows());
        let after = rows.sequences.partition_point(|s| s.start <= address);
        let sequence = rows.sequences[..after].last().filter(|s| address < s.end)?;
        let after = sequence.rows.partition_point(|row| row.address <= address);
        // Line 0 is code that no line stands for; the line before it is the nearest.
        let row = sequence.rows[..after].iter().rev().find(|row| row.line != 0)?;
        self.decl_line(Decl { unit: row.unit, file: row.file, line: row.line })
    }

    /// The source of each compilation unit, in the order of the object; named as in [`DebugInfo::function_line`].
    pub fn sources(&self) -> Vec<String> {
        let units = self.model.units.iter();
        units.map(|unit| self.relative(&self.text(unit.comp_dir), "", &self.text(unit.name)).into()).collect()
    }

    /// File and line in words, if both are known.
    pub(crate) fn decl_line(&self, decl: Decl) -> Option<(String, u32)> {
        if decl.line == 0 {
            return None;
        }
        let files = self.files.get_or_init(|| self.read_files());
        let file = files.get(decl.unit as usize)?.get(decl.file as usize)?;
        (!file.is_empty()).then(|| (file.to_string(), decl.line))
    }

    fn entity_line(&self, entities: &[Entity], lookup: &Lookup, name: &str) -> Option<(String, u32)> {
        let start = self.sections.symbols.partition_point(|s| *s.name < *name);
        let symbols = self.sections.symbols[start..].iter().take_while(|s| *s.name == *name);
        for symbol in symbols {
            let found = lookup.at(entities, symbol.address);
            if let Some(line) = found.and_then(|e| self.declared(entities, e)) {
                return Some(line);
            }
        }
        // Functions of several ranges have no address here, and those that were inlined no symbol.
        let bare = name.rsplit('#').next().unwrap_or(name);
        let bare = bare.split('.').next().unwrap_or(bare);
        let named = || lookup.named(self.object(), entities, bare);
        let best = named().find(|e| !e.declaration).or_else(|| named().next())?;
        self.declared(entities, best)
    }

    /// The line of an entry or of the one it is an instance of.
    fn declared(&self, entities: &[Entity], entity: &Entity) -> Option<(String, u32)> {
        let mut entity = *entity;
        for _ in 0..4 {
            if let Some(line) = self.decl_line(entity.decl) {
                return Some(line);
            }
            let origin = entities.binary_search_by_key(&entity.origin, |e| e.offset).ok()?;
            entity = entities[origin];
        }
        None
    }

    fn read_rows(&self) -> Rows {
        let dwarf = dwarf(&self.sections);
        let mut rows = Rows::default();
        // Programs do not overlap, except in hostile objects.
        let mut budget = 2 * self.sections.bytes(elf::LINE).len();
        for (index, unit) in self.model.units.iter().enumerate() {
            // A malformed program costs its lines, nothing else.
            let _ = read_program(&dwarf, unit, index as u32, &mut budget, &mut rows);
        }
        rows.sequences.sort_by_key(|s| (s.start, s.end));
        rows
    }

    fn read_files(&self) -> Vec<Vec<Box<str>>> {
        let dwarf = dwarf(&self.sections);
        // Files can share the bytes of one long name, and each gets a copy.
        let mut budget = (1 << 20) + self.sections.data.len().saturating_mul(16);
        self.model.units.iter().map(|unit| self.unit_files(&dwarf, unit, &mut budget)).collect()
    }

    fn unit_files(&self, dwarf: &gimli::Dwarf<Slice<'_>>, unit: &Unit, budget: &mut usize) -> Vec<Box<str>> {
        let Some(Ok(program)) = unit.lines.map(|lines| program(dwarf, lines)) else { return Vec::new() };
        let header = program.header();
        let comp_dir = self.text(unit.comp_dir);
        let text = |value| dwarf.attr_line_string(value).map(|s| s.to_string_lossy().into_owned()).ok();
        let first = usize::from(header.version() <= 4);
        let mut paths = Vec::with_capacity(header.file_names().len() + first);
        if first == 1 {
            paths.push(self.relative(&comp_dir, "", &self.text(unit.name)));
        }
        for file in header.file_names() {
            let directory = file.directory(header).and_then(text).unwrap_or_default();
            let name = text(file.path_name()).unwrap_or_default();
            let Some(left) = budget.checked_sub(comp_dir.len() + directory.len() + name.len()) else {
                // The lines of the rest are not known.
                *budget = 0;
                break;
            };
            *budget = left;
            paths.push(self.relative(&comp_dir, &directory, &name));
        }
        paths
    }

    /// The path of a file, relative to the tree or to the directory of the compilation.
    fn relative(&self, comp_dir: &str, directory: &str, name: &str) -> Box<str> {
        let mut parts: Vec<&str> = Vec::new();
        let whole = format!("{directory}/{name}");
        let whole = if name.starts_with('/') { name } else { &whole };
        let is_absolute = name.starts_with('/') || directory.starts_with('/');
        let start = if is_absolute || is_replaced(comp_dir, directory) { "" } else { comp_dir };
        let rooted = is_absolute || comp_dir.starts_with('/');
        for part in start.split('/').chain(whole.split('/')) {
            match part {
                "" | "." => {}
                ".." if parts.last().is_some_and(|p| *p != "..") => {
                    parts.pop();
                }
                // There is nothing above the root.
                ".." if rooted => {}
                part => parts.push(part),
            }
        }
        let path = parts.join("/");
        let path = if rooted { format!("/{path}") } else { path };
        for base in [self.tree.as_deref().unwrap_or_default(), comp_dir] {
            let below = path.strip_prefix(base.trim_end_matches('/')).and_then(|p| p.strip_prefix('/'));
            if let Some(below) = below.filter(|_| !base.is_empty()) {
                return below.into();
            }
        }
        path.into()
    }
}

/// Whether a directory is relative to the tree, not to the directory of the compilation: absolute ones become so when
/// `-ffile-prefix-map=TREE=.` replaces the tree in both.
fn is_replaced(comp_dir: &str, directory: &str) -> bool {
    let top = |path: &str| path.strip_prefix("./").and_then(|path| path.split('/').next()).map(str::to_owned);
    top(comp_dir).is_some() && top(comp_dir) == top(directory)
}

fn program<'a>(
    dwarf: &gimli::Dwarf<Slice<'a>>,
    offset: u32,
) -> gimli::Result<gimli::IncompleteLineProgram<Slice<'a>>> {
    dwarf.debug_line.program(gimli::DebugLineOffset(offset as usize), 8, None, None)
}

fn read_program(
    dwarf: &gimli::Dwarf<Slice<'_>>,
    unit: &Unit,
    index: u32,
    budget: &mut usize,
    all: &mut Rows,
) -> gimli::Result<()> {
    let Some(offset) = unit.lines else { return Ok(()) };
    let program = program(dwarf, offset)?;
    match budget.checked_sub(program.header().unit_length()) {
        Some(left) => *budget = left,
        None => return Ok(()),
    }
    let mut steps = program.rows();
    let mut rows: Vec<Row> = Vec::new();
    while let Some((_, row)) = steps.next_row()? {
        let address = row.address();
        if row.end_sequence() {
            let mut rows = std::mem::take(&mut rows);
            rows.sort_by_key(|r| r.address);
            if let Some(first) = rows.first() {
                all.sequences.push(Sequence { start: first.address, end: address, rows });
            }
            continue;
        }
        rows.push(Row {
            address,
            unit: index,
            file: row.file_index() as u32,
            line: row.line().map_or(0, |l| u32::try_from(l.get()).unwrap_or(0)),
        });
    }
    Ok(())
}
