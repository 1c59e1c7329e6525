//! Mounts inside the root: the kernel's own file systems as runc makes them, and what
//! the specification adds.
//!
//! Runs in the process that becomes the command, in its own mount namespace. Bind
//! mounts are made detached, given their flags, and only then put in place.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Uid, chmod, chown, fstat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{
    MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags, mount, move_mount, open_tree,
};

use super::error::{Attempt, Failure};
use super::place::{Kind, Made, Places};
use super::root::{Root, by_descriptor};
use super::wire::Settings;
use super::{Mount, MountSource, RunSpec, sys};
use crate::ownership::{self, Record};

/// Devices that every command may use; the machine's own, bound, because nodes cannot
/// be made in a user namespace. Read-only mounts: the device can still be written to,
/// and its owner and mode on the machine cannot be changed.
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];

/// Where programs look for their own descriptors, and for terminals.
const DEVICE_LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// What says too much about the machine, or lets root there change it; hidden, as by
/// runc's default.
const HIDDEN: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// What may be read and not written, as by runc's default.
const READ_ONLY: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// The group of terminals, in every distribution.
const TTY_GROUP: u32 = 5;

const NO_SUID_DEV: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);
const NO_SUID_DEV_EXEC: MountFlags = NO_SUID_DEV.union(MountFlags::NOEXEC);

/// Mounts everything below the root; gives what was made in it for that.
pub(super) fn mount_all(
    spec: &RunSpec,
    settings: Settings,
    root: &Root,
) -> Result<Vec<Made>, Failure> {
    // These stay in the layer where the image lacks them, as with the reference builder.
    for directory in ["proc", "sys", "dev"] {
        match fs::create_dir(root.merged().join(directory)) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error).attempt("mkdir", format_args!("/{directory}"));
            }
            _ => {}
        }
    }
    let mut tree = Tree {
        places: Places::open(&root.merged())?,
        settings,
    };
    tree.mount_proc()?;
    tree.mount_sys(spec.privileged)?;
    tree.mount_dev()?;
    for (number, mount) in spec.mounts.iter().enumerate() {
        tree.mount_extra(mount, number, root)?;
    }
    // Last, since a mount of the specification must not lead around them.
    if !spec.privileged {
        tree.protect()?;
    }
    Ok(tree.places.into_made())
}

/// The root while it is being furnished.
struct Tree {
    places: Places,
    settings: Settings,
}

impl Tree {
    fn mount_proc(&mut self) -> Result<(), Failure> {
        if self.settings.pid_namespace {
            self.mount("proc", "/proc", NO_SUID_DEV_EXEC, "")
        } else {
            self.bind_host("/proc", MountAttrFlags::empty())
        }
    }

    /// A fresh sysfs needs a network namespace of the same user namespace, and that
    /// none of the builder's own is hidden; else the builder's is shown.
    fn mount_sys(&mut self, writable: bool) -> Result<(), Failure> {
        let fixed = if writable {
            MountFlags::empty()
        } else {
            MountFlags::RDONLY
        };
        let flags = NO_SUID_DEV_EXEC | fixed;
        match self.mount("sysfs", "/sys", flags, "") {
            Err(failure) if failure.errno() == Some(libc::EPERM) => {
                let flags = MountAttrFlags::MOUNT_ATTR_RDONLY
                    | MountAttrFlags::MOUNT_ATTR_NOSUID
                    | MountAttrFlags::MOUNT_ATTR_NODEV
                    | MountAttrFlags::MOUNT_ATTR_NOEXEC;
                self.bind_host("/sys", flags)
            }
            Err(failure) => Err(failure),
            Ok(()) => {
                // A machine need not have control groups of version 2, and a command
                // hardly needs to see them.
                let _ = self.mount("cgroup2", "/sys/fs/cgroup", flags, "");
                Ok(())
            }
        }
    }

