//! Files that ADD takes from a server over HTTP.
//!
//! What enters: a URL, and which servers may be asked. What leaves: the file as a blob of
//! the store, with its digest and the time that the server gives it. A stored copy is
//! asked for again with its validators (RFC 9110, 13.1: `If-None-Match` and
//! `If-Modified-Since`), so that what has not changed does not travel; with a checksum
//! that the copy has, nobody is asked at all.
//!
//! Servers are hostile: each redirect is judged by the policy and none leads from https
//! to http, size and time are limited, and what comes is counted after decompression.

mod error;
mod request;

use std::fs::File;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use url::Url;

use crate::Cancel;
use crate::content::ContentStore;
use crate::git::{Budget, Policy, Tls, is_loopback, public_url};
use crate::layer::Content;
use crate::registry::{Digest, Hasher, Secret};
use request::{Answer, Ask};

pub use error::DownloadError;

/// The name of a file whose URL has none, as the reference builder has it.
const UNNAMED: &[u8] = b"__unnamed__";

const TRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// How long a pause may go on after the build was cancelled.
const TICK: Duration = Duration::from_millis(50);
const BUFFER: usize = 128 << 10;

/// A file that is in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// Its size in bytes, and the digest by which the store has it.
    pub content: Content,
    /// When it was last modified, in seconds since 1970; 0 where the server does not say.
    pub modified: i64,
    /// It was here already and has not changed.
    pub cached: bool,
}

/// What is remembered of a download.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    digest: Digest,
    size: u64,
    /// Seconds since 1970.
    modified: i64,
    etag: Option<String>,
    last_modified: Option<String>,
}

/// With what files are downloaded.
pub struct Downloader<'a> {
    /// Where copies are kept.
    pub store: &'a ContentStore,
    /// Which servers may be asked, and how much may come.
    pub policy: &'a Policy,
    /// Ends a download, within a minute where the server is silent.
    pub cancel: &'a Cancel,
    /// The field `Authorization` of the request (RFC 9110, 11.6.2); the server of the URL
    /// gets it and no other that it redirects to.
    pub authorization: Option<Secret>,
    /// Is told how many bytes have come, and of how many where that is known.
    pub progress: &'a dyn Fn(u64, Option<u64>),
}

/// Reads the URL of a file.
pub fn parse_url(text: &str) -> Result<Url, DownloadError> {
    let invalid = |reason: &str| DownloadError::InvalidUrl {
        // What does not parse may hold a password anywhere.
        url: text
            .split(['@', '?', '#'])
            .next()
            .unwrap_or_default()
            .to_owned(),
        reason: reason.to_owned(),
    };
    let url = Url::parse(text).map_err(|error| invalid(&error.to_string()))?;
    match url.scheme() {
        "http" | "https" => {}
        _ => return Err(invalid("it is neither https:// nor http://")),
    }
    match file_name(&url).contains(&0) {
        true => Err(invalid("its name holds a NUL byte")),
        false => Ok(url),
    }
}

/// Gives the name of the file behind a URL: the last part of its path, decoded.
pub fn file_name(url: &Url) -> Vec<u8> {
    let path: Vec<u8> = percent_encoding::percent_decode_str(url.path()).collect();
    let mut names = path.split(|&byte| byte == b'/');
    match names.rfind(|name| !name.is_empty()) {
        None | Some(b"." | b"..") => UNNAMED.to_vec(),
        Some(name) => name.to_vec(),
    }
}

