//! The faulty devices against plain models of the faults they promise: a fault that comes too late, too early or twice would
//! make every test that relies on it worthless.

use swapfile::faulty::{Countdown, Counting, Counts, Crash, Lasting, Op};
use swapfile::{DeviceError, Latched, Memory, PAGE_SIZE, Page, SwapDevice};

const PAGES: u64 = 24;
const SECTOR: usize = 512;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn memory() -> Memory {
    Memory::new(PAGES, PAGES as usize).unwrap()
}

fn page(step: u64) -> Page {
    let mut page = [0; PAGE_SIZE];
    page.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&(step + 1).to_le_bytes()));
    page
}

fn read(device: &dyn SwapDevice, number: u64) -> Result<Page, DeviceError> {
    let mut out = [0xEE; PAGE_SIZE];
    device.read_page(number, &mut out).map(|()| out)
}

/// One random call of kind `op`, of at most `PAGES` pages; how many pages it was of.
fn call(device: &dyn SwapDevice, op: Op, random: &mut Random, step: u64) -> (u64, Result<(), DeviceError>) {
    let first = random.below(PAGES);
    let count = 1 + random.below(PAGES - first);
    match op {
        Op::Read => (1, read(device, first).map(drop)),
        Op::Write => (count, device.write_pages(first, &vec![page(step); count as usize])),
        Op::Discard => (count, device.discard(first, count)),
        Op::Flush => (0, device.flush()),
    }
}

fn index(op: Op) -> usize {
    Op::ALL.iter().position(|it| *it == op).unwrap()
}

#[test]
fn a_countdown_fails_the_call_it_was_told_to_and_no_other() {
    let device = Countdown::new(Counting::new(memory()));
    // For each kind of call: calls that still work, whether all later ones fail, and the errno.
    let mut plans: [Option<(u64, Lasting, i32)>; 4] = [None; 4];
    let mut reached = [0; 4];
    let mut random = Random(1);
    let mut failures = 0;
    for step in 0..20_000 {
        let op = Op::ALL[random.below(4) as usize];
        match random.below(20) {
            0 => {
                let (left, errno) = (random.below(6), 1 + random.below(100) as i32);
                let lasting = if random.below(2) == 0 { Lasting::Once } else { Lasting::Forever };
                device.fail(op, left, lasting, errno);
                plans[index(op)] = Some((left, lasting, errno));
            }
            1 => {
                device.heal(op);
                plans[index(op)] = None;
            }
            _ => {
                let plan = &mut plans[index(op)];
                let expected = match plan {
                    Some((0, lasting, errno)) => {
                        let error = DeviceError::Io(*errno);
                        if *lasting == Lasting::Once {
                            *plan = None;
                        }
                        failures += 1;
                        Err(error)
                    }
                    other => {
                        if let Some((left, ..)) = other {
                            *left -= 1;
                        }
                        reached[index(op)] += 1;
                        Ok(())
                    }
                };
                assert_eq!(call(&device, op, &mut random, step).1, expected, "{op:?} at step {step}");
            }
        }
    }
    assert!(failures > 1000, "{failures} failures");
    let seen = device.inner().counts();
    assert_eq!(
        [seen.reads, seen.writes, seen.discards, seen.flushes],
        reached,
        "a failed call does not reach the device behind"
    );
}

#[test]
fn counting_counts_everything_also_what_fails() {
    let device = Counting::new(Countdown::new(memory()));
    let mut model = Counts::default();
    let mut random = Random(2);
    for step in 0..5000 {
        let op = Op::ALL[random.below(4) as usize];
        if random.below(10) == 0 {
            device.inner().fail(op, 0, Lasting::Once, libc::EIO);
        }
        let (pages, _) = call(&device, op, &mut random, step);
        match op {
            Op::Read => model.reads += 1,
            Op::Write => {
                (model.writes, model.pages_written) = (model.writes + 1, model.pages_written + pages)
            }
            Op::Discard => {
                (model.discards, model.pages_discarded) = (model.discards + 1, model.pages_discarded + pages);
            }
            Op::Flush => model.flushes += 1,
        }
        assert_eq!(device.counts(), model, "step {step}");
    }
}

