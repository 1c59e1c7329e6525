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

use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::UnshareFlags;

use super::error::{Attempt, Failure};
use super::init::in_user_namespace;
use super::place::{self, Made};
use super::{MountSource, Rootfs, RunSpec, sys};

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
        let upper = by_descriptor(&layers.upper);
        // Not NOEXEC: scripts of RUN are among the files, and are run where they are mounted.
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("tmpfs", upper, "tmpfs", flags, c"mode=0755")
            .attempt("mount", "tmpfs for the root")?;

        let root = Self {
            scratch: rootfs.upper.clone(),
            work: rootfs.work.clone(),
        };
        for directory in ["stub", "files", "root"] {
            make_directory(&root.scratch.join(directory))?;
        }
        root.make_stubs(spec)?;
        root.mount_overlay(layers)?;
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
        for mount in &spec.mounts {
            let inside: PathBuf = mount
                .target
                .components()
                .filter(|c| matches!(c, Component::Normal(_)))
                .collect();
            let stub = self.scratch.join("stub").join(&inside);
            let is_file = match &mount.source {
                MountSource::Bind { path, .. } => path.is_file(),
                MountSource::File { .. } => true,
                MountSource::Tmpfs { .. } => false,
            };
            let directory = if is_file {
                stub.parent().unwrap_or(&stub)
            } else {
                &stub
            };
            // One mount inside of another has its mount point there.
            let made = fs::create_dir_all(directory).and_then(|()| {
                if is_file {
                    fs::write(&stub, [])
                } else {
                    Ok(())
                }
            });
            match made {
                Err(error) if error.kind() != io::ErrorKind::NotADirectory => {
                    Err(error).attempt("mkdir", mount.target.display())?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn mount_overlay(&self, layers: Layers) -> Result<(), Failure> {
        let stub = open_directory(&self.scratch.join("stub"))?;
        let options = layers.options(&stub);
        let options = CString::new(options).unwrap_or_default();
        rustix::process::chdir("/proc/self/fd").attempt("chdir", "/proc/self/fd")?;
        // NODEV: root keeps CAP_MKNOD for layers that hold device nodes, and there is no
        // device control group here that would keep it from the machine's disks.
        let mounted = mount(
            "overlay",
            self.merged(),
            "overlay",
            MountFlags::NODEV,
            &*options,
        );
        rustix::process::chdir("/").attempt("chdir", "/")?;
        mounted.attempt("mount", "overlay")
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
    upper: OwnedFd,
    work: OwnedFd,
}

impl Layers {
    fn open(rootfs: &Rootfs) -> Result<Self, Failure> {
        let count = rootfs.lowers.len();
        if count > MAX_LAYERS {
            return Err(Failure::TooManyLayers {
                count,
                limit: MAX_LAYERS,
            });
        }
        let lowers = rootfs.lowers.iter().rev().map(|path| open_directory(path));
        Ok(Self {
            lowers: lowers.collect::<Result<_, _>>()?,
            upper: open_directory(&rootfs.upper)?,
            work: open_directory(&rootfs.work)?,
        })
    }

    /// Mount options, with names that hold in /proc/self/fd.
    fn options(&self, stub: &OwnedFd) -> String {
        let mut options = "lowerdir=".to_owned();
        for lower in &self.lowers {
            let _ = write!(options, "{}:", lower.as_raw_fd());
        }
        let (stub, upper, work) = (
            stub.as_raw_fd(),
            self.upper.as_raw_fd(),
            self.work.as_raw_fd(),
        );
        let _ = write!(options, "{stub},upperdir={upper},workdir={work}");
        // Each of these could put into the upper directory what a layer cannot say, or
        // let a hostile layer point elsewhere; distributions differ in the defaults.
        options.push_str(",index=off,metacopy=off,redirect_dir=nofollow");
        // The upper directory is worth nothing after a crash.
        options.push_str(",volatile");
        if in_user_namespace() {
            options.push_str(",userxattr");
        }
        options
    }
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
