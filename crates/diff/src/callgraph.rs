//! Who calls whom in the shipped hypervisor, by direct calls and jumps.
//!
//! Read from its code, so that functions which the compiler inlined count as what they are: code of who calls them.
//! Calls through pointers are not followed. What can be called so is known: a function whose address is anywhere in
//! the code or in the data.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, OpKind};
use xsplice_objects::Hypervisor;

/// Bounds of code whose assembler labels have no size (xen/arch/x86/xen.lds.S).
const CODE: [(&str, &str); 2] = [("_stext", "_etext"), ("_sinittext", "_einittext")];

/// A function by its number in the graph.
pub(crate) type Node = usize;

/// A function or a label of assembler code.
struct Function<'h> {
    start: u64,
    end: u64,
    /// All its names in the hypervisor's own table.
    names: Vec<&'h str>,
    /// Whether a symbol says where it ends.
    sized: bool,
    calls: BTreeSet<Node>,
    callers: BTreeSet<Node>,
    /// Whose code takes its address.
    takers: BTreeSet<Node>,
    /// Where data holds its address: the first place.
    held_at: Option<u64>,
}

/// The direct calls of the shipped hypervisor; empty where the symbol file holds no code.
pub(crate) struct CallGraph<'h> {
    functions: Vec<Function<'h>>,
    by_name: BTreeMap<&'h str, Node>,
}

impl<'h> CallGraph<'h> {
    /// Decodes all code that the symbol file holds.
    pub(crate) fn of(hypervisor: &'h Hypervisor) -> CallGraph<'h> {
        let functions = functions(hypervisor);
        let by_name = functions
            .iter()
            .enumerate()
            .flat_map(|(node, function)| function.names.iter().map(move |name| (*name, node)))
            .collect();
        let mut graph = CallGraph { functions, by_name };
        for node in 0..graph.functions.len() {
            graph.decode(node, hypervisor);
        }
        graph.note_pointers(hypervisor);
        graph
    }

    /// The function of a name in the hypervisor's own table.
    pub(crate) fn named(&self, name: &str) -> Option<Node> {
        self.by_name.get(name).copied()
    }

    /// Its first name.
    pub(crate) fn name(&self, node: Node) -> &'h str {
        self.functions[node].names[0]
    }

    /// All functions with their names in the hypervisor's own table.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Node, &'h str)> {
        self.functions.iter().enumerate().flat_map(|(node, f)| f.names.iter().map(move |name| (node, *name)))
    }

    /// What it calls or jumps to.
    pub(crate) fn calls(&self, node: Node) -> &BTreeSet<Node> {
        &self.functions[node].calls
    }

    /// Who calls it or jumps to it.
    pub(crate) fn callers(&self, node: Node) -> &BTreeSet<Node> {
        &self.functions[node].callers
    }

    /// Whether its address is taken: somebody unknown may call it.
    pub(crate) fn is_taken(&self, node: Node) -> bool {
        self.functions[node].held_at.is_some() || !self.functions[node].takers.is_empty()
    }

    /// Whose code takes its address.
    pub(crate) fn takers(&self, node: Node) -> &BTreeSet<Node> {
        &self.functions[node].takers
    }

    /// The first place in data that holds its address.
    pub(crate) fn held_at(&self, node: Node) -> Option<u64> {
        self.functions[node].held_at
    }

    /// Its address.
    pub(crate) fn address(&self, node: Node) -> u64 {
        self.functions[node].start
    }

    /// All that `next` leads to from some functions, these included, each with the one before it on a shortest way.
    /// What is behind a function for which `ends` holds is not looked at.
    pub(crate) fn reach(
        &self,
        roots: impl IntoIterator<Item = Node>,
        next: impl Fn(Node) -> BTreeSet<Node>,
        ends: impl Fn(Node) -> bool,
    ) -> BTreeMap<Node, Option<Node>> {
        let mut found: BTreeMap<Node, Option<Node>> = roots.into_iter().map(|node| (node, None)).collect();
        let mut queue: VecDeque<Node> = found.keys().copied().collect();
        while let Some(node) = queue.pop_front() {
            if ends(node) {
                continue;
            }
            for other in next(node) {
                found.entry(other).or_insert_with(|| {
                    queue.push_back(other);
                    Some(node)
                });
            }
        }
        found
    }

    /// The function that starts there.
    pub(crate) fn starting_at(&self, address: u64) -> Option<Node> {
        self.functions.binary_search_by_key(&address, |function| function.start).ok()
    }

    fn decode(&mut self, node: Node, hypervisor: &Hypervisor) {
        let (start, end) = (self.functions[node].start, self.functions[node].end);
        let code = usize::try_from(end - start).ok().and_then(|size| hypervisor.bytes(start, size));
        let mut goes_on = false;
        for instruction in
            code.into_iter().flat_map(|code| Decoder::with_ip(64, code, start, DecoderOptions::NONE))
        {
            for address in taken(&instruction) {
                if let Some(other) = self.starting_at(address) {
                    self.functions[other].takers.insert(node);
                }
            }
            if is_near_branch(&instruction) {
                self.link(node, instruction.near_branch_target());
            }
            let leaves = matches!(
                instruction.flow_control(),
                FlowControl::UnconditionalBranch | FlowControl::Return | FlowControl::IndirectBranch
            );
            goes_on = !leaves && !instruction.is_invalid();
        }
        // Assembler code runs on from label to label; behind a compiler's function there is only padding.
        if goes_on && !self.functions[node].sized {
            self.link(node, end);
        }
    }

    /// Jumps into the middle of a function are its own, or those of code that was put apart from it.
    fn link(&mut self, from: Node, address: u64) {
        if let Some(to) = self.starting_at(address).filter(|to| *to != from) {
            self.functions[from].calls.insert(to);
            self.functions[to].callers.insert(from);
        }
    }

    /// Pointers in data are aligned.
    fn note_pointers(&mut self, hypervisor: &Hypervisor) {
        for (start, data) in hypervisor.contents() {
            let first = start.next_multiple_of(8);
            let skip = usize::try_from(first - start).unwrap_or(0);
            let words = data.get(skip..).unwrap_or_default().chunks_exact(8);
            for (place, word) in (first..).step_by(8).zip(words) {
                let address = word.try_into().map_or(0, u64::from_le_bytes);
                if let Some(node) = self.starting_at(address) {
                    self.functions[node].held_at.get_or_insert(place);
                }
            }
        }
    }
}

