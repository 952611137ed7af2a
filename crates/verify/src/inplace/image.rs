//! The hypervisor in memory, with payloads in it: uploaded, applied and reverted as Xen does it.
//!
//! Each stage takes the one before it, so that nothing can be applied that was not relocated, nor reverted that was not
//! applied.

use std::collections::BTreeSet;

use crate::elf;
use crate::layout::Placed;
use crate::payload::{Payload, R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32};
use crate::traits::EndbrRoom;
use crate::xen::{ENDBR, XenSymbols};

/// Bytes of `jmp rel32`.
pub(super) const JUMP: usize = 5;
/// The most bytes that Xen keeps of what it overwrites: opaque[31] of `struct livepatch_func`.
const MOST_SAVED: usize = 31;

/// The most memory that a payload may take here, in bytes: its file has at most 2 MiB.
const MOST_MEMORY: usize = 64 << 20;

/// The most pieces of memory: a hypervisor has some twenty.
const MOST_SEGMENTS: usize = 128;

/// Bytes at addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Segment {
    address: u64,
    bytes: Vec<u8>,
}

/// Memory: what the hypervisor's file holds, and what was put behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Image(Vec<Segment>);

/// Why a payload cannot be put into an image.
pub(super) type Obstacle = String;

impl Image {
    /// The hypervisor as its file has it; nothing of memory that begins as zeroes.
    ///
    /// # Errors
    /// A file that holds more than it has bytes, or in more pieces than any hypervisor's.
    pub(super) fn of(xen: &XenSymbols<'_>) -> Result<Image, Obstacle> {
        let size = xen.contents().try_fold(0usize, |size, (_, bytes)| size.checked_add(bytes.len()));
        if size.is_none_or(|size| size > xen.file_size()) {
            return Err("sections of the symbol file lie over one another".into());
        }
        if xen.contents().count() > MOST_SEGMENTS {
            return Err(format!("the symbol file has more than {MOST_SEGMENTS} sections with contents"));
        }
        let segment = |(address, bytes): (u64, &[u8])| Segment { address, bytes: bytes.to_vec() };
        Ok(Image(xen.contents().map(segment).collect()))
    }

    /// An image of given bytes.
    #[cfg(test)]
    pub(super) fn from_bytes(address: u64, bytes: &[u8]) -> Image {
        Image(vec![Segment { address, bytes: bytes.to_vec() }])
    }

    /// The image with a payload of nothing.
    #[cfg(test)]
    pub(super) fn uploaded(self) -> Uploaded {
        let before = self.0.len();
        Uploaded { image: self, before, relocations: 0 }
    }

    /// The bytes at an address, as many as there are up to `size`.
    pub(super) fn at(&self, address: u64, size: usize) -> &[u8] {
        let found = self.0.iter().find_map(|segment| {
            let offset = usize::try_from(address.checked_sub(segment.address)?).ok()?;
            segment.bytes.get(offset..).filter(|rest| !rest.is_empty())
        });
        let rest = found.unwrap_or_default();
        &rest[..rest.len().min(size)]
    }

    /// Exactly that many bytes.
    pub(super) fn exactly(&self, address: u64, size: usize) -> Option<&[u8]> {
        Some(self.at(address, size)).filter(|bytes| bytes.len() == size)
    }

    /// Overwrites bytes; `None` where not all of them are there.
    fn write(&mut self, address: u64, bytes: &[u8]) -> Option<()> {
        let place = self.0.iter_mut().find_map(|segment| {
            let offset = usize::try_from(address.checked_sub(segment.address)?).ok()?;
            segment.bytes.get_mut(offset..offset.checked_add(bytes.len())?)
        })?;
        place.copy_from_slice(bytes);
        Some(())
    }

    /// Copies a payload behind the image and relocates it (`move_payload` and `arch_livepatch_perform_rela`).
    ///
    /// # Errors
    /// When something has no address, does not fit, or is of a type that Xen does not know.
    pub(super) fn upload(mut self, payload: &Payload<'_>, placed: &Placed) -> Result<Uploaded, Obstacle> {
        let before = self.0.len();
        let size = usize::try_from(placed.size).ok().filter(|size| *size <= MOST_MEMORY);
        let size = size.ok_or("it takes more memory than any payload of this size needs")?;
        self.0.push(Segment { address: placed.text.start, bytes: vec![0; size] });
        for section in payload.sections.iter().filter(|section| section.is_loaded()) {
            let (Some(address), Some(data)) = (placed.section(section.index), section.data) else { continue };
            if data.is_empty() {
                continue;
            }
            self.write(address, data).ok_or_else(|| format!("{} has no place", section.name))?;
        }
        let mut relocations = 0;
        for group in &payload.relocations {
            let Some(base) = placed.section(group.target) else { continue };
            for relocation in &group.entries {
                let at = base.wrapping_add(relocation.offset);
                let Some(symbol) = placed.symbol(relocation.symbol) else {
                    return Err(format!("{} has no address", payload.symbol_name(relocation.symbol)));
                };
                let value = symbol.wrapping_add_signed(relocation.addend);
                let written = match relocation.kind {
                    R_X86_64_64 => self.write(at, &value.to_le_bytes()),
                    R_X86_64_PC32 | R_X86_64_PLT32 => {
                        let distance = value.wrapping_sub(at).cast_signed();
                        let field = i32::try_from(distance).ok();
                        field.and_then(|field| self.write(at, &field.to_le_bytes()))
                    }
                    _ => Some(()),
                };
                if written.is_none() {
                    return Err(format!("a relocation at {at:#x} cannot be applied"));
                }
                relocations += 1;
            }
        }
        Ok(Uploaded { image: self, before, relocations })
    }
}

