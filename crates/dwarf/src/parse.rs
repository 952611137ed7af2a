//! One pass over `.debug_info` (DWARF 5, section 7.5; its attributes in sections 5 and 7).

use std::collections::BTreeSet;

use gimli::{Abbreviation, AttributeValue, EndianSlice, EntriesRaw, LittleEndian, UnitType};
use gimli::{DwAt, DwTag, constants as dw};

use crate::Error;
use crate::elf::{self, Sections};
use crate::model::{Decl, Entity, Kind, Local, Member, MemberKind, Model, Text, Type, Unit, VOID};

pub(crate) type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// A view of the sections in gimli's terms.
pub(crate) fn dwarf(sections: &Sections) -> gimli::Dwarf<Slice<'_>> {
    let slice = |section| EndianSlice::new(sections.bytes(section), LittleEndian);
    gimli::Dwarf {
        debug_abbrev: slice(elf::ABBREV).into(),
        debug_addr: slice(elf::ADDR).into(),
        debug_info: slice(elf::INFO).into(),
        debug_line: slice(elf::LINE).into(),
        debug_line_str: slice(elf::LINE_STR).into(),
        debug_str: slice(elf::STR).into(),
        debug_str_offsets: slice(elf::STR_OFFSETS).into(),
        ..gimli::Dwarf::default()
    }
}

/// Reads all units.
pub(crate) fn parse(sections: &Sections) -> Result<Model, Error> {
    let mut dwarf = dwarf(sections);
    dwarf.populate_abbreviations_cache(gimli::AbbreviationsCacheStrategy::Duplicates);
    let size = sections.bytes(elf::INFO).len();
    let mut model = Model::for_size(size);
    let mut budget = Budget::new(sections);
    let mut headers = dwarf.units();
    while let Some(header) = headers.next()? {
        budget.abbreviations(sections, header.debug_abbrev_offset().0)?;
        if !matches!(header.type_(), UnitType::Compilation | UnitType::Partial) {
            return Err(Error::Unsupported("type units or split units"));
        }
        let offset = header.debug_info_offset().map_or(0, |o| o.0) as u32;
        let unit = dwarf.unit(header)?;
        if unit.dwo_name()?.is_some() {
            return Err(Error::Unsupported("split units"));
        }
        if let Some(program) = &unit.line_program {
            budget.lines(program.header().header_length() as u64)?;
        }
        let whole = EndianSlice::new(&sections.data, LittleEndian);
        let text = |slice: Option<Slice<'_>>| slice.map_or(Text::default(), |s| text_of(s, whole));
        model.units.push(Unit {
            name: text(unit.name),
            comp_dir: text(unit.comp_dir),
            lines: unit.line_program.as_ref().map(|p| p.header().offset().0 as u32),
        });
        Walk {
            dwarf: &dwarf,
            unit: &unit,
            entries: unit.entries_raw(None)?,
            whole,
            unit_offset: offset,
            unit_index: (model.units.len() - 1) as u32,
            model: &mut model,
            scopes: Vec::new(),
            pending: Vec::new(),
        }
        .run()?;
    }
    resolve(&mut model, size)?;
    finish_bit_fields(&mut model)?;
    Ok(model)
}

/// Keeps units that share their tables, as only hostile ones do in great number, from costing more than
/// the size of the tables.
struct Budget {
    seen: BTreeSet<usize>,
    abbreviations: u64,
    lines: u64,
}

impl Budget {
    fn new(sections: &Sections) -> Budget {
        let twice = |section| 2 * sections.bytes(section).len() as u64 + 64;
        Budget { seen: BTreeSet::new(), abbreviations: twice(elf::ABBREV), lines: twice(elf::LINE) }
    }

    fn spend(left: &mut u64, cost: u64) -> Result<(), Error> {
        *left = left
            .checked_sub(cost)
            .ok_or_else(|| Error::Malformed("tables of several units overlap".into()))?;
        Ok(())
    }

