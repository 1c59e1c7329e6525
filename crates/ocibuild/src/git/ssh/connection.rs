//! Connections: `ssh` is started with an address that was judged, and ends with what it is
//! started for.

use std::any::Any;
use std::borrow::Cow;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gix::bstr::BStr;
use gix::protocol::transport::client::blocking_io::{RequestWriter, SetServiceResponse, Transport};
use gix::protocol::transport::client::git::ConnectMode;
use gix::protocol::transport::client::git::blocking_io::Connection;
use gix::protocol::transport::client::{Error, MessageKind, TransportWithoutIO, WriteMode};
use gix::protocol::transport::{Protocol, Service};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use url::Url;

use super::super::address::path_for_ssh;
use super::super::error::{GitError, host_and_port, public_url};
use super::super::limits::Budget;
use super::super::policy::{Forbidden, host_of};
use super::super::remote::{CONNECT_TIMEOUT, Endpoint, SILENCE_TIMEOUT};
use super::super::watch::TICK;
use super::Ssh;
use crate::Cancel;
use crate::causes::one_line;
use crate::net::{AddressPolicy, Refused};

const PORT: u16 = 22;
/// What a server says that is kept for an error.
const MOST_SAID: usize = 2048;
/// How long `ssh` may take to end by itself, so that it can say why.
const LAST_WORDS: Duration = Duration::from_secs(2);
const UPLOAD_PACK: &str = "git-upload-pack";

/// Writes a path for the shell of a server, as git does.
fn for_shell(path: &str) -> String {
    let escaped = path.replace('\'', "'\\''").replace('!', "'\\!'");
    format!("'{escaped}'")
}

/// How servers are reached over ssh in one checkout.
#[derive(Debug, Clone)]
pub(in crate::git) struct Way {
    ssh: Ssh,
    addresses: AddressPolicy,
    cancel: Cancel,
    /// Why the last connection failed.
    failure: Arc<Mutex<Option<Failure>>>,
}

/// Why a connection failed.
#[derive(Debug)]
pub(in crate::git) enum Failure {
    /// What `ssh` or the server said.
    Said(String),
    /// The address may not be connected to.
    Refused(Refused),
}

impl Way {
    pub(in crate::git) fn new(ssh: Ssh, addresses: AddressPolicy, cancel: Cancel) -> Self {
        Self {
            ssh,
            addresses,
            cancel,
            failure: Arc::default(),
        }
    }

    /// Gives why a connection has failed, once.
    pub(in crate::git) fn take_failure(&self) -> Option<Failure> {
        self.failure().take()
    }

    fn failure(&self) -> MutexGuard<'_, Option<Failure>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a connection; why it failed is kept beside the error.
    pub(in crate::git) fn connect_for_gix(
        &self,
        url: &Url,
        budget: &Arc<Budget>,
    ) -> gix::Result<Box<dyn Transport + Send>> {
        self.connect(url, budget).map_err(|error| {
            *self.failure() = Some(match error {
                GitError::Forbidden {
                    reason: Forbidden::Address(refused),
                    ..
                } => Failure::Refused(refused),
                GitError::Ssh { said, .. } => Failure::Said(said),
                error => Failure::Said(one_line(&error)),
            });
            gix::Error::from_error(io::Error::from(io::ErrorKind::NotConnected))
        })
    }

    /// Makes a connection on which Git is spoken.
    fn connect(
        &self,
        url: &Url,
        budget: &Arc<Budget>,
    ) -> Result<Box<dyn Transport + Send>, GitError> {
        let path = path_for_ssh(url);
        let command = format!("{UPLOAD_PACK} {}", for_shell(&path));
        let (running, answer, questions) = self.run(url, &command, budget)?;
        let connection = Connection::new(
            answer,
            questions,
            Protocol::V2,
            path,
            None::<(&str, _)>,
            ConnectMode::Process,
            false,
        );
        Ok(Box::new(Spoken {
            connection: connection.custom_url(Some(public_url(url).into())),
            _running: running,
        }))
    }

    /// Runs a command about a repository at its server, and gives the begin of what it
    /// prints; nothing where there is no such command.
    pub(in crate::git) fn ask(
        &self,
        endpoint: &Endpoint,
        command: &str,
        operation: &str,
        most: u64,
    ) -> Result<Vec<u8>, GitError> {
        let path = for_shell(&path_for_ssh(&endpoint.url));
        let command = format!("{command} {path} {operation}");
        let (running, answer, questions) = self.run(&endpoint.url, &command, &endpoint.budget)?;
        drop(questions);
        let mut bytes = Vec::new();
        let read = answer.take(most).read_to_end(&mut bytes);
        drop(running);
        read.map_err(|error| GitError::Ssh {
            url: public_url(&endpoint.url),
            said: error.to_string(),
        })?;
        Ok(bytes)
    }

