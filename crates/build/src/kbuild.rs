//! Calls of make, in a clean environment, with the wrapper in the place of the tools.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use fs_err as fs;
use xsplice_process::{Job, Sink};
use xsplice_report::{Diagnostic, Place};

use crate::codes;
use crate::request::{Progress, Request};
use crate::stand_in;
use crate::tools::Tools;
use crate::tree;
use crate::wrapper::{self, Record, Settings, Tool};

/// How often the folder of records is looked at.
const PAUSE: Duration = Duration::from_millis(30);

/// How many lines of a failed command are shown.
const LAST_LINES: usize = 6;

/// A folder in which make runs.
pub(crate) struct Kbuild<'a> {
    pub(crate) request: &'a Request,
    pub(crate) tools: &'a Tools,
    /// The private copy: the folder that holds xen/.
    pub(crate) tree: PathBuf,
    /// The folder of links to the wrapper.
    pub(crate) bin: PathBuf,
    /// A private folder for temporary files.
    pub(crate) temporary: PathBuf,
    /// Where make's output goes.
    pub(crate) log: PathBuf,
}

/// What one call of make is to do.
pub(crate) struct Call<'a> {
    pub(crate) targets: &'a [&'a str],
    /// Where the wrapper leaves its records, if it is to make any.
    pub(crate) records: Option<&'a Path>,
    /// End at the link of the hypervisor.
    pub(crate) stop_at_link: bool,
    /// The sources that are compiled, by absolute path, if not all are: see [`crate::stand_in`].
    pub(crate) needed: Option<&'a BTreeSet<PathBuf>>,
}

impl<'a> Call<'a> {
    /// Makes targets, and leaves no records.
    pub(crate) fn plain(targets: &'a [&'a str]) -> Call<'a> {
        Call { targets, records: None, stop_at_link: false, needed: None }
    }

    /// Builds up to the link of the hypervisor.
    pub(crate) fn up_to_link(records: &'a Path) -> Call<'a> {
        Call { targets: &[], records: Some(records), stop_at_link: true, needed: None }
    }
}

/// How it ended.
pub(crate) struct MakeEnd {
    /// All went well, or the link was reached where that was the aim.
    pub(crate) success: bool,
    pub(crate) records: Vec<Record>,
}

/// What a failure of xsplice-process means here.
pub(crate) fn process_error(error: &xsplice_process::Error) -> Diagnostic {
    match error {
        xsplice_process::Error::Interrupted => interrupted(),
        xsplice_process::Error::Start { .. } => Diagnostic::new(codes::TOOL_MISSING, error.to_string())
            .advice("Install it, or make it executable."),
        _ => Diagnostic::new(codes::IO, error.to_string()),
    }
}

pub(crate) fn interrupted() -> Diagnostic {
    Diagnostic::new(codes::INTERRUPTED, "the build was interrupted")
        .advice("Run again: what was half done is not used.")
}

