//! The instructions of a function with the ways between them, for [`crate::flow`].

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, OpKind};
use xsplice_objects::{Class, SectionId, Special};

use crate::entries::{Entries, Entry, Spot};
use crate::flow::{Address, Wanted};
use crate::items::{ItemId, ItemKind};
use crate::meaning::{self, View};

/// Who is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Callee {
    /// A function of another object, or one that another object may replace.
    Named(String),
    /// A function of this object.
    Local(ItemId),
    /// Whatever a pointer says.
    Unknown,
}

/// How an instruction leaves its function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    /// Not at all.
    No,
    /// It comes back.
    Call,
    /// It does not, if it leaves at all: a jump to a function, conditional or not.
    Tail,
    /// To the caller.
    Return,
}

/// An instruction.
pub(crate) struct Node {
    /// What it is; its address counts from the start of its section.
    pub(crate) instruction: Instruction,
    /// What its memory operand refers to.
    pub(crate) memory: Address,
    /// What its immediate refers to.
    pub(crate) immediate: Address,
    /// What comes after it.
    pub(crate) next: Vec<usize>,
    /// What may run instead of it or when it faults: alternatives and fixups.
    pub(crate) instead: Vec<usize>,
    /// Whether it may go on where this graph does not know.
    pub(crate) lost: bool,
    pub(crate) leave: Leave,
    pub(crate) callee: Option<Callee>,
}

/// The code of a function with all its fragments, what it jumps to aside, its alternatives and fixups.
#[derive(Default)]
pub(crate) struct Graph {
    pub(crate) nodes: Vec<Node>,
    /// Relocations that refer to what is looked for: section and offset in it in bytes.
    pub(crate) wanted: BTreeMap<(SectionId, u64), Spot>,
    /// Relocations of calls and jumps, as `wanted`.
    pub(crate) calls: BTreeSet<(SectionId, u64)>,
    starts: BTreeMap<(SectionId, u64), usize>,
}

/// Where a branch of a node leads, before it is known what that is.
struct Branch {
    node: usize,
    target: Spot,
}

impl Graph {
    /// Reads a function.
    pub(crate) fn of(view: &View<'_>, entries: &Entries, head: ItemId, wanted: &dyn Wanted) -> Graph {
        let mut graph = Graph::default();
        let mut branches = Vec::new();
        let mut described = Vec::new();
        for id in view.items.fragments(head) {
            let item = view.items.get(id);
            graph.range(view, wanted, item.section, (item.start, item.end), &mut branches);
            described.extend(entries.by_item.get(&id).into_iter().flatten());
            for (aside, start, end) in view.asides_of(id) {
                graph.range(view, wanted, view.items.get(aside).section, (start, end), &mut branches);
                let inside =
                    |entry: &&Entry| (start..end).contains(&entry.fields[0].spot.offset.cast_unsigned());
                described.extend(entries.by_item.get(&aside).into_iter().flatten().filter(inside));
            }
        }
        for entry in described {
            graph.entry(view, wanted, entry, &mut branches);
        }
        for branch in branches {
            graph.connect(view, &branch);
        }
        graph
    }

    /// The node of the instruction that starts at a place: section and offset in it in bytes.
    pub(crate) fn node_at(&self, place: (SectionId, u64)) -> Option<usize> {
        self.starts.get(&place).copied()
    }

    /// Where the nodes start, as [`Self::node_at`].
    pub(crate) fn places(&self) -> impl Iterator<Item = ((SectionId, u64), usize)> {
        self.starts.iter().map(|(&place, &node)| (place, node))
    }

