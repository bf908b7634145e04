//! Every reason for which a page is not taken, with its counter and errno, and that nothing older is left then; limits and
//! hysteresis to the byte; devices that fail, and devices that lie.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use swapfile::faulty::{Countdown, Counting, Crash, Lasting, Op};
use swapfile::{DeviceError, Memory, SwapDevice};
use zswap::{Counter, LoadError, Page, Param, Placed, Refusal, Source, SwapOutError, Zswap};

use crate::support::*;

fn memory() -> Memory {
    Memory::new(u64::from(SLOTS), SLOTS as usize).unwrap()
}

/// Everything that counts a refusal.
const REASONS: [Counter; 9] = [
    Counter::PoolLimitHit,
    Counter::RejectReclaimFail,
    Counter::RejectAllocFail,
    Counter::RejectKmemcacheFail,
    Counter::RejectCompressPoor,
    Counter::RejectCompressFail,
    Counter::RejectDisabled,
    Counter::RejectHysteresis,
    Counter::RejectNonSameFilled,
];

/// Stores `page` over an older one: it is refused, this alone is counted, and the older one is gone.
#[track_caller]
fn refused(cache: &Zswap, page: &Page, refusal: Refusal, errno: i32, counted: Option<Counter>) {
    let counts = || REASONS.map(|reason| cache.counter(reason));
    let before = counts();
    assert_eq!(cache.store(at(1), page), Err(refusal));
    assert_eq!(refusal.errno(), errno);
    for ((reason, before), after) in REASONS.into_iter().zip(before).zip(counts()) {
        assert_eq!(after - before, u64::from(Some(reason) == counted), "{} for {refusal:?}", reason.name());
    }
    expect_absent(cache, 1);
}

fn holding_one(name: &str, params: &[(&str, &str)], device: Option<Arc<dyn SwapDevice>>) -> Zswap {
    let cache = Zswap::new(options(name, params)).unwrap();
    cache.swapon(TYPE, SLOTS, device).unwrap();
    cache.store(at(1), &compressible(1)).unwrap();
    cache
}

fn held(cache: &Zswap) -> u64 {
    cache.counter(Counter::PoolTotalSize) + cache.counter(Counter::MetadataBytes)
}

#[test]
fn disabled() {
    let cache = holding_one("default", &[], None);
    cache.set(Param::Enabled, "N").unwrap();
    refused(&cache, &compressible(2), Refusal::Disabled, libc::ENODEV, Some(Counter::RejectDisabled));
}

#[test]
fn at_the_limit_and_above_the_threshold() {
    let cache = holding_one("default", &[], None);
    cache.set(Param::MaxPoolBytes, "1").unwrap();
    assert!(!cache.is_full());
    refused(&cache, &compressible(2), Refusal::PoolLimit, libc::ENOMEM, Some(Counter::PoolLimitHit));
    assert!(cache.is_full());
    cache.set(Param::MaxPoolBytes, &(held(&cache) + 1).to_string()).unwrap();
    refused(&cache, &compressible(2), Refusal::Hysteresis, libc::ENOMEM, Some(Counter::RejectHysteresis));
    assert!(cache.is_full());
}

#[test]
fn not_same_filled() {
    let cache = holding_one("default", &[], None);
    cache.set(Param::NonSameFilledPagesEnabled, "N").unwrap();
    let counted = Some(Counter::RejectNonSameFilled);
    refused(&cache, &compressible(2), Refusal::NonSameFilled, libc::EINVAL, counted);
    cache.store(at(1), &same_filled(9)).unwrap();
    cache.set(Param::SameFilledPagesEnabled, "N").unwrap();
    refused(&cache, &same_filled(9), Refusal::NonSameFilled, libc::EINVAL, counted);
}

#[test]
fn compresses_too_little() {
    let cache = holding_one("default", &[], None);
    cache.set(Param::MaxCompressionRatio, "50").unwrap();
    let counted = Some(Counter::RejectCompressPoor);
    refused(&cache, &noisy(2, 3000), Refusal::CompressPoor, libc::E2BIG, counted);
    cache.store(at(1), &noisy(2, 1000)).unwrap();
    // 3.11 and the zpool profile have no ratio: there it is what zbud cannot hold.
    let cache = holding_one("3.11", &[], None);
    refused(&cache, &noisy(2, 4000), Refusal::CompressPoor, libc::E2BIG, counted);
    refused(&cache, &incompressible(2), Refusal::CompressPoor, libc::E2BIG, counted);
}

