//! Outcomes, diagnostics and reasons: the data that every stage reports in.
//!
//! Nothing here prints. The terminal, `report.json` and later HTML are renderers of these values, so
//! that a refusal reads the same wherever it is seen.

mod allow;
mod diagnostic;
mod difference;
mod outcome;
mod reason;

pub use allow::{Allowance, Allowed};
pub use diagnostic::{Code, Diagnostic, Kind, Place, Problems};
pub use difference::{Difference, DifferenceKind, Site};
pub use outcome::Outcome;
pub use reason::{Because, Link};

#[cfg(test)]
mod tests;
