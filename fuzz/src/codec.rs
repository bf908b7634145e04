//! A compressor against hostile input, and against itself.

use std::cell::RefCell;

use zcomp::{CompressError, Context, PAGE_SIZE, Page};

thread_local! {
    /// One context for all inputs, as in the cache: what one input leaves behind the next one meets.
    static CONTEXT: RefCell<Option<Box<dyn Context>>> = const { RefCell::new(None) };
}

/// Gives `data` to the decoder of the compressor `name`, and pages made of `data` to its encoder.
pub fn decoder(name: &str, data: &[u8]) {
    CONTEXT.with_borrow_mut(|slot| {
        let context =
            slot.get_or_insert_with(|| zcomp::lookup(name).expect("a known name").context().expect("memory"));
        let mut page = [0; PAGE_SIZE];
        if context.decompress(data, &mut page).is_ok() {
            comes_back(context.as_mut(), &page, PAGE_SIZE);
        }
        if let Some((&kind, seed)) = data.split_first() {
            comes_back(context.as_mut(), &made_of(kind, seed), usize::from(kind) * 16);
        }
    });
}

/// Compresses `page` into ample room and into `small` bytes, and decompresses it.
fn comes_back(context: &mut dyn Context, page: &Page, small: usize) {
    const GUARD: u8 = 0xA5;
    let mut out = [GUARD; 2 * PAGE_SIZE];
    match context.compress(page, &mut out[..small]) {
        Ok(len) => assert!(len <= small),
        Err(error) => assert_eq!(error, CompressError::NoRoom),
    }
    assert!(out[small..].iter().all(|&byte| byte == GUARD));
    let len = context.compress(page, &mut out).expect("room for any page");
    let mut back = [!page[0]; PAGE_SIZE];
    assert_eq!(context.decompress(&out[..len], &mut back), Ok(()));
    assert!(back == *page);
}

/// A page made of `seed`: repeated, followed by zeros, as runs, or as copies of what is there already.
fn made_of(kind: u8, seed: &[u8]) -> Page {
    let mut page = [0; PAGE_SIZE];
    match kind % 4 {
        0 => page.iter_mut().zip(seed.iter().cycle()).for_each(|(to, from)| *to = *from),
        1 => page.iter_mut().zip(seed).for_each(|(to, from)| *to = *from),
        2 => {
            let runs =
                seed.as_chunks::<2>().0.iter().flat_map(|&[len, byte]| std::iter::repeat_n(byte, len.into()));
            page.iter_mut().zip(runs).for_each(|(to, from)| *to = from);
        }
        _ => {
            let mut at = 0;
            for &[len, low, high, byte] in seed.as_chunks::<4>().0 {
                let from = usize::from(u16::from_le_bytes([low, high])) % (at + 1);
                for _ in 0..usize::from(len).min(PAGE_SIZE - at) {
                    page[at] = page[at - from];
                    at += 1;
                }
                if at < PAGE_SIZE {
                    page[at] = byte;
                    at += 1;
                }
            }
        }
    }
    page
}
