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

/// A filter of seccomp that refuses what AppArmor's profiles of containers refuse too.
pub(crate) const MOUNTLESS: &str = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{
    "names": ["mount", "umount2", "pivot_root", "move_mount", "open_tree", "fsopen", "mount_setattr"],
    "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]}"#;

/// With what every secret of the operator begins.
pub(crate) const CANARY: &str = "canary-";

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
    /// The same where nothing can be mounted, as in pods that AppArmor confines.
    E8,
}

impl Environment {
    /// All of them.
    pub(crate) const ALL: [Self; 8] = [
        Self::E1,
        Self::E2,
        Self::E3,
        Self::E4,
        Self::E5,
        Self::E6,
        Self::E7,
        Self::E8,
    ];

    pub(crate) fn name(self) -> String {
        format!("{self:?}")
    }

    pub(crate) fn is_container(self) -> bool {
        !matches!(self, Self::E1 | Self::E2 | Self::E3)
    }

    /// Makes the folder that can be written to, as this environment has it.
    pub(crate) fn make_volume(self, volume: &Path) {
        fs::create_dir(volume).unwrap();
        self.own_volume(volume);
        self.plant(volume);
    }

    /// Gives a folder to whom a volume belongs.
    pub(crate) fn own_volume(self, volume: &Path) {
        let (owner, gid) = self.ids();
        let (uid, mode) = match self {
            // What Kubernetes makes of `fsGroup`.
            Self::E6 | Self::E7 | Self::E8 => (0, 0o2775),
            _ => (owner, 0o755),
        };
        chown(volume, Some(uid), Some(gid)).unwrap();
        fs::set_permissions(volume, Permissions::from_mode(mode)).unwrap();
    }

    /// Whose files are in the volume.
    fn ids(self) -> (u32, u32) {
        match self {
            Self::E1 | Self::E4 | Self::E5 => (0, 0),
            Self::E2 => range_user().expect("the user ocibuild-test"),
            Self::E3 => (PLAIN_UID, PLAIN_UID),
            Self::E6 | Self::E7 | Self::E8 => (HIGH_UID, VOLUME_GID),
        }
    }

    /// Puts secrets of the operator where a builder has them.
    fn plant(self, volume: &Path) {
        let (uid, gid) = self.ids();
        let login =
            format!(r#"{{"auths": {{"127.0.0.1:1": {{"identitytoken": "{CANARY}login"}}}}}}"#);
        let folder = volume.join(".docker");
        fs::create_dir(&folder).unwrap();
        chown(&folder, Some(uid), Some(gid)).unwrap();
        for (name, content) in [
            ("operator-file", format!("{CANARY}file")),
            (".docker/config.json", login),
        ] {
            let file = volume.join(name);
            fs::write(&file, content).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
            chown(&file, Some(uid), Some(gid)).unwrap();
        }
    }

    /// The static command in this environment. Paths below the place are the same in all.
    pub(crate) fn command(self, place: &Place, run: &Run<'_>) -> Command {
        let variables = [
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
            ("HOME", run.volume.display().to_string()),
            ("OPERATOR_TOKEN", format!("{CANARY}environment")),
            ("HELD_SECRET", format!("{CANARY}held")),
        ];
        let mut command = match self.is_container() {
            true => {
                let mut command = self.in_container(place, run);
                for (name, value) in variables {
                    command.arg("--env").arg(format!("{name}={value}"));
                }
                command.arg(place.image());
                command.arg(run.program.unwrap_or(Path::new("/ocibuild")));
                command
            }
            false => {
                let mut command =
                    self.as_user(run.program.unwrap_or(&place.program()), run.processes);
                command.env_clear().envs(variables).current_dir(run.volume);
                command
            }
        };
        command.args(run.arguments);
        command
    }

    fn in_container(self, place: &Place, run: &Run<'_>) -> Command {
        let mut command = place.docker();
        command.args(["run", "--rm", "--network=host", "--name", run.name]);
        command.args(self.container_options(place));
        if let Some(most) = run.processes {
            command.arg(format!("--pids-limit={most}"));
        }
        for (folder, mode) in [(&*place.data(), "ro"), (run.volume, "rw")] {
            let folder = folder.display();
            command
                .arg("--volume")
                .arg(format!("{folder}:{folder}:{mode}"));
        }
        command
    }

    fn container_options(self, place: &Place) -> Vec<String> {
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
            Self::E8 => {
                let filter = place.mountless_filter();
                let option = format!("--security-opt=seccomp={}", filter.display());
                [restricted(), vec![option]].concat()
            }
            _ => Vec::new(),
        }
    }

    fn as_user(self, program: &Path, processes: Option<u32>) -> Command {
        let (user, rest): (String, &[&str]) = match self {
            Self::E2 => (RANGE_USER.to_owned(), &["--init-groups"]),
            Self::E3 => {
                let nothing = &["--clear-groups", "--no-new-privs", "--bounding-set=-all"];
                (PLAIN_UID.to_string(), nothing)
            }
            _ => return Command::new(program),
        };
        let mut command = match processes {
            Some(most) => {
                let mut command = Command::new("prlimit");
                command.arg(format!("--nproc={most}")).arg("setpriv");
                command
            }
            None => Command::new("setpriv"),
        };
        command.args([format!("--reuid={user}"), format!("--regid={user}")]);
        command.args(rest).arg("--").arg(program);
        command
    }
}

/// How the command is called.
pub(crate) struct Run<'a> {
    /// By which a container can be found.
    pub(crate) name: &'a str,
    /// Another one than the static command.
    pub(crate) program: Option<&'a Path>,
    pub(crate) arguments: &'a [String],
    /// What it may write to.
    pub(crate) volume: &'a Path,
    /// How many processes there may be.
    pub(crate) processes: Option<u32>,
}

/// The user with ranges; none where there is no such user.
pub(crate) fn range_user() -> Option<(u32, u32)> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let prefix = format!("{RANGE_USER}:");
    let entry = passwd.lines().find(|line| line.starts_with(&prefix))?;
    let mut ids = entry.split(':').skip(2);
    Some((ids.next()?.parse().ok()?, ids.next()?.parse().ok()?))
}
