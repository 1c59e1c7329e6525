//! What a command sees by its mounts. All of it is made ready before the command runs,
//! so that whatever is missing is said before anything is unpacked or started.

use std::path::PathBuf;

use super::session::Session;
use crate::dockerfile::Mount;
use crate::dockerfile::mount::{FileInfo, SecretMount};
use crate::dockerfile::suggest::nearest;
use crate::error::Error;
use crate::executor::{self, Identity, MountSource};
use crate::secret::{self, Hidden};

/// The mode of a secret for which none is given.
const SECRET_MODE: u32 = 0o400;

/// What the sandbox is to show to a command.
#[derive(Debug, Default)]
pub(crate) struct Supplies {
    pub(crate) mounts: Vec<executor::Mount>,
    pub(crate) secret_env: Vec<(String, Hidden)>,
}

/// Reads the secrets of a command.
pub(crate) fn secrets(session: &Session, mounts: &[Mount]) -> Result<Supplies, Error> {
    let mut supplies = Supplies::default();
    for mount in mounts {
        if let Mount::Secret(mount) = mount {
            supplies.add_secret(session, mount)?;
        }
    }
    Ok(supplies)
}

/// Says what decides over the result of a step. The value of a secret does not.
pub(crate) fn key(mount: &Mount) -> String {
    format!("{mount:?}")
}

impl Supplies {
    fn add_secret(&mut self, session: &Session, mount: &SecretMount) -> Result<(), Error> {
        let content = find_secret(session, mount)?;
        if let Some(name) = &mount.env {
            // One that is not given is empty, not unset, as with the reference builder.
            let value = content.clone().unwrap_or_default();
            if value.expose().contains(&0) {
                return Err(unreadable(mount, secret::Error::ZeroByte));
            }
            self.secret_env.push((name.clone(), value));
        }
        if let (Some(target), Some(content)) = (&mount.target, content) {
            self.mounts.push(executor::Mount {
                target: PathBuf::from(target),
                source: MountSource::File {
                    content,
                    mode: mount.file.mode.unwrap_or(SECRET_MODE),
                    uid: mount.file.uid.unwrap_or_default(),
                    gid: mount.file.gid.unwrap_or_default(),
                },
            });
        }
        Ok(())
    }
}

fn find_secret(session: &Session, mount: &SecretMount) -> Result<Option<Hidden>, Error> {
    let id = &mount.id;
    match session.secrets.get(id) {
        Some(secret) => {
            let content = secret.read();
            content
                .map(Some)
                .map_err(|reason| unreadable(mount, reason))
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

fn unreadable(mount: &SecretMount, source: secret::Error) -> Error {
    Error::Secret {
        id: mount.id.clone(),
        source,
    }
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
pub(crate) fn check_owners(mounts: &[Mount], identity: &Identity) -> Result<(), Error> {
    let ids = identity.ids();
    for mount in mounts {
        let Some(FileInfo { uid, gid, .. }) = owner_of(mount) else {
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
