//! The shipped hypervisor, as its symbol file shows it.
//!
//! Xen resolves a payload's names in a table of its own, which xen/tools/symbols.c makes from `nm -pa` over
//! the linked file: symbols in the order of the ELF symbol table, each local one as `FILE#name` where a FILE
//! symbol stands in front of it. This module computes the same names (checked with Debian's 4.17.5+72: all
//! 7104 equal).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use object::Endianness;
use object::elf;
use object::read::elf::{FileHeader, ProgramHeader as _, SectionHeader as _, Sym as _};

use xsplice_report::{Diagnostic, Place, Problems};

use crate::codes::XEN_SYMS_UNREADABLE;
use crate::model::{COMMENT, strings};
use crate::names::Names;

type Header = elf::FileHeader64<Endianness>;

/// One symbol of the shipped hypervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shipped {
    /// The name in Xen's own table: `FILE#name` for locals.
    pub name: String,
    /// Virtual address.
    pub address: u64,
    /// Size in bytes; 0 where the file does not say.
    pub size: u64,
    /// Whether it is a function (STT_FUNC).
    pub function: bool,
    /// Whether it is local to its object.
    pub local: bool,
}

/// The shipped hypervisor's symbols, ids and text.
#[derive(Debug, Clone)]
pub struct Hypervisor {
    symbols: Vec<Shipped>,
    by_name: BTreeMap<String, Vec<usize>>,
    /// Which symbols stand behind each FILE symbol, up to the next.
    units: Vec<Range<usize>>,
    build_id: Vec<u8>,
    init: Option<(u64, u64)>,
    /// What the file holds of the image: by sections with their addresses.
    contents: Vec<(u64, Vec<u8>)>,
    compilers: BTreeSet<String>,
}

