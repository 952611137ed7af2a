//! The programs that a build needs: found, and identified.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use xsplice_process::Job;
use xsplice_report::{Diagnostic, Problems};

use crate::codes;
use crate::launcher::{self, Launch};
use crate::request::Toolchain;
use crate::wrapper::Tool;

/// The programs, and what tells them from others.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    pub(crate) real: BTreeMap<Tool, PathBuf>,
    /// The first line of the compiler's own description.
    pub(crate) compiler: String,
    /// Everything that could make two builds differ, one thing per line.
    pub(crate) identity: String,
    /// The flag that replaces a folder in file names, if the compiler has one.
    pub(crate) prefix_map: Option<&'static str>,
    /// Whether the assembler behind the compiler can list what it reads (`--MD`).
    pub(crate) assembler_tells: bool,
    /// What is put in front of the compiler. Not part of the identity: it changes no result.
    pub(crate) launch: Option<launcher::Ready>,
}

/// Programs that every version's build calls, with Debian's packages.
const NEEDED: &[(&str, &str)] = &[
    ("make", "make"),
    ("nm", "binutils"),
    ("objdump", "binutils"),
    ("strip", "binutils"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("sed", "sed"),
    ("awk", "mawk"),
    ("gzip", "gzip"),
    ("od", "coreutils"),
    ("cmp", "diffutils"),
    ("sh", "dash"),
];

impl Tools {
    /// Puts a launcher in front of the compiler.
    pub(crate) fn launch_with(&mut self, launch: &Launch) -> Result<(), Diagnostic> {
        let name = &launch.program;
        let Some(program) = find_in_path(name) else {
            return Err(Diagnostic::new(codes::TOOL_MISSING, format!("{name} is not there"))
                .why("--launcher puts it in front of the compiler.")
                .advice(format!(
                    "Install it; on Debian: apt install {}. Or leave --launcher out.",
                    launch.launcher.name()
                )));
        };
        if !self.assembler_tells {
            return Err(Diagnostic::new(
                codes::LAUNCHER_UNUSABLE,
                format!("{name} cannot be put in front of {}", self.compiler),
            )
            .why("Its assembler cannot list what it reads, so that nobody would notice a stale result.")
            .advice("Leave --launcher out, or use gcc with the assembler of binutils."));
        }
        let ident = match self.real.get(&Tool::Cc) {
            Some(cc) => ask(cc, &["-S", "-x", "c", "/dev/null", "-o", "-"])?,
            None => None,
        };
        let ident = ident.and_then(|text| launcher::ident(text.as_bytes()));
        self.launch = Some(launcher::Ready::new(launch.launcher, program, ident, &self.identity));
        Ok(())
    }

    /// Finds and identifies all.
    pub(crate) fn find(toolchain: &Toolchain, make_vars: &[(String, String)]) -> Result<Tools, Problems> {
        let mut problems = Problems::new();
        let mut missing = |name: &str, package: &str| {
            problems.push(
                Diagnostic::new(codes::TOOL_MISSING, format!("{name} is not there"))
                    .why("The build of the hypervisor calls it.")
                    .advice(format!("Install it; on Debian: apt install {package}.")),
            );
        };
        let mut real = BTreeMap::new();
        let asked = [
            (Tool::Cc, &toolchain.cc, "gcc"),
            (Tool::Ld, &toolchain.ld, "binutils"),
            (Tool::Objcopy, &toolchain.objcopy, "binutils"),
            (Tool::Ar, &toolchain.ar, "binutils"),
        ];
        for (tool, name, package) in asked {
            match find_in_path(name) {
                Some(path) => {
                    real.insert(tool, path);
                }
                // Debian names the packages of other versions as the programs: gcc-11, clang-14.
                None if is_versioned(name) => missing(name, name),
                None => missing(name, &cross_package(package, &toolchain.prefix)),
            }
        }
        if find_in_path(&toolchain.host_cc).is_none() {
            missing(&toolchain.host_cc, "gcc");
        }
        for (name, package) in NEEDED {
            // LEX and YACC of make can stand for these two.
            let given = |variable: &str| make_vars.iter().any(|(name, _)| name == variable);
            let elsewhere = (*name == "flex" && given("FLEX")) || (*name == "bison" && given("BISON"));
            let prefix = if *package == "binutils" { toolchain.prefix.as_str() } else { "" };
            let program = format!("{prefix}{name}");
            if !elsewhere && find_in_path(&program).is_none() {
                missing(&program, &cross_package(package, prefix));
            }
        }
        if ["python3", "python"].iter().all(|name| find_in_path(name).is_none()) {
            missing("python3", "python3");
        }
        if !problems.0.is_empty() {
            return Err(problems);
        }
        identify(real, toolchain).map_err(Problems::from)
    }
}

/// Debian's package of tools whose names begin with a prefix: gcc-x86-64-linux-gnu for `x86_64-linux-gnu-`.
fn cross_package(package: &str, prefix: &str) -> String {
    match prefix.trim_end_matches('-') {
        "" => package.to_owned(),
        machine if machine.contains('/') => package.to_owned(),
        machine => format!("{package}-{}", machine.replace('_', "-")),
    }
}

/// Whether a program's name ends in a version, as in `gcc-11`.
fn is_versioned(name: &str) -> bool {
    let version = name.rsplit_once('-').map_or("", |(_, version)| version);
    !name.contains('/') && !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit())
}

