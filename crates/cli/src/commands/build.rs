//! `xsplice build`.

use std::path::{Path, PathBuf};

use xsplice_build::{Launch, Request, Toolchain};
use xsplice_link::Ids;
use xsplice_report::{Diagnostic, Outcome, Problems};

use crate::args::{Build, ProveBase};
use crate::codes;
use crate::inputs::{self, Inputs};
use crate::output::{self, Output};
use crate::pipeline;
use crate::place::BuildPlace;
use crate::progress::Progress;
use crate::report::{PayloadFacts, Report};
use crate::stages::Verified;
use crate::{host_note, pause, render};

pub(crate) fn run(args: &Build, quiet: bool, json: bool) -> Outcome {
    let inputs = match inputs::resolve(args) {
        Ok(inputs) => inputs,
        Err(problems) => return not_begun(args, problems, json),
    };
    let prepared = match clash(args, &inputs.name) {
        Some(clash) => Err(clash),
        None => Output::prepare(&inputs.output, &inputs.name),
    };
    let output = match prepared {
        Ok(output) => output,
        Err(problem) => {
            render::problems(&problem.into());
            return Outcome::Failed;
        }
    };
    let mut report =
        Report::new(&inputs.name, inputs.patches.iter().map(|patch| patch.name.clone()).collect());
    report.prepare.clone_from(&args.prepare);
    let progress = Progress::new(quiet);
    let mut build = |place: &BuildPlace| {
        let request = request(args, &inputs, place.path(), &mut report)?;
        pipeline::run(&inputs, request, &progress, &mut report)
    };
    let (built, left) = match BuildPlace::of(args) {
        Ok(place) => (build(&place), place.leave()),
        Err(problems) => (Err(problems), None),
    };
    progress.finish();
    report.findings.problems.extend(left);
    let payload = conclude(built, &inputs, &output, &mut report);
    if let Err(problem) = output.write_report(&report) {
        report.findings.problems.push(problem);
        report.end(Outcome::Failed);
    }
    pause::at("write");
    if let (Some(payload), Outcome::Done, false) = (payload, report.outcome, xsplice_process::interrupted())
        && let Err(problem) = write_out(&payload, &report, &output)
    {
        report.findings.problems.push(problem);
        report.payload = None;
        report.end(Outcome::Failed);
    }
    if xsplice_process::interrupted() {
        report.end(Outcome::Failed);
    }
    show(&report, &output, quiet, json, args.explain);
    report.outcome
}

/// An input that the run would remove: nobody may lose it.
fn clash(args: &Build, name: &str) -> Option<Diagnostic> {
    let given = args.config.iter().chain(&args.patches).chain(&args.xen_syms);
    let below = args.depends.iter().map(std::path::Path::new);
    output::overwritten(&args.output, name, given.map(PathBuf::as_path).chain(below))
}

/// The payload comes last: where it is, the note is too.
fn write_out(payload: &Verified, report: &Report, output: &Output) -> Result<(), Diagnostic> {
    if let Some(note) = host_note::render(report) {
        output.write_note(&note)?;
    }
    // A note without its payload is about nothing.
    output.write_payload(payload.bytes()).inspect_err(|_| output.remove_note())
}

/// A command line that cannot be followed: the report says so too, and nothing of an earlier run can be taken for
/// the result of this one.
fn not_begun(args: &Build, problems: Problems, json: bool) -> Outcome {
    let outcome = pipeline::end_of(&problems);
    // Without a name there is no place for a payload, and so none of an earlier run.
    if let Ok(name) = inputs::payload_name(args) {
        let patches = args.patches.iter().map(|patch| patch.to_string_lossy().into_owned()).collect();
        let mut report = Report::new(&name, patches);
        report.findings.problems = problems.clone();
        report.end(outcome);
        let written = match clash(args, &name) {
            Some(clash) => Err(clash),
            None => Output::prepare(&args.output, &name).and_then(|output| output.write_report(&report)),
        };
        if let Err(problem) = written {
            report.findings.problems.push(problem);
        }
        render::problems(&report.findings.problems);
        if json {
            render::json(&report);
        }
    } else {
        render::problems(&problems);
    }
    outcome
}

fn request(args: &Build, inputs: &Inputs, cache: &Path, report: &mut Report) -> Result<Request, Problems> {
    let wrapper = std::env::current_exe().map_err(|error| {
        xsplice_report::Diagnostic::new(
            codes::INPUT_UNREADABLE,
            format!("cannot find xsplice's own program: {error}"),
        )
        .advice("Start it by its full path.")
    })?;
    let mut request =
        Request::new(&inputs.tree, inputs.patches.clone(), &inputs.config, cache, wrapper, &inputs.output);
    request.jobs = inputs.jobs;
    request.keep_lines = inputs.keep_lines;
    request.whole = inputs.prove_base == ProveBase::All;
    request.adjust = inputs.adjust;
    request.want_symbols = inputs.symbols.is_none();
    request.make_vars.clone_from(&inputs.make_vars);
    if let Some(preset) = args.preset {
        report.preset = Some(preset.apply(&mut request)?);
    }
    if let Some(prefix) = &args.cross_compile {
        request.toolchain = Toolchain::prefixed(prefix);
    }
    for (given, tool) in [
        (&inputs.cc, &mut request.toolchain.cc),
        (&args.ld, &mut request.toolchain.ld),
        (&args.host_cc, &mut request.toolchain.host_cc),
    ] {
        if let Some(given) = given {
            tool.clone_from(given);
        }
    }
    if let Some(symbols) = &inputs.symbols {
        request.shipped_texts = symbols.hypervisor.returned_texts();
    }
    request.prepare.clone_from(&args.prepare);
    request.launcher = args.launcher.map(Launch::from);
    Ok(request)
}

fn conclude(
    built: Result<Option<Verified>, Problems>,
    inputs: &Inputs,
    output: &Output,
    report: &mut Report,
) -> Option<Verified> {
    match built {
        Ok(Some(payload)) => {
            let ids = Ids {
                depends: inputs.depends.clone().unwrap_or_default(),
                xen_depends: inputs.xen_depends.clone().unwrap_or_default(),
            };
            report.payload = Some(PayloadFacts::of(&payload, output.payload(), &ids));
            report.findings.problems.normalise();
            report.end(Outcome::Done);
            Some(payload)
        }
        Ok(None) => {
            report.end(Outcome::NothingToPatch);
            None
        }
        Err(problems) => {
            report.findings.problems.extend(problems);
            report.findings.problems.normalise();
            report.end(pipeline::end_of(&report.findings.problems));
            None
        }
    }
}

fn show(report: &Report, output: &Output, quiet: bool, json: bool, explain: bool) {
    render::problems(&report.findings.problems);
    if json {
        render::json(report);
    }
    if xsplice_process::interrupted() {
        render::line("interrupted: no payload was written");
        return;
    }
    if !quiet {
        for line in render::summary(report) {
            render::line(&line);
        }
    }
    if explain && !quiet {
        for line in render::explanation(&report.findings) {
            render::line(&line);
        }
    }
    if !quiet {
        render::hint(&report.findings.problems);
    }
    if report.outcome == Outcome::Done && !quiet {
        render::line(&format!("for the host: {}", output.note().to_string_lossy()));
    }
    if report.outcome == Outcome::Done && !json {
        render::data(&output.payload().to_string_lossy());
    }
}
