//! A private MariaDB server: its own folder, its own free loopback port, gone when dropped.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::testing::authority::{Authority, ServerCertificate};
use crate::{MySqlSettings, MySqlTls};

const START_LIMIT: Duration = Duration::from_secs(60);
/// Somebody else may take the free port before the server does.
const PORT_TRIES: usize = 3;

/// A running MariaDB server with the user `root` and no password.
#[derive(Debug)]
pub struct MariaDb {
    folder: TempDir,
    port: u16,
    certificate: Option<ServerCertificate>,
    child: Option<Child>,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MariaDbError {
    /// The package is not installed.
    #[error("cannot find {program}: install the package mariadb-server")]
    Missing {
        /// The program that was looked for.
        program: &'static str,
    },
    /// A program could not be started, or a file not made.
    #[error("cannot {action}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// A program ended with an error.
    #[error("{program} failed: {output}")]
    Failed {
        /// The program.
        program: &'static str,
        /// What it printed.
        output: String,
    },
    /// The server was started and never answered.
    #[error("mariadbd does not answer")]
    Silent,
}

pub(super) fn io_error(action: &'static str) -> impl Fn(io::Error) -> MariaDbError {
    move |source| MariaDbError::Io { action, source }
}

impl MariaDb {
    /// Makes a new empty server and waits until it answers.
    pub fn start() -> Result<Self, MariaDbError> {
        Self::make(|_| Ok(None))
    }

    /// As [`MariaDb::start`], for a server that has a certificate of a new authority.
    pub fn start_with_tls() -> Result<Self, MariaDbError> {
        Self::make(|folder| Authority::make(folder)?.certify(folder).map(Some))
    }

    fn make(
        certify: impl Fn(&Path) -> Result<Option<ServerCertificate>, MariaDbError>,
    ) -> Result<Self, MariaDbError> {
        let folder = tempfile::Builder::new()
            .prefix("mariadb")
            .tempdir()
            .map_err(io_error("make a folder"))?;
        install(folder.path())?;
        let mut last = MariaDbError::Silent;
        let certificate = certify(folder.path())?;
        let mut server = Self {
            folder,
            port: 0,
            certificate,
            child: None,
        };
        for _ in 0..PORT_TRIES {
            server.port = free_port().map_err(io_error("find a free port"))?;
            match server.run() {
                Ok(()) => return Ok(server),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Kills the server, as a power failure would.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It can only fail when the server has ended by itself, which is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Makes the server hang: it keeps its connections, and answers nobody.
    pub fn pause(&self) -> Result<(), MariaDbError> {
        self.signal(Signal::STOP)
    }

    /// Ends [`MariaDb::pause`].
    pub fn resume(&self) -> Result<(), MariaDbError> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), MariaDbError> {
        let Some(child) = &self.child else {
            return Err(MariaDbError::Silent);
        };
        kill_process(Pid::from_child(child), signal)
            .map_err(|error| io_error("signal mariadbd")(error.into()))
    }

    /// Gives the certificate of the authority that the server's own is from.
    pub fn authority(&self) -> Option<&Path> {
        self.certificate
            .as_ref()
            .map(|certificate| certificate.authority.as_path())
    }

    /// Starts the server again, on the same data and the same port.
    pub fn start_again(&mut self) -> Result<(), MariaDbError> {
        self.stop();
        self.run()
    }

    /// Gives the settings to reach a database of this server as its root user.
    pub fn settings(&self, database: &str) -> MySqlSettings {
        MySqlSettings {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            database: database.to_owned(),
            username: "root".to_owned(),
            password: String::new(),
            tls: MySqlTls::default(),
            timeout: Duration::from_secs(10),
            connections: 8,
        }
    }

    fn run(&mut self) -> Result<(), MariaDbError> {
        let folder = self.folder.path();
        let mut command = server_command("mariadbd", folder)?;
        command
            .arg(format!("--port={}", self.port))
            .arg(format!("--socket={}", folder.join("socket").display()))
            .arg(format!("--pid-file={}", folder.join("pid").display()))
            .arg(format!(
                "--log-error={}",
                folder.join("error.log").display()
            ))
            .args([
                "--bind-address=127.0.0.1",
                "--skip-log-bin",
                "--skip-name-resolve",
            ])
            .args(["--innodb-buffer-pool-size=16M", "--performance-schema=OFF"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(certificate) = &self.certificate {
            command
                .arg(format!("--ssl-cert={}", certificate.file.display()))
                .arg(format!("--ssl-key={}", certificate.key.display()));
        }
        let child = command.spawn().map_err(io_error("start mariadbd"))?;
        self.child = Some(child);
        self.wait_until_ready()
    }

    fn wait_until_ready(&mut self) -> Result<(), MariaDbError> {
        let deadline = Instant::now() + START_LIMIT;
        while Instant::now() < deadline {
            if let Some(child) = &mut self.child
                && child
                    .try_wait()
                    .map_err(io_error("wait for mariadbd"))?
                    .is_some()
            {
                let log = self.folder.path().join("error.log");
                let output = std::fs::read_to_string(log).unwrap_or_default();
                return Err(MariaDbError::Failed {
                    program: "mariadbd",
                    output,
                });
            }
            if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.stop();
        Err(MariaDbError::Silent)
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Makes the system tables. `root` gets no password and may come over TCP.
fn install(folder: &Path) -> Result<(), MariaDbError> {
    let program = "mariadb-install-db";
    let output = server_command(program, folder)?
        .args(["--auth-root-authentication-method=normal", "--skip-test-db"])
        .stdin(Stdio::null())
        .output()
        .map_err(io_error("run mariadb-install-db"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(MariaDbError::Failed {
        program,
        output: String::from_utf8_lossy(&text).into_owned(),
    })
}

/// Names a program of the server with what every one of them needs.
fn server_command(program: &'static str, folder: &Path) -> Result<Command, MariaDbError> {
    // Debian puts mariadbd where the search path of a plain user does not lead.
    let path = [
        "/usr/sbin",
        "/usr/bin",
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/libexec",
    ]
    .into_iter()
    .map(|place| Path::new(place).join(program))
    .find(|path| path.is_file())
    .ok_or(MariaDbError::Missing { program })?;
    let mut command = Command::new(path);
    // Two servers with one temporary folder take each other's tables away, and
    // `--no-defaults` must be the first argument.
    command
        .env("TMPDIR", folder)
        .arg("--no-defaults")
        .arg(format!("--datadir={}", folder.join("data").display()));
    let owner = std::fs::metadata(folder)
        .map_err(io_error("look at the folder"))?
        .uid();
    if owner == 0 {
        command.arg("--user=root");
    }
    Ok(command)
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}
