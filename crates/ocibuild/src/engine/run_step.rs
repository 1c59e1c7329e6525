//! RUN: the layers below become a root file system, a command runs over it, and what
//! it changed becomes a layer.

use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cores::is_large;
use super::folder::StepFolder;
use super::hostname;
use super::late::{Made, Pack};
use super::layers::identity_name;
use super::mounts::Prepared;
use super::supply::{self, Supplies};
use super::trees::trees;
use super::{Shared, jobs};
use crate::Cancel;
use crate::cache::StepResult;
use crate::content::Layer;
use crate::content::{ContentStore, Origin};
use crate::error::Error;
use crate::event::{Event, EventSink, StepId, Stream};
use crate::executor::{Exit, Identity, Mount, MountSource, Rootfs, RunSpec};
use crate::graph::RunStep;
use crate::graph::key::KeyBuilder;
use crate::graph::step::SCRIPTS;
use crate::layer::{Compression, DiffId};
use crate::output::form::Recipe;
use crate::registry::{Descriptor, Platform};
use crate::snapshot::diff;

/// How many lines of output an error shows.
const TAIL: usize = 20;
/// A line longer than this is cut, so that a command without line ends cannot fill memory.
const LINE_LIMIT: usize = 64 << 10;

/// Adds to a key what decides over a command but its mounts; `below` names the layers that
/// it runs over, `platform` the one that it runs on. Proxies are not part of it.
pub(crate) fn key(
    begun: KeyBuilder,
    session: &Shared,
    platform: &Platform,
    command: &RunStep,
    below: &str,
) -> KeyBuilder {
    let script = command.script.iter().flat_map(|(name, text)| [name, text]);
    let env = command.env.iter().flat_map(|(name, value)| [name, value]);
    begun
        .part("scope", &session.cache_scope)
        .part("below", below)
        .part("platform", platform.to_string())
        .part("epoch", format!("{:?}", session.epoch))
        .list("argv", &command.argv)
        .variables("env", env)
        .part("cwd", &command.cwd)
        .part("user", &command.user)
        .part("network", format!("{:?}", command.network))
        .list("security", command.privileged.then_some("insecure"))
        .list("script", script)
        .list("hostname", hostname::given(&session.plan.request.args))
}

/// What is known of the time after a command.
#[derive(Debug, Clone, Copy)]
pub(super) struct After {
    /// Others run over its layer.
    pub(super) others_follow: bool,
    /// The layer may be sent while it is packed.
    pub(super) goes_ahead: bool,
}

/// Runs the command over `below` and gives the layer; where others run over it, a large one
/// is packed while they do.
pub(super) async fn run(
    session: &Shared,
    step: StepId,
    below: &[Layer],
    command: RunStep,
    mounts: Vec<Prepared>,
    after: After,
) -> Result<Made, Error> {
    let secrets = supply::secrets(session, &mounts)?;
    let sandbox = session.sandbox().await?;
    supply::check_owners(&mounts, sandbox.identity())?;
    if command.privileged && !sandbox.is_privileged() {
        return Err(Error::invalid(format!(
            "RUN --security=insecure needs root on this machine, and commands run with the \
             engine {} here",
            sandbox.name()
        )));
    }
    let lowers = distinct(trees(session, &sandbox, below).await?);
    let folder = StepFolder::new(&session.store, sandbox)?;
    let supplies = supply::all(session, &folder, &mounts, secrets).await?;
    let job = RunJob {
        store: session.store.clone(),
        folder,
        lowers,
        tocs: below
            .iter()
            .map(|layer| session.store.toc_path(layer.diff_id))
            .collect(),
        command,
        supplies,
        packed: session.packed,
        threads: session.threads,
        clamp_mtime: session.epoch,
        created: session.created_text(),
        hostname: hostname::of(&session.plan.request.args).to_owned(),
        events: session.steps.events.clone(),
        step,
        cancel: session.cancel.clone(),
        goes_ahead: after.goes_ahead,
        changed: 0,
        tree: None,
    };
    let job = session.block(move || job.run()).await?;
    match after.others_follow && is_large(job.changed) {
        true => job.digested(session).await,
        false => Ok(job.packed(session).await?.into()),
    }
}

/// The kernel does not take one directory twice. Where a layer lies over itself, the
/// higher one alone looks the same: it says again all that the lower one says.
pub(crate) fn distinct(lowers: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut seen = HashSet::new();
    let mut highest_first: Vec<PathBuf> = lowers.into_iter().rev().collect();
    highest_first.retain(|lower| seen.insert(lower.clone()));
    highest_first.reverse();
    highest_first
}

