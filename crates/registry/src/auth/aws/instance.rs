//! The role of a machine, from the instance metadata service in its second version: a
//! token for the session, the name of the role, its key.

use std::time::Duration;

use url::Url;

use super::{AwsKeyError, AwsKeyProblem, AwsKeySource, Finder, Found, read_document};
use crate::auth::call::{Answer, CallError, call, sensitive};
use crate::home::authority;

/// Machines outside of Amazon have nobody at this address.
const TIME: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 3;
const ADDRESS: &str = "http://169.254.169.254";
const ADDRESS_V6: &str = "http://[fd00:ec2::254]";
const ROLES: &str = "latest/meta-data/iam/security-credentials/";
const LONGEST_NAME: usize = 200;

impl Finder<'_> {
    pub(super) async fn instance(&self) -> Found {
        let disabled = self.environment.get("AWS_EC2_METADATA_DISABLED");
        if disabled.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let service = self.service()?;
        let Some(token) = service.token().await? else {
            return Ok(None);
        };
        let Some(answer) = service.get(ROLES, &token).await? else {
            return Ok(None);
        };
        let names = String::from_utf8_lossy(&answer.body).into_owned();
        let Some(role) = names.lines().map(str::trim).find(|name| !name.is_empty()) else {
            return Ok(None);
        };
        if !is_name(role) {
            return Err(service.failed(AwsKeyProblem::Characters {
                what: "the name of the machine's role",
            }));
        }
        let found = service.get(&format!("{ROLES}{role}"), &token).await?;
        match found.and_then(|answer| read_document(&answer.body)) {
            Some(found) => Ok(Some(found)),
            None => Err(service.failed(AwsKeyProblem::Answer {
                host: service.host(),
            })),
        }
    }

    fn service(&self) -> Result<Service<'_>, AwsKeyError> {
        let mode = self
            .environment
            .get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE");
        let usual = match mode.is_some_and(|mode| mode.eq_ignore_ascii_case("ipv6")) {
            true => ADDRESS_V6,
            false => ADDRESS,
        };
        let text = self.environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT");
        let base = Url::parse(text.unwrap_or(usual)).ok();
        let base = base.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        match base {
            Some(base) => Ok(Service {
                base,
                http: self.connector.direct(),
            }),
            None => Err(AwsKeySource::Instance.failed(AwsKeyProblem::Address {
                host: "AWS_EC2_METADATA_SERVICE_ENDPOINT".to_owned(),
                problem: "it is not an http URL",
            })),
        }
    }
}

fn is_name(role: &str) -> bool {
    let permitted = |b: u8| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b);
    role.len() <= LONGEST_NAME && role.bytes().all(permitted) && !role.starts_with('.')
}

struct Service<'a> {
    base: Url,
    http: &'a reqwest::Client,
}

impl Service<'_> {
    /// Opens a session; none where nobody answers, as on machines that are elsewhere.
    async fn token(&self) -> Result<Option<String>, AwsKeyError> {
        let request = || {
            self.http
                .put(self.url("latest/api/token"))
                .header("x-aws-ec2-metadata-token-ttl-seconds", "21600")
                .header("content-length", "0")
        };
        let answer = match self.patiently(request).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(%error, "there is no metadata service");
                return Ok(None);
            }
        };
        let token = String::from_utf8(answer.body.to_vec()).unwrap_or_default();
        match (answer.status, token.trim()) {
            (200, token) if !token.is_empty() => Ok(Some(token.to_owned())),
            (status, _) => Err(self.refused(status)),
        }
    }

    async fn get(&self, path: &str, token: &str) -> Result<Option<Answer>, AwsKeyError> {
        let what = "the token of the metadata service";
        let token = sensitive(token).ok_or_else(|| self.failed(AwsKeyProblem::Characters { what }));
        let token = token?;
        let request = || {
            self.http
                .get(self.url(path))
                .header("x-aws-ec2-metadata-token", token.clone())
        };
        let answer = self.patiently(request).await.map_err(|source| {
            self.failed(AwsKeyProblem::Call {
                host: self.host(),
                source,
            })
        })?;
        match answer.status {
            200 => Ok(Some(answer)),
            404 => Ok(None),
            status => Err(self.refused(status)),
        }
    }

    /// The service is known to be slow and to refuse while a machine starts.
    async fn patiently(
        &self,
        request: impl Fn() -> reqwest::RequestBuilder,
    ) -> Result<Answer, CallError> {
        for _ in 1..ATTEMPTS {
            match call(request(), TIME).await {
                Ok(answer) if answer.status >= 500 => {}
                Err(CallError::Slow(_)) => {}
                other => return other,
            }
        }
        call(request(), TIME).await
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.base.as_str().trim_end_matches('/'))
    }

    fn host(&self) -> String {
        authority(&self.base)
    }

    fn refused(&self, status: u16) -> AwsKeyError {
        self.failed(AwsKeyProblem::Refused {
            host: self.host(),
            status,
            kind: String::new(),
        })
    }

    fn failed(&self, problem: AwsKeyProblem) -> AwsKeyError {
        AwsKeySource::Instance.failed(problem)
    }
}
