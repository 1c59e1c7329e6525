//! Secrets are planted everywhere an operator can put them, and then searched for everywhere
//! that a build leaves something: logs, answers, the database, the store, images, Git's
//! folders, process lists and the environment of a RUN step.

use std::io::Read as _;
use std::path::Path;

use flate2::read::MultiGzDecoder;
use ocibuild::testing::GitServer;
use ocibuild_registry::testing::{Login, Registry};
use serde_json::json;

use crate::command::Place;
use crate::served::{Served, until};
use crate::service::Gate;

const GIT: &str = "canary-git-5b1c9e";
const GITHUB: &str = "ghp_canary-github-77aa01";
const REGISTRY: &str = "canary-registry-0d4f2b";
const AWS: &str = "canary-aws-93e7c5";
const BEARER: &str = "canary-bearer-c0ffee";
const OTEL: &str = "canary-otel-5ca1ab";
const PACKAGES: &str = "canary-packages-1f2e3d";
/// `robot:canary-registry-0d4f2b` in base64.
const LOGIN: &str = "cm9ib3Q6Y2FuYXJ5LXJlZ2lzdHJ5LTBkNGYyYg==";

/// Tells everything that a step can find out about its surroundings.
const LOOK: &str = "env; cat /proc/self/environ; cat /proc/*/environ /proc/*/cmdline; \
                    cat /proc/self/mountinfo; find / -xdev -type f -path '*git*'; \
                    cat /src/.git/config; true";

/// Uses a secret as no command should: it prints it.
const USE: &str = "cat /run/secrets/packages && wc -c < /run/secrets/packages";

fn canaries() -> [&'static str; 8] {
    [
        GIT,
        GITHUB,
        REGISTRY,
        AWS,
        BEARER,
        OTEL,
        PACKAGES,
        LOGIN.trim_end_matches('='),
    ]
}

fn assert_clean(what: &str, bytes: &[u8]) {
    for canary in canaries() {
        let found = bytes
            .windows(canary.len())
            .any(|part| part == canary.as_bytes());
        assert!(!found, "{canary} is in {what}");
    }
}

/// Searches every file below a folder, and what is in it where it is compressed.
fn assert_folder_clean(folder: &Path) -> usize {
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        let name = path.display().to_string();
        assert_clean("a file name", name.as_bytes());
        if kind.is_dir() {
            files += assert_folder_clean(&path);
        } else if kind.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            assert_clean(&name, &bytes);
            if bytes.starts_with(&[0x1f, 0x8b]) {
                let mut plain = Vec::new();
                // A file may be cut while it is written.
                let _ = MultiGzDecoder::new(&bytes[..]).read_to_end(&mut plain);
                assert_clean(&format!("{name}, unpacked"), &plain);
            }
            files += 1;
        }
    }
    files
}

/// The processes below one, and below those.
fn descendants(pid: u32) -> Vec<u32> {
    let children = std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok())
        .flat_map(|children| {
            let numbers = children.split_whitespace().map(str::parse);
            numbers.collect::<Result<Vec<u32>, _>>().unwrap()
        });
    children
        .flat_map(|child| [vec![child], descendants(child)].concat())
        .collect()
}

fn settings(place: &Place, git: &GitServer, registry: &Registry) -> Vec<(&'static str, String)> {
    // What the operator has is not among what is searched.
    let secrets = place.path("operator-secrets");
    std::fs::create_dir(&secrets).unwrap();
    std::fs::write(secrets.join("packages"), PACKAGES).unwrap();
    let config = place.path("operator-config.json");
    let login = json!({"auths": {registry.host(): {"auth": LOGIN}}});
    std::fs::write(&config, login.to_string()).unwrap();
    let host = git.url("");
    let host = host.trim_start_matches("http://").trim_end_matches('/');
    vec![
        ("LOCAL_REGISTRY", registry.host()),
        ("OCIBUILD_DOCKER_CONFIG", config.display().to_string()),
        ("OCIBUILD_GIT_TOKENS", format!("{host}={GIT}")),
        ("OCIBUILD_SECRETS_DIR", secrets.display().to_string()),
        ("GITHUB_TOKEN", GITHUB.to_owned()),
        ("AWS_ACCESS_KEY_ID", "AKIA0".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", AWS.to_owned()),
        ("OCIBUILD_TOKENS", format!("*:{BEARER}")),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            format!("authorization={OTEL}"),
        ),
        ("OCIBUILD_LOG", "trace".to_owned()),
    ]
}

