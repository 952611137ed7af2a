//! Compiler caches and distributors in front of the hypervisor's compiler.
//!
//! None of them knows what the assembler reads by itself (`.include`, `.incbin`), so none may decide about an
//! object: a cache would return a stale one. Those that can are given the step from C to assembler text alone
//! (`LAUNCHER gcc -S`), whose inputs the preprocessor knows; the assembler then runs here, on the files that are here,
//! and says what it read. The text names the compiler that made it (`.ident`), and that has to be this machine's.
//! What compiles elsewhere gets preprocessed text, and so may warn where the compiler here does not: then the front
//! end here decides, and about other warnings the compiler.
//! sccache passes such calls on; it is given whole compilations, those whose text cannot let the assembler read more.
//! Whenever a launcher fails, or gives another compiler's work, the compiler is called without it.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::{Deserialize, Serialize};
use xsplice_process::{Passed, pass_through};

/// A program that is put in front of the compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Launcher {
    /// A cache on this machine.
    Ccache,
    /// A cache, here or elsewhere.
    Sccache,
    /// Compiles on other machines.
    Distcc,
    /// Compiles on other machines.
    Icecc,
}

impl Launcher {
    /// All of them.
    pub const ALL: [Launcher; 4] = [Launcher::Ccache, Launcher::Sccache, Launcher::Distcc, Launcher::Icecc];

    /// The program's name, and that of Debian's package.
    pub fn name(self) -> &'static str {
        match self {
            Launcher::Ccache => "ccache",
            Launcher::Sccache => "sccache",
            Launcher::Distcc => "distcc",
            Launcher::Icecc => "icecc",
        }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Launcher> {
        Launcher::ALL.into_iter().find(|launcher| launcher.name() == name)
    }

    /// Whether preprocessed source goes to other machines.
    pub fn sends_source(self) -> bool {
        matches!(self, Launcher::Distcc | Launcher::Icecc)
    }

    /// What the names of its variables begin with.
    fn prefix(self) -> &'static str {
        match self {
            Launcher::Ccache => "CCACHE_",
            Launcher::Sccache => "SCCACHE_",
            Launcher::Distcc => "DISTCC_",
            Launcher::Icecc => "ICECC_",
        }
    }
}

/// A launcher that a build is to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Which one it is.
    pub launcher: Launcher,
    /// Its program, a name to find in PATH or a path.
    pub program: String,
}

impl From<Launcher> for Launch {
    fn from(launcher: Launcher) -> Launch {
        Launch { launcher, program: launcher.name().to_owned() }
    }
}

/// A launcher that was found, with all that a call needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ready {
    launcher: Launcher,
    program: PathBuf,
    /// Variables that a call has otherwise than the build; none where it lacks one.
    environment: Vec<(OsString, Option<OsString>)>,
    /// What the compiler calls itself in what it makes.
    ident: Option<String>,
}

/// Where a user's settings, caches and sockets are looked for.
const PLACES: &[&str] = &["HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"];

/// Settings of ccache under which it might give another result than the compiler, or send source away unsaid. Names of
/// files are not made relative, the folder counts, no option, header or time is overlooked, the compiler is the one that
/// is called, and no other launcher comes after it.
const STRICT: &[(&str, &str)] = &[
    ("CCACHE_BASEDIR", ""),
    ("CCACHE_HASHDIR", "1"),
    ("CCACHE_SLOPPINESS", ""),
    ("CCACHE_IGNOREOPTIONS", ""),
    ("CCACHE_IGNOREHEADERS", ""),
    ("CCACHE_COMPILER", ""),
    ("CCACHE_COMPILERTYPE", "auto"),
    ("CCACHE_PREFIX", ""),
    ("CCACHE_PREFIX_CPP", ""),
];

/// Options under which a compilation writes more than an object and dependencies, or means another language by a
/// name, or is not that of one source into an object.
const BESIDES: &[&str] = &[
    "-x",
    "@",
    "-save-temps",
    "--save-temps",
    "-fprofile",
    "-ftest-coverage",
    "--coverage",
    "-fcallgraph-info",
    "-fstack-usage",
    "-gsplit-dwarf",
    "-flto",
    "-fdump",
    "-dump",
    "-Wp,",
];

/// Warnings that the front end does not give where a macro's expansion causes them. Other machines get preprocessed
/// text, without macros.
const OF_MACROS: &[&str] = &["[-Wtautological-compare]"];

fn is_warning(line: &str) -> bool {
    line.contains("warning: ")
}

