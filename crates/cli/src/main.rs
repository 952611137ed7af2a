//! The `xsplice` command.

mod args;
mod codes;
#[cfg(test)]
mod codes_tests;
mod commands;
mod explanations;
mod host_note;
mod inputs;
mod object_folder;
mod output;
mod pause;
mod pipeline;
mod place;
mod progress;
mod prove;
mod render;
mod report;
mod stages;

use std::process::ExitCode;

use clap::Parser;
use xsplice_report::Outcome;

fn main() -> ExitCode {
    // Thousands of calls of a build come here: before anything else is set up.
    let mut words = std::env::args_os();
    if words.next().is_some_and(|name| xsplice_build::is_wrapper(&name)) {
        return xsplice_build::wrapper_main(std::env::args_os());
    }
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are no errors; usage is, and its code is 1 as for every failure.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { Outcome::Failed.exit_code() } else { 0 });
        }
    };
    if let Err(error) = xsplice_process::catch_signals() {
        render::line(&format!("warning: signals are not caught, so Ctrl-C may leave files behind: {error}"));
    }
    let outcome = match args.command {
        args::Command::Build(build) => commands::build::run(&build, args.quiet, args.json),
        args::Command::Diff(diff) => commands::diff::run(&diff, args.quiet, args.json),
        args::Command::Inspect(inspect) => commands::inspect::run(&inspect, args.json),
        args::Command::Verify(verify) => commands::verify::run(&verify, args.quiet, args.json),
        args::Command::Explain(explain) => commands::explain::run(&explain, args.json),
        args::Command::Boot(boot) => commands::boot::run(&boot, args.quiet, args.json),
        args::Command::Cache(cache) => commands::cache::run(cache.action, args.json),
    };
    ExitCode::from(outcome.exit_code())
}
