//! Every driver against a naive map: contents, errors, accounting, through compaction and with a gate that refuses.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use zpool::{BadHandle, Config, CreateError, Handle, MallocError, PAGE_SIZE, Zpool, create};

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % limit
    }
}

fn configs() -> Vec<(&'static str, Config)> {
    let chains = [4, 8, 16].map(|chain_size| ("zsmalloc", Config { chain_size, grow: None }));
    std::iter::once(("zbud", Config::default())).chain(chains).collect()
}

fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random(seed);
    (0..len).map(|_| random.below(256) as u8).collect()
}

fn read(pool: &dyn Zpool, handle: Handle, len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    pool.obj_read(handle, &mut |bytes| out.extend_from_slice(&bytes[..len])).unwrap();
    out
}

/// Sizes as different users have them: all sizes, like compressed pages, tiny, nearly a page.
fn size(random: &mut Random, shape: usize, max: usize) -> usize {
    1 + match shape {
        0 => random.below(max),
        1 => 300 + random.below(2500),
        2 => random.below(100),
        _ => max - 1 - random.below(600),
    }
}

#[test]
fn behaves_like_a_map() {
    for (driver, config) in configs() {
        for shape in 0..4 {
            let pool = create(driver, &config).unwrap();
            let mut model: BTreeMap<Handle, (u64, usize)> = BTreeMap::new();
            let mut random = Random(shape as u64 + 1);
            for step in 0..30_000u64 {
                // Grows for a third, stays, then shrinks.
                let grow = if step < 10_000 {
                    70
                } else if step < 20_000 {
                    50
                } else {
                    25
                };
                if random.below(100) < grow {
                    let len = size(&mut random, shape, pool.max_object());
                    // In one step or in two.
                    let handle = if step.is_multiple_of(2) {
                        pool.put(&content(step, len)).unwrap()
                    } else {
                        let handle = pool.malloc(len).unwrap();
                        pool.obj_write(handle, &content(step, len)).unwrap();
                        handle
                    };
                    assert!(handle.raw() < Handle::LIMIT);
                    assert!(
                        model.insert(handle, (step, len)).is_none(),
                        "{driver}: a live handle given out twice"
                    );
                } else if let Some((&handle, &(seed, len))) =
                    model.iter().nth(random.below(model.len().max(1)))
                {
                    assert_eq!(read(&*pool, handle, len), content(seed, len), "{driver} {handle:?}");
                    pool.free(handle).unwrap();
                    model.remove(&handle);
                    assert_eq!(pool.free(handle), Err(BadHandle(handle)), "{driver}: freed twice");
                    assert_eq!(
                        pool.obj_read(handle, &mut |_| panic!("read of a freed object")),
                        Err(BadHandle(handle))
                    );
                    assert_eq!(pool.obj_write(handle, &[1]), Err(BadHandle(handle)));
                }
                if step % 2500 == 0 {
                    let before = pool.total_pages();
                    assert_eq!(before - pool.compact(), pool.total_pages(), "{driver}: compaction miscounts");
                    let used: usize = pool.class_stats().iter().map(|class| class.obj_used).sum();
                    assert_eq!(used, model.len());
                }
            }
            for (&handle, &(seed, len)) in &model {
                assert_eq!(read(&*pool, handle, len), content(seed, len));
                pool.free(handle).unwrap();
            }
            assert_eq!(pool.total_pages(), 0, "{driver}: pages left when all objects are gone");
        }
    }
}

