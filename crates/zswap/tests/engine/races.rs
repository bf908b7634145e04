//! One test for each race that zswap's history knows, arranged with a device (or an allocator) that holds a call until the
//! other side has acted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

use swapfile::faulty::{Countdown, Counting, Gate, Lasting, Op};
use swapfile::{DeviceError, Memory};
use zswap::{
    Counter, Keep, LoadError, Page, Param, Placed, Refusal, Source, SwapOutError, SwaponError, Zswap,
};

use crate::support::*;

type Device = Gate<Counting<Memory>>;

fn device() -> Arc<Device> {
    Arc::new(Gate::new(Counting::new(Memory::new(u64::from(SLOTS), SLOTS as usize).unwrap())))
}

/// Opens all gates when the test is over, also when it failed: the threads that wait there have to end.
struct Opened<'a>(&'a Device);

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        Op::ALL.into_iter().for_each(|op| self.0.open(op));
    }
}

/// Runs `meanwhile` while a writeback of everything in the pool waits at the device.
fn during_writeback(cache: &Zswap, device: &Device, meanwhile: impl FnOnce()) {
    thread::scope(|threads| {
        let _opened = Opened(device);
        device.close(Op::Write);
        let writer = threads.spawn(|| write_all_back(cache));
        assert!(device.wait_held(Op::Write, 1, LIMIT), "nothing is written back");
        meanwhile();
        device.open(Op::Write);
        writer.join().unwrap();
    });
}

#[test]
fn a_load_during_writeback_finds_the_page_in_the_pool() {
    let device = device();
    let cache = on_device(&device);
    cache.store(at(1), &compressible(1)).unwrap();
    during_writeback(&cache, &device, || expect(&cache, 1, &compressible(1), Source::Cache));
    expect(&cache, 1, &compressible(1), Source::Device);
    assert_eq!(cache.counter(Counter::WrittenBackPages), 1);
    cache.invalidate_page(at(1));
    expect_empty(&cache);
}

#[test]
fn an_exclusive_load_during_writeback_takes_the_page() {
    let device = device();
    let cache = on_device(&device);
    cache.set(Param::ExclusiveLoads, "Y").unwrap();
    cache.store(at(1), &compressible(1)).unwrap();
    during_writeback(&cache, &device, || {
        let mut page: Page = [0; 4096];
        assert_eq!(cache.load(at(1), &mut page, Keep::AsConfigured), Ok(Some(Source::Cache)));
        assert!(page == compressible(1));
        expect_absent_in_index(&cache, 1);
    });
    expect_absent(&cache, 1);
    assert_eq!(cache.counter(Counter::WrittenBackPages), 0, "it was not there any more");
    expect_empty(&cache);
}

/// Without a load, which would wait for what is being written to the slot.
fn expect_absent_in_index(cache: &Zswap, offset: u32) {
    assert!(!cache.contains(at(offset)), "slot {offset} is still there");
}

/// Slots 1 to 8 are on the device.
fn eight_on_device(device: &Arc<Device>) -> Zswap {
    let cache = on_device(device);
    for slot in 1..=8 {
        cache.store(at(slot), &compressible(u64::from(slot))).unwrap();
    }
    assert_eq!(write_all_back(&cache), 8);
    cache
}

#[test]
fn a_run_on_the_device_comes_whole_and_stays() {
    let device = device();
    let cache = eight_on_device(&device);
    // Longer than the run; and a run ends where a page is in the pool, or nowhere.
    let mut pages = vec![[0; 4096]; 20];
    for (first, filled) in [(1, 8), (5, 4), (8, 1), (9, 0), (0, 0), (u32::MAX, 0)] {
        assert_eq!(cache.load_from_device(at(first), &mut pages), filled, "from slot {first}");
        for (slot, page) in (u64::from(first)..).zip(&pages[..filled]) {
            assert!(*page == compressible(slot), "slot {slot}");
        }
    }
    assert_eq!(cache.load_from_device(at(1), &mut []), 0);
    assert_eq!(cache.load_from_device(at(1), &mut pages[..3]), 3);
    cache.store(at(4), &compressible(40)).unwrap();
    assert_eq!(cache.load_from_device(at(1), &mut pages), 3);
    cache.invalidate_page(at(2));
    assert_eq!(cache.load_from_device(at(1), &mut pages), 1);
    assert_eq!(cache.counter(Counter::DevicePages), 6, "they stay");
    cache.invalidate_range(at(0), SLOTS);
    expect_empty(&cache);
}

