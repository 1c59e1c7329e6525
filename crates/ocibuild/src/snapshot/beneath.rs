//! Access to files below a directory whose content is not trusted.
//!
//! Every open is one `openat2` that the kernel keeps inside the tree, whoever changes
//! the tree meanwhile (openat2(2): `RESOLVE_BENEATH`, `RESOLVE_IN_ROOT`,
//! `RESOLVE_NO_MAGICLINKS`). Where the system call is missing or forbidden, or keeps
//! being disturbed by renames, the same walk is done one component at a time.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, readlinkat};
use rustix::io::Errno;

use crate::layer::{TreePath, names};

/// Times that an open disturbed by a rename is done again before the slow walk.
const RETRIES: usize = 8;

/// Symbolic links that may stand on the way; the kernel's own limit.
const MAX_LINKS: usize = 40;

/// What symbolic links on the way mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// They are followed, with the tree as the root.
    Follow,
    /// They are an error (`ELOOP`).
    Refuse,
}

/// A directory that nothing leads out of.
#[derive(Debug)]
pub struct Beneath {
    root: OwnedFd,
}

impl Beneath {
    /// Opens the directory; its own path is trusted.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, path, flags, Mode::empty())?;
        Ok(Self { root })
    }

    /// Gives the directory itself.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Opens a directory for `*at` calls and reading.
    pub fn dir(&self, path: &TreePath, links: Links) -> io::Result<OwnedFd> {
        self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY, links)
    }

    /// Opens a regular file for reading; anything else is an error, and no pipe or
    /// device is waited for.
    pub fn file(&self, path: &TreePath, links: Links) -> io::Result<File> {
        let fd = self.open_at(
            path,
            OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY,
            links,
        )?;
        match FileType::from_raw_mode(fstat(&fd)?.st_mode) {
            FileType::RegularFile => Ok(File::from(fd)),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            )),
        }
    }

    /// Opens what is at a path. The flags may not create.
    pub fn open_at(&self, path: &TreePath, flags: OFlags, links: Links) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        let resolve = match links {
            Links::Follow => ResolveFlags::IN_ROOT,
            Links::Refuse => ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        };
        let resolve = resolve | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..RETRIES {
            match openat2(&self.root, path.as_path(), flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::NOSYS | Errno::PERM) => break,
                opened => return Ok(opened?),
            }
        }
        Ok(self.walk_to(path, flags, links)?)
    }

    /// The same without `openat2`: each component is opened by itself, without
    /// following it, so that a link is always seen as one.
    fn walk_to(&self, path: &TreePath, flags: OFlags, links: Links) -> Result<OwnedFd, Errno> {
        let place = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut todo: VecDeque<Vec<u8>> = names(path.as_bytes()).map(<[u8]>::to_vec).collect();
        let mut above: Vec<OwnedFd> = Vec::new();
        let mut followed = 0;
        while let Some(name) = todo.pop_front() {
            if name == b".." {
                above.pop();
                continue;
            }
            let dir = above.last().unwrap_or(&self.root);
            let next = openat(dir, OsStr::from_bytes(&name), place, Mode::empty())?;
            match FileType::from_raw_mode(fstat(&next)?.st_mode) {
                FileType::Symlink if links == Links::Refuse || followed == MAX_LINKS => {
                    return Err(Errno::LOOP);
                }
                FileType::Symlink => {
                    followed += 1;
                    let target = readlinkat(&next, c"", Vec::new())?.into_bytes();
                    if target.starts_with(b"/") {
                        above.clear();
                    }
                    for name in names(&target).rev() {
                        todo.push_front(name.to_vec());
                    }
                }
                FileType::Directory => above.push(next),
                _ if !todo.is_empty() => return Err(Errno::NOTDIR),
                // The last one: opened once more, now for what is wanted of it.
                _ => {
                    let name = OsStr::from_bytes(&name);
                    return openat(dir, name, flags | OFlags::NOFOLLOW, Mode::empty());
                }
            }
        }
        let dir = above.last().unwrap_or(&self.root);
        openat(dir, c".", flags, Mode::empty())
    }
}