    fn run(
        &self,
        url: &Url,
        command: &str,
        budget: &Arc<Budget>,
    ) -> Result<(Running, Answer, ChildStdin), GitError> {
        self.take_failure();
        let port = url.port().unwrap_or(PORT);
        let address = self.address(url, port, budget)?;
        let host = url.host_str().unwrap_or_default();
        let known_as = match port {
            PORT => host.trim_matches(['[', ']']).to_owned(),
            port => format!("[{}]:{port}", host.trim_matches(['[', ']'])),
        };
        let mut ssh = Command::new(&self.ssh.program);
        ssh.args(["-F", "none", "-p", &port.to_string()]);
        for option in self.ssh.options(&known_as)? {
            ssh.args(["-o", &option]);
        }
        if !url.username().is_empty() {
            ssh.args(["-l", url.username()]);
        }
        ssh.args(["--", &address.to_string(), command])
            .env_clear()
            .env("LC_ALL", "C")
            .env("GIT_PROTOCOL", "version=2")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = ssh.spawn().map_err(GitError::io(&self.ssh.program))?;
        let (questions, output, errors) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(questions), Some(output), Some(errors)) = (questions, output, errors) else {
            return Err(GitError::io(&self.ssh.program)(
                io::ErrorKind::BrokenPipe.into(),
            ));
        };
        let running = Running {
            child,
            errors: Some(std::thread::spawn(move || read_errors(errors))),
            way: self.clone(),
        };
        let answer = Answer {
            output,
            budget: budget.clone(),
            cancel: self.cancel.clone(),
        };
        Ok((running, answer, questions))
    }

    /// Finds an address of the host that may be connected to and can be.
    fn address(&self, url: &Url, port: u16, budget: &Budget) -> Result<IpAddr, GitError> {
        let unreachable = |said: String| GitError::Ssh {
            url: public_url(url),
            said: format!("cannot reach {}: {said}", host_and_port(url)),
        };
        let host = match host_of(url) {
            Some(url::Host::Domain(name)) => name,
            Some(url::Host::Ipv4(address)) => address.to_string(),
            Some(url::Host::Ipv6(address)) => address.to_string(),
            None => String::new(),
        };
        let found = (host.as_str(), port).to_socket_addrs();
        let found = found.map_err(|error| unreachable(error.to_string()))?;
        let permitted = self.addresses.permitted(found);
        let permitted: Vec<SocketAddr> = permitted.map_err(|refused| GitError::Forbidden {
            url: public_url(url),
            reason: Forbidden::Address(refused),
        })?;
        let mut last = "it has no address".to_owned();
        for address in permitted {
            let patience = CONNECT_TIMEOUT.min(budget.time_left()).max(TICK);
            match TcpStream::connect_timeout(&address, patience) {
                Ok(_) => return Ok(address.ip()),
                Err(error) => last = error.to_string(),
            }
        }
        Err(unreachable(last))
    }
}

/// Keeps the begin of what `ssh` and the server say, and reads the rest, lest they wait.
fn read_errors(mut errors: ChildStderr) -> String {
    let mut said = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = errors.read(&mut buffer) {
        let left = MOST_SAID.saturating_sub(said.len());
        said.extend_from_slice(&buffer[..count.min(left)]);
    }
    let text = String::from_utf8_lossy(&said);
    let lines = text
        .lines()
        .map(|line| line.trim_matches(|c: char| c.is_control() || c == ' '));
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    lines.join("; ").replace(|c: char| c.is_control(), "?")
}

/// A started `ssh`, which ends with this.
struct Running {
    child: Child,
    errors: Option<JoinHandle<String>>,
    way: Way,
}

impl Drop for Running {
    fn drop(&mut self) {
        let end = Instant::now() + LAST_WORDS;
        let mut status = None;
        while status.is_none() && Instant::now() < end && !self.way.cancel.is_cancelled() {
            status = self.child.try_wait().ok().flatten();
            if status.is_none() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        if status.is_none() {
            // It has ended meanwhile, or ends now.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let said = self.errors.take().and_then(|errors| errors.join().ok());
        if status.is_none_or(|status| !status.success()) {
            let said = said.filter(|said| !said.is_empty());
            *self.way.failure() = said.map(Failure::Said);
        }
    }
}

/// What a server sends, counted; a silent one is waited for no longer than it may take.
struct Answer {
    output: ChildStdout,
    budget: Arc<Budget>,
    cancel: Cancel,
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let began = Instant::now();
        loop {
            self.budget.check().map_err(io::Error::other)?;
            if self.cancel.is_cancelled() {
                return Err(io::Error::other("cancelled"));
            }
            let tick = Timespec {
                tv_sec: 0,
                tv_nsec: TICK.as_nanos() as i64,
            };
            let mut waiting = [PollFd::new(&self.output, PollFlags::IN)];
            match poll(&mut waiting, Some(&tick)) {
                Ok(0) if began.elapsed() > SILENCE_TIMEOUT => {
                    self.budget.note_broken();
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => break,
                Err(error) => return Err(error.into()),
            }
        }
        let count = self.output.read(buffer)?;
        self.budget.receive(count as u64);
        Ok(count)
    }
}

/// A connection and the process that carries it. The connection goes first: a server that
/// hears no more ends.
struct Spoken {
    connection: Connection<Answer, ChildStdin>,
    _running: Running,
}

impl TransportWithoutIO for Spoken {
    fn to_url(&self) -> Cow<'_, BStr> {
        self.connection.to_url()
    }

    fn connection_persists_across_multiple_requests(&self) -> bool {
        true
    }

    fn configure(&mut self, _: &dyn Any) -> gix::Result {
        Ok(())
    }
}

impl Transport for Spoken {
    fn handshake<'a>(
        &mut self,
        service: Service,
        extra: &'a [(&'a str, Option<&'a str>)],
    ) -> Result<SetServiceResponse<'_>, Error> {
        self.connection.handshake(service, extra)
    }

    fn request(
        &mut self,
        write_mode: WriteMode,
        on_into_read: MessageKind,
        trace: bool,
    ) -> Result<RequestWriter<'_>, Error> {
        self.connection.request(write_mode, on_into_read, trace)
    }
}
