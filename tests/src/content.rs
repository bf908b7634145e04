//! What the pages of a demonstration or a test hold: the bytes that programs are made of, and each page can be checked.
//!
//! The source is this process's own program and the libraries it is linked with: machine code, read-only data, symbol
//! tables and debug lines, as they lie in memory. A page is a window of it, with the page's number and generation written
//! over its first bytes, so no page is another's, and none is same-filled.

use std::collections::BTreeSet;
use std::fs;
use std::io;

/// Bytes in a page.
pub const PAGE: usize = 4096;
/// Bytes of number and generation at the head of a page.
const STAMP: usize = 16;
/// The most that is taken of one file, so that debug information does not drown the code.
const FILE_PART: usize = 4 << 20;

/// The bytes that pages are made of.
pub struct Source(Vec<u8>);

impl Source {
    /// Reads the files that this process is made of.
    ///
    /// # Errors
    /// As for reading files; `InvalidData` when there is too little to make pages of.
    pub fn own_program() -> io::Result<Source> {
        let maps = fs::read_to_string("/proc/self/maps")?;
        let files: BTreeSet<&str> =
            maps.lines().filter_map(|line| line.find('/').map(|at| &line[at..])).collect();
        let mut bytes = Vec::new();
        for file in files {
            // A file replaced since the start shows as deleted; then the others must do.
            if let Ok(content) = fs::read(file) {
                // Runs of zeros between sections would be same-filled pages, which nobody should be impressed by.
                let pages =
                    content.chunks_exact(PAGE).filter(|page| page.iter().any(|byte| *byte != page[0]));
                bytes.extend(pages.take(FILE_PART / PAGE).flatten());
            }
        }
        if bytes.len() < 64 * PAGE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "cannot read the own program's files"));
        }
        Ok(Source(bytes))
    }

    /// Page `number` in its `generation`.
    pub fn fill(&self, number: usize, generation: u32, page: &mut [u8; PAGE]) {
        // An odd stride in words: windows repeat only after the whole source has been used at every alignment.
        let start = (number.wrapping_mul(PAGE + 24) + generation as usize * 8) % (self.0.len() - PAGE);
        page.copy_from_slice(&self.0[start..start + PAGE]);
        page[..8].copy_from_slice(&(number as u64).to_le_bytes());
        page[8..STAMP].copy_from_slice(&(u64::from(generation) | 0xA5 << 56).to_le_bytes());
    }

    /// Whether `page` is what [`Source::fill`] makes of this number and generation.
    #[must_use]
    pub fn is(&self, number: usize, generation: u32, page: &[u8; PAGE]) -> bool {
        let mut expected = [0; PAGE];
        self.fill(number, generation, &mut expected);
        expected == *page
    }
}
