//! A [`PageStore`] seen as a row of bytes, for transports whose requests need not be whole pages.
//!
//! Swap traffic is always whole pages and goes straight through. A part of a page is done by reading the page,
//! changing it and writing it back, alone: one lock is held shared by whole-page writes and exclusive by partial
//! ones, so that neither can fall between the read and the write of the other. The trade is that a partial write
//! waits for every write in flight; only probing tools make them.

use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use crate::{Errno, PAGE_SIZE, Page, PageStore};

const PAGE: u64 = PAGE_SIZE as u64;

/// One page's share of a byte range.
struct Part {
    page: u64,
    /// The bytes within the page.
    within: Range<usize>,
    /// The same bytes within the caller's buffer.
    buffer: Range<usize>,
}

impl Part {
    fn is_whole(&self) -> bool {
        self.within.len() == PAGE_SIZE
    }
}

/// Cuts `len` bytes at `offset` at page boundaries.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = Part> {
    let mut done = 0;
    let mut page = offset / PAGE;
    // The remainder is below PAGE_SIZE, so it fits.
    let mut start = usize::try_from(offset % PAGE).unwrap_or(0);
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let take = (PAGE_SIZE - start).min(len - done);
        let part = Part { page, within: start..start + take, buffer: done..done + take };
        (done, page, start) = (done + take, page + 1, 0);
        Some(part)
    })
}

/// Byte access to a page store. Ranges are checked against its size; nothing here panics on them.
pub struct ByteStore {
    pages: Arc<dyn PageStore>,
    size: u64,
    /// Shared: whole pages are being written. Exclusive: part of a page is.
    partial: RwLock<()>,
}

impl ByteStore {
    /// # Errors
    /// `EFBIG` when the store has more bytes than a file may (2^63 - 1).
    pub fn new(pages: Arc<dyn PageStore>) -> Result<Self, Errno> {
        let size = pages
            .pages()
            .checked_mul(PAGE)
            .filter(|&bytes| i64::try_from(bytes).is_ok())
            .ok_or(Errno::FBIG)?;
        Ok(Self { pages, size, partial: RwLock::new(()) })
    }

    /// Bytes in the store.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The pages themselves.
    pub fn pages(&self) -> &dyn PageStore {
        &*self.pages
    }

    /// How many of `len` bytes at `offset` exist.
    fn available(&self, offset: u64, len: usize) -> usize {
        usize::try_from(self.size.saturating_sub(offset)).map_or(len, |left| left.min(len))
    }

    /// Reads into `out` and returns the number of bytes read: less than asked for only at the end of the store.
    ///
    /// # Errors
    /// Whatever the store says of the first page it cannot read; `out` is then undefined.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<usize, Errno> {
        let len = self.available(offset, out.len());
        for part in parts(offset, len) {
            let bytes = &mut out[part.buffer];
            if let Ok(page) = <&mut Page>::try_from(&mut *bytes) {
                self.pages.read(part.page, page)?;
            } else {
                let mut page = [0; PAGE_SIZE];
                self.pages.read(part.page, &mut page)?;
                bytes.copy_from_slice(&page[part.within]);
            }
        }
        Ok(len)
    }

    /// Writes `data` and returns the number of bytes written: less than given only at the end of the store.
    ///
    /// # Errors
    /// `ENOSPC` when there is data and none of it fits; else what the store says of the first page it does not take.
    /// Pages before that one are written.
    pub fn write_at(&self, offset: u64, data: &[u8]) -> Result<usize, Errno> {
        let len = self.available(offset, data.len());
        if len == 0 && !data.is_empty() {
            return Err(Errno::NOSPC);
        }
        for part in parts(offset, len) {
            let bytes = &data[part.buffer];
            if let Ok(page) = <&Page>::try_from(bytes) {
                let _whole = self.partial.read().unwrap_or_else(PoisonError::into_inner);
                self.pages.write(part.page, page)?;
            } else {
                self.modify(part.page, part.within, |old| old.copy_from_slice(bytes))?;
            }
        }
        Ok(len)
    }

    /// Makes `len` bytes at `offset` read as zeros; whole pages are discarded. What lies past the end is ignored.
    ///
    /// # Errors
    /// What the store says of the first part it refuses; parts before that one are done.
    pub fn zero(&self, offset: u64, len: u64) -> Result<(), Errno> {
        let end = offset.saturating_add(len).min(self.size);
        if offset >= end {
            return Ok(());
        }
        let (first, last) = (offset.div_ceil(PAGE), end / PAGE);
        if first < last {
            let _whole = self.partial.read().unwrap_or_else(PoisonError::into_inner);
            self.pages.discard(first, last - first)?;
        }
        // What is left are the two edges, or one range inside a single page.
        let head = offset..end.min(first * PAGE);
        let tail = offset.max(last.max(first) * PAGE)..end;
        for edge in [head, tail] {
            let len = usize::try_from(edge.end.saturating_sub(edge.start)).unwrap_or(0);
            for part in parts(edge.start, len) {
                debug_assert!(!part.is_whole());
                self.modify(part.page, part.within, |old| old.fill(0))?;
            }
        }
        Ok(())
    }

    /// Passes a flush on.
    ///
    /// # Errors
    /// What the store says.
    pub fn flush(&self) -> Result<(), Errno> {
        self.pages.flush()
    }

    fn modify(&self, page: u64, within: Range<usize>, change: impl FnOnce(&mut [u8])) -> Result<(), Errno> {
        let _alone = self.partial.write().unwrap_or_else(PoisonError::into_inner);
        let mut content = [0; PAGE_SIZE];
        self.pages.read(page, &mut content)?;
        change(&mut content[within]);
        self.pages.write(page, &content)
    }
}
