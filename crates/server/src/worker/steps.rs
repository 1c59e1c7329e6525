//! The steps of one build, as its events tell them.

use std::collections::BTreeMap;
use std::time::Duration;

use ocibuild::{Event, StepId};
use ocibuild_store::{Step, StepState};

use super::log::millis;

/// The steps that are being carried out.
#[derive(Debug, Default)]
pub(super) struct Steps {
    running: BTreeMap<StepId, Running>,
}

#[derive(Debug)]
struct Running {
    name: String,
    began: Duration,
    /// When its progress was last told.
    told: Duration,
}

impl Steps {
    /// Takes note of an event; gives the step that it changes. Times count from the
    /// beginning of the build.
    pub(super) fn event(&mut self, event: &Event, now: Duration) -> Option<Step> {
        match event {
            Event::StepStarted { step, name } => {
                let running = Running {
                    name: name.clone(),
                    began: now,
                    told: now,
                };
                let started = running.step(*step, StepState::Running);
                self.running.insert(*step, running);
                Some(started)
            }
            Event::StepDone {
                step,
                cached,
                millis,
                layer,
            } => {
                let state = if *cached {
                    StepState::Cached
                } else {
                    StepState::Done
                };
                let done = self.take(*step, now, *millis);
                Some(Step {
                    millis: Some(*millis),
                    layer: layer.as_ref().map(|layer| layer.digest.to_string()),
                    layer_size: layer.as_ref().map(|layer| layer.size),
                    ..done.step(*step, state)
                })
            }
            Event::StepFailed {
                step,
                error,
                millis,
            } => {
                let failed = self.take(*step, now, *millis);
                Some(Step {
                    millis: Some(*millis),
                    error: Some(error.clone()),
                    ..failed.step(*step, StepState::Failed)
                })
            }
            _ => None,
        }
    }

    /// Ends every step that is still being carried out: the build is over.
    pub(super) fn abandon(&mut self, now: Duration) -> Vec<Step> {
        let abandoned = std::mem::take(&mut self.running).into_iter();
        let failed = abandoned.map(|(id, running)| Step {
            millis: Some(millis(now.saturating_sub(running.began))),
            error: Some("the build ended".to_owned()),
            ..running.step(id, StepState::Failed)
        });
        failed.collect()
    }

    /// Tells whether a step has not told its progress for `pause`; then it does now.
    pub(super) fn progress_is_due(&mut self, step: StepId, now: Duration, pause: Duration) -> bool {
        let Some(running) = self.running.get_mut(&step) else {
            return false;
        };
        let due = now.saturating_sub(running.told) >= pause;
        if due {
            running.told = now;
        }
        due
    }

    /// Lists what is being carried out, and for how long.
    pub(super) fn running(&self, now: Duration) -> Vec<(StepId, Duration)> {
        let took = |running: &Running| now.saturating_sub(running.began);
        let steps = self.running.iter();
        steps
            .map(|(step, running)| (*step, took(running)))
            .collect()
    }

    /// Ends a step. One that nobody announced began when its time says.
    fn take(&mut self, step: StepId, now: Duration, millis: u64) -> Running {
        self.running.remove(&step).unwrap_or_else(|| Running {
            name: String::new(),
            began: now.saturating_sub(Duration::from_millis(millis)),
            told: now,
        })
    }
}

impl Running {
    fn step(&self, id: StepId, state: StepState) -> Step {
        Step {
            number: id.0,
            name: self.name.clone(),
            state,
            begin_millis: millis(self.began),
            millis: None,
            layer: None,
            layer_size: None,
            error: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn started(step: u32) -> Event {
        Event::StepStarted {
            step: StepId(step),
            name: format!("step {step}"),
        }
    }

    #[test]
    fn a_step_goes_from_running_to_its_end() {
        let mut steps = Steps::default();
        let begun = steps.event(&started(1), SECOND).unwrap();
        assert_eq!(
            (begun.state, begun.begin_millis),
            (StepState::Running, 1000)
        );
        assert_eq!(steps.running(3 * SECOND), [(StepId(1), 2 * SECOND)]);
        let done = Event::StepDone {
            step: StepId(1),
            cached: true,
            millis: 2000,
            layer: None,
        };
        let done = steps.event(&done, 3 * SECOND).unwrap();
        assert_eq!((done.state, done.millis), (StepState::Cached, Some(2000)));
        assert_eq!((done.name.as_str(), done.begin_millis), ("step 1", 1000));
        assert_eq!(steps.running(3 * SECOND), []);
    }

    #[test]
    fn an_end_without_a_beginning_is_placed_by_its_time() {
        let failed = Event::StepFailed {
            step: StepId(7),
            error: "exit 1".to_owned(),
            millis: 400,
        };
        let failed = Steps::default().event(&failed, SECOND).unwrap();
        assert_eq!((failed.begin_millis, failed.millis), (600, Some(400)));
        assert_eq!(failed.error.as_deref(), Some("exit 1"));
    }

    #[test]
    fn no_step_outlives_its_build() {
        let mut steps = Steps::default();
        steps.event(&started(4), SECOND);
        let [abandoned] = &steps.abandon(3 * SECOND)[..] else {
            panic!("there was one step")
        };
        assert_eq!((abandoned.number, abandoned.state), (4, StepState::Failed));
        assert_eq!(abandoned.millis, Some(2000));
        assert_eq!(steps.abandon(3 * SECOND), []);
    }

    #[test]
    fn progress_is_told_now_and_then() {
        let mut steps = Steps::default();
        steps.event(&started(1), Duration::ZERO);
        let mut due = |step, now| steps.progress_is_due(StepId(step), now, 5 * SECOND);
        assert!(!due(1, 4 * SECOND));
        assert!(due(1, 5 * SECOND));
        assert!(!due(1, 6 * SECOND));
        assert!(due(1, 10 * SECOND));
        assert!(!due(2, 100 * SECOND), "nobody knows that step");
    }
}
