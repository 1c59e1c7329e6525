//! Debian's `docker-registry` (the distribution project's registry) as a child
//! process: what another implementation says to the same requests.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::{Digest, Reference, Repository};

const PROGRAM: &str = "docker-registry";
const START_TIME: Duration = Duration::from_secs(20);
/// Another process may take a free port before the registry does.
const PORT_ATTEMPTS: usize = 3;

/// Why `docker-registry` did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The program is not installed.
    #[error("the program {PROGRAM} is not installed")]
    Missing,
    /// A system call failed.
    #[error("cannot start {PROGRAM}")]
    System(#[from] io::Error),
    /// It ended at once.
    #[error("{PROGRAM} ended at once: {output}")]
    Ended {
        /// What it printed.
        output: String,
    },
    /// It does not answer.
    #[error("{PROGRAM} does not answer within {} seconds", START_TIME.as_secs())]
    Silent,
}

/// A running `docker-registry` with a folder of its own.
#[derive(Debug)]
pub struct DebianRegistry {
    address: SocketAddr,
    child: Child,
    folder: TempDir,
}

impl DebianRegistry {
    /// Starts it and waits until it answers.
    pub fn start() -> Result<Self, StartError> {
        let mut last = StartError::Silent;
        for _ in 0..PORT_ATTEMPTS {
            match Self::start_once() {
                Err(error @ StartError::Ended { .. }) => last = error,
                other => return other,
            }
        }
        Err(last)
    }

    fn start_once() -> Result<Self, StartError> {
        let folder = tempfile::tempdir()?;
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let config = folder.path().join("config.yml");
        std::fs::write(&config, configuration(address, folder.path().join("data")))?;
        let output = std::fs::File::create(folder.path().join("output"))?;
        let child = Command::new(PROGRAM)
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => StartError::Missing,
                _ => StartError::System(error),
            })?;
        let mut registry = Self {
            address,
            child,
            folder,
        };
        registry.wait()?;
        Ok(registry)
    }

    fn wait(&mut self) -> Result<(), StartError> {
        let start = Instant::now();
        while start.elapsed() < START_TIME {
            if self.child.try_wait()?.is_some() {
                let output = std::fs::read_to_string(self.folder.path().join("output"));
                return Err(StartError::Ended {
                    output: output.unwrap_or_default(),
                });
            }
            if self.answers().unwrap_or(false) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(StartError::Silent)
    }

    fn answers(&self) -> io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /v2/ HTTP/1.0\r\n\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(answer.ends_with(b" 200"))
    }

    /// Gives `127.0.0.1:<port>`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Gives the file in which it logs every request that it has answered, in the combined
    /// log format.
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("output")
    }

    /// Gives the file of a blob, whether it is there or not.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        let (algorithm, hex) = (digest.algorithm().name(), digest.hex());
        let blobs = self.folder.path().join("data/docker/registry/v2/blobs");
        blobs.join(algorithm).join(&hex[..2]).join(hex).join("data")
    }

    /// Gives a repository of this registry; panics when `path` is not valid.
    pub fn repository(&self, path: &str) -> Repository {
        Repository::new(&self.host(), path).expect("a test names a valid repository")
    }

    /// Gives a name in this registry, from `path:tag`; panics when it is not valid.
    pub fn reference(&self, name: &str) -> Reference {
        format!("{}/{name}", self.host())
            .parse()
            .expect("a test names a valid reference")
    }
}

impl Drop for DebianRegistry {
    fn drop(&mut self) {
        // Both fail only when the child has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(address: SocketAddr, data: PathBuf) -> String {
    // JSON strings are YAML strings too, whatever the folder is called.
    let data = serde_json::Value::from(data.to_string_lossy().into_owned());
    format!(
        "version: 0.1\n\
         log:\n  level: warn\n\
         storage:\n  filesystem:\n    rootdirectory: {data}\n  delete:\n    enabled: true\n\
         http:\n  addr: {address}\n"
    )
}
