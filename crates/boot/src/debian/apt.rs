//! apt with a state of its own: its lists, cache and sources lie in the cache folder, and nothing of the
//! machine's is changed. The machine's proxies, credentials and keys apply as they are configured.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use xsplice_process::{Finished, Job};
use xsplice_report::{Diagnostic, Place, Problems};

use super::sources::{self, Source, Wanted};
use crate::cache::private_dir;
use crate::codes;

/// The longest time that one call of apt may take.
const LIMIT: Duration = Duration::from_secs(600);

/// apt with private state below one folder.
#[derive(Debug)]
pub(crate) struct Apt {
    dir: PathBuf,
    /// What the last update complained about, for the messages of later failures.
    complaint: String,
}

impl Apt {
    /// Sets the folder up for a release of Debian and updates its package lists.
    ///
    /// An update that fails in part is no error: mirrors without source packages are common. What is
    /// missing then is noticed when it is asked for.
    pub(crate) fn set_up(dir: &Path, release: &str, wanted: Wanted) -> Result<Apt, Problems> {
        for part in ["lists/partial", "cache/archives/partial"] {
            private_dir(&dir.join(part))?;
        }
        // apt runs in other folders than ours.
        let dir = fs::canonicalize(dir).map_err(codes::io)?;
        fs::write(dir.join("status"), "").map_err(codes::io)?;
        let chosen = sources::choose(&machine_sources(), release, sources::keyring_exists());
        fs::write(dir.join("xsplice.sources"), sources::render(&chosen, wanted)).map_err(codes::io)?;
        fs::write(dir.join("apt.conf"), configuration(&dir)?).map_err(codes::io)?;
        let mut apt = Apt { dir, complaint: String::new() };
        let finished = apt.run("apt-get", &["update"], None)?;
        if !finished.success() || !finished.stderr.is_empty() {
            apt.complaint = codes::tail_of(&finished.stderr, 8);
        }
        Ok(apt)
    }

    /// What the update complained about; empty when all was well.
    pub(crate) fn complaint(&self) -> &str {
        &self.complaint
    }

    fn run(&self, program: &str, args: &[&str], dir: Option<&Path>) -> Result<Finished, Problems> {
        let job = Job::new(program)
            .arg("-c")
            .arg(self.dir.join("apt.conf"))
            .args(args)
            .env("LC_ALL", "C")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env_remove("APT_CONFIG")
            .dir(dir.unwrap_or(&self.dir))
            .timeout(LIMIT);
        job.run().map_err(codes::job)
    }

    /// All versions of a binary package that the lists know, newest first.
    pub(crate) fn versions(&self, package: &str) -> Result<Vec<String>, Problems> {
        let finished = self.run("apt-cache", &["madison", package], None)?;
        Ok(madison(&String::from_utf8_lossy(&finished.stdout), false))
    }

    /// All versions of a source package that the lists know, newest first.
    pub(crate) fn source_versions(&self, package: &str) -> Result<Vec<String>, Problems> {
        let finished = self.run("apt-cache", &["madison", package], None)?;
        Ok(madison(&String::from_utf8_lossy(&finished.stdout), true))
    }

    /// All package names that start with `prefix`, sorted.
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<String>, Problems> {
        let finished = self.run("apt-cache", &["pkgnames", prefix], None)?;
        let text = String::from_utf8_lossy(&finished.stdout).into_owned();
        let mut names: Vec<String> = text.lines().map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }

    /// Downloads binary packages, given as `name` or `name=version`, into `dir`.
    pub(crate) fn download(&self, packages: &[String], dir: &Path) -> Result<(), Problems> {
        let mut args = vec!["download"];
        args.extend(packages.iter().map(String::as_str));
        let finished = self.run("apt-get", &args, Some(dir))?;
        self.judge(&finished, &packages.join(" "))
    }

    /// Downloads the files of a source package into `dir`, without unpacking them.
    pub(crate) fn source(&self, package: &str, version: &str, dir: &Path) -> Result<(), Problems> {
        let wanted = format!("{package}={version}");
        let args = ["source", "--download-only", "--only-source", &wanted];
        let finished = self.run("apt-get", &args, Some(dir))?;
        self.judge(&finished, &format!("the source of {wanted}"))
    }

    /// Downloads the original tarball of a source package into `dir`: what Xen's developers released.
    pub(crate) fn tarball(&self, package: &str, version: &str, dir: &Path) -> Result<(), Problems> {
        let wanted = format!("{package}={version}");
        let args = ["source", "--download-only", "--only-source", "--tar-only", &wanted];
        let finished = self.run("apt-get", &args, Some(dir))?;
        self.judge(&finished, &format!("the original tarball of {wanted}"))
    }

    fn judge(&self, finished: &Finished, what: &str) -> Result<(), Problems> {
        if finished.success() {
            return Ok(());
        }
        let mut why = codes::tail_of(&finished.stderr, 8);
        if !self.complaint.is_empty() {
            why = format!("{why}\nThe update of the package lists had said:\n{}", self.complaint);
        }
        Err(Diagnostic::new(codes::DOWNLOAD_FAILED, format!("apt cannot download {what}"))
            .at(Place::file(self.dir.join("xsplice.sources").display().to_string()))
            .why(why)
            .advice("Check the network and the machine's package sources, then run it again.")
            .into())
    }
}

