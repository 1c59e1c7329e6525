//! `ocibuild serve` as a process of its own, as it runs in a pod: settings come from its
//! environment, builds are processes below it, and it can be killed.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use reqwest::blocking::{Client, RequestBuilder, multipart};
use serde_json::Value;

use crate::command::Place;

/// How long anything may take that happens by itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running service.
pub(crate) struct Served {
    child: Child,
    pub(crate) url: String,
    http: Client,
    said: Arc<Mutex<String>>,
}

/// How a task ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) state: String,
    pub(crate) log: String,
}

impl Served {
    /// Starts a service whose data is in a folder of this place.
    pub(crate) fn start(place: &Place, data: &str, vars: &[(&str, String)]) -> Self {
        let mut child = place
            .command(&["serve", "--listen", "127.0.0.1:0", "--data-dir", data])
            .env("OCIBUILD_GIT_HTTP_HOSTS", "127.0.0.1")
            .env("OCIBUILD_MAX_BUILDS", "2")
            .envs(vars.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let (send, address) = mpsc::channel();
        let errors = BufReader::new(child.stderr.take().unwrap());
        let kept = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                if let Some((_, address)) = line.split_once("the build service listens address=") {
                    // Nobody listens when the test has ended.
                    let _ = send.send(address.to_owned());
                }
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        let address = address.recv_timeout(PATIENCE);
        let Ok(address) = address else {
            panic!("the service does not start: {}", said.lock().unwrap());
        };
        Self {
            child,
            url: format!("http://{address}"),
            http: http_client(),
            said,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that the service has logged.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Ends the service as an out-of-memory kill does: nothing of it runs on.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.http.get(format!("{}{path}", self.url))
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.url))
    }

    pub(crate) fn text(&self, path: &str) -> String {
        self.get(path).send().unwrap().text().unwrap()
    }

    /// Asks for a build as Darwin's services do; gives the id of its task.
    pub(crate) fn submit(&self, repository: &str, tag: &str, dockerfile: Option<&str>) -> String {
        let mut form = multipart::Form::new()
            .text("app_name", "app")
            .text("image_tag", tag.to_owned())
            .text("git_repo", repository.to_owned());
        if let Some(text) = dockerfile {
            let part = multipart::Part::text(text.to_owned()).file_name("Dockerfile");
            form = form.part("dockerfile", part);
        }
        let answer = json(self.post("/build_with_dockerfile").multipart(form));
        let id = answer["task_id"].as_str().map(str::to_owned);
        id.unwrap_or_else(|| panic!("{answer}"))
    }

    /// Asks for a build in JSON; gives the id of its task.
    pub(crate) fn submit_json(&self, build: &Value) -> String {
        let answer = json(self.post("/v1/builds").json(build));
        let id = answer["id"].as_str().map(str::to_owned);
        id.unwrap_or_else(|| panic!("{answer}"))
    }

    pub(crate) fn state(&self, task: &str) -> String {
        let status = json(self.get(&format!("/task/status?task_id={task}")));
        status["build_status"].as_str().unwrap().to_owned()
    }

    pub(crate) fn log(&self, task: &str) -> String {
        self.text(&format!("/static/{task}.log"))
    }

    /// Waits until a task has ended.
    pub(crate) fn follow(&self, task: &str) -> Ended {
        let mut state = String::new();
        until(&format!("the end of {task}"), || {
            state = self.state(task);
            state == "completed" || state == "failed"
        });
        let log = self.log(task);
        Ended { state, log }
    }

    /// Waits until the log of a task has a text.
    pub(crate) fn reach_line(&self, task: &str, text: &str) {
        until(&format!("{text:?} in the log of {task}"), || {
            self.log(task).contains(text)
        });
    }

    /// Checks that a task fails for a reason that its log ends with.
    pub(crate) fn assert_fails(&self, task: &str, reason: &str) {
        let Ended { state, log } = self.follow(task);
        assert_eq!(state, "failed", "{log}");
        let last = log.lines().last().unwrap();
        assert!(
            last.starts_with("Build failed after ") && last.contains(reason),
            "{log}"
        );
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client that uses no proxy.
pub(crate) fn http_client() -> Client {
    // Another test may have been faster.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().build().unwrap()
}

/// Sends a request whose answer is JSON.
pub(crate) fn json(request: RequestBuilder) -> Value {
    let text = request.send().unwrap().text().unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Waits until something holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
