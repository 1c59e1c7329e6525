//! Many followers of one log, by server-sent events from its beginning: whether each gets
//! every byte, how much later than written the last line of the command comes, and what that
//! costs the service.
//!
//! The command waits until all follow, prints its lines in hundreds with pauses between, and
//! waits again: the moment at which it does so is when its last line was written.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::gate::Gate;
use super::replica::Replica;
use super::site::Site;
use crate::measure::{own_cpu_seconds, peak_memory, resident_memory};
use crate::spread::{Spread, hundredths};

/// What the command prints last. The line of the Dockerfile that says so ends otherwise.
const LAST_LINE: &[u8] = b" | that is all";

pub(super) async fn measure(site: &Site) -> Result<Value> {
    let (before, after) = (Gate::close()?, Gate::close()?);
    let repository = site.repository(1, |_| dockerfile(site, &before, &after));
    let replica = Replica::start(site, &site.settings()?).await?;
    let process = replica.process();
    let at_start = resident_memory(process);
    let id = replica.submit(&repository, 0).await?;
    let waiting = before.reached().await?;

    let mut followers = JoinSet::new();
    for _ in 0..site.counts.followers {
        let events = site
            .http
            .get(replica.url(&format!("/v1/builds/{id}/events")));
        let events = events.send().await?.error_for_status()?;
        followers.spawn(follow(events));
    }
    let cpu_before = own_cpu_seconds(process);
    drop(waiting);
    let printed = after.reached().await?;
    let last_line_at = printed.since;
    drop(printed);
    let followed = followers.join_all().await;
    let cpu = own_cpu_seconds(process) - cpu_before;

    let log = replica.log(&id).await?;
    let whole = (log.len(), crc32fast::hash(log.as_bytes()));
    let (mut complete, mut late) = (0, Vec::new());
    for followed in followed {
        let followed = followed?;
        complete += usize::from((followed.bytes, followed.checksum) == whole);
        let seen = followed.last_line_at;
        late.extend(seen.map(|seen| seen.saturating_duration_since(last_line_at)));
    }
    ensure!(replica.build(&id).await?["status"] == "completed", "{log}");
    Ok(json!({
        "followers": site.counts.followers,
        "lines": log.lines().count(),
        "log_bytes": log.len(),
        "got_every_byte": complete,
        "last_line_late_ms": Spread::of(late).report(),
        "cpu_seconds": hundredths(cpu),
        "start_bytes": at_start,
        "peak_bytes": peak_memory(process),
    }))
}

fn dockerfile(site: &Site, before: &Gate, after: &Gate) -> String {
    format!(
        "FROM {}\nRUN {}; i=0; while [ $i -lt {} ]; do echo \"$i: as long as lines often are\"; \
         i=$((i+1)); [ $((i % 100)) -ne 0 ] || sleep 0.05; done; echo that is all; {}\n",
        site.base,
        before.command(),
        site.counts.lines,
        after.command(),
    )
}

/// What a follower got.
#[derive(Debug, Default)]
struct Followed {
    bytes: usize,
    checksum: u32,
    last_line_at: Option<Instant>,
}

async fn follow(mut events: reqwest::Response) -> Result<Followed> {
    let mut reader = Reader::default();
    while let Some(bytes) = events.chunk().await.context("follow a log")? {
        reader.push(&bytes);
    }
    ensure!(reader.ended, "a stream of events ended without its end");
    Ok(Followed {
        bytes: reader.bytes,
        checksum: reader.checksum.finalize(),
        last_line_at: reader.last_line_at,
    })
}

/// Puts a log together from its events.
#[derive(Default)]
struct Reader {
    /// The beginning of a line of the stream.
    kept: Vec<u8>,
    event: Vec<u8>,
    data: Vec<u8>,
    bytes: usize,
    checksum: crc32fast::Hasher,
    last_line_at: Option<Instant>,
    ended: bool,
}

impl Reader {
    fn push(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.kept.extend_from_slice(part);
            if let Some(line) = self.kept.strip_suffix(b"\n") {
                let line = line.to_vec();
                self.kept.clear();
                self.line(&line);
            }
        }
    }

    fn line(&mut self, line: &[u8]) {
        if let Some(name) = line.strip_prefix(b"event: ") {
            self.event = name.to_vec();
        } else if let Some(data) = line.strip_prefix(b"data: ") {
            self.data = data.to_vec();
        } else if line.is_empty() {
            self.dispatch();
        }
    }

    fn dispatch(&mut self) {
        match &*self.event {
            b"log" => {
                if self.data.ends_with(LAST_LINE) {
                    self.last_line_at = Some(Instant::now());
                }
                self.data.push(b'\n');
                self.bytes += self.data.len();
                self.checksum.update(&self.data);
            }
            b"end" => self.ended = true,
            _ => {}
        }
        self.event.clear();
        self.data.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_put_together_however_its_events_are_cut() {
        let text = b"event: log\nid: 4\nretry: 2000\ndata: one\n\n: alive\n\n\
            event: log\nid: 5\ndata: \n\nevent: log\nid: 22\ndata: #2 | that is all\n\n\
            event: end\nid: 22\ndata: {}\n\n";
        let log = b"one\n\n#2 | that is all\n";
        for size in [1, 7, text.len()] {
            let mut reader = Reader::default();
            text.chunks(size).for_each(|part| reader.push(part));
            assert_eq!(reader.bytes, log.len(), "{size}");
            assert_eq!(reader.checksum.finalize(), crc32fast::hash(log), "{size}");
            assert!(reader.ended && reader.last_line_at.is_some(), "{size}");
        }
    }
}
