//! Functions that a running host survives the replacing of: not all of them.
//!
//! At apply and revert the CPUs meet with the idle virtual CPU current and their stacks reset, so that what they ran
//! before has no frame left. What is left: code that NMIs and machine checks run meanwhile, the loader itself, CPUs
//! that are offline, stacks that were put away, and addresses that the host keeps. The names are data (`table.rs`);
//! what they call, and who calls them, is read from the shipped code.

mod kept;
mod table;

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use xsplice_report::{Code, Diagnostic, Place, Problems};

use crate::callgraph::{CallGraph, Node};
use crate::codes;
use crate::listing::{self, Use};
use crate::pieces::{PieceKind, Replaced, World};
use crate::select::Selection;
use table::{Harm, Listed};

/// What to do about a function that must not be replaced.
const ADVICE: &str = "Fix it in a function that it calls or that calls it, or boot a fixed hypervisor.";

/// All checks of what a payload replaces against what the host may be running.
pub(crate) fn check(selection: &Selection, world: &World<'_>, problems: &mut Problems) {
    kept::check(selection, problems);
    if selection.replaced.is_empty() {
        return;
    }
    let host = Host { world, graph: OnceCell::new() };
    let mut late = Late::of(&host);
    let machine_check = host.machine_check();
    let parked = host.parked();
    for replaced in &selection.replaced {
        let name = plain(&replaced.name);
        let listed = entry(name);
        if let Some(told) = listed.and_then(|listed| told(replaced, listed)) {
            problems.push(told);
        } else if listed.is_some() {
            late.note(replaced, host.node(replaced), listed);
        } else if table::SAFE.contains(&name) {
            continue;
        } else if let Some(way) = host.way(&parked, replaced) {
            problems.push(on_the_way(replaced, codes::CRASH_AT_REVERT, &way, "CPUs that are offline are in it, take no part in a revert, and would wake up in memory that is freed."));
        } else if let Some(way) = host.way(&machine_check, replaced) {
            let code = if replaced.object.starts_with(table::MACHINE_CHECK_FOLDER) {
                codes::CRASH_AT_APPLY
            } else {
                codes::MACHINE_CHECK_PATH
            };
            problems.push(on_the_way(
                replaced,
                code,
                &way,
                "A machine check can run it while it is overwritten.",
            ));
        } else {
            late.note(replaced, host.node(replaced), None);
        }
    }
    late.warn(&host, problems);
    check_pair(selection, world, problems);
    check_stacks(selection, &host, problems);
}

/// The name in the source of a name in the hypervisor's own table: without file and compilers' additions.
pub(crate) fn plain(name: &str) -> &str {
    let name = name.rsplit_once('#').map_or(name, |(_, name)| name);
    name.split('.').next().filter(|name| !name.is_empty()).unwrap_or(name)
}

fn entry(name: &str) -> Option<&'static Listed> {
    if table::AT_UPLOAD.contains(&name) {
        return None;
    }
    table::LISTED.iter().find(|listed| table::fits(listed.name, name))
}

/// The refusal that a listed function asks for; `None` where it only takes effect late.
fn told(replaced: &Replaced, listed: &Listed) -> Option<Diagnostic> {
    let name = plain(&replaced.name);
    let (code, what) = match listed.harm {
        Harm::Apply => {
            (codes::CRASH_AT_APPLY, format!("{name} is to be replaced, and can be running meanwhile"))
        }
        Harm::Revert => {
            (codes::CRASH_AT_REVERT, format!("{name} is to be replaced, and is still running after a revert"))
        }
        Harm::Late => return None,
    };
    Some(Diagnostic::new(code, what).at(replaced.place.clone()).why(listed.because).advice(ADVICE))
}

fn on_the_way(replaced: &Replaced, code: Code, way: &[&str], why: &str) -> Diagnostic {
    let name = plain(&replaced.name);
    let way: Vec<&str> = way.iter().map(|name| plain(name)).collect();
    Diagnostic::new(code, format!("{name} is to be replaced, and is called by {}", way[0]))
        .at(replaced.place.clone())
        .why(format!("{why} In the shipped code: {}.", way.join(" calls ")))
        .advice(ADVICE)
}

/// The shipped code, decoded when it is first needed.
struct Host<'w> {
    world: &'w World<'w>,
    graph: OnceCell<CallGraph<'w>>,
}

/// Functions, each with the one before it on the way from a root.
type Ways = BTreeMap<Node, Option<Node>>;

