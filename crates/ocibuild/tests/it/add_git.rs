//! ADD of repositories: which commit, what of it, and with which modes.

use ocibuild::git::{Policy, Ssh};
use ocibuild::net::AddressPolicy;
use ocibuild::testing::{GitRepository, GitServer, SshServer};
use ocibuild::{Build, ContextSource, DockerfileSource, ErrorKind};

use crate::built::{Built, Workshop};

fn build(workshop: &Workshop, instructions: &str) -> Build {
    let build = workshop.build_from("store", ContextSource::Empty);
    build.dockerfile(DockerfileSource::Text {
        name: "Dockerfile".to_owned(),
        text: format!("FROM scratch\n{instructions}\n"),
    })
}

fn added(instructions: &str) -> Built {
    let workshop = Workshop::new();
    workshop.built(build(&workshop, instructions))
}

fn failure(instructions: &str) -> (ErrorKind, String) {
    let workshop = Workshop::new();
    let error = workshop.fails(build(&workshop, instructions));
    (error.kind(), ocibuild::causes::one_line(&error))
}

/// A repository with two commits; the first one has a tag.
fn repository(server: &GitServer) -> (GitRepository, [String; 2]) {
    let repository = server.repository("app.git");
    let first = repository
        .file("f", "old")
        .executable("bin/run.sh", "#!/bin/sh\n")
        .symlink("link", "f")
        .commit("first");
    repository.git(&["tag", "v1"]);
    let second = repository
        .file("f", "new")
        .file("sub/g.txt", "g")
        .commit("second");
    (repository, [first, second])
}

const TREE: [&str; 5] = [
    "d/bin 0755 0:0 dir",
    "d/bin/run.sh 0755 0:0 file",
    "d/f 0644 0:0 file",
    "d/link 0777 0:0 -> f",
    "d/sub 0755 0:0 dir",
];

#[test]
fn b55_the_default_branch_without_git_directory() {
    let server = GitServer::start();
    let (repository, _) = repository(&server);
    let url = repository.url();
    let image = added(&format!("ADD {url} /d"));
    let mut want = vec!["d 0755 0:0 dir"];
    want.extend(TREE);
    want.push("d/sub/g.txt 0644 0:0 file");
    assert_eq!(image.list(""), want);
    assert_eq!(image.text("d/f"), "new");
    assert_eq!(image.history(), [format!("ADD {url} /d # buildkit")]);
}

#[test]
fn b55_references_and_directories() {
    let server = GitServer::start();
    let (repository, [first, _]) = repository(&server);
    let url = repository.url();
    for (source, want) in [
        (format!("{url}#v1"), "old"),
        (format!("{url}#main"), "new"),
        (format!("{url}#{first}"), "old"),
        (format!("{url}?tag=v1"), "old"),
        (format!("{url}?ref=v1"), "old"),
        (format!("{url}?branch=main"), "new"),
        (format!("{url}?commit={first}"), "old"),
        (format!("{url}?ref=v1&commit={}", &first[..8]), "old"),
    ] {
        let image = added(&format!("ADD {source} /d/"));
        assert_eq!(image.text("d/f"), want, "{source}");
    }
    for source in [format!("{url}#main:sub"), format!("{url}?subdir=sub")] {
        let image = added(&format!("ADD {source} /d"));
        assert_eq!(
            image.list(""),
            ["d 0755 0:0 dir", "d/g.txt 0644 0:0 file"],
            "{source}"
        );
    }
    let (_, text) = failure(&format!("ADD {url}#nothing /d"));
    let want = format!("Dockerfile:2: no branch, tag or commit \"nothing\" in {url}");
    assert!(text.starts_with(&want), "{text}");
}

#[test]
fn b55_flags() {
    let server = GitServer::start();
    let (repository, [_, second]) = repository(&server);
    let url = repository.url();
    let image = added(&format!(
        "ADD --chown=1:2 --chmod=go= --exclude=bin --exclude=**/*.txt {url} /d"
    ));
    let want = [
        "d 0755 1:2 dir",
        "d/f 0600 1:2 file",
        "d/link 0777 1:2 -> f",
        "d/sub 0700 1:2 dir",
    ];
    assert_eq!(image.list(""), want);
    for (flag, source) in [
        ("--keep-git-dir", url.to_owned()),
        ("--keep-git-dir=true", url.to_owned()),
        ("", format!("{url}?keep-git-dir=true")),
    ] {
        let image = added(&format!("ADD {flag} {source} /d"));
        assert_eq!(image.text("d/.git/HEAD").trim(), second, "{flag} {source}");
    }
    let image = added(&format!("ADD --keep-git-dir=false {url} /d"));
    assert_eq!(image.at("d/.git"), "-");
    let (_, text) = failure(&format!("ADD --keep-git-dir=false {url}?keep-git-dir=1 /d"));
    assert!(text.contains("the URL says keep-git-dir"), "{text}");
}

