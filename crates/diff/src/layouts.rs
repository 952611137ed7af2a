//! What a change of types' layouts means for objects that are there already.
//!
//! A function that touches a changed member has other code, and so is replaced: that holds for all that the change
//! reaches, inlined copies too. What is left are objects that were made before, laid out as the original says.

use std::collections::{BTreeMap, BTreeSet};

use xsplice_dwarf::{DebugInfo, LayoutChange, Life, Live, TypeKind, life};
use xsplice_objects::Class;
use xsplice_report::{Diagnostic, Place, Problems};

use crate::codes;
use crate::items::{ItemKind, Items};
use crate::names;
use crate::pair::Parts;

/// Folders of headers that guests, the toolstack or loaders are compiled with too.
const SHARED: &[&str] = &["/include/public/", "/include/compat/"];

/// Why a layout must stay.
const WHY: &str =
    "Objects that live on the host have the old layout; new code would read and write past their fields.";
/// Why a member must stay although nothing else moves.
const WHY_GONE: &str = "The new code does not keep it up, and after a revert the old code reads it again, also in objects that were made meanwhile.";
/// Why automatic variables alone do not settle it.
const UNSEEN: &str =
    "Only automatic variables of it are seen here, and a pair of objects does not show those of others.";
/// What to do instead.
const ADVICE: &str = "Keep the layout: put what is new into a hole, into a table of its own that is looked up by the object's address (shadow data), or into a new structure; or set it up from a load hook. Otherwise boot a fixed hypervisor.";
/// The same where a pointer leads to functions of another kind.
const ADVICE_CALLS: &str = "Keep what the pointer's functions take and return: hand over what is new in another way (a member of what they get already, shadow data), or call a function beside them. Otherwise boot a fixed hypervisor.";

/// What stands in the way whatever the hypervisor: changed layouts of types, or none to compare. `whole` says whether
/// all objects that the change reaches are among the parts.
pub fn layout_problems(parts: &[Parts<'_>], whole: bool) -> Problems {
    let mut problems = Problems::new();
    check(parts, whole, &mut problems);
    problems
}

/// A type by its name.
type Known = (TypeKind, String);

/// The changes of a type.
#[derive(Default)]
struct Changed {
    /// Those that are not harmless by themselves, in the order of the source.
    changes: Vec<LayoutChange>,
}

pub(crate) fn check(parts: &[Parts<'_>], whole: bool, problems: &mut Problems) {
    let mut types: BTreeMap<Known, Changed> = BTreeMap::new();
    for part in parts {
        let pair = part.pair;
        let (Some(before), Some(after)) = (&pair.base_debug, &pair.patched_debug) else {
            problems.extend(no_debug_info(part));
            continue;
        };
        check_variables(part, before, after, problems);
        for change in xsplice_dwarf::layout_changes(before, after) {
            let known = types.entry((change.kind, change.name.clone())).or_default();
            if change.harmless.is_none() && !known.changes.contains(&change) {
                known.changes.push(change);
            }
        }
    }
    types.retain(|_, changed| !changed.changes.is_empty());
    if types.is_empty() {
        return;
    }
    let infos: Vec<&DebugInfo> = parts.iter().filter_map(|part| part.pair.base_debug.as_ref()).collect();
    let mut verdicts: BTreeMap<&Known, Verdict> = BTreeMap::new();
    for (known, changed) in &types {
        verdicts.insert(known, changed.judge(known, &infos, whole));
    }
    settle_holders(&types, &mut verdicts);
    for (known, changed) in &types {
        let outer = || holders(known, &types);
        problems.extend(match &verdicts[known] {
            Verdict::Harmless | Verdict::Follows => None,
            Verdict::Hole => Some(changed.hole(known)),
            Verdict::Live(why) => Some(changed.refusal(known, why, &outer())),
        });
    }
}

/// Variables that are of another type now, though of one size: what they hold is of the old one.
fn check_variables(part: &Parts<'_>, before: &DebugInfo, after: &DebugInfo, problems: &mut Problems) {
    let is_live = |class| matches!(class, Class::Data | Class::Bss | Class::PerCpu);
    let variables = |items: &Items<'_>| -> BTreeMap<String, u64> {
        let all = items.iter().filter(|(_, item)| item.kind == ItemKind::Data && is_live(item.class));
        all.map(|(_, item)| (names::unnumbered(&item.name).to_owned(), item.size())).collect()
    };
    let old = variables(&part.base);
    for (name, size) in variables(&part.patched) {
        // Of another size it is refused as such.
        if old.get(&name) != Some(&size) {
            continue;
        }
        let Some(change) = before.variable_change(&name, after, &name) else { continue };
        problems.push(
            Diagnostic::new(
                codes::LAYOUT_CHANGED,
                format!("variable {name}: its type changed from {} to {}", change.from, change.to),
            )
            .at(part.pair.place(&name))
            .why("What it holds on the host was put there by the original, and the new code would take it for something else.")
            .advice("Keep the variable as it is, and let the new code use another one, which a load hook sets up."),
        );
    }
}

fn no_debug_info(parts: &Parts<'_>) -> Option<Diagnostic> {
    let pair = parts.pair;
    if pair.assembler || pair.base.sections.is_empty() || pair.patched.sections.is_empty() {
        return None;
    }
    Some(
        Diagnostic::new(codes::NO_DEBUG_INFO, "the object has no debug information")
            .at(Place::object(&pair.path).source(&pair.source, None))
            .why("Without it a changed structure layout would go unnoticed.")
            .advice("xsplice adds -g to every compile; look for an option in the build that takes it away."),
    )
}

/// What a type's changes do to objects.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing: there are none, or they hold what they held.
    Harmless,
    /// A new member is in what was padding.
    Hole,
    /// They would be read wrong; why there are some.
    Live(String),
    /// They change with a type that they hold, for which this is told.
    Follows,
}

