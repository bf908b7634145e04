//! A rival and ours in turn, at equal total memory: what the rival's cgroup allows plus what its pool and mapped files take
//! beside that is our cap, and in our cap everything counts.

use crate::measure::{Load, Ran};
use crate::median;
use crate::ours::{self, Own};
use crate::rival::{Rival, Theirs};

/// Rounds of each comparison.
pub const ROUNDS: usize = 3;

/// One round.
pub struct Round {
    pub theirs: Theirs,
    pub own: Own,
    /// Ours, in bytes.
    pub cap: u64,
}

/// Those of the rivals that can be had here; of the others it is noted why not.
pub fn present(rivals: &[Rival], notes: &mut Vec<String>) -> Vec<Rival> {
    let is_here = |rival: &&Rival| match rival.start(&std::env::temp_dir()) {
        Ok(_) => true,
        Err(why) => {
            notes.push(format!("{rival} cannot be had here: {why}"));
            false
        }
    };
    rivals.iter().filter(is_here).cloned().collect()
}

/// The rounds that ended for both; of a run that did not it has been said.
pub fn rounds(rival: &Rival, cap: u64, load: &Load<'_>) -> Vec<Round> {
    (0..ROUNDS).filter_map(|_| round(rival, cap, load)).collect()
}

fn round(rival: &Rival, cap: u64, load: &Load<'_>) -> Option<Round> {
    let dir = tempfile::tempdir().expect("a directory");
    let started = rival.start(dir.path()).unwrap_or_else(|why| panic!("{rival} was there before: {why}"));
    let theirs = started.run(cap, load);
    drop(started);
    let theirs = theirs?;
    let cap = cap + theirs.beyond;
    // Without compression everything that does not fit is on the disk, and may be with us. Behind zswap nothing is.
    let swap = (*rival == Rival::Disk).then(|| dir.path().join("uzswap.swap"));
    let own = ours::run(cap, swap.as_deref(), load)?;
    Some(Round { theirs, own, cap })
}

/// What [`cells`] fills.
pub const COLUMNS: [&str; 9] = [
    "theirs",
    "uzswap",
    "ratio",
    "each round",
    "major faults",
    "processor s",
    "swapped MiB (requests; ours)",
    "peak MiB",
    "of our cap",
];

/// What the columns mean.
pub const NOTES: [&str; 5] = [
    "a / b: theirs / ours. Medians over the rounds",
    "major faults: ours are those that waited for a page that was out",
    "swapped: what the kernel swapped, in and out, to zram's memory too; requests: of the swap device, for swap files of the whole disk, whoever made them; ours: to its own swap file, which it has against a plain one",
    "no end: in no round it ended well for both; the kernel may kill for want of memory although there is swap",
    "peak: everything, seen from outside; of our cap: ours seen from outside, and as uzswap counts it",
];

/// The ratio of each round.
pub fn ratios(rounds: &[Round], figure: impl Fn(&Ran) -> f64) -> Vec<f64> {
    rounds.iter().map(|round| figure(&round.own.ran) / figure(&round.theirs.ran)).collect()
}

/// Cells of a row; `figure` is what is compared.
pub fn cells(rounds: &[Round], digits: usize, figure: impl Fn(&Ran) -> f64) -> Vec<String> {
    if rounds.is_empty() {
        return vec!["no end".to_owned()];
    }
    let middle = |of: &dyn Fn(&Round) -> f64| median(rounds.iter().map(of).collect()).0;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let ratios = ratios(rounds, &figure);
    let each: Vec<_> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
    vec![
        format!("{:.digits$}", middle(&|round| figure(&round.theirs.ran))),
        format!("{:.digits$}", middle(&|round| figure(&round.own.ran))),
        format!("{:.2}", median(ratios).0),
        each.join(" "),
        format!(
            "{:.0} / {:.0}",
            middle(&|round| round.theirs.ran.major_faults as f64),
            middle(&|round| (round.own.ran.major_faults + round.own.faults) as f64)
        ),
        format!(
            "{:.1} / {:.1}",
            middle(&|round| round.theirs.ran.processor),
            middle(&|round| round.own.ran.processor)
        ),
        format!(
            "{:.0} ({:.0}; {:.0})",
            middle(&|round| mib(round.theirs.traffic.swapped << 12)),
            middle(&|round| round.theirs.traffic.requests as f64),
            middle(&|round| round.own.requests as f64)
        ),
        format!(
            "{:.0} / {:.0}",
            middle(&|round| mib(round.theirs.ran.peak)),
            middle(&|round| mib(round.own.ran.peak))
        ),
        format!(
            "{:.3} {:.3}",
            middle(&|round| round.own.ran.peak as f64 / round.cap as f64),
            middle(&|round| round.own.counted as f64 / round.cap as f64)
        ),
    ]
}
