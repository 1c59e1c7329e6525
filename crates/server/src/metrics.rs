//! What the service counts about itself, and how Prometheus reads it.
//!
//! Every metric is named and described in `names` and counted by a method here, so that all
//! labels are in view: they are words of this program, never text of a user. Each service has
//! a recorder of its own; nothing is global.

mod names;
mod process;
mod queue;
mod store;

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use ocibuild_store::{Recovered, StepState, TaskStore};

use self::names::{Form, Name};
use self::queue::Queue;
pub(crate) use self::store::CountedStore;
use crate::app::App;

/// How often samples are gathered that nobody has asked for; until then each takes memory.
const UPKEEP: Duration = Duration::from_secs(5);
const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

/// The numbers of one service.
#[derive(Clone)]
pub(crate) struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    queue: Queue,
}

/// How the build of a task ended, for a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BuildEnd {
    /// Every registry has the image.
    Completed,
    /// It failed with this code.
    Failed(&'static str),
    /// The task was given back, because the service ends or could not begin.
    Released,
    /// Another worker has the task.
    LeaseLost,
}

/// What a step does, as its name tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StepKind {
    /// Runs a command.
    Run,
    /// Copies files.
    Copy,
    /// Loads a base image or one of its layers.
    Load,
    /// Brings the image into a registry.
    Push,
    /// Anything else.
    Other,
}

/// How bytes of an image came into a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transfer {
    /// They were sent.
    Uploaded,
    /// The registry took them from another of its repositories.
    Mounted,
    /// They were there.
    Existing,
}

impl Metrics {
    /// Begins at zero.
    pub(crate) fn new() -> Self {
        let recorder = recorder();
        let inner = Inner {
            handle: recorder.handle(),
            recorder,
            queue: Queue::default(),
        };
        let metrics = Self {
            inner: Arc::new(inner),
        };
        metrics.describe();
        metrics.begin();
        metrics
    }

    // ---- tasks

    /// A task was queued.
    pub(crate) fn queued(&self) {
        self.counter(&names::QUEUED, &[]).increment(1);
    }

    /// Somebody asked for the end of a task that was not over.
    pub(crate) fn cancelled(&self) {
        self.counter(&names::CANCELLED, &[]).increment(1);
    }

    /// Tasks were taken from a worker that disappeared.
    pub(crate) fn recovered(&self, recovered: &Recovered) {
        for (fate, tasks) in [
            ("requeued", &recovered.requeued),
            ("failed", &recovered.failed),
        ] {
            self.counter(&names::RECOVERED, &[("fate", fate)])
                .increment(tasks.len() as u64);
        }
    }

    /// A task that has waited so long is being built.
    pub(crate) fn build_began(&self, waited: Duration) {
        self.histogram(&names::WAITING_SECONDS, &[])
            .record(waited.as_secs_f64());
    }

    /// A build ended.
    pub(crate) fn build_ended(&self, end: BuildEnd, took: Duration) {
        let (result, code) = match end {
            BuildEnd::Completed => ("completed", "none"),
            BuildEnd::Failed(code) => ("failed", code),
            BuildEnd::Released => ("released", "none"),
            BuildEnd::LeaseLost => ("lease_lost", "none"),
        };
        let labels = [("result", result), ("code", code)];
        self.histogram(&names::BUILD_SECONDS, &labels)
            .record(took.as_secs_f64());
        if end == BuildEnd::LeaseLost {
            self.counter(&names::LEASES_LOST, &[]).increment(1);
        }
    }

    /// A step ended.
    pub(crate) fn step_ended(&self, kind: StepKind, state: StepState, took: Duration) {
        let cache = match state {
            StepState::Cached => "hit",
            StepState::Failed => "failed",
            StepState::Done | StepState::Running => "miss",
        };
        let labels = [("kind", kind.as_str()), ("cache", cache)];
        self.histogram(&names::STEP_SECONDS, &labels)
            .record(took.as_secs_f64());
        // Only commands and copies are kept; loading and pushing has no result to find again.
        let kept = matches!(kind, StepKind::Run | StepKind::Copy);
        match cache {
            "hit" => self.counter(&names::CACHE_HITS, &[]).increment(1),
            "miss" if kept => self.counter(&names::CACHE_MISSES, &[]).increment(1),
            _ => {}
        }
    }