#[test]
fn no_secret_is_found_anywhere() {
    let place = Place::new();
    let bases = Registry::start().unwrap();
    place.push_base(bases.reference("base:1"));
    let registry = Registry::start_with(Login::basic("robot", REGISTRY)).unwrap();
    let git = GitServer::start();
    git.require_login("x-access-token", GIT);
    let mut vars = settings(&place, &git, &registry);
    vars.push(("OCIBUILD_PLAIN_HTTP", bases.host()));
    let service = Served::start(&place, "data", &vars);
    let gate = Gate::new();
    let dockerfile = format!(
        "FROM {}/base:1\nCOPY . /src\nRUN --mount=type=secret,id=packages {USE}\nRUN {LOOK}\nRUN {}\n",
        bases.host(),
        gate.command()
    );
    let repository = git.repository("team/app.git");
    repository.file("Dockerfile", dockerfile).commit("one");

    let submit = |url: &str, tag: &str| {
        let build = json!({
            "app_name": "app",
            "image_tag": tag,
            "context": {"type": "git", "url": url},
            "secrets": [{"id": "packages"}],
        });
        let answer = service.post("/v1/builds").bearer_auth(BEARER).json(&build);
        let answer = crate::served::json(answer);
        answer["id"]
            .as_str()
            .unwrap_or_else(|| panic!("{answer}"))
            .to_owned()
    };
    let read = |path: &str| {
        let answer = service.get(path).bearer_auth(BEARER).send().unwrap();
        answer.text().unwrap()
    };
    let ended = |task: &str| {
        let mut shown = serde_json::Value::Null;
        until("the end", || {
            shown = serde_json::from_str(&read(&format!("/v1/builds/{task}"))).unwrap();
            shown["status"] == "completed" || shown["status"] == "failed"
        });
        shown
    };

    let task = submit(repository.url(), "v1");
    let waiting = gate.reached();
    let below = descendants(service.pid());
    assert!(!below.is_empty());
    for pid in below {
        for file in ["cmdline", "environ"] {
            // A process may have ended meanwhile.
            let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            assert_clean(&format!("{file} of a process of the build"), &bytes);
        }
    }
    let own = std::fs::read(format!("/proc/{}/cmdline", service.pid())).unwrap();
    assert_clean("the arguments of the service", &own);
    // Git's folders are there while the build runs.
    assert_folder_clean(&place.path("data"));
    drop(waiting);
    let shown = ended(&task);
    let log = read(&format!("/static/{task}.log"));
    assert_eq!(shown["status"], "completed", "{log}");
    assert!(log.contains("PATH="), "the step has looked: {log}");
    let printed = format!(" | ****{}\n", PACKAGES.len());
    assert!(log.contains(&printed), "the step has its secret: {log}");

    // A build that fails in the hands of each of the secrets.
    registry.inject(
        "PUT",
        "/v2/serve-app/manifests/",
        1,
        ocibuild_registry::testing::Fault::Status(403),
    );
    let failed = submit(repository.url(), "v2");
    assert_eq!(ended(&failed)["status"], "failed");
    let refused = submit(&git.url("team/none.git"), "v3");
    assert_eq!(ended(&refused)["status"], "failed");

    for task in [&task, &failed, &refused] {
        for path in [
            format!("/static/{task}.log"),
            format!("/v1/builds/{task}"),
            format!("/v1/builds/{task}/log"),
            format!("/builds/{task}"),
            format!("/task/status?task_id={task}"),
        ] {
            assert_clean(&path, read(&path).as_bytes());
        }
    }
    for path in [
        "/",
        "/task",
        "/v1/builds",
        "/metrics",
        "/health",
        "/openapi.json",
    ] {
        assert_clean(path, read(path).as_bytes());
    }
    assert_clean("the log of the service", service.said().as_bytes());
    assert!(assert_folder_clean(&place.path("data")) > 10);
    assert!(assert_folder_clean(registry.folder()) > 2);
    let printed = place
        .command(&["serve", "--data-dir", "data", "--print-config"])
        .envs(vars.iter().map(|(name, value)| (name, value)))
        .output()
        .unwrap();
    assert!(printed.status.success());
    assert_clean("the printed configuration", &printed.stdout);
}