#[test]
fn what_changes_while_a_run_is_read_is_not_in_it() {
    for stored in [false, true] {
        let device = device();
        let cache = eight_on_device(&device);
        thread::scope(|threads| {
            let _opened = Opened(&device);
            device.close(Op::Read);
            let reader = threads.spawn(|| {
                let mut pages = vec![[0; 4096]; 8];
                let filled = cache.load_from_device(at(1), &mut pages);
                (filled, pages)
            });
            assert!(device.wait_held(Op::Read, 1, LIMIT), "nothing is read");
            if stored {
                cache.store(at(6), &compressible(60)).unwrap();
            } else {
                cache.invalidate_page(at(6));
            }
            device.open(Op::Read);
            let (filled, pages) = reader.join().unwrap();
            assert_eq!(filled, 5, "those before it");
            assert!((1..).zip(&pages[..5]).all(|(slot, page)| *page == compressible(slot)));
        });
        if stored {
            expect(&cache, 6, &compressible(60), Source::Cache);
        } else {
            expect_absent(&cache, 6);
        }
        cache.invalidate_range(at(0), SLOTS);
        expect_empty(&cache);
    }
}

#[test]
fn a_run_that_cannot_be_read_fills_nothing_and_loses_nothing() {
    let device = Arc::new(Countdown::new(Memory::new(u64::from(SLOTS), SLOTS as usize).unwrap()));
    let cache = on_device(&device);
    for slot in 1..=8 {
        cache.store(at(slot), &compressible(u64::from(slot))).unwrap();
    }
    assert_eq!(write_all_back(&cache), 8);
    let mut pages = vec![[0; 4096]; 8];
    device.fail(Op::Read, 3, Lasting::Once, libc::EIO);
    assert_eq!(cache.load_from_device(at(1), &mut pages), 0);
    assert_eq!(cache.load_from_device(at(1), &mut pages), 8);
    // The device has another page than was written there.
    swapfile::SwapDevice::write_pages(&*device, 3, &[compressible(99)]).unwrap();
    assert_eq!(cache.load_from_device(at(1), &mut pages), 2);
    assert_eq!(cache.load(at(3), &mut [0; 4096], Keep::Always), Err(LoadError::Damaged));
    assert_eq!(cache.load_from_device(at(4), &mut pages), 5);
}

#[test]
fn an_invalidate_during_writeback_wins() {
    let device = device();
    let cache = on_device(&device);
    cache.store(at(1), &compressible(1)).unwrap();
    cache.store(at(2), &compressible(2)).unwrap();
    during_writeback(&cache, &device, || {
        cache.invalidate_page(at(1));
        expect_absent_in_index(&cache, 1);
    });
    expect_absent(&cache, 1);
    expect(&cache, 2, &compressible(2), Source::Device);
    cache.invalidate_range(at(0), SLOTS);
    expect_empty(&cache);
}

#[test]
fn a_slot_that_is_reused_during_writeback_keeps_the_new_page() {
    for page in [compressible(7), compressible(1), incompressible(7), same_filled(7)] {
        let device = device();
        let cache = on_device(&device);
        cache.store(at(1), &compressible(1)).unwrap();
        during_writeback(&cache, &device, || {
            cache.invalidate_page(at(1));
            cache.store(at(1), &page).unwrap();
            expect(&cache, 1, &page, Source::Cache);
        });
        expect(&cache, 1, &page, Source::Cache);
        // And without the invalidate, over what is being written.
        during_writeback_if_any(&cache, &device, &page);
        write_all_back(&cache);
        assert!(*peek(&cache, 1).unwrap().unwrap().1 == page);
        cache.invalidate_page(at(1));
        expect_empty(&cache);
    }
}

fn during_writeback_if_any(cache: &Zswap, device: &Device, page: &Page) {
    cache.store(at(1), &compressible(9)).unwrap();
    during_writeback(cache, device, || cache.store(at(1), page).unwrap());
    expect(cache, 1, page, Source::Cache);
}

