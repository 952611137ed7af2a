//! From a layout to the bytes of an ELF file.

use std::collections::{BTreeMap, BTreeSet};

use object::Endianness;
use object::elf;
use object::write::StringId;
use object::write::elf::{FileHeader, SectionHeader, SectionIndex, Sym, SymbolIndex, Writer};
use xsplice_objects::RelocKind;

use crate::layout::{Defined, Layout, Referent, Relocation};

struct Plan {
    name: StringId,
    index: SectionIndex,
    offset: u64,
    rela: Option<(StringId, SectionIndex, u64)>,
}

struct Symbols {
    by_referent: BTreeMap<Referent, SymbolIndex>,
    /// Section symbols, local ones, absolute ones, global ones, undefined ones: the order of the table.
    sections: Vec<usize>,
    locals: Vec<(StringId, usize)>,
    /// With their values. They are local: two of one name are two things.
    absolute: Vec<(StringId, u64)>,
    globals: Vec<(StringId, usize)>,
    undefined: Vec<StringId>,
}

/// Writes the file.
pub(crate) fn file(layout: &Layout) -> Vec<u8> {
    let mut buffer = Vec::new();
    let rela_names: Vec<String> = layout.sections.iter().map(|s| format!(".rela{}", s.name)).collect();
    let mut writer = Writer::new(Endianness::Little, true, &mut buffer);
    writer.reserve_file_header();
    writer.reserve_null_section_index();
    let mut plans: Vec<Plan> = layout
        .sections
        .iter()
        .map(|section| Plan {
            name: writer.add_section_name(section.name.as_bytes()),
            index: writer.reserve_section_index(),
            offset: 0,
            rela: None,
        })
        .collect();
    for ((section, plan), name) in layout.sections.iter().zip(&mut plans).zip(&rela_names) {
        if !section.relocations.is_empty() {
            plan.rela = Some((writer.add_section_name(name.as_bytes()), writer.reserve_section_index(), 0));
        }
    }
    let symbols = reserve_symbols(layout, &mut writer, &plans);
    writer.reserve_symtab_section_index();
    writer.reserve_strtab_section_index();
    writer.reserve_shstrtab_section_index();
    for (section, plan) in layout.sections.iter().zip(&mut plans) {
        // A section without contents still has an offset inside the file.
        plan.offset = writer.reserve(section.data.len() as u64, section.align.max(1));
    }
    for (section, plan) in layout.sections.iter().zip(&mut plans) {
        if let Some((_, _, offset)) = &mut plan.rela {
            *offset = writer.reserve_relocations(section.relocations.len(), true);
        }
    }
    writer.reserve_symtab();
    // Only lengths beyond 4 GiB could fail here.
    writer.reserve_strtab().expect("names of a payload fit a string table");
    writer.reserve_shstrtab().expect("section names of a payload fit a string table");
    writer.reserve_section_headers();
    write(layout, &mut writer, &plans, &symbols);
    buffer
}

fn reserve_symbols<'a>(layout: &'a Layout, writer: &mut Writer<'a>, plans: &[Plan]) -> Symbols {
    let referents: BTreeSet<&Referent> =
        layout.sections.iter().flat_map(|s| s.relocations.iter().map(|r| &r.referent)).collect();
    let mut symbols = Symbols {
        by_referent: BTreeMap::new(),
        sections: Vec::new(),
        locals: Vec::new(),
        absolute: Vec::new(),
        globals: Vec::new(),
        undefined: Vec::new(),
    };
    writer.reserve_null_symbol_index();
    for referent in &referents {
        if let Referent::Section(index) = referent {
            let symbol = writer.reserve_symbol_index(Some(plans[*index].index));
            symbols.by_referent.insert((*referent).clone(), symbol);
            symbols.sections.push(*index);
        }
    }
    for global in [false, true] {
        if global {
            reserve_absolute(&referents, writer, &mut symbols);
        }
        for (number, defined) in layout.defined.iter().enumerate().filter(|(_, d)| d.global == global) {
            let name = writer.add_string(defined.name.as_bytes());
            let symbol = writer.reserve_symbol_index(Some(plans[defined.section].index));
            symbols.by_referent.insert(Referent::Defined(defined.name.clone()), symbol);
            if global { symbols.globals.push((name, number)) } else { symbols.locals.push((name, number)) }
        }
    }
    for referent in &referents {
        if let Referent::Undefined(name) = referent {
            symbols.undefined.push(writer.add_string(name.as_bytes()));
            let symbol = writer.reserve_symbol_index(None);
            symbols.by_referent.insert((*referent).clone(), symbol);
        }
    }
    symbols
}

