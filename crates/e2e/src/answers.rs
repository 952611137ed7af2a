//! Whether what `xsplice verify` says the loader answers is what a booted hypervisor answers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fs_err as fs;
use rayon::prelude::*;
use serde_json::Value;
use xsplice_boot::{BootReport, DebianBoot, Expect, Lab, Plan, Release, State, Step, codes};

use crate::damage::{self, Base, Damage, Loaded, Meant};
use crate::image;
use crate::sample::{self, Host};

/// Xen's error numbers (xen/include/public/errno.h), as xen-livepatch prints them.
const ERRNOS: &[(&str, &str)] = &[
    ("2", "ENOENT"),
    ("12", "ENOMEM"),
    ("17", "EEXIST"),
    ("18", "EXDEV"),
    ("22", "EINVAL"),
    ("28", "ENOSPC"),
    ("34", "ERANGE"),
    ("61", "ENODATA"),
    ("75", "EOVERFLOW"),
    ("95", "EOPNOTSUPP"),
];
/// The sound payload that others are made of, and that some are loaded on.
const SOUND: &str = "sound-by-hand";
/// How long a boot may take: there are more than a hundred steps.
const LIMIT: Duration = Duration::from_secs(420);
/// The column of what the verifier says.
const VERIFIER: usize = 3;

/// A hypervisor to ask.
pub struct Xen {
    /// Its column in the table, such as `4.17.5`.
    pub label: &'static str,
    /// 17 of it.
    pub minor: u32,
    /// Where it is booted.
    pub lab: Lab,
    /// Its symbol file.
    pub symbols: PathBuf,
    /// A payload that xsplice built for it, if there is one.
    pub built: Option<Vec<u8>>,
}

/// Another hypervisor that Debian ships, in the lab of Debian 12; or what of it is not served.
///
/// # Errors
/// Everything else.
pub fn shipped(debian: &DebianBoot, cache: &Path, release: &Release) -> Result<Result<Xen, String>, String> {
    let told = |error: std::io::Error| error.to_string();
    let shipped = match xsplice_boot::fetch_shipped(cache, release, &|_| {}) {
        Ok(shipped) => shipped,
        Err(problems) => {
            let missing = problems.0.iter().any(|problem| problem.code == codes::DOWNLOAD_FAILED);
            let lines = problems.0.iter().map(|problem| format!("{} {}", problem.what, problem.why));
            let why = lines.collect::<Vec<_>>().join("; ").replace('\n', " ");
            return if missing { Ok(Err(why)) } else { Err(why) };
        }
    };
    let lab = Lab::new(debian, cache).with_xen(&shipped.hypervisor).with_tools(&shipped.tools_dir);
    let minor = release.version().split('.').nth(1).and_then(|minor| minor.parse().ok());
    let minor = minor.ok_or("a version without a minor number")?;
    let label = COLUMNS.iter().find(|label| release.version().starts_with(**label));
    let label = label.ok_or("a version that has no column")?;
    let symbols = match shipped.xen_syms {
        Some(symbols) => symbols,
        None => {
            // Beside the image, made anew each time.
            let file = shipped.hypervisor.with_file_name("xen-syms-from-image");
            let image = fs::read(&shipped.hypervisor).map_err(told)?;
            let symbols = image::symbol_file(&image).ok_or("the image's symbol table was not found")?;
            fs::write(&file, symbols).map_err(told)?;
            file
        }
    };
    Ok(Ok(Xen { label, minor, lab, symbols, built: None }))
}

/// What `xsplice verify` says of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// `accept`, or `ACTION ERRNO`.
    pub loader: String,
    /// By which rule the loader refuses it.
    pub code: Option<String>,
    /// Whether the host survives it.
    pub safe: bool,
    /// The rules by which not.
    pub codes: Vec<String>,
}

