//! What the user gives, read and checked before anything is built.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use xsplice_build::{Adjust, PatchInput};
use xsplice_diff::LeftOut;
use xsplice_objects::Hypervisor;
use xsplice_report::{Allowance, Diagnostic, Place, Problems};
use xsplice_verify::payload::Target;

use crate::args::{Build, ProveBase};
use crate::codes::{BAD_ID, ID_NEEDED, INPUT_UNREADABLE, USAGE};

/// The longest build-id in bytes.
const LONGEST_ID: usize = 64;

/// A shipped hypervisor's symbol file.
pub(crate) struct Symbols {
    /// Its bytes, for the verifier, which reads them by itself.
    pub(crate) bytes: Vec<u8>,
    /// What the linker's side makes of them.
    pub(crate) hypervisor: Hypervisor,
}

/// The payloads below, as far as they are known.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Below {
    /// The bytes of each, lowest first.
    pub(crate) bytes: Vec<Vec<u8>>,
    /// Names that they bring and later payloads may use.
    pub(crate) exported: BTreeSet<String>,
    /// Functions that they replace, by name.
    pub(crate) replaced: BTreeSet<String>,
    /// Functions that they replace by address; then the name means nothing to the host.
    pub(crate) replaced_at: BTreeSet<u64>,
    /// The id that the lowest stands on itself.
    pub(crate) depends: Option<Vec<u8>>,
}

/// The resolved command line.
pub(crate) struct Inputs {
    pub(crate) tree: PathBuf,
    pub(crate) config: PathBuf,
    pub(crate) output: PathBuf,
    pub(crate) name: String,
    pub(crate) patches: Vec<PatchInput>,
    pub(crate) symbols: Option<Symbols>,
    pub(crate) depends: Option<Vec<u8>>,
    pub(crate) xen_depends: Option<Vec<u8>>,
    pub(crate) below: Below,
    /// Why nothing is expected of any replaced function, where that is so.
    pub(crate) no_expectations: Option<LeftOut>,
    pub(crate) prove_base: ProveBase,
    pub(crate) jobs: usize,
    pub(crate) keep_lines: bool,
    /// Another compiler than gcc.
    pub(crate) cc: Option<String>,
    /// When flags are added to compiler calls.
    pub(crate) adjust: Adjust,
    /// More variables for make.
    pub(crate) make_vars: Vec<(String, String)>,
    /// Refusals that are to be warnings.
    pub(crate) allowed: Vec<Allowance>,
    /// Where to leave the patched objects.
    pub(crate) keep_objects: Option<PathBuf>,
}

/// Reads a file; the diagnostic names it.
pub(crate) fn read(path: &Path, what: &str) -> Result<Vec<u8>, Diagnostic> {
    fs_err::read(path).map_err(|error| {
        Diagnostic::new(INPUT_UNREADABLE, format!("cannot read the {what}: {error}"))
            .at(Place::file(path.to_string_lossy()))
            .advice("Check the path and the permissions.")
    })
}

/// Resolves the command line of `xsplice build`: all problems of it at once.
pub(crate) fn resolve(args: &Build) -> Result<Inputs, Problems> {
    let mut problems = Problems::new();
    let name = keep(payload_name(args), &mut problems);
    let patches = args.patches.iter().map(|patch| keep(read_patch(patch), &mut problems)).collect::<Vec<_>>();
    let given =
        args.xen_syms.clone().or_else(|| Some(args.tree.join("xen/xen-syms")).filter(|file| file.is_file()));
    let symbols = match given {
        Some(path) => match read_symbols(path) {
            Ok(symbols) => Some(symbols),
            Err(more) => {
                problems.extend(more);
                None
            }
        },
        None => None,
    };
    let (below_id, mut below) = match read_stack(&args.depends) {
        Ok(found) => found,
        Err(more) => {
            problems.extend(more);
            (None, Below::default())
        }
    };
    let given_xen_id =
        args.xen_depends.as_ref().map(|text| keep(parse_id(text, "--xen-depends"), &mut problems));
    let own_id = symbols.as_ref().map(|s| s.hypervisor.build_id().to_vec()).filter(|id| !id.is_empty());
    let xen_depends = given_xen_id.map_or(own_id, |id| id);
    let depends = below_id.or_else(|| xen_depends.clone());
    if problems.0.is_empty() && (depends.is_none() || xen_depends.is_none()) {
        problems.push(
            Diagnostic::new(ID_NEEDED, "the build-id of the running hypervisor is not known")
                .why("Without the shipped symbol file, only a private build could provide one, and no host runs that.")
                .advice("Give --xen-syms, or both --depends and --xen-depends; a host shows them with `xen-livepatch list` and `xl info`."),
        );
    }
    if let (true, None) = (args.depends.is_empty(), &symbols)
        && problems.0.is_empty()
    {
        problems.push(
            Diagnostic::new(ID_NEEDED, "--depends is needed where there is no shipped symbol file")
                .advice("Give both --depends and --xen-depends, or --xen-syms."),
        );
    }
    let (Some(name), true) = (name, problems.0.is_empty()) else { return Err(problems) };
    if let Some(symbols) = &symbols {
        let all = symbols.hypervisor.symbols().iter();
        let replaced = all.filter(|symbol| below.replaced_at.contains(&symbol.address));
        below.replaced.extend(replaced.map(|symbol| symbol.name.clone()));
    }
    // A payload says only what stands directly below it: the lowest that is given need not be the host's lowest.
    let lowest = below.depends.as_ref().or(depends.as_ref());
    let no_expectations = match (args.no_expect, lowest == xen_depends.as_ref()) {
        (true, _) => Some(LeftOut::Asked),
        (false, false) => Some(LeftOut::BelowUnknown),
        (false, true) => None,
    };
    Ok(Inputs {
        tree: args.tree.clone(),
        config: args.config.clone().unwrap_or_else(|| args.tree.join(xsplice_build::DEBIAN_CONFIG)),
        output: args.output.clone(),
        name,
        patches: patches.into_iter().flatten().collect(),
        symbols,
        depends,
        xen_depends,
        below,
        no_expectations,
        prove_base: args.prove_base,
        jobs: args
            .jobs
            .map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from),
        keep_lines: args.keep_lines,
        cc: args.cc.clone(),
        adjust: args.build_adjust,
        make_vars: args.make_vars.clone(),
        allowed: args.allowed.clone(),
        keep_objects: args.keep_objects.clone(),
    })
}