impl<'w> Host<'w> {
    fn graph(&self) -> &CallGraph<'w> {
        self.graph.get_or_init(|| CallGraph::of(self.world.hypervisor))
    }

    fn node(&self, replaced: &Replaced) -> Option<Node> {
        match replaced.address {
            Some(address) => self.graph().starting_at(address),
            None => self.graph().named(&replaced.name),
        }
    }

    /// All functions whose name in the source is one of a list.
    fn all(&self, patterns: &[&str]) -> BTreeSet<Node> {
        let fits = |name: &str| patterns.iter().any(|pattern| table::fits(pattern, plain(name)));
        self.graph().all().filter(|(_, name)| fits(name)).map(|(node, _)| node).collect()
    }

    /// The names on the way from a root to a function, both included; `None` where none leads there.
    fn way(&self, ways: &Ways, replaced: &Replaced) -> Option<Vec<&'w str>> {
        let mut node = self.node(replaced)?;
        let mut way = vec![self.graph().name(node)];
        while let Some(before) = ways.get(&node)? {
            node = *before;
            way.push(self.graph().name(node));
        }
        way.reverse();
        (way.len() > 1).then_some(way)
    }

    /// What machine checks call, as far as the host outlives them.
    fn machine_check(&self) -> Ways {
        let graph = self.graph();
        let fatal = self.all(table::NOT_FOLLOWED);
        let safe = self.all(table::SAFE);
        let mut found = graph.reach(
            self.all(table::MACHINE_CHECK),
            |node| graph.calls(node).clone(),
            |node| fatal.contains(&node) || safe.contains(&node),
        );
        found.retain(|node, _| !fatal.contains(node));
        found
    }

    /// What offline CPUs run: all that their idle functions call, and what is called last before those. What is called
    /// deeper has returned before anybody counts the CPU as offline.
    fn parked(&self) -> Ways {
        let graph = self.graph();
        let mut found =
            graph.reach(self.all(&[table::DEAD_IDLE]), |node| graph.calls(node).clone(), |_| false);
        for dead in self.all(&[table::DEAD]) {
            found.entry(dead).or_insert(None);
            for callee in graph.calls(dead) {
                found.entry(*callee).or_insert(Some(dead));
            }
        }
        found
    }
}

/// Functions that run for nothing but what is listed as late, or at boot.
struct Late<'s> {
    /// The reason for each.
    reasons: BTreeMap<Node, &'static str>,
    /// Those that are replaced, by reason.
    replaced: BTreeMap<&'static str, Vec<(&'s Replaced, Option<Node>)>>,
}

/// Why the new code never runs.
const AT_BOOT: &str = "It runs at boot only, and the host has booted.";

