//! Several platforms from the command line and from the service: one name, one index.

use ocibuild::registry::{Client, Platform};
use ocibuild::testing::{ContextDir, GitServer};
use ocibuild_registry::testing::Registry;
use serde_json::json;

use crate::command::{Place, json as read, wait};
use crate::served::Served;

const DOCKERFILE: &str = "FROM scratch\nARG TARGETARCH\nCOPY <<EOF /arch\n$TARGETARCH\nEOF\n";

#[test]
fn row_80_an_index_is_built_shown_and_pushed() {
    let (place, registry) = (Place::new(), Registry::start().unwrap());
    let context = ContextDir::new().file("Dockerfile", DOCKERFILE);
    let reference = registry.reference("team/app:1");
    let name = reference.to_string();
    let files = ["--iidfile", "iid", "--metadata-file", "meta"];
    let platforms = ["--platform", "linux/amd64,linux/arm64", "-t", &name];
    let ended = place.build(&context, &[&files[..], &platforms].concat());
    assert_eq!(ended.status, 0, "{}", ended.err);
    let digest = ended.out.trim();
    let shown = place.verify(&name);
    assert_eq!(shown["descriptor"]["digest"], digest);
    let images = shown["images"].as_array().unwrap();
    let architectures: Vec<_> = images
        .iter()
        .map(|image| &image["config"]["architecture"])
        .collect();
    assert_eq!(architectures, ["amd64", "arm64"]);
    assert_eq!(place.text("iid"), digest);
    let meta = read(&place.path("meta"));
    assert_eq!(meta["containerimage.digest"], digest);
    assert!(meta.get("containerimage.config.digest").is_none());
    let told = &meta["ocibuild.platforms"][1];
    assert_eq!(told["platform"], "linux/arm64");
    assert_eq!(told["digest"], images[1]["descriptor"]["digest"]);

    let pushed = place.run(&["push", "--root", "store", &name]);
    assert_eq!(
        (pushed.status, pushed.out),
        (0, format!("pushed {name}@{digest}\n"))
    );
    let client = Client::builder().build().unwrap();
    let found = wait(client.image(&reference, &Platform::linux("arm64"))).unwrap();
    assert_eq!(told["digest"], found.descriptor.digest.to_string());

    let refused = place.build(
        &context,
        &[&platforms[..], &["-o", "type=docker,dest=d"]].concat(),
    );
    assert_ne!(refused.status, 0);
    assert!(
        refused.err.contains("cannot hold an index"),
        "{}",
        refused.err
    );
}

#[test]
fn row_80_the_service_builds_and_pushes_an_index() {
    let (place, registry) = (Place::new(), Registry::start().unwrap());
    let service = Served::start(&place, "data", &[("LOCAL_REGISTRY", registry.host())]);
    let task = service.submit_json(&json!({
        "app_name": "app", "image_tag": "v1",
        "context": {"type": "empty"}, "dockerfile": {"text": DOCKERFILE},
        "platforms": ["linux/amd64", "linux/arm64"],
    }));
    assert_eq!(service.follow(&task).state, "completed");
    let reference = registry.reference("serve-app:v1");
    let client = Client::builder().build().unwrap();
    for architecture in ["amd64", "arm64"] {
        wait(client.image(&reference, &Platform::linux(architecture))).unwrap();
    }
    // Pushed again it is whole.
    let more = registry.reference("other/app:v1");
    let answer = service.post(&format!("/v1/builds/{task}/push"));
    let answer = crate::served::json(answer.json(&json!({"destinations": [more.to_string()]})));
    let id = answer["id"].as_str().unwrap_or_else(|| panic!("{answer}"));
    assert_eq!(service.follow(id).state, "completed");
    let (first, second) = (wait(client.head(&reference)), wait(client.head(&more)));
    assert_eq!(
        first.unwrap().unwrap().digest,
        second.unwrap().unwrap().digest
    );
    wait(client.image(&more, &Platform::linux("arm64"))).unwrap();
}

#[test]
fn row_66_contexts_of_every_kind_have_a_name() {
    let (place, registry, git) = (Place::new(), Registry::start().unwrap(), GitServer::start());
    place.push_base(registry.reference("base:1"));
    let repository = git.repository("app.git");
    repository.file("sub/f", "from git");
    repository.commit("first");
    let context = ContextDir::new().file(
        "Dockerfile",
        "FROM scratch\nCOPY --from=git f /f\nCOPY --from=image /etc/passwd /p\nCOPY --from=busybox /etc/group /g\n",
    );
    let git = format!("git={}#main:sub", repository.url());
    let image = format!("image=docker-image://{}", registry.reference("base:1"));
    let ended = place.build(
        &context,
        &[
            "--build-context",
            &git,
            "--build-context",
            &image,
            "-o",
            "root",
        ],
    );
    assert_eq!(ended.status, 0, "{}", ended.err);
    assert_eq!(place.text("root/f"), "from git");
    assert!(place.text("root/p").starts_with("root:"));

    std::fs::write(place.path("Image"), "FROM scratch\nCOPY /etc/passwd /p\n").unwrap();
    let ended = place.build_of("oci-layout://base:1", &["-f", "Image", "-o", "other"]);
    assert_eq!(ended.status, 0, "{}", ended.err);
    assert!(place.text("other/p").starts_with("root:"));

    for (context, reason) in [
        ("s3://bucket/f", "cannot be of the kind s3://"),
        ("nowhere", "is not a directory"),
        ("http://127.0.0.1:1/f", "cannot reach 127.0.0.1:1"),
    ] {
        let ended = place.build_of(context, &[]);
        assert_ne!(ended.status, 0);
        assert!(ended.err.contains(reason), "{}", ended.err);
    }
}
