//! Rules about symbols: those that Xen has to find, and those that the payload adds.

use xsplice_report::Place;

use crate::codes;
use crate::findings::{Errno, Findings, Side, Step};
use crate::payload::{SHN_ABS, SHN_COMMON, STT_FILE, Symbol};
use crate::verify::{Context, Found, new_symbols, problem};

/// Characters that Xen keeps of a name: KSYM_NAME_LEN less the NUL (xen/include/xen/symbols.h).
const LONGEST: usize = 126;

/// Section indices from here on are none (ELF's SHN_LORESERVE).
const SHN_LORESERVE: usize = 0xff00;

/// All rules about symbols.
pub(crate) fn check(context: &Context<'_>, findings: &mut Findings) {
    for (index, symbol) in context.payload.symbols.iter().enumerate().skip(1) {
        name(context, index, symbol, findings);
        section(context, index, symbol, findings);
        resolved(context, index, symbol, findings);
        absolute(context, index, symbol, findings);
    }
    collisions(context, findings);
}

fn place(context: &Context<'_>, index: usize) -> Place {
    Place::none().symbol(context.payload.symbol_name(index))
}

/// Names are inside the string table (`elf_get_sym`, xen/common/livepatch_elf.c). The host's side: longer
/// ones than KSYM_NAME_LEN are cut when they are kept (`build_symbol_table`), and Xen's table has none.
fn name(context: &Context<'_>, index: usize, symbol: &Symbol<'_>, findings: &mut Findings) {
    if !symbol.name_ok {
        let outside = Side::Loader(Step::SymbolNames, Errno::Einval);
        let diagnostic = problem(
            codes::SYMBOL_NAME,
            format!("the name of symbol {index} cannot be read"),
            Place::none(),
            "Names must be inside the string table of the symbol table.",
            "Build the payload again; a tool has damaged this one.",
        );
        findings.push(if symbol.name_inside { Side::Host } else { outside }, diagnostic);
    }
    let kept = symbol.is_undefined()
        || context.payload.sections.get(symbol.section).is_some_and(crate::payload::Section::is_loaded);
    if kept && symbol.name.len() > LONGEST {
        findings.host(problem(
            codes::SYMBOL_NAME,
            format!("the name of a symbol has {} characters", symbol.name.len()),
            place(context, index),
            "Xen cuts names after 126 characters, so this one would not be found, or be taken for another.",
            "Give the symbol a shorter name.",
        ));
    }
}

/// Symbols are in sections that exist, and not in common storage (`livepatch_elf_resolve_symbols`,
/// xen/common/livepatch_elf.c, 4.13 to 4.22). The host's side: their value is inside the section.
fn section(context: &Context<'_>, index: usize, symbol: &Symbol<'_>, findings: &mut Findings) {
    match symbol.section {
        0 | SHN_ABS => {}
        SHN_COMMON => findings.loader(
            Step::Symbols,
            Errno::Einval,
            problem(
                codes::SYMBOL_COMMON,
                "a symbol asks for common storage",
                place(context, index),
                "Xen allocates none.",
                "Compile with -fno-common.",
            ),
        ),
        number => {
            let size = context.payload.sections.get(number).map(|s| s.size);
            if size.is_none_or(|size| symbol.value > size) {
                let what = match size {
                    None => format!("a symbol is in section {number}, which does not exist"),
                    Some(size) => {
                        format!("a symbol is at {:#x} of a section of {size:#x} bytes", symbol.value)
                    }
                };
                let side = match size {
                    None if number >= SHN_LORESERVE => Side::Loader(Step::Symbols, Errno::Eopnotsupp),
                    None => Side::Loader(Step::Symbols, Errno::Einval),
                    Some(_) => Side::Host,
                };
                let diagnostic = problem(
                    codes::SYMBOL_SECTION,
                    what,
                    place(context, index),
                    "Xen would refuse it, or whoever refers to it would reach into something else.",
                    "Build the payload again; a tool has damaged this one.",
                );
                findings.push(side, diagnostic);
            }
        }
    }
}

