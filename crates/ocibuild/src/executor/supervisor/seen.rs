//! What the step sees in place of what the machine has: paths, mounts, the list of
//! processes.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::Shared;
use super::guest::{of_io, os};
use super::resolve::Origin;
use super::tree::{Place, is_below};
use super::{devices, proc};

/// What a step can read of /proc and not write, as by runc's default.
const PROTECTED: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"];
/// Directories of /dev that are file systems where there are mounts.
const MADE: &[&str] = &["/dev/mqueue", "/dev/shm"];

/// A line in a table of mounts.
struct Mount {
    path: String,
    kind: &'static str,
    options: &'static str,
}

impl Mount {
    fn new(path: &str, kind: &'static str, options: &'static str) -> Self {
        Self {
            path: path.to_owned(),
            kind,
            options,
        }
    }

    /// One that every step has.
    fn of_kernel(path: &str) -> Option<Self> {
        let (kind, options) = match path {
            "/dev" => ("tmpfs", "rw,nosuid,nodev,size=65536k,mode=755"),
            "/dev/mqueue" => ("mqueue", "rw,nosuid,nodev,noexec,relatime"),
            "/dev/pts" => (
                "devpts",
                "rw,nosuid,noexec,relatime,gid=5,mode=620,ptmxmode=666",
            ),
            "/dev/shm" => ("tmpfs", "rw,nosuid,nodev,noexec,relatime,size=65536k"),
            "/proc" => ("proc", "rw,nosuid,nodev,noexec,relatime"),
            "/sys" => ("sysfs", "ro,nosuid,nodev,noexec,relatime"),
            path if PROTECTED.contains(&path) => ("proc", "ro,nosuid,nodev,noexec,relatime"),
            path if devices::HIDDEN.contains(&path) || is_hidden_directory(path) => {
                ("tmpfs", "ro,nosuid,nodev,noexec,relatime,size=0k,mode=755")
            }
            path if is_hidden(path) => ("devtmpfs", "ro,nodev,relatime,mode=755"),
            _ => return None,
        };
        Some(Self::new(path, kind, options))
    }
}

fn is_hidden(path: &str) -> bool {
    path.strip_prefix("/proc/")
        .is_some_and(|name| proc::HIDDEN.contains(&name))
}

fn is_hidden_directory(path: &str) -> bool {
    is_hidden(path) && Path::new(path).is_dir()
}

impl Shared {
    /// A path as the kernel shows it to this process, as the step is to see it.
    pub(super) fn seen(&self, shown: &[u8]) -> Vec<u8> {
        if !shown.starts_with(b"/") || shown.starts_with(b"/memfd:") {
            return shown.to_vec();
        }
        let seen = self
            .tree()
            .ok()
            .and_then(|tree| self.seen_inside(tree, shown));
        match seen {
            Some((inside, _)) if shown.ends_with(b" (deleted)") => {
                [&inside[..], b" (deleted)"].concat()
            }
            Some((inside, _)) => inside,
            None if is_below(shown, b"/dev") => shown.to_vec(),
            None => b"(unreachable)".to_vec(),
        }
    }

    /// The same for a program, of which the kernel may run a copy.
    pub(super) fn seen_program(&self, shown: &[u8]) -> Vec<u8> {
        match self.original(Path::new(os(shown))) {
            Some(original) => self.seen(original.as_os_str().as_bytes()),
            None => self.seen(shown),
        }
    }

    /// Where something on the machine is seen by the step.
    pub(super) fn seen_inside(
        &self,
        tree: &super::tree::Tree,
        shown: &[u8],
    ) -> Option<(Vec<u8>, Origin)> {
        if let Some(listing) = self.list_folder()
            && let Some(rest) = shown.strip_prefix(listing.as_os_str().as_bytes())
        {
            let inside = [b"/proc", rest].concat();
            return Some((inside, Origin::Bind { writable: false }));
        }
        if is_below(shown, b"/proc") {
            return Some((shown.to_vec(), Origin::Kernel));
        }
        tree.inside(shown)
    }

    pub(super) fn mounts(&self) -> String {
        let line = |mount: Mount| {
            let (path, kind) = (escaped(&mount.path), mount.kind);
            format!("{kind} {path} {kind} {} 0 0\n", mount.options)
        };
        self.mount_points().into_iter().map(line).collect()
    }

