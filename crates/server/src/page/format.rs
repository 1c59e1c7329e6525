//! Times and sizes as people read them.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use maud::{Markup, html};
use ocibuild_store::{Task, TaskState};

/// Writes a duration: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 4 min`, `3 d 1 h`.
pub(super) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..10 => format!("{:.1} s", time.as_millis() as f64 / 1000.0),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min {} s", seconds % 60),
        3600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// Writes how long ago something was.
pub(super) fn age(then: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let seconds = (now - then).num_seconds().max(0);
    match seconds {
        0..10 => "just now".to_owned(),
        10..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86_400 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

/// Writes a size in bytes, in binary units.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Writes a moment.
pub(super) fn moment(time: DateTime<Utc>) -> Markup {
    let machine = time.to_rfc3339_opts(SecondsFormat::Secs, true);
    html! { time datetime=(machine) { (time.format("%Y-%m-%d %H:%M:%S UTC")) } }
}

/// Writes a moment as its distance from now.
pub(super) fn ago(time: DateTime<Utc>, now: DateTime<Utc>) -> Markup {
    let machine = time.to_rfc3339_opts(SecondsFormat::Secs, true);
    let title = time.format("%Y-%m-%d %H:%M:%S UTC").to_string();
    html! { time datetime=(machine) title=(title) { (age(time, now)) } }
}

/// The beginning of a commit, as Git shows it.
pub(super) fn short_commit(commit: &str) -> String {
    commit.chars().take(10).collect()
}

/// How long the latest attempt of a task has taken; none where there was none.
pub(super) fn taken(task: &Task, now: DateTime<Utc>) -> Option<Duration> {
    let begin = task
        .started_at
        .filter(|_| task.state != TaskState::Waiting)?;
    let end = task.ended_at.unwrap_or(now);
    Some((end - begin).to_std().unwrap_or_default())
}

/// The state of a task, as a word with a mark that needs no colour.
pub(super) fn badge(state: TaskState) -> Markup {
    let mark = match state {
        TaskState::Waiting => "◷",
        TaskState::Running => "▶",
        TaskState::Completed => "✓",
        TaskState::Failed => "✗",
    };
    html! {
        span class={ "badge " (state.as_str()) } { span aria-hidden="true" { (mark) } " " (state.as_str()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        for (millis, expected) in [
            (0, "0.0 s"),
            (440, "0.4 s"),
            (12_900, "12 s"),
            (185_000, "3 min 5 s"),
            (7_440_000, "2 h 4 min"),
            (262_800_000, "3 d 1 h"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), expected);
        }
    }

    #[test]
    fn sizes_have_a_unit() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (31_700_000, "30.2 MiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn ages_never_lie_in_the_future() {
        let now = Utc::now();
        for (seconds, expected) in [
            (-5, "just now"),
            (30, "30 s ago"),
            (90, "1 min ago"),
            (7200, "2 h ago"),
            (200_000, "2 d ago"),
        ] {
            let then = now - chrono::TimeDelta::seconds(seconds);
            assert_eq!(age(then, now), expected);
        }
    }
}
