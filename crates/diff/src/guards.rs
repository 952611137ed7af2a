//! On which conditions a place of a function is reached, as far as they are about something with a name.
//!
//! A conditional jump is a condition of a place if without one of its two ways the place is not reached any more. Its
//! condition is about a name if the comparison in front of it reads a named variable or takes a named address, in
//! itself or through a register that has that value. Others, such as one on an argument, are not seen.

use std::collections::BTreeSet;

use iced_x86::{
    ConditionCode, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
};
use xsplice_objects::{Class, SectionId};

use crate::entries::{Entries, Spot};
use crate::flow::{Address, Wanted};
use crate::flow_graph::Graph;
use crate::items::ItemId;
use crate::meaning::{Meaning, View};

/// What is compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Operand {
    /// A variable's value.
    Value(Meaning),
    /// The address of something.
    Address(Meaning),
    /// A number.
    Number(u64),
    /// Anything else.
    Other,
}

/// A condition that holds where it is a guard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Guard {
    how: Mnemonic,
    operands: [Operand; 2],
    holds: ConditionCode,
}

impl Guard {
    /// The name that it is about.
    pub(crate) fn about(&self) -> String {
        let name = |operand: &'_ Operand| match operand {
            Operand::Value(Meaning::Global(name, _) | Meaning::Local(name, _))
            | Operand::Address(Meaning::Global(name, _) | Meaning::Local(name, _)) => Some(name.clone()),
            _ => None,
        };
        self.operands.iter().find_map(name).unwrap_or_default()
    }
}

/// No reference is looked for: only the ways matter.
struct Nothing;

impl Wanted for Nothing {
    fn address(&self, _spot: Spot) -> Address {
        Address::Other
    }

    fn held(&self) -> Address {
        Address::Other
    }
}

struct Function<'v, 'o> {
    view: &'v View<'o>,
    head: ItemId,
    graph: Graph,
    /// Section and offset of each node.
    places: Vec<Option<(SectionId, u64)>>,
    /// How many ways lead to each node.
    ways_to: Vec<usize>,
    /// Where the function begins, and what its jump tables lead to.
    roots: Vec<usize>,
}

/// The guards of each of these instructions, given by section and offset.
pub(crate) fn of_places(
    view: &View<'_>,
    entries: &Entries,
    head: ItemId,
    places: &[(SectionId, u64)],
) -> Vec<BTreeSet<Guard>> {
    let function = Function::of(view, entries, head);
    let targets: Vec<Option<usize>> = places.iter().map(|place| function.graph.node_at(*place)).collect();
    let mut guards = vec![BTreeSet::new(); places.len()];
    let reached = function.reached(None);
    for (index, node) in function.graph.nodes.iter().enumerate() {
        if node.instruction.flow_control() != FlowControl::ConditionalBranch {
            continue;
        }
        let Some((how, operands)) = function.comparison(index) else { continue };
        for &to in &node.next {
            let without = function.reached(Some((index, to)));
            let mut branch = node.instruction;
            if to == index + 1 {
                branch.negate_condition_code();
            }
            let guard = Guard { how, operands: operands.clone(), holds: branch.condition_code() };
            for (target, guards) in targets.iter().zip(&mut guards) {
                if target.is_some_and(|target| reached[target] && !without[target]) {
                    guards.insert(guard.clone());
                }
            }
        }
    }
    guards
}

impl<'v, 'o> Function<'v, 'o> {
    fn of(view: &'v View<'o>, entries: &Entries, head: ItemId) -> Function<'v, 'o> {
        let graph = Graph::of(view, entries, head, &Nothing);
        let mut places = vec![None; graph.nodes.len()];
        for (place, node) in graph.places() {
            places[node] = Some(place);
        }
        let mut ways_to = vec![0; graph.nodes.len()];
        for &to in graph.nodes.iter().flat_map(|node| node.next.iter().chain(&node.instead)) {
            if let Some(ways) = ways_to.get_mut(to) {
                *ways += 1;
            }
        }
        let mut function = Function { view, head, graph, places, ways_to, roots: vec![0] };
        if function.graph.nodes.iter().any(|node| node.lost) {
            function.add_jump_tables();
        }
        function
    }

    fn add_jump_tables(&mut self) {
        let items = self.view.items;
        for (_, item) in items.iter().filter(|(_, item)| item.class == Class::ReadOnly) {
            for relocation in items.object.section(item.section).relocations_in(item.start, item.end) {
                let adjust = if relocation.kind.is_relative() {
                    -(relocation.offset - item.start).cast_signed()
                } else {
                    0
                };
                let spot = self.view.spot(relocation, adjust);
                let place = spot.section.zip(u64::try_from(spot.offset).ok());
                if let Some(node) = place.and_then(|place| self.graph.node_at(place)) {
                    self.roots.push(node);
                    self.ways_to[node] += 1;
                }
            }
        }
    }

