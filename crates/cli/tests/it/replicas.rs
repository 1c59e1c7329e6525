//! Two services on one MariaDB, of which one is killed in mid-build; and a database that is.

use ocibuild::testing::GitServer;
use ocibuild_store::testing::MariaDb;

use crate::served::{http_client, until};
use crate::service::{Gate, Site, mysql};

#[test]
fn the_build_of_a_killed_replica_is_taken_over_by_the_other() {
    let Some(site) = Site::new() else { return };
    let database = MariaDb::start().unwrap();
    let lease = [("OCIBUILD_LEASE", "3s".to_owned())];
    let vars = [&mysql(&database)[..], &lease].concat();
    let mut first = site.serve("first", &vars);
    let server = GitServer::start();
    let gate = Gate::new();
    let repository = site.repository(&server, "app.git", &gate.command());
    let task = first.submit(repository.url(), "v1", None);
    let waiting = gate.reached();
    let second = site.serve("second", &vars);
    second.reach_line(&task, " | at-work");
    assert_eq!(second.state(&task), "running");
    first.kill();
    // Nothing of the first build runs on: its command has lost its end of the connection.
    drop(waiting);
    let again = gate.reached();
    assert_eq!(second.state(&task), "running");
    drop(again);
    let ended = second.follow(&task);
    assert_eq!(ended.state, "completed", "{}", ended.log);
    assert_eq!(
        ended.log.matches(" | at-work\n").count(),
        2,
        "{}",
        ended.log
    );
    let shown: serde_json::Value =
        serde_json::from_str(&second.text(&format!("/v1/builds/{task}"))).unwrap();
    assert_eq!(shown["attempts"], 2, "{shown}");
}

#[test]
fn a_killed_service_takes_its_build_back_when_it_starts_again() {
    let Some(site) = Site::new() else { return };
    let mut service = site.serve("data", &[]);
    let server = GitServer::start();
    let gate = Gate::new();
    let repository = site.repository(&server, "app.git", &gate.command());
    let task = service.submit(repository.url(), "v1", None);
    let waiting = gate.reached();
    service.kill();
    drop(waiting);
    // The lease is a minute long, and nobody waits for it to end.
    let service = site.serve("data", &[("OCIBUILD_LEASE", "60s".to_owned())]);
    drop(gate.reached());
    let ended = service.follow(&task);
    assert_eq!(ended.state, "completed", "{}", ended.log);
}

#[test]
fn a_database_that_is_killed_in_mid_build_loses_nothing() {
    let Some(site) = Site::new() else { return };
    let mut database = MariaDb::start().unwrap();
    let service = site.serve("data", &mysql(&database));
    let server = GitServer::start();
    let gate = Gate::new();
    let repository = site.repository(&server, "app.git", &gate.command());
    let task = service.submit(repository.url(), "v1", None);
    let waiting = gate.reached();
    database.stop();
    assert_eq!(service.get("/health").send().unwrap().status(), 503);
    drop(waiting);
    // The image is made and pushed without the database.
    let reference = format!("http://{}/v2/serve-app/manifests/v1", site.registry.host());
    let client = http_client();
    until("the image", || {
        let head = client
            .head(&reference)
            .header("Accept", "application/vnd.oci.image.manifest.v1+json");
        head.send().unwrap().status().is_success()
    });
    database.start_again().unwrap();
    let ended = service.follow(&task);
    assert_eq!(ended.state, "completed", "{}", ended.log);
    assert!(ended.log.contains(" | at-work\n"), "{}", ended.log);
    until("health", || {
        service.get("/health").send().unwrap().status() == 200
    });
}
