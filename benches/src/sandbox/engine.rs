//! One way to run a command over a tree: an engine, or a chroot as root.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use ocibuild::Cancel;
use ocibuild::executor::{Choice, Exit, Helper, Identity, RunSpec, Sandbox, probe};
use ocibuild::layer::{Compression, LayerWriter, Options as LayerOptions};
use ocibuild::snapshot::{RootView, diff};

use super::ground::Step;

/// All that may be there; the best of users who are not root need no figures of their own.
const ENGINES: &[&str] = &[
    "namespaces/real",
    "namespaces/recorded",
    "chroot/real",
    "chroot/recorded",
    "emulation/recorded",
];

/// A chroot, or an engine.
pub(crate) struct Engine {
    name: &'static str,
    sandbox: Option<Box<dyn Sandbox>>,
}

impl Engine {
    /// The native chroot first, then what works here; others are named.
    pub(crate) fn all(folder: &Path, wanted: &[String]) -> Result<Vec<Self>> {
        let mut engines = vec![Self {
            name: "native",
            sandbox: None,
        }];
        for name in ENGINES {
            if !wanted.is_empty() && !wanted.iter().any(|one| name.starts_with(one.as_str())) {
                continue;
            }
            let choice: Choice = name.parse()?;
            match probe::select_among(&choice, &Helper::CurrentExe, folder) {
                Ok(sandbox) => engines.push(Self {
                    name,
                    sandbox: Some(sandbox),
                }),
                Err(refusals) => eprintln!("skipped: {name}: {refusals}"),
            }
        }
        ensure!(engines.len() > 1, "no engine works here");
        Ok(engines)
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn is_native(&self) -> bool {
        self.sandbox.is_none()
    }

    /// Whose ids its trees have.
    pub(crate) fn identity(&self) -> Identity {
        match &self.sandbox {
            Some(sandbox) => sandbox.identity().clone(),
            None => Identity::Real,
        }
    }

    /// Unpacks a tar for it.
    pub(crate) fn unpack(&self, tar: &Path, tree: &Path) -> Result<()> {
        let mut options = ocibuild::snapshot::unpack::Options::new(self.identity());
        if let Some(sandbox) = &self.sandbox {
            options.notes = sandbox.notes();
        }
        let blob = std::fs::File::open(tar).with_context(|| tar.display().to_string())?;
        ocibuild::snapshot::unpack::unpack(blob, tree, &options)?;
        Ok(())
    }

    /// Runs a command, which must end well, and gives the time that it took.
    pub(crate) fn run(&self, step: &Step, argv: &[&str]) -> Result<Duration> {
        match &self.sandbox {
            Some(sandbox) => run_in(&**sandbox, step, argv),
            None => run_natively(&step.tree, argv),
        }
        .with_context(|| format!("{argv:?} by {}", self.name))
    }

    /// Makes the layer of what a command has changed, uncompressed, and gives the time.
    pub(crate) fn layer(&self, step: &Step) -> Result<Duration> {
        let sandbox = self.sandbox.as_ref().context("a chroot makes no layers")?;
        let mut options = diff::Options::new(self.identity());
        options.notes = sandbox.notes();
        let begun = Instant::now();
        let layer_options = LayerOptions {
            compression: Compression::None,
            ..LayerOptions::default()
        };
        let mut layer = LayerWriter::new(layer_options, std::io::sink())?;
        diff::diff(&step.upper, &RootView::new(&[]), &options, &mut layer)?;
        layer.finish()?;
        Ok(begun.elapsed())
    }
}

fn run_in(sandbox: &dyn Sandbox, step: &Step, argv: &[&str]) -> Result<Duration> {
    let argv: Vec<String> = argv.iter().map(|&argument| argument.to_owned()).collect();
    let spec = RunSpec::new(step.rootfs(), argv);
    let mut said = Vec::new();
    let begun = Instant::now();
    let exit = sandbox.run(
        &spec,
        &mut |_, bytes| said.extend_from_slice(bytes),
        &Cancel::new(),
    )?;
    let took = begun.elapsed();
    if exit != Exit::Code(0) {
        bail!("{exit:?}: {}", String::from_utf8_lossy(&said));
    }
    Ok(took)
}

/// As an image is made by hand: file systems of the kernel, and chroot.
fn run_natively(tree: &Path, argv: &[&str]) -> Result<Duration> {
    const SCRIPT: &str = r#"root=$1; shift
for name in proc dev sys; do [ -d "$root/$name" ] || mkdir "$root/$name"; done
mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev" && mount --rbind /sys "$root/sys" || exit 99
exec "$@""#;
    let timed = timed_program()?;
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", SCRIPT, "sh"]);
    command
        .arg(tree)
        .arg(timed)
        .arg(super::NATIVE)
        .arg(tree)
        .args(argv);
    command
        .env_clear()
        .env("PATH", RunSpec::DEFAULT_PATH)
        .env("HOME", "/root");
    let output = command.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", output.status);
    let nanoseconds = said.lines().last().and_then(|line| line.parse().ok());
    Ok(Duration::from_nanos(
        nanoseconds.context("no time was told")?,
    ))
}

/// This program, which tells how long a command takes without what was mounted for it.
fn timed_program() -> Result<PathBuf> {
    Ok(std::env::current_exe()?)
}

/// Runs `chroot TREE COMMAND…` and prints the nanoseconds of it.
pub(crate) fn time_native(arguments: &[String]) -> Result<()> {
    let mut command = Command::new("chroot");
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let begun = Instant::now();
    let status = command.status()?;
    let took = begun.elapsed();
    ensure!(status.success(), "{status}");
    eprintln!("{}", took.as_nanos());
    Ok(())
}
