//! Speed of the layer pipeline over a real directory: a walk, the canonical tar,
//! both digests, and the compression, written to a file; then the way back.
//!
//! `layer <directory> <scratch directory> [repetitions]` prints one line per setting:
//! megabytes of tar per second of wall time (best run) and the ratio.

#![expect(clippy::print_stdout, reason = "a program that prints its figures")]

use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use ocibuild::executor::Identity;
use ocibuild::layer::{
    Compression, Encoding, Finished, LayerWriter, Limits, Options, Toc, read_layer,
};
use ocibuild::snapshot::{RootView, diff, unpack};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, scratch, rest @ ..] = &arguments[..] else {
        return Err("want: layer <directory> <scratch directory> [repetitions]".into());
    };
    let repetitions = rest.first().map_or(Ok(3), |text| text.parse())?;
    let (directory, scratch) = (Path::new(directory), Path::new(scratch));
    let blob = scratch.join("layer.blob");
    for (compression, level) in [
        (Compression::None, None),
        (Compression::Gzip, Some(1)),
        (Compression::Gzip, None),
        (Compression::Zstd, None),
    ] {
        for threads in [1, 2] {
            let options = Options {
                compression,
                level,
                threads,
                clamp_mtime: None,
            };
            let (time, finished) = best(repetitions, || write(directory, &blob, &options))?;
            let ratio = finished.uncompressed_size as f64 / finished.size as f64;
            let name = format!("write {compression:?} {level:?} threads={threads}");
            report(&name, finished.uncompressed_size, time);
            println!(
                "    ratio {ratio:.3}, {} entries",
                finished.toc.entries().len()
            );
        }
        let open = || -> Outcome<u64> {
            let file = File::open(&blob)?;
            let layer = read_layer(file, Encoding::Detect, &Limits::default(), &mut ())?;
            Ok(layer.uncompressed_size)
        };
        let (time, size) = best(repetitions, open)?;
        report(&format!("read  {compression:?}"), size, time);
    }
    measure_unpack(&blob, scratch, repetitions)
}

fn write(directory: &Path, blob: &Path, options: &Options) -> Outcome<Finished> {
    let mut layer = LayerWriter::new(options.clone(), File::create(blob)?)?;
    let walk = diff::Options::new(Identity::Real);
    diff::diff(directory, &RootView::new(&[]), &walk, &mut layer)?;
    Ok(layer.finish()?.0)
}

fn measure_unpack(blob: &Path, scratch: &Path, repetitions: usize) -> Outcome<()> {
    let dest = scratch.join("tree");
    let mut bytes = Vec::new();
    let unpacked = best(repetitions, || {
        if dest.exists() {
            std::fs::remove_dir_all(&dest)?;
        }
        let started = Instant::now();
        let options = unpack::Options::new(Identity::Real);
        let layer = unpack::unpack(File::open(blob)?, &dest, &options)?;
        bytes = layer.toc.to_bytes();
        Ok((started.elapsed(), layer.uncompressed_size))
    })?;
    let (_, (time, size)) = unpacked;
    report("unpack", size, time);
    let (time, entries) = best(repetitions, || Ok(Toc::from_bytes(&bytes)?.entries().len()))?;
    println!(
        "table of {entries} entries, {} bytes: loaded in {time:?}",
        bytes.len()
    );
    Ok(())
}

fn best<T>(repetitions: usize, run: impl FnMut() -> Outcome<T>) -> Outcome<(Duration, T)> {
    let mut run = run;
    let mut timed = || {
        let started = Instant::now();
        run().map(|value| (started.elapsed(), value))
    };
    let mut fastest = timed()?;
    for _ in 1..repetitions {
        let next = timed()?;
        if next.0 < fastest.0 {
            fastest = next;
        }
    }
    Ok(fastest)
}

fn report(name: &str, bytes: u64, time: Duration) {
    let speed = bytes as f64 / 1e6 / time.as_secs_f64();
    println!("{name:<40} {speed:>7.0} MB/s  {time:?}");
}