    /// Which nodes are reached, without one of the ways.
    fn reached(&self, without: Option<(usize, usize)>) -> Vec<bool> {
        let mut reached = vec![false; self.graph.nodes.len()];
        let mut queue = self.roots.clone();
        while let Some(index) = queue.pop() {
            let Some(seen) = reached.get_mut(index) else { continue };
            if std::mem::replace(seen, true) {
                continue;
            }
            let node = &self.graph.nodes[index];
            let next = node.next.iter().filter(|&&to| without != Some((index, to)));
            queue.extend(next.chain(&node.instead));
        }
        reached
    }

    /// What is compared in front of a conditional jump, if a name is.
    fn comparison(&self, jump: usize) -> Option<(Mnemonic, [Operand; 2])> {
        let index = jump.checked_sub(1).filter(|_| self.ways_to[jump] == 1)?;
        let node = &self.graph.nodes[index];
        if node.next[..] != [jump] || !matches!(node.instruction.mnemonic(), Mnemonic::Cmp | Mnemonic::Test) {
            return None;
        }
        let operands = [0, 1].map(|operand| self.operand(index, operand));
        let named = |operand: &Operand| matches!(operand, Operand::Value(_) | Operand::Address(_));
        operands.iter().any(named).then(|| (node.instruction.mnemonic(), operands))
    }

    fn operand(&self, index: usize, operand: u32) -> Operand {
        let instruction = &self.graph.nodes[index].instruction;
        match instruction.op_kind(operand) {
            OpKind::Memory => self.memory(index).map_or(Operand::Other, Operand::Value),
            OpKind::Register => {
                let register = instruction.op_register(operand).full_register();
                self.defined(index, register).map_or(Operand::Other, |by| self.value(by))
            }
            _ => instruction.try_immediate(operand).map_or(Operand::Other, Operand::Number),
        }
    }

    /// What an instruction leaves in its register.
    fn value(&self, index: usize) -> Operand {
        let meaning = self.memory(index);
        match self.graph.nodes[index].instruction.mnemonic() {
            Mnemonic::Lea => meaning.map_or(Operand::Other, Operand::Address),
            Mnemonic::Mov | Mnemonic::Movzx | Mnemonic::Movsx | Mnemonic::Movsxd => {
                meaning.map_or(Operand::Other, Operand::Value)
            }
            _ => Operand::Other,
        }
    }

    /// The instruction that gave a register its value: the last one on the only way to here, or the only one in the
    /// function.
    fn defined(&self, from: usize, register: Register) -> Option<usize> {
        let mut index = from;
        while self.ways_to[index] == 1
            && let Some(before) = index.checked_sub(1)
            && self.graph.nodes[before].next.contains(&index)
        {
            let instruction = &self.graph.nodes[before].instruction;
            if writes(instruction, register) {
                return Some(before);
            }
            index = before;
        }
        // What a function saves it also restores.
        let restores = |instruction: &Instruction| instruction.mnemonic() == Mnemonic::Pop;
        let mut all = self
            .graph
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| !restores(&node.instruction) && writes(&node.instruction, register));
        let (only, _) = all.next()?;
        let kept = matches!(
            register,
            Register::RBX | Register::RBP | Register::R12 | Register::R13 | Register::R14 | Register::R15
        );
        (kept && all.next().is_none()).then_some(only)
    }

    /// The named thing whose address is an instruction's memory operand.
    fn memory(&self, index: usize) -> Option<Meaning> {
        let instruction = &self.graph.nodes[index].instruction;
        if !instruction.is_ip_rel_memory_operand() {
            return None;
        }
        let (id, _) = self.places[index]?;
        let section = self.view.items.object.section(id);
        let inside = section.relocations_in(instruction.ip(), instruction.next_ip());
        let relocation = inside.iter().find(|relocation| relocation.kind.is_relative())?;
        let adjust = (instruction.next_ip() - relocation.offset).cast_signed();
        let meaning = self.view.meaning(self.view.spot(relocation, adjust), Some(self.head));
        matches!(meaning, Meaning::Global(..) | Meaning::Local(..)).then_some(meaning)
    }
}

fn writes(instruction: &Instruction, register: Register) -> bool {
    let changes = |access| {
        matches!(
            access,
            OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
        )
    };
    if matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall) {
        // Whatever a function need not keep.
        return !matches!(
            register,
            Register::RBX | Register::RBP | Register::R12 | Register::R13 | Register::R14 | Register::R15
        );
    }
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(instruction);
    info.used_registers()
        .iter()
        .any(|used| used.register().full_register() == register && changes(used.access()))
}
