//! What the command says when it is not given what it needs: text and exit code. No Xen tree is needed.

mod desk;

use std::fs;

use desk::xsplice;

/// A folder with a patch, a configuration, a tree that is none, and files that are not what they should be.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("a file");
    write("fix.patch", "--- a/xen/common/a.c\n+++ b/xen/common/a.c\n@@ -1 +1 @@\n-int a;\n+int b;\n");
    write("config", "CONFIG_LIVEPATCH=y\n");
    write("words", "not an ELF file\n");
    fs::create_dir(dir.path().join("tree")).expect("a folder");
    dir
}

const ID: &str = "39a640e6f1412319235087391df9f1c5e13ae920";

#[test]
fn each_mistake_has_its_message_and_code() {
    let dir = folder();
    let build = ["build", "-s", "tree", "-c", "config", "-o", "out"];
    let ids = ["--depends", ID, "--xen-depends", ID];
    let with = |more: &[&'static str]| [&build[..], more].concat();
    let cases: Vec<(Vec<&str>, i32, &str)> = vec![
        (vec![], 1, "Usage: xsplice"),
        (vec!["frobnicate"], 1, "unrecognized subcommand 'frobnicate'"),
        (build.to_vec(), 1, "--patch <PATCH>"),
        (with(&["-p", "-"]), 1, "error: a patch from standard input has no name [usage]"),
        (with(&["-p", "-", "-p", "-"]), 1, "error: standard input can be read once only [usage]"),
        (with(&["-p", "-", "--make-var", "X"]), 1, "it has no `=`: NAME=VALUE"),
        (with(&["-p", "-", "--make-var", "1X=y"]), 1, "the name of a variable has letters, digits and _"),
        (
            with(&["-p", "-", "--make-var", "CC=clang"]),
            1,
            "CC is xsplice's to set; --cc chooses the compiler",
        ),
        (
            with(&["-p", "-", "--make-var", "HOSTCC=clang"]),
            1,
            "HOSTCC is xsplice's to set; --host-cc chooses",
        ),
        (with(&["-p", "-", "--make-var", "KCONFIG_CONFIG=x"]), 1, "--config gives the configuration"),
        (
            with(&["-p", "-", "--make-var", "XEN_TARGET_ARCH=arm64"]),
            1,
            "payloads are made for x86_64 only, not for arm64",
        ),
        (with(&["-p", "-", "--make-var", "XEN_TARGET_ARCH=x86_64"]), 1, "has no name [usage]"),
        (with(&["-p", "fix.patch", "--preset", "suse"]), 1, "possible values: debian"),
        (vec!["build", "-s", "tree", "-p", "fix.patch", "-o", "out"], 1, "--config <CONFIG>"),
        (
            [&with(&["-p", "fix.patch", "--preset", "debian"])[..], &ids].concat(),
            1,
            "the packaging cannot be read",
        ),
        (with(&["-p", "-", "--launcher", "tcc"]), 1, "ccache, sccache, distcc, icecc"),
        (with(&["-p", "-", "--allow", "no-rom"]), 1, "no code is called \"no-rom\"; near are no-room"),
        (
            with(&["-p", "-", "--allow", "no-room:f"]),
            1,
            "no-room cannot be let through: there would be no payload",
        ),
        (with(&["-p", "-", "--allow", "layout-changed:"]), 1, "it has no name behind the colon"),
        (with(&["-p", "none.patch"]), 1, "error: cannot read the patch: "),
        (
            with(&["-p", "fix.patch", "--name", "a b"]),
            1,
            "error: \"a b\" cannot be the name of a payload [usage]",
        ),
        (
            with(&["-p", "fix.patch"]),
            1,
            "error: the build-id of the running hypervisor is not known [id-needed]",
        ),
        (with(&["-p", "fix.patch", "--xen-depends", ID]), 1, "--depends is needed"),
        (
            with(&["-p", "fix.patch", "--depends", "xyz"]),
            1,
            "error: --depends: \"xyz\" is no build-id [bad-id]",
        ),
        (with(&["-p", "fix.patch", "--depends", "abc"]), 1, "[bad-id]"),
        (with(&["-p", "fix.patch", "--depends", ""]), 1, "[bad-id]"),
        (with(&["-p", "fix.patch", "--on", ID, "--on", ID]), 1, "one is given by its id alone"),
        (with(&["-p", "fix.patch", "--xen-depends", "+1"]), 1, "[bad-id]"),
        (with(&["-p", "fix.patch", "--xen-syms", "none"]), 1, "error: cannot read the symbol file: "),
        (with(&["-p", "fix.patch", "--xen-syms", "words"]), 1, "[xen-syms-unreadable]"),
        ([&build[..], &["-p", "fix.patch", "-j", "0"]].concat(), 1, "invalid value '0'"),
        ([&with(&["-p", "fix.patch"])[..], &ids].concat(), 1, "error: "),
        (vec!["inspect", "none"], 1, "error: cannot read the payload: "),
        (vec!["inspect", "words"], 1, "error: "),
    ];
    for (args, code, text) in cases {
        let ran = xsplice(dir.path(), &args);
        assert_eq!(ran.code, code, "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(text), "{args:?} says: {}", ran.stderr);
        assert_eq!(ran.stdout, "", "{args:?}: standard output is for data");
    }
}

#[test]
fn a_compiler_that_is_not_there_is_named() {
    let dir = folder();
    let file = |path: &str, text: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    };
    file("tree/Config.mk", "");
    file("tree/xen/Makefile", "");
    file("tree/xen/common/a.c", "int a;\n");
    let ids = ["--depends", ID, "--xen-depends", ID];
    let usual = ["build", "-s", "tree", "-c", "config", "-o", "out", "-p", "fix.patch", "--cc", "gcc-3"];
    let ran = xsplice(dir.path(), &[&usual[..], &ids].concat());
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("error: gcc-3 is not there [tool-missing]"), "{}", ran.stderr);
    assert!(ran.stderr.contains("apt install gcc-3"), "{}", ran.stderr);
}

