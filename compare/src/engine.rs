//! The engine's own costs: time without the codec, memory beside the payload, and two threads against one.
//!
//! What is counted as the engine's: a store and a load of two different pages, with 64 MiB of others held, less what a
//! bare loop takes that compresses and decompresses the same pages in the same order into and out of an array of
//! buffers. Both touch the same amount of page and compressed memory, so what is left is checksums, the index, the
//! allocator, locks, counters and copying into the pool. It is shown for the real codec, where the two codecs' times
//! cancel, and with the codec taken out: replaced, in both loops, by copying as many bytes as it made of each page
//! ([`copies`]).
//!
//! The two threads begin half a round apart, so that they do not store the same pages at the same time.
//!
//! Times of one thread are processor time, so that other programs are not counted; how much they disturb the caches
//! still is. Two threads are timed by the clock, because waiting is what is to be found there, and so need a quiet machine.
//!
//! What anybody would write in its place is a map of vectors; [`map`] sets that beside it.

pub mod copies;
mod map;

use std::sync::Barrier;
use std::time::{Duration, Instant};

use zcomp::Compressor;
use zswap::{Counter, Keep, Lookup, Options, PAGE_SIZE, Page, Profile, SwapEntry, Zswap};

use crate::Scale;
use crate::corpora::Corpora;
use crate::figures::{Spread, thread_time};
use crate::report::Report;

pub use map::held;

fn cache(compressor: &str, lookup: Lookup) -> Zswap {
    let profile = Profile::named("default").expect("there is a default profile");
    let mut options = Options::new(profile);
    options.compressors = lookup;
    options.params =
        vec![("compressor".into(), compressor.into()), ("max_pool_bytes".into(), (8u64 << 30).to_string())];
    let cache = Zswap::new(options).expect("the options are valid");
    for swap_type in 0..2 {
        cache.swapon(swap_type, 1 << 24, None).expect("the type is off");
    }
    cache
}

/// A cache whose codec only copies.
pub fn bare_cache() -> Zswap {
    cache("copies", copies::lookup)
}

/// How long a run took, a page.
#[derive(Clone, Copy)]
struct Took {
    processor: f64,
    clock: f64,
}

impl Took {
    fn timed(pages: usize, work: impl FnOnce()) -> Took {
        let (clock, processor) = (Instant::now(), thread_time());
        work();
        let each = |time: Duration| time.as_nanos() as f64 / pages as f64;
        Took { processor: each(thread_time() - processor), clock: each(clock.elapsed()) }
    }
}

/// A slot.
pub fn entry(swap_type: u8, offset: usize) -> SwapEntry {
    SwapEntry { swap_type, offset: u32::try_from(offset).expect("few pages") }
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("there is /proc");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("statm has fields")
        * PAGE_SIZE
}

/// Pages that are stored while one comes and one goes: 64 MiB before compression, more than the caches of a CPU hold.
const HELD: usize = 16384;

/// Stores a page and loads another, exclusively, for each of `pages`, with a steady number of others in the cache.
fn store_and_load(cache: &Zswap, swap_type: u8, pages: &[Page], ready: &Barrier) -> Took {
    let mut out = [0; PAGE_SIZE];
    let held = HELD.min(pages.len());
    let mut load = |at: usize| {
        let found =
            cache.load(entry(swap_type, at), &mut out, Keep::AsConfigured).expect("the page is whole");
        assert!(found.is_some());
    };
    for (at, page) in pages.iter().take(held).enumerate() {
        cache.store(entry(swap_type, at), page).expect("the pool is large");
    }
    ready.wait();
    let took = Took::timed(pages.len(), || {
        for (at, page) in pages.iter().cycle().skip(held).take(pages.len()).enumerate() {
            cache.store(entry(swap_type, at + held), page).expect("the pool is large");
            load(at);
        }
    });
    ready.wait();
    for at in pages.len()..pages.len() + held {
        load(at);
    }
    took
}