    /// Decodes a range of code once; gives the first node and one behind the last.
    fn range(
        &mut self,
        view: &View<'_>,
        wanted: &dyn Wanted,
        section_id: SectionId,
        (start, end): (u64, u64),
        branches: &mut Vec<Branch>,
    ) -> (usize, usize) {
        let first = self.nodes.len();
        if let Some(&known) = self.starts.get(&(section_id, start)) {
            return (known, known);
        }
        let section = view.items.object.section(section_id);
        let code = section.bytes(start, end);
        let mut decoder = Decoder::with_ip(64, &code, start, DecoderOptions::NONE);
        while decoder.can_decode() {
            let instruction = decoder.decode();
            if instruction.is_invalid() {
                // As in `meaning::decode`: one byte on, and 0xd6 is the trap of Xen 4.22's bug frames.
                let at = (instruction.ip() - start) as usize;
                self.trap(section_id, &instruction, code.get(at) == Some(&0xd6));
                if decoder.set_position(at + 1).is_err() {
                    break;
                }
                decoder.set_ip(instruction.ip() + 1);
                if let Some(last) = self.nodes.len().checked_sub(1).filter(|_| decoder.can_decode()) {
                    self.nodes[last].next.push(last + 1);
                }
                continue;
            }
            let target = self.instruction(view, wanted, section_id, &instruction, &decoder);
            let index = self.nodes.len() - 1;
            if let Some(target) = target {
                branches.push(Branch { node: index, target });
            }
            if falls(&instruction) && decoder.can_decode() {
                self.nodes[index].next.push(index + 1);
            }
        }
        (first, self.nodes.len())
    }

    /// Adds a node; gives where it branches to.
    fn instruction(
        &mut self,
        view: &View<'_>,
        wanted: &dyn Wanted,
        section_id: SectionId,
        instruction: &Instruction,
        decoder: &Decoder<'_>,
    ) -> Option<Spot> {
        let offsets = decoder.get_constant_offsets(instruction);
        let branch = matches!(instruction.op0_kind(), OpKind::NearBranch64);
        let mut target = branch.then(|| Spot {
            section: Some(section_id),
            symbol: 0,
            offset: instruction.near_branch_target().cast_signed(),
        });
        let (mut memory, mut immediate) = (Address::Other, Address::Other);
        let section = view.items.object.section(section_id);
        for relocation in section.relocations_in(instruction.ip(), instruction.next_ip()) {
            let adjust = if relocation.kind.is_relative() {
                (instruction.next_ip() - relocation.offset).cast_signed()
            } else {
                0
            };
            let spot = view.spot(relocation, adjust);
            let field = (relocation.offset - instruction.ip()) as usize;
            let in_memory = offsets.has_displacement() && offsets.displacement_offset() == field;
            if branch && !in_memory {
                target = Some(spot);
                self.calls.insert((section_id, relocation.offset));
                continue;
            }
            let address = wanted.address(spot);
            if address != Address::Other {
                *(if in_memory { &mut memory } else { &mut immediate }) = address;
                self.wanted.insert((section_id, relocation.offset), spot);
            }
        }
        let leave = match instruction.flow_control() {
            FlowControl::Return => Leave::Return,
            FlowControl::Call | FlowControl::IndirectCall => Leave::Call,
            FlowControl::IndirectBranch => Leave::Tail,
            _ => Leave::No,
        };
        let indirect = matches!(leave, Leave::Call | Leave::Tail).then_some(Callee::Unknown);
        self.starts.entry((section_id, instruction.ip())).or_insert(self.nodes.len());
        self.nodes.push(Node {
            lost: instruction.flow_control() == FlowControl::IndirectBranch,
            instruction: *instruction,
            memory,
            immediate,
            next: Vec::new(),
            instead: Vec::new(),
            leave,
            callee: indirect,
        });
        target
    }

    /// Bytes that are no known instruction; the trap of a bug frame goes on behind itself.
    fn trap(&mut self, section: SectionId, instruction: &Instruction, known: bool) {
        self.starts.entry((section, instruction.ip())).or_insert(self.nodes.len());
        self.nodes.push(Node {
            instruction: *instruction,
            memory: Address::Other,
            immediate: Address::Other,
            next: Vec::new(),
            instead: Vec::new(),
            lost: !known,
            leave: Leave::No,
            callee: None,
        });
    }