#[test]
fn a_build_id_of_65_bytes_is_too_long_and_64_are_not() {
    let dir = folder();
    let id = |bytes: usize| "ab".repeat(bytes);
    for (bytes, wrong) in [(64, false), (65, true)] {
        let id = id(bytes);
        let args = ["build", "-s", "tree", "-c", "config", "-o", "out", "-p", "fix.patch", "--depends", &id];
        assert_eq!(xsplice(dir.path(), &args).stderr.contains("[bad-id]"), wrong, "{bytes}");
    }
}

#[test]
fn an_earlier_payload_of_the_name_is_gone_after_a_failure() {
    let dir = folder();
    let out = dir.path().join("out");
    fs::create_dir(&out).expect("a folder");
    let usual = ["build", "-s", "tree", "-c", "config", "-o", "out", "-p", "fix.patch"];
    // Without ids the command line itself cannot be followed; with them the tree is no tree.
    for (more, problem) in [(&[][..], Some("id-needed")), (&["--depends", ID, "--xen-depends", ID], None)] {
        for file in ["fix.livepatch", "fix.txt"] {
            fs::write(out.join(file), "old").expect("a file");
        }
        assert_eq!(xsplice(dir.path(), &[&usual[..], more].concat()).code, 1);
        assert!(!out.join("fix.livepatch").exists() && !out.join("fix.txt").exists());
        let report = fs::read_to_string(out.join("report.json")).expect("a report for every outcome");
        let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
        assert_eq!(report["outcome"], "failed");
        assert_eq!(report["exit_code"], 1);
        let problems = report["problems"].as_array().expect("a list");
        assert!(problems.iter().any(|one| problem.is_none_or(|code| one["code"] == code)), "{problems:?}");
    }
}

#[test]
fn no_input_is_overwritten() {
    let dir = folder();
    let out = dir.path().join("out");
    fs::create_dir(&out).expect("a folder");
    for file in ["fix.txt", "report.json", "fix.livepatch"] {
        let input = out.join(file);
        fs::copy(dir.path().join("fix.patch"), &input).expect("a copy");
        let path = input.to_string_lossy();
        let args = ["build", "-s", "tree", "-c", "config", "-o", "out", "--name", "fix", "-p", &path];
        for more in [&[][..], &["--depends", ID, "--xen-depends", ID]] {
            let ran = xsplice(dir.path(), &[&args[..], more].concat());
            assert_eq!(ran.code, 1, "{}", ran.stderr);
            assert!(
                ran.stderr.contains("error: one of the inputs has the name of an output [usage]"),
                "{}",
                ran.stderr
            );
            assert!(ran.stderr.contains(file), "{}", ran.stderr);
            assert!(input.is_file(), "{file} is lost");
        }
    }
}

#[test]
fn warnings_about_patches_are_kept_where_there_is_nothing_to_build() {
    let dir = folder();
    for (name, text) in
        [("tree/xen/Makefile", ""), ("tree/Config.mk", ""), ("tree/docs/a", "1\n2\n3\n4\n5\n6\n7\n")]
    {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    let patch = "--- a/docs/a\n+++ b/docs/a\n@@ -4,3 +4,3 @@\n 2\n-3\n+three\n 4\n";
    fs::write(dir.path().join("fix.patch"), patch).expect("a patch");
    let usual = ["build", "-s", "tree", "-c", "config", "-o", "out", "-p", "fix.patch"];
    let ran = xsplice(dir.path(), &[&usual[..], &["--depends", ID, "--xen-depends", ID]].concat());
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(ran.stderr.starts_with("warning: ") && ran.stderr.contains("[patch-offset]"), "{}", ran.stderr);
    let report = fs::read_to_string(dir.path().join("out/report.json")).expect("a report");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["problems"][0]["code"], "patch-offset", "{report}");
}

