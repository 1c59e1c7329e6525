//! What users call a commit: branches, tags, pull requests, ids and begins of ids.

use std::fs;

use ocibuild::Cancel;
use ocibuild::content::ContentStore;
use ocibuild::git::{self, Checkout, GitError, GitSource, Policy};
use ocibuild::testing::{GitRepository, GitServer};
use tempfile::TempDir;

/// Both begin with `e382192`.
const ALIKE: [&str; 2] = ["30005", "22639"];

/// A checkout with mirrors, and one without.
fn check_out(url: &str) -> Result<[(TempDir, Checkout); 2], GitError> {
    let store = tempfile::tempdir().unwrap();
    let kept = ContentStore::open(store.path()).unwrap();
    let run = |client: git::Client| -> Result<_, GitError> {
        let dest = tempfile::tempdir().unwrap();
        let source = GitSource::parse(url)?;
        let done = client.checkout(&source, dest.path(), &Cancel::new(), &|_| {})?;
        Ok((dest, done))
    };
    let client = git::Client::new(Policy::default());
    Ok([run(client.clone())?, run(client.mirrors(kept))?])
}

fn assert_commit(url: &str, commit: &str) {
    for (_dest, done) in check_out(url).unwrap_or_else(|error| panic!("{url}: {error}")) {
        assert_eq!(done.commit, commit, "{url}");
    }
}

fn failure(url: &str) -> GitError {
    check_out(url).err().unwrap_or_else(|| panic!("{url}"))
}

fn history(server: &GitServer) -> (GitRepository, Vec<String>) {
    let repository = server.repository("group/app.git");
    let commit = |number: i32| {
        repository.file("f", number.to_string());
        repository.commit(&format!("commit {number}"))
    };
    let commits = (0..5).map(commit).collect();
    (repository, commits)
}

#[test]
fn a_commit_is_named_by_the_begin_of_its_id() {
    for old in [false, true] {
        let server = GitServer::start();
        let (repository, commits) = history(&server);
        if old {
            server.use_old_protocol();
        }
        for commit in &commits {
            for length in [7, 12, 39] {
                let short = &commit[..length];
                assert_commit(&format!("{}#{short}", repository.url()), commit);
            }
            let upper = commit[..10].to_uppercase();
            assert_commit(&format!("{}#{upper}", repository.url()), commit);
        }
    }
}

#[test]
fn a_name_that_is_one_wins_over_the_begin_of_an_id() {
    let server = GitServer::start();
    let (repository, commits) = history(&server);
    repository.git(&["tag", &commits[0][..8], &commits[3]]);
    assert_commit(
        &format!("{}#{}", repository.url(), &commits[0][..8]),
        &commits[3],
    );
}

#[test]
fn the_begin_of_no_commit_and_of_two() {
    let server = GitServer::start();
    let (repository, commits) = history(&server);
    let url = repository.url();
    let error = failure(&format!("{url}#0000000"));
    assert_eq!(
        error.to_string(),
        format!("no branch, tag or commit \"0000000\" in {url}")
    );
    // The id of a file is none of a commit.
    let blob = repository.git(&["rev-parse", "HEAD:f"]);
    let error = failure(&format!("{url}#{}", &blob[..10]));
    assert!(
        matches!(error, GitError::ReferenceNotFound { .. }),
        "{error}"
    );
    // Six digits are a name.
    let error = failure(&format!("{url}#{}", &commits[0][..6]));
    assert!(
        matches!(error, GitError::ReferenceNotFound { .. }),
        "{error}"
    );

    let who = "Test <test@localhost> 1700000000 +0000";
    let tree = repository.git_with_input(&["mktree"], "");
    let mut alike = ALIKE.map(|message| {
        let text = format!("tree {tree}\nauthor {who}\ncommitter {who}\n\n{message}\n");
        let commit =
            repository.git_with_input(&["hash-object", "-t", "commit", "-w", "--stdin"], &text);
        repository.git(&["branch", &format!("alike-{message}"), &commit]);
        commit
    });
    alike.sort();
    let short = &alike[0][..7];
    assert!(alike[1].starts_with(short), "{alike:?}");
    let error = failure(&format!("{url}#{short}"));
    let want = format!(
        "{short:?} is the begin of more than one commit of {url}: {}, {}",
        alike[0], alike[1]
    );
    assert_eq!(error.to_string(), want);
    assert!(error.is_users());
    assert_commit(&format!("{url}#{}", &alike[1][..20]), &alike[1]);
}

#[test]
fn requests_to_merge_are_references() {
    let server = GitServer::start();
    let (repository, commits) = history(&server);
    repository.git(&["update-ref", "refs/pull/1/head", &commits[1]]);
    repository.git(&["update-ref", "refs/pull/1/merge", &commits[2]]);
    repository.git(&["update-ref", "refs/merge-requests/7/head", &commits[3]]);
    let url = repository.url();
    for (name, commit) in [
        ("pull/1/head", 1),
        ("refs/pull/1/head", 1),
        ("refs/pull/1/merge", 2),
        ("merge-requests/7/head", 3),
        ("refs/merge-requests/7/head", 3),
    ] {
        assert_commit(&format!("{url}#{name}"), &commits[commit]);
        assert_commit(&format!("{url}?ref={name}"), &commits[commit]);
    }
    let error = failure(&format!("{url}#pull/2/head"));
    assert!(
        matches!(error, GitError::ReferenceNotFound { .. }),
        "{error}"
    );
}

#[test]
fn tags_of_tags_lead_to_a_commit() {
    let server = GitServer::start();
    let (repository, commits) = history(&server);
    repository.git(&["tag", "-a", "-m", "inner", "inner", &commits[2]]);
    repository.git(&["tag", "-a", "-m", "outer", "outer", "inner"]);
    let url = repository.url();
    assert_commit(&format!("{url}#outer"), &commits[2]);
    // A tag has an id of its own, which is as good a name.
    let tag = repository.git(&["rev-parse", "inner"]);
    assert_ne!(tag, commits[2]);
    assert_commit(&format!("{url}#{tag}"), &commits[2]);
}

#[test]
fn names_with_slashes_go_with_directories() {
    let server = GitServer::start();
    let (repository, _) = history(&server);
    repository.branch("feature/a/b").file("deep/er/f", "here");
    let commit = repository.commit("feature");
    for tail in [
        "#feature/a/b:deep/er",
        "?branch=feature/a/b&subdir=deep/er",
        "?ref=refs/heads/feature/a/b&subdir=deep%2Fer",
        "?ref=feature/a/b#:deep/er",
        &format!("?subdir=deep/er#{}", &commit[..9]),
        &format!("?checksum={}&subdir=deep/er#feature/a/b", &commit[..9]),
    ] {
        let url = format!("{}{tail}", repository.url());
        for (_dest, done) in check_out(&url).unwrap_or_else(|error| panic!("{url}: {error}")) {
            assert_eq!(done.commit, commit, "{url}");
            assert_eq!(
                fs::read_to_string(done.tree.join("f")).unwrap(),
                "here",
                "{url}"
            );
        }
    }
}
