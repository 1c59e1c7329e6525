//! The service with real builds: a repository over HTTP, this command as the service and as
//! the process of a build, Debian's registry, and both databases.

use ocibuild::testing::{GitRepository, GitServer};
use ocibuild_registry::testing::{DebianRegistry, StartError, not_installed};
use ocibuild_store::testing::MariaDb;

use crate::command::{Place, pull_and_validate};
use crate::served::{Served, until};

const TOKEN: &str = "ghp_0123456789secret";

/// Debian's registry with a base image, and a place for services.
pub(crate) struct Site {
    pub(crate) place: Place,
    pub(crate) registry: DebianRegistry,
}

impl Site {
    /// None where Debian's registry is not installed.
    pub(crate) fn new() -> Option<Self> {
        let registry = match DebianRegistry::start() {
            Err(StartError::Missing) => {
                not_installed("docker-registry");
                return None;
            }
            registry => registry.unwrap(),
        };
        let place = Place::new();
        place.push_base(registry.reference("base:1"));
        Some(Self { place, registry })
    }

    /// Starts a service that pushes to the registry.
    pub(crate) fn serve(&self, data: &str, vars: &[(&str, String)]) -> Served {
        let own = [("LOCAL_REGISTRY", self.registry.host())];
        Served::start(&self.place, data, &[&own, vars].concat())
    }

    /// Makes a repository whose image runs a command.
    pub(crate) fn repository(
        &self,
        server: &GitServer,
        name: &str,
        command: &str,
    ) -> GitRepository {
        let repository = server.repository(name);
        let text = format!(
            "FROM {}/base:1\nCOPY f /f\nRUN {command}\n",
            self.registry.host()
        );
        repository
            .file("f", "x")
            .file("Dockerfile", text)
            .commit("one");
        repository
    }
}

/// A command of a build that waits until it is let go.
pub(crate) struct Gate(std::net::TcpListener);

impl Gate {
    pub(crate) fn new() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    /// The command that waits.
    pub(crate) fn command(&self) -> String {
        let port = self.0.local_addr().unwrap().port();
        format!("echo at-work && nc 127.0.0.1 {port} < /dev/null")
    }

    /// Waits until a build waits; it goes on when what is returned is dropped.
    pub(crate) fn reached(&self) -> std::net::TcpStream {
        let mut waiting = None;
        until("a build at the gate", || {
            waiting = self.0.accept().ok();
            waiting.is_some()
        });
        waiting.unwrap().0
    }
}

fn builds_and_failures(vars: &[(&str, String)]) {
    let Some(site) = Site::new() else { return };
    let token = [("GITHUB_TOKEN", TOKEN.to_owned())];
    let service = site.serve("data", &[&token, vars].concat());
    let server = GitServer::start();
    // The command waits until it has been seen running.
    let gate = Gate::new();
    let good = site.repository(&server, "team/good.git", &gate.command());
    let task = service.submit(good.url(), "v1", None);
    let waiting = gate.reached();
    assert_eq!(service.state(&task), "running");
    drop(waiting);
    let ended = service.follow(&task);
    assert_eq!(ended.state, "completed", "{}", ended.log);
    assert!(ended.log.contains(" | at-work\n"), "{}", ended.log);
    let reference = site.registry.reference("serve-app:v1");
    let pushed = ended
        .log
        .lines()
        .find_map(|line| line.strip_prefix("Pushed "))
        .unwrap();
    let (name, digest) = pushed.split_once('@').unwrap();
    assert_eq!(
        digest,
        pull_and_validate(&name.parse().unwrap_or(reference))
    );
    assert!(
        server
            .seen()
            .iter()
            .all(|request| request.authorization.is_none()),
        "the token is GitHub's"
    );

    let uploaded = format!("FROM {}/base:1\nRUN echo uploaded\n", site.registry.host());
    let ended = service.follow(&service.submit(good.url(), "v2", Some(&uploaded)));
    assert_eq!(ended.state, "completed", "{}", ended.log);
    assert!(
        ended.log.contains(" | uploaded\n") && !ended.log.contains("at-work"),
        "{}",
        ended.log
    );

    let task = service.submit(&server.url("team/none.git"), "v3", None);
    service.assert_fails(&task, "no repository at ");
    let bad = site.repository(&server, "team/bad.git", "echo why >&2; exit 9");
    let task = service.submit(bad.url(), "v4", None);
    service.assert_fails(&task, "exit code: 9");
    let scratch = site.place.path("data/build_artifacts");
    assert_eq!(
        std::fs::read_dir(scratch).unwrap().count(),
        0,
        "nothing is left behind"
    );
}

#[test]
fn on_sqlite() {
    builds_and_failures(&[]);
}

#[test]
fn on_mariadb() {
    let database = MariaDb::start().unwrap();
    builds_and_failures(&mysql(&database));
}

/// The settings that name a server of MariaDB.
pub(crate) fn mysql(database: &MariaDb) -> [(&'static str, String); 2] {
    let port = database.settings("").port.to_string();
    [("MYSQL_HOST", "127.0.0.1".to_owned()), ("MYSQL_PORT", port)]
}
