//! Compiles and links fixtures.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// What Xen 4.17's build gives gcc for an object of the hypervisor proper, as far as it shapes code.
const FLAGS: &[&str] = &[
    "-O2",
    "-g",
    "-m64",
    "-std=gnu99",
    "-nostdinc",
    "-fno-builtin",
    "-fno-common",
    "-fno-strict-aliasing",
    "-fomit-frame-pointer",
    "-ffunction-sections",
    "-fdata-sections",
    "-fno-jump-tables",
    "-fno-stack-protector",
    "-fno-exceptions",
    "-fno-asynchronous-unwind-tables",
    "-fno-pie",
    "-fpic",
    "-msoft-float",
    "-mno-red-zone",
    "-mno-mmx",
    "-mno-sse",
    "-mskip-rax-setup",
    "-mpreferred-stack-boundary=3",
    "-Wall",
    "-Wno-unused-function",
];

/// A directory in which one fixture is compiled, always under the same names.
pub struct Toolchain<'f> {
    folder: TempDir,
    source: &'f Path,
    flags: &'f [String],
}

impl<'f> Toolchain<'f> {
    /// A new one for a source.
    pub fn new(source: &'f Path, flags: &'f [String]) -> Toolchain<'f> {
        Toolchain { folder: tempfile::tempdir().expect("a temporary directory"), source, flags }
    }

    /// Compiles the fixture.
    pub fn compile(&self, extra: &[&str]) -> Result<Vec<u8>, String> {
        let name = self.source.file_name().expect("a file name");
        self.compile_as(self.source, Path::new(name), extra)
    }

    /// Compiles a source under another name, which becomes that of its FILE symbol.
    pub fn compile_as(&self, source: &Path, name: &Path, extra: &[&str]) -> Result<Vec<u8>, String> {
        let folder = self.folder.path();
        let fixtures = self.source.parent().expect("a directory");
        std::fs::copy(source, folder.join(name)).map_err(|e| format!("{}: {e}", source.display()))?;
        let object = folder.join("out.o");
        let mut gcc = Command::new("gcc");
        gcc.current_dir(folder).arg("-I").arg(fixtures.join("common")).args(FLAGS).args(self.flags);
        run(gcc.args(extra).arg("-c").arg(name).arg("-o").arg(&object))?;
        std::fs::read(&object).map_err(|e| format!("{}: {e}", object.display()))
    }

    /// Links objects the way Xen's linker script arranges them.
    pub fn link(&self, objects: &[&[u8]]) -> Result<Vec<u8>, String> {
        let folder = self.folder.path();
        let script = self.source.parent().expect("a directory").join("common/hypervisor.ld");
        let image = folder.join("image");
        let mut ld = Command::new("ld");
        ld.args(["-nostdlib", "--build-id=sha1", "-z", "noexecstack", "--no-warn-rwx-segments"]);
        ld.arg("-T").arg(script).arg("-o").arg(&image);
        for (number, object) in objects.iter().enumerate() {
            let file = folder.join(format!("{number}.o"));
            std::fs::write(&file, object).map_err(|e| format!("{}: {e}", file.display()))?;
            ld.arg(file);
        }
        run(&mut ld)?;
        std::fs::read(&image).map_err(|e| format!("{}: {e}", image.display()))
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("cannot start {command:?}: {e}"))?;
    if output.status.success() && output.stderr.is_empty() {
        return Ok(());
    }
    Err(format!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
}
