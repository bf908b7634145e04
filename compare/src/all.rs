//! Every measurement in turn, and BENCHMARKS.md of what came out.

use std::path::Path;

use crate::corpora::Corpora;
use crate::report::Report;
use crate::rival::Rival;
use crate::{Scale, codecs, device, engine, founding, ours, policy, programs, run};

type Measurement<'a> = (&'static str, &'a dyn Fn(&mut Report));

/// Runs all of them, and writes to the directory `out`. What needs root says so where it is not root that runs it.
///
/// # Panics
/// Without the command uzswap, at once: hours later half of the report would say that it is missing.
pub fn run(out: &Path, corpora: &Corpora, rivals: &[Rival], scale: Scale) {
    ours::ready().unwrap_or_else(|why| panic!("{why}"));
    let report = &mut Report::kept_in(out);
    if scale == Scale::Quick {
        report.say("A quick run, to see that it works. The figures mean nothing.");
    }
    let all: [Measurement; 7] = [
        ("codecs", &|report| codecs::run(report, corpora, scale)),
        ("engine", &|report| engine::run(report, corpora, scale)),
        ("policy", &|report| policy::run(report, scale)),
        ("device", &|report| device::run(report, corpora, scale)),
        ("run", &|report| run::run(report, corpora, rivals, scale)),
        ("programs", &|report| programs::run(report, rivals, &[], scale)),
        ("founding", &|report| founding::run(report, scale)),
    ];
    for (number, (name, measure)) in all.iter().enumerate() {
        eprintln!("compare: {} of {}: {name}", number + 1, all.len());
        measure(report);
    }
    report.keep();
    eprintln!("compare: written to {}", out.join("BENCHMARKS.md").display());
}
