//! What the tests share: pages by number, caches, and waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use swapfile::SwapDevice;
use zswap::{Counter, Keep, LoadError, Options, PAGE_SIZE, Page, Profile, Source, SwapEntry, Zswap};

/// Longer than anything here takes on a busy machine: only a test that hangs gets there.
pub const LIMIT: Duration = Duration::from_secs(60);

pub const TYPE: u8 = 3;
pub const SLOTS: u32 = 4096;

pub fn at(offset: u32) -> SwapEntry {
    SwapEntry { swap_type: TYPE, offset }
}

/// Numbers without a pattern (an LCG's upper half); the same for the same seed.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % limit
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }
}

/// Small numbers, as in tables and counters: every compressor makes it less than a third.
pub fn compressible(number: u64) -> Page {
    let mut random = Random(number);
    let mut page = [0; PAGE_SIZE];
    for word in page.chunks_exact_mut(16) {
        word[..8].copy_from_slice(&(number << 16 | random.below(40)).to_le_bytes());
    }
    page
}

/// No compressor makes it smaller.
pub fn incompressible(number: u64) -> Page {
    let mut random = Random(!number);
    std::array::from_fn(|_| random.byte())
}

/// `share` bytes of noise, the rest zero: it compresses to a little more than `share` bytes.
pub fn noisy(number: u64, share: usize) -> Page {
    let mut page = incompressible(number);
    page[share..].fill(0);
    page
}

/// One word, repeated.
pub fn same_filled(word: u64) -> Page {
    let mut page = [0; PAGE_SIZE];
    page.chunks_exact_mut(8).for_each(|chunk| chunk.copy_from_slice(&word.to_ne_bytes()));
    page
}

pub fn profile(name: &str) -> &'static Profile {
    Profile::named(name).unwrap()
}

/// Options with a limit that is far away and buffers for many threads.
pub fn options(name: &str, params: &[(&str, &str)]) -> Options {
    let mut options = Options::new(profile(name));
    options.params = params.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
    options.ram_bytes = 1 << 30;
    options.workers = 4;
    options
}

/// A cache of profile `default` with `device` behind swap type [`TYPE`].
pub fn on_device<D: SwapDevice + 'static>(device: &Arc<D>) -> Zswap {
    with_device(options("default", &[("exclusive_loads", "N"), ("shrinker_enabled", "Y")]), device)
}

pub fn with_device<D: SwapDevice + 'static>(options: Options, device: &Arc<D>) -> Zswap {
    let cache = Zswap::new(options).unwrap();
    cache.swapon(TYPE, SLOTS, Some(device.clone())).unwrap();
    cache
}

/// An allocator's gate that refuses while the switch is on.
pub fn refusing(options: &mut Options) -> Arc<AtomicBool> {
    let switch = Arc::new(AtomicBool::new(false));
    let asked = switch.clone();
    options.zpool.grow = Some(Arc::new(move |_| !asked.load(SeqCst)));
    switch
}

/// What a load gives without removing anything. A miss must leave the page alone.
pub fn peek(cache: &Zswap, offset: u32) -> Result<Option<(Source, Box<Page>)>, LoadError> {
    let mut page = Box::new([0x5a; PAGE_SIZE]);
    let source = cache.load(at(offset), &mut page, Keep::Always)?;
    assert!(source.is_some() || *page == [0x5a; PAGE_SIZE], "a miss changed the caller's page");
    Ok(source.map(|source| (source, page)))
}

/// The slot holds exactly `page`, and it is where it should be.
#[track_caller]
pub fn expect(cache: &Zswap, offset: u32, page: &Page, source: Source) {
    match peek(cache, offset) {
        Ok(Some((from, found))) => {
            assert!(*found == *page, "slot {offset} holds another page");
            assert_eq!(from, source, "slot {offset}");
        }
        other => panic!("slot {offset}: {other:?}"),
    }
}

#[track_caller]
pub fn expect_absent(cache: &Zswap, offset: u32) {
    assert!(matches!(peek(cache, offset), Ok(None)), "slot {offset} is not absent");
    assert!(!cache.contains(at(offset)));
}

/// Has everything in the pool written back, as far as the device takes it. Needs `shrinker_enabled`.
pub fn write_all_back(cache: &Zswap) -> u64 {
    cache.shrinker_scan(u64::from(SLOTS))
}

/// Waits for something that another thread brings about.
#[track_caller]
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < deadline, "{what}: waited too long");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Does something while a thread is the cache's worker, which ends with it, also by a panic.
pub fn with_worker(cache: &Zswap, act: impl FnOnce()) {
    struct Stop<'a>(&'a Zswap);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.stop_shrink_worker();
        }
    }
    std::thread::scope(|threads| {
        let _stop = Stop(cache);
        threads.spawn(|| cache.run_shrink_worker());
        act();
    });
}

/// Time in which a thread that does not wait as it should would be done.
pub fn linger() {
    std::thread::sleep(Duration::from_millis(50));
}

/// Everything was given back: to be called when nothing is stored any more.
#[track_caller]
pub fn expect_empty(cache: &Zswap) {
    for gauge in [
        Counter::StoredPages,
        Counter::SameFilledPages,
        Counter::StoredIncompressiblePages,
        Counter::DevicePages,
        Counter::CompressedBytes,
        Counter::PoolTotalSize,
    ] {
        assert_eq!(cache.counter(gauge), 0, "{}", gauge.name());
    }
}
