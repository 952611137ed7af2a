//! What a distribution's packaging sets for its build of the hypervisor, read from the tree's own packaging.
//!
//! Debian: debian/rules of its 4.14 to 4.20 packages gives make CC and LD by their full names and prefix maps in
//! EXTRA_CFLAGS_XEN_CORE, and exports DEB_VERSION, DEB_MAINTAINER, and the changelog's time as XEN_BUILD_DATE and
//! XEN_BUILD_TIME; xen/build.mk (in its patches) reads those and asks lsb_release; debian/xen-kconfig is the
//! configuration. Formats: Debian Policy, sections 4.4 (debian/changelog) and 5.6.2 (Maintainer).

use std::path::Path;

use fs_err as fs;
use serde::Serialize;
use xsplice_report::{Diagnostic, Place};

use crate::codes;
use crate::request::Request;
use crate::tools::find_in_path;

/// A distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Debian, and what keeps its packaging.
    Debian,
}

/// What was found in the packaging.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PresetFacts {
    /// Whose packaging it is.
    pub preset: Preset,
    /// The package's version.
    pub version: String,
    /// Its maintainer, with the address.
    pub maintainer: String,
    /// The time of its changelog, in seconds since 1970.
    pub time: i64,
}

/// Debian's configuration, relative to the tree.
pub const DEBIAN_CONFIG: &str = "debian/xen-kconfig";

/// Gives make the place of the private copy, as `$(shell pwd)` in debian/rules is that of the package's tree.
const PREFIX_MAPS: &str =
    "-ffile-prefix-map=$(realpath $(XEN_ROOT))=. -fdebug-prefix-map=$(realpath $(XEN_ROOT))=.";

impl Preset {
    /// All of them.
    pub const ALL: [Preset; 1] = [Preset::Debian];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Preset::Debian => "debian",
        }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Preset> {
        Preset::ALL.into_iter().find(|preset| preset.name() == name)
    }

    /// Sets in a request what the packaging in its tree sets.
    ///
    /// # Errors
    /// When the tree has no such packaging, it cannot be understood, or a program that it calls is missing.
    pub fn apply(self, request: &mut Request) -> Result<PresetFacts, Diagnostic> {
        let changelog = read(&request.tree, "debian/changelog")?;
        let control = read(&request.tree, "debian/control")?;
        let unusable = |file: &str, what: &str| {
            Diagnostic::new(codes::PRESET_UNUSABLE, format!("{file} {what}"))
                .at(Place::file(request.tree.join(file).display().to_string()))
                .advice("Give the source tree of Debian's package, or leave --preset out.")
        };
        let version = version(&changelog)
            .ok_or_else(|| unusable("debian/changelog", "begins with no version of xen"))?;
        let time = changelog.lines().find_map(|line| line.strip_prefix(" -- ")).and_then(time);
        let time = time.ok_or_else(|| unusable("debian/changelog", "has no time in its first entry"))?;
        let maintainer = control.lines().find_map(|line| line.strip_prefix("Maintainer:")).map(str::trim);
        let maintainer = maintainer.filter(|text| !text.is_empty());
        let maintainer =
            maintainer.ok_or_else(|| unusable("debian/control", "names no maintainer"))?.to_owned();
        if find_in_path("lsb_release").is_none() {
            return Err(Diagnostic::new(codes::TOOL_MISSING, "lsb_release is not there")
                .why("The build of Debian's hypervisor calls it.")
                .advice("Install it; on Debian: apt install lsb-release."));
        }
        request.toolchain.cc = "x86_64-linux-gnu-gcc".to_owned();
        request.toolchain.ld = "x86_64-linux-gnu-ld".to_owned();
        request.make_vars.insert(0, ("EXTRA_CFLAGS_XEN_CORE".to_owned(), PREFIX_MAPS.to_owned()));
        (request.metadata.date, request.metadata.time) = date_and_time(time);
        request.environment.extend([
            ("DEB_VERSION".to_owned(), version.clone()),
            ("DEB_MAINTAINER".to_owned(), maintainer.clone()),
            ("SOURCE_DATE_EPOCH".to_owned(), time.to_string()),
        ]);
        Ok(PresetFacts { preset: self, version, maintainer, time })
    }
}

