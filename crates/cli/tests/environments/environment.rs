//! Where a builder may find itself, from root on a machine to a pod that may do nothing.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use crate::place::Place;

/// The user that `cargo xtask test --only machine` gives ranges of ids.
const RANGE_USER: &str = "ocibuild-test";
/// A user who need not exist, as OpenShift chooses them.
const HIGH_UID: u32 = 1_000_270_000;
/// A user of the machine without ranges.
const PLAIN_UID: u32 = 54_321;
/// The group of the pod's volumes (`fsGroup`).
const VOLUME_GID: u32 = 2000;

/// One environment; what is built in it must be what is built in the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Environment {
    /// Root on a machine.
    E1,
    /// A user with ranges of ids and the programs that map them.
    E2,
    /// A user without, whose programs cannot gain anything.
    E3,
    /// A container with all defaults: root with Docker's capabilities and filter.
    E4,
    /// The same without the filter.
    E5,
    /// A pod of the profile `restricted`: any uid, no capability, the default filter.
    E6,
    /// The same without the filter.
    E7,
}

impl Environment {
    /// All of them.
    pub(crate) const ALL: [Self; 7] = [
        Self::E1,
        Self::E2,
        Self::E3,
        Self::E4,
        Self::E5,
        Self::E6,
        Self::E7,
    ];

    pub(crate) fn name(self) -> String {
        format!("{self:?}")
    }

    fn is_container(self) -> bool {
        matches!(self, Self::E4 | Self::E5 | Self::E6 | Self::E7)
    }

    /// Makes the folder that can be written to, as this environment has it.
    pub(crate) fn make_volume(self, volume: &Path) {
        fs::create_dir(volume).unwrap();
        let (uid, gid, mode) = match self {
            Self::E1 | Self::E4 | Self::E5 => (0, 0, 0o755),
            Self::E2 => {
                let (uid, gid) = range_user().expect("the user ocibuild-test");
                (uid, gid, 0o755)
            }
            Self::E3 => (PLAIN_UID, PLAIN_UID, 0o755),
            // What Kubernetes makes of `fsGroup`.
            Self::E6 | Self::E7 => (0, VOLUME_GID, 0o2775),
        };
        chown(volume, Some(uid), Some(gid)).unwrap();
        fs::set_permissions(volume, Permissions::from_mode(mode)).unwrap();
    }

    /// The static command in this environment. Paths below the place are the same in all.
    pub(crate) fn command(self, place: &Place, run: &Run<'_>) -> Command {
        let volume = place.volume(self);
        let variables = [
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
            ("HOME", volume.display().to_string()),
        ];
        let variables = variables.into_iter().chain(run.variables.iter().cloned());
        let mut command = match self.is_container() {
            true => {
                let mut command = place.docker();
                command.args(["run", "--rm", "--network=host", "--name", run.name]);
                command.args(self.container_options());
                for (name, value) in variables {
                    command.arg("--env").arg(format!("{name}={value}"));
                }
                for (folder, mode) in [(place.data(), "ro"), (volume, "rw")] {
                    let folder = folder.display();
                    command
                        .arg("--volume")
                        .arg(format!("{folder}:{folder}:{mode}"));
                }
                command.args([place.image(), "/ocibuild"]);
                command
            }
            false => {
                let mut command = self.as_user(&place.program());
                command.env_clear().envs(variables).current_dir(volume);
                command
            }
        };
        command.args(run.arguments);
        command
    }

    fn container_options(self) -> Vec<String> {
        let unconfined = "--security-opt=seccomp=unconfined".to_owned();
        let restricted = || {
            vec![
                format!("--user={HIGH_UID}:0"),
                format!("--group-add={VOLUME_GID}"),
                "--cap-drop=ALL".to_owned(),
                "--security-opt=no-new-privileges".to_owned(),
                "--read-only".to_owned(),
            ]
        };
        match self {
            Self::E5 => vec![unconfined],
            Self::E6 => restricted(),
            Self::E7 => [restricted(), vec![unconfined]].concat(),
            _ => Vec::new(),
        }
    }

    fn as_user(self, program: &Path) -> Command {
        let (user, rest): (String, &[&str]) = match self {
            Self::E2 => (RANGE_USER.to_owned(), &["--init-groups"]),
            Self::E3 => {
                let nothing = &["--clear-groups", "--no-new-privs", "--bounding-set=-all"];
                (PLAIN_UID.to_string(), nothing)
            }
            _ => return Command::new(program),
        };
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={user}"), format!("--regid={user}")]);
        command.args(rest).arg("--").arg(program);
        command
    }
}

/// How the command is called.
pub(crate) struct Run<'a> {
    /// By which a container can be found.
    pub(crate) name: &'a str,
    pub(crate) arguments: &'a [String],
    pub(crate) variables: &'a [(&'static str, String)],
}

/// The user with ranges; none where there is no such user.
pub(crate) fn range_user() -> Option<(u32, u32)> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let prefix = format!("{RANGE_USER}:");
    let entry = passwd.lines().find(|line| line.starts_with(&prefix))?;
    let mut ids = entry.split(':').skip(2);
    Some((ids.next()?.parse().ok()?, ids.next()?.parse().ok()?))
}
