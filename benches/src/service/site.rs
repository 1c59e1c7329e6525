//! What stands around the service: a working folder, a Git server, a registry with a base, a
//! database server if one is wanted, and a client.

use std::cell::Cell;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use ocibuild::testing::GitServer;
use ocibuild_registry::testing::Registry;
use ocibuild_store::testing::MariaDb;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::options::{Counts, Database, Options};
use super::replica::{Pushes, Settings};
use crate::schedule::push_base;

/// All that exists while the figures of one database are taken; it goes away with this value.
pub(crate) struct Site {
    pub(crate) program: PathBuf,
    pub(crate) folder: TempDir,
    pub(crate) database: Database,
    pub(crate) counts: &'static Counts,
    pub(crate) http: reqwest::Client,
    pub(crate) runtime: Runtime,
    /// The name of an image of busybox.
    pub(crate) base: String,
    git: GitServer,
    registry: Registry,
    mariadb: Option<MariaDb>,
    /// How many names were given so far.
    names: Cell<u32>,
}

impl Site {
    pub(crate) fn prepare(database: Database, options: &Options) -> Result<Self> {
        let folder = match &options.work {
            Some(parent) => TempDir::new_in(parent),
            None => TempDir::new(),
        };
        let folder = folder.context("make a working folder")?;
        let registry = Registry::start().context("start a registry")?;
        // This also chooses the cryptography that the client below uses.
        let base = push_base(&registry.host(), folder.path())?;
        Ok(Self {
            program: program(options)?,
            database,
            counts: options.counts(),
            http: reqwest::Client::builder().no_proxy().build()?,
            runtime: Runtime::new().context("start a runtime")?,
            base,
            git: GitServer::start(),
            registry,
            mariadb: match database {
                Database::Sqlite => None,
                Database::Mariadb => Some(MariaDb::start()?),
            },
            names: Cell::new(0),
            folder,
        })
    }

    /// Gives a name that nothing has yet.
    fn name(&self, prefix: &str) -> String {
        self.names.set(self.names.get() + 1);
        format!("{prefix}-{}", self.names.get())
    }

    /// Gives the settings of a service with a task table and a data folder of its own, which
    /// pushes to the registry that it runs itself.
    pub(crate) fn settings(&self) -> Result<Settings> {
        let name = self.name("service");
        let mysql = self.mariadb.as_ref().map(|server| {
            let settings = server.settings(&name);
            (settings.port, settings.database)
        });
        Settings::new(self.folder.path().join(name), mysql)
    }

    /// Gives the settings of another replica of that service. Both push to a registry that
    /// outlives them.
    pub(crate) fn replicas(&self) -> Result<[Settings; 2]> {
        let pushes = || Pushes::To(self.registry.host());
        let one = self.settings()?;
        let two = Settings {
            mysql: one.mysql.clone(),
            ..self.settings()?
        };
        Ok([one, two].map(|settings| Settings {
            pushes: pushes(),
            ..settings
        }))
    }

    /// Makes a repository of folders that can be built, `app-0` and so on, no two of them
    /// alike, and gives its URL.
    pub(crate) fn repository(&self, count: usize, dockerfile: impl Fn(usize) -> String) -> String {
        let repository = self
            .git
            .repository(&format!("{}.git", self.name("team/apps")));
        for number in 0..count {
            repository
                .file(&format!("app-{number}/Dockerfile"), dockerfile(number))
                .file(&format!("app-{number}/program"), format!("{number}\n"));
        }
        repository.commit("one");
        repository.url().to_owned()
    }
}

/// Gives the `ocibuild` that is measured: what was built together with this program lies in
/// the folder of it, or, if it is a bench target or a test, in the folder above.
fn program(options: &Options) -> Result<PathBuf> {
    if let Some(program) = &options.command {
        return Ok(program.canonicalize()?);
    }
    let this = std::env::current_exe()?;
    let folders = this.ancestors().skip(1).take(2);
    let found = folders
        .map(|folder| folder.join("ocibuild"))
        .find(|program| program.is_file());
    ensure!(
        found.is_some(),
        "there is no ocibuild beside {}: build it with cargo build --release -p ocibuild-cli",
        this.display()
    );
    found.context("found above")
}
