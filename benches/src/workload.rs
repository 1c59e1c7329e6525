//! The folders that are built: made here, the same bytes on every machine, or copied from
//! a folder of contexts.

use std::fs::{self, File, FileTimes};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};

/// 2023-11-14T22:13:20Z, the time of every file.
const MTIME: Duration = Duration::from_secs(1_700_000_000);
/// Where a line is changed, if the context has such a file.
const EDITABLE: [&str; 4] = [
    "app/main.py",
    "src/main.py",
    "tree/d00/file_00000.txt",
    "tree/d00/s00/file_00000.txt",
];

/// A context that is built.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
}

/// What differs between a quick run and a real one.
struct Sizes {
    files: u32,
    data_bytes: usize,
    sleep_seconds: &'static str,
}

const SMALL: Sizes = Sizes {
    files: 2_000,
    data_bytes: 16 << 20,
    sleep_seconds: "0.2",
};
const FULL: Sizes = Sizes {
    files: 20_000,
    data_bytes: 512 << 20,
    sleep_seconds: "2",
};

type Make = fn(&Path, &str, &Sizes) -> Result<()>;

const WORKLOADS: [(&str, Make); 6] = [
    ("copy", copy),
    ("install", install),
    ("files", files),
    ("data", data),
    ("stages", stages),
    ("runs", runs),
];

impl Workload {
    /// Changes one line of one file; tells whether there is a file for that.
    pub(crate) fn edit(&self, number: u32) -> Result<bool> {
        let candidates = EDITABLE.map(|path| self.folder.join(path));
        let Some(path) = candidates.iter().find(|path| path.is_file()) else {
            return Ok(false);
        };
        let mut text = fs::read_to_string(path)?;
        text.push_str(&format!("# edit {number}\n"));
        fs::write(path, text).with_context(|| format!("edit {}", path.display()))?;
        Ok(true)
    }

    /// Changes the text of the Dockerfile, which is as old as before.
    pub(crate) fn rewrite(&self, change: impl Fn(&str) -> String) -> Result<()> {
        let path = self.folder.join("Dockerfile");
        let text = fs::read_to_string(&path)?;
        let changed = change(&text);
        if changed != text {
            fs::write(&path, changed).with_context(|| format!("change {}", path.display()))?;
        }
        set_times(&path)
    }
}

/// Makes every wanted workload in a folder; `base` is the image in their FROM.
pub(crate) fn make(into: &Path, base: &str, only: &[String], full: bool) -> Result<Vec<Workload>> {
    let sizes = if full { &FULL } else { &SMALL };
    let mut made = Vec::new();
    for (name, make) in WORKLOADS {
        if is_wanted(name, only) {
            let folder = into.join(name);
            make(&folder, base, sizes).with_context(|| format!("make the workload {name}"))?;
            set_times(&folder)?;
            made.push(Workload {
                name: name.to_owned(),
                folder,
            });
        }
    }
    ensure!(!made.is_empty(), "no such workload");
    Ok(made)
}

/// Copies every wanted context below a folder, so that an edit does not change the original.
pub(crate) fn copy_from(from: &Path, into: &Path, only: &[String]) -> Result<Vec<Workload>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(from).with_context(|| format!("list {}", from.display()))?;
    for entry in entries {
        let source = entry?.path();
        let name = source.file_name().unwrap_or_default().to_string_lossy();
        if source.join("Dockerfile").is_file() && is_wanted(&name, only) {
            let folder = into.join(&*name);
            copy_tree(&source, &folder).with_context(|| format!("copy {}", source.display()))?;
            set_times(&folder)?;
            found.push(Workload {
                name: name.into_owned(),
                folder,
            });
        }
    }
    ensure!(!found.is_empty(), "no context in {}", from.display());
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn is_wanted(name: &str, only: &[String]) -> bool {
    only.is_empty() || only.iter().any(|only| only == name)
}

fn copy_tree(from: &Path, into: &Path) -> Result<()> {
    fs::create_dir_all(into)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = into.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_tree(&entry.path(), &target)?,
            false => {
                fs::copy(entry.path(), target)?;
            }
        }
    }
    Ok(())
}

/// Gives a folder and all that is in it the same time, so that a run finds what the last one found.
fn set_times(path: &Path) -> Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            set_times(&entry?.path())?;
        }
    }
    let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + MTIME);
    // Times can be set through a descriptor that only reads.
    Ok(File::open(path)?.set_times(times)?)
}

/// Twenty source files on a base: nothing runs.
fn copy(folder: &Path, base: &str, _: &Sizes) -> Result<()> {
    sources(&folder.join("src"), 20, 1)?;
    let text = format!("FROM {base}\nWORKDIR /app\nCOPY src/ /app/\nENV PORT=8080\n");
    write(&folder.join("Dockerfile"), text.as_bytes())
}

