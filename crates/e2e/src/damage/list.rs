//! The list of damages, in the order of the loader's steps, then those that only the host pays for.

use super::Base::{Built, Made};
use super::Meant::{Host, Kills, Refused, Since, Sound};
use super::*;
use crate::sample;

macro_rules! damages {
    ($($base:ident $name:literal, $what:literal, $meant:expr $(, $loaded:ident)? => |$e:ident| $change:expr;)*) => {
        /// All of them.
        pub const ALL: &[Damage] = &[$(Damage {
            name: $name,
            what: $what,
            base: $base,
            loaded: damages!(@ $($loaded)?),
            meant: $meant,
            change: |$e: &mut Editor| $change,
        }),*];
    };
    (@) => { Loaded::Nothing };
    (@ $loaded:ident) => { Loaded::$loaded };
}

const ALTERNATIVES: &str = ".altinstructions";
const FRAMES: &str = ".bug_frames.1";
const LOAD: &str = ".livepatch.hooks.load";
const SPARE: &str = "xsplice_e2e_spare";
const CODE: &str = ".text.xsplice_e2e";

/// Where alternatives point to is checked from 4.17.4 and 4.18.0 on.
const PLACES: Meant = Since(&[(14, Host("alternatives")), (17, Refused("alternatives"))]);
/// Their lengths and features stop the host up to 4.18.3 and 4.19.0.
const LENGTHS: Meant = Since(&[(14, Kills("alternatives")), (20, Refused("alternatives"))]);