/// The files by which names are found: the command sees them and cannot change them.
fn network_files(hostname: &str) -> Vec<Mount> {
    let hosts =
        format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    let resolver = std::fs::read("/etc/resolv.conf").unwrap_or_default();
    vec![
        memory_file("/etc/hosts", hosts.into_bytes(), 0o644),
        memory_file("/etc/resolv.conf", resolver, 0o644),
    ]
}

fn script((name, text): &(String, String)) -> Mount {
    memory_file(
        &format!("{SCRIPTS}/{name}"),
        text.clone().into_bytes(),
        0o755,
    )
}

fn memory_file(target: &str, content: Vec<u8>, mode: u32) -> Mount {
    Mount {
        target: PathBuf::from(target),
        source: MountSource::File {
            content: content.into(),
            mode,
            uid: 0,
            gid: 0,
        },
    }
}

struct RunJob {
    store: ContentStore,
    folder: Arc<StepFolder>,
    lowers: Vec<PathBuf>,
    tocs: Vec<PathBuf>,
    command: RunStep,
    supplies: Supplies,
    packed: Option<Recipe>,
    threads: usize,
    clamp_mtime: Option<i64>,
    created: String,
    /// The name that the command sees for its machine.
    hostname: String,
    events: EventSink,
    step: StepId,
    cancel: Cancel,
    /// The layer may be sent while it is packed.
    goes_ahead: bool,
    /// How many bytes the command has left.
    changed: u64,
    /// Where what it has left is, if not in the folder any more.
    tree: Option<PathBuf>,
}

impl RunJob {
    fn run(mut self) -> Result<Self, Error> {
        let spec = self.spec()?;
        let mut output = Output::new(self.events.clone(), self.step);
        let exit = self.folder.sandbox().run(
            &spec,
            &mut |stream, bytes| output.write(stream, bytes),
            &self.cancel,
        )?;
        // Others may have the caches while the layer is packed.
        drop(std::mem::take(&mut self.supplies));
        let tail = output.end();
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        if exit != Exit::Code(0) {
            return Err(Error::Command {
                command: self.command.argv.join(" "),
                exit,
                output: tail,
            });
        }
        self.changed = self.store.bytes_of(&self.folder.child("upper")?);
        Ok(self)
    }

    fn spec(&self) -> Result<RunSpec, Error> {
        let command = &self.command;
        let env = command.silent_env.iter().chain(&command.env);
        let rootfs = Rootfs {
            lowers: self.lowers.clone(),
            upper: self.folder.child("upper")?,
            work: self.folder.child("work")?,
        };
        let mut mounts = network_files(&self.hostname);
        mounts.extend(command.script.iter().map(script));
        mounts.extend(self.supplies.mounts.iter().cloned());
        Ok(RunSpec {
            env: env.cloned().collect(),
            secret_env: self.supplies.secret_env.clone(),
            cwd: command.cwd.clone(),
            user: command.user.clone(),
            hostname: self.hostname.clone(),
            network: command.network,
            privileged: command.privileged,
            mounts,
            ..RunSpec::new(rootfs, command.argv.clone())
        })
    }

    /// Packs what the command changed.
    async fn packed(self, session: &Shared) -> Result<StepResult, Error> {
        let _cores = session.cores.to_pack(self.changed).await;
        let sent_by = session.clone();
        session.block(move || self.layer(&sent_by)).await
    }

    /// Finds out what the layer is, and leaves the packing for later.
    async fn digested(self, session: &Shared) -> Result<Made, Error> {
        let (job, result) = session.block(move || self.digest()).await?;
        let diff_id = result.diff_id;
        let (coming, session) = (session.coming.begin(diff_id), session.clone());
        let pack = async move {
            let packed = job.packed(&session).await?;
            if packed.diff_id != diff_id {
                let problem = format!("layer {diff_id} has changed while it was packed");
                return Err(Error::Lost(problem));
            }
            coming.send_replace(Some(packed.blob.clone()));
            Ok(packed)
        };
        let pack = Some(Pack::new(pack));
        Ok(Made { result, pack })
    }

