use std::fs;

use super::*;

const OLD: &str = "int a;\nint b;\nint c;\n";
const NEW: &str = "int a;\nint B;\nint c;\n";
const HUNK: &str = "@@ -1,3 +1,3 @@\n int a;\n-int b;\n+int B;\n int c;\n";

fn tree() -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    fs::create_dir_all(tree.path().join("xen/common")).unwrap();
    fs::write(tree.path().join("xen/common/a.c"), OLD).unwrap();
    fs::write(tree.path().join("xen/common/gone.c"), "x\n").unwrap();
    tree
}

fn input(text: impl Into<Vec<u8>>) -> PatchInput {
    PatchInput { name: "p.patch".to_owned(), bytes: text.into() }
}

fn changes(text: impl Into<Vec<u8>>) -> Changes {
    apply_all(tree().path(), &[input(text)]).unwrap().0
}

fn error(text: impl Into<Vec<u8>>) -> Diagnostic {
    let mut problems = apply_all(tree().path(), &[input(text)]).unwrap_err();
    assert_eq!(problems.0.len(), 1, "{problems:?}");
    problems.0.remove(0)
}

#[test]
fn every_format_gives_the_same_change() {
    let formats = [
        (
            "git diff",
            format!(
                "diff --git a/xen/common/a.c b/xen/common/a.c\nindex 1..2 100644\n--- a/xen/common/a.c\n+++ b/xen/common/a.c\n{HUNK}"
            ),
        ),
        (
            "git format-patch",
            format!(
                "From 0123456789 Mon Sep 17 00:00:00 2001\nFrom: A B <a@b>\nDate: Mon, 1 Jan 2024 00:00:00 +0000\nSubject: [PATCH] x\n\nSome words.\n\n- a list\n+ more\n---\n xen/common/a.c | 2 +-\n 1 file changed, 1 insertion(+), 1 deletion(-)\n\ndiff --git a/xen/common/a.c b/xen/common/a.c\nindex 1..2 100644\n--- a/xen/common/a.c\n+++ b/xen/common/a.c\n{HUNK}-- \n2.39.2\n\n"
            ),
        ),
        (
            "a mail",
            format!(
                "Return-Path: <a@b>\nFrom: A B <a@b>\nContent-Transfer-Encoding: 8bit\nSubject: [PATCH] x\n\nWords.\n---\n xen/common/a.c | 2 +-\n\ndiff --git a/xen/common/a.c b/xen/common/a.c\n--- a/xen/common/a.c\n+++ b/xen/common/a.c\n{HUNK}-- \n2.39.2\n"
            ),
        ),
        (
            "quilt",
            format!(
                "Description: x\n\nIndex: xen-4.17/xen/common/a.c\n===================================================================\n--- xen-4.17.orig/xen/common/a.c\n+++ xen-4.17/xen/common/a.c\n{HUNK}"
            ),
        ),
        (
            "diff -ru",
            format!(
                "diff -ru a/xen/common/a.c b/xen/common/a.c\n--- a/xen/common/a.c\t2024-01-01 00:00:00.000000000 +0000\n+++ b/xen/common/a.c\t2024-01-02 00:00:00.000000000 +0000\n{HUNK}"
            ),
        ),
        ("diff -u with .orig", format!("--- a/xen/common/a.c.orig\n+++ b/xen/common/a.c\n{HUNK}")),
        ("no folder in front", format!("--- xen/common/a.c\n+++ xen/common/a.c\n{HUNK}")),
        ("./ in front", format!("--- ./xen/common/a.c\n+++ ./xen/common/a.c\n{HUNK}")),
        (
            "Subversion",
            format!(
                "Index: xen/common/a.c\n=====\n--- xen/common/a.c\t(revision 1)\n+++ xen/common/a.c\t(working copy)\n{HUNK}"
            ),
        ),
    ];
    for (name, text) in formats {
        let found = changes(text.clone());
        assert_eq!(found.keys().collect::<Vec<_>>(), ["xen/common/a.c"], "{name}");
        assert_eq!(found["xen/common/a.c"].after.as_deref(), Some(NEW.as_bytes()), "{name}");
        let crlf = text.replace('\n', "\r\n");
        assert_eq!(changes(crlf), found, "{name} with CRLF");
    }
}

