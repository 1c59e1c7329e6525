//! The root file system of a command where nothing can be mounted: its layers merged in a
//! plain directory, and what else it is to see, which its supervisor shows it.
//!
//! ```text
//! <work>/
//!   merged/tree/    the root
//!   sources/        other layers that are shown in the root
//!   empty/          directories that are empty at first
//!   programs/       what the kernel is told to execute (see `tracer`)
//!   dev/            the root's /dev
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    CWD, FileType, Gid, MemfdFlags, Mode, OFlags, ResolveFlags, SealFlags, StatVfsMountFlags, Uid,
    fcntl_add_seals, fstat, memfd_create, openat, openat2, statvfs,
};

use super::error::{Attempt, Failure};
use super::place::{self, Kind, Made, Places};
use super::root::by_descriptor;
use super::supervisor::{Bind, Owners, Plan, View};
use super::sys::Access;
use super::tracer::Originals;
use super::wire::Settings;
use super::{Identity, Mount, MountSource, Notes, RunSpec};
use crate::layer::TreePath;
use crate::ownership::{self, Record};
use crate::snapshot::merge::{self, Merged};

/// Where directories are that are empty at first, in the work directory.
pub(super) const EMPTY: &str = "empty";

/// Directories that stay in the layer where the image lacks them, as with the reference
/// builder.
const KERNELS: &[&str] = &["proc", "sys", "dev"];

/// A merged root file system and what belongs to it.
pub(super) struct Tree {
    merged: Merged,
    /// Trees of other layers, which go when this does.
    sources: Vec<Merged>,
    root: OwnedFd,
    view: View,
    owners: Owners,
    binds: Vec<Bind>,
    made: Vec<Made>,
    originals: Originals,
    upper: PathBuf,
    work: PathBuf,
}

impl Tree {
    /// Merges the layers and prepares what is shown beside them. `pool` is where trees
    /// wait for the next command of their chain.
    pub(super) fn prepare(
        spec: &RunSpec,
        settings: Settings,
        pool: Option<&Path>,
    ) -> Result<Self, Failure> {
        let owners = settings.owners;
        let options = merge::Options {
            identity: match owners {
                Owners::Recorded => Identity::Recorded,
                Owners::Real => Identity::Real,
            },
            notes: Notes::User,
            pool: pool.map(Path::to_owned),
        };
        let rootfs = &spec.rootfs;
        let merged = Merged::take(&rootfs.work.join("merged"), &rootfs.lowers, &options)
            .map_err(|error| not_merged(&error, &rootfs.work))?;
        let root = open_path(merged.path())?;
        let mut tree = Self {
            merged,
            sources: Vec::new(),
            root,
            view: settings.view(spec),
            owners,
            binds: Vec::new(),
            made: Vec::new(),
            originals: Originals::default(),
            upper: rootfs.upper.clone(),
            work: rootfs.work.clone(),
        };
        tree.make_kernels()?;
        make_directory(&tree.programs())?;
        check_execution(&tree.work)?;
        make_directory(&tree.devices())?;
        tree.show_mounts(spec, &options)?;
        let dirs = tree.dirs_of_made();
        tree.merged
            .settle(&dirs)
            .map_err(|error| not_merged(&error, &tree.work))?;
        Ok(tree)
    }

    /// Where the root is on the machine.
    pub(super) fn path(&self) -> &Path {
        self.merged.path()
    }

    /// The root, opened.
    pub(super) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// How the command sees it.
    pub(super) fn view(&self) -> View {
        self.view
    }

    /// Whose ids its files have.
    pub(super) fn owners(&self) -> Owners {
        self.owners
    }

    /// Where programs are put that the kernel is told to execute.
    pub(super) fn programs(&self) -> PathBuf {
        self.work.join("programs")
    }

    /// Which of them are copies of what.
    pub(super) fn originals(&self) -> &Originals {
        &self.originals
    }

    fn devices(&self) -> PathBuf {
        self.work.join("dev")
    }

    /// What the supervisor is to show.
    pub(super) fn plan(&self, spec: &RunSpec) -> Result<Plan, Failure> {
        let again = |bind: &Bind| {
            let source = bind.source.try_clone();
            Ok(Bind {
                target: bind.target.clone(),
                source: source.attempt("dup", bind.target.display())?,
                writable: bind.writable,
            })
        };
        Ok(Plan {
            view: self.view,
            root: Some(self.path().to_owned()),
            owners: self.owners,
            binds: self.binds.iter().map(again).collect::<Result<_, _>>()?,
            folder: Some(self.devices()),
            originals: Some(Arc::new(self.originals.clone())),
            network: spec.network,
            hostname: spec.hostname.clone(),
        })
    }