impl Said {
    /// Asks the program.
    ///
    /// # Errors
    /// When it gives no report, or had to guess the version.
    pub fn of(xsplice: &Path, payload: &Path, symbols: &Path, below: &[PathBuf]) -> Result<Said, String> {
        let mut verify = Command::new(xsplice);
        verify.arg("verify").arg(payload).arg("--xen-syms").arg(symbols).arg("--json");
        for below in below {
            verify.arg("--on").arg(below);
        }
        let output = verify.output().map_err(|error| error.to_string())?;
        let report: Value = serde_json::from_slice(&output.stdout).map_err(|error| {
            format!("{}: {error}: {}", payload.display(), String::from_utf8_lossy(&output.stderr))
        })?;
        if report["xen_version"]["source"] != "symbol-file" {
            return Err(format!("the version was not read: {}", report["xen_version"]));
        }
        let (loader, safe) = (&report["loader"], &report["safe"]);
        let part = |key: &str| loader[key].as_str().unwrap_or_default().to_owned();
        let codes = safe["codes"].as_array().into_iter().flatten();
        Ok(Said {
            loader: match part("answer").as_str() {
                "reject" => format!("{} {}", part("at"), part("errno")),
                other => other.to_owned(),
            },
            code: loader["code"].as_str().map(str::to_owned),
            safe: safe["answer"] == "yes",
            codes: codes.filter_map(|code| code.as_str().map(str::to_owned)).collect(),
        })
    }

    /// Both answers in a few words.
    pub fn words(&self) -> String {
        match &self.code {
            Some(code) => format!("{} [{code}]", self.loader),
            None if self.codes.is_empty() => self.loader.clone(),
            None => format!("{}, unsafe [{}]", self.loader, self.codes.join("] [")),
        }
    }

    /// Whether a host that tries to apply it is not at risk.
    pub fn applies(&self) -> bool {
        self.loader.starts_with("apply ") || self.loader == "accept" && self.safe
    }

    /// What is not as it is meant, if anything.
    fn differs(&self, meant: Meant) -> Option<String> {
        let fits = match meant {
            Meant::Sound => self.loader == "accept" && self.safe,
            Meant::Refused(code) => self.code.as_deref() == Some(code),
            Meant::Host(code) | Meant::Kills(code) => {
                self.loader == "accept" && self.codes.iter().any(|found| found == code)
            }
            Meant::Since(_) => false,
        };
        (!fits).then(|| format!("meant is {meant:?}, and xsplice says {}", self.words()))
    }
}

/// What a step says that xen-livepatch got for an answer.
///
/// # Errors
/// A step that did not end, or an error that is not known.
pub fn answered(report: &BootReport, name: &str) -> Result<String, String> {
    let step = report.step(name).filter(|step| step.state == State::Ended);
    let text =
        &step.ok_or_else(|| format!("the step \"{name}\" did not end: {:?}", report.ended))?.stdout.text;
    let Some((_, error)) = text.split_once("Error ") else { return Ok("accept".to_owned()) };
    let number = error.split(':').next().unwrap_or_default();
    let errno = ERRNOS.iter().find(|(known, _)| *known == number).map(|(_, name)| *name);
    let errno = errno.ok_or_else(|| format!("{name}: an error that is not known: {text}"))?;
    let uploaded = text.lines().any(|line| line.starts_with("Uploading ") && line.ends_with(" completed"));
    Ok(format!("{} {errno}", if uploaded { "apply" } else { "upload" }))
}

/// A damaged payload, and what is said of it.
struct Case {
    damage: &'static Damage,
    meant: Meant,
    file: PathBuf,
    said: Said,
}

impl Case {
    /// Uploads it, and applies it unless that may kill the host; then takes it away.
    fn command(&self) -> String {
        let name = self.damage.name;
        let quiet = ">/dev/null 2>&1";
        let sound = format!("/payloads/{SOUND}.livepatch");
        let first = match self.damage.loaded {
            Loaded::Nothing => String::new(),
            Loaded::Sound => format!("xen-livepatch upload below {sound} {quiet}; "),
            Loaded::SameName => format!("xen-livepatch upload {name} {sound} {quiet}; "),
        };
        let upload = format!("xen-livepatch upload {name} /payloads/{name}.livepatch 2>&1");
        let mut apply = String::new();
        if self.said.applies() {
            apply = format!("xen-livepatch apply {name} 2>&1; ");
        }
        if name == SOUND {
            apply.push_str("cat /sys/hypervisor/version/extra; ");
        }
        if self.said.applies() {
            apply.push_str(&format!("xen-livepatch revert {name} {quiet}; "));
        }
        let last = match self.damage.loaded {
            Loaded::Nothing => String::new(),
            Loaded::Sound => format!("xen-livepatch unload below {quiet}; "),
            Loaded::SameName => format!("xen-livepatch unload {name} {quiet}; "),
        };
        // Programs start slowly there: only what is needed.
        format!("{first}{upload} && {{ {apply}xen-livepatch unload {name} {quiet}; }}; {last}true")
    }

    fn asked(&self) -> bool {
        !matches!(self.meant, Meant::Kills(_))
    }
}

