//! Linked hypervisors, and a payload loaded beside one: bytes at addresses, and names.
//!
//! Read with another parser than the code under test, and with a loader of some lines.

use std::collections::{BTreeMap, BTreeSet};

use goblin::elf::section_header::{SHF_ALLOC, SHF_EXECINSTR, SHN_ABS, SHT_NOBITS, SHT_RELA};
use goblin::elf::sym::{STT_FILE, STT_FUNC, STT_SECTION};
use goblin::elf::{Elf, reloc};

/// A stretch of memory.
pub struct Range {
    pub name: String,
    pub start: u64,
    pub bytes: Vec<u8>,
    pub executable: bool,
}

/// A name.
#[derive(Debug, Clone)]
pub struct Name {
    /// As the hypervisor's own table has it.
    pub table: String,
    pub address: u64,
    pub size: u64,
    pub function: bool,
}

/// Memory with names.
pub struct Image {
    pub ranges: Vec<Range>,
    pub names: Vec<Name>,
}

/// An entry of `.livepatch.funcs`.
#[derive(Debug)]
pub struct Func {
    pub name: String,
    pub old_addr: u64,
    pub new_addr: u64,
    pub new_size: u64,
    pub old_size: u64,
}

impl Image {
    /// A linked hypervisor.
    pub fn linked(bytes: &[u8]) -> Result<Image, String> {
        let elf = Elf::parse(bytes).map_err(|e| e.to_string())?;
        let mut image = Image { ranges: Vec::new(), names: Vec::new() };
        for section in elf.section_headers.iter().filter(|s| s.sh_flags & u64::from(SHF_ALLOC) != 0) {
            let data = match section.file_range().filter(|_| section.sh_type != SHT_NOBITS) {
                Some(range) => bytes[range].to_vec(),
                None => vec![0; section.sh_size as usize],
            };
            image.ranges.push(Range {
                name: elf.shdr_strtab.get_at(section.sh_name).unwrap_or("").to_owned(),
                start: section.sh_addr,
                bytes: data,
                executable: section.sh_flags & u64::from(SHF_EXECINSTR) != 0,
            });
        }
        let mut file = String::new();
        for symbol in &elf.syms {
            let name = elf.strtab.get_at(symbol.st_name).unwrap_or("");
            match symbol.st_type() {
                STT_FILE => name.clone_into(&mut file),
                STT_SECTION => {}
                kind if !name.is_empty() && symbol.st_shndx != 0 => image.names.push(Name {
                    table: if symbol.st_bind() == 0 && !file.is_empty() {
                        format!("{file}#{name}")
                    } else {
                        name.to_owned()
                    },
                    address: symbol.st_value,
                    size: symbol.st_size,
                    function: kind == STT_FUNC,
                }),
                _ => {}
            }
        }
        Ok(image)
    }

