//! Where everything goes.

use std::collections::BTreeMap;

use object::elf;
use sha1::{Digest, Sha1};
use xsplice_diff::{Expectation, Patchable, PieceId, PieceKind, Target};
use xsplice_objects::{HookKind, RelocKind};

use crate::{emit, note};

/// The tree's own `struct livepatch_func` (xen/include/public/sysctl.h), in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FuncsLayout {
    /// LIVEPATCH_PAYLOAD_VERSION.
    pub version: u8,
    /// Size of the structure.
    pub size: u64,
    /// Offset of `name`.
    pub name: u64,
    /// Offset of `new_addr`.
    pub new_addr: u64,
    /// Offset of `old_addr`.
    pub old_addr: u64,
    /// Offset of `new_size`.
    pub new_size: u64,
    /// Offset of `old_size`.
    pub old_size: u64,
    /// Offset of `version`.
    pub version_at: u64,
    /// Offset of `expect`, a byte of bits and 31 of data, in layouts that have it.
    pub expect: Option<u64>,
}

impl FuncsLayout {
    /// Bytes of `struct livepatch_expectation`.
    pub const EXPECTATION: u64 = 32;
}

/// What the payload stands on; ids in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    /// Of the hypervisor, or of the payload below.
    pub depends: Vec<u8>,
    /// Of the hypervisor.
    pub xen_depends: Vec<u8>,
}

/// What the payload says of itself in `.modinfo`, as `key=value`.
pub type Metadata = Vec<(String, String)>;

/// A finished payload.
#[derive(Debug, Clone)]
pub struct PayloadImage {
    bytes: Vec<u8>,
    build_id: Vec<u8>,
}

impl PayloadImage {
    /// Lays out a checked selection and writes it.
    pub fn link(patchable: &Patchable, funcs: &FuncsLayout, ids: &Ids, metadata: &Metadata) -> PayloadImage {
        // The id must say what the payload is and nothing else: it is the hash of the file with an empty id.
        let draft = emit::file(&Layout::of(patchable, funcs, ids, metadata, &[0; 20]));
        let build_id = Sha1::digest(&draft).to_vec();
        let bytes = emit::file(&Layout::of(patchable, funcs, ids, metadata, &build_id));
        PayloadImage { bytes, build_id }
    }

    /// The bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its own build-id, 20 bytes.
    pub fn build_id(&self) -> &[u8] {
        &self.build_id
    }
}

/// What a relocation of the payload refers to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Referent {
    /// A section of the payload, by its place in [`Layout::sections`].
    Section(usize),
    /// A symbol of the payload by its name.
    Defined(String),
    /// A name that the loader looks up.
    Undefined(String),
    /// An address, with the name of what is there. The loader keeps it as it is, and exports no such symbol
    /// (`livepatch_elf_resolve_symbols` and `is_payload_symbol`, 4.13 to 4.22).
    Absolute { name: String, address: u64 },
}

pub(crate) struct Relocation {
    pub(crate) offset: u64,
    pub(crate) kind: RelocKind,
    pub(crate) referent: Referent,
    pub(crate) addend: i64,
}

pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) kind: elf::SectionType,
    pub(crate) flags: u64,
    pub(crate) align: u64,
    pub(crate) size: u64,
    pub(crate) data: Vec<u8>,
    pub(crate) relocations: Vec<Relocation>,
}

pub(crate) struct Defined {
    pub(crate) name: String,
    pub(crate) section: usize,
    pub(crate) value: u64,
    pub(crate) size: u64,
    pub(crate) function: bool,
    pub(crate) global: bool,
}

/// The payload's sections and symbols.
#[derive(Default)]
pub(crate) struct Layout {
    pub(crate) sections: Vec<Section>,
    pub(crate) defined: Vec<Defined>,
}

const ALLOC: u64 = elf::SHF_ALLOC.0;
const CODE: u64 = ALLOC | elf::SHF_EXECINSTR.0;
const WRITE: u64 = ALLOC | elf::SHF_WRITE.0;

/// In the first byte of `struct livepatch_expectation`: bit 0 says that it counts, five bits how many bytes do.
const EXPECT_ENABLED: u8 = 1;
const EXPECT_LEN: u8 = 1;

