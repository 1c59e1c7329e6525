//! Checkouts from a real Git server, and `git clone` from the small server of our own.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use ocibuild::Cancel;
use ocibuild::git::{self, Checkout, GitError, GitSnapshot, GitSource, Policy, Progress};
use ocibuild::registry::Secret;
use ocibuild::testing::{GitRepository, GitServer};
use tempfile::TempDir;

fn check_out(source: &GitSource) -> Result<(TempDir, Checkout), GitError> {
    check_out_under(&Policy::default(), source)
}

fn check_out_under(policy: &Policy, source: &GitSource) -> Result<(TempDir, Checkout), GitError> {
    let dest = tempfile::tempdir().unwrap();
    let done = git::checkout(source, policy, dest.path(), &Cancel::new(), &|_| {})?;
    Ok((dest, done))
}

fn source(url: &str) -> GitSource {
    GitSource::parse(url).unwrap()
}

fn read(checkout: &Checkout, path: &str) -> String {
    fs::read_to_string(checkout.tree.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Says an error with its causes, as a user sees it, and as a log might.
fn all_text(error: &GitError) -> String {
    let mut text = format!("{error} {error:?}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!("\n{error} {error:?}"));
        cause = error.source();
    }
    text
}

/// A repository with two commits on `main`, a branch, and tags of both kinds on the first commit.
struct Sample {
    server: GitServer,
    repository: GitRepository,
    first: String,
    second: String,
}

fn sample() -> Sample {
    let server = GitServer::start();
    let repository = server.repository("group/app.git");
    let first = repository
        .file("Dockerfile", "FROM scratch\n")
        .file("src/deep/main.rs", "one")
        .executable("run.sh", "#!/bin/sh\n")
        .symlink("link", "src/deep/main.rs")
        .commit("first");
    repository.tag("light").annotated_tag("v1.0");
    repository
        .branch("feature/x")
        .file("only-here", "x")
        .commit("branch");
    let second = repository
        .switch("main")
        .file("src/deep/main.rs", "two")
        .commit("second");
    Sample {
        server,
        repository,
        first,
        second,
    }
}

#[test]
fn the_default_branch_with_modes_and_links() {
    let sample = sample();
    let (_dest, done) = check_out(&source(sample.repository.url())).unwrap();
    assert_eq!(done.commit, sample.second);
    assert_eq!(read(&done, "src/deep/main.rs"), "two");
    assert_eq!(
        fs::read_link(done.tree.join("link")).unwrap(),
        Path::new("src/deep/main.rs")
    );
    let mode = |path| {
        fs::symlink_metadata(done.tree.join(path))
            .unwrap()
            .permissions()
            .mode()
    };
    assert_eq!(mode("run.sh") & 0o7777, 0o755);
    assert_eq!(mode("Dockerfile") & 0o7777, 0o644);
    assert_eq!(mode("src") & 0o7777, 0o755);
    assert!(!done.tree.join(".git").exists());
}

#[test]
fn branches_tags_and_commits_by_name() {
    let sample = sample();
    let Sample { first, second, .. } = &sample;
    for (name, commit) in [
        ("main", second),
        ("refs/heads/main", second),
        ("heads/main", second),
        ("light", first),
        ("v1.0", first),
        ("refs/tags/v1.0", first),
        (first.as_str(), first),
        (second.as_str(), second),
        ("HEAD", second),
    ] {
        let url = format!("{}#{name}", sample.repository.url());
        let (_dest, done) = check_out(&source(&url)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(&done.commit, commit, "{name}");
    }
    let (_dest, done) =
        check_out(&source(&format!("{}#feature/x", sample.repository.url()))).unwrap();
    assert_eq!(read(&done, "only-here"), "x");
}

#[test]
fn a_branch_wins_over_a_tag_of_the_same_name() {
    let sample = sample();
    sample.repository.git(&["tag", "feature/x", &sample.first]);
    let url = format!("{}#feature/x", sample.repository.url());
    let (_dest, done) = check_out(&source(&url)).unwrap();
    assert_eq!(read(&done, "only-here"), "x");
}

#[test]
fn a_commit_that_no_reference_names_from_an_old_server() {
    let sample = sample();
    // `first` is named by tags; what is between it and the tip is not.
    sample.repository.file("third", "").commit("third");
    sample.server.use_old_protocol();
    let url = format!("{}#{}", sample.repository.url(), sample.second);
    let (_dest, done) = check_out(&source(&url)).unwrap();
    assert_eq!(done.commit, sample.second);
    assert_eq!(read(&done, "src/deep/main.rs"), "two");
    assert!(!done.tree.join("third").exists());
}

#[test]
fn a_subdirectory_and_what_is_not_one() {
    let sample = sample();
    let url = sample.repository.url();
    let (dest, done) = check_out(&source(&format!("{url}#main:src/deep"))).unwrap();
    assert_eq!(
        done.tree,
        dest.path().canonicalize().unwrap().join("src/deep")
    );
    assert_eq!(read(&done, "main.rs"), "two");
    for missing in ["nothing", "Dockerfile", "link"] {
        let error = check_out(&source(&format!("{url}#:{missing}"))).unwrap_err();
        assert!(
            matches!(error, GitError::SubdirNotFound { .. }),
            "{missing}: {error}"
        );
    }
}

#[test]
fn a_subdirectory_that_leads_out_is_refused() {
    let server = GitServer::start();
    let repository = server.repository("app.git");
    repository
        .symlink("etc", "/etc")
        .symlink("up", "../..")
        .commit("links");
    for subdir in ["etc", "up", "../x", "etc/../.."] {
        let url = format!("{}#:{subdir}", repository.url());
        let error = check_out(&source(&url)).unwrap_err();
        assert!(
            matches!(error, GitError::SubdirOutside { .. }),
            "{subdir}: {error}"
        );
    }
}

#[test]
fn a_missing_reference_names_its_neighbours() {
    let sample = sample();
    let url = sample.repository.url();
    let error = check_out(&source(&format!("{url}#mian"))).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("no branch, tag or commit \"mian\" in {url}; it has main")
    );
    let unknown = "0123456789012345678901234567890123456789";
    let error = check_out(&source(&format!("{url}#{unknown}"))).unwrap_err();
    assert!(
        matches!(error, GitError::ReferenceNotFound { .. }),
        "{error}"
    );
}

#[test]
fn repositories_that_are_not_there() {
    let server = GitServer::start();
    let error = check_out(&source(&server.url("no.git"))).unwrap_err();
    assert!(
        matches!(error, GitError::RepositoryNotFound { .. }),
        "{error}"
    );

    let empty = server.repository("empty.git");
    let error = check_out(&source(empty.url())).unwrap_err();
    assert!(matches!(error, GitError::NoCommits { .. }), "{error}");

    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let error = check_out(&source(&format!("http://{closed}/app.git"))).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot reach {closed}"));
}

#[test]
fn a_private_repository_needs_its_token() {
    let sample = sample();
    sample.server.require_login("x-access-token", "s3cret");
    let mut source = source(sample.repository.url());
    let error = check_out(&source).unwrap_err();
    assert!(
        matches!(
            error,
            GitError::AccessRefused {
                token_sent: false,
                ..
            }
        ),
        "{error}"
    );

    source.token = Some(Secret::new("wr0ng"));
    let error = check_out(&source).unwrap_err();
    assert!(
        matches!(
            error,
            GitError::AccessRefused {
                token_sent: true,
                ..
            }
        ),
        "{error}"
    );
    assert!(!all_text(&error).contains("wr0ng"), "{}", all_text(&error));

    source.token = Some(Secret::new("s3cret"));
    source.keep_git_dir = true;
    let (dest, done) = check_out(&source).unwrap();
    assert_eq!(done.commit, sample.second);
    assert_no_file_has(
        dest.path(),
        &["s3cret", "Authorization", "eC1hY2Nlc3MtdG9rZW4"],
    );
}

fn assert_no_file_has(directory: &Path, words: &[&str]) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_no_file_has(&path, words);
        } else if let Ok(content) = fs::read(&path) {
            let text = String::from_utf8_lossy(&content);
            for word in words {
                assert!(!text.contains(word), "{} has {word}", path.display());
            }
        }
    }
}

