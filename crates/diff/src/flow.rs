//! Where the address of read-only data goes in a function: only into accesses, or out of the function.
//!
//! A conservative walk over the instructions with one bit per general register: whether it may hold such an
//! address, or something computed from one. Along every path an address may move between registers, be added to,
//! compared, and be read through. Whatever else happens to it (stored, pushed, passed to code that is not known,
//! returned from a function that others call, used by an instruction that is not on the list) lets it out, and
//! then who keeps it cannot be known. Calls of functions of the same object are followed. Inline assembler is seen
//! as its instructions; only its calls of declared functions are taken to follow the C calling convention.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use iced_x86::{
    ConditionCode, Formatter, GasFormatter, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind,
    Register,
};
use xsplice_dwarf::DebugInfo;
use xsplice_objects::{Class, SectionId, Special};

use crate::entries::{Entries, Spot};
use crate::flow_graph::{Callee, Graph, Leave, Node};
use crate::items::{ItemId, ItemKind};
use crate::meaning::View;

/// A set of general registers by their number.
type Registers = u16;

const RAX: Registers = 1 << 0;
const RDX: Registers = 1 << 2;
const RSI: Registers = 1 << 6;
const RDI: Registers = 1 << 7;
/// RDI, RSI, RDX, RCX, R8 and R9, in the order of arguments (System V ABI for x86-64, 3.2.3).
const ARGUMENTS: [Registers; 6] = [RDI, RSI, RDX, 1 << 1, 1 << 8, 1 << 9];

/// Functions of Xen's library (xen/common/string.c, vsprintf.c; xen/drivers/char/console.c) that only read what
/// these arguments point to, and keep nothing of them.
const READERS: &[(&str, Registers)] = &[
    ("memcmp", RDI | RSI),
    ("memcpy", RSI),
    ("memmove", RSI),
    ("panic", all_arguments()),
    ("printk", all_arguments()),
    ("scnprintf", all_arguments()),
    ("snprintf", all_arguments()),
    ("strcasecmp", RDI | RSI),
    ("strcmp", RDI | RSI),
    ("strlcat", RSI),
    ("strlcpy", RSI),
    ("strlen", RDI),
    ("strncasecmp", RDI | RSI),
    ("strncmp", RDI | RSI),
    ("strnlen", RDI),
];

const fn all_arguments() -> Registers {
    let mut all = 0;
    let mut index = 0;
    while index < ARGUMENTS.len() {
        all |= ARGUMENTS[index];
        index += 1;
    }
    all
}

/// What a place is that code refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Address {
    /// Nothing that is looked for.
    #[default]
    Other,
    /// Data in question.
    Data,
    /// Data in question that holds the addresses of such: what is read through it may be one.
    Holder,
}

/// Which references lead to the data in question.
pub(crate) trait Wanted {
    /// What a place belongs to.
    fn address(&self, spot: Spot) -> Address;
    /// What may be read from a holder.
    fn held(&self) -> Address;
}

/// What general registers may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct State {
    /// The address of any data in question.
    any: Registers,
    /// That of a holder.
    holder: Registers,
}

impl State {
    fn join(self, other: State) -> State {
        State { any: self.any | other.any, holder: self.holder | other.holder }
    }

    /// Only these registers.
    fn only(self, registers: Registers) -> State {
        State { any: self.any & registers, holder: self.holder & registers }
    }

    fn with(self, registers: Registers, address: Address) -> State {
        let mut state = self;
        if address != Address::Other {
            state.any |= registers;
        }
        if address == Address::Holder {
            state.holder |= registers;
        }
        state
    }

    /// The most that one of these registers may hold.
    fn of(self, registers: Registers) -> Address {
        match (self.any & registers, self.holder & registers) {
            (0, _) => Address::Other,
            (_, 0) => Address::Data,
            _ => Address::Holder,
        }
    }
}

/// What became of the addresses in a function and in those that it calls.
#[derive(Debug, Default, Clone)]
struct Summary {
    /// How an address gets out, for people, each with the function that lets it.
    escapes: BTreeSet<(ItemId, String)>,
    /// Registers that may hold one when it returns.
    returns: State,
}

/// What is known of a function with these registers at its start; nothing yet while it is being walked.
type Known = Option<Rc<Summary>>;

