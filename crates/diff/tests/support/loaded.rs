//! Whether a loaded payload does what the patched hypervisor does.
//!
//! The patched object is linked to a hypervisor of its own, where the linker has resolved everything. The payload
//! is loaded behind the shipped one. From each replaced function on both are walked side by side: equal
//! instructions, and operands that lead to the same thing: to the same name, or to equal code or data.
//! What describes the code in special sections is compared by where it points.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, OpKind};

use super::image::{Func, Image, Name};

/// Where images are; numbers in this range are addresses.
const AREA: std::ops::Range<u64> = 0xffff_82d0_4000_0000..0xffff_82d0_8000_0000;

/// What the payload does differently.
///
/// `anchors` allows references to places in front of strings and behind them: which string is meant cannot be told
/// once all is linked, so each that stands there in both will do.
pub fn differences(shipped: &[u8], patched: &[u8], payload: &[u8], anchors: bool) -> Vec<String> {
    match Walk::prepare(shipped, patched, payload) {
        Ok(mut walk) => {
            walk.anchors = anchors;
            walk.all();
            walk.wrong
        }
        Err(problem) => vec![format!("the payload cannot be loaded: {problem}")],
    }
}

struct Walk {
    shipped: Image,
    patched: Image,
    payload: Image,
    funcs: Vec<Func>,
    anchors: bool,
    /// Where replaced functions start in the patched hypervisor.
    replaced: BTreeSet<u64>,
    /// Code of the patched hypervisor that was compared: start, end, and where it starts in the payload.
    code: BTreeMap<u64, (u64, u64)>,
    /// Pairs still to compare.
    queue: VecDeque<(u64, u64)>,
    seen: BTreeSet<(u64, u64)>,
    wrong: Vec<String>,
}

impl Walk {
    fn prepare(shipped: &[u8], patched: &[u8], payload: &[u8]) -> Result<Walk, String> {
        let shipped = Image::linked(shipped)?;
        let patched = Image::linked(patched)?;
        let (payload, funcs) = Image::loaded(payload, &shipped)?;
        Ok(Walk {
            shipped,
            patched,
            payload,
            funcs,
            anchors: false,
            replaced: BTreeSet::new(),
            code: BTreeMap::new(),
            queue: VecDeque::new(),
            seen: BTreeSet::new(),
            wrong: Vec::new(),
        })
    }

    fn complain(&mut self, what: impl Into<String>) {
        self.wrong.push(format!("loaded: {}", what.into()));
    }

    fn all(&mut self) {
        let hooks = self.hooks();
        if self.funcs.is_empty() && !hooks {
            self.complain("the payload replaces nothing");
        }
        for func in std::mem::take(&mut self.funcs) {
            let is_old = |n: &&Name| n.table == func.name && n.address == func.old_addr && n.function;
            let old = self.shipped.names.iter().find(is_old);
            if old.map(|n| n.size) != Some(func.old_size) {
                self.complain(format!("the old size of {} is {} and not {old:?}", func.name, func.old_size));
            }
            let plain = unnumbered(&func.name);
            let new =
                self.patched.names.iter().find(|n| unnumbered(&n.table) == plain && n.function).cloned();
            // A function that was made global or static has another name in the patched hypervisor.
            let base_name = plain.rsplit('#').next().unwrap_or(plain);
            let new = new.or_else(|| {
                let ends = |t: &str| unnumbered(t).rsplit('#').next() == Some(base_name);
                self.patched.names.iter().find(|n| n.function && ends(&n.table)).cloned()
            });
            match new {
                Some(new) => {
                    if new.size != func.new_size {
                        self.complain(format!(
                            "{} has {} bytes in the payload, {} patched",
                            func.name, func.new_size, new.size
                        ));
                    }
                    self.replaced.insert(new.address);
                    self.queue.push_back((new.address, func.new_addr));
                }
                None => self.complain(format!("the patched hypervisor has no {}", func.name)),
            }
        }
        while let Some((expected, found)) = self.queue.pop_front() {
            if self.seen.insert((expected, found)) {
                self.place(expected, found);
            }
        }
        self.tables();
    }

    /// Two places that must be equal, the second in the payload.
    fn place(&mut self, expected: u64, found: u64) {
        let executable = self.patched.range_at(expected).is_some_and(|r| r.executable);
        if executable != self.payload.range_at(found).is_some_and(|r| r.executable) {
            self.complain(format!("{} is code here and data there", self.name(expected)));
        } else if executable {
            self.compare_code(expected, found);
        } else {
            self.compare_data(expected, found);
        }
    }

