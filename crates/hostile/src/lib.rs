//! Every reader of files that are not ours, behind one function each: bytes in, and nothing out. Whatever the bytes are,
//! they must return, soon, and in bounded memory. The fuzz targets (`fuzz/`) and the smoke test call the same functions.

pub mod mutate;
pub mod seeds;

use std::path::PathBuf;
use std::sync::OnceLock;

use xsplice_diff::{Compared, Correlated, Input, ObjectPair, Parts};
use xsplice_dwarf::{DebugInfo, TypeKind};
use xsplice_objects::{Hypervisor, Object};
use xsplice_verify::{LoaderTraits, VerifyInput, XenSymbols, XenVersion};

/// A reader's name, what calls it, and what it is started with.
pub struct Target {
    /// As the fuzz target is called.
    pub name: &'static str,
    /// What is to survive.
    pub run: fn(&[u8]),
    /// Files that are in order.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "object", run: object, seeds: seeds::objects },
    Target { name: "payload", run: payload, seeds: seeds::payloads },
    Target { name: "patch", run: patch, seeds: seeds::patches },
    Target { name: "dwarf", run: dwarf, seeds: seeds::objects },
];

/// An object of the build, and the symbol file of a hypervisor: read by the differ, compared with itself.
pub fn object(bytes: &[u8]) {
    let _ = Object::is_32_bit(bytes);
    if let Ok(hypervisor) = Hypervisor::parse("xen-syms", bytes) {
        let _ = (hypervisor.returned_texts(), hypervisor.contents().count(), hypervisor.compilers().len());
        for symbol in hypervisor.symbols().iter().take(64) {
            let _ = (hypervisor.is_init(symbol.address), hypervisor.bytes(symbol.address, 16).is_some());
        }
    }
    if Object::parse("a.o", bytes).is_err() {
        return;
    }
    let input = Input {
        path: "xen/common/a.o",
        source: "xen/common/a.c",
        assembler: false,
        base: Some(bytes),
        patched: Some(bytes),
    };
    let Ok(pair) = ObjectPair::parse(input) else { return };
    let Ok(parts) = Parts::of(&pair) else { return };
    let _ = Compared::all(vec![Correlated::of(&parts)]);
}

/// A payload, as the verifier reads it: with a symbol file and without, for loaders of several versions, on another
/// payload and as that one; and a symbol file, as the verifier reads it.
pub fn payload(bytes: &[u8]) {
    static XEN: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    let (xen, sound) = XEN.get_or_init(seeds::hypervisor_and_payload);
    let _ = xsplice_verify::inspect(bytes);
    let _ = xsplice_verify::exported_names(bytes);
    let input = VerifyInput { payload: bytes, name: "hostile", ..VerifyInput::default() };
    let _ = xsplice_verify::verify(&input);
    for (minor, patch) in [(13, None), (17, Some(0)), (17, Some(5)), (22, None)] {
        let version = XenVersion { major: 4, minor, patch };
        let traits = Some(LoaderTraits::of(version));
        let verdict = xsplice_verify::verify(&VerifyInput { xen_syms: Some(xen), traits, ..input.clone() });
        let _ = (verdict.loader(), verdict.safe());
    }
    let below = [bytes];
    let names = ["below"];
    let upper = VerifyInput { payload: sound, below: &below, below_names: &names, ..input.clone() };
    let _ = xsplice_verify::verify(&VerifyInput { xen_syms: Some(xen), ..upper });
    if let Ok(symbols) = XenSymbols::parse(bytes) {
        let _ = (symbols.version(), symbols.has_landing_pads(), symbols.payload_area());
        for symbol in symbols.symbols().iter().take(64) {
            let _ = symbols.stable_bytes(symbol.address, symbol.size);
        }
        let _ = xsplice_verify::verify(&VerifyInput { payload: sound, xen_syms: Some(bytes), ..input });
    }
}

/// A patch, applied to the files of a small tree, whose lines then keep their numbers.
pub fn patch(bytes: &[u8]) {
    static TREE: OnceLock<PathBuf> = OnceLock::new();
    let tree = TREE.get_or_init(seeds::tree);
    xsplice_build::hostile_patch(tree, bytes);
}

/// The debug information of an object, compared with that of a sound one.
pub fn dwarf(bytes: &[u8]) {
    static SOUND: OnceLock<DebugInfo> = OnceLock::new();
    let Ok(Some(info)) = DebugInfo::read(bytes) else { return };
    let sound = SOUND.get_or_init(|| {
        let object = seeds::objects().swap_remove(0);
        DebugInfo::read(&object).expect("readable").expect("compiled with -g")
    });
    let _ = xsplice_dwarf::layout_changes(sound, &info);
    let _ = xsplice_dwarf::layout_changes(&info, sound);
    let _ = xsplice_dwarf::life(&[sound, &info], TypeKind::Struct, "holder");
    let _ = (info.sources(), info.function_line("walk"), info.variable_line("table"));
    let _ = (info.struct_layout("holder"), info.line_at(".text.walk", 3), info.line_in_section(1, 3));
}
