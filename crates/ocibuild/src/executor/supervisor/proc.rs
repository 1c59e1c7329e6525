//! /proc as the step sees it: the machine's, but only the step's own processes, and with
//! the paths and identities that they believe in.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use rustix::fs::{
    FileType, MemfdFlags, Mode, OFlags, ResolveFlags, fstat, memfd_create, openat, openat2,
};
use rustix::io::Errno;

use super::call::Fault;
use super::cookie::Cookie;
use super::guest::{Guest, of_io, read_link};
use super::resolve::{Found, Origin};

/// What says too much about the machine: empty for the step, as by runc's default.
pub(super) const HIDDEN: &[&str] = &[
    "acpi",
    "asound",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
];

const HOST_NAME: &str = "sys/kernel/hostname";

/// The largest file of /proc that is rewritten.
const MAX_SIZE: u64 = 64 << 20;

/// Where in /proc a walk is. Paths are from /proc on.
#[derive(Debug)]
pub(super) enum Process {
    /// /proc itself.
    Top,
    /// The directory of a process or a thread.
    Directory(String),
    /// Its directory `fd`, or `ns`: links that are files.
    Files(String),
    /// Its directory `task`.
    Threads(String),
    /// A link that leads to a file, wherever that is.
    Magic(Magic),
    /// Anything else.
    Other(String),
}

/// A link that leads to a file, wherever that is.
#[derive(Debug, Clone)]
pub(super) struct Magic {
    path: String,
    kind: MagicKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MagicKind {
    Program,
    Directory,
    Root,
    Descriptor,
}

/// What is in a file that is not as the machine has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Content {
    /// The names in /proc.
    Listing,
    /// Mounts, as in /proc/mounts.
    Mounts,
    /// Mounts, as in /proc/self/mountinfo.
    MountInfo,
    /// The state of a process, whose path in /proc this is.
    Status(String),
    /// The state of the caller, by a path in its own /proc.
    OwnStatus(Vec<u8>),
    /// The memory of a process, whose path in /proc this is.
    Maps(String),
    /// The name of the machine.
    HostName,
}

/// /proc.
pub(super) fn top(guest: &Guest<'_>) -> Result<Found, Errno> {
    Ok(Found {
        origin: Origin::Bind { writable: false },
        content: Some(Content::Listing),
        ..Found::in_step(guest.shared.proc.try_clone().map_err(of_io)?)
    })
}

/// A name in a directory of /proc.
pub(super) fn child(
    guest: &Guest<'_>,
    directory: &Process,
    name: &[u8],
) -> Result<(Found, Process), Errno> {
    let text = str::from_utf8(name).map_err(|_| Errno::NOENT)?;
    match directory {
        Process::Top => top_child(guest, text),
        Process::Directory(path) => process_child(guest, path, text),
        Process::Files(path) => magic(guest, format!("{path}/{text}"), MagicKind::Descriptor),
        Process::Threads(path) => {
            let path = format!("{path}/{text}");
            Ok((open(guest, &path)?, Process::Directory(path)))
        }
        Process::Other(path) if is_hidden(path) => Err(Errno::NOENT),
        Process::Other(path) => {
            let path = format!("{path}/{text}");
            let is_of_process = path.starts_with(|first: char| first.is_ascii_digit());
            let mut found = open(guest, &path)?;
            if !is_of_process {
                found.origin = Origin::Bind { writable: false };
            }
            if path == HOST_NAME {
                found.content = Some(Content::HostName);
            }
            Ok((found, Process::Other(path)))
        }
        Process::Magic(_) => Err(Errno::NOTDIR),
    }
}

fn top_child(guest: &Guest<'_>, name: &str) -> Result<(Found, Process), Errno> {
    if let Ok(pid) = name.parse::<i32>() {
        if !guest.shared.step.has(pid) {
            return Err(Errno::NOENT);
        }
        return Ok((open(guest, name)?, Process::Directory(name.to_owned())));
    }
    let mut found = open(guest, name)?;
    if is_hidden(name) {
        (found.file, found.origin) = emptied(guest, &found.file)?;
        return Ok((found, Process::Other(name.to_owned())));
    }
    found.origin = Origin::Bind { writable: false };
    match name {
        "self" => found.link = Some(guest.process()?.to_string().into_bytes()),
        "thread-self" => {
            let link = format!("{}/task/{}", guest.process()?, guest.pid);
            found.link = Some(link.into_bytes());
        }
        _ => {}
    }
    Ok((found, Process::Other(name.to_owned())))
}

