//! The devices of memory, and those that fail on purpose, against plain vectors.

use std::sync::Arc;
use std::time::{Duration, Instant};

use swapfile::faulty::{Countdown, Counting, Crash, Gate, Lasting, Op, Slow};
use swapfile::{DeviceError, Latched, Memory, PAGE_SIZE, Page, SwapDevice};

const PAGES: u64 = 32;

fn page(seed: u64) -> Page {
    let mut page = [0; PAGE_SIZE];
    page.chunks_exact_mut(8).enumerate().for_each(|(at, word)| {
        word.copy_from_slice(&(seed * 1000 + at as u64).to_le_bytes());
    });
    page
}

fn memory() -> Memory {
    Memory::new(PAGES, usize::try_from(PAGES).unwrap()).unwrap()
}

fn read(device: &dyn SwapDevice, number: u64) -> Result<Page, DeviceError> {
    let mut out = [0xEE; PAGE_SIZE];
    device.read_page(number, &mut out).map(|()| out)
}

/// Random writes, reads and discards. A discarded page may be anything until it is written again.
fn behaves(device: &dyn SwapDevice) {
    let mut model: Vec<Option<Page>> = vec![Some([0; PAGE_SIZE]); usize::try_from(PAGES).unwrap()];
    let mut seed = 0x1234_5678_u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % below
    };
    for step in 0..4000 {
        let first = random(PAGES);
        let count = 1 + random(PAGES - first);
        match random(4) {
            0 => {
                let data: Vec<Page> = (0..count).map(|at| page(step * 100 + at)).collect();
                device.write_pages(first, &data).unwrap();
                for (at, page) in data.into_iter().enumerate() {
                    model[usize::try_from(first).unwrap() + at] = Some(page);
                }
            }
            1 if random(8) == 0 => {
                device.discard(first, count).unwrap();
                let first = usize::try_from(first).unwrap();
                model[first..first + usize::try_from(count).unwrap()].fill(None);
            }
            _ => {
                let seen = read(device, first).unwrap();
                if let Some(expected) = &model[usize::try_from(first).unwrap()] {
                    assert!(seen == *expected, "page {first} at step {step}");
                }
            }
        }
    }
    assert_eq!(device.pages(), PAGES);
    assert_eq!(read(device, PAGES), Err(DeviceError::OutOfRange));
    assert_eq!(device.write_pages(PAGES - 1, &[page(1), page(2)]), Err(DeviceError::OutOfRange));
    assert_eq!(device.discard(u64::MAX, 2), Err(DeviceError::OutOfRange));
}

#[test]
fn all_of_them_are_devices_when_nothing_fails() {
    behaves(&memory());
    behaves(&Latched::new(memory()));
    behaves(&Countdown::new(memory()));
    behaves(&Counting::new(memory()));
    behaves(&Box::new(Arc::new(memory())));
}

#[test]
fn memory_counts_what_it_holds() {
    let device = Memory::new(1000, 4).unwrap();
    let empty = device.memory_bytes();
    device.write_pages(10, &[page(1), page(2)]).unwrap();
    assert!(device.memory_bytes() >= empty.max(2 * PAGE_SIZE));
    device.write_pages(500, &[page(3), page(4)]).unwrap();
    assert!(device.write_pages(700, &[page(5)]).is_err(), "more pages than it may hold");
    assert_eq!(read(&device, 501).unwrap(), page(4));
    device.discard(10, 2).unwrap();
    device.write_pages(700, &[page(5)]).unwrap();
    assert_eq!(read(&device, 700).unwrap(), page(5));
}