fn read(tree: &Path, file: &str) -> Result<String, Diagnostic> {
    fs::read_to_string(tree.join(file)).map_err(|error| {
        Diagnostic::new(codes::PRESET_UNUSABLE, format!("the packaging cannot be read: {error}"))
            .at(Place::file(tree.join(file).display().to_string()))
            .advice("Give the source tree of Debian's package, or leave --preset out.")
    })
}

/// The version in a changelog's first line, `xen (VERSION) SUITE; urgency=...`.
fn version(changelog: &str) -> Option<String> {
    let (version, _) = changelog.lines().next()?.strip_prefix("xen (")?.split_once(')')?;
    let plain = version.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+-:~".contains(&byte));
    (plain && !version.is_empty()).then(|| version.to_owned())
}

/// Days, as they are counted from Thursday, 1 January 1970.
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAY: i64 = 86400;

/// Seconds since 1970 of a changelog's last line, `NAME <ADDRESS>  Sat, 29 Nov 2025 14:52:25 +0100`.
fn time(trailer: &str) -> Option<i64> {
    let (_, date) = trailer.split_once(">  ")?;
    let (_, date) = date.trim().split_once(", ")?;
    let [day, month, year, clock, zone] = *date.split_whitespace().collect::<Vec<_>>() else { return None };
    let number = |text: &str| text.parse::<i64>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    let month = MONTHS.iter().position(|name| *name == month)? as i64 + 1;
    let [hours, minutes, seconds] = *clock.split(':').map(number).collect::<Option<Vec<_>>>()? else {
        return None;
    };
    let (sign, zone) = match zone.split_at_checked(1)? {
        ("+", zone) => (1, zone),
        ("-", zone) => (-1, zone),
        _ => return None,
    };
    let zone = number(zone).filter(|_| zone.len() == 4)?;
    let offset = sign * (zone / 100 * 3600 + zone % 100 * 60);
    let days = days_to(number(year)?, month, number(day)?)?;
    Some(days * DAY + hours * 3600 + minutes * 60 + seconds - offset)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1 January 1970 to a day, which must be one of the years from then to 9999.
fn days_to(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1970..10000).contains(&year) || !(1..=days_of(year, month)).contains(&day) {
        return None;
    }
    let years: i64 = (1970..year).map(|year| 365 + i64::from(is_leap(year))).sum();
    let months: i64 = (1..month).map(|month| days_of(year, month)).sum();
    Some(years + months + day - 1)
}