#[test]
fn version_and_help_are_no_failures() {
    let dir = folder();
    for args in [["--version"], ["--help"]] {
        let ran = xsplice(dir.path(), &args);
        assert_eq!(ran.code, 0);
        assert!(ran.stdout.contains("xsplice") || ran.stdout.contains("live patch"), "{}", ran.stdout);
    }
}

#[test]
fn a_code_is_explained() {
    let dir = folder();
    let ran = xsplice(dir.path(), &["explain", "no-room"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let text = "\
no-room (refusal): The shipped function is too short to hold the jump.
cause: The jump to the new code takes 5 bytes, and 4 more where the function starts with ENDBR64.
  The shipped function is shorter: the jump would overwrite what follows it.
example: `int get_zero(void) { return 0; }` can compile to 3 bytes.
way out: change its callers in the patch, so that they call a new function instead.
";
    assert_eq!(ran.stdout, text);
    // As a message has it, and two of them with a line between.
    let both = xsplice(dir.path(), &["explain", "[no-room]", "no-room"]).stdout;
    assert_eq!(both, format!("{text}\n{text}"));
    let ran = xsplice(dir.path(), &["explain", "no-room", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(json[0]["code"], "no-room");
    assert_eq!(json[0]["kind"], "refusal");
    assert_eq!(
        json[0]["way_out"],
        "change its callers in the patch, so that they call a new function instead."
    );
}

#[test]
fn all_codes_are_listed_with_their_kinds() {
    let dir = folder();
    let released = include_str!("codes.txt").lines().filter(|line| !line.starts_with('#'));
    let released: Vec<(&str, &str)> = released
        .map(|line| line.split_once(": ").expect("a summary"))
        .map(|(name, summary)| (name.split_once(" (").expect("a kind").0, summary))
        .collect();
    let ran = xsplice(dir.path(), &["explain", "--list"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let listed: Vec<(&str, &str)> = ran
        .stdout
        .lines()
        .map(|line| line.split_once(' ').expect("a code"))
        .map(|(name, rest)| (name, rest.trim_start().split_once(' ').expect("a kind").1.trim_start()))
        .collect();
    assert_eq!(listed, released);
    assert!(ran.stdout.lines().any(|line| line.starts_with("lines-moved ") && line.contains(" warning  ")));
    let json: serde_json::Value =
        serde_json::from_str(&xsplice(dir.path(), &["explain", "--list", "--json"]).stdout).expect("JSON");
    assert_eq!(json.as_array().expect("a list").len(), released.len());
}

#[test]
fn an_unknown_code_leads_to_the_nearest_ones() {
    let dir = folder();
    let ran = xsplice(dir.path(), &["explain", "layout-chnaged"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.starts_with("error: no code is called \"layout-chnaged\" [usage]"), "{}", ran.stderr);
    assert!(ran.stderr.contains("do: Near are layout-changed"), "{}", ran.stderr);
    let ran = xsplice(dir.path(), &["explain", "qqqqqqqqqqqq"]);
    assert!(ran.code == 1 && ran.stderr.contains("do: `xsplice explain --list` lists all codes."));
    assert_eq!(xsplice(dir.path(), &["explain"]).code, 1);
}

#[test]
fn kept_builds_are_listed_and_removed() {
    let dir = folder();
    let said = |args: &[&str]| {
        let ran = xsplice(dir.path(), args);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{args:?}");
        ran.stdout
    };
    assert_eq!(said(&["cache", "path"]), format!("{}\n", dir.path().join("cache").display()));
    assert_eq!(said(&["cache", "list"]), "");
    let build = dir.path().join("cache/bases/0123");
    fs::create_dir_all(build.join("tmp")).expect("a folder");
    fs::write(build.join("a.o"), vec![0; 1_500_000]).expect("a file");
    // A run that holds no lock left it, and did not finish it.
    let line = "0123, 2 MB, used within the hour, not usable: it will be made anew";
    assert_eq!(said(&["cache", "list"]), format!("{line}\n"));
    let json: serde_json::Value = serde_json::from_str(&said(&["--json", "cache", "list"])).expect("JSON");
    assert_eq!(json[0]["bytes"], 1_500_000);
    assert_eq!(said(&["cache", "clear"]), format!("removed {line}\n"));
    assert!(!build.exists());
    assert_eq!(said(&["cache", "clear"]), "");
}

/// A tree whose make does what `configure` says, and then fails.
fn tree_that_fails(folder: &std::path::Path, configure: &str) {
    let file = |path: &str, text: &str| {
        let path = folder.join("tree").join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    };
    file("Config.mk", "");
    file("xen/Makefile", &format!("olddefconfig:\n\t{configure}\n"));
    file("xen/common/a.c", "int a;\n");
}

const BUILD: [&str; 13] = [
    "build",
    "-s",
    "tree",
    "-c",
    "config",
    "-o",
    "out",
    "-p",
    "fix.patch",
    "--depends",
    ID,
    "--xen-depends",
    ID,
];

#[test]
fn without_a_cache_nothing_is_kept() {
    let dir = folder();
    tree_that_fails(dir.path(), "pwd > $(FOUND); false");
    let found = dir.path().join("found");
    let ran = xsplice(
        dir.path(),
        &[&BUILD[..], &["--no-cache", "--make-var", &format!("FOUND={}", found.display())]].concat(),
    );
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("[make-failed]"), "{}", ran.stderr);
    let place = fs::read_to_string(&found).expect("make was called");
    let place = std::path::Path::new(place.trim());
    assert!(place.ends_with("tree/xen") && !place.exists(), "{}", place.display());
    // .../xsplice-XXXXXX/bases/KEY/tree/xen
    let folder = place.ancestors().nth(4).expect("a folder");
    let name = folder.file_name().expect("a name").to_string_lossy();
    assert!(name.starts_with("xsplice-") && !folder.exists(), "{}", folder.display());
    assert!(!dir.path().join("cache").exists());
}

#[test]
fn without_a_cache_a_killed_run_keeps_nothing() {
    for signal in ["INT", "TERM", "KILL"] {
        let dir = folder();
        tree_that_fails(dir.path(), "pwd > $(FOUND).new; mv $(FOUND).new $(FOUND); sleep 60");
        let found = dir.path().join("found");
        let mut run = std::process::Command::new(env!("CARGO_BIN_EXE_xsplice"))
            .args(BUILD)
            .args(["--no-cache", "--make-var", &format!("FOUND={}", found.display())])
            .current_dir(dir.path())
            .env("XSPLICE_CACHE", dir.path().join("cache"))
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("it starts");
        let wait = |what: &str, done: &dyn Fn() -> bool| {
            let began = std::time::Instant::now();
            while !done() {
                assert!(began.elapsed().as_secs() < 20, "{signal}: {what}");
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        };
        wait("make was not called", &|| found.is_file());
        let place = fs::read_to_string(&found).expect("a path");
        let place = std::path::Path::new(place.trim()).ancestors().nth(4).expect("a folder").to_owned();
        assert!(place.is_dir());
        let killed = std::process::Command::new("kill").args(["-s", signal, &run.id().to_string()]).status();
        assert!(killed.expect("kill").success());
        run.wait().expect("it ends");
        wait("the folder is still there", &|| !place.exists());
    }
}

#[test]
fn kept_builds_over_the_limit_go_after_a_run() {
    let dir = folder();
    tree_that_fails(dir.path(), "false");
    let bases = dir.path().join("cache/bases");
    let make = |key: &str, age: u64| {
        fs::create_dir_all(bases.join(key).join("tmp")).expect("a folder");
        fs::write(bases.join(key).join("a.o"), vec![0; 1 << 20]).expect("a file");
        let time = std::time::SystemTime::now() - std::time::Duration::from_secs(age);
        let tmp = fs::File::open(bases.join(key).join("tmp")).expect("a folder");
        tmp.set_times(fs::FileTimes::new().set_modified(time)).expect("a time");
    };
    make("old", 7200);
    make("new", 3600);
    let has = |key: &str| bases.join(key).is_dir();
    assert_eq!(xsplice(dir.path(), &BUILD).code, 1);
    assert!(has("old") && has("new"), "they fit");
    let ran = xsplice(dir.path(), &[&BUILD[..], &["--cache-limit", "1500K"]].concat());
    assert!(!has("old") && has("new"), "{}", ran.stderr);
    let ran = xsplice(dir.path(), &[&BUILD[..], &["--cache-limit", "0"]].concat());
    assert!(!has("new"), "{}", ran.stderr);
    for (args, text) in [
        (&["--cache-limit", "1X"][..], "X is no unit"),
        (&["--cache-limit", "1G", "--no-cache"][..], "cannot be used with"),
    ] {
        let ran = xsplice(dir.path(), &[&BUILD[..], args].concat());
        assert!(ran.code == 1 && ran.stderr.contains(text), "{}", ran.stderr);
    }
    let run = std::process::Command::new(env!("CARGO_BIN_EXE_xsplice"))
        .args(BUILD)
        .current_dir(dir.path())
        .env("XSPLICE_CACHE", dir.path().join("cache"))
        .env("XSPLICE_CACHE_LIMIT", "much")
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.code() == Some(1) && said.contains("XSPLICE_CACHE_LIMIT=much"), "{said}");
}