/// The functions of one side of an object.
pub(crate) struct Flow<'f> {
    view: &'f View<'f>,
    debug: Option<&'f DebugInfo>,
    wanted: &'f dyn Wanted,
    graphs: BTreeMap<ItemId, Graph>,
    /// Functions that refer to the data, or call such.
    reaching: BTreeSet<ItemId>,
    /// Functions whose address is taken, so that callers are not known.
    taken: BTreeSet<ItemId>,
    done: RefCell<BTreeMap<(ItemId, State), Known>>,
}

impl<'f> Flow<'f> {
    /// Reads all functions.
    pub(crate) fn of(
        view: &'f View<'f>,
        entries: &'f Entries,
        debug: Option<&'f DebugInfo>,
        wanted: &'f dyn Wanted,
    ) -> Flow<'f> {
        let items = view.items;
        let graphs: BTreeMap<ItemId, Graph> = items
            .iter()
            .filter(|(_, item)| item.kind == ItemKind::Function && item.unit.is_none())
            .map(|(id, _)| (id, Graph::of(view, entries, id, wanted)))
            .collect();
        let mut flow = Flow {
            view,
            debug,
            wanted,
            graphs,
            reaching: BTreeSet::new(),
            taken: BTreeSet::new(),
            done: RefCell::default(),
        };
        flow.find_reaching();
        flow.find_taken();
        flow
    }

    fn find_reaching(&mut self) {
        let direct = self.graphs.iter().filter(|(_, graph)| !graph.wanted.is_empty());
        self.reaching = direct.map(|(&id, _)| id).collect();
        let mut callers: BTreeMap<ItemId, Vec<ItemId>> = BTreeMap::new();
        for (&caller, graph) in &self.graphs {
            for node in &graph.nodes {
                if let Some(Callee::Local(callee)) = node.callee {
                    callers.entry(callee).or_default().push(caller);
                }
            }
        }
        let mut new: Vec<ItemId> = self.reaching.iter().copied().collect();
        while let Some(callee) = new.pop() {
            for caller in callers.remove(&callee).into_iter().flatten() {
                if self.reaching.insert(caller) {
                    new.push(caller);
                }
            }
        }
    }

    /// Whatever refers to a function other than by calling it.
    fn find_taken(&mut self) {
        let calls: BTreeSet<(SectionId, u64)> =
            self.graphs.values().flat_map(|graph| graph.calls.iter().copied()).collect();
        let counts = |class: Class| match class {
            Class::Special(special) => special == Special::BugFrames(0),
            class => !matches!(class, Class::Ignored | Class::Tables),
        };
        for (section_id, section) in self.view.items.object.sections().filter(|(_, s)| counts(s.class)) {
            for relocation in &section.relocations {
                if calls.contains(&(section_id, relocation.offset)) {
                    continue;
                }
                // The distance to the end of an instruction is not known here: every function near counts.
                for adjust in [0, 4] {
                    let spot = self.view.spot(relocation, adjust);
                    if let Some((id, _)) = spot.section.and_then(|home| self.view.items.at(home, spot.offset))
                    {
                        self.taken.insert(self.view.items.head(id));
                    }
                }
            }
        }
    }

    /// The functions that refer to the data, by their heads.
    pub(crate) fn users(&self) -> impl Iterator<Item = (ItemId, &BTreeMap<(SectionId, u64), Spot>)> {
        self.graphs
            .iter()
            .filter(|(_, graph)| !graph.wanted.is_empty())
            .map(|(&id, graph)| (id, &graph.wanted))
    }

    /// How addresses get out of a function, for people; each with the function that lets it.
    pub(crate) fn escapes(&self, head: ItemId) -> BTreeSet<(ItemId, String)> {
        let summary = self.summary(head, State::default());
        let mut escapes = summary.escapes.clone();
        let item = self.view.items.get(head);
        if summary.returns.any != 0 && (!item.local || self.taken.contains(&head)) {
            escapes.insert((head, "returns it to callers that are not known here".into()));
        }
        escapes
    }

    /// Every function that may see an address.
    pub(crate) fn reaching(&self) -> impl Iterator<Item = ItemId> {
        self.reaching.iter().copied()
    }

    fn summary(&self, head: ItemId, entry: State) -> Rc<Summary> {
        if entry.any == 0 && !self.reaching.contains(&head) {
            return Rc::default();
        }
        match self.done.borrow().get(&(head, entry)) {
            Some(Some(summary)) => return Rc::clone(summary),
            // Recursion: it may return what it was given or refers to.
            Some(None) => {
                return Rc::new(Summary {
                    escapes: BTreeSet::new(),
                    returns: State { any: RAX | RDX, holder: RAX | RDX },
                });
            }
            None => {}
        }
        self.done.borrow_mut().insert((head, entry), None);
        let summary = match self.graphs.get(&head) {
            Some(graph) => Rc::new(self.walk(head, graph, entry)),
            None => Rc::new(Summary {
                escapes: BTreeSet::from([(head, "is no code that can be followed".into())]),
                returns: State::default(),
            }),
        };
        self.done.borrow_mut().insert((head, entry), Some(Rc::clone(&summary)));
        summary
    }

    /// Goes along all paths until nothing is added any more.
    fn walk(&self, head: ItemId, graph: &Graph, entry: State) -> Summary {
        let mut before = vec![State::default(); graph.nodes.len()];
        if let Some(first) = before.first_mut() {
            *first = entry;
        }
        let mut open: Vec<usize> = (0..graph.nodes.len()).rev().collect();
        let mut factory = InstructionInfoFactory::new();
        while let Some(index) = open.pop() {
            let node = &graph.nodes[index];
            let mut ignored = Summary::default();
            let after = self.step(head, node, before[index], &mut factory, &mut ignored);
            let instead = before[index].join(after);
            let edges = node.next.iter().map(|&next| (next, after));
            for (next, state) in edges.chain(node.instead.iter().map(|&next| (next, instead))) {
                let joined = before[next].join(state);
                if joined != before[next] {
                    before[next] = joined;
                    open.push(next);
                }
            }
        }
        let mut summary = Summary::default();
        for (node, &state) in graph.nodes.iter().zip(&before) {
            self.step(head, node, state, &mut factory, &mut summary);
        }
        summary
    }

    fn step(
        &self,
        head: ItemId,
        node: &Node,
        before: State,
        factory: &mut InstructionInfoFactory,
        summary: &mut Summary,
    ) -> State {
        let mut out = |how: String| {
            summary.escapes.insert((head, how));
        };
        if node.lost && before.any != 0 {
            out(format!("goes on in code that is not followed (`{}`)", text(&node.instruction)));
        }
        match node.leave {
            Leave::Return => {
                summary.returns = summary.returns.join(before.only(self.results(head)));
                before
            }
            Leave::Call => self.call(head, node, before, summary),
            Leave::Tail => {
                let after = self.call(head, node, before, summary);
                summary.returns = summary.returns.join(after.only(self.results(head)));
                before
            }
            Leave::No => {
                let (after, how) = transfer(node, before, self.wanted.held(), factory);
                if let Some(how) = how {
                    out(format!("{how} (`{}`)", text(&node.instruction)));
                }
                after
            }
        }
    }

    /// What a call lets out, and the registers after it. What it leaves alone may be used on: not only registers
    /// that the ABI keeps, since gcc knows what functions of the same object use (-fipa-ra).
    fn call(&self, head: ItemId, node: &Node, before: State, summary: &mut Summary) -> State {
        let unknown = |summary: &mut Summary, name: &str, taken: Registers| {
            if before.any & taken != 0 {
                summary.escapes.insert((head, format!("passes it to {name}")));
            }
        };
        match &node.callee {
            Some(Callee::Named(name)) => {
                let signature = self.debug.and_then(|debug| debug.signature(name));
                let passed = arguments(signature.map(|s| s.arguments));
                let reads = READERS.iter().find(|(reader, _)| reader == name).map_or(0, |(_, mask)| *mask);
                // Who copies a holder copies addresses.
                unknown(summary, name, passed & !(reads & !before.holder));
                signature.map_or(before, |s| before.only(!result_registers(s)))
            }
            Some(Callee::Local(callee)) => {
                let name = &self.view.items.get(*callee).name;
                let passed = arguments(self.signature(name).map(|s| s.arguments));
                let inner = self.summary(*callee, before.only(passed));
                if !inner.escapes.is_empty() && before.any & passed != 0 {
                    summary.escapes.insert((head, format!("passes it to {name}")));
                    summary.escapes.extend(inner.escapes.iter().cloned());
                }
                let kept = self.signature(name).map_or(before, |s| before.only(!result_registers(s)));
                kept.join(inner.returns)
            }
            Some(Callee::Unknown) | None => {
                let through = operands(&node.instruction, 0);
                unknown(summary, "a function that is not known here", all_arguments() | through);
                before
            }
        }
    }

    /// The registers that hold what a function returns.
    fn results(&self, head: ItemId) -> Registers {
        let name = &self.view.items.get(head).name;
        let plain = name.split('.').next().unwrap_or(name);
        match self.debug.and_then(|debug| debug.signature(plain)) {
            Some(signature) => result_registers(signature),
            None => RAX | RDX,
        }
    }

    /// The signature of a function of this object. Clones take what is left of their function's arguments, but
    /// `.isra` clones take members instead of structures.
    fn signature(&self, name: &str) -> Option<xsplice_dwarf::Signature> {
        let plain = name.split('.').next().unwrap_or(name);
        let changed = name.split('.').skip(1).any(|part| part == "isra");
        self.debug.filter(|_| !changed).and_then(|debug| debug.signature(plain))
    }
}

