//! From the bytes of an object to its model.

use std::collections::BTreeSet;

use object::elf;
use object::read::elf::{FileHeader, Rela as _, SectionHeader as _, Sym as _};
use object::{Endianness, SectionIndex};

use xsplice_report::{Diagnostic, Place, Problems};

use crate::Class;
use crate::codes::{OBJECT_UNREADABLE, SECTION_GROUP, UNKNOWN_RELOCATION, UNKNOWN_SYMBOL};
use crate::model::{Home, Object, RelocKind, Relocation, Section, SectionId, Symbol, SymbolId, SymbolKind};
use crate::names::Names;

type Header = elf::FileHeader64<Endianness>;

/// The FILE symbol that counts for local symbols: the last one in front of the first of them. Sources that are compiled
/// several times name their objects by one of their own (`.file` in xen/arch/x86/mm/shadow/multi.c up to 4.15).
fn file_of(symbols: &[Symbol]) -> Option<&Symbol> {
    let is_file = |symbol: &&Symbol| symbol.kind == SymbolKind::File;
    let is_named = |symbol: &Symbol| {
        symbol.local
            && !symbol.name.is_empty()
            && !matches!(symbol.kind, SymbolKind::File | SymbolKind::Section)
    };
    let first = symbols.iter().position(is_named).unwrap_or(symbols.len());
    symbols[..first].iter().rfind(is_file).or_else(|| symbols.iter().find(is_file))
}

impl Object {
    /// Whether the bytes are a 32-bit ELF file, as boot code that runs before long mode is.
    pub fn is_32_bit(bytes: &[u8]) -> bool {
        bytes.starts_with(&elf::ELFMAG) && bytes.get(4) == Some(&elf::ELFCLASS32.0)
    }