/// An image with a payload in it that does nothing yet.
#[derive(Debug)]
pub(super) struct Uploaded {
    image: Image,
    /// How many segments there were before.
    before: usize,
    /// Relocations that were applied.
    pub(super) relocations: usize,
}

/// What is done to one function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Patch {
    /// The entry's name.
    pub(super) name: String,
    /// The function to replace.
    pub(super) old: u64,
    /// Its size in bytes.
    pub(super) old_size: u32,
    /// What replaces it; 0 for NOPs.
    pub(super) new: u64,
    /// Bytes of the replacement, or of NOPs.
    pub(super) new_size: u32,
}

impl Uploaded {
    /// The memory.
    pub(super) fn image(&self) -> &Image {
        &self.image
    }

    /// Writes all jumps and NOPs in the order of the entries (`arch_livepatch_apply`, xen/arch/x86/livepatch.c).
    ///
    /// # Errors
    /// Where the image has no bytes at the place, or the distance does not fit.
    pub(super) fn apply(self, patches: Vec<Patch>, room: EndbrRoom) -> Result<Applied, Obstacle> {
        let Uploaded { mut image, before, .. } = self;
        let clean = image.clone();
        let mut saved = Vec::new();
        for patch in &patches {
            let behind = entry_length(image.at(patch.old, ENDBR.len()), room);
            let at = patch.old.wrapping_add(behind as u64);
            let code = match patch.new {
                0 => vec![0x90; (patch.new_size as usize).saturating_sub(behind).min(MOST_SAVED)],
                new => {
                    let distance = new.wrapping_sub(at.wrapping_add(JUMP as u64)).cast_signed();
                    let field = i32::try_from(distance)
                        .map_err(|_| format!("{} is too far from its replacement", patch.name))?;
                    [&[0xe9][..], &field.to_le_bytes()].concat()
                }
            };
            let Some(original) = image.exactly(at, code.len()).map(<[u8]>::to_vec) else {
                return Err(format!("the symbol file does not hold the code of {}", patch.name));
            };
            image.write(at, &code).ok_or_else(|| format!("{} cannot be written", patch.name))?;
            saved.push((at, original));
        }
        let replacements = patches.iter().map(|patch| patch.new).collect();
        Ok(Applied { image, clean, before, patches, replacements, saved })
    }
}

/// How many bytes Xen leaves in front of its jump.
fn entry_length(code: &[u8], room: EndbrRoom) -> usize {
    let kept = match room {
        EndbrRoom::None => false,
        EndbrRoom::Endbr => code == ENDBR,
        EndbrRoom::EndbrOrPoison => elf::starts_with_endbr(code),
    };
    if kept { ENDBR.len() } else { 0 }
}

/// An image in which a payload is active.
#[derive(Debug)]
pub(super) struct Applied {
    image: Image,
    /// The image with the payload uploaded only.
    clean: Image,
    before: usize,
    patches: Vec<Patch>,
    /// Where the replacements are.
    replacements: BTreeSet<u64>,
    /// What was overwritten, in the order of the entries.
    saved: Vec<(u64, Vec<u8>)>,
}

impl Applied {
    /// The memory.
    pub(super) fn image(&self) -> &Image {
        &self.image
    }

    /// What was done.
    pub(super) fn patches(&self) -> &[Patch] {
        &self.patches
    }

    /// Whether an address is that of a replacement.
    pub(super) fn is_replacement(&self, address: u64) -> bool {
        self.replacements.contains(&address)
    }

    /// Puts back what was saved, in the order of the entries as Xen does (`revert_payload`, xen/common/livepatch.c).
    pub(super) fn revert(mut self) -> Reverted {
        for (at, bytes) in &self.saved {
            // It was written there before, so there is room.
            let _ = self.image.write(*at, bytes);
        }
        let first = self.image.first_difference(&self.clean);
        self.image.0.truncate(self.before);
        Reverted { image: self.image, difference: first }
    }

    /// The image as the next payload finds it.
    pub(super) fn keep(self) -> Image {
        self.image
    }
}

/// An image from which a payload is gone.
#[derive(Debug)]
pub(super) struct Reverted {
    image: Image,
    /// The first address at which the image is not what it was when the payload was uploaded.
    difference: Option<u64>,
}

impl Reverted {
    /// The first address at which it differs from an image; `None` if they are identical.
    pub(super) fn differs_from(&self, before: &Image) -> Option<u64> {
        self.difference.or_else(|| self.image.first_difference(before))
    }
}

impl Image {
    fn first_difference(&self, other: &Image) -> Option<u64> {
        let differs = |(one, two): (&Segment, &Segment)| {
            if one == two {
                return None;
            }
            let at = one.bytes.iter().zip(&two.bytes).position(|(a, b)| a != b);
            Some(one.address.wrapping_add(at.unwrap_or_default() as u64))
        };
        let first = self.0.iter().zip(&other.0).find_map(differs);
        first.or_else(|| {
            let longer = if self.0.len() > other.0.len() { self } else { other };
            longer.0.get(self.0.len().min(other.0.len())).map(|segment| segment.address)
        })
    }
}
