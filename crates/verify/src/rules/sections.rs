//! Rules about sections: bounds, alignment, permissions, and the names that mean something.

use std::collections::BTreeMap;

use goblin::elf::section_header as sh;
use xsplice_report::Place;

use super::header::LARGEST;
use crate::findings::{Errno, Findings, Side, Step};
use crate::layout::PAGE;
use crate::payload::{Section, hook_kinds};
use crate::verify::{Context, in_section, problem};
use crate::{codes, elf};

const REBUILD: &str = "Build the payload again; a tool has damaged this one.";

/// All rules about sections.
pub(crate) fn check(context: &Context<'_>, findings: &mut Findings) {
    let mut tables = 0;
    for section in context.payload.sections.iter().skip(1) {
        name(section, findings);
        bounds(section, context.payload.bytes.len() as u64, findings);
        alignment(section, findings);
        zeroes(section, findings);
        if section.kind == sh::SHT_SYMTAB {
            tables += 1;
            place_of_symbol_table(context, section, tables, findings);
        }
        permissions(context, section, findings);
        kind(section, findings);
        collected(section, findings);
        unknown_special(section, findings);
        special_in_memory(section, findings);
    }
    symbol_table(context, findings);
    string_tables(context, findings);
    special_once(context, findings);
    reapplicable(context, findings);
    room(context, findings);
}

/// Names are inside the string table (`elf_resolve_section_names`, xen/common/livepatch_elf.c). Xen
/// would take any bytes; a name that is not UTF-8 or has more than 1024 bytes is nobody's.
fn name(section: &Section<'_>, findings: &mut Findings) {
    if !section.name_ok {
        let outside = Side::Loader(Step::SectionNames, Errno::Einval);
        let diagnostic = problem(
            codes::SECTION_NAME,
            format!("the name of section {} cannot be read", section.index),
            in_section(section),
            "Xen finds sections by their names, which must be inside the string table of section names.",
            REBUILD,
        );
        findings.push(if section.name_inside { Side::Host } else { outside }, diagnostic);
    }
}

/// Contents lie behind the file header and inside the file (`elf_resolve_sections`, xen/common/livepatch_elf.c, 4.13
/// to 4.22).
fn bounds(section: &Section<'_>, file_size: u64, findings: &mut Findings) {
    let in_file = section.is_nobits() || section.data.is_some();
    if section.offset < elf::HEADER_SIZE || !in_file {
        let diagnostic = problem(
            codes::SECTION_OUTSIDE_FILE,
            format!(
                "{} bytes at file offset {:#x} are not a section's contents",
                section.size, section.offset
            ),
            in_section(section),
            "Contents start behind the file header of 64 bytes and end inside the file, even those of empty sections.",
            REBUILD,
        );
        // Offset and size are added up without a look at whether the sum is a number.
        let end = section.offset.wrapping_add(section.size);
        let passes = section.offset >= elf::HEADER_SIZE && section.offset <= file_size && end <= file_size;
        findings
            .push(if passes { Side::Host } else { Side::Loader(Step::Sections, Errno::Einval) }, diagnostic);
    }
}

/// What takes no room in the file has at most 2 MiB in memory (`elf_resolve_sections`).
fn zeroes(section: &Section<'_>, findings: &mut Findings) {
    let counted = section.is_loaded() || section.is_writable();
    if section.is_nobits() && counted && section.size > LARGEST {
        let diagnostic = problem(
            codes::SECTION_TOO_LARGE,
            format!("a zero-initialised section has {} bytes", section.size),
            in_section(section),
            "Xen takes at most 2 MiB.",
            "Allocate large buffers in a load hook instead.",
        );
        findings.loader(Step::Sections, Errno::Einval, diagnostic);
    }
}

/// Alignments are 0 or a power of two and divide the address (`elf_resolve_sections`). The host's side:
/// `calc_section` of xen/common/livepatch.c rounds to 0 for an alignment of 0, and the memory itself
/// is aligned to pages only.
fn alignment(section: &Section<'_>, findings: &mut Findings) {
    let align = section.align;
    let mut say = |side: Side, what: String, why: &str| {
        let advice = "Give the section an alignment that is a power of two from 1 to 4096.";
        findings.push(side, problem(codes::SECTION_ALIGNMENT, what, in_section(section), why, advice));
    };
    if align != 0 && !align.is_power_of_two() {
        let side = Side::Loader(Step::Sections, Errno::Eopnotsupp);
        say(side, format!("the alignment is {align:#x}"), "Xen takes powers of two only.");
    } else if align != 0 && !section.addr.is_multiple_of(align) {
        say(
            Side::Loader(Step::Sections, Errno::Einval),
            format!("the address {:#x} is not a multiple of the alignment {align:#x}", section.addr),
            "Xen checks addresses although they mean nothing in a payload.",
        );
    }
    if section.is_loaded() && align == 0 {
        say(
            Side::Host,
            "a loaded section has alignment 0".into(),
            "Xen would place it over another section.",
        );
    } else if section.is_loaded() && align > PAGE {
        say(
            Side::Host,
            format!("a loaded section has alignment {align:#x}"),
            "Xen places payloads at pages of 4096 bytes and would not honour it.",
        );
    }
}

