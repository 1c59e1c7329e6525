//! Which engine can run here, found out by doing the real thing once in a helper:
//! namespaces, maps, overlay, every mount, the filter. Only the command is missing.

use std::fmt;
use std::fs;
use std::path::Path;

use rustix::fs::{Gid, Uid};
use rustix::process::{getegid, geteuid};

use super::choice::{Choice, NAMES, Name};
use super::error::{Attempt, Error};
use super::helper::Helper;
use super::namespaces::Namespaces;
use super::plain::{CHROOT, EMULATION};
use super::root::REMOVABLE;
use super::userns::{self, IdMaps, Writer};
use super::{Failure, IdRange, Identity, Plain, Rootfs, RunSpec, Sandbox, confine, host};
use crate::ownership;

/// Where a process with the right to any id takes its range from, if it can.
const FREE_RANGE: IdRange = IdRange {
    first: 100_000,
    count: 65_535,
};
/// The same in a user namespace that has the usual 65,536 ids only.
const NESTED_RANGE: IdRange = IdRange {
    first: 1,
    count: 65_535,
};

/// What was found out about one engine with one kind of identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The engine.
    pub engine: &'static str,
    /// The kind of identity: `real`, `range`, `recorded` or `single`.
    pub identity: &'static str,
    /// Whether commands can run this way.
    pub usable: bool,
    /// Why not, with the call and the error; or what is to be known about it.
    pub reason: String,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            engine,
            identity,
            usable,
            reason,
        } = self;
        let verdict = if *usable { "usable" } else { "refused" };
        write!(f, "{engine} with {identity} ids: {verdict}: {reason}")
    }
}

/// No engine can run commands here; each has its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusals(pub Vec<Verdict>);

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no sandbox can run commands here")?;
        self.0
            .iter()
            .try_for_each(|verdict| write!(f, "; {verdict}"))
    }
}

impl std::error::Error for Refusals {}

/// Gives the best engine that can run here. `work_dir` must exist, on the file system
/// that upper directories will be on.
pub fn select(helper: &Helper, work_dir: &Path) -> Result<Box<dyn Sandbox>, Refusals> {
    select_among(&Choice::default(), helper, work_dir)
}

/// Gives the best engine that can run here and may be taken.
pub fn select_among(
    choice: &Choice,
    helper: &Helper,
    work_dir: &Path,
) -> Result<Box<dyn Sandbox>, Refusals> {
    let mut refusals = Vec::new();
    for candidate in choice.candidates().into_iter().map(Candidate) {
        match candidate.build(helper, work_dir) {
            Ok((engine, _)) => return Ok(engine),
            Err(reason) => refusals.push(candidate.verdict(false, reason)),
        }
    }
    Err(Refusals(refusals))
}

/// Tries every engine, best first.
pub fn report(helper: &Helper, work_dir: &Path) -> Vec<Verdict> {
    let try_one = |candidate: Candidate| match candidate.build(helper, work_dir) {
        Ok((_, note)) => candidate.verdict(true, note),
        Err(reason) => candidate.verdict(false, reason),
    };
    NAMES.iter().map(Candidate).map(try_one).collect()
}

/// Describes what of this machine decides about engines: names and values.
pub fn environment(work_dir: &Path) -> Vec<(&'static str, String)> {
    host::describe(work_dir)
}

/// An engine that has rehearsed, and what is to be known about it.
type Proven = (Box<dyn Sandbox>, String);

