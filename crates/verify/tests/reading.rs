//! Inspection, the hypervisor's table, and files that nobody would write.

mod common;

use common::elf::*;
use common::sample;
use xsplice_report::Outcome;
use xsplice_verify::{VerifyInput, XenSymbols, XenVersion, codes, inspect, render_text, verify};

#[test]
fn an_inspection_shows_everything() {
    let mut payload = sample::payload();
    sample::expect(&mut payload, &[0xf3, 0x0f], 0);
    let bytes = payload.write();
    let seen = inspect(&bytes).unwrap();
    assert_eq!(seen.size, bytes.len() as u64);
    assert_eq!(seen.build_id.as_deref(), Some("22".repeat(20).as_str()));
    assert_eq!(seen.depends, seen.xen_depends);
    assert_eq!(seen.depends.as_deref(), Some("11".repeat(20).as_str()));
    let metadata: Vec<_> = seen.metadata.iter().map(|m| (m.key.as_str(), m.value.as_str())).collect();
    assert_eq!(metadata, [("tool", "xsplice"), ("patch", "a=b.patch")]);
    let f = &seen.functions[0];
    assert_eq!((f.name.as_str(), f.replacement.as_deref(), f.nops), ("target_fn", Some("new_fn"), false));
    assert_eq!((f.new_size, f.old_size, f.version), (32, 32, 2));
    assert_eq!((f.old_address.as_deref(), f.expectation.as_deref()), (None, Some("f30f")));
    assert_eq!((seen.hooks[0].kind.as_str(), seen.hooks[0].function.as_str()), ("load", "on_load"));
    assert_eq!(seen.symbols_to_resolve, ["common/a.c#helper", "printk", "some_pointer"]);
    assert_eq!(seen.relocations, 14);
    let s = seen.special;
    assert_eq!((s.alternatives, s.altcalls, s.exception_table), (1, 1, 1));
    assert_eq!((s.bug_frames.warn, s.bug_frames.run_function), (1, 0));
    let text = seen.sections.iter().find(|s| s.name == ".text.new_fn").unwrap();
    assert_eq!((text.flags.as_str(), text.size, text.align), ("AX", 32, 16));
}

#[test]
fn an_inspection_as_text_and_as_json() {
    let mut payload = sample::payload();
    payload.sec(".livepatch.funcs").data[16..24].copy_from_slice(&(sample::TEXT + 0x200).to_le_bytes());
    payload.sec(".modinfo").data = b"note=\x1b[2J\0".to_vec();
    payload.symbol("common/c.c#twin", ABS, sample::TEXT + 0x1a0, 0, 0, LOCAL);
    payload.symbol("a.c", ABS, 0, 0, FILE, LOCAL);
    let seen = inspect(&payload.write()).unwrap();
    let text = render_text(&seen);
    assert!(
        text.contains("target_fn: 32 bytes become 32 of new_fn, version 2, at 0xffff82d040200200"),
        "{text}"
    );
    assert!(text.contains("load        on_load"));
    assert!(text.contains("1 warning frames"));
    assert!(text.contains("\n  common/c.c#twin at 0xffff82d0402001a0\n"), "{text}");
    assert_eq!(seen.absolute_symbols.len(), 1, "the name of a file is none");
    assert!(!text.contains('\u{1b}'), "what a file says must not reach the terminal as it is");
    let json = serde_json::to_value(&seen).unwrap();
    assert_eq!(json["schema"], 1);
    assert_eq!(json["functions"][0]["old_address"], "0xffff82d040200200");
    assert_eq!(serde_json::to_string(&seen).unwrap(), serde_json::to_string(&seen.clone()).unwrap());
}

#[test]
fn what_is_no_payload_is_named() {
    let mut object = Elf::new(1);
    object.add(".text", PROGBITS, A | X, 16, &[0xc3]);
    let mut arm = sample::payload();
    arm.machine = 183;
    for (bytes, what) in [
        (Vec::new(), "an empty file"),
        (b"just some text\n".to_vec(), "a text file"),
        (b"\x1f\x8b\x08\0rest".to_vec(), "a gzip file"),
        (b"!<arch>\ndebian-binary".to_vec(), "an ar archive (a static library or a Debian package)"),
        (b"MZ\x90\0".to_vec(), "a PE image, such as xen.efi"),
        (b"\0\x01\x02\x03".to_vec(), "a file of an unknown kind"),
        (sample::xen().write(), "a linked ELF executable, such as xen-syms"),
        (arm.write(), "a relocatable file for arm64"),
        (b"\x7fELF\x01\x01\x01".to_vec(), "an ELF file that ends inside its file header of 64 bytes"),
        (object.write(), "a relocatable file without .livepatch sections"),
    ] {
        let problems = inspect(&bytes).unwrap_err();
        assert_eq!(problems.outcome(), Outcome::Failed);
        assert_eq!(problems.0.len(), 1);
        assert_eq!(problems.0[0].what, format!("not a payload, but {what}"));
    }
}

