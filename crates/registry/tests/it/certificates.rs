//! Certificates for one registry, as `registries.toml` says them, judged by Debian's nginx:
//! whom we trust, who we are, and that neither is said to others.

use ocibuild_registry::testing::{Nginx, Registry, not_installed};
use ocibuild_registry::{Client, CloudEnvironment, Error, Progress, Reference, Registries};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use crate::support::{image, quick};

/// An authority, with the files that it has signed.
struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // OpenSSL takes a certificate with the name of its authority for one of its own.
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        let authority = Self { folder, issuer };
        authority.sign("server", "localhost");
        authority.sign("client", "builder");
        authority
    }

    fn sign(&self, file: &str, name: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let write =
            |end: &str, text: String| std::fs::write(self.file(&(file.to_owned() + end)), text);
        write(".pem", certificate.pem()).unwrap();
        write(".key", key.serialize_pem()).unwrap();
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

/// nginx with a certificate of an authority, which wants one of its clients too, or asks for
/// one, or does not.
fn tls(registry: &Registry, authority: &Authority, verify: &str) -> Option<Nginx> {
    let settings = format!(
        "ssl_certificate {}; ssl_certificate_key {}; ssl_client_certificate {}; ssl_verify_client {verify}; {}",
        authority.file("server.pem"),
        authority.file("server.key"),
        authority.file("ca.pem"),
        Nginx::pass_all(&registry.host(), ""),
    );
    let nginx = Nginx::start("ssl", &settings).unwrap();
    if nginx.is_none() {
        not_installed("nginx");
    }
    nginx
}

/// What nginx has found of the certificate of each client.
fn verified(nginx: &Nginx) -> Vec<String> {
    let requests = nginx.requests().unwrap().into_iter();
    requests.map(|request| request.verified).collect()
}

/// The name by which the certificate is valid.
fn name(nginx: &Nginx) -> Reference {
    let host = nginx.host().replace("127.0.0.1", "localhost");
    format!("{host}/app:v1").parse().unwrap()
}

fn table(name: &Reference, settings: &str) -> String {
    let host = name.registry();
    format!("[registry.\"{host}\"]\nprotocol = \"https\"\n{settings}\n")
}

fn client(text: &str) -> Client {
    let registries = Registries::parse(text).unwrap();
    let builder = Client::builder().retry(quick());
    let builder = builder.registries(&registries, &CloudEnvironment::default());
    builder.unwrap().build().unwrap()
}

async fn push(client: &Client, name: &Reference, seed: u64) -> Result<(), Error> {
    let image = image(seed, &[300_000]);
    let pushed = client.push_image(name, &image, &Progress::none()).await;
    pushed.map(drop)
}

/// An error with all of its causes.
fn chain(error: &Error) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |e| e.source());
    causes.map(|e| format!("{e}: ")).collect()
}

#[tokio::test]
async fn a_registry_that_wants_a_certificate_gets_ours() {
    let registry = Registry::start().unwrap();
    let (theirs, other) = (Authority::new("theirs"), Authority::new("other"));
    let Some(nginx) = tls(&registry, &theirs, "on") else {
        return;
    };
    let name = name(&nginx);
    let ca = format!("ca = {:?}", theirs.file("ca.pem"));
    let me = |authority: &Authority| {
        let (certificate, key) = (authority.file("client.pem"), authority.file("client.key"));
        format!("client_certificate = {certificate:?}\nclient_key = {key:?}")
    };
    let known = client(&table(&name, &format!("{ca}\n{}", me(&theirs))));
    push(&known, &name, 300).await.unwrap();
    assert!(known.head(&name).await.unwrap().is_some());

    // Without a certificate, and with a stranger's, the words are nginx's.
    for settings in [ca.clone(), format!("{ca}\n{}", me(&other))] {
        let error = push(&client(&table(&name, &settings)), &name, 301).await;
        let text = chain(&error.unwrap_err());
        assert!(text.contains("400"), "{text}");
    }
    // Who is not trusted is not told who we are.
    let before = verified(&nginx).len();
    for settings in [
        me(&theirs),
        format!("ca = {:?}\n{}", other.file("ca.pem"), me(&theirs)),
    ] {
        let error = push(&client(&table(&name, &settings)), &name, 302).await;
        let text = chain(&error.unwrap_err());
        assert!(text.contains("UnknownIssuer"), "{text}");
    }
    assert_eq!(verified(&nginx).len(), before);
    let careless = format!("skip_verify = true\n{}", me(&theirs));
    push(&client(&table(&name, &careless)), &name, 303)
        .await
        .unwrap();
}

#[tokio::test]
async fn what_holds_for_one_registry_holds_for_no_other() {
    let registry = Registry::start().unwrap();
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let (Some(a), Some(b)) = (
        tls(&registry, &first, "optional"),
        tls(&registry, &second, "optional_no_ca"),
    ) else {
        return;
    };
    let (name_a, name_b) = (name(&a), name(&b));
    let ca = |authority: &Authority| format!("ca = {:?}", authority.file("ca.pem"));
    let me = format!(
        "client_certificate = {:?}\nclient_key = {:?}",
        first.file("client.pem"),
        first.file("client.key")
    );
    let settings_a = table(&name_a, &format!("{}\n{me}", ca(&first)));
    let both = client(&(settings_a.clone() + &table(&name_b, &ca(&second))));
    push(&both, &name_a, 310).await.unwrap();
    push(&both, &name_b, 311).await.unwrap();
    let all = |nginx: &Nginx, want: &str| verified(nginx).iter().all(|how| how == want);
    assert!(all(&a, "SUCCESS"), "{:?}", verified(&a));
    assert!(all(&b, "NONE"), "{:?}", verified(&b));
    assert!(!verified(&b).is_empty());

    // Neither trust nor carelessness is common to hosts.
    for settings in [settings_a, table(&name_a, "skip_verify = true")] {
        let other = client(&(settings + &table(&name_b, "")));
        push(&other, &name_a, 312).await.unwrap();
        let text = chain(&push(&other, &name_b, 312).await.unwrap_err());
        assert!(text.contains("UnknownIssuer"), "{text}");
    }
}
