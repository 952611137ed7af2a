//! `xsplice cache`.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use xsplice_build::KeptBuild;
use xsplice_report::{Outcome, Problems};

use crate::args::CacheAction;
use crate::render;

pub(crate) fn run(action: CacheAction, json: bool) -> Outcome {
    let done = xsplice_boot::default_cache().and_then(|cache| act(action, &cache, json));
    match done {
        Ok(()) => Outcome::Done,
        Err(problems) => {
            render::problems(&problems);
            problems.outcome()
        }
    }
}

fn act(action: CacheAction, cache: &Path, json: bool) -> Result<(), Problems> {
    match action {
        CacheAction::Path if json => render::json(&cache.display().to_string()),
        CacheAction::Path => render::data(&cache.display().to_string()),
        CacheAction::List => {
            let kept = xsplice_build::kept(cache)?;
            if json {
                render::json(&kept);
            } else {
                kept.iter().for_each(|build| render::data(&line(build)));
            }
        }
        CacheAction::Clear => {
            let cleared = xsplice_build::clear(cache)?;
            if json {
                render::json(&cleared);
            } else {
                cleared.removed.iter().for_each(|build| render::data(&format!("removed {}", line(build))));
                cleared.in_use.iter().for_each(|build| render::data(&format!("left alone {}", line(build))));
            }
        }
    }
    Ok(())
}

/// A kept build in a line.
fn line(build: &KeptBuild) -> String {
    let mut words = vec![build.key.clone(), format!("{} MB", build.bytes.div_ceil(1_000_000))];
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    words.extend(build.used.map(|used| match now.saturating_sub(used) / 3600 {
        0 => "used within the hour".to_owned(),
        hours if hours < 48 => format!("used {hours} h ago"),
        hours => format!("used {} days ago", hours / 24),
    }));
    words.push(if build.usable { "usable" } else { "not usable: it will be made anew" }.to_owned());
    words.extend(build.in_use.then(|| "in use".to_owned()));
    words.join(", ")
}
