//! Repositories that keep files with Git LFS.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use ocibuild::Cancel;
use ocibuild::git::{self, Checkout, GitError, GitSource, Limits, Policy};
use ocibuild::registry::Secret;
use ocibuild::testing::{GitRepository, GitServer};
use tempfile::TempDir;

const CONTENT: &[u8] = b"weights of a model, too large for Git";

fn check_out(url: &str) -> Result<(TempDir, Checkout), GitError> {
    check_out_as(&GitSource::parse(url)?, &Policy::default())
}

fn check_out_as(source: &GitSource, policy: &Policy) -> Result<(TempDir, Checkout), GitError> {
    let dest = tempfile::tempdir().unwrap();
    let done = git::checkout(source, policy, dest.path(), &Cancel::new(), &|_| {})?;
    Ok((dest, done))
}

/// A repository with a pointer to [`CONTENT`] and to an empty file.
fn repository(server: &GitServer) -> (GitRepository, String) {
    let repository = server.repository("team/model.git");
    let pointer = server.large_file(CONTENT);
    repository
        .file(
            ".gitattributes",
            "*.bin filter=lfs diff=lfs merge=lfs -text\n",
        )
        .file("data/model.bin", &pointer)
        .file("data/again.bin", &pointer)
        .file(
            "small",
            "version https://git-lfs.github.com/spec/v1\nnot one\n",
        )
        .executable("tool.bin", server.large_file(b"#!/bin/sh\n"))
        .commit("large files");
    (repository, pointer)
}

#[test]
fn pointers_become_files() {
    let server = GitServer::start();
    let (repository, _) = repository(&server);
    let (_dest, done) = check_out(repository.url()).unwrap();
    for file in ["data/model.bin", "data/again.bin"] {
        assert_eq!(fs::read(done.tree.join(file)).unwrap(), CONTENT);
    }
    let tool = done.tree.join("tool.bin");
    assert_eq!(fs::read(&tool).unwrap(), b"#!/bin/sh\n");
    assert_eq!(
        fs::metadata(&tool).unwrap().permissions().mode() & 0o777,
        0o755
    );
    let other = fs::read_to_string(done.tree.join("small")).unwrap();
    assert!(other.ends_with("not one\n"));
    let left = fs::read_dir(done.tree.join("data")).unwrap().count();
    assert_eq!(left, 2, "nothing else is left");
}

#[test]
fn pointers_stay_where_that_is_wanted() {
    let server = GitServer::start();
    let (repository, pointer) = repository(&server);
    let (_dest, done) = check_out(&format!("{}?lfs=false", repository.url())).unwrap();
    let file = fs::read_to_string(done.tree.join("data/model.bin")).unwrap();
    assert_eq!(file, pointer);
}

#[test]
fn what_cannot_be_had_is_an_error_that_names_the_file() {
    let server = GitServer::start();
    let (repository, pointer) = repository(&server);
    let cases: [(&str, &[u8]); 3] = [
        ("another digest", b"WEIGHTS of a model, too large for Git"),
        (
            "larger than its pointer",
            b"weights of a model, too large for Git, and more",
        ),
        ("broke off", b"weights"),
    ];
    for (why, content) in cases {
        server.serve_large(&pointer, content);
        let error = check_out(repository.url()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("data/") && text.contains(why), "{text}");
    }
    server.forget_large_files();
    let text = check_out(repository.url()).unwrap_err().to_string();
    assert!(text.contains("its server does not have it"), "{text}");
}

#[test]
fn a_busy_server_is_asked_again() {
    let server = GitServer::start();
    let (repository, _) = repository(&server);
    server.fail_next_large(2);
    let (_dest, done) = check_out(repository.url()).unwrap();
    assert_eq!(fs::read(done.tree.join("data/model.bin")).unwrap(), CONTENT);
    server.fail_next_large(100);
    let error = check_out(repository.url()).unwrap_err();
    assert!(
        matches!(error, GitError::Status { status: 503, .. }),
        "{error}"
    );
}

#[test]
fn submodules_have_large_files_of_their_own() {
    let server = GitServer::start();
    let (inner, _) = repository(&server);
    let commit = inner.git(&["rev-parse", "HEAD"]);
    let outer = server.repository("team/app.git");
    outer
        .submodule("vendor/model", inner.url(), commit.trim())
        .commit("uses it");
    let (_dest, done) = check_out(outer.url()).unwrap();
    let file = done.tree.join("vendor/model/data/model.bin");
    assert_eq!(fs::read(file).unwrap(), CONTENT);
    let asked = server.seen();
    let asked = asked.iter().map(|request| request.target.as_str());
    let batches: Vec<&str> = asked.filter(|target| target.ends_with("/batch")).collect();
    assert_eq!(batches, ["/team/model.git/info/lfs/objects/batch"]);
}

#[test]
fn another_server_does_not_get_the_token() {
    let (server, other) = (GitServer::start(), GitServer::start());
    server.require_login("x-access-token", "s3cret");
    let repository = server.repository("team/app.git");
    let pointer = other.large_file(CONTENT);
    let config = format!("[lfs]\n\turl = {}/info/lfs\n", other.url("elsewhere.git"));
    repository
        .file(".lfsconfig", &config)
        .file("model.bin", &pointer)
        .commit("large file");
    let source = GitSource {
        token: Some(Secret::new("s3cret")),
        ..GitSource::parse(repository.url()).unwrap()
    };
    let (_dest, done) = check_out_as(&source, &Policy::default()).unwrap();
    assert_eq!(fs::read(done.tree.join("model.bin")).unwrap(), CONTENT);
    assert!(!other.seen().is_empty());
    assert!(
        other
            .seen()
            .iter()
            .all(|request| request.authorization.is_none())
    );

    // And a policy of hosts holds for it.
    let only = Policy::default().only_from([server_pattern(&server)]);
    let error = check_out_as(&source, &only).unwrap_err();
    assert!(error.is_forbidden(), "{error}");
}

fn server_pattern(server: &GitServer) -> git::HostPattern {
    let url = server.url("x");
    let rest = url.strip_prefix("http://").unwrap();
    rest.split('/').next().unwrap().parse().unwrap()
}

#[test]
fn the_token_goes_to_the_servers_own_large_files() {
    let server = GitServer::start();
    let (repository, _) = repository(&server);
    server.require_login("x-access-token", "s3cret");
    let source = GitSource {
        token: Some(Secret::new("s3cret")),
        ..GitSource::parse(repository.url()).unwrap()
    };
    let (_dest, done) = check_out_as(&source, &Policy::default()).unwrap();
    assert_eq!(fs::read(done.tree.join("data/model.bin")).unwrap(), CONTENT);
}

#[test]
fn limits_count_large_files_too() {
    let server = GitServer::start();
    let repository = server.repository("app.git");
    let pointer = server.large_file(&vec![7; 300_000]);
    repository.file("model.bin", &pointer).commit("large file");
    let limits = Limits {
        bytes: 200_000,
        ..Limits::default()
    };
    let source = GitSource::parse(repository.url()).unwrap();
    let error = check_out_as(&source, &Policy::default().limits(limits)).unwrap_err();
    assert!(matches!(error, GitError::TooMuch { .. }), "{error}");
}
