//! Builds with a program in front of the compiler.

use std::sync::OnceLock;

use libtest_mimic::{Completion, Failed};
use xsplice_build::{Launch, Launcher, Way};

use super::*;

/// A program in the place of a launcher: a shell script that gets the compiler and its arguments.
fn fake(lab: &Lab, text: &str) -> String {
    let program = lab.root.join("launcher");
    put(&program, &format!("#!/bin/sh\n{}\n", text.replace("ROOT", lab.root.to_str().unwrap())));
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program.display().to_string()
}

fn with(lab: &Lab, launcher: Launcher, program: &str, patches: &[String]) -> Result<CapturedBuild, Problems> {
    let mut request = lab.request(patches);
    request.launcher = Some(Launch { launcher, program: program.to_owned() });
    run(request, &Silent)
}

/// Path of an object, before and after.
pub(crate) type Pair = (String, Option<Vec<u8>>, Option<Vec<u8>>);

fn objects(built: &CapturedBuild) -> Vec<Pair> {
    let all = built.objects.iter();
    all.map(|object| (object.path.clone(), object.base.clone(), object.patched.clone())).collect()
}

/// All objects of the original.
fn originals(built: &CapturedBuild) -> Vec<Vec<u8>> {
    built.base_objects.list().iter().map(|one| built.base_objects.read(&one.path).unwrap()).collect()
}

/// What a build without any launcher gives.
fn without() -> &'static (Vec<Pair>, Vec<Vec<u8>>) {
    static WITHOUT: OnceLock<(Vec<Pair>, Vec<Vec<u8>>)> = OnceLock::new();
    WITHOUT.get_or_init(|| {
        let lab = Lab::new();
        let built = lab.run(&patches()).unwrap();
        (objects(&built), originals(&built))
    })
}

fn patches() -> [String; 2] {
    [one_line(), edit("xen/include/xen/s.h", "int a;", "unsigned a;")]
}

/// A build with such a launcher and an empty cache gives what one without gives. Returns the calls that it noted in
/// `calls`, and the place.
fn same_as_without(launcher: Launcher, text: &str) -> (Lab, String) {
    let lab = Lab::new();
    let program = fake(&lab, text);
    let built = with(&lab, launcher, &program, &patches()).unwrap();
    let (pairs, all) = without();
    assert_eq!((&objects(&built), &originals(&built)), (pairs, all));
    let warned: Vec<&str> = built.warnings.iter().map(|warning| warning.code.name).collect();
    assert_eq!(warned.contains(&"source-leaves"), launcher.sends_source(), "{warned:?}");
    let calls = fs::read_to_string(lab.root.join("calls")).unwrap_or_default();
    (lab, calls)
}

pub(crate) fn a_launcher_gets_the_compiler_and_changes_nothing() {
    for launcher in Launcher::ALL {
        let (lab, calls) = same_as_without(launcher, "echo \"$@\" >> ROOT/calls\nexec \"$@\"");
        let of = |source: &str| calls.lines().filter(|call| call.contains(source)).count();
        assert!(of("common/a.c") >= 2, "{calls}");
        assert!(calls.lines().all(|call| call.starts_with('/') && call.contains("gcc ")), "{calls}");
        assert_eq!(of("entry.S"), 0, "assembler stays here");
        if launcher == Launcher::Sccache {
            assert!(calls.lines().all(|call| call.contains(" -c ")), "{calls}");
            assert_eq!(of("common/t.c"), 0, "it reads a file that no launcher knows of");
        } else {
            assert!(calls.lines().all(|call| call.contains(" -S ") && !call.contains("--MD")), "{calls}");
            assert!(of("common/t.c") >= 1, "{calls}");
        }
        // It is no part of what identifies a build, and what the assembler reads is known all the same.
        let again = lab.run(&[edit("xen/include/xen/thunk.h", "nop", "pause")]).unwrap();
        assert_eq!(paths(&again), ["xen/common/t.o"]);
        let bases = fs::read_dir(lab.root.join("cache/bases")).unwrap();
        assert_eq!(bases.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count(), 1);
    }
}

pub(crate) fn what_a_launcher_cannot_do_the_compiler_does() {
    for launcher in [Launcher::Ccache, Launcher::Sccache] {
        same_as_without(launcher, "case \"$*\" in *common/a.c*) exit 1;; esac\nexec \"$@\"");
    }
    same_as_without(Launcher::Ccache, "exit 0");
    same_as_without(Launcher::Distcc, "echo broken >&2\nexit 3");
}

/// Another machine gets text without macros, and warns of what nobody warns of here. Other warnings may be errors.
pub(crate) fn warnings_of_preprocessed_text_are_checked_here() {
    for (kind, without) in [("tautological-compare", 0), ("unused", 1)] {
        let text = format!(
            "case \"$*\" in *common/a.c*) echo 'a.c:1:1: warning: x [-W{kind}]' >&2;; esac\nexec \"$@\""
        );
        let (lab, _) = same_as_without(Launcher::Distcc, &text);
        let log = fs::read_to_string(lab.root.join("logs/base-build.log")).unwrap();
        assert_eq!(log.matches("common/a.c is compiled without distcc").count(), without, "{log}");
    }
    // What the front end says here counts.
    let lab = Lab::new();
    let makefile = fs::read_to_string(lab.root.join("tree/xen/Makefile")).unwrap();
    put(&lab.root.join("tree/xen/Makefile"), &makefile.replace("-O2", "-O2 -Wall -Werror"));
    let patch = [edit("xen/common/a.c", "return 2", "int x = 2; return x == x")];
    let program = fake(&lab, "exec \"$@\"");
    let problem = only(with(&lab, Launcher::Distcc, &program, &patch));
    assert_eq!(problem.code.name, "compile-failed");
    assert!(problem.what.contains("self-comparison"), "{problem:?}");
}

