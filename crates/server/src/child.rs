//! The build process: reads one `BuildSpec`, builds, and prints what happens.
//!
//! It runs in a process of its own so that a build can be stopped, can run out of memory or
//! can crash without touching the service or its neighbours. It ends when it is told to
//! (SIGTERM) and when nobody listens to it any more.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use ocibuild::causes::one_line;
use ocibuild::content::StoreLimits;
use ocibuild::executor::Choice;
use ocibuild::net::AddressPolicy;
use ocibuild::registry::{
    AccessKey, AwsKeys, Client, CloudEnvironment, Copy, Credential, Credentials, EcrLogin,
    EcrSettings, GoogleLogin, Platform, Progress, Reference, Registries as RegistrySettings,
};
use ocibuild::{
    Build, CacheMode, CachePlace, CacheSource, CacheTarget, Cancel, ContextSource,
    DockerfileSource, ErrorKind, Event, EventSink, Output, StepId, git,
};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::signal::unix::{SignalKind, signal};

use crate::spec::{
    Auth, BuildFailure, BuildResult, BuildSpec, DenyAddresses, DockerfileSpec, FailureKind,
    GitRules, GitSource, Line, Report, Source,
};

/// The largest description of a build that is read.
const SPEC_BYTES: u64 = 64 << 20;

