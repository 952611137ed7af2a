//! Which commits make the corpus: found in the clone with git itself, always in the same order.
//!
//! Every commit between the branch point of stable-4.17 and its last one that touches xen/ is tried on the tree of
//! [`Range::base`], each alone: later ones as they are, earlier ones reversed. Those that apply are the corpus. The
//! clone is only read: git gets an index file of our own.

use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::{Deserialize, Serialize};
use xsplice_process::{Finished, Job};

use super::oracle::write_whole;

/// The commits between which the corpus lies, as full ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Range {
    /// Where the branch begins; not part of the corpus.
    pub(crate) since: String,
    /// The commit whose tree everything applies to.
    pub(crate) base: String,
    /// The last commit.
    pub(crate) until: String,
}

impl Range {
    /// stable-4.17: from where it left the main line to 4.17.7, around the commit that Debian's 4.17.5+72 is.
    pub(crate) fn stable_4_17() -> Range {
        Range {
            since: "ddcc208ccdd44c688b3265be26237875c16b6258".to_owned(),
            base: "01140da4e8babe1e79d845b9117c1f9e6a057d0a".to_owned(),
            until: "9373a593c5a6ef57db1302eb1dca58cc3eb51c07".to_owned(),
        }
    }
}

/// One patch of the corpus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Its place in the list, from 1.
    pub(crate) number: usize,
    /// The full id of the commit.
    pub(crate) commit: String,
    /// Whether the commit is taken back.
    pub(crate) reverse: bool,
}

impl Entry {
    /// The commit's id as people write it.
    pub(crate) fn short(&self) -> &str {
        self.commit.get(..10).unwrap_or(&self.commit)
    }

    /// A name for folders and payloads, in the order of the list.
    pub(crate) fn name(&self) -> String {
        format!("{:03}-{}{}", self.number, self.short(), if self.reverse { "-rev" } else { "" })
    }

    /// Whether it is asked for: by its number, the start of its commit's id, a part of its name, or all of its
    /// kind with `later` and `earlier`. Several are divided by commas; no word at all means all.
    pub(crate) fn is_wanted(&self, filter: &str) -> bool {
        let mut words = filter.split(',').map(str::trim).filter(|word| !word.is_empty()).peekable();
        let name = self.name();
        words.peek().is_none()
            || words.any(|word| match word {
                "later" => !self.reverse,
                "earlier" => self.reverse,
                _ if word.len() <= 3 && word.bytes().all(|b| b.is_ascii_digit()) => {
                    word.parse() == Ok(self.number)
                }
                _ => self.commit.starts_with(word) || name.contains(word),
            })
    }
}

/// A list that an earlier run made. Ids say what a commit is, so that it stays right.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    format: u32,
    range: Range,
    entries: Vec<Entry>,
}

/// Rises when a list or the text of a patch would come out otherwise.
const FORMAT: u32 = 1;

/// A clone, and an index file with a tree that patches are tried on.
#[derive(Debug)]
pub(crate) struct Git {
    clone: PathBuf,
    work: PathBuf,
    index: PathBuf,
}

impl Git {
    /// A clone; files of our own go to `work`, which has to exist.
    ///
    /// # Errors
    /// When there is no such folder.
    pub(crate) fn new(clone: &Path, work: &Path) -> Result<Git, String> {
        let work = fs::canonicalize(work).map_err(|error| error.to_string())?;
        Ok(Git { clone: clone.to_owned(), index: work.join("git-index"), work })
    }

    /// git without the user's settings, where they could change what a patch looks like.
    fn job(&self) -> Job {
        let job = Job::new("git").arg("-C").arg(&self.clone).env("GIT_INDEX_FILE", &self.index);
        let job = ["GIT_DIR", "GIT_WORK_TREE", "GIT_DIFF_OPTS", "GIT_EXTERNAL_DIFF"]
            .into_iter()
            .fold(job, |job, name| job.env_remove(name));
        job.args(["-c", "apply.ignoreWhitespace=no", "-c", "apply.whitespace=nowarn"])
    }

    fn run(&self, args: &[&str]) -> Result<Finished, String> {
        self.job().args(args).run().map_err(|error| error.to_string())
    }

    fn done(&self, args: &[&str]) -> Result<Vec<u8>, String> {
        let finished = self.run(args)?;
        if finished.success() {
            return Ok(finished.stdout);
        }
        let said = String::from_utf8_lossy(&finished.stderr).into_owned();
        Err(format!("git {}: exit code {}\n{said}", args.join(" "), finished.code))
    }

    /// The corpus, from `list.json` where an earlier run left it there, with each patch in `patches/`.
    ///
    /// # Errors
    /// When the clone does not have the commits.
    pub(crate) fn kept_list(&self, range: &Range) -> Result<Vec<Entry>, String> {
        let file = self.work.join("list.json");
        let kept = fs::read(&file).ok().and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
        if let Some(kept) = kept.filter(|kept| kept.format == FORMAT && kept.range == *range) {
            return Ok(kept.entries);
        }
        let kept = Kept { format: FORMAT, range: range.clone(), entries: self.list(range)? };
        fs::create_dir_all(self.work.join("patches")).map_err(|error| error.to_string())?;
        for entry in &kept.entries {
            write_whole(&self.patch_file(entry), &self.patch_of(entry)?)?;
        }
        let bytes = serde_json::to_vec_pretty(&kept).map_err(|error| error.to_string())?;
        write_whole(&file, &bytes)?;
        Ok(kept.entries)
    }

    /// Where [`Git::kept_list`] put the patch of an entry.
    pub(crate) fn patch_file(&self, entry: &Entry) -> PathBuf {
        self.work.join("patches").join(format!("{}.patch", entry.name()))
    }

    /// The corpus: later commits first, then earlier ones, the oldest first in both.
    ///
    /// # Errors
    /// When the clone does not have the commits.
    fn list(&self, range: &Range) -> Result<Vec<Entry>, String> {
        self.done(&["read-tree", &range.base])?;
        let mut entries = Vec::new();
        for (from, to, reverse) in [(&range.base, &range.until, false), (&range.since, &range.base, true)] {
            let commits = self.done(&[
                "rev-list",
                "--reverse",
                "--topo-order",
                "--no-merges",
                &format!("{from}..{to}"),
            ])?;
            for commit in String::from_utf8_lossy(&commits).lines() {
                let entry = Entry { number: entries.len() + 1, commit: commit.to_owned(), reverse };
                let patch = self.patch_of(&entry)?;
                if !patch.is_empty() && self.applies(&patch)? {
                    entries.push(entry);
                }
            }
        }
        Ok(entries)
    }

    /// The patch of an entry: what it does to xen/.
    ///
    /// # Errors
    /// When git fails.
    fn patch_of(&self, entry: &Entry) -> Result<Vec<u8>, String> {
        let parent = format!("{}^", entry.commit);
        let (from, to) = if entry.reverse { (&entry.commit, &parent) } else { (&parent, &entry.commit) };
        self.done(&[
            "diff-tree",
            "-p",
            "-M",
            "-U3",
            "--no-color",
            "--no-ext-diff",
            "--no-textconv",
            "--full-index",
            "--src-prefix=a/",
            "--dst-prefix=b/",
            "--diff-algorithm=myers",
            from,
            to,
            "--",
            "xen",
        ])
    }

    fn applies(&self, patch: &[u8]) -> Result<bool, String> {
        let job = self.job().args(["apply", "--cached", "--check", "-"]).stdin(patch);
        Ok(job.run().map_err(|error| error.to_string())?.success())
    }
}

#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;
