//! Sizes on the command line: `64M` and `64MiB` are powers of 1024, `64MB` is 10^6, `25%` is of total RAM.

/// The bytes that `text` means, with `ram` bytes of RAM in the machine.
pub fn parse(text: &str, ram: u64) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let bad = || format!("'{text}' is not a size; sizes look like 64M, 1.5GiB, 64MB or 25%");
    let scale: u64 = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "K" | "KIB" => 1 << 10,
        "M" | "MIB" => 1 << 20,
        "G" | "GIB" => 1 << 30,
        "T" | "TIB" => 1 << 40,
        "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "%" => ram / 100,
        _ => return Err(bad()),
    };
    let too_large = || format!("'{text}' is too large");
    match number.split_once('.') {
        None => number
            .parse::<u64>()
            .map_err(|error| match error.kind() {
                std::num::IntErrorKind::PosOverflow => too_large(),
                _ => bad(),
            })?
            .checked_mul(scale)
            .ok_or_else(too_large),
        Some((whole, part)) if !part.is_empty() && part.len() <= 9 && !part.contains('.') => {
            let whole: u64 = whole.parse().map_err(|_| bad())?;
            let part_value: u64 = part.parse().map_err(|_| bad())?;
            let divisor = 10u128.pow(part.len().try_into().unwrap_or(9));
            let part = u128::from(part_value) * u128::from(scale) / divisor;
            let whole = u128::from(whole) * u128::from(scale);
            u64::try_from(whole + part).map_err(|_| too_large())
        }
        Some(_) => Err(bad()),
    }
}

/// Bytes as a person reads them.
pub fn show(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut value = bytes as f64;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_mean_what_the_manual_says() {
        let ram = 1000 << 20;
        for (text, bytes) in [
            ("4096", 4096),
            ("64M", 64 << 20),
            ("64MiB", 64 << 20),
            ("64m", 64 << 20),
            ("64MB", 64_000_000),
            ("1.5G", 3 << 29),
            ("25%", 250 << 20),
            ("0", 0),
            ("8T", 8 << 40),
        ] {
            assert_eq!(parse(text, ram), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "M",
            "-5M",
            "5X",
            "1.2.3M",
            "1.M",
            ".5M",
            "64 M",
            "0x10",
            "5MM",
            "99999999999999999999",
            "9999999999T",
            "18446744073709551615.5G",
        ] {
            assert!(parse(text, ram).is_err(), "{text}");
        }
    }
}
