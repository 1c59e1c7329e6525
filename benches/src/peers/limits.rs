//! What the machine can do at best, with the tools that a build uses: what a figure of a build
//! is to be held against.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use ocibuild::layer::{Compression, EntryMeta, Kind, LayerWriter, Options, TreePath};
use ocibuild_registry::Hasher;

use crate::workload::Random;

/// A limit and how much it is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Limit {
    pub(crate) what: String,
    pub(crate) megabytes_per_second: f64,
}

/// Measures every limit; `work` is the folder in which stores are.
pub(crate) fn measure(work: &Path, full: bool) -> Result<Vec<Limit>> {
    let size = if full { 256 << 20 } else { 16 << 20 };
    let text = Random::new(7).text(size).into_bytes();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut limits = Vec::new();
    let mut add = |what: &str, seconds: f64| {
        limits.push(Limit {
            what: what.to_owned(),
            megabytes_per_second: size as f64 / 1e6 / seconds,
        });
    };
    add("SHA-256, one core", timed(|| hash(&text))?);
    for (name, compression) in [("gzip", Compression::Gzip), ("zstd", Compression::Zstd)] {
        for threads in [1, cores] {
            let seconds = timed(|| pack(&text, compression, threads))?;
            add(
                &format!("tar, {name} and both digests, {threads} threads"),
                seconds,
            );
        }
    }
    add(
        "write and fsync in the folder of the stores",
        timed(|| write(work, &text))?,
    );
    add("loopback, one connection", timed(|| send(&text))?);
    Ok(limits)
}

/// The best of three.
fn timed(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let begun = Instant::now();
        work()?;
        best = best.min(begun.elapsed().as_secs_f64());
    }
    Ok(best)
}

fn hash(bytes: &[u8]) -> Result<()> {
    let mut hasher = Hasher::sha256();
    hasher.update(bytes);
    std::hint::black_box(hasher.finish());
    Ok(())
}

fn pack(bytes: &[u8], compression: Compression, threads: usize) -> Result<()> {
    let options = Options {
        compression,
        threads,
        ..Options::default()
    };
    let mut layer = LayerWriter::new(options, io::sink())?;
    let meta = EntryMeta {
        path: TreePath::parse(b"file")?,
        kind: Kind::File(bytes.len() as u64),
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: 0,
        xattrs: Vec::new(),
    };
    layer.append(&meta, Some(&mut &*bytes))?;
    layer.finish()?;
    Ok(())
}

fn write(work: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(work)?;
    file.write_all(bytes)?;
    Ok(file.as_file().sync_all()?)
}

fn send(bytes: &[u8]) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    std::thread::scope(|scope| {
        let received = scope.spawn(move || -> io::Result<u64> {
            let (mut stream, _) = listener.accept()?;
            let mut buffer = vec![0; 256 << 10];
            let mut received = 0;
            loop {
                match stream.read(&mut buffer)? {
                    0 => return Ok(received),
                    count => received += count as u64,
                }
            }
        });
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(bytes)?;
        drop(stream);
        let received = received
            .join()
            .ok()
            .context("the receiver has panicked")??;
        anyhow::ensure!(received == bytes.len() as u64, "bytes are lost on loopback");
        Ok(())
    })
}

/// Gives the processor and the kernel.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let read = |path: &str| {
        let mut text = String::new();
        let read = File::open(path).and_then(|mut file| file.read_to_string(&mut text));
        read.map_or_else(|_| String::new(), |_| text)
    };
    let model = read("/proc/cpuinfo");
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("", |model| model.trim_start_matches(['\t', ' ', ':']));
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{cores} cores ({model}), Linux {}", kernel.trim())
}