/// Dependencies first, then the program: what most services look like.
fn install(folder: &Path, base: &str, sizes: &Sizes) -> Result<()> {
    sources(&folder.join("app"), 30, 2)?;
    let count = sizes.files / 10;
    write(
        &folder.join("requirements.txt"),
        format!("{count}\n").as_bytes(),
    )?;
    let text = format!(
        "FROM {base}\nWORKDIR /app\nCOPY requirements.txt ./\n\
         RUN mkdir /packages && for i in $(seq $(cat requirements.txt)); do \
         mkdir /packages/$i && head -c 20000 /bin/busybox > /packages/$i/module; done\n\
         COPY app/ ./\nEXPOSE 8080\n"
    );
    write(&folder.join("Dockerfile"), text.as_bytes())
}

/// Many small files.
fn files(folder: &Path, base: &str, sizes: &Sizes) -> Result<()> {
    let mut random = Random(3);
    for number in 0..sizes.files {
        let path = format!("tree/d{:02}/file_{number:05}.txt", number % 20);
        let length = 200 + random.below(4_800);
        write(&folder.join(path), random.text(length).as_bytes())?;
    }
    let text = format!("FROM {base}\nCOPY tree/ /tree/\n");
    write(&folder.join("Dockerfile"), text.as_bytes())
}

/// Two large files: one that cannot be compressed, one that can.
fn data(folder: &Path, base: &str, sizes: &Sizes) -> Result<()> {
    const BLOCK: usize = 1 << 20;
    let mut random = Random(4);
    fs::create_dir_all(folder.join("data"))?;
    let mut noise = File::create(folder.join("data/random.bin"))?;
    let mut prose = File::create(folder.join("data/text.txt"))?;
    for _ in 0..sizes.data_bytes / BLOCK {
        noise.write_all(&random.bytes(BLOCK))?;
        prose.write_all(random.text(BLOCK).as_bytes())?;
    }
    let text = format!("FROM {base}\nCOPY data/ /data/\n");
    write(&folder.join("Dockerfile"), text.as_bytes())
}

/// Three stages that wait and one that works, none of which needs another.
fn stages(folder: &Path, base: &str, sizes: &Sizes) -> Result<()> {
    sources(&folder.join("src"), 40, 5)?;
    let mut text = String::new();
    for stage in ["one", "two", "three"] {
        let seconds = sizes.sleep_seconds;
        text +=
            &format!("FROM {base} AS {stage}\nRUN sleep {seconds} && echo {stage} > /{stage}\n");
    }
    text += &format!("FROM {base} AS builder\nCOPY src/ /src/\nRUN tar -czf /app.tar.gz /src\n");
    text += &format!("FROM {base}\nCOPY --from=builder /app.tar.gz /\n");
    for stage in ["one", "two", "three"] {
        text += &format!("COPY --from={stage} /{stage} /stages/\n");
    }
    write(&folder.join("Dockerfile"), text.as_bytes())
}

/// Twenty commands that do next to nothing.
fn runs(folder: &Path, base: &str, _: &Sizes) -> Result<()> {
    let mut text = format!("FROM {base}\n");
    for number in 1..=20 {
        text += &format!("RUN echo {number} > /file_{number:02}\n");
    }
    write(&folder.join("Dockerfile"), text.as_bytes())
}

/// Writes `count` modules and a main program.
fn sources(folder: &Path, count: u32, seed: u64) -> Result<()> {
    let mut random = Random(seed);
    for number in 0..count {
        let text = random.text(2_000);
        write(
            &folder.join(format!("module_{number:02}.py")),
            text.as_bytes(),
        )?;
    }
    write(&folder.join("main.py"), b"VERSION = \"1\"\n")
}

pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}

/// SplitMix64 (Steele, Lea and Flood, 2014): the same numbers everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..count.div_ceil(8))
            .flat_map(|_| self.next().to_le_bytes())
            .collect();
        bytes.truncate(count);
        bytes
    }

    /// Gives lines of words and numbers, which shrink to about a third.
    pub(crate) fn text(&mut self, length: usize) -> String {
        const WORDS: [&str; 16] = [
            "image", "layer", "return", "value", "index", "request", "build", "cache", "digest",
            "server", "file", "path", "mode", "owner", "import", "class",
        ];
        let mut text = String::with_capacity(length + 32);
        while text.len() < length {
            for _ in 0..4 + self.below(10) {
                text.push_str(WORDS[self.below(WORDS.len())]);
                text.push(' ');
            }
            text.push_str(&format!("{}\n", self.below(1_000_000)));
        }
        text.truncate(length);
        text
    }
}
