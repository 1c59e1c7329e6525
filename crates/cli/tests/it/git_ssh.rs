//! `build` of a repository over ssh: which keys it takes, and which servers it believes.

use std::process::Command;

use ocibuild::testing::SshServer;

use crate::command::{Ended, Place, build_arguments, ended};
use crate::service::Site;

/// A server with a repository, and its URL.
fn repository() -> (SshServer, String) {
    let server = SshServer::start();
    let repository = server.repository("group/app.git");
    repository.file("f", "over ssh\n").commit("first");
    let add = format!("FROM busybox\nADD {} /added/\nCOPY f /\n", repository.url());
    repository.file("Dockerfile", add).commit("second");
    let url = format!("{}#main", repository.url());
    (server, url)
}

fn build(place: &Place, url: &str, flags: &[&str], vars: &[(&str, &str)]) -> Ended {
    let arguments = build_arguments(url, flags);
    let mut command = place.command(&arguments);
    ended(command.envs(vars.iter().copied()).output().unwrap())
}

fn has_agent(socket: &str) -> bool {
    let listed = Command::new("ssh-add")
        .arg("-l")
        .env("SSH_AUTH_SOCK", socket)
        .output();
    listed.unwrap().status.success()
}

#[test]
fn a_context_comes_over_ssh() {
    let (mut server, url) = repository();
    let agent = server.agent().display().to_string();
    let known_hosts = server.known_hosts().display().to_string();
    let known = ["--known-hosts", &known_hosts];
    let key = format!("default={}", server.key().display());
    let place = Place::new();
    for (flags, vars) in [
        (vec!["--ssh", &*key], vec![]),
        (vec!["--ssh", "default"], vec![("SSH_AUTH_SOCK", &*agent)]),
        (vec![], vec![("SSH_AUTH_SOCK", &*agent)]),
    ] {
        let flags: Vec<&str> = flags
            .iter()
            .copied()
            .chain(known)
            .chain(["-t", "app:1"])
            .collect();
        let ended = build(&place, &url, &flags, &vars);
        assert_eq!(ended.status, 0, "{flags:?}: {}", ended.err);
    }
    assert!(has_agent(&agent), "a given agent is left alone");

    // The usual file of the user, who is at home in this place.
    std::fs::create_dir(place.path(".ssh")).unwrap();
    let ended = build(&place, &url, &["--ssh", &key], &[]);
    assert_eq!(ended.status, 1);
    assert!(
        ended.err.contains("Host key verification failed"),
        "{}",
        ended.err
    );
    std::fs::copy(&known_hosts, place.path(".ssh/known_hosts")).unwrap();
    let ended = build(&place, &url, &["--ssh", &key], &[]);
    assert_eq!(ended.status, 0, "{}", ended.err);

    let ended = build(&place, &url, &[], &[]);
    assert_eq!(ended.status, 1);
    assert!(ended.err.contains("Permission denied"), "{}", ended.err);
}

#[test]
fn the_agent_of_the_environment_is_for_repositories_that_a_user_names() {
    let (mut server, url) = repository();
    let agent = server.agent().display().to_string();
    let known_hosts = server.known_hosts().display().to_string();
    let place = Place::new();
    let context = ocibuild::testing::ContextDir::new()
        .file("Dockerfile", format!("FROM busybox\nADD {url} /added/\n"));
    let folder = context.path().display().to_string();
    let vars = [("SSH_AUTH_SOCK", &*agent)];
    let ended = build(&place, &folder, &["--known-hosts", &known_hosts], &vars);
    assert_eq!(ended.status, 1);
    assert!(ended.err.contains("Permission denied"), "{}", ended.err);
    let flags = ["--known-hosts", &known_hosts, "--ssh", "default"];
    let ended = build(&place, &folder, &flags, &vars);
    assert_eq!(ended.status, 0, "{}", ended.err);
}

#[test]
fn the_service_reads_repositories_with_its_own_key() {
    let server = SshServer::start();
    let repository = server.repository("group/app.git");
    repository
        .file("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")
        .commit("first");
    let Some(site) = Site::new() else {
        return;
    };
    let url = repository.url();
    let vars = |more: &[(&'static str, String)]| {
        let ssh = [
            ("OCIBUILD_GIT_SSH_KEY", server.key().display().to_string()),
            (
                "OCIBUILD_GIT_KNOWN_HOSTS",
                server.known_hosts().display().to_string(),
            ),
        ];
        [&ssh[..], more].concat()
    };
    let service = site.serve("data", &vars(&[]));
    let task = service.submit(url, "v1", None);
    let ended = service.follow(&task);
    assert_eq!(ended.state, "completed", "{}", ended.log);
    drop(service);

    let hosts = ("OCIBUILD_GIT_HOSTS", "127.0.0.1:22".to_owned());
    let service = site.serve("elsewhere", &vars(&[hosts]));
    let form = [("app_name", "app"), ("image_tag", "v1"), ("git_repo", url)];
    let answer = service
        .post("/build_with_dockerfile")
        .form(&form)
        .send()
        .unwrap();
    assert_eq!(answer.status().as_u16(), 422);
    drop(service);
    let private = ("OCIBUILD_DENY_ADDRESSES", "private".to_owned());
    let service = site.serve("inward", &vars(&[private]));
    let task = service.submit(url, "v1", None);
    service.assert_fails(&task, "its address is this machine");
}
