//! From a path of the step to the file it leads to.
//!
//! With mounts the kernel finds it, below the root of the process; what it does not find
//! here the step's own call will not find either, or leads into its /proc, and then the
//! kernel answers. In views without mounts see [`super::walk`].

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::View;
use super::call::Fault;
use super::guest::{Guest, os, path_of};
use super::proc::Content;

/// Names that are made by the machine while another changes what a path with `..` leads
/// through are looked up again, so often.
const TRIES: usize = 8;

/// Where a file belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Origin {
    /// To the root file system or a mount of the step's.
    Step,
    /// To the builder, which shows it to the step.
    Bind {
        /// Whether the step may change it.
        writable: bool,
    },
    /// To the kernel: devices, /proc, /sys, pipes.
    Kernel,
}

/// A file that a path or descriptor leads to.
#[derive(Debug)]
pub(in super::super) struct Found {
    /// It, opened with `O_PATH`.
    pub(in super::super) file: OwnedFd,
    /// Where it belongs.
    pub(in super::super) origin: Origin,
    /// What reading the link gives, where the kernel's own answer would be wrong.
    pub(in super::super) link: Option<Vec<u8>>,
    /// What reading the file gives, where the kernel's own answer would be wrong.
    pub(in super::super) content: Option<Content>,
    /// Whether the kernel finds it by the same path in the tree alone.
    pub(in super::super) plain: bool,
}

impl Found {
    /// A file of the step's.
    pub(super) fn in_step(file: OwnedFd) -> Self {
        Self {
            file,
            origin: Origin::Step,
            link: None,
            content: None,
            plain: false,
        }
    }

    /// The same, found by the kernel alone.
    pub(super) fn plainly(file: OwnedFd) -> Self {
        Self {
            plain: true,
            ..Self::in_step(file)
        }
    }

    /// Fails where the step may change nothing.
    pub(super) fn check_writable(&self) -> Result<(), Errno> {
        match self.origin {
            Origin::Bind { writable: false } => Err(Errno::ROFS),
            _ => Ok(()),
        }
    }
}

/// Whether the last component of a path is followed if it is a symbolic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Follow {
    /// As most calls do.
    Yes,
    /// As those that are about the link itself do.
    No,
}

impl Guest<'_> {
    /// Finds what a path leads to, from a directory descriptor on or `AT_FDCWD`.
    pub(super) fn find(&self, directory: i32, path: &[u8], follow: Follow) -> Result<Found, Fault> {
        if path.is_empty() {
            return Err(Errno::NOENT.into());
        }
        match self.shared.plan.view {
            View::Mounts => self
                .find_mounted(directory, path, follow)
                .map_err(|_| Fault::Continue),
            View::Chroot | View::Translated => self.find_in_tree(directory, path, follow),
        }
    }

    /// Finds the directory that a path leads to but for its last name, and gives that
    /// name, with slashes after it if there are any.
    pub(super) fn find_parent<'p>(
        &self,
        directory: i32,
        path: &'p [u8],
    ) -> Result<(Found, &'p [u8]), Fault> {
        let (parent, name) = split(path)?;
        Ok((self.find(directory, parent, Follow::Yes)?, name))
    }

    /// Finds the file of a descriptor.
    pub(super) fn find_open(&self, descriptor: i32) -> Result<Found, Fault> {
        let found = self.opened(descriptor)?;
        match self.shared.plan.view {
            View::Mounts => Ok(found),
            View::Chroot | View::Translated => self.belongs(found.file),
        }
    }

    /// The same for who only looks at it: what it belongs to is not found out.
    pub(super) fn opened(&self, descriptor: i32) -> Result<Found, Errno> {
        let file = match descriptor {
            libc::AT_FDCWD => self.own("cwd"),
            number => self.descriptor(number),
        };
        file.map(Found::in_step)
    }

    /// What the `*at` calls mean by a path that may be empty.
    pub(super) fn find_at(&self, directory: i32, path: &[u8], flags: i32) -> Result<Found, Fault> {
        if path.is_empty() && flags & libc::AT_EMPTY_PATH != 0 {
            return self.find_open(directory);
        }
        let follow = if flags & libc::AT_SYMLINK_NOFOLLOW == 0 {
            Follow::Yes
        } else {
            Follow::No
        };
        self.find(directory, path, follow)
    }

    /// Finds a file with mounts, and says why not.
    pub(super) fn find_mounted(
        &self,
        directory: i32,
        path: &[u8],
        follow: Follow,
    ) -> Result<Found, Errno> {
        if follow == Follow::Yes
            && let Some(number) = own_descriptor(path)
        {
            // C libraries that change the mode of a file and not of what it links to.
            return self.descriptor(number).map(Found::in_step);
        }
        if path.starts_with(b"/") {
            return self.find_below_root(path, follow);
        }
        let base = match directory {
            libc::AT_FDCWD => self.own("cwd")?,
            number => self.descriptor(number)?,
        };
        match look_up(&base, path, follow, ResolveFlags::BENEATH) {
            Err(Errno::XDEV) => {}
            other => return other.map(Found::in_step),
        }
        // It leads out of there. The kernel shows where that is from the step's first root.
        let base = path_of(&base)?;
        let mut inside = base.as_bytes();
        let root;
        if self.cookie.root() != 0 {
            root = self.own_path("root")?;
            inside = inside
                .strip_prefix(root.as_bytes())
                .filter(|rest| rest.is_empty() || rest.starts_with(b"/"))
                .ok_or(Errno::NOENT)?;
        }
        self.find_below_root(&[inside, b"/", path].concat(), follow)
    }

    fn find_below_root(&self, path: &[u8], follow: Follow) -> Result<Found, Errno> {
        let limit = ResolveFlags::IN_ROOT;
        if self.cookie.root() == 0 {
            return look_up(&self.shared.root, path, follow, limit).map(Found::in_step);
        }
        look_up(self.own("root")?, path, follow, limit).map(Found::in_step)
    }
}

