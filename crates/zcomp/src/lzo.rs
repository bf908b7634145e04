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

use crate::{CompressError, Compressor, Context, DecompressError, PAGE_SIZE, Page};

const HASH_BITS: u32 = 13;
/// Shortest run of zeros with an instruction of its own, and the longest.
const ZEROS: std::ops::RangeInclusive<usize> = 4..=(255 << 3 | 7) + 4;
/// Farthest and longest copy of the two-byte instruction.
const NEAR: (usize, usize) = (2048, 8);
const END: [u8; 3] = [17, 0, 0];
const VERSION_1: [u8; 2] = [17, 1];
/// Bytes before the first copy, and at the end where none starts.
const HEAD: usize = 4;
const TAIL: usize = 20;

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
        let mut seen = Vec::new();
        seen.try_reserve_exact(1 << HASH_BITS).ok()?;
        seen.resize(1 << HASH_BITS, 0);
        Some(Box::new(LzoContext { seen: seen.into(), rle: self.rle }))
    }
}

struct LzoContext {
    /// The last position of each hash; 0 where there is none yet.
    seen: Box<[u16]>,
    rle: bool,
}

impl Context for LzoContext {
    fn compress(&mut self, page: &Page, out: &mut [u8]) -> Result<usize, CompressError> {
        self.seen.fill(0);
        let mut writer = Writer { out, len: 0, state_at: None };
        if self.rle {
            writer.put(&VERSION_1)?;
        }
        let (mut at, mut literals_from) = (HEAD, 0);
        while at < PAGE_SIZE - TAIL {
            let word = word_at(page, at);
            if self.rle && word == 0 {
                let zeros = page[at..].iter().take(*ZEROS.end()).take_while(|byte| **byte == 0).count();
                writer.literals(&page[literals_from..at])?;
                writer.zeros(zeros)?;
                at += zeros;
                literals_from = at;
                continue;
            }
            let hash = (word.wrapping_mul(0x9E37_79B1) >> (u32::BITS - HASH_BITS)) as usize;
            let candidate = usize::from(self.seen[hash]);
            // Positions are below 4096.
            self.seen[hash] = at as u16;
            if candidate == 0 || word_at(page, candidate) != word {
                at += 1 + ((at - literals_from) >> 5);
                continue;
            }
            let len = 4 + common(page, candidate + 4, at + 4);
            writer.literals(&page[literals_from..at])?;
            writer.copy(at - candidate, len)?;
            at += len;
            literals_from = at;
        }
        writer.literals(&page[literals_from..])?;
        writer.put(&END)?;
        Ok(writer.len)
    }

    fn decompress(&mut self, data: &[u8], page: &mut Page) -> Result<(), DecompressError> {
        decompress(data, page)
    }

    fn memory_bytes(&self) -> usize {
        size_of_val(&*self.seen)
    }
}

/// The four bytes at `at`, which is at most `PAGE_SIZE - 4`.
fn word_at(page: &Page, at: usize) -> u32 {
    page[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// How many bytes from `a` and from `b` on are alike; `b` is the later one.
fn common(page: &Page, a: usize, b: usize) -> usize {
    let (earlier, later) = (&page[a..], &page[b..]);
    let mut len = 0;
    for (one, other) in earlier.chunks_exact(8).zip(later.chunks_exact(8)) {
        let differing = u64_of(one) ^ u64_of(other);
        if differing != 0 {
            return len + (differing.trailing_zeros() / 8) as usize;
        }
        len += 8;
    }
    len + earlier[len..].iter().zip(&later[len..]).take_while(|(one, other)| one == other).count()
}

fn u64_of(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The stream as far as it is written.
struct Writer<'a> {
    out: &'a mut [u8],
    len: usize,
    /// Where the S bits of the last instruction are; `None` before the first.
    state_at: Option<usize>,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), CompressError> {
        let room = self.out.get_mut(self.len..self.len + bytes.len()).ok_or(CompressError::NoRoom)?;
        room.copy_from_slice(bytes);
        self.len += bytes.len();
        Ok(())
    }

    /// An instruction whose low `bits` bits hold `value`, or 0 and what follows it where they are too few.
    fn put_length(&mut self, instruction: u8, bits: u32, value: usize) -> Result<(), CompressError> {
        let most = (1 << bits) - 1;
        if value <= most {
            return self.put(&[instruction | value as u8]);
        }
        let mut rest = value - most;
        self.put(&[instruction])?;
        while rest > 255 {
            self.put(&[0])?;
            rest -= 255;
        }
        self.put(&[rest as u8])
    }

    fn literals(&mut self, literals: &[u8]) -> Result<(), CompressError> {
        match (literals.len(), self.state_at) {
            (0, _) => {}
            (len @ 1..=238, None) => self.put(&[17 + len as u8])?,
            (len @ 1..=3, Some(at)) => {
                if let Some(byte) = self.out.get_mut(at) {
                    *byte |= len as u8;
                }
            }
            (len, _) => self.put_length(0, 4, len - 3)?,
        }
        self.put(literals)
    }

    fn copy(&mut self, distance: usize, len: usize) -> Result<(), CompressError> {
        let distance = distance - 1;
        if distance < NEAR.0 && len <= NEAR.1 {
            self.put(&[((len - 1) << 5 | (distance & 7) << 2) as u8, (distance >> 3) as u8])?;
        } else {
            self.put_length(0b0010_0000, 5, len - 2)?;
            self.put(&((distance << 2) as u16).to_le_bytes())?;
        }
        self.state_at = Some(self.len - 2);
        Ok(())
    }

    fn zeros(&mut self, count: usize) -> Result<(), CompressError> {
        let count = count - ZEROS.start();
        self.put(&[0b0001_1000 | (count & 7) as u8, 0b1111_1100, 0xff, (count >> 3) as u8])?;
        self.state_at = Some(self.len - 3);
        Ok(())
    }
}

/// The stream as far as it is read.
struct Reader<'a> {
    data: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Result<usize, DecompressError> {
        let byte = *self.data.get(self.at).ok_or(DecompressError)?;
        self.at += 1;
        Ok(usize::from(byte))
    }

    fn pair(&mut self) -> Result<usize, DecompressError> {
        Ok(self.byte()? | self.byte()? << 8)
    }

    /// The length in the low `bits` bits of an instruction, or in what follows it where they are 0.
    fn length(&mut self, instruction: usize, bits: u32) -> Result<usize, DecompressError> {
        let most = (1 << bits) - 1;
        match instruction & most {
            0 => {}
            short => return Ok(short),
        }
        let mut len = most;
        loop {
            match self.byte()? {
                0 => len += 255,
                last => return Ok(len + last),
            }
            // Nothing in a page is longer.
            if len > PAGE_SIZE {
                return Err(DecompressError);
            }
        }
    }
}

