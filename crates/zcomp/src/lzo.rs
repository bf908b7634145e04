//! LZO1X, the kernel's default compressor: `lzo`, and `lzo-rle` with its instruction for runs of zeros (5.1 and later).
//!
//! Written from the description of the stream (the kernel's `Documentation/staging/lzo.rst`), in safe Rust, because the
//! C library is under the GPL and the permissive crates compress several times slower. An instruction is one byte that
//! says what is copied, followed by what that kind needs; its last two bits (S) tell how many literals come next:
//!
//! ```text
//! 1LLDDDSS d          copy L = 5-8 from up to 2 KiB back      01LDDDSS d     copy 3 or 4 from up to 2 KiB back
//! 001LLLLL lo hi      copy from up to 16 KiB back             0001HLLL lo hi copy from up to 48 KiB back, or end
//! 0000LLLL            after S = 0: literals                   0000DDSS d     after literals: copy 2 or 3
//! 00011LLL 111111SS 11111111 x    (version 1) (x << 3 | L) + 4 zeros
//! ```
//!
//! A stream of version 1 begins with 17 and 1. The decoder takes either version: nothing else starts like that.
//!
//! What the compressor trades, like LZO1X-1: one candidate a position, found by a hash of four bytes, and longer steps the
//! longer nothing matches. A page has no distance above 4095, so instructions for farther copies are never written.

mod compress;
mod decompress;

use crate::{CompressError, Compressor, Context, DecompressError, Page};

/// Shortest run of zeros with an instruction of its own, and the longest.
const ZEROS: std::ops::RangeInclusive<usize> = 4..=(255 << 3 | 7) + 4;
/// Farthest and longest copy of the two-byte instruction.
const NEAR: (usize, usize) = (2048, 8);
const END: [u8; 3] = [17, 0, 0];
const VERSION_1: [u8; 2] = [17, 1];
/// The `lzo` and `lzo-rle` compressors.
pub(crate) struct Lzo {
    rle: bool,
}

impl Lzo {
    pub(crate) fn new(rle: bool) -> Lzo {
        Lzo { rle }
    }
}

impl Compressor for Lzo {
    fn name(&self) -> &str {
        if self.rle { "lzo-rle" } else { "lzo" }
    }

    fn context(&self) -> Option<Box<dyn Context>> {
        Some(Box::new(LzoContext { memory: compress::Memory::new()?, rle: self.rle }))
    }
}

struct LzoContext {
    memory: compress::Memory,
    rle: bool,
}

impl Context for LzoContext {
    fn compress(&mut self, page: &Page, out: &mut [u8]) -> Result<usize, CompressError> {
        let len = if self.rle {
            compress::compress::<true>(page, out, &mut self.memory)
        } else {
            compress::compress::<false>(page, out, &mut self.memory)
        };
        len.ok_or(CompressError::NoRoom)
    }

    fn decompress(&mut self, data: &[u8], page: &mut Page) -> Result<(), DecompressError> {
        decompress::decompress(data, page)
    }

    fn memory_bytes(&self) -> usize {
        self.memory.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PAGE_SIZE;

    fn round_trip(page: &Page) {
        for rle in [false, true] {
            let mut context = Lzo::new(rle).context().unwrap();
            let mut out = [0; 2 * PAGE_SIZE];
            let len = context.compress(page, &mut out).unwrap();
            let mut back = [0xee; PAGE_SIZE];
            assert_eq!(context.decompress(&out[..len], &mut back), Ok(()), "rle {rle}");
            assert!(back == *page, "rle {rle}");
            for cut in 0..len {
                assert!(context.decompress(&out[..cut], &mut back).is_err());
            }
            assert!(context.decompress(&out[..len + 1], &mut back).is_err());
        }
    }

    /// Runs of every length at every alignment of a few: zeros and others, with literals of every short length between.
    #[test]
    fn runs_and_literals_of_every_length() {
        for run in 1..300 {
            for gap in [1, 2, 3, 4, 5, 17, 18, 19, 20, 240, 300] {
                let mut page = [0; PAGE_SIZE];
                let mut seed = run as u32 * 31 + gap as u32;
                for (i, byte) in page.iter_mut().enumerate() {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let in_run = i % (run + gap) < run;
                    *byte = if !in_run {
                        (seed >> 24) as u8 | 1
                    } else if i / (run + gap) % 2 == 0 {
                        0
                    } else {
                        7
                    };
                }
                if run % 7 == 1 || run < 20 {
                    round_trip(&page);
                }
            }
        }
        round_trip(&[0; PAGE_SIZE]);
        round_trip(&[9; PAGE_SIZE]);
    }
}
