//! The compiler wrapper: what runs in the place of the compiler, linker, objcopy and ar.
//!
//! A build calls the tools through symbolic links in a private folder, all of which lead to the xsplice
//! program itself. It recognises by the name it was called with that it is to be a wrapper, runs the real
//! tool, and leaves one record per call. Nothing but the flags named in [`Adjust`] is ever added to a
//! command, and nothing is taken away.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::launcher;
use crate::stand_in::{self, NEEDED};

/// What the names of the links begin with, such as `xsplice-wrapped-cc`.
const PREFIX: &str = "xsplice-wrapped-";
/// The file beside the links that says what they stand for.
const SETTINGS: &str = "wrapper.json";
/// The variable that names the folder for records. Without it the wrapper only passes calls on.
pub(crate) const RECORDS: &str = "XSPLICE_RECORDS";
/// The variable that makes the wrapper end the build at the final link.
pub(crate) const STOP_AT_LINK: &str = "XSPLICE_STOP_AT_LINK";
/// The file in the folder of records that says that the build reached the final link.
pub(crate) const REACHED_LINK: &str = "reached-link";

/// When to add `-ffunction-sections -fdata-sections` to a compilation of hypervisor code.
///
/// Functions can only be told apart when each has a section of its own. From Xen 4.17 on the build does this
/// by itself (CC_SPLIT_SECTIONS, selected by LIVEPATCH); earlier ones need it to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Adjust {
    /// Where the command lacks them.
    #[default]
    Auto,
    /// To every command that compiles 64-bit C, even where they are there.
    Always,
    /// To none: no flag at all is added, not even `-g`.
    Never,
}

/// Which tool a wrapper stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Tool {
    Cc,
    Ld,
    Objcopy,
    Ar,
}

impl Tool {
    pub(crate) const ALL: [Tool; 4] = [Tool::Cc, Tool::Ld, Tool::Objcopy, Tool::Ar];

    fn word(self) -> &'static str {
        match self {
            Tool::Cc => "cc",
            Tool::Ld => "ld",
            Tool::Objcopy => "objcopy",
            Tool::Ar => "ar",
        }
    }

    /// The name of its link.
    pub(crate) fn link_name(self) -> String {
        format!("{PREFIX}{}", self.word())
    }

    fn from_link(name: &OsStr) -> Option<Tool> {
        let word = name.to_str()?.strip_prefix(PREFIX)?;
        Tool::ALL.into_iter().find(|tool| tool.word() == word)
    }
}

/// What the links of one folder stand for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// The real tool for each.
    pub(crate) tools: BTreeMap<Tool, PathBuf>,
    pub(crate) adjust: Adjust,
    /// Flags that keep the place of the private copy out of objects.
    pub(crate) place_flags: Vec<String>,
    /// Whether the assembler can say which files it reads by itself.
    pub(crate) assembler_tells: bool,
    /// What is put in front of the compiler.
    #[serde(default)]
    pub(crate) launch: Option<launcher::Ready>,
}

impl Settings {
    /// Makes the links in `folder`, and writes what they stand for. Does nothing where all is as wanted.
    pub(crate) fn install(&self, folder: &Path, program: &Path) -> std::io::Result<()> {
        fs::create_dir_all(folder)?;
        for tool in Tool::ALL {
            let link = folder.join(tool.link_name());
            if fs::read_link(&link).is_ok_and(|target| target == program) {
                continue;
            }
            match fs::remove_file(&link) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => fs_err::os::unix::fs::symlink(program, &link)?,
            }
        }
        let text = serde_json::to_vec(self)?;
        let path = folder.join(SETTINGS);
        if fs::read(&path).is_ok_and(|old| old == text) {
            return Ok(());
        }
        crate::tree::write_private(&path, &text)
    }
}

