//! The build process: reads one `BuildSpec`, builds, and prints what happens.
//!
//! It runs in a process of its own so that a build can be stopped, can run out of memory or
//! can crash without touching the service or its neighbours. It ends when it is told to
//! (SIGTERM) and when nobody listens to it any more.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use ocibuild::causes::one_line;
use ocibuild::registry::{Client, Credential, Credentials, Platform, Reference};
use ocibuild::{
    Build, Cancel, ContextSource, DockerfileSource, ErrorKind, Event, EventSink, Output, git,
};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::signal::unix::{SignalKind, signal};

use crate::spec::{Auth, BuildFailure, BuildResult, BuildSpec, FailureKind, Line, Report};

/// The largest description of a build that is read.
const SPEC_BYTES: u64 = 64 << 20;

/// Runs the build that `input` describes, writes its lines to `output`, and gives the exit
/// code: 0 for an image, 1 for a build that failed, 2 for a description that cannot be read.
///
/// This is all that the `worker` command does.
pub fn run_child(input: impl Read, output: impl Write + AsFd + Send + 'static) -> i32 {
    let spec = match read_spec(input) {
        Ok(spec) => spec,
        Err(failure) => return Reporter::new(output, Cancel::new()).end(Err(failure), 2),
    };
    let cancel = Cancel::new();
    if let Ok(watched) = output.as_fd().try_clone_to_owned() {
        cancel_without_reader(watched, cancel.clone());
    }
    let reporter = Reporter::new(output, cancel.clone());
    let events = reporter.events();
    let result = runtime().and_then(|runtime| {
        runtime.block_on(async {
            cancel_on_signal(cancel.clone())?;
            build(spec, events, cancel).await
        })
    });
    reporter.end(result, 1)
}

/// Carries the build out: the one place where the service meets the library.
async fn build(
    spec: BuildSpec,
    events: EventSink,
    cancel: Cancel,
) -> Result<BuildResult, BuildFailure> {
    let mut build = Build::new(ContextSource::Git(context(&spec)?), &spec.store)
        .client(client(&spec)?)
        .events(events)
        .cancel(cancel);
    if let Some(text) = spec.dockerfile {
        build = build.dockerfile(DockerfileSource::Text {
            name: "Dockerfile".to_owned(),
            text,
        });
    }
    if let Some(platform) = spec.platform {
        let platform = platform.parse::<Platform>();
        build = build.platform(platform.map_err(|error| user_failure(&error))?);
    }
    for destination in spec.destinations {
        let reference = destination.reference.parse::<Reference>();
        let reference = reference.map_err(|error| user_failure(&error))?;
        build = build
            .tag(reference.clone())
            .output(Output::Registry(reference));
    }
    let image = build.run().await.map_err(|error| BuildFailure {
        kind: kind(error.kind()),
        reason: one_line(&error),
    })?;
    Ok(BuildResult {
        digest: image.digest,
    })
}

fn context(spec: &BuildSpec) -> Result<git::GitSource, BuildFailure> {
    let source = git::GitSource::parse(&spec.source.url).map_err(|error| user_failure(&error))?;
    Ok(git::GitSource {
        reference: spec.source.reference.clone(),
        subdir: spec.source.subdir.clone(),
        token: spec.source.token.clone(),
        ..source
    })
}

fn client(spec: &BuildSpec) -> Result<Client, BuildFailure> {
    let mut credentials = match &spec.docker_config {
        Some(file) => {
            Credentials::from_docker_config_file(file).map_err(|error| failure(one_line(&error)))?
        }
        None => Credentials::anonymous(),
    };
    let mut plain = Vec::new();
    for destination in &spec.destinations {
        let host = destination.reference.split('/').next().unwrap_or_default();
        if destination.plain_http {
            plain.push(host.to_owned());
        }
        match &destination.auth {
            Auth::Configured => {}
            Auth::Google { key: Some(key) } => {
                let login = Credential::password("_json_key", key.expose());
                credentials = credentials.with(host, login);
            }
            Auth::Google { key: None } | Auth::Amazon { .. } => {
                return Err(unsupported_login(host));
            }
        }
    }
    Client::builder()
        .credentials(credentials)
        .plain_http(plain)
        .build()
        .map_err(|error| failure(one_line(&error)))
}

