//! Our server as somebody runs it: with accounts, with quotas, with garbage, for many at
//! once, and killed in the middle.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures::future::join_all;
use ocibuild_registry::server::{
    Accounts, Collected, GarbagePolicy, Quota, Settings, Store, router_with, serve,
};
use ocibuild_registry::{
    Client, Credential, Credentials, Digest, Index, Platform, Progress, Reference, Repository,
    media_type,
};

use crate::support::{blob, client, image, quick};

/// Serves a store on loopback until the test's runtime ends; gives its host.
async fn host(store: Store, settings: Settings) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let app = router_with(store, settings);
    tokio::spawn(axum::serve(listener, app).into_future());
    host
}

fn name(host: &str, rest: &str) -> Reference {
    format!("{host}/{rest}").parse().unwrap()
}

fn login(host: &str, user: &str, password: &str) -> Client {
    let credential = Credential::password(user, password);
    let credentials = Credentials::anonymous().with(host, credential);
    let builder = Client::builder().retry(quick()).credentials(credentials);
    builder.build().unwrap()
}

async fn push(client: &Client, name: &Reference, seed: u64) -> Result<Digest, String> {
    let image = image(seed, &[20_000, 3000]);
    let pushed = client.push_image(name, &image, &Progress::none()).await;
    pushed
        .map(|pushed| pushed.digest)
        .map_err(|error| error.reason())
}

async fn can_pull(client: &Client, name: &Reference) -> bool {
    let platform: Platform = "linux/amd64".parse().unwrap();
    let Ok(image) = client.image(name, &platform).await else {
        return false;
    };
    for layer in &image.manifest.layers {
        if client
            .blob_bytes(name.repository(), layer, 1 << 20)
            .await
            .is_err()
        {
            return false;
        }
    }
    true
}

#[tokio::test]
async fn accounts_may_do_what_their_lines_say() {
    let folder = tempfile::tempdir().unwrap();
    let accounts = "pull * reader r\npush team writer w\ndelete * root all\n";
    let settings = Settings {
        accounts: Some(Accounts::parse(accounts).unwrap()),
    };
    let host = host(Store::open(folder.path()).unwrap(), settings).await;
    let (reader, writer) = (login(&host, "reader", "r"), login(&host, "writer", "w"));
    let root = login(&host, "root", "all");
    let (ours, theirs) = (name(&host, "team/app:v1"), name(&host, "other/app:v1"));

    push(&writer, &ours, 80).await.unwrap();
    // The first question is a HEAD, whose answer has no words.
    let denied = push(&writer, &theirs, 80).await.unwrap_err();
    assert!(denied.contains("403"), "{denied}");
    assert!(
        push(&reader, &ours, 81)
            .await
            .unwrap_err()
            .contains("DENIED")
    );
    push(&root, &theirs, 82).await.unwrap();
    assert!(can_pull(&reader, &ours).await && can_pull(&reader, &theirs).await);
    assert!(can_pull(&writer, &ours).await && !can_pull(&writer, &theirs).await);
    assert!(!can_pull(&client(), &ours).await);
    let wrong = push(&login(&host, "writer", "x"), &ours, 83)
        .await
        .unwrap_err();
    assert!(wrong.contains("401"), "{wrong}");
    assert!(writer.delete_tag(&ours).await.unwrap_err().is_denied());
    // Mounting is a way to read.
    let blob = image(82, &[20_000, 3000]).layers.remove(0);
    let from: Repository = format!("{host}/other/app").parse().unwrap();
    let outcome = writer
        .push_blob(
            ours.repository(),
            &blob.descriptor,
            &blob.source,
            &[from],
            &Progress::none(),
        )
        .await
        .unwrap();
    assert_eq!(outcome, ocibuild_registry::BlobOutcome::Uploaded);
    root.delete_manifest(&ours).await.unwrap();
}

#[tokio::test]
async fn everybody_may_read_where_that_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let accounts = Accounts::parse("pull * *\npush * writer w\n").unwrap();
    let settings = Settings {
        accounts: Some(accounts),
    };
    let host = host(Store::open(folder.path()).unwrap(), settings).await;
    let image = name(&host, "team/app:v1");
    push(&login(&host, "writer", "w"), &image, 84)
        .await
        .unwrap();
    assert!(can_pull(&client(), &image).await);
    let refused = push(&client(), &image, 85).await.unwrap_err();
    assert!(
        refused.contains("401") || refused.contains("UNAUTHORIZED"),
        "{refused}"
    );
}