/// No section is writable and executable (`move_payload`, xen/common/livepatch.c, 4.13 to 4.22).
fn permissions(context: &Context<'_>, section: &Section<'_>, findings: &mut Findings) {
    let is_placed = section.size > 0 || !context.traits.skips_empty;
    if section.is_code() && section.is_writable() && is_placed {
        let diagnostic = problem(
            codes::SECTION_WRITABLE_CODE,
            "a section is writable and executable",
            in_section(section),
            "Xen places code, writable data and read-only data apart and has no place for this.",
            "Take one of the two permissions away.",
        );
        findings.loader(Step::Placement, Errno::Eopnotsupp, diagnostic);
    }
}

/// The host's side: thread-local storage and compressed contents would be loaded as plain bytes.
fn kind(section: &Section<'_>, findings: &mut Findings) {
    let odd = u64::from(sh::SHF_TLS | sh::SHF_COMPRESSED);
    let plain = !matches!(section.kind, sh::SHT_RELA | sh::SHT_REL | sh::SHT_SYMTAB | sh::SHT_DYNAMIC);
    if section.is_loaded() && (section.flags & odd != 0 || !plain) {
        findings.host(problem(
            codes::SECTION_KIND,
            format!("a loaded section has type {} and flags {}", section.kind, section.flag_letters()),
            in_section(section),
            "Xen copies loaded sections as they are: it knows no thread-local storage, no compression, and no \
             tables of its own in memory.",
            REBUILD,
        ));
    }
}

/// The host's side: what linker scripts collect into arrays that only boot walks, and per-CPU data, which
/// would have no per-CPU copies (xen/arch/x86/xen.lds.S and xen/include/xen/xen.lds.h, 4.13 to 4.22).
fn collected(section: &Section<'_>, findings: &mut Findings) {
    if !section.is_loaded() {
        return;
    }
    if is_per_cpu(section.name) {
        findings.host(problem(
            codes::PER_CPU,
            "a section holds per-CPU variables",
            in_section(section),
            "this_cpu() adds an offset to their address, which leads out of the payload: they have no per-CPU copies.",
            "Use an array indexed by CPU number, or allocate the data in a load hook.",
        ));
    } else if is_collected(section.name) {
        findings.host(problem(
            codes::COLLECTED_AT_BOOT,
            "a section holds what only boot collects",
            in_section(section),
            "Boot code, boot parameters, initcalls, constructors and arrays that linker scripts collect take no part \
             in a running hypervisor.",
            "Do the work in a load hook, or leave the part out of the change.",
        ));
    }
}

fn is_per_cpu(name: &str) -> bool {
    [".bss.percpu", ".data.percpu", ".bss.per_cpu", ".data.per_cpu"].iter().any(|p| name.starts_with(p))
}

fn is_collected(name: &str) -> bool {
    const FAMILIES: [&str; 11] = [
        ".init",
        ".initcall",
        ".exitcall",
        ".exit",
        ".ctors",
        ".dtors",
        ".init_array",
        ".fini_array",
        ".preinit_array",
        ".data.vpci",
        ".rodata.vpci",
    ];
    const NAMES: [&str; 10] = [
        ".text.startup",
        ".text.exit",
        ".data.schedulers",
        ".data.paramhypfs",
        ".data.param",
        ".lockprofile.data",
        ".trampoline_rel",
        ".trampoline_seg",
        ".arch.info",
        ".dtb",
    ];
    let in_family = |family: &str| match name.strip_prefix(family) {
        // `.initcall1.init` carries its level in the name.
        Some(rest) => rest.is_empty() || rest.starts_with('.') || family == ".initcall",
        None => false,
    };
    let array = name.starts_with(".data.") && name.ends_with("_init") && name != ".data.ro_after_init";
    FAMILIES.into_iter().any(in_family) || NAMES.contains(&name) || array
}

