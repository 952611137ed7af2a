//! Small changes to ELF64 little-endian files, for tests that need a payload that lacks
//! something.

/// Offsets in the ELF64 header and section header (ELF specification, version 1.2).
const E_SHOFF: usize = 0x28;
const E_SHENTSIZE: usize = 0x3a;
const E_SHNUM: usize = 0x3c;
const E_SHSTRNDX: usize = 0x3e;
const SH_FLAGS: usize = 0x08;
const SH_OFFSET: usize = 0x18;
/// Section is in memory at run time.
const SHF_ALLOC: u64 = 2;

fn number(bytes: &[u8], at: usize, size: usize) -> Option<usize> {
    let mut value = [0; 8];
    value.get_mut(..size)?.copy_from_slice(bytes.get(at..at.checked_add(size)?)?);
    usize::try_from(u64::from_le_bytes(value)).ok()
}

fn c_string(bytes: &[u8], at: usize) -> Option<&[u8]> {
    bytes.get(at..)?.split(|byte| *byte == 0).next()
}

/// Where the header of the section of that name stands.
fn header(bytes: &[u8], name: &str) -> Option<usize> {
    let table = number(bytes, E_SHOFF, 8)?;
    let (size, count) = (number(bytes, E_SHENTSIZE, 2)?, number(bytes, E_SHNUM, 2)?);
    let names = number(bytes, table + number(bytes, E_SHSTRNDX, 2)? * size + SH_OFFSET, 8)?;
    (0..count).map(|index| table + index * size).find(|header| {
        let text = number(bytes, *header, 4).and_then(|offset| c_string(bytes, names + offset));
        text == Some(name.as_bytes())
    })
}

/// Whether there is a section of that name.
pub fn has_section(bytes: &[u8], name: &str) -> bool {
    header(bytes, name).is_some()
}

/// Where the content of the section of that name starts in the file.
pub fn section_offset(bytes: &[u8], name: &str) -> Option<usize> {
    number(bytes, header(bytes, name)? + SH_OFFSET, 8)
}

/// Hides a section from a loader: it gets another name and is no longer loaded, so that its relocations
/// are not applied either. Nothing else of the file changes. `None` if there is no such section.
pub fn hide_section(bytes: &[u8], name: &str) -> Option<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    let header = header(&bytes, name)?;
    let offset = u32::try_from(number(&bytes, header, 4)?).ok()?;
    // The name without its first character, the dot, is in the table of names already.
    bytes.get_mut(header..header + 4)?.copy_from_slice(&(offset + 1).to_le_bytes());
    let flags = number(&bytes, header + SH_FLAGS, 8)? as u64 & !SHF_ALLOC;
    bytes.get_mut(header + SH_FLAGS..header + SH_FLAGS + 8)?.copy_from_slice(&flags.to_le_bytes());
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with a null section, `.x` (loaded) and the table of names.
    fn file() -> Vec<u8> {
        let names = b"\0.x\0.shstrtab\0";
        let mut bytes = vec![0; 0x40 + names.len()];
        bytes[0x40..].copy_from_slice(names);
        let table = bytes.len();
        bytes.resize(table + 3 * 64, 0);
        bytes[E_SHOFF] = table as u8;
        bytes[E_SHENTSIZE] = 64;
        bytes[E_SHNUM] = 3;
        bytes[E_SHSTRNDX] = 2;
        bytes[table + 64] = 1;
        bytes[table + 64 + SH_FLAGS] = 6;
        bytes[table + 128] = 4;
        bytes[table + 128 + SH_OFFSET] = 0x40;
        bytes
    }

    #[test]
    fn a_hidden_section_is_neither_found_nor_loaded() {
        let before = file();
        assert!(has_section(&before, ".x"));
        let after = hide_section(&before, ".x").expect("there");
        assert!(!has_section(&after, ".x") && has_section(&after, "x"));
        let differing = before.iter().zip(&after).filter(|(one, other)| one != other).count();
        assert_eq!(differing, 2, "its name and its flags");
        let header = header(&after, "x").expect("there");
        assert_eq!(after[header + SH_FLAGS], 4);
        assert_eq!(hide_section(&before, ".y"), None);
    }

    #[test]
    fn damaged_files_are_no_panic() {
        let whole = file();
        for length in 0..whole.len() {
            let _ = hide_section(&whole[..length], ".x");
        }
    }
}