fn is_of_macros(line: &str) -> bool {
    OF_MACROS.iter().any(|kind| line.contains(kind))
}

impl Ready {
    /// `tools` identifies the compiler with all its parts: ccache alone looks at the driver, and not at what that starts.
    pub(crate) fn new(launcher: Launcher, program: PathBuf, ident: Option<String>, tools: &str) -> Ready {
        let mut environment: Vec<(OsString, Option<OsString>)> =
            PLACES.iter().map(|name| (OsString::from(name), std::env::var_os(name))).collect();
        let own = |name: &OsStr| name.as_encoded_bytes().starts_with(launcher.prefix().as_bytes());
        let mut given: Vec<_> = std::env::vars_os().filter(|(name, _)| own(name)).collect();
        given.sort();
        environment.extend(given.into_iter().map(|(name, value)| (name, Some(value))));
        if launcher == Launcher::Ccache {
            environment.extend(STRICT.iter().map(|(name, value)| (name.into(), Some(value.into()))));
            let check = format!("string:{}", blake3::hash(tools.as_bytes()).to_hex());
            environment.push(("CCACHE_COMPILERCHECK".into(), Some(check.into())));
        }
        Ready { launcher, program, environment, ident }
    }

    /// Compiles `source` as `real` does with `args`, and lets the assembler list in `assembled` what it reads.
    ///
    /// None where `real` has to be called: the launcher is not for this call, or it failed.
    pub(crate) fn compile(
        &self,
        real: &Path,
        args: &[OsString],
        (source, output): (&str, &str),
        assembled: &Path,
    ) -> std::io::Result<Option<Passed>> {
        let sources = args.iter().filter(|arg| *arg == source).count();
        if !source.ends_with(".c") || sources != 1 || !args.iter().all(is_plain) {
            return Ok(None);
        }
        let call = Call { ready: self, real, args, source, output, assembled };
        let text = std::env::temp_dir().join(format!(".{}.text.s", crate::wrapper::unique()));
        let done = match self.launcher {
            Launcher::Sccache => call.whole(&text),
            _ => call.by_text(&text),
        };
        match fs::remove_file(&text) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        match done? {
            Ok(passed) => Ok(Some(passed)),
            Err(why) => {
                if let Some(why) = why {
                    let name = self.launcher.name();
                    // Standard error is the build's log here.
                    writeln!(std::io::stderr(), "xsplice: {source} is compiled without {name}: {why}")?;
                }
                Ok(None)
            }
        }
    }
}

fn is_plain(arg: &OsString) -> bool {
    let arg = arg.as_encoded_bytes();
    !BESIDES.iter().any(|option| arg.starts_with(option.as_bytes()))
}

/// One compilation.
struct Call<'a> {
    ready: &'a Ready,
    real: &'a Path,
    args: &'a [OsString],
    source: &'a str,
    output: &'a str,
    assembled: &'a Path,
}

/// What the compiler said, or why it has to be called without the launcher; no words where that is no news.
type Done = std::io::Result<Result<Passed, Option<String>>>;

