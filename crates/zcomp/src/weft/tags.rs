//! What both modes share: 512 words of 64 bits, each with a tag of four bits that says which bytes of another word it takes over
//! and which are kept.
//!
//! Which words a tag can mean is a mode's own affair, and how the stream says so. What is here: the tables that follow from the
//! sixteen tags of a mode, and the tags' place in the stream: eight words' at once, left out where they are as before.

use crate::PAGE_SIZE;
use crate::memory::Zero;

pub(super) const WORDS: usize = PAGE_SIZE / 8;
/// Words that a pass takes at once.
pub(super) const BLOCK: usize = 64;
/// Words in a group of tags, and how many groups there are.
pub(super) const GROUP: usize = 8;
pub(super) const GROUPS: usize = WORDS / GROUP;
/// Bytes of a group's tags, and of the bits that say which groups are repeated.
pub(super) const GROUP_BYTES: usize = GROUP / 2;
pub(super) const SAME_BYTES: usize = GROUPS / 8;
/// Bytes that may be written beyond the end of what counts.
pub(super) const SPARE: usize = 64;

/// A tag: what the word is like, and its bytes that are kept, from the first to before the end, the lowest being 0.
pub(super) type Tag = (u8, u8, u8);
/// The tag of a word that is kept whole, in both modes.
pub(super) const RAW: u8 = 15;

/// One bit for each byte that a tag keeps.
pub(super) const fn kept(tags: &[Tag; 16]) -> [u8; 16] {
    let mut kept = [0; 16];
    let mut tag = 0;
    while tag < 16 {
        let (_, first, end) = tags[tag];
        kept[tag] = ((1u16 << end) - (1u16 << first)) as u8;
        tag += 1;
    }
    kept
}

/// All bits for a tag that is like that.
pub(super) const fn of_kind(tags: &[Tag; 16], like: u8) -> [u8; 16] {
    let mut all = [0; 16];
    let mut tag = 0;
    while tag < 16 {
        if tags[tag].0 == like {
            all[tag] = u8::MAX;
        }
        tag += 1;
    }
    all
}

/// For each set of bytes that differ (a bit each): the cheapest tag that is like that, in the low four bits, and above them the
/// half bytes that it takes beside the tag, `distance` among them; at most 15, which no tag takes but that for all.
pub(super) const fn cheapest(tags: &[Tag; 16], like: u8, distance: u8) -> [u8; 256] {
    let mut table = [15 << 4 | RAW; 256];
    let kept = kept(tags);
    let mut differing = 0;
    while differing < 256 {
        let mut tag = 0;
        while tag < RAW as usize {
            if tags[tag].0 == like && differing as u8 & !kept[tag] == 0 {
                let choice = (2 * kept[tag].count_ones() as u8 + distance) << 4 | tag as u8;
                if choice < table[differing] {
                    table[differing] = choice;
                }
            }
            tag += 1;
        }
        differing += 1;
    }
    table
}

/// The bits of the bytes that each tag keeps.
pub(super) const fn kept_bits(tags: &[Tag; 16]) -> [u64; 16] {
    let kept = kept(tags);
    let mut bits = [0; 16];
    let mut tag = 0;
    while tag < 16 {
        let mut byte = 0;
        while byte < 8 {
            if kept[tag] >> byte & 1 == 1 {
                bits[tag] |= 0xff << (8 * byte);
            }
            byte += 1;
        }
        tag += 1;
    }
    bits
}

/// The bytes of a word, a bit each, that are not zero.
#[inline(always)]
pub(super) fn not_zero(word: u64) -> u8 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let high = (((word & LOW) + LOW) | word) & !LOW;
    // Each high bit to its place in the top byte; no two of the sums meet.
    (high.wrapping_mul(0x0002_0408_1020_4081) >> 56) as u8
}

/// The tags of a page, without the groups that are as the one before.
#[derive(Clone, Copy)]
pub(super) struct Groups {
    groups: [[u8; GROUP_BYTES]; GROUPS],
    count: usize,
    same: u64,
}

impl Zero for Groups {
    const ZERO: Groups = Groups { groups: [[0; GROUP_BYTES]; GROUPS], count: 0, same: 0 };
}

impl Groups {
    /// From two tags to a byte, the first the lower.
    pub(super) fn find(&mut self, tags: &[u8; WORDS / 2]) {
        let (mut same, mut count, mut before) = (0, 0, 0);
        for (at, group) in tags.as_chunks::<GROUP_BYTES>().0.iter().enumerate() {
            self.groups[count] = *group;
            let now = u32::from_le_bytes(*group);
            count += usize::from(now != before);
            same |= u64::from(now == before) << at;
            before = now;
        }
        (self.same, self.count) = (same, count);
    }

    /// The bytes that [`Groups::write`] takes.
    pub(super) fn len(&self) -> usize {
        SAME_BYTES + GROUP_BYTES * self.count
    }

    /// Writes them, and returns what is left of `out`.
    pub(super) fn write<'a>(&self, out: &'a mut [u8]) -> Option<&'a mut [u8]> {
        let (same, rest) = out.split_first_chunk_mut::<SAME_BYTES>()?;
        let (groups, rest) = rest.split_at_mut_checked(GROUP_BYTES * self.count)?;
        *same = self.same.to_le_bytes();
        groups.copy_from_slice(self.groups[..self.count].as_flattened());
        Some(rest)
    }
}

/// The tags that `data` begins with, two to a byte, and what follows them.
pub(super) fn tags_of(data: &[u8]) -> Option<([u8; WORDS / 2], &[u8])> {
    let (same, rest) = data.split_first_chunk::<SAME_BYTES>()?;
    let same = u64::from_le_bytes(*same);
    let (groups, rest) = rest.split_at_checked(GROUP_BYTES * same.count_zeros() as usize)?;
    let mut groups = groups.as_chunks::<GROUP_BYTES>().0.iter();
    let mut tags = [0; WORDS / 2];
    let mut group = [0; GROUP_BYTES];
    for (at, tags) in tags.as_chunks_mut::<GROUP_BYTES>().0.iter_mut().enumerate() {
        if same >> at & 1 == 0 {
            group = *groups.next()?;
        }
        *tags = group;
    }
    Some((tags, rest))
}

/// Takes the bytes that a tag keeps off the front, and puts them in their place; others of the word may be anything.
#[inline(always)]
pub(super) fn take_kept(literals: &mut &[u8], tag: Tag) -> Option<u64> {
    let kept = match literals.first_chunk() {
        Some(chunk) => *chunk,
        None => {
            let mut chunk = [0; 8];
            chunk[..literals.len()].copy_from_slice(literals);
            chunk
        }
    };
    *literals = literals.get(usize::from(tag.2 - tag.1)..)?;
    Some(u64::from_le_bytes(kept) << ((8 * tag.1) & 63))
}
