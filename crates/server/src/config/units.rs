//! Sizes and times as people write them.

/// A unit of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// `s`.
    Seconds,
    /// `m`.
    Minutes,
    /// `h`.
    Hours,
    /// `d`.
    Days,
}

impl Unit {
    const ALL: [(&str, Self); 4] = [
        ("s", Self::Seconds),
        ("m", Self::Minutes),
        ("h", Self::Hours),
        ("d", Self::Days),
    ];

    fn seconds(self) -> u64 {
        match self {
            Self::Seconds => 1,
            Self::Minutes => 60,
            Self::Hours => 3600,
            Self::Days => 86_400,
        }
    }

    /// Names many of it.
    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Minutes => "minutes",
            Self::Hours => "hours",
            Self::Days => "days",
        }
    }
}

/// Reads a time such as `90s` or `30d`; `alone` is the unit of a number without one.
pub(super) fn seconds(text: &str, alone: Option<Unit>) -> Option<u64> {
    let (number, unit) = number_and_unit(text);
    let unit = if unit.is_empty() {
        alone?
    } else {
        let known = Unit::ALL.iter().find(|(letter, _)| *letter == unit);
        known.map(|(_, unit)| *unit)?
    };
    number.parse::<u64>().ok()?.checked_mul(unit.seconds())
}

/// Reads a size such as `1048576`, `512M`, `512Mi` or `2GB`; every step is one of 1024.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text);
    let unit = unit.to_ascii_lowercase();
    let letter = unit
        .strip_suffix("ib")
        .or_else(|| unit.strip_suffix(['i', 'b']))
        .unwrap_or(&unit);
    let shift = match letter {
        // Bytes have no `i`.
        "" if !unit.contains('i') => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn number_and_unit(text: &str) -> (&str, &str) {
    let end = text
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        let alone = Some(Unit::Days);
        for (text, expected) in [
            ("90s", Some(90)),
            ("15m", Some(900)),
            ("12h", Some(43_200)),
            ("30d", Some(2_592_000)),
            ("30 d", Some(2_592_000)),
            ("2", Some(172_800)),
            ("", None),
            ("d", None),
            ("-1d", None),
            ("1.5h", None),
            ("1h30m", None),
            ("1 week", None),
            ("18446744073709551615d", None),
        ] {
            assert_eq!(seconds(text, alone), expected, "{text}");
        }
        assert_eq!(seconds("24", None), None);
        assert_eq!(seconds("24h", None), Some(86_400));
    }

    #[test]
    fn sizes_have_units() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1000", Some(1000)),
            ("7b", Some(7)),
            ("2K", Some(2048)),
            ("2kb", Some(2048)),
            ("512Mi", Some(512 << 20)),
            ("512 MiB", Some(512 << 20)),
            ("10G", Some(10 << 30)),
            ("1T", Some(1 << 40)),
            ("", None),
            ("G", None),
            ("1i", None),
            ("1ib", None),
            ("1Gbi", None),
            ("1.5G", None),
            ("-1", None),
            ("99999999999G", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }
}