    /// Reads an object. `path` is relative to the tree and only named in diagnostics.
    ///
    /// # Errors
    /// When it is not a relocatable ELF file for x86-64, when an index or range leads nowhere, or when it uses
    /// a relocation type, a symbol type or a section group that is not understood. All that is found is reported,
    /// with the function it belongs to.
    pub fn parse(path: &str, bytes: &[u8]) -> Result<Object, Problems> {
        let unreadable = |error: object::read::Error| {
            Problems::from(
                Diagnostic::new(OBJECT_UNREADABLE, format!("cannot read an object of the build: {error}"))
                    .at(Place::object(path))
                    .why("Without every object the change cannot be known in full.")
                    .advice("Check the build's log for a compiler or disk problem, and run again."),
            )
        };
        let header = Header::parse(bytes).map_err(unreadable)?;
        let endian = header.endian().map_err(unreadable)?;
        if header.e_type(endian) != elf::ET_REL || header.e_machine(endian) != elf::EM_X86_64 {
            let what = "an object of the build is not a relocatable file for x86-64";
            return Err(Diagnostic::new(OBJECT_UNREADABLE, what)
                .at(Place::object(path))
                .why("Other architectures, and objects of link-time optimisation, are not understood.")
                .advice("Build for x86-64 without link-time optimisation.")
                .into());
        }
        let table = header.sections(endian, bytes).map_err(unreadable)?;
        let symtab = table.symbols(endian, bytes, elf::SHT_SYMTAB).map_err(unreadable)?;
        let mut problems = Problems::new();
        let mut sections = Vec::with_capacity(table.len());
        let mut copied = 0;
        let mut names = Names::of(bytes.len());
        for section in table.iter() {
            let name = String::from_utf8_lossy(table.section_name(endian, section).map_err(unreadable)?);
            if !names.take(name.len()) {
                return Err(long_names(path).into());
            }
            let kind = section.sh_type(endian);
            if kind == elf::SHT_GROUP {
                // The symbol that names the group (ELF: sh_info of a SHT_GROUP section).
                let index = object::SymbolIndex(section.sh_info(endian) as usize);
                let signature = symtab.symbol(index).and_then(|s| symtab.symbol_name(endian, s));
                problems.push(group(path, &name, &String::from_utf8_lossy(signature.unwrap_or_default())));
            }
            let flags = section.sh_flags(endian).0;
            let data = section.data(endian, bytes).map_err(unreadable)?;
            copied += data.len();
            if copied > bytes.len() {
                return Err(overlapping(path, &name).into());
            }
            sections.push(Section {
                class: Class::of(&name, kind, flags),
                name: name.into_owned(),
                flags,
                align: section.sh_addralign(endian).max(1),
                entry_size: section.sh_entsize(endian),
                size: section.sh_size(endian),
                data: data.to_vec(),
                relocations: Vec::new(),
            });
        }
        problems.extend(too_large(path, &sections));
        let mut symbols = Vec::with_capacity(symtab.len());
        for (index, symbol) in symtab.enumerate() {
            let name = symtab.symbol_name(endian, symbol).map_err(unreadable)?;
            if !names.take(name.len()) {
                return Err(long_names(path).into());
            }
            let home = home(&symtab, endian, index, symbol, sections.len()).map_err(unreadable)?;
            symbols.push(Symbol {
                name: String::from_utf8_lossy(name).into_owned(),
                local: symbol.st_bind() == elf::STB_LOCAL,
                weak: symbol.st_bind() == elf::STB_WEAK,
                kind: match symbol.st_type() {
                    elf::STT_NOTYPE => SymbolKind::None,
                    elf::STT_OBJECT => SymbolKind::Data,
                    elf::STT_FUNC => SymbolKind::Function,
                    elf::STT_SECTION => SymbolKind::Section,
                    elf::STT_FILE => SymbolKind::File,
                    other => SymbolKind::Other(other.0),
                },
                home,
                value: symbol.st_value(endian),
                size: symbol.st_size(endian),
            });
        }
        problems.extend(symbols.iter().find_map(|symbol| far_symbol(path, symbol)));
        problems.extend(absent_content(path, &sections, &symbols));
        problems.extend(symbols.iter().filter_map(|symbol| unknown_symbol(path, symbol, &sections)));
        for section in table.iter() {
            let Some((relocations, _)) = section.rela(endian, bytes).map_err(unreadable)? else { continue };
            let target = section.info_link(endian);
            read_relocations(path, endian, relocations, target, &mut sections, &symbols, &mut problems);
        }
        for section in &mut sections {
            section.relocations.sort_by_key(|r| r.offset);
        }
        problems.normalise();
        if !problems.0.is_empty() {
            return Err(problems);
        }
        let file = file_of(&symbols).map(|symbol| symbol.name.clone());
        Ok(Object { path: path.to_owned(), sections, symbols, file })
    }
}

/// Many sections over one large place would take many times its memory.
fn overlapping(path: &str, section: &str) -> Diagnostic {
    Diagnostic::new(OBJECT_UNREADABLE, "sections of an object overlap in its file")
        .at(Place::object(path).section(section))
        .why("Together they are longer than the file. No compiler writes such objects.")
        .advice("Check whether the object is damaged, and build it again.")
}

/// Names that share their bytes would take many times their memory.
fn long_names(path: &str) -> Diagnostic {
    Diagnostic::new(OBJECT_UNREADABLE, "the names in an object are longer than any real ones")
        .at(Place::object(path))
        .why("One of them, or all together, would take much more memory than the file.")
        .advice("Check whether the object is damaged, and build it again.")
}

/// What all sections of an object may take that are not in the file, in bytes. Those of a whole hypervisor take a few MiB.
const LARGEST: u64 = 64 << 20;

/// A damaged size would have as much memory asked for.
fn too_large(path: &str, sections: &[Section]) -> Option<Diagnostic> {
    let absent = |section: &&Section| is_absent(section);
    let total = sections.iter().filter(absent).fold(0u64, |sum, section| sum.saturating_add(section.size));
    let largest = sections.iter().filter(absent).max_by_key(|section| section.size)?;
    (total > LARGEST).then(|| {
        let what = format!("the sections of an object that are not in its file take {total} bytes");
        Diagnostic::new(OBJECT_UNREADABLE, what)
            .at(Place::object(path).section(&largest.name))
            .why(format!(
                "No object of a hypervisor has as much zeroed data; {LARGEST} bytes are taken at most."
            ))
            .advice("Check whether the object is damaged, and build it again.")
    })
}

