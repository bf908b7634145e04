//! The allocators under a model checker: threads that allocate, write, read, free and compact in the same classes, run
//! through many schedules. Built only by `RUSTFLAGS="--cfg shuttle" cargo test -p zpool --test schedules`.
#![cfg(shuttle)]

use std::sync::Arc;

use shuttle::thread;
use zpool::{BadHandle, Config, Zpool, create};

const SCHEDULES: usize = 2000;

fn check(body: fn(Arc<dyn Zpool>), driver: &'static str) {
    let run = move || body(create(driver, &Config::default()).unwrap());
    shuttle::check_random(run, SCHEDULES);
    shuttle::check_pct(run, SCHEDULES, 3);
}

/// Sizes of three classes; the first has few slots a zspage, so that zspages come, fill and empty within a schedule.
const SIZES: [usize; 3] = [2720, 2048, 3000];

fn come_and_go(pool: &dyn Zpool, mark: u8) {
    let held: Vec<_> = (0..6usize)
        .map(|step| {
            let (size, byte) = (SIZES[step % 3], mark + step as u8);
            let handle = pool.malloc(size).unwrap();
            pool.obj_write(handle, &vec![byte; size]).unwrap();
            (handle, size, byte)
        })
        .collect();
    // Every other one goes, which leaves compaction something to do.
    for half in [0, 1] {
        for &(handle, size, byte) in held.iter().skip(half).step_by(2) {
            pool.obj_read(handle, &mut |slot| {
                assert!(slot[..size].iter().all(|&it| it == byte));
                // Others may do what they like meanwhile.
                thread::yield_now();
                assert!(slot[..size].iter().all(|&it| it == byte));
            })
            .unwrap();
            pool.free(handle).unwrap();
        }
    }
}

fn threads_and_compaction(pool: Arc<dyn Zpool>) {
    let mut threads: Vec<_> = [10, 100]
        .map(|mark| {
            let pool = pool.clone();
            thread::spawn(move || come_and_go(&*pool, mark))
        })
        .into();
    let compacting = pool.clone();
    threads.push(thread::spawn(move || {
        compacting.compact();
        compacting.class_stats();
    }));
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(pool.total_pages(), 0, "pages are left in an empty pool");
}

#[test]
fn zsmalloc_keeps_contents_in_every_schedule() {
    check(threads_and_compaction, "zsmalloc");
}

#[test]
fn zbud_keeps_contents_in_every_schedule() {
    check(threads_and_compaction, "zbud");
}

/// Two threads free the same object: one does, the other is told, and a third's objects are untouched.
fn one_free_wins(pool: Arc<dyn Zpool>) {
    let handle = pool.malloc(2720).unwrap();
    let free = |pool: Arc<dyn Zpool>| thread::spawn(move || pool.free(handle));
    let threads = [free(pool.clone()), free(pool.clone())];
    let mut results = threads.map(|thread| thread.join().unwrap());
    results.sort_by_key(Result::is_err);
    assert_eq!(results, [Ok(()), Err(BadHandle(handle))]);
    assert_eq!(pool.total_pages(), 0);
}

#[test]
fn one_free_of_two_wins() {
    check(one_free_wins, "zsmalloc");
    check(one_free_wins, "zbud");
}

/// A reader of an object that is freed and whose handle's chunk may go to another class sees the object or is told;
/// never another's bytes, since the other object is only written after the reader is done.
fn reader_against_free(pool: Arc<dyn Zpool>) {
    let handle = pool.malloc(2720).unwrap();
    pool.obj_write(handle, &[1; 2720]).unwrap();
    let reading = pool.clone();
    let reader = thread::spawn(move || {
        let seen = reading.obj_read(handle, &mut |slot| {
            // What was never written begins with what a free slot says of others, in ten bytes at most.
            assert!(slot[10..32].iter().all(|&it| it <= 1), "torn or foreign bytes");
        });
        assert!(seen.is_ok() || seen == Err(BadHandle(handle)));
    });
    pool.free(handle).unwrap();
    let other = pool.malloc(100).unwrap();
    reader.join().unwrap();
    pool.obj_write(other, &[9; 100]).unwrap();
    pool.free(other).unwrap();
    assert_eq!(pool.total_pages(), 0);
}

#[test]
fn a_reader_never_sees_another_object() {
    check(reader_against_free, "zsmalloc");
    check(reader_against_free, "zbud");
}
