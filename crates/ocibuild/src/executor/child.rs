//! The process that becomes the command: a list of steps whose order matters.
//!
//! It starts as root of its user namespace with all capabilities, in the helper's
//! mount namespace, and gives up one thing after the other. A failure on the way goes
//! to the helper; success is the socket closing at exec.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Gid, Mode, OFlags, ResolveFlags, Uid, chown, fchown, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, mount_move, unmount};
use rustix::process::{Signal, chdir, chroot, pivot_root, set_parent_process_death_signal, setsid};
use rustix::system::sethostname;
use rustix::thread::{UnshareFlags, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::error::{Attempt, Failure};
use super::ground::Ground;
use super::listener;
use super::supervise::Report;
use super::supervisor::View;
use super::tree::Tree;
use super::user::{self, User};
use super::wire::{self, Settings};
use super::{Network, RunSpec, caps, confine, mounts, seccomp, sys};
use crate::ownership::{self, Record};

/// The largest /etc/passwd or /etc/group that is read.
const MAX_USER_FILE: u64 = 16 << 20;

/// Becomes the command, or tells the helper why not.
pub(super) fn become_command(
    spec: &RunSpec,
    settings: Settings,
    ground: &Ground,
    helper: UnixStream,
) -> ! {
    if let Err(failure) = prepare_and_exec(spec, settings, ground, &helper) {
        // Without a helper there is nobody to tell.
        let _ = wire::send(&helper, &Report::Failed(failure), None);
    }
    std::process::exit(0)
}

/// Returns only in a rehearsal, or with a failure.
fn prepare_and_exec(
    spec: &RunSpec,
    settings: Settings,
    ground: &Ground,
    mut helper: &UnixStream,
) -> Result<(), Failure> {
    die_with_helper()?;
    // A helper that died before the line above closed its end.
    helper
        .read_exact(&mut [0])
        .attempt("read", "the start signal")?;

    let user = match ground {
        Ground::Mounted(root) => {
            enter_namespaces(spec)?;
            let made = mounts::mount_all(spec, settings, root)?;
            wire::send(helper, &Report::Made(made), None).attempt("write", "the report")?;
            enter_root(&root.merged())?;
            let user = find_user(spec, settings, &open_root("/")?)?;
            enter_directory(&spec.cwd, &user, settings)?;
            user
        }
        Ground::Plain(tree) => {
            let user = find_user(spec, settings, tree.root())?;
            tree.make_working_directory(Path::new(&spec.cwd), user.uid, user.gid)?;
            user
        }
    };
    let command = Command::of(spec, &user)?;
    set_up_streams(&user, settings)?;
    detach_from_builder()?;
    match ground {
        Ground::Mounted(_) => {
            if !spec.privileged {
                caps::limit_bounding_set()?;
            }
            keep_to_itself()?;
        }
        Ground::Plain(tree) => confine_to(tree, spec.network)?,
    }
    if settings.supervised {
        let rules = ground.plan(spec)?.rules();
        listener::hand_over(spec.sync, &rules, helper)?;
    } else if !spec.privileged {
        // While there is still CAP_SYS_ADMIN: without it the kernel would want
        // `no_new_privs`, and sudo would break.
        seccomp::confine(spec.sync).attempt("seccomp", "SECCOMP_SET_MODE_FILTER")?;
    }
    if let Ground::Plain(_) = ground {
        // Only now does a path mean what it means to the command.
        chdir(&*spec.cwd).attempt("chdir", &spec.cwd)?;
    }
    become_user(&user, settings, spec.privileged)?;
    // Changing ids has cleared it.
    die_with_helper()?;
    if settings.rehearsal {
        Ok(())
    } else {
        Err(command.exec())
    }
}

fn die_with_helper() -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::KILL)).attempt("prctl", "PR_SET_PDEATHSIG")
}

/// Namespaces of its own for mounts, host name, System V IPC, control groups, and the
/// network if it is to have none.
fn enter_namespaces(spec: &RunSpec) -> Result<(), Failure> {
    let mut flags =
        UnshareFlags::NEWNS | UnshareFlags::NEWUTS | UnshareFlags::NEWIPC | UnshareFlags::NEWCGROUP;
    let mut names = "CLONE_NEWNS|NEWUTS|NEWIPC|NEWCGROUP".to_owned();
    if spec.network == Network::None {
        flags |= UnshareFlags::NEWNET;
        names.push_str("|NEWNET");
    }
    sys::unshare(flags).attempt("unshare", names)?;
    sethostname(spec.hostname.as_bytes()).attempt("sethostname", &spec.hostname)?;
    if spec.network == Network::None {
        sys::bring_up_loopback().attempt("ioctl", "SIOCSIFFLAGS lo")?;
    }
    Ok(())
}