#[test]
fn a_user_name_goes_with_the_token() {
    let sample = sample();
    sample.server.require_login("me", "s3cret");
    let mut source = source(sample.repository.url());
    source.username = Some("me".to_owned());
    source.token = Some(Secret::new("s3cret"));
    check_out(&source).unwrap();
}

#[test]
fn redirects_are_followed_and_lose_the_token_on_the_way() {
    let sample = sample();
    sample.server.redirect("old.git", sample.repository.url());
    let (_dest, done) = check_out(&source(&sample.server.url("old.git"))).unwrap();
    assert_eq!(done.commit, sample.second);

    let other = GitServer::start();
    other.redirect("moved.git", sample.repository.url());
    let mut source = source(&other.url("moved.git"));
    source.token = Some(Secret::new("s3cret"));
    source.keep_git_dir = true;
    let (_dest, done) = check_out(&source).unwrap();
    assert_eq!(done.commit, sample.second);
    assert!(
        other
            .seen()
            .iter()
            .all(|request| request.authorization.is_some())
    );
    assert!(
        sample
            .server
            .seen()
            .iter()
            .all(|request| request.authorization.is_none())
    );
}

#[test]
fn redirects_to_elsewhere_are_refused() {
    let server = GitServer::start();
    server.redirect("loop.git", &server.url("loop.git"));
    server.redirect("file.git", "file:///etc/passwd");
    server.redirect("page.git", "http://127.0.0.1:1/login?next=");
    for name in ["loop.git", "file.git", "page.git"] {
        let error = check_out(&source(&server.url(name))).unwrap_err();
        assert!(
            matches!(error, GitError::Redirect { .. }),
            "{name}: {error}"
        );
    }
}

