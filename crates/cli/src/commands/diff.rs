//! `xsplice diff`.

use std::collections::BTreeSet;
use std::path::Path;

use xsplice_diff::{Input, Loader, ObjectPair};
use xsplice_dwarf::{DebugInfo, Layout};
use xsplice_link::{FuncsLayout, Ids};
use xsplice_objects::{HookKind, Object, SymbolKind};
use xsplice_report::{Diagnostic, Outcome, Place, Problems};

use crate::args::Diff;
use crate::inputs::{self, Below, Symbols};
use crate::report::{DiffReport, Findings, PayloadFacts, SCHEMA, TOOL};
use crate::stages::{self, Host, Verified, Wanted};
use crate::{codes, output, pipeline, render};

pub(crate) fn run(args: &Diff, quiet: bool, json: bool) -> Outcome {
    let mut report = DiffReport {
        schema: SCHEMA,
        tool: TOOL.to_owned(),
        outcome: Outcome::Failed,
        exit_code: Outcome::Failed.exit_code(),
        original: args.original.to_string_lossy().into_owned(),
        patched: args.patched.to_string_lossy().into_owned(),
        xen_syms: args.xen_syms.as_ref().map(|file| file.to_string_lossy().into_owned()),
        payload: None,
        findings: Findings::default(),
    };
    let outcome = match compare(args, &mut report) {
        Ok(outcome) => outcome,
        Err(problems) => {
            report.findings.problems.extend(problems);
            pipeline::end_of(&report.findings.problems)
        }
    };
    report.findings.problems.normalise();
    report.outcome = if xsplice_process::interrupted() { Outcome::Failed } else { outcome };
    report.exit_code = report.outcome.exit_code();
    show(&report, args, quiet, json);
    report.outcome
}

/// A pair of files, and what they say of themselves.
struct Pair {
    base: Vec<u8>,
    patched: Vec<u8>,
    source: String,
    assembler: bool,
    funcs: Option<FuncsLayout>,
}

/// Who else uses data that changed cannot be seen in one pair.
fn no_others(names: &BTreeSet<String>) -> Result<Vec<ObjectPair>, Problems> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Err(Diagnostic::new(
        xsplice_diff::codes::RODATA_CHANGED,
        format!("read-only data that other objects can use changed: {}", names.join(", ")),
    )
    .why("Every function that uses it has to be replaced, and a pair of objects does not show those of others.")
    .advice("Use `xsplice build`, which has all objects.")
    .into())
}

/// What can be said of a loader without its source: hooks came with the header that the objects were compiled with,
/// and for the rest the oldest loader is meant.
fn loader(payload: Option<&Wanted>) -> Loader {
    let old = payload.is_some_and(|wanted| wanted.funcs.version < 2);
    Loader { hooks: HookKind::ALL.into_iter().collect(), needs_functions: old, tables_from_upload: false }
}

fn compare(args: &Diff, report: &mut DiffReport) -> Result<Outcome, Problems> {
    let (pair, symbols) = read(args)?;
    let below = Below::default();
    let host = match &symbols {
        Some(symbols) => {
            let payload = wanted(args, &pair, symbols)?;
            let loader = loader(payload.as_ref());
            Some(Host {
                symbols,
                below: &below,
                loader,
                whole: false,
                no_expectations: None,
                refusals: Problems::new(),
                payload,
            })
        }
        None => None,
    };
    if let Some(file) = &args.output {
        output::remove(file)?;
    }
    let input = Input {
        path: &report.patched,
        source: &pair.source,
        assembler: pair.assembler,
        base: Some(&pair.base),
        patched: Some(&pair.patched),
    };
    let payload = stages::run(&[input], &no_others, host.as_ref(), &args.allowed, &mut report.findings)?;
    let wanted = host.as_ref().and_then(|host| host.payload.as_ref());
    match (&args.output, wanted, payload) {
        (Some(file), Some(wanted), Some(payload)) => {
            write(file, &payload)?;
            report.payload = Some(PayloadFacts::of(&payload, file, &wanted.ids));
            Ok(Outcome::Done)
        }
        // Nothing is replaced: what is new waits for somebody to use it.
        (Some(_), ..) => Ok(Outcome::NothingToPatch),
        _ if report.findings.changes.is_empty() => Ok(Outcome::NothingToPatch),
        _ => Ok(Outcome::Done),
    }
}