/// One call of a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) tool: Tool,
    /// The folder it ran in.
    pub(crate) dir: PathBuf,
    /// The arguments as the build gave them, without the tool's name.
    pub(crate) args: Vec<String>,
    /// What it wrote, as named in the arguments.
    pub(crate) output: String,
    /// What it read: the source of a compilation, the inputs of a link, the input of a copy.
    pub(crate) inputs: Vec<String>,
    /// Whether a call of the compiler makes text (`-E`, `-S`), not an object. Builds make headers so.
    #[serde(default)]
    pub(crate) text: bool,
    /// Files that a compilation read, from the preprocessor's dependency output.
    pub(crate) dependencies: Vec<String>,
    /// Files that the assembler read besides (`.include`, `.incbin`), which the preprocessor and make do not know
    /// of. None where the assembler cannot tell.
    #[serde(default)]
    pub(crate) assembled: Option<Vec<String>>,
    /// Whether an empty object was the answer, since nobody needed this one: nothing was compiled, and what it would
    /// have read is not known.
    #[serde(default)]
    pub(crate) stood_in: bool,
    /// Links only: whether the result is again an object (`-r`).
    pub(crate) partial: bool,
    /// Its exit code.
    pub(crate) code: i32,
    /// What it said on standard error, when it failed.
    pub(crate) message: String,
}

impl Record {
    /// Whether this is a compilation into an object.
    pub(crate) fn compiles(&self) -> bool {
        self.tool == Tool::Cc && !self.text
    }

    /// Whether this is a link that makes the hypervisor's symbol file (its first, second or last pass).
    pub(crate) fn is_final_link(&self) -> bool {
        self.links("xen-syms")
    }

    /// Whether this is a link that makes the image for UEFI (any of its passes).
    pub(crate) fn is_efi_link(&self) -> bool {
        self.links("xen.efi")
    }

    /// Whether this is a link, no partial one, that makes a file of this name or a pass of it (`.NAME.0`).
    fn links(&self, image: &str) -> bool {
        let name = Path::new(&self.output).file_name().and_then(OsStr::to_str).unwrap_or("");
        self.tool == Tool::Ld && !self.partial && name.trim_start_matches('.').starts_with(image)
    }
}

/// What a command line asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Parsed {
    pub(crate) inputs: Vec<String>,
    pub(crate) output: Option<String>,
    /// `-c`
    compiles: bool,
    /// `-E` or `-S`
    pub(crate) text: bool,
    /// Where dependencies are written, if they are.
    pub(crate) depfile: Option<String>,
    partial: bool,
}

/// Options of compilers and linkers whose value is the next argument.
const WITH_VALUE: &[&str] = &[
    "-o",
    "-MF",
    "-MQ",
    "-MT",
    "-include",
    "-imacros",
    "-x",
    "-I",
    "-D",
    "-U",
    "-iquote",
    "-isystem",
    "-idirafter",
    "-T",
    "-e",
    "-m",
    "-z",
    "-b",
    "-L",
    "--param",
    "-Xassembler",
    "-Xclang",
    "-target",
    "-arch",
    "-defsym",
    "--defsym",
    "-Map",
    "-u",
    "-y",
    "-A",
    "-G",
    "-soname",
    "-h",
];

fn parse_compile_or_link(args: &[String], is_link: bool) -> Parsed {
    let mut parsed = Parsed::default();
    let mut words = args.iter();
    while let Some(word) = words.next() {
        if let Some(rest) = word.strip_prefix("-Wp,-M") {
            parsed.depfile = rest.split_once(',').map(|(_, file)| file.to_owned());
        } else if WITH_VALUE.contains(&word.as_str()) {
            let value = words.next();
            match word.as_str() {
                "-o" => parsed.output = value.cloned(),
                "-MF" => parsed.depfile = value.cloned(),
                _ => {}
            }
        } else if word == "-c" && !is_link {
            parsed.compiles = true;
        } else if (word == "-E" || word == "-S") && !is_link {
            parsed.text = true;
        } else if is_link && (word == "-r" || word == "-i" || word == "--relocatable") {
            parsed.partial = true;
        } else if let Some(file) = word.strip_prefix("-o").filter(|_| !is_link || !word.contains("format")) {
            parsed.output = Some(file.to_owned());
        } else if !word.starts_with('-') {
            parsed.inputs.push(word.clone());
        }
    }
    parsed
}

/// Options of objcopy whose value is the next argument.
const OBJCOPY_WITH_VALUE: &[&str] = &[
    "-I",
    "-O",
    "-B",
    "-F",
    "-j",
    "-R",
    "-K",
    "-N",
    "-G",
    "-L",
    "-W",
    "-b",
    "-i",
    "--redefine-sym",
    "--rename-section",
    "--set-section-flags",
    "--add-section",
    "--only-section",
    "--remove-section",
    "--strip-symbol",
    "--keep-symbol",
    "--globalize-symbol",
    "--localize-symbol",
    "--prefix-symbols",
    "--change-section-address",
    "--add-symbol",
    "--input-target",
    "--output-target",
    "--binary-architecture",
    "--set-section-alignment",
    "--update-section",
    "--dump-section",
    "--gap-fill",
    "--pad-to",
];

