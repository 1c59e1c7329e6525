//! The end of a log, which a page shows.

use ocibuild_store::TaskId;

use super::ansi;
use crate::logs::{LogError, Logs};

/// How much of a log a page shows.
pub(super) const TAIL_BYTES: u64 = 256 << 10;

/// The end of a log.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// What is shown: whole lines.
    pub(super) text: String,
    /// Where that begins; lines before it are missing unless this is 0.
    pub(super) begin: u64,
    /// Where it ends: a follower goes on here.
    pub(super) end: u64,
    /// Nothing more comes.
    pub(super) ended: bool,
}

/// Reads the end of the log of a task; it is empty where there is none.
pub(super) async fn tail(logs: &Logs, id: &TaskId) -> Result<Tail, LogError> {
    let Some(log) = logs.open(id).await? else {
        return Ok(Tail {
            ended: true,
            ..Tail::default()
        });
    };
    let mut from = log.info.length.saturating_sub(TAIL_BYTES);
    let first = from;
    let mut bytes = Vec::new();
    loop {
        let part = log.read(from, log.info.length - from).await?;
        if part.is_empty() {
            break;
        }
        from += part.len() as u64;
        bytes.extend(part);
    }
    Ok(whole_lines(&bytes, first, log.info.ended))
}

/// Cuts what begins in the middle of a line and, while a log grows, what ends there.
fn whole_lines(bytes: &[u8], first: u64, ended: bool) -> Tail {
    let newline = |&byte: &u8| byte == b'\n';
    let begin = match first {
        0 => 0,
        _ => bytes.iter().position(newline).map_or(0, |at| at + 1),
    };
    let end = match ended {
        true => bytes.len(),
        false => bytes.iter().rposition(newline).map_or(begin, |at| at + 1),
    };
    let text = String::from_utf8_lossy(&bytes[begin..end]);
    Tail {
        text: ansi::plain(&text).into_owned(),
        begin: first + begin as u64,
        end: first + end as u64,
        ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_whole_lines() {
        for (bytes, first, ended, expected) in [
            ("a\nb\n", 0, false, ("a\nb\n", 0, 4)),
            ("a\nb", 0, false, ("a\n", 0, 2)),
            ("a\nb", 0, true, ("a\nb", 0, 3)),
            ("rest\na\nb", 10, false, ("a\n", 15, 17)),
            ("rest\nb", 10, false, ("", 15, 15)),
            ("no end", 10, false, ("", 10, 10)),
            ("no end", 10, true, ("no end", 10, 16)),
            ("", 0, false, ("", 0, 0)),
        ] {
            let tail = whole_lines(bytes.as_bytes(), first, ended);
            let found = (tail.text.as_str(), tail.begin, tail.end);
            assert_eq!(found, expected, "{bytes:?} at {first}");
        }
    }
}
