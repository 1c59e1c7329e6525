//! Where commands are run in these tests: as root, as a user with a range of ids, and
//! as a user without. A test that runs as root plays the users by starting the example
//! program `sandbox_helper` under another id, with account files of its own mounted over
//! those of the machine; a test that runs as anybody else has one site, its own.

use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::Pid;
use serde::Deserialize;
use tempfile::TempDir;

use crate::executor::{Exit, Helper, Identity, Mount, MountSource, Rootfs, RunSpec, probe};
use crate::ownership;

/// A user who need not exist.
const TEST_UID: u32 = 54_321;
const SUBORDINATE: &str = "ocibuild-test:200000:65536\n";
const APPLETS: &[&str] = &[
    "awk", "cat", "chmod", "chown", "cut", "dd", "df", "echo", "env", "false", "find", "grep",
    "head", "hostname", "id", "ip", "kill", "ln", "ls", "mkdir", "mknod", "mount", "mv", "nohup",
    "ps", "pwd", "readlink", "rm", "rmdir", "sed", "seq", "setsid", "sh", "sleep", "sort", "stat",
    "sync", "tail", "touch", "tr", "true", "umount", "unshare", "wc",
];

/// Who runs the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Site {
    Real,
    Range,
    /// A user with one id only, for whom owners are recorded.
    Recorded,
    /// Root that can mount nothing.
    Chroot,
    /// A user who may have a user namespace and mount nothing in it.
    MappedChroot,
    /// A user who can do nothing.
    Emulation,
    /// A user with a range, whose /proc is partly hidden, as it is in pods; the kernel
    /// mounts no other then.
    Pod,
}

impl Site {
    /// Whether commands have mounts and namespaces of their own.
    pub(super) fn has_namespaces(self) -> bool {
        !matches!(self, Self::Chroot | Self::MappedChroot | Self::Emulation)
    }
}

/// What came of a command.
#[derive(Debug, Deserialize)]
pub(super) struct Outcome {
    pub(super) identity: Identity,
    pub(super) exit: Option<Exit>,
    pub(super) error: Option<String>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Outcome {
    /// What it printed, if it ended well.
    pub(super) fn text(&self) -> &str {
        assert_eq!(self.exit, Some(Exit::Code(0)), "{self:?}");
        &self.stdout
    }

    /// Why it could not be run.
    pub(super) fn refusal(&self) -> &str {
        self.error
            .as_deref()
            .unwrap_or_else(|| panic!("{self:?} was to be refused"))
    }
}

/// The same, and one where processes get no ids of their own.
pub(super) fn sites_and_pod() -> Vec<Site> {
    let mut sites = sites();
    if rustix::process::geteuid().is_root() {
        sites.push(Site::Pod);
    }
    sites
}

/// The sites that this process can play.
pub(super) fn sites() -> Vec<Site> {
    if rustix::process::geteuid().is_root() {
        return vec![
            Site::Real,
            Site::Range,
            Site::Recorded,
            Site::Chroot,
            Site::MappedChroot,
            Site::Emulation,
        ];
    }
    let dir = tempfile::tempdir().unwrap();
    match probe::select(&Helper::Program(helper()), dir.path()) {
        Ok(sandbox) => {
            println!(
                "skipped: all but {:?}, the others need root",
                sandbox.identity()
            );
            vec![match sandbox.identity() {
                Identity::Real => Site::Real,
                Identity::Range { .. } => Site::Range,
                Identity::Single | Identity::Recorded => Site::Recorded,
            }]
        }
        Err(refusals) => {
            println!("skipped: {refusals}");
            Vec::new()
        }
    }
}

/// The example program, which cargo builds beside the tests.
pub(super) fn helper() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples/sandbox_helper");
    assert!(
        path.exists(),
        "run `cargo build -p ocibuild --example sandbox_helper` first"
    );
    path
}

/// A directory with room for one command, and an image.
pub(super) struct Room {
    site: Site,
    dir: TempDir,
}

impl Room {
    /// With a small image of busybox.
    pub(super) fn new(site: Site) -> Self {
        let room = Self::empty(site);
        room.make_image();
        room.own_all();
        room
    }

    /// With no image at all.
    pub(super) fn empty(site: Site) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["upper", "work", "lower", "probe"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let room = Self { site, dir };
        room.own_all();
        room
    }

    /// A path in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A shell script over the image.
    pub(super) fn script(&self, script: &str) -> RunSpec {
        self.spec(&["sh", "-c", script])
    }

