//! What a pool costs on real pages, in time and in memory.
//!
//! `density FILE...` takes files of raw 4096-byte pages, compresses each page with lz4, and prints for each driver:
//! nanoseconds a `malloc`, write, read and `free` of a 1.3 KiB object in a warm pool; then, with the pages' own sizes,
//! pool bytes a byte of payload and metadata bytes an object, full and after a random half was freed, before and after
//! compaction. Same-filled pages are left out, and pages that do not compress are kept raw, as zswap does.

use std::process::ExitCode;
use std::time::Instant;

use zpool::{Config, Handle, PAGE_SIZE, Zpool, create};

fn main() -> ExitCode {
    let mut sizes = Vec::new();
    for file in std::env::args().skip(1) {
        match std::fs::read(&file) {
            Ok(bytes) => sizes.extend(bytes.chunks_exact(PAGE_SIZE).filter_map(stored_size)),
            Err(error) => {
                eprintln!("density: {file}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    if sizes.is_empty() {
        eprintln!("usage: density FILE... (raw 4096-byte pages)");
        return ExitCode::from(2);
    }
    let payload: usize = sizes.iter().sum();
    println!("{} pages, {:.1} bytes a page", sizes.len(), payload as f64 / sizes.len() as f64);
    println!(
        "driver      ns a cycle   full  metadata | half freed  compacted  metadata  pages freed  us a page"
    );
    for (driver, chain_size) in [("zsmalloc", 4), ("zsmalloc", 8), ("zsmalloc", 16), ("zbud", 8)] {
        let config = Config { chain_size, grow: None };
        match create(driver, &config) {
            Ok(pool) => row(&format!("{driver} {chain_size}"), &*pool, &sizes),
            Err(error) => eprintln!("density: {driver}: {error:?}"),
        }
    }
    ExitCode::SUCCESS
}

/// Bytes that zswap would store for a page; `None` for a same-filled one.
fn stored_size(page: &[u8]) -> Option<usize> {
    let same = page.chunks_exact(8).all(|word| word == &page[..8]);
    (!same).then(|| lz4_flex::block::compress(page).len().min(PAGE_SIZE))
}

fn row(name: &str, pool: &dyn Zpool, sizes: &[usize]) {
    let sizes: Vec<usize> = sizes.iter().copied().filter(|&size| size <= pool.max_object()).collect();
    let cycle = cycle_ns(pool);
    let mut held: Vec<(Handle, usize)> = Vec::new();
    for &size in &sizes {
        if let Ok(handle) = pool.malloc(size) {
            held.push((handle, size));
        }
    }
    let (full, full_metadata) = measure(pool, &held);
    let mut random = 1u64;
    held.retain(|&(handle, _)| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        random >> 63 == 0 || pool.free(handle).is_err()
    });
    let (half, _) = measure(pool, &held);
    let start = Instant::now();
    let freed = pool.compact();
    let micros = start.elapsed().as_micros() as f64 / freed.max(1) as f64;
    let (compacted, metadata) = measure(pool, &held);
    println!(
        "{name:<11} {cycle:>10.1} {full:>6.4} {full_metadata:>9.2} | {half:>10.4} {compacted:>10.4} {metadata:>9.2} {freed:>12} {micros:>10.2}"
    );
    for (handle, _) in held {
        assert!(pool.free(handle).is_ok(), "a live handle was not known");
    }
    assert_eq!(pool.total_pages(), 0, "pages are left in an empty pool");
}

/// Pool bytes a byte of payload, and metadata bytes an object.
fn measure(pool: &dyn Zpool, held: &[(Handle, usize)]) -> (f64, f64) {
    let payload: usize = held.iter().map(|(_, size)| size).sum();
    let pool_bytes = pool.total_pages() * PAGE_SIZE;
    (pool_bytes as f64 / payload as f64, pool.metadata_bytes() as f64 / held.len() as f64)
}

/// Nanoseconds for one object to come, be written, read and go, in a pool with 64 MiB of others: the best of ten runs,
/// since other programs only ever make it slower.
fn cycle_ns(pool: &dyn Zpool) -> f64 {
    const CYCLES: u32 = 200_000;
    let (object, mut copy) = ([7u8; 1300], [0u8; PAGE_SIZE]);
    let others: Vec<Handle> = (0..50_000).filter_map(|_| pool.malloc(object.len()).ok()).collect();
    let mut run = || {
        let start = Instant::now();
        for _ in 0..CYCLES {
            let Ok(handle) = pool.malloc(object.len()) else { continue };
            let written = pool.obj_write(handle, &object);
            let read = pool.obj_read(handle, &mut |slot| {
                copy[..object.len()].copy_from_slice(&slot[..object.len()]);
            });
            assert!(
                written.is_ok() && read.is_ok() && pool.free(handle).is_ok(),
                "a live handle was not known"
            );
            std::hint::black_box(&copy);
        }
        start.elapsed().as_nanos() as f64 / f64::from(CYCLES)
    };
    let nanos = (0..10).map(|_| run()).fold(f64::INFINITY, f64::min);
    assert!(others.into_iter().all(|handle| pool.free(handle).is_ok()), "a live handle was not known");
    nanos
}
