//! What a payload holds, as data for people and for scripts.

use serde::Serialize;
use xsplice_report::{Diagnostic, Problems};

use crate::payload::{Content, Payload, SHN_ABS, STT_FILE, Symbol, Target};
use crate::{codes, elf};

/// Version of [`Inspection`] as JSON; grows when a field changes its meaning or goes away.
pub const SCHEMA: u32 = 1;

/// Everything that `xsplice inspect` shows. The order of all lists is that of the file, or by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Bytes of the file.
    pub size: u64,
    /// The payload's own build-id in hexadecimal, if its note is sound.
    pub build_id: Option<String>,
    /// The id that must have been applied last: Xen's, or that of a payload.
    pub depends: Option<String>,
    /// The id of the hypervisor.
    pub xen_depends: Option<String>,
    /// `.modinfo`.
    pub metadata: Vec<MetadataInfo>,
    /// `.livepatch.funcs`.
    pub functions: Vec<FunctionInfo>,
    /// All hooks, by kind in the order in which Xen comes to them.
    pub hooks: Vec<HookInfo>,
    /// All sections but the null section.
    pub sections: Vec<SectionInfo>,
    /// Symbols that the loader has to find, sorted.
    pub symbols_to_resolve: Vec<String>,
    /// Addresses that the loader takes as they are, each with the name that the payload gives it; by address.
    pub absolute_symbols: Vec<AbsoluteSymbol>,
    /// Relocations that the loader applies.
    pub relocations: usize,
    /// Entries of special sections.
    pub special: SpecialCounts,
}

/// Something that is referred to by its address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AbsoluteSymbol {
    /// What is to be there.
    pub name: String,
    /// Where, such as `0xffff82d040200200`.
    pub address: String,
}

/// One pair of the metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MetadataInfo {
    /// What stands before the first `=`.
    pub key: String,
    /// What stands behind it.
    pub value: String,
}

/// One replaced function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FunctionInfo {
    /// The name that Xen looks up, or shows.
    pub name: String,
    /// The symbol that replaces it; none for NOPs, or where the place has no name.
    pub replacement: Option<String>,
    /// Whether it is overwritten with NOPs.
    pub nops: bool,
    /// Bytes of the replacement.
    pub new_size: u32,
    /// Bytes of what is replaced.
    pub old_size: u32,
    /// Version of the entry's layout.
    pub version: u8,
    /// The address of what is replaced, in hexadecimal, if the payload fixes it.
    pub old_address: Option<String>,
    /// The bytes that must be found there, in hexadecimal, if there is an enabled expectation.
    pub expectation: Option<String>,
}

/// One hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HookInfo {
    /// load, preapply, apply, postapply, prerevert, revert, postrevert or unload.
    pub kind: String,
    /// The function, as far as it has a name.
    pub function: String,
}

/// One section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SectionInfo {
    /// Name.
    pub name: String,
    /// Flags as `readelf` abbreviates them.
    pub flags: String,
    /// Size in bytes.
    pub size: u64,
    /// Alignment in bytes.
    pub align: u64,
}

/// Numbers of special-section entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SpecialCounts {
    /// Bug frames by kind.
    pub bug_frames: BugFrameCounts,
    /// Alternatives that are not altcalls.
    pub alternatives: usize,
    /// Altcalls: in `.altinstructions` (up to Xen 4.20) or `.alt_call_sites`.
    pub altcalls: usize,
    /// Exception table entries.
    pub exception_table: usize,
}

/// Numbers of bug frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct BugFrameCounts {
    /// Frames that call a function.
    pub run_function: usize,
    /// WARN.
    pub warn: usize,
    /// BUG.
    pub bug: usize,
    /// ASSERT; release builds have none.
    pub assert: usize,
}

