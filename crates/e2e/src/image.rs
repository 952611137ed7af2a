//! Reads the symbol table that a hypervisor carries in itself, for one that is shipped without a symbol file.
//!
//! Under LIVEPATCH it names everything. In this order, 4-byte aligned (xen/tools/symbols.c, 4.14 to 4.20): the symbols'
//! distances from XEN_VIRT_START (u32 each), their number N (u32), N names ({u8 length, as many token bytes} each),
//! the place of every 256th of them (u32 each), 256 NUL-terminated tokens, the places of these (u16 each). A name's
//! first character is nm's letter for its type.

use crate::write::{A, Elf, NOTE, PROGBITS, W, X};

/// XEN_VIRT_START of 4.14 and later (xen/include/asm-x86/config.h).
const START: u64 = 0xffff_82d0_4000_0000;
/// Where the image is loaded, from there on.
const IMAGE: u64 = 2 << 20;

/// One symbol: its address, nm's letter for its type, its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbol {
    /// Virtual.
    pub address: u64,
    /// Such as `T` for code.
    pub kind: u8,
    /// As Xen looks it up.
    pub name: String,
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..at.checked_add(2)?)?.try_into().ok().map(|raw| usize::from(u16::from_le_bytes(raw)))
}

/// What an unpacked multiboot image (ELF32) puts at 2 MiB, and its build-id note.
fn parts(file: &[u8]) -> Option<(&[u8], &[u8])> {
    let (table, count) = (word(file, 28)? as usize, half(file, 44)?);
    let part = |kind: u32| {
        let header = (0..count).map(|index| table + index * 32).find(|at| word(file, *at) == Some(kind))?;
        let (offset, size) = (word(file, header + 4)? as usize, word(file, header + 16)? as usize);
        file.get(offset..offset.checked_add(size)?)
    };
    Some((part(1)?, part(4)?))
}

/// Where the tokens begin, and where their places do.
fn tokens(data: &[u8]) -> Option<(usize, usize)> {
    let rises = |at: usize| {
        let mut last = 0;
        half(data, at) == Some(0)
            && (1..256).all(|number| {
                let next = half(data, at + number * 2).unwrap_or(0);
                let more = next > last + 1;
                last = next;
                more
            })
    };
    let starts = |index: usize| {
        let last = half(data, index + 510)?;
        // The last token, and what aligns the places.
        let starts = (2..40).filter_map(|behind| index.checked_sub(last + behind));
        starts.filter(|start| start % 4 == 0).find(|start| {
            (1..256).all(|number| {
                half(data, index + number * 2).is_some_and(|place| data.get(start + place - 1) == Some(&0))
            })
        })
    };
    (0..data.len()).step_by(4).filter(|at| rises(*at)).find_map(|index| Some((starts(index)?, index)))
}

/// The symbols of an unpacked multiboot image, in the order of its table.
pub fn symbols(file: &[u8]) -> Option<Vec<Symbol>> {
    let (data, _) = parts(file)?;
    let (tokens, places) = tokens(data)?;
    let mut first = tokens;
    let mut markers = Vec::new();
    while markers.last() != Some(&0) {
        first = first.checked_sub(4)?;
        let marker = word(data, first)?;
        if markers.last().is_some_and(|last| marker >= *last) {
            return None;
        }
        markers.push(marker);
    }
    markers.reverse();
    let blocks = markers.len();
    let farthest = first.checked_sub(*markers.last()? as usize)?;
    let mut candidates = (0..farthest).rev().filter(|at| at % 4 == 0).take(20_000);
    let (start, names) = candidates.find_map(|start| {
        let count = word(data, start.checked_sub(4)?)? as usize;
        let fits = count > 256 * (blocks - 1) && count <= 256 * blocks;
        Some((start, fits.then(|| walk(data, start, count, &markers, first)).flatten()?))
    })?;
    let offsets = start.checked_sub(4 + names.len() * 4)?;
    let mut found = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let mut text = Vec::new();
        for token in *name {
            let at = tokens + half(data, places + usize::from(*token) * 2)?;
            text.extend(data.get(at..)?.split(|byte| *byte == 0).next()?);
        }
        let (kind, name) = text.split_first()?;
        let address = START + u64::from(word(data, offsets + number * 4)?);
        found.push(Symbol { address, kind: *kind, name: String::from_utf8(name.to_vec()).ok()? });
    }
    found.is_sorted_by_key(|symbol| symbol.address).then_some(found)
}

