//! Running programs, with their output where the caller of xtask sees it.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

/// Why a task failed.
pub type Why = String;

/// The root of the source tree: Cargo's word for this run comes before the one at the build, since trees may share a target directory.
pub fn root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let own = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        PathBuf::from(own).parent().map_or_else(|| ".".into(), Path::to_owned)
    });
    &ROOT
}

/// Where Cargo puts what it builds.
pub fn target() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    root().join(target)
}

/// The Cargo that runs xtask, in the root of the source tree.
pub fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// Runs it to its end; a failure names it.
pub fn run(command: &mut Command) -> Result<(), Why> {
    let line = shown(command);
    println!("+ {line}");
    let status = command.status().map_err(|error| format!("{line}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{line}: {status}")) }
}

/// Becomes it, so that signals reach it and it can clean up before the terminal is back. Returns only on failure.
pub fn become_it(command: &mut Command) -> Result<(), Why> {
    let error = command.exec();
    Err(format!("{}: {error}", shown(command)))
}

/// Whether `program --version`, or whatever `args` say, can be run.
pub fn there_is(program: &str, args: &[&str]) -> bool {
    let tried = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

fn shown(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy();
    let args = command.get_args().map(|arg| arg.to_string_lossy());
    std::iter::once(name).chain(args).collect::<Vec<_>>().join(" ")
}