/// The codec alone: the same pages in the same order, from and to as many buffers.
fn codec_alone(compressor: &dyn Compressor, pages: &[Page], ready: &Barrier) -> Took {
    let mut context = compressor.context().expect("there is memory");
    let held = HELD.min(pages.len());
    let mut stored = vec![[0u8; PAGE_SIZE]; held + 1];
    let mut lengths = vec![0; held + 1];
    let mut out = [0; PAGE_SIZE];
    for (at, page) in pages.iter().take(held).enumerate() {
        lengths[at] = context.compress(page, &mut stored[at]).expect("it was chosen for that");
    }
    ready.wait();
    let took = Took::timed(pages.len(), || {
        for (at, page) in pages.iter().cycle().skip(held).take(pages.len()).enumerate() {
            let to = (at + held) % (held + 1);
            lengths[to] = context.compress(page, &mut stored[to]).expect("it was chosen for that");
            let from = at % (held + 1);
            context.decompress(&stored[from][..lengths[from]], &mut out).expect("it was compressed");
            std::hint::black_box(&out);
        }
    });
    ready.wait();
    took
}

/// A row of the table: nanoseconds, or how many times as much.
fn show(report: &mut Report, name: &str, unit: &str, figures: Vec<f64>) {
    let digits = if unit == "x" { 2 } else { 0 };
    report.row([name.to_owned(), format!("{:.digits$}", Spread(figures)), unit.to_owned()]);
}

/// Store and load against the codec alone, by one thread.
fn against_codec(
    report: &mut Report,
    rounds: usize,
    cache: &Zswap,
    codec: &dyn Compressor,
    pages: &[Page],
    which: &str,
) {
    let ready = Barrier::new(1);
    let (mut whole, mut alone, mut engine) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let with = store_and_load(cache, 0, pages, &ready).processor;
        let without = codec_alone(codec, pages, &ready).processor;
        whole.push(with);
        alone.push(without);
        engine.push(with - without);
    }
    show(report, &format!("store + load{which}"), "ns a page", whole);
    show(report, &format!("the codec alone{which}"), "ns a page", alone);
    show(report, &format!("the engine: the difference{which}"), "ns a page", engine);
}

/// The pages in a random order, the same each time: a stream that stays of a kind.
fn mixed(pages: &[Page]) -> Vec<Page> {
    let mut pages = pages.to_vec();
    let mut state = 1u64;
    for left in (1..pages.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        pages.swap(left, (state >> 33) as usize % (left + 1));
    }
    pages
}

/// How much more two threads do than one, in the same time: `work` gets the number of its thread.
fn two_against_one(
    report: &mut Report,
    rounds: usize,
    name: &str,
    work: impl Fn(u8, &Barrier) -> Took + Sync,
) {
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let alone = work(0, &Barrier::new(1)).clock;
        let ready = Barrier::new(2);
        let slower = std::thread::scope(|scope| {
            let both = [0, 1].map(|number| {
                let (work, ready) = (&work, &ready);
                scope.spawn(move || work(number, ready).clock)
            });
            both.map(|thread| thread.join().expect("it does not panic")).into_iter().fold(0.0, f64::max)
        });
        ratios.push(2.0 * alone / slower);
    }
    show(report, name, "x", ratios);
}