    /// A command over the image.
    pub(super) fn spec(&self, argv: &[&str]) -> RunSpec {
        let rootfs = Rootfs {
            lowers: vec![self.path("lower")],
            upper: self.path("upper"),
            work: self.path("work"),
        };
        let argv = argv.iter().map(|argument| (*argument).to_owned()).collect();
        let env = vec![("PATH".to_owned(), "/bin".to_owned())];
        RunSpec {
            env,
            ..RunSpec::new(rootfs, argv)
        }
    }

    /// Runs it as the site's user.
    pub(super) fn run(&self, spec: &RunSpec) -> Outcome {
        let output = self.start(spec).wait_with_output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!(
                "{error}: {:?} {}",
                output,
                String::from_utf8_lossy(&output.stderr)
            )
        })
    }

    /// Starts a builder that runs it.
    pub(super) fn start(&self, spec: &RunSpec) -> Child {
        let mut child = self
            .command("run-spec")
            .env("BUILDER_SECRET", "do-not-leak")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        serde_json::to_writer(child.stdin.take().unwrap(), spec).unwrap();
        child
    }

    /// The helper program as a builder that runs as the site's user.
    pub(super) fn command(&self, verb: &str) -> Command {
        let program = self.path("sandbox_helper");
        if !program.exists() {
            copy(&helper(), &program);
        }
        let mut command = match self.site {
            Site::Real => Command::new(program),
            Site::Chroot => {
                let mut command = Command::new(program);
                command.env("SANDBOX", "chroot");
                command
            }
            _ if !rustix::process::geteuid().is_root() => Command::new(program),
            site => {
                let mut command = Command::new("unshare");
                command.args(["-m", "--propagation", "private", "sh", "-c", AS_USER, "sh"]);
                command
                    .arg(accounts(matches!(site, Site::Range | Site::Pod)))
                    .arg(TEST_UID.to_string())
                    .arg(format!("{site:?}"))
                    .arg(program);
                match site {
                    Site::MappedChroot => command.env("SANDBOX", "chroot/recorded"),
                    Site::Emulation => command.env("SANDBOX", "emulation"),
                    _ => &mut command,
                };
                command
            }
        };
        command.arg(verb).arg(self.path("probe"));
        command
    }

    /// What is in the upper directory, sorted; directories end with a slash.
    pub(super) fn changes(&self) -> Vec<String> {
        let mut found = Vec::new();
        list(&self.path("upper"), "", &mut found);
        found.sort();
        found
    }

    /// Adds a program of this machine and the libraries that it needs.
    pub(super) fn add_program(&self, path: &str) {
        let listed = Command::new("ldd").arg(path).output().unwrap().stdout;
        let listed = String::from_utf8(listed).unwrap();
        let libraries = listed
            .split_whitespace()
            .filter(|word| word.starts_with('/'));
        for file in libraries.chain([path]) {
            let place = self.path("lower").join(file.trim_start_matches('/'));
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            copy(Path::new(file), &place);
        }
    }

    /// Gives everything to the site's user.
    pub(super) fn own_all(&self) {
        if !matches!(self.site, Site::Real | Site::Chroot) && rustix::process::geteuid().is_root() {
            own(self.dir.path());
        }
        let su = self.path("lower/bin/su");
        if su.exists() {
            // After the change of owner, which clears it.
            fs::set_permissions(su, fs::Permissions::from_mode(0o4755)).unwrap();
        }
    }

    /// Gives a new upper directory to the site's user.
    pub(super) fn own_upper(&self) {
        if !matches!(self.site, Site::Real | Site::Chroot) && rustix::process::geteuid().is_root() {
            lchown(self.path("upper"), Some(TEST_UID), Some(TEST_UID)).unwrap();
        }
    }

    fn make_image(&self) {
        let image = self.path("lower");
        for directory in ["bin", "etc", "tmp", "root", "proc", "dev", "sys"] {
            fs::create_dir(image.join(directory)).unwrap();
        }
        fs::set_permissions(image.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        for name in ["bin/busybox", "bin/su"] {
            // Package busybox-static.
            copy(Path::new("/bin/busybox"), &image.join(name));
        }
        for applet in APPLETS {
            symlink("busybox", image.join("bin").join(applet)).unwrap();
        }
        let passwd = "root::0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n";
        fs::write(image.join("etc/passwd"), passwd).unwrap();
        fs::write(
            image.join("etc/group"),
            "root:x:0:root\nwheel:x:10:root,app\napp:x:1001:\n",
        )
        .unwrap();
        fs::write(image.join("etc/notes"), "from the image\n").unwrap();
    }
}

