//! `weft`, a codec of our own for pages of 4096 bytes. `docs/weft.md` has the format.
//!
//! Memory is not a file: most of it is 64-bit words that repeat an earlier word, or all but a few bytes of it. So the first of
//! two modes takes the page as 512 words and says of each which earlier word it is like and which bytes differ
//! ([`words`]). Nothing in that depends on the word before, so 64 bytes are worked on at once, and no branch is taken
//! that could be foretold wrongly. Text and packed records have no words; such pages are known by their first quarter, and
//! their words are told by any eight bytes further up ([`bytes`]).
//!
//! It trades generality for speed: nothing but a page can be compressed, and nothing is found in another page. With AVX-512
//! (VBMI2: Ice Lake, Zen 4 and later) the first mode takes less than half of LZ4's time; the portable twin makes the same bytes
//! more slowly. What it can never do: depend on the page before, or read or write outside what it was given.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod bytes;
mod tags;
mod words;

use crate::registry::full_name;
use crate::{CompressError, Compressor, Context, DecompressError, PAGE_SIZE, Page};

/// First byte of a compressed page.
const WORDS: u8 = 0;
const BYTES: u8 = 1;

/// More than this is hardly anything gained, and words are tried whatever the first quarter said.
const POOR: usize = PAGE_SIZE * 7 / 8;

/// The `weft` compressor.
pub(crate) struct Weft {
    simd: bool,
    name: String,
}

impl Weft {
    pub(crate) const RANGE: std::ops::RangeInclusive<i32> = 0..=1;
    pub(crate) const DEFAULT: i32 = 1;

    /// Whether the processor has what the fast twin takes.
    pub(crate) fn is_fast() -> bool {
        !matches!(Simd::best(), Simd::Portable)
    }

    /// With `simd` 0 the portable twin does everything, whatever the processor has.
    pub(crate) fn new(simd: i32) -> Weft {
        Weft { simd: simd != 0, name: full_name("weft", "simd", simd, Self::DEFAULT) }
    }
}

impl Compressor for Weft {
    fn name(&self) -> &str {
        &self.name
    }

    fn context(&self) -> Option<Box<dyn Context>> {
        let simd = if self.simd { Simd::best() } else { Simd::Portable };
        let (words, bytes) = (words::Memory::new(simd)?, bytes::Memory::new(simd)?);
        Some(Box::new(WeftContext { simd, words, bytes }))
    }
}

/// Which of the twins does the passes.
#[derive(Clone, Copy)]
enum Simd {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Simd {
    fn best() -> Simd {
        #[cfg(target_arch = "x86_64")]
        if avx512::is_there() {
            return Simd::Avx512;
        }
        Simd::Portable
    }
}

struct WeftContext {
    simd: Simd,
    words: words::Memory,
    bytes: bytes::Memory,
}

impl Context for WeftContext {
    fn compress(&mut self, page: &Page, out: &mut [u8]) -> Result<usize, CompressError> {
        let (mode, body) = out.split_first_mut().ok_or(CompressError::NoRoom)?;
        let mut words = self.words.look(page);
        let bytes = words.is_none_or(|words| words.is_doubtful()).then(|| self.bytes.look(page));
        if bytes.is_some_and(|bytes| bytes > POOR || bytes > self.words.expected()) {
            // Noise between words, as in tables of keys or digests: what few words there are may be all there is.
            words = words.or_else(|| Some(self.words.look_on(page)));
        }
        let len = match (words, bytes) {
            (Some(words), bytes) if bytes.is_none_or(|bytes| words.len() <= bytes) => {
                *mode = WORDS;
                self.words.write(body)
            }
            _ => {
                *mode = BYTES;
                self.bytes.write(body)
            }
        };
        len.map(|len| 1 + len).ok_or(CompressError::NoRoom)
    }

    fn decompress(&mut self, data: &[u8], page: &mut Page) -> Result<(), DecompressError> {
        match data.split_first() {
            Some((&WORDS, body)) => words::decompress(self.simd, body, page),
            Some((&BYTES, body)) => bytes::decompress(self.simd, body, page),
            _ => None,
        }
        .ok_or(DecompressError)
    }

    fn memory_bytes(&self) -> usize {
        self.words.bytes() + self.bytes.bytes()
    }
}
