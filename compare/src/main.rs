//! Measurements that print what they compare. `compare engine FILE.pages...` and, as root,
//! `compare device FILE.pages...`, `compare run FILE.pages` and `compare programs`; `compare policy`
//! simulates.
//!
//! Rivals run in turn within one call; figures are medians over rounds, with the ratio of each round where two things are
//! set against each other. Same-filled pages are left out of everything but their own line.

mod device;
mod engine;
mod policy;
mod programs;
mod run;
mod touch;
mod trace;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.split_first() {
        Some((what, files)) if what == "engine" && !files.is_empty() => engine::run(files),
        Some((what, files)) if what == "device" && !files.is_empty() => device::run(files),
        Some((what, [file])) if what == "run" => run::run(file),
        Some((what, [])) if what == "programs" => programs::run(),
        Some((what, [])) if what == "policy" => policy::run(),
        Some((what, [order, mib, touches, file])) if what == "touch" => {
            let number = |text: &String| text.parse().expect("a number");
            touch::run(order, number(mib), number(touches), file);
        }
        _ => {
            eprintln!(
                "compare: usage: compare engine|device FILE.pages... | run FILE.pages | programs | policy"
            );
            std::process::exit(2);
        }
    }
}

/// The middle of some figures, and their extremes.
pub fn median(mut figures: Vec<f64>) -> (f64, f64, f64) {
    figures.sort_by(f64::total_cmp);
    (figures[figures.len() / 2], figures[0], figures[figures.len() - 1])
}
