//! What is counted and traced of one build. It sees texts only after their secrets were
//! taken out.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use ocibuild::{Event, StepId, TransferState};
use ocibuild_store::{Outcome, Step, StepState, Task};

use super::process::Stop;
use crate::app::App;
use crate::metrics::{BuildEnd, Metrics, StepKind, Transfer};
use crate::spec::Source;
use crate::traces::TaskTrace;

/// The observer of one build.
pub(super) struct Observation {
    metrics: Metrics,
    trace: TaskTrace,
    began: Instant,
    running: BTreeMap<u32, Step>,
    /// How much of each thing a step has pushed.
    pushed: HashMap<(StepId, String), u64>,
    ended: bool,
}

impl Observation {
    /// The build of a task begins.
    pub(super) fn begin(app: &App, task: &Task) -> Self {
        let waited = task.started_at.map(|started| started - task.created_at);
        if let Some(Ok(waited)) = waited.map(|waited| waited.to_std())
            && task.attempts == 1
        {
            app.metrics.build_began(waited);
        }
        Self {
            metrics: app.metrics.clone(),
            trace: app.traces.task(task),
            began: Instant::now(),
            running: BTreeMap::new(),
            pushed: HashMap::new(),
            ended: false,
        }
    }

    /// The process begins with this.
    pub(super) fn source(&mut self, source: &Source) {
        if matches!(source, Source::Git(_)) {
            self.trace.clone_begins();
        }
    }

    /// Something happened.
    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::Commit { id } => self.trace.commit(id),
            Event::StepProgress {
                step,
                item,
                current,
                state,
                ..
            } => self.progress(*step, item, *current, *state),
            _ => {}
        }
    }

    /// A step began or ended.
    pub(super) fn step(&mut self, step: &Step) {
        if step.state == StepState::Running {
            self.running.insert(step.number, step.clone());
            return;
        }
        self.running.remove(&step.number);
        self.pushed.retain(|(id, _), _| id.0 != step.number);
        let took = Duration::from_millis(step.millis.unwrap_or_default());
        self.metrics
            .step_ended(StepKind::of(&step.name), step.state, took);
        self.trace.step(step);
    }

    /// So much was written into the log.
    pub(super) fn logged(&self, bytes: u64) {
        self.metrics.logged(bytes);
    }

    /// A transfer that begins anew counts from where it was.
    fn progress(&mut self, step: StepId, item: &str, current: u64, state: TransferState) {
        let running = self.running.get(&step.0);
        if running.is_none_or(|step| StepKind::of(&step.name) != StepKind::Push) {
            return;
        }
        let how = match state {
            TransferState::Moving | TransferState::Done => Transfer::Uploaded,
            TransferState::Mounted => Transfer::Mounted,
            TransferState::Exists => Transfer::Existing,
        };
        let before = self.pushed.entry((step, item.to_owned())).or_default();
        self.metrics.pushed(how, current.saturating_sub(*before));
        *before = current.max(*before);
    }

    /// The build ended, or was stopped without an outcome.
    pub(super) fn end(&mut self, judged: Result<&Outcome, &Stop>) {
        let end = match judged {
            Ok(outcome) => match outcome.failure() {
                Some((code, _)) => BuildEnd::Failed(code.as_str()),
                None => BuildEnd::Completed,
            },
            Err(Stop::LeaseLost) => BuildEnd::LeaseLost,
            Err(_) => BuildEnd::Released,
        };
        self.ended = true;
        self.metrics.build_ended(end, self.began.elapsed());
        for step in std::mem::take(&mut self.running).into_values() {
            self.trace.step(&step);
        }
        match (judged, end) {
            (Ok(outcome), _) => self.trace.outcome(outcome),
            (Err(_), BuildEnd::LeaseLost) => self.trace.given_up("lease_lost"),
            (Err(_), _) => self.trace.given_up("released"),
        }
    }
}

/// A build that nobody judged was given up with its service.
impl Drop for Observation {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Err(&Stop::Shutdown));
        }
    }
}
