//! What a payload says to Xen: functions, hooks, notes, metadata and special-section entries.
//!
//! Decoding follows relocations and judges nothing; the rules do that.

use super::{Payload, Section, Target};
use crate::elf;

/// Entry sizes of `struct livepatch_func` with the payload version that goes with each: 104 bytes from
/// Xen 4.14 on, 64 bytes up to 4.13 (xen/include/public/sysctl.h).
pub(crate) const FUNC_CHECKED_SIZES: [(u64, u8); 2] = [(104, 2), (64, 1)];

/// Offset of the version byte in `struct livepatch_func`.
const VERSION_AT: u64 = 32;
/// Offset of the expectation in the form of 104 bytes.
const EXPECT_AT: u64 = 72;

/// One entry of `.livepatch.funcs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Func {
    /// Bytes from the start of the section.
    pub offset: u64,
    /// What the `name` pointer refers to.
    pub name_target: Target,
    /// The name; empty where the pointer leads nowhere.
    pub name: String,
    /// Replacement; a literal 0 asks for NOPs.
    pub new: Target,
    /// What is replaced; a literal 0 asks Xen to look the name up.
    pub old: Target,
    /// Bytes of the replacement, or of NOPs.
    pub new_size: u32,
    /// Bytes of what is replaced.
    pub old_size: u32,
    /// Layout version of the payload.
    pub version: u8,
    /// Whether every byte that has no meaning in a file is 0, and none is relocated.
    pub rest_is_zero: bool,
    /// The expectation, in the layouts that have one.
    pub expectation: Option<Expectation>,
}

impl Func {
    /// Whether it asks for NOPs instead of a jump.
    pub fn is_nop(&self) -> bool {
        self.new == Target::Literal(0)
    }
}

/// The bytes that must be found before an apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// Whether Xen looks at it at all.
    pub enabled: bool,
    /// How many bytes are compared: 0 to 31.
    pub len: u8,
    /// Two bits that must be 0.
    pub reserved: u8,
    /// The bytes.
    pub data: [u8; 31],
}

impl Expectation {
    /// The bytes that are compared.
    pub fn bytes(&self) -> &[u8] {
        &self.data[..usize::from(self.len.min(31))]
    }
}

/// One entry of a hook section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// The last part of the section's name: load, unload, preapply and so on.
    pub kind: &'static str,
    /// Index of the section.
    pub section: usize,
    /// Bytes from its start.
    pub offset: u64,
    /// The function.
    pub target: Target,
}

/// One bug frame (xen/arch/x86/include/asm/bug.h, 4.13 to 4.20; xen/include/xen/bug.h later).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BugFrame {
    /// 0 to 3: see [`bug_frame_kind`].
    pub kind: u8,
    /// Index of the section.
    pub section: usize,
    /// Bytes from its start.
    pub offset: u64,
    /// The trapping instruction plus the upper 7 bits of the line number times 2^24.
    pub location: Target,
    /// File name or function plus the lower 7 bits of the line number times 2^24.
    pub pointer: Target,
    /// The text of an assertion.
    pub message: Option<Target>,
}

/// What a bug frame of a kind is for.
pub fn bug_frame_kind(kind: u8) -> &'static str {
    ["run function", "warning", "bug", "assertion"].get(usize::from(kind)).copied().unwrap_or("unknown")
}

/// One alternative: `struct alt_instr` of 14 bytes (xen/arch/x86/include/asm/alternative.h, 4.13 to 4.22).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alternative {
    /// Bytes from the start of `.altinstructions`.
    pub offset: u64,
    /// The instructions that may be replaced.
    pub original: Target,
    /// What replaces them.
    pub replacement: Target,
    /// The CPU feature; bit 15 negates it.
    pub feature: u16,
    /// Bytes of the original, padding not counted.
    pub original_len: u8,
    /// Bytes of the replacement.
    pub replacement_len: u8,
    /// Bytes of padding behind the original.
    pub pad_len: u8,
    /// Xen's own note; 0 in a file.
    pub private: u8,
}

/// One entry of `.alt_call_sites` (Xen 4.21 and later).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallSite {
    /// Bytes from the start of the section.
    pub offset: u64,
    /// The indirect call.
    pub site: Target,
}

/// One entry of `.ex_table`: two displacements (xen/arch/x86/include/asm/uaccess.h).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableEntry {
    /// Bytes from the start of the section.
    pub offset: u64,
    /// The instruction that may fault.
    pub fault: Target,
    /// Where execution goes on.
    pub fixup: Target,
}

