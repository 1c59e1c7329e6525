//! Contexts that come over HTTP and from registries, to the command and to the service.

use ocibuild_registry::testing::Registry;
use ocibuild_registry::{
    BlobSource, Client, Descriptor, Digest, ImagePush, LayerPush, Manifest, Progress, Reference,
    media_type,
};
use serde_json::json;

use crate::command::{Place, wait};
use crate::served::{Served, json};

const DOCKERFILE: &str = "FROM scratch\nCOPY f /f\n";

/// The compressed tar of a context.
fn archive() -> Vec<u8> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gzip);
    for (name, text) in [("Dockerfile", DOCKERFILE), ("f", "text")] {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// Pushes the tar of a context as Flux does; gives its name and the digest of the tar.
fn push_artifact(registry: &Registry) -> (Reference, Digest) {
    let (reference, bytes) = (registry.reference("ctx:1"), archive());
    let kind = "application/vnd.cncf.flux.content.v1.tar+gzip";
    let layer = Descriptor::of(kind, &bytes);
    let digest = layer.digest;
    let config = Descriptor::of("application/vnd.cncf.flux.config.v1+json", b"{}");
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::MANIFEST.to_owned()),
        config: config.clone(),
        layers: vec![layer.clone()],
        annotations: Default::default(),
    };
    let push = ImagePush {
        manifest: serde_json::to_vec(&manifest).unwrap().into(),
        media_type: media_type::MANIFEST.to_owned(),
        config,
        config_bytes: b"{}".to_vec().into(),
        layers: vec![LayerPush {
            descriptor: layer,
            source: BlobSource::Bytes(bytes.into()),
            mount_from: Vec::new(),
        }],
        concurrency: 1,
    };
    let client = Client::builder().build().unwrap();
    wait(client.push_image(&reference, &push, &Progress::none())).unwrap();
    (reference, digest)
}

#[test]
fn the_command_builds_an_artifact() {
    let (place, registry) = (Place::new(), Registry::start().unwrap());
    let (reference, _) = push_artifact(&registry);
    let ended = place.build_of(&format!("oci://{reference}"), &["-o", "root"]);
    assert_eq!(ended.status, 0, "{}", ended.err);
    assert_eq!(place.text("root/f"), "text");
    // A file that is named is one of the artifact.
    let ended = place.build_of(&format!("oci://{reference}"), &["-f", "Other"]);
    assert!(
        ended.err.contains("\"Other\" is not there"),
        "{}",
        ended.err
    );

    place.push_base(registry.reference("base:1"));
    let image = format!("oci://{}", registry.reference("base:1"));
    let ended = place.build_of(&image, &[]);
    assert_ne!(ended.status, 0);
    let hint = "hint: write docker-image:// for the files of an image";
    assert!(ended.err.contains(hint), "{}", ended.err);
}

#[test]
fn the_service_builds_a_tar_behind_a_url() {
    let (place, registry) = (Place::new(), Registry::start().unwrap());
    let (_, digest) = push_artifact(&registry);
    let service = Served::start(&place, "data", &[("LOCAL_REGISTRY", registry.host())]);
    let url = format!("http://{}/v2/ctx/blobs/{digest}", registry.host());
    let build = |url: &str| {
        json!({
            "app_name": "app", "image_tag": "v1", "context": {"type": "http", "url": url},
        })
    };
    let task = service.submit_json(&build(&url));
    let ended = service.follow(&task);
    assert_eq!(ended.state, "completed", "{}", ended.log);
    assert!(
        ended.log.contains(&format!("Context:     {url}")),
        "{}",
        ended.log
    );
    let shown = json(service.get(&format!("/v1/builds/{task}")));
    assert_eq!(shown["source"], json!({"type": "http", "url": url}));

    let task = service.submit_json(&build(&format!("{url}0")));
    service.assert_fails(&task, "answered with HTTP status 4");
    // The metadata service of a cloud is reached by no name.
    let task = service.submit_json(&build("https://169.254.169.254/latest"));
    service.assert_fails(&task, "its address is that of a metadata service");
    for (url, reason) in [
        ("file:///etc/passwd", "must be an http or https URL"),
        ("http://elsewhere.example/f.tar", "must be an https URL"),
        ("https://user:s3cret@host/f.tar", "no credentials"),
        ("https://host/f.tar?token=s3cret", "no '?'"),
    ] {
        let answer = service.post("/v1/builds").json(&build(url)).send().unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().unwrap());
        assert_eq!(status, 422, "{url}: {text}");
        assert!(text.contains(reason) && !text.contains("s3cret"), "{text}");
    }
}

#[test]
fn the_service_builds_an_artifact() {
    let (place, registry) = (Place::new(), Registry::start().unwrap());
    let (reference, _) = push_artifact(&registry);
    let service = Served::start(&place, "data", &[("LOCAL_REGISTRY", registry.host())]);
    let build = |reference: &str| {
        json!({
            "app_name": "app", "image_tag": "v1",
            "context": {"type": "oci", "reference": reference},
        })
    };
    let task = service.submit_json(&build(&reference.to_string()));
    let ended = service.follow(&task);
    assert_eq!(ended.state, "completed", "{}", ended.log);
    let line = format!("Context:     oci://{reference}");
    assert!(ended.log.contains(&line), "{}", ended.log);
    let shown = json(service.get(&format!("/v1/builds/{task}")));
    let source = json!({"type": "oci", "reference": reference.to_string()});
    assert_eq!(shown["source"], source);

    let task = service.submit_json(&build(&registry.reference("gone:1").to_string()));
    service.assert_fails(&task, "gone:1");
    for name in ["ctx:1", "Not A Name/x", "oci://host/ctx:1"] {
        let answer = service
            .post("/v1/builds")
            .json(&build(name))
            .send()
            .unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().unwrap());
        assert_eq!(status, 422, "{name}: {text}");
        assert!(text.contains(r#""context","reference""#), "{text}");
    }
}
