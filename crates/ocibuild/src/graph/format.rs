//! Texts of the history, written as the reference builder writes them.

use crate::image::config::Healthcheck;

/// Joins words in brackets: `[a b]`.
pub fn bracketed<T: AsRef<str>>(words: &[T]) -> String {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    format!("[{}]", words.join(" "))
}

/// Writes a health check with all its fields.
pub fn healthcheck(check: &Healthcheck) -> String {
    format!(
        "{{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        bracketed(&check.test),
        duration(check.interval),
        duration(check.timeout),
        duration(check.start_period),
        duration(check.start_interval),
        check.retries
    )
}

/// Writes nanoseconds as hours, minutes and seconds: `1h0m0s`, `5m0s`, `1.5s`, `250ms`.
pub fn duration(nanos: i64) -> String {
    const SECOND: i64 = 1_000_000_000;
    let fraction = |value: i64, unit: i64, digits: usize| {
        let rest = format!("{:0digits$}", value % unit);
        match rest.trim_end_matches('0') {
            "" => (value / unit).to_string(),
            rest => format!("{}.{rest}", value / unit),
        }
    };
    match nanos {
        0 => "0s".to_owned(),
        ..0 => format!("-{}", duration(nanos.saturating_neg())),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(nanos, 1_000, 3)),
        1_000_000..SECOND => format!("{}ms", fraction(nanos, 1_000_000, 6)),
        _ => {
            let (hours, minutes) = (nanos / (3600 * SECOND), nanos / (60 * SECOND) % 60);
            let seconds = format!("{}s", fraction(nanos % (60 * SECOND), SECOND, 9));
            match (hours, minutes) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (nanos, want) in [
            (0, "0s"),
            (300_000_000_000, "5m0s"),
            (3_000_000_000, "3s"),
            (1_500_000_000, "1.5s"),
            (250_000_000, "250ms"),
            (3_661_000_000_000, "1h1m1s"),
            (1_500, "1.5µs"),
        ] {
            assert_eq!(duration(nanos), want);
        }
    }

    #[test]
    fn lists() {
        assert_eq!(bracketed(&["80/tcp", "53/udp"]), "[80/tcp 53/udp]");
    }
}