impl Kbuild<'_> {
    /// What the links stand for. Part of what identifies a build.
    pub(crate) fn settings(&self) -> Settings {
        let place_flags = self
            .tools
            .prefix_map
            .map(|flag| format!("{flag}={}=.", self.tree.display()))
            .into_iter()
            .collect();
        Settings {
            tools: self.tools.real.clone(),
            adjust: self.request.adjust,
            place_flags,
            assembler_tells: self.tools.assembler_tells,
            launch: self.tools.launch.clone(),
        }
    }

    /// Makes ready what calls need.
    pub(crate) fn prepare(&self) -> Result<(), Diagnostic> {
        let program = std::path::absolute(&self.request.wrapper).map_err(|error| codes::io(&error))?;
        let steps = || -> std::io::Result<()> {
            tree::create_private_dir(&self.bin)?;
            tree::remove(&self.temporary)?;
            tree::create_private_dir(&self.temporary)?;
            if let Some(folder) = self.log.parent().filter(|folder| !folder.is_dir()) {
                tree::create_private_dir(folder)?;
            }
            tree::write_private(&self.log, b"")?;
            self.settings().install(&self.bin, &program)
        };
        steps().map_err(|error| codes::io(&error))
    }

    /// The log, to append to it.
    pub(crate) fn log_file(&self) -> Result<std::fs::File, Diagnostic> {
        let mut options = fs::OpenOptions::new();
        options.append(true);
        options.open(&self.log).map(|file| file.into_parts().0).map_err(|error| codes::io(&error))
    }

    /// Gives a program the environment of a build, and nothing else.
    pub(crate) fn environment(&self, job: Job) -> Job {
        let metadata = &self.request.metadata;
        let job = job
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.temporary)
            .env("TMPDIR", &self.temporary)
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .env("USER", &metadata.whoami)
            .env("SOURCE_DATE_EPOCH", "0")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONHASHSEED", "0")
            .env("GIT_CEILING_DIRECTORIES", &self.tree)
            .env("XEN_BUILD_DATE", &metadata.date)
            .env("XEN_BUILD_TIME", &metadata.time)
            .env("XEN_WHOAMI", &metadata.whoami)
            .env("XEN_DOMAIN", &metadata.domain)
            .env("XEN_BUILD_HOST", &metadata.host);
        self.request.environment.iter().fold(job, |job, (name, value)| job.env(name, value))
    }

    /// Runs the user's command in the private copy.
    pub(crate) fn run_prepare(&self, command: &str) -> Result<(), Diagnostic> {
        let begin = fs::metadata(&self.log).map_err(|error| codes::io(&error))?.len();
        let log = || self.log_file().map(Sink::File);
        let shell = Job::new("sh").dir(&self.tree).args(["-c", command]);
        let job = self.environment(shell).stdout(log()?).stderr(log()?);
        let finished = job.run().map_err(|error| process_error(&error))?;
        if finished.success() {
            return Ok(());
        }
        let said = fs::read(&self.log).map_err(|error| codes::io(&error))?;
        let said = said.get(usize::try_from(begin).unwrap_or(0)..).unwrap_or_default();
        let said = String::from_utf8_lossy(said);
        let lines: Vec<&str> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
        let log = self.log.display();
        let code = finished.code;
        Err(Diagnostic::new(
            codes::PREPARE_FAILED,
            format!("--prepare ended with exit code {code}: {command}"),
        )
        .why(if last.is_empty() { "It said nothing.".to_owned() } else { last })
        .advice(format!(
            "It ran in a private copy of the tree (xen/, config/ and the files beside them). All that it \
                 said is in {log}."
        )))
    }

    fn job(&self, call: &Call<'_>) -> Result<Job, Diagnostic> {
        let make = Job::new("make")
            .dir(self.tree.join("xen"))
            .arg(format!("-j{}", self.request.jobs.max(1)))
            // Where linking xen.efi fails first, xen-syms is still to be made; and failing compilers are all told.
            .args(call.records.map(|_| "-k"))
            .args(self.variables().map(|(name, value)| format!("{name}={value}")))
            .args(call.targets);
        let log = || self.log_file().map(Sink::File);
        let mut job = self.environment(make).stdout(log()?).stderr(log()?);
        if let Some(records) = call.records {
            job = job.env(wrapper::RECORDS, records);
        }
        if call.stop_at_link {
            job = job.env(wrapper::STOP_AT_LINK, "1");
        }
        if let Some(needed) = call.needed {
            let file = self.temporary.join("needed.json");
            let write = || tree::write_private(&file, &serde_json::to_vec(needed)?);
            write().map_err(|error| codes::io(&error))?;
            // That public headers are also C++ is checked by a compiler that nothing else is compiled with.
            if !self.request.make_vars.iter().any(|(name, _)| name == "CXX") {
                job = job.arg("CXX=false");
            }
            job = job.env(stand_in::NEEDED, file);
        }
        Ok(job)
    }

    /// Variables for make's command line, in order.
    fn variables(&self) -> impl Iterator<Item = (String, String)> + '_ {
        let link = |tool: Tool| self.bin.join(tool.link_name()).display().to_string();
        let own = [
            ("XEN_TARGET_ARCH", "x86_64".to_owned()),
            ("CC", link(Tool::Cc)),
            ("LD", link(Tool::Ld)),
            ("OBJCOPY", link(Tool::Objcopy)),
            ("AR", link(Tool::Ar)),
            ("HOSTCC", self.request.toolchain.host_cc.clone()),
        ];
        let prefix = Some(("CROSS_COMPILE", self.request.toolchain.prefix.clone()));
        own.into_iter()
            .chain(prefix.filter(|(_, prefix)| !prefix.is_empty()))
            .map(|(name, value)| (name.to_owned(), value))
            .chain(self.request.make_vars.iter().cloned())
    }

    /// Runs make to its end.
    pub(crate) fn run(&self, call: &Call<'_>, progress: &dyn Progress) -> Result<MakeEnd, Diagnostic> {
        if let Some(records) = call.records {
            let fresh = || -> std::io::Result<()> {
                tree::remove(records)?;
                tree::create_private_dir(records)
            };
            fresh().map_err(|error| codes::io(&error))?;
        }
        let mut running = self.job(call)?.spawn().map_err(|error| process_error(&error))?;
        let mut seen = BTreeSet::new();
        let mut records = Vec::new();
        let mut count = 0;
        let reached = || call.records.is_some_and(|folder| folder.join(wrapper::REACHED_LINK).exists());
        let code = loop {
            // Asked before the records are read, so that none is missed. Where only commands are wanted, all are there
            // once the hypervisor is to be linked: what make does besides is for other files.
            let enough = call.needed.is_some() && reached();
            let ended = running.poll().map_err(|error| process_error(&error))?;
            if let Some(folder) = call.records {
                let new = wrapper::read_new_records(folder, &mut seen).map_err(|error| codes::io(&error))?;
                for record in
                    new.iter().filter(|record| record.compiles() && record.code == 0 && !record.stood_in)
                {
                    count += 1;
                    progress.compiled(&self.shown_object(record), count);
                }
                records.extend(new);
            }
            match ended {
                Some(code) => break code,
                None if enough => {
                    running.kill();
                    break 0;
                }
                None => thread::sleep(PAUSE),
            }
        };
        running.wait().map_err(|error| process_error(&error))?;
        let success = code == 0 || (call.stop_at_link && reached()) || has_symbols(&records);
        Ok(MakeEnd { success, records })
    }

    /// The object that a compilation is for, relative to the tree.
    pub(crate) fn shown_object(&self, record: &Record) -> String {
        let path = record.dir.join(&record.output);
        let path = path.strip_prefix(&self.tree).unwrap_or(&path);
        let text = crate::graph::normalise(path);
        crate::graph::untemporary(&text).unwrap_or(text)
    }

    /// What went wrong in a call that failed: the compiler's first error, or make's.
    pub(crate) fn failure(&self, end: &MakeEnd, which: &str) -> Diagnostic {
        let log = self.log.display();
        let failed = end.records.iter().find(|record| record.tool == Tool::Cc && record.code != 0);
        let Some(record) = failed else {
            let text = fs::read(&self.log).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let telling = |line: &&str| {
                const SIGNS: &[&str] = &[
                    " error: ",
                    "undefined reference",
                    "relocation truncated",
                    ": not found",
                    "No such file",
                    "*** ",
                ];
                SIGNS.iter().any(|sign| line.contains(sign))
            };
            let line =
                text.lines().find(telling).or_else(|| text.lines().last()).unwrap_or("it said nothing");
            if let Some((name, line)) = defined_twice(&text) {
                return Diagnostic::new(codes::DEFINED_TWICE, format!("{name} is defined twice in {which}"))
                    .at(Place::none().symbol(name))
                    .why(line.to_owned())
                    .advice(format!(
                        "Choose another name in the patch. All that the linker said is in {log}."
                    ));
            }
            return Diagnostic::new(codes::MAKE_FAILED, format!("make failed for {which}: {}", line.trim()))
                .advice(format!("All that make said is in {log}."));
        };
        let object = self.shown_object(record);
        let error = compiler_error(&record.message);
        let mut place = Place::object(&object);
        let mut what = format!("{object} does not compile in {which}");
        if let Some((file, line, text)) = error {
            let file = record.dir.join(file);
            let file = crate::graph::normalise(file.strip_prefix(&self.tree).unwrap_or(&file));
            place = place.source(file, line);
            what = format!("{what}: {text}");
        }
        Diagnostic::new(codes::COMPILE_FAILED, what)
            .at(place)
            .why(first_lines(&record.message, 6))
            .advice(format!("All that the compiler said is in {log}."))
    }
}

