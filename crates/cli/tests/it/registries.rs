//! The commands for registries: `copy`, `tags`, `inspect --remote`, `delete`, and forms of
//! images; against our registry, and against Debian's, which has no API of referrers.

use std::collections::BTreeSet;

use ocibuild::registry::{
    BlobSource, Client, Descriptor, Digest, Progress, Reference, Repository, media_type,
};
use ocibuild::testing::ContextDir;
use ocibuild_registry::testing::{DebianRegistry, Registry, StartError, not_installed};
use serde_json::{Value, json};

use crate::command::{Ended, Place, pull_and_validate, wait};

/// A registry of either kind.
enum Judged {
    Ours(Registry),
    Debians(DebianRegistry),
}

impl Judged {
    fn reference(&self, name: &str) -> Reference {
        match self {
            Self::Ours(registry) => registry.reference(name),
            Self::Debians(registry) => registry.reference(name),
        }
    }
}

fn registries() -> Vec<Judged> {
    let mut all = vec![Judged::Ours(Registry::start().unwrap())];
    match DebianRegistry::start() {
        Ok(registry) => all.push(Judged::Debians(registry)),
        Err(StartError::Missing) => not_installed("docker-registry"),
        Err(error) => panic!("{error}"),
    }
    all
}

fn context() -> ContextDir {
    ContextDir::new()
        .file("f", "x".repeat(50_000))
        .file("Dockerfile", "FROM busybox\nCOPY f /f\n")
}

fn succeeds(place: &Place, arguments: &[&str]) -> Ended {
    let ended = place.run(arguments);
    assert_eq!(ended.status, 0, "{arguments:?}: {}", ended.err);
    ended
}

fn remote(place: &Place, name: &str) -> Value {
    let ended = succeeds(place, &["inspect", "--remote", "--referrers", name]);
    serde_json::from_str(&ended.out).unwrap()
}

/// Pushes an artifact that refers to an image; gives its digest.
fn sign(repository: &Repository, subject: &Descriptor) -> Digest {
    let client = Client::builder().build().unwrap();
    let config = Descriptor::of("application/vnd.example.signature", b"{}");
    let source = BlobSource::Bytes(b"{}".as_slice().into());
    let none = Progress::none();
    wait(client.push_blob(repository, &config, &source, &[], &none)).unwrap();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type::MANIFEST, "config": config, "layers": [],
        "subject": subject,
    });
    let bytes = manifest.to_string().into_bytes();
    let name = repository.with_digest(Digest::sha256(&bytes));
    wait(client.push_manifest(&name, media_type::MANIFEST, &bytes)).unwrap()
}

#[test]
fn an_image_is_copied_listed_looked_at_and_deleted_with_what_refers_to_it() {
    for registry in registries() {
        let (place, far) = (Place::new(), Registry::start().unwrap());
        let name = registry.reference("team/app:v1");
        let built = place.build(&context(), &["-t", &name.to_string(), "--push"]);
        assert_eq!(built.status, 0, "{}", built.err);
        let digest = built.out.trim_end().to_owned();
        let shown = remote(&place, &name.to_string());
        assert_eq!(shown["descriptor"]["digest"], digest);
        assert_eq!(shown["referrers"], json!([]));
        assert_eq!(
            shown["config"]["architecture"].as_str().map(str::is_empty),
            Some(false)
        );
        let subject = serde_json::from_value(shown["descriptor"].clone()).unwrap();
        let signature = sign(name.repository(), &subject).to_string();
        let shown = remote(&place, &name.to_string());
        assert_eq!(shown["referrers"][0]["digest"], signature);
        assert_eq!(
            shown["referrers"][0]["artifactType"],
            "application/vnd.example.signature"
        );

        // Within the registry, and to another one; with the signature and without.
        let near = registry.reference("other/app:v2").to_string();
        let (there, bare) = (far.reference("app:v3"), far.reference("bare:v4"));
        let [source, there_name, bare_name] = [&name, &there, &bare].map(Reference::to_string);
        let copied = succeeds(
            &place,
            &["copy", "--referrers", &source, &near, &there_name],
        );
        assert_eq!(
            copied.out,
            format!("copied {near}@{digest}\ncopied {there_name}@{digest}\n")
        );
        assert_eq!(pull_and_validate(&there), digest);
        for name in [&near, &there_name] {
            assert_eq!(
                remote(&place, name)["referrers"][0]["digest"],
                signature,
                "{name}"
            );
        }
        succeeds(&place, &["copy", &source, &bare_name]);
        assert_eq!(remote(&place, &bare_name)["referrers"], json!([]));

        let again = registry.reference("team/app:v0").to_string();
        succeeds(&place, &["copy", &source, &again]);
        let repository = name.repository().to_string();
        let listed = succeeds(&place, &["tags", "--json", &repository]);
        let listed: Vec<String> = serde_json::from_str(&listed.out).unwrap();
        // A list of referrers that is a tag is listed too.
        let ours = listed.iter().filter(|tag| !tag.starts_with("sha256-"));
        let ours: BTreeSet<&str> = ours.map(String::as_str).collect();
        assert_eq!(ours, ["v0", "v1"].into());
        let lines = succeeds(&place, &["tags", &repository]).out;
        assert_eq!(lines.lines().collect::<Vec<_>>(), listed);

        let gone = succeeds(&place, &["delete", "--all", &there_name]);
        let full = |digest: &str| format!("deleted {}@{digest}\n", there.repository());
        assert_eq!(gone.out, full(&digest) + &full(&signature));
        assert_eq!(place.run(&["inspect", "--remote", &there_name]).status, 1);
    }
}