    fn compare_code(&mut self, expected: u64, found: u64) {
        let name = self.name(expected);
        let size = self.patched.covering(expected).iter().map(|(n, _)| n.size).max().unwrap_or(0);
        let (bytes, other): (Vec<u8>, Vec<u8>) = if size > 0 {
            let all = (self.patched.bytes(expected, size), self.payload.bytes(found, size));
            let (Some(a), Some(b)) = all else { return self.complain(format!("{name} does not fit")) };
            (a.to_vec(), b.to_vec())
        } else {
            (self.patched.rest(expected).to_vec(), self.payload.rest(found).to_vec())
        };
        let a = Decoder::with_ip(64, &bytes, expected, DecoderOptions::NONE);
        let b = Decoder::with_ip(64, &other, found, DecoderOptions::NONE);
        let mut pairs = Vec::new();
        let mut end = expected;
        for (a, b) in a.into_iter().zip(b) {
            end = a.next_ip();
            if a.len() != b.len() || a.code() != b.code() || a.op_count() != b.op_count() {
                return self.complain(format!("{name}+{:#x}: {a} became {b}", a.ip() - expected));
            }
            let addresses: Vec<_> = targets(&a).into_iter().zip(targets(&b)).collect();
            if plain(&a, &bytes, expected) != plain(&b, &other, found) {
                return self.complain(format!("{name}+{:#x}: {a} became {b}", a.ip() - expected));
            }
            pairs.extend(addresses.into_iter().map(|pair| (a, pair)));
            // Code without a size ends where it leaves.
            let leaves = matches!(
                a.flow_control(),
                FlowControl::UnconditionalBranch | FlowControl::Return | FlowControl::IndirectBranch
            );
            if size == 0 && leaves {
                break;
            }
        }
        self.code.insert(expected, (end, found));
        for (instruction, (a, b)) in pairs {
            let by = format!("{name}+{:#x} {instruction}", instruction.ip() - expected);
            if instruction.flow_control() == FlowControl::Next {
                self.address(a, b, &by);
            }
            self.reference(a, b, &by);
        }
    }

    /// Two addresses that may be stored: that of a replaced function must be the original's.
    fn address(&mut self, expected: u64, found: u64, by: &str) {
        if self.replaced.contains(&expected) && self.payload.holds(found) {
            self.complain(format!("{by}: takes the address of new code, which is gone after a revert"));
        }
    }

    /// Two addresses that something equal refers to.
    fn reference(&mut self, expected: u64, found: u64, by: &str) {
        if let Some((start, (_, other))) =
            self.code.range(..=expected).next_back().filter(|(_, (end, _))| expected < *end)
            && self.payload.holds(found)
        {
            if found.wrapping_sub(*other) != expected - start {
                self.complain(format!(
                    "{by}: leads to {found:#x} and should to {:#x}",
                    other.wrapping_add(expected - start)
                ));
            }
            return;
        }
        if self.anchors && !self.shipped.holds(found) && self.near_string(expected, found) {
            return;
        }
        if self.payload.holds(found) {
            let head =
                self.patched.covering(expected).iter().map(|(_, distance)| *distance).min().unwrap_or(0);
            self.queue.push_back((expected - head, found.wrapping_sub(head)));
            return;
        }
        let names = |image: &Image, at: u64| -> BTreeSet<(String, u64)> {
            let short = |name: &str| unnumbered(name).rsplit('#').next().unwrap_or("").to_owned();
            image.covering(at).iter().map(|(n, distance)| (short(&n.table), *distance)).collect()
        };
        let (a, b) = (names(&self.patched, expected), names(&self.shipped, found));
        if a.is_disjoint(&b) {
            self.complain(format!("{by}: leads to {b:?} ({found:#x}) and should to {a:?} ({expected:#x})"));
        }
    }

    /// Whether both places are at one distance from equal strings, in front of them or behind.
    fn near_string(&self, expected: u64, found: u64) -> bool {
        let Some(strings) = self.patched.range(".rodata.strings") else { return false };
        let text = |image: &Image, at: u64| image.text(at).filter(|text| text.len() > 3);
        (-8..=8).any(|distance| {
            let (a, b) = (expected.wrapping_add_signed(distance), found.wrapping_add_signed(distance));
            let inside = a.checked_sub(strings.start).is_some_and(|at| at < strings.bytes.len() as u64);
            inside && text(&self.patched, a).is_some() && text(&self.patched, a) == text(&self.payload, b)
        })
    }

