//! The command line as it is written.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand};
use xsplice_build::{Adjust, Launcher, Preset};
use xsplice_report::Allowance;
use xsplice_verify::XenVersion;

use crate::explanations;

/// Turn a source patch for the Xen hypervisor into a live patch.
///
/// Exit codes, for every command: 0 done; 1 failed (usage, input, build, I/O); 2 refused (the change cannot be
/// live patched, the base is not the shipped one, or a payload is not acceptable); 3 nothing to patch.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Args {
    /// Print nothing but errors on standard error
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Print the report as JSON on standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build a payload from a source patch
    Build(Box<Build>),
    /// Compare an object before and after a change
    Diff(Diff),
    /// Show what a payload holds
    Inspect(Inspect),
    /// Say whether a hypervisor's loader accepts a payload, and whether the host survives it
    Verify(Verify),
    /// Say what a diagnostic code means, with an example and the way out
    Explain(Explain),
    /// Boot a Xen in QEMU and load, revert and unload payloads there
    Boot(Boot),
    /// Show or remove the builds that are kept for the next patch
    Cache(Cache),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Cache {
    /// What to do with them
    #[command(subcommand)]
    pub(crate) action: CacheAction,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum CacheAction {
    /// List the kept builds: size, when they were used, what they are good for
    List,
    /// Remove the kept builds; those that a run is using stay
    Clear,
    /// Print the folder: $XSPLICE_CACHE, else $XDG_CACHE_HOME/xsplice, else ~/.cache/xsplice
    Path,
}

/// Variables that are not the user's to set by name, each with what to do instead.
const OWN_VARIABLES: &[(&str, &str)] = &[
    ("CC", "--cc chooses the compiler"),
    ("LD", "--ld chooses the linker"),
    ("OBJCOPY", "--cross-compile chooses the tools"),
    ("AR", "--cross-compile chooses the tools"),
    ("HOSTCC", "--host-cc chooses the compiler of the build's own programs"),
    ("CROSS_COMPILE", "--cross-compile chooses the tools"),
    ("KCONFIG_CONFIG", "--config gives the configuration"),
];

/// `NAME=VALUE`, for make.
fn make_var(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it has no `=`: NAME=VALUE")?;
    let named = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(named) {
        return Err("the name of a variable has letters, digits and _".to_owned());
    }
    if let Some((_, instead)) = OWN_VARIABLES.iter().find(|(own, _)| *own == name) {
        return Err(format!("{name} is xsplice's to set; {instead}"));
    }
    if name == "XEN_TARGET_ARCH" && value != "x86_64" {
        return Err(format!("payloads are made for x86_64 only, not for {value}"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

fn adjust(text: &str) -> Result<Adjust, String> {
    match text {
        "auto" => Ok(Adjust::Auto),
        "always" => Ok(Adjust::Always),
        "never" => Ok(Adjust::Never),
        _ => Err("it is auto, always or never".to_owned()),
    }
}

/// A size in bytes: a number, and K, M, G or T for powers of 1024.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let power = match &text[number.len()..].to_ascii_uppercase()[..] {
        "" | "B" => 0,
        "K" | "KIB" => 1,
        "M" | "MIB" => 2,
        "G" | "GIB" => 3,
        "T" | "TIB" => 4,
        unit => return Err(format!("{unit} is no unit: K, M, G and T are")),
    };
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number: Option<u64> = digits.then(|| number.parse().ok()).flatten();
    number
        .and_then(|number| number.checked_mul(1 << (10 * power)))
        .ok_or_else(|| "a size is a whole number with K, M, G or T, such as 500M".to_owned())
}

/// The name of a launcher.
fn known_launcher() -> impl TypedValueParser<Value = Launcher> {
    PossibleValuesParser::new(Launcher::ALL.map(Launcher::name))
        .try_map(|name| Launcher::named(&name).ok_or("no such launcher"))
}

/// The name of a preset.
fn known_preset() -> impl TypedValueParser<Value = Preset> {
    PossibleValuesParser::new(Preset::ALL.map(Preset::name))
        .try_map(|name| Preset::named(&name).ok_or("no such preset"))
}

/// `CODE` or `CODE:NAME` of a refusal that can be let through.
fn allowance(text: &str) -> Result<Allowance, String> {
    let (code, name) = text.split_once(':').map_or((text, None), |(code, name)| (code, Some(name)));
    let Some(known) = explanations::all().find(|known| known.name == code) else {
        let nearest = explanations::nearest(code);
        let near =
            if nearest.is_empty() { String::new() } else { format!("; near are {}", nearest.join(", ")) };
        return Err(format!("no code is called {code:?}{near}"));
    };
    if name.is_some_and(str::is_empty) {
        return Err("it has no name behind the colon: CODE or CODE:NAME".to_owned());
    }
    let allowable = [xsplice_diff::codes::ALLOWABLE, xsplice_build::codes::ALLOWABLE].concat();
    if !allowable.contains(known) {
        let names: Vec<&str> = allowable.iter().map(|code| code.name).collect();
        return Err(format!(
            "{code} cannot be let through: there would be no payload, or none that the hypervisor takes or that is \
             right; can be: {}",
            names.join(", ")
        ));
    }
    Ok(Allowance { code: *known, name: name.map(str::to_owned) })
}

#[derive(Debug, clap::Args)]
pub(crate) struct Build {
    /// Xen source tree: the folder that holds xen/. Only read
    #[arg(long, short = 's', value_name = "TREE", visible_alias = "srcdir")]
    pub(crate) tree: PathBuf,
    /// Patch to apply; several are applied in order as one change; - reads standard input
    #[arg(long = "patch", short, value_name = "PATCH", required = true)]
    pub(crate) patches: Vec<PathBuf>,
    /// Configuration of the shipped hypervisor (its .config); with --preset debian by default debian/xen-kconfig
    #[arg(long, short, value_name = "CONFIG", required_unless_present = "preset")]
    pub(crate) config: Option<PathBuf>,
    /// Folder for the payload, the report and the logs
    #[arg(long, short, value_name = "OUT")]
    pub(crate) output: PathBuf,
    /// Name of the payload; by default that of the first patch
    #[arg(long, value_name = "N")]
    pub(crate) name: Option<String>,
    /// The shipped hypervisor's symbol file; by default TREE/xen/xen-syms, else a private build's
    #[arg(long, value_name = "FILE")]
    pub(crate) xen_syms: Option<PathBuf>,
    /// Build-id that must be applied below, in hex, or the payload to stack on; several are given lowest first. By
    /// default the hypervisor's
    #[arg(long, value_name = "ID|PAYLOAD", visible_alias = "on")]
    pub(crate) depends: Vec<String>,
    /// Build-id of the hypervisor, in hex; by default the one in the symbol file
    #[arg(long, value_name = "ID")]
    pub(crate) xen_depends: Option<String>,
    /// Give lines the numbers that the patch gives them: functions that hold one are patched where it moves them
    #[arg(long)]
    pub(crate) keep_lines: bool,
    /// How much of the rebuilt original is compared with the shipped hypervisor
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = ProveBase::Involved)]
    pub(crate) prove_base: ProveBase,
    /// Leave out the shipped first bytes of the replaced functions, which Xen from 4.14 on compares when it applies
    /// the payload
    #[arg(long)]
    pub(crate) no_expect: bool,
    /// Compiler of the hypervisor, a name to find in PATH or a path: the one that the shipped hypervisor was
    /// made with; by default gcc
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) cc: Option<String>,
    /// Variable for make's command line, such as EXTRA_CFLAGS_XEN_CORE=-O1: what the shipped hypervisor was made
    /// with. May be given several times
    #[arg(long = "make-var", value_name = "NAME=VALUE", value_parser = make_var)]
    pub(crate) make_vars: Vec<(String, String)>,
    /// When to add -ffunction-sections and -fdata-sections to the compiler's calls: where they lack (auto), always, or
    /// never; never adds no flag at all, not even -g
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = adjust)]
    pub(crate) build_adjust: Adjust,
    /// Set what a distribution's packaging in the tree sets: compiler, flags, build metadata; other options go first
    #[arg(long, value_name = "NAME", value_parser = known_preset())]
    pub(crate) preset: Option<Preset>,
    /// Compiler of the programs that the build itself runs; by default gcc
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) host_cc: Option<String>,
    /// Linker of the hypervisor; by default ld
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) ld: Option<String>,
    /// What the names of all tools for the hypervisor begin with, such as x86_64-linux-gnu-; --cc and --ld go first
    #[arg(long, value_name = "PREFIX")]
    pub(crate) cross_compile: Option<String>,
    /// Shell command to run once in the private copy of the tree, before it is configured
    #[arg(long, value_name = "CMD")]
    pub(crate) prepare: Option<String>,
    /// Program to put in front of the hypervisor's compiler; distcc and icecc send source to other machines
    #[arg(long, value_name = "PROGRAM", value_parser = known_launcher())]
    pub(crate) launcher: Option<Launcher>,
    /// Keep nothing: build in a temporary folder, which is removed in the end
    #[arg(long, conflicts_with = "cache_limit")]
    pub(crate) no_cache: bool,
    /// Size that the kept builds may have, such as 500M or 20G; those used longest ago are removed after the run.
    /// By default $XSPLICE_CACHE_LIMIT, else 10G
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) cache_limit: Option<u64>,
    /// How many compilers may run at once; by default one per processor
    #[arg(long, short, value_name = "N")]
    pub(crate) jobs: Option<std::num::NonZeroUsize>,
    /// Let through what is refused with this code, or only for that function or structure: it becomes a warning,
    /// and report and payload say so. For those who know better than the objects tell. May be given several times
    #[arg(long = "allow", value_name = "CODE[:NAME]", value_parser = allowance)]
    pub(crate) allowed: Vec<Allowance>,
    /// Print what changed first in each function, in both versions, and why each part of the payload is in it
    #[arg(long)]
    pub(crate) explain: bool,
    /// Write the patched objects that the payload was made of into this folder, for verify --objects
    #[arg(long, value_name = "DIR")]
    pub(crate) keep_objects: Option<PathBuf>,
}