impl<'s> Late<'s> {
    fn of(host: &Host<'_>) -> Late<'s> {
        let graph = host.graph();
        let mut reasons: BTreeMap<Node, &'static str> = BTreeMap::new();
        for (node, name) in graph.all() {
            let listed = entry(plain(name)).filter(|listed| listed.harm == Harm::Late);
            if let Some(listed) = listed {
                reasons.insert(node, listed.because);
            } else if host.world.hypervisor.is_init(graph.address(node)) {
                reasons.insert(node, AT_BOOT);
            }
        }
        let mut queue: Vec<Node> = reasons.keys().copied().collect();
        while let Some(caller) = queue.pop() {
            for &node in graph.calls(caller) {
                if reasons.contains_key(&node) || graph.is_taken(node) {
                    continue;
                }
                let callers: Option<Vec<&str>> =
                    graph.callers(node).iter().map(|caller| reasons.get(caller).copied()).collect();
                // What is called at boot and later too runs later.
                let reason = callers.and_then(|all| all.into_iter().min_by_key(|why| *why == AT_BOOT));
                if let Some(reason) = reason {
                    reasons.insert(node, reason);
                    queue.push(node);
                }
            }
        }
        Late { reasons, replaced: BTreeMap::new() }
    }

    /// Notes a replaced function, if it is one of them.
    fn note(&mut self, replaced: &'s Replaced, node: Option<Node>, listed: Option<&Listed>) {
        let reason = listed.map(|listed| listed.because).or_else(|| self.reasons.get(&node?).copied());
        let Some(reason) = reason else { return };
        // The way to a listed one is of no interest.
        let node = node.filter(|_| listed.is_none());
        self.replaced.entry(reason).or_default().push((replaced, node));
    }

    /// One warning for each reason.
    fn warn(&self, host: &Host<'_>, problems: &mut Problems) {
        for (reason, all) in &self.replaced {
            let names: Vec<&str> = all.iter().map(|(replaced, _)| plain(&replaced.name)).collect();
            let verb = if names.len() == 1 { "does" } else { "do" };
            let mut why = (*reason).to_owned();
            for (replaced, node) in all.iter().filter_map(|(r, node)| Some((r, (*node)?))).take(3) {
                let callers =
                    host.graph().callers(node).iter().map(|caller| plain(host.graph().name(*caller)));
                let callers = callers.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ");
                why.push_str(&format!(" {} is called by nobody but {callers}.", plain(&replaced.name)));
            }
            problems.push(
                Diagnostic::new(
                    codes::TAKES_EFFECT_LATE,
                    format!("the new {} {verb} not take effect at once", names.join(", ")),
                )
                .at(all[0].0.place.clone())
                .why(why)
                .advice(
                    "See whether the fix is needed on what is there already: then reboot, or patch what uses it.",
                ),
            );
        }
    }
}

/// Both halves of how a virtual CPU waits must fit together.
fn check_pair(selection: &Selection, world: &World<'_>, problems: &mut Problems) {
    let inner = table::WAIT[1];
    let is_apart = world.hypervisor.symbols().iter().any(|symbol| plain(&symbol.name) == inner);
    // Where the compiler inlined the inner function, the outer one has its code.
    let wait = if is_apart { inner } else { table::WAIT[0] };
    let find = |name: &str| selection.replaced.iter().find(|replaced| plain(&replaced.name) == name);
    let (found, missing) = match (find(wait), find(table::WAKE)) {
        (Some(found), None) => (found, table::WAKE),
        (None, Some(found)) => (found, wait),
        _ => return,
    };
    let name = plain(&found.name);
    problems.push(
        Diagnostic::new(codes::WAIT_PAIR, format!("{name} is to be replaced, and {missing} is not"))
            .at(found.place.clone())
            .why(format!("{} jumps into the middle of {wait}, onto a stack that this one has put away: new code would meet old.", table::WAKE))
            .advice("Let the patch change both, or neither."),
    );
}

/// Stacks that were put away return into who called.
fn check_stacks(selection: &Selection, host: &Host<'_>, problems: &mut Problems) {
    let graph = host.graph();
    let waits = host.all(table::WAIT);
    let direct: BTreeSet<Node> = waits.iter().flat_map(|node| graph.callers(*node).clone()).collect();
    let mut refused = BTreeSet::new();
    let mut refuse = |name: &str, place: Place, problems: &mut Problems| {
        let name = plain(name).to_owned();
        // The inner half is called by the outer one, and what becomes of both is judged as a pair.
        if table::WAIT.contains(&name.as_str()) || !refused.insert(name.clone()) {
            return;
        }
        problems.push(
            Diagnostic::new(codes::CRASH_AT_REVERT, format!("{name} lets a virtual CPU wait with its stack put away"))
                .at(place)
                .why("When it is woken, it returns into the new code. Xen refuses to apply while one waits, and does not look at a revert: the memory would be freed by then.")
                .advice(ADVICE),
        );
    };
    for replaced in &selection.replaced {
        if host.node(replaced).is_some_and(|node| direct.contains(&node)) {
            refuse(&replaced.name, replaced.place.clone(), problems);
        }
    }
    for piece in selection.pieces.iter().filter(|piece| piece.kind == PieceKind::Text) {
        let waits = piece.references.iter().any(|reference| match reference.target.name() {
            Some(name) => {
                table::WAIT.contains(&plain(name))
                    && listing::use_of(&piece.bytes, reference.offset) != Use::Address
            }
            None => false,
        });
        if waits {
            refuse(&piece.label, Place::object(&piece.object).symbol(&piece.label), problems);
        }
    }
    warn_of_stacks(selection, host, &direct, &refused, problems);
}

/// How many calls above a function that waits are warned of. In 4.17 that is up to the VM exit handlers and the
/// copying to and from guests; all above the latter is every hypercall.
const NEAR: usize = 3;

/// Who calls those is on such a stack too: too many to refuse, since few hosts ever have one.
fn warn_of_stacks(
    selection: &Selection,
    host: &Host<'_>,
    direct: &BTreeSet<Node>,
    refused: &BTreeSet<String>,
    problems: &mut Problems,
) {
    let graph = host.graph();
    let safe = host.all(table::SAFE);
    let mut above: BTreeSet<Node> = direct.clone();
    for _ in 0..NEAR {
        let callers = above.iter().filter(|node| !safe.contains(node)).flat_map(|node| graph.callers(*node));
        above = above.iter().chain(callers).copied().collect();
    }
    let on_stack: Vec<&Replaced> = selection
        .replaced
        .iter()
        .filter(|replaced| {
            let name = plain(&replaced.name);
            !refused.contains(name) && !table::WAIT.contains(&name)
        })
        .filter(|replaced| {
            host.node(replaced).is_some_and(|node| above.contains(&node) && !safe.contains(&node))
        })
        .collect();
    let Some(first) = on_stack.first() else { return };
    let names: Vec<&str> = on_stack.iter().take(3).map(|replaced| plain(&replaced.name)).collect();
    let more = if on_stack.len() > 3 { format!(" and {} more", on_stack.len() - 3) } else { String::new() };
    problems.push(
        Diagnostic::new(
            codes::STACK_PUT_AWAY,
            format!("a virtual CPU may wait with {}{more} on its stack", names.join(", ")),
        )
        .at(first.place.clone())
        .why("Xen refuses to apply while one waits for room in the ring of a monitor, and does not look at a revert: the stack would lead to memory that is freed.")
        .advice("Before a revert, see that no domain is watched (VM introspection), or stop the monitor."),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_source_are_found() {
        assert_eq!(plain("common/livepatch.c#livepatch_spin.constprop.0"), "livepatch_spin");
        assert_eq!(plain("do_nmi"), "do_nmi");
        assert!(entry("arch_livepatch_apply").is_some() && entry("arch_livepatch_verify_elf").is_none());
        assert!(entry("early_init_amd").is_some_and(|listed| listed.harm == Harm::Late));
        assert!(entry("context_switch").is_none());
    }
}