#[test]
fn a_token_is_not_sent_in_clear_text() {
    let mut source = source("http://git.example/app.git");
    source.token = Some(Secret::new("s3cret"));
    let error = check_out(&source).unwrap_err();
    assert!(matches!(error, GitError::InsecureToken { .. }), "{error}");
}

#[test]
fn a_busy_server_is_asked_again() {
    let sample = sample();
    sample.server.fail_next(2);
    let (_dest, done) = check_out(&source(sample.repository.url())).unwrap();
    assert_eq!(done.commit, sample.second);

    sample.server.fail_next(3);
    let error = check_out(&source(sample.repository.url())).unwrap_err();
    assert!(
        matches!(error, GitError::Status { status: 503, .. }),
        "{error}"
    );
}

#[test]
fn submodules_inside_submodules() {
    let server = GitServer::start();
    let leaf = server.repository("group/leaf.git");
    let leaf_commit = leaf.file("leaf.txt", "leaf").commit("leaf");
    leaf.file("leaf.txt", "newer").commit("newer");
    let lib = server.repository("group/lib.git");
    let lib_commit = lib
        .file("lib.txt", "lib")
        .submodule("leaf", leaf.url(), &leaf_commit)
        .commit("lib");
    let app = server.repository("group/app.git");
    app.submodule("vendor/lib", "../lib.git", &lib_commit)
        .commit("app");

    let (_dest, done) = check_out(&source(app.url())).unwrap();
    assert_eq!(read(&done, "vendor/lib/lib.txt"), "lib");
    assert_eq!(
        read(&done, "vendor/lib/leaf/leaf.txt"),
        "leaf",
        "the pinned commit, not the newest"
    );
    assert!(!done.tree.join("vendor/lib/.git").exists());
    assert!(!done.tree.join("vendor/lib/leaf/.git").exists());

    let mut without = source(app.url());
    without.submodules = false;
    let (_dest, done) = check_out(&without).unwrap();
    assert!(!done.tree.join("vendor/lib/lib.txt").exists());
}

