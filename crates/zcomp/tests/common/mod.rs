//! Pages to compress, and what the tests share.
#![allow(dead_code, reason = "each test program uses its part")]

use std::sync::Arc;

use zcomp::{Compressor, Context, PAGE_SIZE, Page};

pub mod fenced;
pub mod liblzo2;
pub mod real;

/// Every compressor with its default parameter, and the ends of each parameter's range.
pub const EVERY: [&str; 17] = [
    "lzo",
    "lzo-rle",
    "lz4",
    "lz4(acceleration=8)",
    "lz4(acceleration=65537)",
    "lz4hc",
    "lz4hc(level=2)",
    "zstd",
    "zstd(level=-50)",
    "zstd(level=-1)",
    "zstd(level=1)",
    "zstd(level=19)",
    "deflate",
    "deflate(level=1)",
    "deflate(level=12)",
    "weft",
    "weft(simd=0)",
];

/// One of each decoder.
pub const DECODERS: [&str; 6] = ["lzo-rle", "lz4", "zstd", "deflate", "weft", "weft(simd=0)"];

pub fn find(name: &str) -> Arc<dyn Compressor> {
    zcomp::lookup(name).unwrap_or_else(|error| panic!("{name}: {error:?}"))
}

pub fn context(name: &str) -> Box<dyn Context> {
    find(name).context().unwrap()
}

/// A small generator of numbers (SplitMix64), so that every run sees the same pages.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    pub fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}

/// The families of generated pages, by name.
pub const FAMILIES: [&str; 10] = [
    "random",
    "zeros",
    "one byte",
    "text",
    "pointers",
    "sparse",
    "counters",
    "short period",
    "runs of all lengths",
    "half random",
];

/// A page of the family; each number gives another.
pub fn generated(family: &str, number: u64) -> Page {
    const WORDS: [&str; 12] = [
        "the ",
        "page ",
        "swap",
        " of ",
        "memory, ",
        "kernel",
        "\n",
        "cache ",
        "store",
        "load ",
        "{\"id\": ",
        "0x7f",
    ];
    let mut random = Random(number << 32 | family.len() as u64);
    let mut page = [0; PAGE_SIZE];
    match family {
        "random" => page.fill_with(|| random.byte()),
        "zeros" => {}
        "one byte" => page.fill(random.byte() | 1),
        "text" => {
            let text: String =
                std::iter::repeat_with(|| WORDS[random.below(WORDS.len())]).take(PAGE_SIZE).collect();
            page.copy_from_slice(&text.as_bytes()[..PAGE_SIZE]);
        }
        "pointers" => {
            for word in page.as_chunks_mut::<8>().0 {
                *word = (0x7f12_3400_0000 + (random.next() % 65536) * 16).to_le_bytes();
            }
        }
        "sparse" => {
            for _ in 0..random.below(60) + 1 {
                page[random.below(PAGE_SIZE)] = random.byte();
            }
        }
        "counters" => {
            let first = random.next() % 1_000_000;
            for (word, value) in page.as_chunks_mut::<4>().0.iter_mut().zip(first..) {
                *word = u32::try_from(value).unwrap().to_le_bytes();
            }
        }
        "short period" => {
            let period = random.below(40) + 1;
            for at in 0..PAGE_SIZE {
                page[at] = if at < period { random.byte() } else { page[at - period] };
            }
        }
        "runs of all lengths" => {
            let mut at = 0;
            while at < PAGE_SIZE {
                let run = if random.below(8) == 0 { random.below(3000) } else { random.below(40) } + 1;
                let end = PAGE_SIZE.min(at + run);
                match random.below(4) {
                    0 => {}
                    1 => page[at..end].fill(random.byte()),
                    2 => page[at..end].fill_with(|| random.byte()),
                    _ => {
                        let from = random.below(at + 1);
                        (at..end).for_each(|to| page[to] = page[from + to - at]);
                    }
                }
                at = end;
            }
        }
        "half random" => page[PAGE_SIZE / 2..].fill_with(|| random.byte()),
        other => panic!("no family {other}"),
    }
    page
}

/// `count` pages of each family.
pub fn all_generated(count: u64) -> impl Iterator<Item = (String, Page)> {
    FAMILIES.into_iter().flat_map(move |family| {
        (0..count).map(move |number| (format!("{family} {number}"), generated(family, number)))
    })
}
