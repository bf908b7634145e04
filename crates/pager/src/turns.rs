//! Load control: who brings pages in, where there are more processes than their memory has room for.
//!
//! When the working sets of many processes do not fit beside each other, each brings in what it wants at the expense of what the
//! others want next, and all do little but wait (thrashing; P. Denning, 1968). As many at a time as there are CPUs, one after the other,
//! bring in each page once. So a process needs a turn to bring pages in, while this is on. The kernel had as much for one process at a time, as
//! the swap token (2.6.9 to 3.4; after S. Jiang and X. Zhang). Whether it is on, `thrashing.rs` decides.
//!
//! Nobody is stopped: who waits for a turn waits in a fault, like for any page, and who finds its pages in memory needs none. Nor does a process
//! that has little memory, such as a shell; of the others a few faults a second are served without, so that who is asked something between turns can answer.
//!
//! What it trades: who waits for a turn may wait for [`WAIT`], or longer where turns would be too short to bring anything in. What it can never do: make two
//! processes wait for each other for ever. A turn ends when others have waited long enough, or as soon as its process brings nothing in with it: it may wait for one
//! that has none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use zswap::PAGE_SIZE;

use crate::memory::{Inner, Memory};
use crate::proc::Proc;
use crate::thrashing::Seen;

/// The oldest go on until they end, if nobody has waited for so long: what has begun gives its memory back the sooner.
const WAIT: Duration = Duration::from_secs(8);
/// How long a turn is at least. As long as may be while all get one within [`WAIT`]: what a process wants has to come back first, some 10 ms a MiB.
/// Eight compilers took 11.5 s with turns of a second, 10.6 s with three (28 s without).
const LEAST_TURN: Duration = Duration::from_millis(500);
const MOST_TURN: Duration = Duration::from_secs(3);
/// A process that neither faults nor runs for so long needs its turn no more.
const REST: Duration = Duration::from_millis(5);
/// It runs if it had at least this part of the time; there may be others that need no turn.
const RUNS: u32 = 8;
/// Nor does a process that runs for so long without a fault: it has all that it wants, or waits in a loop for somebody who has no turn. Six processes
/// that meet at a barrier in such loops took 2.4 s without turns, 114 s where who runs kept its turn, 14 s with 100 ms, 7.7 with 50 and 4.8 with 20; 2.8 s with 50
/// where turns are left out for it (`thrashing.rs`). The compilers took as long with 50 and 100 ms as without such an end, 4 % longer with 20, half as
/// long again with 5.
const SATED: Duration = Duration::from_millis(50);
/// Who waits asks again after so long: then its turn may have come.
pub(crate) const ASK_AGAIN: Duration = Duration::from_millis(4);
/// Who has not asked for so long is passed over, and keeps its place.
const ABSENT: Duration = Duration::from_millis(50);
/// Faults a second of a process that are served without a turn, and how many of them may be saved up. With 64 and 128 of them the compilers took a
/// tenth longer.
const WITHOUT: f64 = 2.0;
const MOST_WITHOUT: f64 = 16.0;
/// Who has less than this part of the cap, in memory and out, is in nobody's way.
const SMALL: u64 = 64;

/// The turns of all processes.
pub(crate) struct Turns {
    is_on: AtomicBool,
    /// Nanoseconds, of all memories together, in which faults waited to be served; but for a turn.
    waited: AtomicU64,
    /// Times that a fault had to wait for a turn, or to go on waiting.
    waits: AtomicU64,
    line: Mutex<Line>,
}

/// What one process may bring in without a turn.
pub(crate) struct Allowance {
    faults: f64,
    at: Instant,
}

impl Allowance {
    pub(crate) fn new() -> Allowance {
        Allowance { faults: MOST_WITHOUT, at: Instant::now() }
    }

    /// Takes a fault from it, if there is one left.
    fn take(&mut self, now: Instant) -> bool {
        let more = WITHOUT * now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.faults = (self.faults + more).min(MOST_WITHOUT);
        let is_left = self.faults >= 1.0;
        if is_left {
            self.faults -= 1.0;
        }
        is_left
    }
}

impl Turns {
    /// For programs that run on so many CPUs.
    pub(crate) fn new(cpus: usize) -> Turns {
        Turns {
            is_on: AtomicBool::new(false),
            waited: AtomicU64::new(0),
            waits: AtomicU64::new(0),
            line: Mutex::new(Line::new(cpus)),
        }
    }

