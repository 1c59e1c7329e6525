//! Why Amazon ECR gave no login. Every text says what to do about it, and none shows
//! a part of the access key: what the service says is shown only where it is of use,
//! since its words about signatures repeat signed headers.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::auth::{AccessKey, AwsKeyError};
use crate::error::{clean, is_certificate_error};

/// Longest time for one call.
pub(super) const CALL_TIME: Duration = Duration::from_secs(60);
const MAX_TEXT: usize = 300;

/// Settings that no login can be made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidEcrLogin {
    /// The account is not one.
    #[error("the account of an ECR login must be 12 digits")]
    Account,
    /// The region is not one.
    #[error("the region of an ECR login must be a name such as us-east-1")]
    Region,
    /// The key is not complete, or has characters that no key has.
    #[error("the access key of an ECR login needs an id and a secret, without blanks")]
    Key,
    /// The endpoint cannot be used.
    #[error("the endpoint of an ECR login must be an http or https URL without user and query")]
    Endpoint,
}

/// What the API of Amazon ECR is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EcrOperation {
    /// A password for the registry.
    GetAuthorizationToken,
    /// A repository that pushing needs.
    CreateRepository,
}

impl fmt::Display for EcrOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GetAuthorizationToken => "GetAuthorizationToken",
            Self::CreateRepository => "CreateRepository",
        })
    }
}

/// A call of the ECR API that failed.
#[derive(Debug, thiserror::Error)]
#[error("{operation} at {host} failed")]
pub struct EcrError {
    /// What was asked for.
    pub operation: EcrOperation,
    /// Who was asked.
    pub host: String,
    /// Why it failed.
    #[source]
    pub problem: EcrProblem,
}

/// Why a call of the ECR API failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EcrProblem {
    /// The id of the key is not known.
    #[error(
        "Amazon does not know the access key: check its id, and whether it is still active; \
         a temporary key needs its session token too"
    )]
    UnknownKey,
    /// The signature is not what the secret gives.
    #[error("the secret does not belong to the access key: check the secret")]
    WrongSecret,
    /// A temporary key is worn out.
    #[error("the session token of the access key has expired: get a new temporary key")]
    ExpiredKey,
    /// The key may not do this.
    #[error(
        "the access key lacks a permission: allow it ecr:{operation} in its IAM policy ({message})"
    )]
    Denied {
        /// What is to be allowed.
        operation: EcrOperation,
        /// What the service says.
        message: String,
    },
    /// The clocks are too far apart for a signature.
    #[error("this machine's clock is wrong: set it{}", seconds_off(*off))]
    ClockSkew {
        /// Seconds by which this machine's clock is ahead, where the answer tells.
        off: Option<i64>,
    },
    /// No connection came about, or it broke.
    #[error("it cannot be reached: check the region, the endpoint, the network and the proxy")]
    Unreachable(#[source] reqwest::Error),
    /// It took too long.
    #[error(
        "it did not answer within {} seconds: check the network and the proxy",
        CALL_TIME.as_secs()
    )]
    Slow,
    /// It refused for another reason.
    #[error("it answered {status} {kind}: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The name of the exception; may be empty.
        kind: String,
        /// What the service says.
        message: String,
        /// How long it asks us to wait.
        retry_after: Option<Duration>,
    },
    /// There is no access key to ask with.
    #[error("there is nobody to ask as")]
    Keys(#[from] AwsKeyError),
    /// The answer is not what the API says.
    #[error("its answer is not one of the ECR API: check the endpoint")]
    Answer,
}

fn seconds_off(off: Option<i64>) -> String {
    match off {
        Some(seconds) if seconds > 0 => format!("; it is {seconds} seconds ahead"),
        Some(seconds) if seconds < 0 => format!("; it is {} seconds behind", seconds.abs()),
        _ => String::new(),
    }
}

