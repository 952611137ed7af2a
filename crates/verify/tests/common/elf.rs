//! Writes ELF64 files, sound or not.

pub const PROGBITS: u32 = 1;
pub const SYMTAB: u32 = 2;
pub const STRTAB: u32 = 3;
pub const RELA: u32 = 4;
pub const NOTE: u32 = 7;
pub const NOBITS: u32 = 8;

pub const W: u64 = 1;
pub const A: u64 = 2;
pub const X: u64 = 4;

pub const ABS: u16 = 0xfff1;
pub const COMMON: u16 = 0xfff2;

pub const FUNC: u8 = 2;
pub const OBJECT: u8 = 1;
pub const SECTION: u8 = 3;
pub const FILE: u8 = 4;
pub const LOCAL: u8 = 0;
pub const GLOBAL: u8 = 1;

pub const R_64: u32 = 1;
pub const R_PC32: u32 = 2;
pub const R_PLT32: u32 = 4;

#[derive(Clone, Debug)]
pub struct Sec {
    pub name: String,
    pub kind: u32,
    pub flags: u64,
    pub addr: u64,
    pub align: u64,
    pub data: Vec<u8>,
    /// Size where it is not that of `data`.
    pub size: Option<u64>,
    /// Offset in the file where it is not the natural one.
    pub offset: Option<u64>,
    pub entsize: u64,
    pub link: u32,
    pub info: u32,
    pub relocations: Vec<Rel>,
    /// Changes to the relocation section: type, link and entry size.
    pub rela_kind: u32,
    pub rela_link: Option<u32>,
    pub rela_entsize: u64,
}

#[derive(Clone, Debug)]
pub struct Rel {
    pub offset: u64,
    pub kind: u32,
    /// Name of a symbol; see [`Elf::symbol_index`].
    pub symbol: String,
    pub addend: i64,
}

#[derive(Clone, Debug)]
pub struct Sym {
    pub name: String,
    pub section: u16,
    pub value: u64,
    pub size: u64,
    pub kind: u8,
    pub binding: u8,
}

#[derive(Clone, Debug)]
pub struct Elf {
    pub kind: u16,
    pub machine: u16,
    pub ident: [u8; 16],
    pub version: u32,
    pub phnum: u16,
    pub shstrndx: Option<u16>,
    pub shnum: Option<u16>,
    pub shoff: Option<u64>,
    pub shentsize: u16,
    pub sections: Vec<Sec>,
    pub symbols: Vec<Sym>,
    /// Changes to the symbol table: entry size and link.
    pub symtab_entsize: u64,
    pub symtab_link: Option<u32>,
    pub symtab_kind: u32,
    pub strtab_kind: u32,
    /// Bytes put behind the names of symbols.
    pub strtab_tail: Vec<u8>,
}