/// Makes the root `/`, and the builder's root unreachable.
fn enter_root(path: &Path) -> Result<(), Failure> {
    chdir(path).attempt("chdir", "the root")?;
    match pivot_root(".", ".") {
        Ok(()) => {
            // The old root now lies over the new one at the same place.
            unmount(".", UnmountFlags::DETACH).attempt("umount", "the builder's root")?;
        }
        // Some container profiles allow mounts and not this.
        Err(Errno::PERM) => {
            mount_move(".", "/").attempt("mount", "the root to / (MS_MOVE)")?;
            chroot(".").attempt("chroot", "the root")?;
        }
        Err(errno) => return Err(errno).attempt("pivot_root", "the root"),
    }
    chdir("/").attempt("chdir", "/")
}

/// Looks the user up in the files of the image.
fn find_user(spec: &RunSpec, settings: Settings, root: &OwnedFd) -> Result<User, Failure> {
    let passwd = read_user_file(root, "/etc/passwd")?;
    let group = read_user_file(root, "/etc/group")?;
    let user = user::find(&spec.user, &passwd, &group)?;
    let unmapped = [user.uid, user.gid]
        .into_iter()
        .find(|id| *id >= settings.ids);
    match unmapped {
        Some(id) => {
            let (user, available) = (spec.user.clone(), settings.ids);
            Err(Failure::IdNotMapped {
                user,
                id,
                available,
            })
        }
        None => Ok(user),
    }
}

/// Reads a file of the image, which may be anything: a pipe, a device, endless.
fn read_user_file(root: &OwnedFd, path: &str) -> Result<String, Failure> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = match openat2(root, path, flags, Mode::empty(), inside) {
        Err(Errno::NOENT) => return Ok(String::new()),
        other => File::from(other.attempt("openat2", path)?),
    };
    if !file.metadata().attempt("fstat", path)?.is_file() {
        let (path, reason) = (path.to_owned(), "is not a regular file".to_owned());
        return Err(Failure::UnusablePath { path, reason });
    }
    let mut bytes = Vec::new();
    file.take(MAX_USER_FILE)
        .read_to_end(&mut bytes)
        .attempt("read", path)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Goes to the working directory, which is made where it is missing: 0755, the user's.
fn enter_directory(path: &str, user: &User, settings: Settings) -> Result<(), Failure> {
    let path = Path::new("/").join(path);
    let mut walked = PathBuf::new();
    for component in path.components() {
        walked.push(component);
        match fs::create_dir(&walked) {
            Ok(()) if settings.supervised => record_owner(&walked, user)?,
            Ok(()) => {
                let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
                chown(&walked, Some(uid), Some(gid)).attempt("chown", walked.display())?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => Err(error).attempt("mkdir", walked.display())?,
        }
    }
    chdir(&path).attempt("chdir", path.display())
}

/// Says whose a directory is that was made.
fn record_owner(path: &Path, user: &User) -> Result<(), Failure> {
    let directory = File::open(path).attempt("open", path.display())?;
    let record = Record {
        uid: user.uid,
        gid: user.gid,
        mode: 0o755,
        device: None,
    };
    ownership::write(&directory, &record)
        .map_err(|error| error.errno())
        .attempt("fsetxattr", path.display())
}

/// Gives the command nothing to read, and its output pipes to its user, who may open
/// them again by name.
fn set_up_streams(user: &User, settings: Settings) -> Result<(), Failure> {
    let nothing = File::open("/dev/null").attempt("open", "/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing).attempt("dup2", "0")?;
    if settings.supervised {
        // They belong to the one user there is.
        return Ok(());
    }
    for stream in [rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        fchown(stream, Some(uid), Some(gid)).attempt("fchown", "an output pipe")?;
    }
    Ok(())
}

/// Drops what a process inherits without being asked.
fn detach_from_builder() -> Result<(), Failure> {
    setsid().attempt("setsid", "")?;
    match sys::forget_session_keyring() {
        // Kernels and container profiles without keyrings have none to leak.
        Ok(()) | Err(Errno::NOSYS | Errno::PERM | Errno::ACCESS) => {}
        Err(errno) => Err(errno).attempt("keyctl", "KEYCTL_JOIN_SESSION_KEYRING")?,
    }
    sys::reset_signals();
    sys::close_others_on_exec().attempt("close_range", "3 and up")
}

/// Takes the user's ids and capabilities.
fn become_user(user: &User, settings: Settings, privileged: bool) -> Result<(), Failure> {
    // With one id the kernel has been told that groups stay as they are.
    if settings.ids > 1 {
        let groups = user.groups.iter().filter(|id| **id < settings.ids);
        let groups: Vec<_> = groups.map(|id| Gid::from_raw(*id)).collect();
        set_thread_groups(&groups).attempt("setgroups", format_args!("{:?}", user.groups))?;
    }
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    set_thread_res_gid(gid, gid, gid).attempt("setresgid", user.gid)?;
    set_thread_res_uid(uid, uid, uid).attempt("setresuid", user.uid)?;
    match privileged && user.uid == 0 {
        true => Ok(()),
        false => caps::keep(user.uid == 0),
    }
}

/// Gives up what a command in a plain tree has no use for, and locks it in there.
fn confine_to(tree: &Tree, network: Network) -> Result<(), Failure> {
    let reachable = tree.reachable()?;
    if tree.view() == View::Chroot {
        chroot(tree.path()).attempt("chroot", "the root")?;
        chdir("/").attempt("chdir", "/")?;
    }
    caps::keep_for(tree.owners(), network)?;
    confine::to_files(&confine::rules(&reachable), network)
}

fn open_root(path: &str) -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).attempt("open", path)
}