/// The sections that pieces go to, in the order of the file.
const HOMES: &[(PieceKind, &str, u64)] = &[
    (PieceKind::Text, ".text", CODE),
    (PieceKind::Fixup, ".fixup", CODE),
    (PieceKind::Replacement, ".altinstr_replacement", CODE),
    (PieceKind::ReadOnly, ".rodata", ALLOC),
    (PieceKind::Data, ".data", WRITE),
    (PieceKind::Bss, ".bss", WRITE),
    (PieceKind::BugFrame(0), ".bug_frames.0", ALLOC),
    (PieceKind::BugFrame(1), ".bug_frames.1", ALLOC),
    (PieceKind::BugFrame(2), ".bug_frames.2", ALLOC),
    (PieceKind::BugFrame(3), ".bug_frames.3", ALLOC),
    (PieceKind::Alternative, ".altinstructions", ALLOC),
    (PieceKind::AltCallSite, ".alt_call_sites", ALLOC),
    (PieceKind::ExceptionEntry, ".ex_table", ALLOC),
    (PieceKind::Hook(HookKind::Load), ".livepatch.hooks.load", ALLOC),
    (PieceKind::Hook(HookKind::Unload), ".livepatch.hooks.unload", ALLOC),
    (PieceKind::Hook(HookKind::PreApply), ".livepatch.hooks.preapply", ALLOC),
    (PieceKind::Hook(HookKind::Apply), ".livepatch.hooks.apply", ALLOC),
    (PieceKind::Hook(HookKind::PostApply), ".livepatch.hooks.postapply", ALLOC),
    (PieceKind::Hook(HookKind::PreRevert), ".livepatch.hooks.prerevert", ALLOC),
    (PieceKind::Hook(HookKind::Revert), ".livepatch.hooks.revert", ALLOC),
    (PieceKind::Hook(HookKind::PostRevert), ".livepatch.hooks.postrevert", ALLOC),
];

impl Layout {
    fn of(patchable: &Patchable, funcs: &FuncsLayout, ids: &Ids, metadata: &Metadata, id: &[u8]) -> Layout {
        let mut layout = Layout::default();
        let places = layout.place(patchable);
        layout.relocate(patchable, &places);
        layout.describe_functions(patchable, funcs, &places);
        layout.note(".livepatch.depends", &ids.depends);
        layout.note(".livepatch.xen_depends", &ids.xen_depends);
        layout.note(".note.gnu.build-id", id);
        let mut text = Vec::new();
        for (key, value) in metadata {
            text.extend_from_slice(format!("{key}={value}").replace('\0', " ").as_bytes());
            text.push(0);
        }
        // An empty one would make the loader read outside it.
        if !text.is_empty() {
            layout.add(".modinfo", elf::SHT_PROGBITS, ALLOC, 1, text);
        }
        layout
    }

    fn add(&mut self, name: &str, kind: elf::SectionType, flags: u64, align: u64, data: Vec<u8>) -> usize {
        let size = data.len() as u64;
        self.sections.push(Section {
            name: name.into(),
            kind,
            flags,
            align,
            size,
            data,
            relocations: Vec::new(),
        });
        self.sections.len() - 1
    }

    fn note(&mut self, name: &str, id: &[u8]) {
        self.add(name, elf::SHT_NOTE, ALLOC, 4, note::build_id(id));
    }

    /// Gives each piece its section and offset.
    fn place(&mut self, patchable: &Patchable) -> BTreeMap<PieceId, (usize, u64)> {
        let mut places = BTreeMap::new();
        let pieces = &patchable.selection().pieces;
        for &(kind, name, flags) in HOMES {
            let mut data = Vec::new();
            let mut align = 1;
            let index = self.sections.len();
            let mut any = false;
            for (number, piece) in pieces.iter().enumerate().filter(|(_, piece)| piece.kind == kind) {
                any = true;
                align = align.max(piece.align);
                let offset = data.len().next_multiple_of(piece.align as usize);
                // Between functions stands what traps; between data, zeroes.
                data.resize(offset, if flags == CODE { 0xcc } else { 0 });
                places.insert(PieceId(number), (index, offset as u64));
                data.extend_from_slice(&piece.bytes);
                if let Some(symbol) = &piece.symbol {
                    self.defined.push(Defined {
                        name: symbol.clone(),
                        section: index,
                        value: offset as u64,
                        size: piece.declared,
                        function: flags == CODE,
                        global: piece.global,
                    });
                }
            }
            if !any {
                continue;
            }
            if data.is_empty() {
                // Alternatives without replacement code: Xen 4.13 leaves references to an empty section alone.
                data.push(0xcc);
            }
            if kind == PieceKind::Bss {
                let size = data.len() as u64;
                self.add(name, elf::SHT_NOBITS, flags, align, Vec::new());
                self.sections[index].size = size;
            } else {
                self.add(name, elf::SHT_PROGBITS, flags, align, data);
            }
        }
        places
    }