fn parse_objcopy(args: &[String]) -> Parsed {
    let mut files = Vec::new();
    let mut words = args.iter();
    while let Some(word) = words.next() {
        if OBJCOPY_WITH_VALUE.contains(&word.as_str()) {
            words.next();
        } else if !word.starts_with('-') {
            files.push(word.clone());
        }
    }
    // objcopy IN [OUT]
    let output = files.last().cloned();
    files.truncate(1);
    Parsed { inputs: files, output, ..Parsed::default() }
}

fn parse_ar(args: &[String]) -> Parsed {
    // ar OPERATION ARCHIVE MEMBER...
    let files: Vec<String> = args.iter().skip(1).filter(|word| !word.starts_with('-')).cloned().collect();
    let output = files.first().cloned();
    Parsed { inputs: files.into_iter().skip(1).collect(), output, ..Parsed::default() }
}

fn parse(tool: Tool, args: &[String]) -> Parsed {
    match tool {
        Tool::Cc => parse_compile_or_link(args, false),
        Tool::Ld => parse_compile_or_link(args, true),
        Tool::Objcopy => parse_objcopy(args),
        Tool::Ar => parse_ar(args),
    }
}

/// The one C or assembler source that the command compiles into an object, if it is one to remember.
pub(crate) fn compiled_source(parsed: &Parsed) -> Option<&str> {
    let output = parsed.output.as_deref()?;
    if !parsed.compiles || parsed.text || output == "/dev/null" {
        return None;
    }
    let is_source = |name: &&String| [".c", ".S", ".s"].iter().any(|end| name.ends_with(end));
    match parsed.inputs.as_slice() {
        [one] if is_source(&one) => Some(one),
        _ => None,
    }
}

/// Whether the command turns one file of C or assembler into text from which a build may make something.
fn makes_text(parsed: &Parsed, args: &[String]) -> bool {
    let is_source = |name: &String| [".c", ".h", ".S", ".s"].iter().any(|end| name.ends_with(end));
    let asks = |arg: &String| arg == "-M" || arg == "-MM" || arg.starts_with("-dM") || arg == "-";
    parsed.text
        && parsed.output.as_deref() != Some("/dev/null")
        && parsed.inputs.len() == 1
        && parsed.inputs.iter().all(is_source)
        && !args.iter().any(asks)
}

/// Whether a command compiles C that becomes part of the running hypervisor.
///
/// `-D__XEN__` is on every such command in all versions (xen/Makefile or xen/Rules.mk); what runs before the
/// hypervisor proper is built for 16 or 32 bits.
///
/// Where flags are always to be added, all 64-bit C counts: the user knows what the makefiles do not show.
fn is_hypervisor_c(args: &[String], source: &str, adjust: Adjust) -> bool {
    source.ends_with(".c")
        && (adjust == Adjust::Always || args.iter().any(|arg| arg == "-D__XEN__"))
        && !args.iter().any(|arg| arg == "-m32" || arg == "-m16" || arg == "-S" || arg == "-E")
}

/// The flags to add to a compilation, in order.
pub(crate) fn added_flags(settings: &Settings, args: &[String], source: &str) -> Vec<String> {
    let mut added = Vec::new();
    if settings.adjust == Adjust::Never {
        return added;
    }
    added.extend(settings.place_flags.iter().cloned());
    if is_hypervisor_c(args, source, settings.adjust) {
        let has = |flag: &str| args.iter().any(|arg| arg == flag);
        for flag in ["-ffunction-sections", "-fdata-sections"] {
            if settings.adjust == Adjust::Always || !has(flag) {
                added.push(flag.to_owned());
            }
        }
        if !has("-g") {
            added.push("-g".to_owned());
        }
    }
    added
}

