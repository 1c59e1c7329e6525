//! Debian's nginx as a child process, before a registry or a service: what a proxy lets
//! through, and what it refuses.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const PROGRAM: &str = "/usr/sbin/nginx";
const START_TIME: Duration = Duration::from_secs(20);

/// A running nginx on a free port of the loopback interface, with a folder of its own.
#[derive(Debug)]
pub struct Nginx {
    address: String,
    child: Child,
    folder: TempDir,
}

/// A request that nginx has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// The method.
    pub method: String,
    /// The status of the answer.
    pub status: u16,
    /// Bytes of the request's body, as its header says; 0 without one.
    pub length: u64,
    /// Whether the client had a certificate that is known, as nginx words it.
    pub verified: String,
}

impl Nginx {
    /// Starts nginx with one server, which passes everything on to `registry`
    /// (`host:port`) by these settings; none where it is not installed.
    pub fn before(registry: &str, settings: &str) -> io::Result<Option<Self>> {
        Self::start("", &Self::pass_all(registry, settings))
    }

    /// Gives the text of a location that passes everything on to `registry`.
    pub fn pass_all(registry: &str, settings: &str) -> String {
        format!(
            "location / {{
                 proxy_pass http://{registry};
                 proxy_set_header Host $http_host;
                 {settings}
             }}"
        )
    }

    /// Starts nginx with one server that has these settings beside its address, for which
    /// `listen` has the options; none where it is not installed.
    pub fn start(listen: &str, server: &str) -> io::Result<Option<Self>> {
        if !Path::new(PROGRAM).exists() {
            return Ok(None);
        }
        let folder = tempfile::tempdir()?;
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = free.local_addr()?.to_string();
        drop(free);
        let file = folder.path().join("nginx.conf");
        let server = format!("listen {address} {listen}; {server}");
        std::fs::write(&file, configuration(folder.path(), &server))?;
        let child = Command::new(PROGRAM)
            .arg("-p")
            .arg(folder.path())
            .arg("-e")
            .arg(folder.path().join("error.log"))
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()?;
        let mut nginx = Self {
            address,
            child,
            folder,
        };
        nginx.wait()?;
        Ok(Some(nginx))
    }

    fn wait(&mut self) -> io::Result<()> {
        let start = Instant::now();
        while TcpStream::connect(&self.address).is_err() {
            if start.elapsed() > START_TIME || self.child.try_wait()?.is_some() {
                let log = std::fs::read_to_string(self.folder.path().join("error.log"));
                let log = log.unwrap_or_default();
                return Err(io::Error::other(format!("nginx does not answer: {log}")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Gives `127.0.0.1:<port>`.
    pub fn host(&self) -> &str {
        &self.address
    }

    /// Gives the requests that have been answered so far.
    pub fn requests(&self) -> io::Result<Vec<Passed>> {
        let log = std::fs::read_to_string(self.folder.path().join("access.log"))?;
        Ok(log.lines().filter_map(passed).collect())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end when their master is asked to end, not when it is killed.
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let _ = self.child.wait();
    }
}

/// Reads a line of the log in the format below.
fn passed(line: &str) -> Option<Passed> {
    let mut words = line.split(' ');
    Some(Passed {
        method: words.next()?.to_owned(),
        status: words.next()?.parse().ok()?,
        length: words.next()?.parse().unwrap_or(0),
        verified: words.next()?.to_owned(),
    })
}

fn configuration(folder: &Path, server: &str) -> String {
    let place = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {place}/{name};\n"))
        .concat();
    format!(
        "daemon off; worker_processes 1; pid {place}/pid; error_log {place}/error.log;
         events {{}}
         http {{
             log_format short '$request_method $status $content_length $ssl_client_verify';
             access_log {place}/access.log short;
             {temporary}
             server {{
                 {server}
             }}
         }}"
    )
}