fn write(file: &Path, payload: &Verified) -> Result<(), Problems> {
    if xsplice_process::interrupted() {
        return Ok(());
    }
    Ok(output::write(file, payload.bytes())?)
}

/// Reads everything that the command line names, and reports all that cannot be read.
fn read(args: &Diff) -> Result<(Pair, Option<Symbols>), Problems> {
    let mut problems = Problems::new();
    let mut file =
        |path: &Path, what| inputs::read(path, what).map_err(|problem| problems.push(problem)).ok();
    let base = file(&args.original, "original object");
    let patched = file(&args.patched, "patched object");
    let symbols = match args.xen_syms.clone().map(inputs::read_symbols) {
        Some(Err(more)) => {
            problems.extend(more);
            None
        }
        Some(Ok(symbols)) => Some(symbols),
        None => None,
    };
    if let Some(clash) = overwritten(args) {
        problems.push(clash);
    }
    match (base, patched) {
        (Some(base), Some(patched)) if problems.0.is_empty() => Ok((Pair::of(base, patched), symbols)),
        _ => Err(problems),
    }
}

/// The output must be none of the inputs, which nobody may lose.
fn overwritten(args: &Diff) -> Option<Diagnostic> {
    let output = args.output.as_ref()?;
    let real = fs_err::canonicalize(output).ok()?;
    let mut inputs =
        [Some(&args.original), Some(&args.patched), args.xen_syms.as_ref()].into_iter().flatten();
    inputs.find(|input| fs_err::canonicalize(input).is_ok_and(|input| input == real))?;
    Some(
        Diagnostic::new(codes::USAGE, "the output is one of the inputs")
            .at(Place::file(output.to_string_lossy()))
            .advice("Give another file with --output."),
    )
}

impl Pair {
    fn of(base: Vec<u8>, patched: Vec<u8>) -> Pair {
        // What cannot be read is reported where the objects are parsed.
        let debug = |bytes: &[u8]| DebugInfo::read(bytes).ok().flatten();
        let infos: Vec<DebugInfo> = [&patched, &base].into_iter().filter_map(|bytes| debug(bytes)).collect();
        let sources: Vec<String> = infos.iter().flat_map(DebugInfo::sources).collect();
        let assembler = if sources.is_empty() {
            // Compilers name the source in a symbol; assemblers do not, and their code is compared more strictly.
            ![&base, &patched].into_iter().all(|bytes| names_c_source(bytes))
        } else {
            sources.iter().any(|source| source.ends_with(".S") || source.ends_with(".s"))
        };
        let funcs =
            infos.iter().find_map(|info| info.struct_layout("livepatch_func")).as_ref().and_then(measured);
        let source = sources.into_iter().next().unwrap_or_default();
        Pair { base, patched, source, assembler, funcs }
    }
}

fn names_c_source(bytes: &[u8]) -> bool {
    let named = |object: Object| {
        object.symbols.iter().any(|symbol| symbol.kind == SymbolKind::File && symbol.name.ends_with(".c"))
    };
    Object::parse("", bytes).is_ok_and(named)
}

