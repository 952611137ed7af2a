//! Objects that should mean the same before and after, run through the differ's stages as a build runs them: parse,
//! correlate, compare. Identical bytes take no short cut here.

use std::collections::BTreeSet;
use std::iter::Sum;
use std::ops::Add;
use std::time::{Duration, Instant};

use rayon::prelude::*;
use xsplice_build::{BaseObject, BaseObjects};
use xsplice_diff::{Changes, Compared, Correlated, Input, ObjectPair, Parts, layout_problems};
use xsplice_objects::{Class, Object};
use xsplice_report::Problems;

/// An object with its bytes.
pub type Bytes = (BaseObject, Vec<u8>);

/// The objects of the running hypervisor, as a build looks at them: linked, and not 32-bit boot code.
///
/// # Errors
/// When one cannot be read.
pub fn running(objects: &BaseObjects) -> Result<Vec<Bytes>, Problems> {
    let linked = objects.list().iter().filter(|object| object.linked);
    let read = linked.map(|object| {
        let bytes = objects.read(&object.path).map_err(Problems::from)?;
        Ok((object.clone(), bytes))
    });
    let mut all = Problems::collect(read)?;
    all.retain(|(_, bytes)| !Object::is_32_bit(bytes));
    Ok(all)
}

/// Sections of Xen's own assembler sources that no payload can bring, and so are of no known kind to the differ: a
/// change there is refused. The loader reads no exception table but `.ex_table`, base relocations are the EFI image's,
/// and the trampoline is for boot.
const NOT_FOR_PAYLOADS: &[&str] = &[".ex_table.pre", ".reloc", ".trampoline_rel", ".trampoline_seg"];

/// What some work took.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    /// On the clock.
    pub wall: Duration,
    /// Of processors, all threads together, the kernel's part included; in steps of 10 ms.
    pub processor: Duration,
}

impl Add for Cost {
    type Output = Cost;

    fn add(self, other: Cost) -> Cost {
        Cost { wall: self.wall + other.wall, processor: self.processor + other.processor }
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Cost>>(all: I) -> Cost {
        all.fold(Cost::default(), Add::add)
    }
}

/// Measures from its making on.
#[derive(Debug)]
pub struct Clock {
    wall: Instant,
    processor: Duration,
}

impl Clock {
    /// Starts.
    pub fn start() -> Clock {
        Clock { wall: Instant::now(), processor: processor_time() }
    }

    /// What it took since the start.
    pub fn stop(&self) -> Cost {
        Cost { wall: self.wall.elapsed(), processor: processor_time().saturating_sub(self.processor) }
    }
}

/// The processor time of this process and of the children that it has waited for, from /proc/self/stat: fields 14
/// to 17, in units of USER_HZ, which is 100 on x86 (proc(5)).
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field, the program's name in brackets, may hold anything.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = rest.split_whitespace().skip(11).take(4).filter_map(|word| word.parse::<u64>().ok());
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

/// What a comparison found.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Whatever an object has changed or is refused for: a line each, which begins with the object.
    pub differences: Vec<String>,
    /// What reading both sides took.
    pub parse: Cost,
    /// What the stages after that took.
    pub compare: Cost,
}

/// Compares objects, each with the bytes that are to mean the same.
pub fn compare(before: &[Bytes], after: &[&[u8]]) -> Found {
    let mut found = Found::default();
    let clock = Clock::start();
    let parsed: Vec<Result<ObjectPair, Problems>> = before
        .par_iter()
        .zip(after)
        .map(|((object, base), patched)| {
            ObjectPair::parse(Input {
                path: &object.path,
                source: &object.source,
                assembler: object.assembler,
                base: Some(base),
                patched: Some(patched),
            })
        })
        .collect();
    found.parse = clock.stop();
    let clock = Clock::start();
    let mut pairs = Vec::new();
    for (result, (object, _)) in parsed.into_iter().zip(before) {
        match result {
            // Whatever stages save for objects that a patch leaves alone is done here.
            Ok(pair) => pairs.push(ObjectPair { untouched: false, ..pair }),
            Err(problems) => found.refused(&object.path, &problems),
        }
    }
    // All users of everything are among the pairs already.
    if let Err(problems) = xsplice_diff::add_users(&mut pairs, |_: &BTreeSet<String>| Ok(Vec::new())) {
        found.refused("all objects", &problems);
    }
    let mut parts = Vec::new();
    for (result, pair) in pairs.par_iter().map(Parts::of).collect::<Vec<_>>().into_iter().zip(&pairs) {
        match result {
            Ok(part) => parts.push(part),
            Err(problems) => found.refused(&pair.path, &problems),
        }
    }
    let correlated: Vec<Correlated<'_>> = parts.par_iter().map(Correlated::of).collect();
    let compared = Compared::all(correlated);
    let changes = Changes::of(&compared);
    let layouts = layout_problems(&parts, true);
    found.compare = clock.stop();
    found.refused("types", &layouts);
    for pair in &compared {
        found.note(pair);
    }
    found.note_changes(&changes);
    found.differences.sort();
    found
}

impl Found {
    fn refused(&mut self, object: &str, problems: &Problems) {
        let lines = problems
            .0
            .iter()
            .map(|problem| format!("{object}: {} ({}) [{}]", problem.what, problem.place, problem.code.name));
        self.differences.extend(lines);
    }

    fn note(&mut self, compared: &Compared<'_>) {
        let object = &compared.correlated.parts.pair.path;
        self.refused(object, &compared.problems);
        let sections = &compared.correlated.parts.pair.base.sections;
        let unknown = sections.iter().filter(|section| section.class == Class::Unknown);
        for name in
            unknown.map(|section| section.name.as_str()).filter(|name| !NOT_FOR_PAYLOADS.contains(name))
        {
            self.differences.push(format!("{object}: section {name} is of no known kind"));
        }
        let copies = compared.correlated.new_copies().count();
        if copies > 0 {
            self.differences.push(format!("{object}: {copies} new copies of read-only data"));
        }
        let init = compared.init.iter();
        self.differences.extend(init.map(|change| format!("{object}: {}: {}", change.name, change.what)));
    }

    fn note_changes(&mut self, changes: &Changes) {
        let changed =
            changes.changed.iter().map(|f| format!("{}: {}: {}", f.object, f.name, f.first_difference));
        let data = changes.data.iter().map(|d| format!("{}: {}: {}", d.object, d.name, d.what));
        let named = |list: &'static str, functions: &[xsplice_diff::NamedFunction]| -> Vec<String> {
            functions.iter().map(|f| format!("{}: {} is {list}", f.object, f.name)).collect()
        };
        self.differences.extend(changed.chain(data));
        self.differences.extend(named("new", &changes.new));
        self.differences.extend(named("gone", &changes.removed));
    }
}
