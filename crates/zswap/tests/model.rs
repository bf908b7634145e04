//! Random operations against a plain map: every profile, zpool, compressor and tree, with a device that fails and an
//! allocator that refuses.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use swapfile::faulty::{Countdown, Lasting, Op};
use swapfile::{Memory, SwapDevice};
use zswap::{
    Counter, Keep, LoadError, Options, PAGE_SIZE, PROFILES, Page, Param, Profile, SameFilled, Source,
    SwapEntry, Zswap,
};

const SLOTS: u32 = 300;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % limit
    }
}

/// Pages as programs have them: text-like, half random, random, zero, one repeated word, small numbers.
fn page(seed: u64) -> Page {
    let mut random = Random(seed);
    let mut page = [0; PAGE_SIZE];
    match seed % 6 {
        0 => page.iter_mut().for_each(|byte| *byte = b"ab \n"[random.below(4) as usize]),
        1 => page[..2048].iter_mut().for_each(|byte| *byte = random.below(256) as u8),
        2 => page.iter_mut().for_each(|byte| *byte = random.below(256) as u8),
        3 => {}
        4 => page.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&seed.to_le_bytes())),
        _ => {
            page.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&random.below(5000).to_le_bytes()))
        }
    }
    page
}

fn at(offset: u32) -> SwapEntry {
    SwapEntry { swap_type: 3, offset }
}

struct Setup {
    cache: Zswap,
    device: Arc<Countdown<Memory>>,
    refusing: Arc<AtomicBool>,
}

fn setup(profile: &'static Profile, params: &[(&str, &str)]) -> Setup {
    let refusing = Arc::new(AtomicBool::new(false));
    let gate = refusing.clone();
    let mut options = Options::new(profile);
    options.params = params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    options.zpool.grow = Some(Arc::new(move |_| !gate.load(SeqCst)));
    // So that max_pool_percent means megabytes: profiles without max_pool_bytes have no other limit.
    options.ram_bytes = 16 << 20;
    let cache = Zswap::new(options).unwrap();
    let device = Arc::new(Countdown::new(Memory::new(u64::from(SLOTS), SLOTS as usize).unwrap()));
    cache.swapon(3, SLOTS, Some(device.clone())).unwrap();
    Setup { cache, device, refusing }
}

/// Every gauge against what the model says, and every slot looked at.
fn check_gauges(cache: &Zswap, model: &BTreeMap<u32, u64>, label: &str) {
    let known = cache.profile().rules.same_filled;
    let (mut stored, mut on_device, mut same, mut raw) = (0, 0, 0, 0);
    for offset in 0..SLOTS {
        let mut out = [0x5a; PAGE_SIZE];
        let found = cache.load(at(offset), &mut out, Keep::Always);
        let Some(&version) = model.get(&offset) else {
            assert_eq!(found, Ok(None), "{label}: slot {offset}");
            assert!(out == [0x5a; PAGE_SIZE], "{label}: a miss changed the page");
            continue;
        };
        match found {
            Ok(Some(Source::Cache)) => {
                stored += 1;
                raw += u64::from(version % 6 == 2);
                same += u64::from(match known {
                    SameFilled::None => false,
                    SameFilled::Zero => version % 6 == 3,
                    SameFilled::Any => [3, 4].contains(&(version % 6)),
                });
            }
            Ok(Some(Source::Device)) | Err(LoadError::Device(_)) => on_device += 1,
            other => panic!("{label}: slot {offset}: {other:?}"),
        }
        assert!(found.is_err() || out == page(version), "{label}: slot {offset} has wrong content");
    }
    assert_eq!(cache.counter(Counter::StoredPages), stored, "{label}: stored_pages");
    assert_eq!(cache.counter(Counter::DevicePages), on_device, "{label}: device_pages");
    assert_eq!(cache.counter(Counter::SameFilledPages), same, "{label}: same_filled_pages");
    assert_eq!(
        cache.counter(Counter::StoredIncompressiblePages),
        raw,
        "{label}: stored_incompressible_pages"
    );
    let (pool, payload) = (cache.counter(Counter::PoolTotalSize), cache.counter(Counter::CompressedBytes));
    assert!(payload <= pool, "{label}: {payload} bytes in a pool of {pool}");
    assert_eq!(cache.pools().iter().map(|(_, _, bytes)| bytes).sum::<u64>(), pool, "{label}");
}