    /// A payload, loaded behind a hypervisor whose names it looks up.
    pub fn loaded(payload: &[u8], hypervisor: &Image) -> Result<(Image, Vec<Func>), String> {
        let elf = Elf::parse(payload).map_err(|e| e.to_string())?;
        let mut next = hypervisor.ranges.iter().map(|r| r.start + r.bytes.len() as u64).max().unwrap_or(0);
        next = next.next_multiple_of(0x20_0000);
        let mut image = Image { ranges: Vec::new(), names: Vec::new() };
        let mut places = BTreeMap::new();
        for (index, section) in elf.section_headers.iter().enumerate() {
            if section.sh_flags & u64::from(SHF_ALLOC) == 0 {
                continue;
            }
            let data = match section.file_range().filter(|_| section.sh_type != SHT_NOBITS) {
                Some(range) => payload[range].to_vec(),
                None => vec![0; section.sh_size as usize],
            };
            // Each on a page of its own, so that no distance is right by chance.
            next = next.next_multiple_of(4096).next_multiple_of(section.sh_addralign.max(1));
            places.insert(index, image.ranges.len());
            next += data.len() as u64;
            image.ranges.push(Range {
                name: elf.shdr_strtab.get_at(section.sh_name).unwrap_or("").to_owned(),
                start: next - data.len() as u64,
                bytes: data,
                executable: section.sh_flags & u64::from(SHF_EXECINSTR) != 0,
            });
        }
        let mut addresses = Vec::new();
        for symbol in &elf.syms {
            let name = elf.strtab.get_at(symbol.st_name).unwrap_or("");
            let address = match places.get(&symbol.st_shndx) {
                Some(&range) => image.ranges[range].start.wrapping_add(symbol.st_value),
                None if name.is_empty() => 0,
                None if symbol.st_shndx == SHN_ABS as usize => symbol.st_value,
                None => hypervisor.address(name)?,
            };
            if places.contains_key(&symbol.st_shndx) && !name.is_empty() {
                image.names.push(Name {
                    table: name.to_owned(),
                    address,
                    size: symbol.st_size,
                    function: symbol.st_type() == STT_FUNC,
                });
            }
            addresses.push(address);
        }
        for (index, relocations) in &elf.shdr_relocs {
            let section = &elf.section_headers[*index];
            let Some(&range) = places.get(&(section.sh_info as usize)) else { continue };
            if section.sh_type != SHT_RELA {
                return Err("a relocation section without addends".into());
            }
            for relocation in relocations {
                let range = &mut image.ranges[range];
                let symbol = addresses.get(relocation.r_sym).ok_or("a relocation names no symbol")?;
                let value = symbol.wrapping_add_signed(relocation.r_addend.unwrap_or(0));
                let at = relocation.r_offset as usize;
                let distance =
                    value.wrapping_sub(range.start.wrapping_add(relocation.r_offset)).cast_signed();
                let mut put = |bytes: &[u8]| {
                    let field = range.bytes.get_mut(at..at.saturating_add(bytes.len()));
                    field
                        .ok_or("a relocation is outside its section")
                        .map(|field| field.copy_from_slice(bytes))
                };
                match relocation.r_type {
                    reloc::R_X86_64_64 => put(&value.to_le_bytes())?,
                    reloc::R_X86_64_PC32 | reloc::R_X86_64_PLT32 => {
                        let short = i32::try_from(distance).map_err(|_| "a distance does not fit")?;
                        put(&short.to_le_bytes())?;
                    }
                    other => return Err(format!("relocation type {other} in the payload")),
                }
            }
        }
        let funcs = image.funcs(hypervisor)?;
        Ok((image, funcs))
    }

