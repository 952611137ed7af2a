//! What the hypervisor is to find where a function starts, before it lets the function be replaced.
//!
//! An entry of `.livepatch.funcs` has room for such bytes from Xen 4.14 on, and `livepatch_check_expectations`
//! (xen/common/livepatch.c) compares them at apply. By then boot has rewritten code: alternatives and altcalls
//! (`apply_alternatives`, and `apply_alt_calls` from 4.21 on), and the ENDBR64 of functions that only altcalls call. So
//! the bytes are those of the symbol file up to the first that boot may rewrite, and none where that is not known: a
//! wrong expectation would make the host refuse a good payload.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use serde::{Serialize, Serializer};
use xsplice_objects::{Hypervisor, Shipped};

use crate::pieces::World;

/// Bytes that an expectation has room for (xen/include/public/sysctl.h, `LIVEPATCH_OPAQUE_SIZE`).
const MOST: u64 = 31;
/// ENDBR64. Every function that is called by pointer starts with it, so it tells none from another.
const ENDBR: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
/// Bytes of a function's own code, behind ENDBR64, that an expectation needs at least: one tells more than none, and
/// costs nothing.
const LEAST: u64 = 1;
/// Bytes of `struct alt_instr`; of its fields, the lengths of the original and of its padding count here.
pub(crate) const ALTERNATIVE: usize = 14;
const ORIGINAL_LEN: usize = 10;
const PADDING_LEN: usize = 12;
/// Bytes of the indirect call that an entry of `.alt_call_sites` points to.
const CALL_SITE: u64 = 6;

/// What is to be found at a function's start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Expectation {
    /// These bytes, 1 to 31.
    #[serde(serialize_with = "hex")]
    Bytes(Vec<u8>),
    /// Nothing in particular.
    LeftOut(LeftOut),
}

/// Why nothing is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeftOut {
    /// Nobody wants it.
    Asked,
    /// The hypervisor's `struct livepatch_func` has no room for it.
    NoRoom,
    /// Which functions the payloads below replace is not known.
    BelowUnknown,
    /// A payload below replaces the function, by a jump whose distance only the host knows.
    ReplacedBelow,
    /// Boot may overwrite its ENDBR64.
    Sealable,
    /// Boot rewrites its first bytes.
    Rewritten,
    /// The symbol file does not hold its code.
    NoCode,
    /// The symbol file does not hold the lists of what boot rewrites.
    BootUnknown,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LeftOut::Asked => "they were not wanted",
            LeftOut::NoRoom => "this hypervisor knows none (Xen up to 4.13)",
            LeftOut::BelowUnknown => "what the payloads below replace is not known",
            LeftOut::ReplacedBelow => "a payload below replaces it",
            LeftOut::Sealable => "boot may overwrite its ENDBR64",
            LeftOut::Rewritten => "boot rewrites its first bytes",
            LeftOut::NoCode => "the symbol file does not hold its code",
            LeftOut::BootUnknown => "the symbol file does not hold the lists of what boot rewrites",
        })
    }
}

impl LeftOut {
    /// Whether it holds for every function of a payload.
    pub fn is_general(self) -> bool {
        matches!(self, LeftOut::Asked | LeftOut::NoRoom | LeftOut::BelowUnknown | LeftOut::BootUnknown)
    }
}

fn hex<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// What boot rewrites of a hypervisor's code.
#[derive(Debug, Default)]
pub(crate) struct Boot {
    /// Originals of alternatives with their padding, and call sites; addresses.
    rewritten: Vec<Range<u64>>,
    /// Functions whose ENDBR64 may go; addresses.
    sealable: BTreeSet<u64>,
}

impl Boot {
    /// Reads the lists that the hypervisor itself goes through; `None` where the file does not hold all of them.
    pub(crate) fn of(hypervisor: &Hypervisor) -> Option<Boot> {
        // Every hypervisor has it, even an empty one.
        hypervisor.unique("__alt_instructions")?;
        let mut boot = Boot { rewritten: rewritten(hypervisor)?, ..Boot::default() };
        if let Some((at, tables)) =
            list(hypervisor, "__initdata_cf_clobber_start", "__initdata_cf_clobber_end")?
        {
            // Structures of pointers and other things, which Xen goes through as if all were pointers.
            boot.sealable.extend(tables.chunks_exact(8).filter_map(address));
            boot.sealable.extend(put_into(hypervisor, at..at.saturating_add(tables.len() as u64)));
        }
        Some(boot)
    }

    /// What can be expected of a function.
    pub(crate) fn expectation(&self, hypervisor: &Hypervisor, function: &Shipped) -> Expectation {
        let (start, len) = (function.address, function.size.min(MOST));
        let Some(code) = hypervisor.bytes(start, len as usize) else {
            return Expectation::LeftOut(LeftOut::NoCode);
        };
        if self.sealable.contains(&start) {
            return Expectation::LeftOut(LeftOut::Sealable);
        }
        let inside = |range: &&Range<u64>| range.start < start.saturating_add(len) && start < range.end;
        let first = self.rewritten.iter().filter(inside).map(|range| range.start.saturating_sub(start)).min();
        let stable = &code[..first.unwrap_or(len) as usize];
        let landing = if code.starts_with(&ENDBR) { ENDBR.len() as u64 } else { 0 };
        if (stable.len() as u64) < landing + LEAST {
            return Expectation::LeftOut(LeftOut::Rewritten);
        }
        Expectation::Bytes(stable.to_vec())
    }
}

