//! What moves between a registry and its clients, as its log of requests says it: each answer
//! to a GET with its size, each upload that ended with a blob, whose size the registry has.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};

use anyhow::{Context as _, Result};
use ocibuild::registry::Digest;
use ocibuild_registry::testing::DebianRegistry;

/// Bytes of blobs and manifests, and how many requests that took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) requests: u64,
}

/// Reads the log of a registry from where it was read last.
#[derive(Debug)]
pub(crate) struct Log(File);

impl Log {
    pub(crate) fn open(registry: &DebianRegistry) -> Result<Self> {
        let mut file = File::open(registry.log()).context("open the log of the registry")?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self(file))
    }

    /// Gives what has moved since this was asked last.
    pub(crate) fn traffic(&mut self, registry: &DebianRegistry) -> Result<Traffic> {
        let mut text = String::new();
        self.0
            .read_to_string(&mut text)
            .context("read the log of the registry")?;
        let size = |digest: &str| {
            let digest: Digest = digest.parse().ok()?;
            Some(std::fs::metadata(registry.blob_path(&digest)).ok()?.len())
        };
        Ok(count(&text, size))
    }
}

fn count(log: &str, size: impl Fn(&str) -> Option<u64>) -> Traffic {
    let mut traffic = Traffic::default();
    for line in log.lines() {
        // 127.0.0.1 - - [time] "GET /v2/… HTTP/1.1" 200 1234 "" "agent"
        let mut parts = line.split('"');
        let (Some(_), Some(request), Some(answer)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let mut request = request.split(' ');
        let (Some(method), Some(target)) = (request.next(), request.next()) else {
            continue;
        };
        let mut answer = answer.split_ascii_whitespace();
        let (Some(status), Some(bytes)) = (answer.next(), answer.next()) else {
            continue;
        };
        if !target.starts_with("/v2/") {
            continue;
        }
        traffic.requests += 1;
        match (method, status) {
            ("GET", "200" | "206") => traffic.received += bytes.parse().unwrap_or(0),
            ("PUT", "201") => {
                let digest = target
                    .split(['?', '&'])
                    .find_map(|part| part.strip_prefix("digest="));
                let digest = digest.map(|digest| digest.replace("%3A", ":"));
                traffic.sent += digest.and_then(|digest| size(&digest)).unwrap_or(0);
            }
            _ => {}
        }
    }
    traffic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_says_what_moved() {
        let log = "time=\"x\" level=warning msg=\"GET\"\n\
            ::1 - - [t +0000] \"GET /v2/a/blobs/sha256:1 HTTP/1.1\" 200 70 \"\" \"a\"\n\
            ::1 - - [t +0000] \"GET /v2/a/blobs/sha256:1 HTTP/1.1\" 404 9 \"\" \"a\"\n\
            ::1 - - [t +0000] \"POST /v2/a/blobs/uploads/ HTTP/1.1\" 202 0 \"\" \"a\"\n\
            ::1 - - [t +0000] \"PUT /v2/a/blobs/uploads/u?_state=s&digest=sha256%3A2 HTTP/1.1\" 201 0 \"\" \"a\"\n\
            ::1 - - [t +0000] \"PUT /v2/a/manifests/x HTTP/1.1\" 201 0 \"\" \"a\"\n";
        let size = |digest: &str| (digest == "sha256:2").then_some(5);
        let expected = Traffic {
            sent: 5,
            received: 70,
            requests: 5,
        };
        assert_eq!(count(log, size), expected);
    }
}
