//! A change is undone when its guard goes, and when its process is killed.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use undo::Undo;

/// Set for the process that is to be killed: the file that it changes.
const CHANGE: &str = "UNDO_TEST_CHANGE";

#[test]
fn dropped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("value");
    fs::write(&path, "before it's \"changed\" $1\n").unwrap();
    let undo = Undo::write(&path, "after").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "after");
    drop(undo);
    assert_eq!(fs::read_to_string(&path).unwrap(), "before it's \"changed\" $1");
}

#[test]
fn what_cannot_be_undone_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let full = dir.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("file"), "").unwrap();
    let undo = Undo::by(&["rmdir", full.to_str().unwrap()]).unwrap();
    let emptied = std::thread::spawn({
        let full = full.clone();
        move || {
            std::thread::sleep(Duration::from_millis(300));
            fs::remove_file(full.join("file")).unwrap();
        }
    });
    drop(undo);
    assert!(!full.exists(), "it is tried until it succeeds");
    emptied.join().unwrap();
}

#[test]
fn nothing_to_change() {
    assert!(Undo::write(Path::new("/nonexistent/value"), "after").is_err());
}

/// Not a test by itself: what `killed` starts.
#[test]
fn is_killed() {
    let Some(path) = std::env::var_os(CHANGE) else { return };
    let _undo = Undo::write(path.as_ref(), "after").unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn killed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("value");
    fs::write(&path, "before").unwrap();
    let is = |value: &str| {
        let begun = Instant::now();
        while fs::read_to_string(&path).unwrap() != value {
            assert!(begun.elapsed() < Duration::from_secs(60), "not {value} in a minute");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "is_killed"]).env(CHANGE, &path).process_group(0);
    let mut child = child.spawn().unwrap();
    is("after");
    child.kill().unwrap();
    child.wait().unwrap();
    is("before");
}