/// What came of one damage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Of the damage.
    pub name: &'static str,
    /// What the verifier says, with the code.
    pub said: String,
    /// What the hypervisor answered.
    pub xen: String,
}

/// Which damages a hypervisor is asked about.
#[derive(Debug, Clone, Copy)]
pub enum About<'p> {
    /// All of them.
    All,
    /// The sound payload, and those on which the hypervisors of this page differ.
    Differing(&'p str),
}

impl About<'_> {
    fn has(self, damage: &Damage) -> bool {
        let About::Differing(page) = self else { return true };
        let line = cells(page).find(|line| line.first() == Some(&damage.name));
        let answers = line.as_ref().and_then(|line| line.get(VERIFIER + 1..));
        damage.name == SOUND || answers.is_none_or(|all| all.iter().any(|answer| *answer != all[0]))
    }
}

/// The lines of a page's tables, each by its cells.
fn cells(page: &str) -> impl Iterator<Item = Vec<&str>> {
    page.lines().filter_map(|line| Some(line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect()))
}

/// The answers of a hypervisor, in the order of the damages. `folder` is for the payloads.
///
/// # Errors
/// All that is not as it should be, in a line each.
pub fn ask(xen: &Xen, about: About<'_>, xsplice: &Path, folder: &Path) -> Result<Vec<Answer>, String> {
    let told = |error: std::io::Error| error.to_string();
    fs::create_dir_all(folder).map_err(told)?;
    let host = Host::of(&fs::read(&xen.symbols).map_err(told)?)?;
    let made = sample::payload(&host, [0x58; 20]);
    fs::write(folder.join(format!("{SOUND}.livepatch")), &made).map_err(told)?;
    let cases: Vec<Option<Case>> = damage::ALL
        .par_iter()
        .filter(|damage| about.has(damage))
        .map(|damage| case(xen, xsplice, folder, &made, damage))
        .collect::<Result<_, String>>()?;
    let cases: Vec<Case> = cases.into_iter().flatten().collect();
    let asked = || cases.iter().filter(|case| case.asked());
    let files: Vec<PathBuf> = asked().map(|case| case.file.clone()).collect();
    let steps = asked()
        .map(|case| Step::run(&case.command()).named(case.damage.name).expecting(Expect::Anything))
        .collect();
    let plan = Plan { timeout: LIMIT, ..Plan::script(&files, steps) };
    let report = xen.lab.boot(&plan, &|_| {}).map_err(|problems| format!("{problems:?}"))?;
    let mut wrong: Vec<String> = Vec::new();
    let mut answers = Vec::new();
    for case in &cases {
        let name = case.damage.name;
        wrong.extend(case.said.differs(case.meant).map(|what| format!("{name}: {what}")));
        let mut xen = "not asked: it kills the host".to_owned();
        if case.asked() {
            xen = answered(&report, name)?;
            if xen != case.said.loader {
                wrong.push(format!("{name}: Xen says {xen}, and xsplice says {}", case.said.words()));
            }
        }
        answers.push(Answer { name, said: case.said.words(), xen });
    }
    let seen = report.step(SOUND).is_some_and(|step| step.stdout.text.contains(sample::TEXT));
    if !seen {
        wrong.push("the sound payload does not show".to_owned());
    }
    if wrong.is_empty() { Ok(answers) } else { Err(wrong.join("\n")) }
}

/// `None` if there is nothing to damage.
fn case(
    xen: &Xen,
    xsplice: &Path,
    folder: &Path,
    made: &[u8],
    damage: &'static Damage,
) -> Result<Option<Case>, String> {
    let told = |error: std::io::Error| error.to_string();
    let sound = match (&xen.built, damage.base) {
        (Some(built), Base::Built) => built,
        _ => made,
    };
    let Some(bytes) = damage.of(sound) else { return Ok(None) };
    let file = folder.join(format!("{}.livepatch", damage.name));
    if damage.name != SOUND {
        fs::write(&file, bytes).map_err(told)?;
    }
    let below = match damage.loaded {
        Loaded::Nothing => Vec::new(),
        Loaded::Sound => vec![folder.join(format!("{SOUND}.livepatch"))],
        Loaded::SameName => {
            let other = folder.join("below");
            fs::create_dir_all(&other).map_err(told)?;
            let other = other.join(format!("{}.livepatch", damage.name));
            fs::write(&other, made).map_err(told)?;
            vec![other]
        }
    };
    let said = Said::of(xsplice, &file, &xen.symbols, &below)?;
    Ok(Some(Case { damage, meant: damage.meant.of(xen.minor), file, said }))
}