/// Owner, group and mode of a file as the site's commands see it.
pub(super) fn owner_of(site: Site, path: &Path) -> (u32, u32, u32) {
    let opened = rustix::fs::openat(
        rustix::fs::CWD,
        path,
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW,
        rustix::fs::Mode::empty(),
    );
    let seen = ownership::look(opened.unwrap()).unwrap();
    if matches!(site, Site::Recorded | Site::MappedChroot | Site::Emulation) {
        let meant = seen.meant();
        return (meant.uid, meant.gid, meant.mode);
    }
    let base = if matches!(site, Site::Real | Site::Chroot) {
        0
    } else {
        200_000 - 1
    };
    let stat = seen.stat;
    (
        stat.st_uid - base,
        stat.st_gid - base,
        stat.st_mode & 0o7777,
    )
}

/// A file that exists in memory only.
pub(super) fn file(target: &str, content: &str) -> Mount {
    let content = content.as_bytes().to_vec().into();
    let source = MountSource::File {
        content,
        mode: 0o644,
        uid: 0,
        gid: 0,
    };
    Mount {
        target: target.into(),
        source,
    }
}

/// Starts a program as another user, with other account files than the machine's.
const AS_USER: &str = r#"
for file in passwd subuid subgid; do mount --bind "$1/$file" "/etc/$file" || exit 99; done
if [ "$3" = Pod ]; then mount --bind /dev/null /proc/timer_list || exit 98; fi
uid=$2; shift 3
exec setpriv --reuid "$uid" --regid "$uid" --clear-groups -- "$@"
"#;

/// A directory with account files, in which the test user has a range of ids or has not.
fn accounts(range: bool) -> PathBuf {
    static ACCOUNTS: OnceLock<TempDir> = OnceLock::new();
    let dir = ACCOUNTS.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        let user = format!("ocibuild-test:x:{TEST_UID}:{TEST_UID}::/:/bin/sh\n");
        for (name, table) in [("range", SUBORDINATE), ("single", "")] {
            let accounts = dir.path().join(name);
            fs::create_dir(&accounts).unwrap();
            fs::write(accounts.join("passwd"), format!("{passwd}{user}")).unwrap();
            fs::write(accounts.join("subuid"), table).unwrap();
            fs::write(accounts.join("subgid"), table).unwrap();
        }
        // newuidmap is run by the user and reads them too.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        dir
    });
    for file in ["subuid", "subgid"] {
        // The machine may have neither; mounting needs something to mount over.
        let _ = fs::File::options()
            .append(true)
            .create(true)
            .open(Path::new("/etc").join(file));
    }
    dir.path().join(if range { "range" } else { "single" })
}

/// Copies a program, in a process of its own: were it open for writing here while
/// another test forks, it could not be executed (ETXTBSY).
fn copy(from: &Path, to: &Path) {
    assert!(
        Command::new("cp")
            .arg(from)
            .arg(to)
            .status()
            .unwrap()
            .success()
    );
}

fn own(path: &Path) {
    lchown(path, Some(TEST_UID), Some(TEST_UID)).unwrap();
    if path.symlink_metadata().unwrap().is_dir() {
        fs::read_dir(path)
            .unwrap()
            .for_each(|entry| own(&entry.unwrap().path()));
    }
}

fn list(directory: &Path, prefix: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            list(&entry.path(), &format!("{name}/"), found);
            found.push(format!("{name}/"));
        } else {
            found.push(name);
        }
    }
}

/// A duration in seconds that no other command of these tests sleeps for, by which its
/// process is known.
pub(super) fn unique_nap() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{}.{:03}",
        100_000 + std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}

/// Processes on the machine that sleep that long.
pub(super) fn sleepers(nap: &str) -> Vec<Pid> {
    let line = format!("sleep\0{nap}\0");
    let sleeps = |pid: &i32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|found| found == line.as_bytes())
    };
    let names = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    names
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(sleeps)
        .filter_map(Pid::from_raw)
        .collect()
}

/// Waits for something that another process does, for ten seconds.
pub(super) fn until(what: &str, done: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !done() {
        assert!(begun.elapsed().as_secs() < 10, "waited in vain: {what}");
        std::thread::yield_now();
    }
}
