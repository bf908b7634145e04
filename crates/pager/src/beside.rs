//! Where a memory's faults are served: on the CPU of the program's thread that faults.
//!
//! That thread sleeps until it is served, so its CPU is free; and to wake a thread on another CPU takes longer than the service, where
//! that CPU sleeps. On a virtual machine a message there and back took 6.5 us on one CPU and 50 across two.
//!
//! But the kernel wakes a thread where a CPU is idle, and the one that it slept on is not, since we run there. A CPU that runs nothing but
//! threads of the policy `SCHED_IDLE` counts as idle, though, and a thread that is woken comes before those at once. So where one
//! thread faults again and again and is woken elsewhere, the thread that serves it takes that policy.
//!
//! What it trades: where something else wants that CPU, the thread that serves has three thousandths of it: beside a loop that never
//! sleeps it came 7 ms late, and 16 at most. So it gives the policy back as soon as it was away for long or somebody else needs it,
//! and the sooner that comes, the longer it waits before it tries again. It holds no lock when it wakes, but where the page is
//! there already or not mapped any more, and helps nobody to store. It can be late with the memory's lock held, where the kernel wakes somebody
//! else on its CPU.
//!
//! What it can never do: touch the scheduling of the program's threads.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::proc::Proc;
use crate::scheduling::{Scheduling, Taken, keep_io_rank};

/// Faults between two looks at where the program runs.
const FAULTS_A_LOOK: u32 = 64;
/// The most where it is somewhere else each time, and nothing can be done about it.
const MOST_FAULTS_A_LOOK: u32 = 4096;
/// From one fault to the next, where a thread faults again and again.
const SOON: Duration = Duration::from_millis(2);
/// Faults before the policy is taken once more, at first and at most.
const LEAST_REST: u32 = 256;
const MOST_REST: u32 = 1 << 17;

/// The place of the thread that serves a memory, which makes and keeps this.
pub(crate) struct Beside {
    /// Its usual scheduling, if it may leave that and come back.
    own: Option<Scheduling>,
    is_idle: bool,
    /// Where this thread is held.
    cpu: Option<usize>,
    /// What others have been told of that.
    told: Option<usize>,
    /// The program's thread that faulted last, and when that was over.
    last: Option<(u32, Instant)>,
    /// Faults in a row that were soon one after the other, and of one thread.
    streak: u32,
    /// Since the last look.
    faults: u32,
    look_after: u32,
    /// Faults since the policy was taken, or given back; and how many that must have been.
    since: u32,
    rest: u32,
}

impl Beside {
    /// For the thread that calls.
    pub(crate) fn new() -> Beside {
        keep_io_rank();
        // The slice is what it will have with the other policy, too; it takes its turn sooner by that.
        let own = Scheduling::own().map(Scheduling::promptly).filter(|own| is_allowed() && own.set());
        Beside {
            own,
            is_idle: false,
            cpu: None,
            told: None,
            last: None,
            streak: 0,
            faults: 0,
            look_after: 1,
            since: 0,
            rest: 0,
        }
    }

