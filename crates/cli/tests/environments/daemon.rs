//! A Docker daemon of our own, which is ended with the tests that need it.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where distributions have it; `PATH` of a user may not lead there.
const DAEMONS: &[&str] = &["/usr/sbin/dockerd", "/usr/bin/dockerd"];
/// After this it does not start any more.
const LONGEST: Duration = Duration::from_secs(60);
const IMAGE: &str = "ocibuild-environment";

/// A daemon with an image of the static command.
pub(crate) struct Daemon {
    child: Child,
    socket: PathBuf,
}

impl Daemon {
    /// Tells whether this machine has one.
    pub(crate) fn is_there() -> bool {
        DAEMONS.iter().any(|path| Path::new(path).is_file())
    }

    /// Starts it with folders below the given one, or says why it does not run here.
    pub(crate) fn start(folder: &Path, program: &Path) -> Result<Self, String> {
        fs::create_dir(folder).unwrap();
        let daemon = DAEMONS.iter().find(|path| Path::new(path).is_file());
        let socket = folder.join("socket");
        let log = File::create(folder.join("log")).unwrap();
        let path = |name: &str| folder.join(name);
        let mut command = Command::new(daemon.expect("a Docker daemon"));
        command
            .arg("--host")
            .arg(format!("unix://{}", socket.display()))
            .arg("--data-root")
            .arg(path("data"))
            .arg("--exec-root")
            .arg(path("exec"))
            .arg("--pidfile")
            .arg(path("pid"))
            // What is no file of our own stays as it is.
            .args(["--iptables=false", "--ip6tables=false", "--bridge=none"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let child = command.spawn().unwrap();
        let mut daemon = Self { child, socket };
        daemon.wait(folder)?;
        daemon.import(program);
        Ok(daemon)
    }

    fn wait(&mut self, folder: &Path) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            let mut ping = self.client();
            ping.arg("version")
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            if ping.status().unwrap().success() {
                return Ok(());
            }
            let ended = self.child.try_wait().unwrap().is_some();
            if ended || begun.elapsed() > LONGEST {
                let log = fs::read_to_string(folder.join("log")).unwrap();
                let lines: Vec<&str> = log.lines().rev().take(3).collect();
                return Err(format!("dockerd does not start: {}", lines.join("; ")));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// An image that has the program and nothing else.
    fn import(&self, program: &Path) {
        let mut client = self.client();
        client.args(["import", "-", IMAGE]).stdin(Stdio::piped());
        let mut client = client.stdout(Stdio::null()).spawn().unwrap();
        let mut tar = tar::Builder::new(client.stdin.take().unwrap());
        let mut file = File::open(program).unwrap();
        tar.append_file("ocibuild", &mut file).unwrap();
        tar.into_inner().unwrap().flush().unwrap();
        assert!(client.wait().unwrap().success());
    }

    /// The client, which speaks to this daemon only.
    pub(crate) fn client(&self) -> Command {
        let mut command = Command::new("docker");
        command
            .env("DOCKER_HOST", format!("unix://{}", self.socket.display()))
            .env("DOCKER_CONFIG", self.socket.with_file_name("client"))
            .stdin(Stdio::null());
        command
    }

    /// The image with the program.
    pub(crate) fn image(&self) -> &'static str {
        IMAGE
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It ends its containers, and the containerd that it has started.
        let pid = self.child.id().to_string();
        let asked = Command::new("kill").arg(&pid).status();
        if asked.is_ok_and(|status| status.success()) {
            let _ = self.child.wait();
        }
        // It leaves the network of `--network=host` mounted, and the folder could not go.
        let network = self.socket.with_file_name("exec/netns/default");
        let _ = Command::new("umount")
            .arg(network)
            .stderr(Stdio::null())
            .status();
    }
}
