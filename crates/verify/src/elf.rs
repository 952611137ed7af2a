//! Bounded reads of ELF64 little endian structures: the one place that touches goblin's readers.

use std::ops::Range;

use goblin::container::{Container, Ctx, Endian};
use goblin::elf::reloc::{Reloc, RelocSection};
use goblin::elf::section_header::SectionHeader;
use goblin::elf::sym::{Sym, Symtab};

/// Bytes of an ELF64 file header.
pub(crate) const HEADER_SIZE: u64 = 64;
/// Bytes of one ELF64 section header.
pub(crate) const SECTION_HEADER_SIZE: u64 = 64;
/// Bytes of one ELF64 symbol.
pub(crate) const SYMBOL_SIZE: u64 = 24;
/// Bytes of one ELF64 relocation with an addend.
pub(crate) const RELA_SIZE: u64 = 24;

/// The longest name that is read from a string table, in bytes. Names overlap freely in a hostile
/// file, so without a bound the work would grow with the square of its size.
pub(crate) const LONGEST_NAME: usize = 1024;

fn context() -> Ctx {
    Ctx::new(Container::Big, Endian::Little)
}

/// The bytes `[offset, offset + size)` of `bytes`, if all of them are there.
pub(crate) fn slice(bytes: &[u8], offset: u64, size: u64) -> Option<&[u8]> {
    bytes.get(range(offset, size)?)
}

fn range(offset: u64, size: u64) -> Option<Range<usize>> {
    let start = usize::try_from(offset).ok()?;
    let end = usize::try_from(offset.checked_add(size)?).ok()?;
    Some(start..end)
}

/// The section header at `offset`.
pub(crate) fn section_header(bytes: &[u8], offset: u64) -> Option<SectionHeader> {
    let raw = slice(bytes, offset, SECTION_HEADER_SIZE)?;
    SectionHeader::parse_from(raw, 0, 1, context()).ok()?.into_iter().next()
}

/// The symbol at the start of `raw`.
pub(crate) fn symbol(raw: &[u8]) -> Option<Sym> {
    Symtab::parse(raw.get(..SYMBOL_SIZE as usize)?, 0, 1, context()).ok()?.get(0)
}

/// The relocation with an addend at the start of `raw`.
pub(crate) fn rela(raw: &[u8]) -> Option<Reloc> {
    RelocSection::parse(raw, 0, RELA_SIZE as usize, true, context()).ok()?.get(0)
}

/// The NUL-terminated UTF-8 string at `offset` of a string table; `None` when it runs out of the
/// table, is longer than [`LONGEST_NAME`] or is not UTF-8.
pub(crate) fn string(table: &[u8], offset: u64) -> Option<&str> {
    let tail = table.get(usize::try_from(offset).ok()?..)?;
    let window = &tail[..tail.len().min(LONGEST_NAME + 1)];
    let end = window.iter().position(|&b| b == 0)?;
    std::str::from_utf8(&window[..end]).ok()
}

/// The 16-bit number at `offset`.
pub(crate) fn u16_at(bytes: &[u8], offset: u64) -> Option<u16> {
    Some(u16::from_le_bytes(slice(bytes, offset, 2)?.try_into().ok()?))
}

/// The 32-bit number at `offset`.
pub(crate) fn u32_at(bytes: &[u8], offset: u64) -> Option<u32> {
    Some(u32::from_le_bytes(slice(bytes, offset, 4)?.try_into().ok()?))
}

/// The 64-bit number at `offset`.
pub(crate) fn u64_at(bytes: &[u8], offset: u64) -> Option<u64> {
    Some(u64::from_le_bytes(slice(bytes, offset, 8)?.try_into().ok()?))
}

/// Why a note is not a build-id note.
pub(crate) type NoteFault = &'static str;

/// The build-id in a note, by the tests of Xen's `xen_build_id_check` (xen/common/version.c, 4.13
/// to 4.22): more than the 12 bytes of a note header, type 3, name "GNU", sizes inside the section;
/// and one that Xen leaves to the linker: the description really is inside, and not empty.
pub(crate) fn build_id_note(data: &[u8]) -> Result<&[u8], NoteFault> {
    const HEADER: u64 = 12;
    if data.len() as u64 <= HEADER {
        return Err("it holds no more than a note's header of 12 bytes");
    }
    let word = |at| u32_at(data, at).map_or(0, u64::from);
    let (name_size, id_size, kind) = (word(0), word(4), word(8));
    if kind != 3 {
        return Err("its type is not 3 (NT_GNU_BUILD_ID)");
    }
    if name_size != 4 || slice(data, HEADER, 4) != Some(b"GNU\0") {
        return Err("its owner is not \"GNU\"");
    }
    if id_size == 0 {
        return Err("its description, the id itself, is empty");
    }
    slice(data, HEADER + 4, id_size).ok_or("its sizes go past the end of the section")
}

/// Whether Xen's own test passes a note, sound or not: it takes any size of a name that begins with "GNU" and a NUL.
pub(crate) fn loader_takes_note(data: &[u8]) -> bool {
    const HEADER: u64 = 12;
    let word = |at| u32_at(data, at).map_or(0, u64::from);
    let (name_size, id_size, kind) = (word(0), word(4), word(8));
    data.len() as u64 > HEADER
        && kind == 3
        && name_size >= 4
        && name_size + id_size <= data.len() as u64 - HEADER
        && slice(data, HEADER, 4) == Some(b"GNU\0")
        && id_size > 0
}

/// Whether it is by its type or its name, and not by a size, that Xen's own test fails a note.
pub(crate) fn loader_finds_no_id(data: &[u8]) -> bool {
    const HEADER: u64 = 12;
    let word = |at| u32_at(data, at).map_or(0, u64::from);
    let (name_size, id_size, kind) = (word(0), word(4), word(8));
    let sized = name_size >= 4 && name_size + id_size <= (data.len() as u64).saturating_sub(HEADER);
    data.len() as u64 > HEADER && (kind != 3 || sized && slice(data, HEADER, 4) != Some(b"GNU\0"))
}

/// Lower case hexadecimal digits, two for each byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The first four bytes of ENDBR64.
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
/// What Xen writes over an ENDBR64 that nothing may branch to (xen/arch/x86/include/asm/endbr.h, 4.17).
const ENDBR64_POISON: [u8; 4] = [0x66, 0x0f, 0x1f, 0x01];

/// Whether code starts with ENDBR64 or with the form that Xen poisons it to: its trampoline then
/// stands 4 bytes further in.
pub(crate) fn starts_with_endbr(code: &[u8]) -> bool {
    code.starts_with(&ENDBR64) || code.starts_with(&ENDBR64_POISON)
}