#[test]
fn a_tag_goes_alone_or_with_its_image() {
    let (place, registry) = (Place::new(), Registry::start().unwrap());
    let [one, two] = ["app:v1", "app:v2"].map(|name| registry.reference(name).to_string());
    let built = place.build(&context(), &["-t", &one, "-t", &two, "--push"]);
    assert_eq!(built.status, 0, "{}", built.err);
    let deleted = succeeds(&place, &["delete", &one]);
    assert_eq!(deleted.out, format!("deleted {one}\n"));
    assert_eq!(place.run(&["inspect", "--remote", &one]).status, 1);
    assert_eq!(
        remote(&place, &two)["descriptor"]["digest"],
        built.out.trim_end()
    );
    succeeds(&place, &["delete", "--manifest", &two]);
    let left = succeeds(&place, &["tags", &registry.repository("app").to_string()]);
    assert_eq!(left.out, "");

    for arguments in [
        &["delete", "127.0.0.1:1/app"][..],
        &["delete", "--all", "--manifest", "127.0.0.1:1/app:1"],
        &["copy", "127.0.0.1:1/app:1"],
        &["tags", "a b"],
        &["inspect", "--referrers", "app:1"],
    ] {
        assert_eq!(place.run(arguments).status, 2, "{arguments:?}");
    }
    let missing = registry.reference("none:1").to_string();
    for command in [
        &["delete", &missing][..],
        &["copy", &missing, &one],
        &["inspect", "--remote", &missing],
    ] {
        let ended = place.run(command);
        assert_eq!((ended.status, ended.out.as_str()), (1, ""), "{command:?}");
        assert!(ended.err.contains(&missing), "{}", ended.err);
    }
}

#[test]
fn a_registry_that_cannot_delete_a_tag_is_told_so() {
    let Some(Judged::Debians(registry)) = registries().pop() else {
        return;
    };
    let place = Place::new();
    let name = registry.reference("app:v1").to_string();
    let built = place.build(&context(), &["-t", &name, "--push"]);
    assert_eq!(built.status, 0, "{}", built.err);
    let ended = place.run(&["delete", &name]);
    assert_eq!(ended.status, 1);
    assert!(ended.err.contains("--manifest deletes"), "{}", ended.err);
    succeeds(&place, &["delete", "--manifest", &name]);
    assert_eq!(place.run(&["inspect", "--remote", &name]).status, 1);
}

/// The media types of the layers of an image in a registry.
fn layers(place: &Place, name: &str) -> Vec<String> {
    let layers = remote(place, name)["manifest"]["layers"].clone();
    let layers: Vec<Descriptor> = serde_json::from_value(layers).unwrap();
    layers.into_iter().map(|layer| layer.media_type).collect()
}

#[test]
fn images_are_pushed_in_the_form_that_is_asked_for() {
    let gzip = media_type::LAYER_GZIP;
    for registry in registries() {
        let place = Place::new();
        let name = registry.reference("app:zstd").to_string();
        let output = format!("type=registry,name={name},compression=zstd,annotation.k=v");
        let flags = ["-o", &output, "-t", "app:1", "--annotation", "l=w"];
        let built = place.build(&context(), &flags);
        assert_eq!(built.status, 0, "{}", built.err);
        assert_eq!(layers(&place, &name), [gzip, media_type::LAYER_ZSTD]);
        let shown = remote(&place, &name);
        assert_eq!(shown["descriptor"]["digest"], built.out.trim_end());
        assert_eq!(
            shown["manifest"]["annotations"],
            json!({"k": "v", "l": "w"})
        );
        // What is kept and reported is what was pushed.
        assert_eq!(place.verify("app:1")["manifest"], shown["manifest"]);

        let all = registry.reference("app:all").to_string();
        let push = ["push", "--root", "store", "--compression"];
        succeeds(&place, &[&push[..], &["zstd", "app:1", &all]].concat());
        assert_eq!(layers(&place, &all), [media_type::LAYER_ZSTD; 2]);
        let docker = registry.reference("app:docker").to_string();
        let flags = [
            "gzip",
            "--compression-level",
            "1",
            "--media-types",
            "docker",
        ];
        succeeds(&place, &[&push[..], &flags, &["app:1", &docker]].concat());
        assert_eq!(layers(&place, &docker), [media_type::DOCKER_LAYER_GZIP; 2]);
        // Its annotations have no place there.
        assert_eq!(
            remote(&place, &docker)["manifest"]["annotations"],
            Value::Null
        );
        let reference: Reference = docker.parse().unwrap();
        assert_eq!(
            remote(&place, &docker)["descriptor"]["digest"],
            pull_and_validate(&reference)
        );
    }
    let place = Place::new();
    for flags in [
        &["-o", "type=image,compression=br"][..],
        &["-o", "type=image,compression=gzip,level=11"],
        &["--annotation", "layer:a=b"],
    ] {
        let ended = place.build(&context(), flags);
        assert_eq!((ended.status, ended.out.as_str()), (2, ""), "{}", ended.err);
    }
}