/// Decodes a stream of either version that holds exactly a page.
fn decompress(data: &[u8], page: &mut Page) -> Result<(), DecompressError> {
    /// Bytes copied at once where there is room on both sides.
    const WIDE: usize = 16;
    let mut from = Reader { data, at: 0 };
    let version_1 = data.len() >= 5 && data.starts_with(&VERSION_1);
    if version_1 {
        from.at = VERSION_1.len();
    }
    let mut to = 0;
    // What the instruction before left: 0 to 3 literals copied, or 4 for a longer run of them.
    let mut state = 0;
    let mut literals = match data.get(from.at) {
        Some(&first) if first > 17 => {
            from.at += 1;
            usize::from(first) - 17
        }
        Some(_) => 0,
        None => return Err(DecompressError),
    };
    loop {
        if literals > 0 {
            let (source, target) = (data.get(from.at..from.at + WIDE), page.get_mut(to..to + WIDE));
            match (source, target) {
                (Some(source), Some(target)) if literals <= WIDE => target.copy_from_slice(source),
                _ => {
                    let source = data.get(from.at..from.at + literals).ok_or(DecompressError)?;
                    page.get_mut(to..to + literals).ok_or(DecompressError)?.copy_from_slice(source);
                }
            }
            from.at += literals;
            to += literals;
            state = literals.min(4);
        }
        let instruction = from.byte()?;
        let (distance, len, next);
        if instruction >= 64 {
            distance = (from.byte()? << 3 | instruction >> 2 & 7) + 1;
            (len, next) = ((instruction >> 5) + 1, instruction & 3);
        } else if instruction >= 32 {
            len = from.length(instruction, 5)? + 2;
            let pair = from.pair()?;
            (distance, next) = ((pair >> 2) + 1, pair & 3);
        } else if instruction >= 16 {
            if version_1
                && instruction & 8 != 0
                && data.get(from.at).is_some_and(|low| low & 0xfc == 0xfc)
                && data.get(from.at + 1) == Some(&0xff)
            {
                let pair = from.pair()?;
                let zeros = (from.byte()? << 3 | instruction & 7) + ZEROS.start();
                page.get_mut(to..to + zeros).ok_or(DecompressError)?.fill(0);
                to += zeros;
                (state, literals) = (pair & 3, pair & 3);
                continue;
            }
            len = from.length(instruction, 3)? + 2;
            let pair = from.pair()?;
            distance = (instruction & 8) << 11 | pair >> 2;
            next = pair & 3;
            if distance == 0 {
                // The end, and it must be of both.
                let whole = to == PAGE_SIZE && from.at == data.len() && len == 3 && next == 0;
                return if whole { Ok(()) } else { Err(DecompressError) };
            }
            // 16 KiB back or more: there is no such place in a page.
            return Err(DecompressError);
        } else if state == 0 {
            literals = from.length(instruction, 4)? + 3;
            continue;
        } else {
            let high = from.byte()?;
            (distance, len) = match state {
                4 => ((high << 2 | instruction >> 2) + 2049, 3),
                _ => ((high << 2 | instruction >> 2) + 1, 2),
            };
            next = instruction & 3;
        }
        let start = to.checked_sub(distance).ok_or(DecompressError)?;
        if to + len > PAGE_SIZE {
            return Err(DecompressError);
        }
        if distance >= WIDE && len <= WIDE && to + WIDE <= PAGE_SIZE {
            page.copy_within(start..start + WIDE, to);
        } else {
            // A copy may reach into what it makes: then what is there already is doubled until it suffices.
            let mut made = 0;
            while made < len {
                let step = (distance + made).min(len - made);
                page.copy_within(start..start + step, to + made);
                made += step;
            }
        }
        to += len;
        (state, literals) = (next, next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
