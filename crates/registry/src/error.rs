//! What can go wrong between us and a registry.
//!
//! Every error says what was being done to which thing. Texts that came from a
//! registry are cut and cleaned before they enter; URLs never enter at all, since
//! their queries may carry signatures and upload states. Error codes are those of
//! the distribution specification ("Error codes").

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::action::{Action, Phase};
use crate::auth::{CredentialError, EcrError, EcrOperation, GoogleError, TokenError};
use crate::{Digest, Platform, Repository};

/// Most characters of a reason.
const MAX_REASON: usize = 2000;

/// A failed request to a registry, or an answer that must not be believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No answer came: no connection, a broken one, or a TLS failure.
    #[error("{action}: the connection to {peer} failed")]
    Network {
        /// What was being done.
        action: Action,
        /// The registry, or the host that it sent us to.
        peer: String,
        /// What the HTTP client says, without the URL.
        source: reqwest::Error,
    },
    /// No byte moved for a whole idle time.
    #[error("{action}: nothing moved from or to {peer} for {} seconds", idle.as_secs_f32())]
    Stalled {
        /// What was being done.
        action: Action,
        /// The registry, or the host that it sent us to.
        peer: String,
        /// The idle time.
        idle: Duration,
    },
    /// The registry answered with an error status.
    #[error("{action}: {refusal}")]
    Refused {
        /// What was being done.
        action: Action,
        /// What the registry said.
        refusal: Box<Refusal>,
    },
    /// No token could be had for a registry.
    #[error("{action}: cannot log in to {registry}")]
    Token {
        /// What was being done.
        action: Action,
        /// The registry.
        registry: String,
        /// Why not.
        source: Box<TokenError>,
    },
    /// The credentials for a registry could not be read.
    #[error("{action}: cannot find the credentials for {registry}")]
    Credentials {
        /// What was being done.
        action: Action,
        /// The registry.
        registry: String,
        /// Why not.
        source: CredentialError,
    },
    /// The API of Amazon ECR gave no login, or did not make a repository.
    #[error("{action}: a call of the ECR API for {registry} failed")]
    Ecr {
        /// What was being done.
        action: Action,
        /// The registry.
        registry: String,
        /// Why not.
        source: Box<EcrError>,
    },
    /// Google gave no token.
    #[error("{action}: cannot log in to {registry} with an identity of Google")]
    Google {
        /// What was being done.
        action: Action,
        /// The registry.
        registry: String,
        /// Why not.
        source: Box<GoogleError>,
    },
    /// The registry broke the protocol.
    #[error("{action}: the registry broke the protocol: {problem}")]
    Protocol {
        /// What was being done.
        action: Action,
        /// What is wrong.
        problem: &'static str,
    },
    /// Content is not what its digest says.
    #[error("{action}: the content has the digest {actual}, not {expected}")]
    DigestMismatch {
        /// What was being done.
        action: Action,
        /// The digest that was asked for.
        expected: Box<Digest>,
        /// The digest of what came.
        actual: Box<Digest>,
    },
    /// Content does not have the size that its descriptor says.
    #[error("{action}: the content has {actual} bytes, not {expected}")]
    SizeMismatch {
        /// What was being done.
        action: Action,
        /// The size that the descriptor gives.
        expected: u64,
        /// The size, or the number of bytes after which reading was given up.
        actual: u64,
    },
    /// An answer is larger than it may be.
    #[error("{action}: the answer has more than {limit} bytes")]
    TooLarge {
        /// What was being done.
        action: Action,
        /// The limit.
        limit: u64,
    },
    /// A document is not what its media type says.
    #[error("{action}: the document cannot be read")]
    Document {
        /// What was being done.
        action: Action,
        /// Where reading failed.
        source: serde_json::Error,
    },
    /// A manifest has a media type that is neither an image nor an index.
    #[error("{action}: the manifest has the media type {media_type:?}, which is not an image")]
    NotAnImage {
        /// What was being done.
        action: Action,
        /// The media type.
        media_type: String,
    },
    /// An index has no image for a platform.
    #[error(
        "{action}: there is no image for {wanted}; there are: {}",
        List(available)
    )]
    NoSuchPlatform {
        /// What was being done.
        action: Action,
        /// The platform that was asked for.
        wanted: Box<Platform>,
        /// The platforms that the index has.
        available: Vec<Platform>,
    },
    /// A tag is there already, and must not be set anew.
    #[error("{action}: the tag {tag} is there already, for {there}, and its policy keeps it")]
    TagExists {
        /// What was being done.
        action: Action,
        /// The tag.
        tag: String,
        /// What it names.
        there: Box<Digest>,
    },
    /// A local file could not be read or written.
    #[error("{action}: {}", path.display())]
    File {
        /// What was being done.
        action: Action,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A blob is too large for one request, and chunks are not taken.
    #[error(
        "{action}: the blob of {size} bytes is too large for one request to this registry \
         (or a proxy before it), which does not take it in smaller ones"
    )]
    NoChunks {
        /// What was being done.
        action: Action,
        /// The size of the blob, in bytes.
        size: u64,
        /// How the registry refused.
        source: Box<Error>,
    },
    /// Every attempt failed, or the time for them is over.
    #[error("gave up after {attempts} attempts")]
    GaveUp {
        /// How many attempts there were.
        attempts: u32,
        /// How the last one failed.
        source: Box<Error>,
    },
}

