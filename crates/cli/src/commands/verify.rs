//! `xsplice verify`.

use std::path::Path;

use serde::Serialize;
use xsplice_report::{Diagnostic, Outcome, Place, Problems};
use xsplice_verify::{
    Action, Errno, Facts, Finding, InPlace, Loader, LoaderTraits, PatchedObject, Safe, Side, Step, Verdict,
    VerifyInput, XenSymbols, XenVersion,
};

use crate::args::Verify;
use crate::report::TOOL;
use crate::{inputs, object_folder, render};

/// Goes up whenever a field changes its meaning or goes away.
const SCHEMA: u32 = 1;

/// What is left where a file cannot be taken apart.
const NOT_READ: &str = "nothing but the file header was looked at";

/// What is left without objects.
const NO_OBJECTS: &str = "no function was decoded in place: whether each calls and reads what the patched source says takes the objects it was made of (--objects)";

/// What no rule about a file can say.
const NOT_DONE: [&str; 2] = [
    "whether hooks, or what they call, wait for other CPUs or fault was not looked at",
    "what only the host knows at apply: waiting vCPUs, other actions, a timeout, a hook's veto",
];

pub(crate) fn run(args: &Verify, quiet: bool, json: bool) -> Outcome {
    let files = match Files::read(args) {
        Ok(files) => files,
        Err(problems) => {
            render::problems(&problems);
            return problems.outcome();
        }
    };
    let (version, mut problems) = match version(args, &files.xen_syms) {
        Ok(found) => found,
        Err(problems) => {
            render::problems(&problems);
            return problems.outcome();
        }
    };
    let below: Vec<&[u8]> = files.on.iter().map(|(_, bytes)| bytes.as_slice()).collect();
    let names: Vec<&str> = files.on.iter().map(|(name, _)| name.as_str()).collect();
    let traits = LoaderTraits::of(version.version);
    let name = payload_name(&args.payload);
    let objects: Option<Vec<PatchedObject<'_>>> = files
        .objects
        .as_ref()
        .map(|objects| objects.iter().map(|(path, bytes)| PatchedObject { path, bytes }).collect());
    let verdict = xsplice_verify::verify(&VerifyInput {
        payload: &files.payload,
        name: &name,
        xen_syms: Some(&files.xen_syms),
        below: &below,
        below_names: &names,
        traits: Some(traits),
        in_place: true,
        objects: objects.as_deref(),
        ..VerifyInput::default()
    });
    problems.extend(verdict.problems.clone());
    let report = Report::new(args, &name, version, traits, &verdict, &problems);
    render::problems(&problems);
    if json {
        render::json(&report);
    } else if !quiet {
        report.lines().iter().for_each(|line| render::data(line));
        render::hint(&problems);
    }
    report.outcome
}

/// Everything that the command line names.
struct Files {
    payload: Vec<u8>,
    xen_syms: Vec<u8>,
    /// The payloads below: name and bytes.
    on: Vec<(String, Vec<u8>)>,
    /// The objects of the patched build, where they are given: path and bytes.
    objects: Option<Vec<(String, Vec<u8>)>>,
}

impl Files {
    /// Reads all of it, and reports all that cannot be read.
    fn read(args: &Verify) -> Result<Files, Problems> {
        let mut problems = Problems::new();
        let mut file = |path: &Path, what| {
            inputs::read(path, what).map_err(|problem| problems.push(problem)).unwrap_or_default()
        };
        let payload = file(&args.payload, "payload");
        let xen_syms = file(&args.xen_syms, "symbol file");
        let on = args.on.iter().map(|path| (payload_name(path), file(path, "payload to stack on"))).collect();
        let objects = args.objects.as_ref().map(|folder| object_folder::read(folder));
        let objects = objects.transpose().map_err(|problem| problems.push(problem)).unwrap_or_default();
        if problems.0.is_empty() { Ok(Files { payload, xen_syms, on, objects }) } else { Err(problems) }
    }
}

/// What the answers do not rest on.
fn not_done(verdict: &Verdict) -> Vec<String> {
    if !verdict.read {
        return vec![NOT_READ.to_owned()];
    }
    let nameless = xsplice_verify::codes::XEN_ID_UNKNOWN;
    let no_id = verdict.problems.0.iter().any(|problem| problem.code == nameless);
    let no_id = no_id.then_some("no build-id was compared with the hypervisor's: the symbol file has none");
    let mut all: Vec<String> = no_id.into_iter().map(str::to_owned).collect();
    all.extend(not_done_in_place(verdict.in_place.as_ref()));
    all.extend(NOT_DONE.map(str::to_owned));
    all
}

