//! Many threads at once, with the shrink worker running and parameters changing under them. Each thread has slots of its
//! own, whose content it knows exactly, and writes a few slots that all others read: what those see never gets older.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread;

use swapfile::Memory;
use zswap::{Keep, PAGE_SIZE, PROFILES, Page, Param, Zswap};

use crate::support::*;

const THREADS: u32 = 4;
const OWN: u32 = 128;
const SHARED_FROM: u32 = THREADS * OWN;
const SHARED: u32 = 4;
const STEPS: u32 = 6000;

/// The page of a version: it tells its slot and version, and all of it follows from those. Noise makes some of them
/// incompressible; versions of one slot have one word in common at most.
fn described(offset: u32, version: u32) -> Page {
    let number = u64::from(offset) << 32 | u64::from(version);
    let mut page = match number % 7 {
        0 => return same_filled(number),
        1 => incompressible(number),
        2 => noisy(number, 2000),
        _ => compressible(number),
    };
    page[..8].copy_from_slice(&number.to_le_bytes());
    page
}

/// The version that `page` is of `offset`. Panics where it is no such page.
fn version_of(offset: u32, page: &Page) -> u32 {
    let number = u64::from_le_bytes(*page.first_chunk().unwrap());
    assert_eq!(number >> 32, u64::from(offset), "a page of another slot");
    let version = u32::try_from(number & 0xffff_ffff).unwrap();
    assert!(*page == described(offset, version), "slot {offset} version {version} is torn");
    version
}

/// One thread: exact on its own slots, and a reader of what others write.
fn own(cache: &Zswap, thread: u32, exclusive: bool) {
    let mut random = Random(u64::from(thread) + 77);
    let mut held: BTreeMap<u32, u32> = BTreeMap::new();
    let mut seen = [0; (THREADS * SHARED) as usize];
    let mut page = [0; PAGE_SIZE];
    for version in 1..=STEPS {
        let mut below = |limit: u32| u32::try_from(random.below(u64::from(limit))).unwrap();
        let offset = if below(8) == 0 {
            SHARED_FROM + thread * SHARED + below(SHARED)
        } else {
            thread * OWN + below(OWN)
        };
        match below(10) {
            0..3 => match cache.store(at(offset), &described(offset, version)) {
                Ok(()) => drop(held.insert(offset, version)),
                Err(_) => drop(held.remove(&offset)),
            },
            3..5 => {
                cache.swap_out(at(offset), &described(offset, version)).unwrap();
                held.insert(offset, version);
            }
            5 => {
                cache.invalidate_page(at(offset));
                held.remove(&offset);
            }
            6..8 => {
                let keep = if below(2) == 0 { Keep::Always } else { Keep::AsConfigured };
                let found = cache.load(at(offset), &mut page, keep).unwrap();
                let version = found.map(|_| version_of(offset, &page));
                assert_eq!(version, held.get(&offset).copied(), "slot {offset}");
                if exclusive && keep == Keep::AsConfigured {
                    assert!(
                        !cache.contains(at(offset)),
                        "slot {offset} was loaded for good and is still there"
                    );
                    held.remove(&offset);
                }
            }
            8 => {
                let index = below(THREADS * SHARED);
                let offset = SHARED_FROM + index;
                let own = (thread * SHARED..(thread + 1) * SHARED).contains(&index);
                if !own && cache.load(at(offset), &mut page, Keep::Always).unwrap().is_some() {
                    let version = version_of(offset, &page);
                    let last = &mut seen[index as usize];
                    assert!(version >= *last, "slot {offset} went back from {last} to {version}");
                    *last = version;
                }
            }
            _ => {
                let count = below(6);
                let first = thread * OWN + below(OWN - 6);
                cache.invalidate_range(at(first), count);
                held.retain(|offset, _| !(first..first + count).contains(offset));
            }
        }
    }
    for offset in (thread * OWN..(thread + 1) * OWN)
        .chain(SHARED_FROM + thread * SHARED..SHARED_FROM + (thread + 1) * SHARED)
    {
        let found = peek(cache, offset).unwrap().map(|(_, page)| version_of(offset, &page));
        assert_eq!(found, held.get(&offset).copied(), "slot {offset} at the end");
    }
}

/// Changes whatever the profile lets be changed, until told to stop.
fn disturb(cache: &Zswap, stop: &AtomicBool) {
    let mut random = Random(1);
    while !stop.load(SeqCst) {
        let mut one_of =
            |texts: &[&'static str]| texts[usize::try_from(random.below(texts.len() as u64)).unwrap()];
        let (param, text) = match one_of(&["compressor", "zpool", "limit", "enabled", "scan", "ratio"]) {
            "compressor" => (Param::Compressor, one_of(&["lzo", "lz4", "zstd"])),
            "zpool" => (Param::Zpool, one_of(&["zbud", "zsmalloc"])),
            "enabled" => (Param::Enabled, one_of(&["Y", "Y", "Y", "N"])),
            "ratio" => (Param::MaxCompressionRatio, one_of(&["100", "70", "40"])),
            "limit" => (Param::MaxPoolPercent, one_of(&["1", "3", "20", "100"])),
            _ => {
                cache.shrinker_scan(20);
                cache.shrink();
                continue;
            }
        };
        // What a profile has not, or not at run time, it refuses.
        let _ = cache.set(param, text);
        thread::yield_now();
    }
}

fn run(name: &str, params: &[(&str, &str)]) {
    let mut options = options(name, params);
    // One percent is too little for what is needed anyway, twenty for all pages.
    options.ram_bytes = 8 << 20;
    let device = Arc::new(Memory::new(u64::from(SLOTS), SLOTS as usize).unwrap());
    let cache = with_device(options, &device);
    let exclusive = match cache.get(Param::ExclusiveLoads) {
        Some(text) => text == "Y",
        None => profile(name).rules.exclusive_loads,
    };
    let (stop, running) = (AtomicBool::new(false), AtomicU32::new(THREADS));
    /// Ends the helpers when the last owner is done or has panicked.
    struct Leaving<'a>(&'a Zswap, &'a AtomicBool, &'a AtomicU32);
    impl Drop for Leaving<'_> {
        fn drop(&mut self) {
            if self.2.fetch_sub(1, SeqCst) == 1 {
                self.1.store(true, SeqCst);
                self.0.stop_shrink_worker();
            }
        }
    }
    thread::scope(|threads| {
        threads.spawn(|| cache.run_shrink_worker());
        threads.spawn(|| disturb(&cache, &stop));
        for thread in 0..THREADS {
            let (cache, stop, running) = (&cache, &stop, &running);
            threads.spawn(move || {
                let _leaving = Leaving(cache, stop, running);
                own(cache, thread, exclusive);
            });
        }
    });
    cache.invalidate_range(at(0), SLOTS);
    expect_empty(&cache);
}

#[test]
fn nothing_is_lost_wrong_or_older_in_any_profile() {
    for profile in PROFILES {
        run(profile.name, &[]);
    }
}

#[test]
fn nothing_is_lost_wrong_or_older_with_every_index_and_allocator() {
    for tree in ["radix", "rbtree"] {
        for zpool in ["zbud", "zsmalloc"] {
            for exclusive in ["Y", "N"] {
                let params = [("tree", tree), ("zpool", zpool), ("exclusive_loads", exclusive)];
                run("default", &[&params[..], &[("shrinker_enabled", "Y")]].concat());
            }
        }
    }
}
