//! The touching program under `uzswap run` and under the kernel's own ways, in turn, at equal total memory.

use std::fs;

use crate::Scale;
use crate::corpora::Corpora;
use crate::duel::{self, Contest, Figure};
use crate::measure::Load;
use crate::report::Report;
use crate::rival::Rival;
use crate::trace::ORDERS;

/// Working set and the rivals' cap, in MiB.
const WORKING_SET: u64 = 256;
const CAP: u64 = 96;
/// Those of a quick run.
const QUICK: (u64, u64) = (24, 12);

/// What the program prints first.
const FIGURE: Figure = Figure {
    unit: "ns a touch",
    digits: 0,
    of: |ran| ran.text.split(' ').next().and_then(|number| number.parse().ok()).expect("it prints that"),
};

/// The most that is wanted of the rival's time.
fn goal(order: &str) -> &'static str {
    match order {
        "sequential" => "0.35",
        "uniform" => "0.65",
        "zipfian" => "0.80",
        _ => "-",
    }
}

/// Compares with each of `rivals` on the pages of all corpora.
pub fn run(report: &mut Report, corpora: &Corpora, rivals: &[Rival], scale: Scale) {
    report.section("uzswap run, orders of access");
    let rivals = duel::present(report, "run", rivals);
    if rivals.is_empty() {
        return;
    }
    let file = corpora.mixed();
    let file = file.to_str().expect("a name of files is text");
    // In the page cache, charged to us and not to the program.
    let _ = fs::read(file).expect("the file of pages can be read");
    let this = std::env::current_exe().expect("we run");
    let this = this.to_str().expect("the path is text");
    let (working_set, cap) = scale.of((WORKING_SET, CAP), QUICK);
    report.say(format!("A program with a working set of {working_set} MiB."));
    let contest = |order: &str| {
        // Steady ones need fewer touches, and take the most time for each.
        let steady = ["sequential", "uniform"].contains(&order);
        let touches = scale.of(if steady { 200_000 } else { 400_000 }, 8000);
        let words = [this, "touch", order, &working_set.to_string(), &touches.to_string(), file];
        let load = Load { words: words.map(str::to_owned).into(), client: None };
        Contest { name: order.to_owned(), load, cap: cap << 20, prints: None }
    };
    let contests: Vec<_> = ORDERS.into_iter().chain(["first-touch"]).map(contest).collect();
    duel::compare(report, "order", &rivals, &contests, &FIGURE, scale).show(report, "run", goal);
}