#[test]
fn the_table_of_a_hypervisor() {
    let bytes = sample::xen().write();
    let xen = XenSymbols::parse(&bytes).unwrap();
    let address = |name: &str| xen.named(name).map(|s| s.address).collect::<Vec<_>>();
    assert_eq!(address("common/a.c#helper"), [sample::TEXT + 0x100]);
    assert_eq!(address("common/b.c#helper"), [sample::TEXT + 0x140]);
    assert_eq!(address("common/c.c#twin"), [sample::TEXT + 0x180, sample::TEXT + 0x1a0]);
    assert_eq!(address("target_fn"), [sample::TEXT + 0x200]);
    assert!(
        address("helper").is_empty() && address("start_pa").is_empty() && address("_compiled.1").is_empty()
    );
    assert_eq!(xen.duplicates().collect::<Vec<_>>(), ["common/c.c#twin"]);
    assert_eq!(xen.table_names_of("helper"), ["common/a.c#helper", "common/b.c#helper"]);
    assert_eq!(xen.build_id(), Some(&sample::XEN_ID[..]));
    assert_eq!(xen.image(), sample::TEXT..sample::IMAGE_END);
    assert_eq!(xen.payload_area(), sample::IMAGE_END..0xffff_82d0_8000_0000);
    assert_eq!(xen.init(), Some(sample::TEXT + 0x20_0000..sample::TEXT + 0x40_0000));
    assert_eq!(xen.bytes_at(sample::TEXT + 0x200, 4), Some(&[0xf3, 0x0f, 0x1e, 0xfa][..]));
    assert_eq!(xen.bytes_at(sample::TEXT + 0xffe, 4), None);
    // Where boot rewrites.
    assert_eq!(xen.stable_bytes(sample::TEXT + 0x2c0, 32), 16);
    assert_eq!(xen.stable_bytes(sample::TEXT + 0x2d2, 14), 0);
    assert_eq!(xen.stable_bytes(sample::TEXT + 0x2d5, 11), 11);
    assert_eq!(xen.stable_bytes(sample::TEXT + 0x300, 32), 0);
    assert_eq!(xen.stable_bytes(sample::TEXT + 0x200, 32), 32);
}

#[test]
fn what_is_no_symbol_file_is_refused() {
    let mut stripped = sample::xen();
    stripped.symtab_kind = PROGBITS;
    let mut unbounded = sample::xen();
    unbounded.sym("_start").name = "start".into();
    for bytes in [Vec::new(), sample::payload().write(), stripped.write(), unbounded.write()] {
        let problems = XenSymbols::parse(&bytes).unwrap_err();
        assert_eq!(problems.0[0].code, codes::NOT_XEN_SYMS);
        assert_eq!(problems.outcome(), Outcome::Failed);
    }
}

