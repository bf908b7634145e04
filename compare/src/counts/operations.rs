//! The operations that are counted, each over the same pages.

use std::hint::black_box;
use std::sync::Arc;

use zcomp::Compressor;
use zswap::{Keep, PAGE_SIZE, Page};

use super::pages::generated;
use crate::codecs::library;
use crate::engine::{bare_cache, copies, entry};

/// Pages of one count.
pub const PAGES: usize = 256;
/// The function that callgrind is told to collect in.
pub const COUNTED: &str = "compare::counts::operations::counted*";

/// Everything that is counted happens in here.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    work();
    black_box(());
}

const ENGINE: [&str; 5] = ["store", "load", "same-filled store", "invalidate", "zsmalloc put + free"];

/// Names of the operations: the engine's, without a codec, and each compressor that is ours, and liblz4 to set it against.
pub fn names() -> Vec<String> {
    let codecs = zcomp::names().iter().filter(|name| library(name).is_none() || **name == "lz4");
    let codecs = codecs.flat_map(|name| ["compress", "decompress"].map(|what| format!("{what} {name}")));
    ENGINE.iter().map(|&name| name.to_owned()).chain(codecs).collect()
}

/// Whether it is all compiled from Rust.
pub fn is_ours(operation: &str) -> bool {
    let codec = operation.strip_prefix("compress ").or(operation.strip_prefix("decompress "));
    codec.is_none_or(|name| library(name).is_none())
}

/// Does one operation, its preparation not counted.
pub fn count(operation: &str) {
    let pages = generated(PAGES);
    match operation.split_once("compress ") {
        Some(("", name)) => compress(&*found(name), &pages),
        Some((_, name)) => decompress(&*found(name), &pages),
        None if operation.starts_with("zsmalloc") => allocate(&pages),
        None => engine(operation, &pages),
    }
}

fn found(name: &str) -> Arc<dyn Compressor> {
    zcomp::lookup(name).expect("the registry names it")
}

fn compress(codec: &dyn Compressor, pages: &[Page]) {
    let mut context = codec.context().expect("there is memory");
    let mut out = [0; PAGE_SIZE];
    counted(&mut || {
        for page in pages {
            let _ = black_box(context.compress(page, &mut out));
        }
    });
}

fn decompress(codec: &dyn Compressor, pages: &[Page]) {
    let mut context = codec.context().expect("there is memory");
    let mut out = [0; PAGE_SIZE];
    let compressed = |page: &Page| {
        let len = context.compress(page, &mut out).expect("the pages get smaller");
        out[..len].to_vec()
    };
    let stored: Vec<Vec<u8>> = pages.iter().map(compressed).collect();
    counted(&mut || {
        for data in &stored {
            context.decompress(data, &mut out).expect("it was compressed");
            black_box(&out);
        }
    });
}

fn allocate(pages: &[Page]) {
    let pool = zpool::create("zsmalloc", &zpool::Config::default()).expect("it is a driver");
    let round = || {
        let mut handles = Vec::with_capacity(PAGES);
        for (page, size) in pages.iter().zip((64..).step_by(15)) {
            handles.push(pool.put(&page[..size]).expect("there is memory"));
        }
        for handle in handles {
            pool.free(handle).expect("it is live");
        }
    };
    // Once before: the classes are there then.
    round();
    counted(&mut || round());
}

/// An operation of the engine's with the codec taken out: it copies as many bytes as lz4 makes of a page, or so.
fn engine(operation: &str, pages: &[Page]) {
    let cache = bare_cache();
    let length = |number: usize| 256 + number * 11;
    let pages: Vec<Page> =
        pages.iter().enumerate().map(|(number, page)| copies::page_of(page, length(number))).collect();
    let store = || {
        for (at, page) in pages.iter().enumerate() {
            cache.store(entry(0, at), page).expect("the pool is large");
        }
    };
    let load = || {
        let mut out = [0; PAGE_SIZE];
        for at in 0..PAGES {
            let found = cache.load(entry(0, at), &mut out, Keep::AsConfigured).expect("the page is whole");
            assert!(found.is_some());
        }
    };
    // Once before: the pool, the index and the buffers of this thread are there then.
    store();
    load();
    match operation {
        "store" => counted(&mut || store()),
        "same-filled store" => counted(&mut || {
            for at in 0..PAGES {
                cache.store(entry(0, at), &[7; PAGE_SIZE]).expect("it takes no pool");
            }
        }),
        "load" => {
            store();
            counted(&mut || load());
        }
        "invalidate" => {
            store();
            counted(&mut || (0..PAGES).for_each(|at| cache.invalidate_page(entry(0, at))));
        }
        other => panic!("no operation is called {other}"),
    }
}
