//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Linux zswap as a userspace system: a compressed cache for pages that are being swapped out.
#[derive(Parser)]
#[command(name = "uzswap", version, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Run a program in less memory than it needs: what does not fit is kept compressed
    Run(Run),
    /// Make a compressed swap device and turn it on
    Swapon(Swapon),
    /// Bring all pages of a device back into memory, then take it away
    Swapoff {
        /// The instance's name, or its block device
        #[arg(value_name = "NAME|DEVICE", required_unless_present = "all", conflicts_with = "all")]
        which: Option<String>,
        /// Every instance, and what dead servers left behind
        #[arg(long)]
        all: bool,
    },
    /// Show what instances hold and what they save
    ///
    /// A page counts as held until the kernel says that its swap slot is free. It says so by discard, for 512 neighbouring
    /// slots (2 MiB) once all of them are free, so the numbers are above what /proc/swaps shows as used.
    Status {
        /// Only this instance
        name: Option<String>,
        /// Print JSON: an object for NAME, a list without it
        #[arg(long)]
        json: bool,
    },
    /// Show the parameters of an instance
    Get {
        /// The instance
        name: String,
        /// Only this parameter, its value alone
        param: Option<String>,
    },
    /// Change a parameter of an instance
    Set {
        /// The instance
        name: String,
        /// The parameter, e.g. compressor
        param: String,
        /// Its new value
        #[arg(allow_hyphen_values = true)]
        value: String,
    },
}

/// Arguments of `swapon`.
#[derive(Args)]
pub struct Swapon {
    /// Slots of the device, as bytes of uncompressed pages; memory is taken only as pages come
    /// [default: the backing's size, or half of RAM]
    #[arg(long)]
    pub size: Option<String>,
    /// An existing file or block device for the pages that leave the cache; its content is lost.
    /// Pages are written to it as they are, not encrypted
    #[arg(long, value_name = "FILE|DEV")]
    pub backing: Option<PathBuf>,
    /// How the kernel reaches us: auto, ublk, nbd or fuse (built so far: fuse)
    #[arg(long, value_name = "WAY", default_value = "auto")]
    pub via: String,
    /// Priority of the swap area, 0 to 32767; higher is used first
    #[arg(short, long = "priority", value_name = "PRIO", default_value = "100", allow_hyphen_values = true)]
    pub priority: String,
    /// The instance's name
    #[arg(long, default_value = "swap0")]
    pub name: String,
    /// A parameter: profile=NAME (v1, 3.11, zpool, 6.18, default) or one of the cache's, e.g.
    /// compressor=zstd; the kernel's spelling zswap.compressor=zstd works too
    #[arg(short, value_name = "NAME=VALUE")]
    pub options: Vec<String>,
    /// Stay in the foreground
    #[arg(long)]
    pub foreground: bool,
}

/// Arguments of `run`.
#[derive(Args)]
pub struct Run {
    /// What the program, its children, the pool of compressed pages and uzswap itself may take together
    /// [default: the memory limit of the control group, else half of RAM]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// Where the oldest compressed pages go: a new file, sparse, readable by its owner only, that loses its name as soon as it
    /// is open, so that its space is free again however uzswap ends; or a block device, which is overwritten. Pages are
    /// written as they are, not encrypted [default size: 4 times --memory, or all of the device]
    #[arg(long, value_name = "FILE[,size=SIZE]")]
    pub swap: Option<String>,
    /// A parameter, as for swapon: profile=NAME or one of the cache's, e.g. compressor=zstd
    #[arg(short, value_name = "NAME=VALUE")]
    pub options: Vec<String>,
    /// Write counters as a JSON object at the end, to a file or (-) standard output
    #[arg(long, value_name = "FILE|-")]
    pub stats: Option<PathBuf>,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub command: Vec<std::ffi::OsString>,
}
