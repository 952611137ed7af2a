//! What is compiled again for a patch: each recorded compilation with all that follows it up to its objects.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::graph::{Graph, untemporary};

/// What happens to a compiler's output afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// objcopy makes another file of it: index of the call's record.
    Copy(usize),
    /// It gets its final name, by something that is not recorded (`mv`). Relative to the tree.
    Rename { from: String, to: String },
}

/// A compilation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unit {
    /// Index of its record.
    pub(crate) record: usize,
    /// What the compiler writes, relative to the tree.
    pub(crate) output: String,
    pub(crate) steps: Vec<Step>,
    /// What is left of it all in the original build, relative to the tree.
    pub(crate) results: Vec<String>,
    /// The object that is part of the hypervisor; none where it is a part of something else.
    pub(crate) object: Option<String>,
    /// Whether an equal text means an equal object: it is C, and the touched files are read by the preprocessor
    /// alone.
    pub(crate) by_text: bool,
}

/// The compilations among `readers`, each given with the touched files that it reads; or why commands are not
/// enough. `pristine` is the tree after the original build.
pub(crate) fn units(
    graph: &mut Graph,
    readers: &BTreeMap<usize, BTreeSet<String>>,
    pristine: &Path,
) -> Result<Vec<Unit>, String> {
    let linked: BTreeMap<usize, String> = graph
        .objects()
        .into_iter()
        .filter(|(_, made)| made.object.linked)
        .map(|(path, made)| (made.record, path))
        .collect();
    let mut units = Vec::new();
    for (&record, touched) in readers {
        if graph.records[record].text {
            continue;
        }
        let Some(output) = graph.output_of(record) else { continue };
        let source = graph.source_of(record);
        let object = linked.get(&record).cloned();
        let (steps, files) = follow(graph, &output, pristine)?;
        let results: Vec<String> = files.into_iter().filter(|file| pristine.join(file).is_file()).collect();
        if results.is_empty() {
            // A helper of the link was made, compiled and removed again.
            if object.is_none() && !pristine.join(&source).is_file() {
                continue;
            }
            return Err(format!("nothing is left of {output}, so it cannot be compared"));
        }
        if let Some(object) = object.as_ref().filter(|object| !results.contains(object)) {
            return Err(format!("how {object} is made of {output} is not known"));
        }
        let assembled = graph.assembled(record);
        let by_text = source.ends_with(".c") && !touched.contains(&source) && touched.is_disjoint(&assembled);
        units.push(Unit { record, output, steps, results, object, by_text });
    }
    Ok(units)
}

/// The steps from a compiler's output on, and every file on the way, that output first.
fn follow(graph: &Graph, output: &str, pristine: &Path) -> Result<(Vec<Step>, Vec<String>), String> {
    let (mut steps, mut files) = (Vec::new(), vec![output.to_owned()]);
    let mut next = 0;
    while let Some(file) = files.get(next).cloned() {
        next += 1;
        if graph.is_changed_in_place(&file) {
            return Err(format!("{file} is changed in place after it was made"));
        }
        let copies = graph.copies_of(&file);
        let renamed = untemporary(&file).filter(|to| {
            !graph.is_made(to) && pristine.join(to).is_file() && !pristine.join(&file).is_file()
        });
        if copies.is_empty()
            && let Some(to) = renamed
        {
            steps.push(Step::Rename { from: file, to: to.clone() });
            files.push(to);
            continue;
        }
        for (record, to) in copies {
            if !files.contains(&to) {
                steps.push(Step::Copy(record));
                files.push(to);
            }
        }
    }
    Ok((steps, files))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wrapper::{Record, Tool};
    use fs_err as fs;

    fn record(tool: Tool, output: &str, input: &str, assembled: Option<&str>) -> Record {
        Record {
            tool,
            dir: "/t/xen".into(),
            args: Vec::new(),
            output: output.to_owned(),
            inputs: vec![input.to_owned()],
            text: false,
            dependencies: vec!["include/h.h".to_owned()],
            assembled: assembled.map(|file| vec![file.to_owned()]),
            stood_in: false,
            partial: tool == Tool::Ld && output != "xen-syms",
            code: 0,
            message: String::new(),
        }
    }

    /// A kept tree with these files.
    fn kept(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        folder
    }

    fn find(records: Vec<Record>, touched: &str, files: &[&str]) -> Result<Vec<Unit>, String> {
        let readers: BTreeMap<usize, BTreeSet<String>> = (0..records.len())
            .filter(|&at| records[at].tool == Tool::Cc)
            .map(|at| (at, BTreeSet::from([touched.to_owned()])))
            .collect();
        units(&mut Graph::new(Path::new("/t"), records), &readers, kept(files).path())
    }

    #[test]
    fn copies_and_renamed_files_are_followed() {
        let records = vec![
            record(Tool::Cc, "d/.a.o.tmp", "d/a.c", None),
            record(Tool::Objcopy, "d/a.o", "d/.a.o.tmp", None),
            record(Tool::Objcopy, "d/a.init.o", "d/a.o", None),
            record(Tool::Cc, "d/.b.o.tmp", "d/b.c", Some("include/h.h")),
            record(Tool::Ld, "prelink.o", "d/a.init.o", None),
            record(Tool::Ld, "xen-syms", "prelink.o", None),
        ];
        let units =
            find(records, "xen/include/h.h", &["xen/d/a.o", "xen/d/a.init.o", "xen/d/b.o", "xen/d/b.c"])
                .unwrap();
        assert_eq!(units[0].steps, [Step::Copy(1), Step::Copy(2)]);
        assert_eq!(units[0].results, ["xen/d/a.o", "xen/d/a.init.o"]);
        assert_eq!(units[0].object.as_deref(), Some("xen/d/a.init.o"));
        assert!(units[0].by_text);
        let rename = Step::Rename { from: "xen/d/.b.o.tmp".to_owned(), to: "xen/d/b.o".to_owned() };
        assert_eq!(units[1].steps, [rename]);
        assert_eq!(units[1].object, None);
        assert!(!units[1].by_text, "the assembler reads the header too");
    }

    #[test]
    fn what_cannot_be_followed_or_compared_is_for_make() {
        let mut compiled = record(Tool::Cc, "d/a.o", "d/a.c", None);
        let strip = record(Tool::Objcopy, "d/a.o", "d/a.o", None);
        let error = find(vec![compiled.clone(), strip], "xen/d/a.c", &["xen/d/a.o"]).unwrap_err();
        assert_eq!(error, "xen/d/a.o is changed in place after it was made");
        let error = find(vec![compiled.clone()], "xen/d/a.c", &["xen/d/a.c"]).unwrap_err();
        assert_eq!(error, "nothing is left of xen/d/a.o, so it cannot be compared");
        let copied = vec![
            record(Tool::Cc, "d/.a.o.tmp", "d/a.c", None),
            record(Tool::Ld, "prelink.o", "d/a.o", None),
            record(Tool::Ld, "xen-syms", "prelink.o", None),
        ];
        let error = find(copied, "xen/d/a.c", &["xen/d/.a.o.tmp", "xen/d/a.o"]).unwrap_err();
        assert_eq!(error, "how xen/d/a.o is made of xen/d/.a.o.tmp is not known");
        // The tables of symbols: their sources are gone, too.
        compiled.inputs = vec![".xen-syms.0.S".to_owned()];
        assert_eq!(find(vec![compiled], "xen/include/h.h", &[]).unwrap(), []);
    }
}
