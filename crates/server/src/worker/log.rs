//! The log of one build: its parameters, its Dockerfile, what every step did, how it ended.
//!
//! Steps may run side by side, so every line names its step by number. Nothing is written
//! that the redactor has not seen. A log that cannot be written does not fail a build, and
//! one that is full only gets its last line.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::time::Duration;

use ocibuild::{Event, LayerSummary, StepId};
use ocibuild_store::{Outcome, Task, TaskId};

use super::redact::Redactor;
use crate::logs::LogFolder;
use crate::spec::BuildSpec;

/// Writes the log of one build.
pub(super) struct TaskLog {
    task: TaskId,
    /// Writes are small and go to the page cache, so they are done in place. None when the
    /// file could not be opened or written.
    file: Option<BufWriter<File>>,
    redactor: Redactor,
    /// How many bytes may still be written.
    room: u64,
}

impl TaskLog {
    /// Opens the log of a task, behind what stands there.
    pub(super) fn open(folder: &LogFolder, task: &TaskId, limit: u64) -> Self {
        let mut log = Self {
            task: task.clone(),
            file: None,
            redactor: Redactor::default(),
            room: limit,
        };
        match folder.append(task) {
            Ok(file) => log.file = Some(BufWriter::new(file)),
            Err(error) => log.give_up(&error),
        }
        log
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
        let source = &spec.source;
        self.line("<----- Input Parameters ----->");
        self.line(&format!("Application: {}", task.app_name));
        self.line(&format!("Repository:  {}", source.url));
        self.line(&format!(
            "Branch:      {}",
            source.reference.as_deref().unwrap_or("(default)")
        ));
        self.line(&format!(
            "Directory:   {}",
            source.subdir.as_deref().unwrap_or("(root)")
        ));
        for destination in &spec.destinations {
            self.line(&format!("Image:       {}", destination.reference));
        }
        if task.attempts > 1 {
            self.line(&format!("Attempt:     {}", task.attempts));
        }
        self.flush();
    }

    /// Writes what happened.
    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::StepStarted { step, name } => self.line(&format!("{} {name}", number(*step))),
            Event::StepLog { step, line, .. } => self.line(&format!("{} | {line}", number(*step))),
            // It is for terminals: in a file it would bury what matters.
            Event::StepProgress { .. } => {}
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
            Event::Commit { id } => self.line(&format!("Commit:      {id}")),
            Event::Dockerfile { name, text } => self.dockerfile(name, text),
            Event::Warning { message } => self.line(&format!("WARNING: {message}")),
            Event::Pushed { reference, digest } => {
                self.line(&format!("Pushed {reference}@{digest}"));
            }
            other => tracing::debug!(?other, "an event that the log does not know"),
        }
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
        let took = seconds(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        let line = match outcome {
            Outcome::Completed { digest, .. } => format!("Build completed in {took}: {digest}"),
            Outcome::Failed { reason, .. } => format!("Build failed after {took}: {reason}"),
        };
        self.room = u64::MAX;
        self.line(&line);
        self.flush();
    }

    /// Writes a line, without its secrets, as long as there is room.
    pub(super) fn line(&mut self, text: &str) {
        let text = self.redactor.redact(text);
        let length = text.len() as u64 + 1;
        let Some(file) = &mut self.file else { return };
        if self.room == 0 {
            return;
        }
        let written = if length > self.room {
            self.room = 0;
            writeln!(file, "The log has reached its limit; the rest is left out")
        } else {
            self.room -= length;
            writeln!(file, "{text}")
        };
        if let Err(error) = written {
            self.give_up(&error);
        }
    }

    /// Shows readers everything that was written.
    pub(super) fn flush(&mut self) {
        if let Some(Err(error)) = self.file.as_mut().map(Write::flush) {
            self.give_up(&error);
        }
    }

    fn give_up(&mut self, error: &io::Error) {
        tracing::error!(task = %self.task, %error, "the log cannot be written");
        self.file = None;
    }
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

    use super::*;

    fn written(limit: u64, write: impl FnOnce(&mut TaskLog)) -> String {
        let folder = tempfile::tempdir().unwrap();
        let logs = LogFolder::new(folder.path().to_owned());
        let task = TaskId::random();
        let mut log = TaskLog::open(&logs, &task, limit);
        write(&mut log);
        drop(log);
        std::fs::read_to_string(logs.path(&task)).unwrap()
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
             #2 [stage 2/2] RUN b\n#2 | hello\n#2 DONE 1.2s, layer {a} 1.2 MB\n#3 CACHED\n\
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
            let outcome = Outcome::Failed {
                reason: "too long".to_owned(),
                commit: None,
            };
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
            let outcome = Outcome::Failed {
                reason: "bad hidden".to_owned(),
                commit: None,
            };
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