#[test]
fn codes_are_named_once_and_as_they_should() {
    let mut names: Vec<_> = codes::ALL.iter().map(|c| c.name).collect();
    assert!(names.iter().all(|n| n.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')));
    assert!(codes::ALL.iter().all(|c| c.summary.ends_with('.')));
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}

/// xorshift64: the same damage in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// Runs everything over a damaged payload; all that counts is that it comes back.
fn survives(payload: &[u8], below: &[u8], xen: &[u8]) {
    let stack: &[&[u8]] = &[below];
    let _ = inspect(payload).map(|seen| render_text(&seen));
    let input = VerifyInput { payload, name: "n", xen_syms: Some(xen), below: stack, ..Default::default() };
    let once = verify(&input);
    assert_eq!(once, verify(&input), "the verdict differs between runs");
}

#[test]
fn damaged_payloads_never_panic() {
    let sound = sample::upper().write();
    let payload = sample::payload().write();
    let xen = sample::xen().write();
    let mut random = Random(0x5eed_0123_4567_89ab);
    for _ in 0..3000 {
        let mut damaged = payload.clone();
        for _ in 0..=random.below(4) {
            let at = random.below(damaged.len());
            damaged[at] = match random.below(4) {
                0 => 0xff,
                1 => 0,
                2 => damaged[at] ^ 1 << random.below(8),
                _ => random.next() as u8,
            };
        }
        survives(&damaged, &sound, &xen);
    }
}

#[test]
fn damaged_tables_never_panic() {
    let payload = sample::payload().write();
    let xen = sample::xen().write();
    let table = u64::from_le_bytes(payload[40..48].try_into().unwrap()) as usize;
    let mut random = Random(0xdead_beef_0bad_cafe);
    const ODD: [u64; 8] =
        [0, 1, 63, u32::MAX as u64, u64::MAX, i64::MAX as u64, 1 << 31, 0xffff_ffff_ffff_fff0];
    for _ in 0..3000 {
        let mut damaged = payload.clone();
        for _ in 0..=random.below(3) {
            // A field of 4 or 8 bytes of the file header or of a section header.
            let fields = (damaged.len() - table) / 4 - 2;
            let at =
                if random.below(8) == 0 { random.below(14) * 4 } else { table + random.below(fields) * 4 };
            let value = ODD[random.below(ODD.len())].to_le_bytes();
            let width = 4 << random.below(2);
            damaged[at..at + width].copy_from_slice(&value[..width]);
        }
        survives(&damaged, &damaged, &xen);
    }
}

#[test]
fn truncated_files_never_panic() {
    let payload = sample::payload().write();
    let xen = sample::xen().write();
    for end in (0..payload.len()).step_by(7) {
        survives(&payload[..end], &payload, &xen);
    }
    for end in (0..xen.len()).step_by(13) {
        let _ = XenSymbols::parse(&xen[..end]);
    }
}

#[test]
fn damaged_symbol_files_never_panic() {
    let payload = sample::payload().write();
    let xen = sample::xen().write();
    let mut random = Random(0x1234_5678_9abc_def1);
    for _ in 0..1000 {
        let mut damaged = xen.clone();
        // Damage what is read, not the code.
        for _ in 0..8 {
            let at = if random.below(2) == 0 {
                random.below(64)
            } else {
                0x1100 + random.below(xen.len() - 0x1100)
            };
            damaged[at] = random.next() as u8;
        }
        survives(&payload, &payload, &damaged);
    }
}

#[test]
fn sections_that_share_bytes_cost_no_more_than_they_have() {
    // 400 relocation sections over the same contents, and a symbol table whose names are all one long one.
    let mut payload = sample::payload();
    payload.strtab_tail = vec![b'x'; 1 << 20];
    payload.strtab_tail.push(0);
    for i in 0..20_000 {
        payload.symbol(&format!("s{i}"), 1, 0, 0, 0, LOCAL);
    }
    let bytes = payload.write();
    let started = std::time::Instant::now();
    let verdict = common::judge(&bytes);
    assert_eq!(common::names(&verdict), Vec::<&str>::new());
    assert!(started.elapsed().as_secs() < 20);
    let mut shared = sample::payload();
    let bytes = vec![0; 24 * 10_000];
    shared.add(".shared", PROGBITS, 0, 8, &bytes);
    let offset = {
        let written = shared.write();
        let window: Vec<u8> = vec![0; 24 * 10_000];
        written.windows(window.len()).position(|w| w == window).unwrap() as u64
    };
    for i in 0..400 {
        let name = format!(".rela.s{i}");
        shared.add(&name, RELA, 0, 8, &[]);
        let section = shared.sec(&name);
        (section.offset, section.size, section.entsize) = (Some(offset), Some(24 * 10_000), 24);
    }
    assert!(common::names(&common::judge(&shared.write())).contains(&"not-a-payload"));
}

/// The sample hypervisor with functions of these bytes that say its version, and a text behind them.
fn versioned(major: &[u8], minor: &[u8], extra: &str) -> Option<XenVersion> {
    let mut xen = sample::xen();
    let mut code = vec![0xcc; 0x80];
    code[..major.len()].copy_from_slice(major);
    code[0x20..0x20 + minor.len()].copy_from_slice(minor);
    // endbr64; lea 0x15(%rip),%rax; ret: the text is at 0x60.
    code[0x40..0x4c].copy_from_slice(&[0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x8d, 0x05, 0x15, 0, 0, 0, 0xc3]);
    code[0x60..0x60 + extra.len()].copy_from_slice(extra.as_bytes());
    code[0x60 + extra.len()] = 0;
    let at = sample::TEXT + 0x2000;
    let index = xen.add(".text.version", PROGBITS, A | X, 16, &code);
    xen.sec(".text.version").addr = at;
    for (name, offset) in [("xen_major_version", 0), ("xen_minor_version", 0x20), ("xen_extra_version", 0x40)]
    {
        xen.symbol(name, index, at + offset, 16, FUNC, GLOBAL);
    }
    XenSymbols::parse(&xen.write()).unwrap().version()
}

#[test]
fn the_version_is_read_from_what_the_hypervisor_returns() {
    // mov $4,%eax; ret. The other one sets up a frame behind its ENDBR64.
    let four = [0xb8, 4, 0, 0, 0, 0xc3];
    let seventeen = [0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x89, 0xe5, 0xb8, 17, 0, 0, 0, 0x5d, 0xc3];
    let read = |extra| versioned(&four, &seventeen, extra).map(|version| version.to_string());
    assert_eq!(read(".5+72-g1").as_deref(), Some("4.17.5"));
    assert_eq!(read(".0").as_deref(), Some("4.17.0"));
    // An unreleased branch, and a vendor's word.
    assert_eq!(read("-unstable").as_deref(), Some("4.17"));
    assert_eq!(read(".vendor").as_deref(), Some("4.17"));
    assert_eq!(versioned(&[0x31, 0xc0, 0xc3], &seventeen, ".5"), None);
    assert_eq!(XenSymbols::parse(&sample::xen().write()).unwrap().version(), None);
}
