//! Runs a fixture and compares what came of it with what it says.

mod damage;
pub mod directives;
mod image;
mod loaded;
mod toolchain;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use directives::Expectations;
use toolchain::Toolchain;
use xsplice_diff::{
    Compared, Correlated, InitChange, Input, ObjectPair, Parts, Patchable, Selection, Verdict, World,
    add_users,
};
use xsplice_link::{FuncsLayout, Ids, PayloadImage};
use xsplice_objects::Hypervisor;
use xsplice_report::{Diagnostic, Kind};
use xsplice_verify::{PatchedObject, VerifyInput, verify};

/// struct livepatch_func of Xen 4.14 and later.
const FUNCS: FuncsLayout = FuncsLayout {
    version: 2,
    size: 104,
    name: 0,
    new_addr: 8,
    old_addr: 16,
    new_size: 24,
    old_size: 28,
    version_at: 32,
    expect: Some(72),
};

/// What came of a pair.
#[derive(Default)]
struct Found {
    verdicts: BTreeMap<String, Verdict>,
    removed: BTreeSet<String>,
    init: BTreeSet<String>,
    pieces: BTreeMap<String, usize>,
    replaced: BTreeSet<String>,
    needs: BTreeSet<String>,
    /// `KIND:FUNCTION`, in the payload's order.
    hooks: Vec<String>,
    problems: Vec<Diagnostic>,
    payload: Option<Vec<u8>>,
}

/// A fixture's objects and hypervisors.
struct Built {
    base: Vec<u8>,
    again: Vec<u8>,
    patched: Vec<u8>,
    /// The other object that the patch changes, before and after.
    second: Option<(Vec<u8>, Vec<u8>)>,
    /// Other objects of the hypervisor, which the patch leaves alone: source and object.
    others: Vec<(String, Vec<u8>)>,
    /// Linked from the rebuilt original.
    own: Vec<u8>,
    /// What the host runs.
    shipped: Vec<u8>,
    /// Linked from the patched object; an error where two objects bring one name.
    after: Result<Vec<u8>, String>,
}

fn build(source: &Path, expected: &Expectations, flags: &[String]) -> Result<Built, String> {
    let tools = Toolchain::new(source, flags);
    let text = std::fs::read_to_string(source).map_err(|e| e.to_string())?;
    let base = tools.compile(&["-frandom-seed=1"])?;
    let again = tools.compile(&["-frandom-seed=2"])?;
    let patched = tools.compile(&["-DPATCHED", "-frandom-seed=2"])?;
    if again == patched {
        return Err("the patch changes nothing".into());
    }
    let common = source.parent().expect("a directory").join("common/others.c");
    let mut others = vec![("others.c".to_owned(), tools.compile_as(&common, Path::new("others.c"), &[])?)];
    for (word, name) in [("STUB", "stub.c"), ("SECOND_STUB", "stub2.c")] {
        if text.contains(&format!("defined({word})")) || text.contains(&format!("ifdef {word}\n")) {
            let object = tools.compile_as(source, Path::new(name), &[&format!("-D{word}")])?;
            others.push((name.to_owned(), object));
        }
    }
    if text.contains("TWIN") {
        others.push(("twin.c".to_owned(), tools.compile(&["-DTWIN"])?));
    }
    let mut second = None;
    if text.contains("defined(SECOND)") || text.contains("ifdef SECOND\n") {
        let compile = |extra: &[&str]| tools.compile_as(source, Path::new("another.c"), extra);
        second = Some((compile(&["-DSECOND"])?, compile(&["-DSECOND", "-DPATCHED"])?));
    }
    let image_with = |object: &[u8], second: Option<&Vec<u8>>| {
        // In the order of their names, which is that of the payload.
        let first = second.map(Vec::as_slice).into_iter().chain([object]);
        let all: Vec<&[u8]> = first.chain(others.iter().map(|(_, object)| object.as_slice())).collect();
        tools.link(&all)
    };
    let image = |object: &[u8]| image_with(object, second.as_ref().map(|(before, _)| before));
    let own = image(&base)?;
    let shipped = match &expected.shipped[..] {
        [] => own.clone(),
        flags => image(&tools.compile(&flags.iter().map(String::as_str).collect::<Vec<_>>())?)?,
    };
    let after = image_with(&patched, second.as_ref().map(|(_, after)| after));
    Ok(Built { base, again, patched, second, others, own, shipped, after })
}