    /// Whether faults of this memory are to be served now. `false`: ask again soon; its place in the line is kept.
    pub(crate) fn may_go(&self, memory: &Memory, inner: &Inner, cap: u64, allowance: &mut Allowance) -> bool {
        if !self.is_on.load(Relaxed) {
            return true;
        }
        // Nobody can tell what a process does whose agent has not said who it is.
        let Some(proc) = memory.proc.get() else { return true };
        if (inner.table.known() * PAGE_SIZE) as u64 * SMALL <= cap {
            return true;
        }
        let now = Instant::now();
        let may_go = self.line.lock().asks(memory.number, memory.age, proc, now) || allowance.take(now);
        if !may_go {
            self.waits.fetch_add(1, Relaxed);
        }
        may_go
    }

    /// All faults of a memory have been served.
    pub(crate) fn served(&self, number: u32) {
        if self.is_on.load(Relaxed) {
            self.line.lock().served(number, Instant::now());
        }
    }

    /// A memory has ended.
    pub(crate) fn leave(&self, number: u32) {
        self.line.lock().leave(number);
    }

    /// From now on turns are needed, or not any more.
    pub(crate) fn set(&self, is_on: bool) {
        if self.is_on.swap(is_on, Relaxed) && !is_on {
            self.line.lock().clear();
        }
    }

    /// Faults of a memory waited for so long.
    pub(crate) fn waited(&self, time: Duration) {
        self.waited.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// What there was of all that by now.
    pub(crate) fn seen(&self, at: Duration) -> Seen {
        let waited = Duration::from_nanos(self.waited.load(Relaxed));
        Seen { at, waited, lost: self.line.lock().lost, waits: self.waits.load(Relaxed) }
    }
}

/// What is asked of a process: the processor time that it has had, unless it has ended.
trait Runs {
    fn processor_time(&self) -> Option<Duration>;
}

impl Runs for Arc<Proc> {
    fn processor_time(&self) -> Option<Duration> {
        Proc::processor_time(self)
    }
}

struct Turn<P> {
    number: u32,
    age: u64,
    process: P,
    since: Instant,
    /// Its faults are being served.
    waits: bool,
    /// When its faults were last served.
    served: Instant,
    /// When it was last seen to do something, and what processor time it had had when that was last asked.
    seen: Instant,
    spent: Duration,
}

/// What becomes of a turn.
#[derive(PartialEq)]
enum Fate {
    GoesOn,
    /// Nothing is brought in with it.
    EndsEarly,
    /// The process has ended.
    IsOver,
}

impl<P: Runs> Turn<P> {
    fn fate(&mut self, now: Instant) -> Fate {
        let past = now.saturating_duration_since(self.seen);
        if self.waits || past < REST {
            return Fate::GoesOn;
        }
        if now.saturating_duration_since(self.served) >= SATED {
            return Fate::EndsEarly;
        }
        let Some(spent) = self.process.processor_time() else { return Fate::IsOver };
        let ran = spent.saturating_sub(self.spent);
        self.spent = spent;
        self.seen = now;
        if ran * RUNS < past { Fate::EndsEarly } else { Fate::GoesOn }
    }
}

/// Who waits for a turn.
struct Waiting {
    number: u32,
    age: u64,
    since: Instant,
    /// When it last asked.
    asked: Instant,
}

impl Waiting {
    /// Who has waited long enough comes first, then who is oldest.
    fn rank(&self, now: Instant) -> impl Ord + use<> {
        let is_due = now.saturating_duration_since(self.since) >= WAIT;
        (!is_due, is_due.then_some(self.since), self.age)
    }
}

/// Who has a turn, and who waits for one.
struct Line<P = Arc<Proc>> {
    /// Turns at a time.
    most: usize,
    turns: Vec<Turn<P>>,
    waiting: Vec<Waiting>,
    /// In how much of the turns' time nothing was brought in, of turns that ended for that.
    lost: Duration,
}

impl<P: Runs + Clone> Line<P> {
    fn new(most: usize) -> Line<P> {
        Line { most, turns: Vec::new(), waiting: Vec::new(), lost: Duration::ZERO }
    }