fn is_hidden(name: &str) -> bool {
    HIDDEN.contains(&name)
}

/// What is seen in place of something that is hidden.
fn emptied(guest: &Guest<'_>, hidden: &OwnedFd) -> Result<(OwnedFd, Origin), Errno> {
    let is_directory = FileType::from_raw_mode(fstat(hidden)?.st_mode) == FileType::Directory;
    match &guest.shared.plan.folder {
        Some(folder) if is_directory => {
            let origin = Origin::Bind { writable: false };
            Ok((super::devices::empty(folder)?, origin))
        }
        _ => {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let nothing = rustix::fs::open("/dev/null", flags, Mode::empty())?;
            Ok((nothing, Origin::Kernel))
        }
    }
}

fn process_child(
    guest: &Guest<'_>,
    directory: &str,
    name: &str,
) -> Result<(Found, Process), Errno> {
    let path = format!("{directory}/{name}");
    let kind = match name {
        "exe" => Some(MagicKind::Program),
        "cwd" => Some(MagicKind::Directory),
        "root" => Some(MagicKind::Root),
        "map_files" => return Err(Errno::ACCESS),
        _ => None,
    };
    if let Some(kind) = kind {
        return magic(guest, path, kind);
    }
    let mut found = open(guest, &path)?;
    found.content = match name {
        "mounts" => Some(Content::Mounts),
        "mountinfo" => Some(Content::MountInfo),
        "status" => Some(Content::Status(path.clone())),
        "maps" | "smaps" | "numa_maps" => Some(Content::Maps(path.clone())),
        _ => None,
    };
    let process = match name {
        "fd" | "ns" => Process::Files(path),
        "task" => Process::Threads(path),
        _ => Process::Other(path),
    };
    Ok((found, process))
}

fn open(guest: &Guest<'_>, path: &str) -> Result<Found, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(&guest.shared.proc, path, flags, Mode::empty())?;
    Ok(Found {
        origin: Origin::Kernel,
        ..Found::in_step(file)
    })
}

fn magic(guest: &Guest<'_>, path: String, kind: MagicKind) -> Result<(Found, Process), Errno> {
    let mut found = open(guest, &path)?;
    let shown = read_link(&guest.shared.proc, &path)?.into_vec();
    found.link = Some(match kind {
        MagicKind::Root => guest.root_path().unwrap_or_else(|| b"/".to_vec()),
        MagicKind::Program => guest.shared.seen_program(&shown),
        MagicKind::Directory | MagicKind::Descriptor => guest.shared.seen(&shown),
    });
    Ok((found, Process::Magic(Magic { path, kind })))
}

/// Opens what such a link leads to.
pub(super) fn follow(guest: &Guest<'_>, magic: &Magic) -> Result<Found, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    if magic.kind == MagicKind::Root {
        return Ok(Found::in_step(
            guest.shared.root.try_clone().map_err(of_io)?,
        ));
    }
    let mut file = openat(&guest.shared.proc, &magic.path, flags, Mode::empty())?;
    if magic.kind == MagicKind::Program {
        let shown = read_link(&guest.shared.proc, &magic.path)?;
        if let Some(original) = guest.shared.original(Path::new(&shown)) {
            file = rustix::fs::open(original, flags, Mode::empty())?;
        }
    }
    guest.belongs(file).map_err(|fault| match fault {
        Fault::Errno(errno) => errno,
        Fault::Continue => Errno::NOENT,
    })
}

/// Whether a path is that of the state of who asks.
pub(super) fn is_own_status(path: &[u8]) -> bool {
    matches!(path, b"/proc/self/status" | b"/proc/thread-self/status")
}

/// The last of the ids in a line: the one in the innermost namespace.
fn own_id(status: &str, name: &str) -> Option<i32> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().last()?.parse().ok()
}

