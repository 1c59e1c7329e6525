//! One suite, two registries: ours and Debian's must look the same to the client.

use std::sync::{Arc, Mutex};

use ocibuild_registry::{
    BlobOutcome, BlobSource, Client, Descriptor, Digest, Index, Platform, Progress, TransferState,
    media_type,
};

use crate::support::{Judged, blob, client, image, noise};

/// Makes a test of the function's name for each registry.
macro_rules! suite {
    ($($name:ident),* $(,)?) => {
        mod ours {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Judged::ours(), super::client()).await;
            })*
        }

        mod debian {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(registry) = super::Judged::debian() {
                    super::$name(registry, super::client()).await;
                }
            })*
        }
    };
}

suite!(
    images_come_back_as_they_went,
    an_unchanged_image_costs_one_request,
    blobs_are_found_mounted_and_uploaded,
    files_are_uploaded_and_downloaded,
    empty_blobs_work,
    indexes_lead_to_platforms,
    tags_are_listed_in_pages,
    what_is_missing_is_told_so,
    manifests_and_blobs_are_deleted,
);

async fn images_come_back_as_they_went(registry: Judged, client: Client) {
    let image = image(1, &[300_000, 10, 2_000_000, 10]);
    let reference = registry.reference("team/app:v1");
    // All futures are Send: a service spawns them.
    let task = {
        let (client, reference, image) = (client.clone(), reference.clone(), image.clone());
        tokio::spawn(async move {
            client
                .push_image(&reference, &image, &Progress::none())
                .await
        })
    };
    let pushed = task.await.unwrap().unwrap();
    assert_eq!(pushed.digest, Digest::sha256(&image.manifest));
    assert!(!pushed.unchanged);

    let pulled = client.image(&reference, &Platform::host()).await.unwrap();
    assert_eq!(pulled.bytes, image.manifest);
    assert_eq!(pulled.index, None);
    let by_digest = registry.repository("team/app").with_digest(pushed.digest);
    assert_eq!(client.resolve(&by_digest).await.unwrap(), pulled.descriptor);
    for (layer, sent) in pulled.manifest.layers.iter().zip(&image.layers) {
        let BlobSource::Bytes(want) = &sent.source else {
            panic!("the image is made of bytes")
        };
        let repository = reference.repository();
        let bytes = client.blob_bytes(repository, layer, 1 << 30).await.unwrap();
        assert_eq!(bytes, *want);
    }
}

async fn an_unchanged_image_costs_one_request(registry: Judged, client: Client) {
    let image = image(2, &[1000, 2000]);
    let reference = registry.reference("app:v1");
    let none = Progress::none();
    client.push_image(&reference, &image, &none).await.unwrap();
    if let Judged::Ours(ours) = &registry {
        ours.clear_requests();
    }
    let again = client.push_image(&reference, &image, &none).await.unwrap();
    assert!(again.unchanged && again.sent == 0);
    if let Judged::Ours(ours) = &registry {
        assert_eq!(ours.requests().len(), 1);
        assert_eq!(ours.uploaded_bytes(), 0);
    }
    // Another tag of the same image: the manifest is sent and no blob.
    let other = registry.reference("app:v2");
    let second = client.push_image(&other, &image, &none).await.unwrap();
    assert!(!second.unchanged && second.sent == 0);
}

async fn blobs_are_found_mounted_and_uploaded(registry: Judged, client: Client) {
    let (descriptor, source) = blob(3, 700_000);
    let states = Arc::new(Mutex::new(Vec::new()));
    let progress = {
        let states = Arc::clone(&states);
        Progress::new(move |transfer| states.lock().unwrap().push(transfer))
    };
    let push = async |path: &str, from: &[_]| {
        let repository = registry.repository(path);
        let pushed = client.push_blob(&repository, &descriptor, &source, from, &progress);
        pushed.await.unwrap()
    };
    assert_eq!(push("a", &[]).await, BlobOutcome::Uploaded);
    assert_eq!(push("a", &[]).await, BlobOutcome::Exists);
    let (a, b) = (registry.repository("a"), registry.repository("b/c"));
    assert_eq!(
        push("d", std::slice::from_ref(&a)).await,
        BlobOutcome::Mounted(a.clone())
    );
    // Only the second of these has it; repositories elsewhere are not asked.
    let elsewhere = "ghcr.io/x/y".parse().unwrap();
    let from = [elsewhere, b.clone(), a.clone()];
    assert_eq!(push("e", &from).await, BlobOutcome::Mounted(a));
    assert_eq!(push("f", &[b]).await, BlobOutcome::Uploaded);

    let states = states.lock().unwrap();
    let moved: Vec<u64> = states
        .iter()
        .take_while(|transfer| transfer.state == TransferState::Moving)
        .map(|transfer| transfer.current)
        .collect();
    assert!(
        moved.is_sorted() && moved.last() == Some(&700_000),
        "{moved:?}"
    );
    let count = |state| states.iter().filter(|t| t.state == state).count();
    assert_eq!(count(TransferState::Done), 2);
    assert_eq!(count(TransferState::Exists), 1);
    assert_eq!(count(TransferState::Mounted), 2);
}

