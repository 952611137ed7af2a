//! Assembler code: compared section by section, but for functions that have a section of their own.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction};
use xsplice_objects::{Class, Home, SectionId, SymbolKind};
use xsplice_report::{Diagnostic, Place};

use crate::codes;
use crate::compare::{Compared, Verdict};
use crate::items::{ItemId, ItemKind, Items};
use crate::meaning::View;

impl Compared<'_> {
    /// Assembler code is compared section by section: labels have no sizes, and code falls through from one to
    /// the next.
    pub(crate) fn compare_assembler(&mut self) {
        let parts = self.correlated.parts;
        let names: BTreeSet<(String, Class)> = [parts.base.object, parts.patched.object]
            .into_iter()
            .flat_map(|object| {
                object.sections.iter().filter(|s| s.size > 0).map(|s| (s.name.clone(), s.class))
            })
            .filter(|(_, class)| !matches!(class, Class::Ignored | Class::Tables | Class::Unknown))
            .collect();
        for (name, class) in names {
            let find = |items: &crate::items::Items<'_>| {
                let found = items.object.sections().find(|(_, s)| s.name == name && s.class == class);
                found.map(|(id, section)| (self.raw(items, id), section.size))
            };
            if find(&parts.base) == find(&parts.patched) {
                continue;
            }
            if class.is_init() {
                self.note_init(&name, "assembler code or data of boot changed");
                continue;
            }
            let mut why_not = String::new();
            if class == Class::Text {
                match self.assembler_function(&name) {
                    Ok((base, patched)) => {
                        let (before, after) =
                            (self.base_fingerprint(base), self.patched_fingerprint(patched));
                        let difference = self.first_difference(base, &before, patched, &after);
                        self.functions.insert(patched, Verdict::Changed(Box::new(difference)));
                        continue;
                    }
                    Err(reason) => why_not = format!(" It is not taken for one function: {reason}."),
                }
            }
            let labels = self.labels_near_change(&name);
            self.problems.push(
                Diagnostic::new(
                    codes::ASSEMBLER_CHANGED,
                    format!("assembler code in section {name} changed"),
                )
                .at(Place::object(&parts.pair.path).source(&parts.pair.source, None).section(&name))
                .why(format!(
                    "Labels say neither where a function ends nor who falls into it{labels}.{why_not}"
                ))
                .advice("Change the C code that calls it instead, or boot a fixed hypervisor."),
            );
        }
    }

    fn labels_near_change(&self, section: &str) -> String {
        let parts = self.correlated.parts;
        let list = |items: &crate::items::Items<'_>| -> BTreeMap<String, Vec<u8>> {
            items
                .iter()
                .filter(|(_, item)| {
                    items.object.section(item.section).name == section && item.kind != ItemKind::Blob
                })
                .map(|(_, item)| {
                    let bytes = items.object.section(item.section).bytes(item.start, item.end).into_owned();
                    (item.name.clone(), bytes)
                })
                .collect()
        };
        let (before, after) = (list(&parts.base), list(&parts.patched));
        let changed: Vec<&str> = after
            .iter()
            .filter(|(name, bytes)| before.get(*name) != Some(bytes))
            .map(|(n, _)| n.as_str())
            .collect();
        if changed.is_empty() { String::new() } else { format!("; changed labels: {}", changed.join(", ")) }
    }

    /// The function that is all of a section, before and after; or why the section is none, in words.
    fn assembler_function(&self, section: &str) -> Result<(ItemId, ItemId), String> {
        let parts = self.correlated.parts;
        let base = only_function(&parts.base, &self.correlated.base, section)?;
        let patched = only_function(&parts.patched, &self.correlated.patched, section)?;
        if self.correlated.counterpart[patched.0] == Some(base) {
            Ok((base, patched))
        } else {
            Err("its name changed".into())
        }
    }

    /// A label without a size in a C file's own assembler code, that changed.
    pub(crate) fn refuse_label(&mut self, id: ItemId) {
        let parts = self.correlated.parts;
        let item = parts.patched.get(id);
        let section = &parts.patched.object.section(item.section).name;
        self.problems.push(
            Diagnostic::new(
                codes::ASSEMBLER_CHANGED,
                format!("assembler code at the label {} changed", item.name),
            )
            .at(parts.pair.place(&item.name).section(section))
            .why("The label has no size: where its code ends, and who falls into it, cannot be told.")
            .advice("Give it .type and .size and a section of its own in the original, or change the code that calls it."),
        );
    }
}

/// The function that a section of assembler code consists of: its symbol covers all of it, nothing else is named in
/// it, nobody goes to its middle, and it does not run out at its end.
fn only_function(items: &Items<'_>, view: &View<'_>, name: &str) -> Result<ItemId, String> {
    let object = items.object;
    let mut sections = object.sections().filter(|(_, section)| section.name == name && section.size > 0);
    let (Some((id, section)), None) = (sections.next(), sections.next()) else {
        return Err("the original and the patched object do not have one such section each".into());
    };
    let inside: BTreeSet<&str> = object
        .symbols
        .iter()
        .filter(|s| s.home == Home::Section(id) && s.kind != SymbolKind::Section && s.value > 0)
        .map(|s| s.name.as_str())
        .collect();
    if !inside.is_empty() {
        let labels = inside.into_iter().collect::<Vec<_>>().join(", ");
        return Err(format!("there are labels inside: {labels}"));
    }
    let found = items.iter().find(|(_, item)| item.section == id && item.start == 0);
    let Some((item_id, item)) = found.filter(|(_, item)| item.kind == ItemKind::Function) else {
        return Err("no symbol stands at its start".into());
    };
    if !item.sized || item.end != section.size {
        return Err(format!("the size of {} does not cover it", item.name));
    }
    if let Some(from) = enters_middle(items, view, id) {
        return Err(format!("section {from} refers to its middle"));
    }
    let code = section.bytes(0, section.size);
    let last = Decoder::with_ip(64, &code, 0, DecoderOptions::NONE).into_iter().last();
    if last.is_none_or(|last| may_run_on(&last)) {
        return Err("it may run on at its end".into());
    }
    Ok(item_id)
}

/// Whether what stands behind an instruction may run next.
fn may_run_on(instruction: &Instruction) -> bool {
    instruction.is_invalid()
        || !matches!(
            instruction.flow_control(),
            FlowControl::UnconditionalBranch
                | FlowControl::Return
                | FlowControl::IndirectBranch
                | FlowControl::Exception
        )
}

/// A section, other than those with entries that describe code, that refers to a section's middle.
fn enters_middle<'o>(items: &Items<'o>, view: &View<'_>, middle: SectionId) -> Option<&'o str> {
    let object = items.object;
    let ignored = |class: Class| matches!(class, Class::Ignored | Class::Tables | Class::Special(_));
    let others = object.sections().filter(|(id, section)| *id != middle && !ignored(section.class));
    for (_, section) in others {
        let ends = crate::meaning::decode(&section.data, &section.relocations, 0).ends;
        for relocation in &section.relocations {
            let adjust = match ends.get(&relocation.offset) {
                Some(end) if relocation.kind.is_relative() => (end - relocation.offset).cast_signed(),
                _ => 0,
            };
            let spot = view.spot(relocation, adjust);
            if spot.section == Some(middle) && spot.offset != 0 {
                return Some(&section.name);
            }
        }
    }
    None
}