fn text_of(file: OwnedFd) -> Result<String, Errno> {
    let mut bytes = Vec::new();
    std::fs::File::from(file)
        .take(MAX_SIZE)
        .read_to_end(&mut bytes)
        .map_err(of_io)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

impl Guest<'_> {
    /// The process that the thread is one of.
    pub(super) fn process(&self) -> Result<i32, Errno> {
        let status = self.proc_text(&format!("{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
        line.and_then(|pid| pid.trim().parse().ok())
            .ok_or(Errno::SRCH)
    }

    /// The id of its process in the innermost namespace.
    pub(super) fn own_id(&self) -> Result<i32, Errno> {
        let status = self.proc_text(&format!("{}/status", self.pid))?;
        own_id(&status, "NStgid:").ok_or(Errno::SRCH)
    }

    fn proc_text(&self, path: &str) -> Result<String, Errno> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        text_of(openat(&self.shared.proc, path, flags, Mode::empty())?)
    }

    /// Opens a file that is made up.
    pub(super) fn open_content(&self, content: &Content) -> Result<OwnedFd, Errno> {
        let text = match content {
            Content::Listing => return self.shared.list_processes(),
            Content::Mounts => self.shared.mounts(),
            Content::MountInfo => self.shared.mount_info(),
            Content::Status(path) => {
                let pid = path.rsplit('/').nth(1).and_then(|pid| pid.parse().ok());
                let cookie = Cookie::of(pid.ok_or(Errno::NOENT)?)?;
                self.status(&self.proc_text(path)?, cookie)
            }
            Content::OwnStatus(path) => self.status(&self.own_status(path)?, self.cookie),
            Content::Maps(path) => self.maps(path)?,
            Content::HostName => format!("{}\n", self.shared.plan.hostname),
        };
        let file = memfd_create("proc", MemfdFlags::CLOEXEC)?;
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let written = rustix::io::write(&file, rest)?;
            rest = rest.get(written..).unwrap_or_default();
        }
        // The reader begins at the start and cannot write.
        rustix::fs::open(
            super::guest::name_of(&file),
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
    }

    /// The state of the caller as its own /proc has it, where it may have another id.
    fn own_status(&self, path: &[u8]) -> Result<String, Errno> {
        let text = self.proc_text(&format!("{}/status", self.pid))?;
        let thread = own_id(&text, "NSpid:").ok_or(Errno::NOENT)?;
        let process = own_id(&text, "NStgid:").ok_or(Errno::NOENT)?;
        let path = if path.starts_with(b"/proc/self/") {
            format!("/proc/{process}/status")
        } else {
            format!("/proc/{process}/task/{thread}/status")
        };
        let limit = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat2(&self.shared.root, path, flags, Mode::empty(), limit)?;
        text_of(file)
    }

    fn status(&self, text: &str, cookie: Cookie) -> String {
        let who = self.shared.identities.get(cookie.credentials());
        let four = |ids: super::credentials::Ids| {
            format!(
                "{}\t{}\t{}\t{}",
                ids.real, ids.effective, ids.saved, ids.files
            )
        };
        let groups: Vec<String> = who.groups.iter().map(u32::to_string).collect();
        let caps = who.caps;
        let lines = text.lines().map(|line| {
            let name = line.split(':').next().unwrap_or_default();
            let value = match name {
                "Uid" => four(who.uid),
                "Gid" => four(who.gid),
                "Groups" => groups.join(" ") + " ",
                "TracerPid" => "0".to_owned(),
                "CapInh" => format!("{:016x}", caps.inheritable),
                "CapPrm" => format!("{:016x}", caps.permitted),
                "CapEff" => format!("{:016x}", caps.effective),
                "CapBnd" => format!("{:016x}", caps.bounding),
                "CapAmb" => format!("{:016x}", caps.ambient),
                "NoNewPrivs" => u8::from(who.no_new_privileges).to_string(),
                _ => return format!("{line}\n"),
            };
            format!("{name}:\t{value}\n")
        });
        lines.collect()
    }

    fn maps(&self, path: &str) -> Result<String, Errno> {
        let text = self.proc_text(path)?;
        let lines = text.lines().map(|line| match line.find(" /") {
            Some(place) => {
                let (start, shown) = line.split_at(place + 1);
                let seen = self.shared.seen_program(shown.as_bytes());
                format!("{start}{}\n", String::from_utf8_lossy(&seen))
            }
            None => format!("{line}\n"),
        });
        Ok(lines.collect())
    }
}
