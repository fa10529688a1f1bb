//! Sizes, counts and times as people write and read them. Units are binary: `1 KiB` is 1024 bytes.

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// Why a text is not a size.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum SizeError {
    #[error("a size is a whole number and a unit, such as 4096, 64K, 512M or 2G")]
    NotANumber,
    #[error("a size is a whole number: for a part of a unit use the next smaller unit, such as 1536M for 1.5G")]
    Fraction,
    #[error("a limit of 0 would let nothing start")]
    Zero,
    #[error("there is no unit `{0}`: use K, M, G or T (powers of 1024; KiB, MiB, GiB and TiB mean the same)")]
    Unit(String),
    #[error("that is more than 64 bits can count")]
    Overflow,
}

/// The bytes in `4096`, `64K`, `512MiB`, `2G` or `1T`.
pub(crate) fn parse(text: &str) -> Result<u64, SizeError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(SizeError::NotANumber);
    }
    if unit.starts_with(['.', ',']) {
        return Err(SizeError::Fraction);
    }
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err(SizeError::Unit(unit.to_owned())),
    };
    let number: u64 = number.parse().map_err(|_| SizeError::Overflow)?;
    match number.checked_mul(1 << shift) {
        None => Err(SizeError::Overflow),
        Some(0) => Err(SizeError::Zero),
        Some(bytes) => Ok(bytes),
    }
}

/// `bytes` in at most eight columns, such as `512 B`, `1.5 MiB`, `64 KiB` (exact) or `64.0 KiB` (rounded).
pub(crate) fn human(bytes: u64) -> String {
    let bytes = u128::from(bytes);
    let mut scale = 1_u128;
    for unit in UNITS {
        let whole = (bytes + scale / 2) / scale;
        if whole < 1024 {
            let tenths = (bytes * 10 + scale / 2) / scale;
            return if bytes.is_multiple_of(scale) || tenths >= 1000 {
                format!("{whole} {unit}")
            } else {
                format!("{}.{} {unit}", tenths / 10, tenths % 10)
            };
        }
        scale <<= 10;
    }
    // Not reached: u64::MAX is 16 EiB.
    format!("{bytes} B")
}

/// As [`human`], in at most five columns, such as `1.5M`.
pub(crate) fn human_short(bytes: u64) -> String {
    human(bytes).replace(' ', "").replace("iB", "")
}

/// `number` with a comma between thousands.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time such as `31 ms`, `2.4 s`, `3 min 07 s` or `1 h 02 min`.
pub(crate) fn duration(seconds: f64) -> String {
    let milliseconds = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default().as_millis();
    let rounded = (milliseconds + 500) / 1000;
    match milliseconds {
        0..1000 => format!("{milliseconds} ms"),
        1000..59_950 => format!("{}.{} s", (milliseconds + 50) / 1000, (milliseconds + 50) % 1000 / 100),
        _ if rounded < 3600 => format!("{} min {:02} s", rounded / 60, rounded % 60),
        _ => format!("{} h {:02} min", rounded / 3600, rounded % 3600 / 60),
    }
}

/// How much of `whole` is `part`, in whole percent, rounded down so that 100 means all of it.
pub(crate) fn percent(part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(part) * 100 / u128::from(whole.max(1))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_in_every_unit() {
        for (text, bytes) in [
            ("1", 1),
            ("4096", 4096),
            ("64K", 64 << 10),
            ("64k", 64 << 10),
            ("64KiB", 64 << 10),
            ("512M", 512 << 20),
            ("512mib", 512 << 20),
            ("2G", 2 << 30),
            ("1T", 1 << 40),
            ("1TiB", 1 << 40),
            ("007K", 7 << 10),
            ("18446744073709551615", u64::MAX),
            ("16777215T", 16_777_215 << 40),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_says_why() {
        for text in ["", "K", "x", "-1", "+1", " 1", "M512", "\u{664}K"] {
            assert_eq!(parse(text), Err(SizeError::NotANumber), "{text:?}");
        }
        for text in ["1.5G", "0.5", "1,5M", "1."] {
            assert_eq!(parse(text), Err(SizeError::Fraction), "{text:?}");
        }
        for text in ["0", "0K", "000T"] {
            assert_eq!(parse(text), Err(SizeError::Zero), "{text:?}");
        }
        for text in ["18446744073709551616", "16777216T", "99999999999999999999999K"] {
            assert_eq!(parse(text), Err(SizeError::Overflow), "{text:?}");
        }
        for (text, unit) in [("5KB", "KB"), ("5kB", "kB"), ("5B", "B"), ("5 M", " M"), ("5E", "E"), ("1e9", "e9")] {
            assert_eq!(parse(text), Err(SizeError::Unit(unit.to_owned())), "{text:?}");
        }
        assert_eq!(
            parse("5KB").unwrap_err().to_string(),
            "there is no unit `KB`: use K, M, G or T (powers of 1024; KiB, MiB, GiB and TiB mean the same)"
        );
    }

    #[test]
    fn sizes_to_read() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (1025, "1.0 KiB"),
            (102_348, "99.9 KiB"),
            (102_400 - 1, "100 KiB"),
            (1_048_576 - 4096, "1020 KiB"),
            (1_048_576 - 1, "1.0 MiB"),
            (1 << 40, "1 TiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(human(bytes), text, "{bytes}");
        }
        assert_eq!(human_short(1536), "1.5K");
        assert_eq!(human_short(1_048_576 - 4096), "1020K");
        assert_eq!(human_short(0), "0B");
    }

    #[test]
    fn counts_times_and_percents_to_read() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        let times = [0.0, 0.0314, 0.9994, 2.44, 59.949, 59.96, 187.2, 3599.6, 3725.0, -1.0, f64::NAN];
        let texts = times.map(duration);
        assert_eq!(
            texts,
            [
                "0 ms",
                "31 ms",
                "999 ms",
                "2.4 s",
                "59.9 s",
                "1 min 00 s",
                "3 min 07 s",
                "1 h 00 min",
                "1 h 02 min",
                "0 ms",
                "0 ms"
            ]
        );
        assert_eq!(percent(1, 3), 33);
        assert_eq!(percent(999, 1000), 99);
        assert_eq!(percent(u64::MAX, u64::MAX), 100);
        assert_eq!(percent(0, 0), 0);
    }
}
