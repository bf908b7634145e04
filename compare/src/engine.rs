//! The engine's own costs: time without the codec, memory beside the payload, and two threads against one.

use std::time::Instant;

use zswap::{Counter, Keep, Options, PAGE_SIZE, Page, Profile, SwapEntry, Zswap};

use crate::median;

const ROUNDS: usize = 7;

fn cache(compressor: &str) -> Zswap {
    let profile = Profile::named("default").expect("there is a default profile");
    let mut options = Options::new(profile);
    options.params =
        vec![("compressor".into(), compressor.into()), ("max_pool_bytes".into(), (8u64 << 30).to_string())];
    let cache = Zswap::new(options).expect("the options are valid");
    for swap_type in 0..2 {
        cache.swapon(swap_type, 1 << 24, None).expect("the type is off");
    }
    cache
}

fn entry(swap_type: u8, offset: usize) -> SwapEntry {
    SwapEntry { swap_type, offset: u32::try_from(offset).expect("few pages") }
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("there is /proc");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("statm has fields")
        * PAGE_SIZE
}

/// Pages that are stored while one comes and one goes: 64 MiB before compression, more than the caches of a CPU hold.
const HELD: usize = 16384;

/// Nanoseconds a page of storing it and loading another, exclusively, with a steady number of others in the cache.
fn store_and_load(cache: &Zswap, swap_type: u8, pages: &[Page]) -> f64 {
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
    let begun = Instant::now();
    for (at, page) in pages.iter().cycle().skip(held).take(pages.len()).enumerate() {
        cache.store(entry(swap_type, at + held), page).expect("the pool is large");
        load(at);
    }
    let each = begun.elapsed().as_nanos() as f64 / pages.len() as f64;
    for at in pages.len()..pages.len() + held {
        load(at);
    }
    each
}

/// Nanoseconds a page of the codec alone: the same pages in the same order, from and to as many buffers.
fn codec_alone(compressor: &str, pages: &[Page]) -> f64 {
    let compressor = zcomp::lookup(compressor).expect("it is known");
    let mut context = compressor.context().expect("there is memory");
    let held = HELD.min(pages.len());
    let mut stored = vec![[0u8; PAGE_SIZE]; held + 1];
    let mut lengths = vec![0; held + 1];
    let mut out = [0; PAGE_SIZE];
    for (at, page) in pages.iter().take(held).enumerate() {
        lengths[at] = context.compress(page, &mut stored[at]).expect("it was chosen for that");
    }
    let begun = Instant::now();
    for (at, page) in pages.iter().cycle().skip(held).take(pages.len()).enumerate() {
        let to = (at + held) % (held + 1);
        lengths[to] = context.compress(page, &mut stored[to]).expect("it was chosen for that");
        let from = at % (held + 1);
        context.decompress(&stored[from][..lengths[from]], &mut out).expect("it was compressed");
        std::hint::black_box(&out);
    }
    begun.elapsed().as_nanos() as f64 / pages.len() as f64
}

/// Prints all of it for the pages in `files`.
pub fn run(files: &[String]) {
    let mut pages: Vec<Page> = Vec::new();
    let mut same = 0;
    for file in files {
        let bytes = std::fs::read(file).unwrap_or_else(|error| panic!("{file}: {error}"));
        for chunk in bytes.chunks_exact(PAGE_SIZE) {
            let page: Page = chunk.try_into().expect("the chunk is a page");
            if page[8..] == page[..PAGE_SIZE - 8] { same += 1 } else { pages.push(page) }
        }
    }
    println!("{} pages, {same} same-filled left out; {ROUNDS} rounds", pages.len());

    let compressor = "lz4";
    // Pages that this compressor makes smaller: a page that cannot be stored is no cost of the engine's.
    let chosen = zcomp::lookup(compressor).expect("it is known");
    let mut context = chosen.context().expect("there is memory");
    pages.retain(|page| context.compress(page, &mut [0; PAGE_SIZE - 1]).is_ok());

    let (mut whole, mut codec, mut engine) = (Vec::new(), Vec::new(), Vec::new());
    let one = cache(compressor);
    for _ in 0..ROUNDS {
        let (with, without) = (store_and_load(&one, 0, &pages), codec_alone(compressor, &pages));
        whole.push(with);
        codec.push(without);
        engine.push(with - without);
    }
    let show = |name: &str, figures: Vec<f64>| {
        let (middle, least, most) = median(figures);
        println!("{name:<44} {middle:8.0} ns   ({least:.0} to {most:.0})");
    };
    show("store + load, lz4, a page", whole);
    show("the codec alone", codec);
    show("the engine: the difference (goal 300)", engine);

    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let alone = store_and_load(&one, 0, &pages);
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for swap_type in 0..2 {
                let (one, pages) = (&one, &pages);
                scope.spawn(move || store_and_load(one, swap_type, pages));
            }
        });
        let both = begun.elapsed().as_nanos() as f64 / pages.len() as f64;
        ratios.push(2.0 * alone / both);
    }
    let (middle, least, most) = median(ratios);
    println!(
        "two threads, two swap types, against one      {middle:8.2} x    ({least:.2} to {most:.2}; goal 1.85)"
    );
    drop(one);

    for compressor in zcomp::names() {
        let before = resident();
        let full = cache(compressor);
        // As much payload as the kernel's published figure (628 MB): the zspage of each class that is partly empty costs the
        // same whatever the rest is. Slots follow one another, as the kernel hands them out.
        let mut offset = 0;
        while full.stats().get(Counter::CompressedBytes) < 628_000_000 {
            for page in &pages {
                let _ = full.store(entry(0, offset), page);
                offset += 1;
            }
        }
        let stored = full.counter(Counter::StoredPages) as f64;
        let payload = full.counter(Counter::CompressedBytes) as f64;
        let pool = full.counter(Counter::PoolTotalSize) as f64;
        let metadata = full.counter(Counter::MetadataBytes) as f64;
        let grown = (resident() - before) as f64;
        println!(
            "{compressor:<8} pool / payload {:.4} (goal 1.022); metadata {:.1} B a page (goal 20); resident beside the pool {:.1} B a page; ratio {:.3}",
            pool / payload,
            metadata / stored,
            (grown - pool) / stored,
            stored * PAGE_SIZE as f64 / (pool + metadata)
        );
    }
}