/// The first failure stands, whatever comes after it, and whoever asks from wherever.
#[test]
fn latched_tells_the_first_failure_to_everybody() {
    let device = Latched::new(Countdown::new(memory()));
    device.inner().fail(Op::Write, 100, Lasting::Forever, libc::ENOSPC);
    let answers: Vec<Result<(), DeviceError>> = std::thread::scope(|scope| {
        let work = |thread: u64| {
            let device = &device;
            scope.spawn(move || (0..100).map(|_| device.write_pages(thread, &[page(1)])).collect::<Vec<_>>())
        };
        let threads: Vec<_> = (0..4).map(work).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 100);
    let told = |answer: &&Result<(), DeviceError>| **answer == Err(DeviceError::Io(libc::ENOSPC));
    // A call that was under way when another failed hears it from the device; everybody after that from the latch.
    assert!((1..=4).contains(&answers.iter().filter(told).count()));
    assert!(answers.contains(&Err(DeviceError::Latched(libc::ENOSPC))));
    device.inner().heal(Op::Write);
    device.inner().fail(Op::Flush, 0, Lasting::Forever, libc::EIO);
    assert_eq!(device.flush(), Err(DeviceError::Latched(libc::ENOSPC)));
    // A device that gives no reason has still failed.
    let device = Latched::new(Countdown::new(memory()));
    device.inner().fail(Op::Flush, 0, Lasting::Once, 0);
    assert!(device.flush().is_err());
    assert_eq!(device.write_pages(0, &[page(1)]), Err(DeviceError::Latched(libc::EIO)));
}

/// Random work and crashes. Each sector is then what was flushed, or what was put there since.
#[test]
fn a_crash_leaves_old_or_newer_sectors_only() {
    let mut random = Random(3);
    let (mut lost, mut kept, mut torn) = (0, 0, 0);
    for round in 0..200 {
        let device = Crash::new(memory());
        let mut versions = vec![vec![[0; PAGE_SIZE]]; PAGES as usize];
        for step in 0..40 {
            let (first, step) = (random.below(PAGES), round * 1000 + step);
            let count = 1 + random.below((PAGES - first).min(4));
            let pages = &mut versions[first as usize..(first + count) as usize];
            match random.below(10) {
                0 => {
                    device.flush().unwrap();
                    versions.iter_mut().for_each(|page| drop(page.drain(..page.len() - 1)));
                    assert_eq!(device.unflushed(), 0);
                }
                1 => {
                    device.discard(first, count).unwrap();
                    // Memory reads zeros then; a write after it comes after it.
                    pages.iter_mut().for_each(|page| page.push([0; PAGE_SIZE]));
                }
                _ => {
                    device.write_pages(first, &vec![page(step); count as usize]).unwrap();
                    pages.iter_mut().for_each(|versions| versions.push(page(step)));
                    assert!(read(&device, first).unwrap() == page(step), "before a crash it is there");
                }
            }
        }
        device.crash(round).unwrap();
        assert_eq!(device.unflushed(), 0);
        for (number, versions) in (0..).zip(&versions) {
            let seen = read(&device, number).unwrap();
            for (at, sector) in seen.chunks(SECTOR).enumerate() {
                let allowed = versions.iter().any(|page| &page[at * SECTOR..][..SECTOR] == sector);
                assert!(allowed, "round {round}, page {number}, sector {at}");
            }
            if versions.len() > 1 {
                match versions.iter().position(|version| *version == seen) {
                    Some(at) if at + 1 == versions.len() => kept += 1,
                    Some(_) => lost += 1,
                    None => torn += 1,
                }
            }
        }
    }
    assert!(lost > 100 && kept > 100 && torn > 100, "lost {lost}, kept {kept}, torn {torn}");
}

/// A flush that fails in the middle promised nothing, and one that works after it promises all.
#[test]
fn a_flush_that_fails_can_be_done_again() {
    let device = Crash::new(Countdown::new(memory()));
    for number in 0..8 {
        device.write_pages(number, &[page(number)]).unwrap();
    }
    device.inner().fail(Op::Write, 4, Lasting::Once, libc::EIO);
    assert_eq!(device.flush(), Err(DeviceError::Io(libc::EIO)));
    assert_eq!(device.unflushed(), 8);
    device.flush().unwrap();
    device.crash(1).unwrap();
    for number in 0..8 {
        assert!(read(&device, number).unwrap() == page(number));
    }
}