    fn mount_dev(&mut self) -> Result<(), Failure> {
        // NODEV: the command can make nodes here and not use them. Those that it may
        // use are mounts of their own.
        let flags = NO_SUID_DEV | MountFlags::STRICTATIME;
        self.mount("tmpfs", "/dev", flags, "mode=755,size=65536k")?;
        for name in DEVICES {
            self.bind_device(name)?;
        }
        for directory in ["/dev/pts", "/dev/shm", "/dev/mqueue"] {
            self.places
                .find_or_make(Path::new(directory), Kind::Directory)?;
        }
        let has_group = self.settings.ids > TTY_GROUP && !self.settings.supervised;
        let group = if has_group { ",gid=5" } else { "" };
        let terminals = format!("newinstance,ptmxmode=0666,mode=0620{group}");
        let no_suid_exec = MountFlags::NOSUID | MountFlags::NOEXEC;
        self.mount("devpts", "/dev/pts", no_suid_exec, &terminals)?;
        self.mount(
            "tmpfs",
            "/dev/shm",
            NO_SUID_DEV_EXEC,
            "mode=1777,size=65536k",
        )?;
        self.mount("mqueue", "/dev/mqueue", NO_SUID_DEV_EXEC, "")?;

        let dev = self.place("/dev")?;
        for (name, target) in DEVICE_LINKS {
            symlinkat(*target, &dev, *name).attempt("symlinkat", format_args!("/dev/{name}"))?;
        }
        // Nothing above was made in the layer, so nothing is to be removed from it.
        self.places.forget_made_below("dev");
        Ok(())
    }

    fn bind_device(&mut self, name: &str) -> Result<(), Failure> {
        let path = format!("/dev/{name}");
        let device = open_path(Path::new(&path))?;
        let place = self.places.find_or_make(Path::new(&path), Kind::File)?;
        attach(&device, &place, MountAttrFlags::MOUNT_ATTR_RDONLY, &path)
    }

    fn mount_extra(&mut self, mount: &Mount, number: usize, root: &Root) -> Result<(), Failure> {
        let shown = mount.target.display().to_string();
        match &mount.source {
            MountSource::Bind { path, writable } => {
                self.show(&open_path(path)?, mount, access(*writable))
            }
            MountSource::Layers { path, writes, .. } => {
                let source = root.open_source(number, path)?;
                self.show(&source, mount, access(writes.is_some()))
            }
            MountSource::File {
                content,
                mode,
                uid,
                gid,
            } => {
                let file = root.files().join(number.to_string());
                write_file(&file, content.expose())?;
                self.own(&file, *mode, *uid, *gid)?;
                let mut flags = access(false);
                // A secret is nothing to run.
                if mode & 0o111 == 0 {
                    flags |= MountAttrFlags::MOUNT_ATTR_NOEXEC;
                }
                self.show(&open_path(&file)?, mount, flags)
            }
            MountSource::Socket {
                path,
                mode,
                uid,
                gid,
            } => {
                self.own(path, *mode, *uid, *gid)?;
                // A socket can be talked to on a read-only mount, and not be changed.
                self.show(&open_path(path)?, mount, access(false))
            }
            MountSource::Tmpfs { size } => {
                let place = self.places.find_or_make(&mount.target, Kind::Directory)?;
                let size = size.map(|size| format!(",size={size}")).unwrap_or_default();
                mount_at(
                    "tmpfs",
                    &place,
                    NO_SUID_DEV,
                    &format!("mode=1777{size}"),
                    &shown,
                )
            }
        }
    }