/// A tree whose directories are visited one after the other: the last one stays open.
#[derive(Debug)]
pub(super) struct Tree {
    beneath: Beneath,
    last: Option<(TreePath, OwnedFd)>,
}

impl Tree {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            beneath: Beneath::open(path)?,
            last: None,
        })
    }

    /// Gives a directory; symbolic links on the way are refused.
    pub(super) fn dir(&mut self, path: &TreePath) -> io::Result<BorrowedFd<'_>> {
        if self.last.as_ref().is_none_or(|(last, _)| last != path) {
            self.last = None;
            let fd = self.beneath.dir(path, Links::Refuse)?;
            self.last = Some((path.clone(), fd));
        }
        match &self.last {
            Some((_, fd)) => Ok(fd.as_fd()),
            None => Ok(self.beneath.root()),
        }
    }

    /// Gives the directory that holds a path.
    pub(super) fn parent(&mut self, path: &TreePath) -> io::Result<BorrowedFd<'_>> {
        self.dir(&path.parent().unwrap_or_else(TreePath::root))
    }

    /// Forgets the open directory, before a directory is removed.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }
}

/// Gives the last component of a path for `*at` calls.
pub(super) fn name_of(path: &TreePath) -> &OsStr {
    OsStr::from_bytes(path.file_name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text).expect("a valid path")
    }

    fn tree() -> (tempfile::TempDir, Beneath) {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("secret"), "outside").expect("a file");
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("a/b")).expect("directories");
        fs::write(root.join("a/b/file"), "inside").expect("a file");
        fs::write(root.join("secret"), "inside").expect("a file");
        for (target, name) in [
            ("/a/b", "absolute"),
            ("../../../secret", "a/up"),
            ("../secret", "out"),
            ("loop", "loop"),
            ("b/file", "a/last"),
        ] {
            symlink(target, root.join(name)).expect("a link");
        }
        let beneath = Beneath::open(&root).expect("a tree");
        (dir, beneath)
    }

    /// Both ways of walking must agree.
    fn read(beneath: &Beneath, text: &str, links: Links) -> Result<String, Errno> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let content = |fd: OwnedFd| {
            let mut text = String::new();
            match File::from(fd).read_to_string(&mut text) {
                Ok(_) => text,
                Err(_) => "a directory".to_owned(),
            }
        };
        let fast = beneath.open_at(&path(text), flags, links).map(content);
        let slow = beneath.walk_to(&path(text), flags, links).map(content);
        let errno = |error: io::Error| Errno::from_io_error(&error).expect("a system error");
        assert_eq!(fast.map_err(errno), slow, "{text}");
        slow
    }

    #[test]
    fn links_stay_inside() {
        let (_dir, beneath) = tree();
        let inside = Ok("inside".to_owned());
        for text in ["a/b/file", "absolute/file", "a/up", "out", "a/last"] {
            assert_eq!(read(&beneath, text, Links::Follow), inside, "{text}");
        }
        let directory = Ok("a directory".to_owned());
        for text in ["", "a", "absolute"] {
            assert_eq!(read(&beneath, text, Links::Follow), directory, "{text}");
        }
    }

    #[test]
    fn refused() {
        let (_dir, beneath) = tree();
        for (text, links, want) in [
            ("loop", Links::Follow, Errno::LOOP),
            ("missing/x", Links::Follow, Errno::NOENT),
            ("secret/x", Links::Follow, Errno::NOTDIR),
            ("absolute/file", Links::Refuse, Errno::LOOP),
            ("out", Links::Refuse, Errno::LOOP),
        ] {
            assert_eq!(read(&beneath, text, links), Err(want), "{text}");
        }
        assert!(beneath.file(&path("a"), Links::Follow).is_err());
    }
}
