//! What the step sees in place of what the machine has: paths, mounts, the list of
//! processes.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::Shared;
use super::guest::{of_io, os};
use super::proc::HIDDEN;
use super::resolve::Origin;
use super::tree::is_below;

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

    /// The mounts that the step would have if it had mounts: where, what, and whether they
    /// can be written.
    fn mount_points(&self) -> Vec<(String, &'static str, bool)> {
        let mut points = vec![
            ("/".to_owned(), "overlay", true),
            ("/proc".to_owned(), "proc", true),
        ];
        let Ok(tree) = self.tree() else {
            return points;
        };
        for place in tree.places() {
            let inside = String::from_utf8_lossy(&place.inside).into_owned();
            let is_writable = place.origin != Origin::Bind { writable: false };
            let kind = match inside.as_str() {
                "/sys" => "sysfs",
                "/dev" | "/dev/shm" => "tmpfs",
                "/dev/pts" => "devpts",
                _ => "none",
            };
            points.push((inside, kind, is_writable));
        }
        points
    }

    pub(super) fn mounts(&self) -> String {
        let line = |(path, kind, writable): (String, &str, bool)| {
            let access = if writable { "rw" } else { "ro" };
            format!("{kind} {} {kind} {access},relatime 0 0\n", escaped(&path))
        };
        self.mount_points().into_iter().map(line).collect()
    }

    pub(super) fn mount_info(&self) -> String {
        let points = self.mount_points().into_iter().enumerate();
        let line = |(number, (path, kind, writable)): (usize, (String, &str, bool))| {
            let access = if writable { "rw" } else { "ro" };
            let parent = if number == 0 { 1 } else { 20 };
            format!(
                "{} {parent} 0:{} / {} {access},relatime - {kind} {kind} {access}\n",
                number + 20,
                number + 20,
                escaped(&path)
            )
        };
        points.map(line).collect()
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
            None => !HIDDEN.contains(&name),
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
