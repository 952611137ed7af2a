//! Code as lines for people: instructions with what they refer to by name.

use iced_x86::{
    ConstantOffsets, Decoder, DecoderOptions, FlowControl, Formatter, GasFormatter, Instruction, OpKind,
    SymbolResolver, SymbolResult,
};
use xsplice_objects::RelocKind;

use crate::meaning::{Content, Meaning};
use crate::words;

/// One instruction of a piece of code.
pub(crate) struct Line<'c> {
    /// Bytes from the start of the code.
    pub(crate) offset: u64,
    /// Its bytes; relocated fields are zero.
    pub(crate) bytes: &'c [u8],
    /// What it refers to.
    pub(crate) references: &'c [(u64, RelocKind, Meaning)],
    /// Where it jumps to in the same code, in bytes from the start.
    pub(crate) jump: Option<u64>,
    instruction: Instruction,
    places: ConstantOffsets,
}

/// The instructions of a piece of code in order.
pub(crate) fn lines(content: &Content) -> Vec<Line<'_>> {
    let mut decoder = Decoder::new(64, &content.bytes, DecoderOptions::NONE);
    let mut lines = Vec::new();
    let mut next = 0;
    while decoder.can_decode() {
        let instruction = decoder.decode();
        let (start, end) = (instruction.ip(), instruction.next_ip());
        let first = next;
        while content.references.get(next).is_some_and(|(offset, _, _)| *offset < end) {
            next += 1;
        }
        let references = &content.references[first..next];
        let branch = is_near_branch(instruction.op0_kind());
        lines.push(Line {
            offset: start,
            bytes: &content.bytes[start as usize..end as usize],
            references,
            jump: (branch && references.is_empty()).then(|| instruction.near_branch_target()),
            places: decoder.get_constant_offsets(&instruction),
            instruction,
        });
    }
    lines
}

fn is_near_branch(kind: OpKind) -> bool {
    matches!(kind, OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64)
}

impl Line<'_> {
    /// Whether both jump in their own code on the same condition; where to is another question.
    pub(crate) fn jumps_like(&self, other: &Line<'_>) -> bool {
        self.jump.is_some()
            && other.jump.is_some()
            && self.instruction.mnemonic() == other.instruction.mnemonic()
    }

    /// Whether both are equal and refer to the same.
    pub(crate) fn equals(&self, other: &Line<'_>) -> bool {
        let meanings =
            |line: &Self| line.references.iter().map(|(_, kind, meaning)| (*kind, meaning.clone()));
        self.bytes == other.bytes
            && meanings(self).eq(other.references.iter().map(|(_, k, m)| (*k, m.clone())))
    }

    /// Whether what it refers to is code.
    pub(crate) fn transfers_control(&self) -> bool {
        self.instruction.flow_control() != FlowControl::Next
    }

    fn name(&self, meaning: &Meaning, function: &str) -> String {
        match meaning {
            Meaning::Bytes(content, 0) if self.transfers_control() => {
                format!("{} bytes of code", content.bytes.len())
            }
            _ => words::name(meaning, function),
        }
    }

    /// AT&T syntax. `function` is the name of the function that holds the code.
    pub(crate) fn text(&self, function: &str) -> String {
        let named = |place: usize, size: usize| {
            let field = self.offset + place as u64;
            let found = self.references.iter().find(|(offset, _, _)| size > 0 && *offset == field);
            found.map(|(offset, _, meaning)| (*offset, self.name(meaning, function)))
        };
        let displacement = named(self.places.displacement_offset(), self.places.displacement_size());
        let immediate = named(self.places.immediate_offset(), self.places.immediate_size());
        let shown = [&displacement, &immediate].map(|name| name.as_ref().map(|(offset, _)| *offset));
        let resolver = Resolver {
            displacement: displacement.map(|(_, name)| name),
            immediate: immediate.map(|(_, name)| name).or(self.jump.map(|target| format!("+{target:#x}"))),
        };
        let mut formatter = GasFormatter::with_options(Some(Box::new(resolver)), None);
        formatter.options_mut().set_uppercase_hex(false);
        formatter.options_mut().set_rip_relative_addresses(true);
        let mut text = String::new();
        formatter.format(&self.instruction, &mut text);
        for (offset, _, meaning) in self.references {
            if !shown.contains(&Some(*offset)) {
                text.push_str(&format!(" <{}>", self.name(meaning, function)));
            }
        }
        text
    }
}

/// Puts names in the place of operands that are relocated.
struct Resolver {
    displacement: Option<String>,
    immediate: Option<String>,
}

impl SymbolResolver for Resolver {
    fn symbol(
        &mut self,
        instruction: &Instruction,
        _operand: u32,
        instruction_operand: Option<u32>,
        address: u64,
        _address_size: u32,
    ) -> Option<SymbolResult<'_>> {
        let name = match instruction.op_kind(instruction_operand?) {
            OpKind::Memory => self.displacement.as_ref()?,
            _ => self.immediate.as_ref()?,
        };
        Some(SymbolResult::with_str(address, name))
    }
}

/// How an instruction uses what it refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// It calls it.
    Call,
    /// It jumps there.
    Jump,
    /// It takes or reads the address.
    Address,
}

/// How the instruction with a relocated field at `field` of `code` uses it.
pub(crate) fn use_of(code: &[u8], field: u64) -> Use {
    let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
    while decoder.can_decode() {
        let instruction = decoder.decode();
        if instruction.next_ip() <= field {
            continue;
        }
        return match (is_near_branch(instruction.op0_kind()), instruction.flow_control()) {
            (true, FlowControl::Call) => Use::Call,
            (true, _) => Use::Jump,
            _ => Use::Address,
        };
    }
    Use::Address
}