    fn abbreviations(&mut self, sections: &Sections, offset: usize) -> Result<(), Error> {
        if !self.seen.insert(offset) {
            return Ok(());
        }
        let table = sections.bytes(elf::ABBREV).get(offset..).unwrap_or_default();
        let cost = abbreviations_length(EndianSlice::new(table, LittleEndian));
        Self::spend(&mut self.abbreviations, cost)
    }

    fn lines(&mut self, cost: u64) -> Result<(), Error> {
        Self::spend(&mut self.lines, cost)
    }
}

/// Bytes of one table of abbreviations, up to its end or to the first error in it (DWARF 5, 7.5.3).
fn abbreviations_length(mut table: Slice<'_>) -> u64 {
    use gimli::Reader;
    fn scan(table: &mut Slice<'_>) -> gimli::Result<()> {
        while table.read_uleb128()? != 0 {
            table.read_uleb128()?;
            table.read_u8()?;
            loop {
                let name = table.read_uleb128()?;
                let form = table.read_uleb128()?;
                if form == u64::from(dw::DW_FORM_implicit_const.0) {
                    table.read_sleb128()?;
                }
                if (name, form) == (0, 0) {
                    break;
                }
            }
        }
        Ok(())
    }
    let before = table.len();
    // The reader of the table finds the same error.
    let _ = scan(&mut table);
    (before - table.len()) as u64
}

fn text_of(slice: Slice<'_>, whole: Slice<'_>) -> Text {
    Text { start: slice.offset_from(whole) as u32, len: slice.len() as u32 }
}

/// What encloses an entry.
enum Scope {
    /// Its members are pending from this position on.
    Type {
        index: u32,
        start: usize,
    },
    /// Its parameters are pending from this position on.
    Function {
        index: u32,
        start: usize,
    },
    Other,
}

struct Walk<'a, 'm> {
    dwarf: &'a gimli::Dwarf<Slice<'a>>,
    unit: &'a gimli::Unit<Slice<'a>>,
    entries: EntriesRaw<'a, Slice<'a>>,
    whole: Slice<'a>,
    unit_offset: u32,
    unit_index: u32,
    model: &'m mut Model,
    scopes: Vec<Scope>,
    /// Members of the types that are open.
    pending: Vec<Member>,
}

/// The attributes that count.
struct Attributes<'a> {
    name: Option<AttributeValue<Slice<'a>>>,
    target: u32,
    origin: u32,
    size: Option<u64>,
    align: u32,
    encoding: u8,
    bits: Option<u64>,
    bit_offset: Option<i64>,
    data_bit_offset: Option<u64>,
    location: Option<AttributeValue<Slice<'a>>>,
    value: Option<AttributeValue<Slice<'a>>>,
    count: Option<u64>,
    upper: Option<u64>,
    address: Option<AttributeValue<Slice<'a>>>,
    sibling: Option<usize>,
    declaration: bool,
    file: u32,
    line: u32,
}