#[test]
fn errors_are_the_kernels() {
    for (driver, config) in configs() {
        let pool = create(driver, &config).unwrap();
        assert_eq!(pool.malloc(0), Err(MallocError::ZeroSize));
        let max = if driver == "zbud" { 3968 } else { PAGE_SIZE };
        assert_eq!(pool.max_object(), max);
        assert_eq!(pool.malloc(max + 1), Err(MallocError::TooBig { max }));
        assert_eq!(pool.malloc(usize::MAX), Err(MallocError::TooBig { max }));
        assert_eq!(pool.put(&[]), Err(MallocError::ZeroSize));
        assert_eq!(pool.put(&vec![1; max + 1]), Err(MallocError::TooBig { max }));
        let handle = pool.malloc(max).unwrap();
        assert_eq!(pool.obj_write(handle, &vec![0; PAGE_SIZE + 1]), Err(BadHandle(handle)));
        for raw in [1, 5, 1000, 100_000, Handle::LIMIT - 1] {
            let stranger = Handle::from_raw(raw).unwrap();
            if stranger != handle {
                assert_eq!(pool.free(stranger), Err(BadHandle(stranger)), "{driver}");
            }
        }
    }
    assert_eq!(MallocError::ZeroSize.errno(), libc_errno("EINVAL"));
    assert_eq!(MallocError::TooBig { max: 1 }.errno(), libc_errno("ENOSPC"));
    assert_eq!(MallocError::NoMemory.errno(), libc_errno("ENOMEM"));
    assert!(matches!(create("z3fold", &Config::default()), Err(CreateError::Unknown)));
    for chain_size in [0, 3, 17] {
        assert!(matches!(
            create("zsmalloc", &Config { chain_size, grow: None }),
            Err(CreateError::ChainSize)
        ));
    }
}

fn libc_errno(name: &str) -> i32 {
    match name {
        "EINVAL" => 22,
        "ENOSPC" => 28,
        _ => 12,
    }
}

/// The gate refuses at every point in turn: the malloc fails, nothing else changes, and later ones work.
#[test]
fn a_refusing_gate_changes_nothing() {
    for (driver, config) in configs() {
        let left = Arc::new(AtomicUsize::new(0));
        let gate = left.clone();
        let grow: zpool::GrowGate =
            Arc::new(move |pages| gate.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(pages)).is_ok());
        let pool = create(driver, &Config { grow: Some(grow), ..config }).unwrap();
        let mut random = Random(9);
        let mut held = Vec::new();
        let mut refused = 0;
        for step in 0..3000u64 {
            left.store(random.below(6), SeqCst);
            let len = 1 + random.below(pool.max_object());
            let pages = pool.total_pages();
            match pool.malloc(len) {
                Ok(handle) => {
                    pool.obj_write(handle, &content(step, len)).unwrap();
                    held.push((handle, step, len));
                }
                Err(error) => {
                    assert_eq!(error, MallocError::NoMemory);
                    assert_eq!(pool.total_pages(), pages);
                    refused += 1;
                }
            }
        }
        assert!(refused > 50 && held.len() > 500, "{driver}: {refused} refused, {} held", held.len());
        for (handle, seed, len) in held {
            assert_eq!(read(&*pool, handle, len), content(seed, len));
            pool.free(handle).unwrap();
        }
        assert_eq!(pool.total_pages(), 0);
    }
}

/// Bytes of pool a byte of payload in zspages that are full: never worse than the kernel's computed table, whose 8-byte
/// headers we do not have.
#[test]
fn density_is_the_tables_or_better() {
    for (chain_size, low, high, overhead) in [
        (4, 32, 4096, 0.076),
        (4, 1024, 3072, 0.056),
        (8, 32, 4096, 0.031),
        (8, 512, 2048, 0.024),
        (8, 1024, 3072, 0.023),
        (16, 32, 4096, 0.015),
        (16, 1024, 3072, 0.013),
    ] {
        let pool = create("zsmalloc", &Config { chain_size, grow: None }).unwrap();
        let mut random = Random(3);
        let mut payload = 0;
        for _ in 0..200_000 {
            let len = low + random.below(high - low + 1);
            pool.malloc(len).unwrap();
            payload += len;
        }
        let full = |class: zpool::ClassStats| match class.obj_allocated {
            0 => 0.0,
            slots => (class.pages_used * PAGE_SIZE * class.obj_used) as f64 / slots as f64,
        };
        let ratio = pool.class_stats().into_iter().map(full).sum::<f64>() / payload as f64;
        println!("chain {chain_size}, {low}..{high}: {ratio:.4}, the table has {:.4}", 1.0 + overhead);
        assert!(ratio <= 1.0 + overhead, "chain {chain_size}, {low}..{high}: {ratio:.4}");
    }
}

