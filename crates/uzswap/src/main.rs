//! The command. Every subcommand is a file; what they share is `failure` and `size`.

mod cli;
mod failure;
mod inherited;
mod options;
mod pressure;
mod program;
mod run;
mod serve;
mod size;
mod status;
mod steer;
mod store;
mod swapon;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use failure::Failure;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if !error.use_stderr() => {
            // --help and --version.
            print!("{error}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let text = error.to_string();
            let why = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            return Failure::usage("command line", format!("{why}; see uzswap --help")).report();
        }
    };
    let done = match cli.command {
        // The program's own exit status is ours.
        Command::Run(args) => return run::run(&args).unwrap_or_else(|failure| failure.report()),
        Command::Swapon(args) => swapon::run(&args),
        Command::Swapoff { which, all } => steer::swapoff(which.as_deref(), all),
        Command::Status { name, json } => status::run(name.as_deref(), json),
        Command::Get { name, param } => status::get(&name, param.as_deref()),
        Command::Set { name, param, value } => steer::set(&name, &param, &value),
    };
    done.map_or_else(|failure| failure.report(), |()| ExitCode::SUCCESS)
}
