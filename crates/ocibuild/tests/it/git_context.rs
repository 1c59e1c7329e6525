//! Builds whose context has to be fetched first: what they tell of it.

use std::sync::{Arc, Mutex};

use ocibuild::git::GitSource;
use ocibuild::registry::Secret;
use ocibuild::testing::{GitRepository, GitServer};
use ocibuild::{Build, ContextSource, ErrorKind, Event, EventSink};

use crate::built::Workshop;

/// The events of a build, while it runs and after it.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Event>>>);

impl Seen {
    fn sink(&self) -> EventSink {
        let seen = self.clone();
        EventSink::new(move |event| seen.0.lock().unwrap().push(event))
    }

    /// The events without times and progress, one short line each.
    fn lines(&self) -> Vec<String> {
        let events = self.0.lock().unwrap();
        events.iter().filter_map(line).collect()
    }
}

fn line(event: &Event) -> Option<String> {
    match event {
        Event::StepStarted { step, name } => Some(format!("#{} {name}", step.0)),
        Event::StepDone { step, .. } => Some(format!("#{} done", step.0)),
        Event::StepFailed { step, error, .. } => Some(format!("#{} failed: {error}", step.0)),
        Event::Commit { id } => Some(format!("commit {id}")),
        Event::Dockerfile { name, .. } => Some(format!("dockerfile {name}")),
        _ => None,
    }
}

fn repository(server: &GitServer) -> GitRepository {
    let repository = server.repository("group/app.git");
    repository
        .file("service/Dockerfile", "FROM scratch\nCOPY f /\n")
        .file("service/f", "text");
    repository
}

fn build(workshop: &Workshop, url: &str, seen: &Seen) -> Build {
    let mut source = GitSource::parse(url).unwrap();
    source.token = Some(Secret::new("s3cret"));
    workshop
        .build_from("store", ContextSource::Git(source))
        .events(seen.sink())
}

#[test]
fn the_checkout_is_the_first_step() {
    let (workshop, server, seen) = (Workshop::new(), GitServer::start(), Seen::default());
    let repository = repository(&server);
    let commit = repository.commit("first");
    let url = format!("{}#main:service", repository.url());
    let built = workshop.built(build(&workshop, &url, &seen));
    let steps: Vec<&str> = built.image().steps.iter().map(|step| &*step.name).collect();
    let first = format!("[internal] load git source {url}");
    assert_eq!(steps[..2], [&*first, "[stage 2/2] COPY f /"]);
    let begin = [
        format!("#1 {first}"),
        "#1 done".to_owned(),
        format!("commit {commit}"),
        "dockerfile Dockerfile".to_owned(),
        "#2 [stage 2/2] COPY f /".to_owned(),
    ];
    assert_eq!(seen.lines()[..begin.len()], begin);
}

#[test]
fn a_checkout_that_fails_is_a_step_that_fails() {
    let (workshop, server, seen) = (Workshop::new(), GitServer::start(), Seen::default());
    let repository = repository(&server);
    repository.commit("first");
    let url = format!("{}#nothing", repository.url());
    let error = workshop.fails(build(&workshop, &url, &seen));
    assert_eq!(error.kind(), ErrorKind::Registry);
    let want = [
        format!("#1 [internal] load git source {url}"),
        format!(
            "#1 failed: no branch, tag or commit \"nothing\" in {}",
            repository.url()
        ),
    ];
    let lines = seen.lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines[0] == want[0] && lines[1].starts_with(&want[1]),
        "{lines:?}"
    );
    assert!(!format!("{lines:?}").contains("s3cret"));
}

#[test]
fn a_tar_is_loaded_in_a_step() {
    let (workshop, seen) = (Workshop::new(), Seen::default());
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    let text = b"FROM scratch\nCOPY . /\n";
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "Dockerfile", text.as_slice())
        .unwrap();
    let bytes = tar.into_inner().unwrap();
    let source = ContextSource::Tar(Box::new(std::io::Cursor::new(bytes)));
    workshop.built(workshop.build_from("store", source).events(seen.sink()));
    let begin = [
        "#1 [internal] load build context",
        "#1 done",
        "dockerfile Dockerfile",
        "#2 [stage 2/2] COPY . /",
    ];
    assert_eq!(seen.lines()[..begin.len()], begin);

    let (seen, hostile) = (Seen::default(), b"no tar at all".as_slice());
    let source = ContextSource::Tar(Box::new(hostile));
    workshop.fails(workshop.build_from("store", source).events(seen.sink()));
    let lines = seen.lines();
    assert!(
        lines.len() == 2 && lines[1].starts_with("#1 failed: "),
        "{lines:?}"
    );
}

#[test]
fn row_20_a_build_can_be_dated_by_its_commit() {
    let (workshop, server, seen) = (Workshop::new(), GitServer::start(), Seen::default());
    let repository = repository(&server);
    repository.file(
        "service/Dockerfile",
        "FROM scratch\nARG SOURCE_DATE_EPOCH\nLABEL at=$SOURCE_DATE_EPOCH\n",
    );
    repository.commit("first");
    let url = format!("{}#:service", server.url("group/app.git"));
    let build = build(&workshop, &url, &seen).build_arg("SOURCE_DATE_EPOCH", "context");
    let image = workshop.built(build);
    let at: i64 = image.config.config.labels["at"].parse().unwrap();
    let created = image.config.created.unwrap();
    let dated = workshop.built(build_at(&workshop, &url, &seen, at));
    assert_eq!(Some(created), dated.config.created);
    assert!(at > 0);
}

fn build_at(workshop: &Workshop, url: &str, seen: &Seen, at: i64) -> Build {
    build(workshop, url, seen).build_arg("SOURCE_DATE_EPOCH", at.to_string())
}
