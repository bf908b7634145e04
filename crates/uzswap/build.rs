//! Builds the shared object that `uzswap run` loads into programs, and hands its path to the source, which embeds it: one
//! installed file is all there is, and `cargo run` works as well.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let variable = |name: &str| std::env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}"));
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(variable("OUT_DIR"));
    let agent = here.join("../agent");
    for source in ["Cargo.toml", "src"] {
        println!("cargo::rerun-if-changed={}", agent.join(source).display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    let object = out.join("libagent.so");
    if variable("CARGO_CFG_TARGET_OS") == "linux" && variable("CARGO_CFG_TARGET_ARCH") == "x86_64" {
        build(&agent, &out.join("agent"), &object);
    } else {
        // `run` says so there.
        std::fs::write(&object, []).expect("OUT_DIR can be written");
    }
    println!("cargo::rustc-env=UZSWAP_AGENT_OBJECT={}", object.display());
}

fn build(agent: &Path, target: &Path, object: &Path) {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["rustc", "--quiet", "--offline", "--lib", "--crate-type", "cdylib", "--features", "preload"])
        .args(["--profile", "agent", "--manifest-path"])
        .arg(agent.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target);
    // Flags that are meant for the program (coverage, schedulers of tests) have no place in the object.
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET"] {
        command.env_remove(name);
    }
    let status = command.status().expect("cargo runs");
    assert!(status.success(), "the agent does not build");
    std::fs::copy(target.join("agent/libagent.so"), object).expect("the agent was built");
}
