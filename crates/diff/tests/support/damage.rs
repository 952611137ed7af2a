//! Payloads with one thing wrong.

use std::collections::BTreeSet;

use goblin::elf::Elf;
use goblin::elf::section_header::{SHF_ALLOC, SHT_NOBITS, SHT_RELA};

/// Sections that say what the payload is, not what it does.
const LABELS: &[&str] = &[".note.gnu.build-id", ".livepatch.depends", ".livepatch.xen_depends", ".modinfo"];

/// Copies of a payload, each with one byte of what is loaded, one addend or one symbol changed.
pub fn all(payload: &[u8]) -> Vec<(String, Vec<u8>)> {
    let elf = Elf::parse(payload).expect("a payload");
    let mut relocated = BTreeSet::new();
    let mut damaged = Vec::new();
    let mut change = |what: String, at: usize, bits: u8| {
        let mut copy = payload.to_vec();
        copy[at] ^= bits;
        damaged.push((what, copy));
    };
    for section in elf.section_headers.iter().filter(|s| s.sh_type == SHT_RELA) {
        let target = section.sh_info as usize;
        let name = elf.shdr_strtab.get_at(section.sh_name).unwrap_or("");
        for entry in 0..section.sh_size / 24 {
            let at = (section.sh_offset + entry * 24) as usize;
            let offset = u64::from_le_bytes(payload[at..at + 8].try_into().expect("eight bytes"));
            let width = if payload[at + 8] == 1 { 8 } else { 4 };
            relocated.extend((offset..offset + width).map(|byte| (target, byte)));
            change(format!("{name} entry {entry}: offset"), at, 1);
            change(format!("{name} entry {entry}: symbol"), at + 12, 1);
            for byte in 0..4 {
                change(format!("{name} entry {entry}: byte {byte} of its addend"), at + 16 + byte, 2);
            }
        }
    }
    for (index, section) in elf.section_headers.iter().enumerate() {
        let name = elf.shdr_strtab.get_at(section.sh_name).unwrap_or("");
        let loaded = section.sh_flags & u64::from(SHF_ALLOC) != 0 && section.sh_type != SHT_NOBITS;
        if !loaded || LABELS.contains(&name) {
            continue;
        }
        for offset in (0..section.sh_size).filter(|&offset| !relocated.contains(&(index, offset))) {
            let at = (section.sh_offset + offset) as usize;
            // What fills the room between functions is never run, and what fills that between data never read.
            let named = elf.syms.iter().any(|s| {
                s.st_shndx == index && (s.st_value..s.st_value.saturating_add(s.st_size)).contains(&offset)
            });
            let fills = !named && payload[at] == 0 && payload[at - 1] == 0;
            if payload[at] != 0xcc && !fills {
                change(format!("{name}+{offset:#x}"), at, 0x10);
            }
        }
    }
    damaged
}