fn arguments(count: Option<usize>) -> Registers {
    ARGUMENTS.iter().take(count.unwrap_or(ARGUMENTS.len())).fold(0, |all, one| all | one)
}

fn result_registers(signature: xsplice_dwarf::Signature) -> Registers {
    (if signature.result { RAX } else { 0 }) | (if signature.wide_result { RDX } else { 0 })
}

fn text(instruction: &Instruction) -> String {
    let mut text = String::new();
    GasFormatter::new().format(instruction, &mut text);
    text
}

/// The general register that a register is part of; empty for others.
fn bit(register: Register) -> Registers {
    let full = register.full_register();
    if full.is_gpr64() { 1 << full.number() } else { 0 }
}

/// Registers that are operands themselves, in their full or lower half: less than that is no address.
fn operands(instruction: &Instruction, from: u32) -> Registers {
    (from..instruction.op_count())
        .filter(|&operand| instruction.op_kind(operand) == OpKind::Register)
        .map(|operand| instruction.op_register(operand))
        .filter(|register| register.size() >= 4)
        .fold(0, |all, register| all | bit(register))
}

fn has_memory(instruction: &Instruction) -> bool {
    instruction.op_kinds().any(|kind| kind == OpKind::Memory)
}

/// What an instruction that is no call does: the registers after it, and how an address gets out.
fn transfer(
    node: &Node,
    before: State,
    held: Address,
    factory: &mut InstructionInfoFactory,
) -> (State, Option<&'static str>) {
    let instruction = &node.instruction;
    let address = bit(instruction.memory_base()) | bit(instruction.memory_index());
    let through = if has_memory(instruction) { node.memory.max(before.of(address)) } else { Address::Other };
    let loaded = if through == Address::Holder { held } else { Address::Other };
    let first_is_register = instruction.op_count() > 0 && instruction.op_kind(0) == OpKind::Register;
    let target = if first_is_register { bit(instruction.op0_register()) } else { 0 };
    let set = |what: Address| before.only(!target).with(target, what);
    let add = |what: Address| before.with(target, what);
    let value = before.of(operands(instruction, 1)).max(node.immediate);
    let stored = (value != Address::Other).then_some("stores it");
    if instruction.is_string_instruction() {
        return string_instruction(instruction, before, held);
    }
    match instruction.mnemonic() {
        Mnemonic::Lea => (set(through), None),
        Mnemonic::Mov | Mnemonic::Movsxd | Mnemonic::Movzx | Mnemonic::Movsx if target != 0 => {
            if instruction.op0_register().size() >= 4 {
                (set(value.max(loaded)), None)
            } else {
                (add(value.max(loaded)), None)
            }
        }
        Mnemonic::Mov if first_is_register => other(instruction, before, factory),
        Mnemonic::Mov => (before, stored),
        Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Bt | Mnemonic::Nop => (before, None),
        Mnemonic::Xor | Mnemonic::Sub
            if first_is_register
                && instruction.op1_kind() == OpKind::Register
                && instruction.op0_register() == instruction.op1_register()
                && instruction.op0_register().size() >= 4 =>
        {
            (set(Address::Other), None)
        }
        mnemonic if is_arithmetic(mnemonic) => {
            if target != 0 {
                (add(value.max(loaded)), None)
            } else {
                (before, stored)
            }
        }
        // Three operands do not read the first.
        Mnemonic::Imul if instruction.op_count() == 3 => (set(value.max(loaded)), None),
        Mnemonic::Imul if instruction.op_count() == 2 && target != 0 => (add(value.max(loaded)), None),
        _ if is_conditional_move(instruction) => (add(value.max(loaded)), None),
        _ if is_set_condition(instruction) => (before, None),
        Mnemonic::Push => {
            let pushed = before.of(operands(instruction, 0)).max(node.immediate).max(loaded);
            (before, (pushed != Address::Other).then_some("puts it on the stack"))
        }
        _ if loaded != Address::Other => {
            (before, Some("reads it from changed data and uses it in a way that is not followed"))
        }
        _ if node.immediate != Address::Other => (before, Some("uses it in a way that is not followed")),
        _ => other(instruction, before, factory),
    }
}

