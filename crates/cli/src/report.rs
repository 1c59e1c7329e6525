//! Shows the events of a build: as lines, as JSON, or on a terminal with a line that
//! changes. Everything goes to standard error, so that standard output stays for results.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::Instant;

use ocibuild::{Event, EventSink, LayerSummary, StepId};

use crate::args::Progress;
use crate::sizes::size;
use crate::warnings;

/// Gives a sink that shows events as asked for.
pub(crate) fn sink(progress: Progress, quiet: bool) -> EventSink {
    if quiet {
        return EventSink::none();
    }
    let on_terminal = std::io::stderr().is_terminal();
    match progress {
        Progress::Json => EventSink::new(json),
        Progress::Auto if !on_terminal => lines(false),
        Progress::Plain => lines(false),
        Progress::Tty | Progress::Auto => lines(true),
    }
}

fn json(event: Event) {
    if let Ok(line) = serde_json::to_string(&event) {
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }
}

fn lines(terminal: bool) -> EventSink {
    let shown = Mutex::new(Lines {
        terminal,
        started: Instant::now(),
        names: HashMap::new(),
        status_shown: false,
    });
    EventSink::new(move |event| {
        let mut lines = shown
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        lines.show(&event);
    })
}

struct Lines {
    /// Keeps a last line that tells what runs now.
    terminal: bool,
    started: Instant,
    names: HashMap<StepId, String>,
    status_shown: bool,
}

impl Lines {
    fn show(&mut self, event: &Event) {
        let mut text = String::new();
        if self.status_shown {
            text.push_str("\r\x1b[K");
        }
        if let Some(line) = self.line(event) {
            text.push_str(&line);
            text.push('\n');
        }
        let status = self.status();
        self.status_shown = !status.is_empty();
        text.push_str(&status);
        // A closed terminal is no reason to fail the build.
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }

    fn line(&mut self, event: &Event) -> Option<String> {
        match event {
            Event::StepStarted { step, name } => {
                self.names.insert(*step, name.clone());
                Some(format!("#{} {name}", step.0))
            }
            Event::StepLog { step, line, .. } => {
                let seconds = self.started.elapsed().as_secs_f64();
                Some(format!("#{} {seconds:.3} {line}", step.0))
            }
            Event::StepDone {
                step,
                cached,
                millis,
                layer,
            } => {
                self.names.remove(step);
                Some(done(*step, *cached, *millis, layer.as_ref()))
            }
            Event::StepMissed { step, why } => Some(format!("#{} NOT CACHED: {why}", step.0)),
            Event::StepFailed { step, error, .. } => {
                self.names.remove(step);
                Some(format!("#{} ERROR: {error}", step.0))
            }
            Event::Commit { id } => Some(format!("commit {id}")),
            Event::Warning { message } => Some(format!("warning: {message}")),
            Event::Check(warning) => {
                let text = warnings::render(warning, self.terminal);
                Some(text.trim_end().to_owned())
            }
            Event::Pushed { reference, digest } => Some(format!("pushed {reference}@{digest}")),
            _ => None,
        }
    }

    fn status(&self) -> String {
        if !self.terminal || self.names.is_empty() {
            return String::new();
        }
        let mut running: Vec<_> = self.names.iter().collect();
        running.sort_by_key(|(step, _)| **step);
        let names: Vec<&str> = running.iter().map(|(_, name)| name.as_str()).collect();
        let text = format!(
            "[+] {:.0}s {}",
            self.started.elapsed().as_secs_f64(),
            names.join(" | ")
        );
        text.chars().take(100).collect()
    }
}

fn done(step: StepId, cached: bool, millis: u64, layer: Option<&LayerSummary>) -> String {
    if cached {
        return format!("#{} CACHED", step.0);
    }
    let seconds = millis as f64 / 1000.0;
    match layer {
        Some(layer) => format!(
            "#{} DONE {seconds:.1}s, layer of {}",
            step.0,
            size(layer.size)
        ),
        None => format!("#{} DONE {seconds:.1}s", step.0),
    }
}
