//! `--ssh`: a text becomes the id of an SSH agent and its socket, as
//! `docker buildx build` reads it; for a file with a key an agent is started. And what
//! repositories are fetched over ssh with.

use std::ffi::OsStr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ocibuild::git::Ssh;
use tempfile::TempDir;

use super::surroundings::variable;
use crate::error::Error;

const SOCKET: &str = "SSH_AUTH_SOCK";
/// The id of the agent that repositories are fetched with.
const DEFAULT: &str = "default";
const OF_MACHINE: &str = "/etc/ssh/ssh_known_hosts";
const OF_USER: &str = ".ssh/known_hosts";
/// How long an agent may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);

/// The agents of a build, of which those that were started here end with this.
#[derive(Debug, Default)]
pub(crate) struct Agents {
    sockets: Vec<(String, PathBuf)>,
    _started: Vec<Started>,
}

impl Agents {
    /// Reads the values of `--ssh`.
    pub(crate) fn of(texts: &[String]) -> Result<Self, Error> {
        let mut agents = Self::default();
        for text in texts {
            let (id, place) = parse(text)?;
            let socket = match is_key(&place) {
                true => {
                    let started = Started::with_key(&place)?;
                    let socket = started.socket.clone();
                    agents._started.push(started);
                    socket
                }
                false => place,
            };
            agents.sockets.push((id, socket));
        }
        Ok(agents)
    }

    /// Gives the ids and sockets.
    pub(crate) fn sockets(&self) -> &[(String, PathBuf)] {
        &self.sockets
    }

    /// Gives with what repositories are fetched; nothing where there is no ssh. The agent of
    /// the environment is taken only where whoever builds has named a repository of ssh.
    pub(crate) fn for_git(&self, known_hosts: &[PathBuf], is_named: bool) -> Option<Ssh> {
        let mut ssh = Ssh::new(program("ssh")?);
        let is_default = |(id, _): &&(String, PathBuf)| id == DEFAULT;
        let given = self.sockets.iter().rev().find(is_default);
        let of_environment = || variable(SOCKET).filter(|_| is_named).map(PathBuf::from);
        let agent = given.map(|(_, socket)| socket.clone());
        if let Some(socket) = agent.or_else(of_environment) {
            ssh = ssh.agent(absolute(&socket));
        }
        let usual = || {
            let of_user = variable("HOME").map(|home| PathBuf::from(home).join(OF_USER));
            of_user
                .into_iter()
                .chain([PathBuf::from(OF_MACHINE)])
                .collect()
        };
        let files: Vec<PathBuf> = match known_hosts {
            [] => usual(),
            files => files.iter().map(|file| absolute(file)).collect(),
        };
        Some(files.into_iter().fold(ssh, Ssh::known_hosts))
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Finds a program as a shell does.
fn program(name: &str) -> Option<PathBuf> {
    let folders = variable("PATH")?;
    let mut places = std::env::split_paths(&folders).map(|folder| folder.join(name));
    places.find(|place| place.is_absolute() && place.is_file())
}

/// Reads `ID[=SOCKET|KEY]`. The file must be there: a slip is to be seen before an hour of
/// building.
fn parse(text: &str) -> Result<(String, PathBuf), Error> {
    let usage = |reason: String| Error::Usage(format!("--ssh {text:?}: {reason}"));
    let (id, place) = match text.split_once('=') {
        Some((id, place)) => (id, Some(place)),
        None => (text, None),
    };
    if id.is_empty() {
        return Err(usage("say default or ID[=SOCKET|KEY]".to_owned()));
    }
    let place = match place.filter(|place| !place.is_empty()) {
        Some(place) => PathBuf::from(place),
        None => match variable(SOCKET) {
            Some(socket) => PathBuf::from(socket),
            None => return Err(usage(format!("no agent runs: {SOCKET} is not set"))),
        },
    };
    let found = place.metadata().map_err(|error| {
        Error::failed(
            format!("the SSH agent {id:?} at {}", place.display()),
            error,
        )
    })?;
    if !found.file_type().is_socket() && !found.is_file() {
        return Err(usage(format!(
            "{} is neither the socket of an agent nor a file with a key",
            place.display()
        )));
    }
    Ok((id.to_owned(), place))
}

fn is_key(place: &Path) -> bool {
    place.metadata().is_ok_and(|found| found.is_file())
}

/// An agent that was started here. It lasts as long as a program that reads from us, so it
/// ends whatever becomes of this process.
#[derive(Debug)]
struct Started {
    reader: Child,
    socket: PathBuf,
    _folder: TempDir,
}

impl Started {
    fn with_key(key: &Path) -> Result<Self, Error> {
        let failed = |what: &str, error| Error::failed(format!("{what} for --ssh"), error);
        let folder =
            tempfile::tempdir().map_err(|error| failed("make a temporary folder", error))?;
        let socket = folder.path().join("agent");
        let reader = Command::new("ssh-agent")
            .arg("-a")
            .args([socket.as_os_str(), OsStr::new("cat")])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| failed("start ssh-agent", error))?;
        let started = Self {
            reader,
            socket,
            _folder: folder,
        };
        let end = Instant::now() + PATIENCE;
        while !started.socket.exists() && Instant::now() < end {
            std::thread::sleep(PAUSE);
        }
        let added = Command::new("ssh-add")
            .arg("-q")
            .arg(absolute(key))
            .env(SOCKET, &started.socket)
            .env("SSH_ASKPASS_REQUIRE", "never")
            .env_remove("DISPLAY")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| failed("start ssh-add", error))?;
        if !added.status.success() {
            let said = String::from_utf8_lossy(&added.stderr).replace(char::is_control, " ");
            return Err(Error::Usage(format!(
                "--ssh: the key {} cannot be used: {}",
                key.display(),
                said.trim()
            )));
        }
        Ok(started)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        drop(self.reader.stdin.take());
        // It ends now, whether it is waited for or not.
        let _ = self.reader.wait();
    }
}
