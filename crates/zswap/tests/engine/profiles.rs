//! What the documents of each system say, as tests: which parameters it has, what it refuses, who makes room, and what a
//! switch of allocator or compressor does.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use swapfile::Memory;
use swapfile::faulty::Counting;
use zswap::{Counter, PROFILES, Param, ParamError, Placed, Refusal, Source, TreeKind, Zswap};

use crate::support::*;

type Device = Counting<Memory>;

/// Parameters with their first values.
type Params = &'static [(&'static str, &'static str)];

fn cache(name: &str, params: &[(&str, &str)]) -> (Zswap, Arc<Device>) {
    let device = Arc::new(Counting::new(Memory::new(u64::from(SLOTS), SLOTS as usize).unwrap()));
    (with_device(options(name, params), &device), device)
}

/// The parameters of `name`: those that may be set at run time, and those at start only, with their first values.
fn documented(name: &str) -> (Params, Params) {
    match name {
        "v1" => (
            &[("max_pool_percent", "20"), ("max_compression_ratio", "80")],
            &[("enabled", "Y"), ("compressor", "lzo")],
        ),
        "3.11" => (&[("max_pool_percent", "20")], &[("enabled", "Y"), ("compressor", "lzo")]),
        "zpool" => (
            &[
                ("enabled", "Y"),
                ("compressor", "lzo"),
                ("zpool", "zbud"),
                ("max_pool_percent", "20"),
                ("accept_threshold_percent", "90"),
                ("same_filled_pages_enabled", "Y"),
                ("non_same_filled_pages_enabled", "Y"),
                ("exclusive_loads", "N"),
                ("shrinker_enabled", "N"),
            ],
            &[],
        ),
        "6.18" => (
            &[
                ("enabled", "Y"),
                ("compressor", "lzo"),
                ("max_pool_percent", "20"),
                ("accept_threshold_percent", "90"),
                ("shrinker_enabled", "N"),
            ],
            &[],
        ),
        "default" => (
            &[
                ("enabled", "Y"),
                ("compressor", "auto"),
                ("zpool", "zsmalloc"),
                ("max_pool_percent", "20"),
                ("max_pool_bytes", "0"),
                ("accept_threshold_percent", "90"),
                ("max_compression_ratio", "100"),
                ("same_filled_pages_enabled", "Y"),
                ("non_same_filled_pages_enabled", "Y"),
                ("exclusive_loads", "Y"),
                ("shrinker_enabled", "N"),
            ],
            &[("tree", "radix")],
        ),
        other => panic!("{other}: a profile without documents"),
    }
}