impl Error {
    pub(crate) fn digest_mismatch(action: &Action, expected: Digest, actual: Digest) -> Self {
        Self::DigestMismatch {
            action: action.clone(),
            expected: Box::new(expected),
            actual: Box::new(actual),
        }
    }

    /// Gives what was being done.
    pub fn action(&self) -> &Action {
        match self {
            Self::Network { action, .. }
            | Self::Stalled { action, .. }
            | Self::Refused { action, .. }
            | Self::Token { action, .. }
            | Self::Credentials { action, .. }
            | Self::Ecr { action, .. }
            | Self::Google { action, .. }
            | Self::Protocol { action, .. }
            | Self::DigestMismatch { action, .. }
            | Self::SizeMismatch { action, .. }
            | Self::TooLarge { action, .. }
            | Self::Document { action, .. }
            | Self::NotAnImage { action, .. }
            | Self::NoSuchPlatform { action, .. }
            | Self::TagExists { action, .. }
            | Self::File { action, .. }
            | Self::NoChunks { action, .. } => action,
            Self::GaveUp { source, .. } => source.action(),
        }
    }

    /// Gives the repository that was pulled from or pushed to.
    pub fn repository(&self) -> &Repository {
        self.action().repository()
    }

    /// Gives how far things had come. With it and [`Error::reason`] a caller can say
    /// `push to {name} failed while {phase}: {reason}`.
    pub fn phase(&self) -> Phase {
        match self {
            Self::Token { .. } | Self::Credentials { .. } | Self::Google { .. } => Phase::Login,
            Self::Ecr { action, source, .. } => match source.operation {
                EcrOperation::GetAuthorizationToken => Phase::Login,
                EcrOperation::CreateRepository => action.phase(),
            },
            Self::GaveUp { source, .. } => source.phase(),
            Self::Refused { action, refusal } => match refusal.status {
                401 => Phase::Login,
                _ => action.phase(),
            },
            _ => self.action().phase(),
        }
    }

    /// Says in one line why it failed, causes included, without what was being done.
    pub fn reason(&self) -> String {
        let prefix = format!("{}: ", self.action());
        let mut links = Vec::new();
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = next {
            let text = error.to_string();
            links.push(text.strip_prefix(&prefix).unwrap_or(&text).to_owned());
            next = error.source();
        }
        clean(&links.join(": "), MAX_REASON)
    }

    /// Gives the HTTP status with which the registry refused, if it did.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal.status),
            Self::NoChunks { source, .. } | Self::GaveUp { source, .. } => source.status(),
            _ => None,
        }
    }

    /// Tells whether the registry does not have what was asked for.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// Tells whether credentials are missing, wrong, or not enough.
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Token { .. }
            | Self::Credentials { .. }
            | Self::Ecr { .. }
            | Self::Google { .. } => true,
            Self::GaveUp { source, .. } => source.is_denied(),
            _ => matches!(self.status(), Some(401 | 403)),
        }
    }

    /// Tells whether the same request may succeed a moment later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Network { source, .. } => !is_certificate_error(source),
            Self::Stalled { .. } => true,
            Self::Refused { refusal, .. } => refusal.is_transient(),
            Self::Token { source, .. } => source.is_transient(),
            Self::Ecr { source, .. } => source.is_transient(),
            Self::Google { source, .. } => source.is_transient(),
            _ => false,
        }
    }

    /// Gives how long the registry asks us to wait.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { refusal, .. } => refusal.retry_after,
            Self::Token { source, .. } => source.retry_after(),
            Self::Ecr { source, .. } => source.retry_after(),
            _ => None,
        }
    }
}

