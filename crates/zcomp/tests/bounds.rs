//! No byte is written outside the output, however small it is, and none is read beyond the input.

use zcomp::{CompressError, Context, DecompressError, PAGE_SIZE, Page};

mod common;
use common::fenced::Fenced;

/// Compresses into exactly `len` bytes with guard bytes before them and a fence behind.
fn within(
    context: &mut dyn Context,
    page: &Page,
    fenced: &mut Fenced,
    len: usize,
) -> Result<usize, CompressError> {
    const GUARD: usize = 64;
    let area = fenced.last(len + GUARD);
    area.fill(0xA5);
    let result = context.compress(page, &mut area[GUARD..]);
    assert!(area[..GUARD].iter().all(|&byte| byte == 0xA5));
    if let Ok(made) = result {
        assert!(made <= len);
    }
    result
}

/// For every length of output from 0 up: it fits exactly from some length on, gives the same there, and never overruns.
#[test]
fn outputs_of_every_length() {
    for name in common::EVERY {
        let mut context = common::context(name);
        let mut page = Fenced::new(PAGE_SIZE);
        let mut out = Fenced::new(2 * PAGE_SIZE);
        for family in common::FAMILIES {
            *page.page() = common::generated(family, 5);
            let full = within(context.as_mut(), page.page(), &mut out, PAGE_SIZE + 600).unwrap();
            let expected = out.last(PAGE_SIZE + 600)[..full].to_vec();
            // Every length for small results; for others the small ones, those around the result, and a few between.
            let mut lengths: Vec<usize> =
                (0..full.min(40)).chain(full.saturating_sub(40)..full + 40).collect();
            lengths.extend((40..full).step_by(if name.ends_with(['9', '2']) { 501 } else { 61 }));
            let mut fits_from = usize::MAX;
            for len in lengths {
                match within(context.as_mut(), page.page(), &mut out, len) {
                    Ok(made) => {
                        assert_eq!(made, full, "{name}: {family} into {len}");
                        assert!(out.last(len)[..made] == expected[..], "{name}: {family} into {len}");
                        fits_from = fits_from.min(len);
                    }
                    Err(error) => {
                        assert_eq!(error, CompressError::NoRoom);
                        assert!(len < full + 16, "{name}: {family} of {full} has no room in {len}");
                    }
                }
            }
            assert!(fits_from >= full, "{name}: {family}: {full} bytes into {fits_from}");
        }
    }
}

/// Input that ends at a fence, and a page that ends at one, for whole and for cut streams.
#[test]
fn nothing_is_read_beyond_the_input_or_written_beyond_the_page() {
    for name in common::EVERY {
        let mut context = common::context(name);
        let mut input = Fenced::new(2 * PAGE_SIZE);
        let mut page = Fenced::new(PAGE_SIZE);
        for family in common::FAMILIES {
            let original = common::generated(family, 6);
            let mut out = [0; 2 * PAGE_SIZE];
            let len = context.compress(&original, &mut out).unwrap();
            input.last(len).copy_from_slice(&out[..len]);
            assert_eq!(context.decompress(input.last(len), page.page()), Ok(()), "{name}: {family}");
            assert!(*page.page() == original, "{name}: {family}");
            for cut in (0..len).step_by(1 + len / 300) {
                input.last(cut).copy_from_slice(&out[..cut]);
                assert_eq!(
                    context.decompress(input.last(cut), page.page()),
                    Err(DecompressError),
                    "{name}: {family} cut to {cut}"
                );
            }
        }
    }
}
