//! The front door for developer tasks.
//!
//! `cargo xtask demo` shows what uzswap does on this machine; `cargo xtask test` is all that CI runs.

mod run;
mod tasks;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask demo | test
  demo  let the kernel swap a program to uzswap, check every page, print what was saved
        (as root; without, the same engine inside one process)
  test  install what the tests need and run all of them, as CI does";

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["demo"] => tasks::demo(),
        ["test"] => tasks::test(),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
    }
}