    /// What the kernel is to let the command reach.
    pub(super) fn reachable(&self) -> Result<Vec<(OwnedFd, Access)>, Failure> {
        let mut files = vec![
            (open_path(self.path())?, Access::All),
            (open_path(&self.programs())?, Access::Read),
            (open_path(&self.devices())?, Access::All),
        ];
        for bind in &self.binds {
            let access = if bind.writable {
                Access::All
            } else {
                Access::Read
            };
            let source = bind.source.try_clone();
            files.push((source.attempt("dup", bind.target.display())?, access));
        }
        Ok(files)
    }

    /// Makes a directory of the root, if it is missing and nothing is shown there.
    pub(super) fn make_working_directory(
        &self,
        path: &Path,
        uid: u32,
        gid: u32,
    ) -> Result<(), Failure> {
        let path = Path::new("/").join(path);
        if self.binds.iter().any(|bind| path.starts_with(&bind.target)) {
            return Ok(());
        }
        let mut places = Places::open(self.path())?;
        places.find_or_make(&path, Kind::Directory)?;
        for made in places.into_made() {
            let path = self.path().join(made.path());
            self.own(&open_path(&path)?, &path, 0o755, uid, gid)?;
        }
        Ok(())
    }

    /// The directories in which something was made that the image does not have.
    fn dirs_of_made(&self) -> Vec<TreePath> {
        let paths = self.made.iter().filter_map(|made| made.path().parent());
        let dirs: BTreeSet<TreePath> = paths
            .filter_map(|path| TreePath::parse(path.as_os_str().as_encoded_bytes()).ok())
            .filter(|path| !path.is_root())
            .collect();
        dirs.into_iter().collect()
    }

    /// Takes away what was made for the command, and leaves what it changed in the upper
    /// directory.
    pub(super) fn finish(mut self) -> Result<(), Failure> {
        let mut untouched = Vec::new();
        for dir in self.dirs_of_made() {
            if self
                .merged
                .is_settled(&dir)
                .map_err(|error| not_merged(&error, &self.work))?
            {
                untouched.push(dir);
            }
        }
        place::remove(self.path(), &self.made)?;
        self.merged
            .settle(&untouched)
            .map_err(|error| not_merged(&error, &self.work))?;
        self.merged
            .changes_into(&self.upper, &BTreeSet::new())
            .map_err(|error| not_merged(&error, &self.upper))?;
        self.merged
            .give_back()
            .map_err(|error| not_merged(&error, &self.work))?;
        drop(self.sources);
        empty(&self.work)
    }

    /// Leaves nothing.
    pub(super) fn abandon(self) -> Result<(), Failure> {
        let Self {
            merged,
            sources,
            work,
            ..
        } = self;
        drop((merged, sources));
        empty(&work)
    }

    fn make_kernels(&self) -> Result<(), Failure> {
        for directory in KERNELS {
            match fs::create_dir(self.path().join(directory)) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(error).attempt("mkdir", format_args!("/{directory}"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn show_mounts(&mut self, spec: &RunSpec, options: &merge::Options) -> Result<(), Failure> {
        let mut places = Places::open(self.path())?;
        for (number, mount) in spec.mounts.iter().enumerate() {
            let (source, writable) = self.source(mount, number, options)?;
            let kind = kind_of(&source, &mount.target)?;
            let target = places.resolve(&mount.target)?;
            // So that it is seen in the directory where it is, too.
            places.find_or_make(&mount.target, kind)?;
            self.binds.push(Bind {
                target: Path::new("/").join(target),
                source,
                writable,
            });
        }
        self.made = places.into_made();
        Ok(())
    }

    /// Opens what a mount shows.
    fn source(
        &mut self,
        mount: &Mount,
        number: usize,
        options: &merge::Options,
    ) -> Result<(OwnedFd, bool), Failure> {
        match &mount.source {
            MountSource::Bind { path, writable } => Ok((open_path(path)?, *writable)),
            MountSource::Layers {
                lowers,
                path,
                writes,
            } => {
                let options = merge::Options {
                    pool: None,
                    ..options.clone()
                };
                let place = self.child("sources", number)?;
                let merged = Merged::take(&place, lowers, &options)
                    .map_err(|error| not_merged(&error, &self.work))?;
                let source = inside(&open_path(merged.path())?, path)?;
                self.sources.push(merged);
                Ok((source, writes.is_some()))
            }
            MountSource::File {
                content,
                mode,
                uid,
                gid,
            } => {
                let file = memory_file(content.expose()).attempt("memfd_create", "a file")?;
                self.own(&file, &mount.target, *mode, *uid, *gid)?;
                Ok((open_path(Path::new(&by_descriptor(&file)))?, false))
            }
            MountSource::Socket {
                path,
                mode,
                uid,
                gid,
            } => {
                let socket = open_path(path)?;
                self.own(&socket, path, *mode, *uid, *gid)?;
                Ok((socket, false))
            }
            MountSource::Tmpfs { .. } => {
                let place = self.child(EMPTY, number)?;
                make_directory(&place)?;
                fs::set_permissions(&place, fs::Permissions::from_mode(0o1777))
                    .attempt("chmod", place.display())?;
                Ok((open_path(&place)?, true))
            }
        }
    }

    /// A place of its own for the source of a mount.
    fn child(&self, folder: &str, number: usize) -> Result<PathBuf, Failure> {
        let folder = self.work.join(folder);
        fs::create_dir_all(&folder).attempt("mkdir", folder.display())?;
        Ok(folder.join(number.to_string()))
    }

    /// Gives a file its owner and mode.
    fn own(
        &self,
        file: &OwnedFd,
        shown: &Path,
        mode: u32,
        uid: u32,
        gid: u32,
    ) -> Result<(), Failure> {
        let mode = mode & 0o7777;
        if self.owners == Owners::Recorded {
            let record = Record {
                uid,
                gid,
                mode,
                device: None,
            };
            return ownership::write(file, &record)
                .map_err(|error| error.errno())
                .attempt("setxattr", shown.display());
        }
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        let path = by_descriptor(file);
        rustix::fs::chown(&*path, Some(uid), Some(gid)).attempt("chown", shown.display())?;
        rustix::fs::chmod(&*path, Mode::from_raw_mode(mode)).attempt("chmod", shown.display())
    }
}

/// A file that is nowhere on a disk, and that nobody can write to who opens it again by
/// the name of a descriptor.
fn memory_file(content: &[u8]) -> std::io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create("file", flags)?);
    file.write_all(content)?;
    fcntl_add_seals(
        &file,
        SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
    )?;
    Ok(file.into())
}

/// Opens something of a tree.
fn inside(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Failure> {
    let limit = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    openat2(root, path, flags, Mode::empty(), limit).attempt("openat2", path.display())
}

fn kind_of(file: &OwnedFd, shown: &Path) -> Result<Kind, Failure> {
    let stat = fstat(file).attempt("fstat", shown.display())?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Directory,
        _ => Kind::File,
    })
}

fn open_path(path: &Path) -> Result<OwnedFd, Failure> {
    openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).attempt("open", path.display())
}

