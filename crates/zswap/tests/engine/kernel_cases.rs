//! The cases of the kernel's own zswap selftest, in our terms: a program that touches more than it may keep becomes pages
//! swapped out one after the other. Two cases and a half are about limits of single tenants, which the cache does not have
//! yet: test_no_kmem_bypass, test_no_invasive_cgroup_shrink, and what test_zswap_writeback_disabled says of hierarchies.

use std::sync::Arc;

use swapfile::Memory;
use swapfile::faulty::Counting;
use zswap::{Counter, PROFILES, Param, Placed, Refusal, Source, Zswap};

use crate::support::*;

const MIB: u64 = 1 << 20;
const PAGES: u32 = 4096;

fn cache(name: &str, params: &[(&str, &str)], limit: u64) -> (Zswap, Arc<Counting<Memory>>) {
    let mut options = options(name, params);
    // Twenty percent of it is the limit.
    options.ram_bytes = 5 * limit;
    let device = Arc::new(Counting::new(Memory::new(u64::from(SLOTS), SLOTS as usize).unwrap()));
    (with_device(options, &device), device)
}

/// test_zswap_usage: what does not fit in the program's memory is stored.
#[test]
fn usage() {
    for profile in PROFILES {
        let (cache, _) = cache(profile.name, &[], 64 * MIB);
        for offset in 0..768 {
            assert_eq!(cache.swap_out(at(offset), &compressible(u64::from(offset))), Ok(Placed::Cache));
        }
        assert_eq!(cache.counter(Counter::StoredPages), 768, "{}", profile.name);
        assert_eq!(cache.counter(Counter::Zswpout), 768);
        assert_eq!(cache.counter(Counter::Zswpwb), 0);
        let pool = cache.counter(Counter::PoolTotalSize);
        assert!(pool > 0 && pool < 768 * 4096, "{}: {pool} bytes of pool", profile.name);
    }
}

/// test_swapin_nozswap: with a limit of nothing the device gets everything and the cache stays untouched.
#[test]
fn swapin_without_the_cache() {
    for profile in PROFILES {
        let (cache, device) = cache(profile.name, &[], 64 * MIB);
        cache.set(Param::MaxPoolPercent, "0").unwrap();
        for offset in 0..PAGES {
            let placed = cache.swap_out(at(offset), &compressible(u64::from(offset))).unwrap();
            assert!(
                matches!(placed, Placed::Device(Refusal::PoolLimit | Refusal::ReclaimFail)),
                "{placed:?}"
            );
        }
        for offset in 0..PAGES {
            expect(&cache, offset, &compressible(u64::from(offset)), Source::Device);
        }
        assert_eq!(cache.counter(Counter::Zswpout), 0, "{}", profile.name);
        assert_eq!(cache.counter(Counter::Zswpin), 0);
        assert_eq!(cache.counter(Counter::DeviceWrites), u64::from(PAGES));
        assert_eq!(cache.counter(Counter::DeviceReads), u64::from(PAGES));
        assert_eq!(device.counts().pages_written, u64::from(PAGES));
    }
}

/// test_zswapin: written, swapped out, read again: all of it is right and came from the cache.
#[test]
fn swapin() {
    for profile in PROFILES {
        let (cache, device) = cache(profile.name, &[], 64 * MIB);
        for offset in 0..PAGES {
            cache.swap_out(at(offset), &compressible(u64::from(offset))).unwrap();
        }
        for offset in 0..PAGES {
            expect(&cache, offset, &compressible(u64::from(offset)), Source::Cache);
        }
        assert_eq!(cache.counter(Counter::Zswpin), u64::from(PAGES), "{}", profile.name);
        assert_eq!(device.counts().reads, 0);
    }
}