impl Elf {
    pub fn new(kind: u16) -> Elf {
        let mut ident = [0; 16];
        ident[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        Elf {
            kind,
            machine: 62,
            ident,
            version: 1,
            phnum: 0,
            shstrndx: None,
            shnum: None,
            shoff: None,
            shentsize: 64,
            sections: Vec::new(),
            symbols: Vec::new(),
            symtab_entsize: 24,
            symtab_link: None,
            symtab_kind: SYMTAB,
            strtab_kind: STRTAB,
            strtab_tail: Vec::new(),
        }
    }

    /// Adds a section; returns its index.
    pub fn add(&mut self, name: &str, kind: u32, flags: u64, align: u64, data: &[u8]) -> u16 {
        self.sections.push(Sec {
            name: name.to_string(),
            kind,
            flags,
            addr: 0,
            align,
            data: data.to_vec(),
            size: None,
            offset: None,
            entsize: 0,
            link: 0,
            info: 0,
            relocations: Vec::new(),
            rela_kind: RELA,
            rela_link: None,
            rela_entsize: 24,
        });
        self.sections.len() as u16
    }

    pub fn index(&self, name: &str) -> u16 {
        1 + self.sections.iter().position(|s| s.name == name).unwrap_or_else(|| panic!("no {name}")) as u16
    }

    pub fn sec(&mut self, name: &str) -> &mut Sec {
        let index = self.index(name);
        &mut self.sections[usize::from(index) - 1]
    }

    pub fn remove(&mut self, name: &str) {
        // Indexes of others must stay, so it becomes something without meaning.
        let section = self.sec(name);
        section.name = ".comment".into();
        section.flags = 0;
        section.relocations.clear();
    }

    pub fn symbol(&mut self, name: &str, section: u16, value: u64, size: u64, kind: u8, binding: u8) {
        self.symbols.push(Sym { name: name.to_string(), section, value, size, kind, binding });
    }

    pub fn sym(&mut self, name: &str) -> &mut Sym {
        self.symbols.iter_mut().find(|s| s.name == name).unwrap_or_else(|| panic!("no {name}"))
    }

    /// Renames a symbol, in relocations too.
    pub fn rename(&mut self, from: &str, to: &str) {
        self.sym(from).name = to.to_string();
        for relocation in self.sections.iter_mut().flat_map(|s| &mut s.relocations) {
            if relocation.symbol == from {
                relocation.symbol = to.to_string();
            }
        }
    }

    /// `#5` is symbol 5, `.text` the section's symbol, anything else a name.
    pub fn symbol_index(&self, name: &str) -> u64 {
        if let Some(number) = name.strip_prefix('#') {
            return number.parse().unwrap();
        }
        let position = self.symbols.iter().position(|s| match s.kind {
            SECTION => s.section > 0 && self.sections[usize::from(s.section) - 1].name == name,
            _ => s.name == name,
        });
        position.unwrap_or_else(|| panic!("no symbol {name}")) as u64 + 1
    }

    pub fn relocate(&mut self, section: &str, offset: u64, kind: u32, symbol: &str, addend: i64) {
        let symbol = symbol.to_string();
        self.sec(section).relocations.push(Rel { offset, kind, symbol, addend });
    }

    pub fn write(&self) -> Vec<u8> {
        let mut all = self.sections.clone();
        let count = all.len() as u32;
        let with: Vec<usize> = (0..all.len()).filter(|&i| !self.sections[i].relocations.is_empty()).collect();
        let symtab = count + with.len() as u32 + 1;
        for i in with {
            let section = &self.sections[i];
            let mut data = Vec::new();
            for r in &section.relocations {
                data.extend(r.offset.to_le_bytes());
                data.extend((self.symbol_index(&r.symbol) << 32 | u64::from(r.kind)).to_le_bytes());
                data.extend(r.addend.to_le_bytes());
            }
            all.push(Sec {
                name: format!(".rela{}", section.name),
                kind: section.rela_kind,
                flags: 0x40,
                align: 8,
                entsize: section.rela_entsize,
                link: section.rela_link.unwrap_or(symtab),
                info: i as u32 + 1,
                data,
                ..blank()
            });
        }
        let mut strings = vec![0u8];
        let mut data = vec![0u8; 24];
        for s in &self.symbols {
            let name = intern(&mut strings, &s.name);
            data.extend(name.to_le_bytes());
            data.extend([s.binding << 4 | s.kind, 0]);
            data.extend(s.section.to_le_bytes());
            data.extend(s.value.to_le_bytes());
            data.extend(s.size.to_le_bytes());
        }
        strings.extend(&self.strtab_tail);
        all.push(Sec {
            name: ".symtab".into(),
            kind: self.symtab_kind,
            align: 8,
            entsize: self.symtab_entsize,
            link: self.symtab_link.unwrap_or(symtab + 1),
            data,
            ..blank()
        });
        all.push(Sec { name: ".strtab".into(), kind: self.strtab_kind, align: 1, data: strings, ..blank() });
        all.push(Sec { name: ".shstrtab".into(), kind: STRTAB, align: 1, ..blank() });
        let mut names = vec![0u8];
        let offsets: Vec<u32> = all.iter().map(|s| intern(&mut names, &s.name)).collect();
        all.last_mut().unwrap().data = names;
        self.assemble(&all, &offsets)
    }

    fn assemble(&self, all: &[Sec], names: &[u32]) -> Vec<u8> {
        let mut body = vec![0u8; 64];
        let mut headers = vec![0u8; 64];
        for (s, name) in all.iter().zip(names) {
            body.resize(body.len().next_multiple_of(8), 0);
            let offset = s.offset.unwrap_or(body.len() as u64);
            if s.kind != NOBITS {
                body.extend(&s.data);
            }
            headers.extend(name.to_le_bytes());
            headers.extend(s.kind.to_le_bytes());
            headers.extend(s.flags.to_le_bytes());
            headers.extend(s.addr.to_le_bytes());
            headers.extend(offset.to_le_bytes());
            headers.extend(s.size.unwrap_or(s.data.len() as u64).to_le_bytes());
            headers.extend(s.link.to_le_bytes());
            headers.extend(s.info.to_le_bytes());
            headers.extend(s.align.to_le_bytes());
            headers.extend(s.entsize.to_le_bytes());
        }
        body.resize(body.len().next_multiple_of(8), 0);
        let shoff = body.len() as u64;
        body.extend(headers);
        let count = all.len() as u16 + 1;
        let mut head = self.ident.to_vec();
        head.extend(self.kind.to_le_bytes());
        head.extend(self.machine.to_le_bytes());
        head.extend(self.version.to_le_bytes());
        head.extend(0u64.to_le_bytes());
        head.extend(0u64.to_le_bytes());
        head.extend(self.shoff.unwrap_or(shoff).to_le_bytes());
        head.extend(0u32.to_le_bytes());
        head.extend(64u16.to_le_bytes());
        head.extend(0u16.to_le_bytes());
        head.extend(self.phnum.to_le_bytes());
        head.extend(self.shentsize.to_le_bytes());
        head.extend(self.shnum.unwrap_or(count).to_le_bytes());
        head.extend(self.shstrndx.unwrap_or(count - 1).to_le_bytes());
        body[..64].copy_from_slice(&head);
        body
    }
}

fn blank() -> Sec {
    Sec {
        name: String::new(),
        kind: 0,
        flags: 0,
        addr: 0,
        align: 1,
        data: Vec::new(),
        size: None,
        offset: None,
        entsize: 0,
        link: 0,
        info: 0,
        relocations: Vec::new(),
        rela_kind: RELA,
        rela_link: None,
        rela_entsize: 24,
    }
}

fn intern(table: &mut Vec<u8>, name: &str) -> u32 {
    if name.is_empty() {
        return 0;
    }
    let at = table.len() as u32;
    table.extend(name.as_bytes());
    table.push(0);
    at
}

/// A build-id note.
pub fn note(id: &[u8]) -> Vec<u8> {
    let mut raw = Vec::new();
    raw.extend(4u32.to_le_bytes());
    raw.extend((id.len() as u32).to_le_bytes());
    raw.extend(3u32.to_le_bytes());
    raw.extend(b"GNU\0");
    raw.extend(id);
    raw
}
