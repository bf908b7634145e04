//! Parameters: their names, their text forms and ranges, and the values the hot path reads.
//!
//! Text is read as the kernel reads it: booleans by `kstrtobool`'s words, numbers by `kstrtouint` (any C base, an optional
//! `+`, one trailing newline). Our ranges are narrower than the kernel's, which takes any 32-bit number as a percentage.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::error::ParamError;
use crate::profile::Profile;
use crate::tree::TreeKind;

/// A parameter of `/sys/module/zswap/parameters`, or one of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Param {
    /// Whether stores are taken. Loads and invalidates always work.
    Enabled,
    /// The compressor of new pages.
    Compressor,
    /// The allocator of new pages.
    Zpool,
    /// The most memory for the pool, in percent of all RAM.
    MaxPoolPercent,
    /// How far a full pool must shrink before stores are taken again, in percent of its maximum.
    AcceptThresholdPercent,
    /// The largest compressed size that is kept, in percent of a page; 100 keeps all.
    MaxCompressionRatio,
    /// Whether same-filled pages are kept as one word.
    SameFilledPagesEnabled,
    /// Whether pages that are not same-filled are kept.
    NonSameFilledPagesEnabled,
    /// Whether a load that finds the page removes it from the cache.
    ExclusiveLoads,
    /// Whether memory pressure may shrink the pool below its limit.
    ShrinkerEnabled,
    /// The most memory for the pool, in bytes; 0: `max_pool_percent` decides.
    MaxPoolBytes,
    /// The index: `radix` or `rbtree`.
    Tree,
}

impl Param {
    /// All of them: the kernel's, then ours.
    pub const ALL: &'static [Param] = &[
        Param::Enabled,
        Param::Compressor,
        Param::Zpool,
        Param::MaxPoolPercent,
        Param::AcceptThresholdPercent,
        Param::MaxCompressionRatio,
        Param::SameFilledPagesEnabled,
        Param::NonSameFilledPagesEnabled,
        Param::ExclusiveLoads,
        Param::ShrinkerEnabled,
        Param::MaxPoolBytes,
        Param::Tree,
    ];

    /// The name of its file.
    pub fn name(self) -> &'static str {
        match self {
            Param::Enabled => "enabled",
            Param::Compressor => "compressor",
            Param::Zpool => "zpool",
            Param::MaxPoolPercent => "max_pool_percent",
            Param::AcceptThresholdPercent => "accept_threshold_percent",
            Param::MaxCompressionRatio => "max_compression_ratio",
            Param::SameFilledPagesEnabled => "same_filled_pages_enabled",
            Param::NonSameFilledPagesEnabled => "non_same_filled_pages_enabled",
            Param::ExclusiveLoads => "exclusive_loads",
            Param::ShrinkerEnabled => "shrinker_enabled",
            Param::MaxPoolBytes => "max_pool_bytes",
            Param::Tree => "tree",
        }
    }

    /// The parameter of this name. The kernel's spelling on a boot command line, `zswap.NAME`, is taken too.
    pub fn named(name: &str) -> Result<Param, ParamError> {
        let name = name.strip_prefix("zswap.").unwrap_or(name);
        Param::ALL.iter().copied().find(|param| param.name() == name).ok_or(ParamError::Unknown)
    }
}

/// The values that the hot path reads. Those that name things (compressor, zpool, tree) live with what they name.
pub(crate) struct Live {
    pub enabled: AtomicBool,
    pub max_pool_percent: AtomicU32,
    pub max_pool_bytes: AtomicU64,
    pub accept_threshold_percent: AtomicU32,
    pub max_compression_ratio: AtomicU32,
    pub same_filled_pages_enabled: AtomicBool,
    pub non_same_filled_pages_enabled: AtomicBool,
    pub exclusive_loads: AtomicBool,
    pub shrinker_enabled: AtomicBool,
}

