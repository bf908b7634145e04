//! Bytes of pages, against a vector of bytes.

use swapdev::{ByteStore, Errno, PAGE_SIZE};

use crate::machine::Plain;

#[test]
fn bytes_of_pages_and_nothing_beyond() {
    let store = Plain::new(4);
    let bytes = ByteStore::new(store.clone()).unwrap();
    let mut model = vec![0u8; 4 * PAGE_SIZE];
    let mut seed = 7u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(seed >> 33).unwrap() % below
    };
    for step in 0..4000usize {
        let offset = random(4 * PAGE_SIZE + 100);
        let len = 1 + random(2 * PAGE_SIZE);
        let fits = len.min(model.len().saturating_sub(offset));
        match step % 3 {
            0 => {
                let data = vec![(step % 256) as u8; len];
                match bytes.write_at(offset as u64, &data) {
                    Ok(done) => {
                        assert_eq!(done, fits, "at {offset}, {len} bytes");
                        model[offset.min(4 * PAGE_SIZE)..][..done].fill((step % 256) as u8);
                    }
                    Err(errno) => {
                        assert_eq!((errno, fits), (Errno::NOSPC, 0));
                    }
                }
            }
            1 => {
                let mut out = vec![0; len];
                let done = bytes.read_at(offset as u64, &mut out).unwrap();
                assert_eq!(done, fits);
                assert!(done == 0 || out[..done] == model[offset..][..done]);
            }
            _ if step % 30 == 2 => {
                // What lies past the end is ignored.
                bytes.zero(offset as u64, len as u64).unwrap();
                model[offset.min(4 * PAGE_SIZE)..][..fits].fill(0);
            }
            _ => {}
        }
    }
    let all: Vec<u8> = store.pages.iter().flat_map(|page| *page.lock().unwrap()).collect();
    assert!(all == model);
    assert!(bytes.read_at(u64::MAX, &mut [0; 8]).is_ok_and(|done| done == 0));
}
