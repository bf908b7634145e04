//! Many threads on one device, each on pages of its own: what one writes, no other ever sees or destroys.

use std::time::Duration;

use swapfile::faulty::{Countdown, Counting, Crash, Gate, Op, Slow};
use swapfile::{Existing, File, Latched, Memory, PAGE_SIZE, Page, SwapDevice};

const THREADS: u64 = 4;
/// Pages of a thread are those of every fourth run of this many, so that neighbours in a block belong to others.
const RUN: u64 = 3;
const RUNS: u64 = 16;
const PAGES: u64 = THREADS * RUN * RUNS;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn page(number: u64, step: u64) -> Page {
    let mut page = [0; PAGE_SIZE];
    for (at, word) in page.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&(number << 40 | step << 12 | at as u64).to_le_bytes());
    }
    page
}

/// One thread's work: random writes, reads and discards of its runs, against a model of its own.
fn work(device: &dyn SwapDevice, thread: u64, steps: u64) {
    let mut random = Random(thread + 1);
    // `None`: discarded, so anything.
    let mut model: Vec<Option<Page>> = vec![Some([0; PAGE_SIZE]); (RUN * RUNS) as usize];
    for step in 1..=steps {
        let run = random.below(RUNS);
        let first = (run * THREADS + thread) * RUN;
        let mine = &mut model[(run * RUN) as usize..][..RUN as usize];
        match random.below(8) {
            0 => {
                device.discard(first, RUN).unwrap();
                mine.fill(None);
            }
            1 => device.flush().unwrap(),
            2..=4 => {
                // At an offset that is no page's, as a caller's memory may be.
                let mut bytes = vec![0; (RUN as usize + 1) * PAGE_SIZE];
                let skip = random.below(PAGE_SIZE as u64) as usize;
                let count = 1 + random.below(RUN);
                let (pages, _) = bytes[skip..].as_chunks_mut::<PAGE_SIZE>();
                for (number, (to, model)) in pages.iter_mut().zip(&mut *mine).take(count as usize).enumerate()
                {
                    *to = page(first + number as u64, step);
                    *model = Some(*to);
                }
                device.write_pages(first, &pages[..count as usize]).unwrap();
            }
            _ => {
                let at = random.below(RUN);
                let mut out = [0xEE; PAGE_SIZE];
                device.read_page(first + at, &mut out).unwrap();
                if let Some(expected) = &mine[at as usize] {
                    assert!(out == *expected, "page {} at step {step}", first + at);
                }
            }
        }
    }
}

fn all_at_once(device: &dyn SwapDevice, steps: u64) {
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || work(device, thread, steps));
        }
    });
}

fn memory() -> Memory {
    Memory::new(PAGES, PAGES as usize).unwrap()
}

#[test]
fn on_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = File::create(&dir.path().join("swap"), PAGES, Existing::Refuse).unwrap();
    all_at_once(&file, 1000);
}

/// More callers than the file has buffers: they wait for one, and none waits for ever.
#[test]
fn on_a_file_with_more_threads_than_buffers() {
    let dir = tempfile::tempdir().unwrap();
    let file = File::create(&dir.path().join("swap"), 32, Existing::Refuse).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..32 {
            let file = &file;
            scope.spawn(move || {
                let mut bytes = [0; PAGE_SIZE + 1];
                for step in 0..50 {
                    let skip = usize::from(bytes.as_ptr().addr().is_multiple_of(PAGE_SIZE));
                    let (unaligned, _) = bytes[skip..].as_chunks_mut::<PAGE_SIZE>();
                    unaligned[0] = page(thread, step);
                    file.write_pages(thread, unaligned).unwrap();
                    file.read_page(thread, &mut unaligned[0]).unwrap();
                    assert!(unaligned[0] == page(thread, step));
                }
            });
        }
    });
}

#[test]
fn in_memory() {
    let device = memory();
    all_at_once(&device, 10_000);
    device.discard(0, PAGES).unwrap();
    assert_eq!(device.memory_bytes(), 0, "every page was counted once when it came and once when it went");
}

/// A cap that all threads meet at once is never passed.
#[test]
fn a_cap_holds_for_all_together() {
    let device = Memory::new(PAGES, 50).unwrap();
    let taken: usize = std::thread::scope(|scope| {
        let work = |thread| {
            let device = &device;
            scope.spawn(move || {
                let mine = (0..PAGES).filter(|number| number % THREADS == thread);
                mine.filter(|number| device.write_pages(*number, &[page(*number, 0)]).is_ok()).count()
            })
        };
        let threads: Vec<_> = (0..THREADS).map(work).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(taken, 50);
    assert_eq!(device.memory_bytes(), 50 * PAGE_SIZE);
}

#[test]
fn through_every_filter() {
    all_at_once(&Latched::new(memory()), 2000);
    all_at_once(&Countdown::new(memory()), 2000);
    all_at_once(&Gate::new(memory()), 2000);
    all_at_once(&Crash::new(memory()), 500);
    let slow = Slow::new(memory());
    slow.delay(Op::Write, Duration::from_micros(10));
    all_at_once(&slow, 500);
    let counting = Counting::new(memory());
    all_at_once(&counting, 2000);
    let counts = counting.counts();
    // One call a step.
    assert_eq!(counts.reads + counts.writes + counts.discards + counts.flushes, THREADS * 2000);
    assert_eq!(counts.pages_discarded, counts.discards * RUN);
}

/// Calls do not wait for each other: one that is held does not hold the others.
#[test]
fn a_slow_or_held_call_is_alone() {
    let device = Gate::new(memory());
    device.close(Op::Write);
    std::thread::scope(|scope| {
        let held = scope.spawn(|| device.write_pages(0, &[page(0, 1)]));
        assert!(device.wait_held(Op::Write, 1, Duration::from_secs(30)));
        let mut out = [1; PAGE_SIZE];
        device.read_page(5, &mut out).unwrap();
        device.discard(9, 2).unwrap();
        device.flush().unwrap();
        // One of two that wait passes, and the other stays.
        let other = scope.spawn(|| device.write_pages(1, &[page(1, 1)]));
        assert!(device.wait_held(Op::Write, 2, Duration::from_secs(30)));
        device.pass(Op::Write, 1);
        while !held.is_finished() && !other.is_finished() {
            std::thread::yield_now();
        }
        assert!(device.wait_held(Op::Write, 1, Duration::from_secs(30)));
        assert!(!held.is_finished() || !other.is_finished(), "one call passes, not two");
        device.open(Op::Write);
        held.join().unwrap().unwrap();
        other.join().unwrap().unwrap();
    });
}