/// Computes its first operand from both, or from the first alone.
fn is_arithmetic(mnemonic: Mnemonic) -> bool {
    use Mnemonic::{Adc, Add, And, Dec, Inc, Neg, Not, Or, Rol, Ror, Sar, Sbb, Shl, Shr, Sub, Xor};
    matches!(
        mnemonic,
        Add | Adc | Sub | Sbb | And | Or | Xor | Inc | Dec | Neg | Not | Shl | Shr | Sar | Rol | Ror
    )
}

/// Reads RAX or RDX without naming it.
fn reads_unnamed(mnemonic: Mnemonic) -> bool {
    use Mnemonic::{Cmpxchg, Cmpxchg8b, Cmpxchg16b, Div, Idiv, Imul, Mul, Xlatb};
    matches!(mnemonic, Mul | Imul | Div | Idiv | Cmpxchg | Cmpxchg8b | Cmpxchg16b | Xlatb)
}

fn is_conditional_move(instruction: &Instruction) -> bool {
    instruction.condition_code() != ConditionCode::None && instruction.op_count() == 2
}

fn is_set_condition(instruction: &Instruction) -> bool {
    instruction.condition_code() != ConditionCode::None
        && instruction.op_count() == 1
        && instruction.op0_kind() != OpKind::NearBranch64
}