#[test]
fn a_direct_write_to_a_slot_that_is_written_back_lands_last() {
    let device = device();
    let cache = on_device(&device);
    cache.store(at(1), &compressible(1)).unwrap();
    thread::scope(|threads| {
        let _opened = Opened(&device);
        device.close(Op::Write);
        let writer = threads.spawn(|| write_all_back(&cache));
        assert!(device.wait_held(Op::Write, 1, LIMIT));
        cache.set(Param::Enabled, "N").unwrap();
        let direct = threads.spawn(|| cache.swap_out(at(1), &incompressible(2)));
        wait_until("the refusal", || cache.counter(Counter::RejectDisabled) == 1);
        linger();
        assert!(
            !device.wait_held(Op::Write, 2, std::time::Duration::ZERO),
            "two writes of one slot are under way"
        );
        device.pass(Op::Write, 1);
        assert!(device.wait_held(Op::Write, 1, LIMIT), "the second write comes when the first has ended");
        device.open(Op::Write);
        direct.join().unwrap().unwrap();
        writer.join().unwrap();
    });
    expect(&cache, 1, &incompressible(2), Source::Device);
    cache.invalidate_page(at(1));
    expect_empty(&cache);
}

#[test]
fn a_load_waits_for_a_direct_write_to_its_slot() {
    let device = device();
    let cache = on_device(&device);
    cache.store(at(1), &compressible(1)).unwrap();
    cache.set(Param::Enabled, "N").unwrap();
    thread::scope(|threads| {
        let _opened = Opened(&device);
        device.close(Op::Write);
        let direct = threads.spawn(|| cache.swap_out(at(1), &incompressible(2)));
        assert!(device.wait_held(Op::Write, 1, LIMIT));
        let load = threads.spawn(|| expect(&cache, 1, &incompressible(2), Source::Device));
        linger();
        assert!(!load.is_finished(), "the page is neither absent nor the old one");
        // Another slot has nothing to wait for.
        expect_absent(&cache, 2);
        device.open(Op::Write);
        load.join().unwrap();
        direct.join().unwrap().unwrap();
    });
}

#[test]
fn a_discard_and_a_direct_write_of_one_slot_take_turns() {
    let device = device();
    let cache = on_device(&device);
    cache.store(at(1), &compressible(1)).unwrap();
    write_all_back(&cache);
    thread::scope(|threads| {
        let _opened = Opened(&device);
        device.close(Op::Discard);
        let discard = threads.spawn(|| cache.invalidate_range(at(0), 8));
        assert!(device.wait_held(Op::Discard, 1, LIMIT), "what the device held is discarded");
        // A store may come meanwhile, but its writeback may not.
        cache.store(at(1), &compressible(3)).unwrap();
        write_all_back(&cache);
        expect(&cache, 1, &compressible(3), Source::Cache);
        cache.set(Param::Enabled, "N").unwrap();
        let direct = threads.spawn(|| cache.swap_out(at(1), &incompressible(2)));
        wait_until("the refusal", || cache.counter(Counter::RejectDisabled) == 1);
        linger();
        assert!(!direct.is_finished(), "written where a discard is under way");
        assert_eq!(device.inner().counts().pages_written, 1);
        device.open(Op::Discard);
        discard.join().unwrap();
        direct.join().unwrap().unwrap();
    });
    expect(&cache, 1, &incompressible(2), Source::Device);
}

#[test]
fn an_invalidated_range_is_not_discarded_where_a_write_is_under_way() {
    let device = device();
    let cache = on_device(&device);
    for offset in [1, 3] {
        cache.store(at(offset), &compressible(1)).unwrap();
    }
    write_all_back(&cache);
    cache.set(Param::Enabled, "N").unwrap();
    thread::scope(|threads| {
        let _opened = Opened(&device);
        device.close(Op::Write);
        let direct = threads.spawn(|| cache.swap_out(at(2), &incompressible(2)));
        assert!(device.wait_held(Op::Write, 1, LIMIT));
        cache.invalidate_range(at(0), 8);
        assert_eq!(device.inner().counts().discards, 0);
        device.open(Op::Write);
        direct.join().unwrap().unwrap();
    });
    expect(&cache, 2, &incompressible(2), Source::Device);
}

