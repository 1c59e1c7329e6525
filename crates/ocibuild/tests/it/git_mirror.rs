//! Mirrors of repositories in a store: what they save, who may use them, and what becomes
//! of them when they are interrupted or damaged.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::SystemTime;

use ocibuild::content::ContentStore;
use ocibuild::content::prune::Prune;
use ocibuild::content::usage::Kind;
use ocibuild::git::{self, Checkout, GitError, GitSource, Policy};
use ocibuild::registry::Secret;
use ocibuild::testing::{GitRepository, GitServer};
use ocibuild::{Cancel, net::AddressPolicy};
use ocibuild_registry::testing::noise;
use tempfile::TempDir;

/// Requests that ask which commit a branch is at: who may come in, twice, and the list.
const ASKED: usize = 3;
/// Requests that fetch it too.
const FETCHED: usize = 3;

/// A store, and a server with a repository.
struct Yard {
    store: TempDir,
    server: GitServer,
    repository: GitRepository,
    first: String,
}

impl Yard {
    fn new() -> Self {
        let server = GitServer::start();
        let repository = server.repository("group/app.git");
        let first = repository
            .file("large", noise(1, 300_000))
            .file("folder/name", "one")
            .commit("first");
        Self {
            store: tempfile::tempdir().unwrap(),
            server,
            repository,
            first,
        }
    }

    fn source(&self, reference: &str) -> GitSource {
        GitSource::parse(&format!("{}#{reference}", self.repository.url())).unwrap()
    }

    fn client(&self) -> git::Client {
        let store = ContentStore::open(self.store.path()).unwrap();
        git::Client::new(Policy::default()).mirrors(store)
    }

    fn try_check_out(&self, source: &GitSource) -> Result<Copy, GitError> {
        check_out(&self.client(), source)
    }

    fn check_out(&self, reference: &str) -> Copy {
        self.try_check_out(&self.source(reference)).unwrap()
    }

    /// Gives what a checkout costs: requests, and fetches among them.
    fn cost(&self, reference: &str) -> (Copy, usize, usize) {
        let before = (self.server.seen().len(), self.server.fetches());
        let copy = self.check_out(reference);
        let after = (self.server.seen().len(), self.server.fetches());
        (copy, after.0 - before.0, after.1 - before.1)
    }

    fn mirrors(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.store.path().join("git"));
        let entries = entries.into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// Gives the only mirror.
    fn mirror(&self) -> PathBuf {
        let [mirror] = &self.mirrors()[..] else {
            panic!("{:?}", self.mirrors());
        };
        mirror.clone()
    }

    fn pack(&self) -> PathBuf {
        let packs = fs::read_dir(self.mirror().join("objects/pack")).unwrap();
        let mut packs = packs.map(|entry| entry.unwrap().path());
        let is_pack = |path: &PathBuf| path.extension().is_some_and(|name| name == "pack");
        packs.find(is_pack).unwrap()
    }
}

struct Copy {
    _dest: TempDir,
    done: Checkout,
}

impl Copy {
    fn read(&self, path: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.done.tree.join(path)).unwrap()).into_owned()
    }
}

fn check_out(client: &git::Client, source: &GitSource) -> Result<Copy, GitError> {
    let dest = tempfile::tempdir().unwrap();
    let done = client.checkout(source, dest.path(), &Cancel::new(), &|_| {})?;
    Ok(Copy { _dest: dest, done })
}

#[test]
fn what_has_not_changed_is_only_asked_for() {
    let yard = Yard::new();
    let (copy, requests, fetches) = yard.cost("main");
    assert_eq!((requests, fetches), (ASKED + FETCHED, 1));
    assert_eq!(copy.done.commit, yard.first);
    for name in ["main", "refs/heads/main", "HEAD"] {
        let (copy, requests, fetches) = yard.cost(name);
        assert_eq!((requests, fetches), (ASKED, 0), "{name}");
        assert_eq!(copy.read("folder/name"), "one");
        assert_eq!(
            fs::read(copy.done.tree.join("large")).unwrap(),
            noise(1, 300_000)
        );
        assert!(!copy.done.tree.join(".git").exists());
    }
}

