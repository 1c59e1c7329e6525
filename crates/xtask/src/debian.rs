//! What the tests of the environments build from, without a network of their own: Debian as
//! a tar, packages to install on it and wheels, fetched once into the target folder.
//!
//! ```text
//! target/sandbox/
//!   debian.tar   a minimal system
//!   pool/        packages, and `Packages`, which makes a repository of them
//!   wheels/      Python's
//!   made-from    what was asked for; where it differs all is fetched again
//! ```

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::machine::{is_root, run_shown};
use crate::target_folder;

const SUITE: &str = "bookworm";
const MIRROR: &str = "http://deb.debian.org/debian";
/// What steps install: programs with users, capabilities, set-id bits and maintainer
/// scripts of all kinds, and languages.
const PACKAGES: &[&str] = &[
    "attr",
    "cron",
    "curl",
    "dbus",
    "gosu",
    "gron",
    "iputils-ping",
    "less",
    "libcap2-bin",
    "nodejs",
    "openjdk-17-jre-headless",
    "openssh-client",
    "postgresql",
    "procps",
    "python3",
    "python3-pip",
    "socat",
    "strace",
    "sudo",
];
const WHEELS: &[&str] = &["numpy==1.26.4", "requests==2.32.3"];
/// Of the Python in the suite.
const PYTHON: &str = "3.11";

/// Makes the folder, where it is not there as it should be.
pub(crate) fn prepare() -> u8 {
    let folder = folder();
    let wanted = format!("{SUITE} {MIRROR} {PACKAGES:?} {WHEELS:?} {PYTHON}\n");
    let note = folder.join("made-from");
    if fs::read_to_string(&note).is_ok_and(|made| made == wanted) {
        return 0;
    }
    if !is_root() {
        println!("    no {}: that takes root", folder.display());
        return 0;
    }
    let made = clear(&folder)
        .and_then(|()| fetch_packages(&folder))
        .and_then(|()| fetch_wheels(&folder))
        .and_then(|()| write_index(&folder.join("pool")))
        .and_then(|()| fs::write(&note, wanted).map_err(at(&note)));
    match made {
        Ok(()) => 0,
        Err(problem) => {
            eprintln!("error: {problem}");
            1
        }
    }
}

fn folder() -> PathBuf {
    target_folder().join("sandbox")
}

fn clear(folder: &Path) -> Result<(), String> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(folder)(error)),
        _ => {}
    }
    fs::create_dir_all(folder.join("wheels")).map_err(at(folder))
}

/// Makes the minimal system, and has it find out what the packages need.
fn fetch_packages(folder: &Path) -> Result<(), String> {
    let install = format!(
        "chroot \"$1\" apt-get install --yes --quiet=2 --download-only --no-install-recommends {} \
         >/dev/null",
        PACKAGES.join(" ")
    );
    let copy = format!("copy-out /var/cache/apt/archives {}", folder.display());
    let mut command = Command::new("mmdebstrap");
    command
        .args(["--quiet", "--variant=minbase"])
        .args([
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
        ])
        .args(["--customize-hook", &install, "--customize-hook", &copy])
        .arg(SUITE)
        .arg(folder.join("debian.tar"))
        .arg(MIRROR);
    done(run_shown(&mut command), "mmdebstrap")?;
    let pool = folder.join("pool");
    fs::rename(folder.join("archives"), &pool).map_err(at(&pool))?;
    for rest in ["lock", "partial"] {
        let rest = pool.join(rest);
        let removed = if rest.is_dir() {
            fs::remove_dir_all(&rest)
        } else {
            fs::remove_file(&rest)
        };
        removed.map_err(at(&rest))?;
    }
    Ok(())
}

fn fetch_wheels(folder: &Path) -> Result<(), String> {
    // Any of the environments made before has a pip.
    let mut command = Command::new(target_folder().join("helm/bin/python"));
    command
        .args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
        ])
        .args([
            "--only-binary=:all:",
            "--python-version",
            PYTHON,
            "--platform",
        ])
        .arg(format!("manylinux2014_{}", std::env::consts::ARCH))
        .arg("--dest")
        .arg(folder.join("wheels"))
        .args(WHEELS);
    done(run_shown(&mut command), "pip download")
}

/// Describes all packages of a folder, as apt wants it.
fn write_index(pool: &Path) -> Result<(), String> {
    let mut packages: Vec<PathBuf> = fs::read_dir(pool)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(at(pool))?;
    packages.sort();
    let mut index = String::new();
    for package in packages {
        let control = said(Command::new("dpkg-deb").arg("--field").arg(&package))?;
        let sum =
            said(Command::new("sha256sum").stdin(File::open(&package).map_err(at(&package))?))?;
        let sum = sum.split_whitespace().next().unwrap_or_default();
        let size = fs::metadata(&package).map_err(at(&package))?.len();
        let name = package.file_name().unwrap_or_default().to_string_lossy();
        let _ = write!(
            index,
            "{}\nFilename: ./{name}\nSize: {size}\nSHA256: {sum}\n\n",
            control.trim_end()
        );
    }
    let file = pool.join("Packages");
    fs::write(&file, index).map_err(at(&file))
}

fn said(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    done(u8::from(!output.status.success()), &program)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn done(status: u8, what: &str) -> Result<(), String> {
    match status {
        0 => Ok(()),
        status => Err(format!("{what} ended with status {status}")),
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> String {
    move |error| format!("{}: {error}", path.display())
}
