//! What the environments share: base images, contexts, the program, a mirror and a daemon.

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, Weak};

use ocibuild::registry::Digest;
use ocibuild::testing::busybox_layout;
use tempfile::TempDir;

use crate::case::{self, Case, Job, Outcome};
use crate::daemon::Daemon;
use crate::environment::{self, CANARY, Environment, MOUNTLESS};
use crate::mirror;
use crate::picture;

/// The base images.
pub(crate) const BASES: [&str; 3] = ["busybox", "debian", "tools"];
/// Debian with languages and tools, for cases that need more than the minimum.
const TOOLS: &str = "FROM debian\nARG MIRROR\nRUN \
    echo \"deb [trusted=yes] $MIRROR ./\" > /etc/apt/sources.list && apt-get update && \
    apt-get install --yes --no-install-recommends \
    attr gosu gron libcap2-bin procps python3 python3-pip socat strace sudo && \
    rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/*\n";

/// A folder with all of it, which goes with the last test that uses it.
pub(crate) struct Place {
    daemon: Result<Daemon, String>,
    mirror: String,
    base_layers: Vec<Digest>,
    references: Mutex<HashMap<String, Arc<OnceLock<Arc<Outcome>>>>>,
    /// Goes last.
    folder: TempDir,
}

impl Place {
    /// Gives what another test uses already, or makes it; none where the machine lacks
    /// something, which is said.
    pub(crate) fn get() -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<Place>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().expect("no other test has failed to make it");
        if let Some(place) = shared.upgrade() {
            return Some(place);
        }
        match missing() {
            None => {
                let place = Arc::new(Self::make());
                *shared = Arc::downgrade(&place);
                Some(place)
            }
            Some(reason) => {
                skip(&reason);
                None
            }
        }
    }

    fn make() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("environments-")
            .tempdir()
            .unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        // Not linked: it must not be busy when the next one is built.
        fs::copy(static_program(), data.join("ocibuild")).unwrap();
        fs::copy("/bin/busybox", data.join("busybox")).unwrap();
        let mut place = Self {
            daemon: Daemon::start(&folder.path().join("docker"), &data.join("ocibuild")),
            mirror: mirror::serve(fixtures().join("pool")),
            base_layers: Vec::new(),
            references: Mutex::default(),
            folder,
        };
        fs::write(place.secret(), format!("{CANARY}path")).unwrap();
        fs::write(place.mountless_filter(), MOUNTLESS).unwrap();
        for environment in Environment::ALL {
            environment.make_volume(&place.volume(environment));
        }
        place.make_bases();
        case::lay_out_all(&data.join("cases"));
        place
    }

    fn make_bases(&mut self) {
        busybox_layout(&self.data().join("bases/busybox"), "1");
        let contexts = self.folder.path().join("contexts");
        let copy = |from: &Path, to: &Path| {
            let mut command = Command::new("cp");
            assert!(
                command
                    .arg("-a")
                    .args([from, to])
                    .status()
                    .unwrap()
                    .success()
            );
        };
        copy(&fixtures().join("wheels"), &self.data());
        for (name, dockerfile) in [
            ("debian", "FROM scratch\nADD debian.tar /\nCMD [\"bash\"]\n"),
            ("tools", TOOLS),
        ] {
            let context = contexts.join(name);
            fs::create_dir_all(&context).unwrap();
            fs::write(context.join("Dockerfile"), dockerfile).unwrap();
            if name == "debian" {
                fs::hard_link(fixtures().join("debian.tar"), context.join("debian.tar"))
                    .unwrap_or_else(|_| copy(&fixtures().join("debian.tar"), &context));
            }
            let layout = self.data().join("bases").join(name);
            let more = [
                "--output".to_owned(),
                format!("type=oci,dest={}/", layout.display()),
            ];
            let job = Job {
                flags: more.to_vec(),
                ..Job::new(Environment::E1, name, &context)
            };
            let ended = job.ended(self);
            assert!(ended.succeeded, "{}", ended.said);
        }
        fs::remove_dir_all(contexts).unwrap();
        // What was built here is unpacked from the layouts, as everywhere else.
        fs::remove_dir_all(self.volume(Environment::E1).join("store")).unwrap();
        let layers = BASES.map(|base| picture::layers_of(&self.data().join("bases").join(base)));
        self.base_layers = layers.concat();
    }

    /// What the case becomes as root on this machine.
    pub(crate) fn reference(&self, case: &Case) -> Arc<Outcome> {
        let cell = self
            .references
            .lock()
            .unwrap()
            .entry(case.name.clone())
            .or_default()
            .clone();
        cell.get_or_init(|| Arc::new(case.outcome(self, Environment::E1)))
            .clone()
    }

    /// Layers that no case has made.
    pub(crate) fn base_layers(&self) -> &[Digest] {
        &self.base_layers
    }

    /// What all can read.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What one environment can write.
    pub(crate) fn volume(&self, environment: Environment) -> PathBuf {
        self.folder.path().join(environment.name())
    }

    /// A secret that everybody can read who finds it.
    pub(crate) fn secret(&self) -> PathBuf {
        self.data().join("operator-secret")
    }

    /// A filter for a container in which nothing can be mounted.
    pub(crate) fn mountless_filter(&self) -> PathBuf {
        self.folder.path().join("mountless.json")
    }

    /// The static command.
    pub(crate) fn program(&self) -> PathBuf {
        self.data().join("ocibuild")
    }

    /// A shell that runs everywhere.
    pub(crate) fn busybox(&self) -> PathBuf {
        self.data().join("busybox")
    }

    /// Where packages come from.
    pub(crate) fn mirror(&self) -> &str {
        &self.mirror
    }

    /// The client of our daemon.
    pub(crate) fn docker(&self) -> Command {
        self.running_daemon().client()
    }

    /// The image that has the static command.
    pub(crate) fn image(&self) -> &'static str {
        self.running_daemon().image()
    }

    fn running_daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("a daemon")
    }

    /// Whether an environment can be played here; says so if not.
    #[expect(clippy::print_stderr, reason = "a skipped test has to be seen")]
    pub(crate) fn has(&self, environment: Environment) -> bool {
        match &self.daemon {
            Err(reason) if environment.is_container() => {
                eprintln!("skipped: {environment:?}: {reason}");
                false
            }
            _ => true,
        }
    }
}

