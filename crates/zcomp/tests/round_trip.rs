//! What goes in comes out, whatever the page and whatever the context did before.

use zcomp::{CompressError, PAGE_SIZE, Page};

mod common;

/// More than any compressor makes of a page.
const ROOM: usize = 2 * PAGE_SIZE;

fn round_trip(name: &str, pages: impl Iterator<Item = (String, Page)>) -> usize {
    let mut context = common::context(name);
    let (mut out, mut back) = ([0; ROOM], [0; PAGE_SIZE]);
    let mut count = 0;
    for (which, page) in pages {
        let len =
            context.compress(&page, &mut out).unwrap_or_else(|error| panic!("{name}: {which}: {error:?}"));
        back.fill(!page[0]);
        assert_eq!(context.decompress(&out[..len], &mut back), Ok(()), "{name}: {which}");
        assert!(back == page, "{name}: {which}: another page came back");
        count += 1;
    }
    count
}

#[test]
fn generated_pages_come_back() {
    for name in common::EVERY {
        assert_eq!(round_trip(name, common::all_generated(40)), 400);
    }
}

#[test]
fn real_pages_come_back() {
    let pages = common::real::pages(400);
    for name in common::EVERY {
        round_trip(name, pages.iter().cloned());
    }
}

/// A page that repeats itself becomes small with every compressor, and a random one fits no smaller room.
#[test]
fn compressible_is_small_and_random_has_no_room() {
    for name in common::EVERY {
        let mut context = common::context(name);
        let mut out = [0; PAGE_SIZE];
        // At this acceleration liblz4 looks at one position in a page.
        let families =
            if name == "lz4(acceleration=65537)" { &[][..] } else { &["zeros", "one byte", "short period"] };
        for family in families {
            let len = context.compress(&common::generated(family, 3), &mut out).unwrap();
            assert!(len < 200, "{name}: {family}: {len}");
        }
        let random = common::generated("random", 3);
        assert_eq!(
            context.compress(&random, &mut out[..PAGE_SIZE - 1]),
            Err(CompressError::NoRoom),
            "{name}"
        );
    }
}

/// The same page gives the same bytes from a fresh context, from one that has done many others, and from one that has just
/// failed, in either direction.
#[test]
fn a_used_context_is_as_good_as_a_fresh_one() {
    for name in common::EVERY {
        let mut used = common::context(name);
        let mut turn = 0;
        for (which, page) in common::all_generated(12) {
            let (mut expected, mut out) = ([0; ROOM], [0; ROOM]);
            let len = common::context(name).compress(&page, &mut expected).unwrap();
            turn += 1;
            match turn % 3 {
                0 => assert!(used.compress(&common::generated("random", turn), &mut [0; 700]).is_err()),
                1 => {
                    assert!(used.decompress(&common::generated("random", turn), &mut [0; PAGE_SIZE]).is_err())
                }
                _ => assert!(used.compress(&page, &mut out[..len - 1]).is_err()),
            }
            assert_eq!(used.compress(&page, &mut out), Ok(len), "{name}: {which}");
            assert!(out[..len] == expected[..len], "{name}: {which}");
            let mut back = [0; PAGE_SIZE];
            assert_eq!(used.decompress(&out[..len], &mut back), Ok(()), "{name}: {which}");
            assert!(back == page, "{name}: {which}");
        }
    }
}

/// liblz4 numbers all bytes that a kept state has seen, in 32 bits, and starts afresh at 2^30: after 15420 pages.
#[test]
fn lz4hc_outlives_its_position_counter() {
    let mut context = common::context("lz4hc(level=2)");
    let pages: Vec<(Page, Vec<u8>)> = common::all_generated(1)
        .map(|(_, page)| {
            let mut out = [0; ROOM];
            let len = common::context("lz4hc(level=2)").compress(&page, &mut out).unwrap();
            (page, out[..len].to_vec())
        })
        .collect();
    for (page, expected) in pages.iter().cycle().take(35_000) {
        let mut out = [0; ROOM];
        assert_eq!(context.compress(page, &mut out), Ok(expected.len()));
        assert!(out[..expected.len()] == expected[..]);
    }
}

#[test]
fn contexts_of_many_threads_do_not_meet() {
    for name in common::EVERY {
        let compressor = common::find(name);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let compressor = &compressor;
                scope.spawn(move || {
                    let mut context = compressor.context().unwrap();
                    let (mut out, mut back) = ([0; ROOM], [0; PAGE_SIZE]);
                    for number in 0..30 {
                        let family = common::FAMILIES[(number as usize + thread) % common::FAMILIES.len()];
                        let page = common::generated(family, number * 4 + thread as u64);
                        let len = context.compress(&page, &mut out).unwrap();
                        context.decompress(&out[..len], &mut back).unwrap();
                        assert!(back == page, "{}: {family} {number}", compressor.name());
                    }
                });
            }
        });
    }
}

/// A page compressed by one thread's context comes back from another's, and from one of another parameter.
#[test]
fn any_context_of_a_compressor_decompresses() {
    for (by, with) in [
        ("lzo", "lzo-rle"),
        ("lzo-rle", "lzo"),
        ("lz4hc", "lz4"),
        ("zstd(level=19)", "zstd(level=-50)"),
        ("deflate", "deflate(level=1)"),
    ] {
        let (mut one, mut other) = (common::context(by), common::context(with));
        for (which, page) in common::all_generated(5) {
            let (mut out, mut back) = ([0; ROOM], [0; PAGE_SIZE]);
            let len = one.compress(&page, &mut out).unwrap();
            assert_eq!(other.decompress(&out[..len], &mut back), Ok(()), "{by} to {with}: {which}");
            assert!(back == page, "{by} to {with}: {which}");
        }
    }
}
