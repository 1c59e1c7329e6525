//! External accounts: a token that another identity provider has given, from a file or a
//! URL, is exchanged for one of Google's, and that perhaps for one of a service account.

use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use serde::Deserialize;
use url::Url;

use super::token::{TIME, Token, post_form, refuse};
use super::{GoogleError, GoogleProblem, InvalidGoogleLogin, read_file};
use crate::Secret;
use crate::auth::call::{call, is_safe, sensitive};
use crate::connector::Connector;
use crate::home::authority;

const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// The key file of an external account.
#[derive(Deserialize)]
pub(super) struct External {
    audience: String,
    subject_token_type: String,
    token_url: String,
    service_account_impersonation_url: Option<String>,
    credential_source: TokenSource,
}

#[derive(Deserialize)]
struct TokenSource {
    file: Option<PathBuf>,
    url: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    format: Format,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Format {
    #[serde(rename = "type")]
    kind: String,
    subject_token_field_name: String,
}

/// Secrets are sent over TLS, or to this very machine.
pub(super) fn checked_url(text: String) -> Result<String, InvalidGoogleLogin> {
    match Url::parse(&text).is_ok_and(|url| is_safe(&url)) {
        true => Ok(text),
        false => Err(InvalidGoogleLogin::Url),
    }
}

impl External {
    pub(super) fn parse(json: &str) -> Result<Self, InvalidGoogleLogin> {
        let external: Self = serde_json::from_str(json).map_err(|_| InvalidGoogleLogin::Json)?;
        checked_url(external.token_url.clone())?;
        if let Some(url) = &external.service_account_impersonation_url {
            checked_url(url.clone())?;
        }
        match (
            &external.credential_source.file,
            &external.credential_source.url,
        ) {
            (None, None) => Err(InvalidGoogleLogin::TokenSource),
            _ => Ok(external),
        }
    }

    pub(super) async fn token(&self, connector: &Connector) -> Result<Token, GoogleError> {
        let subject = self.subject_token(connector).await?;
        let fields = [
            ("grant_type", GRANT),
            ("audience", &self.audience),
            ("scope", SCOPE),
            ("requested_token_type", ACCESS_TOKEN),
            ("subject_token", subject.expose()),
            ("subject_token_type", &self.subject_token_type),
        ];
        let token = post_form(&self.token_url, &fields, connector).await?;
        match &self.service_account_impersonation_url {
            Some(url) => impersonate(url, &token.0, connector).await,
            None => Ok(token),
        }
    }

    async fn subject_token(&self, connector: &Connector) -> Result<Secret, GoogleError> {
        let TokenSource { file, url, .. } = &self.credential_source;
        let (host, text) = match (file, url) {
            (Some(path), _) => {
                let host = "the external account".to_owned();
                let text = read_file(path).map_err(|source| GoogleError {
                    host: host.clone(),
                    problem: GoogleProblem::Read {
                        path: path.clone(),
                        source,
                    },
                })?;
                (host, text)
            }
            (None, url) => {
                self.ask(url.as_deref().unwrap_or_default(), connector)
                    .await?
            }
        };
        let problem = GoogleProblem::Answer;
        self.pick(&text).ok_or(GoogleError { host, problem })
    }

    async fn ask(&self, url: &str, connector: &Connector) -> Result<(String, String), GoogleError> {
        let invalid = || GoogleError {
            host: "the external account".to_owned(),
            problem: GoogleProblem::Request,
        };
        let url = Url::parse(url).map_err(|_| invalid())?;
        let host = authority(&url);
        let failed = |problem| GoogleError {
            host: host.clone(),
            problem,
        };
        let mut request = connector.direct().get(url);
        for (name, value) in &self.credential_source.headers {
            let name = HeaderName::try_from(name).map_err(|_| invalid())?;
            request = request.header(name, HeaderValue::try_from(value).map_err(|_| invalid())?);
        }
        let answer = call(request, TIME).await;
        let answer = answer.map_err(|error| failed(GoogleProblem::Call(error)))?;
        refuse(&answer).map_err(failed)?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        Ok((host, text))
    }

    fn pick(&self, text: &str) -> Option<Secret> {
        let format = &self.credential_source.format;
        if format.kind != "json" {
            return Some(text.trim()).filter(|t| !t.is_empty()).map(Secret::new);
        }
        let document: serde_json::Value = serde_json::from_str(text).ok()?;
        let token = document.get(&format.subject_token_field_name)?.as_str()?;
        Some(Secret::new(token))
    }
}

/// Becomes a service account that the identity may act for.
async fn impersonate(
    url: &str,
    token: &Secret,
    connector: &Connector,
) -> Result<Token, GoogleError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Impersonated {
        access_token: String,
        expire_time: DateTime<Utc>,
    }
    let url = Url::parse(url).ok();
    let host = url.as_ref().map(authority).unwrap_or_default();
    let failed = |problem| GoogleError {
        host: host.clone(),
        problem,
    };
    let bearer = sensitive(&format!("Bearer {}", token.expose()));
    let (Some(url), Some(bearer)) = (url, bearer) else {
        return Err(failed(GoogleProblem::Request));
    };
    let request = connector
        .http(&url)
        .post(url)
        .header(AUTHORIZATION, bearer)
        .header(CONTENT_TYPE, "application/json")
        .body(serde_json::json!({"scope": [SCOPE]}).to_string());
    let answer = call(request, TIME).await;
    let answer = answer.map_err(|error| failed(GoogleProblem::Call(error)))?;
    refuse(&answer).map_err(failed)?;
    let found: Impersonated =
        serde_json::from_slice(&answer.body).map_err(|_| failed(GoogleProblem::Answer))?;
    Ok((Secret::new(found.access_token), found.expire_time))
}
