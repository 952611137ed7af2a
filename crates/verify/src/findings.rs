//! What the rules found: each with whose rule it is, and for the loader's with what it answers.

use serde::Serialize;
use xsplice_report::{Code, Diagnostic, Problems};

/// Xen's error numbers, as far as the loader answers with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Errno {
    /// No such name.
    Enoent,
    /// No room in the area for payloads.
    Enomem,
    /// A name or a build-id that is in use.
    Eexist,
    /// Anything that is not as it must be.
    Einval,
    /// A note that is no build-id.
    Enodata,
    /// A replacement that is longer than its original.
    Enospc,
    /// A number that is out of range.
    Erange,
    /// Something that this loader does not do.
    Eopnotsupp,
    /// A distance that does not fit.
    Eoverflow,
}

impl Errno {
    /// The name, such as `EINVAL`.
    pub fn name(self) -> &'static str {
        match self {
            Errno::Enoent => "ENOENT",
            Errno::Enomem => "ENOMEM",
            Errno::Eexist => "EEXIST",
            Errno::Einval => "EINVAL",
            Errno::Enodata => "ENODATA",
            Errno::Enospc => "ENOSPC",
            Errno::Erange => "ERANGE",
            Errno::Eopnotsupp => "EOPNOTSUPP",
            Errno::Eoverflow => "EOVERFLOW",
        }
    }
}

/// The loader's steps in the order in which it takes them: it stops at the first that fails.
///
/// The functions are those of xen/common/livepatch.c and livepatch_elf.c, 4.13 to 4.22.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The payloads below were applied one on the other: else nothing is as it is said to be.
    Below,
    /// Name and size (`verify_payload`, `find_payload`).
    Request,
    /// The file header (`livepatch_header_check`).
    Header,
    /// Each section's place and alignment (`elf_resolve_sections`, its loop).
    Sections,
    /// The symbol table and its strings (`elf_resolve_sections`, behind its loop).
    SymbolTable,
    /// Names of sections (`elf_resolve_section_names`).
    SectionNames,
    /// Names of symbols (`elf_get_sym`).
    SymbolNames,
    /// The hypervisor's build-id, where it comes first (`check_xen_buildid`).
    XenIdFirst,
    /// A place in memory (`move_payload`).
    Placement,
    /// Looking symbols up (`livepatch_elf_resolve_symbols`).
    Symbols,
    /// Applying relocations (`livepatch_elf_perform_relocs`).
    Relocations,
    /// Sections that must be there (`check_special_sections`).
    Required,
    /// Something to do (`check_patching_sections`).
    Patching,
    /// The list of functions (`prepare_payload`, as are the steps up to metadata).
    Functions,
    /// Sizes of hook sections.
    Hooks,
    /// The payload's own build-id.
    OwnId,
    /// The note that says what it depends on.
    DependsNote,
    /// The note that says for which hypervisor it is.
    XenNote,
    /// Sizes of the tables of bug frames.
    BugFrames,
    /// Where alternatives point to.
    Alternatives,
    /// Their lengths and features (`apply_alternatives`).
    ApplyAlternatives,
    /// Call sites that are made direct.
    CallSites,
    /// The size of the exception table.
    ExceptionTable,
    /// Metadata.
    Metadata,
    /// The hypervisor's build-id, where it comes late (`xen_build_id_dep`).
    XenId,
    /// Names that the payload adds (`build_symbol_table`).
    NewSymbols,
    /// At apply: the build-id below (`build_id_dep`).
    Depends,
    /// At apply: expectations (`livepatch_check_expectations`).
    Expectations,
}

/// What the host was asked for when the loader said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// `xen-livepatch upload`, or the first half of `load`.
    Upload,
    /// `xen-livepatch apply`, or the second half of `load`.
    Apply,
}

impl Action {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Action::Upload => "upload",
            Action::Apply => "apply",
        }
    }
}

