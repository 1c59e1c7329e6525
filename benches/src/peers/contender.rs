//! A builder that is measured: its folder, its daemon where it has one, and what its runs cost.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::recipe::Recipe;
use crate::measure::{self, Cost, Daemons};

/// How long a daemon may take to be ready.
const START_TIME: Duration = Duration::from_secs(60);

/// A builder with a store of its own.
#[derive(Debug)]
pub(crate) struct Contender {
    recipe: Recipe,
    /// Below it are the stores.
    home: PathBuf,
    store: PathBuf,
    daemon: Option<Child>,
}

impl Contender {
    /// Makes its folder in `stores` and starts its daemon.
    pub(crate) fn start(recipe: Recipe, stores: &Path) -> Result<Self> {
        let home = stores.join(&recipe.name);
        fs::create_dir_all(&home)?;
        let mut contender = Self {
            store: home.join("1"),
            home,
            daemon: None,
            recipe,
        };
        fs::create_dir(&contender.store)?;
        if let Some(script) = contender.recipe.daemon {
            let log = fs::File::create(contender.home.join("log"))?;
            let mut command = contender.shell(script);
            command.stdout(log.try_clone()?).stderr(log);
            let name = &contender.recipe.name;
            let child = command.spawn().with_context(|| format!("start {name}"))?;
            contender.daemon = Some(child);
            contender.await_daemon()?;
        }
        Ok(contender)
    }

    pub(crate) fn name(&self) -> &str {
        &self.recipe.name
    }

    /// Gives what it says of itself.
    pub(crate) fn version(&self) -> String {
        let output = self.shell(self.recipe.version).output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        text.unwrap_or_default()
    }

    /// Makes it forget all that it knows.
    pub(crate) fn forget(&mut self) -> Result<()> {
        if let Some(script) = self.recipe.forget {
            measure::run(&mut self.shell(script), &Daemons::None)?;
            return Ok(());
        }
        // A new folder beside the old one: to remove many files just before a run can slow it
        // down (ext4 without a journal passes over inodes freed a while ago).
        self.store = tempfile::Builder::new()
            .prefix("store-")
            .tempdir_in(&self.home)?
            .keep();
        Ok(())
    }

    /// Builds a folder, pushes the result and says what that cost.
    pub(crate) fn build(&self, context: &Path, image: &str) -> Result<Cost> {
        let mut command = self.shell(&self.recipe.build);
        command.env("CONTEXT", context).env("IMAGE", image);
        let daemons = match &self.daemon {
            Some(daemon) => Daemons::Below(daemon.id()),
            None => Daemons::None,
        };
        daemons.forget_peaks();
        measure::run(&mut command, &daemons)
    }

    fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-ec", script]);
        command.env("STORE", &self.store).stdin(Stdio::null());
        command
    }

    fn await_daemon(&mut self) -> Result<()> {
        let (Some(is_ready), begun) = (self.recipe.is_ready, Instant::now()) else {
            return Ok(());
        };
        loop {
            if measure::run(&mut self.shell(is_ready), &Daemons::None).is_ok() {
                return Ok(());
            }
            let ended = match &mut self.daemon {
                Some(daemon) => daemon.try_wait()?,
                None => None,
            };
            if ended.is_some() || begun.elapsed() > START_TIME {
                let log = fs::read_to_string(self.home.join("log")).unwrap_or_default();
                bail!("the daemon of {} does not start:\n{log}", self.recipe.name);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            // Told to end it also ends what it has started; killed it would leave that.
            let told = rustix::process::Pid::from_child(&daemon);
            if rustix::process::kill_process(told, rustix::process::Signal::TERM).is_err() {
                let _ = daemon.kill();
            }
            let _ = daemon.wait();
        }
    }
}
