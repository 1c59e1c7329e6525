//! Calls of the ECR API: JSON over one signed POST (the AWS JSON 1.1 protocol), the
//! operation in the header `X-Amz-Target`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use reqwest::header::{AUTHORIZATION, DATE, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::json;
use url::Url;

use super::EcrSettings;
use super::error::{CALL_TIME, EcrError, EcrOperation, EcrProblem, Refusal};
use crate::Secret;
use crate::auth::sigv4::{AccessKey, Signer, Unsigned};
use crate::connector::Connector;
use crate::home::authority;
use crate::transport::{read_limited, retry_after, send_fresh};

const TARGET: &str = "AmazonEC2ContainerRegistry_V20150921";
const LARGEST_ANSWER: usize = 256 * 1024;

/// A user name and password that the registry takes until `expires`.
pub(super) struct Login {
    pub(super) username: String,
    pub(super) password: Secret,
    /// None where the answer does not say.
    pub(super) expires: Option<DateTime<Utc>>,
}

/// The API, for one login.
pub(super) struct Api<'a> {
    pub(super) settings: &'a EcrSettings,
    pub(super) endpoint: &'a Url,
    pub(super) connector: &'a Connector,
}

impl Api<'_> {
    /// Gets a password for every registry that the access key may use.
    pub(super) async fn authorization_token(&self) -> Result<Login, EcrError> {
        let operation = EcrOperation::GetAuthorizationToken;
        let body = self.call(operation, &json!({})).await;
        body.and_then(|body| read_login(&body).ok_or(EcrProblem::Answer))
            .map_err(|problem| self.error(operation, problem))
    }

    /// Makes a repository; one that is there is as good.
    pub(super) async fn create_repository(&self, name: &str) -> Result<(), EcrError> {
        let operation = EcrOperation::CreateRepository;
        let body = json!({"registryId": self.settings.account, "repositoryName": name});
        match self.call(operation, &body).await {
            Ok(_) => Ok(()),
            Err(EcrProblem::Refused { kind, .. }) if kind == "RepositoryAlreadyExistsException" => {
                Ok(())
            }
            Err(problem) => Err(self.error(operation, problem)),
        }
    }

    fn error(&self, operation: EcrOperation, problem: EcrProblem) -> EcrError {
        EcrError {
            operation,
            host: authority(self.endpoint),
            problem,
        }
    }

    /// Calls once more where a key that was kept is refused and another may be found.
    async fn call(
        &self,
        operation: EcrOperation,
        body: &serde_json::Value,
    ) -> Result<Bytes, EcrProblem> {
        let keys = &self.settings.keys;
        let key = keys.get(&self.settings.region, self.connector).await?;
        match self.call_with(operation, body, &key).await {
            Err(EcrProblem::ExpiredKey | EcrProblem::UnknownKey) if keys.forget(&key) => {
                let key = keys.get(&self.settings.region, self.connector).await?;
                self.call_with(operation, body, &key).await
            }
            other => other,
        }
    }

    async fn call_with(
        &self,
        operation: EcrOperation,
        body: &serde_json::Value,
        key: &AccessKey,
    ) -> Result<Bytes, EcrProblem> {
        if !key.is_sendable() {
            return Err(EcrProblem::WrongSecret);
        }
        let body = Bytes::from(body.to_string());
        let headers = self.signed_headers(operation, &body, key)?;
        let request = self
            .connector
            .http(self.endpoint)
            .post(self.endpoint.clone())
            .headers(headers)
            .body(body);
        tokio::time::timeout(CALL_TIME, self.exchange(operation, request, key))
            .await
            .map_err(|_| EcrProblem::Slow)?
    }

    async fn exchange(
        &self,
        operation: EcrOperation,
        request: reqwest::RequestBuilder,
        key: &AccessKey,
    ) -> Result<Bytes, EcrProblem> {
        let unreachable = |error: reqwest::Error| EcrProblem::Unreachable(error.without_url());
        let mut response = send_fresh(request).await.map_err(unreachable)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let clock_off = clock_off(&headers, Utc::now());
        let body = read_limited(&mut response, LARGEST_ANSWER)
            .await
            .map_err(unreachable)?;
        if status.is_success() {
            return Ok(body);
        }
        let kind = headers.get("x-amzn-errortype");
        let refusal = Refusal {
            operation,
            status: status.as_u16(),
            body: &body,
            kind: kind.and_then(|value| value.to_str().ok()),
            retry_after: retry_after(&headers),
            clock_off,
        };
        Err(refusal.problem(key))
    }

    fn signed_headers(
        &self,
        operation: EcrOperation,
        body: &[u8],
        key: &AccessKey,
    ) -> Result<HeaderMap, EcrProblem> {
        let signer = Signer {
            key,
            region: &self.settings.region,
            service: "ecr",
            time: Utc::now(),
        };
        let mut signed = vec![
            ("content-type", "application/x-amz-json-1.1".to_owned()),
            ("host", authority(self.endpoint)),
            ("x-amz-date", signer.date_header()),
        ];
        let token = key.session_token.as_ref();
        signed.extend(token.map(|token| ("x-amz-security-token", token.expose().to_owned())));
        signed.push(("x-amz-target", format!("{TARGET}.{operation}")));
        let authorization = signer.authorization(&Unsigned {
            method: "POST",
            path: self.endpoint.path(),
            headers: &signed,
            body,
        });
        let mut headers = HeaderMap::new();
        for (name, value) in signed {
            headers.insert(HeaderName::from_static(name), sensitive(value)?);
        }
        headers.insert(AUTHORIZATION, sensitive(authorization)?);
        Ok(headers)
    }
}