fn string_instruction(
    instruction: &Instruction,
    before: State,
    held: Address,
) -> (State, Option<&'static str>) {
    use Mnemonic::{
        Cmpsb, Cmpsd, Cmpsq, Cmpsw, Lodsb, Lodsd, Lodsq, Lodsw, Movsb, Movsd, Movsq, Movsw, Scasb, Scasd,
        Scasq, Scasw,
    };
    let read = if before.of(RSI) == Address::Holder { held } else { Address::Other };
    match instruction.mnemonic() {
        Movsb | Movsw | Movsd | Movsq => {
            (before, (read != Address::Other).then_some("copies data that holds it"))
        }
        Cmpsb | Cmpsw | Cmpsd | Cmpsq | Scasb | Scasw | Scasd | Scasq => (before, None),
        Lodsb | Lodsw | Lodsd | Lodsq => (before.with(RAX, read), None),
        // STOS writes RAX to memory; port instructions are not followed.
        _ => {
            (before, (before.any & (RAX | RSI | RDI | RDX) != 0).then_some("uses it in a string instruction"))
        }
    }
}

/// An instruction that is not on the list: it may read addresses to reach memory, nothing else.
fn other(
    instruction: &Instruction,
    before: State,
    factory: &mut InstructionInfoFactory,
) -> (State, Option<&'static str>) {
    let address = bit(instruction.memory_base()) | bit(instruction.memory_index());
    let own = operands(instruction, 0);
    let (mut read, mut written) = (0, 0);
    for used in factory.info(instruction).used_registers() {
        let register = bit(used.register());
        match used.access() {
            OpAccess::Write if used.register().size() >= 4 => written |= register,
            OpAccess::Write | OpAccess::CondWrite | OpAccess::NoMemAccess | OpAccess::None => {}
            _ => read |= register,
        }
    }
    // What is read beyond explicit operands is implied by the instruction, unless it is part of an address.
    // Some instructions read a register twice, and only one of the two is seen here.
    let address = if reads_unnamed(instruction.mnemonic()) { 0 } else { address };
    let value = (read & !address | read & own) & before.any;
    (before.only(!written), (value != 0).then_some("uses it in a way that is not followed"))
}