/// A program as a shell would find it.
pub(crate) fn find_in_path(name: &str) -> Option<PathBuf> {
    let is_program = |path: &Path| {
        std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        let path = std::path::absolute(name).ok()?;
        return is_program(&path).then_some(path);
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| is_program(path))
}

fn ask(program: &Path, args: &[&str]) -> Result<Option<String>, Diagnostic> {
    let job = Job::new(program).args(args).env("LC_ALL", "C");
    let finished = job.run().map_err(|error| crate::kbuild::process_error(&error))?;
    Ok(finished.success().then(|| String::from_utf8_lossy(&finished.stdout).trim().to_owned()))
}

/// Size and time of a program: a replaced one of the same version is another one.
fn stamp(path: &Path) -> String {
    match std::fs::metadata(path) {
        Ok(meta) => format!("{} {} {} {}", path.display(), meta.size(), meta.mtime(), meta.mtime_nsec()),
        Err(_) => path.display().to_string(),
    }
}

fn identify(real: BTreeMap<Tool, PathBuf>, toolchain: &Toolchain) -> Result<Tools, Diagnostic> {
    let mut identity = Vec::new();
    let mut compiler = String::new();
    for (tool, path) in &real {
        let version = ask(path, &["--version"])?.unwrap_or_default();
        let first = version.lines().next().unwrap_or_default().to_owned();
        identity.push(format!("{}: {first}: {}", tool.link_name(), stamp(path)));
        if *tool == Tool::Cc {
            compiler = first;
        }
    }
    identity.push(format!("host compiler: {}", toolchain.host_cc));
    if !toolchain.prefix.is_empty() {
        identity.push(format!("other tools: {}", toolchain.prefix));
    }
    let (mut prefix_map, mut assembler_tells) = (None, false);
    if let Some(cc) = real.get(&Tool::Cc) {
        for part in ["as", "cc1"] {
            if let Some(found) = ask(cc, &[&format!("-print-prog-name={part}")])? {
                let path = find_in_path(&found).unwrap_or_else(|| PathBuf::from(&found));
                identity.push(format!("{part}: {}", stamp(&path)));
            }
        }
        for flag in ["-ffile-prefix-map", "-fdebug-prefix-map"] {
            if prefix_map.is_none()
                && ask(cc, &[&format!("{flag}=a=b"), "-E", "-x", "c", "/dev/null"])?.is_some()
            {
                prefix_map = Some(flag);
            }
        }
        let question = ["-Wa,--MD,/dev/null", "-c", "-x", "assembler", "/dev/null", "-o", "/dev/null"];
        assembler_tells = ask(cc, &question)?.is_some();
    }
    let identity = identity.join("\n");
    Ok(Tools { real, compiler, identity, prefix_map, assembler_tells, launch: None })
}
