//! The log of one build: its parameters, its Dockerfile, what every step did, how it ended.
//!
//! Steps may run side by side, so every line names its step by number. Nothing is written
//! that the redactor has not seen. A log that cannot be written does not fail a build, and
//! one that is full only gets its last line.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::time::{Duration, Instant};

use ocibuild::{Event, LayerSummary, StepId, TransferState};
use ocibuild_store::{Outcome, Task, TaskId};

use super::observation::Observation;
use super::process::Stop;
use super::recorder::Record;
use super::redact::Redactor;
use super::steps::Steps;
use crate::spec::{BuildSpec, Source};

/// How often a transfer says how far it is.
const PROGRESS: Duration = Duration::from_secs(5);

/// Writes the log of one build.
pub(super) struct TaskLog {
    task: TaskId,
    /// Writes are small and go to the page cache, so they are done in place. None when the
    /// file could not be written.
    file: Option<BufWriter<File>>,
    /// How long the log is in its file, and how long it will be when all is flushed.
    length: u64,
    record: Record,
    redactor: Redactor,
    observation: Option<Observation>,
    /// How many bytes may still be written.
    room: u64,
    began: Instant,
    /// When something was last written.
    spoke: Instant,
    /// How long nothing is written before the log says that the build is still alive.
    silence: Duration,
    steps: Steps,
}

impl TaskLog {
    /// Writes behind the `length` bytes that a file has already, up to `limit` bytes.
    pub(super) fn new(
        task: &TaskId,
        file: Option<File>,
        length: u64,
        limit: u64,
        record: Record,
    ) -> Self {
        let now = Instant::now();
        Self {
            task: task.clone(),
            file: file.map(BufWriter::new),
            length,
            record,
            redactor: Redactor::default(),
            observation: None,
            room: limit,
            began: now,
            spoke: now,
            silence: Duration::MAX,
            steps: Steps::default(),
        }
    }

    /// Passes on what happens to an observer, from now on.
    pub(super) fn observe(&mut self, observation: Observation) {
        self.observation = Some(observation);
    }

    /// Tells the observer how the build ended, if it has an outcome.
    pub(super) fn judged(&mut self, judged: Result<&Outcome, &Stop>) {
        if let Some(observation) = &mut self.observation {
            observation.end(judged);
        }
    }

    /// Says that the build is still alive whenever nothing was written for so long.
    pub(super) fn break_silence(&mut self, after: Duration) {
        self.silence = after;
    }

    /// Gives how often the silence is to be measured.
    pub(super) fn pulse(&self) -> Duration {
        self.silence / 6
    }

    /// Names what must not be seen from now on.
    pub(super) fn hide(&mut self, redactor: Redactor) {
        self.redactor = redactor;
    }

    /// Gives a text as it may be shown.
    pub(super) fn redact(&self, text: &str) -> String {
        self.redactor.redact(text).into_owned()
    }

    /// Writes the parameters of the build.
    pub(super) fn begin(&mut self, task: &Task, spec: &BuildSpec) {
        self.line("<----- Input Parameters ----->");
        self.line(&format!("Application: {}", task.app_name));
        self.source(&spec.source);
        for destination in &spec.destinations {
            self.line(&format!("Image:       {}", destination.reference));
        }
        if let Some(observation) = &mut self.observation {
            observation.source(&spec.source);
        }
        if task.attempts > 1 {
            self.line(&format!("Attempt:     {}", task.attempts));
        }
        self.flush();
    }

    fn source(&mut self, source: &Source) {
        match source {
            Source::Git(git) => {
                self.line(&format!("Repository:  {}", git.url));
                let branch = git.reference.as_deref().unwrap_or("(default)");
                self.line(&format!("Branch:      {branch}"));
                let directory = git.subdir.as_deref().unwrap_or("(root)");
                self.line(&format!("Directory:   {directory}"));
            }
            Source::Http { url } => self.line(&format!("Context:     {url}")),
            Source::Oci { reference } => self.line(&format!("Context:     oci://{reference}")),
            Source::Upload { context, .. } => self.line(&format!("Context:     {context}")),
            Source::Empty => self.line("Context:     (none)"),
            Source::Image { reference } => self.line(&format!("Pushed from: {reference}")),
        }
    }

