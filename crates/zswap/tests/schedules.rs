//! The engine under a model checker: few threads, one slot, many schedules. Built only by
//! `RUSTFLAGS="--cfg shuttle" cargo test -p zswap --test schedules`.
#![cfg(shuttle)]

use std::sync::Arc;

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Runner, thread};
use swapfile::Memory;
use zswap::{Counter, Keep, Options, PAGE_SIZE, Page, Param, Profile, SwapEntry, Zswap};

const SCHEDULES: usize = 2000;
const SLOT: SwapEntry = SwapEntry { swap_type: 0, offset: 1 };

/// What all of a page follows from. Odd versions compress, even ones do not.
fn page(version: u8) -> Page {
    let mut state = u32::from(version);
    std::array::from_fn(|at| {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        if version % 2 == 1 && at % 8 > 0 { version } else { state.to_be_bytes()[0] }
    })
}

/// Which version the slot has; 0: none.
fn load(cache: &Zswap, keep: Keep) -> u8 {
    let mut out = [0; PAGE_SIZE];
    if cache.load(SLOT, &mut out, keep).unwrap().is_none() {
        return 0;
    }
    (1..8).find(|version| page(*version) == out).expect("a page that nobody stored")
}

fn check(body: fn(Arc<Zswap>)) {
    let run = move || {
        let mut options = Options::new(Profile::named("default").unwrap());
        options.params = vec![("shrinker_enabled".into(), "Y".into())];
        options.workers = 2;
        options.ram_bytes = 1 << 30;
        let cache = Arc::new(Zswap::new(options).unwrap());
        cache.swapon(0, 8, Some(Arc::new(Memory::new(8, 8).unwrap()))).unwrap();
        body(cache.clone());
        let held = cache.counter(Counter::StoredPages) + cache.counter(Counter::DevicePages);
        assert_eq!(held, u64::from(cache.contains(SLOT)), "the gauges are wrong");
        cache.invalidate_page(SLOT);
        assert_eq!(cache.counter(Counter::PoolTotalSize), 0, "an object is left");
        assert_eq!(load(&cache, Keep::Always), 0);
    };
    let mut config = shuttle::Config::new();
    config.stack_size = 1 << 20;
    Runner::new(RandomScheduler::new(SCHEDULES), config.clone()).run(run);
    Runner::new(PctScheduler::new(3, SCHEDULES), config).run(run);
}

fn spawn(cache: &Arc<Zswap>, work: impl FnOnce(&Zswap) + Send + 'static) -> thread::JoinHandle<()> {
    let cache = cache.clone();
    thread::spawn(move || work(&cache))
}

fn writer(cache: &Arc<Zswap>) -> thread::JoinHandle<()> {
    spawn(cache, |cache| drop(cache.shrinker_scan(2)))
}

#[test]
fn an_exclusive_load_removes_what_it_loads_wherever_that_is_by_then() {
    check(|cache| {
        cache.store(SLOT, &page(1)).unwrap();
        load(&cache, Keep::Always);
        let writer = writer(&cache);
        assert_eq!(load(&cache, Keep::AsConfigured), 1);
        assert!(!cache.contains(SLOT), "loaded for good and still there");
        writer.join().unwrap();
        assert_eq!(load(&cache, Keep::Always), 0);
    });
}

#[test]
fn a_slot_never_goes_back_to_an_older_page() {
    check(|cache| {
        cache.store(SLOT, &page(1)).unwrap();
        let writer = writer(&cache);
        let reader = spawn(&cache, |cache| {
            let mut last = 0;
            for _ in 0..3 {
                let seen = load(cache, Keep::Always);
                assert!(seen >= last, "back from {last} to {seen}");
                last = seen;
            }
        });
        cache.store(SLOT, &page(2)).unwrap();
        cache.set(Param::Enabled, "N").unwrap();
        cache.swap_out(SLOT, &page(3)).unwrap();
        cache.set(Param::Enabled, "Y").unwrap();
        assert_eq!(load(&cache, Keep::Always), 3);
        cache.swap_out(SLOT, &page(4)).unwrap();
        writer.join().unwrap();
        reader.join().unwrap();
        assert_eq!(load(&cache, Keep::Always), 4);
    });
}

#[test]
fn an_invalidate_wins_over_a_writeback_and_the_next_store_over_both() {
    check(|cache| {
        cache.store(SLOT, &page(1)).unwrap();
        let threads =
            [writer(&cache), writer(&cache), spawn(&cache, |cache| drop(load(cache, Keep::Always)))];
        cache.invalidate_range(SLOT, 1);
        assert_eq!(load(&cache, Keep::Always), 0);
        cache.store(SLOT, &page(3)).unwrap();
        assert_eq!(load(&cache, Keep::Always), 3);
        threads.map(|thread| thread.join().unwrap());
        assert_eq!(load(&cache, Keep::Always), 3);
    });
}

#[test]
fn a_refused_store_drops_the_older_page_during_its_writeback() {
    check(|cache| {
        cache.store(SLOT, &page(1)).unwrap();
        let writer = writer(&cache);
        cache.set(Param::Enabled, "N").unwrap();
        cache.store(SLOT, &page(3)).unwrap_err();
        assert!(!cache.contains(SLOT));
        writer.join().unwrap();
        assert_eq!(load(&cache, Keep::Always), 0, "the refused store's older page came back");
    });
}

#[test]
fn a_switch_drains_the_old_pool_under_loads_and_writeback() {
    check(|cache| {
        cache.store(SLOT, &page(1)).unwrap();
        let threads = [writer(&cache), spawn(&cache, |cache| cache.set(Param::Zpool, "zbud").unwrap())];
        assert_eq!(load(&cache, Keep::Always), 1);
        cache.store(SLOT, &page(3)).unwrap();
        assert_eq!(load(&cache, Keep::AsConfigured), 3);
        threads.map(|thread| thread.join().unwrap());
        assert_eq!(cache.pools().len(), 1, "{:?}", cache.pools());
    });
}

#[test]
fn a_swapoff_ends_everything() {
    check(|cache| {
        cache.store(SLOT, &page(1)).unwrap();
        let threads = [
            writer(&cache),
            spawn(&cache, |cache| assert!([0, 1, 3].contains(&load(cache, Keep::Always)))),
            spawn(&cache, |cache| drop(cache.swap_out(SLOT, &page(3)))),
        ];
        cache.invalidate_area(0);
        assert!(!cache.contains(SLOT));
        threads.map(|thread| thread.join().unwrap());
        assert_eq!(load(&cache, Keep::Always), 0);
    });
}
