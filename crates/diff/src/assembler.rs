//! Assembler code: compared section by section, but for functions that have a section of their own.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction};
use xsplice_objects::{Class, SectionId, SymbolKind};
use xsplice_report::{Diagnostic, Place};

use crate::codes;
use crate::compare::{Compared, Verdict};
use crate::items::{Item, ItemId, ItemKind, Items};
use crate::meaning::View;

impl Compared<'_> {
    /// Assembler code is compared section by section: labels have no sizes, and code falls through from one to
    /// the next.
    pub(crate) fn compare_assembler(&mut self, unmarked: &View<'_>) {
        let parts = self.correlated.parts;
        let [base, patched] = [&parts.base, &parts.patched].map(Sections::of);
        let names: BTreeSet<(String, Class)> = [parts.base.object, parts.patched.object]
            .into_iter()
            .flat_map(|object| {
                object.sections.iter().filter(|s| s.size > 0).map(|s| (s.name.clone(), s.class))
            })
            .filter(|(_, class)| !matches!(class, Class::Ignored | Class::Tables | Class::Unknown))
            .collect();
        for (name, class) in names {
            let find = |sections: &Sections<'_>| {
                let id = sections.first(&name, class)?;
                Some((self.raw(unmarked, sections.items, id), sections.items.object.section(id).size))
            };
            if find(&base) == find(&patched) {
                continue;
            }
            if class.is_init() {
                self.note_init(&name, "assembler code or data of boot changed");
                continue;
            }
            let mut why_not = String::new();
            if class == Class::Text {
                match self.assembler_function((&base, &patched), &name) {
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
            let labels = labels_near_change(&base, &patched, &name);
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

    /// The function that is all of a section, before and after; or why the section is none, in words.
    fn assembler_function(
        &self,
        (base, patched): (&Sections<'_>, &Sections<'_>),
        section: &str,
    ) -> Result<(ItemId, ItemId), String> {
        let base = only_function(base, &self.correlated.base, section)?;
        let patched = only_function(patched, &self.correlated.patched, section)?;
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

/// The sections of an object, as [`Compared::compare_assembler`] asks for them.
struct Sections<'o> {
    items: &'o Items<'o>,
    by_name: BTreeMap<&'o str, Vec<SectionId>>,
    /// Sections whose middle another section refers to, with the name of that one.
    entered: OnceCell<BTreeMap<SectionId, &'o str>>,
}

impl<'o> Sections<'o> {
    fn of(items: &'o Items<'o>) -> Sections<'o> {
        let mut by_name: BTreeMap<&str, Vec<SectionId>> = BTreeMap::new();
        for (id, section) in items.object.sections() {
            by_name.entry(&section.name).or_default().push(id);
        }
        Sections { items, by_name, entered: OnceCell::new() }
    }

    fn named(&self, name: &str) -> &[SectionId] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    fn first(&self, name: &str, class: Class) -> Option<SectionId> {
        self.named(name).iter().copied().find(|&id| self.items.object.section(id).class == class)
    }

    /// A section, other than those with entries that describe code, that refers to a section's middle.
    fn enters_middle(&self, view: &View<'_>, middle: SectionId) -> Option<&'o str> {
        self.entered.get_or_init(|| entered(self.items, view)).get(&middle).copied()
    }
}

/// Names with the bytes of what stands there, that differ in the sections of a name.
fn labels_near_change(base: &Sections<'_>, patched: &Sections<'_>, section: &str) -> String {
    let list = |sections: &Sections<'_>| -> BTreeMap<String, Vec<u8>> {
        let items = sections.items;
        let ids = sections.named(section).iter().flat_map(|&id| items.in_section(id));
        let labels = ids.map(|&id| items.get(id)).filter(|item| item.kind != ItemKind::Blob);
        labels
            .map(|item| {
                let bytes = items.object.section(item.section).bytes(item.start, item.end).into_owned();
                (item.name.clone(), bytes)
            })
            .collect()
    };
    let (before, after) = (list(base), list(patched));
    let changed: Vec<&str> = after
        .iter()
        .filter(|(name, bytes)| before.get(*name) != Some(bytes))
        .map(|(n, _)| n.as_str())
        .collect();
    if changed.is_empty() { String::new() } else { format!("; changed labels: {}", changed.join(", ")) }
}

/// The function that a section of assembler code consists of: its symbol covers all of it, nothing else is named in
/// it, nobody goes to its middle, and it does not run out at its end.
fn only_function(sections: &Sections<'_>, view: &View<'_>, name: &str) -> Result<ItemId, String> {
    let items = sections.items;
    let object = items.object;
    let mut filled = sections.named(name).iter().copied().filter(|&id| object.section(id).size > 0);
    let (Some(id), None) = (filled.next(), filled.next()) else {
        return Err("the original and the patched object do not have one such section each".into());
    };
    let section = object.section(id);
    let inside: BTreeSet<&str> = items
        .symbols_in(id, 1, u64::MAX)
        .filter(|symbol| symbol.kind != SymbolKind::Section)
        .map(|symbol| symbol.name.as_str())
        .collect();
    if !inside.is_empty() {
        let labels = inside.into_iter().collect::<Vec<_>>().join(", ");
        return Err(format!("there are labels inside: {labels}"));
    }
    let first = items.in_section(id).first().map(|&first| (first, items.get(first)));
    let function = |(_, item): &(ItemId, &Item)| item.start == 0 && item.kind == ItemKind::Function;
    let Some((item_id, item)) = first.filter(function) else {
        return Err("no symbol stands at its start".into());
    };
    if !item.sized || item.end != section.size {
        return Err(format!("the size of {} does not cover it", item.name));
    }
    if let Some(from) = sections.enters_middle(view, id) {
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

/// All sections whose middle is referred to by others, each with the first of these that are no tables of entries
/// which describe code.
fn entered<'o>(items: &Items<'o>, view: &View<'_>) -> BTreeMap<SectionId, &'o str> {
    let object = items.object;
    let ignored = |class: Class| matches!(class, Class::Ignored | Class::Tables | Class::Special(_));
    let mut entered = BTreeMap::new();
    for (id, section) in object.sections().filter(|(_, section)| !ignored(section.class)) {
        let ends = crate::meaning::decode(&section.data, &section.relocations, 0).ends;
        for relocation in &section.relocations {
            let adjust = match ends.get(&relocation.offset) {
                Some(end) if relocation.kind.is_relative() => (end - relocation.offset).cast_signed(),
                _ => 0,
            };
            let spot = view.spot(relocation, adjust);
            if let Some(middle) = spot.section.filter(|&middle| middle != id && spot.offset != 0) {
                entered.entry(middle).or_insert(section.name.as_str());
            }
        }
    }
    entered
}