    fn compare_data(&mut self, expected: u64, found: u64) {
        let name = self.name(expected);
        let section = self.patched.range_at(expected).map_or("", |r| &r.name).to_owned();
        let sized = self.patched.covering(expected).iter().map(|(n, _)| n.size).max().unwrap_or(0);
        match section.as_str() {
            ".rodata.strings" | ".rodata.strings2" | ".rodata.strings4" if sized == 0 => {
                let width = section.strip_prefix(".rodata.strings").map_or(1, |w| w.parse().unwrap_or(1));
                let (a, b) = (self.patched.string(expected, width), self.payload.string(found, width));
                if a.is_none() || a != b {
                    self.complain(format!("string {a:?} became {b:?}"));
                }
            }
            ".rodata.constants16" => self.compare_words(&name, expected, found, 16),
            ".rodata.constants" => self.compare_words(&name, expected, found, 4),
            _ if sized > 0 => self.compare_words(&name, expected, found, sized),
            _ => self.compare_distances(&name, expected, found),
        }
    }

    fn compare_words(&mut self, name: &str, expected: u64, found: u64, size: u64) {
        let both = (self.patched.bytes(expected, size), self.payload.bytes(found, size));
        let (Some(a), Some(b)) = both else { return self.complain(format!("{name} does not fit")) };
        let (a, b) = (a.to_vec(), b.to_vec());
        for (index, (a, b)) in a.chunks(8).zip(b.chunks(8)).enumerate() {
            let number = |raw: &[u8]| raw.try_into().ok().map(u64::from_le_bytes);
            match (number(a), number(b)) {
                (Some(a), Some(b)) if AREA.contains(&a) && AREA.contains(&b) => {
                    self.address(a, b, &format!("{name}[{index}]"));
                    self.reference(a, b, &format!("{name}[{index}]"));
                }
                _ if a == b => {}
                _ => self.complain(format!("{name}[{index}]: {a:02x?} became {b:02x?}")),
            }
        }
    }

    /// A jump table: as long as distances lead into code that was compared.
    fn compare_distances(&mut self, name: &str, expected: u64, found: u64) {
        let mut count = 0;
        for at in (0..).step_by(4) {
            let Some(a) = self.patched.follow(expected + at, expected, 32) else { break };
            let Some((_, (end, _))) = self.code.range(..=a).next_back() else { break };
            if a >= *end || self.patched.covering(expected + at).iter().any(|(n, _)| n.size > 0) {
                break;
            }
            match self.payload.follow(found.wrapping_add(at), found, 32) {
                Some(b) if self.payload.holds(b) => self.reference(a, b, &format!("{name}+{at:#x}")),
                // The next table may lead elsewhere; a table of the payload ends where its section does.
                _ if count > 2 => break,
                b => return self.complain(format!("{name}+{at:#x} leads to {b:x?}")),
            }
            count += 1;
        }
        if count < 2 {
            self.complain(format!("{name} ({expected:#x}) is neither named nor a table"));
        }
    }

    fn name(&self, address: u64) -> String {
        match self.patched.covering(address).first() {
            Some((name, 0)) => name.table.clone(),
            Some((name, distance)) => format!("{}+{distance:#x}", name.table),
            None => format!("{address:#x} ({})", self.patched.range_at(address).map_or("", |r| &r.name)),
        }
    }
}

/// The addresses that an instruction holds.
fn targets(instruction: &Instruction) -> Vec<u64> {
    let mut all = Vec::new();
    for operand in 0..instruction.op_count() {
        match instruction.op_kind(operand) {
            OpKind::NearBranch64 => all.push(instruction.near_branch64()),
            OpKind::Memory if instruction.is_ip_rel_memory_operand() => {
                all.push(instruction.ip_rel_memory_address());
            }
            OpKind::Immediate64 if AREA.contains(&instruction.immediate64()) => {
                all.push(instruction.immediate64());
            }
            _ => {}
        }
    }
    all
}