    fn funcs(&self, hypervisor: &Image) -> Result<Vec<Func>, String> {
        let mut funcs = Vec::new();
        let Some(section) = self.range(".livepatch.funcs") else { return Ok(funcs) };
        for entry in section.bytes.chunks(104) {
            let word = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().expect("eight bytes"));
            let half = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().expect("four bytes"));
            let name = self.text(word(0)).ok_or("the name of a replaced function is not there")?;
            let old = match word(16) {
                0 => hypervisor.address(&name)?,
                address => address,
            };
            if entry[72..] != expectation(hypervisor, old, half(28).into()) {
                return Err(format!("the entry of {name} expects {:02x?}", &entry[72..]));
            }
            if entry[32] != 2 || entry[33..72].iter().any(|&b| b != 0) {
                return Err(format!("the entry of {name} holds other things than it should"));
            }
            funcs.push(Func {
                name,
                old_addr: old,
                new_addr: word(8),
                new_size: half(24).into(),
                old_size: half(28).into(),
            });
        }
        Ok(funcs)
    }

    /// Addresses of the bytes that boot rewrites: alternatives with their padding, and calls to be made direct.
    fn rewritten(&self) -> BTreeSet<u64> {
        let bounds = |start: &str, end: &str| self.address(start).and_then(|s| Ok(s..self.address(end)?));
        let mut all = BTreeSet::new();
        for at in bounds("__alt_instructions", "__alt_instructions_end").unwrap_or(0..0).step_by(14) {
            let lengths = self.bytes(at + 10, 3).unwrap_or(&[0; 3]);
            let start = self.follow(at, at, 32).unwrap_or_default();
            all.extend(start..start + u64::from(lengths[0]) + u64::from(lengths[2]));
        }
        for at in bounds("__alt_call_sites_start", "__alt_call_sites_end").unwrap_or(0..0).step_by(4) {
            let start = self.follow(at, at, 32).unwrap_or_default();
            all.extend(start..start + 6);
        }
        all
    }

    /// The one address of a name.
    pub fn address(&self, name: &str) -> Result<u64, String> {
        let mut all = self.names.iter().filter(|n| n.table == name).map(|n| n.address);
        let first = all.next().ok_or_else(|| format!("the hypervisor has no {name}"))?;
        if all.all(|other| other == first) { Ok(first) } else { Err(format!("there are several {name}")) }
    }

    /// A section by its name.
    pub fn range(&self, name: &str) -> Option<&Range> {
        self.ranges.iter().find(|range| range.name == name)
    }

    /// The section that holds an address.
    pub fn range_at(&self, address: u64) -> Option<&Range> {
        self.ranges.iter().find(|r| r.start <= address && address - r.start < r.bytes.len() as u64)
    }

    /// Bytes at an address.
    pub fn bytes(&self, address: u64, len: u64) -> Option<&[u8]> {
        let range = self.range_at(address)?;
        let from = (address - range.start) as usize;
        range.bytes.get(from..from.saturating_add(len as usize))
    }

    /// Bytes from an address to the end of its section.
    pub fn rest(&self, address: u64) -> &[u8] {
        self.range_at(address).map_or(&[], |r| &r.bytes[(address - r.start) as usize..])
    }

    /// Whether anything is at an address.
    pub fn holds(&self, address: u64) -> bool {
        self.range_at(address).is_some()
    }

    /// A 32-bit distance at an address, made an address; the low `bits` of it count.
    pub fn follow(&self, at: u64, from: u64, bits: u32) -> Option<u64> {
        let word = i32::from_le_bytes(self.bytes(at, 4)?.try_into().ok()?);
        let distance = word << (32 - bits) >> (32 - bits);
        Some(from.wrapping_add_signed(distance.into()))
    }

    /// The string at an address, of characters of so many bytes, without its end.
    pub fn string(&self, address: u64, width: usize) -> Option<Vec<u8>> {
        let rest = self.rest(address);
        let end = rest.chunks(width).position(|unit| unit.iter().all(|&b| b == 0))?;
        Some(rest[..end * width].to_vec())
    }

    /// The string at an address.
    pub fn text(&self, address: u64) -> Option<String> {
        let rest = self.rest(address);
        let end = rest.iter().position(|&b| b == 0)?;
        Some(String::from_utf8_lossy(&rest[..end]).into_owned())
    }

    /// The names that cover an address, with the distance from each.
    pub fn covering(&self, address: u64) -> Vec<(&Name, u64)> {
        let covers = |n: &&Name| n.address == address || n.address < address && address - n.address < n.size;
        self.names.iter().filter(covers).map(|n| (n, address - n.address)).collect()
    }
}

/// What an entry is to expect of a function at that address: a byte with bit 0 set and the number of bytes above it,
/// then what is shipped there, up to 31 bytes and the first that boot rewrites. Zeroes where nothing of the function's
/// own is left; ENDBR64 says nothing.
fn expectation(hypervisor: &Image, old: u64, size: u64) -> [u8; 32] {
    let rewritten = hypervisor.rewritten();
    let kept = (old..old + size.min(31)).take_while(|address| !rewritten.contains(address)).count() as u64;
    let code = hypervisor.bytes(old, kept).unwrap_or_default();
    let mut expected = [0; 32];
    if !matches!(code, [] | [0xf3] | [0xf3, 0x0f] | [0xf3, 0x0f, 0x1e] | [0xf3, 0x0f, 0x1e, 0xfa]) {
        expected[0] = 1 + 2 * kept as u8;
        expected[1..=code.len()].copy_from_slice(code);
    }
    expected
}