impl Call<'_> {
    fn launch(&self, args: Vec<OsString>) -> std::io::Result<Passed> {
        let mut all = vec![self.real.as_os_str().to_owned()];
        all.extend(args);
        pass_through(&self.ready.program, &all, &self.ready.environment)
    }

    /// From C to text by the launcher, from text to the object here.
    fn by_text(&self, text: &Path) -> Done {
        let mut to_text = self.to_text(text);
        let elsewhere = self.ready.launcher.sends_source();
        if elsewhere {
            to_text.push("-Wno-error".into());
        }
        let mut launched = self.launch(to_text)?;
        if launched.code != 0 {
            return Ok(Err(Some(how_it_ended(&launched))));
        }
        if elsewhere {
            let said = String::from_utf8_lossy(&launched.stderr).into_owned();
            if let Some(warning) = said.lines().find(|line| is_warning(line) && !is_of_macros(line)) {
                return Ok(Err(Some(format!("there it has a warning: {warning}"))));
            }
            if said.lines().any(is_warning) && !self.is_fine_here()? {
                return Ok(Err(Some("here it has a warning".to_owned())));
            }
            launched.stderr.clear();
        }
        let Ok(made) = std::fs::read(text) else { return Ok(Err(Some("it made nothing".to_owned()))) };
        let made_by = ident(&made);
        if made_by != self.ready.ident {
            let name = |ident: &Option<String>| ident.clone().unwrap_or_else(|| "nobody".to_owned());
            let (one, other) = (name(&made_by), name(&self.ready.ident));
            return Ok(Err(Some(format!("it was made by {one}, and not by {other}"))));
        }
        let mut args = self.without_outputs();
        for arg in args.iter_mut().filter(|arg| *arg == self.source) {
            *arg = text.as_os_str().to_owned();
        }
        args.extend(["-c".into(), "-o".into(), self.output.into()]);
        args.push(format!("-Wa,--MD,{}", self.assembled.display()).into());
        let mut passed = pass_through(self.real, &args, &[])?;
        if passed.code != 0 {
            return Ok(Err(Some("its text does not assemble".to_owned())));
        }
        passed.stderr.splice(0..0, launched.stderr);
        Ok(Ok(passed))
    }

    /// Whether the compiler's front end has nothing against the source.
    fn is_fine_here(&self) -> std::io::Result<bool> {
        let mut args = self.without_outputs();
        args.push("-fsyntax-only".into());
        let passed = pass_through(self.real, &args, &[])?;
        Ok(passed.code == 0 && passed.stderr.is_empty())
    }

    /// The arguments for the step to text: another output, and the same name for it in what make reads.
    fn to_text(&self, text: &Path) -> Vec<OsString> {
        let mut args = Vec::new();
        let mut words = self.args.iter();
        let (mut named, mut listed) = (false, false);
        while let Some(word) = words.next() {
            named |= word == "-MQ" || word == "-MT";
            listed |= word == "-MF";
            if word == "-o" {
                words.next();
                args.extend(["-o".into(), text.as_os_str().to_owned()]);
            } else {
                args.push(if word == "-c" { "-S".into() } else { word.clone() });
            }
        }
        if listed && !named {
            args.extend(["-MQ".into(), self.output.into()]);
        }
        args
    }

    /// The whole compilation by the launcher.
    fn whole(&self, text: &Path) -> Done {
        let mut preprocess = self.without_outputs();
        preprocess.extend(["-E".into(), "-o".into(), text.as_os_str().to_owned()]);
        if pass_through(self.real, &preprocess, &[])?.code != 0 || may_read_more(&fs::read(text)?) {
            return Ok(Err(None));
        }
        let passed = self.launch(self.args.to_vec())?;
        if passed.code != 0 {
            return Ok(Err(Some(how_it_ended(&passed))));
        }
        fs::write(self.assembled, b"")?;
        Ok(Ok(passed))
    }

    /// The arguments without what says where results go.
    fn without_outputs(&self) -> Vec<OsString> {
        let mut kept = Vec::new();
        let mut words = self.args.iter();
        while let Some(word) = words.next() {
            match word.as_encoded_bytes() {
                b"-MF" | b"-MQ" | b"-MT" | b"-o" => {
                    words.next();
                }
                b"-c" | b"-MMD" | b"-MD" | b"-MP" => {}
                _ => kept.push(word.clone()),
            }
        }
        kept
    }
}

/// How a launcher failed, with the last that it said.
fn how_it_ended(passed: &Passed) -> String {
    let said = String::from_utf8_lossy(&passed.stderr);
    let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("nothing");
    format!("it ended with exit code {} and said {}", passed.code, last.trim())
}

