//! `push`, `pull`, `inspect` and `check-host`.

use ocibuild::testing::ContextDir;
use ocibuild_registry::testing::{Login, Registry};

use crate::command::{Place, pull_and_validate};

fn context() -> ContextDir {
    ContextDir::new()
        .file("f", "x")
        .file("Dockerfile", "FROM busybox\nCOPY f /f\n")
}

#[test]
fn an_image_goes_to_a_registry_and_comes_back() {
    let (place, registry) = (Place::new(), Registry::start().unwrap());
    let name = registry.reference("team/app:1").to_string();
    assert_eq!(place.build(&context(), &["-t", &name]).status, 0);
    let pushed = place.run(&["push", "--root", "store", &name]);
    assert_eq!(pushed.status, 0, "{}", pushed.err);
    let digest = pull_and_validate(&registry.reference("team/app:1"));
    assert_eq!(pushed.out, format!("pushed {name}@{digest}\n"));

    let pulled = place.run(&["pull", "--root", "other", &name]);
    assert_eq!(
        (pulled.status, pulled.out),
        (0, format!("pulled {name}@{digest}\n"))
    );
    let inspected = place.run(&["inspect", "--root", "other", "--verify", &name]);
    assert_eq!(inspected.status, 0, "{}", inspected.err);
    let remote = place.run(&["inspect", "--root", "third", "--remote", &name]);
    let remote: serde_json::Value = serde_json::from_str(&remote.out).unwrap();
    assert_eq!(remote["descriptor"]["digest"], digest);
}

#[test]
fn a_build_pushes_with_dockers_credentials() {
    let registry = Registry::start_with(Login::token("ann", "secret")).unwrap();
    let place = Place::new();
    let name = registry.reference("team/app:1").to_string();
    let refused = place.build(&context(), &["-t", &name, "--push"]);
    assert_eq!(refused.status, 1);
    assert!(
        refused
            .err
            .contains(&format!("error: push {name}\n  caused by: ")),
        "{}",
        refused.err
    );

    std::fs::create_dir(place.path(".docker")).unwrap();
    // `ann:secret`
    let auth = serde_json::json!({"auths": {registry.host(): {"auth": "YW5uOnNlY3JldA=="}}});
    std::fs::write(place.path(".docker/config.json"), auth.to_string()).unwrap();
    let pushed = place.build(&context(), &["-t", &name, "--push"]);
    assert_eq!(pushed.status, 0, "{}", pushed.err);
    assert!(
        pushed
            .err
            .contains(&format!("pushed {name}@{}", pushed.out)),
        "{}",
        pushed.err
    );
    assert!(!pushed.err.contains("secret"), "{}", pushed.err);
}

#[test]
fn inspect_finds_damage() {
    let place = Place::new();
    let built = place.build(&context(), &["-t", "app:1"]);
    assert_eq!(built.status, 0, "{}", built.err);
    let image = place.verify("app:1");
    let digest = image["manifest"]["layers"][1]["digest"].as_str().unwrap();
    let blob = place
        .path("store/blobs/sha256")
        .join(digest.strip_prefix("sha256:").unwrap());
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    let ended = place.run(&["inspect", "--root", "store", "--verify", "app:1"]);
    assert_eq!((ended.status, ended.out.as_str()), (1, ""));
    assert!(
        ended.err.starts_with("error: ") && ended.err.contains(digest),
        "{}",
        ended.err
    );

    let ended = place.run(&["inspect", "--root", "store", "none:1"]);
    assert_eq!(ended.status, 1);
    assert!(ended.err.contains("none:1"), "{}", ended.err);
}

#[test]
fn check_host_names_a_sandbox() {
    let place = Place::new();
    let ended = place.run(&["check-host", "--root", "store", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    let verdicts = report["sandboxes"].as_array().unwrap();
    assert!(report["environment"]["kernel"].is_string(), "{report}");
    assert!(!verdicts.is_empty());
    let usable = verdicts.iter().any(|verdict| verdict["usable"] == true);
    assert_eq!(ended.status, i32::from(!usable), "{}", ended.out);
    let plain = place.run(&["check-host", "--root", "store"]);
    let (facts, plain) = plain.out.split_once("\n\n").unwrap();
    assert!(facts.starts_with("kernel: "), "{facts}");
    assert_eq!(plain.lines().count(), verdicts.len(), "{plain}");

    let unknown = place.run(&["build", "--sandbox", "docker", "--root", "store", "."]);
    assert_eq!(unknown.status, 2, "{}", unknown.err);
    assert!(
        unknown.err.contains("emulation/recorded"),
        "{}",
        unknown.err
    );
}