/// The hook sections with the kind of each, in the order in which Xen comes to them, and whether one
/// holds an array (else exactly one pointer).
pub fn hook_kinds() -> [(&'static str, &'static str, bool); 8] {
    [
        (".livepatch.hooks.load", "load", true),
        (".livepatch.hooks.preapply", "preapply", false),
        (".livepatch.hooks.apply", "apply", false),
        (".livepatch.hooks.postapply", "postapply", false),
        (".livepatch.hooks.prerevert", "prerevert", false),
        (".livepatch.hooks.revert", "revert", false),
        (".livepatch.hooks.postrevert", "postrevert", false),
        (".livepatch.hooks.unload", "unload", true),
    ]
}

/// Everything decoded.
#[derive(Debug, Clone, Default)]
pub struct Content {
    /// Bytes of one `struct livepatch_func`, given or guessed; `None` if there are none or no guess fits.
    pub funcs_size: Option<u64>,
    /// Entries of `.livepatch.funcs`; only whole ones.
    pub funcs: Vec<Func>,
    /// Entries of all hook sections.
    pub hooks: Vec<Hook>,
    /// The payload's own id, if its note is sound.
    pub build_id: Option<Vec<u8>>,
    /// The id that must be last applied.
    pub depends: Option<Vec<u8>>,
    /// The hypervisor's id.
    pub xen_depends: Option<Vec<u8>>,
    /// `.modinfo` in file order, split at the first `=`; the value is empty without one.
    pub metadata: Vec<(String, String)>,
    /// All bug frames, by kind.
    pub bug_frames: Vec<BugFrame>,
    /// All alternatives, altcalls included.
    pub alternatives: Vec<Alternative>,
    /// All entries of `.alt_call_sites`.
    pub call_sites: Vec<CallSite>,
    /// All entries of `.ex_table`.
    pub table_entries: Vec<TableEntry>,
}

impl Content {
    /// Decodes everything. `funcs_size`: bytes of one `struct livepatch_func`, where that is known.
    pub fn read(payload: &Payload<'_>, funcs_size: Option<u64>) -> Content {
        let funcs_size = funcs_size.or_else(|| guess_funcs_size(payload));
        let id = |name| {
            let data = payload.section(name)?.data?;
            elf::build_id_note(data).ok().map(<[u8]>::to_vec)
        };
        Content {
            funcs_size,
            funcs: funcs_size.map(|size| funcs(payload, size)).unwrap_or_default(),
            hooks: hooks(payload),
            build_id: id(".note.gnu.build-id"),
            depends: id(".livepatch.depends"),
            xen_depends: id(".livepatch.xen_depends"),
            metadata: metadata(payload),
            bug_frames: bug_frames(payload),
            alternatives: alternatives(payload),
            call_sites: call_sites(payload),
            table_entries: table_entries(payload),
        }
    }
}

/// The offsets of the whole entries of a section, bounded by its contents.
fn entries<'s>(section: &'s Section<'_>, size: u64) -> impl Iterator<Item = u64> + use<'s> {
    let count = match section.data {
        Some(data) if size > 0 => data.len() as u64 / size,
        _ => 0,
    };
    (0..count).map(move |i| i * size)
}

/// Bytes of one entry of `.livepatch.funcs`, told by its size and the version byte of every entry.
fn guess_funcs_size(payload: &Payload<'_>) -> Option<u64> {
    let section = payload.section(".livepatch.funcs")?;
    let data = section.data.filter(|data| !data.is_empty())?;
    let fits = |size: u64, version: u8| {
        section.size.is_multiple_of(size)
            && entries(section, size).all(|at| data.get((at + VERSION_AT) as usize) == Some(&version))
    };
    FUNC_CHECKED_SIZES.iter().find(|(size, version)| fits(*size, *version)).map(|(size, _)| *size)
}

fn funcs(payload: &Payload<'_>, size: u64) -> Vec<Func> {
    let Some(section) = payload.section(".livepatch.funcs") else { return Vec::new() };
    // Anything shorter has no version byte.
    if size <= VERSION_AT {
        return Vec::new();
    }
    entries(section, size).filter_map(|at| func(payload, section, at, size)).collect()
}