/// The payload that is to be written, if any.
fn wanted(args: &Diff, pair: &Pair, symbols: &Symbols) -> Result<Option<Wanted>, Problems> {
    let Some(file) = &args.output else { return Ok(None) };
    let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    if name.is_empty() || xsplice_build::payload_name(&name) != name {
        return Err(Diagnostic::new(codes::USAGE, format!("{name:?} cannot be the name of a payload"))
            .at(Place::file(file.to_string_lossy()))
            .why("A payload is known to the host by its file's name up to the dot: 1 to 127 letters, digits, _ and -.")
            .advice("Give another file with --output.")
            .into());
    }
    let id = symbols.hypervisor.build_id().to_vec();
    if id.is_empty() {
        return Err(Diagnostic::new(codes::ID_NEEDED, "the symbol file has no build-id")
            .at(Place::file(args.xen_syms.as_deref().unwrap_or(Path::new("")).to_string_lossy()))
            .why("The host takes a payload only if it depends on the build-id of the hypervisor that runs.")
            .advice("Give the shipped symbol file with its notes, or use xsplice build with --depends and --xen-depends.")
            .into());
    }
    let Some(funcs) = pair.funcs.or(args.funcs_version.map(published)) else {
        return Err(Diagnostic::new(
            xsplice_build::codes::FUNCS_LAYOUT_UNKNOWN,
            "the layout of struct livepatch_func is not known",
        )
        .why("The payload tells the hypervisor by this structure which functions to replace, and only objects that use it describe it.")
        .advice("Give --funcs-version 1 for Xen up to 4.13, or --funcs-version 2 from 4.14 on.")
        .into());
    };
    if args.funcs_version.is_some_and(|version| version != funcs.version) {
        return Err(Diagnostic::new(
            codes::USAGE,
            format!("--funcs-version disagrees with the objects, which have version {}", funcs.version),
        )
        .advice("Leave the option out.")
        .into());
    }
    let object = args.patched.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let metadata = vec![("tool".to_owned(), TOOL.to_owned()), ("object".to_owned(), object)];
    Ok(Some(Wanted { name, ids: Ids { depends: id.clone(), xen_depends: id }, funcs, metadata }))
}

/// struct livepatch_func as xen/include/public/sysctl.h has it for x86-64, where only the version says which: of
/// Xen 4.11 to 4.13 (version 1), and of 4.14 and later (version 2, with an expectation behind it).
fn published(version: u8) -> FuncsLayout {
    let (size, expect) = if version == 1 { (64, None) } else { (104, Some(72)) };
    FuncsLayout {
        version,
        size,
        name: 0,
        new_addr: 8,
        old_addr: 16,
        new_size: 24,
        old_size: 28,
        version_at: 32,
        expect,
    }
}

/// The structure as an object describes it; the expectation came with version 2.
fn measured(layout: &Layout) -> Option<FuncsLayout> {
    let at = |name: &str, bits: u64| {
        layout.field(name).filter(|field| field.bits == bits && field.at_bit % 8 == 0).map(|f| f.at_bit / 8)
    };
    let expects = |name: &str| name == "expect" || name.starts_with("expect.");
    let expect =
        layout.fields.iter().filter(|field| expects(&field.name)).map(|field| field.at_bit / 8).min();
    if expect.is_some_and(|at| at + FuncsLayout::EXPECTATION > layout.size) {
        return None;
    }
    Some(FuncsLayout {
        version: if expect.is_some() { 2 } else { 1 },
        size: layout.size,
        name: at("name", 64)?,
        new_addr: at("new_addr", 64)?,
        old_addr: at("old_addr", 64)?,
        new_size: at("new_size", 32)?,
        old_size: at("old_size", 32)?,
        version_at: at("version", 8)?,
        expect,
    })
}

fn show(report: &DiffReport, args: &Diff, quiet: bool, json: bool) {
    render::problems(&report.findings.problems);
    if json {
        render::json(report);
        return;
    }
    if quiet {
        return;
    }
    let mut lines = render::findings(&report.findings);
    if report.outcome == Outcome::NothingToPatch {
        let findings = &report.findings;
        let why = if !findings.changes.is_empty() {
            "no payload: nothing here is replaced, and what is new is used by other objects only"
        } else if !findings.init_changes.is_empty() {
            "nothing to patch: what differs takes effect at the next boot"
        } else if !findings.changes.removed.is_empty() {
            "nothing to patch: what is removed stays in the host, and nothing new needs it gone"
        } else {
            "no difference"
        };
        lines.push(why.into());
    }
    if args.explain {
        lines.extend(render::explanation(&report.findings));
    }
    lines.extend(report.payload.as_ref().map(render::payload));
    for line in &lines {
        render::data(line);
    }
    if report.outcome == Outcome::Done && args.xen_syms.is_none() {
        render::line("not checked against a hypervisor: give its symbol file with --xen-syms");
    }
    render::hint(&report.findings.problems);
    if let (Some(file), Some(_)) = (&args.output, &report.payload) {
        render::data(&file.to_string_lossy());
    }
}