impl Downloader<'_> {
    /// Brings a file into the store, or finds that it is there and has not changed. Blocks.
    pub fn fetch(&self, url: &Url, checksum: Option<Digest>) -> Result<Download, DownloadError> {
        if self.authorization.is_some() && url.scheme() != "https" && !is_loopback(url) {
            return Err(DownloadError::InsecureLogin {
                url: public_url(url),
            });
        }
        let key = Digest::sha256(url.as_str().as_bytes());
        let _lock = self.store.lock(&format!("download-{}", key.hex()))?;
        let known: Option<Record> = self.store.download(&key);
        let known = known.filter(|record| self.store.has_content(&record.digest, record.size));
        if let Some(record) = known
            .as_ref()
            .filter(|known| Some(known.digest) == checksum)
        {
            return Ok(record.download(true));
        }
        let budget = Budget::new(self.policy.most());
        let fetched = self.fetch_again(url, known.as_ref(), &budget)?;
        let (record, cached) = match (fetched, known) {
            (None, Some(known)) => (known, true),
            (Some(new), _) => (new, false),
            (None, None) => {
                return Err(DownloadError::Status {
                    url: public_url(url),
                    status: 304,
                });
            }
        };
        if let Some(expected) = checksum.filter(|expected| *expected != record.digest) {
            return Err(DownloadError::Checksum {
                url: public_url(url),
                expected,
                found: record.digest,
            });
        }
        self.store.put_download(&key, &record)?;
        Ok(record.download(cached))
    }

    /// Repeats what the network or a busy server has made fail.
    fn fetch_again(
        &self,
        url: &Url,
        known: Option<&Record>,
        budget: &Budget,
    ) -> Result<Option<Record>, DownloadError> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..TRIES {
            match self.attempt(url, known, budget) {
                Err(error) if error.is_transient() => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "trying again");
                }
                result => return result,
            }
            self.pause(pause)?;
            pause *= 2;
        }
        self.attempt(url, known, budget)
    }

    /// Gives nothing where the copy that is known has not changed.
    fn attempt(
        &self,
        url: &Url,
        known: Option<&Record>,
        budget: &Budget,
    ) -> Result<Option<Record>, DownloadError> {
        let authorization = self.authorization.as_ref();
        let ask = Ask {
            authorization: authorization.map(|secret| (url.origin(), secret)),
            policy: self.policy,
            budget,
            tls: Tls::default(),
            etag: known.and_then(|known| known.etag.as_deref()),
            last_modified: known.and_then(|known| known.last_modified.as_deref()),
        };
        match ask.follow(url)? {
            Answer::Unchanged => Ok(None),
            Answer::File(file) => {
                let total = file.length;
                let content = self.save(url, file.body, total, budget)?;
                let seconds = file.last_modified.as_deref().and_then(seconds_of);
                Ok(Some(Record {
                    digest: content.digest,
                    size: content.size,
                    modified: seconds.unwrap_or_default(),
                    etag: file.etag,
                    last_modified: file.last_modified,
                }))
            }
        }
    }

    /// Writes what comes into the store.
    fn save(
        &self,
        url: &Url,
        mut body: impl Read,
        total: Option<u64>,
        budget: &Budget,
    ) -> Result<Content, DownloadError> {
        let scratch = self.store.scratch()?;
        let path = scratch.path().join("download");
        let mut file = File::create_new(&path).map_err(DownloadError::Write)?;
        let mut hasher = Hasher::sha256();
        let (mut buffer, mut size) = (vec![0; BUFFER], 0);
        loop {
            self.check()?;
            let count = body.read(&mut buffer);
            let too_much = |excess| DownloadError::TooMuch {
                url: public_url(url),
                excess,
            };
            budget.check().map_err(too_much)?;
            let count = count.map_err(|source| DownloadError::Broken {
                url: public_url(url),
                source,
            })?;
            if count == 0 {
                break;
            }
            size += count as u64;
            budget.receive(count as u64);
            budget.check().map_err(too_much)?;
            hasher.update(&buffer[..count]);
            file.write_all(&buffer[..count])
                .map_err(DownloadError::Write)?;
            (self.progress)(size, total);
        }
        let digest = hasher.finish();
        self.store.adopt_blob(&path, &digest)?;
        Ok(Content { size, digest })
    }

    fn check(&self) -> Result<(), DownloadError> {
        match self.cancel.is_cancelled() {
            true => Err(DownloadError::Cancelled),
            false => Ok(()),
        }
    }

    fn pause(&self, time: Duration) -> Result<(), DownloadError> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.check()?;
            std::thread::sleep(TICK.min(time));
        }
        self.check()
    }
}

impl Download {
    /// When it was last modified, in seconds since 1970, where the server says it.
    pub fn time(&self) -> Option<i64> {
        Some(self.modified).filter(|seconds| *seconds != 0)
    }
}

impl Record {
    fn download(&self, cached: bool) -> Download {
        Download {
            content: Content {
                size: self.size,
                digest: self.digest,
            },
            modified: self.modified,
            cached,
        }
    }
}

/// Reads a date as HTTP writes it (RFC 9110, 5.6.7).
fn seconds_of(text: &str) -> Option<i64> {
    let time = httpdate::parse_http_date(text).ok()?;
    let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b54_a_file_is_named_by_the_path_of_its_url() {
        for (url, name) in [
            ("http://h/a/f.txt", "f.txt"),
            ("http://h/f?x=/y#z", "f"),
            ("http://h/with%20space", "with space"),
            ("http://h/a%2Fb", "b"),
            ("http://h/f/", "f"),
            ("http://h/", "__unnamed__"),
            ("http://h", "__unnamed__"),
            ("http://h/..", "__unnamed__"),
            ("http://h/%2e%2e", "__unnamed__"),
            ("http://h/a%2F..", "__unnamed__"),
        ] {
            let url = parse_url(url).unwrap();
            assert_eq!(file_name(&url), name.as_bytes(), "{url}");
        }
        for text in ["http://", "http://h:port/", "http://h/a%00b", "ftp://h/f"] {
            assert!(parse_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn errors_do_not_show_secrets() {
        for text in [
            "http://me:s3cret@h:port/",
            "http://h:port/?s3cret",
            "http://me:s3cret@h/%00",
        ] {
            let error = parse_url(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("s3cret@"), "{error}");
        }
    }

    #[test]
    fn dates_of_http() {
        let want = Some(784_111_777);
        assert_eq!(seconds_of("Sun, 06 Nov 1994 08:49:37 GMT"), want);
        assert_eq!(seconds_of("Sunday, 06-Nov-94 08:49:37 GMT"), want);
        assert_eq!(seconds_of("yesterday"), None);
    }
}
