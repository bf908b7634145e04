//! Holds calls until they are let through, so that a test can arrange a race.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{ByOp, Op, asked_before};
use crate::{DeviceError, SwapDevice};

#[derive(Clone, Copy, Default)]
struct Barrier {
    closed: bool,
    /// Calls that may pass although it is closed.
    passes: usize,
    /// Calls that wait.
    held: usize,
}

/// A device with a gate for each kind of call; calls wait at a closed one before they reach the device behind.
pub struct Gate<D> {
    device: D,
    barriers: Mutex<ByOp<Barrier>>,
    changed: Condvar,
}

impl<D: SwapDevice> Gate<D> {
    /// All gates are open.
    pub fn new(device: D) -> Gate<D> {
        Gate { device, barriers: Mutex::new(ByOp::default()), changed: Condvar::new() }
    }

    /// Calls of kind `op` wait from now on.
    pub fn close(&self, op: Op) {
        self.barriers.lock().get_mut(op).closed = true;
    }

    /// Lets all calls of kind `op` through, those that wait and those to come.
    pub fn open(&self, op: Op) {
        let mut barriers = self.barriers.lock();
        let barrier = barriers.get_mut(op);
        (barrier.closed, barrier.passes) = (false, 0);
        self.changed.notify_all();
    }

    /// Lets `calls` more calls of kind `op` through a gate that stays closed.
    pub fn pass(&self, op: Op, calls: usize) {
        self.barriers.lock().get_mut(op).passes += calls;
        self.changed.notify_all();
    }

    /// Waits until at least `calls` calls of kind `op` are held, at most `limit` long. Returns whether they are.
    pub fn wait_held(&self, op: Op, calls: usize, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut barriers = self.barriers.lock();
        while barriers.get(op).held < calls {
            if self.changed.wait_until(&mut barriers, deadline).timed_out() {
                return barriers.get(op).held >= calls;
            }
        }
        true
    }

    /// The device behind.
    pub fn inner(&self) -> &D {
        &self.device
    }

    fn before(&self, op: Op) -> Result<(), DeviceError> {
        let mut barriers = self.barriers.lock();
        barriers.get_mut(op).held += 1;
        self.changed.notify_all();
        while barriers.get(op).closed && barriers.get(op).passes == 0 {
            self.changed.wait(&mut barriers);
        }
        let barrier = barriers.get_mut(op);
        barrier.held -= 1;
        barrier.passes = barrier.passes.saturating_sub(1);
        Ok(())
    }
}

asked_before!(Gate);
