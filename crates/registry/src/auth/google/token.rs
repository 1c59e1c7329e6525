//! Access tokens: from the metadata service, for a refresh token, or for a token of
//! another identity.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;
use url::Url;

use super::{GoogleError, GoogleProblem, Source};
use crate::Secret;
use crate::auth::call::{Answer, call, form};
use crate::connector::Connector;
use crate::error::clean;
use crate::home::authority;

pub(super) const TOKEN_URL: &str = "https://oauth2.googleapis.com/token";
pub(super) const FORM: &str = "application/x-www-form-urlencoded";
pub(super) const TIME: Duration = Duration::from_secs(30);
/// The metadata service is on the machine itself.
const METADATA_TIME: Duration = Duration::from_secs(5);
const METADATA_PATH: &str = "computeMetadata/v1/instance/service-accounts/default/token";
const DEFAULT_LIFE: i64 = 300;
const LONGEST_LIFE: i64 = 24 * 3600;
const MAX_KIND: usize = 100;

pub(super) type Token = (Secret, DateTime<Utc>);

pub(super) async fn fetch(source: &Source, connector: &Connector) -> Result<Token, GoogleError> {
    match source {
        Source::Machine { host } => of_machine(host, connector).await,
        Source::Person {
            client_id,
            client_secret,
            refresh_token,
            token_url,
        } => {
            let fields = [
                ("grant_type", "refresh_token"),
                ("client_id", client_id),
                ("client_secret", client_secret.expose()),
                ("refresh_token", refresh_token.expose()),
            ];
            post_form(token_url, &fields, connector).await
        }
        Source::External(external) => external.token(connector).await,
        Source::Key(key) => Ok((key.clone(), DateTime::<Utc>::MAX_UTC)),
    }
}

async fn of_machine(host: &str, connector: &Connector) -> Result<Token, GoogleError> {
    let failed = |problem| GoogleError {
        host: format!("the metadata service at {host}"),
        problem,
    };
    let url = Url::parse(&format!("http://{host}/{METADATA_PATH}"));
    let url = url.map_err(|_| failed(GoogleProblem::Request))?;
    let request = connector.direct().get(url);
    let request = request.header("metadata-flavor", "Google");
    let answer = call(request, METADATA_TIME).await;
    let answer = answer.map_err(|error| failed(GoogleProblem::Call(error)))?;
    // Anybody else at this address does not send the header.
    let flavor = answer.headers.get("metadata-flavor");
    if answer.status == 200 && flavor.is_none_or(|flavor| flavor != "Google") {
        return Err(failed(GoogleProblem::Answer));
    }
    read(&answer).map_err(failed)
}

/// Sends a form to a token service, with what the fields hold.
pub(super) async fn post_form(
    url: &str,
    fields: &[(&str, &str)],
    connector: &Connector,
) -> Result<Token, GoogleError> {
    let problem = |host: &str, problem| GoogleError {
        host: host.to_owned(),
        problem,
    };
    let url = Url::parse(url).map_err(|_| problem("", GoogleProblem::Request))?;
    let host = authority(&url);
    let request = connector.http(&url).post(url);
    let request = request.header(CONTENT_TYPE, FORM).body(form(fields));
    let answer = call(request, TIME).await;
    let answer = answer.map_err(|error| problem(&host, GoogleProblem::Call(error)))?;
    read(&answer).map_err(|error| problem(&host, error))
}

fn read(answer: &Answer) -> Result<Token, GoogleProblem> {
    #[derive(Deserialize)]
    struct Token {
        access_token: String,
        expires_in: Option<i64>,
    }
    refuse(answer)?;
    let token: Token = serde_json::from_slice(&answer.body).map_err(|_| GoogleProblem::Answer)?;
    if token.access_token.is_empty() {
        return Err(GoogleProblem::Answer);
    }
    let life = token.expires_in.unwrap_or(DEFAULT_LIFE);
    let life = TimeDelta::seconds(life.clamp(0, LONGEST_LIFE));
    // Some append dots to fill the token up.
    let text = token.access_token.trim_end_matches('.');
    Ok((Secret::new(text), Utc::now() + life))
}

/// Turns an answer that is none into its error.
pub(super) fn refuse(answer: &Answer) -> Result<(), GoogleProblem> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Refusal {
        error: serde_json::Value,
    }
    if answer.status == 200 {
        return Ok(());
    }
    let refusal: Refusal = serde_json::from_slice(&answer.body).unwrap_or_default();
    // OAuth2 gives a word, Google's other services an object with a status.
    let kind = match &refusal.error {
        serde_json::Value::String(word) => word.as_str(),
        other => other["status"].as_str().unwrap_or_default(),
    };
    Err(GoogleProblem::Refused {
        status: answer.status,
        kind: clean(kind, MAX_KIND),
    })
}