fn keep<T>(result: Result<T, Diagnostic>, problems: &mut Problems) -> Option<T> {
    result.map_err(|problem| problems.push(problem)).ok()
}

/// The payload's name as the command line gives it.
pub(crate) fn payload_name(args: &Build) -> Result<String, Diagnostic> {
    let stdin = args.patches.iter().filter(|patch| patch.as_os_str() == "-").count();
    if stdin > 1 {
        return Err(Diagnostic::new(USAGE, "standard input can be read once only")
            .advice("Give - for one patch only."));
    }
    match (&args.name, args.patches.first()) {
        (Some(name), _) => {
            if name.is_empty() || xsplice_build::payload_name(name) != *name {
                return Err(Diagnostic::new(USAGE, format!("{name:?} cannot be the name of a payload"))
                    .why("A payload is known to the host by its name: 1 to 127 letters, digits, _ and -.")
                    .advice(format!("Use for example {:?}.", xsplice_build::payload_name(name))));
            }
            Ok(name.clone())
        }
        (None, Some(first)) if first.as_os_str() == "-" => {
            Err(Diagnostic::new(USAGE, "a patch from standard input has no name")
                .advice("Give the payload's name with --name."))
        }
        (None, Some(first)) => {
            let name = xsplice_build::payload_name(&first.to_string_lossy());
            if name.is_empty() {
                return Err(Diagnostic::new(USAGE, "the patch's file name gives no name for the payload")
                    .at(Place::file(first.to_string_lossy()))
                    .advice("Give the payload's name with --name."));
            }
            Ok(name)
        }
        (None, None) => Err(Diagnostic::new(USAGE, "no patch is given").advice("Give one with --patch.")),
    }
}

fn read_patch(path: &Path) -> Result<PatchInput, Diagnostic> {
    let name = path.to_string_lossy().into_owned();
    if name != "-" {
        return Ok(PatchInput { name, bytes: read(path, "patch")? });
    }
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).map_err(|error| {
        Diagnostic::new(INPUT_UNREADABLE, format!("cannot read the patch: {error}"))
            .at(Place::file("standard input"))
            .advice("Check what feeds it.")
    })?;
    Ok(PatchInput { name: "standard input".into(), bytes })
}

/// Reads a symbol file.
pub(crate) fn read_symbols(path: PathBuf) -> Result<Symbols, Problems> {
    let bytes = read(&path, "symbol file")?;
    let hypervisor = Hypervisor::parse(&path.to_string_lossy(), &bytes)?;
    Ok(Symbols { bytes, hypervisor })
}

fn parse_id(text: &str, option: &str) -> Result<Vec<u8>, Diagnostic> {
    let digits = text.as_bytes();
    let id: Option<Vec<u8>> = digits
        .chunks(2)
        .map(|pair| {
            let text = std::str::from_utf8(pair).ok().filter(|t| t.len() == 2)?;
            // from_str_radix would take a sign.
            text.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u8::from_str_radix(text, 16).ok())?
        })
        .collect();
    match id {
        Some(id) if (1..=LONGEST_ID).contains(&id.len()) => Ok(id),
        _ => Err(Diagnostic::new(BAD_ID, format!("{option}: {text:?} is no build-id"))
            .why("A build-id is 1 to 64 bytes, written as pairs of hexadecimal digits.")
            .advice(
                "Copy it from `xen-livepatch list` or `xl info` on the host, or from `xsplice inspect`.",
            )),
    }
}

