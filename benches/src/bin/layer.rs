//! Speed of the layer pipeline over a real directory: a walk, the canonical tar,
//! both digests, and the compression, written to a file; then the way back.
//!
//! `layer <directory> <scratch directory> [repetitions]` prints one line per setting:
//! megabytes of tar per second of wall time and per second of processor time, which a
//! busy machine disturbs less (best run), and the ratio.

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

/// Wall time and processor time.
#[derive(Clone, Copy)]
struct Spent {
    wall: Duration,
    processor: Duration,
}

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
    for _ in 0..repetitions {
        if dest.exists() {
            std::fs::remove_dir_all(&dest)?;
        }
        let options = unpack::Options::new(Identity::Real);
        let (time, layer) = timed(|| Ok(unpack::unpack(File::open(blob)?, &dest, &options)?))?;
        report("unpack", layer.uncompressed_size, time);
        bytes = layer.toc.to_bytes();
    }
    let (time, entries) = best(repetitions, || Ok(Toc::from_bytes(&bytes)?.entries().len()))?;
    let (size, wall) = (bytes.len(), time.wall);
    println!("table of {entries} entries, {size} bytes: loaded in {wall:?}");
    Ok(())
}

fn best<T>(repetitions: usize, mut run: impl FnMut() -> Outcome<T>) -> Outcome<(Spent, T)> {
    let mut fastest = timed(&mut run)?;
    for _ in 1..repetitions {
        let next = timed(&mut run)?;
        if next.0.wall < fastest.0.wall {
            fastest = next;
        }
    }
    Ok(fastest)
}

fn timed<T>(run: impl FnOnce() -> Outcome<T>) -> Outcome<(Spent, T)> {
    let (started, processor) = (Instant::now(), processor_time()?);
    let value = run()?;
    let spent = Spent {
        wall: started.elapsed(),
        processor: processor_time()? - processor,
    };
    Ok((spent, value))
}

/// Reads what all threads have used (proc(5), `/proc/pid/stat`, utime and stime).
fn processor_time() -> Outcome<Duration> {
    const TICKS_PER_SECOND: u64 = 100;
    let text = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = text.rsplit_once(')').ok_or("no end of the name")?;
    let mut ticks = 0;
    for field in fields.split_whitespace().skip(11).take(2) {
        ticks += field.parse::<u64>()?;
    }
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

fn report(name: &str, bytes: u64, time: Spent) {
    let per = |time: Duration| bytes as f64 / 1e6 / time.as_secs_f64();
    let (wall, processor) = (per(time.wall), per(time.processor));
    println!("{name:<40} {wall:>7.0} MB/s  {processor:>7.0} MB/s of one core");
}