#[tokio::test]
async fn quotas_are_kept() {
    for quota in [
        Quota {
            total: Some(60_000),
            repository: None,
        },
        Quota {
            total: None,
            repository: Some(30_000),
        },
    ] {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_with(folder.path(), quota).unwrap();
        let host = host(store, Settings::default()).await;
        let client = client();
        push(&client, &name(&host, "a:v1"), 86).await.unwrap();
        // What is there already takes no room.
        push(&client, &name(&host, "a:v2"), 86).await.unwrap();
        let second = push(&client, &name(&host, "a:v3"), 87).await;
        assert_eq!(second.is_err(), quota.repository.is_some(), "{second:?}");
        let full = match quota.repository {
            Some(_) => second.unwrap_err(),
            None => push(&client, &name(&host, "b:v1"), 88).await.unwrap_err(),
        };
        assert!(
            full.contains("DENIED") && full.contains("are free"),
            "{full}"
        );
    }
}

#[tokio::test]
async fn what_a_quota_refuses_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let quota = Quota {
        total: Some(50_000),
        repository: None,
    };
    let store = Store::open_with(folder.path(), quota).unwrap();
    let host = host(store, Settings::default()).await;
    let (descriptor, source) = blob(89, 100_000);
    let none = Progress::none();
    let repository: Repository = format!("{host}/c").parse().unwrap();
    let large = client()
        .push_blob(&repository, &descriptor, &source, &[], &none)
        .await;
    assert!(large.unwrap_err().reason().contains("50000 are free"));
    let left = std::fs::read_dir(folder.path().join("uploads")).unwrap();
    assert_eq!(left.count(), 0);
}

/// Collects without a time of grace.
fn collect(store: &Store, untagged: bool) -> Collected {
    let policy = GarbagePolicy {
        grace: Duration::ZERO,
        untagged,
    };
    store.collect_garbage(&policy).unwrap()
}

#[tokio::test]
async fn garbage_goes_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let host = host(store.clone(), Settings::default()).await;
    let client = client();
    let (kept, gone) = (name(&host, "a:v1"), name(&host, "b:v1"));
    push(&client, &kept, 90).await.unwrap();
    push(&client, &gone, 91).await.unwrap();
    let (loose, source) = blob(92, 7000);
    let none = Progress::none();
    let loose = client.push_blob(kept.repository(), &loose, &source, &[], &none);
    loose.await.unwrap();

    let young = store.collect_garbage(&GarbagePolicy::default()).unwrap();
    assert_eq!(young, Collected::default());
    let first = collect(&store, false);
    assert_eq!((first.links, first.contents, first.bytes), (1, 1, 7000));
    client.delete_manifest(&gone).await.unwrap();
    let second = collect(&store, false);
    // Two layers and the configuration, and the manifest's own content.
    assert_eq!((second.links, second.contents), (3, 4));
    assert!(can_pull(&client, &kept).await);
    push(&client, &gone, 91).await.unwrap();
    assert!(can_pull(&client, &gone).await);
    assert_eq!(collect(&store, false), Collected::default());
}

#[tokio::test]
async fn what_no_tag_leads_to_is_garbage_where_that_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let host = host(store.clone(), Settings::default()).await;
    let client = client();
    let tag = name(&host, "app:v1");
    let first = push(&client, &tag, 93).await.unwrap();
    let at = |digest| tag.repository().with_digest(digest);
    let by_digest = Digest::sha256(&image(94, &[20_000, 3000]).manifest);
    push(&client, &at(by_digest), 94).await.unwrap();
    let descriptor = client.resolve(&at(by_digest)).await.unwrap();
    let index = serde_json::to_vec(&Index::of(vec![descriptor])).unwrap();
    let index_tag = name(&host, "app:index");
    let pushed = client
        .push_manifest(&index_tag, media_type::INDEX, &index)
        .await;
    pushed.unwrap();
    // The tag moves on, and leaves its first image behind.
    push(&client, &tag, 95).await.unwrap();

    assert_eq!(collect(&store, false), Collected::default());
    let collected = collect(&store, true);
    assert_eq!((collected.manifests, collected.links), (1, 3));
    assert_eq!(client.head(&at(first)).await.unwrap(), None);
    assert!(can_pull(&client, &tag).await && can_pull(&client, &at(by_digest)).await);
}