/// Names with a meaning that a payload may hold, besides those of hooks and bug frames.
const KNOWN: [&str; 9] = [
    ".livepatch.funcs",
    ".livepatch.depends",
    ".livepatch.xen_depends",
    ".note.gnu.build-id",
    ".modinfo",
    ".altinstructions",
    ".altinstr_replacement",
    ".alt_call_sites",
    ".ex_table",
];

fn is_known_special(name: &str) -> bool {
    KNOWN.contains(&name)
        || hook_kinds().iter().any(|(hook, _, _)| *hook == name)
        || matches!(name, ".bug_frames.0" | ".bug_frames.1" | ".bug_frames.2" | ".bug_frames.3")
}

/// The host's side: the loader looks sections up by exact name and passes over all others in silence.
fn unknown_special(section: &Section<'_>, findings: &mut Findings) {
    let name = section.name;
    // The names of functions stand in a section that no loader looks for.
    let ours = name.starts_with(".livepatch.") && name != ".livepatch.strings";
    if (ours || name.starts_with(".bug_frames")) && !is_known_special(name) {
        findings.host(problem(
            codes::SPECIAL_UNKNOWN,
            format!("no Xen knows a section {name}"),
            in_section(section),
            "The loader passes over it in silence, so what it is meant to do would not happen.",
            "Correct the name, or leave the section out.",
        ));
    }
    if name == ".ex_table.pre" {
        findings.host(problem(
            codes::EXCEPTION_TABLE_PRE,
            "the payload has entries of the early exception table",
            in_section(section),
            "Xen ignores that table of a payload; a fault that it should handle would stop the host.",
            "Assembler entry code cannot be live patched: leave it out of the change.",
        ));
    }
}

/// The host's side: the loader reads special sections through their address in memory, which those that
/// are not loaded do not have, and from contents that zero-initialised ones do not have.
fn special_in_memory(section: &Section<'_>, findings: &mut Findings) {
    if is_known_special(section.name) && (!section.is_loaded() || section.is_nobits()) {
        findings.host(problem(
            codes::SPECIAL_NOT_LOADED,
            "a section that Xen reads is not loaded, or has no contents in the file",
            in_section(section),
            "Xen would read from address 0, or zeroes.",
            "Make it a section with contents and the flag A (allocate).",
        ));
    }
}

/// The host's side: `livepatch_elf_sec_by_name` takes the first of a name, and nobody looks at others.
fn special_once(context: &Context<'_>, findings: &mut Findings) {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for section in context.payload.sections.iter().skip(1).filter(|s| is_known_special(s.name)) {
        *seen.entry(section.name).or_default() += 1;
    }
    for (name, count) in seen.into_iter().filter(|(_, count)| *count > 1) {
        findings.host(problem(
            codes::SPECIAL_TWICE,
            format!("there are {count} sections {name}"),
            Place::none().section(name),
            "Xen uses the first only, in silence.",
            "Merge them into one.",
        ));
    }
}

/// There is one symbol table only, and its names are in a section that exists (`elf_resolve_sections`, its loop).
fn place_of_symbol_table(
    context: &Context<'_>,
    section: &Section<'_>,
    count: usize,
    findings: &mut Findings,
) {
    if count == 2 {
        let diagnostic = problem(
            codes::SYMBOL_TABLE,
            "there are several symbol tables",
            in_section(section),
            "Xen takes exactly one.",
            REBUILD,
        );
        findings.loader(Step::Sections, Errno::Eopnotsupp, diagnostic);
    } else if section.link as usize >= context.payload.sections.len() {
        let diagnostic = problem(
            codes::SYMBOL_TABLE,
            format!("the symbol table's names are said to be in section {}", section.link),
            in_section(section),
            "That is not a section of the file.",
            REBUILD,
        );
        findings.loader(Step::Sections, Errno::Einval, diagnostic);
    }
}

/// There is a symbol table, with sound sizes (`elf_resolve_sections`, behind its loop).
fn symbol_table(context: &Context<'_>, findings: &mut Findings) {
    let mut tables = context.payload.sections.iter().filter(|s| s.kind == sh::SHT_SYMTAB);
    let diagnostic = match tables.next() {
        None => problem(
            codes::SYMBOL_TABLE,
            "there is no symbol table",
            Place::none(),
            "Xen takes exactly one.",
            REBUILD,
        ),
        Some(table) => {
            let sound = table.size > 0
                && table.entsize >= elf::SYMBOL_SIZE
                && table.size.is_multiple_of(table.entsize);
            if sound && table.link == 0 && tables.next().is_none() {
                findings.host(problem(
                    codes::SYMBOL_TABLE,
                    "the symbol table's names are said to be in section 0",
                    in_section(table),
                    "Xen follows a pointer that it has not set, and stops the host while it uploads the payload.",
                    REBUILD,
                ));
            }
            if sound {
                return;
            }
            problem(
                codes::SYMBOL_TABLE,
                format!("the symbol table has {} bytes in entries of {}", table.size, table.entsize),
                in_section(table),
                "Xen takes entries of at least 24 bytes that fill the table.",
                REBUILD,
            )
        }
    };
    findings.loader(Step::SymbolTable, Errno::Einval, diagnostic);
}

