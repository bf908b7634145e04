//! Pages like those of programs, the same each time: what is counted must not depend on the machine.

use zswap::{PAGE_SIZE, Page};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

const WORDS: [&str; 8] =
    ["the page ", "of memory, ", "\"name\": ", "cache\n", "user@example.org ", "0x7f", "index(", "42, "];

/// `count` pages: a quarter each of text, of objects with pointers, of small numbers with gaps, and of records half of which is
/// noise.
pub fn generated(count: usize) -> Vec<Page> {
    let mut random = Random(7);
    (0..count).map(|number| page(number % 4, &mut random)).collect()
}

fn page(kind: usize, random: &mut Random) -> Page {
    let mut bytes = Vec::with_capacity(2 * PAGE_SIZE);
    while bytes.len() < PAGE_SIZE {
        match kind {
            0 => bytes.extend(WORDS[random.below(8) as usize].bytes()),
            1 => {
                for word in [
                    1,
                    0x5581_1234_a000 + random.below(64) * 32,
                    0x7f35_8000_0000 + random.below(4096) * 16,
                    0,
                ] {
                    bytes.extend(word.to_le_bytes());
                }
            }
            2 => {
                bytes.extend((random.below(1000) as u32).to_le_bytes());
                bytes.resize(bytes.len() + 4 * random.below(6) as usize, 0);
            }
            _ => {
                bytes.extend(b"record: ");
                bytes.extend(random.next().to_le_bytes());
            }
        }
    }
    *bytes.first_chunk().expect("it is longer than a page")
}
