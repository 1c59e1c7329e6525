//! The calls that open files.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, major, minor, openat, openat2, readlinkat};
use rustix::io::Errno;

use super::super::sys;
use super::access::{self, READ, WRITE};
use super::call::{Answer, Call, Fault, Outcome};
use super::guest::{Guest, name_of, of_io, os, path_of};
use super::owners::kind;
use super::proc::{self, Content};
use super::resolve::{Follow, Found, Origin};
use super::{Owners, View};
use crate::ownership::{self, Device, Seen};

/// How many links a path may lead through, as in the kernel.
const MAX_LINKS: usize = 40;

/// The devices that a step may use, by number, and where they are.
const DEVICES: &[(u32, u32, &str)] = &[
    (1, 3, "null"),
    (1, 5, "zero"),
    (1, 7, "full"),
    (1, 8, "random"),
    (1, 9, "urandom"),
    (5, 0, "tty"),
    (5, 2, "ptmx"),
];

/// What a program asks for in opening a file.
#[derive(Debug, Clone, Copy)]
struct Wish {
    flags: OFlags,
    mode: u32,
}

impl Wish {
    fn new(flags: u64, mode: u64) -> Self {
        Self {
            flags: OFlags::from_bits_retain(flags as u32),
            mode: mode as u32 & 0o7777,
        }
    }

    fn makes(self) -> bool {
        self.flags.contains(OFlags::CREATE)
    }

    fn is_unnamed(self) -> bool {
        self.flags.contains(OFlags::TMPFILE)
    }

    fn follow(self) -> Follow {
        let stays = self.flags.contains(OFlags::NOFOLLOW)
            || self.flags.contains(OFlags::CREATE | OFlags::EXCL);
        if stays { Follow::No } else { Follow::Yes }
    }

    /// What must be allowed of the file.
    fn wanted(self) -> u32 {
        if self.flags.contains(OFlags::PATH) {
            return 0;
        }
        let truncates = if self.flags.contains(OFlags::TRUNC) {
            WRITE
        } else {
            0
        };
        truncates
            | match self.flags & OFlags::RWMODE {
                OFlags::WRONLY => WRITE,
                OFlags::RDWR => READ | WRITE,
                _ => READ,
            }
    }

    fn answer(self, file: OwnedFd) -> Outcome {
        Ok(Answer::Descriptor {
            file,
            close_on_exec: self.flags.contains(OFlags::CLOEXEC),
        })
    }
}

/// open(2).
pub(super) fn open(call: &Call<'_>) -> Outcome {
    let wish = Wish::new(call.long(1), call.long(2));
    open_from(call, libc::AT_FDCWD, &call.path(0)?, wish)
}

/// creat(2).
pub(super) fn creat(call: &Call<'_>) -> Outcome {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC;
    let wish = Wish::new(flags.bits().into(), call.long(1));
    open_from(call, libc::AT_FDCWD, &call.path(0)?, wish)
}

/// openat(2).
pub(super) fn openat_(call: &Call<'_>) -> Outcome {
    let wish = Wish::new(call.long(2), call.long(3));
    open_from(call, call.int(0), &call.path(1)?, wish)
}

/// openat2(2); where the kernel cannot see what the step sees it does not exist.
pub(super) fn openat2_(call: &Call<'_>) -> Outcome {
    if call.guest.kernel_can() {
        let mut how = [0; 24];
        call.guest.read(call.long(2), &mut how)?;
        let word = |place: usize| {
            let bytes = how.get(place..).and_then(|bytes| bytes.first_chunk());
            u64::from_le_bytes(bytes.copied().unwrap_or_default())
        };
        if word(16) != 0 {
            return Ok(Answer::Continue);
        }
        return open_from(
            call,
            call.int(0),
            &call.path(1)?,
            Wish::new(word(0), word(8)),
        );
    }
    Err(Errno::NOSYS.into())
}

fn open_from(call: &Call<'_>, directory: i32, path: &[u8], wish: Wish) -> Outcome {
    let guest = &call.guest;
    let who = guest.credentials();
    let is_root = Guest::is_plain_root(&who);
    if guest.kernel_can() && proc::is_own_status(path) {
        let file = guest.open_content(&Content::OwnStatus(path.to_vec()))?;
        return wish.answer(file);
    }
    if guest.kernel_can() && is_root && !wish.makes() && !may_be_device(guest, path) {
        return Ok(Answer::Continue);
    }
    if wish.is_unnamed() {
        return open_unnamed(guest, directory, path, wish);
    }
    if wish.makes() && guest.kernel_can() {
        // The kernel makes and opens at once; whether there is a file must be known.
        return match guest.find_existing(directory, path, wish.follow()) {
            Ok(Some(found)) => open_found(call, &found, wish),
            Ok(None) => make(call, directory, path, wish),
            Err(_) => Ok(Answer::Continue),
        };
    }
    match guest.find(directory, path, wish.follow()) {
        Err(Fault::Errno(Errno::NOENT)) if wish.makes() => make(call, directory, path, wish),
        other => open_found(call, &other?, wish),
    }
}

