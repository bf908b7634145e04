//! Bad input: each kind gets a clear error and its exit status, and nothing is changed or left behind.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use tests::instance::{COMMAND, Instance, Uzswap, ended};
use tests::machine::Machine;
use tests::storage::{Directory, LoopDevice, done};
use tests::{need, programs};

/// The job failed.
const FAILED: i32 = 1;
/// The command line is wrong.
const USAGE: i32 = 2;

fn assert_refused(args: &[&str], status: i32, output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{args:?}: {said}");
    let line = said.strip_prefix("uzswap: ").unwrap_or_else(|| panic!("{args:?}: not from uzswap: {said}"));
    assert!(line.contains(": "), "{args:?}: no WHAT: WHY in {said}");
    assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
    assert!(output.stdout.is_empty(), "{args:?}");
}

/// Runs each command line of `table` and sees it refused with its status.
fn all_refused(uzswap: &Uzswap, table: &[(i32, &[&str])]) {
    let before = Machine::now(uzswap.run_dir());
    for (status, args) in table {
        assert_refused(args, *status, &uzswap.call(args).expect("it ends"));
    }
    before.assert_restored(uzswap.run_dir());
}

#[test]
fn wrong_command_lines() {
    // The line is looked at before anything else, so root or not makes no difference.
    all_refused(
        &Uzswap::of_this_tree(),
        &[
            (USAGE, &[]),
            (USAGE, &["frobnicate"]),
            (USAGE, &["swapon", "--frobnicate"]),
            (USAGE, &["swapoff"]),
            (USAGE, &["swapoff", "one", "--all"]),
            (USAGE, &["get"]),
            (USAGE, &["set", "name", "compressor"]),
            (USAGE, &["swapon", "--size", "0"]),
            (USAGE, &["swapon", "--size", "4097"]),
            (USAGE, &["swapon", "--size", "1000000"]),
            (USAGE, &["swapon", "--size", "-64M"]),
            (USAGE, &["swapon", "--size=-64M"]),
            (USAGE, &["swapon", "--size", "64Q"]),
            (USAGE, &["swapon", "--size", "many"]),
            (USAGE, &["swapon", "--size", ""]),
            (USAGE, &["swapon", "--size", "99999999999999999999"]),
            (USAGE, &["swapon", "--size", "18014398509481984K"]),
            (USAGE, &["swapon", "--via", "pigeon"]),
            (USAGE, &["swapon", "-p", "-1"]),
            (USAGE, &["swapon", "-p", "32768"]),
            (USAGE, &["swapon", "-p", "high"]),
            (USAGE, &["swapon", "--name", ""]),
            (USAGE, &["swapon", "--name", ".."]),
            (USAGE, &["swapon", "--name", "a/b"]),
            (USAGE, &["swapon", "-o", "compressor"]),
            (USAGE, &["swapon", "-o", "=zstd"]),
            (USAGE, &["swapon", "-o", "compressor=rot13"]),
            (USAGE, &["swapon", "-o", "zswap.compressor=rot13"]),
            (USAGE, &["swapon", "-o", "compressor=zstd(level=999)"]),
            (USAGE, &["swapon", "-o", "compressor=deflate-iaa"]),
            (USAGE, &["swapon", "-o", "zpool=z4fold"]),
            (USAGE, &["swapon", "-o", "profile=7.0"]),
            (USAGE, &["swapon", "-o", "tree=oak"]),
            (USAGE, &["swapon", "-o", "frobnicate=1"]),
            (USAGE, &["swapon", "-o", "profile=6.18", "-o", "zpool=zbud"]),
            (USAGE, &["swapon", "-o", "max_pool_percent=101"]),
            (USAGE, &["swapon", "-o", "max_pool_percent=-1"]),
            (USAGE, &["swapon", "-o", "max_pool_percent=twenty"]),
            (USAGE, &["swapon", "-o", "max_pool_percent=99999999999999999999"]),
            (USAGE, &["swapon", "-o", "accept_threshold_percent=101"]),
            (USAGE, &["swapon", "-o", "enabled=perhaps"]),
            (USAGE, &["swapon", "-o", "compressor="]),
            (USAGE, &["swapon", "-o", "compressor=lz4\nzstd"]),
            (USAGE, &["swapon", "--name", "forty-eight-bytes-are-one-more-than-a-name-has-00"]),
            (USAGE, &["swapon", "--name", "two words"]),
            (USAGE, &["swapon", "--name", "-x"]),
            (USAGE, &["status", "a/b"]),
            (USAGE, &["status", ".."]),
            (USAGE, &["get", "../name"]),
            (USAGE, &["set", "a/b", "compressor", "zstd"]),
            (USAGE, &["swapoff", "a/b"]),
        ],
    );
}