/// apt's configuration: everything that apt writes goes below `dir`, and no hook of the machine runs.
fn configuration(dir: &Path) -> Result<String, Problems> {
    let Some(dir) = dir.to_str().filter(|dir| !dir.contains(['"', '\n'])) else {
        return Err(Diagnostic::new(codes::CACHE_UNUSABLE, "apt cannot work in a folder of that name")
            .at(Place::file(dir.display().to_string()))
            .advice("Choose another place with XSPLICE_CACHE.")
            .into());
    };
    let mut out = String::new();
    for hook in ["APT::Update::Pre-Invoke", "APT::Update::Post-Invoke", "APT::Update::Post-Invoke-Success"] {
        out.push_str(&format!("#clear {hook};\n"));
    }
    let settings = [
        ("Dir::State", dir.to_owned()),
        ("Dir::State::lists", "lists".to_owned()),
        ("Dir::State::status", format!("{dir}/status")),
        ("Dir::Cache", format!("{dir}/cache")),
        ("Dir::Etc::sourcelist", format!("{dir}/xsplice.sources")),
        ("Dir::Etc::sourceparts", "/dev/null".to_owned()),
        ("Dir::Etc::preferences", "/dev/null".to_owned()),
        ("Dir::Etc::preferencesparts", "/dev/null".to_owned()),
        ("Dir::Log", format!("{dir}/log")),
        ("APT::Architecture", "amd64".to_owned()),
        ("APT::Sandbox::User", "root".to_owned()),
        ("APT::Get::AllowUnauthenticated", "false".to_owned()),
        ("APT::Default-Release", String::new()),
        ("Acquire::Languages", "none".to_owned()),
        ("Acquire::Retries", "3".to_owned()),
        ("Dpkg::Use-Pty", "false".to_owned()),
        ("quiet", "2".to_owned()),
    ];
    for (name, value) in settings {
        out.push_str(&format!("{name} \"{value}\";\n"));
    }
    Ok(out)
}

/// The machine's package sources, wherever its apt is configured to look for them. None is no error.
fn machine_sources() -> Vec<Source> {
    let job = Job::new("apt-config").args([
        "shell",
        "LIST",
        "Dir::Etc::sourcelist/f",
        "PARTS",
        "Dir::Etc::sourceparts/d",
    ]);
    let text = job.run().map(|finished| finished.stdout).unwrap_or_default();
    let vars = shell_variables(&String::from_utf8_lossy(&text));
    let get = |name: &str, default: &str| PathBuf::from(vars.get(name).map_or(default, String::as_str));
    let mut files = vec![get("LIST", "/etc/apt/sources.list")];
    if let Ok(entries) = std::fs::read_dir(get("PARTS", "/etc/apt/sources.list.d")) {
        let mut parts: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        parts.sort();
        files.extend(parts);
    }
    let mut found = Vec::new();
    for file in files {
        let deb822 = match file.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => true,
            Some("list") => false,
            _ => continue,
        };
        if let Ok(text) = std::fs::read_to_string(&file) {
            found.extend(sources::parse(&text, deb822));
        }
    }
    found
}

/// Reads the `NAME='value'` lines of `apt-config shell`.
fn shell_variables(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter_map(|line| line.split_once('='));
    lines.map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned())).collect()
}

/// Versions from the table of `apt-cache madison`: package, version, and where it comes from. Its order,
/// newest first, is kept.
fn madison(text: &str, source: bool) -> Vec<String> {
    let mut versions: Vec<String> = Vec::new();
    for line in text.lines() {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        if let [_, version, origin] = columns.as_slice()
            && origin.ends_with(" Sources") == source
            && !versions.iter().any(|known| known == version)
        {
            versions.push((*version).to_owned());
        }
    }
    versions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn madison_tables() {
        let text = "       xen | 4.17.7+13-0 | http://s bookworm-security/main Sources\n\
                           xen | 4.17.5+72-1 | http://m bookworm/main Sources\n\
                           xen | 4.17.5+72-1 | http://m bookworm/main amd64 Packages\n\
                           xen | 4.17.5+72-1 | http://n bookworm/main Sources\nnonsense\n";
        assert_eq!(madison(text, true), ["4.17.7+13-0", "4.17.5+72-1"]);
        assert_eq!(madison(text, false), ["4.17.5+72-1"]);
    }

    #[test]
    fn apt_configs_shell_form() {
        let vars = shell_variables("LIST='/etc/apt/sources.list'\nPARTS='/etc/apt/sources.list.d/'\n");
        assert_eq!(vars["LIST"], "/etc/apt/sources.list");
        assert_eq!(vars["PARTS"], "/etc/apt/sources.list.d/");
    }

    #[test]
    fn everything_that_apt_writes_is_below_the_folder() {
        let text = configuration(Path::new("/c/apt")).expect("a plain name");
        assert!(text.contains("Dir::State \"/c/apt\";\n"));
        assert!(text.contains("Dir::Cache \"/c/apt/cache\";\n"));
        assert!(text.contains("Dir::State::status \"/c/apt/status\";\n"));
        assert!(text.contains("#clear APT::Update::Post-Invoke;\n"));
        assert!(configuration(Path::new("/c/\"apt")).is_err());
    }
}