impl Live {
    /// The values of a cache whose profile sets nothing: all switches as the rules have them, no ratio policy.
    pub(crate) fn new(profile: &Profile) -> Live {
        Live {
            enabled: AtomicBool::new(true),
            max_pool_percent: AtomicU32::new(20),
            max_pool_bytes: AtomicU64::new(0),
            accept_threshold_percent: AtomicU32::new(100),
            max_compression_ratio: AtomicU32::new(100),
            same_filled_pages_enabled: AtomicBool::new(true),
            non_same_filled_pages_enabled: AtomicBool::new(true),
            exclusive_loads: AtomicBool::new(profile.rules.exclusive_loads),
            shrinker_enabled: AtomicBool::new(false),
        }
    }

    /// Sets one of the values here. `false`: the parameter is not one of them.
    pub(crate) fn set(&self, param: Param, text: &str) -> Result<bool, ParamError> {
        match param {
            Param::Enabled => self.enabled.store(parse_bool(text)?, Relaxed),
            Param::MaxPoolPercent => self.max_pool_percent.store(parse_percent(text)?, Relaxed),
            Param::MaxPoolBytes => self.max_pool_bytes.store(parse_number(text)?, Relaxed),
            Param::AcceptThresholdPercent => {
                self.accept_threshold_percent.store(parse_percent(text)?, Relaxed)
            }
            Param::MaxCompressionRatio => self.max_compression_ratio.store(parse_percent(text)?, Relaxed),
            Param::SameFilledPagesEnabled => self.same_filled_pages_enabled.store(parse_bool(text)?, Relaxed),
            Param::NonSameFilledPagesEnabled => {
                self.non_same_filled_pages_enabled.store(parse_bool(text)?, Relaxed);
            }
            Param::ExclusiveLoads => self.exclusive_loads.store(parse_bool(text)?, Relaxed),
            Param::ShrinkerEnabled => self.shrinker_enabled.store(parse_bool(text)?, Relaxed),
            Param::Compressor | Param::Zpool | Param::Tree => return Ok(false),
        }
        Ok(true)
    }

    /// The text of one of the values here, as its file shows it, without the newline.
    pub(crate) fn get(&self, param: Param) -> Option<String> {
        Some(match param {
            Param::Enabled => show_bool(&self.enabled),
            Param::MaxPoolPercent => self.max_pool_percent.load(Relaxed).to_string(),
            Param::MaxPoolBytes => self.max_pool_bytes.load(Relaxed).to_string(),
            Param::AcceptThresholdPercent => self.accept_threshold_percent.load(Relaxed).to_string(),
            Param::MaxCompressionRatio => self.max_compression_ratio.load(Relaxed).to_string(),
            Param::SameFilledPagesEnabled => show_bool(&self.same_filled_pages_enabled),
            Param::NonSameFilledPagesEnabled => show_bool(&self.non_same_filled_pages_enabled),
            Param::ExclusiveLoads => show_bool(&self.exclusive_loads),
            Param::ShrinkerEnabled => show_bool(&self.shrinker_enabled),
            Param::Compressor | Param::Zpool | Param::Tree => return None,
        })
    }

    /// The most bytes that pool and metadata may take together, with `ram` bytes of RAM in the machine.
    pub(crate) fn max_bytes(&self, ram: u64) -> u64 {
        match self.max_pool_bytes.load(Relaxed) {
            0 => u64::try_from(u128::from(ram) * u128::from(self.max_pool_percent.load(Relaxed)) / 100)
                .unwrap_or(u64::MAX),
            bytes => bytes,
        }
    }

    /// What a full pool must come down to, of a maximum of `max` bytes.
    pub(crate) fn accept_bytes(&self, max: u64) -> u64 {
        max / 100 * u64::from(self.accept_threshold_percent.load(Relaxed))
            + max % 100 * u64::from(self.accept_threshold_percent.load(Relaxed)) / 100
    }
}

/// The index named by `text`.
pub(crate) fn parse_tree(text: &str) -> Result<TreeKind, ParamError> {
    text.trim().parse().map_err(|_| ParamError::NoSuchName("radix rbtree".into()))
}