/// Opens what a path leads to, with `O_PATH`.
pub(super) fn look_up(
    base: impl AsFd,
    path: &[u8],
    follow: Follow,
    limit: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    if follow == Follow::No {
        flags |= OFlags::NOFOLLOW;
    }
    let limit = limit | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 1;
    loop {
        match openat2(&base, os(path), flags, Mode::empty(), limit) {
            Err(Errno::AGAIN) if tries < TRIES => tries += 1,
            other => return other,
        }
    }
}

/// The number of the descriptor that a path names, which only the caller's /proc could
/// resolve.
fn own_descriptor(path: &[u8]) -> Option<i32> {
    let directories: [&[u8]; 3] = [b"/proc/self/fd/", b"/proc/thread-self/fd/", b"/dev/fd/"];
    let number = directories
        .iter()
        .find_map(|directory| path.strip_prefix(*directory))?;
    str::from_utf8(number).ok()?.parse().ok()
}

/// A path without its last name, and that name with the slashes after it.
fn split(path: &[u8]) -> Result<(&[u8], &[u8]), Errno> {
    if path.is_empty() {
        return Err(Errno::NOENT);
    }
    let Some(end) = path.iter().rposition(|byte| *byte != b'/') else {
        return Ok((b"/", b"."));
    };
    let begin = path
        .get(..end)
        .and_then(|before| before.iter().rposition(|byte| *byte == b'/'));
    Ok(match begin {
        None => (b".", path),
        Some(slash) => (
            path.get(..=slash).unwrap_or(b"/"),
            path.get(slash + 1..).unwrap_or(b"."),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_known_by_their_paths() {
        assert_eq!(own_descriptor(b"/proc/self/fd/17"), Some(17));
        assert_eq!(own_descriptor(b"/dev/fd/3"), Some(3));
        for other in [
            "/proc/self/fd/",
            "/proc/self/fd/3/x",
            "/proc/1/fd/3",
            "fd/3",
        ] {
            assert_eq!(own_descriptor(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn paths_are_split_before_the_last_name() {
        let table: &[(&str, (&str, &str))] = &[
            ("a", (".", "a")),
            ("a/", (".", "a/")),
            ("/a", ("/", "a")),
            ("a//b//", ("a//", "b//")),
            ("/", ("/", ".")),
            ("//", ("/", ".")),
            ("a/..", ("a/", "..")),
        ];
        for (path, (parent, name)) in table {
            let expected = (parent.as_bytes(), name.as_bytes());
            assert_eq!(split(path.as_bytes()), Ok(expected), "{path}");
        }
        assert_eq!(split(b""), Err(Errno::NOENT));
    }
}
