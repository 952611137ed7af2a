//! Every reader of files that are not ours, behind one function each: bytes in, and nothing out. Whatever the bytes are,
//! they must return, soon, and in bounded memory. The fuzz targets (`fuzz/`) and the smoke test call the same functions.

pub mod mutate;
pub mod seeds;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::OnceLock;

use xsplice_diff::{Compared, Correlated, Input, Loader, ObjectPair, Parts, Patchable, Selection, World};
use xsplice_dwarf::{DebugInfo, TypeKind};
use xsplice_objects::{Hypervisor, Object};
use xsplice_verify::{KNOWN_MINORS, LoaderTraits, PatchedObject, VerifyInput, XenSymbols, XenVersion};

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
    Target { name: "dwarf", run: dwarf, seeds: seeds::pairs },
    Target { name: "difference", run: difference, seeds: seeds::changes },
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
    let Ok(pair) = ObjectPair::parse(input(Some(bytes), Some(bytes))) else { return };
    let Ok(parts) = Parts::of(&pair) else { return };
    let _ = Compared::all(vec![Correlated::of(&parts)]);
}

/// An object of the build, before and after.
fn input<'b>(base: Option<&'b [u8]>, patched: Option<&'b [u8]>) -> Input<'b> {
    Input { path: "xen/common/a.o", source: "xen/common/a.c", assembler: false, base, patched }
}

/// A payload and a symbol file, as the verifier reads them; the input is as [`seeds::payload_input`] makes it. One byte
/// says against which symbol file, for which loader, and whether on itself. One that breaks no rule is put into an image of
/// the hypervisor, and held against the other file as the object that it was made of, or against itself.
pub fn payload(bytes: &[u8]) {
    static XEN: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    let Some((&kind, rest)) = bytes.split_first() else { return };
    let (payload, other) = seeds::split(rest);
    let (xen, sound) = XEN.get_or_init(seeds::hypervisor_and_payload);
    let _ = xsplice_verify::inspect(payload).map(|seen| xsplice_verify::render_text(&seen));
    let _ = xsplice_verify::exported_names(payload);
    let minor = (KNOWN_MINORS.start() + u32::from(kind >> 4)).min(*KNOWN_MINORS.end());
    let traits = (kind & 4 != 0).then(|| LoaderTraits::of(XenVersion { major: 4, minor, patch: None }));
    let xen_syms = [None, Some(xen.as_slice()), Some(other), Some(other)][usize::from(kind & 3)];
    let (below, names) = ([payload], ["below"]);
    let bytes = if kind & 3 == 1 && !other.is_empty() { other } else { payload };
    let objects = [PatchedObject { path: "xen/common/a.o", bytes }];
    let input = VerifyInput {
        payload,
        name: "hostile",
        xen_syms,
        traits,
        in_place: true,
        objects: Some(&objects),
        ..VerifyInput::default()
    };
    let verdict = xsplice_verify::verify(&input);
    let _ = (verdict.loader(), verdict.safe());
    if kind & 8 != 0 {
        let upper = VerifyInput { payload: sound, below: &below, below_names: &names, ..input };
        let _ = xsplice_verify::verify(&upper);
    }
    if kind & 2 != 0
        && let Ok(symbols) = XenSymbols::parse(other)
    {
        let _ = (symbols.version(), symbols.has_landing_pads(), symbols.payload_area());
        for symbol in symbols.symbols().iter().take(64) {
            let _ = symbols.stable_bytes(symbol.address, symbol.size);
        }
    }
}

/// A patch, applied to the files of a small tree, and to the text that follows it behind a NUL; their lines then keep
/// their numbers.
pub fn patch(bytes: &[u8]) {
    static TREE: OnceLock<PathBuf> = OnceLock::new();
    let tree = TREE.get_or_init(seeds::tree);
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let text = bytes.get(end + 1..).unwrap_or(seeds::SOURCE.as_bytes());
    xsplice_build::hostile_patch(tree, &bytes[..end], text);
}

/// The debug information of two objects, compared with each other; the input is as [`seeds::pair`] makes it.
pub fn dwarf(bytes: &[u8]) {
    let (first, second) = seeds::split(bytes);
    let Ok(Some(info)) = DebugInfo::read(first) else { return };
    let info = info.with_tree("/src");
    let _ = (info.sources(), info.function_line("walk"), info.variable_line("table"), info.signature("walk"));
    let _ = info.line_at(".text.walk", 3);
    for place in 0..256 {
        let _ = info.line_in_section(place / 16, place as u64 % 16);
    }
    for name in info.struct_names().iter().take(64) {
        let _ = info.struct_layout(name);
    }
    let Ok(Some(other)) = DebugInfo::read(second) else { return };
    for (base, patched) in [(&info, &other), (&other, &info)] {
        for change in xsplice_dwarf::layout_changes(base, patched) {
            let _ = xsplice_dwarf::render(&change);
        }
    }
    for name in info.struct_names().iter().take(16) {
        let _ = xsplice_dwarf::life(&[&info, &other], TypeKind::Struct, name);
    }
}

/// An object before and after a change: compared, selected from and checked; the input is as [`seeds::pair`] makes it.
pub fn difference(bytes: &[u8]) {
    static XEN: OnceLock<Hypervisor> = OnceLock::new();
    let (base, patched) = seeds::split(bytes);
    if [base, patched].iter().any(|bytes| !bytes.is_empty() && Object::parse("a.o", bytes).is_err()) {
        return;
    }
    let given = |bytes| Some(bytes).filter(|bytes: &&[u8]| !bytes.is_empty());
    let Ok(pair) = ObjectPair::parse(input(given(base), given(patched))) else { return };
    let Ok(parts) = Parts::of(&pair) else { return };
    let compared = Compared::all(vec![Correlated::of(&parts)]);
    let xen = || Hypervisor::parse("xen-syms", &seeds::hypervisor_and_payload().0).expect("it is sound");
    let hypervisor = XEN.get_or_init(xen);
    let loader = Loader { hooks: BTreeSet::new(), needs_functions: false, tables_from_upload: true };
    let world = World::bare(hypervisor, &loader);
    let selection = Selection::of(&compared, &world);
    let _ = Patchable::check(selection, &[parts], &world).is_ok();
}
