//! The decoder, for streams of either version.

use super::{VERSION_1, ZEROS};
use crate::{DecompressError, PAGE_SIZE, Page};

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
pub(super) fn decompress(data: &[u8], page: &mut Page) -> Result<(), DecompressError> {
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
