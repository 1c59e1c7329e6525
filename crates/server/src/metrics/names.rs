//! The name, the labels and the meaning of every metric.

/// A metric.
#[derive(Debug, PartialEq)]
pub(super) struct Name {
    pub(super) text: &'static str,
    pub(super) form: Form,
    pub(super) labels: &'static [&'static str],
    pub(super) meaning: &'static str,
}

/// What kind of number it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Form {
    Counter,
    Gauge,
    /// With the upper bounds of its buckets.
    Histogram(&'static [f64]),
}

/// From a step out of the cache to a build of two hours.
const LONG: &[f64] = &[
    0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0,
];
/// From an answer out of memory to one that waited for a database.
const SHORT: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

macro_rules! metrics {
    ($($constant:ident: $form:expr, $text:literal, [$($label:literal),*], $meaning:literal;)*) => {
        $(pub(super) const $constant: Name = Name {
            text: $text,
            form: $form,
            labels: &[$($label),*],
            meaning: $meaning,
        };)*
        /// Every metric.
        pub(super) const ALL: &[Name] = &[$($constant),*];
    };
}

metrics! {
    QUEUE_WAITING: Form::Gauge, "ocibuild_queue_waiting", [],
        "Tasks that wait, of all replicas";
    QUEUE_RUNNING: Form::Gauge, "ocibuild_queue_running", [],
        "Tasks that are being built, by all replicas";
    QUEUE_OLDEST: Form::Gauge, "ocibuild_queue_oldest_seconds", [],
        "How long the oldest waiting task has waited; 0 where none waits";
    RUNNING: Form::Gauge, "ocibuild_builds_running", [],
        "Builds that run on this replica";
    MAX_BUILDS: Form::Gauge, "ocibuild_builds_max", [],
        "Builds that may run on this replica";
    FOLLOWERS: Form::Gauge, "ocibuild_log_followers", [],
        "Clients that follow a log on this replica";
    QUEUED: Form::Counter, "ocibuild_tasks_queued_total", [],
        "Tasks that were queued by this replica";
    CANCELLED: Form::Counter, "ocibuild_tasks_cancelled_total", [],
        "Tasks that clients of this replica cancelled before their end";
    RECOVERED: Form::Counter, "ocibuild_tasks_recovered_total", ["fate"],
        "Tasks that were taken from a worker that disappeared";
    LEASES_LOST: Form::Counter, "ocibuild_leases_lost_total", [],
        "Builds that were stopped because another worker has their task";
    WAITING_SECONDS: Form::Histogram(LONG), "ocibuild_task_waiting_seconds", [],
        "From the queue to the beginning of a first attempt";
    BUILD_SECONDS: Form::Histogram(LONG), "ocibuild_build_seconds", ["result", "code"],
        "How long builds took";
    STEP_SECONDS: Form::Histogram(LONG), "ocibuild_step_seconds", ["kind", "cache"],
        "How long steps of builds took";
    CACHE_HITS: Form::Counter, "ocibuild_cache_hits_total", [],
        "Steps whose result was there";
    CACHE_MISSES: Form::Counter, "ocibuild_cache_misses_total", [],
        "Commands and copies that were carried out";
    PUSHED_BYTES: Form::Counter, "ocibuild_pushed_bytes_total", ["how"],
        "Bytes of images that came into registries";
    LOG_BYTES: Form::Counter, "ocibuild_log_bytes_total", [],
        "Bytes that were written into logs of tasks";
    HTTP_REQUESTS: Form::Counter, "ocibuild_http_requests_total", ["route", "method", "status"],
        "Requests that were answered";
    HTTP_SECONDS: Form::Histogram(SHORT), "ocibuild_http_request_seconds", ["route", "method"],
        "From a request to the head of its answer";
    DATABASE_ERRORS: Form::Counter, "ocibuild_database_errors_total", ["action"],
        "Operations of the task table that failed";
    MEMORY: Form::Gauge, "ocibuild_process_resident_memory_bytes", [],
        "Memory of the service without its builds";
    OPEN_FILES: Form::Gauge, "ocibuild_process_open_fds", [],
        "Open file descriptors of the service";
    BUILD_INFO: Form::Gauge, "ocibuild_build_info", ["version"],
        "Always 1; says which program this is";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        let mut seen = std::collections::BTreeSet::new();
        for name in ALL {
            let text = name.text;
            assert!(seen.insert(text), "{text} is there twice");
            assert!(text.starts_with("ocibuild_"), "{text}");
            assert_eq!(
                text.ends_with("_total"),
                name.form == Form::Counter,
                "{text}"
            );
            if let Form::Histogram(buckets) = name.form {
                assert!(text.ends_with("_seconds"), "{text}");
                assert!(buckets.is_sorted(), "{text}");
            }
            assert!(!name.meaning.is_empty() && name.labels.len() <= 3, "{text}");
        }
    }

    #[test]
    fn every_metric_is_documented() {
        let document = include_str!("../../../../docs/observability.md");
        for Name { text, meaning, .. } in ALL {
            let row = document
                .lines()
                .find(|line| line.starts_with(&format!("| `{text}` |")));
            assert!(row.is_some_and(|row| row.contains(meaning)), "{text}");
        }
    }
}