#[test]
fn does_not_compress_and_could_never_leave() {
    let cache = holding_one("default", &[], None);
    let counted = Some(Counter::RejectCompressFail);
    refused(&cache, &incompressible(2), Refusal::CompressFail, libc::EINVAL, counted);
    let device = Arc::new(Countdown::new(memory()));
    let cache = holding_one("6.18", &[], Some(device.clone()));
    cache.store(at(2), &incompressible(2)).unwrap();
    assert_eq!(cache.counter(Counter::StoredIncompressiblePages), 1);
    device.fail(Op::Flush, 0, Lasting::Once, libc::EIO);
    cache.flush(TYPE).unwrap_err();
    refused(&cache, &incompressible(3), Refusal::CompressFail, libc::EINVAL, counted);
}

#[test]
fn no_memory_in_the_allocator() {
    for (name, zpool) in
        [("default", "zsmalloc"), ("default", "zbud"), ("6.18", ""), ("v1", ""), ("3.11", "")]
    {
        let params = [("zpool", zpool)];
        let mut options = options(name, if zpool.is_empty() { &[] } else { &params });
        let refusing = refusing(&mut options);
        // v1 writes back to make room; without a device it cannot.
        let cache = Zswap::new(options).unwrap();
        cache.swapon(TYPE, SLOTS, None).unwrap();
        // Neither a buddy for it in zbud nor of its size class in zsmalloc.
        cache.store(at(1), &noisy(1, 1900)).unwrap();
        refusing.store(true, SeqCst);
        refused(&cache, &noisy(2, 3100), Refusal::AllocFail, libc::ENOMEM, Some(Counter::RejectAllocFail));
        refusing.store(false, SeqCst);
        cache.store(at(1), &noisy(2, 3100)).unwrap();
        expect(&cache, 1, &noisy(2, 3100), Source::Cache);
    }
}

#[test]
fn nothing_could_be_written_back() {
    for name in ["v1", "3.11"] {
        let cache = holding_one(name, &[], None);
        cache.set(Param::MaxPoolPercent, "0").unwrap();
        let before = cache.counter(Counter::PoolLimitHit);
        assert_eq!(cache.store(at(1), &compressible(2)), Err(Refusal::ReclaimFail));
        assert_eq!(Refusal::ReclaimFail.errno(), libc::ENOMEM);
        assert_eq!(cache.counter(Counter::PoolLimitHit), before + 1);
        assert_eq!(cache.counter(Counter::RejectReclaimFail), 1);
        expect_absent(&cache, 1);
        expect_empty(&cache);
    }
}

#[test]
fn no_such_slot() {
    let cache = holding_one("default", &[], None);
    for (swap_type, offset) in
        [(TYPE, SLOTS), (TYPE, u32::MAX), (TYPE + 1, 1), (zswap::SWAP_TYPES, 1), (255, 0)]
    {
        let entry = zswap::SwapEntry { swap_type, offset };
        assert_eq!(cache.store(entry, &compressible(1)), Err(Refusal::NoArea), "{entry:?}");
        assert_eq!(cache.swap_out(entry, &compressible(1)), Err(SwapOutError::NoDevice(Refusal::NoArea)));
        assert!(!cache.contains(entry));
        let mut page = [7; 4096];
        assert_eq!(cache.load(entry, &mut page, zswap::Keep::Always), Ok(None));
        assert!(page == [7; 4096]);
        cache.invalidate_page(entry);
        cache.invalidate_range(entry, u32::MAX);
        cache.invalidate_area(if swap_type == TYPE { 99 } else { swap_type });
    }
    assert_eq!(Refusal::NoArea.errno(), libc::ENODEV);
    expect(&cache, 1, &compressible(1), Source::Cache);
}

/// What is held right after a store was refused. Refusals change neither pool nor index, so it is what the next store
/// will find.
fn fill(cache: &Zswap, pages: u32) -> u64 {
    for offset in 0..pages {
        cache.store(at(offset), &compressible(u64::from(offset))).unwrap();
    }
    // Contexts and buffers come with the first store of a thread: after this one, there are no more.
    held(cache)
}