#[test]
fn words_that_are_no_text() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let uzswap = Uzswap::of_this_tree();
    let before = Machine::now(uzswap.run_dir());
    let odd = OsStr::from_bytes(b"\xff\xfe");
    for args in [
        &["swapon", "--size"][..],
        &["swapon", "--name"],
        &["swapon", "-o"],
        &["status"],
        &["get"],
        &["swapoff"],
    ] {
        let mut command = uzswap.command(args);
        let output = ended(command.arg(odd), COMMAND).expect("it ends");
        assert_refused(args, USAGE, &output);
    }
    before.assert_restored(uzswap.run_dir());
}

#[test]
fn jobs_that_cannot_be_done() {
    if !need::swap("jobs_that_cannot_be_done") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).to_str().expect("a temporary path is ASCII").to_owned();
    let (missing, small, directory) = (path("missing"), path("small"), path("directory"));
    File::create(&small).and_then(|file| file.set_len(1 << 20)).expect("a file");
    fs::create_dir(&directory).expect("a directory");
    let (pipe, ring, socket) = (path("pipe"), path("ring"), path("socket"));
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    std::os::unix::fs::symlink(&ring, &ring).expect("a link to itself");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    let long = path(&"x".repeat(300));
    all_refused(
        &uzswap,
        &[
            (FAILED, &["swapon", "--size", "16M", "--backing", &missing]),
            (FAILED, &["swapon", "--size", "16M", "--backing", &small]),
            (FAILED, &["swapon", "--size", "16M", "--backing", &directory]),
            (FAILED, &["swapon", "--size", "16M", "--backing", "/dev/null"]),
            (FAILED, &["swapon", "--size", "16M", "--backing", &pipe]),
            (FAILED, &["swapon", "--size", "16M", "--backing", &ring]),
            (FAILED, &["swapon", "--size", "16M", "--backing", &socket]),
            (FAILED, &["swapon", "--size", "16M", "--backing", &long]),
            (USAGE, &["swapon", "--size", "16M", "--backing", ""]),
            (FAILED, &["swapon", "--size", "16M", "--foreground", "--backing", &missing]),
            (FAILED, &["swapon", "--size", "4K"]),
            (FAILED, &["swapon", "--size", "32T"]),
            (FAILED, &["swapon", "--size", "16M", "--via", "nbd"]),
            (FAILED, &["swapoff", "nobody"]),
            (FAILED, &["swapoff", "/dev/nothing"]),
            (FAILED, &["status", "nobody"]),
            (FAILED, &["get", "nobody"]),
            (FAILED, &["set", "nobody", "compressor", "zstd"]),
        ],
    );
    assert_eq!(fs::metadata(&small).expect("it is still there").len(), 1 << 20);
    assert!(!Path::new(&missing).exists(), "nothing was made");
}

#[test]
fn a_running_instance_is_not_changed() {
    if !need::swap("a_running_instance_is_not_changed") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let before = Machine::now(uzswap.run_dir());
    let dir = tempfile::tempdir().expect("a directory");
    let backing = dir.path().join("backing").to_str().expect("a temporary path is ASCII").to_owned();
    File::create(&backing).and_then(|file| file.set_len(16 << 20)).expect("a file");
    let instance =
        Instance::start(&uzswap, "busy", &["--size", "16M", "--backing", &backing]).expect("swapon");
    let parameters = || uzswap.call(&["get", "busy"]).expect("it ends").stdout;
    let (running, device) = (parameters(), instance.device().to_str().expect("ASCII").to_owned());
    all_refused(
        &uzswap,
        &[
            (FAILED, &["swapon", "--size", "16M", "--name", "busy"]),
            (FAILED, &["swapon", "--size", "16M", "--name", "other", "--backing", &backing]),
            (FAILED, &["swapon", "--size", "16M", "--name", "other", "--backing", &device]),
            (FAILED, &["get", "busy", "frobnicate"]),
            (FAILED, &["set", "busy", "frobnicate", "1"]),
            (FAILED, &["set", "busy", "compressor", "rot13"]),
            (FAILED, &["set", "busy", "zpool", "z4fold"]),
            (FAILED, &["set", "busy", "max_pool_percent", "101"]),
            (FAILED, &["set", "busy", "max_pool_percent", "-1"]),
            (FAILED, &["set", "busy", "max_pool_percent", "99999999999999999999"]),
            (FAILED, &["set", "busy", "accept_threshold_percent", "twenty"]),
            (FAILED, &["set", "busy", "enabled", "perhaps"]),
            (USAGE, &["set", "busy", "compressor", ""]),
            (FAILED, &["set", "busy", "compressor", "lz4\nzstd"]),
            (FAILED, &["set", "busy", "max_pool_percent", "5\n\nswapoff"]),
            (FAILED, &["set", "busy", "compressor", &"x".repeat(10_000)]),
        ],
    );
    assert_eq!(parameters(), running);
    drop(instance);
    before.assert_restored(uzswap.run_dir());
}

