//! The registry that `serve` runs itself, with accounts, quotas and garbage.

use std::net::TcpListener;

use ocibuild::registry::{
    BlobSource, Client, Credential, Credentials, Descriptor, Platform, Progress, Reference,
    media_type,
};
use serde_json::json;

use crate::command::{Place, wait};
use crate::served::{Served, until};

/// A service with an embedded registry; gives the address of the latter.
fn start(place: &Place, data: &str, vars: &[(&str, &str)]) -> (Served, String) {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let vars = vars
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()));
    let registry = ("OCIBUILD_EMBEDDED_REGISTRY", address.clone());
    let vars: Vec<_> = vars.chain([registry]).collect();
    (Served::start(place, data, &vars), address)
}

fn client(registry: &str, login: Option<(&str, &str)>) -> Client {
    let credentials = match login {
        Some((user, password)) => {
            Credentials::anonymous().with(registry, Credential::password(user, password))
        }
        None => Credentials::anonymous(),
    };
    Client::builder().credentials(credentials).build().unwrap()
}

fn build(tag: &str, dockerfile: &str) -> serde_json::Value {
    json!({
        "app_name": "app", "image_tag": tag,
        "context": {"type": "empty"},
        "dockerfile": {"text": dockerfile},
    })
}

/// Text that no compression makes much smaller.
fn noise() -> String {
    let mut state = 88_172_645_463_325_252_u64;
    let mut letter = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        match n % 60 {
            0 => '\n',
            _ => char::from(b'a' + (state % 26) as u8),
        }
    };
    (0..300_000).map(&mut letter).collect()
}

#[test]
fn accounts_and_quotas_hold_and_builds_have_an_account_of_their_own() {
    let place = Place::new();
    std::fs::write(place.path("accounts"), "pull * reader r-pass\n").unwrap();
    let (service, address) = start(
        &place,
        "data",
        &[
            (
                "OCIBUILD_EMBEDDED_ACCOUNTS",
                place.path("accounts").to_str().unwrap(),
            ),
            ("OCIBUILD_EMBEDDED_REPOSITORY_QUOTA", "100000"),
        ],
    );
    let mut zstd = build("v1", "FROM scratch\nWORKDIR /a\n");
    zstd["output"] = json!({"compression": "zstd", "annotations": ["k=v"]});
    let ended = service.follow(&service.submit_json(&zstd));
    assert_eq!(ended.state, "completed", "{}", ended.log);
    let name: Reference = format!("{address}/serve-app:v1").parse().unwrap();
    let read = |client: &Client| wait(client.image(&name, &Platform::host()));
    assert!(read(&client(&address, None)).is_err());
    let image = read(&client(&address, Some(("reader", "r-pass")))).unwrap();
    assert_eq!(image.manifest.layers[0].media_type, media_type::LAYER_ZSTD);
    assert_eq!(image.manifest.annotations["k"], "v");

    // What is in it can be built upon; what is too much is refused in its words.
    let on_it = build("v2", &format!("FROM {name}\nWORKDIR /b\n"));
    let ended = service.follow(&service.submit_json(&on_it));
    assert_eq!(ended.state, "completed", "{}", ended.log);
    let text = format!("FROM scratch\nCOPY <<EOF /large\n{}\nEOF\n", noise());
    let task = service.submit_json(&build("v3", &text));
    service.assert_fails(&task, "100000 bytes");
    assert!(!service.said().contains("r-pass"), "{}", service.said());
}

#[test]
fn garbage_goes_by_itself() {
    let place = Place::new();
    let (_service, address) = start(
        &place,
        "data",
        &[
            ("OCIBUILD_EMBEDDED_GC", "1s"),
            ("OCIBUILD_EMBEDDED_GC_GRACE", "2s"),
        ],
    );
    let (client, none) = (client(&address, None), Progress::none());
    let name: Reference = format!("{address}/app:v1").parse().unwrap();
    let push = |bytes: &'static [u8]| {
        let blob = Descriptor::of(media_type::CONFIG, bytes);
        let source = BlobSource::Bytes(bytes.into());
        wait(client.push_blob(name.repository(), &blob, &source, &[], &none)).unwrap();
        blob
    };
    let (kept, gone) = (push(b"{\"kept\":1}"), push(b"{\"gone\":1}"));
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type::MANIFEST, "config": kept, "layers": [],
    });
    let manifest = manifest.to_string().into_bytes();
    wait(client.push_manifest(&name, media_type::MANIFEST, &manifest)).unwrap();
    let path = |blob: &Descriptor| {
        let (blobs, hex) = (place.path("data/registry/blobs/sha256"), blob.digest.hex());
        blobs.join(&hex[..2]).join(hex)
    };
    assert!(path(&kept).exists() && path(&gone).exists());
    until("the blob that nobody names is gone", || {
        !path(&gone).exists()
    });
    assert!(path(&kept).exists());
    assert!(!wait(client.exists(name.repository(), &gone.digest)).unwrap());
}
