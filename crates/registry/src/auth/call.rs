//! One small request to a service that gives out keys or tokens.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderValue};
use url::Url;

use crate::transport::{read_limited, send_fresh};

const LARGEST_ANSWER: usize = 256 * 1024;

/// A complete answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// No answer came.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// No connection came about, or it broke.
    #[error("it cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// It took too long.
    #[error("it did not answer within {} seconds", .0.as_secs())]
    Slow(Duration),
}

/// Sends a request and reads its answer, whatever its status.
pub(super) async fn call(
    request: reqwest::RequestBuilder,
    time: Duration,
) -> Result<Answer, CallError> {
    let unreachable = |error: reqwest::Error| CallError::Unreachable(error.without_url());
    let exchange = async {
        let mut response = send_fresh(request).await.map_err(unreachable)?;
        let body = read_limited(&mut response, LARGEST_ANSWER).await;
        Ok(Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: body.map_err(unreachable)?,
        })
    };
    tokio::time::timeout(time, exchange)
        .await
        .map_err(|_| CallError::Slow(time))?
}

/// Makes a header of a secret, which logs of the HTTP client then hide.
pub(super) fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Writes the body of a form.
pub(super) fn form(fields: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields)
        .finish()
}

/// Tells whether secrets may be sent to a URL: over TLS, or to this very machine.
pub(super) fn is_safe(url: &Url) -> bool {
    let is_loopback = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    match url.scheme() {
        "https" => url.has_host(),
        "http" => is_loopback,
        _ => false,
    }
}
