//! Debian's `docker-registry` behind Debian's nginx, which takes no body above 1 MiB.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ocibuild_registry::testing::{DebianRegistry, StartError};
use ocibuild_registry::{BlobOutcome, Error, Progress, Reference, Repository};
use tempfile::TempDir;

use crate::line::Line;
use crate::support::{blob, client, image, skip};

pub(crate) const PROGRAM: &str = "/usr/sbin/nginx";

pub(crate) struct Nginx {
    folder: TempDir,
    child: Child,
    pub(crate) address: String,
}

impl Nginx {
    /// Starts nginx before a registry, with settings of how it listens, of its only server and
    /// of its only location.
    pub(crate) fn start(registry: &str, listen: &str, server: &str, location: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let file = folder.path().join("nginx.conf");
        let listen = format!("listen {address} {listen}; {server}");
        let text = configuration(folder.path(), &listen, registry, location);
        std::fs::write(&file, text).unwrap();
        let child = Command::new(PROGRAM)
            .arg("-p")
            .arg(folder.path())
            .arg("-e")
            .arg(folder.path().join("error.log"))
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let nginx = Self {
            folder,
            child,
            address,
        };
        nginx.wait();
        nginx
    }

    fn wait(&self) {
        let start = Instant::now();
        while TcpStream::connect(&self.address).is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "nginx is silent");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Gives of the requests so far whether the client had a certificate that is known.
    pub(crate) fn verified(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.folder.path().join("access.log")).unwrap();
        let last = |line: &str| line.rsplit(' ').next().unwrap_or_default().to_owned();
        log.lines().map(last).collect()
    }

    fn reference(&self, name: &str) -> Reference {
        format!("{}/{name}", self.address).parse().unwrap()
    }

    /// Gives method, status and body length of the requests so far.
    fn requests(&self) -> Vec<(String, u16, u64)> {
        let log = std::fs::read_to_string(self.folder.path().join("access.log")).unwrap();
        log.lines()
            .map(|line| {
                let mut words = line.split(' ');
                let mut word = || words.next().unwrap().to_owned();
                let (method, status) = (word(), word().parse().unwrap());
                (method, status, word().parse().unwrap_or(0))
            })
            .collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end when their master asks them to.
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let _ = self.child.wait();
    }
}

fn configuration(folder: &Path, server: &str, registry: &str, settings: &str) -> String {
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
                 location / {{
                     proxy_pass http://{registry};
                     proxy_set_header Host $http_host;
                     {settings}
                 }}
             }}
         }}"
    )
}

/// None, with the reason said, where a program is missing.
fn start(settings: &str) -> Option<(DebianRegistry, Nginx)> {
    let registry = match DebianRegistry::start() {
        Ok(registry) => registry,
        Err(StartError::Missing) => {
            skip("docker-registry is not installed");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    if !Path::new(PROGRAM).exists() {
        skip("nginx is not installed");
        return None;
    }
    let nginx = Nginx::start(&registry.host(), "", "", settings);
    Some((registry, nginx))
}

#[tokio::test]
async fn an_image_passes_a_proxy_that_takes_a_mebibyte_at_a_time() {
    for settings in [
        "client_max_body_size 1m;",
        "client_max_body_size 1m; proxy_request_buffering off;",
    ] {
        let Some((registry, nginx)) = start(settings) else {
            return;
        };
        let mut image = image(220, &[12_000_000, 7_000_000, 1_000_000]);
        image.concurrency = 1;
        let client = client();
        let pushed = client
            .push_image(&nginx.reference("team/app:v1"), &image, &Progress::none())
            .await
            .unwrap_or_else(|error| panic!("{}: {:?}", error.reason(), nginx.requests()));
        assert!(pushed.sent >= 20_000_000);

        // The registry itself has it, whole.
        let there = registry.reference("team/app:v1");
        let folder = tempfile::tempdir().unwrap();
        for layer in &image.layers {
            let file = folder.path().join(layer.descriptor.digest.to_string());
            let none = Progress::none();
            client
                .download_blob(there.repository(), &layer.descriptor, &file, &none)
                .await
                .unwrap();
        }
        // Only the first layer had to learn the size: 12 MB, and steps of 4 MiB each.
        let requests = nginx.requests();
        let refused = requests.iter().filter(|(_, status, _)| *status == 413);
        assert_eq!(refused.count(), 2, "{requests:?}");
        let chunks =
            |(method, status, _): &&(String, u16, u64)| method == "PATCH" && *status == 202;
        let lengths: Vec<u64> = requests.iter().filter(chunks).map(|r| r.2).collect();
        assert_eq!(lengths.iter().sum::<u64>(), 19_000_000);
        assert_eq!(lengths.len(), 12 + 7);
    }
}

#[tokio::test]
async fn a_limit_of_less_than_a_chunk_is_told() {
    let Some((_registry, nginx)) = start("client_max_body_size 100k;") else {
        return;
    };
    let image = image(221, &[3_000_000]);
    let error = client()
        .push_image(&nginx.reference("app:v1"), &image, &Progress::none())
        .await
        .unwrap_err();
    let reason = error.reason();
    assert!(reason.contains("(\"nginx"), "{reason}");
    assert!(reason.contains("as this one of 262144 bytes"), "{reason}");
}

#[tokio::test]
#[expect(clippy::print_stderr, reason = "the figures are of interest")]
async fn a_line_that_breaks_before_a_proxy_costs_little() {
    let Some((_registry, nginx)) = start("client_max_body_size 1m;") else {
        return;
    };
    let every = 4 << 20;
    let line = Line::start(&nginx.address, every, u64::MAX).await;
    let repository = Repository::new(&line.address, "app").unwrap();
    let (client, none) = (client(), Progress::none());
    // The first blob finds out what nginx takes; only the second is counted.
    let (descriptor, source) = blob(225, 2_000_000);
    client
        .push_blob(&repository, &descriptor, &source, &[], &none)
        .await
        .unwrap();
    let before = line.carried();
    let size = 24_000_000;
    let (descriptor, source) = blob(222, size);
    let outcome = client
        .push_blob(&repository, &descriptor, &source, &[], &none)
        .await;
    assert_eq!(outcome.unwrap(), BlobOutcome::Uploaded);
    let share = (line.carried() - before) as f64 / size as f64;
    let percent = share * 100.0;
    eprintln!("a break every {every} bytes before nginx: {percent:.1} % of {size} bytes");
    assert!(share < 1.1, "{share}");
}

#[tokio::test]
async fn one_break_is_got_over_where_the_registry_forgets_the_session() {
    let registry = match DebianRegistry::start() {
        Ok(registry) => registry,
        Err(StartError::Missing) => return skip("docker-registry is not installed"),
        Err(error) => panic!("{error}"),
    };
    let client = client();
    let line = Line::start(&registry.host(), 7_000_000, 1).await;
    let (descriptor, source) = blob(223, 20_000_000);
    let repository = Repository::new(&line.address, "app").unwrap();
    let none = Progress::none();
    let outcome = client
        .push_blob(&repository, &descriptor, &source, &[], &none)
        .await;
    assert_eq!(outcome.unwrap(), BlobOutcome::Uploaded);
    let there = registry.repository("app");
    assert!(client.exists(&there, &descriptor.digest).await.unwrap());

    // One that never lets the blob through ends with an error, and soon.
    let line = Line::start(&registry.host(), 3_000_000, u64::MAX).await;
    let (descriptor, source) = blob(224, 20_000_000);
    let repository = Repository::new(&line.address, "app").unwrap();
    let error = client
        .push_blob(&repository, &descriptor, &source, &[], &none)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::GaveUp { .. }), "{error}");
}
