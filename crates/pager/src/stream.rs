//! Runs of faults at rising addresses, and how much to bring in ahead of each.
//!
//! The window of a run doubles with every fault that goes on where the last one ended, up to 64 pages; a fault that goes on
//! nowhere is a window of one page. A few runs are told apart, so that a merge of two arrays still looks like two runs.

use crate::table::Page;

/// Runs remembered.
const STREAMS: usize = 8;
/// A run that has come to this window is one.
const PROVEN: usize = 8;
/// Pages brought in by one fault at most.
pub(crate) const WINDOW: usize = 64;

#[derive(Clone, Copy, Default)]
struct Stream {
    /// The page behind the last one brought in.
    next: Page,
    window: usize,
}

/// The runs of one memory, the latest first.
#[derive(Default)]
pub(crate) struct Streams([Stream; STREAMS]);

impl Streams {
    /// How many pages to bring in from `page` on, itself included.
    pub(crate) fn window(&mut self, page: Page) -> usize {
        // A young run must go on exactly; of a proven one, pages in between may have been resident.
        let goes_on = |stream: &Stream| {
            let slack = if stream.window < PROVEN { 1 } else { stream.window };
            stream.window > 0 && (stream.next..stream.next + slack as Page).contains(&page)
        };
        let (at, window) = match self.0.iter().position(goes_on) {
            Some(at) => (at, (self.0[at].window * 2).min(WINDOW)),
            None => (STREAMS - 1, 1),
        };
        self.0[..=at].rotate_right(1);
        self.0[0] = Stream { next: page + window as Page, window };
        window
    }

    /// The page that [`Streams::window`] was asked for last came with others, up to `end`.
    pub(crate) fn came_up_to(&mut self, end: Page) {
        self.0[0].next = self.0[0].next.max(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_on_runs_and_stops_at_random() {
        let mut streams = Streams::default();
        let mut page = 1000;
        let mut other = 900_000;
        for expected in [1, 2, 4, 8, 16, 32, 64, 64] {
            let window = streams.window(page);
            assert_eq!(window, expected);
            page += window as Page;
            // A second run in between.
            let window = streams.window(other);
            assert_eq!(window, expected);
            other += window as Page;
        }
        for page in [7, 5_000_000, 123, 99_999_999] {
            assert_eq!(streams.window(page), 1);
        }
    }
}