    /// Bytes of an image came into a registry.
    pub(crate) fn pushed(&self, how: Transfer, bytes: u64) {
        self.counter(&names::PUSHED_BYTES, &[("how", how.as_str())])
            .increment(bytes);
    }

    /// Something was written into the log of a task.
    pub(crate) fn logged(&self, bytes: u64) {
        self.counter(&names::LOG_BYTES, &[]).increment(bytes);
    }

    // ---- the service

    /// A request was answered; `route` is its template.
    pub(crate) fn answered(
        &self,
        route: &str,
        method: &'static str,
        status: StatusCode,
        took: Duration,
    ) {
        let route = Label::new("route", route.to_owned());
        let method = Label::from_static_parts("method", method);
        let status = Label::new("status", status.as_str().to_owned());
        let common = vec![route, method];
        let counted = Key::from_parts(
            names::HTTP_REQUESTS.text,
            [common.clone(), vec![status]].concat(),
        );
        let timed = Key::from_parts(names::HTTP_SECONDS.text, common);
        let recorder = &self.inner.recorder;
        recorder.register_counter(&counted, &METADATA).increment(1);
        recorder
            .register_histogram(&timed, &METADATA)
            .record(took.as_secs_f64());
    }

    /// The database failed to do something.
    pub(crate) fn database_failed(&self, action: &'static str) {
        self.counter(&names::DATABASE_ERRORS, &[("action", action)])
            .increment(1);
    }

    /// Writes everything in the text format of Prometheus, version 0.0.4.
    pub(crate) async fn text(&self, app: &App) -> String {
        self.gauge(&names::RUNNING)
            .set(number(app.running.count() as u64));
        self.gauge(&names::MAX_BUILDS)
            .set(number(app.config.limits.max_builds as u64));
        self.gauge(&names::FOLLOWERS)
            .set(number(app.logs.followers() as u64));
        for (name, value) in process::numbers() {
            self.gauge(name).set(number(value));
        }
        let mut text = self.inner.handle.render();
        self.inner.queue.write(app.store.as_ref(), &mut text).await;
        text
    }

    /// Says what each metric means.
    fn describe(&self) {
        let recorder = &self.inner.recorder;
        for name in names::ALL {
            let (key, text) = (name.text.into(), name.meaning.into());
            match name.form {
                Form::Counter => recorder.describe_counter(key, None, text),
                Form::Gauge => recorder.describe_gauge(key, None, text),
                Form::Histogram(_) => recorder.describe_histogram(key, None, text),
            }
        }
    }

    /// Shows what has not happened yet as zero: a rate needs the value before the first.
    fn begin(&self) {
        for name in names::ALL
            .iter()
            .filter(|name| name.form == Form::Counter && name.labels.is_empty())
        {
            self.counter(name, &[]).absolute(0);
        }
        let version = Label::from_static_parts("version", env!("CARGO_PKG_VERSION"));
        let build = Key::from_parts(names::BUILD_INFO.text, vec![version]);
        self.inner
            .recorder
            .register_gauge(&build, &METADATA)
            .set(1.0);
    }

    fn counter(&self, name: &Name, labels: &[(&'static str, &'static str)]) -> Counter {
        self.inner
            .recorder
            .register_counter(&key(name, labels), &METADATA)
    }

    fn gauge(&self, name: &Name) -> Gauge {
        self.inner
            .recorder
            .register_gauge(&key(name, &[]), &METADATA)
    }

    fn histogram(&self, name: &Name, labels: &[(&'static str, &'static str)]) -> Histogram {
        self.inner
            .recorder
            .register_histogram(&key(name, labels), &METADATA)
    }
}