fn run(profile: &'static Profile, params: &[(&str, &str)], compressors: &[&str], seed: u64, steps: u64) {
    let label = format!("{} {params:?} seed {seed}", profile.name);
    let Setup { cache, device, refusing } = setup(profile, params);
    let mut model: BTreeMap<u32, u64> = BTreeMap::new();
    let mut random = Random(seed);
    let mut device_broken = false;
    for step in 0..steps {
        let offset = random.below(u64::from(SLOTS)) as u32;
        refusing.store(random.below(40) == 0, SeqCst);
        match random.below(100) {
            0..30 => {
                let version = seed << 32 | step;
                match cache.store(at(offset), &page(version)) {
                    Ok(()) => {
                        model.insert(offset, version);
                    }
                    // A refused store drops the older copy too.
                    Err(_) => {
                        model.remove(&offset);
                    }
                }
            }
            // Whatever limit there is, as long as there is memory.
            30..33 => {
                let version = seed << 32 | step;
                match cache.keep(at(offset), &page(version)) {
                    Ok(()) => {
                        model.insert(offset, version);
                    }
                    Err(error) => {
                        assert!(refusing.load(SeqCst), "{label}: {error:?}, and there was memory");
                        model.remove(&offset);
                    }
                }
            }
            33..50 => {
                let version = seed << 32 | step;
                match cache.swap_out(at(offset), &page(version)) {
                    Ok(_) => {
                        model.insert(offset, version);
                    }
                    // There is no place left but RAM below the limit.
                    Err(error) => {
                        assert!(device_broken, "{label}: {error}, and the device worked");
                        model.remove(&offset);
                    }
                }
            }
            50..55 => {
                // Now and then more than one run.
                let most = if random.below(4) == 0 { 200 } else { 8 };
                let versions: Vec<u64> =
                    (0..1 + random.below(most)).map(|at| seed << 32 | step << 8 | at).collect();
                let pages: Vec<_> = versions.iter().map(|&version| page(version)).collect();
                let slots = offset..offset + pages.len() as u32;
                model.retain(|slot, _| !slots.contains(slot));
                if cache.write_through(at(offset), &pages).is_ok() {
                    model.extend(slots.zip(versions));
                    continue;
                }
                assert!(device_broken || slots.end > SLOTS, "{label}: the device worked at step {step}");
                // Nobody is told which of them are there; old content is not.
                for (slot, new) in slots.zip(&pages) {
                    let mut out = [0; PAGE_SIZE];
                    match cache.load(at(slot), &mut out, Keep::Always) {
                        Ok(Some(_)) => assert!(out == *new, "{label}: slot {slot} has old content"),
                        Ok(None) | Err(LoadError::Device(_)) => {}
                        Err(error) => panic!("{label}: slot {slot}: {error:?}"),
                    }
                    cache.invalidate_page(at(slot));
                }
            }
            55..60 => {
                let mut pages = vec![[0x5a; PAGE_SIZE]; 1 + random.below(12) as usize];
                let before = cache.counter(Counter::DevicePages);
                let filled = cache.load_from_device(at(offset), &mut pages);
                assert!(filled <= pages.len() && filled as u64 <= before, "{label}");
                for (slot, found) in (offset..).zip(&pages[..filled]) {
                    let version =
                        model.get(&slot).unwrap_or_else(|| panic!("{label}: slot {slot} has nothing"));
                    assert!(
                        *found == page(*version),
                        "{label}: slot {slot} has wrong content at step {step}"
                    );
                }
                // Where it stops, there is nothing on the device, or the device does not answer.
                let next = at(offset + filled as u32);
                let mut out = [0; PAGE_SIZE];
                if filled < pages.len()
                    && cache.load(next, &mut out, Keep::Always) == Ok(Some(Source::Device))
                {
                    assert!(device_broken, "{label}: stopped before slot {}", next.offset);
                }
            }
            60..85 => {
                let keep = if random.below(2) == 0 { Keep::Always } else { Keep::AsConfigured };
                let removes = keep == Keep::AsConfigured
                    && cache
                        .get(Param::ExclusiveLoads)
                        .map_or(profile.rules.exclusive_loads, |value| value == "Y");
                let mut out = [0x5a; PAGE_SIZE];
                match (cache.load(at(offset), &mut out, keep), model.get(&offset)) {
                    (Ok(Some(_)), Some(version)) => {
                        assert!(
                            out == page(*version),
                            "{label}: slot {offset} has wrong content at step {step}"
                        );
                        if removes {
                            model.remove(&offset);
                        }
                    }
                    (Ok(None), None) => assert!(out == [0x5a; PAGE_SIZE], "{label}: a miss changed the page"),
                    (Err(LoadError::Device(_)), Some(_)) => assert!(device_broken, "{label}"),
                    (got, expected) => panic!("{label}: slot {offset}: {got:?}, the model has {expected:?}"),
                }
            }
            85..92 => {
                cache.invalidate_page(at(offset));
                model.remove(&offset);
            }
            92..94 => {
                let count = 1 + random.below(40) as u32;
                cache.invalidate_range(at(offset), count);
                model.retain(|slot, _| !(offset..offset + count).contains(slot));
            }
            94..96 => {
                cache.shrink();
            }
            96 if random.below(8) == 0 => {
                cache.invalidate_area(3);
                check_gauges(&cache, &BTreeMap::new(), &label);
                cache.swapon(3, SLOTS, Some(device.clone())).unwrap();
                model.clear();
            }
            96 => {
                cache.shrinker_scan(random.below(60));
            }
            97 => {
                let _ = cache
                    .set(Param::Compressor, compressors[random.below(compressors.len() as u64) as usize]);
                let _ = cache.set(Param::Zpool, ["zbud", "zsmalloc"][random.below(2) as usize]);
            }
            98 => {
                let _ = cache.set(Param::MaxPoolPercent, &(1 + random.below(8)).to_string());
                let _ = cache.set(Param::Enabled, if random.below(4) == 0 { "N" } else { "Y" });
                let _ = cache.set(Param::AcceptThresholdPercent, &(70 + random.below(31)).to_string());
                let _ = cache.set(Param::MaxCompressionRatio, &(60 + random.below(41)).to_string());
                let _ = cache.set(Param::ShrinkerEnabled, ["Y", "N"][random.below(2) as usize]);
                let _ = cache.set(Param::ExclusiveLoads, ["Y", "N"][random.below(2) as usize]);
                let _ =
                    cache.set(Param::NonSameFilledPagesEnabled, if random.below(6) == 0 { "N" } else { "Y" });
            }
            _ if step > steps * 9 / 10 && !device_broken => {
                device.fail(
                    [Op::Write, Op::Read][random.below(2) as usize],
                    random.below(5),
                    Lasting::Forever,
                    5,
                );
                device_broken = true;
            }
            _ => check_gauges(&cache, &model, &label),
        }
    }
    check_gauges(&cache, &model, &label);
    let (held, on_device) = (device.inner().memory_bytes(), cache.counter(Counter::DevicePages));
    cache.invalidate_range(at(0), SLOTS);
    assert_eq!(cache.counter(Counter::StoredPages), 0, "{label}");
    assert_eq!(cache.counter(Counter::CompressedBytes), 0, "{label}");
    assert_eq!(cache.counter(Counter::SameFilledPages), 0, "{label}");
    assert_eq!(cache.counter(Counter::DevicePages), 0, "{label}");
    assert_eq!(cache.counter(Counter::PoolTotalSize), 0, "{label}: pool memory is left");
    assert!(cache.pools().len() <= 2, "{label}: drained pools are left: {:?}", cache.pools());
    cache.invalidate_area(3);
    // What entries left there that had gone before may still be held: nobody trusts it. A device that failed is told nothing.
    let given_back = (held - device.inner().memory_bytes()) as u64 / PAGE_SIZE as u64;
    assert!(
        device_broken || given_back >= on_device,
        "{label}: of {on_device} pages the device gave {given_back} back"
    );
}

