//! Size classes: which slot sizes there are, and how many pages a zspage of each chains.
//!
//! Sizes go in steps of 16 bytes from 32 to a page. For each, the chain is the number of pages that wastes the fewest
//! bytes behind its last whole slot (kernel 6.5 and later). Neighbours that come out with the same pages and slots a
//! zspage share the larger size, because the smaller would gain nothing.

use crate::PAGE_SIZE;

/// Distance between sizes.
pub(super) const STEP: usize = 16;
/// Smallest slot.
pub(super) const SMALLEST: usize = 32;
/// Sizes before merging; the kernel's nominal count.
pub(super) const NOMINAL: usize = (PAGE_SIZE - SMALLEST) / STEP + 1;

/// The shape of a class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Shape {
    /// Bytes in a slot.
    pub size: usize,
    /// Pages in a zspage.
    pub pages: usize,
    /// Slots in a zspage.
    pub slots: usize,
}

/// The number of pages, up to `most`, whose zspage wastes the fewest bytes; the fewer pages of equals.
fn chain(size: usize, most: usize) -> usize {
    if size.is_power_of_two() {
        return 1;
    }
    (1..=most).min_by_key(|pages| (pages * PAGE_SIZE % size, *pages)).unwrap_or(1)
}

/// The classes of a pool, ascending, and for each nominal size the class that serves it.
pub(super) fn table(most_pages: usize) -> (Vec<Shape>, [u8; NOMINAL]) {
    let mut classes: Vec<Shape> = Vec::new();
    let mut class_of = [0; NOMINAL];
    for nominal in (0..NOMINAL).rev() {
        let size = SMALLEST + nominal * STEP;
        let pages = chain(size, most_pages);
        let shape = Shape { size, pages, slots: pages * PAGE_SIZE / size };
        match classes.last() {
            Some(larger) if (larger.pages, larger.slots) == (shape.pages, shape.slots) => {}
            _ => classes.push(shape),
        }
        // From the largest down; turned round below. There are at most NOMINAL, 255, classes.
        class_of[nominal] = u8::try_from(classes.len() - 1).unwrap_or(u8::MAX);
    }
    let last = u8::try_from(classes.len() - 1).unwrap_or(u8::MAX);
    classes.reverse();
    (classes, class_of.map(|class| last - class))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts of distinct classes by chain size, as the kernel's rule gives them for 4 KiB pages.
    #[test]
    fn class_counts_are_the_kernels() {
        for (chain, count) in [(4, 69), (5, 86), (6, 94), (7, 110), (8, 119), (16, 192)] {
            assert_eq!(table(chain).0.len(), count, "chain {chain}");
        }
        assert_eq!(NOMINAL, 255);
    }

    #[test]
    fn huge_watermarks_are_the_kernels() {
        for (chain, watermark) in [(4, 3264), (8, 3632), (16, 3840)] {
            let (classes, _) = table(chain);
            let below = classes.iter().rev().find(|class| class.slots > 1).unwrap();
            assert_eq!(below.size, watermark, "chain {chain}");
            assert_eq!(classes.last().unwrap().size, PAGE_SIZE);
        }
    }

    #[test]
    fn every_size_fits_its_class_and_no_smaller_one() {
        for chain in 4..=16 {
            let (classes, class_of) = table(chain);
            for size in 1..=PAGE_SIZE {
                let class = usize::from(class_of[size.max(SMALLEST).div_ceil(STEP) - SMALLEST / STEP]);
                assert!(classes[class].size >= size);
                assert!(class == 0 || classes[class - 1].size < size.max(SMALLEST).next_multiple_of(STEP));
            }
        }
    }
}
