//! A compressor against hostile input, and against itself.

use std::cell::RefCell;
use std::path::Path;

use zcomp::{CompressError, Context, PAGE_SIZE, Page};

use crate::fenced::Fenced;

/// More than any compressor makes of a page, and the longest input that is tried.
const ROOM: usize = 3 * PAGE_SIZE;
/// Changes to a good stream that one input can make at most.
const CHANGES: usize = 4;

/// One for all inputs, as in the cache: what one input leaves behind the next one meets.
struct Bench {
    context: Box<dyn Context>,
    input: Fenced,
    output: Fenced,
    page: Fenced,
}

thread_local! {
    static BENCH: RefCell<Option<Bench>> = const { RefCell::new(None) };
    static TWINS: RefCell<Option<[Bench; 2]>> = const { RefCell::new(None) };
}

impl Bench {
    fn new(name: &str) -> Bench {
        Bench {
            context: zcomp::lookup(name).expect("a known name").context().expect("memory"),
            input: Fenced::new(ROOM),
            output: Fenced::new(ROOM),
            page: Fenced::new(PAGE_SIZE),
        }
    }

    /// Decodes `stream`. What it makes must not depend on what was in the page before: a byte that the decoder says it
    /// filled and did not would show another program's data.
    fn decode(&mut self, stream: &[u8]) -> Option<Page> {
        let input = self.input.last(stream.len());
        input.copy_from_slice(stream);
        let mut made = [0, 0xff].map(|before| {
            self.page.page().fill(before);
            let done = self.context.decompress(input, self.page.page());
            done.is_ok().then(|| *self.page.page())
        });
        assert!(made[0] == made[1], "the page depends on what was there before");
        made[0].take()
    }

    /// Compresses `page` into exactly `room` bytes.
    fn encode(&mut self, page: &Page, room: usize) -> Option<Vec<u8>> {
        *self.page.page() = *page;
        let out = self.output.last(room);
        match self.context.compress(self.page.page(), out) {
            Ok(len) => Some(out[..len].to_vec()),
            Err(error) => {
                assert_eq!(error, CompressError::NoRoom);
                None
            }
        }
    }

    /// A page comes back from its stream, and the room it is given decides only whether it fits. Returns the stream.
    fn comes_back(&mut self, page: &Page, small: usize) -> Vec<u8> {
        let stream = self.encode(page, ROOM).expect("room for any page");
        assert!(self.decode(&stream).is_some_and(|back| back == *page), "another page came back");
        if let Some(same) = self.encode(page, small) {
            assert!(same == stream, "another stream in less room");
        }
        stream
    }
}

/// Gives `data` to the decoder of the compressor `name`; takes it for a page, and for a good stream with damage.
pub fn decoder(name: &str, data: &[u8]) {
    if data.len() > ROOM {
        return;
    }
    BENCH.with_borrow_mut(|slot| {
        let bench = slot.get_or_insert_with(|| Bench::new(name));
        if let Some(page) = bench.decode(data) {
            bench.comes_back(&page, data.len());
        }
        let Some((&kind, seed)) = data.split_first() else { return };
        let mut stream = bench.comes_back(&made_of(kind, seed), usize::from(kind) * 16);
        for &[low, high, byte] in seed.as_rchunks::<3>().1.iter().rev().take(CHANGES) {
            let at = usize::from(u16::from_le_bytes([low, high & 0x1f])) % (stream.len() + 1);
            match high >> 6 {
                0 => stream.insert(at, byte),
                1 => stream.truncate(at),
                _ if at < stream.len() => stream[at] ^= byte,
                _ => {}
            }
        }
        if let Some(page) = bench.decode(&stream) {
            bench.comes_back(&page, stream.len());
        }
    });
}

/// Two compressors that must make the same of everything: the twins of one codec.
pub fn twins(names: [&str; 2], data: &[u8]) {
    if data.len() > ROOM {
        return;
    }
    TWINS.with_borrow_mut(|slot| {
        let twins = slot.get_or_insert_with(|| names.map(Bench::new));
        let decoded = twins.each_mut().map(|bench| bench.decode(data));
        assert!(decoded[0] == decoded[1], "the twins decode differently");
        let Some((&kind, seed)) = data.split_first() else { return };
        let page = made_of(kind, seed);
        let encoded = twins.each_mut().map(|bench| bench.encode(&page, ROOM));
        assert!(encoded[0] == encoded[1], "the twins encode differently");
    });
}

/// Writes to `dir` what a search may begin with: good streams, and what pages are made of.
pub fn seeds(name: &str, dir: &Path) {
    let mut bench = Bench::new(name);
    let text = b"a page of memory, a page in swap, a page in the pool; ".repeat(3);
    let numbers: Vec<u8> = (0..200u32).flat_map(|number| (number * 48).to_le_bytes()).collect();
    for (number, seed) in [&text[..], &numbers, &[], &[7], &[3, 200, 0, 0, 255, 9, 0, 0]].iter().enumerate() {
        for kind in 0..4 {
            let stream = bench.encode(&made_of(kind, seed), ROOM).expect("room for any page");
            let page: Vec<u8> = std::iter::once(kind | 0x80).chain(seed.iter().copied()).collect();
            for (what, bytes) in [("stream", &stream), ("page", &page)] {
                let path = dir.join(format!("{what}-{number}-{kind}"));
                std::fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            }
        }
    }
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
