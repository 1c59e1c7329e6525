//! Checkouts from a real server of OpenSSH.

use std::fs;
use std::path::{Path, PathBuf};

use ocibuild::Cancel;
use ocibuild::content::ContentStore;
use ocibuild::git::{self, Checkout, Forbidden, GitError, GitSource, Policy, Ssh};
use ocibuild::net::AddressPolicy;
use ocibuild::testing::{GitRepository, GitServer, SshServer};
use tempfile::TempDir;

const PROGRAM: &str = "/usr/bin/ssh";

fn with_key(server: &SshServer) -> Ssh {
    Ssh::new(PROGRAM)
        .key(server.key())
        .known_hosts(server.known_hosts())
}

fn repository(server: &SshServer) -> (GitRepository, [String; 2]) {
    let repository = server.repository("group/app.git");
    let first = repository.file("f", "one").commit("first");
    repository.annotated_tag("v1");
    let second = repository.file("f", "two").commit("second");
    (repository, [first, second])
}

fn check_out(client: &git::Client, url: &str) -> Result<(TempDir, Checkout), GitError> {
    let dest = tempfile::tempdir().unwrap();
    let source = GitSource::parse(url)?;
    let done = client.checkout(&source, dest.path(), &Cancel::new(), &|_| {})?;
    Ok((dest, done))
}

fn client(ssh: Ssh) -> git::Client {
    git::Client::new(Policy::default()).ssh(ssh)
}

fn failure(ssh: Ssh, url: &str) -> GitError {
    let failed = check_out(&client(ssh), url);
    failed.err().unwrap_or_else(|| panic!("{url}"))
}

/// Counts who was let in.
fn logins(server: &SshServer) -> usize {
    server.log().matches("Accepted publickey").count()
}

#[test]
fn a_key_or_an_agent_lets_us_in() {
    let mut server = SshServer::start();
    let (repository, [first, second]) = repository(&server);
    let agent = Ssh::new(PROGRAM)
        .agent(server.agent())
        .known_hosts(server.known_hosts());
    for ssh in [with_key(&server), agent] {
        for (name, commit, text) in [
            ("", &second, "two"),
            ("#main", &second, "two"),
            ("#v1", &first, "one"),
            (&format!("#{first}"), &first, "one"),
            (&format!("#{}", &first[..8]), &first, "one"),
        ] {
            let url = format!("{}{name}", repository.url());
            let (_dest, done) = check_out(&client(ssh.clone()), &url).unwrap();
            assert_eq!(&done.commit, commit, "{name}");
            assert_eq!(
                fs::read_to_string(done.tree.join("f")).unwrap(),
                text,
                "{name}"
            );
        }
    }
}

#[test]
fn mirrors_serve_ssh_and_ask_who_is_there() {
    for server in [SshServer::start(), SshServer::start_old()] {
        let (repository, [first, second]) = repository(&server);
        let store = tempfile::tempdir().unwrap();
        let kept = || ContentStore::open(store.path()).unwrap();
        let mirrored = |ssh: Ssh| client(ssh).mirrors(kept());
        let url = repository.url();
        check_out(&mirrored(with_key(&server)), url).unwrap();
        let before = logins(&server);
        let (_dest, done) = check_out(&mirrored(with_key(&server)), url).unwrap();
        assert_eq!((done.commit, logins(&server) - before), (second.clone(), 1));
        let known = format!("{url}#{second}");
        check_out(&mirrored(with_key(&server)), &known).unwrap();
        assert_eq!(logins(&server) - before, 2);
        let third = repository.file("f", "three").commit("third");
        let (_dest, done) = check_out(&mirrored(with_key(&server)), url).unwrap();
        assert_eq!(done.commit, third);
        let back = format!("{url}#{first}");
        assert_eq!(
            check_out(&mirrored(with_key(&server)), &back)
                .unwrap()
                .1
                .commit,
            first
        );

        let stranger = Ssh::new(PROGRAM)
            .key(server.other_key())
            .known_hosts(server.known_hosts());
        for url in [url, &known] {
            let error = check_out(&mirrored(stranger.clone()), url).err().unwrap();
            assert!(error.to_string().contains("Permission denied"), "{error}");
        }
    }
}