/// Originals of alternatives with their padding, and call sites, that boot goes through; addresses. `None` where the file
/// does not hold a list that there is.
pub(crate) fn rewritten(hypervisor: &Hypervisor) -> Option<Vec<Range<u64>>> {
    let mut all = Vec::new();
    if let Some((at, alternatives)) = list(hypervisor, "__alt_instructions", "__alt_instructions_end")? {
        for (number, entry) in alternatives.chunks_exact(ALTERNATIVE).enumerate() {
            let start = points_to(at + (number * ALTERNATIVE) as u64, entry)?;
            all.push(start..start.saturating_add(rewritten_len(entry)?));
        }
    }
    if let Some((at, sites)) = list(hypervisor, "__alt_call_sites_start", "__alt_call_sites_end")? {
        for (number, entry) in sites.chunks_exact(4).enumerate() {
            let start = points_to(at + number as u64 * 4, entry)?;
            all.push(start..start.saturating_add(CALL_SITE));
        }
    }
    Some(all)
}

/// How many bytes of code an entry of `.altinstructions` is about.
pub(crate) fn rewritten_len(entry: &[u8]) -> Option<u64> {
    Some(u64::from(*entry.get(ORIGINAL_LEN)?) + u64::from(*entry.get(PADDING_LEN)?))
}

/// The expectation of one function of the hypervisor, in the order of what decides. `boot` is none where it is not known.
pub(crate) fn of(world: &World<'_>, boot: Option<&Boot>, function: &Shipped) -> Expectation {
    let boot = match (world.no_expectations, boot) {
        (Some(why), _) => return Expectation::LeftOut(why),
        (None, None) => return Expectation::LeftOut(LeftOut::BootUnknown),
        (None, Some(boot)) => boot,
    };
    // By any name of it.
    let is_here = |name: &String| world.hypervisor.named(name).any(|one| one.address == function.address);
    if world.replaced.iter().any(is_here) {
        return Expectation::LeftOut(LeftOut::ReplacedBelow);
    }
    boot.expectation(world.hypervisor, function)
}

/// The bytes between two symbols with the address of the first; none where there are no such symbols, and nothing at all
/// where the file does not hold what is between them.
#[expect(clippy::option_option, reason = "no list and a list that cannot be read differ")]
fn list<'h>(hypervisor: &'h Hypervisor, start: &str, end: &str) -> Option<Option<(u64, &'h [u8])>> {
    let (start, end) = match (hypervisor.unique(start), hypervisor.unique(end)) {
        (Some(start), Some(end)) => (start, end),
        (None, None) => return Some(None),
        // Half a list.
        _ => return None,
    };
    let len = usize::try_from(end.address.checked_sub(start.address)?).ok()?;
    // Linkers leave sections without content out.
    let bytes = if len == 0 { &[] } else { hypervisor.bytes(start.address, len)? };
    Some(Some((start.address, bytes)))
}

fn points_to(at: u64, entry: &[u8]) -> Option<u64> {
    let distance = i32::from_le_bytes(entry.get(..4)?.try_into().ok()?);
    Some(at.wrapping_add_signed(distance.into()))
}

fn address(word: &[u8]) -> Option<u64> {
    let address = u64::from_le_bytes(word.try_into().ok()?);
    (address != 0).then_some(address)
}

/// Functions that boot may put into the tables whose functions are sealed: those that start with ENDBR64 and whose
/// address stands in the code of a boot function that also has an address of the tables. `start_vmx` fills in what
/// the processor can do (`vmx_function_table.deliver_posted_intr` and seven more in 4.17.5). Where an address stands is
/// not decoded: any four bytes that lead there as a distance from their end will do, and any eight.
fn put_into(hypervisor: &Hypervisor, tables: Range<u64>) -> BTreeSet<u64> {
    let functions = || hypervisor.symbols().iter().filter(|symbol| symbol.function);
    let landing = |symbol: &&Shipped| hypervisor.bytes(symbol.address, ENDBR.len()) == Some(&ENDBR[..]);
    let landings: BTreeSet<u64> = functions().filter(landing).map(|symbol| symbol.address).collect();
    let mut found = BTreeSet::new();
    for boot in functions().filter(|symbol| hypervisor.is_init(symbol.address)) {
        let Some(code) = hypervisor.bytes(boot.address, boot.size as usize) else { continue };
        let leads_to = |at: usize| {
            let after = boot.address.wrapping_add(at as u64 + 4);
            let distance = code.get(at..at + 4).and_then(|field| points_to(after, field));
            [distance, code.get(at..at + 8).and_then(address)].into_iter().flatten()
        };
        let all = || (0..code.len()).flat_map(leads_to);
        if all().any(|to| tables.contains(&to)) {
            found.extend(all().filter(|to| landings.contains(to)));
        }
    }
    found
}
