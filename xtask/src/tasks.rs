//! The tasks.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::run::{Why, become_it, cargo, root, run, target, there_is};

/// What the tests use besides Rust: the program that shows it is there, and the Debian package.
const PACKAGES: [(&str, &str); 3] =
    [("fio", "fio"), ("losetup", "util-linux"), ("/usr/lib/x86_64-linux-gnu/liblzo2.so.2", "liblzo2-2")];
/// Crates with models for the shuttle scheduler.
const SHUTTLE: [&str; 2] = ["zpool", "zswap"];
/// Seconds that each fuzz target runs.
const FUZZ_SECONDS: u32 = 20;

/// Builds the command and the demonstration, and becomes the latter.
pub fn demo() -> Result<(), Why> {
    run(&mut cargo(&["build", "--release", "--package", "uzswap", "--package", "tests", "--bins"]))?;
    become_it(&mut Command::new(target().join("release/uzswap-demo")))
}

/// Everything that must hold before a change goes in.
pub fn test() -> Result<(), Why> {
    install()?;
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    run(cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])
        .env("CLIPPY_CONF_DIR", root()))?;
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
    shuttle()?;
    fuzz()?;
    run(cargo(&["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    println!("xtask test: all passed");
    Ok(())
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

/// The concurrent cores under a scheduler that tries interleavings. A build of its own: every lock is another type.
fn shuttle() -> Result<(), Why> {
    let mut command = cargo(&["test", "--release", "--lib", "--tests"]);
    for package in SHUTTLE {
        command.args(["--package", package]);
    }
    // Tests under this scheduler are those with its name; the rest run outside it and would not work here.
    command.args(["--", "shuttle"]);
    run(command.env("RUSTFLAGS", "--cfg shuttle").env("CARGO_TARGET_DIR", target().join("shuttle")))
}

/// Each fuzz target for a moment: enough to show that it works and that nothing is broken at the surface.
fn fuzz() -> Result<(), Why> {
    let Ok(targets) = fs::read_dir(root().join("fuzz/fuzz_targets")) else { return Ok(()) };
    let names = targets
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "rs"));
    let mut names: Vec<_> = names.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    if !there_is("cargo-fuzz", &["fuzz", "--version"]) && !there_is("cargo-fuzz", &["--version"]) {
        let reason = "cargo-fuzz is not installed (cargo install cargo-fuzz)";
        println!("SKIP fuzz {}: {reason}", names.join(" "));
        return if std::env::var_os("CI").is_some() { Err(format!("fuzz: {reason}")) } else { Ok(()) };
    }
    for name in names {
        let seconds = format!("-max_total_time={FUZZ_SECONDS}");
        run(&mut cargo(&["fuzz", "run", &name, "--", &seconds]))?;
    }
    Ok(())
}
