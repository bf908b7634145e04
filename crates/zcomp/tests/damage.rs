//! Damaged input: an error, or some page where the format cannot know; never a panic and never out of bounds.

use zcomp::{Context, DecompressError, PAGE_SIZE};

mod common;
use common::Random;

/// Compressed pages of each family by each encoder, with the context that reads them.
fn streams() -> impl Iterator<Item = (String, Vec<u8>, Box<dyn Context>)> {
    zcomp::names().iter().copied().chain(["zstd(level=-5)", "weft(simd=0)"]).flat_map(|name| {
        common::FAMILIES.into_iter().map(move |family| {
            let mut context = common::context(name);
            let mut out = [0; 2 * PAGE_SIZE];
            let len = context.compress(&common::generated(family, 8), &mut out).unwrap();
            (format!("{name}: {family}"), out[..len].to_vec(), context)
        })
    })
}

#[test]
fn every_cut_is_an_error() {
    for (which, stream, mut context) in streams() {
        let mut page = [0; PAGE_SIZE];
        for cut in 0..stream.len() {
            assert_eq!(
                context.decompress(&stream[..cut], &mut page),
                Err(DecompressError),
                "{which} cut to {cut}"
            );
        }
        assert_eq!(context.decompress(&stream, &mut page), Ok(()), "{which}");
    }
}

#[test]
fn every_extension_is_an_error() {
    for (which, mut stream, mut context) in streams() {
        let mut page = [0; PAGE_SIZE];
        let len = stream.len();
        for byte in [0, 1, 0x11, 0xff] {
            for more in [1, 2, 3, 4, 7, 64, 5000] {
                stream.truncate(len);
                stream.resize(len + more, byte);
                assert_eq!(
                    context.decompress(&stream, &mut page),
                    Err(DecompressError),
                    "{which} and {more} of {byte}"
                );
            }
        }
    }
}

/// Each bit of each byte flipped, each byte removed, doubled and replaced. What it gives is open; that the context still
/// works afterwards is not.
#[test]
fn damage_at_every_position_is_survived() {
    for (which, stream, mut context) in streams() {
        let mut page = [0; PAGE_SIZE];
        let mut expected = [0; PAGE_SIZE];
        assert_eq!(context.decompress(&stream, &mut expected), Ok(()));
        let step = 1 + stream.len() / 1500;
        for at in (0..stream.len()).step_by(step) {
            let mut bad = stream.clone();
            for bit in 0..8 {
                bad[at] ^= 1 << bit;
                let _ = context.decompress(&bad, &mut page);
                bad[at] ^= 1 << bit;
            }
            for byte in [0, 0x10, 0x18, 0x20, 0x7f, 0x80, 0xf0, 0xff] {
                bad[at] = byte;
                let _ = context.decompress(&bad, &mut page);
            }
            bad.remove(at);
            let _ = context.decompress(&bad, &mut page);
            bad.insert(at, stream[at]);
            bad.insert(at, stream[at]);
            let _ = context.decompress(&bad, &mut page);
        }
        assert_eq!(context.decompress(&stream, &mut page), Ok(()), "{which}");
        assert!(page == expected, "{which}");
    }
}

/// Bytes that were never a stream.
#[test]
fn noise_is_survived() {
    let mut random = Random(77);
    for name in common::DECODERS {
        let mut context = common::context(name);
        let mut page = [0; PAGE_SIZE];
        for round in 0..20_000 {
            let mut noise = vec![0; random.below(200)];
            // Few values at times: then instructions repeat and lengths grow.
            let values = [256, 4, 64, 2][round % 4];
            noise.fill_with(|| {
                u8::try_from(random.below(values)).unwrap().wrapping_mul([1, 17, 3, 255][round / 4 % 4])
            });
            let _ = context.decompress(&noise, &mut page);
        }
        for len in [0, 1, 2, 3, 4, 5, 4095, 4096, 4097, 65_536] {
            for byte in [0, 1, 0x11, 0x20, 0xff] {
                assert_eq!(
                    context.decompress(&vec![byte; len], &mut page),
                    Err(DecompressError),
                    "{name}: {len} of {byte}"
                );
            }
        }
    }
}

/// Streams of other lengths than a page are none of ours, even where they are whole.
#[test]
fn a_stream_of_another_length_is_an_error() {
    let mut page = [0; PAGE_SIZE];
    for len in [0, 1, 100, PAGE_SIZE - 1, PAGE_SIZE + 1, 2 * PAGE_SIZE] {
        let data = vec![7; len];
        let lz4 = lz4_flex::block::compress(&data);
        assert_eq!(common::context("lz4").decompress(&lz4, &mut page), Err(DecompressError), "lz4 of {len}");
        if len > 0 {
            let lzo = lzokay::compress::compress(&data).unwrap();
            assert_eq!(
                common::context("lzo").decompress(&lzo, &mut page),
                Err(DecompressError),
                "lzo of {len}"
            );
        }
        let zstd = ruzstd::encoding::compress_to_vec(&data[..], ruzstd::encoding::CompressionLevel::Fastest);
        assert_eq!(
            common::context("zstd").decompress(&zstd[4..], &mut page),
            Err(DecompressError),
            "zstd of {len}"
        );
        let mut deflate = Vec::with_capacity(1000);
        flate2::Compress::new(flate2::Compression::new(6), false)
            .compress_vec(&data, &mut deflate, flate2::FlushCompress::Finish)
            .unwrap();
        assert_eq!(
            common::context("deflate").decompress(&deflate, &mut page),
            Err(DecompressError),
            "deflate of {len}"
        );
    }
}
