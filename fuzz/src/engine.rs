//! The cache's operations in any order against a plain map: two swap types, one with a device behind it, whose calls fail
//! and whose content changes; an allocator that refuses; every profile, and every parameter with good and bad values.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use swapfile::faulty::{Countdown, Lasting, Op};
use swapfile::{Memory, SwapDevice};
use zswap::{Counter, Keep, LoadError, Options, PAGE_SIZE, PROFILES, Page, Param, Source, SwapEntry, Zswap};

const SLOTS: u32 = 64;
/// The swap type with a device, and the one without.
const TYPES: [u8; 2] = [0, 31];
/// What parameters are set to beside the plain names of compressors: of each kind, and none.
const VALUES: [&str; 21] = [
    "Y",
    "N",
    "0",
    "1",
    "3",
    "20",
    "90",
    "100",
    "101",
    "-1",
    "0x40000",
    "1048576\n",
    "zbud",
    "zsmalloc",
    "zstd(level=-5)",
    "lz4(acceleration=70000)",
    "zstd()",
    "radix",
    "rbtree",
    "",
    "99999999999999999999",
];

/// One of what a parameter may be set to.
fn value(number: u8) -> &'static str {
    let names = zcomp::names();
    let number = usize::from(number) % (VALUES.len() + names.len());
    VALUES.get(number).copied().unwrap_or_else(|| names[number - VALUES.len()])
}

/// What a stored page is made of.
type Version = (u8, u8);

/// A page that two bytes stand for: same-filled, text-like, noise, half noise, or one word repeated.
fn page((kind, seed): Version) -> Page {
    let mut state = u64::from(seed) << 8 | u64::from(kind) | 1;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_le_bytes()[7]
    };
    let mut page = [seed; PAGE_SIZE];
    match kind % 5 {
        0 => {}
        1 => page.iter_mut().for_each(|byte| *byte = b"abc \n"[usize::from(next() % 5)]),
        2 => page.iter_mut().for_each(|byte| *byte = next()),
        3 => page[..PAGE_SIZE / 2].iter_mut().for_each(|byte| *byte = next()),
        _ => page.as_chunks_mut::<8>().0.iter_mut().for_each(|word| word[usize::from(kind) % 8] = !seed),
    }
    page
}

struct Run {
    cache: Zswap,
    device: Arc<Countdown<Memory>>,
    /// Whether the allocator gets no more memory.
    refusing: Arc<AtomicBool>,
    model: BTreeMap<SwapEntry, Version>,
    /// A call of the device may have failed.
    failing: bool,
    /// Slots whose content on the device, if any, was changed behind the cache's back.
    changed: BTreeSet<u32>,
}

impl Run {
    fn new(profile: u8, names: u8, megabytes: u8) -> Run {
        let profile = &PROFILES[usize::from(profile) % PROFILES.len()];
        let mut options = Options::new(profile);
        let mut set = |name: &str, value: &str| options.params.push((name.to_owned(), value.to_owned()));
        set("compressor", zcomp::names()[usize::from(names) % zcomp::names().len()]);
        if profile.access(Param::Tree).is_some() && names & 0x80 != 0 {
            set("tree", "rbtree");
        }
        if profile.access(Param::Zpool).is_some() && names & 0x40 != 0 {
            set("zpool", "zbud");
        }
        // So little that the limit is met: 20 % of 1 to 4 MiB, of which the cache itself takes some.
        options.ram_bytes = (u64::from(megabytes % 4) + 1) << 20;
        options.workers = 1;
        let refusing = Arc::new(AtomicBool::new(false));
        let gate = refusing.clone();
        options.zpool.grow = Some(Arc::new(move |_| !gate.load(Relaxed)));
        let cache = Zswap::new(options).expect("the options are valid");
        let mut run = Run {
            cache,
            device: fresh_device(),
            refusing,
            model: BTreeMap::new(),
            failing: false,
            changed: BTreeSet::new(),
        };
        TYPES.iter().for_each(|swap_type| run.swapon(*swap_type));
        run
    }