    /// Whether who is woken comes before us.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_idle
    }

    /// A thread has faulted.
    pub(crate) fn begin(&mut self, thread: u32) {
        if self.last.is_some_and(|(last, at)| last == thread && at.elapsed() < SOON) {
            self.streak = self.streak.saturating_add(1);
        } else {
            self.disturbed();
        }
    }

    /// There is more to do than to serve one thread that faults again and again.
    pub(crate) fn disturbed(&mut self) {
        self.streak = 0;
        if self.is_idle {
            self.own.map(|own| own.set());
            self.is_idle = false;
            // Two faults are 2 ms apart now and then without anybody else who wants the CPU, too.
            let was_short = self.since < LEAST_REST;
            self.rest = if was_short { (self.rest * 4).clamp(LEAST_REST, MOST_REST) } else { LEAST_REST };
            self.since = 0;
        }
    }

    /// Nothing has come though a thread was woken that should have run before us.
    pub(crate) fn is_alone(&mut self, proc: Option<&Proc>) {
        if let Some((thread, _)) = self.last {
            self.look(proc, thread);
        }
    }

    /// The thread was served, and is woken next. Goes to the CPU where it was, now and then.
    pub(crate) fn end(&mut self, proc: Option<&Proc>, thread: u32) {
        self.last = Some((thread, Instant::now()));
        self.since = self.since.saturating_add(1);
        self.faults += 1;
        if self.faults >= self.look_after {
            self.look(proc, thread);
        }
    }

    /// Tells which CPU is best left to the program and to us.
    pub(crate) fn tell(&mut self, taken: &Taken) {
        let cpu = self.cpu.filter(|_| self.is_idle);
        if cpu != self.told {
            taken.change(self.told, cpu);
            self.told = cpu;
        }
    }

    fn look(&mut self, proc: Option<&Proc>, thread: u32) {
        self.faults = 0;
        let cpu = proc.and_then(|proc| proc.cpu_of(thread));
        if cpu.is_none() || cpu == self.cpu {
            self.look_after = FAULTS_A_LOOK;
            return;
        }
        let mut set = CpuSet::new();
        cpu.into_iter().for_each(|cpu| set.set(cpu));
        // A CPU that we may not use: any other is as good.
        let is_there = sched_setaffinity(None, &set).is_ok();
        self.cpu = cpu;
        if !is_there {
            self.disturbed();
        }
        if self.is_idle {
            return;
        }
        let own = self.own.filter(|_| self.streak >= FAULTS_A_LOOK && self.since >= self.rest);
        if is_there && let Some(own) = own {
            self.is_idle = own.idle().set();
            self.since = 0;
            self.look_after = FAULTS_A_LOOK;
        } else {
            // It is woken away from us; to run after it costs more than it gains, until the policy may be taken.
            let rest = if self.own.is_some() { self.rest.saturating_sub(self.since) } else { u32::MAX };
            let most = rest.clamp(FAULTS_A_LOOK, MOST_FAULTS_A_LOOK);
            self.look_after = (self.look_after * 2).min(most);
        }
    }
}

/// Whether a thread can come back from `SCHED_IDLE`, which takes CAP_SYS_NICE or a limit on the nice value. Tried with a thread
/// that is for nothing else: it may have to stay so.
fn is_allowed() -> bool {
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    *ALLOWED.get_or_init(|| {
        let there_and_back = || Scheduling::own().is_some_and(|own| own.idle().set() && own.set());
        let spawned = std::thread::Builder::new().name("uzswap-try".into()).spawn(there_and_back);
        spawned.is_ok_and(|thread| thread.join().is_ok_and(|is_back| is_back))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that has taken the policy, as far as it knows.
    fn idle() -> Beside {
        Beside { is_idle: true, ..Beside::new() }
    }

    fn fault(beside: &mut Beside, thread: u32) -> bool {
        beside.begin(thread);
        beside.look_after = u32::MAX;
        beside.end(None, thread);
        beside.is_idle()
    }

    #[test]
    fn the_policy_is_kept_for_one_thread_alone() {
        let mut beside = idle();
        beside.last = Some((1, Instant::now()));
        assert!((0..100).all(|_| fault(&mut beside, 1)));
        assert!(!fault(&mut beside, 2));
        assert_eq!(beside.streak, 0);
    }

    #[test]
    fn a_long_pause_ends_it() {
        let mut beside = idle();
        beside.last = Some((1, Instant::now().checked_sub(SOON * 2).expect("the machine runs for longer")));
        assert!(!fault(&mut beside, 1));
    }

    #[test]
    fn the_sooner_it_is_disturbed_the_longer_it_rests() {
        let mut beside = idle();
        let mut disturbed_after = |faults| {
            beside.is_idle = true;
            beside.since = faults;
            beside.disturbed();
            beside.rest
        };
        assert_eq!(disturbed_after(LEAST_REST), LEAST_REST);
        assert_eq!(disturbed_after(10), LEAST_REST * 4);
        assert_eq!(disturbed_after(10), LEAST_REST * 16);
        assert_eq!(disturbed_after(LEAST_REST), LEAST_REST);
        (0..20).for_each(|_| _ = disturbed_after(0));
        assert_eq!(disturbed_after(0), MOST_REST);
    }
}