#[test]
fn storage_that_somebody_uses_or_nobody_may_write() {
    if !need::swap("storage_that_somebody_uses_or_nobody_may_write") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let before = Machine::now(uzswap.run_dir());
    let dir = Directory::plain();
    let (file, other) = (dir.file("disk", 32 << 20), dir.file("other", 32 << 20));
    // Mounted, then swapped to, then read-only.
    let disk = LoopDevice::on(&file);
    let device = disk.path().to_str().expect("ASCII");
    let refused = || all_refused(&uzswap, &[(FAILED, &["swapon", "--size", "16M", "--backing", device])]);
    let content = || fs::read(&file).expect("the file");
    done(&["mkfs.ext4", "-q", device]);
    {
        let _mounted = disk.mount();
        refused();
    }
    done(&["mkswap", device]);
    let area = content();
    {
        let _on = disk.swapon();
        refused();
    }
    assert!(content() == area, "nothing was written to it");
    disk.make_read_only();
    refused();
    assert!(content() == area);
    drop(disk);
    // One file, two names, two instances.
    let link = dir.file("link", 0);
    fs::remove_file(&link).and_then(|()| fs::hard_link(&other, &link)).expect("a second name");
    let backing = other.to_str().expect("ASCII");
    let instance = Instance::start(&uzswap, "one", &["--size", "16M", "--backing", backing]).expect("swapon");
    all_refused(
        &uzswap,
        &[(
            FAILED,
            &["swapon", "--size", "16M", "--name", "two", "--backing", link.to_str().expect("ASCII")],
        )],
    );
    drop(instance);
    before.assert_restored(uzswap.run_dir());
}

#[test]
fn a_run_directory_that_is_none() {
    if !need::swap("a_run_directory_that_is_none") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let before = Machine::now(uzswap.run_dir());
    let dir = Directory::plain();
    let file = dir.file("file", 0);
    // The address of a socket has no room for this one: found out when the device is already on.
    let long = file.with_file_name("x".repeat(120));
    for run in [file.join("under"), file, long] {
        for args in [&["swapon", "--size", "16M"][..], &["swapon", "--size", "16M", "--foreground"]] {
            let mut command = uzswap.command(args);
            let output = ended(command.env("UZSWAP_RUN", &run), COMMAND).expect("it ends");
            assert_eq!(output.status.code(), Some(FAILED), "{output:?}");
            let said = String::from_utf8_lossy(&output.stderr);
            let errors = said.lines().filter(|line| !line.starts_with("uzswap: warning: "));
            assert_eq!(errors.filter(|line| line.starts_with("uzswap: ")).count(), 1, "{said}");
            before.assert_restored(uzswap.run_dir());
            assert!(!run.join("swap0").exists(), "{}", run.display());
        }
    }
}

#[test]
fn without_root() {
    if !need::swap("without_root") {
        return;
    }
    const NOBODY: u32 = 65534;
    // A copy that everybody can reach, wherever the tree was built.
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("a directory for all");
    let program = dir.path().join("uzswap");
    fs::copy(programs::uzswap(), &program).expect("a copy");
    let uzswap = Uzswap::new(&program).expect("a run directory");
    let before = Machine::now(uzswap.run_dir());
    for args in [
        &["swapon", "--size", "16M"][..],
        &["swapon", "--foreground"],
        &["swapoff", "swap0"],
        &["swapoff", "--all"],
    ] {
        let mut command = uzswap.command(args);
        let output = ended(command.uid(NOBODY).gid(NOBODY), COMMAND).expect("it ends");
        assert_refused(args, FAILED, &output);
        assert!(String::from_utf8_lossy(&output.stderr).contains("root"), "{output:?}");
    }
    before.assert_restored(uzswap.run_dir());
}

/// Runs `uzswap swapon` where a script has changed the mounts, which nobody else sees.
fn swapon_after(uzswap: &Uzswap, script: &str, args: &[&str]) -> Output {
    let mut inner = vec!["swapon", "--size", "16M"];
    inner.extend(args);
    let command = uzswap.command(&inner);
    let mut outer = Command::new("unshare");
    outer
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg(format!("{script} && exec \"$@\""))
        .arg("sh");
    outer.arg(command.get_program()).args(command.get_args()).env("UZSWAP_RUN", uzswap.run_dir());
    ended(&mut outer, COMMAND).expect("it ends")
}

#[test]
fn without_fuse_loop_or_a_writable_backing_file() {
    if !need::swap("without_fuse_loop_or_a_writable_backing_file") {
        return;
    }
    let uzswap = Uzswap::of_this_tree();
    let before = Machine::now(uzswap.run_dir());
    let dir = tempfile::tempdir().expect("a directory");
    let backing = dir.path().join("backing").to_str().expect("a temporary path is ASCII").to_owned();
    File::create(&backing).and_then(|file| file.set_len(16 << 20)).expect("a file");
    let dir = dir.path().display();
    let read_only = format!("mount --bind {dir} {dir} && mount -o remount,bind,ro {dir}");
    let none = |device: &str| format!("mount --bind /dev/null {device}");
    for (script, args) in [
        (none("/dev/fuse"), &[][..]),
        (none("/dev/loop-control"), &[]),
        (read_only, &["--backing", &backing]),
    ] {
        assert_refused(args, FAILED, &swapon_after(&uzswap, &script, args));
        before.assert_restored(uzswap.run_dir());
    }
}