fn not_done_in_place(in_place: Option<&InPlace>) -> Vec<String> {
    let because =
        |why: &str| vec![format!("the payload was not applied to an image of the hypervisor: {why}")];
    let Some(done) = in_place else { return because("it breaks rules") };
    if let Some(obstacle) = &done.obstacle {
        return because(obstacle);
    }
    let mut all = Vec::new();
    if done.altcalls_set_at_boot > 0 {
        all.push(format!(
            "where {} altcalls lead was not followed: their pointers are set at boot",
            done.altcalls_set_at_boot
        ));
    }
    if done.objects.is_none() {
        all.push(NO_OBJECTS.to_owned());
    }
    all
}

/// The name that xen-livepatch gives a payload: its file's, up to the last dot.
fn payload_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match name.rsplit_once('.') {
        Some((stem, _)) => stem.to_owned(),
        None => name,
    }
}

/// Whose loader is replayed, and how that is known.
#[derive(Debug, Clone, Copy, Serialize)]
struct Version {
    version: XenVersion,
    source: Source,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Source {
    Option,
    SymbolFile,
    Fallback,
}

/// The version, with what is uncertain about it.
fn version(args: &Verify, xen_syms: &[u8]) -> Result<(Version, Problems), Problems> {
    let found = XenSymbols::parse(xen_syms).map_err(|problems| at_file(problems, &args.xen_syms))?.version();
    let mut problems = Problems::new();
    let mut warn = |what: String, why: &str, advice: &str| {
        problems.push(
            Diagnostic::new(xsplice_verify::codes::XEN_VERSION_ASSUMED, what)
                .at(Place::file(args.xen_syms.to_string_lossy()))
                .why(why)
                .advice(advice),
        );
    };
    const DIFFER: &str = "Loaders of different versions differ in some rules and errors.";
    let version = match (args.xen_version, found) {
        (Some(given), Some(found)) => {
            let one = (given.major, given.minor) == (found.major, found.minor)
                && (given.patch.is_none() || found.patch.is_none() || given.patch == found.patch);
            if !one {
                let what = format!("rules of Xen {given} are used, and the symbol file is that of {found}");
                warn(what, DIFFER, "Leave --xen-version out, or give the other symbol file.");
            }
            // What the file says beyond the option is kept.
            let patch = given.patch.or(found.patch.filter(|_| one));
            Version { version: XenVersion { patch, ..given }, source: Source::Option }
        }
        (Some(given), None) => Version { version: given, source: Source::Option },
        (None, Some(found)) => {
            if !found.is_known() {
                let nearest = nearest(found);
                let what = format!("rules of Xen {nearest} are used, and the hypervisor is {found}");
                warn(what, "The loaders of 4.13 to 4.22 are known.", "Boot it in the lab: xsplice boot.");
                Version { version: nearest, source: Source::Fallback }
            } else {
                Version { version: found, source: Source::SymbolFile }
            }
        }
        (None, None) => {
            let fallback = XenVersion::FALLBACK;
            let what = format!("the hypervisor's version is not known: rules of Xen {fallback} are used");
            warn(what, DIFFER, "Give it with --xen-version; `xl info` shows it.");
            Version { version: fallback, source: Source::Fallback }
        }
    };
    Ok((version, problems))
}

fn nearest(version: XenVersion) -> XenVersion {
    let known = xsplice_verify::KNOWN_MINORS;
    let old = version.major < 4 || (version.major == 4 && version.minor < *known.start());
    XenVersion { major: 4, minor: if old { *known.start() } else { *known.end() }, patch: None }
}

fn at_file(mut problems: Problems, file: &Path) -> Problems {
    for problem in &mut problems.0 {
        problem.place.file = Some(file.to_string_lossy().into_owned());
    }
    problems
}

/// Both answers, and what they rest on.
#[derive(Debug, Serialize)]
struct Report<'v> {
    schema: u32,
    tool: &'static str,
    outcome: Outcome,
    exit_code: u8,
    payload: String,
    name: &'v str,
    xen_syms: String,
    /// The payloads below, lowest first.
    on: Vec<String>,
    xen_version: Version,
    loader_traits: LoaderTraits,
    loader: LoaderAnswer<'v>,
    safe: SafeAnswer,
    facts: Facts,
    /// What was done in an image of the hypervisor; none where the payload breaks rules.
    in_place: Option<&'v InPlace>,
    not_done: Vec<String>,
    rules: Vec<Broken<'v>>,
    /// Warnings about what the answers rest on included.
    problems: &'v Problems,
}

#[derive(Debug, Serialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
enum LoaderAnswer<'v> {
    Accept,
    Reject {
        /// What was asked for: upload or apply.
        at: Action,
        errno: Errno,
        code: &'static str,
        reason: &'v str,
    },
    Unknown,
}

