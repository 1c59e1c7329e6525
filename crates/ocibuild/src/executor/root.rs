//! The root file system of a command: an overlay of its layers, mounted where only
//! the helper and the command see it, and taken away again.
//!
//! In the helper's own mount namespace a small tmpfs covers the upper directory, so
//! that no other directory is needed:
//!
//! ```text
//! <upper>/          tmpfs, the "scratch"
//!   stub/           lowest layer: mount points that the image may lack
//!   files/          contents of files that exist in memory only
//!   sources/        overlays of other layers that are mounted into the root
//!   root/           the overlay
//! ```
//!
//! All directories are opened first and named to the kernel by their descriptors:
//! `lowerdir=9:8:7`. Nothing needs quoting then, hundreds of layers fit in the page
//! that mount options may fill, and a command that reads its own mount table learns
//! nothing of the builder's paths.

use std::ffi::CString;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::UnshareFlags;

use super::error::{Attempt, Failure};
use super::init::in_user_namespace;
use super::place::{self, Made};
use super::{MountSource, Rootfs, RunSpec, Writes, sys};

/// How many lower directories the kernel takes (OVL_MAX_STACK), one being the stub.
const MAX_LAYERS: usize = 499;

/// The directory of a layer made for a rehearsal, which the rehearsal removes.
pub(super) const REMOVABLE: &str = "removable";

/// A mounted root file system.
pub(super) struct Root {
    scratch: PathBuf,
    work: PathBuf,
}

impl Root {
    /// Leaves the builder's mount namespace and mounts the root in a new one.
    pub(super) fn mount(spec: &RunSpec) -> Result<Self, Failure> {
        sys::unshare(UnshareFlags::NEWNS).attempt("unshare", "CLONE_NEWNS")?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).attempt("mount", "/ (MS_REC|MS_PRIVATE)")?;

        let rootfs = &spec.rootfs;
        let layers = Layers::open(rootfs)?;
        let upper = open_directory(&rootfs.upper)?;
        // Not NOEXEC: scripts of RUN are among the files, and are run where they are mounted.
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("tmpfs", by_descriptor(&upper), "tmpfs", flags, c"mode=0755")
            .attempt("mount", "tmpfs for the root")?;