/// What a parameter shows that was given this value.
fn shown(value: &'static str) -> &'static str {
    match value {
        "auto" if zcomp::lookup("auto").is_ok_and(|found| found.name() == "weft") => "weft",
        "auto" => "lz4",
        other => other,
    }
}

#[test]
fn each_has_its_parameters_and_no_others() {
    for profile in PROFILES {
        let (cache, _) = cache(profile.name, &[]);
        let (runtime, start) = documented(profile.name);
        for &param in Param::ALL {
            let named = |list: &[(&str, &'static str)]| {
                list.iter().find(|(name, _)| *name == param.name()).map(|(_, value)| shown(value))
            };
            let label = format!("{} {}", profile.name, param.name());
            match (named(runtime), named(start)) {
                (Some(first), None) => {
                    assert_eq!(cache.get(param).as_deref(), Some(first), "{label}");
                    cache.set(param, first).unwrap();
                    cache.set(param, "").unwrap();
                    let error = cache.set(param, "else").unwrap_err();
                    let named = [Param::Compressor, Param::Zpool].contains(&param);
                    assert_eq!(error.errno(), if named { libc::ENOENT } else { libc::EINVAL }, "{label}");
                    assert_eq!(cache.get(param).as_deref(), Some(first), "{label}: changed by an error");
                }
                (None, Some(first)) => {
                    assert_eq!(cache.get(param).as_deref(), Some(first), "{label}");
                    assert_eq!(cache.set(param, first), Err(ParamError::StartOnly), "{label}");
                    let given = options(profile.name, &[(param.name(), first)]);
                    Zswap::new(given).map(drop).unwrap();
                }
                _ => {
                    assert_eq!(cache.get(param), None, "{label}");
                    assert_eq!(cache.set(param, "1"), Err(ParamError::Unknown), "{label}");
                    let given = options(profile.name, &[(param.name(), "1")]);
                    assert_eq!(
                        Zswap::new(given).map(drop).unwrap_err().error,
                        ParamError::Unknown,
                        "{label}"
                    );
                }
            }
        }
    }
    assert_eq!(ParamError::Unknown.errno(), libc::ENOENT);
    assert_eq!(ParamError::StartOnly.errno(), libc::EPERM);
    assert_eq!(PROFILES.last().unwrap().name, "default");
    assert_eq!(["v1", "3.11", "zpool"].map(|name| profile(name).tree), [TreeKind::Rbtree; 3]);
}

#[test]
fn values_out_of_range_change_nothing() {
    let (cache, _) = cache("default", &[]);
    for (param, text, errno) in [
        (Param::MaxPoolPercent, "101", libc::EINVAL),
        (Param::MaxPoolPercent, "-1", libc::EINVAL),
        (Param::MaxPoolPercent, "4294967296", libc::ERANGE),
        (Param::MaxPoolPercent, "20%", libc::EINVAL),
        (Param::AcceptThresholdPercent, "1000", libc::EINVAL),
        (Param::MaxCompressionRatio, "0x65", libc::EINVAL),
        (Param::MaxPoolBytes, "18446744073709551616", libc::ERANGE),
        (Param::MaxPoolBytes, "1.5", libc::EINVAL),
        (Param::Enabled, "2", libc::EINVAL),
        (Param::ExclusiveLoads, "maybe", libc::EINVAL),
        (Param::Compressor, "842", libc::ENOENT),
        (Param::Compressor, "deflate-iaa", libc::ENOENT),
        (Param::Compressor, "zstd(level=999)", libc::EINVAL),
        (Param::Zpool, "z3fold", libc::ENOENT),
        (Param::Tree, "rbtree", libc::EPERM),
    ] {
        let before = cache.get(param);
        let error = cache.set(param, text).unwrap_err();
        assert_eq!(error.errno(), errno, "{} {text}: {error}", param.name());
        assert_eq!(cache.get(param), before);
        let error = Zswap::new(options("default", &[(param.name(), text)])).map(drop);
        assert_eq!(error.is_err(), param != Param::Tree, "{} {text} at start", param.name());
    }
    // Blanks around a name, and the kernel's newline.
    cache.set(Param::Compressor, " zstd \n").unwrap();
    assert_eq!(cache.get(Param::Compressor).unwrap(), "zstd");
    cache.set(Param::MaxPoolPercent, "0x10\n").unwrap();
    assert_eq!(cache.get(Param::MaxPoolPercent).unwrap(), "16");
    assert_eq!(cache.pools().len(), 1);
}

#[test]
fn zpools_are_chosen_where_the_profile_lets_them_be() {
    for (name, zpool) in [
        ("v1", "zsmalloc"),
        ("3.11", "zbud"),
        ("zpool", "zbud"),
        ("6.18", "zsmalloc"),
        ("default", "zsmalloc"),
    ] {
        let (cache, _) = cache(name, &[]);
        assert_eq!(cache.pools()[0].0, zpool, "{name}");
        let other = if zpool == "zbud" { "zsmalloc" } else { "zbud" };
        let may = ["zpool", "default"].contains(&name);
        assert_eq!(cache.set(Param::Zpool, other).is_ok(), may, "{name}");
        assert_eq!(cache.pools()[0].0, if may { other } else { zpool }, "{name}");
    }
}

/// "Any page that does not compress by at least this ratio will be rejected" (2012-13).
#[test]
fn v1_rejects_by_the_ratio() {
    let (cache, _) = cache("v1", &[]);
    cache.store(at(1), &noisy(1, 3100)).unwrap();
    assert_eq!(cache.store(at(2), &noisy(2, 3400)), Err(Refusal::CompressPoor));
    cache.set(Param::MaxCompressionRatio, "50").unwrap();
    assert_eq!(cache.store(at(3), &noisy(3, 2100)), Err(Refusal::CompressPoor));
    cache.store(at(4), &noisy(4, 1900)).unwrap();
    // What was taken before stays.
    expect(&cache, 1, &noisy(1, 3100), Source::Cache);
    // Raw pages are unknown there, whatever the ratio.
    cache.set(Param::MaxCompressionRatio, "100").unwrap();
    assert_eq!(cache.store(at(5), &incompressible(5)), Err(Refusal::CompressPoor));
    assert_eq!(cache.swap_out(at(5), &incompressible(5)), Ok(Placed::Device(Refusal::CompressPoor)));
}

/// "evicts pages on an LRU basis to the backing swap device when the compress pool reaches it size limit or the pool is
/// unable to obtain additional pages" (2012-13).
#[test]
fn v1_makes_room_for_a_store_by_writing_back_its_oldest() {
    let mut options = options("v1", &[]);
    let refusing = refusing(&mut options);
    options.ram_bytes = 5 << 20;
    let device = Arc::new(Counting::new(Memory::new(u64::from(SLOTS), SLOTS as usize).unwrap()));
    let cache = with_device(options, &device);
    for offset in 0..1000 {
        cache.store(at(offset), &noisy(u64::from(offset), 2000)).unwrap();
    }
    let written = u32::try_from(cache.counter(Counter::WrittenBackPages)).unwrap();
    assert!(written > 300, "{written}: the limit is 1 MiB and 1000 pages take two");
    for offset in 0..1000 {
        let source = if offset < written { Source::Device } else { Source::Cache };
        expect(&cache, offset, &noisy(u64::from(offset), 2000), source);
    }
    // The allocator gets nothing more: up to 16 leave, and the store is tried once more.
    cache.set(Param::MaxPoolPercent, "100").unwrap();
    assert_eq!(cache.counter(Counter::SavedByWriteback), 0);
    refusing.store(true, SeqCst);
    let mut saved = 0;
    for offset in 1000..1200 {
        saved += u64::from(cache.store(at(offset), &noisy(u64::from(offset), 2000)).is_ok());
    }
    assert!(cache.counter(Counter::SavedByWriteback) > 0, "{saved} stores worked");
    assert!(saved >= 190, "only {saved} of 200 stores found room");
    assert!(cache.counter(Counter::WrittenBackPages) - u64::from(written) <= 16 * 200);
    for offset in 0..1000 {
        assert!(*peek(&cache, offset).unwrap().unwrap().1 == noisy(u64::from(offset), 2000));
    }
}

/// 3.11: the allocator names its oldest page, and both buddies in it leave.
#[test]
fn in_3_11_both_buddies_of_the_oldest_page_leave() {
    let mut options = options("3.11", &[]);
    options.workers = 1;
    options.ram_bytes = 100 << 20;
    let device = Arc::new(Counting::new(Memory::new(u64::from(SLOTS), SLOTS as usize).unwrap()));
    let cache = with_device(options, &device);
    // Pairs that share a page: nothing else fits beside two of them.
    for offset in 0..400 {
        cache.store(at(offset), &noisy(u64::from(offset), 1700)).unwrap();
    }
    assert_eq!(cache.counter(Counter::PoolTotalSize), 200 * 4096);
    let on_device =
        || (0..400).filter(|&offset| peek(&cache, offset).unwrap().unwrap().0 == Source::Device).count();
    // One percent is 1 MiB: what is held decides how much must go, page by page, two entries each.
    let metadata = cache.counter(Counter::MetadataBytes);
    let percent = (metadata + 190 * 4096) * 100 / (100 << 20);
    cache.set(Param::MaxPoolPercent, &percent.to_string()).unwrap();
    assert_eq!(cache.counter(Counter::WrittenBackPages), 0, "nobody shrinks there but a store");
    let stored = cache.store(at(500), &noisy(500, 1700));
    let written = usize::try_from(cache.counter(Counter::WrittenBackPages)).unwrap();
    assert!(written > 0 && written.is_multiple_of(2), "{written} written by {stored:?}");
    assert_eq!(on_device(), written);
    for offset in 0..400 {
        let source = if (offset as usize) < written { Source::Device } else { Source::Cache };
        expect(&cache, offset, &noisy(u64::from(offset), 1700), source);
    }
}

/// The 8 bytes in front of an object, which tell the allocator's page whose it is, count: 3968 are the most.
#[test]
fn in_3_11_too_big_is_what_zbud_cannot_hold() {
    let (cache, _) = cache("3.11", &[]);
    let taken = |share| cache.store(at(1), &noisy(1, share)).is_ok();
    let most = (3000..4096).take_while(|share| taken(*share)).last().unwrap();
    assert!((3700..3968).contains(&most), "{most} bytes of noise fit");
    assert_eq!(cache.store(at(1), &noisy(1, most + 1)), Err(Refusal::CompressPoor));
    let before = cache.counter(Counter::RejectCompressPoor);
    assert_eq!(cache.store(at(1), &incompressible(1)), Err(Refusal::CompressPoor));
    assert_eq!(cache.counter(Counter::RejectCompressPoor), before + 1);
}

/// 5.10 and later: a full pool refuses, the worker writes back to the accept threshold, and then stores are taken again.
#[test]
fn the_worker_profiles_shrink_to_the_threshold() {
    for name in ["zpool", "6.18", "default"] {
        let mut options = options(name, &[]);
        options.ram_bytes = 20 << 20;
        let device = Arc::new(Counting::new(Memory::new(u64::from(SLOTS), SLOTS as usize).unwrap()));
        let cache = with_device(options, &device);
        let mut stored = 0;
        while cache.store(at(stored), &noisy(u64::from(stored), 2500)).is_ok() {
            stored += 1;
        }
        assert_eq!(cache.counter(Counter::WrittenBackPages), 0, "{name}: a store wrote back");
        assert_eq!(cache.store(at(stored), &compressible(1)), Err(Refusal::PoolLimit), "{name}");
        with_worker(&cache, || {
            wait_until("the worker", || cache.store(at(stored), &compressible(1)).is_ok());
        });
        let held = cache.counter(Counter::PoolTotalSize) + cache.counter(Counter::MetadataBytes);
        let limit = cache.counter(Counter::PoolLimitBytes);
        assert!(held <= limit / 100 * 90 + 64 * 4096, "{name}: {held} of {limit}");
        assert!(held >= limit / 2, "{name}: it wrote far more than it should: {held} of {limit}");
        let written = u32::try_from(cache.counter(Counter::WrittenBackPages)).unwrap();
        assert!(written > 0, "{name}");
        for offset in 0..stored {
            let source = if offset < written { Source::Device } else { Source::Cache };
            expect(&cache, offset, &noisy(u64::from(offset), 2500), source);
        }
        // Other profiles had accepted it at once.
        assert!(cache.counter(Counter::PoolLimitHit) >= 2);
    }
}

/// "They are left in their own pool. When a request is made for a page in an old pool, it is uncompressed using its
/// original compressor. Once all pages are removed from an old pool, the pool and its compressor are freed."
#[test]
fn a_switch_leaves_old_pages_in_their_pool_until_the_last_one_goes() {
    let (cache, _) = cache("zpool", &[]);
    let pairs =
        [("lzo", "zbud"), ("lz4", "zbud"), ("lz4", "zsmalloc"), ("zstd", "zsmalloc"), ("deflate", "zbud")];
    for (offset, (compressor, zpool)) in (0..).zip(pairs) {
        cache.set(Param::Compressor, compressor).unwrap();
        cache.set(Param::Zpool, zpool).unwrap();
        cache.store(at(offset), &compressible(u64::from(offset))).unwrap();
        let (driver, name, bytes) = cache.pools().swap_remove(0);
        assert_eq!((driver, name.as_str()), (zpool, compressor), "the current pool comes first");
        assert!(bytes > 0);
    }
    // The pairs on the way from one to the next were never stored to and are gone.
    assert_eq!(cache.pools().len(), pairs.len(), "{:?}", cache.pools());
    // Going back revives the old pool: no new one is made, and the page of then is still in it.
    cache.set(Param::Compressor, "lzo").unwrap();
    assert_eq!(cache.pools().len(), pairs.len(), "{:?}", cache.pools());
    assert_eq!(cache.pools()[0], ("zbud", "lzo".to_owned(), 4096));
    cache.store(at(10), &compressible(10)).unwrap();
    assert_eq!(cache.pools()[0].2, 4096, "the two share a page of the revived pool");
    for (offset, left) in (0..5).zip([5, 4, 3, 2, 1]) {
        expect(&cache, offset, &compressible(u64::from(offset)), Source::Cache);
        cache.invalidate_page(at(offset));
        assert_eq!(cache.pools().len(), left, "after page {offset}: {:?}", cache.pools());
    }
    expect(&cache, 10, &compressible(10), Source::Cache);
    // A replaced page leaves its pool too, and so does one that is written back.
    cache.set(Param::ShrinkerEnabled, "Y").unwrap();
    cache.set(Param::Compressor, "lz4").unwrap();
    assert_eq!(cache.pools().len(), 2);
    cache.store(at(10), &compressible(11)).unwrap();
    assert_eq!(cache.pools().len(), 1);
    cache.set(Param::Compressor, "zstd").unwrap();
    assert_eq!(write_all_back(&cache), 1);
    assert_eq!(cache.pools().len(), 1);
    expect(&cache, 10, &compressible(11), Source::Device);
}

#[test]
fn more_pools_than_there_is_room_for_are_refused_and_change_nothing() {
    let (cache, _) = cache("default", &[("exclusive_loads", "N")]);
    let mut offset = 0;
    let error = loop {
        offset += 1;
        assert!(offset < 100, "a hundred pools");
        match cache.set(Param::Compressor, &format!("lz4(acceleration={})", offset + 1)) {
            Ok(()) => cache.store(at(offset), &compressible(u64::from(offset))).unwrap(),
            Err(error) => break error,
        }
    };
    assert_eq!((error.clone(), error.errno()), (ParamError::TooManyPools, libc::EBUSY));
    assert_eq!(cache.get(Param::Compressor).unwrap(), format!("lz4(acceleration={offset})"));
    for offset in 1..offset {
        expect(&cache, offset, &compressible(u64::from(offset)), Source::Cache);
    }
    cache.invalidate_page(at(1));
    cache.set(Param::Compressor, "zstd").unwrap();
}

#[test]
fn same_filled_pages_cost_nothing_where_the_profile_knows_them() {
    for (name, zero, word) in [
        ("v1", false, false),
        ("3.11", false, false),
        ("zpool", true, true),
        ("6.18", true, false),
        ("default", true, true),
    ] {
        for (value, free) in [(0, zero), (0x0123_4567_89ab_cdef, word)] {
            let (cache, _) = cache(name, &[]);
            let page = same_filled(value);
            cache.store(at(1), &page).unwrap();
            let label = format!("{name} {value:x}");
            assert_eq!(cache.counter(Counter::SameFilledPages), u64::from(free), "{label}");
            assert_eq!(cache.counter(Counter::StoredPages), 1, "{label}");
            assert_eq!(cache.counter(Counter::PoolTotalSize) == 0, free, "{label}");
            expect(&cache, 1, &page, Source::Cache);
            cache.invalidate_page(at(1));
            expect_empty(&cache);
            // One word that differs, anywhere, makes it a page like any other.
            for byte in [0, 7, 8, 2047, 4095] {
                let mut other = page;
                other[byte] ^= 0x10;
                cache.store(at(2), &other).unwrap();
                assert_eq!(cache.counter(Counter::SameFilledPages), 0, "{label} byte {byte}");
                expect(&cache, 2, &other, Source::Cache);
            }
        }
    }
    let (cache, _) = cache("zpool", &[]);
    cache.store(at(1), &same_filled(1)).unwrap();
    cache.set(Param::SameFilledPagesEnabled, "N").unwrap();
    cache.store(at(2), &same_filled(2)).unwrap();
    assert_eq!(cache.counter(Counter::SameFilledPages), 1);
    expect(&cache, 1, &same_filled(1), Source::Cache);
    cache.set(Param::NonSameFilledPagesEnabled, "N").unwrap();
    assert_eq!(cache.store(at(3), &compressible(3)), Err(Refusal::NonSameFilled));
    cache.set(Param::SameFilledPagesEnabled, "Y").unwrap();
    cache.store(at(3), &same_filled(3)).unwrap();
}

/// 6.18 and ours keep pages that do not compress, so that the order of age stays true; before, they are refused.
#[test]
fn raw_pages_are_kept_where_the_profile_knows_them() {
    for (name, raw) in [("v1", false), ("3.11", false), ("zpool", false), ("6.18", true), ("default", true)] {
        let (cache, _) = cache(name, &[]);
        let result = cache.store(at(1), &incompressible(1));
        assert_eq!(result, if raw { Ok(()) } else { Err(Refusal::CompressPoor) }, "{name}");
        assert_eq!(cache.counter(Counter::StoredIncompressiblePages), u64::from(raw), "{name}");
        if raw {
            expect(&cache, 1, &incompressible(1), Source::Cache);
            cache.invalidate_page(at(1));
        }
        expect_empty(&cache);
    }
}

/// The page that was used since it was looked at leaves after those that were not; in 6.18 a store counts as a use.
#[test]
fn a_used_page_gets_a_second_chance() {
    for name in ["zpool", "6.18", "default"] {
        let mut params = vec![("shrinker_enabled", "Y")];
        if name == "default" {
            params.push(("exclusive_loads", "N"));
        }
        let (cache, _) = cache(name, &params);
        for offset in 0..4 {
            cache.store(at(offset), &compressible(u64::from(offset))).unwrap();
        }
        // In 6.18 this only makes all of them look unused, in the order they came.
        let used = 0;
        if name != "6.18" {
            let mut page = [0; 4096];
            cache.load(at(used), &mut page, zswap::Keep::Always).unwrap();
        }
        let order: Vec<u32> = if name == "6.18" { vec![0, 1, 2, 3] } else { vec![1, 2, 3, used] };
        for offset in order {
            // Looking at what is where by loading it would be a use.
            assert_eq!(cache.shrinker_scan(1), 1);
            assert_eq!(cache.counter(Counter::DevicePages), 1);
            cache.invalidate_page(at(offset));
            assert_eq!(cache.counter(Counter::DevicePages), 0, "{name}: {offset} was not the one");
        }
        assert_eq!(cache.shrinker_scan(1), 0);
    }
}