/// Whether a section takes no space in the file.
fn is_absent(section: &Section) -> bool {
    section.size > section.data.len() as u64
}

/// What stands against a section that is not in the file: only data can be zeroes, and code, entries and texts would be
/// millions of each.
fn absent_content(path: &str, sections: &[Section], symbols: &[Symbol]) -> Option<Diagnostic> {
    let functions = symbols.iter().filter(|symbol| symbol.kind == SymbolKind::Function);
    let with_functions: BTreeSet<usize> = functions
        .filter_map(|symbol| match symbol.home {
            Home::Section(id) => Some(id.0),
            Home::Undefined | Home::Absolute | Home::Common => None,
        })
        .collect();
    let is_more_than_data = |id: usize, section: &Section| {
        let by_class = match section.class {
            Class::Text | Class::InitText | Class::Strings | Class::Constants => true,
            Class::Special(_) | Class::BootArray => true,
            Class::InitData | Class::ReadOnly | Class::Data | Class::Bss | Class::PerCpu => false,
            Class::Ignored | Class::Tables | Class::Unknown => false,
        };
        by_class || section.flags & elf::SHF_EXECINSTR.0 != 0 || with_functions.contains(&id)
    };
    let mut absent = sections.iter().enumerate().filter(|(_, section)| is_absent(section));
    let (_, section) = absent.find(|(id, section)| is_more_than_data(*id, section))?;
    let found = Diagnostic::new(OBJECT_UNREADABLE, "an object has code or tables that are not in its file")
        .at(Place::object(path).section(&section.name))
        .why("The section takes no space in the file (SHT_NOBITS): zeroes are no functions, and no entries.")
        .advice("Check whether the object is damaged, and build it again.");
    Some(found)
}

fn group(path: &str, section: &str, signature: &str) -> Diagnostic {
    let mut what = "an object uses section groups".to_owned();
    let mut place = Place::object(path).section(section);
    if !signature.is_empty() {
        what = format!("{what}: {signature}");
        place = place.symbol(signature);
    }
    Diagnostic::new(SECTION_GROUP, what)
        .at(place)
        .why("Which of several copies the hypervisor keeps is the linker's choice.")
        .advice("Xen's own build makes none; look at the compiler flags that were added.")
}

/// Places, sizes and addends are nearer to 0 than this, so that sums of some of them are numbers. Those of real objects
/// are addresses of the hypervisor at most, of 47 bits and a sign.
const FARTHEST: u64 = 1 << 60;

/// What stands against a symbol's place: no section is as long.
fn far_symbol(path: &str, symbol: &Symbol) -> Option<Diagnostic> {
    let place = match symbol.home {
        Home::Section(_) => symbol.value,
        Home::Undefined | Home::Absolute | Home::Common => symbol.value.cast_signed().unsigned_abs(),
    };
    (place > FARTHEST || symbol.size > FARTHEST).then(|| {
        Diagnostic::new(OBJECT_UNREADABLE, "a symbol is further away or larger than anything can be")
            .at(Place::object(path).symbol(&symbol.name))
            .why("What is at its address cannot be told.")
            .advice("Check whether the object is damaged, and build it again.")
    })
}

/// What stands against a symbol: its type is none of those that a hypervisor's C and assembler code have.
fn unknown_symbol(path: &str, symbol: &Symbol, sections: &[Section]) -> Option<Diagnostic> {
    let SymbolKind::Other(kind) = symbol.kind else { return None };
    let mut place = Place::object(path).symbol(&symbol.name);
    if let Home::Section(id) = symbol.home {
        place = place.section(&sections[id.0].name);
    }
    let found = Diagnostic::new(UNKNOWN_SYMBOL, format!("{} has symbol type {kind}", symbol.name))
        .at(place)
        .why("What is at its address, and who decides what it refers to, is not known here.")
        .advice("Compile without thread-local storage and indirect functions, which Xen does not use.");
    Some(found)
}