/// Runs a fixture.
///
/// # Errors
/// Everything that is not as the fixture says.
pub fn run(source: &Path, expected: &Expectations, flags: &[String]) -> Result<(), Vec<String>> {
    let built = build(source, expected, flags).map_err(|problem| vec![problem])?;
    let mut wrong = Vec::new();
    for (what, other) in [("itself", &built.base), ("itself with another seed", &built.again)] {
        let found = compare(source, &[(&built.base, other)], &built.others, &built.own, expected)?;
        wrong.extend(found.something().into_iter().map(|finding| format!("compared with {what}: {finding}")));
    }
    let found = compare(source, &built.patch(), &built.others, &built.shipped, expected)?;
    wrong.extend(found.differences(expected));
    if let Some(payload) = &found.payload
        && !(found.replaced.is_empty() && found.hooks.is_empty())
    {
        wrong.extend(verified(payload, &built, found.has_variables()));
        match &built.after {
            Ok(after) => wrong.extend(loaded::differences(&built.shipped, after, payload, expected.anchors)),
            Err(problem) => wrong.push(problem.clone()),
        }
        let twice = compare(source, &built.patch(), &built.others, &built.shipped, expected)?;
        if twice.payload.as_ref() != Some(payload) {
            wrong.push("a second run gives other bytes".into());
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// Damages a fixture's payload byte by byte, and checks that the comparison of loaded code notices each time:
/// what it says of whole payloads is worth no more than that.
///
/// # Errors
/// Every damage that went unnoticed.
pub fn notices_damage(source: &Path, expected: &Expectations) -> Result<(), Vec<String>> {
    let built = build(source, expected, &[]).map_err(|problem| vec![problem])?;
    let found = compare(source, &built.patch(), &built.others, &built.shipped, expected)?;
    let (Some(payload), Ok(after)) = (found.payload, built.after) else {
        return Err(vec!["the fixture gives no payload".into()]);
    };
    let unnoticed: Vec<String> = damage::all(&payload)
        .into_iter()
        .filter(|(_, damaged)| {
            loaded::differences(&built.shipped, &after, damaged, expected.anchors).is_empty()
        })
        .map(|(what, _)| format!("not noticed: {what}"))
        .collect();
    if unnoticed.is_empty() { Ok(()) } else { Err(unnoticed) }
}

/// An object before and after.
type Pair<'b> = (&'b [u8], &'b [u8]);

/// Parses pairs; the first is the fixture itself, one behind it is `another.o`.
fn parse(source: &Path, pairs: &[Pair<'_>], found: &mut Found) -> Vec<ObjectPair> {
    let name = source.file_name().unwrap_or_default().to_string_lossy();
    let stem = source.file_stem().unwrap_or_default().to_string_lossy();
    let mut parsed = Vec::new();
    for (number, (base, patched)) in pairs.iter().enumerate() {
        let own = number == 0;
        let input = Input {
            path: &if own { format!("xen/common/{stem}.o") } else { "xen/common/another.o".to_owned() },
            source: &if own { format!("xen/common/{name}") } else { "xen/common/another.c".to_owned() },
            assembler: name.ends_with(".S"),
            base: Some(base),
            patched: Some(patched),
        };
        match ObjectPair::parse(input) {
            Ok(pair) => parsed.push(pair),
            Err(problems) => found.problems.extend(problems),
        }
    }
    parsed
}

fn compare(
    source: &Path,
    pairs: &[Pair<'_>],
    others: &[(String, Vec<u8>)],
    shipped: &[u8],
    expected: &Expectations,
) -> Result<Found, Vec<String>> {
    let name = source.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut found = Found::default();
    let mut pairs = parse(source, pairs, &mut found);
    if !found.problems.is_empty() {
        return Ok(found);
    }
    let users = |names: &BTreeSet<String>| untouched(others, names);
    let parts: Result<Vec<Parts<'_>>, _> = match add_users(&mut pairs, users) {
        Ok(()) => pairs.iter().map(Parts::of).collect(),
        Err(problems) => Err(problems),
    };
    let parts = match parts {
        Ok(parts) => parts,
        Err(problems) => {
            found.problems.extend(problems);
            return Ok(found);
        }
    };
    let compared = Compared::all(parts.iter().map(Correlated::of).collect());
    for (compared, parts) in compared.iter().zip(&parts) {
        for (&id, verdict) in &compared.functions {
            let name = parts.patched.get(id).name.clone();
            if found.verdicts.insert(name.clone(), verdict.clone()).is_some() {
                return Err(vec![format!("two functions of the fixture are called {name}")]);
            }
        }
        found.removed.extend(compared.removed.iter().cloned());
        found.init.extend(compared.init.iter().map(|InitChange { name, .. }| name.clone()));
    }
    let hypervisor = Hypervisor::parse("xen-syms", shipped)
        .map_err(|problems| problems.into_iter().map(|d| d.what).collect::<Vec<_>>())?;
    let loader = expected.loader();
    let world = World::bare(&hypervisor, &loader);
    let selection = Selection::of(&compared, &world);
    for piece in &selection.pieces {
        *found.pieces.entry(format!("{:?}", piece.kind)).or_default() += 1;
    }
    found.replaced.extend(selection.replaced.iter().map(|replaced| replaced.name.clone()));
    found.needs.extend(selection.needs.iter().cloned());
    found.hooks.extend(selection.hooks.iter().map(|hook| format!("{}:{}", hook.kind.name(), hook.function)));
    match Patchable::check(selection, &parts, &world) {
        Ok(patchable) => {
            found.problems.extend(patchable.warnings().clone());
            let id = hypervisor.build_id().to_vec();
            let ids = Ids { depends: id.clone(), xen_depends: id };
            let metadata = vec![("patch".to_owned(), name)];
            found.payload = Some(PayloadImage::link(&patchable, &FUNCS, &ids, &metadata).bytes().to_vec());
        }
        Err(problems) => found.problems.extend(problems),
    }
    Ok(found)
}

impl Built {
    /// All pairs that the patch changes.
    fn patch(&self) -> Vec<Pair<'_>> {
        let second = self.second.iter().map(|(before, after)| (&before[..], &after[..]));
        [(&self.base[..], &self.patched[..])].into_iter().chain(second).collect()
    }
}

/// The objects that the patch leaves alone and that hold any of the names.
fn untouched(
    others: &[(String, Vec<u8>)],
    names: &BTreeSet<String>,
) -> Result<Vec<ObjectPair>, xsplice_report::Problems> {
    let holds = |object: &[u8]| {
        names.iter().any(|name| object.windows(name.len()).any(|window| window == name.as_bytes()))
    };
    others
        .iter()
        .filter(|(_, object)| holds(object))
        .map(|(source, object)| {
            ObjectPair::parse(Input {
                path: &format!("xen/common/{source}.o"),
                source: &format!("xen/common/{source}"),
                assembler: false,
                base: Some(object),
                patched: Some(object),
            })
        })
        .collect()
}

impl Found {
    fn functions(&self, wanted: fn(&Verdict) -> bool) -> BTreeSet<String> {
        self.verdicts.iter().filter(|(_, verdict)| wanted(verdict)).map(|(name, _)| name.clone()).collect()
    }

    /// Whether the payload brings variables.
    fn has_variables(&self) -> bool {
        self.pieces.contains_key("Data") || self.pieces.contains_key("Bss")
    }

    /// Everything that a pair of equal objects must not give.
    fn something(&self) -> Vec<String> {
        let mut all: Vec<String> = self
            .verdicts
            .iter()
            .filter(|(_, verdict)| **verdict != Verdict::Same)
            .map(|(name, verdict)| format!("{name}: {verdict:?}"))
            .collect();
        let rest = [("removed", &self.removed), ("init", &self.init), ("replaced", &self.replaced)];
        all.extend(rest.iter().filter(|(_, l)| !l.is_empty()).map(|(what, l)| format!("{what}: {l:?}")));
        all.extend(self.hooks.iter().map(|hook| format!("hook: {hook}")));
        // What the original has and the payload does not get is told each time.
        all.extend(self.problems.iter().filter(|d| d.code.name != "hook-not-new").map(show));
        all
    }

    /// Everything that is not as the fixture says.
    fn differences(&self, expected: &Expectations) -> Vec<String> {
        let mut wrong = Vec::new();
        let own = |list: BTreeSet<String>, file: &str| -> BTreeSet<String> {
            list.into_iter().map(|n| if n.starts_with('#') { format!("{file}{n}") } else { n }).collect()
        };
        let mut check = |what: &str, found: &BTreeSet<String>| {
            let file = found.iter().find_map(|n| n.split_once('#')).map_or(String::new(), |(f, _)| f.into());
            let expected = own(expected.list(what), &file);
            for name in expected.difference(found) {
                wrong.push(format!("{what}: {name} is expected"));
            }
            for name in found.difference(&expected) {
                wrong.push(format!("{what}: {name} is not expected"));
            }
        };
        check("changed", &self.functions(|verdict| matches!(verdict, Verdict::Changed(_))));
        check("new", &self.functions(|verdict| *verdict == Verdict::New));
        check("removed", &self.removed);
        check("init", &self.init);
        check("replaced", &self.replaced);
        if expected.refused.is_empty() {
            check("needs", &self.needs);
        }
        if expected.refused.is_empty() && self.hooks != expected.hooks {
            wrong.push(format!("hooks are {:?} instead of {:?}", self.hooks, expected.hooks));
        }
        for name in expected.list("same") {
            if self.verdicts.get(&name) != Some(&Verdict::Same) {
                wrong.push(format!("same: {name} is {:?}", self.verdicts.get(&name)));
            }
        }
        if !wrong.is_empty() {
            let changes = self.verdicts.iter().filter(|(_, v)| **v != Verdict::Same);
            wrong.extend(changes.map(|(name, verdict)| format!("  found {name}: {verdict:?}")));
        }
        if expected.refused.is_empty() && expected.pieces != self.pieces {
            wrong.push(format!("pieces are {:?} instead of {:?}", self.pieces, expected.pieces));
        }
        self.check_refusals(expected, &mut wrong);
        wrong
    }

    fn check_refusals(&self, expected: &Expectations, wrong: &mut Vec<String>) {
        let mut left: Vec<&Diagnostic> = self.problems.iter().collect();
        let both = [(&expected.refused, Kind::Refusal), (&expected.warned, Kind::Warning)];
        for (refused, kind) in both.into_iter().flat_map(|(list, kind)| list.iter().map(move |r| (r, kind))) {
            let fits = |d: &&Diagnostic| {
                let text = format!("{} {} {} {}", d.what, d.place, d.why, d.advice);
                d.code.name == refused.code && refused.words.iter().all(|word| text.contains(word.as_str()))
            };
            match left.iter().position(fits) {
                Some(index) => {
                    let d = left.remove(index);
                    if d.kind != kind || d.why.is_empty() || d.advice.is_empty() {
                        wrong.push(format!("no {kind:?}, or no reason or advice: {}", show(d)));
                    }
                    if d.place.object.is_none() && d.place.file.is_none() {
                        wrong.push(format!("no place: {}", show(d)));
                    }
                }
                None => wrong.push(format!("refused: {refused:?} is expected")),
            }
        }
        wrong.extend(left.into_iter().map(|d| format!("refused: not expected: {}", show(d))));
        if expected.refused.is_empty() != self.payload.is_some() {
            wrong.push("a payload must be written where nothing is refused, and only there".into());
        }
    }
}

fn show(d: &Diagnostic) -> String {
    format!("{}: {} [{}] {}", d.code.name, d.what, d.place, d.why)
}

/// What the verifier, which shares no code with the linker, has against a payload.
fn verified(payload: &[u8], built: &Built, variables: bool) -> Vec<String> {
    let patched = built.patch().into_iter().map(|(_, patched)| ("patched.o", patched));
    let others = built.others.iter().map(|(path, object)| (path.as_str(), object.as_slice()));
    let objects: Vec<PatchedObject<'_>> =
        patched.chain(others).map(|(path, bytes)| PatchedObject { path, bytes }).collect();
    let verdict = verify(&VerifyInput {
        payload,
        name: "fixture",
        xen_syms: Some(&built.shipped),
        funcs_version: Some(2),
        funcs_size: Some(104),
        in_place: true,
        objects: Some(&objects),
        ..VerifyInput::default()
    });
    // Variables keep what they hold over a revert, so the host applies such a payload once.
    let fits = |d: &&Diagnostic| !variables || d.code.name != "not-reapplicable";
    let problems = verdict.problems.0.iter().filter(fits);
    problems.map(|d| format!("verifier: {} {}", d.code.name, show(d))).collect()
}