/// An engine with a kind of identity.
#[derive(Debug, Clone, Copy)]
struct Candidate(&'static Name);

impl Candidate {
    fn verdict(self, usable: bool, reason: String) -> Verdict {
        let &(engine, identity) = self.0;
        Verdict {
            engine,
            identity,
            usable,
            reason,
        }
    }

    /// Makes the engine and lets it rehearse, or gives the reason why it cannot run.
    fn build(self, helper: &Helper, work_dir: &Path) -> Result<Proven, String> {
        match *self.0 {
            (CHROOT, "real") => chroot(helper, work_dir),
            (CHROOT, _) => mapped_chroot(helper, work_dir),
            (EMULATION, _) => emulation(helper, work_dir),
            (_, "real") => real(helper, work_dir),
            (_, "range") => range(helper, work_dir),
            (_, "recorded") => one_id(helper, work_dir, Identity::Recorded),
            _ => one_id(helper, work_dir, Identity::Single),
        }
    }
}

fn chroot(helper: &Helper, work_dir: &Path) -> Result<Proven, String> {
    if !geteuid().is_root() {
        return Err(format!("needs root, this is uid {}", geteuid().as_raw()));
    }
    gives_files_away(work_dir).map_err(|failure| failure.to_string())?;
    let engine = Plain::chroot(helper, work_dir);
    rehearse_plain(engine, work_dir, "owners are real, users are emulated")
}

fn mapped_chroot(helper: &Helper, work_dir: &Path) -> Result<Proven, String> {
    ownership::probe(work_dir).map_err(|error| error.to_string())?;
    let (uid, gid) = own_ids();
    let maps = IdMaps::single(uid, gid);
    let engine = Plain::mapped_chroot(helper, work_dir, maps).map_err(explain)?;
    rehearse_plain(engine, work_dir, "owners and users are emulated")
}

fn emulation(helper: &Helper, work_dir: &Path) -> Result<Proven, String> {
    ownership::probe(work_dir).map_err(|error| error.to_string())?;
    let engine = Plain::emulation(helper, work_dir);
    let note = "paths are translated, owners and users are emulated";
    rehearse_plain(engine, work_dir, note)
}

/// Does everything but run a command; the note tells too what the kernel does not offer to
/// confine one.
fn rehearse_plain(engine: Plain, work_dir: &Path, note: &str) -> Result<Proven, String> {
    try_once(|spec| engine.rehearse(spec), work_dir).map_err(explain)?;
    let note = match confine::missing() {
        Some(missing) => format!("{note}; {missing}"),
        None => note.to_owned(),
    };
    Ok((Box::new(engine), note))
}

/// Root in a container may lack even the right to give files to other users.
fn gives_files_away(work_dir: &Path) -> Result<(), Failure> {
    let file = tempfile::tempfile_in(work_dir).attempt("open", work_dir.display())?;
    let (uid, gid) = (Uid::from_raw(33), Gid::from_raw(33));
    rustix::fs::fchown(&file, Some(uid), Some(gid)).attempt("fchown", "33:33 a file")
}

fn real(helper: &Helper, work_dir: &Path) -> Result<Proven, String> {
    if !geteuid().is_root() {
        return Err(format!("needs root, this is uid {}", geteuid().as_raw()));
    }
    rehearse(Namespaces::real(helper), work_dir, "root on this machine")
}

/// With the one id that any user can have in a user namespace.
fn one_id(helper: &Helper, work_dir: &Path, identity: Identity) -> Result<Proven, String> {
    let (uid, gid) = own_ids();
    let note = match identity {
        Identity::Recorded => {
            ownership::probe(work_dir).map_err(|error| error.to_string())?;
            "owners and users are emulated"
        }
        _ => "every file belongs to root, and no other user can be",
    };
    let maps = IdMaps::single(uid, gid);
    let engine = Namespaces::mapped(helper, identity, maps).map_err(explain)?;
    rehearse(engine, work_dir, note)
}

fn range(helper: &Helper, work_dir: &Path) -> Result<Proven, String> {
    let (uid, gid) = own_ids();
    let mut reasons = Vec::new();
    for (uids, gids, writer) in range_choices(uid, &mut reasons) {
        let maps = IdMaps::range(uid, gid, uids, gids, writer);
        let identity = Identity::Range { uids, gids };
        match Namespaces::mapped(helper, identity, maps) {
            Ok(engine) => {
                let note = format!(
                    "uids {}+{}, gids {}+{}",
                    uids.first, uids.count, gids.first, gids.count
                );
                return rehearse(engine, work_dir, &note);
            }
            Err(error) => reasons.push(explain(error)),
        }
    }
    Err(reasons.join("; "))
}

/// The ranges that this user may have, and who can write them.
fn range_choices(uid: u32, reasons: &mut Vec<String>) -> Vec<(IdRange, IdRange, Writer)> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let passwd = read("/etc/passwd");
    let name = userns::name_of(&passwd, uid);
    let find = |path: &str| userns::longest_range(&read(path), name, uid);
    let mut choices = Vec::new();
    match (find("/etc/subuid"), find("/etc/subgid")) {
        (Some(uids), Some(gids)) => choices.push((uids, gids, Writer::Programs)),
        (uids, _) => {
            let file = if uids.is_none() {
                "/etc/subuid"
            } else {
                "/etc/subgid"
            };
            reasons.push(format!(
                "{file} has no range for {}",
                name.unwrap_or(&uid.to_string())
            ));
        }
    }
    if uid == 0 {
        choices.extend([FREE_RANGE, NESTED_RANGE].map(|range| (range, range, Writer::Capable)));
    }
    choices
}

fn own_ids() -> (u32, u32) {
    (geteuid().as_raw(), getegid().as_raw())
}

/// Does everything but run a command, over a layer made for it; without a process id
/// namespace if /proc cannot be mounted.
fn rehearse(engine: Namespaces, work_dir: &Path, note: &str) -> Result<Proven, String> {
    let refused = match try_once(|spec| engine.rehearse(spec), work_dir) {
        Ok(()) => return Ok((Box::new(engine), note.to_owned())),
        Err(error) => error,
    };
    if !is_about_proc(&refused) {
        return Err(with_hint(refused));
    }
    let engine = engine.without_pid_namespace();
    match try_once(|spec| engine.rehearse(spec), work_dir) {
        Ok(()) => Ok((
            Box::new(engine),
            format!("{note}; no process id namespace: {}", explain(refused)),
        )),
        Err(error) => Err(with_hint(error)),
    }
}

fn try_once(
    rehearse: impl FnOnce(&RunSpec) -> Result<(), Error>,
    work_dir: &Path,
) -> Result<(), Error> {
    let unusable = |source| Error::Talk {
        doing: "prepare a rehearsal",
        source,
    };
    let place = tempfile::Builder::new()
        .prefix("probe-")
        .tempdir_in(work_dir)
        .map_err(unusable)?;
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| place.path().join(name));
    for directory in [&lower, &lower.join(REMOVABLE), &upper, &work] {
        fs::create_dir(directory).map_err(unusable)?;
    }
    let rootfs = Rootfs {
        lowers: vec![lower],
        upper,
        work,
    };
    rehearse(&RunSpec::new(rootfs, vec!["/rehearsal".into()]))
}

fn is_about_proc(error: &Error) -> bool {
    matches!(error, Error::Refused(Failure::System { subject, .. }) if subject == "proc on /proc")
}

fn with_hint(error: Error) -> String {
    let hint = match &error {
        Error::Refused(Failure::System {
            call,
            subject,
            errno: libc::EINVAL,
        }) if call == "mount" && subject == "overlay" => {
            "; is the work directory itself on an overlay? Use a volume"
        }
        _ => "",
    };
    format!("{}{hint}", explain(error))
}

fn explain(error: Error) -> String {
    match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
