//! Registries that fail, at each stage of a push: the task fails, and says where and why.

use ocibuild_registry::testing::{Fault, Registry};
use serde_json::json;

use crate::command::Place;
use crate::served::Served;

/// A build of a few bytes that goes to the local registry and, perhaps, elsewhere.
fn build(tag: &str, destinations: &[String]) -> serde_json::Value {
    let mut build = json!({
        "app_name": "app",
        "image_tag": tag,
        "context": {"type": "empty"},
        // Other bytes for each tag, so that no layer is there before.
        "dockerfile": {"text": format!("FROM scratch\nWORKDIR /{tag}\n")},
    });
    if !destinations.is_empty() {
        build["destinations"] = json!(destinations);
    }
    build
}

#[test]
fn a_push_that_fails_at_any_stage_fails_the_task_and_names_the_target() {
    let place = Place::new();
    let registry = Registry::start().unwrap();
    let service = Served::start(&place, "data", &[("LOCAL_REGISTRY", registry.host())]);
    let stages = [
        ("HEAD", "/v2/serve-app/blobs/", Fault::Status(403), "403"),
        (
            "POST",
            "/v2/serve-app/blobs/uploads/",
            Fault::Status(403),
            "403",
        ),
        (
            "PUT",
            "/v2/serve-app/blobs/uploads/",
            Fault::Status(400),
            "400",
        ),
        (
            "PUT",
            "/v2/serve-app/blobs/uploads/",
            Fault::Status(413),
            "413",
        ),
        ("PUT", "/v2/serve-app/manifests/", Fault::Status(403), "403"),
        ("PUT", "/v2/serve-app/manifests/", Fault::Status(400), "400"),
    ];
    for (number, (method, path, fault, reason)) in stages.into_iter().enumerate() {
        let tag = format!("v{number}");
        registry.inject(method, path, 1, fault);
        let task = service.submit_json(&build(&tag, &[]));
        let target = format!("{}/serve-app:{tag}", registry.host());
        service.assert_fails(&task, &target);
        service.assert_fails(&task, reason);
    }
    // What only hiccups is tried again.
    let hiccups = [
        ("HEAD", "/v2/serve-app/blobs/", Fault::Status(503)),
        ("POST", "/v2/serve-app/blobs/uploads/", Fault::Reset),
        ("PUT", "/v2/serve-app/blobs/uploads/", Fault::ResetAfter(10)),
        ("PUT", "/v2/serve-app/manifests/", Fault::LoseAnswer),
    ];
    for (number, (method, path, fault)) in hiccups.into_iter().enumerate() {
        registry.inject(method, path, 1, fault);
        let ended = service.follow(&service.submit_json(&build(&format!("h{number}"), &[])));
        assert_eq!(ended.state, "completed", "{method}: {}", ended.log);
    }
}

#[test]
fn one_target_of_two_that_fails_fails_the_task_and_is_named() {
    let place = Place::new();
    let (good, bad) = (Registry::start().unwrap(), Registry::start().unwrap());
    let both = format!("{},{}", good.host(), bad.host());
    let service = Served::start(
        &place,
        "data",
        &[
            ("LOCAL_REGISTRY", good.host()),
            ("OCIBUILD_PLAIN_HTTP", both),
        ],
    );
    bad.inject("PUT", "/v2/team/app/manifests/", 1, Fault::Status(403));
    let there = format!("{}/team/app:v1", good.host());
    let failing = format!("{}/team/app:v1", bad.host());
    let task = service.submit_json(&build("v1", &[there.clone(), failing.clone()]));
    service.assert_fails(&task, &failing);
    let shown: serde_json::Value =
        serde_json::from_str(&service.text(&format!("/v1/builds/{task}"))).unwrap();
    assert_eq!(shown["status"], "failed", "{shown}");
    // Both work once the registry does.
    let ended = service.follow(&service.submit_json(&build("v1", &[there, failing])));
    assert_eq!(ended.state, "completed", "{}", ended.log);
}

#[test]
fn a_registry_that_is_down_fails_the_push_and_says_what_loopback_means() {
    let place = Place::new();
    let gone = Registry::start().map(|registry| registry.host()).unwrap();
    let service = Served::start(&place, "data", &[("LOCAL_REGISTRY", gone.clone())]);
    let task = service.submit_json(&build("v1", &[]));
    service.assert_fails(&task, &format!("push {gone}/"));
    service.assert_fails(&task, "OCIBUILD_REGISTRY_ALIAS");
}