impl Changed {
    fn judge(&self, known: &Known, infos: &[&DebugInfo], whole: bool) -> Verdict {
        if !matches!(known.0, TypeKind::Struct | TypeKind::Union | TypeKind::Typedef) {
            return Verdict::Live(String::new());
        }
        let shared = self.changes.iter().find_map(|change| declared(change).filter(|file| is_shared(file)));
        if let Some(file) = shared {
            // An argument of a hypercall has room for all members of its union.
            let beside = self.changes.iter().all(LayoutChange::is_beside_others);
            // Bits behind the last one of a word are as likely to be reserved as those between others.
            let bits = self.changes.iter().all(LayoutChange::is_bit_in_hole);
            return if beside {
                Verdict::Harmless
            } else if bits {
                Verdict::Hole
            } else {
                Verdict::Live(format!("It is declared in {file}, which guests and the toolstack use too."))
            };
        }
        let own = self.changes.iter().all(|change| declared(change).is_some_and(|file| file.ends_with(".c")));
        match life(infos, known.0, &known.1) {
            None if whole || own => Verdict::Harmless,
            None => Verdict::Live(UNSEEN.to_owned()),
            Some(_) if self.changes.iter().all(LayoutChange::is_hole_filled) => Verdict::Hole,
            Some(life) => Verdict::Live(sentence(known, &life)),
        }
    }

    /// A place that names the type, at its first change.
    fn place(&self, known: &Known) -> Place {
        let line = self.changes.iter().find_map(|c| c.patched_line.clone().or_else(|| c.base_line.clone()));
        let place = Place::none().symbol(known.1.clone());
        match line {
            Some((file, line)) => place.source(file, Some(line)),
            None => place,
        }
    }

    /// All changes in one line.
    fn told(&self, known: &Known) -> String {
        let all: Vec<String> = self.changes.iter().map(|change| change.change.to_string()).collect();
        format!("{} {}: {}", known.0, known.1, all.join("; "))
    }

    fn hole(&self, known: &Known) -> Diagnostic {
        Diagnostic::new(codes::LAYOUT_HOLE, self.told(known))
            .at(self.place(known))
            .why("Nothing else moves, but objects that are there hold zero or garbage in the padding: nobody has set the new member.")
            .advice("See that the new code takes zero and anything else there for what it is, or set it from a load hook.")
    }