#[test]
fn every_profile_zpool_compressor_and_tree() {
    let names = zcomp::names();
    for profile in PROFILES {
        for compressor in names {
            for zpool in profile.zpools {
                let mut params = vec![("compressor", *compressor)];
                if profile.access(Param::Zpool).is_some() {
                    params.push(("zpool", *zpool));
                }
                run(profile, &params, names, 1, 2500);
                if profile.access(Param::Tree).is_some() {
                    params.push(("tree", "rbtree"));
                    run(profile, &params, names, 2, 2500);
                }
            }
        }
    }
}

#[test]
fn long_runs_of_the_default() {
    for seed in 10..14 {
        run(Profile::named("default").unwrap(), &[], &["weft", "lz4", "lzo"], seed, 40_000);
    }
}

/// Without a device nothing is refused while memory lasts, in any profile; past the limit the writer is told.
#[test]
fn without_a_device_everything_is_kept_up_to_the_limit() {
    for profile in PROFILES {
        let mut options = Options::new(profile);
        options.ram_bytes = 30 << 20;
        let cache = Zswap::new(options).unwrap();
        cache.swapon(0, 4096, None).unwrap();
        let entry = |offset| SwapEntry { swap_type: 0, offset };
        let mut kept = Vec::new();
        let mut refused = 0;
        for offset in 0..4096u32 {
            match cache.swap_out(entry(offset), &page(u64::from(offset) * 5 + 2)) {
                Ok(_) => kept.push(offset),
                Err(error) => {
                    assert_eq!(error.errno(), 5);
                    assert!(!cache.contains(entry(offset)));
                    refused += 1;
                    let held = cache.counter(Counter::PoolTotalSize) + cache.counter(Counter::MetadataBytes);
                    assert!(
                        held * 10 >= cache.counter(Counter::PoolLimitBytes) * 9,
                        "{}: refused early",
                        profile.name
                    );
                }
            }
        }
        assert!(
            kept.len() > 1000 && refused > 100,
            "{}: {} kept, {refused} refused",
            profile.name,
            kept.len()
        );
        for offset in kept {
            let mut out = [0; PAGE_SIZE];
            assert!(cache.load(entry(offset), &mut out, Keep::Always).unwrap().is_some());
            assert!(out == page(u64::from(offset) * 5 + 2), "{}: slot {offset}", profile.name);
        }
    }
}