#[tokio::test]
async fn garbage_is_collected_while_images_are_pushed() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let host = host(store.clone(), Settings::default()).await;
    let policy = GarbagePolicy {
        grace: Duration::from_secs(60),
        untagged: true,
    };
    let client = client();
    let pushes = (0..20).map(|seed| {
        let (client, host) = (client.clone(), host.clone());
        async move {
            // Half of the images are the same, so that their blobs are mounted and found.
            let image = name(&host, &format!("app{seed}:v1"));
            push(&client, &image, 100 + seed % 10).await.unwrap();
            assert!(can_pull(&client, &image).await, "{image}");
        }
    });
    let collecting = tokio::task::spawn_blocking(move || {
        for _ in 0..50 {
            store.collect_garbage(&policy).unwrap();
        }
    });
    join_all(pushes).await;
    collecting.await.unwrap();
}

#[tokio::test]
async fn two_hundred_pull_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let host = host(Store::open(folder.path()).unwrap(), Settings::default()).await;
    let image_name = name(&host, "app:v1");
    let image = image(96, &[2_000_000]);
    let none = Progress::none();
    // The machine may be busy with more than this.
    let client = Client::builder().build().unwrap();
    client.push_image(&image_name, &image, &none).await.unwrap();
    // All have their answer before anybody reads on: a server that gives each reader a
    // thread of its own has none left then.
    let layer = &image.layers[0].descriptor;
    let opened = (0..200).map(|_| client.blob(image_name.repository(), layer));
    let opened = join_all(opened).await;
    let read = opened.into_iter().map(async |blob| {
        let mut blob = blob.unwrap();
        let mut length = 0;
        while let Some(piece) = blob.next_piece().await.unwrap() {
            length += piece.len();
        }
        length
    });
    let lengths = join_all(read).await;
    assert_eq!(lengths, vec![2_000_000; 200]);
}

const FOLDER: &str = "OCIBUILD_TEST_REGISTRY";

/// No test, but the server of the next one, which starts it as a program that it can kill.
#[test]
fn a_server_to_be_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        std::fs::write(Path::new(&folder).join("address"), address.to_string()).unwrap();
        let store = Store::open(Path::new(&folder).join("store")).unwrap();
        writeln!(std::io::stderr(), "ready").unwrap();
        serve(listener, store, std::future::pending())
            .await
            .unwrap();
    });
}

fn start(folder: &Path) -> (Child, String) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "embedded::a_server_to_be_killed", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let ready = lines.find(|line| line.as_ref().is_ok_and(|line| line == "ready"));
    assert!(ready.is_some(), "the server does not start");
    let host = std::fs::read_to_string(folder.join("address")).unwrap();
    (child, host)
}

#[tokio::test]
async fn whatever_a_killed_server_confirmed_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let mut confirmed: Vec<(u64, String)> = Vec::new();
    for round in 0..6 {
        let (mut server, host) = start(folder.path());
        for (seed, rest) in &confirmed {
            let image = name(&host, rest);
            assert!(can_pull(&client(), &image).await, "{seed} {image}");
        }
        // Many pushes are on their way when the server is killed, each time later.
        let pushes = (0..12).map(|number| {
            let seed = 1000 + round * 100 + number;
            let rest = format!("app{number}:v{round}");
            let (client, image) = (client(), name(&host, &rest));
            async move {
                let pushed = push(&client, &image, seed).await;
                pushed.ok().map(|_| (seed, rest))
            }
        });
        let kill = async {
            let until = folder.path().join("store/repositories");
            let wanted = usize::try_from(round * 2 + 1).unwrap();
            while std::fs::read_dir(&until).map_or(0, Iterator::count) < wanted {
                tokio::task::yield_now().await;
            }
            server.kill().unwrap();
            server.wait().unwrap();
        };
        let (done, ()) = tokio::join!(join_all(pushes), kill);
        confirmed.extend(done.into_iter().flatten());
    }
    let store = Store::open(folder.path().join("store")).unwrap();
    collect(&store, true);
    let (mut server, host) = start(folder.path());
    for (_, rest) in &confirmed {
        assert!(can_pull(&client(), &name(&host, rest)).await, "{rest}");
    }
    server.kill().unwrap();
    server.wait().unwrap();
}