impl Hypervisor {
    /// Reads a `xen-syms` file. `file` is its name, for diagnostics.
    ///
    /// # Errors
    /// When it is not a linked ELF file for x86-64 with a symbol table.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Hypervisor, Problems> {
        let refuse = |what: String| -> Problems {
            Diagnostic::new(XEN_SYMS_UNREADABLE, what)
                .at(Place::file(file))
                .why("Its names and addresses tell what the running hypervisor can be asked for.")
                .advice("Give the xen-syms file of the shipped build, with its symbol table; Debian has it in the package ending in -dbg.")
                .into()
        };
        let unreadable =
            |error: object::read::Error| refuse(format!("cannot read the hypervisor's symbols: {error}"));
        let header = Header::parse(bytes).map_err(unreadable)?;
        let endian = header.endian().map_err(unreadable)?;
        if header.e_type(endian) != elf::ET_EXEC && header.e_type(endian) != elf::ET_DYN
            || header.e_machine(endian) != elf::EM_X86_64
        {
            return Err(refuse("this is not a linked hypervisor for x86-64".into()));
        }
        let table = header.sections(endian, bytes).map_err(unreadable)?;
        let symtab = table.symbols(endian, bytes, elf::SHT_SYMTAB).map_err(unreadable)?;
        if symtab.is_empty() {
            return Err(refuse("the file has no symbol table".into()));
        }
        let mut names = Names::of(bytes.len());
        let mut symbols: Vec<Shipped> = Vec::new();
        let mut starts = Vec::new();
        let mut file_name: Option<String> = None;
        for (index, symbol) in symtab.enumerate().skip(1) {
            let name = String::from_utf8_lossy(symtab.symbol_name(endian, symbol).map_err(unreadable)?);
            if symbol.st_type() == elf::STT_FILE {
                file_name = (!name.is_empty()).then(|| name.into_owned());
                starts.push(symbols.len());
                continue;
            }
            let section = symtab.symbol_section(endian, symbol, index).map_err(unreadable)?;
            if section.is_none() || symbol.st_type() == elf::STT_SECTION || name.is_empty() {
                continue;
            }
            let local = symbol.st_bind() == elf::STB_LOCAL;
            let name = match &file_name {
                Some(file) if local => format!("{file}#{name}"),
                _ => name.into_owned(),
            };
            if !names.take(name.len()) {
                return Err(refuse(
                    "the names of the hypervisor's symbols are longer than any real ones".into(),
                ));
            }
            symbols.push(Shipped {
                name,
                address: symbol.st_value(endian),
                size: symbol.st_size(endian),
                function: symbol.st_type() == elf::STT_FUNC,
                local,
            });
        }
        let ends = starts.iter().skip(1).copied().chain([symbols.len()]);
        let units = starts.iter().zip(ends).map(|(&start, end)| start..end).collect();
        let mut by_name: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, symbol) in symbols.iter().enumerate() {
            by_name.entry(symbol.name.clone()).or_default().push(index);
        }
        let mut build_id = Vec::new();
        for segment in header.program_headers(endian, bytes).map_err(unreadable)? {
            if let Ok(Some(mut notes)) = segment.notes(endian, bytes) {
                while let Ok(Some(note)) = notes.next() {
                    if note.name() == b"GNU" && note.n_type(endian) == elf::NT_GNU_BUILD_ID {
                        build_id = note.desc().to_vec();
                    }
                }
            }
        }
        let mut compilers = BTreeSet::new();
        let mut contents = Vec::new();
        let mut copied = 0;
        for section in table.iter() {
            copied += section.data(endian, bytes).unwrap_or_default().len();
            if copied > bytes.len() {
                return Err(refuse("sections of the hypervisor overlap in its file".into()));
            }
            // Not by segments: objcopy --only-keep-debug leaves their sizes as they were, with other bytes inside.
            if section.sh_flags(endian).0 & elf::SHF_ALLOC.0 != 0
                && section.sh_type(endian) != elf::SHT_NOBITS
                && let Ok(data) = section.data(endian, bytes)
            {
                contents.push((section.sh_addr(endian), data.to_vec()));
            }
            if table.section_name(endian, section).is_ok_and(|name| name == COMMENT.as_bytes()) {
                compilers.extend(strings(section.data(endian, bytes).unwrap_or_default()));
            }
            let Ok(Some(mut notes)) = section.notes(endian, bytes) else { continue };
            while let Ok(Some(note)) = notes.next() {
                if build_id.is_empty() && note.name() == b"GNU" && note.n_type(endian) == elf::NT_GNU_BUILD_ID
                {
                    build_id = note.desc().to_vec();
                }
            }
        }
        let mut hypervisor =
            Hypervisor { symbols, by_name, units, build_id, init: None, contents, compilers };
        hypervisor.init = match (hypervisor.unique("__init_begin"), hypervisor.unique("__init_end")) {
            (Some(begin), Some(end)) => Some((begin.address, end.address)),
            _ => None,
        };
        Ok(hypervisor)
    }

    /// All symbols, in the order of the file.
    pub fn symbols(&self) -> &[Shipped] {
        &self.symbols
    }

    /// All symbols of that name in Xen's own table.
    pub fn named<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Shipped> {
        self.by_name.get(name).into_iter().flatten().map(|&index| &self.symbols[index])
    }

    /// The one symbol of that name; `None` where there is none, or where the name has several addresses.
    pub fn unique(&self, name: &str) -> Option<&Shipped> {
        let mut all = self.named(name);
        let first = all.next()?;
        all.all(|other| other.address == first.address).then_some(first)
    }

    /// The local symbols that the linker took from each input: those behind one FILE symbol. Several inputs may have
    /// one file name.
    pub fn units(&self) -> impl Iterator<Item = impl Iterator<Item = &Shipped>> {
        self.units.iter().map(|unit| self.symbols[unit.clone()].iter().filter(|symbol| symbol.local))
    }

    /// The build-id in bytes; empty where the file has none.
    pub fn build_id(&self) -> &[u8] {
        &self.build_id
    }

    /// What the compilers and linkers that made it say of themselves (`.comment`); empty where the file has none.
    pub fn compilers(&self) -> &BTreeSet<String> {
        &self.compilers
    }

    /// Whether an address is in the part that Xen frees once it has booted.
    pub fn is_init(&self, address: u64) -> bool {
        self.init.is_some_and(|(begin, end)| (begin..end).contains(&address))
    }

    /// What functions return that do nothing but return the address of a text, by their names: those of
    /// xen/common/version.c are of that kind. Local functions and texts that are not ASCII are left out.
    pub fn returned_texts(&self) -> BTreeMap<String, String> {
        let functions = self.symbols.iter().filter(|symbol| symbol.function && !symbol.local);
        let texts = functions.filter_map(|symbol| {
            let size = usize::try_from(symbol.size).ok().filter(|&size| size <= LONGEST_RETURN)?;
            let text = returned_address(self.bytes(symbol.address, size)?, symbol.address)?;
            let unique = self.unique(&symbol.name).is_some();
            Some((symbol.name.clone(), self.text(text).filter(|_| unique)?))
        });
        texts.collect()
    }

    /// The text at an address, up to its NUL.
    fn text(&self, address: u64) -> Option<String> {
        let (start, data) = self.contents.iter().find(|(start, data)| {
            address.checked_sub(*start).is_some_and(|offset| offset < data.len() as u64)
        })?;
        let bytes = data.get(usize::try_from(address - start).ok()?..)?;
        let end = bytes.iter().take(LONGEST_TEXT).position(|&byte| byte == 0)?;
        let text = std::str::from_utf8(&bytes[..end]).ok()?;
        text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()).then(|| text.to_owned())
    }

    /// Everything that the file holds of the image: addresses, and the bytes from there on.
    pub fn contents(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.contents.iter().map(|(start, data)| (*start, data.as_slice()))
    }

    /// Bytes of the image at an address; `None` where the file does not hold all of them.
    pub fn bytes(&self, address: u64, len: usize) -> Option<&[u8]> {
        self.contents.iter().find_map(|(start, data)| {
            let offset = usize::try_from(address.checked_sub(*start)?).ok()?;
            data.get(offset..offset.checked_add(len)?)
        })
    }
}

