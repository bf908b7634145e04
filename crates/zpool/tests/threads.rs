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

/// Decompressing takes longer than all else: what is read must stay, and must stop nobody else.
#[test]
fn who_reads_stops_nobody_else() {
    const SIZE: usize = 2720;
    let pool = create("zsmalloc", &Config::default()).unwrap();
    let mut held: Vec<_> = (0..100u8)
        .map(|mark| {
            let handle = pool.malloc(SIZE).unwrap();
            pool.obj_write(handle, &[mark; SIZE]).unwrap();
            (handle, mark)
        })
        .collect();
    let (read, mark) = held.swap_remove(50);
    // Those left keep compaction busy, round the one that is read.
    let gone: Vec<_> = held.iter().copied().filter(|(_, mark)| mark % 3 > 0).collect();
    held.retain(|(_, mark)| mark % 3 == 0);
    std::thread::scope(|scope| {
        let mut freeing = None;
        pool.obj_read(read, &mut |slot| {
            // In the same class, all of it, while we read.
            let others = scope.spawn(|| {
                gone.iter().for_each(|(handle, _)| pool.free(*handle).unwrap());
                let pages = pool.compact();
                let more = pool.malloc(SIZE).unwrap();
                pool.obj_write(more, &[200; SIZE]).unwrap();
                for (handle, mark) in &held {
                    pool.obj_read(*handle, &mut |slot| assert_eq!(slot[..SIZE], [*mark; SIZE])).unwrap();
                }
                nested(&*pool, read, 3, &[mark; SIZE]);
                pool.free(more).unwrap();
                pages
            });
            assert!(others.join().unwrap() > 0, "compaction works meanwhile");
            // To free this object is to wait for its reader.
            let free = scope.spawn(|| pool.free(read).unwrap());
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert!(!free.is_finished());
            assert_eq!(slot[..SIZE], [mark; SIZE]);
            freeing = Some(free);
        })
        .unwrap();
        freeing.unwrap().join().unwrap();
    });
    assert!(pool.free(read).is_err(), "it was freed when its reader had ended");
    held.iter().for_each(|(handle, _)| pool.free(*handle).unwrap());
    assert_eq!(pool.total_pages(), 0);
}

/// Reads an object again and again, each time within the one before.
fn nested(pool: &dyn zpool::Zpool, handle: zpool::Handle, times: u32, content: &[u8]) {
    pool.obj_read(handle, &mut |slot| {
        assert_eq!(&slot[..content.len()], content);
        if times > 0 {
            nested(pool, handle, times - 1, content);
        }
    })
    .unwrap();
}