#[test]
fn a_server_that_is_not_known_is_not_believed() {
    let server = SshServer::start();
    let (repository, _) = repository(&server);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| -> PathBuf {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let key = fs::read_to_string(server.key().with_extension("pub")).unwrap();
    let nobody = file("nobody", "");
    let elsewhere = file("elsewhere", &format!("[127.0.0.1]:1 {key}"));
    let changed = file(
        "changed",
        &format!("[{}]:{} {key}", "127.0.0.1", port(&server)),
    );
    for known in [None, Some(nobody.clone()), Some(elsewhere), Some(changed)] {
        let ssh = Ssh::new(PROGRAM).key(server.key());
        let ssh = match &known {
            Some(file) => ssh.known_hosts(file),
            None => ssh,
        };
        let error = failure(ssh, repository.url());
        assert!(matches!(error, GitError::Ssh { .. }), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains("Host key verification failed"),
            "{known:?}: {text}"
        );
        assert!(text.contains("over ssh"), "{text}");
    }
    assert_eq!(
        fs::read_to_string(nobody).unwrap(),
        "",
        "nothing was learned"
    );
    assert_eq!(logins(&server), 0);
    // One file of several is enough, and one that is not there is no error.
    let ssh = with_key(&server)
        .known_hosts(folder.path().join("missing"))
        .known_hosts(folder.path().join("changed"));
    assert!(check_out(&client(ssh), repository.url()).is_ok());
}

fn port(server: &SshServer) -> String {
    server.host().rsplit(':').next().unwrap().to_owned()
}

#[test]
fn what_ssh_says_is_told_and_not_tried_again() {
    let server = SshServer::start();
    repository(&server);
    let missing = server.url("group/missing.git");
    let error = failure(with_key(&server), &missing);
    let text = error.to_string();
    assert!(
        text.contains("does not appear to be a git repository"),
        "{text}"
    );
    assert_eq!(logins(&server), 1);

    let folder = tempfile::tempdir().unwrap();
    for key in [server.other_key(), folder.path().join("none")] {
        let ssh = Ssh::new(PROGRAM).key(key).known_hosts(server.known_hosts());
        let error = failure(ssh, &server.url("group/app.git"));
        assert!(error.to_string().contains("Permission denied"), "{error}");
    }
    assert_eq!(logins(&server), 1);

    let ssh = Ssh::new(folder.path().join("no-ssh"));
    let error = failure(ssh, &server.url("group/app.git")).to_string();
    assert!(error.contains("no-ssh: No such file"), "{error}");
    let error = check_out(&git::Client::new(Policy::default()), &missing).err();
    assert!(
        matches!(error, Some(GitError::UnsupportedTransport { .. })),
        "{error:?}"
    );
}

#[test]
fn the_policy_holds_for_ssh() {
    let server = SshServer::start();
    let (repository, _) = repository(&server);
    let url = repository.url();
    let named: git::HostPattern = server.host().parse().unwrap();
    let under = |policy: Policy, url: &str| {
        check_out(&git::Client::new(policy).ssh(with_key(&server)), url)
    };
    let strict = Policy::default().https_only();
    assert!(under(strict.clone().only_from([named]), url).is_ok());
    let before = server.log().len();
    let elsewhere = strict.clone().only_from(["elsewhere".parse().unwrap()]);
    let inward = strict.addresses(AddressPolicy::default().refuse_loopback());
    // A name is judged by the address that it has.
    let by_name = url.replace("127.0.0.1", "localhost");
    for (policy, url) in [(elsewhere, url), (inward.clone(), url), (inward, &by_name)] {
        let error = under(policy, url).err().unwrap();
        assert!(error.is_forbidden(), "{url}: {error}");
    }
    let metadata = "ssh://git@169.254.169.254/r.git";
    let error = under(Policy::default(), metadata).err().unwrap();
    let GitError::Forbidden { reason, .. } = error else {
        panic!("{error}");
    };
    assert!(matches!(reason, Forbidden::Address(_)), "{reason}");
    assert_eq!(server.log().len(), before, "nobody was asked");
}

#[test]
fn submodules_come_over_ssh() {
    let server = SshServer::start();
    let library = server.repository("group/library.git");
    let inner = server.repository("inner.git");
    let commit = inner.file("inner", "inner").commit("inner");
    let commit = {
        library.submodule("deep/inner", "../../inner.git", &commit);
        library.file("lib", "lib").commit("library")
    };
    let app = server.repository("group/app.git");
    app.submodule("vendor/relative", "../library.git", &commit);
    app.submodule("vendor/absolute", library.url(), &commit);
    app.commit("app");
    let (_dest, done) = check_out(&client(with_key(&server)), app.url()).unwrap();
    for place in ["vendor/relative", "vendor/absolute"] {
        let read = |name: &str| fs::read_to_string(done.tree.join(place).join(name)).unwrap();
        assert_eq!(
            (read("lib").as_str(), read("deep/inner/inner").as_str()),
            ("lib", "inner")
        );
    }
}

#[test]
fn large_files_come_from_where_the_server_says() {
    let (server, large) = (SshServer::start(), GitServer::start());
    let pointer = large.large_file(b"large");
    let repository = server.repository("group/app.git");
    repository.file("model.bin", &pointer).commit("large");
    large.require_login("me", "s3cret");
    let login = "Basic bWU6czNjcmV0";
    let answer = |header: &str| {
        let href = format!("{}/info/lfs", large.url("any.git"));
        let json = format!(r#"{{"href": "{href}", "header": {{"Authorization": "{header}"}}}}"#);
        server.command(
            "git-lfs-authenticate",
            &format!(
                "#!/bin/sh\necho \"$@\" > {}\necho '{json}'\n",
                asked(&server).display()
            ),
        );
    };
    answer(login);
    let (_dest, done) = check_out(&client(with_key(&server)), repository.url()).unwrap();
    assert_eq!(fs::read(done.tree.join("model.bin")).unwrap(), b"large");
    let words = fs::read_to_string(asked(&server)).unwrap();
    assert!(
        words.trim_end().ends_with("/group/app.git download"),
        "{words}"
    );

    answer("Basic d3Jvbmc=");
    let error = failure(with_key(&server), repository.url());
    assert!(matches!(error, GitError::AccessRefused { .. }), "{error:?}");
}

/// The file in which a command writes what it was asked.
fn asked(server: &SshServer) -> PathBuf {
    server
        .key()
        .parent()
        .map(Path::to_owned)
        .unwrap()
        .join("asked")
}
