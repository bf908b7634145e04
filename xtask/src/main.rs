//! The front door for developer tasks.
//!
//! `cargo xtask demo` shows what uzswap does on this machine; `cargo xtask test` is all that CI runs; `cargo xtask bench`
//! measures.

mod run;
mod tasks;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask demo | test | bench WHAT [FILE...]
  demo  let the kernel swap a program to uzswap, check every page, print what was saved
        (as root; without, the same engine inside one process)
  test  install what the tests need and run all of them, as CI does
  bench measure `codecs`, `engine`, `policy` or, as root, `device`, `run`, `programs` or `founding`, on raw 4096-byte pages of
        FILEs or the memory of programs started for it; `all` measures everything and writes BENCHMARKS.md; `counts` counts
        instructions";

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["demo"] => tasks::demo(),
        ["test"] => tasks::test(),
        ["bench", what @ ..] if !what.is_empty() => tasks::bench(what),
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