/// Undefined symbols are found by their exact name, weak ones too (`livepatch_elf_resolve_symbols`).
/// The host's side: which of several is found differs between Xen builds.
fn resolved(context: &Context<'_>, index: usize, symbol: &Symbol<'_>, findings: &mut Findings) {
    match context.found.get(index).copied().flatten() {
        Some(Found::Missing) => findings.loader(Step::Symbols, Errno::Enoent, problem(
            codes::SYMBOL_UNKNOWN,
            format!("nothing provides the symbol {:?}", symbol.name),
            place(context, index),
            "Xen refuses to load the payload when a name is neither in its own table nor in a loaded payload.",
            advice_for_unknown(context, symbol.name),
        )),
        Some(Found::Ambiguous) => findings.host(problem(
            codes::SYMBOL_AMBIGUOUS,
            format!("several symbols have the name {:?}", symbol.name),
            place(context, index),
            "Which of them Xen takes depends on how it was built.",
            "Refer to it by address, as an absolute symbol.",
        )),
        _ => {}
    }
}

/// The host's side: an absolute symbol keeps its value (`livepatch_elf_resolve_symbols`, 4.13 to 4.22), so one that is an
/// address of the hypervisor is right for one build only. Its name is to say what is there: that of a symbol which
/// starts at the address. Other numbers, and FILE symbols, mean nothing to a host.
fn absolute(context: &Context<'_>, index: usize, symbol: &Symbol<'_>, findings: &mut Findings) {
    if symbol.section != SHN_ABS || symbol.kind == STT_FILE {
        return;
    }
    let Some(xen) = &context.xen else { return };
    let (start, area) = (xen.image().start, xen.payload_area());
    let inside = (start..area.end).contains(&symbol.value);
    let mut named = xen.named(symbol.name).peekable();
    if !inside && named.peek().is_none() || named.any(|one| one.address == symbol.value) {
        return;
    }
    let there: Vec<&str> = xen.at(symbol.value).map(|one| one.table_name.as_str()).take(4).collect();
    let what = match there.as_slice() {
        [] if !inside => "nothing of the hypervisor is there".to_owned(),
        [] => "no symbol of the hypervisor starts there".to_owned(),
        names => format!("{} is there", names.join(", ")),
    };
    findings.host(problem(
        codes::SYMBOL_ABSOLUTE,
        format!("the absolute symbol {:?} is {:#x}: {what}", symbol.name, symbol.value),
        place(context, index),
        "Xen takes the address as it is, so the payload would refer to something else than it says.",
        "Build the payload again, with the symbol file of the running hypervisor.",
    ));
}

fn advice_for_unknown(context: &Context<'_>, name: &str) -> String {
    let names = context.xen.as_ref().map(|xen| xen.table_names_of(name)).unwrap_or_default();
    if names.is_empty() {
        "Check that the symbol file is that of the running Xen, and that all payloads to stack on are given."
            .into()
    } else {
        let few: Vec<&str> = names.iter().copied().take(4).collect();
        format!("Xen knows symbols of that name as {}.", few.join(", "))
    }
}

/// New symbols, locals too, must not exist in Xen or in a payload below (`build_symbol_table`,
/// xen/common/livepatch.c, 4.13 to 4.22).
fn collisions(context: &Context<'_>, findings: &mut Findings) {
    let low = &context.low;
    let new: Vec<u64> = context.content.funcs.iter().filter_map(|f| low.address(f.new)).collect();
    for (index, name) in new_symbols(context.payload, low, &new) {
        let owner = if context.xen.as_ref().is_some_and(|xen| xen.named(name).next().is_some()) {
            "Xen".to_string()
        } else if let Some(i) = context.below.iter().position(|b| b.exports.contains_key(name)) {
            format!("payload {} of those to stack on", i + 1)
        } else {
            continue;
        };
        findings.loader(
            Step::NewSymbols,
            Errno::Eexist,
            problem(
                codes::SYMBOL_COLLIDES,
                format!("{owner} has a symbol {name:?} already"),
                place(context, index),
                "Xen refuses payloads that bring a name which exists, unless it is that of a replacement.",
                "Rename the new symbol, or leave its name out of the payload's symbol table.",
            ),
        );
    }
}