/// What leaves is exactly what was stored first, but for what was used since.
#[test]
fn the_oldest_leave_first() {
    for tree in ["radix", "rbtree"] {
        let mut options = Options::new(Profile::named("default").unwrap());
        options.params =
            vec![("tree".into(), tree.into()), ("max_pool_bytes".into(), (64 << 20).to_string())];
        let cache = Zswap::new(options).unwrap();
        let device = Arc::new(Memory::new(4000, 4000).unwrap());
        cache.swapon(3, 4000, Some(device)).unwrap();
        let mut random = Random(5);
        let mut order: Vec<u32> = (0..4000).collect();
        (1..order.len()).rev().for_each(|i| order.swap(i, random.below(i as u64 + 1) as usize));
        for &offset in &order {
            cache.store(at(offset), &page(u64::from(offset) * 6 + 1)).unwrap();
        }
        let mut out = [0; PAGE_SIZE];
        for &offset in order[..100].iter().step_by(3) {
            cache.load(at(offset), &mut out, Keep::Always).unwrap();
        }
        cache.set(Param::MaxPoolBytes, &(6 << 20).to_string()).unwrap();
        let written = cache.shrink();
        assert!((500..3500).contains(&written), "{written} written");
        let mut age = order.clone();
        let used: Vec<u32> = age[..100].iter().copied().step_by(3).collect();
        age.retain(|offset| !used.contains(offset));
        // The used ones went to the young end when they were first looked at, before anything younger was.
        for (rank, &offset) in age.iter().enumerate() {
            let source = cache.load(at(offset), &mut out, Keep::Always).unwrap().unwrap();
            assert!(out == page(u64::from(offset) * 6 + 1));
            let expected = if rank < written { zswap::Source::Device } else { zswap::Source::Cache };
            assert_eq!(source, expected, "{tree}: rank {rank} of {written}");
        }
    }
}
