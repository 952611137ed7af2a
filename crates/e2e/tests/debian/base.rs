//! The rebuilt original beside the hypervisor that Debian ships.

use libtest_mimic::{Completion, Failed};
use serde_json::Value;
use xsplice_e2e::recipes;

use crate::boots::equal;
use crate::setup::{self, Built};

/// Functions (STT_FUNC) in Debian's xen-syms.
const SHIPPED: u64 = 4489;

/// Functions of xen/common/version.c that return what the build writes into compile.h: date and time, who and where, and
/// the compiler's own name. Xen was built by Debian's packaging, and here by make.
const OF_THE_BUILD: [&str; 6] = [
    "xen_compile_date",
    "xen_compile_time",
    "xen_compile_system_maintainer_local",
    "xen_compile_system_maintainer_domain",
    "xen_compile_system_version",
    "xen_compiler",
];

fn count(base: &Value, field: &str) -> Result<u64, String> {
    base[field].as_u64().ok_or_else(|| format!("{field} is {}", base[field]))
}

fn compare(built: &Built) -> Result<(), String> {
    built.bytes()?;
    let whole = &built.report["whole_base"];
    let (functions, identical) = (count(whole, "functions")?, count(whole, "identical")?);
    let differing = whole["differing"].as_array().cloned().unwrap_or_default();
    let names: Vec<&str> = differing.iter().filter_map(|one| one["name"].as_str()).collect();
    if functions < SHIPPED || functions != identical + differing.len() as u64 {
        return Err(format!("{identical} of {functions}, and {names:?}"));
    }
    // The packages of compilers come in several versions, of one code.
    let known = |one: &Value| {
        one["object"] == "xen/common/version.o"
            && one["how"] == "text"
            && OF_THE_BUILD.iter().any(|name| one["name"] == *name)
    };
    if !differing.iter().all(known) {
        return Err(format!("these differ: {differing:?}"));
    }
    equal("what was not rebuilt", &whole["not_rebuilt"], &Value::Array(Vec::new()))?;
    equal("what was not compared", &count(whole, "not_compared")?, &0)?;
    let involved = &built.report["base"];
    equal("the objects involved", &count(involved, "identical")?, &count(involved, "functions")?)?;
    let told = format!("base: {identical} of {functions} functions of all objects are as shipped");
    if built.stderr.contains(&told) { Ok(()) } else { Err(format!("not told:\n{}", built.stderr)) }
}

/// Every function of the hypervisor is that of the rebuilt original.
pub fn shipped() -> Result<Completion, Failed> {
    setup::with(|setup| {
        let recipe = &recipes::STATIC;
        let mut build = setup.build(recipe.name, &setup.made(recipe)?.diff)?;
        build.args = vec!["--prove-base".to_owned(), "all".to_owned()];
        compare(&build.run()?)
    })
}