fn is_near_branch(instruction: &Instruction) -> bool {
    matches!(instruction.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64)
}

/// Addresses that an instruction computes or has as a value.
fn taken(instruction: &Instruction) -> impl Iterator<Item = u64> {
    let memory = instruction.is_ip_rel_memory_operand().then(|| instruction.ip_rel_memory_address());
    let immediates = (0..instruction.op_count()).filter_map(|operand| match instruction.op_kind(operand) {
        OpKind::Immediate32to64 | OpKind::Immediate64 => Some(instruction.immediate(operand)),
        _ => None,
    });
    memory.into_iter().chain(immediates.collect::<Vec<_>>())
}

/// All code by its symbols, in order of addresses.
fn functions(hypervisor: &Hypervisor) -> Vec<Function<'_>> {
    let bounds: Vec<(u64, u64)> = CODE
        .iter()
        .filter_map(|(from, to)| Some((hypervisor.unique(from)?.address, hypervisor.unique(to)?.address)))
        .collect();
    let mut found: BTreeMap<u64, Function<'_>> = BTreeMap::new();
    for symbol in hypervisor.symbols() {
        let sized = symbol.function && symbol.size > 0;
        let inside = bounds.iter().find(|(from, to)| (*from..*to).contains(&symbol.address));
        if !sized && inside.is_none() {
            continue;
        }
        let end = if sized {
            symbol.address.saturating_add(symbol.size)
        } else {
            inside.map_or(symbol.address, |(_, to)| *to)
        };
        let function = found.entry(symbol.address).or_insert(Function {
            start: symbol.address,
            end,
            names: Vec::new(),
            sized,
            calls: BTreeSet::new(),
            callers: BTreeSet::new(),
            takers: BTreeSet::new(),
            held_at: None,
        });
        if sized && !function.sized {
            (function.sized, function.end) = (true, end);
            function.names.insert(0, &symbol.name);
        } else {
            function.names.push(&symbol.name);
        }
    }
    // Labels inside of a function with a size are places in it.
    let mut functions: Vec<Function<'_>> = Vec::new();
    let mut covered = 0;
    for function in found.into_values() {
        if function.start < covered && !function.sized {
            continue;
        }
        if let Some(before) = functions.last_mut() {
            before.end = before.end.min(function.start);
        }
        covered = if function.sized { covered.max(function.end) } else { covered };
        functions.push(function);
    }
    functions
}