/// What another compiler made is noticed, here one that also makes other code.
pub(crate) fn another_compilers_work_is_not_taken() {
    let other = "out=$(echo \"$*\" | sed 's/.* -o \\([^ ]*\\).*/\\1/')\n\"$@\" || exit\n\
                 sed -i 's/^\\(\\t.ident\\t\\).*/\\1\"GCC: 1.2.3\"/; s/\\$2/$77/' \"$out\"";
    same_as_without(Launcher::Distcc, other);
}

/// A cache that knows the text of a source, and nothing of what the assembler reads.
pub(crate) fn what_the_assembler_reads_is_never_stale() {
    let cache = "out=$(echo \"$*\" | sed 's/.* -o \\([^ ]*\\).*/\\1/')\n\
                 name=ROOT/kept-$(echo \"$*\" | sed 's/.* \\([^ ]*\\)[.]c .*/\\1/; s,/,-,g')\n\
                 case \"$*\" in *common/t.c*|*common/u.c*) ;; *) exec \"$@\";; esac\n\
                 [ -e $name ] || { \"$@\" && cp \"$out\" $name; } || exit\n\
                 dep=$(echo \"$*\" | sed 's/.* -MF \\([^ ]*\\).*/\\1/')\n\
                 echo \"x.o: common/${name##*-}.c\" > \"$dep\"\ncp $name \"$out\"";
    for launcher in [Launcher::Ccache, Launcher::Sccache] {
        let lab = Lab::new();
        let program = fake(&lab, cache);
        let patch = [edit("xen/include/xen/thunk.h", "nop", "pause")];
        let built = with(&lab, launcher, &program, &patch).unwrap();
        assert_eq!(objects(&built), objects(&Lab::new().run(&patch).unwrap()), "{launcher:?}");
        assert_eq!(paths(&built), ["xen/common/t.o"], "{launcher:?}");
    }
}

pub(crate) fn a_launcher_that_is_not_there_says_what_to_do() {
    let lab = Lab::new();
    let problem = only(with(&lab, Launcher::Icecc, "no-such-icecc", &[one_line()]));
    assert_eq!(problem.code.name, "tool-missing");
    assert!(problem.what.contains("no-such-icecc") && problem.advice.contains("apt install icecc."));
    // A compiler whose assembler lists nothing: one that does not know the option.
    let compiler = lab.root.join("cc");
    put(&compiler, "#!/bin/sh\ncase \"$*\" in *--MD*) exit 1;; esac\nexec gcc \"$@\"\n");
    fs::set_permissions(&compiler, fs::Permissions::from_mode(0o755)).unwrap();
    let mut request = lab.request(&[one_line()]);
    request.toolchain.cc = compiler.display().to_string();
    request.launcher = Some(Launch { launcher: Launcher::Ccache, program: fake(&lab, "exec \"$@\"") });
    assert_eq!(only(run(request, &Silent)).code.name, "launcher-unusable");
}

/// The real ccache, where it is installed.
pub(crate) fn ccache_is_used_and_gives_the_same() -> Result<Completion, Failed> {
    if std::process::Command::new("ccache").arg("--version").output().is_err() {
        let why = "ccache is not installed";
        let complete = std::env::var_os("CI").is_some_and(|ci| ci == "true");
        return if complete { Err(why.into()) } else { Ok(Completion::ignored_with(why)) };
    }
    // Settings of the user's under which another program would get the source, or the result be another one.
    let keep = "export CCACHE_DIR=ROOT/kept CCACHE_STATSLOG=ROOT/calls CCACHE_CONFIGPATH=ROOT/settings.$$\n\
                echo 'prefix_command = no-such-program' > ROOT/settings.$$\n\
                echo 'base_dir = /' >> ROOT/settings.$$\n\
                echo 'ignore_options = -D*' >> ROOT/settings.$$\n\
                echo 'ignore_headers_in_manifest = s.h' >> ROOT/settings.$$\nexec ccache \"$@\"";
    let (_, first) = same_as_without(Launcher::Ccache, keep);
    assert!(first.contains("cache_miss") && !first.contains("unsupported"), "{first}");
    // The same original in another cache folder of the same tree: another path, and another patch.
    let lab = Lab::new();
    let program = fake(&lab, keep);
    let built = with(&lab, Launcher::Ccache, &program, &[one_line()]).unwrap();
    assert_eq!(paths(&built), ["xen/common/a.o"]);
    assert!(matches!(built.way, Way::Commands { .. }), "{:?}", built.way);
    let missed = fs::read_to_string(lab.root.join("calls")).unwrap();
    fs::remove_dir_all(lab.root.join("cache")).unwrap();
    fs::remove_file(lab.root.join("calls")).unwrap();
    let again = with(&lab, Launcher::Ccache, &program, &[one_line()]).unwrap();
    assert_eq!(objects(&again), objects(&built));
    let hit = fs::read_to_string(lab.root.join("calls")).unwrap();
    assert!(missed.contains("cache_miss"), "{missed}");
    assert!(hit.contains("direct_cache_hit") && !hit.contains("cache_miss"), "{hit}");
    Ok(Completion::Completed)
}
