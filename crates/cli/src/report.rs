//! The one report of a run: `report.json` as it is, and what the terminal shows of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;
use xsplice_build::{BuildSystem, ConfigChange, LineNumbers, Original, PresetFacts, TouchedFile, Way};
use xsplice_diff::{Base, ByAddress, Changes, Hook, InitChange, PieceKind, Replacement, ThroughOriginal};
use xsplice_link::Ids;
use xsplice_report::{Because, Outcome, Place, Problems};
use xsplice_verify::Facts;

use crate::stages::Verified;

/// Goes up whenever a field changes its meaning or goes away.
pub(crate) const SCHEMA: u32 = 2;

/// How this program names itself in reports and payloads.
pub(crate) const TOOL: &str = concat!("xsplice ", env!("CARGO_PKG_VERSION"));

/// What a run of `xsplice build` found and did.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) schema: u32,
    pub(crate) tool: String,
    pub(crate) outcome: Outcome,
    pub(crate) exit_code: u8,
    pub(crate) name: String,
    pub(crate) patches: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload: Option<PayloadFacts>,
    pub(crate) compiler: String,
    /// What was run in the private copy of the tree before it was configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prepare: Option<String>,
    /// What was taken from the packaging in the tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) preset: Option<PresetFacts>,
    /// What the private builds say about themselves as the shipped hypervisor does, by macro of xen/compile.h; the rest
    /// are defaults.
    pub(crate) metadata: BTreeMap<String, String>,
    /// Every file that the patches touch, and what became of it.
    pub(crate) touched: Vec<TouchedFile>,
    pub(crate) config_changes: Vec<ConfigChange>,
    /// Which files were compiled with their original line numbers.
    pub(crate) line_numbers: LineNumbers,
    /// How the patched objects were made; none where it did not come to that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) built: Option<Way>,
    /// How the tree sees to it that functions have sections of their own; for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) build_system: Option<BuildSystem>,
    /// How the original objects were made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) original: Option<Original>,
    /// Why there is nothing to patch; one line for each file.
    pub(crate) nothing: Vec<String>,
    #[serde(flatten)]
    pub(crate) findings: Findings,
}

/// What the stages that commands share find in pairs of objects.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Findings {
    /// Objects that were compared, relative to the tree.
    pub(crate) compared: Vec<String>,
    /// Everything that differs and matters after boot, whether or not a payload can bring it.
    pub(crate) changes: Changes,
    /// How the objects that the change is about compare with the shipped hypervisor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) base: Option<Base>,
    /// The same of all objects, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) whole_base: Option<Base>,
    /// What the payload replaces.
    pub(crate) functions: Vec<Replacement>,
    /// What the loader calls, by kind and in the order in which it calls those of one kind.
    pub(crate) hooks: Vec<Hook>,
    pub(crate) new_functions: Vec<NewFunction>,
    pub(crate) removed_functions: Vec<RemovedFunction>,
    /// What the payload consists of, each with the reasons why.
    pub(crate) pieces: Vec<PieceFacts>,
    /// Names that the host must have.
    pub(crate) needs: Vec<String>,
    /// What is referred to or replaced by its address, since the host has its name more than once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) by_address: Vec<ByAddress>,
    /// References to replaced functions, which go to the original.
    pub(crate) through_original: Vec<ThroughOriginal>,
    /// Changes that wait for the next boot.
    pub(crate) init_changes: Vec<InitChange>,
    /// Refusals that the command line lets through, each as `CODE` or `CODE:SYMBOL`.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) allowed: BTreeSet<String>,
    pub(crate) problems: Problems,
}

/// The finished payload.
#[derive(Debug, Serialize)]
pub(crate) struct PayloadFacts {
    pub(crate) file: String,
    pub(crate) size: u64,
    pub(crate) build_id: String,
    pub(crate) depends: String,
    pub(crate) xen_depends: String,
    pub(crate) verified: Facts,
}

/// A function that only the payload has.
#[derive(Debug, Serialize)]
pub(crate) struct NewFunction {
    pub(crate) name: String,
    #[serde(rename = "where")]
    pub(crate) place: Place,
}

/// A function that its object no longer has; the host keeps it.
#[derive(Debug, Serialize)]
pub(crate) struct RemovedFunction {
    pub(crate) name: String,
    pub(crate) object: String,
}

/// Something in the payload, and why.
#[derive(Debug, Serialize)]
pub(crate) struct PieceFacts {
    pub(crate) kind: PieceKind,
    pub(crate) label: String,
    pub(crate) object: String,
    pub(crate) size: u64,
    pub(crate) because: Because,
}

impl Report {
    /// A report in which nothing has happened yet.
    pub(crate) fn new(name: &str, patches: Vec<String>) -> Report {
        Report {
            schema: SCHEMA,
            tool: TOOL.to_owned(),
            outcome: Outcome::Failed,
            exit_code: Outcome::Failed.exit_code(),
            name: name.to_owned(),
            patches,
            payload: None,
            compiler: String::new(),
            prepare: None,
            preset: None,
            metadata: BTreeMap::new(),
            touched: Vec::new(),
            config_changes: Vec::new(),
            line_numbers: LineNumbers::default(),
            built: None,
            build_system: None,
            original: None,
            nothing: Vec::new(),
            findings: Findings::default(),
        }
    }

    /// Sets the outcome, and with it the exit code.
    pub(crate) fn end(&mut self, outcome: Outcome) {
        self.outcome = outcome;
        self.exit_code = outcome.exit_code();
    }
}

/// What a run of `xsplice diff` found and did.
#[derive(Debug, Serialize)]
pub(crate) struct DiffReport {
    pub(crate) schema: u32,
    pub(crate) tool: String,
    pub(crate) outcome: Outcome,
    pub(crate) exit_code: u8,
    /// The objects as the user named them.
    pub(crate) original: String,
    pub(crate) patched: String,
    /// The symbol file of the hypervisor; without it nothing is said about what the hypervisor has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) xen_syms: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload: Option<PayloadFacts>,
    #[serde(flatten)]
    pub(crate) findings: Findings,
}

impl PayloadFacts {
    /// Of a payload in a file of that name.
    pub(crate) fn of(payload: &Verified, file: &Path, ids: &Ids) -> PayloadFacts {
        PayloadFacts {
            file: file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            size: payload.bytes().len() as u64,
            build_id: hex(payload.build_id()),
            depends: hex(&ids.depends),
            xen_depends: hex(&ids.xen_depends),
            verified: payload.facts(),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
