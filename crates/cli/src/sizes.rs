//! Sizes and times as people write and read them.

use std::time::Duration;

/// Gives a size with a unit of 1000.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..1000 => format!("{bytes} B"),
        1000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// Reads a size: `1048576`, `512M`, `512Mi`, `10GB`; every step is one of 1024, as in the
/// settings of the service.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size such as 1048576, 512M or 10GB");
    let (number, unit) = split(text);
    let unit = unit.to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let unit = unit.strip_suffix('i').unwrap_or(unit);
    let power = ["", "k", "m", "g", "t"];
    let power = power.iter().position(|letter| *letter == unit);
    let factor = 1_u64 << (10 * power.ok_or_else(wrong)?);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(factor).ok_or_else(wrong)
}

/// Reads a time: `90s`, `30m`, `12h`, `7d`.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time such as 90s, 30m, 12h or 7d");
    let (number, unit) = split(text);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = number.checked_mul(seconds).filter(|all| *all < 1 << 40);
    seconds.map(Duration::from_secs).ok_or_else(wrong)
}

fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit());
    text.split_at(end.unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times() {
        for (text, want) in [
            ("0", 0),
            ("7", 7),
            ("2k", 2048),
            ("3MiB", 3 << 20),
            ("1GB", 1 << 30),
        ] {
            assert_eq!(bytes(text), Ok(want), "{text}");
        }
        for text in ["", "x", "1x", "-1", "1.5G", "99999999999999T", "1bb"] {
            assert!(bytes(text).is_err(), "{text}");
        }
        assert_eq!(time("2h"), Ok(Duration::from_secs(7200)));
        for text in [
            "",
            "5",
            "5w",
            "d",
            "99999999999999999999d",
            "9999999999999d",
        ] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