/// The hypervisors that are asked, in the order of their columns; what the verifier says is said for the second.
pub const COLUMNS: [&str; 3] = ["4.14.6", "4.17.5", "4.20.4"];

/// The cells of one damage: its name, what is wrong, its rule, what the verifier says, and each hypervisor's answer.
fn row(damage: &Damage, answers: &[(&str, &[Answer])]) -> Vec<String> {
    let of = |label: &str| {
        let (_, all) = answers.iter().find(|(column, _)| *column == label)?;
        all.iter().find(|answer| answer.name == damage.name)
    };
    let rule = damage.meant.code().unwrap_or("none").to_owned();
    let said = of(COLUMNS[1]).map_or_else(|| "nothing to damage".to_owned(), |answer| answer.said.clone());
    let mut cells = vec![damage.name.to_owned(), damage.what.to_owned(), rule, said];
    cells.extend(
        COLUMNS.map(|label| {
            of(label).map_or_else(|| "nothing to damage".to_owned(), |answer| answer.xen.clone())
        }),
    );
    cells
}

/// The table of all answers.
pub fn table(answers: &[(&str, &[Answer])]) -> String {
    let mut out = String::from("| payload | what is wrong | rule | verify says, 4.17.5 |");
    out.push_str(&COLUMNS.map(|label| format!(" Xen {label} |")).concat());
    out.push_str("\n|---|---|---|---|---|---|---|\n");
    for damage in damage::ALL {
        out.push_str(&format!("| {} |\n", row(damage, answers).join(" | ")));
    }
    out
}

/// Whether the page has what this hypervisor answered to those it was asked about, in its column.
///
/// # Errors
/// The lines that differ.
pub fn is_up_to_date(page: &str, label: &str, about: About<'_>, answers: &[Answer]) -> Result<(), String> {
    let Some(column) = COLUMNS.iter().position(|column| *column == label) else {
        return Err(format!("there is no column {label}"));
    };
    let lines: Vec<Vec<&str>> = cells(page).collect();
    let mut wrong = Vec::new();
    for damage in damage::ALL.iter().filter(|damage| about.has(damage)) {
        let wanted = row(damage, &[(label, answers)]);
        let mut columns = vec![1, 2, VERIFIER + 1 + column];
        columns.extend((label == COLUMNS[1]).then_some(VERIFIER));
        let line = lines.iter().find(|line| line.first() == Some(&damage.name));
        let fits = line.is_some_and(|line| {
            columns.iter().all(|column| line.get(*column) == wanted.get(*column).map(String::as_str).as_ref())
        });
        if !fits {
            wrong.push(format!("{}: the page has other than {wanted:?}", damage.name));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_up_to_date_with_itself_and_with_nothing_else() {
        let answer = |name, xen: &str| Answer { name, said: "accept".to_owned(), xen: xen.to_owned() };
        let all: Vec<Answer> = damage::ALL.iter().map(|damage| answer(damage.name, "accept")).collect();
        let columns = COLUMNS.map(|label| (label, all.as_slice()));
        let page = table(&columns);
        for label in COLUMNS {
            is_up_to_date(&page, label, About::All, &all).expect("the same");
            let mut other = all.clone();
            other[3].xen = "upload EINVAL".to_owned();
            let error = is_up_to_date(&page, label, About::All, &other).expect_err("another answer");
            assert!(error.starts_with(damage::ALL[3].name) && !error.contains('\n'), "{error}");
        }
        assert!(is_up_to_date("", COLUMNS[0], About::All, &all).is_err());
        assert!(is_up_to_date(&page, "4.18.0", About::All, &all).is_err());
    }
    #[test]
    fn what_differs_and_what_the_page_does_not_have_is_asked() {
        let [one, two, three] = [3, 4, 5].map(|at| &damage::ALL[at]);
        let line = |damage: &Damage, third: &str| {
            format!("| {} | what | rule | accept | accept | accept | {third} |\n", damage.name)
        };
        let page = line(one, "accept") + &line(two, "upload EINVAL");
        let about = About::Differing(&page);
        assert!(!about.has(one) && about.has(two) && about.has(three));
        assert!(damage::ALL.iter().any(|damage| damage.name == SOUND && about.has(damage)));
        assert!(About::All.has(one));
    }
}