async fn files_are_uploaded_and_downloaded(registry: Judged, client: Client) {
    let folder = tempfile::tempdir().unwrap();
    let (up, down) = (folder.path().join("up"), folder.path().join("down"));
    let bytes = noise(4, 5_000_001);
    std::fs::write(&up, &bytes).unwrap();
    let descriptor = Descriptor::of(media_type::LAYER_TAR, &bytes);
    let repository = registry.repository("files");
    let none = Progress::none();
    client
        .push_blob(&repository, &descriptor, &BlobSource::File(up), &[], &none)
        .await
        .unwrap();
    std::fs::write(&down, "something older").unwrap();
    client
        .download_blob(&repository, &descriptor, &down, &none)
        .await
        .unwrap();
    assert!(std::fs::read(&down).unwrap() == bytes);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

async fn empty_blobs_work(registry: Judged, client: Client) {
    let (descriptor, source) = blob(0, 0);
    let repository = registry.repository("empty");
    let none = Progress::none();
    let push = client.push_blob(&repository, &descriptor, &source, &[], &none);
    push.await.unwrap();
    let bytes = client.blob_bytes(&repository, &descriptor, 0).await;
    assert!(bytes.unwrap().is_empty());
}

async fn indexes_lead_to_platforms(registry: Judged, client: Client) {
    let reference = registry.reference("multi:v1");
    let repository = reference.repository();
    let mut manifests = Vec::new();
    for (seed, platform) in [
        (5, "linux/amd64"),
        (6, "linux/arm64/v8"),
        (7, "unknown/unknown"),
    ] {
        let image = image(seed, &[10]);
        let name = repository.with_digest(Digest::sha256(&image.manifest));
        client
            .push_image(&name, &image, &Progress::none())
            .await
            .unwrap();
        let mut entry = Descriptor::of(media_type::MANIFEST, &image.manifest);
        entry.platform = Some(platform.parse().unwrap());
        manifests.push(entry);
    }
    let index = Index {
        schema_version: 2,
        media_type: Some(media_type::INDEX.to_owned()),
        manifests,
        annotations: Default::default(),
    };
    let bytes = serde_json::to_vec(&index).unwrap();
    let digest = client
        .push_manifest(&reference, media_type::INDEX, &bytes)
        .await
        .unwrap();
    let image = client
        .image(&reference, &Platform::linux("arm64"))
        .await
        .unwrap();
    assert_eq!(image.descriptor.digest, index.manifests[1].digest);
    assert_eq!(image.index.unwrap().digest, digest);
    let error = client
        .image(&reference, &Platform::linux("riscv64"))
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.ends_with("no image for linux/riscv64; there are: linux/amd64, linux/arm64"),
        "{text}"
    );
}

async fn tags_are_listed_in_pages(registry: Judged, client: Client) {
    let image = image(8, &[10]);
    let repository = registry.repository("tags");
    assert!(client.tags(&repository).await.unwrap_err().is_not_found());
    for tag in ["b", "a", "c.1"] {
        let reference = repository.tagged(tag).unwrap();
        client
            .push_image(&reference, &image, &Progress::none())
            .await
            .unwrap();
    }
    // Debian's version does not sort them.
    let mut tags = client.tags(&repository).await.unwrap();
    tags.sort_unstable();
    assert_eq!(tags, ["a", "b", "c.1"]);
}

async fn what_is_missing_is_told_so(registry: Judged, client: Client) {
    let reference = registry.reference("nothing:here");
    assert_eq!(client.head(&reference).await.unwrap(), None);
    let error = client.manifest(&reference).await.unwrap_err();
    assert!(error.is_not_found());
    let text = error.to_string();
    let want =
        format!("pull manifest {reference}: the registry answered 404 Not Found; MANIFEST_UNKNOWN");
    assert!(text.starts_with(&want), "{text}");

    let (descriptor, _) = blob(9, 10);
    let repository = registry.repository("nothing");
    assert!(
        !client
            .exists(&repository, &descriptor.digest)
            .await
            .unwrap()
    );
    let error = client.blob(&repository, &descriptor).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");

    // A manifest whose blobs are not there is refused.
    let image = image(9, &[10]);
    let error = client
        .push_manifest(&reference, &image.media_type, &image.manifest)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("BLOB_UNKNOWN"), "{error}");
}

async fn manifests_and_blobs_are_deleted(registry: Judged, client: Client) {
    let image = image(10, &[10]);
    let reference = registry.reference("gone:v1");
    let none = Progress::none();
    client.push_image(&reference, &image, &none).await.unwrap();
    if registry.is_ours() {
        let second = registry.reference("gone:v2");
        client.push_image(&second, &image, &none).await.unwrap();
        client.delete_tag(&second).await.unwrap();
        assert_eq!(client.head(&second).await.unwrap(), None);
        assert!(client.head(&reference).await.unwrap().is_some());
    }
    client.delete_manifest(&reference).await.unwrap();
    assert_eq!(client.head(&reference).await.unwrap(), None);
    let (repository, layer) = (reference.repository(), &image.layers[0].descriptor);
    client.delete_blob(repository, &layer.digest).await.unwrap();
    assert!(!client.exists(repository, &layer.digest).await.unwrap());
}