/// How much of the rebuilt original is compared with the shipped hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ProveBase {
    /// The objects that the change is about
    Involved,
    /// Every object of the hypervisor
    All,
}

/// Compare an object before and after a change.
///
/// Both must come from one source, compiled by the same command at the same path with -g, -ffunction-sections and
/// -fdata-sections. Prints changed, new and removed functions, changed data, and what stands in the way of a live
/// patch.
///
/// Exit codes: 0 something differs and can go into a payload (without --xen-syms: as far as the two objects tell);
/// 1 failed; 2 refused; 3 no difference that a payload could bring.
#[derive(Debug, clap::Args)]
pub(crate) struct Diff {
    /// The object before the change
    #[arg(value_name = "ORIG.o")]
    pub(crate) original: PathBuf,
    /// The object after the change
    #[arg(value_name = "PATCHED.o")]
    pub(crate) patched: PathBuf,
    /// The shipped hypervisor's symbol file: names, sizes and room in it are checked too
    #[arg(long, value_name = "FILE")]
    pub(crate) xen_syms: Option<PathBuf>,
    /// Write the payload of this pair alone, verified as by build; it depends on the build-id of --xen-syms, and is
    /// a whole fix only where the patch changes no other object
    #[arg(long, short, value_name = "OUT.o", requires = "xen_syms")]
    pub(crate) output: Option<PathBuf>,
    /// Payload version of that hypervisor, where neither object tells it: 1 up to Xen 4.13, 2 from 4.14 on
    #[arg(long, value_name = "V", requires = "output", value_parser = clap::value_parser!(u8).range(1..=2))]
    pub(crate) funcs_version: Option<u8>,
    /// Let through what is refused with this code, or only for that function or structure: it becomes a warning,
    /// and report and payload say so. For those who know better than the objects tell. May be given several times
    #[arg(long = "allow", value_name = "CODE[:NAME]", value_parser = allowance)]
    pub(crate) allowed: Vec<Allowance>,
    /// Print what changed first in each function, in both versions, and why each part of the payload is in it
    #[arg(long)]
    pub(crate) explain: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Inspect {
    /// The payload
    pub(crate) payload: PathBuf,
}

/// Say whether a hypervisor's loader accepts a payload, and whether the host survives it.
///
/// Two answers: `loader: accept`, or `loader: reject` with the error that Xen answers and why; and `safe: yes`, or
/// `safe: no` with the codes of what the loader takes and the host pays for.
///
/// Exit codes: 0 accepted and safe; 1 something cannot be read; 2 otherwise.
#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    /// The payload
    pub(crate) payload: PathBuf,
    /// The running hypervisor's symbol file
    #[arg(long, value_name = "FILE")]
    pub(crate) xen_syms: PathBuf,
    /// A payload that is applied already; several are given lowest first
    #[arg(long, value_name = "PAYLOAD")]
    pub(crate) on: Vec<PathBuf>,
    /// Folder with the objects of the patched build, as build --keep-objects leaves them: each function of the payload
    /// is then compared with them in place
    #[arg(long, value_name = "DIR")]
    pub(crate) objects: Option<PathBuf>,
    /// Version of the hypervisor, 4.13 to 4.22, such as 4.17 or 4.17.5; by default read from the symbol file
    #[arg(long, value_name = "V", value_parser = known_version)]
    pub(crate) xen_version: Option<XenVersion>,
}