/// Keeps signals from the builder where they share process ids and a user, and the
/// abstract sockets of the machine's daemons out of reach where they share the network.
/// Kernels before 6.12 cannot.
fn keep_to_itself() -> Result<(), Failure> {
    match sys::scope_to_descendants() {
        Ok(()) | Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::TOOBIG | Errno::INVAL) => Ok(()),
        // A container profile may refuse it.
        Err(Errno::PERM) => Ok(()),
        Err(errno) => Err(errno).attempt("landlock_restrict_self", "signals and sockets"),
    }
}

/// A program, its arguments and its environment, as exec takes them.
struct Command {
    candidates: Vec<CString>,
    argv: Vec<CString>,
    env: Vec<CString>,
    name: String,
}

impl Command {
    fn of(spec: &RunSpec, user: &User) -> Result<Self, Failure> {
        let name = spec.argv.first().cloned().unwrap_or_default();
        let path = spec.env.iter().rev().find(|(name, _)| name == "PATH");
        Ok(Self {
            candidates: candidates(&name, path.map_or("", |(_, value)| value))?,
            argv: spec
                .argv
                .iter()
                .cloned()
                .map(c_string)
                .collect::<Result<_, _>>()?,
            env: environment(spec, user)
                .into_iter()
                .map(c_string)
                .collect::<Result<_, _>>()?,
            name,
        })
    }

    /// Tries one place after the other, as a shell does; returns only the reason why
    /// none was right.
    fn exec(&self) -> Failure {
        let program = self.name.clone();
        let mut refused = None;
        for candidate in &self.candidates {
            match sys::execve(candidate, &self.argv, &self.env) {
                Errno::NOENT | Errno::NOTDIR => {}
                Errno::ACCESS => refused = Some(Errno::ACCESS),
                errno => {
                    return Failure::NotExecutable {
                        program,
                        errno: errno.raw_os_error(),
                    };
                }
            }
        }
        match refused {
            Some(errno) => Failure::NotExecutable {
                program,
                errno: errno.raw_os_error(),
            },
            None => Failure::CommandNotFound { program },
        }
    }
}

/// The entries of the environment, each name once.
fn environment(spec: &RunSpec, user: &User) -> Vec<Vec<u8>> {
    let is_secret = |name: &str| spec.secret_env.iter().any(|(secret, _)| secret == name);
    let plain = spec.env.iter().filter(|(name, _)| !is_secret(name));
    let mut entries: Vec<Vec<u8>> = plain
        .map(|(name, value)| format!("{name}={value}").into_bytes())
        .collect();
    if !is_secret("HOME") && !spec.env.iter().any(|(name, _)| name == "HOME") {
        entries.push(format!("HOME={}", user.home).into_bytes());
    }
    for (name, value) in &spec.secret_env {
        entries.push([name.as_bytes(), b"=", value.expose()].concat());
    }
    entries
}

/// Where a program may be: at its path, or in the directories of `PATH`.
fn candidates(name: &str, path: &str) -> Result<Vec<CString>, Failure> {
    if name.contains('/') {
        return Ok(vec![c_string(name.to_owned())?]);
    }
    let directories = path.split(':').filter(|directory| !directory.is_empty());
    directories
        .map(|directory| c_string(format!("{directory}/{name}")))
        .collect()
}

fn c_string(text: impl Into<Vec<u8>>) -> Result<CString, Failure> {
    CString::new(text).map_err(|_| Failure::Garbled)
}