#[test]
fn a_known_commit_that_everybody_may_see_is_not_asked_for() {
    let yard = Yard::new();
    yard.check_out("main");
    let first = yard.first.clone();
    let (copy, requests, _) = yard.cost(&first);
    assert_eq!((copy.done.commit, requests), (first, 0));
}

#[test]
fn only_what_is_new_is_fetched() {
    for old in [false, true] {
        let yard = Yard::new();
        if old {
            yard.server.use_old_protocol();
        }
        yard.check_out("main");
        for text in ["two", "three"] {
            let commit = yard.repository.file("folder/name", text).commit(text);
            let before = yard.server.bytes_sent();
            let (copy, _, fetches) = yard.cost("main");
            assert_eq!((fetches, &copy.done.commit), (1, &commit), "old: {old}");
            assert_eq!(copy.read("folder/name"), text);
            let sent = yard.server.bytes_sent() - before;
            assert!(sent < 10_000, "{sent} bytes, old: {old}");
        }
        // The history is not there, and is not needed to go back.
        let (copy, ..) = yard.cost(&yard.first.clone());
        assert_eq!(copy.read("folder/name"), "one");
    }
}

#[test]
fn branches_that_are_folders_of_earlier_ones_do_not_collide() {
    let yard = Yard::new();
    yard.repository.branch("x").file("f", "x").commit("x");
    assert_eq!(yard.check_out("x").read("f"), "x");
    yard.repository.switch("main");
    yard.repository.git(&["branch", "--quiet", "-D", "x"]);
    yard.repository.branch("x/y").file("f", "y").commit("y");
    assert_eq!(yard.check_out("x/y").read("f"), "y");
    yard.repository.git(&["tag", "-a", "-m", "t", "deep/tag"]);
    assert_eq!(yard.check_out("deep/tag").read("f"), "y");
}

#[test]
fn a_branch_that_was_rewritten_is_what_it_is_now() {
    let yard = Yard::new();
    yard.repository.file("folder/name", "two").commit("second");
    yard.check_out("main");
    yard.repository
        .git(&["reset", "--quiet", "--hard", &yard.first]);
    let commit = yard.repository.file("folder/name", "other").commit("other");
    let copy = yard.check_out("main");
    assert_eq!(
        (copy.read("folder/name").as_str(), copy.done.commit),
        ("other", commit)
    );
}

#[test]
fn builds_at_the_same_time_share_a_fetch() {
    const BUILDS: usize = 4;
    let yard = Yard::new();
    let together = Barrier::new(BUILDS);
    std::thread::scope(|scope| {
        for _ in 0..BUILDS {
            scope.spawn(|| {
                // A store of its own, as another process has.
                let client = yard.client();
                together.wait();
                let copy = check_out(&client, &yard.source("main")).unwrap();
                assert_eq!(copy.read("folder/name"), "one");
            });
        }
    });
    assert_eq!(yard.server.fetches(), 1);
    assert_eq!(yard.server.seen().len(), BUILDS * ASKED + FETCHED);
}

#[test]
fn who_may_not_read_a_repository_does_not_get_its_mirror() {
    let yard = Yard::new();
    yard.server.require_login("x-access-token", "s3cret");
    let mut source = yard.source("main");
    source.token = Some(Secret::new("s3cret"));
    yard.try_check_out(&source).unwrap();
    for (name, token) in [
        ("main", None),
        ("main", Some("wrong")),
        (&*yard.first, None),
        (&*yard.first, Some("wrong")),
    ] {
        let mut source = yard.source(name);
        source.token = token.map(Secret::new);
        let error = yard.try_check_out(&source).err().unwrap();
        assert!(
            matches!(error, GitError::AccessRefused { .. }),
            "{name}: {error}"
        );
    }
    // Who may is asked for the login and for nothing else.
    source.reference = Some(yard.first.clone());
    let before = yard.server.seen().len();
    yard.try_check_out(&source).unwrap();
    let seen = yard.server.seen().split_off(before);
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(seen[0].authorization.is_some());
    assert_eq!(yard.mirrors().len(), 1, "what was refused left nothing");
}

