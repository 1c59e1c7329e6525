//! The image of the service: a static program and a few files become a context, and that
//! very program builds the image from it.
//!
//! ```text
//! target/image/context/
//!   Dockerfile      crates/server/deploy/Dockerfile
//!   root/           etc/{passwd,group,nsswitch.conf,ssl/certs/ca-certificates.crt}, tmp, var/lib
//!   data/ocibuild/  the empty data folder
//!   ocibuild        the program
//! ```
//!
//! The image repeats byte for byte: all times in it are that of the commit, unless
//! `SOURCE_DATE_EPOCH` says otherwise.

#[cfg(test)]
mod tests;

use std::env::consts::ARCH;
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::checks::{cargo, run_command};
use crate::{target_folder, workspace};

/// How the task is called.
pub(crate) const USAGE: &str = "\
  image [--out DIR | --push NAME] [--debug] [--binary FILE] [--certificates FILE] [-- FLAG...]
                             build the image of the service with the program that goes into it:
                             into an OCI layout (default target/image/oci) or to a registry;
                             --debug takes an unoptimized program, --binary one that is there;
                             flags after -- go to `ocibuild build`
";

/// Where distributions keep the certificates that they trust.
const CERTIFICATES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];
/// Where the image has them.
const CERTIFICATES_INSIDE: &str = "root/etc/ssl/certs/ca-certificates.crt";

/// What the task is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    out: Option<PathBuf>,
    push: Option<String>,
    debug: bool,
    binary: Option<PathBuf>,
    certificates: Option<PathBuf>,
    flags: Vec<String>,
}

impl Request {
    /// Reads the arguments that follow the name of the task.
    pub(crate) fn parse(arguments: &[&str]) -> Result<Self, String> {
        let mut request = Self::default();
        let mut arguments = arguments.iter().copied();
        while let Some(argument) = arguments.next() {
            let mut value = || {
                let value = arguments.next();
                value.ok_or_else(|| format!("{argument} needs a value"))
            };
            match argument {
                "--out" => request.out = Some(value()?.into()),
                "--push" => request.push = Some(value()?.to_owned()),
                "--binary" => request.binary = Some(value()?.into()),
                "--certificates" => request.certificates = Some(value()?.into()),
                "--debug" => request.debug = true,
                "--" => request.flags = arguments.by_ref().map(str::to_owned).collect(),
                _ => return Err(format!("unexpected {argument:?}")),
            }
        }
        if request.out.is_some() && request.push.is_some() {
            return Err("--out and --push exclude each other".to_owned());
        }
        Ok(request)
    }
}

/// Builds the image.
pub(crate) fn run(request: &Request) -> ExitCode {
    match build(request) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn build(request: &Request) -> Result<(), String> {
    let program = match &request.binary {
        Some(file) => file.clone(),
        None => compile(request.debug)?,
    };
    check_static(&program)?;
    let place = target_folder().join("image");
    let context = place.join("context");
    let certificates = match &request.certificates {
        Some(file) => file.clone(),
        None => trusted_certificates()?,
    };
    assemble(&context, &program, &certificates)?;
    let name = request.push.clone().unwrap_or_else(default_name);
    build_image(request, &program, &place, &name)?;
    verify(&program, &place, &name)
}

fn default_name() -> String {
    format!("ocibuild:{}", env!("CARGO_PKG_VERSION"))
}

/// Compiles the command so that it needs no file of the system that it will run on.
fn compile(debug: bool) -> Result<PathBuf, String> {
    let mut cargo = cargo();
    let target = link_statically(cargo.args(["build", "--package", "ocibuild-cli"]));
    cargo.current_dir(workspace());
    if !debug {
        cargo.arg("--release");
    }
    run_named(&mut cargo)?;
    let profile = if debug { "debug" } else { "release" };
    Ok(target_folder().join(target).join(profile).join("ocibuild"))
}

/// Has a cargo link programs statically; gives the target, whose folder they are in.
pub(crate) fn link_statically(cargo: &mut Command) -> String {
    // With a target, the flags reach neither build scripts nor procedural macros, which
    // the compiler loads as libraries.
    let target = format!("{ARCH}-unknown-linux-gnu");
    let flags_of_target = format!(
        "CARGO_TARGET_{}_RUSTFLAGS",
        target.to_uppercase().replace('-', "_")
    );
    cargo
        .args(["--target", &target])
        .env(flags_of_target, "-C target-feature=+crt-static")
        // They would take the place of those of the target.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    target
}

/// Refuses a program that names an interpreter: the image has none.
fn check_static(program: &Path) -> Result<(), String> {
    match names_interpreter(program) {
        Ok(false) => Ok(()),
        Ok(true) => Err(format!("{} is not linked statically", program.display())),
        Err(error) => Err(at(program)(error)),
    }
}

/// Reads the program headers of a 64-bit little-endian ELF file.
fn names_interpreter(program: &Path) -> io::Result<bool> {
    const INTERPRETER: [u8; 4] = 3_u32.to_le_bytes();
    let mut head = Vec::new();
    File::open(program)?.take(4096).read_to_end(&mut head)?;
    let number = |start: usize, length: usize| {
        let bytes = head.get(start..start + length)?;
        let number = bytes.iter().rev();
        Some(number.fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte)))
    };
    let headers = || {
        head.starts_with(b"\x7fELF\x02\x01").then_some(())?;
        Some((number(32, 8)?, number(54, 2)?, number(56, 2)?))
    };
    let (start, size, count) =
        headers().ok_or_else(|| io::Error::other("not a program of a 64-bit Linux"))?;
    Ok((0..count).any(|index| {
        let header = start.saturating_add(index * size);
        head.get(header..)
            .is_some_and(|rest| rest.starts_with(&INTERPRETER))
    }))
}