/// What `LC_ALL=C date -u` and `date -u +%T` say of a time.
fn date_and_time(time: i64) -> (String, String) {
    let (mut left, of_day) = (time.div_euclid(DAY), time.rem_euclid(DAY));
    let weekday = WEEKDAYS[usize::try_from(left.rem_euclid(7)).unwrap_or(0)];
    let (mut year, mut month) = (1970, 1);
    while left >= days_of(year, month) {
        left -= days_of(year, month);
        (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    }
    let clock = format!("{:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60);
    let name = MONTHS[usize::try_from(month - 1).unwrap_or(0)];
    (format!("{weekday} {name} {:2} {clock} UTC {year}", left + 1), clock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_changelogs_are_read_and_written_as_date_does() {
        // The numbers and texts are those of GNU date.
        for (trailer, seconds, date) in [
            ("A <a@b>  Sat, 29 Nov 2025 14:52:25 +0100", 1_764_424_345, "Sat Nov 29 13:52:25 UTC 2025"),
            ("A <a@b>  Thu, 29 Feb 2024 23:30:00 -0130", 1_709_254_800, "Fri Mar  1 01:00:00 UTC 2024"),
            ("A > B <a@b>  Sat, 01 Jan 2000 00:00:00 +0000", 946_684_800, "Sat Jan  1 00:00:00 UTC 2000"),
            ("A <a@b>  Thu, 1 Jan 1970 00:00:01 +0000", 1, "Thu Jan  1 00:00:01 UTC 1970"),
        ] {
            assert_eq!(time(trailer), Some(seconds), "{trailer}");
            let (whole, clock) = date_and_time(seconds);
            assert_eq!(whole, date);
            assert!(date.contains(&clock) && clock.len() == 8);
        }
        for wrong in [
            "A <a@b>",
            "A <a@b>  Sat, 29 Nov 2025 14:52:25",
            "A <a@b>  Sat, 30 Feb 2025 14:52:25 +0100",
            "A <a@b>  Sat, 29 Nox 2025 14:52:25 +0100",
            "A <a@b>  Sat, 29 Nov 2025 14:52 +0100",
            "A <a@b>  Sat, 29 Nov 2025 14:52:25 0100",
            "A <a@b>  Sat, 29 Nov 2025 14:52:25 +01",
        ] {
            assert_eq!(time(wrong), None, "{wrong}");
        }
    }

    fn request(tree: &Path, files: &[(&str, &str)]) -> Request {
        fs::create_dir_all(tree.join("debian")).unwrap();
        for (name, text) in files {
            fs::write(tree.join("debian").join(name), text).unwrap();
        }
        Request::new(tree, Vec::new(), tree.join("config"), tree.join("cache"), "xsplice", tree)
    }

    const CHANGELOG: &str = "xen (4.17.5+72-g01140da4e8-1) bookworm; urgency=medium\n\n  * Words.\n\n \
                             -- A <a@b>  Sat, 29 Nov 2025 14:52:25 +0100\n\nxen (4.1-1) x; urgency=low\n\n \
                             -- B <a@b>  Sat, 29 Nov 2008 14:52:25 +0100\n";
    const CONTROL: &str = "Source: xen\nMaintainer: Debian Xen Team <t@l.org>\n";

    #[test]
    fn what_debians_packaging_sets_is_set() {
        let tree = tempfile::tempdir().unwrap();
        let mut request = request(tree.path(), &[("changelog", CHANGELOG), ("control", CONTROL)]);
        request.make_vars = vec![("EXTRA_CFLAGS_XEN_CORE".to_owned(), "-O1".to_owned())];
        if find_in_path("lsb_release").is_none() {
            assert_eq!(Preset::Debian.apply(&mut request).unwrap_err().code, codes::TOOL_MISSING);
            return;
        }
        let facts = Preset::Debian.apply(&mut request).unwrap();
        assert_eq!((facts.version.as_str(), facts.time), ("4.17.5+72-g01140da4e8-1", 1_764_424_345));
        assert_eq!(request.metadata.date, "Sat Nov 29 13:52:25 UTC 2025");
        assert_eq!(request.metadata.time, "13:52:25");
        assert_eq!(request.toolchain.cc, "x86_64-linux-gnu-gcc");
        let set = |name: &str| request.environment.iter().find(|(known, _)| known == name).unwrap().1.clone();
        assert_eq!(set("DEB_MAINTAINER"), "Debian Xen Team <t@l.org>");
        assert_eq!(set("DEB_VERSION"), "4.17.5+72-g01140da4e8-1");
        // The last of two on make's command line counts: the user's.
        assert_eq!(request.make_vars[1].1, "-O1");
    }

    #[test]
    fn a_tree_without_packaging_says_so() {
        let tree = tempfile::tempdir().unwrap();
        let refused = |files: &[(&str, &str)]| {
            let mut request = request(tree.path(), files);
            let problem = Preset::Debian.apply(&mut request).unwrap_err();
            assert_eq!(problem.code, codes::PRESET_UNUSABLE);
            problem.what
        };
        assert!(refused(&[]).contains("changelog"));
        assert!(refused(&[("changelog", "linux (1) x; y\n"), ("control", "")]).contains("no version of xen"));
        assert!(refused(&[("changelog", "xen (1-1) x; y\n")]).contains("no time"));
        assert!(refused(&[("changelog", CHANGELOG)]).contains("no maintainer"));
    }
}
