//! Git over OpenSSH: the program `ssh` is started for each connection, and asks nobody
//! anything. Which host it may talk to and at which address is decided here; whether the
//! host is the one that it says, by a file of known hosts; who we are, by an agent or a key.
//!
//! No configuration of ssh is read: `ProxyCommand` and `Match exec` in it run programs.
//! Rules: ssh(1), ssh_config(5), gitprotocol-pack, "SSH Transport".

mod connection;

use std::io;
use std::path::{Path, PathBuf};

use super::error::GitError;
use super::remote::CONNECT_TIMEOUT;

pub(super) use connection::{Failure, Way};

/// With what repositories are fetched over ssh.
///
/// ```
/// use ocibuild::git::Ssh;
///
/// let ssh = Ssh::new("/usr/bin/ssh")
///     .agent("/run/agent.sock")
///     .known_hosts("/etc/ssh/ssh_known_hosts");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssh {
    program: PathBuf,
    agent: Option<PathBuf>,
    key: Option<PathBuf>,
    known_hosts: Vec<PathBuf>,
}

impl Ssh {
    /// Takes the program of OpenSSH. Without known hosts no server is believed, and without
    /// an agent or a key none lets us in.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            agent: None,
            key: None,
            known_hosts: Vec::new(),
        }
    }

    /// Takes the keys of the agent that listens at a socket.
    #[must_use]
    pub fn agent(mut self, socket: impl Into<PathBuf>) -> Self {
        self.agent = Some(socket.into());
        self
    }

    /// Takes the key in a file, which must not need a passphrase.
    #[must_use]
    pub fn key(mut self, file: impl Into<PathBuf>) -> Self {
        self.key = Some(file.into());
        self
    }

    /// Believes the hosts in a file too (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"); it need not
    /// be there.
    #[must_use]
    pub fn known_hosts(mut self, file: impl Into<PathBuf>) -> Self {
        self.known_hosts.push(file.into());
        self
    }

    /// Gives the options of ssh(1), for a host that is known by a name.
    fn options(&self, known_as: &str) -> Result<Vec<String>, GitError> {
        let mut options: Vec<String> = OPTIONS.iter().map(|&option| option.to_owned()).collect();
        options.push(format!("HostKeyAlias={known_as}"));
        options.push(format!("ConnectTimeout={}", CONNECT_TIMEOUT.as_secs()));
        let mut files = String::new();
        for file in &self.known_hosts {
            files.push(' ');
            files.push_str(&quoted(file)?);
        }
        let files = match files.is_empty() {
            true => " none",
            false => &files,
        };
        options.push(format!("UserKnownHostsFile={}", &files[1..]));
        options.push(match &self.agent {
            Some(socket) => format!("IdentityAgent={}", quoted(socket)?),
            None => "IdentityAgent=none".to_owned(),
        });
        match &self.key {
            Some(file) => {
                options.push(format!("IdentityFile={}", quoted(file)?));
                options.push("IdentitiesOnly=yes".to_owned());
            }
            None => options.push("IdentityFile=none".to_owned()),
        }
        Ok(options)
    }
}

/// What no connection may do otherwise.
const OPTIONS: [&str; 18] = [
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "GlobalKnownHostsFile=none",
    "UpdateHostKeys=no",
    "CheckHostIP=no",
    "VerifyHostKeyDNS=no",
    "PreferredAuthentications=publickey",
    "PasswordAuthentication=no",
    "KbdInteractiveAuthentication=no",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "PermitLocalCommand=no",
    "ControlPath=none",
    "RequestTTY=no",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=3",
    "SendEnv=GIT_PROTOCOL",
    "LogLevel=ERROR",
];

/// Writes a path as a value of ssh_config(5), in which `%` and `~` mean something too.
fn quoted(path: &Path) -> Result<String, GitError> {
    let text = path
        .to_str()
        .filter(|text| !text.contains(['"', '\\', '\n', '$']));
    let text = text.filter(|text| path.is_absolute() && !text.is_empty());
    let text = text.ok_or_else(|| GitError::Io {
        path: path.to_owned(),
        source: io::Error::new(
            io::ErrorKind::InvalidInput,
            "ssh takes absolute paths without quotes, backslashes and dollar signs",
        ),
    })?;
    Ok(format!("\"{}\"", text.replace('%', "%%")))
}
