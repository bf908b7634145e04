//! Devices that misbehave on demand. Each wraps another device, so they compose.
//!
//! | filter | does |
//! | --- | --- |
//! | [`Countdown`] | fails the Nth call of a kind |
//! | [`Crash`] | loses or tears writes that were not flushed |
//! | [`Slow`] | takes its time |
//! | [`Gate`] | holds calls until they are let through |
//! | [`Counting`] | counts calls and pages |

mod countdown;
mod counting;
mod crash;
mod gate;
mod slow;

pub use countdown::{Countdown, Lasting};
pub use counting::{Counting, Counts};
pub use crash::Crash;
pub use gate::Gate;
pub use slow::Slow;

/// The kinds of calls that reach a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// [`read_page`](crate::SwapDevice::read_page)
    Read,
    /// [`write_pages`](crate::SwapDevice::write_pages)
    Write,
    /// [`discard`](crate::SwapDevice::discard)
    Discard,
    /// [`flush`](crate::SwapDevice::flush)
    Flush,
}

impl Op {
    /// All of them.
    pub const ALL: [Op; 4] = [Op::Read, Op::Write, Op::Discard, Op::Flush];
}

/// A value for each [`Op`].
#[derive(Clone, Copy, Default)]
struct ByOp<T> {
    read: T,
    write: T,
    discard: T,
    flush: T,
}

impl<T> ByOp<T> {
    fn get(&self, op: Op) -> &T {
        match op {
            Op::Read => &self.read,
            Op::Write => &self.write,
            Op::Discard => &self.discard,
            Op::Flush => &self.flush,
        }
    }

    fn get_mut(&mut self, op: Op) -> &mut T {
        match op {
            Op::Read => &mut self.read,
            Op::Write => &mut self.write,
            Op::Discard => &mut self.discard,
            Op::Flush => &mut self.flush,
        }
    }
}

/// Implements [`SwapDevice`](crate::SwapDevice) for a filter that is asked before each call
/// (`fn before(&self, Op) -> Result<(), DeviceError>`) and else passes calls on to its `device`.
macro_rules! asked_before {
    ($filter:ident) => {
        impl<D: crate::SwapDevice> crate::SwapDevice for $filter<D> {
            fn pages(&self) -> u64 {
                self.device.pages()
            }

            fn read_page(&self, page: u64, out: &mut crate::Page) -> Result<(), crate::DeviceError> {
                self.before(crate::faulty::Op::Read)?;
                self.device.read_page(page, out)
            }

            fn write_pages(&self, first: u64, data: &[crate::Page]) -> Result<(), crate::DeviceError> {
                self.before(crate::faulty::Op::Write)?;
                self.device.write_pages(first, data)
            }

            fn discard(&self, first: u64, count: u64) -> Result<(), crate::DeviceError> {
                self.before(crate::faulty::Op::Discard)?;
                self.device.discard(first, count)
            }

            fn flush(&self) -> Result<(), crate::DeviceError> {
                self.before(crate::faulty::Op::Flush)?;
                self.device.flush()
            }

            fn memory_bytes(&self) -> usize {
                self.device.memory_bytes()
            }
        }
    };
}
use asked_before;
