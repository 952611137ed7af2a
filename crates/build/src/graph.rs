//! What the records of a build say: which objects there are, from which source, and which reach xen-syms.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::wrapper::{Record, Tool};

/// One object of the original build.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BaseObject {
    /// Relative to the tree, such as `xen/arch/x86/traps.o`.
    pub path: String,
    /// Relative to the tree, such as `xen/arch/x86/traps.c`.
    pub source: String,
    /// Whether the source is assembler.
    pub assembler: bool,
    /// Whether it is part of the hypervisor (xen-syms), not only of something that the build makes besides.
    pub linked: bool,
    /// Sections that the build renames after this object, on its way into the hypervisor: from, to. Data of
    /// xen/common/libelf, for example, goes into init sections so.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub renamed_later: BTreeMap<String, String>,
}

/// A path without `.` and `..`, by its words alone.
pub(crate) fn normalise(path: &Path) -> String {
    let mut parts: Vec<&std::ffi::OsStr> = Vec::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if !parts.is_empty() => {
                parts.pop();
            }
            other => parts.push(other.as_os_str()),
        }
    }
    parts.iter().collect::<PathBuf>().to_string_lossy().into_owned()
}

/// The object that a temporary one becomes: `d/.a.o.tmp` is renamed or copied to `d/a.o`
/// (ENFORCE_UNIQUE_SYMBOLS in xen/Rules.mk).
pub(crate) fn untemporary(path: &str) -> Option<String> {
    let (folder, name) = path.rsplit_once('/').map_or(("", path), |(folder, name)| (folder, name));
    let name = name.strip_prefix('.')?.strip_suffix(".tmp")?;
    Some(if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") })
}

fn temporary(path: &str) -> String {
    match path.rsplit_once('/') {
        Some((folder, name)) => format!("{folder}/.{name}.tmp"),
        None => format!(".{path}.tmp"),
    }
}

/// What `--rename-section FROM=TO[,FLAGS]` in a call of objcopy names.
fn renamed_sections(args: &[String]) -> BTreeMap<String, String> {
    const OPTION: &str = "--rename-section";
    let mut renamed = BTreeMap::new();
    for (index, arg) in args.iter().enumerate() {
        let value = match arg.strip_prefix(OPTION) {
            Some("") => args.get(index + 1).map(String::as_str),
            Some(rest) => rest.strip_prefix('='),
            None => None,
        };
        if let Some((from, to)) = value.and_then(|value| value.split_once('=')) {
            let to = to.split_once(',').map_or(to, |(to, _)| to);
            renamed.insert(from.to_owned(), to.to_owned());
        }
    }
    renamed
}

/// How one file was made.
#[derive(Debug, Clone)]
struct Node {
    tool: Tool,
    inputs: Vec<String>,
    /// Index of the call's record.
    record: usize,
}

/// An object, and the compilation behind it.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub(crate) object: BaseObject,
    /// Index of its compilation among the records.
    pub(crate) record: usize,
}

/// All that a build made.
pub(crate) struct Graph {
    tree: PathBuf,
    pub(crate) records: Vec<Record>,
    nodes: BTreeMap<String, Node>,
    /// What objcopy changed without giving it another name.
    in_place: BTreeSet<String>,
    /// What the hypervisor is linked from.
    roots: BTreeSet<String>,
    /// Paths as they are, by how they were named: links of the tree are followed.
    real: BTreeMap<String, String>,
}

impl Graph {
    /// Reads records of a build in the private copy `tree`. Later ones replace earlier ones.
    pub(crate) fn new(tree: &Path, records: Vec<Record>) -> Graph {
        let mut graph = Graph {
            tree: tree.to_owned(),
            records,
            nodes: BTreeMap::new(),
            in_place: BTreeSet::new(),
            roots: BTreeSet::new(),
            real: BTreeMap::new(),
        };
        let mut links = Vec::new();
        for index in 0..graph.records.len() {
            let record = &graph.records[index];
            if record.code != 0 || record.text {
                continue;
            }
            let output = graph.relative(&record.dir, &record.output);
            let inputs: Vec<String> =
                record.inputs.iter().map(|input| graph.relative(&record.dir, input)).collect();
            if record.is_final_link() {
                links.push(inputs);
            } else if record.tool == Tool::Objcopy && inputs.first() == Some(&output) {
                // It is still what the compiler made of its source.
                graph.in_place.insert(output);
            } else {
                graph.nodes.insert(output, Node { tool: record.tool, inputs, record: index });
            }
        }
        // The hypervisor proper is one object linked before (prelink.o); beside it stand tables of symbols.
        for inputs in links {
            let is_partial =
                |input: &&String| graph.nodes.get(*input).is_some_and(|node| node.tool == Tool::Ld);
            let partial: Vec<String> = inputs.iter().filter(is_partial).cloned().collect();
            graph.roots.extend(if partial.is_empty() { inputs } else { partial });
        }
        graph
    }