#[test]
fn a_swapoff_waits_for_the_writeback_and_then_nothing_is_left() {
    let device = device();
    let cache = on_device(&device);
    for offset in 0..100 {
        cache.store(at(offset), &compressible(u64::from(offset))).unwrap();
    }
    thread::scope(|threads| {
        let _opened = Opened(&device);
        device.close(Op::Write);
        let writer = threads.spawn(|| write_all_back(&cache));
        assert!(device.wait_held(Op::Write, 1, LIMIT));
        let swapoff = threads.spawn(|| cache.invalidate_area(TYPE));
        wait_until("the swapoff", || !cache.contains(at(0)));
        linger();
        assert!(!swapoff.is_finished(), "the device is still being written");
        assert_eq!(cache.swapon(TYPE, SLOTS, Some(device.clone())), Err(SwaponError::Busy));
        assert_eq!(cache.store(at(1), &compressible(1)), Err(Refusal::NoArea));
        assert_eq!(
            cache.swap_out(at(1), &compressible(1)),
            Err(SwapOutError::NoDevice(Refusal::NoArea)),
            "not even RAM takes it"
        );
        device.open(Op::Write);
        swapoff.join().unwrap();
        writer.join().unwrap();
    });
    expect_empty(&cache);
    cache.swapon(TYPE, SLOTS, Some(device)).unwrap();
    expect_absent(&cache, 1);
    cache.store(at(1), &compressible(1)).unwrap();
    expect(&cache, 1, &compressible(1), Source::Cache);
}

#[test]
fn a_swapoff_waits_for_a_load_from_the_device() {
    let device = device();
    let cache = on_device(&device);
    cache.store(at(1), &compressible(1)).unwrap();
    write_all_back(&cache);
    thread::scope(|threads| {
        let _opened = Opened(&device);
        device.close(Op::Read);
        let load = threads.spawn(|| peek(&cache, 1));
        assert!(device.wait_held(Op::Read, 1, LIMIT));
        let swapoff = threads.spawn(|| cache.invalidate_area(TYPE));
        wait_until("the swapoff", || !cache.contains(at(1)));
        linger();
        assert!(!swapoff.is_finished(), "the device is still being read");
        device.open(Op::Read);
        swapoff.join().unwrap();
        // The page went while it was being loaded.
        assert!(load.join().unwrap().unwrap().is_none_or(|(_, page)| *page == compressible(1)));
    });
    expect_empty(&cache);
}

/// A direct write that waits its turn while its swap type goes off and another device comes on must not be found on the
/// new device, where it was never written.
#[test]
fn a_direct_write_never_counts_as_written_to_the_next_device() {
    for _ in 0..20 {
        let (old, new) = (device(), device());
        let cache = on_device(&old);
        cache.store(at(1), &compressible(1)).unwrap();
        thread::scope(|threads| {
            let _opened = Opened(&old);
            old.close(Op::Write);
            let writer = threads.spawn(|| write_all_back(&cache));
            assert!(old.wait_held(Op::Write, 1, LIMIT));
            cache.set(Param::Enabled, "N").unwrap();
            let direct = threads.spawn(|| cache.swap_out(at(1), &incompressible(2)));
            wait_until("the refusal", || cache.counter(Counter::RejectDisabled) == 1);
            let swapoff = threads.spawn(|| {
                cache.invalidate_area(TYPE);
                cache.swapon(TYPE, SLOTS, Some(new.clone()))
            });
            wait_until("the swapoff", || !cache.contains(at(1)));
            old.open(Op::Write);
            writer.join().unwrap();
            let on_again = swapoff.join().unwrap();
            let placed = direct.join().unwrap();
            if on_again.is_err() {
                // The direct write was under way again by then.
                cache.swapon(TYPE, SLOTS, Some(new.clone())).unwrap();
            }
            match placed {
                // Not to the new device, so into RAM.
                Ok(Placed::Fallback) if cache.contains(at(1)) => {
                    expect(&cache, 1, &incompressible(2), Source::Cache);
                }
                // Into RAM, or onto the old device, and that was switched off.
                Ok(_) if !cache.contains(at(1)) => {}
                Ok(_) => expect(&cache, 1, &incompressible(2), Source::Device),
                Err(SwapOutError::Device(Refusal::Disabled, DeviceError::Io(_))) => expect_absent(&cache, 1),
                Err(error) => panic!("{error}"),
            }
        });
    }
}

