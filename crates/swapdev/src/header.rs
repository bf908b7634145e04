//! The swap area header: the first page of a swap device, version 1.
//!
//! Layout from mkswap(8) and the kernel's `union swap_header`: 1024 bytes for a boot block, then in native byte order
//! version, last usable page and number of bad pages as 32 bits each, 16 bytes UUID, 16 bytes label, and the
//! signature in the last ten bytes of the page. A UUID and a label let swaplabel(8) and blkid(8) name the area.

use std::fmt;

use crate::{Errno, PAGE_SIZE, Page};

const INFO: usize = 1024;
const VERSION: u32 = 1;
const UUID: usize = INFO + 12;
const LABEL: usize = UUID + 16;
const SIGNATURE: &[u8; 10] = b"SWAPSPACE2";
/// Fewer pages than this mkswap(8) refuses to make an area of.
pub const MIN_PAGES: u64 = 10;

/// A random (version 4) UUID.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// # Errors
    /// What getrandom(2) says.
    pub fn random() -> Result<Self, Errno> {
        let mut bytes = [0; 16];
        // Up to 256 bytes come whole once the kernel's generator is seeded.
        if rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())? != bytes.len() {
            return Err(Errno::IO);
        }
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// The header page of an area of `pages` pages, itself included. `label` is cut at 15 bytes, at a character boundary,
/// so that it always ends in a zero byte as blkid(8) wants it.
///
/// # Errors
/// `EINVAL` below [`MIN_PAGES`]; `EFBIG` when the last page's number does not fit in the header's 32 bits.
pub fn swap_header(pages: u64, uuid: Uuid, label: &str) -> Result<Page, Errno> {
    if pages < MIN_PAGES {
        return Err(Errno::INVAL);
    }
    let last_page = u32::try_from(pages - 1).map_err(|_| Errno::FBIG)?;
    let mut page = [0; PAGE_SIZE];
    page[INFO..INFO + 4].copy_from_slice(&VERSION.to_ne_bytes());
    page[INFO + 4..INFO + 8].copy_from_slice(&last_page.to_ne_bytes());
    page[UUID..UUID + 16].copy_from_slice(&uuid.0);
    let label = &label[..label.floor_char_boundary(15)];
    page[LABEL..LABEL + label.len()].copy_from_slice(label.as_bytes());
    page[PAGE_SIZE - SIGNATURE.len()..].copy_from_slice(SIGNATURE);
    Ok(page)
}