#[test]
fn files_are_made_removed_renamed_and_made_executable() {
    let found = changes(
        "diff --git a/xen/common/n.c b/xen/common/n.c\nnew file mode 100644\n--- /dev/null\n+++ b/xen/common/n.c\n@@ -0,0 +1 @@\n+n\n",
    );
    assert_eq!(
        found["xen/common/n.c"],
        FileChange { before: None, after: Some(b"n\n".to_vec()), executable: false, was_executable: false }
    );
    // As `diff -Naur` writes them.
    let found = changes(
        "--- a/xen/common/n.c\t1970-01-01 01:00:00.000000000 +0100\n+++ b/xen/common/n.c\t2024-01-01 00:00:00.000000000 +0000\n@@ -0,0 +1 @@\n+n\n",
    );
    assert_eq!(found["xen/common/n.c"].after.as_deref(), Some(b"n\n".as_slice()));
    let found = changes("--- a/xen/common/gone.c\t2024\n+++ b/xen/common/gone.c\t1970\n@@ -1 +0,0 @@\n-x\n");
    assert_eq!(found["xen/common/gone.c"].after, None);
    let found = changes(
        "diff --git a/xen/common/gone.c b/xen/common/gone.c\ndeleted file mode 100644\n--- a/xen/common/gone.c\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n",
    );
    assert_eq!(found["xen/common/gone.c"].after, None);
    let found = changes(
        "diff --git a/xen/common/gone.c b/xen/common/new.c\nsimilarity index 100%\nrename from xen/common/gone.c\nrename to xen/common/new.c\n",
    );
    assert_eq!(found["xen/common/gone.c"].after, None);
    assert_eq!(found["xen/common/new.c"].after.as_deref(), Some(b"x\n".as_slice()));
    let found = changes("diff --git a/xen/common/a.c b/xen/common/a.c\nold mode 100644\nnew mode 100755\n");
    assert!(found["xen/common/a.c"].executable);
    let found = changes(format!(
        "diff --git a/xen/common/a.c b/xen/common/r.c\nsimilarity index 60%\nrename from xen/common/a.c\nrename to xen/common/r.c\n--- a/xen/common/a.c\n+++ b/xen/common/r.c\n{HUNK}"
    ));
    assert_eq!(found["xen/common/r.c"].after.as_deref(), Some(NEW.as_bytes()));
}

#[test]
fn several_patches_are_one_change() {
    let tree = tree();
    let head = "--- a/xen/common/a.c\n+++ b/xen/common/a.c\n";
    let one = input(format!("{head}{HUNK}"));
    let two = input(format!("{head}@@ -1,3 +1,3 @@\n int a;\n-int B;\n+int bb;\n int c;\n"));
    let back = input(format!("{head}@@ -1,3 +1,3 @@\n int a;\n-int B;\n+int b;\n int c;\n"));
    let found = apply_all(tree.path(), &[one.clone(), two.clone()]).unwrap().0;
    assert_eq!(found["xen/common/a.c"].before.as_deref(), Some(OLD.as_bytes()));
    assert_eq!(found["xen/common/a.c"].after.as_deref(), Some(b"int a;\nint bb;\nint c;\n".as_slice()));
    assert!(apply_all(tree.path(), &[two, one.clone()]).is_err());
    assert!(apply_all(tree.path(), &[one, back]).unwrap().0.is_empty());
    assert_eq!(fs::read_to_string(tree.path().join("xen/common/a.c")).unwrap(), OLD);
}