/// An instruction's bytes without the addresses that it holds. `code` is loaded at `start`.
fn plain(instruction: &Instruction, code: &[u8], start: u64) -> Vec<u8> {
    let from = (instruction.ip() - start) as usize;
    let mut bytes = code[from..from + instruction.len()].to_vec();
    let mut decoder = Decoder::with_ip(64, &code[from..], instruction.ip(), DecoderOptions::NONE);
    let same = decoder.decode();
    let offsets = decoder.get_constant_offsets(&same);
    let mut blank = |at: usize, size: usize| bytes[at..at + size].fill(0);
    if instruction.is_ip_rel_memory_operand() {
        blank(offsets.displacement_offset(), offsets.displacement_size());
    }
    let address = instruction.op_kinds().any(|kind| match kind {
        OpKind::NearBranch64 => true,
        OpKind::Immediate64 => AREA.contains(&instruction.immediate64()),
        _ => false,
    });
    if address {
        blank(offsets.immediate_offset(), offsets.immediate_size());
    }
    bytes
}

/// The name without the compiler's counters.
fn unnumbered(name: &str) -> &str {
    name.trim_end_matches(|c: char| c.is_ascii_digit()).strip_suffix('.').unwrap_or(name)
}

/// The special sections: in the payload, in a linked hypervisor, size of an entry.
const TABLES: &[(&str, &str, &str, u64)] = &[
    (".bug_frames.0", "bugs_0", "bugs_1", 8),
    (".bug_frames.1", "bugs_1", "bugs_2", 8),
    (".bug_frames.2", "bugs_2", "bugs_3", 8),
    (".bug_frames.3", "bugs_3", "bugs_end", 16),
    (".altinstructions", "__alt_instructions", "__alt_instructions_end", 14),
    (".alt_call_sites", "__alt_call_sites_start", "__alt_call_sites_end", 4),
    (".ex_table", "extable", "extable_end", 8),
];

/// Sections of pointers that the loader calls: the patched hypervisor's linker has just put them somewhere.
const HOOKS: [&str; 8] = [
    ".livepatch.hooks.load",
    ".livepatch.hooks.unload",
    ".livepatch.hooks.preapply",
    ".livepatch.hooks.apply",
    ".livepatch.hooks.postapply",
    ".livepatch.hooks.prerevert",
    ".livepatch.hooks.revert",
    ".livepatch.hooks.postrevert",
];

/// The addresses that a hook section holds.
fn pointers(image: &Image, section: &str) -> Vec<u64> {
    let bytes = image.range(section).map_or(&[][..], |range| &range.bytes);
    bytes.chunks(8).map(|raw| raw.try_into().map_or(0, u64::from_le_bytes)).collect()
}

impl Walk {
    /// Queues what hooks point to; those that the shipped hypervisor has already are not the payload's. Whether
    /// there are any.
    fn hooks(&mut self) -> bool {
        let mut any = false;
        for section in HOOKS {
            let names = |image: &Image, at: u64| -> Vec<String> {
                image.covering(at).iter().map(|(name, _)| name.table.clone()).collect()
            };
            let old: Vec<_> =
                pointers(&self.shipped, section).iter().map(|&at| names(&self.shipped, at)).collect();
            let mut expected = pointers(&self.patched, section);
            // Between the parts of two objects may be room.
            expected.retain(|&at| at != 0 && !old.contains(&names(&self.patched, at)));
            let found = pointers(&self.payload, section);
            if expected.len() != found.len()
                || self.payload.range(section).is_some_and(|r| r.bytes.is_empty())
            {
                self.complain(format!("{} pointers in {section} instead of {}", found.len(), expected.len()));
                continue;
            }
            any |= !found.is_empty();
            for (expected, found) in expected.into_iter().zip(found) {
                self.queue.push_back((expected, found));
            }
        }
        any
    }

