//! Payloads that are wrong in one way each, for comparing what a verifier says with what a booted Xen answers.
//!
//! Each damage changes a few bytes of a sound payload. Offsets are those of ELF64 and of `struct livepatch_func` of
//! version 2 (104 bytes). Alignment 0 is left out: it puts sections over each other, and what the loader answers then
//! depends on what it finds there.

/// A way to damage a payload.
pub struct Damage {
    /// Also the name of the damaged payload.
    pub name: &'static str,
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

macro_rules! damages {
    ($($name:literal: |$e:ident| $change:expr;)*) => {
        /// All of them.
        pub const ALL: &[Damage] = &[$(Damage { name: $name, change: |$e: &mut Editor| $change }),*];
    };
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
const ALIGNMENT: (usize, usize) = (48, 8);
const ENTRY_SIZE: (usize, usize) = (56, 8);

damages! {
    "sound": |_e| Some(());
    "class": |e| e.put(4, 1, 1);
    "abi": |e| e.put(7, 1, 3);
    "abi-freebsd": |e| e.put(7, 1, 9);
    "program-headers": |e| e.put(56, 2, 1);
    "section-header-size": |e| e.put(58, 2, 56);
    "no-names": |e| e.put(62, 2, 0);
    "section-offset": |e| e.set(e.code()?, OFFSET, 0);
    "alignment-3": |e| e.set(e.code()?, ALIGNMENT, 3);
    "address": |e| e.set(e.code()?, ADDRESS, 1);
    "writable-code": |e| e.set(e.code()?, FLAGS, 7);
    "two-symbol-tables": |e| e.set(e.relocations_of(FUNCS)?, TYPE, 2);
    "no-symbol-table": |e| e.set(e.symbols()?, TYPE, 1);
    "symbol-size": |e| e.set(e.symbols()?, ENTRY_SIZE, 25);
    "string-table": |e| e.set(e.strings()?, TYPE, 1);
    "section-name": |e| e.set(e.code()?, NAME, 0xff_ffff);
    "symbol-name": |e| e.put(e.undefined()?, 4, 0xff_ffff);
    "symbol-common": |e| e.put(e.undefined()? + 6, 2, 0xfff2);
    "symbol-nowhere": |e| e.put(e.undefined()? + 6, 2, 0x300);
    "symbol-reserved": |e| e.put(e.undefined()? + 6, 2, 0xff20);
    "symbol-unknown": |e| e.forget_name();
    "symbol-taken": |e| { let at = e.undefined()?; let code = e.code()?; e.put(at + 6, 2, code as u64)?; e.put(at + 8, 8, 1) };
    "relocation-type": |e| e.put(e.relocation()? + 8, 4, 11);
    "relocation-symbol-0": |e| e.put(e.relocation()? + 12, 4, 0);
    "relocation-symbol": |e| e.put(e.relocation()? + 12, 4, 0xffff);
    "relocation-offset": |e| { let size = e.get(e.code()?, SIZE)?; e.put(e.relocation()?, 8, size) };
    "relocation-link": |e| e.set(e.relocations()?, LINK, 1);
    "relocation-size": |e| e.set(e.relocations()?, ENTRY_SIZE, 25);
    "relocation-no-addends": |e| e.set(e.relocations()?, TYPE, 9);
    "displacement": |e| { let symbol = e.symbol_of(e.relocation()?)?; e.put(symbol + 6, 2, 0xfff1)?; e.put(symbol + 8, 8, 0) };
    "own-note": |e| e.in_section(OWN, 8, 4, 1);
    "own-note-name": |e| { e.in_section(OWN, 0, 4, 8)?; e.in_section(OWN, 4, 4, 16) };
    "depends-note": |e| e.in_section(DEPENDS, 8, 4, 1);
    "xen-note": |e| e.in_section(XEN_DEPENDS, 8, 4, 1);
    "depends-id": |e| e.in_section(DEPENDS, 20, 8, 0);
    "xen-id": |e| e.in_section(XEN_DEPENDS, 20, 8, 0);
    "depends-empty": |e| e.set(e.section(DEPENDS)?, SIZE, 0);
    "xen-empty": |e| e.set(e.section(XEN_DEPENDS)?, SIZE, 0);
    "unknown-and-other-xen": |e| { e.forget_name()?; e.in_section(XEN_DEPENDS, 20, 8, 0) };
    "functions-size": |e| e.set(e.section(FUNCS)?, SIZE, 103);
    "functions-read-only": |e| e.set(e.section(FUNCS)?, FLAGS, 2);
    "function-version": |e| e.in_section(FUNCS, 32, 1, 1);
    "function-padding": |e| e.in_section(FUNCS, 40, 1, 1);
    "old-size-0": |e| e.in_section(FUNCS, 28, 4, 0);
    "old-size-4": |e| e.in_section(FUNCS, 28, 4, 4);
    "old-name": |e| e.in_section(".livepatch.strings", 0, 1, u64::from(b'!'));
    "old-name-and-size": |e| { e.in_section(".livepatch.strings", 0, 1, u64::from(b'!'))?; e.in_section(FUNCS, 28, 4, 4) };
    "nops-32": |e| { e.in_section(FUNCS, 24, 4, 32)?; e.no_replacement() };
    "nops-too-many": |e| { e.in_section(FUNCS, 24, 4, 12)?; e.in_section(FUNCS, 28, 4, 11)?; e.no_replacement() };
    "expectation": |e| e.in_section(FUNCS, 72, 4, 0x00ad_de05);
    "expectation-reserved": |e| e.in_section(FUNCS, 72, 1, 0x41);
    "expectation-length": |e| { e.in_section(FUNCS, 72, 1, 0x3f)?; e.in_section(FUNCS, 28, 4, 16) };
    "metadata": |e| { let size = e.get(e.section(".modinfo")?, SIZE)?; e.in_section(".modinfo", size.checked_sub(1)? as usize, 1, 1) };
}

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