        let root = Self {
            scratch: rootfs.upper.clone(),
            work: rootfs.work.clone(),
        };
        for directory in ["stub", "files", "sources", "empty", "root"] {
            make_directory(&root.scratch.join(directory))?;
        }
        root.mount_sources(spec)?;
        root.make_stubs(spec)?;
        let stub = open_directory(&root.scratch.join("stub"))?;
        // Root keeps CAP_MKNOD for layers that hold device nodes, and there is no device
        // control group here that would keep it from the machine's disks.
        let devices = match spec.privileged {
            true => MountFlags::empty(),
            false => MountFlags::NODEV,
        };
        mount_overlay(&root.merged(), &layers.options(&stub), devices)?;
        Ok(root)
    }

    /// Where the overlay is.
    pub(super) fn merged(&self) -> PathBuf {
        self.scratch.join("root")
    }

    /// Where files can be put that are mounted into the root.
    pub(super) fn files(&self) -> PathBuf {
        self.scratch.join("files")
    }

    /// Makes mount points in the lowest layer, where they are seen only if the image
    /// lacks them, and never come into the upper directory. A layer can still hide one
    /// by a whiteout, or lead elsewhere by a symbolic link; [`place`] handles that.
    fn make_stubs(&self, spec: &RunSpec) -> Result<(), Failure> {
        for (number, mount) in spec.mounts.iter().enumerate() {
            let inside: PathBuf = mount
                .target
                .components()
                .filter(|c| matches!(c, Component::Normal(_)))
                .collect();
            let stub = self.scratch.join("stub").join(&inside);
            let is_file = match &mount.source {
                MountSource::Bind { path, .. } => path.is_file(),
                MountSource::Layers { path, .. } => !is_directory(&self.open_source(number, path)?),
                MountSource::File { .. } | MountSource::Socket { .. } => true,
                MountSource::Tmpfs { .. } => false,
            };
            let directory = if is_file {
                stub.parent().unwrap_or(&stub)
            } else {
                &stub
            };
            // One mount inside of another has its mount point there, or none fits.
            let made = fs::create_dir_all(directory).and_then(|()| {
                if is_file {
                    fs::write(&stub, [])
                } else {
                    Ok(())
                }
            });
            match made {
                Err(error) if !is_in_the_way(&error) => {
                    Err(error).attempt("mkdir", mount.target.display())?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Mounts other layers where only the helper and the command's process find them.
    fn mount_sources(&self, spec: &RunSpec) -> Result<(), Failure> {
        for (number, mount) in spec.mounts.iter().enumerate() {
            let MountSource::Layers { lowers, writes, .. } = &mount.source else {
                continue;
            };
            let place = self.source(number);
            make_directory(&place)?;
            if lowers.is_empty() && writes.is_none() {
                continue;
            }
            let layers = Layers::open_all(lowers, writes.as_ref())?;
            // The kernel wants two directories at least where nothing can be written.
            let empty = open_directory(&self.scratch.join("empty"))?;
            mount_overlay(&place, &layers.options(&empty), MountFlags::NODEV)?;
        }
        Ok(())
    }

    fn source(&self, number: usize) -> PathBuf {
        self.scratch.join("sources").join(number.to_string())
    }

    /// Opens what a mount shows of other layers.
    pub(super) fn open_source(&self, number: usize, path: &Path) -> Result<OwnedFd, Failure> {
        let root = open_directory(&self.source(number))?;
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        openat2(&root, path, flags, Mode::empty(), inside).attempt("openat2", path.display())
    }

    /// Removes a directory that comes from a layer. In a user namespace without
    /// `userxattr` the overlay mounts, and then fails at this with EIO.
    pub(super) fn check_removal(&self) -> Result<(), Failure> {
        fs::remove_dir(self.merged().join(REMOVABLE)).attempt("rmdir", "a directory of a layer")
    }

    /// Removes what was made in the root for the command's mounts, and empties the
    /// kernel's work directory, which a later overlay would refuse. Nothing uses the
    /// overlay any more; it goes with the last process of this mount namespace.
    pub(super) fn clean_up(&self, made: &[Made]) -> Result<(), Failure> {
        place::remove(&self.merged(), made)?;
        let entries = fs::read_dir(&self.work).attempt("open", self.work.display())?;
        for entry in entries {
            let path = entry.attempt("getdents", self.work.display())?.path();
            fs::remove_dir_all(&path).attempt("rmdir", path.display())?;
        }
        Ok(())
    }
}

/// The directories of an overlay, opened before anything covers them.
struct Layers {
    /// Highest first, as the kernel wants them.
    lowers: Vec<OwnedFd>,
    /// Upper and work directory, where anything can be written.
    writes: Option<(OwnedFd, OwnedFd)>,
}

impl Layers {
    fn open(rootfs: &Rootfs) -> Result<Self, Failure> {
        let writes = Writes {
            upper: rootfs.upper.clone(),
            work: rootfs.work.clone(),
        };
        Self::open_all(&rootfs.lowers, Some(&writes))
    }

    fn open_all(lowers: &[PathBuf], writes: Option<&Writes>) -> Result<Self, Failure> {
        let count = lowers.len();
        if count > MAX_LAYERS {
            return Err(Failure::TooManyLayers {
                count,
                limit: MAX_LAYERS,
            });
        }
        let lowers = lowers.iter().rev().map(|path| open_directory(path));
        let open = |writes: &Writes| {
            let (upper, work) = (
                open_directory(&writes.upper)?,
                open_directory(&writes.work)?,
            );
            Ok((upper, work))
        };
        Ok(Self {
            lowers: lowers.collect::<Result<_, _>>()?,
            writes: writes.map(open).transpose()?,
        })
    }

    /// Mount options, with names that hold in /proc/self/fd; `lowest` lies below all.
    fn options(&self, lowest: &OwnedFd) -> String {
        let mut options = "lowerdir=".to_owned();
        for lower in &self.lowers {
            let _ = write!(options, "{}:", lower.as_raw_fd());
        }
        let _ = write!(options, "{}", lowest.as_raw_fd());
        if let Some((upper, work)) = &self.writes {
            let (upper, work) = (upper.as_raw_fd(), work.as_raw_fd());
            // The upper directory is worth nothing after a crash.
            let _ = write!(options, ",upperdir={upper},workdir={work},volatile");
        }
        // Each of these could put into the upper directory what a layer cannot say, or
        // let a hostile layer point elsewhere; distributions differ in the defaults.
        options.push_str(",index=off,metacopy=off,redirect_dir=nofollow");
        if in_user_namespace() {
            options.push_str(",userxattr");
        }
        options
    }
}

/// Mounts an overlay whose options name descriptors of this process.
fn mount_overlay(place: &Path, options: &str, devices: MountFlags) -> Result<(), Failure> {
    let options = CString::new(options).unwrap_or_default();
    rustix::process::chdir("/proc/self/fd").attempt("chdir", "/proc/self/fd")?;
    let mounted = mount("overlay", place, "overlay", devices, &*options);
    rustix::process::chdir("/").attempt("chdir", "/")?;
    mounted.attempt("mount", "overlay")
}

/// The place of one mount is a file and that of another a directory.
fn is_in_the_way(error: &io::Error) -> bool {
    use io::ErrorKind::{AlreadyExists, IsADirectory, NotADirectory};
    matches!(error.kind(), AlreadyExists | IsADirectory | NotADirectory)
}

fn is_directory(descriptor: &OwnedFd) -> bool {
    fstat(descriptor).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// A name of a descriptor's file that the kernel follows without walking a path.
pub(super) fn by_descriptor(descriptor: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", descriptor.as_raw_fd())
}

fn open_directory(path: &Path) -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).attempt("open", path.display())
}

fn make_directory(path: &Path) -> Result<(), Failure> {
    fs::create_dir(path).attempt("mkdir", path.display())
}