    /// Gives a file its owner and mode.
    fn own(&self, path: &Path, mode: u32, uid: u32, gid: u32) -> Result<(), Failure> {
        let (user, group) = (owner(uid, path)?, owner(gid, path)?);
        let mode = mode & 0o7777;
        if self.settings.supervised {
            let record = Record {
                uid,
                gid,
                mode,
                device: None,
            };
            return ownership::write(open_path(path)?, &record)
                .map_err(|error| error.errno())
                .attempt("setxattr", path.display());
        }
        chown(path, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))
            .attempt("chown", format_args!("{uid}:{gid} {}", path.display()))?;
        chmod(path, Mode::from_raw_mode(mode)).attempt("chmod", path.display())
    }

    /// Puts a file or directory at the target of a mount.
    fn show(
        &mut self,
        source: &OwnedFd,
        mount: &Mount,
        flags: MountAttrFlags,
    ) -> Result<(), Failure> {
        let target = &mount.target;
        let place = self.places.find_or_make(target, kind_of(source, target)?)?;
        attach(source, &place, flags, &target.display().to_string())
    }

    /// Hides and protects parts of /proc and /sys.
    fn protect(&self) -> Result<(), Failure> {
        let nothing = open_path(Path::new("/dev/null"))?;
        for path in HIDDEN {
            let Some(place) = self.places.find(path)? else {
                continue;
            };
            match kind_of(&place, Path::new(path))? {
                Kind::File => attach(&nothing, &place, access(false), path)?,
                Kind::Directory => {
                    let flags = NO_SUID_DEV_EXEC | MountFlags::RDONLY;
                    mount_at("tmpfs", &place, flags, "size=0,mode=755", path)?;
                }
            }
        }
        for path in READ_ONLY {
            let Some(place) = self.places.find(path)? else {
                continue;
            };
            attach(&place, &place, MountAttrFlags::MOUNT_ATTR_RDONLY, path)?;
        }
        Ok(())
    }

    fn mount(&self, kind: &str, path: &str, flags: MountFlags, data: &str) -> Result<(), Failure> {
        mount_at(kind, &self.place(path)?, flags, data, path)
    }

    /// Shows a directory of the builder with all that is mounted below it.
    fn bind_host(&self, path: &str, flags: MountAttrFlags) -> Result<(), Failure> {
        attach(
            &open_path(Path::new(path))?,
            &self.place(path)?,
            flags,
            path,
        )
    }

    fn place(&self, path: &str) -> Result<OwnedFd, Failure> {
        self.places
            .find(path)?
            .ok_or(Errno::NOENT)
            .attempt("openat2", path)
    }
}

fn mount_at(
    kind: &str,
    place: &OwnedFd,
    flags: MountFlags,
    data: &str,
    shown: &str,
) -> Result<(), Failure> {
    let data = std::ffi::CString::new(data).unwrap_or_default();
    mount(kind, by_descriptor(place), kind, flags, &*data)
        .attempt("mount", format_args!("{kind} on {shown}"))
}

/// Binds one thing on another with all that is mounted below it, which the kernel
/// demands in a user namespace.
fn attach(
    source: &OwnedFd,
    place: &OwnedFd,
    add: MountAttrFlags,
    shown: &str,
) -> Result<(), Failure> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(source, "", flags).attempt("open_tree", shown)?;
    if !add.is_empty() {
        sys::set_mount_attributes(&tree, add, true).attempt("mount_setattr", shown)?;
    }
    let by_descriptors =
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree.as_fd(), "", place.as_fd(), "", by_descriptors).attempt("move_mount", shown)
}

/// Flags of a mount of the specification: devices never work in one.
fn access(writable: bool) -> MountAttrFlags {
    let flags = MountAttrFlags::MOUNT_ATTR_NODEV;
    if writable {
        flags
    } else {
        flags | MountAttrFlags::MOUNT_ATTR_RDONLY
    }
}

fn write_file(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let mut file = File::create_new(path).attempt("open", path.display())?;
    file.write_all(content).attempt("write", path.display())
}

/// An id that chown takes as one; the highest means "leave it".
fn owner(id: u32, path: &Path) -> Result<u32, Failure> {
    if id == u32::MAX {
        Err(Errno::INVAL).attempt("fchown", path.display())
    } else {
        Ok(id)
    }
}

fn open_path(path: &Path) -> Result<OwnedFd, Failure> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .attempt("open", path.display())
}

fn kind_of(descriptor: &OwnedFd, path: &Path) -> Result<Kind, Failure> {
    let stat = fstat(descriptor).attempt("fstat", path.display())?;
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    Ok(if is_directory {
        Kind::Directory
    } else {
        Kind::File
    })
}