/// The functions of a section with where they start and end, in ascending order.
fn functions_of(symbols: &[Symbol], section: SectionId) -> Vec<(u64, u64, &str)> {
    let here =
        |symbol: &&Symbol| symbol.kind == SymbolKind::Function && symbol.home == Home::Section(section);
    let mut functions = Vec::new();
    for symbol in symbols.iter().filter(here) {
        functions.push((symbol.value, symbol.value.saturating_add(symbol.size), symbol.name.as_str()));
    }
    functions.sort_unstable();
    functions
}

/// The function that covers an offset.
fn function_at<'s>(functions: &[(u64, u64, &'s str)], offset: u64) -> Option<&'s str> {
    let after = functions.partition_point(|(start, _, _)| *start <= offset);
    functions[..after].last().filter(|(_, end, _)| offset < *end).map(|(_, _, name)| *name)
}

fn home(
    symtab: &object::read::elf::SymbolTable<'_, Header>,
    endian: Endianness,
    index: object::SymbolIndex,
    symbol: &elf::Sym64<Endianness>,
    sections: usize,
) -> object::read::Result<Home> {
    if let Some(section) = symtab.symbol_section(endian, symbol, index)? {
        return if section.0 < sections {
            Ok(Home::Section(SectionId(section.0)))
        } else {
            // The low-level reader does not check this.
            Ok(Home::Undefined)
        };
    }
    Ok(match symbol.st_shndx(endian) {
        elf::SHN_ABS => Home::Absolute,
        elf::SHN_COMMON => Home::Common,
        _ => Home::Undefined,
    })
}

fn read_relocations(
    path: &str,
    endian: Endianness,
    relocations: &[elf::Rela64<Endianness>],
    target: SectionIndex,
    sections: &mut [Section],
    symbols: &[Symbol],
    problems: &mut Problems,
) {
    let Some(section) = sections.get_mut(target.0) else { return };
    if matches!(section.class, Class::Ignored | Class::Tables) {
        return;
    }
    // Asked for only where something is wrong.
    let mut functions = None;
    for rela in relocations {
        let kind = match rela.r_type(endian, false) {
            elf::R_X86_64_NONE => continue,
            elf::R_X86_64_64 => RelocKind::Abs64,
            elf::R_X86_64_PC32 | elf::R_X86_64_PLT32 => RelocKind::Pc32,
            elf::R_X86_64_32 | elf::R_X86_64_32S => RelocKind::Abs32,
            elf::R_X86_64_PC64 => RelocKind::Pc64,
            elf::R_X86_64_16 | elf::R_X86_64_PC16 | elf::R_X86_64_8 | elf::R_X86_64_PC8 => RelocKind::Small,
            other => {
                let offset = rela.r_offset(endian);
                let mut place = Place::object(path).section(&section.name).offset(offset);
                let mut what = format!("relocation type {} is not understood", other.0);
                let functions = functions.get_or_insert_with(|| functions_of(symbols, SectionId(target.0)));
                if let Some(function) = function_at(functions, offset) {
                    place = place.symbol(function);
                    what =
                        format!("{function} has a relocation of type {}, which is not understood", other.0);
                }
                problems.push(
                    Diagnostic::new(UNKNOWN_RELOCATION, what)
                        .at(place)
                        .why("What the code refers to there cannot be told, so a change of it could be missed.")
                        .advice("Compile without thread-local storage, a GOT or other features that Xen does not use."),
                );
                continue;
            }
        };
        let offset = rela.r_offset(endian);
        let symbol = rela.r_sym(endian, false) as usize;
        let addend = rela.r_addend(endian);
        let outside = offset.checked_add(kind.width()).is_none_or(|end| end > section.size);
        if symbol >= symbols.len() || outside || addend.unsigned_abs() > FARTHEST {
            problems.push(
                Diagnostic::new(
                    OBJECT_UNREADABLE,
                    "a relocation lies outside its section, names no symbol or leads too far",
                )
                .at(Place::object(path).section(&section.name).offset(offset))
                .advice("Check the build's log for a compiler or disk problem, and run again."),
            );
            continue;
        }
        section.relocations.push(Relocation { offset, kind, symbol: SymbolId(symbol), addend });
    }
}