/// test_zswap_writeback_enabled: pages of which half is noise; read back; then a limit of half of what is used.
#[test]
fn writeback_enabled() {
    for name in ["zpool", "6.18", "default"] {
        let (cache, _) = cache(name, &[], 8 * MIB);
        let page = |offset: u32| noisy(u64::from(offset), 2048);
        for offset in 0..1024 {
            cache.swap_out(at(offset), &page(offset)).unwrap();
        }
        for offset in 0..1024 {
            expect(&cache, offset, &page(offset), Source::Cache);
        }
        let used = cache.counter(Counter::PoolTotalSize) + cache.counter(Counter::MetadataBytes);
        let percent = (used / 2 * 100 / (5 * 8 * MIB)).max(1);
        assert!(percent * 5 * 8 * MIB / 100 < used);
        with_worker(&cache, || {
            // A lower limit wakes the worker itself.
            cache.set(Param::MaxPoolPercent, &percent.to_string()).unwrap();
            wait_until("writeback", || cache.counter(Counter::Zswpwb) > 0);
        });
        assert_eq!(cache.counter(Counter::Zswpwb), cache.counter(Counter::WrittenBackPages), "{name}");
        let sources = (0..1024).map(|offset| {
            let (source, found) = peek(&cache, offset).unwrap().unwrap();
            assert!(*found == page(offset), "{name}: page {offset}");
            source
        });
        let from_device = sources.filter(|source| *source == Source::Device).count() as u64;
        assert_eq!(from_device, cache.counter(Counter::Zswpwb));
    }
}

/// Beyond the kernel: holes that freed objects leave are given back though nobody asks for it, large ones and small.
#[test]
fn holes_are_given_back() {
    let (cache, _) = cache("default", &[], 64 * MIB);
    let page = |offset: u32| noisy(u64::from(offset), 2048);
    let overhead =
        || cache.counter(Counter::PoolTotalSize) as f64 / cache.counter(Counter::CompressedBytes) as f64;
    let stays_of = [|offset: &u32| offset.is_multiple_of(4), |offset: &u32| !offset.is_multiple_of(25)];
    with_worker(&cache, || {
        for stays in stays_of {
            for offset in 0..4096 {
                cache.swap_out(at(offset), &page(offset)).unwrap();
            }
            let full = overhead();
            (0..4096).filter(|offset| !stays(offset)).for_each(|offset| cache.invalidate_page(at(offset)));
            wait_until("compaction", || overhead() < full * 1.02);
            for offset in (0..4096).filter(stays) {
                expect(&cache, offset, &page(offset), Source::Cache);
            }
        }
    });
}

/// test_zswap_writeback_disabled, as far as it is about one cache: nothing leaves where nothing can be written to.
#[test]
fn writeback_disabled() {
    for name in ["zpool", "6.18", "default"] {
        let cache = Zswap::new(options(name, &[])).unwrap();
        cache.swapon(TYPE, SLOTS, None).unwrap();
        for offset in 0..1024 {
            cache.swap_out(at(offset), &noisy(u64::from(offset), 2048)).unwrap();
        }
        cache.set(Param::MaxPoolPercent, "0").unwrap();
        assert_eq!(cache.shrink(), 0);
        assert_eq!(cache.counter(Counter::Zswpwb), 0, "{name}");
        for offset in 0..1024 {
            expect(&cache, offset, &noisy(u64::from(offset), 2048), Source::Cache);
        }
    }
}

/// test_zswap_incompressible (7.1): random pages are stored raw, and the gauge falls when they go.
#[test]
fn incompressible_pages() {
    for name in ["6.18", "default"] {
        let (cache, _) = cache(name, &[], 64 * MIB);
        for offset in 0..1024 {
            assert_eq!(cache.swap_out(at(offset), &incompressible(u64::from(offset))), Ok(Placed::Cache));
        }
        assert_eq!(cache.counter(Counter::StoredIncompressiblePages), 1024, "{name}");
        for offset in 0..1024 {
            expect(&cache, offset, &incompressible(u64::from(offset)), Source::Cache);
            cache.invalidate_page(at(offset));
            assert_eq!(cache.counter(Counter::StoredIncompressiblePages), 1023 - u64::from(offset));
        }
        expect_empty(&cache);
    }
}