/// Whether everything was compiled and the symbol file linked, whatever failed after that.
///
/// With functions in sections of their own, versions before 4.17 fail to link xen.efi, before xen-syms or after it;
/// nobody needs it here.
fn has_symbols(records: &[Record]) -> bool {
    let is_it = |record: &Record| {
        record.is_final_link() && record.code == 0 && Path::new(&record.output).ends_with("xen-syms")
    };
    let failed = |record: &Record| record.tool == Tool::Cc && record.code != 0;
    records.iter().any(is_it) && !records.iter().any(failed)
}

fn first_lines(text: &str, count: usize) -> String {
    let from = text.lines().position(|line| line.contains("rror:")).unwrap_or(0);
    text.lines().skip(from).take(count).collect::<Vec<_>>().join("\n")
}

/// File, line and text of a compiler's or assembler's first error message.
fn compiler_error(message: &str) -> Option<(String, Option<u32>, String)> {
    let line = message.lines().find(|line| line.contains("rror: "))?;
    let (place, text) = line
        .split_once(": fatal error: ")
        .or_else(|| line.split_once(": error: "))
        .or_else(|| line.split_once(": Error: "))?;
    let mut parts = place.split(':');
    let file = parts.next()?.to_owned();
    let number = parts.next().and_then(|number| number.parse().ok());
    Some((file, number, text.to_owned()))
}

