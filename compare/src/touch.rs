//! The program whose memory is limited: it fills memory with real pages and touches them in some order, and checks what it
//! reads. It runs the same under every rival.
//!
//! `compare touch ORDER MIB TOUCHES FILE.pages`

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use zswap::PAGE_SIZE;

use crate::trace::Trace;

/// Runs it, and prints nanoseconds a touch and how many there were.
pub fn run(order: &str, mib: usize, touches: usize, file: &str) {
    let file = File::open(file).expect("the file of pages opens");
    let source =
        usize::try_from(file.metadata().expect("it has a size").len()).expect("it is small") / PAGE_SIZE;
    let count = (mib << 20) / PAGE_SIZE;
    let words = PAGE_SIZE / 8;
    let begun = Instant::now();
    // Anonymous memory of the allocator's: one mapping.
    let mut memory = vec![0u64; count * words];
    for page in 0..count {
        // SAFETY: eight bytes are a word, and any are a valid one.
        let bytes = unsafe { memory[page * words..][..words].align_to_mut::<u8>().1 };
        file.read_exact_at(bytes, (page % source * PAGE_SIZE) as u64).expect("the page is read");
        memory[page * words] = stamp(page);
    }
    if order == "first-touch" {
        println!("{:.1} {count}", begun.elapsed().as_nanos() as f64 / count as f64);
        return;
    }
    let mut trace = Trace::new(order, count);
    let mut touch = |page: usize, write: bool| {
        let word = &mut memory[page * words];
        assert_eq!(*word & !1, stamp(page) & !1, "page {page} is wrong");
        if write {
            *word ^= 1;
        }
    };
    let mut round = |touches: usize| {
        for at in 0..touches {
            let write = at % 4 == 0;
            let page = trace.page(at, touches);
            touch(page, write);
        }
    };
    round(touches / 2);
    let begun = Instant::now();
    round(touches);
    println!("{:.1} {touches}", begun.elapsed().as_nanos() as f64 / touches as f64);
}

fn stamp(page: usize) -> u64 {
    (page as u64).wrapping_mul(0x2545_f491_4f6c_dd1d)
}
