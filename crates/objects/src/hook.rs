//! The kinds of hooks: functions of a payload that the loader calls around what it does with the payload.

use serde::Serialize;

/// A kind of hook (xen/include/xen/livepatch_payload.h, 4.13 to 4.22; 4.13 has [`HookKind::Load`] and
/// [`HookKind::Unload`] only), in the order of that header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HookKind {
    /// Before functions are replaced, with interrupts off and all other CPUs waiting. There can be several.
    Load,
    /// After functions are put back, with interrupts off and all other CPUs waiting. There can be several.
    Unload,
    /// Before the CPUs meet to apply the payload; may say no.
    PreApply,
    /// In place of the loader's own way of applying, load hooks included; with interrupts off.
    Apply,
    /// After the CPUs met to apply the payload, whatever came of it.
    PostApply,
    /// Before the CPUs meet to revert the payload; may say no.
    PreRevert,
    /// In place of the loader's own way of reverting, unload hooks included; with interrupts off.
    Revert,
    /// After the CPUs met to revert the payload, whatever came of it.
    PostRevert,
}

impl HookKind {
    /// All kinds, in the order of Xen's header.
    pub const ALL: [HookKind; 8] = [
        HookKind::Load,
        HookKind::Unload,
        HookKind::PreApply,
        HookKind::Apply,
        HookKind::PostApply,
        HookKind::PreRevert,
        HookKind::Revert,
        HookKind::PostRevert,
    ];

    /// The section that holds pointers to such hooks, in objects and payloads alike.
    pub fn section(self) -> &'static str {
        match self {
            HookKind::Load => ".livepatch.hooks.load",
            HookKind::Unload => ".livepatch.hooks.unload",
            HookKind::PreApply => ".livepatch.hooks.preapply",
            HookKind::Apply => ".livepatch.hooks.apply",
            HookKind::PostApply => ".livepatch.hooks.postapply",
            HookKind::PreRevert => ".livepatch.hooks.prerevert",
            HookKind::Revert => ".livepatch.hooks.revert",
            HookKind::PostRevert => ".livepatch.hooks.postrevert",
        }
    }

    /// The last part of the section's name.
    pub fn name(self) -> &'static str {
        &self.section()[".livepatch.hooks.".len()..]
    }

    /// The kind whose section that is.
    pub fn of_section(name: &str) -> Option<HookKind> {
        HookKind::ALL.into_iter().find(|kind| kind.section() == name)
    }

    /// The kind of that name.
    pub fn named(name: &str) -> Option<HookKind> {
        HookKind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether a payload can have several: the section is an array, else exactly one pointer.
    pub fn is_array(self) -> bool {
        matches!(self, HookKind::Load | HookKind::Unload)
    }

    /// Whether it runs with interrupts off while all other CPUs wait, so that whatever waits for them hangs.
    pub fn is_alone(self) -> bool {
        matches!(self, HookKind::Load | HookKind::Unload | HookKind::Apply | HookKind::Revert)
    }

    /// Whether it can run while the payload is not applied (a post-apply hook does after a failure): loaders that
    /// register a payload's bug frames and exception table only while it is applied do not know them then.
    pub fn runs_unapplied(self) -> bool {
        !matches!(self, HookKind::PreRevert | HookKind::Revert | HookKind::Unload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_kinds_and_back() {
        for kind in HookKind::ALL {
            assert_eq!(HookKind::of_section(kind.section()), Some(kind));
            assert_eq!(HookKind::named(kind.name()), Some(kind));
        }
        assert_eq!(HookKind::PostRevert.name(), "postrevert");
        assert_eq!(HookKind::of_section(".livepatch.hooks.aply"), None);
        assert_eq!(HookKind::of_section("load"), None);
    }
}