/// A global name that the linker met a second time, and its words.
fn defined_twice(log: &str) -> Option<(&str, &str)> {
    let line = log.lines().find(|line| line.contains("multiple definition of "))?;
    let (_, rest) = line.split_once("multiple definition of ")?;
    let name = rest.trim_start_matches(['`', '\'']).split(['\'', ';', '`']).next()?;
    Some((name, line.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_could_not_do_has_its_code() {
        let code = |error| process_error(&error).code;
        assert_eq!(code(xsplice_process::Error::Interrupted), codes::INTERRUPTED);
        let source = || std::io::Error::other("x");
        let lost = xsplice_process::Error::Io { program: "cc".into(), source: source() };
        assert_eq!(code(lost), codes::IO);
        let absent = xsplice_process::Error::Start { program: "cc".into(), source: source() };
        assert_eq!(code(absent), codes::TOOL_MISSING);
    }

    #[test]
    fn the_first_error_is_found() {
        let text = "In file included from a.c:1:\na.c: In function 'f':\na.c:7:5: error: 'x' undeclared\na.c:8:1: error: more\n";
        assert_eq!(compiler_error(text), Some(("a.c".to_owned(), Some(7), "'x' undeclared".to_owned())));
        let text = "a.S: Assembler messages:\na.S:3: Error: no such instruction: `foo'\n";
        assert_eq!(
            compiler_error(text),
            Some(("a.S".to_owned(), Some(3), "no such instruction: `foo'".to_owned()))
        );
        assert_eq!(compiler_error("warning: x\n"), None);
    }
}
