//! Looking: how much memory there is, and which processes came.
//!
//! How often follows from the distance to the cap: a program that is far from it must notice nothing, one that is near it
//! can grow by megabytes in a millisecond. So nothing is done here that takes longer; that is `tend`'s.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use zswap::Counter;

use crate::Shared;
use crate::budget::Sample;
use crate::link::{self, Silent};
use crate::scheduling::Scheduling;

/// Between two looks, at least and at most.
const NEAR: Duration = Duration::from_millis(1);
const FAR: Duration = Duration::from_millis(20);
/// Bytes by which programs may grow in a millisecond: a thread that does nothing but touch new memory takes 2 to 3 MiB, and by huge
/// pages 6; two at once did 13.
const GROWTH: u64 = 16 << 20;

/// How long who connects may take to say who it is, and how many may do so at once. An agent that was stopped in that moment is not waited
/// for: its program is not managed, and goes on.
const SILENCE: Duration = Duration::from_secs(1);
const MOST_SILENT: usize = 256;
/// Connections that are taken in a look: there may be somebody who makes no end of them.
const MOST_NEW: usize = 1024;

/// Until the next look, where there is so much room in bytes before it matters.
fn pause(room: u64) -> Duration {
    Duration::from_millis(room / GROWTH).clamp(NEAR, FAR)
}

impl Shared {
    /// The watcher's thread.
    pub(crate) fn watch(self: &Arc<Self>) {
        // It takes some 20 us a look, and a program is ahead by as much as it can touch until then.
        if let Some(own) = Scheduling::own() {
            own.promptly().set();
        }
        let mut silent = VecDeque::new();
        while !self.stopping.load(Relaxed) {
            self.accept(&mut silent);
            self.hand_over();
            self.measure();
            let room = self.budget.near().saturating_sub(self.budget.estimate());
            // The end unparks it.
            std::thread::park_timeout(if silent.is_empty() { pause(room) } else { NEAR });
        }
    }

    /// Takes new connections. `silent`: those that have not said who they are, in the order in which they came.
    fn accept(&self, silent: &mut VecDeque<(OwnedFd, Instant)>) {
        let flags = rustix::net::SocketFlags::CLOEXEC;
        let known = std::mem::take(silent).into_iter();
        let new = std::iter::from_fn(|| rustix::net::accept_with(&self.listener, flags).ok());
        for (socket, since) in known.chain(new.take(MOST_NEW).map(|socket| (socket, Instant::now()))) {
            match link::greet(self, socket) {
                Ok(process) => self.processes.lock().push(Arc::new(process)),
                Err(Silent::SoFar(socket)) if since.elapsed() < SILENCE => silent.push_back((socket, since)),
                Err(_) => {}
            }
        }
        // Of so many, the first are not agents of ours: those say it at once.
        silent.drain(..silent.len().saturating_sub(MOST_SILENT));
    }

    /// Asks the kernel how much memory everything takes.
    pub(crate) fn measure(&self) {
        let processes = self.processes.lock().clone();
        let mut sample = Sample::default();
        for process in &processes {
            if let Some(resident) = process.proc.resident() {
                sample.anonymous += process.anonymous(resident.anonymous);
                sample.shared = sample.shared.max(resident.shared);
            }
        }
        if let Some(own) = self.own.resident() {
            sample.own = own.anonymous + own.shared;
        }
        sample.pool = self.cache.stats().get(Counter::PoolTotalSize);
        self.budget.measured(sample);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_cannot_grow_past_the_room_between_two_looks() {
        for shift in 0..40 {
            let room = (1 << shift) - 1;
            let grown = GROWTH * u64::try_from(pause(room).as_millis()).unwrap();
            assert!(grown <= room.max(GROWTH), "{grown} bytes into {room}");
        }
        assert_eq!(pause(1 << 40), FAR);
    }
}