/// The characters of a key are checked when a login is made, so this does not fail.
fn sensitive(text: String) -> Result<HeaderValue, EcrProblem> {
    let mut value = HeaderValue::try_from(text).map_err(|_| EcrProblem::WrongSecret)?;
    value.set_sensitive(true);
    Ok(value)
}

fn clock_off(headers: &HeaderMap, now: DateTime<Utc>) -> Option<i64> {
    let date = headers.get(DATE)?.to_str().ok()?;
    let there = DateTime::parse_from_rfc2822(date).ok()?;
    Some((now - there.to_utc()).num_seconds())
}

fn read_login(body: &[u8]) -> Option<Login> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        authorization_data: Vec<Data>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Data {
        authorization_token: String,
        /// Seconds since 1970.
        expires_at: Option<f64>,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let data = answer.authorization_data.into_iter().next()?;
    let pair = String::from_utf8(STANDARD.decode(data.authorization_token).ok()?).ok()?;
    let (username, password) = pair.split_once(':').filter(|(_, p)| !p.is_empty())?;
    // The cast stops at the ends of the range, and such times are no times.
    let expires = data.expires_at.map(|seconds| seconds as i64);
    Some(Login {
        username: username.to_owned(),
        password: Secret::new(password),
        expires: expires.and_then(|seconds| DateTime::from_timestamp(seconds, 0)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_or_refused() {
        let answer = |token: &str, expires: &str| {
            format!(r#"{{"authorizationData":[{{"authorizationToken":"{token}"{expires}}}]}}"#)
        };
        let login = read_login(answer("QVdTOnA6cQ==", r#","expiresAt":1.7e9"#).as_bytes()).unwrap();
        assert_eq!(login.username, "AWS");
        assert_eq!(login.password.expose(), "p:q");
        assert_eq!(login.expires.unwrap().timestamp(), 1_700_000_000);
        let login = read_login(answer("QVdTOnA6cQ==", r#","expiresAt":1e300"#).as_bytes()).unwrap();
        assert_eq!(login.expires, None);
        for body in [
            String::new(),
            "{}".to_owned(),
            r#"{"authorizationData":[]}"#.to_owned(),
            answer("!", ""),
            answer("QVdT", ""),
            answer("QVdTOg==", ""),
        ] {
            assert!(read_login(body.as_bytes()).is_none(), "{body}");
        }
    }

    #[test]
    fn the_answers_date_shows_how_wrong_the_clock_is() {
        let mut headers = HeaderMap::new();
        let now = DateTime::from_timestamp(1_440_938_160, 0).unwrap();
        assert_eq!(clock_off(&headers, now), None);
        let date = HeaderValue::from_static("Sun, 30 Aug 2015 12:26:00 GMT");
        headers.insert(DATE, date);
        assert_eq!(clock_off(&headers, now), Some(600));
    }
}
