//! What the cache knows about one stored page, and its 14 packed bytes.
//!
//! ```text
//!          a: u32                      b: u32     stamp: u32   meta: u16
//! Pool     pool (5) | handle (27)      checksum   stamp        kind (3) | referenced (1) | len - 1 (12)
//! Same     low half of the word        high half  stamp        kind (3) | referenced (1) | check of the word (12)
//! Device   0                           checksum   stamp        kind (3) | referenced (1) | 0 (12)
//! ```
//!
//! Packing trades a few shifts for memory: an index holds these 14 bytes and nothing else for a page.
//!
//! The index is memory like any other and may be damaged. The four kinds (empty is one) have even parity, so one
//! flipped bit never turns a kind into another; bits that mean nothing unpack as [`What::Damaged`], so that a damaged
//! entry is an error to its reader and never a page that was "not here". What this can never notice is damage to the
//! stamp or to the referenced bit (the order of writeback suffers, no page does) or to the handle, length and checksum
//! of a page: the checksum of the page's content finds those on load.

use zpool::{Handle, PAGE_SIZE};

/// Pools that an entry can tell apart; pool numbers are below this.
pub(crate) const POOLS: u8 = 1 << POOL_BITS;

const POOL_BITS: u32 = 5;
const HANDLE_BITS: u32 = 27;
const _: () = assert!(POOL_BITS + HANDLE_BITS == u32::BITS && Handle::LIMIT == 1 << HANDLE_BITS);

const LOW_BITS: u32 = 12;
const LOW_MASK: u16 = (1 << LOW_BITS) - 1;
const _: () = assert!(PAGE_SIZE == 1 << LOW_BITS);
const REFERENCED: u16 = 1 << LOW_BITS;
const KIND_SHIFT: u32 = LOW_BITS + 1;

const KIND_POOL: u16 = 0b011;
const KIND_SAME: u16 = 0b101;
const KIND_DEVICE: u16 = 0b110;
const KIND_DAMAGED: u16 = 0b111;

/// A stored page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    /// Where its content is.
    pub(crate) what: What,
    /// It was used since writeback last looked at it: the second chance.
    pub(crate) referenced: bool,
    /// Its age, as a number that the cache gives out; an index does not interpret it.
    pub(crate) stamp: u32,
}

/// Where the content of a stored page is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum What {
    /// An object in a pool.
    Pool {
        /// Which pool, below [`POOLS`].
        pool: u8,
        /// The object.
        handle: Handle,
        /// Bytes of the object, 1 to 4096; 4096 is a page stored raw.
        len: u16,
        /// Checksum of the page before compression.
        checksum: u32,
    },
    /// This machine word, 512 times: no object.
    Same {
        /// The word, in the machine's byte order.
        word: u64,
    },
    /// The page with the entry's own number on the backing device.
    Device {
        /// Checksum of the page.
        checksum: u32,
    },
    /// The entry's bits mean nothing any more. There was a page and its content is lost: every load of it is an I/O
    /// error until it is stored again or invalidated. An object it may have had in a pool cannot be found.
    Damaged,
}

/// The kind of [`What`], without its fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// [`What::Pool`]
    Pool,
    /// [`What::Same`]
    Same,
    /// [`What::Device`]
    Device,
    /// [`What::Damaged`]
    Damaged,
}

/// The `meta` field: all that a scan over ages needs beside the stamp.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Meta(u16);

impl Meta {
    /// A place without an entry. No entry packs to it.
    pub(crate) const EMPTY: Meta = Meta(0);

    /// The kind. An entry was expected here, so [`Meta::EMPTY`] is damage.
    pub(crate) fn kind(self) -> Kind {
        match self.0 >> KIND_SHIFT {
            KIND_POOL => Kind::Pool,
            KIND_SAME => Kind::Same,
            KIND_DEVICE => Kind::Device,
            _ => Kind::Damaged,
        }
    }

    /// [`Entry::referenced`].
    pub(crate) fn referenced(self) -> bool {
        self.0 & REFERENCED != 0
    }

    fn low(self) -> u16 {
        self.0 & LOW_MASK
    }
}

/// An [`Entry`] in 14 bytes of four fields; an index may keep the fields apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Packed {
    pub(crate) a: u32,
    pub(crate) b: u32,
    pub(crate) stamp: u32,
    pub(crate) meta: Meta,
}

impl Packed {
    /// Packs an entry. One with a pool number or length out of range packs as [`What::Damaged`]: a mistake of the
    /// caller may then cost an error, never another page's content.
    pub(crate) fn pack(entry: Entry) -> Packed {
        let (kind, a, b, low) = match entry.what {
            What::Pool { pool, handle, len, checksum }
                if pool < POOLS && (1..=1 << LOW_BITS).contains(&len) =>
            {
                (KIND_POOL, u32::from(pool) << HANDLE_BITS | handle.raw(), checksum, len - 1)
            }
            What::Same { word } => {
                let (low, high) = halves(word);
                (KIND_SAME, low, high, check(word))
            }
            What::Device { checksum } => (KIND_DEVICE, 0, checksum, 0),
            What::Pool { .. } | What::Damaged => (KIND_DAMAGED, 0, 0, 0),
        };
        let referenced = if entry.referenced { REFERENCED } else { 0 };
        Packed { a, b, stamp: entry.stamp, meta: Meta(kind << KIND_SHIFT | referenced | low) }
    }