#[test]
fn what_became_private_is_not_served_from_what_was_public() {
    let yard = Yard::new();
    yard.check_out("main");
    let secret = yard
        .repository
        .file("folder/name", "secret")
        .commit("secret");
    yard.server.require_login("x-access-token", "s3cret");
    let mut source = yard.source(&secret);
    source.token = Some(Secret::new("s3cret"));
    yard.try_check_out(&source).unwrap();
    for name in [&*secret, "main"] {
        let error = yard.try_check_out(&yard.source(name)).err().unwrap();
        assert!(
            matches!(error, GitError::AccessRefused { .. }),
            "{name}: {error}"
        );
    }
}

#[test]
fn the_policy_is_kept_to_without_asking() {
    let yard = Yard::new();
    yard.check_out("main");
    let store = ContentStore::open(yard.store.path()).unwrap();
    let before = yard.server.seen().len();
    for policy in [
        Policy::default().only_from(["elsewhere".parse().unwrap()]),
        Policy::default().https_only(),
        Policy::default().addresses(AddressPolicy::default().refuse_loopback()),
    ] {
        let client = git::Client::new(policy).mirrors(store.clone());
        let error = check_out(&client, &yard.source(&yard.first)).err().unwrap();
        assert!(matches!(error, GitError::Forbidden { .. }), "{error}");
    }
    assert_eq!(yard.server.seen().len(), before);
}

#[test]
fn a_mirror_that_somebody_died_in_is_made_again() {
    let yard = Yard::new();
    yard.check_out("main");
    let commit = yard.repository.file("folder/name", "two").commit("second");
    // What is left when a process is killed while it adds.
    let mirror = yard.mirror();
    fs::write(mirror.join("busy"), "").unwrap();
    fs::write(mirror.join("shallow.lock"), "half").unwrap();
    fs::write(mirror.join("objects/pack/pack-1.pack"), "PACK").unwrap();
    // A commit that is there can still be read.
    assert_eq!(yard.cost(&yard.first.clone()).1, 0);
    let (copy, _, fetches) = yard.cost("main");
    assert_eq!((copy.done.commit, fetches), (commit, 1));
    assert!(!yard.mirror().join("busy").exists());
    assert!(!yard.mirror().join("shallow.lock").exists());
}

#[test]
fn a_damaged_mirror_is_made_again() {
    type Damage<'a> = (&'a str, &'a dyn Fn(&Yard));
    let damages: [Damage; 8] = [
        ("bytes of the pack", &|yard| {
            let mut pack = writable(&yard.pack());
            let end = pack.seek(SeekFrom::End(0)).unwrap();
            for at in (40..end - 40).step_by(97) {
                pack.seek(SeekFrom::Start(at)).unwrap();
                pack.write_all(&[0xa5]).unwrap();
            }
        }),
        ("the end of the pack", &|yard| {
            let pack = writable(&yard.pack());
            pack.set_len(pack.metadata().unwrap().len() / 2).unwrap();
        }),
        ("an empty pack", &|yard| {
            writable(&yard.pack()).set_len(0).unwrap()
        }),
        ("no pack", &|yard| fs::remove_file(yard.pack()).unwrap()),
        ("an empty index", &|yard| {
            writable(&yard.pack().with_extension("idx"))
                .set_len(0)
                .unwrap();
        }),
        ("half an index", &|yard| {
            let index = writable(&yard.pack().with_extension("idx"));
            index.set_len(index.metadata().unwrap().len() / 2).unwrap();
        }),
        ("no HEAD", &|yard| {
            fs::remove_file(yard.mirror().join("HEAD")).unwrap()
        }),
        ("no objects", &|yard| {
            fs::remove_dir_all(yard.mirror().join("objects")).unwrap();
        }),
    ];
    for (what, damage) in damages {
        let yard = Yard::new();
        yard.check_out("main");
        damage(&yard);
        let (copy, _, fetches) = yard.cost("main");
        assert_eq!(fetches, 1, "{what}");
        assert_eq!(copy.read("folder/name"), "one", "{what}");
        assert_eq!(
            fs::read(copy.done.tree.join("large")).unwrap(),
            noise(1, 300_000)
        );
        assert_eq!(yard.cost("main").2, 0, "{what}: it is whole again");
    }
}

