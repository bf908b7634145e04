//! Measurements that print what they compare. `compare engine FILE.pages...` and, as root,
//! `compare device FILE.pages...`, `compare run FILE.pages`, `compare programs` and `compare founding`; `compare policy`
//! simulates.
//!
//! Rivals run in turn within one call; figures are medians over rounds, with the ratio of each round where two things are
//! set against each other. Same-filled pages are left out of everything but their own line.

mod device;
mod duel;
mod engine;
mod founding;
mod measure;
mod ours;
mod policy;
mod proc;
mod programs;
mod redis;
mod rival;
mod run;
mod table;
mod throttled;
mod touch;
mod trace;

use rival::Rival;
use table::Table;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.split_first() {
        Some((what, files)) if what == "engine" && !files.is_empty() => engine::run(files),
        Some((what, files)) if what == "device" && !files.is_empty() => device::run(files),
        Some((what, [file, against @ ..])) if what == "run" => run::run(file, &rivals(against)).print(),
        Some((what, against)) if what == "programs" => {
            programs::run(&rivals(against)).iter().for_each(Table::print);
        }
        Some((what, [])) if what == "founding" => founding::run().print(),
        Some((what, [])) if what == "policy" => policy::run(),
        Some((what, [order, mib, touches, file])) if what == "touch" => {
            let number = |text: &String| text.parse().expect("a number");
            touch::run(order, number(mib), number(touches), file);
        }
        _ => usage(
            "compare engine|device FILE.pages... | run FILE.pages [--against RIVAL,...] | programs [--against RIVAL,...] | founding | policy",
        ),
    }
}

fn usage(why: &str) -> ! {
    eprintln!("compare: usage: {why}");
    std::process::exit(2);
}

/// The rivals that are named, or all.
fn rivals(args: &[String]) -> Vec<Rival> {
    let names = match args {
        [] => rival::ALL,
        [option, names] if option == "--against" => names,
        _ => usage("--against RIVAL,..."),
    };
    let rivals: Result<_, String> = names.split(',').map(str::parse).collect();
    rivals.unwrap_or_else(|why| usage(&why))
}

/// The middle of some figures, and their extremes.
pub fn median(mut figures: Vec<f64>) -> (f64, f64, f64) {
    figures.sort_by(f64::total_cmp);
    (figures[figures.len() / 2], figures[0], figures[figures.len() - 1])
}
