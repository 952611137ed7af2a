//! A folder with objects that gcc makes, a hypervisor linked of them, and the program run there.

#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the program said.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A folder with objects and a hypervisor made of them.
pub struct Desk(tempfile::TempDir);

/// The headers and the linker script of the small hypervisors that the differ's own tests use.
pub fn common() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../diff/tests/fixtures/common")
}

const FLAGS: &[&str] = &[
    "-O2",
    "-g",
    "-std=gnu99",
    "-nostdinc",
    "-fno-builtin",
    "-fno-common",
    "-ffunction-sections",
    "-fdata-sections",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fcf-protection=none",
    "-fpic",
    "-msoft-float",
    "-mno-red-zone",
    "-mno-mmx",
    "-mno-sse",
];

pub fn must(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs xsplice in a folder, with a cache of its own there.
pub fn xsplice(dir: &Path, args: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_xsplice"))
        .args(args)
        .current_dir(dir)
        .env("XSPLICE_CACHE", dir.join("cache"))
        .stdin(Stdio::null())
        .output()
        .expect("the program starts");
    Ran {
        code: output.status.code().expect("it ends by itself"),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Desk {
    pub fn new() -> Desk {
        Desk(tempfile::tempdir().expect("a temporary folder"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn compile(&self, source: &Path, object: &str, flags: &[&str]) {
        let mut gcc = Command::new("gcc");
        gcc.current_dir(self.path()).arg("-I").arg(common()).args(FLAGS).args(flags);
        must(gcc.args(["-frandom-seed=1", "-c"]).arg(source).args(["-o", object]));
    }

    /// Compiles a source without and with `-DPATCHED` to `orig.o` and `patched.o`, and links the first to the
    /// hypervisor `xen-syms`.
    pub fn pair(text: &str) -> Desk {
        Desk::with_flags(text, "pair.c", &[])
    }

    pub fn with_flags(text: &str, name: &str, flags: &[&str]) -> Desk {
        let desk = Desk::new();
        fs::write(desk.path().join(name), text).expect("a source");
        desk.compile(Path::new(name), "orig.o", flags);
        desk.compile(Path::new(name), "patched.o", &[flags, &["-DPATCHED"]].concat());
        fs::copy(common().join("others.c"), desk.path().join("others.c")).expect("a copy");
        desk.compile(Path::new("others.c"), "others.o", &[]);
        desk.link("xen-syms", &["orig.o", "others.o"], "--build-id=sha1");
        desk
    }

    pub fn link(&self, image: &str, objects: &[&str], id: &str) {
        let mut ld = Command::new("ld");
        ld.current_dir(self.path()).args([
            "-nostdlib",
            id,
            "-z",
            "noexecstack",
            "--no-warn-rwx-segments",
            "-T",
        ]);
        must(ld.arg(common().join("hypervisor.ld")).args(["-o", image]).args(objects));
    }

    /// Runs `xsplice diff`.
    pub fn diff(&self, args: &[&str]) -> Ran {
        self.run(&[&["diff"], args].concat())
    }

    /// Runs xsplice.
    pub fn run(&self, args: &[&str]) -> Ran {
        xsplice(self.path(), args)
    }

    pub fn both(&self, more: &[&str]) -> Ran {
        self.diff(&[&["orig.o", "patched.o"], more].concat())
    }
}
