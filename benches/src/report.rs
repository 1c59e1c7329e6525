//! Measured runs become one line of JSON.

use serde_json::{Value, json};

use crate::measure::Cost;

/// Gives the line for the runs of one workload by one builder in one mode.
///
/// Times are seconds; `peak_memory_bytes` is that of the largest process in any run;
/// `sent_bytes` is null where the registry is not ours.
pub(crate) fn line(workload: &str, builder: &str, mode: &str, costs: &[Cost]) -> Value {
    let mut walls: Vec<f64> = costs.iter().map(|cost| cost.wall_seconds).collect();
    let mut cpus: Vec<f64> = costs.iter().map(|cost| cost.cpu_seconds).collect();
    let sent: Option<Vec<f64>> = costs
        .iter()
        .map(|cost| cost.sent_bytes.map(|bytes| bytes as f64))
        .collect();
    json!({
        "workload": workload,
        "builder": builder,
        "mode": mode,
        "runs": costs.len(),
        "wall_seconds": {
            "median": rounded(median(&mut walls)),
            "min": rounded(walls.first().copied()),
            "max": rounded(walls.last().copied()),
        },
        "cpu_seconds": rounded(median(&mut cpus)),
        "peak_memory_bytes": costs.iter().map(|cost| cost.peak_memory_bytes).max(),
        "sent_bytes": sent.and_then(|mut sent| median(&mut sent)).map(|bytes| bytes as u64),
    })
}

/// Sorts the values and gives the middle one, or the mean of the middle two.
pub(crate) fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *values.get(values.len() / 2 - 1)?;
    Some((lower + upper) / 2.0)
}

/// Milliseconds are more than two runs agree on.
pub(crate) fn rounded(seconds: Option<f64>) -> Option<f64> {
    seconds.map(|seconds| (seconds * 1000.0).round() / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_few() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [3.0]), Some(3.0));
        assert_eq!(median(&mut [4.0, 1.0]), Some(2.5));
        assert_eq!(median(&mut [9.0, 1.0, 2.0]), Some(2.0));
    }

    #[test]
    fn unknown_bytes_stay_unknown() {
        let cost = |sent_bytes| Cost {
            wall_seconds: 1.23456,
            cpu_seconds: 0.5,
            peak_memory_bytes: 7,
            sent_bytes,
        };
        let line = line("W1", "ocibuild", "cold", &[cost(Some(1)), cost(None)]);
        assert_eq!(line["sent_bytes"], Value::Null);
        assert_eq!(line["wall_seconds"]["median"], json!(1.235));
        assert_eq!(line["runs"], json!(2));
    }
}