    /// Writes what happened.
    pub(super) fn event(&mut self, event: &Event) {
        let now = self.began.elapsed();
        if let Some(observation) = &mut self.observation {
            observation.event(event);
        }
        if let Some(mut step) = self.steps.event(event, now) {
            step.name = self.redact(&step.name);
            step.error = step.error.map(|error| self.redact(&error));
            if let Some(observation) = &mut self.observation {
                observation.step(&step);
            }
            self.record.step(step);
        }
        match event {
            Event::StepStarted { step, name } => self.line(&format!("{} {name}", number(*step))),
            Event::StepLog { step, line, .. } => self.line(&format!("{} | {line}", number(*step))),
            Event::StepProgress {
                step,
                item,
                current,
                total,
                state,
            } => self.progress(*step, item, *current, *total, *state),
            Event::StepDone {
                step, cached: true, ..
            } => {
                self.line(&format!("{} CACHED", number(*step)));
            }
            Event::StepDone {
                step,
                millis,
                layer,
                ..
            } => {
                let layer = layer.as_ref().map(layer_text).unwrap_or_default();
                self.line(&format!(
                    "{} DONE {}{layer}",
                    number(*step),
                    seconds(*millis)
                ));
            }
            Event::StepFailed {
                step,
                error,
                millis,
            } => {
                self.line(&format!(
                    "{} ERROR after {}: {error}",
                    number(*step),
                    seconds(*millis)
                ));
            }
            Event::Commit { id } => {
                self.line(&format!("Commit:      {id}"));
                self.record.commit(id);
            }
            Event::Dockerfile { name, text } => self.dockerfile(name, text),
            Event::Warning { message } => self.line(&format!("WARNING: {message}")),
            Event::Check(warning) => self.line(&format!("WARNING: {warning}")),
            Event::Pushed {
                reference, digest, ..
            } => self.line(&format!("Pushed {reference}@{digest}")),
            other => {
                tracing::debug!(task = %self.task, ?other, "an event that the log does not know")
            }
        }
    }

    /// Says how a transfer ended, and before that how far it is, but not so often that it
    /// buries what matters.
    fn progress(
        &mut self,
        step: StepId,
        item: &str,
        current: u64,
        total: u64,
        state: TransferState,
    ) {
        let ended = match state {
            TransferState::Moving => None,
            TransferState::Done => Some("done"),
            TransferState::Exists => Some("exists"),
            TransferState::Mounted => Some("mounted"),
        };
        if let Some(ended) = ended {
            let total = size(total);
            return self.line(&format!("{} {item} {total} {ended}", number(step)));
        }
        if !self
            .steps
            .progress_is_due(step, self.began.elapsed(), PROGRESS)
        {
            return;
        }
        let of = match total {
            0 => String::new(),
            total => format!(" / {}", size(total)),
        };
        self.line(&format!("{} {item} {}{of}", number(step), size(current)));
    }

    /// Says which steps are still being carried out, if nothing else was said for long.
    pub(super) fn still_alive(&mut self) {
        if self.spoke.elapsed() < self.silence {
            return;
        }
        let now = self.began.elapsed();
        let running = self.steps.running(now);
        if running.is_empty() {
            self.line(&format!("Still at work after {}", seconds(millis(now))));
        }
        for (step, took) in running {
            let took = seconds(millis(took));
            self.line(&format!("{} still running after {took}", number(step)));
        }
        self.flush();
    }

    fn dockerfile(&mut self, name: &str, text: &str) {
        self.line(&format!("<----- Dockerfile contents ({name}) ----->"));
        for (index, line) in text.lines().enumerate() {
            self.line(&format!("{:4} | {line}", index + 1));
        }
        self.line("<----- Logs ----->");
    }

    /// Writes how the build ended. This line always finds room.
    pub(super) fn end(&mut self, outcome: &Outcome, took: Duration) {
        for mut step in self.steps.abandon(self.began.elapsed()) {
            step.name = self.redact(&step.name);
            self.record.step(step);
        }
        let took = seconds(millis(took));
        let line = match (outcome.digest(), outcome.failure()) {
            (Some(digest), _) => format!("Build completed in {took}: {digest}"),
            (None, failure) => {
                let reason = failure.map(|(_, reason)| reason).unwrap_or_default();
                format!("Build failed after {took}: {reason}")
            }
        };
        self.last_line(&line);
    }

    /// Writes a line that finds room in a full log, and shows it.
    pub(super) fn last_line(&mut self, text: &str) {
        self.room = u64::MAX;
        self.line(text);
        self.flush();
    }

    /// Writes a line, without its secrets, as long as there is room.
    pub(super) fn line(&mut self, text: &str) {
        self.spoke = Instant::now();
        if self.room == 0 {
            return;
        }
        let text = self.redactor.redact(text);
        let length = text.len() as u64 + 1;
        if length > self.room {
            self.room = 0;
            self.write("The log has reached its limit; the rest is left out");
        } else {
            self.room -= length;
            self.write(&text);
        }
    }

    fn write(&mut self, text: &str) {
        let Some(file) = &mut self.file else { return };
        match writeln!(file, "{text}") {
            Ok(()) => {
                let bytes = text.len() as u64 + 1;
                self.length += bytes;
                if let Some(observation) = &self.observation {
                    observation.logged(bytes);
                }
            }
            Err(error) => self.give_up(&error),
        }
    }

    /// Shows readers everything that was written.
    pub(super) fn flush(&mut self) {
        match self.file.as_mut().map(Write::flush) {
            Some(Ok(())) => self.record.grew(self.length),
            Some(Err(error)) => self.give_up(&error),
            None => {}
        }
    }

