//! What a command sees by its mounts. All of it is made ready before the command runs,
//! so that whatever is missing is said before anything is unpacked or started.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::agent::{self, Agent};
use super::cache_mounts::{self, Cache};
use super::files::Files;
use super::folder::StepFolder;
use super::mounts::{Prepared, Source};
use super::run_step::distinct;
use super::session::Session;
use super::trees::trees;
use super::{Shared, jobs};
use crate::dockerfile::Mount;
use crate::dockerfile::mount::{CacheMount, FileInfo, SecretMount, SshMount};
use crate::dockerfile::suggest::nearest;
use crate::error::Error;
use crate::executor::{self, Identity, MountSource, Writes};
use crate::secret::{self, Hidden};
use crate::snapshot::fill;

/// The mode of a secret for which none is given.
const SECRET_MODE: u32 = 0o400;
/// The mode of the socket of an agent for which none is given.
const SOCKET_MODE: u32 = 0o600;

/// What the sandbox is to show to a command.
#[derive(Debug, Default)]
pub(crate) struct Supplies {
    pub(crate) mounts: Vec<executor::Mount>,
    pub(crate) secret_env: Vec<(String, Hidden)>,
    /// Caches in use and sockets of agents, which go when this goes.
    caches: Vec<Cache>,
    agents: Vec<Agent>,
}

/// The secrets of a command that are given.
pub(crate) type Secrets = BTreeMap<String, Hidden>;

/// Reads the secrets of a command, and sees that its agents are known, before anything
/// is made ready for it.
pub(crate) fn secrets(session: &Session, mounts: &[Prepared]) -> Result<Secrets, Error> {
    let mut secrets = Secrets::new();
    for prepared in mounts {
        match &prepared.mount {
            Mount::Secret(mount) => {
                if let Some(content) = find_secret(session, mount)? {
                    secrets.insert(mount.id.clone(), content);
                }
            }
            Mount::Ssh(mount) => drop(find_agent(session, mount)?),
            Mount::Bind(_) | Mount::Cache(_) | Mount::Tmpfs(_) => {}
        }
    }
    Ok(secrets)
}

/// Makes everything ready.
pub(crate) async fn all(
    session: &Shared,
    folder: &Arc<StepFolder>,
    mounts: &[Prepared],
    secrets: Secrets,
) -> Result<Supplies, Error> {
    let mut supplies = Supplies::default();
    let caches = cache_mounts::take(session, folder, mounts).await?;
    for (number, prepared) in mounts.iter().enumerate() {
        match &prepared.mount {
            Mount::Secret(mount) => supplies.add_secret(mount, secrets.get(&mount.id)),
            Mount::Cache(mount) => {
                if let Some(cache) = caches.get(&mount.id) {
                    supplies.add_cache(mount, cache);
                }
            }
            Mount::Bind(mount) => {
                if let Some(source) = &prepared.source {
                    let source = shown(session, folder, source, number, mount.read_only).await?;
                    supplies.mount(&mount.target, source);
                }
            }
            Mount::Tmpfs(mount) => {
                // To the kernel, nothing would be no limit.
                let size = mount.size.filter(|size| *size > 0);
                supplies.mount(&mount.target, MountSource::Tmpfs { size });
            }
            Mount::Ssh(mount) => {
                if let Some(socket) = find_agent(session, mount)? {
                    let name = format!("mount-{number}");
                    supplies.add_agent(folder, &name, mount, socket).await?;
                }
            }
        }
    }
    supplies.caches = caches.into_values().collect();
    Ok(supplies)
}

/// Makes the files of a bind mount ready: layers are unpacked as those of a root are; of a
/// context, which is not the command's to change or to watch, it sees a copy.
async fn shown(
    session: &Shared,
    folder: &Arc<StepFolder>,
    source: &Source,
    number: usize,
    read_only: bool,
) -> Result<MountSource, Error> {
    let sandbox = folder.sandbox();
    let (lowers, path) = match &source.files {
        Files::Layers { layers, .. } => {
            let lowers = distinct(trees(session, sandbox, layers).await?);
            (lowers, source.selected.root.as_bytes().to_vec())
        }
        _ => {
            let copy = copy_of(session, folder, source, number).await?;
            let name = match source.is_folder() {
                true => Vec::new(),
                false => source.selected.name.clone(),
            };
            (vec![copy], name)
        }
    };
    let writes = match read_only {
        true => None,
        false => Some(Writes {
            upper: folder.child(&format!("mount-{number}-upper"))?,
            work: folder.child(&format!("mount-{number}-work"))?,
        }),
    };
    let path = PathBuf::from(OsString::from_vec([b"/", path.as_slice()].concat()));
    Ok(MountSource::Layers {
        lowers,
        path,
        writes,
    })
}