    /// Switches a swap type on that is off; the one with a device gets a new one.
    fn swapon(&mut self, swap_type: u8) {
        let mut device = None;
        if swap_type == TYPES[0] {
            self.device = fresh_device();
            self.failing = false;
            self.changed.clear();
            device = Some(self.device.clone() as Arc<dyn SwapDevice>);
        }
        self.cache.swapon(swap_type, SLOTS, device.clone()).expect("the type is off");
        assert_eq!(self.cache.swapon(swap_type, SLOTS, device), Err(zswap::SwaponError::Busy));
    }

    fn load(&mut self, entry: SwapEntry, keep: Keep) {
        let removes = keep == Keep::AsConfigured
            && self
                .cache
                .get(Param::ExclusiveLoads)
                .map_or(self.cache.profile().rules.exclusive_loads, |value| value == "Y");
        let mut out = [0xa5; PAGE_SIZE];
        match (self.cache.load(entry, &mut out, keep), self.model.get(&entry)) {
            (Ok(Some(source)), Some(version)) => {
                assert!(out == page(*version), "{entry:?} is wrong, from {source:?}");
                assert!(source == Source::Cache || entry.swap_type == TYPES[0]);
                if removes {
                    self.model.remove(&entry);
                }
            }
            (Ok(None), None) => assert!(out == [0xa5; PAGE_SIZE], "a miss changed the page"),
            (Err(LoadError::Device(_)), Some(_)) => assert!(self.failing && entry.swap_type == TYPES[0]),
            (Err(LoadError::Damaged), Some(_)) => {
                assert!(entry.swap_type == TYPES[0] && self.changed.contains(&entry.offset));
            }
            (got, known) => panic!("{entry:?}: {got:?}, the model has {known:?}"),
        }
    }

    /// Changes a byte of a slot on the device.
    fn change(&mut self, offset: u32, at: u8) {
        let mut content = [0; PAGE_SIZE];
        let memory = self.device.inner();
        if memory.read_page(u64::from(offset), &mut content).is_ok() {
            content[usize::from(at) * 16] ^= 0x10;
            memory.write_pages(u64::from(offset), &[content]).expect("as many pages as before");
            self.changed.insert(offset);
        }
    }

    /// What is refused changes nothing; what is taken is shown.
    fn set(&self, param: Param, value: &str) {
        let before = self.cache.get(param);
        match self.cache.set(param, value) {
            Ok(()) if value.is_empty() => assert_eq!(self.cache.get(param), before),
            Ok(()) => assert!(self.cache.get(param).is_some()),
            Err(error) => {
                assert!(error.errno() > 0);
                assert_eq!(self.cache.get(param), before, "refused, and changed: {error}");
            }
        }
    }