    fn give_up(&mut self, error: &io::Error) {
        tracing::error!(task = %self.task, %error, "the log cannot be written");
        self.file = None;
    }
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn number(step: StepId) -> String {
    format!("#{}", step.0)
}

fn seconds(millis: u64) -> String {
    format!("{}.{}s", millis / 1000, millis % 1000 / 100)
}

fn layer_text(layer: &LayerSummary) -> String {
    format!(", layer {} {}", layer.digest, size(layer.size))
}

/// Writes a size with three digits or so, in decimal units.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn size(bytes: u64) -> String {
    let amount = bytes as f64;
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", amount / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", amount / 1e6),
        _ => format!("{:.2} GB", amount / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use ocibuild::Stream;
    use ocibuild_registry::Secret;
    use ocibuild_store::{End, FailureCode};

    use super::*;

    fn written(limit: u64, write: impl FnOnce(&mut TaskLog)) -> String {
        let folder = tempfile::tempdir().unwrap();
        let logs = crate::logs::LogFolder::new(folder.path().to_owned());
        let task = TaskId::random();
        let file = logs.begin(&task, b"").unwrap();
        let mut log = TaskLog::new(&task, Some(file), 0, limit, Record::new(0));
        write(&mut log);
        drop(log);
        std::fs::read_to_string(logs.path(&task)).unwrap()
    }

    fn failed(reason: &str) -> Outcome {
        Outcome {
            end: End::Failed {
                code: FailureCode::User,
                reason: reason.to_owned(),
            },
            commit: None,
            pushed: Vec::new(),
        }
    }

    fn digest(digit: char) -> ocibuild_registry::Digest {
        format!("sha256:{}", digit.to_string().repeat(64))
            .parse()
            .unwrap()
    }

    #[test]
    fn events_become_lines() {
        let step = StepId(2);
        let layer = LayerSummary {
            digest: digest('a'),
            size: 1_234_567,
            diff_id: digest('b'),
        };
        let text = written(u64::MAX, |log| {
            for event in [
                Event::Commit {
                    id: "c0ffee".to_owned(),
                },
                Event::Dockerfile {
                    name: "Dockerfile".to_owned(),
                    text: "FROM a\nRUN b\n".to_owned(),
                },
                Event::StepStarted {
                    step,
                    name: "[stage 2/2] RUN b".to_owned(),
                },
                Event::StepLog {
                    step,
                    stream: Stream::Stderr,
                    line: "hello".to_owned(),
                },
                Event::StepProgress {
                    step,
                    item: "x".to_owned(),
                    current: 1,
                    total: 2,
                    state: TransferState::Moving,
                },
                Event::StepProgress {
                    step,
                    item: "y".to_owned(),
                    current: 1500,
                    total: 1500,
                    state: TransferState::Mounted,
                },
                Event::StepDone {
                    step,
                    cached: false,
                    millis: 1234,
                    layer: Some(layer),
                },
                Event::StepDone {
                    step: StepId(3),
                    cached: true,
                    millis: 0,
                    layer: None,
                },
                Event::StepFailed {
                    step,
                    error: "exit 1".to_owned(),
                    millis: 50,
                },
                Event::Warning {
                    message: "old".to_owned(),
                },
                Event::Pushed {
                    reference: "localhost/a:b".to_owned(),
                    digest: digest('c'),
                },
            ] {
                log.event(&event);
            }
        });
        let (a, c) = (digest('a'), digest('c'));
        let expected = format!(
            "Commit:      c0ffee\n\
             <----- Dockerfile contents (Dockerfile) ----->\n   1 | FROM a\n   2 | RUN b\n\
             <----- Logs ----->\n\
             #2 [stage 2/2] RUN b\n#2 | hello\n#2 y 1.5 kB mounted\n#2 DONE 1.2s, layer {a} 1.2 MB\n#3 CACHED\n\
             #2 ERROR after 0.0s: exit 1\nWARNING: old\nPushed localhost/a:b@{c}\n"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn a_full_log_still_says_how_it_ended() {
        let text = written(20, |log| {
            log.line("0123456789");
            log.line("0123456789");
            log.line("x");
            let outcome = failed("too long");
            log.end(&outcome, Duration::from_millis(1500));
        });
        assert_eq!(
            text,
            "0123456789\nThe log has reached its limit; the rest is left out\n\
             Build failed after 1.5s: too long\n"
        );
    }

    #[test]
    fn secrets_are_never_written() {
        let text = written(u64::MAX, |log| {
            log.hide(Redactor::new([Secret::new("hidden")].iter()));
            let line = "remote: hidden".to_owned();
            log.event(&Event::StepLog {
                step: StepId(1),
                stream: Stream::Stdout,
                line,
            });
            let outcome = failed("bad hidden");
            log.end(&outcome, Duration::ZERO);
        });
        assert_eq!(
            text,
            "#1 | remote: ****\nBuild failed after 0.0s: bad ****\n"
        );
    }

    #[test]
    fn sizes_are_readable() {
        let sizes = [0, 999, 1_000, 12_300_000, 4_560_000_000].map(size);
        assert_eq!(sizes, ["0 B", "999 B", "1.0 kB", "12.3 MB", "4.56 GB"]);
    }
}