impl Step {
    /// What the host is asked for when this step comes.
    pub fn action(self) -> Action {
        match self {
            Step::Below | Step::Depends | Step::Expectations => Action::Apply,
            _ => Action::Upload,
        }
    }
}

/// Whose rule is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The loader's: it says no at this step with this error.
    Loader(Step, Errno),
    /// The running host's: the loader takes it, and the host pays.
    Host,
    /// Nobody's: a warning, or something that could not be read.
    Note,
}

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whose rule it is.
    pub side: Side,
    /// What is wrong.
    pub diagnostic: Diagnostic,
}

/// All broken rules, those of one step in the loader's own order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings(pub Vec<Finding>);

impl Findings {
    /// Adds one of either side.
    pub(crate) fn push(&mut self, side: Side, diagnostic: Diagnostic) {
        self.0.push(Finding { side, diagnostic });
    }

    /// Adds something that the loader refuses.
    pub(crate) fn loader(&mut self, step: Step, errno: Errno, diagnostic: Diagnostic) {
        self.push(Side::Loader(step, errno), diagnostic);
    }

    /// Adds something that the loader takes and the host pays for.
    pub(crate) fn host(&mut self, diagnostic: Diagnostic) {
        self.push(Side::Host, diagnostic);
    }

    /// Adds a warning or a failure.
    pub(crate) fn note(&mut self, diagnostic: Diagnostic) {
        self.push(Side::Note, diagnostic);
    }

    /// Adds warnings or failures.
    pub(crate) fn notes(&mut self, diagnostics: Problems) {
        diagnostics.into_iter().for_each(|diagnostic| self.note(diagnostic));
    }

    /// What the loader stops at: the first finding of its first step that fails.
    pub fn first_of_loader(&self) -> Option<(Step, Errno, &Diagnostic)> {
        let loader = self.0.iter().filter_map(|finding| match finding.side {
            Side::Loader(step, errno) => Some((step, errno, &finding.diagnostic)),
            Side::Host | Side::Note => None,
        });
        // Of several that are least, the first.
        loader.min_by_key(|(step, _, _)| *step)
    }

    /// The codes of everything that the loader takes and the host pays for, each once, in order of name.
    pub fn of_host(&self) -> Vec<Code> {
        let mut codes: Vec<Code> =
            self.0.iter().filter(|f| f.side == Side::Host).map(|f| f.diagnostic.code).collect();
        codes.sort();
        codes.dedup();
        codes
    }

    /// Whether nothing stands against the payload on either side.
    pub(crate) fn is_harmless(&self) -> bool {
        self.0.iter().all(|finding| finding.diagnostic.kind == xsplice_report::Kind::Warning)
    }

    /// All diagnostics in a fixed order, without repetitions.
    pub(crate) fn problems(&self) -> Problems {
        let mut problems = Problems(self.0.iter().map(|finding| finding.diagnostic.clone()).collect());
        problems.normalise();
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes;

    #[test]
    fn the_loader_stops_at_its_first_step_whatever_the_order_of_rules() {
        let mut findings = Findings::default();
        let say = |what: &str| Diagnostic::new(codes::NOTE, what);
        assert_eq!(findings.first_of_loader(), None);
        findings.host(say("host"));
        findings.loader(Step::Functions, Errno::Einval, say("late"));
        findings.loader(Step::Symbols, Errno::Enoent, say("first"));
        findings.loader(Step::Symbols, Errno::Einval, say("second"));
        let (step, errno, diagnostic) = findings.first_of_loader().unwrap();
        assert_eq!((step, errno.name(), diagnostic.what.as_str()), (Step::Symbols, "ENOENT", "first"));
        assert_eq!(step.action(), Action::Upload);
        assert_eq!(Step::Expectations.action(), Action::Apply);
        assert_eq!(findings.of_host(), [codes::NOTE]);
        assert!(!findings.is_harmless());
    }
}