#[test]
fn a_damaged_mirror_is_noticed_when_it_is_added_to() {
    let yard = Yard::new();
    yard.check_out("main");
    fs::write(yard.mirror().join("shallow"), "no commit\n").unwrap();
    let commit = yard.repository.file("folder/name", "two").commit("second");
    let (copy, ..) = yard.cost("main");
    assert_eq!(
        (copy.read("folder/name").as_str(), copy.done.commit),
        ("two", commit)
    );
}

fn writable(path: &Path) -> fs::File {
    let mut permissions = fs::metadata(path).unwrap().permissions();
    #[expect(
        clippy::permissions_set_readonly_false,
        reason = "it is a copy of a test"
    )]
    permissions.set_readonly(false);
    fs::set_permissions(path, permissions).unwrap();
    fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap()
}

#[test]
fn a_mirror_goes_with_what_is_unused() {
    let yard = Yard::new();
    yard.check_out("main");
    fs::File::open(yard.mirror())
        .unwrap()
        .set_modified(SystemTime::UNIX_EPOCH)
        .unwrap();
    let store = ContentStore::open(yard.store.path()).unwrap();
    let prune = Prune {
        kinds: vec![Kind::Git],
        ..Prune::default()
    };
    let pruned = store.prune(&prune, &|path| panic!("{} stays", path.display()));
    assert_eq!(pruned.unwrap().kinds[&Kind::Git].0, 1);
    assert!(yard.mirrors().is_empty());
    assert_eq!(yard.check_out("main").read("folder/name"), "one");
    // A process that works on the store keeps what it has seen.
    let pruned = store.prune(&prune, &|path| panic!("{} stays", path.display()));
    assert_eq!(pruned.unwrap().kinds.len(), 0);
}

#[test]
fn submodules_that_have_not_changed_are_not_asked_for() {
    let yard = Yard::new();
    let library = yard.server.repository("group/library.git");
    let commit = library.file("lib.c", "int x;").commit("library");
    yard.repository
        .submodule("vendor/lib", "../library.git", &commit);
    yard.repository.commit("with a submodule");
    assert_eq!(yard.check_out("main").read("vendor/lib/lib.c"), "int x;");
    let (copy, requests, fetches) = yard.cost("main");
    assert_eq!((requests, fetches), (ASKED, 0));
    assert_eq!(copy.read("vendor/lib/lib.c"), "int x;");
}

#[test]
fn large_files_are_loaded_once_and_believed_by_their_digest() {
    let yard = Yard::new();
    let content = noise(1, 10_000);
    let pointer = yard.server.large_file(&content);
    yard.repository
        .file("model.bin", pointer)
        .commit("a large file");
    let large = |copy: &Copy| fs::read(copy.done.tree.join("model.bin")).unwrap();
    assert_eq!(large(&yard.check_out("main")), content);
    let (copy, requests, _) = yard.cost("main");
    assert_eq!((large(&copy), requests), (content.clone(), ASKED));
    let kept = fs::read_dir(yard.mirror().join("lfs"))
        .unwrap()
        .next()
        .unwrap();
    let mut kept = writable(&kept.unwrap().path());
    let mut byte = [0];
    kept.read_exact(&mut byte).unwrap();
    kept.rewind().unwrap();
    kept.write_all(&[!byte[0]]).unwrap();
    let (copy, requests, _) = yard.cost("main");
    assert_eq!(
        (large(&copy), requests),
        (content, ASKED + 2),
        "the batch and the file"
    );
}

#[test]
fn a_fetch_that_ends_early_leaves_a_mirror_that_works() {
    let yard = Yard::new();
    yard.check_out("main");
    let commit = yard
        .repository
        .file("other", noise(1, 200_000))
        .commit("second");
    yard.server.break_next_packs(3);
    let error = yard.try_check_out(&yard.source("main")).err().unwrap();
    assert!(matches!(error, GitError::Fetch { .. }), "{error}");
    assert_eq!(
        yard.server.fetches(),
        1 + 3,
        "others may help, so it is tried again"
    );
    let before = yard.server.bytes_sent();
    assert_eq!(yard.check_out("main").done.commit, commit);
    let sent = yard.server.bytes_sent() - before;
    assert!(
        sent < 250_000,
        "{sent} bytes: what was there is not sent again"
    );
}