#[test]
fn hysteresis_ends_at_the_threshold_to_the_byte() {
    let mut options = options("default", &[("accept_threshold_percent", "50"), ("exclusive_loads", "N")]);
    options.workers = 1;
    let cache = Zswap::new(options).unwrap();
    cache.swapon(TYPE, SLOTS, None).unwrap();
    let held_now = fill(&cache, 500);
    let limit = |bytes: u64| cache.set(Param::MaxPoolBytes, &bytes.to_string()).unwrap();
    // Below the limit by a byte: taken, also above the threshold, for it was never full.
    limit(held_now + 1);
    cache.store(at(0), &compressible(0)).unwrap();
    assert_eq!(held(&cache), held_now);
    // At the limit: refused, and from then on until at most half is used.
    limit(held_now);
    assert_eq!(cache.store(at(600), &same_filled(1)), Err(Refusal::PoolLimit));
    limit(2 * held_now - 2);
    assert_eq!(cache.counter(Counter::PoolLimitBytes), 2 * held_now - 2);
    assert_eq!(cache.store(at(600), &same_filled(1)), Err(Refusal::Hysteresis));
    assert!(cache.is_full());
    limit(2 * held_now);
    cache.store(at(0), &compressible(0)).unwrap();
    assert!(!cache.is_full());
    // And above the threshold again it is not full until the limit is met again.
    limit(held_now + 1);
    cache.store(at(0), &compressible(0)).unwrap();
    // 100 percent: no hysteresis.
    cache.set(Param::AcceptThresholdPercent, "100").unwrap();
    limit(held_now);
    assert_eq!(cache.store(at(600), &same_filled(1)), Err(Refusal::PoolLimit));
    limit(held_now + 1);
    cache.store(at(0), &compressible(0)).unwrap();
}

#[test]
fn limits_of_nothing_and_of_one_percent() {
    let device = Arc::new(Counting::new(memory()));
    let cache = with_device(options("default", &[("exclusive_loads", "N")]), &device);
    cache.set(Param::MaxPoolPercent, "0").unwrap();
    assert_eq!(cache.counter(Counter::PoolLimitBytes), 0);
    assert_eq!(cache.swap_out(at(1), &compressible(1)), Ok(Placed::Device(Refusal::PoolLimit)));
    expect(&cache, 1, &compressible(1), Source::Device);
    assert_eq!(cache.counter(Counter::DeviceWrites), 1);
    assert_eq!(cache.counter(Counter::Zswpout), 0);
    cache.set(Param::MaxPoolPercent, "1").unwrap();
    assert_eq!(cache.counter(Counter::PoolLimitBytes), (1 << 30) / 100);
    assert_eq!(cache.swap_out(at(1), &compressible(2)), Ok(Placed::Cache));
    expect(&cache, 1, &compressible(2), Source::Cache);
    // Bytes go before percent, and 0 bytes give the word back to percent.
    cache.set(Param::MaxPoolBytes, "12345").unwrap();
    assert_eq!(cache.counter(Counter::PoolLimitBytes), 12345);
    cache.set(Param::MaxPoolBytes, "0").unwrap();
    assert_eq!(cache.counter(Counter::PoolLimitBytes), (1 << 30) / 100);
    cache.set(Param::MaxPoolPercent, "100").unwrap();
    assert_eq!(cache.counter(Counter::PoolLimitBytes), 1 << 30);
}

#[test]
fn without_a_device_everything_below_the_limit_is_kept_and_nothing_above() {
    let mut options = options("default", &[("max_compression_ratio", "50"), ("exclusive_loads", "N")]);
    let refusing = refusing(&mut options);
    let cache = Zswap::new(options).unwrap();
    cache.swapon(TYPE, SLOTS, None).unwrap();
    let kept = |offset: u32, page: &Page| {
        assert_eq!(cache.swap_out(at(offset), page), Ok(Placed::Fallback));
        expect(&cache, offset, page, Source::Cache);
    };
    kept(1, &noisy(1, 3000));
    kept(2, &incompressible(2));
    cache.set(Param::Zpool, "zbud").unwrap();
    kept(3, &incompressible(3));
    kept(4, &noisy(4, 4000));
    cache.set(Param::NonSameFilledPagesEnabled, "N").unwrap();
    kept(5, &compressible(5));
    cache.set(Param::Enabled, "N").unwrap();
    kept(5, &compressible(6));
    kept(6, &same_filled(6));
    cache.set(Param::Enabled, "Y").unwrap();
    cache.set(Param::NonSameFilledPagesEnabled, "Y").unwrap();
    // Full before and above the threshold now: refused by policy, and kept.
    cache.set(Param::MaxPoolBytes, "1").unwrap();
    assert_eq!(cache.swap_out(at(7), &compressible(7)), Err(SwapOutError::NoDevice(Refusal::PoolLimit)));
    cache.set(Param::MaxPoolBytes, &(held(&cache) + 1).to_string()).unwrap();
    assert_eq!(cache.store(at(7), &compressible(7)), Err(Refusal::Hysteresis));
    kept(5, &compressible(7));
    // What finds no room leaves nothing, also nothing older.
    let failures = cache.counter(Counter::SwapOutFail);
    cache.set(Param::MaxPoolBytes, "1").unwrap();
    let error = cache.swap_out(at(5), &compressible(8)).unwrap_err();
    assert_eq!((error.clone(), error.errno()), (SwapOutError::NoDevice(Refusal::PoolLimit), libc::EIO));
    expect_absent(&cache, 5);
    cache.set(Param::MaxPoolBytes, "0").unwrap();
    refusing.store(true, SeqCst);
    let mut refusals = 0;
    for offset in 100..300 {
        match cache.swap_out(at(offset), &incompressible(1)) {
            Ok(_) => expect(&cache, offset, &incompressible(1), Source::Cache),
            Err(error) => {
                assert_eq!(error, SwapOutError::NoDevice(Refusal::AllocFail));
                expect_absent(&cache, offset);
                refusals += 1;
            }
        }
    }
    assert!(refusals > 100, "{refusals}");
    assert_eq!(cache.counter(Counter::SwapOutFail), failures + 1 + refusals);
    cache.invalidate_range(at(0), SLOTS);
    expect_empty(&cache);
}

