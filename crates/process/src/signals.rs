//! SIGINT, SIGTERM and SIGHUP end the children and are remembered.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::group;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static GROUPS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());
static ONCE: Once = Once::new();

/// How long children may take to end by themselves before they are killed.
const GRACE: Duration = Duration::from_secs(2);

/// Whether a signal asked this process to stop. Long computations look at it between two steps.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Starts to catch SIGINT, SIGTERM and SIGHUP. Called once by a program's main; more calls do nothing.
///
/// # Errors
/// When the handlers cannot be registered.
pub fn catch_signals() -> io::Result<()> {
    let mut result = Ok(());
    ONCE.call_once(|| {
        result = Signals::new([SIGINT, SIGTERM, SIGHUP]).map(|mut signals| {
            thread::spawn(move || {
                for _ in signals.forever() {
                    let again = INTERRUPTED.swap(true, Ordering::SeqCst);
                    if again {
                        end_all(libc::SIGKILL);
                        continue;
                    }
                    end_all(libc::SIGTERM);
                    thread::spawn(|| {
                        thread::sleep(GRACE);
                        end_all(libc::SIGKILL);
                    });
                }
            });
        });
    });
    result
}

fn groups() -> std::sync::MutexGuard<'static, BTreeSet<i32>> {
    GROUPS.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn end_all(signal: i32) {
    // The lock is held while signalling: a group cannot be unregistered, and its number reused, meanwhile.
    for &group in groups().iter() {
        group::signal(group, signal);
    }
}

/// A group that is ended on a signal, for as long as this value lives.
pub(crate) struct Registered(i32);

impl Registered {
    pub(crate) fn new(group: i32) -> Registered {
        groups().insert(group);
        Registered(group)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        groups().remove(&self.0);
    }
}