    fn step(&mut self, [what, slot, kind, seed]: [u8; 4]) {
        let swap_type = TYPES[usize::from(slot >> 7)];
        let entry = SwapEntry { swap_type, offset: u32::from(slot) % SLOTS };
        let version = (kind, seed);
        match what % 16 {
            0..=2 => {
                // A refused store drops the older copy too.
                match self.cache.store(entry, &page(version)) {
                    Ok(()) => self.model.insert(entry, version),
                    Err(_) => self.model.remove(&entry),
                };
            }
            3..=5 => {
                match self.cache.swap_out(entry, &page(version)) {
                    Ok(_) => self.model.insert(entry, version),
                    Err(error) => {
                        // A device that works takes what the cache does not.
                        assert!(self.failing || swap_type != TYPES[0], "{error}, and the device works");
                        self.model.remove(&entry)
                    }
                };
            }
            6 => self.load(entry, Keep::Always),
            7 => self.load(entry, Keep::AsConfigured),
            8 => {
                self.cache.invalidate_page(entry);
                self.model.remove(&entry);
            }
            9 => {
                let count = u32::from(kind);
                self.cache.invalidate_range(entry, count);
                let end = entry.offset + count;
                self.model
                    .retain(|it, _| it.swap_type != swap_type || !(entry.offset..end).contains(&it.offset));
            }
            10 => {
                self.cache.shrink();
            }
            11 => {
                self.cache.shrinker_count();
                self.cache.shrinker_scan(u64::from(kind));
            }
            12 => self.set(Param::ALL[usize::from(kind) % Param::ALL.len()], value(seed)),
            13 => self.refusing.store(kind % 2 == 0, Relaxed),
            14 if kind % 4 == 0 => self.change(entry.offset, seed),
            14 => {
                let op = Op::ALL[usize::from(kind) % Op::ALL.len()];
                let lasting = if seed % 2 == 0 { Lasting::Forever } else { Lasting::Once };
                self.device.fail(op, u64::from(seed / 2 % 8), lasting, libc::EIO);
                self.failing = true;
            }
            _ if kind % 4 == 0 => {
                self.cache.invalidate_area(swap_type);
                self.model.retain(|it, _| it.swap_type != swap_type);
                self.look_at(swap_type);
                self.swapon(swap_type);
            }
            _ => self.look_at(swap_type),
        }
    }

    /// Every slot of a swap type against the model.
    fn look_at(&mut self, swap_type: u8) {
        (0..SLOTS).for_each(|offset| self.load(SwapEntry { swap_type, offset }, Keep::Always));
    }

    /// Everything is there; and when it has gone, nothing is left of it.
    fn end(mut self) {
        TYPES.iter().for_each(|swap_type| self.look_at(*swap_type));
        let held = self.cache.counter(Counter::StoredPages) + self.cache.counter(Counter::DevicePages);
        assert_eq!(held, self.model.len() as u64);
        TYPES.iter().for_each(|swap_type| {
            self.cache.invalidate_range(SwapEntry { swap_type: *swap_type, offset: 0 }, SLOTS);
        });
        for counter in [
            Counter::StoredPages,
            Counter::SameFilledPages,
            Counter::StoredIncompressiblePages,
            Counter::DevicePages,
            Counter::CompressedBytes,
            Counter::PoolTotalSize,
        ] {
            assert_eq!(self.cache.counter(counter), 0, "{counter:?} of nothing");
        }
        // The current pool, and the one for what that does not hold.
        assert!(self.cache.pools().len() <= 2, "drained pools are left: {:?}", self.cache.pools());
        TYPES.iter().for_each(|swap_type| self.cache.invalidate_area(*swap_type));
    }
}

fn fresh_device() -> Arc<Countdown<Memory>> {
    Arc::new(Countdown::new(Memory::new(u64::from(SLOTS), SLOTS as usize).expect("memory")))
}

/// Runs the operations that `data` stands for: three bytes for the cache, four for each operation.
pub fn operations(data: &[u8]) {
    let Some((&[profile, names, megabytes], rest)) = data.split_first_chunk() else { return };
    let mut run = Run::new(profile, names, megabytes);
    rest.as_chunks().0.iter().for_each(|step| run.step(*step));
    run.end();
}

/// Writes to `dir` what a search may begin with: for every profile, more pages than fit, written back and loaded.
pub fn seeds(dir: &Path) {
    for (number, profile) in (0u8..).zip(PROFILES) {
        let mut bytes = vec![number, number.wrapping_mul(0x50), 0];
        for slot in 0..SLOTS.to_le_bytes()[0] {
            bytes.extend([3 * (slot % 2), slot, slot, slot + 1]);
            bytes.extend([3, slot | 0x80, slot + 1, slot]);
        }
        for what in [10, 11, 6, 7, 12, 12, 13, 15, 14, 3, 6, 10, 9, 8, 15] {
            bytes.extend([what, what, what + number, what]);
        }
        let path = dir.join(profile.name);
        std::fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}