/// Opens a file that is there.
fn open_found(call: &Call<'_>, found: &Found, wish: Wish) -> Outcome {
    let guest = &call.guest;
    if wish.makes() && wish.flags.contains(OFlags::EXCL) {
        return Err(Errno::EXIST.into());
    }
    let who = guest.credentials();
    let seen = guest.look(found)?;
    let recorded = guest.shared.plan.owners == Owners::Recorded;
    if recorded {
        guest.check_seen(&who, found, &seen, wish.wanted())?;
        if wish.flags.contains(OFlags::NOATIME) && !access::owns(&who, &seen.meant()) {
            return Err(Errno::PERM.into());
        }
        if let Some(device) = seen.meant().device
            && !wish.flags.contains(OFlags::PATH)
        {
            return open_device(guest, device, wish);
        }
    }
    if !recorded && found.origin == Origin::Step && !wish.flags.contains(OFlags::PATH) {
        let (major, minor) = (major(seen.stat.st_rdev), minor(seen.stat.st_rdev));
        match kind(&seen) {
            // As if the tree were mounted without devices.
            FileType::CharacterDevice => {
                return open_device(guest, Device::Char(major, minor), wish);
            }
            FileType::BlockDevice => return Err(Errno::ACCESS.into()),
            _ => {}
        }
    }
    let is_looked_at = wish.flags.contains(OFlags::PATH);
    if guest.kernel_takes(found) || (is_looked_at && guest.kernel_finds(found)) {
        return Ok(Answer::Continue);
    }
    guest.open_in_tree(call, found, &seen, wish)
}

/// Opens what a node of the step's stands for.
fn open_device(guest: &Guest<'_>, device: Device, wish: Wish) -> Outcome {
    let Device::Char(major, minor) = device else {
        return Err(Errno::ACCESS.into());
    };
    let known = DEVICES
        .iter()
        .find(|known| (known.0, known.1) == (major, minor));
    let Some((_, _, name)) = known else {
        return Err(Errno::ACCESS.into());
    };
    let flags = wish
        .flags
        .difference(OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW);
    let path = format!("/dev/{name}");
    let file = match guest.shared.plan.view {
        View::Mounts => openat2(
            &guest.shared.root,
            path,
            flags,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        ),
        View::Chroot | View::Translated => rustix::fs::open(path, flags, Mode::empty()),
    };
    wish.answer(file?)
}

/// Whether a path may lead to a file that stands for a device. Images hardly have any, so
/// names tell, until the step makes some itself.
fn may_be_device(guest: &Guest<'_>, path: &[u8]) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    let is_in_dev = path.starts_with(b"/dev/");
    guest.shared.has_devices()
        || (!is_in_dev && DEVICES.iter().any(|known| known.2.as_bytes() == name))
}

/// Makes a file and opens it.
fn make(call: &Call<'_>, directory: i32, path: &[u8], wish: Wish) -> Outcome {
    let guest = &call.guest;
    let (parent, name) = match wish.follow() {
        Follow::No => {
            let (parent, name) = guest.find_parent(directory, path)?;
            (parent, name.to_vec())
        }
        Follow::Yes => guest.find_place(directory, path)?,
    };
    let mode = wish.mode & !guest.cookie.umask();
    let record = guest.plan_file(&parent, FileType::RegularFile, mode)?;
    if guest.kernel_can() && guest.leaves_to_kernel(&parent, &record) {
        return Ok(Answer::Continue);
    }
    let on_disk = Mode::from_raw_mode(guest.disk_mode(&record, FileType::RegularFile));
    let flags = wish.flags | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let made = guest.acting(|| openat(&parent.file, os(&name), flags, on_disk));
    let file = match made {
        // Another process was faster.
        Err(Errno::EXIST) if !wish.flags.contains(OFlags::EXCL) => {
            let found = guest.find(directory, path, wish.follow())?;
            return open_found(call, &found, wish);
        }
        other => other?,
    };
    if guest.shared.plan.owners == Owners::Recorded {
        ownership::write_new(&file, &record)?;
    }
    wish.answer(file)
}

/// Makes a file without a name in a directory.
fn open_unnamed(guest: &Guest<'_>, directory: i32, path: &[u8], wish: Wish) -> Outcome {
    let parent = guest.find(directory, path, Follow::Yes)?;
    let mode = wish.mode & !guest.cookie.umask();
    let record = guest.plan_file(&parent, FileType::RegularFile, mode)?;
    if guest.kernel_can() && guest.leaves_to_kernel(&parent, &record) {
        return Ok(Answer::Continue);
    }
    let on_disk = Mode::from_raw_mode(guest.disk_mode(&record, FileType::RegularFile));
    let flags = wish.flags | OFlags::CLOEXEC;
    let file = guest.acting(|| openat(&parent.file, ".", flags, on_disk))?;
    if guest.shared.plan.owners == Owners::Recorded {
        ownership::write_new(&file, &record)?;
    }
    wish.answer(file)
}