#[derive(Debug, Serialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
enum SafeAnswer {
    Yes,
    No { codes: Vec<&'static str> },
    Unknown,
}

/// What was done in an image of the hypervisor, for people.
fn in_place_lines(done: &InPlace) -> Vec<String> {
    if done.obstacle.is_some() {
        return Vec::new();
    }
    let reverted =
        if done.reverted { "reverted to the identical image" } else { "reverted, not to the same image" };
    let mut lines = vec![format!(
        "in place: applied with {} relocations, {} trampolines followed, {} functions of NOPs, {} alternatives and {} altcalls decoded; {reverted}",
        done.relocations, done.trampolines, done.nops, done.alternatives, done.altcalls
    )];
    if let Some(objects) = done.objects {
        lines.push(format!(
            "against the objects: {} functions, {} references, {} constants and texts, {} hooks",
            objects.functions, objects.references, objects.constants, objects.hooks
        ));
    }
    lines
}

/// One broken rule, and whose it is.
#[derive(Debug, Serialize)]
struct Broken<'v> {
    side: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<Step>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<Errno>,
    #[serde(flatten)]
    diagnostic: &'v Diagnostic,
}

impl<'v> Broken<'v> {
    /// Warnings and failures are nobody's rule.
    fn of(finding: &'v Finding) -> Option<Broken<'v>> {
        let (side, step, errno) = match finding.side {
            Side::Loader(step, errno) => ("loader", Some(step), Some(errno)),
            Side::Host => ("host", None, None),
            Side::Note => return None,
        };
        Some(Broken { side, step, errno, diagnostic: &finding.diagnostic })
    }
}

impl<'v> Report<'v> {
    fn new(
        args: &Verify,
        name: &'v str,
        xen_version: Version,
        loader_traits: LoaderTraits,
        verdict: &'v Verdict,
        problems: &'v Problems,
    ) -> Report<'v> {
        let loader = match verdict.loader() {
            Loader::Accept => LoaderAnswer::Accept,
            Loader::Reject { action, errno, because } => {
                LoaderAnswer::Reject { at: action, errno, code: because.code.name, reason: &because.what }
            }
            Loader::Unknown => LoaderAnswer::Unknown,
        };
        let safe = match verdict.safe() {
            Safe::Yes => SafeAnswer::Yes,
            Safe::No(codes) => SafeAnswer::No { codes: codes.iter().map(|code| code.name).collect() },
            Safe::Unknown => SafeAnswer::Unknown,
        };
        let outcome = match (&loader, &safe) {
            _ if problems.outcome() == Outcome::Failed => Outcome::Failed,
            (LoaderAnswer::Accept, SafeAnswer::Yes) => Outcome::Done,
            _ => Outcome::Refused,
        };
        let shown = |path: &Path| path.to_string_lossy().into_owned();
        Report {
            schema: SCHEMA,
            tool: TOOL,
            outcome,
            exit_code: outcome.exit_code(),
            payload: shown(&args.payload),
            name,
            xen_syms: shown(&args.xen_syms),
            on: args.on.iter().map(|path| shown(path)).collect(),
            xen_version,
            loader_traits,
            loader,
            safe,
            facts: verdict.facts,
            in_place: verdict.in_place.as_ref(),
            not_done: not_done(verdict),
            rules: verdict.findings.0.iter().filter_map(Broken::of).collect(),
            problems,
        }
    }

    /// What people see.
    fn lines(&self) -> Vec<String> {
        let loader = match &self.loader {
            LoaderAnswer::Accept => "loader: accept".to_owned(),
            LoaderAnswer::Reject { at, errno, code, reason } => {
                format!("loader: reject at {} with {}: {reason} [{code}]", at.name(), errno.name())
            }
            LoaderAnswer::Unknown => "loader: unknown".to_owned(),
        };
        let safe = match &self.safe {
            SafeAnswer::Yes => "safe: yes".to_owned(),
            SafeAnswer::No { codes } => format!("safe: no [{}]", codes.join("] [")),
            SafeAnswer::Unknown => "safe: unknown, since it was not read that far".to_owned(),
        };
        let Version { version, source } = self.xen_version;
        let known = match source {
            Source::Option => "as given",
            Source::SymbolFile => "read from the symbol file",
            Source::Fallback => "a fallback",
        };
        let facts = self.facts;
        let mut lines = vec![loader, safe, format!("rules: Xen {version}, {known}")];
        if self.not_done != [NOT_READ] {
            lines.push(format!(
                "checked: {} functions, {} symbols of Xen and {} of payloads below, {} relocations, {} bytes of memory",
                facts.functions,
                facts.symbols_from_xen,
                facts.symbols_from_payloads,
                facts.relocations,
                facts.memory
            ));
        }
        lines.extend(self.in_place.into_iter().flat_map(in_place_lines));
        lines.extend(self.not_done.iter().map(|what| format!("not done: {what}")));
        lines
    }
}
