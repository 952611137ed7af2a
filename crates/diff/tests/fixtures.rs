//! Small sources, each compiled as it was and as it is patched, with what must come of it in comments at its top.
//!
//! A fixture `fixtures/NAME.c` (or `.S`) is compiled twice with flags like Xen's own: without and with
//! `-DPATCHED`. `-DSTUB` compiles it a third time as another object of the hypervisor, if it mentions that
//! name. Both objects are linked to small hypervisors, the first of which is the shipped one. Then:
//! the original compared with itself, and with itself under another `-frandom-seed`, must give nothing; the
//! pair must give what the directives say, and nothing else; and a payload must pass the verifier, and when it is
//! loaded, do what the patched hypervisor does (see `support/loaded.rs`).
//!
//! `support/directives.rs` describes the directives.

mod support;

use std::path::{Path, PathBuf};

use libtest_mimic::{Arguments, Failed, Trial};
use support::directives::Expectations;

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for file in sources() {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let expected = match Expectations::parse(&text) {
            Ok(expected) => expected,
            Err(message) => {
                trials.push(Trial::test(name, move || Err(Failed::from(message))));
                continue;
            }
        };
        for flags in expected.variants() {
            let title = if flags.is_empty() { name.clone() } else { format!("{name} {}", flags.join(" ")) };
            let (file, expected) = (file.clone(), expected.clone());
            let known = expected.known_failure.clone();
            let mut trial = Trial::test(title, move || {
                support::run(&file, &expected, &flags).map_err(|problems| Failed::from(problems.join("\n")))
            });
            if let Some(reason) = known {
                trial = trial.with_kind(format!("known failure: {reason}")).with_ignored_flag(true);
            }
            trials.push(trial);
        }
        if expected.damaged {
            trials.push(Trial::test(format!("{name}, damaged"), move || {
                support::notices_damage(&file, &expected)
                    .map_err(|problems| Failed::from(problems.join("\n")))
            }));
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn sources() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.expect("an entry of the directory").path())
        .filter(|path| path.extension().is_some_and(|e| e == "c" || e == "S"))
        .collect();
    files.sort();
    files
}
