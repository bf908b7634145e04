//! Whether programs thrash, and so are to bring pages in by turns (`turns.rs`).
//!
//! They do where more processes bring pages in than there are CPUs, and more of them wait for pages, at any time, than half as many as there are
//! CPUs; and more than one, since processes that work one after the other never do so. Where much of the turns' time is lost, since who
//! has one waits for somebody who has none, they do harm, and are not tried again soon. Every now and then turns are left out, to see
//! whether they are needed still.
//!
//! What it trades: a third of a second before turns begin, and where they do harm; and as much now and then without. What it can never do: tell a
//! process that has all it wants from one that waits in a loop; both need no turn.

use std::time::Duration;

/// How long it is looked before anything is decided.
const LOOK: Duration = Duration::from_millis(300);
/// How long turns are kept before it is looked again without, at first and at most.
const SPELL: Duration = Duration::from_secs(16);
const MOST_SPELL: Duration = Duration::from_secs(64);
/// How long turns that did harm are not tried again, at first and at most.
const LEAST_REST: Duration = Duration::from_secs(4);
const MOST_REST: Duration = Duration::from_secs(64);

/// How many processes must wait for pages at any time, for each CPU and at least.
const WAIT_EACH: f64 = 0.5;
const WAIT_LEAST: f64 = 1.0;
/// Where turns do harm, at least this part of their time is lost. It was 0.55 to 0.9 where processes waited for each other, asleep or in loops, and at most
/// 0.09 where they did not (compilers, random access).
const LOST: f64 = 0.3;

/// What was seen so far, at some time.
#[derive(Clone, Copy, Default)]
pub(crate) struct Seen {
    /// Since some moment.
    pub(crate) at: Duration,
    /// What faults of all memories waited to be served; not for turns.
    pub(crate) waited: Duration,
    /// Of the turns' time, what was lost before they ended since nothing was brought in with them.
    pub(crate) lost: Duration,
    /// Times that somebody had to wait for a turn.
    pub(crate) waits: u64,
}

/// What is known.
pub(crate) struct Thrashing {
    cpus: f64,
    /// Where what is looked at now began.
    from: Seen,
    /// Since when there are turns.
    since: Option<Duration>,
    spell: Duration,
    /// No turns before this, and how long they were put off.
    not_before: Duration,
    rest: Duration,
}

impl Thrashing {
    pub(crate) fn new(cpus: usize) -> Thrashing {
        Thrashing {
            cpus: cpus as f64,
            from: Seen::default(),
            since: None,
            spell: SPELL,
            not_before: Duration::ZERO,
            rest: Duration::ZERO,
        }
    }

    /// Whether there are to be turns. `wanting`: how many memories brought pages in since that was last asked.
    pub(crate) fn needs_turns(&mut self, now: Seen, wanting: impl FnOnce() -> usize) -> bool {
        let past = now.at.saturating_sub(self.from.at);
        if past < LOOK {
            return self.since.is_some();
        }
        let from = std::mem::replace(&mut self.from, now);
        let wanting = wanting();
        self.since = match self.since {
            None => {
                let waited = now.waited.saturating_sub(from.waited);
                let waiting = waited.as_secs_f64() / past.as_secs_f64();
                let thrash = wanting as f64 > self.cpus && waiting >= (self.cpus * WAIT_EACH).max(WAIT_LEAST);
                if !thrash {
                    self.spell = SPELL;
                }
                (thrash && now.at >= self.not_before).then_some(now.at)
            }
            Some(since) => {
                let lost = now.lost.saturating_sub(from.lost);
                let does_harm = lost.as_secs_f64() > LOST * self.cpus * past.as_secs_f64();
                let is_over = now.at.saturating_sub(since) >= self.spell;
                if does_harm {
                    self.rest = (self.rest * 2).clamp(LEAST_REST, MOST_REST);
                    self.not_before = now.at + self.rest;
                } else if is_over {
                    self.rest = Duration::ZERO;
                    self.spell = (self.spell * 2).min(MOST_SPELL);
                }
                let is_needed = !does_harm && !is_over && now.waits > from.waits;
                is_needed.then_some(since)
            }
        };
        self.since.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(50);

    struct Scene {
        thrashing: Thrashing,
        now: Seen,
        wanting: usize,
        /// How many wait for pages at any time, without turns; with them, how many turns are lost at any time, and what happens in a
        /// second.
        waiting: f64,
        lost: f64,
        waits: u64,
        turns: bool,
    }

    impl Scene {
        fn new() -> Scene {
            Scene {
                thrashing: Thrashing::new(2),
                now: Seen::default(),
                wanting: 8,
                waiting: 3.0,
                lost: 0.1,
                waits: 20,
                turns: false,
            }
        }

        /// The part of so much time in which there were turns.
        fn runs(&mut self, seconds: u32) -> f64 {
            let (steps, mut with) = (seconds * 20, 0);
            for _ in 0..steps {
                self.now.at += STEP;
                if self.turns {
                    with += 1;
                    self.now.lost += STEP.mul_f64(self.lost);
                    self.now.waits += self.waits / 20;
                } else {
                    self.now.waited += STEP.mul_f64(self.waiting);
                }
                self.turns = self.thrashing.needs_turns(self.now, || self.wanting);
            }
            f64::from(with) / f64::from(steps)
        }
    }

    #[test]
    fn turns_stay_where_they_are_needed() {
        let mut scene = Scene::new();
        assert!(scene.runs(100) > 0.97);
        scene.waiting = 0.0;
        assert!(scene.runs(1000) < 0.1, "nobody waits without them");
        scene.waiting = 3.0;
        assert!(scene.runs(100) > 0.97, "again");
    }

    #[test]
    fn where_they_do_harm_they_become_rare() {
        let mut scene = Scene::new();
        scene.lost = 1.2;
        scene.runs(200);
        assert!(scene.runs(1000) < 0.01);
        scene.lost = 0.0;
        scene.runs(100);
        assert!(scene.runs(100) > 0.9, "they do none any more");
    }

    #[test]
    fn nothing_is_done_without_need() {
        let with = |change: fn(&mut Scene)| {
            let mut scene = Scene::new();
            change(&mut scene);
            scene.runs(100)
        };
        assert!(with(|_| {}) > 0.9, "it is otherwise");
        assert_eq!(with(|scene| scene.wanting = 2), 0.0, "no more than there are CPUs");
        assert_eq!(with(|scene| scene.waiting = 0.9), 0.0, "one after the other");
        let many_cpus = |scene: &mut Scene| (scene.waiting, scene.thrashing.cpus) = (1.9, 4.0);
        assert_eq!(with(many_cpus), 0.0, "it is little");
    }

    #[test]
    fn they_end_when_nobody_waits_for_one() {
        let mut scene = Scene::new();
        scene.runs(10);
        assert!(scene.turns);
        (scene.waits, scene.wanting) = (0, 1);
        assert!(scene.runs(10) < 0.1);
        assert!(!scene.turns);
    }
}