    fn digest(mut self) -> Result<(Self, StepResult), Error> {
        let request = diff::Request {
            blob: None,
            compression: Compression::None,
            ..self.request(&self.folder.child("upper")?)
        };
        let sandbox = self.folder.sandbox().clone();
        let found: diff::Response =
            jobs::call(sandbox.as_ref(), jobs::DIFF, &request, &self.cancel)?;
        self.store.adopt_toc(&request.toc, found.diff_id)?;
        let tree = self.store.adopt_tree(
            &request.upper,
            &identity_name(sandbox.as_ref()),
            found.diff_id,
        )?;
        // Where there was such a tree, ours stays where it is.
        if !request.upper.exists() {
            self.tree = Some(tree);
        }
        let blob = Descriptor::new(found.media_type, found.digest, found.size);
        let result = self.result(found.diff_id, blob);
        Ok((self, result))
    }

    /// Packs what the command changed; its upper directory is the layer's tree from now on.
    fn layer(&self, session: &Shared) -> Result<StepResult, Error> {
        let sandbox = self.folder.sandbox();
        let upper = match &self.tree {
            Some(tree) => tree.clone(),
            None => self.folder.child("upper")?,
        };
        let request = self.request(&upper);
        let _room = self.store.reserve(self.changed)?;
        let growth = match self.goes_ahead {
            true => session.early.growing(&self.blob()),
            false => None,
        };
        let packed: diff::Response =
            jobs::call(sandbox.as_ref(), jobs::DIFF, &request, &self.cancel)?;
        let blob = Descriptor::new(packed.media_type, packed.digest, packed.size);
        self.store
            .adopt_layer(&self.blob(), &request.toc, packed.diff_id, &blob)?;
        if let Some(growth) = growth {
            session.early.grown(session, growth, &blob);
        }
        if request.level.is_some() {
            let (layer, compression) = (packed.diff_id, request.compression);
            self.store
                .put_variant(layer, compression, request.level, &blob)?;
        }
        if self.tree.is_none() {
            let identity = identity_name(sandbox.as_ref());
            self.store.adopt_tree(&upper, &identity, packed.diff_id)?;
        }
        Ok(self.result(packed.diff_id, blob))
    }

    fn blob(&self) -> PathBuf {
        self.folder.path().join("blob")
    }

    fn request(&self, upper: &Path) -> diff::Request {
        let sandbox = self.folder.sandbox();
        diff::Request {
            upper: upper.to_owned(),
            identity: sandbox.identity().clone(),
            notes: sandbox.notes(),
            lowers: self.tocs.clone(),
            blob: Some(self.blob()),
            toc: self.folder.path().join("toc"),
            exclude: Vec::new(),
            compression: self
                .packed
                .map_or_else(Compression::default, |packed| packed.compression),
            level: self.packed.and_then(|packed| packed.level),
            threads: self.threads,
            clamp_mtime: self.clamp_mtime,
        }
    }

    fn result(&self, diff_id: DiffId, blob: Descriptor) -> StepResult {
        StepResult {
            diff_id,
            blob,
            single_id: *self.folder.sandbox().identity() == Identity::Single,
            created: self.created.clone(),
            origin: Origin::Store,
        }
    }
}

/// Cuts what a command prints into lines, and keeps the last ones.
struct Output {
    events: EventSink,
    step: StepId,
    pending: [Vec<u8>; 2],
    tail: VecDeque<String>,
}

impl Output {
    fn new(events: EventSink, step: StepId) -> Self {
        Self {
            events,
            step,
            pending: [Vec::new(), Vec::new()],
            tail: VecDeque::new(),
        }
    }

    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let pending = &mut self.pending[stream as usize];
            pending.extend_from_slice(piece);
            if piece.ends_with(b"\n") || pending.len() >= LINE_LIMIT {
                self.flush(stream);
            }
        }
    }

    fn flush(&mut self, stream: Stream) {
        let line = std::mem::take(&mut self.pending[stream as usize]);
        let text = String::from_utf8_lossy(&line);
        let line = text.trim_end_matches(['\r', '\n']).to_owned();
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line.clone());
        self.events.emit(Event::StepLog {
            step: self.step,
            stream,
            line,
        });
    }

    fn end(mut self) -> Vec<String> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if !self.pending[stream as usize].is_empty() {
                self.flush(stream);
            }
        }
        self.tail.into()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn output_comes_in_lines() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = {
            let seen = seen.clone();
            EventSink::new(move |event| seen.lock().unwrap().push(event))
        };
        let mut output = Output::new(sink, StepId(1));
        output.write(Stream::Stdout, b"one\ntw");
        output.write(Stream::Stderr, b"err\r\n");
        output.write(Stream::Stdout, b"o\n\nthree");
        assert_eq!(output.end(), ["one", "err", "two", "", "three"]);
        assert_eq!(seen.lock().unwrap().len(), 5);
    }
}
