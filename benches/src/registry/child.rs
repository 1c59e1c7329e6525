//! What runs in processes of their own: the clients that are measured, and servers.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use ocibuild_registry::server::{self, Store};
use ocibuild_registry::{BlobSource, Client, Descriptor, Digest, Progress, Repository, media_type};
use tokio::net::TcpListener;

use super::{CHILD, sink};

/// Does what the arguments after [`CHILD`] say.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Runtime::new()?;
    match words[..] {
        ["serve", folder] => runtime.block_on(serve(Path::new(folder))),
        ["sink", _] => runtime.block_on(serve_sink()),
        [verb, repository, digest, size, file] => {
            let blob = Descriptor::new(media_type::LAYER_TAR, digest.parse()?, size.parse()?);
            let (repository, file) = (repository.parse()?, Path::new(file));
            runtime.block_on(transfer(verb, &repository, &blob, file))
        }
        _ => bail!("no such process: {arguments:?}"),
    }
}

async fn transfer(
    verb: &str,
    repository: &Repository,
    blob: &Descriptor,
    file: &Path,
) -> Result<()> {
    let (client, none) = (client()?, Progress::none());
    match verb {
        "push" => {
            let source = BlobSource::File(file.to_owned());
            let pushed = client.push_blob(repository, blob, &source, &[], &none);
            pushed.await?;
        }
        _ => {
            client.download_blob(repository, blob, file, &none).await?;
        }
    }
    Ok(())
}

fn client() -> Result<Client> {
    Ok(Client::builder().build()?)
}

/// Serves until standard input ends, which is when the parent does.
async fn serve(folder: &Path) -> Result<()> {
    let listener = announced().await?;
    let store = Store::open(folder)?;
    server::serve(listener, store, parent_is_gone()).await?;
    Ok(())
}

async fn serve_sink() -> Result<()> {
    sink::serve(announced().await?, parent_is_gone()).await
}

async fn announced() -> Result<TcpListener> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    Ok(listener)
}

async fn parent_is_gone() {
    let read = || std::io::stdin().read_to_end(&mut Vec::new());
    // However it ends, there is nobody left to serve.
    let _ = tokio::task::spawn_blocking(read).await;
}

/// A server in a process of its own, which ends with this.
pub(super) struct Served {
    child: Child,
    pub(super) host: String,
}

impl Served {
    pub(super) fn start(verb: &str, folder: &Path) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([CHILD, verb])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start a registry")?;
        let mut host = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut host)?;
        }
        let host = host.trim_end().to_owned();
        if host.is_empty() {
            bail!("the registry has ended: {}", child.wait()?);
        }
        Ok(Self { child, host })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // Connections that are open do not count any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Begins an upload by hand; gives the URL to send it to.
pub(super) fn begin(repository: &Repository, digest: &Digest) -> Result<String> {
    let (host, path) = (repository.registry(), repository.path());
    let base = format!("http://{host}");
    let begun = super::curl()
        .args(["-X", "POST", "-o", "/dev/null", "-D", "-"])
        .arg(format!("{base}/v2/{path}/blobs/uploads/"))
        .output()
        .context("start curl")?;
    let headers = String::from_utf8_lossy(&begun.stdout).into_owned();
    let location = headers.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("location").then(|| value.trim())
    });
    let location = location.context("no Location")?;
    let url = match location.starts_with('/') {
        true => format!("{base}{location}"),
        false => location.to_owned(),
    };
    let separator = if url.contains('?') { '&' } else { '?' };
    Ok(format!("{url}{separator}digest={digest}"))
}

/// Tells whether a registry has a blob.
pub(super) fn has(repository: &Repository, digest: &Digest) -> Result<bool> {
    let runtime = tokio::runtime::Runtime::new()?;
    Ok(runtime.block_on(client()?.exists(repository, digest))?)
}
