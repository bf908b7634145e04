//! Many threads on one pool: nobody sees another's bytes, through compaction too.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use zpool::{Config, create};

#[test]
fn threads_keep_their_own_objects() {
    for driver in ["zbud", "zsmalloc"] {
        let pool = create(driver, &Config::default()).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4u64)
                .map(|thread| {
                    let pool = &pool;
                    scope.spawn(move || {
                        let mut seed = thread + 1;
                        let mut random = |limit: usize| {
                            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                            ((seed >> 33) as usize) % limit
                        };
                        let mut held = Vec::new();
                        for step in 0..20_000u64 {
                            if held.len() < 400 && random(100) < 55 {
                                let len = 8 + random(3000);
                                let handle = pool.malloc(len).unwrap();
                                let mark = (thread << 48 | step).to_le_bytes();
                                let bytes: Vec<u8> = mark.iter().copied().cycle().take(len).collect();
                                pool.obj_write(handle, &bytes).unwrap();
                                held.push((handle, bytes));
                            } else if !held.is_empty() {
                                let (handle, bytes) = held.swap_remove(random(held.len()));
                                pool.obj_read(handle, &mut |slot| assert_eq!(slot[..bytes.len()], bytes))
                                    .unwrap();
                                pool.free(handle).unwrap();
                            }
                        }
                        for (handle, _) in held {
                            pool.free(handle).unwrap();
                        }
                    })
                })
                .collect();
            scope.spawn(|| {
                while !done.load(SeqCst) {
                    pool.compact();
                    pool.class_stats();
                    std::thread::yield_now();
                }
            });
            for worker in workers {
                worker.join().unwrap();
            }
            done.store(true, SeqCst);
        });
        assert_eq!(pool.total_pages(), 0);
    }
}
