//! `xsplice inspect`.

use xsplice_report::{Outcome, Problems};

use crate::args::Inspect;
use crate::{inputs, render};

pub(crate) fn run(args: &Inspect, json: bool) -> Outcome {
    let found = inputs::read(&args.payload, "payload").map_err(Problems::from);
    match found.and_then(|bytes| xsplice_verify::inspect(&bytes)) {
        Ok(inspection) => {
            if json {
                render::json(&inspection);
            } else {
                render::data(&xsplice_verify::render_text(&inspection));
            }
            Outcome::Done
        }
        Err(problems) => {
            render::problems(&problems);
            problems.outcome()
        }
    }
}