/// Gathers samples until the service ends.
pub(crate) async fn run(app: Arc<App>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(UPKEEP) => app.metrics.inner.handle.run_upkeep(),
            () = app.closing.cancelled() => return,
        }
    }
}

fn recorder() -> PrometheusRecorder {
    let buckets = names::ALL.iter().filter_map(|name| match name.form {
        Form::Histogram(buckets) => Some((name.text, buckets)),
        _ => None,
    });
    let builder = buckets.fold(PrometheusBuilder::new(), |builder, (name, buckets)| {
        builder
            .set_buckets_for_metric(Matcher::Full(name.to_owned()), buckets)
            .expect("only an empty list of buckets is refused")
    });
    builder.build_recorder()
}

fn key(name: &Name, labels: &[(&'static str, &'static str)]) -> Key {
    let named = labels.iter().map(|label| label.0);
    debug_assert!(
        named.eq(name.labels.iter().copied()),
        "the labels of {}",
        name.text
    );
    let labels = labels
        .iter()
        .map(|&(name, value)| Label::from_static_parts(name, value));
    Key::from_parts(name.text, labels.collect::<Vec<_>>())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "every number of Prometheus is a float"
)]
fn number(value: u64) -> f64 {
    value as f64
}

impl StepKind {
    /// Reads the name of a step, such as `[stage 2/5] RUN make`.
    pub(crate) fn of(name: &str) -> Self {
        let rest = match name
            .strip_prefix('[')
            .and_then(|rest| rest.split_once("] "))
        {
            Some((_, rest)) => rest,
            None => name,
        };
        let word = rest.split_whitespace().next().unwrap_or_default();
        match word {
            "RUN" => Self::Run,
            "COPY" | "ADD" => Self::Copy,
            "FROM" | "fetch" => Self::Load,
            "pushing" | "exporting" => Self::Push,
            _ => Self::Other,
        }
    }

    /// Gives the word of the label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Copy => "copy",
            Self::Load => "load",
            Self::Push => "push",
            Self::Other => "other",
        }
    }
}

impl Transfer {
    fn as_str(self) -> &'static str {
        match self {
            Self::Uploaded => "uploaded",
            Self::Mounted => "mounted",
            Self::Existing => "existing",
        }
    }
}

/// Wraps a store so that its failures are counted.
pub(crate) fn counted(store: Arc<dyn TaskStore>, metrics: &Metrics) -> Arc<dyn TaskStore> {
    Arc::new(CountedStore::new(store, metrics.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_steps_tell_their_kind() {
        for (name, expected) in [
            ("[stage 2/5] RUN make", StepKind::Run),
            ("[1/3] COPY . .", StepKind::Copy),
            ("[a b 1/3] ADD x /", StepKind::Copy),
            ("[stage 1/2] FROM docker.io/library/alpine", StepKind::Load),
            ("[internal] fetch layer 0123", StepKind::Load),
            ("pushing localhost:5000/a:RUN", StepKind::Push),
            ("exporting to localhost:5000/a:b", StepKind::Push),
            ("[stage 1/1] WORKDIR /RUN", StepKind::Other),
            ("[", StepKind::Other),
            ("", StepKind::Other),
        ] {
            assert_eq!(StepKind::of(name), expected, "{name}");
        }
    }

    #[test]
    fn services_do_not_mix() {
        let (first, second) = (Metrics::new(), Metrics::new());
        first.pushed(Transfer::Mounted, 3);
        first.pushed(Transfer::Existing, 4);
        let text = first.inner.handle.render();
        assert!(
            text.contains("ocibuild_pushed_bytes_total{how=\"mounted\"} 3\n"),
            "{text}"
        );
        assert!(
            text.contains("ocibuild_pushed_bytes_total{how=\"existing\"} 4\n"),
            "{text}"
        );
        assert!(!second.inner.handle.render().contains("mounted"));
    }
}