    /// Whether this memory has a turn, which it gets if it is the first in line. The older a memory, the smaller its `age`.
    fn asks(&mut self, number: u32, age: u64, process: &P, now: Instant) -> bool {
        if let Some(turn) = self.turns.iter_mut().find(|turn| turn.number == number) {
            turn.waits = true;
            return true;
        }
        match self.waiting.iter_mut().find(|waiting| waiting.number == number) {
            Some(waiting) => waiting.asked = now,
            None => self.waiting.push(Waiting { number, age, since: now, asked: now }),
        }
        self.end_turns(now);
        let is_there = |waiting: &&Waiting| now.saturating_duration_since(waiting.asked) < ABSENT;
        let mut line: Vec<_> = self.waiting.iter().filter(is_there).collect();
        line.sort_unstable_by_key(|waiting| waiting.rank(now));
        if let Some(first) = line.first()
            && self.turns.len() >= self.most
        {
            // Who is older goes on, unless the other has waited long enough.
            let (is_due, age) = (now.saturating_duration_since(first.since) >= WAIT, first.age);
            let length = self.length();
            let may_end = |turn: &Turn<P>| {
                now.saturating_duration_since(turn.since) >= length && (is_due || age < turn.age)
            };
            let youngest = self.turns.iter().filter(|turn| may_end(turn)).max_by_key(|turn| turn.age);
            if let Some(number) = youngest.map(|turn| turn.number) {
                self.turns.retain(|turn| turn.number != number);
            }
        }
        let free = self.most.saturating_sub(self.turns.len());
        if !line.iter().take(free).any(|waiting| waiting.number == number) {
            return false;
        }
        self.waiting.retain(|waiting| waiting.number != number);
        let spent = process.processor_time().unwrap_or_default();
        self.turns.push(Turn {
            number,
            age,
            process: process.clone(),
            since: now,
            waits: true,
            served: now,
            seen: now,
            spent,
        });
        true
    }

    /// Its process has all that it waited for.
    fn served(&mut self, number: u32, now: Instant) {
        if let Some(turn) = self.turns.iter_mut().find(|turn| turn.number == number) {
            turn.waits = false;
            (turn.served, turn.seen) = (now, now);
        }
    }

    /// Ends those that nothing is brought in with.
    fn end_turns(&mut self, now: Instant) {
        self.turns.retain_mut(|turn| {
            let fate = turn.fate(now);
            if fate == Fate::EndsEarly {
                // It may have been longer, but nobody wanted the turn then.
                self.lost += now.saturating_duration_since(turn.served).min(SATED);
            }
            fate == Fate::GoesOn
        });
    }

    /// Of a turn.
    fn length(&self) -> Duration {
        let each = WAIT.mul_f64(self.most as f64 / self.waiting.len().max(1) as f64);
        each.clamp(LEAST_TURN, MOST_TURN)
    }

    fn leave(&mut self, number: u32) {
        self.turns.retain(|turn| turn.number != number);
        self.waiting.retain(|waiting| waiting.number != number);
    }