    /// What describes the code that was compared, here and there.
    fn tables(&mut self) {
        for &(section, start, end, size) in TABLES {
            let bounds = (self.patched.address(start), self.patched.address(end));
            let (Ok(start), Ok(end)) = bounds else { return self.complain(format!("no {start}")) };
            let mut expected = Vec::new();
            for at in (start..end).step_by(size as usize) {
                let Some(place) = points_to(&self.patched, section, at) else {
                    return self.complain(format!("{section} of the patched hypervisor is strange"));
                };
                let home = self.code.range(..=place).next_back().filter(|(_, (end, _))| place < *end);
                if let Some((start, (_, found))) = home {
                    expected.push((found.wrapping_add(place - start), at));
                }
            }
            let mut found = Vec::new();
            if let Some(range) = self.payload.range(section) {
                let all = (range.start..range.start + range.bytes.len() as u64).step_by(size as usize);
                found.extend(all.map(|at| (points_to(&self.payload, section, at).unwrap_or(0), at)));
            }
            expected.sort_unstable();
            found.sort_unstable();
            let places = |list: &[(u64, u64)]| list.iter().map(|(place, _)| *place).collect::<Vec<_>>();
            if places(&expected) != places(&found) {
                let (a, b) = (places(&expected), places(&found));
                self.complain(format!("entries of {section} are for {b:x?} and should be for {a:x?}"));
                continue;
            }
            for ((_, a), (_, b)) in expected.into_iter().zip(found) {
                self.entry(section, a, b);
            }
        }
        while let Some((expected, found)) = self.queue.pop_front() {
            if self.seen.insert((expected, found)) {
                self.place(expected, found);
            }
        }
    }

    /// Two entries that describe the same code.
    fn entry(&mut self, section: &str, a: u64, b: u64) {
        let word = |image: &Image, at: u64| {
            image.bytes(at, 4).map_or(0, |raw| u32::from_le_bytes(raw.try_into().expect("four bytes")))
        };
        // Bug frames measure from the frame, and the word behind its place has a line number on top.
        let frame = section.starts_with(".bug_frames");
        let follow = |walk: &Walk, at: u64| {
            let (from, bits) = (if frame { 0 } else { at }, if frame && at == 4 { 24 } else { 32 });
            let expected = walk.patched.follow(a + at, a + from, bits)?;
            Some((expected, walk.payload.follow(b + at, b + from, bits)?))
        };
        if frame {
            let line = |image: &Image, at: u64| {
                let part = |word: u32| (word >> 24) + u32::from(word & 0x80_0000 != 0);
                ((part(word(image, at)) & 127) << 7) + (part(word(image, at + 4)) & 127)
            };
            let (x, y) = (line(&self.patched, a), line(&self.payload, b));
            if x != y {
                self.complain(format!("{section}: line {x} became {y}"));
            }
            let Some((x, y)) = follow(self, 4) else { return self.complain("a frame leads nowhere") };
            self.reference(x, y, section);
            if section == ".bug_frames.3" {
                let Some((x, y)) = follow(self, 12) else {
                    return self.complain("a frame's text is nowhere");
                };
                self.reference(x, y, section);
            }
        } else if section == ".ex_table" {
            let Some((x, y)) = follow(self, 4) else { return self.complain("a fixup is nowhere") };
            self.reference(x, y, section);
        } else if section == ".altinstructions" {
            let rest = [(&self.patched, a), (&self.payload, b)]
                .map(|(image, at)| image.bytes(at + 8, 6).map(<[u8]>::to_vec));
            if rest[0] != rest[1] {
                self.complain(format!("{section}: {:02x?} became {:02x?}", rest[0], rest[1]));
            }
            let length = rest[0].as_ref().map_or(0, |raw| u64::from(raw[3]));
            let Some((x, y)) = follow(self, 4).filter(|_| length > 0) else { return };
            self.replacement(x, y, length);
        }
    }

    fn replacement(&mut self, expected: u64, found: u64, length: u64) {
        let both = (self.patched.bytes(expected, length), self.payload.bytes(found, length));
        let (Some(a), Some(b)) = both else { return self.complain("replacement code is nowhere") };
        let (bytes, other) = (a.to_vec(), b.to_vec());
        let a = Decoder::with_ip(64, &bytes, expected, DecoderOptions::NONE);
        let b = Decoder::with_ip(64, &other, found, DecoderOptions::NONE);
        let pairs: Vec<_> = a.into_iter().zip(b).collect();
        self.code.insert(expected, (expected + length, found));
        for (a, b) in pairs {
            let addresses: Vec<_> = targets(&a).into_iter().zip(targets(&b)).collect();
            if a.code() != b.code() || plain(&a, &bytes, expected) != plain(&b, &other, found) {
                self.complain(format!("replacement code: {a} became {b}"));
            }
            for (x, y) in addresses {
                self.reference(x, y, &format!("replacement code {a}"));
            }
        }
    }
}

/// The code that an entry describes.
fn points_to(image: &Image, section: &str, at: u64) -> Option<u64> {
    image.follow(at, at, if section.starts_with(".bug_frames") { 24 } else { 32 })
}