/// The longest function that only returns an address, in bytes: ENDBR64, a frame, LEA, the way back, padding.
const LONGEST_RETURN: usize = 64;
/// The longest text that is looked for, in bytes with its NUL.
const LONGEST_TEXT: usize = 512;

/// The address that a function at `start` returns if it does nothing else: `lea ADDRESS(%rip),%rax` and a return, which
/// may be a jump to the thunk that stands for it. Encodings: Intel's manual, volume 2 (ENDBR64, LEA, POP, RET, JMP).
fn returned_address(code: &[u8], start: u64) -> Option<u64> {
    const ENDBR64: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa];
    const FRAME: &[u8] = &[0x55, 0x48, 0x89, 0xe5];
    const LEA: &[u8] = &[0x48, 0x8d, 0x05];
    let rest = code.strip_prefix(ENDBR64).unwrap_or(code);
    let framed = rest.strip_prefix(FRAME);
    let rest = framed.unwrap_or(rest).strip_prefix(LEA)?;
    let (distance, rest) = rest.split_first_chunk::<4>()?;
    let after = start.checked_add((code.len() - rest.len()) as u64)?;
    let rest = match framed {
        Some(_) => rest.strip_prefix(&[0x5d])?,
        None => rest,
    };
    let returns = match rest {
        [0xc3, ..] | [0xf3, 0xc3, ..] => true,
        // To another function: a thunk is not part of this one.
        [0xe9, a, b, c, d, ..] => {
            let from = start.checked_add((code.len() - rest.len()) as u64 + 5)?;
            let to = from.wrapping_add_signed(i64::from(i32::from_le_bytes([*a, *b, *c, *d])));
            !(start..start.checked_add(code.len() as u64)?).contains(&to)
        }
        _ => false,
    };
    returns.then(|| after.wrapping_add_signed(i64::from(i32::from_le_bytes(*distance))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_that_only_returns_an_address_is_read() {
        let lea = "48 8d 05 10 00 00 00";
        let bytes = |text: &str| -> Vec<u8> {
            text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
        };
        for (code, address) in [
            (format!("{lea} c3"), Some(0x1017)),
            (format!("f3 0f 1e fa {lea} c3 90 90"), Some(0x101b)),
            (format!("{lea} e9 00 f0 ff ff"), Some(0x1017)),
            (format!("f3 0f 1e fa 55 48 89 e5 {lea} 5d c3"), Some(0x101f)),
            ("48 8d 05 f0 ff ff ff f3 c3".to_owned(), Some(0xff7)),
            // Back to its own start, another register, more to do, cut off, nothing.
            (format!("{lea} e9 f4 ff ff ff"), None),
            ("48 8d 3d 10 00 00 00 c3".to_owned(), None),
            (format!("{lea} 48 89 c7 c3"), None),
            (format!("55 48 89 e5 {lea} c3"), None),
            (lea.to_owned(), None),
            ("48 8d 05 10".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(returned_address(&bytes(&code), 0x1000), address, "{code}");
        }
    }

    #[test]
    fn texts_of_functions_are_read_from_the_image() {
        let function = |name: &str, address: u64, local: bool| Shipped {
            name: name.to_owned(),
            address,
            size: 8,
            function: true,
            local,
        };
        let symbols = vec![
            function("when", 0x1000, false),
            function("empty", 0x1008, false),
            function("endless", 0x1010, false),
            function("a.c#local", 0x1000, true),
            function("twice", 0x1000, false),
            function("twice", 0x1008, false),
            function("outside", 0x9000, false),
        ];
        let mut code = Vec::new();
        for distance in [0xff9, 0xff6, 0xff0] {
            code.extend([0x48, 0x8d, 0x05]);
            code.extend(i32::to_le_bytes(distance));
            code.push(0xc3);
        }
        let mut by_name: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, symbol) in symbols.iter().enumerate() {
            by_name.entry(symbol.name.clone()).or_default().push(index);
        }
        let hypervisor = Hypervisor {
            symbols,
            by_name,
            units: Vec::new(),
            build_id: Vec::new(),
            init: None,
            contents: vec![(0x1000, code), (0x2000, b"Mon 1\0\0x".to_vec())],
            compilers: BTreeSet::new(),
        };
        // `when` 0x1000 + 7 + 0xff9, `empty` 0x1008 + 7 + 0xff6, `endless` 0x1010 + 7 + 0xff0.
        let texts: Vec<_> = hypervisor.returned_texts().into_iter().collect();
        let pair = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        assert_eq!(texts, [pair("empty", ""), pair("when", "Mon 1")]);
    }
}
