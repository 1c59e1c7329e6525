//! What the tests need of the machine: programs of the distribution and of PyPI, and a user
//! without privileges. On Debian and Ubuntu, as root, what is missing is installed;
//! elsewhere it is named, and the tests that need it say so themselves.

use std::env;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::checks::run_command;
use crate::target_folder;

/// Programs that tests run, and the Debian packages that have them.
const PROGRAMS: &[(&str, &str)] = &[
    ("chromedriver", "chromium-driver"),
    ("chromium", "chromium"),
    ("curl", "curl"),
    ("docker-registry", "docker-registry"),
    ("dockerd", "docker.io"),
    ("git", "git"),
    ("mariadbd", "mariadb-server"),
    ("mmdebstrap", "mmdebstrap"),
    ("newuidmap", "uidmap"),
    ("nginx", "nginx-light"),
    ("setcap", "libcap2-bin"),
    ("setfattr", "attr"),
    ("skopeo", "skopeo"),
    ("sshd", "openssh-server"),
    ("umoci", "umoci"),
    ("valgrind", "valgrind"),
    ("zstd", "zstd"),
];
const BUSYBOX: (&str, &str) = ("/bin/busybox", "busybox-static");
/// Python with what makes environments of its own, which Debian has apart from it.
const VENV: (&str, &str) = ("import ensurepip, venv", "python3-venv");
/// What comes from PyPI, each in an environment of its own in the target folder.
const PYTHON_TOOLS: &[PythonTool] = &[
    PythonTool {
        folder: "helm",
        statement: "import helm_python",
        // It has all that it needs.
        packages: &["--no-deps", "helm-python-sdk==0.2.2"],
        without: "the tests of the chart",
    },
    PythonTool {
        folder: "schemathesis",
        statement: "import schemathesis",
        packages: &["schemathesis==4.32.5"],
        without: "the test of the API's description",
    },
];
/// The user under which tests show that no privileges are needed.
const TEST_USER: &str = "ocibuild-test";
/// Policy of Debian's `invoke-rc.d`: status 101 forbids a package to start its service.
const POLICY_FILE: &str = "/usr/sbin/policy-rc.d";
const POLICY: &str = "#!/bin/sh\nexit 101\n";

/// A library or program of Python's.
struct PythonTool {
    folder: &'static str,
    /// What Python can do where the tool is there.
    statement: &'static str,
    packages: &'static [&'static str],
    /// What is skipped without it, and says so.
    without: &'static str,
}

/// Makes the machine ready; gives the status of the first command that fails.
pub(crate) fn prepare() -> u8 {
    println!("==> machine");
    let missing = missing_packages();
    if !missing.is_empty() {
        println!("    missing: {}", missing.join(" "));
        if !can_install() {
            println!(
                "    not installed: that takes root on Debian or Ubuntu; some tests will fail"
            );
        } else {
            let status = install(&missing);
            if status != 0 {
                return status;
            }
        }
    }
    PYTHON_TOOLS.iter().for_each(make_python_tool);
    if is_root() { make_test_user() } else { 0 }
}

/// Whether nothing that the tests need has to be missing.
pub(crate) fn can_install() -> bool {
    is_root() && find_program("apt-get").is_some()
}

fn missing_packages() -> Vec<&'static str> {
    let mut packages: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| find_program(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if !is_static(Path::new(BUSYBOX.0)) {
        packages.push(BUSYBOX.1);
    }
    if !python_can(Path::new("python3"), VENV.0) {
        packages.push(VENV.1);
    }
    packages
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // Servers live where the PATH of an ordinary user does not lead.
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

/// A program that does not name a dynamic loader runs in an empty root file system.
fn is_static(program: &Path) -> bool {
    const LOADER: &[u8] = b"/ld-linux";
    fs::read(program).is_ok_and(|bytes| !bytes.windows(LOADER.len()).any(|part| part == LOADER))
}

fn python_can(python: &Path, statement: &str) -> bool {
    let mut command = Command::new(python);
    command.args(["-c", statement]).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn make_python_tool(tool: &PythonTool) {
    let folder = target_folder().join(tool.folder);
    let python = folder.join("bin/python");
    if python_can(&python, tool.statement) {
        return;
    }
    let made = run_shown(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&folder),
    );
    let mut pip = Command::new(&python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--only-binary=:all:",
    ]);
    pip.args(tool.packages);
    if made != 0 || run_shown(&mut pip) != 0 {
        println!("    no {}: {} will be skipped", tool.folder, tool.without);
    }
}

pub(crate) fn is_root() -> bool {
    // The owner of our own entry in /proc is our effective user.
    fs::metadata("/proc/self").is_ok_and(|entry| entry.uid() == 0)
}

fn install(packages: &[&str]) -> u8 {
    let _policy = match ServicesStayOff::begin() {
        Ok(policy) => policy,
        Err(error) => {
            eprintln!("error: {POLICY_FILE}: {error}");
            return 1;
        }
    };
    match apt_get(&["update"]) {
        0 => apt_get(&[&["install", "--yes", "--no-install-recommends"], packages].concat()),
        status => status,
    }
}

fn apt_get(arguments: &[&str]) -> u8 {
    let mut command = Command::new("apt-get");
    command
        .arg("--quiet=2")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive");
    run_shown(&mut command)
}

/// While it lives, installed packages do not start their services.
struct ServicesStayOff {
    ours: bool,
}

impl ServicesStayOff {
    fn begin() -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o755);
        match options.open(POLICY_FILE) {
            Ok(mut file) => {
                let policy = Self { ours: true };
                file.write_all(POLICY.as_bytes())?;
                file.set_permissions(Permissions::from_mode(0o755))?;
                Ok(policy)
            }
            // The machine has a policy of its own; containers commonly do.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Self { ours: false }),
            Err(error) => Err(error),
        }
    }
}

impl Drop for ServicesStayOff {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(POLICY_FILE)
        {
            eprintln!("warning: {POLICY_FILE}: {error}");
        }
    }
}

/// Makes the user and its ranges of subordinate ids, where they are not there.
fn make_test_user() -> u8 {
    let names_user = |file: &str| {
        fs::read_to_string(file)
            .unwrap_or_default()
            .lines()
            .any(|line| line.split(':').next() == Some(TEST_USER))
    };
    if !names_user("/etc/passwd") {
        let status = run_shown(Command::new("useradd").args(["--create-home", TEST_USER]));
        if status != 0 {
            return status;
        }
    }
    for (file, option) in [
        ("/etc/subuid", "--add-subuids"),
        ("/etc/subgid", "--add-subgids"),
    ] {
        if !names_user(file) {
            let range = free_range(file);
            let status = run_shown(Command::new("usermod").args([option, &range, TEST_USER]));
            if status != 0 {
                return status;
            }
        }
    }
    0
}

/// Gives 65,536 ids that nobody has in a file like /etc/subuid.
fn free_range(file: &str) -> String {
    const COUNT: u64 = 65_536;
    let first = fs::read_to_string(file)
        .unwrap_or_default()
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':').skip(1);
            let first: u64 = fields.next()?.parse().ok()?;
            let count: u64 = fields.next()?.parse().ok()?;
            first.checked_add(count)
        })
        .max()
        .unwrap_or(0)
        .max(100_000);
    format!("{first}-{}", first + COUNT - 1)
}

pub(crate) fn run_shown(command: &mut Command) -> u8 {
    let arguments: Vec<_> = command
        .get_args()
        .map(|part| part.to_string_lossy())
        .collect();
    println!(
        "==> {} {}",
        command.get_program().display(),
        arguments.join(" ")
    );
    run_command(command)
}
