//! What the tests share: images, clients, registries.

use std::time::Duration;

use bytes::Bytes;
use ocibuild_registry::testing::{self, DebianRegistry, Registry, StartError, not_installed};
use ocibuild_registry::{
    BlobSource, Client, Credential, Credentials, Descriptor, ImagePush, LayerPush, Manifest,
    Reference, Repository, Retry, media_type,
};

/// A registry that the suite judges.
pub(crate) enum Judged {
    Ours(Registry),
    Debian(DebianRegistry),
}

impl Judged {
    pub(crate) fn ours() -> Self {
        Self::Ours(Registry::start().unwrap())
    }

    /// None where `docker-registry` is not installed.
    pub(crate) fn debian() -> Option<Self> {
        match DebianRegistry::start() {
            Ok(registry) => Some(Self::Debian(registry)),
            Err(StartError::Missing) => {
                not_installed("docker-registry");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn is_ours(&self) -> bool {
        matches!(self, Self::Ours(_))
    }

    pub(crate) fn repository(&self, path: &str) -> Repository {
        match self {
            Self::Ours(registry) => registry.repository(path),
            Self::Debian(registry) => registry.repository(path),
        }
    }

    pub(crate) fn reference(&self, name: &str) -> Reference {
        match self {
            Self::Ours(registry) => registry.reference(name),
            Self::Debian(registry) => registry.reference(name),
        }
    }
}

/// Patience enough for every fault and short enough for tests.
pub(crate) fn quick() -> Retry {
    Retry {
        attempts: 4,
        first_pause: Duration::from_millis(2),
        longest_pause: Duration::from_millis(20),
        deadline: Duration::from_secs(20),
        idle: Duration::from_millis(500),
    }
}

pub(crate) fn client() -> Client {
    Client::builder().retry(quick()).build().unwrap()
}

/// An HTTP client for requests by hand, whatever other tests have set up.
pub(crate) fn plain_http() -> reqwest::Client {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .build()
        .unwrap()
}

pub(crate) fn client_with(registry: &Registry, credential: Credential) -> Client {
    let credentials = Credentials::anonymous().with(&registry.host(), credential);
    Client::builder()
        .retry(quick())
        .credentials(credentials)
        .build()
        .unwrap()
}

/// Bytes that no compression and no other seed gives.
pub(crate) fn noise(seed: u64, length: usize) -> Bytes {
    testing::noise(seed, length).into()
}

pub(crate) fn blob(seed: u64, length: usize) -> (Descriptor, BlobSource) {
    let bytes = noise(seed, length);
    let descriptor = Descriptor::of(media_type::LAYER_TAR, &bytes);
    (descriptor, BlobSource::Bytes(bytes))
}

/// An image of layers of noise; `seed` makes it different from others.
pub(crate) fn image(seed: u64, layer_sizes: &[usize]) -> ImagePush {
    let layers: Vec<LayerPush> = layer_sizes
        .iter()
        .enumerate()
        .map(|(position, &size)| {
            let (descriptor, source) = blob(seed * 1000 + position as u64, size);
            LayerPush {
                descriptor,
                source,
                mount_from: Vec::new(),
            }
        })
        .collect();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Labels":{{"seed":"{seed}"}}}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        layers
            .iter()
            .map(|layer| format!("\"{}\"", layer.descriptor.digest))
            .collect::<Vec<_>>()
            .join(",")
    );
    let config_bytes = Bytes::from(config);
    let config = Descriptor::of(media_type::CONFIG, &config_bytes);
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::MANIFEST.to_owned()),
        config: config.clone(),
        layers: layers.iter().map(|l| l.descriptor.clone()).collect(),
        annotations: Default::default(),
    };
    ImagePush {
        manifest: serde_json::to_vec(&manifest).unwrap().into(),
        media_type: media_type::MANIFEST.to_owned(),
        config,
        config_bytes,
        layers,
        concurrency: 3,
    }
}
