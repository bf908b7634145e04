//! The checksum of a page: CRC-32C over its 4096 bytes, taken from the caller's page before anything else happens to it
//! and compared with what goes back to a caller. It covers the whole way: compressor, pool memory, decompressor, device.
//!
//! CRC-32C finds every burst of up to 32 bits and every pattern of up to 3 wrong bits in a page; anything else it misses
//! once in 2^32. It is no defence against somebody who forges pages on purpose.

use zcomp::Page;

/// The CRC-32C of `page`.
pub(crate) fn of(page: &Page) -> u32 {
    crc_fast::crc32_iscsi(page)
}

#[cfg(test)]
mod tests {
    #[test]
    fn is_crc32c_as_rfc_3720_has_it() {
        // RFC 3720 appendix B.4 gives 32 bytes of zeros, ones and counting up; the page is checked bit by bit.
        assert_eq!(crc_fast::crc32_iscsi(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc_fast::crc32_iscsi(&[0xff; 32]), 0x62a8_ab43);
        let page: super::Page = std::array::from_fn(|i| (i * 31 % 251) as u8);
        let mut crc = !0u32;
        for &byte in &page {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            }
        }
        assert_eq!(super::of(&page), !crc);
    }
}