/// String tables are such, not empty, and start and end with a NUL (`elf_verify_strtab`).
fn string_tables(context: &Context<'_>, findings: &mut Findings) {
    let payload = context.payload;
    let of_symbols = payload.symtab.map(|index| payload.sections[index].link as usize);
    let of_sections = usize::from(payload.header.e_shstrndx);
    let of_symbols = of_symbols.map(|index| (index, Step::SymbolTable));
    for (index, step) in of_symbols.into_iter().chain([(of_sections, Step::SectionNames)]) {
        // What is said of that number is said.
        let named = |section: &&Section<'_>| section.index > 0 || step != Step::SymbolTable;
        let Some(section) = payload.sections.get(index).filter(named) else { continue };
        let sound = section.kind == sh::SHT_STRTAB
            && section.data.is_some_and(|data| data.first() == Some(&0) && data.last() == Some(&0));
        if !sound {
            let diagnostic = problem(
                codes::STRING_TABLE,
                "a string table is damaged",
                in_section(section),
                "Xen takes string tables that are not empty and start and end with a NUL.",
                REBUILD,
            );
            findings.loader(step, Errno::Einval, diagnostic);
        }
    }
}

/// The host's side: the loader writes the value of each undefined symbol into the file before it reads relocations, so
/// nothing else may be there (`livepatch_elf_resolve_symbols`).
pub(crate) fn symbol_table_alone(context: &Context<'_>, findings: &mut Findings) {
    let payload = context.payload;
    let table = payload.symtab.map(|index| &payload.sections[index]);
    let Some(table) = table.filter(|table| table.data.is_some()) else { return };
    let range = |offset: u64, size: u64| offset..offset.saturating_add(size);
    let own = range(table.offset, table.size);
    let header = &payload.header;
    let headers = u64::from(header.e_shnum).saturating_mul(u64::from(header.e_shentsize));
    let others = payload.sections.iter().filter(|s| s.index != table.index && s.data.is_some());
    let others = others.map(|s| range(s.offset, s.size)).chain([range(header.e_shoff, headers)]);
    let overlap = others.filter(|other| !other.is_empty() && !own.is_empty());
    if overlap.filter(|other| other.start < own.end && own.start < other.end).count() > 0 {
        findings.host(problem(
            codes::SYMBOL_TABLE,
            "the symbol table lies over other parts of the file",
            in_section(table),
            "Xen writes into its copy of the symbol table while it looks names up, and reads the rest afterwards.",
            REBUILD,
        ));
    }
}

/// A payload can be applied again only if its sole writable section that is not empty is the list of
/// functions (`move_payload`, xen/common/livepatch.c, 4.14 to 4.22).
fn reapplicable(context: &Context<'_>, findings: &mut Findings) {
    let writable: Vec<&str> = context
        .payload
        .sections
        .iter()
        .filter(|s| s.is_loaded() && s.is_writable() && !s.is_code() && s.size > 0)
        .filter(|s| s.name != ".livepatch.funcs")
        .map(|s| s.name)
        .collect();
    if !writable.is_empty() {
        findings.note(problem(
            codes::NOT_REAPPLICABLE,
            "once reverted, the payload cannot be applied again",
            Place::none().section(writable.join(", ")),
            "It has writable data, which Xen does not restore on a revert.",
            "Unload it and load it again instead.",
        ));
    }
}

/// Everything fits between the image and the end of the area for payloads (`arch_livepatch_init`,
/// xen/arch/x86/livepatch.c).
fn room(context: &Context<'_>, findings: &mut Findings) {
    let area = context.area.end.saturating_sub(context.area.start);
    if context.low.size > area {
        let diagnostic = problem(
            codes::NO_ROOM,
            format!("the payload takes {} bytes of memory, and there are {area}", context.low.size),
            Place::none(),
            "All payloads share the space between the image and XEN_VIRT_END.",
            "Make its zero-initialised data smaller.",
        );
        findings.loader(Step::Placement, Errno::Enomem, diagnostic);
    }
}