#[test]
fn submodules_that_cannot_be_fetched() {
    let commit = "0123456789012345678901234567890123456789";
    let server = GitServer::start();
    for (name, url, want) in [
        ("ssh", "git@github.com:o/r.git", "there is no ssh"),
        ("file", "file:///etc", "a local path is not available"),
        ("absolute", "/etc", "a local path is not available"),
        ("helper", "ext::sh -c id", "blanks"),
        ("missing", "../absent.git", "no repository at"),
        ("above", "../../../x", "above the host"),
    ] {
        let repository = server.repository(&format!("{name}.git"));
        repository.submodule("lib", url, commit).commit("app");
        let error = check_out(&source(repository.url())).unwrap_err();
        assert!(
            matches!(error, GitError::Submodule { .. }),
            "{name}: {error}"
        );
        assert!(
            all_text(&error).contains(want),
            "{name}: {}",
            all_text(&error)
        );
    }
}

#[test]
fn submodules_without_end_are_refused() {
    let server = GitServer::start();
    let mut commit = String::new();
    for level in 0..12 {
        let repository = server.repository(&format!("level{level}.git"));
        if level > 0 {
            let below = format!("../level{}.git", level - 1);
            repository.submodule("next", &below, &commit);
        }
        commit = repository.commit("level");
    }
    let error = check_out(&source(&server.url("level11.git"))).unwrap_err();
    assert!(
        all_text(&error).contains("nested too deeply"),
        "{}",
        all_text(&error)
    );
}

#[test]
fn modules_behind_a_symbolic_link_are_not_read() {
    let server = GitServer::start();
    let repository = server.repository("app.git");
    // git does not add such a link, so the tree is made by hand.
    let blob = repository.git_with_input(&["hash-object", "-w", "--stdin"], "/etc/hostname");
    let entry = format!("120000 blob {blob}\t.gitmodules\n");
    let tree = repository.git_with_input(&["mktree"], &entry);
    let commit = repository.git(&["commit-tree", "-m", "link", &tree]);
    repository.git(&["update-ref", "refs/heads/main", &commit]);
    let error = check_out(&source(repository.url())).unwrap_err();
    let text = all_text(&error);
    assert!(text.contains(".gitmodules"), "{text}");
}

#[test]
fn the_git_directory_is_kept_when_asked_for() {
    let sample = sample();
    let mut source = source(sample.repository.url());
    source.keep_git_dir = true;
    let (dest, done) = check_out(&source).unwrap();
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "status", "--porcelain"])
        .current_dir(dest.path())
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    assert!(done.tree.join(".git/HEAD").exists());
}

#[test]
fn attributes_of_the_repository_run_no_program() {
    let server = GitServer::start();
    let repository = server.repository("app.git");
    let proof = tempfile::tempdir().unwrap();
    let proof = proof.path().join("ran");
    let command = format!("touch {}", proof.display());
    repository
        .file(".gitattributes", "* filter=evil\n")
        .file(
            ".gitconfig",
            format!("[filter \"evil\"]\n\tsmudge = {command}\n"),
        )
        .file("data", "text")
        .commit("filters");
    let (_dest, done) = check_out(&source(repository.url())).unwrap();
    assert_eq!(read(&done, "data"), "text");
    assert!(!proof.exists());
}

