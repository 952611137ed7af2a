//! Programs are started, read, limited and never left behind.

use std::time::{Duration, Instant};

use xsplice_process::{Error, Job, Swept};

#[test]
fn output_and_exit_code_are_those_of_the_program() {
    let finished = Job::new("sh").args(["-c", "cat; echo err >&2; exit 7"]).stdin("in").run().unwrap();
    assert_eq!(finished.code, 7);
    assert_eq!(finished.stdout, b"in");
    assert_eq!(finished.stderr, b"err\n");
}

#[test]
fn a_signal_that_ends_the_program_is_told_as_shells_do() {
    let finished = Job::new("sh").args(["-c", "kill -SEGV $$"]).run().unwrap();
    assert_eq!(finished.code, 128 + 11);
}

#[test]
fn a_missing_program_is_named() {
    let error = Job::new("no-such-program-here").run().unwrap_err();
    assert!(matches!(&error, Error::Start { program, .. } if program == "no-such-program-here"), "{error}");
}

#[test]
fn a_limit_kills_the_whole_group() {
    let dir = tempfile_dir("limit");
    let mark = dir.join("alive");
    let script = format!("(sleep 1.2; touch {}) & sleep 30", mark.display());
    let begin = Instant::now();
    let error = Job::new("sh").args(["-c", &script]).timeout(Duration::from_millis(200)).run().unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }));
    assert!(begin.elapsed() < Duration::from_secs(5));
    std::thread::sleep(Duration::from_millis(1500));
    assert!(!mark.exists(), "a grandchild survived");
}

/// The promise behind the guard: a process killed by SIGKILL leaves no grandchild.
#[test]
fn sigkill_of_the_starter_ends_the_group() {
    if let Ok(mark) = std::env::var("XSPLICE_TEST_MARK") {
        let script = format!("(sleep 2; touch {mark}) & sleep 30");
        let _ = Job::new("sh").args(["-c", &script]).run();
        return;
    }
    let dir = tempfile_dir("sigkill");
    let mark = dir.join("alive");
    let me = std::env::current_exe().unwrap();
    let mut child = std::process::Command::new(me)
        .args(["--exact", "sigkill_of_the_starter_ends_the_group", "--nocapture"])
        .env("XSPLICE_TEST_MARK", &mark)
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(700));
    child.kill().unwrap();
    child.wait().unwrap();
    std::thread::sleep(Duration::from_millis(2000));
    assert!(!mark.exists(), "a grandchild survived the death of the process that started it");
}

fn tempfile_dir(name: &str) -> std::path::PathBuf {
    let dir = std::env::temp_dir().join(format!("xsplice-process-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

#[test]
fn a_swept_folder_goes_with_its_value_and_with_the_process() {
    if let Ok(folder) = std::env::var("XSPLICE_TEST_SWEPT") {
        let _swept = Swept::new(folder).unwrap();
        std::thread::sleep(Duration::from_secs(30));
        return;
    }
    let make = |name: &str| {
        let folder = tempfile_dir(name).join("a folder with $(odd) 'words'");
        std::fs::create_dir_all(folder.join("below")).unwrap();
        std::fs::write(folder.join("below/file"), "x").unwrap();
        folder
    };
    let folder = make("dropped");
    let swept = Swept::new(&folder).unwrap();
    assert!(swept.path().join("below/file").is_file());
    drop(swept);
    assert!(!folder.exists() && folder.parent().unwrap().is_dir());

    let folder = make("killed");
    let me = std::env::current_exe().unwrap();
    let mut child = std::process::Command::new(me)
        .args(["--exact", "a_swept_folder_goes_with_its_value_and_with_the_process", "--nocapture"])
        .env("XSPLICE_TEST_SWEPT", &folder)
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(700));
    assert!(folder.is_dir());
    child.kill().unwrap();
    child.wait().unwrap();
    let begin = Instant::now();
    while folder.exists() && begin.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!folder.exists(), "it survived the death of the process that wanted it");
}
