//! What others have made, behind our trait. A rival that wants a buffer larger than its result has one that it keeps, and
//! the result is copied from there: some tens of nanoseconds of microseconds.

use zcomp::{CompressError, Context, DecompressError, PAGE_SIZE, Page};

use super::ROOM;
use super::liblzo2::Liblzo2;
use crate::report::Report;

/// All that can be had here: name, whose it is, and the thing. Names tell the format where it is not in them.
pub fn all(report: &mut Report) -> Vec<(&'static str, &'static str, Box<dyn Context>)> {
    let mut all: Vec<(&str, &str, Box<dyn Context>)> = vec![
        ("lzokay", "lzokay", Box::new(Lzokay(lzokay::compress::Dict::new()))),
        (
            "lz4_flex",
            "lz4_flex",
            Box::new(Lz4Flex { table: lz4_flex::block::CompressTable::default(), room: room() }),
        ),
        (
            "snappy",
            "snap",
            Box::new(Snappy { to: snap::raw::Encoder::new(), from: snap::raw::Decoder::new(), room: room() }),
        ),
        ("trueno lz4", "trueno-zram-core", Box::new(Trueno::LZ4)),
        ("trueno zstd 1", "trueno-zram-core", Box::new(Trueno::ZSTD)),
        ("zlib-rs 1", "zlib-rs", Box::new(Zlib::new(1))),
        ("zlib-rs 6", "zlib-rs", Box::new(Zlib::new(6))),
    ];
    match Liblzo2::open() {
        Some(library) => all.insert(0, ("lzo1x_1", "liblzo2", Box::new(Lzo { library, room: room() }))),
        None => report.skip("liblzo2", "it is not installed"),
    }
    all
}

type Room = Box<[u8; ROOM]>;

fn room() -> Room {
    Box::new([0; ROOM])
}

/// What was made in `room` becomes the result, where it fits.
fn take(room: &[u8], out: &mut [u8]) -> Result<usize, CompressError> {
    out.get_mut(..room.len()).ok_or(CompressError::NoRoom)?.copy_from_slice(room);
    Ok(room.len())
}

/// A whole page, or damage.
fn whole<E>(len: Result<usize, E>) -> Result<(), DecompressError> {
    if matches!(len, Ok(PAGE_SIZE)) { Ok(()) } else { Err(DecompressError) }
}

struct Lzo {
    library: Liblzo2,
    room: Room,
}

impl Context for Lzo {
    fn compress(&mut self, page: &Page, out: &mut [u8]) -> Result<usize, CompressError> {
        let len = self.library.compress(page, &mut self.room[..]);
        take(&self.room[..len], out)
    }

    fn decompress(&mut self, data: &[u8], page: &mut Page) -> Result<(), DecompressError> {
        whole(self.library.decompress(data, page))
    }

    fn memory_bytes(&self) -> usize {
        128 << 10
    }
}

struct Lzokay(Box<lzokay::compress::Dict>);

impl Context for Lzokay {
    fn compress(&mut self, page: &Page, out: &mut [u8]) -> Result<usize, CompressError> {
        lzokay::compress::compress_no_alloc(page, out, &mut self.0).map_err(|_| CompressError::NoRoom)
    }

    fn decompress(&mut self, data: &[u8], page: &mut Page) -> Result<(), DecompressError> {
        whole(lzokay::decompress::decompress(data, page))
    }

    fn memory_bytes(&self) -> usize {
        size_of::<lzokay::compress::Dict>()
    }
}

struct Lz4Flex {
    table: lz4_flex::block::CompressTable,
    room: Room,
}

impl Context for Lz4Flex {
    fn compress(&mut self, page: &Page, out: &mut [u8]) -> Result<usize, CompressError> {
        let len = lz4_flex::block::compress_into_with_table(page, &mut self.room[..], &mut self.table)
            .map_err(|_| CompressError::NoRoom)?;
        take(&self.room[..len], out)
    }

    fn decompress(&mut self, data: &[u8], page: &mut Page) -> Result<(), DecompressError> {
        whole(lz4_flex::block::decompress_into(data, page))
    }

    /// Its table for short input.
    fn memory_bytes(&self) -> usize {
        8 << 10
    }
}

struct Snappy {
    to: snap::raw::Encoder,
    from: snap::raw::Decoder,
    room: Room,
}

impl Context for Snappy {
    fn compress(&mut self, page: &Page, out: &mut [u8]) -> Result<usize, CompressError> {
        let len = self.to.compress(page, &mut self.room[..]).map_err(|_| CompressError::Codec)?;
        take(&self.room[..len], out)
    }

    fn decompress(&mut self, data: &[u8], page: &mut Page) -> Result<(), DecompressError> {
        whole(self.from.decompress(data, page))
    }

    /// And the table that it allocates for input of this length.
    fn memory_bytes(&self) -> usize {
        size_of::<snap::raw::Encoder>() + (32 << 10)
    }
}

/// The functions under its `PageCompressor`, which would read the clock twice a page. They allocate each result.
struct Trueno {
    compress: fn(&Page) -> trueno_zram_core::Result<Vec<u8>>,
    decompress: fn(&[u8], &mut Page) -> trueno_zram_core::Result<usize>,
}

impl Trueno {
    const LZ4: Trueno = Trueno {
        compress: trueno_zram_core::lz4::compress_simd,
        decompress: trueno_zram_core::lz4::decompress_simd,
    };
    const ZSTD: Trueno = Trueno {
        compress: |page| trueno_zram_core::zstd::compress(page, 1),
        decompress: |data, page| trueno_zram_core::zstd::decompress(data, page),
    };
}

impl Context for Trueno {
    fn compress(&mut self, page: &Page, out: &mut [u8]) -> Result<usize, CompressError> {
        take(&(self.compress)(page).map_err(|_| CompressError::Codec)?, out)
    }

    fn decompress(&mut self, data: &[u8], page: &mut Page) -> Result<(), DecompressError> {
        whole((self.decompress)(data, page))
    }

    fn memory_bytes(&self) -> usize {
        0
    }
}

struct Zlib {
    compress: flate2::Compress,
    decompress: flate2::Decompress,
    room: Room,
}

impl Zlib {
    fn new(level: u32) -> Zlib {
        Zlib {
            compress: flate2::Compress::new(flate2::Compression::new(level), false),
            decompress: flate2::Decompress::new(false),
            room: room(),
        }
    }
}

impl Context for Zlib {
    fn compress(&mut self, page: &Page, out: &mut [u8]) -> Result<usize, CompressError> {
        self.compress.reset();
        // zlib-rs 0.6.8 panics at level 1 where the output does not fit.
        match self.compress.compress(page, &mut self.room[..], flate2::FlushCompress::Finish) {
            Ok(flate2::Status::StreamEnd) => {
                let len = usize::try_from(self.compress.total_out()).map_err(|_| CompressError::Codec)?;
                take(&self.room[..len], out)
            }
            _ => Err(CompressError::Codec),
        }
    }

    fn decompress(&mut self, data: &[u8], page: &mut Page) -> Result<(), DecompressError> {
        self.decompress.reset(false);
        match self.decompress.decompress(data, page, flate2::FlushDecompress::Finish) {
            Ok(flate2::Status::StreamEnd) if self.decompress.total_out() == PAGE_SIZE as u64 => Ok(()),
            _ => Err(DecompressError),
        }
    }

    /// zlib-rs does not tell; this is what its manual says of a 32 KiB window and memory level 8.
    fn memory_bytes(&self) -> usize {
        (1 << (15 + 2)) + (1 << (8 + 9))
    }
}
