//! Zstandard, by libzstd: denser and slower than lz4. Negative levels trade ratio for speed.
//!
//! Frames carry no magic number, content size, checksum or dictionary id: the cache knows all of these, and they would cost
//! up to 11 bytes a page. They are read back with `ZSTD_d_format` set alike.

use zstd_safe::{CCtx, CParameter, DCtx, DParameter, FrameFormat};

use crate::registry::full_name;
use crate::{CompressError, Compressor, Context, DecompressError, PAGE_SIZE, Page};

/// The `zstd` compressor.
pub(crate) struct Zstd {
    level: i32,
    name: String,
}

impl Zstd {
    /// Levels above 19 need no more than a page has to offer; those below -50 barely compress.
    pub(crate) const RANGE: std::ops::RangeInclusive<i32> = -50..=19;
    /// The kernel's zstd compresses at level 3.
    pub(crate) const DEFAULT: i32 = 3;

    pub(crate) fn new(level: i32) -> Zstd {
        Zstd { level, name: full_name("zstd", "level", level, Self::DEFAULT) }
    }
}

impl Compressor for Zstd {
    fn name(&self) -> &str {
        &self.name
    }

    fn context(&self) -> Option<Box<dyn Context>> {
        let mut compress = CCtx::try_create()?;
        for parameter in [
            CParameter::CompressionLevel(self.level),
            CParameter::WindowLog(12),
            CParameter::ContentSizeFlag(false),
            CParameter::ChecksumFlag(false),
            CParameter::DictIdFlag(false),
            CParameter::Format(FrameFormat::Magicless),
        ] {
            compress.set_parameter(parameter).ok()?;
        }
        let mut decompress = DCtx::try_create()?;
        decompress.set_parameter(DParameter::Format(FrameFormat::Magicless)).ok()?;
        let mut context = ZstdContext { compress, decompress };
        // The library takes its tables at the first page; better here than in the middle of a store.
        let page: Page = std::array::from_fn(|i| (i / 16) as u8);
        let mut out = [0; PAGE_SIZE];
        let len = context.compress(&page, &mut out).ok()?;
        context.decompress(out.get(..len)?, &mut [0; PAGE_SIZE]).ok()?;
        Some(Box::new(context))
    }
}

struct ZstdContext {
    compress: CCtx<'static>,
    decompress: DCtx<'static>,
}

impl Context for ZstdContext {
    fn compress(&mut self, page: &Page, out: &mut [u8]) -> Result<usize, CompressError> {
        // The one error that a page and valid parameters can give is an output that does not fit.
        self.compress.compress2(out, page).map_err(|_| CompressError::NoRoom)
    }

    fn decompress(&mut self, data: &[u8], page: &mut Page) -> Result<(), DecompressError> {
        match self.decompress.decompress(&mut page[..], data) {
            Ok(PAGE_SIZE) => Ok(()),
            _ => Err(DecompressError),
        }
    }

    fn memory_bytes(&self) -> usize {
        self.compress.sizeof() + self.decompress.sizeof()
    }
}