fn trusted_certificates() -> Result<PathBuf, String> {
    let mut files = CERTIFICATES.iter().map(PathBuf::from);
    files.find(|file| file.is_file()).ok_or_else(|| {
        let places = CERTIFICATES.join(", ");
        format!("no certificates in {places}; name a file with --certificates")
    })
}

/// Makes the folder from which the image is built.
fn assemble(context: &Path, program: &Path, certificates: &Path) -> Result<(), String> {
    let deploy = workspace().join("crates/server/deploy");
    match fs::remove_dir_all(context) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(context)(error)),
        _ => {}
    }
    for (folder, mode) in [
        ("root/etc/ssl/certs", 0o755),
        ("root/var/lib", 0o755),
        ("root/tmp", 0o1777),
        ("data/ocibuild", 0o700),
    ] {
        make_folder(&context.join(folder), mode)?;
    }
    for name in ["passwd", "group", "nsswitch.conf"] {
        let inside = Path::new("root/etc").join(name);
        copy(&deploy.join("etc").join(name), &context.join(inside))?;
    }
    copy(certificates, &context.join(CERTIFICATES_INSIDE))?;
    copy(&deploy.join("Dockerfile"), &context.join("Dockerfile"))?;
    copy(program, &context.join("ocibuild"))
}

fn make_folder(folder: &Path, mode: u32) -> Result<(), String> {
    let mut builder = fs::DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o755)
        .create(folder)
        .map_err(at(folder))?;
    // The mask of the process does not reach a mode that is set afterwards.
    fs::set_permissions(folder, Permissions::from_mode(mode)).map_err(at(folder))
}

/// Copies a file that everybody may read.
fn copy(from: &Path, to: &Path) -> Result<(), String> {
    fs::copy(from, to).map_err(at(from))?;
    fs::set_permissions(to, Permissions::from_mode(0o644)).map_err(at(to))
}

fn build_image(request: &Request, program: &Path, place: &Path, name: &str) -> Result<(), String> {
    let mut command = Command::new(program);
    command.arg("build").arg("--root").arg(place.join("store"));
    command.args(["--tag", name]);
    for (argument, value) in [
        ("VERSION", Some(env!("CARGO_PKG_VERSION").to_owned())),
        ("REVISION", revision()),
    ] {
        if let Some(value) = value {
            command.args(["--build-arg", &format!("{argument}={value}")]);
        }
    }
    if std::env::var_os("SOURCE_DATE_EPOCH").is_none()
        && let Some(seconds) = git(&["log", "-1", "--format=%ct"])
    {
        command.env("SOURCE_DATE_EPOCH", seconds);
    }
    if request.push.is_some() {
        command.arg("--push");
    } else {
        let out = request.out.clone().unwrap_or_else(|| place.join("oci"));
        let mut output = OsString::from("type=oci,dest=");
        output.push(out);
        output.push("/");
        command.arg("--output").arg(output);
    }
    command.args(&request.flags).arg(place.join("context"));
    run_named(&mut command)
}

/// Has every digest and size of the image computed again.
fn verify(program: &Path, place: &Path, name: &str) -> Result<(), String> {
    let mut command = Command::new(program);
    command
        .arg("inspect")
        .arg("--verify")
        .arg("--root")
        .arg(place.join("store"))
        .arg(name)
        .stdout(Stdio::null());
    run_named(&mut command)
}

/// Names the commit, and says when files differ from it.
fn revision() -> Option<String> {
    git(&[
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ])
}

/// Asks Git about this tree; an archive of the sources has no repository to ask.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(workspace())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn run_named(command: &mut Command) -> Result<(), String> {
    println!("==> {command:?}");
    match run_command(command) {
        0 => Ok(()),
        status => Err(format!(
            "{} ended with status {status}",
            command.get_program().display()
        )),
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> String {
    move |error| format!("{}: {error}", path.display())
}
