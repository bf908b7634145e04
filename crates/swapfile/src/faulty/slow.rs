//! Takes its time.

use std::thread;
use std::time::Duration;

use parking_lot::RwLock;

use super::{ByOp, Op, asked_before};
use crate::{DeviceError, SwapDevice};

/// A device on which each call takes a given time longer. Calls do not wait for each other.
pub struct Slow<D> {
    device: D,
    delays: RwLock<ByOp<Duration>>,
}

impl<D: SwapDevice> Slow<D> {
    /// No delay until [`delay`](Slow::delay).
    pub fn new(device: D) -> Slow<D> {
        Slow { device, delays: RwLock::new(ByOp::default()) }
    }

    /// Each call of kind `op` takes `time` longer from now on.
    pub fn delay(&self, op: Op, time: Duration) {
        *self.delays.write().get_mut(op) = time;
    }

    /// The device behind.
    pub fn inner(&self) -> &D {
        &self.device
    }

    fn before(&self, op: Op) -> Result<(), DeviceError> {
        let delay = *self.delays.read().get(op);
        if !delay.is_zero() {
            thread::sleep(delay);
        }
        Ok(())
    }
}

asked_before!(Slow);