#[test]
fn the_first_failure_to_take_something_is_final() {
    for op in [Op::Write, Op::Discard, Op::Flush] {
        let device = Latched::new(Countdown::new(memory()));
        device.write_pages(0, &[page(1)]).unwrap();
        let ask = |op: Op| match op {
            Op::Read => read(&device, 0).map(|_| ()),
            Op::Write => device.write_pages(0, &[page(2)]),
            Op::Discard => device.discard(0, 1),
            Op::Flush => device.flush(),
        };
        assert_eq!(device.error(), None);
        assert_eq!(device.write_pages(PAGES, &[page(1)]), Err(DeviceError::OutOfRange), "a caller's mistake");
        assert_eq!(device.error(), None);
        device.inner().fail(op, 0, Lasting::Once, libc::ENOSPC);
        assert_eq!(ask(op), Err(DeviceError::Io(libc::ENOSPC)));
        // The device itself is well again; nobody can know.
        for op in [Op::Write, Op::Discard, Op::Flush] {
            assert_eq!(ask(op), Err(DeviceError::Latched(libc::ENOSPC)));
        }
        assert_eq!(device.error(), Some(libc::ENOSPC));
        assert_eq!(read(&device, 0), Ok(page(1)), "what was written before is there");
    }
    let device = Latched::new(Countdown::new(memory()));
    device.inner().fail(Op::Read, 0, Lasting::Once, libc::EIO);
    assert_eq!(read(&device, 0), Err(DeviceError::Io(libc::EIO)));
    assert_eq!(read(&device, 0), Ok([0; PAGE_SIZE]), "one bad read is that");
    assert_eq!(device.error(), None);
}

#[test]
fn a_countdown_counts() {
    let device = Countdown::new(memory());
    device.fail(Op::Write, 3, Lasting::Once, libc::EIO);
    let written: Vec<bool> = (0..6).map(|at| device.write_pages(at, &[page(at)]).is_ok()).collect();
    assert_eq!(written, [true, true, true, false, true, true]);
    device.fail(Op::Read, 1, Lasting::Forever, libc::EIO);
    let seen: Vec<bool> = (0..4).map(|_| read(&device, 0).is_ok()).collect();
    assert_eq!(seen, [true, false, false, false]);
    device.heal(Op::Read);
    assert_eq!(read(&device, 0).unwrap(), page(0));
}

#[test]
fn a_slow_one_is_slow() {
    let device = Slow::new(memory());
    device.delay(Op::Read, Duration::from_millis(5));
    device.write_pages(0, &[page(1)]).unwrap();
    let begun = Instant::now();
    assert_eq!(read(&device, 0).unwrap(), page(1));
    assert!(begun.elapsed() >= Duration::from_millis(5), "a wait may be longer, never shorter");
    behaves(&Slow::new(memory()));
}

#[test]
fn a_crash_loses_what_was_not_flushed_and_nothing_else() {
    behaves(&Crash::new(memory()));
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in 0..64 {
        let device = Crash::new(memory());
        device.write_pages(0, &[page(1), page(2)]).unwrap();
        device.flush().unwrap();
        assert_eq!(device.unflushed(), 0);
        device.write_pages(1, &[page(3)]).unwrap();
        assert_eq!(read(&device, 1).unwrap(), page(3), "before the crash it is there");
        device.crash(seed).unwrap();
        assert_eq!(read(&device, 0).unwrap(), page(1), "what was flushed stays");
        let seen = read(&device, 1).unwrap();
        // Each sector is the old one or the new one.
        let (old, new) = (page(2), page(3));
        let mut sectors = Vec::new();
        for ((seen, old), new) in seen.chunks(512).zip(old.chunks(512)).zip(new.chunks(512)) {
            assert!(seen == old || seen == new);
            sectors.push(seen == new);
        }
        outcomes.insert(match (sectors.iter().all(|is_new| *is_new), sectors.iter().any(|is_new| *is_new)) {
            (true, _) => "whole",
            (_, true) => "torn",
            _ => "lost",
        });
    }
    assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), ["lost", "torn", "whole"]);
}

#[test]
fn a_gate_holds_calls() {
    let device = Gate::new(memory());
    behaves(&device);
    device.close(Op::Write);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| device.write_pages(3, &[page(9)]));
        assert!(device.wait_held(Op::Write, 1, Duration::from_secs(10)));
        assert_ne!(read(device.inner(), 3).unwrap(), page(9), "held before it did anything");
        assert!(!writer.is_finished());
        device.open(Op::Write);
        writer.join().unwrap().unwrap();
    });
    assert_eq!(read(&device, 3).unwrap(), page(9));
}
