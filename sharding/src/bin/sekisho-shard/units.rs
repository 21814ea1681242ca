//! Sizes, times and keys as people write and read them.

use std::num::NonZeroU64;
use std::time::Duration;

use sharding::vault::Pace;

use crate::say;
use crate::words::{Lang, Message};

const STEPS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];

/// A size in the unit that fits, with the exact count beside it.
pub fn size(bytes: u64, lang: Lang) -> String {
    let exact = grouped(bytes);
    if bytes < 1024 {
        return say!(Bytes, bytes = exact).text(lang);
    }
    Message::new(crate::words::Key::Size, vec![("size", rounded(bytes)), ("bytes", exact)]).text(lang)
}

fn rounded(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64 / 1024.0, 0);
    while value >= 1023.95 && unit + 1 < STEPS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", STEPS[unit])
}

/// Digits in groups of three.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `90`, `90s`, `15m`, `2h`, `3d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "a time is a number with s, m, h or d behind it, such as 90s or 2h".to_owned();
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let seconds = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// `500kB`, `50MB/s`, `1GiB/s`, and bytes without a unit: how much per second.
pub fn pace(text: &str) -> Result<Pace, String> {
    let wrong = || "a pace is a number with kB, MB, GB, KiB, MiB or GiB behind it, such as 50MB/s".to_owned();
    let text = text.strip_suffix("/s").unwrap_or(text);
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let bytes: u64 = match unit {
        "" | "B" => 1,
        "kB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(bytes).and_then(NonZeroU64::new).map(Pace::per_second).ok_or_else(wrong)
}

/// `1h` again.
pub fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    for (unit, length) in [("d", 86_400), ("h", 3600), ("m", 60)] {
        if seconds >= length && seconds.is_multiple_of(length) {
            return format!("{}{unit}", seconds / length);
        }
    }
    format!("{seconds}s")
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 32 bytes in hexadecimal digits.
pub fn public_key(text: &str) -> Result<[u8; 32], String> {
    // A root is written the same way.
    let root: Result<sharding::format::Root, _> = text.parse();
    root.map(|root| root.0).map_err(|_| "a public key has 64 lower-case hexadecimal digits".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        assert_eq!(size(5, Lang::En), "5 bytes");
        assert_eq!(size(1536, Lang::En), "1.5 KiB (1,536 bytes)");
        assert_eq!(size((1 << 20) - 1, Lang::En), "1.0 MiB (1,048,575 bytes)");
        assert_eq!(size(163_000_000_000, Lang::Ja), "151.8 GiB（163,000,000,000 バイト）");
    }

    #[test]
    fn paces_are_understood_or_refused() {
        for right in ["1", "500kB", "50MB/s", "1GiB/s", "7B"] {
            assert!(pace(right).is_ok(), "{right}");
        }
        for wrong in ["", "0", "0MB/s", "MB", "-1", "1.5MB", "1mb", "5 MB/s", "99999999999999GiB"] {
            assert!(pace(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_understood_or_refused() {
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for wrong in ["", "h", "2w", "-1s", "99999999999999999999d", "9999999999999999d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            (span(Duration::from_secs(7200)), span(Duration::from_secs(61))),
            ("2h".into(), "61s".into())
        );
    }
}