/// The files named in a dependency file in make's syntax, without the target.
pub(crate) fn parse_depfile(text: &str) -> Vec<String> {
    let mut files = Vec::new();
    for rule in text.replace("\\\n", " ").lines() {
        // -MP adds rules without prerequisites for every header; those name nothing new.
        let Some((_, files_of_rule)) = rule.split_once(": ") else { continue };
        let mut word = String::new();
        let mut chars = files_of_rule.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\\' if chars.peek().is_some_and(|next| " #\\".contains(*next)) => word.extend(chars.next()),
                '$' if chars.peek() == Some(&'$') => word.extend(chars.next()),
                c if c.is_whitespace() => {
                    if !word.is_empty() {
                        files.push(std::mem::take(&mut word));
                    }
                }
                c => word.push(c),
            }
        }
        if !word.is_empty() {
            files.push(word);
        }
    }
    files.sort();
    files.dedup();
    files
}

/// Whether this process was called as a wrapper: by one of the links that a build makes.
pub fn is_wrapper(argv0: &OsStr) -> bool {
    Path::new(argv0).file_name().and_then(Tool::from_link).is_some()
}

/// Acts as the wrapper for the tool that the first of `args` names.
///
/// Call it before anything else in `main` when [`is_wrapper`] says so: a build calls it a thousand times.
pub fn wrapper_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let link = PathBuf::from(args.next().unwrap_or_default());
    let args: Vec<OsString> = args.collect();
    match run(&link, &args) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            // Standard error is the build's log here, and there is no other way to say it.
            let _ = writeln!(std::io::stderr(), "xsplice: {}: {error}", link.display());
            ExitCode::FAILURE
        }
    }
}

fn run(link: &Path, args: &[OsString]) -> std::io::Result<i32> {
    let broken = |what: &str| std::io::Error::other(what.to_owned());
    let tool = link.file_name().and_then(Tool::from_link).ok_or_else(|| broken("no such tool"))?;
    let folder = link.parent().ok_or_else(|| broken("called without a path"))?;
    let settings: Settings = serde_json::from_slice(&fs::read(folder.join(SETTINGS))?)?;
    let real = settings.tools.get(&tool).ok_or_else(|| broken("no such tool in the settings"))?;
    let words: Option<Vec<String>> = args.iter().map(|arg| arg.to_str().map(str::to_owned)).collect();
    let records = std::env::var_os(RECORDS).map(PathBuf::from);
    let (Some(words), Some(records)) = (words, records) else {
        return Err(xsplice_process::exec(real, args));
    };
    let parsed = parse(tool, &words);
    let needed = std::env::var_os(NEEDED).map(PathBuf::from);
    if needed.is_some() && tool == Tool::Cc && stand_in::checks_header(&parsed) {
        return Ok(0);
    }
    let text = tool == Tool::Cc && makes_text(&parsed, &words);
    let worth_recording = match tool {
        Tool::Cc => text || compiled_source(&parsed).is_some(),
        _ => parsed.output.is_some() && !parsed.inputs.is_empty(),
    };
    if !worth_recording {
        return Err(xsplice_process::exec(real, args));
    }
    let mut record = Record {
        tool,
        dir: std::env::current_dir()?,
        text,
        args: words,
        output: parsed.output.clone().unwrap_or_default(),
        inputs: parsed.inputs.clone(),
        dependencies: Vec::new(),
        assembled: None,
        stood_in: false,
        partial: parsed.partial,
        code: 0,
        message: String::new(),
    };
    let stops = std::env::var_os(STOP_AT_LINK).is_some();
    if stops && record.is_efi_link() {
        return Ok(1);
    }
    if stops && record.is_final_link() {
        write_record(&records, &record)?;
        crate::tree::write_private(&records.join(REACHED_LINK), b"")?;
        return Ok(1);
    }
    let answered = match (&needed, tool) {
        (Some(needed), Tool::Cc) => stand_in::compiles(&parsed, &record.args, &record.dir, needed)?,
        (Some(_), Tool::Objcopy) => stand_in::copies(&parsed, &record.dir)?,
        _ => false,
    };
    if answered {
        record.stood_in = tool == Tool::Cc;
    } else {
        call(real, args, &settings, &parsed, &records, &mut record)?;
    }
    write_record(&records, &record)?;
    Ok(record.code)
}

