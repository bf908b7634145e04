//! How and where the kernel runs a thread of ours.
//!
//! A thread that was woken waits until the one that runs has had its slice, 1.4 ms on two CPUs and up to a tick more, unless it asks
//! for a shorter slice itself (`sched_runtime` of `sched_setattr`, kernel 6.12): then it comes before, and is
//! itself interrupted sooner. It gets no more of the CPU by that.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// No CPU.
const NONE: usize = usize::MAX;

/// `SCHED_IDLE`, as the kernel's structure has it.
const SCHED_IDLE: u32 = libc::SCHED_IDLE.cast_unsigned();
/// Nanoseconds; the least that the kernel takes.
const SLICE: u64 = 100_000;

/// Policy, nice value and slice of a thread.
#[derive(Clone, Copy)]
pub(crate) struct Scheduling(libc::sched_attr);

impl Scheduling {
    /// What the calling thread has, if the kernel says it.
    pub(crate) fn own() -> Option<Scheduling> {
        // SAFETY: all zeros is a valid structure of integers.
        let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
        attributes.size = u32::try_from(size_of_val(&attributes)).unwrap_or(0);
        // SAFETY: 0 is the calling thread; the structure lives until the call returns, and its length is told.
        let got =
            unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, attributes.size, 0) };
        (got == 0).then_some(Scheduling(attributes))
    }

    /// The same with the shortest slice. Kernels before 6.12 pass over that.
    pub(crate) fn promptly(self) -> Scheduling {
        Scheduling(libc::sched_attr { sched_runtime: SLICE, ..self.0 })
    }

    /// The same, but any thread of another policy comes before it, of the same control group at least. The slice stays what it was
    /// before.
    pub(crate) fn idle(self) -> Scheduling {
        Scheduling(libc::sched_attr { sched_policy: SCHED_IDLE, ..self.0 })
    }

    /// The calling thread is to have this. Whether it has.
    pub(crate) fn set(&self) -> bool {
        // SAFETY: as in `own`.
        unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const self.0, 0) == 0 }
    }
}

/// The calling thread's requests to disks keep the rank that its nice value gives them, whatever policy it takes: they would get the
/// class of idle threads by `SCHED_IDLE`, and such a read is begun when nobody else's request is left, 9 ms late as a rule beside
/// writes (mq-deadline, kernel 6.18). One that somebody gave it stays.
pub(crate) fn keep_io_rank() {
    /// linux/ioprio.h: the thread by its number; the class; the class of all but real-time and idle threads.
    const WHO_PROCESS: libc::c_int = 1;
    const CLASS_SHIFT: u32 = 13;
    const CLASS_BEST_EFFORT: libc::c_long = 2;
    // SAFETY: no pointers; 0 is the calling thread.
    let now = unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, 0) };
    // Of class 0 (none): the rank is taken from policy and nice value, whenever a request is made.
    if now >> CLASS_SHIFT == 0
        && let Some(own) = Scheduling::own()
    {
        let rank = (libc::c_long::from(own.0.sched_nice) + 20) / 5;
        // SAFETY: no pointers.
        unsafe {
            libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, CLASS_BEST_EFFORT << CLASS_SHIFT | rank)
        };
    }
}

/// A CPU that is best left to others.
pub(crate) struct Taken(AtomicUsize);

impl Taken {
    pub(crate) const fn none() -> Taken {
        Taken(AtomicUsize::new(NONE))
    }

    /// Takes one, and gives up the other if nobody else has taken one since.
    pub(crate) fn change(&self, from: Option<usize>, to: Option<usize>) {
        match to {
            Some(cpu) => self.0.store(cpu, Relaxed),
            None => _ = self.0.compare_exchange(from.unwrap_or(NONE), NONE, Relaxed, Relaxed),
        }
    }
}

/// The CPUs of a thread that leaves others to others; that thread makes and keeps this.
pub(crate) struct Away {
    all: Option<CpuSet>,
    from: usize,
}

impl Away {
    /// For the thread that calls.
    pub(crate) fn new() -> Away {
        Away { all: sched_getaffinity(None).ok(), from: NONE }
    }

    /// The calling thread leaves that CPU, or may have all again.
    pub(crate) fn keep(&mut self, taken: &Taken) {
        let taken = taken.0.load(Relaxed);
        let Some(all) = self.all.filter(|_| taken != self.from) else { return };
        self.from = taken;
        let mut set = all;
        if taken < CpuSet::MAX_CPU {
            set.unset(taken);
        }
        // Where that is the only one, there is nothing to choose.
        let _ = sched_setaffinity(None, if set.count() > 0 { &set } else { &all });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_idle_and_has_its_slice() {
        let own = Scheduling::own().unwrap();
        let has_slices = own.0.sched_runtime > 0;
        assert!(own.promptly().set());
        assert!(own.promptly().idle().set());
        assert_eq!(Scheduling::own().unwrap().0.sched_runtime, if has_slices { SLICE } else { 0 });
        // Another source than the structure that was set.
        // SAFETY: no pointers; 0 is the calling thread.
        assert_eq!(unsafe { libc::sched_getscheduler(0) }, libc::SCHED_IDLE);
    }

    #[test]
    fn an_idle_thread_reads_as_others_do() {
        // SAFETY: no pointers; 1 and 0 are the calling thread.
        let rank = || unsafe { libc::syscall(libc::SYS_ioprio_get, 1, 0) };
        assert!(Scheduling::own().unwrap().idle().set());
        keep_io_rank();
        // The middle rank of the class "best effort", which has number 2: what a thread of nice value 0 has.
        assert_eq!(rank(), 2 << 13 | 4);
        keep_io_rank();
        assert_eq!(rank(), 2 << 13 | 4);
    }

    #[test]
    fn a_thread_keeps_away_and_comes_back() {
        let mut away = Away::new();
        let all = sched_getaffinity(None).unwrap();
        let taken = Taken::none();
        for cpu in (0..CpuSet::MAX_CPU).filter(|&cpu| all.is_set(cpu)) {
            taken.change(None, Some(cpu));
            away.keep(&taken);
            let now = sched_getaffinity(None).unwrap();
            assert_eq!(now.is_set(cpu), all.count() == 1);
            assert_eq!(now.count(), (all.count() - 1).max(1));
        }
        let last = (0..CpuSet::MAX_CPU).rfind(|&cpu| all.is_set(cpu));
        taken.change(Some(CpuSet::MAX_CPU), None);
        assert_eq!(taken.0.load(Relaxed), last.unwrap());
        taken.change(last, None);
        away.keep(&taken);
        assert!(sched_getaffinity(None).unwrap() == all);
    }
}
