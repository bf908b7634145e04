//! Where the programs of this source tree are.

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// The directory of the profile that this program was built in: TARGET/debug or TARGET/release.
fn built() -> PathBuf {
    let own = env::current_exe().expect("a program has a path");
    let dir = own.parent().expect("a program is in a directory");
    // A test is one level further down, in deps.
    if dir.ends_with("deps") { dir.parent().unwrap_or(dir).to_owned() } else { dir.to_owned() }
}

/// A program that Cargo has built beside this one.
#[must_use]
pub fn sibling(name: &str) -> PathBuf {
    built().join(name)
}

/// The `uzswap` of this source tree, built if it is not up to date, in the profile of the test that asks.
///
/// # Panics
/// When it does not build.
#[must_use]
pub fn uzswap() -> PathBuf {
    let built = built();
    let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet", "--package", "uzswap", "--target-dir"]);
    build.arg(built.parent().expect("a profile is in a target directory"));
    if built.ends_with("release") {
        build.arg("--release");
    }
    let done = build.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs");
    assert!(done.success(), "uzswap does not build");
    built.join("uzswap")
}
