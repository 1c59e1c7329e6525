//! `--ssh`: a text becomes the id of an SSH agent and its socket, as
//! `docker buildx build` reads it. Files with keys are not taken: an agent holds them.

use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

use crate::error::Error;

const SOCKET: &str = "SSH_AUTH_SOCK";

/// Reads `ID[=SOCKET]`. The socket must be there: a slip is to be seen before an hour of
/// building.
pub(crate) fn parse(text: &str) -> Result<(String, PathBuf), Error> {
    let usage = |reason: String| Error::Usage(format!("--ssh {text:?}: {reason}"));
    let (id, socket) = match text.split_once('=') {
        Some((id, socket)) => (id, Some(socket)),
        None => (text, None),
    };
    if id.is_empty() {
        return Err(usage("say default or ID[=SOCKET]".to_owned()));
    }
    let socket = match socket.filter(|socket| !socket.is_empty()) {
        Some(socket) => PathBuf::from(socket),
        None => match std::env::var_os(SOCKET).filter(|socket| !socket.is_empty()) {
            Some(socket) => PathBuf::from(socket),
            None => return Err(usage(format!("no agent runs: {SOCKET} is not set"))),
        },
    };
    let found = socket.metadata().map_err(|error| {
        Error::failed(
            format!("the SSH agent {id:?} at {}", socket.display()),
            error,
        )
    })?;
    if !found.file_type().is_socket() {
        return Err(usage(format!(
            "{} is no socket; add keys to an agent with ssh-add",
            socket.display()
        )));
    }
    Ok((id.to_owned(), socket))
}