/// Signing in with the identity of a machine or with an Amazon key needs their own
/// protocols; a push that would be refused at its end is refused here.
fn unsupported_login(host: &str) -> BuildFailure {
    BuildFailure {
        kind: FailureKind::Registry,
        reason: format!(
            "signing in to {host} with a cloud identity is not supported yet: \
             give its login in OCIBUILD_DOCKER_CONFIG"
        ),
    }
}

fn kind(kind: ErrorKind) -> FailureKind {
    match kind {
        ErrorKind::User => FailureKind::User,
        ErrorKind::Command => FailureKind::Command,
        ErrorKind::Registry => FailureKind::Registry,
        ErrorKind::Sandbox => FailureKind::Sandbox,
        _ => FailureKind::Internal,
    }
}

fn user_failure(error: &dyn std::error::Error) -> BuildFailure {
    BuildFailure {
        kind: FailureKind::User,
        reason: one_line(error),
    }
}

fn read_spec(input: impl Read) -> Result<BuildSpec, BuildFailure> {
    serde_json::from_reader(input.take(SPEC_BYTES))
        .map_err(|error| failure(format!("cannot read the description of the build: {error}")))
}

fn runtime() -> Result<tokio::runtime::Runtime, BuildFailure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| failure(format!("cannot start threads: {error}")))
}

fn failure(reason: impl Into<String>) -> BuildFailure {
    BuildFailure {
        kind: FailureKind::Internal,
        reason: reason.into(),
    }
}

/// Cancels the build on SIGTERM, which the service sends before it kills.
fn cancel_on_signal(cancel: Cancel) -> Result<(), BuildFailure> {
    let mut signals = signal(SignalKind::terminate())
        .map_err(|error| failure(format!("cannot listen to signals: {error}")))?;
    tokio::spawn(async move {
        signals.recv().await;
        cancel.cancel();
    });
    Ok(())
}

/// Cancels the build when the other end of its output is closed: the service is gone, and
/// another one may be building the task already.
fn cancel_without_reader(output: OwnedFd, cancel: Cancel) {
    std::thread::spawn(move || {
        // No events are asked for; an error of the pipe is told all the same.
        let mut watched = [PollFd::new(&output, PollFlags::empty())];
        let mut waited = poll(&mut watched, None);
        while waited == Err(Errno::INTR) {
            waited = poll(&mut watched, None);
        }
        if waited.is_ok() {
            cancel.cancel();
        }
    });
}

/// Writes lines, from any thread.
struct Reporter<W> {
    output: Arc<Mutex<W>>,
    cancel: Cancel,
}

impl<W: Write + Send + 'static> Reporter<W> {
    fn new(output: W, cancel: Cancel) -> Self {
        Self {
            output: Arc::new(Mutex::new(output)),
            cancel,
        }
    }

    fn events(&self) -> EventSink {
        let (output, cancel) = (Arc::clone(&self.output), self.cancel.clone());
        EventSink::new(move |event: Event| {
            if write_line(&output, &Line::Event(event)).is_err() {
                cancel.cancel();
            }
        })
    }

    /// Writes the report and gives the exit code, which for a failure is `failed`.
    fn end(self, result: Result<BuildResult, BuildFailure>, failed: i32) -> i32 {
        let (report, code) = match result {
            Ok(result) => (Report::Completed(result), 0),
            Err(failure) => (Report::Failed(failure), failed),
        };
        // A report that nobody reads is no success.
        if write_line(&self.output, &Line::Report(report)).is_err() {
            failed
        } else {
            code
        }
    }
}

fn write_line<W: Write>(output: &Mutex<W>, line: &Line) -> std::io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
    output.write_all(&text)?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_description_is_reported() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        assert_eq!(run_child(&b"{}"[..], writer), 2);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let report: Line = serde_json::from_str(&text).unwrap();
        let Line::Report(Report::Failed(failure)) = report else {
            panic!("{text}")
        };
        assert!(
            failure
                .reason
                .starts_with("cannot read the description of the build")
        );
    }

    #[test]
    fn a_report_that_nobody_reads_is_no_success() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
        let result = BuildResult { digest };
        assert_eq!(Reporter::new(writer, Cancel::new()).end(Ok(result), 1), 1);
    }

    #[tokio::test]
    async fn a_build_ends_when_nobody_listens() {
        let (reader, writer) = std::io::pipe().unwrap();
        let cancel = Cancel::new();
        cancel_without_reader(writer.into(), cancel.clone());
        assert!(!cancel.is_cancelled());
        drop(reader);
        cancel.cancelled().await;
    }
}
