//! How measured times are spread.

use std::time::Duration;

use serde_json::{Value, json};

/// Times in order.
#[derive(Debug)]
pub(crate) struct Spread(Vec<Duration>);

impl Spread {
    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// Gives the least time that so many of a hundred do not exceed (nearest rank).
    fn percentile(&self, percent: usize) -> Option<f64> {
        let rank = (self.0.len() * percent).div_ceil(100);
        self.0.get(rank.checked_sub(1)?).copied().map(milliseconds)
    }

    /// Gives the object that reports hold; all numbers but the count are milliseconds.
    pub(crate) fn report(&self) -> Value {
        json!({
            "count": self.0.len(),
            "min": self.0.first().copied().map(milliseconds),
            "p50": self.percentile(50),
            "p95": self.percentile(95),
            "p99": self.percentile(99),
            "max": self.0.last().copied().map(milliseconds),
        })
    }
}

/// Gives a time in milliseconds, with two digits behind the point.
pub(crate) fn milliseconds(time: Duration) -> f64 {
    hundredths(time.as_secs_f64() * 1000.0)
}

/// Gives a number with two digits behind the point.
pub(crate) fn hundredths(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_values() {
        let times = (1..=200).rev().map(Duration::from_millis).collect();
        let report = Spread::of(times).report();
        for (name, expected) in [
            ("count", json!(200)),
            ("min", json!(1.0)),
            ("p50", json!(100.0)),
            ("p95", json!(190.0)),
            ("p99", json!(198.0)),
            ("max", json!(200.0)),
        ] {
            assert_eq!(report[name], expected, "{name}");
        }
    }

    #[test]
    fn one_time_is_every_percentile_and_none_is_null() {
        let one = Spread::of(vec![Duration::from_micros(1_234)]).report();
        assert_eq!((&one["p50"], &one["p99"]), (&json!(1.23), &json!(1.23)));
        let none = Spread::of(Vec::new()).report();
        assert_eq!((&none["p50"], &none["max"]), (&Value::Null, &Value::Null));
    }
}
