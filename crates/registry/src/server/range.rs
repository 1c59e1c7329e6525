//! `Range` of a download (RFC 9110, section 14.1.2, one range of bytes) and
//! `Content-Range` of a chunk, which the distribution specification writes without
//! a unit: `0-99`.

/// What part of a blob is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Whole,
    /// First byte and number of bytes.
    Part(u64, u64),
    Unsatisfiable,
}

/// Reads a `Range` header; what is no single byte range is ignored, as the RFC allows.
pub(super) fn wanted(header: Option<&str>, size: u64) -> Wanted {
    let Some(range) = header.and_then(|text| text.trim().strip_prefix("bytes=")) else {
        return Wanted::Whole;
    };
    let Some((first, last)) = range.split_once('-') else {
        return Wanted::Whole;
    };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    match (first.trim(), last.trim()) {
        ("", suffix) => match number(suffix) {
            Some(0) => Wanted::Unsatisfiable,
            Some(_) if size == 0 => Wanted::Unsatisfiable,
            Some(count) => Wanted::Part(size.saturating_sub(count), count.min(size)),
            None => Wanted::Whole,
        },
        (first, last) => {
            let end = match last {
                "" => Some(u64::MAX),
                last => number(last),
            };
            match (number(first), end) {
                (Some(first), Some(end)) if first <= end => match first < size {
                    true => Wanted::Part(first, end.min(size - 1) - first + 1),
                    false => Wanted::Unsatisfiable,
                },
                _ => Wanted::Whole,
            }
        }
    }
}

/// Reads a `Content-Range` header: the first byte and the number of bytes.
pub(super) fn chunk(header: &str) -> Option<(u64, u64)> {
    let text = header.trim();
    let text = text.strip_prefix("bytes ").unwrap_or(text);
    let text = text.split('/').next().unwrap_or(text);
    let (first, last) = text.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let count = last.checked_sub(first)?.checked_add(1)?;
    Some((first, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (header, want) in [
            (None, Wanted::Whole),
            (Some("bytes=0-"), Wanted::Part(0, 10)),
            (Some("bytes=3-5"), Wanted::Part(3, 3)),
            (Some("bytes=3-99"), Wanted::Part(3, 7)),
            (Some("bytes=-4"), Wanted::Part(6, 4)),
            (Some("bytes=-99"), Wanted::Part(0, 10)),
            (Some("bytes=10-"), Wanted::Unsatisfiable),
            (Some("bytes=-0"), Wanted::Unsatisfiable),
            (Some("bytes=5-3"), Wanted::Whole),
            (Some("bytes=0-1,3-4"), Wanted::Whole),
            (Some("lines=0-1"), Wanted::Whole),
            (Some("bytes=0-18446744073709551615"), Wanted::Part(0, 10)),
        ] {
            assert_eq!(wanted(header, 10), want, "{header:?}");
        }
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::Unsatisfiable);
    }

    #[test]
    fn chunks() {
        assert_eq!(chunk("0-99"), Some((0, 100)));
        assert_eq!(chunk("bytes 5-5/10"), Some((5, 1)));
        for header in ["", "-", "9-5", "0-18446744073709551615", "a-b", "1"] {
            assert_eq!(chunk(header), None, "{header:?}");
        }
    }
}
