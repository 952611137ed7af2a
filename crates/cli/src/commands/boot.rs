//! `xsplice boot`.

use xsplice_boot::{BootReport, Lab, Plan};
use xsplice_report::{Outcome, Problems};

use crate::args::Boot;
use crate::progress::Progress;
use crate::{inputs, render};

pub(crate) fn run(args: &Boot, quiet: bool, json: bool) -> Outcome {
    let progress = Progress::new(quiet);
    let result = boot(args, &progress);
    progress.finish();
    match result {
        Ok(report) => {
            if json {
                render::json(&report);
            } else {
                render::data(&xsplice_boot::render_text(&report));
            }
            let problems = report.problems();
            render::problems(&problems);
            problems.outcome()
        }
        Err(problems) => {
            render::problems(&problems);
            problems.outcome()
        }
    }
}

fn boot(args: &Boot, progress: &Progress) -> Result<BootReport, Problems> {
    let mut plan = match &args.script {
        Some(script) => {
            let text = String::from_utf8_lossy(&inputs::read(script, "script")?).into_owned();
            let steps = xsplice_boot::parse_script(&script.to_string_lossy(), &text)?;
            Plan::script(&args.payloads, steps)
        }
        None => Plan::exercise(&args.payloads, &args.probe),
    };
    plan.xen_args.clone_from(&args.xen_arg);
    let cache = xsplice_boot::default_cache()?;
    let say = |what: &str| progress.say(what);
    let debian = xsplice_boot::fetch_boot(&cache, &say)?;
    let mut lab = Lab::new(&debian, &cache);
    if let Some(xen) = &args.xen {
        lab = lab.with_xen(xen);
    }
    if let Some(tools) = &args.tools {
        lab = lab.with_tools(tools);
    }
    if let Some(kernel) = &args.kernel {
        lab = lab.with_kernel(kernel);
    }
    let report = lab.boot(&plan, &say)?;
    if let Some(logs) = &args.logs {
        report.save_logs(logs)?;
    }
    Ok(report)
}
