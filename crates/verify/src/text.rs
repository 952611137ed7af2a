//! An inspection as text for a terminal.

use std::fmt::{self, Write};

use crate::inspect::Inspection;

/// Renders an inspection as lines of text, without colours.
pub fn render_text(inspection: &Inspection) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut out, inspection);
    out
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, self)
    }
}

fn write(out: &mut dyn Write, i: &Inspection) -> fmt::Result {
    let or_none = |id: &Option<String>| id.clone().unwrap_or_else(|| "none".into());
    writeln!(out, "size         {} bytes", i.size)?;
    writeln!(out, "build-id     {}", or_none(&i.build_id))?;
    writeln!(out, "depends      {}", or_none(&i.depends))?;
    writeln!(out, "xen-depends  {}", or_none(&i.xen_depends))?;
    if !i.metadata.is_empty() {
        writeln!(out, "\nmetadata")?;
        for pair in &i.metadata {
            writeln!(out, "  {} = {}", shown(&pair.key), shown(&pair.value))?;
        }
    }
    functions(out, i)?;
    if !i.hooks.is_empty() {
        writeln!(out, "\nhooks")?;
        for hook in &i.hooks {
            writeln!(out, "  {:<11} {}", hook.kind, shown(&hook.function))?;
        }
    }
    writeln!(out, "\nsections     {:>10} {:>6}  flags  name", "size", "align")?;
    for s in &i.sections {
        writeln!(out, "             {:>10} {:>6}  {:<5}  {}", s.size, s.align, s.flags, shown(&s.name))?;
    }
    special(out, i)?;
    writeln!(out, "\nsymbols to resolve ({}), relocations ({})", i.symbols_to_resolve.len(), i.relocations)?;
    for name in &i.symbols_to_resolve {
        writeln!(out, "  {}", shown(name))?;
    }
    for symbol in &i.absolute_symbols {
        writeln!(out, "  {} at {}", shown(&symbol.name), symbol.address)?;
    }
    Ok(())
}

fn functions(out: &mut dyn Write, i: &Inspection) -> fmt::Result {
    writeln!(out, "\nfunctions ({})", i.functions.len())?;
    for f in &i.functions {
        write!(out, "  {}: {} bytes", shown(&f.name), f.old_size)?;
        match (&f.replacement, f.nops) {
            (_, true) => write!(out, ", {} of them become NOPs", f.new_size)?,
            (Some(name), false) => write!(out, " become {} of {}", f.new_size, shown(name))?,
            (None, false) => write!(out, " become {}", f.new_size)?,
        }
        write!(out, ", version {}", f.version)?;
        if let Some(address) = &f.old_address {
            write!(out, ", at {address}")?;
        }
        if let Some(bytes) = &f.expectation {
            write!(out, ", expects {bytes}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn special(out: &mut dyn Write, i: &Inspection) -> fmt::Result {
    let s = &i.special;
    let counts = [
        ("run function frames", s.bug_frames.run_function),
        ("warning frames", s.bug_frames.warn),
        ("bug frames", s.bug_frames.bug),
        ("assertion frames", s.bug_frames.assert),
        ("alternatives", s.alternatives),
        ("altcalls", s.altcalls),
        ("exception table entries", s.exception_table),
    ];
    if counts.iter().any(|(_, n)| *n > 0) {
        writeln!(out, "\nspecial sections")?;
        for (name, number) in counts.iter().filter(|(_, n)| *n > 0) {
            writeln!(out, "  {number:>5} {name}")?;
        }
    }
    Ok(())
}

/// A name from a file that may be hostile: without characters that move a terminal's cursor.
fn shown(name: &str) -> String {
    name.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}
