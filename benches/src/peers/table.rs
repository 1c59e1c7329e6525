//! Measured runs become tables in Markdown, and lines of JSON.

use serde_json::{Value, json};

use super::traffic::Traffic;
use crate::measure::Cost;
use crate::report::median;

/// One run.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) cost: Cost,
    pub(crate) traffic: Traffic,
}

/// The runs of one workload by one builder in one mode.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) workload: String,
    pub(crate) mode: &'static str,
    pub(crate) builder: String,
    pub(crate) runs: Vec<Run>,
}

pub(crate) const HEAD: &str = "\
| workload, mode | builder | wall s | ratio | CPU s | peak MB | sent MB | received MB | requests |
|---|---|---|---|---|---|---|---|---|";

impl Row {
    fn walls(&self) -> Vec<f64> {
        self.runs.iter().map(|run| run.cost.wall_seconds).collect()
    }

    fn middle(&self, value: impl Fn(&Run) -> f64) -> f64 {
        let mut values: Vec<f64> = self.runs.iter().map(value).collect();
        median(&mut values).unwrap_or(f64::NAN)
    }

    /// Gives by how much the other builder was slower, as the median over the rounds: only
    /// what ran in turns is compared.
    fn ratio(&self, ours: &Row) -> f64 {
        let pairs = self.runs.iter().zip(&ours.runs);
        let ratio =
            |(theirs, ours): (&Run, &Run)| theirs.cost.wall_seconds / ours.cost.wall_seconds;
        let mut ratios: Vec<f64> = pairs.map(ratio).collect();
        median(&mut ratios).unwrap_or(f64::NAN)
    }

    fn peak(&self) -> u64 {
        let peaks = self.runs.iter().map(|run| run.cost.peak_memory_bytes);
        peaks.max().unwrap_or(0)
    }

    /// Gives its line of the table; `ours` has the runs of ocibuild.
    pub(crate) fn line(&self, ours: &Row) -> String {
        let mut walls = self.walls();
        walls.sort_by(f64::total_cmp);
        let megabytes = |bytes: f64| bytes / 1e6;
        format!(
            "| {} {} | {} | {:.3} ({:.3}–{:.3}) | {:.1} | {:.2} | {:.0} | {:.2} | {:.2} | {:.0} |",
            self.workload,
            self.mode,
            self.builder,
            self.middle(|run| run.cost.wall_seconds),
            walls.first().unwrap_or(&f64::NAN),
            walls.last().unwrap_or(&f64::NAN),
            self.ratio(ours),
            self.middle(|run| run.cost.cpu_seconds),
            megabytes(self.peak() as f64),
            megabytes(self.middle(|run| run.traffic.sent as f64)),
            megabytes(self.middle(|run| run.traffic.received as f64)),
            self.middle(|run| run.traffic.requests as f64),
        )
    }

    /// Gives its line of JSON.
    pub(crate) fn json(&self, ours: &Row) -> Value {
        json!({
            "workload": self.workload,
            "mode": self.mode,
            "builder": self.builder,
            "wall_seconds": self.walls(),
            "ratio": self.ratio(ours),
            "cpu_seconds": self.middle(|run| run.cost.cpu_seconds),
            "peak_memory_bytes": self.peak(),
            "sent_bytes": self.middle(|run| run.traffic.sent as f64) as u64,
            "received_bytes": self.middle(|run| run.traffic.received as f64) as u64,
            "requests": self.middle(|run| run.traffic.requests as f64) as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(builder: &str, walls: &[f64]) -> Row {
        let run = |wall_seconds: &f64| Run {
            cost: Cost {
                wall_seconds: *wall_seconds,
                cpu_seconds: 0.5,
                peak_memory_bytes: 7_000_000,
                sent_bytes: None,
            },
            traffic: Traffic {
                sent: 1_500_000,
                received: 0,
                requests: 3,
            },
        };
        Row {
            workload: "copy".to_owned(),
            mode: "cold",
            builder: builder.to_owned(),
            runs: walls.iter().map(run).collect(),
        }
    }

    #[test]
    fn ratios_are_those_of_runs_in_turns() {
        let (ours, theirs) = (
            row("ocibuild", &[1.0, 2.0, 4.0]),
            row("b", &[2.0, 6.0, 8.0]),
        );
        let expected = "| copy cold | b | 6.000 (2.000–8.000) | 2.0 | 0.50 | 7 | 1.50 | 0.00 | 3 |";
        assert_eq!(theirs.line(&ours), expected);
        assert_eq!(theirs.json(&ours)["wall_seconds"], json!([2.0, 6.0, 8.0]));
    }
}