    fn relocate(&mut self, patchable: &Patchable, places: &BTreeMap<PieceId, (usize, u64)>) {
        let pieces = &patchable.selection().pieces;
        for (number, piece) in pieces.iter().enumerate() {
            let (section, start) = places[&PieceId(number)];
            for reference in &piece.references {
                let (referent, shift) = match &reference.target {
                    Target::Hypervisor(name) => (Referent::Undefined(name.clone()), 0),
                    Target::Address { name, address } => {
                        (Referent::Absolute { name: name.clone(), address: *address }, 0)
                    }
                    Target::Piece(id) => match &pieces[id.0].symbol {
                        Some(symbol) => (Referent::Defined(symbol.clone()), 0),
                        None => (Referent::Section(places[id].0), places[id].1),
                    },
                };
                self.sections[section].relocations.push(Relocation {
                    offset: start + reference.offset,
                    kind: reference.kind,
                    referent,
                    addend: reference.addend + shift.cast_signed(),
                });
            }
        }
        for section in &mut self.sections {
            section.relocations.sort_by_key(|r| r.offset);
        }
    }

    fn describe_functions(
        &mut self,
        patchable: &Patchable,
        funcs: &FuncsLayout,
        places: &BTreeMap<PieceId, (usize, u64)>,
    ) {
        let count = patchable.functions().len();
        if count == 0 {
            // A payload of hooks only; the loader refuses an empty list of functions.
            return;
        }
        let mut names = Vec::new();
        let mut entries = vec![0; count * funcs.size as usize];
        let mut relocations = Vec::new();
        let strings = self.sections.len();
        for (index, function) in patchable.functions().iter().enumerate() {
            let start = index as u64 * funcs.size;
            let mut put = |at: u64, bytes: &[u8]| {
                let at = (start + at) as usize;
                entries[at..at + bytes.len()].copy_from_slice(bytes);
            };
            put(funcs.new_size, &(function.new_size as u32).to_le_bytes());
            put(funcs.old_size, &(function.old_size as u32).to_le_bytes());
            put(funcs.version_at, &[funcs.version]);
            // Without one, the loader looks the name up.
            put(funcs.old_addr, &function.address.unwrap_or(0).to_le_bytes());
            if let (Some(at), Expectation::Bytes(expected)) = (funcs.expect, &function.expectation) {
                put(at, &[EXPECT_ENABLED | (expected.len() as u8) << EXPECT_LEN]);
                put(at + 1, expected);
            }
            let mut refer = |at: u64, referent: Referent, addend: i64| {
                relocations.push(Relocation { offset: start + at, kind: RelocKind::Abs64, referent, addend });
            };
            refer(funcs.name, Referent::Section(strings), names.len() as i64);
            names.extend_from_slice(function.name.as_bytes());
            names.push(0);
            let (section, offset) = places[&function.piece];
            match &patchable.selection().pieces[function.piece.0].symbol {
                Some(symbol) => refer(funcs.new_addr, Referent::Defined(symbol.clone()), 0),
                None => refer(funcs.new_addr, Referent::Section(section), offset.cast_signed()),
            }
        }
        relocations.sort_by_key(|r| r.offset);
        self.add(".livepatch.strings", elf::SHT_PROGBITS, ALLOC, 1, names);
        // Writable: Xen 4.16.4 to 4.16.7, 4.17.1, 4.17.2 and 4.18.0 write their state into it.
        let index = self.add(".livepatch.funcs", elf::SHT_PROGBITS, WRITE, 8, entries);
        self.sections[index].relocations = relocations;
    }
}