fn make_directory(path: &Path) -> Result<(), Failure> {
    fs::create_dir(path).attempt("mkdir", path.display())
}

/// Fails where the kernel executes nothing, which it says only when it is too late.
fn check_execution(work: &Path) -> Result<(), Failure> {
    let found = statvfs(work).attempt("statvfs", work.display())?;
    if found.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        let (path, reason) = (
            work.display().to_string(),
            "is on a file system mounted noexec",
        );
        let reason = reason.to_owned();
        return Err(Failure::UnusablePath { path, reason });
    }
    Ok(())
}

fn empty(directory: &Path) -> Result<(), Failure> {
    let entries = fs::read_dir(directory).attempt("open", directory.display())?;
    for entry in entries {
        let path = entry.attempt("getdents", directory.display())?.path();
        fs::remove_dir_all(&path).attempt("rmdir", path.display())?;
    }
    Ok(())
}

/// A failure of the merged tree with all its reasons; where there is no room any more, with
/// how much there is.
fn not_merged(error: &crate::snapshot::Error, folder: &Path) -> Failure {
    let mut text = error.to_string();
    let mut reason = std::error::Error::source(error);
    while let Some(cause) = reason {
        text = format!("{text}: {cause}");
        let errno = cause
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::raw_os_error);
        if matches!(errno, Some(libc::ENOSPC | libc::EDQUOT)) {
            text = format!("{text}; {}", room_in(folder));
        }
        reason = cause.source();
    }
    Failure::Tree(text)
}

fn room_in(folder: &Path) -> String {
    let shown = folder.display();
    match statvfs(folder) {
        Ok(found) => {
            let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
            let (free, all) = (bytes(found.f_bavail), bytes(found.f_blocks));
            format!("{free} of {all} bytes are free in {shown}")
        }
        Err(errno) => format!("{shown}: statvfs: {errno}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_said_with_the_room_there_is() {
        let folder = tempfile::tempdir().unwrap();
        let error = crate::snapshot::Error::Tree {
            doing: "copy",
            path: TreePath::parse(b"big").unwrap(),
            source: std::io::Error::from_raw_os_error(libc::ENOSPC),
        };
        let text = not_merged(&error, folder.path()).to_string();
        assert!(
            text.contains("cannot copy /big: No space left on device"),
            "{text}"
        );
        let room = format!("bytes are free in {}", folder.path().display());
        assert!(text.contains(&room), "{text}");
        let denied = std::io::Error::from_raw_os_error(libc::EACCES);
        let error = crate::snapshot::Error::Host {
            doing: "open",
            path: "/x".into(),
            source: denied,
        };
        let text = not_merged(&error, folder.path()).to_string();
        assert!(
            text.ends_with("cannot open /x: Permission denied (os error 13)"),
            "{text}"
        );
    }
}
