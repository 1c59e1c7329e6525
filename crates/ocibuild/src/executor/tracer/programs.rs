//! What the kernel is told to execute in place of a file of the root.
//!
//! The kernel looks for a program's loader by the name in the program, from the machine's
//! root, where another one is or none. So it gets a copy whose program header PT_INTERP
//! points to another name, appended at the end of the file: that of the root's own loader
//! as it is called on the machine. The address at which the loader itself finds the name
//! stays the same, so it goes on to call itself as the program does.
//!
//! ```text
//! <folder>/17/program        a copy with another loader's name
//!          17/sh -> program  under the name by which it was called, which becomes the thread's
//!          18/ls -> <root>/bin/busybox
//! ```
//!
//! The folder belongs to one command; the command can read and execute what is in it.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::ioctl_ficlone;

use super::elf::Interpreter;
use crate::executor::supervisor;

/// Name of a copy.
const COPY: &str = "program";

/// A file at a moment: it is another one when it was written to or replaced.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Version {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Version {
    fn of(file: &File) -> io::Result<Self> {
        let stat = file.metadata()?;
        Ok(Self {
            device: stat.dev(),
            inode: stat.ino(),
            size: stat.size(),
            modified: (stat.mtime(), stat.mtime_nsec()),
            changed: (stat.ctime(), stat.ctime_nsec()),
        })
    }
}

/// Which copies there are of what; asked by whoever answers for `/proc/self/exe`.
#[derive(Debug, Clone, Default)]
pub(in crate::executor) struct Originals(Arc<Mutex<HashMap<PathBuf, PathBuf>>>);

impl supervisor::Originals for Originals {
    fn of(&self, copy: &Path) -> Option<PathBuf> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(copy).cloned()
    }
}

impl Originals {
    fn add(&self, copy: PathBuf, original: PathBuf) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(copy, original);
    }
}

/// The folder of copies.
#[derive(Debug)]
pub(super) struct Programs {
    folder: PathBuf,
    originals: Originals,
    /// Number of the folder of a copy, by what it is a copy of and the loader's name in it.
    copies: HashMap<(Version, PathBuf), u64>,
    /// Number of the folder of names for a file that needs no copy.
    plain: HashMap<PathBuf, u64>,
    /// Names that were made.
    names: HashMap<(u64, OsString), PathBuf>,
    next: u64,
}

impl Programs {
    /// Begins with a folder that is empty.
    pub(super) fn new(folder: PathBuf, originals: Originals) -> Self {
        Self {
            folder,
            originals,
            copies: HashMap::new(),
            plain: HashMap::new(),
            names: HashMap::new(),
            next: 0,
        }
    }

    /// A path for a program that is in the root as it is at `path`, called `name`.
    pub(super) fn plain(&mut self, path: &Path, name: &OsStr) -> io::Result<PathBuf> {
        if path.file_name() == Some(name) {
            return Ok(path.to_owned());
        }
        let number = match self.plain.get(path) {
            Some(number) => *number,
            None => {
                let number = self.make_folder()?;
                self.plain.insert(path.to_owned(), number);
                number
            }
        };
        self.named(number, name, path)
    }

    /// A path for a program that is not in the root any more, or never was: a file in memory.
    pub(super) fn nameless(&mut self, file: &File, name: &OsStr) -> io::Result<PathBuf> {
        let key = (Version::of(file)?, PathBuf::new());
        let number = match self.copies.get(&key) {
            Some(number) => *number,
            None => {
                let number = self.make_folder()?;
                copy(file, &self.copy_of(number))?;
                self.copies.insert(key, number);
                number
            }
        };
        self.named(number, name, Path::new(COPY))
    }

    /// A path for a program with another loader; `original` is where it is in the root, if
    /// it is there.
    pub(super) fn dynamic(
        &mut self,
        file: &File,
        original: Option<&Path>,
        place: &Interpreter,
        loader: &Path,
        name: &OsStr,
    ) -> io::Result<PathBuf> {
        let key = (Version::of(file)?, loader.to_owned());
        let number = match self.copies.get(&key) {
            Some(number) => *number,
            None => {
                let number = self.make_folder()?;
                let made = self.copy_of(number);
                redirect(&copy(file, &made)?, place, loader)?;
                if let Some(original) = original {
                    self.originals.add(made, original.to_owned());
                }
                self.copies.insert(key, number);
                number
            }
        };
        self.named(number, name, Path::new(COPY))
    }

    fn make_folder(&mut self) -> io::Result<u64> {
        let number = self.next;
        self.next += 1;
        fs::create_dir(self.folder.join(number.to_string()))?;
        Ok(number)
    }

    fn copy_of(&self, number: u64) -> PathBuf {
        self.folder.join(number.to_string()).join(COPY)
    }

    fn named(&mut self, number: u64, name: &OsStr, target: &Path) -> io::Result<PathBuf> {
        let key = (number, name.to_owned());
        if let Some(path) = self.names.get(&key) {
            return Ok(path.clone());
        }
        let path = self.folder.join(number.to_string()).join(name);
        if target != Path::new(name) {
            symlink(target, &path)?;
        }
        self.names.insert(key, path.clone());
        Ok(path)
    }
}

/// Makes a copy that can be executed; the data are shared where the file system can.
fn copy(file: &File, to: &Path) -> io::Result<File> {
    let made = File::options()
        .write(true)
        .create_new(true)
        .mode(0o700)
        .open(to)?;
    if ioctl_ficlone(&made, file).is_err() {
        let mut offset = 0;
        let size = file.metadata()?.size();
        while offset < size {
            let rest = usize::try_from(size - offset).unwrap_or(usize::MAX);
            match rustix::fs::copy_file_range(file, Some(&mut offset), &made, None, rest) {
                // It became shorter meanwhile.
                Ok(0) => break,
                Ok(_) => {}
                // Kernels and file systems differ in what they copy between.
                Err(_) => return copy_by_hand(file, offset, made),
            }
        }
    }
    Ok(made)
}

fn copy_by_hand(file: &File, mut offset: u64, made: File) -> io::Result<File> {
    let mut chunk = vec![0; 1 << 17];
    loop {
        let length = file.read_at(&mut chunk, offset)?;
        if length == 0 {
            return Ok(made);
        }
        made.write_all_at(chunk.get(..length).unwrap_or_default(), offset)?;
        offset += length as u64;
    }
}

/// Lets a program name another loader.
fn redirect(program: &File, place: &Interpreter, loader: &Path) -> io::Result<()> {
    let end = program.metadata()?.size();
    let mut name = loader.as_os_str().as_bytes().to_vec();
    name.push(0);
    program.write_all_at(&name, end)?;
    let [offset, length] = place.fields();
    program.write_all_at(&end.to_le_bytes(), offset)?;
    program.write_all_at(&(name.len() as u64).to_le_bytes(), length)
}
