//! Payloads that are wrong in one way each, for comparing what a verifier says with what a booted Xen answers.
//!
//! Each damage changes a few bytes of a sound payload. Offsets are those of ELF64 and of `struct livepatch_func` of
//! version 2 (104 bytes). Alignment 0 is left out: it puts sections over each other, and what the loader answers then
//! depends on what it finds there.

mod list;

pub use list::ALL;

/// Which payload is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// One that xsplice built; that of [`crate::sample`] where there is none for that Xen.
    Built,
    /// That of [`crate::sample`].
    Made,
}

/// What is loaded already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loaded {
    /// Nothing.
    Nothing,
    /// The sound payload under another name.
    Sound,
    /// The sound payload under the name of the damaged one.
    SameName,
}

/// What a verifier must say of a damaged payload; the codes are those of xsplice-verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meant {
    /// It is accepted and safe.
    Sound,
    /// The loader refuses it, by the rule with this code.
    Refused(&'static str),
    /// The loader takes it, and the host pays, by the rule with this code.
    Host(&'static str),
    /// The same, and the host pays at upload: only a verifier is asked.
    Kills(&'static str),
    /// It depends on the version: from which minor version of Xen 4 on, in ascending order.
    Since(&'static [(u32, Meant)]),
}

impl Meant {
    /// What is meant for a minor version of Xen 4.
    pub fn of(self, minor: u32) -> Meant {
        match self {
            Meant::Since(all) => {
                let last = all.iter().rev().find(|(since, _)| *since <= minor).or(all.first());
                last.map_or(Meant::Sound, |(_, meant)| meant.of(minor))
            }
            other => other,
        }
    }

    /// The code of the rule.
    pub fn code(self) -> Option<&'static str> {
        match self {
            Meant::Refused(code) | Meant::Host(code) | Meant::Kills(code) => Some(code),
            Meant::Sound => None,
            Meant::Since(all) => all.first().and_then(|(_, meant)| meant.code()),
        }
    }
}

/// A way to damage a payload.
pub struct Damage {
    /// Also the name of the damaged payload.
    pub name: &'static str,
    /// What is wrong, in a few words.
    pub what: &'static str,
    /// What is damaged.
    pub base: Base,
    /// What is loaded before it is uploaded.
    pub loaded: Loaded,
    /// The rule that it breaks.
    pub meant: Meant,
    change: fn(&mut Editor) -> Option<()>,
}

impl Damage {
    /// The damaged payload; `None` if the sound one lacks what is to be damaged.
    pub fn of(&self, payload: &[u8]) -> Option<Vec<u8>> {
        let mut editor = Editor(payload.to_vec());
        (self.change)(&mut editor)?;
        Some(editor.0)
    }
}

const FUNCS: &str = ".livepatch.funcs";
const DEPENDS: &str = ".livepatch.depends";
const XEN_DEPENDS: &str = ".livepatch.xen_depends";
const OWN: &str = ".note.gnu.build-id";

// Fields of a section header, each an offset and a size.
const NAME: (usize, usize) = (0, 4);
const TYPE: (usize, usize) = (4, 4);
const FLAGS: (usize, usize) = (8, 8);
const ADDRESS: (usize, usize) = (16, 8);
const OFFSET: (usize, usize) = (24, 8);
const SIZE: (usize, usize) = (32, 8);
const LINK: (usize, usize) = (40, 4);
const INFO: (usize, usize) = (44, 4);
const ALIGNMENT: (usize, usize) = (48, 8);
const ENTRY_SIZE: (usize, usize) = (56, 8);

/// A payload's bytes, by what they mean.
struct Editor(Vec<u8>);

impl Editor {
    fn number(&self, at: usize, size: usize) -> Option<u64> {
        let mut value = [0; 8];
        value.get_mut(..size)?.copy_from_slice(self.0.get(at..at.checked_add(size)?)?);
        Some(u64::from_le_bytes(value))
    }

    fn put(&mut self, at: usize, size: usize, value: u64) -> Option<()> {
        self.0.get_mut(at..at.checked_add(size)?)?.copy_from_slice(value.to_le_bytes().get(..size)?);
        Some(())
    }

    fn header(&self, section: usize) -> Option<usize> {
        usize::try_from(self.number(40, 8)?).ok()?.checked_add(section * 64)
    }

    /// A field of a section header.
    fn get(&self, section: usize, (at, size): (usize, usize)) -> Option<u64> {
        self.number(self.header(section)? + at, size)
    }

    /// Changes a field of a section header.
    fn set(&mut self, section: usize, (at, size): (usize, usize), value: u64) -> Option<()> {
        self.put(self.header(section)? + at, size, value)
    }

    fn start(&self, section: usize) -> Option<usize> {
        usize::try_from(self.get(section, OFFSET)?).ok()
    }

    /// Changes what a section holds.
    fn in_section(&mut self, name: &str, at: usize, size: usize, value: u64) -> Option<()> {
        let start = self.start(self.section(name)?)?;
        self.put(start + at, size, value)
    }

    fn find(&self, test: impl Fn(&Editor, usize) -> Option<bool>) -> Option<usize> {
        (1..self.number(60, 2)? as usize).find(|&section| test(self, section) == Some(true))
    }

    fn section(&self, name: &str) -> Option<usize> {
        let names = self.start(self.number(62, 2)? as usize)?;
        self.find(|e, section| {
            let at = names.checked_add(e.get(section, NAME)? as usize)?;
            Some(e.0.get(at..)?.split(|byte| *byte == 0).next()? == name.as_bytes())
        })
    }

    /// The first section of code that is not empty.
    fn code(&self) -> Option<usize> {
        self.find(|e, section| Some(e.get(section, FLAGS)? & 6 == 6 && e.get(section, SIZE)? > 0))
    }

    fn symbols(&self) -> Option<usize> {
        self.find(|e, section| Some(e.get(section, TYPE)? == 2))
    }

    fn strings(&self) -> Option<usize> {
        Some(self.get(self.symbols()?, LINK)? as usize)
    }

    /// Where the first undefined symbol stands.
    fn undefined(&self) -> Option<usize> {
        let table = self.symbols()?;
        let (start, count) = (self.start(table)?, self.get(table, SIZE)? as usize / 24);
        (1..count).map(|index| start + index * 24).find(|at| self.number(at + 6, 2) == Some(0))
    }

    /// Changes the first undefined symbol's name to one that nobody has.
    fn forget_name(&mut self) -> Option<()> {
        let name = self.number(self.undefined()?, 4)? as usize;
        self.put(self.start(self.strings()?)? + name, 1, u64::from(b'!'))
    }

    /// The relocations of the section of code.
    fn relocations(&self) -> Option<usize> {
        let code = self.code()? as u64;
        self.find(|e, section| Some(e.get(section, TYPE)? == 4 && e.get(section, (44, 4))? == code))
    }

    fn relocations_of(&self, name: &str) -> Option<usize> {
        let target = self.section(name)? as u64;
        self.find(|e, section| Some(e.get(section, TYPE)? == 4 && e.get(section, (44, 4))? == target))
    }

    /// Where the first relocation of code stands.
    fn relocation(&self) -> Option<usize> {
        self.start(self.relocations()?)
    }

    /// Where the symbol of a relocation stands.
    fn symbol_of(&self, relocation: usize) -> Option<usize> {
        Some(self.start(self.symbols()?)? + self.number(relocation + 12, 4)? as usize * 24)
    }

    /// Where a text stands in a string table, NULs around it.
    fn text(&self, table: usize, text: &str) -> Option<u64> {
        let start = self.start(table)?;
        let bytes = self.0.get(start..)?.get(..self.get(table, SIZE)? as usize)?;
        let wanted = [b"\0", text.as_bytes(), b"\0"].concat();
        Some(bytes.windows(wanted.len()).position(|window| window == wanted)? as u64 + 1)
    }

    /// Gives a section another name, one of those in the table.
    fn rename(&mut self, section: &str, name: &str) -> Option<()> {
        let names = self.number(62, 2)? as usize;
        let (section, at) = (self.section(section)?, self.text(names, name)?);
        self.set(section, NAME, at)
    }

    /// Takes a section away from a loader: its name loses its dot, which nobody looks for.
    fn hide(&mut self, section: &str) -> Option<()> {
        let section = self.section(section)?;
        let name = self.get(section, NAME)?;
        self.set(section, NAME, name + 1)
    }

    /// Copies what a section holds to another of its size.
    fn copy(&mut self, from: &str, to: &str) -> Option<()> {
        let (from, to) = (self.section(from)?, self.section(to)?);
        let (start, size) = (self.start(from)?, self.get(from, SIZE)? as usize);
        (self.get(to, SIZE)? as usize == size).then_some(())?;
        let bytes = self.0.get(start..start.checked_add(size)?)?.to_vec();
        let start = self.start(to)?;
        self.0.get_mut(start..start.checked_add(size)?)?.copy_from_slice(&bytes);
        Some(())
    }

    /// Empties a section, and its relocations.
    fn empty(&mut self, section: &str) -> Option<()> {
        let (number, relocations) = (self.section(section)?, self.relocations_of(section)?);
        self.set(number, SIZE, 0)?;
        self.set(relocations, SIZE, 0)
    }

    /// Gives the first undefined symbol another name, one of those in the table.
    fn look_up(&mut self, name: &str) -> Option<()> {
        let at = self.text(self.strings()?, name)?;
        self.put(self.undefined()?, 4, at)
    }

    /// Where the symbol of this name stands.
    fn symbol(&self, name: &str) -> Option<usize> {
        let wanted = self.text(self.strings()?, name)?;
        let table = self.symbols()?;
        let (start, count) = (self.start(table)?, self.get(table, SIZE)? as usize / 24);
        (1..count).map(|index| start + index * 24).find(|at| self.number(*at, 4) == Some(wanted))
    }

    /// The number of the symbol of this name.
    fn symbol_number(&self, name: &str) -> Option<u64> {
        Some((self.symbol(name)? - self.start(self.symbols()?)?) as u64 / 24)
    }

    /// Where the relocation of this field of a section stands.
    fn relocation_of(&self, section: &str, offset: u64) -> Option<usize> {
        let table = self.relocations_of(section)?;
        let (start, count) = (self.start(table)?, self.get(table, SIZE)? as usize / 24);
        (0..count).map(|index| start + index * 24).find(|at| self.number(*at, 8) == Some(offset))
    }

    /// Lets a field refer to another place: the symbol of this name and a distance.
    fn refer(&mut self, section: &str, offset: u64, symbol: &str, addend: i64) -> Option<()> {
        let (at, symbol) = (self.relocation_of(section, offset)?, self.symbol_number(symbol)?);
        self.put(at + 12, 4, symbol)?;
        self.put(at + 16, 8, addend as u64)
    }

    /// Changes the type of a field's relocation.
    fn retype(&mut self, section: &str, offset: u64, kind: u64) -> Option<()> {
        self.put(self.relocation_of(section, offset)? + 8, 4, kind)
    }

    /// Gives the first entry the old address that its idle relocation names.
    fn old_address(&mut self) -> Option<()> {
        self.retype(FUNCS, 16, 1)
    }

    /// Takes the relocation of the first entry's new address away: NOPs are asked for.
    fn no_replacement(&mut self) -> Option<()> {
        let table = self.relocations_of(FUNCS)?;
        let (start, count) = (self.start(table)?, self.get(table, SIZE)? as usize / 24);
        let at = (0..count).map(|index| start + index * 24).find(|at| self.number(*at, 8) == Some(8))?;
        self.put(at + 8, 4, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damages_have_names_of_their_own_and_survive_what_is_no_payload() {
        for (index, damage) in ALL.iter().enumerate() {
            assert!(ALL[..index].iter().all(|other| other.name != damage.name), "{}", damage.name);
            for bytes in [&b""[..], &[0xff; 63], &[0xff; 200], &[0; 200]] {
                let _ = damage.of(bytes);
            }
        }
    }
}
