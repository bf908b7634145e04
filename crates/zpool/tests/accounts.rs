//! What a pool says about itself adds up: pages, statistics, metadata, and the count that compaction returns.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use zpool::{Config, Handle, PAGE_SIZE, Zpool, create};

fn random(seed: &mut u64, limit: usize) -> usize {
    *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*seed >> 33) as usize % limit
}

fn fill(pool: &dyn Zpool, objects: usize, seed: &mut u64) -> Vec<Handle> {
    (0..objects).map(|_| pool.malloc(256 + random(seed, 2817)).expect("memory")).collect()
}

fn pages_of_rows(pool: &dyn Zpool) -> usize {
    pool.class_stats().iter().map(|class| class.pages_used).sum()
}

/// Rows count every page of the pool, empty zspages kept for reuse too, and say what compaction frees.
#[test]
fn statistics_count_every_page() {
    for chain_size in [4, 8, 16] {
        let pool = create("zsmalloc", &Config { chain_size, grow: None }).unwrap();
        let mut seed = 5;
        let mut held = fill(&*pool, 20_000, &mut seed);
        while !held.is_empty() {
            for _ in 0..held.len().min(500) {
                let gone = random(&mut seed, held.len());
                pool.free(held.swap_remove(gone)).unwrap();
            }
            let rows = pool.class_stats();
            assert_eq!(pages_of_rows(&*pool), pool.total_pages());
            for row in &rows {
                let zspages: usize = row.fullness.iter().sum();
                assert_eq!(row.pages_used, zspages * row.pages_per_zspage);
                let slots = row.pages_per_zspage * PAGE_SIZE / row.size;
                assert_eq!(row.obj_allocated, zspages * slots);
                let unused = row.obj_allocated - row.obj_used;
                assert_eq!(row.freeable, unused / slots * row.pages_per_zspage, "the kernel's formula");
            }
            if random(&mut seed, 4) == 0 {
                let freeable: usize = rows.iter().map(|row| row.freeable).sum();
                assert_eq!(pool.compact(), freeable, "compaction frees what the rows promise");
                assert_eq!(pool.compact(), 0, "and leaves nothing for a second run");
                assert_eq!(pages_of_rows(&*pool), pool.total_pages());
            }
        }
        assert_eq!(pool.total_pages(), 0);
    }
}

/// What others take and give meanwhile is not counted as compaction's.
#[test]
fn compaction_counts_only_its_own_pages() {
    let pool = create("zsmalloc", &Config::default()).unwrap();
    let mut seed = 6;
    let mut held = fill(&*pool, 40_000, &mut seed);
    held.retain(|&handle| random(&mut seed, 2) == 0 || pool.free(handle).is_err());
    let freeable: usize = pool.class_stats().iter().map(|row| row.freeable).sum();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // One class that no object above is in grows and shrinks: never by what compaction could free there.
        scope.spawn(|| {
            while !done.load(SeqCst) {
                let objects: Vec<_> = (0..64).map(|_| pool.malloc(PAGE_SIZE).unwrap()).collect();
                for object in objects {
                    pool.free(object).unwrap();
                }
            }
        });
        let freed = pool.compact();
        done.store(true, SeqCst);
        // Pages kept for reuse in that class may be given back by compaction: at most 64.
        assert!((freeable.saturating_sub(64)..=freeable + 64).contains(&freed), "{freed} of {freeable}");
    });
}

/// A handle costs little more than its 3-byte cell, in small pools too, and it all goes back.
#[test]
fn metadata_is_small_and_goes_back() {
    let pool = create("zsmalloc", &Config::default()).unwrap();
    let empty = pool.metadata_bytes();
    for objects in [10_000, 60_000] {
        let mut seed = 7;
        let held = fill(&*pool, objects, &mut seed);
        let each = (pool.metadata_bytes() - empty) as f64 / objects as f64;
        println!("{objects} objects: {each:.2} bytes of metadata each, {empty} for the empty pool");
        assert!(each < 12.0, "{objects} objects: {each:.2}");
        for handle in held {
            pool.free(handle).unwrap();
        }
        // The list of free arenas stays: two bytes an arena.
        let left = pool.metadata_bytes() - empty;
        assert!(left < 2048, "{left} bytes are left");
    }
}

/// Idle pages of one class are no reason to refuse an object of another.
#[test]
fn a_closed_gate_does_not_strand_idle_pages() {
    let open = std::sync::Arc::new(AtomicBool::new(true));
    let gate = open.clone();
    let grow: zpool::GrowGate = std::sync::Arc::new(move |_| gate.load(SeqCst));
    let pool = create("zsmalloc", &Config { grow: Some(grow), ..Config::default() }).unwrap();
    let held: Vec<_> = (0..8192).map(|_| pool.malloc(PAGE_SIZE).unwrap()).collect();
    for &handle in &held[..64] {
        pool.free(handle).unwrap();
    }
    assert_eq!(pool.total_pages(), 8192, "64 empty pages are kept");
    open.store(false, SeqCst);
    let pages = pool.total_pages();
    assert!(pool.malloc(PAGE_SIZE).is_ok(), "an idle page of its own class needs no leave to grow");
    assert!(pool.malloc(100).is_err(), "the gate is closed");
    assert!(pool.total_pages() < pages, "but what was kept for others went back before the refusal");
}
