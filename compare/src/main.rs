//! Measurements against rivals. `compare all` runs every one of them and writes BENCHMARKS.md; each can be run alone and then
//! prints the same tables.
//!
//! Rivals run in turn within one call; figures are medians over rounds with their extremes, and the ratio of two things is
//! taken in each round. Same-filled pages are counted on their own line and left out of everything else. `--quick` shows that
//! a measurement works; its figures mean nothing.

mod all;
mod codecs;
mod corpora;
mod counts;
mod device;
mod duel;
mod engine;
mod figures;
mod founding;
mod measure;
mod ours;
mod policy;
mod proc;
mod programs;
mod report;
mod rival;
mod run;
mod touch;
mod trace;

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand};

use crate::corpora::Corpora;
use crate::report::Report;
use crate::rival::Rival;

#[derive(Parser)]
#[command(about = "uzswap against rivals", arg_required_else_help = true)]
struct Arguments {
    /// Few pages and one round: to see that it works, not to measure
    #[arg(long, global = true)]
    quick: bool,
    #[command(subcommand)]
    what: What,
}

/// Where FILE is, it is a corpus of raw 4096-byte pages. Without any, corpora are made of the memory of ordinary programs.
#[derive(Subcommand)]
enum What {
    /// All of the following but `counts`, and BENCHMARKS.md and docs/plots with what came out
    All {
        /// The directory to write to
        #[arg(long, value_name = "DIR", default_value = ".")]
        out: PathBuf,
        #[command(flatten)]
        against: Against,
        /// Corpora
        files: Vec<PathBuf>,
    },
    /// Page compressors: time, ratio, memory
    Codecs {
        /// Corpora
        files: Vec<PathBuf>,
    },
    /// The engine's own costs, and a map of vectors in its place
    Engine {
        /// Corpora
        files: Vec<PathBuf>,
    },
    /// Eviction policies, by simulation
    Policy,
    /// The swap device against nbdkit and nbdfuse (root)
    Device {
        /// Corpora
        files: Vec<PathBuf>,
    },
    /// `uzswap run` against the kernel's ways at equal memory: zswap, zram, a swap file (root)
    Run {
        #[command(flatten)]
        against: Against,
        /// Corpora
        files: Vec<PathBuf>,
    },
    /// The same with real programs (root)
    Programs {
        #[command(flatten)]
        against: Against,
        /// Programs, instead of all
        #[arg(value_parser = PossibleValuesParser::new(programs::names()))]
        only: Vec<String>,
    },
    /// A parallel build with a slow swap disk, and with `uzswap run` before it (root)
    Founding,
    /// Instructions an operation takes, against the recorded counts (valgrind)
    Counts {
        /// Record what is counted now
        #[arg(long)]
        record: bool,
    },
    /// One operation, for valgrind to count
    #[command(hide = true)]
    Count { operation: String },
    /// What a store of pages holds of its process's memory
    #[command(hide = true)]
    Held { store: String, files: Vec<PathBuf> },
    /// The program whose memory is limited
    #[command(hide = true)]
    Touch { order: String, mib: usize, touches: usize, file: String },
}

#[derive(Args)]
struct Against {
    /// Rivals: zswap-COMPRESSOR, zram-COMPRESSOR, disk
    #[arg(long = "against", value_name = "LIST", value_delimiter = ',', default_value = rival::ALL)]
    rivals: Vec<Rival>,
}

/// How much is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// As much as figures need.
    Full,
    /// As little as shows that it works.
    Quick,
}

impl Scale {
    /// `full`, or in a quick run `quick`.
    pub fn of<T>(self, full: T, quick: T) -> T {
        if self == Scale::Full { full } else { quick }
    }
}

fn main() {
    let Arguments { quick, what } = Arguments::parse();
    let scale = if quick { Scale::Quick } else { Scale::Full };
    let corpora = |files: &[PathBuf]| Corpora::given_or_made(files, scale);
    let report = &mut Report::printed();
    match what {
        What::All { out, against, files } => all::run(&out, &corpora(&files), &against.rivals, scale),
        What::Codecs { files } => codecs::run(report, &corpora(&files), scale),
        What::Engine { files } => engine::run(report, &corpora(&files), scale),
        What::Policy => policy::run(report, scale),
        What::Device { files } => device::run(report, &corpora(&files), scale),
        What::Run { against, files } => run::run(report, &corpora(&files), &against.rivals, scale),
        What::Programs { against, only } => programs::run(report, &against.rivals, &only, scale),
        What::Founding => founding::run(report, scale),
        What::Counts { record } => counts::run(record),
        What::Count { operation } => counts::count(&operation),
        What::Held { store, files } => engine::held(&store, &files, scale),
        What::Touch { order, mib, touches, file } => touch::run(&order, mib, touches, &file),
    }
}