#[test]
fn a_failed_device_says_so_and_takes_nothing_more() {
    let device = Arc::new(Countdown::new(Counting::new(memory())));
    let cache = on_device(&device);
    for offset in 0..64 {
        cache.store(at(offset), &compressible(u64::from(offset))).unwrap();
    }
    // Neighbours go in one request: 32 pages get there, and the next request fails.
    device.fail(Op::Write, 1, Lasting::Once, libc::ENOSPC);
    assert_eq!(write_all_back(&cache), 32);
    assert_eq!(cache.device_error(TYPE), Some(libc::ENOSPC));
    assert_eq!(cache.counter(Counter::DeviceErrors), 1);
    assert_eq!(cache.counter(Counter::RejectReclaimFail), 32);
    assert_eq!(cache.counter(Counter::WrittenBackPages), 32);
    // What it has taken before can be read, and is looked at with care; the pool goes on.
    for offset in 0..32 {
        expect(&cache, offset, &compressible(u64::from(offset)), Source::Device);
    }
    device.fail(Op::Read, 0, Lasting::Once, libc::EIO);
    let error = peek(&cache, 3).unwrap_err();
    assert_eq!(error, LoadError::Device(DeviceError::Io(libc::EIO)));
    assert_eq!(error.errno(), libc::EIO);
    assert!(cache.contains(at(3)), "not reported as absent");
    expect(&cache, 3, &compressible(3), Source::Device);
    let before = device.inner().counts();
    for offset in 32..64 {
        expect(&cache, offset, &compressible(u64::from(offset)), Source::Cache);
    }
    assert_eq!(write_all_back(&cache), 0);
    assert_eq!(cache.swap_out(at(1), &compressible(99)), Ok(Placed::Cache), "the pool still takes pages");
    // A page that the policy refuses is kept in RAM while that lasts, as without a device.
    assert_eq!(cache.swap_out(at(33), &incompressible(99)), Ok(Placed::Fallback));
    expect(&cache, 33, &incompressible(99), Source::Cache);
    cache.set(Param::MaxPoolBytes, "4096").unwrap();
    let error = cache.swap_out(at(33), &incompressible(99)).unwrap_err();
    assert_eq!(error, SwapOutError::NoDevice(Refusal::PoolLimit));
    expect_absent(&cache, 33);
    cache.set(Param::MaxPoolBytes, "0").unwrap();
    cache.invalidate_range(at(0), SLOTS);
    assert!(cache.flush(TYPE).is_err());
    assert_eq!(device.inner().counts(), before, "the device was given something again");
    expect_empty(&cache);
    // Off and on again, it is another device.
    cache.invalidate_area(TYPE);
    cache.swapon(TYPE, SLOTS, Some(device)).unwrap();
    assert_eq!(cache.device_error(TYPE), None);
    cache.store(at(1), &incompressible(1)).unwrap();
    assert_eq!(write_all_back(&cache), 1);
    expect(&cache, 1, &incompressible(1), Source::Device);
}

