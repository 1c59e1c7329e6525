//! The Security Token Service: a role in exchange for a token of another identity, or for
//! another key. Requests are forms, answers XML.

use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use url::Url;

use super::{AwsKeyError, AwsKeyProblem, AwsKeySource, Finder, Found};
use crate::Secret;
use crate::auth::call::{call, form, is_safe, sensitive};
use crate::auth::ecr::domain_of;
use crate::auth::sigv4::{AccessKey, Signer, Unsigned};
use crate::error::clean;
use crate::home::authority;

const TIME: Duration = Duration::from_secs(30);
const VERSION: &str = "2011-06-15";
const SESSION: &str = "ocibuild";
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";
const MAX_KIND: usize = 100;

/// A role that is to be taken on.
pub(super) struct Role<'a> {
    pub(super) arn: &'a str,
    pub(super) session: Option<&'a str>,
    pub(super) external_id: Option<&'a str>,
}

impl Finder<'_> {
    /// The identity that EKS gives to a pod with a service account (IRSA).
    pub(super) async fn web_identity(&self) -> Found {
        let (Some(file), Some(arn)) = (
            self.environment.path("AWS_WEB_IDENTITY_TOKEN_FILE"),
            self.environment.get("AWS_ROLE_ARN"),
        ) else {
            return Ok(None);
        };
        let role = Role {
            arn,
            session: self.environment.get("AWS_ROLE_SESSION_NAME"),
            external_id: None,
        };
        self.with_web_identity(&role, &file).await.map(Some)
    }

    /// Takes on a role with the token in a file, which is renewed there.
    pub(super) async fn with_web_identity(
        &self,
        role: &Role<'_>,
        file: &Path,
    ) -> Result<(AccessKey, DateTime<Utc>), AwsKeyError> {
        let from = AwsKeySource::WebIdentity;
        let token = std::fs::read_to_string(file).map_err(|source| {
            from.failed(AwsKeyProblem::Read {
                path: file.to_owned(),
                source,
            })
        })?;
        let fields = [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", VERSION),
            ("RoleArn", role.arn),
            ("RoleSessionName", role.session.unwrap_or(SESSION)),
            ("WebIdentityToken", token.trim()),
        ];
        self.ask(from, form(&fields), None).await
    }

    /// Takes on a role with another key.
    pub(super) async fn with_key(
        &self,
        role: &Role<'_>,
        key: &AccessKey,
    ) -> Result<(AccessKey, DateTime<Utc>), AwsKeyError> {
        let mut fields = vec![
            ("Action", "AssumeRole"),
            ("Version", VERSION),
            ("RoleArn", role.arn),
            ("RoleSessionName", role.session.unwrap_or(SESSION)),
        ];
        fields.extend(role.external_id.map(|id| ("ExternalId", id)));
        self.ask(AwsKeySource::Role, form(&fields), Some(key)).await
    }

    async fn ask(
        &self,
        from: AwsKeySource,
        body: String,
        key: Option<&AccessKey>,
    ) -> Result<(AccessKey, DateTime<Utc>), AwsKeyError> {
        let (url, region) = self.security_token_service(from)?;
        let host = authority(&url);
        let mut request = self.connector.http(&url).post(url.clone());
        request = match key {
            None => request.header(CONTENT_TYPE, FORM),
            Some(key) => sign(request, &url, &region, &body, key).ok_or_else(|| {
                let what = "the access key";
                from.failed(AwsKeyProblem::Characters { what })
            })?,
        };
        let answer = call(request.body(body), TIME).await;
        let answer = answer.map_err(|source| {
            let host = host.clone();
            from.failed(AwsKeyProblem::Call { host, source })
        })?;
        let text = String::from_utf8_lossy(&answer.body);
        if answer.status != 200 {
            return Err(from.failed(AwsKeyProblem::Refused {
                host,
                status: answer.status,
                kind: clean(element(&text, "Code").unwrap_or_default(), MAX_KIND),
            }));
        }
        read(&text).ok_or_else(|| from.failed(AwsKeyProblem::Answer { host }))
    }

    fn security_token_service(&self, from: AwsKeySource) -> Result<(Url, String), AwsKeyError> {
        let variable = |name| self.environment.get(name);
        let region = variable("AWS_REGION").unwrap_or(self.region).to_owned();
        let given = variable("AWS_ENDPOINT_URL_STS").or(variable("AWS_ENDPOINT_URL"));
        let usual = || format!("https://sts.{region}.{}/", domain_of(&region));
        let text = given.map_or_else(usual, str::to_owned);
        match Url::parse(&text).ok().filter(is_safe) {
            Some(url) => Ok((url, region)),
            None => Err(from.failed(AwsKeyProblem::Address {
                host: "the Security Token Service".to_owned(),
                problem: "it is not an https URL",
            })),
        }
    }
}

fn sign(
    request: reqwest::RequestBuilder,
    url: &Url,
    region: &str,
    body: &str,
    key: &AccessKey,
) -> Option<reqwest::RequestBuilder> {
    let signer = Signer {
        key,
        region,
        service: "sts",
        time: Utc::now(),
    };
    let mut signed = vec![
        ("content-type", FORM.to_owned()),
        ("host", authority(url)),
        ("x-amz-date", signer.date_header()),
    ];
    let token = key.session_token.as_ref();
    signed.extend(token.map(|token| ("x-amz-security-token", token.expose().to_owned())));
    let authorization = signer.authorization(&Unsigned {
        method: "POST",
        path: url.path(),
        headers: &signed,
        body: body.as_bytes(),
    });
    let mut request = request.header(AUTHORIZATION, sensitive(&authorization)?);
    for (name, value) in signed {
        request = request.header(name, sensitive(&value)?);
    }
    Some(request)
}

fn read(text: &str) -> Option<(AccessKey, DateTime<Utc>)> {
    let text = element(text, "Credentials")?;
    let key = AccessKey {
        id: element(text, "AccessKeyId")?.to_owned(),
        secret: Secret::new(element(text, "SecretAccessKey")?),
        session_token: Some(Secret::new(element(text, "SessionToken")?)),
    };
    let end = DateTime::parse_from_rfc3339(element(text, "Expiration")?).ok()?;
    Some((key, end.to_utc()))
}

/// Gives the text of the first element of a name. What is looked for here has neither
/// attributes nor characters that XML would write otherwise.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (inner, _) = rest.split_once(&format!("</{name}>"))?;
    Some(inner.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_or_refused() {
        let answer = "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
            <AssumeRoleResult><Credentials><AccessKeyId>ASIA</AccessKeyId>\
            <SecretAccessKey>s/+=</SecretAccessKey><SessionToken> t== </SessionToken>\
            <Expiration>2026-01-02T03:04:05Z</Expiration></Credentials></AssumeRoleResult>";
        let (key, end) = read(answer).unwrap();
        assert_eq!((key.id.as_str(), key.secret.expose()), ("ASIA", "s/+="));
        assert_eq!(key.session_token.unwrap().expose(), "t==");
        assert_eq!(end.to_rfc3339(), "2026-01-02T03:04:05+00:00");
        for cut in [0, 60, 150, 200, 260] {
            assert!(read(&answer[..cut]).is_none(), "{cut}");
        }
    }
}