impl Guest<'_> {
    /// Finds what is at a path with mounts, if anything is.
    fn find_existing(
        &self,
        directory: i32,
        path: &[u8],
        follow: Follow,
    ) -> Result<Option<Found>, Fault> {
        match self.find_mounted(directory, path, follow) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Finds the directory and name that a path leads to where nothing is yet, after
    /// links.
    pub(super) fn find_place(
        &self,
        directory: i32,
        path: &[u8],
    ) -> Result<(Found, Vec<u8>), Fault> {
        let (mut parent, name) = self.find_parent(directory, path)?;
        let mut name = name.to_vec();
        for _ in 0..MAX_LINKS {
            if name.ends_with(b"/") {
                return Err(Errno::ISDIR.into());
            }
            let target = match readlinkat(&parent.file, os(&name), Vec::new()) {
                Err(Errno::INVAL | Errno::NOENT) => return Ok((parent, name)),
                other => other?.into_bytes(),
            };
            let target = if target.starts_with(b"/") {
                target
            } else {
                let above = self.inside(path_of(&parent.file)?.as_bytes());
                [&above, &b"/"[..], &target].concat()
            };
            let (next, last) = self.find_parent(libc::AT_FDCWD, &target)?;
            name = last.to_vec();
            parent = next;
        }
        Err(Errno::LOOP.into())
    }

    /// Opens a file for the step that was found in its tree.
    fn open_in_tree(&self, call: &Call<'_>, found: &Found, seen: &Seen, wish: Wish) -> Outcome {
        let flags = wish.flags;
        if wish.wanted() & WRITE != 0 {
            found.check_writable()?;
        }
        if let Some(content) = &found.content {
            if wish.wanted() & WRITE != 0 {
                return Err(Errno::ACCESS.into());
            }
            return wish.answer(self.open_content(content)?);
        }
        match kind(seen) {
            FileType::Symlink => return Err(Errno::LOOP.into()),
            FileType::Socket => return Err(Errno::NXIO.into()),
            file_type if flags.contains(OFlags::DIRECTORY) && file_type != FileType::Directory => {
                return Err(Errno::NOTDIR.into());
            }
            _ => {}
        }
        let path = name_of(&found.file);
        let again = reopened(flags);
        if kind(seen) == FileType::Fifo && !again.contains(OFlags::NONBLOCK) {
            return self.open_pipe(call, found, wish);
        }
        if is_terminal_of_caller(seen) {
            // That of the builder is not the step's.
            return Err(Errno::NXIO.into());
        }
        let open = || rustix::fs::open(&*path, again, Mode::empty());
        let file = match found.origin {
            // Such as a pipe that the builder made.
            Origin::Kernel => open()?,
            _ => self.acting(open)?,
        };
        wish.answer(file)
    }

    /// Opens a pipe with a name, which may take until another program opens its other
    /// end, in a thread of its own.
    fn open_pipe(&self, call: &Call<'_>, found: &Found, wish: Wish) -> Outcome {
        let close_on_exec = wish.flags.contains(OFlags::CLOEXEC);
        let file = found.file.try_clone().map_err(of_io)?;
        let listener = self.shared.listener.try_clone().map_err(of_io)?;
        let id = call.notification.id;
        let answer = move || {
            let opened = rustix::fs::open(name_of(&file), reopened(wish.flags), Mode::empty());
            // The caller may have been killed meanwhile.
            let _ = match opened {
                Ok(file) => {
                    sys::give_descriptor(listener.as_fd(), id, file, close_on_exec, true).map(drop)
                }
                Err(errno) => sys::answer(listener.as_fd(), id, Err(errno)),
            };
        };
        std::thread::Builder::new()
            .name("pipe".into())
            .spawn(answer)
            .map_err(of_io)?;
        Ok(Answer::Later)
    }
}

/// Flags with which a file that was found is opened. A descriptor of `O_PATH` cannot be
/// handed over, so there it is one for reading.
fn reopened(flags: OFlags) -> OFlags {
    let mut again =
        flags.difference(OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::PATH);
    if flags.contains(OFlags::PATH) {
        // Who only looks at a pipe waits for nobody.
        again |= OFlags::NONBLOCK;
    }
    again | OFlags::CLOEXEC | OFlags::NOCTTY
}

/// Whether it is /dev/tty.
fn is_terminal_of_caller(seen: &Seen) -> bool {
    kind(seen) == FileType::CharacterDevice && seen.stat.st_rdev == rustix::fs::makedev(5, 0)
}
