//! What comes from outside the server: requests on the control socket, and a control block that anybody may have written.

use std::io::Write;

use control::{Block, Fact, Request};
use zswap::{Counter, Param};

/// Reads `data` as a request and as a control block.
pub fn read(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(request) = Request::parse(text)
    {
        assert_eq!(Request::parse(&request.line()).as_ref(), Some(&request));
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Param::named(text);
    }
    block(data);
}

/// A block of the right size, with `data` over a good head or over all of it.
fn block(data: &[u8]) {
    thread_local! {
        static FILES: (tempfile::TempDir, Vec<u8>) = {
            let dir = tempfile::tempdir().expect("a directory");
            let path = dir.path().join("good");
            let writer = control::Writer::new(dir.path()).expect("a block");
            writer.publish(&path).expect("it is published");
            let good = std::fs::read(&path).expect("it is read");
            (dir, good)
        };
    }
    FILES.with(|(dir, good)| {
        let mut bytes = good.clone();
        let at = if data.first().is_some_and(|first| first % 4 == 0) { 0 } else { 16 };
        for (to, from) in bytes[at..].iter_mut().zip(data) {
            *to = *from;
        }
        let path = dir.path().join("block");
        std::fs::File::create(&path).and_then(|mut file| file.write_all(&bytes)).expect("it is written");
        if let Ok(block) = Block::open(&path) {
            // An odd sequence number makes a reader wait for its limit; it was tested elsewhere.
            if bytes[16] % 2 == 0 {
                let _ = block.fact(Fact::Device);
            }
            let _ = block.stats().get(Counter::StoredPages);
        }
    });
}