    pub(super) fn mount_info(&self) -> String {
        let points = self.mount_points().into_iter().enumerate();
        let line = |(number, mount): (usize, Mount)| {
            let parent = if number == 0 { 1 } else { 20 };
            let access = mount.options.get(..2).unwrap_or_default();
            format!(
                "{} {parent} 0:{} / {} {} - {kind} {kind} {access}\n",
                number + 20,
                number + 20,
                escaped(&mount.path),
                mount.options,
                kind = mount.kind,
            )
        };
        points.map(line).collect()
    }

    /// The mounts that the step would have if it had mounts.
    fn mount_points(&self) -> Vec<Mount> {
        let mut points = vec![Mount::new("/", "overlay", "rw,relatime")];
        let places = self.tree().map(|tree| tree.places()).unwrap_or_default();
        let of_proc = std::iter::once("/proc").chain(PROTECTED.iter().copied());
        let hidden: Vec<_> = proc::HIDDEN
            .iter()
            .map(|name| format!("/proc/{name}"))
            .collect();
        let made = of_proc.chain(MADE.iter().copied());
        let made = made.chain(hidden.iter().map(String::as_str));
        let is_there = |path: &&str| !path.starts_with("/proc/") || Path::new(path).exists();
        points.extend(made.filter(is_there).filter_map(Mount::of_kernel));
        points.extend(places.iter().filter_map(|place| self.mount_of(place)));
        points
    }

    fn mount_of(&self, place: &Place) -> Option<Mount> {
        let path = String::from_utf8_lossy(&place.inside);
        if [devices::NETWORKS, devices::TERMINALS.0].contains(&&*path) {
            return None;
        }
        if let Some(mount) = Mount::of_kernel(&path) {
            return Some(mount);
        }
        let work = self.plan.folder.as_ref().and_then(|folder| folder.parent());
        let is_empty = work.is_some_and(|work| {
            Path::new(os(&place.outside)).starts_with(work.join(super::super::tree::EMPTY))
        });
        let (kind, options) = match place.origin {
            Origin::Kernel => ("devtmpfs", "ro,relatime,mode=755"),
            _ if place.outside.starts_with(b"/memfd:") => {
                ("tmpfs", "ro,nosuid,nodev,noexec,relatime,mode=755")
            }
            _ if is_empty => ("tmpfs", "rw,nosuid,nodev,relatime"),
            Origin::Bind { writable: false } => ("overlay", "ro,nosuid,nodev,relatime"),
            _ => ("overlay", "rw,nosuid,nodev,relatime"),
        };
        Some(Mount::new(&path, kind, options))
    }

    /// Opens a directory that has the names of /proc.
    pub(super) fn list_processes(&self) -> Result<OwnedFd, Errno> {
        let folder = &self.list_folder().ok_or(Errno::ACCESS)?;
        let _alone = self
            .listing
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let wanted: Vec<_> = std::fs::read_dir("/proc")
            .map_err(of_io)?
            .filter_map(Result::ok)
            .filter(|entry| self.is_listed(entry.file_name().as_bytes()))
            .collect();
        for entry in std::fs::read_dir(folder).map_err(of_io)?.flatten() {
            let is_wanted = wanted
                .iter()
                .any(|known| known.file_name() == entry.file_name());
            if !is_wanted {
                // A process that has ended.
                let _ = std::fs::remove_dir(entry.path());
            }
        }
        for entry in wanted {
            let place = folder.join(entry.file_name());
            let made = match entry.file_type() {
                Ok(kind) if kind.is_dir() => std::fs::create_dir(place),
                Ok(kind) if kind.is_symlink() => std::os::unix::fs::symlink("self", place),
                _ => std::fs::File::create_new(place).map(drop),
            };
            match made {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(of_io(error));
                }
                _ => {}
            }
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(folder, flags, Mode::empty())
    }

    fn list_folder(&self) -> Option<PathBuf> {
        Some(self.plan.folder.as_ref()?.join(super::devices::LISTING))
    }

    fn is_listed(&self, name: &[u8]) -> bool {
        let pid = str::from_utf8(name).ok().and_then(|name| name.parse().ok());
        match pid {
            Some(pid) => self.step.has(pid),
            None => true,
        }
    }
}

/// A path as it stands in a table of mounts.
fn escaped(path: &str) -> String {
    path.replace('\\', "\\134")
        .replace(' ', "\\040")
        .replace('\t', "\\011")
        .replace('\n', "\\012")
}
