//! Durations and sizes as people write them: `150ms`, `2s`, `1h30m`, `64MiB`.
//!
//! Pure. A duration is one number with a unit, or several from the largest unit down; milliseconds are the finest. A
//! size is one number with a unit. What is shown reads back as the same value.

use std::time::Duration;

const SPANS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("B", 1),
];

/// How a duration is written, for hints.
pub const SPAN_HINT: &str = "write a number with its unit: \"150ms\", \"2s\", \"30m\", \"1h\", \"1d\"";

/// How a size is written, for hints.
pub const SIZE_HINT: &str = "write a number with its unit: \"512KiB\", \"64MiB\", \"1GiB\"";

/// Reads a duration. `None` where it is none, or has more than 2⁶⁴ ms.
pub fn span(text: &str) -> Option<Duration> {
    let mut millis = 0u64;
    let mut rest = text;
    let mut units = SPANS.as_slice();
    loop {
        let (number, behind) = number(rest)?;
        let letters = behind.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = behind.split_at(letters);
        let at = units.iter().position(|(name, _)| *name == unit)?;
        millis = millis.checked_add(number.checked_mul(units[at].1)?)?;
        if tail.is_empty() {
            return Some(Duration::from_millis(millis));
        }
        units = &units[at + 1..];
        rest = tail;
    }
}

/// Shows a duration, in the largest unit that needs no fraction. What is finer than a millisecond is left out.
pub fn show_span(span: Duration) -> String {
    let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    match SPANS.iter().find(|(_, unit)| millis != 0 && millis.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", millis / unit),
        None => "0s".to_owned(),
    }
}

/// Reads a size in bytes. `None` where it is none, or has more than 2⁶⁴ bytes.
pub fn size(text: &str) -> Option<u64> {
    let (number, unit) = number(text)?;
    let (_, factor) = SIZES.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.checked_mul(*factor)
}

/// Shows a size, in the largest binary unit that needs no fraction.
pub fn show_size(bytes: u64) -> String {
    match SIZES[..4].iter().find(|(_, unit)| bytes != 0 && bytes.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

fn number(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, behind) = text.split_at(digits);
    Some((number.parse().ok()?, behind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, millis) in [
            ("0s", Some(0)),
            ("150ms", Some(150)),
            ("2s", Some(2000)),
            ("30m", Some(1_800_000)),
            ("1h30m", Some(5_400_000)),
            ("1d", Some(86_400_000)),
            ("1s500ms", Some(1500)),
            ("", None),
            ("2", None),
            ("s", None),
            ("-1s", None),
            ("1.5s", None),
            ("2 s", None),
            ("2sec", None),
            ("30m1h", None),
            ("1m1m", None),
            ("99999999999999999999s", None),
            ("999999999999999999d", None),
        ] {
            assert_eq!(span(text), millis.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn sizes_read_as_people_write_them() {
        for (text, bytes) in [
            ("64MiB", Some(64 << 20)),
            ("64 MiB", Some(64 << 20)),
            ("1000B", Some(1000)),
            ("1GB", Some(1_000_000_000)),
            ("64", None),
            ("64M", None),
            ("MiB", None),
            ("99999999999TiB", None),
        ] {
            assert_eq!(size(text), bytes, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_shown_duration_reads_back(millis in any::<u64>()) {
            let d = Duration::from_millis(millis);
            prop_assert_eq!(span(&show_span(d)), Some(d));
        }

        #[test]
        fn a_shown_size_reads_back(bytes in any::<u64>()) {
            prop_assert_eq!(size(&show_size(bytes)), Some(bytes));
        }

        #[test]
        fn noise_is_refused_without_panic(text in "\\PC{0,20}") {
            let _ = (span(&text), size(&text));
        }
    }
}
