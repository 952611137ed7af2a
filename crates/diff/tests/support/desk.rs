//! A folder with what sources include and hypervisors are linked by.

use std::path::{Path, PathBuf};

use crate::toolchain::Toolchain;

pub struct Desk(pub tempfile::TempDir);

impl Desk {
    pub fn new() -> Desk {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let common = folder.path().join("common");
        std::fs::create_dir(&common).expect("a folder");
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/common");
        for name in ["hv.h", "hypervisor.ld", "others.c"] {
            std::fs::copy(from.join(name), common.join(name)).expect("a copy");
        }
        Desk(folder)
    }

    pub fn source(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).expect("a source");
        path
    }

    /// An object of a source of that name, in whatever folder.
    pub fn compile(&self, name: &str, text: &str, flags: &[&str]) -> Vec<u8> {
        let source = self.source(name, text);
        let flags = [flags, &["-frandom-seed=1"]].concat();
        Toolchain::new(&source, &[]).compile(&flags).expect("it compiles")
    }

    /// A hypervisor of objects in that order, with the others behind them.
    pub fn image(&self, objects: &[&[u8]]) -> Vec<u8> {
        let others = std::fs::read_to_string(self.0.path().join("common/others.c")).expect("a source");
        let others = self.compile("others.c", &others, &[]);
        let source = self.source("link.c", "");
        let all: Vec<&[u8]> = objects.iter().copied().chain([&others[..]]).collect();
        Toolchain::new(&source, &[]).link(&all).expect("it links")
    }
}
