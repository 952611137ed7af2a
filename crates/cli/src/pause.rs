//! A place to stop at, for tests that kill xsplice in the middle of its work.

use std::time::{Duration, Instant};

/// Waits there if the test's variable names this stage; a signal ends the wait.
pub(crate) fn at(stage: &str) {
    if std::env::var_os("XSPLICE_TEST_PAUSE").is_none_or(|wanted| wanted != stage) {
        return;
    }
    crate::render::line(&format!("paused at {stage}"));
    let end = Instant::now() + Duration::from_secs(60);
    while !xsplice_process::interrupted() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
}
