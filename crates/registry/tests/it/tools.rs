//! Our server against clients that others wrote: skopeo and oci-client.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Once;

use futures::TryStreamExt;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use ocibuild_registry::testing::{Registry, not_installed};
use ocibuild_registry::{BlobSource, Platform, Progress};

use crate::support::{client, image, noise};

/// None where skopeo is not installed.
fn skopeo(folder: &Path, arguments: &[&str]) -> Option<Output> {
    let policy = folder.join("policy.json");
    std::fs::write(
        &policy,
        r#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
    )
    .unwrap();
    let run = Command::new("skopeo")
        .arg("--policy")
        .arg(&policy)
        .args(arguments)
        .output();
    match run {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            not_installed("skopeo");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn assert_success(output: &Output) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_copies_from_and_to_us() {
    let registry = Registry::start().unwrap();
    let reference = registry.reference("team/app:v1");
    let image = image(80, &[100_000, 10]);
    let pushed = client()
        .push_image(&reference, &image, &Progress::none())
        .await
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let layout = format!("oci:{}:v1", folder.path().join("layout").display());

    let from = format!("docker://{reference}");
    let copy = ["copy", "--src-tls-verify=false", &from, &layout];
    let Some(output) = skopeo(folder.path(), &copy) else {
        return;
    };
    assert_success(&output);

    let copied = registry.reference("copied:v2");
    let to = format!("docker://{copied}");
    let copy = ["copy", "--dest-tls-verify=false", &layout, &to];
    assert_success(&skopeo(folder.path(), &copy).unwrap());
    let back = client().image(&copied, &Platform::host()).await.unwrap();
    assert_eq!(back.descriptor.digest, pushed.digest);

    let inspect = ["inspect", "--tls-verify=false", &to];
    let output = skopeo(folder.path(), &inspect).unwrap();
    assert_success(&output);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(&pushed.digest.to_string()), "{text}");

    let delete = ["delete", "--tls-verify=false", &to];
    assert_success(&skopeo(folder.path(), &delete).unwrap());
    assert_eq!(client().head(&copied).await.unwrap(), None);
}

fn oci_client() -> oci_client::Client {
    static PROVIDER: Once = Once::new();
    // oci-client takes the process-wide provider; ours is not touched by it.
    PROVIDER.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    let config = ClientConfig {
        protocol: ClientProtocol::Http,
        ..ClientConfig::default()
    };
    oci_client::Client::try_from(config).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn oci_client_reads_what_we_push() {
    let registry = Registry::start().unwrap();
    let reference = registry.reference("team/app:v1");
    let image = image(81, &[300_000, 10]);
    let pushed = client()
        .push_image(&reference, &image, &Progress::none())
        .await
        .unwrap();

    let other = oci_client();
    let name: oci_client::Reference = reference.to_string().parse().unwrap();
    let (manifest, digest) = other
        .pull_image_manifest(&name, &RegistryAuth::Anonymous)
        .await
        .unwrap();
    assert_eq!(digest, pushed.digest.to_string());
    for (layer, sent) in manifest.layers.iter().zip(&image.layers) {
        let stream = other.pull_blob_stream(&name, layer).await.unwrap();
        let pieces: Vec<_> = stream.try_collect().await.unwrap();
        let BlobSource::Bytes(want) = &sent.source else {
            panic!("the image is made of bytes")
        };
        assert_eq!(pieces.concat(), *want);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn we_read_what_oci_client_pushes() {
    let registry = Registry::start().unwrap();
    let reference = registry.reference("team/app:v1");
    let name: oci_client::Reference = reference.to_string().parse().unwrap();
    let other = oci_client();
    // In chunks: this client sends 4 MiB at a time.
    let layer = noise(82, 9_000_000);
    let digest = ocibuild_registry::Digest::sha256(&layer).to_string();
    other
        .push_blob(&name, layer.clone(), &digest)
        .await
        .unwrap();
    assert!(registry.count("PATCH", "/blobs/uploads/") > 1);
    let config = "{}".to_owned();
    let config_digest = ocibuild_registry::Digest::sha256(config.as_bytes()).to_string();
    other
        .push_blob(&name, config.clone(), &config_digest)
        .await
        .unwrap();
    let descriptor = |digest: &str, size: usize, media_type: &str| OciDescriptor {
        digest: digest.to_owned(),
        size: size as i64,
        media_type: media_type.to_owned(),
        ..OciDescriptor::default()
    };
    let manifest = oci_client::manifest::OciImageManifest {
        config: descriptor(
            &config_digest,
            2,
            oci_client::manifest::IMAGE_CONFIG_MEDIA_TYPE,
        ),
        layers: vec![descriptor(
            &digest,
            layer.len(),
            oci_client::manifest::IMAGE_LAYER_MEDIA_TYPE,
        )],
        ..Default::default()
    };
    other.push_manifest(&name, &manifest.into()).await.unwrap();

    let image = client().image(&reference, &Platform::host()).await.unwrap();
    let repository = reference.repository();
    let bytes = client()
        .blob_bytes(repository, &image.manifest.layers[0], 1 << 30)
        .await
        .unwrap();
    assert!(bytes == layer);
}
