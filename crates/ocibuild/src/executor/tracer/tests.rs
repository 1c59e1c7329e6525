use super::*;
use super::super::seccomp::{self, Action, Verdict};
use rustix::fs::{openat2, openat, CWD, Mode, OFlags, ResolveFlags};
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::io::{Read, Write};

struct Plain { root: PathBuf, dir: OwnedFd }
impl Plain {
    fn guest(&self, thread: Pid, at: i32, path: &[u8]) -> Result<PathBuf, Errno> {
        let path = Path::new(OsStr::from_bytes(path));
        if path.is_absolute() { return Ok(path.to_owned()); }
        let t = thread.as_raw_nonzero();
        let link = if at == libc::AT_FDCWD { format!("/proc/{t}/cwd") } else { format!("/proc/{t}/fd/{at}") };
        let base = std::fs::read_link(link).map_err(|_| Errno::BADF)?;
        match base.strip_prefix(&self.root) { Ok(b) => Ok(Path::new("/").join(b).join(path)), Err(_) => Ok(base.join(path)) }
    }
}
impl Guest for Plain {
    fn locate(&self, thread: Pid, at: i32, path: &[u8], follow: bool) -> Result<PathBuf, Errno> {
        if path.is_empty() { return Ok(PathBuf::new()); }
        let mut g = self.guest(thread, at, path)?;
        let t = thread.as_raw_nonzero().get();
        if let Ok(rest) = g.strip_prefix("/proc/self") { return Ok(PathBuf::from(format!("/proc/{t}")).join(rest)); }
        if let Ok(rest) = g.strip_prefix("/dev/fd") { return Ok(PathBuf::from(format!("/proc/{t}/fd")).join(rest)); }
        if g.starts_with("/proc") || g.starts_with("/dev") { return Ok(g); }
        g = g.strip_prefix("/").unwrap().to_owned();
        if g.as_os_str().is_empty() { return Ok(self.root.clone()); }
        let of = |p: &Path, nf: bool| openat2(&self.dir, if p.as_os_str().is_empty() {Path::new(".")} else {p}, OFlags::PATH | OFlags::CLOEXEC | if nf {OFlags::NOFOLLOW} else {OFlags::empty()}, Mode::empty(), ResolveFlags::IN_ROOT|ResolveFlags::NO_MAGICLINKS)
            .map(|fd| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap());
        match of(&g, !follow) { Ok(p) => Ok(p), Err(Errno::NOENT) => Ok(of(g.parent().unwrap_or(Path::new("")), false)?.join(g.file_name().ok_or(Errno::NOENT)?)), Err(e) => Err(e) }
    }
    fn program(&self, thread: Pid, at: i32, path: &[u8], _flags: i32) -> Result<Found, Errno> {
        let path = if path.is_empty() { PathBuf::from(format!("/proc/{}/fd/{at}", thread.as_raw_nonzero())) } else { self.locate(thread, at, path, true)? };
        let file = File::from(openat(CWD, &path, OFlags::RDONLY|OFlags::CLOEXEC, Mode::empty())?);
        let real = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
        let same = std::fs::metadata(&real).is_ok_and(|m| m.ino() == file.metadata().unwrap().ino());
        Ok(Found { file, path: same.then_some(real) })
    }
    fn became(&self, _thread: Pid, _program: &File) {}
    fn ids_of(&self, _process: Pid) -> Option<(u32, u32)> { Some((7, 8)) }
}

#[test]
#[ignore]
fn manual() {
    let root = PathBuf::from(std::env::var("GUEST_ROOT").unwrap());
    let folder = tempfile::tempdir().unwrap();
    let (mut ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let script = std::env::var("SCRIPT").unwrap();
    let sys::Forked::Parent(pid) = sys::fork().unwrap() else {
        theirs.read_exact(&mut [0]).unwrap();
        std::env::set_current_dir(&root).unwrap();
        let rules: Vec<(&str, Action)> = ["execve","execveat","chdir","open","openat","inotify_add_watch","connect","bind","sendto","stat","lstat","newfstatat","statx","access","faccessat","faccessat2","readlink","readlinkat","unlink","unlinkat","mkdir","rmdir","chmod","statfs"].iter().map(|n| (*n, Action::Always(Verdict::Trace)))
            .chain([("getsockopt", Action::When { tests: &[seccomp::Test{argument:1,mask:u32::MAX,values:&[1]}, seccomp::Test{argument:2,mask:u32::MAX,values:&[17]}], met: Verdict::Trace, otherwise: Verdict::Allow })]).collect();
        rustix::thread::set_no_new_privs(true).unwrap();
        sys::reset_signals();
        let _l = seccomp::confine_supervised(false, &rules).unwrap();
        let c = |s: &str| CString::new(s).unwrap();
        let e = sys::execve(&c("/bin/sh"), &[c("sh"), c("-c"), c(&script)], &[c("PATH=/usr/sbin:/usr/bin:/bin:/sbin"), c("HOME=/root"), c("LANG=C.UTF-8")]);
        eprintln!("exec: {e}");
        std::process::exit(111)
    };
    drop(theirs);
    let dir = openat(CWD, &root, OFlags::PATH|OFlags::CLOEXEC, Mode::empty()).unwrap();
    let tracer = Tracer::seize(pid, Plain { root, dir }, folder.path().to_owned(), Originals::default()).unwrap();
    ours.write_all(&[0]).unwrap();
    let t = std::time::Instant::now();
    let ended = tracer.attend().unwrap();
    println!("ended {ended:?} {:?}", t.elapsed());
}
