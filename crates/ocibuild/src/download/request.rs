//! One file asked for: redirects followed one by one, and the answer taken apart.

use std::io::{BufReader, Read};

use reqwest::blocking::{Client, Response};
use reqwest::header::{self, HeaderName, HeaderValue};
use url::{Origin, Url};

use super::DownloadError;
use crate::git::{Budget, Forbidden, Policy, Tls, configure, host_and_port, public_url};
use crate::net::{Refused, redirect_target};
use crate::registry::Secret;

const MAX_REDIRECTS: usize = 10;
const USER_AGENT: &str = concat!("ocibuild/", env!("CARGO_PKG_VERSION"));

/// How a file is asked for.
pub(super) struct Ask<'a> {
    pub(super) policy: &'a Policy,
    pub(super) budget: &'a Budget,
    pub(super) tls: Tls,
    /// A login, and whose it is.
    pub(super) authorization: Option<(Origin, &'a Secret)>,
    /// Validators of the copy that is known.
    pub(super) etag: Option<&'a str>,
    pub(super) last_modified: Option<&'a str>,
}

/// What a server says.
pub(super) enum Answer {
    /// The copy that is known is still right.
    Unchanged,
    /// The file.
    File(RemoteFile),
}

/// A file that is about to come.
pub(super) struct RemoteFile {
    pub(super) etag: Option<String>,
    pub(super) last_modified: Option<String>,
    /// Its size in bytes, if the server says it.
    pub(super) length: Option<u64>,
    pub(super) body: Box<dyn Read>,
}

impl Ask<'_> {
    /// Asks for a file, and follows where the server points to as far as the policy goes.
    pub(super) fn follow(&self, url: &Url) -> Result<Answer, DownloadError> {
        let mut at = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            self.policy
                .judge(&at)
                .map_err(|reason| DownloadError::Forbidden {
                    url: public_url(&at),
                    reason,
                })?;
            let response = self.ask(&at)?;
            let status = response.status();
            match status.as_u16() {
                304 => return Ok(Answer::Unchanged),
                301..=303 | 307 | 308 => at = redirected(&response, &at)?,
                200 => return Ok(Answer::File(RemoteFile::of(response))),
                status => {
                    return Err(DownloadError::Status {
                        url: public_url(&at),
                        status,
                    });
                }
            }
        }
        Err(DownloadError::Redirect {
            url: public_url(url),
            target: public_url(&at),
            reason: "too many redirects",
        })
    }

    fn ask(&self, url: &Url) -> Result<Response, DownloadError> {
        let tls = self.tls.for_url(url).map_err(DownloadError::Tls)?;
        let addresses = self.policy.permitted_addresses();
        let client = configure(Client::builder(), tls, addresses, self.budget)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(USER_AGENT)
            .build()
            .map_err(DownloadError::Client)?;
        // A user and password in the URL go to its host only: a redirect has its own.
        let mut request = client.get(url.clone());
        if let Some((_, login)) = self
            .authorization
            .as_ref()
            .filter(|(origin, _)| *origin == url.origin())
        {
            let mut value =
                HeaderValue::from_str(login.expose()).map_err(|_| DownloadError::Login {
                    url: public_url(url),
                })?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        if let Some(etag) = self.etag {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        if let Some(time) = self.last_modified {
            request = request.header(header::IF_MODIFIED_SINCE, time);
        }
        request.send().map_err(|source| self.reason(url, source))
    }

    /// Says why a request failed where a rule of ours has made it fail.
    fn reason(&self, url: &Url, source: reqwest::Error) -> DownloadError {
        if let Some(excess) = self.budget.excess() {
            return DownloadError::TooMuch {
                url: public_url(url),
                excess,
            };
        }
        match Refused::among(&source) {
            Some(refused) => DownloadError::Forbidden {
                url: public_url(url),
                reason: Forbidden::Address(refused),
            },
            None => DownloadError::Unreachable {
                host: host_and_port(url),
                source: source.without_url(),
            },
        }
    }
}

impl RemoteFile {
    fn of(response: Response) -> Self {
        let text = |name: HeaderName| {
            let value = response.headers().get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        let (etag, last_modified) = (text(header::ETAG), text(header::LAST_MODIFIED));
        let encoding = text(header::CONTENT_ENCODING).unwrap_or_default();
        let length = response.content_length();
        // Some servers compress without having been asked to, as the reference builder asks.
        if encoding.eq_ignore_ascii_case("gzip") {
            let body = flate2::bufread::MultiGzDecoder::new(BufReader::new(response));
            return Self {
                etag,
                last_modified,
                length: None,
                body: Box::new(body),
            };
        }
        Self {
            etag,
            last_modified,
            length,
            body: Box::new(response),
        }
    }
}

fn redirected(response: &Response, from: &Url) -> Result<Url, DownloadError> {
    redirect_target(response.headers(), from).map_err(|bad| DownloadError::Redirect {
        url: public_url(from),
        target: bad.target.as_ref().map(public_url).unwrap_or_default(),
        reason: bad.reason,
    })
}
