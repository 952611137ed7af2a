//! How the loaders of Xen's versions differ, as data.
//!
//! Releases are those of the stable branches' tags. Vendors backport, so what the image or the tree says of itself goes
//! before what its version says.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// A version of Xen: major, minor, and where it is known the release on that branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct XenVersion {
    /// 4.
    pub major: u32,
    /// 17 of 4.17.5.
    pub minor: u32,
    /// 5 of 4.17.5; without it the branch as it is now is meant.
    pub patch: Option<u32>,
}

/// The first and the last minor version of Xen 4 whose loader is known here.
pub const KNOWN_MINORS: std::ops::RangeInclusive<u32> = 13..=22;

impl XenVersion {
    /// The version that is taken where none is known.
    pub const FALLBACK: XenVersion = XenVersion { major: 4, minor: 17, patch: None };

    /// Whether its loader is known here: 4.13 to 4.22.
    pub fn is_known(self) -> bool {
        self.major == 4 && KNOWN_MINORS.contains(&self.minor)
    }

    /// Whether a change is in it that came to branches with these releases, and is in every later branch. The list is in
    /// order.
    fn has(self, since: &[(u32, u32)]) -> bool {
        match since.iter().find(|(minor, _)| *minor == self.minor) {
            Some((_, patch)) => self.patch.is_none_or(|own| own >= *patch),
            None => since.last().is_some_and(|(minor, _)| self.minor > *minor),
        }
    }
}

impl fmt::Display for XenVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        match self.patch {
            Some(patch) => write!(f, ".{patch}"),
            None => Ok(()),
        }
    }
}

impl Serialize for XenVersion {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// `4.17`, `4.17.5`, or with anything behind the third number, as in `4.17.5+72`.
impl FromStr for XenVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<XenVersion, String> {
        let wrong = || format!("{text:?} is no version such as 4.17 or 4.17.5");
        let mut parts = text.splitn(3, '.');
        let mut number = || parts.next()?.parse::<u32>().ok();
        let (major, minor) = (number().ok_or_else(wrong)?, number().ok_or_else(wrong)?);
        let patch = match parts.next() {
            None => None,
            Some(rest) => Some(leading_number(rest).ok_or_else(wrong)?),
        };
        Ok(XenVersion { major, minor, patch })
    }
}

/// The digits that a text begins with.
pub(crate) fn leading_number(text: &str) -> Option<u32> {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

/// What a loader looks at in alternatives, before it applies them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlternativeChecks {
    /// Nothing that works; a wrong length or feature stops the host.
    None,
    /// Where they point to; a wrong length or feature still stops the host.
    Places,
    /// Both, each with an error.
    All,
}

/// What of a function's start a loader keeps free when it asks for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndbrRoom {
    /// Nothing: the jump goes to the very start.
    None,
    /// ENDBR64.
    Endbr,
    /// ENDBR64, and what Xen seals it with.
    EndbrOrPoison,
}

/// What one version's loader does that not every one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LoaderTraits {
    /// The version that this is about.
    pub version: XenVersion,
    /// LIVEPATCH_PAYLOAD_VERSION.
    pub funcs_version: u8,
    /// Bytes of `struct livepatch_func`.
    pub funcs_size: u64,
    /// Whether functions must be there, hooks or not.
    pub needs_functions: bool,
    /// Whether hooks other than load and unload are known.
    pub all_hooks: bool,
    /// Whether `.livepatch.xen_depends` is known, and required.
    pub xen_depends: bool,
    /// Whether it is compared before anything is placed or applied.
    pub xen_id_first: bool,
    /// Whether `.modinfo` is known.
    pub metadata: bool,
    /// Whether relocations against what is not loaded are an error.
    pub refuses_unloaded: bool,
    /// Whether sections without a byte are not placed, and symbols in them keep the value that they have in the file.
    pub skips_empty: bool,
    /// Whether a function's old address is looked up before its sizes are checked.
    pub resolves_first: bool,
    /// What is asked of the start of a function.
    pub endbr: EndbrRoom,
    /// What is checked of alternatives.
    pub alternatives: AlternativeChecks,
    /// Whether bit 15 of an alternative's feature negates it.
    pub negated_features: bool,
    /// Numbers of CPU features below this are known: 32 * NCAPINTS (xen/arch/x86/include/asm/cpufeatures.h). Branches
    /// between releases may know more; where a symbol file shows it, that counts.
    pub features: u16,
    /// Whether altcalls are in `.alt_call_sites`.
    pub call_sites: bool,
    /// Whether the list of functions is written to at apply, so that a read-only one faults.
    pub writes_funcs: bool,
}

