//! A small source of our own, and some mutants of it: the same check that `cargo xtask mutants` makes of Xen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use xsplice_build::{BaseObject, Compilation};
use xsplice_mutants::compile::{Failure, folder};
use xsplice_mutants::desk::{Desk, Outcome};
use xsplice_mutants::mutate::{Holder, Kind, Mutant, mutants};
use xsplice_mutants::queue::Queue;
use xsplice_mutants::random::Random;
use xsplice_mutants::report;

/// What Xen 4.17's build gives gcc, as far as it shapes code.
const FLAGS: &str = "-O2 -g -m64 -std=gnu99 -nostdinc -fno-builtin -fno-common -fno-strict-aliasing \
    -fomit-frame-pointer -ffunction-sections -fdata-sections -fno-jump-tables -fno-stack-protector \
    -fno-exceptions -fno-asynchronous-unwind-tables -fno-pie -fpic -msoft-float -mno-red-zone -mno-mmx -mno-sse \
    -mpreferred-stack-boundary=3 -fvisibility=hidden";

/// How many mutants; each takes some tenths of a second.
const COUNT: usize = 30;

fn compilation(tree: &Path) -> Compilation {
    let mut arguments: Vec<String> = FLAGS.split_whitespace().map(str::to_owned).collect();
    arguments.push("small.c".to_owned());
    Compilation {
        object: BaseObject {
            path: "small.o".to_owned(),
            source: "small.c".to_owned(),
            assembler: false,
            linked: true,
            renamed_later: BTreeMap::new(),
        },
        program: "gcc".into(),
        dir: tree.to_owned(),
        arguments,
        input: "small.c".to_owned(),
        copies: Vec::new(),
        reads: BTreeSet::from(["small.c".to_owned()]),
    }
}

#[test]
fn what_a_mutant_changes_is_found_and_nothing_else() {
    let source = include_bytes!("sources/small.c");
    let place = tempfile::tempdir().expect("a temporary folder");
    let tree = folder(&place.path().join("tree")).expect("a folder");
    let work = folder(&place.path().join("work")).expect("a folder");
    std::fs::write(tree.join("small.c"), source).expect("the source can be written");
    let compilations = [compilation(&tree)];
    let mut desk = Desk::new(&tree, &compilations, &work, |_| None);
    let all = mutants("small.c", source, &mut Random::new(1));
    let (mut records, mut bad) = (Vec::new(), Vec::new());
    for mutant in Queue::new(all, 1).take(COUNT) {
        let record = match desk.try_mutant(&mutant) {
            Ok(record) => record,
            Err(Failure::Broken(why)) if why.contains("cannot start gcc") => {
                eprintln!("skipped: what_a_mutant_changes_is_found_and_nothing_else because there is no gcc");
                return;
            }
            Err(failure) => panic!("{mutant:?}: {failure:?}"),
        };
        bad.extend(report::trouble(&record).map(|trouble| format!("{}: {trouble}", report::line(&record))));
        if let Outcome::Judged(judgement) = &record.outcome {
            let named = judgement.found.iter().chain(&judgement.init);
            let named: BTreeSet<&str> =
                named.chain(judgement.refused.iter().map(|(name, _)| name)).map(String::as_str).collect();
            if !holders(&mutant).iter().any(|name| named.contains(name)) {
                bad.push(format!("{}: only {named:?}", report::line(&record)));
            }
        }
        records.push(record);
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    let totals = report::totals(&records);
    assert!(totals.found >= 20 && totals.refused >= 1 && totals.init >= 1, "{totals:?}");
    let kinds: BTreeSet<Kind> = records.iter().map(|record| record.mutant.kind).collect();
    assert!(kinds.len() >= 10, "{kinds:?}");
}

/// What must be named where a mutant changes anything: what holds the token, or who it is inlined into or read by.
fn holders(mutant: &Mutant) -> Vec<&str> {
    match &mutant.holder {
        Holder::Function(name) if name == "clamp" => vec!["first", "second"],
        Holder::Data(name) if name == "weights" => vec!["weigh"],
        Holder::Data(name) if name == "limits" || name == "all_limits" => vec!["third"],
        holder => vec![holder.name()],
    }
}
