//! A socket in the folder of a step that leads to an SSH agent of the builder: the owner
//! and mode are what the mount asks for, and a command can list keys and sign, nothing
//! else. It cannot add or remove keys, lock the agent or use its extensions, as with
//! BuildKit (`readOnlyAgent`). The protocol is draft-miller-ssh-agent: frames of a length
//! (four bytes, big-endian), a type and a content.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinSet};

/// The longest frame, as in OpenSSH (`AGENT_MAX_LEN`).
const MAX_FRAME: u32 = 256 << 10;
/// How many connections a command has at once; further ones wait.
const MAX_CLIENTS: usize = 64;

const REQUEST_IDENTITIES: u8 = 11;
const SIGN_REQUEST: u8 = 13;
/// `SSH_AGENT_FAILURE` alone.
const FAILURE: &[u8] = &[5];

/// A socket that leads to an agent, until this is dropped.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) path: PathBuf,
    task: AbortHandle,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Makes the socket `name` in a folder.
pub(crate) async fn open(folder: &Path, name: &str, agent: &Path) -> io::Result<Agent> {
    // What cannot be reached is to be said now, not by the command.
    drop(UnixStream::connect(agent).await?);
    // A socket's name has 108 bytes at most, and the store may lie deep.
    let opened = File::open(folder)?;
    let short = format!("/proc/self/fd/{}/{name}", opened.as_raw_fd());
    let listener = UnixListener::bind(short)?;
    let task = tokio::spawn(serve(listener, agent.to_owned())).abort_handle();
    Ok(Agent {
        path: folder.join(name),
        task,
    })
}

async fn serve(listener: UnixListener, agent: PathBuf) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            client = listener.accept(), if clients.len() < MAX_CLIENTS => match client {
                Ok((client, _)) => drop(clients.spawn(forward(client, agent.clone()))),
                Err(error) => {
                    tracing::warn!(%error, "the socket of an SSH agent is closed");
                    return;
                }
            },
            Some(_) = clients.join_next() => {}
        }
    }
}

/// Passes requests and replies on, until one side closes.
async fn forward(client: UnixStream, agent: PathBuf) {
    let passed = match UnixStream::connect(&agent).await {
        Ok(agent) => pass(client, agent).await,
        Err(error) => Err(error),
    };
    if let Err(error) = passed {
        tracing::debug!(%error, "a connection to an SSH agent ended");
    }
}

async fn pass(mut client: UnixStream, mut agent: UnixStream) -> io::Result<()> {
    while let Some(request) = read_frame(&mut client).await? {
        let reply = match request.first() {
            Some(&(REQUEST_IDENTITIES | SIGN_REQUEST)) => {
                write_frame(&mut agent, &request).await?;
                let reply = read_frame(&mut agent).await?;
                reply.ok_or(io::ErrorKind::UnexpectedEof)?
            }
            _ => FAILURE.to_vec(),
        };
        write_frame(&mut client, &reply).await?;
    }
    Ok(())
}

/// Reads a frame; nothing where the other side has closed.
async fn read_frame(stream: &mut UnixStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u32().await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    if length > MAX_FRAME {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut frame = Vec::new();
    let read = stream.take(length.into()).read_to_end(&mut frame).await?;
    match read == length as usize {
        true => Ok(Some(frame)),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

async fn write_frame(stream: &mut UnixStream, frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len()).unwrap_or(MAX_FRAME);
    stream.write_u32(length).await?;
    stream.write_all(frame).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An agent that answers each request with its own type and content.
    fn echo(folder: &Path) -> PathBuf {
        let path = folder.join("agent");
        let listener = UnixListener::bind(&path).expect("a socket");
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.expect("a client");
                tokio::spawn(async move {
                    while let Ok(Some(frame)) = read_frame(&mut client).await {
                        write_frame(&mut client, &frame).await.expect("a reply");
                    }
                });
            }
        });
        path
    }

    #[tokio::test]
    async fn b67_only_reading_and_signing_reach_the_agent() {
        let folder = tempfile::tempdir().expect("a folder");
        let deep = folder.path().join("d".repeat(200));
        std::fs::create_dir(&deep).expect("a folder");
        let agent = open(&deep, "s", &echo(folder.path())).await.expect("open");
        let deep = File::open(&deep).expect("the folder");
        let short = format!("/proc/self/fd/{}/s", deep.as_raw_fd());
        let mut client = UnixStream::connect(&short).await.expect("a connection");
        for kind in 0..=u8::MAX {
            let request = [kind, b'x'];
            write_frame(&mut client, &request).await.expect("a request");
            let reply = read_frame(&mut client).await.expect("a reply");
            let want = match kind {
                11 | 13 => request.to_vec(),
                _ => FAILURE.to_vec(),
            };
            assert_eq!(reply, Some(want), "{kind}");
        }
        write_frame(&mut client, &[]).await.expect("a request");
        assert_eq!(
            read_frame(&mut client).await.expect("a reply").as_deref(),
            Some(FAILURE)
        );
        client.write_u32(MAX_FRAME + 1).await.expect("a length");
        assert_eq!(read_frame(&mut client).await.expect("closed"), None);
        drop(agent);
    }

    #[tokio::test]
    async fn an_agent_that_is_not_there_is_said_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let none = folder.path().join("none");
        let error = open(folder.path(), "s", &none).await.expect_err("no agent");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