/// The id of what is applied last, and all that is known of what is below it: an id in hex, or payload files, lowest
/// first. The id is none where nothing is given.
fn read_stack(given: &[String]) -> Result<(Option<Vec<u8>>, Below), Problems> {
    let read = Problems::collect(given.iter().map(|text| read_depends(text)).collect::<Vec<_>>())?;
    let mut stack: Option<(Vec<u8>, Below)> = None;
    for (text, (id, own)) in given.iter().zip(read) {
        stack = Some(match stack {
            None => (id, own),
            Some((last, below)) => (id, on_top(below, &last, own, text)?),
        });
    }
    Ok(stack.map_or_else(Default::default, |(id, below)| (Some(id), below)))
}

/// Adds a payload on top of others, the last of which has that id.
fn on_top(mut below: Below, last: &[u8], own: Below, text: &str) -> Result<Below, Diagnostic> {
    let advice = "Give the payload files in the order in which the host has applied them, the lowest first.";
    if below.bytes.is_empty() || own.bytes.is_empty() {
        return Err(Diagnostic::new(USAGE, "of several payloads to stack on, one is given by its id alone")
            .why("What it brings and replaces is not known, and so not what stands below.")
            .advice(advice));
    }
    if own.depends.as_deref() != Some(last) {
        return Err(Diagnostic::new(USAGE, "the payloads to stack on do not stand on each other")
            .at(Place::file(text))
            .why("It depends on another build-id than that of the payload in front of it.")
            .advice(advice));
    }
    below.bytes.extend(own.bytes);
    below.exported.extend(own.exported);
    below.replaced.extend(own.replaced);
    below.replaced_at.extend(own.replaced_at);
    Ok(below)
}

/// An id in hex, or a payload file to stack on.
fn read_depends(text: &str) -> Result<(Vec<u8>, Below), Problems> {
    let path = Path::new(text);
    if !path.is_file() {
        let id = parse_id(text, "--depends").map_err(|problem| {
            if text.contains('/') || text.contains('.') {
                return read(path, "payload to stack on").err().unwrap_or(problem);
            }
            problem
        })?;
        return Ok((id, Below::default()));
    }
    let bytes = read(path, "payload to stack on")?;
    let payload = xsplice_verify::Payload::parse(&bytes)?;
    let content = xsplice_verify::payload::Content::read(&payload, None);
    let Some(id) = content.build_id.clone() else {
        return Err(Diagnostic::new(BAD_ID, "the payload to stack on has no build-id")
            .at(Place::file(text))
            .advice("Give a payload that a host accepts, or its id in hex.")
            .into());
    };
    let exported = xsplice_verify::exported_names(&bytes)?;
    let mut replaced: BTreeSet<String> = content.funcs.iter().map(|func| func.name.clone()).collect();
    let mut replaced_at = BTreeSet::new();
    for func in &content.funcs {
        match func.old {
            Target::Literal(address @ 1..) | Target::Absolute(address) => {
                replaced_at.insert(address);
            }
            Target::Undefined { symbol, .. } => {
                replaced.insert(payload.symbol_name(symbol));
            }
            _ => {}
        }
    }
    let depends = content.depends;
    Ok((id, Below { bytes: vec![bytes], exported, replaced, replaced_at, depends }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A payload that brings and replaces one thing each, both called after it.
    fn below(name: &str, depends: &[u8]) -> Below {
        Below {
            bytes: vec![name.as_bytes().to_vec()],
            exported: BTreeSet::from([format!("{name}_new")]),
            replaced: BTreeSet::from([format!("{name}_old")]),
            replaced_at: BTreeSet::from([name.len() as u64]),
            depends: Some(depends.to_vec()),
        }
    }

    #[test]
    fn of_a_stack_everything_is_known() {
        let stack = on_top(below("low", &[1]), &[2], below("upper", &[2]), "upper.livepatch").unwrap();
        let names = |end: &str| ["low", "upper"].map(|name| format!("{name}_{end}")).into();
        let expected = Below {
            bytes: vec![b"low".to_vec(), b"upper".to_vec()],
            exported: names("new"),
            replaced: names("old"),
            replaced_at: BTreeSet::from([3, 5]),
            depends: Some(vec![1]),
        };
        assert_eq!(stack, expected);
    }

    #[test]
    fn payloads_that_do_not_stand_on_each_other_are_no_stack() {
        let wrong = on_top(below("low", &[1]), &[2], below("upper", &[1]), "upper.livepatch").unwrap_err();
        assert_eq!((wrong.code, wrong.place.file.as_deref()), (USAGE, Some("upper.livepatch")));
        // By their ids alone.
        for (low, upper) in [(Below::default(), below("upper", &[2])), (below("low", &[1]), Below::default())]
        {
            let wrong = on_top(low, &[2], upper, "upper.livepatch").unwrap_err();
            assert!(wrong.what.contains("by its id alone"), "{wrong:?}");
        }
    }
}
