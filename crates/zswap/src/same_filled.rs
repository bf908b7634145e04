//! Same-filled pages: pages that repeat one machine word. They are kept as that word, in the index alone (kernel 4.16 to
//! 6.11; later kernels do this for zero only, in the swap layer).

use zcomp::{PAGE_SIZE, Page};

const WORD: usize = size_of::<u64>();

/// The word that `page` repeats, if it repeats one.
pub(crate) fn word_of(page: &Page) -> Option<u64> {
    let word: [u8; WORD] = *page.first_chunk()?;
    // Most pages differ from their first word early or at the end, so those two are looked at before the rest is.
    if page.last_chunk::<WORD>() != Some(&word) {
        return None;
    }
    // A page repeats a word exactly when it equals itself moved on by one word.
    (page[WORD..] == page[..PAGE_SIZE - WORD]).then(|| u64::from_ne_bytes(word))
}

/// Makes `page` repeat `word`.
pub(crate) fn fill(page: &mut Page, word: u64) {
    for chunk in page.chunks_exact_mut(WORD) {
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_repeated_word_and_nothing_else() {
        for word in [0, u64::MAX, 0x0123_4567_89ab_cdef] {
            let mut page = [0xaa; PAGE_SIZE];
            fill(&mut page, word);
            assert_eq!(word_of(&page), Some(word));
            for at in 0..PAGE_SIZE {
                page[at] ^= 1;
                assert_eq!(word_of(&page), None, "byte {at} differs");
                page[at] ^= 1;
            }
        }
    }
}
