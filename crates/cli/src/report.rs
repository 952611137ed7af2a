//! The one report of a run: `report.json` as it is, and what the terminal shows of it.

use serde::Serialize;
use xsplice_build::{ConfigChange, TouchedFile};
use xsplice_diff::{Hook, InitChange, PieceKind, Replacement};
use xsplice_report::{Because, Outcome, Place, Problems};
use xsplice_verify::Facts;

/// Goes up whenever a field changes its meaning or goes away.
pub(crate) const SCHEMA: u32 = 1;

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
    /// Every file that the patches touch, and what became of it.
    pub(crate) touched: Vec<TouchedFile>,
    pub(crate) config_changes: Vec<ConfigChange>,
    /// Objects that were compared, relative to the tree.
    pub(crate) compared: Vec<String>,
    pub(crate) functions: Vec<Replacement>,
    /// What the loader calls, by kind and in the order in which it calls those of one kind.
    pub(crate) hooks: Vec<Hook>,
    pub(crate) new_functions: Vec<NewFunction>,
    pub(crate) removed_functions: Vec<RemovedFunction>,
    pub(crate) pieces: Vec<PieceFacts>,
    /// Names that the host must have.
    pub(crate) needs: Vec<String>,
    /// Changes that wait for the next boot.
    pub(crate) init_changes: Vec<InitChange>,
    /// Why there is nothing to patch; one line for each file.
    pub(crate) nothing: Vec<String>,
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
    #[serde(flatten)]
    pub(crate) because: Because,
}

impl Report {
    /// A report in which nothing has happened yet.
    pub(crate) fn new(name: &str, patches: Vec<String>) -> Report {
        Report {
            schema: SCHEMA,
            tool: concat!("xsplice ", env!("CARGO_PKG_VERSION")).to_owned(),
            outcome: Outcome::Failed,
            exit_code: Outcome::Failed.exit_code(),
            name: name.to_owned(),
            patches,
            payload: None,
            compiler: String::new(),
            touched: Vec::new(),
            config_changes: Vec::new(),
            compared: Vec::new(),
            functions: Vec::new(),
            hooks: Vec::new(),
            new_functions: Vec::new(),
            removed_functions: Vec::new(),
            pieces: Vec::new(),
            needs: Vec::new(),
            init_changes: Vec::new(),
            nothing: Vec::new(),
            problems: Problems::new(),
        }
    }

    /// Sets the outcome, and with it the exit code.
    pub(crate) fn end(&mut self, outcome: Outcome) {
        self.outcome = outcome;
        self.exit_code = outcome.exit_code();
    }
}