damages! {
    Built "sound", "nothing", Sound => |_e| Some(());
    Made "sound-by-hand", "nothing", Sound => |_e| Some(());
    Made "same-name", "a payload of that name is loaded", Refused("payload-name"), SameName => |_e| Some(());
    Made "too-large", "a file of 2 MiB and a byte", Refused("payload-size") => |e| { e.0.resize((2 << 20) + 1, 0); Some(()) };
    Made "magic", "no ELF magic", Refused("elf-ident") => |e| e.put(0, 1, 0);
    Built "class", "32 bits", Refused("elf-ident") => |e| e.put(4, 1, 1);
    Made "byte-order", "big endian", Refused("elf-ident") => |e| e.put(5, 1, 2);
    Made "elf-version", "e_version 2", Refused("elf-ident") => |e| e.put(20, 4, 2);
    Built "abi", "the ABI of Linux", Refused("elf-ident") => |e| e.put(7, 1, 3);
    Built "abi-freebsd", "the ABI of FreeBSD", Sound => |e| e.put(7, 1, 9);
    Made "abi-version", "ABI version 1", Refused("elf-ident") => |e| e.put(8, 1, 1);
    Made "elf-type", "an executable", Refused("elf-kind") => |e| e.put(16, 2, 2);
    Made "machine", "for arm64", Refused("elf-kind") => |e| e.put(18, 2, 183);
    Built "program-headers", "a program header", Refused("elf-kind") => |e| e.put(56, 2, 1);
    Built "section-header-size", "section headers of 56 bytes", Refused("elf-section-table") => |e| e.put(58, 2, 56);
    Built "no-names", "no table of section names", Refused("elf-section-table") => |e| e.put(62, 2, 0);
    Made "names-nowhere", "section names in a section that is none", Refused("elf-section-table") => |e| e.put(62, 2, 900);
    Made "too-many-sections", "1024 sections", Refused("elf-section-table") => |e| e.put(60, 2, 1024);
    Made "table-outside", "a section table behind the file", Refused("elf-section-table") => |e| e.put(40, 8, 1 << 20);
    Built "section-offset", "contents at the file's start", Refused("section-outside-file") => |e| e.set(e.code()?, OFFSET, 0);
    Made "section-outside", "contents behind the file", Refused("section-outside-file") => |e| e.set(e.code()?, SIZE, 1 << 20);
    Made "section-wraps", "contents that end behind 2^64", Host("section-outside-file") => |e| { let at = e.section(".rela.data.xsplice_e2e")?; e.set(at, TYPE, 1)?; e.set(at, OFFSET, 64)?; e.set(at, SIZE, 64u64.wrapping_neg()) };
    Built "alignment-3", "alignment 3", Refused("section-alignment") => |e| e.set(e.code()?, ALIGNMENT, 3);
    Built "address", "an address that is not aligned", Refused("section-alignment") => |e| e.set(e.code()?, ADDRESS, 1);
    Made "zeroes", "more than 2 MiB of zeroes", Refused("section-too-large") => |e| e.set(e.section(".bss")?, SIZE, (2 << 20) + 1);
    Built "writable-code", "code that is writable", Refused("section-writable-code") => |e| e.set(e.code()?, FLAGS, 7);
    Built "two-symbol-tables", "two symbol tables", Refused("symbol-table") => |e| e.set(e.relocations_of(FUNCS)?, TYPE, 2);
    Built "no-symbol-table", "no symbol table", Refused("symbol-table") => |e| e.set(e.symbols()?, TYPE, 1);
    Built "symbol-size", "symbols of 25 bytes", Refused("symbol-table") => |e| e.set(e.symbols()?, ENTRY_SIZE, 25);
    Made "symbols-empty", "an empty symbol table", Refused("symbol-table") => |e| e.set(e.symbols()?, SIZE, 0);
    Made "symbols-link", "symbol names in a section that is none", Refused("symbol-table") => |e| e.set(e.symbols()?, LINK, 900);
    Made "symbols-link-0", "symbol names in section 0", Kills("symbol-table") => |e| e.set(e.section(".symtab")?, LINK, 0);
    Built "string-table", "symbol names in no string table", Refused("string-table") => |e| e.set(e.strings()?, TYPE, 1);
    Made "string-table-end", "a string table without a NUL at its end", Refused("string-table") => |e| { let strings = e.strings()?; let size = e.get(strings, SIZE)?; e.set(strings, SIZE, size - 1) };
    Made "section-names", "section names in no string table", Refused("string-table") => |e| e.set(e.number(62, 2)? as usize, TYPE, 1);
    Built "section-name", "a section's name outside", Refused("section-name") => |e| e.set(e.code()?, NAME, 0xff_ffff);
    Built "symbol-name", "a symbol's name outside", Refused("symbol-name") => |e| e.put(e.undefined()?, 4, 0xff_ffff);
    Built "symbol-common", "a common symbol", Refused("symbol-common") => |e| e.put(e.undefined()? + 6, 2, 0xfff2);
    Built "symbol-nowhere", "a symbol in a section that is none", Refused("symbol-section") => |e| e.put(e.undefined()? + 6, 2, 0x300);
    Built "symbol-reserved", "a symbol in a reserved section", Refused("symbol-section") => |e| e.put(e.undefined()? + 6, 2, 0xff20);
    Built "symbol-unknown", "a name that nobody has", Refused("symbol-unknown") => |e| e.forget_name();
    Made "symbol-unknown-weak", "a weak name that nobody has", Refused("symbol-unknown") => |e| { e.put(e.undefined()? + 4, 1, 0x20)?; e.forget_name() };
    Built "symbol-taken", "a new symbol with a name of Xen's", Refused("symbol-collides") => |e| { let at = e.undefined()?; let code = e.code()?; e.put(at + 6, 2, code as u64)?; e.put(at + 8, 8, 1) };
    Made "symbol-taken-below", "a new symbol with a name of a loaded payload's", Refused("symbol-collides"), Sound => |e| e.in_section(OWN, 20, 1, 0);
    Built "relocation-type", "R_X86_64_32S", Refused("relocation-type") => |e| e.put(e.relocation()? + 8, 4, 11);
    Built "relocation-symbol-0", "a relocation to symbol 0", Refused("relocation-symbol") => |e| e.put(e.relocation()? + 12, 4, 0);
    Built "relocation-symbol", "a relocation to a symbol that is none", Refused("relocation-symbol") => |e| e.put(e.relocation()? + 12, 4, 0xffff);
    Made "relocation-unloaded", "a relocation to what is not loaded", Refused("relocation-symbol") => |e| e.set(e.section(sample::SPARE)?, FLAGS, 0);
    Built "relocation-offset", "a relocation behind its section", Refused("relocation-offset") => |e| { let size = e.get(e.code()?, SIZE)?; e.put(e.relocation()?, 8, size) };
    Made "relocation-64-outside", "a relocation of 8 bytes, 4 of them behind its section", Refused("relocation-offset") => |e| e.put(e.relocation_of(LOAD, 0)?, 8, 4);
    Made "relocation-32-outside", "a relocation of 4 bytes, one of them behind its section", Refused("relocation-offset") => |e| e.put(e.relocation_of(FRAMES, 4)?, 8, 5);
    Built "relocation-link", "relocations with another symbol table", Refused("relocation-section") => |e| e.set(e.relocations()?, LINK, 1);
    Built "relocation-size", "relocations of 25 bytes", Refused("relocation-section") => |e| e.set(e.relocations()?, ENTRY_SIZE, 25);
    Made "relocation-half", "half a relocation", Refused("relocation-section") => |e| e.set(e.relocations()?, SIZE, 36);
    Built "relocation-no-addends", "relocations without addends", Refused("relocation-section") => |e| e.set(e.relocations()?, TYPE, 9);
    Made "relocation-nothing", "relocations for section 0", Kills("relocation-section") => |e| e.set(e.section(".rela.data.xsplice_e2e")?, INFO, 0);
    Built "displacement", "a displacement that does not fit", Refused("relocation-overflow") => |e| { let symbol = e.symbol_of(e.relocation()?)?; e.put(symbol + 6, 2, 0xfff1)?; e.put(symbol + 8, 8, 0) };
    Made "own-missing", "no build-id", Refused("missing-section") => |e| e.hide(OWN);
    Made "depends-missing", "no .livepatch.depends", Refused("missing-section") => |e| e.hide(DEPENDS);
    Made "xen-missing", "no .livepatch.xen_depends", Refused("missing-section") => |e| e.hide(XEN_DEPENDS);
    Made "own-empty", "an empty build-id section", Refused("missing-section") => |e| e.set(e.section(OWN)?, SIZE, 0);
    Built "depends-empty", "an empty .livepatch.depends", Refused("missing-section") => |e| e.set(e.section(DEPENDS)?, SIZE, 0);
    Built "xen-empty", "an empty .livepatch.xen_depends", Refused("missing-section") => |e| e.set(e.section(XEN_DEPENDS)?, SIZE, 0);
    Made "nothing-to-do", "neither functions nor hooks", Refused("nothing-to-do") => |e| { e.hide(FUNCS)?; e.hide(LOAD)?; e.hide(".livepatch.hooks.unload")?; e.hide(".livepatch.hooks.preapply") };
    Made "functions-empty", "an empty list of functions", Refused("missing-section") => |e| e.empty(FUNCS);
    Made "hooks-empty", "an empty list of load hooks", Refused("missing-section") => |e| e.empty(LOAD);
    Built "functions-size", "a byte of the list of functions is missing", Refused("funcs-layout") => |e| { let size = e.get(e.section(FUNCS)?, SIZE)?; e.set(e.section(FUNCS)?, SIZE, size - 1) };
    Built "functions-read-only", "a list of functions that is read-only", Sound => |e| e.set(e.section(FUNCS)?, FLAGS, 2);
    Built "function-version", "version 1", Refused("func-version") => |e| e.in_section(FUNCS, 32, 1, 1);
    Built "old-size-0", "an old size of 0", Refused("func-too-small") => |e| e.in_section(FUNCS, 28, 4, 0);
    Built "old-size-4", "an old size of 4", Refused("func-too-small") => |e| e.in_section(FUNCS, 28, 4, 4);
    Built "old-name", "an old name that nobody has", Refused("func-old-unknown") => |e| e.in_section(".livepatch.strings", 0, 1, u64::from(b'!'));
    Built "old-name-and-size", "the same, with an old size of 4", Refused("func-old-unknown") => |e| { e.in_section(".livepatch.strings", 0, 1, u64::from(b'!'))?; e.in_section(FUNCS, 28, 4, 4) };
    Built "nops-32", "32 bytes of NOPs", Refused("func-nop") => |e| { e.in_section(FUNCS, 24, 4, 32)?; e.no_replacement() };
    Built "nops-too-many", "more NOPs than bytes", Refused("func-nop") => |e| { e.in_section(FUNCS, 24, 4, 12)?; e.in_section(FUNCS, 28, 4, 11)?; e.no_replacement() };
    Made "new-far", "a replacement out of a jump's reach", Refused("func-distance") => |e| { e.no_replacement()?; e.in_section(FUNCS, 8, 8, 4096) };
    Made "hooks-size", "load hooks of 9 bytes", Refused("hook-size") => |e| e.set(e.section(LOAD)?, SIZE, 9);
    Made "hook-size", "two preapply hooks", Refused("hook-size") => |e| e.set(e.section(".livepatch.hooks.preapply")?, SIZE, 16);
    Built "own-note", "a build-id note of another type", Refused("note") => |e| e.in_section(OWN, 8, 4, 1);
    Built "own-note-owner", "a build-id note of another owner", Refused("note") => |e| e.in_section(OWN, 12, 1, u64::from(b'X'));
    Built "depends-note-owner", "a depends note of another owner", Refused("note") => |e| e.in_section(DEPENDS, 12, 1, u64::from(b'X'));
    Made "own-note-size", "a build-id longer than its section", Refused("note") => |e| e.in_section(OWN, 4, 4, 64);
    Made "own-note-short", "a build-id section of 12 bytes", Refused("note") => |e| e.set(e.section(OWN)?, SIZE, 12);
    Made "own-id-loaded", "the build-id of a loaded payload", Refused("same-build-id"), Sound => |_e| Some(());
    Built "depends-note", "a depends note of another type", Refused("note") => |e| e.in_section(DEPENDS, 8, 4, 1);
    Made "depends-note-size", "a depends id longer than its section", Refused("note") => |e| e.in_section(DEPENDS, 4, 4, 64);
    Built "xen-note", "a Xen note of another type", Refused("note") => |e| e.in_section(XEN_DEPENDS, 8, 4, 1);
    Made "xen-note-short", "a Xen note of 12 bytes", Refused("note") => |e| e.set(e.section(XEN_DEPENDS)?, SIZE, 12);
    Made "bug-frames-size", "bug frames of 9 bytes", Refused("bug-frames") => |e| e.set(e.section(FRAMES)?, SIZE, 9);
    Made "alternatives-size", "a byte of the alternatives is missing", Refused("alternatives") => |e| e.set(e.section(ALTERNATIVES)?, SIZE, 27);
    Made "alternative-original", "an alternative of what is no code", PLACES => |e| e.refer(ALTERNATIVES, 0, "xsplice_e2e_texts", 0);
    Made "alternative-replacement", "an alternative with a replacement elsewhere", PLACES => |e| e.refer(ALTERNATIVES, 4, "xsplice_e2e_parts", 0);
    Made "alternative-section", "alternatives without replacements", PLACES => |e| e.hide(".altinstr_replacement");
    Made "alternative-length", "a replacement longer than its original", LENGTHS => |e| e.in_section(ALTERNATIVES, 11, 1, 6);
    Made "alternative-total", "an original with padding of 255 bytes", LENGTHS => |e| e.in_section(ALTERNATIVES, 12, 1, 250);
    Made "alternative-feature", "a CPU feature that is none", LENGTHS => |e| e.in_section(ALTERNATIVES, 8, 2, 0x3fff);
    Made "alternative-feature-next", "a CPU feature behind those that this Xen has words for", LENGTHS => |e| e.in_section(ALTERNATIVES, 8, 2, 672);
    Made "alternative-feature-last", "a CPU feature without a name that this Xen has a word for", Sound => |e| e.in_section(ALTERNATIVES, 8, 2, 639);
    Made "alternative-negated", "a CPU feature that is not there", Since(&[(14, Kills("alternatives")), (20, Sound)]) => |e| e.in_section(ALTERNATIVES, 8, 2, 0x8000);
    Made "exception-table-size", "an exception table of 9 bytes", Refused("exception-table") => |e| e.set(e.section(".ex_table")?, SIZE, 9);
    Built "metadata", "metadata without a NUL at its end", Refused("metadata") => |e| { let size = e.get(e.section(".modinfo")?, SIZE)?; e.in_section(".modinfo", size.checked_sub(1)? as usize, 1, 1) };
    Built "xen-id", "for another hypervisor", Refused("wrong-xen") => |e| e.in_section(XEN_DEPENDS, 20, 8, 0);
    Built "unknown-and-other-xen", "the same, with a name that nobody has", Since(&[(14, Refused("symbol-unknown")), (20, Refused("wrong-xen"))]) => |e| { e.forget_name()?; e.in_section(XEN_DEPENDS, 20, 8, 0) };
    Built "depends-id", "for another payload below", Refused("wrong-depends") => |e| e.in_section(DEPENDS, 20, 8, 0);
    Built "expectation", "an expectation of other bytes", Refused("expectation") => |e| e.in_section(FUNCS, 72, 4, 0x00ad_de05);
    Built "expectation-reserved", "an expectation with a reserved bit", Refused("expectation") => |e| e.in_section(FUNCS, 72, 1, 0x41);
    Built "expectation-length", "an expectation longer than the old size", Refused("expectation") => |e| { e.in_section(FUNCS, 72, 1, 0x3f)?; e.in_section(FUNCS, 28, 4, 16) };

    Made "alignment-8192", "code at 8 KiB", Host("section-alignment") => |e| e.set(e.code()?, ALIGNMENT, 8192);
    Made "thread-local", "thread-local storage", Host("section-kind") => |e| e.set(e.section(sample::SPARE)?, FLAGS, 0x403);
    Made "per-cpu", "a per-CPU variable", Host("section-per-cpu") => |e| e.rename(sample::SPARE, ".data.percpu");
    Made "boot-data", "a boot parameter", Host("section-collected-at-boot") => |e| e.rename(sample::SPARE, ".init.setup");
    Made "early-exceptions", "an early exception table", Host("exception-table-pre") => |e| e.rename(sample::SPARE, ".ex_table.pre");
    Made "special-unknown", "a hook section that nobody knows", Host("special-section-unknown") => |e| e.rename(".livepatch.hooks.unload", ".livepatch.hooks.fini");
    Made "frames-unknown", "bug frames of a kind that nobody knows", Host("special-section-unknown") => |e| e.rename(sample::SPARE, ".bug_frames.9");
    Made "call-sites", "call sites for a Xen that has none", Host("special-section-unknown") => |e| e.rename(sample::SPARE, ".alt_call_sites");
    Made "special-twice", "metadata twice", Host("special-section-twice") => |e| e.rename(".livepatch.strings", ".modinfo");
    Made "special-unloaded", "bug frames that are not loaded", Host("special-section-not-loaded") => |e| e.set(e.section(FRAMES)?, FLAGS, 0);
    Made "symbol-long", "a symbol of 140 characters", Host("symbol-name") => |e| { let at = e.text(e.strings()?, &"x".repeat(140))?; e.put(e.symbol("xsplice_e2e_unused")?, 4, at) };
    Made "symbol-outside", "a symbol behind its section", Host("symbol-section") => |e| e.put(e.symbol("xsplice_e2e_unused")? + 8, 8, 64);
    Made "symbol-init", "a reference to boot code", Host("symbol-in-init") => |e| e.look_up(sample::BOOT);
    Made "symbol-ambiguous", "a name that Xen has twice", Host("symbol-ambiguous") => |e| { let at = e.text(e.strings()?, sample::AMBIGUOUS)? + sample::AMBIGUOUS.len() as u64 + 1; let start = e.start(e.strings()?)?; (e.number(start + at as usize, 1)? != 0).then_some(())?; e.put(e.undefined()?, 4, at) };
    Made "relocation-twice", "two relocations of the same bytes", Host("relocation-overlap") => |e| e.put(e.relocation_of(CODE, 68)?, 8, 57);
    Built "own-note-name", "a build-id note with a longer name, and a part of an id", Host("note") => |e| { e.in_section(OWN, 0, 4, 8)?; e.in_section(OWN, 4, 4, 16) };
    Made "own-id-of-xen", "Xen's build-id", Host("same-build-id") => |e| e.copy(XEN_DEPENDS, OWN);
    Made "metadata-empty", "empty metadata", Kills("metadata") => |e| e.set(e.section(".modinfo")?, SIZE, 0);
    Built "function-padding", "a reserved byte", Host("func-padding") => |e| e.in_section(FUNCS, 40, 1, 1);
    Made "function-twice", "the same function twice", Host("func-twice") => |e| e.refer(FUNCS, 104, "xsplice_e2e_names", 0);
    Made "function-stray", "a relocation of an old size", Host("stray-relocation") => |e| { e.put(e.relocation_of(FUNCS, 16)?, 8, 28)?; e.refer(FUNCS, 28, SPARE, 0)?; e.retype(FUNCS, 28, 2) };
    Made "function-name", "a function whose name is no text", Host("func-name") => |e| { e.old_address()?; e.refer(FUNCS, 16, "printk", 0)?; e.refer(FUNCS, 0, "printk", 0) };
    Made "function-other-name", "a function with the name of another", Host("func-name") => |e| { e.old_address()?; e.refer(FUNCS, 16, "printk", 0) };
    Made "old-variable", "a variable is replaced", Host("func-old-not-code") => |e| e.old_address();
    Made "old-middle", "the middle of a function is replaced", Host("func-old-unknown") => |e| { e.old_address()?; e.refer(FUNCS, 16, "printk", 4) };
    Made "old-init", "boot code is replaced", Kills("func-old-in-init") => |e| { e.look_up(sample::BOOT)?; e.old_address()?; e.refer(FUNCS, 16, sample::BOOT, 0) };
    Made "old-size-other", "an old size of 64", Host("func-old-size") => |e| e.in_section(FUNCS, 28, 4, 64);
    Made "new-variable", "a replacement that is no code", Host("func-new") => |e| e.refer(FUNCS, 8, SPARE, 0);
    Made "new-size", "a replacement that ends behind its section", Host("func-new") => |e| e.refer(FUNCS, 8, "xsplice_e2e_extra", 4096);
    Made "nops-all", "NOPs for all of a function", Host("func-nop") => |e| { let size = e.number(e.start(e.section(FUNCS)?)? + 28, 4)?; e.in_section(FUNCS, 24, 4, size.min(31))?; e.in_section(FUNCS, 28, 4, size.min(31))?; e.no_replacement() };
    Made "nops-inside", "NOPs that end inside an instruction", Host("func-nop") => |e| { e.in_section(FUNCS, 24, 4, 6)?; e.no_replacement() };
    Made "bug-frame-target", "a bug frame of what does not trap", Host("bug-frames") => |e| e.refer(FRAMES, 0, "xsplice_e2e_parts", 2);
    Made "bug-frame-text", "a bug frame without a file name", Host("bug-frames") => |e| e.refer(FRAMES, 4, "xsplice_e2e_extra", 4);
    Made "assert-frames-half", "half an assertion frame", Host("bug-frames") => |e| e.rename(sample::SPARE, ".bug_frames.3");
    Made "bug-frame-far", "a bug frame more than 8 MiB from its target", Host("bug-frame-distance") => |e| { for name in [".bss", ".bss.xsplice_e2e_two", ".bss.xsplice_e2e_three"] { e.set(e.section(name)?, SIZE, 2 << 20)?; } Some(()) };
    Made "alternative-private", "an alternative with Xen's own byte set", Host("alternatives") => |e| e.in_section(ALTERNATIVES, 13, 1, 1);
    Made "alternative-moved", "a replacement that cannot be moved", Host("alternative-moved") => |e| e.retype(".altinstr_replacement", 1, 2);
    Made "altcall", "an altcall to elsewhere", Host("altcall") => |e| e.in_section(".altinstr_replacement", 6, 1, 0);
    Made "exception-table", "an exception table entry without a fixup", Host("exception-table") => |e| e.refer(".ex_table", 4, SPARE, 0);
    Made "hook-null", "a hook that is NULL", Host("hook-target") => |e| e.retype(LOAD, 0, 0);
    Made "hook-variable", "a hook that is no code", Host("hook-target") => |e| e.refer(LOAD, 0, SPARE, 0);
    Made "hook-landing", "a hook without ENDBR64", Host("hook-not-callable") => |e| e.refer(LOAD, 0, "xsplice_e2e_hook", 4);
}