/// The names, if they begin here: every 256th where a marker says, and the last just before the markers.
fn walk<'d>(
    data: &'d [u8],
    start: usize,
    count: usize,
    markers: &[u32],
    end: usize,
) -> Option<Vec<&'d [u8]>> {
    let mut at = start;
    let mut names = Vec::new();
    for number in 0..count {
        if number % 256 == 0 && markers.get(number / 256).map(|m| *m as usize) != Some(at - start) {
            return None;
        }
        let length = usize::from(*data.get(at)?);
        names.push(data.get(at + 1..at + 1 + length)?);
        at += 1 + length;
    }
    (at <= end && end - at < 4).then_some(names)
}

/// A symbol file of an unpacked multiboot image. A symbol's size is the distance to the next.
pub fn symbol_file(file: &[u8]) -> Option<Vec<u8>> {
    let (data, note) = parts(file)?;
    let symbols = symbols(file)?;
    let mut elf = Elf::new(2, START + IMAGE);
    elf.section(".text", PROGBITS, A | X, 1, data);
    elf.section_again(".data", A | W);
    elf.section(".note.gnu.build-id", NOTE, 0, 4, note);
    for (number, symbol) in symbols.iter().enumerate() {
        let next = symbols[number..].iter().map(|next| next.address).find(|next| *next > symbol.address);
        let size = next.map_or(0, |next| next - symbol.address);
        let is_code = symbol.kind.eq_ignore_ascii_case(&b't');
        let (section, kind) = if is_code { (".text", 2) } else { (".data", 1) };
        elf.symbol(&symbol.name, section, symbol.address, size, kind);
    }
    Some(elf.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image with 300 symbols, `f0` to `f299`, each 16 bytes behind the other, whose tokens are single characters.
    fn image() -> Vec<u8> {
        let mut data = vec![0xcc; 64];
        for number in 0..300u32 {
            data.extend((0x20_0000 + number * 16).to_le_bytes());
        }
        data.extend(300u32.to_le_bytes());
        let names = data.len();
        let mut markers = Vec::new();
        for number in 0..300 {
            if number % 256 == 0 {
                markers.push((data.len() - names) as u32);
            }
            let name = format!("{}f{number}", if number < 200 { 'T' } else { 'd' });
            data.push(name.len() as u8);
            data.extend(name.bytes());
        }
        data.resize(data.len().next_multiple_of(4), 0);
        markers.iter().for_each(|marker| data.extend(marker.to_le_bytes()));
        let mut places = Vec::new();
        let tokens = data.len();
        for token in 0..=255u8 {
            places.push((data.len() - tokens) as u16);
            data.extend([if token.is_ascii_alphanumeric() { token } else { b'?' }, 0]);
        }
        data.resize(data.len().next_multiple_of(4), 0);
        places.iter().for_each(|place| data.extend(place.to_le_bytes()));
        let note = b"\x04\0\0\0\x04\0\0\0\x03\0\0\0GNU\0\x01\x02\x03\x04";
        let mut file = vec![0; 52];
        file[28] = 52;
        file[44] = 2;
        let mut at = 52 + 64;
        for (kind, part) in [(1u32, data.as_slice()), (4, note.as_slice())] {
            let mut header = [0; 32];
            header[..4].copy_from_slice(&kind.to_le_bytes());
            header[4..8].copy_from_slice(&(at as u32).to_le_bytes());
            header[16..20].copy_from_slice(&(part.len() as u32).to_le_bytes());
            file.extend(header);
            at += part.len();
        }
        file.extend(data);
        file.extend(note);
        file
    }

    #[test]
    fn the_table_in_an_image_is_found_and_read() {
        let found = symbols(&image()).expect("a table");
        assert_eq!(found.len(), 300);
        for (number, symbol) in found.iter().enumerate() {
            assert_eq!(symbol.name, format!("f{number}"));
            assert_eq!(symbol.address, START + IMAGE + number as u64 * 16);
            assert_eq!(symbol.kind, if number < 200 { b'T' } else { b'd' });
        }
        assert!(symbol_file(&image()).is_some_and(|file| file.starts_with(b"\x7fELF\x02")));
    }

    #[test]
    fn what_is_damaged_is_not_taken_for_a_table() {
        let whole = image();
        for length in (0..whole.len()).step_by(7) {
            assert_eq!(symbols(&whole[..length]), None);
        }
    }
}