/// What a compiler calls itself at the end of its assembler text.
pub(crate) fn ident(text: &[u8]) -> Option<String> {
    let lines = text.rsplit(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let mut idents = lines.filter_map(|line| line.strip_prefix(b".ident"));
    idents.next().map(|rest| String::from_utf8_lossy(rest.trim_ascii()).trim_matches('"').to_owned())
}

/// Whether the assembler may read more than a preprocessed text: directives may be put together from strings.
fn may_read_more(text: &[u8]) -> bool {
    let mut joined: Vec<u8> = Vec::with_capacity(text.len());
    for line in text.split(|&byte| byte == b'\n') {
        if line.first() != Some(&b'#') {
            joined.extend(line.iter().filter(|&&byte| byte != b'"' && !byte.is_ascii_whitespace()));
        }
    }
    let holds = |word: &[u8]| joined.windows(word.len()).any(|window| window == word);
    [&b".include"[..], b".incbin", b".\\\\"].into_iter().any(holds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    fn call<'a>(ready: &'a Ready, args: &'a [OsString]) -> Call<'a> {
        Call {
            ready,
            real: Path::new("gcc"),
            args,
            source: "d/a.c",
            output: "d/a.o",
            assembled: Path::new("/m"),
        }
    }

    #[test]
    fn only_the_step_to_text_is_launched_and_dependencies_keep_their_target() {
        let ready = Ready::new(Launcher::Ccache, "ccache".into(), None, "tools");
        let args = words("-MMD -MP -MF d/.a.d -O2 -c d/a.c -o d/a.o");
        let text = call(&ready, &args).to_text(Path::new("/t/x.s"));
        assert_eq!(text, words("-MMD -MP -MF d/.a.d -O2 -S d/a.c -o /t/x.s -MQ d/a.o"));
        let args = words("-MMD -MF d/.a.d -c d/a.c -o d/.a.o.tmp -MQ d/a.o");
        let text = call(&ready, &args).to_text(Path::new("/t/x.s"));
        assert_eq!(text, words("-MMD -MF d/.a.d -S d/a.c -o /t/x.s -MQ d/a.o"));
        assert_eq!(call(&ready, &args).without_outputs(), words("d/a.c"));
    }

    #[test]
    fn calls_that_write_more_than_an_object_are_left_alone() {
        let ready = Ready::new(Launcher::Distcc, "/no/such/program".into(), None, "tools");
        for more in
            ["-x c", "-save-temps=obj", "-fprofile-arcs", "-ftest-coverage", "-flto", "-Wp,-MD,x", "@f"]
        {
            let args = words(&format!("{more} -c d/a.c -o d/a.o"));
            let done = ready.compile(Path::new("gcc"), &args, ("d/a.c", "d/a.o"), Path::new("/m"));
            assert!(done.unwrap().is_none(), "{more}");
        }
        let assembler = words("-c d/a.S -o d/a.o");
        let done = ready.compile(Path::new("gcc"), &assembler, ("d/a.S", "d/a.o"), Path::new("/m"));
        assert!(done.unwrap().is_none());
        assert!(words("-O2 -g -Wa,-Iinclude -mindirect-branch=thunk-extern").iter().all(is_plain));
    }

    #[test]
    fn whatever_can_let_the_assembler_read_more_is_seen() {
        for text in [
            "asm (\".include \\\"x\\\"\");",
            "asm (\".inc\" \"lude \\\"x\\\"\");",
            "asm (\".inc\"\n# 3 \"a.c\"\n  \"bin \\\"x\\\"\");",
            "asm (\".macro m a; .\\\\a \\\"x\\\"; .endm\");",
        ] {
            assert!(may_read_more(text.as_bytes()), "{text}");
        }
        assert!(!may_read_more(b"# 1 \".include\"\nint f(void) { asm (\"nop\"); return 1; }\n"));
    }

    #[test]
    fn the_compiler_names_itself_at_the_end_of_its_text() {
        let text = b"\t.ident\t\"in a string\"\nf:\n\tret\n\t.ident\t\"GCC: (D) 12.2.0\"\n\t.section x\n";
        assert_eq!(ident(text).as_deref(), Some("GCC: (D) 12.2.0"));
        assert_eq!(ident(b"f:\n\tret\n"), None);
    }

    #[test]
    fn a_launcher_has_the_users_places_and_ccache_is_strict() {
        let value = |ready: &Ready, name: &str| {
            let last = ready.environment.iter().rev().find(|(known, _)| known == name);
            last.map(|(_, value)| value.clone())
        };
        let ccache = Ready::new(Launcher::Ccache, "ccache".into(), None, "tools");
        assert_eq!(value(&ccache, "HOME"), Some(std::env::var_os("HOME")));
        for name in ["CCACHE_SLOPPINESS", "CCACHE_PREFIX"] {
            assert_eq!(value(&ccache, name), Some(Some("".into())), "{name}");
        }
        let distcc = Ready::new(Launcher::Distcc, "distcc".into(), None, "tools");
        assert_eq!(value(&distcc, "CCACHE_SLOPPINESS"), None);
        assert_eq!(value(&distcc, "TMPDIR"), Some(std::env::var_os("TMPDIR")));
    }

    #[test]
    fn each_has_its_name_and_two_send_source_away() {
        for launcher in Launcher::ALL {
            assert_eq!(Launcher::named(launcher.name()), Some(launcher));
        }
        assert_eq!(Launcher::named("gcc"), None);
        let sends: Vec<_> = Launcher::ALL.into_iter().filter(|launcher| launcher.sends_source()).collect();
        assert_eq!(sends, [Launcher::Distcc, Launcher::Icecc]);
    }
}