impl<'a> Walk<'a, '_> {
    fn run(mut self) -> Result<(), Error> {
        while !self.entries.is_empty() {
            let offset = self.unit_offset.saturating_add(self.entries.next_offset().0 as u32);
            let Some(abbreviation) = self.entries.read_abbreviation()? else {
                if !self.close() {
                    break;
                }
                continue;
            };
            let scope = self.entry(offset, abbreviation)?;
            if abbreviation.has_children() {
                if let Some(scope) = scope {
                    self.scopes.push(scope);
                }
            } else if let Some(Scope::Type { index, start }) = scope {
                self.finish(index, start);
            }
        }
        while self.close() {}
        Ok(())
    }

    /// Leaves the innermost scope; `false` behind the last one.
    fn close(&mut self) -> bool {
        match self.scopes.pop() {
            Some(Scope::Type { index, start }) => self.finish(index, start),
            Some(Scope::Function { index, start }) => {
                let parameters = self.keep_pending(start);
                self.model.functions[index as usize].parameters = parameters;
            }
            Some(Scope::Other) => {}
            None => return false,
        }
        !self.scopes.is_empty()
    }

    fn finish(&mut self, index: u32, start: usize) {
        let (first, end) = self.keep_pending(start);
        self.model.types[index as usize].members = first..end;
    }

    /// Keeps the members that are pending from a position on, and gives the positions of the first and behind the
    /// last.
    fn keep_pending(&mut self, start: usize) -> (u32, u32) {
        let first = self.model.members.len() as u32;
        let pending = self.pending.drain(start..);
        self.model.members.extend(pending);
        (first, self.model.members.len() as u32)
    }

    /// Reads one entry; gives its scope, or nothing if its children were stepped over.
    fn entry(&mut self, offset: u32, abbreviation: &'a Abbreviation) -> Result<Option<Scope>, Error> {
        let tag = abbreviation.tag();
        let in_type = matches!(self.scopes.last(), Some(Scope::Type { .. }));
        let in_function = matches!(self.scopes.last(), Some(Scope::Function { .. }));
        if let Some(kind) = type_kind(tag) {
            let attributes = self.attributes(abbreviation)?;
            return self.add_type(offset, kind, &attributes).map(Some);
        }
        match tag {
            dw::DW_TAG_member | dw::DW_TAG_enumerator | dw::DW_TAG_subrange_type if in_type => {
                let attributes = self.attributes(abbreviation)?;
                self.add_member(tag, &attributes)?;
            }
            dw::DW_TAG_formal_parameter if in_type || in_function => {
                let attributes = self.attributes(abbreviation)?;
                self.add_member(tag, &attributes)?;
            }
            dw::DW_TAG_unspecified_parameters if in_type || in_function => {
                self.entries.skip_attributes(abbreviation.attributes())?;
                self.pending.push(Member {
                    kind: MemberKind::Variadic,
                    unsigned: false,
                    name: Text::default(),
                    target: VOID,
                    at: 0,
                    bits: None,
                    decl: Decl::default(),
                });
            }
            dw::DW_TAG_subprogram | dw::DW_TAG_variable => {
                let attributes = self.attributes(abbreviation)?;
                self.add_entity(offset, tag, &attributes)?;
                if tag == dw::DW_TAG_subprogram {
                    let index = self.model.functions.len() as u32 - 1;
                    return Ok(Some(Scope::Function { index, start: self.pending.len() }));
                }
            }
            // Nothing inside of these declares a type, and they are the better part of the section.
            dw::DW_TAG_inlined_subroutine | dw::DW_TAG_call_site | dw::DW_TAG_GNU_call_site
                if abbreviation.has_children() =>
            {
                let attributes = self.attributes(abbreviation)?;
                if self.step_over(attributes.sibling)? {
                    return Ok(None);
                }
            }
            _ => self.entries.skip_attributes(abbreviation.attributes())?,
        }
        Ok(Some(Scope::Other))
    }

    /// Goes to the next sibling, only ever forward.
    fn step_over(&mut self, sibling: Option<usize>) -> Result<bool, Error> {
        match sibling {
            Some(to) if to >= self.entries.next_offset().0 => {
                self.entries = self.unit.entries_raw(Some(gimli::UnitOffset(to)))?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn text(&self, value: Option<AttributeValue<Slice<'a>>>) -> Result<Text, Error> {
        match value {
            Some(value) => {
                let text = text_of(self.dwarf.attr_string(self.unit, value)?, self.whole);
                // Changes of all members name what holds them.
                if text.len as usize > elf::LONGEST_NAME {
                    return Err(Error::Malformed("a name is longer than any real one".into()));
                }
                Ok(text)
            }
            None => Ok(Text::default()),
        }
    }

    fn decl(&self, attributes: &Attributes<'a>) -> Decl {
        Decl { unit: self.unit_index, file: attributes.file, line: attributes.line }
    }

    fn add_type(&mut self, offset: u32, kind: Kind, attributes: &Attributes<'a>) -> Result<Scope, Error> {
        let index = self.model.types.len() as u32;
        let ty = Type {
            kind,
            offset,
            name: self.text(attributes.name)?,
            target: attributes.target,
            size: attributes.size,
            align: attributes.align,
            encoding: attributes.encoding,
            declaration: attributes.declaration,
            decl: self.decl(attributes),
            members: 0..0,
        };
        self.model.types.push(ty);
        Ok(Scope::Type { index, start: self.pending.len() })
    }

    fn add_member(&mut self, tag: DwTag, attributes: &Attributes<'a>) -> Result<(), Error> {
        let mut member = Member {
            kind: MemberKind::Field,
            unsigned: false,
            name: self.text(attributes.name)?,
            target: attributes.target,
            at: 0,
            bits: None,
            decl: self.decl(attributes),
        };
        match tag {
            dw::DW_TAG_enumerator => {
                member.kind = MemberKind::Enumerator;
                (member.at, member.unsigned) = match attributes.value {
                    Some(AttributeValue::Sdata(value)) => (value, false),
                    Some(value) => match value.udata_value() {
                        Some(value) => (value as i64, true),
                        None => return Err(Error::Malformed("an enumerator without a number".into())),
                    },
                    None => return Err(Error::Malformed("an enumerator without a value".into())),
                };
            }
            dw::DW_TAG_subrange_type => {
                member.kind = MemberKind::Dimension;
                let count = attributes.count.or(attributes.upper.map(|u| u.wrapping_add(1)));
                member.at = count.and_then(|c| i64::try_from(c).ok()).unwrap_or(-1);
                // The type of the index says nothing about the array.
                member.target = VOID;
            }
            dw::DW_TAG_formal_parameter => member.kind = MemberKind::Parameter,
            _ => self.place(&mut member, attributes)?,
        }
        self.pending.push(member);
        Ok(())
    }

    /// Finds the place of a field in its structure (DWARF 5, 5.7.6; DWARF 3 for `DW_AT_bit_offset`).
    fn place(&mut self, member: &mut Member, attributes: &Attributes<'a>) -> Result<(), Error> {
        let start = match attributes.location {
            None => 0,
            Some(value) => match (value.udata_value(), value.exprloc_value()) {
                (Some(bytes), _) => bytes,
                (None, Some(expression)) => constant_of(expression.0)?,
                (None, None) => return Err(Error::Unsupported("a member whose place is computed")),
            },
        };
        let too_far = || Error::Malformed("a member beyond any structure".into());
        // 2^56 bits keep every later sum far from overflow.
        let start = i64::try_from(start).ok().filter(|s| *s < 1 << 53).ok_or_else(too_far)? * 8;
        member.at = start;
        let Some(bits) = attributes.bits else { return Ok(()) };
        member.bits = Some(u32::try_from(bits).ok().filter(|b| *b <= 1 << 16).ok_or_else(too_far)?);
        if let Some(offset) = attributes.data_bit_offset {
            member.at = i64::try_from(offset).ok().filter(|s| *s < 1 << 56).ok_or_else(too_far)?;
        } else if let Some(from_top) = attributes.bit_offset {
            if from_top.unsigned_abs() > 1 << 20 {
                return Err(too_far());
            }
            match attributes.size {
                Some(size) if size <= 1 << 16 => member.at = start + size as i64 * 8 - from_top - bits as i64,
                Some(_) => return Err(too_far()),
                None => {
                    // Lacks the size of its type, which is known when all types are.
                    member.unsigned = true;
                    member.at = start - from_top - bits as i64;
                }
            }
        }
        Ok(())
    }

    fn add_entity(&mut self, offset: u32, tag: DwTag, attributes: &Attributes<'a>) -> Result<(), Error> {
        let variable = tag == dw::DW_TAG_variable;
        let address = if variable {
            match attributes.location.and_then(|l| l.exprloc_value()) {
                Some(expression) => self.static_address(expression.0)?,
                None => None,
            }
        } else {
            match attributes.address {
                Some(value) => self.dwarf.attr_address(self.unit, value)?,
                None => None,
            }
        };
        // Automatic variables have no place of their own.
        if variable && address.is_none() && self.scopes.len() > 1 {
            if attributes.target != VOID {
                let (target, declaration) = (attributes.target, attributes.declaration);
                self.model.locals.push(Local { offset, target, declaration });
            }
            return Ok(());
        }
        let entity = Entity {
            offset,
            origin: attributes.origin,
            name: self.text(attributes.name)?,
            address,
            result: attributes.target,
            parameters: (0, 0),
            declaration: attributes.declaration,
            decl: self.decl(attributes),
        };
        if variable {
            self.model.variables.push(entity)
        } else {
            self.model.functions.push(entity)
        }
        Ok(())
    }

    /// The address in a location that is nothing but an address.
    fn static_address(&self, mut expression: Slice<'a>) -> Result<Option<u64>, Error> {
        use gimli::Reader;
        let Ok(operation) = expression.read_u8() else { return Ok(None) };
        let address = match dw::DwOp(operation) {
            dw::DW_OP_addr => expression.read_u64()?,
            dw::DW_OP_addrx => {
                let index = expression.read_uleb128()? as usize;
                self.dwarf.address(self.unit, gimli::DebugAddrIndex(index))?
            }
            _ => return Ok(None),
        };
        Ok(expression.is_empty().then_some(address))
    }

    fn attributes(&mut self, abbreviation: &'a Abbreviation) -> Result<Attributes<'a>, Error> {
        let mut found = Attributes {
            name: None,
            target: VOID,
            origin: VOID,
            size: None,
            align: 0,
            encoding: 0,
            bits: None,
            bit_offset: None,
            data_bit_offset: None,
            location: None,
            value: None,
            count: None,
            upper: None,
            address: None,
            sibling: None,
            declaration: false,
            file: 0,
            line: 0,
        };
        for specification in abbreviation.attributes() {
            let attribute = self.entries.read_attribute_inline(*specification)?;
            self.take(&mut found, attribute.name(), attribute.raw_value())?;
        }
        Ok(found)
    }

    #[inline]
    fn take(
        &self,
        found: &mut Attributes<'a>,
        name: DwAt,
        value: AttributeValue<Slice<'a>>,
    ) -> Result<(), Error> {
        let small = |value: AttributeValue<Slice<'a>>| value.udata_value().map_or(0, |v| v as u32);
        match name {
            dw::DW_AT_name => found.name = Some(value),
            dw::DW_AT_type => found.target = self.reference(value)?,
            dw::DW_AT_abstract_origin | dw::DW_AT_specification => found.origin = self.reference(value)?,
            dw::DW_AT_byte_size => found.size = value.udata_value(),
            dw::DW_AT_alignment => found.align = small(value),
            dw::DW_AT_encoding => found.encoding = small(value) as u8,
            dw::DW_AT_GNU_vector => found.encoding = 1,
            dw::DW_AT_bit_size => found.bits = value.udata_value(),
            dw::DW_AT_bit_offset => found.bit_offset = value.sdata_value(),
            dw::DW_AT_data_bit_offset => found.data_bit_offset = value.udata_value(),
            dw::DW_AT_data_member_location | dw::DW_AT_location => found.location = Some(value),
            dw::DW_AT_const_value => found.value = Some(value),
            dw::DW_AT_count => found.count = value.udata_value(),
            dw::DW_AT_upper_bound => found.upper = value.udata_value(),
            dw::DW_AT_low_pc => found.address = Some(value),
            dw::DW_AT_decl_file => found.file = small(value),
            dw::DW_AT_decl_line => found.line = small(value),
            dw::DW_AT_declaration => found.declaration = value == AttributeValue::Flag(true),
            dw::DW_AT_sibling => {
                if let AttributeValue::UnitRef(offset) = value {
                    found.sibling = Some(offset.0);
                }
            }
            dw::DW_AT_signature => return Err(Error::Unsupported("type units or split units")),
            _ => {}
        }
        Ok(())
    }

    /// An offset in `.debug_info`.
    fn reference(&self, value: AttributeValue<Slice<'a>>) -> Result<u32, Error> {
        let offset = match value {
            AttributeValue::UnitRef(offset) => offset.0.checked_add(self.unit_offset as usize),
            AttributeValue::DebugInfoRef(offset) => Some(offset.0),
            _ => return Err(Error::Unsupported("a reference into another file")),
        };
        offset
            .and_then(|o| u32::try_from(o).ok())
            .filter(|o| *o != VOID)
            .ok_or_else(|| Error::Malformed("a reference beyond .debug_info".into()))
    }
}

fn type_kind(tag: DwTag) -> Option<Kind> {
    Some(match tag {
        dw::DW_TAG_base_type => Kind::Base,
        dw::DW_TAG_structure_type => Kind::Struct,
        dw::DW_TAG_union_type => Kind::Union,
        dw::DW_TAG_enumeration_type => Kind::Enum,
        dw::DW_TAG_typedef => Kind::Typedef,
        dw::DW_TAG_pointer_type => Kind::Pointer,
        dw::DW_TAG_const_type
        | dw::DW_TAG_volatile_type
        | dw::DW_TAG_restrict_type
        | dw::DW_TAG_atomic_type => Kind::Qualifier,
        dw::DW_TAG_array_type => Kind::Array,
        dw::DW_TAG_subroutine_type => Kind::Function,
        dw::DW_TAG_unspecified_type => Kind::Opaque,
        _ => return None,
    })
}

/// The number in an expression that adds or pushes one.
fn constant_of(mut expression: Slice<'_>) -> Result<u64, Error> {
    use gimli::Reader;
    match dw::DwOp(expression.read_u8()?) {
        dw::DW_OP_plus_uconst | dw::DW_OP_constu => Ok(expression.read_uleb128()?),
        _ => Err(Error::Unsupported("a member whose place is computed")),
    }
}

/// Turns offsets into positions.
fn resolve(model: &mut Model, size: usize) -> Result<(), Error> {
    let mut positions = vec![0u32; size + 1];
    for (position, ty) in model.types.iter().enumerate() {
        if let Some(slot) = positions.get_mut(ty.offset as usize) {
            *slot = position as u32 + 1;
        }
    }
    let find = |offset: &mut u32| {
        if *offset != VOID {
            match positions.get(*offset as usize) {
                Some(position) if *position != 0 => *offset = position - 1,
                _ => return Err(Error::NoType(u64::from(*offset))),
            }
        }
        Ok(())
    };
    model.types.iter_mut().try_for_each(|ty| find(&mut ty.target))?;
    model.functions.iter_mut().try_for_each(|function| find(&mut function.result))?;
    model.variables.iter_mut().try_for_each(|variable| find(&mut variable.result))?;
    model.locals.iter_mut().try_for_each(|local| find(&mut local.target))?;
    model.members.iter_mut().try_for_each(|member| find(&mut member.target))
}

/// Adds the size of the type to the place of bit-fields that are counted from its top.
fn finish_bit_fields(model: &mut Model) -> Result<(), Error> {
    for index in 0..model.members.len() {
        let member = model.members[index];
        if member.kind != MemberKind::Field || !member.unsigned {
            continue;
        }
        let mut ty = member.target;
        let mut size = None;
        for _ in 0..64 {
            let Some(found) = model.types.get(ty as usize) else { break };
            size = found.size;
            if size.is_some() {
                break;
            }
            ty = found.target;
        }
        let size = size.and_then(|s| i64::try_from(s).ok()).filter(|s| *s <= 1 << 16);
        let Some(size) = size else {
            return Err(Error::Malformed("a bit-field of a type without a size".into()));
        };
        let member = &mut model.members[index];
        member.at += size * 8;
        member.unsigned = false;
    }
    Ok(())
}
