//! How far a build is: a spinner on a terminal, plain lines elsewhere, nothing when quiet.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Every how many objects a plain line is printed.
const PLAIN_STEP: usize = 50;

pub(crate) enum Progress {
    Quiet,
    Plain,
    Bar(ProgressBar),
}

impl Progress {
    pub(crate) fn new(quiet: bool) -> Progress {
        if quiet {
            return Progress::Quiet;
        }
        if !std::io::stderr().is_terminal() {
            return Progress::Plain;
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {prefix}: {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Progress::Bar(bar)
    }

    /// A step begins.
    pub(crate) fn say(&self, what: &str) {
        match self {
            Progress::Quiet => {}
            Progress::Plain => crate::render::line(what),
            Progress::Bar(bar) => {
                bar.set_prefix(what.to_owned());
                bar.set_message("");
            }
        }
    }

    /// Removes the spinner, so that what follows stands alone.
    pub(crate) fn finish(&self) {
        if let Progress::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

impl xsplice_build::Progress for Progress {
    fn step(&self, name: &str) {
        self.say(name);
    }

    fn compiled(&self, object: &str, count: usize) {
        match self {
            Progress::Quiet => {}
            Progress::Plain if count.is_multiple_of(PLAIN_STEP) => {
                crate::render::line(&format!("  {count} objects compiled"))
            }
            Progress::Plain => {}
            Progress::Bar(bar) => bar.set_message(format!("{count} {object}")),
        }
    }
}