impl LoaderTraits {
    /// The loader where only its payload version is known: whatever any release with it would refuse or fault on counts.
    pub(crate) fn strictest(modern: bool) -> LoaderTraits {
        let minor = if modern { XenVersion::FALLBACK.minor } else { *KNOWN_MINORS.start() };
        LoaderTraits {
            endbr: EndbrRoom::EndbrOrPoison,
            metadata: true,
            writes_funcs: true,
            ..LoaderTraits::of(XenVersion { major: 4, minor, patch: None })
        }
    }

    /// The loader of a version; of the nearest known one for others.
    pub fn of(version: XenVersion) -> LoaderTraits {
        let modern = version.has(&[(14, 0)]);
        let alternative_errors = version.has(&[(18, 4), (19, 1), (20, 0)]);
        let writes: &[(u32, std::ops::RangeInclusive<u32>)] = &[(16, 4..=7), (17, 1..=2), (18, 0..=0)];
        LoaderTraits {
            version,
            funcs_version: if modern { 2 } else { 1 },
            funcs_size: if modern { 104 } else { 64 },
            needs_functions: !modern,
            all_hooks: modern,
            xen_depends: modern,
            xen_id_first: alternative_errors,
            metadata: modern,
            refuses_unloaded: modern,
            skips_empty: !modern,
            resolves_first: modern,
            endbr: if version.has(&[(17, 0)]) {
                EndbrRoom::EndbrOrPoison
            } else if version.has(&[(14, 5), (15, 3), (16, 1)]) {
                EndbrRoom::Endbr
            } else {
                EndbrRoom::None
            },
            alternatives: if alternative_errors {
                AlternativeChecks::All
            } else if version.has(&[(17, 4), (18, 0)]) {
                AlternativeChecks::Places
            } else {
                AlternativeChecks::None
            },
            negated_features: version.has(&[(17, 6), (18, 5), (19, 3), (20, 1)]),
            call_sites: version.has(&[(21, 0)]),
            features: features(version),
            // Without a release it may be one of these, and the branch of 4.16 still writes.
            writes_funcs: writes.iter().any(|(minor, patches)| {
                *minor == version.minor && version.patch.is_none_or(|patch| patches.contains(&patch))
            }),
        }
    }
}

