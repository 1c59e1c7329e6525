//! The demonstration: a sample repository is served over HTTP, submitted to the service
//! like anybody's, and its log is shown until the registry has the image.
//!
//! Everything is real but the repository's home: it is one commit in memory, made of the
//! files of `testdata/sample`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use ocibuild::git::GitSnapshot;
use ocibuild::registry::{Client, Digest, Reference};
use serde::Deserialize;
use tokio::net::TcpListener;

/// The files of the sample repository.
const SAMPLE: &[(&str, &[u8])] = &[
    (
        ".dockerignore",
        include_bytes!("../../../testdata/sample/.dockerignore"),
    ),
    (
        "Dockerfile",
        include_bytes!("../../../testdata/sample/Dockerfile"),
    ),
    (
        "LICENSE.txt",
        include_bytes!("../../../testdata/sample/LICENSE.txt"),
    ),
    (
        "README.md",
        include_bytes!("../../../testdata/sample/README.md"),
    ),
    (
        "server.conf",
        include_bytes!("../../../testdata/sample/server.conf"),
    ),
    (
        "site/index.html",
        include_bytes!("../../../testdata/sample/site/index.html"),
    ),
    (
        "site/logo.svg",
        include_bytes!("../../../testdata/sample/site/logo.svg"),
    ),
    (
        "site/notes.draft.html",
        include_bytes!("../../../testdata/sample/site/notes.draft.html"),
    ),
    (
        "site/style.css",
        include_bytes!("../../../testdata/sample/site/style.css"),
    ),
];

/// Its path on the server that serves it.
const REPOSITORY: &str = "/demo/sample.git";
const TAG: &str = "sample_v1";
const PAUSE: Duration = Duration::from_millis(200);

/// Why the demonstration failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// The repository cannot be served.
    #[error("cannot serve the sample repository")]
    Listen(#[source] std::io::Error),
    /// The service does not answer.
    #[error("the service does not answer")]
    Http(#[from] reqwest::Error),
    /// The service refused the build.
    #[error("the service refused the build: {0}")]
    Refused(String),
    /// The build failed; its log says why.
    #[error("the build failed")]
    Build,
    /// The registry cannot be asked.
    #[error("cannot ask the registry for the image")]
    Registry(#[from] ocibuild::registry::Error),
    /// The client for the registry cannot be made.
    #[error("cannot make a client for the registry")]
    Client(#[from] ocibuild::registry::BuildError),
    /// The registry does not have the image.
    #[error("the registry does not have {0}")]
    Missing(Reference),
}

/// Where the service and its registry are.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// The service.
    pub service: SocketAddr,
    /// Its embedded registry.
    pub registry: SocketAddr,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demonstrated {
    /// The name of the image.
    pub reference: Reference,
    /// The digest that the registry has for it.
    pub digest: Digest,
}

/// Submits the sample and follows its build; `show` gets the log as it grows.
pub async fn run(
    addresses: Addresses,
    mut show: impl FnMut(&str),
) -> Result<Demonstrated, DemoError> {
    let repository = serve_sample().await?;
    let service = Service {
        base: format!("http://{}", addresses.service),
        http: reqwest::Client::builder().no_proxy().build()?,
    };
    let task = service.submit(&repository).await?;
    service.follow(&task, &mut show).await?;
    let name = format!("{}/serve-app:{TAG}", addresses.registry);
    let reference: Reference = name
        .parse()
        .map_err(|_| DemoError::Refused(format!("{name} is no name of an image")))?;
    let client = Client::builder().build()?;
    match client.head(&reference).await? {
        Some(image) => Ok(Demonstrated {
            reference,
            digest: image.digest,
        }),
        None => Err(DemoError::Missing(reference)),
    }
}

/// Serves the sample repository on a free port of this machine, as long as the runtime
/// lasts, and gives its URL.
async fn serve_sample() -> Result<String, DemoError> {
    let snapshot = Arc::new(GitSnapshot::new(SAMPLE.iter().copied()));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.map_err(DemoError::Listen)?;
    let address = listener.local_addr().map_err(DemoError::Listen)?;
    let router = Router::new().fallback(answer).with_state(snapshot);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the sample repository is not served any more");
        }
    });
    Ok(format!("http://{address}{REPOSITORY}"))
}

async fn answer(
    State(snapshot): State<Arc<GitSnapshot>>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    let Some(path) = uri.path().strip_prefix(REPOSITORY) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let query = uri.query().unwrap_or_default();
    let answer = snapshot.answer(method.as_str(), path, query, &body);
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let content_type = HeaderValue::from_static(answer.content_type);
    (status, [(header::CONTENT_TYPE, content_type)], answer.body).into_response()
}

/// The service as its clients see it.
struct Service {
    base: String,
    http: reqwest::Client,
}

#[derive(Deserialize)]
struct Submitted {
    task_id: String,
    message: String,
}

#[derive(Deserialize)]
struct Status {
    build_status: String,
}

impl Service {
    async fn submit(&self, repository: &str) -> Result<String, DemoError> {
        let form = [
            ("app_name", "sample"),
            ("image_tag", TAG),
            ("git_repo", repository),
        ];
        let request = self
            .http
            .post(format!("{}/build_with_dockerfile", self.base));
        let answer = request.form(&form).send().await?;
        if !answer.status().is_success() {
            return Err(DemoError::Refused(answer.text().await?));
        }
        let submitted: Submitted = answer.json().await?;
        match submitted.task_id.is_empty() {
            true => Err(DemoError::Refused(submitted.message)),
            false => Ok(submitted.task_id),
        }
    }

    /// Shows the log until the build has ended.
    async fn follow(&self, task: &str, show: &mut impl FnMut(&str)) -> Result<(), DemoError> {
        let mut shown = 0;
        loop {
            let status = self.status(task).await?;
            let log = self.log(task).await?;
            if let Some(new) = log.get(shown..) {
                show(new);
                shown = log.len();
            }
            match status.as_str() {
                "completed" => return Ok(()),
                "failed" => return Err(DemoError::Build),
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    async fn status(&self, task: &str) -> Result<String, DemoError> {
        let url = format!("{}/task/status?task_id={task}", self.base);
        let status: Status = self.http.get(url).send().await?.json().await?;
        Ok(status.build_status)
    }

    async fn log(&self, task: &str) -> Result<String, DemoError> {
        let url = format!("{}/static/{task}.log", self.base);
        Ok(self.http.get(url).send().await?.text().await?)
    }
}