/// Runs the real tool, and completes the record.
fn call(
    real: &Path,
    args: &[OsString],
    settings: &Settings,
    parsed: &Parsed,
    records: &Path,
    record: &mut Record,
) -> std::io::Result<()> {
    let mut full = args.to_vec();
    let (mut own_depfile, mut assembler_file) = (None, None);
    if let Some(source) = compiled_source(parsed).filter(|_| record.tool == Tool::Cc) {
        full.extend(added_flags(settings, &record.args, source).into_iter().map(OsString::from));
        if settings.assembler_tells {
            assembler_file = Some(records.join(format!(".{}.as.d", unique())));
        }
    }
    if record.tool == Tool::Cc && parsed.depfile.is_none() {
        let file = records.join(format!(".{}.d", unique()));
        full.extend(["-MMD".into(), "-MF".into(), file.clone().into_os_string()]);
        own_depfile = Some(file);
    }
    let launched = match (&settings.launch, compiled_source(parsed), &assembler_file) {
        (Some(launch), Some(source), Some(file)) => {
            launch.compile(real, &full, (source, &record.output), file)?
        }
        _ => None,
    };
    let passed = match launched {
        Some(passed) => passed,
        None => {
            full.extend(
                assembler_file.iter().map(|file| format!("-Wa,--MD,{}", file.display())).map(OsString::from),
            );
            xsplice_process::pass_through(real, &full, &[])?
        }
    };
    std::io::stderr().write_all(&passed.stderr)?;
    record.code = passed.code;
    if passed.code != 0 {
        record.message = String::from_utf8_lossy(&passed.stderr).into_owned();
        return Ok(());
    }
    let depfile = own_depfile.clone().or_else(|| parsed.depfile.as_ref().map(PathBuf::from));
    if let Some(file) = depfile.filter(|_| record.tool == Tool::Cc) {
        record.dependencies = parse_depfile(&String::from_utf8_lossy(&fs::read(file)?));
    }
    if let Some(file) = own_depfile {
        fs::remove_file(file)?;
    }
    if let Some(file) = assembler_file {
        let mut read = parse_depfile(&String::from_utf8_lossy(&fs::read(&file)?));
        // The compiler's own output, under a name that no two calls share, is no file of the build.
        let temporary = std::env::temp_dir();
        // The source is named without its folder.
        let is_input =
            |name: &String| record.inputs.iter().any(|input| input.rsplit('/').next() == Some(name));
        read.retain(|name| !Path::new(name).starts_with(&temporary) && !is_input(name));
        record.assembled = Some(read);
        fs::remove_file(file)?;
    }
    Ok(())
}

/// A name that no other call of this build has; names sort by time.
pub(crate) fn unique() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{:024}-{:010}", now.as_nanos(), std::process::id())
}

fn write_record(records: &Path, record: &Record) -> std::io::Result<()> {
    let name = unique();
    let hidden = records.join(format!(".{name}.tmp"));
    crate::tree::write_private(&hidden, &serde_json::to_vec(record)?)?;
    fs::rename(hidden, records.join(format!("{name}.json")))
}

