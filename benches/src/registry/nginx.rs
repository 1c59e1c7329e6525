//! nginx before a registry, as operators have it: it takes no large bodies and does not wait.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tempfile::TempDir;

const PROGRAM: &str = "/usr/sbin/nginx";
const START_TIME: Duration = Duration::from_secs(20);

/// A running nginx.
pub(super) struct Nginx {
    child: Child,
    pub(super) address: String,
    _folder: TempDir,
}

impl Nginx {
    /// Starts it with a limit of bodies; none where it is not installed.
    pub(super) fn start(registry: &str, limit: &str) -> Result<Option<Self>> {
        if !Path::new(PROGRAM).exists() {
            eprintln!("skipped: nginx is not installed");
            return Ok(None);
        }
        let folder = TempDir::new()?;
        let free = TcpListener::bind("127.0.0.1:0")?;
        let address = free.local_addr()?.to_string();
        drop(free);
        let file = folder.path().join("nginx.conf");
        std::fs::write(
            &file,
            configuration(folder.path(), &address, registry, limit),
        )?;
        let child = Command::new(PROGRAM)
            .arg("-p")
            .arg(folder.path())
            .arg("-e")
            .arg(folder.path().join("error.log"))
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()?;
        let nginx = Self {
            child,
            address,
            _folder: folder,
        };
        let start = Instant::now();
        while TcpStream::connect(&nginx.address).is_err() {
            if start.elapsed() > START_TIME {
                bail!("nginx is silent");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Some(nginx))
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

fn configuration(folder: &Path, address: &str, registry: &str, limit: &str) -> String {
    let place = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {place}/{name};\n"))
        .concat();
    format!(
        "daemon off; worker_processes 1; pid {place}/pid; error_log {place}/error.log;
         events {{}}
         http {{
             access_log off;
             {temporary}
             client_body_timeout 60s;
             server {{
                 listen {address};
                 location / {{
                     proxy_pass http://{registry};
                     proxy_set_header Host $http_host;
                     proxy_read_timeout 60s;
                     proxy_send_timeout 60s;
                     client_max_body_size {limit};
                 }}
             }}
         }}"
    )
}