fn func(payload: &Payload<'_>, section: &Section<'_>, at: u64, size: u64) -> Option<Func> {
    let index = section.index;
    let entry = elf::slice(section.data?, at, size)?;
    let name_target = payload.pointer(index, at);
    let name = match name_target {
        Target::Section { section, offset } => payload.string_at(section, offset).unwrap_or_default(),
        _ => "",
    };
    let expectation = (size >= EXPECT_AT + 32).then(|| {
        let bits = entry[EXPECT_AT as usize];
        let mut data = [0; 31];
        data.copy_from_slice(&entry[EXPECT_AT as usize + 1..EXPECT_AT as usize + 32]);
        Expectation { enabled: bits & 1 != 0, len: (bits >> 1) & 31, reserved: bits >> 6, data }
    });
    let rest_end = if expectation.is_some() { EXPECT_AT } else { size };
    let rest = &entry[VERSION_AT as usize + 1..rest_end as usize];
    let relocated = payload.relocations_in(index, at + 24..at + size).next().is_some();
    Some(Func {
        offset: at,
        name_target,
        name: name.to_string(),
        new: payload.pointer(index, at + 8),
        old: payload.pointer(index, at + 16),
        new_size: elf::u32_at(entry, 24)?,
        old_size: elf::u32_at(entry, 28)?,
        version: entry[VERSION_AT as usize],
        rest_is_zero: rest.iter().all(|&b| b == 0) && !relocated,
        expectation,
    })
}

fn hooks(payload: &Payload<'_>) -> Vec<Hook> {
    let mut hooks = Vec::new();
    for (name, kind, _) in hook_kinds() {
        let Some(section) = payload.section(name) else { continue };
        hooks.extend(entries(section, 8).map(|offset| Hook {
            kind,
            section: section.index,
            offset,
            target: payload.pointer(section.index, offset),
        }));
    }
    hooks
}

fn metadata(payload: &Payload<'_>) -> Vec<(String, String)> {
    let data = payload.section(".modinfo").and_then(|s| s.data).unwrap_or_default();
    data.split(|&b| b == 0)
        .filter(|item| !item.is_empty())
        .map(|item| {
            let text = String::from_utf8_lossy(item);
            let (key, value) = text.split_once('=').unwrap_or((&text, ""));
            (key.to_string(), value.to_string())
        })
        .collect()
}

fn bug_frames(payload: &Payload<'_>) -> Vec<BugFrame> {
    let mut frames = Vec::new();
    for kind in 0..4u8 {
        let Some(section) = payload.section(&format!(".bug_frames.{kind}")) else { continue };
        // An assertion has a second half for its text.
        let size = if kind == 3 { 16 } else { 8 };
        let index = section.index;
        frames.extend(entries(section, size).map(|at| BugFrame {
            kind,
            section: index,
            offset: at,
            location: payload.displacement(index, at, at),
            pointer: payload.displacement(index, at + 4, at),
            message: (kind == 3).then(|| payload.displacement(index, at + 12, at)),
        }));
    }
    frames
}

fn alternatives(payload: &Payload<'_>) -> Vec<Alternative> {
    let Some(section) = payload.section(".altinstructions") else { return Vec::new() };
    let data = section.data.unwrap_or_default();
    let byte = |at: u64| data.get(at as usize).copied().unwrap_or(0);
    entries(section, 14)
        .map(|at| Alternative {
            offset: at,
            original: payload.displacement(section.index, at, at),
            replacement: payload.displacement(section.index, at + 4, at + 4),
            feature: elf::u16_at(data, at + 8).unwrap_or(0),
            original_len: byte(at + 10),
            replacement_len: byte(at + 11),
            pad_len: byte(at + 12),
            private: byte(at + 13),
        })
        .collect()
}

fn call_sites(payload: &Payload<'_>) -> Vec<CallSite> {
    let Some(section) = payload.section(".alt_call_sites") else { return Vec::new() };
    entries(section, 4)
        .map(|at| CallSite { offset: at, site: payload.displacement(section.index, at, at) })
        .collect()
}

fn table_entries(payload: &Payload<'_>) -> Vec<TableEntry> {
    let Some(section) = payload.section(".ex_table") else { return Vec::new() };
    entries(section, 8)
        .map(|at| TableEntry {
            offset: at,
            fault: payload.displacement(section.index, at, at),
            fixup: payload.displacement(section.index, at + 4, at + 4),
        })
        .collect()
}

impl Alternative {
    /// Whether it is an altcall (up to Xen 4.20): a literal `call` or `jmp` to itself that stands for the
    /// target of an indirect call or jump through a pointer.
    pub fn is_altcall(&self, payload: &Payload<'_>) -> bool {
        let bytes = |target, len| match target {
            Target::Section { section, offset } => {
                let data = payload.sections.get(section).and_then(|s| s.data);
                u64::try_from(offset).ok().and_then(|offset| elf::slice(data?, offset, len))
            }
            _ => None,
        };
        let replacement = bytes(self.replacement, 5);
        let original = bytes(self.original, 2);
        matches!(replacement, Some([0xe8 | 0xe9, 0xfb, 0xff, 0xff, 0xff]))
            && matches!(original, Some([0xff, 0x15 | 0x25]))
            && self.replacement_len == 5
    }
}
