//! The whole original beside the shipped hypervisor.

use std::collections::BTreeSet;

use rayon::prelude::*;
use xsplice_build::{BaseObject, CapturedBuild};
use xsplice_diff::Configuration;
use xsplice_objects::Object;
use xsplice_report::{Code, Problems};

use crate::pipeline;
use crate::report::Findings;
use crate::stages::Host;

/// What goes into the archive lib.a (`ALL_LIBS` in xen/Makefile, from 4.15 on).
const LIBRARY: &str = "xen/lib/";

/// The object that holds the configuration.
const CONFIGURATION: &str = "xen/common/config_data.o";

/// Says of a base that is not the shipped one whether its configuration is another one, where that is known.
pub(crate) fn blame_configuration(
    mut problems: Problems,
    captured: &CapturedBuild,
    host: Option<&Host<'_>>,
) -> Problems {
    let is_mismatch = |code: Code| code == xsplice_diff::codes::BASE_MISMATCH;
    if !problems.0.iter().any(|problem| is_mismatch(problem.code)) {
        return problems;
    }
    let object = captured.base_objects.read(CONFIGURATION).ok();
    let object = object.and_then(|bytes| Object::parse(CONFIGURATION, &bytes).ok());
    let compared = object
        .zip(host)
        .and_then(|(object, host)| xsplice_diff::configuration(&object, &host.symbols.hypervisor));
    let Some(compared) = compared else { return problems };
    let said = configuration(&compared);
    for problem in problems.0.iter_mut().filter(|problem| is_mismatch(problem.code)) {
        problem.why.push_str(&said);
    }
    problems
}

/// At most so many options are named.
const OPTIONS: usize = 5;

fn configuration(compared: &Configuration) -> String {
    let options = match compared {
        Configuration::Same => return " Its configuration is the same.".to_owned(),
        Configuration::Other(options) => options,
    };
    if options.is_empty() {
        return " Its configuration is another one: what it holds of that (xen_config_data) differs."
            .to_owned();
    }
    let named = options.iter().take(OPTIONS);
    let named: Vec<_> =
        named.map(|o| format!("{} is {} here, {} was shipped", o.name, o.ours, o.shipped)).collect();
    let more = match options.len().saturating_sub(OPTIONS) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    format!(" Its configuration is another one: {}{more}.", named.join("; "))
}

/// Compares every object of the original with the shipped hypervisor. What differs in objects that the change is about
/// stands in its way, which is for check to say; the rest is told.
pub(crate) fn all(
    captured: &CapturedBuild,
    host: &Host<'_>,
    findings: &mut Findings,
) -> Result<(), Problems> {
    let changed: BTreeSet<&str> = captured
        .objects
        .iter()
        .filter(|o| pipeline::is_compared(o))
        .map(|object| object.path.as_str())
        .collect();
    // They are all there: the request says that the whole original is wanted.
    let linked: Vec<&BaseObject> =
        captured.base_objects.list().iter().filter(|object| object.linked).collect();
    let parsed: Vec<Result<Option<(Object, bool)>, Problems>> = linked
        .par_iter()
        .map(|object| {
            let bytes = captured.base_objects.read(&object.path)?;
            if Object::is_32_bit(&bytes) {
                return Ok(None);
            }
            Ok(Some((Object::parse(&object.path, &bytes)?, object.path.starts_with(LIBRARY))))
        })
        .collect();
    let objects: Vec<(Object, bool)> = Problems::collect(parsed)?.into_iter().flatten().collect();
    let whole = xsplice_diff::prove(objects.iter().map(|(o, archived)| (o, *archived)), &host.world(&[]));
    findings.problems.extend(whole.told_of_rest(&changed));
    findings.whole_base = Some(whole);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use xsplice_diff::OtherOption;

    #[test]
    fn a_few_options_are_named() {
        let option = |index: usize| OtherOption {
            name: format!("CONFIG_O{index}"),
            ours: "y".to_owned(),
            shipped: "n".to_owned(),
        };
        let said = configuration(&Configuration::Other((0..7).map(option).collect()));
        assert!(said.contains("CONFIG_O4 is y here, n was shipped; and 2 more"), "{said}");
        assert!(!said.contains("CONFIG_O5"), "{said}");
        assert!(configuration(&Configuration::Other(Vec::new())).contains("xen_config_data"));
    }
}