fn show_bool(value: &AtomicBool) -> String {
    if value.load(Relaxed) { "Y" } else { "N" }.into()
}

/// `kstrtobool`: the first letter decides, and for `on` and `off` the first two.
fn parse_bool(text: &str) -> Result<bool, ParamError> {
    match text.as_bytes() {
        [b'y' | b'Y' | b't' | b'T' | b'1', ..] => Ok(true),
        [b'n' | b'N' | b'f' | b'F' | b'0', ..] => Ok(false),
        [b'o' | b'O', b'n' | b'N', ..] => Ok(true),
        [b'o' | b'O', b'f' | b'F', ..] => Ok(false),
        _ => Err(ParamError::Invalid("Y or N".into())),
    }
}

/// A percentage: `kstrtouint`, then 0 to 100.
fn parse_percent(text: &str) -> Result<u32, ParamError> {
    let invalid = || ParamError::Invalid("a whole number from 0 to 100".into());
    let value =
        parse_number(text).map_err(|error| if error == ParamError::Overflow { error } else { invalid() })?;
    match u32::try_from(value) {
        Ok(percent @ 0..=100) => Ok(percent),
        Ok(_) => Err(invalid()),
        Err(_) => Err(ParamError::Overflow),
    }
}

/// `kstrtoull` with base 0: `0x` is hexadecimal, a leading `0` octal; `+` may stand before, one newline behind.
fn parse_number(text: &str) -> Result<u64, ParamError> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_prefix('+').unwrap_or(text);
    let (digits, base) = match text.as_bytes() {
        [b'0', b'x' | b'X', _, ..] => (&text[2..], 16),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    // from_str_radix would take a second sign.
    if digits.is_empty() || !digits.bytes().all(|byte| char::from(byte).is_digit(base)) {
        return Err(ParamError::Invalid("a whole number".into()));
    }
    u64::from_str_radix(digits, base).map_err(|_| ParamError::Overflow)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_the_kernel_reads_them() {
        for (text, value) in
            [("0", 0), ("42\n", 42), ("+7", 7), ("0x1F", 31), ("010", 8), ("18446744073709551615", u64::MAX)]
        {
            assert_eq!(parse_number(text), Ok(value), "{text:?}");
        }
        for text in ["", "\n", "-1", "1.5", "12x", "abc", "++1", "+-1", "0x", "09", " 1", "1\n\n", "1 "] {
            assert!(matches!(parse_number(text), Err(ParamError::Invalid(_))), "{text:?}");
        }
        assert_eq!(parse_number("18446744073709551616"), Err(ParamError::Overflow));
    }

    #[test]
    fn percentages_keep_their_range() {
        assert_eq!(parse_percent("100"), Ok(100));
        assert!(matches!(parse_percent("101"), Err(ParamError::Invalid(_))));
        assert!(matches!(parse_percent("-1"), Err(ParamError::Invalid(_))));
        assert_eq!(parse_percent("4294967296"), Err(ParamError::Overflow));
    }

    #[test]
    fn booleans_are_read_as_the_kernel_reads_them() {
        for (text, value) in
            [("Y", true), ("on", true), ("1\n", true), ("N", false), ("off", false), ("true", true)]
        {
            assert_eq!(parse_bool(text), Ok(value), "{text:?}");
        }
        for text in ["2x", "maybe", "perhaps", "o", "", " Y"] {
            assert!(parse_bool(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn threshold_of_a_large_maximum_does_not_overflow() {
        let live = Live::new(crate::profile::Profile::named("default").unwrap());
        live.set(Param::AcceptThresholdPercent, "90").unwrap();
        assert_eq!(live.accept_bytes(1000), 900);
        assert_eq!(live.accept_bytes(u64::MAX), u64::MAX / 100 * 90 + 13);
        live.set(Param::MaxPoolPercent, "100").unwrap();
        assert_eq!(live.max_bytes(u64::MAX), u64::MAX);
    }
}
