//! A server of OpenSSH on a free port of this machine, with keys and a configuration of its
//! own, that lets one key in and serves repositories below a folder.

use std::fs::{self, Permissions};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::git_repository::GitRepository;

/// Where programs for administrators are, which the path of a user may lack.
const PROGRAM: &str = "/usr/sbin/sshd";
/// The server wants this folder when it runs as root.
const FOLDER_OF_ROOT: &str = "/run/sshd";
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);
const PATIENCE: u32 = 1_000;

/// A server for a test, ended when it is dropped, with the agents that it has started.
#[derive(Debug)]
pub struct SshServer {
    root: TempDir,
    port: u16,
    user: String,
    server: Child,
    agents: Vec<Child>,
}

impl SshServer {
    /// Starts a server without repositories.
    ///
    /// # Panics
    ///
    /// If a program of OpenSSH is missing or fails.
    pub fn start() -> Self {
        Self::with("AcceptEnv GIT_PROTOCOL\n")
    }

    /// Starts a server that does not pass on which protocol is wanted, so that Git speaks
    /// its oldest.
    ///
    /// # Panics
    ///
    /// If a program of OpenSSH is missing or fails.
    pub fn start_old() -> Self {
        Self::with("")
    }

    fn with(settings: &str) -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        for name in ["host", "user", "other"] {
            make_key(&root.path().join(name));
        }
        let commands = root.path().join("commands");
        fs::create_dir(&commands).expect("make the folder of commands");
        if rustix::process::geteuid().is_root() {
            fs::create_dir_all(FOLDER_OF_ROOT).expect("make the folder of sshd");
        }
        let (server, port) = start(root.path(), settings);
        let user = output(Command::new("id").arg("-un"));
        let host_key = fs::read_to_string(root.path().join("host.pub")).expect("the host's key");
        let known = format!("[127.0.0.1]:{port} {host_key}");
        fs::write(root.path().join("known_hosts"), known).expect("write the known hosts");
        Self {
            root,
            port,
            user,
            server,
            agents: Vec::new(),
        }
    }

    /// Makes an empty repository, such as `group/app.git`.
    pub fn repository(&self, name: &str) -> GitRepository {
        let root = self.root.path();
        GitRepository::create(
            root.join("repositories").join(name),
            root.join("work").join(name),
            root.join("home"),
            self.url(name),
        )
    }

    /// Gives the URL of a repository, whether there is one or not.
    pub fn url(&self, name: &str) -> String {
        let path = self.root.path().join("repositories").join(name);
        format!("ssh://{}@{}{}", self.user, self.host(), path.display())
    }

    /// Gives the host and port.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Gives the file in which the server's key is known.
    pub fn known_hosts(&self) -> PathBuf {
        self.root.path().join("known_hosts")
    }

    /// Gives the file of the key that is let in.
    pub fn key(&self) -> PathBuf {
        self.root.path().join("user")
    }

    /// Gives the file of a key that is not let in.
    pub fn other_key(&self) -> PathBuf {
        self.root.path().join("other")
    }

    /// Starts an agent with the key that is let in, and gives its socket.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn agent(&mut self) -> PathBuf {
        let socket = self
            .root
            .path()
            .join(format!("agent-{}", self.agents.len()));
        let agent = Command::new("ssh-agent")
            .args(["-D", "-a"])
            .arg(&socket)
            .stdout(Stdio::null())
            .spawn();
        self.agents.push(agent.expect("run ssh-agent"));
        wait_for("the agent", || socket.exists());
        let add = Command::new("ssh-add")
            .args(["-q"])
            .arg(self.key())
            .env("SSH_AUTH_SOCK", &socket)
            .status();
        assert!(add.expect("run ssh-add").success(), "the key is not added");
        socket
    }

    /// Makes a command that users of the server can run.
    ///
    /// # Panics
    ///
    /// If its file cannot be written.
    pub fn command(&self, name: &str, script: &str) {
        let path = self.root.path().join("commands").join(name);
        fs::write(&path, script).expect("write a command");
        let mode = Permissions::from_mode(0o755);
        fs::set_permissions(&path, mode).expect("make a command executable");
    }

    /// Gives what the server has logged.
    ///
    /// # Panics
    ///
    /// If its log cannot be read.
    pub fn log(&self) -> String {
        fs::read_to_string(self.root.path().join("log")).expect("the log of sshd")
    }
}

impl Drop for SshServer {
    fn drop(&mut self) {
        for child in self.agents.iter_mut().chain([&mut self.server]) {
            // One that has ended by itself is waited for all the same.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn make_key(file: &Path) {
    let status = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
        .arg(file)
        .status();
    assert!(status.expect("run ssh-keygen").success(), "no key is made");
}

/// Starts the server on a port that was free a moment ago.
fn start(root: &Path, settings: &str) -> (Child, u16) {
    let at = |name: &str| root.join(name).display().to_string();
    for _ in 0..TRIES {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("the address").port();
        drop(listener);
        let text = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nPidFile none\nUsePAM no\n\
             AuthorizedKeysFile {}\nStrictModes no\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPermitRootLogin yes\nLogLevel VERBOSE\n\
             SetEnv PATH={}:/usr/local/bin:/usr/bin:/bin\n{settings}",
            at("host"),
            at("user.pub"),
            at("commands"),
        );
        fs::write(root.join("sshd_config"), text).expect("write the configuration");
        let mut server = Command::new(PROGRAM)
            .args(["-D", "-f", &at("sshd_config"), "-E", &at("log")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("run sshd (package openssh-server)");
        let mut has_ended = false;
        wait_for("sshd", || {
            has_ended = server.try_wait().expect("ask for sshd").is_some();
            has_ended || TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        if !has_ended {
            return (server, port);
        }
    }
    panic!(
        "sshd does not start: {}",
        fs::read_to_string(root.join("log")).unwrap_or_default()
    );
}

fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    for _ in 0..PATIENCE {
        if is_there() {
            return;
        }
        std::thread::sleep(PAUSE);
    }
    panic!("{what} does not start");
}

fn output(command: &mut Command) -> String {
    let output = command.output().expect("run a program");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