/// The words of features that releases have, with the first that has so many; where the release is not known, as few as
/// the first one has.
fn features(version: XenVersion) -> u16 {
    const WORDS: &[(u32, &[(u32, u16)])] = &[
        (13, &[(0, 13)]),
        (14, &[(0, 13), (5, 16), (6, 20)]),
        (15, &[(0, 13), (3, 16), (5, 20)]),
        (16, &[(0, 14), (1, 16), (4, 18), (5, 20)]),
        (17, &[(0, 16), (1, 18), (2, 20), (6, 21)]),
        (18, &[(0, 20), (6, 21)]),
        (19, &[(0, 20), (3, 21)]),
        (20, &[(0, 20), (1, 21)]),
        (21, &[(0, 21), (1, 22)]),
        (22, &[(0, 22)]),
    ];
    let minor = version.minor.clamp(*KNOWN_MINORS.start(), *KNOWN_MINORS.end());
    let patch = version.patch.unwrap_or(0);
    let of_minor = WORDS.iter().find(|(number, _)| *number == minor).map_or(&[][..], |(_, words)| words);
    let words = of_minor.iter().rev().find(|(first, _)| *first <= patch).map_or(0, |(_, words)| *words);
    words * 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traits(version: &str) -> LoaderTraits {
        LoaderTraits::of(version.parse().unwrap())
    }

    #[test]
    fn versions_are_read_and_shown() {
        for (text, shown) in
            [("4.17", "4.17"), ("4.17.5", "4.17.5"), ("4.17.5+72-g1", "4.17.5"), ("4.22.0", "4.22.0")]
        {
            assert_eq!(text.parse::<XenVersion>().unwrap().to_string(), shown);
        }
        for text in ["", "4", "4.", "4.x", "4.17.", "4.17.x", "v4.17", "-4.17"] {
            assert!(text.parse::<XenVersion>().is_err(), "{text}");
        }
        let known = |text: &str| text.parse::<XenVersion>().unwrap().is_known();
        assert!(known("4.13") && known("4.22.1") && !known("4.12.9") && !known("4.23") && !known("5.17"));
    }

    #[test]
    fn what_came_with_4_14() {
        let (old, new) = (traits("4.13.5"), traits("4.14.0"));
        assert_eq!((old.funcs_version, old.funcs_size), (1, 64));
        assert_eq!((new.funcs_version, new.funcs_size), (2, 104));
        assert!(old.needs_functions && !old.all_hooks && !old.xen_depends && !old.metadata);
        assert!(!new.needs_functions && new.all_hooks && new.xen_depends && new.metadata);
        assert!(!old.refuses_unloaded && new.refuses_unloaded);
        assert!(old.skips_empty && !new.skips_empty);
    }

    #[test]
    fn what_was_backported_begins_with_the_release_that_had_it() {
        for (version, room) in [
            ("4.13.5", EndbrRoom::None),
            ("4.14.4", EndbrRoom::None),
            ("4.14.5", EndbrRoom::Endbr),
            ("4.15.2", EndbrRoom::None),
            ("4.15.3", EndbrRoom::Endbr),
            ("4.16.0", EndbrRoom::None),
            ("4.16.1", EndbrRoom::Endbr),
            ("4.17.0", EndbrRoom::EndbrOrPoison),
            ("4.22.0", EndbrRoom::EndbrOrPoison),
        ] {
            assert_eq!(traits(version).endbr, room, "{version}");
        }
        for (version, checks, first, negated) in [
            ("4.16.7", AlternativeChecks::None, false, false),
            ("4.17.3", AlternativeChecks::None, false, false),
            ("4.17.4", AlternativeChecks::Places, false, false),
            ("4.17.6", AlternativeChecks::Places, false, true),
            ("4.18.0", AlternativeChecks::Places, false, false),
            ("4.18.3", AlternativeChecks::Places, false, false),
            ("4.18.4", AlternativeChecks::All, true, false),
            ("4.18.5", AlternativeChecks::All, true, true),
            ("4.19.0", AlternativeChecks::Places, false, false),
            ("4.19.1", AlternativeChecks::All, true, false),
            ("4.19.3", AlternativeChecks::All, true, true),
            ("4.20.0", AlternativeChecks::All, true, false),
            ("4.20.1", AlternativeChecks::All, true, true),
            ("4.21.0", AlternativeChecks::All, true, true),
        ] {
            let found = traits(version);
            let found = (found.alternatives, found.xen_id_first, found.negated_features);
            assert_eq!(found, (checks, first, negated), "{version}");
        }
        assert!(!traits("4.20.4").call_sites && traits("4.21.0").call_sites);
        // A branch without a release is the branch as it is now.
        assert_eq!(traits("4.17").alternatives, AlternativeChecks::Places);
        assert!(traits("4.17").negated_features);
    }

    #[test]
    fn some_releases_write_to_the_list_of_functions() {
        for (version, writes) in [
            ("4.16.3", false),
            ("4.16.4", true),
            ("4.16.7", true),
            ("4.17.0", false),
            ("4.17.1", true),
            ("4.17.2", true),
            ("4.17.3", false),
            ("4.18.0", true),
            ("4.18.1", false),
            ("4.15", false),
            ("4.16", true),
            ("4.17", true),
            ("4.19", false),
        ] {
            assert_eq!(traits(version).writes_funcs, writes, "{version}");
        }
    }

    #[test]
    fn features_that_releases_know() {
        for (version, features) in [
            ("4.13.5", 416),
            ("4.14.5", 512),
            ("4.16.4", 576),
            ("4.16.5", 640),
            ("4.17.1", 576),
            ("4.17.5", 640),
            ("4.17.7", 672),
            ("4.17", 512),
            ("4.20.4", 672),
            ("4.21.1", 704),
            ("4.22.0", 704),
            ("4.23.0", 704),
        ] {
            assert_eq!(traits(version).features, features, "{version}");
        }
    }
}
