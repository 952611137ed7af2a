//! Which package sources to use: derived from those that the machine has.
//!
//! Formats: sources.list(5). The one-line form is `deb [option=value ...] URI suite component...`; the
//! deb822 form is stanzas of `Types:`, `URIs:`, `Suites:`, `Components:` and options, where continuation
//! lines start with white space. A stanza with `Enabled: no` does not count.

use std::collections::BTreeSet;

/// The Debian release whose packages are used.
pub(crate) const RELEASE: &str = "bookworm";
/// Where Debian's packages come from if the machine has no Debian mirror configured.
const FALLBACK_URI: &str = "http://deb.debian.org/debian";
/// Debian's own keys, from the package debian-archive-keyring.
const FALLBACK_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Options that decide whether and how a source is trusted; they are kept as they are.
const KEPT_OPTIONS: &[&str] = &[
    "Signed-By",
    "Trusted",
    "Check-Valid-Until",
    "Check-Date",
    "Valid-Until-Max",
    "By-Hash",
    "InRelease-Path",
];

/// One source of packages, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Source {
    uri: String,
    suite: String,
    /// Options in deb822 spelling, those of [`KEPT_OPTIONS`] only, in that order.
    options: Vec<(String, String)>,
}

/// Reads a file of sources; `deb822` says in which of the two forms it is.
pub(crate) fn parse(text: &str, deb822: bool) -> Vec<Source> {
    if deb822 { parse_deb822(text) } else { parse_lines(text) }
}

fn parse_lines(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or("").trim();
        let Some(rest) = line.strip_prefix("deb").filter(|rest| rest.starts_with([' ', '\t', '['])) else {
            continue;
        };
        let rest = rest.trim_start();
        let (options, rest) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((options, rest)) => (options, rest),
            None => ("", rest),
        };
        let pairs = options.split_whitespace().filter_map(|option| option.split_once('='));
        let options = kept(&pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect::<Vec<_>>());
        let words: Vec<&str> = rest.split_whitespace().collect();
        if let [uri, suite, components @ ..] = words.as_slice()
            && components.contains(&"main")
        {
            sources.push(Source { uri: (*uri).to_owned(), suite: (*suite).to_owned(), options });
        }
    }
    sources
}

fn parse_deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    // One empty line more ends the last stanza.
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            sources.extend(stanza(&std::mem::take(&mut fields)));
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }
    sources
}

fn stanza(fields: &[(String, String)]) -> Vec<Source> {
    let words = |name: &str| -> Vec<&str> {
        let found = fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.split_whitespace().collect()).unwrap_or_default()
    };
    let off = words("Enabled").first().is_some_and(|word| ["no", "false", "0", "off"].contains(word));
    if off || !words("Types").contains(&"deb") || !words("Components").contains(&"main") {
        return Vec::new();
    }
    let options = kept(fields);
    let mut sources = Vec::new();
    for uri in words("URIs") {
        for suite in words("Suites") {
            let source = Source { uri: uri.to_owned(), suite: suite.to_owned(), options: options.clone() };
            sources.push(source);
        }
    }
    sources
}

fn kept(fields: &[(String, String)]) -> Vec<(String, String)> {
    let of = |name: &&str| fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name));
    KEPT_OPTIONS.iter().filter_map(|name| Some(((*name).to_owned(), of(name)?.1.clone()))).collect()
}

/// From the machine's sources, those that serve the release's packages; where the machine has none, its
/// Debian mirror with the release's name, or else Debian's own address.
pub(crate) fn choose(machine: &[Source], release: &str, keyring_exists: bool) -> Vec<Source> {
    let wanted = ["", "-updates", "-security"].map(|tail| format!("{release}{tail}"));
    let found: BTreeSet<Source> =
        machine.iter().filter(|source| wanted.contains(&source.suite)).cloned().collect();
    let mut chosen: Vec<Source> = found.into_iter().collect();
    if !chosen.iter().any(|source| source.suite == release) {
        let is_mirror = |source: &&Source| source.uri.trim_end_matches('/').ends_with("/debian");
        let mut options = Vec::new();
        if keyring_exists {
            options.push(("Signed-By".to_owned(), FALLBACK_KEYRING.to_owned()));
        }
        let uri = machine.iter().find(is_mirror).map_or(FALLBACK_URI, |source| &source.uri).to_owned();
        chosen.push(Source { uri, suite: release.to_owned(), options });
    }
    chosen
}

