//! TLS: whom the client trusts, and that it starts on a machine that trusts nobody.

use std::net::SocketAddr;
use std::sync::Arc;

use ocibuild_registry::server::{self, Store};
use ocibuild_registry::{Client, ClientBuilder, Error, Reference};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::support::quick;

struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.listener.accept().await.unwrap();
            // A client that does not trust us breaks the handshake off.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Serves an empty registry at `localhost` over TLS; gives a name in it and the PEM of
/// the authority behind its certificate. It ends with the test's runtime.
async fn tls_registry(folder: &std::path::Path) -> (Reference, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .signed_by(&key, &authority)
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("localhost:{}", listener.local_addr().unwrap().port());
    let listener = TlsListener {
        listener,
        acceptor: TlsAcceptor::from(Arc::new(config)),
    };
    let app = server::router(Store::open(folder).unwrap());
    tokio::spawn(axum::serve(listener, app).into_future());
    (format!("{host}/app:v1").parse().unwrap(), authority.pem())
}

fn client(reference: &Reference) -> ClientBuilder {
    Client::builder()
        .retry(quick())
        .force_https([reference.registry()])
}

/// The whole text of an error with its causes.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[tokio::test]
async fn only_known_authorities_are_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let (reference, pem) = tls_registry(folder.path()).await;

    let doubting = client(&reference).build().unwrap();
    let error = doubting.resolve(&reference).await.unwrap_err();
    let text = chain(&error);
    assert!(text.contains("UnknownIssuer"), "{text}");
    // It is not tried again: the certificate will not get better.
    assert!(!text.contains("gave up"), "{text}");
    assert!(!text.contains("https://"), "{text}");

    let trusting = client(&reference).extra_ca(pem).build().unwrap();
    assert_eq!(trusting.head(&reference).await.unwrap(), None);

    for host in ["localhost", reference.registry()] {
        let careless = client(&reference).skip_verify(host).build().unwrap();
        assert_eq!(careless.head(&reference).await.unwrap(), None);
    }
    let other = client(&reference)
        .skip_verify("other.example")
        .build()
        .unwrap();
    assert!(other.resolve(&reference).await.is_err());
}

#[tokio::test]
async fn an_alias_is_verified_by_its_endpoint() {
    let folder = tempfile::tempdir().unwrap();
    let (reference, pem) = tls_registry(folder.path()).await;
    let name = "registry.invalid:5000";
    let named: Reference = format!("{name}/app:v1").parse().unwrap();
    let alias = || {
        let endpoint = format!("https://{}", reference.registry());
        Client::builder().retry(quick()).alias(name, endpoint)
    };

    let text = chain(&alias().build().unwrap().resolve(&named).await.unwrap_err());
    assert!(text.contains("UnknownIssuer"), "{text}");
    let both = format!("{name} (reached as {})", reference.registry());
    assert!(text.contains(&both), "{text}");

    let trusting = alias().extra_ca(pem).build().unwrap();
    assert_eq!(trusting.head(&named).await.unwrap(), None);
    // Both the name and the endpoint stand for the same host.
    for host in [name, reference.registry()] {
        let careless = alias().skip_verify(host).build().unwrap();
        assert_eq!(careless.head(&named).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_machine_without_certificates_is_no_obstacle() {
    // The bundle is found by environment variables, which only a child process of
    // this test can have of its own. There no crypto provider is installed either.
    if std::env::var_os("OCIBUILD_TEST_NO_CA").is_none() {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "tls::a_machine_without_certificates_is_no_obstacle",
            ])
            .env("SSL_CERT_FILE", "/nonexistent/bundle.pem")
            .env("SSL_CERT_DIR", "/nonexistent")
            .env("OCIBUILD_TEST_NO_CA", "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}"
        );
        return;
    }
    assert!(rustls::crypto::CryptoProvider::get_default().is_none());
    let folder = tempfile::tempdir().unwrap();
    let (reference, pem) = tls_registry(folder.path()).await;
    let lonely = client(&reference).build().unwrap();
    let text = chain(&lonely.resolve(&reference).await.unwrap_err());
    assert!(text.contains("UnknownIssuer"), "{text}");
    let trusting = client(&reference).extra_ca(pem).build().unwrap();
    assert_eq!(trusting.head(&reference).await.unwrap(), None);
}