#[test]
fn a_cancelled_checkout_ends() {
    let sample = sample();
    let cancel = Cancel::new();
    cancel.cancel();
    let dest = tempfile::tempdir().unwrap();
    let source = source(sample.repository.url());
    let policy = Policy::default();
    let error = git::checkout(&source, &policy, dest.path(), &cancel, &|_| {}).unwrap_err();
    assert!(matches!(error, GitError::Cancelled), "{error}");
    assert!(sample.server.seen().is_empty());
}

#[test]
fn a_destination_with_files_is_left_alone() {
    let sample = sample();
    let dest = tempfile::tempdir().unwrap();
    fs::write(dest.path().join("mine"), "mine").unwrap();
    let source = source(sample.repository.url());
    let (policy, cancel) = (Policy::default(), Cancel::new());
    let error = git::checkout(&source, &policy, dest.path(), &cancel, &|_| {}).unwrap_err();
    assert!(
        matches!(error, GitError::DestinationNotEmpty { .. }),
        "{error}"
    );
    assert_eq!(
        fs::read_to_string(dest.path().join("mine")).unwrap(),
        "mine"
    );
}

/// Serves a [`GitSnapshot`] over HTTP the way a program that embeds it would.
fn serve_snapshot(snapshot: GitSnapshot) -> String {
    use axum::body::Bytes;
    use axum::http::{Method, StatusCode, Uri, header};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}/sample.git", listener.local_addr().unwrap());
    let app = axum::Router::new().fallback(async move |method: Method, uri: Uri, body: Bytes| {
        let path = uri.path().strip_prefix("/sample.git").unwrap_or_default();
        let answer = snapshot.answer(method.as_str(), path, uri.query().unwrap_or(""), &body);
        let status = StatusCode::from_u16(answer.status).unwrap();
        (
            status,
            [(header::CONTENT_TYPE, answer.content_type)],
            answer.body,
        )
    });
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, app).await.unwrap();
        });
    });
    url
}

#[test]
fn a_snapshot_is_a_repository_to_us_and_to_git() {
    let large: Vec<u8> = (0..300_000_u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let snapshot = GitSnapshot::new([
        ("Dockerfile", b"FROM scratch\n".as_slice()),
        ("web/index.html", b"<p>hello</p>\n"),
        ("web.txt", b"sorts between web and web/\n"),
        ("large", &large),
    ]);
    let commit = snapshot.commit_id();
    let url = serve_snapshot(snapshot);

    let seen: Mutex<Vec<Progress>> = Mutex::default();
    let dest = tempfile::tempdir().unwrap();
    let (policy, cancel) = (Policy::default(), Cancel::new());
    let watch = |progress| seen.lock().unwrap().push(progress);
    let done = git::checkout(&source(&url), &policy, dest.path(), &cancel, &watch).unwrap();
    assert_eq!(done.commit, commit);
    assert_eq!(read(&done, "web/index.html"), "<p>hello</p>\n");
    assert_eq!(fs::read(done.tree.join("large")).unwrap(), large);

    let clone = tempfile::tempdir().unwrap();
    let path: PathBuf = clone.path().join("clone");
    for extra in [["--depth", "1"].as_slice(), &[]] {
        let output = Command::new("git")
            .args(["clone", "--quiet"])
            .args(extra)
            .args([&url, path.to_str().unwrap()])
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{message}");
        let fsck = Command::new("git")
            .args(["-C", path.to_str().unwrap(), "fsck", "--strict"])
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&fsck.stderr);
        assert!(fsck.status.success(), "{message}");
        fs::remove_dir_all(&path).unwrap();
    }
}

#[test]
fn the_destination_may_be_behind_a_link() {
    let sample = sample();
    let dest = tempfile::tempdir().unwrap();
    let link = dest.path().join("link");
    fs::create_dir(dest.path().join("real")).unwrap();
    symlink("real", &link).unwrap();
    git::checkout(
        &source(sample.repository.url()),
        &Policy::default(),
        &link,
        &Cancel::new(),
        &|_| {},
    )
    .unwrap();
    assert!(dest.path().join("real/Dockerfile").exists());
}