/// Whether Debian's own keys are installed where they usually are.
pub(crate) fn keyring_exists() -> bool {
    std::path::Path::new(FALLBACK_KEYRING).exists()
}

/// Which packages of a release are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Binary and source packages.
    All,
    /// Source packages only.
    Sources,
}

/// The sources in deb822 form, without the indexes that nobody needs here.
pub(crate) fn render(sources: &[Source], wanted: Wanted) -> String {
    let kinds = [("deb", "Packages"), ("deb-src", "Sources")];
    let kinds = if wanted == Wanted::All { &kinds[..] } else { &kinds[1..] };
    let mut out = String::new();
    for source in sources {
        for (kind, target) in kinds {
            out.push_str(&format!("Types: {kind}\nURIs: {}\nSuites: {}\n", source.uri, source.suite));
            out.push_str(&format!("Components: main\nTargets: {target}\n"));
            if *kind == "deb" {
                out.push_str("Architectures: amd64\n");
            }
            for (name, value) in &source.options {
                let gap = if value.starts_with('\n') { "" } else { " " };
                out.push_str(&format!("{name}:{gap}{value}\n"));
            }
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(uri: &str, suite: &str, options: &[(&str, &str)]) -> Source {
        let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Source { uri: uri.to_owned(), suite: suite.to_owned(), options }
    }

    #[test]
    fn one_line_sources() {
        let text = "# deb http://off/debian bookworm main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://m/debian bookworm main contrib # why\n\
                    deb-src http://m/debian bookworm main\n\
                    deb\thttp://s/security bookworm-security main\n\
                    deb http://x/other bookworm contrib\n";
        let expected = [
            source("http://m/debian", "bookworm", &[("Signed-By", "/k.gpg")]),
            source("http://s/security", "bookworm-security", &[]),
        ];
        assert_eq!(parse(text, false), expected);
    }

    #[test]
    fn deb822_sources_with_an_embedded_key() {
        let text = "Types: deb deb-src\n# a remark inside\nURIs: http://a/debian http://b/debian\n\
                    Suites: bookworm bookworm-updates\nComponents: main\nSigned-By:\n KEY\n .\n BLOCK\n\
                    \n\nTypes: deb\nEnabled: no\nURIs: http://c\nSuites: bookworm\nComponents: main\n\
                    \nTypes: deb-src\nURIs: http://d\nSuites: bookworm\nComponents: main";
        let key = [("Signed-By", "\n KEY\n .\n BLOCK")];
        let expected = [
            source("http://a/debian", "bookworm", &key),
            source("http://a/debian", "bookworm-updates", &key),
            source("http://b/debian", "bookworm", &key),
            source("http://b/debian", "bookworm-updates", &key),
        ];
        let found = parse(text, true);
        assert_eq!(found, expected);
        let again = parse(&render(&found, Wanted::All), true);
        assert_eq!(again, expected, "what is written reads the same");
        let sources = render(&found, Wanted::Sources);
        assert!(sources.contains("Types: deb-src\n") && !sources.contains("Types: deb\n"), "{sources}");
    }

    #[test]
    fn the_machines_own_sources_come_first() {
        let machine = [
            source("http://m/debian", "bookworm-backports", &[]),
            source("http://m/debian", "bookworm", &[("Signed-By", "/k.gpg")]),
            source("http://m/security", "bookworm-security", &[]),
            source("http://n/node", "nodistro", &[]),
        ];
        assert_eq!(choose(&machine, RELEASE, true), [machine[1].clone(), machine[2].clone()]);
    }

    #[test]
    fn another_release_keeps_its_mirror() {
        let machine = [source("http://mirror/debian/", "trixie", &[])];
        let keyring = [("Signed-By", FALLBACK_KEYRING)];
        assert_eq!(
            choose(&machine, "bookworm", true),
            [source("http://mirror/debian/", "bookworm", &keyring)]
        );
        assert_eq!(choose(&[], "bookworm", false), [source(FALLBACK_URI, "bookworm", &[])]);
        assert_eq!(choose(&[], "bullseye", false), [source(FALLBACK_URI, "bullseye", &[])]);
    }
}
