//! Where mutants are compiled and judged: a private tree, and the compilations that read its files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use fs_err as fs;
use serde::{Deserialize, Serialize};
use xsplice_build::Compilation;

use crate::compile::{Compiled, Failure, compile, preprocess};
use crate::differ::Finding;
use crate::judge::{Judgement, judge};
use crate::mutate::Mutant;
use crate::random::Random;
use crate::text::{Text, code_lines};
use crate::truth::Truth;

/// How many objects a header's mutant is compiled into at once, and at most: until one of them uses what changed.
const OBJECTS_OF_A_HEADER: (usize, usize) = (3, 15);

/// What became of a mutant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It does not compile; the first error.
    NotCompiled(String),
    /// The configuration leaves that line out, or the objects that read the header make no use of it.
    NotBuilt,
    /// The compiler makes the same of both.
    Equal {
        /// Line by line; otherwise up to the numbers of labels and copies.
        to_the_letter: bool,
        /// What the differ says all the same; none is right.
        extra: Vec<String>,
    },
    /// The compiler makes something else of it.
    Judged(Judgement),
}

/// A mutant and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The mutant.
    pub mutant: Mutant,
    /// The objects that were compared.
    pub objects: Vec<String>,
    /// What came out.
    pub outcome: Outcome,
}

/// The original of one object.
struct Original {
    text: Text,
    code: Vec<String>,
    object: Vec<u8>,
}

/// Gives the object that the build made, by path.
type Pristine<'d> = Box<dyn Fn(&str) -> Option<Vec<u8>> + 'd>;

/// Where mutants are compiled.
pub struct Desk<'d> {
    tree: PathBuf,
    compilations: &'d [Compilation],
    work: PathBuf,
    pristine: Pristine<'d>,
    originals: BTreeMap<String, Rc<Original>>,
}

impl<'d> Desk<'d> {
    /// A desk for compilations in `tree`, which must be private: sources there are changed in place for the time of
    /// a compilation. `work` is a folder for what is compiled. `pristine` gives the object that the build made,
    /// which a compilation here must give again, byte for byte.
    pub fn new(
        tree: &Path,
        compilations: &'d [Compilation],
        work: &Path,
        pristine: impl Fn(&str) -> Option<Vec<u8>> + 'd,
    ) -> Desk<'d> {
        Desk {
            tree: tree.to_owned(),
            compilations,
            work: work.to_owned(),
            pristine: Box::new(pristine),
            originals: BTreeMap::new(),
        }
    }

    /// A file of the tree.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn source(&self, file: &str) -> Result<Vec<u8>, Failure> {
        fs::read(self.tree.join(file)).map_err(|error| Failure::Broken(error.to_string()))
    }

    /// The compilations that a mutant is compiled with, in turns: all that read the file at once, or some after some
    /// where it is a header.
    fn readers(&self, mutant: &Mutant) -> Vec<Vec<&'d Compilation>> {
        let mut readers: Vec<&Compilation> =
            self.compilations.iter().filter(|compilation| compilation.reads.contains(&mutant.file)).collect();
        if mutant.file.ends_with(".c") {
            return vec![readers];
        }
        let (at_once, most) = OBJECTS_OF_A_HEADER;
        Random::new(mutant.start as u64).shuffle(&mut readers);
        readers.truncate(most);
        readers.chunks(at_once).map(<[_]>::to_vec).collect()
    }

    fn original(&mut self, compilation: &Compilation) -> Result<Rc<Original>, Failure> {
        let path = &compilation.object.path;
        if let Some(known) = self.originals.get(path) {
            return Ok(Rc::clone(known));
        }
        let Compiled { text, object } = compile(compilation, &self.work)?;
        if (self.pristine)(path).is_some_and(|wanted| wanted != object) {
            return Err(Failure::Broken(format!("{path}: compiled again, it is not what the build made")));
        }
        let original = Rc::new(Original { text: Text::parse(&text), code: code_lines(&text), object });
        self.originals.insert(path.clone(), Rc::clone(&original));
        Ok(original)
    }

    /// Compiles a mutant, and judges what the differ says of it.
    ///
    /// # Errors
    /// When a program cannot be run, or the original does not come out as it should. A mutant that does not compile
    /// is no error.
    pub fn try_mutant(&mut self, mutant: &Mutant) -> Result<Record, Failure> {
        let mut last = None;
        for readers in self.readers(mutant) {
            let mut record = self.try_readers(mutant, &readers)?;
            let unused = matches!(record.outcome, Outcome::Equal { to_the_letter: true, .. });
            if !unused || mutant.file.ends_with(".c") {
                return Ok(record);
            }
            record.outcome = Outcome::NotBuilt;
            last = Some(record);
        }
        last.ok_or_else(|| Failure::Broken(format!("{}: nothing reads it", mutant.file)))
    }

    fn try_readers(&mut self, mutant: &Mutant, readers: &[&Compilation]) -> Result<Record, Failure> {
        let originals =
            readers.iter().map(|compilation| self.original(compilation)).collect::<Result<Vec<_>, _>>()?;
        let objects: Vec<String> =
            readers.iter().map(|compilation| compilation.object.path.clone()).collect();
        let source = self.source(&mutant.file)?;
        let file = self.tree.join(&mutant.file);
        let work = self.work.clone();
        let changed = with_change(&file, &source, &mutant.apply(&source), || {
            readers.iter().map(|compilation| compile(compilation, &work)).collect::<Result<Vec<_>, _>>()
        })?;
        let changed = match changed {
            Ok(changed) => changed,
            Err(Failure::Refused(why)) => {
                return Ok(Record { mutant: mutant.clone(), objects, outcome: Outcome::NotCompiled(why) });
            }
            Err(broken) => return Err(broken),
        };
        let (mut judgement, mut nothing, mut to_the_letter) = (Judgement::default(), true, true);
        for ((compilation, original), changed) in readers.iter().zip(&originals).zip(&changed) {
            let object = &compilation.object;
            let truth =
                Truth::of(&original.text, &Text::parse(&changed.text), object.path.ends_with(".init.o"));
            let finding = Finding::of(&object.path, &object.source, &original.object, &changed.object);
            nothing &= truth.is_empty();
            to_the_letter &= original.code == code_lines(&changed.text);
            judgement.merge(judge(&truth, &finding));
        }
        let outcome = if !nothing {
            Outcome::Judged(judgement)
        } else if self.is_left_out(readers, &file, &source, mutant)? {
            Outcome::NotBuilt
        } else {
            Outcome::Equal { to_the_letter, extra: judgement.extra.into_iter().collect() }
        };
        Ok(Record { mutant: mutant.clone(), objects, outcome })
    }

    /// Whether the compiler never sees the changed token.
    fn is_left_out(
        &self,
        readers: &[&Compilation],
        file: &Path,
        source: &[u8],
        mutant: &Mutant,
    ) -> Result<bool, Failure> {
        let all = || readers.iter().map(|compilation| preprocess(compilation)).collect::<Result<Vec<_>, _>>();
        let before = all()?;
        let after = with_change(file, source, &mutant.apply(source), all)??;
        Ok(before == after)
    }
}

/// Runs something while a file has another content.
fn with_change<T>(file: &Path, source: &[u8], changed: &[u8], run: impl FnOnce() -> T) -> Result<T, Failure> {
    let write = |bytes: &[u8]| fs::write(file, bytes).map_err(|error| Failure::Broken(error.to_string()));
    write(changed)?;
    let done = run();
    write(source)?;
    Ok(done)
}