impl EcrError {
    pub(crate) fn is_transient(&self) -> bool {
        match &self.problem {
            EcrProblem::Unreachable(source) => !is_certificate_error(source),
            EcrProblem::Slow => true,
            EcrProblem::Keys(error) => error.is_transient(),
            EcrProblem::Refused { status, kind, .. } => {
                matches!(status, 408 | 429 | 500..) || kind.starts_with("Throttling")
            }
            _ => false,
        }
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match &self.problem {
            EcrProblem::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// The answer to a call that failed.
pub(super) struct Refusal<'a> {
    pub(super) operation: EcrOperation,
    pub(super) status: u16,
    pub(super) body: &'a [u8],
    /// The header `x-amzn-ErrorType`.
    pub(super) kind: Option<&'a str>,
    pub(super) retry_after: Option<Duration>,
    /// Seconds by which our clock is ahead of the answer's.
    pub(super) clock_off: Option<i64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Document {
    #[serde(rename = "__type")]
    kind: String,
    #[serde(alias = "Message")]
    message: String,
}

impl Refusal<'_> {
    /// Gives the name of the exception, such as `AccessDeniedException`.
    pub(super) fn exception(&self) -> String {
        let document = self.document();
        let kind = self.kind.unwrap_or(&document.kind);
        // Both forms come with a namespace before or a URL behind.
        let kind = kind.split(':').next().unwrap_or_default();
        let kind = kind.rsplit('#').next().unwrap_or_default();
        clean(kind, MAX_TEXT)
    }

    pub(super) fn problem(&self, key: &AccessKey) -> EcrProblem {
        let kind = self.exception();
        let document = self.document();
        let message = || clean(&key.hide(&document.message), MAX_TEXT);
        match kind.as_str() {
            "UnrecognizedClientException" | "InvalidClientTokenId" => EcrProblem::UnknownKey,
            "InvalidSignatureException" | "SignatureDoesNotMatch"
                if is_about_time(&document.message) =>
            {
                self.clock_skew()
            }
            "InvalidSignatureException" | "SignatureDoesNotMatch" => EcrProblem::WrongSecret,
            "RequestExpired" | "RequestTimeTooSkewed" => self.clock_skew(),
            "ExpiredTokenException" | "ExpiredToken" => EcrProblem::ExpiredKey,
            "AccessDeniedException" | "AccessDenied" => EcrProblem::Denied {
                operation: self.operation,
                message: message(),
            },
            _ => EcrProblem::Refused {
                status: self.status,
                message: message(),
                kind,
                retry_after: self.retry_after,
            },
        }
    }

    fn clock_skew(&self) -> EcrProblem {
        EcrProblem::ClockSkew {
            off: self.clock_off,
        }
    }

    /// Reads the body; a proxy's page is as good as none.
    fn document(&self) -> Document {
        serde_json::from_slice(self.body).unwrap_or_default()
    }
}

/// Amazon's words for a signature that is too old or from the future.
fn is_about_time(message: &str) -> bool {
    message.starts_with("Signature expired") || message.starts_with("Signature not yet current")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;

    fn problem(status: u16, kind: Option<&str>, body: &str) -> EcrProblem {
        let refusal = Refusal {
            operation: EcrOperation::GetAuthorizationToken,
            status,
            body: body.as_bytes(),
            kind,
            retry_after: None,
            clock_off: Some(-900),
        };
        refusal.problem(&AccessKey {
            id: "AKID".to_owned(),
            secret: Secret::new("geheim"),
            session_token: Some(Secret::new("sitzung")),
        })
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        for (status, kind, body, want) in [
            (
                400,
                None,
                r#"{"__type":"UnrecognizedClientException"}"#,
                "check its id",
            ),
            (
                400,
                Some("InvalidSignatureException:http://internal.amazon.com/"),
                r#"{"message":"The Canonical String was x-amz-security-token:sitzung geheim"}"#,
                "check the secret",
            ),
            (
                400,
                None,
                r#"{"__type":"com.amazon.coral.service#InvalidSignatureException","message":
                    "Signature expired: 20150830T123600Z is now earlier than 20150830T124600Z"}"#,
                "set it; it is 900 seconds behind",
            ),
            (
                400,
                None,
                r#"{"__type":"ExpiredTokenException"}"#,
                "get a new temporary key",
            ),
            (
                400,
                None,
                r#"{"__type":"AccessDeniedException","Message":"User: u geheim\n is not authorized"}"#,
                "allow it ecr:GetAuthorizationToken in its IAM policy (User: u ****  is not",
            ),
            (503, None, "<html>", "it answered 503"),
            (
                400,
                None,
                r#"{"__type":"ServerException","message":"no sitzung AKID"}"#,
                "it answered 400 ServerException: no **** ****",
            ),
        ] {
            let text = problem(status, kind, body).to_string();
            assert!(text.contains(want), "{body}: {text}");
            for secret in ["geheim", "sitzung", "AKID"] {
                assert!(!text.contains(secret), "{text}");
            }
        }
    }

    #[test]
    fn only_passing_failures_are_tried_again() {
        for (status, body, want) in [
            (400, r#"{"__type":"ThrottlingException"}"#, true),
            (500, r#"{"__type":"ServerException"}"#, true),
            (429, "", true),
            (400, r#"{"__type":"InvalidParameterException"}"#, false),
            (400, r#"{"__type":"AccessDeniedException"}"#, false),
        ] {
            let error = EcrError {
                operation: EcrOperation::GetAuthorizationToken,
                host: "h".to_owned(),
                problem: problem(status, None, body),
            };
            assert_eq!(error.is_transient(), want, "{status} {body}");
        }
    }
}
