//! From one registry to another, and what refers to an image on the way.

use bytes::Bytes;
use ocibuild_registry::testing::{Answer, Fault, Registry};
use ocibuild_registry::{
    Client, Copy, Descriptor, Digest, Error, Index, Progress, Reference, Repository, media_type,
};

use crate::support::{Judged, client, image};

async fn push(client: &Client, name: &Reference, seed: u64) -> Descriptor {
    let image = image(seed, &[300_000, 5000]);
    let none = Progress::none();
    client.push_image(name, &image, &none).await.unwrap();
    Descriptor::of(&image.media_type, &image.manifest)
}

/// Pushes an index of two platforms, with an attestation of the first.
async fn push_index(client: &Client, name: &Reference) -> Index {
    let repository = name.repository();
    let mut entries = Vec::new();
    for (seed, platform) in [
        (40, "linux/amd64"),
        (41, "linux/arm64"),
        (42, "unknown/unknown"),
    ] {
        let digest = Digest::sha256(&image(seed, &[300_000, 5000]).manifest);
        let mut entry = push(client, &repository.with_digest(digest), seed).await;
        entry.platform = Some(platform.parse().unwrap());
        entries.push(entry);
    }
    let owner = entries[0].digest.to_string();
    let key = "vnd.docker.reference.digest".to_owned();
    entries[2].annotations.insert(key, owner);
    let index = Index::of(entries);
    let bytes = serde_json::to_vec(&index).unwrap();
    let pushed = client.push_manifest(name, media_type::INDEX, &bytes).await;
    pushed.unwrap();
    index
}

/// Pushes an artifact that refers to a manifest; gives its digest.
async fn sign(client: &Client, repository: &Repository, subject: &Descriptor) -> Digest {
    let config = Bytes::from_static(b"{}");
    let config = Descriptor::of("application/vnd.example.signature", &config);
    let source = ocibuild_registry::BlobSource::Bytes(Bytes::from_static(b"{}"));
    let none = Progress::none();
    let blob = client.push_blob(repository, &config, &source, &[], &none);
    blob.await.unwrap();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::MANIFEST, "config": config, "layers": [],
        "subject": Descriptor { platform: None, annotations: Default::default(), ..subject.clone() },
    });
    let bytes = manifest.to_string().into_bytes();
    let digest = Digest::sha256(&bytes);
    let name = repository.with_digest(digest);
    let pushed = client.push_manifest(&name, media_type::MANIFEST, &bytes);
    pushed.await.unwrap()
}

async fn digests(client: &Client, repository: &Repository, subject: &Digest) -> Vec<Digest> {
    let found = client.referrers(repository, subject).await.unwrap();
    found.into_iter().map(|entry| entry.digest).collect()
}