    /// The entry. Takes any bits: those that no entry packs to are [`What::Damaged`].
    pub(crate) fn unpack(self) -> Entry {
        let what = match self.meta.kind() {
            Kind::Pool => {
                let [.., pool] = (self.a >> HANDLE_BITS).to_be_bytes();
                match Handle::from_raw(self.a & (Handle::LIMIT - 1)) {
                    Some(handle) => What::Pool { pool, handle, len: self.meta.low() + 1, checksum: self.b },
                    None => What::Damaged,
                }
            }
            Kind::Same => {
                let word = u64::from(self.b) << 32 | u64::from(self.a);
                if self.meta.low() == check(word) { What::Same { word } } else { What::Damaged }
            }
            Kind::Device if self.a == 0 && self.meta.low() == 0 => What::Device { checksum: self.b },
            Kind::Device | Kind::Damaged => What::Damaged,
        };
        Entry { what, referenced: self.meta.referenced(), stamp: self.stamp }
    }
}

/// The low and the high half of a word.
#[expect(clippy::cast_possible_truncation, reason = "each half is 32 bits")]
fn halves(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

/// The word's six 12-bit digits xored together: any one flipped bit, and any damage within 12 neighbours, changes it.
#[expect(clippy::cast_possible_truncation, reason = "masked to 12 bits")]
fn check(word: u64) -> u16 {
    let half = word ^ word >> 36;
    (half ^ half >> 12 ^ half >> 24) as u16 & LOW_MASK
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<Entry> {
        let mut whats = vec![What::Damaged];
        for pool in [0, 1, 17, POOLS - 1] {
            for handle in [0, 1, 0x5a5_5a5a, Handle::LIMIT - 1] {
                let handle = Handle::from_raw(handle).unwrap();
                for len in [1, 2, 2048, 4095, 4096] {
                    for checksum in [0, 1, 0xdead_beef, u32::MAX] {
                        whats.push(What::Pool { pool, handle, len, checksum });
                    }
                }
            }
        }
        for word in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef, 1 << 63] {
            whats.push(What::Same { word });
        }
        for checksum in [0, 1, u32::MAX] {
            whats.push(What::Device { checksum });
        }
        let mut entries = Vec::new();
        for what in whats {
            for referenced in [false, true] {
                for stamp in [0, 1, u32::MAX] {
                    entries.push(Entry { what, referenced, stamp });
                }
            }
        }
        entries
    }

    #[test]
    fn every_entry_comes_back_and_is_never_empty() {
        for entry in entries() {
            let packed = Packed::pack(entry);
            assert_eq!(packed.unpack(), entry);
            assert_ne!(packed.meta, Meta::EMPTY);
            assert_eq!(packed.meta.referenced(), entry.referenced);
        }
    }

    #[test]
    fn one_flipped_bit_never_makes_another_kind() {
        for entry in entries() {
            let packed = Packed::pack(entry);
            for bit in 0..32 {
                for flipped in [
                    Packed { a: packed.a ^ 1 << bit, ..packed },
                    Packed { b: packed.b ^ 1 << bit, ..packed },
                    Packed { meta: Meta(packed.meta.0 ^ 1u16.checked_shl(bit).unwrap_or(0)), ..packed },
                ] {
                    match (entry.what, flipped.unpack().what) {
                        (_, What::Damaged)
                        | (What::Pool { .. }, What::Pool { .. })
                        | (What::Device { .. }, What::Device { .. }) => {}
                        (What::Same { word }, What::Same { word: now }) => assert_eq!(word, now),
                        // The one value without redundancy is the mark of damage itself.
                        (What::Damaged, _) => {}
                        (was, now) => panic!("{was:?} became {now:?}"),
                    }
                }
            }
        }
    }

    #[test]
    fn any_bits_unpack_and_pack_back() {
        for meta in 0..=u16::MAX {
            for (a, b) in [(0, 0), (1, 0), (u32::MAX, u32::MAX), (0x89ab_cdef, 0x0123_4567)] {
                let packed = Packed { a, b, stamp: 7, meta: Meta(meta) };
                let entry = packed.unpack();
                if entry.what == What::Damaged {
                    assert_eq!(Packed::pack(entry).unpack(), entry);
                } else {
                    assert_eq!(Packed::pack(entry), packed);
                }
            }
        }
    }

    #[test]
    fn a_value_out_of_range_is_an_error_not_another_page() {
        let handle = Handle::from_raw(5).unwrap();
        for (pool, len) in [(POOLS, 1), (u8::MAX, 1), (0, 0), (0, 4097), (0, u16::MAX)] {
            let what = What::Pool { pool, handle, len, checksum: 9 };
            let entry = Entry { what, referenced: true, stamp: 3 };
            assert_eq!(Packed::pack(entry).unpack(), Entry { what: What::Damaged, ..entry });
        }
    }
}
