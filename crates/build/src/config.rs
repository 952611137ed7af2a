//! What Kconfig makes of the configuration that the user gave.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xsplice_report::{Diagnostic, Place, Problems};

use crate::codes;

/// One option on which the configuration as given and the one that was built with differ.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ConfigChange {
    /// Its name, without `CONFIG_`.
    pub name: String,
    /// Its value as given: `n` where it was switched off, none where it was not mentioned.
    pub asked: Option<String>,
    /// Its value after `make olddefconfig`; none where there is no such option, or it cannot be chosen.
    pub got: Option<String>,
}

/// Options and values, without `CONFIG_`.
pub(crate) type Options = BTreeMap<String, String>;

/// Reads a `.config` file.
pub(crate) fn parse(text: &str) -> Result<Options, String> {
    let mut options = Options::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix("# CONFIG_").and_then(|rest| rest.strip_suffix(" is not set")) {
            options.insert(name.to_owned(), "n".to_owned());
        } else if line.is_empty() || line.starts_with('#') {
            continue;
        } else if let Some((name, value)) = line.strip_prefix("CONFIG_").and_then(|rest| rest.split_once('='))
        {
            options.insert(name.to_owned(), value.to_owned());
        } else {
            return Err(format!("line {} is no option: {line}", index + 1));
        }
    }
    Ok(options)
}

/// What differs, sorted by name. An option that is off is the same as one that cannot be chosen.
pub(crate) fn compare(asked: &Options, got: &Options) -> Vec<ConfigChange> {
    let names: std::collections::BTreeSet<&String> = asked.keys().chain(got.keys()).collect();
    names
        .into_iter()
        .filter_map(|name| {
            let (asked, got) = (asked.get(name), got.get(name));
            let effective = |value: Option<&String>| value.filter(|value| *value != "n").cloned();
            (effective(asked) != effective(got)).then(|| ConfigChange {
                name: name.clone(),
                asked: asked.cloned(),
                got: got.cloned(),
            })
        })
        .collect()
}

/// Whether an option decides about code everywhere, so that a base built otherwise is another hypervisor.
fn is_decisive(name: &str) -> bool {
    matches!(
        name,
        "LIVEPATCH"
            | "DEBUG"
            | "INDIRECT_THUNK"
            | "RETURN_THUNK"
            | "XEN_IBT"
            | "XEN_SHSTK"
            | "UBSAN"
            | "COVERAGE"
            | "STACK_PROTECTOR"
            | "LTO"
    ) || name.contains("HARDEN")
}

/// What stands against the configuration: `file` is how the user named it.
pub(crate) fn check(file: &str, got: &Options, changes: &[ConfigChange]) -> Problems {
    let mut problems = Problems::new();
    if got.get("LIVEPATCH").is_none_or(|value| value != "y") {
        problems.push(
            Diagnostic::new(codes::LIVEPATCH_OFF, "CONFIG_LIVEPATCH is off after make olddefconfig")
                .at(Place::file(file))
                .why("A hypervisor built with this configuration cannot load any payload.")
                .advice(
                    "Give the configuration of the hypervisor that runs; it is installed beside it, as \
                     /boot/xen-VERSION.config.",
                ),
        );
        return problems;
    }
    for change in changes.iter().filter(|change| change.asked.is_some() && is_decisive(&change.name)) {
        let show = |value: &Option<String>| value.clone().unwrap_or_else(|| "not available".to_owned());
        problems.push(
            Diagnostic::new(
                codes::CONFIG_DRIFT,
                format!(
                    "CONFIG_{} was {} and became {}",
                    change.name,
                    show(&change.asked),
                    show(&change.got)
                ),
            )
            .at(Place::file(file).symbol(format!("CONFIG_{}", change.name)))
            .why("Code built with the one cannot be compared with a hypervisor built with the other.")
            .advice(
                "Give the configuration that belongs to this tree, and the compiler that it was made with.",
            ),
        );
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Options {
        parse(text).unwrap()
    }

    #[test]
    fn options_are_read_and_junk_is_not() {
        let found = options("#\n# words\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_S=\"x = y\"\n\n");
        assert_eq!(found["A"], "y");
        assert_eq!(found["B"], "n");
        assert_eq!(found["S"], "\"x = y\"");
        assert!(parse("\u{7f}ELF").is_err());
    }

    #[test]
    fn off_and_not_there_are_the_same() {
        let changes = compare(
            &options("CONFIG_A=y\nCONFIG_GONE=y\n# CONFIG_OFF is not set\nCONFIG_V=1\n"),
            &options("CONFIG_A=y\nCONFIG_V=2\nCONFIG_NEW=y\n# CONFIG_NEWOFF is not set\n"),
        );
        let names: Vec<_> = changes.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["GONE", "NEW", "V"]);
        assert_eq!((changes[1].asked.clone(), changes[1].got.clone()), (None, Some("y".to_owned())));
    }

    #[test]
    fn only_decisive_options_that_were_asked_for_are_refused() {
        let outcome = |asked: &str, got: &str| {
            let (asked, got) = (options(asked), options(got));
            let problems = check("c", &got, &compare(&asked, &got));
            problems.0.iter().map(|p| p.code.name).collect::<Vec<_>>()
        };
        assert_eq!(outcome("CONFIG_LIVEPATCH=y\n", "# CONFIG_LIVEPATCH is not set\n"), ["livepatch-off"]);
        assert_eq!(outcome("", ""), ["livepatch-off"]);
        let on = "CONFIG_LIVEPATCH=y\n";
        assert!(outcome(on, &format!("{on}CONFIG_RETURN_THUNK=y\n")).is_empty());
        assert_eq!(outcome(&format!("{on}CONFIG_RETURN_THUNK=y\n"), on), ["config-drift"]);
        assert_eq!(
            outcome(
                &format!("{on}# CONFIG_SPECULATIVE_HARDEN_LOCK is not set\n"),
                &format!("{on}CONFIG_SPECULATIVE_HARDEN_LOCK=y\n")
            ),
            ["config-drift"]
        );
        assert!(
            outcome(
                &format!("{on}CONFIG_GCC_VERSION=1\nCONFIG_DEBUG_INFO=y\n"),
                &format!("{on}CONFIG_GCC_VERSION=2\n")
            )
            .is_empty()
        );
    }
}