/// Measures all of it.
pub fn run(report: &mut Report, corpora: &Corpora, scale: Scale) {
    report.section("The engine");
    let rounds = scale.of(7, 1);
    let most = scale.of(usize::MAX, 256);
    let mut pages: Vec<Page> =
        corpora.read(report, most).into_iter().flat_map(|corpus| corpus.pages).collect();
    // Pages that this compressor makes smaller: a page that cannot be stored is no cost of the engine's.
    let lz4 = zcomp::lookup("lz4").expect("it is known");
    let mut context = lz4.context().expect("there is memory");
    let mut lengths = Vec::new();
    pages.retain(|page| {
        let len = context.compress(page, &mut [0; PAGE_SIZE - 1]);
        lengths.extend(len);
        len.is_ok()
    });
    let in_order: Vec<Page> =
        pages.iter().zip(lengths).map(|(page, len)| copies::page_of(page, len)).collect();
    let (pages, alike) = (mixed(&pages), mixed(&in_order));
    let copies = copies::lookup("").expect("there is one");

    report.say(format!(
        "{} pages that lz4 makes smaller, {rounds} rounds; medians with the extremes of the rounds. A page is stored and another \
         loaded while 64 MiB of others are held. \"copies\" is the codec taken out, of the engine and of what it is set against; \
         \"by file\": the files one after another, so that what is stored is of other sizes than what is loaded. Goals: \
         300 ns for the engine with copies, 1.85 for two threads with lz4.",
        pages.len()
    ));
    report.table(&["what", "median (extremes)", "unit"]);
    let one = cache("lz4", zcomp::lookup);
    let bare = bare_cache();
    against_codec(report, rounds, &one, &*lz4, &pages, ", lz4");
    against_codec(report, rounds, &bare, &*copies, &alike, ", copies");
    against_codec(report, rounds, &bare, &*copies, &in_order, ", copies, by file");
    map::times(report, rounds, &one, &*lz4, &pages);
    two_against_one(report, rounds, "two threads / one: lz4 alone", |_, ready| {
        codec_alone(&*lz4, &pages, ready)
    });
    let pair = |report: &mut Report, name: &str, cache: &Zswap, pages: &[Page]| {
        let mut other = pages.to_vec();
        other.rotate_left(pages.len() / 2);
        two_against_one(report, rounds, name, |number, ready| {
            store_and_load(cache, number, if number == 0 { pages } else { &other }, ready)
        });
    };
    pair(report, "two threads / one: lz4", &one, &pages);
    two_against_one(report, rounds, "two threads / one: copies alone", |_, ready| {
        codec_alone(&*copies, &alike, ready)
    });
    pair(report, "two threads / one: copies", &bare, &alike);
    drop((one, bare, alike, in_order));

    memory(report, &pages, scale);
    map::memory(report, corpora, scale);
}

/// What the pool and the metadata take.
fn memory(report: &mut Report, pages: &[Page], scale: Scale) {
    // As much payload as the kernel's published figure (628 MB): the zspage of each class that is partly empty costs the same
    // whatever the rest is.
    let payload = scale.of(628_000_000, 4_000_000);
    report.say(format!(
        "Memory with {} MB of payload. The kernel's zswap has 1.022 and 83 bytes, by its published figures.",
        payload / 1_000_000
    ));
    report.table(&[
        "compressor",
        "pool / payload (goal 1.022)",
        "metadata B a page (goal 20)",
        "resident beside the pool B a page",
        "ratio",
    ]);
    for compressor in zcomp::names() {
        let before = resident();
        let full = cache(compressor, zcomp::lookup);
        // Slots follow one another, as the kernel hands them out.
        let mut offset = 0;
        while full.stats().get(Counter::CompressedBytes) < payload {
            for page in pages {
                let _ = full.store(entry(0, offset), page);
                offset += 1;
            }
        }
        let stored = full.counter(Counter::StoredPages) as f64;
        let payload = full.counter(Counter::CompressedBytes) as f64;
        let pool = full.counter(Counter::PoolTotalSize) as f64;
        let metadata = full.counter(Counter::MetadataBytes) as f64;
        let grown = resident().saturating_sub(before) as f64;
        report.row([
            (*compressor).to_owned(),
            format!("{:.4}", pool / payload),
            format!("{:.1}", metadata / stored),
            format!("{:.1}", (grown - pool) / stored),
            format!("{:.3}", stored * PAGE_SIZE as f64 / (pool + metadata)),
        ]);
    }
}
