//! The trees that commands run over, one for each engine, as its ids are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};
use ocibuild::executor::Rootfs;

use super::engine::Engine;

/// The static busybox of the machine.
const BUSYBOX: &str = "/bin/busybox";

/// A tree for each engine.
pub(crate) struct Ground {
    folder: PathBuf,
    steps: AtomicU32,
}

/// What one command has.
pub(crate) struct Step {
    /// For a chroot, which changes it.
    pub(crate) tree: PathBuf,
    lowers: Vec<PathBuf>,
    /// What the command has changed.
    pub(crate) upper: PathBuf,
    work: PathBuf,
    folder: PathBuf,
}

impl Step {
    pub(crate) fn rootfs(&self) -> Rootfs {
        Rootfs {
            lowers: self.lowers.clone(),
            upper: self.upper.clone(),
            work: self.work.clone(),
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        // What cannot be removed goes with the working folder.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Ground {
    /// A tree of busybox alone.
    pub(crate) fn busybox(engines: &[Engine], place: &Path) -> Result<Self> {
        Self::of_files(engines, place, 0)
    }

    /// The same, with so many small files in folders of a hundred.
    pub(crate) fn of_files(engines: &[Engine], place: &Path, files: u32) -> Result<Self> {
        let tree = place.join("made");
        for folder in ["bin", "etc", "proc", "dev", "sys", "tmp"] {
            fs::create_dir_all(tree.join(folder))?;
        }
        fs::copy(BUSYBOX, tree.join("bin/busybox")).context("package busybox-static")?;
        for applet in ["sh", "true"] {
            std::os::unix::fs::symlink("busybox", tree.join("bin").join(applet))?;
        }
        for number in 0..files {
            let folder = tree.join("files").join((number / 100).to_string());
            if number % 100 == 0 {
                fs::create_dir_all(&folder)?;
            }
            fs::write(folder.join((number % 100).to_string()), number.to_string())?;
        }
        let tar = place.join("made.tar");
        let mut command = Command::new("tar");
        command
            .arg("--create")
            .arg("--file")
            .arg(&tar)
            .arg("--directory")
            .arg(&tree)
            .arg(".");
        ensure!(command.status()?.success(), "tar fails");
        fs::remove_dir_all(&tree)?;
        Self::of_tar(engines, place, &tar)
    }

    /// What is in a tar.
    pub(crate) fn of_tar(engines: &[Engine], place: &Path, tar: &Path) -> Result<Self> {
        let ground = Self {
            folder: place.to_owned(),
            steps: AtomicU32::new(0),
        };
        for engine in engines {
            let tree = ground.tree(engine);
            if !tree.exists() {
                fs::create_dir_all(tree.parent().unwrap_or(place))?;
                engine.unpack(tar, &tree)?;
            }
        }
        Ok(ground)
    }

    fn tree(&self, engine: &Engine) -> PathBuf {
        self.folder
            .join("trees")
            .join(engine.name().replace('/', "-"))
    }

    /// Room for a command over the tree.
    pub(crate) fn step(&self, engine: &Engine) -> Result<Step> {
        let number = self.steps.fetch_add(1, Ordering::Relaxed);
        let folder = self.folder.join(number.to_string());
        let tree = self.tree(engine);
        let step = Step {
            lowers: vec![tree.clone()],
            upper: folder.join("upper"),
            work: folder.join("work"),
            tree,
            folder,
        };
        for folder in [&step.upper, &step.work] {
            fs::create_dir_all(folder)?;
        }
        Ok(step)
    }

    /// The same after a command that has done nothing: an engine that works in a tree of its own
    /// has it from there. A chroot gets a copy, which it may change.
    pub(crate) fn second_step(&self, engine: &Engine) -> Result<Step> {
        let mut step = self.step(engine)?;
        if engine.is_native() {
            step.tree = step.folder.join("tree");
            let mut command = Command::new("cp");
            command.arg("-a").args([&self.tree(engine), &step.tree]);
            ensure!(command.status()?.success(), "cp fails");
            return Ok(step);
        }
        engine.run(&step, &["/bin/true"])?;
        let before = step.folder.join("before");
        fs::rename(&step.upper, &before)?;
        step.lowers.push(before);
        for folder in [&step.upper, &step.work] {
            let _ = fs::remove_dir_all(folder);
            fs::create_dir(folder)?;
        }
        Ok(step)
    }
}
