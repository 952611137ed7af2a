//! What `xsplice verify` says the loader answers is what booted hypervisors answer, for payloads damaged in one way
//! each; docs/loader-answers.md has the table.

use std::path::Path;

use fs_err as fs;
use libtest_mimic::{Completion, Failed};
use xsplice_boot::{Lab, Release};
use xsplice_e2e::answers::{self, About, Xen};
use xsplice_e2e::recipes;

use crate::setup::{self, Setup};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/loader-answers.md");

fn compare(setup: &Setup, xen: &Xen, all: bool) -> Result<(), String> {
    let page = fs::read_to_string(Path::new(PAGE)).map_err(|error| error.to_string())?;
    let about = if all { About::All } else { About::Differing(&page) };
    let folder = setup.work.join(format!("answers-{}", xen.label));
    let found = answers::ask(xen, about, &setup.xsplice, &folder)?;
    answers::is_up_to_date(&page, xen.label, about, &found)
        .map_err(|wrong| format!("{wrong}\ncargo xtask answers writes the page anew"))
}

/// Debian 12's 4.17.5.
pub fn bookworm() -> Result<Completion, Failed> {
    setup::with(|setup| {
        let built = Some(setup.payload(&recipes::STATIC)?.bytes()?);
        let lab = Lab::new(&setup.debian.boot(), &setup.cache);
        let symbols = setup.debian.xen_syms.clone();
        compare(setup, &Xen { label: "4.17.5", minor: 17, lab, symbols, built }, true)
    })
}

/// Debian 11's 4.14.6, or Debian 13's 4.20.4: about what depends on the version, and with `XSPLICE_FULL=1` about
/// everything. Where its packages are not served any more, nothing is compared.
pub fn other(release: &Release) -> Result<Completion, Failed> {
    let full = std::env::var_os("XSPLICE_FULL").is_some_and(|value| value == "1");
    let mut missing = None;
    let done = setup::with(|setup| match answers::shipped(&setup.debian.boot(), &setup.cache, release) {
        Ok(Ok(xen)) => compare(setup, &xen, full),
        Ok(Err(why)) => {
            missing = Some(why);
            Ok(())
        }
        Err(why) => Err(why),
    })?;
    Ok(missing.map_or(done, Completion::ignored_with))
}