/// A cache whose allocator, once the switch is on, holds whoever asks for memory.
fn held_allocation(params: &[(&str, &str)]) -> (Zswap, Arc<AtomicBool>, Arc<AtomicBool>) {
    let (hold, waiting) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (held, told) = (hold.clone(), waiting.clone());
    let mut options = options("default", params);
    options.zpool.grow = Some(Arc::new(move |_| {
        while held.load(SeqCst) {
            told.store(true, SeqCst);
            thread::yield_now();
        }
        true
    }));
    let memory = Arc::new(Memory::new(u64::from(SLOTS), SLOTS as usize).unwrap());
    (with_device(options, &memory), hold, waiting)
}

/// Lets the allocator go on when the test is over, also when it failed.
struct Released<'a>(&'a AtomicBool);

impl Drop for Released<'_> {
    fn drop(&mut self) {
        self.0.store(false, SeqCst);
    }
}

#[test]
fn a_store_that_is_not_finished_is_not_found_and_not_written_back() {
    let (cache, hold, waiting) = held_allocation(&[("shrinker_enabled", "Y"), ("exclusive_loads", "N")]);
    cache.store(at(1), &compressible(1)).unwrap();
    cache.store(at(2), &compressible(2)).unwrap();
    thread::scope(|threads| {
        let _released = Released(&hold);
        hold.store(true, SeqCst);
        let store = threads.spawn(|| cache.store(at(3), &incompressible(3)));
        wait_until("the store", || waiting.load(SeqCst));
        expect_absent(&cache, 3);
        let scan = threads.spawn(|| cache.shrinker_scan(u64::from(SLOTS)));
        for offset in [1, 2] {
            wait_until("writeback", || peek(&cache, offset).unwrap().unwrap().0 == Source::Device);
        }
        expect_absent(&cache, 3);
        hold.store(false, SeqCst);
        store.join().unwrap().unwrap();
        // It may have come in time for the scan's last look, but whole.
        assert!((2..=3).contains(&scan.join().unwrap()));
    });
    assert!(*peek(&cache, 3).unwrap().unwrap().1 == incompressible(3));
    write_all_back(&cache);
    expect(&cache, 3, &incompressible(3), Source::Device);
    cache.invalidate_range(at(0), SLOTS);
    expect_empty(&cache);
}

#[test]
fn an_older_page_is_there_until_its_replacement_is() {
    let (cache, hold, waiting) = held_allocation(&[("exclusive_loads", "N")]);
    cache.store(at(1), &compressible(1)).unwrap();
    thread::scope(|threads| {
        let _released = Released(&hold);
        hold.store(true, SeqCst);
        let store = threads.spawn(|| cache.store(at(1), &incompressible(2)));
        wait_until("the store", || waiting.load(SeqCst));
        expect(&cache, 1, &compressible(1), Source::Cache);
        hold.store(false, SeqCst);
        store.join().unwrap().unwrap();
    });
    expect(&cache, 1, &incompressible(2), Source::Cache);
    assert_eq!(cache.counter(Counter::DuplicateEntry), 1);
    cache.invalidate_page(at(1));
    expect_empty(&cache);
}

#[test]
fn a_switch_waits_for_a_store_under_way_which_keeps_its_own_pair() {
    for (param, value) in [(Param::Compressor, "zstd"), (Param::Zpool, "zbud")] {
        let (cache, hold, waiting) = held_allocation(&[("exclusive_loads", "N")]);
        thread::scope(|threads| {
            let _released = Released(&hold);
            hold.store(true, SeqCst);
            let store = threads.spawn(|| cache.store(at(1), &compressible(1)));
            wait_until("the store", || waiting.load(SeqCst));
            let switch = threads.spawn(|| cache.set(param, value));
            linger();
            assert!(!switch.is_finished(), "the pool went under a store");
            hold.store(false, SeqCst);
            store.join().unwrap().unwrap();
            switch.join().unwrap().unwrap();
        });
        assert_eq!(cache.get(param).unwrap(), value);
        assert_eq!(cache.pools().len(), 2, "the page is in the pool it was made for");
        expect(&cache, 1, &compressible(1), Source::Cache);
        cache.invalidate_page(at(1));
        assert_eq!(cache.pools().len(), 1, "the old pool is drained");
        expect_empty(&cache);
    }
}