/// Looks into a payload. It need not be one that Xen would take: that is for [`crate::verify()`] to say.
///
/// # Errors
/// A failure [`codes::NOT_A_PAYLOAD`] that names what the file is instead.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, Problems> {
    let payload = Payload::parse(bytes)?;
    let is_livepatch = payload.sections.iter().any(|s| s.name.starts_with(".livepatch."));
    if !is_livepatch {
        return Err(Diagnostic::new(
            codes::NOT_A_PAYLOAD,
            "not a payload, but a relocatable file without .livepatch sections",
        )
        .why("It may be an object of a build, or a kernel module.")
        .advice("Give a .livepatch file, as `xsplice build` writes it.")
        .into());
    }
    let content = Content::read(&payload, None);
    let hex = |id: &Option<Vec<u8>>| id.as_deref().map(elf::hex);
    let mut symbols_to_resolve: Vec<String> = payload
        .symbols
        .iter()
        .skip(1)
        .filter(|s| s.is_undefined() && !s.name.is_empty())
        .map(|s| s.name.to_string())
        .collect();
    symbols_to_resolve.sort();
    symbols_to_resolve.dedup();
    let absolute = |s: &&Symbol<'_>| s.section == SHN_ABS && s.kind != STT_FILE;
    let mut absolute: Vec<&Symbol<'_>> = payload.symbols.iter().skip(1).filter(absolute).collect();
    absolute.sort_by_key(|s| (s.value, s.name));
    let relocations = payload
        .relocations
        .iter()
        .filter(|group| payload.sections.get(group.target).is_some_and(|s| s.is_loaded()))
        .map(|group| group.entries.len())
        .sum();
    Ok(Inspection {
        schema: SCHEMA,
        size: bytes.len() as u64,
        build_id: hex(&content.build_id),
        depends: hex(&content.depends),
        xen_depends: hex(&content.xen_depends),
        metadata: content
            .metadata
            .iter()
            .map(|(key, value)| MetadataInfo { key: key.clone(), value: value.clone() })
            .collect(),
        functions: functions(&payload, &content),
        hooks: hooks(&payload, &content),
        sections: sections(&payload),
        symbols_to_resolve,
        absolute_symbols: absolute
            .into_iter()
            .map(|s| AbsoluteSymbol { name: s.name.to_string(), address: format!("{:#x}", s.value) })
            .collect(),
        relocations,
        special: special(&payload, &content),
    })
}

/// The name of what a pointer refers to; `None` for a literal.
fn target_name(payload: &Payload<'_>, target: Target) -> Option<String> {
    match target {
        Target::Section { section, offset } => Some(match payload.name_at(section, offset) {
            Some(name) => name.to_string(),
            None => format!("{}+{offset:#x}", payload.section_name(section)),
        }),
        Target::Undefined { symbol, addend: 0 } => Some(payload.symbol_name(symbol)),
        Target::Undefined { symbol, addend } => Some(format!("{}+{addend:#x}", payload.symbol_name(symbol))),
        Target::Literal(0) => None,
        Target::Literal(address) | Target::Absolute(address) => Some(format!("{address:#x}")),
        Target::Broken => None,
    }
}

fn functions(payload: &Payload<'_>, content: &Content) -> Vec<FunctionInfo> {
    content
        .funcs
        .iter()
        .map(|f| FunctionInfo {
            name: f.name.clone(),
            replacement: target_name(payload, f.new),
            nops: f.is_nop(),
            new_size: f.new_size,
            old_size: f.old_size,
            version: f.version,
            old_address: match f.old {
                Target::Literal(address @ 1..) | Target::Absolute(address) => Some(format!("{address:#x}")),
                _ => None,
            },
            expectation: f.expectation.as_ref().filter(|e| e.enabled).map(|e| elf::hex(e.bytes())),
        })
        .collect()
}

fn hooks(payload: &Payload<'_>, content: &Content) -> Vec<HookInfo> {
    content
        .hooks
        .iter()
        .map(|h| HookInfo {
            kind: h.kind.to_string(),
            function: target_name(payload, h.target).unwrap_or_else(|| "NULL".to_string()),
        })
        .collect()
}

fn sections(payload: &Payload<'_>) -> Vec<SectionInfo> {
    payload
        .sections
        .iter()
        .skip(1)
        .map(|s| SectionInfo {
            name: s.name.to_string(),
            flags: s.flag_letters(),
            size: s.size,
            align: s.align,
        })
        .collect()
}

fn special(payload: &Payload<'_>, content: &Content) -> SpecialCounts {
    let frames = |kind: u8| content.bug_frames.iter().filter(|f| f.kind == kind).count();
    let altcalls = content.alternatives.iter().filter(|a| a.is_altcall(payload)).count();
    SpecialCounts {
        bug_frames: BugFrameCounts {
            run_function: frames(0),
            warn: frames(1),
            bug: frames(2),
            assert: frames(3),
        },
        alternatives: content.alternatives.len() - altcalls,
        altcalls: altcalls + content.call_sites.len(),
        exception_table: content.table_entries.len(),
    }
}
