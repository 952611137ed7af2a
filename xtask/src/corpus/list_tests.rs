use super::*;

fn entry(number: usize, reverse: bool) -> Entry {
    Entry { number, commit: "c0ffee0123456789c0ffee0123456789c0ffee01".to_owned(), reverse }
}

#[test]
fn names_sort_like_the_list_and_say_the_direction() {
    assert_eq!(entry(7, false).name(), "007-c0ffee0123");
    assert_eq!(entry(230, true).name(), "230-c0ffee0123-rev");
}

#[test]
fn a_filter_is_a_list_of_numbers_commits_names_and_kinds() {
    let (later, earlier) = (entry(7, false), entry(230, true));
    for (filter, wants) in [
        ("", [true, true]),
        (" , ", [true, true]),
        ("7", [true, false]),
        ("07,229", [true, false]),
        ("c0ffee", [true, true]),
        ("ffee0123-rev", [false, true]),
        ("earlier", [false, true]),
        ("later,230", [true, true]),
        ("beef", [false, false]),
    ] {
        assert_eq!([later.is_wanted(filter), earlier.is_wanted(filter)], wants, "{filter:?}");
    }
}

/// Where git is missing, `./test` leaves these out by the module's name and says so.
mod with_git {
    use std::path::Path;

    use super::super::*;

    /// A repository made here; `None`, and a line that says so, where there is no git.
    struct Repository(tempfile::TempDir);

    impl Repository {
        fn new(test: &str) -> Option<Repository> {
            let folder = tempfile::tempdir().expect("a folder for the repository");
            match Job::new("git").arg("--version").run() {
                Ok(finished) if finished.success() => {}
                _ => {
                    eprintln!("skipped: {test}: git is not installed");
                    return None;
                }
            }
            let repository = Repository(folder);
            repository.git(&["init", "--quiet"]);
            Some(repository)
        }

        fn path(&self) -> &Path {
            self.0.path()
        }

        fn git(&self, args: &[&str]) -> String {
            let settings =
                ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost", "-c", "commit.gpgsign=false"];
            let finished = Job::new("git")
                .arg("-C")
                .arg(self.path())
                .args(settings)
                .args(args)
                .env_remove("GIT_DIR")
                .env_remove("GIT_INDEX_FILE")
                .run()
                .expect("git starts");
            assert!(finished.success(), "git {args:?}: {}", String::from_utf8_lossy(&finished.stderr));
            String::from_utf8_lossy(&finished.stdout).trim().to_owned()
        }

        fn commit(&self, file: &str, text: &str) -> String {
            let path = self.path().join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is made");
            fs::write(path, text).expect("the file is written");
            self.git(&["add", "--all"]);
            self.git(&["commit", "--quiet", "--message", file]);
            self.git(&["rev-parse", "HEAD"])
        }
    }

    /// Twenty lines, some of them changed.
    fn lines(changes: &[(usize, &str)]) -> String {
        (1..=20)
            .map(|n| {
                changes
                    .iter()
                    .find(|(line, _)| *line == n)
                    .map_or_else(|| format!("line {n}\n"), |(_, text)| format!("{text}\n"))
            })
            .collect()
    }

    #[test]
    fn later_ones_that_apply_and_earlier_ones_that_come_off_make_the_list() {
        let Some(repository) =
            Repository::new("later_ones_that_apply_and_earlier_ones_that_come_off_make_the_list")
        else {
            return;
        };
        let since = repository.commit("xen/a.c", &lines(&[]));
        let overwritten = repository.commit("xen/a.c", &lines(&[(2, "two")]));
        let _docs = repository.commit("docs/a.txt", "words\n");
        let undone = repository.commit("xen/a.c", &lines(&[(2, "deux")]));
        let base = repository.commit("xen/b.c", "new file\n");
        let first = repository.commit("xen/a.c", &lines(&[(2, "deux"), (15, "fifteen")]));
        let _on_first = repository.commit("xen/a.c", &lines(&[(2, "deux"), (15, "quinze")]));
        let moved = repository.commit("xen/c.c", "another\n");
        let until = repository.commit("tools/x", "tool\n");

        let work = tempfile::tempdir().expect("a folder");
        let git = Git::new(repository.path(), work.path()).expect("a clone");
        let range = Range { since: since.clone(), base: base.clone(), until };
        let list = git.list(&range).expect("a list");
        let found: Vec<(&str, bool)> = list.iter().map(|e| (e.commit.as_str(), e.reverse)).collect();
        // The commit that a later one wrote over does not come off; the one that builds on another does not apply;
        // what is not in xen/ does not count, nor does the branch point.
        assert!(!found.iter().any(|(commit, _)| **commit == overwritten || **commit == since));
        assert_eq!(
            found,
            [
                (first.as_str(), false),
                (moved.as_str(), false),
                (undone.as_str(), true),
                (base.as_str(), true)
            ]
        );
        let numbers: Vec<usize> = list.iter().map(|e| e.number).collect();
        assert_eq!(numbers, [1, 2, 3, 4]);
        assert_eq!(list, git.list(&range).expect("a list"), "the same every time");
        assert_eq!(list, git.kept_list(&range).expect("a list"));
        assert_eq!(list, git.kept_list(&range).expect("a list"), "the same when it was kept");
        assert!(git.patch_file(&list[0]).is_file());
        let other = Range { until: base.clone(), ..range };
        assert_eq!(git.kept_list(&other).expect("a list").len(), 2, "of another range another list");
        assert!(!repository.git(&["status", "--porcelain"]).contains("xen"), "the clone is as it was");
    }

    #[test]
    fn an_earlier_commit_is_given_reversed_and_only_its_part_in_xen() {
        let Some(repository) =
            Repository::new("an_earlier_commit_is_given_reversed_and_only_its_part_in_xen")
        else {
            return;
        };
        repository.commit("xen/a.c", "old\n");
        fs::create_dir_all(repository.path().join("docs")).expect("a folder");
        fs::write(repository.path().join("docs/a.txt"), "words\n").expect("a file");
        let commit = repository.commit("xen/a.c", "new\n");
        let work = tempfile::tempdir().expect("a folder");
        let git = Git::new(repository.path(), work.path()).expect("a clone");
        let text = |reverse| {
            let entry = Entry { number: 1, commit: commit.clone(), reverse };
            String::from_utf8(git.patch_of(&entry).expect("a patch")).expect("text")
        };
        let (forward, backward) = (text(false), text(true));
        assert!(forward.contains("\n-old\n+new\n"), "{forward}");
        assert!(backward.contains("\n-new\n+old\n"), "{backward}");
        assert!(!forward.contains("docs"), "{forward}");
    }

    #[test]
    fn a_clone_without_the_commits_says_so() {
        let Some(repository) = Repository::new("a_clone_without_the_commits_says_so") else { return };
        repository.commit("xen/a.c", "old\n");
        let work = tempfile::tempdir().expect("a folder");
        let git = Git::new(repository.path(), work.path()).expect("a clone");
        let error = git.list(&Range::stable_4_17()).expect_err("no such commit");
        assert!(error.contains("read-tree 01140da4e8"), "{error}");
    }
}
