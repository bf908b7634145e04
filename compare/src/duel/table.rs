//! How rounds are shown: a row for each contest and rival with what they cost, and the ratios of all of them side by side.

use super::{Contest, Figure, ROUNDS, Round, Rounds};
use crate::Scale;
use crate::figures::{geometric_mean, median};
use crate::measure::Ran;
use crate::report::Report;
use crate::rival::{GOALS, Rival, TRIES};

/// Columns beside those of the figure.
const COSTS: [&str; 7] = [
    "each round",
    "major faults",
    "processor s",
    "swapped MiB (requests; ours)",
    "peak MiB",
    "ours charged MiB",
    "of our cap",
];

/// By what each side's cap goes, and what is shown of it. A line of a list.
pub const MEASURES: &str = "caps: theirs limits what the kernel charges to their group, page tables and file cache included; ours \
     limits anonymous and shared memory, the mapped files of the process that has most, and the supervisor. Ours charged: the \
     peak of ours by their measure, everything that the kernel charges, and mapped files that somebody else read first; its \
     group has no limit, so that file cache stays there which theirs would have to give up";

/// The last row of the ratios.
pub const MEAN: &str = "geometric mean";

/// Says what is to come, and begins the table.
pub fn begin(report: &mut Report, named: &str, figure: &Figure, scale: Scale) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let (unit, rounds) = (figure.unit, scale.of(ROUNDS, 1));
    report.say(format!(
        "At equal total memory: the rival's cap, its pool and its mapped files are our cap. Load {}.\n\n\
         - {unit}, medians over the rounds; {rounds} in turn against {GOALS}, 1 against any other\n\
         - a / b: theirs / ours\n\
         - major faults: ours are those that waited for a page that was out\n\
         - swapped: what the kernel swapped, in and out, to zram's memory too; requests: of the swap device, for swap files of \
         the whole disk, whoever made them; ours: pages of its own swap file, which it has against a plain one, several of them in a request\n\
         - each round: where any run failed, the rounds that ended for both, and the failed of each side's tries. Theirs is \
         tried up to {TRIES} times a round, ours once\n\
         - no end: in no round it ended well for both; the kernel may kill for want of memory although there is swap\n\
         - {MEASURES}\n\
         - peak: everything, seen from outside, each by its cap's measure; of our cap: ours seen from outside, and as uzswap counts it",
        load.trim()
    ));
    let (theirs, own) = (format!("theirs {unit}"), format!("uzswap {unit}"));
    let figures = [named, "against", "cap MiB", &theirs, &own, "ratio"];
    report.table(&[&figures[..], &COSTS].concat());
}

/// The ratio of each round.
fn each(rounds: &[Round], figure: &Figure) -> Vec<f64> {
    rounds.iter().map(|round| (figure.of)(&round.own.ran) / (figure.of)(&round.theirs.ran)).collect()
}

/// The middle of the ratios of some rounds, if there are any.
pub fn ratio(rounds: &[Round], figure: &Figure) -> Option<f64> {
    (!rounds.is_empty()).then(|| median(each(rounds, figure)).0)
}

/// The row of a contest and a rival.
pub fn row(report: &mut Report, contest: &Contest<'_>, rival: &Rival, rounds: &Rounds, figure: &Figure) {
    let Rounds { ended: rounds, failed } = rounds;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let mut row = vec![contest.name.clone(), rival.to_string(), format!("{:.0}", mib(contest.cap))];
    let Some(ratio) = ratio(rounds, figure) else {
        row.push(format!("no end ({})", failed.as_deref().unwrap_or_default()));
        return report.cells(row);
    };
    let digits = figure.digits;
    let middle = |of: &dyn Fn(&Round) -> f64| median(rounds.iter().map(of).collect()).0;
    let both = |of: &dyn Fn(&Ran) -> f64| {
        (middle(&|round| of(&round.theirs.ran)), middle(&|round| of(&round.own.ran)))
    };
    let (theirs, own) = both(&figure.of);
    let (their_processor, processor) = both(&|ran| ran.processor);
    let (their_peak, peak) = both(&|ran| mib(ran.peak));
    let each = each(rounds, figure).into_iter().map(|ratio| format!("{ratio:.2}"));
    let each: Vec<_> = each.chain(failed.iter().map(|failed| format!("({failed})"))).collect();
    row.extend([
        format!("{theirs:.digits$}"),
        format!("{own:.digits$}"),
        format!("{ratio:.2}"),
        each.join(" "),
        format!(
            "{:.0} / {:.0}",
            middle(&|round| round.theirs.ran.major_faults as f64),
            middle(&|round| (round.own.ran.major_faults + round.own.faults) as f64)
        ),
        format!("{their_processor:.1} / {processor:.1}"),
        format!(
            "{:.0} ({:.0}; {:.0})",
            middle(&|round| mib(round.theirs.traffic.swapped << 12)),
            middle(&|round| round.theirs.traffic.requests as f64),
            middle(&|round| round.own.requests as f64)
        ),
        format!("{their_peak:.0} / {peak:.0}"),
        format!("{:.0}", middle(&|round| mib(round.own.charged))),
        format!(
            "{:.3} {:.3}",
            middle(&|round| round.own.ran.peak as f64 / round.cap as f64),
            middle(&|round| round.own.counted as f64 / round.cap as f64)
        ),
    ]);
    report.cells(row);
}

/// Ours / theirs: a row a contest, a column a rival. `None` where no round ended for both.
pub struct Ratios<'a> {
    named: &'static str,
    rivals: &'a [Rival],
    rows: Vec<(String, Vec<Option<f64>>)>,
}

impl<'a> Ratios<'a> {
    pub fn new(named: &'static str, rivals: &'a [Rival]) -> Ratios<'a> {
        Ratios { named, rivals, rows: Vec::new() }
    }

    pub fn push(&mut self, name: String, ratios: Vec<Option<f64>>) {
        self.rows.push((name, ratios));
    }

    /// Adds the geometric means over the rows.
    pub fn push_means(&mut self) {
        let mean = |column: usize| {
            let ratios: Vec<_> = self.rows.iter().filter_map(|(_, ratios)| ratios[column]).collect();
            (!ratios.is_empty()).then(|| geometric_mean(ratios))
        };
        let means = (0..self.rivals.len()).map(mean).collect();
        self.push(MEAN.to_owned(), means);
    }

    /// A table and a plot of the same name. `goal` is that of a row, against the rival that has goals.
    pub fn show(&self, report: &mut Report, plot: &str, goal: impl Fn(&str) -> &'static str) {
        report.say("uzswap / rival:");
        let names: Vec<_> = self.rivals.iter().map(Rival::to_string).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let goals = format!("goal against {GOALS}");
        report.table(&[&[self.named][..], &names, &[&goals]].concat());
        for (name, ratios) in &self.rows {
            let cell =
                |ratio: &Option<f64>| ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
            let mut row = vec![name.clone()];
            row.extend(ratios.iter().map(cell));
            row.push(goal(name).to_owned());
            report.cells(row);
        }
        report.bars(plot, &names);
    }
}