fn known_version(text: &str) -> Result<XenVersion, String> {
    let version: XenVersion = text.parse()?;
    if version.is_known() { Ok(version) } else { Err(format!("known are 4.13 to 4.22, not {version}")) }
}

/// Say what a diagnostic code means, with an example and the way out.
///
/// Codes are what messages have in brackets, such as [no-room].
#[derive(Debug, clap::Args)]
pub(crate) struct Explain {
    /// The codes
    #[arg(value_name = "CODE", required_unless_present = "list")]
    pub(crate) codes: Vec<String>,
    /// List all codes, each with its kind and one line
    #[arg(long, conflicts_with = "codes")]
    pub(crate) list: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Boot {
    /// Payloads, loaded in this order
    pub(crate) payloads: Vec<PathBuf>,
    /// Hypervisor to boot (xen.gz or unpacked); by default Debian's Xen 4.17
    #[arg(long, value_name = "FILE")]
    pub(crate) xen: Option<PathBuf>,
    /// Folder with that Xen's tools (xen-livepatch and its libraries); by default Debian's
    #[arg(long, value_name = "DIR")]
    pub(crate) tools: Option<PathBuf>,
    /// Linux kernel for the control domain; by default Debian's
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// Steps to run instead of the usual ones: one command of the control domain's shell a line
    #[arg(long, value_name = "FILE")]
    pub(crate) script: Option<PathBuf>,
    /// Command whose output is shown before, with and after the payloads
    #[arg(long, value_name = "CMD")]
    pub(crate) probe: Vec<String>,
    /// More words for Xen's command line
    #[arg(long, value_name = "WORD")]
    pub(crate) xen_arg: Vec<String>,
    /// Folder for the consoles' logs
    #[arg(long, value_name = "DIR")]
    pub(crate) logs: Option<PathBuf>,
}
