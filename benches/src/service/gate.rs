//! A place where a build waits until it is let through: its command connects to a port of
//! this machine and reads until the connection ends.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// How long a build may take to its gate. A build of a killed replica comes after its lease.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(1);

/// A gate that is closed.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    listener: Arc<TcpListener>,
    port: u16,
}

/// A build that waits; it goes on when this is dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// When it came.
    pub(crate) since: Instant,
    connection: TcpStream,
}

impl Gate {
    pub(crate) fn close() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("make a gate")?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        Ok(Self {
            listener: Arc::new(listener),
            port,
        })
    }

    /// Gives the shell command that waits here.
    pub(crate) fn command(&self) -> String {
        format!("nc 127.0.0.1 {} < /dev/null", self.port)
    }

    /// Waits for a build, on a thread of its own: what else goes on in this program must not
    /// change the time.
    pub(crate) async fn reached(&self) -> Result<Waiting> {
        let gate = self.clone();
        tokio::task::spawn_blocking(move || gate.accept()).await?
    }

    fn accept(&self) -> Result<Waiting> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.listener.accept() {
                Ok((connection, _)) => {
                    return Ok(Waiting {
                        since: Instant::now(),
                        connection,
                    });
                }
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error.into()),
                Err(_) if Instant::now() > deadline => bail!("no build came to its gate"),
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }
}

impl Waiting {
    /// Waits until the build is gone without having been let through; gives the moment.
    pub(crate) async fn gone(self) -> Result<Instant> {
        tokio::task::spawn_blocking(move || {
            let mut connection = self.connection;
            connection.set_nonblocking(false)?;
            connection.set_read_timeout(Some(PATIENCE))?;
            match io::Read::read(&mut connection, &mut [0]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    bail!("the build of a killed replica is still there")
                }
                _ => Ok(Instant::now()),
            }
        })
        .await?
    }
}