    fn clear(&mut self) {
        self.turns.clear();
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    /// A process that runs as the test says.
    #[derive(Clone, Default)]
    struct Told(Rc<Cell<Option<Duration>>>);

    impl Runs for Told {
        fn processor_time(&self) -> Option<Duration> {
            self.0.get()
        }
    }

    struct Scene {
        line: Line<Told>,
        processes: Vec<Told>,
        now: Instant,
    }

    impl Scene {
        fn new(most: usize, processes: usize) -> Scene {
            let told = || Told(Rc::new(Cell::new(Some(Duration::ZERO))));
            Scene {
                line: Line::new(most),
                processes: (0..processes).map(|_| told()).collect(),
                now: Instant::now(),
            }
        }

        /// A fault, and what it wants if it may.
        fn asks(&mut self, number: usize) -> bool {
            let may_go = self.waits(number);
            self.line.served(number as u32, self.now);
            may_go
        }

        fn waits(&mut self, number: usize) -> bool {
            self.line.asks(number as u32, number as u64, &self.processes[number], self.now)
        }

        /// Time goes by, in which some run.
        fn pass(&mut self, time: Duration, running: &[usize]) {
            self.now += time;
            for &number in running {
                let ran = &self.processes[number].0;
                ran.set(ran.get().map(|ran| ran + time));
            }
        }
    }

    #[test]
    fn as_many_go_as_there_are_cpus() {
        let mut scene = Scene::new(2, 4);
        assert_eq!([0, 1, 2, 3].map(|number| scene.asks(number)), [true, true, false, false]);
        scene.pass(REST * 2, &[0, 1]);
        assert_eq!([3, 2, 1, 0].map(|number| scene.asks(number)), [false, false, true, true]);
    }

    /// Who had a turn while all wanted one for so long, and the longest that anybody waited.
    fn goes_by(most: usize, processes: usize, time: Duration) -> (Vec<usize>, Duration) {
        let mut scene = Scene::new(most, processes);
        let all: Vec<usize> = (0..processes).collect();
        let mut last = vec![scene.now; processes];
        let (mut order, mut longest) = (Vec::new(), Duration::ZERO);
        for _ in 0..time.as_millis() / ASK_AGAIN.as_millis() {
            for &number in &all {
                if scene.asks(number) {
                    longest = longest.max(scene.now - last[number]);
                    last[number] = scene.now;
                    order.push(number);
                }
            }
            assert!(scene.line.turns.len() <= most);
            scene.pass(ASK_AGAIN, &all);
        }
        (order, longest)
    }

    #[test]
    fn the_oldest_goes_on_until_others_have_waited_long_enough() {
        let (mut order, longest) = goes_by(1, 3, WAIT * 10);
        let of_the_oldest = order.iter().filter(|number| **number == 0).count();
        assert!(
            (order.len() / 3..order.len() / 2).contains(&of_the_oldest),
            "{of_the_oldest} of {}",
            order.len()
        );
        order.dedup();
        assert_eq!(order[..4], [0, 1, 2, 0]);
        assert!((WAIT..=WAIT + MOST_TURN * 2).contains(&longest), "{longest:?}");
    }

    #[test]
    fn in_a_long_line_turns_are_short() {
        let (order, longest) = goes_by(2, 24, WAIT * 10);
        assert!((0..24).all(|number| order.contains(&number)));
        assert!(longest <= WAIT * 2, "{longest:?}");
    }

    #[test]
    fn who_does_nothing_makes_room() {
        let mut scene = Scene::new(1, 2);
        assert!(scene.asks(0));
        assert!(!scene.asks(1));
        scene.pass(REST, &[]);
        assert!(scene.asks(1), "the other neither ran nor faulted");
        assert_eq!(scene.line.lost, REST);
        assert!(!scene.asks(0), "it is in line again");
    }

    #[test]
    fn a_fault_or_processor_time_is_something() {
        let mut scene = Scene::new(1, 2);
        assert!(scene.asks(0));
        for _ in 0..20 {
            scene.pass(REST, &[]);
            assert!(scene.asks(0), "a fault");
            scene.pass(REST, &[0]);
            assert!(!scene.asks(1), "time");
        }
    }

    #[test]
    fn who_has_all_that_it_wants_makes_room() {
        let mut scene = Scene::new(1, 2);
        assert!(scene.asks(0));
        for _ in 0..3 {
            scene.pass(SATED / 4, &[0]);
            assert!(!scene.asks(1));
        }
        scene.pass(SATED / 4, &[0]);
        assert!(scene.asks(1), "the other ran, and did not fault");
        assert_eq!(scene.line.lost, SATED);
        scene.pass(SATED * 100, &[1]);
        assert!(scene.asks(0));
        assert_eq!(scene.line.lost, SATED * 2, "nobody wanted its turn before");
    }

    #[test]
    fn who_waits_for_a_page_keeps_its_turn() {
        let mut scene = Scene::new(1, 2);
        assert!(scene.waits(0));
        for _ in 0..20 {
            scene.pass(REST, &[]);
            assert!(!scene.asks(1));
        }
        scene.line.served(0, scene.now);
        scene.pass(REST, &[]);
        assert!(scene.asks(1));
        assert_eq!(scene.line.lost, REST);
    }

    #[test]
    fn who_has_ended_has_no_turn() {
        let mut scene = Scene::new(1, 2);
        assert!(scene.asks(0));
        scene.processes[0].0.set(None);
        scene.pass(REST, &[]);
        assert!(scene.asks(1));
        scene.line.leave(1);
        assert!(scene.asks(0), "nobody is left");
    }

    #[test]
    fn who_does_not_ask_holds_nobody_up() {
        let mut scene = Scene::new(1, 3);
        assert_eq!([0, 1, 2].map(|number| scene.asks(number)), [true, false, false]);
        scene.line.leave(0);
        assert!(!scene.asks(2), "another is before it");
        scene.pass(ABSENT, &[]);
        assert!(scene.asks(2));
        scene.line.leave(2);
        assert!(scene.asks(1));
    }

    #[test]
    fn some_faults_need_no_turn() {
        let mut allowance = Allowance::new();
        let now = allowance.at;
        assert_eq!((0..1000).filter(|_| allowance.take(now)).count(), MOST_WITHOUT as usize);
        let later = now + Duration::from_secs(1);
        assert_eq!((0..1000).filter(|_| allowance.take(later)).count(), WITHOUT as usize);
    }
}