/// Finds a refused certificate among the causes: one that is not trusted now is not
/// trusted a second later either.
pub(crate) fn is_certificate_error(error: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(rustls::Error::InvalidCertificate(_)) = error.downcast_ref() {
        return true;
    }
    // An I/O error hides what it wraps: its `source` is the source of that.
    let wrapped = error
        .downcast_ref::<io::Error>()
        .and_then(|error| error.get_ref())
        .map(|inner| -> &(dyn std::error::Error + 'static) { inner });
    wrapped
        .or_else(|| error.source())
        .is_some_and(is_certificate_error)
}

/// An error status of a registry, with the errors that its body lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The errors of the specification's error document; empty for any other body.
    pub errors: Vec<ApiError>,
    /// How long the registry asks us to wait.
    pub retry_after: Option<Duration>,
    /// What was sent, where the size is the reason.
    pub sent: Option<u64>,
    /// Who answered, by its `Server` header: often a proxy.
    pub server: Option<String>,
}

impl Refusal {
    /// Most bytes of an error body that are read.
    pub(crate) const MAX_BODY: usize = 16 * 1024;
    const MAX_ERRORS: usize = 4;
    const MAX_TEXT: usize = 300;

    pub(crate) fn new(status: u16, body: &[u8], retry_after: Option<Duration>) -> Self {
        #[derive(Deserialize)]
        struct Document {
            errors: Vec<ApiError>,
        }
        let mut errors = serde_json::from_slice::<Document>(body)
            .map(|document| document.errors)
            .unwrap_or_default();
        errors.truncate(Self::MAX_ERRORS);
        for error in &mut errors {
            error.code = clean(&error.code, Self::MAX_TEXT);
            error.message = clean(&error.message, Self::MAX_TEXT);
        }
        Self {
            status,
            errors,
            retry_after,
            sent: None,
            server: None,
        }
    }

    /// Notes who answered.
    pub(crate) fn answered_by(mut self, server: Option<&str>) -> Self {
        self.server = server.map(|text| clean(text, Self::MAX_TEXT));
        self
    }

    fn is_transient(&self) -> bool {
        matches!(self.status, 408 | 429 | 500 | 502 | 503 | 504)
    }

    /// Tells whether the registry's words mean a token that was good once.
    pub(crate) fn says_expired(&self) -> bool {
        let expired = |error: &ApiError| error.message.to_ascii_lowercase().contains("expired");
        self.errors.iter().any(expired)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the registry answered {}", self.status)?;
        let reason = reqwest::StatusCode::from_u16(self.status)
            .ok()
            .and_then(|status| status.canonical_reason());
        if let Some(reason) = reason {
            write!(f, " {reason}")?;
        }
        if self.status == 413 {
            f.write_str(": it, or a proxy before it")?;
            if let Some(server) = &self.server {
                write!(f, " ({server:?})")?;
            }
            f.write_str(", takes no request as large as this one")?;
            if let Some(sent) = self.sent {
                write!(f, " of {sent} bytes")?;
            }
        }
        for error in &self.errors {
            write!(f, "; {error}")?;
        }
        Ok(())
    }
}

/// One error of the specification's error document.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ApiError {
    /// The code: `MANIFEST_UNKNOWN`, `DENIED`, …
    #[serde(default)]
    pub code: String,
    /// The registry's own words.
    #[serde(default)]
    pub message: String,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code.as_str(), self.message.as_str()) {
            (code, "") => f.write_str(code),
            ("", message) => f.write_str(message),
            (code, message) => write!(f, "{code}: {message}"),
        }
    }
}

/// Makes a foreign text fit for one line of a message: no control characters, and
/// at most `limit` characters.
pub(crate) fn clean(text: &str, limit: usize) -> String {
    let mut kept: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(limit)
        .collect();
    if kept.len() < text.len() {
        kept.push('…');
    }
    kept
}

struct List<'a>(&'a [Platform]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (position, platform) in self.0.iter().enumerate() {
            let comma = if position == 0 { "" } else { ", " };
            write!(f, "{comma}{platform}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_error_bodies_are_cut_and_cleaned() {
        let body = format!(
            r#"{{"errors":[{{"code":"DENIED","message":"\u001b[31m{}"}},{{}},{{}},{{}},{{}},{{}}]}}"#,
            "x".repeat(5000)
        );
        let refusal = Refusal::new(403, body.as_bytes(), None);
        assert_eq!(refusal.errors.len(), 4);
        let text = refusal.to_string();
        assert!(text.len() < 500 && !text.contains('\u{1b}'), "{text}");
        assert!(text.starts_with("the registry answered 403 Forbidden; DENIED:"));
    }

    #[test]
    fn bodies_that_are_no_error_document_leave_the_status() {
        for body in [
            "",
            "<html>",
            "[]",
            r#"{"errors":null}"#,
            r#"{"errors":[1]}"#,
        ] {
            let refusal = Refusal::new(502, body.as_bytes(), None);
            assert_eq!(refusal.to_string(), "the registry answered 502 Bad Gateway");
        }
    }
}
