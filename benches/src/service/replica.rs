//! One process of the service.

use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures::future::try_join_all;
use serde_json::Value;

use super::site::Site;

/// How long a service may take to its first healthy answer, and a build to its end.
const PATIENCE: Duration = Duration::from_secs(180);
/// How often the health of a starting service is asked for.
const START_PAUSE: Duration = Duration::from_millis(1);
const PAUSE: Duration = Duration::from_millis(20);
const MAX_BUILDS: usize = 2;

/// How a service is started.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) data: PathBuf,
    /// Port and name of a database; none is SQLite.
    pub(crate) mysql: Option<(u16, String)>,
    pub(crate) pushes: Pushes,
    pub(crate) max_builds: usize,
    /// The name under which the service claims builds.
    pub(crate) replica: String,
    pub(crate) port: u16,
}

/// Where images go.
#[derive(Debug, Clone)]
pub(crate) enum Pushes {
    /// To a registry that the service runs on this port.
    Here(u16),
    /// To a registry at this address.
    To(String),
}

impl Settings {
    pub(crate) fn new(data: PathBuf, mysql: Option<(u16, String)>) -> Result<Self> {
        let name = data.file_name().unwrap_or_default();
        Ok(Self {
            replica: name.to_string_lossy().into_owned(),
            data,
            mysql,
            pushes: Pushes::Here(free_port()?),
            max_builds: MAX_BUILDS,
            port: free_port()?,
        })
    }

    /// Gives all variables; nothing of this program's environment counts but the PATH.
    fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            ("OCIBUILD_LISTEN", format!("127.0.0.1:{}", self.port)),
            ("OCIBUILD_DATA_DIR", self.data.display().to_string()),
            ("OCIBUILD_REPLICA", self.replica.clone()),
            ("OCIBUILD_MAX_BUILDS", self.max_builds.to_string()),
            ("OCIBUILD_GIT_HTTP_HOSTS", "127.0.0.1".to_owned()),
        ];
        variables.push(match &self.pushes {
            Pushes::Here(port) => ("OCIBUILD_EMBEDDED_REGISTRY", format!("127.0.0.1:{port}")),
            Pushes::To(host) => ("LOCAL_REGISTRY", host.clone()),
        });
        if let Some((port, database)) = &self.mysql {
            variables.push(("MYSQL_HOST", "127.0.0.1".to_owned()));
            variables.push(("MYSQL_PORT", port.to_string()));
            variables.push(("MYSQL_DATABASE", database.clone()));
        }
        variables
    }
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    Ok(listener.local_addr()?.port())
}

/// A running service; it is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) name: String,
    /// From the start of the program to its first healthy answer.
    pub(crate) started_in: Duration,
    url: String,
    http: reqwest::Client,
    child: Child,
}

impl Replica {
    /// Starts a service and waits until it is healthy.
    pub(crate) async fn start(site: &Site, settings: &Settings) -> Result<Self> {
        let said = settings.data.with_extension("stderr");
        let start = Instant::now();
        let child = Command::new(&site.program)
            .arg("serve")
            .current_dir(site.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(settings.variables())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&said).context("make a file for what the service says")?)
            .spawn()
            .with_context(|| format!("start {}", site.program.display()))?;
        let mut replica = Self {
            name: settings.replica.clone(),
            started_in: Duration::ZERO,
            url: format!("http://127.0.0.1:{}", settings.port),
            http: site.http.clone(),
            child,
        };
        let healthy = replica.wait_until_healthy(start).await;
        healthy.with_context(|| std::fs::read_to_string(said).unwrap_or_default())?;
        replica.started_in = start.elapsed();
        Ok(replica)
    }

    async fn wait_until_healthy(&mut self, start: Instant) -> Result<()> {
        let health = self.url("/healthcheck");
        while start.elapsed() < PATIENCE {
            let answer = self.http.get(&health).send().await;
            if answer.is_ok_and(|answer| answer.status() == 200) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the service ended: {status}");
            }
            tokio::time::sleep(START_PAUSE).await;
        }
        bail!("the service does not become healthy")
    }

    /// Kills the service, as a lack of memory or a fault of the machine would.
    pub(crate) fn kill(&mut self) -> Result<Instant> {
        self.child.kill().context("kill the service")?;
        let killed = Instant::now();
        self.child.wait()?;
        Ok(killed)
    }

    /// Gives the number of the process.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Gives the URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Asks for the build of a folder of a repository, as Darwin's clients do, and gives the
    /// id of its task.
    pub(crate) async fn submit(&self, repository: &str, number: usize) -> Result<String> {
        let form = [
            ("app_name", format!("app-{number}")),
            ("image_tag", format!("v{number}")),
            ("git_repo", repository.to_owned()),
            ("app_dir", format!("app-{number}")),
        ];
        let request = self.http.post(self.url("/build_with_dockerfile"));
        let answer: Value = json(request.form(&form)).await?;
        let id = answer["task_id"].as_str();
        Ok(id.with_context(|| format!("no task: {answer}"))?.to_owned())
    }

    /// Asks for many builds at once.
    pub(crate) async fn submit_all(
        &self,
        repository: &str,
        numbers: std::ops::Range<usize>,
    ) -> Result<Vec<String>> {
        try_join_all(numbers.map(|number| self.submit(repository, number))).await
    }

    /// Gives a build as the service shows it.
    pub(crate) async fn build(&self, id: &str) -> Result<Value> {
        json(self.http.get(self.url(&format!("/v1/builds/{id}")))).await
    }

    /// Gives the newest builds, up to a thousand.
    pub(crate) async fn builds(&self) -> Result<Vec<Value>> {
        let page: Value = json(self.http.get(self.url("/v1/builds?limit=1000"))).await?;
        let builds = page["builds"].as_array();
        Ok(builds.with_context(|| format!("no list: {page}"))?.clone())
    }

    /// Gives the log of a build as far as it goes.
    pub(crate) async fn log(&self, id: &str) -> Result<String> {
        let answer = self.http.get(self.url(&format!("/static/{id}.log")));
        Ok(answer.send().await?.error_for_status()?.text().await?)
    }

    /// Waits until no build waits or runs; an error names one that did not complete.
    pub(crate) async fn wait_for_all(&self) -> Result<Vec<Value>> {
        let start = Instant::now();
        loop {
            let builds = self.builds().await?;
            let unfinished = |build: &Value| build["ended_at"].is_null();
            if !builds.iter().any(unfinished) {
                return Ok(builds);
            }
            ensure!(start.elapsed() < PATIENCE, "builds do not end: {builds:?}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until a build has completed.
    pub(crate) async fn wait_for(&self, id: &str) -> Result<Value> {
        let start = Instant::now();
        loop {
            let build = self.build(id).await?;
            match build["status"].as_str() {
                Some("completed") => return Ok(build),
                Some("failed") => bail!("{build}\n{}", self.log(id).await?),
                _ => ensure!(start.elapsed() < PATIENCE, "a build does not end: {build}"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        // It can only fail where the service has ended already.
        let _ = self.kill();
    }
}

async fn json(request: reqwest::RequestBuilder) -> Result<Value> {
    let answer = request.send().await?.error_for_status()?;
    Ok(serde_json::from_str(&answer.text().await?)?)
}
