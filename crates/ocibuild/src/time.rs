//! Seconds since 1970 and their RFC 3339 text, in UTC.

use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat, Utc};

/// Gives the whole seconds since 1970; negative before.
pub(crate) fn seconds(time: SystemTime) -> i64 {
    DateTime::<Utc>::from(time).timestamp()
}

/// Gives the whole milliseconds since 1970; 0 before.
pub(crate) fn millis(time: SystemTime) -> u64 {
    u64::try_from(DateTime::<Utc>::from(time).timestamp_millis()).unwrap_or_default()
}

/// Gives the text of a time, with nanoseconds.
pub(crate) fn rfc3339_of(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Nanos, true)
}

/// Gives the text of a second, such as `2026-01-02T03:04:05Z`; the farthest second that
/// can be written stands for those beyond it.
pub(crate) fn rfc3339(seconds: i64) -> String {
    DateTime::<Utc>::from_timestamp(seconds, 0)
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
        .to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Reads the text of a time, to whole seconds since 1970.
pub(crate) fn from_rfc3339(text: &str) -> Option<i64> {
    let time = DateTime::parse_from_rfc3339(text).ok()?;
    Some(time.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_760_000_000, "2025-10-09T08:53:20Z"),
        ] {
            assert_eq!(rfc3339(seconds), want);
            assert_eq!(from_rfc3339(want), Some(seconds));
        }
        assert_eq!(from_rfc3339("1970-01-01T01:00:00.5+01:00"), Some(0));
        assert_eq!(from_rfc3339("yesterday"), None);
    }
}