#[test]
fn a_failed_direct_write_leaves_no_page_and_a_failed_read_keeps_it() {
    let device = Arc::new(Countdown::new(memory()));
    let cache = on_device(&device);
    cache.set(Param::Enabled, "N").unwrap();
    cache.swap_out(at(1), &compressible(1)).unwrap();
    device.fail(Op::Read, 0, Lasting::Once, libc::EIO);
    assert_eq!(peek(&cache, 1), Err(LoadError::Device(DeviceError::Io(libc::EIO))));
    assert!(cache.contains(at(1)));
    let cache = on_device(&device);
    cache.store(at(1), &compressible(1)).unwrap();
    cache.set(Param::Enabled, "N").unwrap();
    device.fail(Op::Write, 0, Lasting::Once, libc::EIO);
    cache.set(Param::MaxPoolBytes, "4096").unwrap();
    let failed = SwapOutError::Device(Refusal::Disabled, DeviceError::Io(libc::EIO));
    assert_eq!(cache.swap_out(at(1), &compressible(2)), Err(failed));
    expect_absent(&cache, 1);
    expect_empty(&cache);
    // With room in RAM, that is where the page is after the write has failed.
    let cache = on_device(&device);
    cache.store(at(1), &compressible(1)).unwrap();
    cache.set(Param::Enabled, "N").unwrap();
    device.fail(Op::Write, 0, Lasting::Once, libc::EIO);
    assert_eq!(cache.swap_out(at(1), &compressible(2)), Ok(Placed::Fallback));
    expect(&cache, 1, &compressible(2), Source::Cache);
}

/// A device that gives back one bit wrong, while told to.
struct Flipping {
    device: Memory,
    flip: AtomicBool,
    bit: AtomicU64,
}

impl SwapDevice for Flipping {
    fn pages(&self) -> u64 {
        self.device.pages()
    }
    fn read_page(&self, page: u64, out: &mut Page) -> Result<(), DeviceError> {
        self.device.read_page(page, out)?;
        if self.flip.load(SeqCst) {
            let bit = usize::try_from(self.bit.load(SeqCst)).unwrap();
            out[bit / 8] ^= 1 << (bit % 8);
        }
        Ok(())
    }
    fn write_pages(&self, first: u64, data: &[Page]) -> Result<(), DeviceError> {
        self.device.write_pages(first, data)
    }
    fn discard(&self, first: u64, count: u64) -> Result<(), DeviceError> {
        self.device.discard(first, count)
    }
    fn flush(&self) -> Result<(), DeviceError> {
        self.device.flush()
    }
    fn memory_bytes(&self) -> usize {
        self.device.memory_bytes()
    }
}

#[test]
fn a_flipped_bit_is_an_error_and_never_data() {
    let device = Arc::new(Flipping { device: memory(), flip: AtomicBool::new(true), bit: AtomicU64::new(0) });
    let cache = on_device(&device);
    cache.set(Param::ExclusiveLoads, "Y").unwrap();
    let mut random = Random(3);
    for offset in 0..200u32 {
        let page = if offset % 2 == 0 { compressible(1) } else { incompressible(1) };
        cache.store(at(offset), &page).unwrap();
        write_all_back(&cache);
        device.bit.store(random.below(4096 * 8), SeqCst);
        device.flip.store(true, SeqCst);
        let mut out = [0x5a; 4096];
        let loaded = cache.load(at(offset), &mut out, zswap::Keep::AsConfigured);
        assert_eq!(loaded, Err(LoadError::Damaged));
        assert_eq!(LoadError::Damaged.errno(), libc::EIO);
        assert_eq!(cache.counter(Counter::DecompressFail), u64::from(offset) + 1);
        // It was the way, not the page: the entry was kept.
        device.flip.store(false, SeqCst);
        expect(&cache, offset, &page, Source::Device);
    }
    assert_eq!(cache.device_error(TYPE), None);
}

#[test]
fn what_a_power_failure_tore_is_an_error_and_never_data() {
    let mut torn = 0;
    for seed in 0..20 {
        let device = Arc::new(Crash::new(memory()));
        let cache = on_device(&device);
        for offset in 0..50 {
            cache.store(at(offset), &compressible(u64::from(offset))).unwrap();
        }
        write_all_back(&cache);
        // Older pages below, so that a torn or lost write leaves something that looks like a page.
        device.flush().unwrap();
        for offset in 0..50 {
            cache.store(at(offset), &compressible(u64::from(offset) + 1000)).unwrap();
        }
        write_all_back(&cache);
        device.crash(seed).unwrap();
        for offset in 0..50 {
            match peek(&cache, offset) {
                Ok(Some((_, page))) => assert!(*page == compressible(u64::from(offset) + 1000)),
                Err(LoadError::Damaged) => torn += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert!((100..900).contains(&torn), "{torn} of 1000 torn or lost");
}