fn reserve_absolute<'a>(referents: &BTreeSet<&'a Referent>, writer: &mut Writer<'a>, symbols: &mut Symbols) {
    for referent in referents {
        if let Referent::Absolute { name, address } = referent {
            symbols.absolute.push((writer.add_string(name.as_bytes()), *address));
            let symbol = writer.reserve_symbol_index(None);
            symbols.by_referent.insert((*referent).clone(), symbol);
        }
    }
}

fn write(layout: &Layout, writer: &mut Writer<'_>, plans: &[Plan], symbols: &Symbols) {
    writer
        .write_file_header(&FileHeader {
            os_abi: elf::ELFOSABI_NONE,
            abi_version: 0,
            e_type: elf::ET_REL,
            e_machine: elf::EM_X86_64,
            e_entry: 0,
            e_flags: elf::FileFlags(0),
        })
        .expect("the header of a payload fits its fields");
    for (section, plan) in layout.sections.iter().zip(plans) {
        writer.pad_until(plan.offset);
        writer.write(&section.data);
    }
    for (section, plan) in layout.sections.iter().zip(plans) {
        if plan.rela.is_some() {
            writer.write_align_relocation();
            for relocation in &section.relocations {
                write_relocation(writer, relocation, symbols);
            }
        }
    }
    write_symbols(layout, writer, plans, symbols);
    writer.write_strtab();
    writer.write_shstrtab();
    writer.write_null_section_header();
    for (section, plan) in layout.sections.iter().zip(plans) {
        let name = writer.section_name_offset(Some(plan.name));
        writer.write_section_header(&SectionHeader {
            sh_name: name,
            sh_type: section.kind,
            sh_flags: elf::SectionFlags(section.flags),
            sh_addr: 0,
            sh_offset: plan.offset,
            sh_size: section.size,
            sh_link: 0,
            sh_info: 0,
            sh_addralign: section.align,
            sh_entsize: 0,
        });
    }
    let symtab = writer.symtab_index();
    for (section, plan) in layout.sections.iter().zip(plans) {
        if let Some((name, _, offset)) = plan.rela {
            let count = section.relocations.len();
            writer.write_relocation_section_header(name, plan.index, symtab, offset, count, true);
        }
    }
    let locals = 1 + symbols.sections.len() + symbols.locals.len() + symbols.absolute.len();
    writer.write_symtab_section_header(locals as u32);
    writer.write_strtab_section_header();
    writer.write_shstrtab_section_header();
}

fn write_relocation(writer: &mut Writer<'_>, relocation: &Relocation, symbols: &Symbols) {
    let r_type = match relocation.kind {
        RelocKind::Abs64 => elf::R_X86_64_64,
        // The selection refuses all others.
        _ => elf::R_X86_64_PC32,
    };
    writer.write_relocation(
        true,
        &object::write::elf::Rel {
            r_offset: relocation.offset,
            r_sym: symbols.by_referent[&relocation.referent].0,
            r_type,
            r_addend: relocation.addend,
        },
    );
}

fn write_symbols(layout: &Layout, writer: &mut Writer<'_>, plans: &[Plan], symbols: &Symbols) {
    let blank = Sym {
        section: None,
        st_name: 0,
        st_info: elf::SymbolInfo::new(elf::STB_LOCAL, elf::STT_NOTYPE),
        st_other: elf::SymbolOther(0),
        st_shndx: elf::SHN_UNDEF,
        st_value: 0,
        st_size: 0,
    };
    writer.write_null_symbol();
    for &section in &symbols.sections {
        writer.write_symbol(&Sym {
            section: Some(plans[section].index.0),
            st_info: elf::SymbolInfo::new(elf::STB_LOCAL, elf::STT_SECTION),
            ..blank.clone()
        });
    }
    let bound = [(&symbols.locals, elf::STB_LOCAL), (&symbols.globals, elf::STB_GLOBAL)];
    for (list, bind) in bound {
        if bind == elf::STB_GLOBAL {
            for (name, address) in &symbols.absolute {
                let st_name = writer.string_offset(Some(*name));
                let (st_shndx, st_value) = (elf::SHN_ABS, *address);
                writer.write_symbol(&Sym { st_name, st_shndx, st_value, ..blank.clone() });
            }
        }
        for (name, number) in list {
            let Defined { section, value, size, function, .. } = layout.defined[*number];
            let kind = if function { elf::STT_FUNC } else { elf::STT_OBJECT };
            let st_name = writer.string_offset(Some(*name));
            writer.write_symbol(&Sym {
                section: Some(plans[section].index.0),
                st_name,
                st_info: elf::SymbolInfo::new(bind, kind),
                st_value: value,
                st_size: size,
                ..blank.clone()
            });
        }
    }
    for name in &symbols.undefined {
        let st_name = writer.string_offset(Some(*name));
        let st_info = elf::SymbolInfo::new(elf::STB_GLOBAL, elf::STT_NOTYPE);
        writer.write_symbol(&Sym { st_name, st_info, ..blank.clone() });
    }
}