#[test]
fn what_does_not_apply_names_file_hunk_and_line() {
    let problem = error(
        "--- a/xen/common/a.c\n+++ b/xen/common/a.c\n@@ -1,3 +1,3 @@\n int a;\n-int x;\n+int y;\n int c;\n",
    );
    assert_eq!(problem.code, codes::PATCH_DOES_NOT_APPLY);
    assert_eq!(problem.what, "hunk 1 of xen/common/a.c does not apply");
    assert_eq!(problem.place, Place::file("p.patch").line(3));
    assert!(
        problem.why.contains("Line 2")
            && problem.why.contains("`int x;`")
            && problem.why.contains("`int b;`")
    );
    let problem = error(
        "--- a/xen/common/a.c\n+++ b/xen/common/a.c\n@@ -1,3 +1,3 @@\n int a;\n-int B;\n+int b;\n int c;\n",
    );
    assert!(problem.advice.contains("already"), "{problem:?}");
    let problem = error("--- a/xen/common/none.c\n+++ b/xen/common/none.c\n@@ -1 +1 @@\n-a\n+b\n");
    assert!(problem.what.contains("xen/common/none.c is not in the tree"), "{problem:?}");
    let problem = error(
        "diff --git a/xen/common/gone.c b/xen/common/gone.c\nnew file mode 100644\n--- /dev/null\n+++ b/xen/common/gone.c\n@@ -0,0 +1 @@\n+x\n",
    );
    assert!(problem.advice.contains("already"), "{problem:?}");
}

#[test]
fn damage_is_noticed() {
    let head = "--- a/xen/common/a.c\n+++ b/xen/common/a.c\n";
    let cases = [
        ("words", "hello\n".to_owned()),
        ("nothing", String::new()),
        ("cut short", format!("{head}@@ -1,3 +1,3 @@\n int a;\n-int b;\n")),
        ("too few counted", format!("{head}@@ -1,2 +1,2 @@\n int a;\n-int b;\n+int B;\n int c;\n")),
        ("a wrapped line", format!("{head}@@ -1,3 +1,3 @@\n int\na;\n-int b;\n+int B;\n int c;\n")),
        (
            "words between hunks",
            format!("{head}@@ -1,1 +1,1 @@\n-int a;\n+int A;\nwords\n@@ -3,1 +3,1 @@\n-int c;\n+int C;\n"),
        ),
        ("quoted-printable", format!("From: x\nContent-Transfer-Encoding: quoted-printable\n\n{head}{HUNK}")),
    ];
    for (name, text) in cases {
        assert_eq!(error(text).code, codes::PATCH_UNREADABLE, "{name}");
    }
    let binary = "diff --git a/xen/common/x.bin b/xen/common/x.bin\nnew file mode 100644\nindex 0000000..1\nBinary files /dev/null and b/xen/common/x.bin differ\n";
    assert_eq!(error(binary).code, codes::PATCH_BINARY);
}

#[test]
fn no_path_leaves_the_tree() {
    for path in ["a/../../etc/x", "a//etc/x/../../../y", "a/.git/config"] {
        let problem = error(format!("--- /dev/null\n+++ {path}\n@@ -0,0 +1 @@\n+x\n"));
        assert_eq!(problem.code, codes::PATCH_PATH, "{path}");
    }
    let tree = tree();
    std::os::unix::fs::symlink("/tmp", tree.path().join("xen/link")).unwrap();
    let patch = input("--- /dev/null\n+++ b/xen/link/x\n@@ -0,0 +1 @@\n+x\n");
    let problems = apply_all(tree.path(), &[patch]).unwrap_err();
    assert_eq!(problems.0[0].code, codes::PATCH_PATH);
}

#[test]
fn a_hunk_that_matches_at_another_line_is_applied_and_warned_of() {
    let moved = HUNK.replace("@@ -1,3 +1,3 @@", "@@ -4,3 +4,3 @@");
    let text = format!("--- a/xen/common/a.c\n+++ b/xen/common/a.c\n{moved}");
    let (changes, warnings) = apply_all(tree().path(), &[input(text)]).unwrap();
    assert_eq!(changes["xen/common/a.c"].after.as_deref(), Some(NEW.as_bytes()));
    let [warning] = &warnings.0[..] else { panic!("{warnings:?}") };
    assert_eq!(warning.code, codes::PATCH_OFFSET);
    assert!(warning.what.contains("-3 lines away"), "{}", warning.what);
}
