//! Compressors by name.

use std::sync::Arc;

use crate::deflate::Deflate;
use crate::lz4::Lz4;
use crate::lz4hc::Lz4hc;
use crate::lzo::Lzo;
use crate::weft::Weft;
use crate::zstd::Zstd;
use crate::{Compressor, LookupError};

/// The compressors there are, by their plain names.
pub fn names() -> &'static [&'static str] {
    &["lzo", "lzo-rle", "lz4", "lz4hc", "zstd", "deflate", "weft"]
}

/// The compressor of this name. Blanks around it are ignored, as the kernel does. A parameter may follow in brackets:
/// `zstd(level=3)`, `lz4(acceleration=4)`. `auto` is the one that takes the least time on this processor: `weft` where it has
/// its SIMD, `lz4` elsewhere.
pub fn lookup(name: &str) -> Result<Arc<dyn Compressor>, LookupError> {
    let name = name.trim();
    let (plain, parameter) = match name.split_once('(') {
        None => (name, None),
        Some((plain, rest)) => (plain, Some(rest.strip_suffix(')').ok_or(LookupError::Unknown)?)),
    };
    match plain {
        "lzo" => without(parameter, Lzo::new(false)),
        "lzo-rle" => without(parameter, Lzo::new(true)),
        "lz4" => with(parameter, "acceleration", Lz4::RANGE, Lz4::DEFAULT, Lz4::new),
        "lz4hc" => with(parameter, "level", Lz4hc::RANGE, Lz4hc::DEFAULT, Lz4hc::new),
        "zstd" => with(parameter, "level", Zstd::RANGE, Zstd::DEFAULT, Zstd::new),
        "deflate" => with(parameter, "level", Deflate::RANGE, Deflate::DEFAULT, Deflate::new),
        "weft" => with(parameter, "simd", Weft::RANGE, Weft::DEFAULT, Weft::new),
        "auto" if Weft::is_fast() => without(parameter, Weft::new(Weft::DEFAULT)),
        "auto" => without(parameter, Lz4::new(Lz4::DEFAULT)),
        "deflate-iaa" => Err(LookupError::Unavailable("deflate-iaa needs Intel IAA hardware and its driver")),
        "842" => Err(LookupError::Unavailable("842 is for POWER hardware")),
        _ => Err(LookupError::Unknown),
    }
}

type Range = std::ops::RangeInclusive<i32>;

/// A compressor that takes no parameter.
fn without(
    parameter: Option<&str>,
    compressor: impl Compressor + 'static,
) -> Result<Arc<dyn Compressor>, LookupError> {
    match parameter {
        None => Ok(Arc::new(compressor)),
        Some(_) => Err(LookupError::BadParameter(format!("{} without parameters", compressor.name()))),
    }
}

/// A compressor that takes one number.
fn with<C: Compressor + 'static>(
    parameter: Option<&str>,
    key: &str,
    range: Range,
    default: i32,
    make: impl Fn(i32) -> C,
) -> Result<Arc<dyn Compressor>, LookupError> {
    let value = match parameter {
        None => Some(default),
        Some(text) => text
            .split_once('=')
            .filter(|(name, _)| name.trim() == key)
            .and_then(|(_, value)| value.trim().parse().ok())
            .filter(|value| range.contains(value)),
    };
    let bad = || LookupError::BadParameter(format!("{key} from {} to {}", range.start(), range.end()));
    value.map(|value| Arc::new(make(value)) as Arc<dyn Compressor>).ok_or_else(bad)
}

/// The full name of a compressor with one number: plain where it is the default.
pub(crate) fn full_name(plain: &str, key: &str, value: i32, default: i32) -> String {
    if value == default { plain.to_owned() } else { format!("{plain}({key}={value})") }
}