/// Says why a test does nothing, unless nothing may be left out.
#[expect(clippy::print_stderr, reason = "a skipped test has to be seen")]
fn skip(reason: &str) {
    let all = std::env::var_os("OCIBUILD_TEST_ALL").is_some();
    assert!(!all, "{reason}");
    eprintln!("skipped: {reason}");
}

/// What this machine lacks.
fn missing() -> Option<String> {
    if !fs::metadata("/proc/self").is_ok_and(|entry| is_root(&entry)) {
        return Some("only root can play the environments".to_owned());
    }
    if !Daemon::is_there() {
        return Some("there is no dockerd (package docker.io)".to_owned());
    }
    if environment::range_user().is_none() {
        return Some("no user ocibuild-test: run `cargo xtask test --only machine`".to_owned());
    }
    if !fixtures().join("made-from").is_file() {
        let folder = fixtures();
        return Some(format!(
            "no {}: run `cargo xtask test --only packages`",
            folder.display()
        ));
    }
    if !cfg!(target_feature = "crt-static") {
        let needed = "run `cargo xtask test --only environments`";
        return Some(format!("the command has libraries: {needed}"));
    }
    None
}

fn is_root(entry: &fs::Metadata) -> bool {
    std::os::unix::fs::MetadataExt::uid(entry) == 0
}

/// What `cargo xtask test --only packages` has fetched.
fn fixtures() -> PathBuf {
    // TARGET/<triple>/debug/ocibuild
    let target = static_program().ancestors().nth(3).unwrap();
    target.join("sandbox")
}

/// The command, which `cargo xtask test` links statically.
fn static_program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_ocibuild"))
}

/// Names of the cases that are wanted.
pub(crate) static WANTED: LazyLock<String> =
    LazyLock::new(|| std::env::var("OCIBUILD_TEST_CASES").unwrap_or_default());
