//! The places that every step without mounts has: /dev and /sys.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;

use super::super::Network;
use super::super::error::{Attempt, Failure};
use super::resolve::Origin;
use super::tree::Place;
use super::{Bind, Owners};
use crate::ownership::{self, Record};

/// Devices that every step may use.
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];

/// An empty directory of the folder.
const EMPTY: &str = "empty";
/// What the machine's /sys has for its networks.
pub(super) const NETWORKS: &str = "/sys/class/net";
const LOOPBACK: &str = "/sys/devices/virtual/net/lo";
/// What of /sys is empty for the step.
pub(super) const HIDDEN: &[&str] = &["/sys/devices/virtual/powercap", "/sys/firmware"];
/// What makes terminals. Not all machines let everybody use the one that lies beside them.
pub(super) const TERMINALS: (&str, &str) = ("/dev/pts/ptmx", "/dev/ptmx");

/// Where in the folder lists of what is in /proc are.
pub(super) const LISTING: &str = "proc";

/// Where programs look for their own descriptors.
const LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Makes /dev in an empty folder of the step's own, and says what is seen where. What a
/// program makes in /dev stays in the folder.
pub(super) fn places(
    folder: &Path,
    owners: Owners,
    network: Network,
) -> Result<Vec<Place>, Failure> {
    let dev = folder.join("dev");
    let shared = [dev.join("shm"), dev.join("mqueue")];
    let others = [
        folder.join(LISTING),
        folder.join(EMPTY),
        dev.clone(),
        dev.join("pts"),
    ];
    for directory in others.iter().chain(&shared) {
        make(directory)?;
    }
    for (name, target) in LINKS {
        symlink(target, dev.join(name)).attempt("symlink", format_args!("/dev/{name}"))?;
    }
    let mut places = vec![place("/dev", &dev, Origin::Bind { writable: true })?];
    for name in DEVICES {
        // So that it is listed.
        File::create_new(dev.join(name)).attempt("open", format_args!("/dev/{name}"))?;
        let device = Path::new("/dev").join(name);
        if device.exists() {
            places.push(place(&format!("/dev/{name}"), &device, Origin::Kernel)?);
        }
    }
    for directory in &shared {
        open_to_all(directory, owners)?;
    }
    let mut shown = vec![
        ("/dev/pts", PathBuf::from("/dev/pts"), Origin::Kernel),
        (TERMINALS.0, TERMINALS.1.into(), Origin::Kernel),
        ("/sys", "/sys".into(), READ_ONLY),
    ];
    shown.extend(
        HIDDEN
            .iter()
            .map(|path| (*path, folder.join(EMPTY), READ_ONLY)),
    );
    if network == Network::None {
        shown.push((NETWORKS, only_loopback(folder)?, READ_ONLY));
    }
    for (path, source, origin) in shown {
        if Path::new(path).exists() {
            places.push(place(path, &source, origin)?);
        }
    }
    Ok(places)
}

const READ_ONLY: Origin = Origin::Bind { writable: false };

/// Opens what is seen in place of a directory that is hidden.
pub(super) fn empty(folder: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, folder.join(EMPTY), flags, Mode::empty())
}

/// A directory of networks with one in it.
fn only_loopback(folder: &Path) -> Result<PathBuf, Failure> {
    let directory = folder.join("net");
    make(&directory)?;
    symlink(LOOPBACK, directory.join("lo")).attempt("symlink", "/sys/class/net/lo")?;
    Ok(directory)
}

/// Makes the place where something of the step's is seen in /dev, as its here-documents are:
/// what is there in the tree is not seen.
pub(super) fn make_target(folder: &Path, bind: &Bind) -> Result<(), Failure> {
    if !bind.target.starts_with("/dev") || bind.target == Path::new("/dev") {
        return Ok(());
    }
    let target = folder.join(bind.target.strip_prefix("/").unwrap_or(&bind.target));
    let stat = fstat(&bind.source).attempt("fstat", bind.target.display())?;
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let directory = if is_directory {
        Some(&*target)
    } else {
        target.parent()
    };
    if let Some(directory) = directory {
        fs::create_dir_all(directory).attempt("mkdir", directory.display())?;
    }
    if !is_directory && !target.exists() {
        File::create_new(&target).attempt("open", target.display())?;
    }
    Ok(())
}

fn make(directory: &Path) -> Result<(), Failure> {
    fs::create_dir(directory).attempt("mkdir", directory.display())
}

/// Lets everybody write to a directory, as to /tmp.
fn open_to_all(directory: &Path, owners: Owners) -> Result<(), Failure> {
    let shown = directory.display();
    if owners == Owners::Real {
        let all = fs::Permissions::from_mode(0o1777);
        return fs::set_permissions(directory, all).attempt("chmod", shown);
    }
    let record = Record {
        uid: 0,
        gid: 0,
        mode: 0o1777,
        device: None,
    };
    ownership::write(open(directory)?, &record)
        .map_err(|error| error.errno())
        .attempt("setxattr", shown)
}

fn place(target: &str, source: &Path, origin: Origin) -> Result<Place, Failure> {
    Place::new(target.into(), open(source)?, origin).attempt("readlink", target)
}

fn open(path: &Path) -> Result<OwnedFd, Failure> {
    openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).attempt("open", path.display())
}
