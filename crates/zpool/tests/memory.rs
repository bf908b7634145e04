//! Pool memory is real: resident memory grows with the pool and falls when objects leave, under mlockall too.
//!
//! One test in a process of its own: it looks at the resident memory of all of it and locks it.

use zpool::{Config, PAGE_SIZE, create};

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * PAGE_SIZE
}

fn grow_and_shrink(driver: &str) {
    const OBJECTS: usize = 40_000;
    let pool = create(driver, &Config::default()).unwrap();
    let before = resident_bytes();
    let handles: Vec<_> = (0..OBJECTS)
        .map(|i| {
            let handle = pool.malloc(1500).unwrap();
            pool.obj_write(handle, &[i as u8; 1500]).unwrap();
            handle
        })
        .collect();
    let pool_bytes = pool.total_pages() * PAGE_SIZE;
    let grown = resident_bytes() - before;
    assert!(grown >= pool_bytes, "{driver}: pool of {pool_bytes} bytes, {grown} resident");
    assert!(
        grown < pool_bytes + pool.metadata_bytes() + (4 << 20),
        "{driver}: {grown} resident for {pool_bytes}"
    );
    for handle in handles {
        pool.free(handle).unwrap();
    }
    assert_eq!(pool.total_pages(), 0);
    let left = resident_bytes().saturating_sub(before);
    assert!(left < 3 << 20, "{driver}: {left} bytes stay resident");
}

#[test]
fn resident_memory_follows_the_pool() {
    for driver in ["zbud", "zsmalloc"] {
        grow_and_shrink(driver);
    }
    // SAFETY: locks this process's own memory; takes no pointers.
    let locked = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) } == 0;
    if locked {
        for driver in ["zbud", "zsmalloc"] {
            grow_and_shrink(driver);
        }
        // SAFETY: takes no pointers.
        unsafe { libc::munlockall() };
    } else {
        assert!(std::env::var_os("CI").is_none(), "mlockall is not permitted");
        println!("SKIP under mlockall: it is not permitted");
    }
}
