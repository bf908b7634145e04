//! The tasks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use undo::Undo;

use crate::run::{Why, become_it, cargo, root, run, target, there_is};

/// What the tests use besides Rust: the program that shows it is there, and the Debian package.
const PACKAGES: [(&str, &str); 21] = [
    ("fio", "fio"),
    ("losetup", "util-linux"),
    ("/usr/lib/x86_64-linux-gnu/liblzo2.so.2", "liblzo2-2"),
    ("python3", "python3"),
    ("sqlite3", "sqlite3"),
    ("perl", "perl"),
    ("node", "nodejs"),
    ("java", "default-jdk-headless"),
    ("gcc", "gcc"),
    ("g++", "g++"),
    ("strace", "strace"),
    ("ruby", "ruby"),
    ("/usr/lib/python3/dist-packages/numpy", "python3-numpy"),
    ("stress-ng", "stress-ng"),
    ("redis-server", "redis-server"),
    ("/usr/lib/postgresql", "postgresql"),
    ("/usr/lib/x86_64-linux-gnu/libjemalloc.so.2", "libjemalloc2"),
    ("/usr/lib/x86_64-linux-gnu/libmimalloc.so.2", "libmimalloc2.0"),
    ("nbdkit", "nbdkit"),
    ("nbdfuse", "libnbd-bin"),
    ("valgrind", "valgrind"),
];
/// Seconds that each fuzz target runs.
const FUZZ_SECONDS: u32 = 6;

/// Builds the command and the demonstration, and becomes the latter.
pub fn demo() -> Result<(), Why> {
    run(&mut cargo(&["build", "--release", "--package", "uzswap", "--package", "tests", "--bins"]))?;
    become_it(&mut Command::new(target().join("release/uzswap-demo")))
}

/// Measures with the crate `compare`, which knows what there is to measure and runs the command that lies beside it.
pub fn bench(args: &[&str]) -> Result<(), Why> {
    run(&mut cargo(&["build", "--release", "--quiet", "--package", "uzswap"]))?;
    become_it(cargo(&["run", "--release", "--quiet", "--package", "compare", "--"]).args(args))
}

/// Everything that must hold before a change goes in.
pub fn test() -> Result<(), Why> {
    install()?;
    let _zswap = kernel_zswap_off();
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    // In what is shipped a warning is an error; in test code it is only shown.
    run(&mut cargo(&["clippy", "--workspace", "--all-targets"]))?;
    run(&mut cargo(&["clippy", "--workspace", "--", "-D", "warnings"]))?;
    // The end-to-end tests run this program.
    run(&mut cargo(&["build", "--package", "uzswap"]))?;
    if there_is("cargo-nextest", &["nextest", "--version"]) {
        run(&mut cargo(&["nextest", "run", "--workspace", "--no-fail-fast"]))?;
        run(&mut cargo(&["test", "--workspace", "--doc"]))?;
    } else {
        println!(
            "cargo-nextest is not installed: cargo test runs the same tests, in one process for each file"
        );
        // One at a time: tests of the kernel's swap would disturb one another.
        run(&mut cargo(&["test", "--workspace", "--exclude", "tests"]))?;
        run(&mut cargo(&["test", "--package", "tests", "--", "--test-threads=1"]))?;
    }
    // Instructions are counted in what is shipped: optimised.
    run(&mut cargo(&["run", "--release", "--quiet", "--package", "compare", "--", "counts"]))?;
    shuttle()?;
    fuzz()?;
    run(&mut cargo(&["doc", "--workspace", "--no-deps"]))?;
    println!("xtask test: all passed");
    Ok(())
}

/// Turns the kernel's own zswap off for our time, where it is on and we may: pages that it takes never come to ours.
fn kernel_zswap_off() -> Option<Undo> {
    let off = Undo::kernel_zswap_off().ok().flatten();
    if off.is_some() {
        println!("the kernel's own zswap is turned off until this has ended");
    }
    off
}

/// Installs what is missing, as root on a Debian. Elsewhere the tests that need it say so.
fn install() -> Result<(), Why> {
    let has = |program: &str| {
        if program.starts_with('/') { Path::new(program).exists() } else { there_is(program, &["--version"]) }
    };
    let missing: Vec<_> =
        PACKAGES.iter().filter(|(program, _)| !has(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("the tests use these packages, which are not installed: {}", missing.join(" "));
    if !there_is("sh", &["-c", "test $(id -u) = 0"]) || !there_is("apt-get", &["--version"]) {
        println!("install them as root; until then the tests that need them are skipped");
        return Ok(());
    }
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .args(["-q", "-y", "-o", "Acquire::Retries=2"])
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive");
        run(&mut command)
    };
    let mut install = vec!["install", "--no-install-recommends"];
    install.extend(&missing);
    match apt(&["update"]).and_then(|()| apt(&install)) {
        Err(why) if std::env::var_os("CI").is_some() => Err(why),
        Err(why) => {
            println!("SKIP packages: {why}");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// The concurrent cores under a scheduler that tries interleavings: the test files that begin with `#![cfg(shuttle)]`.
/// A build of its own: every lock is another type.
fn shuttle() -> Result<(), Why> {
    for package in ["zpool", "zswap"] {
        let files = scripts(&root().join("crates").join(package).join("tests"));
        let text = |path: &PathBuf| fs::read_to_string(path).unwrap_or_default();
        for (name, _) in files.iter().filter(|(_, path)| text(path).contains("#![cfg(shuttle)]")) {
            let mut command = cargo(&["test", "--release", "--package", package, "--test", name]);
            run(command.env("RUSTFLAGS", "--cfg shuttle").env("CARGO_TARGET_DIR", target().join("shuttle")))?;
        }
    }
    Ok(())
}

/// The Rust files of a directory by name; none where there is no such directory.
fn scripts(dir: &Path) -> Vec<(String, PathBuf)> {
    let paths = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let rust = paths.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let mut named: Vec<_> =
        rust.filter_map(|path| Some((path.file_stem()?.to_str()?.to_owned(), path))).collect();
    named.sort();
    named
}

/// Each fuzz target for a moment: enough to show that it works and that nothing is broken at the surface. `fuzz/` is a
/// workspace of its own whose configuration has the stable compiler count edges; no other tool is needed.
fn fuzz() -> Result<(), Why> {
    let dir = root().join("fuzz");
    let target = target().join("fuzz");
    run(cargo(&["build", "--release"]).current_dir(&dir).env("CARGO_TARGET_DIR", &target))?;
    for (name, _) in scripts(&dir.join("fuzz_targets")) {
        let inputs = target.join("corpus").join(&name);
        fs::create_dir_all(&inputs).map_err(|error| format!("{}: {error}", inputs.display()))?;
        let mut command = cargo(&["run", "--release", "--quiet", "--bin", &name, "--"]);
        command.arg(&inputs).args([
            "-rss_limit_mb=1024",
            "-timeout=20",
            "-print_final_stats=1",
            "-verbosity=0",
        ]);
        command.arg(format!("-max_total_time={FUZZ_SECONDS}"));
        run(command.current_dir(&dir).env("CARGO_TARGET_DIR", &target).env("FUZZ_SEEDS", &inputs))?;
    }
    Ok(())
}