/// Runs the build that `input` describes, writes its lines to `output`, and gives the exit
/// code: 0 for an image, 1 for a build that failed, 2 for a description that cannot be read.
///
/// This is all that the `worker` command does.
pub fn run_child(input: impl Read, output: impl Write + AsFd + Send + 'static) -> i32 {
    volunteer();
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

/// Where OpenSSH is on every distribution; the environment of a build process names no other.
const SSH: &str = "/usr/bin/ssh";

/// Carries the build out: the one place where the service meets the library.
async fn build(
    spec: BuildSpec,
    events: EventSink,
    cancel: Cancel,
) -> Result<BuildResult, BuildFailure> {
    let client = client(&spec)?;
    if let Source::Image { reference } = &spec.source {
        return copy(&spec, &client, reference, &events).await;
    }
    let mut build = Build::new(context(&spec)?, &spec.store);
    if let Some(ssh) = &spec.git.ssh {
        let known = git::Ssh::new(SSH).known_hosts(&ssh.known_hosts);
        build = build.git_ssh(known.key(&ssh.key));
    }
    let mut build = build
        .git_policy(git_policy(&spec.git)?)
        .client(client)
        .events(events)
        .cancel(cancel)
        .dockerfile(match spec.dockerfile {
            DockerfileSpec::Path(path) => DockerfileSource::InContext(path),
            DockerfileSpec::Text(text) => DockerfileSource::Text {
                name: "Dockerfile".to_owned(),
                text,
            },
        });
    for (name, value) in spec.args {
        build = build.build_arg(name, value);
    }
    for (name, value) in spec.labels {
        build = build.label(name, value);
    }
    for secret in spec.secrets {
        let content = ocibuild::Secret::bytes(secret.value.expose());
        build = build.secret(secret.id, content);
    }
    if let Some(scope) = spec.cache_scope {
        build = build.cache_scope(scope);
    }
    if let Some(target) = spec.target {
        build = build.target(target);
    }
    if spec.no_cache {
        build = build.no_cache();
    }
    for name in &spec.cache_from {
        build = build.cache_from(CacheSource::Registry(reference(name)?));
    }
    let mode = match spec.cache_all_steps {
        true => CacheMode::Max,
        false => CacheMode::Min,
    };
    for name in &spec.cache_to {
        let place = CachePlace::Registry(reference(name)?);
        build = build.cache_to(CacheTarget::new(place, mode));
    }
    build = build.store_limits(StoreLimits {
        max_bytes: spec.store_max,
        min_free: spec.store_min_free,
    });
    if let Some(name) = spec.sandbox {
        let choice = name.parse::<Choice>();
        build = build.sandbox(choice.map_err(|error| failure(one_line(&error)))?);
    }
    let platforms = spec.platforms.iter().map(|text| text.parse::<Platform>());
    let platforms = platforms.collect::<Result<Vec<_>, _>>();
    build = build.platforms(platforms.map_err(|error| user_failure(&error))?);
    let form = spec
        .output
        .to_form()
        .map_err(|error| user_failure(&error))?;
    build = build.form(form);
    for destination in spec.destinations {
        let reference = reference(&destination.reference)?;
        build = build.output(Output::Registry(reference));
    }
    let image = build.run().await.map_err(|error| BuildFailure {
        kind: kind(error.kind()),
        reason: one_line(&error),
    })?;
    Ok(BuildResult {
        digest: image.digest,
    })
}

/// Pushes an image of a registry under other names; nothing is built.
async fn copy(
    spec: &BuildSpec,
    client: &Client,
    source: &str,
    events: &EventSink,
) -> Result<BuildResult, BuildFailure> {
    let from = reference(source)?;
    let mut result = None;
    for (step, destination) in (1..).map(StepId).zip(&spec.destinations) {
        let to = reference(&destination.reference)?;
        events.emit(Event::StepStarted {
            step,
            name: format!("pushing {to}"),
        });
        let began = Instant::now();
        let progress = Progress::none();
        let copied = client.copy(&from, &to, &Copy::default(), &progress).await;
        let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let copied = copied.map_err(|error| {
            let reason = one_line(&error);
            events.emit(Event::StepFailed {
                step,
                error: reason.clone(),
                millis,
            });
            BuildFailure {
                kind: FailureKind::Registry,
                reason,
            }
        })?;
        let digest = copied.digest;
        events.emit(Event::StepDone {
            step,
            cached: false,
            millis,
            layer: None,
        });
        events.emit(Event::Pushed {
            reference: client.reported_name(&to).to_string(),
            digest,
        });
        result = Some(BuildResult { digest });
    }
    result.ok_or_else(|| failure("there is nowhere to push to"))
}

fn reference(name: &str) -> Result<Reference, BuildFailure> {
    name.parse().map_err(|error| user_failure(&error))
}

fn context(spec: &BuildSpec) -> Result<ContextSource, BuildFailure> {
    match &spec.source {
        Source::Git(source) => Ok(ContextSource::Git(git_source(source)?)),
        Source::Http { url } => Ok(ContextSource::Http(url.clone())),
        Source::Oci { reference: name } => Ok(ContextSource::OciArtifact(reference(name)?)),
        Source::Upload { file, .. } => {
            let file = std::fs::File::open(file)
                .map_err(|error| failure(format!("cannot open the uploaded context: {error}")))?;
            Ok(ContextSource::Tar(Box::new(file)))
        }
        Source::Empty | Source::Image { .. } => Ok(ContextSource::Empty),
    }
}

fn git_source(source: &GitSource) -> Result<git::GitSource, BuildFailure> {
    let parsed = git::GitSource::parse(&source.url).map_err(|error| user_failure(&error))?;
    Ok(git::GitSource {
        reference: source.reference.clone(),
        subdir: source.subdir.clone(),
        token: source.token.clone(),
        ..parsed
    })
}

/// Makes a policy of what Git may reach.
fn git_policy(rules: &GitRules) -> Result<git::Policy, BuildFailure> {
    let pattern = |host: &String| {
        let pattern = host.parse::<git::HostPattern>();
        pattern.map_err(|error| failure(one_line(&error)))
    };
    let addresses = match rules.deny {
        DenyAddresses::Nothing => AddressPolicy::anywhere(),
        DenyAddresses::Metadata => AddressPolicy::default(),
        DenyAddresses::Private => AddressPolicy::default().refuse_private().refuse_loopback(),
    };
    let mut policy = git::Policy::default().https_only().addresses(addresses);
    for host in &rules.http_hosts {
        policy = policy.plain_http_from(pattern(host)?);
    }
    if !rules.hosts.is_empty() {
        let hosts: Result<Vec<_>, _> = rules.hosts.iter().map(pattern).collect();
        policy = policy.only_from(hosts?);
    }
    Ok(policy)
}

fn client(spec: &BuildSpec) -> Result<Client, BuildFailure> {
    let registries = &spec.registries;
    let mut credentials = match &registries.docker_config {
        Some(file) => {
            Credentials::from_docker_config_file(file).map_err(|error| failure(one_line(&error)))?
        }
        None => Credentials::anonymous(),
    };
    let mut plain = registries.plain_http.clone();
    for destination in &spec.destinations {
        let host = destination.reference.split('/').next().unwrap_or_default();
        if destination.plain_http {
            plain.push(host.to_owned());
        }
        credentials = log_in(credentials, host, &destination.auth, &registries.cloud)?;
    }
    if let Some(login) = &registries.login {
        let ours = Credential::password(&login.user, login.password.expose());
        credentials = credentials.or(Credentials::anonymous().with(&login.registry, ours));
    }
    let client = Client::builder().credentials(credentials).plain_http(plain);
    let aliases = registries.aliases.iter();
    let mut client = aliases.fold(client, |client, (name, endpoint)| {
        client.alias(name, endpoint)
    });
    if let Some(file) = &registries.settings {
        let settings = RegistrySettings::read(file).map_err(|error| failure(one_line(&error)))?;
        let with_settings = client.registries(&settings, &registries.cloud);
        client = with_settings.map_err(|error| failure(one_line(&error)))?;
    }
    client.build().map_err(|error| failure(one_line(&error)))
}

/// Adds what a destination is logged in to with.
fn log_in(
    credentials: Credentials,
    host: &str,
    auth: &Auth,
    cloud: &CloudEnvironment,
) -> Result<Credentials, BuildFailure> {
    let invalid = |error: &dyn std::error::Error| BuildFailure {
        kind: FailureKind::Registry,
        reason: format!("cannot log in to {host}: {}", one_line(error)),
    };
    match auth {
        Auth::Configured => Ok(credentials),
        Auth::Google { key } => {
            let login = match key {
                Some(key) => GoogleLogin::from_key(key),
                None => Ok(GoogleLogin::machine(cloud)),
            };
            let login = login.map_err(|error| invalid(&error))?;
            Ok(credentials.with(host, Credential::Google(login)))
        }
        Auth::Amazon {
            region,
            account,
            access_key,
            secret_key,
            session_token,
            endpoint,
        } => {
            let keys = match (access_key, secret_key) {
                (Some(id), Some(secret)) => AwsKeys::Fixed(AccessKey {
                    id: id.clone(),
                    secret: secret.clone(),
                    session_token: session_token.clone(),
                }),
                _ => AwsKeys::chain(cloud.clone()),
            };
            let endpoint = endpoint.as_deref().map(str::parse::<url::Url>).transpose();
            let login = EcrLogin::new(EcrSettings {
                region: region.clone(),
                account: account.clone(),
                keys,
                endpoint: endpoint.map_err(|error| invalid(&error))?,
                create_repository: true,
            });
            Ok(credentials.with_ecr(login.map_err(|error| invalid(&error))?))
        }
    }
}

fn kind(kind: ErrorKind) -> FailureKind {
    match kind {
        ErrorKind::User => FailureKind::User,
        ErrorKind::Command => FailureKind::Command,
        ErrorKind::OutOfMemory => FailureKind::OutOfMemory,
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

/// When memory runs out, the kernel is to end a build and not the service.
fn volunteer() {
    // Where /proc cannot be written, the kernel chooses by size alone.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
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