#[test]
fn compaction_after_freeing_half_restores_density() {
    for chain_size in [4, 8, 16] {
        let pool = create("zsmalloc", &Config { chain_size, grow: None }).unwrap();
        let mut random = Random(4);
        let mut held = Vec::new();
        for seed in 0..60_000u64 {
            let len = 256 + random.below(2817);
            let handle = pool.malloc(len).unwrap();
            pool.obj_write(handle, &content(seed, len)).unwrap();
            held.push((handle, seed, len));
        }
        held.retain(|(handle, ..)| random.below(2) == 0 || pool.free(*handle).is_err());
        pool.compact();
        let payload: usize = held.iter().map(|(_, _, len)| len).sum();
        let ratio = (pool.total_pages() * PAGE_SIZE) as f64 / payload as f64;
        println!("chain {chain_size}: {ratio:.4} after freeing half and compacting");
        // A zspage of each class is partly empty: with longer chains there are more classes and larger zspages.
        let most = if chain_size == 8 { 1.05 } else { 1.08 };
        assert!(ratio <= most, "chain {chain_size}: {ratio:.4}");
        for &(handle, seed, len) in &held {
            assert_eq!(read(&*pool, handle, len), content(seed, len), "moved wrongly");
        }
        let metadata = pool.metadata_bytes() as f64 / held.len() as f64;
        println!("chain {chain_size}: {metadata:.1} bytes of metadata an object");
    }
}

/// zbud pairs objects: two of half a page to a page, and one page each for larger ones.
#[test]
fn zbud_holds_two_objects_a_page() {
    let pool = create("zbud", &Config::default()).unwrap();
    let small: Vec<_> = (0..100).map(|_| pool.malloc(31 * 64).unwrap()).collect();
    assert_eq!(pool.total_pages(), 50);
    let large: Vec<_> = (0..10).map(|_| pool.malloc(3968).unwrap()).collect();
    assert_eq!(pool.total_pages(), 60);
    // Best fit by chunks: 62 of 63 are taken in each large page, so the last chunk takes one tiny object each.
    let tiny: Vec<_> = (0..10).map(|_| pool.malloc(64).unwrap()).collect();
    assert_eq!(pool.total_pages(), 60);
    let oldest = pool.oldest_page().unwrap();
    assert_eq!(oldest, small[..2], "the page filled first is the oldest");
    pool.rotate_page(oldest[0]);
    assert_eq!(pool.oldest_page().unwrap(), small[2..4]);
    for handle in small.into_iter().chain(large).chain(tiny) {
        pool.free(handle).unwrap();
    }
    assert_eq!((pool.total_pages(), pool.oldest_page()), (0, None));
}

#[test]
fn registry_knows_what_is_in_use() {
    use zpool::{Driver, RegisterError, drivers, register, unregister};
    fn none(_: &Config) -> Result<Box<dyn Zpool>, CreateError> {
        Err(CreateError::NoMemory)
    }
    assert!(drivers().contains(&"zbud") && drivers().contains(&"zsmalloc"));
    assert_eq!(register(Driver { name: "zbud", create: none }), Err(RegisterError::Exists));
    assert_eq!(unregister("none"), Err(RegisterError::Unknown));
    register(Driver { name: "none", create: none }).unwrap();
    assert!(matches!(create("none", &Config::default()), Err(CreateError::NoMemory)));
    unregister("none").unwrap();
    let pool = create("zbud", &Config::default()).unwrap();
    assert_eq!(unregister("zbud"), Err(RegisterError::Busy));
    drop(pool);
    assert_eq!(RegisterError::Busy.errno(), 16);
}
