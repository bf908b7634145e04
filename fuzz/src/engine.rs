//! The cache's operations in any order, against a plain map.

use std::collections::BTreeMap;
use std::sync::Arc;

use swapfile::Memory;
use swapfile::faulty::{Countdown, Lasting, Op};
use zswap::{Keep, Options, PAGE_SIZE, PROFILES, Page, Param, SwapEntry, Zswap};

const SLOTS: u32 = 64;
const COMPRESSORS: [&str; 6] = ["lzo", "lzo-rle", "lz4", "lz4hc", "zstd", "deflate"];

fn at(offset: u8) -> SwapEntry {
    SwapEntry { swap_type: 0, offset: u32::from(offset) % SLOTS }
}

/// A page that two bytes stand for: same-filled, text-like, noise, or half of it.
fn page(kind: u8, seed: u8) -> Page {
    let mut state = u64::from(seed) << 8 | u64::from(kind) | 1;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let mut page = [seed; PAGE_SIZE];
    match kind % 4 {
        0 => {}
        1 => page.iter_mut().for_each(|byte| *byte = b"abc \n"[usize::from(next() % 5)]),
        2 => page.iter_mut().for_each(|byte| *byte = next()),
        _ => page[..PAGE_SIZE / 2].iter_mut().for_each(|byte| *byte = next()),
    }
    page
}

/// Runs the operations that `data` stands for.
pub fn operations(data: &[u8]) {
    let Some((&[profile, compressor, limit], rest)) = data.split_first_chunk() else { return };
    let profile = &PROFILES[usize::from(profile) % PROFILES.len()];
    let mut options = Options::new(profile);
    options.params =
        vec![("compressor".into(), COMPRESSORS[usize::from(compressor) % COMPRESSORS.len()].into())];
    // Small enough that the limit is met: 20 % of this.
    options.ram_bytes = (u64::from(limit) + 1) << 14;
    let cache = Zswap::new(options).expect("the options are valid");
    let device = Arc::new(Countdown::new(Memory::new(u64::from(SLOTS), SLOTS as usize).expect("memory")));
    let with_device = limit % 2 == 0;
    let backing = with_device.then(|| device.clone() as Arc<dyn swapfile::SwapDevice>);
    cache.swapon(0, SLOTS, backing).expect("the type is off");
    let mut model: BTreeMap<u32, Page> = BTreeMap::new();
    let mut failed = false;
    for &[what, slot, kind, seed] in rest.as_chunks::<4>().0 {
        let entry = at(slot);
        match what % 10 {
            0..=3 => {
                let page = page(kind, seed);
                // After a failure nothing is held for it, neither new nor old.
                match cache.swap_out(entry, &page) {
                    Ok(_) => model.insert(entry.offset, page),
                    Err(_) => model.remove(&entry.offset),
                };
            }
            4 | 5 => {
                let keep = if what % 10 == 4 { Keep::Always } else { Keep::AsConfigured };
                let mut out = [0xA5; PAGE_SIZE];
                match cache.load(entry, &mut out, keep) {
                    Ok(Some(_)) => {
                        assert!(model.get(&entry.offset) == Some(&out), "slot {} is wrong", entry.offset);
                    }
                    Ok(None) => assert!(!model.contains_key(&entry.offset), "slot {} is lost", entry.offset),
                    Err(_) => assert!(failed, "no fault, and a load fails"),
                }
                if !cache.contains(entry) {
                    model.remove(&entry.offset);
                }
            }
            6 => {
                cache.invalidate_page(entry);
                model.remove(&entry.offset);
            }
            7 => {
                cache.invalidate_range(entry, u32::from(kind) % SLOTS);
                let end = entry.offset + u32::from(kind) % SLOTS;
                model.retain(|offset, _| !(entry.offset..end).contains(offset));
            }
            8 => {
                cache.shrink();
            }
            _ if seed == 0xff && with_device => {
                let op = if kind % 2 == 0 { Op::Write } else { Op::Read };
                device.fail(op, u64::from(kind % 4), Lasting::Forever, 5);
                failed = true;
            }
            _ => {
                // A profile that has no such parameter refuses it.
                let _ = cache.set(Param::Compressor, COMPRESSORS[usize::from(kind) % COMPRESSORS.len()]);
                let _ = cache.set(Param::ExclusiveLoads, if seed % 2 == 0 { "Y" } else { "N" });
            }
        }
    }
    for (offset, page) in &model {
        let mut out = [0; PAGE_SIZE];
        match cache.load(SwapEntry { swap_type: 0, offset: *offset }, &mut out, Keep::Always) {
            Ok(Some(_)) => assert!(out == *page, "slot {offset} is wrong at the end"),
            Ok(None) => panic!("slot {offset} is lost at the end"),
            Err(_) => assert!(failed),
        }
    }
    cache.invalidate_area(0);
}