    fn refusal(&self, known: &Known, why: &str, outer: &[String]) -> Diagnostic {
        let calls = self.changes.iter().all(LayoutChange::is_signature);
        let harm = match () {
            // What is said below is all of it.
            () if calls => "",
            () if self.changes.iter().all(LayoutChange::is_removal) => WHY_GONE,
            () => WHY,
        };
        let mut why = format!("{harm} {why}").trim().to_owned();
        if self.changes.iter().any(LayoutChange::is_signature) {
            why.push_str(
                " Callers that are not replaced go on calling through the pointer with the old arguments.",
            );
        }
        if !outer.is_empty() {
            why.push_str(&format!(" What holds it changes with it: {}.", outer.join(", ")));
        }
        Diagnostic::new(codes::LAYOUT_CHANGED, self.told(known))
            .at(self.place(known))
            .why(why)
            .advice(if calls { ADVICE_CALLS } else { ADVICE })
    }

    /// The types whose change is all that this one is about: `None` if there is more.
    fn inner(&self) -> Option<BTreeSet<&Known>> {
        let mut inner = BTreeSet::new();
        let mut follows = true;
        for change in &self.changes {
            match &change.inner {
                Some(known) => {
                    inner.insert(known);
                }
                None => follows &= change.is_move(),
            }
        }
        (follows && !inner.is_empty()).then_some(inner)
    }
}

/// Holders whose own members only moved as what they hold grew are told of with that.
fn settle_holders<'t>(types: &'t BTreeMap<Known, Changed>, verdicts: &mut BTreeMap<&'t Known, Verdict>) {
    // As often as structures are nested, at most as often as there are types.
    for _ in 0..types.len() {
        let mut settled = Vec::new();
        for (known, changed) in types {
            let Some(inner) = changed.inner().filter(|_| matches!(verdicts[known], Verdict::Live(_))) else {
                continue;
            };
            let all: Option<Vec<&Verdict>> = inner.iter().map(|known| verdicts.get(known)).collect();
            let Some(all) = all else { continue };
            if all.iter().any(|verdict| matches!(verdict, Verdict::Live(_) | Verdict::Follows)) {
                settled.push((known, Verdict::Follows));
            } else if changed.changes.iter().all(|change| change.inner.is_some()) {
                // What it holds changed within its bounds.
                settled.push((known, Verdict::Harmless));
            }
        }
        if settled.is_empty() {
            break;
        }
        verdicts.extend(settled);
    }
}

/// The types that change only with this one, in words.
fn holders(known: &Known, types: &BTreeMap<Known, Changed>) -> Vec<String> {
    let mut found: BTreeSet<&Known> = BTreeSet::from([known]);
    loop {
        let more: Vec<&Known> = types
            .iter()
            .filter(|(other, _)| !found.contains(other))
            .filter(|(_, c)| c.inner().is_some_and(|inner| inner.iter().any(|inner| found.contains(inner))))
            .map(|(other, _)| other)
            .collect();
        if more.is_empty() {
            break;
        }
        found.extend(more);
    }
    found.into_iter().filter(|other| *other != known).map(|(kind, name)| format!("{kind} {name}")).collect()
}

/// The file that declares what changed.
fn declared(change: &LayoutChange) -> Option<&str> {
    let line = change.base_line.as_ref().or(change.patched_line.as_ref());
    line.map(|(file, _)| file.as_str())
}

fn is_shared(file: &str) -> bool {
    SHARED.iter().any(|folder| file.contains(folder))
}

/// Where objects are, or why that is not known.
fn sentence(known: &Known, life: &Life) -> String {
    let is = match life.live {
        Live::Linked(_) | Live::Pointer(_) | Live::Unseen => "may be",
        Live::Variable(_) | Live::PointedByVariable(_) | Live::PointedByMember(..) => "is",
    };
    format!("{} {} {is} live: {life}.", known.0, known.1)
}