#[test]
fn b55_a_checksum_is_the_begin_of_the_commit() {
    let server = GitServer::start();
    let (repository, [first, second]) = repository(&server);
    let url = repository.url();
    for checksum in [&second, &second[..7], &second.to_uppercase()] {
        let image = added(&format!("ADD --checksum={checksum} {url} /d"));
        assert_eq!(image.text("d/f"), "new");
    }
    let expected = &first[..12];
    for source in [
        format!("--checksum={expected} {url}"),
        format!("{url}?checksum={expected}#main"),
    ] {
        let (kind, text) = failure(&format!("ADD {source} /d"));
        let want = format!("Dockerfile:2: the commit of {url} is {second}, not {expected}");
        assert_eq!((kind, text), (ErrorKind::User, want));
    }
    let (_, text) = failure(&format!("ADD --checksum=main {url} /d"));
    assert!(text.ends_with("want the id of a commit"), "{text}");
    let (_, text) = failure(&format!("ADD --checksum={first} {url}?commit={second} /d"));
    assert!(text.contains("the URL names the commit"), "{text}");
}

#[test]
fn b55_submodules_come_along() {
    let server = GitServer::start();
    let (library, [_, commit]) = repository(&server);
    let app = server.repository("group/app.git");
    app.file("own", "")
        .submodule("lib", library.url(), &commit)
        .commit("app");
    let image = added(&format!("ADD {} /d", app.url()));
    assert_eq!(image.text("d/lib/f"), "new");
    assert_eq!(image.at("d/lib/.git"), "-");
    let image = added(&format!("ADD {}?submodules=false /d", app.url()));
    assert_eq!(
        (image.at("d/own"), image.at("d/lib/f")),
        ("0644 0:0 file".into(), "-".into())
    );
}

#[test]
fn b55_transports_that_are_not_offered_are_said_before_anything_runs() {
    let (kind, text) = failure("RUN true\nADD git://h/r.git /d");
    assert!(text.starts_with("Dockerfile:3: repository URL"), "{text}");
    assert!(text.contains("is not supported"), "{text}");
    assert_eq!(kind, ErrorKind::User);
    // Only a context may be named so.
    let (_, text) = failure("ADD github.com/o/r /d");
    assert_eq!(text, "Dockerfile:2: \"/github.com/o/r\": not found");
    let (_, text) = failure("RUN true\nCOPY https://h/r.git /d");
    assert!(
        text.starts_with("Dockerfile:3: COPY takes paths only"),
        "{text}"
    );
}

#[test]
fn a_repository_comes_over_ssh_where_the_build_has_it() {
    let server = SshServer::start();
    let repository = server.repository("group/app.git");
    repository.file("f", "over ssh").commit("first");
    let url = repository.url();
    let ssh = Ssh::new("/usr/bin/ssh")
        .key(server.key())
        .known_hosts(server.known_hosts());
    let workshop = Workshop::new();
    let built = workshop.built(build(&workshop, &format!("ADD {url} /d")).git_ssh(ssh));
    assert_eq!(built.text("d/f"), "over ssh");
    for source in [url, "git@github.com:o/r.git"] {
        let (kind, text) = failure(&format!("ADD {source} /d"));
        assert!(text.starts_with("Dockerfile:2: repository URL"), "{text}");
        assert!(text.contains("there is no ssh to reach it with"), "{text}");
        assert_eq!(kind, ErrorKind::User);
    }
}

#[test]
fn the_same_content_is_the_same_step() {
    let (server, workshop) = (GitServer::start(), Workshop::new());
    let (repository, _) = repository(&server);
    let plain = format!("ADD {} /d", repository.url());
    let kept = format!("ADD --keep-git-dir {} /e", repository.url());
    let both = format!("{plain}\n{kept}");
    let add = || workshop.built(build(&workshop, &both));
    assert_eq!(add().cached(), [(&*plain, false), (&*kept, false)]);
    let again = add();
    assert_eq!(again.cached(), [(&*plain, true), (&*kept, true)]);
    let step = format!("[internal] load git source {}", repository.url());
    assert_eq!(again.image().steps[0].name, step);
    // Another commit of the same files.
    repository.commit("third");
    assert_eq!(add().cached(), [(&*plain, true), (&*kept, false)]);
    repository.file("f", "newest").commit("fourth");
    assert_eq!(add().cached(), [(&*plain, false), (&*kept, false)]);
}

#[test]
fn the_policy_of_the_build_is_kept_to() {
    let server = GitServer::start();
    let (repository, _) = repository(&server);
    let add = format!("ADD {} /d", repository.url());
    let loopback = Policy::default().addresses(AddressPolicy::default().refuse_loopback());
    for (instruction, policy, reason) in [
        (
            "ADD http://169.254.169.254/r.git /d",
            Policy::default(),
            "its address is that of a metadata service",
        ),
        (&add, loopback, "its address is this machine"),
        (
            &add,
            Policy::default().https_only(),
            "plain http is not allowed",
        ),
    ] {
        let workshop = Workshop::new();
        let error = workshop.fails(build(&workshop, instruction).git_policy(policy));
        assert!(
            ocibuild::causes::one_line(&error).contains(reason),
            "{error}"
        );
        assert_eq!(error.kind(), ErrorKind::User);
    }
    assert!(server.seen().is_empty());
}
