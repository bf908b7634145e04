//! Rivals and ours in turn, at equal total memory: what the rival's cgroup allows plus what its pool and mapped files take
//! beside that is our cap. The two caps do not count the same: [`MEASURES`].

mod table;

use crate::Scale;
use crate::measure::{Load, Ran, Tries, failures};
use crate::ours::{self, Own};
use crate::report::Report;
use crate::rival::{self, Rival, Theirs};

pub use table::{MEAN, MEASURES, Ratios};

/// Rounds against the rival that the goals are for. Against the others there is one, so that all of it ends in time.
pub const ROUNDS: usize = 3;

/// What both sides run.
pub struct Contest<'a> {
    pub name: String,
    pub load: Load<'a>,
    /// The rival's, in bytes.
    pub cap: u64,
    /// What it prints, where that is the same each time.
    pub prints: Option<String>,
}

/// What is compared.
pub struct Figure {
    pub unit: &'static str,
    pub digits: usize,
    pub of: fn(&Ran) -> f64,
}

/// A run of each.
struct Round {
    theirs: Theirs,
    own: Own,
    /// Ours, in bytes.
    cap: u64,
}

struct Rounds {
    /// Those that ended well for both.
    ended: Vec<Round>,
    /// What did not, if anything.
    failed: Option<String>,
}

/// What every rival and ours need.
///
/// # Errors
/// What is missing here.
pub fn ready() -> Result<(), String> {
    rival::ready()?;
    ours::ready()
}

/// Those of the rivals that can be had here. Of the others the report says why not.
pub fn present(report: &mut Report, what: &str, rivals: &[Rival]) -> Vec<Rival> {
    if let Err(why) = ready() {
        report.skip(what, why);
        return Vec::new();
    }
    let mut is_here = |rival: &&Rival| {
        let dir = tempfile::tempdir().expect("a directory");
        let started = rival.start(dir.path());
        started.map_err(|why| report.skip(&format!("{what}, {rival}"), why)).is_ok()
    };
    rivals.iter().filter(&mut is_here).cloned().collect()
}

/// Has each rival meet ours in each contest, and reports it. `named` is what a contest is called.
pub fn compare<'a>(
    report: &mut Report,
    named: &'static str,
    rivals: &'a [Rival],
    contests: &[Contest<'_>],
    figure: &Figure,
    scale: Scale,
) -> Ratios<'a> {
    table::begin(report, named, figure, scale);
    let mut ratios = Ratios::new(named, rivals);
    for contest in contests {
        let middles = rivals.iter().map(|rival| {
            let rounds = rounds(rival, contest, scale);
            table::row(report, contest, rival, &rounds, figure);
            table::ratio(&rounds.ended, figure)
        });
        let middles = middles.collect();
        ratios.push(contest.name.clone(), middles);
    }
    ratios
}

fn rounds(rival: &Rival, contest: &Contest<'_>, scale: Scale) -> Rounds {
    let wanted = if rival.has_goals() { scale.of(ROUNDS, 1) } else { 1 };
    let (mut theirs, mut own) = (Tries::default(), Tries::default());
    let ended: Vec<Round> =
        (0..wanted).filter_map(|_| round(rival, contest, &mut theirs, &mut own)).collect();
    let failed =
        failures(theirs, own).map(|failures| format!("rounds {} of {wanted}; {failures}", ended.len()));
    Rounds { ended, failed }
}

fn round(
    rival: &Rival,
    contest: &Contest<'_>,
    their_tries: &mut Tries,
    own_tries: &mut Tries,
) -> Option<Round> {
    let dir = tempfile::tempdir().expect("a directory");
    let started = rival.start(dir.path()).unwrap_or_else(|why| panic!("{rival} was there before: {why}"));
    let theirs = started.run(contest.cap, &contest.load, their_tries);
    drop(started);
    let theirs = theirs?;
    let cap = contest.cap + theirs.beyond;
    // Without compression everything that does not fit is on the disk, and may be with us. Behind zswap nothing is.
    let swap = (*rival == Rival::Disk).then(|| dir.path().join("uzswap.swap"));
    let own = ours::run(cap, swap.as_deref(), &contest.load, own_tries)?;
    if let Some(prints) = &contest.prints {
        assert_eq!(theirs.ran.text, *prints, "{}: another result under {rival}", contest.name);
        assert_eq!(own.ran.text, *prints, "{}: another result", contest.name);
    }
    Some(Round { theirs, own, cap })
}
