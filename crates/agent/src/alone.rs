//! Calls that the kernel grants only to a process of one thread: those that take it into another user namespace. The agent's thread is one more,
//! so it ends before them, at the supervisor's word, and begins anew behind them.
//!
//! What this can never do: take the agent away from a process whose pages may be out. There the supervisor refuses, and the call fails
//! as it does in any process that has threads.

use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, Ordering};

use linux_raw_sys::errno::{EINTR, EINVAL};
use linux_raw_sys::general as nr;

use crate::protocol::{Action, Hello, Leave, Welcome};
use crate::start::{self, Place};
use crate::{hands, sys};

/// How often the supervisor is asked, which may not know the agent yet.
const QUESTIONS: usize = 5;
/// How often the call is tried: the kernel takes a thread off its lists a little after it has said that it ended.
const TRIES: usize = 1000;

/// One at a time.
static IS_ALONE: AtomicBool = AtomicBool::new(false);

/// Makes a call, and where the kernel refuses it perhaps for the agent, once more without that.
pub fn alone(call: impl Fn() -> Result<usize, u32>) -> Result<usize, u32> {
    let mut done = call();
    if done != Err(EINVAL) || IS_ALONE.swap(true, Ordering::Acquire) {
        return done;
    }
    if start::current().is_some_and(leaves) {
        for _ in 0..TRIES {
            done = call();
            if done != Err(EINVAL) {
                break;
            }
            let _ = sys::plain(nr::__NR_sched_yield, [0; 3]);
        }
        // Without an agent the memory is not managed, and nothing else is different.
        let _ = start::begin_again();
    }
    IS_ALONE.store(false, Ordering::Release);
    done
}

/// Whether the agent has ended.
fn leaves(place: &Place) -> bool {
    // The kernel writes 0 when it has.
    place.is_starting.store(1, Ordering::Release);
    for _ in 0..QUESTIONS {
        if is_granted(place) {
            while place.is_starting.load(Ordering::Acquire) != 0 {
                sys::wait_while(&place.is_starting, 1);
            }
            return true;
        }
    }
    place.is_starting.store(0, Ordering::Release);
    false
}

/// Whether the supervisor has told the agent to end.
fn is_granted(place: &Place) -> bool {
    let Ok(socket) = hands::connect(place) else { return false };
    let hello = Hello { leave: Leave::Wanted as u32, ..hands::hello(place) };
    let mut packet = MaybeUninit::<Welcome>::zeroed();
    let mut answer = sys::send(socket, hands::bytes_of(&hello), None).and(Err(EINTR));
    // However long it takes: who does not wait for the answer does not know whether there is an agent.
    while answer == Err(EINTR) {
        answer = sys::read(socket, &mut packet);
    }
    // SAFETY: zeroed above and written by the kernel since; any integers are a valid packet.
    let means = unsafe { packet.assume_init() }.means;
    let is_granted = answer == Ok(size_of::<Welcome>()) && means == Action::Release as u32;
    let _ = sys::plain(nr::__NR_close, [socket as usize, 0, 0]);
    is_granted
}