#[tokio::test]
async fn an_index_goes_whole_or_in_parts() {
    let (from, to) = (Registry::start().unwrap(), Registry::start().unwrap());
    let client = client();
    let name = from.reference("team/app:v1");
    let index = push_index(&client, &name).await;
    let none = Progress::none();
    let copy = |platforms: &[&str]| Copy {
        platforms: platforms.iter().map(|text| text.parse().unwrap()).collect(),
        referrers: false,
    };

    let whole = to.reference("whole:v1");
    let copied = client.copy(&name, &whole, &copy(&[]), &none).await.unwrap();
    assert_eq!(copied.moved, to.uploaded_bytes());
    let (_, bytes) = client.manifest(&whole).await.unwrap();
    assert_eq!(serde_json::from_slice::<Index>(&bytes).unwrap(), index);
    let again = client.copy(&name, &whole, &copy(&[]), &none).await.unwrap();
    assert_eq!((again.digest, again.moved), (copied.digest, 0));

    let one = to.reference("one:v1");
    let copied = client
        .copy(&name, &one, &copy(&["linux/arm64"]), &none)
        .await
        .unwrap();
    assert_eq!(copied.digest, index.manifests[1].digest);

    let some = to.reference("some:v1");
    let wanted = copy(&["linux/amd64", "linux/amd64/v1"]);
    client.copy(&name, &some, &wanted, &none).await.unwrap();
    let (_, bytes) = client.manifest(&some).await.unwrap();
    let smaller: Index = serde_json::from_slice(&bytes).unwrap();
    let kept: Vec<Digest> = smaller.manifests.iter().map(|entry| entry.digest).collect();
    assert_eq!(kept, [index.manifests[0].digest, index.manifests[2].digest]);

    let error = client
        .copy(&name, &some, &copy(&["linux/amd64", "linux/s390x"]), &none)
        .await;
    assert!(
        matches!(error, Err(Error::NoSuchPlatform { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn within_a_registry_nothing_is_moved() {
    for registry in [Some(Judged::ours()), Judged::debian()]
        .into_iter()
        .flatten()
    {
        let client = client();
        let name = registry.reference("team/app:v1");
        push(&client, &name, 43).await;
        let to = registry.reference("elsewhere/app:v2");
        let copied = client
            .copy(&name, &to, &Copy::default(), &Progress::none())
            .await
            .unwrap();
        assert_eq!(copied.moved, 0);
        let resolved = client.resolve(&to).await.unwrap();
        assert_eq!(resolved.digest, copied.digest);
    }
}

#[tokio::test]
async fn a_copy_survives_breaks_on_both_sides() {
    let (from, to) = (Registry::start().unwrap(), Registry::start().unwrap());
    let client = client();
    let name = from.reference("app:v1");
    let want = push(&client, &name, 44).await;
    from.inject("GET", "/v2/app/blobs/", 1, Fault::TruncateAfter(100_000));
    from.inject("GET", "/v2/app/blobs/", 2, Fault::Status(503));
    to.break_line_every(200_000);
    let copied = client
        .copy(
            &name,
            &to.reference("app:v1"),
            &Copy::default(),
            &Progress::none(),
        )
        .await
        .unwrap();
    assert_eq!(copied.digest, want.digest);
}

#[tokio::test]
async fn what_refers_to_an_image_goes_along() {
    // Debian's registry has no list of referrers: a tag stands in for it.
    for target in [Some(Judged::ours()), Judged::debian()]
        .into_iter()
        .flatten()
    {
        let from = Registry::start().unwrap();
        let client = client();
        let name = from.reference("team/app:v1");
        let subject = push(&client, &name, 45).await;
        let signature = sign(&client, name.repository(), &subject).await;
        let about = client
            .manifest(&name.repository().with_digest(signature))
            .await
            .unwrap();
        let second = sign(&client, name.repository(), &about.0).await;

        let to = target.reference("copied/app:v1");
        let what = Copy {
            referrers: true,
            ..Copy::default()
        };
        client
            .copy(&name, &to, &what, &Progress::none())
            .await
            .unwrap();
        let found = digests(&client, to.repository(), &subject.digest).await;
        assert_eq!(found, [signature]);
        let found = digests(&client, to.repository(), &signature).await;
        assert_eq!(found, [second]);
        let artifact = client
            .referrers(to.repository(), &subject.digest)
            .await
            .unwrap();
        let kind = artifact[0].artifact_type.as_deref();
        assert_eq!(kind, Some("application/vnd.example.signature"));
    }
}

#[tokio::test]
async fn images_are_deleted_with_what_belongs_to_them() {
    for registry in [Some(Judged::ours()), Judged::debian()]
        .into_iter()
        .flatten()
    {
        let client = client();
        let name = registry.reference("team/app:v1");
        let index = push_index(&client, &name).await;
        let repository = name.repository();
        let signature = sign(&client, repository, &index.manifests[0]).await;
        let deleted = client.delete_tree(&name).await.unwrap();
        assert_eq!(deleted.len(), 5);
        for digest in deleted.into_iter().chain([signature]) {
            let left = client.head(&repository.with_digest(digest)).await.unwrap();
            assert_eq!(left, None, "{digest}");
        }
        let left = digests(&client, repository, &index.manifests[0].digest).await;
        assert_eq!(left, []);
    }
}

#[tokio::test]
async fn a_page_that_is_no_list_is_none() {
    let registry = Registry::start().unwrap();
    let name = registry.reference("app:v1");
    let page = Answer {
        status: 200,
        headers: vec![("content-type".to_owned(), "text/html".to_owned())],
        body: b"<html>".to_vec(),
    };
    registry.inject("GET", "/v2/app/referrers/", 1, Fault::Answer(page));
    let (client, nothing) = (client(), Digest::sha256(b"x"));
    let found = digests(&client, name.repository(), &nothing).await;
    assert_eq!(found, []);
}
