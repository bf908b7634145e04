//! Memory pressure for the shrinker: the kernel tells when tasks wait for memory (`/proc/pressure/memory`, 4.20 and later),
//! and then pages leave the pool for the backing device, if `shrinker_enabled` is Y.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use zswap::Zswap;

/// Some task waited for memory for 100 ms of a second.
const TRIGGER: &[u8] = b"some 100000 1000000\0";
/// The share of what could leave that goes at one event.
const SHARE: u64 = 16;

/// Watches from a thread of its own for as long as the cache lives. Without pressure information there is nothing to watch,
/// and the shrinker stays idle.
pub fn watch(cache: &Arc<Zswap>) {
    let Ok(mut pressure) = File::options().read(true).write(true).open("/proc/pressure/memory") else {
        return;
    };
    if pressure.write_all(TRIGGER).is_err() {
        return;
    }
    let cache = Arc::downgrade(cache);
    let watching = move || {
        loop {
            let mut events = [PollFd::new(&pressure, PollFlags::PRI)];
            if poll(&mut events, None).is_err() || events[0].revents().contains(PollFlags::ERR) {
                return;
            }
            let Some(cache) = cache.upgrade() else { return };
            let pages = cache.shrinker_count();
            cache.shrinker_scan(pages / SHARE);
        }
    };
    // Without this thread everything but the shrinker works.
    let _ = std::thread::Builder::new().name("pressure".to_owned()).spawn(watching);
}
