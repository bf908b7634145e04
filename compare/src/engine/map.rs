//! `HashMap<SwapEntry, Vec<u8>>` with the same codec, in the engine's place.
//!
//! It does less: no checksums, no limit, no age, no other thread. What it costs is vectors of the general allocator's, and the
//! map that doubles. Memory is told by the process: each store fills in a process of its own, since an allocator hands out again
//! what was freed before.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Barrier;

use zcomp::{Compressor, Context};
use zswap::{PAGE_SIZE, Page, SwapEntry, Zswap};

use super::{HELD, Took, cache, entry, resident, show, store_and_load};
use crate::Scale;
use crate::corpora::{Corpora, is_same_filled};
use crate::report::Report;

struct Map {
    context: Box<dyn Context>,
    buffer: Page,
    stored: HashMap<SwapEntry, Vec<u8>>,
}

impl Map {
    fn new(codec: &dyn Compressor) -> Map {
        let context = codec.context().expect("there is memory");
        Map { context, buffer: [0; PAGE_SIZE], stored: HashMap::new() }
    }

    fn store(&mut self, entry: SwapEntry, page: &Page) {
        let len = self.context.compress(page, &mut self.buffer).expect("it was chosen for that");
        self.stored.insert(entry, self.buffer[..len].to_vec());
    }

    fn load(&mut self, entry: SwapEntry, page: &mut Page) {
        let data = self.stored.remove(&entry).expect("it was stored");
        self.context.decompress(&data, page).expect("it was compressed");
    }
}

/// The same work as the engine's, a round of each in turn.
pub fn times(report: &mut Report, rounds: usize, cache: &Zswap, codec: &dyn Compressor, pages: &[Page]) {
    let ready = Barrier::new(1);
    let (mut theirs, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let own = store_and_load(cache, 0, pages, &ready).processor;
        let map = map_store_and_load(codec, pages);
        theirs.push(map);
        ratios.push(own / map);
    }
    show(report, "a map of vectors, lz4: store + load", "ns a page", theirs);
    show(report, "the engine against it", "x", ratios);
}

fn map_store_and_load(codec: &dyn Compressor, pages: &[Page]) -> f64 {
    let mut map = Map::new(codec);
    let held = HELD.min(pages.len());
    let mut out = [0; PAGE_SIZE];
    for (at, page) in pages.iter().take(held).enumerate() {
        map.store(entry(0, at), page);
    }
    let took = Took::timed(pages.len(), || {
        for (at, page) in pages.iter().cycle().skip(held).take(pages.len()).enumerate() {
            map.store(entry(0, at + held), page);
            map.load(entry(0, at), &mut out);
            std::hint::black_box(&out);
        }
    });
    took.processor
}

/// Resident memory of each, by processes of their own.
pub fn memory(report: &mut Report, corpora: &Corpora, scale: Scale) {
    report.say(
        "Resident memory of a process that stores the pages with lz4, by its own account, less what it had before it stored. \
         The last row is what the published figures make of the same payload.",
    );
    report.table(&[
        "store",
        "resident B a page",
        "payload B a page",
        "resident / payload",
        "beyond payload B a page",
    ]);
    let mut row = |name: &str, resident: f64, payload: f64| {
        report.row([
            name.to_owned(),
            format!("{resident:.1}"),
            format!("{payload:.1}"),
            format!("{:.3}", resident / payload),
            format!("{:.1}", resident - payload),
        ]);
    };
    let mut of_a_page = 0.0;
    for (store, name) in [("uzswap", "uzswap"), ("map", "HashMap<SwapEntry, Vec<u8>>")] {
        let mut child = Command::new(std::env::current_exe().expect("we run"));
        child.args(scale.of(None, Some("--quick"))).args(["held", store]).args(corpora.files());
        let output = child.output().expect("it starts");
        assert!(output.status.success(), "{store}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout);
        let mut figures = text.split_whitespace().map(|figure| figure.parse::<f64>().expect("a number"));
        let mut next = || figures.next().expect("two of them");
        let (resident, payload) = (next(), next());
        row(name, resident, payload);
        of_a_page = payload;
    }
    row("the kernel's zswap", of_a_page * 1.022 + 83.0, of_a_page);
}

/// Stores the pages of the files until there are enough, and prints resident bytes and payload, both a page.
pub fn held(store: &str, files: &[PathBuf], scale: Scale) {
    let codec = zcomp::lookup("lz4").expect("it is known");
    let mut context = codec.context().expect("there is memory");
    // Nothing is freed on the way: memory that an allocator gets back it gives to what is measured.
    let mut pages: Vec<Page> = Vec::with_capacity(scale.of(1 << 20, 1 << 12));
    for file in files {
        let mut file = File::open(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let mut page = [0; PAGE_SIZE];
        let end = scale.of(pages.capacity(), pages.len() + 256);
        while pages.len() < end && file.read_exact(&mut page).is_ok() {
            if !is_same_filled(&page) {
                pages.push(page);
            }
        }
    }
    let mut payload = 0;
    pages.retain(|page| {
        let len = context.compress(page, &mut [0; PAGE_SIZE - 1]);
        payload += len.unwrap_or(0);
        len.is_ok()
    });
    assert!(!pages.is_empty(), "no page gets smaller");
    let times = scale.of(200_000, 2000) / pages.len() + 1;
    let stored = (times * pages.len()) as f64;
    let every = || (0..times).flat_map(|_| &pages).enumerate();
    let before = resident();
    let grown = match store {
        "uzswap" => {
            let cache = cache("lz4", zcomp::lookup);
            every().for_each(|(at, page)| cache.store(entry(0, at), page).expect("the pool is large"));
            resident() - before
        }
        "map" => {
            let mut map = Map::new(&*codec);
            every().for_each(|(at, page)| map.store(entry(0, at), page));
            resident() - before
        }
        other => panic!("no store is called {other}"),
    };
    println!("{} {}", grown as f64 / stored, (payload * times) as f64 / stored);
}