    /// Code that an alternative puts in place, or that is gone to after a fault.
    fn entry(&mut self, view: &View<'_>, wanted: &dyn Wanted, entry: &Entry, branches: &mut Vec<Branch>) {
        let (Some(from), Some(to)) = (entry.fields.first(), entry.fields.get(1)) else { return };
        let at = |graph: &Graph, spot: Spot| {
            let offset = u64::try_from(spot.offset).ok()?;
            graph.starts.get(&(spot.section?, offset)).copied()
        };
        let Some(original) = at(self, from.spot) else { return };
        let Some(section) = to.spot.section else { return };
        let start = to.spot.offset.max(0).cast_unsigned();
        match entry.table {
            Special::Alternatives => {
                let bytes =
                    view.items.object.section(entry.section).bytes(entry.start, entry.start + entry.size);
                let length = meaning::replacement_len(&bytes);
                // struct alt_instr: lengths of the original and of its padding around that of the replacement.
                let whole = u64::from(bytes[10]) + u64::from(bytes[12]);
                if length == 0 {
                    return;
                }
                let (first, end) = self.range(view, wanted, section, (start, start + length), branches);
                self.nodes[original].instead.push(first);
                let behind = Spot { offset: from.spot.offset + whole.cast_signed(), ..from.spot };
                match (at(self, behind), end.checked_sub(1).filter(|&last| last >= first)) {
                    (Some(behind), Some(last)) => self.nodes[last].next.push(behind),
                    (None, Some(last)) => self.nodes[last].lost = true,
                    (_, None) => self.nodes[original].lost = true,
                }
            }
            Special::ExceptionTable => {
                let object = view.items.object;
                let first = match object.section(section).class {
                    Class::Special(Special::Fixup) => {
                        let range = meaning::fixup_range(object, section, to.spot.offset);
                        Some(self.range(view, wanted, section, range, branches).0)
                    }
                    _ => at(self, to.spot),
                };
                match first {
                    Some(first) if first < self.nodes.len() => self.nodes[original].instead.push(first),
                    _ => self.nodes[original].lost = true,
                }
            }
            _ => {}
        }
    }

    fn connect(&mut self, view: &View<'_>, branch: &Branch) {
        let own = branch.target.section.and_then(|section| {
            let offset = u64::try_from(branch.target.offset).ok()?;
            self.starts.get(&(section, offset)).copied()
        });
        let node = &mut self.nodes[branch.node];
        if node.leave == Leave::No
            && let Some(own) = own
        {
            node.next.push(own);
            return;
        }
        let callee = callee(view, branch.target);
        // The thunks that stand for instructions (xen/arch/x86/indirect-thunk.S, since 4.11 and 4.16).
        if let Callee::Named(name) = &callee {
            if name == "__x86_return_thunk" {
                node.leave = Leave::Return;
                return;
            }
            if name.starts_with("__x86_indirect_thunk_") {
                node.lost |= node.leave == Leave::No;
                node.leave = if node.leave == Leave::Call { Leave::Call } else { Leave::Tail };
                node.callee = Some(Callee::Unknown);
                return;
            }
        }
        if node.leave == Leave::No {
            node.leave = Leave::Tail;
            // Into the middle of something, where more registers count than a function's arguments.
            node.lost |= callee == Callee::Unknown;
        }
        node.callee = Some(callee);
    }
}

/// Whether the next instruction may come after it.
fn falls(instruction: &Instruction) -> bool {
    !matches!(
        instruction.flow_control(),
        FlowControl::Return | FlowControl::IndirectBranch | FlowControl::UnconditionalBranch
    )
}

fn callee(view: &View<'_>, target: Spot) -> Callee {
    let Some(section) = target.section else {
        return Callee::Named(view.items.object.symbols[target.symbol].name.clone());
    };
    match view.items.at(section, target.offset) {
        Some((id, 0)) if view.items.get(id).kind == ItemKind::Function => {
            let item = view.items.get(id);
            if item.weak { Callee::Named(item.name.clone()) } else { Callee::Local(view.items.head(id)) }
        }
        _ => Callee::Unknown,
    }
}
