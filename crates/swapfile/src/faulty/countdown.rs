//! Fails the Nth call of a kind.

use parking_lot::Mutex;

use super::{ByOp, Op, asked_before};
use crate::{DeviceError, SwapDevice};

/// How long a failure lasts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lasting {
    /// The call after the failed one works again.
    Once,
    /// Every later call of that kind fails too.
    Forever,
}

#[derive(Clone, Copy)]
struct Plan {
    /// Calls that still work.
    left: u64,
    lasting: Lasting,
    errno: i32,
}

/// A device on which a chosen call fails, without reaching the device behind.
pub struct Countdown<D> {
    device: D,
    plans: Mutex<ByOp<Option<Plan>>>,
}

impl<D: SwapDevice> Countdown<D> {
    /// Nothing fails until [`fail`](Countdown::fail).
    pub fn new(device: D) -> Countdown<D> {
        Countdown { device, plans: Mutex::new(ByOp::default()) }
    }

    /// After `left` more calls of kind `op` one fails with `errno`. Replaces what was planned for `op`.
    pub fn fail(&self, op: Op, left: u64, lasting: Lasting, errno: i32) {
        *self.plans.lock().get_mut(op) = Some(Plan { left, lasting, errno });
    }

    /// Calls of kind `op` work from now on.
    pub fn heal(&self, op: Op) {
        *self.plans.lock().get_mut(op) = None;
    }

    /// The device behind.
    pub fn inner(&self) -> &D {
        &self.device
    }

    fn before(&self, op: Op) -> Result<(), DeviceError> {
        let mut plans = self.plans.lock();
        let plan = plans.get_mut(op);
        match plan {
            None => Ok(()),
            Some(Plan { left: 0, lasting, errno }) => {
                let errno = *errno;
                if *lasting == Lasting::Once {
                    *plan = None;
                }
                Err(DeviceError::Io(errno))
            }
            Some(Plan { left, .. }) => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

asked_before!(Countdown);