/// Reads all records of a folder that are not in `seen` yet, in the order of the calls.
pub(crate) fn read_new_records(
    folder: &Path,
    seen: &mut std::collections::BTreeSet<OsString>,
) -> std::io::Result<Vec<Record>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let bytes = name.as_bytes();
        if bytes.ends_with(b".json") && !bytes.starts_with(b".") && !seen.contains(&name) {
            names.push(name);
        }
    }
    names.sort();
    let mut records = Vec::new();
    for name in names {
        records.push(serde_json::from_slice(&fs::read(folder.join(&name))?)?);
        seen.insert(name);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn settings(adjust: Adjust) -> Settings {
        Settings {
            tools: BTreeMap::new(),
            adjust,
            place_flags: vec!["-fmap".to_owned()],
            assembler_tells: false,
            launch: None,
        }
    }

    #[test]
    fn a_compilation_to_a_temporary_object_is_understood() {
        let args =
            words("-MMD -MP -MF d/.a.o.d -m64 -D__XEN__ -include x.h -c d/a.c -o d/.a.o.tmp -MQ d/a.o");
        let parsed = parse(Tool::Cc, &args);
        assert_eq!(compiled_source(&parsed), Some("d/a.c"));
        assert_eq!(parsed.output.as_deref(), Some("d/.a.o.tmp"));
        assert_eq!(parsed.depfile.as_deref(), Some("d/.a.o.d"));
    }

    #[test]
    fn questions_about_the_compiler_are_not_recorded() {
        for text in [
            "-c -x c /dev/null -o /dev/null",
            "--version",
            "-S a.c -o a.s",
            "-c -o /dev/null -x c -",
            "-D__XEN__ -c -x c /dev/null -o built_in.o",
        ] {
            assert_eq!(compiled_source(&parse(Tool::Cc, &words(text))), None, "{text}");
        }
    }

    #[test]
    fn flags_are_added_only_where_they_lack_and_only_to_hypervisor_code() {
        let add = |adjust, text: &str, source: &str| added_flags(&settings(adjust), &words(text), source);
        assert_eq!(
            add(Adjust::Auto, "-D__XEN__ -c a.c", "a.c"),
            ["-fmap", "-ffunction-sections", "-fdata-sections", "-g"]
        );
        assert_eq!(
            add(Adjust::Auto, "-D__XEN__ -g -ffunction-sections -fdata-sections -c a.c", "a.c"),
            ["-fmap"]
        );
        assert_eq!(
            add(Adjust::Always, "-D__XEN__ -g -ffunction-sections -fdata-sections -c a.c", "a.c"),
            ["-fmap", "-ffunction-sections", "-fdata-sections"]
        );
        assert_eq!(add(Adjust::Auto, "-D__XEN__ -m32 -c a.c", "a.c"), ["-fmap"]);
        assert_eq!(add(Adjust::Auto, "-c a.c", "a.c"), ["-fmap"]);
        assert_eq!(
            add(Adjust::Always, "-c a.c", "a.c"),
            ["-fmap", "-ffunction-sections", "-fdata-sections", "-g"]
        );
        assert_eq!(add(Adjust::Always, "-m32 -c a.c", "a.c"), ["-fmap"]);
        assert_eq!(add(Adjust::Auto, "-D__XEN__ -c a.S", "a.S"), ["-fmap"]);
        assert!(add(Adjust::Never, "-D__XEN__ -c a.c", "a.c").is_empty());
    }

    #[test]
    fn links_copies_and_archives_name_what_they_read_and_write() {
        let link =
            parse(Tool::Ld, &words("-melf_x86_64 -r -o built_in.o a.o b/built_in.o --start-group lib.a"));
        assert!(link.partial);
        assert_eq!(link.inputs, ["a.o", "b/built_in.o", "lib.a"]);
        let copy = parse(Tool::Objcopy, &words("--redefine-sym a.c=d/a.c d/.a.o.tmp d/a.o"));
        assert_eq!((copy.inputs, copy.output.as_deref()), (words("d/.a.o.tmp"), Some("d/a.o")));
        let copy = parse(Tool::Objcopy, &words("--rename-section .rodata=.init.rodata a.o a.init.o"));
        assert_eq!((copy.inputs, copy.output.as_deref()), (words("a.o"), Some("a.init.o")));
        let archive = parse(Tool::Ar, &words("cr lib/lib.a lib/x.o lib/y.o"));
        assert_eq!(
            (archive.inputs, archive.output.as_deref()),
            (words("lib/x.o lib/y.o"), Some("lib/lib.a"))
        );
    }

    #[test]
    fn only_the_symbol_file_counts_as_the_final_link() {
        let record = |text: &str| {
            let args = words(text);
            let parsed = parse(Tool::Ld, &args);
            Record {
                tool: Tool::Ld,
                dir: "/".into(),
                output: parsed.output.unwrap_or_default(),
                inputs: parsed.inputs,
                args,
                text: false,
                dependencies: vec![],
                assembled: None,
                stood_in: false,
                partial: parsed.partial,
                code: 0,
                message: String::new(),
            }
        };
        assert!(record("-T xen.lds -N prelink.o sym.o -o ./.xen-syms.0").is_final_link());
        assert!(record("-T xen.lds -N prelink.o sym.o -o /t/xen/xen-syms").is_final_link());
        assert!(!record("-r -o prelink.o a.o").is_final_link());
        let efi = record("-T efi.lds prelink.o -o ./.xen.efi.0x1.0");
        assert!(efi.is_efi_link() && !efi.is_final_link());
        assert!(!record("-o efi/check.efi efi/check.o").is_efi_link());
        assert!(!record("-r -o prelink-efi.o a.o").is_efi_link());
    }

    #[test]
    fn dependency_files_in_make_syntax_are_read() {
        let text = "d/a.o: d/a.c \\\n ./include/b.h include/with\\ space.h \\\n $$x.h\n\n./include/b.h:\n";
        assert_eq!(parse_depfile(text), ["$x.h", "./include/b.h", "d/a.c", "include/with space.h"]);
    }
}