    /// A path of a command, relative to the tree where it is inside.
    pub(crate) fn relative(&self, dir: &Path, path: &str) -> String {
        let full = dir.join(path);
        let text = normalise(&full);
        match Path::new(&text).strip_prefix(&self.tree) {
            Ok(inside) => inside.to_string_lossy().into_owned(),
            Err(_) => text,
        }
    }

    /// As [`Graph::relative`], and through links of the tree to the file itself.
    fn real(&mut self, dir: &Path, path: &str) -> String {
        let relative = self.relative(dir, path);
        if let Some(real) = self.real.get(&relative) {
            return real.clone();
        }
        let real = match std::fs::canonicalize(self.tree.join(&relative)) {
            Ok(full) => self.relative(Path::new("/"), &full.to_string_lossy()),
            Err(_) => relative.clone(),
        };
        self.real.insert(relative, real.clone());
        real
    }

    fn node(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path).or_else(|| self.nodes.get(&temporary(path)))
    }

    /// The compilation that a file comes from, through copies only.
    fn compilation(&self, path: &str) -> Option<usize> {
        let mut node = self.node(path)?;
        // A chain of copies is short; a circle would be a damaged record.
        for _ in 0..8 {
            match node.tool {
                Tool::Cc => return Some(node.record),
                Tool::Objcopy => node = self.node(node.inputs.first()?)?,
                Tool::Ld | Tool::Ar => return None,
            }
        }
        None
    }

    /// The copies between the compilation of a file and the file, in the order they were made: records' indexes.
    pub(crate) fn copies(&self, path: &str) -> Vec<usize> {
        let mut copies = Vec::new();
        let mut node = self.node(path);
        while let Some(copy) = node.filter(|node| node.tool == Tool::Objcopy && copies.len() < 8) {
            copies.push(copy.record);
            node = copy.inputs.first().and_then(|input| self.node(input));
        }
        copies.reverse();
        copies
    }

    /// What a compilation writes, relative to the tree; none where a later one wrote the same file.
    pub(crate) fn output_of(&self, record: usize) -> Option<String> {
        let output = self.relative(&self.records[record].dir, &self.records[record].output);
        self.nodes.get(&output).is_some_and(|node| node.record == record).then_some(output)
    }

    /// The source of a compilation, relative to the tree.
    pub(crate) fn source_of(&mut self, record: usize) -> String {
        let (dir, input) = (self.records[record].dir.clone(), self.records[record].inputs.first().cloned());
        self.real(&dir, &input.unwrap_or_default())
    }

    /// Copies that objcopy makes of a file: the calls' records, and the copies' paths.
    pub(crate) fn copies_of(&self, path: &str) -> Vec<(usize, String)> {
        let is_copy = |node: &Node| {
            node.tool == Tool::Objcopy && node.inputs.first().is_some_and(|input| input == path)
        };
        self.nodes
            .iter()
            .filter(|(_, node)| is_copy(node))
            .map(|(to, node)| (node.record, to.clone()))
            .collect()
    }

    /// Whether a recorded call made the file.
    pub(crate) fn is_made(&self, path: &str) -> bool {
        self.nodes.contains_key(path)
    }

    /// Whether objcopy changed the file without giving it another name.
    pub(crate) fn is_changed_in_place(&self, path: &str) -> bool {
        self.in_place.contains(path)
    }

    /// Everything that the hypervisor is linked from, directly or not, each with what uses it.
    ///
    /// An object with its own source ends the way down: copies on the way to it are part of it.
    fn linked(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut linked: BTreeMap<String, BTreeSet<String>> =
            self.roots.iter().map(|root| (root.clone(), BTreeSet::new())).collect();
        let mut open: Vec<String> = self.roots.iter().cloned().collect();
        while let Some(path) = open.pop() {
            let Some(node) = self.node(&path).filter(|_| self.compilation(&path).is_none()) else { continue };
            for input in &node.inputs {
                if !linked.contains_key(input) {
                    open.push(input.clone());
                }
                linked.entry(input.clone()).or_default().insert(path.clone());
            }
        }
        linked
    }

    /// Sections that are renamed between an object and the hypervisor.
    fn renamed_later(
        &self,
        path: &str,
        linked: &BTreeMap<String, BTreeSet<String>>,
    ) -> BTreeMap<String, String> {
        let mut renamed = BTreeMap::new();
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut open = vec![path];
        while let Some(users) = open.pop().and_then(|path| linked.get(path)) {
            for user in users.iter().filter(|user| seen.insert(user)) {
                if let Some(node) = self.node(user).filter(|node| node.tool == Tool::Objcopy) {
                    renamed.extend(renamed_sections(&self.records[node.record].args));
                }
                open.push(user);
            }
        }
        renamed
    }

    /// All objects that come from one source each, by path.
    ///
    /// Of an object and its copies (`a.o` and `a.init.o`) the one that is linked counts.
    pub(crate) fn objects(&mut self) -> BTreeMap<String, Made> {
        let linked = self.linked();
        let mut copied: BTreeSet<&str> = BTreeSet::new();
        for node in self.nodes.values().filter(|node| node.tool == Tool::Objcopy) {
            copied.extend(node.inputs.iter().map(String::as_str));
        }
        let mut paths: BTreeSet<String> = linked.keys().cloned().collect();
        for (path, node) in &self.nodes {
            if matches!(node.tool, Tool::Cc | Tool::Objcopy) && !copied.contains(path.as_str()) {
                let renamed = untemporary(path);
                let name = renamed.filter(|_| node.tool == Tool::Cc).unwrap_or_else(|| path.clone());
                if !copied.contains(name.as_str()) {
                    paths.insert(name);
                }
            }
        }
        let mut objects = BTreeMap::new();
        for path in paths {
            let Some(index) = self.compilation(&path).filter(|_| path.ends_with(".o")) else { continue };
            let (dir, input) = (self.records[index].dir.clone(), self.records[index].inputs[0].clone());
            let object = BaseObject {
                source: self.real(&dir, &input),
                assembler: !input.ends_with(".c"),
                linked: linked.contains_key(&path),
                renamed_later: self.renamed_later(&path, &linked),
                path: path.clone(),
            };
            objects.insert(path, Made { object, record: index });
        }
        objects
    }

    /// The files that the assembler of a compilation read by itself, relative to the tree.
    pub(crate) fn assembled(&mut self, record: usize) -> BTreeSet<String> {
        let (dir, names) = (self.records[record].dir.clone(), self.records[record].assembled.clone());
        names.iter().flatten().map(|name| self.real(&dir, name)).collect()
    }

    /// The files that a compilation read, relative to the tree, sorted. Those outside are left out.
    pub(crate) fn dependencies(&mut self, record: usize) -> BTreeSet<String> {
        let (dir, mut names) = (self.records[record].dir.clone(), self.records[record].dependencies.clone());
        names.extend(self.records[record].inputs.iter().cloned());
        names.extend(self.records[record].assembled.iter().flatten().cloned());
        names.iter().map(|name| self.real(&dir, name)).filter(|path| !path.starts_with('/')).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(tool: Tool, output: &str, inputs: &str) -> Record {
        let partial = tool == Tool::Ld && !output.contains("xen-syms");
        Record {
            tool,
            dir: "/t/xen".into(),
            args: Vec::new(),
            output: output.to_owned(),
            inputs: inputs.split_whitespace().map(str::to_owned).collect(),
            text: false,
            dependencies: Vec::new(),
            assembled: None,
            stood_in: false,
            partial,
            code: 0,
            message: String::new(),
        }
    }

    #[test]
    fn objects_are_followed_through_copies_archives_and_links() {
        let mut graph = Graph::new(
            Path::new("/t"),
            vec![
                record(Tool::Cc, "d/.a.o.tmp", "d/a.c"),
                record(Tool::Objcopy, "d/a.o", "d/.a.o.tmp"),
                record(Tool::Cc, "d/.b.o.tmp", "d/b.c"), // renamed by mv
                record(Tool::Cc, "d/i.o", "d/i.c"),
                record(Tool::Objcopy, "d/i.init.o", "d/i.o"),
                record(Tool::Cc, "lib/l.o", "./lib/l.c"),
                record(Tool::Cc, "d/e.o", "/t/xen/d/e.S"),
                record(Tool::Cc, "d/g2.o", "d/g.c"),
                record(Tool::Cc, "d/g3.o", "d/g.c"),
                record(Tool::Cc, "boot/check.o", "boot/check.c"),
                record(Tool::Cc, "symbols-dummy.o", "symbols-dummy.c"),
                record(Tool::Ar, "lib/lib.a", "lib/l.o"),
                record(Tool::Ld, "d/built_in.o", "d/a.o d/b.o d/i.init.o d/e.o d/g2.o d/g3.o"),
                record(Tool::Ld, "prelink.o", "d/built_in.o lib/lib.a"),
                record(Tool::Ld, "./.xen-syms.0", "./prelink.o symbols-dummy.o"),
            ],
        );
        let objects = graph.objects();
        let shown: Vec<String> = objects
            .values()
            .map(|made| {
                let object = &made.object;
                format!("{} {} {}", object.path, object.source, if object.linked { "linked" } else { "-" })
            })
            .collect();
        assert_eq!(
            shown,
            [
                "xen/boot/check.o xen/boot/check.c -",
                "xen/d/a.o xen/d/a.c linked",
                "xen/d/b.o xen/d/b.c linked",
                "xen/d/e.o xen/d/e.S linked",
                "xen/d/g2.o xen/d/g.c linked",
                "xen/d/g3.o xen/d/g.c linked",
                "xen/d/i.init.o xen/d/i.c linked",
                "xen/lib/l.o xen/lib/l.c linked",
                "xen/symbols-dummy.o xen/symbols-dummy.c -",
            ]
        );
        assert!(objects["xen/d/e.o"].object.assembler);
    }

    #[test]
    fn sections_renamed_on_the_way_are_known() {
        let mut renaming = record(Tool::Objcopy, "e/e.o", "e/temp.o");
        renaming.args = ["--rename-section", ".data=.init.data", "--rename-section=.text=.init.text,code"]
            .map(str::to_owned)
            .to_vec();
        let mut graph = Graph::new(
            Path::new("/t"),
            vec![
                record(Tool::Cc, "e/a.o", "e/a.c"),
                record(Tool::Cc, "d.o", "d.c"),
                record(Tool::Ld, "e/temp.o", "e/a.o"),
                renaming,
                record(Tool::Ld, "prelink.o", "e/e.o d.o"),
                record(Tool::Ld, "xen-syms", "prelink.o"),
            ],
        );
        let objects = graph.objects();
        assert_eq!(objects.keys().collect::<Vec<_>>(), ["xen/d.o", "xen/e/a.o"]);
        let renamed = &objects["xen/e/a.o"].object.renamed_later;
        assert_eq!(renamed.get(".data").map(String::as_str), Some(".init.data"));
        assert_eq!(renamed.get(".text").map(String::as_str), Some(".init.text"));
        assert!(objects["xen/e/a.o"].object.linked && objects["xen/d.o"].object.renamed_later.is_empty());
    }

    #[test]
    fn a_later_record_replaces_an_earlier_one_and_failures_do_not_count() {
        let mut failed = record(Tool::Cc, "d/a.o", "d/other.c");
        failed.code = 1;
        let mut graph = Graph::new(
            Path::new("/t"),
            vec![
                record(Tool::Cc, "d/a.o", "d/a.c"),
                record(Tool::Cc, "d/b.o", "d/b.c"),
                record(Tool::Ld, "prelink.o", "d/a.o d/b.o"),
                record(Tool::Ld, "xen-syms", "prelink.o"),
                record(Tool::Ld, "prelink.o", "d/b.o"),
                failed,
            ],
        );
        let objects = graph.objects();
        assert_eq!(objects["xen/d/a.o"].object.source, "xen/d/a.c");
        assert!(!objects["xen/d/a.o"].object.linked);
        assert!(objects["xen/d/b.o"].object.linked);
    }
}