/// Copies files of a context into the folder of the step.
async fn copy_of(
    session: &Shared,
    folder: &Arc<StepFolder>,
    source: &Source,
    number: usize,
) -> Result<PathBuf, Error> {
    let dest = folder.path().join(format!("mount-{number}"));
    let tar = dest.with_extension("tar");
    source.write_tar(session, tar.clone()).await?;
    let (owner, mode) = match source.is_folder() {
        true => source.attributes(),
        false => ((0, 0), 0o755),
    };
    let request = fill::Request {
        dest: dest.clone(),
        tar: Some(tar),
        identity: folder.sandbox().identity().clone(),
        notes: folder.sandbox().notes(),
        owner,
        mode,
    };
    let (folder, cancel) = (folder.clone(), session.cancel.clone());
    session
        .block(move || {
            let sandbox = folder.sandbox().as_ref();
            let _: () = jobs::call(sandbox, jobs::FILL, &request, &cancel)?;
            Ok(dest)
        })
        .await
}

impl Supplies {
    fn add_secret(&mut self, mount: &SecretMount, content: Option<&Hidden>) {
        if let Some(name) = &mount.env {
            // One that is not given is empty, not unset, as with the reference builder.
            let value = content.cloned().unwrap_or_default();
            self.secret_env.push((name.clone(), value));
        }
        if let (Some(target), Some(content)) = (&mount.target, content) {
            self.mount(
                target,
                MountSource::File {
                    content: content.clone(),
                    mode: mount.file.mode.unwrap_or(SECRET_MODE),
                    uid: mount.file.uid.unwrap_or_default(),
                    gid: mount.file.gid.unwrap_or_default(),
                },
            );
        }
    }

    async fn add_agent(
        &mut self,
        folder: &StepFolder,
        name: &str,
        mount: &SshMount,
        socket: &Path,
    ) -> Result<(), Error> {
        let opened = agent::open(folder.path(), name, socket).await;
        let agent = opened.map_err(|source| Error::Agent {
            id: mount.id.clone(),
            path: socket.to_owned(),
            source,
        })?;
        self.mount(
            mount.target.as_deref().unwrap_or_default(),
            MountSource::Socket {
                path: agent.path.clone(),
                mode: mount.file.mode.unwrap_or(SOCKET_MODE),
                uid: mount.file.uid.unwrap_or_default(),
                gid: mount.file.gid.unwrap_or_default(),
            },
        );
        self.agents.push(agent);
        Ok(())
    }

    fn add_cache(&mut self, mount: &CacheMount, cache: &Cache) {
        self.mount(
            &mount.target,
            MountSource::Bind {
                path: cache.path.clone(),
                writable: !mount.read_only,
            },
        );
    }

    fn mount(&mut self, target: &str, source: MountSource) {
        let target = PathBuf::from(target);
        self.mounts.push(executor::Mount { target, source });
    }
}

fn find_secret(session: &Session, mount: &SecretMount) -> Result<Option<Hidden>, Error> {
    let id = &mount.id;
    match session.secrets.get(id) {
        Some(secret) => {
            let content = secret.read().map_err(|reason| unreadable(id, reason))?;
            if mount.env.is_some() && content.expose().contains(&0) {
                return Err(unreadable(id, secret::Error::ZeroByte));
            }
            Ok(Some(content))
        }
        None if mount.required => Err(Error::Invalid {
            message: format!("the secret {id:?} is required and was not given"),
            hint: Some(advice(
                id,
                session.secrets.keys(),
                &format!("give it: --secret id={id},src=FILE"),
            )),
        }),
        None => Ok(None),
    }
}

fn find_agent<'a>(session: &'a Session, mount: &SshMount) -> Result<Option<&'a Path>, Error> {
    let id = &mount.id;
    match session.agents.get(id) {
        Some(socket) => Ok(Some(socket)),
        None if mount.required => Err(Error::Invalid {
            message: format!("the SSH agent {id:?} is required and was not given"),
            hint: Some(advice(
                id,
                session.agents.keys(),
                &format!("give it: --ssh {id}[=SOCKET]"),
            )),
        }),
        None => Ok(None),
    }
}

fn unreadable(id: &str, source: secret::Error) -> Error {
    let id = id.to_owned();
    Error::Secret { id, source }
}

/// Names what was probably meant, or else what to do.
fn advice<'a>(id: &str, given: impl Iterator<Item = &'a String>, otherwise: &str) -> String {
    let given: Vec<&str> = given.map(String::as_str).collect();
    match nearest(id, &given) {
        Some(near) => format!("did you mean {near:?}?"),
        None => otherwise.to_owned(),
    }
}

/// Refuses owners that no file can have under the ids of the sandbox.
pub(crate) fn check_owners(mounts: &[Prepared], identity: &Identity) -> Result<(), Error> {
    let ids = identity.ids();
    for prepared in mounts {
        let Some(FileInfo { uid, gid, .. }) = owner_of(&prepared.mount) else {
            continue;
        };
        if let Some(id) = [uid, gid].into_iter().flatten().find(|id| **id >= ids) {
            return Err(Error::Invalid {
                message: format!(
                    "a mount cannot belong to id {id}: only {ids} ids can be had here, from 0 on"
                ),
                hint: Some("`ocibuild check-host` says which ids RUN steps have".to_owned()),
            });
        }
    }
    Ok(())
}

fn owner_of(mount: &Mount) -> Option<&FileInfo> {
    match mount {
        Mount::Cache(mount) => Some(&mount.file),
        Mount::Secret(mount) => Some(&mount.file),
        Mount::Ssh(mount) => Some(&mount.file),
        Mount::Bind(_) | Mount::Tmpfs(_) => None,
    }
}
